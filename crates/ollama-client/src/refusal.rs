//! What went wrong with one call, read from any of the shapes that Ollama, its runner and the proxies before it have.

use std::time::Duration;

use logwarden_core::{classifier::ClassifyError, error::BoxError};
use serde_json::Value;

use crate::guard::Runaway;

/// Characters of a foreign text that are quoted.
const QUOTED: usize = 300;

/// Why a call gave no answer, sorted by what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("cannot connect to Ollama")]
    Unreachable(#[source] BoxError),
    #[error("the connection broke")]
    Broken(#[source] BoxError),
    #[error("no answer within {} s while {doing}", .after.as_secs())]
    Silent { doing: &'static str, after: Duration },
    #[error("Ollama is busy (HTTP 503)")]
    Busy,
    #[error("too many questions are waiting already")]
    Queue,
    #[error("the proxy before Ollama has trouble (HTTP {0})")]
    Gateway(u16),
    #[error("the model's process died: {0}")]
    Crashed(String),
    #[error("too many requests (HTTP 429)")]
    Limited,
    #[error("the prompt has {tokens} tokens and the window {window}")]
    Overflow { tokens: u32, window: u32 },
    #[error("the server cannot use the answer's schema: {0}")]
    Grammar(String),
    #[error("there is not enough memory for the model: {0}")]
    Memory(String),
    #[error("model `{0}` is not installed")]
    Missing(String),
    #[error("{0}")]
    Refused(String),
    #[error("{reason}")]
    Hinted { reason: String, hint: &'static str },
    #[error("{0}")]
    Answer(String),
    #[error("{0}")]
    Runaway(#[from] Runaway),
    #[error("it took longer than {} s", .0.as_secs())]
    Slow(Duration),
}

impl Refusal {
    /// From a status and a body that is not an answer.
    pub(crate) fn from_body(status: u16, body: &[u8], model: &str) -> Self {
        let told = Told::read(body);
        let text = told.text.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if told.kind == "exceed_context_size_error" || told.window.is_some() {
            return Self::Overflow { tokens: told.tokens.unwrap_or(0), window: told.window.unwrap_or(0) };
        }
        if has(&[
            "prompt is longer than the context",
            "exceeds the context length",
            "exceeds the model's maximum context",
        ]) {
            return Self::Overflow { tokens: 0, window: 0 };
        }
        if has(&["grammar", "schema conversion", "json schema", "json_schema", "invalid format"]) {
            return Self::Grammar(told.text);
        }
        if has(&[
            "out of memory",
            "out-of-memory",
            "cudamalloc",
            "failed to allocate",
            "unable to allocate",
            "more system memory",
        ]) {
            return Self::Memory(told.text);
        }
        if has(&["maximum pending requests", "loading model"]) || status == 503 {
            return Self::Busy;
        }
        let hinted = |reason: String, hint| Self::Hinted { reason, hint };
        match status {
            404 if text.contains("model") && text.contains("not found") => Self::Missing(model.to_owned()),
            401 => hinted(
                format!("Ollama wants to know who we are (HTTP 401){}", told.suffix()),
                "set the credentials of the proxy before Ollama; a cloud model would need `ollama signin`",
            ),
            403 if told.text.is_empty() => hinted(
                "Ollama refused the request (HTTP 403): it does not know the host name by which it was called"
                    .to_owned(),
                "use the address 127.0.0.1, or have the proxy before Ollama rewrite the Host header to localhost:11434",
            ),
            404 | 405 => hinted(
                format!("there is no Ollama at this address (HTTP {status})"),
                "check OLLAMA_HOST: its path, and whether a proxy redirects from http to https",
            ),
            300..=399 => hinted(
                format!("the address redirects elsewhere (HTTP {status}), which is not followed"),
                "set OLLAMA_HOST to where it leads, often https instead of http",
            ),
            429 => Self::Limited,
            502 | 504 => Self::Gateway(status),
            _ if has(&["does not support chat"]) => {
                hinted(told.text, "choose a model that answers, not one for embeddings")
            }
            _ if has(&["may be incompatible with your version"]) => hinted(told.text, "update Ollama"),
            500..
                if has(&[
                    "terminated",
                    "unexpected",
                    "error was encountered",
                    "stopped",
                    "no slots",
                    "timed out",
                    "llama-server",
                ]) =>
            {
                Self::Crashed(told.text)
            }
            // Ollama's own failures are JSON.
            500.. if told.is_foreign => Self::Gateway(status),
            500.. if told.text.is_empty() => Self::Crashed(format!("HTTP {status}")),
            _ if told.text.is_empty() => Self::Refused(format!("Ollama refused the request (HTTP {status})")),
            _ => Self::Refused(format!("Ollama refused the request (HTTP {status}): {}", told.text)),
        }
    }

    /// Whether the very same call may succeed in a moment.
    pub(crate) fn is_momentary(&self) -> bool {
        matches!(self, Self::Busy | Self::Crashed(_) | Self::Gateway(_) | Self::Broken(_))
    }

    /// Whether another seed may help.
    pub(crate) fn is_unusable(&self) -> bool {
        matches!(self, Self::Answer(_) | Self::Runaway(_))
    }

    /// In the words of the seam.
    pub(crate) fn into_error(self, origin: &str) -> ClassifyError {
        match self {
            Self::Overflow { tokens, window } => ClassifyError::TooLarge { tokens, window },
            Self::Answer(_) | Self::Runaway(_) | Self::Slow(_) => ClassifyError::Unusable { reason: self.to_string() },
            Self::Memory(_) => ClassifyError::Misconfigured {
                reason: self.to_string(),
                hint: Some("choose a smaller model, or set `model.num_ctx` lower".to_owned()),
            },
            Self::Missing(ref model) => {
                let hint = format!("ollama pull {model}");
                ClassifyError::Misconfigured { reason: self.to_string(), hint: Some(hint) }
            }
            Self::Grammar(_) => ClassifyError::Misconfigured {
                reason: self.to_string(),
                hint: Some("update Ollama; please report this with its version".to_owned()),
            },
            Self::Refused(reason) => ClassifyError::Misconfigured { reason, hint: None },
            Self::Hinted { reason, hint } => ClassifyError::Misconfigured { reason, hint: Some(hint.to_owned()) },
            other => {
                let retry_after = match other {
                    Self::Busy | Self::Queue | Self::Gateway(_) | Self::Limited => Some(Duration::from_secs(30)),
                    _ => None,
                };
                ClassifyError::Unavailable { origin: origin.to_owned(), retry_after, cause: other.into() }
            }
        }
    }
}

/// What a body says.
#[derive(Debug, Default)]
struct Told {
    text: String,
    /// Whether it is no JSON.
    is_foreign: bool,
    kind: String,
    tokens: Option<u32>,
    window: Option<u32>,
}

impl Told {
    fn read(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => Self::of(&value, 0),
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                // An HTML page says nothing that its status does not.
                let text = if text.trim_start().starts_with('<') { "" } else { &text };
                Self { text: quoted(text), is_foreign: !text.is_empty(), ..Self::default() }
            }
        }
    }

    /// `{"error": "…"}`, where the text may be JSON again, `{"error": {"message": …}}`, or a text alone.
    fn of(value: &Value, depth: u8) -> Self {
        match value {
            Value::Object(object) => {
                if let Some(error) = object.get("error").filter(|_| depth < 4) {
                    return Self::of(error, depth + 1);
                }
                let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
                let number = |key: &str| object.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
                Self {
                    text: quoted(text("message")),
                    is_foreign: false,
                    kind: text("type").to_owned(),
                    tokens: number("n_prompt_tokens"),
                    window: number("n_ctx"),
                }
            }
            Value::String(text) => match serde_json::from_str::<Value>(text) {
                Ok(inner @ Value::Object(_)) if depth < 4 => Self::of(&inner, depth + 1),
                _ => Self { text: quoted(text), ..Self::default() },
            },
            _ => Self::default(),
        }
    }

    fn suffix(&self) -> String {
        if self.text.is_empty() { String::new() } else { format!(": {}", self.text) }
    }
}

/// One line of a foreign text.
pub(crate) fn quoted(text: &str) -> String {
    let words: Vec<_> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use logwarden_core::error::chain;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_body_that_servers_and_proxies_send_becomes_a_message_for_people() {
        let overflow = r#"{"error":"{\"error\":{\"code\":400,\"message\":\"request (3325 tokens) exceeds the available context size (1024 tokens), try increasing it\",\"type\":\"exceed_context_size_error\",\"n_prompt_tokens\":3325,\"n_ctx\":1024}}"}"#;
        let grammar = r#"{"error":"{\"error\":{\"code\":400,\"message\":\"Failed to initialize samplers: failed to parse grammar\",\"type\":\"invalid_request_error\"}}"}"#;
        let cases: &[(u16, &str)] = &[
            (400, overflow),
            (
                400,
                r#"{"error":"the prompt is longer than the context length currently available to the model; shorten the prompt"}"#,
            ),
            (400, grammar),
            (400, r#"{"error":"\"embed\" does not support chat"}"#),
            (401, r#"{"error":"unauthorized","signin_url":"https://ollama.com/connect?key=secret"}"#),
            (403, ""),
            (403, r#"{"error":"ollama cloud is disabled: remote model is unavailable"}"#),
            (404, r#"{"error":"model 'qwen3:4b-instruct' not found"}"#),
            (404, "404 page not found"),
            (405, "405 method not allowed"),
            (301, ""),
            (429, r#"{"StatusCode":429,"Status":"429 Too Many Requests","error":"slow down"}"#),
            (500, r#"{"error":"option \"num_ctx\" must be of type integer"}"#),
            (500, r#"{"error":"model requires more system memory (11.9 GiB) than is available (6.2 GiB)"}"#),
            (
                500,
                r#"{"error":"llama-server process has terminated: exit status 2: cudaMalloc failed: out of memory"}"#,
            ),
            (500, r#"{"error":"an error was encountered while running the model: unexpected EOF"}"#),
            (500, "the upstream server hung up"),
            (502, "<html><head><title>502 Bad Gateway</title></head></html>"),
            (503, r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#),
        ];
        let mut told = String::new();
        for (status, body) in cases {
            let error =
                Refusal::from_body(*status, body.as_bytes(), "qwen3:4b-instruct").into_error("http://127.0.0.1:11434");
            let _ = write!(told, "{status}: {}", chain(&error));
            if let ClassifyError::Misconfigured { hint: Some(hint), .. } = &error {
                let _ = write!(told, "\n     hint: {hint}");
            }
            told.push('\n');
        }
        insta::assert_snapshot!(told);
    }

    #[test]
    fn what_never_came_has_words_too() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let cases = [
            Refusal::Unreachable(refused.into()),
            Refusal::Silent { doing: "reading the prompt", after: Duration::from_secs(60) },
            Refusal::Answer("it was cut off at 812 tokens".into()),
            Refusal::Runaway(Runaway::Loop),
            Refusal::Slow(Duration::from_secs(900)),
        ];
        let told: Vec<_> = cases.into_iter().map(|case| chain(&case.into_error("http://gpu-box:11434"))).collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    proptest! {
        #[test]
        fn no_body_panics_and_none_is_quoted_at_length(status in 300_u16..600, body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let error = Refusal::from_body(status, &body, "m");
            prop_assert!(error.to_string().chars().count() < 500);
        }
    }
}
