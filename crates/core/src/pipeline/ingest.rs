//! Ingest: reads lines after a cursor, folds them, runs the detectors, redacts what is kept, and commits it all at once.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use logwarden_detectors::{Detection, Learned, Memory, Read, detect_lines};
use logwarden_templates::{Carry, Delta, End, FoldOptions, LeafId, Miner, NewLeaf, Sample, State, neighbours};

use super::{Pipeline, PipelineError, SourceSlot, own::Trouble};
use crate::{
    Line, ProfileName, Timestamp,
    decide::ingest::{self, Ingested, Ownership},
    detectors_only,
    error::chain,
    grounding::{self, Floors},
    ledger::{LedgerError, Query, Segment, SegmentId, Snapshot, Summary, Write},
    plain,
    segment::SegmentRow,
    source::{Budget, Cursor, Page, Problem, ProblemKind, Seen, Shortened, SourceId},
    tripwire,
};

/// Whoever pushes is not missed for a shorter pause in which nobody listened.
const PAUSE: Duration = Duration::from_secs(120);

/// A source has so long to answer, however late it is.
const LEAST_READ: Duration = Duration::from_secs(30);

/// Reads in a row that must fail before it is told.
const TELL_AFTER: u32 = 2;

/// Labels that an incident keeps, and characters of each.
const MOST_LABELS: usize = 20;
const LABEL_CHARS: usize = 120;

/// What the owner of a source keeps in memory between commits.
pub(super) struct Cache {
    pub(super) epoch: u64,
    pub(super) cursor: Option<Cursor>,
    pub(super) carry: Carry,
    pub(super) miner: Miner,
    pub(super) memory: Memory,
    pub(super) seen: Seen,
    /// Since when it could not be read.
    pub(super) failing_since: Option<Timestamp>,
}

impl Cache {
    /// How long, until this page, nobody could be heard who wants to be: the source itself was down; or we were, and what
    /// is pushed to nobody is kept by whoever has it, for a while; or lines of that time are lost.
    fn unheard(&self, page: &Page, now: Timestamp) -> Duration {
        let lost = |problem: &Problem| matches!(problem.kind, ProblemKind::Gap { lines } if lines != Some(0));
        let since = |at: Option<Timestamp>| at.map_or(Duration::ZERO, |at| now.since(at));
        let failing = since(self.failing_since);
        let absent = since(self.memory.source().read_to.or(self.memory.source().last));
        match page.problems.iter().any(lost) || page.pushed && absent > PAUSE {
            true => absent.max(failing),
            false => failing,
        }
    }
}

/// Whether all parts of a source could be read.
fn is_whole(page: &Page) -> bool {
    page.problems.iter().all(|problem| problem.kind != ProblemKind::Retry)
}

/// What one ingest did with a source.
#[derive(Debug)]
pub struct IngestReport {
    /// Which source.
    pub source: SourceId,
    /// How it ended.
    pub outcome: SourceOutcome,
    /// Lines brought by each query.
    pub per_query: Vec<(String, u64)>,
    /// Physical lines read.
    pub read: u64,
    /// Of them: our own program's, left out.
    pub own: u64,
    /// Pairs of line and query that were known.
    pub duplicates: u64,
    /// Lines that came late.
    pub late: u64,
    /// Templates that were new; not those that came about because known ones generalised.
    pub new_templates: u64,
    /// Templates that memory knows now.
    pub templates: u64,
    /// Incidents that began.
    pub opened: u64,
    /// Findings that belong to an open incident.
    pub joined: u64,
    /// What could not be read, in words for people.
    pub problems: Vec<String>,
    /// Whether some of it cannot be read by the next run, either: it is gone, or waits for somebody to act.
    pub lasting: bool,
    /// Lines that were read, but not in full.
    pub shortened: Vec<Shortened>,
    /// What was left out because it is no log, in words for people.
    pub skipped: Vec<String>,
}

/// How an ingest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceOutcome {
    /// Everything there was is read.
    Done,
    /// The time was up; the rest waits.
    OutOfTime,
    /// Another process reads this source.
    Busy {
        /// Until when, unless it goes on.
        until: Timestamp,
    },
    /// The source could not be read.
    Failed {
        /// Why.
        reason: String,
        /// What to do, where known.
        hint: Option<String>,
    },
    /// No more will ever come.
    Finished,
}

impl IngestReport {
    fn new(source: SourceId) -> Self {
        Self {
            source,
            outcome: SourceOutcome::Done,
            per_query: Vec::new(),
            read: 0,
            own: 0,
            duplicates: 0,
            late: 0,
            new_templates: 0,
            templates: 0,
            opened: 0,
            joined: 0,
            problems: Vec::new(),
            lasting: false,
            shortened: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Whether something could not be read.
    pub fn is_incomplete(&self) -> bool {
        matches!(self.outcome, SourceOutcome::Failed { .. }) || !self.problems.is_empty()
    }
}

impl Pipeline {
    /// Reads all there is of the source with that number, page by page, until `deadline`. A page that takes longer is given
    /// up, and nothing of it is lost.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used; that a source cannot be read is in the report.
    ///
    /// # Panics
    ///
    /// When there is no such source.
    pub async fn ingest(&self, number: usize, deadline: Timestamp) -> Result<IngestReport, PipelineError> {
        let slot = &self.sources[number];
        let mut report = IngestReport::new(slot.source.id().clone());
        report.per_query = slot.source.queries().iter().map(|query| (query.text.clone(), 0)).collect();
        let mut cache = slot.cache.lock().await;
        let mut any = false;
        loop {
            match self.own_source(slot, &mut cache).await? {
                Ok(()) => {}
                Err(until) => {
                    report.outcome = SourceOutcome::Busy { until };
                    return Ok(report);
                }
            }
            let Some(known) = cache.as_mut() else { return Ok(report) };
            let now = self.env.now();
            let budget = Budget { lines: self.limits.lines, bytes: self.limits.bytes, now };
            // Whoever comes last has some time, too.
            let until = deadline.max(now.plus(LEAST_READ));
            let page = match self.before(until, slot.source.read(known.cursor.as_ref(), &known.seen, budget)).await {
                Some(Ok(page)) => page,
                None if any => {
                    report.outcome = SourceOutcome::OutOfTime;
                    return Ok(report);
                }
                None => {
                    let reason = "the source did not answer in the time that there was".to_owned();
                    self.note_failure(slot, &reason).await?;
                    report.outcome = SourceOutcome::Failed { reason, hint: None };
                    return Ok(report);
                }
                Some(Err(error)) => {
                    self.note_failure(slot, &chain(&error)).await?;
                    let hint = error.hint().map(str::to_owned);
                    report.lasting = !error.is_transient();
                    report.outcome = SourceOutcome::Failed { reason: chain(&error), hint };
                    return Ok(report);
                }
            };
            let (more, finished) = (page.more, page.finished);
            let taken = match self.take_page(slot, known, page, &mut report).await {
                // Nothing was taken and nothing is lost; what is known is still told.
                Err(PipelineError::Ledger(error @ LedgerError::Full { .. })) => {
                    *cache = None;
                    // There may be no room for that, either.
                    if let Err(error) = self.note_failure(slot, &chain(&error)).await {
                        tracing::warn!(error = %chain(&error), "could not note that a source was not read");
                    }
                    let hint = Some("free some space there; what was not read yet waits where it is".to_owned());
                    report.outcome = SourceOutcome::Failed { reason: chain(&error), hint };
                    return Ok(report);
                }
                taken => taken?,
            };
            if !taken {
                // Somebody else owns it now, or the commit's fate is unknown: begin again from what is committed.
                *cache = None;
                continue;
            }
            any = true;
            if finished {
                report.outcome = SourceOutcome::Finished;
                return Ok(report);
            }
            if !more {
                return Ok(report);
            }
            if self.env.now() >= deadline {
                report.outcome = SourceOutcome::OutOfTime;
                return Ok(report);
            }
        }
    }

    /// Makes sure that the source is ours and its cache is what is committed. `Err` with the time until which another
    /// process has it.
    pub(super) async fn own_source(
        &self,
        slot: &SourceSlot,
        cache: &mut Option<Cache>,
    ) -> Result<Result<(), Timestamp>, PipelineError> {
        let id = slot.source.id();
        let query = Query { source: Some(id.clone()), ..Query::default() };
        let owned = self
            .decide(&query, |snapshot| {
                match ingest::own(snapshot, id, self.process, self.limits.own_for, self.env.now()) {
                    Ownership::Ours { writes, epoch } => {
                        let known = snapshot.source.as_ref().map(|source| &source.row);
                        let cursor = known.and_then(|known| known.cursor.clone());
                        let failing_since = known.and_then(|known| known.failing).map(|(_, since)| since);
                        Some((writes, Ok((epoch, cursor, failing_since))))
                    }
                    Ownership::Theirs { until, .. } => Some((Vec::new(), Err(until))),
                }
            })
            .await?;
        let (epoch, cursor, failing_since) = match owned {
            Some(Ok(owned)) => owned,
            Some(Err(until)) => return Ok(Err(until)),
            None => return Ok(Err(self.env.now())),
        };
        if cache.as_ref().is_none_or(|cache| cache.epoch != epoch || cache.cursor != cursor) {
            *cache = Some(self.load(id, epoch).await?);
        }
        if let Some(cache) = cache {
            cache.failing_since = failing_since;
        }
        Ok(Ok(()))
    }

    async fn load(&self, id: &SourceId, epoch: u64) -> Result<Cache, PipelineError> {
        let all = Query { source: Some(id.clone()), leaves: true, memory: true, seen: true, ..Query::default() };
        let snapshot = self.ledger.read(&all).await.map_err(PipelineError::Ledger)?;
        let state = State { version: State::VERSION, leaves: snapshot.leaves, gone: snapshot.gone };
        let secret = snapshot.installation.as_ref().map_or(0, |installation| installation.row.secret);
        let config = logwarden_templates::Config { secret, ..self.miner.clone() };
        let miner = Miner::restore(config.clone(), state).unwrap_or_else(|_| Miner::new(config));
        let source = snapshot.source.map(|source| source.row);
        Ok(Cache {
            epoch,
            cursor: source.as_ref().and_then(|source| source.cursor.clone()),
            carry: source.map(|source| source.carry).unwrap_or_default(),
            miner,
            memory: Memory::new(snapshot.memory_source, snapshot.memory),
            seen: snapshot.seen,
            failing_since: None,
        })
    }

    /// Folds, detects and commits a page. `false` when the commit was refused because the source is no longer ours.
    async fn take_page(
        &self,
        slot: &SourceSlot,
        cache: &mut Cache,
        page: Page,
        report: &mut IngestReport,
    ) -> Result<bool, PipelineError> {
        let id = slot.source.id();
        let now = self.env.now();
        if let Some(trail) = &self.trail {
            for line in &page.lines {
                trail.received(&id.0, line.time, &self.redactor.redact(&String::from_utf8_lossy(&line.text)));
            }
        }
        let folded_to = page.horizon.map(|horizon| horizon.minus(self.limits.settle));
        let end = match page.settled {
            _ if page.finished => End::Closed,
            Some(settled) => End::Open(settled),
            None => End::Open(folded_to.unwrap_or(now.minus(self.limits.settle))),
        };
        let carry = cache.carry.clone();
        let records = page.lines.iter().map(Line::record);
        let mut delta = cache.miner.fold(carry, records, FoldOptions { end, assign: true });
        let lines: Vec<_> = page.lines.iter().map(|line| (line.time, &line.text[..])).collect();
        let read = Read { now, whole_to: folded_to.filter(|_| is_whole(&page)), unheard: cache.unheard(&page, now) };
        let detection = detect_lines(&mut delta, &lines, &cache.memory, &self.rules, &self.settings, read);
        let (segment, jobs) = self.segment(slot, &page.lines, &delta, &detection, now);

        let mut counters = vec![
            ("lines_read".to_owned(), delta.counts.read),
            ("lines_own".to_owned(), delta.counts.own),
            ("lines_kept".to_owned(), delta.counts.kept),
            ("lines_duplicate".to_owned(), page.duplicates),
            ("lines_late".to_owned(), page.late),
            ("templates_evicted".to_owned(), delta.counts.evicted),
            ("lines_coarse".to_owned(), delta.counts.coarse),
            ("lines_crowded".to_owned(), delta.counts.crowded),
            ("lines_absorbed".to_owned(), delta.counts.absorbed),
            ("templates_unpaired".to_owned(), delta.counts.unpaired),
            ("rows_thinned".to_owned(), delta.counts.thinned),
            ("lines_middle".to_owned(), delta.counts.middle),
            ("lines_shortened".to_owned(), page.shortened.iter().map(|shortened| shortened.lines).sum()),
        ];
        let mut writes_without_model = Vec::new();
        let mut waiting = Vec::new();
        for (profile, lines) in &jobs {
            counters.push((format!("lines_kept.{profile}"), *lines));
            if self.classifier.is_some() {
                waiting.push((profile.clone(), *lines));
            } else {
                counters.push((format!("lines_detectors_only.{profile}"), *lines));
                writes_without_model
                    .extend(segment.as_ref().map(|segment| Write::Summary(self.plain_summary(segment, profile, now))));
            }
        }
        let ingested = Ingested {
            process: self.process,
            epoch: cache.epoch,
            cursor: cache.cursor.clone(),
            next: Some(page.next.clone()),
            complete: !page.more && page.problems.iter().all(|problem| problem.kind != ProblemKind::Retry),
            carry: self.redacted_carry(&delta.carry),
            // Pushed batches are known by their id; their spool rows go with this commit.
            seen: match page.spool.is_empty() && !page.exact {
                true => page.lines.iter().map(|line| (line.time, line.id, line.tags)).collect(),
                false => Vec::new(),
            },
            leaves: self.redacted_leaves(&delta),
            evicted: delta.evicted.clone(),
            used: delta.rows.iter().map(|row| row.leaf).collect(),
            moves: delta.moves.clone(),
            learned: self.redacted_memory(&detection.learned),
            segment,
            jobs: waiting,
            spool: page.spool.clone(),
            counters,
        };
        let open = match ingest::concerned(&ingested) {
            Some(query) => self.ledger.read(&query).await.map_err(PipelineError::Ledger)?,
            None => Snapshot::default(),
        };
        let query = ingest::query(id, &ingested, &open);
        let decided = self
            .decide(&query, |snapshot| {
                let decided = ingest::decide(&self.policy, snapshot, id, &ingested, &query.keys, self.env.now())?;
                let mut writes = decided.writes;
                writes.extend(writes_without_model.iter().cloned());
                Some((writes, (decided.opened, decided.joined)))
            })
            .await?;
        let Some((opened, joined)) = decided else { return Ok(false) };

        for (time, line, queries) in &ingested.seen {
            cache.seen.insert(*time, *line, *queries);
        }
        if let Some(newest) = cache.seen.minutes().last() {
            cache.seen.forget_before(newest - 75, newest - 24 * 60);
        }
        // As the ledger has them: memory is the same before and after a restart.
        delta.new.clone_from(&ingested.leaves);
        cache.miner.apply(&delta);
        cache.memory.apply(&ingested.learned);
        cache.cursor = ingested.next;
        cache.carry = ingested.carry;

        report.read += delta.counts.read;
        report.own += delta.counts.own;
        report.duplicates += page.duplicates;
        report.late += page.late;
        let own_root = |leaf: &&NewLeaf| cache.miner.root_of(leaf.leaf) == Some(leaf.leaf.as_root());
        report.new_templates += ingested.leaves.iter().filter(own_root).count() as u64;
        report.templates = cache.miner.templates() as u64;
        report.opened += opened;
        report.joined += joined;
        for ((_, count), brought) in report.per_query.iter_mut().zip(&page.per_query) {
            *count += brought;
        }
        self.note_problems(&page, report).await?;
        Ok(true)
    }

    /// What is kept of a fold, redacted, and the lines per profile.
    fn segment(
        &self,
        slot: &SourceSlot,
        lines: &[Line],
        delta: &Delta,
        detection: &Detection,
        now: Timestamp,
    ) -> (Option<Segment>, Vec<(ProfileName, u64)>) {
        let times = (delta.rows.iter().map(|row| row.first).min(), delta.rows.iter().map(|row| row.last).max());
        let (from, to) = match times {
            (Some(from), Some(to)) => (from, to),
            // That nothing comes can be a finding, too.
            _ if !detection.findings.is_empty() => (now, now),
            _ => return (None, Vec::new()),
        };
        let queries = slot.source.queries();
        let mut signalled = vec![false; delta.rows.len()];
        let of_findings = detection.findings.iter().flat_map(|finding| &finding.rows);
        for row in detection.signals.iter().flat_map(|signal| &signal.rows).chain(of_findings) {
            if let Some(flag) = signalled.get_mut(*row as usize) {
                *flag = true;
            }
        }
        let mut per_profile: BTreeMap<ProfileName, u64> = BTreeMap::new();
        let mut rows = Vec::with_capacity(delta.rows.len());
        for (row, signalled) in delta.rows.iter().zip(signalled) {
            for profile in profiles_of(queries, row.tags) {
                *per_profile.entry(profile).or_default() += row.lines;
            }
            let mut row = row.clone();
            self.redactor.redact_row(&mut row);
            let around = self.limits.around;
            let around = row.first_line.filter(|_| signalled).map(|at| neighbours(lines, at as usize, around, around));
            let (before, after) = around.unwrap_or_default();
            let sample =
                |line: &Line| Sample { time: line.time, text: self.redactor.redact_bytes(&line.text).into_owned() };
            let before = before.into_iter().map(sample).collect();
            let after = after.into_iter().map(sample).collect();
            rows.push(Arc::new(SegmentRow { row, before, after }));
        }
        let mut claims = detection.findings.clone();
        claims.extend(tripwire::findings(&rows));
        for claim in &mut claims {
            self.redactor.redact_finding(claim);
        }
        let mut findings = grounding::ground(claims, &rows, &self.tenant, &Floors::default());
        for finding in &mut findings.findings {
            // What is cited first may be a subject that has no row of its own.
            let row = finding.cited.iter().find_map(|cited| rows.iter().find(|row| Some(row.row.leaf) == cited.leaf));
            let first_line = row.and_then(|row| lines.get(row.row.first_line? as usize));
            finding.labels = first_line.map(|line| self.labels(line.stream.labels())).unwrap_or_default();
            let query = row.and_then(|row| queries.get(row.row.tags.trailing_zeros() as usize));
            finding.query = query.map(|query| query.text.clone());
        }
        let segment = Segment {
            id: SegmentId(self.random128()),
            source: slot.source.id().clone(),
            tenant: self.tenant.clone(),
            at: now,
            from,
            to,
            counts: delta.counts,
            rows,
            signals: detection.signals.clone(),
            findings: findings.findings,
        };
        (Some(segment), per_profile.into_iter().collect())
    }

    /// The labels of a stream, as mutes may name them.
    fn labels(&self, of: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let short = |text: &str| plain::head(text, LABEL_CHARS);
        let some = of.iter().take(MOST_LABELS);
        some.map(|(name, value)| (short(name), short(&self.redactor.redact(value)))).collect()
    }

    /// The new leaves that stay, as the ledger keeps them.
    pub(super) fn redacted_leaves(&self, delta: &Delta) -> Vec<NewLeaf> {
        let evicted: HashSet<LeafId> = delta.evicted.iter().copied().collect();
        let stay = delta.new.iter().filter(|leaf| !evicted.contains(&leaf.leaf));
        let redacted = |leaf: &NewLeaf| NewLeaf {
            text: self.redactor.redact(&leaf.text).into(),
            example: self.redactor.redact_bytes(&leaf.example).into_owned(),
            ..leaf.clone()
        };
        stay.map(redacted).collect()
    }

    /// Open events as the ledger keeps them: foldable still, since a placeholder is text like any other.
    pub(super) fn redacted_carry(&self, carry: &Carry) -> Carry {
        let mut carry = carry.clone();
        for event in &mut carry.open {
            if let Cow::Owned(text) = self.redactor.redact_bytes(&event.text) {
                event.text = text;
            }
        }
        carry
    }

    /// What was learned, as the ledger keeps it.
    pub(super) fn redacted_memory(&self, learned: &Learned) -> Learned {
        let mut learned = learned.clone();
        for (_, row) in &mut learned.rows {
            if let Cow::Owned(text) = self.redactor.redact(&row.template) {
                row.template = text.into();
            }
        }
        learned
    }

    /// A summary in our own words, from the detectors' counts.
    pub(super) fn plain_summary(&self, segment: &Segment, profile: &ProfileName, now: Timestamp) -> Summary {
        let rows = segment.rows.iter().map(|row| &**row);
        let (text, severity) = detectors_only::summarise(rows, &segment.findings);
        Summary {
            segment: segment.id,
            profile: profile.clone(),
            at: now,
            from: segment.from,
            to: segment.to,
            lines: segment.counts.kept,
            severity,
            text,
            model: None,
        }
    }

    async fn note_failure(&self, slot: &SourceSlot, reason: &str) -> Result<(), PipelineError> {
        let id = slot.source.id();
        let query = Query { source: Some(id.clone()), ..Query::default() };
        let times = self.decide(&query, |snapshot| Some(ingest::failed(snapshot, id, self.env.now()))).await?;
        match times {
            Some(times) if times >= TELL_AFTER => {
                let trouble = Trouble::SourceUnreadable { source: id.to_string(), reason: reason.to_owned(), times };
                self.report_trouble(&[trouble]).await
            }
            _ => Ok(()),
        }
    }

    async fn note_problems(&self, page: &Page, report: &mut IngestReport) -> Result<(), PipelineError> {
        let mut troubles = Vec::new();
        for problem in &page.problems {
            let reason = chain(&problem.error);
            // Most errors about a file name it.
            let subject = match reason.contains(&problem.subject) {
                true => String::new(),
                false => format!("{}: ", problem.subject),
            };
            let hint = problem.error.hint().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
            let text = format!("{subject}{reason}{hint}");
            let texts = match problem.kind {
                ProblemKind::Skipped => &mut report.skipped,
                _ => &mut report.problems,
            };
            if !texts.contains(&text) {
                texts.push(text);
            }
            report.lasting |= problem.kind != ProblemKind::Skipped
                && (problem.kind != ProblemKind::Retry || !problem.error.is_transient());
            match problem.kind {
                ProblemKind::Gap { .. } => {
                    troubles.push(Trouble::LinesMissing { subject: problem.subject.clone(), reason });
                }
                ProblemKind::Quarantined { .. } => {
                    troubles.push(Trouble::Unreadable { sender: problem.subject.clone(), reason });
                }
                // A query that can never work is told at once, others after a second failure.
                ProblemKind::Retry if !problem.error.is_transient() => {
                    troubles.push(Trouble::SourceUnreadable { source: problem.subject.clone(), reason, times: 1 })
                }
                ProblemKind::Retry | ProblemKind::Skipped => {}
            }
        }
        for shortened in &page.shortened {
            Shortened::add(&mut report.shortened, shortened.clone());
        }
        self.report_trouble(&troubles).await
    }
}

/// The profiles that a row is judged under: those of the queries that brought it; all of the source's when that is not
/// known (the row began in a fold before).
pub(super) fn profiles_of(queries: &[crate::source::QueryInfo], tags: u64) -> Vec<ProfileName> {
    let brought = |number: usize| tags == 0 || tags & (1 << number.min(63)) != 0;
    let named =
        queries.iter().enumerate().filter(|(number, _)| brought(*number)).flat_map(|(_, query)| &query.profiles);
    let mut profiles: Vec<_> = named.cloned().collect();
    profiles.sort();
    profiles.dedup();
    profiles
}
