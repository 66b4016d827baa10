//! A process that ends at any step of ingest, judge and delivery, and another one that goes on.
//!
//! Every call into a store, a channel, the model or the source is a step; a process may end before the call and after it,
//! when nobody heard the answer. Then nothing may be lost: each line is counted once, each alert is told on each channel,
//! at most one message comes twice. The twin marks messages as sent before it sends them, and must lose one.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, pending},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures::{executor::block_on, task::noop_waker};
use logwarden_core::{
    Line, LineId, ProfileName, Severity, Stream, Timestamp,
    classifier::{Classifier, ClassifyError, Judgement, Usage},
    dedup::{Claim, DedupError, DedupStore, Outcome, Reserved, Standing},
    detectors::{By, Category, Finding, Route},
    digest::{Capacity, Digest, Verdict},
    env::Env,
    incident::IncidentId,
    ledger::{Commit, Committed, Jobs, Ledger, LedgerError, Outbox, Query, Snapshot},
    message::{Body, Message, Occasion, SendId},
    notifier::{Channel, ChannelHash, Form, Notifier, NotifyError, Receipt},
    pipeline::{Limits, Pipeline},
    source::{Budget, Cursor, LogSource, Page, QueryInfo, Seen, SourceError, SourceId},
    templates::Clock,
    testing::FakeEnv,
};
use logwarden_tests::explorer::{InMemory, Stores};

use crate::stores::OnDisk;

/// Steps that a process may still make.
#[derive(Debug, Default)]
struct Fuse {
    steps: AtomicUsize,
    last: Option<usize>,
    dead: AtomicBool,
}

impl Fuse {
    /// Counts a step; waits for ever at the last one, and ever after.
    async fn step(&self) {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        if self.dead.load(Ordering::Relaxed) || self.last.is_some_and(|last| step >= last) {
            self.dead.store(true, Ordering::Relaxed);
            pending::<()>().await;
        }
    }

    async fn around<T>(&self, call: impl Future<Output = T>) -> T {
        self.step().await;
        // The stores have threads of their own; a step is over before anybody else moves.
        let answer = block_on(call);
        self.step().await;
        answer
    }
}

#[derive(Debug)]
struct Mortal<T: ?Sized>(Arc<T>, Arc<Fuse>);

#[async_trait]
impl Ledger for Mortal<dyn Ledger> {
    async fn read(&self, query: &Query) -> Result<Snapshot, LedgerError> {
        self.1.around(self.0.read(query)).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, LedgerError> {
        self.1.around(self.0.commit(commit)).await
    }
}

#[async_trait]
impl DedupStore for Mortal<dyn DedupStore> {
    async fn reserve(&self, claim: &Claim<'_>) -> Result<Standing, DedupError> {
        self.1.around(self.0.reserve(claim)).await
    }

    async fn settle(&self, claim: &Claim<'_>, outcome: &Outcome) -> Result<(), DedupError> {
        self.1.around(self.0.settle(claim, outcome)).await
    }
}

/// The twin: marks a message as sent before it is sent.
#[derive(Debug)]
struct MarksFirst(Arc<dyn DedupStore>);

#[async_trait]
impl DedupStore for MarksFirst {
    async fn reserve(&self, claim: &Claim<'_>) -> Result<Standing, DedupError> {
        let standing = self.0.reserve(claim).await?;
        if let Standing::First { at } = standing {
            let reserved = Reserved::At(at);
            self.0.settle(claim, &Outcome::Delivered { receipt: Receipt("early".into()), reserved }).await?;
        }
        Ok(standing)
    }

    async fn settle(&self, _: &Claim<'_>, _: &Outcome) -> Result<(), DedupError> {
        Ok(())
    }
}

/// What people in a channel see.
#[derive(Debug, Default)]
struct Wall {
    announced: Mutex<Vec<Announced>>,
}

/// One message, and the incidents in it with their titles.
type Announced = (SendId, Occasion, Vec<(IncidentId, String)>);

#[derive(Debug)]
struct Poster {
    channel: Channel,
    wall: Arc<Wall>,
    fuse: Arc<Fuse>,
}

#[async_trait]
impl Notifier for Poster {
    fn channel(&self) -> &Channel {
        &self.channel
    }

    async fn send(&self, message: &Message, _: Form, amend: Option<&Receipt>) -> Result<Receipt, NotifyError> {
        let post = async {
            if let (Body::Incidents { occasion, incidents, .. }, None) = (&message.body, amend) {
                let about = incidents.iter().map(|incident| (incident.id, incident.title.raw().to_owned())).collect();
                self.wall.announced.lock().unwrap().push((message.id, *occasion, about));
            }
            Receipt(format!("{:032x}", message.id.0))
        };
        Ok(self.fuse.around(post).await)
    }
}

/// A model that finds something strange wherever a line says so.
#[derive(Debug)]
struct Model(Arc<Fuse>);

#[async_trait]
impl Classifier for Model {
    fn capacity(&self) -> Capacity {
        Capacity { row_tokens: 1_000, chars_per_token: 4.0, rows: 50 }
    }

    fn fingerprint(&self) -> String {
        "model".into()
    }

    async fn classify(&self, digest: &Digest) -> Result<Judgement, ClassifyError> {
        let judge = async {
            let rows = (0_u32..).zip(&digest.rows).map(|(number, row)| (number, &row.row.row));
            let strange = rows.clone().filter(|(_, row)| row.template.contains("strange"));
            let findings = strange.map(|(number, row)| Finding {
                by: By::Model { name: "model".into() },
                profile: digest.profile.name.clone(),
                category: Category::Service,
                severity: Severity::High,
                floor: None,
                route: Route::Alert,
                title: "strange things".into(),
                explanation: "They are strange.".into(),
                recommendation: String::new(),
                rows: vec![number],
                anomalous: vec![number],
                absent: Vec::new(),
                discriminator: String::new(),
                entities: Vec::new(),
                score: 1.0,
                count: row.count,
                first: row.first,
                last: row.last,
            });
            let judged = rows.clone().map(|(number, _)| number).collect();
            Judgement {
                verdict: Verdict { findings: findings.collect(), judged, ..Verdict::default() },
                usage: Usage { model: "model".into(), calls: 1, ..Usage::default() },
            }
        };
        Ok(self.0.around(judge).await)
    }
}

const BEGIN: Timestamp = Timestamp::from_secs(1_795_233_600);

/// What the logs say, and how long after the beginning.
const LINES: [(u64, &str); 7] = [
    (1, "kernel: Out of memory: Killed process 4711 (mysqld) total-vm:2831232kB, anon-rss:1912340kB"),
    (2, "cron: nothing to see here"),
    (3, "app: something strange has happened at the gate"),
    (4, "backup: write error: No space left on device"),
    (5, "cron: nothing to see here"),
    (400, "kernel: Out of memory: Killed process 4812 (mysqld) total-vm:2831232kB, anon-rss:1912340kB"),
    (401, "app: something strange has happened at the gate"),
];

/// The lines that were written so far, two to a page.
#[derive(Debug)]
struct Lines(SourceId, Vec<QueryInfo>, FakeEnv, Arc<Fuse>);

#[async_trait]
impl LogSource for Lines {
    fn id(&self) -> &SourceId {
        &self.0
    }

    fn queries(&self) -> &[QueryInfo] {
        &self.1
    }

    async fn read(&self, cursor: Option<&Cursor>, _: &Seen, _: Budget) -> Result<Page, SourceError> {
        let read = async {
            let from: usize = cursor.map_or(0, |cursor| cursor.0.parse().unwrap());
            let stream = Arc::new(Stream::new(BTreeMap::from([("host".to_owned(), "web-1".to_owned())])));
            let written = LINES.iter().filter(|(after, _)| BEGIN.plus(Duration::from_secs(*after)) <= self.2.now());
            let all: Vec<_> = written.collect();
            let taken = all.iter().enumerate().skip(from).take(2);
            let lines: Vec<Line> = taken
                .map(|(number, (after, text))| Line {
                    id: LineId::of(&[&number.to_le_bytes()]),
                    time: BEGIN.plus(Duration::from_secs(*after)),
                    clock: Clock::Record,
                    stream: stream.clone(),
                    text: text.as_bytes().to_vec(),
                    tags: 1,
                })
                .collect();
            let next = from + lines.len();
            Page {
                per_query: vec![lines.len() as u64],
                next: Cursor(next.to_string()),
                more: next < all.len(),
                horizon: Some(self.2.now().plus(Duration::from_secs(60))),
                lines,
                ..Page::default()
            }
        };
        Ok(self.3.around(read).await)
    }
}

/// What outlives a process.
struct World {
    env: FakeEnv,
    stores: Box<dyn Stores>,
    walls: Vec<Arc<Wall>>,
    marks_first: bool,
}

impl World {
    fn new(stores: Box<dyn Stores>, marks_first: bool) -> Self {
        let env = FakeEnv::new(BEGIN.plus(Duration::from_secs(10)), 1);
        Self { env, stores, walls: (0..2).map(|_| Arc::default()).collect(), marks_first }
    }

    /// A process with steps left that makes a pass. `false` when it died on the way.
    fn pass(&self, fuse: &Arc<Fuse>) -> bool {
        let mut dedup = self.stores.dedup(&self.env);
        if self.marks_first {
            dedup = Arc::new(MarksFirst(dedup));
        }
        let queries = vec![QueryInfo { text: "{job=\"test\"}".into(), profiles: vec![ProfileName::general()] }];
        let lines = Lines(SourceId("test".into()), queries, self.env.clone(), fuse.clone());
        let mut builder = Pipeline::builder()
            .env(Arc::new(self.env.clone()))
            .ledger(Arc::new(Mortal(self.stores.ledger(0), fuse.clone())))
            .dedup(Arc::new(Mortal(dedup, fuse.clone())))
            .source(Arc::new(lines))
            .classifier(Arc::new(Model(fuse.clone())))
            .limits(Limits { lines: 2, ..Limits::default() })
            .host("web-1");
        for (name, wall) in ["edits", "posts"].into_iter().zip(&self.walls) {
            let channel = Channel {
                name: name.into(),
                destination: ChannelHash(LineId::of(&[name.as_bytes()]).bits()),
                vendor: "test",
                min_severity: Severity::Low,
                amends: name == "edits",
                longest_send: Duration::from_secs(15),
                gap: Duration::ZERO,
                per_minute: 1000,
            };
            builder = builder.notifier(Arc::new(Poster { channel, wall: wall.clone(), fuse: fuse.clone() }));
        }
        let pipeline = builder.build().unwrap();
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        let mut pass = pin!(pipeline.pass(self.env.now().plus(Duration::from_secs(120))));
        for _ in 0..10_000 {
            match pass.as_mut().poll(&mut context) {
                Poll::Ready(report) => {
                    report.unwrap();
                    return true;
                }
                Poll::Pending if fuse.dead.load(Ordering::Relaxed) => return false,
                Poll::Pending => drop(self.env.advance_to_next()),
            }
        }
        panic!("the pass does not end");
    }

    /// Passes of new processes, five minutes apart, until the logs have ended and nothing is left to do.
    fn go_on(&self) {
        for _ in 0..6 {
            self.env.advance(Duration::from_secs(300));
            assert!(self.pass(&Arc::default()));
        }
    }

    /// What is wrong in the end, if anything is.
    fn fault(&self) -> Option<String> {
        let all = Query { counters: true, outbox: Outbox::Open, jobs: Jobs::Open { limit: 10 }, ..Query::default() };
        let end = block_on(self.stores.ledger(0).read(&all)).unwrap();
        let count = |name: &str| end.counters.get(name).copied().unwrap_or(0);
        let judged = count("lines_analysed.general") + count("lines_detectors_only.general");
        if (count("lines_read"), count("lines_kept.general"), judged) != (7, 7, 7) {
            return Some(format!("lines are lost or counted twice: {:?}", end.counters));
        }
        if !end.outbox.is_empty() || !end.jobs.is_empty() {
            return Some(format!("something is stuck: {:?} {:?}", end.outbox, end.jobs));
        }
        let mut surplus = 0;
        for wall in &self.walls {
            let announced = wall.announced.lock().unwrap();
            let titles: BTreeSet<&str> =
                announced.iter().flat_map(|(.., about)| about).map(|(_, title)| &**title).collect();
            for wanted in ["memory", "strange", "disk"] {
                if !titles.iter().any(|title| title.contains(wanted)) {
                    return Some(format!("nobody was told of {wanted}: {titles:?}"));
                }
            }
            let sends: BTreeSet<SendId> = announced.iter().map(|(send, ..)| *send).collect();
            surplus += announced.len() - sends.len();
            let fired = announced.iter().filter(|(_, occasion, _)| *occasion == Occasion::Fired);
            let fired: Vec<_> = fired.map(|(send, _, about)| (send, about)).collect();
            for (number, (send, about)) in fired.iter().enumerate() {
                let same = |(other, theirs): &&(&SendId, &Vec<(IncidentId, String)>)| other != send && theirs == about;
                surplus += fired[..number].iter().filter(same).count();
            }
        }
        (surplus > 1).then(|| format!("{surplus} messages too many"))
    }
}

/// Ends a process at every step of the first pass, or of the one after more was written; answers the steps and what went
/// wrong.
fn crashes(stores: &dyn Fn() -> Box<dyn Stores>, marks_first: bool) -> (usize, Vec<String>) {
    let mut faults = Vec::new();
    let mut steps = 0;
    for second in [false, true] {
        for last in 0.. {
            let world = World::new(stores(), marks_first);
            if second {
                assert!(world.pass(&Arc::default()));
                world.env.set(BEGIN.plus(Duration::from_secs(405)));
            }
            let survived = world.pass(&Arc::new(Fuse { last: Some(last), ..Fuse::default() }));
            world.go_on();
            let when = if second { "second" } else { "first" };
            faults.extend(world.fault().map(|fault| format!("{when} pass, step {last}: {fault}")));
            if survived {
                steps += last;
                break;
            }
        }
    }
    (steps, faults)
}

#[test]
fn ended_at_any_step_nothing_is_lost_and_at_most_one_message_comes_twice() {
    let (steps, faults) = crashes(&|| Box::<InMemory>::default(), false);
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(steps > 200, "{steps} steps");
}

#[test]
fn the_same_with_stores_on_disk() {
    let (steps, faults) = crashes(&|| Box::<OnDisk>::default(), false);
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(steps > 200, "{steps} steps");
}

#[test]
fn who_marks_before_sending_loses_an_alert() {
    let (_, faults) = crashes(&|| Box::<InMemory>::default(), true);
    assert!(faults.iter().any(|fault| fault.contains("nobody was told")), "{faults:#?}");
}
