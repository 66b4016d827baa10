//! MessagePack as Fluent Bit writes it: values one after another.

use std::borrow::Cow;

use crate::{
    value::{LEFT_OUT, MAX_DEPTH, MAX_VALUES, Value},
    window::Window,
};

/// Why there is no value: its end is not there.
pub(crate) const ENDS: &str = "it ends too early";

/// Skips a value that is too long to be read; `false` when it is none, or the body ends before it does.
pub(crate) fn skip(window: &mut Window<'_>) -> bool {
    let mut values = 1_u64;
    while values > 0 {
        // The longest head: a byte, and a length of four.
        window.ensure(5);
        let Some((head, bytes, more)) = extent(window.rest()) else { return false };
        if !window.skip_far(head + bytes) {
            return false;
        }
        values = values.saturating_add(more) - 1;
    }
    true
}

/// Of the value at the beginning: how long its head is, how many bytes follow that, and how many values.
fn extent(body: &[u8]) -> Option<(u64, u64, u64)> {
    let (first, rest) = body.split_first()?;
    let number = |bytes: usize| Some(rest.get(..bytes)?.iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte)));
    Some(match first {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (1, 0, 0),
        0x80..=0x8f => (1, 0, 2 * u64::from(first & 0x0f)),
        0x90..=0x9f => (1, 0, u64::from(first & 0x0f)),
        0xa0..=0xbf => (1, u64::from(first & 0x1f), 0),
        0xc1 => return None,
        0xc4 | 0xd9 => (2, number(1)?, 0),
        0xc5 | 0xda => (3, number(2)?, 0),
        0xc6 | 0xdb => (5, number(4)?, 0),
        0xc7..=0xc9 => {
            let bytes = 1 << (first - 0xc7);
            (1 + bytes as u64, 1 + number(bytes)?, 0)
        }
        0xca | 0xce | 0xd2 => (1, 4, 0),
        0xcb | 0xcf | 0xd3 => (1, 8, 0),
        0xcc | 0xd0 => (1, 1, 0),
        0xcd | 0xd1 => (1, 2, 0),
        0xd4..=0xd8 => (1, 1 + (1 << (first - 0xd4)), 0),
        0xdc => (3, 0, number(2)?),
        0xdd => (5, 0, number(4)?),
        0xde => (3, 0, 2 * number(2)?),
        0xdf => (5, 0, 2 * number(4)?),
    })
}

/// Reads values from bytes.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    left: u32,
    is_cut: bool,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of `body`.
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0, left: 0, is_cut: false }
    }

    /// How far it has come.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether anything was left out of the last value, since it nests too deep or holds too much.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The next value; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Result<Value<'a>, &'static str>> {
        if self.at >= self.body.len() {
            return None;
        }
        self.left = MAX_VALUES;
        self.is_cut = false;
        Some(self.value(0))
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.body.len()).ok_or(ENDS)?;
        let bytes = &self.body[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn number(&mut self, length: usize) -> Result<u64, &'static str> {
        Ok(self.bytes(length)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn length(&mut self, length: usize) -> Result<usize, &'static str> {
        usize::try_from(self.number(length)?).map_err(|_| "a length is too large")
    }

    fn value(&mut self, depth: u32) -> Result<Value<'a>, &'static str> {
        if depth > MAX_DEPTH || self.left == 0 {
            self.is_cut = true;
            self.skip(1)?;
            return Ok(Value::Text(Cow::Borrowed(LEFT_OUT)));
        }
        self.left -= 1;
        let head = self.bytes(1)?[0];
        Ok(match head {
            0x00..=0x7f => Value::Int(head.into()),
            0x80..=0x8f => self.map(usize::from(head & 0x0f), depth)?,
            0x90..=0x9f => self.list(usize::from(head & 0x0f), depth)?,
            0xa0..=0xbf => self.text(usize::from(head & 0x1f))?,
            0xc0 => Value::Null,
            0xc1 => return Err("a byte that means nothing"),
            0xc2 | 0xc3 => Value::Bool(head == 0xc3),
            0xc4 | 0xd9 => {
                let length = self.length(1)?;
                self.text(length)?
            }
            0xc5 | 0xda => {
                let length = self.length(2)?;
                self.text(length)?
            }
            0xc6 | 0xdb => {
                let length = self.length(4)?;
                self.text(length)?
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (head - 0xc7))?;
                self.extension(length)?
            }
            0xca => Value::Float(f32::from_bits(self.number(4)? as u32).into()),
            0xcb => Value::Float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Value::Int(self.number(1 << (head - 0xcc))?.into()),
            0xd0 => Value::Int((self.number(1)? as u8 as i8).into()),
            0xd1 => Value::Int((self.number(2)? as u16 as i16).into()),
            0xd2 => Value::Int((self.number(4)? as u32 as i32).into()),
            0xd3 => Value::Int((self.number(8)? as i64).into()),
            0xd4..=0xd8 => self.extension(1 << (head - 0xd4))?,
            0xdc | 0xdd => {
                let count = self.length(if head == 0xdc { 2 } else { 4 })?;
                self.list(count, depth)?
            }
            0xde | 0xdf => {
                let count = self.length(if head == 0xde { 2 } else { 4 })?;
                self.map(count, depth)?
            }
            0xe0..=0xff => Value::Int((head as i8).into()),
        })
    }

    fn text(&mut self, length: usize) -> Result<Value<'a>, &'static str> {
        Ok(Value::Text(Cow::Borrowed(self.bytes(length)?)))
    }

    /// Type 0 with eight bytes is Fluentd's event time; everything else is kept as bytes.
    fn extension(&mut self, length: usize) -> Result<Value<'a>, &'static str> {
        let kind = self.bytes(1)?[0];
        if (kind, length) == (0, 8) {
            let (secs, nanos) = (self.number(4)?, self.number(4)?);
            return Ok(Value::Time(i128::from(secs) * 1_000_000_000 + i128::from(nanos)));
        }
        self.text(length)
    }

    fn list(&mut self, count: usize, depth: u32) -> Result<Value<'a>, &'static str> {
        let mut values = Vec::with_capacity(count.min(16));
        for number in 0..count {
            if self.left == 0 {
                self.is_cut = true;
                self.skip(count as u64 - number as u64)?;
                break;
            }
            values.push(self.value(depth + 1)?);
        }
        Ok(Value::List(values))
    }

    fn map(&mut self, count: usize, depth: u32) -> Result<Value<'a>, &'static str> {
        let mut pairs = Vec::with_capacity(count.min(16));
        for number in 0..count {
            if self.left == 0 {
                self.is_cut = true;
                self.skip(2 * (count as u64 - number as u64))?;
                break;
            }
            let key = match self.value(depth + 1)? {
                Value::Text(text) => text,
                Value::Int(number) => Cow::Owned(number.to_string().into_bytes()),
                _ => return Err("a key that is no text"),
            };
            pairs.push((key, self.value(depth + 1)?));
        }
        Ok(Value::Map(pairs))
    }

    /// Goes on behind so many values, without recursion and without keeping them.
    fn skip(&mut self, values: u64) -> Result<(), &'static str> {
        let mut left = values;
        while left > 0 {
            left -= 1;
            let head = self.bytes(1)?[0];
            let bytes = match head {
                0x80..=0x8f => {
                    left += 2 * u64::from(head & 0x0f);
                    0
                }
                0x90..=0x9f => {
                    left += u64::from(head & 0x0f);
                    0
                }
                0xa0..=0xbf => usize::from(head & 0x1f),
                0xc1 => return Err("a byte that means nothing"),
                0xc4 | 0xd9 => self.length(1)?,
                0xc5 | 0xda => self.length(2)?,
                0xc6 | 0xdb => self.length(4)?,
                0xc7..=0xc9 => self.length(1 << (head - 0xc7))? + 1,
                0xca => 4,
                0xcb => 8,
                0xcc..=0xcf => 1 << (head - 0xcc),
                0xd0..=0xd3 => 1 << (head - 0xd0),
                0xd4..=0xd8 => (1 << (head - 0xd4)) + 1,
                0xdc | 0xdd => {
                    left += self.number(if head == 0xdc { 2 } else { 4 })?;
                    0
                }
                0xde | 0xdf => {
                    left += 2 * self.number(if head == 0xde { 2 } else { 4 })?;
                    0
                }
                _ => 0,
            };
            self.bytes(bytes)?;
        }
        Ok(())
    }
}
