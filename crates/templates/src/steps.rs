//! Small steps over bytes that grammars share.

/// Where the blanks at `at` end.
pub(crate) fn skip_blanks(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    at
}

/// Where the word at `at` ends: at the next blank.
pub(crate) fn word_end(text: &[u8], at: usize) -> usize {
    text.get(at..).and_then(|rest| memchr::memchr2(b' ', b'\t', rest)).map_or(text.len(), |len| at + len)
}

/// Where the bracket that opens at `at` closes, within `limit` bytes; pairs inside it are skipped.
pub(crate) fn closing(text: &[u8], at: usize, limit: usize) -> Option<usize> {
    let open = *text.get(at)?;
    let close = match open {
        b'[' => b']',
        b'(' => b')',
        b'<' => b'>',
        b'{' => b'}',
        _ => return None,
    };
    let mut depth = 0_u32;
    for (offset, byte) in text[at..].iter().take(limit).enumerate() {
        if *byte == open {
            depth += 1;
        } else if *byte == close {
            depth -= 1;
            if depth == 0 {
                return Some(at + offset);
            }
        }
    }
    None
}

/// Where the digits at `at` end.
pub(crate) fn digits_end(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// Whether these bytes are digits and nothing else.
pub(crate) fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Whether this is an address, without a port: `10.0.0.1`, `2001:db8::1`.
pub(crate) fn is_address(text: &[u8]) -> bool {
    if !(2..=45).contains(&text.len()) {
        return false;
    }
    let (mut dots, mut colons) = (0, 0);
    for byte in text {
        match byte {
            b'.' => dots += 1,
            b':' => colons += 1,
            b'0'..=b'9' => {}
            b'a'..=b'f' | b'A'..=b'F' => dots += 100,
            _ => return false,
        }
    }
    if colons >= 2 {
        return true;
    }
    dots == 3 && colons == 0 && text[0].is_ascii_digit()
}

/// Where the kernel's `[12345.678901]` at the front ends.
pub(crate) fn uptime(text: &[u8]) -> Option<usize> {
    (text.first()? == &b'[').then_some(())?;
    let digits = skip_blanks(text, 1);
    let point = digits_end(text, digits);
    (point > digits && text.get(point) == Some(&b'.')).then_some(())?;
    let mut end = digits_end(text, point + 1);
    (end >= point + 4).then_some(())?;
    // With a processor or task id: `[   12.345678][    T1]`, `[12.345678,0]`.
    if text.get(end) == Some(&b',') {
        end = digits_end(text, end + 1);
    }
    (text.get(end) == Some(&b']')).then_some(())?;
    if let [b'[', rest @ ..] = &text[end + 1..] {
        let inner = rest.iter().take(12).position(|b| *b == b']');
        if let Some(close) = inner.filter(|close| {
            let id = rest[..*close].trim_ascii();
            matches!(id, [b'T' | b'C', digits @ ..] if is_number(digits))
        }) {
            return Some(end + 2 + close + 1);
        }
    }
    Some(end + 1)
}

/// The text without terminal escapes (colours, cursor movements, titles).
pub(crate) fn strip_escapes(text: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(0x1b, rest) {
        clean.extend_from_slice(&rest[..at]);
        rest = match rest.get(at + 1) {
            Some(b'[') => {
                let end = rest[at + 2..].iter().position(|b| (0x40..=0x7e).contains(b));
                end.map_or(&[][..], |end| &rest[at + 2 + end + 1..])
            }
            Some(b']') => {
                let end = rest[at + 2..].iter().position(|b| *b == 0x07 || *b == 0x1b);
                end.map_or(&[][..], |end| &rest[at + 2 + end + usize::from(rest[at + 2 + end] == 0x07)..])
            }
            Some(_) => &rest[at + 2..],
            None => &[],
        };
    }
    clean.extend_from_slice(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_and_text_stays() {
        assert_eq!(strip_escapes(b"\x1b[2m12:00\x1b[0m \x1b[32m INFO\x1b[0m x\x1b"), b"12:00  INFO x");
        assert_eq!(strip_escapes(b"\x1b]0;title\x07x\x1b[3"), b"x");
    }

    #[test]
    fn uptimes_are_told_from_other_brackets() {
        assert_eq!(uptime(b"[   12.345678] usb"), Some(14));
        assert_eq!(uptime(b"[   12.345678][    T1] usb"), Some(22));
        assert_eq!(uptime(b"[10.30 16:49:06] x"), None);
        assert_eq!(uptime(b"[12] x"), None);
    }

    #[test]
    fn brackets_nest() {
        assert_eq!(closing(b"[a[b]c] d", 0, 80), Some(6));
        assert_eq!(closing(b"[a[b]c", 0, 80), None);
        assert_eq!(closing(b"[aaaaaaaa]", 0, 5), None);
    }
}
