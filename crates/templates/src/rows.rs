//! Rows as they grow during a fold.

use std::{
    borrow::Cow,
    mem,
    ops::{Index, IndexMut},
    sync::Arc,
};

use smallvec::SmallVec;

use crate::{
    Config, Histogram, Level, Origin, Row, Samples, Slot, SlotKind, Timestamp,
    closure::{self, Named},
    scan::{Masked, What},
    slots::{Counted, Gathered, Limits, is_entity},
    values::Packer,
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
    pub(crate) level: Option<Level>,
    pub(crate) count: u64,
    pub(crate) lines: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    minutes: Histogram,
    /// The first events, and the latest one after them.
    pub(crate) samples: SmallVec<[(Timestamp, Cow<'a, [u8]>); 1]>,
    /// The values of the variables that are not the leaf's own words.
    slots: Vec<Gathered>,
    /// The positions where words are values too.
    words: u128,
    tags: u64,
    first_line: Option<u32>,
}

/// Rows in pieces: those of a crowded fold are megabytes, which a vector would hold twice while it grows, and to its end.
#[derive(Debug, Default)]
pub(crate) struct Rows<'a>(Vec<Piece<'a>>);

#[derive(Debug)]
struct Piece<'a> {
    rows: Vec<Building<'a>>,
    /// The values of variables that have a few: see [`Gathered`].
    few: Vec<u8>,
}

impl<'a> Rows<'a> {
    const PIECE: usize = 256;

    pub(crate) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * Self::PIECE + last.rows.len())
    }

    pub(crate) fn push(&mut self, row: Building<'a>) {
        match self.0.last_mut() {
            Some(last) if last.rows.len() < Self::PIECE => last.rows.push(row),
            _ => {
                let mut rows = Vec::with_capacity(Self::PIECE);
                rows.push(row);
                self.0.push(Piece { rows, few: Vec::new() });
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Building<'a>> {
        self.0.iter().flat_map(|piece| &piece.rows)
    }

    /// All rows, with the values of their variables that are not the leaf's own words.
    pub(crate) fn into_iter(self) -> impl Iterator<Item = (Building<'a>, Vec<Counted>)> {
        self.0.into_iter().flat_map(|Piece { rows, few }| {
            rows.into_iter().map(move |mut row| {
                let slots = mem::take(&mut row.slots).into_iter().map(|slot| slot.take(&few)).collect();
                (row, slots)
            })
        })
    }

    /// Counts the values of the variables of an event. Returns how many more bytes are taken.
    pub(crate) fn add_values(
        &mut self,
        row: u32,
        time: Timestamp,
        masked: &Masked,
        source: &[u8],
        limits: &Limits,
    ) -> isize {
        let Piece { rows, few } = &mut self.0[row as usize / Self::PIECE];
        rows[row as usize % Self::PIECE].add_values(time, masked, source, limits, few)
    }

    /// Forgets rare values where there are more than now have room. Returns how many bytes the others take.
    pub(crate) fn shrink(&mut self, limits: &Limits) -> usize {
        let mut bytes = 0;
        for Piece { rows, few } in &mut self.0 {
            let old = mem::take(few);
            for slot in rows.iter_mut().flat_map(|row| &mut row.slots) {
                slot.shrink(limits, &old);
                slot.relocate(&old, few);
                bytes += slot.size(few);
            }
        }
        bytes
    }
}

impl<'a> IndexMut<u32> for Rows<'a> {
    fn index_mut(&mut self, at: u32) -> &mut Building<'a> {
        &mut self.0[at as usize / Self::PIECE].rows[at as usize % Self::PIECE]
    }
}

impl<'a> Index<u32> for Rows<'a> {
    type Output = Building<'a>;

    fn index(&self, at: u32) -> &Building<'a> {
        &self.0[at as usize / Self::PIECE].rows[at as usize % Self::PIECE]
    }
}

impl<'a> Building<'a> {
    /// A row for a leaf whose variables, but for its own words, are of these kinds; at the positions of `words` stand values
    /// that are words.
    pub(crate) fn new(origin: u32, leaf: closure::Index, kinds: &[SlotKind], words: u128, seen: &Seen<'a, '_>) -> Self {
        Self {
            origin,
            leaf,
            level: None,
            count: 0,
            lines: 0,
            first: seen.time,
            last: seen.time,
            minutes: Histogram::default(),
            samples: SmallVec::new(),
            slots: kinds.iter().map(|kind| Gathered::new(*kind)).collect(),
            words,
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
        if self.samples.len() < config.samples {
            if self.samples.len() == self.samples.capacity() {
                // Most rows of a crowded fold have one event; where there are more, memory grows once.
                self.samples.reserve_exact(config.samples - self.samples.len());
            }
            let text = match seen.text {
                Cow::Borrowed(text) => Cow::Borrowed(*text),
                Cow::Owned(text) => Cow::Owned(shortened(Cow::Borrowed(text), config.sample_bytes).into_owned()),
            };
            self.samples.push((seen.time, text));
        } else {
            match (self.samples.last_mut(), seen.text) {
                // Reuses what is allocated.
                (Some((time, Cow::Owned(old))), Cow::Owned(new)) => {
                    *time = seen.time;
                    old.clone_from(new);
                }
                (Some(latest), text) => *latest = (seen.time, text.clone()),
                (None, _) => {}
            }
        }
    }

    /// Its events as they came, with their times.
    pub(crate) fn samples(&self, config: &Config) -> impl Iterator<Item = (Timestamp, Cow<'_, [u8]>)> {
        self.samples.iter().map(|(time, text)| (*time, shortened(Cow::Borrowed(text), config.sample_bytes)))
    }

    fn add_values(
        &mut self,
        time: Timestamp,
        masked: &Masked,
        source: &[u8],
        limits: &Limits,
        few: &mut Vec<u8>,
    ) -> isize {
        let mut slots = self.slots.iter_mut();
        let mut bytes = 0;
        if self.words == 0 {
            for (slot, value) in slots.zip(&masked.values) {
                bytes += slot.add(value.kind, Masked::value(source, value), time, limits, few);
            }
            return bytes;
        }
        let mut values = masked.values.iter();
        for (at, piece) in masked.pieces.iter().enumerate() {
            let (kind, text) = match piece.what {
                What::Var => match values.next() {
                    Some(value) => (value.kind, Masked::value(source, value)),
                    None => break,
                },
                _ if at < 128 && self.words >> at & 1 == 1 => (SlotKind::Word, Masked::word(source, piece)),
                _ => continue,
            };
            let Some(slot) = slots.next() else { break };
            bytes += slot.add(kind, text, time, limits, few);
        }
        bytes
    }

    /// The row.
    pub(crate) fn finish(
        self,
        origin: Arc<Origin>,
        named: &Named,
        samples: Samples,
        counted: Vec<Counted>,
        config: &Config,
        limits: &Limits,
    ) -> Row {
        let mut slots = Vec::with_capacity(named.variables.len().min(config.slots));
        let mut counted = counted.into_iter();
        for (word, variable) in named.variables.iter().take(config.slots) {
            let (kind, values, distinct) = match (word, counted.by_ref()) {
                (Some(word), _) => {
                    let mut packer = Packer::new(1);
                    match is_entity(variable.kind) {
                        true => packer.push(word, self.count, self.minutes.iter()),
                        false => packer.push(word, self.count, []),
                    }
                    (variable.kind, packer.finish(), 1)
                }
                (None, counted) => match counted.next() {
                    Some(slot) => slot.finish(limits),
                    None => continue,
                },
            };
            let distinct = distinct.max(values.len() as u64);
            slots.push(Slot { kind, key: variable.key.clone(), position: variable.position, values, distinct });
        }
        Row {
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
        }
    }
}

/// The event as it came; of a very long one its two ends.
pub(crate) fn shortened(text: Cow<'_, [u8]>, max: usize) -> Cow<'_, [u8]> {
    if text.len() <= max {
        return text;
    }
    let note = format!(" […{} bytes left out…] ", text.len() - max);
    let half = max.saturating_sub(note.len()) / 2;
    Cow::Owned([&text[..half], note.as_bytes(), &text[text.len() - half..]].concat())
}
