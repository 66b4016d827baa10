//! How a body was sent, which decides how it is read.

use std::fmt;

use logwarden_core::{
    Timestamp,
    ledger::{BatchId, SpoolRow, Write},
};
use serde::{Deserialize, Serialize};

use crate::{
    batch::{Bounds, Part},
    decode::{self, Decoded, Protocol, Unread},
    inflate::{self, Unpack},
    quarantine,
    record::Context,
};

/// The encoding of what was unpacked already.
pub(crate) const PLAIN: &str = "identity";

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

/// What became of a body.
#[derive(Debug)]
pub(crate) enum Read {
    /// It is larger than allowed.
    TooLarge,
    /// Its lines, and the name that the same body has again.
    Decoded { id: u128, decoded: Box<Decoded> },
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

    /// The same, to be taken as lines of text.
    pub(crate) fn as_text(self) -> Self {
        Self { protocol: Protocol::Text, ..self }
    }

    /// Unpacks and decodes a body.
    pub(crate) fn read(&self, body: &[u8], limit: usize, bounds: Bounds) -> Read {
        // Loki takes everything that is not JSON for snappy and protobuf; Fluent Bit's records at that path are JSON.
        let is_json = || self.content_type.to_ascii_lowercase().contains("json") || looks_like_json(body);
        let snappy = self.protocol == Protocol::Loki && self.encoding != PLAIN && !is_json();
        let unpacked = match inflate::unpack(&self.encoding, body, limit, snappy) {
            Ok(unpacked) => unpacked,
            Err(Unpack::TooLarge) => return Read::TooLarge,
            Err(Unpack::Broken(reason)) => return self.unreadable(body, &reason, bounds),
        };
        let id = self.batch_id(&unpacked);
        let decoded = decode::decode(self.protocol, &self.content_type, &unpacked, &self.context, bounds);
        Read::Decoded { id, decoded: Box::new(decoded) }
    }

    /// Nothing of it but its bytes.
    pub(crate) fn unreadable(&self, body: &[u8], reason: &str, bounds: Bounds) -> Read {
        let mut decoded = decode::decode(self.protocol, "", b"", &self.context, bounds);
        let kept = body[..body.len().min(quarantine::KEEP)].to_vec();
        decoded.bad.push(Unread { body: kept, bytes: body.len() as u64, reason: reason.to_owned(), is_packed: true });
        Read::Decoded { id: 0, decoded: Box::new(decoded) }
    }

    /// Who sent it, with which tag, to which protocol, and what: the same for a batch that is sent again.
    fn batch_id(&self, body: &[u8]) -> u128 {
        let mut hasher = blake3::Hasher::new();
        let tag = self.context.labels.get("tag").map_or("", String::as_str);
        for part in [self.client.as_bytes(), tag.as_bytes(), &[self.protocol as u8], body] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut bits = [0; 16];
        bits.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        u128::from_be_bytes(bits)
    }
}

fn looks_like_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// The writes that spool the parts of a batch.
pub(crate) fn spooled(id: u128, at: Timestamp, parts: Vec<Part>) -> Vec<Write> {
    let row = |(number, part): (usize, Part)| {
        let batch = BatchId(id ^ (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        Write::Spool(SpoolRow { ordinal: 0, batch, at, lines: part.lines, body: part.body })
    };
    parts.into_iter().enumerate().map(row).collect()
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
        if !self.encoding.is_empty() {
            write!(f, ", compressed with {}", self.encoding)?;
        }
        Ok(())
    }
}
