//! Lines that are made of named values: JSON and logfmt.

use std::borrow::Cow;

/// A message with named values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fields<'a> {
    /// The message, to be scanned like text; empty when there is none.
    pub message: Cow<'a, [u8]>,
    /// The other fields, sorted by key; time, host, program, pid, thread and logger are not among them.
    pub fields: Vec<Field<'a>>,
    /// How many fields were left out because a bound was reached.
    pub cut: u32,
}

/// One named value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field<'a> {
    /// The key; of nested values the path, joined by dots.
    pub key: Cow<'a, [u8]>,
    /// The value, unquoted and unescaped.
    pub value: Cow<'a, [u8]>,
    /// What it means for the template.
    pub role: Role,
}

/// What a field means for the template. Its key is part of the template in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The value is part of the template too: level, event, method, status class.
    Constant,
    /// The value fills a slot.
    Slot,
}
