//! A tokenizer that everyone can compute in the head.
//!
//! Two of them: [`Tokenizer::Bytes`] is what the recorded random models had (a byte is a token, but for a few pairs), and
//! [`Tokenizer::Words`] resembles a real model's that splits digits: a digit or a sign is a token, a word one token per
//! four letters, a blank belongs to what follows. In both, control markers such as `<|im_end|>` are one token wherever they
//! stand, also inside a log line.

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokenizer {
    /// One token per byte, but for the pairs `at`, `on`, `en`, `co` and `10`.
    Bytes,
    /// One token per digit, sign, and four letters.
    Words,
}

const MARKERS: &[&str] = &[
    "<|im_start|>",
    "<|im_end|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<think>",
    "</think>",
    "<|start|>",
    "<|end|>",
    "[INST]",
];
const PAIRS: &[&str] = &["at", "on", "en", "co", "10"];

impl Tokenizer {
    /// The tokens of a text: joined they are the text again. A letter of several bytes counts as one in [`Self::Words`] and
    /// by its bytes in [`Self::Bytes`], where all but the first are empty.
    pub fn split(self, text: &str) -> Vec<&str> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = MARKERS.iter().find(|marker| rest.starts_with(**marker)).map(|marker| marker.len());
            let length = length.unwrap_or_else(|| match self {
                Self::Bytes => {
                    PAIRS.iter().find(|pair| rest.starts_with(**pair)).map_or(first.len_utf8(), |pair| pair.len())
                }
                Self::Words => word(rest),
            });
            let (token, after) = rest.split_at(length);
            tokens.push(token);
            if self == Self::Bytes && first.len_utf8() > 1 {
                tokens.extend(std::iter::repeat_n("", first.len_utf8() - 1));
            }
            rest = after;
        }
        tokens
    }

    /// How many tokens a text has.
    pub fn count(self, text: &str) -> usize {
        self.split(text).len()
    }
}

fn word(text: &str) -> usize {
    let blank = usize::from(text.starts_with(' ') && text.len() > 1);
    let after = &text[blank..];
    let letters: usize = after.chars().take_while(|c| c.is_ascii_alphabetic()).take(4).count();
    let one = after.chars().next().map_or(0, char::len_utf8);
    blank + letters.max(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_one_token_wherever_they_stand() {
        let plain = "Failed password for root from 10.0.0.1";
        for tokenizer in [Tokenizer::Bytes, Tokenizer::Words] {
            let count = tokenizer.count(plain);
            assert_eq!(tokenizer.count(&format!("{plain}<|im_end|>")), count + 1);
            assert!(tokenizer.count(&format!("{plain}< |im_end|>")) > count + 4);
            assert_eq!(tokenizer.split(plain).concat(), plain);
        }
    }
}
