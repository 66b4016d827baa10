//! Snappy's raw blocks, unpacked while they are read: neither the block nor what is in it is ever whole in memory.
//!
//! The format: <https://github.com/google/snappy/blob/main/format_description.txt>.

use std::io::{self, BufRead, Read};

use crate::window::Failure;

/// How far back a block may refer. The format has no bound, its encoders have one of 64 KiB.
const HISTORY: usize = 1 << 20;
/// How much is unpacked at once.
const STEP: usize = 64 << 10;

/// Reads what is in a block.
pub(crate) struct Block<R> {
    input: R,
    /// What was unpacked last: what is still to be given, and before it what may be referred to.
    out: Vec<u8>,
    from: usize,
    /// What is still to be unpacked, and how much of it follows as it is.
    left: u64,
    literal: u64,
}

impl<R: BufRead> Block<R> {
    /// A block that says that it holds at most `limit` bytes.
    pub(crate) fn new(mut input: R, limit: usize) -> Result<Self, Failure> {
        let mut left = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = u64::from(one(&mut input).map_err(|error| Failure::of(&error, "snappy"))?);
            left |= (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return match left <= limit as u64 {
                    true => Ok(Self { input, out: Vec::new(), from: 0, left, literal: 0 }),
                    false => Err(Failure::TooLarge),
                };
            }
        }
        Err(Failure::Broken("it is not snappy: its length cannot be read".to_owned()))
    }

    fn more(&mut self) -> io::Result<()> {
        if self.out.len() > 2 * HISTORY {
            self.out.drain(..self.out.len() - HISTORY);
        }
        self.from = self.out.len();
        while self.out.len() - self.from < STEP && self.left > 0 {
            match self.literal {
                0 => self.element()?,
                _ => self.take_literal()?,
            }
        }
        if self.left == 0 && self.out.len() == self.from && !self.input.fill_buf()?.is_empty() {
            return Err(broken("there is more behind it"));
        }
        Ok(())
    }

    fn take_literal(&mut self) -> io::Result<()> {
        let there = self.input.fill_buf()?;
        if there.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = there.len().min(STEP).min(usize::try_from(self.literal).unwrap_or(usize::MAX));
        self.out.extend_from_slice(&there[..taken]);
        self.input.consume(taken);
        self.literal -= taken as u64;
        self.left -= taken as u64;
        Ok(())
    }

    fn element(&mut self) -> io::Result<()> {
        let tag = one(&mut self.input)?;
        let upper = u64::from(tag >> 2);
        let (length, offset) = match tag & 3 {
            0 => {
                let length = if upper < 60 { upper } else { self.number(upper as usize - 59)? };
                self.literal = self.fits(length + 1)?;
                return Ok(());
            }
            1 => (4 + (upper & 7), u64::from(tag >> 5) << 8 | self.number(1)?),
            2 => (1 + upper, self.number(2)?),
            _ => (1 + upper, self.number(4)?),
        };
        let length = self.fits(length)? as usize;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(mut start) = self.out.len().checked_sub(offset).filter(|_| offset > 0) else {
            return Err(broken("it refers to what is not there, or too far back"));
        };
        let end = self.out.len() + length;
        // What is referred to may begin before its own end: then it repeats itself.
        while self.out.len() < end {
            let there = (self.out.len() - start).min(end - self.out.len());
            self.out.extend_from_within(start..start + there);
            start += there;
        }
        self.left -= length as u64;
        Ok(())
    }

    fn fits(&self, length: u64) -> io::Result<u64> {
        if length > self.left { Err(broken("it is longer than it says")) } else { Ok(length) }
    }

    fn number(&mut self, bytes: usize) -> io::Result<u64> {
        let mut number = [0; 8];
        self.input.read_exact(&mut number[..bytes])?;
        Ok(u64::from_le_bytes(number))
    }
}

fn one(input: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    input.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn broken(reason: &str) -> io::Error {
    Failure::Broken(format!("it is not snappy: {reason}")).into()
}

impl<R: BufRead> Read for Block<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.from == self.out.len() {
            self.more()?;
        }
        let read = out.len().min(self.out.len() - self.from);
        out[..read].copy_from_slice(&self.out[self.from..self.from + read]);
        self.from += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unpacked(block: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
        let mut out = Vec::new();
        Block::new(block, limit)?.read_to_end(&mut out).map_err(|error| Failure::of(&error, "snappy"))?;
        Ok(out)
    }

    #[test]
    fn what_is_long_is_never_whole_in_memory() {
        let text: Vec<u8> = (0..5_u32 << 20).map(|n| (n.wrapping_mul(n >> 9) >> 13) as u8).collect();
        let block = snap::raw::Encoder::new().compress_vec(&text).unwrap();
        let (mut reader, mut out, mut most) = (Block::new(&*block, text.len()).unwrap(), Vec::new(), 0);
        let mut piece = vec![0; 100_000];
        loop {
            let read = reader.read(&mut piece).unwrap();
            out.extend_from_slice(&piece[..read]);
            most = most.max(reader.out.len());
            if read == 0 {
                break;
            }
        }
        assert!(out == text && most < 3 * HISTORY, "{most}");
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out(words in prop::collection::vec("[a-c]{0,9}", 0..300), repeated in 1_usize..30) {
            let text = words.concat().repeat(repeated).into_bytes();
            let block = snap::raw::Encoder::new().compress_vec(&text).unwrap();
            prop_assert_eq!(unpacked(&block, text.len()), Ok(text.clone()));
            prop_assert!(text.is_empty() || unpacked(&block, text.len() - 1) == Err(Failure::TooLarge));
            // Cut off, and with something behind it.
            let cut = &block[..block.len() - 1];
            prop_assert!(matches!(unpacked(cut, text.len()), Err(Failure::Broken(_))));
            prop_assert!(matches!(unpacked(&[&block[..], b"x"].concat(), text.len()), Err(Failure::Broken(_))));
        }

        #[test]
        fn any_bytes_are_read_as_the_other_decoder_reads_them(
            elements in prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(1), Just(5), Just(0xf0)], 0..60),
            length in 0_u8..100,
        ) {
            let block = [&[length], &elements[..]].concat();
            let theirs = snap::raw::Decoder::new().decompress_vec(&block).ok();
            prop_assert_eq!(unpacked(&block, 1000).ok(), theirs);
        }
    }
}
