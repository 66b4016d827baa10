//! The values that a variable takes: the most frequent ones with counts, and about how many there are.
//!
//! Counts are exact until a slot overflows. Then the rarer half leaves; a value of it that comes back starts anew, so that
//! counts are lower bounds, and a frequent value never leaves.

use std::{cmp::Ordering, iter, mem};

use smallvec::SmallVec;

use crate::{Histogram, SlotKind, Timestamp, Values, scan, template, values::Packer};

/// Values longer than this are shortened: they are no value that anybody compares.
const MAX_VALUE: usize = 256;

/// Hashes that are compared at once.
const CHUNK: usize = 16;

/// So many values of a variable are a list in shared memory; where there are more, they are a [`Counted`].
const FEW: u8 = 8;
/// The end of such a list.
const NONE: u32 = u32::MAX;

/// The values of one variable in a row, as they come in. A crowded fold has ten thousands of these, with a few values each:
/// those have no memory of their own, which would grow with every line and leave holes, but a list in `shared`, which many
/// rows have together.
#[derive(Debug)]
pub(crate) struct Gathered {
    kind: SlotKind,
    len: u8,
    /// Where in `shared` the last one is.
    head: u32,
    many: Option<Box<Counted>>,
}

/// A value in shared memory: what is before its text there, and the text.
struct Node<'s> {
    next: u32,
    count: u32,
    minute: i32,
    tag: u16,
    text: &'s [u8],
}

impl<'s> Node<'s> {
    const HEAD: usize = 16;

    fn read(shared: &'s [u8], at: u32) -> Option<Self> {
        let ([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p], rest) =
            shared.get(at as usize..)?.split_first_chunk()?;
        Some(Self {
            next: u32::from_le_bytes([*a, *b, *c, *d]),
            count: u32::from_le_bytes([*e, *f, *g, *h]),
            minute: i32::from_le_bytes([*i, *j, *k, *l]),
            tag: u16::from_le_bytes([*m, *n]),
            text: rest.get(..usize::from(u16::from_le_bytes([*o, *p])))?,
        })
    }

    /// Returns where it is.
    fn write(&self, shared: &mut Vec<u8>) -> u32 {
        let at = shared.len();
        if shared.capacity() - at < Self::HEAD + self.text.len() {
            // There are many of these: none has much more than it needs.
            shared.reserve_exact((at / 4).max(1024));
        }
        shared.extend_from_slice(&self.next.to_le_bytes());
        shared.extend_from_slice(&self.count.to_le_bytes());
        shared.extend_from_slice(&self.minute.to_le_bytes());
        shared.extend_from_slice(&self.tag.to_le_bytes());
        shared.extend_from_slice(&(self.text.len() as u16).to_le_bytes());
        shared.extend_from_slice(self.text);
        // In range: a few hundred rows share it.
        at as u32
    }

    /// Counts it once more.
    fn tick(shared: &mut [u8], at: u32) {
        if let Some(count) = shared.get_mut(at as usize + 4..).and_then(|bytes| bytes.first_chunk_mut()) {
            *count = u32::from_le_bytes(*count).saturating_add(1).to_le_bytes();
        }
    }
}

impl Gathered {
    pub(crate) fn new(kind: SlotKind) -> Self {
        Self { kind, len: 0, head: NONE, many: None }
    }

    /// Counts a value. Returns how many more bytes are taken.
    pub(crate) fn add(
        &mut self,
        kind: SlotKind,
        value: &[u8],
        time: Timestamp,
        limits: &Limits,
        shared: &mut Vec<u8>,
    ) -> isize {
        if let Some(many) = &mut self.many {
            return many.add(kind, value, time, limits);
        }
        if kind != self.kind {
            self.kind = template::join(self.kind, kind);
        }
        let text = &value[..value.len().min(MAX_VALUE)];
        // In range: 64 bits of nanoseconds are fewer minutes.
        let (minute, tag) = (time.minute() as i32, hash(text) as u16);
        let mut at = self.head;
        while let Some(known) = Node::read(shared, at) {
            if known.tag != tag || known.text != text {
                at = known.next;
            } else if known.minute == minute {
                Node::tick(shared, at);
                return 0;
            } else {
                break;
            }
        }
        // One that was there in another minute needs a histogram.
        if at == NONE && self.len < FEW && usize::from(self.len) < limits.room(self.kind) {
            self.head = Node { next: self.head, count: 1, minute, tag, text }.write(shared);
            self.len += 1;
            return (Node::HEAD + text.len()) as isize;
        }
        let before = self.size(shared);
        let mut many = self.counted(shared);
        many.add(kind, value, time, limits);
        *self = Self { many: Some(Box::new(many)), ..Self::new(self.kind) };
        self.size(shared) as isize - before as isize
    }

    /// Forgets rare values when there are more than now have room.
    pub(crate) fn shrink(&mut self, limits: &Limits, shared: &[u8]) {
        if usize::from(self.len) > limits.room(self.kind) {
            let many = self.counted(shared);
            *self = Self { many: Some(Box::new(many)), ..Self::new(self.kind) };
        }
        if let Some(many) = &mut self.many {
            many.shrink(limits);
        }
    }

    /// Moves its list to other shared memory.
    pub(crate) fn relocate(&mut self, from: &[u8], to: &mut Vec<u8>) {
        let mut at = mem::replace(&mut self.head, NONE);
        while let Some(node) = Node::read(from, at) {
            at = node.next;
            self.head = Node { next: self.head, ..node }.write(to);
        }
    }

    /// Bytes that its values take.
    pub(crate) fn size(&self, shared: &[u8]) -> usize {
        let few: usize = self.few(shared).map(|node| Node::HEAD + node.text.len()).sum();
        few + self.many.as_ref().map_or(0, |many| many.size())
    }

    /// What was counted.
    pub(crate) fn take(self, shared: &[u8]) -> Counted {
        match self.many {
            Some(many) => *many,
            None => self.counted(shared),
        }
    }

    fn counted(&self, shared: &[u8]) -> Counted {
        let mut counted = Counted::new(self.kind);
        counted.values.reserve_exact(self.len.into());
        counted.bytes.reserve_exact(self.few(shared).map(|node| node.text.len()).sum());
        for Node { text, count, minute, .. } in self.few(shared) {
            counted.push(text, hash(text), count, minute);
        }
        counted
    }

    fn few<'s>(&self, shared: &'s [u8]) -> impl Iterator<Item = Node<'s>> + use<'s> {
        let mut at = self.head;
        iter::from_fn(move || Node::read(shared, at).inspect(|node| at = node.next))
    }
}

/// The values of one variable, as they come in. No value has memory of its own, and the first one is in here.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) kind: SlotKind,
    values: SmallVec<[Value; 1]>,
    /// The bytes of all values.
    bytes: SmallVec<[u8; 16]>,
    /// Half of each value's hash, apart to be searched fast; empty while there are few.
    tags: Vec<u32>,
    /// How many there are, once the slot has overflowed.
    sketch: Option<Box<Sketch>>,
}

#[derive(Debug)]
struct Value {
    /// Of all kinds: a slot may turn out to hold addresses when some of its values are counted already. `None` as long as all
    /// were in `minute`.
    minutes: Option<Box<Histogram>>,
    count: u32,
    /// Where in `bytes`.
    at: u32,
    minute: i32,
    len: u16,
    /// A part of its hash.
    tag: u16,
}

impl Value {
    fn bytes<'b>(&self, all: &'b [u8]) -> &'b [u8] {
        &all[self.at as usize..][..usize::from(self.len)]
    }

    fn tick(&mut self, time: Timestamp) {
        if let Some(minutes) = &mut self.minutes {
            minutes.add(time, 1);
        } else if time.minute() != i64::from(self.minute) {
            let mut minutes = Histogram::of([(i64::from(self.minute), self.count)]);
            minutes.add(time, 1);
            self.minutes = Some(Box::new(minutes));
        }
        self.count = self.count.saturating_add(1);
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
        Self { kind, values: SmallVec::new(), bytes: SmallVec::new(), tags: Vec::new(), sketch: None }
    }

    /// One word, so many times.
    pub(crate) fn of(kind: SlotKind, word: &str, count: u64) -> Self {
        let mut counted = Self::new(kind);
        let word = &word.as_bytes()[..word.len().min(MAX_VALUE)];
        counted.push(word, hash(word), u32::try_from(count).unwrap_or(u32::MAX), 0);
        counted
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Bytes that they take.
    pub(crate) fn size(&self) -> usize {
        self.values.len() * size_of::<Value>() + self.bytes.len()
    }

    /// Counts a value. Returns how many more bytes are taken.
    pub(crate) fn add(&mut self, kind: SlotKind, value: &[u8], time: Timestamp, limits: &Limits) -> isize {
        if kind != self.kind {
            self.kind = template::join(self.kind, kind);
        }
        let value = &value[..value.len().min(MAX_VALUE)];
        let hash = hash(value);
        if let Some(sketch) = &mut self.sketch {
            sketch.add(hash);
        }
        if let Some(at) = self.find(value, hash) {
            self.values[at].tick(time);
            if at > 0 && self.values[at].count > self.values[at - 1].count {
                self.swap(at, at - 1);
            }
            return 0;
        }
        let before = self.size();
        let room = limits.room(self.kind);
        if self.values.len() >= room {
            self.overflow(room / 2);
        }
        // In range: 64 bits of nanoseconds are fewer minutes.
        self.push(value, hash, 1, time.minute() as i32);
        self.size() as isize - before as isize
    }

    /// Forgets rare values when there are more than now have room.
    pub(crate) fn shrink(&mut self, limits: &Limits) {
        let room = limits.room(self.kind);
        if self.values.len() > room {
            self.overflow(room / 2);
            self.values.shrink_to_fit();
            self.bytes.shrink_to_fit();
        }
    }

    /// Adds the counts of another one; when its values were seen is forgotten.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.kind = template::join(self.kind, other.kind);
        for value in &other.values {
            let (bytes, count) = (value.bytes(&other.bytes), value.count);
            let hash = hash(bytes);
            match self.find(bytes, hash) {
                Some(at) => self.values[at].count = self.values[at].count.saturating_add(count),
                None => self.push(bytes, hash, count, 0),
            }
        }
    }

    /// Keeps the most frequent ones.
    pub(crate) fn cut(&mut self, keep: usize) {
        if self.values.len() > keep {
            self.values.select_nth_unstable_by(keep, by_frequency(&self.bytes));
            self.values.truncate(keep);
            self.values.shrink_to_fit();
            self.compact(self.values.iter().map(|value| usize::from(value.len)).sum());
        }
    }

    fn push(&mut self, value: &[u8], hash: u64, count: u32, minute: i32) {
        // Most rows of a crowded fold have one event, or a few.
        if self.values.len() == self.values.capacity() {
            self.values.reserve_exact((self.values.len() / 2).max(1));
        }
        if self.bytes.len() + value.len() > self.bytes.capacity() {
            self.bytes.reserve_exact(value.len().max(self.bytes.len() / 2));
        }
        // In range: no slot keeps more than some `Limits` values of MAX_VALUE bytes.
        let (at, len) = (self.bytes.len() as u32, value.len() as u16);
        self.values.push(Value { minutes: None, count, at, minute, len, tag: hash as u16 });
        self.bytes.extend_from_slice(value);
        if self.values.len() > CHUNK {
            if self.tags.len() + 1 == self.values.len() {
                self.tags.push(tag(hash));
            } else {
                self.tag();
            }
        }
    }

    /// Where a value is. Slots of addresses search hundreds for every line: no early end within a chunk, so that the
    /// compiler compares many at once.
    fn find(&self, value: &[u8], hash: u64) -> Option<usize> {
        let is = |known: &Value| known.tag == hash as u16 && known.bytes(&self.bytes) == value;
        if self.tags.is_empty() {
            return self.values.iter().position(is);
        }
        let tag = tag(hash);
        for (number, chunk) in self.tags.chunks(CHUNK).enumerate() {
            if chunk.iter().fold(false, |any, known| any | (*known == tag))
                && let Some(at) = (number * CHUNK..number * CHUNK + chunk.len())
                    .find(|at| self.tags[*at] == tag && is(&self.values[*at]))
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

    fn overflow(&mut self, keep: usize) {
        if self.sketch.is_none() {
            let mut sketch = Box::new(Sketch::default());
            self.values.iter().for_each(|value| sketch.add(hash(value.bytes(&self.bytes))));
            self.sketch = Some(sketch);
        }
        // When all are as rare as can be, none is frequent. What has room for them will soon have others.
        if self.values.iter().all(|value| value.count == 1) {
            self.values.clear();
            self.bytes.clear();
            self.tags.clear();
            return;
        }
        let mut counts: SmallVec<[u32; 32]> = self.values.iter().map(|value| value.count).collect();
        let at = counts.len().saturating_sub(keep + 1);
        let lost = *counts.select_nth_unstable(at).1;
        self.values.retain(|value| value.count > lost);
        let room = self.bytes.capacity();
        self.compact(room);
    }

    /// Makes room of what values took that are gone.
    fn compact(&mut self, room: usize) {
        let old = mem::replace(&mut self.bytes, SmallVec::with_capacity(room));
        for value in &mut self.values {
            let bytes = value.bytes(&old);
            value.at = self.bytes.len() as u32;
            self.bytes.extend_from_slice(bytes);
        }
        self.tag();
    }

    fn tag(&mut self) {
        let (values, bytes) = (&self.values, &self.bytes);
        self.tags.clear();
        if values.len() > CHUNK {
            self.tags.extend(values.iter().map(|value| tag(hash(value.bytes(bytes)))));
        }
    }

    /// The values, most frequent first, and about how many there were.
    pub(crate) fn finish(mut self, limits: &Limits) -> (SlotKind, Values, u64) {
        let distinct = match &self.sketch {
            Some(sketch) => sketch.estimate(),
            None => self.values.len() as u64,
        };
        let values = self.pack(limits.of(self.kind));
        (self.kind, values, distinct)
    }

    /// So many values, most frequent first.
    pub(crate) fn pack(&mut self, most: usize) -> Values {
        self.values.sort_unstable_by(by_frequency(&self.bytes));
        let entity = is_entity(self.kind);
        let mut packer = Packer::new(self.values.len().min(most));
        for value in self.values.iter().take(most) {
            let (text, count) = (String::from_utf8_lossy(value.bytes(&self.bytes)), u64::from(value.count));
            match &value.minutes {
                _ if !entity => packer.push(&text, count, []),
                Some(minutes) => packer.push(&text, count, minutes.iter()),
                None => packer.push(&text, count, [(i64::from(value.minute), value.count)]),
            }
        }
        packer.finish()
    }
}

/// The most frequent first, then by text.
fn by_frequency(bytes: &[u8]) -> impl Fn(&Value, &Value) -> Ordering {
    |a, b| b.count.cmp(&a.count).then_with(|| a.bytes(bytes).cmp(b.bytes(bytes)))
}

impl Limits {
    /// Values that are kept of a slot.
    pub(crate) fn of(&self, kind: SlotKind) -> usize {
        if is_entity(kind) { self.entities } else { self.values }
    }

    /// Values that it may have before the rarer half goes.
    fn room(&self, kind: SlotKind) -> usize {
        (2 * self.of(kind)).max(2)
    }

    /// Makes them smaller; not below `least`.
    pub(crate) fn halve(&mut self, least: usize) -> bool {
        match (self.entities > self.values, self.values > least) {
            (true, _) => self.entities = (self.entities / 2).max(self.values),
            (_, true) => (self.values, self.entities) = ((self.values / 2).max(least), (self.values / 2).max(least)),
            _ => return false,
        }
        true
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
    /// Adds those of a fold; of more than `few` only the number is known.
    pub(crate) fn take(&mut self, counted: &Counted, few: usize) {
        match &counted.sketch {
            Some(sketch) => self.merge(&Self::Many(sketch.clone()), few),
            None => counted.values.iter().for_each(|value| self.add(hash(value.bytes(&counted.bytes)), few)),
        }
    }

    /// Adds those that another one knows.
    pub(crate) fn merge(&mut self, other: &Self, few: usize) {
        match (&mut *self, other) {
            (_, Self::Few(hashes)) => hashes.iter().for_each(|hash| self.add(*hash, few)),
            (Self::Many(known), Self::Many(more)) => {
                known.0.iter_mut().zip(&more.0).for_each(|(known, more)| *known = (*known).max(*more));
            }
            (Self::Few(hashes), Self::Many(more)) => {
                let mut sketch = more.clone();
                hashes.iter().for_each(|hash| sketch.add(*hash));
                *self = Self::Many(sketch);
            }
        }
    }

    fn add(&mut self, hash: u64, few: usize) {
        match self {
            Self::Many(sketch) => sketch.add(hash),
            Self::Few(hashes) if hashes.contains(&hash) => {}
            Self::Few(hashes) => {
                if hashes.len() < CHUNK {
                    hashes.reserve_exact(1);
                }
                hashes.push(hash);
                self.cut(few);
            }
        }
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

fn hash(value: &[u8]) -> u64 {
    scan::hash(value, 0x2d35_8dcc_aa6c_78a5, 0x8bb8_4b93_962e_acc9)
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
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

    fn count<'a>(values: impl IntoIterator<Item = &'a str>, kind: SlotKind) -> (Values, u64) {
        let mut counted = Counted::new(kind);
        for (at, value) in values.into_iter().enumerate() {
            counted.add(kind, value.as_bytes(), Timestamp::from_secs(at as i64), &LIMITS);
        }
        let (_, values, distinct) = counted.finish(&LIMITS);
        (values, distinct)
    }

    #[test]
    fn few_values_are_counted_exactly() {
        let (values, distinct) = count(["b", "a", "b", "c", "b", "a"], SlotKind::Num);
        let shown: Vec<_> = values.iter().map(|v| (v.value, v.count)).collect();
        assert_eq!((shown, distinct), (vec![("b".into(), 3), ("a".into(), 2), ("c".into(), 1)], 3));
        assert_eq!(values.first().unwrap().minutes, Histogram::default());
    }

    #[test]
    fn a_frequent_value_survives_ten_thousand_rare_ones() {
        let rare: Vec<String> = (0..10_000).map(|n| format!("v{n}")).collect();
        let mixed = rare.iter().flat_map(|value| [value.as_str(), "203.0.113.7"]);
        let (values, distinct) = count(mixed, SlotKind::Ip);
        let first = values.first().unwrap();
        assert_eq!((&*first.value, first.count), ("203.0.113.7", 10_000));
        assert_eq!(first.minutes.iter().map(|(_, n)| u64::from(n)).sum::<u64>(), 10_000);
        assert!((8_000..12_000).contains(&distinct), "{distinct}");
    }
}
