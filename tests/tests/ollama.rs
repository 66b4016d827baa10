//! The fake Ollama against what the real one answered: `fixtures/ollama/exchanges.ndjson` holds requests that were sent to an
//! Ollama 0.33.0 with tiny random models, in their order, and what of its answers does not depend on a model's words.
//!
//! `@lines 40` in a message stands for that many numbered lines of sshd, `@x 150` for that many `x `. `fault` is what happened
//! to the real one that the double does only when told to; those that are `together` were sent at once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write;

use logwarden_tests::ollama::{Behaviour, Config, FakeOllama, Fault, Model, Tokenizer, Way, json::Json};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn model(name: &str, way: Way, family: &str, thinking: bool) -> Model {
    let model = Model::new(name, Behaviour::Honest);
    let model = if thinking { model.thinking() } else { model };
    Model { way, family: family.into(), trained: 8192, tokenizer: Tokenizer::Bytes, ..model }
}

fn recorded_models() -> Vec<Model> {
    // Gemma's own weights and tokenizer; the others are random.
    let gemma = |name, way| {
        let gemma = model(name, way, "gemma3", false);
        Model { trained: 32_768, tokenizer: Tokenizer::Words, bos: true, ..gemma }
    };
    vec![
        model("rendered", Way::Rendered, "llama", false),
        model("native", Way::Native, "llama", false),
        model("think", Way::Rendered, "llama", true),
        model("thinknative", Way::Native, "llama", true),
        model("harmony", Way::Rendered, "gptoss", true),
        gemma("gemma", Way::Rendered),
        gemma("gemmanative", Way::Native),
    ]
}

/// `@lines 3` and `@x 3` written out; in a rendered prompt they end with another `@`.
fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        out.push_str(&rest[..at]);
        let marker = &rest[at + 1..];
        let (kind, after) = marker.split_once(' ').unwrap_or((marker, ""));
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let count: u32 = after[..digits].parse().unwrap();
        rest = after[digits..].strip_prefix('@').unwrap_or(&after[digits..]);
        match kind {
            "x" => out.push_str(&"x ".repeat(count as usize)),
            _ => {
                for i in 1..=count {
                    let (day, last, port, pid) = (20 + i % 9, 37 * i % 250, 40_000 + 13 * i, 1000 + 7 * i);
                    let _ = writeln!(
                        out,
                        "{i} 2026-08-{day} sshd[{pid}]: Failed password for root from 10.0.{i}.{last} port {port} ssh2"
                    );
                }
                out.push_str("Judge the lines above.");
            }
        }
    }
    out + rest
}

struct Answer {
    status: u64,
    headers: String,
    body: String,
}

/// A client so plain that it can send what no library would.
async fn send(url: &str, exchange: &Value) -> Answer {
    let address = url.strip_prefix("http://").unwrap();
    let body = exchange["raw"].as_str().unwrap_or_default();
    let (method, path) = (exchange["method"].as_str().unwrap(), exchange["path"].as_str().unwrap());
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    let headers = exchange["headers"].as_object();
    let _ = match headers.and_then(|headers| headers.get("Host")).and_then(Value::as_str) {
        Some(host) => write!(head, "Host: {host}\r\n"),
        None => write!(head, "Host: {address}\r\n"),
    };
    if let Some(origin) = headers.and_then(|headers| headers.get("Origin")).and_then(Value::as_str) {
        let _ = write!(head, "Origin: {origin}\r\n");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (headers, body) = text.split_once("\r\n\r\n").unwrap();
    let chunked = headers.to_lowercase().contains("transfer-encoding: chunked");
    let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers: headers.to_lowercase(), body: if chunked { dechunked(body) } else { body.to_owned() } }
}

fn dechunked(mut text: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        out.push_str(&rest[..size]);
        text = rest[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    out
}

/// Counts of the real tokenizer are near ours, not the same.
fn near(ours: u64, theirs: u64) -> bool {
    ours.abs_diff(theirs) <= 2 + theirs / 20
}

fn without_counts(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The exchange's request body with its keys in their order, which matters to schemas, and texts written out.
fn body_of(line: &str) -> Option<String> {
    fn expanded(json: &Json) -> Json {
        match json {
            Json::String(text) if text.starts_with('@') => Json::String(expand(text)),
            Json::Array(items) => Json::Array(items.iter().map(expanded).collect()),
            Json::Object(entries) => {
                Json::Object(entries.iter().map(|(key, value)| (key.clone(), expanded(value))).collect())
            }
            other => other.clone(),
        }
    }
    let exchange: Json = serde_json::from_str(line).unwrap();
    exchange.get("body").map(|body| expanded(body).to_string())
}

/// What differs from the record.
fn differences(exchange: &Value, answer: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    let mut differs = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            found.push(format!("{what}: {ours} instead of {theirs}"));
        }
    };
    differs("status", answer.status.to_string(), exchange["status"].to_string());
    for (header, key) in [("content-type", "type"), ("allow", "allow")] {
        if let Some(value) = exchange[key].as_str() {
            let line = answer.headers.lines().find_map(|line| line.strip_prefix(&format!("{header}: ")));
            let line = line.unwrap_or_default().split(';').next().unwrap_or_default();
            differs(header, line.to_owned(), value.to_lowercase());
        }
    }
    if let Some(text) = exchange["text"].as_str() {
        differs("text", answer.body.clone(), text.to_owned());
    }
    for difference in openai_differences(exchange, answer) {
        differs("OpenAI", difference, String::new());
    }
    let lines: Vec<Value> = answer.body.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let last = lines.last().cloned().unwrap_or_default();
    if let Some(error) = exchange["error"].as_str() {
        let ours = last["error"].as_str().unwrap_or_default();
        if error.contains("n_prompt_tokens") {
            differs("error", without_counts(ours), without_counts(error));
        } else {
            differs("error", ours.to_owned(), error.to_owned());
        }
    }
    for key in ["done", "done_reason", "version", "eval_count"] {
        if let Some(value) = exchange.get(key) {
            differs(key, last[key].to_string(), value.to_string());
        }
    }
    if let Some(count) = exchange["prompt_eval_count"].as_u64() {
        let ours = last["prompt_eval_count"].as_u64().unwrap_or(0);
        if !near(ours, count) {
            differs("prompt_eval_count", ours.to_string(), count.to_string());
        }
    }
    if let Some(text) = exchange["rendered"].as_str() {
        let ours = last["_debug_info"]["rendered_template"].as_str().unwrap_or_default();
        differs("rendered", ours.to_owned(), expand(text));
    }
    let joined = |key: &str| lines.iter().filter_map(|line| line["message"][key].as_str()).collect::<String>();
    if exchange["empty"] == true {
        differs("content", joined("content"), String::new());
    }
    if exchange["thinks"] == true {
        differs("thinks", (!joined("thinking").is_empty()).to_string(), "true".to_owned());
    }
    if let Some(keys) = exchange["keys"].as_array() {
        let content = joined("content");
        let places: Vec<_> = keys.iter().map(|key| content.find(&format!("{key}:"))).collect();
        differs(
            "order of keys",
            (places.iter().all(Option::is_some) && places.is_sorted()).to_string(),
            "true".to_owned(),
        );
    }
    if let Some(windows) = exchange["windows"].as_array() {
        let models = last["models"].as_array().cloned().unwrap_or_default();
        let ours: Vec<_> = models.iter().map(|model| model["context_length"].clone()).collect();
        differs("windows", format!("{ours:?}"), format!("{windows:?}"));
    }
    found
}

/// The same for the routes that speak OpenAI's words.
fn openai_differences(exchange: &Value, answer: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    let mut differs = |what: &str, ours: &Value, theirs: &Value| {
        if ours != theirs {
            found.push(format!("{what}: {ours} instead of {theirs}"));
        }
    };
    let event = |line: &str| serde_json::from_str(line.strip_prefix("data: ")?).ok();
    let mut all: Vec<Value> = answer.body.lines().filter_map(event).collect();
    all.extend(serde_json::from_str::<Value>(&answer.body).ok());
    if let Some(error) = exchange.get("error_object") {
        let ours = &all.first().unwrap_or(&Value::Null)["error"];
        for key in ["type", "param", "code"] {
            differs(key, &ours[key], &error[key]);
        }
        let message = |error: &Value| without_counts(error["message"].as_str().unwrap_or_default()).into();
        differs("message", &message(ours), &message(error));
    }
    if let Some(finish) = exchange.get("finish") {
        let mut choices = all.iter().filter_map(|part| part["choices"].get(0));
        differs("finish_reason", &choices.next_back().unwrap_or(&Value::Null)["finish_reason"], finish);
    }
    if let Some(done) = exchange.get("marked_done") {
        differs("[DONE]", &answer.body.contains("data: [DONE]").into(), done);
    }
    if let Some(usage) = exchange.get("usage") {
        let ours = all.iter().rev().find_map(|part| part.get("usage")).cloned().unwrap_or_default();
        let number = |usage: &Value, key: &str| usage[key].as_u64().unwrap_or(u64::MAX);
        if !near(number(&ours, "prompt_tokens"), number(usage, "prompt_tokens")) {
            differs("prompt_tokens", &ours["prompt_tokens"], &usage["prompt_tokens"]);
        }
        let (prompt, completion) = (number(&ours, "prompt_tokens"), number(&ours, "completion_tokens"));
        differs("total_tokens", &ours["total_tokens"], &prompt.saturating_add(completion).into());
        // How long an answer is that ends by itself, is a matter of words.
        if exchange.get("finish").is_some_and(|finish| finish != "stop") {
            differs("completion_tokens", &ours["completion_tokens"], &usage["completion_tokens"]);
        }
    }
    if let Some(entries) = all.first().and_then(|part| part["data"].as_array()) {
        for entry in entries {
            differs("a model", &entry["object"], &"model".into());
        }
    }
    found
}

/// The exchanges, each with its body as it is sent.
fn exchanges() -> Vec<Value> {
    let fixtures = include_str!("../fixtures/ollama/exchanges.ndjson");
    let read = |line: &str| {
        let mut exchange: Value = serde_json::from_str(line).unwrap();
        if let Some(body) = body_of(line) {
            exchange["raw"] = body.into();
        }
        exchange
    };
    fixtures.lines().map(read).collect()
}

/// What the real model did, or what was done to it, that a script does not do by itself.
fn injected(exchange: &Value) -> Option<Fault> {
    let fault = exchange.get("fault")?;
    Some(match fault["loop"].as_str() {
        Some(token) => Fault::Loop(token.to_owned(), 40),
        None => {
            let text = "an error was encountered while running the model: unexpected EOF";
            Fault::ErrorLine(fault["dies_after"].as_u64().unwrap() as usize, text.to_owned())
        }
    })
}

#[tokio::test]
async fn recorded_requests_are_answered_as_the_real_one_did() {
    let server = FakeOllama::start(Config { models: recorded_models(), ..Config::default() }).await;
    let mut wrong = Vec::new();
    let mut count = 0;
    for exchange in exchanges().iter().filter(|exchange| exchange.get("together").is_none()) {
        if let Some(fault) = injected(exchange) {
            server.inject(fault);
        }
        let answer = send(&server.url(), exchange).await;
        count += 1;
        for difference in differences(exchange, &answer) {
            wrong.push(format!("{}: {difference}", exchange["name"].as_str().unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(count, 177);
}

#[tokio::test]
async fn requests_that_were_sent_at_once_end_as_they_did() {
    for (group, max_queue, max_loaded) in [("queued", 512, 3), ("load-queue", 1, 1)] {
        // Longer than the answers that were asked for.
        let models = recorded_models().into_iter().map(|model| {
            let behaviour = Behaviour::Fixed((0..200).map(|number| format!("word {number}, ")).collect());
            Model { behaviour, reasoning: String::new(), ..model }
        });
        let mut config = Config { models: models.collect(), max_queue, max_loaded, ..Config::default() };
        config.delays.token = std::time::Duration::from_millis(2);
        let server = FakeOllama::start(config).await;
        let url = server.url();
        let together: Vec<_> = exchanges().into_iter().filter(|exchange| exchange["together"] == group).collect();
        // The model of the last one is loaded, and busy with something long.
        let last = together.last().unwrap()["body"]["model"].as_str().unwrap().to_owned();
        let long = chat(&last, r#","options":{"num_ctx":2048}"#);
        let busy = tokio::spawn({
            let url = url.clone();
            async move { send(&url, &long).await }
        });
        assert!(server.until(|counters| counters.most_at_once == 1).await);
        let answers = futures::future::join_all(together.iter().map(|exchange| send(&url, exchange))).await;
        assert_eq!(busy.await.unwrap().status, 200);
        // Which of them finds a place is a matter of luck.
        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        let mut wanted: Vec<_> = together.iter().map(|exchange| exchange["status"].as_u64().unwrap()).collect();
        statuses.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(statuses, wanted, "{group}");
        for answer in &answers {
            let like = together.iter().find(|exchange| exchange["status"] == answer.status).unwrap();
            let mut like = like.clone();
            // Each has a tokenizer of its own.
            like.as_object_mut().unwrap().remove("prompt_eval_count");
            assert_eq!(differences(&like, answer), [""; 0], "{group}");
        }
    }
}

#[tokio::test]
async fn nothing_is_sent_before_the_first_word_and_a_load_is_lost_when_the_client_leaves() {
    let mut config = Config::with(Model::new("m", Behaviour::Quiet));
    config.delays.load = std::time::Duration::from_secs(30);
    let server = FakeOllama::start(config).await;
    let mut stream = TcpStream::connect(server.url().strip_prefix("http://").unwrap()).await.unwrap();
    let body = r#"{"model":"m","messages":[]}"#;
    let head = format!("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let silent = tokio::time::timeout(std::time::Duration::from_millis(100), stream.read_u8()).await;
    assert!(silent.is_err());
    drop(stream);
    assert!(server.until(|counters| counters.aborted_loads == 1 && counters.loads == 0).await);
    let ps = serde_json::json!({ "method": "GET", "path": "/api/ps" });
    assert_eq!(send(&server.url(), &ps).await.body, r#"{"models":[]}"#, "the work is lost");
}

fn chat(model: &str, more: &str) -> Value {
    let body = format!(r#"{{"model":"{model}","stream":false,"messages":[{{"role":"user","content":"x"}}]{more}}}"#);
    serde_json::json!({ "method": "POST", "path": "/api/chat", "raw": body })
}

#[tokio::test]
async fn what_matters_at_loading_loads_again_and_the_rest_does_not() {
    let server = FakeOllama::start(Config { models: recorded_models(), ..Config::default() }).await;
    for more in ["", r#","options":{"temperature":1,"seed":3}"#, r#","truncate":false"#, r#","keep_alive":"1h""#] {
        send(&server.url(), &chat("rendered", more)).await;
    }
    assert_eq!((server.counters().loads, server.counters().reloads), (1, 0));
    for more in [r#","shift":false"#, "", r#","options":{"num_ctx":1024}"#] {
        send(&server.url(), &chat("rendered", more)).await;
    }
    assert_eq!((server.counters().loads, server.counters().reloads), (4, 3));
}

#[tokio::test]
async fn models_leave_when_their_time_is_over_and_when_there_is_no_room() {
    let server = FakeOllama::start(Config { models: recorded_models(), max_loaded: 2, ..Config::default() }).await;
    let ps = serde_json::json!({ "method": "GET", "path": "/api/ps" });
    let names = |answer: Answer| {
        let json: Value = serde_json::from_str(&answer.body).unwrap();
        json["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for model in ["rendered", "native", "gemma"] {
        send(&server.url(), &chat(model, "")).await;
    }
    assert_eq!(names(send(&server.url(), &ps).await).len(), 2);
    send(&server.url(), &chat("gemma", r#","keep_alive":-1"#)).await;
    server.advance(std::time::Duration::from_secs(301));
    assert_eq!(names(send(&server.url(), &ps).await), ["gemma:latest"]);
}

#[tokio::test]
async fn only_the_queue_for_loading_is_ever_full() {
    let mut config = Config { models: recorded_models(), max_queue: 1, ..Config::default() };
    config.delays.load = std::time::Duration::from_millis(100);
    let server = FakeOllama::start(config).await;
    let url = server.url();
    let (a, b) = (chat("rendered", ""), chat("native", ""));
    let (c, d) = (chat("gemma", ""), chat("think", ""));
    let all = tokio::join!(send(&url, &a), send(&url, &b), send(&url, &c), send(&url, &d));
    let all = [all.0, all.1, all.2, all.3];
    let busy: Vec<_> = all.iter().filter(|answer| answer.status == 503).collect();
    assert_eq!(busy.len(), 2);
    assert_eq!(busy[0].body, r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#);
    let loaded = chat("rendered", "");
    let waiting = futures::future::join_all((0..8).map(|_| send(&url, &loaded))).await;
    assert!(waiting.iter().all(|answer| answer.status == 200));
    assert_eq!(server.counters().most_at_once, 1);
}

#[tokio::test]
async fn older_versions_cut_prompts_in_their_own_ways() {
    let long = expand("@lines 40").replace('\n', "\\n");
    let ask = |more: &str| {
        let body = format!(
            r#"{{"model":"rendered","stream":false,"messages":[{{"role":"user","content":"{long}"}}],"options":{{"num_ctx":1024,"num_predict":5}}{more}}}"#
        );
        serde_json::json!({ "method": "POST", "path": "/api/chat", "raw": body })
    };
    for (version, more, status, tokens) in [
        ((0, 33, 0), "", 200, 514),
        ((0, 33, 0), r#","truncate":false"#, 400, 0),
        ((0, 24, 0), "", 200, 1024),
        ((0, 24, 0), r#","truncate":false"#, 400, 0),
        ((0, 12, 0), r#","truncate":false"#, 200, 1024),
    ] {
        let server = FakeOllama::start(Config { models: recorded_models(), version, ..Config::default() }).await;
        let answer = send(&server.url(), &ask(more)).await;
        let json: Value = serde_json::from_str(&answer.body).unwrap();
        let count = json["prompt_eval_count"].as_u64().unwrap_or(0);
        assert_eq!((answer.status, count), (status, tokens), "{version:?} {more} {json}");
        if let Some(seen) = server.seen().first() {
            assert!(
                seen.ends_with("<|im_start|>assistant\n") && !seen.contains("\n2 2026"),
                "the head is gone: {seen}"
            );
        }
    }
}
