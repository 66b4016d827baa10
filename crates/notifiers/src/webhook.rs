//! The generic webhook: our own versioned JSON, signed as Standard Webhooks says.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::Mac;
use logwarden_core::{
    Severity,
    env::Env,
    message::Message,
    notifier::{Channel, Form, Notifier, NotifyError, Receipt},
};
use reqwest::Client;
use secrecy::{ExposeSecret, SecretBox, SecretString};

use crate::{
    address::{self, AddressError},
    document::{Document, delivery_id},
    http::{self, Answer, Http},
};

const USER_AGENT: &str = concat!("logwarden/", env!("CARGO_PKG_VERSION"), " (+", env!("CARGO_PKG_REPOSITORY"), ")");
const LONGEST: Duration = Duration::from_secs(10);
const LIMITED_FOR: Duration = Duration::from_secs(30);
const SHORTEST_SECRET: usize = 16;

/// A webhook of the user's.
pub struct Webhook {
    channel: Channel,
    endpoint: SecretString,
    /// Every message is signed with each: the old and the new one while they are exchanged.
    secrets: Vec<SecretBox<[u8]>>,
    env: Arc<dyn Env>,
    http: Http,
}

impl Webhook {
    /// A channel called `name` that posts to `url`, signed with each of `secrets` (at most two: the current one and the
    /// next; none leaves messages unsigned). A secret is `whsec_` and base64, or plain text of at least 16 bytes. `env`
    /// tells the time of signatures; `hash_key` keys the hash of the destination.
    ///
    /// # Errors
    ///
    /// When the address is none, or a secret is too short.
    pub fn new(
        name: impl Into<Arc<str>>,
        url: &SecretString,
        secrets: &[SecretString],
        min_severity: Severity,
        hash_key: &[u8],
        env: Arc<dyn Env>,
    ) -> Result<Self, AddressError> {
        let url = address::parse(url.expose_secret())?;
        if secrets.len() > 2 {
            return Err(AddressError::Secret { reason: "has more than two values" });
        }
        let channel = Channel {
            name: name.into(),
            destination: address::hash(hash_key, "webhook", url.as_str()),
            vendor: "webhook",
            min_severity,
            amends: false,
            longest_send: http::LONGEST_SEND,
            gap: Duration::ZERO,
            per_minute: 300,
        };
        Ok(Self {
            channel,
            http: Http::new(&url, LONGEST, USER_AGENT),
            endpoint: String::from(url).into(),
            secrets: secrets.iter().map(key).collect::<Result<_, _>>()?,
            env,
        })
    }

    /// `v1,` and the signature of id, time and body, for each secret.
    fn signatures(&self, id: &str, timestamp: i64, body: &str) -> String {
        let sign = |secret: &SecretBox<[u8]>| {
            let mut mac = address::hmac(secret.expose_secret());
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body.as_bytes());
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        };
        self.secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
    }

    fn outcome(&self, answer: &Answer) -> Result<Receipt, NotifyError> {
        let channel = self.channel.name.clone();
        if let Some(error) = http::transient(&channel, answer) {
            return Err(error);
        }
        let reason = answer.excerpt();
        Err(match answer.status.as_u16() {
            200..=299 => return Ok(Receipt::default()),
            429 => {
                let asked = answer.retry_after().max(answer.json().as_ref().and_then(http::body_wait));
                NotifyError::RateLimited { channel, retry_after: asked.unwrap_or(LIMITED_FOR) }
            }
            401 | 403 | 404 | 405 | 407 | 410 | 415 => NotifyError::Broken { channel, reason },
            _ => NotifyError::ContentRefused { channel, reason },
        })
    }
}

#[async_trait]
impl Notifier for Webhook {
    fn channel(&self) -> &Channel {
        &self.channel
    }

    async fn send(&self, message: &Message, form: Form, _amend: Option<&Receipt>) -> Result<Receipt, NotifyError> {
        let channel = &self.channel.name;
        let body =
            serde_json::to_string(&Document::of(message, form)).map_err(|cause| NotifyError::ContentRefused {
                channel: channel.clone(),
                reason: format!("it cannot be written as JSON: {cause}"),
            })?;
        let (id, timestamp) = (delivery_id(message), self.env.now().secs());
        let request = |client: &Client| {
            let mut request = client
                .post(self.endpoint.expose_secret())
                .header("content-type", "application/json")
                .header("webhook-id", &id)
                .header("webhook-timestamp", timestamp.to_string());
            if !self.secrets.is_empty() {
                request = request.header("webhook-signature", self.signatures(&id, timestamp, &body));
            }
            request.body(body)
        };
        let answer = self.http.send(channel, request).await?;
        self.outcome(&answer)
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhook({:?}, {})", self.channel.name, address::short(self.channel.destination))
    }
}

fn key(secret: &SecretString) -> Result<SecretBox<[u8]>, AddressError> {
    let text = secret.expose_secret().trim();
    let bytes = match text.strip_prefix("whsec_") {
        Some(encoded) => {
            STANDARD.decode(encoded).map_err(|_| AddressError::Secret { reason: "is not base64 after `whsec_`" })?
        }
        None => text.as_bytes().to_vec(),
    };
    if bytes.len() < SHORTEST_SECRET {
        return Err(AddressError::Secret { reason: "is shorter than 16 bytes" });
    }
    Ok(SecretBox::new(bytes.into_boxed_slice()))
}
