//! How much a store keeps, and for how long. Every implementation keeps to the same numbers, so that what is decided does
//! not depend on which one is used.

use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Judged segments with their jobs.
pub const SEGMENTS: Duration = DAY.saturating_mul(7);
/// Outbox rows and messages after they are settled, settled ids of the deduplication store, and what was told.
pub const DELIVERED: Duration = DAY.saturating_mul(30);
/// Incidents that no longer fire, with their events and keys, counted from their last occurrence.
pub const INCIDENTS: Duration = DAY.saturating_mul(90);
/// Names of batches after they left the spool.
pub const BATCHES: Duration = DAY.saturating_mul(2);
/// Summaries.
pub const SUMMARIES: Duration = DAY.saturating_mul(30);
/// Quarantined input.
pub const QUARANTINE: Duration = DAY.saturating_mul(7);

/// Minutes whose seen lines are kept, back from the newest.
pub const SEEN_MINUTES: i64 = 75;
/// Minutes whose counts are kept, back from the newest.
pub const COUNT_MINUTES: i64 = 24 * 60;
/// Minutes of one source of which anything is kept at most, whatever times its lines claim to have.
pub const MAX_MINUTES: usize = 4096;

/// How much a ledger keeps at most. What is over is removed oldest first, except for the spool, which refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Leaves per source; the least recently used make room.
    pub leaves: usize,
    /// Rows of the memory of normal per source; those whose last event is oldest make room when the ledger is pruned.
    pub memory_rows: usize,
    /// Bytes of pushed batches that wait; more is refused with [`LedgerError::Full`](crate::ledger::LedgerError::Full).
    pub spool_bytes: u64,
    /// Quarantined inputs.
    pub quarantine_rows: usize,
    /// Bytes of quarantined input.
    pub quarantine_bytes: u64,
    /// Different counters; what is counted under further names is counted as `counters_omitted`.
    pub counters: usize,
    /// Commit ids that are remembered, so that a commit can be sent again.
    pub commits: usize,
    /// Bytes of the whole; a store in memory estimates.
    pub bytes: u64,
}

impl Limits {
    /// Evicted leaves per source whose ids are remembered.
    pub fn gone(&self) -> usize {
        self.leaves.saturating_mul(4)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            leaves: 20_000,
            memory_rows: 50_000,
            spool_bytes: 1 << 30,
            quarantine_rows: 1_000,
            quarantine_bytes: 64 << 20,
            counters: 10_000,
            commits: 100_000,
            bytes: 1 << 30,
        }
    }
}

/// The minute that counts as the newest among lines just taken: the median, so that a few lines that claim to be from the
/// future do not make a store forget the present.
pub fn reference_minute(minutes: &mut [i64]) -> Option<i64> {
    if minutes.is_empty() {
        return None;
    }
    let middle = minutes.len() / 2;
    Some(*minutes.select_nth_unstable(middle).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_from_the_future_do_not_move_the_reference() {
        assert_eq!(reference_minute(&mut [100, i64::MAX, 101, 102, i64::MIN]), Some(101));
        assert_eq!(reference_minute(&mut []), None);
    }
}
