//! Serialises log bytes as text: exact for UTF-8; other bytes as `\xNN`, and a backslash as `\\`, so that nothing is
//! lost either way.

use serde::{Deserialize, Deserializer, Serializer};

/// Writes `bytes`.
pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&escape(bytes))
}

/// Reads what [`serialize`] wrote.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    unescape(&text).ok_or_else(|| serde::de::Error::custom("a backslash that escapes nothing"))
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for piece in chunk.valid().split_inclusive('\\') {
            out.push_str(piece);
            if piece.ends_with('\\') {
                out.push('\\');
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        match rest[at + 1..] {
            [b'\\', ..] => {
                out.push(b'\\');
                rest = &rest[at + 2..];
            }
            [b'x', high, low, ..] => {
                let digits = [high, low];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                rest = &rest[at + 4..];
            }
            _ => return None,
        }
    }
    out.extend_from_slice(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive() {
        let all: Vec<u8> = (0..=255).chain(*b"\\x41\\\\").collect();
        assert_eq!(unescape(&escape(&all)), Some(all));
        assert_eq!(escape("grüße".as_bytes()), "grüße");
        assert_eq!(unescape("\\y"), None);
        assert_eq!(unescape("\\x4"), None);
    }
}
