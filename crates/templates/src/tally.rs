//! A whole input, read in pages: what its templates come to, and which one each line belongs to in the end.

use std::{collections::HashMap, sync::Arc};

use crate::{
    Carry, Counts, Delta, End, FoldOptions, Histogram, LeafId, Level, Miner, Record, RootId, Sample, Stream, Timestamp,
};

/// Folds an input page by page, applying each delta, and sums up by root at the end: a template that generalises late
/// takes its early lines along.
#[derive(Debug)]
pub struct Tally {
    miner: Miner,
    assign: bool,
    carry: Carry,
    /// The input lines in each event of the carry.
    open: Vec<(Arc<Stream>, Vec<usize>)>,
    leaves: Vec<Summary>,
    by_leaf: HashMap<LeafId, u32>,
    lines: Vec<Option<u32>>,
    counts: Counts,
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
    leaf: LeafId,
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
    /// What has been learned.
    pub miner: Miner,
}

impl Tally {
    /// Starts with what `miner` knows. With `assign`, remembers where each line went (eight bytes a line).
    pub fn new(miner: Miner, assign: bool) -> Self {
        Self {
            miner,
            assign,
            carry: Carry::default(),
            open: Vec::new(),
            leaves: Vec::new(),
            by_leaf: HashMap::new(),
            lines: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Folds the next page. Some 50,000 lines are a good size.
    pub fn page<'a>(&mut self, records: impl IntoIterator<Item = Record<'a>>) {
        self.fold(records, End::Open(Timestamp::MIN));
    }

    /// Ends the input.
    pub fn finish(mut self) -> Tallied {
        self.fold([], End::Closed);
        let mut templates: Vec<Summary> = Vec::new();
        let mut by_root: HashMap<RootId, u32> = HashMap::new();
        let mut to = Vec::with_capacity(self.leaves.len());
        for mut leaf in self.leaves {
            if let (Some(root), Some(text)) = (self.miner.root_of(leaf.leaf), self.miner.text_of(leaf.leaf)) {
                (leaf.root, leaf.text) = (root, text);
            }
            let at = *by_root.entry(leaf.root).or_insert(templates.len() as u32);
            to.push(at);
            match templates.get_mut(at as usize) {
                Some(known) => known.add(leaf),
                None => templates.push(leaf),
            }
        }
        let mut order: Vec<u32> = (0..templates.len() as u32).collect();
        order.sort_by_key(|at| std::cmp::Reverse(templates[*at as usize].count));
        let mut place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old as usize] = new as u32;
        }
        let lines = self.lines.into_iter().map(|line| line.map(|leaf| place[to[leaf as usize] as usize])).collect();
        templates.sort_by_key(|template| std::cmp::Reverse(template.count));
        Tallied { templates, lines, counts: self.counts, miner: self.miner }
    }

    fn fold<'a>(&mut self, records: impl IntoIterator<Item = Record<'a>>, end: End) {
        let carry = std::mem::take(&mut self.carry);
        let mut delta = self.miner.fold(carry, records, FoldOptions { end, assign: self.assign });
        self.miner.apply(&delta);
        self.carry = std::mem::take(&mut delta.carry);
        let rows: Vec<u32> = std::mem::take(&mut delta.rows).into_iter().map(|row| self.add(row)).collect();
        self.place(&delta, &rows);
        self.counts.add(&delta.counts);
    }

    /// Adds a row. Returns its leaf's index.
    fn add(&mut self, row: crate::Row) -> u32 {
        let next = self.leaves.len() as u32;
        let at = *self.by_leaf.entry(row.leaf).or_insert(next);
        let summary = Summary {
            root: row.root,
            text: row.template,
            level: row.level,
            count: row.count,
            lines: row.lines,
            first: row.first,
            last: row.last,
            minutes: row.minutes,
            samples: row.samples,
            leaf: row.leaf,
        };
        match self.leaves.get_mut(at as usize) {
            Some(known) => known.add(summary),
            None => self.leaves.push(summary),
        }
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

impl Summary {
    fn add(&mut self, other: Self) {
        self.level = self.level.max(other.level);
        self.count += other.count;
        self.lines += other.lines;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.minutes.merge(&other.minutes);
        let keep = self.samples.len().max(other.samples.len());
        self.samples.extend(other.samples);
        self.samples.sort_by_key(|sample| sample.time);
        if self.samples.len() > keep
            && let Some(last) = self.samples.pop()
        {
            self.samples.truncate(keep.saturating_sub(1));
            self.samples.push(last);
        }
    }
}

#[cfg(test)]
mod tests {
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
        let counts = tallied.counts;
        assert_eq!((counts.read, counts.kept, counts.carried), (6, 6, 0));
    }
}
