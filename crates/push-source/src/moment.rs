//! The times of records, in every shape that shippers write.

use jiff::{Timestamp as Instant, civil::DateTime, tz::TimeZone};

use crate::value::Value;

/// Nanoseconds since 1970 of a value that is a time: seconds, milliseconds, microseconds or nanoseconds by their size, as
/// number or text; RFC 3339; `2026-11-20 22:29:26.534364`, which is UTC.
pub(crate) fn nanos(value: &Value<'_>) -> Option<i64> {
    let nanos = match value {
        Value::Time(nanos) => *nanos,
        Value::Int(number) => scaled(*number)?,
        // Six digits of a fraction are all that a double keeps at this size.
        Value::Float(number) if number.is_finite() && number.abs() < 1e11 => (number * 1e6).round() as i128 * 1000,
        Value::Float(number) if number.is_finite() && number.abs() < 1e14 => (number * 1e3).round() as i128 * 1000,
        Value::Text(text) => return text_nanos(text),
        _ => return None,
    };
    i64::try_from(nanos).ok()
}

fn scaled(number: i128) -> Option<i128> {
    Some(match number.unsigned_abs() {
        0..100_000_000_000 => number * 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => number * 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => number * 1000,
        100_000_000_000_000_000..=9_000_000_000_000_000_000 => number,
        _ => return None,
    })
}

fn text_nanos(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if !(8..=40).contains(&text.len()) || !text.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return i64::try_from(scaled(text.parse().ok()?)?).ok();
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return nanos(&Value::Float(text.parse().ok()?));
    }
    let time = text.parse::<Instant>().ok().or_else(|| {
        let civil: DateTime = text.parse().ok()?;
        Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })?;
    i64::try_from(time.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: Value<'_>, wanted: Option<&str>) {
        let found = nanos(&value).map(|nanos| logwarden_core::Timestamp::from_nanos(nanos).to_string());
        assert_eq!(found.as_deref(), wanted, "{value:?}");
    }

    #[test]
    fn every_shape_of_time_is_read() {
        let text = |text: &'static str| Value::Text(text.as_bytes().into());
        check(Value::Float(1_795_213_737.316_03), Some("2026-11-20T22:28:57.31603Z"));
        check(Value::Int(1_795_213_762), Some("2026-11-20T22:29:22Z"));
        check(Value::Int(1_795_213_766_594), Some("2026-11-20T22:29:26.594Z"));
        check(text("1795215468787334"), Some("2026-11-20T22:57:48.787334Z"));
        check(text("1795214566490211925"), Some("2026-11-20T22:42:46.490211925Z"));
        check(text("2026-11-20T22:29:22.634382Z"), Some("2026-11-20T22:29:22.634382Z"));
        check(text("2026-11-20T22:31:10.1+09:00"), Some("2026-11-20T13:31:10.1Z"));
        check(text("2026-11-20 22:29:26.534364"), Some("2026-11-20T22:29:26.534364Z"));
        check(text("Nov 20 22:31:09"), None);
        check(Value::Float(f64::NAN), None);
        check(Value::Int(i128::MAX), None);
    }
}
