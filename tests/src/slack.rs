//! A double of Slack's incoming webhooks: the limits and the words of its errors, as documented and observed.

use serde_json::Value;

use crate::chat::{Request, Response, Server, Service, units};

/// The token in the double's addresses: it must never appear anywhere else.
pub const TOKEN: &str = "MARKERslackTOKEN7c21";

/// A Slack server with one webhook.
pub type FakeSlack = Server<Slack>;

/// The webhook's address on `server`, of the shape that Slack hands out.
pub fn url<S: Service>(server: &Server<S>) -> String {
    format!("{}/services/T0AAAAAAA/B0BBBBBBB/{TOKEN}", server.base())
}

/// What the double keeps.
#[derive(Debug, Default)]
pub struct Slack {
    /// Payloads of the messages in the channel, in order.
    pub messages: Vec<Value>,
    /// Whether somebody removed the webhook.
    pub removed: bool,
}

impl Service for Slack {
    fn answer(&mut self, request: &Request) -> Response {
        if self.removed || request.path != format!("/services/T0AAAAAAA/B0BBBBBBB/{TOKEN}") {
            return Response::text(404, "no_service");
        }
        if request.method != "POST" {
            return Response::text(405, "method_not_allowed");
        }
        let Some(payload) = request.json() else { return Response::text(400, "invalid_payload") };
        if let Err(word) = check(&payload) {
            return Response::text(400, word);
        }
        self.messages.push(payload);
        Response::text(200, "ok")
    }
}

/// 429 as Slack says it: whole seconds in the header.
pub fn rate_limited(seconds: u32) -> Response {
    Response::text(429, "rate_limited").with("retry-after", &seconds.to_string())
}

fn check(payload: &Value) -> Result<(), &'static str> {
    let text = payload["text"].as_str().unwrap_or_default();
    let blocks = payload["blocks"].as_array();
    if text.is_empty() && blocks.is_none_or(Vec::is_empty) {
        return Err("no_text");
    }
    // Slack only advises 4,000, and cuts silently later: we must not rely on it.
    if units(text) > 4_000 {
        return Err("msg_too_long");
    }
    let blocks = blocks.map_or(&[][..], Vec::as_slice);
    if blocks.len() > 50 {
        return Err("invalid_blocks");
    }
    let mut total = 0;
    for block in blocks {
        let fits = match block["type"].as_str() {
            Some("header") => {
                block["text"]["type"] == "plain_text" && within(&block["text"]["text"], 1, 150, &mut total)
            }
            Some("section") => text_object(&block["text"], 3_000, &mut total),
            Some("context") => block["elements"].as_array().is_some_and(|elements| {
                (1..=10).contains(&elements.len()) && elements.iter().all(|text| text_object(text, 2_000, &mut total))
            }),
            Some("rich_text") => block["elements"].as_array().is_some_and(|elements| {
                !elements.is_empty() && elements.iter().all(|element| rich(element, &mut total))
            }),
            Some("divider") => true,
            _ => false,
        };
        if !fits {
            return Err("invalid_blocks");
        }
    }
    // Staff speak of 12,000; one user failed at 11,341.
    if total > 11_000 {
        return Err("msg_blocks_too_long");
    }
    Ok(())
}

fn text_object(object: &Value, most: usize, total: &mut usize) -> bool {
    matches!(object["type"].as_str(), Some("mrkdwn" | "plain_text")) && within(&object["text"], 1, most, total)
}

fn rich(element: &Value, total: &mut usize) -> bool {
    let known = matches!(element["type"].as_str(), Some("rich_text_section" | "rich_text_preformatted"));
    known
        && element["elements"].as_array().is_some_and(|runs| {
            !runs.is_empty()
                && runs.iter().all(|run| match run["type"].as_str() {
                    Some("text") => within(&run["text"], 1, 3_000, total),
                    Some("link") => {
                        run["url"].as_str().is_some_and(|url| url.starts_with("http") && url.len() <= 3_000)
                    }
                    _ => false,
                })
        })
}

fn within(text: &Value, least: usize, most: usize, total: &mut usize) -> bool {
    let Some(text) = text.as_str() else { return false };
    *total += units(text);
    (least..=most).contains(&units(text))
}

/// A payload as a person would read it: what is bold or code keeps its marks, links show where they lead.
pub fn readable(payload: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!("(notification) {}\n", text(&payload["text"]));
    for block in payload["blocks"].as_array().into_iter().flatten() {
        match block["type"].as_str().unwrap_or_default() {
            "header" => out += &format!("# {}\n", text(&block["text"]["text"])),
            "context" => out += &format!("  {}\n", text(&block["elements"][0]["text"])),
            "rich_text" => {
                for element in block["elements"].as_array().into_iter().flatten() {
                    let runs: String = element["elements"].as_array().into_iter().flatten().map(run).collect();
                    let mark = if element["type"] == "rich_text_preformatted" { "│ " } else { "" };
                    runs.lines().for_each(|line| out += &format!("{mark}{line}\n"));
                }
            }
            _ => out += &format!("{}\n", text(&block["text"]["text"])),
        }
    }
    out
}

fn run(run: &Value) -> String {
    let text = run["text"].as_str().unwrap_or_default();
    match (run["url"].as_str(), &run["style"]) {
        (Some(url), _) => format!("{text} ↗ {url}"),
        (None, style) if style["code"] == true => format!("`{text}`"),
        (None, style) if style["bold"] == true => format!("*{text}*"),
        (None, style) if style["italic"] == true => format!("_{text}_"),
        _ => text.to_owned(),
    }
}
