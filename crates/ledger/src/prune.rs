//! Removes what is older than its retention, and the oldest when the file is too large.

use logwarden_core::{
    Timestamp,
    retention::{self, Limits},
};
use logwarden_sqlite::{
    Error,
    rusqlite::{Connection, params},
};

use crate::row::signed;

/// Pages that are given back to the file system per prune; the rest is used again or comes next time.
const VACUUM_PAGES: u32 = 1_024;
/// Rounds in which the oldest make room; each removes a part.
const ROUNDS: u32 = 8;

pub(crate) fn prune(connection: &Connection, now: Timestamp, limits: &Limits) -> Result<(), Error> {
    let before = |age| now.minus(age).nanos();
    judged_segments(connection, before(retention::SEGMENTS))?;
    connection.execute("DELETE FROM summary WHERE at < ?1", [before(retention::SUMMARIES)])?;
    settled_outbox(connection, before(retention::DELIVERED))?;
    closed_incidents(connection, before(retention::INCIDENTS))?;
    connection.execute("DELETE FROM verdict WHERE until <= ?1", [now.nanos()])?;
    connection.execute("DELETE FROM quarantine WHERE at < ?1", [before(retention::QUARANTINE)])?;
    connection.execute("DELETE FROM batch WHERE gone < ?1", [before(retention::BATCHES)])?;
    connection.execute(
        "UPDATE batch SET gone = ?1 WHERE gone IS NULL AND id NOT IN (SELECT batch FROM spool)",
        [now.nanos()],
    )?;
    let commits = signed(limits.commits as u64);
    connection.execute("DELETE FROM executed WHERE n <= (SELECT max(n) FROM executed) - ?1", [commits])?;
    oldest_memory(connection, limits.memory_rows)?;
    make_room(connection, limits.bytes)?;
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}

/// Segments without a waiting job, with their jobs.
fn judged_segments(connection: &Connection, before: i64) -> Result<(), Error> {
    connection
        .execute("DELETE FROM segment WHERE at < ?1 AND id NOT IN (SELECT segment FROM job WHERE open)", [before])?;
    connection.execute("DELETE FROM job WHERE NOT open AND segment NOT IN (SELECT id FROM segment)", [])?;
    Ok(())
}

fn settled_outbox(connection: &Connection, before: i64) -> Result<(), Error> {
    connection.execute("DELETE FROM outbox WHERE NOT open AND settled < ?1", [before])?;
    connection.execute("DELETE FROM sending WHERE NOT open AND at < ?1", [before])?;
    Ok(())
}

/// Incidents that no longer fire and have nothing to tell, with all that hangs on them.
fn closed_incidents(connection: &Connection, before: i64) -> Result<(), Error> {
    let gone = connection.execute(
        "DELETE FROM incident WHERE NOT firing AND touched < ?1
           AND id NOT IN (SELECT incident FROM outbox WHERE open)",
        [before],
    )?;
    if gone > 0 {
        for table in ["event", "key", "outbox"] {
            connection.execute(&format!("DELETE FROM {table} WHERE incident NOT IN (SELECT id FROM incident)"), [])?;
        }
    }
    Ok(())
}

/// Rows of the memory of normal over the limit, those first that were seen least recently.
fn oldest_memory(connection: &Connection, limit: usize) -> Result<(), Error> {
    let mut sources =
        connection.prepare_cached("SELECT source, count(*) FROM memory GROUP BY source HAVING count(*) > ?1")?;
    let full: Vec<(i64, i64)> =
        sources.query_map([signed(limit as u64)], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (source, rows) in full {
        let mut by_age = crate::read::memory_ages(connection, source)?;
        by_age.sort_unstable();
        let excess = usize::try_from(rows).unwrap_or(0).saturating_sub(limit);
        for (.., n) in by_age.into_iter().take(excess) {
            forget_memory(connection, n)?;
        }
    }
    Ok(())
}

/// Removes one row of the memory of normal.
pub(crate) fn forget_memory(connection: &Connection, n: i64) -> Result<(), Error> {
    for sql in ["DELETE FROM memory WHERE n = ?1", "DELETE FROM memory_hot WHERE n = ?1"] {
        connection.prepare_cached(sql)?.execute([n])?;
    }
    Ok(())
}

/// Halves what may go, the oldest first, until the rest fits. What waits to be ingested does not count: it has a limit of
/// its own, and nothing here may remove it.
fn make_room(connection: &Connection, limit: u64) -> Result<(), Error> {
    for _ in 0..ROUNDS {
        let used: i64 = connection.query_row(
            "SELECT (page_count - freelist_count) * page_size - (SELECT bytes FROM spool_size)
             FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
            [],
            |row| row.get(0),
        )?;
        if used <= signed(limit) {
            return Ok(());
        }
        tracing::warn!(bytes = used, limit, "the ledger is too large; the oldest records are removed");
        connection.execute(
            "DELETE FROM segment WHERE n IN (
               SELECT n FROM segment WHERE id NOT IN (SELECT segment FROM job WHERE open) ORDER BY at
               LIMIT (SELECT (count(*) + 1) / 2 FROM segment))",
            [],
        )?;
        connection.execute("DELETE FROM job WHERE NOT open AND segment NOT IN (SELECT id FROM segment)", [])?;
        connection.execute(
            "DELETE FROM quarantine WHERE ordinal IN (
               SELECT ordinal FROM quarantine ORDER BY ordinal LIMIT (SELECT (count(*) + 1) / 2 FROM quarantine))",
            [],
        )?;
        let median = |sql: &str| -> Result<Option<i64>, Error> {
            use logwarden_sqlite::rusqlite::OptionalExtension;
            Ok(connection.query_row(sql, params![], |row| row.get(0)).optional()?)
        };
        if let Some(at) = median(
            "SELECT at + 1 FROM sending WHERE NOT open ORDER BY at
             LIMIT 1 OFFSET (SELECT count(*) / 2 FROM sending WHERE NOT open)",
        )? {
            settled_outbox(connection, at)?;
        }
        if let Some(at) = median(
            "SELECT touched + 1 FROM incident WHERE NOT firing ORDER BY touched
             LIMIT 1 OFFSET (SELECT count(*) / 2 FROM incident WHERE NOT firing)",
        )? {
            closed_incidents(connection, at)?;
        }
    }
    Ok(())
}
