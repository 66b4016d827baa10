//! Backfill: builds the memory of normal from the time before the first read, without alerting.
//!
//! The past is read into a source of its own beside the real one, page by page, each with its cursor in one commit: a
//! crash loses at most a page of work, and another run goes on. Nothing is claimed about it, so no incident and no message
//! can come of it. When all is read, one commit puts its memory before that of the real source, which it does not touch
//! otherwise: its cursor stays where it is, and whoever reads it meanwhile goes on.
//!
//! Only what the real source has not read is learned, and only once: counts never double.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::lock::Mutex;
use logwarden_detectors::{Learned, Memory, Settings, detect};
use logwarden_templates::{Delta, End, FoldOptions, Miner, Move, RootId, State};
use serde::{Deserialize, Serialize};

use super::{Pipeline, PipelineError, SourceSlot, ingest::Cache};
use crate::{
    Timestamp,
    decide::ingest::{self, Ingested},
    error::chain,
    ledger::{Query, Snapshot, Versioned, Write},
    source::{Budget, LogSource, SourceId},
};

/// How long to wait for the process that reads the real source, each time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The time that is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// From then.
    pub from: Timestamp,
    /// Until then: what comes after was or will be read as usual.
    pub to: Timestamp,
    /// Whether all of it has been learned.
    pub done: bool,
}

/// How far a backfill came.
#[derive(Clone, Debug, Default)]
pub struct Backfill {
    /// Lines read by this run.
    pub lines: u64,
    /// Templates that the memory has.
    pub templates: u64,
    /// Everything before is learned.
    pub reached: Option<Timestamp>,
    /// What could not be read, in words for people.
    pub problems: Vec<String>,
}

/// How a run of a backfill ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackfillEnd {
    /// All is learned.
    Done,
    /// Another backfill is under way.
    Busy,
    /// Another process reads the real source and does not let go: what was learned waits for the next run.
    Occupied,
    /// The past could not be read.
    Failed {
        /// Why.
        reason: String,
        /// What to do, where known.
        hint: Option<String>,
    },
}

impl Pipeline {
    /// The source beside the real one that the past is read into.
    pub fn past_of(source: &SourceId) -> SourceId {
        SourceId(format!("past of {source}"))
    }

    /// Which time a backfill of a source is to learn: that of an unfinished or finished one, else `since` until what the
    /// source has read, or would read first (`first_read` before now).
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn past(&self, source: &SourceId, since: Duration, first_read: Duration) -> Result<Past, PipelineError> {
        let now = self.env.now();
        let query =
            Query { source: Some(source.clone()), memory: true, values: vec![name(source)], ..Query::default() };
        let past = self
            .decide(&query, |snapshot| {
                if let Some(known) = known(snapshot, source) {
                    return Some((Vec::new(), known.row));
                }
                let first = snapshot.memory_source.first.unwrap_or(Timestamp::MAX);
                let to = first.min(now.minus(first_read));
                let past = Past { from: now.minus(since).min(to), to, done: false };
                Some((note(source, 0, &past), past))
            })
            .await?;
        Ok(past.unwrap_or(Past { from: now, to: now, done: true }))
    }

    /// Learns `past` of the source with the id `source` by reading `reader`, whose id is [`Pipeline::past_of`] it and
    /// which begins at `past.from`. `progress` is told after each page. Dropping the future loses at most a page of work.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn backfill(
        &self,
        source: &SourceId,
        reader: Arc<dyn LogSource>,
        past: Past,
        patience: Duration,
        progress: &(dyn Fn(&Backfill) + Send + Sync),
    ) -> Result<(Backfill, BackfillEnd), PipelineError> {
        let mut report = Backfill::default();
        let slot = SourceSlot { source: reader, cache: Mutex::new(None) };
        let end = self.read_past(&slot, past, &mut report, progress).await?;
        let end = match end {
            Some(end) => end,
            None => self.adopt(source, &slot, past, patience).await?,
        };
        let id = slot.source.id().clone();
        self.decide(&Query { source: Some(id.clone()), ..Query::default() }, |snapshot| {
            Some((ingest::disown(snapshot, &id, self.process), ()))
        })
        .await?;
        Ok((report, end))
    }

    /// Reads page by page; `None` when all is read.
    async fn read_past(
        &self,
        slot: &SourceSlot,
        past: Past,
        report: &mut Backfill,
        progress: &(dyn Fn(&Backfill) + Send + Sync),
    ) -> Result<Option<BackfillEnd>, PipelineError> {
        let mut cache = slot.cache.lock().await;
        loop {
            if self.own_source(slot, &mut cache).await?.is_err() {
                return Ok(Some(BackfillEnd::Busy));
            }
            let Some(known) = cache.as_mut() else { return Ok(Some(BackfillEnd::Busy)) };
            let budget = Budget { lines: self.limits.lines, bytes: self.limits.bytes, now: past.to };
            let page = match slot.source.read(known.cursor.as_ref(), &known.seen, budget).await {
                Ok(page) => page,
                Err(error) => {
                    let hint = error.hint().map(str::to_owned);
                    return Ok(Some(BackfillEnd::Failed { reason: chain(&error), hint }));
                }
            };
            for problem in &page.problems {
                let text = format!("{}: {}", problem.subject, chain(&problem.error));
                if !report.problems.contains(&text) {
                    report.problems.push(text);
                }
            }
            let (more, reached) = (page.more, page.horizon.map_or(past.to, |horizon| horizon.min(past.to)));
            let end = if more { End::Open(reached.minus(self.limits.settle)) } else { End::Closed };
            let records = page.lines.iter().map(crate::Line::record);
            let mut delta = known.miner.fold(known.carry.clone(), records, FoldOptions { end, assign: false });
            let learned = self.learned_from(&delta, &known.memory, reached);
            let ingested = Ingested {
                next: Some(page.next.clone()),
                carry: self.redacted_carry(&delta.carry),
                seen: page.lines.iter().map(|line| (line.time, line.id, line.tags)).collect(),
                leaves: self.redacted_leaves(&delta),
                evicted: delta.evicted.clone(),
                used: delta.rows.iter().map(|row| row.leaf).collect(),
                moves: delta.moves.clone(),
                learned: self.redacted_memory(&learned),
                counters: vec![("lines_backfilled".to_owned(), delta.counts.read)],
                ..self.unchanged(known)
            };
            if !self.commit_learned(slot.source.id(), &ingested, &[]).await? {
                *cache = None;
                continue;
            }
            for (time, line, queries) in &ingested.seen {
                known.seen.insert(*time, *line, *queries);
            }
            if let Some(newest) = known.seen.minutes().last() {
                known.seen.forget_before(newest - 75, newest - 24 * 60);
            }
            // As the ledger has them: memory is the same before and after a restart.
            delta.new.clone_from(&ingested.leaves);
            known.miner.apply(&delta);
            known.memory.apply(&ingested.learned);
            known.cursor = ingested.next;
            known.carry = ingested.carry;
            report.lines += delta.counts.read;
            report.templates = known.memory.rows().filter(|(_, row)| !row.is_origin()).count() as u64;
            report.reached = Some(reached);
            progress(report);
            if !more {
                // What could not be read now is read by the next run.
                return Ok(match report.problems.is_empty() {
                    true => None,
                    false => Some(BackfillEnd::Failed { reason: report.problems.join("; "), hint: None }),
                });
            }
        }
    }

    /// What the detectors learn from a fold; what they would have said is not wanted.
    fn learned_from(&self, delta: &Delta, memory: &Memory, now: Timestamp) -> Learned {
        // A source that is warming up notes no silence.
        let settings = Settings { warm_up: Duration::MAX, warm_up_lines: u64::MAX, ..self.settings.clone() };
        detect(delta, memory, &self.rules, &settings, now).learned
    }

    /// An ingest that changes nothing.
    fn unchanged(&self, cache: &Cache) -> Ingested {
        Ingested {
            process: self.process,
            epoch: cache.epoch,
            cursor: cache.cursor.clone(),
            next: cache.cursor.clone(),
            complete: false,
            carry: cache.carry.clone(),
            seen: Vec::new(),
            leaves: Vec::new(),
            evicted: Vec::new(),
            used: Vec::new(),
            moves: Vec::new(),
            learned: Learned::default(),
            segment: None,
            jobs: Vec::new(),
            spool: Vec::new(),
            counters: Vec::new(),
        }
    }

    /// Commits what was learned; `false` when the source is no longer ours.
    async fn commit_learned(&self, id: &SourceId, ingested: &Ingested, more: &[Write]) -> Result<bool, PipelineError> {
        let open = match ingest::concerned(ingested) {
            Some(query) => self.ledger.read(&query).await.map_err(PipelineError::Ledger)?,
            None => Snapshot::default(),
        };
        let query = ingest::query(id, ingested, &open);
        let done = self
            .decide(&query, |snapshot| {
                let mut writes =
                    ingest::decide(&self.policy, snapshot, id, ingested, &query.keys, self.env.now())?.writes;
                writes.extend(more.iter().cloned());
                Some((writes, ()))
            })
            .await?;
        Ok(done.is_some())
    }

    /// Puts the memory of the past before that of the real source.
    async fn adopt(
        &self,
        source: &SourceId,
        past_slot: &SourceSlot,
        past: Past,
        patience: Duration,
    ) -> Result<BackfillEnd, PipelineError> {
        let Some(slot) = self.sources.iter().find(|slot| slot.source.id() == source) else {
            return Ok(BackfillEnd::Occupied);
        };
        let give_up = self.env.now().plus(patience);
        let mut cache = slot.cache.lock().await;
        let past_cache = past_slot.cache.lock().await;
        let Some(before) = past_cache.as_ref() else { return Ok(BackfillEnd::Busy) };
        loop {
            if self.own_source(slot, &mut cache).await?.is_err() {
                if self.env.now() >= give_up {
                    return Ok(BackfillEnd::Occupied);
                }
                self.env.sleep_until(self.env.now().plus(ASK_AGAIN)).await;
                continue;
            }
            let Some(known) = cache.as_mut() else { return Ok(BackfillEnd::Occupied) };
            let values = Query { values: vec![name(source)], ..Query::default() };
            let noted = self.ledger.read(&values).await.map_err(PipelineError::Ledger)?;
            let version = match self::known(&noted, source) {
                Some(noted) if noted.row.done => break, // another run was faster
                noted => noted.map_or(0, |noted| noted.version),
            };
            let ingested = self.adopted(known, before);
            let mut more = note(source, version, &Past { done: true, ..past });
            let removed = before.memory.rows().map(|(key, _)| key).collect();
            let forgotten = Learned { removed, ..Learned::default() };
            let beside = past_slot.source.id();
            more.push(Write::Memory(beside.clone(), Box::new(forgotten)));
            let leaves = before.miner.state().leaves.iter().map(|leaf| leaf.leaf).collect();
            more.push(Write::LeavesGone(beside.clone(), leaves));
            let committed = self.commit_learned(source, &ingested, &more).await?;
            // Whoever reads the source next, we or others, loads what is committed.
            *cache = None;
            if committed {
                break;
            }
        }
        self.decide(&Query { source: Some(source.clone()), ..Query::default() }, |snapshot| {
            Some((ingest::disown(snapshot, source, self.process), ()))
        })
        .await?;
        Ok(BackfillEnd::Done)
    }

    /// What the real source learns from its past.
    fn adopted(&self, known: &Cache, before: &Cache) -> Ingested {
        let (own, past) = (known.miner.state(), before.miner.state());
        let mut leaves = past.leaves.clone();
        leaves.retain(|leaf| known.miner.root_of(leaf.leaf).is_none());
        let all = State { version: State::VERSION, leaves: leaves.clone(), ..State::default() };
        let config = logwarden_templates::Config { secret: 0, ..self.miner.clone() };
        let mut together = Miner::new(config);
        // Neither state is newer than this program: both are from it.
        let _ = together.merge(own.clone());
        let _ = together.merge(all);
        let mut now_under: HashMap<RootId, (RootId, Arc<str>)> = HashMap::new();
        let mut moves = Vec::new();
        for (miner, leaf) in (own.leaves.iter().map(|leaf| (&known.miner, leaf)))
            .chain(past.leaves.iter().map(|leaf| (&before.miner, leaf)))
        {
            let (Some(from), Some(to)) = (miner.root_of(leaf.leaf), together.root_of(leaf.leaf)) else { continue };
            if from != to
                && let Some(text) = together.text_of(leaf.leaf)
            {
                now_under.insert(from, (to, text));
                if std::ptr::eq(miner, &known.miner) {
                    moves.push(Move { leaf: leaf.leaf, from: Some(from), to });
                }
            }
        }
        let learned = known.memory.preceded_by(&before.memory, |root| now_under.get(&root).cloned());
        Ingested { leaves, moves, learned: self.redacted_memory(&learned), ..self.unchanged(known) }
    }
}

fn name(source: &SourceId) -> String {
    format!("backfill.{source}")
}

fn known(snapshot: &Snapshot, source: &SourceId) -> Option<Versioned<Past>> {
    let value = snapshot.values.get(&name(source))?;
    let row = serde_json::from_value(value.row.clone()).ok()?;
    Some(Versioned { version: value.version, row })
}

fn note(source: &SourceId, version: u64, past: &Past) -> Vec<Write> {
    let value = serde_json::to_value(past).ok();
    value.map(|row| Write::Value(name(source), Versioned { version, row })).into_iter().collect()
}
