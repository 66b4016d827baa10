//! `/v1/chat/completions` and `/v1/models`: the same chats in other words, as Ollama translates them. The window cannot be
//! set there, a prompt that is too long is always cut where that is possible, and an error after the first word is swallowed.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    http::Response,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::{
    Shared,
    json::Json,
    server::{self, Part, Parts, START},
};

const JSON: &str = "application/json";

/// Answers a chat.
pub(super) async fn chat(shared: Arc<Shared>, body: &[u8]) -> Response<Body> {
    let asked: Json = match serde_json::from_slice(body) {
        Ok(asked) => asked,
        Err(error) => return refused(400, &error.to_string()),
    };
    let is_stream = asked.get("stream").and_then(Json::as_bool) == Some(true);
    let usage = asked.get("stream_options").and_then(|options| options.get("include_usage")?.as_bool());
    let mut inner = server::chat(shared, Bytes::from(translated(&asked, is_stream).to_string()));
    let Some(Part::Head(status, _)) = inner.recv().await else { return refused(500, "") };
    if status == 200 && is_stream {
        let (sender, parts) = mpsc::channel(1);
        tokio::spawn(events(inner, sender, usage == Some(true)));
        return server::respond(200, Some("text/event-stream"), Body::from_stream(Parts(parts)));
    }
    let mut body = Vec::new();
    while let Some(Part::Bytes(bytes)) = inner.recv().await {
        body.extend(bytes);
    }
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    match answer["error"].as_str() {
        Some(error) => refused(status, error),
        None => reply(status, &completion(&answer)),
    }
}

/// The installed models.
pub(super) fn models(shared: &Shared) -> Response<Body> {
    let entry = |name: &str| json!({ "id": name, "object": "model", "created": START, "owned_by": "library" });
    let list: Vec<_> = shared.lock().config.models.iter().map(|model| entry(&model.name)).collect();
    reply(200, &json!({ "object": "list", "data": list }))
}

/// The request as `/api/chat` takes it. `num_ctx`, `keep_alive`, `truncate` and `max_completion_tokens` are not read.
fn translated(asked: &Json, is_stream: bool) -> Json {
    let copy = |name: &str| asked.get(name).cloned();
    let mut options = vec![("temperature".to_owned(), copy("temperature").unwrap_or(Json::Number(1.into())))];
    for (theirs, ours) in [("max_tokens", "num_predict"), ("seed", "seed"), ("stop", "stop"), ("top_p", "top_p")] {
        options.extend(copy(theirs).map(|value| (ours.to_owned(), value)));
    }
    let mut chat = vec![("stream".to_owned(), Json::Bool(is_stream)), ("options".to_owned(), Json::Object(options))];
    for name in ["model", "messages", "tools"] {
        chat.extend(copy(name).map(|value| (name.to_owned(), value)));
    }
    let wanted = asked.get("response_format");
    let format = match wanted.and_then(|wanted| wanted.get("type")).and_then(Json::as_str) {
        Some("json_schema") => wanted.and_then(|wanted| wanted.get("json_schema")?.get("schema").cloned()),
        Some("json_object") => Some(Json::String("json".into())),
        _ => None,
    };
    chat.extend(format.map(|format| ("format".to_owned(), format)));
    let think = copy("reasoning_effort").map(|effort| match effort.as_str() {
        Some("none") => Json::Bool(false),
        _ => effort,
    });
    chat.extend(think.map(|think| ("think".to_owned(), think)));
    Json::Object(chat)
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'a str,
    created: u64,
    model: &'a Value,
    system_fingerprint: &'a str,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Said<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Said<'a>>,
    finish_reason: &'a Value,
}

#[derive(Default, Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

/// Without figures, as after an abort, all of it is zero.
fn usage(line: &Value) -> Usage {
    let (prompt, answer) = (line["prompt_eval_count"].as_u64(), line["eval_count"].as_u64());
    let (prompt_tokens, completion_tokens) = (prompt.unwrap_or(0), answer.unwrap_or(0));
    Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
}

fn of<'a>(line: &'a Value, object: &'a str, choices: Vec<Choice<'a>>, usage: Option<Usage>) -> Completion<'a> {
    let model = &line["model"];
    Completion { id: "chatcmpl-1", object, created: START, model, system_fingerprint: "fp_ollama", choices, usage }
}

fn completion(answer: &Value) -> Completion<'_> {
    let message = &answer["message"];
    let said = Said { role: Some("assistant"), content: message["content"].as_str(), reasoning: thought(message) };
    let choice = Choice { index: 0, message: Some(said), delta: None, finish_reason: &answer["done_reason"] };
    of(answer, "chat.completion", vec![choice], Some(usage(answer)))
}

fn thought(message: &Value) -> Option<&str> {
    message["thinking"].as_str().filter(|thought| !thought.is_empty())
}

/// Turns lines into events. Whatever goes wrong on the way, the stream just ends: no reason, and no `[DONE]`.
async fn events(mut lines: Receiver<Part>, out: Sender<Part>, with_usage: bool) {
    let (mut buffer, mut has_begun) = (Vec::new(), false);
    while let Some(part) = lines.recv().await {
        let Part::Bytes(bytes) = part else {
            let _ = out.send(part).await;
            return;
        };
        buffer.extend(bytes);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Value = serde_json::from_slice(&buffer[..end]).unwrap_or_default();
            buffer.drain(..=end);
            if line["error"].is_string() {
                return;
            }
            let text = event(&line, !has_begun, with_usage);
            has_begun = true;
            if out.send(Part::Bytes(text.into_bytes())).await.is_err() {
                return;
            }
        }
    }
}

fn event(line: &Value, is_first: bool, with_usage: bool) -> String {
    let (message, is_done) = (&line["message"], line["done"] == true);
    let content = message["content"].as_str().filter(|content| !is_done || !content.is_empty());
    let role = is_first.then_some("assistant");
    let delta = Said { role, content, reasoning: thought(message) };
    let choice = Choice { index: 0, message: None, delta: Some(delta), finish_reason: &line["done_reason"] };
    let data = |completion: &Completion<'_>| {
        format!("data: {}\n\n", server::go(&serde_json::to_string(completion).unwrap_or_default()))
    };
    let mut text = data(&of(line, "chat.completion.chunk", vec![choice], None));
    if is_done {
        if with_usage {
            text += &data(&of(line, "chat.completion.chunk", Vec::new(), Some(usage(line))));
        }
        text += "data: [DONE]\n\n";
    }
    text
}

fn refused(status: u16, message: &str) -> Response<Body> {
    let kind = match status {
        400 => "invalid_request_error",
        404 => "not_found_error",
        _ => "api_error",
    };
    reply(status, &json!({ "error": { "message": message, "type": kind, "param": null, "code": null } }))
}

fn reply(status: u16, value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_string(value).unwrap_or_default();
    server::respond(status, Some(JSON), Body::from(server::go(&text) + "\n"))
}
