//! Payment card numbers.

use super::Span;

/// Finds numbers that could be payment cards: the prefix and length of a brand, a right check digit, written in one piece
/// or in the brand's groups, and standing alone.
///
/// Strict on purpose: a tenth of all numbers has a right check digit, and logs are full of numbers.
pub(super) fn scan(text: &[u8], spans: &mut Vec<Span>) {
    let mut at = 0;
    while at < text.len() {
        if !text[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        let (mut digits, mut groups) = ([0_u8; 17], [0_usize; 5]);
        let (mut count, mut group) = (0, 0);
        let mut separator = None;
        let mut end = at;
        while let Some(byte) = text.get(at) {
            match byte {
                b'0'..=b'9' => {
                    if count < digits.len() {
                        digits[count] = byte - b'0';
                    }
                    count += 1;
                    groups[group] += 1;
                    end = at + 1;
                }
                b' ' | b'-' if separator.is_none_or(|known| known == *byte) && group + 1 < groups.len() => {
                    if !text.get(at + 1).is_some_and(u8::is_ascii_digit) {
                        break;
                    }
                    separator = Some(*byte);
                    group += 1;
                }
                _ => break,
            }
            at += 1;
        }
        let grouping = matches!(&groups[..=group], [14..=16] | [4, 4, 4, 4] | [4, 6, 5] | [4, 6, 4]);
        if grouping && stands_alone(text, start, end) && is_card(&digits[..count.min(17)]) {
            spans.push(Span { range: start..end, kind: "card" });
        }
    }
}

fn stands_alone(text: &[u8], start: usize, end: usize) -> bool {
    let joins = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b'#');
    let before = start.checked_sub(1).map(|at| text[at]);
    let after = text.get(end).copied();
    let ends_sentence = after == Some(b'.') && !text.get(end + 1).is_some_and(u8::is_ascii_alphanumeric);
    !before.is_some_and(joins) && (ends_sentence || !after.is_some_and(joins))
}

fn is_card(digits: &[u8]) -> bool {
    let prefix = |n: usize| digits.iter().take(n).fold(0_u32, |sum, digit| sum * 10 + u32::from(*digit));
    let brand = match digits.len() {
        16 => {
            prefix(1) == 4
                || (51..=55).contains(&prefix(2))
                || (2221..=2720).contains(&prefix(4))
                || prefix(4) == 6011
                || prefix(2) == 65
                || (644..=649).contains(&prefix(3))
                || (3528..=3589).contains(&prefix(4))
        }
        15 => matches!(prefix(2), 34 | 37),
        14 => (300..=305).contains(&prefix(3)) || matches!(prefix(2), 36 | 38),
        _ => false,
    };
    brand && digits.iter().any(|digit| *digit != digits[0]) && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = (digits.iter().rev().enumerate())
        .map(|(at, digit)| match (at % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => 2 * digit - 9,
            (_, digit) => 2 * digit,
        })
        .sum();
    sum.is_multiple_of(10)
}
