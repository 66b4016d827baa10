//! A whole input, read in pages: what its templates come to, and which one each line belongs to in the end.

use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    Carry, Counts, Delta, End, FoldOptions, Histogram, LeafId, Level, Miner, Record, RootId, Row, Sample, Slot,
    SlotValue, Stream, Timestamp,
    rows::shortened,
    slots::{self, Distinct, Limits},
    template,
};

/// Values of all variables that are remembered at most, some 100 bytes each, unless each variable has only two of them.
const MOST_VALUES: usize = 1 << 16;
/// Bytes of all samples that are remembered at most, unless each leaf has only a short one.
const MOST_TEXT: usize = 8 << 20;
/// What a sample takes beside its text, and what is left of it at least.
const SAMPLE_BYTES: usize = 64;
const SHORT_SAMPLE: usize = 256;

/// Folds an input page by page, applying each delta, and sums up by root at the end: a template that generalises late
/// takes its early lines along.
///
/// ```
/// use std::sync::Arc;
///
/// use logwarden_templates::{Clock, Config, Miner, Record, Stream, Tally, Timestamp};
///
/// let log = "\
/// Nov 21 04:00:00 web-1 sshd[811]: Failed password for root from 203.0.113.7 port 4711 ssh2
/// Nov 21 04:00:02 web-1 sshd[812]: Failed password for bob from 203.0.113.7 port 4712 ssh2
/// Nov 21 04:00:05 web-1 sshd[815]: Failed password for alice from 198.51.100.9 port 4713 ssh2
/// Nov 21 04:00:09 web-1 sshd[840]: Server listening on 0.0.0.0 port 22.";
/// let stream = Arc::new(Stream::new(Default::default()));
/// let time = Timestamp::from_secs(1_795_233_660);
/// let record = |text: &'static str| {
///     Record { stream: &stream, time, clock: Clock::Arrival, text: text.as_bytes(), tags: 0 }
/// };
/// let mut tally = Tally::new(Miner::new(Config::default()), false);
/// tally.page(log.lines().map(record));
/// let templates = tally.finish().templates;
/// assert_eq!(&*templates[0].text, "Failed password for <*:user> from <*:ip> port <*:num> ssh2");
/// assert_eq!((templates[0].count, templates[0].first.to_string().as_str()), (3, "2026-11-21T04:00:00Z"));
/// assert_eq!(&*templates[0].slots[1].values[0].value, "203.0.113.7");
/// ```
#[derive(Debug)]
pub struct Tally {
    miner: Miner,
    /// Values of a variable that are in the result.
    limits: Limits,
    room: Room,
    /// Values and bytes of samples in `leaves`.
    values: usize,
    text: usize,
    left_out: LeftOut,
    assign: bool,
    carry: Carry,
    /// The input lines in each event of the carry.
    open: Vec<(Arc<Stream>, Vec<usize>)>,
    leaves: Vec<Leaf>,
    by_leaf: HashMap<LeafId, u32>,
    lines: Vec<Option<u32>>,
    counts: Counts,
}

/// How much of a leaf is remembered: the less, the more leaves there are.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Values of a variable, before the rarest go.
    values: Limits,
    /// Samples.
    samples: usize,
    /// Bytes of each.
    sample_bytes: usize,
}

/// Templates of which there were too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many.
    pub templates: u64,
    /// Their physical lines.
    pub lines: u64,
}

/// What one template came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Which template.
    pub root: RootId,
    /// Its text.
    pub text: Arc<str>,
    /// The worst level that its lines stated.
    pub level: Option<Level>,
    /// Events.
    pub count: u64,
    /// Physical lines.
    pub lines: u64,
    /// The earliest event.
    pub first: Timestamp,
    /// The latest event.
    pub last: Timestamp,
    /// Events per minute.
    pub minutes: Histogram,
    /// Some of its events as they came: the first ones and the last.
    pub samples: Vec<Sample>,
    /// Its variables, over all its events.
    pub slots: Vec<Slot>,
}

/// A leaf as its rows came in.
#[derive(Debug)]
struct Leaf {
    id: LeafId,
    summary: Summary,
    /// The values of its variables that are no words of its own.
    values: Vec<Values>,
    /// Its root's variables, with its own word where it has one, as of its last row.
    variables: Vec<(Option<Arc<str>>, Slot)>,
}

/// The values of a variable over several folds.
#[derive(Clone, Debug)]
struct Values {
    slot: Slot,
    /// Half of each value's hash, in their order.
    tags: Vec<u32>,
    distinct: Distinct,
}

/// An input that has been read to its end.
#[derive(Debug)]
pub struct Tallied {
    /// The templates, most frequent first.
    pub templates: Vec<Summary>,
    /// The index in `templates` of each physical line, when lines were to be assigned; `None` for our own.
    pub lines: Vec<Option<u32>>,
    /// What became of the lines.
    pub counts: Counts,
    /// Rare templates that the miner had to evict are not in `templates` when there are more than twice as many as it
    /// may keep; none when lines were to be assigned.
    pub left_out: LeftOut,
    /// What has been learned.
    pub miner: Miner,
}

impl Tally {
    /// Starts with what `miner` knows. With `assign`, remembers where each line went (eight bytes a line).
    pub fn new(miner: Miner, assign: bool) -> Self {
        let config = miner.config();
        let limits = Limits { values: config.values, entities: config.entities };
        // Room for more than are shown: one that is rare in each page may be frequent in all.
        let values = Limits { values: 4 * limits.values.max(1), entities: 4 * limits.entities.max(1) };
        let room = Room { values, samples: config.samples, sample_bytes: config.sample_bytes };
        Self {
            miner,
            limits,
            room,
            values: 0,
            text: 0,
            left_out: LeftOut::default(),
            assign,
            carry: Carry::default(),
            open: Vec::new(),
            leaves: Vec::new(),
            by_leaf: HashMap::new(),
            lines: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Folds the next page. Some 10,000 lines are a good size: a fold's memory grows with its rows.
    pub fn page<'a>(&mut self, records: impl IntoIterator<Item = Record<'a>>) {
        self.fold(records, End::Open(Timestamp::MIN));
    }

    /// Ends the input.
    pub fn finish(mut self) -> Tallied {
        self.fold([], End::Closed);
        let room = self.room;
        let mut templates: Vec<(Summary, Vec<Values>)> = Vec::new();
        let mut by_root: HashMap<RootId, u32> = HashMap::new();
        let mut to = Vec::with_capacity(self.leaves.len());
        for leaf in self.leaves {
            let (summary, values) = leaf.finish(&self.miner);
            let at = *by_root.entry(summary.root).or_insert(templates.len() as u32);
            to.push(at);
            match templates.get_mut(at as usize) {
                Some((known, slots)) => {
                    known.add(summary, room.samples);
                    slots.iter_mut().zip(values).for_each(|(known, more)| known.add(more, &room.values));
                }
                None => templates.push((summary, values)),
            }
        }
        let mut order: Vec<u32> = (0..templates.len() as u32).collect();
        order.sort_by_key(|at| std::cmp::Reverse(templates[*at as usize].0.count));
        let mut place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old as usize] = new as u32;
        }
        let lines = self.lines.into_iter().map(|line| line.map(|leaf| place[to[leaf as usize] as usize])).collect();
        let mut templates: Vec<Summary> = templates
            .into_iter()
            .map(|(summary, values)| Summary {
                slots: values.into_iter().map(|values| values.finish(&self.limits)).collect(),
                ..summary
            })
            .collect();
        templates.sort_by_key(|template| std::cmp::Reverse(template.count));
        Tallied { templates, lines, counts: self.counts, left_out: self.left_out, miner: self.miner }
    }

    fn fold<'a>(&mut self, records: impl IntoIterator<Item = Record<'a>>, end: End) {
        let carry = std::mem::take(&mut self.carry);
        let mut distincts = Vec::new();
        let options = FoldOptions { end, assign: self.assign };
        let mut delta = self.miner.fold_with(carry, records, options, |distinct| distincts.push(distinct));
        self.miner.apply(&delta);
        self.carry = std::mem::take(&mut delta.carry);
        let rows = std::mem::take(&mut delta.rows).into_iter().zip(distincts);
        let rows: Vec<u32> = rows.map(|(row, distinct)| self.add(row, distinct)).collect();
        self.place(&delta, &rows);
        self.counts.add(&delta.counts);
        self.make_room();
    }

    /// Forgets what there is too much of.
    fn make_room(&mut self) {
        while self.values > MOST_VALUES && self.room.fewer_values() {
            let room = self.room.values;
            self.leaves.iter_mut().flat_map(|leaf| &mut leaf.values).for_each(|values| values.cut(&room, usize::MAX));
            self.values = self.leaves.iter().map(Leaf::kept_values).sum();
        }
        while self.text > MOST_TEXT && self.room.less_text() {
            let room = self.room;
            self.leaves.iter_mut().for_each(|leaf| leaf.summary.cut(&room));
            self.text = self.leaves.iter().map(|leaf| leaf.summary.kept_text()).sum();
        }
        let most = 2 * self.miner.config().max_templates.max(1_000);
        if self.leaves.len() > most && !self.assign {
            self.leave_out(self.leaves.len() - most * 3 / 4);
        }
    }

    /// Drops the rarest of the leaves that the miner no longer has.
    fn leave_out(&mut self, number: usize) {
        let gone = self.leaves.iter().filter(|leaf| self.miner.root_of(leaf.id).is_none());
        let mut gone: Vec<(u64, LeafId)> = gone.map(|leaf| (leaf.summary.count, leaf.id)).collect();
        gone.sort_unstable();
        let dropped: HashSet<LeafId> = gone.into_iter().take(number).map(|(_, id)| id).collect();
        let (values, text) = (&mut self.values, &mut self.text);
        let left_out = &mut self.left_out;
        self.leaves.retain(|leaf| {
            if !dropped.contains(&leaf.id) {
                return true;
            }
            *values -= leaf.kept_values();
            *text -= leaf.summary.kept_text();
            left_out.templates += 1;
            left_out.lines += leaf.summary.lines;
            false
        });
        self.by_leaf = self.leaves.iter().enumerate().map(|(at, leaf)| (leaf.id, at as u32)).collect();
    }

    /// Adds a row. Returns its leaf's index.
    fn add(&mut self, row: Row, distinct: Vec<Option<Distinct>>) -> u32 {
        let next = self.leaves.len() as u32;
        let at = *self.by_leaf.entry(row.leaf).or_insert(next);
        let (mut variables, mut values) = (Vec::new(), Vec::new());
        for (slot, distinct) in row.slots.into_iter().zip(distinct) {
            let bare = Slot { key: slot.key.clone(), values: Vec::new(), ..slot };
            match distinct {
                Some(distinct) => {
                    variables.push((None, bare));
                    values.push(Values::new(slot, distinct));
                }
                None => variables.push((slot.values.into_iter().next().map(|value| value.value), bare)),
            }
        }
        let mut summary = Summary {
            root: row.root,
            text: row.template,
            level: row.level,
            count: row.count,
            lines: row.lines,
            first: row.first,
            last: row.last,
            minutes: row.minutes,
            samples: row.samples,
            slots: Vec::new(),
        };
        summary.cut(&self.room);
        match self.leaves.get_mut(at as usize) {
            Some(known) => {
                self.values -= known.kept_values();
                self.text -= known.summary.kept_text();
                known.variables = variables;
                known.values.iter_mut().zip(values).for_each(|(known, more)| known.add(more, &self.room.values));
                (known.summary.root, known.summary.text) = (summary.root, summary.text.clone());
                known.summary.add(summary, self.room.samples);
            }
            None => {
                values.iter_mut().for_each(|values| values.cut(&self.room.values, usize::MAX));
                self.leaves.push(Leaf { id: row.leaf, summary, values, variables });
            }
        }
        let leaf = &self.leaves[at as usize];
        self.values += leaf.kept_values();
        self.text += leaf.summary.kept_text();
        at
    }

    /// Remembers where the lines went.
    fn place(&mut self, delta: &Delta, rows: &[u32]) {
        let leaf = |row: &Option<u32>| row.and_then(|row| rows.get(row as usize).copied());
        let mut still_open = Vec::new();
        for ((stream, lines), row) in std::mem::take(&mut self.open).into_iter().zip(&delta.carry_assignments) {
            match leaf(row) {
                Some(leaf) => lines.iter().for_each(|line| self.lines[*line] = Some(leaf)),
                None => still_open.push((stream, lines)),
            }
        }
        let from = self.lines.len();
        self.lines.extend(delta.assignments.iter().map(leaf));
        for (event, new) in self.carry.open.iter().zip(&delta.carry_lines) {
            let before = still_open.iter().position(|(stream, _)| stream.labels() == event.stream.labels());
            let mut lines = before.map_or_else(Vec::new, |at| still_open.swap_remove(at).1);
            lines.extend(new.iter().map(|line| from + *line as usize));
            self.open.push((event.stream.clone(), lines));
        }
    }
}

impl Room {
    /// Makes the room for values smaller; not below two.
    fn fewer_values(&mut self) -> bool {
        let Limits { values, entities } = &mut self.values;
        match (*entities > *values, *values > 2) {
            (true, _) => *entities = (*entities / 2).max(*values),
            (_, true) => (*values, *entities) = ((*values / 2).max(2), (*values / 2).max(2)),
            _ => return false,
        }
        true
    }

    /// Makes the room for samples smaller; not below a short one.
    fn less_text(&mut self) -> bool {
        match (self.samples > 2, self.sample_bytes > SHORT_SAMPLE, self.samples > 1) {
            (true, ..) => self.samples -= 1,
            (_, true, _) => self.sample_bytes = (self.sample_bytes / 4).max(SHORT_SAMPLE),
            (.., true) => self.samples -= 1,
            _ => return false,
        }
        true
    }
}

impl Leaf {
    fn kept_values(&self) -> usize {
        self.values.iter().map(|values| values.slot.values.len()).sum()
    }

    /// The leaf as part of its root, which may have moved since its last row: a word of its own may be a value now.
    fn finish(mut self, miner: &Miner) -> (Summary, Vec<Values>) {
        if let Some(named) = miner.named(self.id) {
            (self.summary.root, self.summary.text) = (named.root, named.text);
            let slot = |variable: template::Variable| Slot {
                kind: variable.kind,
                key: variable.key,
                position: variable.position,
                values: Vec::new(),
                distinct: 0,
            };
            let variables = named.variables.into_iter().take(miner.config().slots);
            self.variables = variables.map(|(word, variable)| (word, slot(variable))).collect();
        }
        let mut counted = self.values.into_iter();
        let mut values = Vec::with_capacity(self.variables.len());
        for (word, slot) in self.variables {
            values.push(match (word, &mut counted) {
                (Some(word), _) => {
                    let distinct = Distinct::of(&word);
                    let value = SlotValue { value: word, count: self.summary.count, minutes: Histogram::default() };
                    Values::new(Slot { values: vec![value], ..slot }, distinct)
                }
                (None, counted) => match counted.next() {
                    Some(Values { slot: Slot { kind, values, .. }, tags, distinct }) => {
                        Values { slot: Slot { kind, values, ..slot }, tags, distinct }
                    }
                    None => Values::new(slot, Distinct::Few(Vec::new())),
                },
            });
        }
        (self.summary, values)
    }
}

impl Values {
    fn new(slot: Slot, distinct: Distinct) -> Self {
        let tags = slot.values.iter().map(|value| tag(&value.value)).collect();
        Self { slot, tags, distinct }
    }

    fn add(&mut self, other: Self, room: &Limits) {
        self.slot.kind = template::join(self.slot.kind, other.slot.kind);
        self.distinct.merge(other.distinct, room.of(self.slot.kind));
        for (more, tag) in other.slot.values.into_iter().zip(other.tags) {
            match self.find(&more.value, tag) {
                Some(at) => {
                    self.slot.values[at].count += more.count;
                    self.slot.values[at].minutes.merge(&more.minutes);
                }
                None => {
                    self.slot.values.push(more);
                    self.tags.push(tag);
                }
            }
        }
        // A quarter more than need be, so that this is not done for every page.
        self.cut(room, 4);
    }

    fn find(&self, value: &str, tag: u32) -> Option<usize> {
        let mut at = 0;
        loop {
            at += self.tags.get(at..)?.iter().position(|known| *known == tag)?;
            if &*self.slot.values[at].value == value {
                return Some(at);
            }
            at += 1;
        }
    }

    /// Forgets the rarest when there are more than `room`, and one `part` of it more.
    fn cut(&mut self, room: &Limits, part: usize) {
        let room = room.of(self.slot.kind);
        let values = &mut self.slot.values;
        if values.len() > room {
            let keep = room - room / part;
            values.select_nth_unstable_by(keep, most_frequent);
            values.truncate(keep);
            values.shrink_to_fit();
            self.tags = values.iter().map(|value| tag(&value.value)).collect();
            self.distinct.cut(room);
        }
    }

    fn finish(mut self, limits: &Limits) -> Slot {
        self.slot.values.sort_by(most_frequent);
        self.slot.values.truncate(limits.of(self.slot.kind));
        Slot { distinct: self.distinct.count().max(self.slot.values.len() as u64), ..self.slot }
    }
}

fn tag(value: &str) -> u32 {
    slots::hash(value.as_bytes()) as u32
}

fn most_frequent(a: &SlotValue, b: &SlotValue) -> Ordering {
    b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value))
}

impl Summary {
    /// Adds what another page or leaf came to. Of `samples` events the first ones and the last are kept.
    fn add(&mut self, other: Self, samples: usize) {
        self.level = self.level.max(other.level);
        self.count += other.count;
        self.lines += other.lines;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.minutes.merge(&other.minutes);
        self.samples.extend(other.samples);
        self.samples.sort_by_key(|sample| sample.time);
        self.thin(samples);
    }

    fn thin(&mut self, samples: usize) {
        if self.samples.len() > samples
            && let Some(last) = self.samples.pop()
        {
            self.samples.truncate(samples.saturating_sub(1));
            self.samples.push(last);
        }
    }

    fn cut(&mut self, room: &Room) {
        self.thin(room.samples);
        for sample in self.samples.iter_mut().filter(|sample| sample.text.len() > room.sample_bytes) {
            sample.text = shortened(Cow::Borrowed(&sample.text), room.sample_bytes);
        }
    }

    fn kept_text(&self) -> usize {
        self.samples.iter().map(|sample| sample.text.len() + SAMPLE_BYTES).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Clock, Config};

    #[test]
    fn lines_end_where_their_template_ends_and_open_events_are_found_again() {
        let stream = Arc::new(Stream::new([("job".to_owned(), "shop".to_owned())].into()));
        let pages: [&[&str]; 3] = [
            &["2026-11-21 04:00:00,000 INFO [main] a.Job - mailbox of anna was moved to the new disk"],
            &[
                "2026-11-21 04:00:01,000 INFO [main] a.Job - mailbox of ben was moved to the new disk",
                "2026-11-21 04:00:02,000 ERROR [main] a.Job - java.lang.IllegalStateException: broken",
                "\tat a.Job.run(Job.java:12)",
            ],
            &[
                "\tat a.Main.main(Main.java:3)",
                "2026-11-21 04:00:03,000 INFO [main] a.Job - mailbox of carla was moved to the new disk",
            ],
        ];
        let mut tally = Tally::new(Miner::new(Config::default()), true);
        for page in pages {
            tally.page(page.iter().map(|text| Record {
                stream: &stream,
                time: Timestamp::from_secs(0),
                clock: Clock::Arrival,
                text: text.as_bytes(),
                tags: 0,
            }));
        }
        let tallied = tally.finish();
        assert_eq!(tallied.lines, [Some(0), Some(0), Some(1), Some(1), Some(1), Some(0)]);
        let shown: Vec<_> = tallied.templates.iter().map(|t| (&*t.text, t.count, t.lines)).collect();
        assert_eq!(shown[0], ("mailbox of <*:word> was moved to the new disk", 3, 3));
        assert_eq!((shown[1].1, shown[1].2), (1, 3));
        let slots: Vec<_> = tallied.templates[0].slots.iter().map(|slot| (slot.kind, slot.distinct)).collect();
        assert_eq!(slots, [(crate::SlotKind::Word, 3)]);
        let values: Vec<_> = tallied.templates[0].slots[0].values.iter().map(|v| (&*v.value, v.count)).collect();
        assert_eq!(values, [("anna", 1), ("ben", 1), ("carla", 1)]);
        let counts = tallied.counts;
        assert_eq!((counts.read, counts.kept, counts.carried), (6, 6, 0));
    }

    #[test]
    fn values_of_all_pages_are_counted_and_different_ones_once() {
        let stream = Arc::new(Stream::new(BTreeMap::new()));
        let mut tally = Tally::new(Miner::new(Config { headerless: true, ..Config::default() }), false);
        for page in 0..4 {
            let lines: Vec<String> =
                (0..1_000).map(|n| format!("job {} of tenant {} is done", 500 * page + n, ["7", "8"][n % 2])).collect();
            tally.page(lines.iter().map(|text| Record {
                stream: &stream,
                time: Timestamp::from_secs(0),
                clock: Clock::Record,
                text: text.as_bytes(),
                tags: 0,
            }));
        }
        let template = tally.finish().templates.remove(0);
        let [job, tenant] = &template.slots[..] else { panic!("{:?}", template.slots) };
        assert!((2_200..=2_800).contains(&job.distinct), "of 2,500: {}", job.distinct);
        let values: Vec<_> = tenant.values.iter().map(|value| (&*value.value, value.count)).collect();
        assert_eq!((values, tenant.distinct), (vec![("7", 2_000), ("8", 2_000)], 2));
    }
}
