//! What is answered decides whether the sender keeps its lines or forgets them.
//!
//! | situation | answer |
//! |---|---|
//! | stored on disk, or stored before, or empty | 200 (Loki: 204) |
//! | unreadable, now in quarantine | 200 (Loki: 204, OTLP: 400) |
//! | no room, no memory, shutting down, state unusable | 503 with `Retry-After` |
//! | one client too fast | 429 with `Retry-After` |
//! | above the hard limits | 413 |
//! | no or wrong credential | 401 |
//! | too slow, broken off | the connection is closed |

use http_body_util::Full;
use hyper::{Response, StatusCode, body::Bytes, header};

use crate::decode::Protocol;

pub(crate) type Reply = Response<Full<Bytes>>;

/// What is answered, before it is put into the sender's protocol.
#[derive(Debug)]
pub(crate) enum Answer {
    Accepted(u64),
    Unreadable,
    ComeAgain { seconds: u64, status: StatusCode, why: &'static str },
    Refused { status: StatusCode, why: &'static str },
    Close,
}

impl Answer {
    /// 503: the sender keeps its lines.
    pub(crate) fn again(seconds: u64, why: &'static str) -> Self {
        Self::ComeAgain { seconds, status: StatusCode::SERVICE_UNAVAILABLE, why }
    }
}

pub(crate) fn reply(protocol: Protocol, json: bool, answer: &Answer) -> Reply {
    let otlp = if json { "application/json" } else { "application/x-protobuf" };
    let refusal = |code: StatusCode, why: &str| match protocol {
        Protocol::Otlp => status(otlp, json, code, why),
        _ => built(code, "application/json", format!("{{\"error\":\"{why}\"}}")),
    };
    match answer {
        Answer::Accepted(_) if protocol == Protocol::Loki => {
            let mut reply = Response::new(Full::default());
            *reply.status_mut() = StatusCode::NO_CONTENT;
            reply
        }
        Answer::Accepted(_) if protocol == Protocol::Otlp => built(StatusCode::OK, otlp, if json { "{}" } else { "" }),
        Answer::Accepted(lines) => {
            built(StatusCode::OK, "application/json", format!("{{\"accepted\":{lines},\"errors\":false}}"))
        }
        Answer::Unreadable => status(otlp, json, StatusCode::BAD_REQUEST, "the body cannot be read; it was kept"),
        Answer::ComeAgain { seconds, status: code, why } => {
            let mut reply = refusal(*code, why);
            reply.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
            reply
        }
        Answer::Close => plain(StatusCode::SERVICE_UNAVAILABLE, ""),
        Answer::Refused { status: code, why } => {
            let mut reply = refusal(*code, why);
            if *code == StatusCode::UNAUTHORIZED {
                let schemes = header::HeaderValue::from_static("Bearer realm=\"logwarden\", Basic realm=\"logwarden\"");
                reply.headers_mut().insert(header::WWW_AUTHENTICATE, schemes);
            }
            reply
        }
    }
}

pub(crate) fn built(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    if let Ok(kind) = kind.parse() {
        reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    reply
}

/// OTLP's errors are a `Status` message: code (1) and message (2).
fn status(kind: &str, json: bool, code: StatusCode, why: &str) -> Reply {
    if json {
        return built(code, kind, format!("{{\"code\":3,\"message\":\"{why}\"}}"));
    }
    let mut body = vec![0x08, 3, 0x12, why.len().min(127) as u8];
    body.extend_from_slice(&why.as_bytes()[..why.len().min(127)]);
    built(code, kind, body)
}

pub(crate) fn plain(status: StatusCode, text: impl Into<String>) -> Reply {
    built(status, "text/plain; charset=utf-8", text.into())
}
