//! When the model may work, and how much.

use std::time::Duration;

use logwarden_core::{Timestamp, classifier::ClassifyError};

use crate::Calibration;

const DAY: i64 = 86_400;
const HOUR: i64 = 3600;

/// The most that may be asked. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// Calls within an hour of the clock.
    pub calls_per_hour: Option<u32>,
    /// Calls within the last 24 hours of the clock.
    pub calls_per_day: Option<u32>,
    /// Tokens, read and written, within an hour of the clock.
    pub tokens_per_hour: Option<u64>,
    /// Tokens within the last 24 hours of the clock.
    pub tokens_per_day: Option<u64>,
}

/// The hours of the day in which the model may work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    from: u32,
    to: u32,
    east: i32,
}

impl Hours {
    /// From one minute of the day until before another, which may lie after midnight; `east` is the local time's distance
    /// from UTC in seconds. `None` when there is nothing in between or a minute is none of a day.
    pub fn new(from: u32, to: u32, east: i32) -> Option<Self> {
        (from != to && from < 1440 && to <= 1440 && east.abs() <= 86_400).then_some(Self { from, to: to % 1440, east })
    }

    /// When work begins again; `None` when it may go on now.
    fn rests_until(&self, now: Timestamp) -> Option<Timestamp> {
        let second = (now.secs() + i64::from(self.east)).rem_euclid(DAY);
        let (from, to) = (i64::from(self.from) * 60, i64::from(self.to) * 60);
        let works = if from < to { (from..to).contains(&second) } else { second >= from || second < to };
        (!works).then(|| {
            let wait = (from - second).rem_euclid(DAY);
            Timestamp::from_secs(now.secs()).plus(Duration::from_secs(wait.unsigned_abs()))
        })
    }
}

/// Whether a call may be made now.
pub(crate) fn gate(
    now: Timestamp,
    hours: Option<Hours>,
    ceilings: &Ceilings,
    calibration: &Calibration,
) -> Result<(), ClassifyError> {
    let resting = |until, reason: String| Err(ClassifyError::Resting { until, reason });
    if let Some(until) = hours.and_then(|hours| hours.rests_until(now)) {
        return resting(until, "outside the hours in which it may work".to_owned());
    }
    let next_hour = Timestamp::from_secs((now.secs().div_euclid(HOUR) + 1).saturating_mul(HOUR));
    let spans = [
        (1, "this hour", ceilings.calls_per_hour, ceilings.tokens_per_hour),
        (24, "the last 24 hours", ceilings.calls_per_day, ceilings.tokens_per_day),
    ];
    for (span, name, calls, tokens) in spans {
        let (spent_calls, spent_tokens) = calibration.spent(now, span);
        if let Some(most) = calls.filter(|most| spent_calls >= *most) {
            return resting(next_hour, format!("{spent_calls} of {most} calls in {name} are made"));
        }
        if let Some(most) = tokens.filter(|most| spent_tokens >= *most) {
            return resting(next_hour, format!("{spent_tokens} of {most} tokens in {name} are used"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64, minute: i64) -> Timestamp {
        Timestamp::from_secs(1_795_219_200 + hour * HOUR + minute * 60)
    }

    #[test]
    fn hours_may_span_midnight() {
        let night = Hours::new(22 * 60, 6 * 60, 0).unwrap();
        assert_eq!(night.rests_until(at(23, 0)), None);
        assert_eq!(night.rests_until(at(5, 59)), None);
        assert_eq!(night.rests_until(at(6, 0)), Some(at(22, 0)));
        let day = Hours::new(8 * 60, 18 * 60, 3600).unwrap();
        assert_eq!(day.rests_until(at(7, 0)), None);
        assert_eq!(day.rests_until(at(17, 0)), Some(at(31, 0)));
        assert_eq!(Hours::new(60, 60, 0), None);
    }

    #[test]
    fn a_ceiling_is_said_with_its_numbers() {
        let mut calibration = Calibration::default();
        let ceilings = Ceilings { calls_per_hour: Some(2), tokens_per_day: Some(5000), ..Ceilings::default() };
        calibration.spend(at(10, 5), 2, 3000);
        let error = gate(at(10, 30), None, &ceilings, &calibration).unwrap_err();
        let ClassifyError::Resting { until, reason } = error else { panic!("{error}") };
        assert_eq!((until, reason.as_str()), (at(11, 0), "2 of 2 calls in this hour are made"));
        assert!(gate(at(11, 0), None, &ceilings, &calibration).is_ok());
        calibration.spend(at(11, 5), 1, 2500);
        assert!(gate(at(12, 0), None, &ceilings, &calibration).is_err());
    }
}
