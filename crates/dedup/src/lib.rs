//! One voice per channel among several hosts, in SQLite.
//!
//! [`SqliteDedup`] keeps the promises of [`DedupStore`] in a file of its own beside the ledger: what several machines would
//! share is apart from what belongs to one. Each question is one transaction, so that of several processes that ask about
//! the same keys exactly one is told to speak.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use logwarden_core::{
    Severity, Timestamp,
    dedup::{Claim, DedupError, DedupStore, HOLD, Outcome, Reserved, Standing},
    finding::Key,
    incident::Rank,
    memory_dedup::{CLOCK_TOLERANCE, counts_as_told, is_from_before, lease_left},
    message::SendId,
    notifier::{ChannelHash, Receipt},
    retention,
};
use logwarden_sqlite::{
    Database, Error, Kept, Schema,
    rusqlite::{Connection, OptionalExtension, params},
};
pub use logwarden_sqlite::{Opened, Options};

/// The name of the file in the state directory.
pub const FILE: &str = "dedup.db";

/// "LWDD".
static SCHEMA: Schema = Schema { application_id: 0x4c57_4444, migrations: &[include_str!("../schema/1.sql")] };

/// Rows of each kind that are forgotten at most with one question, so that none takes long.
const FORGET_AT_ONCE: i64 = 100;

/// A deduplication store in a file.
pub struct SqliteDedup {
    database: Database,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl SqliteDedup {
    /// Opens the store in a state directory, and creates both as needed. Blocks for some milliseconds. All that have the
    /// file open must have the same clock.
    ///
    /// # Errors
    ///
    /// When the file cannot or must not be used. A damaged one is set aside; what was told is forgotten then, and may be
    /// told once more.
    pub fn open(
        state_dir: &Path,
        options: &Options,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Result<(Self, Opened), DedupError> {
        let (database, opened) = Database::open(&state_dir.join(FILE), &SCHEMA, options).map_err(failed)?;
        Ok((Self { database, clock: Box::new(clock) }, opened))
    }
}

impl fmt::Debug for SqliteDedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteDedup").field("database", &self.database).finish_non_exhaustive()
    }
}

#[async_trait]
impl DedupStore for SqliteDedup {
    async fn reserve(&self, claim: &Claim<'_>) -> Result<Standing, DedupError> {
        let (claim, now) = (Asked::from(claim), (self.clock)());
        let job = move |connection: &_| {
            let is_set_back = forget_future(connection, now)?;
            let standing = claim.reserve(connection, now)?;
            // Otherwise nothing was written.
            let is_written = is_set_back || matches!(standing, Standing::First { .. });
            Ok(if is_written { Kept::Yes(standing) } else { Kept::No(standing) })
        };
        self.database.write(job).await.map_err(failed)
    }

    async fn settle(&self, claim: &Claim<'_>, outcome: &Outcome) -> Result<(), DedupError> {
        let (claim, outcome, now) = (Asked::from(claim), outcome.clone(), (self.clock)());
        let job = move |connection: &_| claim.settle(connection, &outcome, now).map(Kept::Yes);
        self.database.write(job).await.map_err(failed)
    }
}

fn failed(error: Error) -> DedupError {
    DedupError { cause: error.into() }
}

/// A claim that outlives the call.
struct Asked {
    id: SendId,
    epoch: u64,
    channel: ChannelHash,
    keys: Arc<[(Key, Rank)]>,
    age: Duration,
    window: Duration,
    lease: Duration,
}

impl From<&Claim<'_>> for Asked {
    fn from(claim: &Claim<'_>) -> Self {
        let Claim { id, epoch, channel, keys, age, window, lease } = *claim;
        Self { id, epoch, channel, keys: keys.into(), age, window, lease }
    }
}

/// A rank as it is kept: in the order of [`Rank`].
fn number(rank: Rank) -> i64 {
    let severity = match rank.severity {
        Severity::Low => 0,
        Severity::Medium => 1,
        Severity::High => 2,
        Severity::Critical => 3,
    };
    severity + if rank.detector { 8 } else { 0 }
}

impl Asked {
    fn id(&self) -> [u8; 16] {
        self.id.0.to_be_bytes()
    }

    fn channel(&self) -> [u8; 16] {
        self.channel.0.to_be_bytes()
    }

    fn epoch(&self) -> i64 {
        i64::try_from(self.epoch).unwrap_or(i64::MAX)
    }

    fn reserve(&self, connection: &Connection, now: Timestamp) -> Result<Standing, Error> {
        let mut settled = connection.prepare_cached("SELECT receipt FROM settled WHERE id = ?1 AND at >= ?2")?;
        let kept_since = now.minus(retention::DELIVERED).nanos();
        let receipt = settled.query_row(params![self.id(), kept_since], |row| row.get(0)).optional()?;
        if let Some(receipt) = receipt {
            return Ok(Standing::Delivered { receipt: Receipt(receipt) });
        }
        if let Some(repeat) = self.told_already(connection, now)? {
            return Ok(repeat);
        }
        let mut later = connection.prepare_cached("SELECT 1 FROM claim WHERE id = ?1 AND epoch > ?2")?;
        if later.exists(params![self.id(), self.epoch()])? {
            return Ok(Standing::Pending { wait: self.lease });
        }
        let wait = self.busy(connection, now)?;
        if !wait.is_zero() {
            return Ok(Standing::Pending { wait });
        }
        self.hold(connection, now)?;
        forget(connection, now)?;
        Ok(Standing::First { at: now })
    }

    /// Who told the last of it and when the first of it was told, when all of it was told (R4).
    fn told_already(&self, connection: &Connection, now: Timestamp) -> Result<Option<Standing>, Error> {
        // Of two that were told at once the louder one answers.
        let mut told = connection.prepare_cached(
            "SELECT at, receipt FROM told WHERE channel = ?1 AND key = ?2 AND rank >= ?3 ORDER BY rank",
        )?;
        let (mut last, mut earliest): (Option<(Timestamp, String)>, Timestamp) = (None, now);
        for (key, rank) in self.keys.iter() {
            let mut rows = told.query(params![self.channel(), key.bits().to_be_bytes(), number(*rank)])?;
            let mut of_key: Option<(Timestamp, String)> = None;
            while let Some(row) = rows.next()? {
                let at = Timestamp::from_nanos(row.get(0)?);
                if counts_as_told(at, now, self.age, self.window)
                    && of_key.as_ref().is_none_or(|(known, _)| at >= *known)
                {
                    of_key = Some((at, row.get(1)?));
                }
            }
            let Some((at, receipt)) = of_key else { return Ok(None) };
            earliest = earliest.min(at);
            if last.as_ref().is_none_or(|(last, _)| at > *last) {
                last = Some((at, receipt));
            }
        }
        Ok(last.map(|(_, receipt)| Standing::Repeat { receipt: Receipt(receipt), ago: now.since(earliest) }))
    }

    /// How long others may still be saying some of it. Our own earlier attempt counts while it may still be sending. The
    /// same attempt asking again does not.
    fn busy(&self, connection: &Connection, now: Timestamp) -> Result<Duration, Error> {
        let mut wait = Duration::ZERO;
        let mut longest = |mut rows: logwarden_sqlite::rusqlite::Rows<'_>| -> Result<(), Error> {
            while let Some(row) = rows.next()? {
                let (since, until) = (Timestamp::from_nanos(row.get(0)?), Timestamp::from_nanos(row.get(1)?));
                let hold = if row.get(2)? { HOLD } else { Duration::ZERO };
                wait = wait.max(lease_left(since, until.plus(hold), now));
            }
            Ok(())
        };
        let mut own =
            connection.prepare_cached("SELECT since, until, 0 FROM claim WHERE id = ?1 AND epoch <> ?2 AND sending")?;
        longest(own.query(params![self.id(), self.epoch()])?)?;
        let mut others = connection.prepare_cached(
            "SELECT claim.since, claim.until, claim.sending FROM claim_key JOIN claim ON claim.id = claim_key.claim
             WHERE claim_key.channel = ?1 AND claim_key.key = ?2 AND claim.id <> ?3",
        )?;
        for (key, _) in self.keys.iter() {
            longest(others.query(params![self.channel(), key.bits().to_be_bytes(), self.id()])?)?;
        }
        Ok(wait)
    }

    fn hold(&self, connection: &Connection, now: Timestamp) -> Result<(), Error> {
        connection.prepare_cached("DELETE FROM claim WHERE id = ?1")?.execute([self.id()])?;
        connection
            .prepare_cached(
                "INSERT INTO claim (id, epoch, channel, at, since, until, sending) VALUES (?1, ?2, ?3, ?4, ?4, ?5, 1)",
            )?
            .execute(params![self.id(), self.epoch(), self.channel(), now.nanos(), now.plus(self.lease).nanos()])?;
        let mut insert = connection.prepare_cached(
            "INSERT INTO claim_key (claim, channel, key, rank) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?;
        for (key, rank) in self.keys.iter() {
            insert.execute(params![self.id(), self.channel(), key.bits().to_be_bytes(), number(*rank)])?;
        }
        Ok(())
    }

    /// When this very attempt was reserved, if it is the latest.
    fn reserved(&self, connection: &Connection) -> Result<Option<Timestamp>, Error> {
        let mut at = connection.prepare_cached("SELECT at FROM claim WHERE id = ?1 AND epoch = ?2")?;
        let at = at.query_row(params![self.id(), self.epoch()], |row| row.get(0)).optional()?;
        Ok(at.map(Timestamp::from_nanos))
    }

    fn settle(&self, connection: &Connection, outcome: &Outcome, now: Timestamp) -> Result<(), Error> {
        let own = self.reserved(connection)?;
        let ours = own.is_some();
        match outcome {
            Outcome::Failed if ours => {
                connection.prepare_cached("DELETE FROM claim WHERE id = ?1")?.execute([self.id()])?;
            }
            Outcome::Unclear { hold } if ours => {
                connection
                    .prepare_cached("UPDATE claim SET since = ?2, until = ?3, sending = 0 WHERE id = ?1")?
                    .execute(params![self.id(), now.nanos(), now.plus(*hold).nanos()])?;
            }
            Outcome::Failed | Outcome::Unclear { .. } => {}
            Outcome::Delivered { receipt, reserved } => {
                // Overtaken, or given up by somebody who could not know: it arrived all the same. A later attempt that is
                // under way goes on.
                let at = match *reserved {
                    Reserved::At(at) => at,
                    Reserved::Ago(held) => own.unwrap_or_else(|| now.minus(held)),
                };
                self.delivered(connection, receipt, at, now)?;
            }
        }
        Ok(())
    }

    fn delivered(
        &self,
        connection: &Connection,
        receipt: &Receipt,
        at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        connection
            .prepare_cached("DELETE FROM claim WHERE id = ?1 AND epoch = ?2")?
            .execute(params![self.id(), self.epoch()])?;
        let keys = match is_from_before(at, now) {
            true => &[][..], // nobody knows how long ago that was
            false => &*self.keys,
        };
        // The last time, unless that is from before the clock was set back.
        let mut told = connection.prepare_cached(
            "INSERT INTO told (channel, key, rank, at, receipt) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET at = excluded.at, receipt = excluded.receipt
             WHERE told.at <= excluded.at OR told.at > ?6",
        )?;
        let future = now.plus(CLOCK_TOLERANCE).nanos();
        for (key, rank) in keys {
            let key = key.bits().to_be_bytes();
            told.execute(params![self.channel(), key, number(*rank), at.nanos(), receipt.0, future])?;
        }
        connection
            .prepare_cached(
                "INSERT INTO settled (id, at, receipt) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET at = excluded.at, receipt = excluded.receipt",
            )?
            .execute(params![self.id(), now.nanos(), receipt.0])?;
        Ok(())
    }
}

/// Forgets what was told in the future: the clock was set back since, and when it has caught up that would count as told a
/// moment ago. Answers whether there was any.
fn forget_future(connection: &Connection, now: Timestamp) -> Result<bool, Error> {
    let mut forget = connection.prepare_cached("DELETE FROM told WHERE at > ?1")?;
    Ok(forget.execute([now.plus(CLOCK_TOLERANCE).nanos()])? > 0)
}

/// Forgets some of what is older than its retention.
fn forget(connection: &Connection, now: Timestamp) -> Result<(), Error> {
    let before = now.minus(retention::DELIVERED).nanos();
    for sql in [
        "DELETE FROM settled WHERE id IN (SELECT id FROM settled WHERE at < ?1 LIMIT ?2)",
        "DELETE FROM claim WHERE id IN (SELECT id FROM claim WHERE at < ?1 LIMIT ?2)",
        "DELETE FROM told WHERE (channel, key, rank) IN
           (SELECT channel, key, rank FROM told INDEXED BY told_at WHERE at < ?1 LIMIT ?2)",
    ] {
        connection.prepare_cached(sql)?.execute([before, FORGET_AT_ONCE])?;
    }
    Ok(())
}
