//! Opening, migrating and writing, with a small schema of our own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path};

use futures::{FutureExt, executor::block_on, future::join_all};
use logwarden_sqlite::{
    Database, Error, Kept, Opened, Options, Schema,
    rusqlite::{Connection, types::Value},
};

const ONE: &str = "CREATE TABLE thing (n INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT";
const TWO: &str = "ALTER TABLE thing ADD COLUMN more TEXT NOT NULL DEFAULT 'none'";
static V1: Schema = Schema { application_id: 0x7465_7374, migrations: &[ONE] };
static V2: Schema = Schema { application_id: 0x7465_7374, migrations: &[ONE, TWO] };
static V3_BROKEN: Schema =
    Schema { application_id: 0x7465_7374, migrations: &[ONE, TWO, "CREATE TABLE a (n); nonsense"] };

fn open(path: &Path, schema: &'static Schema) -> (Database, Opened) {
    Database::open(path, schema, &Options::default()).unwrap()
}

fn insert(text: &'static str) -> impl FnOnce(&Connection) -> Result<Kept<i64>, Error> + Send {
    move |connection| {
        connection.execute("INSERT INTO thing (text) VALUES (?1)", [text])?;
        Ok(Kept::Yes(connection.last_insert_rowid()))
    }
}

fn texts(database: &Database) -> Vec<String> {
    let all = |connection: &Connection| -> Result<Vec<String>, Error> {
        let mut rows = connection.prepare("SELECT text FROM thing ORDER BY n")?;
        let rows = rows.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    block_on(database.read(all)).unwrap()
}

#[test]
fn every_setting_is_as_it_must_be() {
    let dir = tempfile::tempdir().unwrap();
    let (database, opened) = open(&dir.path().join("a.db"), &V1);
    assert_eq!(opened, Opened { created: true, ..Opened::default() });
    let names = [
        "journal_mode",
        "synchronous",
        "busy_timeout",
        "foreign_keys",
        "trusted_schema",
        "auto_vacuum",
        "application_id",
        "user_version",
    ];
    let settings = move |connection: &Connection| -> Result<String, Error> {
        let mut all = Vec::new();
        for name in names {
            let value = connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, Value>(0))?;
            all.push(format!("{name} {value:?}"));
        }
        Ok(all.join("\n"))
    };
    let expected = "journal_mode Text(\"wal\")\nsynchronous Integer(2)\nbusy_timeout Integer(10000)\n\
        foreign_keys Integer(1)\ntrusted_schema Integer(0)\nauto_vacuum Integer(2)\n\
        application_id Integer(1952805748)\nuser_version Integer(1)";
    assert_eq!(block_on(database.read(settings)).unwrap(), expected);
    let settings_of_writer = move |connection: &Connection| settings(connection).map(Kept::Yes);
    assert_eq!(block_on(database.write(settings_of_writer)).unwrap(), expected);
}

#[test]
fn a_job_that_fails_or_is_undone_takes_nobody_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (database, _) = open(&dir.path().join("a.db"), &V1);
    let undone = |connection: &Connection| insert("undone")(connection).map(|_| Kept::No(()));
    let failed = |connection: &Connection| -> Result<Kept<()>, Error> {
        insert("failed")(connection)?;
        connection.execute("INSERT INTO thing (n, text) VALUES (1, NULL)", [])?;
        Ok(Kept::Yes(()))
    };
    block_on(async {
        let (first, undone, failed, last) = futures::join!(
            database.write(insert("first")),
            database.write(undone),
            database.write(failed),
            database.write(insert("last")),
        );
        assert!(first.is_ok() && undone.is_ok() && last.is_ok());
        assert!(matches!(failed, Err(Error::Sql { .. })), "{failed:?}");
    });
    assert_eq!(texts(&database), ["first", "last"]);
}

#[test]
fn what_is_told_is_committed_and_what_was_asked_for_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let (database, _) = open(&path, &V1);
    let (other, _) = open(&path, &V1);
    let all = block_on(join_all((0..500).map(|_| database.write(insert("x")))));
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(texts(&other).len(), 500, "another connection sees what was acknowledged");
    // Nobody waits for this one; the file is closed only after it.
    let _ = database.write(insert("forgotten")).now_or_never();
    drop(database);
    assert_eq!(texts(&other).len(), 501);
}

#[test]
fn a_job_that_panics_is_an_error_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let (database, _) = open(&dir.path().join("a.db"), &V1);
    let panics = |_: &Connection| -> Result<Kept<()>, Error> { panic!("a mistake of ours") };
    assert!(block_on(database.write(panics)).is_err());
    assert!(block_on(database.read(|_| -> Result<(), Error> { panic!("a mistake of ours") })).is_err());
    block_on(database.write(insert("next"))).unwrap();
    assert_eq!(texts(&database), ["next"]);
}

#[test]
fn an_old_file_is_migrated_after_a_copy_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    block_on(open(&path, &V1).0.write(insert("kept"))).unwrap();
    let (database, opened) = open(&path, &V2);
    let (from, copy) = opened.migrated.unwrap();
    assert_eq!((from, texts(&database)), (1, vec!["kept".to_owned()]));
    let copy = Connection::open(copy).unwrap();
    let in_copy = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((in_copy("PRAGMA user_version"), in_copy("SELECT count(*) FROM thing")), (1, 1));
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    block_on(open(&path, &V2).0.write(insert("kept"))).unwrap();
    assert!(matches!(Database::open(&path, &V3_BROKEN, &Options::default()), Err(Error::Sql { .. })));
    let (database, opened) = open(&path, &V2);
    assert_eq!((texts(&database), opened), (vec!["kept".to_owned()], Opened::default()));
}

#[test]
fn a_process_of_the_old_version_stops_when_the_file_was_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let (old, _) = open(&path, &V1);
    let (new, _) = open(&path, &V2);
    let refused = block_on(old.write(insert("old")));
    assert!(matches!(refused, Err(Error::Newer { found: 2, known: 1, .. })), "{refused:?}");
    let refused = block_on(old.read(|_| Ok(())));
    assert!(matches!(refused, Err(Error::Newer { found: 2, known: 1, .. })), "{refused:?}");
    block_on(new.write(insert("new"))).unwrap();
    // Nor does it begin, and what is there stays.
    let refused = Database::open(&path, &V1, &Options::default());
    assert!(matches!(refused, Err(Error::Newer { found: 2, known: 1, .. })), "{refused:?}");
    assert_eq!(texts(&new), ["new"]);
}

#[test]
fn damage_found_after_an_unclean_end_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let fill = |connection: &Connection| -> Result<Kept<()>, Error> {
        for n in 0..2_000 {
            connection.execute("INSERT INTO thing (text) VALUES (?1)", [format!("{n} some text that fills pages")])?;
        }
        Ok(Kept::Yes(()))
    };
    block_on(open(&path, &V1).0.write(fill)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    // Its end was clean, so that nobody looks at every page for a day. The first who stumbles over it leaves word.
    let (database, opened) = open(&path, &V1);
    assert_eq!(opened.set_aside, None);
    let sum =
        |connection: &Connection| Ok(connection.query_row("SELECT sum(length(text)) FROM thing", [], |_| Ok(()))?);
    assert!(matches!(block_on(database.read(sum)), Err(Error::Damaged { .. })));
    drop(database);
    let (database, opened) = open(&path, &V1);
    let (aside, _) = opened.set_aside.unwrap();
    assert!(texts(&database).is_empty() && fs::read(aside).unwrap() == bytes);
    drop(database);
    assert_eq!(open(&path, &V1).1, Opened::default(), "once");
}

#[test]
fn every_page_is_looked_at_once_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let fill = |connection: &Connection| -> Result<Kept<()>, Error> {
        for n in 0..2_000 {
            connection.execute("INSERT INTO thing (text) VALUES (?1)", [format!("{n} some text that fills pages")])?;
        }
        Ok(Kept::Yes(()))
    };
    block_on(open(&path, &V1).0.write(fill)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(open(&path, &V1).1, Opened::default(), "it was checked today");
    let checked = dir.path().join("a.db.checked");
    let today: i64 = fs::read_to_string(&checked).unwrap().parse().unwrap();
    for long_ago in [today - 24 * 3600 - 1, today + 3600] {
        fs::write(&checked, long_ago.to_string()).unwrap();
        fs::write(&path, &bytes).unwrap();
        assert!(open(&path, &V1).1.set_aside.is_some());
    }
}
