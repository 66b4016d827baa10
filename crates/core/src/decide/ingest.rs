//! What one ingest changes: everything in one commit, or nothing.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use logwarden_detectors::Learned;
use logwarden_templates::{Carry, LeafId, Move, NewLeaf};

use crate::{
    LineId, ProfileName, Timestamp,
    decide::{Policy, book::Book, budget},
    finding::{Key, Scope},
    ledger::{Incidents, Job, JobState, ProcessId, Query, Segment, Snapshot, SourceState, Versioned, Write},
    source::{Cursor, SourceId},
};

/// Who may read a source.
#[derive(Clone, Debug)]
pub enum Ownership {
    /// We; the writes make it so.
    Ours {
        /// What to commit first.
        writes: Vec<Write>,
        /// Our epoch.
        epoch: u64,
    },
    /// Another process.
    Theirs {
        /// Which one.
        owner: ProcessId,
        /// Until when, unless it renews.
        until: Timestamp,
    },
}

/// Takes or renews the ownership of a source.
pub fn own(snapshot: &Snapshot, source: &SourceId, process: ProcessId, lease: Duration, now: Timestamp) -> Ownership {
    let known = snapshot.source.clone().unwrap_or_else(|| {
        Versioned::new(SourceState {
            cursor: None,
            owner: None,
            epoch: 0,
            until: Timestamp::MIN,
            carry: Carry::default(),
            failing: None,
            read_at: None,
        })
    });
    // A lease that ends far in the future was taken by a clock that was wrong: it must not lock the source for ever.
    let held = known.row.until > now && known.row.until.since(now) <= lease.saturating_mul(4);
    match known.row.owner {
        Some(owner) if owner != process && held => Ownership::Theirs { owner, until: known.row.until },
        owner => {
            let epoch = if owner == Some(process) { known.row.epoch } else { known.row.epoch + 1 };
            let row = SourceState { owner: Some(process), epoch, until: now.plus(lease), ..known.row };
            let write = Write::Source(source.clone(), Versioned { version: known.version, row });
            Ownership::Ours { writes: vec![write], epoch }
        }
    }
}

/// Gives the ownership back, so that the next process need not wait for the lease to end.
pub fn disown(snapshot: &Snapshot, source: &SourceId, process: ProcessId) -> Vec<Write> {
    let ours = snapshot.source.iter().filter(|known| known.row.owner == Some(process));
    ours.map(|known| {
        let row = SourceState { owner: None, until: Timestamp::MIN, ..known.row.clone() };
        Write::Source(source.clone(), Versioned { version: known.version, row })
    })
    .collect()
}

/// What was read, folded and detected.
#[derive(Debug)]
pub struct Ingested {
    /// Who read it.
    pub process: ProcessId,
    /// The ownership that it was read under.
    pub epoch: u64,
    /// The cursor that it was read from.
    pub cursor: Option<Cursor>,
    /// The cursor to go on from.
    pub next: Option<Cursor>,
    /// Whether the read succeeded up to now, so that silence means something.
    pub complete: bool,
    /// Open multi-line events.
    pub carry: Carry,
    /// Lines taken, for `seen`.
    pub seen: Vec<(Timestamp, LineId, u64)>,
    /// Leaves that the miner did not know.
    pub leaves: Vec<NewLeaf>,
    /// Leaves that it has no room for any more.
    pub evicted: Vec<LeafId>,
    /// Leaves that were used.
    pub used: Vec<LeafId>,
    /// Leaves whose root has moved up.
    pub moves: Vec<Move>,
    /// What the memory of normal learned.
    pub learned: Learned,
    /// The folded lines with the detectors' findings; `None` when there was no line.
    pub segment: Option<Segment>,
    /// Profiles to be judged by a classifier, with the lines kept under each.
    pub jobs: Vec<(ProfileName, u64)>,
    /// Spool rows that it came from, by ordinal.
    pub spool: Vec<u64>,
    /// Counters to raise.
    pub counters: Vec<(String, u64)>,
}

/// What must be read before [`query`]: the open incidents, where roots have moved.
pub fn concerned(ingested: &Ingested) -> Option<Query> {
    (!ingested.moves.is_empty()).then(|| Query { incidents: Incidents::Firing, ..Query::default() })
}

/// What must be read before [`decide`]; `open` is what [`concerned`] has read.
pub fn query(source: &SourceId, ingested: &Ingested, open: &Snapshot) -> Query {
    let findings = ingested.segment.iter().flat_map(|segment| &segment.findings);
    let mut keys: BTreeSet<Key> = findings.flat_map(crate::finding::Grounded::keys).collect();
    keys.extend(ingested.segment.iter().flat_map(|segment| {
        segment.rows.iter().flat_map(|row| {
            let scope = Scope { tenant: segment.tenant.clone(), origin: row.row.origin.clone() };
            [Key::of_root(&scope, row.row.root), Key::of_leaf(&scope, row.row.leaf)]
        })
    }));
    keys.extend(Book::moved_keys(open, &ingested.moves));
    let values = vec![budget::name(source)];
    Query { source: Some(source.clone()), values, ..Book::query(keys.into_iter().collect()) }
}

/// What [`decide`] answers.
#[derive(Debug)]
pub struct Decided {
    /// What to commit.
    pub writes: Vec<Write>,
    /// Incidents that begin.
    pub opened: u64,
    /// Findings that belong to an open incident.
    pub joined: u64,
}

/// Decides an ingest; `asked` are the keys of [`query`]. `None` when the source is no longer ours or its cursor has moved: then the work is discarded.
pub fn decide(
    policy: &Policy,
    snapshot: &Snapshot,
    source: &SourceId,
    ingested: &Ingested,
    asked: &[Key],
    now: Timestamp,
) -> Option<Decided> {
    let known = snapshot.source.clone()?;
    let ours = known.row.owner == Some(ingested.process) && known.row.epoch == ingested.epoch;
    if !ours || known.row.cursor != ingested.cursor {
        return None;
    }
    let state = SourceState {
        cursor: ingested.next.clone(),
        carry: ingested.carry.clone(),
        failing: None,
        read_at: if ingested.complete { Some(now) } else { known.row.read_at },
        ..known.row
    };
    let mut writes = vec![Write::Source(source.clone(), Versioned { version: known.version, row: state })];
    if !ingested.evicted.is_empty() {
        writes.push(Write::LeavesGone(source.clone(), ingested.evicted.clone()));
    }
    if !ingested.leaves.is_empty() {
        writes.push(Write::Leaves(source.clone(), ingested.leaves.clone()));
    }
    if !ingested.used.is_empty() {
        writes.push(Write::LeavesUsed(source.clone(), now.secs().div_euclid(86_400), ingested.used.clone()));
    }
    writes.push(Write::Memory(source.clone(), Box::new(ingested.learned.clone())));
    if !ingested.seen.is_empty() {
        writes.push(Write::Seen(source.clone(), ingested.seen.clone()));
    }

    let mut book = Book::open(policy, snapshot, source.clone(), now)?;
    book.keep_to_budget(snapshot);
    book.moved(&ingested.moves, asked);
    if let Some(segment) = &ingested.segment {
        let mut cited: BTreeSet<Key> = BTreeSet::new();
        for finding in &segment.findings {
            book.take(finding);
            cited.extend(finding.keys());
        }
        for row in segment.rows.iter().map(|row| &row.row) {
            let scope = Scope { tenant: segment.tenant.clone(), origin: row.origin.clone() };
            if !cited.contains(&Key::of_root(&scope, row.root)) {
                book.occurred(&scope, row.leaf, row.root, row.count, row.first, row.last);
            }
        }
        // What a detector has just found is explained soon, with everything that waits.
        let wait = if book.has_news() { Duration::ZERO } else { policy.judge_window };
        let jobs = ingested.jobs.iter().map(|(profile, lines)| Job {
            segment: segment.id,
            profile: profile.clone(),
            source: source.clone(),
            created: now,
            lines: *lines,
            state: JobState::Waiting { not_before: now.plus(wait) },
            attempts: 0,
        });
        writes.extend(jobs.map(|job| Write::Job(Versioned::new(job))));
        writes.push(Write::Segment(Arc::new(segment.clone())));
    }
    let (opened, joined) = (book.opened(), book.joined());
    writes.extend(book.close());
    if !ingested.spool.is_empty() {
        writes.push(Write::Unspool(ingested.spool.clone()));
    }
    writes.extend(ingested.counters.iter().filter(|(_, n)| *n > 0).map(|(name, n)| Write::Count(name.clone(), *n)));
    Some(Decided { writes, opened, joined })
}

/// Notes that a source could not be read. Returns the writes, and how many reads in a row have failed now.
pub fn failed(snapshot: &Snapshot, source: &SourceId, now: Timestamp) -> (Vec<Write>, u32) {
    let Some(known) = snapshot.source.clone() else { return (Vec::new(), 1) };
    let (times, since) = known.row.failing.unwrap_or((0, now));
    let times = times.saturating_add(1);
    let row = SourceState { failing: Some((times, since)), ..known.row };
    (vec![Write::Source(source.clone(), Versioned { version: known.version, row })], times)
}
