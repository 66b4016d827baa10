//! Our own words: severities, numbers, times, names. Inert on every platform, whatever the log said.

use std::time::Duration;

use logwarden_core::{
    Severity, Timestamp,
    detectors::{Category, EntityKind},
    incident::IncidentId,
    message::{Body, IncidentView, Message, Occasion, Rollup, SummaryView},
};

use crate::clean::{CUT, Clean, count};

/// Text made of our own vocabulary, numbers, times, and names reduced to letters, digits and `._-`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words(String);

impl Words {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// A host or service as a word of ours: what could be markup, a mention or a link anywhere becomes `_`.
pub(crate) fn name(raw: &str) -> Words {
    const LONGEST: usize = 40;
    let clean = Clean::line(raw);
    let chars: Vec<char> = clean.as_str().chars().collect();
    let is_address = chars.iter().any(|c| matches!(c, '.' | ':'));
    let mut name = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let before = i > 0 && chars[i - 1].is_ascii_alphanumeric();
        let next = chars.get(i + 1).is_some_and(char::is_ascii_alphanumeric);
        let kept = match c {
            '.' | '-' | '_' => before && next,
            // `postfix/cleanup`; with a dot it would be read as a link.
            '/' => before && next && !is_address,
            ':' => before && chars.get(i + 1).is_some_and(char::is_ascii_digit),
            c => c.is_alphanumeric(),
        };
        let shown = match (kept, c) {
            (true, c) => c,
            // An underline within a word is no markup anywhere; at its ends it is.
            (false, _) if before && next => '_',
            (false, _) => '-',
        };
        if count(&name) + shown.len_utf16() > LONGEST - 1 {
            name.push(CUT);
            break;
        }
        if !(shown == '-' && (name.is_empty() || name.ends_with('-'))) {
            name.push(shown);
        }
    }
    Words(name.trim_end_matches('-').to_owned())
}

/// `1,204`.
pub(crate) fn number(n: u64) -> Words {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    Words(text)
}

/// `1 event`, `1,204 events`.
pub(crate) fn amount(n: u64, one: &'static str, many: &'static str) -> Words {
    Words(format!("{} {}", number(n).0, if n == 1 { one } else { many }))
}

/// `40 s`, `5 min`, `2 h 10 min`, `3 d 4 h`.
pub(crate) fn span(time: Duration) -> Words {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let two = |a: u64, unit: &str, b: u64, part: &str| match b {
        0 => format!("{a} {unit}"),
        b => format!("{a} {unit} {b} {part}"),
    };
    Words(match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => two(hours, "h", minutes, "min"),
        (days, hours, _) => two(days, "d", hours, "h"),
    })
}

/// `2026-11-21 03:12:40 UTC`, or `03:12:40 UTC` on the same day as `now`.
pub(crate) fn clock(time: Timestamp, now: Timestamp) -> Words {
    let text = Timestamp::from_secs(time.secs()).to_string();
    let Some((day, clock)) = text.trim_end_matches('Z').split_once('T') else { return Words(text) };
    let today = time.secs().div_euclid(86_400) == now.secs().div_euclid(86_400);
    Words(if today { format!("{clock} UTC") } else { format!("{day} {clock} UTC") })
}

/// `03:12:40` of a line of evidence.
pub(crate) fn time_of_day(time: Timestamp) -> Words {
    let text = Timestamp::from_secs(time.secs()).to_string();
    Words(text.trim_end_matches('Z').split_once('T').map_or(text.clone(), |(_, clock)| clock.to_owned()))
}

/// RFC 3339 in UTC, for machines.
pub(crate) fn iso(time: Timestamp) -> String {
    // Years before 1 and after 9999 cannot occur in 64 bits of nanoseconds.
    Timestamp::from_nanos(time.nanos() - time.nanos() % 1_000_000).to_string()
}

/// Discord's own notation: the reader's time zone, and how long ago.
pub(crate) fn discord_time(time: Timestamp, style: char) -> Words {
    Words(format!("<t:{}:{style}>", time.secs()))
}

/// `CRITICAL`.
pub(crate) fn shout(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "LOW",
        Severity::Medium => "MEDIUM",
        Severity::High => "HIGH",
        Severity::Critical => "CRITICAL",
    }
}

/// What colour says, for those whose device shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Severity(Severity),
    /// It is over, or quiet and was not grave, or nothing is wrong.
    Calm,
    /// It is part of something else now.
    Gone,
}

impl Tone {
    pub(crate) fn of(message: &Message) -> Self {
        match (&message.body, message.severity()) {
            (_, None) => Self::Calm,
            (Body::Incidents { occasion, incidents, .. }, Some(severity))
                if is_unsolved(*occasion, severity, incidents) =>
            {
                Self::Severity(severity)
            }
            (Body::Incidents { occasion: Occasion::Quiet, .. }, _) => Self::Calm,
            (Body::Incidents { occasion: Occasion::Merged, .. }, _) => Self::Gone,
            (_, Some(severity)) => Self::Severity(severity),
        }
    }

    pub(crate) fn emoji(self) -> &'static str {
        match self {
            Self::Severity(Severity::Critical) => "🔴",
            Self::Severity(Severity::High) => "🟠",
            Self::Severity(Severity::Medium) => "🟡",
            Self::Severity(Severity::Low) => "🔵",
            Self::Calm => "🟢",
            Self::Gone => "⚪",
        }
    }

    pub(crate) fn color(self) -> u32 {
        match self {
            Self::Severity(Severity::Critical) => 0xE7_4C3C,
            Self::Severity(Severity::High) => 0xE6_7E22,
            Self::Severity(Severity::Medium) => 0xF1_C40F,
            Self::Severity(Severity::Low) => 0x34_98DB,
            Self::Calm => 0x2E_CC71,
            Self::Gone => 0x95_A5A6,
        }
    }
}

/// What stands before everything: `CRITICAL`, `HIGH (worse now)`, `HIGH (quiet now)`, `QUIET (was low)`, `OVER (was high)`.
fn standing(occasion: Occasion, severity: Severity, is_over: bool) -> Words {
    let word = shout(severity);
    Words(match occasion {
        Occasion::Quiet if is_over => format!("OVER (was {})", word.to_lowercase()),
        Occasion::Fired | Occasion::Grew | Occasion::Escalated | Occasion::Reminded if is_over => {
            format!("{word} (over now)")
        }
        Occasion::Fired | Occasion::Grew => word.to_owned(),
        Occasion::Escalated => format!("{word} (worse now)"),
        Occasion::Reminded => format!("{word} (still going on)"),
        Occasion::Explained => format!("{word} (explained)"),
        Occasion::Quiet if severity >= Severity::High => format!("{word} (quiet now)"),
        Occasion::Quiet => format!("QUIET (was {})", word.to_lowercase()),
        Occasion::Merged => format!("MERGED (was {})", word.to_lowercase()),
    })
}

/// `CRITICAL sshd on web-1`.
pub(crate) fn subject(occasion: Occasion, severity: Severity, incidents: &[IncidentView]) -> Words {
    Words(format!("{} {}", standing(occasion, severity, are_over(incidents)).0, place(incidents).0))
}

/// `HIGH`.
pub(crate) fn word(severity: Severity) -> Words {
    Words(shout(severity).into())
}

/// Whether all of it is known to be over.
fn are_over(incidents: &[IncidentView]) -> bool {
    incidents.iter().all(|incident| incident.over.is_some())
}

/// Whether something grave has only become quiet: whoever got in, or was killed, is not well again for that, and whoever
/// looks later must see it as it was.
pub(crate) fn is_unsolved(occasion: Occasion, severity: Severity, incidents: &[IncidentView]) -> bool {
    occasion == Occasion::Quiet && severity >= Severity::High && !are_over(incidents)
}

/// Whether there is something to do about it here and now.
pub(crate) fn needs_advice(occasion: Occasion, incidents: &[IncidentView]) -> bool {
    match occasion {
        Occasion::Merged => false,
        Occasion::Quiet => !are_over(incidents),
        _ => true,
    }
}

/// What stands behind the time of the last event, where it matters that quiet is not solved.
pub(crate) fn unsolved(occasion: Occasion, incidents: &[IncidentView]) -> &'static str {
    let severity = incidents.iter().map(|incident| incident.severity).max();
    match severity.is_some_and(|severity| is_unsolved(occasion, severity, incidents)) {
        true => ", and nobody has said that it is solved",
        false => "",
    }
}

/// A sentence of ours that may hold names of units and hosts: each of its words as [`name`] shows it.
fn sentence(text: &str) -> Words {
    const LONGEST: usize = 150;
    let mut sentence = String::new();
    for word in text.split_whitespace() {
        let comma = if word.ends_with(',') { "," } else { "" };
        let word = match name(word).0 {
            word if word.is_empty() => word,
            word => word + comma,
        };
        if count(&sentence) + count(&word) + 2 > LONGEST {
            sentence.push(CUT);
            break;
        }
        if !sentence.is_empty() && !word.is_empty() {
            sentence.push(' ');
        }
        sentence.push_str(&word);
    }
    Words(sentence)
}

/// `sshd on web-1`, `sshd and 2 more on web-1`, `sshd on 3 hosts`.
pub(crate) fn place(incidents: &[IncidentView]) -> Words {
    let service = incidents.first().map(|first| name(first.service.raw()).0 + &other_services(first).0);
    let service = service.unwrap_or_default();
    let host = match incidents {
        [] => String::new(),
        [one] => name(one.host.raw()).0,
        several => amount(several.len() as u64, "host", "hosts").0,
    };
    Words(match (service.is_empty(), host.is_empty()) {
        (false, false) => format!("{service} on {host}"),
        (false, true) => service,
        (true, false) => host,
        (true, true) => "unknown host".into(),
    })
}

/// ` and 2 more`, behind a service that is not the only one.
pub(crate) fn other_services(view: &IncidentView) -> Words {
    Words(match view.other_services {
        _ if view.service.raw().is_empty() => String::new(),
        0 => String::new(),
        others => format!(" and {} more", number(others.into()).0),
    })
}

/// The most that happened to the incidents altogether.
pub(crate) fn total(incidents: &[IncidentView]) -> u64 {
    incidents.iter().fold(0, |sum, incident| sum.saturating_add(incident.count))
}

/// The whole message in one line of ours: `CRITICAL sshd on web-1: brute force, 412 events`.
pub(crate) fn headline(message: &Message) -> Words {
    Words(match &message.body {
        Body::Incidents { occasion, incidents, .. } => {
            let Some(first) = incidents.first() else { return Words("logwarden: nothing to tell".into()) };
            let subject = subject(*occasion, message.severity().unwrap_or(first.severity), incidents).0;
            match &first.over {
                Some(over) if *occasion == Occasion::Quiet => format!("{subject}: {}", sentence(over.how.raw()).0),
                _ => {
                    format!("{subject}: {}, {}", first.category.label(), amount(total(incidents), "event", "events").0)
                }
            }
        }
        Body::Rollup(rollup) => rolled_up(rollup, message.severity()).0,
        Body::Notice(notice) => format!("{} {}", shout(notice.severity), sentence(&notice.title).0),
        Body::Summary(summary) => summed_up(summary).0,
    })
}

/// `CRITICAL, STORM: 47 incidents in 5 min: 3 critical, 12 high`.
fn rolled_up(rollup: &Rollup, severity: Option<Severity>) -> Words {
    let all = rollup.counts.iter().fold(0_u64, |sum, (_, n)| sum.saturating_add(*n));
    Words(format!(
        "{}{} in {}: {}",
        severity.map(|severity| format!("{} storm: ", shout(severity))).unwrap_or_default(),
        amount(all, "incident", "incidents").0,
        span(rollup.to.since(rollup.from)).0,
        counts(rollup).0
    ))
}

/// `3 critical, 12 high`.
fn counts(rollup: &Rollup) -> Words {
    let each = rollup.counts.iter().filter(|(_, n)| *n > 0).take(4);
    Words(each.map(|(severity, n)| format!("{} {severity}", number(*n).0)).collect::<Vec<_>>().join(", "))
}

/// `Summary of 24 h: 1,204,331 lines, nothing wrong`.
fn summed_up(summary: &SummaryView) -> Words {
    let verdict = match summary.severity {
        None => "nothing wrong".into(),
        Some(severity) => format!("at worst {severity}"),
    };
    Words(format!(
        "{} of {}: {}, {verdict}",
        summary.severity.map_or("Summary".into(), |severity| format!("{} summary", shout(severity))),
        span(summary.to.since(summary.from)).0,
        amount(summary.lines, "line", "lines").0
    ))
}

/// `incident 1a2b3c4d`, `incidents 1a2b3c4d, 5e6f7a8b +3 more`.
pub(crate) fn ids(incidents: &[IncidentView]) -> Words {
    let shown: Vec<String> = incidents.iter().take(5).map(|incident| incident.id.short()).collect();
    let more = incidents.len().saturating_sub(shown.len());
    Words(match (incidents.len(), more) {
        (1, _) => format!("incident {}", shown[0]),
        (_, 0) => format!("incidents {}", shown.join(", ")),
        _ => format!("incidents {} +{more} more", shown.join(", ")),
    })
}

/// `1a2b3c4d`.
pub(crate) fn id(incident: IncidentId) -> Words {
    Words(incident.short())
}

/// `brute force`.
pub(crate) fn kind(category: Category) -> Words {
    Words(category.label().into())
}

/// `logwarden 0.1.0`.
pub(crate) fn program() -> Words {
    Words(concat!("logwarden ", env!("CARGO_PKG_VERSION")).into())
}

/// The command that lists incidents, of the program that sends: `` `logwarden-receiver incidents` ``.
pub(crate) fn list(program: &str) -> Words {
    Words(format!("`{program} incidents`"))
}

/// What several entities of a kind are called.
pub(crate) fn entities(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Ip => "Addresses",
        EntityKind::User => "Users",
        EntityKind::Unit => "Units",
        EntityKind::Host => "Hosts",
        EntityKind::Device => "Devices",
        EntityKind::Other => "Involved",
    }
}

/// ` (398 times)`, ` (14 times, internal)`.
pub(crate) fn times(n: u64, internal: bool) -> Words {
    let internal = if internal { ", internal" } else { "" };
    Words(format!(" ({}{internal})", amount(n, "time", "times").0))
}

/// ` and 7 more`, or nothing.
pub(crate) fn more(n: u64) -> Words {
    Words(if n == 0 { String::new() } else { format!(" and {} more", number(n).0) })
}

/// Whether an address is of the inside: private, loopback, link-local or unique local.
pub(crate) fn is_internal(address: &str) -> bool {
    match address.parse() {
        Ok(std::net::IpAddr::V4(v4)) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        Ok(std::net::IpAddr::V6(v6)) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
        Err(_) => false,
    }
}

/// When it happened and whether it goes on, in sentences without markup.
pub(crate) fn course(occasion: Occasion, incidents: &[IncidentView], now: Timestamp) -> Words {
    let (Some(first), Some(last)) = (incidents.iter().map(|i| i.first).min(), incidents.iter().map(|i| i.last).max())
    else {
        return Words::default();
    };
    let events = amount(total(incidents), "event", "events").0;
    let over = match last.since(first) {
        short if short < Duration::from_secs(2) => String::new(),
        long => format!(" in {}", span(long).0),
    };
    let going_on = goes_on(occasion, incidents, now);
    let ended = incidents.iter().filter_map(|incident| incident.over.as_ref()).map(|over| over.at).max();
    Words(match (occasion, ended) {
        (Occasion::Quiet, Some(ended)) => {
            let lasted = span(ended.since(first)).0;
            format!("It lasted {lasted}, from {} until {}.", clock(first, now).0, clock(ended, now).0)
        }
        (Occasion::Quiet, None) => {
            let (unsolved, last, first) = (unsolved(occasion, incidents), clock(last, now).0, clock(first, now).0);
            format!("No new events since {last}{unsolved}. {events}{over}, the first at {first}.")
        }
        _ if over.is_empty() => format!("{events} at {}{going_on}.", clock(last, now).0),
        _ => format!("{events}{over}: first {}, last {}{going_on}.", clock(first, now).0, clock(last, now).0),
    })
}

/// `, still going on` or how long it has been over, as far as the lines tell.
pub(crate) fn goes_on(occasion: Occasion, incidents: &[IncidentView], now: Timestamp) -> &'static str {
    const FRESH: Duration = Duration::from_secs(600);
    let last = incidents.iter().map(|incident| incident.last).max();
    match occasion {
        Occasion::Quiet | Occasion::Merged => "",
        _ if !are_over(incidents) && last.is_some_and(|last| now.since(last) <= FRESH) => ", still going on",
        _ => "",
    }
}

/// Warnings about the message itself, one sentence each.
pub(crate) fn remarks(message: &Message, occasion: Occasion, incidents: &[IncidentView]) -> Vec<Words> {
    let mut remarks = Vec::new();
    for over in incidents.iter().filter_map(|incident| incident.over.as_ref()).filter(|_| occasion != Occasion::Quiet) {
        let how = sentence(over.how.raw()).0;
        remarks.push(Words(format!("It is over: {how}, since {}.", clock(over.at, message.at).0)));
    }
    if let Some(late) = incidents.iter().filter_map(|incident| incident.late_by_seconds).max() {
        let late = span(Duration::from_secs(late)).0;
        remarks.push(Words(format!("Catching up: these lines were {late} old when they were read.")));
    }
    if let Some(before) = incidents.iter().filter_map(|incident| incident.seen_before).max() {
        remarks.push(Words(format!("The same thing was last seen at {}.", clock(before, message.at).0)));
    }
    if let Some(into) = incidents.iter().find_map(|incident| incident.merged_into) {
        remarks.push(Words(format!("It is part of incident {} now.", into.short())));
    }
    if message.possible_repeat {
        remarks.push(Words("You may have got this message already: the answer to the first attempt was lost.".into()));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_nothing_that_means_something_anywhere() {
        let shown = |raw: &str| name(raw).into_string();
        assert_eq!(shown("web-1.example.com"), "web-1.example.com");
        assert_eq!(shown("redis:6379"), "redis:6379");
        assert_eq!(shown("getty@tty1.service"), "getty_tty1.service");
        assert_eq!(shown("my_app"), "my_app");
        assert_eq!(shown("postfix/cleanup"), "postfix/cleanup");
        assert_eq!(shown("evil.example/cleanup"), "evil.example_cleanup");
        assert_eq!(shown("/etc//x/"), "etc-x");
        assert_eq!(
            shown("__x__ @everyone <!channel> https://evil.example/x"),
            "x-everyone-channel-https-evil.example_x"
        );
        assert_eq!(shown("\u{202e}"), "U_202E");
        assert_eq!(shown(" \n "), "");
        assert_eq!(shown(&"ü".repeat(500)).chars().count(), 40);
    }

    #[test]
    fn numbers_spans_and_times_read_well() {
        assert_eq!(number(0).0, "0");
        assert_eq!(number(1_234_567).0, "1,234,567");
        assert_eq!(amount(1, "event", "events").0, "1 event");
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (300, "5 min"), (7_800, "2 h 10 min"), (7_200, "2 h"), (273_700, "3 d 4 h")]
        {
            assert_eq!(span(Duration::from_secs(seconds)).0, text);
        }
        let now = Timestamp::from_secs(1_795_233_600);
        assert_eq!(clock(now.minus(Duration::from_secs(65)), now).0, "03:58:55 UTC");
        assert_eq!(clock(now.minus(Duration::from_secs(86_400)), now).0, "2026-11-20 04:00:00 UTC");
        clock(Timestamp::MIN, Timestamp::MAX);
        clock(Timestamp::MAX, Timestamp::MIN);
    }
}
