//! What `doctor` says about Ollama.

use std::fmt::Write;

use logwarden_ollama_client::check::{Level, Machine};
use logwarden_tests::ollama::{Behaviour, Config, FakeOllama, Model};

use super::*;

fn machine() -> Machine {
    Machine { ram: 8 << 30, gpu: 0, address: nowhere() }
}

async fn looked_at(client: &Ollama, machine: &Machine, probe: bool) -> String {
    let mut all = String::new();
    for note in client.check(machine, probe).await {
        let mark = match note.level {
            Level::Good => "ok  ",
            Level::Warning => "warn",
            Level::Bad => "BAD ",
        };
        let _ = writeln!(all, "{mark} {}", note.what);
        if let Some(hint) = note.hint {
            let _ = writeln!(all, "     {hint}");
        }
    }
    without_port(&all).replace("in 0.0 s", "in N s").replace("in 0.1 s", "in N s")
}

#[tokio::test]
async fn a_healthy_small_machine() {
    let server = honest().await;
    insta::assert_snapshot!(looked_at(&client(&server), &machine(), true).await);
}

#[tokio::test]
async fn nothing_there_and_nothing_installed() {
    let gone = honest().await.url();
    let client_gone = builder_at(&gone).build().unwrap();
    let mut all = looked_at(&client_gone, &machine(), false).await;
    let server = FakeOllama::start(Config::default()).await;
    all += &looked_at(&client(&server), &machine(), false).await;
    all += &looked_at(&builder(&server).model("qwen3:8b").build().unwrap(), &machine(), false).await;
    // What the HTTP library says about it is its own affair.
    let (before, after) = all.split_once("cannot connect to Ollama").unwrap();
    let all = format!("{before}cannot connect to Ollama…\n{}", after.split_once('\n').unwrap().1);
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn what_is_installed_is_named_to_who_wants_another() {
    let server = honest().await;
    let said = looked_at(&builder(&server).model("qwen3:8b").build().unwrap(), &machine(), false).await;
    assert!(said.contains(&format!("ollama pull qwen3:8b; or name one that is installed: {NAME}")), "{said}");
}

#[tokio::test]
async fn everything_that_can_be_wrong() {
    let model = Model { on_gpu: 60, size: 9 << 30, trained: 4096, ..Model::new(NAME, Behaviour::Quiet).thinking() };
    let server = FakeOllama::start(Config { version: (0, 24, 0), ..Config::with(model) }).await;
    let other = builder(&server).num_ctx(2048).build().unwrap();
    other.warm_up().await.unwrap();
    insta::assert_snapshot!(looked_at(&client(&server), &machine(), false).await);
}

#[tokio::test]
async fn one_that_anybody_can_reach() {
    let server = FakeOllama::listen("0.0.0.0:0", Config::with(Model::new(NAME, Behaviour::Quiet))).await.unwrap();
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    let client = builder_at(&format!("0.0.0.0:{port}")).build().unwrap();
    let all = looked_at(&client, &machine(), false).await.replace(&port, "PORT");
    assert!(all.contains("listens on every interface, port PORT"), "{all}");
}
