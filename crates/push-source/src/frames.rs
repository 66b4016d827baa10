//! Syslog over a stream: messages one after another, ended by a line feed or NUL, or with their length before them
//! (RFC 6587).

/// A message that is longer loses what is over.
pub(crate) const MAX_FRAME: usize = 64 << 10;
/// Digits of a length at most.
const DIGITS: usize = 9;

/// Cuts bytes as they arrive into messages.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    /// Of a message that is too long: how it goes on.
    rest: Option<Rest>,
    /// Messages that were cut.
    pub(crate) cut: u64,
}

#[derive(Clone, Copy, Debug)]
enum Rest {
    Bytes(usize),
    Line,
}

impl Frames {
    /// Takes bytes, and gives the messages that are complete with them.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<Vec<u8>>) {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((frame, used)) = self.next(at) {
            out.extend(frame);
            at += used;
        }
        self.buffer.drain(..at);
        if self.buffer.is_empty() {
            // A connection that waits for hours needs no memory.
            self.buffer = Vec::new();
        }
    }

    /// What is left at the end of the connection.
    pub(crate) fn finish(&mut self) -> Option<Vec<u8>> {
        let left = std::mem::take(&mut self.buffer);
        let is_rest = self.rest.take().is_some();
        (!is_rest && !left.is_empty()).then_some(left)
    }

    /// The message that begins there, and how many bytes of the buffer it takes; `None` when its end is not there.
    fn next(&mut self, at: usize) -> Option<(Option<Vec<u8>>, usize)> {
        let bytes = &self.buffer[at..];
        if bytes.is_empty() {
            return None;
        }
        match self.rest {
            Some(Rest::Bytes(left)) => {
                let used = left.min(bytes.len());
                self.rest = (used < left).then_some(Rest::Bytes(left - used));
                return Some((None, used));
            }
            Some(Rest::Line) => {
                let end = memchr::memchr2(b'\n', 0, bytes);
                self.rest = if end.is_some() { None } else { self.rest };
                return Some((None, end.map_or(bytes.len(), |end| end + 1)));
            }
            None => {}
        }
        if let Some(counted) = length(bytes) {
            let (length, digits) = counted?;
            let taken = length.min(MAX_FRAME);
            let frame = bytes[digits..].get(..taken)?;
            let frame = frame.strip_suffix(b"\n").unwrap_or(frame).to_vec();
            if taken < length {
                self.rest = Some(Rest::Bytes(length - taken));
                self.cut += 1;
            }
            return Some((Some(frame).filter(|frame| !frame.is_empty()), digits + taken));
        }
        if let Some(end) = memchr::memchr2(b'\n', 0, bytes).filter(|end| *end <= MAX_FRAME) {
            let frame = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
            return Some((Some(frame.to_vec()).filter(|frame| !frame.is_empty()), end + 1));
        }
        if bytes.len() < MAX_FRAME {
            return None;
        }
        self.rest = Some(Rest::Line);
        self.cut += 1;
        Some((Some(bytes[..MAX_FRAME].to_vec()), MAX_FRAME))
    }
}

/// The length before a message, and how many bytes it takes with its blank: `None` when there is none, `Some(None)` when
/// that cannot be told yet.
fn length(bytes: &[u8]) -> Option<Option<(usize, usize)>> {
    if !matches!(bytes[0], b'1'..=b'9') {
        return None;
    }
    let digits = bytes.iter().take(DIGITS).take_while(|b| b.is_ascii_digit()).count();
    match bytes.get(digits) {
        None => Some(None),
        // Only a length is followed by a priority; a line of text may begin with a number, too.
        Some(b' ') => match bytes.get(digits + 1) {
            None => Some(None),
            Some(b'<' | b'{') => {
                let length = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
                Some(Some((length, digits + 1)))
            }
            Some(_) => None,
        },
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(bytes: &[u8], step: usize) -> (Vec<String>, u64) {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        bytes.chunks(step).for_each(|chunk| frames.push(chunk, &mut out));
        out.extend(frames.finish());
        (out.iter().map(|frame| frame.escape_ascii().to_string()).collect(), frames.cut)
    }

    #[track_caller]
    fn check(bytes: &[u8], wanted: &[&str]) {
        for step in [1, 2, 3, 7, bytes.len()] {
            assert_eq!(frames(bytes, step).0, wanted, "in steps of {step}");
        }
    }

    #[test]
    fn every_framing_is_understood_also_mixed() {
        check(b"<13>one\n<13>two\r\n\n<13>three", &["<13>one", "<13>two", "<13>three"]);
        check(b"<13>one\0<13>two\0", &["<13>one", "<13>two"]);
        check(b"7 <13>one8 <13>t\nwo", &["<13>one", "<13>t\\nwo"]);
        // rsyslog counts its line feed.
        check(b"8 <13>one\n8 <13>two\n<13>three\n", &["<13>one", "<13>two", "<13>three"]);
        check(b"2026-11-21 a line\n42 is a number\n", &["2026-11-21 a line", "42 is a number"]);
        check(b"15 {\"message\":\"x\"}\n", &["{\\\"message\\\":\\\"x\\\"}"]);
        check(b"9999999999 <13>x\n", &["9999999999 <13>x"]);
    }

    #[test]
    fn what_is_too_long_is_cut_and_the_next_one_is_found() {
        let long = "x".repeat(3 * MAX_FRAME);
        let lines = format!("{long}\n<13>next\n");
        let counted = format!("{} <13>{long}7 <13>one", long.len() + 4);
        for (bytes, next) in [(lines, "<13>next"), (counted, "<13>one")] {
            for step in [1000, bytes.len()] {
                let (found, cut) = frames(bytes.as_bytes(), step);
                assert_eq!((found.len(), found[0].len(), cut), (2, MAX_FRAME, 1));
                assert_eq!(found[1], next);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_in_the_same_way_however_they_arrive(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'1'), Just(b' '), Just(b'<')], 1..200),
            step in 1_usize..50,
        ) {
            prop_assert_eq!(frames(&bytes, step), frames(&bytes, bytes.len()));
        }
    }
}
