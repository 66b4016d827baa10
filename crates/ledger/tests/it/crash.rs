//! Several processes at once, killed at any moment. The processes are this test binary itself, started again.
//!
//! What this cannot show is what a power cut does: a killed process leaves its writes to the kernel, synced or not, so that
//! a twin with `synchronous=OFF` passes, too. For that one needs a block device whose unsynced writes can be dropped.

use std::{
    env,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use futures::executor::block_on;
use logwarden_core::{
    Timestamp,
    ledger::{BatchId, Commit, CommitId, Committed, Ledger, Query, SpoolRow, Versioned, Write},
    retention::Limits,
    source::SourceId,
    testing::Dice,
};
use logwarden_ledger::{Options, SqliteLedger};

use crate::{open, read};

const DIR: &str = "LEDGER_TEST_DIR";
const WORKER: &str = "LEDGER_TEST_WORKER";

/// Not a test: what the started processes do. Commits for ever, and prints the number of each commit once it is done.
#[test]
#[ignore = "a process that the tests below start and kill: cargo test -p logwarden-ledger --test it crash"]
fn worker() {
    let (Ok(dir), Ok(worker)) = (env::var(DIR), env::var(WORKER)) else { return };
    let ledger = match SqliteLedger::open(Path::new(&dir), &Options::default(), Limits::default()) {
        Ok((ledger, _)) => ledger,
        Err(error) => {
            println!("failed {}", logwarden_core::error::chain(&error));
            return;
        }
    };
    println!("open");
    let source = SourceId(worker.clone());
    let worker: u128 = worker.parse().unwrap();
    loop {
        let state = read(&ledger, Query { source: Some(source.clone()), ..Query::default() }).source;
        let version = state.as_ref().map_or(0, |state| state.version);
        let number = version + 1;
        let id = worker << 64 | u128::from(number);
        let row = SpoolRow { ordinal: 0, batch: BatchId(id), at: Timestamp::MIN, lines: 1, body: vec![3; 600] };
        let state = logwarden_core::testing::rows::source_state(&number.to_string());
        let writes = vec![
            Write::Source(source.clone(), Versioned { version, row: state }),
            Write::Spool(row),
            Write::Count("commits".into(), 1),
        ];
        match block_on(ledger.commit(&Commit { id: CommitId(id), writes })) {
            Ok(Committed::Done) => println!("done {number}"),
            other => println!("failed {other:?}"),
        }
        let _ = std::io::stdout().flush();
    }
}

fn start(dir: &Path, worker: u128) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "crash::worker", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(WORKER, worker.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(9);
    let mut acknowledged = [0_u64; 3];
    let rounds = 15;
    for round in 0..rounds {
        let mut running: Vec<_> = (0..3).map(|worker| start(dir.path(), worker)).collect();
        // Long enough that all are open; then at any moment.
        for (_, out) in &mut running {
            wait_for(out, "open");
        }
        thread::sleep(Duration::from_micros(dice.below(60_000)));
        for (child, _) in &mut running {
            child.kill().unwrap();
        }
        for (worker, (mut child, out)) in running.into_iter().enumerate() {
            child.wait().unwrap();
            for line in out.lines().map_while(Result::ok) {
                assert!(!line.contains("failed"), "round {round}: {line}");
                if let Some(number) = line.trim().strip_prefix("done ") {
                    acknowledged[worker] = number.parse().unwrap();
                }
            }
        }
        let ledger = open(dir.path());
        let mut total = 0;
        for (worker, acknowledged) in acknowledged.iter().enumerate() {
            let source = Some(SourceId(worker.to_string()));
            let state = read(&ledger, Query { source, ..Query::default() }).source;
            let (version, cursor) = state.map_or((0, 0), |state| (state.version, cursor(&state)));
            assert!(version >= *acknowledged, "round {round}: {acknowledged} acknowledged, {version} there");
            assert_eq!(cursor, version, "one transaction");
            total += version;
        }
        let query = Query { counters: true, spool: Some(u64::MAX), ..Query::default() };
        let snapshot = read(&ledger, query);
        assert_eq!(snapshot.spool.len() as u64, total, "round {round}");
        assert_eq!(snapshot.spool_size, (total, total * 600));
        assert_eq!(snapshot.counters.get("commits").copied().unwrap_or(0), total);
    }
    let total: u64 = acknowledged.iter().sum();
    println!("{rounds} rounds of 3 processes killed: {total} commits acknowledged, none lost");
    assert!(total > 30, "the processes hardly worked: {total}");
}

fn cursor(state: &Versioned<logwarden_core::ledger::SourceState>) -> u64 {
    state.row.cursor.as_ref().map_or(0, |cursor| cursor.0.parse().unwrap())
}

fn wait_for(out: &mut BufReader<ChildStdout>, what: &str) {
    let mut line = String::new();
    // The test harness prints some lines of its own, also on the same line.
    while !line.contains(what) {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the process ended");
        assert!(!line.contains("failed"), "{line}");
    }
}

#[test]
fn many_processes_may_create_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let rounds = 60;
    for round in 0..rounds {
        let dir = dir.path().join(round.to_string());
        let mut running: Vec<_> = (0..4).map(|worker| start(&dir, worker)).collect();
        for (_, out) in &mut running {
            wait_for(out, "open");
            wait_for(out, "done 1");
        }
        for (child, _) in &mut running {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    println!("{rounds} files created by 4 processes each, none refused");
}
