//! What was acknowledged is on disk, whatever happens to the process or to the disk.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use logwarden_config::SystemEnv;
use logwarden_core::{
    LineId, ProfileName, Timestamp,
    ledger::{
        Commit, CommitId, Committed, Jobs, Ledger, LedgerError, ProcessId, Query, Snapshot, SourceState, Versioned,
        Write,
    },
    retention::Limits,
    source::SourceId,
    templates::Zone,
};
use logwarden_ledger::{Options, SqliteLedger};
use logwarden_push_source::{PushSource, Receiver as PushReceiver};
use logwarden_tests::{
    ollama::Fault,
    receiver::{Crowd, Receiver, command, now, records, until},
};

use crate::{World, err, metric};

fn open(world: &World) -> SqliteLedger {
    SqliteLedger::open(&world.path().join("state"), &Options::default(), Limits::default()).unwrap().0
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
    let ledger = open(world);
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
/// `blind` does not look whether it could, nor whether there is a state at all.
fn careless(world: &World, how: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "disk::a_careless_receiver", "--ignored", "--nocapture"]);
    command.env("CARELESS_STATE", world.path().join("state")).env("CARELESS", how);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
#[ignore = "not a test: the process that `careless` starts"]
async fn a_careless_receiver() {
    let Some(state) = std::env::var_os("CARELESS_STATE") else { return };
    std::fs::create_dir_all(&state).unwrap();
    let opened = SqliteLedger::open(Path::new(&state), &Options::default(), Limits::default());
    let ledger = opened.ok().map(|(ledger, _)| Arc::new(ledger));
    let is_early = std::env::var("CARELESS").unwrap() == "early";
    let ledger = Arc::new(Careless { ledger, is_early });
    let source = Arc::new(PushSource::new(ledger.clone(), vec![ProfileName::general()], Zone::UTC));
    let receiver = PushReceiver::builder(ledger, source, Arc::new(SystemEnv)).listen(([127, 0, 0, 1], 0).into());
    let receiver = receiver.build().unwrap();
    eprintln!("listen={} ", receiver.local_addr());
    receiver.serve(std::future::pending()).await.unwrap();
}

/// Says that a batch is stored, whether it is or not.
#[derive(Debug)]
struct Careless {
    ledger: Option<Arc<SqliteLedger>>,
    /// It is, but only a moment later.
    is_early: bool,
}

#[async_trait::async_trait]
impl Ledger for Careless {
    async fn read(&self, query: &Query) -> Result<Snapshot, LedgerError> {
        match &self.ledger {
            Some(ledger) => ledger.read(query).await,
            None => Ok(Snapshot::default()),
        }
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, LedgerError> {
        let Some(ledger) = self.ledger.clone() else { return Ok(Committed::Done) };
        if !self.is_early {
            return Ok(ledger.commit(commit).await.unwrap_or(Committed::Done));
        }
        let commit = commit.clone();
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
        for _ in 0..150 {
            let answer = receiver.push(&random(2_000, 2)).await.unwrap();
            if !answer.is_success() {
                assert_eq!((answer.status, answer.retry_after.is_some()), (503, true), "{answer:?}");
                return true;
            }
        }
        false
    };
    crowd.push_while(receiver.address(), filling).await
}

/// Lines that cannot be compressed: each is made of so many hashes of its own.
fn random(lines: u64, hashes: u64) -> Vec<u8> {
    let seed = now().to_bits().to_le_bytes();
    let hash = |line: u64, number: u64| LineId::of(&[&seed, &line.to_le_bytes(), &number.to_le_bytes()]).bits();
    let line = |line| (0..hashes).map(|number| format!("{:032x}", hash(line, number))).collect();
    let lines: Vec<String> = (0..lines).map(line).collect();
    records(now(), lines.iter().map(String::as_str))
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
}

#[tokio::test]
async fn nobody_listens_on_a_disk_that_cannot_be_written() {
    let world = World::new().await;
    let Some(disk) = SmallDisk::mount(&world, "20m") else { return };
    let receiver = world.start().await;
    assert!(receiver.push(&records(now(), ["app: started"])).await.unwrap().is_success());
    receiver.signal("TERM");
    assert!(receiver.ended().await.unwrap().0.success());
    disk.remount("ro");
    let output = world.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("cannot use the state"), "{}", err(&output));

    // One that does not look listens, takes lines, and has lost them.
    let careless = Receiver::spawn(careless(&world, "blind")).await.unwrap();
    let mut crowd = Crowd::new(2);
    let address = careless.address();
    let pushed =
        async { until("lines", async || metric(&careless, "logwarden_push_accepted_lines_total").await > 0).await };
    crowd.push_while(address, pushed).await;
    careless.kill().await;
    disk.remount("rw");
    assert!(lost(&world, &crowd).await > 0);
}

/// Another process has the source, so that nothing is folded, or has it no more.
async fn hold_up(ledger: &SqliteLedger, holds: bool) {
    let id = SourceId("push".to_owned());
    until("the source", async || {
        let query = Query { source: Some(id.clone()), ..Query::default() };
        let Some(known) = ledger.read(&query).await.unwrap().source else { return false };
        let until = Timestamp::from_secs(now() as i64 + 90);
        let row = SourceState { owner: holds.then_some(ProcessId(7)), epoch: known.row.epoch + 1, until, ..known.row };
        let write = Write::Source(id.clone(), Versioned { version: known.version, row });
        let commit = Commit { id: CommitId(u128::from(now().to_bits())), writes: vec![write] };
        ledger.commit(&commit).await.unwrap() == Committed::Done
    })
    .await;
}

#[tokio::test]
async fn a_full_spool_tells_senders_to_come_again_and_takes_what_they_bring_once_it_is_folded() {
    let world = World::new().await;
    std::fs::write(world.path().join("logwarden.toml"), "[receiver]\nmax_spool_mib = 16\n").unwrap();
    let receiver = world.start().await;
    let ledger = open(&world);
    hold_up(&ledger, true).await;
    let mut taken = 0;
    let refused = loop {
        let body = random(200, 150);
        let answer = receiver.push(&body).await.unwrap();
        if !answer.is_success() {
            assert_eq!((answer.status, answer.retry_after), (503, Some(30)), "{answer:?}");
            break body;
        }
        taken += 200;
        assert!(taken < 100_000, "the spool has no bound");
    };
    let spooled = metric(&receiver, "logwarden_push_spool_bytes").await;
    assert!((15 << 20..=16 << 20).contains(&spooled), "{spooled}");
    assert!(metric(&receiver, "logwarden_push_requests_total{outcome=\"full\"}").await > 0);
    until("a message about it", async || world.told().iter().any(|(text, _)| text.contains("there is no room"))).await;

    hold_up(&ledger, false).await;
    until("room again", async || receiver.push(&refused).await.unwrap().is_success()).await;
    until("everything folded", async || metric(&receiver, "logwarden_push_spool_bytes").await == 0).await;
    assert_eq!(metric(&receiver, "logwarden_lines_read_total").await, taken + 200);
}

#[tokio::test]
async fn memory_stays_flat_while_the_model_is_away_and_windows_pile_up() {
    let world = World::with_model().await;
    world.ollama.as_ref().unwrap().inject(Fault::StallBeforeHeaders);
    std::fs::write(world.path().join("logwarden.toml"), "[receiver]\nwindow_seconds = 1\n").unwrap();
    let receiver = world.start().await;
    // A hundred thousand lines in twenty-five windows, with new templates in each of them, which the model should explain.
    for window in 0..25_u64 {
        let lines: Vec<String> = (0..4_000_u64)
            .map(|line| match line % 10 {
                0 => format!(
                    "service-{}: component {} entered state {}",
                    line % 70,
                    word(window * 4_000 + line),
                    word(line)
                ),
                _ => format!("nginx[7]: 203.0.113.{} GET /api/items/{line} 200 {} ms", line % 250, window + line),
            })
            .collect();
        let body = records(now(), lines.iter().map(String::as_str));
        assert!(receiver.push(&body).await.unwrap().is_success());
        until("an ingest", async || metric(&receiver, "logwarden_push_spool_rows").await == 0).await;
    }
    let ledger = open(&world);
    let jobs = ledger.read(&Query { jobs: Jobs::Open { limit: 10_000 }, ..Query::default() }).await.unwrap().jobs.len();
    let peak = receiver.peak_memory() >> 20;
    assert!(jobs >= 25 && peak < 128, "{jobs} jobs wait, {peak} MiB at most");
}

/// A word for a number: letters only, so that it makes a template of its own.
fn word(mut number: u64) -> String {
    let mut word = String::new();
    while word.len() < 6 {
        word.push(char::from(b'a' + (number % 26) as u8));
        number = number / 26 + 7;
    }
    word
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
