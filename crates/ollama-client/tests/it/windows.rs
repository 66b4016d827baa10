//! Prompts that do not fit.

use logwarden_core::classifier::Classifier;
use logwarden_tests::ollama::{Behaviour, Config, FakeOllama, Fault, Model, Tokenizer};

use super::*;

/// A tokenizer that makes far more of a text than we expect.
fn dense() -> Model {
    Model { tokenizer: Tokenizer::Bytes, ..Model::new(NAME, Behaviour::Honest) }
}

#[tokio::test]
async fn too_large_is_said_with_the_servers_own_count_and_learned_from() {
    for model in [dense(), dense().native()] {
        let server = FakeOllama::start(Config::with(model)).await;
        let client = builder(&server).num_ctx(4096).build().unwrap();
        let before = client.capacity().chars_per_token;
        let error = client.classify(&large(8)).await.unwrap_err();
        let ClassifyError::TooLarge { tokens, window } = error else { panic!("{error}") };
        assert!(tokens > 4096 && window == 4096, "{tokens} {window}");
        assert!(client.capacity().chars_per_token < before);
        assert!(server.seen().is_empty(), "the model was not shown a part of it");
    }
}

#[tokio::test]
async fn a_question_that_cannot_fit_is_not_even_asked() {
    let server = honest().await;
    let client = builder(&server).num_ctx(2048).build().unwrap();
    let error = client.classify(&large(60)).await.unwrap_err();
    assert!(matches!(error, ClassifyError::TooLarge { window: 2048, .. }), "{error}");
    assert_eq!(server.chats().len(), 0);
}

#[tokio::test]
async fn a_prompt_that_an_old_server_cut_without_a_word_is_noticed() {
    let mut config = Config::with(dense());
    config.version = (0, 12, 0);
    let server = FakeOllama::start(config).await;
    let client = builder(&server).num_ctx(4096).build().unwrap();
    let error = client.classify(&large(8)).await.unwrap_err();
    assert!(matches!(error, ClassifyError::TooLarge { .. }), "{error}");
    assert_eq!(server.seen().len(), 1, "it did answer");
}

#[tokio::test]
async fn a_count_that_is_too_small_for_what_was_sent_is_noticed() {
    let server = honest().await;
    let client = client(&server);
    for count in [60, 300] {
        server.inject(Fault::PromptCount(count));
        let error = client.classify(&large(12)).await.unwrap_err();
        assert!(matches!(error, ClassifyError::TooLarge { .. }), "{count}: {error}");
    }
    client.classify(&large(12)).await.unwrap();
}

/// What Ollama 0.30 and later evaluate of a prompt that is too long: a little more than half of the window.
#[tokio::test]
async fn a_count_of_half_the_window_is_noticed_once_tokens_were_measured() {
    let server = honest().await;
    let client = client(&server);
    let mut long = None;
    for rows in 10..80 {
        let judged = client.classify(&large(rows)).await;
        let tokens = judged.unwrap().usage.prompt_tokens;
        // So much more than half that nobody would believe half of it, and not so much that three quarters are missing.
        if tokens > 5400 {
            long = Some(rows);
            break;
        }
    }
    let rows = long.expect("a long prompt fits the window");
    server.inject(Fault::PromptCount(8192 - (8192 - 4) / 2));
    let error = client.classify(&large(rows)).await.unwrap_err();
    assert!(matches!(error, ClassifyError::TooLarge { window: 8192, .. }), "{error}");
    client.classify(&large(rows)).await.unwrap();
}

#[tokio::test]
async fn prompt_and_answer_fit_the_window_together() {
    let server = honest().await;
    let client = builder(&server).num_ctx(4096).build().unwrap();
    for rows in 1..14 {
        let judged = client.classify(&large(rows)).await;
        if let (Ok(judgement), Some(chat)) = (judged, server.chats().last()) {
            let most = chat["options"]["num_predict"].as_u64().unwrap();
            assert!(judgement.usage.prompt_tokens + most < 4096, "{rows} rows");
        }
    }
    assert_eq!(server.counters().shifted, 0);
    assert_eq!(server.counters().reloads, 0);
}

#[tokio::test]
async fn an_answer_that_filled_the_window_is_not_believed() {
    let server = honest().await;
    for _ in 0..2 {
        server.inject(Fault::PromptCount(8180));
    }
    let error = ask(&server).await.unwrap_err();
    assert!(told(&error).contains("the window was full before it was finished"), "{error}");
}

#[tokio::test]
async fn a_window_that_a_neighbour_asked_for_is_not_ours() {
    let server = honest().await;
    builder(&server).num_ctx(2048).build().unwrap().warm_up().await.unwrap();
    let client = client(&server);
    client.warm_up().await.unwrap();
    assert_eq!(server.counters().reloads, 1, "loaded with our window before anything is asked");
    client.classify(&large(20)).await.unwrap();
    assert_eq!(server.counters().reloads, 1);
}

#[tokio::test]
async fn a_window_smaller_than_asked_for_is_lived_with() {
    let server = FakeOllama::start(Config::with(Model { trained: 4096, ..Model::new(NAME, Behaviour::Honest) })).await;
    let client = client(&server);
    client.warm_up().await.unwrap();
    client.classify(&digest()).await.unwrap();
    let error = client.classify(&large(60)).await.unwrap_err();
    assert!(matches!(error, ClassifyError::TooLarge { window: 4096, .. }), "{error}");
    assert_eq!(server.counters().reloads, 0);
}
