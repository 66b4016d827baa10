//! One request: what is answered decides whether the sender keeps its lines or forgets them.
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

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
};
use logwarden_core::{
    ledger::{BatchId, Commit, CommitId, Committed, LedgerError, Query, Write},
    templates::Level,
};
use tokio::{sync::OwnedSemaphorePermit, time};

use crate::{
    access,
    batch::Bounds,
    decode::Protocol,
    metrics::Outcome,
    quarantine,
    receiver::{Shared, kib},
    record::Context,
    sent::{self, Read, Sent},
};

/// A body must arrive at this rate on average, once it has had ten seconds.
const SLOWEST_BYTES_PER_SECOND: u64 = 4096;
/// Bodies beyond this, sent or unpacked, are decoded one at a time.
const LARGE: usize = 8 << 20;
/// How much of a refused body is read, so that the sender sees the answer.
const DRAIN_BYTES: usize = 4 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

type Reply = Response<Full<Bytes>>;

/// The connection is to be closed without an answer: the sender keeps its lines.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed without an answer")]
pub(crate) struct Close;

/// What is answered, before it is put into the sender's protocol.
#[derive(Debug)]
enum Answer {
    Accepted(u64),
    Unreadable,
    ComeAgain { seconds: u64, status: StatusCode, why: &'static str },
    Refused { status: StatusCode, why: &'static str },
}

/// Answers a request.
pub(crate) async fn handle(shared: &Arc<Shared>, peer: IpAddr, request: Request<Incoming>) -> Result<Reply, Close> {
    let path = request.uri().path().trim_end_matches('/');
    let protocol = match path {
        "" | "/receive_logs" | "/v1/fluent" | "/_bulk" => Protocol::Records,
        "/loki/api/v1/push" | "/api/prom/push" => Protocol::Loki,
        "/v1/logs" | "/otlp/v1/logs" => Protocol::Otlp,
        _ if request.method() == Method::GET => return Ok(page(shared, peer, path, request.headers()).await),
        _ => {
            shared.metrics.count(Outcome::NotFound);
            return Ok(plain(StatusCode::NOT_FOUND, "logs go to /receive_logs, /loki/api/v1/push or /v1/logs\n"));
        }
    };
    if !matches!(*request.method(), Method::POST | Method::PUT) {
        // Senders and load balancers ask whether anybody is there.
        return Ok(plain(StatusCode::OK, "logwarden takes logs here\n"));
    }
    let begun = Instant::now();
    let json = protocol == Protocol::Otlp && is_json(request.headers());
    let answer = receive(shared, peer, protocol, request).await?;
    shared.metrics.micros.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
    Ok(reply(protocol, json, &answer))
}

async fn receive(
    shared: &Arc<Shared>,
    peer: IpAddr,
    protocol: Protocol,
    request: Request<Incoming>,
) -> Result<Answer, Close> {
    let (head, mut body) = request.into_parts();
    let peer = peer.to_canonical();
    let refuse = |outcome, answer| {
        shared.metrics.count(outcome);
        answer
    };
    let client = match access::authenticate(&shared.clients, authorization(&head.headers)) {
        Some(client) => client.name().to_owned(),
        None if shared.trusts(peer) => peer.to_string(),
        None => {
            let known = if head.headers.contains_key(header::AUTHORIZATION) { "a wrong" } else { "no" };
            tell(
                shared,
                shared.troubles.lost(
                    "credential",
                    &peer.to_string(),
                    &format!("it sends {known} credential, so its lines are refused; most shippers then drop them"),
                ),
            );
            drain(&mut body).await;
            let why = "a credential is needed: Authorization: Bearer TOKEN";
            return Ok(refuse(Outcome::Unauthorized, Answer::Refused { status: StatusCode::UNAUTHORIZED, why }));
        }
    };
    if shared.stopping.load(Ordering::Relaxed) {
        drain(&mut body).await;
        return Ok(refuse(Outcome::Unavailable, again(5, "shutting down")));
    }
    let announced =
        head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > shared.limits.body_bytes) {
        drain(&mut body).await;
        return Ok(too_large(shared, &client));
    }
    if let Err(wait) = shared.rates.take(&client, announced.unwrap_or(0) as u64, Instant::now()) {
        drain(&mut body).await;
        let status = StatusCode::TOO_MANY_REQUESTS;
        let answer = Answer::ComeAgain { seconds: wait.as_secs().max(1), status, why: "this client sends too much" };
        return Ok(refuse(Outcome::TooFast, answer));
    }
    let received = match collect(shared, &mut body, announced).await {
        Ok(received) => received,
        Err(Stop::TooLarge) => return Ok(too_large(shared, &client)),
        Err(Stop::NoMemory) => {
            drain(&mut body).await;
            return Ok(refuse(Outcome::Overloaded, again(2, "too many bodies at once")));
        }
        Err(Stop::Slow) => {
            shared.metrics.count(Outcome::Slow);
            return Err(Close);
        }
    };
    shared.metrics.bytes.fetch_add(received.bytes.len() as u64, Ordering::Relaxed);
    if announced.is_none() {
        let _ = shared.rates.take(&client, received.bytes.len() as u64, Instant::now());
    }
    let sent = Sent {
        protocol,
        content_type: last(&head.headers, "content-type"),
        encoding: last(&head.headers, "content-encoding"),
        context: context(&head.headers, peer, &client),
        client,
    };
    // In a task of its own: a sender that goes away does not stop what is half done.
    let shared = shared.clone();
    let done = tokio::spawn(async move { store(&shared, sent, received).await });
    Ok(done.await.unwrap_or_else(|_| again(5, "internal error")))
}

fn again(seconds: u64, why: &'static str) -> Answer {
    Answer::ComeAgain { seconds, status: StatusCode::SERVICE_UNAVAILABLE, why }
}

fn tell(shared: &Shared, told: bool) {
    if !told {
        shared.metrics.troubles_untold.fetch_add(1, Ordering::Relaxed);
    }
}

fn too_large(shared: &Shared, client: &str) -> Answer {
    shared.metrics.count(Outcome::TooLarge);
    let reason = "a request was larger than the limits allow; its lines are lost. Send smaller batches, or raise them";
    tell(shared, shared.troubles.lost("large", client, reason));
    Answer::Refused { status: StatusCode::PAYLOAD_TOO_LARGE, why: "the batch is too large" }
}

/// A body and the memory that is set aside for it.
struct Received {
    bytes: Vec<u8>,
    _memory: Vec<OwnedSemaphorePermit>,
}

enum Stop {
    TooLarge,
    NoMemory,
    Slow,
}

async fn collect(shared: &Shared, body: &mut Incoming, announced: Option<usize>) -> Result<Received, Stop> {
    const STEP: usize = 1 << 20;
    let limits = &shared.limits;
    let reserve = async |bytes: usize| {
        let wanted = kib(bytes).clamp(1, kib(limits.in_flight_bytes)) as u32;
        let waiting = time::timeout(limits.patience, shared.memory.clone().acquire_many_owned(wanted));
        waiting.await.ok().and_then(Result::ok).ok_or(Stop::NoMemory)
    };
    let mut room = announced.unwrap_or(STEP);
    let mut received = Received { bytes: Vec::new(), _memory: vec![reserve(room).await?] };
    let begun = Instant::now();
    loop {
        let frame = match time::timeout(limits.body_idle, body.frame()).await {
            Err(_) | Ok(Some(Err(_))) => return Err(Stop::Slow),
            Ok(None) => return Ok(received),
            Ok(Some(Ok(frame))) => frame,
        };
        let Some(data) = frame.data_ref() else { continue };
        let length = received.bytes.len() + data.len();
        if length > limits.body_bytes {
            return Err(Stop::TooLarge);
        }
        let seconds = begun.elapsed().as_secs();
        if seconds > 10 && (length as u64) < (seconds - 10) * SLOWEST_BYTES_PER_SECOND {
            return Err(Stop::Slow);
        }
        while length > room {
            received._memory.push(reserve(STEP).await?);
            room += STEP;
        }
        if received.bytes.is_empty() {
            received.bytes.reserve(announced.unwrap_or(data.len()).min(limits.body_bytes));
        }
        received.bytes.extend_from_slice(data);
    }
}

/// Reads on a little, so that the sender gets to read the answer.
async fn drain(body: &mut Incoming) {
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > DRAIN_BYTES {
                return;
            }
        }
    };
    let _ = time::timeout(DRAIN_TIME, reading).await;
}

async fn store(shared: &Arc<Shared>, sent: Sent, received: Received) -> Answer {
    let now = shared.env.now();
    let sent = Arc::new(sent);
    let (protocol, client) = (sent.protocol, sent.client.clone());
    let read = {
        let Ok(_decoder) = shared.decoders.acquire().await else { return again(5, "shutting down") };
        let mut received = received;
        let mut limit = LARGE.min(shared.limits.decoded_bytes);
        let mut large = None;
        if received.bytes.len() > LARGE {
            large = Some(shared.large.lock().await);
            limit = shared.limits.decoded_bytes;
        }
        loop {
            let (records, sent) = (shared.limits.records, sent.clone());
            let bounds = Bounds { records, received: now };
            let working = tokio::task::spawn_blocking(move || {
                let read = catch_unwind(AssertUnwindSafe(|| sent.read(&received.bytes, limit, bounds)));
                // A decoder that panics is our fault: the body is kept, and the sender not stopped by it.
                let read = read.unwrap_or_else(|_| sent.unreadable(&received.bytes, "decoding it failed", bounds));
                (read, received)
            });
            let Ok((read, back)) = working.await else { return again(30, "shutting down") };
            received = back;
            if matches!(read, Read::TooLarge) && large.is_none() {
                large = Some(shared.large.lock().await);
                limit = shared.limits.decoded_bytes;
                continue;
            }
            break read;
        }
    };
    let (id, mut decoded) = match read {
        Read::TooLarge => return too_large(shared, &client),
        Read::Decoded { id, decoded } => (id, decoded),
    };
    let random = || u128::from(shared.env.random()) << 64 | u128::from(shared.env.random());
    // Batches without any time can honestly be equal: they are never taken for repeats.
    let id = if decoded.batch.has_times { id } else { random() };
    let (lines, parts) = (decoded.batch.lines, decoded.batch.finish());
    let unreadable = decoded.bad.first().map(|unread| unread.reason.clone());
    let mut writes = sent::spooled(id, now, parts);
    let unread = std::mem::take(&mut decoded.bad);
    writes.extend(unread.into_iter().map(|unread| Write::Quarantine(quarantine::row(&sent, now, unread))));
    for (name, count) in [
        ("push_lines", lines),
        ("push_lines_cut", decoded.batch.cut),
        ("push_odd_times", decoded.batch.odd_times),
        ("push_unreadable", u64::from(unreadable.is_some())),
    ] {
        if count > 0 {
            writes.push(Write::Count(name.to_owned(), count));
        }
    }
    if writes.is_empty() {
        shared.metrics.count(Outcome::Empty);
        return Answer::Accepted(0);
    }
    let commit = Commit { id: CommitId(random()), writes };
    match commit_twice(shared, &commit).await {
        Ok(Committed::Done) => {}
        Ok(Committed::Conflict) => return repeat(shared, BatchId(id), lines).await,
        Err(LedgerError::Full { .. }) => {
            shared.metrics.count(Outcome::Full);
            return again(30, "the spool is full");
        }
        Err(error) => {
            tracing::warn!(error = %logwarden_core::error::chain(&error), "a batch could not be stored");
            shared.metrics.count(Outcome::Unavailable);
            return again(10, "the state cannot be used");
        }
    }
    if lines > 0 {
        shared.metrics.lines.fetch_add(lines, Ordering::Relaxed);
        shared.source.spooled(lines);
    }
    let Some(reason) = unreadable else {
        shared.metrics.count(Outcome::Stored);
        return Answer::Accepted(lines);
    };
    shared.metrics.count(Outcome::Quarantined);
    tell(shared, shared.troubles.unreadable(&client, &reason));
    if lines > 0 || protocol != Protocol::Otlp { Answer::Accepted(lines) } else { Answer::Unreadable }
}

/// A commit whose answer is unknown is sent once more under the same id.
async fn commit_twice(shared: &Shared, commit: &Commit) -> Result<Committed, LedgerError> {
    match shared.ledger.commit(commit).await {
        Err(LedgerError::Failed { .. }) => shared.ledger.commit(commit).await,
        done => done,
    }
}

/// A conflict means that the batch is known, which is looked up all the same before the sender may forget it.
async fn repeat(shared: &Shared, batch: BatchId, lines: u64) -> Answer {
    let query = Query { batches: vec![batch], ..Query::default() };
    match shared.ledger.read(&query).await {
        Ok(snapshot) if snapshot.batches.contains(&batch) => {
            shared.metrics.count(Outcome::Repeat);
            let random = u128::from(shared.env.random()) << 64 | u128::from(shared.env.random());
            let counted =
                vec![Write::Count("push_repeats".to_owned(), 1), Write::Count("push_lines_repeated".to_owned(), lines)];
            let _ = shared.ledger.commit(&Commit { id: CommitId(random), writes: counted }).await;
            Answer::Accepted(lines)
        }
        _ => {
            shared.metrics.count(Outcome::Unavailable);
            again(2, "busy")
        }
    }
}

fn authorization(headers: &HeaderMap) -> &[u8] {
    headers.get(header::AUTHORIZATION).map_or(b"", |value| value.as_bytes())
}

/// The last header of that name: a configured one follows the shipper's own.
fn last(headers: &HeaderMap, name: &str) -> String {
    headers.get_all(name).iter().next_back().map_or_else(String::new, |value| {
        String::from_utf8_lossy(value.as_bytes()).chars().filter(|c| !c.is_control()).take(200).collect()
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    last(headers, "content-type").to_ascii_lowercase().contains("json")
}

/// What headers and the connection say about all records of a request.
fn context(headers: &HeaderMap, peer: IpAddr, client: &str) -> Context {
    let mut labels = BTreeMap::new();
    let mut set = |name: &str, value: Cow<'_, str>| {
        if !value.is_empty() {
            labels.insert(name.to_owned(), value.into_owned());
        }
    };
    // Streams of several senders are never mixed, also where nothing names their host.
    set("client", client.into());
    if !peer.is_loopback() {
        set("peer", peer.to_string().into());
    }
    let tag =
        ["x-fluent-tag", "x-tag", "fluent-tag"].into_iter().map(|name| last(headers, name)).find(|tag| !tag.is_empty());
    set("tag", tag.unwrap_or_default().into());
    set("host", last(headers, "x-syslog-host").into());
    set("service", last(headers, "x-syslog-program").into());
    let level = Level::parse(&last(headers, "x-syslog-level")).map(|level| level.as_str().to_owned());
    Context { labels, level }
}

fn reply(protocol: Protocol, json: bool, answer: &Answer) -> Reply {
    let built = |status: StatusCode, kind: &str, body: String| {
        let mut reply = Response::new(Full::new(Bytes::from(body)));
        *reply.status_mut() = status;
        if let Ok(kind) = kind.parse() {
            reply.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        reply
    };
    let otlp = if json { "application/json" } else { "application/x-protobuf" };
    match answer {
        Answer::Accepted(_) if protocol == Protocol::Loki => {
            let mut reply = Response::new(Full::default());
            *reply.status_mut() = StatusCode::NO_CONTENT;
            reply
        }
        Answer::Accepted(_) if protocol == Protocol::Otlp => {
            built(StatusCode::OK, otlp, if json { "{}".to_owned() } else { String::new() })
        }
        // `errors` is what a sender of Elasticsearch's bulk format looks for.
        Answer::Accepted(lines) => {
            built(StatusCode::OK, "application/json", format!("{{\"accepted\":{lines},\"errors\":false}}"))
        }
        Answer::Unreadable => status(otlp, json, StatusCode::BAD_REQUEST, "the body cannot be read; it was kept"),
        Answer::ComeAgain { seconds, status: code, why } => {
            let mut reply = match protocol {
                Protocol::Otlp => status(otlp, json, *code, why),
                _ => built(*code, "application/json", format!("{{\"error\":\"{why}\"}}")),
            };
            reply.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
            reply
        }
        Answer::Refused { status: code, why } => {
            let mut reply = match protocol {
                Protocol::Otlp => status(otlp, json, *code, why),
                _ => built(*code, "application/json", format!("{{\"error\":\"{why}\"}}")),
            };
            if *code == StatusCode::UNAUTHORIZED {
                let schemes = header::HeaderValue::from_static("Bearer realm=\"logwarden\", Basic realm=\"logwarden\"");
                reply.headers_mut().insert(header::WWW_AUTHENTICATE, schemes);
            }
            reply
        }
    }
}

/// OTLP's errors are a `Status` message: code (1) and message (2).
fn status(kind: &str, json: bool, code: StatusCode, why: &str) -> Reply {
    let body = if json {
        format!("{{\"code\":{},\"message\":\"{why}\"}}", 3).into_bytes()
    } else {
        let mut body = vec![0x08, 3, 0x12, why.len().min(127) as u8];
        body.extend_from_slice(&why.as_bytes()[..why.len().min(127)]);
        body
    };
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = code;
    if let Ok(kind) = kind.parse() {
        reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    reply
}

fn plain(status: StatusCode, text: impl Into<String>) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(text.into())));
    *reply.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

/// Health and numbers. Nothing of any log is in them.
async fn page(shared: &Arc<Shared>, peer: IpAddr, path: &str, headers: &HeaderMap) -> Reply {
    match path {
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" | "/ready" => {
            if shared.stopping.load(Ordering::Relaxed) {
                return plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
            }
            match shared.ledger.read(&Query::default()).await {
                Ok(_) => plain(StatusCode::OK, "ready\n"),
                Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the state cannot be used\n"),
            }
        }
        "/metrics" => {
            let known = access::authenticate(&shared.clients, authorization(headers)).is_some();
            if !known && !peer.to_canonical().is_loopback() && !shared.trusts(peer) {
                return plain(StatusCode::UNAUTHORIZED, "a credential is needed\n");
            }
            let query = Query { counters: true, spool: Some(0), ..Query::default() };
            let Ok(snapshot) = shared.ledger.read(&query).await else {
                return plain(StatusCode::SERVICE_UNAVAILABLE, "the state cannot be used\n");
            };
            let budget = kib(shared.limits.in_flight_bytes);
            let in_flight = budget.saturating_sub(shared.memory.available_permits()) * 1024;
            let gauges = [
                ("push_spool_rows", snapshot.spool_size.0),
                ("push_spool_bytes", snapshot.spool_size.1),
                ("push_in_flight_bytes", in_flight as u64),
            ];
            let mut reply = plain(StatusCode::OK, shared.metrics.page(&gauges, &snapshot.counters));
            let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            reply.headers_mut().insert(header::CONTENT_TYPE, kind);
            reply
        }
        _ => plain(StatusCode::NOT_FOUND, "not here\n"),
    }
}
