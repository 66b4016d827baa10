//! What one request brought, on its way into the spool and out of it.
//!
//! A part is a version byte and a zstd frame of two kinds of entries: a stream (labels and details), and a line (which
//! stream, clock, time, text). Large requests become several parts, so that no ingest has to take more than a page.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Write},
    sync::Arc,
};

use logwarden_core::{
    Line, LineId, Stream, Timestamp,
    ledger::BatchId,
    templates::{Clock, Zone},
};

const VERSION: u8 = 1;
const STREAM: u8 = 1;
const LINE: u8 = 2;
/// Lines of one part at most.
const PART_LINES: u64 = 25_000;
/// Bytes of text of one part at most, exceeded by less than one line.
const PART_BYTES: usize = 8 << 20;
/// Streams of one part at most.
const PART_STREAMS: usize = 5_000;
/// A line that is longer keeps its head and its tail.
pub(crate) const MAX_LINE: usize = 1 << 20;
/// An entry that claims to be longer was not written by us.
const MAX_ENTRY: u64 = 4 << 20;

type Labels = BTreeMap<String, String>;

/// Bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Records at most.
    pub(crate) records: u64,
    /// When it was received: times far from it are not believed.
    pub(crate) received: Timestamp,
}

/// One stored piece of a batch.
#[derive(Debug)]
pub(crate) struct Part {
    /// How many lines it holds.
    pub(crate) lines: u64,
    /// The encoded lines.
    pub(crate) body: Vec<u8>,
}

/// Collects the lines of a request.
#[derive(Debug)]
pub(crate) struct Batch {
    bounds: Bounds,
    parts: Vec<Part>,
    open: Option<Open>,
    /// Lines in all.
    pub(crate) lines: u64,
    /// Whether any record carried a time: only then equal bytes mean a batch sent again.
    pub(crate) has_times: bool,
    /// Lines that were cut.
    pub(crate) cut: u64,
    /// Times that were not believed.
    pub(crate) odd_times: u64,
    /// Records beyond the bound.
    pub(crate) too_many: u64,
}

struct Open {
    out: zstd::stream::write::Encoder<'static, Vec<u8>>,
    streams: HashMap<(Labels, Labels), u64>,
    lines: u64,
    bytes: usize,
    last: i64,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("lines", &self.lines).finish_non_exhaustive()
    }
}

const WRITES: &str = "writing to memory does not fail";

impl Open {
    fn new() -> Self {
        let out = zstd::stream::write::Encoder::new(vec![VERSION], 1).expect("level 1 exists");
        Self { out, streams: HashMap::new(), lines: 0, bytes: 0, last: 0 }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.out.write_all(bytes).expect(WRITES);
    }

    fn varint(&mut self, mut number: u64) {
        let (mut buffer, mut used) = ([0; 10], 0);
        while number >= 0x80 {
            buffer[used] = number as u8 | 0x80;
            number >>= 7;
            used += 1;
        }
        buffer[used] = number as u8;
        self.out.write_all(&buffer[..=used]).expect(WRITES);
    }

    fn labels(&mut self, labels: &Labels) {
        self.varint(labels.len() as u64);
        for (name, value) in labels {
            self.bytes(name.as_bytes());
            self.bytes(value.as_bytes());
        }
    }

    fn stream(&mut self, labels: Labels, details: Labels) -> u64 {
        let known = (labels, details);
        if let Some(number) = self.streams.get(&known) {
            return *number;
        }
        let number = self.streams.len() as u64;
        self.out.write_all(&[STREAM]).expect(WRITES);
        self.labels(&known.0);
        self.labels(&known.1);
        self.streams.insert(known, number);
        number
    }

    fn finish(self) -> Part {
        Part { lines: self.lines, body: self.out.finish().expect(WRITES) }
    }
}

impl Batch {
    /// An empty batch.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, parts: Vec::new(), open: None, lines: 0, has_times: false, cut: 0, odd_times: 0, too_many: 0 }
    }

    /// Adds a line. `false` when there is room for no more.
    pub(crate) fn push(
        &mut self,
        labels: Labels,
        details: Labels,
        time: Option<i64>,
        clock: Clock,
        text: &[u8],
    ) -> bool {
        if self.lines >= self.bounds.records {
            self.too_many += 1;
            return false;
        }
        self.has_times |= time.is_some();
        let received = self.bounds.received.nanos();
        const WEEK: i64 = 7 * 86_400 * 1_000_000_000;
        const AHEAD: i64 = 300 * 1_000_000_000;
        let believed = time.filter(|time| (received - WEEK..=received + AHEAD).contains(time));
        let (nanos, clock) = match believed {
            Some(time) => (time, clock),
            None => (received, Clock::Arrival),
        };
        self.odd_times += u64::from(time.is_some() && believed.is_none());
        let shortened;
        let text = if text.len() > MAX_LINE {
            self.cut += 1;
            shortened = shorten(text);
            &shortened
        } else {
            text
        };
        if self.open.as_ref().is_some_and(|open| {
            open.lines >= PART_LINES || open.bytes >= PART_BYTES || open.streams.len() >= PART_STREAMS
        }) {
            self.parts.extend(self.open.take().map(Open::finish));
        }
        let open = self.open.get_or_insert_with(Open::new);
        let stream = open.stream(labels, details);
        open.out.write_all(&[LINE, u8::from(clock == Clock::Record)]).expect(WRITES);
        open.varint(stream);
        let delta = nanos.wrapping_sub(open.last);
        open.varint((delta << 1 ^ delta >> 63) as u64);
        open.last = nanos;
        open.bytes(text);
        open.lines += 1;
        open.bytes += text.len();
        self.lines += 1;
        true
    }

    /// The parts to store.
    pub(crate) fn finish(&mut self) -> Vec<Part> {
        self.parts.extend(self.open.take().map(Open::finish));
        std::mem::take(&mut self.parts)
    }
}

/// Head and tail of a line that is too long, with what was left out named between them.
fn shorten(text: &[u8]) -> Vec<u8> {
    let keep = MAX_LINE / 2 - 128;
    let (head, tail) = (&text[..keep], &text[text.len() - keep..]);
    let hash = blake3::hash(text).to_hex();
    let note =
        format!(" [... {} of {} bytes left out, blake3 {} ...] ", text.len() - 2 * keep, text.len(), &hash[..16]);
    [head, note.as_bytes(), tail].concat()
}

/// A stored part that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("a spooled batch cannot be read")]
pub(crate) struct Corrupt;

/// The lines of a stored part, all with `tags`.
pub(crate) fn lines(batch: BatchId, body: &[u8], tags: u64, zone: &Zone) -> Result<Vec<Line>, Corrupt> {
    let (version, frame) = body.split_first().ok_or(Corrupt)?;
    if *version != VERSION {
        return Err(Corrupt);
    }
    let decoder = zstd::stream::read::Decoder::new(frame).map_err(|_| Corrupt)?;
    let mut reader = Reader(std::io::BufReader::with_capacity(64 << 10, decoder.take(256 << 20)));
    let (mut lines, mut streams, mut last) = (Vec::new(), Vec::new(), 0_i64);
    while let Some(kind) = reader.kind()? {
        match kind {
            STREAM => {
                let (labels, details) = (reader.labels()?, reader.labels()?);
                streams.push(Arc::new(Stream::new(labels).with_details(details).with_zone(zone.clone())));
            }
            LINE => {
                let clock = if reader.byte()? == 1 { Clock::Record } else { Clock::Arrival };
                let stream = usize::try_from(reader.varint()?).ok().and_then(|n| streams.get(n)).ok_or(Corrupt)?;
                let delta = reader.varint()?;
                last = last.wrapping_add((delta >> 1) as i64 ^ -((delta & 1) as i64));
                lines.push(Line {
                    id: LineId::of(&[&batch.0.to_be_bytes(), &(lines.len() as u64).to_be_bytes()]),
                    time: Timestamp::from_nanos(last),
                    clock,
                    stream: stream.clone(),
                    text: reader.bytes()?,
                    tags,
                });
            }
            _ => return Err(Corrupt),
        }
    }
    Ok(lines)
}

struct Reader<R>(R);

impl<R: Read> Reader<R> {
    fn kind(&mut self) -> Result<Option<u8>, Corrupt> {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(byte[0])),
            Err(_) => Err(Corrupt),
        }
    }

    fn byte(&mut self) -> Result<u8, Corrupt> {
        self.kind()?.ok_or(Corrupt)
    }

    fn varint(&mut self) -> Result<u64, Corrupt> {
        let mut number = 0;
        for shift in 0..10 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << (7 * shift).min(63);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Corrupt)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Corrupt> {
        let length = self.varint()?;
        if length > MAX_ENTRY {
            return Err(Corrupt);
        }
        let mut bytes = vec![0; length as usize];
        self.0.read_exact(&mut bytes).map_err(|_| Corrupt)?;
        Ok(bytes)
    }

    fn labels(&mut self) -> Result<Labels, Corrupt> {
        let count = self.varint()?;
        let mut labels = Labels::new();
        for _ in 0..count.min(1000) {
            let (name, value) = (self.bytes()?, self.bytes()?);
            labels
                .insert(String::from_utf8(name).map_err(|_| Corrupt)?, String::from_utf8(value).map_err(|_| Corrupt)?);
        }
        Ok(labels)
    }
}
