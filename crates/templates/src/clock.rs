//! Reads the dates and times that logs begin with.
//!
//! [`read`] recognises a form, [`Moment::resolve`] makes a point in time of it. What a form lacks comes from a reference,
//! the time when the line was written or read:
//!
//! * **No year**: the latest year in which the date exists and is at most a day after the reference. So a line of
//!   31 December that is read on 1 January is from last year, a clock a little ahead does no harm, and 29 February is from
//!   the last leap year.
//! * **Two digits of a year**, or numbers whose order is not clear (`03/04/26`): among the possible readings the latest
//!   that is at most a day after the reference.
//! * **No date**: the latest day on which the time is at most an hour after the reference.
//! * **No zone**: the stream's.
//!
//! A leap second counts as the second after it. A date that does not exist (30 February) is not a time.

use crate::{Timestamp, Zone};

/// A date and time as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    date: Date,
    second: u32,
    nanos: u32,
    /// Seconds east of UTC.
    offset: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Date {
    /// Year, month, day.
    Full(i32, u32, u32),
    /// Month, day.
    Yearless(u32, u32),
    /// Two digits of a year, month, day.
    ShortYear(u32, u32, u32),
    /// Three numbers of two digits in an order that only their values tell.
    Short(u32, u32, u32),
    /// Two numbers, day and month in either order, with the year if there is one.
    Either(u32, u32, Option<i32>),
    /// Nothing but a time.
    None,
    /// Seconds since 1970, UTC.
    Epoch(i64),
}

const DAY: i64 = 86_400;

impl Moment {
    /// Whether this is nothing but a number of seconds.
    pub(crate) fn is_epoch(&self) -> bool {
        matches!(self.date, Date::Epoch(_))
    }

    /// Whether there is a date.
    pub(crate) fn has_date(&self) -> bool {
        !matches!(self.date, Date::None)
    }

    /// Whether the year is written out.
    pub(crate) fn has_year(&self) -> bool {
        matches!(self.date, Date::Full(..) | Date::Epoch(_))
    }

    /// Whether the zone is written out.
    pub(crate) fn has_zone(&self) -> bool {
        self.offset.is_some()
    }

    /// The point in time; `None` when it is out of the range of [`Timestamp`].
    pub(crate) fn resolve(&self, reference: Timestamp, zone: &Zone) -> Option<Timestamp> {
        let at = |year, month, day| Some(self.utc(days_from_civil(year, month, day)?, zone));
        let soon = reference.secs().saturating_add(DAY);
        let secs = match self.date {
            Date::Epoch(secs) => Some(secs),
            Date::Full(year, month, day) => at(year, month, day),
            Date::Yearless(month, day) => latest_year(reference, soon, |year| at(year, month, day)),
            Date::ShortYear(year, month, day) => self.in_century(year, month, day, soon, zone),
            Date::Short(a, b, c) => [(a, b, c), (c, a, b), (c, b, a)]
                .into_iter()
                .filter_map(|(year, month, day)| self.in_century(year, month, day, soon, zone))
                .max(),
            Date::Either(a, b, Some(year)) => {
                let (first, second) = (at(year, a, b), at(year, b, a));
                first.filter(|t| *t <= soon).max(second.filter(|t| *t <= soon)).or(first).or(second)
            }
            Date::Either(a, b, None) => {
                latest_year(reference, soon, |year| at(year, a, b))
                    .max(latest_year(reference, soon, |year| at(year, b, a)))
            }
            Date::None => {
                let local = reference.secs().saturating_add(i64::from(zone.offset_at(reference.secs())));
                let today = local.div_euclid(DAY);
                let soon = reference.secs().saturating_add(3600);
                (-1..=1).filter_map(|day| Some(self.utc(today.checked_add(day)?, zone)).filter(|t| *t <= soon)).max()
            }
        }?;
        let nanos = secs.checked_mul(1_000_000_000)?.checked_add(i64::from(self.nanos))?;
        Some(Timestamp::from_nanos(nanos))
    }

    /// A date whose year has two digits, in this century if that is not in the future.
    fn in_century(&self, year: u32, month: u32, day: u32, soon: i64, zone: &Zone) -> Option<i64> {
        let year = i32::try_from(year).ok()?;
        let at = |century: i32| Some(self.utc(days_from_civil(century + year, month, day)?, zone));
        at(2000).filter(|t| *t <= soon).or_else(|| at(1900))
    }

    fn utc(&self, days: i64, zone: &Zone) -> i64 {
        let local = days.saturating_mul(DAY).saturating_add(i64::from(self.second));
        self.offset.map_or_else(|| zone.to_utc(local), |offset| local.saturating_sub(i64::from(offset)))
    }
}

/// The latest point in time up to `soon` that `at` has in any year; leap days may be eight years apart.
fn latest_year(reference: Timestamp, soon: i64, at: impl Fn(i32) -> Option<i64>) -> Option<i64> {
    let year = year_of(reference.secs().div_euclid(DAY));
    (0..=9).filter_map(|back| at(year + 1 - back)).find(|t| *t <= soon)
}

/// Days since 1970 of a date, if it exists.
fn days_from_civil(year: i32, month: u32, day: u32) -> Option<i64> {
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = i64::from((153 * ((month + 9) % 12) + 2) / 5 + day - 1);
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The year of a day since 1970.
fn year_of(days: i64) -> i32 {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let january_or_february = i64::from(of_year >= 306);
    i32::try_from(era * 400 + year + january_or_february).unwrap_or(1970)
}

/// Reads a date and time at the start of `text`: what it says and how many bytes it takes.
pub(crate) fn read(text: &[u8]) -> Option<(Moment, usize)> {
    match text.first()? {
        b'0'..=b'9' => read_number(text),
        b'A'..=b'Z' | b'a'..=b'z' => read_name(text),
        b'@' => read_tai(text),
        _ => None,
    }
}

/// The time that a whole value is, when it says everything itself.
pub(crate) fn instant(text: &[u8]) -> Option<Timestamp> {
    let (moment, end) = read(text)?;
    (end == text.len() && moment.has_year()).then(|| moment.resolve(Timestamp::default(), &Zone::UTC))?
}

/// Reads a date without a time (`2005.06.03`) at the start of `text`: how many bytes it takes.
pub(crate) fn read_date(text: &[u8]) -> Option<usize> {
    let (_, at) = year_first(text)?;
    boundary(text, at).then_some(at)
}

fn read_number(text: &[u8]) -> Option<(Moment, usize)> {
    let digits = text.iter().take(20).take_while(|b| b.is_ascii_digit()).count();
    let next = text.get(digits).copied().unwrap_or(b' ');
    match (digits, next) {
        (4, b'-' | b'/' | b'.') => {
            let (date, at) = year_first(text)?;
            time_after(text, at, date)
        }
        (1 | 2, b':') => {
            let clock = Clock::read(text, 0)?;
            clock.finish(text, Date::None)
        }
        (1 | 2, b'/' | b'-' | b'.' | b' ') => read_day_first(text, digits, next),
        (8, b'-' | b'T' | b' ' | b':' | b'_') => {
            let date = full(number(text, 0, 4)?, number(text, 4, 2)?, number(text, 6, 2)?)?;
            time_after(text, 8, date).or_else(|| compact_after(text, 9, date))
        }
        (14, _) => {
            let date = full(number(text, 0, 4)?, number(text, 4, 2)?, number(text, 6, 2)?)?;
            compact_after(text, 8, date)
        }
        (6, b' ') => {
            let (a, b, c) = (number(text, 0, 2)?, number(text, 2, 2)?, number(text, 4, 2)?);
            // Always year first: `081109 203615`, `261121  4:00:00`.
            (days_in_month(2000, b) >= c && (1..=12).contains(&b) && c > 0).then_some(())?;
            let date = Date::ShortYear(a, b, c);
            time_after(text, 6, date).or_else(|| compact_after(text, 7, date))
        }
        (10 | 13 | 16 | 19, _) => read_epoch(text, digits),
        _ => None,
    }
}

/// `2026-11-21`, `2026/1/2`, `2026.11.21`.
fn year_first(text: &[u8]) -> Option<(Date, usize)> {
    let separator = *text.get(4)?;
    matches!(separator, b'-' | b'/' | b'.').then_some(())?;
    let year = number(text, 0, 4)?;
    let (month, at) = short_number(text, 5)?;
    (text.get(at) == Some(&separator)).then_some(())?;
    let (day, at) = short_number(text, at + 1)?;
    Some((full(year, month, day)?, at))
}

/// Forms that begin with one or two digits: `21/Nov/2026`, `21-Nov-2026`, `21 Nov 2026`, `11/21/2026`, `26/11/21`,
/// `21.11.2026`, `11-21`, `11.21`.
fn read_day_first(text: &[u8], digits: usize, separator: u8) -> Option<(Moment, usize)> {
    let first = number(text, 0, digits)?;
    let at = digits + 1;
    if let Some(month) = month(text.get(at..at + 3)?) {
        let at = at + 3;
        if text.get(at) != Some(&separator) {
            return None;
        }
        if let (Some(year), false) = (number(text, at + 1, 4), digit_at(text, at + 5)) {
            return time_after(text, at + 5, full(year, month, first)?);
        }
        (separator == b' ' && first <= days_in_month(2000, month) && first > 0).then_some(())?;
        return time_after(text, at, Date::Yearless(month, first));
    }
    (separator != b' ').then_some(())?;
    let (second, at) = short_number(text, at)?;
    if text.get(at) == Some(&separator) && digit_at(text, at + 1) {
        if let (Some(year), false) = (number(text, at + 1, 4), digit_at(text, at + 5)) {
            let year = i32::try_from(year).ok()?;
            let (moment, end) = time_after(text, at + 5, Date::Either(first, second, Some(year)))?;
            let possible = days_from_civil(year, first, second).or(days_from_civil(year, second, first));
            return possible.map(|_| (moment, end));
        }
        let third = number(text, at + 1, 2)?;
        (!digit_at(text, at + 3)).then_some(())?;
        let possible = |month, day| (1..=12).contains(&month) && day > 0 && day <= days_in_month(2000, month);
        (possible(second, third) || possible(first, second) || possible(second, first)).then_some(())?;
        return time_after(text, at + 3, Date::Short(first, second, third));
    }
    // Month and day alone: `11-21 04:00:00.123`. Needs seconds, or any two numbers would do.
    (digits == 2 && text.get(at) == Some(&b' ')).then_some(())?;
    let possible = |month, day| (1..=12).contains(&month) && day > 0 && day <= days_in_month(2000, month);
    let date = match (possible(first, second), separator) {
        (true, _) => Date::Yearless(first, second),
        (false, b'.' | b'/') if possible(second, first) => Date::Yearless(second, first),
        _ => return None,
    };
    Clock::read(text, at + 1)?.with_seconds()?.finish(text, date)
}

/// `Nov 21 04:00:00`, `Nov 21 2026 04:00:00`, `Nov 21, 2026 4:00:00 AM`, each with or without the day of the week, and
/// any other form behind one.
fn read_name(text: &[u8]) -> Option<(Moment, usize)> {
    let name = text.get(..3)?;
    if let Some(month) = month(name) {
        return read_month_first(text, 0, month, false);
    }
    weekday(name).then_some(())?;
    let mut at = 3;
    at += usize::from(text.get(at) == Some(&b','));
    (text.get(at) == Some(&b' ')).then_some(())?;
    at += 1;
    if let Some(month) = text.get(at..at + 3).and_then(month) {
        return read_month_first(text, at, month, true);
    }
    let (moment, end) = read_number(text.get(at..)?)?;
    (moment.has_date() && !moment.is_epoch()).then_some((moment, at + end))
}

fn read_month_first(text: &[u8], at: usize, month: u32, weekday: bool) -> Option<(Moment, usize)> {
    let mut at = at + 3;
    let blanks = text.get(at..)?.iter().take_while(|b| **b == b' ').count();
    (1..=2).contains(&blanks).then_some(())?;
    at += blanks;
    let (day, mut at) = short_number(text, at)?;
    (day > 0 && day <= days_in_month(2000, month)).then_some(())?;
    let comma = text.get(at) == Some(&b',');
    at += usize::from(comma);
    if let (Some(b' '), Some(year), false) = (text.get(at), number(text, at + 1, 4), digit_at(text, at + 5)) {
        let mut at = at + 5;
        at += usize::from(text.get(at) == Some(&b','));
        return time_after(text, at, full(year, month, day)?);
    }
    (!comma && text.get(at) == Some(&b' ')).then_some(())?;
    let (moment, end) = Clock::read(text, at + 1)?.with_seconds()?.finish(text, Date::Yearless(month, day))?;
    // The year comes last in ctime's form: `Sat Nov 21 04:00:00 2026`.
    if let (Some(b' '), Some(year), false) = (text.get(end), number(text, end + 1, 4), digit_at(text, end + 5)) {
        let closed = matches!(text.get(end + 5), Some(b']' | b')'));
        if (weekday || closed) && (1970..2200).contains(&year) {
            return Some((Moment { date: full(year, month, day)?, ..moment }, end + 5));
        }
    }
    Some((moment, end))
}

/// `@4000000043322583` and eight digits of nanoseconds, as multilog writes it.
fn read_tai(text: &[u8]) -> Option<(Moment, usize)> {
    let digits = text.get(1..)?.iter().take(25).take_while(|b| b.is_ascii_hexdigit()).count();
    matches!(digits, 16 | 24).then_some(())?;
    let hex = |from: usize, to: usize| u64::from_str_radix(std::str::from_utf8(text.get(from..to)?).ok()?, 16).ok();
    let secs = hex(1, 17)?.checked_sub(1 << 62)?;
    let nanos = if digits == 24 { u32::try_from(hex(17, 25)?).ok()? } else { 0 };
    // TAI was ten seconds ahead of UTC in 1970; multilog's label ignores what has been added since.
    let date = Date::Epoch(i64::try_from(secs).ok()?.checked_sub(10)?);
    (nanos < 1_000_000_000).then_some((Moment { date, second: 0, nanos, offset: Some(0) }, digits + 1))
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, from 1990 to 2046: other numbers are numbers.
fn read_epoch(text: &[u8], digits: usize) -> Option<(Moment, usize)> {
    let value = text[..digits].iter().try_fold(0_i64, |n, b| n.checked_mul(10)?.checked_add(i64::from(b - b'0')))?;
    let scale = 10_i64.pow(u32::try_from(digits - 10).ok()?);
    let (secs, rest) = (value / scale, value % scale);
    (631_152_000..2_400_000_000).contains(&secs).then_some(())?;
    let mut nanos = u32::try_from(rest * (1_000_000_000 / scale)).ok()?;
    let mut at = digits;
    if digits == 10 && matches!(text.get(at), Some(b'.' | b',')) && digit_at(text, at + 1) {
        (nanos, at) = fraction(text, at + 1);
    }
    let moment = Moment { date: Date::Epoch(secs), second: 0, nanos, offset: Some(0) };
    boundary(text, at).then_some((moment, at))
}

/// The time that follows a date, behind one of the usual separators.
fn time_after(text: &[u8], at: usize, date: Date) -> Option<(Moment, usize)> {
    let (separator, rest) = text.get(at..)?.split_first()?;
    let skip = match (separator, rest) {
        (b'T' | b't' | b'_' | b'@', _) => 1,
        (b'-' | b'.', _) => {
            let clock = Clock::read(text, at + 1).or_else(|| Clock::read_dotted(text, at + 1))?;
            return clock.finish(text, date);
        }
        (b':', _) => 1,
        (b',', [b' ', ..]) => 2,
        (b' ', [b'-', b' ', ..]) => 3,
        (b' ', [b' ', ..]) => 2,
        (b' ', _) => 1,
        _ => return None,
    };
    Clock::read(text, at + skip)?.finish(text, date)
}

/// `040000` or `040000.123` at `at`.
fn compact_after(text: &[u8], at: usize, date: Date) -> Option<(Moment, usize)> {
    let (hour, minute, second) = (number(text, at, 2)?, number(text, at + 2, 2)?, number(text, at + 4, 2)?);
    let mut clock = Clock::checked(hour, minute, second, at + 6)?;
    if matches!(text.get(clock.end), Some(b'.' | b',')) && digit_at(text, clock.end + 1) {
        (clock.nanos, clock.end) = fraction(text, clock.end + 1);
    }
    clock.finish(text, date)
}

/// A time of day.
struct Clock {
    second: u32,
    nanos: u32,
    seconds_given: bool,
    end: usize,
}

impl Clock {
    fn checked(hour: u32, minute: u32, second: u32, end: usize) -> Option<Self> {
        let valid = hour < 24 && minute < 60 && second <= 60;
        valid.then_some(Self { second: hour * 3600 + minute * 60 + second, nanos: 0, seconds_given: true, end })
    }

    /// `04:00:00`, `4:00:00,123`, `4:00:00 PM`, `04:00`.
    fn read(text: &[u8], at: usize) -> Option<Self> {
        // The usual form first: two digits each.
        let (hour, minute, second, mut end) = match text.get(at..at + 8) {
            Some(&[a, b, b':', c, d, b':', e, f]) if [a, b, c, d, e, f].iter().all(u8::is_ascii_digit) => {
                let two = |a: u8, b: u8| u32::from(a - b'0') * 10 + u32::from(b - b'0');
                (two(a, b), two(c, d), two(e, f), at + 8)
            }
            _ => {
                let (hour, at) = short_number(text, at)?;
                (text.get(at) == Some(&b':')).then_some(())?;
                let (minute, at) = short_number(text, at + 1)?;
                if text.get(at) != Some(&b':') || !digit_at(text, at + 1) {
                    let clock = Self::checked(hour, minute, 0, at)?;
                    return Some(Self { seconds_given: false, ..clock });
                }
                let (second, at) = short_number(text, at + 1)?;
                (hour, minute, second, at)
            }
        };
        let mut nanos = 0;
        match text.get(end) {
            Some(b'.' | b',') if digit_at(text, end + 1) => (nanos, end) = fraction(text, end + 1),
            // Milliseconds as a number of their own: `22:15:29:606`, `23:7:6:86`.
            Some(b':') if digit_at(text, end + 1) => {
                let digits = text[end + 1..].iter().take(4).take_while(|b| b.is_ascii_digit()).count();
                if digits <= 3 {
                    nanos = number(text, end + 1, digits)? * 1_000_000;
                    end += 1 + digits;
                }
            }
            _ => {}
        }
        let mut clock = Self::checked(hour, minute, second, end)?;
        clock.nanos = nanos;
        clock.afternoon(text);
        Some(clock)
    }

    /// `15.42.50.675872`.
    fn read_dotted(text: &[u8], at: usize) -> Option<Self> {
        let dots = text.get(at + 2) == Some(&b'.') && text.get(at + 5) == Some(&b'.');
        dots.then_some(())?;
        let mut clock =
            Self::checked(number(text, at, 2)?, number(text, at + 3, 2)?, number(text, at + 6, 2)?, at + 8)?;
        if text.get(clock.end) == Some(&b'.') && digit_at(text, clock.end + 1) {
            (clock.nanos, clock.end) = fraction(text, clock.end + 1);
        }
        Some(clock)
    }

    fn with_seconds(self) -> Option<Self> {
        self.seconds_given.then_some(self)
    }

    fn afternoon(&mut self, text: &[u8]) {
        let blank = usize::from(text.get(self.end) == Some(&b' '));
        let Some(&[half, m]) = text.get(self.end + blank..self.end + blank + 2) else { return };
        if !matches!(m, b'M' | b'm') || !boundary(text, self.end + blank + 2) || self.second >= 13 * 3600 {
            return;
        }
        let hour = self.second / 3600;
        match half {
            b'P' | b'p' if hour < 12 => self.second += 12 * 3600,
            b'A' | b'a' if hour == 12 => self.second -= 12 * 3600,
            b'P' | b'p' | b'A' | b'a' => {}
            _ => return,
        }
        self.end += blank + 2;
    }

    /// The time of this day on `date`, with its zone.
    fn finish(self, text: &[u8], date: Date) -> Option<(Moment, usize)> {
        let (offset, end) = zone(text, self.end);
        let moment = Moment { date, second: self.second, nanos: self.nanos, offset };
        boundary(text, end).then_some((moment, end))
    }
}

/// The offset that follows a time, if any, and where it ends.
fn zone(text: &[u8], at: usize) -> (Option<i32>, usize) {
    match text.get(at) {
        Some(b'Z' | b'z') if boundary(text, at + 1) => return (Some(0), at + 1),
        Some(b'+' | b'-') => {
            if let Some((offset, end)) = numeric_zone(text, at, false) {
                // Java adds the region: `+01:00[Europe/Berlin]`.
                let region = text.get(end) == Some(&b'[') && text.get(end + 1).is_some_and(u8::is_ascii_alphabetic);
                let close = if region { text[end..].iter().take(40).position(|b| *b == b']') } else { None };
                return (Some(offset), close.map_or(end, |close| end + close + 1));
            }
        }
        Some(b' ') if matches!(text.get(at + 1), Some(b'+' | b'-')) => {
            if let Some((offset, end)) = numeric_zone(text, at + 1, true) {
                return (Some(offset), end);
            }
        }
        Some(b' ') => {
            if let Some((offset, end)) = named_zone(text, at + 1) {
                return (offset, end);
            }
        }
        Some(b'A'..=b'Z') => {
            if let Some((offset, end)) = named_zone(text, at) {
                return (offset, end);
            }
            let letters = text[at..].iter().take(5).take_while(|b| b.is_ascii_uppercase()).count();
            if (2..=4).contains(&letters) && boundary(text, at + letters) {
                return (None, at + letters);
            }
        }
        _ => {}
    }
    (None, at)
}

/// `+01:00`, `+0100` and, when it need not be told from a number, `+01`.
fn numeric_zone(text: &[u8], at: usize, alone: bool) -> Option<(i32, usize)> {
    let sign = if text.get(at)? == &b'-' { -1 } else { 1 };
    let hours = number(text, at + 1, 2)?;
    let (minutes, end) = match text.get(at + 3) {
        Some(b':') => (number(text, at + 4, 2)?, at + 6),
        Some(b'0'..=b'9') => (number(text, at + 3, 2)?, at + 5),
        _ if !alone => (0, at + 3),
        _ => return None,
    };
    let valid = hours <= 15 && minutes < 60 && boundary(text, end);
    valid.then_some((sign * i32::try_from(hours * 3600 + minutes * 60).ok()?, end))
}

/// Abbreviations that mean one zone wherever they are used; others are recognised and left to the stream's zone.
fn named_zone(text: &[u8], at: usize) -> Option<(Option<i32>, usize)> {
    let letters = text.get(at..)?.iter().take(6).take_while(|b| b.is_ascii_uppercase()).count();
    let end = at + letters;
    boundary(text, end).then_some(())?;
    let hours = match text.get(at..end)? {
        b"UTC" | b"GMT" | b"WET" => 0,
        b"CET" | b"WEST" => 1,
        b"CEST" | b"EET" | b"SAST" => 2,
        b"EEST" | b"MSK" => 3,
        b"JST" | b"KST" => 9,
        b"EST" => -5,
        b"EDT" => -4,
        b"CDT" => -5,
        b"MDT" | b"CST6CDT" => -6,
        b"MST" | b"PDT" => -7,
        b"PST" | b"AKDT" => -8,
        b"AKST" => -9,
        b"HST" => -10,
        b"AEST" => 10,
        b"AEDT" => 11,
        b"NZST" => 12,
        b"NZDT" => 13,
        b"CST" | b"IST" | b"BST" | b"AST" | b"WIB" | b"SGT" | b"HKT" | b"ACST" | b"AWST" => return Some((None, end)),
        _ => return None,
    };
    Some((Some(hours * 3600), end))
}

fn month(name: &[u8]) -> Option<u32> {
    let name: [u8; 3] = name.try_into().ok()?;
    Some(match &name {
        b"Jan" | b"JAN" | b"jan" => 1,
        b"Feb" | b"FEB" | b"feb" => 2,
        b"Mar" | b"MAR" | b"mar" => 3,
        b"Apr" | b"APR" | b"apr" => 4,
        b"May" | b"MAY" | b"may" => 5,
        b"Jun" | b"JUN" | b"jun" => 6,
        b"Jul" | b"JUL" | b"jul" => 7,
        b"Aug" | b"AUG" | b"aug" => 8,
        b"Sep" | b"SEP" | b"sep" => 9,
        b"Oct" | b"OCT" | b"oct" => 10,
        b"Nov" | b"NOV" | b"nov" => 11,
        b"Dec" | b"DEC" | b"dec" => 12,
        _ => return None,
    })
}

fn weekday(name: &[u8]) -> bool {
    matches!(name, b"Mon" | b"Tue" | b"Wed" | b"Thu" | b"Fri" | b"Sat" | b"Sun")
}

fn full(year: u32, month: u32, day: u32) -> Option<Date> {
    let year = i32::try_from(year).ok().filter(|year| (1900..2262).contains(year))?;
    ((1..=12).contains(&month) && day > 0 && day <= days_in_month(year, month)).then_some(Date::Full(year, month, day))
}

/// The number that the `len` digits at `at` make.
fn number(text: &[u8], at: usize, len: usize) -> Option<u32> {
    text.get(at..at + len)?.iter().try_fold(0, |n: u32, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
}

/// A number of one or two digits at `at`, and where it ends.
fn short_number(text: &[u8], at: usize) -> Option<(u32, usize)> {
    let len = 1 + usize::from(digit_at(text, at + 1));
    Some((number(text, at, len)?, at + len))
}

/// The nanoseconds that the digits at `at` make behind a point, and where they end.
fn fraction(text: &[u8], at: usize) -> (u32, usize) {
    let (mut nanos, mut scale, mut end) = (0, 100_000_000, at);
    while digit_at(text, end) {
        nanos += u32::from(text[end] - b'0') * scale;
        scale /= 10;
        end += 1;
    }
    (nanos, end)
}

fn digit_at(text: &[u8], at: usize) -> bool {
    text.get(at).is_some_and(u8::is_ascii_digit)
}

/// Whether no word goes on at `at`.
fn boundary(text: &[u8], at: usize) -> bool {
    !text.get(at).is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T04:00:00Z.
    const NOW: i64 = 1_795_233_600;

    fn at(now: i64, text: &str) -> Option<String> {
        let (moment, end) = read(text.as_bytes())?;
        let time = moment.resolve(Timestamp::from_secs(now), &Zone::UTC)?;
        Some(format!("{time} {}", &text[end..]))
    }

    #[test]
    fn every_usual_form_is_read() {
        for (text, expected) in [
            ("2026-11-21T04:00:00.123456+01:00 web", "2026-11-21T03:00:00.123456Z  web"),
            ("2026-11-21T04:00:00+0100 web", "2026-11-21T03:00:00Z  web"),
            ("2026-11-21T04:00:00Z x", "2026-11-21T04:00:00Z  x"),
            ("2026-11-21 04:00:00,123 x", "2026-11-21T04:00:00.123Z  x"),
            ("2026-11-21 04:00:00, Info", "2026-11-21T04:00:00Z , Info"),
            ("2026-11-21 04:00:00.123 -05:00 [x]", "2026-11-21T09:00:00.123Z  [x]"),
            ("2026-11-21 04:00:00.123 UTC [1]", "2026-11-21T04:00:00.123Z  [1]"),
            ("2026-11-21 04:00:00.123 PDT [1]", "2026-11-21T11:00:00.123Z  [1]"),
            ("2026-11-21T04:00:00.123FOO x", "2026-11-21T04:00:00.123Z  x"),
            ("2026-11-21T04:00:00+01:00[Europe/Berlin] x", "2026-11-21T03:00:00Z  x"),
            ("2026-11-9  5:13:12 8", "2026-11-09T05:13:12Z  8"),
            ("2026/11/21 - 04:00:00 | x", "2026-11-21T04:00:00Z  | x"),
            ("2026.11.21 04:00:00.5 [ 1 ]", "2026-11-21T04:00:00.5Z  [ 1 ]"),
            ("2005-06-03-15.42.50.675872 R02", "2005-06-03T15:42:50.675872Z  R02"),
            ("20171223-22:15:29:606|x", "2017-12-23T22:15:29.606Z |x"),
            ("20171223-23:7:6:86|x", "2017-12-23T23:07:06.086Z |x"),
            ("20261121 040000 x", "2026-11-21T04:00:00Z  x"),
            ("20261121040000.25 x", "2026-11-21T04:00:00.25Z  x"),
            ("081109 203615 148", "2008-11-09T20:36:15Z  148"),
            ("261121  4:00:00 [Note]", "2026-11-21T04:00:00Z  [Note]"),
            ("17/06/09 20:10:40 INFO", "2017-06-09T20:10:40Z  INFO"),
            ("01/25/22 16:08:02.393003 x", "2022-01-25T16:08:02.393003Z  x"),
            ("08/02/2023, 7:32:47 PM    WARN", "2023-08-02T19:32:47Z     WARN"),
            ("25/12/2023 12:00:00 AM x", "2023-12-25T00:00:00Z  x"),
            ("21.11.2026 04:00:00 x", "2026-11-21T04:00:00Z  x"),
            ("21/Nov/2026:04:00:00 +0100] x", "2026-11-21T03:00:00Z ] x"),
            ("25/Feb/2019:16:19:48.143] x", "2019-02-25T16:19:48.143Z ] x"),
            ("21-Nov-2026 04:00:00.123 x", "2026-11-21T04:00:00.123Z  x"),
            ("21-Nov-2026 04:00:00 Europe/Berlin] x", "2026-11-21T04:00:00Z  Europe/Berlin] x"),
            ("21 Nov 2026 04:00:00.123 * x", "2026-11-21T04:00:00.123Z  * x"),
            ("21 Nov 04:00:00.123 * x", "2026-11-21T04:00:00.123Z  * x"),
            ("Nov 21 04:00:00 web", "2026-11-21T04:00:00Z  web"),
            ("Nov  1 04:00:00.123456 web", "2026-11-01T04:00:00.123456Z  web"),
            ("Nov 21 2025 04:00:00: %A", "2025-11-21T04:00:00Z : %A"),
            ("Nov 21, 2025 4:00:00 PM com", "2025-11-21T16:00:00Z  com"),
            ("Sat Nov 21 04:00:00.123456 2026] x", "2026-11-21T04:00:00.123456Z ] x"),
            ("Wed May 19 12:00:02 UTC 2021 line", "2021-05-19T12:00:02Z  line"),
            ("Sat 2026-11-21 04:00:00 CET web", "2026-11-21T03:00:00Z  web"),
            ("Sat, 21 Nov 2026 04:00:00 +0000 x", "2026-11-21T04:00:00Z  x"),
            ("11-21 03:59:38.811  1702", "2026-11-21T03:59:38.811Z   1702"),
            ("10.30 16:49:06] x", "2026-10-30T16:49:06Z ] x"),
            ("03:59:33.814936 x", "2026-11-21T03:59:33.814936Z  x"),
            ("1795233600 x", "2026-11-21T04:00:00Z  x"),
            ("1795233600.5 x", "2026-11-21T04:00:00.5Z  x"),
            ("1795233600123 x", "2026-11-21T04:00:00.123Z  x"),
            ("1795233600123456 x", "2026-11-21T04:00:00.123456Z  x"),
            ("1795233600123456789 x", "2026-11-21T04:00:00.123456789Z  x"),
            ("@40000000433225833b6e1a8c tcp", "2005-09-22T03:31:05.9970715Z  tcp"),
        ] {
            assert_eq!(at(NOW, text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for text in [
            "",
            "2026",
            "2026-02-30 04:00:00 x",
            "2026-13-01 04:00:00",
            "2026-11-21 24:00:00",
            "2026-11-21",
            "Nov 31 04:00:00",
            "Nov 21",
            "Monday 4",
            "12.5 x",
            "10.0.0.1 x",
            "1:2",
            "1.2.3.4:80 x",
            "99999999999 x",
            "12345678 x",
            "0000-00-00 00:00:00",
            "March 4",
            "Max 1 04:00:00",
            "4:5",
            "12/34",
            "2026-11-21T04:00:00.5x",
            "@400",
            "1/2/3",
            "99:99:99",
        ] {
            assert!(
                read(text.as_bytes()).is_none_or(|(moment, _)| !moment.has_date() && text.starts_with(['1', '4'])),
                "{text}"
            );
        }
    }

    #[test]
    fn the_year_comes_from_the_reference() {
        let new_year = 1_798_761_600; // 2027-01-01T00:00:00Z
        let year = |now, text| at(now, text).map(|t| t[..10].to_owned());
        assert_eq!(year(new_year + 5, "Dec 31 23:59:58 x").as_deref(), Some("2026-12-31"));
        assert_eq!(year(new_year - 5, "Jan  1 00:00:03 x").as_deref(), Some("2027-01-01"), "a clock ahead");
        assert_eq!(year(new_year - 3 * DAY, "Jan  1 00:00:03 x").as_deref(), Some("2026-01-01"));
        assert_eq!(year(NOW, "Feb 29 12:00:00 x").as_deref(), Some("2024-02-29"));
        assert_eq!(year(NOW, "01/02/26 12:00:00 x").as_deref(), Some("2026-02-01"), "the latest that can be");
        assert_eq!(year(NOW, "23:00:00 x").as_deref(), Some("2026-11-20"), "a time of yesterday");
        assert_eq!(year(NOW, "04:30:00 x").as_deref(), Some("2026-11-21"));
    }

    #[test]
    fn a_leap_second_is_the_next_second() {
        assert_eq!(at(NOW, "2016-12-31T23:59:60Z").as_deref(), Some("2017-01-01T00:00:00Z "));
        assert_eq!(at(NOW, "2016-12-31T23:59:61Z"), None);
    }

    #[test]
    fn the_stream_lends_its_zone() {
        let (moment, _) = read(b"2026-11-21 04:00:00").unwrap();
        let time = moment.resolve(Timestamp::from_secs(NOW), &Zone::Fixed(3600)).unwrap();
        assert_eq!(time.to_string(), "2026-11-21T03:00:00Z");
    }

    #[test]
    fn days_agree_with_a_calendar() {
        for days in (-100_000..100_000).step_by(37) {
            let date = jiff::Timestamp::from_second(days * DAY).unwrap().to_zoned(jiff::tz::TimeZone::UTC).date();
            let (year, month, day) = (i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs());
            assert_eq!(days_from_civil(year, u32::from(month), u32::from(day)), Some(days));
            assert_eq!(year_of(days), year);
        }
    }
}
