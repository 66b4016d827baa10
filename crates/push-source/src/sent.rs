//! How a body was sent, which decides how it is read.

use std::{
    cell::RefCell,
    fmt,
    io::{self, Read},
};

use serde::{Deserialize, Serialize};

use crate::{
    batch::{Batch, Bounds, Sink},
    decode::{self, Decoded, Protocol, Unread},
    inflate::{self, PLAIN},
    record::Context,
    window::{Failure, KEEP, Leave, Window},
};

/// What is known about a body besides its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// What its path says.
    pub(crate) protocol: Protocol,
    /// `Content-Type`.
    #[serde(default)]
    pub(crate) content_type: String,
    /// `Content-Encoding`; [`PLAIN`]: none, whatever it looks like.
    #[serde(default)]
    pub(crate) encoding: String,
    /// Who sent it.
    pub(crate) client: String,
    /// What headers and the connection say about all its records.
    #[serde(default)]
    pub(crate) context: Context,
}

/// The beginning of a body as it was sent, kept for the case that it cannot be read.
#[derive(Debug, Default)]
pub(crate) struct Beginning(RefCell<(Vec<u8>, u64)>);

impl Beginning {
    /// What is kept of a body of which nothing, or nothing more, can be read.
    pub(crate) fn unread(&self, reason: String) -> Unread {
        let beginning = self.0.borrow();
        Unread { body: beginning.0.clone(), bytes: beginning.1, reason, is_packed: true }
    }
}

/// Remembers the beginning of what is read.
struct Noted<'b, R> {
    input: R,
    beginning: &'b Beginning,
}

impl<R: Read> Read for Noted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(out)?;
        let (kept, bytes) = &mut *self.beginning.0.borrow_mut();
        let room = KEEP.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(&out[..room]);
        *bytes += read as u64;
        Ok(read)
    }
}

impl Sent {
    /// Records of somebody, with nothing known about them.
    pub(crate) fn records(client: &str) -> Self {
        Self {
            protocol: Protocol::Records,
            content_type: String::new(),
            encoding: String::new(),
            client: client.to_owned(),
            context: Context::default(),
        }
    }

    /// An empty batch: what it is named after, besides its lines, is who sent it, with which tag, to which protocol.
    pub(crate) fn batch<'s>(&self, bounds: Bounds, sink: Sink<'s>) -> Batch<'s> {
        let tag = self.context.labels.get("tag").map_or("", String::as_str);
        Batch::new(bounds, &[self.client.as_bytes(), tag.as_bytes(), &[self.protocol as u8]], sink)
    }

    /// Unpacks and decodes a body of at most `limit` bytes. Parts that are full go to `sink` meanwhile.
    pub(crate) fn read<'s>(
        &self,
        input: impl Read,
        beginning: &Beginning,
        limit: usize,
        bounds: Bounds,
        leave: Leave<'_>,
        sink: Sink<'s>,
    ) -> Result<Decoded<'s>, Failure> {
        let batch = self.batch(bounds, sink);
        let (head, input) = inflate::peek(Box::new(Noted { input, beginning }))?;
        // Loki takes everything that is not JSON for snappy and protobuf; Fluent Bit's records at that path are JSON.
        let is_json = self.content_type.to_ascii_lowercase().contains("json")
            || matches!(head.trim_ascii_start().first(), Some(b'{' | b'['));
        let snappy = self.protocol == Protocol::Loki && self.encoding != PLAIN && !is_json;
        let unpacked = match inflate::unpack(&self.encoding, input, limit, snappy, leave) {
            Ok(unpacked) => unpacked,
            Err(Failure::Broken(reason)) => return Ok(Decoded { batch, bad: vec![beginning.unread(reason)] }),
            Err(failure) => return Err(failure),
        };
        let mut window = Window::new(unpacked, leave);
        let mut decoded = decode::decode(self.protocol, &self.content_type, &mut window, &self.context, batch);
        if !decoded.batch.has_failed {
            window.finish();
        }
        match window.failure {
            None => Ok(decoded),
            Some(Failure::Broken(reason)) => {
                let lines = decoded.batch.lines;
                decoded.bad.push(beginning.unread(match lines {
                    0 => reason,
                    _ => format!("{reason}, after {lines} lines, which were taken"),
                }));
                Ok(decoded)
            }
            Some(failure) => Err(failure),
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.protocol {
            Protocol::Records => "records",
            Protocol::Text => "text",
            Protocol::Loki => "a Loki push",
            Protocol::Otlp => "OTLP",
        })?;
        if !self.content_type.is_empty() {
            write!(f, ", announced as {}", self.content_type)?;
        }
        if !self.encoding.is_empty() && self.encoding != PLAIN {
            write!(f, ", compressed with {}", self.encoding)?;
        }
        Ok(())
    }
}
