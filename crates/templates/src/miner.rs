//! The miner: lines in, delta out.
//!
//! This one only masks: every token with a digit becomes a slot and lines are grouped by the rest.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Carry, Counts, Delta, Histogram, LeafId, NewLeaf, Origin, Record, RootId, Row, Sample};

/// Bounds of a [`Miner`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Leaves kept in memory; the least used make room and are counted. 10,000 are about 24 MiB.
    pub max_templates: usize,
    /// Services whose lines are our own and are counted, not folded: exact names or, with a trailing `*`, prefixes.
    pub own_services: Vec<String>,
    /// Treat every line as a message without a header, for the benchmarks' content track.
    pub headerless: bool,
    /// Keys the hash of the hot table, so that nobody who writes log lines can aim at a collision. Random per
    /// installation; never part of an id.
    pub secret: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_templates: 10_000, own_services: vec!["logwarden*".to_owned()], headerless: false, secret: 0 }
    }
}

/// When open multi-line events count as complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The input ends here: close them all.
    Closed,
    /// Close those whose last line is before this time (as lines carry it in [`Record::time`]); carry the others on.
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Format version.
    pub version: u32,
    /// The leaves, in any order.
    pub leaves: Vec<NewLeaf>,
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
    leaves: HashMap<LeafId, NewLeaf>,
}

impl Miner {
    /// A miner that knows no template.
    pub fn new(config: Config) -> Self {
        Self { config, leaves: HashMap::new() }
    }

    /// A miner with the memory of an earlier one.
    ///
    /// # Errors
    ///
    /// When the state is from a newer version.
    pub fn restore(config: Config, state: State) -> Result<Self, StateError> {
        if state.version > State::VERSION {
            return Err(StateError::Newer(state.version));
        }
        Ok(Self { config, leaves: state.leaves.into_iter().map(|leaf| (leaf.leaf, leaf)).collect() })
    }

    /// The memory, to be stored.
    pub fn state(&self) -> State {
        let mut leaves: Vec<_> = self.leaves.values().cloned().collect();
        leaves.sort_by_key(|leaf| leaf.leaf);
        State { version: State::VERSION, leaves }
    }

    /// Folds `records`, which follow those that `carry` is from.
    pub fn fold<'a>(&self, carry: Carry, records: impl IntoIterator<Item = Record<'a>>, options: FoldOptions) -> Delta {
        let _ = (&self.config, options.end);
        let mut delta = Delta { carry, ..Delta::default() };
        let mut rows: HashMap<(Origin, LeafId), usize> = HashMap::new();
        for (number, record) in records.into_iter().enumerate() {
            let text = mask(&String::from_utf8_lossy(record.text));
            let leaf = LeafId::of(&[b"1", b"", text.as_bytes()]);
            let origin = Origin {
                host: record.stream.host().unwrap_or_default().into(),
                service: record.stream.service().unwrap_or_default().into(),
            };
            let text: Arc<str> = text.into();
            if !self.leaves.contains_key(&leaf) && !delta.new.iter().any(|new| new.leaf == leaf) {
                let example = record.text.to_vec();
                delta.new.push(NewLeaf { leaf, program: "".into(), text: text.clone(), example, first: record.time });
            }
            let at = *rows.entry((origin.clone(), leaf)).or_insert_with(|| {
                delta.rows.push(Row {
                    origin: Arc::new(origin),
                    leaf,
                    root: leaf.as_root(),
                    template: text,
                    level: record.stream.level(),
                    count: 0,
                    lines: 0,
                    first: record.time,
                    last: record.time,
                    minutes: Histogram::default(),
                    samples: Vec::new(),
                    slots: Vec::new(),
                    tags: 0,
                    first_line: u32::try_from(number).ok(),
                });
                delta.rows.len() - 1
            });
            let row = &mut delta.rows[at];
            row.count += 1;
            row.lines += 1;
            row.tags |= record.tags;
            row.first = row.first.min(record.time);
            row.last = row.last.max(record.time);
            row.minutes.add(record.time, 1);
            if row.samples.len() < 5 {
                row.samples.push(Sample { time: record.time, text: record.text.to_vec() });
            }
            if options.assign {
                delta.assignments.push(u32::try_from(at).ok());
            }
            delta.counts = Counts { read: delta.counts.read + 1, kept: delta.counts.kept + 1, ..delta.counts };
        }
        delta
    }

    /// Takes over what `delta` has learned. Call it once its commit has succeeded.
    pub fn apply(&mut self, delta: &Delta) {
        self.leaves.extend(delta.new.iter().map(|new| (new.leaf, new.clone())));
    }

    /// The root of a leaf, if the miner knows it.
    pub fn root_of(&self, leaf: LeafId) -> Option<RootId> {
        self.leaves.contains_key(&leaf).then(|| leaf.as_root())
    }
}

fn mask(line: &str) -> String {
    let token = |word: &str| if word.bytes().any(|b| b.is_ascii_digit()) { "<*>".to_owned() } else { word.to_owned() };
    line.split(' ').map(token).collect::<Vec<_>>().join(" ")
}
