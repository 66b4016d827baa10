//! The spool as a source of lines: what was acknowledged, in the order in which it arrived.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use logwarden_core::{
    Line, ProfileName, Timestamp,
    ledger::{Ledger, Query, SpoolRow},
    source::{Budget, Cursor, LogSource, Page, Problem, ProblemKind, QueryInfo, Seen, SourceError, SourceId},
    templates::Zone,
};
use tokio::{sync::Notify, time};

use crate::batch;

/// How long lines are collected before they are ingested.
const COLLECT: Duration = Duration::from_millis(300);
/// The same for the first lines after a second in which nothing came.
const FIRST: Duration = Duration::from_millis(50);
/// So many lines do not wait for more.
const ENOUGH: u64 = 10_000;
/// An open multi-line event is complete so long after its last line arrived.
const SETTLE: Duration = Duration::from_secs(1);

/// Reads the spool. Give it to the pipeline as a source, and to the [`Receiver`](crate::Receiver), which fills the spool.
#[derive(Debug)]
pub struct PushSource {
    id: SourceId,
    queries: Vec<QueryInfo>,
    zone: Zone,
    ledger: Arc<dyn Ledger>,
    /// Per spool row that arrived a moment ago: when, and the earliest of its streams' last times.
    recent: Mutex<BTreeMap<u64, (Timestamp, Timestamp)>>,
    arrival: Notify,
    waiting: AtomicU64,
}

impl PushSource {
    /// A source over the spool of `ledger`, whose lines are judged under `profiles`. Times that name no zone are in `zone`.
    pub fn new(ledger: Arc<dyn Ledger>, profiles: Vec<ProfileName>, zone: Zone) -> Self {
        Self {
            id: SourceId("push".to_owned()),
            queries: vec![QueryInfo { text: "pushed lines".to_owned(), profiles }],
            zone,
            ledger,
            recent: Mutex::default(),
            arrival: Notify::new(),
            waiting: AtomicU64::new(0),
        }
    }

    /// Resolves when there is something to ingest: lines that were spooled a moment ago, or multi-line events that are
    /// complete since nothing more came.
    pub async fn arrived(&self) {
        let open = !self.recent().is_empty();
        let settled = async {
            match open {
                true => time::sleep(SETTLE + Duration::from_millis(50)).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.arrival.notified() => {}
            () = settled => return,
        }
        let full = async {
            while self.waiting.load(Ordering::Relaxed) < ENOUGH {
                self.arrival.notified().await;
            }
        };
        let _ = time::timeout(if open { COLLECT } else { FIRST }, full).await;
    }

    /// Notes that lines were spooled.
    pub(crate) fn spooled(&self, lines: u64) {
        self.waiting.fetch_add(lines, Ordering::Relaxed);
        self.arrival.notify_one();
    }

    fn recent(&self) -> MutexGuard<'_, BTreeMap<u64, (Timestamp, Timestamp)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time before which multi-line events are complete: those of streams that were written to within the last second
    /// are still open.
    fn settled(&self, now: Timestamp, more: bool) -> Timestamp {
        let mut recent = self.recent();
        recent.retain(|_, (arrived, _)| now.since(*arrived) < SETTLE);
        if more {
            return Timestamp::MIN;
        }
        recent.values().map(|(_, last)| *last).min().unwrap_or(Timestamp::MAX)
    }
}

/// The earliest of the last times of the streams in `lines`.
fn earliest_last(lines: &[Line]) -> Option<Timestamp> {
    let mut last: HashMap<*const (), Timestamp> = HashMap::new();
    for line in lines {
        let stream = Arc::as_ptr(&line.stream).cast();
        let known = last.entry(stream).or_insert(line.time);
        *known = line.time.max(*known);
    }
    last.into_values().min()
}

fn lines_of(row: &SpoolRow, zone: &Zone) -> Result<Vec<Line>, batch::Corrupt> {
    batch::lines(row.batch, &row.body, 1, zone)
}

#[async_trait]
impl LogSource for PushSource {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn queries(&self) -> &[QueryInfo] {
        &self.queries
    }

    async fn read(&self, cursor: Option<&Cursor>, _: &Seen, budget: Budget) -> Result<Page, SourceError> {
        self.waiting.store(0, Ordering::Relaxed);
        let query = Query { spool: Some(budget.lines as u64), ..Query::default() };
        let snapshot = self
            .ledger
            .read(&query)
            .await
            .map_err(|error| SourceError::Unreachable { origin: "the spool".to_owned(), cause: Box::new(error) })?;
        let mut page = Page { next: cursor.cloned().unwrap_or_default(), ..Page::default() };
        let (mut bytes, mut corrupt) = (0, 0_u64);
        for row in &snapshot.spool {
            if bytes >= budget.bytes {
                break;
            }
            match lines_of(row, &self.zone) {
                Ok(lines) => {
                    bytes += lines.iter().map(|line| line.text.len()).sum::<usize>();
                    if let Some(last) = earliest_last(&lines) {
                        self.recent().insert(row.ordinal, (row.at, last));
                    }
                    page.lines.extend(lines);
                }
                Err(batch::Corrupt) => corrupt += row.lines,
            }
            page.spool.push(row.ordinal);
            page.next = Cursor(row.ordinal.to_string());
        }
        if corrupt > 0 {
            let reason = "what was stored cannot be read back".to_owned();
            page.problems.push(Problem {
                subject: "the spool".to_owned(),
                kind: ProblemKind::Gap { lines: Some(corrupt) },
                error: SourceError::Gap { subject: "the spool".to_owned(), reason },
            });
        }
        page.more = (page.spool.len() as u64) < snapshot.spool_size.0;
        page.settled = Some(self.settled(budget.now, page.more));
        // What was acknowledged is all there is; what a shipper still holds is known by its machine's silence alone.
        page.horizon = (!page.more).then_some(budget.now);
        page.pushed = true;
        // Within one time the order of arrival stays; a batch that was sent late finds its place.
        page.lines.sort_by_key(|line| line.time);
        page.per_query = vec![page.lines.len() as u64];
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use logwarden_core::{
        ledger::{Commit, CommitId, Committed, Write},
        memory_ledger::MemoryLedger,
        templates::Clock,
        testing::source::brings_every_line_once,
    };

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_233_600);

    /// The source as the pipeline uses it: rows that a committed cursor has passed are gone with that commit.
    #[derive(Debug)]
    struct Spool {
        source: PushSource,
        ledger: Arc<MemoryLedger>,
    }

    impl Spool {
        async fn commit(&self, id: u64, write: Write) {
            let commit = Commit { id: CommitId(id.into()), writes: vec![write] };
            assert_eq!(self.ledger.commit(&commit).await.unwrap(), Committed::Done);
        }
    }

    #[async_trait]
    impl LogSource for Spool {
        fn id(&self) -> &SourceId {
            self.source.id()
        }

        fn queries(&self) -> &[QueryInfo] {
            self.source.queries()
        }

        async fn read(&self, cursor: Option<&Cursor>, seen: &Seen, budget: Budget) -> Result<Page, SourceError> {
            if let Some(passed) = cursor.and_then(|cursor| cursor.0.parse::<u64>().ok()) {
                let all = self.ledger.read(&Query { spool: Some(u64::MAX), ..Query::default() }).await.unwrap().spool;
                let gone: Vec<_> = all.iter().map(|row| row.ordinal).filter(|ordinal| *ordinal <= passed).collect();
                if !gone.is_empty() {
                    self.commit(1_000 + passed, Write::Unspool(gone)).await;
                }
            }
            self.source.read(cursor, seen, budget).await
        }
    }

    /// Batches of one line each: a batch is taken whole, however small the budget is.
    #[tokio::test]
    async fn what_was_pushed_keeps_the_promises_of_a_source() {
        let budget = |lines, bytes| Budget { lines, bytes, now: NOW };
        for budgets in [vec![budget(1000, 1 << 20)], vec![budget(1, 1 << 20), budget(7, 40)], vec![budget(3, 1)]] {
            let ledger = Arc::new(MemoryLedger::new(1, 2));
            let spool =
                Spool { source: PushSource::new(ledger.clone(), vec![ProfileName::general()], Zone::UTC), ledger };
            let mut expected = Vec::new();
            for n in 0..20_u64 {
                // Not in the order of their times: what a shipper has kept for a while comes late.
                let (time, text) = (NOW.minus(Duration::from_secs(n * 7 % 20)), format!("line {n}"));
                let bounds = batch::Bounds { records: 10, received: NOW };
                let mut batch = batch::Batch::new(bounds, &[], Box::new(|_| true));
                let labels = BTreeMap::from([("host".to_owned(), format!("web-{}", n % 3))]);
                assert!(batch.push(labels, BTreeMap::new(), Some(time.nanos()), Clock::Record, text.as_bytes()));
                let part = batch.finish().unwrap();
                let row = SpoolRow { ordinal: 0, batch: part.id.unwrap(), at: NOW, lines: part.lines, body: part.body };
                spool.commit(n, Write::Spool(row)).await;
                expected.push((time, text, 1));
            }
            brings_every_line_once(&spool, &budgets, expected).await;
        }
    }
}
