//! A whole input, read in pages: what its templates come to, and which one each line belongs to in the end.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
};

use smallvec::SmallVec;

use crate::{
    Carry, Config, Counts, Delta, End, FoldOptions, LeafId, Level, Miner, Record, RootId, Samples, Slot, SlotKind,
    Stream, Timestamp,
    closure::Named,
    fold::Folded,
    rows::{Building, shortened},
    slots::{Counted, Distinct, Limits},
    template::{self, Variable},
};

/// Values of all variables that are remembered at most, some 40 bytes each, unless each variable has only two of them.
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
/// assert_eq!(templates[0].slots[1].values.first().unwrap().value, "203.0.113.7");
/// ```
#[derive(Debug)]
pub struct Tally {
    miner: Miner,
    /// Values of a variable that are in the result.
    limits: Limits,
    assign: bool,
    carry: Carry,
    /// The input lines in each event of the carry.
    open: Vec<(Arc<Stream>, Vec<usize>)>,
    leaves: Leaves,
    lines: Vec<Option<u32>>,
    counts: Counts,
}

/// What is remembered of the leaves.
#[derive(Debug)]
struct Leaves {
    all: Vec<Leaf>,
    by_id: HashMap<LeafId, u32>,
    room: Room,
    /// Values and bytes of samples in all of them.
    values: usize,
    text: usize,
    left_out: LeftOut,
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

/// A leaf as its rows came in.
#[derive(Debug)]
struct Leaf {
    id: LeafId,
    sum: Sum,
    /// The values of its variables that are no words of its own.
    values: Vec<Values>,
    /// What it is called, should the miner no longer know.
    named: Option<Box<Named>>,
}

/// A template as its leaves come in.
struct Whole {
    named: Named,
    sum: Sum,
    values: Vec<Values>,
}

/// What rows of one leaf or template come to.
#[derive(Debug)]
struct Sum {
    level: Option<Level>,
    count: u64,
    lines: u64,
    first: Timestamp,
    last: Timestamp,
    samples: Samples,
    /// What the samples take.
    text: usize,
}

/// The values of a variable over several folds.
#[derive(Debug)]
struct Values {
    counted: Counted,
    distinct: Distinct,
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
    /// Some of its events as they came: the first ones and the last.
    pub samples: Samples,
    /// Its variables, over all its events; when each value was seen is not told.
    pub slots: Vec<Slot>,
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
        let leaves =
            Leaves { all: Vec::new(), by_id: HashMap::new(), room, values: 0, text: 0, left_out: LeftOut::default() };
        Self {
            miner,
            limits,
            assign,
            carry: Carry::default(),
            open: Vec::new(),
            leaves,
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
        let Leaves { all, room, left_out, .. } = self.leaves;
        let mut wholes: Vec<Whole> = Vec::new();
        let mut by_root: HashMap<RootId, u32> = HashMap::new();
        let mut to = Vec::with_capacity(all.len());
        for leaf in all {
            let leaf = leaf.finish(&self.miner);
            let at = *by_root.entry(leaf.named.root).or_insert(wholes.len() as u32);
            to.push(at);
            match wholes.get_mut(at as usize) {
                Some(known) => known.add(leaf, &room),
                None => wholes.push(leaf),
            }
        }
        let mut order: Vec<u32> = (0..wholes.len() as u32).collect();
        order.sort_by_key(|at| Reverse(wholes[*at as usize].sum.count));
        let mut place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old as usize] = new as u32;
        }
        let lines = self.lines.into_iter().map(|line| line.map(|leaf| place[to[leaf as usize] as usize])).collect();
        let mut templates: Vec<Summary> = wholes.into_iter().map(|whole| whole.finish(&self.limits)).collect();
        templates.sort_by_key(|template| Reverse(template.count));
        Tallied { templates, lines, counts: self.counts, left_out, miner: self.miner }
    }

    fn fold<'a>(&mut self, records: impl IntoIterator<Item = Record<'a>>, end: End) {
        let carry = mem::take(&mut self.carry);
        let options = FoldOptions { end, assign: self.assign };
        let Folded { mut delta, rows, closure, limits, .. } = self.miner.folded(carry, records, options);
        let used: Vec<LeafId> = rows.iter().map(|row| closure.leaf(row.leaf).leaf).collect();
        let config = self.miner.config();
        let add =
            |((row, values), leaf): ((Building<'_>, _), &LeafId)| self.leaves.add(row, values, *leaf, config, &limits);
        let places: Vec<u32> = rows.into_iter().zip(&used).map(add).collect();
        for leaf in &delta.evicted {
            let named = closure.by_id(*leaf).map(|at| Box::new(closure.named(at)));
            self.leaves.name(*leaf, named);
        }
        drop(closure);
        self.miner.apply_used(&delta, used);
        self.carry = mem::take(&mut delta.carry);
        self.place(&delta, &places);
        self.counts.add(&delta.counts);
        self.leaves.make_room();
        let most = 2 * self.miner.config().max_templates.max(1_000);
        if self.leaves.all.len() > most && !self.assign {
            self.leaves.leave_out(most, &self.miner);
        }
    }

    /// Remembers where the lines went.
    fn place(&mut self, delta: &Delta, rows: &[u32]) {
        let leaf = |row: &Option<u32>| row.and_then(|row| rows.get(row as usize).copied());
        let mut still_open = Vec::new();
        for ((stream, lines), row) in mem::take(&mut self.open).into_iter().zip(&delta.carry_assignments) {
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

impl Leaves {
    /// Adds a row. Returns its leaf's index.
    fn add(&mut self, row: Building<'_>, counted: Vec<Counted>, id: LeafId, config: &Config, limits: &Limits) -> u32 {
        let next = self.all.len() as u32;
        let at = *self.by_id.entry(id).or_insert(next);
        if at == next {
            let values = counted.iter().map(|slot| Values::new(Counted::new(slot.kind))).collect();
            self.all.push(Leaf { id, sum: Sum::default(), values, named: None });
        }
        let Leaf { sum, values, .. } = &mut self.all[at as usize];
        self.values -= kept(values);
        self.text -= sum.text;
        let samples = row.samples(config).map(|(time, text)| (time, shortened(text, self.room.sample_bytes)));
        sum.samples(samples.collect(), self.room.samples);
        sum.add(&Sum {
            level: row.level,
            count: row.count,
            lines: row.lines,
            first: row.first,
            last: row.last,
            ..Sum::default()
        });
        for (known, counted) in values.iter_mut().zip(counted) {
            known.take(counted, limits, &self.room.values);
        }
        self.values += kept(values);
        self.text += sum.text;
        at
    }

    /// Remembers what a leaf is called that the miner forgets.
    fn name(&mut self, leaf: LeafId, named: Option<Box<Named>>) {
        if let Some(at) = self.by_id.get(&leaf) {
            self.all[*at as usize].named = named;
        }
    }

    /// Forgets what there is too much of.
    fn make_room(&mut self) {
        while self.values > MOST_VALUES && self.room.values.halve(2) {
            let room = self.room.values;
            self.all.iter_mut().flat_map(|leaf| &mut leaf.values).for_each(|values| values.cut(&room, usize::MAX));
            self.values = self.all.iter().map(|leaf| kept(&leaf.values)).sum();
        }
        while self.text > MOST_TEXT && self.room.less_text() {
            let room = self.room;
            self.all.iter_mut().for_each(|leaf| leaf.sum.cut(&room));
            self.text = self.all.iter().map(|leaf| leaf.sum.text).sum();
        }
    }

    /// Drops the rarest of the leaves that the miner no longer has, when there are more than so many leaves.
    fn leave_out(&mut self, most: usize, miner: &Miner) {
        let gone = self.all.iter().filter(|leaf| miner.root_of(leaf.id).is_none());
        let mut gone: Vec<(u64, LeafId)> = gone.map(|leaf| (leaf.sum.count, leaf.id)).collect();
        gone.sort_unstable();
        gone.truncate(self.all.len() - most * 3 / 4);
        let dropped: HashSet<LeafId> = gone.into_iter().map(|(_, id)| id).collect();
        let (values, text, left_out) = (&mut self.values, &mut self.text, &mut self.left_out);
        self.all.retain(|leaf| {
            if !dropped.contains(&leaf.id) {
                return true;
            }
            *values -= kept(&leaf.values);
            *text -= leaf.sum.text;
            left_out.templates += 1;
            left_out.lines += leaf.sum.lines;
            false
        });
        self.by_id = self.all.iter().enumerate().map(|(at, leaf)| (leaf.id, at as u32)).collect();
    }
}

fn kept(values: &[Values]) -> usize {
    values.iter().map(|values| values.counted.len()).sum()
}

impl Room {
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
    /// The leaf as part of its root, which may have moved since its last row: a word of its own may be a value now.
    fn finish(self, miner: &Miner) -> Whole {
        let count = self.sum.count;
        let named = miner.named(self.id).or(self.named.map(|named| *named)).unwrap_or_else(|| Named::unknown(self.id));
        let mut counted = self.values.into_iter();
        let values = |(word, variable): &(Option<Arc<str>>, Variable)| match word {
            Some(word) => Values::of(variable.kind, word, count),
            None => counted.next().unwrap_or_else(|| Values::new(Counted::new(variable.kind))),
        };
        let values = named.variables.iter().take(miner.config().slots).map(values).collect();
        Whole { named, sum: self.sum, values }
    }
}

impl Whole {
    fn add(&mut self, other: Self, room: &Room) {
        self.sum.samples(other.sum.samples.iter().map(|one| (one.time, one.text.into())).collect(), room.samples);
        self.sum.add(&other.sum);
        self.values.iter_mut().zip(&other.values).for_each(|(known, more)| known.add(more, &room.values));
    }

    fn finish(self, limits: &Limits) -> Summary {
        let slot = |((_, variable), mut values): ((_, Variable), Values)| {
            let kind = values.counted.kind;
            let distinct = values.distinct.count();
            let values = values.counted.pack(limits.of(kind));
            let distinct = distinct.max(values.len() as u64);
            Slot { kind, key: variable.key, position: variable.position, values, distinct }
        };
        let Named { root, text, variables, .. } = self.named;
        let Sum { level, count, lines, first, last, samples, .. } = self.sum;
        let slots = variables.into_iter().zip(self.values).map(slot).collect();
        Summary { root, text, level, count, lines, first, last, samples, slots }
    }
}

impl Values {
    fn new(counted: Counted) -> Self {
        Self { counted, distinct: Distinct::Few(Vec::new()) }
    }

    /// One word.
    fn of(kind: SlotKind, word: &str, count: u64) -> Self {
        let counted = Counted::of(kind, word, count);
        let mut distinct = Distinct::Few(Vec::new());
        distinct.take(&counted, 1);
        Self { counted, distinct }
    }

    /// Adds what a fold has counted.
    fn take(&mut self, mut counted: Counted, limits: &Limits, room: &Limits) {
        self.distinct.take(&counted, room.of(template::join(self.counted.kind, counted.kind)));
        counted.cut(limits.of(counted.kind));
        self.counted.merge(&counted);
        self.cut(room, 4);
    }

    fn add(&mut self, other: &Self, room: &Limits) {
        self.counted.merge(&other.counted);
        self.distinct.merge(&other.distinct, room.of(self.counted.kind));
        self.cut(room, 4);
    }

    /// Forgets the rarest when there are more than `room`, and one `part` of it more: then this is not done for every page.
    fn cut(&mut self, room: &Limits, part: usize) {
        let room = room.of(self.counted.kind);
        if self.counted.len() > room {
            self.counted.cut(room - room / part);
            self.distinct.cut(room);
        }
    }
}

/// Events as they came. In most pages there is one of a leaf.
type Texts<'t> = SmallVec<[(Timestamp, Cow<'t, [u8]>); 1]>;

impl Default for Sum {
    fn default() -> Self {
        Self {
            level: None,
            count: 0,
            lines: 0,
            first: Timestamp::MAX,
            last: Timestamp::MIN,
            samples: Samples::default(),
            text: 0,
        }
    }
}

impl Sum {
    /// Adds all of another one but its samples.
    fn add(&mut self, other: &Self) {
        self.level = self.level.max(other.level);
        self.count += other.count;
        self.lines += other.lines;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }

    /// Adds samples. Of more than `most` the first ones and the last are kept.
    fn samples(&mut self, mut more: Texts<'_>, most: usize) {
        if !self.samples.is_empty() {
            more.sort_by_key(|(time, _)| *time);
            let next = more.first().map(|(time, _)| *time);
            if !self.samples.times().chain(next).is_sorted() {
                let known = mem::take(&mut self.samples);
                more.insert_many(0, known.iter().map(|one| (one.time, one.text.into())));
                more.sort_by_key(|(time, _)| *time);
            }
        }
        if self.samples.len() + more.len() > most {
            let last = more.pop();
            self.samples.truncate(most.saturating_sub(1));
            more.truncate(most.saturating_sub(1 + self.samples.len()));
            more.extend(last);
        }
        more.iter().for_each(|(time, text)| self.samples.push(*time, text));
        self.samples.shrink();
        self.text = self.samples.lens().map(|len| len + SAMPLE_BYTES).sum();
    }

    fn cut(&mut self, room: &Room) {
        let all = mem::take(&mut self.samples);
        let all = all.iter().map(|one| (one.time, shortened(one.text.into(), room.sample_bytes)));
        self.samples(all.collect(), room.samples);
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
        let values: Vec<_> = tallied.templates[0].slots[0].values.iter().map(|v| (v.value, v.count)).collect();
        assert_eq!(values, [("anna".into(), 1), ("ben".into(), 1), ("carla".into(), 1)]);
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
        let values: Vec<_> = tenant.values.iter().map(|value| (value.value, value.count)).collect();
        assert_eq!((values, tenant.distinct), (vec![("7".into(), 2_000), ("8".into(), 2_000)], 2));
    }
}
