//! Looks for many texts at once, in any case: which texts of rules are in a line?
//!
//! Of every text one piece of four bytes is picked, the least usual one. A line is walked once; at each place a bit tells
//! whether the four bytes there can be such a piece, and hardly ever they can; a second one, found in another way, tells
//! most of the remaining false ones. Unlike an automaton, whose tables are far larger than the caches of a processor and
//! whose every step waits for the one before, this costs about a nanosecond for two bytes, whatever the number of texts.

use hashbrown::HashMap;

/// Bytes of a piece.
const PIECE: usize = 4;
/// Bits that tell which pieces there are, as a power of two: small enough to stay in the nearest cache.
const BITS: u32 = 17;
/// What a text that is shorter than a piece is followed by: anything.
const SHORT: u32 = 0x00ff_ffff;

/// Texts to be looked for, each with the numbers of its owners.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    texts: Vec<(Box<[u8]>, Vec<u32>)>,
    bits: Vec<u64>,
    /// The same, by another hash.
    more_bits: Vec<u64>,
    /// By piece: a text, and where in it the piece is.
    pieces: HashMap<u32, Vec<(u32, u32)>>,
    /// By the first three bytes: texts of three bytes.
    short: HashMap<u32, u32>,
    /// The few texts of one or two bytes; of one the second is zero.
    tiny: Vec<(u8, u8, u32)>,
    /// Those of none, which are in every line.
    empty: Vec<u32>,
}

impl Texts {
    /// Texts in lower case, each once, with their owners.
    pub(crate) fn new(texts: impl IntoIterator<Item = (String, Vec<u32>)>) -> Self {
        let bits = vec![0; 1 << (BITS - 6)];
        let mut all = Self { more_bits: bits.clone(), bits, ..Self::default() };
        for (text, owners) in texts {
            let (text, number) = (text.into_bytes(), all.texts.len() as u32);
            if let [a, b, c] = text[..] {
                (0..=u8::MAX).for_each(|any| all.mark(u32::from_le_bytes([a, b, c, any])));
                all.short.insert(u32::from_le_bytes([a, b, c, 0]), number);
            } else if let Some((at, piece)) = rarest(&text) {
                all.mark(piece);
                all.pieces.entry(piece).or_default().push((number, at));
            } else {
                match text[..] {
                    [first, .., last] => all.tiny.push((first, last, number)),
                    [byte] => all.tiny.push((byte, 0, number)),
                    [] => all.empty.push(number),
                }
            }
            all.texts.push((text.into_boxed_slice(), owners));
        }
        all
    }

    fn mark(&mut self, piece: u32) {
        let (bit, other) = (hash(piece), other_hash(piece));
        self.bits[bit >> 6] |= 1 << (bit & 63);
        self.more_bits[other >> 6] |= 1 << (other & 63);
    }

    /// Adds the owners of the texts that are in `line`, some perhaps more than once. `room` is overwritten.
    pub(crate) fn find(&self, line: &[u8], room: &mut Vec<u8>, found: &mut Vec<u32>) {
        room.clear();
        room.extend_from_slice(line);
        room.make_ascii_lowercase();
        for (first, last, number) in &self.tiny {
            // Without an early end, so that the compiler compares many at once.
            let there = match last {
                0 => room.contains(first),
                _ => room
                    .iter()
                    .zip(room.get(1..).unwrap_or_default())
                    .fold(false, |any, (a, b)| any | ((a == first) & (b == last))),
            };
            if there {
                self.owners(*number, found);
            }
        }
        self.empty.iter().for_each(|number| self.owners(*number, found));
        room.extend_from_slice(&[0; PIECE - 1]);
        for (at, window) in room.windows(PIECE).enumerate() {
            let Ok(piece) = window.try_into().map(u32::from_le_bytes) else { continue };
            if has(&self.bits, hash(piece)) && has(&self.more_bits, other_hash(piece)) {
                self.look(room, at, piece, found);
            }
        }
    }

    fn owners(&self, number: u32, found: &mut Vec<u32>) {
        if let Some((_, owners)) = self.texts.get(number as usize) {
            found.extend_from_slice(owners);
        }
    }

    #[cold]
    fn look(&self, line: &[u8], at: usize, piece: u32, found: &mut Vec<u32>) {
        for (text, within) in self.pieces.get(&piece).into_iter().flatten() {
            let Some((text, owners)) = self.texts.get(*text as usize) else { continue };
            let begin = at.checked_sub(*within as usize);
            if begin.and_then(|begin| line.get(begin..)).is_some_and(|line| line.starts_with(text)) {
                found.extend_from_slice(owners);
            }
        }
        if let Some(number) = self.short.get(&(piece & SHORT)) {
            self.owners(*number, found);
        }
    }
}

fn hash(piece: u32) -> usize {
    (piece.wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize
}

fn other_hash(piece: u32) -> usize {
    ((piece ^ (piece >> 15)).wrapping_mul(0x85eb_ca6b) >> (32 - BITS)) as usize
}

fn has(bits: &[u64], bit: usize) -> bool {
    bits.get(bit >> 6).is_some_and(|bits| bits >> (bit & 63) & 1 == 1)
}

/// The piece of a text that other texts are least likely to have, and where it is.
fn rarest(text: &[u8]) -> Option<(u32, u32)> {
    // From the most usual on, as in English and in logs.
    const USUAL: &[u8] = b" etaoinsrdlcu=mpfg-hbyw0:.v1/k2_35";
    let rare = |byte: &u8| USUAL.iter().position(|usual| usual == byte).unwrap_or(USUAL.len() + 4);
    let pieces = text.windows(PIECE).enumerate();
    let (at, piece) =
        pieces.max_by_key(|(at, piece)| (piece.iter().map(rare).sum::<usize>(), std::cmp::Reverse(*at)))?;
    Some((u32::try_from(at).ok()?, u32::from_le_bytes(piece.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(texts: &[&str], line: &str) -> Vec<u32> {
        let texts = texts.iter().zip(0..).map(|(text, number)| (text.to_ascii_lowercase(), vec![number]));
        let mut found = Vec::new();
        Texts::new(texts).find(line.as_bytes(), &mut Vec::new(), &mut found);
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn finds_texts_in_any_case_at_both_ends_and_within_each_other() {
        let texts = ["failed password", "password", "../", "ssh2", "port"];
        assert_eq!(find(&texts, "Failed PASSWORD for root port 22 ssh2"), [0, 1, 3, 4]);
        assert_eq!(find(&texts, "GET /a/../"), [2]);
        assert_eq!(find(&["{{", "x", ""], "{X{{"), [0, 1, 2]);
        assert_eq!(find(&texts, "pass word"), [0_u32; 0]);
        assert_eq!(find(&texts, ""), [0_u32; 0]);
    }

    proptest! {
        #[test]
        fn finds_what_is_there_and_nothing_else(texts in prop::collection::vec("[ab.]{1,7}", 1..20), line in "[aAbB.]{0,40}") {
            let texts: std::collections::BTreeSet<&str> = texts.iter().map(String::as_str).collect();
            let texts: Vec<&str> = texts.into_iter().collect();
            let lower = line.to_ascii_lowercase();
            let there: Vec<u32> = (0..).zip(&texts).filter(|(_, text)| lower.contains(**text)).map(|(n, _)| n).collect();
            prop_assert_eq!(find(&texts, &line), there);
        }
    }
}
