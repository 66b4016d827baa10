//! What was folded waits for the model: a process leases it, hears what the model says, and settles it. A process may end in
//! between, or be so slow that another one takes what it has leased; each line is judged, or counted as not judged, once.

use std::collections::BTreeMap;

use logwarden_core::{
    Severity, Timestamp,
    decide::judge::{self, Judged, LEASE, Next},
    finding::{Grounded, Key},
    ledger::{Job, Jobs, Query, SegmentId, Versioned},
};

use super::{Fault, Find, PROCESSES, World, schedule::Opinion};

/// How long a model that is away or talks nonsense is left alone.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(60);

/// A segment that was committed.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) host: usize,
    /// When, in truth.
    pub(super) at: Timestamp,
    /// What is in it.
    pub(super) finds: Vec<Find>,
    /// When, and what the detectors found.
    pub(super) findings: Vec<Grounded>,
}

/// What was folded, and which process judges what.
#[derive(Debug, Default)]
pub(super) struct Judging {
    pub(super) segments: BTreeMap<SegmentId, Folded>,
    /// Per process, what it has leased.
    pub(super) leased: BTreeMap<usize, Vec<Versioned<Job>>>,
}

impl World {
    pub(super) fn judge(&mut self, process: usize, opinion: Opinion) -> Result<(), Fault> {
        if let Some(jobs) = self.judging.leased.remove(&process) {
            return self.settle_jobs(process, &jobs, opinion);
        }
        let now = self.now(process / 2);
        let snapshot = self.read(process, &Query { jobs: Jobs::Open { limit: 1_000 }, ..Query::default() })?;
        match judge::next(&self.policy, &snapshot, self.processes[process], now.plus(LEASE), now) {
            Next::Nothing { writes, .. } => self.commit(process, writes).map(|_| ()),
            Next::Work { writes, jobs } => {
                if self.commit(process, writes)? {
                    self.judging.leased.insert(process, jobs);
                }
                Ok(())
            }
        }
    }

    fn settle_jobs(&mut self, process: usize, jobs: &[Versioned<Job>], opinion: Opinion) -> Result<(), Fault> {
        let now = self.now(process / 2);
        let folded: Vec<&Folded> = jobs.iter().filter_map(|job| self.judging.segments.get(&job.row.segment)).collect();
        let segment_keys: Vec<Key> =
            folded.iter().flat_map(|folded| &folded.findings).flat_map(Grounded::keys).collect();
        let claims = |severity: Severity| -> Vec<(Find, Grounded, Timestamp)> {
            let finds = folded
                .iter()
                .flat_map(|folded| folded.finds.iter().zip(&folded.findings).map(|found| (*folded, found)));
            finds
                .map(|(folded, (find, found))| {
                    let find = Find { model: true, mark: 0, digest: false, severity, ..*find };
                    (find, self.finding(&find, found.last), folded.at)
                })
                .collect()
        };
        let claimed = match opinion {
            Opinion::Finds(severity) | Opinion::Partly(severity) => claims(severity),
            Opinion::Benign | Opinion::Away | Opinion::Nonsense => Vec::new(),
        };
        let findings: Vec<Grounded> = claimed.iter().map(|(_, finding, _)| finding.clone()).collect();
        let mut keys = segment_keys.clone();
        keys.extend(findings.iter().flat_map(Grounded::keys));
        let (benign, summary, at) = (Vec::new(), None, now.plus(AGAIN));
        let judged = match opinion {
            Opinion::Benign | Opinion::Finds(_) => Judged::Analysed { findings, benign, summary },
            Opinion::Partly(_) => Judged::DetectorsOnly { reason: "partly".into(), findings, benign, summary },
            Opinion::Away => Judged::Later { at },
            Opinion::Nonsense => Judged::Failed { at, reason: "nonsense".into() },
        };
        let snapshot = self.read(process, &judge::query(&self.source, keys))?;
        let writes = judge::settle(&self.policy, &snapshot, jobs, &judged, &segment_keys, now);
        // Somebody else may have taken them, or settled them.
        if self.commit(process, writes)? {
            for (find, finding, at) in &claimed {
                self.must_hear(find, finding, *at)?;
            }
        }
        Ok(())
    }

    pub(super) fn judge_all(&mut self) -> Result<(), Fault> {
        for process in 0..PROCESSES {
            for _ in 0..2 {
                self.judge(process, Opinion::Benign)?;
            }
        }
        Ok(())
    }

    /// Every line that was folded is counted once: judged, left to the detectors, given up, or waiting. A job that was to wait
    /// until a time of day waits longer when the clock is set back.
    pub(super) fn check_judged(&self, host: usize) -> Result<u64, Fault> {
        let kept: usize = self.judging.segments.values().filter(|of| of.host == host).map(|of| of.finds.len()).sum();
        let all = Query { counters: true, jobs: Jobs::Open { limit: 1_000 }, ..Query::default() };
        let end = self.read(2 * host, &all)?;
        let counts = ["lines_analysed.general", "lines_detectors_only.general", "lines_shed.general"];
        let settled: u64 = counts.iter().filter_map(|name| end.counters.get(*name)).sum();
        let waiting: u64 = end.jobs.iter().map(|job| job.row.lines).sum();
        if settled + waiting != kept as u64 {
            return Err(Fault::Lost(format!(
                "host {host}: {kept} lines were folded, {settled} judged, {waiting} wait"
            )));
        }
        if waiting > 0 && !self.oracle.has_jumped(host) {
            return Err(Fault::Stuck(format!("host {host}: {:?}", end.jobs)));
        }
        Ok(settled)
    }
}
