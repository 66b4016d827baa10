//! Reads a Windows event in its XML form, as far as elements with text and named data go.

use std::borrow::Cow;

use super::{Object, Value};

/// The event that the text is.
pub(crate) fn windows_event(text: &[u8]) -> Option<Object<'_>> {
    // Copied from a viewer there is a dash before elements that can be folded.
    let text = text.strip_prefix(b"- ").unwrap_or(text);
    (text.starts_with(b"<Event ") || text.starts_with(b"<Event>")).then_some(())?;
    let mut object = Object::default();
    let mut rest = text;
    while let Some(open) = memchr::memchr(b'<', rest) {
        let Some(close) = memchr::memchr(b'>', &rest[open..]) else { break };
        let tag = &rest[open + 1..open + close];
        rest = &rest[open + close + 1..];
        let name = &tag[..tag.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(tag.len())];
        match name {
            b"Provider" => object.take(name, attribute(tag, b" Name=")),
            b"TimeCreated" => object.take(name, attribute(tag, b" SystemTime=")),
            b"" | b"Event" | b"System" | b"EventData" => {}
            _ if tag.ends_with(b"/") => {}
            _ => {
                let end = memchr::memchr(b'<', rest).unwrap_or(rest.len());
                let key = if name == b"Data" { attribute(tag, b" Name=") } else { Some(name) };
                let value = rest[..end].trim_ascii();
                if let Some(key) = key.filter(|_| rest[end..].starts_with(b"</")) {
                    object.take(key, Some(value));
                }
            }
        }
    }
    (object.members.len() >= 3).then_some(object)
}

impl<'a> Object<'a> {
    fn take(&mut self, key: &'a [u8], value: Option<&'a [u8]>) {
        if let Some(value) = value {
            let key = self.clip(key);
            self.push(Cow::Borrowed(key), Value::Plain(value));
        }
    }
}

/// The value of an attribute, whose name is given with the blank before and the `=` behind it.
fn attribute<'a>(tag: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(tag, name)? + name.len();
    let quote = *tag.get(at)?;
    let end = memchr::memchr(quote, tag.get(at + 1..)?)?;
    matches!(quote, b'"' | b'\'').then_some(&tag[at + 1..at + 1 + end])
}
