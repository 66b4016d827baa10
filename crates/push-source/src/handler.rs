//! One request: what is answered decides whether the sender keeps its lines or forgets them.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use hyper::{HeaderMap, Method, Request, StatusCode, body::Incoming, header};
use logwarden_core::{ledger::Query, templates::Level};
use tokio::{sync::mpsc, time};

use crate::{
    access,
    answer::{Answer, Reply, built, plain, reply},
    body::{Body, PIECES, Pieces, Stop},
    decode::Protocol,
    metrics::Outcome,
    receiver::Shared,
    record::Context,
    sent::Sent,
    store,
    streams::Place,
};

/// The connection is to be closed without an answer: the sender keeps its lines.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed without an answer")]
pub(crate) struct Close;

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
    let (begun, is_bulk) = (Instant::now(), path == "/_bulk");
    let json = protocol == Protocol::Otlp && is_json(request.headers());
    let answer = receive(shared, peer, protocol, request).await;
    shared.metrics.micros.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
    if matches!(answer, Answer::Close) {
        shared.metrics.count(Outcome::Slow);
        return Err(Close);
    }
    Ok(match answer {
        // rsyslog looks for a list of what failed.
        Answer::Accepted(_) if is_bulk => built(StatusCode::OK, "application/json", "{\"errors\":false,\"items\":[]}"),
        answer => reply(protocol, json, &answer),
    })
}

async fn receive(shared: &Arc<Shared>, peer: IpAddr, protocol: Protocol, request: Request<Incoming>) -> Answer {
    let (head, incoming) = request.into_parts();
    let mut body = Body::new(incoming);
    match admitted(shared, peer.to_canonical(), protocol, &head.headers, &mut body).await {
        Ok(answer) => answer,
        Err((outcome, answer)) => {
            if let Some(outcome) = outcome {
                shared.metrics.count(outcome);
            }
            body.drain().await;
            answer
        }
    }
}

/// Answers what is let in; `Err` when it was refused, and its body is still to be read.
async fn admitted(
    shared: &Arc<Shared>,
    peer: IpAddr,
    protocol: Protocol,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Answer, (Option<Outcome>, Answer)> {
    let client = match access::authenticate(&shared.clients, authorization(headers)) {
        Some(client) => client.name().to_owned(),
        None if shared.trusts(peer) => peer.to_string(),
        None => {
            time::sleep(shared.limits.refusal).await;
            return Err((Some(Outcome::Unauthorized), unknown(shared, peer, headers)));
        }
    };
    if shared.stopping.load(Ordering::Relaxed) {
        return Err((Some(Outcome::Unavailable), Answer::again(5, "shutting down")));
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > shared.limits.body_bytes) {
        return Err((None, store::too_large(shared, &client)));
    }
    if let Err(wait) = shared.rates.take(&client, [1, announced.unwrap_or(0) as u64, 0], Instant::now()) {
        let seconds = wait.as_secs_f64().ceil() as u64;
        let (status, why) = (StatusCode::TOO_MANY_REQUESTS, "this client sends too much");
        return Err((Some(Outcome::TooFast), Answer::ComeAgain { seconds, status, why }));
    }
    // Fluent Bit's OTLP output forgets a part that is answered 503.
    let patience = shared.limits.patience * if protocol == Protocol::Otlp { 2 } else { 1 };
    let overloaded = || (Some(Outcome::Overloaded), Answer::again(2, "too many bodies at once"));
    let mut received = match body.receive(shared, &client, announced, patience).await {
        Ok(received) => received,
        Err(Stop::TooLarge) => return Err((None, store::too_large(shared, &client))),
        Err(Stop::NoMemory) => return Err(overloaded()),
        Err(Stop::Slow) => return Ok(Answer::Close),
    };
    let place = match received.has_more {
        true => time::timeout(patience, shared.streams.take(&client)).await.ok().flatten(),
        false => shared.decoders.clone().acquire_owned().await.ok().map(Place::of_decoder),
    };
    let Some(place) = place else { return Err(overloaded()) };
    let sent = Arc::new(Sent {
        protocol,
        content_type: last(headers, "content-type"),
        encoding: last(headers, "content-encoding"),
        context: context(headers, peer, &client),
        client: client.clone(),
    });
    let (feeding, fed) = if received.has_more { Some(mpsc::channel(PIECES)).unzip() } else { (None, None) };
    let pieces = Pieces::new(std::mem::take(&mut received.bytes), fed);
    // In a task of its own: a sender that goes away does not stop what is half done.
    let storing = {
        let shared = shared.clone();
        tokio::spawn(async move {
            let answer = store::store(&shared, sent, pieces).await;
            drop((received, place));
            answer
        })
    };
    if let Some(feeding) = feeding {
        // When it ends early, the decoder notices, and says so.
        let _ = body.feed(shared, feeding).await;
    }
    let answer = storing.await.unwrap_or_else(|_| Answer::again(5, "internal error"));
    shared.metrics.bytes.fetch_add(body.bytes() as u64, Ordering::Relaxed);
    if announced.is_none() {
        shared.rates.charge(&client, [0, body.bytes() as u64, 0], Instant::now());
    }
    match answer {
        // Also found while it was decoded.
        Answer::Refused { .. } => Err((None, answer)),
        _ => Ok(answer),
    }
}

/// Somebody without a credential that we know.
fn unknown(shared: &Shared, peer: IpAddr, headers: &HeaderMap) -> Answer {
    let (known, why) = match headers.contains_key(header::AUTHORIZATION) {
        true => ("a wrong", "the credential is wrong"),
        false => ("no", "a credential is needed: Authorization: Bearer TOKEN"),
    };
    let reason = format!("it sends {known} credential, so its lines are refused; most shippers then drop them");
    shared.tell(shared.troubles.lost("credential", &peer.to_string(), &reason));
    Answer::Refused { status: StatusCode::UNAUTHORIZED, why }
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

/// Health and numbers. Nothing of any log is in them.
async fn page(shared: &Arc<Shared>, peer: IpAddr, path: &str, headers: &HeaderMap) -> Reply {
    match path {
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" | "/ready" => {
            if shared.stopping.load(Ordering::Relaxed) {
                return plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
            }
            match store::is_possible(shared).await {
                true => plain(StatusCode::OK, "ready\n"),
                false => plain(StatusCode::SERVICE_UNAVAILABLE, "the state cannot be used\n"),
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
            let gauges = [
                ("push_spool_rows", snapshot.spool_size.0),
                ("push_spool_bytes", snapshot.spool_size.1),
                ("push_in_flight_bytes", shared.memory.held()),
            ];
            let mut reply = plain(StatusCode::OK, shared.metrics.page(&gauges, &snapshot.counters));
            let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            reply.headers_mut().insert(header::CONTENT_TYPE, kind);
            reply
        }
        _ => plain(StatusCode::NOT_FOUND, "not here\n"),
    }
}
