//! Which job next, and what its answer changes.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use crate::{
    Timestamp,
    decide::{Policy, ago, book::Book, budget},
    finding::{Grounded, Key},
    ledger::{BenignVerdict, Job, JobState, ProcessId, Query, Snapshot, Summary, Versioned, Write},
    source::SourceId,
};

/// How long a job may be worked at at most before anybody else may take it.
pub const LEASE: Duration = Duration::from_secs(15 * 60);
/// Attempts that may fail for the model's fault before only the detectors count.
pub const MAX_ATTEMPTS: u32 = 3;

/// Jobs that are judged together at most.
const TOGETHER: usize = 128;
/// They have at most so many times the lines of a full window.
const WINDOWS: u64 = 4;

/// What to do next.
#[derive(Debug)]
pub enum Next {
    /// Work at these jobs, which are of one source and one profile; commit the writes first.
    Work {
        /// What to commit.
        writes: Vec<Write>,
        /// The jobs with the versions that they have after that commit, newest first.
        jobs: Vec<Versioned<Job>>,
    },
    /// Nothing is waiting, or not yet.
    Nothing {
        /// What to commit (jobs that were shed).
        writes: Vec<Write>,
        /// When something will be, where known.
        at: Option<Timestamp>,
    },
}

/// Jobs of one source and one profile that wait.
#[derive(Default)]
struct Waiting<'a> {
    jobs: Vec<&'a Versioned<Job>>,
    ready: Option<Timestamp>,
    lines: u64,
}

/// Chooses the next jobs: once one is due, or many lines wait, all that wait with it. The newest first, so that what
/// happens now is explained first; what has waited too long is shed. A job that failed before is judged alone, so that
/// nothing else fails with it. They are leased until `until`.
pub fn next(policy: &Policy, snapshot: &Snapshot, process: ProcessId, until: Timestamp, now: Timestamp) -> Next {
    let mut writes = Vec::new();
    let mut groups: BTreeMap<_, Waiting<'_>> = BTreeMap::new();
    for job in &snapshot.jobs {
        let row = &job.row;
        let ready = match &row.state {
            // Made before the clock was set back.
            JobState::Waiting { .. } if ago(now, row.created) == Duration::MAX => now,
            JobState::Waiting { not_before } => *not_before,
            // Our own, too: whoever worked at it has been stopped.
            JobState::Leased { until, .. } if until.since(now) <= LEASE => *until,
            JobState::Leased { .. } => now,
            JobState::Analysed | JobState::DetectorsOnly { .. } | JobState::Shed { .. } => continue,
        };
        if now.since(row.created) > policy.shed_after {
            let reason = format!("waited longer than {} hours", policy.shed_after.as_secs() / 3600);
            writes.push(settled(job, JobState::Shed { reason }));
            writes.push(Write::Count(format!("lines_shed.{}", row.profile), row.lines));
            continue;
        }
        let alone = (row.attempts > 0).then_some(row.segment);
        let group = groups.entry((alone, &row.source, &row.profile)).or_default();
        group.ready = Some(group.ready.map_or(ready, |known| known.min(ready)));
        // What somebody works at is not there for us, and no reason to hurry.
        if matches!(row.state, JobState::Waiting { .. }) || ready <= now {
            group.lines = group.lines.saturating_add(row.lines);
            group.jobs.push(job);
        }
    }
    let due = |group: &&Waiting<'_>| {
        let full = group.lines >= policy.judge_lines && group.jobs.iter().any(|job| job.row.attempts == 0);
        !group.jobs.is_empty() && (full || group.ready.is_some_and(|ready| ready <= now))
    };
    let newest = |group: &&Waiting<'_>| group.jobs.iter().map(|job| job.row.created).max();
    let Some(group) = groups.values().filter(due).max_by_key(newest) else {
        return Next::Nothing { writes, at: groups.values().filter_map(|group| group.ready).min() };
    };
    let mut waiting = group.jobs.clone();
    waiting.sort_by_key(|job| Reverse((job.row.created, job.row.segment)));
    let (mut jobs, mut lines) = (Vec::new(), 0_u64);
    for job in waiting.into_iter().take(TOGETHER) {
        lines = lines.saturating_add(job.row.lines);
        if !jobs.is_empty() && lines > policy.judge_lines.saturating_mul(WINDOWS) {
            break;
        }
        let state = JobState::Leased { owner: process, until: until.min(now.plus(LEASE)) };
        let row = Job { state, ..job.row.clone() };
        writes.push(Write::Job(Versioned { version: job.version, row: row.clone() }));
        jobs.push(Versioned { version: job.version + 1, row });
    }
    Next::Work { writes, jobs }
}

fn settled(job: &Versioned<Job>, state: JobState) -> Write {
    Write::Job(Versioned { version: job.version, row: Job { state, ..job.row.clone() } })
}

/// How jobs that were judged together ended.
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
pub fn query(source: &SourceId, keys: Vec<Key>) -> Query {
    Query { values: vec![budget::name(source)], ..Book::query(keys) }
}

/// Decides what an answer about `jobs` changes. `segment_keys` are the keys of their segments' own findings: messages
/// about them no longer wait for these jobs.
pub fn settle(
    policy: &Policy,
    snapshot: &Snapshot,
    jobs: &[Versioned<Job>],
    judged: &Judged,
    segment_keys: &[Key],
    now: Timestamp,
) -> Vec<Write> {
    let Some(source) = jobs.first().map(|job| job.row.source.clone()) else { return Vec::new() };
    let Some(mut book) = Book::open(policy, snapshot, source, now) else { return Vec::new() };
    book.keep_to_budget(snapshot);
    let mut writes = Vec::new();
    if let Judged::Analysed { findings, benign, summary } | Judged::DetectorsOnly { findings, benign, summary, .. } =
        judged
    {
        for finding in findings {
            book.take(finding);
        }
        writes.extend(benign.iter().cloned().map(Write::Verdict));
        writes.extend(summary.iter().cloned().map(Write::Summary));
    }
    for job in jobs {
        let count = |name: &str| Write::Count(format!("{name}.{}", job.row.profile), job.row.lines);
        match judged {
            Judged::Analysed { .. } => {
                writes.push(count("lines_analysed"));
                writes.push(settled(job, JobState::Analysed));
            }
            Judged::Failed { reason, .. } if job.row.attempts + 1 >= MAX_ATTEMPTS => {
                writes.push(count("lines_detectors_only"));
                writes.push(settled(job, JobState::DetectorsOnly { reason: reason.clone() }));
            }
            Judged::DetectorsOnly { reason, .. } => {
                writes.push(count("lines_detectors_only"));
                writes.push(settled(job, JobState::DetectorsOnly { reason: reason.clone() }));
            }
            Judged::Later { at } => writes.push(settled(job, JobState::Waiting { not_before: *at })),
            Judged::Failed { at, .. } => {
                let state = JobState::Waiting { not_before: *at };
                let row = Job { state, attempts: job.row.attempts + 1, ..job.row.clone() };
                writes.push(Write::Job(Versioned { version: job.version, row }));
            }
        }
    }
    // When nothing will be explained for a while, what can be told without is told now, too.
    book.release(segment_keys);
    writes.extend(book.close());
    writes
}

#[cfg(test)]
mod tests {
    use logwarden_detectors::ProfileName;

    use super::*;
    use crate::{ledger::SegmentId, testing::rows};

    const ME: ProcessId = ProcessId(1);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(1_795_233_600 + seconds)
    }

    /// A job that was made in that second and may wait until `until`.
    fn job(second: i64, until: i64, lines: u64) -> Versioned<Job> {
        let row = rows::job(second as u64, ProfileName::general(), at(second));
        Versioned::new(Job { lines, state: JobState::Waiting { not_before: at(until) }, ..row })
    }

    /// The seconds in which the jobs that come next were made.
    fn chosen(jobs: Vec<Versioned<Job>>, now: i64) -> Vec<u128> {
        let snapshot = Snapshot { jobs, ..Snapshot::default() };
        match next(&Policy::default(), &snapshot, ME, at(now).plus(LEASE), at(now)) {
            Next::Work { jobs, writes } => {
                assert_eq!(jobs.len(), writes.len(), "all of them are leased");
                jobs.iter().map(|job| job.row.segment.0).collect()
            }
            Next::Nothing { .. } => Vec::new(),
        }
    }

    #[test]
    fn a_window_is_open_until_its_first_job_is_due_or_many_lines_wait() {
        let window = || vec![job(0, 60, 10), job(20, 80, 10), job(40, 100, 10)];
        assert_eq!(chosen(window(), 59), [0; 0]);
        assert_eq!(chosen(window(), 60), [40, 20, 0], "all that wait go together, newest first");
        let full = [window(), vec![job(41, 101, 50_000)]].concat();
        assert_eq!(chosen(full, 42), [41, 40, 20, 0]);
        let urgent = [window(), vec![job(41, 41, 1)]].concat();
        assert_eq!(chosen(urgent, 42), [41, 40, 20, 0]);
    }

    #[test]
    fn one_call_has_a_bound_and_what_failed_before_is_judged_alone() {
        let many = (0..300).map(|second| job(second, second, 1)).collect();
        assert_eq!(chosen(many, 400).len(), TOGETHER);
        assert_eq!(chosen(vec![job(0, 0, 190_000), job(1, 1, 20_000)], 400), [1], "more than four windows");
        assert_eq!(chosen(vec![job(0, 0, 1), job(1, 1, 900_000)], 400), [1], "but one always");
        let mut failed = job(2, 2, 1);
        failed.row.attempts = 1;
        let next = vec![job(0, 0, 1), job(1, 1, 1), failed];
        assert_eq!(chosen(next.clone(), 400), [2]);
        assert_eq!(chosen(next[..2].to_vec(), 400), [1, 0]);
    }

    #[test]
    fn what_others_work_at_is_left_to_them_until_their_lease_lapses() {
        let mut theirs = job(0, 0, 90_000);
        theirs.row.state = JobState::Leased { owner: ProcessId(2), until: at(900) };
        let jobs = vec![theirs, job(1, 60, 1)];
        assert_eq!(chosen(jobs.clone(), 30), [0; 0]);
        assert_eq!(chosen(jobs.clone(), 60), [SegmentId(1).0]);
        assert_eq!(chosen(jobs, 900), [1, 0]);
    }
}
