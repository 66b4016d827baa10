//! Takes the compression off a body while it is read. What comes out is bounded by its size, never by a ratio: honest
//! batches reach 2,300:1.

use std::io::{self, BufReader, Cursor, Read};

use crate::{
    snappy::Block,
    window::{Failure, Leave},
};

/// The encoding of what was unpacked already.
pub(crate) const PLAIN: &str = "identity";
/// A zstd window that needs no leave, as a power of two, and the largest one.
const WINDOW: (u32, u32) = (21, 24);

/// The body without its compression; more than `limit` bytes are a failure. `snappy` says that the path implies it (Loki's
/// protobuf).
pub(crate) fn unpack<'r>(
    encoding: &str,
    body: Box<dyn Read + 'r>,
    limit: usize,
    snappy: bool,
    leave: Leave<'_>,
) -> Result<Box<dyn Read + 'r>, Failure> {
    let limited = |input: Box<dyn Read + 'r>, name| -> Box<dyn Read + 'r> {
        Box::new(Limited { input, left: limit as u64, name })
    };
    if encoding == PLAIN {
        return Ok(limited(body, "readable"));
    }
    let codings: Vec<String> = encoding.split(',').map(|coding| coding.trim().to_ascii_lowercase()).collect();
    let (mut body, mut is_packed, mut snapped) = (body, false, false);
    for coding in codings.iter().rev().take(3) {
        let (head, peeked) = peek(body)?;
        body = match coding.as_str() {
            "" | "identity" | "none" => peeked,
            "gzip" | "x-gzip" => limited(gunzip(peeked), "gzip"),
            // Meant is zlib's format; some send the bare one.
            "deflate" if matches!(head[..], [a, b, ..] if a & 15 == 8 && (u32::from(a) << 8 | u32::from(b)) % 31 == 0) => {
                limited(Box::new(flate2::read::ZlibDecoder::new(peeked)), "deflate")
            }
            "deflate" => limited(Box::new(flate2::read::DeflateDecoder::new(peeked)), "deflate"),
            "zstd" => limited(unzstd(&head, peeked, leave)?, "zstd"),
            "snappy" | "x-snappy-framed" => {
                snapped = true;
                unsnap(&head, peeked, limit)?
            }
            // A header that means nothing must not lose lines: what is known by its first bytes is unpacked below.
            _ if sniffed(&head).is_some() => peeked,
            other => return Err(Failure::Broken(format!("the encoding `{}` is not known", short(other)))),
        };
        is_packed |= matches!(coding.as_str(), "gzip" | "x-gzip" | "zstd");
    }
    let (head, mut body) = peek(body)?;
    if !is_packed {
        // Compressed without saying so.
        body = match sniffed(&head) {
            Some("gzip") => limited(gunzip(body), "gzip"),
            Some(_) => limited(unzstd(&head, body, leave)?, "zstd"),
            None => body,
        };
    }
    if snappy && !snapped {
        let (head, peeked) = peek(body)?;
        body = unsnap(&head, peeked, limit)?;
    }
    Ok(limited(body, "readable"))
}

/// Refuses to give more than it may.
struct Limited<'r> {
    input: Box<dyn Read + 'r>,
    left: u64,
    name: &'static str,
}

impl Read for Limited<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(out).map_err(|error| Failure::of(&error, self.name))?;
        self.left = self.left.checked_sub(read as u64).ok_or(Failure::TooLarge)?;
        Ok(read)
    }
}

/// The first bytes, and the whole again.
pub(crate) fn peek<'r>(mut body: Box<dyn Read + 'r>) -> Result<(Vec<u8>, Box<dyn Read + 'r>), Failure> {
    let mut head = Vec::with_capacity(32);
    body.by_ref().take(32).read_to_end(&mut head).map_err(|error| Failure::of(&error, "readable"))?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(body))))
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

fn sniffed(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x1f, 0x8b, 8, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        _ => None,
    }
}

fn gunzip<'r>(body: Box<dyn Read + 'r>) -> Box<dyn Read + 'r> {
    Box::new(flate2::read::MultiGzDecoder::new(body))
}

fn unzstd<'r>(head: &[u8], body: Box<dyn Read + 'r>, leave: Leave<'_>) -> Result<Box<dyn Read + 'r>, Failure> {
    let broken = |error: io::Error| Failure::of(&error, "zstd");
    let (free, most) = WINDOW;
    let needed = zstd_window(head).unwrap_or(0).clamp(1024, 1 << 40).next_power_of_two().ilog2();
    let log = needed.clamp(free, most);
    if log > free && !leave() {
        return Err(Failure::Busy);
    }
    let mut decoder = zstd::stream::read::Decoder::new(body).map_err(broken)?;
    // The decoder refuses frames that need more.
    decoder.window_log_max(log).map_err(broken)?;
    Ok(Box::new(decoder))
}

/// How much of the past a frame refers to (RFC 8878, section 3.1.1.1). Where it declares its size only, it is that.
fn zstd_window(head: &[u8]) -> Option<u64> {
    let descriptor = *head.get(4)?;
    if descriptor & 0x20 == 0 {
        let window = *head.get(5)?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let (length, base) = [(1, 0), (2, 256), (4, 0), (8, 0)][usize::from(descriptor >> 6)];
    let size = head.get(at..at + length)?.iter().rev().fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
    size.checked_add(base)
}

fn unsnap<'r>(head: &[u8], body: Box<dyn Read + 'r>, limit: usize) -> Result<Box<dyn Read + 'r>, Failure> {
    const FRAMED: &[u8] = b"\xff\x06\x00\x00sNaPpY";
    if head.starts_with(FRAMED) {
        return Ok(Box::new(Limited {
            input: Box::new(snap::read::FrameDecoder::new(body)),
            left: limit as u64,
            name: "snappy",
        }));
    }
    if head.is_empty() {
        return Ok(body);
    }
    Ok(Box::new(Block::new(BufReader::with_capacity(64 << 10, body), limit)?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn unpacked(encoding: &str, body: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
        let mut out = Vec::new();
        let mut reader = unpack(encoding, Box::new(body), limit, false, &|| true)?;
        reader.read_to_end(&mut out).map_err(|error| Failure::of(&error, "readable"))?;
        Ok(out)
    }

    #[test]
    fn every_encoding_is_taken_off_also_where_the_header_is_wrong() {
        let text = b"one line\n".repeat(1000);
        let gzip = |text: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(text).unwrap();
            out.finish().unwrap()
        };
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&text).unwrap();
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        bare.write_all(&text).unwrap();
        let mut framed = snap::write::FrameEncoder::new(Vec::new());
        framed.write_all(&text).unwrap();
        let zstd = zstd::encode_all(&*text, 3).unwrap();
        let (first, second) = text.split_at(5000);
        for (encoding, body) in [
            ("", text.clone()),
            ("gzip", gzip(&text)),
            ("gzip", [gzip(first), gzip(second)].concat()),
            ("", gzip(&text)),
            ("br", gzip(&text)),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
            ("zstd", zstd.clone()),
            ("", zstd),
            ("snappy", snap::raw::Encoder::new().compress_vec(&text).unwrap()),
            ("snappy", framed.into_inner().unwrap()),
            ("snappy, gzip", gzip(&snap::raw::Encoder::new().compress_vec(&text).unwrap())),
        ] {
            assert_eq!(unpacked(encoding, &body, text.len()), Ok(text.clone()), "{encoding}");
            assert_eq!(unpacked(encoding, &body, text.len() - 1), Err(Failure::TooLarge), "{encoding}");
        }
        assert!(matches!(unpacked("br", b"x", 10), Err(Failure::Broken(_))));
        assert!(matches!(unpacked("gzip", b"\x1f\x8b\x08 and no more", 10), Err(Failure::Broken(_))));
    }

    #[test]
    fn a_large_window_needs_leave_and_one_that_is_too_large_is_none() {
        let frame = |log: i32, text: &[u8]| {
            let mut out = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            out.window_log(log as u32).unwrap();
            out.write_all(text).unwrap();
            out.finish().unwrap()
        };
        let text = vec![b'x'; 1000];
        let read = |body: Vec<u8>, leave: bool| {
            let leave = move || leave;
            let mut reader = unpack("zstd", Box::new(Cursor::new(body)), 1 << 30, false, &leave)?;
            let mut out = Vec::new();
            reader.read_to_end(&mut out).map_err(|error| Failure::of(&error, "readable"))?;
            Ok(out.len())
        };
        assert_eq!(read(frame(21, &text), false), Ok(1000));
        assert_eq!(read(frame(23, &text), false), Err(Failure::Busy));
        assert_eq!(read(frame(23, &text), true), Ok(1000));
        assert!(matches!(read(frame(27, &text), true), Err(Failure::Broken(_))));
    }
}
