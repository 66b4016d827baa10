//! The decoders of push-source, without its network side (whose TLS would take longer to build than to fuzz).

#![allow(dead_code)]

#[path = "../../src/batch.rs"]
mod batch;
#[path = "../../src/decode.rs"]
mod decode;
#[path = "../../src/frames.rs"]
mod frames;
#[path = "../../src/inflate.rs"]
mod inflate;
#[path = "../../src/json.rs"]
mod json;
#[path = "../../src/loki.rs"]
mod loki;
#[path = "../../src/moment.rs"]
mod moment;
#[path = "../../src/msgpack.rs"]
mod msgpack;
#[path = "../../src/otlp.rs"]
mod otlp;
#[path = "../../src/record.rs"]
mod record;
#[path = "../../src/sent.rs"]
mod sent;
#[path = "../../src/snappy.rs"]
mod snappy;
#[path = "../../src/value.rs"]
mod value;
#[path = "../../src/window.rs"]
mod window;
#[path = "../../src/wire.rs"]
mod wire;

use std::{cell::RefCell, io, io::Read};

use logwarden_core::{Timestamp, ledger::BatchId, templates::Zone};

use crate::{
    batch::{Bounds, Part},
    decode::Protocol,
    frames::Frames,
    sent::{Beginning, Sent},
};

/// Gives a few bytes at a time.
struct Dripping<'a>(&'a [u8], usize);

impl Read for Dripping<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.1.min(out.len()).min(self.0.len());
        out[..bytes].copy_from_slice(&self.0[..bytes]);
        self.0 = &self.0[bytes..];
        Ok(bytes)
    }
}

/// The lines of a body, and whether its compression was broken; `None` when it is too large.
fn read(sent: &Sent, body: &[u8], step: usize) -> Option<(Vec<Vec<u8>>, bool)> {
    let parts = RefCell::new(Vec::new());
    let sink = |part: Part| {
        parts.borrow_mut().push(part);
        true
    };
    let bounds = Bounds { records: 10_000, received: Timestamp::from_secs(1_795_216_800) };
    let input = Dripping(body, step);
    let mut decoded = sent.read(input, &Beginning::default(), 1 << 20, bounds, &|| true, Box::new(sink)).ok()?;
    let last = decoded.batch.finish();
    let (count, bad) = (decoded.batch.lines, std::mem::take(&mut decoded.bad));
    assert!(bad.iter().map(|unread| unread.body.len()).sum::<usize>() <= 1 << 20);
    drop(decoded);
    let mut lines = Vec::new();
    for part in parts.take().into_iter().chain(last) {
        let stored = batch::lines(BatchId(1), &part.body, 1, &Zone::UTC).expect("what is stored can be read");
        lines.extend(stored.into_iter().map(|line| line.text));
    }
    assert_eq!(lines.len() as u64, count);
    Some((lines, bad.iter().any(|unread| unread.is_packed)))
}

fn protocol(number: u8) -> Protocol {
    [Protocol::Records, Protocol::Loki, Protocol::Otlp, Protocol::Text][usize::from(number % 4)]
}

/// A body that is not compressed; its first byte says which protocol and type it is sent as. Its lines do not depend on
/// how it arrives.
pub fn body(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let types = ["", "application/json", "application/msgpack", "application/x-protobuf"];
    let sent = Sent {
        protocol: protocol(*kind),
        content_type: types[usize::from(kind / 4 % 4)].to_owned(),
        encoding: inflate::PLAIN.to_owned(),
        ..Sent::records("fuzz")
    };
    let whole = read(&sent, bytes, usize::MAX);
    assert_eq!(read(&sent, bytes, 3), whole);
}

/// A compressed body; its first byte says how, and which protocol it is sent as.
pub fn packed(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let encodings = ["gzip", "deflate", "zstd", "snappy", "", "snappy, gzip", "br", "zstd, zstd"];
    let encoding = encodings[usize::from(kind / 4 % 8)].to_owned();
    let sent = Sent { protocol: protocol(*kind), encoding, ..Sent::records("fuzz") };
    let whole = read(&sent, bytes, usize::MAX);
    let pieces = read(&sent, bytes, 3);
    // How much comes out of a broken compression depends on how it is fed.
    if let (Some((lines, false)), Some((again, false))) = (whole, pieces) {
        assert_eq!(lines, again);
    }
}

/// Syslog over a stream, and a part of the spool.
pub fn syslog(bytes: &[u8]) {
    let cut = |step: usize| {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        bytes.chunks(step.max(1)).for_each(|chunk| frames.push(chunk, &mut out));
        out.extend(frames.finish());
        out
    };
    assert_eq!(cut(3), cut(bytes.len()));
    let _ = batch::lines(BatchId(1), bytes, 1, &Zone::UTC);
}
