//! `/api/chat`: what is refused, what the model gets to see, and how its answer comes out.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::sync::mpsc::Sender;

use super::{
    Config, Fault, Model, Shared, Tokenizer, Way,
    json::Json,
    runner::{self, Launch},
    schema::{self, Kind},
    script::Seen,
    server::{self, Part},
};

const JSON: &str = "application/json; charset=utf-8";
const TOO_LONG: &str = "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the context length in settings, or use a model with a longer context length";

/// A status and the text of `error`.
struct Refusal(u16, String);

type Checked<T> = Result<T, Refusal>;

fn refuse<T>(status: u16, text: impl Into<String>) -> Checked<T> {
    Err(Refusal(status, text.into()))
}

struct Message {
    role: String,
    content: String,
}

struct Chat {
    model: String,
    messages: Vec<Message>,
    stream: bool,
    format: Option<Json>,
    keep: Option<Option<Duration>>,
    options: Json,
    think: Option<Json>,
    truncate: bool,
    shift: bool,
    tools: bool,
    debug: bool,
}

/// Answers one request.
pub(super) async fn run(shared: Arc<Shared>, body: &[u8], sender: Sender<Part>) {
    let mut out = Out { sender, streaming: true, started: false, buffer: Vec::new(), shape: Shape::Lines, chunks: 0 };
    if let Err(Refusal(status, text)) = chat(&shared, body, &mut out).await {
        out.refuse(status, &text).await;
    }
}

async fn chat(shared: &Arc<Shared>, body: &[u8], out: &mut Out) -> Checked<()> {
    let chat = parse(body)?;
    out.streaming = chat.stream;
    let (config, turn) = {
        let state = shared.lock();
        (state.config.clone(), state.seen.len())
    };
    let model = model(&config, &chat)?;
    let options = Options::read(&chat.options, model, &config)?;
    let fault = if chat.messages.is_empty() { None } else { shared.lock().faults.pop_front() };
    if let Some(done) = early(shared, &config, fault.as_ref(), out).await {
        return done;
    }
    let unload = chat.messages.is_empty() && chat.keep == Some(Some(Duration::ZERO));
    if unload {
        shared.runners.unload(&model.name);
        return out.empty(&chat, "unload").await;
    }
    let launch = Launch { num_ctx: options.num_ctx, shift: chat.shift, other: options.load.clone() };
    let busy = "server busy, please try again.  maximum pending requests exceeded";
    let seat = runner::seat(shared, model, launch, chat.keep).await.map_err(|_| Refusal(503, busy.into()))?;
    if chat.messages.is_empty() {
        return out.empty(&chat, "load").await;
    }
    let modern = config.version >= (0, 30, 0);
    let native = modern && model.way == Way::Native;
    let format = match &chat.format {
        Some(Json::String(text)) if text == "json" && native => None,
        Some(Json::String(text)) if text == "json" => Some(Json::Object(Vec::new())),
        Some(Json::Object(_)) => {
            chat.format.as_ref().map(|format| if native { format.sorted() } else { format.clone() })
        }
        Some(other) => {
            let quoted = serde_json::to_string(&other.to_string()).unwrap_or_default();
            return refuse(500, format!("invalid format: {quoted}; expected \"json\" or a valid JSON Schema object"));
        }
        None => None,
    };
    let window = Window { tokens: options.num_ctx as usize, keep: options.num_keep + usize::from(model.bos) };
    let prompt = fit(&chat, model, &config, &window)?;
    if chat.debug {
        let info = serde_json::json!({ "rendered_template": prompt });
        return out
            .raw(&serde_json::json!({
                "model": chat.model, "created_at": server::time(Duration::ZERO),
                "message": { "role": "", "content": "" }, "done": false, "_debug_info": info,
            }))
            .await;
    }
    if let Some((kind, detail)) = format.as_ref().and_then(schema::refusal) {
        let message = match kind {
            Kind::Grammar => "Failed to initialize samplers: failed to parse grammar".to_owned(),
            _ if native => format!(
                "Unable to generate parser for this template. Automatic parser generation failed: JSON schema conversion failed:\n{detail}"
            ),
            _ => format!("Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n{detail}"),
        };
        if !modern {
            return refuse(500, "invalid JSON schema in format");
        }
        let inner =
            serde_json::json!({ "error": { "code": 400, "message": message, "type": "invalid_request_error" } });
        return refuse(400, inner.to_string());
    }
    if native && format.as_ref().is_some_and(schema::has_empty_enum) {
        return refuse(
            500,
            "llama-server chat error: map[code:500 message:The model produced output that does not match the expected peg-native format type:server_error]",
        );
    }
    shared.lock().seen.push(prompt.clone());
    tokio::time::sleep(config.delays.prompt).await;
    let plan = think(&chat, model, &config, native, format.is_some());
    let seen = Seen { prompt: &prompt, format: format.as_ref().filter(|_| plan.grammar), sorted: native, turn };
    let mut answer = model.behaviour.answer(&seen);
    if format.is_some() && !plan.grammar {
        answer = format!("Here is my answer:\n```json\n{answer}\n```");
    }
    if plan.swallowed {
        answer.clear();
    }
    let mut write = Write {
        shared,
        config: &config,
        model,
        chat: &chat,
        window: &window,
        native,
        num_predict: options.num_predict,
        prompt: model.tokenizer.count(&prompt) + usize::from(model.bos),
        load: seat.load,
        fault,
        swallowed: plan.swallowed,
    };
    write.all(out, plan.reasoning.as_deref(), answer).await
}

/// Faults that keep the model from being asked.
async fn early(shared: &Arc<Shared>, config: &Config, fault: Option<&Fault>, out: &mut Out) -> Option<Checked<()>> {
    match fault? {
        Fault::Status(status, kind, body) => {
            out.send(Part::Head(*status, kind.clone())).await;
            out.send(Part::Bytes(body.clone().into_bytes())).await;
            Some(Ok(()))
        }
        Fault::OutOfMemory => {
            shared.runners.unload_all();
            let text = "llama-server reported out-of-memory during startup: cudaMalloc failed: out of memory";
            let old = "model requires more system memory (11.9 GiB) than is available (6.2 GiB)";
            Some(refuse(500, if config.version >= (0, 30, 0) { text } else { old }))
        }
        Fault::StallBeforeHeaders => {
            std::future::pending::<()>().await;
            None
        }
        Fault::Split(bytes) => {
            out.shape = Shape::Split((*bytes).max(1));
            None
        }
        Fault::Coalesced => {
            out.shape = Shape::Coalesced;
            None
        }
        _ => None,
    }
}

fn parse(body: &[u8]) -> Checked<Chat> {
    if body.is_empty() {
        return refuse(400, "missing request body");
    }
    let text = String::from_utf8_lossy(body);
    let json: Json = serde_json::from_str(&text).map_err(|error| Refusal(400, go_error(&text, &error)))?;
    let wrong = |field: &str, value: &Json, wanted: &str| {
        let text = format!(
            "json: cannot unmarshal {} into Go struct field ChatRequest.{field} of type {wanted}",
            value.kind()
        );
        Refusal(400, text)
    };
    let string = |value: Option<&Json>, field: &str| match value {
        None | Some(Json::Null) => Ok(String::new()),
        Some(Json::String(text)) => Ok(text.clone()),
        Some(other) => Err(wrong(field, other, "string")),
    };
    let flag = |name: &str, default: bool| match json.get(name) {
        None | Some(Json::Null) => Ok(default),
        Some(Json::Bool(value)) => Ok(*value),
        Some(other) => Err(wrong(name, other, "bool")),
    };
    let mut messages = Vec::new();
    for message in json.get("messages").and_then(Json::as_array).unwrap_or_default() {
        messages.push(Message {
            role: string(message.get("role"), "messages.role")?.to_lowercase(),
            content: string(message.get("content"), "messages.content")?,
        });
    }
    let think = match json.get("think") {
        None | Some(Json::Null) => None,
        Some(Json::String(level)) if !["high", "medium", "low", "max"].contains(&level.as_str()) => {
            let text = format!(
                "invalid think value: {level:?} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)"
            );
            return refuse(400, text);
        }
        Some(other) => Some(other.clone()),
    };
    let format = json.get("format").filter(|format| !matches!(format, Json::Null) && format.as_str() != Some(""));
    Ok(Chat {
        keep: keep_alive(json.get("keep_alive"))?,
        model: string(json.get("model"), "model")?,
        messages,
        stream: flag("stream", true)?,
        format: format.cloned(),
        options: json.get("options").cloned().unwrap_or(Json::Null),
        think,
        truncate: flag("truncate", true)?,
        shift: flag("shift", true)?,
        tools: json.get("tools").and_then(Json::as_array).is_some_and(|tools| !tools.is_empty()),
        debug: flag("_debug_render_only", false)?,
    })
}

/// Go's words for JSON that is none.
fn go_error(text: &str, error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let at =
        text.lines().nth(error.line().saturating_sub(1)).and_then(|line| line.get(error.column().saturating_sub(1)..));
    let found = at.and_then(|rest| rest.chars().next()).unwrap_or(' ');
    let key = error.to_string().starts_with("key must be a string");
    let wanted = if key { "object key string" } else { "value" };
    format!("invalid character '{found}' looking for beginning of {wanted}")
}

/// `Some(None)` is for ever.
fn keep_alive(value: Option<&Json>) -> Checked<Option<Option<Duration>>> {
    let seconds = |seconds: f64| if seconds < 0.0 { None } else { Duration::try_from_secs_f64(seconds).ok() };
    match value {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Number(number)) => Ok(Some(seconds(number.as_f64().unwrap_or(-1.0)))),
        Some(Json::String(text)) => match go_duration(text) {
            Some(found) => Ok(Some(seconds(found))),
            None => refuse(400, format!("time: missing unit in duration {text:?}")),
        },
        Some(other) => refuse(400, format!("invalid keep_alive: {other}")),
    }
}

/// `1h30m` in seconds.
fn go_duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    if rest == "0" {
        return Some(0.0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let units = [("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = rest.get(unit.len()..)?;
        total += number * factor;
    }
    Some(sign * total)
}

fn model<'a>(config: &'a Config, chat: &Chat) -> Checked<&'a Model> {
    if chat.model.is_empty() {
        return refuse(400, "model is required");
    }
    if chat.model.contains(char::is_whitespace) {
        return refuse(400, "invalid model name");
    }
    let found = server::find(&config.models, &chat.model);
    let cloud =
        chat.model.ends_with("-cloud") || chat.model.ends_with(":cloud") || found.is_some_and(|it| it.remote.is_some());
    if cloud && !config.cloud {
        return refuse(403, "ollama cloud is disabled: remote model is unavailable");
    }
    let Some(model) = found else { return refuse(404, format!("model '{}' not found", chat.model)) };
    if !model.can("completion") && !chat.messages.is_empty() {
        return refuse(400, format!("{:?} does not support chat", chat.model));
    }
    if chat.tools && !model.can("tools") {
        return refuse(400, format!("registry.ollama.ai/library/{} does not support tools", model.name));
    }
    let thinks = chat.think.as_ref().is_some_and(|think| think.as_bool() != Some(false));
    if thinks && !model.can("thinking") {
        return refuse(400, format!("{:?} does not support thinking", chat.model));
    }
    Ok(model)
}

struct Options {
    num_ctx: u32,
    num_keep: usize,
    num_predict: usize,
    load: String,
}

impl Options {
    fn read(options: &Json, model: &Model, config: &Config) -> Checked<Self> {
        let integers = [
            "num_ctx",
            "num_batch",
            "num_gpu",
            "main_gpu",
            "num_thread",
            "num_keep",
            "num_predict",
            "seed",
            "top_k",
            "repeat_last_n",
        ];
        let floats =
            ["temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"];
        for (name, value) in options.entries() {
            let wanted = match name.as_str() {
                name if integers.contains(&name) => ("integer", value.as_f64().is_some()),
                name if floats.contains(&name) => ("float32", value.as_f64().is_some()),
                "stop" => ("array", value.as_array().is_some()),
                "use_mmap" => ("boolean", value.as_bool().is_some()),
                _ => continue,
            };
            if let (wanted, false) = wanted {
                return refuse(500, format!("option {name:?} must be of type {wanted}"));
            }
        }
        let integer = |name: &str| options.get(name).and_then(Json::as_f64).map(|value| value as i64);
        let tier = match config.vram_gib {
            47.. => 262_144,
            23.. => 32_768,
            _ => 4096,
        };
        let server = model.num_ctx.or(config.context_length).unwrap_or(tier);
        let num_ctx = integer("num_ctx").unwrap_or(i64::from(server)).clamp(4, i64::from(model.trained.max(4)));
        let most = num_ctx * 10;
        let num_predict = integer("num_predict").filter(|wanted| (1..=most).contains(wanted)).unwrap_or(most);
        let num_keep = integer("num_keep").unwrap_or(4);
        let load = ["num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"];
        let load: Vec<_> =
            load.iter().filter_map(|name| options.get(name).map(|value| format!("{name}={value}"))).collect();
        Ok(Self {
            num_ctx: u32::try_from(num_ctx).unwrap_or(u32::MAX),
            num_keep: usize::try_from(num_keep).unwrap_or(usize::MAX).min(usize::try_from(num_ctx - 1).unwrap_or(0)),
            num_predict: usize::try_from(num_predict).unwrap_or(usize::MAX),
            load: load.join(" "),
        })
    }
}

struct Window {
    tokens: usize,
    keep: usize,
}

fn render(messages: &[&Message]) -> String {
    let mut text: String = messages
        .iter()
        .map(|message| format!("<|im_start|>{}\n{}<|im_end|>\n", message.role, message.content))
        .collect();
    text.push_str("<|im_start|>assistant\n");
    text
}

/// The prompt as the model gets it: messages dropped, then halved or refused, as the versions and ways do.
fn fit(chat: &Chat, model: &Model, config: &Config, window: &Window) -> Checked<String> {
    let mut messages: Vec<&Message> = chat.messages.iter().collect();
    let bos = usize::from(model.bos);
    let count = |text: &str| model.tokenizer.count(text) + bos;
    let mut prompt = render(&messages);
    let knows_truncate = config.version >= (0, 12, 6);
    let truncate = chat.truncate || !knows_truncate;
    while truncate && count(&prompt) > window.tokens {
        let last = messages.len() - 1;
        let Some(oldest) = messages[..last].iter().position(|message| message.role != "system") else { break };
        messages.remove(oldest);
        prompt = render(&messages);
    }
    let (tokens, n) = (count(&prompt), window.tokens);
    if tokens < n {
        return Ok(prompt);
    }
    let nested = || {
        let message =
            format!("request ({tokens} tokens) exceeds the available context size ({n} tokens), try increasing it");
        // As text, for the order of its keys.
        let inner = format!(
            r#"{{"error":{{"code":400,"message":"{message}","type":"exceed_context_size_error","n_prompt_tokens":{tokens},"n_ctx":{n}}}}}"#
        );
        refuse(400, inner)
    };
    if config.version >= (0, 30, 0) {
        return match (model.way, chat.truncate, chat.shift) {
            (Way::Native, ..) | (_, false, _) => nested(),
            (Way::Rendered, true, false) => refuse(400, TOO_LONG),
            (Way::Rendered, true, true) => {
                let total = n - n.saturating_sub(window.keep) / 2;
                Ok(cut(model.tokenizer, &prompt, window.keep.saturating_sub(bos), total.saturating_sub(bos)))
            }
        };
    }
    if knows_truncate && !chat.truncate {
        return refuse(400, "the input length exceeds the context length");
    }
    Ok(cut(model.tokenizer, &prompt, window.keep.saturating_sub(bos), n.saturating_sub(bos)))
}

/// The first `keep` tokens and the last, `total` in all.
fn cut(tokenizer: Tokenizer, prompt: &str, keep: usize, total: usize) -> String {
    let tokens = tokenizer.split(prompt);
    let keep = keep.min(total).min(tokens.len());
    let tail = tokens.len().saturating_sub(total - keep);
    let mut text = tokens[..keep].concat();
    text.push_str(&tokens[tail.max(keep)..].concat());
    text
}

struct Thought {
    reasoning: Option<String>,
    grammar: bool,
    /// The parser waits for a header that never comes.
    swallowed: bool,
}

fn think(chat: &Chat, model: &Model, config: &Config, native: bool, format: bool) -> Thought {
    let off = chat.think.as_ref().and_then(Json::as_bool) == Some(false);
    if !model.can("thinking") {
        return Thought { reasoning: None, grammar: true, swallowed: false };
    }
    if model.is_harmony() {
        let reasoning = Some(model.reasoning.clone()).filter(|_| !off);
        return Thought { reasoning, grammar: true, swallowed: off && format };
    }
    if native {
        return Thought { reasoning: None, grammar: true, swallowed: false };
    }
    if off {
        // Until then the parser was lost without the thoughts, and the grammar never applied.
        return Thought { reasoning: None, grammar: !format || config.version >= (0, 31, 2), swallowed: false };
    }
    let reasons = !model.reasoning.is_empty();
    Thought { reasoning: reasons.then(|| model.reasoning.clone()), grammar: reasons || !format, swallowed: false }
}

struct Write<'a> {
    shared: &'a Arc<Shared>,
    config: &'a Config,
    model: &'a Model,
    chat: &'a Chat,
    window: &'a Window,
    native: bool,
    num_predict: usize,
    prompt: usize,
    load: Duration,
    fault: Option<Fault>,
    swallowed: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_host: Option<&'a str>,
    message: Delta<'a>,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'a str>,
    #[serde(flatten)]
    figures: Option<Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nobody_knows: Option<&'a str>,
}

#[derive(Serialize)]
struct Delta<'a> {
    role: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
}

#[derive(Clone, Copy, Serialize)]
struct Figures {
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: u64,
    prompt_eval_duration: u64,
    eval_count: u64,
    eval_duration: u64,
}

impl Write<'_> {
    async fn all(&mut self, out: &mut Out, reasoning: Option<&str>, answer: String) -> Checked<()> {
        let mut answer = answer;
        let mut limit = None;
        match &self.fault {
            Some(Fault::Answer(text)) => answer.clone_from(text),
            Some(Fault::Fenced) => answer = format!("```json\n{answer}\n```"),
            Some(Fault::Prose(text)) => answer = format!("{text}\n{answer}"),
            Some(Fault::Whitespace(blanks)) => answer = format!("{{\"findings\":[{}", " ".repeat(*blanks)),
            Some(Fault::Loop(phrase, times)) => {
                answer = format!("{{\"findings\":[],\"summary\":\"{}", phrase.repeat(*times))
            }
            Some(Fault::LongLine(bytes)) => answer = "x".repeat(*bytes),
            Some(Fault::Length(bytes)) => limit = Some(*bytes),
            _ => {}
        }
        let mut thoughts = String::new();
        let mut eval = 0;
        let mut reason = "stop";
        if let Some(reasoning) = reasoning {
            for token in self.model.tokenizer.split(reasoning) {
                if eval >= self.num_predict {
                    reason = "length";
                    break;
                }
                eval += 1;
                thoughts.push_str(token);
                if self.chat.stream {
                    out.line(&self.line("", token, None, None)).await;
                }
                self.pause().await;
            }
            if reason == "stop" {
                // The second pass: what was thought belongs to its prompt.
                self.prompt += eval;
                eval = 0;
            }
        }
        if let Some(Fault::LongLine(_)) = self.fault {
            out.line(&self.line(&answer, "", None, None)).await;
            answer.clear();
        }
        let mut content = String::new();
        let mut equal = (String::new(), 0_u32);
        let mut shifted = false;
        for token in self.model.tokenizer.split(&answer) {
            if reason == "length" {
                break;
            }
            let full = self.prompt + eval >= self.window.tokens;
            let cut = limit.is_some_and(|limit| content.len() + token.len() > limit);
            if eval >= self.num_predict || cut || (full && !self.chat.shift) {
                reason = "length";
                if let Some(part) =
                    token.get(..limit.unwrap_or(0).saturating_sub(content.len())).filter(|part| !part.is_empty() && cut)
                {
                    content.push_str(part);
                    if self.chat.stream {
                        out.line(&self.line(part, "", None, None)).await;
                    }
                }
                break;
            }
            if full && !shifted {
                shifted = true;
                self.shared.lock().counters.shifted += 1;
            }
            eval += 1;
            if token.is_empty() {
                continue;
            }
            if let Some(done) = self.interrupt(out).await {
                return done;
            }
            content.push_str(token);
            if self.chat.stream {
                out.line(&self.line(token, "", None, None)).await;
            }
            equal = if equal.0 == token.trim() { (equal.0, equal.1 + 1) } else { (token.trim().to_owned(), 1) };
            let most = if self.config.repeat_is_error { 100 } else { 30 };
            if !self.native && equal.1 > most {
                return self.abort(out, &content).await;
            }
            self.pause().await;
        }
        if let Some(done) = self.interrupt(out).await {
            return done;
        }
        if self.swallowed {
            eval = 86;
        }
        let figures = self.figures(eval + usize::from(reason == "stop" && !self.swallowed));
        let reason = match &self.fault {
            Some(Fault::DoneReason(other)) => other.clone(),
            _ => reason.to_owned(),
        };
        let (content, thoughts) = if self.chat.stream { (String::new(), String::new()) } else { (content, thoughts) };
        out.line(&self.line(&content, &thoughts, Some(&reason), figures)).await;
        out.end().await;
        Ok(())
    }

    /// Faults that come after some chunks.
    async fn interrupt(&self, out: &mut Out) -> Option<Checked<()>> {
        match &self.fault {
            Some(Fault::ErrorLine(after, text)) if out.chunks >= *after || !self.chat.stream => {
                Some(refuse(500, text.clone()))
            }
            Some(Fault::Eof(after)) if out.chunks >= *after => {
                out.end().await;
                Some(Ok(()))
            }
            Some(Fault::StallAfter(after)) if out.chunks >= *after => {
                out.end().await;
                std::future::pending::<()>().await;
                None
            }
            Some(Fault::Reset(after)) if out.chunks >= *after => {
                out.end().await;
                // What was sent before is to arrive.
                tokio::time::sleep(Duration::from_millis(20)).await;
                out.send(Part::Break).await;
                Some(Ok(()))
            }
            _ => None,
        }
    }

    /// One token again and again.
    async fn abort(&self, out: &mut Out, content: &str) -> Checked<()> {
        if self.config.repeat_is_error {
            return refuse(500, "prediction aborted, token repeat limit reached");
        }
        if !self.chat.stream {
            out.line(&self.line(content, "", None, None)).await;
        }
        out.end().await;
        Ok(())
    }

    fn line<'a>(
        &'a self,
        content: &'a str,
        thinking: &'a str,
        reason: Option<&'a str>,
        figures: Option<Figures>,
    ) -> Line<'a> {
        let remote = self.model.remote.as_ref().map(|(host, model)| (host.as_str(), model.as_str()));
        let remote = remote
            .or(matches!(self.fault, Some(Fault::Remote)).then_some(("https://ollama.com:443", "somewhere-else")));
        Line {
            model: &self.chat.model,
            created_at: server::time(self.shared.lock().clock),
            remote_model: remote.map(|(_, model)| model),
            remote_host: remote.map(|(host, _)| host),
            message: Delta { role: "assistant", content, thinking },
            done: reason.is_some(),
            done_reason: reason,
            figures,
            nobody_knows: (self.config.odd || matches!(self.fault, Some(Fault::ExtraFields))).then_some("this"),
        }
    }

    fn figures(&self, eval: usize) -> Option<Figures> {
        if self.config.odd || matches!(self.fault, Some(Fault::NoFigures)) {
            return None;
        }
        let nanos = |count: u64, speed: u64| count.saturating_mul(1_000_000_000) / speed.max(1);
        let prompt = match self.fault {
            Some(Fault::PromptCount(count)) => count,
            _ => self.prompt as u64,
        };
        let (read, write) = (nanos(prompt, self.config.speeds.0), nanos(eval as u64, self.config.speeds.1));
        let load = u64::try_from(self.load.as_nanos()).unwrap_or(u64::MAX).max(300_000);
        Some(Figures {
            total_duration: load.saturating_add(read).saturating_add(write),
            load_duration: load,
            prompt_eval_count: prompt,
            prompt_eval_duration: read,
            eval_count: eval as u64,
            eval_duration: write,
        })
    }

    async fn pause(&self) {
        if !self.config.delays.token.is_zero() {
            tokio::time::sleep(self.config.delays.token).await;
        }
    }
}

enum Shape {
    Lines,
    Coalesced,
    Split(usize),
}

/// The way out: nothing is sent before there is something to say.
struct Out {
    sender: Sender<Part>,
    streaming: bool,
    started: bool,
    buffer: Vec<u8>,
    shape: Shape,
    chunks: usize,
}

impl Out {
    async fn send(&mut self, part: Part) {
        self.started = true;
        // Nobody listens any more: the task is about to be dropped.
        let _ = self.sender.send(part).await;
    }

    async fn line(&mut self, line: &impl Serialize) {
        let mut text = server::go(&serde_json::to_string(line).unwrap_or_default());
        if !self.streaming {
            self.send(Part::Head(200, JSON.to_owned())).await;
            return self.send(Part::Bytes(text.into_bytes())).await;
        }
        text.push('\n');
        if !self.started {
            self.send(Part::Head(200, "application/x-ndjson".to_owned())).await;
        }
        self.chunks += 1;
        match self.shape {
            Shape::Lines => self.send(Part::Bytes(text.into_bytes())).await,
            Shape::Coalesced => self.buffer.extend(text.into_bytes()),
            Shape::Split(bytes) => {
                for part in text.into_bytes().chunks(bytes) {
                    self.send(Part::Bytes(part.to_vec())).await;
                }
            }
        }
    }

    async fn end(&mut self) {
        let rest = std::mem::take(&mut self.buffer);
        if !rest.is_empty() {
            self.send(Part::Bytes(rest)).await;
        }
    }

    async fn raw(&mut self, value: &serde_json::Value) -> Checked<()> {
        self.line(value).await;
        self.end().await;
        Ok(())
    }

    async fn empty(&mut self, chat: &Chat, reason: &str) -> Checked<()> {
        let created_at = server::time(Duration::ZERO);
        let message = serde_json::json!({ "role": "assistant", "content": "" });
        let line = serde_json::json!({
            "model": chat.model, "created_at": created_at, "message": message, "done": true, "done_reason": reason,
        });
        // A load is answered with one object, streaming or not.
        self.streaming = false;
        self.raw(&line).await
    }

    async fn refuse(&mut self, status: u16, text: &str) {
        self.end().await;
        let body = server::go(&serde_json::json!({ "error": text }).to_string());
        if self.started && self.streaming {
            return self.send(Part::Bytes(format!("{body}\n").into_bytes())).await;
        }
        self.send(Part::Head(status, JSON.to_owned())).await;
        self.send(Part::Bytes(body.into_bytes())).await;
    }
}
