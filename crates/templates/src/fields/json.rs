//! Reads a JSON object, flattened, without recursion and without copying what needs no unescaping.

use std::borrow::Cow;

use super::{Object, Value};
use crate::Timestamp;

/// Objects below this depth are kept in their own notation.
const MAX_DEPTH: usize = 6;

/// The object that the whole text is; nested ones are flattened.
pub(crate) fn json(text: &[u8]) -> Option<Object<'_>> {
    let (object, end) = object(text)?;
    text[end..].iter().all(u8::is_ascii_whitespace).then_some(object)
}

/// Text that ends with an object: the object, whose message is the text.
pub(crate) fn text_with_json(text: &[u8]) -> Option<Object<'_>> {
    let trimmed = text.trim_ascii_end();
    // Monolog adds a second, empty one.
    let trimmed = trimmed.strip_suffix(b"[]").map_or(trimmed, <[u8]>::trim_ascii_end);
    (trimmed.last() == Some(&b'}')).then_some(())?;
    let at = memchr::memmem::find(trimmed, b"{\"")?;
    matches!(trimmed[..at].last(), None | Some(b' ' | b'\t' | b':' | b'=')).then_some(())?;
    let (mut object, end) = object(&trimmed[at..])?;
    (at + end == trimmed.len()).then_some(())?;
    object.prefix = trimmed[..at].trim_ascii_end();
    Some(object)
}

/// The object at the front, and where it ends.
fn object(text: &[u8]) -> Option<(Object<'_>, usize)> {
    (text.first()? == &b'{').then_some(())?;
    let mut found = Object { members: Vec::with_capacity(16), ..Object::default() };
    let mut path: Vec<u8> = Vec::new();
    // Lengths of the path at each open object.
    let mut open = vec![0];
    let mut at = skip_space(text, 1);
    if text.get(at) == Some(&b'}') {
        return Some((found, at + 1));
    }
    loop {
        let (key, next) = string(text, at)?;
        at = skip_space(text, next);
        (text.get(at) == Some(&b':')).then_some(())?;
        at = skip_space(text, at + 1);
        let path_length = path.len();
        if text.get(at) == Some(&b'{') && open.len() < MAX_DEPTH {
            let inside = skip_space(text, at + 1);
            if text.get(inside) == Some(&b'}') {
                at = inside + 1;
            } else {
                path.extend_from_slice(&unescape(found.clip(key)));
                path.push(b'.');
                open.push(path_length);
                at = inside;
                continue;
            }
        } else {
            let (value, end) = value(text, at)?;
            let key = unescape(found.clip(key));
            let key = if path.is_empty() { key } else { Cow::Owned([&path[..], &key].concat()) };
            found.push(key, value);
            at = end;
        }
        at = skip_space(text, at);
        while text.get(at) == Some(&b'}') {
            path.truncate(open.pop()?);
            at += 1;
            if open.is_empty() {
                return Some((found, at));
            }
            at = skip_space(text, at);
        }
        (text.get(at) == Some(&b',')).then_some(())?;
        at = skip_space(text, at + 1);
    }
}

/// The string at `at` without its quotes, still escaped, and where it ends.
fn string(text: &[u8], at: usize) -> Option<(&[u8], usize)> {
    (text.get(at) == Some(&b'"')).then_some(())?;
    let mut end = at + 1;
    loop {
        end += memchr::memchr2(b'"', b'\\', text.get(end..)?)?;
        if text[end] == b'"' {
            return Some((&text[at + 1..end], end + 1));
        }
        end += 2;
    }
}

fn value(text: &[u8], at: usize) -> Option<(Value<'_>, usize)> {
    match text.get(at)? {
        b'"' => string(text, at).map(|(raw, end)| (Value::Escaped(raw), end)),
        b'[' | b'{' => {
            let end = nested(text, at)?;
            Some((Value::Plain(&text[at..end]), end))
        }
        b'-' | b'0'..=b'9' | b't' | b'f' | b'n' | b'N' => {
            let literal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
            let end = at + text[at..].iter().position(|b| !literal(b))?;
            Some((Value::Plain(&text[at..end]), end))
        }
        _ => None,
    }
}

/// Where the array or object at `at` ends.
fn nested(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match text.get(at)? {
            b'"' => {
                at = string(text, at)?.1;
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

fn skip_space(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The string that the inside of a JSON string means. An escape that JSON does not know stays as it is.
pub(super) fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr(b'\\', raw) else { return Cow::Borrowed(raw) };
    let mut out = Vec::with_capacity(raw.len());
    out.extend_from_slice(&raw[..first]);
    let mut rest = &raw[first..];
    while let Some((byte, tail)) = rest.split_first() {
        if *byte != b'\\' {
            let end = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let (plain, used) = match tail.first() {
            Some(b'n') => (b'\n', 1),
            Some(b't') => (b'\t', 1),
            Some(b'r') => (b'\r', 1),
            Some(b'b') => (8, 1),
            Some(b'f') => (12, 1),
            Some(b @ (b'"' | b'\\' | b'/')) => (*b, 1),
            Some(b'u') => {
                let (c, used) = unicode(&tail[1..]);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &tail[1 + used..];
                continue;
            }
            _ => (b'\\', 0),
        };
        out.push(plain);
        rest = &tail[used..];
    }
    Cow::Owned(out)
}

/// The character of the four digits behind `\u`, or of a pair of such escapes, and how many bytes they take.
fn unicode(digits: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = digits.get(at..at + 4).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let Some(high) = unit(0) else { return (char::REPLACEMENT_CHARACTER, 0) };
    let low = if digits.get(4..6) == Some(b"\\u") { unit(6) } else { None };
    match (char::from_u32(u32::from(high)), low) {
        (Some(c), _) => (c, 4),
        (None, Some(low)) => match char::decode_utf16([high, low]).next() {
            Some(Ok(c)) => (c, 10),
            _ => (char::REPLACEMENT_CHARACTER, 4),
        },
        (None, None) => (char::REPLACEMENT_CHARACTER, 4),
    }
}

/// The bytes that an array of small numbers holds: so the journal writes what is not UTF-8.
pub(super) fn byte_array(array: &[u8]) -> Vec<u8> {
    let numbers = array.split(|b| matches!(b, b',' | b'[' | b']')).map(<[u8]>::trim_ascii);
    numbers.filter_map(|number| std::str::from_utf8(number).ok()?.parse().ok()).collect()
}

/// Seconds since 1970 as a number that is not just digits: `1.7952336e9`, `1795233600.25`.
pub(super) fn float_time(text: &[u8]) -> Option<Timestamp> {
    let first = text.first()?;
    (first.is_ascii_digit() && text.len() <= 32).then_some(())?;
    let secs: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    // Rounded to microseconds: that is how much a double holds of today's time.
    #[expect(clippy::cast_possible_truncation, reason = "in range, and the rest is below a double's precision")]
    (631_152_000.0..4_102_444_800.0).contains(&secs).then(|| Timestamp::from_nanos((secs * 1e6).round() as i64 * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        for (raw, text) in [
            (r"a\tb\n", "a\tb\n"),
            (r"\u00e9\ud83d\ude00", "é😀"),
            (r"\ud83d x", "\u{fffd} x"),
            (r"\u12", "\u{fffd}12"),
            (r"C:\q", r"C:\q"),
            ("\\", "\\"),
        ] {
            assert_eq!(String::from_utf8_lossy(&unescape(raw.as_bytes())), text, "{raw}");
        }
    }

    #[test]
    fn times_in_floating_point_are_read() {
        assert_eq!(float_time(b"1.79523360025e9"), Some(Timestamp::from_nanos(1_795_233_600_250_000_000)));
        assert_eq!(float_time(b"12.5"), None);
        assert_eq!(float_time(b"1e400"), None);
    }
}
