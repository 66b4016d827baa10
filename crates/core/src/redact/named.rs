//! Secrets that their surroundings give away: `password=…`, `"api_key":"…"`, `Authorization: …`, `user:password@host`.
//!
//! Names and values are found in plain text, JSON (also escaped inside another string), logfmt, query strings (also
//! percent-encoded), headers, XML elements, command lines and SQL.

use std::ops::Range;

use super::{
    MARK,
    scan::{find, is_word, looks_random, run, spaces},
};

/// A word that says that a value is secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub kind: &'static str,
    weight: Weight,
}

/// How sure a name makes us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// Any value is secret.
    Sure,
    /// As `Sure`, but letters may not come before it: other words end like it.
    SureAlone,
    /// Any value after `=`, or quoted; one that looks random after a bare colon.
    Likely,
    /// Only a value that looks random.
    Random,
    /// Only in a query string, and only a value that looks random.
    Query,
}

const fn name(literal: &'static str, kind: &'static str, weight: Weight) -> (&'static str, Name) {
    (literal, Name { kind, weight })
}

/// The names, as a key may end.
pub(super) const NAMES: &[(&str, Name)] = &[
    name("password", "password", Weight::Sure),
    name("passwd", "password", Weight::Sure),
    name("passphrase", "password", Weight::Sure),
    name("passcode", "password", Weight::Sure),
    name("passwort", "password", Weight::Sure),
    name("userpass", "password", Weight::Sure),
    name("requirepass", "password", Weight::Sure),
    name("pass", "password", Weight::SureAlone),
    name("pwd", "password", Weight::SureAlone),
    name("secret", "secret", Weight::Likely),
    name("token", "token", Weight::Likely),
    name("jwt", "token", Weight::Likely),
    name("apikey", "key", Weight::Likely),
    name("api_key", "key", Weight::Likely),
    name("api-key", "key", Weight::Likely),
    name("accesskey", "key", Weight::Likely),
    name("access_key", "key", Weight::Likely),
    name("access-key", "key", Weight::Likely),
    name("secretkey", "key", Weight::Likely),
    name("secret_key", "key", Weight::Likely),
    name("secret-key", "key", Weight::Likely),
    name("privatekey", "key", Weight::Likely),
    name("private_key", "key", Weight::Likely),
    name("private-key", "key", Weight::Likely),
    name("accountkey", "key", Weight::Likely),
    name("account_key", "key", Weight::Likely),
    name("encryptionkey", "key", Weight::Likely),
    name("encryption_key", "key", Weight::Likely),
    name("signingkey", "key", Weight::Likely),
    name("signing_key", "key", Weight::Likely),
    name("masterkey", "key", Weight::Likely),
    name("master_key", "key", Weight::Likely),
    name("authkey", "key", Weight::Likely),
    name("auth_key", "key", Weight::Likely),
    name("auth-key", "key", Weight::Likely),
    name("client_key", "key", Weight::Likely),
    name("x-auth", "key", Weight::Random),
    name("credential", "credentials", Weight::Random),
    name("credentials", "credentials", Weight::Random),
    name("session", "session", Weight::Random),
    name("sessionid", "session", Weight::Random),
    name("session_id", "session", Weight::Random),
    name("session-id", "session", Weight::Random),
    name("sessid", "session", Weight::Random),
    name("connect.sid", "session", Weight::Random),
    name("signature", "signature", Weight::Random),
    name("sig", "signature", Weight::Query),
    name("key", "key", Weight::Query),
    name("code", "code", Weight::Query),
    name("auth", "credentials", Weight::Query),
];

/// Endings that a name may have: `password_confirmation`, `password2`.
const ENDINGS: &[&[u8]] =
    &[b"confirmation", b"confirm", b"again", b"repeat", b"new", b"old", b"hash", b"plain", b"text", b"value"];

/// What stands for a secret without being one, lower case.
const HARMLESS: &[&[u8]] = &[
    b"true",
    b"false",
    b"yes",
    b"no",
    b"on",
    b"off",
    b"null",
    b"(null)",
    b"nil",
    b"none",
    b"undefined",
    b"empty",
    b"missing",
    b"redacted",
    b"[redacted]",
    b"<redacted>",
    b"filtered",
    b"[filtered]",
    b"masked",
    b"hidden",
    b"required",
    b"invalid",
    b"incorrect",
    b"wrong",
    b"expired",
    b"failed",
    b"failure",
    b"authentication",
    b"error",
    b"denied",
    b"mismatch",
    b"not",
    b"changed",
    b"ok",
    b"success",
    b"is",
    b"was",
    b"for",
    b"the",
    b"a",
    b"and",
    b"{}",
    b"[]",
    b"%s",
    b"%d",
    b"%v",
    b"-",
    b"?",
];

/// What separates a name from its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Separator {
    Equals,
    Colon,
    /// A tag's end, a space after `--password`, a space before a quote.
    Other,
}

impl Name {
    /// The secret that belongs to this name at `start..end`, if any.
    pub(super) fn value(&self, text: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
        if self.weight == Weight::SureAlone && !begins_word(text, start) {
            return None;
        }
        if self.weight == Weight::Query && !in_query(&text[..start]) {
            return None;
        }
        let (separator, key_quoted, at) = separator(text, start, end, self.weight)?;
        let (range, value_quoted) = value(text, at)?;
        let secret = &text[range.clone()];
        if is_harmless(secret) || is_path(secret) && self.weight == Weight::SureAlone {
            return None;
        }
        let bare_colon = separator == Separator::Colon && !key_quoted && !value_quoted;
        let number = secret.iter().all(u8::is_ascii_digit) && secret.len() < 6;
        let fits = match self.weight {
            Weight::Sure => true,
            Weight::SureAlone => !bare_colon || looks_random(secret, 6),
            Weight::Likely if bare_colon => looks_random(secret, 8),
            Weight::Likely => !number,
            // In free text short ids of sessions are common, and nobody can use them.
            Weight::Random if bare_colon => looks_random(secret, 20) && !secret.contains(&b'('),
            Weight::Random => looks_random(secret, 12),
            Weight::Query => looks_random(secret, 10),
        };
        fits.then_some(range)
    }
}

/// Whether a slot of that key holds secrets.
pub(super) fn is_sensitive(key: &[u8]) -> bool {
    NAMES.iter().any(|(literal, name)| {
        let begin = key.len().checked_sub(literal.len());
        begin.is_some_and(|begin| {
            key[begin..].eq_ignore_ascii_case(literal.as_bytes())
                && match name.weight {
                    Weight::Sure | Weight::Likely => true,
                    Weight::SureAlone => begins_word(key, begin),
                    Weight::Random | Weight::Query => false,
                }
        })
    }) || key.eq_ignore_ascii_case(b"authorization")
        || key.eq_ignore_ascii_case(b"cookie")
        || key.eq_ignore_ascii_case(b"set-cookie")
}

/// Whether a value stands for a secret without being one.
pub(super) fn is_harmless(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    value.is_empty()
        || value.iter().all(|byte| matches!(byte, b'*' | b'x' | b'X' | b'.' | b'-' | b'#' | b'{' | b'[' | b'('))
        || value.starts_with(MARK.as_bytes())
        || value.starts_with(b"[redacted")
        || value.starts_with(b"<*")
        || value.starts_with(b"${")
        || value.starts_with(b"{{")
        || HARMLESS.iter().any(|word| value.eq_ignore_ascii_case(word))
}

fn is_path(value: &[u8]) -> bool {
    matches!(value, [b'/' | b'~', ..] | [b'A'..=b'Z', b':', b'\\' | b'/', ..])
}

/// Whether no letter comes before `at`, or the word there begins with a capital letter after a small one.
fn begins_word(text: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).map(|at| text[at]) else { return true };
    let percent = at >= 3 && text[at - 3] == b'%';
    !before.is_ascii_alphabetic() || percent || (before.is_ascii_lowercase() && text[at].is_ascii_uppercase())
}

fn in_query(before: &[u8]) -> bool {
    before.ends_with(b"?")
        || before.ends_with(b"&")
        || before.ends_with(b"%3F")
        || before.ends_with(b"%26")
        || before.ends_with(b"&amp;")
        || before.ends_with(b"\\u0026")
}

/// What separates the name at `start..end` from its value, whether the name is quoted, and where the value's text begins.
fn separator(text: &[u8], start: usize, end: usize, weight: Weight) -> Option<(Separator, bool, usize)> {
    let mut at = ending(text, end);
    let mut quoted = false;
    loop {
        at += match &text[at..] {
            [b'"' | b'\'' | b'`', ..] => {
                quoted = true;
                1
            }
            [b'\\' | b']', ..] => 1,
            [b'%', b'2', b'2' | b'7', ..] => {
                quoted = true;
                3
            }
            [b'%', b'5', b'C' | b'c' | b'D' | b'd', ..] => 3,
            _ => break,
        };
    }
    let after_spaces = spaces(text, at);
    let (separator, length) = match &text[after_spaces..] {
        [b'=', b'>' | b'=', ..] | [b':', b'=', ..] => (Separator::Equals, 2),
        [b'=', ..] => (Separator::Equals, 1),
        [b':', b':', ..] => return None,
        [b':', ..] => (Separator::Colon, 1),
        [b'%', b'3', b'D' | b'd', ..] => (Separator::Equals, 3),
        [b'%', b'3', b'A' | b'a', ..] => (Separator::Colon, 3),
        [b'>', ..] if at == after_spaces && opened_as(text, start, b"<") => (Separator::Other, 1),
        [b'"' | b'\'', ..] if after_spaces > at && weight == Weight::Sure => (Separator::Other, 0),
        _ if after_spaces > at && !quoted && opened_as(text, start, b"--") => (Separator::Other, 0),
        _ => return None,
    };
    Some((separator, quoted, spaces(text, after_spaces + length)))
}

/// The position after what may follow a name within the same key.
fn ending(text: &[u8], end: usize) -> usize {
    let joint = run(text, end, |byte| matches!(byte, b'_' | b'-'));
    for ending in ENDINGS {
        if text.len() >= joint + ending.len() && text[joint..joint + ending.len()].eq_ignore_ascii_case(ending) {
            return joint + ending.len();
        }
    }
    run(text, end, |byte| byte.is_ascii_digit())
}

/// Whether the key that has a name at `start` comes right after `mark`.
fn opened_as(text: &[u8], start: usize, mark: &[u8]) -> bool {
    let word =
        text[..start].iter().rev().take_while(|byte| is_word(**byte) || matches!(byte, b'-' | b'.' | b':')).count();
    let before = &text[..start];
    match mark {
        b"--" => before[start - word..].starts_with(b"--"),
        _ => before[..start - word].ends_with(mark),
    }
}

/// The value that begins at `at`, and whether it is quoted.
fn value(text: &[u8], mut at: usize) -> Option<(Range<usize>, bool)> {
    if text.get(at) == Some(&b'[') && !text[at..].starts_with(MARK.as_bytes()) {
        at += 1;
    }
    let escapes = run(text, at, |byte| byte == b'\\') - at;
    match text.get(at + escapes) {
        Some(quote @ (b'"' | b'\'' | b'`')) => {
            let start = at + escapes + 1;
            Some((start..closing_quote(text, start, *quote, escapes), true))
        }
        _ if text[at..].starts_with(b"%22") || text[at..].starts_with(b"%27") => {
            let quote = &text[at..at + 3];
            Some((at + 3..find(text, at + 3, quote).unwrap_or(bare_end(text, at + 3)), true))
        }
        Some(_) => Some((at..bare_end(text, at), false)).filter(|(range, _)| !range.is_empty()),
        None => None,
    }
}

/// Where a quoted value ends: at the quote with as many backslashes before it as the opening one had; without one, at the
/// end of the line.
fn closing_quote(text: &[u8], start: usize, quote: u8, escapes: usize) -> usize {
    let mut at = start;
    while at < text.len() && text[at] != b'\n' {
        let run = run(text, at, |byte| byte == b'\\') - at;
        match text.get(at + run) {
            Some(byte) if *byte == quote && run <= escapes => return at,
            Some(byte) if *byte == quote && run.is_multiple_of(2) && escapes == 0 => return at + run,
            _ => at += run + 1,
        }
    }
    at.min(text.len())
}

/// Where an unquoted value ends.
fn bare_end(text: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(byte) = text.get(at) {
        let rest = &text[at + 1..];
        let ends = match byte {
            b'"' | b'\'' | b'`' | b'&' | b'<' | b'>' => true,
            b'\\' => matches!(rest, [b'"' | b'\'' | b'n' | b'r' | b't' | b'u', ..]),
            b'%' => matches!(rest, [b'2', b'6' | b'2' | b'0' | b'7', ..]),
            b',' | b';' | b'|' => rest.is_empty() || rest[0].is_ascii_whitespace() || begins_pair(rest),
            b')' | b'}' | b']' => match rest {
                [] => true,
                [next, ..] => {
                    next.is_ascii_whitespace() || matches!(next, b',' | b';' | b'.' | b')' | b'}' | b']' | b'"' | b':')
                }
            },
            byte => byte.is_ascii_whitespace(),
        };
        if ends {
            break;
        }
        at += 1;
    }
    at
}

/// Whether text begins with another `key=` or `key:`, quoted or not.
fn begins_pair(text: &[u8]) -> bool {
    let start = usize::from(matches!(text, [b'"' | b'\'', ..]));
    let end = run(text, start, |byte| is_word(byte) || matches!(byte, b'-' | b'.'));
    end > start && matches!(text.get(end), Some(b'=' | b':' | b'"' | b'\''))
}

/// The credentials after `authorization`, which ends at `end`.
pub(super) fn header(text: &[u8], end: usize) -> Option<Range<usize>> {
    let (_, _, at) = separator(text, end, end, Weight::Random)?;
    let (range, quoted) = value(text, at)?;
    let first = run(text, range.start, |byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let scheme = &text[range.start..first];
    let whole_line = ["digest", "aws4-hmac-sha256", "oauth", "hawk", "signature"];
    let one_token = ["bearer", "basic", "token", "apikey", "negotiate", "ntlm", "key", "splunk", "apitoken"];
    let is = |names: &[&str]| names.iter().any(|name| scheme.eq_ignore_ascii_case(name.as_bytes()));
    let start = spaces(text, first);
    if start > first && is(&whole_line) {
        let end = if quoted { range.end.max(start) } else { line_end(text, start) };
        return Some(start..end).filter(|range| !is_harmless(&text[range.clone()]));
    }
    if start > first && is(&one_token) {
        let end = if quoted { range.end.max(start) } else { bare_end(text, start) };
        return Some(start..end).filter(|range| !is_harmless(&text[range.clone()]));
    }
    let random = looks_random(&text[range.clone()], 8);
    (random && !is_harmless(&text[range.clone()])).then_some(range)
}

/// The token after a bare `Bearer` or `Basic`, which may also be an ordinary word.
pub(super) fn after_scheme(text: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let at = spaces(text, end);
    let from_word = start > 0 && is_word(text[start - 1]);
    if at == end || from_word {
        return None;
    }
    let stop = run(text, at, |byte| is_word(byte) || matches!(byte, b'-' | b'.' | b'~' | b'+' | b'/' | b'='));
    looks_random(&text[at..stop], 12).then_some(at..stop)
}

/// All cookies of a `Cookie:` or `Set-Cookie:` header.
pub(super) fn cookie(text: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    if start > 0 && is_word(text[start - 1]) && !text[..start].ends_with(b"http_") && !text[..start].ends_with(b"HTTP_")
    {
        return None;
    }
    let (_, _, at) = separator(text, start, end, Weight::Random)?;
    let (range, quoted) = value(text, at)?;
    let range = if quoted { range } else { range.start..line_end(text, range.start) };
    let cookies = &text[range.clone()];
    let name = cookies.iter().position(|byte| *byte == b'=')?;
    let named = name > 0 && cookies[..name].iter().all(|b| is_word(*b) || matches!(b, b'-' | b'.' | b'%' | b'$'));
    (named && !is_harmless(&cookies[name + 1..])).then_some(range)
}

/// The end of the line, or of the quoted part of it.
fn line_end(text: &[u8], start: usize) -> usize {
    run(text, start, |byte| !matches!(byte, b'\n' | b'\r' | b'"' | b'\'' | b'`'))
}

/// How the slashes of an address are written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slashes {
    /// `://`, or `:\/\/` in JSON.
    Plain,
    /// `%3A%2F%2F`.
    Encoded,
}

/// The password of `scheme://user:password@host`, after the slashes that end at `start`.
pub(super) fn userinfo(text: &[u8], start: usize, slashes: Slashes) -> Option<Range<usize>> {
    let stop = run(text, start, |b| !b.is_ascii_whitespace() && !matches!(b, b'"' | b'\'' | b'<' | b'>' | b'`' | b'|'));
    let rest = &text[start..stop];
    match slashes {
        Slashes::Plain => {
            let path = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
            let colon = rest[..path].iter().position(|byte| *byte == b':');
            let at = match rest[..path].iter().rposition(|byte| *byte == b'@') {
                Some(at) => at,
                // A password with a slash in it; but `host:80/a@b` is none.
                None => {
                    let after = &rest[colon? + 1..path];
                    let odd = !after.is_empty() && !after.iter().all(u8::is_ascii_digit) && !after.starts_with(b"\\");
                    rest.iter().rposition(|byte| *byte == b'@').filter(|_| odd)?
                }
            };
            match colon.filter(|colon| *colon < at) {
                Some(colon) => {
                    let range = start + colon + 1..start + at;
                    (!is_harmless(&text[range.clone()])).then_some(range)
                }
                None => looks_random(&rest[..at], 16).then_some(start..start + at),
            }
        }
        Slashes::Encoded => {
            let at = find(rest, 0, b"%40")?;
            let colon = find(&rest[..at], 0, b"%3A")?;
            if find(&rest[..colon], 0, b"%2F").is_some() {
                return None;
            }
            Some(start + colon + 3..start + at)
        }
    }
}

/// The password of `user:password@tcp(host)`, before the `@` at `at`.
pub(super) fn dsn(text: &[u8], at: usize) -> Option<Range<usize>> {
    let start = text[..at].iter().rposition(|b| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'=' | b'/'));
    let start = start.map_or(0, |at| at + 1);
    let colon = text[start..at].iter().position(|byte| *byte == b':')?;
    let range = start + colon + 1..at;
    (!is_harmless(&text[range.clone()])).then_some(range)
}

/// The password after SQL's `IDENTIFIED BY`.
pub(super) fn identified_by(text: &[u8], end: usize) -> Option<Range<usize>> {
    let mut at = spaces(text, end);
    if text[at..].len() > 9 && text[at..at + 9].eq_ignore_ascii_case(b"password ") {
        at += 9;
    }
    let (range, quoted) = value(text, at)?;
    (quoted && !is_harmless(&text[range.clone()])).then_some(range)
}
