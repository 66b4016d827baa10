//! Answers queries, inside one read transaction.

use std::{collections::BTreeSet, sync::Arc};

use logwarden_core::{
    LineId, Timestamp,
    finding::Key,
    incident::{Event, Incident, IncidentId, Status},
    ledger::{
        BenignVerdict, Incidents, Jobs, KeyOwner, Outbox, OutboxRow, QuarantineRow, Query, Snapshot, SpoolRow, Summary,
        Versioned,
    },
    message::SendId,
    source::Seen,
    templates::{LeafId, NewLeaf, Origin, RootId},
};
use logwarden_detectors::{MemoryKey, MemoryRow, SourceRow};
use logwarden_sqlite::{
    Error,
    rusqlite::{Connection, OptionalExtension, Params, Row, params},
};
use serde::de::DeserializeOwned;

use crate::row::{Hex, bits, damage, from_json, signed, source_number, unpack_segment, unsigned};

pub(crate) fn read(connection: &Connection, query: &Query) -> Result<Snapshot, Error> {
    let mut snapshot = Snapshot {
        installation: one(connection, "installation", "SELECT n, version, row FROM installation WHERE n = 1", [])?,
        ..Snapshot::default()
    };
    if let Some(source) = &query.source
        && let Some(n) = source_number(connection, &source.0)?
    {
        read_source(connection, n, query, &mut snapshot)?;
    }
    for key in query.keys.iter().collect::<BTreeSet<_>>() {
        snapshot.keys.extend(read_key(connection, *key)?);
    }
    read_outbox(connection, query, &mut snapshot)?;
    read_incidents(connection, query, &mut snapshot)?;
    match &query.jobs {
        Jobs::None => {}
        Jobs::Open { limit } => {
            let sql = "SELECT n, version, row FROM job WHERE open ORDER BY created DESC, segment, profile LIMIT ?1";
            snapshot.jobs = all(connection, "job", sql, [signed(*limit as u64)])?;
        }
        Jobs::Of(segments) => {
            for segment in segments {
                let sql = "SELECT n, version, row FROM job WHERE segment = ?1 ORDER BY profile";
                snapshot.jobs.extend(all(connection, "job", sql, [segment.0.to_be_bytes()])?);
            }
        }
    }
    read_segments(connection, query, &mut snapshot)?;
    if query.channels {
        snapshot.channels = all(connection, "channel", "SELECT name, version, row FROM channel ORDER BY name", [])?;
    }
    if query.mutes {
        let mutes = all(connection, "mute", "SELECT id, 1, row FROM mute ORDER BY id", [])?;
        snapshot.mutes = mutes.into_iter().map(|mute| mute.row).collect();
    }
    read_verdicts(connection, query, &mut snapshot)?;
    let sql = "SELECT n, 1, row FROM summary ORDER BY at DESC, segment, profile LIMIT ?1";
    let summaries: Vec<Versioned<Summary>> = all(connection, "summary", sql, [signed(query.summaries as u64)])?;
    snapshot.summaries = summaries.into_iter().map(|summary| summary.row).collect();
    if query.counters {
        let mut rows = connection.prepare_cached("SELECT name, n FROM counter")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let n = unsigned("counter", &name, row.get(1)?)?;
            snapshot.counters.insert(name, n);
        }
    }
    read_pushed(connection, query, &mut snapshot)?;
    for name in &query.values {
        if let Some(value) = one(connection, "value", "SELECT name, version, row FROM value WHERE name = ?1", [name])? {
            snapshot.values.insert(name.clone(), value);
        }
    }
    Ok(snapshot)
}

/// Rows of the form (name for errors, version, JSON).
fn all<T: DeserializeOwned>(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    params: impl Params,
) -> Result<Vec<Versioned<T>>, Error> {
    let mut rows = connection.prepare_cached(sql)?;
    let mut rows = rows.query(params)?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(versioned(table, row)?);
    }
    Ok(out)
}

fn one<T: DeserializeOwned>(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    params: impl Params,
) -> Result<Option<Versioned<T>>, Error> {
    let mut rows = connection.prepare_cached(sql)?;
    let mut rows = rows.query(params)?;
    rows.next()?.map(|row| versioned(table, row)).transpose()
}

fn versioned<T: DeserializeOwned>(table: &'static str, row: &Row<'_>) -> Result<Versioned<T>, Error> {
    let name = row_name(row)?;
    let version = unsigned(table, &name, row.get(1)?)?;
    let text = row.get_ref(2)?.as_str().map_err(|cause| damage(table, &name, cause))?;
    Ok(Versioned { version, row: from_json(table, &name, text)? })
}

/// The first column as people see it.
fn row_name(row: &Row<'_>) -> Result<String, Error> {
    use logwarden_sqlite::rusqlite::types::ValueRef;
    Ok(match row.get_ref(0)? {
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).chars().take(80).collect(),
        ValueRef::Blob(bytes) => Hex(bytes).to_string(),
        ValueRef::Null | ValueRef::Real(_) => "without a name".into(),
    })
}

fn read_source(connection: &Connection, n: i64, query: &Query, snapshot: &mut Snapshot) -> Result<(), Error> {
    snapshot.source = one(connection, "source", "SELECT n, version, row FROM source WHERE n = ?1", [n])?;
    if query.leaves {
        let mut rows = connection.prepare_cached(
            "SELECT leaf, program, text, example, first FROM leaf JOIN leaf_used USING (n) WHERE source = ?1
             ORDER BY day, n",
        )?;
        let mut rows = rows.query([n])?;
        while let Some(row) = rows.next()? {
            let (program, text): (String, String) = (row.get(1)?, row.get(2)?);
            snapshot.leaves.push(NewLeaf {
                leaf: LeafId::from_bits(bits("leaf", blob(row, 0)?)?),
                program: program.into(),
                text: text.into(),
                example: row.get(3)?,
                first: Timestamp::from_nanos(row.get(4)?),
            });
        }
    }
    if query.leaves {
        let mut rows = connection.prepare_cached("SELECT leaf FROM leaf_gone WHERE source = ?1 ORDER BY n")?;
        let mut rows = rows.query([n])?;
        while let Some(row) = rows.next()? {
            snapshot.gone.push(LeafId::from_bits(bits("leaf_gone", blob(row, 0)?)?));
        }
    }
    if query.memory {
        snapshot.memory = read_memory(connection, n)?.into_iter().map(|(_, key, row)| (key, row)).collect();
        let mut row = connection.prepare_cached("SELECT row FROM memory_source WHERE source = ?1")?;
        let row: Option<Vec<u8>> = row.query_row([n], |row| row.get(0)).optional()?;
        if let Some(row) = row {
            snapshot.memory_source = SourceRow::decode(&row).map_err(|cause| damage("memory_source", n, cause))?;
        }
    }
    if query.seen {
        let mut rows = connection.prepare_cached("SELECT minute, lines, counts FROM seen WHERE source = ?1")?;
        let mut rows = rows.query([n])?;
        while let Some(row) = rows.next()? {
            let minute = row.get(0)?;
            restore_minute(&mut snapshot.seen, minute, blob(row, 1)?, blob(row, 2)?)?;
        }
    }
    Ok(())
}

fn blob<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a [u8], Error> {
    row.get_ref(column)?.as_blob().map_err(|cause| {
        Error::from(logwarden_sqlite::rusqlite::Error::FromSqlConversionFailure(
            column,
            logwarden_sqlite::rusqlite::types::Type::Blob,
            Box::new(cause),
        ))
    })
}

/// The memory of normal of a source, with the number of each row.
fn read_memory(connection: &Connection, source: i64) -> Result<Vec<(i64, MemoryKey, MemoryRow)>, Error> {
    let mut rows = connection.prepare_cached(
        "SELECT n, key, host, service, root, template, hot FROM memory JOIN memory_hot USING (n) WHERE source = ?1
         ORDER BY n",
    )?;
    let mut rows = rows.query([source])?;
    let mut out = Vec::new();
    // Neighbours mostly have the same origin; one copy of it is enough.
    let mut origin = Arc::new(Origin { host: "".into(), service: "".into() });
    while let Some(row) = rows.next()? {
        let n: i64 = row.get(0)?;
        let key = MemoryKey::from_bits(bits("memory", blob(row, 1)?)?);
        let text = |column| row.get_ref(column)?.as_str().map_err(|cause| damage("memory", n, cause));
        if (&*origin.host, &*origin.service) != (text(2)?, text(3)?) {
            origin = Arc::new(Origin { host: text(2)?.into(), service: text(3)?.into() });
        }
        let root = RootId::from_bits(bits("memory", blob(row, 4)?)?);
        let memory = MemoryRow::decode(origin.clone(), root, text(5)?.into(), blob(row, 6)?)
            .map_err(|cause| damage("memory", n, cause))?;
        out.push((n, key, memory));
    }
    Ok(out)
}

/// The time of the last event, the key and the number of each row of the memory of a source.
pub(crate) fn memory_ages(connection: &Connection, source: i64) -> Result<Vec<(Timestamp, MemoryKey, i64)>, Error> {
    Ok(read_memory(connection, source)?.into_iter().map(|(n, key, row)| (row.last, key, n)).collect())
}

/// What is remembered of one minute.
pub(crate) fn read_seen_minute(connection: &Connection, source: i64, minute: i64) -> Result<Seen, Error> {
    let mut seen = Seen::default();
    let mut rows = connection.prepare_cached("SELECT lines, counts FROM seen WHERE source = ?1 AND minute = ?2")?;
    let mut rows = rows.query([source, minute])?;
    if let Some(row) = rows.next()? {
        restore_minute(&mut seen, minute, blob(row, 0)?, blob(row, 1)?)?;
    }
    Ok(seen)
}

/// A minute as it is kept: 24 bytes per line, 4 per query.
pub(crate) fn seen_blobs(seen: &Seen, minute: i64) -> (Vec<u8>, Vec<u8>) {
    let lines = seen.minute(minute);
    let lines = lines.flat_map(|(id, queries)| [&id.bits().to_be_bytes()[..], &queries.to_be_bytes()[..]].concat());
    let counts = seen.counts(minute).iter().flat_map(|count| count.to_be_bytes());
    (lines.collect(), counts.collect())
}

fn restore_minute(seen: &mut Seen, minute: i64, lines: &[u8], counts: &[u8]) -> Result<(), Error> {
    if !lines.len().is_multiple_of(24) || !counts.len().is_multiple_of(4) || counts.len() > 64 * 4 {
        return Err(damage("seen", format_args!("minute {minute}"), "its size is impossible"));
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |n, byte| n << 8 | u128::from(*byte));
    let lines = lines.chunks_exact(24).map(|entry| {
        let (id, queries) = entry.split_at(16);
        (LineId::from_bits(number(id)), number(queries) as u64)
    });
    let counts = counts.chunks_exact(4).map(|count| number(count) as u32).collect();
    seen.restore(minute, lines, counts);
    Ok(())
}

fn read_key(connection: &Connection, key: Key) -> Result<Option<Versioned<KeyOwner>>, Error> {
    let mut rows = connection.prepare_cached("SELECT version, incident, soft FROM key WHERE key = ?1")?;
    let mut rows = rows.query([key.bits().to_be_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let version = unsigned("key", key, row.get(0)?)?;
    let incident = IncidentId::from_bits(bits("key", blob(row, 1)?)?);
    Ok(Some(Versioned { version, row: KeyOwner { key, incident, soft: row.get(2)? } }))
}

fn read_incidents(connection: &Connection, query: &Query, snapshot: &mut Snapshot) -> Result<(), Error> {
    let mut ids: Vec<_> = snapshot.keys.iter().map(|owner| owner.row.incident).collect();
    ids.extend(snapshot.outbox.iter().map(|row| row.row.incident));
    let mut add = |sql: &str, params: &[i64]| -> Result<(), Error> {
        let mut rows = connection.prepare_cached(sql)?;
        let mut rows = rows.query(logwarden_sqlite::rusqlite::params_from_iter(params))?;
        while let Some(row) = rows.next()? {
            ids.push(IncidentId::from_bits(bits("incident", blob(row, 0)?)?));
        }
        Ok(())
    };
    match &query.incidents {
        Incidents::None => {}
        Incidents::Ids(asked) => ids.extend(asked),
        Incidents::Firing => add("SELECT id FROM incident WHERE firing", &[])?,
        Incidents::Latest { limit } => {
            add("SELECT id FROM incident ORDER BY last DESC, id DESC LIMIT ?1", &[signed(*limit as u64)])?;
        }
    }
    while let Some(id) = ids.pop() {
        if snapshot.incidents.contains_key(&id) {
            continue;
        }
        let sql = "SELECT id, version, row FROM incident WHERE id = ?1";
        let incident: Option<Versioned<Incident>> = one(connection, "incident", sql, [id.bits().to_be_bytes()])?;
        if let Some(incident) = incident {
            if let Status::Merged { into } = incident.row.status {
                ids.push(into);
            }
            snapshot.incidents.insert(id, incident);
        }
    }
    if query.events {
        for id in snapshot.incidents.keys() {
            let sql = "SELECT incident, 1, row FROM event WHERE incident = ?1 ORDER BY seq";
            let events: Vec<Versioned<Event>> = all(connection, "event", sql, [id.bits().to_be_bytes()])?;
            snapshot.events.extend(events.into_iter().map(|event| event.row));
        }
    }
    Ok(())
}

fn read_outbox(connection: &Connection, query: &Query, snapshot: &mut Snapshot) -> Result<(), Error> {
    let columns = "SELECT incident, version, row FROM outbox";
    let order = "ORDER BY incident, first_seq, channel";
    let sendings = "SELECT id, version, row FROM sending";
    match &query.outbox {
        Outbox::None => {}
        Outbox::Open => {
            snapshot.outbox = all(connection, "outbox", &format!("{columns} WHERE open {order}"), [])?;
            snapshot.sendings = all(connection, "sending", &format!("{sendings} WHERE open ORDER BY id"), [])?;
        }
        Outbox::Channel(channel) => {
            let sql = format!("{columns} WHERE open AND channel = ?1 {order}");
            snapshot.outbox = all(connection, "outbox", &sql, [&**channel])?;
            let sql = format!("{sendings} WHERE open AND channel = ?1 ORDER BY id");
            snapshot.sendings = all(connection, "sending", &sql, [&**channel])?;
        }
        Outbox::Incidents(ids) => {
            for id in ids.iter().collect::<BTreeSet<_>>() {
                let sql = format!("{columns} WHERE incident = ?1 {order}");
                let rows: Vec<Versioned<OutboxRow>> = all(connection, "outbox", &sql, [id.bits().to_be_bytes()])?;
                snapshot.outbox.extend(rows);
            }
            let sends: BTreeSet<SendId> = snapshot.outbox.iter().filter_map(|row| row.row.send).collect();
            for send in sends {
                let sql = format!("{sendings} WHERE id = ?1");
                snapshot.sendings.extend(one(connection, "sending", &sql, [send.0.to_be_bytes()])?);
            }
        }
    }
    Ok(())
}

fn read_segments(connection: &Connection, query: &Query, snapshot: &mut Snapshot) -> Result<(), Error> {
    let mut rows = connection.prepare_cached("SELECT size, row FROM segment WHERE id = ?1")?;
    for id in &query.segments {
        let mut rows = rows.query([id.0.to_be_bytes()])?;
        if let Some(row) = rows.next()? {
            snapshot.segments.push(Arc::new(unpack_segment(id.0, row.get(0)?, blob(row, 1)?)?));
        }
    }
    Ok(())
}

fn read_verdicts(connection: &Connection, query: &Query, snapshot: &mut Snapshot) -> Result<(), Error> {
    let Some((profile, fingerprint, leaves)) = &query.verdicts else { return Ok(()) };
    let mut until =
        connection.prepare_cached("SELECT until FROM verdict WHERE leaf = ?1 AND profile = ?2 AND fingerprint = ?3")?;
    for leaf in leaves.iter().collect::<BTreeSet<_>>() {
        let key = params![leaf.bits().to_be_bytes(), profile.as_str(), fingerprint];
        if let Some(until) = until.query_row(key, |row| row.get(0)).optional()? {
            let until = Timestamp::from_nanos(until);
            let (profile, fingerprint) = (profile.clone(), fingerprint.clone());
            snapshot.verdicts.push(BenignVerdict { leaf: *leaf, profile, fingerprint, until });
        }
    }
    Ok(())
}

fn read_pushed(connection: &Connection, query: &Query, snapshot: &mut Snapshot) -> Result<(), Error> {
    if let Some(budget) = query.spool {
        let mut rows =
            connection.prepare_cached("SELECT ordinal, batch, at, lines, body FROM spool ORDER BY ordinal")?;
        let mut rows = rows.query([])?;
        let mut total = 0_u64;
        while let Some(row) = rows.next()? {
            let ordinal: i64 = row.get(0)?;
            let lines = unsigned("spool", ordinal, row.get(3)?)?;
            total = total.saturating_add(lines);
            // The first one comes even when it is larger than the budget, or it would wait for ever.
            if total > budget && !snapshot.spool.is_empty() {
                break;
            }
            snapshot.spool.push(SpoolRow {
                ordinal: unsigned("spool", ordinal, ordinal)?,
                batch: logwarden_core::ledger::BatchId(bits("spool", blob(row, 1)?)?),
                at: Timestamp::from_nanos(row.get(2)?),
                lines,
                body: row.get(4)?,
            });
        }
        let mut size = connection.prepare_cached("SELECT rows, bytes FROM spool_size")?;
        let (rows, bytes) = size.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        snapshot.spool_size = (unsigned("spool_size", 1, rows)?, unsigned("spool_size", 1, bytes)?);
    }
    let mut known = connection.prepare_cached("SELECT 1 FROM batch WHERE id = ?1")?;
    for batch in &query.batches {
        if known.exists([batch.0.to_be_bytes()])? {
            snapshot.batches.push(*batch);
        }
    }
    if query.quarantine > 0 {
        let mut rows = connection.prepare_cached(
            "SELECT ordinal, at, sender, reason, body FROM quarantine ORDER BY ordinal DESC LIMIT ?1",
        )?;
        let mut rows = rows.query([signed(query.quarantine as u64)])?;
        while let Some(row) = rows.next()? {
            snapshot.quarantine.push(QuarantineRow {
                ordinal: unsigned("quarantine", 0, row.get(0)?)?,
                at: Timestamp::from_nanos(row.get(1)?),
                sender: row.get(2)?,
                reason: row.get(3)?,
                body: row.get(4)?,
            });
        }
    }
    Ok(())
}
