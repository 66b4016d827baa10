//! Answers that do not count, and servers in trouble.

use std::fmt::Write;

use logwarden_core::classifier::Classifier;
use logwarden_tests::ollama::{Behaviour, Config, FakeOllama, Fault, Model};

use super::*;

#[tokio::test]
async fn an_answer_that_is_not_whole_and_valid_is_asked_for_once_more_and_then_given_up() {
    let native = Config::with(Model::new(NAME, Behaviour::Honest).native());
    let server = FakeOllama::start(native).await;
    let answer = |text: &str| Fault::Answer(text.to_owned());
    let cases = [
        ("cut by the budget", Fault::Length(40)),
        ("no end", Fault::Eof(5)),
        ("another reason", Fault::DoneReason("load".into())),
        ("blanks", Fault::Whitespace(400)),
        ("a loop", Fault::Loop("the disk is full and ".into(), 60)),
        ("a fence", Fault::Fenced),
        ("prose", Fault::Prose("Sure, here it is:".into())),
        ("empty", answer("")),
        ("duplicate keys", answer(r#"{"findings":[],"findings":[],"summary":"x","verdict":"none"}"#)),
        ("lone surrogate", answer(r#"{"findings":[],"summary":"\ud800","verdict":"none"}"#)),
        ("wrong enum", answer(r#"{"findings":[],"summary":"x","verdict":"Apocalyptic"}"#)),
        ("ten megabytes", Fault::LongLine(10 << 20)),
        ("a hundred kilobytes", Fault::LongLine(100 << 10)),
        ("error line", Fault::ErrorLine(3, "parser error: something".into())),
    ];
    let mut all = String::new();
    for (name, fault) in cases {
        let before = server.chats().len();
        server.inject(fault.clone());
        server.inject(fault);
        let error = ask(&server).await.unwrap_err();
        assert!(matches!(error, ClassifyError::Unusable { .. }), "{name}: {error:?}");
        let chats = server.chats();
        assert_eq!(chats.len() - before, 2, "{name}");
        let (first, second) = (&chats[before]["options"], &chats[before + 1]["options"]);
        assert!(first["seed"] != second["seed"] && first["temperature"] != second["temperature"], "{name}");
        assert_eq!(first["num_ctx"], second["num_ctx"]);
        let _ = writeln!(all, "{name}: {}", told(&error));
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn no_cut_of_an_answer_at_any_byte_is_taken_for_whole() {
    let whole = r#"{"findings":[{"cites":[2],"explanation":"café full","kind":"memory","next_step":"look","severity":"high","title":"oom"}],"summary":"One kill.","verdict":"high"}"#;
    let server = FakeOllama::start(Config::with(Model::new(NAME, Behaviour::Fixed(whole.to_owned())))).await;
    let client = client(&server);
    client.classify(&digest()).await.unwrap();
    for bytes in 0..whole.len() {
        server.inject(Fault::Length(bytes));
        server.inject(Fault::Length(bytes));
        let error = client.classify(&digest()).await.unwrap_err();
        assert!(matches!(error, ClassifyError::Unusable { .. }), "cut at {bytes}: {error:?}");
    }
}

#[tokio::test]
async fn the_second_answer_counts_when_it_is_good() {
    let server = honest().await;
    server.inject(Fault::Fenced);
    let judgement = ask(&server).await.unwrap();
    assert_eq!((judgement.usage.calls, judgement.verdict.findings.len()), (2, 1));
}

#[tokio::test]
async fn trouble_that_passes_is_waited_for_and_other_trouble_is_said() {
    let server = honest().await;
    let eof = "an error was encountered while running the model: unexpected EOF";
    for fault in [
        Fault::busy(),
        Fault::ErrorLine(0, eof.into()),
        Fault::ErrorLine(4, eof.into()),
        Fault::Reset(3),
        Fault::bad_gateway(),
    ] {
        server.inject(fault.clone());
        let judgement = ask(&server).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(judgement.usage.calls, 2, "{fault:?}");
    }
    let cases = [
        Fault::busy(),
        Fault::ErrorLine(0, eof.into()),
        Fault::Reset(3),
        Fault::bad_gateway(),
        Fault::OutOfMemory,
        Fault::json(403, ""),
        Fault::Status(404, "text/plain".into(), "404 page not found".into()),
        Fault::json(401, r#"{"error":"unauthorized","signin_url":"https://ollama.com/connect"}"#),
        Fault::json(500, r#"{"error":"option \"num_ctx\" must be of type integer"}"#),
        Fault::Remote,
    ];
    let mut all = String::new();
    for fault in cases {
        (0..4).for_each(|_| server.inject(fault.clone()));
        let before = server.chats().len();
        let error = ask(&server).await.unwrap_err();
        let times = server.chats().len() - before;
        // What the HTTP library says about a broken connection is its own affair.
        let told = told(&error);
        let told = told.split_inclusive("the connection broke").next().unwrap_or_default();
        let _ = writeln!(all, "{told}\n(asked {times} times)\n");
        // What was not needed is taken out of the way.
        server.take_faults();
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn a_server_that_is_not_there_or_says_nothing_is_unavailable() {
    let gone = honest().await.url();
    let error = builder_at(&gone).build().unwrap().classify(&digest()).await.unwrap_err();
    assert!(error.is_transient());
    assert!(
        told(&error).starts_with("the model at http://127.0.0.1:PORT is not available: cannot connect to Ollama"),
        "{error}"
    );
    let server = honest().await;
    let brief = Duration::from_millis(80);
    for (fault, stall) in [(Fault::StallBeforeHeaders, brief * 20), (Fault::StallAfter(3), brief)] {
        server.inject(fault.clone());
        let client = builder(&server).timeout(brief * 10).stall_timeout(stall).build().unwrap();
        let before = client.capacity().row_tokens;
        let error = client.classify(&large(6)).await.unwrap_err();
        assert!(error.is_transient(), "{fault:?}: {error}");
        assert!(client.capacity().row_tokens <= before, "less is asked the next time");
        assert!(server.until(|counters| counters.cancelled > 0).await, "the server is told to stop");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_stopped_at_the_deadline() {
    let mut config = Config::with(Model::new(NAME, Behaviour::Honest));
    config.delays.token = Duration::from_millis(20);
    let server = FakeOllama::start(config).await;
    let client = builder(&server).timeout(Duration::from_millis(200)).build().unwrap();
    let error = client.classify(&digest()).await.unwrap_err();
    assert!(matches!(error, ClassifyError::Unusable { .. }), "{error:?}");
    assert!(server.until(|counters| counters.cancelled == 1).await);
}

#[tokio::test]
async fn what_loading_took_once_is_waited_for_twice() {
    let slow = async || {
        let mut config = Config::with(Model::new(NAME, Behaviour::Honest));
        config.delays.load = Duration::from_millis(400);
        FakeOllama::start(config).await
    };
    let first = slow().await;
    let before = client(&first);
    before.classify(&digest()).await.unwrap();
    let second = slow().await;
    let impatient = || builder(&second).load_timeout(Duration::from_millis(20));
    let error = impatient().build().unwrap().classify(&digest()).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    impatient().calibration(before.calibration()).build().unwrap().classify(&digest()).await.unwrap();
}

#[tokio::test]
async fn a_load_goes_on_when_the_one_who_asked_has_left() {
    let mut config = Config::with(Model::new(NAME, Behaviour::Honest));
    config.delays.load = Duration::from_millis(300);
    let server = FakeOllama::start(config).await;
    let client = client(&server);
    let impatient = tokio::time::timeout(Duration::from_millis(100), client.classify(&digest())).await;
    assert!(impatient.is_err());
    client.classify(&digest()).await.unwrap();
    let counters = server.counters();
    assert_eq!((counters.loads, counters.aborted_loads), (1, 0));
}

#[tokio::test]
async fn leaving_stops_the_model() {
    let mut config = Config::with(Model::new(NAME, Behaviour::Honest));
    config.delays.prompt = Duration::from_secs(60);
    let server = FakeOllama::start(config).await;
    let client = client(&server);
    client.warm_up().await.unwrap();
    let left = tokio::time::timeout(Duration::from_millis(100), client.classify(&digest())).await;
    assert!(left.is_err());
    assert!(server.until(|counters| counters.cancelled == 1).await);
}

#[tokio::test]
async fn a_schema_that_the_grammar_cannot_take_is_sent_once_more_without_lengths() {
    let server = honest().await;
    let refused = r#"{"error":"{\"error\":{\"code\":400,\"message\":\"Failed to initialize samplers: failed to parse grammar\",\"type\":\"invalid_request_error\"}}"}"#;
    server.inject(Fault::json(400, refused));
    ask(&server).await.unwrap();
    let chats = server.chats();
    assert!(chats[0]["format"].to_string().contains("maxLength"));
    assert!(!chats[1]["format"].to_string().contains("maxLength"));
    (0..2).for_each(|_| server.inject(Fault::json(400, refused)));
    assert!(matches!(ask(&server).await.unwrap_err(), ClassifyError::Misconfigured { .. }));
}

#[tokio::test]
async fn cloud_models_are_refused_unless_they_are_allowed_by_name() {
    let elsewhere = Some(("https://ollama.com:443".to_owned(), "kimi".to_owned()));
    let models = vec![
        Model { remote: elsewhere, ..Model::new("innocent:7b", Behaviour::Honest) },
        Model::new("gpt-oss:120b-cloud", Behaviour::Honest),
    ];
    let server = FakeOllama::start(Config { models, cloud: true, ..Config::default() }).await;
    let mut all = String::new();
    for name in ["innocent:7b", "gpt-oss:120b-cloud", "other:cloud"] {
        let error = builder(&server).model(name).build().unwrap().classify(&digest()).await.unwrap_err();
        let _ = writeln!(all, "{}", told(&error));
    }
    assert_eq!(server.chats().len(), 0, "not a line has left");
    insta::assert_snapshot!(all);
    let client = builder(&server).model("innocent:7b").allow_cloud("innocent:7b").build().unwrap();
    client.classify(&digest()).await.unwrap();
}
