//! Rows as they grow during a fold.

use std::{
    borrow::Cow,
    ops::{Index, IndexMut},
    sync::Arc,
};

use crate::{
    Config, Histogram, Level, Origin, Row, Sample, Slot, SlotKind, SlotValue, Timestamp,
    closure::{self, Named},
    scan::{Masked, What},
    slots::{Counted, Distinct, Limits, is_entity},
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
    pub(crate) leaf: closure::Index,
    level: Option<Level>,
    pub(crate) count: u64,
    lines: u64,
    first: Timestamp,
    last: Timestamp,
    minutes: Histogram,
    /// The first events, all samples but one.
    earliest: Vec<(Timestamp, Cow<'a, [u8]>)>,
    /// The latest one after them.
    latest: Option<(Timestamp, Cow<'a, [u8]>)>,
    /// The values of the variables that are not the leaf's own words.
    slots: Vec<Counted>,
    /// The positions where words are values too.
    words: u128,
    tags: u64,
    first_line: Option<u32>,
}

/// Rows in pieces: those of a crowded fold are megabytes, which a vector would hold twice while it grows, and to its end.
#[derive(Debug, Default)]
pub(crate) struct Rows<'a>(Vec<Vec<Building<'a>>>);

impl<'a> Rows<'a> {
    const PIECE: usize = 256;

    pub(crate) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * Self::PIECE + last.len())
    }

    pub(crate) fn push(&mut self, row: Building<'a>) {
        match self.0.last_mut() {
            Some(last) if last.len() < Self::PIECE => last.push(row),
            _ => self.0.push(vec![row]),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Building<'a>> {
        self.0.iter().flatten()
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = Building<'a>> {
        self.0.into_iter().flatten()
    }
}

impl<'a> IndexMut<u32> for Rows<'a> {
    fn index_mut(&mut self, at: u32) -> &mut Building<'a> {
        &mut self.0[at as usize / Self::PIECE][at as usize % Self::PIECE]
    }
}

impl<'a> Index<u32> for Rows<'a> {
    type Output = Building<'a>;

    fn index(&self, at: u32) -> &Building<'a> {
        &self.0[at as usize / Self::PIECE][at as usize % Self::PIECE]
    }
}

impl<'a> Building<'a> {
    pub(crate) fn new(origin: u32, leaf: closure::Index, named: &Named, seen: &Seen<'a, '_>, config: &Config) -> Self {
        let variables = || named.variables.iter().filter(|(word, _)| word.is_none()).take(config.slots);
        let mut slots = Vec::with_capacity(variables().count());
        slots.extend(variables().map(|(_, variable)| Counted::new(variable.kind)));
        Self {
            origin,
            leaf,
            level: None,
            count: 0,
            lines: 0,
            first: seen.time,
            last: seen.time,
            minutes: Histogram::default(),
            earliest: Vec::new(),
            latest: None,
            slots,
            words: named.own,
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
        if self.earliest.len() + 1 < config.samples {
            if self.earliest.is_empty() {
                // Most rows of a crowded fold have one event.
                self.earliest.reserve_exact(1);
            }
            let text = match seen.text {
                Cow::Borrowed(text) => Cow::Borrowed(*text),
                Cow::Owned(text) => Cow::Owned(shortened(Cow::Borrowed(text), config.sample_bytes)),
            };
            self.earliest.push((seen.time, text));
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
    pub(crate) fn add_values(&mut self, time: Timestamp, masked: &Masked, source: &[u8], limits: &Limits) {
        let mut slots = self.slots.iter_mut();
        if self.words == 0 {
            for (slot, value) in slots.zip(&masked.values) {
                slot.add(value.kind, Masked::value(source, value), time, limits);
            }
            return;
        }
        let mut values = masked.values.iter();
        for (at, piece) in masked.pieces.iter().enumerate() {
            let (kind, bytes) = match piece.what {
                What::Var => match values.next() {
                    Some(value) => (value.kind, Masked::value(source, value)),
                    None => return,
                },
                _ if at < 128 && self.words >> at & 1 == 1 => (SlotKind::Word, Masked::word(source, piece)),
                _ => continue,
            };
            let Some(slot) = slots.next() else { return };
            slot.add(kind, bytes, time, limits);
        }
    }

    /// The row, and which values its slots had; `None` where the leaf has a word of its own.
    pub(crate) fn finish(
        self,
        origin: Arc<Origin>,
        named: &Named,
        config: &Config,
        limits: &Limits,
    ) -> (Row, Vec<Option<Distinct>>) {
        let mut samples = Vec::with_capacity(self.earliest.len() + usize::from(self.latest.is_some()));
        let events = self.earliest.into_iter().chain(self.latest);
        samples.extend(events.map(|(time, text)| Sample { time, text: shortened(text, config.sample_bytes) }));
        let variables = named.variables.len().min(config.slots);
        let (mut slots, mut distincts) = (Vec::with_capacity(variables), Vec::with_capacity(variables));
        let mut counted = self.slots.into_iter();
        for (word, variable) in named.variables.iter().take(config.slots) {
            let (kind, values, distinct) = match (word, counted.by_ref()) {
                (Some(word), _) => {
                    let minutes = if is_entity(variable.kind) { self.minutes.clone() } else { Histogram::default() };
                    distincts.push(None);
                    (variable.kind, vec![SlotValue { value: word.clone(), count: self.count, minutes }], 1)
                }
                (None, counted) => match counted.next() {
                    Some(slot) => {
                        let (kind, values, distinct) = slot.finish(limits);
                        let count = distinct.count().max(values.len() as u64);
                        distincts.push(Some(distinct));
                        (kind, values, count)
                    }
                    None => continue,
                },
            };
            slots.push(Slot { kind, key: variable.key.clone(), position: variable.position, values, distinct });
        }
        let row = Row {
            origin,
            leaf: named.leaf,
            root: named.root,
            template: named.text.clone(),
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
        };
        (row, distincts)
    }
}

/// The event as it came; of a very long one its two ends.
pub(crate) fn shortened(text: Cow<'_, [u8]>, max: usize) -> Vec<u8> {
    if text.len() <= max {
        return text.into_owned();
    }
    let note = format!(" […{} bytes left out…] ", text.len() - max);
    let half = max.saturating_sub(note.len()) / 2;
    [&text[..half], note.as_bytes(), &text[text.len() - half..]].concat()
}
