//! The scanner: one pass over a message, without regexes, that tells what is constant from what varies.
//!
//! A message becomes *pieces*: each a separator and a word, or a separator and a variable. The sum of the pieces' keyed
//! hashes, each mixed with its position, is the line's *key*: one look-up with it finds the template, and "the same line
//! with that word masked" is a subtraction and an addition.
//!
//! Every decision depends on the line alone, never on lines seen before: the masked text is canonical.

use crate::{LeafId, SlotKind, lexicon};

/// More pieces are not looked at: the rest of the line is one variable.
pub(crate) const MAX_PIECES: usize = 120;
/// More bytes are not looked at: the rest of the line is one variable.
pub(crate) const MAX_BYTES: usize = 8 * 1024;

const SEP: u8 = 1;
const DIGIT: u8 = 2;
const DOT: u8 = 4;
const SLASH: u8 = 8;
const AT: u8 = 16;
const HEX: u8 = 32;
const ALPHA: u8 = 64;
const OTHER: u8 = 128;

/// What each byte is. Blanks and control characters separate like brackets, quotes and `= : , ; | < >`.
const CLASS: [u8; 256] = {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            0..=b' ' | 0x7f => SEP,
            b'=' | b':' | b',' | b';' | b'(' | b')' | b'[' | b']' | b'{' | b'}' => SEP,
            b'"' | b'\'' | b'|' | b'<' | b'>' => SEP,
            b'0'..=b'9' => DIGIT,
            b'.' => DOT,
            b'/' | b'\\' => SLASH,
            b'@' => AT,
            b'a'..=b'f' | b'A'..=b'F' => HEX,
            b'g'..=b'z' | b'G'..=b'Z' | 0x80.. => ALPHA,
            _ => OTHER,
        };
        byte += 1;
    }
    table
};

/// A keyed hash: who does not know the installation's secret cannot aim at a collision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed {
    seed: u64,
    user: u64,
}

/// The hash of a variable that the scanner found.
const VAR: u64 = 0x9e37_79b9_7f4a_7c15;
/// The hash of a word position that varies.
pub(crate) const ANY_WORD: u64 = 0xc2b2_ae3d_27d4_eb4f;

const MIX: u64 = 0xa076_1d64_78bd_642f;

/// The hash of some bytes.
#[inline]
pub(crate) fn hash(bytes: &[u8], start: u64, end: u64) -> u64 {
    let mut hash = start;
    let mut rest = bytes;
    while let Some((chunk, more)) = rest.split_first_chunk::<8>() {
        if more.is_empty() {
            break;
        }
        hash = fold(hash ^ u64::from_le_bytes(*chunk), MIX);
        rest = more;
    }
    // 0 to 8 bytes are left; overlapping reads cover them all.
    let tail = match rest.len() {
        0 => 0,
        len @ 1..4 => u64::from(rest[0]) | u64::from(rest[len / 2]) << 8 | u64::from(rest[len - 1]) << 16,
        len => {
            let read = |at: usize| rest[at..].first_chunk().map_or(0, |four| u64::from(u32::from_le_bytes(*four)));
            read(0) | read(len - 4) << 32
        }
    };
    fold(hash ^ tail, end ^ (bytes.len() as u64).wrapping_mul(VAR))
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Keyed {
    pub(crate) fn new(secret: u64) -> Self {
        let seed = fold(secret ^ 0xe703_7ed1_a0b4_28db, MIX) | 1;
        let mut keyed = Self { seed, user: 0 };
        keyed.user = keyed.word(b"user", BLANK);
        keyed
    }

    /// The hash of a word behind a separator.
    #[inline]
    fn word(&self, word: &[u8], sep: u64) -> u64 {
        hash(word, self.seed ^ sep.wrapping_mul(MIX), self.seed)
    }

    #[inline]
    fn var(&self, sep: u64) -> u64 {
        self.placed(VAR, sep)
    }

    /// The hash of one of the variables' constants behind a separator.
    pub(crate) fn placed(&self, what: u64, sep: u64) -> u64 {
        fold(what ^ self.seed, sep.wrapping_mul(MIX) ^ VAR)
    }

    /// What a piece adds to the key.
    #[inline]
    pub(crate) fn at(&self, hash: u64, position: usize) -> u64 {
        fold(hash ^ self.seed, (position as u64).wrapping_mul(0xff51_afd7_ed55_8ccd) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The hash of an id.
    pub(crate) fn id(&self, id: LeafId) -> u64 {
        self.word(&id.bits().to_le_bytes(), 1)
    }

    /// The first summand: lines of different programs have different keys.
    pub(crate) fn program(&self, program: &[u8]) -> u64 {
        self.word(program, 0)
    }
}

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A constant word, or nothing after the last separator.
    Word,
    /// A variable.
    Var,
    /// A status of which the class is constant: written `5xx`.
    Status(u8),
}

/// A separator and what follows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) what: What,
    /// Hash of separator and word.
    pub(crate) hash: u64,
    /// Hash of the separator.
    pub(crate) sep_hash: u64,
    sep: (u32, u32),
    word: (u32, u32),
}

/// The value of a variable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    pub(crate) kind: SlotKind,
    start: u32,
    end: u32,
}

/// A scanned message; reused from line to line.
#[derive(Debug)]
pub(crate) struct Masked {
    keyed: Keyed,
    /// The sum over the pieces.
    pub(crate) key: u64,
    pub(crate) pieces: Vec<Piece>,
    /// One for each piece that is a variable.
    pub(crate) values: Vec<Value>,
    /// Text that the pieces refer to when they were not scanned from one slice.
    scratch: Vec<u8>,
    own: bool,
}

/// A separator as it is gathered.
#[derive(Clone, Copy)]
struct Sep {
    start: usize,
    hash: u64,
    /// Its last byte that is no blank; 0 when there is none.
    last: u8,
    blank_after: bool,
    /// Made of blanks, colons and commas only: joins neighbouring variables.
    joins: bool,
}

impl Sep {
    fn new(start: usize) -> Self {
        Self { start, hash: 0, last: 0, blank_after: false, joins: true }
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        if byte <= b' ' || byte == 0x7f {
            if self.blank_after {
                return;
            }
            self.blank_after = true;
            self.hash = (self.hash ^ 0x20).wrapping_mul(0x0100_0000_01b3);
        } else {
            self.blank_after = false;
            self.last = byte;
            self.joins &= byte == b':' || byte == b',';
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn is_blank(&self) -> bool {
        self.last == 0 && self.blank_after
    }

    /// Whether what follows is a value: `=`, perhaps with blanks after it.
    fn assigns(&self) -> bool {
        self.last == b'='
    }
}

const BLANK: u64 = 0x20_u64.wrapping_mul(0x0100_0000_01b3);
const BLANK_OPEN: u64 = (BLANK ^ b'(' as u64).wrapping_mul(0x0100_0000_01b3);

/// How to read a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A log line: decide what varies.
    Line,
    /// A template's text: what varies is written `<*>`.
    Template,
}

impl Masked {
    pub(crate) fn new(keyed: Keyed) -> Self {
        Self { keyed, key: 0, pieces: Vec::new(), values: Vec::new(), scratch: Vec::new(), own: false }
    }

    fn clear(&mut self, program: u64) {
        self.key = program;
        self.pieces.clear();
        self.values.clear();
        self.scratch.clear();
        self.own = false;
    }

    /// Scans a message.
    pub(crate) fn line(&mut self, program: u64, text: &[u8]) {
        self.clear(program);
        self.scan(text, 0, Mode::Line);
    }

    /// Reads a template's text.
    pub(crate) fn template(&mut self, program: u64, text: &[u8]) {
        self.clear(program);
        self.scan(text, 0, Mode::Template);
    }

    /// Starts a message that is made of parts.
    pub(crate) fn compose(&mut self, program: u64) {
        self.clear(program);
        self.own = true;
    }

    /// Adds a message to those parts.
    pub(crate) fn add_line(&mut self, text: &[u8]) {
        self.add(text, Mode::Line);
    }

    /// Adds text that is a template's already.
    pub(crate) fn add_template(&mut self, text: &[u8]) {
        self.add(text, Mode::Template);
    }

    fn add(&mut self, text: &[u8], mode: Mode) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let from = scratch.len();
        scratch.extend_from_slice(text);
        self.scan(&scratch, from, mode);
        self.scratch = scratch;
    }

    /// Adds `<blank>key=` and a variable.
    pub(crate) fn add_value(&mut self, key: &[u8], value: &[u8], kind: SlotKind) {
        if self.pieces.len() + 2 > MAX_PIECES {
            return;
        }
        self.add_key(key);
        let mut sep = Sep::new(self.scratch.len());
        sep.push(b'=');
        self.scratch.push(b'=');
        let start = self.scratch.len();
        self.scratch.extend_from_slice(&value[..value.len().min(MAX_BYTES)]);
        let end = self.scratch.len();
        self.push_var(sep, start, end, kind);
    }

    /// Adds `<blank>key=constant`.
    pub(crate) fn add_constant(&mut self, key: &[u8], value: &[u8]) {
        if self.pieces.len() + 2 > MAX_PIECES {
            return;
        }
        self.add_key(key);
        self.add_template(&[b"=", &value[..value.len().min(64)]].concat());
    }

    fn add_key(&mut self, key: &[u8]) {
        let mut sep = Sep::new(self.scratch.len());
        sep.push(b' ');
        self.scratch.push(b' ');
        let start = self.scratch.len();
        let word = key.iter().map(|b| if CLASS[usize::from(*b)] == SEP { b'_' } else { *b });
        self.scratch.extend(word.take(128));
        let scratch = std::mem::take(&mut self.scratch);
        self.push_word(&scratch, sep, start, scratch.len());
        self.scratch = scratch;
    }

    /// The text that the pieces refer to, when `text` is what was scanned.
    pub(crate) fn source<'s>(&'s self, text: &'s [u8]) -> &'s [u8] {
        if self.own { &self.scratch } else { text }
    }

    /// A variable's bytes.
    pub(crate) fn value<'s>(source: &'s [u8], value: &Value) -> &'s [u8] {
        &source[value.start as usize..value.end as usize]
    }

    /// A constant word's bytes.
    pub(crate) fn word<'s>(source: &'s [u8], piece: &Piece) -> &'s [u8] {
        match piece.what {
            What::Word => &source[piece.word.0 as usize..piece.word.1 as usize],
            What::Status(class) => STATUS[usize::from(class.min(5))],
            What::Var => b"",
        }
    }

    /// Whether the word before a piece is the key of it, as in `user=…` or `user="…`.
    pub(crate) fn assigns(source: &[u8], piece: &Piece) -> bool {
        let sep = &source[piece.sep.0 as usize..piece.sep.1 as usize];
        let end = sep.iter().rposition(|byte| *byte > b' ' && *byte != 0x7f).map_or(0, |last| last + 1);
        matches!(&sep[..end], [.., b'='] | [.., b'=', b'"' | b'\''])
    }

    /// Appends a piece's separator as templates write it: runs of blanks are one.
    pub(crate) fn write_sep(source: &[u8], piece: &Piece, out: &mut Vec<u8>) {
        let mut blank = false;
        for byte in &source[piece.sep.0 as usize..piece.sep.1 as usize] {
            let is_blank = *byte <= b' ' || *byte == 0x7f;
            if !is_blank {
                out.push(*byte);
            } else if !blank {
                out.push(b' ');
            }
            blank = is_blank;
        }
    }

    /// Whether a piece's separator joins it with a variable before it.
    pub(crate) fn joins(source: &[u8], piece: &Piece) -> bool {
        source[piece.sep.0 as usize..piece.sep.1 as usize].iter().all(|b| *b <= b' ' || matches!(*b, b':' | b','))
    }

    fn scan(&mut self, text: &[u8], from: usize, mode: Mode) {
        // A little more than is looked at, so that one sees that there is more.
        let text = &text[..text.len().min(from + MAX_BYTES + 1)];
        let end = text.len().min(from + MAX_BYTES);
        let mut at = from;
        let mut sep = Sep::new(at);
        loop {
            // The separator; most are one blank.
            if at > from
                && sep.start == at
                && end - at > 1
                && text[at] == b' '
                && CLASS[usize::from(text[at + 1])] != SEP
            {
                (sep.hash, sep.blank_after) = (BLANK, true);
                at += 1;
            }
            while at < end {
                let byte = text[at];
                if CLASS[usize::from(byte)] != SEP {
                    break;
                }
                if byte == b'<'
                    && self.pieces.len() < MAX_PIECES
                    && let Some(len) = lexicon::placeholder(&text[at..end])
                {
                    self.push_placeholder(text, sep, at, len, mode);
                    at += len;
                    sep = Sep::new(at);
                    continue;
                }
                if matches!(byte, b'<' | b'>')
                    && mode == Mode::Line
                    && sep.blank_after
                    && text.get(at + 1).is_some_and(u8::is_ascii_digit)
                {
                    // `<1 sec`: belongs to the number.
                    break;
                }
                if byte == b')' && mode == Mode::Line {
                    if sep.start == at && self.drop_optional(text, at) {
                        at += 1;
                        sep = Sep::new(at);
                        continue;
                    }
                    if sep.hash == BLANK_OPEN && self.pieces.last().is_some_and(|last| last.what == What::Var) {
                        // ` ()` behind a variable: an optional part that is empty.
                        at += 1;
                        sep = Sep::new(at);
                        continue;
                    }
                }
                if byte <= b' ' && sep.start == at && self.pieces.is_empty() {
                    sep.start = at + 1;
                } else {
                    sep.push(byte);
                }
                at += 1;
            }
            if at >= end {
                break;
            }
            if self.pieces.len() >= MAX_PIECES {
                self.push_var(sep, at, text.len(), SlotKind::Any);
                return;
            }
            // The word.
            let start = at;
            at += usize::from(CLASS[usize::from(text[at])] == SEP);
            let mut bits = 0;
            for byte in &text[at..end] {
                let class = CLASS[usize::from(*byte)];
                if class == SEP {
                    break;
                }
                bits |= class;
                at += 1;
            }
            if mode == Mode::Template {
                self.push_word(text, sep, start, at);
            } else {
                if sep.assigns() && sep.blank_after && text.get(at) == Some(&b'=') {
                    // `logname= uid=0`: the value of the first is empty.
                    sep = self.push_empty(text, sep, start);
                }
                at = self.decide(&text[..end], sep, start, at, bits);
            }
            sep = Sep::new(at);
        }
        if end < text.len() {
            self.push_var(sep, end, text.len(), SlotKind::Any);
            return;
        }
        // What follows the last word. Blanks at the end mean nothing.
        if mode == Mode::Line && sep.assigns() {
            self.push_empty(text, sep, end);
        } else if sep.last != 0 {
            let mut stop = end;
            while text[stop - 1] <= b' ' {
                stop -= 1;
            }
            let mut tail = Sep::new(sep.start);
            for byte in &text[sep.start..stop] {
                tail.push(*byte);
            }
            self.push_word(text, tail, stop, stop);
        }
    }

    /// A literal `<*>` in a line, or a variable in a template's text.
    fn push_placeholder(&mut self, text: &[u8], sep: Sep, at: usize, len: usize, mode: Mode) {
        let kind = lexicon::placeholder_kind(&text[at..at + len]);
        if mode == Mode::Template {
            let what = if kind == SlotKind::Word { ANY_WORD } else { VAR };
            let hash = self.keyed.placed(what, sep.hash);
            self.push(What::Var, hash, sep, at, at + len);
            self.values.push(Value { kind, start: at as u32, end: (at + len) as u32 });
        } else {
            self.push_var(sep, at, at + len, SlotKind::Any);
        }
    }

    /// The value that is missing after `=`. Returns the separator that is left for what follows.
    fn push_empty(&mut self, text: &[u8], sep: Sep, end: usize) -> Sep {
        let cut = text[sep.start..end].iter().rposition(|b| *b == b'=').map_or(end, |at| sep.start + at + 1);
        let (mut before, mut after) = (Sep::new(sep.start), Sep::new(cut));
        for byte in &text[sep.start..cut] {
            before.push(*byte);
        }
        for byte in &text[cut..end] {
            after.push(*byte);
        }
        self.push_var(before, cut, cut, SlotKind::Any);
        after
    }

    /// At the `)` behind a variable that stands alone in `(…)` after a blank: such parts come and go (`(18.2 KB)`), so
    /// they are no part of the template. What belongs to a variable before them disappears in it; numbers and sizes
    /// disappear.
    fn drop_optional(&mut self, text: &[u8], at: usize) -> bool {
        let [.., before, last] = self.pieces.as_slice() else { return false };
        if last.what != What::Var || last.sep_hash != BLANK_OPEN {
            return false;
        }
        let next = text.get(at + 1);
        if !next.is_none_or(|b| CLASS[usize::from(*b)] == SEP && !matches!(b, b'=' | b'(')) {
            return false;
        }
        let kind = self.values.last().map_or(SlotKind::Any, |value| value.kind);
        if before.what != What::Var && !matches!(kind, SlotKind::Num | SlotKind::Size | SlotKind::Duration) {
            return false;
        }
        self.pop();
        true
    }

    fn pop(&mut self) {
        let Some(piece) = self.pieces.pop() else { return };
        self.key = self.key.wrapping_sub(self.keyed.at(piece.hash, self.pieces.len()));
        if piece.what == What::Var {
            self.values.pop();
        }
    }

    #[inline]
    fn push(&mut self, what: What, hash: u64, sep: Sep, start: usize, end: usize) {
        self.key = self.key.wrapping_add(self.keyed.at(hash, self.pieces.len()));
        self.pieces.push(Piece {
            what,
            hash,
            sep_hash: sep.hash,
            sep: (sep.start as u32, start as u32),
            word: (start as u32, end as u32),
        });
    }

    fn push_word(&mut self, text: &[u8], sep: Sep, start: usize, end: usize) {
        self.push(What::Word, self.keyed.word(&text[start..end], sep.hash), sep, start, end);
    }

    fn push_var(&mut self, sep: Sep, start: usize, end: usize, kind: SlotKind) {
        if sep.joins && self.pieces.last().is_some_and(|last| last.what == What::Var) {
            return self.merge(sep, start, end, kind);
        }
        self.push(What::Var, self.keyed.var(sep.hash), sep, start, end);
        self.values.push(Value { kind, start: start as u32, end: end as u32 });
    }

    /// Makes the variable part of the one before it.
    fn merge(&mut self, sep: Sep, start: usize, end: usize, kind: SlotKind) {
        let Some(last) = self.pieces.last_mut() else { return };
        last.word.1 = end as u32;
        let Some(value) = self.values.last_mut() else { return };
        let (old, new) = (lexicon::entity_rank(value.kind), lexicon::entity_rank(kind));
        if old > 0 && old >= new {
            return;
        }
        if new > 0 {
            *value = Value { kind, start: start as u32, end: end as u32 };
            return;
        }
        value.kind = match (value.kind, kind) {
            (SlotKind::Time, _) | (_, SlotKind::Time) => SlotKind::Time,
            // `04:00`, not `port 51022:11`.
            (SlotKind::Num, SlotKind::Num) if sep.last == b':' && end - start == 2 && value.end - value.start <= 2 => {
                SlotKind::Time
            }
            (a, b) if a == b => a,
            _ => SlotKind::Any,
        };
        value.end = end as u32;
    }

    /// Decides about the word at `start..end` and adds it. Returns where to go on.
    fn decide(&mut self, text: &[u8], sep: Sep, start: usize, end: usize, bits: u8) -> usize {
        let word = &text[start..end];
        let next = text.get(end).copied();
        if next == Some(b':') && text[end..].starts_with(b"://") && bits & (SLASH | AT) == 0 {
            let stop = url_end(text, end);
            self.push_var(sep, start, stop, SlotKind::Url);
            return stop;
        }
        if word.len() <= 4
            && bits & !(HEX | DIGIT) == 0
            && next == Some(b':')
            && !(bits == DIGIT && word.len() == 2 && is_clock(&text[end..]))
            && let Some((len, kind)) = lexicon::colon_address(&text[start..])
        {
            self.push_var(sep, start, start + len, kind);
            return start + len;
        }
        if bits & DIGIT != 0 {
            self.decide_digits(text, sep, start, end, bits);
        } else {
            self.decide_word(text, sep, start, end, bits);
        }
        end
    }

    fn decide_digits(&mut self, text: &[u8], sep: Sep, start: usize, end: usize, bits: u8) {
        let word = &text[start..end];
        let next = text.get(end).copied();
        if bits == DIGIT {
            if word.len() <= 5
                && let Some(what) = self.number_in_context(text, word)
            {
                match what {
                    What::Status(class) => {
                        let hash = self.keyed.word(STATUS[usize::from(class.min(5))], sep.hash);
                        self.push(what, hash, sep, start, end);
                    }
                    _ => self.push_word(text, sep, start, end),
                }
                return;
            }
            self.join_over_punctuation(text, &sep);
            self.push_var(sep, start, end, SlotKind::Num);
            return;
        }
        if bits & DOT != 0
            && let Some(leader) = lexicon::dot_leader(word)
        {
            // `exception.......1`
            self.push_word(text, sep, start, start + leader);
            self.push(What::Var, self.keyed.var(0), Sep::new(start + leader), start + leader, end);
            self.values.push(Value { kind: SlotKind::Num, start: (start + leader) as u32, end: end as u32 });
            return;
        }
        let first = word[0];
        if first.is_ascii_alphabetic() || first >= 0x80 || first == b'%' {
            let key = next == Some(b'=') && text.get(end + 1).is_some_and(|b| *b != b'=') && lexicon::is_name(word);
            let call = next == Some(b'(') && text.get(end + 1) == Some(&b')') && lexicon::is_name(word);
            if key || call || (word.len() <= 40 && lexicon::is_name_with_digits(word)) || lexicon::is_code(word, next) {
                self.push_word(text, sep, start, end);
                return;
            }
        } else if bits & SLASH != 0
            && sep.last == b'='
            && let Some(slash) = lexicon::outcome_after_slash(word)
        {
            // `status=1/FAILURE`
            self.push_var(sep, start, start + slash, SlotKind::Num);
            self.push_word(text, Sep::new(start + slash), start + slash, end);
            return;
        }
        let (kind, skip, len) =
            lexicon::kind_by_bits(word, bits & SLASH != 0, bits & DOT != 0, bits & AT != 0, bits & OTHER != 0);
        self.join_over_punctuation(text, &sep);
        if (skip, len) == (0, word.len()) {
            self.push_var(sep, start, end, kind);
        } else {
            // The address in `/10.0.0.1` or `name/10.0.0.1`.
            let merged = self.pieces.last().is_some_and(|last| last.what == What::Var) && sep.joins;
            self.push_var(sep, start, end, kind);
            if let Some(value) = self.values.last_mut()
                && value.kind == kind
                && (!merged || value.start as usize == start)
            {
                *value = Value { kind, start: (start + skip) as u32, end: (start + skip + len) as u32 };
            }
        }
    }

    fn decide_word(&mut self, text: &[u8], sep: Sep, start: usize, end: usize, bits: u8) {
        let word = &text[start..end];
        let next = text.get(end).copied();
        let last_is_var = self.pieces.last().is_some_and(|last| last.what == What::Var);
        if bits & (DOT | SLASH | AT) != 0
            && let Some(kind) = lexicon::kind_of_name(word, last_is_var)
        {
            self.join_over_punctuation(text, &sep);
            return self.push_var(sep, start, end, kind);
        }
        // `tag=name`, `tag="name"` and `request_id "name"`, not `logname= uid=0`.
        let quoted = matches!(sep.last, b'"' | b'\'') && next == Some(sep.last);
        let assigned = match quoted {
            true => text[sep.start..start].ends_with(&[b'=', sep.last]),
            false => sep.assigns() && !(sep.blank_after && next == Some(b'=')),
        };
        if assigned || quoted || sep.last == b':' {
            let key = self
                .pieces
                .last()
                .filter(|last| last.what == What::Word)
                .map_or(&b""[..], |last| Self::word(text, last));
            let assigned = assigned || lexicon::is_id_key(key);
            if assigned && (!lexicon::is_outcome(word) || lexicon::is_user_key(key)) {
                return self.push_var(sep, start, end, SlotKind::Any);
            }
        }
        if last_is_var && sep.is_blank() && word.len() <= 7 {
            let value = self.values.last().map_or(SlotKind::Any, |value| value.kind);
            if let Some(kind) = lexicon::unit(word, value) {
                if let (Some(last), Some(value)) = (self.pieces.last_mut(), self.values.last_mut()) {
                    last.word.1 = end as u32;
                    value.kind = kind;
                    value.end = end as u32;
                }
                return;
            }
        }
        match word.len() {
            3..=9 if word[0].is_ascii_uppercase() && lexicon::is_calendar(word) => {
                let time_follows = text[end..].trim_ascii_start().first().is_some_and(u8::is_ascii_digit);
                if time_follows
                    || word.len() == 3 && lexicon::is_calendar_start(text[end..].trim_ascii_start())
                    || last_is_var
                {
                    return self.push_var(sep, start, end, SlotKind::Time);
                }
            }
            4 | 5 if lexicon::is_bool(word) => return self.push_var(sep, start, end, SlotKind::Any),
            8.. if bits == HEX => return self.push_var(sep, start, end, SlotKind::Hex),
            _ => {}
        }
        if let [.., before, last] = self.pieces.as_slice()
            && last.hash == self.keyed.user
            && sep.is_blank()
            && lexicon::announces_user(Self::word(text, before))
        {
            return self.push_var(sep, start, end, SlotKind::User);
        }
        self.push_word(text, sep, start, end);
    }

    /// A dash or the like between two variables belongs to them.
    fn join_over_punctuation(&mut self, text: &[u8], sep: &Sep) {
        if !sep.is_blank() {
            return;
        }
        if let [.., before, last] = self.pieces.as_slice()
            && before.what == What::Var
            && last.what == What::Word
            && last.sep_hash == BLANK
            && Self::word(text, last).iter().all(|b| matches!(b, b'-' | b'/' | b'+' | b'#' | b'.' | b'@'))
        {
            self.pop();
        }
    }

    /// A number that says what happened: a status, an error code, a signal.
    fn number_in_context(&self, text: &[u8], word: &[u8]) -> Option<What> {
        let [earlier @ .., last] = self.pieces.as_slice() else { return None };
        if last.what != What::Word {
            return None;
        }
        let before = earlier.last().map_or(&b""[..], |piece| Self::word(text, piece));
        number_after(before, Self::word(text, last), word)
    }
}

/// Whether a number stays in the template because of the words before it.
fn number_after(before: &[u8], last: &[u8], number: &[u8]) -> Option<What> {
    let is = |word: &[u8], name: &[u8]| word.eq_ignore_ascii_case(name);
    let keep = match last.len() {
        2 => is(last, b"id") && is(before, b"event") || is(last, b"rc") && number == b"0",
        4 | 5 if is(last, b"code") || is(last, b"value") => is(before, b"exit") && number == b"0",
        5 => is(last, b"errno"),
        6 if is(last, b"signal") => number.len() <= 2,
        6 if is(last, b"status") && (is(before, b"exit") || is(before, b"with")) => number == b"0",
        6..=16 if is_status_key(last) => {
            let class = number[0].wrapping_sub(b'0');
            return (number.len() == 3 && (1..=5).contains(&class)).then_some(What::Status(class));
        }
        7 | 8 if is(last, b"eventid") || is(last, b"event_id") || is(last, b"sqlstate") => true,
        8 | 9 if is(last, b"exitcode") || is(last, b"exit_code") || is(last, b"exit-code") => number == b"0",
        9 => is(last, b"eventcode"),
        _ => false,
    };
    keep.then_some(What::Word)
}

fn is_status_key(word: &[u8]) -> bool {
    const KEYS: &[&[u8]] = &[
        b"status",
        b"status_code",
        b"statuscode",
        b"status-code",
        b"http_status",
        b"httpstatus",
        b"http_code",
        b"http.status",
        b"http_status_code",
        b"response_code",
        b"responsecode",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
    ];
    KEYS.iter().any(|key| word.eq_ignore_ascii_case(key))
}

const STATUS: [&[u8]; 6] = [b"0xx", b"1xx", b"2xx", b"3xx", b"4xx", b"5xx"];

/// Whether `text` goes on like a time of day: `:30:45`, not like an address of six pairs.
fn is_clock(text: &[u8]) -> bool {
    text.get(3) == Some(&b':') && text.get(6) != Some(&b':')
}

fn url_end(text: &[u8], from: usize) -> usize {
    let stops = |b: &u8| *b <= b' ' || matches!(*b, b'"' | b'\'' | b'<' | b'>' | b'|' | b')' | b']' | b'}');
    let mut end = text[from..].iter().position(stops).map_or(text.len(), |len| from + len);
    while end > from + 3 && matches!(text[end - 1], b'.' | b',' | b';' | b':') {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn key(keyed: Keyed, line: &[u8]) -> u64 {
        let mut masked = Masked::new(keyed);
        masked.line(0, line);
        masked.key
    }

    #[test]
    fn lines_that_collide_under_one_secret_do_not_under_another() {
        let [mine, theirs] = [Keyed::new(1), Keyed::new(2)];
        let line = |n: u32| {
            let letters = (0..5).map(|at| char::from(b'a' + (n >> (4 * at) & 15) as u8)).collect::<String>();
            format!("{letters} asks {letters}s about the weather")
        };
        // Half a key is enough to find collisions, and they must not be what an attacker can work out beforehand.
        let half = |keyed, n| key(keyed, line(n).as_bytes()) as u32 >> 4;
        let mut seen: HashMap<u32, u32> = HashMap::new();
        let mut collisions = Vec::new();
        for n in 0..60_000 {
            if let Some(other) = seen.insert(half(mine, n), n) {
                collisions.push((n, other));
            }
        }
        assert!(collisions.len() > 2, "{}", collisions.len());
        let still = collisions.iter().filter(|(a, b)| half(theirs, *a) == half(theirs, *b)).count();
        assert_eq!(still, 0, "of {}", collisions.len());
    }

    #[test]
    fn words_elsewhere_and_other_separators_make_another_key() {
        let keyed = Keyed::new(0);
        let lines =
            ["alpha beta gamma", "beta alpha gamma", "alpha beta  gamma x", "alpha: beta gamma", "alphabeta gamma"];
        let keys: std::collections::HashSet<u64> = lines.iter().map(|line| key(keyed, line.as_bytes())).collect();
        assert_eq!(keys.len(), lines.len());
        assert_eq!(key(keyed, b"alpha beta gamma"), key(keyed, b"alpha  beta\tgamma"), "blanks are blanks");
    }
}
