//! The analyzer from end to end: the real binary against doubles of Loki, Ollama and Discord.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod faults;
mod files;
mod hostile;
mod tls;

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use logwarden_core::{
    ledger::{Ledger, Query},
    retention::Limits,
    source::SourceId,
};
use logwarden_ledger::SqliteLedger;
use logwarden_sqlite::Options;
use logwarden_tests::{
    discord::{self, Discord, FakeDiscord},
    loki::{FakeLoki, Fault, Request},
    ollama::{Behaviour, Config, FakeOllama, Model},
    program,
};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

const OOM: &str = "kernel: Out of memory: Killed process 4242 (java) total-vm:8123456kB, anon-rss:4012345kB, \
                   file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:9000kB oom_score_adj:0";
const NOBODY: &str = "http://127.0.0.1:1";

fn analyzer() -> Command {
    let mut command = Command::new(program::binary("logwarden-analyzer"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/auth.log")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A machine with its doubles and a directory of its own.
struct World {
    directory: TempDir,
    loki: FakeLoki,
    discord: FakeDiscord,
    now: i64,
}

/// Waits until `done`, for at most half a minute.
async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..3000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {what}");
}

/// Asks a process to stop, as Ctrl-C and systemd do.
fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
}

impl World {
    async fn new() -> Self {
        // Building may take longer than the window of a first pass.
        let _ = program::binary("logwarden-analyzer");
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as i64;
        Self {
            directory: TempDir::new().unwrap(),
            loki: FakeLoki::start(now).await.unwrap(),
            discord: FakeDiscord::start(Discord::default()).await.unwrap(),
            now,
        }
    }

    /// A line, so many seconds ago.
    fn log(&self, seconds: i64, text: &str) {
        let labels = [("job", "syslog"), ("host", "web-1"), ("service_name", "kernel")];
        self.loki.push("fake", &labels, self.now - seconds * 1_000_000_000, text);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = analyzer();
        command
            .current_dir(self.directory.path())
            .args(arguments)
            .arg("--state-dir")
            .arg(self.directory.path().join("state"))
            .env("RUNTIME_DIRECTORY", self.directory.path().join("run"))
            .env("LOKI_URL", self.loki.url())
            .env("LOG_QUERIES", r#"{job="syslog"}"#)
            .env("OLLAMA_HOST", NOBODY)
            .env("DISCORD_WEBHOOK_URL", discord::url(&self.discord));
        command
    }

    async fn run(&self) -> Output {
        self.command(&["run"]).output().await.unwrap()
    }

    /// Writes `logwarden.toml`, which is found in the current directory.
    fn configure(&self, text: &str) {
        std::fs::write(self.directory.path().join("logwarden.toml"), text).unwrap();
    }

    /// Messages in the channel, as a person reads them.
    fn told(&self) -> Vec<String> {
        self.discord.with(|discord| discord.messages.iter().map(|posted| discord::readable(&posted.payload)).collect())
    }
}

#[tokio::test]
async fn scan_finds_what_is_wrong_in_the_sample() {
    let output = analyzer().arg("scan").arg(sample()).output().await.unwrap();
    let text = out(&output);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(text.starts_with("CRITICAL"), "the worst comes first: {text}");
    assert!(text.contains("203.0.113.7") && text.contains("No space left on device"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours where nobody looks");
    assert!(text.lines().last().unwrap().contains(" findings ("), "{text}");
}

#[tokio::test]
async fn scan_as_json_has_one_object_per_line_and_real_lines() {
    let output = analyzer().args(["scan", "--format", "json"]).arg(sample()).output().await.unwrap();
    let objects: Vec<serde_json::Value> =
        out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, findings) = objects.split_last().unwrap();
    assert_eq!(
        (summary["type"].as_str(), summary["findings"].as_u64()),
        (Some("summary"), Some(findings.len() as u64))
    );
    let input = std::fs::read_to_string(sample()).unwrap();
    for line in findings.iter().flat_map(|finding| finding["log_lines"].as_array().unwrap()) {
        let line = line.as_str().unwrap();
        assert!(input.lines().any(|of| of == line), "{line}");
    }
    let again = analyzer().args(["scan", "--format", "json"]).arg(sample()).output().await.unwrap();
    let ids = |text: String| -> Vec<String> {
        let objects = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        objects.filter_map(|object| object["id"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(ids(out(&output)), ids(out(&again)), "an id is the same in every run");
}

#[tokio::test]
async fn scan_reads_standard_input_and_says_when_there_is_nothing() {
    let mut child = analyzer().args(["scan", "-", "--fail-on", "high"]).stdin(Stdio::piped()).spawn().unwrap();
    let line = format!("Nov 21 04:00:00 web-1 {OOM}\n");
    child.stdin.take().unwrap().write_all(line.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(3), "{}{}", out(&output), err(&output));
    assert!(out(&output).contains("java"), "{}", out(&output));

    let output = analyzer().args(["scan", "-"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(err(&output).contains("there are no lines in it"), "{}", err(&output));
}

#[tokio::test]
async fn what_scan_only_notices_is_shown_to_its_end_and_counted_once() {
    let mut child = analyzer().args(["scan", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let lines = "Nov 21 04:00:00 web-1 dockerd[9]: level=error msg=\"driver failed programming external connectivity on \
                 endpoint shop_web_1 (4f5e7a8b9c0d): Bind for 0.0.0.0:8080 failed: port is already allocated\"\n";
    child.stdin.take().unwrap().write_all(lines.repeat(3).as_bytes()).await.unwrap();
    let text = out(&child.wait_with_output().await.unwrap());
    assert!(text.contains("Errors of dockerd · 3 events\n"), "{text}");
    assert!(text.contains("port is already allocated") && text.contains("`--format json` has their lines"), "{text}");
}

#[tokio::test]
async fn scan_names_what_it_cannot_read_and_reads_the_others() {
    let directory = TempDir::new().unwrap();
    let output =
        analyzer().args(["scan", "/nonexistent.log"]).arg(directory.path()).arg(sample()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(out(&output).contains("No space left on device"), "{}", out(&output));
    assert!(
        err(&output).contains("/nonexistent.log") && err(&output).contains("hint: name its files"),
        "{}",
        err(&output)
    );
}

#[tokio::test]
async fn a_run_tells_once_and_the_next_one_is_quiet() {
    let world = World::new().await;
    world.log(60, OOM);
    let first = world.run().await;
    assert_eq!(first.status.code(), Some(0), "{}", err(&first));
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:#?}\n{}", err(&first));
    assert!(told[0].contains("java"), "{}", told[0]);
    for words in ["pass starts", "lines=1", "finding ", "sent=1", "pass complete"] {
        assert!(err(&first).contains(words), "{words}: {}", err(&first));
    }
    assert!(!err(&first).contains(discord::TOKEN), "the webhook's address is a secret");

    world.log(30, OOM);
    let second = world.run().await;
    assert_eq!(second.status.code(), Some(0), "{}", err(&second));
    assert_eq!(world.told().len(), 1, "the same again is no news: {:#?}", world.told());
    assert!(err(&second).contains("repeats_suppressed=1"), "{}", err(&second));

    let list = out(&world.command(&["incidents"]).output().await.unwrap());
    assert!(list.contains("critical") && list.contains("firing") && list.contains("java"), "{list}");
}

#[tokio::test]
async fn loki_down_is_said_and_the_next_run_makes_good() {
    let world = World::new().await;
    world.log(60, OOM);
    world.loki.faults(|faults| faults.always = vec![(String::new(), Fault::Status(503, "overloaded".to_owned()))]);
    let down = world.run().await;
    assert_eq!(down.status.code(), Some(1), "{}", err(&down));
    assert!(err(&down).contains("503") && err(&down).contains("pass is incomplete"), "{}", err(&down));
    assert_eq!(world.told().len(), 0);

    world.loki.faults(|faults| faults.always.clear());
    let up = world.run().await;
    assert_eq!(up.status.code(), Some(0), "{}", err(&up));
    assert_eq!(world.told().len(), 1, "{:#?}", world.told());
}

#[tokio::test]
async fn discord_down_is_said_and_the_next_run_makes_good() {
    let world = World::new().await;
    world.log(60, OOM);
    std::fs::write(world.directory.path().join("logwarden.toml"), "[run]\nbudget_seconds = 1\n").unwrap();
    let lost = format!("{NOBODY}/api/webhooks/1/x");
    let down = world.command(&["run"]).env("DISCORD_WEBHOOK_URL", lost).output().await.unwrap();
    assert_eq!(down.status.code(), Some(1), "{}", err(&down));
    assert!(err(&down).contains("pass is incomplete"), "{}", err(&down));
    assert_eq!(world.told().len(), 0);

    std::fs::write(world.directory.path().join("logwarden.toml"), "[run]\nbudget_seconds = 60\n").unwrap();
    let up = world.run().await;
    assert_eq!(up.status.code(), Some(0), "{}", err(&up));
    assert_eq!(world.told().len(), 1, "{:#?}", world.told());
}

#[tokio::test]
async fn with_a_model_it_is_asked_near_by_within_its_ceiling_and_no_secret_is_in_any_log() {
    let world = World::new().await;
    let ollama = FakeOllama::start(Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest))).await;
    world.configure("[model]\ncalls_per_day = 1\n");
    let run = async |level: &str| {
        let mut command = world.command(&["run"]);
        command.env("OLLAMA_HOST", ollama.url()).env("OLLAMA_MODEL", "qwen3:4b-instruct").env("LOGWARDEN_LOG", level);
        // A proxy of the environment is for the internet, not for what is near.
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env(name, NOBODY);
        }
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        err(&output)
    };
    world.log(60, OOM);
    let first = run("trace").await;
    assert!(first.contains("analysed=1"), "{first}");
    assert!(!world.told().is_empty());
    assert!(first.contains(" TRACE ") && !first.contains(discord::TOKEN), "the webhook's address is a secret: {first}");
    // What was spent is remembered from run to run.
    world.log(40, &OOM.replace("(java)", "(mysqld)").replace("4242", "77"));
    let second = run("info").await;
    assert!(second.contains("1 of 1 calls in the last 24 hours are made"), "{second}");
}

#[tokio::test]
async fn two_runs_at_once_tell_once() {
    let world = World::new().await;
    world.log(60, OOM);
    let (one, two) = tokio::join!(world.run(), world.run());
    let codes = [one.status.code(), two.status.code()];
    assert_eq!(codes, [Some(0), Some(0)], "{}\n{}", err(&one), err(&two));
    assert_eq!(world.told().len(), 1, "{:#?}", world.told());

    world.log(
        50,
        "kernel: EXT4-fs error (device sda1): ext4_lookup:1234: inode #2: comm ls: deleted inode referenced: 99",
    );
    let mut watch = world.command(&["watch"]).spawn().unwrap();
    until("the watch has told", || world.told().len() == 2).await;
    let beside = world.run().await;
    assert_eq!(beside.status.code(), Some(0), "{}", err(&beside));
    assert!(err(&beside).contains("another process reads this source; nothing to do"), "{}", err(&beside));
    signal(&watch, "-TERM");
    assert_eq!(watch.wait().await.unwrap().code(), Some(0));
    assert_eq!(world.told().len(), 2, "{:#?}", world.told());
}

#[tokio::test]
async fn every_mistake_is_told_at_once() {
    let world = World::new().await;
    let file = world.directory.path().join("bad.toml");
    std::fs::write(&file, "[loki]\nurll = \"x\"\n[discord]\nurl = \"https://s3cret\"\n").unwrap();
    let output = world.command(&["run", "--config", file.to_str().unwrap()]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = err(&output);
    assert!(
        text.contains("loki.urll") && text.contains("did you mean `url`?") && text.contains("discord.url"),
        "{text}"
    );
    assert!(!text.contains("s3cret"), "{text}");
    let doctor = world.command(&["doctor", "--config", file.to_str().unwrap()]).output().await.unwrap();
    assert_eq!(doctor.status.code(), Some(2), "{}", out(&doctor));
}

#[tokio::test]
async fn doctor_says_what_is_missing_and_a_test_alert_arrives() {
    let world = World::new().await;
    world.log(60, "a line");
    let doctor = world.command(&["doctor"]).output().await.unwrap();
    let text = out(&doctor);
    assert_eq!(doctor.status.code(), Some(1), "{text}");
    assert!(text.contains("✓ loki") && text.contains("✗ model") && text.contains("✓ discord"), "{text}");
    let offline = world.command(&["doctor", "--offline"]).output().await.unwrap();
    assert_eq!(offline.status.code(), Some(0), "{}", out(&offline));

    let test = world.command(&["test-alert"]).output().await.unwrap();
    assert_eq!(test.status.code(), Some(0), "{}{}", out(&test), err(&test));
    assert!(world.told()[0].contains("Test message"), "{:#?}", world.told());
}

#[tokio::test]
async fn a_failed_unit_is_told_once_per_outage() {
    let world = World::new().await;
    for _ in 0..2 {
        let output = world.command(&["notify-failure", "nginx"]).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    }
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        told[0].contains("HIGH nginx.service on ")
            && told[0].contains("nginx.service has failed")
            && told[0].contains("journalctl -u nginx.service"),
        "{}",
        told[0]
    );
}

#[tokio::test]
async fn that_our_own_unit_works_again_is_told_by_its_next_pass() {
    let world = World::new().await;
    let failed = world.command(&["notify-failure", "logwarden-analyzer"]).output().await.unwrap();
    assert_eq!(failed.status.code(), Some(0), "{}", err(&failed));
    assert!(world.told()[0].contains("logwarden-analyzer.service has failed"), "{:#?}", world.told());
    let run = world.run().await;
    assert_eq!(run.status.code(), Some(0), "{}", err(&run));
    let told = world.told();
    assert!(told.len() == 1 && told[0].contains("OVER (was high)"), "edited: {told:#?}");
    assert!(told[0].contains("logwarden-analyzer.service works again"), "{told:#?}");
    world.command(&["notify-failure", "logwarden-analyzer"]).output().await.unwrap();
    assert_eq!(world.told().len(), 2, "a new outage is news: {:#?}", world.told());
}

/// The state may be why it failed.
#[tokio::test]
async fn a_failed_unit_is_told_once_without_a_state_that_can_be_used_and_when_it_is_over() {
    let world = World::new().await;
    let state = world.directory.path().join("state");
    std::fs::write(&state, "a file where the directory should be").unwrap();
    let run = world.run().await;
    assert_eq!(run.status.code(), Some(1), "{}", err(&run));
    assert!(err(&run).contains("error: cannot use the state in"), "{}", err(&run));
    let fail = || world.command(&["notify-failure", "logwarden-analyzer"]).output();
    let failed = fail().await.unwrap();
    assert_eq!(failed.status.code(), Some(0), "{}", err(&failed));
    assert!(err(&failed).contains("the state cannot be used: told without it"), "{}", err(&failed));
    // Its timer starts it again and again.
    for _ in 0..2 {
        let failed = fail().await.unwrap();
        assert_eq!(failed.status.code(), Some(0), "{}", err(&failed));
    }
    let told = world.told();
    assert!(told.len() == 1 && told[0].contains("HIGH") && told[0].contains("has failed"), "{told:#?}");

    std::fs::remove_file(state).unwrap();
    let run = world.run().await;
    assert_eq!(run.status.code(), Some(0), "{}", err(&run));
    let told = world.told();
    assert!(told.len() == 1 && told[0].contains("logwarden-analyzer.service works again"), "edited: {told:#?}");
    fail().await.unwrap();
    assert_eq!(world.told().len(), 2, "a new outage is news: {:#?}", world.told());
}

/// A small disk for the state; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where we may not mount one.
    fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(path))
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 1024]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_in_the_middle_of_a_message_is_no_reason_to_say_it_twice() {
    let world = World::new().await;
    let Some(disk) = SmallDisk::mount(world.directory.path().join("state")) else { return };
    world.configure("keep_free_mib = 0\n");
    // It has arrived, and the answer takes its time.
    world.discord.script([logwarden_tests::chat::Fault::Drip(Duration::from_millis(2))]);
    let mut failing = world.command(&["notify-failure", "nginx"]).spawn().unwrap();
    until("the message arrives", || !world.told().is_empty()).await;
    disk.fill();
    assert!(failing.try_wait().unwrap().is_none(), "it waits for the answer");
    let failed = failing.wait_with_output().await.unwrap();
    assert!(err(&failed).contains("the state cannot be used: told without it"), "{}", err(&failed));
    let fail = async |unit: &str| world.command(&["notify-failure", unit]).output().await.unwrap();
    fail("nginx").await;
    assert_eq!(world.told().len(), 1, "{:#?}\n{}", world.told(), err(&failed));

    // Nor when there is room again.
    disk.free();
    world.run().await;
    fail("nginx").await;
    assert_eq!(world.told().len(), 1, "{:#?}", world.told());

    // What was told before the disk was full, and is still known, is not told again, either.
    fail("postgresql").await;
    assert_eq!(world.told().len(), 2, "{:#?}", world.told());
    disk.fill();
    fail("postgresql").await;
    assert_eq!(world.told().len(), 2, "{:#?}", world.told());
}

#[tokio::test]
async fn init_writes_what_can_be_used_and_overwrites_nothing() {
    let world = World::new().await;
    let directory = world.directory.path().join("etc");
    let init = || world.command(&["init", "--dir", directory.to_str().unwrap()]).output();
    assert_eq!(init().await.unwrap().status.code(), Some(0));
    let config = directory.join("logwarden.toml");
    let doctor = world.command(&["doctor", "--offline", "--config", config.to_str().unwrap()]).output().await.unwrap();
    assert_eq!(doctor.status.code(), Some(0), "{}", out(&doctor));
    std::fs::write(&config, "# mine").unwrap();
    assert_eq!(init().await.unwrap().status.code(), Some(2), "everything is there");
    std::fs::remove_file(directory.join("logwarden-analyzer.timer")).unwrap();
    let again = init().await.unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", err(&again));
    assert!(out(&again).contains("kept ") && directory.join("logwarden-analyzer.timer").exists(), "{}", out(&again));
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "# mine");
}

#[tokio::test]
async fn fold_counts_every_line() {
    let output = analyzer().args(["fold", "--format", "json"]).arg(sample()).output().await.unwrap();
    let rows = out(&output);
    let rows = rows.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lines: u64 = rows.map(|row| row["lines"].as_u64().unwrap()).sum();
    assert_eq!(lines, std::fs::read_to_string(sample()).unwrap().lines().count() as u64);
}

const HOUR: i64 = 3_600;

/// `level=error msg="receipt not sent" order=1001`, every half hour for three days, and a kill in the middle.
fn past(world: &World) -> u64 {
    let mut lines = 0;
    for half_hour in 2..6 * 24 {
        let seconds = half_hour * HOUR / 2;
        world.log(seconds, &format!("level=error msg=\"receipt not sent\" order={}", 10_000 + seconds));
        lines += 1;
    }
    world.log(30 * HOUR, OOM);
    lines + 1
}

#[tokio::test]
async fn backfill_learns_the_past_once_and_alerts_nobody() {
    let world = World::new().await;
    let lines = past(&world);
    let first = world.command(&["backfill", "--since", "4d"]).output().await.unwrap();
    assert_eq!(first.status.code(), Some(0), "{}", err(&first));
    assert!(out(&first).starts_with(&format!("learned {lines} lines")), "{}", out(&first));
    assert!(err(&first).contains("percent=100"), "{}", err(&first));
    let again = world.command(&["backfill", "--since", "4d"]).output().await.unwrap();
    assert!(out(&again).starts_with("learned already"), "{}{}", out(&again), err(&again));
    assert_eq!(world.told().len(), 0, "{:#?}", world.told());
    let list = out(&world.command(&["incidents", "--all"]).output().await.unwrap());
    assert!(list.starts_with("no incidents"), "{list}");

    // What is known is no news from the first pass on, and what is new is.
    world.log(60, "level=error msg=\"receipt not sent\" order=77");
    world.log(50, "level=error msg=\"stock ledger out of step\" warehouse=7");
    let run = world.run().await;
    assert_eq!(run.status.code(), Some(0), "{}", err(&run));
    assert_eq!(world.told().len(), 1, "{:#?}", world.told());
    assert!(world.told()[0].contains("stock ledger"), "{:#?}", world.told());
}

#[tokio::test]
async fn a_backfill_that_cannot_read_goes_on_later() {
    let world = World::new().await;
    let lines = past(&world);
    world.loki.faults(|faults| faults.always = vec![(String::new(), Fault::Status(503, "overloaded".to_owned()))]);
    let down = world.command(&["backfill", "--since", "4d"]).output().await.unwrap();
    assert_eq!(down.status.code(), Some(1), "{}", err(&down));
    assert!(err(&down).contains("503"), "{}", err(&down));

    world.loki.faults(|faults| faults.always.clear());
    let up = world.command(&["backfill", "--since", "4d"]).output().await.unwrap();
    assert!(out(&up).starts_with(&format!("learned {lines} lines")), "{}{}", out(&up), err(&up));
    assert_eq!(world.told().len(), 0);
}

/// A backfill that is at it, waiting for Loki.
async fn hanging_backfill(world: &World) -> Child {
    world.loki.faults(|faults| faults.always = vec![(String::new(), Fault::Hang)]);
    world.loki.requests();
    let child = world.command(&["backfill", "--since", "4d"]).spawn().unwrap();
    until("the backfill asks Loki", || !world.loki.requests().is_empty()).await;
    child
}

#[tokio::test]
async fn of_two_backfills_at_once_one_goes_on_and_a_killed_one_is_taken_over_at_once() {
    let world = World::new().await;
    let lines = past(&world);
    let mut first = hanging_backfill(&world).await;
    let second = world.command(&["backfill", "--since", "4d"]).output().await.unwrap();
    assert_eq!(second.status.code(), Some(1), "{}", err(&second));
    assert!(err(&second).contains("another backfill is under way"), "{}", err(&second));

    first.start_kill().unwrap();
    first.wait().await.unwrap();
    let third = hanging_backfill(&world).await;
    signal(&third, "-TERM");
    let stopped = third.wait_with_output().await.unwrap();
    assert_eq!(stopped.status.code(), Some(1), "{}", err(&stopped));
    assert!(err(&stopped).contains("took over what a process left that is gone"), "{}", err(&stopped));
    assert!(err(&stopped).contains("stopped before the end; nothing is lost"), "{}", err(&stopped));

    world.loki.faults(|faults| faults.always.clear());
    let last = world.command(&["backfill", "--since", "4d"]).output().await.unwrap();
    assert!(out(&last).starts_with(&format!("learned {lines} lines")), "{}{}", out(&last), err(&last));
    assert!(!err(&last).contains("took over"), "what was stopped has given it back: {}", err(&last));
}

/// How many lines the memory of what is normal has of a source.
async fn remembered(world: &World, source: &str) -> u64 {
    let (ledger, _) =
        SqliteLedger::open(&world.directory.path().join("state"), &Options::default(), Limits::default()).unwrap();
    let query = Query { source: Some(SourceId(source.to_owned())), memory: true, ..Query::default() };
    let memory = ledger.read(&query).await.unwrap().memory;
    memory.iter().filter(|(_, row)| row.template.contains("receipt")).map(|(_, row)| row.count).sum()
}

/// Killed while Loki does not answer for the second page: the first one stays learned, the next run learns the rest, and
/// every line is learned once.
#[tokio::test]
async fn a_backfill_that_is_killed_learns_nothing_twice_and_skips_nothing() {
    let world = World::new().await;
    let lines = past(&world);
    let (beside, real) = (format!("past of loki {}", world.loki.url()), format!("loki {}", world.loki.url()));
    let backfill = || {
        let mut command = world.command(&["backfill", "--since", "4d"]);
        command.env("QUERY_LIMIT", "20");
        command
    };
    // The first page ends where Loki fails, and is committed.
    let late = world.now - 24 * HOUR * 1_000_000_000;
    world.loki.faults(|faults| faults.from = Some((late, Fault::Status(503, "overloaded".to_owned()))));
    let failed = backfill().output().await.unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}", err(&failed));
    let log = err(&failed);
    let told = log.lines().rfind(|line| line.contains("percent=")).and_then(|line| line.split("lines=").nth(1));
    let first: u64 = told.and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or_default();
    assert!(first > 0 && first < lines, "{log}");
    let learned = remembered(&world, &beside).await;
    assert!(learned > 0, "it is on disk");

    world.loki.requests();
    world.loki.faults(|faults| faults.from = Some((late, Fault::Hang)));
    let mut killed = backfill().spawn().unwrap();
    let asked = |requests: Vec<Request>| {
        let begins = |request: &Request| request.param("start").and_then(|start| start.parse::<i64>().ok());
        requests.iter().any(|request| begins(request).is_some_and(|begins| begins >= late))
    };
    until("a request for the second page", || asked(world.loki.requests())).await;
    signal(&killed, "-KILL");
    killed.wait().await.unwrap();
    assert_eq!(remembered(&world, &beside).await, learned, "what it had read is not learned");
    assert_eq!(remembered(&world, &real).await, 0, "and nothing is in use before all is");

    world.loki.faults(|faults| faults.from = None);
    let rest = backfill().output().await.unwrap();
    assert!(out(&rest).starts_with(&format!("learned {} lines", lines - first)), "{}{}", out(&rest), err(&rest));
    assert_eq!(remembered(&world, &real).await, lines - 1, "all but the kill");
    assert_eq!(world.told().len(), 0, "{:#?}", world.told());
}

#[tokio::test]
async fn what_is_muted_is_not_told_and_says_so() {
    let world = World::new().await;
    world.log(60, OOM);
    world.run().await;
    let list = out(&world.command(&["incidents"]).output().await.unwrap());
    let id = list.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let muted = ["mute", &id, "--for", "12h", "--reason", "being repaired", "--author", "anna"];
    let muted = world.command(&muted).output().await.unwrap();
    assert_eq!(muted.status.code(), Some(0), "{}", err(&muted));
    let said = out(&muted);
    assert!(
        said.contains("1 incident that goes on is held back") && said.contains("warning: it hides critical"),
        "{said}"
    );

    world.log(30, OOM);
    world.run().await;
    assert_eq!(world.told().len(), 1, "{:#?}", world.told());
    let list = out(&world.command(&["incidents"]).output().await.unwrap());
    assert!(list.contains("muted") && list.contains("anna being repaired"), "{list}");
    let all = out(&world.command(&["mute", "--list"]).output().await.unwrap());
    assert!(all.contains("hides 1 incident") && all.contains("until 20"), "{all}");
    let full = out(&world.command(&["incidents", &id]).output().await.unwrap());
    assert!(full.contains("Muted: "), "{full}");

    let unmuted = world.command(&["unmute", &id]).output().await.unwrap();
    assert_eq!(unmuted.status.code(), Some(0), "{}", err(&unmuted));
    let list = out(&world.command(&["incidents"]).output().await.unwrap());
    assert!(!list.contains("muted"), "{list}");
    let full = out(&world.command(&["incidents", &id]).output().await.unwrap());
    assert!(full.contains("has ended: it is told when it goes on"), "{full}");
    let wrong = world.command(&["mute", "--label", "staging"]).output().await.unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("a label is written with its value"), "{}", err(&wrong));
}

#[tokio::test]
async fn a_file_of_mutes_holds_back_warns_and_is_checked() {
    let world = World::new().await;
    let directory = world.directory.path();
    let mutes = directory.join("mutes.toml");
    let config = format!("[alerts]\nmutes_file = {:?}\n", mutes.to_str().unwrap());
    std::fs::write(directory.join("logwarden.toml"), config).unwrap();
    std::fs::write(&mutes, "[[mute]]\nlabel = \"job=syslog\"\nreason = \"a test machine\"\nauthor = \"anna\"\n")
        .unwrap();
    world.log(60, OOM);
    let run = world.run().await;
    assert_eq!(run.status.code(), Some(0), "{}", err(&run));
    assert_eq!(world.told().len(), 0, "{:#?}", world.told());
    assert!(err(&run).contains("critical or high"), "{}", err(&run));
    let list = out(&world.command(&["incidents"]).output().await.unwrap());
    assert!(list.contains("muted") && list.contains("a test machine"), "{list}");
    let all = out(&world.command(&["mute", "--list"]).output().await.unwrap());
    assert!(all.contains("label job=syslog") && all.contains("(file)"), "{all}");

    // A rule that is not there any more must not keep anybody from being told.
    std::fs::write(&mutes, "\n[[mute]]\nrule = \"oom-kil\"\nreason = \"r\"\nauthor = \"anna\"\n").unwrap();
    world.log(20, "EXT4-fs error (device sda1): ext4_lookup: deleted inode referenced: 12");
    let run = world.run().await;
    assert_eq!(run.status.code(), Some(0), "{}", err(&run));
    assert_ne!(world.told().len(), 0);
    let wanted = "mutes.toml:2: a mute that holds nothing back: there is no rule `oom-kil`; did you mean `oom-kill`?";
    assert!(err(&run).contains(wanted), "{}", err(&run));

    std::fs::write(&mutes, "[[mute]]\nhots = \"web-1\"\n").unwrap();
    let run = world.run().await;
    assert_eq!(run.status.code(), Some(2));
    assert!(err(&run).contains("mutes.toml:2") && err(&run).contains("hots"), "{}", err(&run));
}

#[tokio::test]
async fn the_days_budget_holds_back_what_is_below_high() {
    let world = World::new().await;
    std::fs::write(world.directory.path().join("logwarden.toml"), "[alerts]\nper_day = 1\n").unwrap();
    world.log(60, "postgres: ERROR:  deadlock detected");
    world.log(
        50,
        "nginx: [error] 811#811: *9 upstream timed out (110: Connection timed out) while reading response header",
    );
    world.log(40, OOM);
    let run = world.run().await;
    assert_eq!(run.status.code(), Some(0), "{}", err(&run));
    let told = world.told();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told.iter().any(|message| message.contains("mysqld") || message.contains("java")), "{told:#?}");
    let list = out(&world.command(&["incidents"]).output().await.unwrap());
    assert_eq!(list.matches("firing  2").count(), 3, "{list}");
    assert!(list.contains("1 incident is only listed: the day's budget of alerts is spent"), "{list}");
    let medium = list.lines().filter(|line| line.contains(" medium ")).map(|line| line.split(' ').next().unwrap());
    let mut why = String::new();
    for id in medium {
        why += &out(&world.command(&["incidents", id]).output().await.unwrap());
    }
    assert_eq!(why.matches("it is only listed: the day's budget of alerts is spent").count(), 1, "{why}");
}

#[tokio::test]
async fn the_list_says_who_was_told_and_why_nobody_was() {
    const MINUTE: i64 = 60;
    let nowhere = format!("{NOBODY}/api/webhooks/1/x");
    for (age, config, webhook, told, why) in [
        (1, "", None, "discord", "discord: told at 20"),
        (
            90,
            "",
            None,
            "nobody",
            "only listed: its lines were over an hour old when they were read, and it is below high",
        ),
        (1, "", Some(""), "nobody", "told to nobody: no channel is configured"),
        (1, "[discord]\nmin_severity = \"high\"\n", None, "nobody", "told to nobody: discord takes high and above"),
        (1, "[run]\nbudget_seconds = 1\n", Some(&*nowhere), "nobody", "told to nobody yet: discord: waits"),
    ] {
        let world = World::new().await;
        world.configure(config);
        world.log(age * MINUTE, "postgres: ERROR:  deadlock detected");
        let command = |arguments: &[&str]| {
            let mut command = world.command(arguments);
            command.env("QUERY_WINDOW_MINUTES", "180").env("MODEL_ENABLED", "false");
            webhook.iter().for_each(|url| {
                command.env("DISCORD_WEBHOOK_URL", url);
            });
            command
        };
        command(&["run"]).output().await.unwrap();
        let list = out(&command(&["incidents"]).output().await.unwrap());
        let line = list.lines().find(|line| line.contains(" medium ")).unwrap_or_else(|| panic!("{list}"));
        assert!(line.contains(&format!(" {told} ")), "{list}");
        let full = out(&command(&["incidents", line.split(' ').next().unwrap()]).output().await.unwrap());
        assert!(full.contains(why), "{full}");
        assert_eq!(list.contains("told: once, in these channels"), told == "discord", "{list}");
        assert_eq!(list.contains(&format!("1 incident is {why}")), told == "nobody", "{list}");
    }
}

#[tokio::test]
async fn a_quiet_incident_is_neither_going_on_nor_over() {
    let world = World::new().await;
    world.log(60, OOM);
    let mut full = String::new();
    for _ in 0..30 {
        let run =
            world.command(&["run"]).env("DEDUP_WINDOW", "1").env("MODEL_ENABLED", "false").output().await.unwrap();
        assert_eq!(run.status.code(), Some(0), "{}", err(&run));
        let list = out(&world.command(&["incidents", "--all"]).output().await.unwrap());
        let line = list.lines().find(|line| line.contains("java")).unwrap().to_owned();
        full = out(&world.command(&["incidents", line.split(' ').next().unwrap()]).output().await.unwrap());
        if line.contains(" quiet ") {
            break;
        }
    }
    for words in
        ["CRITICAL (quiet now)", "nobody has said that it is solved", "it is quiet: nothing of it was seen after"]
    {
        assert!(full.contains(words), "{full}");
    }
    assert!(!full.contains("still going on") && !full.contains("it is over"), "{full}");
    let told = world.told();
    assert!(told.len() == 1 && told[0].contains("🔴 CRITICAL (quiet now)"), "{told:#?}");
}

#[tokio::test]
async fn damaged_state_is_an_alert_of_its_own() {
    let world = World::new().await;
    world.log(60, "a line");
    world.run().await;
    let database = world.directory.path().join("state/ledger.db");
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
    }
    std::fs::write(&database, vec![0x5a; 100_000]).unwrap();
    // A command that only looks sets it aside; the alert comes all the same, once.
    let list = world.command(&["incidents"]).output().await.unwrap();
    assert_eq!(list.status.code(), Some(0), "{}", err(&list));
    for _ in 0..2 {
        let run = world.run().await;
        assert_eq!(run.status.code(), Some(0), "{}", err(&run));
    }
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("logwarden has lost its memory") && told[0].contains("ledger.db.damaged-"), "{}", told[0]);
}

/// The disk is nearly full by configuration: nothing is read, that is told, and nothing is lost.
#[tokio::test]
async fn a_disk_that_is_nearly_full_is_told_and_nothing_is_lost() {
    let world = World::new().await;
    world.log(60, OOM);
    world.configure("keep_free_mib = 500_000_000_000\n");
    let full = world.run().await;
    assert_eq!(full.status.code(), Some(1), "{}", err(&full));
    for words in
        ["the disk of the state is nearly full", "the state directory has no room left", "free some space there"]
    {
        assert!(err(&full).contains(words), "{words}: {}", err(&full));
    }
    let told = world.told();
    assert!(
        told.len() == 1 && told[0].contains("the disk that logwarden keeps its state on is nearly full"),
        "{told:#?}"
    );
    let doctor = out(&world.command(&["doctor", "--offline"]).output().await.unwrap());
    assert!(doctor.contains("pushed logs are refused below") && doctor.contains("keep_free_mib"), "{doctor}");

    world.configure("");
    let room = world.run().await;
    assert_eq!(room.status.code(), Some(0), "{}", err(&room));
    let told = world.told();
    assert!(told.len() == 2 && told[0].contains("OVER (was high)") && told[1].contains("java"), "{told:#?}");
}

#[tokio::test]
async fn the_trail_shows_what_was_received_asked_and_answered() {
    let world = World::new().await;
    let ollama = FakeOllama::start(Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest))).await;
    world.log(60, OOM);
    world.log(50, "app: login failed password=hunter2secret for bob");
    let trail = world.directory.path().join("trail");
    let mut command = world.command(&["run", "--trail", trail.to_str().unwrap()]);
    let output = command.env("OLLAMA_HOST", ollama.url()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let read = |name: &str| std::fs::read_to_string(trail.join(name)).unwrap();
    assert!(read("received").contains("Killed process 4242 (java)"), "{}", read("received"));
    assert!(read("prompt").contains("(java)"), "{}", read("prompt"));
    assert!(read("response").contains("findings"), "{}", read("response"));
    let all = ["received", "prompt", "response"].map(read).concat();
    assert!(!all.contains("hunter2secret"), "{all}");

    // A trail that cannot be written stops nothing.
    let file = world.directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let without = world.command(&["run", "--trail", file.to_str().unwrap()]).output().await.unwrap();
    assert_eq!(without.status.code(), Some(0), "{}", err(&without));
    assert!(err(&without).contains("there is no trail: cannot write in"), "{}", err(&without));
}
