//! The examples do what they say, against the doubles. Cargo builds them together with this test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use logwarden_tests::{
    loki::FakeLoki,
    ollama::{Behaviour, Config, FakeOllama, Model},
    program,
    slack::{self, FakeSlack},
};
use tokio::{io::AsyncWriteExt, process::Command};

fn example(name: &str) -> Command {
    let mut command = Command::new(program::example(name));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/auth.log")
}

async fn output(mut command: Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (input, output) = (input.to_owned(), child.wait_with_output());
    let (_, output) = tokio::join!(async move { stdin.write_all(input.as_bytes()).await }, output);
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn embed_tells_on_the_terminal_what_is_wrong_in_a_file() {
    let mut command = example("embed");
    command.arg(sample());
    let text = output(command, "").await;
    assert!(text.contains("203.0.113.7"), "{text}");
    assert!(text.contains("No space left on device"), "{text}");
}

#[tokio::test]
async fn query_loki_prints_each_line_once() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as i64;
    let loki = FakeLoki::start(now).await.unwrap();
    for number in 0..1500 {
        loki.push(
            "fake",
            &[("job", "syslog")],
            now - 1_800_000_000_000 + number,
            &format!("line {number} of the test"),
        );
    }
    let mut command = example("query_loki");
    command.args([&loki.url(), r#"{job="syslog"}"#]);
    let text = output(command, "").await;
    for number in 0..1500 {
        assert_eq!(text.matches(&format!(" line {number} of")).count(), 1, "line {number}");
    }
}

#[tokio::test]
async fn classify_lines_prints_what_the_model_finds_with_lines_that_are_there() {
    let ollama = FakeOllama::start(Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest))).await;
    let mut command = example("classify_lines");
    command.args([&ollama.url(), "security"]);
    let line = "Nov 15 02:41:09 web-1 sshd[411]: Failed password for root from 203.0.113.7 port 4022 ssh2";
    let text = output(command, &format!("{line}\n").repeat(40)).await;
    assert!(text.contains(line), "{text}");
    assert!(text.contains("(qwen3:4b-instruct)"), "{text}");
}

#[tokio::test]
async fn send_finding_posts_one_message_that_mentions_nobody() {
    let server = FakeSlack::start(slack::Slack::default()).await.unwrap();
    let mut command = example("send_finding");
    command.env("SLACK_WEBHOOK_URL", slack::url(&server));
    output(command, "").await;
    let messages = server.with(|slack| slack.messages.clone());
    let [message] = &messages[..] else { panic!("{} messages", messages.len()) };
    let text = slack::readable(message);
    assert!(text.contains("The nightly backup of db-1 has failed"), "{text}");
    assert!(!message.to_string().contains("<!channel>"), "{message}");
}
