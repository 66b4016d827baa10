//! Finds lines that came behind the position.
//!
//! Loki takes lines up to an hour late in normal operation and days late from an agent that was off, and shows some of
//! them only when a chunk is flushed. Its counts per minute, compared with what was taken, tell where to look again.

use std::collections::BTreeMap;

use logwarden_core::{
    LineId, Timestamp,
    source::{ProblemKind, Seen, SourceError},
};

use crate::{
    cursor::{MINUTE, Position, Window},
    failure::Failure,
    http::Http,
    page,
};

/// Compares the minutes of the last `range` nanoseconds and plans to read again those where Loki has more. Returns lines
/// that are there and cannot be told from those that were taken.
pub(crate) async fn sweep(
    http: &Http,
    q: &mut Position,
    bit: usize,
    seen: &Seen,
    range: i64,
    behind: bool,
) -> Result<Option<(ProblemKind, SourceError)>, Failure> {
    // A sample of minute m counts (m - 1, m].
    let oldest = q.pos.saturating_sub(range).max(q.since);
    let first = oldest.saturating_add(MINUTE - 1).div_euclid(MINUTE) + 1;
    let last = (q.pos - 1).div_euclid(MINUTE);
    if first > last {
        return Ok(None);
    }
    let counts = page::counts(http, &q.query, first, last).await?;
    let gap = compare(q, bit, seen, &counts, first, last);
    let ours: u64 = (first..=last).map(|minute| u64::from(seen.count(minute - 1, bit))).sum();
    let theirs: u64 = counts.range(first..=last).map(|(_, count)| count).sum();
    if behind && ours > 0 && theirs == 0 {
        let reason = format!(
            "Loki no longer shows the lines up to {} that were read before; retention or `max_query_lookback` hides them, \
             and with them what came while nobody was reading",
            Timestamp::from_nanos(q.pos)
        );
        let error = SourceError::Gap { subject: format!("the query `{}`", q.query), reason };
        return Ok(Some((ProblemKind::Gap { lines: None }, error)));
    }
    Ok(gap)
}

/// Plans windows for the minutes in which Loki has more lines than were taken.
fn compare(
    q: &mut Position,
    bit: usize,
    seen: &Seen,
    counts: &BTreeMap<i64, u64>,
    first: i64,
    last: i64,
) -> Option<(ProblemKind, SourceError)> {
    let mut windows = Vec::new();
    let (mut lost, mut from, mut to) = (0, i64::MAX, 0);
    for (minute, theirs) in counts.range(first..=last) {
        let (minute, theirs) = (*minute, *theirs);
        let inside = u64::from(seen.count(minute - 1, bit)).saturating_sub(q.edges.get(minute - 1));
        let ours = inside + q.edges.get(minute);
        if theirs <= ours || q.settled.get(&minute) == Some(&theirs) {
            continue;
        }
        q.settled.insert(minute, theirs);
        let window = Window { from: (minute - 1) * MINUTE + 1, to: minute * MINUTE + 1, fresh: ours == 0 };
        let told_apart = remembers(seen, bit, minute - 1) && (q.edges.get(minute) == 0 || remembers(seen, bit, minute));
        if window.fresh || told_apart {
            windows.push(window);
        } else {
            lost += theirs - ours;
            from = from.min(window.from);
            to = to.max(window.to);
        }
    }
    q.look_back(windows);
    (lost > 0).then(|| {
        let reason = format!(
            "{lost} of them came so late (between {} and {}) that they cannot be told from those already read",
            Timestamp::from_nanos(from),
            Timestamp::from_nanos(to)
        );
        let error = SourceError::Gap { subject: format!("the query `{}`", q.query), reason };
        (ProblemKind::Gap { lines: Some(lost) }, error)
    })
}

/// Plans to read the last `overlap` nanoseconds again.
pub(crate) fn overlap(q: &mut Position, bit: usize, seen: &Seen, overlap: i64) {
    let window = Window { from: q.pos.saturating_sub(overlap).max(q.since), to: q.pos, fresh: false };
    let (windows, _) = trusted(seen, bit, window);
    q.look_back(windows);
}

/// Drops what `seen` has forgotten since it was planned; the next sweep decides about it again.
pub(crate) fn drop_forgotten(q: &mut Position, bit: usize, seen: &Seen) {
    for window in std::mem::take(&mut q.back) {
        if window.fresh {
            q.look_back([window]);
            continue;
        }
        let (windows, forgotten) = trusted(seen, bit, window);
        q.look_back(windows);
        for minute in forgotten {
            q.settled.remove(&minute);
            q.settled.remove(&(minute + 1));
        }
    }
}

/// The parts of a window whose lines `seen` remembers, and the minutes of the others.
fn trusted(seen: &Seen, bit: usize, window: Window) -> (Vec<Window>, Vec<i64>) {
    let (mut windows, mut forgotten) = (Vec::new(), Vec::new());
    let mut from = window.from;
    while from < window.to {
        let minute = from.div_euclid(MINUTE);
        let to = window.to.min((minute + 1) * MINUTE);
        if remembers(seen, bit, minute) {
            windows.push(Window { from, to, fresh: false });
        } else {
            forgotten.push(minute);
        }
        from = to;
    }
    (windows, forgotten)
}

/// Whether `seen` still has the id of every line of a minute that the query brought.
fn remembers(seen: &Seen, bit: usize, minute: i64) -> bool {
    let count = seen.count(minute, bit);
    let ids = |(_, queries): &(LineId, u64)| queries & (1 << bit) != 0;
    count == 0 || seen.minute(minute).filter(ids).count() >= count as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Pace;

    const FIRST: i64 = 1000;

    /// A query that took lines of the minutes 1000 to 1003: two inside each, and one at the very start of 1002.
    fn taken() -> (Position, Seen) {
        let mut q = Position::new("{a=\"b\"}", 0, 1004 * MINUTE, 0, Pace::new(100));
        let mut seen = Seen::default();
        for minute in FIRST..FIRST + 4 {
            for second in [10, 20] {
                let time = Timestamp::from_nanos(minute * MINUTE + second);
                seen.insert(time, LineId::of(&[&time.nanos().to_be_bytes()]), 1);
            }
        }
        seen.insert(Timestamp::from_nanos(1002 * MINUTE), LineId::of(&[b"edge"]), 1);
        q.edges.add(1002, 0);
        (q, seen)
    }

    fn windows(q: &Position) -> Vec<(i64, i64, bool)> {
        q.back.iter().map(|w| (w.from / MINUTE, w.to / MINUTE, w.fresh)).collect()
    }

    #[test]
    fn equal_counts_ask_for_nothing_although_loki_counts_other_minutes() {
        let (mut q, seen) = taken();
        // A line at the very start of minute 1002 counts for the sample of 1002, which covers minute 1001.
        let counts = BTreeMap::from([(1001, 2), (1002, 3), (1003, 2), (1004, 2)]);
        assert!(compare(&mut q, 0, &seen, &counts, 1001, 1004).is_none());
        assert!(q.back.is_empty());
    }

    #[test]
    fn a_late_line_is_looked_for_once() {
        let (mut q, seen) = taken();
        let counts = BTreeMap::from([(1001, 2), (1002, 3), (1003, 3), (1004, 2)]);
        assert!(compare(&mut q, 0, &seen, &counts, 1001, 1004).is_none());
        assert_eq!(windows(&q), [(1002, 1003, false)]);
        q.back.clear();
        assert!(compare(&mut q, 0, &seen, &counts, 1001, 1004).is_none());
        assert!(q.back.is_empty(), "the same count again is nothing new");
    }

    #[test]
    fn minutes_that_were_forgotten_are_read_only_when_nothing_of_them_was_taken() {
        let (mut q, mut seen) = taken();
        seen.forget_before(1002, 0);
        let counts = BTreeMap::from([(999, 4), (1001, 5), (1003, 3)]);
        let gap = compare(&mut q, 0, &seen, &counts, 999, 1004);
        assert_eq!(windows(&q), [(998, 999, true), (1002, 1003, false)]);
        let (kind, error) = gap.expect("a gap");
        assert_eq!(kind, ProblemKind::Gap { lines: Some(3) });
        insta::assert_snapshot!(error, @r#"lines of the query `{a="b"}` are missing: 3 of them came so late (between 1970-01-01T16:40:00.000000001Z and 1970-01-01T16:41:00.000000001Z) that they cannot be told from those already read"#);
    }

    #[test]
    fn what_was_forgotten_after_planning_is_decided_again() {
        let (mut q, mut seen) = taken();
        let counts = BTreeMap::from([(1001, 5)]);
        compare(&mut q, 0, &seen, &counts, 1001, 1004);
        seen.forget_before(1002, 0);
        drop_forgotten(&mut q, 0, &seen);
        assert!(q.back.is_empty() && q.settled.is_empty());
    }
}
