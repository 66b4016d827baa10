//! Between rows and their columns. Whatever does not fit is an error that names table and row, never a panic.

use std::{borrow::Cow, fmt::Display, sync::Arc};

use logwarden_core::ledger::Segment;
use logwarden_detectors::SignalKind;
use logwarden_sqlite::{
    Damage, Error,
    rusqlite::{Connection, OptionalExtension, Params},
};
use serde::{Serialize, de::DeserializeOwned};

/// JSON of a segment at most; more is refused when it is written, and not believed when it is read.
const MAX_SEGMENT_BYTES: usize = 256 << 20;

/// What a statement answers about a version: the row was written, or had another one.
pub(crate) struct Conflict;

pub(crate) fn damage(
    table: &'static str,
    row: impl Display,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Damage { table, row: row.to_string(), cause: Arc::from(cause.into()) }.into()
}

/// A row as it is kept.
pub(crate) fn to_json<T: Serialize>(table: &'static str, row: &T) -> Result<String, Error> {
    serde_json::to_string(row).map_err(|cause| damage(table, "to be written", cause))
}

/// A row as it was kept.
pub(crate) fn from_json<T: DeserializeOwned>(table: &'static str, row: impl Display, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|cause| damage(table, row, cause))
}

/// 128 bits from their column.
pub(crate) fn bits(table: &'static str, bytes: &[u8]) -> Result<u128, Error> {
    let bytes = bytes.try_into().map_err(|_| damage(table, Hex(bytes), "an id is not 16 bytes"))?;
    Ok(u128::from_be_bytes(bytes))
}

/// A number that is never negative, from its column.
pub(crate) fn unsigned(table: &'static str, row: impl Display, n: i64) -> Result<u64, Error> {
    u64::try_from(n).map_err(|cause| damage(table, row, cause))
}

/// A number for its column; SQLite has no more than 63 bits.
pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Bytes as hexadecimal digits, for errors; bounded.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(32).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Executes a statement that changes exactly one row, unless that has another version than expected.
pub(crate) fn one(connection: &Connection, sql: &str, params: impl Params) -> Result<Result<(), Conflict>, Error> {
    let changed = connection.prepare_cached(sql)?.execute(params)?;
    Ok(if changed == 1 { Ok(()) } else { Err(Conflict) })
}

/// The short number of a source, if it has one.
pub(crate) fn source_number(connection: &Connection, id: &str) -> Result<Option<i64>, Error> {
    let mut statement = connection.prepare_cached("SELECT n FROM source_name WHERE id = ?1")?;
    Ok(statement.query_row([id], |row| row.get(0)).optional()?)
}

/// The short number of a source, given now if need be.
pub(crate) fn number_of_source(connection: &Connection, id: &str) -> Result<i64, Error> {
    if let Some(n) = source_number(connection, id)? {
        return Ok(n);
    }
    connection.execute("INSERT INTO source_name (id) VALUES (?1)", [id])?;
    Ok(connection.last_insert_rowid())
}

/// A segment as it is kept: the size of its JSON, and that compressed.
pub(crate) fn pack_segment(segment: &Segment) -> Result<(i64, Vec<u8>), Error> {
    let json = to_json("segment", &*with_finite_numbers(segment))?;
    if json.len() > MAX_SEGMENT_BYTES {
        return Err(damage("segment", format_args!("{:032x}", segment.id.0), "it is too large to be kept"));
    }
    let packed = zstd::bulk::compress(json.as_bytes(), 1).map_err(|cause| damage("segment", "to be written", cause))?;
    Ok((i64::try_from(json.len()).unwrap_or(i64::MAX), packed))
}

/// The segment with every number one that JSON has: infinity would be written as `null`, and never be read again.
fn with_finite_numbers(segment: &Segment) -> Cow<'_, Segment> {
    let odd = |n: &f64| !n.is_finite();
    let surge = |kind: &SignalKind| matches!(kind, SignalKind::Surge { expected, .. } if odd(expected));
    let signals = segment.signals.iter().any(|signal| odd(&signal.score) || surge(&signal.kind));
    if !signals && !segment.findings.iter().any(|finding| odd(&finding.score)) {
        return Cow::Borrowed(segment);
    }
    let finite = |n: &mut f64| *n = if n.is_nan() { 0.0 } else { n.clamp(f64::MIN, f64::MAX) };
    let mut segment = segment.clone();
    for signal in &mut segment.signals {
        finite(&mut signal.score);
        if let SignalKind::Surge { expected, .. } = &mut signal.kind {
            finite(expected);
        }
    }
    segment.findings.iter_mut().for_each(|finding| finite(&mut finding.score));
    Cow::Owned(segment)
}

/// A segment as it was kept.
pub(crate) fn unpack_segment(id: u128, size: i64, packed: &[u8]) -> Result<Segment, Error> {
    let row = format!("{id:032x}");
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_SEGMENT_BYTES);
    let size = size.ok_or_else(|| damage("segment", &row, "its size is impossible"))?;
    let json = zstd::bulk::decompress(packed, size).map_err(|cause| damage("segment", &row, cause))?;
    let segment: Segment = serde_json::from_slice(&json).map_err(|cause| damage("segment", &row, cause))?;
    if segment.id.0 != id {
        return Err(damage("segment", row, "it is another segment"));
    }
    Ok(segment)
}

#[cfg(test)]
mod tests {
    use logwarden_core::{Timestamp, testing::rows};
    use logwarden_detectors::Signal;

    use super::*;

    #[test]
    fn a_segment_with_endless_surprise_can_be_read_again() {
        let mut segment = (*rows::segment(1, Timestamp::from_secs(0))).clone();
        let signal = |kind, score| Signal { kind, rows: vec![0], score, entities: Vec::new() };
        segment.signals = vec![
            signal(SignalKind::Novel, f64::INFINITY),
            signal(SignalKind::Surge { expected: f64::NAN, seen: 1 }, 2.5),
        ];
        let (size, packed) = pack_segment(&segment).unwrap();
        let again = unpack_segment(1, size, &packed).unwrap();
        assert_eq!(again.signals.iter().map(|signal| signal.score).collect::<Vec<_>>(), [f64::MAX, 2.5]);
        assert_eq!(again.rows.len(), 1);
    }
}
