//! The counters of a [`MemoryRow`](crate::MemoryRow): rates, gaps, hours, known values; and how they are stored.
//!
//! Everything here is a sum, a maximum, a union or a decayed mean, so that two rows can be merged when their templates
//! become one, and so that a row costs about a hundred bytes in a store.

use logwarden_templates::Timestamp;
use serde::{Deserialize, Serialize};

/// Seconds of the bucket that rates are kept in.
pub(crate) const BUCKET_SECONDS: i64 = 300;

/// Closed buckets count half after this many.
const HALF_LIFE_BUCKETS: f64 = 288.0;

/// Closed buckets after which an outlier no longer counts in full: an hour.
const SETTLED_BUCKETS: u32 = 12;

/// Gaps after which an outlier no longer counts in full.
const SETTLED_GAPS: u32 = 30;

/// Gaps that must have been seen before silence means something.
pub(crate) const ENOUGH_GAPS: u32 = 30;

/// Events after which an outlier of the mix of levels no longer counts in full.
const SETTLED_EVENTS: f32 = 300.0;

/// Known values kept per row.
pub(crate) const MAX_VALUES: usize = 32;

/// What is known about how often something happens. Opaque: [`detect`](crate::detect) reads and grows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub(crate) rate: Rate,
    pub(crate) gaps: Gaps,
    pub(crate) hours: Hours,
    pub(crate) values: Values,
    /// When silence was told, until the next event; so that it is told once.
    pub(crate) silent_since: Option<Timestamp>,
    /// Only for the row of an origin as a whole.
    pub(crate) profile: Option<Box<Profile>>,
}

impl Stats {
    /// Takes back what is later than `now`.
    pub(crate) fn heed(&mut self, now: Timestamp) {
        let (bucket, hour) = (Rate::bucket_of_minute(now.minute()), now.minute().div_euclid(60));
        let day = hour.div_euclid(24);
        if self.rate.bucket > bucket {
            (self.rate.bucket, self.rate.open) = (bucket, 0);
        }
        if self.hours.day > day {
            self.hours = Hours { day, ..Hours::default() };
        }
        self.values.day = self.values.day.min(day);
        self.silent_since = self.silent_since.map(|since| since.min(now));
        if let Some(profile) = &mut self.profile {
            profile.hour = profile.hour.min(hour);
            if profile.levels.bucket > bucket {
                profile.levels = Levels { bucket, ..Levels::default() };
            }
        }
    }

    /// Learns how long nothing came; what was told as silence, or is `explained` otherwise, hardly counts as usual.
    pub(crate) fn learn_gap(&mut self, seconds: i64, explained: bool) {
        match explained || self.silent_since.is_some() {
            true => self.gaps.add_told(seconds),
            false => self.gaps.add(seconds),
        }
    }
}

/// Events per bucket: a decayed mean with its spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    /// The bucket that is still filling.
    pub(crate) bucket: i64,
    /// Events in it.
    pub(crate) open: u32,
    /// Closed buckets, with the empty ones between.
    pub(crate) closed: u32,
    pub(crate) mean: f32,
    pub(crate) variance: f32,
}

impl Rate {
    /// The bucket of a minute since 1970.
    pub(crate) fn bucket_of_minute(minute: i64) -> i64 {
        minute.div_euclid(BUCKET_SECONDS / 60)
    }

    /// Counts `n` events in `bucket`; those of an already closed bucket no longer move the mean.
    pub(crate) fn add(&mut self, bucket: i64, n: u32) {
        self.close_until(bucket);
        if bucket >= self.bucket {
            self.open = self.open.saturating_add(n);
        }
    }

    /// Closes the open bucket, and the empty ones after it, when time has reached `bucket`.
    pub(crate) fn close_until(&mut self, bucket: i64) {
        if self.closed == 0 && self.open == 0 && self.bucket == 0 {
            self.bucket = bucket;
            return;
        }
        if bucket <= self.bucket {
            return;
        }
        self.learn(f64::from(self.open));
        let empty = bucket - self.bucket - 1;
        if empty > 0 {
            self.learn_empty(empty);
        }
        (self.bucket, self.open) = (bucket, 0);
    }

    fn learn(&mut self, x: f64) {
        // The plain mean of the first buckets, a decayed one later.
        let weight = (1.0 / (f64::from(self.closed) + 1.0)).max(1.0 - 0.5_f64.powf(1.0 / HALF_LIFE_BUCKETS));
        let (mean, variance) = (f64::from(self.mean), f64::from(self.variance));
        // One outbreak must not hide the next one for a week: what is far beyond is learned as a little beyond, and a new
        // level is reached step by step.
        let x = if self.closed < SETTLED_BUCKETS { x } else { x.min(3_f64.max(3.0 * mean + 3.0 * variance.sqrt())) };
        let delta = x - mean;
        self.mean = (mean + weight * delta) as f32;
        self.variance = ((1.0 - weight) * (variance + weight * delta * delta)) as f32;
        self.closed = self.closed.saturating_add(1);
    }

    /// Learns `n` buckets without events at once.
    fn learn_empty(&mut self, n: i64) {
        let (mean, variance) = (f64::from(self.mean), f64::from(self.variance));
        let n = n.clamp(0, i64::from(u32::MAX)) as f64;
        let seen = f64::from(self.closed);
        let keep = (seen / (seen + n)).max(0.5_f64.powf(n / HALF_LIFE_BUCKETS)).min(1.0);
        self.mean = (mean * keep) as f32;
        self.variance = (keep * (variance + (1.0 - keep) * mean * mean)) as f32;
        self.closed = self.closed.saturating_add(n as u32);
    }

    /// Variance beyond that of a Poisson process, as a share of the squared mean.
    pub(crate) fn dispersion(&self) -> f64 {
        let (mean, variance) = (f64::from(self.mean), f64::from(self.variance));
        if mean > 0.0 { ((variance - mean) / (mean * mean)).max(0.0) } else { 0.0 }
    }

    fn merge(&mut self, other: &Self) {
        let mut other = *other;
        let bucket = self.bucket.max(other.bucket);
        if self.closed > 0 || self.open > 0 {
            self.close_until(bucket);
        }
        if other.closed > 0 || other.open > 0 {
            other.close_until(bucket);
        }
        *self = Self {
            bucket,
            open: self.open.saturating_add(other.open),
            closed: self.closed.max(other.closed),
            mean: self.mean + other.mean,
            variance: self.variance + other.variance,
        };
    }

    /// Goes on with what `later` has counted after this.
    fn follow(&mut self, later: &Self) {
        if later.closed == 0 && later.open == 0 {
            return;
        }
        if self.closed > 0 || self.open > 0 {
            self.close_until(later.bucket - i64::from(later.closed));
        }
        let (before, after) = (f64::from(self.closed), f64::from(later.closed));
        let weight = match before + after {
            0.0 => 1.0,
            all => (after / all).max(1.0 - 0.5_f64.powf(after / HALF_LIFE_BUCKETS)),
        };
        (self.mean, self.variance) = pooled((self.mean, self.variance), (later.mean, later.variance), weight);
        self.closed = self.closed.saturating_add(later.closed);
        (self.bucket, self.open) = (later.bucket, later.open);
    }
}

/// Mean and variance of two lots of which the second has this weight.
fn pooled(one: (f32, f32), other: (f32, f32), weight: f64) -> (f32, f32) {
    let apart = f64::from(other.0) - f64::from(one.0);
    let mean = f64::from(one.0) + weight * apart;
    let within = (1.0 - weight) * f64::from(one.1) + weight * f64::from(other.1);
    (mean as f32, (within + weight * (1.0 - weight) * apart * apart) as f32)
}

/// The times between minutes with events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gaps {
    pub(crate) n: u32,
    /// Seconds.
    pub(crate) mean: f32,
    pub(crate) variance: f32,
    pub(crate) longest: u32,
}

impl Gaps {
    pub(crate) fn add(&mut self, seconds: i64) {
        self.learn(seconds, 4.0);
    }

    /// Adds a gap that was told as silence.
    pub(crate) fn add_told(&mut self, seconds: i64) {
        self.learn(seconds, 1.5);
    }

    fn learn(&mut self, seconds: i64, most: f64) {
        let gap = seconds.clamp(0, i64::from(u32::MAX)) as f64;
        // One outage must not hide the next one for weeks; a new rhythm is learned after a few.
        let gap = if self.n < SETTLED_GAPS { gap } else { gap.min(most * f64::from(self.longest).max(60.0)) };
        // Like the rate: plain at first, then the last few hundred gaps.
        let weight = (1.0 / (f64::from(self.n) + 1.0)).max(1.0 / 512.0);
        let delta = gap - f64::from(self.mean);
        self.mean = (f64::from(self.mean) + weight * delta) as f32;
        self.variance = ((1.0 - weight) * (f64::from(self.variance) + weight * delta * delta)) as f32;
        self.longest = self.longest.max(gap as u32);
        self.n = self.n.saturating_add(1);
    }

    pub(crate) fn spread(&self) -> f64 {
        f64::from(self.variance).max(0.0).sqrt()
    }

    /// Goes on with what `later` has counted after this.
    fn follow(&mut self, later: &Self) {
        if later.n == 0 {
            return;
        }
        let (before, after) = (f64::from(self.n), f64::from(later.n));
        let weight = (after / (before + after)).max(1.0 - (1.0 - 1.0 / 512.0_f64).powf(after));
        (self.mean, self.variance) = pooled((self.mean, self.variance), (later.mean, later.variance), weight);
        self.longest = self.longest.max(later.longest);
        self.n = self.n.saturating_add(later.n);
    }

    /// Of two streams of events that become one, the busier one says what gaps are usual.
    fn merge(&mut self, other: &Self) {
        if other.n > self.n {
            *self = *other;
        }
    }
}

/// In which hours of the last four days there were events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hours {
    /// The day since 1970 that `days[0]` is about.
    pub(crate) day: i64,
    /// A bit per hour (UTC); the latest day first.
    pub(crate) days: [u32; 4],
}

impl Hours {
    pub(crate) fn mark(&mut self, hour: i64) {
        let (day, bit) = (hour.div_euclid(24), 1_u32 << hour.rem_euclid(24));
        self.turn_to(day);
        if let Some(slot) = usize::try_from(self.day - day).ok().and_then(|ago| self.days.get_mut(ago)) {
            *slot |= bit;
        }
    }

    fn turn_to(&mut self, day: i64) {
        let ahead = day - self.day;
        if ahead <= 0 {
            return;
        }
        for _ in 0..ahead.min(4) {
            self.days = [0, self.days[0], self.days[1], self.days[2]];
        }
        self.day = day;
    }

    /// On how many of the four days before that of `hour` there were events in that hour of the day.
    pub(crate) fn active_before(&self, hour: i64) -> u32 {
        let (day, bit) = (hour.div_euclid(24), 1_u32 << hour.rem_euclid(24));
        (1..=4)
            .filter(|ago| {
                let index = usize::try_from(self.day - (day - ago)).ok();
                index.and_then(|index| self.days.get(index)).is_some_and(|hours| hours & bit != 0)
            })
            .count() as u32
    }

    fn merge(&mut self, other: &Self) {
        let mut other = *other;
        let day = self.day.max(other.day);
        self.turn_to(day);
        other.turn_to(day);
        for (mine, theirs) in self.days.iter_mut().zip(other.days) {
            *mine |= theirs;
        }
    }
}

/// Hashes of values seen in the slots that should be stable, and how many came anew of late.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Values {
    /// Sorted.
    pub(crate) known: Vec<u32>,
    /// The day since 1970 that `fresh` counts.
    pub(crate) day: i64,
    /// New values on that day.
    pub(crate) fresh: u16,
    /// The most new values on one day after the first.
    pub(crate) busiest: u16,
    /// There were more values than are kept: this is not a stable slot.
    pub(crate) overflowed: bool,
}

impl Values {
    pub(crate) fn knows(&self, hash: u32) -> bool {
        self.known.binary_search(&hash).is_ok()
    }

    /// Whether new values are rare: there are few, and at most a few came anew on any day after the first.
    pub(crate) fn is_stable(&self) -> bool {
        !self.overflowed && !self.known.is_empty() && self.busiest < 4
    }

    /// Takes a value; says whether it is new.
    pub(crate) fn learn(&mut self, hash: u32, day: i64) -> bool {
        let Err(at) = self.known.binary_search(&hash) else { return false };
        if day != self.day {
            // On the first day everything is new.
            if usize::from(self.fresh) < self.known.len() {
                self.busiest = self.busiest.max(self.fresh);
            }
            (self.day, self.fresh) = (day, 0);
        }
        self.fresh = self.fresh.saturating_add(1);
        if self.known.len() < MAX_VALUES {
            self.known.insert(at, hash);
        } else {
            self.overflowed = true;
        }
        true
    }

    fn merge(&mut self, other: &Self) {
        for hash in &other.known {
            if let Err(at) = self.known.binary_search(hash) {
                if self.known.len() < MAX_VALUES {
                    self.known.insert(at, *hash);
                } else {
                    self.overflowed = true;
                }
            }
        }
        self.day = self.day.max(other.day);
        self.fresh = self.fresh.max(other.fresh);
        self.busiest = self.busiest.max(other.busiest);
        self.overflowed |= other.overflowed;
    }
}

/// What is known about an origin as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// Events per hour of the week, Thursday 00:00 UTC first (as 1970 began), decayed by half in four weeks.
    pub(crate) week: Vec<f32>,
    /// The hour since 1970 that counted last, and how many different hours have counted.
    pub(crate) hour: i64,
    pub(crate) hours: u32,
    /// The decayed share of warnings and worse, and the events it rests on.
    pub(crate) bad_share: f32,
    pub(crate) events: f32,
    /// The bucket that is still filling, and what is in it.
    #[serde(default)]
    pub(crate) levels: Levels,
}

/// Warnings and worse among the events of one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Levels {
    pub(crate) bucket: i64,
    pub(crate) bad: u64,
    pub(crate) all: u64,
}

/// Hours in a week.
const WEEK: usize = 168;

impl Default for Profile {
    fn default() -> Self {
        Self { week: vec![0.0; WEEK], hour: 0, hours: 0, bad_share: 0.0, events: 0.0, levels: Levels::default() }
    }
}

impl Profile {
    /// Counts `n` events in an hour since 1970.
    pub(crate) fn add(&mut self, hour: i64, n: u32) {
        if hour > self.hour {
            if self.hour != 0 && hour.div_euclid(WEEK as i64) > self.hour.div_euclid(WEEK as i64) {
                self.week.iter_mut().for_each(|sum| *sum *= 0.84);
            }
            self.hours =
                self.hours.saturating_add(u32::try_from(hour - self.hour).unwrap_or(1).min(if self.hour == 0 {
                    1
                } else {
                    u32::MAX
                }));
            self.hour = hour;
        }
        if let Some(sum) = self.week.get_mut(hour.rem_euclid(WEEK as i64) as usize) {
            *sum += n as f32;
        }
    }

    /// How much more than on average happens in this hour of the week: 1 until two weeks are known, and shrunk towards
    /// 1 after that, the more the fewer events there are.
    pub(crate) fn factor(&self, hour: i64) -> f64 {
        if self.hours < 2 * WEEK as u32 {
            return 1.0;
        }
        let mean = self.week.iter().copied().map(f64::from).sum::<f64>() / WEEK as f64;
        let here = self.week.get(hour.rem_euclid(WEEK as i64) as usize).copied().map_or(mean, f64::from);
        // As if twenty events of an average hour had been seen besides.
        if mean > 0.0 { ((here + 20.0) / (mean + 20.0)).clamp(0.1, 10.0) } else { 1.0 }
    }

    /// Counts events of which some were warnings or worse; what a bucket had is learned when the next one begins.
    pub(crate) fn add_levels(&mut self, new: Levels) {
        if new.all == 0 {
            return;
        }
        if new.bucket > self.levels.bucket {
            self.learn_levels();
            self.levels = Levels { bucket: new.bucket, ..Levels::default() };
        }
        self.levels.bad = self.levels.bad.saturating_add(new.bad);
        self.levels.all = self.levels.all.saturating_add(new.all);
    }

    fn learn_levels(&mut self) {
        let Levels { bad, all, .. } = self.levels;
        if all == 0 {
            return;
        }
        let (bad, all) = match self.events >= SETTLED_EVENTS {
            true => {
                // As with rates, one outbreak must not hide the next one.
                let usual = f64::from(self.bad_share);
                let most = (3.0 * usual).max(usual + 0.15).min(0.9);
                let good = all.saturating_sub(bad) as f64;
                let bad = (bad as f64).min((good.max(1.0) * most / (1.0 - most)).ceil());
                (bad, good + bad)
            }
            false => (bad as f64, all as f64),
        };
        // Half after a day and a half of buckets that are not empty.
        let events = f64::from(self.events) * 0.998 + all;
        let share = f64::from(self.bad_share) + (bad / all - f64::from(self.bad_share)) * all / events;
        (self.bad_share, self.events) = (share as f32, events as f32);
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.week.iter_mut().zip(&other.week) {
            *mine += theirs;
        }
        self.hour = self.hour.max(other.hour);
        self.hours = self.hours.max(other.hours);
        let events = self.events + other.events;
        if events > 0.0 {
            self.bad_share = (self.bad_share * self.events + other.bad_share * other.events) / events;
        }
        self.events = events;
    }
}

impl Stats {
    /// Goes on with what `later` knows: the same template, after this.
    pub(crate) fn follow(&mut self, later: &Self) {
        self.rate.follow(&later.rate);
        self.gaps.follow(&later.gaps);
        self.silent_since = later.silent_since;
        self.hours.merge(&later.hours);
        self.values.merge(&later.values);
        match (&mut self.profile, &later.profile) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
            (_, None) => {}
        }
    }

    /// Adds what `other` knows: two templates have become one.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.rate.merge(&other.rate);
        self.gaps.merge(&other.gaps);
        self.hours.merge(&other.hours);
        self.values.merge(&other.values);
        self.silent_since = self.silent_since.and(other.silent_since);
        match (&mut self.profile, &other.profile) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
            (_, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbreak_does_not_hide_the_next_one() {
        let mut rate = Rate::default();
        (0..600).for_each(|bucket| rate.add(bucket, u32::from(bucket % 10 == 0)));
        let before = rate;
        (600..603).for_each(|bucket| rate.add(bucket, 60));
        (603..1_000).for_each(|bucket| rate.add(bucket, u32::from(bucket % 10 == 0)));
        assert!(rate.mean < 2.0 * before.mean && rate.dispersion() < 8.0, "{rate:?}");
        // What stays is learned.
        (2_000..2_600).for_each(|bucket| rate.add(bucket, 60));
        assert!(rate.mean > 30.0, "{rate:?}");
    }

    #[test]
    fn an_outage_does_not_hide_the_next_one() {
        let mut gaps = Gaps::default();
        (0..1_000).for_each(|_| gaps.add(60));
        gaps.add(5_400);
        assert!(gaps.longest < 600 && gaps.spread() < f64::from(gaps.mean) / 2.0, "{gaps:?}");
        (0..4).for_each(|_| gaps.add(3_600));
        assert_eq!(gaps.longest, 3_600, "a new rhythm is learned");
    }

    #[test]
    fn two_halves_are_as_much_as_the_whole() {
        let count = |buckets: std::ops::Range<i64>| {
            let mut rate = Rate::default();
            buckets.for_each(|bucket| rate.add(bucket, (bucket % 7) as u32));
            rate
        };
        let (whole, mut half) = (count(1_000..1_200), count(1_000..1_100));
        half.follow(&count(1_100..1_200));
        assert_eq!((half.closed, half.bucket, half.open), (whole.closed, whole.bucket, whole.open));
        assert!(
            (half.mean - whole.mean).abs() < 0.1 && (half.variance - whole.variance).abs() < 0.3,
            "{half:?} {whole:?}"
        );
        let mut nothing = Rate::default();
        nothing.follow(&whole);
        assert_eq!((nothing.mean, nothing.closed), (whole.mean, whole.closed));
    }

    #[test]
    fn one_outbreak_of_errors_does_not_become_usual() {
        let mut profile = Profile::default();
        for bucket in 1..200 {
            profile.add_levels(Levels { bucket, bad: u64::from(bucket % 2 == 0), all: 5 });
        }
        let before = profile.bad_share;
        for bucket in 200..203 {
            profile.add_levels(Levels { bucket, bad: 60, all: 62 });
        }
        profile.add_levels(Levels { bucket: 203, bad: 0, all: 5 });
        assert!((0.08..0.12).contains(&before) && profile.bad_share < before + 0.01, "{profile:?}");
    }

    #[test]
    fn a_slot_is_as_stable_as_it_was_after_its_first_day() {
        let mut values = Values::default();
        (0..10).for_each(|value| assert!(values.learn(value, 100)));
        assert!(values.learn(20, 105));
        assert!(values.learn(30, 110));
        assert_eq!(values.busiest, 1);
    }
}
