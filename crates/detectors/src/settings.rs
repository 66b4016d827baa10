//! What a detection goes by: how it is tuned, how far was read, how much is known.

use std::time::Duration;

use logwarden_templates::Timestamp;

use crate::Memory;

/// How much is known about what is normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Enough to tell new from normal.
    Learned,
    /// A young source: novelty and silence page nobody yet.
    Warming,
    /// There is no memory and there will be none: the input itself is all there is (`scan`).
    SelfRelative,
}

/// What a detection may be tuned by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// No memory is kept: compare the input with itself.
    pub self_relative: bool,
    /// A source younger than this and with fewer lines than `warm_up_lines` is still warming up.
    pub warm_up: Duration,
    /// See `warm_up`.
    pub warm_up_lines: u64,
    /// Signals older than this alert only from high up, and say so.
    pub stale_after: Duration,
    /// False alarms per day that the rate detector may cost; with the number of tests it gives the threshold.
    pub false_alarms_per_day: f64,
    /// Rows of the memory; the least recently seen make room and are counted.
    pub max_rows: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            self_relative: false,
            warm_up: Duration::from_secs(24 * 3600),
            warm_up_lines: 50_000,
            stale_after: Duration::from_secs(3600),
            false_alarms_per_day: 1.0,
            max_rows: 20_000,
        }
    }
}

impl Settings {
    /// How much `memory` knows at `now`.
    pub(crate) fn baseline(&self, memory: &Memory, now: Timestamp) -> Baseline {
        let source = memory.source();
        let old_enough = source.first.is_some_and(|first| now.since(first) >= self.warm_up);
        match () {
            () if self.self_relative => Baseline::SelfRelative,
            () if source.backfilled || old_enough || source.lines >= self.warm_up_lines => Baseline::Learned,
            () => Baseline::Warming,
        }
    }
}

/// How far a read went: what is not there may be silent, or not read yet.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The wall clock, for the age of signals.
    pub now: Timestamp,
    /// Everything before this time has been read, of all parts of the source. `None` when that cannot be said: then nothing
    /// is called silent.
    pub whole_to: Option<Timestamp>,
    /// So long before this read nobody who writes could be heard: the source was down, or, where lines are pushed, we were.
    /// What did not come then is not missed.
    pub unheard: Duration,
}

impl From<Timestamp> for Read {
    /// A read of everything up to now.
    fn from(now: Timestamp) -> Self {
        Self { now, whole_to: Some(now), unheard: Duration::ZERO }
    }
}
