//! Makes hostile text plain: no control characters, nothing invisible, no more than so many characters.

/// What a cut text ends with.
const CUT: &str = "…";

/// Appends `text` to `out` on one line: control characters and everything invisible left out, white space as one space.
pub(crate) fn push_line(out: &mut String, text: &str) {
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() {
            gap = true;
        } else if !is_hidden(c) {
            if gap && !out.is_empty() && !out.ends_with(' ') {
                out.push(' ');
            }
            gap = false;
            out.push(c);
        }
    }
}

/// `text` on one line, as [`push_line`] writes it.
pub(crate) fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_line(&mut out, text);
    out
}

/// The first `max` sentences of a text.
pub(crate) fn first_sentences(text: &str, max: usize) -> String {
    let mut ends = text.match_indices(['.', '!', '?']).filter(|(at, _)| {
        let rest = &text[at + 1..];
        rest.is_empty() || rest.starts_with(' ')
    });
    match ends.nth(max.saturating_sub(1)) {
        Some((at, _)) => text[..=at].to_owned(),
        None => text.to_owned(),
    }
}

/// At most `max` characters: the beginning, and `…` where something is missing.
pub(crate) fn head(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => {
            let kept = text.char_indices().nth(max.saturating_sub(1)).map_or(0, |(at, _)| at);
            format!("{}{CUT}", text[..kept].trim_end())
        }
    }
}

/// At most `max` characters: beginning and end, and ` … ` where the middle is missing.
pub(crate) fn ends(text: &str, max: usize) -> String {
    let count = text.chars().count();
    if count <= max {
        return text.to_owned();
    }
    let keep = max.saturating_sub(3);
    let (front, back) = (keep - keep / 3, keep / 3);
    let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
    format!("{} … {}", &text[..at(front)], &text[at(count - back)..])
}

/// Whether a character shows nothing, or changes how others are shown: controls, zero width, bidirectional controls,
/// variation selectors, tags, byte order marks, interlinear marks, private use.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn controls_and_invisible_characters_go_and_white_space_becomes_one_space() {
        assert_eq!(line(" a\x1b[31m\u{200b}b\r\n\t c\u{e0041}\u{202e} "), "a[31mb c");
    }

    #[test]
    fn the_first_sentences_end_where_sentences_end() {
        assert_eq!(first_sentences("A. B! C? D 1.5 x. E. F. G. H.", 6), "A. B! C? D 1.5 x. E. F.");
        assert_eq!(first_sentences("One", 6), "One");
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(head("grün und blau", 6), "grün…");
        assert_eq!(head("grün", 4), "grün");
        assert_eq!(ends("0123456789abcdef", 9), "0123 … ef");
        assert_eq!(ends("0123456789", 10), "0123456789");
    }

    proptest! {
        #[test]
        fn never_longer_than_allowed(text in "\\PC{0,60}", max in 4_usize..40) {
            prop_assert!(head(&text, max).chars().count() <= max);
            prop_assert!(ends(&text, max).chars().count() <= max);
        }

        #[test]
        fn a_line_has_nothing_hidden(text in any::<String>()) {
            let line = line(&text);
            prop_assert!(!line.chars().any(|c| is_hidden(c) || c == '\n'));
            prop_assert!(!line.contains("  "));
        }
    }
}
