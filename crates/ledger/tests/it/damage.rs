//! Damaged, deleted, foreign and newer files; damaged rows.

use std::{fs, os::unix::fs::PermissionsExt};

use logwarden_core::{
    error::chain,
    ledger::{Commit, CommitId, Committed, Incidents, Ledger, LedgerError, Query, Versioned, Write},
    retention::Limits,
    testing::rows,
};
use logwarden_ledger::{FILE, Options, SqliteLedger};
use logwarden_sqlite::rusqlite::Connection;

use crate::{commit, open, read};

fn filled(dir: &std::path::Path) {
    let ledger = open(dir);
    let now = logwarden_core::Timestamp::from_secs(1_800_000_000);
    let writes = vec![
        Write::Source(rows::source(), Versioned::new(rows::source_state("position 7"))),
        Write::Segment(rows::segment(1, now)),
        Write::Incident(Box::new(Versioned::new(rows::incident(1, now)))),
        Write::Event(rows::event(1, 0, now)),
        Write::Leaves(rows::source(), vec![rows::leaf(1, now)]),
        Write::Seen(rows::source(), vec![(now, rows::line(1), 1)]),
    ];
    assert_eq!(commit(&ledger, 1, writes), Committed::Done);
}

#[test]
fn only_the_owner_may_look() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    filled(&state);
    let _open = open(&state);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for entry in fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
}

#[test]
fn a_damaged_file_is_set_aside_and_reading_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let path = dir.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[..4096].fill(0x55);
    fs::write(&path, &bytes).unwrap();

    let (ledger, opened) = SqliteLedger::open(dir.path(), &Options::default(), Limits::default()).unwrap();
    let (aside, found) = opened.set_aside.unwrap();
    assert!(opened.created && found.contains("not a database"), "{found}");
    assert_eq!(fs::read(aside).unwrap(), bytes, "nothing of it is lost");
    let query = Query { source: Some(rows::source()), incidents: Incidents::Firing, ..Query::default() };
    let snapshot = read(&ledger, query);
    assert_eq!(snapshot.source.unwrap().row, rows::source_state("position 7"));
    assert!(snapshot.incidents.is_empty());
}

#[test]
fn a_file_that_is_in_use_is_not_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let ledger = open(dir.path());
    let path = dir.path().join(FILE);
    let bytes = fs::read(&path).unwrap();
    let mut damaged = bytes.clone();
    damaged[..4096].fill(0x55);
    fs::write(&path, damaged).unwrap();
    // The one that has it open may have its pages in memory; a second one must not take the file away.
    let refused = SqliteLedger::open(dir.path(), &Options::default(), Limits::default());
    if let Err(error) = refused {
        assert!(chain(&error).contains("in use by another process"), "{}", chain(&error));
    }
    fs::write(&path, bytes).unwrap();
    drop(ledger);
    assert!(
        fs::read_dir(dir.path()).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("damaged"))
    );
}

#[test]
fn a_newer_schema_stops_us_also_while_we_run() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let ledger = open(dir.path());
    let raw = Connection::open(dir.path().join(FILE)).unwrap();
    raw.execute_batch("PRAGMA user_version = 99").unwrap();
    let newer = |error: LedgerError| matches!(error, LedgerError::Newer { found: 99, known: 1 });
    let write = Commit { id: CommitId(9), writes: vec![Write::Count("a".into(), 1)] };
    assert!(newer(futures::executor::block_on(ledger.commit(&write)).unwrap_err()));
    drop(ledger);
    let error = SqliteLedger::open(dir.path(), &Options::default(), Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "the state was written by a newer version (schema 99, this program knows 1)");
    assert!(newer(error));
}

#[test]
fn somebody_elses_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let raw = Connection::open(dir.path().join(FILE)).unwrap();
    raw.execute_batch("CREATE TABLE precious (n); INSERT INTO precious VALUES (1)").unwrap();
    let error = SqliteLedger::open(dir.path(), &Options::default(), Limits::default()).unwrap_err();
    assert!(chain(&error).contains("is not a file of this program"), "{}", chain(&error));
    assert_eq!(raw.query_row("SELECT n FROM precious", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[test]
fn a_damaged_row_is_named() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let id = logwarden_core::incident::IncidentId::of(1, 1);
    let cases: [(&str, Query, &str); 7] = [
        ("UPDATE incident SET row = '{\"id\":7}'", firing(), "of table `incident`"),
        (
            "UPDATE incident SET row = replace(row, '\"High\"', '\"Huge\"'), version = -1",
            firing(),
            "of table `incident`",
        ),
        ("UPDATE event SET row = ''", firing(), "of table `event`"),
        ("UPDATE seen SET lines = x'00'", of_source(), "minute 30000000 of table `seen`"),
        ("UPDATE leaf SET leaf = x'0102'", of_source(), "row 0102 of table `leaf`"),
        ("UPDATE segment SET row = x'ff'", of_segment(), "row 00000000000000000000000000000001 of table `segment`"),
        ("UPDATE segment SET size = -5", of_segment(), "its size is impossible"),
    ];
    for (damage, query, expected) in cases {
        let copy = tempfile::tempdir().unwrap();
        fs::copy(dir.path().join(FILE), copy.path().join(FILE)).unwrap();
        Connection::open(copy.path().join(FILE)).unwrap().execute_batch(damage).unwrap();
        let error = futures::executor::block_on(open(copy.path()).read(&query)).unwrap_err();
        let text = chain(&error);
        assert!(text.starts_with("cannot use the state: row ") && text.contains(expected), "{damage}: {text}");
    }
    assert!(read(&open(dir.path()), firing()).incidents.contains_key(&id), "the undamaged one can be read");
}

#[test]
fn random_damage_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let whole = fs::read(dir.path().join(FILE)).unwrap();
    let mut dice = logwarden_core::testing::Dice::new(11);
    for round in 0..150 {
        let mut bytes = whole.clone();
        for _ in 0..=dice.below(40) {
            let at = usize::try_from(dice.below(bytes.len() as u64)).unwrap();
            bytes[at] = dice.roll() as u8;
        }
        if round % 5 == 0 {
            bytes.truncate(usize::try_from(dice.below(bytes.len() as u64)).unwrap());
        }
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join(FILE), &bytes).unwrap();
        // As after a crash: checked when it is opened.
        fs::write(copy.path().join(format!("{FILE}.suspect")), b"").unwrap();
        let Ok((ledger, _)) = SqliteLedger::open(copy.path(), &Options::default(), Limits::default()) else { continue };
        for query in [firing(), of_source(), of_segment()] {
            let _ = futures::executor::block_on(ledger.read(&query));
        }
        let write = Commit { id: CommitId(9), writes: vec![Write::Count("a".into(), 1)] };
        let _ = futures::executor::block_on(ledger.commit(&write));
    }
}

fn firing() -> Query {
    Query { incidents: Incidents::Firing, events: true, ..Query::default() }
}

fn of_source() -> Query {
    Query { source: Some(rows::source()), leaves: true, memory: true, seen: true, ..Query::default() }
}

fn of_segment() -> Query {
    Query { segments: vec![logwarden_core::ledger::SegmentId(1)], ..Query::default() }
}
