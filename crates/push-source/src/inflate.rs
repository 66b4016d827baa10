//! Takes compression off, up to an absolute size: honest batches reach 2,300 to 1, so a ratio says nothing.

use std::{borrow::Cow, io::Read};

use crate::sent::PLAIN;

/// Why a body could not be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unpack {
    /// It is larger than allowed once unpacked.
    TooLarge,
    /// It is not what its header says.
    Broken(String),
}

/// The body without its compression; at most `limit` bytes. `snappy` says that the path implies it (Loki's protobuf).
pub(crate) fn unpack<'a>(encoding: &str, body: &'a [u8], limit: usize, snappy: bool) -> Result<Cow<'a, [u8]>, Unpack> {
    if encoding == PLAIN {
        return if body.len() > limit { Err(Unpack::TooLarge) } else { Ok(Cow::Borrowed(body)) };
    }
    let mut body = Cow::Borrowed(body);
    let codings: Vec<String> = encoding.split(',').map(|coding| coding.trim().to_ascii_lowercase()).collect();
    let mut snapped = false;
    for coding in codings.iter().rev().take(3) {
        body = match coding.as_str() {
            "" | "identity" | "none" => body,
            "gzip" | "x-gzip" => bounded(flate2::read::MultiGzDecoder::new(&*body), limit, "gzip")?.into(),
            "deflate" => match bounded(flate2::read::ZlibDecoder::new(&*body), limit, "deflate") {
                Err(Unpack::Broken(_)) => bounded(flate2::read::DeflateDecoder::new(&*body), limit, "deflate")?.into(),
                done => done?.into(),
            },
            "zstd" => unzstd(&body, limit)?.into(),
            "snappy" | "x-snappy-framed" => {
                snapped = true;
                unsnap(&body, limit)?.into()
            }
            // Sniffed below: a header that means nothing must not lose lines.
            _ if sniffed(&body).is_some() => body,
            other => return Err(Unpack::Broken(format!("the encoding `{}` is not known", short(other)))),
        };
    }
    // Compressed without saying so.
    if let Some(coding) = sniffed(&body).filter(|_| codings.iter().all(|c| !matches!(c.as_str(), "gzip" | "zstd"))) {
        body = match coding {
            "gzip" => bounded(flate2::read::MultiGzDecoder::new(&*body), limit, "gzip")?.into(),
            _ => unzstd(&body, limit)?.into(),
        };
    }
    if snappy && !snapped {
        body = unsnap(&body, limit)?.into();
    }
    if body.len() > limit { Err(Unpack::TooLarge) } else { Ok(body) }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

fn sniffed(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x1f, 0x8b, 8, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        _ => None,
    }
}

fn bounded(reader: impl Read, limit: usize, name: &str) -> Result<Vec<u8>, Unpack> {
    let mut out = Vec::new();
    match reader.take(limit as u64 + 1).read_to_end(&mut out) {
        Ok(_) if out.len() > limit => Err(Unpack::TooLarge),
        Ok(_) => Ok(out),
        Err(error) => Err(Unpack::Broken(format!("it is not {name}: {error}"))),
    }
}

fn unzstd(body: &[u8], limit: usize) -> Result<Vec<u8>, Unpack> {
    let broken = |error: std::io::Error| Unpack::Broken(format!("it is not zstd: {error}"));
    let mut decoder = zstd::stream::read::Decoder::new(body).map_err(broken)?;
    // A frame with its size declared has a window of that size: allow it up to the limit, and no more.
    decoder.window_log_max((limit.max(1024) as u64).next_power_of_two().ilog2().clamp(10, 27)).map_err(broken)?;
    bounded(decoder, limit, "zstd")
}

fn unsnap(body: &[u8], limit: usize) -> Result<Vec<u8>, Unpack> {
    const FRAMED: &[u8] = b"\xff\x06\x00\x00sNaPpY";
    if body.starts_with(FRAMED) {
        return bounded(snap::read::FrameDecoder::new(body), limit, "snappy");
    }
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let broken = |error: snap::Error| Unpack::Broken(format!("it is not snappy: {error}"));
    if snap::raw::decompress_len(body).map_err(broken)? > limit {
        return Err(Unpack::TooLarge);
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(broken)
}
