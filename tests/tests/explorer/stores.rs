//! Both stores in SQLite, in a directory that goes away with them.

use std::{path::Path, sync::Arc};

use logwarden_core::{dedup::DedupStore, ledger::Ledger, retention::Limits, testing::FakeEnv};
use logwarden_dedup::SqliteDedup;
use logwarden_ledger::{Options, SqliteLedger};
use logwarden_tests::explorer::Stores;
use tempfile::TempDir;

/// In memory where the machine has such a directory: what is looked at here is not whether disks keep what they promise.
fn directory() -> TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.unwrap()
}

pub(crate) struct OnDisk(TempDir);

impl Default for OnDisk {
    fn default() -> Self {
        Self(directory())
    }
}

impl Stores for OnDisk {
    fn ledger(&self, host: usize) -> Arc<dyn Ledger> {
        let dir = self.0.path().join(host.to_string());
        Arc::new(SqliteLedger::open(&dir, &Options::default(), Limits::default()).unwrap().0)
    }

    fn dedup(&self, env: &FakeEnv) -> Arc<dyn DedupStore> {
        Arc::new(SqliteDedup::open(self.0.path(), &Options::default(), env.clock()).unwrap().0)
    }
}
