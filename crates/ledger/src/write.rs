//! Executes commits.

use std::collections::BTreeMap;

use logwarden_core::{
    LineId, Timestamp,
    ledger::{Commit, Committed, QuarantineRow, Segment, SourceState, SpoolRow, Versioned, Write},
    retention::{self, Limits},
    source::{Cursor, SourceId},
    templates::LeafId,
};
use logwarden_detectors::{Learned, MemoryKey, MemoryRow};
use logwarden_sqlite::{
    Error, Kept,
    rusqlite::{Connection, OptionalExtension, ffi, params},
};
use logwarden_templates::NewLeaf;

use crate::{
    prune::{forget_memory, prune},
    read::{read_seen_minute, seen_blobs},
    row::{Conflict, number_of_source, one, pack_segment, signed, to_json},
};

type Outcome = Result<Result<(), Conflict>, Error>;

/// Executes a commit inside the savepoint that it was given.
pub(crate) fn commit(connection: &Connection, commit: &Commit, limits: &Limits) -> Result<Kept<Committed>, Error> {
    let id = commit.id.0.to_be_bytes();
    let known = connection.prepare_cached("SELECT 1 FROM executed WHERE id = ?1")?.exists([id])?;
    if known {
        return Ok(Kept::No(Committed::Done));
    }
    for write in &commit.writes {
        if apply(connection, write, limits)?.is_err() {
            return Ok(Kept::No(Committed::Conflict));
        }
    }
    connection.prepare_cached("INSERT INTO executed (id) VALUES (?1)")?.execute([id])?;
    Ok(Kept::Yes(Committed::Done))
}

/// Sets a source's cursor in a new ledger; the rest of its state is lost.
pub(crate) fn restore_cursor(connection: &Connection, source: &SourceId, cursor: &Cursor) -> Result<(), Error> {
    let state = SourceState {
        cursor: Some(cursor.clone()),
        owner: None,
        epoch: 0,
        until: Timestamp::from_nanos(0),
        carry: Default::default(),
        failing: None,
        read_at: None,
    };
    // Somebody else may have been faster.
    write_source(connection, source, &Versioned::new(state)).map(drop)
}

fn apply(connection: &Connection, write: &Write, limits: &Limits) -> Outcome {
    let done = match write {
        Write::Installation(row) => {
            return one(
                connection,
                "UPDATE installation SET version = version + 1, row = ?2 WHERE version = ?1",
                params![signed(row.version), to_json("installation", &row.row)?],
            );
        }
        Write::Source(source, state) => return write_source(connection, source, state),
        Write::Segment(segment) => return write_segment(connection, segment),
        Write::Job(job) => {
            let row = &job.row;
            return put(
                connection,
                job.version,
                "INSERT INTO job (version, segment, profile, open, created, row) VALUES (1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO NOTHING",
                "UPDATE job SET version = version + 1, open = ?4, created = ?5, row = ?6
                 WHERE version = ?1 AND segment = ?2 AND profile = ?3",
                &[
                    &row.segment.0.to_be_bytes(),
                    &row.profile.as_str(),
                    &!row.state.is_settled(),
                    &row.created.nanos(),
                    &to_json("job", row)?,
                ],
            );
        }
        Write::Incident(incident) => {
            let row = &incident.row;
            let firing = row.status == logwarden_core::incident::Status::Firing;
            return put(
                connection,
                incident.version,
                "INSERT INTO incident (version, id, firing, last, touched, row) VALUES (1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO NOTHING",
                "UPDATE incident SET version = version + 1, firing = ?3, last = ?4, touched = ?5, row = ?6
                 WHERE version = ?1 AND id = ?2",
                &[
                    &row.id.bits().to_be_bytes(),
                    &firing,
                    &row.last.nanos(),
                    &row.touched.nanos(),
                    &to_json("incident", row)?,
                ],
            );
        }
        Write::Key(owner) => {
            return put(
                connection,
                owner.version,
                "INSERT INTO key (version, key, incident, soft) VALUES (1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                "UPDATE key SET version = version + 1, incident = ?3, soft = ?4 WHERE version = ?1 AND key = ?2",
                &[&owner.row.key.bits().to_be_bytes(), &owner.row.incident.bits().to_be_bytes(), &owner.row.soft],
            );
        }
        Write::Event(event) => {
            return one(
                connection,
                "INSERT INTO event (incident, seq, row) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![event.incident.bits().to_be_bytes(), signed(event.seq), to_json("event", event)?],
            );
        }
        Write::Outbox(outbox) => {
            let row = &outbox.row;
            return put(
                connection,
                outbox.version,
                "INSERT INTO outbox (version, incident, first_seq, channel, open, settled, row)
                 VALUES (1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
                "UPDATE outbox SET version = version + 1, open = ?5, settled = ?6, row = ?7
                 WHERE version = ?1 AND incident = ?2 AND first_seq = ?3 AND channel = ?4",
                &[
                    &row.incident.bits().to_be_bytes(),
                    &signed(row.first_seq),
                    &&*row.channel,
                    &row.state.is_open(),
                    &settled(row).nanos(),
                    &to_json("outbox", row)?,
                ],
            );
        }
        Write::Sending(sending) => {
            let row = &sending.row;
            return put(
                connection,
                sending.version,
                "INSERT INTO sending (version, id, channel, open, at, row) VALUES (1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO NOTHING",
                "UPDATE sending SET version = version + 1, channel = ?3, open = ?4, at = ?5, row = ?6
                 WHERE version = ?1 AND id = ?2",
                &[
                    &row.id.0.to_be_bytes(),
                    &&*row.channel,
                    &!row.done,
                    &row.message.at.nanos(),
                    &to_json("sending", row)?,
                ],
            );
        }
        Write::Channel(channel) => {
            return put(
                connection,
                channel.version,
                "INSERT INTO channel (version, name, row) VALUES (1, ?2, ?3) ON CONFLICT DO NOTHING",
                "UPDATE channel SET version = version + 1, row = ?3 WHERE version = ?1 AND name = ?2",
                &[&&*channel.row.name, &to_json("channel", &channel.row)?],
            );
        }
        Write::Value(name, value) => {
            return put(
                connection,
                value.version,
                "INSERT INTO value (version, name, row) VALUES (1, ?2, ?3) ON CONFLICT DO NOTHING",
                "UPDATE value SET version = version + 1, row = ?3 WHERE version = ?1 AND name = ?2",
                &[name, &to_json("value", &value.row)?],
            );
        }
        Write::Spool(row) => return spool(connection, row, limits),
        Write::Unspool(ordinals) => return unspool(connection, ordinals),
        Write::Leaves(source, leaves) => add_leaves(connection, source, leaves, limits),
        Write::LeavesGone(source, leaves) => evict_leaves(connection, source, leaves, limits),
        Write::LeavesUsed(source, day, leaves) => use_leaves(connection, source, *day, leaves),
        Write::Memory(source, learned) => learn(connection, source, learned),
        Write::Seen(source, lines) => see(connection, source, lines),
        Write::Summary(summary) => execute(
            connection,
            "INSERT INTO summary (segment, profile, at, row) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET at = excluded.at, row = excluded.row",
            params![
                summary.segment.0.to_be_bytes(),
                summary.profile.as_str(),
                summary.at.nanos(),
                to_json("summary", summary)?
            ],
        ),
        Write::Mute(mute) => execute(
            connection,
            "INSERT INTO mute (id, row) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET row = excluded.row",
            params![mute.id, to_json("mute", mute)?],
        ),
        Write::Unmute(id) => execute(connection, "DELETE FROM mute WHERE id = ?1", [id]),
        Write::Verdict(verdict) => execute(
            connection,
            "INSERT INTO verdict (leaf, profile, fingerprint, until) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET until = excluded.until",
            params![
                verdict.leaf.bits().to_be_bytes(),
                verdict.profile.as_str(),
                verdict.fingerprint,
                verdict.until.nanos()
            ],
        ),
        Write::Forget(leaf) => forget(connection, *leaf),
        Write::Count(name, n) => count(connection, name, *n, limits),
        Write::Quarantine(row) => quarantine(connection, row, limits),
        Write::Unquarantine(ordinals) => ordinals.iter().try_for_each(|ordinal| {
            execute(connection, "DELETE FROM quarantine WHERE ordinal = ?1", [signed(*ordinal)])
        }),
        Write::Prune(now) => prune(connection, *now, limits),
        other => {
            // A write that this version does not know must not be lost in silence.
            let kind = format!("{other:?}").chars().take(20).collect::<String>();
            return Err(crate::row::damage("commit", kind, "this ledger does not know how to write it"));
        }
    };
    done.map(Ok)
}

fn execute(connection: &Connection, sql: &str, params: impl logwarden_sqlite::rusqlite::Params) -> Result<(), Error> {
    connection.prepare_cached(sql)?.execute(params)?;
    Ok(())
}

/// Writes a row that must have `version`: 0 inserts, anything else updates. The version is the first parameter of both.
fn put(
    connection: &Connection,
    version: u64,
    insert: &str,
    update: &str,
    columns: &[&dyn logwarden_sqlite::rusqlite::ToSql],
) -> Outcome {
    let expected = signed(version);
    let mut values: Vec<&dyn logwarden_sqlite::rusqlite::ToSql> = vec![&expected];
    values.extend(columns);
    let sql = if version == 0 { insert } else { update };
    one(connection, sql, &*values)
}

fn write_source(connection: &Connection, source: &SourceId, state: &Versioned<SourceState>) -> Outcome {
    let n = number_of_source(connection, &source.0)?;
    put(
        connection,
        state.version,
        "INSERT INTO source (version, n, row) VALUES (1, ?2, ?3) ON CONFLICT DO NOTHING",
        "UPDATE source SET version = version + 1, row = ?3 WHERE version = ?1 AND n = ?2",
        &[&n, &to_json("source", &state.row)?],
    )
}

fn write_segment(connection: &Connection, segment: &Segment) -> Outcome {
    let (size, packed) = pack_segment(segment)?;
    one(
        connection,
        "INSERT INTO segment (id, at, size, row) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        params![segment.id.0.to_be_bytes(), segment.at.nanos(), size, packed],
    )
}

/// When a row was settled; when it was made, for those whose end has no time.
fn settled(row: &logwarden_core::ledger::OutboxRow) -> Timestamp {
    use logwarden_core::ledger::OutboxState::{Claimed, Dead, Delivered, Pending, Repeat, Superseded};
    match &row.state {
        Delivered { at, .. } | Repeat { at, .. } | Dead { at, .. } => *at,
        Pending { .. } | Claimed { .. } | Superseded => row.created,
    }
}

fn add_leaves(connection: &Connection, source: &SourceId, leaves: &[NewLeaf], limits: &Limits) -> Result<(), Error> {
    let source = number_of_source(connection, &source.0)?;
    let mut latest =
        connection.prepare_cached("SELECT max(day) FROM leaf JOIN leaf_used USING (n) WHERE source = ?1")?;
    // As recent as the most recent: a leaf's own time may be that of an old backlog.
    let day = latest.query_row([source], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0);
    let mut insert = connection.prepare_cached(
        "INSERT INTO leaf (source, leaf, program, text, example, first) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO NOTHING",
    )?;
    let mut used = connection.prepare_cached("INSERT INTO leaf_used (n, day) VALUES (?1, ?2)")?;
    for leaf in leaves {
        let id = leaf.leaf.bits().to_be_bytes();
        let new = insert.execute(params![source, id, &*leaf.program, &*leaf.text, leaf.example, leaf.first.nanos()])?;
        if new == 1 {
            used.execute(params![connection.last_insert_rowid(), day])?;
        }
    }
    let mut count = connection.prepare_cached("SELECT count(*) FROM leaf WHERE source = ?1")?;
    let rows: i64 = count.query_row([source], |row| row.get(0))?;
    let excess = rows - i64::try_from(limits.leaves).unwrap_or(i64::MAX);
    if excess > 0 {
        let mut oldest = connection
            .prepare_cached("SELECT n FROM leaf JOIN leaf_used USING (n) WHERE source = ?1 ORDER BY day, n LIMIT ?2")?;
        let oldest: Vec<i64> = oldest.query_map([source, excess], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for n in oldest {
            execute(connection, "DELETE FROM leaf WHERE n = ?1", [n])?;
            execute(connection, "DELETE FROM leaf_used WHERE n = ?1", [n])?;
        }
    }
    Ok(())
}

fn evict_leaves(connection: &Connection, source: &SourceId, leaves: &[LeafId], limits: &Limits) -> Result<(), Error> {
    let source = number_of_source(connection, &source.0)?;
    let mut find = connection.prepare_cached("SELECT n FROM leaf WHERE source = ?1 AND leaf = ?2")?;
    for leaf in leaves {
        let id = leaf.bits().to_be_bytes();
        if let Some(n) = find.query_row(params![source, id], |row| row.get::<_, i64>(0)).optional()? {
            execute(connection, "DELETE FROM leaf WHERE n = ?1", [n])?;
            execute(connection, "DELETE FROM leaf_used WHERE n = ?1", [n])?;
        }
        let remember = "INSERT INTO leaf_gone (source, leaf) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        execute(connection, remember, params![source, id])?;
    }
    execute(
        connection,
        "DELETE FROM leaf_gone WHERE source = ?1 AND n <=
           (SELECT n FROM leaf_gone WHERE source = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2)",
        params![source, i64::try_from(limits.gone()).unwrap_or(i64::MAX)],
    )
}

fn use_leaves(connection: &Connection, source: &SourceId, day: i64, leaves: &[LeafId]) -> Result<(), Error> {
    let source = number_of_source(connection, &source.0)?;
    // Only what changes is written: most leaves of a pass were used today before.
    let mut update = connection.prepare_cached(
        "UPDATE leaf_used SET day = ?1
         WHERE n = (SELECT n FROM leaf WHERE source = ?2 AND leaf = ?3) AND day < ?1",
    )?;
    for leaf in leaves {
        update.execute(params![day, source, leaf.bits().to_be_bytes()])?;
    }
    Ok(())
}

fn learn(connection: &Connection, source: &SourceId, learned: &Learned) -> Result<(), Error> {
    let source = number_of_source(connection, &source.0)?;
    let mut find = connection.prepare_cached("SELECT n FROM memory WHERE source = ?1 AND key = ?2")?;
    let mut find = |key: &MemoryKey| -> Result<Option<i64>, Error> {
        Ok(find.query_row(params![source, key.bits().to_be_bytes()], |row| row.get(0)).optional()?)
    };
    for key in &learned.removed {
        if let Some(n) = find(key)? {
            forget_memory(connection, n)?;
        }
    }
    let mut cold = connection.prepare_cached(
        "INSERT INTO memory (source, key, host, service, root, template) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let mut hot = connection.prepare_cached(
        "INSERT INTO memory_hot (n, hot) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET hot = excluded.hot",
    )?;
    for (key, row) in &learned.rows {
        let MemoryRow { origin, root, template, .. } = row;
        let n = match find(key)? {
            Some(n) => n,
            None => {
                let (key, root) = (key.bits().to_be_bytes(), root.bits().to_be_bytes());
                cold.execute(params![source, key, &*origin.host, &*origin.service, root, &**template])?;
                connection.last_insert_rowid()
            }
        };
        hot.execute(params![n, row.encode()])?;
    }
    execute(
        connection,
        "INSERT INTO memory_source (source, row) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET row = excluded.row",
        params![source, learned.source.encode()],
    )
}

fn forget(connection: &Connection, leaf: LeafId) -> Result<(), Error> {
    execute(connection, "DELETE FROM verdict WHERE leaf = ?1", [leaf.bits().to_be_bytes()])?;
    let mut rows = connection.prepare_cached("SELECT n FROM memory WHERE root = ?1")?;
    let rows: Vec<i64> =
        rows.query_map([leaf.as_root().bits().to_be_bytes()], |row| row.get(0))?.collect::<Result<_, _>>()?;
    rows.into_iter().try_for_each(|n| forget_memory(connection, n))
}

fn see(connection: &Connection, source: &SourceId, lines: &[(Timestamp, LineId, u64)]) -> Result<(), Error> {
    let source = number_of_source(connection, &source.0)?;
    let mut minutes: BTreeMap<i64, Vec<(Timestamp, LineId, u64)>> = BTreeMap::new();
    for line in lines {
        minutes.entry(line.0.minute()).or_default().push(*line);
    }
    let mut write = connection.prepare_cached(
        "INSERT INTO seen (source, minute, lines, counts) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET lines = excluded.lines, counts = excluded.counts",
    )?;
    for (minute, lines) in minutes {
        let mut seen = read_seen_minute(connection, source, minute)?;
        for (time, line, queries) in lines {
            seen.insert(time, line, queries);
        }
        let (lines, counts) = seen_blobs(&seen, minute);
        write.execute(params![source, minute, lines, counts])?;
    }
    let mut minutes: Vec<_> = lines.iter().map(|(time, ..)| time.minute()).collect();
    let Some(newest) = retention::reference_minute(&mut minutes) else { return Ok(()) };
    execute(
        connection,
        "DELETE FROM seen WHERE source = ?1 AND minute < ?2",
        [source, newest - retention::COUNT_MINUTES],
    )?;
    execute(
        connection,
        "UPDATE seen SET lines = x'' WHERE source = ?1 AND minute < ?2 AND lines <> x''",
        [source, newest - retention::SEEN_MINUTES],
    )?;
    let most = i64::try_from(retention::MAX_MINUTES).unwrap_or(i64::MAX);
    execute(
        connection,
        "DELETE FROM seen WHERE source = ?1 AND minute <=
         (SELECT minute FROM seen WHERE source = ?1 ORDER BY minute DESC LIMIT 1 OFFSET ?2)",
        [source, most],
    )
}

fn count(connection: &Connection, name: &str, n: u64, limits: &Limits) -> Result<(), Error> {
    let known = connection.prepare_cached("SELECT 1 FROM counter WHERE name = ?1")?.exists([name])?;
    let mut rows = connection.prepare_cached("SELECT count(*) FROM counter")?;
    let room = known || rows.query_row([], |row| row.get::<_, i64>(0))? < signed(limits.counters as u64);
    execute(
        connection,
        "INSERT INTO counter (name, n) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET n = iif(n > 9223372036854775807 - ?2, 9223372036854775807, n + ?2)",
        params![if room { name } else { "counters_omitted" }, signed(n)],
    )
}

fn spool(connection: &Connection, row: &SpoolRow, limits: &Limits) -> Outcome {
    let batch = row.batch.0.to_be_bytes();
    let new = one(connection, "INSERT INTO batch (id) VALUES (?1) ON CONFLICT DO NOTHING", [batch])?;
    if new.is_err() {
        return Ok(new);
    }
    let bytes = row.body.len() as u64;
    let room = one(
        connection,
        "UPDATE spool_size SET rows = rows + 1, bytes = bytes + ?1 WHERE bytes + ?1 <= ?2",
        [signed(bytes), signed(limits.spool_bytes)],
    )?;
    if room.is_err() {
        return Err(full("the spool is full"));
    }
    execute(
        connection,
        "INSERT INTO spool (batch, at, lines, bytes, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![batch, row.at.nanos(), signed(row.lines), signed(bytes), row.body],
    )?;
    Ok(Ok(()))
}

/// A configured size that is reached looks like a full disk.
fn full(what: &str) -> Error {
    let code = ffi::Error::new(ffi::SQLITE_FULL);
    logwarden_sqlite::rusqlite::Error::SqliteFailure(code, Some(what.to_owned())).into()
}

fn unspool(connection: &Connection, ordinals: &[u64]) -> Outcome {
    let mut delete = connection.prepare_cached("DELETE FROM spool WHERE ordinal = ?1 RETURNING bytes")?;
    let mut bytes = 0_i64;
    for ordinal in ordinals {
        let size: Option<i64> = delete.query_row([signed(*ordinal)], |row| row.get(0)).optional()?;
        let Some(size) = size else { return Ok(Err(Conflict)) };
        bytes = bytes.saturating_add(size);
    }
    let rows = signed(ordinals.len() as u64);
    execute(connection, "UPDATE spool_size SET rows = rows - ?1, bytes = bytes - ?2", [rows, bytes])?;
    Ok(Ok(()))
}

fn quarantine(connection: &Connection, row: &QuarantineRow, limits: &Limits) -> Result<(), Error> {
    execute(
        connection,
        "INSERT INTO quarantine (at, sender, reason, body) VALUES (?1, ?2, ?3, ?4)",
        params![row.at.nanos(), row.sender, row.reason, row.body],
    )?;
    // The newest that fit; at most a thousand rows are looked at, and `length` does not read the bodies.
    execute(
        connection,
        "DELETE FROM quarantine WHERE ordinal <= (
           SELECT max(ordinal) FROM (
             SELECT ordinal,
                    row_number() OVER newest AS place,
                    sum(length(body)) OVER newest AS bytes
             FROM quarantine WINDOW newest AS (ORDER BY ordinal DESC)
           ) WHERE place > ?1 OR bytes > ?2)",
        [signed(limits.quarantine_rows as u64), signed(limits.quarantine_bytes)],
    )
}
