//! Which job next, and what its answer changes.

use std::time::Duration;

use crate::{
    Timestamp,
    decide::{Policy, ago, book::Book},
    finding::{Grounded, Key},
    ledger::{BenignVerdict, Job, JobState, ProcessId, Query, Snapshot, Summary, Versioned, Write},
};

/// How long a job may be worked at at most before anybody else may take it.
pub const LEASE: Duration = Duration::from_secs(15 * 60);
/// Attempts that may fail for the model's fault before only the detectors count.
pub const MAX_ATTEMPTS: u32 = 3;

/// What to do next.
#[derive(Debug)]
pub enum Next {
    /// Work at this job; commit the writes first.
    Work {
        /// What to commit.
        writes: Vec<Write>,
        /// The job with the version that it has after that commit.
        job: Versioned<Job>,
    },
    /// Nothing is waiting, or not yet.
    Nothing {
        /// What to commit (jobs that were shed).
        writes: Vec<Write>,
        /// When something will be, where known.
        at: Option<Timestamp>,
    },
}

/// Chooses the next job and leases it until `until`: the newest, so that what happens now is explained first; what has
/// waited too long is shed.
pub fn next(policy: &Policy, snapshot: &Snapshot, process: ProcessId, until: Timestamp, now: Timestamp) -> Next {
    let mut writes = Vec::new();
    let mut best: Option<&Versioned<Job>> = None;
    let mut at: Option<Timestamp> = None;
    for job in &snapshot.jobs {
        let ready = match &job.row.state {
            // Made before the clock was set back.
            JobState::Waiting { .. } if ago(now, job.row.created) == Duration::MAX => now,
            JobState::Waiting { not_before } => *not_before,
            // Our own, too: whoever worked at it has been stopped.
            JobState::Leased { until, .. } if until.since(now) <= LEASE => *until,
            JobState::Leased { .. } => now,
            JobState::Analysed | JobState::DetectorsOnly { .. } | JobState::Shed { .. } => continue,
        };
        if now.since(job.row.created) > policy.shed_after {
            let reason = format!("waited longer than {} hours", policy.shed_after.as_secs() / 3600);
            writes.push(settled(job, JobState::Shed { reason }));
            writes.push(Write::Count(format!("lines_shed.{}", job.row.profile), job.row.lines));
        } else if ready > now {
            at = Some(at.map_or(ready, |at| at.min(ready)));
        } else if best.is_none_or(|best| job.row.created > best.row.created) {
            best = Some(job);
        }
    }
    match best {
        Some(job) => {
            let state = JobState::Leased { owner: process, until: until.min(now.plus(LEASE)) };
            let row = Job { state, ..job.row.clone() };
            writes.push(Write::Job(Versioned { version: job.version, row: row.clone() }));
            Next::Work { writes, job: Versioned { version: job.version + 1, row } }
        }
        None => Next::Nothing { writes, at },
    }
}

fn settled(job: &Versioned<Job>, state: JobState) -> Write {
    Write::Job(Versioned { version: job.version, row: Job { state, ..job.row.clone() } })
}

/// How a job ended.
#[derive(Debug)]
pub enum Judged {
    /// Every open row was judged.
    Analysed {
        /// What the model claims, grounded.
        findings: Vec<Grounded>,
        /// Leaves without a finding and without a signal.
        benign: Vec<BenignVerdict>,
        /// What happened, in a few sentences.
        summary: Option<Summary>,
    },
    /// Of some rows at least only the detectors count.
    DetectorsOnly {
        /// Why.
        reason: String,
        /// What the model claims about the rows that it could cope with, grounded.
        findings: Vec<Grounded>,
        /// Of those rows, leaves without a finding and without a signal.
        benign: Vec<BenignVerdict>,
        /// What happened.
        summary: Option<Summary>,
    },
    /// Later: the model is away or rests. No attempt is counted.
    Later {
        /// Not before.
        at: Timestamp,
    },
    /// Later, and the model was at fault.
    Failed {
        /// Not before.
        at: Timestamp,
        /// What it did.
        reason: String,
    },
}

/// What must be read before [`settle`]: `keys` are those of the findings and of the segment's own findings.
pub fn query(keys: Vec<Key>) -> Query {
    Book::query(keys)
}

/// Decides what an answer changes. `segment_keys` are the keys of the segment's own findings: messages about them no
/// longer wait for this job.
pub fn settle(
    policy: &Policy,
    snapshot: &Snapshot,
    job: &Versioned<Job>,
    judged: &Judged,
    segment_keys: &[Key],
    now: Timestamp,
) -> Vec<Write> {
    let Some(mut book) = Book::open(policy, snapshot, job.row.source.clone(), now) else { return Vec::new() };
    let mut writes = Vec::new();
    let count = |name: &str| Write::Count(format!("{name}.{}", job.row.profile), job.row.lines);
    match judged {
        Judged::Analysed { findings, benign, summary } => {
            for finding in findings {
                book.take(finding);
            }
            book.release(segment_keys);
            writes.extend(benign.iter().cloned().map(Write::Verdict));
            writes.extend(summary.iter().cloned().map(Write::Summary));
            writes.push(count("lines_analysed"));
            writes.push(settled(job, JobState::Analysed));
        }
        Judged::Failed { reason, .. } if job.row.attempts + 1 >= MAX_ATTEMPTS => {
            book.release(segment_keys);
            writes.push(count("lines_detectors_only"));
            writes.push(settled(job, JobState::DetectorsOnly { reason: reason.clone() }));
        }
        Judged::DetectorsOnly { reason, findings, benign, summary } => {
            for finding in findings {
                book.take(finding);
            }
            book.release(segment_keys);
            writes.extend(benign.iter().cloned().map(Write::Verdict));
            writes.extend(summary.iter().cloned().map(Write::Summary));
            writes.push(count("lines_detectors_only"));
            writes.push(settled(job, JobState::DetectorsOnly { reason: reason.clone() }));
        }
        // Nothing will be explained for a while: what can be told without is told now.
        Judged::Later { at } => {
            book.release(segment_keys);
            writes.push(settled(job, JobState::Waiting { not_before: *at }));
        }
        Judged::Failed { at, .. } => {
            book.release(segment_keys);
            let row =
                Job { state: JobState::Waiting { not_before: *at }, attempts: job.row.attempts + 1, ..job.row.clone() };
            writes.push(Write::Job(Versioned { version: job.version, row }));
        }
    }
    writes.extend(book.close());
    writes
}
