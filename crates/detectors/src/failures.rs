//! What has failed of late, per class of failure and per address, user or host: so that a burst is seen across the
//! borders of deltas, and a success can be held against the failures before it.

use logwarden_templates::{Histogram, LineId, Timestamp};
use serde::{Deserialize, Serialize};

/// Minutes kept exactly.
const KEPT_MINUTES: i64 = 15;

/// A counter idle for so long is forgotten.
const FORGOTTEN_AFTER_MINUTES: i64 = 6 * 60;

/// Counters kept per source.
const MAX_COUNTERS: usize = 4096;

/// Partners (users of an address, for instance) remembered per counter.
pub(crate) const MAX_PARTNERS: usize = 24;

/// Decayed counters of failures. Opaque: [`detect`](crate::detect) reads and grows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failures {
    /// Sorted by key.
    pub(crate) counters: Vec<Counter>,
    /// Counters that had to make room.
    pub(crate) evicted: u64,
}

/// The failures of one entity in one class on one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counter {
    /// Hash of class, host, kind and value.
    pub(crate) key: u64,
    /// Failures per minute since 1970, ascending; the last quarter of an hour.
    pub(crate) minutes: Vec<(i64, u32)>,
    /// Failures before that, halved every two hours.
    pub(crate) older: f32,
    /// Hashes of those that failed together with it, sorted.
    pub(crate) partners: Vec<u32>,
}

impl Counter {
    fn last(&self) -> i64 {
        self.minutes.last().map_or(i64::MIN, |(minute, _)| *minute)
    }

    /// Adds `n` failures in `minute`.
    pub(crate) fn add(&mut self, minute: i64, n: u32) {
        match self.minutes.binary_search_by_key(&minute, |(m, _)| *m) {
            Ok(at) => self.minutes[at].1 = self.minutes[at].1.saturating_add(n),
            Err(at) => {
                let before = self.last();
                if before != i64::MIN && minute > before {
                    self.older *= 0.5_f32.powf((minute - before) as f32 / 120.0);
                }
                self.minutes.insert(at, (minute, n));
            }
        }
        let horizon = self.last() - KEPT_MINUTES;
        let old = self.minutes.partition_point(|(m, _)| *m < horizon);
        self.older += self.minutes.drain(..old).map(|(_, n)| n as f32).sum::<f32>();
    }

    /// Takes what is later than `now` for what has just been: a clock was wrong.
    fn heed(&mut self, now: i64) {
        let ahead: Vec<_> = self.minutes.drain(self.minutes.partition_point(|(minute, _)| *minute <= now)..).collect();
        ahead.into_iter().for_each(|(_, n)| self.add(now, n));
    }

    /// Remembers a partner.
    pub(crate) fn meet(&mut self, partner: u32) {
        if let Err(at) = self.partners.binary_search(&partner)
            && self.partners.len() < MAX_PARTNERS
        {
            self.partners.insert(at, partner);
        }
    }

    /// All that is remembered.
    pub(crate) fn total(&self) -> u64 {
        let recent: u64 = self.minutes.iter().map(|(_, n)| u64::from(*n)).sum();
        recent + self.older.max(0.0) as u64
    }

    /// What is remembered of one minute.
    pub(crate) fn in_minute(&self, minute: i64) -> u64 {
        self.minutes.iter().filter(|(m, _)| *m == minute).map(|(_, n)| u64::from(*n)).sum()
    }

    /// All that is remembered of the time before `minute`, and of that minute itself at most `within`.
    pub(crate) fn total_before(&self, minute: i64, within: u64) -> u64 {
        let before: u64 = self.minutes.iter().filter(|(m, _)| *m < minute).map(|(_, n)| u64::from(*n)).sum();
        before + self.in_minute(minute).min(within) + self.older.max(0.0) as u64
    }

    /// The minutes that are remembered exactly.
    pub(crate) fn histogram(&self) -> Histogram {
        let mut all = Histogram::default();
        for (minute, n) in &self.minutes {
            all.add(Timestamp::from_secs(minute.saturating_mul(60)), *n);
        }
        all
    }
}

/// The key of a counter.
pub(crate) fn key(parts: &[&str]) -> u64 {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    (LineId::of(&parts).bits() >> 64) as u64
}

impl Failures {
    /// The counter with this key.
    pub(crate) fn get(&self, key: u64) -> Option<&Counter> {
        self.counters.binary_search_by_key(&key, |c| c.key).ok().map(|at| &self.counters[at])
    }

    /// Replaces counters, forgets the idle ones, and keeps to the bound: the longest idle make room.
    pub(crate) fn take(&mut self, mut changed: Vec<Counter>, now_minute: i64) {
        changed.iter_mut().for_each(|counter| counter.heed(now_minute));
        changed.sort_by_key(|c| c.key);
        self.counters.retain(|c| {
            c.last() >= now_minute - FORGOTTEN_AFTER_MINUTES && changed.binary_search_by_key(&c.key, |n| n.key).is_err()
        });
        self.counters.append(&mut changed);
        if self.counters.len() > MAX_COUNTERS {
            self.evicted += (self.counters.len() - MAX_COUNTERS) as u64;
            self.counters.sort_by_key(|c| (std::cmp::Reverse(c.last()), c.key));
            self.counters.truncate(MAX_COUNTERS);
        }
        self.counters.sort_by_key(|c| c.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_failures_fade_but_count() {
        let mut counter = Counter::default();
        counter.add(1000, 4);
        counter.add(1010, 2);
        assert_eq!(counter.total(), 6);
        counter.add(1040, 1);
        assert_eq!(counter.minutes, [(1040, 1)]);
        assert_eq!(counter.total(), 7);
        counter.add(1040 + 240, 1);
        assert_eq!(counter.total(), 1 + 2, "a quarter of the six older ones, one just gone old");
    }

    #[test]
    fn the_table_is_bounded_and_says_what_it_dropped() {
        let counter = |key: u64| Counter { key, minutes: vec![(key as i64, 1)], ..Counter::default() };
        let mut table = Failures::default();
        table.take((0..5000).map(counter).collect(), 5000);
        assert_eq!((table.counters.len(), table.evicted), (MAX_COUNTERS, 904));
        assert!(table.get(4999).is_some() && table.get(0).is_none());
        table.take(Vec::new(), 5000 + FORGOTTEN_AFTER_MINUTES);
        assert!(table.counters.is_empty());
    }
}
