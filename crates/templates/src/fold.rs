//! One fold: lines through header, joiner and scanner into rows.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use hashbrown::HashMap;

use crate::{
    Carry, Clock, Config, Delta, End, FoldOptions, LeafId, Level, Miner, Move, NewLeaf, Origin, Record, SlotKind,
    Stream,
    access::Access,
    closure::{ByHash, Closure, Index, Known, Named, leaf_id},
    fields::{Fields, Role},
    header::{Body, HeaderState, Parsed},
    join::{Bounds, Event, Joiner},
    miner::BYTES_PER_TEMPLATE,
    rows::{Building, Rows, Seen},
    samples::Samples,
    scan::{self, Masked, What},
    slots::Limits,
    template,
};

/// Bytes of the line that made a leaf: as much as the scanner looks at, and a header before it.
const EXAMPLE_BYTES: usize = scan::MAX_BYTES + 1024;

/// Keys that a fold remembers the row of; when there are more it forgets all and looks them up again.
const HOT: usize = 1 << 16;

impl Miner {
    /// Folds `records`, which follow those that `carry` is from.
    pub fn fold<'a>(&self, carry: Carry, records: impl IntoIterator<Item = Record<'a>>, options: FoldOptions) -> Delta {
        self.folded(carry, records, options).into_delta()
    }

    /// The same, but for making the rows.
    pub(crate) fn folded<'a>(
        &self,
        carry: Carry,
        records: impl IntoIterator<Item = Record<'a>>,
        options: FoldOptions,
    ) -> Folded<'_, 'a> {
        let mut fold = Fold::new(self, options, &carry);
        for record in records {
            fold.push(record);
        }
        fold.finish()
    }
}

struct Fold<'m, 'a> {
    miner: &'m Miner,
    closure: Cow<'m, Closure>,
    options: FoldOptions,
    bounds: Bounds,
    limits: Limits,
    streams: Vec<Source<'a>>,
    by_address: HashMap<usize, usize>,
    by_labels: HashMap<BTreeMap<String, String>, usize>,
    latest: (usize, usize),
    origins: Vec<Arc<Origin>>,
    by_origin: HashMap<Origin, u32>,
    masked: Masked,
    /// For reading templates.
    template: Masked,
    /// The row of a line with this key, by origin.
    hot: ByHash<u32>,
    by_leaf: HashMap<(u32, Index), u32>,
    rows: Rows<'a>,
    /// Bytes that their values take, and may take.
    values: usize,
    most_values: usize,
    /// New leaves that each program has made.
    made: HashMap<Arc<str>, usize>,
    delta: Delta,
}

/// A fold that has ended: all of its delta but the rows, and what these are made of.
pub(crate) struct Folded<'m, 'a> {
    pub(crate) delta: Delta,
    pub(crate) rows: Rows<'a>,
    pub(crate) closure: Cow<'m, Closure>,
    pub(crate) limits: Limits,
    origins: Vec<Arc<Origin>>,
    config: &'m Config,
}

/// A stream as one fold knows it.
struct Source<'a> {
    stream: Arc<Stream>,
    header: HeaderState,
    joiner: Joiner<'a>,
    level: Option<Level>,
    /// The open event: its first line, and all of them when they are to be assigned.
    first_line: Option<u32>,
    lines: Vec<u32>,
    carried: Option<usize>,
    who: Option<Who>,
}

/// Who the last line of a stream was from.
struct Who {
    host: Option<Vec<u8>>,
    program: Option<Vec<u8>>,
    name: Origin,
    /// Its number, once it has a row.
    origin: Option<u32>,
    own: bool,
    /// The program in the leaves' identity, and its part of their keys.
    identity: Arc<str>,
    key: u64,
}

impl<'m, 'a> Fold<'m, 'a> {
    pub(crate) fn new(miner: &'m Miner, options: FoldOptions, carry: &Carry) -> Self {
        let config = miner.config();
        let closure = miner.closure();
        let keyed = closure.keyed();
        let bounds = Bounds { bytes: config.event_bytes, lines: config.event_lines, ..Bounds::default() };
        let mut fold = Self {
            miner,
            closure,
            options,
            bounds,
            limits: Limits { values: config.values, entities: config.entities },
            streams: Vec::new(),
            by_address: HashMap::new(),
            by_labels: HashMap::new(),
            latest: (0, 0),
            origins: Vec::new(),
            by_origin: HashMap::new(),
            masked: Masked::new(keyed),
            template: Masked::new(keyed),
            hot: ByHash::default(),
            by_leaf: HashMap::new(),
            rows: Rows::default(),
            values: 0,
            most_values: config.values_bytes,
            made: HashMap::new(),
            delta: Delta::default(),
        };
        if options.assign {
            fold.delta.carry_assignments = vec![None; carry.open.len()];
        }
        for (number, open) in carry.open.iter().enumerate() {
            fold.delta.counts.carried_in += open.lines;
            let at = fold.source(&open.stream);
            // One open event a stream: should there be two, the first is complete.
            fold.close(at);
            fold.streams[at].joiner = Joiner::resume(open);
            fold.streams[at].carried = Some(number);
        }
        fold
    }

    /// Takes the next line.
    pub(crate) fn push(&mut self, record: Record<'a>) {
        let number = u32::try_from(self.delta.counts.read).unwrap_or(u32::MAX);
        self.delta.counts.read += 1;
        if self.options.assign {
            self.delta.assignments.push(None);
        }
        let at = self.source(record.stream);
        if self.miner.config().headerless {
            let body = Parsed { body: Body::Text(Cow::Borrowed(record.text)), ..Parsed::default() };
            let event = Event {
                time: record.time,
                clock: record.clock,
                tags: record.tags,
                lines: 1,
                middle: 0,
                text: Cow::Borrowed(record.text),
                parsed: Some(body),
            };
            let row = self.count(at, event, Some(number));
            self.assign(&[number], row);
            return;
        }
        let source = &mut self.streams[at];
        let parsed = source.header.parse(&record);
        if self.is_own(at, &parsed) {
            self.delta.counts.own += 1;
            return;
        }
        let source = &mut self.streams[at];
        if let Some(event) = source.joiner.push(record, parsed, &self.bounds) {
            self.settle(at, event);
        }
        let source = &mut self.streams[at];
        if source.carried.is_none() && source.first_line.is_none() {
            source.first_line = Some(number);
        }
        if self.options.assign {
            source.lines.push(number);
        }
    }

    /// The stream of a record.
    fn source(&mut self, stream: &Arc<Stream>) -> usize {
        let address = Arc::as_ptr(stream).addr();
        if self.latest.0 == address && !self.streams.is_empty() {
            return self.latest.1;
        }
        let at = match self.by_address.get(&address) {
            Some(at) => *at,
            None => {
                let at = match self.by_labels.get(stream.labels()) {
                    Some(at) => *at,
                    None => {
                        self.by_labels.insert(stream.labels().clone(), self.streams.len());
                        self.streams.push(Source {
                            stream: stream.clone(),
                            header: HeaderState::default(),
                            joiner: Joiner::default(),
                            level: stream.level(),
                            first_line: None,
                            lines: Vec::new(),
                            carried: None,
                            who: None,
                        });
                        self.streams.len() - 1
                    }
                };
                self.by_address.insert(address, at);
                at
            }
        };
        self.latest = (address, at);
        at
    }

    /// Counts a complete event of a stream.
    fn settle(&mut self, at: usize, event: Event<'a>) {
        let source = &mut self.streams[at];
        let first_line = source.first_line.take();
        let lines = std::mem::take(&mut source.lines);
        let carried = source.carried.take();
        let row = self.count(at, event, first_line);
        self.assign(&lines, row);
        if let Some(assigned) = carried.and_then(|number| self.delta.carry_assignments.get_mut(number)) {
            *assigned = Some(row);
        }
        let mut lines = lines;
        lines.clear();
        self.streams[at].lines = lines;
    }

    fn assign(&mut self, lines: &[u32], row: u32) {
        if self.options.assign {
            for line in lines {
                if let Some(assigned) = self.delta.assignments.get_mut(*line as usize) {
                    *assigned = Some(row);
                }
            }
        }
    }

    fn close(&mut self, at: usize) {
        if let Some(event) = self.streams[at].joiner.close() {
            self.settle(at, event);
        }
    }

    fn is_own(&mut self, at: usize, parsed: &Parsed<'_>) -> bool {
        self.who(at, parsed);
        self.streams[at].who.as_ref().is_some_and(|who| who.own)
    }

    /// Finds out who a line is from; cheap when it is who the line before was from.
    fn who(&mut self, at: usize, parsed: &Parsed<'_>) {
        let source = &mut self.streams[at];
        if let Some(who) = &source.who
            && who.host.as_deref() == parsed.host
            && who.program.as_deref() == parsed.program
        {
            return;
        }
        let text = |bytes: Option<&[u8]>| {
            bytes.map(|bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).into_owned())
        };
        let (host, program) = (text(parsed.host), text(parsed.program));
        let labels = &source.stream;
        let origin = Origin {
            host: labels.host_of(host.as_deref()).into(),
            service: program.clone().or_else(|| labels.service().map(str::to_owned)).unwrap_or_default().into(),
        };
        let own = self.miner.config().own_services.iter().any(|own| match own.strip_suffix('*') {
            Some(prefix) => origin.service.starts_with(prefix),
            None => **own == *origin.service,
        });
        let identity: Arc<str> = identity(program.as_deref().unwrap_or_default()).into();
        self.streams[at].who = Some(Who {
            host: parsed.host.map(<[u8]>::to_vec),
            program: parsed.program.map(<[u8]>::to_vec),
            origin: self.by_origin.get(&origin).copied(),
            name: origin,
            own,
            key: self.closure.keyed().program(identity.as_bytes()),
            identity,
        });
    }

    /// Counts an event. Returns its row.
    fn count(&mut self, at: usize, mut event: Event<'a>, first_line: Option<u32>) -> u32 {
        self.delta.counts.kept += event.lines;
        self.delta.counts.middle += event.middle;
        let text = std::mem::replace(&mut event.text, Cow::Borrowed(b""));
        let stream;
        let parsed = match event.parsed.take() {
            Some(parsed) => parsed,
            None => {
                stream = self.streams[at].stream.clone();
                let record =
                    Record { stream: &stream, time: event.time, clock: event.clock, text: &text, tags: event.tags };
                self.streams[at].header.parse(&record)
            }
        };
        self.who(at, &parsed);
        let source = &self.streams[at];
        let (mut origin, program) = source.who.as_ref().map_or((None, 0), |who| (who.origin, who.key));
        let message: &[u8] = match &parsed.body {
            Body::Text(text) => {
                self.masked.line(program, text);
                text
            }
            Body::Fields(fields) => {
                scan_fields(&mut self.masked, program, fields);
                b""
            }
            Body::Access(access) => {
                scan_access(&mut self.masked, program, access);
                b""
            }
        };
        let seen = Seen {
            time: match event.clock {
                Clock::Record => event.time,
                Clock::Arrival => parsed.time.unwrap_or(event.time),
            },
            level: parsed.level.or(source.level),
            lines: event.lines,
            tags: event.tags,
            text: &text,
            first_line,
        };
        let row = match origin.and_then(|origin| self.hot.get(&hot(self.masked.key, origin))) {
            Some(row) => *row,
            None => {
                let (leaf, nameless) = self.leaf(at, message, &text, seen.time, event.lines);
                let room = self.rows.len() < self.miner.config().max_rows;
                if !nameless && (room || origin.is_some_and(|origin| self.by_leaf.contains_key(&(origin, leaf)))) {
                    let origin = *origin.get_or_insert_with(|| self.intern(at));
                    let row = self.row(origin, leaf, &seen);
                    if self.hot.len() >= HOT {
                        self.hot.clear();
                    }
                    self.hot.insert(hot(self.masked.key, origin), row);
                    row
                } else {
                    self.delta.counts.crowded += event.lines;
                    let nobody = self.origin(Origin::default());
                    self.row(nobody, leaf, &seen)
                }
            }
        };
        self.rows[row].add(&seen, self.miner.config());
        let source = self.masked.source(message);
        let more = self.rows.add_values(row, seen.time, &self.masked, source, &self.limits);
        self.values = self.values.saturating_add_signed(more);
        if self.values > self.most_values {
            self.make_room();
        }
        row
    }

    /// Keeps fewer values of each variable.
    fn make_room(&mut self) {
        while self.values > self.most_values {
            if !self.limits.halve(2) {
                // Each has some four at most.
                self.most_values = usize::MAX;
                return;
            }
            self.values = self.rows.shrink(&self.limits);
        }
    }

    /// The row of an origin's leaf.
    fn row(&mut self, origin: u32, leaf: Index, seen: &Seen<'a, '_>) -> u32 {
        *self.by_leaf.entry((origin, leaf)).or_insert_with(|| {
            let (mut kinds, words) = self.closure.slots(leaf, &mut self.template);
            kinds.truncate(self.miner.config().slots);
            self.rows.push(Building::new(origin, leaf, &kinds, words, seen));
            (self.rows.len() - 1) as u32
        })
    }

    /// The number of the origin that a stream's line is from.
    fn intern(&mut self, at: usize) -> u32 {
        let name = self.streams[at].who.as_ref().map(|who| who.name.clone()).unwrap_or_default();
        let origin = self.origin(name);
        if let Some(who) = &mut self.streams[at].who {
            who.origin = Some(origin);
        }
        origin
    }

    fn origin(&mut self, origin: Origin) -> u32 {
        *self.by_origin.entry(origin).or_insert_with_key(|origin| {
            self.origins.push(Arc::new(origin.clone()));
            (self.origins.len() - 1) as u32
        })
    }

    /// The leaf of the line that was just scanned; makes it if need be. With whether it is one without a program, since
    /// programs' names flood.
    fn leaf(&mut self, at: usize, message: &[u8], text: &[u8], time: crate::Timestamp, lines: u64) -> (Index, bool) {
        if let Some(leaf) = self.closure.find(self.masked.key) {
            return (leaf, false);
        }
        let (program, identity) = match &self.streams[at].who {
            Some(who) => (who.key, who.identity.clone()),
            None => (0, "".into()),
        };
        if let Known::Under(general) = self.closure.known(program, &self.masked, message) {
            self.delta.counts.absorbed += lines;
            let own = self.closure.own_leaf(general);
            return (own.unwrap_or_else(|| self.learn(self.closure.make_own_leaf(general))), false);
        }
        let stored = template::stored(&self.masked, message);
        let mut leaf = self.name(&identity, program, stored);
        if let Some(known) = self.closure.by_id(leaf.0) {
            return (known, false);
        }
        let max = self.miner.budget(&identity);
        let full = self.delta.new.len() >= self.miner.budget_of_all() || self.grown() >= self.miner.max_bytes() / 2;
        let made = match full {
            // Not one more name is remembered.
            true => max,
            false => {
                let made = self.made.entry(identity.clone()).or_insert(0);
                // A long one counts as several.
                *made += 1 + (leaf.1.len() + text.len().min(EXAMPLE_BYTES)) / BYTES_PER_TEMPLATE;
                *made
            }
        };
        // Should programs' names flood as well, the coarsest form has none.
        let identity: Arc<str> = if full { "".into() } else { identity };
        if full || made > max {
            self.delta.counts.coarse += lines;
            leaf = self.name(&identity, program, coarse(&self.masked, message, full || made > max.saturating_mul(2)));
            if let Some(known) = self.closure.by_id(leaf.0) {
                return (known, full);
            }
        }
        let (id, stored) = leaf;
        let example = text[..text.len().min(EXAMPLE_BYTES)].to_vec();
        (self.learn(NewLeaf { leaf: id, program: identity, text: stored.into(), example, first: time }), full)
    }

    /// How much memory the leaves take that this fold has made.
    fn grown(&self) -> usize {
        self.closure.bytes().saturating_sub(self.miner.closure().bytes())
    }

    fn name(&self, program: &str, key: u64, stored: String) -> (LeafId, String) {
        let mut masked = Masked::new(self.closure.keyed());
        masked.template(key, stored.as_bytes());
        (leaf_id(program, &template::render(&masked, stored.as_bytes(), 0, &[])), stored)
    }

    fn learn(&mut self, leaf: NewLeaf) -> Index {
        if let Some(known) = self.closure.by_id(leaf.leaf) {
            return known;
        }
        if self.miner.is_gone(leaf.leaf) {
            self.delta.returned.push(leaf.leaf);
        }
        self.delta.new.push(leaf.clone());
        self.closure.to_mut().insert(leaf)
    }

    /// Ends the fold.
    pub(crate) fn finish(mut self) -> Folded<'m, 'a> {
        for at in 0..self.streams.len() {
            let open = match (self.options.end, self.streams[at].joiner.last()) {
                (_, None) => continue,
                (End::Closed, _) => false,
                (End::Open(until), Some(last)) => last >= until,
            };
            if !open {
                self.close(at);
                continue;
            }
            let source = &mut self.streams[at];
            let stream = source.stream.clone();
            if let Some(event) = std::mem::take(&mut source.joiner).into_open(&stream) {
                self.delta.counts.carried += event.lines;
                self.delta.carry.open.push(event);
                if self.options.assign {
                    self.delta.carry_lines.push(std::mem::take(&mut source.lines));
                }
            }
        }
        self.evict();
        let committed = self.miner.closure();
        self.delta.counts.unpaired = self.closure.unpaired().saturating_sub(committed.unpaired());
        let mut moved = match &mut self.closure {
            Cow::Borrowed(_) => Vec::new(),
            Cow::Owned(closure) => closure.take_moved(),
        };
        moved.retain(|at| (*at as usize) >= committed.len() || committed.root(*at) != self.closure.root(*at));
        self.delta.moves = moved
            .into_iter()
            .map(|at| Move {
                leaf: self.closure.leaf(at).leaf,
                from: ((at as usize) < committed.len()).then(|| committed.root(at)),
                to: self.closure.root(at),
            })
            .collect();
        let Self { miner, closure, limits, origins, rows, delta, .. } = self;
        Folded { delta, rows, closure, limits, origins, config: miner.config() }
    }

    /// Makes room: names the leaves that memory will lose, the least recently used first.
    fn evict(&mut self) {
        let max = self.miner.config().max_templates;
        let (all, max_bytes) = (self.closure.len(), self.miner.max_bytes());
        // A tenth more than need be, so that this is not done in every fold.
        let excess = |is: usize, max: usize| if is > max { is - max + max / 10 } else { 0 };
        let (mut leaves, mut bytes) = (excess(all, max), excess(self.closure.bytes(), max_bytes));
        if (leaves, bytes) == (0, 0) {
            return;
        }
        let used: HashSet<Index> = self.rows.iter().map(|row| row.leaf).collect();
        let mut candidates: Vec<(bool, u32, Index)> =
            (0..all as Index).map(|at| (used.contains(&at), self.miner.last_used(at as usize), at)).collect();
        candidates.sort_unstable();
        let mut victims: Vec<Index> = Vec::new();
        for (_, _, at) in candidates {
            if (leaves, bytes) == (0, 0) {
                break;
            }
            victims.push(at);
            leaves = leaves.saturating_sub(1);
            bytes = bytes.saturating_sub(self.closure.bytes_of(at));
        }
        // A template whose leaves go stays, by a leaf of its own.
        let gone: HashSet<Index> = victims.iter().copied().collect();
        let mut kept = HashSet::new();
        for at in &victims {
            let Some(general) = self.closure.general_of(*at) else { continue };
            match self.closure.own_leaf(general) {
                Some(own) if gone.contains(&own) => {
                    kept.insert(own);
                }
                Some(_) => {}
                None => {
                    let leaf = self.closure.make_own_leaf(general);
                    self.learn(leaf);
                }
            }
        }
        self.delta.evicted =
            victims.iter().filter(|at| !kept.contains(*at)).map(|at| self.closure.leaf(*at).leaf).collect();
        self.delta.counts.evicted = self.delta.evicted.len() as u64;
    }
}

impl Folded<'_, '_> {
    /// Makes the rows.
    pub(crate) fn into_delta(self) -> Delta {
        let Self { mut delta, rows, closure, limits, origins, config } = self;
        delta.rows.reserve_exact(rows.len());
        // What leaves are called is kept while several origins share them, and no longer: there may be very many.
        let mut left: HashMap<Index, u32> = HashMap::new();
        for row in rows.iter() {
            *left.entry(row.leaf).or_insert(0) += 1;
        }
        let mut names: HashMap<Index, Named> = HashMap::new();
        let (mut samples, mut taken) = (Samples::default(), 0);
        let fewer_values = (limits.values, limits.entities) != (config.values, config.entities);
        for (row, values) in rows.into_iter() {
            let leaf = row.leaf;
            let named = names.entry(leaf).or_insert_with(|| closure.named(leaf));
            let origin = origins.get(row.origin as usize).cloned().unwrap_or_default();
            let most = if taken > config.samples_bytes { 1 } else { config.samples };
            samples.truncate(0);
            row.samples(config).take(most).for_each(|(time, text)| samples.push(time, &text));
            let fewer_samples = row.samples(config).nth(most).is_some();
            delta.counts.thinned += u64::from(fewer_values || fewer_samples);
            taken += samples.size();
            // Of exactly the size that it needs.
            delta.rows.push(row.finish(origin, named, samples.clone(), values, config, &limits));
            if let Some(left) = left.get_mut(&leaf) {
                *left -= 1;
                if *left == 0 {
                    names.remove(&leaf);
                }
            }
        }
        delta
    }
}

/// Where a key's row for an origin is looked up.
fn hot(key: u64, origin: u32) -> u64 {
    key.wrapping_add((u64::from(origin) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The program in a leaf's identity: as it is, but for numbers that tell instances apart (`worker-17`, `kworker/0:1`).
fn identity(program: &str) -> String {
    let mut out = String::with_capacity(program.len());
    let mut before = ' ';
    let mut digits = program.chars().peekable();
    while let Some(letter) = digits.next() {
        let run = letter.is_ascii_digit()
            && (!before.is_ascii_alphabetic() || digits.peek().is_some_and(char::is_ascii_digit));
        if run {
            while digits.next_if(|c| c.is_ascii_hexdigit() || *c == '.').is_some() {}
            out.push('#');
            before = '#';
        } else {
            out.push(letter);
            before = letter;
        }
    }
    out
}

/// The form for lines of programs that flood: first and last constant word, and how long.
fn coarse(masked: &Masked, message: &[u8], flood: bool) -> String {
    let source = masked.source(message);
    let words: Vec<&[u8]> = masked
        .pieces
        .iter()
        .filter(|piece| piece.what == What::Word)
        .map(|piece| Masked::word(source, piece))
        .filter(|word| word.iter().any(u8::is_ascii_alphabetic))
        .collect();
    let word = |word: Option<&&[u8]>| match word {
        Some(word) if !flood => String::from_utf8_lossy(&word[..word.len().min(64)]).into_owned(),
        _ => String::new(),
    };
    let pieces = masked.pieces.len().next_power_of_two();
    format!("{} <*:text> {} {{up to {pieces} words}}", word(words.first()), word(words.last())).trim_start().to_owned()
}

fn scan_fields(masked: &mut Masked, program: u64, fields: &Fields<'_>) {
    masked.compose(program);
    masked.add_line(&fields.message);
    for field in &fields.fields {
        match field.role {
            Role::Constant => masked.add_constant(&field.key, &field.value),
            Role::Slot => {
                let kind = match &*field.value {
                    [] => SlotKind::Any,
                    value => crate::lexicon::kind(value).0,
                };
                masked.add_value(&field.key, &field.value, kind);
            }
        }
    }
}

fn scan_access(masked: &mut Masked, program: u64, access: &Access<'_>) {
    masked.compose(program);
    let class = format!(" {}xx", (access.status / 100).min(9));
    masked.add_template(access.method);
    masked.add_template(&[b" ", &*access.route].concat());
    masked.add_template(class.as_bytes());
    let mut number = [0; 5];
    masked.add_value(b"client", access.client, client_kind(access.client));
    masked.add_value(b"user", access.user.unwrap_or_default(), SlotKind::User);
    masked.add_value(b"agent", access.agent, SlotKind::Any);
    masked.add_value(b"target", access.target, SlotKind::Url);
    masked.add_value(b"status", decimal(access.status, &mut number), SlotKind::Num);
    for (key, value, kind) in [
        (&b"vhost"[..], access.vhost, SlotKind::Host),
        (b"duration", access.duration, SlotKind::Duration),
        // Answers without a body are no template of their own.
        (b"size", Some(access.size.unwrap_or_default()), SlotKind::Size),
    ] {
        if let Some(value) = value {
            masked.add_value(key, value, kind);
        }
    }
}

fn client_kind(client: &[u8]) -> SlotKind {
    match crate::lexicon::colon_address(client) {
        Some((len, kind)) if len == client.len() => kind,
        _ if client.is_empty() => SlotKind::Any,
        _ => match crate::lexicon::kind(client).0 {
            SlotKind::Ip => SlotKind::Ip,
            _ => SlotKind::Host,
        },
    }
}

fn decimal(number: u16, out: &mut [u8; 5]) -> &[u8] {
    let mut at = out.len();
    let mut rest = number;
    loop {
        at -= 1;
        out[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 || at == 0 {
            return &out[at..];
        }
    }
}
