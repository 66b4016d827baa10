//! Routes, and the bytes that go out.

use std::{
    fmt::Write as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request as HttpRequest, Response, header},
    serve::ListenerExt,
};
use futures::Stream;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};

use super::{MAX_REQUESTS, Model, Request, Shared, Way, chat, openai};

const JSON: &str = "application/json; charset=utf-8";
const LARGEST_BODY: usize = 16 << 20;
/// The server's clock starts here: 2026-11-21T02:50:00Z.
pub(super) const START: u64 = 1_795_229_400;

/// What is sent of an answer.
pub(super) enum Part {
    /// Status and content type; the first part.
    Head(u16, String),
    /// Bytes of the body.
    Bytes(Vec<u8>),
    /// The connection breaks.
    Break,
}

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let app = Router::new().fallback(move |request| handle(shared.clone(), request));
    // A chunk is on its way at once, as Go sends it.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    // It runs until it is dropped; there is nobody to tell of an error.
    let _ = axum::serve(listener, app).await;
}

async fn handle(shared: Arc<Shared>, request: HttpRequest<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, LARGEST_BODY).await else { return plain(413, "") };
    let path = head.uri.path().to_owned();
    let method = head.method.as_str();
    {
        let mut state = shared.lock();
        if state.requests.len() < MAX_REQUESTS {
            let value = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            state.requests.push(Request {
                method: method.to_owned(),
                path: head.uri.to_string(),
                headers: head.headers.iter().map(|(name, text)| (name.to_string(), value(text))).collect(),
                body: body.to_vec(),
            });
        }
    }
    if !is_local(&head.headers) {
        return respond(403, None, Body::empty());
    }
    let allowed = match path.as_str() {
        "/" => "GET, HEAD",
        "/api/version" | "/api/tags" | "/api/ps" => "GET, HEAD",
        "/v1/models" => "GET",
        "/api/chat" | "/api/show" | "/api/pull" | "/v1/chat/completions" => "POST",
        _ => return plain(404, "404 page not found"),
    };
    if !allowed.split(", ").any(|one| one == method) {
        let mut response = plain(405, "405 method not allowed");
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
        return response;
    }
    match path.as_str() {
        "/" => respond(200, Some("text/plain; charset=utf-8"), Body::from("Ollama is running")),
        "/api/version" => {
            let (major, minor, patch) = shared.lock().config.version;
            reply(200, &json!({ "version": format!("{major}.{minor}.{patch}") }))
        }
        "/api/tags" => reply(200, &tags(&shared)),
        "/api/ps" => reply(200, &ps(&shared)),
        "/api/show" => show(&shared, &body),
        "/api/pull" => pull(&shared, &body),
        "/v1/models" => openai::models(&shared),
        "/v1/chat/completions" => openai::chat(shared, &body).await,
        _ => stream(shared, body).await,
    }
}

/// Runs a chat in a task of its own, which stops when nobody listens any more.
pub(super) fn chat(shared: Arc<Shared>, body: Bytes) -> mpsc::Receiver<Part> {
    let (sender, parts) = mpsc::channel(1);
    tokio::spawn(async move {
        let cancelled = shared.clone();
        let gone = sender.clone();
        tokio::select! {
            biased;
            () = gone.closed() => cancelled.lock().counters.cancelled += 1,
            () = chat::run(shared, &body, sender) => {}
        }
    });
    parts
}

/// Answers when there is a first byte.
async fn stream(shared: Arc<Shared>, body: Bytes) -> Response<Body> {
    let mut parts = chat(shared, body);
    match parts.recv().await {
        Some(Part::Head(status, kind)) if kind.contains("ndjson") => {
            respond(status, Some(&kind), Body::from_stream(Parts(parts)))
        }
        Some(Part::Head(status, kind)) => {
            let mut body = Vec::new();
            while let Some(part) = parts.recv().await {
                match part {
                    Part::Bytes(bytes) => body.extend(bytes),
                    Part::Break => return respond(status, Some(&kind), Body::from_stream(Parts(parts))),
                    Part::Head(..) => {}
                }
            }
            respond(status, Some(&kind), Body::from(body))
        }
        _ => plain(500, ""),
    }
}

/// A body that is sent as it comes.
pub(super) struct Parts(pub(super) mpsc::Receiver<Part>);

impl Stream for Parts {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|part| match part? {
            Part::Bytes(bytes) => Some(Ok(bytes.into())),
            Part::Break | Part::Head(..) => Some(Err(std::io::ErrorKind::ConnectionReset.into())),
        })
    }
}

pub(super) fn respond(status: u16, kind: Option<&str>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status.try_into().unwrap_or_default();
    if let Some(kind) = kind.and_then(|kind| kind.parse().ok()) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

fn plain(status: u16, text: &'static str) -> Response<Body> {
    respond(status, Some("text/plain"), Body::from(text))
}

fn reply(status: u16, value: &Value) -> Response<Body> {
    respond(status, Some(JSON), Body::from(go(&value.to_string())))
}

/// As Go writes JSON.
pub(super) fn go(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// A server bound to the loopback answers only local names, and only local pages.
fn is_local(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let local = |host: &str| {
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, _)) => name,
            None => host.split(':').next().unwrap_or_default(),
        };
        let suffixes = [".localhost", ".local", ".internal"];
        let address = name.parse::<std::net::IpAddr>().is_ok();
        name == "localhost" || address || suffixes.iter().any(|suffix| name.ends_with(suffix))
    };
    let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://")).is_none_or(|(_, host)| local(host));
    origin && text(header::HOST).is_none_or(local)
}

fn details(model: &Model, odd: bool) -> Value {
    let families = if odd { Value::Null } else { json!([model.family]) };
    json!({
        "parent_model": "", "format": "gguf", "family": model.family, "families": families,
        "parameter_size": "4.0B", "quantization_level": "Q4_K_M",
    })
}

fn tags(shared: &Shared) -> Value {
    let config = shared.lock().config.clone();
    let list = config.models.iter().map(|model| {
        let mut details = details(model, config.odd);
        details["context_length"] = model.trained.into();
        let mut entry = json!({
            "name": model.name, "model": model.name, "modified_at": time(Duration::ZERO), "size": model.size,
            "digest": model.digest(), "details": details, "capabilities": model.capabilities,
        });
        if let Some((host, name)) = &model.remote {
            entry["remote_host"] = host.as_str().into();
            entry["remote_model"] = name.as_str().into();
        }
        if config.odd {
            entry["nobody_knows"] = json!([{ "this": null }]);
        }
        entry
    });
    json!({ "models": list.collect::<Vec<_>>() })
}

fn ps(shared: &Shared) -> Value {
    let (config, clock) = {
        let state = shared.lock();
        (state.config.clone(), state.clock)
    };
    let forever = "2319-03-03T02:38:10.701821939Z";
    let list = shared.runners.list(clock).into_iter().filter_map(|(name, runner)| {
        let model = config.models.iter().find(|model| model.name == name)?;
        let window = u64::from(runner.launch.num_ctx) * u64::from(config.parallel) * 2500;
        let size = model.size + window;
        Some(json!({
            "name": model.name, "model": model.name, "size": size, "digest": model.digest(),
            "details": details(model, config.odd),
            "expires_at": runner.expires.filter(|_| !config.odd).map_or(forever.to_owned(), time),
            "size_vram": size * model.on_gpu / 100, "context_length": runner.launch.num_ctx,
        }))
    });
    json!({ "models": list.collect::<Vec<_>>() })
}

fn show(shared: &Shared, body: &[u8]) -> Response<Body> {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = request["model"].as_str().or(request["name"].as_str()).unwrap_or_default();
    let config = shared.lock().config.clone();
    let Some(model) = find(&config.models, name) else {
        return reply(404, &json!({ "error": format!("model '{}' not found", full(name)) }));
    };
    let template = match model.way {
        Way::Rendered => {
            "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
        }
        Way::Native => "{# a template that no known one resembles #}",
    };
    let mut shown = json!({
        "modelfile": format!("# Modelfile generated by \"ollama show\"\n\nFROM {}\n", model.name),
        "template": template, "details": details(model, config.odd),
        "model_info": {
            "general.architecture": model.family,
            format!("{}.context_length", model.family): model.trained,
        },
        "capabilities": model.capabilities, "modified_at": time(Duration::ZERO),
    });
    if let Some(window) = model.num_ctx {
        shown["parameters"] = format!("num_ctx                        {window}").into();
    }
    if let Some((host, remote)) = &model.remote {
        shown["remote_host"] = host.as_str().into();
        shown["remote_model"] = remote.as_str().into();
    }
    reply(200, &shown)
}

/// The first line precedes the registry: an unknown model is 200 and an error line.
fn pull(shared: &Shared, body: &[u8]) -> Response<Body> {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = request["model"].as_str().or(request["name"].as_str()).unwrap_or_default();
    let known = find(&shared.lock().config.models, name).is_some();
    let missing = json!({ "error": "pull model manifest: file does not exist" });
    if request["stream"] == false {
        return if known { reply(200, &json!({ "status": "success" })) } else { reply(500, &missing) };
    }
    let mut lines = vec![json!({ "status": "pulling manifest" })];
    if known {
        let digest = format!("sha256:{}", "ab".repeat(32));
        lines.push(json!({ "status": "pulling abababababab", "digest": digest, "total": 100, "completed": 100 }));
        lines.extend(
            ["verifying sha256 digest", "writing manifest", "success"].map(|status| json!({ "status": status })),
        );
    } else {
        lines.push(missing);
    }
    let mut text = String::new();
    lines.iter().for_each(|line| {
        let _ = writeln!(text, "{line}");
    });
    respond(200, Some("application/x-ndjson"), Body::from(text))
}

/// The name with its tag.
pub(super) fn full(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

pub(super) fn find<'a>(models: &'a [Model], name: &str) -> Option<&'a Model> {
    let full = full(name);
    models.iter().find(|model| model.name.eq_ignore_ascii_case(&full))
}

/// RFC 3339 of the server's clock.
pub(super) fn time(clock: Duration) -> String {
    let seconds = START.saturating_add(clock.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days, for days after 1970.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let part = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * part + 2) / 5 + 1, if part < 10 { part + 3 } else { part - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", clock.subsec_nanos())
}
