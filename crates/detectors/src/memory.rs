//! The memory of normal: what each template of each origin usually does.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use hashbrown::{HashMap, HashSet};
use logwarden_templates::{Origin, RootId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    Contacts, DecodeError, Failures, Places, Read, Stats,
    code::{Reader, Writer},
    contacts::Contact,
    failures::Counter,
    places::Place,
    stats::{ENOUGH_GAPS, Gaps, Hours, Levels, Profile, Rate, Values},
};

/// The key of a [`MemoryRow`]: origin and template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryKey(u128);

impl MemoryKey {
    /// The key of a template at an origin.
    pub fn of(origin: &Origin, root: RootId) -> Self {
        let id = logwarden_templates::LineId::of(&[
            origin.host.as_bytes(),
            origin.service.as_bytes(),
            &root.bits().to_be_bytes(),
        ]);
        Self(id.bits())
    }

    /// The key of the row about an origin as a whole; see [`MemoryRow::is_origin`].
    pub fn of_origin(origin: &Origin) -> Self {
        Self::of(origin, ORIGIN)
    }

    /// The key with these bits, as a store kept them.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits, as a store keeps them.
    pub const fn bits(self) -> u128 {
        self.0
    }
}

/// The root under which the row about an origin as a whole is kept.
pub(crate) const ORIGIN: RootId = RootId::from_bits(0);

/// The root under which the row about a whole machine is kept; its service is empty.
pub(crate) const HOST: RootId = RootId::from_bits(1);

/// What is normal for one template of one origin, or for an origin as a whole.
///
/// `origin`, `root` and `template` never change (cold); [`MemoryRow::encode`] writes the rest (hot).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryRow {
    /// Who.
    pub origin: Arc<Origin>,
    /// The template; zero for the row about an origin as a whole.
    pub root: RootId,
    /// Its text.
    pub template: Arc<str>,
    /// The first event ever.
    pub first: Timestamp,
    /// The latest event.
    pub last: Timestamp,
    /// Events ever.
    pub count: u64,
    /// Rates, gaps, hours and known values.
    pub stats: Stats,
}

/// What is known about a source as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceRow {
    /// When its first line was written; `None` before the first line.
    pub first: Option<Timestamp>,
    /// When its latest line was written.
    pub last: Option<Timestamp>,
    /// Lines ever.
    pub lines: u64,
    /// Whether a backfill ended the warm-up early.
    pub backfilled: bool,
    /// Rows of the memory that had to make room.
    pub evicted: u64,
    /// Silence counts from here at the earliest: before, nobody listened, or those who wait to send had not come back.
    #[serde(default)]
    pub heard_from: Option<Timestamp>,
    /// What failed of late.
    pub failures: Failures,
    /// Who was contacted of late.
    #[serde(default)]
    pub contacts: Contacts,
    /// From where accounts have logged in just now.
    #[serde(default)]
    pub places: Places,
    /// Up to when all has been read.
    #[serde(default)]
    pub read_to: Option<Timestamp>,
}

/// The memory of normal of one source. Read-only for [`detect`](crate::detect); grows by [`Memory::apply`].
#[derive(Clone, Debug, Default)]
pub struct Memory {
    source: SourceRow,
    rows: HashMap<MemoryKey, MemoryRow>,
    /// Rows that have come often enough for their silence to mean something.
    steady: BTreeSet<MemoryKey>,
}

/// What a detection has learned: rows to store, replacing those with the same key. Nothing else changes the memory.
#[derive(Clone, Debug, Default)]
pub struct Learned {
    /// Rows that are new or changed.
    pub rows: Vec<(MemoryKey, MemoryRow)>,
    /// Rows that are gone (their template generalised, or the memory was full).
    pub removed: Vec<MemoryKey>,
    /// The source as a whole.
    pub source: SourceRow,
}

impl Memory {
    /// A memory from what a store kept.
    pub fn new(source: SourceRow, rows: impl IntoIterator<Item = (MemoryKey, MemoryRow)>) -> Self {
        let mut memory = Self { source, ..Self::default() };
        rows.into_iter().for_each(|(key, row)| memory.put(key, row));
        memory
    }

    fn put(&mut self, key: MemoryKey, row: MemoryRow) {
        match row.stats.gaps.n >= ENOUGH_GAPS {
            true => self.steady.insert(key),
            false => self.steady.remove(&key),
        };
        self.rows.insert(key, row);
    }

    /// What is known about the source as a whole.
    pub fn source(&self) -> &SourceRow {
        &self.source
    }

    /// What is normal for a template of an origin.
    pub fn get(&self, key: MemoryKey) -> Option<&MemoryRow> {
        self.rows.get(&key)
    }

    /// All rows, in no order.
    pub fn rows(&self) -> impl Iterator<Item = (MemoryKey, &MemoryRow)> {
        self.rows.iter().map(|(key, row)| (*key, row))
    }

    /// The rows that have come often enough for their silence to mean something.
    pub(crate) fn steady(&self) -> impl Iterator<Item = (MemoryKey, &MemoryRow)> {
        self.steady.iter().filter_map(|key| Some((*key, self.rows.get(key)?)))
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What this memory learns from one of the time before it, such as a backfill makes: what is in both goes on, and the
    /// source counts as learned.
    ///
    /// Both may have known fewer leaves than are known now: `moved` says which root a root has now, with its text, where
    /// that has changed.
    pub fn preceded_by(&self, past: &Self, moved: impl Fn(RootId) -> Option<(RootId, Arc<str>)>) -> Learned {
        let current = |row: &MemoryRow| {
            let mut row = row.clone();
            if let Some((root, template)) = moved(row.root).filter(|_| !row.is_origin()) {
                (row.root, row.template) = (root, template);
            }
            (MemoryKey::of(&row.origin, row.root), row)
        };
        let mut before: HashMap<MemoryKey, MemoryRow> = HashMap::new();
        let mut after: HashMap<MemoryKey, MemoryRow> = HashMap::new();
        let mut removed = Vec::new();
        let mut rekeyed = HashSet::new();
        for (memory, rows) in [(past, &mut before), (self, &mut after)] {
            for (old, row) in memory.rows() {
                let (key, row) = current(row);
                if key != old && self.rows.contains_key(&old) {
                    removed.push(old);
                    rekeyed.insert(key);
                }
                match rows.get_mut(&key) {
                    Some(known) => known.join(&row),
                    None => {
                        rows.insert(key, row);
                    }
                }
            }
        }
        for (key, later) in after {
            match before.get_mut(&key) {
                Some(row) => {
                    row.first = row.first.min(later.first);
                    row.last = row.last.max(later.last);
                    row.count = row.count.saturating_add(later.count);
                    row.stats.follow(&later.stats);
                }
                None if rekeyed.contains(&key) => {
                    before.insert(key, later);
                }
                None => {} // as it was
            }
        }
        removed.sort_unstable();
        removed.dedup();
        let mut rows: Vec<_> = before.into_iter().collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        let first = past.source.first.into_iter().chain(self.source.first).min();
        let last = past.source.last.into_iter().chain(self.source.last).max();
        let lines = past.source.lines.saturating_add(self.source.lines);
        let source = SourceRow { first, last, lines, backfilled: true, ..self.source.clone() };
        Learned { rows, removed, source }
    }

    /// Takes over what was learned. Call it once the commit has succeeded.
    pub fn apply(&mut self, learned: &Learned) {
        for key in &learned.removed {
            self.rows.remove(key);
            self.steady.remove(key);
        }
        learned.rows.iter().for_each(|(key, row)| self.put(*key, row.clone()));
        self.source = learned.source.clone();
    }
}

impl MemoryRow {
    /// A row about `root` before its first event at `first` has been counted.
    pub fn new(origin: Arc<Origin>, root: RootId, template: Arc<str>, first: Timestamp) -> Self {
        Self { origin, root, template, first, last: first, count: 0, stats: Stats::default() }
    }

    /// Takes back what is later than `now`: a clock was wrong, and has been set right.
    pub(crate) fn heed(&mut self, now: Timestamp) {
        self.last = self.last.min(now);
        self.first = self.first.min(now);
        self.stats.heed(now);
    }

    /// Adds what another row knows: the templates of both have become one.
    fn join(&mut self, other: &Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.count = self.count.saturating_add(other.count);
        self.stats.merge(&other.stats);
    }

    /// Whether this is the row about an origin as a whole (its busy hours, its share of errors) and not about a template.
    pub fn is_origin(&self) -> bool {
        self.root == ORIGIN
    }

    /// Whether this is the row about a whole machine.
    pub(crate) fn is_host(&self) -> bool {
        self.root == HOST
    }

    /// What changes, in about a hundred bytes; goes with the key and, stored once, with origin, root and template.
    pub fn encode(&self) -> Vec<u8> {
        let Stats { rate, gaps, hours, values, silent_since, profile } = &self.stats;
        let mut out = Writer::new();
        out.signed(self.first.nanos());
        out.signed(self.last.nanos().wrapping_sub(self.first.nanos()));
        out.unsigned(self.count);
        out.signed(rate.bucket);
        out.unsigned(rate.open.into());
        out.unsigned(rate.closed.into());
        out.float(rate.mean);
        out.float(rate.variance);
        out.unsigned(gaps.n.into());
        out.float(gaps.mean);
        out.float(gaps.variance);
        out.unsigned(gaps.longest.into());
        out.signed(hours.day);
        hours.days.iter().for_each(|day| out.unsigned((*day).into()));
        time(&mut out, *silent_since);
        out.unsigned(values.known.len() as u64);
        values.known.iter().for_each(|hash| out.fixed(*hash));
        out.signed(values.day);
        out.unsigned(values.fresh.into());
        out.unsigned(values.busiest.into());
        out.unsigned(values.overflowed.into());
        out.unsigned(profile.is_some().into());
        if let Some(profile) = profile {
            out.unsigned(profile.week.len() as u64);
            profile.week.iter().for_each(|sum| out.float(*sum));
            out.signed(profile.hour);
            out.unsigned(profile.hours.into());
            out.float(profile.bad_share);
            out.float(profile.events);
            out.signed(profile.levels.bucket);
            out.unsigned(profile.levels.bad);
            out.unsigned(profile.levels.all);
        }
        out.finish()
    }

    /// The row again.
    ///
    /// # Errors
    ///
    /// When the bytes are damaged, or from a newer version.
    pub fn decode(origin: Arc<Origin>, root: RootId, template: Arc<str>, hot: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(hot)?;
        let first = from.signed()?;
        let last = first.wrapping_add(from.signed()?);
        let count = from.unsigned()?;
        let rate = Rate {
            bucket: from.signed()?,
            open: from.small()?,
            closed: from.small()?,
            mean: from.float()?,
            variance: from.float()?,
        };
        let gaps = Gaps { n: from.small()?, mean: from.float()?, variance: from.float()?, longest: from.small()? };
        let mut hours = Hours { day: from.signed()?, days: [0; 4] };
        for day in &mut hours.days {
            *day = from.small()?;
        }
        let silent_since = read_time(&mut from)?;
        let known = (0..from.count(4)?).map(|_| from.fixed()).collect::<Result<_, _>>()?;
        let values = Values {
            known,
            day: from.signed()?,
            fresh: from.small()?,
            busiest: from.small()?,
            overflowed: from.unsigned()? != 0,
        };
        let mut profile = None;
        if from.unsigned()? != 0 {
            let week = (0..from.count(4)?).map(|_| from.float()).collect::<Result<_, _>>()?;
            profile = Some(Box::new(Profile {
                week,
                hour: from.signed()?,
                hours: from.small()?,
                bad_share: from.float()?,
                events: from.float()?,
                levels: match from.is_done() {
                    true => Levels::default(),
                    false => Levels { bucket: from.signed()?, bad: from.unsigned()?, all: from.unsigned()? },
                },
            }));
        }
        from.end()?;
        let stats = Stats { rate, gaps, hours, values, silent_since, profile };
        let (first, last) = (Timestamp::from_nanos(first), Timestamp::from_nanos(last));
        Ok(Self { origin, root, template, first, last, count, stats })
    }
}

/// Nobody who waits to send waits longer than about this: the usual bounds of shippers are 5 to 33 minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(35 * 60);

impl SourceRow {
    /// Notes how far a read went, and that nobody could be heard before it.
    pub(crate) fn note(&mut self, read: &Read) {
        // What is later than now was noted by a clock that was wrong.
        for time in [&mut self.first, &mut self.last, &mut self.read_to] {
            *time = time.map(|time| time.min(read.now));
        }
        self.heard_from = self.heard_from.map(|from| from.min(read.now.plus(LONGEST_WAIT)));
        if !read.unheard.is_zero() {
            // Whoever tries again and again waits about as long as it took so far.
            let back = read.whole_to.unwrap_or(read.now).plus(read.unheard.min(LONGEST_WAIT));
            self.heard_from = self.heard_from.max(Some(back));
        }
        self.read_to = self.read_to.max(read.whole_to.map(|to| to.min(read.now)));
    }

    /// The whole row in few bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        time(&mut out, self.first);
        time(&mut out, self.last);
        out.unsigned(self.lines);
        out.unsigned(self.backfilled.into());
        out.unsigned(self.evicted);
        time(&mut out, self.heard_from);
        out.unsigned(self.failures.evicted);
        out.unsigned(self.failures.counters.len() as u64);
        for counter in &self.failures.counters {
            out.unsigned(counter.key);
            out.float(counter.older);
            out.unsigned(counter.minutes.len() as u64);
            for (minute, n) in &counter.minutes {
                out.signed(*minute);
                out.unsigned((*n).into());
            }
            out.unsigned(counter.partners.len() as u64);
            counter.partners.iter().for_each(|hash| out.fixed(*hash));
        }
        out.unsigned(self.contacts.evicted);
        out.unsigned(self.contacts.list.len() as u64);
        for contact in &self.contacts.list {
            out.unsigned(contact.key);
            out.signed(contact.first);
            out.signed(contact.last.wrapping_sub(contact.first));
            out.unsigned(contact.occasions.into());
            out.unsigned(contact.lines);
            out.float(contact.mean);
            out.float(contact.squares);
        }
        out.unsigned(self.places.0.len() as u64);
        for place in &self.places.0 {
            out.unsigned(place.account);
            out.signed(place.minute);
            place.octets().iter().for_each(|byte| out.unsigned((*byte).into()));
        }
        time(&mut out, self.read_to);
        out.finish()
    }

    /// The row again.
    ///
    /// # Errors
    ///
    /// When the bytes are damaged, or from a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes)?;
        let mut row = Self {
            first: read_time(&mut from)?,
            last: read_time(&mut from)?,
            lines: from.unsigned()?,
            backfilled: from.unsigned()? != 0,
            evicted: from.unsigned()?,
            heard_from: read_time(&mut from)?,
            failures: Failures { evicted: from.unsigned()?, counters: Vec::new() },
            contacts: Contacts::default(),
            places: Places::default(),
            read_to: None,
        };
        for _ in 0..from.count(7)? {
            let (key, older) = (from.unsigned()?, from.float()?);
            let minutes = (0..from.count(2)?).map(|_| Ok((from.signed()?, from.small()?))).collect::<Result<_, _>>()?;
            let partners = (0..from.count(4)?).map(|_| from.fixed()).collect::<Result<_, _>>()?;
            row.failures.counters.push(Counter { key, minutes, older, partners });
        }
        row.contacts.evicted = from.unsigned()?;
        for _ in 0..from.count(13)? {
            let (key, first) = (from.unsigned()?, from.signed()?);
            let last = first.wrapping_add(from.signed()?);
            let (occasions, lines) = (from.small()?, from.unsigned()?);
            let (mean, squares) = (from.float()?, from.float()?);
            row.contacts.list.push(Contact { key, first, last, occasions, lines, mean, squares });
        }
        let places = if from.is_done() { 0 } else { from.count(18)? };
        for _ in 0..places {
            let (account, minute) = (from.unsigned()?, from.signed()?);
            let mut octets = [0; 16];
            for byte in &mut octets {
                *byte = u8::try_from(from.unsigned()?).map_err(|_| DecodeError::Damaged)?;
            }
            row.places.0.push(Place::of_octets(account, minute, octets));
        }
        if !from.is_done() {
            row.read_to = read_time(&mut from)?;
        }
        from.end()?;
        Ok(row)
    }
}

fn time(out: &mut Writer, time: Option<Timestamp>) {
    out.unsigned(time.is_some().into());
    if let Some(time) = time {
        out.signed(time.nanos());
    }
}

fn read_time(from: &mut Reader<'_>) -> Result<Option<Timestamp>, DecodeError> {
    Ok(if from.unsigned()? != 0 { Some(Timestamp::from_nanos(from.signed()?)) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> MemoryRow {
        let origin = Arc::new(Origin { host: "web-1".into(), service: "sshd".into() });
        let mut row =
            MemoryRow::new(origin, RootId::from_bits(7), "session opened".into(), Timestamp::from_secs(1_800_000_000));
        row.last = Timestamp::from_secs(1_800_900_000);
        row.count = 123_456;
        for bucket in 6_000_000..6_000_100 {
            row.stats.rate.add(bucket, 12);
            row.stats.gaps.add(60);
            row.stats.hours.mark(500_000 + bucket - 6_000_000);
        }
        row
    }

    #[test]
    fn a_row_survives_storage_and_is_small() {
        let mut row = row();
        assert!(row.encode().len() <= 100, "{} bytes", row.encode().len());
        row.stats.values.learn(77, 20_000);
        row.stats.silent_since = Some(row.last);
        row.stats.profile = Some(Box::default());
        let again = MemoryRow::decode(row.origin.clone(), row.root, row.template.clone(), &row.encode());
        assert_eq!(again.as_ref(), Ok(&row));
    }

    #[test]
    fn a_source_survives_storage() {
        let mut source = SourceRow { first: Some(Timestamp::from_secs(5)), lines: 9, ..SourceRow::default() };
        let mut counter = Counter { key: u64::MAX, ..Counter::default() };
        counter.add(30_000_000, 5);
        counter.meet(3);
        source.failures.take(vec![counter], 30_000_000);
        let contact =
            Contact { key: 9, first: 30_000_000, last: 30_000_005, occasions: 2, lines: 3, mean: 5.0, squares: 0.5 };
        source.contacts.take(vec![contact], 30_000_005);
        let (v4, v6) = (
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 0, 0],
            [0x20, 1, 0xd, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        source.places.0 = vec![Place::of_octets(u64::MAX, 30_000_005, v4), Place::of_octets(7, 30_000_004, v6)];
        assert_eq!(source.places.0.iter().map(Place::octets).collect::<Vec<_>>(), [v4, v6]);
        (source.heard_from, source.read_to) = (Some(Timestamp::from_secs(7)), Some(Timestamp::from_secs(8)));
        assert_eq!(SourceRow::decode(&source.encode()), Ok(source));
    }

    #[test]
    fn a_source_written_before_logins_were_placed_is_read() {
        let mut source =
            SourceRow { first: Some(Timestamp::from_secs(5)), lines: 9, evicted: 3, ..SourceRow::default() };
        let contact = Contact { key: 9, occasions: 2, lines: 3, ..Contact::default() };
        source.contacts.take(vec![contact], 30_000_005);
        let mut bytes = source.encode();
        assert_eq!(
            (bytes.pop(), bytes.pop()),
            (Some(0), Some(0)),
            "the places stand at the end, with how far was read"
        );
        assert_eq!(SourceRow::decode(&bytes), Ok(source.clone()));
        // What stands there must be whole.
        source.places.0 = vec![Place::of_octets(7, 30_000_005, [9; 16])];
        let bytes = source.encode();
        let without = bytes.len() - 18 - 5; // sixteen octets, an account, a minute of several bytes
        for len in without + 4..bytes.len() - 1 {
            assert_eq!(SourceRow::decode(&bytes[..len]), Err(DecodeError::Damaged), "cut to {len} of {}", bytes.len());
        }
    }

    #[test]
    fn damaged_and_newer_rows_are_told_apart() {
        let row = row();
        let decode = |bytes: &[u8]| MemoryRow::decode(row.origin.clone(), row.root, row.template.clone(), bytes);
        let bytes = row.encode();
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), Err(DecodeError::Damaged), "cut to {len}");
        }
        assert_eq!(decode(&[9, 1, 2]), Err(DecodeError::Newer(9)));
        assert_eq!(SourceRow::decode(&[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]), Err(DecodeError::Damaged));
    }
}
