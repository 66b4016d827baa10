//! Both stores in SQLite, in a directory that goes away with them; alone, or in step with the ones in memory.

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use futures::executor::block_on;
use logwarden_core::{
    dedup::{Claim, DedupError, DedupStore, Outcome, Standing},
    ledger::{Commit, CommitId, Committed, Installation, Ledger, LedgerError, Query, Snapshot, Versioned, Write},
    retention::Limits,
    testing::{FakeEnv, MemoryDedup, MemoryLedger},
};
use logwarden_dedup::SqliteDedup;
use logwarden_ledger::{Options, SqliteLedger};
use logwarden_tests::explorer::Stores;
use tempfile::TempDir;

/// In memory where the machine has such a directory: what is looked at here is not whether disks keep what they promise.
fn directory() -> TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.unwrap()
}

/// A host's ledger, which is the same for the same host: a schedule that went wrong goes wrong again.
fn installation(host: usize) -> Installation {
    Installation { id: 100 + host as u128, secret: 1, next_incident: 0 }
}

pub(crate) struct OnDisk(TempDir);

impl Default for OnDisk {
    fn default() -> Self {
        Self(directory())
    }
}

impl OnDisk {
    fn open_ledger(&self, host: usize) -> SqliteLedger {
        let dir = self.0.path().join(host.to_string());
        let (ledger, opened) = SqliteLedger::open(&dir, &Options::default(), Limits::default()).unwrap();
        if opened.created {
            let row = Versioned { version: 1, row: installation(host) };
            let commit = Commit { id: CommitId(0), writes: vec![Write::Installation(row)] };
            assert_eq!(block_on(ledger.commit(&commit)).unwrap(), Committed::Done);
        }
        ledger
    }

    fn open_dedup(&self, env: &FakeEnv) -> SqliteDedup {
        SqliteDedup::open(self.0.path(), &Options::default(), env.clock()).unwrap().0
    }
}

impl Stores for OnDisk {
    fn ledger(&self, host: usize) -> Arc<dyn Ledger> {
        Arc::new(self.open_ledger(host))
    }

    fn dedup(&self, env: &FakeEnv) -> Arc<dyn DedupStore> {
        Arc::new(self.open_dedup(env))
    }
}

/// Two of a kind that must always answer the same.
#[derive(Debug)]
struct Both<M, D> {
    memory: Arc<M>,
    disk: D,
}

/// The stores in memory and on disk, asked the same: what one answers the other must answer, too.
#[derive(Default)]
pub(crate) struct InStep {
    disk: OnDisk,
    ledgers: [OnceLock<Arc<MemoryLedger>>; 2],
    dedup: OnceLock<Arc<MemoryDedup>>,
}

impl Stores for InStep {
    fn ledger(&self, host: usize) -> Arc<dyn Ledger> {
        let disk = self.disk.open_ledger(host);
        let new = || {
            let Installation { id, secret, .. } = installation(host);
            let ledger = Arc::new(MemoryLedger::new(id, secret));
            // It was written once, as it was on disk.
            let row = Versioned { version: 1, row: installation(host) };
            let commit = Commit { id: CommitId(0), writes: vec![Write::Installation(row)] };
            assert_eq!(block_on(ledger.commit(&commit)).unwrap(), Committed::Done);
            ledger
        };
        Arc::new(Both { memory: self.ledgers[host].get_or_init(new).clone(), disk })
    }

    fn dedup(&self, env: &FakeEnv) -> Arc<dyn DedupStore> {
        let memory = self.dedup.get_or_init(|| Arc::new(MemoryDedup::new(env.clock()))).clone();
        Arc::new(Both { memory, disk: self.disk.open_dedup(env) })
    }
}

fn differ(asked: &dyn fmt::Debug, memory: &dyn fmt::Debug, disk: &dyn fmt::Debug) -> String {
    format!("the stores differ about {asked:?}: in memory {memory:?}, on disk {disk:?}")
}

#[async_trait]
impl DedupStore for Both<MemoryDedup, SqliteDedup> {
    async fn reserve(&self, claim: &Claim<'_>) -> Result<Standing, DedupError> {
        let (memory, disk) = (self.memory.reserve(claim).await?, self.disk.reserve(claim).await?);
        match memory == disk {
            true => Ok(memory),
            false => Err(DedupError { cause: differ(claim, &memory, &disk).into() }),
        }
    }

    async fn settle(&self, claim: &Claim<'_>, outcome: &Outcome) -> Result<(), DedupError> {
        self.memory.settle(claim, outcome).await?;
        self.disk.settle(claim, outcome).await
    }
}

#[async_trait]
impl Ledger for Both<MemoryLedger, SqliteLedger> {
    async fn read(&self, query: &Query) -> Result<Snapshot, LedgerError> {
        let (memory, disk) = (self.memory.read(query).await?, self.disk.read(query).await?);
        // What the explorer asks for; what a ledger knows of templates its contract suite looks at.
        let same = memory.installation == disk.installation
            && memory.source == disk.source
            && memory.keys == disk.keys
            && memory.incidents == disk.incidents
            && memory.events == disk.events
            && memory.outbox == disk.outbox
            && memory.sendings == disk.sendings
            && memory.jobs == disk.jobs
            && memory.channels == disk.channels
            && memory.mutes == disk.mutes
            && memory.counters == disk.counters
            && memory.spool == disk.spool
            && memory.spool_size == disk.spool_size
            && memory.batches == disk.batches
            && memory.values == disk.values;
        match same {
            true => Ok(disk),
            false => Err(LedgerError::Failed { cause: differ(query, &memory, &disk).into() }),
        }
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, LedgerError> {
        let (memory, disk) = (self.memory.commit(commit).await?, self.disk.commit(commit).await?);
        match memory == disk {
            true => Ok(disk),
            false => Err(LedgerError::Failed { cause: differ(commit, &memory, &disk).into() }),
        }
    }
}
