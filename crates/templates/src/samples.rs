//! Events as they came, kept together: lines of one template are much alike.
//!
//! The first one is kept whole, of the others only what is different, word by word. So the lines of ten thousand rows take
//! a third of what they are, and nothing is lost: each event is read byte for byte as it was put in.

use std::{fmt, iter, ops::Range};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Timestamp,
    varint::{part, put, put_signed, take, take_signed},
};

/// Fewer equal bytes in a row are not worth being referred to.
const WORTH: usize = 4;

/// One event as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub time: Timestamp,
    /// The bytes; only longer events than the configured limit are shortened in the middle, and say so.
    #[serde(with = "crate::bytes")]
    pub text: Vec<u8>,
}

/// A list of [`Sample`]s that takes little memory: each is made when it is read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Samples {
    /// Of each its time and its length, of the first its text, and of the others what [`put_changes`] says.
    bytes: Vec<u8>,
    len: u32,
}

impl Samples {
    /// How many.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> SamplesIter<'_> {
        SamplesIter { first: None, rest: &self.bytes, left: self.len }
    }

    /// The first one.
    pub fn first(&self) -> Option<Sample> {
        self.iter().next()
    }

    /// The last one.
    pub fn last(&self) -> Option<Sample> {
        self.iter().nth(self.len().checked_sub(1)?)
    }

    /// Adds one at the end.
    pub fn push(&mut self, time: Timestamp, text: &[u8]) {
        match self.first_text() {
            None => {
                put_signed(&mut self.bytes, time.nanos());
                put(&mut self.bytes, text.len() as u64);
                self.bytes.extend_from_slice(text);
            }
            Some((first, at)) => {
                put_signed(&mut self.bytes, time.nanos().wrapping_sub(first.nanos()));
                put(&mut self.bytes, text.len() as u64);
                put_changes(&mut self.bytes, at, text);
            }
        }
        self.len += 1;
    }

    /// Keeps the first ones.
    pub(crate) fn truncate(&mut self, len: usize) {
        if len < self.len() {
            let mut kept = self.iter();
            (0..len).for_each(|_| _ = kept.step(|_| ()));
            let end = self.bytes.len() - kept.rest.len();
            self.bytes.truncate(end);
            self.len = len as u32;
        }
    }

    /// When each was.
    pub(crate) fn times(&self) -> impl Iterator<Item = Timestamp> {
        let mut all = self.iter();
        iter::from_fn(move || all.step(|_| ()))
    }

    /// How long each is.
    pub(crate) fn lens(&self) -> impl Iterator<Item = usize> {
        let mut all = self.iter();
        iter::from_fn(move || {
            let mut len = 0;
            all.step(|piece| len += piece.len()).map(|_| len)
        })
    }

    /// Bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Gives back room for more.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.capacity() > self.bytes.len() + 64 {
            self.bytes.shrink_to(self.bytes.len() + 16);
        }
    }

    /// When the first one was, and where its text is.
    fn first_text(&self) -> Option<(Timestamp, Range<usize>)> {
        let mut rest = &self.bytes[..];
        let (time, len) = (Timestamp::from_nanos(take_signed(&mut rest)), take(&mut rest) as usize);
        let from = self.bytes.len() - rest.len();
        (self.len > 0).then_some((time, from..from + len))
    }
}

/// Appends what it takes to make `text` of the bytes at `base`: by turns how much is the same, and how much is put in the
/// place of how much.
fn put_changes(bytes: &mut Vec<u8>, base: Range<usize>, text: &[u8]) {
    let (mut from, mut rest) = (base.start, text);
    while !rest.is_empty() {
        let same = common(&bytes[from..base.end], rest);
        put(bytes, same as u64);
        (from, rest) = (from + same, &rest[same..]);
        if !rest.is_empty() {
            let (old, new) = different(&bytes[from..base.end], rest);
            put(bytes, new as u64);
            bytes.extend_from_slice(&rest[..new]);
            put(bytes, old as u64);
            (from, rest) = (from + old, &rest[new..]);
        }
    }
}

/// How long the common beginning is.
fn common(one: &[u8], other: &[u8]) -> usize {
    iter::zip(one, other).take_while(|(a, b)| a == b).count()
}

/// How far two texts differ: up to the word in both behind which they are the same for a while.
fn different(old: &[u8], new: &[u8]) -> (usize, usize) {
    let word = |text: &[u8]| text.iter().position(|byte| matches!(byte, b' ' | b',' | b'\n')).unwrap_or(text.len());
    let (mut in_old, mut in_new) = (0, 0);
    loop {
        in_old += word(&old[in_old..]);
        in_new += word(&new[in_new..]);
        if in_new == new.len() || common(&old[in_old..], &new[in_new..]) >= WORTH {
            return (in_old, in_new);
        }
        in_old = old.len().min(in_old + 1);
        in_new += 1;
    }
}

/// The samples of a [`Samples`].
#[derive(Clone, Debug)]
pub struct SamplesIter<'s> {
    first: Option<(Timestamp, &'s [u8])>,
    rest: &'s [u8],
    left: u32,
}

impl<'s> SamplesIter<'s> {
    /// Reads the next one: its time, and its text piece by piece.
    fn step(&mut self, mut each: impl FnMut(&'s [u8])) -> Option<Timestamp> {
        self.left = self.left.checked_sub(1)?;
        let time = take_signed(&mut self.rest);
        let mut len = take(&mut self.rest);
        let Some((first, mut base)) = self.first else {
            let text = part(&mut self.rest, len);
            each(text);
            self.first = Some((Timestamp::from_nanos(time), text));
            return Some(Timestamp::from_nanos(time));
        };
        while len > 0 {
            let same = part(&mut base, take(&mut self.rest));
            each(same);
            len -= same.len() as u64;
            if len > 0 {
                let count = take(&mut self.rest);
                let new = part(&mut self.rest, count);
                each(new);
                len -= new.len() as u64;
                let count = take(&mut self.rest);
                part(&mut base, count);
            }
        }
        Some(Timestamp::from_nanos(first.nanos().wrapping_add(time)))
    }
}

impl Iterator for SamplesIter<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let mut text = Vec::new();
        let time = self.step(|piece| text.extend_from_slice(piece))?;
        Some(Sample { time, text })
    }

    fn nth(&mut self, n: usize) -> Option<Sample> {
        for _ in 0..n {
            self.step(|_| ())?;
        }
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for SamplesIter<'_> {}

impl<'s> IntoIterator for &'s Samples {
    type Item = Sample;
    type IntoIter = SamplesIter<'s>;

    fn into_iter(self) -> SamplesIter<'s> {
        self.iter()
    }
}

impl Extend<Sample> for Samples {
    fn extend<T: IntoIterator<Item = Sample>>(&mut self, samples: T) {
        samples.into_iter().for_each(|sample| self.push(sample.time, &sample.text));
    }
}

impl FromIterator<Sample> for Samples {
    fn from_iter<T: IntoIterator<Item = Sample>>(samples: T) -> Self {
        let mut all = Self::default();
        all.extend(samples);
        all.shrink();
        all
    }
}

impl From<Vec<Sample>> for Samples {
    fn from(samples: Vec<Sample>) -> Self {
        samples.into_iter().collect()
    }
}

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl Serialize for Samples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for Samples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Sample>::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => "Nov 21 04:0[0-9]:0[0-9] web-1 sshd\\[[0-9]{1,3}\\]: Failed password for [a-z ]{1,9} from [0-9.]{7,9} port [0-9]{2}"
                .prop_map(String::into_bytes),
            2 => prop::collection::vec(prop::sample::select(b"ab ,\n\xff".to_vec()), 0..30),
            1 => prop::collection::vec(any::<u8>(), 0..40),
            1 => (any::<u8>(), 0..5_000_usize).prop_map(|(byte, len)| vec![byte; len]),
        ]
    }

    proptest! {
        #[test]
        fn samples_are_read_as_they_were_put_in(
            lines in prop::collection::vec((any::<i64>(), line()), 0..8),
            kept in 0..9_usize,
        ) {
            let sample = |(nanos, text): (i64, Vec<u8>)| Sample { time: Timestamp::from_nanos(nanos), text };
            let mut put: Vec<Sample> = lines.into_iter().map(sample).collect();
            let mut samples = Samples::from(put.clone());
            prop_assert_eq!(samples.iter().collect::<Vec<_>>(), put.clone());
            prop_assert_eq!((samples.first(), samples.last()), (put.first().cloned(), put.last().cloned()));
            let json = serde_json::to_string(&samples).unwrap();
            prop_assert_eq!(&json, &serde_json::to_string(&put).unwrap());
            prop_assert_eq!(&serde_json::from_str::<Samples>(&json).unwrap(), &samples);

            samples.truncate(kept);
            put.truncate(kept);
            prop_assert_eq!(&samples, &Samples::from(put.clone()));
            prop_assert_eq!(samples.times().collect::<Vec<_>>(), put.iter().map(|s| s.time).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lines_that_are_alike_take_little() {
        let line = |n: u32| {
            format!("Nov 21 04:00:{n:02} web-1 joba[7]: backup of the volume is done for user u{n} after {n} ms")
        };
        let sample = |n| Sample { time: Timestamp::from_secs(n), text: line(n as u32).into_bytes() };
        let samples: Samples = (0..5).map(sample).collect();
        assert!(2 * samples.size() < 5 * line(0).len(), "{} bytes", samples.size());
    }
}
