//! What goes out.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use logwarden_core::classifier::Classifier;
use logwarden_ollama_client::{Exchange, KeepAlive};
use logwarden_tests::ollama::{Behaviour, Config, FakeOllama, Fault, Model};
use secrecy::SecretString;
use serde_json::json;

use super::*;

#[tokio::test]
async fn everything_that_has_a_default_somewhere_is_said() {
    let server = honest().await;
    ask(&server).await.unwrap();
    let chat = &server.chats()[0];
    assert_eq!(chat["stream"], true);
    assert_eq!(chat["truncate"], false);
    assert_eq!(chat["keep_alive"], "10m");
    assert_eq!(chat["options"]["num_ctx"], 8192);
    assert_eq!(chat["options"]["temperature"], 0.0);
    assert_eq!(chat["options"]["repeat_penalty"], 1.0);
    assert!(chat["options"]["seed"].is_u64());
    let answer = chat["options"]["num_predict"].as_u64().unwrap();
    assert!((500..2800).contains(&answer), "{answer}");
    assert_eq!(chat.get("shift"), None, "another value would load the model again");
    assert_eq!(chat["format"]["type"], "object");
    let roles: Vec<_> = chat["messages"].as_array().unwrap().iter().map(|message| message["role"].clone()).collect();
    assert_eq!(roles, [json!("system"), json!("user")]);
}

#[tokio::test]
async fn what_the_server_may_cache_is_the_same_in_every_call() {
    let server = honest().await;
    let client = client(&server);
    client.warm_up().await.unwrap();
    client.classify(&digest()).await.unwrap();
    client.classify(&large(3)).await.unwrap();
    // Once more with another seed, once more without lengths in the schema.
    let grammar = Fault::json(400, r#"{"error":"Failed to initialize samplers: failed to parse grammar"}"#);
    for fault in [Fault::Fenced, grammar] {
        server.inject(fault);
        client.classify(&digest()).await.unwrap();
    }
    let chats = server.chats();
    assert_eq!(chats.len(), 6);
    for chat in &chats {
        assert_eq!(chat["messages"][0], chats[0]["messages"][0]);
        assert_eq!(chat["options"]["num_ctx"], chats[0]["options"]["num_ctx"]);
    }
    assert_ne!(chats[0]["messages"][1], chats[1]["messages"][1]);
    assert_eq!((server.counters().loads, server.counters().reloads), (1, 0));
}

#[tokio::test]
async fn thinking_is_switched_off_as_each_model_wants_it() {
    let cases = [
        (Model::new("plain:1b", Behaviour::Honest), None),
        (Model::new("thinker:4b", Behaviour::Honest).thinking(), Some(json!(false))),
        (
            Model { family: "gptoss".into(), ..Model::new("gpt-oss:20b", Behaviour::Honest).thinking() },
            Some(json!("low")),
        ),
    ];
    for (model, think) in cases {
        let name = model.name.clone();
        let server = FakeOllama::start(Config::with(model)).await;
        let client = builder(&server).model(&name).build().unwrap();
        let judgement = client.classify(&digest()).await.unwrap();
        assert_eq!(judgement.verdict.findings.len(), 1, "{name}");
        assert_eq!(server.chats()[0].get("think").cloned(), think, "{name}");
    }
}

#[tokio::test]
async fn keeping_the_model_can_be_left_to_the_server() {
    let server = honest().await;
    let client = builder(&server).keep_alive(None).build().unwrap();
    client.classify(&digest()).await.unwrap();
    assert_eq!(server.chats()[0].get("keep_alive"), None);
    let client = builder(&server).keep_alive(Some(KeepAlive::parse("-1").unwrap())).build().unwrap();
    client.classify(&digest()).await.unwrap();
    assert_eq!(server.chats()[1]["keep_alive"], -1);
}

#[tokio::test]
async fn credentials_go_to_the_proxy_and_into_no_error_and_no_debug_output() {
    let server = honest().await;
    let url = server.url().replace("http://", "http://me:s3cret@");
    let client = builder_at(&url).build().unwrap();
    client.classify(&digest()).await.unwrap();
    assert!(server.requests().iter().all(|request| request.header("authorization") == Some("Basic bWU6czNjcmV0")));
    server.inject(Fault::json(401, r#"{"error":"unauthorized","signin_url":"https://x/?k=s3cret"}"#));
    let error = client.classify(&digest()).await.unwrap_err();
    assert!(!format!("{error:?} {client:?}").contains("s3cret"));
    let bearer = builder(&server).bearer(&SecretString::from("t0ken".to_owned())).build().unwrap();
    bearer.classify(&digest()).await.unwrap();
    assert_eq!(server.requests().last().unwrap().header("authorization"), Some("Bearer t0ken"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = honest().await;
    server.inject(Fault::Status(301, "text/html".into(), String::new()));
    insta::assert_snapshot!(told(&ask(&server).await.unwrap_err()));
}

#[tokio::test]
async fn the_trail_receives_the_prompt_and_the_answer_also_when_it_is_refused() {
    let server = honest().await;
    server.inject(Fault::Answer("nonsense".into()));
    let trail = Arc::new(Mutex::new(Vec::new()));
    let kept = trail.clone();
    let keep = move |exchange: Exchange<'_>| {
        kept.lock().unwrap().push(match exchange {
            Exchange::Prompt(text) => text.chars().take(9).collect::<String>(),
            Exchange::Response(text) => text.chars().take(8).collect(),
        });
    };
    let client = builder(&server).trail(Arc::new(keep)).build().unwrap();
    client.classify(&digest()).await.unwrap();
    assert_eq!(*trail.lock().unwrap(), ["{\"model\":", "nonsense", "{\"model\":", "{\"findin"]);
}

#[tokio::test]
async fn one_question_is_asked_at_a_time_and_the_queue_has_an_end() {
    let mut config = Config::with(Model::new(NAME, Behaviour::Quiet));
    config.delays.prompt = Duration::from_millis(30);
    config.parallel = 4;
    let server = FakeOllama::start(config).await;
    let client = builder(&server).waiting(2).build().unwrap();
    let digest = digest();
    let answers = futures::future::join_all((0..5).map(|_| client.classify(&digest))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(ClassifyError::is_transient));
    assert_eq!(server.counters().most_at_once, 1);
}
