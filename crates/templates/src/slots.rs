//! The values that a variable takes: the most frequent ones with counts, and about how many there are.
//!
//! Counts are exact until a slot overflows. Then the rarer half leaves; a value of it that comes back starts anew, so that
//! counts are lower bounds, and a frequent value never leaves.

use crate::{Histogram, SlotKind, SlotValue, Timestamp, scan, template};

/// Values longer than this are shortened: they are no value that anybody compares.
const MAX_VALUE: usize = 256;

/// Hashes that are compared at once.
const CHUNK: usize = 16;

/// The values of one variable in a row, as they come in. A crowded fold has ten thousands of these: no value has memory of
/// its own.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) kind: SlotKind,
    /// Half of each value's hash, apart to be searched fast; empty while there are few.
    tags: Vec<u32>,
    values: Vec<Value>,
    /// The bytes of all values.
    bytes: Vec<u8>,
    /// How many there are, once the slot has overflowed.
    sketch: Option<Box<Sketch>>,
}

#[derive(Debug)]
struct Value {
    hash: u64,
    /// Of all kinds: a slot may turn out to hold addresses when some of its values are counted already.
    minutes: Histogram,
    count: u32,
    /// Where in `bytes`.
    at: u32,
    len: u16,
}

impl Value {
    fn bytes<'b>(&self, all: &'b [u8]) -> &'b [u8] {
        &all[self.at as usize..][..usize::from(self.len)]
    }
}

/// How many values are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) values: usize,
    pub(crate) entities: usize,
}

/// Kinds of which more values are kept, with a histogram each.
pub(crate) fn is_entity(kind: SlotKind) -> bool {
    matches!(kind, SlotKind::Ip | SlotKind::User | SlotKind::Host)
}

impl Counted {
    pub(crate) fn new(kind: SlotKind) -> Self {
        Self { kind, tags: Vec::new(), values: Vec::new(), bytes: Vec::new(), sketch: None }
    }

    /// Counts a value.
    pub(crate) fn add(&mut self, kind: SlotKind, value: &[u8], time: Timestamp, limits: &Limits) {
        if kind != self.kind {
            self.kind = template::join(self.kind, kind);
        }
        let value = &value[..value.len().min(MAX_VALUE)];
        let hash = hash(value);
        if let Some(sketch) = &mut self.sketch {
            sketch.add(hash);
        }
        if let Some(at) = self.find(hash) {
            self.values[at].count = self.values[at].count.saturating_add(1);
            self.values[at].minutes.add(time, 1);
            if at > 0 && self.values[at].count > self.values[at - 1].count {
                self.swap(at, at - 1);
            }
            return;
        }
        let room = (2 * limits.of(self.kind)).max(2);
        if self.values.len() >= room {
            self.overflow(room / 2);
        }
        // Most rows of a crowded fold have one event, or a few.
        if self.values.len() == self.values.capacity() {
            self.values.reserve_exact(self.values.len().max(1));
        }
        if self.bytes.is_empty() {
            self.bytes.reserve_exact(value.len());
        }
        let mut minutes = Histogram::default();
        minutes.add(time, 1);
        // In range: no slot keeps more than twice `Limits` values of MAX_VALUE bytes.
        self.values.push(Value { hash, minutes, count: 1, at: self.bytes.len() as u32, len: value.len() as u16 });
        self.bytes.extend_from_slice(value);
        match self.values.len() {
            ..=CHUNK => {}
            len if self.tags.len() + 1 == len => self.tags.push(hash as u32),
            _ => self.tags = self.values.iter().map(|value| value.hash as u32).collect(),
        }
    }

    /// Where the value with this hash is. Slots of addresses search hundreds for every line: no early end within a chunk, so
    /// that the compiler compares many at once.
    fn find(&self, hash: u64) -> Option<usize> {
        if self.tags.is_empty() {
            return self.values.iter().position(|value| value.hash == hash);
        }
        let tag = hash as u32;
        for (number, chunk) in self.tags.chunks(CHUNK).enumerate() {
            if chunk.iter().fold(false, |any, known| any | (*known == tag))
                && let Some(at) =
                    (number * CHUNK..number * CHUNK + chunk.len()).find(|at| self.values[*at].hash == hash)
            {
                return Some(at);
            }
        }
        None
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.values.swap(one, other);
        if !self.tags.is_empty() {
            self.tags.swap(one, other);
        }
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.tags.truncate(if len > CHUNK { len } else { 0 });
    }

    fn overflow(&mut self, keep: usize) {
        if self.sketch.is_none() {
            let mut sketch = Box::new(Sketch::default());
            self.values.iter().for_each(|value| sketch.add(value.hash));
            self.sketch = Some(sketch);
        }
        let mut kept = 0;
        // When all are as rare as can be, none is frequent.
        if self.values.iter().any(|value| value.count > 1) {
            let mut counts: Vec<u32> = self.values.iter().map(|value| value.count).collect();
            let at = counts.len().saturating_sub(keep + 1);
            let lost = *counts.select_nth_unstable(at).1;
            for at in 0..self.values.len() {
                if self.values[at].count > lost {
                    self.swap(at, kept);
                    kept += 1;
                }
            }
        }
        self.truncate(kept);
        if kept == 0 {
            self.bytes.clear();
            return;
        }
        let old = std::mem::take(&mut self.bytes);
        for value in &mut self.values {
            let bytes = value.bytes(&old);
            value.at = self.bytes.len() as u32;
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// The values, most frequent first, and which there were.
    pub(crate) fn finish(mut self, limits: &Limits) -> (SlotKind, Vec<SlotValue>, Distinct) {
        let distinct = match self.sketch {
            Some(sketch) => Distinct::Many(sketch),
            None => Distinct::Few(self.values.iter().map(|value| value.hash).collect()),
        };
        let bytes = |value: &Value| value.bytes(&self.bytes);
        self.values.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| bytes(a).cmp(bytes(b))));
        self.values.truncate(limits.of(self.kind));
        let entity = is_entity(self.kind);
        let values = self.values.into_iter().map(|value| SlotValue {
            count: u64::from(value.count),
            value: String::from_utf8_lossy(value.bytes(&self.bytes)).as_ref().into(),
            minutes: if entity { value.minutes } else { Histogram::default() },
        });
        let mut values: Vec<_> = values.collect();
        values.shrink_to_fit();
        (self.kind, values, distinct)
    }
}

impl Limits {
    /// Values that are kept of a slot.
    pub(crate) fn of(&self, kind: SlotKind) -> usize {
        if is_entity(kind) { self.entities } else { self.values }
    }
}

/// Which values there were, for counting those of several folds once.
#[derive(Clone, Debug)]
pub(crate) enum Distinct {
    /// The hashes of all of them.
    Few(Vec<u64>),
    /// Too many to remember.
    Many(Box<Sketch>),
}

impl Distinct {
    /// One word.
    pub(crate) fn of(word: &str) -> Self {
        Self::Few(vec![hash(word.as_bytes())])
    }

    /// Adds those of another fold; of more than `few` only the number is known.
    pub(crate) fn merge(&mut self, other: Self, few: usize) {
        let (mut known, more) = match (std::mem::replace(self, Self::Few(Vec::new())), other) {
            (Self::Many(mut known), Self::Many(more)) => {
                known.0.iter_mut().zip(more.0).for_each(|(known, more)| *known = (*known).max(more));
                *self = Self::Many(known);
                return;
            }
            (Self::Many(sketch), Self::Few(few)) | (Self::Few(few), Self::Many(sketch)) => (Self::Many(sketch), few),
            (known, Self::Few(more)) => (known, more),
        };
        for hash in more {
            match &mut known {
                Self::Many(sketch) => sketch.add(hash),
                Self::Few(hashes) if hashes.contains(&hash) => {}
                Self::Few(hashes) if hashes.len() < few => hashes.push(hash),
                Self::Few(hashes) => {
                    let mut sketch = Box::new(Sketch::default());
                    hashes.iter().chain([&hash]).for_each(|hash| sketch.add(*hash));
                    known = Self::Many(sketch);
                }
            }
        }
        *self = known;
    }

    /// Of more than `few` only the number is known.
    pub(crate) fn cut(&mut self, few: usize) {
        if let Self::Few(hashes) = self
            && hashes.len() > few
        {
            let mut sketch = Box::new(Sketch::default());
            hashes.iter().for_each(|hash| sketch.add(*hash));
            *self = Self::Many(sketch);
        }
    }

    /// About how many.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Few(hashes) => hashes.len() as u64,
            Self::Many(sketch) => sketch.estimate(),
        }
    }
}

pub(crate) fn hash(value: &[u8]) -> u64 {
    scan::hash(value, 0x2d35_8dcc_aa6c_78a5, 0x8bb8_4b93_962e_acc9)
}

/// About how many distinct values there were (HyperLogLog with 256 registers: 6.5 % standard error).
#[derive(Clone, Debug)]
pub(crate) struct Sketch([u8; 256]);

impl Default for Sketch {
    fn default() -> Self {
        Self([0; 256])
    }
}

impl Sketch {
    fn add(&mut self, hash: u64) {
        let rank = ((hash << 8) | 0x80).leading_zeros() as u8 + 1;
        let register = &mut self.0[(hash >> 56) as usize];
        *register = (*register).max(rank);
    }

    fn estimate(&self) -> u64 {
        let m = 256.0_f64;
        let sum: f64 = self.0.iter().map(|rank| (-f64::from(*rank)).exp2()).sum();
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let empty = self.0.iter().filter(|rank| **rank == 0).count();
        let estimate = if raw < 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw };
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { values: 8, entities: 64 };

    fn count<'a>(values: impl IntoIterator<Item = &'a str>, kind: SlotKind) -> (Vec<SlotValue>, u64) {
        let mut counted = Counted::new(kind);
        for (at, value) in values.into_iter().enumerate() {
            counted.add(kind, value.as_bytes(), Timestamp::from_secs(at as i64), &LIMITS);
        }
        let (_, values, distinct) = counted.finish(&LIMITS);
        (values, distinct.count())
    }

    #[test]
    fn few_values_are_counted_exactly() {
        let (values, distinct) = count(["b", "a", "b", "c", "b", "a"], SlotKind::Num);
        let shown: Vec<_> = values.iter().map(|v| (&*v.value, v.count)).collect();
        assert_eq!((shown, distinct), (vec![("b", 3), ("a", 2), ("c", 1)], 3));
        assert_eq!(values[0].minutes, Histogram::default());
    }

    #[test]
    fn a_frequent_value_survives_ten_thousand_rare_ones() {
        let rare: Vec<String> = (0..10_000).map(|n| format!("v{n}")).collect();
        let mixed = rare.iter().flat_map(|value| [value.as_str(), "203.0.113.7"]);
        let (values, distinct) = count(mixed, SlotKind::Ip);
        assert_eq!(&*values[0].value, "203.0.113.7");
        assert_eq!(values[0].count, 10_000);
        assert_eq!(values[0].minutes.iter().map(|(_, n)| u64::from(n)).sum::<u64>(), 10_000);
        assert!((8_000..12_000).contains(&distinct), "{distinct}");
    }
}
