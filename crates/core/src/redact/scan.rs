//! Small steps over bytes.

/// Whether a word could go on here.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether the byte before `at` cannot belong to a token that starts at `at`.
pub(super) fn starts_token(text: &[u8], at: usize) -> bool {
    at == 0 || !(is_word(text[at - 1]) || text[at - 1] == b'-') || ends_in_escape(&text[..at])
}

/// Whether text ends in an escape whose last letter only looks like a part of the next word: `%3D`, `\n`.
fn ends_in_escape(text: &[u8]) -> bool {
    match text {
        [.., b'%', a, b] => a.is_ascii_hexdigit() && b.is_ascii_hexdigit(),
        [.., b'\\', b'n' | b't' | b'r'] => true,
        _ => false,
    }
}

/// The position after all bytes from `at` on that `accept`.
pub(super) fn run(text: &[u8], at: usize, accept: impl Fn(u8) -> bool) -> usize {
    at + text[at..].iter().take_while(|byte| accept(**byte)).count()
}

/// The position after spaces, also those written `%20`.
pub(super) fn spaces(text: &[u8], mut at: usize) -> usize {
    loop {
        match &text[at..] {
            [b' ' | b'\t', ..] => at += 1,
            [b'%', b'2', b'0', ..] => at += 3,
            _ => return at,
        }
    }
}

/// The position of `needle`, in any case, at or after `at`; an empty one is nowhere.
pub(super) fn find(text: &[u8], at: usize, needle: &[u8]) -> Option<usize> {
    let found = text.get(at..)?.windows(needle.len().max(1)).position(|w| w.eq_ignore_ascii_case(needle))?;
    Some(at + found)
}

/// Whether text looks made by a machine: long enough, letters and digits mixed, or cases mixed as no word has them.
pub(super) fn looks_random(text: &[u8], shortest: usize) -> bool {
    if text.len() < shortest || text.iter().any(|b| b.is_ascii_whitespace()) {
        return false;
    }
    let digits = text.iter().filter(|b| b.is_ascii_digit()).count();
    let letters = text.iter().filter(|b| b.is_ascii_alphabetic()).count();
    let upper = text[1..].iter().filter(|b| b.is_ascii_uppercase()).count();
    let lower = text.iter().filter(|b| b.is_ascii_lowercase()).count();
    (digits > 0 && letters > 0) || (text.len() >= 16 && upper >= 3 && lower >= 3) || text.ends_with(b"=")
}
