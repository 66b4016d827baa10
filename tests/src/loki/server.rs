//! The HTTP side of the fake.

use std::{
    io,
    io::{Read as _, Write as _},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, connect_info::Connected},
    http::{HeaderMap, Response, StatusCode},
    serve::IncomingStream,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

use super::{
    Fault, MAX_REQUESTS, Request, State,
    logql::{self, Count, LogQuery},
    store::{Entry, Labels, between},
};

type Shared = Arc<Mutex<State>>;
type Answer = Result<Value, (u16, String)>;

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, state: Shared) {
    let app = Router::new().fallback(move |ConnectInfo(connection): ConnectInfo<Connection>, request| {
        handle(state.clone(), connection, request)
    });
    let _ = axum::serve(CuttableListener(listener), app.into_make_service_with_connect_info::<Connection>()).await;
}

/// A request that is under way until it is dropped.
struct UnderWay(Shared);

impl UnderWay {
    fn new(state: Shared) -> Self {
        let mut locked = state.lock().unwrap_or_else(PoisonError::into_inner);
        locked.under_way += 1;
        locked.most_at_once = locked.most_at_once.max(locked.under_way);
        drop(locked);
        Self(state)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).under_way -= 1;
    }
}

async fn handle(state: Shared, connection: Connection, request: axum::extract::Request) -> Response<Body> {
    let _under_way = UnderWay::new(state.clone());
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 100 << 20).await.unwrap_or_default();
    let path = parts.uri.path();
    let path = path.find("/loki/api/v1/").map_or(path, |at| &path[at..]).to_owned();
    let mut params = form(parts.uri.query().unwrap_or("").as_bytes());
    let is_form = header(&parts.headers, "content-type").is_some_and(|t| t.contains("x-www-form-urlencoded"));
    if is_form {
        params.extend(form(&body));
    }
    let headers =
        parts.headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.into())));
    let request = Request { path, params, headers: headers.collect() };

    let fault = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.requests.len() < MAX_REQUESTS {
            state.requests.push(request.clone());
        }
        fault(&mut state, &request)
    };
    let answer = |fault: &Fault| {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match fault {
            Fault::Status(status, text) => Err((*status, text.clone())),
            Fault::Garbage(text) => Ok(Value::String(text.clone())),
            _ => respond(&mut state, &request, &parts.headers, &body),
        };
        let oversize = state.faults.oversize.clone();
        (answer, state.faults.page_bytes, oversize)
    };
    let (answer, page_bytes, oversize) = answer(&fault);
    let (status, content_type, text) = match (&fault, answer) {
        (Fault::Garbage(text), _) => (200, "text/html", text.clone()),
        (_, Ok(Value::Null)) => (204, "text/plain; charset=utf-8", String::new()),
        (_, Ok(Value::String(text))) => (200, "text/plain; charset=utf-8", text),
        (_, Ok(value)) => (200, "application/json; charset=UTF-8", value.to_string()),
        (_, Err((status, text))) if text.starts_with('{') => (status, "application/json; charset=utf-8", text),
        (_, Err((status, text))) => (status, "text/plain; charset=utf-8", text),
    };
    let fault = if request.path.ends_with("/query_range") && text.len() > page_bytes { oversize } else { fault };
    match fault {
        Fault::Hang => std::future::pending::<()>().await,
        Fault::Delay(time) => tokio::time::sleep(time).await,
        Fault::Cut => connection.0.store(true, Ordering::SeqCst),
        Fault::CutBody => {
            let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
            // The first half has to leave before the connection breaks.
            let rest = futures::stream::once(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::Error::from(io::ErrorKind::ConnectionReset))
            });
            let half = futures::stream::iter([Ok(half)]);
            return Response::new(Body::from_stream(futures::StreamExt::chain(half, rest)));
        }
        Fault::Endless => {
            let head =
                Bytes::from_static(b"{\"status\":\"success\",\"data\":{\"resultType\":\"streams\",\"result\":[\"");
            let filler = Bytes::from(vec![b'x'; 64 << 10]);
            let rest = futures::stream::repeat_with(move || Ok::<_, io::Error>(filler.clone()));
            let head = futures::stream::iter([Ok(head)]);
            return Response::new(Body::from_stream(futures::StreamExt::chain(head, rest)));
        }
        Fault::Status(504, text) => return plain(504, "text/plain; charset=utf-8", text.into()),
        Fault::None | Fault::Status(..) | Fault::Garbage(_) => {}
    }
    if header(&parts.headers, "accept-encoding").is_some_and(|encodings| encodings.contains("gzip")) {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        if encoder.write_all(text.as_bytes()).is_ok()
            && let Ok(body) = encoder.finish()
        {
            let mut response = plain(status, content_type, body);
            response.headers_mut().insert("content-encoding", axum::http::HeaderValue::from_static("gzip"));
            return response;
        }
    }
    plain(status, content_type, text.into_bytes())
}

fn plain(status: u16, content_type: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", axum::http::HeaderValue::from_static(content_type));
    response
}

fn form(bytes: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(bytes).into_owned().collect()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What goes wrong with this request.
fn fault(state: &mut State, request: &Request) -> Fault {
    let query = request.param("query").unwrap_or("");
    if let Some((_, fault)) = state.faults.always.iter().find(|(text, _)| query.contains(text.as_str())) {
        return fault.clone();
    }
    if !request.path.ends_with("/query_range") {
        return Fault::None;
    }
    let begins = request.param("start").and_then(|start| start.parse::<i64>().ok());
    if let Some((_, fault)) =
        state.faults.from.as_ref().filter(|(from, _)| begins.is_some_and(|begins| begins >= *from))
    {
        return fault.clone();
    }
    if let Some(fault) = state.faults.next.pop_front() {
        return fault;
    }
    let chaos = state.faults.chaos;
    match chaos {
        Some(one_in) if state.random().is_multiple_of(one_in.max(1)) => match state.random() % 7 {
            0 => Fault::Cut,
            1 => Fault::CutBody,
            2 => Fault::Status(500, "rpc error: code = Unavailable desc = transport is closing".into()),
            3 => Fault::Status(503, "Service Unavailable".into()),
            4 => Fault::Garbage("<html><title>502 Bad Gateway</title></html>".into()),
            5 => Fault::Status(429, "too many outstanding requests".into()),
            _ => Fault::Status(504, TIMED_OUT.into()),
        },
        _ => Fault::None,
    }
}

const TIMED_OUT: &str = "request timed out, decrease the duration of the request or add more label matchers (prefer exact \
                         match over regex match) to reduce the amount of data processed";

fn respond(state: &mut State, request: &Request, headers: &HeaderMap, body: &[u8]) -> Answer {
    if state.faults.authorization.is_some() && state.faults.authorization.as_deref() != header(headers, "authorization")
    {
        return Err((401, "<html><head><title>401 Authorization Required</title></head></html>".into()));
    }
    let Some(endpoint) = request.path.strip_prefix("/loki/api/v1/") else {
        return match request.path.as_str() {
            path if path.ends_with("/ready") && state.faults.starting => {
                Err((503, "Ingester not ready: waiting for 15s after being ready\n".into()))
            }
            path if path.ends_with("/ready") => Ok(Value::String("ready\n".into())),
            _ => Err((404, "404 page not found\n".into())),
        };
    };
    match endpoint {
        "status/buildinfo" => {
            return Ok(json!({"version": "3.8.0", "revision": "fake", "branch": "main", "goVersion": "go1.27.3"}));
        }
        "format_query" => {
            let query = request.param("query").unwrap_or("");
            let checked = logql::parse_count(query).map_or_else(|| logql::parse(query).map(drop), |c| c.map(drop));
            return checked
                .map(|()| json!({"status": "success", "data": query}))
                .map_err(|error| (400, json!({"status": "invalid-query", "error": error}).to_string()));
        }
        _ => {}
    }
    let tenants = tenants(state, headers)?;
    match endpoint {
        "query_range" => query_range(state, request, &tenants),
        "query" => instant(state, request, &tenants),
        "series" => series(state, request, &tenants),
        "labels" => {
            let mut names: Vec<&String> =
                tenants.iter().flat_map(|t| state.store.streams(t)).flat_map(|(labels, _)| labels.keys()).collect();
            names.sort();
            names.dedup();
            Ok(if names.is_empty() {
                json!({"status": "success"})
            } else {
                json!({"status": "success", "data": names})
            })
        }
        "push" if tenants.len() > 1 => Err((400, "multiple org IDs present\n".into())),
        "push" => push(state, headers, body, &tenants[0]),
        _ => Err((404, "404 page not found\n".into())),
    }
}

fn tenants(state: &State, headers: &HeaderMap) -> Result<Vec<String>, (u16, String)> {
    if !state.faults.auth_enabled {
        return Ok(vec!["fake".into()]);
    }
    let header = header(headers, "x-scope-orgid").unwrap_or("");
    if header.is_empty() {
        return Err((401, "no org id\n".into()));
    }
    let tenants: Vec<String> = header.split('|').map(str::to_owned).collect();
    for tenant in &tenants {
        if let Some(bad) = tenant.chars().find(|c| !(c.is_ascii_alphanumeric() || "!-_.*'()".contains(*c))) {
            return Err((400, format!("tenant ID '{tenant}' contains unsupported character '{bad}'")));
        }
    }
    if tenants.len() > 1 && !state.faults.multi_tenant {
        return Err((500, "multiple org IDs present".into()));
    }
    Ok(tenants)
}

/// Parses a time as Loki does: more than ten digits are nanoseconds.
fn time(text: &str) -> Result<i64, (u16, String)> {
    let bad =
        || (400, format!("could not parse 'start' parameter: strconv.ParseInt: parsing {text:?}: invalid syntax"));
    let number: i64 = text.parse().map_err(|_| bad())?;
    Ok(if text.len() <= 10 { number.saturating_mul(1_000_000_000) } else { number })
}

struct Window {
    start: i64,
    end: i64,
}

fn window(state: &State, request: &Request) -> Result<Window, (u16, String)> {
    let end = request.param("end").map_or_else(|| Ok(state.now()), time)?;
    let start = request.param("start").map_or(Ok(end - 3_600_000_000_000), time)?;
    if end < start {
        return Err((400, "end timestamp must not be before or equal to start time".into()));
    }
    let limit = state.faults.max_query_length;
    if u128::try_from(end - start).unwrap_or(0) > limit.as_nanos() {
        let length = Duration::from_nanos(u64::try_from(end - start).unwrap_or(0));
        let text = format!("the query time range exceeds the limit (query length: {length:?}, limit: {limit:?})");
        return Err((400, text));
    }
    let oldest = state.faults.lookback.map(|by| state.now() - i64::try_from(by.as_nanos()).unwrap_or(i64::MAX));
    Ok(Window { start: start.max(oldest.unwrap_or(i64::MIN)), end })
}

/// The matches of a query: stream labels (with the tenant where there are several) and entries, per stream.
fn matches<'a>(
    state: &'a State,
    tenants: &[String],
    query: &LogQuery,
    window: &Window,
) -> Vec<(Labels, Vec<&'a Entry>)> {
    let mut found = Vec::new();
    for tenant in tenants {
        for (labels, entries) in state.store.streams(tenant).filter(|(labels, _)| query.selects(labels)) {
            let entries: Vec<&Entry> =
                between(entries, window.start, window.end).iter().filter(|entry| query.keeps(entry)).collect();
            if !entries.is_empty() {
                let mut labels = query.labels(labels);
                if tenants.len() > 1 {
                    labels.insert("__tenant_id__".into(), tenant.clone());
                }
                found.push((labels, entries));
            }
        }
    }
    found
}

fn query_range(state: &mut State, request: &Request, tenants: &[String]) -> Answer {
    let text = request.param("query").unwrap_or("");
    if let Some(count) = logql::parse_count(text) {
        let count = count.map_err(|error| (400, error))?;
        return matrix(state, request, tenants, &count);
    }
    let limit = request.param("limit").unwrap_or("100");
    let limit: usize = limit.parse().map_err(|_| (400, format!("strconv.Atoi: parsing {limit:?}: invalid syntax")))?;
    let backward = match request.param("direction").unwrap_or("backward").to_ascii_lowercase().as_str() {
        "forward" => false,
        "backward" => true,
        other => return Err((400, format!("invalid direction '{other}'"))),
    };
    if limit == 0 {
        return Err((400, "limit must be a positive value".into()));
    }
    let max = state.faults.max_entries;
    if limit > max {
        let text =
            format!("max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {max})");
        return Err((400, text));
    }
    let query = logql::parse(text).map_err(|error| (400, error))?;
    let window = window(state, request)?;

    let key = (text.to_owned(), tenants.join("|"), window.start, window.end);
    let no_cache = request.header("cache-control").is_some_and(|value| value.contains("no-cache"));
    if state.faults.cache && query.filtered && !no_cache && state.cached.contains(&key) {
        return Ok(streams(state, request, Vec::new(), 0, 0));
    }
    let shards = state.faults.shards;
    let order: Vec<u64> = (0..shards.unwrap_or(1)).map(|_| state.random()).collect();
    let found = matches(state, tenants, &query, &window);
    let total: usize = found.iter().map(|(_, entries)| entries.len()).sum();
    let page = page(found, limit, backward, &order);
    let rows = page.into_iter().map(|(labels, entry)| {
        (labels, entry.time, query.line(entry).to_owned(), entry.metadata.clone(), query.parsed(entry))
    });
    let mut seen = std::collections::HashSet::new();
    let rows: Vec<Row> = rows.filter(|row| query_is_plain(&query) || seen.insert(format!("{row:?}"))).collect();
    if rows.is_empty() && state.faults.cache && query.filtered {
        state.cached.push(key);
    }
    Ok(streams(state, request, rows, total, shards.unwrap_or(1)))
}

fn query_is_plain(query: &LogQuery) -> bool {
    let probe = Entry { time: 0, text: "\u{1}".into(), metadata: Labels::new() };
    query.line(&probe) == "\u{1}"
}

type Row = (Labels, i64, String, Labels, Labels);

/// Cuts a page as the query front end does: with several shards, whose answers come in any order, an answer that does not
/// fit whole loses what is later than the last entry so far, although there is room, and what arrives afterwards fills it.
fn page<'a>(
    found: Vec<(Labels, Vec<&'a Entry>)>,
    limit: usize,
    backward: bool,
    order: &[u64],
) -> Vec<(Labels, &'a Entry)> {
    let key = |entry: &Entry| if backward { entry.time.saturating_neg() } else { entry.time };
    let mut shards: Vec<Vec<(Labels, &Entry)>> = vec![Vec::new(); order.len().max(1)];
    for (i, (labels, entries)) in found.into_iter().enumerate() {
        let at = i % shards.len();
        let shard = &mut shards[at];
        let entries: Vec<&Entry> = if backward { entries.into_iter().rev().collect() } else { entries };
        shard.extend(entries.into_iter().map(|entry| (labels.clone(), entry)));
    }
    let mut by_arrival: Vec<usize> = (0..shards.len()).collect();
    by_arrival.sort_by_key(|i| order.get(*i).copied().unwrap_or(0));
    let mut page: Vec<(Labels, &Entry)> = Vec::new();
    let mut thrown_away = false;
    for i in by_arrival {
        let mut answer = std::mem::take(&mut shards[i]);
        answer.sort_by_key(|(_, entry)| key(entry));
        answer.truncate(limit);
        if !thrown_away
            && page.len() + answer.len() > limit
            && let Some(last) = page.iter().map(|(_, entry)| key(entry)).max()
        {
            answer.retain(|(_, entry)| key(entry) <= last);
            thrown_away = true;
        }
        page.extend(answer);
        page.sort_by_key(|(_, entry)| key(entry));
        page.truncate(limit);
    }
    page
}

fn streams(state: &State, request: &Request, rows: Vec<Row>, total: usize, shards: usize) -> Value {
    let flags = request.header("x-loki-response-encoding-flags").filter(|_| !state.faults.no_categories);
    let categorize = flags.is_some_and(|flags| flags.contains("categorize-labels"));
    let returned = rows.len();
    let mut result: Vec<(Labels, Vec<Value>)> = Vec::new();
    for (mut labels, time, line, metadata, parsed) in rows {
        let mut value = vec![json!(time.to_string()), json!(line)];
        if categorize {
            let mut extra = serde_json::Map::new();
            for (name, labels) in [("structuredMetadata", metadata), ("parsed", parsed)] {
                if !labels.is_empty() {
                    extra.insert(name.into(), json!(labels));
                }
            }
            value.push(Value::Object(extra));
        } else {
            labels.extend(metadata);
            labels.extend(parsed);
        }
        match result.iter_mut().find(|(known, _)| *known == labels) {
            Some((_, values)) => values.push(Value::Array(value)),
            None => result.push((labels, vec![Value::Array(value)])),
        }
    }
    let result: Vec<Value> = result.into_iter().map(|(l, values)| json!({"stream": l, "values": values})).collect();
    let mut data = json!({"resultType": "streams", "result": result});
    if let Some(flags) = flags {
        data["encodingFlags"] = json!([flags]);
    }
    add_stats(state, &mut data, returned, total, shards);
    json!({"status": "success", "data": data})
}

fn add_stats(state: &State, data: &mut Value, returned: usize, total: usize, shards: usize) {
    if !state.faults.no_stats {
        data["stats"] = json!({"summary": {
            "totalEntriesReturned": returned, "splits": 0, "shards": shards, "totalPostFilterLines": total,
        }});
    }
}

fn matrix(state: &State, request: &Request, tenants: &[String], count: &Count) -> Answer {
    let asked = window(state, request)?;
    let step = request.param("step").unwrap_or("60s");
    let step = logql::duration(step).or_else(|| step.parse::<i64>().ok()?.checked_mul(1_000_000_000));
    let step = step.filter(|step| *step > 0).ok_or((400, "zero or negative query resolution step".to_owned()))?;
    if (asked.end - asked.start) / step > 11_000 {
        let text = "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the \
                    step parameter";
        return Err((400, text.into()));
    }
    let mut values = Vec::new();
    // Loki aligns the samples to the step.
    let mut at = asked.start.div_euclid(step) * step;
    at += if at < asked.start { step } else { 0 };
    while at <= asked.end {
        let n = counted(state, tenants, count, at);
        if n > 0 {
            values.push(json!([at / 1_000_000_000, n.to_string()]));
        }
        at += step;
    }
    let metric = if count.summed { json!({}) } else { json!({"job": "many"}) };
    let result = if values.is_empty() { json!([]) } else { json!([{"metric": metric, "values": values}]) };
    let mut data = json!({"resultType": "matrix", "result": result});
    add_stats(state, &mut data, 1, 0, 1);
    Ok(json!({"status": "success", "data": data}))
}

/// A sample at `at` counts `(at - range, at]`.
fn counted(state: &State, tenants: &[String], count: &Count, at: i64) -> usize {
    let oldest = state.faults.lookback.map(|by| state.now() - i64::try_from(by.as_nanos()).unwrap_or(i64::MAX));
    let window = Window { start: (at - count.range + 1).max(oldest.unwrap_or(i64::MIN)), end: at + 1 };
    matches(state, tenants, &count.query, &window).iter().map(|(_, entries)| entries.len()).sum()
}

fn instant(state: &State, request: &Request, tenants: &[String]) -> Answer {
    let text = request.param("query").unwrap_or("");
    let Some(count) = logql::parse_count(text) else {
        let text = "log queries are not supported as an instant query type, please change your query to a range query \
                    type";
        return Err((400, text.into()));
    };
    let count = count.map_err(|error| (400, error))?;
    let at = request.param("time").map_or_else(|| Ok(state.now()), time)?;
    let n = counted(state, tenants, &count, at);
    let seconds = at / 1_000_000_000;
    let result = if n > 0 { json!([{"metric": {}, "value": [seconds, n.to_string()]}]) } else { json!([]) };
    let mut data = json!({"resultType": "vector", "result": result});
    add_stats(state, &mut data, 1, n, 1);
    Ok(json!({"status": "success", "data": data}))
}

fn series(state: &State, request: &Request, tenants: &[String]) -> Answer {
    let window = window(state, request)?;
    let mut found = Vec::new();
    for (_, selector) in request.params.iter().filter(|(name, _)| name == "match[]" || name == "match") {
        let query = logql::parse(selector).map_err(|error| (400, error))?;
        found.extend(matches(state, tenants, &query, &window).into_iter().map(|(labels, _)| json!(labels)));
    }
    Ok(json!({"status": "success", "data": found}))
}

fn push(state: &mut State, headers: &HeaderMap, body: &[u8], tenant: &str) -> Answer {
    let bad = |text: &str| (400, format!("{text}\n"));
    match header(headers, "content-type") {
        None => return Err(bad("mime: no media type")),
        Some(kind) if kind.starts_with("application/json") => {}
        Some(_) => return Err(bad("snappy: corrupt input")),
    }
    let mut plain = Vec::new();
    let body = match header(headers, "content-encoding") {
        None => body,
        Some("gzip") => {
            let mut decoder = flate2::read::GzDecoder::new(body).take(100 << 20);
            decoder.read_to_end(&mut plain).map_err(|_| bad("gzip: invalid header"))?;
            &plain
        }
        Some(other) => return Err(bad(&format!("Content-Encoding {other:?} not supported"))),
    };
    let request: Value = serde_json::from_slice(body).map_err(|error| bad(&format!("loghttp.PushRequest: {error}")))?;
    let labels = |value: Option<&Value>| {
        let pairs = value.and_then(Value::as_object).into_iter().flatten();
        pairs.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect::<Labels>()
    };
    let streams = request["streams"].as_array().filter(|streams| !streams.is_empty());
    let streams = streams.ok_or((422, "error at least one valid stream is required for ingestion\n".to_owned()))?;
    let now = state.now();
    let mut refused = None;
    for stream in streams {
        for value in stream["values"].as_array().into_iter().flatten() {
            let time = value[0].as_str().and_then(|text| text.parse::<i64>().ok());
            let (Some(time), Some(line)) = (time, value[1].as_str()) else {
                return Err(bad("loghttp.PushRequest.Streams: []loghttp.LogProtoStream: Value looks like Number"));
            };
            if time > now.saturating_add(600_000_000_000) {
                refused = Some(bad("entry for stream has timestamp too new"));
            } else if time < now.saturating_sub(7 * 86_400_000_000_000) {
                refused = Some(bad("entry for stream has timestamp too old"));
            } else {
                state.store.insert(tenant, labels(stream.get("stream")), time, line.to_owned(), labels(value.get(2)));
            }
        }
    }
    refused.map_or(Ok(Value::Null), Err)
}

/// Says that a connection ends now, without another byte.
#[derive(Clone, Debug)]
struct Connection(Arc<AtomicBool>);

struct CuttableListener(TcpListener);

struct Cuttable {
    stream: TcpStream,
    cut: Arc<AtomicBool>,
}

impl axum::serve::Listener for CuttableListener {
    type Io = Cuttable;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Cuttable, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        (Cuttable { stream, cut: Arc::default() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        Self(stream.io().cut.clone())
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
