//! The ledger in SQLite: sources, segments, incidents, events and the outbox in one file.
//!
//! [`SqliteLedger`] keeps the promises of [`Ledger`]: what the decisions are is none of its business. Each commit is a
//! savepoint in the writer's transaction, with its id in the same transaction, so that one whose answer was lost can be
//! sent again. Rows come out only if they are whole: a damaged one is an error that names it.
//!
//! Beside the file lies a copy of each source's cursor in plain text. It is a hint for one case: when the file is damaged
//! and set aside, reading goes on where it stopped and not at the configured start.

mod mirror;
mod prune;
mod read;
mod row;
mod write;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use logwarden_core::{
    ledger::{Commit, Committed, Ledger, LedgerError, Query, Snapshot, Write},
    retention::Limits,
};
use logwarden_sqlite::{Database, Error, Kept, Schema};
pub use logwarden_sqlite::{Opened, Options, Room};

use crate::mirror::Mirror;

/// The name of the file in the state directory.
pub const FILE: &str = "ledger.db";

/// "LWLD".
static SCHEMA: Schema = Schema { application_id: 0x4c57_4c44, migrations: &[include_str!("../schema/1.sql")] };

/// The ledger in a file.
#[derive(Debug)]
pub struct SqliteLedger {
    database: Database,
    mirror: Mirror,
    limits: Limits,
    dir: PathBuf,
    keep_free: Option<u64>,
}

impl SqliteLedger {
    /// Opens the ledger in a state directory, and creates both as needed. Blocks for some milliseconds.
    ///
    /// What opening did is the caller's to report: when a damaged file was set aside, that is an alert.
    ///
    /// # Errors
    ///
    /// When the file cannot or must not be used.
    pub fn open(state_dir: &Path, options: &Options, limits: Limits) -> Result<(Self, Opened), LedgerError> {
        let path = state_dir.join(FILE);
        let (database, opened) = Database::open(&path, &SCHEMA, options).map_err(failed)?;
        let mirror = Mirror::new(state_dir.join("cursors"));
        let (dir, keep_free) = (state_dir.to_owned(), options.keep_free);
        let ledger = Self { database, mirror, limits, dir, keep_free };
        if opened.set_aside.is_some() {
            ledger.restore_cursors()?;
        }
        Ok((ledger, opened))
    }

    /// Refuses what is bulky while the file system is nearly full: pushed batches first, and lines that were fetched when
    /// hardly anything is left. What is known can still be told then, and what others could not hand over stays with them.
    fn has_room(&self, commit: &Commit) -> Result<(), LedgerError> {
        let any = |of: fn(&Write) -> bool| commit.writes.iter().any(of);
        let pushed = any(|write| matches!(write, Write::Spool(_) | Write::Quarantine(_)));
        let fetched =
            any(|write| matches!(write, Write::Segment(_))) && !any(|write| matches!(write, Write::Unspool(_)));
        if !pushed && !fetched {
            return Ok(());
        }
        let Ok(room) = Room::of(&self.dir, self.keep_free) else { return Ok(()) };
        let keep = if pushed { room.keep_free } else { room.last() };
        if room.free >= keep {
            return Ok(());
        }
        let (free, keep, dir) = (room.free >> 20, keep >> 20, self.dir.display());
        let cause = format!("{free} MiB are free in {dir}, and {keep} MiB are kept for what must still be told");
        Err(LedgerError::Full { cause: cause.into() })
    }

    fn restore_cursors(&self) -> Result<(), LedgerError> {
        let cursors = self.mirror.read();
        let restore = self.database.write(move |connection| {
            for (source, cursor) in &cursors {
                write::restore_cursor(connection, source, cursor)?;
            }
            Ok(Kept::Yes(()))
        });
        futures::executor::block_on(restore).map_err(failed)
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn read(&self, query: &Query) -> Result<Snapshot, LedgerError> {
        let query = query.clone();
        self.database.read(move |connection| read::read(connection, &query)).await.map_err(failed)
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, LedgerError> {
        self.has_room(commit)?;
        let commit = Arc::new(commit.clone());
        let (limits, mirror) = (self.limits, self.mirror.clone());
        let job = {
            let commit = commit.clone();
            move |connection: &_| write::commit(connection, &commit, &limits)
        };
        let then = move |_: &Committed| {
            for write in &commit.writes {
                if let Write::Source(source, state) = write {
                    mirror.write(source, state.row.cursor.as_ref());
                }
            }
        };
        self.database.write_then(job, then).await.map_err(failed)
    }
}

fn failed(error: Error) -> LedgerError {
    match error {
        Error::Full { .. } => LedgerError::Full { cause: error.into() },
        Error::Newer { found, known, .. } => LedgerError::Newer { found, known },
        error => LedgerError::Failed { cause: error.into() },
    }
}
