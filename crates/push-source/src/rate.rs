//! How much one client may send.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Clients remembered at most; when there are more, all begin anew.
const MAX_CLIENTS: usize = 10_000;
/// A client that was silent may send so many seconds' worth at once.
const BURST_SECONDS: f64 = 30.0;

/// What one client may send per second on average; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Requests.
    pub requests: Option<u64>,
    /// Bytes of bodies, as they are sent.
    pub bytes: Option<u64>,
    /// Records: log lines.
    pub records: Option<u64>,
}

/// What was sent: requests, bytes, records.
pub(crate) type Amount = [u64; 3];

/// How much is left, and since when that is known.
type Bucket = ([f64; 3], Instant);

/// A bucket per client.
#[derive(Debug)]
pub(crate) struct Rates {
    per_second: [Option<f64>; 3],
    buckets: Mutex<HashMap<String, Bucket>>,
}

impl Rates {
    /// The same rate for every client.
    pub(crate) fn new(rate: Rate) -> Self {
        let per_second = [rate.requests, rate.bytes, rate.records].map(|limit| limit.map(|limit| limit.max(1) as f64));
        Self { per_second, buckets: Mutex::default() }
    }

    /// `Err` with the time to wait when the client has sent too much; else takes what it sends now.
    pub(crate) fn take(&self, client: &str, amount: Amount, now: Instant) -> Result<(), Duration> {
        self.with(client, now, |per_second, levels| {
            // A request may overdraw the bucket, so that one larger than the burst is not refused for ever.
            let waits = per_second.iter().zip(&*levels).filter_map(|(rate, level)| Some(-level / (*rate)?));
            let wait = waits.fold(f64::NEG_INFINITY, f64::max);
            if wait >= 0.0 {
                return Err(Duration::from_secs_f64(wait.clamp(1.0, 60.0)));
            }
            levels.iter_mut().zip(amount).for_each(|(level, amount)| *level -= amount as f64);
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    /// Takes what is only known once it was read.
    pub(crate) fn charge(&self, client: &str, amount: Amount, now: Instant) {
        self.with(client, now, |_, levels| {
            levels.iter_mut().zip(amount).for_each(|(level, amount)| *level -= amount as f64);
        });
    }

    fn with<T>(
        &self,
        client: &str,
        now: Instant,
        change: impl FnOnce(&[Option<f64>; 3], &mut [f64; 3]) -> T,
    ) -> Option<T> {
        if self.per_second.iter().all(Option::is_none) {
            return None;
        }
        let full = self.per_second.map(|rate| rate.unwrap_or(0.0) * BURST_SECONDS);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_CLIENTS && !buckets.contains_key(client) {
            buckets.clear();
        }
        let (levels, at) = buckets.entry(client.to_owned()).or_insert((full, now));
        let seconds = now.saturating_duration_since(*at).as_secs_f64();
        for (level, full) in levels.iter_mut().zip(full) {
            *level = (*level + seconds * full / BURST_SECONDS).min(full);
        }
        *at = now;
        Some(change(&self.per_second, levels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_sends_too_much_waits_and_others_do_not() {
        let start = Instant::now();
        for what in 0..3 {
            let limit = |kind| (kind == what).then_some(1000);
            let rates = Rates::new(Rate { requests: limit(0), bytes: limit(1), records: limit(2) });
            let amount = |number| std::array::from_fn(|kind| if kind == what { number } else { 1_000_000_000 });
            assert!(rates.take("a", amount(60_000), start).is_ok(), "one large request passes");
            let wait = rates.take("a", amount(1), start).unwrap_err();
            assert_eq!(wait, Duration::from_secs(30));
            assert!(rates.take("b", amount(1), start).is_ok());
            assert!(rates.take("a", amount(1), start + Duration::from_secs(31)).is_ok());
        }
        assert!(Rates::new(Rate::default()).take("a", [u64::MAX; 3], start).is_ok());
    }

    #[test]
    fn what_is_known_later_counts_too() {
        let (rates, start) = (Rates::new(Rate { records: Some(10), ..Rate::default() }), Instant::now());
        assert!(rates.take("a", [1, 100, 0], start).is_ok());
        rates.charge("a", [0, 0, 700], start);
        assert_eq!(rates.take("a", [1, 100, 0], start), Err(Duration::from_secs(40)));
    }
}
