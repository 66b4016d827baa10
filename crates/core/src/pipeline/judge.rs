//! Judge: asks the classifier about what is waiting, grounds the answer, commits.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{FutureExt, pin_mut, select_biased};

use super::{Pipeline, PipelineError, own::Trouble, together::Together};
use crate::{
    Timestamp,
    classifier::{Classifier, ClassifyError, Judgement},
    decide::judge::{self, Judged, Next},
    digest::{Digest, Verdict},
    error::chain,
    finding::{Grounded, Key},
    grounding::{self, Floors},
    ledger::{BenignVerdict, Committed, Job, Jobs, Query, Segment, Summary, Versioned},
    plan::{self, Material},
};

/// How long a job waits when the model cannot be reached and does not say for how long.
const RETRY: Duration = Duration::from_secs(60);
/// How much longer than the work may last a job is leased: for the commit that settles it.
const SETTLING: Duration = Duration::from_secs(30);
/// Answers in a row that cannot be used before the model is asked no more about a segment. As long as it goes on like
/// that, one is enough for the next segment.
const MAX_NONSENSE: u32 = 4;
/// How long something must have waited for a model that is away before it is told: two passes of five minutes.
const AWAY: Duration = Duration::from_secs(540);
/// Jobs looked at when one is chosen.
const LOOK_AT: usize = 256;

/// What judge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JudgeReport {
    /// Segments judged by the classifier.
    pub analysed: u64,
    /// Segments that only the detectors have looked at.
    pub detectors_only: u64,
    /// Segments that wait for a later run.
    pub waiting: u64,
    /// Findings of the classifier that hold.
    pub findings: u64,
    /// Claims that were refused: rows that do not exist, and the like.
    pub refused: u64,
    /// Calls made.
    pub calls: u64,
    /// Tokens of prompts and answers.
    pub tokens: u64,
    /// The model's name.
    pub model: String,
    /// Why the classifier was not used, if it was not.
    pub reason: Option<String>,
    /// The classifier is away; it makes no sense to ask it before then.
    pub away_until: Option<Timestamp>,
}

/// What all calls about one job have come to.
#[derive(Default)]
struct Answers {
    verdict: Verdict,
    model: String,
    fingerprint: String,
    unusable: Option<String>,
}

impl Pipeline {
    /// Judges what is waiting, newest first, until nothing is or `until` has come; what is under way then is given up and
    /// waits for the next run.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn judge(&self, until: Timestamp) -> Result<JudgeReport, PipelineError> {
        let mut report = JudgeReport::default();
        let Some(classifier) = &self.classifier else { return Ok(report) };
        let mut nonsense = 0;
        loop {
            if self.env.now() >= until {
                return Ok(report);
            }
            let query = Query { jobs: Jobs::Open { limit: LOOK_AT }, ..Query::default() };
            let snapshot = self.ledger.read(&query).await.map_err(PipelineError::Ledger)?;
            let leased = until.plus(SETTLING);
            match judge::next(&self.policy, &snapshot, self.process, leased, self.env.now()) {
                Next::Nothing { writes, .. } => {
                    let _ = self.commit(writes).await?;
                    return Ok(report);
                }
                Next::Work { writes, jobs } => {
                    let oldest = snapshot.jobs.iter().map(|job| job.row.created).min().unwrap_or(self.env.now());
                    if self.commit(writes).await? == Committed::Done
                        && !self.work_at(classifier, &jobs, oldest, until, &mut nonsense, &mut report).await?
                    {
                        return Ok(report);
                    }
                }
            }
        }
    }

    /// Works at jobs of one source and profile, as one. `false` when the classifier is away, so that trying the next ones
    /// makes no sense. Of all that wait the oldest waits since `oldest`.
    async fn work_at(
        &self,
        classifier: &Arc<dyn Classifier>,
        jobs: &[Versioned<Job>],
        oldest: Timestamp,
        until: Timestamp,
        nonsense: &mut u32,
        report: &mut JudgeReport,
    ) -> Result<bool, PipelineError> {
        let (segment, gone) = self.segments_of(jobs).await?;
        if !gone.is_empty() {
            let judged = Judged::DetectorsOnly {
                reason: "its segment is no longer kept".to_owned(),
                findings: Vec::new(),
                benign: Vec::new(),
                summary: None,
            };
            self.settle_jobs(&gone, &judged, &[]).await?;
        }
        let is_gone = |job: &Versioned<Job>| gone.iter().any(|gone| gone.row.segment == job.row.segment);
        let jobs: Vec<_> = jobs.iter().filter(|job| !is_gone(job)).cloned().collect();
        let (Some(segment), Some(job)) = (segment, jobs.first()) else { return Ok(true) };
        let keys: Vec<Key> = segment.findings.iter().flat_map(Grounded::keys).collect();
        let answer = {
            let work = self.ask(classifier, job, &segment, nonsense, report).fuse();
            let late = self.env.sleep_until(until).fuse();
            pin_mut!(work, late);
            select_biased! {
                answer = work => answer?,
                () = late => Err(ClassifyError::Resting {
                    until: self.env.now(),
                    reason: "the time for this pass is up".to_owned(),
                }),
            }
        };
        let now = self.env.now();
        let (judged, go_on) = match answer {
            Ok(answers) => (self.judged(job, &segment, answers, report, now), true),
            Err(ClassifyError::Resting { until: again, .. }) if now >= until => (Judged::Later { at: again }, false),
            Err(ClassifyError::Resting { reason, .. }) => (self.plain(job, &segment, reason, now), true),
            Err(error @ ClassifyError::Misconfigured { .. }) => {
                let mut told = chain(&error);
                if let ClassifyError::Misconfigured { reason, hint } = &error {
                    told.extend(hint.iter().map(|hint| format!(" (hint: {hint})")));
                    let hint = hint.clone().unwrap_or_else(|| format!("Run `{} doctor`.", self.policy.program));
                    self.report_trouble(&[Trouble::ModelUnusable { reason: reason.clone(), hint }]).await?;
                }
                (self.plain(job, &segment, told, now), true)
            }
            Err(ref error @ ClassifyError::Unavailable { retry_after, ref origin, .. }) => {
                let reason = chain(error);
                if now.since(oldest) >= AWAY {
                    let trouble = Trouble::ModelAway { origin: origin.clone(), reason: reason.clone(), since: oldest };
                    self.report_trouble(&[trouble]).await?;
                }
                report.reason = Some(reason);
                let at = now.plus(retry_after.unwrap_or(RETRY));
                report.away_until = Some(at);
                (Judged::Later { at }, false)
            }
            Err(error) => {
                let reason = chain(&error);
                (Judged::Failed { at: now.plus(RETRY), reason }, true)
            }
        };
        match &judged {
            Judged::Analysed { findings, .. } => {
                report.analysed += jobs.len() as u64;
                report.findings += findings.len() as u64;
            }
            Judged::DetectorsOnly { reason, .. } => {
                report.detectors_only += jobs.len() as u64;
                report.reason = Some(reason.clone());
            }
            Judged::Later { .. } | Judged::Failed { .. } => report.waiting += jobs.len() as u64,
        }
        self.settle_jobs(&jobs, &judged, &keys).await?;
        Ok(go_on)
    }

    /// The segments of jobs as one, and the jobs whose segment is no longer kept.
    async fn segments_of(
        &self,
        jobs: &[Versioned<Job>],
    ) -> Result<(Option<Segment>, Vec<Versioned<Job>>), PipelineError> {
        let (mut together, mut gone) = (Together::default(), Vec::new());
        // Oldest first, and few at a time: only the whole is in memory.
        for job in jobs.iter().rev() {
            let query = Query { segments: vec![job.row.segment], ..Query::default() };
            let snapshot = self.ledger.read(&query).await.map_err(PipelineError::Ledger)?;
            match snapshot.segments.into_iter().next() {
                Some(segment) => together.add(Arc::unwrap_or_clone(segment)),
                None => gone.push(job.clone()),
            }
        }
        Ok((together.finish(), gone))
    }

    async fn settle_jobs(
        &self,
        jobs: &[Versioned<Job>],
        judged: &Judged,
        segment: &[Key],
    ) -> Result<(), PipelineError> {
        let mut keys = segment.to_vec();
        if let Judged::Analysed { findings, .. } | Judged::DetectorsOnly { findings, .. } = judged {
            keys.extend(findings.iter().flat_map(Grounded::keys));
        }
        keys.sort_unstable();
        keys.dedup();
        let Some(source) = jobs.first().map(|job| &job.row.source) else { return Ok(()) };
        let of = jobs.iter().map(|job| job.row.segment).collect();
        let query = Query { jobs: Jobs::Of(of), ..judge::query(source, keys) };
        self.decide(&query, |snapshot| {
            // Who took one of them over meanwhile settles it; what was judged with it is judged again.
            let is_ours = |job: &Versioned<Job>| {
                let same = |known: &&Versioned<Job>| {
                    (known.row.segment, &known.row.profile) == (job.row.segment, &job.row.profile)
                };
                snapshot.jobs.iter().find(same).is_some_and(|known| known.version == job.version)
            };
            let ours = jobs.iter().all(is_ours);
            ours.then(|| (judge::settle(&self.policy, snapshot, jobs, judged, segment, self.env.now()), ()))
        })
        .await
        .map(|_| ())
    }

    /// Asks about all open rows of a segment, in as many calls as it takes.
    async fn ask(
        &self,
        classifier: &Arc<dyn Classifier>,
        job: &Versioned<Job>,
        segment: &Segment,
        nonsense: &mut u32,
        report: &mut JudgeReport,
    ) -> Result<Result<Answers, ClassifyError>, PipelineError> {
        let Some(profile) = self.profiles.get(&job.row.profile).cloned() else {
            let reason = format!("the profile `{}` does not exist any more", job.row.profile);
            return Ok(Err(ClassifyError::Misconfigured { reason, hint: None }));
        };
        let rows = self.rows_of(job, segment);
        classifier.prepare().await;
        let fingerprint = classifier.fingerprint();
        let leaves = rows.iter().map(|number| segment.rows[*number as usize].row.leaf).collect();
        let query =
            Query { verdicts: Some((job.row.profile.clone(), fingerprint.clone(), leaves)), ..Query::default() };
        let known = self.ledger.read(&query).await.map_err(PipelineError::Ledger)?;
        let benign: HashSet<_> = known.verdicts.iter().map(|verdict| verdict.leaf).collect();
        let floors = Floors::new(&segment.tenant, &segment.findings);
        let material = Material {
            profile: &profile,
            rows: &segment.rows,
            of_profile: &rows,
            signals: &segment.signals,
            floors: &floors,
            benign: &benign,
        };
        let mut waiting = plan::plan(&material, classifier.capacity()).digests;
        for row in waiting.iter_mut().flat_map(|digest| &mut digest.rows) {
            // It may have been kept before a pattern was added.
            self.redactor.redact_segment_row(Arc::make_mut(&mut row.row));
        }
        waiting.reverse();
        let mut answers = Answers { fingerprint, ..Answers::default() };
        while let Some(digest) = waiting.pop() {
            match classifier.classify(&digest).await {
                Ok(judgement) => {
                    *nonsense = 0;
                    answers.take(&digest, judgement, report);
                }
                Err(error @ (ClassifyError::TooLarge { .. } | ClassifyError::Unusable { .. })) => {
                    report.calls += 1;
                    *nonsense += u32::from(matches!(error, ClassifyError::Unusable { .. }));
                    match digest.split() {
                        _ if *nonsense >= MAX_NONSENSE => {
                            answers.unusable = Some(format!("{}; {nonsense} times in a row", chain(&error)));
                            waiting.clear();
                        }
                        Some((worse, rest)) => waiting.extend([rest, worse]),
                        // A single row that the model cannot cope with: the detectors have looked at it.
                        None => answers.unusable = Some(chain(&error)),
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(answers))
    }

    /// The rows of a segment that belong to a job's profile.
    fn rows_of(&self, job: &Versioned<Job>, segment: &Segment) -> Vec<u32> {
        let slot = self.sources.iter().find(|slot| *slot.source.id() == segment.source);
        let queries = slot.map(|slot| slot.source.queries()).unwrap_or_default();
        let wanted = |row: &crate::segment::SegmentRow| {
            queries.is_empty() || super::ingest::profiles_of(queries, row.row.tags).contains(&job.row.profile)
        };
        (0_u32..).zip(&segment.rows).filter(|(_, row)| wanted(row)).map(|(number, _)| number).collect()
    }

    fn judged(
        &self,
        job: &Versioned<Job>,
        segment: &Segment,
        answers: Answers,
        report: &mut JudgeReport,
        now: Timestamp,
    ) -> Judged {
        let Answers { verdict, model, fingerprint, unusable } = answers;
        let floors = Floors::new(&segment.tenant, &segment.findings);
        let grounding = grounding::ground(verdict.findings, &segment.rows, &segment.tenant, &floors);
        report.refused += u64::from(grounding.refused);
        let until = now.plus(self.limits.verdicts_last);
        let cited: HashSet<_> =
            grounding.findings.iter().flat_map(|finding| &finding.cited).filter_map(|cited| cited.leaf).collect();
        let signalled: HashSet<u32> = segment.signals.iter().flat_map(|signal| &signal.rows).copied().collect();
        let benign = verdict.judged.iter().filter(|number| !signalled.contains(number));
        let benign = benign.filter_map(|number| segment.rows.get(*number as usize)).map(|row| row.row.leaf);
        let benign = benign.filter(|leaf| !cited.contains(leaf)).map(|leaf| BenignVerdict {
            leaf,
            profile: job.row.profile.clone(),
            fingerprint: fingerprint.clone(),
            until,
        });
        let benign: Vec<_> = benign.collect();
        let mut summary = self.plain_summary(segment, &job.row.profile, now);
        if !verdict.summary.is_empty() {
            summary = Summary { text: verdict.summary, model: Some(model), ..summary };
        }
        summary.severity = summary.severity.max(verdict.severity);
        let (findings, summary) = (grounding.findings, Some(summary));
        match unusable {
            None => Judged::Analysed { findings, benign, summary },
            Some(reason) => Judged::DetectorsOnly { reason, findings, benign, summary },
        }
    }

    fn plain(&self, job: &Versioned<Job>, segment: &Segment, reason: String, now: Timestamp) -> Judged {
        let summary = Some(self.plain_summary(segment, &job.row.profile, now));
        Judged::DetectorsOnly { reason, findings: Vec::new(), benign: Vec::new(), summary }
    }
}

impl Answers {
    fn take(&mut self, digest: &Digest, judgement: Judgement, report: &mut JudgeReport) {
        let Judgement { verdict, usage } = judgement;
        report.calls += u64::from(usage.calls);
        report.tokens += usage.prompt_tokens + usage.answer_tokens;
        report.refused += u64::from(usage.refused);
        report.model.clone_from(&usage.model);
        self.model = usage.model;
        self.verdict.absorb(digest.in_segment(verdict));
    }
}
