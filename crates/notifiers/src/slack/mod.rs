//! Slack's incoming webhooks: Block Kit, confirmed by the body `ok`, never amended.

mod blocks;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use logwarden_core::{
    Severity,
    message::Message,
    notifier::{Channel, Form, Notifier, NotifyError, Receipt},
};
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{
    address::{self, AddressError, invalid},
    http::{self, Answer, Http},
};

const USER_AGENT: &str = concat!("logwarden/", env!("CARGO_PKG_VERSION"), " (+", env!("CARGO_PKG_REPOSITORY"), ")");
const LIMITED_FOR: Duration = Duration::from_secs(30);
const HINT: &str = "create one: api.slack.com/apps, your app, Incoming Webhooks, Add New Webhook to Workspace";

/// A Slack incoming webhook.
pub struct Slack {
    channel: Channel,
    endpoint: SecretString,
    http: Http,
    program: Arc<str>,
}

impl Slack {
    /// A channel called `name` that posts to the incoming webhook `url`: `https://hooks.slack.com/services/…`, or the
    /// same path on another host (a proxy, a test double). `hash_key` keys the hash of the destination.
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
        let endpoint = endpoint(address::parse(url.expose_secret())?)?;
        let channel = Channel {
            name: name.into(),
            destination: address::hash(hash_key, "slack", endpoint.as_str()),
            vendor: "slack",
            min_severity,
            amends: false,
            longest_send: http::LONGEST_SEND,
            gap: Duration::from_millis(1_100),
            per_minute: 50,
        };
        let http = Http::new(&endpoint, http::LONGEST, USER_AGENT);
        Ok(Self { channel, endpoint: String::from(endpoint).into(), http, program: crate::PROGRAM.into() })
    }

    /// The same for another program: the one whose commands the messages name, `logwarden-analyzer` by default.
    #[must_use]
    pub fn program(mut self, name: impl Into<Arc<str>>) -> Self {
        self.program = name.into();
        self
    }

    fn outcome(&self, answer: &Answer) -> Result<Receipt, NotifyError> {
        let channel = self.channel.name.clone();
        let reason = answer.excerpt();
        let says = |words: &[&str]| words.iter().any(|word| answer.body.contains(word));
        if let Some(error) = http::transient(&channel, answer) {
            return Err(error);
        }
        Err(match answer.status.as_u16() {
            200 if answer.body.trim() == "ok" => return Ok(Receipt::default()),
            200..=299 => {
                let why = "it answered with something else than `ok` (a proxy or a login page?)";
                http::unreachable(&channel, !answer.whole, None, why)
            }
            429 => {
                let asked = answer.retry_after().max(answer.json().as_ref().and_then(http::body_wait));
                NotifyError::RateLimited { channel, retry_after: asked.unwrap_or(LIMITED_FOR) }
            }
            400 if says(&["invalid_token", "no_service", "no_team", "channel_not_found", "no_active_hooks"]) => {
                NotifyError::Broken { channel, reason }
            }
            401 | 403 | 404 | 405 | 410 | 415 => NotifyError::Broken { channel, reason },
            _ => NotifyError::ContentRefused { channel, reason },
        })
    }
}

#[async_trait]
impl Notifier for Slack {
    fn channel(&self) -> &Channel {
        &self.channel
    }

    async fn send(&self, message: &Message, form: Form, _amend: Option<&Receipt>) -> Result<Receipt, NotifyError> {
        let channel = &self.channel.name;
        let (payload, cuts) = blocks::payload(message, form, &self.program);
        if cuts > 0 {
            tracing::debug!(%channel, message = ?message.id, cuts, "shortened to fit");
        }
        let request = |client: &Client| http::json(client.post(self.endpoint.expose_secret()), &payload);
        let answer = self.http.send(channel, request).await?;
        self.outcome(&answer)
    }
}

impl fmt::Debug for Slack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slack({:?}, {})", self.channel.name, address::short(self.channel.destination))
    }
}

/// The address to post to, if it is an incoming webhook's.
fn endpoint(mut url: Url) -> Result<Url, AddressError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let official = matches!(host.as_str(), "hooks.slack.com" | "hooks.slack-gov.com");
    if host == "discord.com" || host == "discordapp.com" || host.ends_with(".discord.com") {
        return Err(invalid("it is a Discord webhook, not a Slack one", "set it as the Discord channel's address"));
    }
    let path: Vec<&str> = url.path_segments().into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if path.iter().any(|part| matches!(*part, "triggers" | "workflows")) {
        return Err(invalid(
            "it belongs to Slack's Workflow Builder, which cannot show messages of this kind",
            "use an incoming webhook (https://hooks.slack.com/services/…): api.slack.com/apps, Incoming Webhooks",
        ));
    }
    let at = path.iter().rposition(|part| *part == "services");
    let fits = |part: &&str| part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    match at.map(|at| (at, &path[at + 1..])) {
        Some((at, [team, hook, token])) if [team, hook, token].into_iter().all(fits) && (!official || at == 0) => {}
        Some((_, [] | [_] | [_, _])) => {
            return Err(invalid("it is not a whole Slack webhook's URL: a part is missing", HINT));
        }
        _ => return Err(invalid("it is not a Slack incoming webhook's URL", HINT)),
    }
    let path = format!("/{}", path.join("/"));
    if official {
        let _ = url.set_scheme("https");
        let _ = url.set_port(None);
    }
    url.set_path(&path);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<String, AddressError> {
        endpoint(address::parse(url)?).map(String::from)
    }

    #[test]
    fn incoming_webhooks_are_taken_on_any_host() {
        for (url, wanted) in [
            ("https://hooks.slack.com/services/T1/B2/abc", "https://hooks.slack.com/services/T1/B2/abc"),
            ("https://hooks.slack.com/services/T1/B2/abc/?x=1#y", "https://hooks.slack.com/services/T1/B2/abc"),
            ("http://127.0.0.1:9/services/T1/B2/abc", "http://127.0.0.1:9/services/T1/B2/abc"),
            ("https://proxy.example/slack/services/T1/B2/abc", "https://proxy.example/slack/services/T1/B2/abc"),
        ] {
            assert_eq!(parsed(url).unwrap(), wanted);
        }
    }

    #[test]
    fn other_addresses_are_refused_with_a_reason() {
        let reason = |url: &str| {
            let error = parsed(url).unwrap_err();
            format!("{error}; {}", error.hint())
        };
        insta::assert_snapshot!(reason("https://hooks.slack.com/triggers/T1/1/abc"), @"it belongs to Slack's Workflow Builder, which cannot show messages of this kind; use an incoming webhook (https://hooks.slack.com/services/…): api.slack.com/apps, Incoming Webhooks");
        insta::assert_snapshot!(reason("https://discord.com/api/webhooks/1/a"), @"it is a Discord webhook, not a Slack one; set it as the Discord channel's address");
        for url in [
            "https://hooks.slack.com/workflows/T1/A1/1/abc",
            "https://hooks.slack.com/services/T1/B1",
            "https://hooks.slack.com/services/T1/B1/a/b",
            "https://hooks.slack.com/x/services/T1/B1/a",
            "https://example.com/",
            "https://hooks.slack.com/services/T1/B1/a%2f",
        ] {
            assert!(matches!(parsed(url), Err(AddressError::Invalid { .. })), "{url}");
        }
    }
}
