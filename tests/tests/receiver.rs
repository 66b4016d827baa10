//! The receiver from end to end: the real binary, pushed to as Fluent Bit does, against doubles of Discord and Ollama.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use logwarden_config::SystemEnv;
use logwarden_core::{
    LineId, ProfileName,
    ledger::{Commit, Committed, Jobs, Ledger, LedgerError, Query, Snapshot},
    retention::Limits,
    templates::Zone,
};
use logwarden_ledger::{Options, SqliteLedger};
use logwarden_push_source::{PushSource, Receiver as PushReceiver};
use logwarden_tests::{
    chat::Fault,
    discord::{self, Discord, FakeDiscord},
    ollama::{self, Behaviour, Config, FakeOllama, Model},
    receiver::{Crowd, Receiver, Shipper, command, now, records, until},
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

#[tokio::test]
async fn limits_are_what_the_configuration_says() {
    let world = World::new().await;
    let limits = "[receiver]\nmax_body_mib = 1\nmax_unpacked_mib = 2\nclient_requests_per_second = 1\n";
    std::fs::write(world.path().join("logwarden.toml"), limits).unwrap();
    let receiver = world.start().await;
    let body = |lines: usize| records(now(), std::iter::repeat_n("app: a line of a hundred bytes or so", lines));
    assert_eq!(receiver.push(&body(10)).await.unwrap().status, 200);
    assert_eq!(receiver.push(&body(30_000)).await.unwrap().status, 413, "2 MB, where 1 MiB is allowed");
    until("a message about what is lost", async || {
        world.told().iter().any(|(text, _)| text.contains("larger than the limits allow"))
    })
    .await;
    // Half a minute's worth at once.
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(receiver.push(&body(1)).await.unwrap());
    }
    let limited = answers.iter().find(|answer| answer.status != 200).unwrap();
    assert!(limited.status == 429 && limited.retry_after.is_some_and(|seconds| seconds > 0), "{limited:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_listed_and_replayed() {
    // With a model, which explains nothing about senders: it is not waited for.
    let world = World::with_model().await;
    let receiver = world.start().await;
    let mut shipper = Shipper::connect(receiver.address()).await.unwrap();
    let broken = b"\x92\xc1 this is no msgpack";
    let answer = shipper.push(broken).await.unwrap();
    assert_eq!(answer.status, 200, "a sender that is refused loses its lines: {answer:?}");
    until("a message about the sender", async || world.told().iter().any(|(text, _)| text.contains("cannot be read")))
        .await;

    let list = out(&world.run(&["quarantine"]).await);
    assert!(list.contains("127.0.0.1"), "{list}");
    let number = list.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let shown = out(&world.run(&["quarantine", "show", &number]).await);
    assert!(shown.contains("this is no msgpack") && shown.contains("\\x92\\xc1"), "{shown}");
    assert_eq!(world.run(&["quarantine", "show", &number, "--raw"]).await.stdout, broken);
    let replayed = world.run(&["quarantine", "replay", &number]).await;
    assert_eq!(replayed.status.code(), Some(1), "{}", out(&replayed));

    let replayed = world.run(&["quarantine", "replay", "--all", "--as-text"]).await;
    assert_eq!(replayed.status.code(), Some(0), "{}{}", out(&replayed), err(&replayed));
    assert!(out(&replayed).contains("1 line wait"), "{}", out(&replayed));
    assert!(out(&world.run(&["quarantine"]).await).contains("everything that was sent could be read"));
    let missing = world.run(&["quarantine", "show", &number]).await;
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("logwarden-receiver quarantine"), "{}", err(&missing));
}

#[tokio::test]
async fn a_second_receiver_a_taken_port_and_an_open_door_are_told_with_what_to_do() {
    let world = World::new().await;
    let receiver = world.start().await;
    let second = world.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(second.status.code(), Some(1));
    assert!(err(&second).contains("another receiver uses the state"), "{}", err(&second));

    let elsewhere = World::new().await;
    let address = receiver.address().to_string();
    let taken = elsewhere.run(&["serve", "--listen", &address]).await;
    assert_eq!(taken.status.code(), Some(1));
    assert!(err(&taken).contains("is the receiver running already?"), "{}", err(&taken));

    let open = elsewhere.run(&["serve", "--listen", "0.0.0.0:0"]).await;
    assert_eq!(open.status.code(), Some(2));
    assert!(err(&open).contains("--insecure-allow") && err(&open).contains("tls     On"), "{}", err(&open));

    let mut doctor = command(world.path(), &["doctor", "--offline"]);
    let doctor = doctor.envs(world.environment()).env("RECEIVER_LISTEN", &address).output().await.unwrap();
    let text = out(&doctor);
    assert_eq!(doctor.status.code(), Some(0), "{text}");
    assert!(text.contains(&format!("{address} answers: ready")), "{text}");
    let port = format!("Port                       {}", receiver.address().port());
    assert!(text.contains(&port) && text.contains("OpenTelemetry"), "{text}");
    assert!(world.run(&["test-alert"]).await.status.success());
    assert_eq!(world.told().len(), 1);
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

/// What is on disk: lines of each host, folded by a receiver that is started for it, once all of them are.
async fn on_disk(world: &World, wanted: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let receiver = world.start().await;
    let total: u64 = wanted.values().sum();
    let mut kept = 0;
    let mut same = 0;
    // Until they are all there, or nothing changes any more: those that are missing never come.
    until("everything is folded", async || {
        let now = metric(&receiver, "logwarden_lines_kept_total").await;
        same = if now == kept { same + 1 } else { 0 };
        kept = now;
        let waiting = metric(&receiver, "logwarden_push_spool_rows").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        waiting == 0 && (kept == total || same > 150)
    })
    .await;
    receiver.signal("TERM");
    assert!(receiver.ended().await.unwrap().0.success());
    let (ledger, _) = SqliteLedger::open(&world.path().join("state"), &Options::default(), Limits::default()).unwrap();
    let jobs = ledger.read(&Query { jobs: Jobs::Open { limit: 100_000 }, ..Query::default() }).await.unwrap().jobs;
    let mut found: BTreeMap<String, u64> = wanted.keys().map(|host| (host.clone(), 0)).collect();
    for job in jobs {
        let query = Query { segments: vec![job.row.segment], ..Query::default() };
        for row in ledger.read(&query).await.unwrap().segments.iter().flat_map(|segment| &segment.rows) {
            *found.entry(row.row.origin.host.to_string()).or_default() += row.row.lines;
        }
    }
    found
}

/// Random enough, and different in every run.
fn some_time() -> Duration {
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    Duration::from_millis(20 + u64::from(nanos / 1000) % 400)
}

#[tokio::test]
async fn killed_at_any_instant_every_acknowledged_batch_is_there_once() {
    let world = World::new().await;
    let mut crowd = Crowd::new(4);
    for _ in 0..6 {
        let receiver = world.start().await;
        let address = receiver.address();
        crowd
            .push_while(address, async {
                tokio::time::sleep(some_time()).await;
                receiver.kill().await;
            })
            .await;
    }
    let receiver = world.start().await;
    crowd.finish(receiver.address()).await.unwrap();
    receiver.kill().await;
    assert_eq!(lost(&world, &crowd).await, 0);
}

#[tokio::test]
async fn the_same_test_notices_an_answer_that_comes_before_the_disk() {
    let world = World::new().await;
    let mut crowd = Crowd::new(4);
    let receiver = Receiver::spawn(careless(&world, "early")).await.unwrap();
    let address = receiver.address();
    crowd
        .push_while(address, async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            receiver.kill().await;
        })
        .await;
    assert!(lost(&world, &crowd).await > 0);
}

/// A receiver that cannot be relied on, in a process of its own that can be killed: `early` answers before it stores,
/// `blind` does not look whether it could.
fn careless(world: &World, how: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_careless_receiver", "--ignored", "--nocapture"]);
    command.env("CARELESS_STATE", world.path().join("state")).env("CARELESS", how);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
#[ignore = "not a test: the process that `careless` starts"]
async fn a_careless_receiver() {
    let Some(state) = std::env::var_os("CARELESS_STATE") else { return };
    std::fs::create_dir_all(&state).unwrap();
    let (ledger, _) = SqliteLedger::open(Path::new(&state), &Options::default(), Limits::default()).unwrap();
    let is_early = std::env::var("CARELESS").unwrap() == "early";
    let ledger = Arc::new(Careless { ledger: Arc::new(ledger), is_early });
    let source = Arc::new(PushSource::new(ledger.clone(), vec![ProfileName::general()], Zone::UTC));
    let receiver = PushReceiver::builder(ledger, source, Arc::new(SystemEnv)).listen(([127, 0, 0, 1], 0).into());
    let receiver = receiver.build().unwrap();
    eprintln!("listen={} ", receiver.local_addr());
    receiver.serve(std::future::pending()).await.unwrap();
}

/// Says that a batch is stored, whether it is or not.
#[derive(Debug)]
struct Careless {
    ledger: Arc<SqliteLedger>,
    /// It is, but only a moment later.
    is_early: bool,
}

#[async_trait::async_trait]
impl Ledger for Careless {
    async fn read(&self, query: &Query) -> Result<Snapshot, LedgerError> {
        self.ledger.read(query).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, LedgerError> {
        if !self.is_early {
            return Ok(self.ledger.commit(commit).await.unwrap_or(Committed::Done));
        }
        let (ledger, commit) = (self.ledger.clone(), commit.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            ledger.commit(&commit).await
        });
        Ok(Committed::Done)
    }
}

/// A small disk for a world's state; gone when dropped. `None` where we may not mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(world: &World, size: &str) -> Option<Self> {
        let path = world.path().join("state");
        std::fs::create_dir_all(&path).unwrap();
        let disk = Self(path);
        disk.run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).then_some(disk)
    }

    fn remount(&self, options: &str) {
        assert!(self.run("mount", &["-o", &format!("remount,{options}")]));
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let mut command = std::process::Command::new(program);
        command.args(arguments).arg(&self.0).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.run("umount", &["--lazy"]);
    }
}

/// Pushes until somebody is refused, who must be told to come again; `false` when nobody ever is, although much more was
/// sent than there is room for.
async fn until_refused(receiver: &Receiver, crowd: &mut Crowd) -> bool {
    let filling = async {
        for number in 0..150_u8 {
            // What cannot be compressed: each line is a hash of its own.
            let lines: Vec<String> = (0..2_000_u64)
                .map(|line| LineId::of(&[&[number], &line.to_le_bytes(), &now().to_bits().to_le_bytes()]))
                .map(|id| format!("{:032x}{:032x}", id.bits(), id.bits().rotate_left(7)))
                .collect();
            let body = records(now(), lines.iter().map(String::as_str));
            let answer = receiver.push(&body).await.unwrap();
            if !answer.is_success() {
                assert_eq!((answer.status, answer.retry_after.is_some()), (503, true), "{answer:?}");
                return true;
            }
        }
        false
    };
    crowd.push_while(receiver.address(), filling).await
}

/// Lines that were acknowledged and are not on disk.
async fn lost(world: &World, crowd: &Crowd) -> u64 {
    let acknowledged = crowd.acknowledged();
    assert!(acknowledged.values().all(|lines| *lines > 0), "everybody got through: {acknowledged:?}");
    let found = on_disk(world, &acknowledged).await;
    let lost = |(host, lines): (&String, &u64)| lines.checked_sub(found[host]).expect("nothing is there twice");
    acknowledged.iter().map(lost).sum()
}

#[tokio::test]
async fn a_full_disk_refuses_and_what_was_acknowledged_before_is_there() {
    let world = World::new().await;
    let Some(disk) = SmallDisk::mount(&world, "3m") else { return };
    let receiver = world.start().await;
    let mut crowd = Crowd::new(2);
    assert!(until_refused(&receiver, &mut crowd).await);
    disk.remount("size=200m");
    let address = receiver.address();
    until("room again", async || crowd.finish(address).await.is_ok()).await;
    receiver.kill().await;
    assert_eq!(lost(&world, &crowd).await, 0);
    disk.remount("ro");
    let output = world.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(output.status.code(), Some(1), "nobody listens on a disk that cannot be written");
    assert!(err(&output).contains("cannot use the state"), "{}", err(&output));
}

#[tokio::test]
async fn the_same_test_notices_a_full_disk_that_nobody_looks_at() {
    let world = World::new().await;
    let Some(disk) = SmallDisk::mount(&world, "3m") else { return };
    let receiver = Receiver::spawn(careless(&world, "blind")).await.unwrap();
    let mut crowd = Crowd::new(2);
    assert!(!until_refused(&receiver, &mut crowd).await);
    disk.remount("size=200m");
    receiver.kill().await;
    assert!(lost(&world, &crowd).await > 0);
}

/// The same command where writing beyond some size of a file fails.
fn limited(command: &tokio::process::Command) -> tokio::process::Command {
    let command = command.as_std();
    let mut limited = tokio::process::Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 3000; exec \"$0\" \"$@\""]).arg(command.get_program());
    limited.args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    limited
}

#[tokio::test]
async fn an_input_output_error_refuses_and_what_was_acknowledged_before_is_there() {
    let world = World::new().await;
    let mut serve = command(world.path(), &["serve", "--listen", "127.0.0.1:0"]);
    serve.envs(world.environment());
    let receiver = Receiver::spawn(limited(&serve)).await.unwrap();
    let mut crowd = Crowd::new(2);
    assert!(until_refused(&receiver, &mut crowd).await);
    receiver.kill().await;
    let receiver = world.start().await;
    crowd.finish(receiver.address()).await.unwrap();
    receiver.kill().await;
    assert_eq!(lost(&world, &crowd).await, 0);
}

#[tokio::test]
async fn the_same_test_notices_an_input_output_error_that_nobody_looks_at() {
    let world = World::new().await;
    let receiver = Receiver::spawn(limited(&careless(&world, "blind"))).await.unwrap();
    let mut crowd = Crowd::new(2);
    assert!(!until_refused(&receiver, &mut crowd).await);
    receiver.kill().await;
    assert!(lost(&world, &crowd).await > 0);
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
    let docs = include_str!("../../docs/push.md");
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
