//! What could not be read, for a look and another try.
//!
//! A kept body remembers how it was sent, so that a later version, which may read it, can take it after all. It begins
//! with one line of JSON that says so; the bytes follow.

use std::{cell::RefCell, sync::Arc};

use logwarden_core::{
    Timestamp,
    env::Env,
    ledger::{BatchId, Commit, CommitId, Committed, Ledger, LedgerError, QuarantineRow, Query, SpoolRow, Write},
};
use serde::{Deserialize, Serialize};

use crate::{
    batch::{Bounds, Part},
    decode::{Protocol, Unread},
    inflate::PLAIN,
    receiver::Limits,
    sent::{Beginning, Sent},
    window::Failure,
};

/// How a kept body was sent.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    #[serde(flatten)]
    sent: Sent,
    /// Its length as it was sent.
    bytes: u64,
}

/// The row that keeps what could not be read of a body.
pub(crate) fn row(sent: &Sent, at: Timestamp, unread: Unread) -> QuarantineRow {
    let mut sent = sent.clone();
    if !unread.is_packed {
        sent.encoding = PLAIN.to_owned();
    }
    let sender = sent.client.clone();
    let mut body = serde_json::to_vec(&Head { sent, bytes: unread.bytes }).unwrap_or_default();
    body.push(b'\n');
    body.extend_from_slice(&unread.body);
    QuarantineRow { ordinal: 0, at, sender, reason: unread.reason, body }
}

/// A body that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number.
    pub number: u64,
    /// When it came.
    pub at: Timestamp,
    /// Who sent it: a client's name, or an address.
    pub sender: String,
    /// What was wrong.
    pub reason: String,
    /// The bytes as they were sent, or their beginning.
    pub body: Vec<u8>,
    /// How many bytes were sent.
    pub bytes: u64,
    /// Which protocol it came in, what it was announced as, and its compression, for people.
    pub sent_as: String,
}

/// What became of another try.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replayed {
    /// So many lines wait to be analysed; the body is no longer kept. Unreadable pieces of it are, under new numbers.
    Spooled {
        /// The lines.
        lines: u64,
    },
    /// It still cannot be read, and stays.
    Unreadable {
        /// Why.
        reason: String,
    },
    /// There is no body of that number, or another process has just taken it.
    Missing,
}

/// Lists, shows, removes and replays what could not be read. Safe beside a running receiver.
#[derive(Debug)]
pub struct Quarantine {
    ledger: Arc<dyn Ledger>,
    env: Arc<dyn Env>,
    limits: Limits,
}

impl Quarantine {
    /// The quarantine of a ledger.
    pub fn new(ledger: Arc<dyn Ledger>, env: Arc<dyn Env>) -> Self {
        Self { ledger, env, limits: Limits::default() }
    }

    /// The newest bodies, newest first.
    ///
    /// # Errors
    ///
    /// When the state cannot be used.
    pub async fn list(&self, limit: usize) -> Result<Vec<Kept>, LedgerError> {
        let rows = self.rows(limit).await?;
        Ok(rows.iter().map(|row| kept(row).0).collect())
    }

    /// One body.
    ///
    /// # Errors
    ///
    /// When the state cannot be used.
    pub async fn read(&self, number: u64) -> Result<Option<Kept>, LedgerError> {
        Ok(self.row(number).await?.map(|row| kept(&row).0))
    }

    /// Removes bodies; returns how many of them there were.
    ///
    /// # Errors
    ///
    /// When the state cannot be used.
    pub async fn remove(&self, numbers: &[u64]) -> Result<u64, LedgerError> {
        let rows = self.rows(usize::MAX).await?;
        let there: Vec<u64> = rows.iter().map(|row| row.ordinal).filter(|number| numbers.contains(number)).collect();
        if there.is_empty() {
            return Ok(0);
        }
        let count = there.len() as u64;
        let _ = self.commit(vec![Write::Unquarantine(there)]).await?;
        Ok(count)
    }

    /// Reads a body once more and hands its lines to the receiver's spool; with `as_text` every line of it is taken as
    /// it is, whatever it was meant to be.
    ///
    /// # Errors
    ///
    /// When the state cannot be used, or has no room.
    pub async fn replay(&self, number: u64, as_text: bool) -> Result<Replayed, LedgerError> {
        let Some(row) = self.row(number).await? else { return Ok(Replayed::Missing) };
        let (_, head, body) = kept(&row);
        let now = self.env.now();
        let bounds = Bounds { records: self.limits.records, received: now };
        let sent = if as_text { Sent { protocol: Protocol::Text, ..head.sent } } else { head.sent };
        let (lines, parts, mut bad) = match again(&sent, body, self.limits.decoded_bytes, bounds) {
            Ok(read) => read,
            Err(failure) => return Ok(Replayed::Unreadable { reason: failure.to_string() }),
        };
        // What can only be read in part because its compression is broken was taken as far when it came.
        if lines == 0 || bad.iter().any(|unread| unread.is_packed) {
            let reason = bad.pop().map_or_else(|| "there are no lines in it".to_owned(), |unread| unread.reason);
            return Ok(Replayed::Unreadable { reason });
        }
        // Named after the row: of two replays at once, one finds the batch to be known.
        let hash = blake3::hash(&[&number.to_be_bytes(), &row.at.nanos().to_be_bytes()[..], &row.body].concat());
        let mut bits = [0; 16];
        bits.copy_from_slice(&hash.as_bytes()[..16]);
        let name = u128::from_be_bytes(bits);
        let mut writes: Vec<Write> = (0_u128..)
            .zip(parts)
            .map(|(place, part)| {
                let batch = BatchId(name.wrapping_add(place));
                Write::Spool(SpoolRow { ordinal: 0, batch, at: now, lines: part.lines, body: part.body })
            })
            .collect();
        writes.extend(bad.into_iter().map(|unread| Write::Quarantine(self::row(&sent, now, unread))));
        writes.push(Write::Count("push_lines".to_owned(), lines));
        writes.push(Write::Unquarantine(vec![number]));
        match self.commit(writes).await? {
            Committed::Done => Ok(Replayed::Spooled { lines }),
            Committed::Conflict => Ok(Replayed::Missing),
        }
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, LedgerError> {
        let random = u128::from(self.env.random()) << 64 | u128::from(self.env.random());
        self.ledger.commit(&Commit { id: CommitId(random), writes }).await
    }

    async fn rows(&self, limit: usize) -> Result<Vec<QuarantineRow>, LedgerError> {
        Ok(self.ledger.read(&Query { quarantine: limit, ..Query::default() }).await?.quarantine)
    }

    async fn row(&self, number: u64) -> Result<Option<QuarantineRow>, LedgerError> {
        Ok(self.rows(usize::MAX).await?.into_iter().find(|row| row.ordinal == number))
    }
}

/// Lines, parts, and what is still unreadable.
type Again = (u64, Vec<Part>, Vec<Unread>);

fn again(sent: &Sent, body: &[u8], limit: usize, bounds: Bounds) -> Result<Again, Failure> {
    let parts = RefCell::new(Vec::new());
    let sink = |part| {
        parts.borrow_mut().push(part);
        true
    };
    let mut decoded = sent.read(body, &Beginning::default(), limit, bounds, &|| true, Box::new(sink))?;
    let (last, lines, bad) = (decoded.batch.finish(), decoded.batch.lines, decoded.bad);
    drop(decoded.batch);
    Ok((lines, parts.take().into_iter().chain(last).collect(), bad))
}

/// A row for people, how it was sent, and its bytes. One that says nothing about itself is a body of records.
fn kept(row: &QuarantineRow) -> (Kept, Head, &[u8]) {
    let split = memchr::memchr(b'\n', &row.body).map(|at| (&row.body[..at], &row.body[at + 1..]));
    let known = split.and_then(|(head, body)| Some((serde_json::from_slice::<Head>(head).ok()?, body)));
    let (head, body) = known.unwrap_or_else(|| {
        (Head { sent: Sent::records(&row.sender), bytes: row.body.len() as u64 }, row.body.as_slice())
    });
    let kept = Kept {
        number: row.ordinal,
        at: row.at,
        sender: row.sender.clone(),
        reason: row.reason.clone(),
        body: body.to_vec(),
        bytes: head.bytes,
        sent_as: head.sent.to_string(),
    };
    (kept, head, body)
}
