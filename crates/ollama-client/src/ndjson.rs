//! Splits a stream of bytes into lines, wherever the network cut it.

/// The longest line that the server itself allows.
pub(crate) const LONGEST_LINE: usize = 8 << 20;

/// A line longer than [`LONGEST_LINE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Bytes that came and were not yet a line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    /// Up to here there is no newline.
    searched: usize,
}

impl Lines {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.buffer.len() + bytes.len() > LONGEST_LINE {
            return Err(TooLong);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole line, if there is one.
    pub(crate) fn next_line(&mut self) -> Option<Vec<u8>> {
        loop {
            let at = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            let Some(at) = at else {
                self.searched = self.buffer.len();
                return None;
            };
            let mut line: Vec<u8> = self.buffer.drain(..=self.searched + at).collect();
            self.searched = 0;
            line.pop();
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }

    /// What came after the last newline.
    pub(crate) fn rest(self) -> Option<Vec<u8>> {
        Some(self.buffer).filter(|rest| !rest.trim_ascii().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_were_cut(text in "[aé😀\n]{0,80}", cut in 1_usize..9) {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for part in text.as_bytes().chunks(cut) {
                lines.push(part).unwrap();
                while let Some(line) = lines.next_line() {
                    found.push(String::from_utf8(line).unwrap());
                }
            }
            found.extend(lines.rest().map(|rest| String::from_utf8(rest).unwrap()));
            let expected: Vec<_> = text.split('\n').filter(|line| !line.is_empty()).map(str::to_owned).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&vec![b'x'; LONGEST_LINE]), Ok(()));
        assert_eq!(lines.push(b"x"), Err(TooLong));
    }
}
