//! An unpacked body, read piece by piece: however large it is, only what one record needs is in memory.

use std::{
    fmt,
    io::{self, Read},
};

/// A record that is longer is not read as one.
pub(crate) const MAX_PIECE: usize = bound(8 << 20, 512);
/// What is longer than this needs leave: few may hold so much at once.
pub(crate) const LONG: usize = bound(1 << 20, 256);
/// How much is kept of a body that cannot be read, or of a piece of one.
pub(crate) const KEEP: usize = 256 << 10;
/// How much is read at once.
const STEP: usize = bound(64 << 10, 16);
/// The bytes that are no UTF-8 are characters of a private plane while JSON is read: this one and the byte.
const PRIVATE: u32 = 0x10_f000;

/// Fuzzers try small bodies: for them everything is small.
#[allow(unexpected_cfgs, reason = "set by those who build fuzzers")]
const fn bound(usual: usize, fuzzing: usize) -> usize {
    if cfg!(fuzzing) { fuzzing } else { usual }
}

/// Why a body ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is larger than allowed.
    TooLarge,
    /// It is not what its encoding says.
    Broken(String),
    /// The sender broke off.
    Cut,
    /// There is no memory for a body like this at the moment.
    Busy,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "it is too large",
            Self::Broken(reason) => reason,
            Self::Cut => "it was broken off",
            Self::Busy => "there is no memory for it",
        })
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// What a reader below us ran into; its own complaint is about the compression called `name`.
    pub(crate) fn of(error: &io::Error, name: &str) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            Some(failure) => failure.clone(),
            None => Self::Broken(format!("it is not {name}: {error}")),
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        Self::other(failure)
    }
}

/// Asks for leave to hold much in memory, until the body is done.
pub(crate) type Leave<'r> = &'r dyn Fn() -> bool;

/// What is buffered of a body.
pub(crate) struct Window<'r> {
    input: Box<dyn Read + 'r>,
    leave: Leave<'r>,
    buffer: Vec<u8>,
    from: usize,
    /// What lies behind is not known to be text yet.
    to: usize,
    position: u64,
    has_leave: bool,
    has_ended: bool,
    is_text: bool,
    /// Whether any byte was no UTF-8, and [`restore`] is needed.
    pub(crate) is_repaired: bool,
    /// Why there is no more, unless it is because all was read.
    pub(crate) failure: Option<Failure>,
}

impl<'r> Window<'r> {
    /// A window at the beginning of a body.
    pub(crate) fn new(input: Box<dyn Read + 'r>, leave: Leave<'r>) -> Self {
        Self {
            input,
            leave,
            buffer: Vec::new(),
            from: 0,
            to: 0,
            position: 0,
            has_leave: false,
            has_ended: false,
            is_text: false,
            is_repaired: false,
            failure: None,
        }
    }

    /// What is there and was not skipped.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// How many bytes were skipped since the beginning.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Whether what is there is all that there will be.
    pub(crate) fn is_whole(&self) -> bool {
        self.has_ended
    }

    /// Goes on behind the first bytes.
    pub(crate) fn skip(&mut self, bytes: usize) {
        let bytes = bytes.min(self.to - self.from);
        self.from += bytes;
        self.position += bytes as u64;
    }

    /// Skips bytes that need not be there yet; `false` when the body ends before.
    pub(crate) fn skip_far(&mut self, mut bytes: u64) -> bool {
        loop {
            let there = (self.rest().len() as u64).min(bytes);
            self.skip(there as usize);
            bytes -= there;
            if bytes == 0 {
                return true;
            }
            if !self.more() {
                return false;
            }
        }
    }

    /// Reads until there are so many bytes; `false` when the body ends before.
    pub(crate) fn ensure(&mut self, bytes: usize) -> bool {
        while self.rest().len() < bytes {
            if !self.more() {
                return false;
            }
        }
        true
    }

    /// Reads on: at least as much as there is, so that what is looked at again and again grows in ever larger steps.
    /// `false` at the end.
    pub(crate) fn more(&mut self) -> bool {
        if self.has_ended {
            return false;
        }
        self.buffer.drain(..self.from);
        self.to -= self.from;
        self.from = 0;
        let (before, known) = (self.to, self.buffer.len());
        let wanted = known.clamp(STEP, LONG);
        if known + wanted > LONG + STEP && !self.has_leave {
            self.has_leave = (self.leave)();
            if !self.has_leave {
                self.fail(Failure::Busy);
                return false;
            }
        }
        self.buffer.resize(known + wanted, 0);
        let mut filled = known;
        while filled < known + wanted {
            match self.input.read(&mut self.buffer[filled..]) {
                Ok(0) => {
                    self.has_ended = true;
                    break;
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fail(Failure::of(&error, "readable"));
                    break;
                }
            }
        }
        self.buffer.truncate(filled);
        self.check_text();
        self.to > before || !self.has_ended
    }

    /// Makes all that follows text: bytes that are no UTF-8 become characters that [`restore`] turns back.
    pub(crate) fn make_text(&mut self) {
        self.is_text = true;
        self.to = self.from;
        self.check_text();
    }

    /// Reads and forgets what is left, so that its failures are seen.
    pub(crate) fn finish(&mut self) {
        loop {
            self.skip(usize::MAX);
            self.is_text = false;
            if !self.more() {
                return;
            }
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure);
        self.has_ended = true;
    }

    fn check_text(&mut self) {
        let new = &self.buffer[self.to..];
        if !self.is_text {
            self.to = self.buffer.len();
            return;
        }
        let begin = self.to;
        match std::str::from_utf8(new) {
            // 0xf4 begins the characters of the plane that our own are in.
            Ok(_) if memchr::memchr(0xf4, new).is_none() => self.to = self.buffer.len(),
            Err(error) if error.error_len().is_none() && !self.has_ended && memchr::memchr(0xf4, new).is_none() => {
                self.to += error.valid_up_to();
            }
            _ => {
                let (text, used) = repaired(new, self.has_ended);
                let length = text.len();
                self.buffer.splice(self.to..self.to + used, text);
                self.to += length;
                self.is_repaired = true;
            }
        }
        self.mend_surrogates(begin);
    }

    /// Half a surrogate pair, which cut texts of some languages end with, is no text: it becomes the replacement character,
    /// whose escape is as long.
    fn mend_surrogates(&mut self, begin: usize) {
        let new = &self.buffer[begin..self.to];
        let is_suspect = |mark: &[u8]| memchr::memmem::find(new, mark).is_some();
        let tail = &new[new.len().saturating_sub(PAIR)..];
        if !is_suspect(b"\\ud") && !is_suspect(b"\\uD") && !tail.contains(&b'\\') {
            return;
        }
        let mut at = begin;
        while let Some(found) = memchr::memchr(b'\\', &self.buffer[at..self.to]) {
            at += found;
            let escape = &self.buffer[at..self.to];
            if escape.len() < PAIR && !self.has_ended && escape.is_ascii() {
                // How it goes on is still to come.
                self.to = at;
                return;
            }
            at += match (surrogate(escape), escape.get(PAIR / 2..).and_then(surrogate)) {
                (None, _) => escape.len().min(2),
                (Some(Half::First), Some(Half::Second)) => PAIR,
                (Some(_), _) => {
                    self.buffer[at + 2..at + PAIR / 2].copy_from_slice(b"fffd");
                    PAIR / 2
                }
            };
        }
    }
}

/// Two escapes that are one character.
const PAIR: usize = "\\ud83d\\ude00".len();

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    First,
    Second,
}

/// Which half of a pair an escape is, if it is one.
fn surrogate(escape: &[u8]) -> Option<Half> {
    match escape {
        [b'\\', b'u', b'd' | b'D', third, a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => match third {
            b'8' | b'9' | b'a' | b'b' | b'A' | b'B' => Some(Half::First),
            b'c'..=b'f' | b'C'..=b'F' => Some(Half::Second),
            _ => None,
        },
        _ => None,
    }
}

impl Read for Window<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.rest().is_empty() {
            if !self.more() {
                return self.failure.clone().map_or(Ok(0), |failure| Err(failure.into()));
            }
        }
        let read = self.rest().len().min(out.len());
        out[..read].copy_from_slice(&self.rest()[..read]);
        self.skip(read);
        Ok(read)
    }
}

fn is_private(c: char) -> bool {
    (PRIVATE + 0x80..=PRIVATE + 0xff).contains(&u32::from(c))
}

/// The bytes as text, and how many of them were used: all but the beginning of a character whose end is still to come.
fn repaired(raw: &[u8], is_last: bool) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 8);
    let mut at = 0;
    while at < raw.len() {
        let (valid, wrong) = match std::str::from_utf8(&raw[at..]) {
            Ok(text) => (text, 0),
            Err(error) => {
                let valid = std::str::from_utf8(&raw[at..at + error.valid_up_to()]).unwrap_or_default();
                (valid, error.error_len().unwrap_or(usize::MAX))
            }
        };
        for c in valid.chars() {
            if is_private(c) {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| escape(byte, &mut out));
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        at += valid.len();
        if wrong == usize::MAX && !is_last {
            break;
        }
        let wrong = wrong.min(raw.len() - at);
        raw[at..at + wrong].iter().for_each(|byte| escape(*byte, &mut out));
        at += wrong;
    }
    (out, at)
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    let c = char::from_u32(PRIVATE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// The bytes that were sent; `None` when the text is as it was.
pub(crate) fn restore(text: &[u8]) -> Option<Vec<u8>> {
    let known = std::str::from_utf8(text).ok()?;
    if !known.contains(is_private) {
        return None;
    }
    let mut bytes = Vec::with_capacity(known.len());
    for c in known.chars() {
        if is_private(c) {
            bytes.push((u32::from(c) - PRIVATE) as u8);
        } else {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let bytes = self.1.min(out.len()).min(self.0.len());
            out[..bytes].copy_from_slice(&self.0[..bytes]);
            self.0 = &self.0[bytes..];
            Ok(bytes)
        }
    }

    #[test]
    fn much_needs_leave() {
        let body = vec![b'x'; 3 * LONG];
        let mut window = Window::new(Box::new(&*body), &|| false);
        while window.more() {}
        assert_eq!(window.failure, Some(Failure::Busy));
        assert!(window.rest().len() <= LONG + STEP);
        let mut window = Window::new(Box::new(&*body), &|| true);
        assert!(window.ensure(body.len()) && !window.more());
        // What is skipped needs no room.
        let mut window = Window::new(Box::new(&*body), &|| false);
        assert!(window.skip_far(body.len() as u64) && window.failure.is_none());
    }

    fn read_in_steps(body: &[u8], step: usize) -> Vec<u8> {
        let mut window = Window::new(Box::new(Slow(body, step)), &|| true);
        window.make_text();
        let mut text = Vec::new();
        loop {
            text.extend_from_slice(window.rest());
            window.skip(usize::MAX);
            if !window.more() {
                return text;
            }
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_a_replacement_character_and_whole_ones_stay() {
        let cases = [
            (r#""\ud83d\ude00 \ud83d""#, r#""\ud83d\ude00 \ufffd""#),
            (r#""\ude00\ud83d\ud83d\ude00""#, r#""\ufffd\ufffd\ud83d\ude00""#),
            (r#""\\ud83d \\\ud83d \uD7FF\uDBff""#, r#""\\ud83d \\\ufffd \uD7FF\ufffd""#),
            (r#""\ud83d\n\ud8\ud83"#, r#""\ufffd\n\ud8\ud83"#),
            (r#""\ud83d"#, r#""\ufffd"#),
        ];
        for (sent, wanted) in cases {
            for before in 0..=sent.len() {
                // What is read at once ends in the middle of it.
                let body = " ".repeat(STEP - before) + sent;
                let text = String::from_utf8(read_in_steps(body.as_bytes(), STEP)).unwrap();
                assert_eq!(text.trim_start(), wanted, "after {before} bytes");
            }
        }
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_text_come_back(
            body in prop::collection::vec(
                prop_oneof![any::<u8>(), Just(0xf4), Just(0x8f), Just(0x82), Just(b'\\'), Just(b'u'), Just(b'a')],
                0..300,
            ),
            step in 1_usize..9,
        ) {
            let text = read_in_steps(&body, step);
            prop_assert!(std::str::from_utf8(&text).is_ok());
            prop_assert_eq!(&restore(&text).unwrap_or(text), &body);
        }
    }
}
