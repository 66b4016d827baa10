//! A double of Discord's webhooks: the limits and the errors of API version 10, as documented and observed.

use serde_json::{Value, json};

use crate::chat::{Request, Response, Server, Service, units};

/// The token in the double's addresses: it must never appear anywhere else.
pub const TOKEN: &str = "MARKER-discord-token-9f3a";
/// The webhook's id.
pub const WEBHOOK: &str = "998877665544332211";
const CHANNEL: &str = "112233445566778899";

/// A Discord server with one webhook.
pub type FakeDiscord = Server<Discord>;

/// The webhook's address on `server`, of the shape that Discord hands out.
pub fn url<S: Service>(server: &Server<S>) -> String {
    format!("{}/api/webhooks/{WEBHOOK}/{TOKEN}", server.base())
}

/// What the double keeps.
#[derive(Debug, Default)]
pub struct Discord {
    /// Messages in order.
    pub messages: Vec<Posted>,
    /// Whether somebody deleted the webhook.
    pub deleted: bool,
}

/// A message in the channel.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Its id.
    pub id: u64,
    /// What it says now.
    pub payload: Value,
    /// How often it was edited.
    pub edits: u32,
    /// The thread it is in.
    pub thread: Option<String>,
}

impl Service for Discord {
    fn answer(&mut self, request: &Request) -> Response {
        let webhook = format!("/api/v10/webhooks/{WEBHOOK}/{TOKEN}");
        let Some(rest) = request.path.strip_prefix(&webhook) else {
            // Any other version, id or token.
            return error(404, 10015, "Unknown Webhook");
        };
        if self.deleted {
            return error(404, 10015, "Unknown Webhook");
        }
        if !request.header("user-agent").is_some_and(|agent| agent.starts_with("DiscordBot (http")) {
            return error(403, 40333, "internal network error");
        }
        match (request.method.as_str(), rest) {
            ("GET", "") => {
                let webhook =
                    json!({ "id": WEBHOOK, "type": 1, "name": "alerts", "channel_id": CHANNEL, "guild_id": "1" });
                Response::json(200, &webhook)
            }
            ("POST", "") => self.post(request),
            ("PATCH", rest) => self.patch(rest, request),
            _ => error(405, 0, "405: Method Not Allowed"),
        }
    }
}

impl Discord {
    fn post(&mut self, request: &Request) -> Response {
        let payload = match checked(request) {
            Ok(payload) => payload,
            Err(refused) => return refused,
        };
        let id = 1_300_000_000_000_000_000 + self.messages.len() as u64;
        let thread = request.parameter("thread_id").map(str::to_owned);
        let answer = message(id, &payload, thread.as_deref());
        self.messages.push(Posted { id, payload, edits: 0, thread });
        if request.parameter("wait") == Some("true") { answer } else { Response::empty(204) }
    }

    fn patch(&mut self, rest: &str, request: &Request) -> Response {
        let id = rest.strip_prefix("/messages/").and_then(|id| id.parse::<u64>().ok());
        let thread = request.parameter("thread_id");
        let found = self.messages.iter_mut().find(|posted| Some(posted.id) == id && posted.thread.as_deref() == thread);
        let Some(posted) = found else { return error(404, 10008, "Unknown Message") };
        match checked(request) {
            Ok(payload) => {
                let answer = message(posted.id, &payload, thread);
                posted.payload = payload;
                posted.edits += 1;
                answer
            }
            Err(refused) => refused,
        }
    }
}

fn message(id: u64, payload: &Value, thread: Option<&str>) -> Response {
    let message = json!({
        "id": id.to_string(),
        "channel_id": thread.unwrap_or(CHANNEL),
        "webhook_id": WEBHOOK,
        "content": payload["content"],
        "embeds": payload["embeds"],
    });
    Response::json(200, &message).with("x-ratelimit-limit", "5").with("x-ratelimit-remaining", "4")
}

/// An error of Discord's.
pub fn error(status: u16, code: u32, message: &str) -> Response {
    Response::json(status, &json!({ "message": message, "code": code }))
}

/// 429 as Discord says it: decimal seconds in the body and in the header.
pub fn rate_limited(seconds: f64) -> Response {
    let body = json!({ "message": "You are being rate limited.", "retry_after": seconds, "global": false });
    Response::json(429, &body)
        .with("retry-after", &format!("{}", seconds.ceil()))
        .with("x-ratelimit-limit", "5")
        .with("x-ratelimit-remaining", "0")
        .with("x-ratelimit-reset-after", &seconds.to_string())
        .with("x-ratelimit-scope", "user")
}

/// 429 as Cloudflare says it when our address is banned.
pub fn banned() -> Response {
    Response::text(429, "<html><head><title>Access denied</title></head><body>error code: 1015</body></html>")
}

/// Reads the payload and measures it, as version 10 does.
fn checked(request: &Request) -> Result<Value, Response> {
    if !request.header("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
        return Err(error(400, 50035, "Invalid Form Body"));
    }
    let Some(payload) = request.json() else {
        return Err(error(400, 50109, "The request body contains invalid JSON."));
    };
    let mut faults = Vec::new();
    let mut total = 0;
    limit(&mut faults, "content", &payload["content"], 2_000, None);
    let embeds = payload["embeds"].as_array().cloned().unwrap_or_default();
    if embeds.len() > 10 {
        faults.push(("embeds".to_owned(), "BASE_TYPE_MAX_LENGTH"));
    }
    for (i, embed) in embeds.iter().enumerate() {
        let at = |part: &str| format!("embeds.{i}.{part}");
        let sum = Some(&mut total);
        limit(&mut faults, &at("title"), &embed["title"], 256, sum);
        limit(&mut faults, &at("description"), &embed["description"], 4_096, Some(&mut total));
        limit(&mut faults, &at("footer.text"), &embed["footer"]["text"], 2_048, Some(&mut total));
        limit(&mut faults, &at("author.name"), &embed["author"]["name"], 256, Some(&mut total));
        limit(&mut faults, &at("url"), &embed["url"], 2_048, None);
        let fields = embed["fields"].as_array().cloned().unwrap_or_default();
        if fields.len() > 25 {
            faults.push((at("fields"), "BASE_TYPE_MAX_LENGTH"));
        }
        for (j, field) in fields.iter().enumerate() {
            for (part, most) in [("name", 256), ("value", 1_024)] {
                let place = at(&format!("fields.{j}.{part}"));
                match field[part].as_str().map(str::trim) {
                    None | Some("") => faults.push((place, "BASE_TYPE_REQUIRED")),
                    Some(_) => limit(&mut faults, &place, &field[part], most, Some(&mut total)),
                }
            }
        }
        let color = &embed["color"];
        if !color.is_null() && color.as_u64().is_none_or(|color| color > 0xff_ffff) {
            faults.push((at("color"), "NUMBER_TYPE_MAX"));
        }
        let empty = ["title", "description", "fields", "footer"].iter().all(|part| embed[*part].is_null());
        if empty {
            faults.push((format!("embeds.{i}"), "LIST_ITEM_VALUE_REQUIRED"));
        }
    }
    if total > 6_000 {
        faults.push(("embeds".to_owned(), "MAX_EMBED_SIZE_EXCEEDED"));
    }
    let parse = payload["allowed_mentions"]["parse"].as_array().cloned().unwrap_or_default();
    for kind in ["users", "roles"] {
        let listed = payload["allowed_mentions"][kind].as_array().is_some_and(|ids| !ids.is_empty());
        if listed && parse.iter().any(|parsed| parsed == kind) {
            faults.push((format!("allowed_mentions.{kind}"), "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE"));
        }
    }
    if !faults.is_empty() {
        let mut errors = json!({});
        for (path, code) in faults {
            let place = path.split('.').fold(&mut errors, |place, part| &mut place[part]);
            place["_errors"] = json!([{ "code": code, "message": "refused" }]);
        }
        let body = json!({ "message": "Invalid Form Body", "code": 50035, "errors": errors });
        return Err(Response::json(400, &body));
    }
    let says_nothing = payload["content"].as_str().is_none_or(|text| text.trim().is_empty()) && embeds.is_empty();
    if says_nothing {
        return Err(error(400, 50006, "Cannot send an empty message"));
    }
    Ok(payload)
}

fn limit(faults: &mut Vec<(String, &'static str)>, path: &str, text: &Value, most: usize, sum: Option<&mut usize>) {
    let text = match text {
        Value::Null => return,
        Value::String(text) => text.trim(),
        _ => return faults.push((path.to_owned(), "BASE_TYPE_BAD_TYPE")),
    };
    if let Some(sum) = sum {
        *sum += units(text);
    }
    if units(text) > most {
        faults.push((path.to_owned(), "BASE_TYPE_MAX_LENGTH"));
    }
}

/// A payload as a person would read it: markup as it is, the colour and who may be mentioned as notes.
pub fn readable(payload: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!("{}\n", text(&payload["content"]));
    for embed in payload["embeds"].as_array().into_iter().flatten() {
        out += &format!("┃ {}\n", text(&embed["title"]));
        if let Some(url) = embed["url"].as_str() {
            out += &format!("┃ ↗ {url}\n");
        }
        for line in embed["description"].as_str().into_iter().flat_map(str::lines) {
            out += &format!("┃ {line}\n");
        }
        for field in embed["fields"].as_array().into_iter().flatten() {
            out += &format!("┃ [{}] {}\n", text(&field["name"]), text(&field["value"]));
        }
        let color = embed["color"].as_u64().unwrap_or_default();
        out += &format!("┃ {} · {} · #{color:06x}\n", text(&embed["footer"]["text"]), text(&embed["timestamp"]));
    }
    out + &format!("mentions: {}\n", payload["allowed_mentions"])
}
