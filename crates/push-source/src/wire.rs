//! The protobuf wire format, read field by field: texts of senders need not be UTF-8, and unknown fields are left out.
//!
//! The large messages on the way to a record are never in memory: [`head`] reads into them. A record is, as a message.

use std::collections::BTreeMap;

use crate::{
    batch::Batch,
    window::{MAX_PIECE, Window},
};

/// A field's content.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Field<'a> {
    /// A variable-length number.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// The bytes of text or a message; empty for numbers.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => b"",
        }
    }

    /// The number; 0 for text.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => number,
            Self::Fixed32(number) => number.into(),
            Self::Bytes(_) => 0,
        }
    }
}

/// The fields of a message, in order.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << (7 * shift).min(63);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let head = self.varint()?;
        let field = match head & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.bytes(length)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?)),
            _ => return None,
        };
        (head >> 3 != 0).then_some((head >> 3, field))
    }
}

/// Not protobuf.
#[derive(Debug)]
pub(crate) struct Broken;

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or(Broken);
        if field.is_err() {
            self.0 = b"";
        }
        Some(field)
    }
}

/// What stands before a field's content.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Head {
    /// A number, which is skipped already.
    Number,
    /// So many bytes follow.
    Message(u64),
}

/// The number and kind of the next field; `None` at the end.
pub(crate) fn head(window: &mut Window<'_>) -> Result<Option<(u64, Head)>, Broken> {
    window.ensure(20);
    let before = window.rest();
    if before.is_empty() {
        return Ok(None);
    }
    let mut fields = Fields(before);
    let head = fields.varint().ok_or(Broken)?;
    let kind = match head & 7 {
        0 => fields.varint().map(|_| Head::Number),
        1 => fields.bytes(8).map(|_| Head::Number),
        2 => fields.varint().map(Head::Message),
        5 => fields.bytes(4).map(|_| Head::Number),
        _ => None,
    };
    let kind = kind.filter(|_| head >> 3 != 0).ok_or(Broken)?;
    // A length beyond the largest body is none, and would overflow what is counted.
    if matches!(kind, Head::Message(length) if length > u64::from(u32::MAX)) {
        return Err(Broken);
    }
    let used = before.len() - fields.0.len();
    window.skip(used);
    Ok(Some((head >> 3, kind)))
}

/// Goes through the messages that are field 1 of a body: `read` reads one, to the position that it is given, and says
/// whether there is room for more.
pub(crate) fn messages(
    window: &mut Window<'_>,
    mut read: impl FnMut(&mut Window<'_>, u64) -> Result<bool, Broken>,
) -> Result<(), Broken> {
    while let Some((number, head)) = head(window)? {
        match head {
            Head::Number => {}
            Head::Message(length) if number != 1 => skip(window, length)?,
            Head::Message(length) => {
                let end = window.position() + length;
                if !read(window, end)? {
                    return Ok(());
                }
                if window.position() != end {
                    return Err(Broken);
                }
            }
        }
    }
    Ok(())
}

/// Whether a message is too long to be read.
pub(crate) fn is_too_long(length: u64) -> bool {
    length > MAX_PIECE as u64
}

/// The next bytes, which stay where they are.
pub(crate) fn message<'w>(window: &'w mut Window<'_>, length: u64) -> Result<&'w [u8], Broken> {
    if is_too_long(length) || !window.ensure(length as usize) {
        return Err(Broken);
    }
    Ok(&window.rest()[..length as usize])
}

/// Goes on behind the next bytes.
pub(crate) fn skip(window: &mut Window<'_>, length: u64) -> Result<(), Broken> {
    if window.skip_far(length) { Ok(()) } else { Err(Broken) }
}

/// Keeps the beginning of a record that is too long.
pub(crate) fn cut(
    window: &mut Window<'_>,
    length: u64,
    labels: &BTreeMap<String, String>,
    batch: &mut Batch<'_>,
) -> Result<bool, Broken> {
    window.ensure(crate::batch::MAX_LINE);
    let goes_on = batch.push_cut(labels, window.rest(), length);
    skip(window, length)?;
    Ok(goes_on)
}
