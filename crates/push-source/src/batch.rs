//! What one request brought, on its way into the spool and out of it.
//!
//! A part is a version byte and a zstd frame of two kinds of entries: a stream (labels and details), and a line (which
//! stream, clock, time, text). Large requests become several parts, so that no ingest has to take more than a page, and
//! so that they can be stored while they still arrive: a part's name is made of all that was sent until its end, so that
//! one that is sent again is known, however the bytes were packed and cut.

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
const PART_BYTES: usize = 4 << 20;
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
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Its name; `None` when no line of it carried a time: then equal bytes need not mean a batch sent again.
    pub(crate) id: Option<BatchId>,
    /// How many lines it holds.
    pub(crate) lines: u64,
    /// The encoded lines.
    pub(crate) body: Vec<u8>,
}

/// Takes full parts while a batch still grows; `false` when that is not possible.
pub(crate) type Sink<'s> = Box<dyn FnMut(Part) -> bool + 's>;

/// Collects the lines of a request.
pub(crate) struct Batch<'s> {
    bounds: Bounds,
    hasher: blake3::Hasher,
    sink: Sink<'s>,
    open: Option<Open>,
    /// Lines in all.
    pub(crate) lines: u64,
    /// Lines that were cut.
    pub(crate) cut: u64,
    /// Times that were not believed.
    pub(crate) odd_times: u64,
    /// Records beyond the bound.
    pub(crate) too_many: u64,
    /// Whether the sink did not take a part.
    pub(crate) has_failed: bool,
}

impl std::fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("lines", &self.lines).finish_non_exhaustive()
    }
}

struct Open {
    out: zstd::stream::write::Encoder<'static, Vec<u8>>,
    streams: HashMap<(Labels, Labels), u64>,
    lines: u64,
    bytes: usize,
    last: i64,
    has_times: bool,
}

const WRITES: &str = "writing to memory does not fail";

impl Open {
    fn new() -> Self {
        let out = zstd::stream::write::Encoder::new(vec![VERSION], 1).expect("level 1 exists");
        Self { out, streams: HashMap::new(), lines: 0, bytes: 0, last: 0, has_times: false }
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

    fn stream(&mut self, labels: Labels, details: Labels, hasher: &mut blake3::Hasher) -> u64 {
        let known = (labels, details);
        if let Some(number) = self.streams.get(&known) {
            return *number;
        }
        let number = self.streams.len() as u64;
        self.out.write_all(&[STREAM]).expect(WRITES);
        self.labels(&known.0);
        self.labels(&known.1);
        // A sender may reach us from another address the next time.
        for (name, value) in known.0.iter().chain(&known.1).filter(|(name, _)| *name != "peer") {
            hasher.update(&[name.len() as u8, value.len() as u8]).update(name.as_bytes()).update(value.as_bytes());
        }
        self.streams.insert(known, number);
        number
    }

    fn finish(self, hasher: &blake3::Hasher) -> Part {
        let id = self.has_times.then(|| {
            let mut bits = [0; 16];
            bits.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            BatchId(u128::from_be_bytes(bits))
        });
        Part { id, lines: self.lines, body: self.out.finish().expect(WRITES) }
    }

    fn is_full(&self) -> bool {
        self.lines >= PART_LINES || self.bytes >= PART_BYTES || self.streams.len() >= PART_STREAMS
    }
}

impl<'s> Batch<'s> {
    /// An empty batch. What two batches with the same lines must differ in to be two batches, is in `scope`.
    pub(crate) fn new(bounds: Bounds, scope: &[&[u8]], sink: Sink<'s>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in scope {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self { bounds, hasher, sink, open: None, lines: 0, cut: 0, odd_times: 0, too_many: 0, has_failed: false }
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
        if self.has_failed {
            return false;
        }
        if self.lines >= self.bounds.records {
            self.too_many += 1;
            return false;
        }
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
        if let Some(full) = self.open.take_if(|open| open.is_full())
            && !(self.sink)(full.finish(&self.hasher))
        {
            self.has_failed = true;
            return false;
        }
        let open = self.open.get_or_insert_with(Open::new);
        open.has_times |= time.is_some();
        let stream = open.stream(labels, details, &mut self.hasher);
        // Only what was sent, nothing that depends on when.
        for number in [stream, time.map_or(u64::MAX, |time| time as u64), text.len() as u64] {
            self.hasher.update(&number.to_le_bytes());
        }
        self.hasher.update(text);
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

    /// Adds a record that is too long to be read: its beginning is a line, and says so.
    pub(crate) fn push_cut(&mut self, labels: &Labels, head: &[u8], bytes: u64) -> bool {
        self.cut += 1;
        let head = &head[..head.len().min(MAX_LINE - 128)];
        let note = format!(" [... {} of {bytes} bytes left out ...]", bytes - head.len() as u64);
        self.push(labels.clone(), Labels::new(), None, Clock::Arrival, &[head, note.as_bytes()].concat())
    }

    /// The last part, if there is one.
    pub(crate) fn finish(&mut self) -> Option<Part> {
        Some(self.open.take()?.finish(&self.hasher))
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
