//! The one place where requests leave: bounded in time and size, no redirects, and no address in any error.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use logwarden_core::{error::BoxError, notifier::NotifyError};
use reqwest::{Client, RequestBuilder, StatusCode, header::HeaderMap, redirect};
use url::Url;

use crate::{address::is_loopback, text::Clean};

/// One attempt takes at most this long.
pub(crate) const LONGEST: Duration = Duration::from_secs(15);
/// Leases must outlive an attempt.
pub(crate) const LONGEST_SEND: Duration = Duration::from_secs(20);
/// What is read of an answer.
const MOST_BODY: usize = 64 * 1024;
/// Longer waits are planned in steps.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// Requests to one address. The client is made for the first of them: reading the system's certificates takes longer
/// than all the rest of a start.
#[derive(Debug)]
pub(crate) struct Http {
    is_near: bool,
    is_plain: bool,
    total: Duration,
    user_agent: &'static str,
    client: OnceLock<Client>,
}

impl Http {
    pub(crate) fn new(url: &Url, total: Duration, user_agent: &'static str) -> Self {
        let (is_near, is_plain) = (is_loopback(url), url.scheme() == "http");
        Self { is_near, is_plain, total, user_agent, client: OnceLock::new() }
    }

    /// Sends what `request` makes, and reads a capped answer.
    pub(crate) async fn send(
        &self,
        channel: &Arc<str>,
        request: impl FnOnce(&Client) -> RequestBuilder,
    ) -> Result<Answer, NotifyError> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let made = self.client().map_err(|error| {
                    let cause = root(&error.without_url());
                    let advice = "install the system's CA certificates (package `ca-certificates`)";
                    unreachable(channel, false, None, format!("TLS cannot be set up: {cause}; {advice}"))
                })?;
                self.client.get_or_init(|| made)
            }
        };
        send(channel, request(client)).await
    }

    fn client(&self) -> reqwest::Result<Client> {
        let mut builder = Client::builder()
            .user_agent(self.user_agent)
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(Duration::from_secs(5))
            .timeout(self.total)
            .pool_max_idle_per_host(1);
        if self.is_near {
            builder = builder.no_proxy();
        }
        if self.is_plain {
            // Nothing is encrypted, so the system's certificates need not be read, nor be there.
            builder = builder.tls_certs_only([]);
        }
        builder.build()
    }
}

/// What a server answered, or as much as came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// Whether the answer ended as it should.
    pub(crate) whole: bool,
}

impl Answer {
    /// What the body says, cleaned and capped, for an error.
    pub(crate) fn excerpt(&self) -> String {
        let excerpt = Clean::line(&self.body).elided(200);
        let status = self.status.as_u16();
        if excerpt.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {}", excerpt.as_str()) }
    }

    /// The body as JSON, where it is.
    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.body).ok()
    }

    /// How long `Retry-After` asks to wait, in any of its forms.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        let value = header("retry-after")?.trim();
        if let Some(wait) = seconds(value) {
            return Some(wait);
        }
        // A date is compared with the server's own clock, which may differ from ours.
        let at = httpdate::parse_http_date(value).ok()?;
        let now = httpdate::parse_http_date(header("date")?).ok()?;
        Some(at.duration_since(now).unwrap_or(Duration::ZERO).min(LONGEST_WAIT))
    }
}

/// Seconds, whole or decimal, clamped; nothing for negative ones and what is no number.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (digits && !text.is_empty()).then(|| text.parse().ok()).flatten().and_then(wait)
}

/// The same for a number in JSON.
pub(crate) fn wait(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0 && !seconds.is_nan())
        .then(|| Duration::try_from_secs_f64(seconds).map_or(LONGEST_WAIT, |wait| wait.min(LONGEST_WAIT)))
}

/// `retry_after` of a JSON body, as a number or as text.
pub(crate) fn body_wait(body: &serde_json::Value) -> Option<Duration> {
    let value = body.get("retry_after")?;
    value.as_f64().map_or_else(|| value.as_str().and_then(seconds), wait)
}

/// Gives `request` a JSON body. Ours are plain structs, which always can be written.
pub(crate) fn json(request: RequestBuilder, payload: &impl serde::Serialize) -> RequestBuilder {
    let body = serde_json::to_vec(payload).unwrap_or_default();
    request.header("content-type", "application/json").body(body)
}

async fn send(channel: &Arc<str>, request: RequestBuilder) -> Result<Answer, NotifyError> {
    let mut response = request.send().await.map_err(|error| {
        let sent_nothing = error.is_connect() || error.is_builder();
        let cause = match error.is_timeout() && !error.is_connect() {
            true => "no answer in time".to_owned(),
            false => root(&error.without_url()),
        };
        unreachable(channel, !sent_nothing, None, cause)
    })?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    let whole = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = MOST_BODY - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    break true;
                }
            }
            Ok(None) => break true,
            Err(error) => {
                tracing::debug!(%channel, error = %error.without_url(), "the answer broke off");
                break false;
            }
        }
    };
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Answer { status, headers, body, whole })
}

/// The innermost cause: what is around it says how the HTTP library is built.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// The error for what may work later.
pub(crate) fn unreachable(
    channel: &Arc<str>,
    ambiguous: bool,
    retry_after: Option<Duration>,
    cause: impl Into<BoxError>,
) -> NotifyError {
    NotifyError::Unreachable { channel: channel.clone(), ambiguous, retry_after, cause: cause.into() }
}

/// What every platform means alike by a status that is neither success nor a refusal of its own: try later.
pub(crate) fn transient(channel: &Arc<str>, answer: &Answer) -> Option<NotifyError> {
    let status = answer.status.as_u16();
    match status {
        300..=399 => {
            let why = format!(
                "it answers with a redirect (HTTP {status}), which is never followed: something stands between us and it"
            );
            Some(unreachable(channel, false, None, why))
        }
        408 | 425 | 500..=599 => {
            // A gateway that lost the answer cannot say whether the message arrived.
            let ambiguous = matches!(status, 502 | 504);
            Some(unreachable(channel, ambiguous, answer.retry_after(), answer.excerpt()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&'static str, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Answer { status: StatusCode::TOO_MANY_REQUESTS, headers, body: String::new(), whole: true }
    }

    #[test]
    fn retry_after_is_understood_in_all_its_forms() {
        let date = ("date", "Sat, 21 Nov 2026 04:00:00 GMT");
        for (value, wait) in [
            ("7", Some(7_000)),
            (" 0.376 ", Some(376)),
            ("0", Some(0)),
            ("86400", Some(3_600_000)),
            ("1e400", None),
            ("99999999999999999999999999", Some(3_600_000)),
            ("Sat, 21 Nov 2026 04:00:30 GMT", Some(30_000)),
            ("Sat, 21 Nov 2026 03:00:00 GMT", Some(0)),
            ("Sun, 22 Nov 2026 04:00:00 GMT", Some(3_600_000)),
            ("-1", None),
            ("NaN", None),
            ("inf", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(
                answer(&[date, ("retry-after", value)]).retry_after(),
                wait.map(Duration::from_millis),
                "{value:?}"
            );
        }
        assert_eq!(answer(&[("retry-after", "Sat, 21 Nov 2026 04:00:30 GMT")]).retry_after(), None);
        for (body, wait) in
            [("1.5", Some(1_500)), ("\"2\"", Some(2_000)), ("-1", None), ("null", None), ("1e300", Some(3_600_000))]
        {
            let body = serde_json::from_str(&format!("{{\"retry_after\":{body}}}")).unwrap();
            assert_eq!(body_wait(&body), wait.map(Duration::from_millis), "{body}");
        }
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        use logwarden_tests::{chat::Fault, slack};
        let server = logwarden_tests::chat::Server::start(slack::Slack::default()).await.unwrap();
        server.script([Fault::Hang]);
        let url = slack::url(&server).parse().unwrap();
        let http = Http::new(&url, Duration::from_millis(50), "test");
        let error = http.send(&"c".into(), |client| client.post(url).body("{}")).await.unwrap_err();
        assert!(matches!(error, NotifyError::Unreachable { ambiguous: true, .. }), "{error:?}");
        assert!(!format!("{error:?}").contains(slack::TOKEN));
    }
}
