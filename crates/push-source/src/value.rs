//! A record as it came, whatever it was written in.

use std::borrow::Cow;

/// How deep lists and maps may nest.
pub(crate) const MAX_DEPTH: u32 = 64;
/// How many values one record may hold.
pub(crate) const MAX_VALUES: u32 = 50_000;

/// Stands for what was left out of a record that nests deeper, or holds more.
pub(crate) const LEFT_OUT: &[u8] = b"[... left out ...]";

/// Bytes that are usually UTF-8.
pub(crate) type Bytes<'a> = Cow<'a, [u8]>;

/// A JSON, MessagePack or OTLP value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Another number.
    Float(f64),
    /// Text; any bytes.
    Text(Bytes<'a>),
    /// A list.
    List(Vec<Value<'a>>),
    /// A map, in the order in which it came.
    Map(Vec<(Bytes<'a>, Value<'a>)>),
    /// A time in nanoseconds since 1970 (MessagePack's event time).
    Time(i128),
}

impl<'a> Value<'a> {
    /// The value under a key of a map; the last one when there are several.
    pub(crate) fn get(&self, key: &str) -> Option<&Value<'a>> {
        let Self::Map(pairs) = self else { return None };
        pairs.iter().rev().find(|(name, _)| **name == *key.as_bytes()).map(|(_, value)| value)
    }

    /// The value at a path of keys.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Value<'a>> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The same, borrowing from nothing.
    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(flag),
            Self::Int(number) => Value::Int(number),
            Self::Float(number) => Value::Float(number),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::List(values) => Value::List(values.into_iter().map(Value::into_owned).collect()),
            Self::Map(pairs) => Value::Map(
                pairs.into_iter().map(|(key, value)| (Cow::Owned(key.into_owned()), value.into_owned())).collect(),
            ),
            Self::Time(nanos) => Value::Time(nanos),
        }
    }

    /// The text of a scalar, for labels; `None` for nothing, lists, maps and empty text.
    pub(crate) fn word(&self) -> Option<String> {
        let word = match self {
            Self::Text(text) => String::from_utf8_lossy(text).trim().to_owned(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Bool(flag) => flag.to_string(),
            _ => return None,
        };
        (!word.is_empty() && word != "-").then_some(word)
    }

    /// Appends the value as JSON; text keeps its bytes, also those that are no UTF-8.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
            Self::Int(number) | Self::Time(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Float(number) if number.is_finite() => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Float(_) => out.extend_from_slice(b"null"),
            Self::Text(text) => write_json_text(text, out),
            Self::List(values) => {
                out.push(b'[');
                for (number, value) in values.iter().enumerate() {
                    if number > 0 {
                        out.push(b',');
                    }
                    value.write_json(out);
                }
                out.push(b']');
            }
            Self::Map(pairs) => write_json_map(pairs.iter().map(|(key, value)| (&**key, value)), out),
        }
    }
}

/// Appends pairs as a JSON object.
pub(crate) fn write_json_map<'v, 'a: 'v>(pairs: impl Iterator<Item = (&'v [u8], &'v Value<'a>)>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (number, (key, value)) in pairs.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write_json_text(key, out);
        out.push(b':');
        value.write_json(out);
    }
    out.push(b'}');
}

fn write_json_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}
