//! A receiver with its pipeline, and a ledger that can be made to fail.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use logwarden_core::{
    ProfileName, Severity, Timestamp,
    env::Env,
    ledger::{Commit, Committed, Incidents, Ledger, LedgerError, Query, Snapshot, Write},
    memory_ledger::MemoryLedger,
    message::Message,
    notifier::{Channel, ChannelHash, Form, Notifier, NotifyError, Receipt},
    pipeline::Pipeline,
    templates::Zone,
};
use logwarden_push_source::{BuildError, Builder, PushSource, Receiver};
use tokio::{sync::oneshot, task::JoinHandle};

/// The clock of this machine.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

#[async_trait]
impl Env for Clock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the environment of these tests is the wall clock")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp::from_nanos(now.as_nanos() as i64)
    }

    async fn sleep_until(&self, time: Timestamp) {
        tokio::time::sleep(time.since(self.now())).await;
    }

    fn random(&self) -> u64 {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        u64::from_be_bytes(blake3::hash(&number.to_be_bytes()).as_bytes()[..8].try_into().unwrap())
    }
}

/// A ledger whose disk may be full or broken.
#[derive(Debug)]
pub(crate) struct Disk {
    ledger: Box<dyn Ledger>,
    pub(crate) full: AtomicBool,
    pub(crate) broken: AtomicBool,
    pub(crate) refused: AtomicU64,
    pub(crate) commits: AtomicU64,
}

#[async_trait]
impl Ledger for Disk {
    async fn read(&self, query: &Query) -> Result<Snapshot, LedgerError> {
        self.ledger.read(query).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, LedgerError> {
        if self.full.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(LedgerError::Full { cause: "no space left on device".into() });
        }
        if self.broken.load(Ordering::Relaxed) {
            return Err(LedgerError::Failed { cause: "input/output error".into() });
        }
        if commit.writes.iter().any(|write| matches!(write, Write::Spool(_))) {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        self.ledger.commit(commit).await
    }
}

/// Keeps what it is sent.
#[derive(Debug)]
pub(crate) struct Recorder(Channel, pub(crate) Mutex<Vec<Message>>);

#[async_trait]
impl Notifier for Recorder {
    fn channel(&self) -> &Channel {
        &self.0
    }

    async fn send(&self, message: &Message, _: Form, _: Option<&Receipt>) -> Result<Receipt, NotifyError> {
        self.1.lock().unwrap().push(message.clone());
        Ok(Receipt::default())
    }
}

pub(crate) struct World {
    pub(crate) disk: Arc<Disk>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) recorder: Arc<Recorder>,
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) syslog_tcp: Option<SocketAddr>,
    pub(crate) syslog_udp: Option<SocketAddr>,
    pub(crate) source: Arc<PushSource>,
    pub(crate) pipeline: Arc<Pipeline>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(Box::new(MemoryLedger::new(1, 2)))
    }

    pub(crate) fn on(ledger: Box<dyn Ledger>) -> Self {
        let channel = Channel {
            name: "test".into(),
            destination: ChannelHash(1),
            vendor: "test",
            min_severity: Severity::Low,
            amends: false,
            longest_send: Duration::from_secs(15),
            gap: Duration::ZERO,
            per_minute: 1000,
        };
        let disk = Disk {
            ledger,
            full: AtomicBool::default(),
            broken: AtomicBool::default(),
            refused: AtomicU64::default(),
            commits: AtomicU64::default(),
        };
        Self { disk: Arc::new(disk), clock: Arc::default(), recorder: Arc::new(Recorder(channel, Mutex::default())) }
    }

    /// Puts a receiver together that is not started.
    pub(crate) fn try_build(&self, build: impl FnOnce(Builder) -> Builder) -> Result<Receiver, BuildError> {
        let source = Arc::new(PushSource::new(self.disk.clone(), Vec::new(), Zone::UTC));
        build(Receiver::builder(self.disk.clone(), source, self.clock.clone())).build()
    }

    /// Starts a receiver as a process would; the ledger outlives it.
    pub(crate) fn start(&self, build: impl FnOnce(Builder) -> Builder) -> Running {
        let profiles = vec![ProfileName::general()];
        let source = Arc::new(PushSource::new(self.disk.clone(), profiles, Zone::UTC));
        let pipeline = Pipeline::builder()
            .env(self.clock.clone())
            .ledger(self.disk.clone())
            .source(source.clone())
            .notifier(self.recorder.clone())
            .build()
            .unwrap();
        let pipeline = Arc::new(pipeline);
        let receiver = build(
            Receiver::builder(self.disk.clone(), source.clone(), self.clock.clone())
                .listen("127.0.0.1:0".parse().unwrap())
                .pipeline(pipeline.clone()),
        )
        .build()
        .unwrap();
        let address = receiver.local_addr();
        let (syslog_tcp, syslog_udp) = (receiver.syslog_tcp_addr(), receiver.syslog_udp_addr());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(receiver.serve(async {
            let _ = stopped.await;
        }));
        Running { address, syslog_tcp, syslog_udp, source, pipeline, stop: Some(stop), serving }
    }

    pub(crate) async fn counter(&self, name: &str) -> u64 {
        let query = Query { counters: true, ..Query::default() };
        self.disk.read(&query).await.unwrap().counters.get(name).copied().unwrap_or(0)
    }

    pub(crate) async fn spooled(&self) -> (u64, u64) {
        let snapshot = self.disk.read(&Query { spool: Some(u64::MAX), ..Query::default() }).await.unwrap();
        (snapshot.spool_size.0, snapshot.spool.iter().map(|row| row.lines).sum())
    }

    pub(crate) async fn titles(&self) -> Vec<String> {
        let query = Query { incidents: Incidents::Latest { limit: 100 }, ..Query::default() };
        let snapshot = self.disk.read(&query).await.unwrap();
        snapshot.incidents.values().map(|incident| incident.row.title.clone()).collect()
    }
}

impl Running {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn ingest(&self) {
        let report = self.pipeline.ingest(0, Timestamp::MAX).await.unwrap();
        assert_eq!(report.problems, [""; 0]);
    }

    pub(crate) async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.serving.await.unwrap().unwrap();
    }
}

/// Waits until `done` says so; a test that waits in vain fails.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("{what}: waited in vain"));
}
