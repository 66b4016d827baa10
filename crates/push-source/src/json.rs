//! JSON as shippers write it: one array, objects with or without white space between them, documents that hold lists of
//! records deep inside, text that may not be UTF-8. One record at a time is in memory.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    fmt, io,
    ops::ControlFlow,
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use serde_json::value::RawValue;

use crate::{
    value::{MAX_DEPTH, MAX_VALUES, Value},
    window::{self, KEEP, LONG, MAX_PIECE, Window},
};

/// What stands at the beginning of some bytes.
pub(crate) enum Next<'a> {
    /// A value, and how many bytes it has.
    Value(Value<'a>, usize),
    /// The beginning of one.
    Unfinished,
    /// So many bytes that are a value, but not one that we can hold: nested too deep, too many values, half a surrogate.
    Odd(usize),
    /// None, as far as can be told at that byte.
    Bad(String, usize),
}

/// The value at the beginning of `bytes`, which `is_all` that there is.
pub(crate) fn next(bytes: &[u8], is_all: bool) -> Next<'_> {
    let mut stream = serde_json::Deserializer::from_slice(bytes).into_iter::<Record<'_>>();
    match stream.next() {
        // A number may go on.
        Some(Ok(_)) if stream.byte_offset() == bytes.len() && !is_all && bytes[0] != b'{' => Next::Unfinished,
        Some(Ok(Record(value))) => {
            let used = stream.byte_offset();
            Next::Value(value, used)
        }
        Some(Err(error)) if error.is_eof() && !is_all => Next::Unfinished,
        // What is in a record must never hide those behind it.
        Some(Err(error)) if !error.is_eof() => {
            let mut skipped = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
            match skipped.next() {
                Some(Ok(_)) => Next::Odd(skipped.byte_offset()),
                Some(Err(error)) if error.is_eof() && !is_all => Next::Unfinished,
                _ => Next::Bad(reason(&error), position(bytes, error.line(), error.column())),
            }
        }
        Some(Err(error)) => Next::Bad(reason(&error), position(bytes, error.line(), error.column())),
        None => Next::Bad("there is nothing".to_owned(), bytes.len()),
    }
}

/// Some bytes that are one value.
pub(crate) fn value(bytes: &[u8]) -> Option<Value<'_>> {
    match next(bytes, true) {
        Next::Value(value, used) if bytes[used..].trim_ascii().is_empty() => Some(value),
        _ => None,
    }
}

/// The error without the place, which is that in a piece of the body.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn position(body: &[u8], line: usize, column: usize) -> usize {
    let mut at = 0;
    for _ in 1..line {
        match memchr::memchr(b'\n', &body[at..]) {
            Some(n) => at += n + 1,
            None => return body.len(),
        }
    }
    (at + column).min(body.len())
}

/// Finds the end of a value that is too long to be read.
#[derive(Debug, Default)]
pub(crate) struct Extent {
    depth: usize,
    is_text: bool,
    is_escaped: bool,
}

impl Extent {
    /// Where the value ends in these bytes, which follow those that were given before.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            self.take(*byte);
            // What is neither a list, an object nor text ends with its line.
            let ends = matches!(byte, b']' | b'}' | b'"' | b'\n');
            if ends && self.depth == 0 && !self.is_text {
                return Some(at + 1);
            }
        }
        None
    }

    fn take(&mut self, byte: u8) {
        match (self.is_text, self.is_escaped, byte) {
            (true, true, _) => self.is_escaped = false,
            (true, false, b'\\') => self.is_escaped = true,
            (_, _, b'"') => self.is_text = !self.is_text,
            (false, _, b'{' | b'[') => self.depth += 1,
            (false, _, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

/// One value, bounded on its own.
struct Record<'a>(Value<'a>);

impl<'de> Deserialize<'de> for Record<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let left = Cell::new(MAX_VALUES);
        Seed { left: &left, depth: 0 }.deserialize(deserializer).map(Record)
    }
}

/// A level of a document that holds records deep inside: an object.
#[derive(Debug)]
pub(crate) struct Level {
    /// What it says about the records below it.
    pub(crate) about: &'static [&'static str],
    /// Where they are: a list, of objects or of records.
    pub(crate) down: &'static [&'static str],
}

/// Hears what is in a document, in order.
pub(crate) trait Listener {
    /// Another object of a level begins.
    fn begin(&mut self, level: usize);
    /// There is a list where records are looked for.
    fn found(&mut self);
    /// Something about the records that follow.
    fn about(&mut self, key: &[u8], value: Value<'_>);
    /// A record.
    fn record(&mut self, value: Value<'_>) -> ControlFlow<()>;
    /// A record that we cannot hold, as it is written.
    fn odd(&mut self, text: &[u8]) -> ControlFlow<()>;
    /// A value of so many bytes that is too long to be read, a record almost certainly: its beginning.
    fn cut(&mut self, head: &[u8], bytes: u64) -> ControlFlow<()>;
}

/// Reads a document; what was heard before an error stays heard.
pub(crate) fn document(window: &mut Window<'_>, levels: &[Level], listener: &mut dyn Listener) -> Result<(), String> {
    let cuts = Cuts::default();
    let can_wait = !window.ensure(LONG);
    let walk = Walk { levels, level: 0, can_wait, cuts: &cuts, listener };
    let walked = if can_wait {
        let mut deserializer = serde_json::Deserializer::from_slice(window.rest());
        walk.deserialize(&mut deserializer).and_then(|()| deserializer.end())
    } else {
        let mut deserializer = serde_json::Deserializer::from_reader(Guarded::new(window, 2 * levels.len(), &cuts));
        walk.deserialize(&mut deserializer).and_then(|()| deserializer.end())
    };
    // What was too long and is no record of a list.
    let left = cuts.take().into_iter().try_for_each(|cut| listener.cut(&cut.head, cut.bytes));
    match walked {
        Ok(()) if left.is_break() => Err(ENOUGH.to_owned()),
        walked => walked.map_err(|error| reason(&error)),
    }
}

fn is_one_of(key: &[u8], names: &[&str]) -> bool {
    names.iter().any(|name| name.as_bytes() == key)
}

const ENOUGH: &str = "there are too many records";

struct Walk<'w> {
    levels: &'w [Level],
    level: usize,
    /// Whether records that come before what is said about them can wait for it; they could be many.
    can_wait: bool,
    cuts: &'w Cuts,
    listener: &'w mut dyn Listener,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object that holds log records")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let here = &self.levels[self.level];
        let (levels, level, can_wait, cuts) = (self.levels, self.level, self.can_wait, self.cuts);
        let (mut is_told, mut early) = (here.about.is_empty() || !can_wait, Vec::new());
        self.listener.begin(level);
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            if is_one_of(&key, here.about) {
                let Record(value) = map.next_value()?;
                self.listener.about(&key, value);
                is_told = true;
            } else if !is_one_of(&key, here.down) {
                map.next_value::<IgnoredAny>()?;
            } else if is_told {
                map.next_value_seed(Down { levels, level, can_wait, cuts, listener: &mut *self.listener })?;
            } else {
                early.push(map.next_value::<Box<RawValue>>()?);
            }
        }
        for list in early {
            let mut deserializer = serde_json::Deserializer::from_str(list.get());
            let down = Down { levels, level, can_wait, cuts, listener: &mut *self.listener };
            down.deserialize(&mut deserializer).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

struct Down<'w> {
    levels: &'w [Level],
    level: usize,
    can_wait: bool,
    cuts: &'w Cuts,
    listener: &'w mut dyn Listener,
}

impl<'de> DeserializeSeed<'de> for Down<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Down<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.listener.found();
        if self.level + 1 < self.levels.len() {
            let (levels, level, can_wait, cuts) = (self.levels, self.level + 1, self.can_wait, self.cuts);
            while seq
                .next_element_seed(Walk { levels, level, can_wait, cuts, listener: &mut *self.listener })?
                .is_some()
            {}
            return Ok(());
        }
        while let Some(raw) = seq.next_element::<Box<RawValue>>()? {
            let text = raw.get().as_bytes();
            let cuts = self.cuts.take();
            let is_one = !cuts.is_empty() && text == STAND_IN;
            let mut goes_on = cuts.into_iter().try_for_each(|cut| self.listener.cut(&cut.head, cut.bytes));
            if goes_on.is_continue() && !is_one {
                goes_on = match next(text, true) {
                    Next::Value(value, _) => self.listener.record(value),
                    _ => self.listener.odd(text),
                };
            }
            if goes_on.is_break() {
                return Err(A::Error::custom(ENOUGH));
            }
        }
        Ok(())
    }
}

/// Values that were too long to be read, until they are told.
type Cuts = RefCell<Vec<Cut>>;

struct Cut {
    head: Vec<u8>,
    bytes: u64,
}

/// What is read instead of a value that is too long.
const STAND_IN: &[u8] = b"\"\"";

/// Reads JSON from a window, and looks ahead whether a record is too long: the deserializer would hold it whole.
struct Guarded<'w, 'r> {
    window: &'w mut Window<'r>,
    cuts: &'w Cuts,
    /// How deep the lists of records are.
    base: usize,
    depth: usize,
    /// So many bytes are a value that was looked at.
    known: usize,
    /// What comes before the window's next byte.
    stand_in: &'static [u8],
    /// Bytes of a number, or of what is none.
    bare: usize,
}

impl<'w, 'r> Guarded<'w, 'r> {
    fn new(window: &'w mut Window<'r>, base: usize, cuts: &'w Cuts) -> Self {
        Self { window, cuts, base, depth: 0, known: 0, stand_in: b"", bare: 0 }
    }

    /// Looks at what begins with the window's next byte.
    fn look(&mut self, first: u8) -> io::Result<()> {
        self.bare = match first {
            b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b'{' | b'[' | b'}' | b']' | b'"' => 0,
            _ => self.bare + 1,
        };
        match first {
            b'"' => self.value(),
            b'{' | b'[' if self.depth >= self.base => self.value(),
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ if self.bare > MAX_PIECE => return Err(io::Error::other("a number is too long")),
            _ => {}
        }
        Ok(())
    }

    /// Finds the end of the text, list or object that begins here, and puts something else in its place when it is too
    /// long.
    fn value(&mut self) {
        let (mut extent, mut seen) = (Extent::default(), 0);
        while seen < MAX_PIECE {
            let rest = self.window.rest();
            match extent.end(&rest[seen..]) {
                Some(end) if seen + end <= MAX_PIECE => {
                    self.known = seen + end;
                    return;
                }
                Some(_) => break,
                None => seen = rest.len(),
            }
            if !self.window.more() {
                // It breaks off, as the deserializer will find.
                self.known = seen;
                return;
            }
        }
        let (head, bytes) = skip_value(self.window);
        self.cuts.borrow_mut().push(Cut { head, bytes });
        self.stand_in = STAND_IN;
    }
}

/// Goes on behind a value that is too long: its beginning, and how much it was.
fn skip_value(window: &mut Window<'_>) -> (Vec<u8>, u64) {
    let (mut extent, mut head, mut bytes) = (Extent::default(), Vec::new(), 0_u64);
    loop {
        let rest = window.rest();
        let end = extent.end(rest);
        let used = end.unwrap_or(rest.len());
        head.extend_from_slice(&rest[..used.min(KEEP - head.len())]);
        bytes += used as u64;
        window.skip(used);
        if end.is_some() || !window.more() {
            return (head, bytes);
        }
    }
}

impl io::Read for Guarded<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.known == 0 && self.stand_in.is_empty() {
            while self.window.rest().is_empty() {
                if !self.window.more() {
                    return self.window.failure.clone().map_or(Ok(0), |failure| Err(failure.into()));
                }
            }
            self.look(self.window.rest()[0])?;
            if self.known == 0 && self.stand_in.is_empty() {
                self.known = 1;
            }
        }
        if self.stand_in.is_empty() {
            let room = self.known.min(out.len());
            let read = self.window.read(&mut out[..room])?;
            self.known -= read;
            return Ok(read);
        }
        let (now, later) = self.stand_in.split_at(self.stand_in.len().min(out.len()));
        out[..now.len()].copy_from_slice(now);
        self.stand_in = later;
        Ok(now.len())
    }
}

struct Seed<'c> {
    left: &'c Cell<u32>,
    depth: u32,
}

impl Seed<'_> {
    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| E::custom("too many values in one record"))?;
        self.left.set(left);
        Ok(())
    }

    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested too deep"));
        }
        Ok(Seed { left: self.left, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Int(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Int(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Value::Float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text.as_bytes())))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.as_bytes().to_vec())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self.deeper()?)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut pairs = Vec::new();
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            pairs.push((key, map.next_value_seed(self.deeper()?)?));
        }
        Ok(Value::Map(pairs))
    }
}

struct Key<'a>(Cow<'a, [u8]>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text.as_bytes())))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.as_bytes().to_vec())))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// Turns texts back into the bytes that were sent.
pub(crate) fn restore(value: &mut Value<'_>) {
    let back = |text: &mut Cow<'_, [u8]>| {
        if let Some(bytes) = window::restore(text) {
            *text = Cow::Owned(bytes);
        }
    };
    match value {
        Value::Text(text) => back(text),
        Value::List(values) => values.iter_mut().for_each(restore),
        Value::Map(pairs) => pairs.iter_mut().for_each(|(key, value)| {
            back(key);
            restore(value);
        }),
        _ => {}
    }
}
