//! What shippers push: on disk before it is acknowledged, folded by whoever owns the source, and gone from the spool with
//! the commit that has folded it. A process may end at every step, and a shipper sends again what it does not know to be
//! taken.

use std::time::Duration;

use logwarden_core::{
    ProfileName,
    decide::ingest::{self, Ingested, Ownership},
    env::Env,
    ledger::{BatchId, Query, Segment, SegmentId, SpoolRow, Write},
};

use super::{Fault, Find, PROCESSES, World, judging::Folded, schedule::Push, wide};

/// How long a source is owned without renewal.
const OWN_FOR: Duration = Duration::from_secs(120);
/// Batches folded at once.
const AT_ONCE: u64 = 2;

/// How far a process is with what was pushed.
#[derive(Debug)]
pub(super) enum Fold {
    Idle,
    Owned { epoch: u64 },
    Read { epoch: u64, ordinals: Vec<u64>, batches: Vec<usize> },
}

/// A batch that a shipper sends until it is acknowledged.
#[derive(Debug)]
pub(super) struct Batch {
    find: Find,
    /// In how many commits it was counted.
    folded: u32,
}

impl World {
    pub(super) fn push(&mut self, find: Find, process: usize, ends: [Push; 2]) -> Result<(), Fault> {
        let process = 2 * find.host + process;
        let number = self.batches.len();
        self.batches.push(Batch { find, folded: 0 });
        let mut id = BatchId(wide(&mut self.dice));
        for end in ends.into_iter().chain([Push::Taken]) {
            if end != Push::Lost {
                self.take(process, id, number)?;
            }
            if end == Push::Taken {
                break;
            }
            self.crash(process);
            if !self.rules.knows_batches {
                id = BatchId(wide(&mut self.dice));
            }
        }
        Ok(())
    }

    /// On disk, now or before.
    fn take(&mut self, process: usize, id: BatchId, number: usize) -> Result<(), Fault> {
        let known = self.read(process, &Query { batches: vec![id], ..Query::default() })?;
        if known.batches.is_empty() {
            let (at, body) = (self.now(process / 2), (number as u64).to_le_bytes().to_vec());
            let row = SpoolRow { ordinal: 0, batch: id, at, lines: 1, body };
            if !self.commit(process, vec![Write::Spool(row)])? {
                return Err(Fault::Store("a batch that nobody knew is known".into()));
            }
        }
        Ok(())
    }

    pub(super) fn fold(&mut self, process: usize) -> Result<(), Fault> {
        let next = match std::mem::replace(&mut self.folds[process], Fold::Idle) {
            Fold::Idle => self.own(process)?,
            Fold::Owned { epoch } => self.read_spool(process, epoch)?,
            Fold::Read { epoch, ordinals, batches } => {
                self.commit_fold(process, epoch, ordinals, &batches)?;
                Fold::Idle
            }
        };
        self.folds[process] = next;
        Ok(())
    }

    fn own(&mut self, process: usize) -> Result<Fold, Fault> {
        let now = self.now(process / 2);
        let snapshot = self.read(process, &Query { source: Some(self.source.clone()), ..Query::default() })?;
        Ok(match ingest::own(&snapshot, &self.source, self.processes[process], OWN_FOR, now) {
            Ownership::Theirs { .. } => Fold::Idle,
            Ownership::Ours { writes, epoch } => match self.commit(process, writes)? {
                true => Fold::Owned { epoch },
                false => Fold::Idle,
            },
        })
    }

    fn read_spool(&mut self, process: usize, epoch: u64) -> Result<Fold, Fault> {
        let spool = self.read(process, &Query { spool: Some(AT_ONCE), ..Query::default() })?.spool;
        if spool.is_empty() {
            return Ok(Fold::Idle);
        }
        let number = |row: &SpoolRow| row.body.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes) as usize);
        let batches = spool.iter().map(number).collect();
        let ordinals: Vec<u64> = spool.iter().map(|row| row.ordinal).collect();
        if self.rules.unspools_with_commit {
            return Ok(Fold::Read { epoch, ordinals, batches });
        }
        // Only without the rule: what is read is gone.
        let gone = self.commit(process, vec![Write::Unspool(ordinals)])?;
        Ok(if gone { Fold::Read { epoch, ordinals: Vec::new(), batches } } else { Fold::Idle })
    }

    fn commit_fold(&mut self, process: usize, epoch: u64, ordinals: Vec<u64>, batches: &[usize]) -> Result<(), Fault> {
        let host = process / 2;
        let now = self.now(host);
        let finds: Vec<Find> = batches.iter().map(|number| self.batches[*number].find).collect();
        let findings: Vec<_> = finds.iter().map(|find| self.finding(find, now)).collect();
        let id = SegmentId(wide(&mut self.dice));
        let segment = Segment {
            id,
            source: self.source.clone(),
            tenant: "".into(),
            at: now,
            from: now,
            to: now,
            counts: Default::default(),
            rows: Vec::new(),
            signals: Vec::new(),
            findings: findings.clone(),
        };
        let ingested = Ingested {
            process: self.processes[process],
            epoch,
            cursor: None,
            next: None,
            complete: true,
            carry: Default::default(),
            seen: Vec::new(),
            leaves: Vec::new(),
            evicted: Vec::new(),
            used: Vec::new(),
            moves: Vec::new(),
            learned: Default::default(),
            segment: Some(segment),
            jobs: vec![(ProfileName::general(), batches.len() as u64)],
            spool: ordinals,
            counters: Vec::new(),
        };
        let query = ingest::query(&self.source, &ingested, &Default::default());
        let snapshot = self.read(process, &query)?;
        let decided = ingest::decide(&self.policy, &snapshot, &self.source, &ingested, &query.keys, now);
        // The source may be another's by now, or the rows may be gone: then another process has folded them.
        let Some(decided) = decided else { return Ok(()) };
        let mut writes = decided.writes;
        if !self.rules.r1 {
            super::absorb_into_claimed(&snapshot, &mut writes);
        }
        if self.commit(process, writes)? {
            let at = self.env.now();
            for ((number, find), finding) in batches.iter().zip(&finds).zip(&findings) {
                self.batches[*number].folded += 1;
                self.must_hear(find, finding, at)?;
            }
            self.judging.segments.insert(id, Folded { host, at, finds, findings });
        }
        Ok(())
    }

    /// Every batch that was acknowledged is folded once.
    pub(super) fn check_batches(&self) -> Result<(), Fault> {
        for (number, batch) in self.batches.iter().enumerate() {
            match batch.folded {
                1 => {}
                0 => return Err(Fault::Lost(format!("batch {number} was taken and never folded"))),
                times => return Err(Fault::Surplus(format!("batch {number} was folded {times} times"))),
            }
        }
        Ok(())
    }

    pub(super) fn fold_all(&mut self) -> Result<(), Fault> {
        for process in 0..PROCESSES {
            for _ in 0..3 {
                self.fold(process)?;
            }
        }
        Ok(())
    }
}
