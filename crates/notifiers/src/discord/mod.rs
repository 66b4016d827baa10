//! Discord webhooks: API version 10, confirmed by `wait=true`, amended in place.

mod embed;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use logwarden_core::{
    Severity,
    message::Message,
    notifier::{Channel, Form, Notifier, NotifyError, Receipt},
};
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use crate::{
    address::{self, AddressError, invalid},
    http::{self, Answer, Http},
    text::Clean,
};

/// The form that Discord documents; other agents may be blocked at its edge.
const USER_AGENT: &str = concat!("DiscordBot (", env!("CARGO_PKG_REPOSITORY"), ", ", env!("CARGO_PKG_VERSION"), ")");
const BANNED_FOR: Duration = Duration::from_secs(900);
const LIMITED_FOR: Duration = Duration::from_secs(5);
const HINT: &str = "copy it from Discord: channel settings, Integrations, Webhooks, Copy Webhook URL";

/// A Discord webhook.
pub struct Discord {
    channel: Channel,
    /// The webhook at version 10, without query.
    endpoint: SecretString,
    thread: Option<String>,
    /// Whether Discord itself is at the other end, or somebody who stands in for it.
    official: bool,
    http: Http,
    program: Arc<str>,
}

/// What a check found at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The webhook's name there, cleaned.
    pub name: String,
}

impl Discord {
    /// A channel called `name` that posts to the webhook `url`. Takes any address that Discord has ever given out, and
    /// the same path on another host (a proxy, a test double). `hash_key` keys the hash of the destination.
    ///
    /// # Errors
    ///
    /// When the address is none, or of another kind.
    pub fn new(
        name: impl Into<Arc<str>>,
        url: &SecretString,
        min_severity: Severity,
        hash_key: &[u8],
    ) -> Result<Self, AddressError> {
        let url = address::parse(url.expose_secret())?;
        let target = Target::parse(&url)?;
        let place = format!("{}\0{}", target.endpoint, target.thread.as_deref().unwrap_or_default());
        let channel = Channel {
            name: name.into(),
            destination: address::hash(hash_key, "discord", &place),
            vendor: "discord",
            min_severity,
            amends: true,
            longest_send: http::LONGEST_SEND,
            gap: Duration::from_millis(500),
            per_minute: 25,
        };
        let http = Http::new(&target.endpoint, http::LONGEST, USER_AGENT);
        Ok(Self {
            channel,
            endpoint: String::from(target.endpoint).into(),
            thread: target.thread,
            official: target.official,
            http,
            program: crate::PROGRAM.into(),
        })
    }

    /// The same for another program: the one whose commands the messages name, `logwarden-analyzer` by default.
    #[must_use]
    pub fn program(mut self, name: impl Into<Arc<str>>) -> Self {
        self.program = name.into();
        self
    }

    /// Asks Discord about the webhook, without posting anything.
    ///
    /// # Errors
    ///
    /// As for sending: unreachable, limited, broken.
    pub async fn check(&self) -> Result<Reached, NotifyError> {
        let answer = self.http.send(&self.channel.name, |client| client.get(self.endpoint.expose_secret())).await?;
        if answer.status.as_u16() != 200 {
            return Err(self.refused(&answer, false));
        }
        match answer.json().and_then(|webhook| Some(webhook.get("name")?.as_str()?.to_owned())) {
            Some(name) => Ok(Reached { name: Clean::line(&name).elided(80).as_str().to_owned() }),
            None => Err(http::unreachable(&self.channel.name, false, None, "what answers is not Discord")),
        }
    }

    fn accepted(&self, answer: &Answer) -> Result<Receipt, NotifyError> {
        let channel = &self.channel.name;
        if answer.status.as_u16() == 204 {
            // Discord says nothing only when it was not asked to wait. Whoever stands in for it may know no better.
            if self.official {
                return Err(http::unreachable(channel, true, None, "it accepted the message without confirming it"));
            }
            tracing::warn!(%channel, "accepted without a message id (HTTP 204): it cannot be amended later");
            return Ok(Receipt::default());
        }
        let posted = answer.json().and_then(|message| {
            let id = |key: &str| message.get(key)?.as_str().filter(|id| is_id(id)).map(str::to_owned);
            Some(Posted { channel: id("channel_id").unwrap_or_default(), message: id("id")? })
        });
        match posted {
            Some(posted) => Ok(posted.receipt()),
            None => {
                let why = "it answered with something that is no Discord message (a proxy or a login page?)";
                Err(http::unreachable(channel, !answer.whole, None, why))
            }
        }
    }

    fn refused(&self, answer: &Answer, amending: bool) -> NotifyError {
        let channel = self.channel.name.clone();
        let body = answer.json();
        let code = body.as_ref().and_then(|body| body.get("code")?.as_u64()).unwrap_or(0);
        let reason = reason(answer, body.as_ref());
        let status = answer.status.as_u16();
        if let Some(error) = http::transient(&channel, answer) {
            return error;
        }
        match (status, code) {
            (_, 30046) if amending => NotifyError::NotAmendable { channel, reason },
            (_, 10008 | 50005 | 50083 | 160_005) if amending => NotifyError::NotAmendable { channel, reason },
            (429, _) => limited(channel, answer, body.as_ref()),
            (_, 130_000) => http::unreachable(&channel, false, answer.retry_after(), reason),
            (403, 40333) => NotifyError::Banned { channel, retry_after: BANNED_FOR },
            (401 | 403 | 404 | 405 | 410 | 415, _) | (400, 220_001..=220_003 | 40067 | 50027 | 10015) => {
                NotifyError::Broken { channel, reason }
            }
            _ => NotifyError::ContentRefused { channel, reason },
        }
    }
}

#[async_trait]
impl Notifier for Discord {
    fn channel(&self) -> &Channel {
        &self.channel
    }

    async fn send(&self, message: &Message, form: Form, amend: Option<&Receipt>) -> Result<Receipt, NotifyError> {
        let channel = &self.channel.name;
        let (payload, cuts) = embed::payload(message, form, &self.program);
        if cuts > 0 {
            tracing::debug!(%channel, message = ?message.id, cuts, "shortened to fit");
        }
        let endpoint = self.endpoint.expose_secret();
        let thread: Vec<_> = self.thread.iter().map(|id| ("thread_id", id)).collect();
        let posted = amend.map(|receipt| {
            Posted::of(receipt).ok_or_else(|| {
                let reason = "it was posted without an id".into();
                NotifyError::NotAmendable { channel: channel.clone(), reason }
            })
        });
        let posted = posted.transpose()?;
        let request = |client: &Client| {
            let request = match posted {
                None => client.post(endpoint).query(&[("wait", "true")]),
                Some(posted) => client.patch(format!("{endpoint}/messages/{}", posted.message)),
            };
            http::json(request.query(&thread), &payload)
        };
        let answer = self.http.send(channel, request).await?;
        if answer.status.is_success() { self.accepted(&answer) } else { Err(self.refused(&answer, amend.is_some())) }
    }
}

impl fmt::Debug for Discord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Discord({:?}, {})", self.channel.name, address::short(self.channel.destination))
    }
}

/// Where a message is, from the answer to posting it.
struct Posted {
    channel: String,
    message: String,
}

impl Posted {
    fn receipt(&self) -> Receipt {
        Receipt(format!("{}/{}", self.channel, self.message))
    }

    fn of(receipt: &Receipt) -> Option<Self> {
        let (channel, message) = receipt.0.split_once('/')?;
        is_id(message).then(|| Self { channel: channel.into(), message: message.into() })
    }
}

fn is_id(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// A webhook's address, taken apart.
struct Target {
    /// Version 10, without query.
    endpoint: Url,
    thread: Option<String>,
    official: bool,
}

impl Target {
    fn parse(url: &Url) -> Result<Self, AddressError> {
        let host = url.host_str().unwrap_or_default();
        let official = ["discord.com", "discordapp.com"]
            .iter()
            .any(|vendor| host == *vendor || host.strip_suffix(vendor).is_some_and(|sub| sub.ends_with('.')));
        if host.ends_with("slack.com") {
            return Err(invalid("it is a Slack webhook, not a Discord one", "set it as the Slack channel's address"));
        }
        let path: Vec<&str> = url.path_segments().into_iter().flatten().filter(|part| !part.is_empty()).collect();
        let not_a_webhook = || invalid("it is not a Discord webhook's URL", HINT);
        // [prefix/]api[/vN]/webhooks/ID/TOKEN[/slack|/github]
        let at = path.iter().rposition(|part| *part == "webhooks").ok_or_else(not_a_webhook)?;
        let [id, token, tail @ ..] = &path[at + 1..] else {
            return Err(invalid("it is not a whole Discord webhook's URL: its id or token is missing", HINT));
        };
        if !matches!(tail, [] | ["slack" | "github"]) {
            return Err(not_a_webhook());
        }
        let before = &path[..at];
        let versioned = before
            .last()
            .is_some_and(|v| v.len() > 1 && v.starts_with('v') && v[1..].bytes().all(|b| b.is_ascii_digit()));
        let before = if versioned { &before[..before.len() - 1] } else { before };
        let prefix = match before.split_last() {
            Some((&"api", prefix)) => prefix,
            _ => return Err(not_a_webhook()),
        };
        let token_fits = token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        let id_fits = if official {
            is_id(id)
        } else {
            id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if !token_fits || !id_fits {
            return Err(invalid("its id or token has characters that Discord never gives out", HINT));
        }
        let thread = url.query_pairs().find(|(key, _)| key == "thread_id").map(|(_, id)| id.into_owned());
        if thread.as_deref().is_some_and(|id| !is_id(id)) {
            return Err(invalid("its thread_id is not a number", "copy the thread's id, or leave `thread_id` out"));
        }
        let mut endpoint = url.clone();
        if official {
            let _ = endpoint.set_scheme("https");
            let _ = endpoint.set_host(Some("discord.com"));
            let _ = endpoint.set_port(None);
        }
        let _ = endpoint.set_username("");
        let _ = endpoint.set_password(None);
        endpoint.set_query(None);
        endpoint.set_fragment(None);
        let prefix: String =
            if official { String::new() } else { prefix.iter().map(|part| format!("/{part}")).collect() };
        endpoint.set_path(&format!("{prefix}/api/v10/webhooks/{id}/{token}"));
        Ok(Self { endpoint, thread, official })
    }
}

/// 429: too fast, or banned.
fn limited(channel: Arc<str>, answer: &Answer, body: Option<&Value>) -> NotifyError {
    let asked = answer.retry_after().max(body.and_then(http::body_wait));
    let has_limits = answer.headers.keys().any(|name| name.as_str().starts_with("x-ratelimit-"));
    let text = answer.body.to_ascii_lowercase();
    // A ban of our address has no headers of a limit: Cloudflare's error 1015, or code 0 with words about blocking.
    let says_banned = text.contains("1015") || text.contains("blocked");
    let is_json = body.is_some_and(|body| http::body_wait(body).is_some());
    if !has_limits && (says_banned || (asked.is_none() && !is_json)) {
        return NotifyError::Banned { channel, retry_after: asked.unwrap_or_default().max(BANNED_FOR) };
    }
    NotifyError::RateLimited { channel, retry_after: asked.or_else(|| reset_after(answer)).unwrap_or(LIMITED_FOR) }
}

fn reset_after(answer: &Answer) -> Option<Duration> {
    http::seconds(answer.headers.get("x-ratelimit-reset-after")?.to_str().ok()?.trim())
}

/// What Discord says, the places of its nested errors made into paths: `embeds.0.title: BASE_TYPE_MAX_LENGTH`.
fn reason(answer: &Answer, body: Option<&Value>) -> String {
    let Some(body) = body else { return answer.excerpt() };
    let mut paths = Vec::new();
    if let Some(errors) = body.get("errors") {
        flatten(errors, &mut String::new(), &mut paths, 0);
    }
    let Some(message) = body.get("message").and_then(Value::as_str) else { return answer.excerpt() };
    let code = body.get("code").and_then(Value::as_u64).unwrap_or(0);
    let details = if paths.is_empty() { String::new() } else { format!(" ({})", paths.join("; ")) };
    let text = format!("HTTP {}, code {code}: {message}{details}", answer.status.as_u16());
    Clean::line(&text).elided(300).as_str().to_owned()
}

fn flatten(errors: &Value, path: &mut String, paths: &mut Vec<String>, depth: usize) {
    if paths.len() >= 5 || depth > 8 {
        return;
    }
    for (key, value) in errors.as_object().into_iter().flatten() {
        if key == "_errors" {
            let codes = value.as_array().into_iter().flatten();
            let codes: Vec<&str> = codes.filter_map(|error| error.get("code")?.as_str()).take(3).collect();
            paths.push(format!("{path}: {}", codes.join(", ")));
            continue;
        }
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        flatten(value, path, paths, depth + 1);
        path.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Result<(String, Option<String>), AddressError> {
        let target = Target::parse(&address::parse(url)?)?;
        Ok((target.endpoint.into(), target.thread))
    }

    #[test]
    fn every_address_that_discord_gave_out_becomes_version_10() {
        let wanted = "https://discord.com/api/v10/webhooks/1234567890/aB-c_d";
        for url in [
            "https://discord.com/api/webhooks/1234567890/aB-c_d",
            "https://discordapp.com/api/webhooks/1234567890/aB-c_d",
            "https://ptb.discord.com/api/webhooks/1234567890/aB-c_d/",
            "https://canary.discord.com/api/v6/webhooks/1234567890/aB-c_d",
            "https://discord.com/api/v9/webhooks/1234567890/aB-c_d?wait=false",
            "https://discord.com/api/webhooks/1234567890/aB-c_d/slack",
            "  https://discord.com:443/api/webhooks/1234567890/aB-c_d  ",
        ] {
            assert_eq!(endpoint(url).unwrap(), (wanted.to_owned(), None), "{url}");
        }
        let in_thread = endpoint("https://discord.com/api/webhooks/1/a?thread_id=77").unwrap();
        assert_eq!(in_thread, ("https://discord.com/api/v10/webhooks/1/a".to_owned(), Some("77".to_owned())));
        for (url, wanted) in [
            ("http://127.0.0.1:8080/api/webhooks/1/tok", "http://127.0.0.1:8080/api/v10/webhooks/1/tok"),
            (
                "https://proxy.example/discord/api/v8/webhooks/1/tok",
                "https://proxy.example/discord/api/v10/webhooks/1/tok",
            ),
        ] {
            assert_eq!(endpoint(url).unwrap().0, wanted);
        }
    }

    #[test]
    fn other_addresses_are_refused_with_a_reason() {
        for url in [
            "https://hooks.slack.com/services/T1/B1/abc",
            "https://discord.com/channels/1/2",
            "https://discord.com/api/webhooks/123",
            "https://discord.com/api/webhooks/abc/def",
            "https://discord.com/api/webhooks/1/a/messages/5",
            "https://discord.com/api/webhooks/1/a?thread_id=x",
            "https://example.com/webhooks/1/a",
            "https://discord.com/api/webhooks/1/a%2Fb",
            "http://proxy.example/api/webhooks/1/a",
        ] {
            assert!(matches!(endpoint(url), Err(AddressError::Invalid { .. })), "{url}");
        }
        assert!(
            endpoint("https://evildiscord.com/api/webhooks/1/a").unwrap().0.starts_with("https://evildiscord.com/")
        );
    }
}
