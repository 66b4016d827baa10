//! Headers of syslog and the journal: RFC 5424, RFC 3164 and what rsyslog, systemd and macOS make of it.

use crate::{
    clock::{self, Moment},
    level,
    steps::{closing, digits_end, is_address, is_number, skip_blanks, word_end},
};

/// The number in `<…>` at the front, and where the bracket ends.
pub(super) fn priority(text: &[u8]) -> Option<(u32, usize)> {
    let end = digits_end(text, 1);
    let digits = text.get(1..end)?;
    ((1..=3).contains(&digits.len()) && text.get(end) == Some(&b'>')).then_some(())?;
    let number = digits.iter().fold(0, |n, b| n * 10 + u32::from(b - b'0'));
    (number <= 191).then_some((number, end + 1))
}

/// The header of RFC 5424.
#[derive(Debug)]
pub(super) struct Rfc5424<'a> {
    pub moment: Option<Moment>,
    pub host: Option<&'a [u8]>,
    pub program: Option<&'a [u8]>,
    pub pid: Option<&'a [u8]>,
    /// The structured data with its brackets, or `-`.
    pub data: &'a [u8],
    pub data_at: usize,
    /// Where the message begins.
    pub at: usize,
}

/// `1 2026-11-21T04:00:00Z host program pid msgid - message`, from the version on.
pub(super) fn rfc5424(text: &[u8]) -> Option<Rfc5424<'_>> {
    text.starts_with(b"1 ").then_some(())?;
    let (moment, at) = match clock::read(text.get(2..)?) {
        Some((moment, end)) if moment.has_year() && !moment.is_epoch() => (Some(moment), 2 + end),
        _ if text[2..].starts_with(b"- ") => (None, 3),
        _ => return None,
    };
    let mut at = at;
    let mut next = || {
        (text.get(at) == Some(&b' ')).then_some(())?;
        let end = word_end(text, at + 1);
        let field = &text[at + 1..end];
        at = end;
        (!field.is_empty()).then_some(field)
    };
    let (host, program, pid, _) = (next()?, next()?, next()?, next()?);
    let data_at = at + 1;
    (text.get(at) == Some(&b' ')).then_some(())?;
    let end = structured_data(text, data_at)?;
    let given = |field: &'static [u8]| move |value: &&[u8]| *value != field;
    Some(Rfc5424 {
        moment,
        host: Some(host).filter(given(b"-")),
        program: Some(program).filter(given(b"-")),
        pid: Some(pid).filter(given(b"-")),
        data: &text[data_at..end],
        data_at,
        at: skip_one_blank(text, end),
    })
}

/// Where the structured data at `at` ends: `-`, or elements in brackets with quoted, escaped values.
fn structured_data(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) == Some(&b'-') && matches!(text.get(at + 1), None | Some(b' ')) {
        return Some(at + 1);
    }
    let mut end = at;
    while text.get(end) == Some(&b'[') {
        let (mut quoted, mut escaped, mut close) = (false, false, None);
        for (offset, byte) in text[end..].iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b']' if !quoted => {
                    close = Some(end + offset + 1);
                    break;
                }
                _ => {}
            }
        }
        end = close?;
    }
    (end > at).then_some(end)
}

/// How sure it is that host and program follow the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// Only if they cannot be mistaken: `host program[pid]:`.
    Strict,
    /// The time is in the form that rsyslog and journalctl use.
    Likely,
    /// The time is in syslog's own form, or a priority came before it.
    Sure,
}

/// How sure the form of the time makes it.
pub(super) fn trust(text: &[u8], moment: &Moment, end: usize) -> Trust {
    // `Nov 21, 2026` is how Java writes it.
    let letters = text.first().is_some_and(u8::is_ascii_alphabetic) && !text[..end.min(8)].contains(&b',');
    if letters && (!moment.has_year() || text.get(4).is_some_and(u8::is_ascii_digit)) {
        return Trust::Sure;
    }
    let with_offset = matches!(text.get(19), Some(b'+' | b'-')) && matches!(end, 24 | 25);
    if text.get(10) == Some(&b'T') && moment.has_zone() && (matches!(end, 27 | 32) || with_offset) {
        return Trust::Likely;
    }
    Trust::Strict
}

/// What follows the time.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tail<'a> {
    pub host: Option<&'a [u8]>,
    pub program: Option<&'a [u8]>,
    pub pid: Option<&'a [u8]>,
    /// Where the message begins.
    pub at: usize,
}

/// Host and program behind the time that ends at `end`. `known` is the host that the stream is likely from.
pub(super) fn tail<'a>(text: &'a [u8], end: usize, trust: Trust, known: Option<&str>) -> Option<Tail<'a>> {
    // Cisco ends the time with a colon.
    let end = end + usize::from(trust == Trust::Sure && text.get(end) == Some(&b':'));
    (text.get(end) == Some(&b' ')).then_some(())?;
    let at = skip_blanks(text, end);
    let first_end = word_end(text, at);
    let first = &text[at..first_end];
    if first.is_empty() {
        return None;
    }
    if trust == Trust::Sure {
        if let Some((name, pid, next)) = program(text, at).filter(|(name, ..)| level::word(name).is_none()) {
            return Some(Tail { host: None, program: Some(name), pid, at: next });
        }
        if first.starts_with(b"%") {
            return Some(Tail { at, ..Tail::default() });
        }
    }
    if !is_host(first) || level::word(first).is_some() {
        return None;
    }
    let second = skip_blanks(text, first_end);
    let host = Some(first);
    if let Some((name, pid, next)) = program(text, second) {
        let unmistakable = pid.is_some() && level::word(name).is_none() && first_end - at > 1;
        let likely =
            trust == Trust::Likely && (named_like_a_host(first) || name == b"kernel" || !ends_a_sentence(name));
        if unmistakable || trust == Trust::Sure || likely {
            return Some(Tail { host, program: Some(name), pid, at: next });
        }
    }
    if trust == Trust::Sure
        && let Some((name, pid, next)) = program_of_words(text, second)
    {
        return Some(Tail { host, program: Some(name), pid, at: next });
    }
    let known = known.is_some_and(|known| known.as_bytes() == first);
    let host_alone = trust >= Trust::Likely && (known || is_address(first))
        || trust == Trust::Sure
            && (named_like_a_host(first)
                || text[second..].starts_with(b"%")
                || text[second..].starts_with(b"last message repeated"));
    host_alone.then_some(Tail { host, at: second, ..Tail::default() })
}

/// A program's name, its pid, and where the message begins.
type Program<'a> = (&'a [u8], Option<&'a [u8]>, usize);

/// `name[pid]:` or `name:` at `at`: name, pid and where the message begins.
pub(super) fn program(text: &[u8], at: usize) -> Option<Program<'_>> {
    let mut end = at;
    loop {
        match text.get(end)? {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'/' | b'@' | b'+' | b'#' | b'$' | b'*' => {}
            b'(' => end = closing(text, end, 64).filter(|close| !text[end..*close].contains(&b' '))?,
            b':' if matches!(text.get(end + 1), None | Some(b' ')) => {
                let letters = text[at..end].iter().any(u8::is_ascii_alphabetic);
                return (letters && end - at <= 80).then(|| (&text[at..end], None, skip_one_blank(text, end + 1)));
            }
            b':' => {}
            b'[' if end > at => {
                let close = closing(text, end, 32)?;
                let pid = &text[end + 1..close];
                let valid = pid.first().is_some_and(u8::is_ascii_digit) && !pid.contains(&b' ');
                let mut next = close + 1;
                // launchd adds what it speaks of: `launchd[1] (com.apple.x): `.
                if text[next..].starts_with(b" (") {
                    next = closing(text, next + 1, 160)? + 1;
                }
                let colon = text.get(next) == Some(&b':');
                return (valid && colon).then(|| (&text[at..end], Some(pid), skip_one_blank(text, next + 1)));
            }
            _ => return None,
        }
        end += 1;
        if end - at > 128 {
            return None;
        }
    }
}

/// A program whose name has blanks: `Google Chrome[123]:`, `-- root[1]:`, `syslogd 1.4.1:`.
fn program_of_words(text: &[u8], at: usize) -> Option<Program<'_>> {
    let second = skip_blanks(text, word_end(text, at));
    let mut from = second;
    for _ in 0..2 {
        let (_, pid, next) = match program(text, from) {
            Some(found) => found,
            None => {
                let end = word_end(text, from);
                let version = text[from..end]
                    .strip_suffix(b":")
                    .is_some_and(|v| v.iter().all(|b| b.is_ascii_digit() || *b == b'.') && v.contains(&b'.'));
                if version && from == second {
                    let name = &text[at..end - 1];
                    return Some((name, None, skip_one_blank(text, end)));
                }
                from = skip_blanks(text, end);
                continue;
            }
        };
        let pid = pid?;
        let bracket = text[from..next].iter().position(|b| *b == b'[')?;
        return Some((&text[at..from + bracket], Some(pid), next));
    }
    None
}

fn skip_one_blank(text: &[u8], at: usize) -> usize {
    at + usize::from(text.get(at) == Some(&b' '))
}

/// Whether this could be a host's name or address.
fn is_host(word: &[u8]) -> bool {
    let valid = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'/' | b'#' | b'@');
    word.first().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'#' || *b == b':')
        && word.len() <= 255
        && word.iter().all(valid)
        && !word.ends_with(b":")
        && !is_number(word)
}

/// Whether this looks like a host's name and not like a word of a sentence.
fn named_like_a_host(word: &[u8]) -> bool {
    word.len() >= 2 && word.iter().any(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.')) && !word.ends_with(b".")
}

/// Words that often precede a colon in a sentence (`request failed: …`), so that they are no program's name.
fn ends_a_sentence(name: &[u8]) -> bool {
    name.ends_with(b"ed") || name.ends_with(b"ing") || level::word(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(&str, &str, &str, &str)>) {
        let bytes = text.as_bytes();
        let (moment, end) = clock::read(bytes).unwrap();
        let tail = tail(bytes, end, trust(bytes, &moment, end), None);
        let show = |part: Option<&[u8]>| String::from_utf8_lossy(part.unwrap_or_default()).into_owned();
        let found = tail.map(|t| (show(t.host), show(t.program), show(t.pid), show(bytes.get(t.at..))));
        let expected = expected.map(|(a, b, c, d)| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned()));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn host_and_program_follow_the_time() {
        for (text, expected) in [
            ("Nov 21 04:00:00 web sshd[12]: Bye", Some(("web", "sshd", "12", "Bye"))),
            ("Nov 21 04:00:00 web sshd(pam_unix)[12]: Bye", Some(("web", "sshd(pam_unix)", "12", "Bye"))),
            ("Nov 21 04:00:00 web kernel: [1.2] x", Some(("web", "kernel", "", "[1.2] x"))),
            ("Nov 21 04:00:00 web syslogd 1.4.1: restart.", Some(("web", "syslogd 1.4.1", "", "restart."))),
            ("Nov 21 04:00:00 mac Google Chrome[9]: x", Some(("mac", "Google Chrome", "9", "x"))),
            ("Nov 21 04:00:00 web -- root[9]: LOGIN", Some(("web", "-- root", "9", "LOGIN"))),
            ("Nov 21 04:00:00 mac launchd[1] (com.apple.x[7]): up", Some(("mac", "launchd", "1", "up"))),
            ("Nov 21 04:00:00 sshd[12]: Bye", Some(("", "sshd", "12", "Bye"))),
            ("Nov 21 04:00:00 web-1 no program here", Some(("web-1", "", "", "no program here"))),
            (
                "Nov 21 04:00:00 web last message repeated 2 times",
                Some(("web", "", "", "last message repeated 2 times")),
            ),
            ("Nov 21 04:00:00 connected to the server", None),
            ("Nov 21 04:00:00 dn228/dn228 crond[5]: x", Some(("dn228/dn228", "crond", "5", "x"))),
            ("Nov 21 2026 04:00:00: %ASA-6-302013: Built", Some(("", "", "", "%ASA-6-302013: Built"))),
            ("2026-11-21T04:00:00.123456+01:00 web sshd[12]: Bye", Some(("web", "sshd", "12", "Bye"))),
            ("2026-11-21T04:00:00.123456+01:00 leto kernel: [1.2] x", Some(("leto", "kernel", "", "[1.2] x"))),
            ("2026-11-21T04:00:00+0100 web (systemd)[12]: x", Some(("web", "(systemd)", "12", "x"))),
            ("Sat 2026-11-21 04:00:00 CET web cron[1]: x", Some(("web", "cron", "1", "x"))),
            ("2026-11-21 04:00:00,123 mantis proftpd[4] mantis: x", None),
            ("2026-11-21T04:00:00Z request failed: timeout", None),
            ("2026-11-21T04:00:00.123456Z  INFO app: started", None),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn structured_data_may_hold_anything() {
        let text = br#"1 2026-11-21T04:00:00Z h p 7 ID [a@1 x="\"]" y="2"][b z="]"] hello"#;
        let header = rfc5424(text).unwrap();
        assert_eq!(header.data, br#"[a@1 x="\"]" y="2"][b z="]"]"#);
        assert_eq!(&text[header.at..], b"hello");
        assert_eq!((header.host, header.program, header.pid), (Some(&b"h"[..]), Some(&b"p"[..]), Some(&b"7"[..])));
        assert!(rfc5424(b"1 2026-11-21T04:00:00Z h p 7 ID [a x=\"").is_none());
        assert!(rfc5424(b"1 - - - - - -").is_some());
    }

    #[test]
    fn priorities_are_small_numbers() {
        assert_eq!(priority(b"<34>x"), Some((34, 4)));
        assert_eq!(priority(b"<192>x"), None);
        assert_eq!(priority(b"<a>"), None);
        assert_eq!(priority(b"<"), None);
    }
}
