//! Several segments judged as one: what came within a window is one story, and the same template in each of them one row.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use logwarden_detectors::Signal;
use logwarden_templates::{LeafId, Origin, Slot, SlotValue};

use crate::{ledger::Segment, segment::SegmentRow};

/// Samples of a row, as folding keeps them.
const SAMPLES: usize = 5;

/// Collects segments of one source, oldest first.
#[derive(Debug, Default)]
pub(super) struct Together {
    whole: Option<Segment>,
    rows: HashMap<(Arc<Origin>, LeafId), usize>,
}

impl Together {
    /// Adds the segment that came next.
    pub(super) fn add(&mut self, next: Segment) {
        let Some(whole) = &mut self.whole else {
            let names = next.rows.iter().enumerate().map(|(number, row)| (name(row), number));
            self.rows = names.collect();
            self.whole = Some(next);
            return;
        };
        let mut numbers = Vec::with_capacity(next.rows.len());
        for row in next.rows {
            numbers.push(match self.rows.entry(name(&row)) {
                Entry::Occupied(known) => {
                    absorb(Arc::make_mut(&mut whole.rows[*known.get()]), &row);
                    *known.get() as u32
                }
                Entry::Vacant(free) => {
                    free.insert(whole.rows.len());
                    whole.rows.push(row);
                    whole.rows.len() as u32 - 1
                }
            });
        }
        whole.signals.extend(next.signals.into_iter().map(|signal| Signal {
            rows: signal.rows.iter().filter_map(|row| numbers.get(*row as usize).copied()).collect(),
            ..signal
        }));
        for finding in next.findings {
            let same = |known: &&mut crate::finding::Grounded| known.by == finding.by && known.keys() == finding.keys();
            match whole.findings.iter_mut().find(same) {
                Some(known) => {
                    known.count = known.count.saturating_add(finding.count);
                    known.severity = known.severity.max(finding.severity);
                    known.last = known.last.max(finding.last);
                }
                None => whole.findings.push(finding),
            }
        }
        whole.counts.add(&next.counts);
        whole.from = whole.from.min(next.from);
        whole.to = whole.to.max(next.to);
        (whole.id, whole.at) = (next.id, next.at);
    }

    /// All of them as one, under the name of the last; `None` when there was none.
    pub(super) fn finish(self) -> Option<Segment> {
        self.whole
    }
}

fn name(row: &SegmentRow) -> (Arc<Origin>, LeafId) {
    (row.row.origin.clone(), row.row.leaf)
}

fn absorb(known: &mut SegmentRow, next: &SegmentRow) {
    if known.before.is_empty() && known.after.is_empty() {
        known.before.clone_from(&next.before);
        known.after.clone_from(&next.after);
    }
    let (known, next) = (&mut known.row, &next.row);
    let alike = |(one, other): (&Slot, &Slot)| (one.kind, one.position) == (other.kind, other.position);
    if known.slots.len() == next.slots.len() && known.slots.iter().zip(&next.slots).all(alike) {
        known.slots.iter_mut().zip(&next.slots).for_each(|(slot, other)| absorb_values(slot, other));
    } else {
        // The template has generalised meanwhile; its present shape counts.
        known.slots.clone_from(&next.slots);
    }
    (known.root, known.template) = (next.root, next.template.clone());
    known.level = known.level.max(next.level);
    known.count = known.count.saturating_add(next.count);
    known.lines = known.lines.saturating_add(next.lines);
    known.first = known.first.min(next.first);
    known.last = known.last.max(next.last);
    known.minutes.merge(&next.minutes);
    known.tags |= next.tags;
    // The first ones and the last, as in a fold.
    let room = SAMPLES.saturating_sub(known.samples.len());
    match next.samples.last() {
        Some(latest) if room == 0 => known.samples = known.samples.iter().take(SAMPLES - 1).chain([latest]).collect(),
        _ => known.samples.extend(next.samples.iter().take(room)),
    }
}

fn absorb_values(slot: &mut Slot, next: &Slot) {
    let most = slot.values.len().max(next.values.len());
    let mut values: Vec<SlotValue<'_>> = slot.values.iter().collect();
    for value in &next.values {
        match values.iter_mut().find(|known| known.value == value.value) {
            Some(SlotValue { count, minutes, .. }) => {
                *count = count.saturating_add(value.count);
                minutes.merge(&value.minutes);
            }
            None => values.push(value),
        }
    }
    // At least so many: which values the two have in common is only known of the frequent ones.
    slot.distinct = slot.distinct.max(next.distinct).max(values.len() as u64);
    values.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.value.cmp(&other.value)));
    values.truncate(most.max(8));
    slot.values = values.into_iter().collect();
}

#[cfg(test)]
mod tests {
    use logwarden_detectors::SignalKind;
    use logwarden_templates::{Histogram, Sample, SlotKind, Timestamp};

    use super::*;
    use crate::testing::rows;

    fn segment(n: u64, templates: &[u64], second: i64) -> Segment {
        let at = Timestamp::from_secs(1_795_233_600 + second);
        let mut segment = Arc::unwrap_or_clone(rows::segment(n, at));
        segment.rows = templates.iter().flat_map(|of| rows::segment(*of, at).rows.clone()).collect();
        for row in &mut segment.rows {
            let row = &mut Arc::make_mut(row).row;
            row.samples = vec![Sample { time: at, text: format!("in {second}").into_bytes() }; 2].into();
            let values = ["203.0.113.7".to_owned(), second.to_string()];
            let value = |value: String| SlotValue { value: value.into(), count: 1, minutes: Histogram::default() };
            let values = values.into_iter().map(value).collect();
            row.slots = vec![Slot { kind: SlotKind::Ip, key: "".into(), position: 0, values, distinct: 2 }];
        }
        segment.signals = vec![Signal { kind: SignalKind::Novel, rows: vec![0], score: 1.0, entities: Vec::new() }];
        segment
    }

    #[test]
    fn the_same_template_is_one_row_and_nothing_is_lost() {
        let mut together = Together::default();
        together.add(segment(1, &[7, 8], 0));
        together.add(segment(2, &[9, 7], 90));
        together.add(segment(3, &[7], 30));
        let whole = together.finish().unwrap();
        let counts: Vec<_> = whole.rows.iter().map(|row| (row.row.count, row.row.lines)).collect();
        assert_eq!(counts, [(6, 6), (2, 2), (2, 2)]);
        assert_eq!(whole.counts.kept, 6);
        let row = &whole.rows[0].row;
        let texts: Vec<_> = row.samples.iter().map(|sample| String::from_utf8(sample.text).unwrap()).collect();
        assert_eq!(texts, ["in 0", "in 0", "in 90", "in 90", "in 30"]);
        assert_eq!((row.last.since(row.first).as_secs(), whole.to.since(whole.from).as_secs()), (90, 90));
        let first = row.slots[0].values.first().unwrap();
        assert_eq!((&*first.value, first.count), ("203.0.113.7", 3));
        assert_eq!(row.slots[0].distinct, 4);
        let cited: Vec<_> = whole.signals.iter().map(|signal| signal.rows.clone()).collect();
        assert_eq!(cited, [[0], [2], [0]], "signals still mean their rows");
        assert_eq!(whole.id.0, 3);
    }
}
