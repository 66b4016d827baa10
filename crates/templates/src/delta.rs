//! What comes out of a fold: rows, new leaves, and what to carry on.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{Clock, LeafId, Level, Origin, RootId, Samples, Stream, Timestamp, Values};

/// The lines of one ingest, folded.
///
/// Bounded by the fold's input: there is never more in it than that many lines can make. Apply it with
/// [`Miner::apply`](crate::Miner::apply) after its commit, or drop it.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// One row per origin and leaf, in order of first occurrence.
    pub rows: Vec<Row>,
    /// Leaves that the miner's memory did not have.
    pub new: Vec<NewLeaf>,
    /// Those of them that it had once and had to evict: not novel.
    pub returned: Vec<LeafId>,
    /// Leaves that memory has no room for any more; [`Counts::evicted`] is their number.
    pub evicted: Vec<LeafId>,
    /// Leaves, known or new, whose root has moved up.
    pub moves: Vec<Move>,
    /// What became of every physical line.
    pub counts: Counts,
    /// Multi-line events that may still go on; give it to the next fold of the same source.
    pub carry: Carry,
    /// With [`FoldOptions::assign`](crate::FoldOptions), the row of each physical line of the input (not of the carry),
    /// in input order; `None` for a line that is in no row (own, or carried on).
    pub assignments: Vec<Option<u32>>,
    /// With [`FoldOptions::assign`](crate::FoldOptions), the row of each event of the carry that the fold was given, in
    /// its order; `None` for one that is still open.
    pub carry_assignments: Vec<Option<u32>>,
    /// With [`FoldOptions::assign`](crate::FoldOptions), the lines of the input that are in each event of
    /// [`Delta::carry`], in its order.
    pub carry_lines: Vec<Vec<u32>>,
}

/// Physical lines by outcome: `read + carried_in = own + carried + kept`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Lines of the input.
    pub read: u64,
    /// Lines that the carry brought in.
    pub carried_in: u64,
    /// Lines of our own program, left out.
    pub own: u64,
    /// Lines held back in [`Delta::carry`].
    pub carried: u64,
    /// Lines counted in the rows.
    pub kept: u64,
    /// Of those kept: lines of programs that flood with ever new text and are folded coarsely.
    pub coarse: u64,
    /// Of those kept: lines in the middle of a long multi-line event, counted but not kept as text.
    pub middle: u64,
    /// Leaves that had to leave the miner's memory for new ones.
    pub evicted: u64,
    /// Of those kept: lines with a word that is new where words vary, in a template that has so many of them that they
    /// are no longer leaves of their own.
    #[serde(default)]
    pub absorbed: u64,
    /// Of those kept: lines whose host and program were not kept, since there were too many.
    #[serde(default)]
    pub crowded: u64,
    /// New leaves that resemble more leaves than they were compared with: which root they get may depend on the order.
    #[serde(default)]
    pub unpaired: u64,
    /// Rows that keep fewer samples or values than configured, since those of all rows took too much memory.
    #[serde(default)]
    pub thinned: u64,
}

impl Counts {
    /// Adds the counts of the fold that came next. What it took from the carry is carried no more.
    pub fn add(&mut self, next: &Self) {
        self.read += next.read;
        self.own += next.own;
        self.carried = (self.carried + next.carried).saturating_sub(next.carried_in);
        self.kept += next.kept;
        self.coarse += next.coarse;
        self.middle += next.middle;
        self.evicted += next.evicted;
        self.absorbed += next.absorbed;
        self.crowded += next.crowded;
        self.unpaired += next.unpaired;
        self.thinned += next.thinned;
    }
}

/// A template as one origin used it in this delta.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Who.
    pub origin: Arc<Origin>,
    /// The masked line's identity.
    pub leaf: LeafId,
    /// The template that the leaf belongs to, after this delta.
    pub root: RootId,
    /// The root's text, variables written `<*>` or `<*:type>`.
    pub template: Arc<str>,
    /// The worst level that its lines stated, in header, label or field.
    pub level: Option<Level>,
    /// Events: a stack trace is one.
    pub count: u64,
    /// Physical lines.
    pub lines: u64,
    /// The earliest event.
    pub first: Timestamp,
    /// The latest event.
    pub last: Timestamp,
    /// Events per minute.
    pub minutes: Histogram,
    /// Up to five events exactly as they came (joined lines separated by `\n`): the first ones and the last.
    pub samples: Samples,
    /// The variables, in their order in the template; at most a configured number.
    pub slots: Vec<Slot>,
    /// The tags of all its lines; see [`Line::tags`](crate::Line::tags).
    pub tags: u64,
    /// Index in the input of the first event's first line; with it the caller finds the neighbours. `None` when the
    /// event began in the carry.
    pub first_line: Option<u32>,
}

/// Counts per minute since 1970, sorted, without zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
// Most rows and values of a crowded fold are of one minute.
pub struct Histogram(SmallVec<[(i64, u32); 1]>);

impl Histogram {
    /// These counts, of minutes that ascend.
    pub(crate) fn of(counts: impl IntoIterator<Item = (i64, u32)>) -> Self {
        Self(counts.into_iter().collect())
    }

    /// Counts `n` more in the minute of `time`. Cheap for times that mostly ascend.
    pub fn add(&mut self, time: Timestamp, n: u32) {
        let minute = time.minute();
        match self.0.last_mut() {
            Some((last, count)) if *last == minute => *count = count.saturating_add(n),
            Some((last, _)) if *last > minute => match self.0.binary_search_by_key(&minute, |(m, _)| *m) {
                Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(n),
                Err(at) => self.0.insert(at, (minute, n)),
            },
            _ => self.0.push((minute, n)),
        }
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (minute, n) in &other.0 {
            self.add(Timestamp::from_secs(minute.saturating_mul(60)), *n);
        }
    }

    /// The minutes with their counts, earliest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i64, u32)> + '_ {
        self.0.iter().copied()
    }

    /// The most in any `minutes` minutes in a row.
    pub fn peak(&self, minutes: u32) -> u64 {
        let (mut from, mut sum, mut peak) = (0, 0_u64, 0);
        for (minute, n) in &self.0 {
            sum += u64::from(*n);
            while self.0[from].0 <= minute.saturating_sub(i64::from(minutes)) {
                sum -= u64::from(self.0[from].1);
                from += 1;
            }
            peak = peak.max(sum);
        }
        peak
    }
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SlotKind {
    /// Anything.
    Any,
    /// A number, with or without unit.
    Num,
    /// Hexadecimal, a hash, a UUID.
    Hex,
    /// An IP address, with or without port.
    Ip,
    /// A MAC address.
    Mac,
    /// A host name.
    Host,
    /// A file path.
    Path,
    /// A URL.
    Url,
    /// A user name.
    User,
    /// An e-mail address or `user@host`.
    Email,
    /// A date, time or both.
    Time,
    /// A duration, with unit.
    Duration,
    /// A size, with unit.
    Size,
    /// A word that varies.
    Word,
    /// Quoted or free text.
    Text,
}

impl SlotKind {
    /// All kinds.
    pub const ALL: [Self; 15] = [
        Self::Any,
        Self::Num,
        Self::Hex,
        Self::Ip,
        Self::Mac,
        Self::Host,
        Self::Path,
        Self::Url,
        Self::User,
        Self::Email,
        Self::Time,
        Self::Duration,
        Self::Size,
        Self::Word,
        Self::Text,
    ];

    /// The name inside `<*:…>`; empty for [`SlotKind::Any`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Num => "num",
            Self::Hex => "hex",
            Self::Ip => "ip",
            Self::Mac => "mac",
            Self::Host => "host",
            Self::Path => "path",
            Self::Url => "url",
            Self::User => "user",
            Self::Email => "email",
            Self::Time => "time",
            Self::Duration => "duration",
            Self::Size => "size",
            Self::Word => "word",
            Self::Text => "text",
        }
    }
}

/// The values that one variable took in a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// What kind of value.
    pub kind: SlotKind,
    /// The key before it (`user` in `user=…`), for fields of JSON and logfmt and for `key=value`; empty otherwise.
    pub key: Arc<str>,
    /// Its number among the variables of the template, from 0.
    pub position: u16,
    /// The most frequent values, most frequent first; of addresses, users and hosts up to a configured larger number.
    pub values: Values,
    /// About how many different values there were.
    pub distinct: u64,
}

/// A leaf that the miner had not seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLeaf {
    /// Its id.
    pub leaf: LeafId,
    /// The program in its identity; empty when none was recognised.
    pub program: Arc<str>,
    /// The masked text, variables written `<*>` or `<*:type>`.
    pub text: Arc<str>,
    /// One line that made it, so that a later scanner version can translate the id.
    #[serde(with = "crate::bytes")]
    pub example: Vec<u8>,
    /// When that line was written.
    pub first: Timestamp,
}

/// A leaf's root moved up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Which leaf.
    pub leaf: LeafId,
    /// The root before; `None` for a leaf that is new and was born below a known or just made root.
    pub from: Option<RootId>,
    /// The root now.
    pub to: RootId,
}

/// Multi-line events that were still open when a fold ended.
///
/// Travels in the commit, so that a crash neither loses nor repeats their lines. Bounded like the events themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carry {
    /// The open event of each stream.
    pub open: Vec<OpenEvent>,
}

/// An event whose next line may still be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenEvent {
    /// Where.
    pub stream: Arc<Stream>,
    /// The time of its first line.
    pub time: Timestamp,
    /// Where that time comes from.
    pub clock: Clock,
    /// The time of its last line, as it came in.
    pub last: Timestamp,
    /// How many physical lines it has; with those of a cut middle.
    pub lines: u64,
    /// Its lines so far, shortened in the middle when it is long.
    #[serde(with = "crate::bytes")]
    pub text: Vec<u8>,
    /// The tags of its lines.
    pub tags: u64,
    /// What the joiner must remember about it (which language's trace it is, for instance); opaque.
    pub state: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sample, SlotValue};

    #[test]
    fn a_row_is_read_as_it_was_put_together() {
        for slots in [0, 1, 20] {
            let texts: [&[u8]; 4] = [b"", b"not \xff UTF-8 \x80", &[b'x'; 70_000], b"not \xff UTF-8, either"];
            let samples = texts.map(|text| Sample { time: Timestamp::from_secs(7), text: text.to_vec() });
            let words = [String::new(), "v".repeat(300), "gr\u{fc}\u{df}e".to_owned(), "\u{fffd}".to_owned()];
            let values = words.map(|word| SlotValue {
                value: word.into(),
                count: 3,
                minutes: Histogram::of([(-1, 2), (29_920_560, 1)]),
            });
            let slot = |position| Slot {
                kind: SlotKind::User,
                key: "user".into(),
                position,
                values: values.iter().take(usize::from(position) % 5).cloned().collect(),
                distinct: 9,
            };
            let leaf = LeafId::of(&[b"x"]);
            let row = Row {
                origin: Arc::new(Origin::default()),
                leaf,
                root: leaf.as_root(),
                template: "x".into(),
                level: None,
                count: 4,
                lines: 4,
                first: Timestamp::from_secs(7),
                last: Timestamp::from_secs(7),
                minutes: Histogram::default(),
                samples: samples.to_vec().into(),
                slots: (0..slots).map(slot).collect(),
                tags: 0,
                first_line: None,
            };
            let stored: Row = serde_json::from_str(&serde_json::to_string(&row).unwrap()).unwrap();
            for row in [&row, &stored] {
                assert_eq!(row.samples.iter().collect::<Vec<_>>(), samples);
                assert_eq!(row.slots.len(), usize::from(slots));
                for slot in &row.slots {
                    let put = &values[..usize::from(slot.position) % 5];
                    assert_eq!(slot.values.iter().collect::<Vec<_>>(), put);
                }
            }
        }
    }

    #[test]
    fn a_histogram_takes_times_in_any_order_and_knows_its_peak() {
        let mut histogram = Histogram::default();
        for minute in [10, 11, 11, 20, 9, 12, 20] {
            histogram.add(Timestamp::from_secs(minute * 60), 1);
        }
        assert_eq!(histogram.iter().collect::<Vec<_>>(), [(9, 1), (10, 1), (11, 2), (12, 1), (20, 2)]);
        assert_eq!((histogram.peak(1), histogram.peak(3), histogram.peak(5), histogram.peak(60)), (2, 4, 5, 7));
    }
}
