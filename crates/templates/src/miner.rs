//! The miner: lines in, delta out.
//!
//! [`Miner::fold`] reads committed memory and learns in an overlay of its own, which it throws away: the delta names the
//! new leaves, and [`Miner::apply`] learns them again. Since roots are the closure of the leaves (see `closure`), both
//! come to the same.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    Delta, LeafId, NewLeaf, RootId,
    closure::{Closure, Known, Named},
    scan::{Keyed, Masked},
};

/// Bounds of a [`Miner`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Leaves kept in memory, fewer when they take more than 2 KiB each on average; the least recently used make room and
    /// are counted. 10,000 are about 10 MiB, and 20 MiB at most.
    pub max_templates: usize,
    /// Services whose lines are our own and are counted, not folded: exact names or, with a trailing `*`, prefixes.
    pub own_services: Vec<String>,
    /// Treat every line as a message without a header, for the benchmarks' content track.
    pub headerless: bool,
    /// Keys the hash of the hot table, so that nobody who writes log lines can aim at a collision. Random per
    /// installation; never part of an id.
    pub secret: u64,
    /// New leaves that one program may make in one fold; its further unknown lines are folded coarsely, by length, first
    /// and last constant word, and counted. Half as many in the next fold, and so on, until it stops. All programs
    /// together may make half of `max_templates`, and half as many in the next fold in the same way.
    pub max_new_per_program: usize,
    /// Rows of one fold: beyond them, lines of a new host or program are counted in their template's row of no origin.
    pub max_rows: usize,
    /// Variables of a template whose values a row keeps.
    pub slots: usize,
    /// Values that a row keeps of each variable.
    pub values: usize,
    /// Values that a row keeps of variables that are addresses, hosts or users.
    pub entities: usize,
    /// Bytes that the values of all rows of a fold take: when there are more, all rows keep half as many, and so on.
    pub values_bytes: usize,
    /// Sample events that a row keeps: the first ones and the last.
    pub samples: usize,
    /// Longer samples are shortened in the middle.
    pub sample_bytes: usize,
    /// Bytes that the samples of all rows of a fold take: further rows have one.
    pub samples_bytes: usize,
    /// Lines of a multi-line event that are kept; those in the middle of a longer one are counted.
    pub event_lines: u64,
    /// Bytes of a multi-line event that are kept.
    pub event_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_templates: 10_000,
            own_services: vec!["logwarden*".to_owned()],
            headerless: false,
            secret: 0,
            max_new_per_program: 2_000,
            max_rows: 20_000,
            slots: 12,
            values: 8,
            entities: 128,
            values_bytes: 4 << 20,
            samples: 5,
            sample_bytes: 16 * 1024,
            samples_bytes: 8 << 20,
            event_lines: 500,
            event_bytes: 64 * 1024,
        }
    }
}

/// When open multi-line events count as complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The input ends here: close them all.
    Closed,
    /// Close those whose last line is before this time (as lines carry it in [`Record::time`](crate::Record::time)); carry
    /// the others on.
    Open(crate::Timestamp),
}

/// How one fold is made.
#[derive(Clone, Copy, Debug)]
pub struct FoldOptions {
    /// When open multi-line events count as complete.
    pub end: End,
    /// Whether to fill [`Delta::assignments`].
    pub assign: bool,
}

/// State that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Written by a newer version.
    #[error("the miner's state has version {0}, this program reads up to {CURRENT}", CURRENT = State::VERSION)]
    Newer(u32),
}

/// A miner's memory: its leaf set. Roots are not stored: they are the canonical closure of the leaves.
///
/// The union of two states (all leaves of both) is the state of one miner that has seen both inputs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Format version.
    pub version: u32,
    /// The leaves, in any order.
    pub leaves: Vec<NewLeaf>,
    /// Leaves that were evicted, oldest first, so that they are not novel when they come back.
    #[serde(default)]
    pub gone: Vec<LeafId>,
}

impl State {
    /// The version that this program writes.
    pub const VERSION: u32 = 1;
}

/// Folds lines into templates.
///
/// [`Miner::fold`] reads the miner and changes nothing; [`Miner::apply`] takes over what a delta has learned.
#[derive(Debug)]
pub struct Miner {
    config: Config,
    closure: Closure,
    /// For each leaf of the closure the number of the fold that used it last.
    used: Vec<u32>,
    folds: u32,
    gone: Gone,
    /// Programs that flooded: in how many folds in a row.
    floods: HashMap<Arc<str>, u32>,
    /// In how many folds in a row all programs together did.
    flooded: u32,
}

/// Finds the known leaves of messages; see [`Miner::matcher`].
#[derive(Debug)]
pub struct Matcher<'m> {
    closure: &'m Closure,
    masked: Masked,
}

impl Matcher<'_> {
    /// The leaf of a message without a header, as `program` wrote it; `None` when a fold would make a new one.
    pub fn leaf(&mut self, program: &str, message: &[u8]) -> Option<LeafId> {
        let program = self.closure.keyed().program(program.as_bytes());
        self.masked.line(program, message);
        let at =
            self.closure.find(self.masked.key).or_else(|| match self.closure.known(program, &self.masked, message) {
                Known::Under(general) => self.closure.own_leaf(general),
                Known::No => None,
            });
        at.map(|at| self.closure.leaf(at).leaf)
    }
}

/// The leaves that were evicted: a bounded memory.
#[derive(Debug, Default)]
struct Gone {
    order: VecDeque<LeafId>,
    set: HashSet<LeafId>,
}

/// New leaves that a program may make in a fold however long it has flooded.
const FLOOD_BUDGET: usize = 32;

/// So many templates may be long ones.
const FEW: usize = 500;

/// What a template may take on average. One of an ordinary line takes half of that.
pub(crate) const BYTES_PER_TEMPLATE: usize = 2048;

/// Evicted leaves are remembered up to this many times [`Config::max_templates`].
const GONE_PER_TEMPLATE: usize = 4;

impl Gone {
    fn insert(&mut self, id: LeafId, max: usize) {
        if self.set.insert(id) {
            self.order.push_back(id);
        }
        while self.order.len() > max {
            if let Some(oldest) = self.order.pop_front() {
                self.set.remove(&oldest);
            }
        }
    }
}

impl Miner {
    /// A miner that knows no template.
    pub fn new(config: Config) -> Self {
        let closure = Closure::new(Keyed::new(config.secret));
        Self { config, closure, used: Vec::new(), folds: 0, gone: Gone::default(), floods: HashMap::new(), flooded: 0 }
    }

    /// A miner with the memory of an earlier one.
    ///
    /// A state of an older version is read as it is; should a later scanner mask differently, each leaf's
    /// [example](NewLeaf::example) says what its line is called now.
    ///
    /// # Errors
    ///
    /// When the state is from a newer version.
    pub fn restore(config: Config, state: State) -> Result<Self, StateError> {
        if state.version > State::VERSION {
            return Err(StateError::Newer(state.version));
        }
        let mut miner = Self::new(config);
        for leaf in state.leaves {
            miner.closure.insert(leaf);
        }
        miner.used.resize(miner.closure.len(), 0);
        for id in state.gone {
            miner.forget(id);
        }
        Ok(miner)
    }

    /// The memory, to be stored.
    pub fn state(&self) -> State {
        let mut leaves: Vec<_> = self.closure.leaves().cloned().collect();
        leaves.sort_by_key(|leaf| leaf.leaf);
        State { version: State::VERSION, leaves, gone: self.gone.order.iter().copied().collect() }
    }

    /// Learns the leaves that another miner knows, as if this one had seen them.
    ///
    /// # Errors
    ///
    /// When the state is from a newer version.
    pub fn merge(&mut self, state: State) -> Result<(), StateError> {
        if state.version > State::VERSION {
            return Err(StateError::Newer(state.version));
        }
        for leaf in state.leaves {
            self.closure.insert(leaf);
        }
        self.used.resize(self.closure.len(), self.folds);
        for id in state.gone {
            self.forget(id);
        }
        Ok(())
    }

    /// Takes over what `delta` has learned. Call it once its commit has succeeded.
    pub fn apply(&mut self, delta: &Delta) {
        self.apply_used(delta, delta.rows.iter().map(|row| row.leaf));
    }

    /// The same for a delta without its rows, which were of these leaves.
    pub(crate) fn apply_used(&mut self, delta: &Delta, used: impl IntoIterator<Item = LeafId>) {
        self.folds += 1;
        for new in &delta.new {
            self.closure.insert(new.clone());
        }
        self.used.resize(self.closure.len(), self.folds);
        for leaf in used {
            if let Some(at) = self.closure.by_id(leaf) {
                self.used[at as usize] = self.folds;
            }
        }
        self.watch(delta);
        if !delta.evicted.is_empty() {
            self.evict(&delta.evicted);
        }
        self.closure.take_moved();
    }

    /// Notes which programs flood.
    fn watch(&mut self, delta: &Delta) {
        self.flooded = if delta.new.len() >= self.budget_of_all() { self.flooded + 1 } else { 0 };
        let mut made: HashMap<Arc<str>, usize> = HashMap::new();
        for new in &delta.new {
            *made.entry(new.program.clone()).or_default() += 1;
        }
        made.retain(|program, made| *made >= self.budget(program));
        self.floods =
            made.into_keys().map(|program| (program.clone(), self.floods.get(&program).map_or(1, |n| n + 1))).collect();
    }

    /// How many new leaves a program may make in a fold: the longer it floods, the fewer.
    pub(crate) fn budget(&self, program: &str) -> usize {
        let max = self.config.max_new_per_program;
        let floods = self.floods.get(program).copied().unwrap_or(0);
        max.checked_shr(floods).unwrap_or(0).max(FLOOD_BUDGET.min(max))
    }

    /// The same for all programs together.
    pub(crate) fn budget_of_all(&self) -> usize {
        let max = self.config.max_templates;
        (max / 2).checked_shr(self.flooded).unwrap_or(0).max(max / 32).max(FLOOD_BUDGET)
    }

    /// How much memory the templates may take.
    pub(crate) fn max_bytes(&self) -> usize {
        self.config.max_templates.max(FEW).saturating_mul(BYTES_PER_TEMPLATE)
    }

    fn evict(&mut self, evicted: &[LeafId]) {
        let victims: HashSet<_> = evicted.iter().copied().collect();
        let keyed = self.closure.keyed();
        let old = std::mem::replace(&mut self.closure, Closure::new(keyed)).into_leaves();
        let used = std::mem::take(&mut self.used);
        for (leaf, last) in old.zip(used) {
            if !victims.contains(&leaf.leaf) {
                self.closure.insert(leaf);
                self.used.push(last);
            }
        }
        for id in evicted {
            self.forget(*id);
        }
    }

    fn forget(&mut self, id: LeafId) {
        self.gone.insert(id, self.config.max_templates.saturating_mul(GONE_PER_TEMPLATE));
    }

    /// The root of a leaf, if the miner knows it.
    pub fn root_of(&self, leaf: LeafId) -> Option<RootId> {
        self.closure.by_id(leaf).map(|at| self.closure.root(at))
    }

    /// The text of the template that a leaf belongs to, if the miner knows it: variables are `<*>` or `<*:type>`.
    pub fn text_of(&self, leaf: LeafId) -> Option<Arc<str>> {
        self.closure.by_id(leaf).map(|at| self.closure.named(at).text)
    }

    /// A leaf as rows show it, if the miner knows it.
    pub(crate) fn named(&self, leaf: LeafId) -> Option<Named> {
        self.closure.by_id(leaf).map(|at| self.closure.named(at))
    }

    /// Finds the known leaves of messages without counting them.
    pub fn matcher(&self) -> Matcher<'_> {
        Matcher { closure: &self.closure, masked: Masked::new(self.closure.keyed()) }
    }

    /// How many templates the miner knows: the roots of its leaves.
    pub fn templates(&self) -> usize {
        (0..self.len()).map(|at| self.closure.root(at as u32)).collect::<HashSet<_>>().len()
    }

    /// How many leaves the miner knows.
    pub fn len(&self) -> usize {
        self.closure.len()
    }

    /// Whether the miner knows no leaf.
    pub fn is_empty(&self) -> bool {
        self.closure.len() == 0
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn closure(&self) -> Cow<'_, Closure> {
        Cow::Borrowed(&self.closure)
    }

    pub(crate) fn last_used(&self, at: usize) -> u32 {
        self.used.get(at).copied().unwrap_or(u32::MAX)
    }

    pub(crate) fn is_gone(&self, id: LeafId) -> bool {
        self.gone.set.contains(&id)
    }
}
