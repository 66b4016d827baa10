//! JSON as shippers write it: one array, objects with or without white space between them, text that may not be UTF-8.

use std::{borrow::Cow, cell::Cell, fmt, ops::ControlFlow};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};

use crate::value::{MAX_DEPTH, MAX_VALUES, Value};

/// How many values a document of many records may hold.
const MAX_DOCUMENT: u32 = 1_000_000;

/// A part of a body that could not be read.
#[derive(Debug)]
pub(crate) struct Bad {
    /// Where it begins in the body.
    pub(crate) from: usize,
    /// Where it ends.
    pub(crate) to: usize,
    /// What is wrong.
    pub(crate) reason: String,
}

/// Calls `take` with every record of a body: the elements of an array, or objects one after another. What cannot be read
/// is left out and returned; reading goes on after the next line break.
pub(crate) fn records<'a>(body: &'a [u8], take: &mut dyn FnMut(Value<'a>) -> ControlFlow<()>) -> Vec<Bad> {
    let mut bad = Vec::new();
    let mut at = skip_space(body, 0);
    while at < body.len() && bad.len() < 1000 {
        let rest = &body[at..];
        let (result, used, stopped) = if rest[0] == b'[' { elements(rest, take) } else { object(rest, take) };
        if stopped {
            return bad;
        }
        match result {
            Ok(()) => at = skip_space(body, at + used.max(1)),
            Err(reason) => {
                let to = memchr::memchr(b'\n', &rest[used.min(rest.len())..]).map_or(body.len(), |n| at + used + n + 1);
                bad.push(Bad { from: at, to, reason });
                at = skip_space(body, to);
            }
        }
    }
    bad
}

/// One JSON document that holds many records.
pub(crate) fn document(body: &[u8]) -> Result<Value<'_>, String> {
    let left = Cell::new(MAX_DOCUMENT);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Seed { left: &left, depth: 0 }.deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(value)
}

fn skip_space(body: &[u8], mut at: usize) -> usize {
    // Commas between objects come from senders that join records themselves.
    while body.get(at).is_some_and(|b| b.is_ascii_whitespace() || *b == b',' || *b == 0x1e) {
        at += 1;
    }
    if body[at.min(body.len())..].starts_with(b"\xef\xbb\xbf") { skip_space(body, at + 3) } else { at }
}

/// One value, bounded on its own.
struct Record<'a>(Value<'a>);

impl<'de> Deserialize<'de> for Record<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let left = Cell::new(MAX_VALUES);
        Seed { left: &left, depth: 0 }.deserialize(deserializer).map(Record)
    }
}

type Outcome = (Result<(), String>, usize, bool);

fn object<'a>(rest: &'a [u8], take: &mut dyn FnMut(Value<'a>) -> ControlFlow<()>) -> Outcome {
    let mut stream = serde_json::Deserializer::from_slice(rest).into_iter::<Record<'a>>();
    match stream.next() {
        Some(Ok(Record(value))) => {
            let used = stream.byte_offset();
            (Ok(()), used, take(value).is_break())
        }
        Some(Err(error)) => (Err(error.to_string()), 0, false),
        None => (Ok(()), rest.len(), false),
    }
}

fn elements<'a>(rest: &'a [u8], take: &mut dyn FnMut(Value<'a>) -> ControlFlow<()>) -> Outcome {
    struct All<'t, 'a> {
        take: &'t mut dyn FnMut(Value<'a>) -> ControlFlow<()>,
        stopped: &'t mut bool,
    }
    impl<'de> Visitor<'de> for All<'_, 'de> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of records")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            while let Some(Record(value)) = seq.next_element::<Record<'de>>()? {
                if (self.take)(value).is_break() {
                    *self.stopped = true;
                    return Err(A::Error::custom("too many records"));
                }
            }
            Ok(())
        }
    }
    struct Array<'t, 'a>(All<'t, 'a>);
    impl<'de> DeserializeSeed<'de> for Array<'_, 'de> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_seq(self.0)
        }
    }
    let mut stopped = false;
    let mut deserializer = serde_json::Deserializer::from_slice(rest);
    let result = Array(All { take, stopped: &mut stopped }).deserialize(&mut deserializer);
    match result {
        Ok(()) => (Ok(()), end_of_array(rest, &mut deserializer), false),
        Err(error) => (Err(error.to_string()), position(rest, error.line(), error.column()), stopped),
    }
}

/// Where a well-formed array ends, since the deserializer does not tell. Nearly always it is the whole body.
fn end_of_array(body: &[u8], deserializer: &mut serde_json::Deserializer<serde_json::de::SliceRead<'_>>) -> usize {
    if deserializer.end().is_ok() {
        return body.len();
    }
    let mut stream = serde_json::Deserializer::from_slice(body).into_iter::<serde::de::IgnoredAny>();
    let _ = stream.next();
    stream.byte_offset()
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

/// JSON text that was not UTF-8, made readable: every wrong byte is a character of a private plane, which
/// [`Repaired::restore`] turns back into the byte.
#[derive(Debug)]
pub(crate) struct Repaired {
    base: Option<u32>,
}

impl Repaired {
    /// The body as UTF-8, and how to get the bytes back.
    pub(crate) fn new(body: &[u8]) -> (Cow<'_, [u8]>, Self) {
        if std::str::from_utf8(body).is_ok() {
            return (Cow::Borrowed(body), Self { base: None });
        }
        // The first of 15 blocks of the private planes 15 and 16 that the body does not use.
        let used =
            |base: u32| (0x80..=0xff).any(|byte| memchr::memmem::find(body, encode(base + byte).as_bytes()).is_some());
        let base = (0..15).map(|block| 0xf_0000 + block * 0x1000).find(|base| !used(*base));
        let mut text = Vec::with_capacity(body.len() + body.len() / 8);
        for chunk in body.utf8_chunks() {
            text.extend_from_slice(chunk.valid().as_bytes());
            for byte in chunk.invalid() {
                let character = base.map_or('\u{fffd}'.into(), |base| base + u32::from(*byte));
                text.extend_from_slice(encode(character).as_bytes());
            }
        }
        (Cow::Owned(text), Self { base })
    }

    /// The bytes that were sent, in all texts of a value.
    pub(crate) fn restore(&self, value: &mut Value<'_>) {
        let Some(base) = self.base else { return };
        match value {
            Value::Text(text) => restore_text(text, base),
            Value::List(values) => values.iter_mut().for_each(|value| self.restore(value)),
            Value::Map(pairs) => pairs.iter_mut().for_each(|(key, value)| {
                restore_text(key, base);
                self.restore(value);
            }),
            _ => {}
        }
    }
}

fn encode(character: u32) -> String {
    char::from_u32(character).map_or_else(String::new, String::from)
}

fn restore_text(text: &mut Cow<'_, [u8]>, base: u32) {
    let ours = |c: char| u32::from(c).checked_sub(base).and_then(|byte| u8::try_from(byte).ok()).filter(|b| *b >= 0x80);
    let Ok(known) = std::str::from_utf8(text) else { return };
    if !known.chars().any(|c| ours(c).is_some()) {
        return;
    }
    let mut bytes = Vec::with_capacity(known.len());
    for c in known.chars() {
        match ours(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    *text = Cow::Owned(bytes);
}
