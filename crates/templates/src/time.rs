//! Points in time, to the nanosecond.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970-01-01 UTC; reaches from 1677 to 2262.
///
/// Arithmetic saturates, so that no input can make it panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest time.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest time.
    pub const MAX: Self = Self(i64::MAX);

    /// A time from nanoseconds since 1970.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// A time from whole seconds since 1970.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since 1970.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Whole minutes since 1970, rounded down.
    pub const fn minute(self) -> i64 {
        self.0.div_euclid(60_000_000_000)
    }

    /// The time `earlier` was ago; zero when it is later than `self`.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This time plus `by`.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// This time minus `by`.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// RFC 3339 in UTC with as many fractional digits as there are: `2026-11-21T04:00:00.25Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => fmt::Display::fmt(&time, f),
            Err(_) => write!(f, "{} ns", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_and_never_goes_negative() {
        let t = Timestamp::from_secs(60);
        assert_eq!(t.since(Timestamp::from_secs(90)), Duration::ZERO);
        assert_eq!(t.minus(Duration::MAX), Timestamp::from_nanos(60_000_000_000 - i64::MAX));
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.minute(), -153_722_868);
    }

    #[test]
    fn prints_as_rfc_3339() {
        assert_eq!(Timestamp::from_nanos(1_795_233_600_250_000_000).to_string(), "2026-11-21T04:00:00.25Z");
    }
}
