//! Splits bytes into lines, within bounds.

use std::io::{self, BufRead};

use crate::MAX_LINE;

/// What is kept of each end of an over-long line.
const KEPT: usize = MAX_LINE / 2;

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Its bytes without the line end; the middle of an over-long one is replaced by a note.
    pub(crate) text: Vec<u8>,
    /// Bytes read for it, with the line end.
    pub(crate) bytes: u64,
    /// Whether a line end was there.
    pub(crate) ended: bool,
    /// Bytes left out of the middle.
    pub(crate) cut: u64,
}

/// Reads the next line; `None` at the end of the input.
pub(crate) fn next(reader: &mut dyn BufRead) -> io::Result<Option<Taken>> {
    let mut taken = Taken { text: Vec::new(), bytes: 0, ended: false, cut: 0 };
    let mut tail: Vec<u8> = Vec::new();
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if chunk.is_empty() {
            break;
        }
        let end = memchr::memchr(b'\n', chunk);
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = KEPT.saturating_sub(taken.text.len()).min(part.len());
        taken.text.extend_from_slice(&part[..room]);
        tail.extend_from_slice(&part[room..]);
        if tail.len() > 2 * KEPT {
            let excess = tail.len() - KEPT;
            taken.cut += excess as u64;
            tail.drain(..excess);
        }
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        taken.bytes += used as u64;
        if end.is_some() {
            taken.ended = true;
            break;
        }
    }
    if taken.bytes == 0 {
        return Ok(None);
    }
    if taken.cut > 0 || tail.len() > KEPT {
        let excess = tail.len().saturating_sub(KEPT);
        taken.cut += excess as u64;
        taken.text.extend_from_slice(format!(" […{} bytes left out…] ", taken.cut).as_bytes());
        tail.drain(..excess);
    }
    taken.text.append(&mut tail);
    if taken.text.last() == Some(&b'\r') && taken.ended {
        taken.text.pop();
    }
    Ok(Some(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], buffer: usize) -> Vec<Taken> {
        let mut reader = io::BufReader::with_capacity(buffer, bytes);
        std::iter::from_fn(|| next(&mut reader).unwrap()).collect()
    }

    #[test]
    fn lines_are_split_and_count_every_byte() {
        for buffer in [1, 3, 64] {
            let lines = all(b"one\r\n\ntwo\r\xff\nthree", buffer);
            let texts: Vec<_> = lines.iter().map(|line| line.text.as_slice()).collect();
            assert_eq!(texts, [&b"one"[..], b"", b"two\r\xff", b"three"]);
            assert_eq!(lines.iter().map(|line| line.bytes).sum::<u64>(), 17);
            assert_eq!(lines.iter().map(|line| line.ended).collect::<Vec<_>>(), [true, true, true, false]);
        }
    }

    #[test]
    fn an_over_long_line_keeps_both_ends_and_says_what_is_missing() {
        let mut bytes = vec![b'a'; 3 * MAX_LINE];
        bytes.extend_from_slice(b"the end\nnext\n");
        let lines = all(&bytes, 4096);
        assert_eq!(lines.len(), 2);
        let text = String::from_utf8_lossy(&lines[0].text).into_owned();
        assert!(
            text.starts_with("aaaa") && text.ends_with("the end") && text.contains("bytes left out"),
            "{}",
            text.len()
        );
        assert!(text.len() < MAX_LINE + 100);
        assert_eq!(lines[0].cut as usize, 3 * MAX_LINE + 7 - MAX_LINE);
        assert_eq!(lines[0].bytes as usize, 3 * MAX_LINE + 8);
        assert_eq!(lines[1].text, b"next");
    }
}
