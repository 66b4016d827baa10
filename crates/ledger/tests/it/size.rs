//! How much a pass writes, and what happens when there is no room.

use std::{fs, path::Path, sync::Arc, time::Instant};

use futures::{executor::block_on, future::join_all};
use logwarden_core::{
    Timestamp,
    ledger::{BatchId, Commit, CommitId, Committed, Ledger, LedgerError, Query, SegmentId, SpoolRow, Versioned, Write},
    retention::Limits,
    templates::{Origin, RootId},
    testing::{Dice, rows},
};
use logwarden_detectors::{Learned, MemoryKey, MemoryRow, SourceRow};
use logwarden_ledger::{FILE, Options, Room, SqliteLedger};

use crate::{commit, open, read};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// Rows of the memory of normal, as they come from detectors after a month.
fn memory(ns: impl Iterator<Item = u64>, count: u64) -> Learned {
    let origin = Arc::new(Origin { host: "web-1".into(), service: "nginx".into() });
    let rows = ns.map(|n| {
        let root = RootId::from_bits(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let template = format!("a template of usual length with <*> and <*:ip> in it, number {n}");
        let mut row = MemoryRow::new(origin.clone(), root, template.into(), NOW);
        row.count = count;
        (MemoryKey::of(&origin, root), row)
    });
    Learned { rows: rows.collect(), removed: Vec::new(), source: SourceRow::default() }
}

fn log_bytes(dir: &Path) -> u64 {
    fs::metadata(dir.join(format!("{FILE}-wal"))).map_or(0, |log| log.len())
}

#[test]
fn a_pass_over_3_000_of_10_000_templates_writes_little() {
    let dir = tempfile::tempdir().unwrap();
    // Opened twice: the log is moved into the file and starts anew.
    assert_eq!(commit(&open(dir.path()), 1, vec![learn(memory(0..10_000, 1_000_000))]), Committed::Done);
    let ledger = open(dir.path());
    let before = log_bytes(dir.path());
    let mut dice = Dice::new(1);
    let touched = (0..3_000).map(|_| dice.below(10_000)).collect::<Vec<_>>();
    let lines = (0..5_000).map(|n| (NOW, rows::line(n), 1)).collect();
    let writes = vec![
        Write::Source(rows::source(), Versioned::new(rows::source_state("1"))),
        learn(memory(touched.into_iter(), 1_000_001)),
    ];
    assert_eq!(commit(&ledger, 2, writes), Committed::Done);
    let memory_bytes = log_bytes(dir.path()) - before;
    assert_eq!(commit(&ledger, 3, vec![Write::Seen(rows::source(), lines)]), Committed::Done);
    let seen_bytes = log_bytes(dir.path()) - before - memory_bytes;
    println!("3,000 of 10,000 templates: {memory_bytes} bytes; 5,000 seen lines: {seen_bytes} bytes");
    assert!(memory_bytes < 1_000_000, "{memory_bytes} bytes");
    assert!(seen_bytes < 200_000, "{seen_bytes} bytes");
}

fn learn(learned: Learned) -> Write {
    Write::Memory(rows::source(), Box::new(learned))
}

#[test]
fn commits_of_many_callers_share_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let one = |id: u128| {
        let body = vec![id as u8; 2_000];
        let row = SpoolRow { ordinal: 0, batch: BatchId(id), at: NOW, lines: 10, body };
        let commit = Commit { id: CommitId(id), writes: vec![Write::Spool(row)] };
        let ledger = &ledger;
        async move {
            let start = Instant::now();
            assert_eq!(ledger.commit(&commit).await.unwrap(), Committed::Done);
            start.elapsed()
        }
    };
    let mut alone: Vec<_> = (0..200).map(|id| block_on(one(id))).collect();
    let start = Instant::now();
    block_on(join_all((1_000..3_000).map(one)));
    let together = start.elapsed();
    alone.sort_unstable();
    println!(
        "alone: p50 {:?}, p99 {:?}; 2,000 at once: {together:?} or {:.0} commits/s",
        alone[100],
        alone[197],
        2_000.0 / together.as_secs_f64()
    );
    let spool = read(&ledger, Query { spool: Some(1), ..Query::default() });
    assert_eq!(spool.spool_size.0, 2_200);
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { max_bytes: Some(1 << 20), ..Options::default() };
    let ledger = SqliteLedger::open(dir.path(), &options, Limits::default()).unwrap().0;
    let mut accepted = Vec::new();
    let refused = loop {
        let id = accepted.len() as u128;
        let row = SpoolRow { ordinal: 0, batch: BatchId(id), at: NOW, lines: 1, body: vec![1; 50_000] };
        match block_on(ledger.commit(&Commit { id: CommitId(id), writes: vec![Write::Spool(row)] })) {
            Ok(Committed::Done) => accepted.push(BatchId(id)),
            other => break other,
        }
    };
    assert!(matches!(refused, Err(LedgerError::Full { .. })), "{refused:?}");
    assert!(accepted.len() > 5, "{}", accepted.len());
    drop(ledger);
    // With room again.
    let ledger = open(dir.path());
    let query = Query { spool: Some(u64::MAX), batches: accepted.clone(), ..Query::default() };
    let spool = read(&ledger, query);
    assert_eq!((spool.spool.len(), spool.batches), (accepted.len(), accepted.clone()));
    let row = SpoolRow { ordinal: 0, batch: BatchId(1 << 50), at: NOW, lines: 1, body: vec![1; 50_000] };
    assert_eq!(commit(&ledger, 1 << 50, vec![Write::Spool(row)]), Committed::Done);
}

#[test]
fn a_file_over_its_cap_loses_the_oldest_judged_segments() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let ledger = SqliteLedger::open(dir.path(), &Options::default(), limits).unwrap().0;
    let mut dice = Dice::new(5);
    for n in 0..40_u64 {
        let mut segment = (*rows::segment(n, NOW.plus(std::time::Duration::from_secs(n)))).clone();
        let mut row = (*segment.rows[0]).clone();
        // Does not compress.
        let text: Vec<u8> = (0..100_000).map(|_| dice.roll() as u8).collect();
        row.row.samples = Default::default();
        row.row.samples.push(row.row.first, &text);
        segment.rows = vec![Arc::new(row)];
        let mut job = rows::job(n, logwarden_core::ProfileName::general(), NOW);
        if n > 2 {
            job.state = logwarden_core::ledger::JobState::Analysed;
        }
        let writes = vec![Write::Segment(Arc::new(segment)), Write::Job(Versioned::new(job))];
        assert_eq!(commit(&ledger, n.into(), writes), Committed::Done);
    }
    assert_eq!(commit(&ledger, 1_000, vec![Write::Prune(NOW)]), Committed::Done);
    let left = read(&ledger, Query { segments: (0..40).map(SegmentId).collect(), ..Query::default() }).segments;
    let left: Vec<_> = left.iter().map(|segment| segment.id.0).collect();
    assert!(left.starts_with(&[0, 1, 2]), "those that wait stay: {left:?}");
    assert!(left.len() < 20 && left.ends_with(&[39]), "the newest stay: {left:?}");
    drop(ledger);
    let size = fs::metadata(dir.path().join(FILE)).unwrap().len();
    assert!(size < 3 << 20, "space is given back: {size}");
}

/// A disk that is nearly full: pushed batches are refused first, what was fetched when hardly anything is left, and what
/// must be told never.
#[test]
fn what_is_bulky_is_refused_while_the_disk_is_nearly_full() {
    let directory = tempfile::tempdir().unwrap();
    let free = Room::of(directory.path(), None).unwrap().free;
    let commit = |keep_free: u64, write: Write| {
        let options = Options { keep_free: Some(keep_free), ..Options::default() };
        let (ledger, _) = SqliteLedger::open(directory.path(), &options, Limits::default()).unwrap();
        let id = CommitId(u128::from(keep_free) + u128::from(matches!(write, Write::Spool(_))));
        block_on(ledger.commit(&Commit { id, writes: vec![write] }))
    };
    let batch = || Write::Spool(SpoolRow { ordinal: 0, batch: BatchId(7), at: NOW, lines: 1, body: vec![1] });
    let segment = || Write::Segment(rows::segment(7, NOW));
    let full = commit(free * 2, batch()).unwrap_err();
    assert!(matches!(full, LedgerError::Full { .. }), "{full:?}");
    let text = logwarden_core::error::chain(&full);
    assert!(
        text.starts_with("the state directory has no room left: ")
            && text.ends_with(" MiB are kept for what must still be told"),
        "{text}"
    );
    assert_eq!(commit(free * 2, segment()).unwrap(), Committed::Done, "what was fetched still has room");
    assert!(matches!(commit(free * 100, segment()), Err(LedgerError::Full { .. })));
    assert_eq!(commit(free * 100, Write::Count("alerts".into(), 1)).unwrap(), Committed::Done);
    assert_eq!(commit(0, batch()).unwrap(), Committed::Done, "there is room again");
}
