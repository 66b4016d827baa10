//! The parts put together: one pipeline, three stages, each of which can be stopped at any instant and run again.
//!
//! | stage | does | in |
//! |---|---|---|
//! | ingest | reads lines after a cursor, folds them, runs the detectors, commits | [`Pipeline::ingest`] |
//! | judge | asks the classifier about what is waiting, grounds the answer, commits | [`Pipeline::judge`] |
//! | deliver | claims what is due, sends it, settles | [`Pipeline::deliver`] |
//!
//! [`Pipeline::pass`] is what a timer starts: ingest, then judge and deliver side by side, then deliver once more.
//! [`Pipeline::watch`] runs the three on and on.

mod backfill;
mod builder;
mod deliver;
mod in_time;
mod ingest;
mod inherit;
mod judge;
mod own;
mod push;
mod together;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt,
    channel::oneshot,
    future::{FusedFuture, join, select},
    lock::Mutex,
    pin_mut, select_biased,
};
use logwarden_detectors::{RuleSet, Settings};

use self::ingest::Cache;
pub use self::{
    backfill::{Backfill, BackfillEnd, Past},
    builder::{BuildError, Builder},
    deliver::DeliverReport,
    ingest::{IngestReport, SourceOutcome},
    judge::JudgeReport,
    own::{FailedUnit, OWN_NAMES, Trouble},
};
use crate::{
    Timestamp,
    classifier::Classifier,
    decide::{Policy, summary},
    dedup::DedupStore,
    env::Env,
    error::chain,
    ledger::{Commit, CommitId, Committed, Ledger, LedgerError, ProcessId, Query, Snapshot, Write},
    message::SendId,
    notifier::Notifier,
    profile::Profile,
    redact::Redactor,
    source::{LogSource, SourceId},
};

/// How often a running pipeline looks for work that another process may have left in the ledger.
const IDLE: Duration = Duration::from_millis(500);
/// Where reading takes longer, what is due leaves before all is read.
const LONG_READ: Duration = Duration::from_secs(10);
/// How long a pass delivers at least, however long reading and judging took.
const LAST_CALL: Duration = Duration::from_secs(10);
/// How often a decision is made again when its snapshot is outdated.
const MAX_CONFLICTS: u32 = 50;

/// Sees what passes through, for debugging: `trail` files. Everything is redacted before it gets here.
pub trait Trail: fmt::Debug + Send + Sync {
    /// A line was received.
    fn received(&self, source: &str, time: Timestamp, text: &str);
    /// A classifier is asked.
    fn prompt(&self, profile: &str, text: &str);
    /// A classifier has answered.
    fn response(&self, profile: &str, text: &str);
}

/// Bounds and tunables of the stages.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Lines folded in one ingest at most.
    pub lines: usize,
    /// Bytes of text read in one ingest at most.
    pub bytes: usize,
    /// How long the ownership of a source lasts without renewal.
    pub own_for: Duration,
    /// Lines of the same stream shown around a first occurrence, before and after.
    pub around: usize,
    /// Open multi-line events end so long after the read horizon has passed them.
    pub settle: Duration,
    /// Benign verdicts count for this long.
    pub verdicts_last: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lines: 10_000,
            bytes: 8 << 20,
            own_for: Duration::from_secs(120),
            around: 3,
            settle: Duration::from_secs(10),
            verdicts_last: Duration::from_secs(30 * 86_400),
        }
    }
}

struct SourceSlot {
    source: Arc<dyn LogSource>,
    cache: Mutex<Option<Cache>>,
}

/// Reads, folds, detects, asks, grounds, remembers and tells.
///
/// Made by [`Pipeline::builder`]. Cheap to share behind an `Arc`; the stages may run at the same time, also in several
/// processes on one ledger.
pub struct Pipeline {
    env: Arc<dyn Env>,
    ledger: Arc<dyn Ledger>,
    dedup: Arc<dyn DedupStore>,
    sources: Vec<SourceSlot>,
    classifier: Option<Arc<dyn Classifier>>,
    notifiers: Vec<Arc<dyn Notifier>>,
    profiles: BTreeMap<logwarden_detectors::ProfileName, Arc<Profile>>,
    rules: RuleSet,
    settings: Settings,
    policy: Policy,
    redactor: Arc<Redactor>,
    limits: Limits,
    miner: logwarden_templates::Config,
    tenant: Arc<str>,
    host: Arc<str>,
    process: ProcessId,
    trail: Option<Arc<dyn Trail>>,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("sources", &self.sources.iter().map(|slot| slot.source.id()).collect::<Vec<_>>())
            .field("classifier", &self.classifier)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Why a stage could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The ledger cannot be used.
    #[error("cannot use the state")]
    Ledger(#[source] LedgerError),
    /// Others changed the same things again and again.
    #[error("the state is being changed by others all the time; giving up after {MAX_CONFLICTS} attempts")]
    Contended,
}

/// What one pass did.
#[derive(Debug, Default)]
pub struct PassReport {
    /// Per source, in the order of configuration.
    pub ingest: Vec<IngestReport>,
    /// What the classifier did.
    pub judge: JudgeReport,
    /// What was told.
    pub deliver: DeliverReport,
}

impl PassReport {
    /// Whether something failed: a source could not be read, or messages wait.
    pub fn is_incomplete(&self) -> bool {
        self.ingest.iter().any(IngestReport::is_incomplete) || self.deliver.waiting > 0 || self.deliver.broken > 0
    }

    /// Whether another run alone does not make good all that failed: something is gone, or waits for somebody to act.
    pub fn is_lasting(&self) -> bool {
        self.ingest.iter().any(|ingest| ingest.lasting) || self.deliver.broken > 0
    }
}

impl Pipeline {
    /// Begins to put a pipeline together.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The ledger, for lists and commands.
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.ledger
    }

    /// What the decisions are tuned by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The channels.
    pub fn notifiers(&self) -> &[Arc<dyn Notifier>] {
        &self.notifiers
    }

    /// The name under which this pipeline owns what it works on.
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// The sources.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<dyn LogSource>> + '_ {
        self.sources.iter().map(|slot| &slot.source)
    }

    /// One pass, as a timer starts it: reads all there is, then judges and delivers side by side until `deadline`, then
    /// delivers once more; where reading takes long, what is due is delivered meanwhile. What is not done by then waits in
    /// the ledger for the next pass.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used. Everything else is in the report.
    pub async fn pass(&self, deadline: Timestamp) -> Result<PassReport, PipelineError> {
        self.pass_telling(deadline, &|_| {}).await
    }

    /// As [`Self::pass`]; `read` is told about each source as soon as it has been read, since the rest may take minutes.
    ///
    /// # Errors
    ///
    /// As [`Self::pass`].
    pub async fn pass_telling(
        &self,
        deadline: Timestamp,
        read: &(dyn Fn(&IngestReport) + Send + Sync),
    ) -> Result<PassReport, PipelineError> {
        let mut report = PassReport::default();
        let (all_read, is_read) = oneshot::channel::<()>();
        let reading = async {
            for number in 0..self.sources.len() {
                let ingest = self.ingest(number, deadline).await?;
                read(&ingest);
                report.ingest.push(ingest);
            }
            // The next pass may be another process's, and sooner than our ownership would lapse.
            self.disown().await?;
            self.tick().await
        };
        let judged = AtomicBool::new(false);
        let judging = async {
            let judge = match reading.await {
                Ok(_) => {
                    drop(all_read);
                    self.judge(deadline).await
                }
                Err(error) => Err(error),
            };
            judged.store(true, Ordering::Relaxed);
            judge
        };
        // What is due before all is read is told with all that was read; but no source that hangs holds it up. What becomes
        // due while the model works leaves at once.
        let patience = self.env.sleep_until(self.env.now().plus(LONG_READ));
        let delivering = async {
            select(is_read, patience).await;
            let mut deliver = DeliverReport::default();
            loop {
                deliver.add(self.deliver(self.env.now()).await?);
                if judged.load(Ordering::Relaxed) {
                    return Ok::<_, PipelineError>(deliver);
                }
                self.env.sleep_until(self.env.now().plus(IDLE)).await;
            }
        };
        let (judge, deliver) = join(judging, delivering).await;
        report.judge = judge?;
        report.deliver = deliver?;
        report.deliver.add(self.deliver(deadline.max(self.env.now().plus(LAST_CALL))).await?);
        let _ = self.commit(vec![Write::Prune(self.env.now())]).await?;
        Ok(report)
    }

    /// Runs the three stages on and on until `stop` resolves; what is under way is finished first, within `grace`.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn watch(
        &self,
        period: Duration,
        grace: Duration,
        report: &(dyn Fn(PassReport) + Send + Sync),
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), PipelineError> {
        let stop = stop.shared();
        let stages = async {
            let (reading, judging) = (self.keep_reading(period, report).fuse(), self.keep_judging(report).fuse());
            let idle = || self.env.sleep_until(self.env.now().plus(IDLE));
            let delivering = self.keep_delivering(idle, report, stop.clone()).fuse();
            pin_mut!(reading, judging, delivering);
            select_biased! { ended = delivering => ended, error = reading => Err(error), error = judging => Err(error) }
        };
        let until = self.until_stopped(Box::pin(stages), stop.clone(), grace).await?;
        // Dropping the other stages lost nothing; what was decided and is due now still goes out.
        if let Some(deliver) = self.before(until, self.deliver(until)).await {
            report(PassReport { deliver: deliver?, ..PassReport::default() });
        }
        self.disown().await
    }

    /// Runs the stages until `stop` resolves, and on until deliver has ended by itself: a message that was given up half
    /// said would have to wait until its claim lapses. Returns the time, `grace` after the stop, until which that and
    /// whatever is left to do may take.
    async fn until_stopped(
        &self,
        stages: impl Future<Output = Result<(), PipelineError>>,
        stop: impl Future<Output = ()>,
        grace: Duration,
    ) -> Result<Timestamp, PipelineError> {
        let (stop, stages) = (stop.fuse(), stages.fuse());
        pin_mut!(stop, stages);
        select_biased! {
            () = stop => {}
            ended = stages => ended?,
        }
        let until = self.env.now().plus(grace);
        if !stages.is_terminated() {
            self.before(until, stages).await.transpose()?;
        }
        Ok(until)
    }

    /// What the work comes to; `None` when it was given up since the time had come.
    async fn before<T>(&self, until: Timestamp, work: impl Future<Output = T>) -> Option<T> {
        let (work, late) = (work.fuse(), self.env.sleep_until(until).fuse());
        pin_mut!(work, late);
        select_biased! {
            done = work => Some(done),
            () = late => None,
        }
    }

    /// Reads every period; returns only when the ledger cannot be used.
    async fn keep_reading(&self, period: Duration, report: &(dyn Fn(PassReport) + Send + Sync)) -> PipelineError {
        loop {
            let next = self.env.now().plus(period);
            match self.read_round().await {
                Ok(pass) => report(pass),
                Err(error) => return error,
            }
            self.env.sleep_until(next.max(self.env.now().plus(Duration::from_millis(200)))).await;
        }
    }

    async fn read_round(&self) -> Result<PassReport, PipelineError> {
        let mut pass = PassReport::default();
        for number in 0..self.sources.len() {
            pass.ingest.push(self.ingest(number, Timestamp::MAX).await?);
        }
        self.tick().await?;
        let _ = self.commit(vec![Write::Prune(self.env.now())]).await?;
        Ok(pass)
    }

    async fn keep_judging(&self, report: &(dyn Fn(PassReport) + Send + Sync)) -> PipelineError {
        loop {
            let mut again = self.env.now().plus(IDLE);
            match self.judge(Timestamp::MAX).await {
                Ok(judge) if judge != JudgeReport::default() => {
                    again = judge.away_until.map_or(again, |away| again.max(away));
                    report(PassReport { judge, ..PassReport::default() });
                }
                Ok(_) => {}
                Err(error) => return error,
            }
            self.env.sleep_until(again.max(self.env.now().plus(IDLE))).await;
        }
    }

    /// Delivers what is due, again and again after `idle`, until it is asked to stop.
    async fn keep_delivering<I: Future<Output = ()> + Send>(
        &self,
        mut idle: impl FnMut() -> I + Send,
        report: &(dyn Fn(PassReport) + Send + Sync),
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), PipelineError> {
        let stop = stop.fuse();
        pin_mut!(stop);
        loop {
            match self.deliver(self.env.now().plus(IDLE)).await {
                Ok(deliver) if deliver.is_news() => {
                    report(PassReport { deliver, ..PassReport::default() });
                }
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            let idle = idle().fuse();
            pin_mut!(idle);
            select_biased! {
                () = stop => return Ok(()),
                () = idle => {}
            }
        }
    }

    /// Judges nothing, reads nothing: what time alone changes.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn tick(&self) -> Result<(), PipelineError> {
        for slot in &self.sources {
            let id = slot.source.id();
            self.decide(
                &Query { source: Some(id.clone()), ..crate::decide::book::Book::query(Vec::new()) },
                |snapshot| {
                    let read_at = snapshot.source.as_ref().and_then(|source| source.row.read_at);
                    Some((crate::decide::lifecycle::tick(&self.policy, snapshot, id, read_at, self.env.now()), ()))
                },
            )
            .await?;
        }
        self.report_losses().await?;
        let own = SourceId::own();
        self.decide(&crate::decide::book::Book::query(Vec::new()), |snapshot| {
            let now = self.env.now();
            Some((crate::decide::lifecycle::tick(&self.policy, snapshot, &own, Some(now), now), ()))
        })
        .await?;
        let snapshot = self.ledger.read(&summary::when()).await.map_err(PipelineError::Ledger)?;
        if summary::due(&self.policy, &snapshot, self.env.now()) {
            self.decide(&summary::query(), |snapshot| {
                let scope = summary::scope(self.tenant.clone(), self.host.clone());
                Some((summary::tell(&self.policy, snapshot, &own, scope, self.env.now())?, ()))
            })
            .await?;
        }
        Ok(())
    }

    /// Reads, decides and commits until it is done; `None` from `decide` gives up without a change.
    async fn decide<T>(
        &self,
        query: &Query,
        mut decide: impl FnMut(&Snapshot) -> Option<(Vec<Write>, T)>,
    ) -> Result<Option<T>, PipelineError> {
        for _ in 0..MAX_CONFLICTS {
            let snapshot = self.ledger.read(query).await.map_err(PipelineError::Ledger)?;
            let Some((writes, answer)) = decide(&snapshot) else { return Ok(None) };
            if self.commit(writes).await? == Committed::Done {
                return Ok(Some(answer));
            }
        }
        Err(PipelineError::Contended)
    }

    /// Commits; a commit whose answer is lost is sent once more under the same id.
    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, PipelineError> {
        if writes.is_empty() {
            return Ok(Committed::Done);
        }
        let commit = Commit { id: CommitId(self.random128()), writes };
        match self.ledger.commit(&commit).await {
            Ok(committed) => Ok(committed),
            Err(error @ LedgerError::Failed { .. }) => {
                tracing::warn!(error = %chain(&error), "commit failed; trying once more");
                self.ledger.commit(&commit).await.map_err(PipelineError::Ledger)
            }
            Err(error) => Err(PipelineError::Ledger(error)),
        }
    }

    fn random128(&self) -> u128 {
        u128::from(self.env.random()) << 64 | u128::from(self.env.random())
    }

    fn new_send(&self) -> u128 {
        SendId(self.random128()).0
    }
}
