//! Reads `key=value` lines: logfmt, the kernel's packet filter, auditd, and the like.

use std::borrow::Cow;

use super::{Object, Value, keys::Key};

/// The pairs that the whole text is made of. Text with a few pairs in it is text.
pub(crate) fn logfmt(text: &[u8]) -> Option<Object<'_>> {
    key_end(text, 0)?;
    let mut object = Object::default();
    let (mut pairs, mut others, mut telling) = (0, 0, false);
    let mut at = 0;
    // Where the value of the last pair began, as long as bare words may go on with it.
    let mut open: Option<usize> = None;
    loop {
        while matches!(text.get(at), Some(b' ' | b'\t' | b',' | b';')) {
            at += 1;
        }
        if at >= text.len() {
            break;
        }
        if let Some(equals) = key_end(text, at) {
            let (value, end, quoted) = value(text, equals + 1);
            object.push(Cow::Borrowed(&text[at..equals]), value);
            telling |=
                object.members.last().is_some_and(|m| matches!(m.meaning, Key::Time | Key::Level | Key::Message(_)));
            open = (!quoted).then_some(equals + 1);
            pairs += 1;
            at = end;
            continue;
        }
        let end = text[at..].iter().position(|b| matches!(b, b' ' | b'\t')).map_or(text.len(), |len| at + len);
        let word = &text[at..end];
        others += 1;
        if pairs + 4 < others {
            return None;
        }
        match (word, open) {
            // A flag of the packet filter: `DF`, `SYN`.
            ([b'A'..=b'Z', ..], _) if word.len() <= 4 && word.iter().all(u8::is_ascii_uppercase) => {
                object.push(Cow::Borrowed(word), Value::Plain(b""));
                if let Some(member) = object.members.last_mut() {
                    member.meaning = Key::Flag;
                }
            }
            (_, Some(from)) => {
                if let Some(member) = object.members.last_mut() {
                    member.value = Value::Plain(&text[from..end]);
                }
            }
            _ => {}
        }
        at = end;
    }
    let enough = pairs >= 3 || pairs == 2 && telling;
    (enough && others * 2 <= pairs).then_some(object)
}

/// Where the `=` behind the key at `at` is, if there is a key.
fn key_end(text: &[u8], at: usize) -> Option<usize> {
    let first = text.get(at)?;
    (first.is_ascii_alphabetic() || matches!(first, b'_' | b'@')).then_some(())?;
    for (offset, byte) in text[at..].iter().enumerate().take(65) {
        match byte {
            b'=' => return Some(at + offset).filter(|at| text.get(at + 1) != Some(&b'=')),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'/' | b'@' => {}
            _ => return None,
        }
    }
    None
}

/// The value at `at`, where it ends, and whether it was quoted.
fn value(text: &[u8], at: usize) -> (Value<'_>, usize, bool) {
    if let Some(quote @ (b'"' | b'\'')) = text.get(at) {
        let mut end = at + 1;
        while let Some(step) = text.get(end..).and_then(|rest| memchr::memchr2(*quote, b'\\', rest)) {
            end += step;
            if text[end] == *quote {
                return (Value::Escaped(&text[at + 1..end]), end + 1, true);
            }
            end = (end + 2).min(text.len());
        }
    }
    let end = text[at..].iter().position(|b| matches!(b, b' ' | b'\t')).map_or(text.len(), |len| at + len);
    let value = &text[at..end];
    let value = value.strip_suffix(b",").or_else(|| value.strip_suffix(b";")).unwrap_or(value);
    (Value::Plain(value), end, false)
}
