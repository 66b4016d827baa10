//! The values that a variable took, kept together in one piece of memory.

use std::{borrow::Cow, fmt, str};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Histogram,
    varint::{part, put, put_signed, take, take_signed},
};

/// One value of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotValue<'v> {
    /// The value as it came.
    pub value: Cow<'v, str>,
    /// How often: exact unless the slot overflowed, then at least this often.
    pub count: u64,
    /// How often per minute, for addresses, users and hosts; empty for other kinds.
    pub minutes: Histogram,
}

/// A list of [`SlotValue`]s that takes little memory: each is made when it is read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Values(Box<[u8]>);

impl Values {
    /// How many.
    pub fn len(&self) -> usize {
        take(&mut &self.0[..]) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> ValuesIter<'_> {
        let mut rest = &self.0[..];
        let left = take(&mut rest);
        ValuesIter { rest, left, minute: 0 }
    }

    /// The first one: the most frequent.
    pub fn first(&self) -> Option<SlotValue<'_>> {
        self.iter().next()
    }
}

/// Puts values together.
#[derive(Debug)]
pub(crate) struct Packer {
    bytes: Vec<u8>,
    /// The last minute.
    minute: i64,
}

impl Packer {
    /// For so many values.
    pub(crate) fn new(len: usize) -> Self {
        let mut bytes = Vec::new();
        put(&mut bytes, len as u64);
        Self { bytes, minute: 0 }
    }

    pub(crate) fn push<M>(&mut self, value: &str, count: u64, minutes: M)
    where
        M: IntoIterator<Item = (i64, u32), IntoIter: ExactSizeIterator>,
    {
        let minutes = minutes.into_iter();
        put(&mut self.bytes, count);
        put(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(value.as_bytes());
        put(&mut self.bytes, minutes.len() as u64);
        for (minute, n) in minutes {
            put_signed(&mut self.bytes, minute.wrapping_sub(self.minute));
            put(&mut self.bytes, u64::from(n));
            self.minute = minute;
        }
    }

    pub(crate) fn finish(self) -> Values {
        Values(self.bytes.into())
    }
}

/// The values of a [`Values`].
#[derive(Clone, Debug)]
pub struct ValuesIter<'v> {
    rest: &'v [u8],
    left: u64,
    /// The last one that was read.
    minute: i64,
}

impl<'v> Iterator for ValuesIter<'v> {
    type Item = SlotValue<'v>;

    fn next(&mut self) -> Option<SlotValue<'v>> {
        self.left = self.left.checked_sub(1)?;
        let count = take(&mut self.rest);
        let len = take(&mut self.rest);
        // Only ever made of text.
        let value = str::from_utf8(part(&mut self.rest, len)).unwrap_or_default();
        let minutes = (0..take(&mut self.rest)).map(|_| {
            self.minute = self.minute.wrapping_add(take_signed(&mut self.rest));
            (self.minute, take(&mut self.rest) as u32)
        });
        Some(SlotValue { value: Cow::Borrowed(value), count, minutes: Histogram::of(minutes) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for ValuesIter<'_> {}

impl<'v> IntoIterator for &'v Values {
    type Item = SlotValue<'v>;
    type IntoIter = ValuesIter<'v>;

    fn into_iter(self) -> ValuesIter<'v> {
        self.iter()
    }
}

impl<'v> FromIterator<SlotValue<'v>> for Values {
    fn from_iter<T: IntoIterator<Item = SlotValue<'v>>>(values: T) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        let mut packer = Packer::new(values.len());
        values.iter().for_each(|value| packer.push(&value.value, value.count, value.minutes.iter()));
        packer.finish()
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<SlotValue<'static>>::deserialize(deserializer).map(Self::from_iter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = SlotValue<'static>> {
        let text = prop_oneof![3 => ".{0,12}", 1 => "[a-z]{200,300}"];
        let minutes = prop::collection::btree_map(any::<i64>(), any::<u32>(), 0..4);
        (text, any::<u64>(), minutes).prop_map(|(value, count, minutes)| SlotValue {
            value: value.into(),
            count,
            minutes: Histogram::of(minutes),
        })
    }

    proptest! {
        #[test]
        fn values_are_read_as_they_were_put_in(put in prop::collection::vec(value(), 0..20)) {
            let values: Values = put.iter().cloned().collect();
            prop_assert_eq!(values.len(), put.len());
            prop_assert_eq!(values.iter().collect::<Vec<_>>(), put.clone());
            let json = serde_json::to_string(&values).unwrap();
            prop_assert_eq!(&json, &serde_json::to_string(&put).unwrap());
            prop_assert_eq!(&serde_json::from_str::<Values>(&json).unwrap(), &values);
        }
    }
}
