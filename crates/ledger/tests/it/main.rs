//! The ledger in SQLite: what every ledger promises, and what only one on disk can break.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod crash;
mod damage;
mod restart;
mod size;

use std::path::Path;

use futures::executor::block_on;
use logwarden_core::{
    ledger::{Commit, CommitId, Committed, Ledger, Query, Snapshot, Write},
    retention::Limits,
    testing::{MemoryLedger, ledger},
};
use logwarden_ledger::{Options, SqliteLedger};

fn open(dir: &Path) -> SqliteLedger {
    SqliteLedger::open(dir, &Options::default(), Limits::default()).unwrap().0
}

fn commit(ledger: &dyn Ledger, id: u128, writes: Vec<Write>) -> Committed {
    block_on(ledger.commit(&Commit { id: CommitId(id), writes })).unwrap()
}

fn read(ledger: &dyn Ledger, query: Query) -> Snapshot {
    block_on(ledger.read(&query)).unwrap()
}

#[test]
fn it_keeps_every_promise() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    let fresh = || {
        n += 1;
        let dir = dir.path().join(n.to_string());
        SqliteLedger::open(&dir, &Options::default(), ledger::small_limits()).unwrap().0
    };
    block_on(ledger::every_promise(fresh));
}

#[test]
fn two_processes_of_one_ledger_see_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (open(dir.path()), open(dir.path()));
    assert_eq!(commit(&first, 1, vec![Write::Count("a".into(), 1)]), Committed::Done);
    assert_eq!(commit(&second, 1, vec![Write::Count("a".into(), 1)]), Committed::Done, "the same commit, sent again");
    assert_eq!(commit(&second, 2, vec![Write::Count("a".into(), 1)]), Committed::Done);
    let counters = |ledger| read(ledger, Query { counters: true, ..Query::default() });
    assert_eq!(counters(&first).counters["a"], 2);
    assert_eq!(counters(&first).installation, counters(&second).installation);
    let other = tempfile::tempdir().unwrap();
    assert_ne!(
        counters(&first).installation.unwrap().row.id,
        counters(&open(other.path())).installation.unwrap().row.id
    );
}

#[test]
fn it_does_what_the_ledger_in_memory_does() {
    use logwarden_core::testing::{Dice, rows};
    let now = logwarden_core::Timestamp::from_secs(1_800_000_000);
    let hour = std::time::Duration::from_secs(3600);
    let dir = tempfile::tempdir().unwrap();
    let limits = ledger::small_limits();
    let disk = SqliteLedger::open(dir.path(), &Options::default(), limits).unwrap().0;
    let memory = MemoryLedger::with_limits(1, 2, limits);
    let mut dice = Dice::new(3);
    for step in 0..600_u64 {
        let n = dice.below(6);
        let at = now.plus(hour * u32::try_from(step).unwrap());
        let query = Query {
            source: Some(rows::source()),
            leaves: true,
            memory: true,
            seen: true,
            keys: (0..6).map(rows::key).collect(),
            incidents: logwarden_core::ledger::Incidents::Latest { limit: 3 },
            events: true,
            outbox: logwarden_core::ledger::Outbox::Open,
            jobs: logwarden_core::ledger::Jobs::Open { limit: 3 },
            segments: (0..6).map(logwarden_core::ledger::SegmentId).collect(),
            channels: true,
            mutes: true,
            summaries: 3,
            counters: true,
            spool: Some(3),
            quarantine: 2,
            ..Query::default()
        };
        let (mut ours, mut theirs) = (read(&disk, query.clone()), read(&memory, query));
        (ours.installation, theirs.installation) = (None, None);
        ours.spool.iter_mut().chain(&mut theirs.spool).for_each(|row| row.ordinal = 0);
        ours.quarantine.iter_mut().chain(&mut theirs.quarantine).for_each(|row| row.ordinal = 0);
        ours.memory.sort_by_key(|(key, _)| *key);
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"), "step {step}");

        let version = |known: Option<u64>, dice: &mut Dice| known.unwrap_or(0) + u64::from(dice.below(8) == 0);
        let incident = ours.incidents.get(&rows::incident(n, at).id);
        let write = match dice.below(10) {
            0 => Write::Leaves(rows::source(), (0..3).map(|i| rows::leaf(n + i, at)).collect()),
            1 => Write::LeavesUsed(rows::source(), at.secs() / 86_400, vec![rows::leaf(n, at).leaf]),
            2 => Write::Seen(rows::source(), (0..3).map(|i| (at, rows::line(n + i), 1 << i)).collect()),
            3 | 4 => {
                let mut row = rows::incident(n, at);
                if dice.below(2) == 0 {
                    row.status = logwarden_core::incident::Status::Quiet { since: at };
                }
                let version = version(incident.map(|incident| incident.version), &mut dice);
                Write::Incident(Box::new(logwarden_core::ledger::Versioned { version, row }))
            }
            5 if incident.is_some() => {
                let row = rows::outbox(n, "ops", at);
                let known = ours.outbox.iter().find(|known| known.row.key() == row.key()).map(|known| known.version);
                let version = version(known, &mut dice);
                Write::Outbox(logwarden_core::ledger::Versioned { version, row })
            }
            6 if incident.is_some() => Write::Event(rows::event(n, dice.below(5), at)),
            7 => Write::Segment(rows::segment(n, at)),
            8 if dice.below(2) == 0 => Write::LeavesGone(rows::source(), vec![rows::leaf(n, at).leaf]),
            8 => Write::Count(format!("c{}", dice.below(30)), n),
            9 => Write::Prune(at.plus(hour * 24 * u32::try_from(dice.below(100)).unwrap())),
            _ => Write::Unmute("x".into()),
        };
        let id = u128::from(step);
        assert_eq!(
            commit(&disk, id, vec![write.clone()]),
            commit(&memory, id, vec![write.clone()]),
            "step {step}: {write:?}"
        );
    }
}
