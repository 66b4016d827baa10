//! Text that shows all that is in it: the first step of the way into a message.

use std::fmt;

use unicode_segmentation::UnicodeSegmentation;

/// Stands where something was cut away.
pub const CUT: char = '…';
/// More than this of one text is never looked at; far above every platform's limits.
const MOST_RAW_CHARS: usize = 64 * 1024;

/// Text on one line without anything invisible: escape sequences removed, control, bidirectional and zero-width
/// characters shown as `⟨U+202E⟩`. Not escaped for any platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clean {
    text: String,
    cuts: u32,
}

impl Clean {
    /// Cleans words: a title, an explanation, a name. Line breaks become spaces.
    pub fn line(raw: &str) -> Self {
        Self::with_breaks_as(raw, " ")
    }

    /// Cleans a log line, which may be several joined ones: line breaks are shown as `⏎`.
    pub fn log_line(raw: &str) -> Self {
        Self::with_breaks_as(raw.trim_end(), " ⏎ ")
    }

    fn with_breaks_as(raw: &str, line_break: &str) -> Self {
        let mut text = String::with_capacity(raw.len().min(MOST_RAW_CHARS));
        let mut rest = raw;
        let mut left = MOST_RAW_CHARS;
        while let Some(c) = rest.chars().next() {
            if left == 0 {
                text.push(CUT);
                return Self { text, cuts: 1 };
            }
            left -= 1;
            if c == '\u{1b}'
                && let Some(length) = escape_sequence(rest)
            {
                rest = &rest[length..];
                continue;
            }
            rest = &rest[c.len_utf8()..];
            match c {
                '\r' if rest.starts_with('\n') => {}
                '\n' | '\r' => text.push_str(line_break),
                c if is_invisible(c) => push_visible(&mut text, c),
                c if c.is_whitespace() => text.push(' '),
                c => text.push(c),
            }
        }
        let trimmed = text.trim();
        if trimmed.len() != text.len() {
            text = trimmed.to_owned();
        }
        Self { text, cuts: 0 }
    }

    /// The same with its middle left out when it is longer than `units`: lines tell most at their ends.
    #[must_use]
    pub fn elided(self, units: usize) -> Self {
        if count(&self.text) <= units {
            return self;
        }
        let room = units.saturating_sub(3);
        let head = take(self.text.graphemes(true), room * 2 / 3);
        let tail = take(self.text.graphemes(true).rev(), room - room * 2 / 3);
        let (head, tail) = (&self.text[..head], &self.text[self.text.len() - tail..]);
        Self { text: format!("{} {CUT} {}", head.trim_end(), tail.trim_start()), cuts: self.cuts + 1 }
    }

    /// The text in parts, where its backticks come in pairs: whether each stood between two, and the part.
    pub(crate) fn code_parts(&self) -> Option<Vec<(bool, Self)>> {
        let parts: Vec<&str> = self.text.split('`').collect();
        let paired = parts.len() % 2 == 1 && parts.iter().skip(1).step_by(2).all(|code| !code.trim().is_empty());
        let part = |(i, part): (usize, &&str)| (i % 2 == 1, Self { text: (*part).to_owned(), cuts: 0 });
        paired.then(|| parts.iter().enumerate().map(part).collect())
    }

    /// The same after a prefix of ours.
    pub(crate) fn after(self, prefix: &str) -> Self {
        Self { text: format!("{prefix}{}", self.text), cuts: self.cuts }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// How often something was cut away.
    pub fn cuts(&self) -> u32 {
        self.cuts
    }
}

/// Bytes of the graphemes that fit into `units`.
pub(crate) fn take<'a>(graphemes: impl Iterator<Item = &'a str>, units: usize) -> usize {
    let mut used = 0;
    let mut bytes = 0;
    for grapheme in graphemes {
        used += count(grapheme);
        if used > units {
            break;
        }
        bytes += grapheme.len();
    }
    bytes
}

/// The length in UTF-16 units.
pub(crate) fn count(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// The length in bytes of the terminal escape sequence that `text` begins with. A sequence that does not end hides
/// nothing: its first character is shown instead.
fn escape_sequence(text: &str) -> Option<usize> {
    const LONGEST: usize = 512;
    let bytes = text.as_bytes();
    match bytes.get(1)? {
        b'[' => {
            let length = 2 + bytes[2..].iter().take(LONGEST).position(|b| !matches!(b, 0x20..=0x3f))?;
            matches!(bytes[length], 0x40..=0x7e).then_some(length + 1)
        }
        b']' | b'P' | b'X' | b'^' | b'_' => {
            let body = &bytes[2..];
            let end = body.iter().take(LONGEST).position(|b| matches!(b, 0x07 | 0x1b | b'\n'))?;
            match body[end] {
                0x07 => Some(2 + end + 1),
                0x1b if body.get(end + 1) == Some(&b'\\') => Some(2 + end + 2),
                _ => None,
            }
        }
        0x20..=0x2f => {
            let length = 1 + bytes[1..].iter().take(8).position(|b| !matches!(b, 0x20..=0x2f))?;
            matches!(bytes[length], 0x30..=0x7e).then_some(length + 1)
        }
        0x30..=0x7e => Some(2),
        _ => None,
    }
}

/// Whether a reader would not see the character, or would see others in another order because of it.
pub(crate) fn is_invisible(c: char) -> bool {
    if c == '\t' {
        return false;
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        || u32::from(c) & 0xfffe == 0xfffe
        || matches!(c, '\u{fdd0}'..='\u{fdef}')
}

fn push_visible(text: &mut String, c: char) {
    use fmt::Write;
    let code = u32::from(c);
    match c {
        '\0'..='\u{1f}' => text.push(char::from_u32(0x2400 + code).unwrap_or('\u{fffd}')),
        '\u{7f}' => text.push('␡'),
        _ => {
            let _ = write!(text, "⟨U+{code:04X}⟩");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_go_and_what_hides_is_shown() {
        let shown = |raw: &str| Clean::log_line(raw).as_str().to_owned();
        assert_eq!(shown("\u{1b}[1;31mred\u{1b}[0m \u{1b}]0;title\u{7}x\u{1b}(B"), "red x");
        assert_eq!(shown("\u{1b}]0;never ends"), "␛]0;never ends");
        assert_eq!(shown("a\r\nb\rc\td\u{0}\u{202e}"), "a ⏎ b ⏎ c d␀⟨U+202E⟩");
        let elided = Clean::log_line(&"0123456789".repeat(50)).elided(30);
        assert_eq!((elided.as_str(), elided.cuts()), ("012345678901234567 … 123456789", 1));
    }
}
