//! Receives bodies: small ones whole, larger ones while they are decoded, so that no body is in memory because it is large.

use std::{
    io::{self, Read},
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::{sync::mpsc, time};

use crate::{memory::Held, receiver::Shared, window::Failure};

/// Larger bodies are decoded while they arrive.
pub(crate) const WHOLE: usize = 4 << 20;
/// What a body that is decoded while it arrives needs: pieces, a window, a part.
const STREAMED: usize = 6 << 20;
/// A body of unknown length gets memory in such steps.
const STEP: usize = 256 << 10;
/// How much of a refused body is read, so that the sender sees the answer.
const DRAIN_BYTES: usize = 4 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Why a body is not received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is larger than allowed.
    TooLarge,
    /// There is no memory for it.
    NoMemory,
    /// It comes too slowly, or no more.
    Slow,
}

/// A body on its way.
#[derive(Debug)]
pub(crate) struct Body {
    incoming: Incoming,
    bytes: usize,
    waited: Duration,
}

/// What has come of a body, and the memory that is set aside for it.
#[derive(Debug)]
pub(crate) struct Received {
    /// All of it, or its beginning.
    pub(crate) bytes: Vec<u8>,
    /// Whether there is more.
    pub(crate) has_more: bool,
    held: Vec<Held>,
}

impl Body {
    /// A body of which nothing was read yet.
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self { incoming, bytes: 0, waited: Duration::ZERO }
    }

    /// How much of it has come.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self, shared: &Shared) -> Result<Option<Bytes>, Stop> {
        let limits = &shared.limits;
        loop {
            let begun = time::Instant::now();
            let frame = match time::timeout(limits.body_idle, self.incoming.frame()).await {
                Err(_) | Ok(Some(Err(_))) => return Err(Stop::Slow),
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
            };
            // Only the sender's time counts, not ours.
            self.waited += begun.elapsed();
            let Ok(data) = frame.into_data() else { continue };
            self.bytes += data.len();
            if self.bytes > limits.body_bytes {
                return Err(Stop::TooLarge);
            }
            let expected = self.waited.saturating_sub(limits.body_grace).as_secs_f64() * limits.slowest_rate as f64;
            if (self.bytes as f64) < expected {
                return Err(Stop::Slow);
            }
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }

    /// Receives a small body, or the beginning of a larger one; waits until there is memory for it.
    pub(crate) async fn receive(
        &mut self,
        shared: &Shared,
        client: &str,
        announced: Option<usize>,
        patience: Duration,
    ) -> Result<Received, Stop> {
        let hold = async |bytes: usize| {
            let waiting = time::timeout(patience, shared.memory.hold(client, bytes));
            waiting.await.ok().flatten().ok_or(Stop::NoMemory)
        };
        if announced.is_some_and(|bytes| bytes > WHOLE) {
            return Ok(Received { bytes: Vec::new(), has_more: true, held: vec![hold(STREAMED).await?] });
        }
        let mut room = announced.unwrap_or(STEP);
        let mut received = Received { bytes: Vec::new(), has_more: false, held: vec![hold(room).await?] };
        while let Some(data) = self.next(shared).await? {
            if received.bytes.is_empty() {
                received.bytes.reserve_exact(announced.unwrap_or(data.len()));
            }
            received.bytes.extend_from_slice(&data);
            if received.bytes.len() > WHOLE {
                received.has_more = true;
                break;
            }
            while received.bytes.len() > room {
                received.held.push(hold(STEP).await?);
                room += STEP;
            }
        }
        Ok(received)
    }

    /// Hands the rest to the decoder; when that wants no more, the rest is read all the same, so that the sender sees the
    /// answer.
    pub(crate) async fn feed(&mut self, shared: &Shared, decoder: mpsc::Sender<Piece>) -> Result<(), Stop> {
        loop {
            let piece = match self.next(shared).await {
                Ok(Some(data)) => Piece::Data(data),
                Ok(None) => Piece::End,
                Err(Stop::TooLarge) => Piece::TooLarge,
                Err(stop) => return Err(stop),
            };
            let is_last = !matches!(piece, Piece::Data(_));
            let _ = decoder.send(piece).await;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Reads on a little, so that the sender gets to read the answer.
    pub(crate) async fn drain(&mut self) {
        let reading = async {
            let mut read = 0;
            while let Some(Ok(frame)) = self.incoming.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > DRAIN_BYTES {
                    return;
                }
            }
        };
        let _ = time::timeout(DRAIN_TIME, reading).await;
    }
}

/// A piece of a body that is decoded while it arrives.
#[derive(Debug)]
pub(crate) enum Piece {
    /// More of it.
    Data(Bytes),
    /// It is complete.
    End,
    /// It is larger than allowed.
    TooLarge,
}

/// How many pieces wait for the decoder.
pub(crate) const PIECES: usize = 4;

/// What the decoder reads: the beginning that was received, then what is fed.
#[derive(Debug)]
pub(crate) struct Pieces {
    now: Bytes,
    later: Option<mpsc::Receiver<Piece>>,
}

impl Pieces {
    /// What was received, and where more of it comes from.
    pub(crate) fn new(received: Vec<u8>, later: Option<mpsc::Receiver<Piece>>) -> Self {
        Self { now: received.into(), later }
    }

    /// Whether it depends on the sender when there is more.
    pub(crate) fn is_arriving(&self) -> bool {
        self.later.is_some()
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            let Some(later) = &mut self.later else { return Ok(0) };
            match later.blocking_recv() {
                Some(Piece::Data(data)) => self.now = data,
                Some(Piece::End) => self.later = None,
                Some(Piece::TooLarge) => return Err(Failure::TooLarge.into()),
                None => return Err(Failure::Cut.into()),
            }
        }
        let read = self.now.len().min(out.len());
        out[..read].copy_from_slice(&self.now.split_to(read));
        Ok(read)
    }
}
