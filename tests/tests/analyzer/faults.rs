//! What is down, slow, hanging or talks nonsense: said with its reason, nothing lost, made good by the next run.

use std::collections::BTreeSet;

use logwarden_tests::{
    chat::{Fault as ChatFault, Response},
    ollama::{Delays, Fault as ModelFault},
    slack::{self, FakeSlack, Slack},
};

use super::*;

/// What a person reads in the journal: the warnings and errors, without times and ports.
fn complaints(text: &str) -> String {
    let lines = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(' ')?;
        let rest = rest.trim_start();
        ["WARN", "ERROR"].iter().any(|level| rest.starts_with(level)).then_some(rest)
    });
    let mut told = String::new();
    for line in lines {
        let mut rest = line;
        // Ports and measured times differ from run to run.
        while let Some(at) = rest.find("127.0.0.1:") {
            let end = rest[at + 10..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| at + 10 + end);
            told.push_str(&rest[..at]);
            told.push_str("127.0.0.1:PORT");
            rest = &rest[end..];
        }
        told.push_str(rest.split(" seconds=").next().unwrap_or_default());
        told.push('\n');
    }
    told
}

#[tokio::test]
async fn whatever_is_wrong_with_loki_is_said_and_made_good() {
    let page = "<html><head><title>Sign in</title></head></html>";
    let cases = [
        ("hangs", Fault::Hang),
        ("hangs for longer than a pass may take", Fault::Hang),
        ("fails", Fault::Status(500, "rpc error: code = Unavailable desc = the store is away".to_owned())),
        ("starts", Fault::Status(503, "Ingester not ready: waiting for 15s after being ready".to_owned())),
        ("is overloaded", Fault::Status(429, "too many outstanding requests".to_owned())),
        ("wants a tenant", Fault::Status(401, "no org id".to_owned())),
        ("is another program", Fault::Status(404, "404 page not found".to_owned())),
        ("redirects", Fault::Status(302, String::new())),
        ("is a login page", Fault::Garbage(page.to_owned())),
        ("breaks off", Fault::Cut),
        ("breaks off in the middle", Fault::CutBody),
        ("does not end", Fault::Endless),
    ];
    let of_one = async |what: &str, fault: Fault| {
        let world = World::new().await;
        world.log(60, OOM);
        match what {
            "hangs" => world.configure("[loki]\ntimeout_seconds = 1\n"),
            "hangs for longer than a pass may take" => {
                world.configure("[loki]\ntimeout_seconds = 300\n[run]\nbudget_seconds = 12\n");
            }
            _ => {}
        }
        world.loki.faults(|faults| faults.always = vec![(String::new(), fault)]);
        let down = world.run().await;
        assert_eq!(down.status.code(), Some(1), "{what}: {}", err(&down));
        assert_eq!(world.told().len(), 0, "{what}");
        world.loki.faults(|faults| faults.always.clear());
        world.configure("");
        let up = world.run().await;
        assert_eq!(up.status.code(), Some(0), "{what}: {}", err(&up));
        assert_eq!(world.told().len(), 1, "{what}: {:#?}", world.told());
        format!("# Loki {what}\n{}", complaints(&err(&down)))
    };
    let told = futures::future::join_all(cases.map(|(what, fault)| of_one(what, fault))).await;
    insta::assert_snapshot!("loki", told.join("\n"));
}

#[tokio::test]
async fn one_bad_query_is_named_and_the_others_go_on() {
    let world = World::new().await;
    world.log(60, OOM);
    let refused = Fault::Status(400, "parse error at line 1, col 13: syntax error: unexpected |".to_owned());
    world.loki.faults(|faults| faults.always = vec![("nginx".to_owned(), refused)]);
    let queries = r#"{job="syslog"};{job="nginx"} |"#;
    let mut command = world.command(&["run"]);
    let output = command.env("LOG_QUERIES", queries).env("MODEL_ENABLED", "false").output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(complaints(&err(&output)));
    assert!(world.told().iter().any(|told| told.contains("java")), "{:#?}", world.told());
}

#[tokio::test]
async fn a_query_that_changes_lines_inside_loki_is_warned_about_at_the_start_and_read() {
    let world = World::new().await;
    world.log(60, OOM);
    let mut command = world.command(&["run"]);
    let output = command.env("LOG_QUERIES", r#"{job="syslog"} | drop filename"#).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let warning = "by `drop`: different lines can become the same one there";
    assert!(complaints(&err(&output)).contains(warning), "{}", err(&output));
    assert_eq!(world.told().len(), 1, "{:#?}", world.told());
    let doctor = out(&world
        .command(&["doctor", "--offline"])
        .env("LOG_QUERIES", r#"{job="a"} | unpack"#)
        .output()
        .await
        .unwrap());
    assert!(doctor.contains("by `unpack`"), "{doctor}");
}

/// A model that is away or useless: the detectors' alert is there all the same, and the run is complete.
#[tokio::test]
async fn whatever_is_wrong_with_the_model_is_said_and_the_alert_is_there() {
    let html = |status| ModelFault::Status(status, "text/html".to_owned(), "<html>nginx</html>".to_owned());
    let fatal = "llama-server process has terminated: exit status 2: cudaMalloc failed: out of memory";
    let cases = [
        ("hangs", vec![ModelFault::StallBeforeHeaders]),
        ("stalls", vec![ModelFault::StallAfter(3); 4]),
        ("is busy", vec![ModelFault::busy(); 8]),
        ("is limited", vec![ModelFault::json(429, r#"{"error":"slow down"}"#); 8]),
        ("has a bad gateway", vec![ModelFault::bad_gateway(); 8]),
        ("is behind a login", vec![html(401); 8]),
        ("is forbidden", vec![ModelFault::Status(403, String::new(), String::new()); 8]),
        ("runs out of memory", vec![ModelFault::json(500, &format!(r#"{{"error":"{fatal}"}}"#)); 8]),
        (
            "dies",
            vec![
                ModelFault::json(
                    500,
                    r#"{"error":"an error was encountered while running the model: unexpected EOF"}"#
                );
                8
            ],
        ),
        ("breaks off", vec![ModelFault::Eof(3); 8]),
        ("is reset", vec![ModelFault::Reset(3); 8]),
        (
            "says an error in the middle",
            vec![ModelFault::ErrorLine(2, "prediction aborted, token repeat limit reached".to_owned()); 8],
        ),
        ("is cut off", vec![ModelFault::Length(20); 8]),
        ("writes blanks", vec![ModelFault::Whitespace(400); 8]),
        ("loops", vec![ModelFault::Loop("the disk is full and ".to_owned(), 400); 8]),
        ("talks", vec![ModelFault::Prose("Sure! Here is what I found: ".to_owned()); 8]),
        ("answers nonsense", vec![ModelFault::Answer(r#"{"verdict":"fine"}"#.to_owned()); 8]),
        ("runs elsewhere", vec![ModelFault::Remote; 8]),
    ];
    let of_one = async |what: &str, faults: Vec<ModelFault>| {
        let world = World::new().await;
        let ollama = FakeOllama::start(Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest))).await;
        faults.into_iter().for_each(|fault| ollama.inject(fault));
        world.log(60, OOM);
        if matches!(what, "hangs" | "stalls") {
            world.configure("[model]\ntimeout_seconds = 5\n");
        }
        let output = world.command(&["run"]).env("OLLAMA_HOST", ollama.url()).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{what}: {}", err(&output));
        let told = world.told();
        assert!(told.iter().any(|told| told.contains("java")), "{what}: {told:#?}");
        format!("# The model {what}\n{}", complaints(&err(&output)))
    };
    let told = futures::future::join_all(cases.map(|(what, faults)| of_one(what, faults))).await;
    insta::assert_snapshot!("model", told.join("\n"));
}

#[tokio::test]
async fn a_model_that_cannot_be_had_is_said() {
    let world = World::new().await;
    world.log(60, OOM);
    let ollama = FakeOllama::start(Config::with(Model::new("tinyllama:latest", Behaviour::Honest))).await;
    let run = async |host: &str, model: &str| {
        let output =
            world.command(&["run"]).env("OLLAMA_HOST", host).env("OLLAMA_MODEL", model).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        complaints(&err(&output))
    };
    let missing = run(&ollama.url(), "qwen3:4b-instruct").await;
    world.log(40, "kernel: Out of memory: Killed process 1 (mysqld) total-vm:8123456kB, anon-rss:4012345kB");
    let down = run(NOBODY, "qwen3:4b-instruct").await;
    insta::assert_snapshot!("missing_model", format!("# not installed\n{missing}\n# down\n{down}"));
    assert!(world.told().iter().any(|told| told.contains("java")), "{:#?}", world.told());
}

#[tokio::test]
async fn a_slow_model_delays_no_alert_and_the_next_run_explains() {
    let world = World::new().await;
    let slow = Delays { prompt: Duration::from_secs(60), ..Delays::default() };
    let config = Config { delays: slow, ..Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest)) };
    let ollama = FakeOllama::start(config).await;
    world.log(60, OOM);
    world.configure("[run]\nbudget_seconds = 30\n");
    let run = || world.command(&["run"]).env("OLLAMA_HOST", ollama.url()).spawn().unwrap();
    let first = run();
    until("the alert, while the model thinks", || !world.told().is_empty()).await;
    assert!(ollama.counters().cancelled == 0, "the model was still at it");
    let first = first.wait_with_output().await.unwrap();
    assert_eq!(first.status.code(), Some(0), "{}", err(&first));
    assert!(err(&first).contains("waiting=1"), "{}", err(&first));
    assert!(!world.told()[0].contains("qwen3"), "{:#?}", world.told());

    ollama.configure(|config| config.delays = Delays::default());
    let second = run().wait_with_output().await.unwrap();
    assert_eq!(second.status.code(), Some(0), "{}", err(&second));
    assert!(err(&second).contains("analysed=1"), "{}", err(&second));
    let told = world.told();
    assert!(told.len() == 1 && told[0].contains("words of the model qwen3:4b-instruct"), "edited: {told:#?}");
}

#[tokio::test]
async fn incidents_says_where_a_message_waits() {
    let world = World::new().await;
    world.discord.script(vec![ChatFault::Answer(discord::rate_limited(1800.0))]);
    world.log(60, OOM);
    assert_eq!(world.run().await.status.code(), Some(1));
    let list = out(&world.command(&["incidents"]).output().await.unwrap());
    let line = list.lines().find(|line| line.contains("java")).unwrap();
    let id = line.split(' ').next().unwrap();
    let shown = out(&world.command(&["incidents", id]).output().await.unwrap());
    assert!(shown.contains("discord: waits; tried at "), "{shown}");
    assert!(!shown.contains("counted in that message"), "{shown}");
}

#[tokio::test]
async fn whatever_is_wrong_with_discord_is_said_and_made_good() {
    let answer = |status, text: &str| ChatFault::Answer(Response::text(status, text));
    let cases = [
        ("fails", vec![answer(500, ""), answer(502, "<html>bad gateway</html>")], 0),
        ("limits us", vec![ChatFault::Answer(discord::rate_limited(1.5))], 0),
        ("is a login page", vec![answer(200, "<html>please log in</html>")], 0),
        ("redirects", vec![ChatFault::Answer(Response::empty(302).with("location", "https://example.com/login"))], 0),
        ("breaks off", vec![ChatFault::CutAfterRequest], 1),
        ("refuses the text", vec![ChatFault::Answer(discord::error(400, 200_000, "Message blocked by AutoMod"))], 0),
        ("hangs", vec![ChatFault::Hang], 0),
    ];
    let of_one = async |what: &str, faults: Vec<ChatFault>, taken: usize| {
        let world = World::new().await;
        world.discord.script(faults);
        world.log(60, OOM);
        let output = world.command(&["run"]).env("MODEL_ENABLED", "false").output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{what}: {}", err(&output));
        let told = world.told();
        assert!((1..=1 + taken).contains(&told.len()), "{what}: {told:#?}");
        assert!(!err(&output).contains(discord::TOKEN), "the webhook's address is a secret");
        format!("# Discord {what}\n{}", complaints(&err(&output)))
    };
    let told = futures::future::join_all(cases.map(|(what, faults, taken)| of_one(what, faults, taken))).await;
    insta::assert_snapshot!("discord", told.join("\n"));
}

#[tokio::test]
async fn whatever_is_wrong_with_slack_is_said_and_made_good() {
    let answer = |status, text: &str| ChatFault::Answer(Response::text(status, text));
    let limited = Response::text(429, "rate_limited").with("retry-after", "1");
    let cases = [
        ("fails", vec![answer(500, "rollup_error"), answer(502, "<html>bad gateway</html>")], 0),
        ("limits us", vec![ChatFault::Answer(limited)], 0),
        ("is a login page", vec![answer(200, "<html>please log in</html>")], 0),
        ("redirects", vec![ChatFault::Answer(Response::empty(302).with("location", "https://example.com/login"))], 0),
        ("breaks off", vec![ChatFault::CutAfterRequest], 1),
        ("refuses the blocks", vec![answer(400, "invalid_blocks")], 0),
        ("hangs", vec![ChatFault::Hang], 0),
    ];
    let of_one = async |what: &str, faults: Vec<ChatFault>, taken: usize| {
        let world = World::new().await;
        let slack = FakeSlack::start(Slack::default()).await.unwrap();
        slack.script(faults);
        world.log(60, OOM);
        let mut command = world.command(&["run"]);
        command.env("SLACK_WEBHOOK_URL", slack::url(&slack)).env("MODEL_ENABLED", "false");
        let output = command.env_remove("DISCORD_WEBHOOK_URL").output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{what}: {}", err(&output));
        let told: Vec<_> = slack.with(|slack| slack.messages.iter().map(slack::readable).collect());
        assert!((1..=1 + taken).contains(&told.len()), "{what}: {told:#?}");
        assert!(told.iter().all(|told| told.contains("CRITICAL")), "{what}: {told:#?}");
        assert!(!err(&output).contains(slack::TOKEN), "the webhook's address is a secret");
        format!("# Slack {what}\n{}", complaints(&err(&output)))
    };
    let told = futures::future::join_all(cases.map(|(what, faults, taken)| of_one(what, faults, taken))).await;
    insta::assert_snapshot!("slack", told.join("\n"));
}

#[tokio::test]
async fn slack_is_told_the_same_and_neither_waits_for_the_other() {
    let world = World::new().await;
    let slack = FakeSlack::start(Slack::default()).await.unwrap();
    world.log(60, OOM);
    // Discord is away for this run.
    world.configure("[run]\nbudget_seconds = 1\n");
    let lost = format!("{NOBODY}/api/webhooks/1/x");
    let run = |discord: &str| {
        let mut command = world.command(&["run"]);
        command.env("SLACK_WEBHOOK_URL", slack::url(&slack)).env("DISCORD_WEBHOOK_URL", discord);
        command.env("MODEL_ENABLED", "false");
        command
    };
    let first = run(&lost).output().await.unwrap();
    assert_eq!(first.status.code(), Some(1), "{}", err(&first));
    let messages = slack.with(|slack| slack.messages.clone());
    let [message] = &messages[..] else { panic!("{} messages: {}", messages.len(), err(&first)) };
    assert!(slack::readable(message).contains("java"), "{}", slack::readable(message));
    assert!(complaints(&err(&first)).contains("channel=discord"), "{}", err(&first));

    // Time enough for the next attempt to be due.
    world.configure("[run]\nbudget_seconds = 30\n");
    let whole = run(&discord::url(&world.discord)).output().await.unwrap();
    assert_eq!(whole.status.code(), Some(0), "{}", err(&whole));
    assert_eq!((world.told().len(), slack.with(|slack| slack.messages.len())), (1, 1));

    slack.with(|slack| slack.removed = true);
    world.log(
        40,
        "kernel: EXT4-fs error (device sda1): ext4_lookup:1234: inode #2: comm ls: deleted inode referenced: 99",
    );
    let broken = run(&discord::url(&world.discord)).output().await.unwrap();
    assert_eq!(broken.status.code(), Some(1), "{}", err(&broken));
    let told = world.told();
    assert!(told.iter().any(|told| told.contains("logwarden cannot send to")), "{told:#?}");
    insta::assert_snapshot!("broken_slack", complaints(&err(&broken)));

    // A new webhook gets what waited.
    let renewed = FakeSlack::start(Slack::default()).await.unwrap();
    let mut command = run(&discord::url(&world.discord));
    let output = command.env("SLACK_WEBHOOK_URL", slack::url(&renewed)).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let waited: Vec<_> = renewed.with(|slack| slack.messages.iter().map(slack::readable).collect());
    assert!(waited.iter().any(|told| told.contains("EXT4-fs error")), "{waited:#?}");
}

/// Killed again and again while it works: at the end everything was told, with at most one surplus message per kill.
#[tokio::test]
async fn a_run_that_is_killed_loses_nothing() {
    let processes = ["java", "mysqld", "redis-server", "node"];
    let of_one = async |seed: u64| {
        let world = World::new().await;
        let mut kills = 0;
        for (number, process) in (0..).zip(processes) {
            world.log(80 - 15 * number, &OOM.replace("(java)", &format!("({process})")).replace("web", process));
            let mut child = world.command(&["run"]).spawn().unwrap();
            // Somewhere between its start and its end, which differs with the machine.
            tokio::time::sleep(Duration::from_millis(15 + (seed * 37 + number as u64 * 61) % 260)).await;
            kills += usize::from(child.try_wait().unwrap().is_none());
            child.start_kill().unwrap();
            child.wait().await.unwrap();
        }
        // What the killed ones owned is taken over at once.
        let last = world.run().await;
        assert!(!err(&last).contains("another process reads"), "{}", err(&last));
        assert_eq!(last.status.code(), Some(0), "{}", err(&last));
        let told = world.told();
        let all = told.concat();
        let missing: BTreeSet<_> = processes.iter().filter(|process| !all.contains(**process)).collect();
        assert!(missing.is_empty(), "{missing:?} of {told:#?}\n{}", err(&last));
        assert!(told.len() <= processes.len() + kills, "{} messages after {kills} kills: {told:#?}", told.len());
    };
    futures::future::join_all((0..4).map(of_one)).await;
}

/// Stopped or killed: what it owned is the next one's at once.
#[tokio::test]
async fn what_a_watch_owned_is_free_when_it_ends() {
    for name in ["-TERM", "-KILL"] {
        let world = World::new().await;
        world.log(60, OOM);
        let mut watch = world.command(&["watch"]).spawn().unwrap();
        until("the watch has told", || !world.told().is_empty()).await;
        signal(&watch, name);
        watch.wait().await.unwrap();
        world.log(1, &OOM.replace("(java)", "(mysqld)").replace("4242", "77"));
        let next = world.run().await;
        assert!(!err(&next).contains("another process reads"), "{name}: {}", err(&next));
        assert!(err(&next).contains("pass complete"), "{name}: {}", err(&next));
    }
}

#[tokio::test]
async fn a_run_that_is_asked_to_stop_says_so_and_the_next_one_goes_on() {
    let world = World::new().await;
    let slow = Delays { prompt: Duration::from_secs(60), ..Delays::default() };
    let config = Config { delays: slow, ..Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest)) };
    let ollama = FakeOllama::start(config).await;
    world.log(60, OOM);
    let child = world.command(&["run"]).env("OLLAMA_HOST", ollama.url()).spawn().unwrap();
    until("the alert", || !world.told().is_empty()).await;
    signal(&child, "-TERM");
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("stopped before the end; nothing is lost"), "{}", err(&output));
    assert!(err(&output).contains("lines=1"), "what was read is in the log: {}", err(&output));
    let next = world.run().await;
    assert_eq!(next.status.code(), Some(0), "{}", err(&next));
    assert_eq!(world.told().len(), 1, "{:#?}", world.told());
}

/// Another user's state: to name another directory would begin a second one.
#[tokio::test]
async fn a_state_that_belongs_to_somebody_else_is_no_empty_one() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    // Only root may start a program as somebody else.
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    let world = World::new().await;
    world.run().await;
    let state = world.directory.path().join("state");
    std::fs::set_permissions(world.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
    // Where it is built, others may not look.
    let program = world.directory.path().join("logwarden-analyzer");
    std::fs::copy(program::binary("logwarden-analyzer"), &program).unwrap();
    for command in [&["doctor", "--offline"][..], &["run"], &["incidents"]] {
        let mut other = Command::new(&program);
        other.args(command).arg("--state-dir").arg(&state).env_clear().uid(65534).gid(65534);
        let output = other.current_dir(world.directory.path()).stdin(Stdio::null()).output().await.unwrap();
        let said = out(&output) + &err(&output);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains("it belongs to root: run this with sudo"), "{command:?}: {said}");
        assert!(!said.contains("nothing in it yet") && !said.contains("--state-dir DIR"), "{command:?}: {said}");
    }
}

#[tokio::test]
async fn one_bad_channel_hides_nothing_else_from_doctor() {
    let world = World::new().await;
    let mut command = world.command(&["doctor"]);
    command.env("DISCORD_WEBHOOK_URL", "https://example.org/webhook").env("MODEL_ENABLED", "false");
    let doctor = command.output().await.unwrap();
    let said = out(&doctor);
    assert!(said.contains("\u{2717} configuration  channel `discord` cannot be used"), "{said}");
    assert!(!said.contains("\u{2713} configuration"), "it is not good and bad: {said}");
    assert!(said.contains(" loki ") && said.contains(" model "), "the rest is looked at: {said}");
    assert_eq!(doctor.status.code(), Some(2), "as `run` ends: {said}");
}

#[tokio::test]
async fn doctor_offline_names_what_nobody_was_asked_about() {
    let world = World::new().await;
    let mut command = world.command(&["doctor", "--offline"]);
    for name in ["LOKI_URL", "LOG_QUERIES", "OLLAMA_HOST", "DISCORD_WEBHOOK_URL"] {
        command.env_remove(name);
    }
    let said = out(&command.output().await.unwrap());
    assert!(said.contains("loki           http://localhost:3100, 2 queries; nobody was asked"), "{said}");
    assert!(said.contains("model          the best installed one at http://127.0.0.1:11434"), "{said}");
    assert!(said.contains("configuration  none: there is no file, and no variable is set"), "{said}");
}
