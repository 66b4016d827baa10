//! How far each query has been read, as JSON.

use std::collections::{BTreeMap, VecDeque};

use logwarden_core::{
    LineId,
    source::{Cursor, SourceError},
};
use serde::{Deserialize, Serialize};

use crate::page::Pace;

/// Nanoseconds of a minute.
pub(crate) const MINUTE: i64 = 60_000_000_000;

/// The whole state between two reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    v: u8,
    /// A pass is under way: its windows are planned.
    pub(crate) open: bool,
    pub(crate) queries: Vec<Position>,
    /// One nanosecond that is partly taken, since its lines did not fit a budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partial: Option<Partial>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Partial {
    pub(crate) at: i64,
    pub(crate) taken: BTreeMap<LineId, u64>,
}

/// Where one query stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) query: String,
    /// The query's bit when this was written.
    bit: usize,
    /// Everything before this was read, up to late lines.
    pub(crate) pos: i64,
    /// Where the pass under way ends.
    pub(crate) until: i64,
    /// Nothing before this is looked for, nor are the bits of `seen` of any use there.
    pub(crate) since: i64,
    /// Windows before `pos` that are read again, sorted and disjoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) back: Vec<Window>,
    #[serde(default)]
    pub(crate) swept: i64,
    #[serde(default)]
    pub(crate) deep_swept: i64,
    pub(crate) pace: Pace,
    /// Lines taken at the very first nanosecond of each minute.
    #[serde(default)]
    pub(crate) edges: Edges,
    /// Counts of Loki that differ from ours and were looked into, by the minute that they end with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) settled: BTreeMap<i64, u64>,
}

/// `from <= t < to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Nothing of it was taken: what is found there is new even where `seen` has forgotten.
    #[serde(default)]
    pub(crate) fresh: bool,
}

/// Small counts per minute, dense.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Edges {
    first: i64,
    counts: VecDeque<u32>,
}

impl Edges {
    pub(crate) fn get(&self, minute: i64) -> u64 {
        let at = usize::try_from(minute.saturating_sub(self.first)).ok();
        at.and_then(|at| self.counts.get(at)).copied().unwrap_or(0).into()
    }

    /// Counts one more; a minute before the first that is remembered is not counted.
    pub(crate) fn add(&mut self, minute: i64, horizon: i64) {
        if self.counts.is_empty() {
            self.first = minute;
        }
        while minute < self.first && minute >= horizon {
            self.counts.push_front(0);
            self.first -= 1;
        }
        self.forget_before(horizon);
        if self.counts.is_empty() {
            self.first = minute;
        }
        let Some(at) = minute.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else { return };
        // A position moves by days at most; a leap beyond means that the clock was wrong.
        if at > 100_000 {
            self.first = minute;
            self.counts.clear();
        }
        let at = usize::try_from(minute - self.first).unwrap_or(0);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] = self.counts[at].saturating_add(1);
    }

    pub(crate) fn forget_before(&mut self, minute: i64) {
        while self.first < minute && self.counts.pop_front().is_some() {
            self.first += 1;
        }
    }
}

impl Position {
    pub(crate) fn new(query: &str, bit: usize, pos: i64, since: i64, pace: Pace) -> Self {
        Self {
            query: query.to_owned(),
            bit,
            pos,
            until: pos,
            since,
            back: Vec::new(),
            swept: pos,
            deep_swept: pos,
            pace,
            edges: Edges::default(),
            settled: BTreeMap::new(),
        }
    }

    /// The next window to read from `frontier` on.
    pub(crate) fn next(&self, frontier: i64) -> Option<Window> {
        let main = Window { from: self.pos, to: self.until, fresh: true };
        let ahead = |w: &Window| (w.to > frontier).then_some(Window { from: w.from.max(frontier), ..*w });
        self.back.iter().chain([&main]).filter(|w| w.from < w.to).find_map(ahead)
    }

    /// Everything before `time` is done.
    pub(crate) fn done_before(&mut self, time: i64) {
        self.back.retain(|window| window.to > time);
        if let Some(first) = self.back.first_mut() {
            first.from = first.from.max(time);
        }
        self.pos = time.clamp(self.pos, self.until.max(self.pos));
    }

    /// Adds windows to read again; where two overlap they become one, fresh only if both are.
    pub(crate) fn look_back(&mut self, windows: impl IntoIterator<Item = Window>) {
        self.back.extend(windows.into_iter().filter(|window| window.from < window.to));
        self.back.sort_by_key(|window| (window.from, window.to));
        let mut merged: Vec<Window> = Vec::new();
        for window in self.back.drain(..) {
            match merged.last_mut() {
                Some(last) if window.from < last.to || (window.from == last.to && window.fresh == last.fresh) => {
                    last.to = last.to.max(window.to);
                    last.fresh &= window.fresh;
                }
                _ => merged.push(window),
            }
        }
        self.back = merged;
    }
}

impl State {
    /// Reads a cursor and lines it up with the queries of today.
    pub(crate) fn parse(
        cursor: Option<&Cursor>,
        queries: &[&str],
        start: i64,
        pace: &Pace,
    ) -> Result<Self, SourceError> {
        let mut state = match cursor {
            None => Self { v: 1, ..Self::default() },
            Some(cursor) => {
                serde_json::from_str(&cursor.0).ok().filter(|state: &Self| state.v == 1).ok_or_else(|| {
                    SourceError::Unusable {
                        subject: "the stored position in Loki".into(),
                        reason: "it was written by another version, or is damaged".into(),
                        hint: Some("use the version that wrote it, or forget the source's state to begin anew".into()),
                    }
                })?
            }
        };
        // Bits of `seen` belong to the order of the queries when they were written.
        let front = state.queries.iter().map(|q| q.pos).max();
        let mut known: BTreeMap<String, Position> = state.queries.drain(..).map(|q| (q.query.clone(), q)).collect();
        for (bit, query) in queries.iter().enumerate() {
            let position = match known.remove(*query) {
                Some(position) if position.bit == bit => position,
                Some(mut moved) => {
                    moved.bit = bit;
                    moved.since = front.unwrap_or(moved.pos).max(moved.pos);
                    moved.back.retain(|window| window.fresh);
                    state.partial = None;
                    moved
                }
                None => Position::new(query, bit, start, front.unwrap_or(start).max(start), pace.clone()),
            };
            state.queries.push(position);
        }
        Ok(state)
    }

    pub(crate) fn cursor(&self) -> Cursor {
        Cursor(serde_json::to_string(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        Position { until: 100, ..Position::new("{a=\"b\"}", 0, 50, 0, Pace::new(100)) }
    }

    #[test]
    fn windows_are_read_in_order_and_left_behind() {
        let mut q = position();
        q.look_back([
            Window { from: 30, to: 40, fresh: true },
            Window { from: 10, to: 20, fresh: false },
            Window { from: 15, to: 25, fresh: false },
        ]);
        let next = |q: &Position, at| q.next(at).map(|w| (w.from, w.to));
        assert_eq!((next(&q, i64::MIN), next(&q, 12), next(&q, 25)), (Some((10, 25)), Some((12, 25)), Some((30, 40))));
        assert_eq!((next(&q, 40), next(&q, 60), next(&q, 100)), (Some((50, 100)), Some((60, 100)), None));
        q.done_before(35);
        assert_eq!((q.pos, q.back.len(), next(&q, i64::MIN)), (50, 1, Some((35, 40))));
        q.done_before(60);
        assert_eq!((q.pos, next(&q, i64::MIN)), (60, Some((60, 100))));
        q.done_before(i64::MAX);
        assert_eq!((q.pos, next(&q, i64::MIN)), (100, None));
    }

    #[test]
    fn edges_are_counted_per_minute() {
        let mut edges = Edges::default();
        for minute in [100, 102, 102, 99, 5] {
            edges.add(minute, 90);
        }
        assert_eq!([5, 99, 100, 101, 102, 103].map(|m| edges.get(m)), [0, 1, 1, 0, 2, 0]);
        edges.add(1_000_000_000, 90);
        assert_eq!(edges.get(1_000_000_000), 1);
        edges.forget_before(i64::MAX);
        assert_eq!(edges.get(1_000_000_000), 0);
    }

    #[test]
    fn a_query_that_changed_its_place_trusts_no_old_bits() {
        let pace = Pace::new(100);
        let old = State::parse(None, &["{a=\"1\"}", "{a=\"2\"}"], 1000, &pace).expect("a state");
        let new =
            State::parse(Some(&old.cursor()), &["{a=\"3\"}", "{a=\"2\"}", "{a=\"1\"}"], 900, &pace).expect("a state");
        let places: Vec<_> = new.queries.iter().map(|q| (q.query.as_str(), q.pos, q.since)).collect();
        assert_eq!(places, [("{a=\"3\"}", 900, 1000), ("{a=\"2\"}", 1000, 1000), ("{a=\"1\"}", 1000, 1000)]);
        let error = State::parse(Some(&Cursor("x".into())), &["{a=\"1\"}"], 0, &pace).expect_err("no cursor");
        insta::assert_snapshot!(error, @"the stored position in Loki cannot be used: it was written by another version, or is damaged");
    }
}
