//! The receiver from end to end: the real binary, pushed to as Fluent Bit does, against doubles of Discord and Ollama.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod guard;
mod shippers;

use std::{
    collections::BTreeSet,
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::Path,
    process::Output,
    time::Duration,
};

use logwarden_tests::{
    chat::Fault,
    discord::{self, Discord, FakeDiscord},
    ollama::{self, Behaviour, Config, FakeOllama, Model},
    receiver::{Receiver, Shipper, command, now, records, until},
};
use tempfile::TempDir;

/// What people try first.
const FULL: &str = "Disk space on /dev/sda1 is critically low: only 5% remaining.";
const NOBODY: &str = "http://127.0.0.1:1";

/// A machine with a channel, and a directory of its own.
struct World {
    directory: TempDir,
    discord: FakeDiscord,
    ollama: Option<FakeOllama>,
}

impl World {
    async fn new() -> Self {
        let discord = FakeDiscord::start(Discord::default()).await.unwrap();
        Self { directory: TempDir::new().unwrap(), discord, ollama: None }
    }

    async fn with_model() -> Self {
        let ollama = FakeOllama::start(Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest))).await;
        Self { ollama: Some(ollama), ..Self::new().await }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let ollama = self.ollama.as_ref().map(|ollama| ollama.url().to_string());
        vec![
            ("DISCORD_WEBHOOK_URL", discord::url(&self.discord)),
            ("OLLAMA_HOST", ollama.unwrap_or_else(|| NOBODY.to_owned())),
            ("OLLAMA_MODEL", "qwen3:4b-instruct".to_owned()),
        ]
    }

    async fn start(&self) -> Receiver {
        let environment = self.environment();
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Receiver::start(self.path(), &environment).await.unwrap()
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        command(self.path(), arguments).envs(self.environment()).output().await.unwrap()
    }

    /// Messages in the channel, as a person reads them, and how often each was edited.
    fn told(&self) -> Vec<(String, u32)> {
        let read = |posted: &discord::Posted| (discord::readable(&posted.payload), posted.edits);
        self.discord.with(|discord| discord.messages.iter().map(read).collect())
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn metric(receiver: &Receiver, name: &str) -> u64 {
    let page = Shipper::connect(receiver.address()).await.unwrap().ask("GET", "/metrics", "", b"").await.unwrap();
    let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    page.body.lines().find_map(value).unwrap_or(0)
}

#[tokio::test]
async fn a_full_disk_is_told_within_two_seconds_on_a_host_never_seen_and_counted_when_it_comes_again() {
    let world = World::new().await;
    let receiver = world.start().await;
    let disk = |host: &str| format!(r#"[{{"date":{:.6},"log":"{FULL}","host":"{host}"}}]"#, now()).into_bytes();
    // Other tests run beside this one: the second best of three hosts counts, each of which is seen for the first time. Of
    // the 1.2 s that it takes on a busy machine, one waits for lines that might continue this one.
    let mut took = Vec::new();
    for (before, host) in ["web-1", "web-2", "web-3"].into_iter().enumerate() {
        let pushed = std::time::Instant::now();
        let answer = receiver.push(&disk(host)).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"accepted":1,"errors":false}"#));
        until("a message", async || world.told().len() > before).await;
        took.push(pushed.elapsed());
        let (text, _) = &world.told()[before];
        assert!(text.contains("HIGH") || text.contains("CRITICAL"), "{text}");
        assert!(text.contains(FULL) && text.contains(host), "the line itself, and where: {text}");
        assert!(text.contains("logwarden-receiver mute"), "the program that runs is named: {text}");
    }
    took.sort();
    assert!(took[1] < Duration::from_secs(2), "told after {took:?}");

    for count in 2..4_u32 {
        receiver.push(&disk("web-1")).await.unwrap();
        let counted = format!("{count} events");
        until("the count in the same message", async || world.told()[0].0.contains(&counted)).await;
    }
    assert_eq!(world.told().len(), 3, "{:#?}", world.told());
    let list = out(&world.run(&["incidents"]).await);
    let line = list.lines().find(|line| line.contains("web-1: A file system is nearly full")).unwrap();
    assert!(line.contains("firing") && list.contains("what repeats is counted in the same message"), "{list}");
    let id = line.split(' ').next().unwrap();
    let shown = out(&world.run(&["incidents", id]).await);
    assert!(shown.contains("why no new message") && shown.contains("3 so far"), "{shown}");
}

#[tokio::test]
async fn the_models_explanation_edits_the_message() {
    let world = World::with_model().await;
    let receiver = world.start().await;
    receiver.push(&records(now(), [FULL])).await.unwrap();
    until("an edited message", async || world.told().first().is_some_and(|(_, edits)| *edits > 0)).await;
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].0.contains("qwen3:4b-instruct"), "the words are the model's, and marked so: {}", told[0].0);
    assert!(told[0].0.contains(FULL), "{}", told[0].0);
    drop(receiver);
}

#[tokio::test]
async fn several_hosts_and_files_are_judged_together() {
    let world = World::with_model().await;
    std::fs::write(world.path().join("logwarden.toml"), "[receiver]\nwindow_seconds = 2\n").unwrap();
    let receiver = world.start().await;
    for (host, file) in [("web-1", "syslog"), ("web-2", "app.log"), ("db-1", "postgresql.log")] {
        let body = format!(
            r#"[{{"date":{:.6},"log":"{file}: nightly report {host} written","host":"{host}","file":"/var/log/{file}"}}]"#,
            now()
        );
        assert!(receiver.push(body.as_bytes()).await.unwrap().is_success());
        // In three ingests of their own.
        until("an ingest", async || metric(&receiver, "logwarden_push_spool_rows").await == 0).await;
    }
    let ollama = world.ollama.as_ref().unwrap();
    until("a call", async || !ollama.chats().is_empty()).await;
    let prompt = ollama.chats()[0].to_string();
    for part in ["web-1", "web-2", "db-1"] {
        assert!(prompt.contains(part), "{part}: {prompt}");
    }
    until("all judged", async || metric(&receiver, "logwarden_lines_analysed_by_total{name=\"general\"}").await == 3)
        .await;
    assert_eq!(ollama.chats().len(), 1, "one call for all of them");
}

#[tokio::test]
async fn at_the_end_what_is_under_way_is_finished_and_who_comes_then_comes_again() {
    let world = World::new().await;
    let receiver = world.start().await;
    let body = records(now(), [FULL, "the second half"]);
    let mut shipper = Shipper::connect(receiver.address()).await.unwrap();
    shipper.begin("POST", "/receive_logs", "", body.len()).await.unwrap();
    shipper.send(&body[..40]).await.unwrap();
    until("a request under way", async || metric(&receiver, "logwarden_push_connections").await >= 2).await;

    receiver.signal("TERM");
    // Until it has heard the signal it takes what comes; that must be there, too.
    let mut taken = 2;
    until("somebody is told to come again", async || {
        let Ok(mut late) = Shipper::connect(receiver.address()).await else { return false };
        let Ok(answer) = late.push(&records(now(), ["late"])).await else { return false };
        taken += u64::from(answer.is_success());
        answer.status == 503 && answer.retry_after.is_some_and(|seconds| seconds > 0)
    })
    .await;
    shipper.send(&body[40..]).await.unwrap();
    let answer = shipper.answer().await.unwrap();
    assert_eq!((answer.status, answer.body.contains("\"accepted\":2")), (200, true), "{answer:?}");
    let waited = std::time::Instant::now();
    let (status, log) = receiver.ended().await.unwrap();
    assert!(status.success() && log.contains("everything acknowledged is on disk"), "{log}");
    assert!(waited.elapsed() < ENDS, "it took {:?} to end: {log}", waited.elapsed());
    assert_eq!(world.told().len(), 1, "what was found at the end was told");

    let receiver = world.start().await;
    until("all that was taken", async || metric(&receiver, "logwarden_lines_read_total").await >= taken).await;
}

/// A service manager gives a service at least half a minute; so much of it is enough.
const ENDS: Duration = Duration::from_secs(15);

#[tokio::test]
async fn an_alert_that_is_under_way_at_the_end_is_told_once_and_nobody_waits_for_the_model() {
    let world = World::with_model().await;
    let ollama = world.ollama.as_ref().unwrap();
    ollama.inject(ollama::Fault::StallBeforeHeaders);
    // Discord takes its time for the first message.
    world.discord.script([Fault::Drip(Duration::from_millis(5))]);
    let receiver = world.start().await;
    receiver.push(&records(now(), [FULL])).await.unwrap();
    until("a message under way", async || !world.discord.requests().is_empty()).await;
    until("a call under way", async || !ollama.chats().is_empty()).await;
    receiver.signal("TERM");
    let waited = std::time::Instant::now();
    let (status, log) = receiver.ended().await.unwrap();
    assert!(status.success() && waited.elapsed() < ENDS, "it took {:?} to end: {log}", waited.elapsed());
    assert_eq!(world.told().len(), 1, "{:#?}", world.told());
    let _receiver = world.start().await;
    until("the next one works", async || world.run(&["test-alert"]).await.status.success()).await;
    assert_eq!(world.told().len(), 2, "nothing is told again: {:#?}", world.told());
}

#[tokio::test]
async fn systemd_hears_that_it_is_ready_alive_and_stopping() {
    let world = World::new().await;
    let path = world.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let hears = || {
        let mut heard = [0; 200];
        systemd.recv(&mut heard).map(|length| String::from_utf8_lossy(&heard[..length]).into_owned())
    };
    let mut serve = command(world.path(), &["serve", "--listen", "127.0.0.1:0"]);
    serve.envs(world.environment()).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "3000000");
    let receiver = Receiver::spawn(serve).await.unwrap();
    assert_eq!(hears().unwrap(), format!("READY=1\nSTATUS=listens on {}", receiver.address()));
    for _ in 0..2 {
        assert_eq!(hears().unwrap(), "WATCHDOG=1");
    }

    // Somebody who never ends a transaction: nothing can be stored, and a restart may help.
    let ledger = logwarden_sqlite::rusqlite::Connection::open(world.path().join("state/ledger.db")).unwrap();
    ledger.execute_batch("BEGIN IMMEDIATE").unwrap();
    until("it notices", async || receiver.log().contains("the watchdog is not told")).await;
    while systemd.set_nonblocking(true).is_ok() && hears().is_ok() {}
    until("it notices again", async || receiver.log().matches("the watchdog is not told").count() > 1).await;
    assert!(hears().is_err(), "not alive");
    ledger.execute_batch("ROLLBACK").unwrap();
    systemd.set_nonblocking(false).unwrap();
    assert_eq!(hears().unwrap(), "WATCHDOG=1");

    receiver.signal("INT");
    let stopping = std::iter::repeat_with(|| hears().unwrap()).find(|heard| heard != "WATCHDOG=1").unwrap();
    assert!(stopping.starts_with("STOPPING=1"), "{stopping}");
    assert!(receiver.ended().await.unwrap().0.success());
}

/// `serve` with a socket that is open already, as systemd starts it for a `.socket` unit.
fn activated(world: &World, listener: &TcpListener) -> tokio::process::Command {
    let mut serve = command(world.path(), &["serve"]);
    serve.envs(world.environment()).stdin(OwnedFd::from(listener.try_clone().unwrap()));
    serve
}

#[tokio::test]
async fn a_socket_of_systemds_is_used_and_nobody_is_refused_while_the_receiver_is_away() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let receiver = Receiver::spawn(activated(&world, &listener)).await.unwrap();
    assert_eq!(receiver.address(), address);
    assert_eq!(receiver.push(&records(now(), ["before"])).await.unwrap().status, 200);
    receiver.signal("TERM");
    assert!(receiver.ended().await.unwrap().0.success());

    // Nobody is there, and the connection waits.
    let mut shipper = Shipper::connect(address).await.unwrap();
    let body = records(now(), ["meanwhile"]);
    shipper.begin("POST", "/receive_logs", "", body.len()).await.unwrap();
    shipper.send(&body).await.unwrap();
    let receiver = Receiver::spawn(activated(&world, &listener)).await.unwrap();
    assert_eq!(shipper.answer().await.unwrap().status, 200);
    until("both lines", async || metric(&receiver, "logwarden_lines_read_total").await == 2).await;
}

#[tokio::test]
async fn a_state_that_cannot_be_written_is_told_at_the_start() {
    let world = World::new().await;
    std::fs::write(world.path().join("state"), "a file where the directory belongs").unwrap();
    let output = world.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("cannot use the state") && err(&output).contains("--state-dir DIR"),
        "{}",
        err(&output)
    );
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_is_there() {
    let world = World::with_model().await;
    let receiver = world.start().await;
    let body = records(now(), [FULL]);
    for _ in 0..2 {
        receiver.push(&body).await.unwrap();
    }
    receiver.push(b"\x92").await.unwrap();
    until("a judged line", async || metric(&receiver, "logwarden_lines_analysed_by_total{name=\"general\"}").await > 0)
        .await;
    let page = Shipper::connect(receiver.address()).await.unwrap().ask("GET", "/metrics", "", b"").await.unwrap().body;
    let there: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let docs = include_str!("../../../docs/push.md");
    let documented: BTreeSet<&str> =
        docs.lines().filter_map(|line| line.strip_prefix("| `logwarden_")?.split(['`', '{']).next()).collect();
    let there: BTreeSet<&str> = there.iter().filter_map(|name| name.strip_prefix("logwarden_")).collect();
    assert_eq!(there, documented);
    for path in ["/healthz", "/readyz", "/ready"] {
        let answer = Shipper::connect(receiver.address()).await.unwrap().ask("GET", path, "", b"").await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(docs.contains(path), "{path}");
    }
}
