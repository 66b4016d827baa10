//! Rows as they grow during a fold.

use std::{borrow::Cow, sync::Arc};

use crate::{
    Config, Histogram, Level, Origin, RootId, Row, Sample, Slot, SlotKind, SlotValue, Timestamp,
    closure::Index,
    scan::Masked,
    slots::{Counted, Limits},
    template::Rendered,
};

/// What a row is told of an event.
pub(crate) struct Seen<'a, 'e> {
    pub(crate) time: Timestamp,
    pub(crate) level: Option<Level>,
    pub(crate) lines: u64,
    pub(crate) tags: u64,
    pub(crate) text: &'e Cow<'a, [u8]>,
    pub(crate) first_line: Option<u32>,
}

/// A row of the delta to be.
#[derive(Debug)]
pub(crate) struct Building<'a> {
    pub(crate) origin: u32,
    pub(crate) leaf: Index,
    level: Option<Level>,
    pub(crate) count: u64,
    lines: u64,
    first: Timestamp,
    last: Timestamp,
    minutes: Histogram,
    samples: Vec<Sample>,
    /// The latest event, when the first ones fill all samples but one.
    latest: Option<(Timestamp, Cow<'a, [u8]>)>,
    slots: Vec<Counted>,
    tags: u64,
    first_line: Option<u32>,
}

impl<'a> Building<'a> {
    pub(crate) fn new(origin: u32, leaf: Index, seen: &Seen<'a, '_>) -> Self {
        Self {
            origin,
            leaf,
            level: None,
            count: 0,
            lines: 0,
            first: seen.time,
            last: seen.time,
            minutes: Histogram::default(),
            samples: Vec::new(),
            latest: None,
            slots: Vec::new(),
            tags: 0,
            first_line: seen.first_line,
        }
    }

    pub(crate) fn add(&mut self, seen: &Seen<'a, '_>, config: &Config) {
        self.count += 1;
        self.lines += seen.lines;
        self.level = self.level.max(seen.level);
        self.tags |= seen.tags;
        self.first = self.first.min(seen.time);
        self.last = self.last.max(seen.time);
        self.minutes.add(seen.time, 1);
        if self.samples.len() + 1 < config.samples {
            self.samples.push(sample(seen.time, seen.text, config.sample_bytes));
        } else if config.samples > 0 {
            match (&mut self.latest, seen.text) {
                // Reuses what is allocated.
                (Some((time, Cow::Owned(old))), Cow::Owned(new)) => {
                    *time = seen.time;
                    old.clone_from(new);
                }
                (latest, text) => *latest = Some((seen.time, text.clone())),
            }
        }
    }

    /// Counts the values of the variables.
    pub(crate) fn add_values(
        &mut self,
        time: Timestamp,
        masked: &Masked,
        source: &[u8],
        config: &Config,
        limits: &Limits,
    ) {
        for (at, value) in masked.values.iter().take(config.slots).enumerate() {
            let bytes = Masked::value(source, value);
            match self.slots.get_mut(at) {
                Some(slot) => slot.add(value.kind, bytes, time, limits),
                None => {
                    let mut slot = Counted::new(value.kind);
                    slot.add(value.kind, bytes, time, limits);
                    self.slots.push(slot);
                }
            }
        }
    }

    /// The row, below its root. `words` are the words of the leaf that are variables in its root, by piece.
    pub(crate) fn finish(
        self,
        origin: Arc<Origin>,
        leaf: crate::LeafId,
        root: RootId,
        template: Arc<str>,
        rendered: &Rendered,
        words: &[(usize, String)],
        config: &Config,
        limits: &Limits,
    ) -> Row {
        let mut samples = self.samples;
        if let Some((time, text)) = self.latest {
            samples.push(sample(time, &text, config.sample_bytes));
        }
        let mut slots = Vec::new();
        let mut counted = self.slots.into_iter();
        for variable in rendered.variables.iter() {
            let word = words.iter().find(|(piece, _)| *piece == variable.piece);
            let (kind, values, distinct) = match word {
                Some((_, word)) => {
                    let minutes = match variable.kind {
                        SlotKind::Ip | SlotKind::User | SlotKind::Host => self.minutes.clone(),
                        _ => Histogram::default(),
                    };
                    (variable.kind, vec![SlotValue { value: word.as_str().into(), count: self.count, minutes }], 1)
                }
                None => match counted.next() {
                    Some(mut slot) => {
                        if matches!(variable.kind, SlotKind::User | SlotKind::Host) && slot.kind != SlotKind::Ip
                            || variable.kind == SlotKind::User
                        {
                            slot.kind = variable.kind;
                        }
                        slot.finish(limits)
                    }
                    None => continue,
                },
            };
            if slots.len() < config.slots {
                slots.push(Slot { kind, key: variable.key.clone(), position: variable.position, values, distinct });
            }
        }
        Row {
            origin,
            leaf,
            root,
            template,
            level: self.level,
            count: self.count,
            lines: self.lines,
            first: self.first,
            last: self.last,
            minutes: self.minutes,
            samples,
            slots,
            tags: self.tags,
            first_line: self.first_line,
        }
    }
}

/// The event as it came; of a very long one its two ends.
fn sample(time: Timestamp, text: &[u8], max: usize) -> Sample {
    if text.len() <= max {
        return Sample { time, text: text.to_vec() };
    }
    let note = format!(" […{} bytes left out…] ", text.len() - max);
    let half = max.saturating_sub(note.len()) / 2;
    Sample { time, text: [&text[..half], note.as_bytes(), &text[text.len() - half..]].concat() }
}
