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

/// A bucket of bytes per client.
#[derive(Debug)]
pub(crate) struct Rates {
    per_second: Option<f64>,
    buckets: Mutex<HashMap<String, (f64, Instant)>>,
}

impl Rates {
    /// No limit when `per_second` is `None`.
    pub(crate) fn new(per_second: Option<u64>) -> Self {
        Self { per_second: per_second.map(|bytes| bytes.max(1) as f64), buckets: Mutex::default() }
    }

    /// Takes what a request needs; `Err` with the time to wait when the client has sent too much.
    pub(crate) fn take(&self, client: &str, bytes: u64, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.per_second else { return Ok(()) };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_CLIENTS && !buckets.contains_key(client) {
            buckets.clear();
        }
        let (level, at) = buckets.entry(client.to_owned()).or_insert((rate * BURST_SECONDS, now));
        *level = (*level + now.saturating_duration_since(*at).as_secs_f64() * rate).min(rate * BURST_SECONDS);
        *at = now;
        // A request may overdraw the bucket, so that one larger than the burst is not refused for ever.
        if *level <= 0.0 {
            return Err(Duration::from_secs_f64((-*level / rate).clamp(1.0, 60.0)));
        }
        *level -= bytes as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_sends_too_much_waits_and_others_do_not() {
        let (rates, start) = (Rates::new(Some(1000)), Instant::now());
        assert!(rates.take("a", 60_000, start).is_ok(), "one large request passes");
        let wait = rates.take("a", 1, start).unwrap_err();
        assert_eq!(wait, Duration::from_secs(30));
        assert!(rates.take("b", 1, start).is_ok());
        assert!(rates.take("a", 1, start + Duration::from_secs(31)).is_ok());
        assert!(Rates::new(None).take("a", u64::MAX, start).is_ok());
    }
}
