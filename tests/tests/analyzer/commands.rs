//! Commands around the passes: what they print, and that they do it.

use super::*;

/// Times, sizes and places that differ from run to run.
fn filters() -> Vec<(&'static str, &'static str)> {
    vec![
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"/[^\s`]*/\.tmp\w+", "DIR"),
        (r"\b[0-9a-f]{8}\b", "INCIDENT"),
        (r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?( UTC|Z)?", "TIME"),
        (r"\d{2}:\d{2}:\d{2} UTC", "TIME"),
        (r"\d{2}:\d{2}:\d{2} kernel", "TIME kernel"),
        (r"seconds=[\d.]+", "seconds=N"),
        (r"\d+\.\d s", "N s"),
        (r"(\*Host:\*+ )`[^`]+`", "$1`HOST`"),
    ]
}

macro_rules! assert_reads {
    ($name:expr, $text:expr) => {
        insta::with_settings!({ filters => filters() }, { insta::assert_snapshot!($name, $text) });
    };
}

#[tokio::test]
async fn help_and_usage_read_well() {
    let mut told = String::new();
    let all = [
        &["scan", "--help"][..],
        &["run", "--help"],
        &["doctor", "--help"],
        &["scan"],
        &["frobnicate"],
        &["scan", "--fail-on", "bad", "x"],
    ];
    for arguments in all {
        let output = analyzer().args(arguments).env("COLUMNS", "100").output().await.unwrap();
        let code = output.status.code().unwrap();
        told +=
            &format!("$ logwarden-analyzer {}\n{}{}exit {code}\n\n", arguments.join(" "), out(&output), err(&output));
    }
    assert_reads!("help", told);
}

#[tokio::test]
async fn doctor_reads_well_when_all_is_well_and_when_nothing_is() {
    let world = World::new().await;
    world.log(60, "a line");
    let ollama = FakeOllama::start(Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest))).await;
    let good = world.command(&["doctor", "--probe"]).env("OLLAMA_HOST", ollama.url()).output().await.unwrap();
    let offline = world.command(&["doctor", "--offline"]).output().await.unwrap();
    world.discord.with(|discord| discord.deleted = true);
    let bad = world
        .command(&["doctor"])
        .env("LOKI_URL", NOBODY)
        .env("LOG_FILES", "/nonexistent/syslog")
        .env("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/YOUR/WEBHOOK/URL")
        .output()
        .await
        .unwrap();
    world.configure("[loki]\nqueries = [\"rate({a='b'}[1m])\"]\nlimt = 5\n[model]\nhours = \"late\"\n");
    let wrong = world.command(&["doctor"]).env_remove("LOG_QUERIES").output().await.unwrap();
    let told = [("all is well", good), ("offline", offline), ("nothing is", bad), ("a wrong configuration", wrong)];
    let told: Vec<_> = told
        .iter()
        .map(|(what, output)| {
            format!("# {what}: exit {}\n{}{}", output.status.code().unwrap(), out(output), err(output))
        })
        .collect();
    // The memory of the machine decides about these.
    let told = told.join("\n");
    let remarks = ["8 GiB", "LLAMA_ARG", "it works; ", "everything is as it should be"];
    let told: Vec<_> = told.lines().filter(|line| remarks.iter().all(|remark| !line.contains(remark))).collect();
    assert_reads!("doctor", told.join("\n"));
}

#[tokio::test]
async fn the_journal_of_a_run_reads_well() {
    let world = World::new().await;
    let ollama = FakeOllama::start(Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest))).await;
    world.log(60, OOM);
    let mut command = world.command(&["run"]);
    command.env("OLLAMA_HOST", ollama.url()).env("JOURNAL_STREAM", "8:1");
    command.env("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/YOUR/SLACK/WEBHOOK");
    let first = command.output().await.unwrap();
    world.log(30, OOM);
    let mut command = world.command(&["run"]);
    let second = command.env("OLLAMA_HOST", ollama.url()).env("JOURNAL_STREAM", "8:1").output().await.unwrap();
    let told = format!("{}\n{}", err(&first), err(&second));
    for words in [
        " INFO pass starts version=",
        " INFO read source=\"loki http://",
        "analysed=1",
        "repeats_suppressed=1",
        "pass complete",
        "channels=discord\n", // the placeholder is off
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[tokio::test]
async fn what_is_told_reads_well_in_both_chats() {
    use logwarden_tests::slack::{self, FakeSlack, Slack};
    let world = World::new().await;
    let slack = FakeSlack::start(Slack::default()).await.unwrap();
    let ollama = FakeOllama::start(Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest))).await;
    world.log(60, OOM);
    let mut command = world.command(&["run"]);
    command.env("OLLAMA_HOST", ollama.url()).env("SLACK_WEBHOOK_URL", slack::url(&slack));
    assert_eq!(command.output().await.unwrap().status.code(), Some(0));
    let test = world.command(&["test-alert"]).env("SLACK_WEBHOOK_URL", slack::url(&slack)).output().await.unwrap();
    let slack: Vec<_> = slack.with(|slack| slack.messages.iter().map(slack::readable).collect());
    // Discord's own marks of time become what a reader sees.
    let times = |told: &String| {
        let (first, marks) = told.split_once("<t:").unwrap_or((told, ""));
        let rest = marks.split("<t:").map(|mark| mark.split_once('>').map_or(mark, |(_, rest)| rest));
        rest.fold(first.to_owned(), |text, rest| format!("{text}TIME{rest}"))
    };
    let discord: Vec<_> = world.told().iter().map(times).collect();
    assert_reads!("chats", format!("{}\n{}\n{}", discord.join("\n"), slack.join("\n"), out(&test)));
}

#[tokio::test]
async fn incidents_are_listed_shown_muted_and_forgotten() {
    let world = World::new().await;
    let empty = world.command(&["incidents"]).output().await.unwrap();
    assert_eq!(empty.status.code(), Some(1));
    assert!(err(&empty).contains("there is no state in"), "{}", err(&empty));
    world.log(60, OOM);
    assert_eq!(world.run().await.status.code(), Some(0));
    let ask = async |arguments: &[&str]| {
        let output = world.command(arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
        out(&output)
    };
    let list = ask(&["incidents"]).await;
    let id = list.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let one = ask(&["incidents", &id]).await;
    let json: serde_json::Value = serde_json::from_str(&ask(&["incidents", &id, "--format", "json"]).await).unwrap();
    assert_eq!((json["severity"].as_str(), json["count"].as_u64()), (Some("critical"), Some(1)));
    assert!(json["incident"].as_str().unwrap().starts_with(&id) && json["muted_by"].is_null(), "{json}");
    let template = json["template_ids"][0].as_str().unwrap();
    let by_template = ask(&["mute", "--template", template]).await;
    ask(&["unmute", by_template.split(' ').nth(2).unwrap()]).await;

    let finding = json["id"].as_str().unwrap();
    assert_ne!(finding, json["incident"].as_str().unwrap());
    assert!(ask(&["incidents", finding]).await.contains("CRITICAL kernel on web-1"), "what the JSON shows is taken");
    for time in ["1h", "2h"] {
        let muted = ask(&["mute", finding, "--for", time]).await;
        assert!(muted.contains("1 incident that goes on is held back"), "{muted}");
    }
    assert_eq!(ask(&["mute", "--list"]).await.lines().count(), 1, "the same again takes the place of the first");
    ask(&["unmute", finding]).await;
    assert_eq!(ask(&["mute", "--list"]).await, "nothing is muted\n");
    let both = world.command(&["mute", "--list", "--rule", "oom-kill"]).output().await.unwrap();
    assert_eq!(both.status.code(), Some(2));

    let muted = ask(&["mute", &id, "--for", "12h", "--reason", "known, being repaired"]).await;
    let mutes = ask(&["mute", "--list"]).await;
    assert!(mutes.contains("until 20") && !(mutes.clone() + &muted).contains('.'), "whole seconds: {mutes}");
    world.log(40, &OOM.replace("4242", "4243"));
    assert_eq!(world.run().await.status.code(), Some(0));
    assert_eq!(world.told().len(), 1, "muted: {:#?}", world.told());
    let mute = muted.split(' ').nth(2).unwrap();
    let json: serde_json::Value = serde_json::from_str(&ask(&["incidents", &id, "--format", "json"]).await).unwrap();
    assert!(json["muted_by"].as_str().is_some_and(|by| by.contains(mute)), "{json} {mute}");
    let unmuted = ask(&["unmute", mute]).await;
    let none = ask(&["mute", "--list"]).await;
    let forgotten = ask(&["forget", &id]).await;
    let wrong = world.command(&["incidents", "ffffffff"]).output().await.unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let told = [list, one, muted, mutes, unmuted, none, forgotten, err(&wrong)].join("\n");
    for words in ["CRITICAL kernel on web-1", "known, being repaired", "nothing is muted", "forgotten and learned anew"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[tokio::test]
async fn completions_are_there_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = analyzer().args(["completions", shell]).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert!(out(&output).contains("notify-failure"), "{shell}");
    }
}

#[tokio::test]
async fn replacing_only_the_command_of_an_existing_unit_works() {
    // As systemd starts it: the tutorial's `.env` in the environment, a state directory, no configuration, no HOME.
    let world = World::new().await;
    world.log(60, OOM);
    let output = analyzer()
        .arg("run")
        .current_dir("/")
        .env("STATE_DIRECTORY", world.directory.path().join("state"))
        .env("LOKI_URL", world.loki.url())
        .env("LOG_QUERIES", r#"{job="syslog"};{job="nginx"} |= "error""#)
        .env("QUERY_WINDOW_MINUTES", "5")
        .env("QUERY_LIMIT", "500")
        .env("OLLAMA_HOST", NOBODY)
        .env("OLLAMA_MODEL", "gemma2:9b")
        .env("DISCORD_WEBHOOK_URL", discord::url(&world.discord))
        .env("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/YOUR/WEBHOOK/URL")
        .env("DEDUP_WINDOW", "3600")
        .env("DEDUP_FILE", "/tmp/alert_dedup.json")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(world.told().len(), 1, "{:#?}", world.told());
    for words in ["DEDUP_FILE is no longer used", "channel `slack` is off"] {
        assert!(err(&output).contains(words), "{words}: {}", err(&output));
    }
}

/// Whatever one can mistype, forget or be denied: said with what to do.
#[tokio::test]
async fn what_goes_wrong_is_told_with_what_to_do() {
    let world = World::new().await;
    world.log(60, OOM);
    let directory = world.directory.path();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write("a-file", "");
    write("empty.log", "");
    write("pem.toml", "[loki]\nca_file = \"/nonexistent/ca.pem\"\n");
    write("mutes.toml", "[alerts]\nmutes_file = \"/nonexistent/mutes.toml\"\n");
    write("rules.toml", "[detectors]\nrules_dir = \"/nonexistent/rules\"\n");
    write("files.toml", "[[files]]\npaths = [\"/nonexistent/app.log\"]\n");
    write("bad-rules.toml", "[[rule]]\nname = \"x\"\n");
    write("model.toml", "[model]\nenabled = false\n");
    let sample = sample().display().to_string();
    // In the state of a pass that was made, in one that is none, and in none at all.
    assert_eq!(world.run().await.status.code(), Some(0));
    let state = directory.join("state").display().to_string();
    let cases: &[&[&str]] = &[
        &["run", "--config", "missing.toml"],
        &["run", "--config", "pem.toml"],
        &["run", "--config", "mutes.toml"],
        &["run", "--config", "rules.toml"],
        &["run", "--state-dir", "a-file"],
        &["run", "--state-dir", "a-file/deeper"],
        &["watch", "--state-dir", "a-file"],
        &["backfill", "--config", "files.toml"],
        &["backfill", "--since", "soon"],
        &["scan", "--timezone", "Mars/Phobos", "empty.log"],
        &["scan", "--profile", "secruity", "empty.log"],
        &["scan", "-", "-"],
        &["scan", "nowhere.log"],
        &["scan", "empty.log"],
        &["scan", "--explain", "--config", "model.toml", "empty.log"],
        &["scan", "--trail", "a-file", "empty.log"],
        &["fold", "nowhere.log"],
        &["fold", "--around", "5", "--format", "csv", &sample],
        &["fold", "--around", "999999", &sample],
        &["rules", "test", "nowhere.toml", "empty.log"],
        &["rules", "test", "bad-rules.toml", "empty.log"],
        &["test-alert", "--config", "model.toml"],
        &["test-alert", "pager"],
        &["notify-failure", "no such thing"],
        &["incidents", "--state-dir", "nowhere"],
        &["incidents", "ffffffff"],
        &["mute"],
        &["mute", "ffffffff"],
        &["mute", "--label", "staging"],
        &["mute", "--rule", "oom-kil"],
        &["mute", "--rule", "ssh-failed-password"],
        &["unmute", "ffffffff"],
        &["forget", "ffffffff"],
        &["quarantine", "show", "7"],
        &["init", "--dir", "a-file/etc"],
    ];
    let mut told = String::new();
    for arguments in cases {
        let mut command = analyzer();
        command.current_dir(directory).args(*arguments).env("COLUMNS", "100").env("LOKI_URL", world.loki.url());
        command.env("MODEL_ENABLED", "false");
        if arguments.contains(&"pager") {
            command.env("DISCORD_WEBHOOK_URL", discord::url(&world.discord));
        }
        if arguments.contains(&"files.toml") {
            command.env_remove("LOKI_URL");
        }
        if !arguments.contains(&"--state-dir") {
            command.args(["--state-dir", &state]);
        }
        let output = command.output().await.unwrap();
        let text = err(&output);
        let lines =
            text.lines().filter(|line| !line.contains(" INFO ") && !line.contains("no channel is configured: nobody"));
        let code = output.status.code().unwrap();
        told += &format!(
            "$ {}\n{}{}\nexit {code}\n\n",
            arguments.join(" "),
            out(&output),
            lines.collect::<Vec<_>>().join("\n")
        );
    }
    assert_reads!("wrong", told.replace(&sample, "auth.log"));
}
