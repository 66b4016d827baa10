//! From a body to lines: what a body is, is recognised by looking at it; its header only breaks ties.
//!
//! A body is read once, from its beginning to its end, with one record in memory at a time.

use logwarden_core::templates::Clock;

use crate::{
    batch::Batch,
    json::{self, Next},
    loki, msgpack, otlp, record,
    record::Context,
    value::Value,
    window::{self, KEEP, MAX_PIECE, Window},
    wire::Broken,
};

/// How much of an unreadable body is kept in all.
const KEEP_ALL: usize = 1 << 20;
/// So many pieces of a body may be unreadable; then the rest of it is one piece.
const MAX_PIECES: usize = 100;

/// What the path says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// Fluent Bit's http output, and whatever else posts records.
    Records,
    /// Loki's push API.
    Loki,
    /// OTLP/HTTP logs.
    Otlp,
    /// Lines of text, whatever they look like.
    Text,
}

/// A body turned into lines.
#[derive(Debug)]
pub(crate) struct Decoded<'s> {
    /// The lines.
    pub(crate) batch: Batch<'s>,
    /// What could not be read.
    pub(crate) bad: Vec<Unread>,
}

/// A body that could not be read, or a piece of one.
#[derive(Debug)]
pub(crate) struct Unread {
    /// The bytes, or their beginning.
    pub(crate) body: Vec<u8>,
    /// How many there were.
    pub(crate) bytes: u64,
    /// Why.
    pub(crate) reason: String,
    /// Whether it is still compressed, if it was.
    pub(crate) is_packed: bool,
}

/// Decodes a body whose compression is off. Whether the window then has a failure is for the caller to see.
pub(crate) fn decode<'s>(
    protocol: Protocol,
    content_type: &str,
    window: &mut Window<'_>,
    context: &Context,
    batch: Batch<'s>,
) -> Decoded<'s> {
    let mut decoded = Decoded { batch, bad: Vec::new() };
    let content_type = content_type.to_ascii_lowercase();
    let is_json = content_type.contains("json");
    window.ensure(1024);
    let first = first_byte(window.rest());
    let looks_like_json = matches!(first, Some(b'{' | b'['));
    match protocol {
        _ if first.is_none() && window.is_whole() => {}
        Protocol::Text => lines_of_text(window, context, &mut decoded),
        // A protobuf message that begins with the byte of `{` or `[` has another field first, and is none of these.
        Protocol::Loki | Protocol::Otlp if !looks_like_json => protobuf(protocol, window, context, &mut decoded),
        Protocol::Loki | Protocol::Otlp => document(protocol, window, context, &mut decoded),
        Protocol::Records if content_type.contains("protobuf") => {
            protobuf(Protocol::Otlp, window, context, &mut decoded);
        }
        Protocol::Records
            if content_type.contains("msgpack") || matches!(window.rest().first(), Some(0x92 | 0xdc | 0xdd)) =>
        {
            messages(window, context, &mut decoded);
        }
        // Loki's and OTLP's bodies at a general path.
        Protocol::Records if begins_with_key(window.rest(), &["streams"]) => {
            document(Protocol::Loki, window, context, &mut decoded);
        }
        Protocol::Records if begins_with_key(window.rest(), &["resourceLogs", "resource_logs"]) => {
            document(Protocol::Otlp, window, context, &mut decoded);
        }
        Protocol::Records if looks_like_json => records(window, context, is_json, &mut decoded),
        Protocol::Records if is_json => {
            decoded.refuse_rest(window, "it is announced as JSON and is none".to_owned());
        }
        Protocol::Records => text(window, context, &mut decoded),
    }
    if decoded.batch.too_many > 0 && window.failure.is_none() {
        let most = decoded.batch.lines;
        decoded.refuse_rest(window, format!("it has more than {most} records; the rest was left out"));
    }
    decoded
}

/// The first byte that is no blank and no byte order mark.
fn first_byte(body: &[u8]) -> Option<u8> {
    body.iter().copied().find(|b| !b.is_ascii_whitespace() && !b"\xef\xbb\xbf".contains(b))
}

/// Whether a body is an object whose first key is one of these.
fn begins_with_key(body: &[u8], keys: &[&str]) -> bool {
    let Some(rest) = body.trim_ascii_start().strip_prefix(b"{") else { return false };
    let Some(rest) = rest.trim_ascii_start().strip_prefix(b"\"") else { return false };
    keys.iter().any(|key| rest.strip_prefix(key.as_bytes()).is_some_and(|rest| rest.starts_with(b"\"")))
}

impl Decoded<'_> {
    fn refuse(&mut self, piece: &[u8], bytes: u64, reason: String) {
        let kept: usize = self.bad.iter().map(|unread| unread.body.len()).sum();
        let room = KEEP.min(KEEP_ALL.saturating_sub(kept));
        let body = piece[..piece.len().min(room)].to_vec();
        self.bad.push(Unread { body, bytes, reason, is_packed: false });
    }

    /// Refuses all that is left.
    fn refuse_rest(&mut self, window: &mut Window<'_>, reason: String) {
        let (piece, bytes) = skip_until(window, 0, |_| None);
        if bytes > 0 {
            self.refuse(&piece, bytes, reason);
        }
    }
}

/// Skips until where `end` finds the end in what comes next, or to the end of the body: what was skipped, as far as it is
/// kept, and how much it was. Does not look before `from`.
fn skip_until(window: &mut Window<'_>, from: usize, mut end: impl FnMut(&[u8]) -> Option<usize>) -> (Vec<u8>, u64) {
    let (mut kept, mut bytes, mut from) = (Vec::new(), 0_u64, from);
    loop {
        let rest = window.rest();
        let from_here = from.min(rest.len());
        let found = end(&rest[from_here..]);
        let used = found.map_or(rest.len(), |n| from_here + n);
        kept.extend_from_slice(&rest[..used.min(KEEP - kept.len().min(KEEP))]);
        bytes += used as u64;
        window.skip(used);
        if found.is_some() || !window.more() {
            return (kept, bytes);
        }
        from -= from_here;
    }
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes).map(|at| at + 1)
}

fn records(window: &mut Window<'_>, context: &Context, is_json: bool, decoded: &mut Decoded<'_>) {
    if !is_json && !begins_with_record(window) {
        return text(window, context, decoded);
    }
    window.make_text();
    let (mut in_array, mut others) = (false, 0_u64);
    loop {
        let Some(first) = window.rest().first().copied() else {
            match window.more() {
                true => continue,
                false => break,
            }
        };
        match first {
            // Commas between objects come from senders that join records themselves.
            b' ' | b'\t' | b'\r' | b'\n' | 0x0c | b',' | b']' | 0x1e => {
                window.skip(1);
                continue;
            }
            b'[' if !in_array => {
                in_array = true;
                window.skip(1);
                continue;
            }
            0xef if window.rest().starts_with(b"\xef\xbb\xbf") => {
                window.skip(3);
                continue;
            }
            _ => {}
        }
        let (used, goes_on) = match json::next(window.rest(), window.is_whole()) {
            Next::Value(mut value, used) => {
                if window.is_repaired {
                    json::restore(&mut value);
                }
                (used, take(value, context, decoded, &mut others))
            }
            Next::Odd(used) => {
                let text = window::restore(&window.rest()[..used]);
                (used, line(text.as_deref().unwrap_or(&window.rest()[..used]), context, &mut decoded.batch))
            }
            Next::Unfinished if window.rest().len() < MAX_PIECE => {
                window.more();
                continue;
            }
            Next::Unfinished => {
                let mut extent = json::Extent::default();
                let (head, bytes) = skip_until(window, 0, |bytes| extent.end(bytes));
                (0, decoded.batch.push_cut(&context.labels, &head, bytes))
            }
            Next::Bad(reason, at) => {
                let last = decoded.bad.len() + 1 >= MAX_PIECES;
                let (piece, bytes) = skip_until(window, at, |bytes| if last { None } else { line_end(bytes) });
                decoded.refuse(&piece, bytes, format!("it is not JSON: {reason}"));
                (0, true)
            }
        };
        if !goes_on {
            return;
        }
        window.skip(used);
    }
    if others > 0 {
        decoded.refuse(b"", 0, format!("{others} values in it are no records"));
    }
}

/// Whether a body that looks like JSON has a record at its beginning; a line of text may begin with a bracket, too.
fn begins_with_record(window: &mut Window<'_>) -> bool {
    let skipped = window.rest().iter().take_while(|b| !matches!(b, b'{' | b'[')).count();
    let rest = &window.rest()[skipped..];
    let rest = match rest.strip_prefix(b"[") {
        None => rest,
        Some(list) => match first_byte(list) {
            Some(b'{') => list.trim_ascii_start(),
            Some(b'"' | b']') => return true,
            _ => return false,
        },
    };
    // Bytes that are no UTF-8 are dealt with later.
    !matches!(json::next(rest, window.is_whole()), Next::Bad(_, at) if rest[..at].is_ascii())
}

/// Adds a record; what is neither a record nor text is counted.
fn take(value: Value<'_>, context: &Context, decoded: &mut Decoded<'_>, others: &mut u64) -> bool {
    if is_action(&value) {
        return true;
    }
    if matches!(value, Value::Null | Value::List(_)) {
        *others += 1;
        return true;
    }
    record::take(value, None, None, context, &mut decoded.batch)
}

/// The action lines of Elasticsearch's bulk format, which rsyslog writes.
fn is_action(value: &Value<'_>) -> bool {
    let Value::Map(pairs) = value else { return false };
    matches!(pairs.as_slice(), [(key, Value::Map(inner))]
        if matches!(&**key, b"index" | b"create") && inner.iter().all(|(key, _)| key.starts_with(b"_")))
}

fn document(protocol: Protocol, window: &mut Window<'_>, context: &Context, decoded: &mut Decoded<'_>) {
    if window.is_whole() && window.rest().trim_ascii() == b"{}" {
        return;
    }
    window.make_text();
    // Kept to be looked at, should it be unreadable.
    let beginning = window.rest()[..window.rest().len().min(KEEP)].to_vec();
    let result = match protocol {
        Protocol::Loki => loki::json(window, context, &mut decoded.batch),
        _ => otlp::json(window, context, &mut decoded.batch),
    };
    if let Err(reason) = result
        && window.failure.is_none()
        && decoded.batch.too_many == 0
        && !decoded.batch.has_failed
    {
        window.finish();
        let bytes = window.position().max(beginning.len() as u64);
        decoded.refuse(&beginning, bytes, format!("it is not JSON as it should be: {reason}"));
    }
}

fn protobuf(protocol: Protocol, window: &mut Window<'_>, context: &Context, decoded: &mut Decoded<'_>) {
    let beginning = window.rest()[..window.rest().len().min(KEEP)].to_vec();
    let result = match protocol {
        Protocol::Loki => loki::protobuf(window, context, &mut decoded.batch),
        _ => otlp::protobuf(window, context, &mut decoded.batch),
    };
    if let Err(Broken) = result
        && window.failure.is_none()
    {
        window.finish();
        decoded.refuse(&beginning, window.position(), "it is not protobuf".to_owned());
    }
}

/// Seconds that mark the beginning and the end of a group of records with a common resource.
const GROUP_START: i128 = 0xffff_ffff;
const GROUP_END: i128 = 0xffff_fffe;

/// MessagePack: records one after another, `[[time, metadata], record]` or `[time, record]`.
fn messages(window: &mut Window<'_>, context: &Context, decoded: &mut Decoded<'_>) {
    let mut resource: Option<Value<'static>> = None;
    let mut odd = 0_u64;
    loop {
        let mut reader = msgpack::Reader::new(window.rest());
        let value = match reader.next() {
            Some(Ok(value)) => value,
            None | Some(Err(msgpack::ENDS)) if window.rest().len() < MAX_PIECE => {
                if window.more() {
                    continue;
                }
                if !window.rest().is_empty() && window.failure.is_none() {
                    decoded.refuse_rest(window, format!("it is not MessagePack: {}", msgpack::ENDS));
                }
                break;
            }
            None | Some(Err(msgpack::ENDS)) => {
                let (mut head, begun) = (window.rest()[..window.rest().len().min(KEEP)].to_vec(), window.position());
                let is_whole = msgpack::skip(window);
                let skipped = window.position() - begun;
                // Its last bytes may be no whole value, and are set aside below.
                head.truncate(usize::try_from(skipped).unwrap_or(usize::MAX));
                if skipped > 0 && !decoded.batch.push_cut(&context.labels, &head, skipped) {
                    return;
                }
                if !is_whole {
                    decoded.refuse_rest(window, "it is not MessagePack: it breaks off in a long record".to_owned());
                    return;
                }
                continue;
            }
            Some(Err(reason)) => {
                decoded.refuse_rest(window, format!("it is not MessagePack: {reason}"));
                break;
            }
        };
        let used = reader.at();
        decoded.batch.cut += u64::from(reader.is_cut());
        let goes_on = match message(value) {
            None => {
                odd += 1;
                true
            }
            Some((Value::Time(nanos), record)) if nanos / 1_000_000_000 == GROUP_START => {
                resource = record.at(&["resource", "attributes"]).cloned().map(Value::into_owned);
                true
            }
            Some((Value::Time(nanos), _)) if nanos / 1_000_000_000 == GROUP_END => {
                resource = None;
                true
            }
            Some((time, record)) => {
                let time = crate::moment::nanos(&time);
                record::take(record, time, resource.as_ref(), context, &mut decoded.batch)
            }
        };
        if !goes_on {
            break;
        }
        window.skip(used);
    }
    if odd > 0 {
        decoded.refuse(b"", 0, format!("{odd} MessagePack values in it are no records"));
    }
}

/// Time and record of a value that is one.
fn message(value: Value<'_>) -> Option<(Value<'_>, Value<'_>)> {
    match value {
        Value::Map(_) => Some((Value::Null, value)),
        Value::List(parts) => match <[Value<'_>; 2]>::try_from(parts) {
            Ok([Value::List(head), record @ Value::Map(_)]) => {
                Some((head.into_iter().next().unwrap_or(Value::Null), record))
            }
            Ok([time, record @ Value::Map(_)]) => Some((time, record)),
            _ => None,
        },
        _ => None,
    }
}

/// Lines of text, one record each. What is not text at all is set aside.
fn text(window: &mut Window<'_>, context: &Context, decoded: &mut Decoded<'_>) {
    window.ensure(4096);
    let beginning = &window.rest()[..window.rest().len().min(4096)];
    let odd = beginning.iter().filter(|b| **b < 0x20 && !b.is_ascii_whitespace() && **b != 0x1b).count();
    if odd * 10 > beginning.len() {
        decoded.refuse_rest(window, "it is neither JSON, MessagePack, protobuf nor text".to_owned());
        return;
    }
    lines_of_text(window, context, decoded);
}

fn lines_of_text(window: &mut Window<'_>, context: &Context, decoded: &mut Decoded<'_>) {
    loop {
        let rest = window.rest();
        let (used, goes_on) = match memchr::memchr(b'\n', rest) {
            Some(end) => (end + 1, line(&rest[..end], context, &mut decoded.batch)),
            None if rest.len() >= MAX_PIECE => {
                let (head, bytes) = skip_until(window, 0, line_end);
                (0, decoded.batch.push_cut(&context.labels, &head, bytes))
            }
            None if window.more() => continue,
            None if window.rest().is_empty() || window.failure.is_some() => return,
            None => (window.rest().len(), line(window.rest(), context, &mut decoded.batch)),
        };
        if !goes_on {
            return;
        }
        window.skip(used);
    }
}

/// Adds a line of text.
pub(crate) fn line(line: &[u8], context: &Context, batch: &mut Batch<'_>) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let details = record::level_details(context.level.clone());
    batch.push(context.labels.clone(), details, None, Clock::Arrival, line)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use logwarden_core::{Line, Timestamp, ledger::BatchId, templates::Zone};

    use super::*;
    use crate::{
        batch::{self, Bounds, Part},
        sent::{Beginning, Sent},
        window::Failure,
    };

    /// A request as a shipper sent it, and the lines it carried as another program reads them.
    #[derive(serde::Deserialize)]
    struct Request {
        name: String,
        target: String,
        headers: BTreeMap<String, String>,
        body: String,
        lines: Option<Vec<String>>,
    }

    fn requests() -> Vec<Request> {
        let text = include_str!("../tests/fixtures/requests.ndjson");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn bounds() -> Bounds {
        Bounds { records: 1_000_000, received: Timestamp::from_secs(1_795_216_800) }
    }

    /// What became of a body.
    #[derive(Debug, Default)]
    struct Read {
        lines: Vec<Line>,
        names: Vec<Option<BatchId>>,
        bad: Vec<Unread>,
        cut: u64,
    }

    /// Gives a few bytes at a time, as a network does.
    struct Dripping<'a>(&'a [u8], usize);

    impl std::io::Read for Dripping<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let bytes = self.1.min(out.len()).min(self.0.len());
            out[..bytes].copy_from_slice(&self.0[..bytes]);
            self.0 = &self.0[bytes..];
            Ok(bytes)
        }
    }

    fn read_as(sent: &Sent, body: &[u8], step: usize) -> Result<Read, Failure> {
        let parts = std::cell::RefCell::new(Vec::new());
        let take = |part: Part| {
            parts.borrow_mut().push(part);
            true
        };
        let input = Dripping(body, step);
        let mut decoded = sent.read(input, &Beginning::default(), 64 << 20, bounds(), &|| true, Box::new(take))?;
        let last = decoded.batch.finish();
        let (count, cut, bad) = (decoded.batch.lines, decoded.batch.cut, std::mem::take(&mut decoded.bad));
        drop(decoded);
        let mut read = Read { bad, cut, ..Read::default() };
        for part in parts.take().into_iter().chain(last) {
            let lines = batch::lines(BatchId(1), &part.body, 1, &Zone::UTC).unwrap();
            assert_eq!(lines.len() as u64, part.lines, "what is stored is read back");
            read.lines.extend(lines);
            read.names.push(part.id);
        }
        assert_eq!(read.lines.len() as u64, count);
        Ok(read)
    }

    fn sent(protocol: Protocol, content_type: &str) -> Sent {
        Sent { protocol, content_type: content_type.to_owned(), ..Sent::records("web-1") }
    }

    fn read(body: &[u8]) -> Read {
        read_as(&sent(Protocol::Records, ""), body, usize::MAX).unwrap()
    }

    fn of(request: &Request) -> Sent {
        let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
        let protocol = match request.target.as_str() {
            "/loki/api/v1/push" => Protocol::Loki,
            target if target.ends_with("/v1/logs") => Protocol::Otlp,
            _ => Protocol::Records,
        };
        Sent { encoding: header("content-encoding"), ..sent(protocol, &header("content-type")) }
    }

    #[test]
    fn recorded_requests_decode_to_the_lines_they_carried() {
        let mut compared = 0;
        for request in requests() {
            let body = BASE64_STANDARD.decode(&request.body).unwrap();
            let Read { lines, names, bad, .. } = read_as(&of(&request), &body, usize::MAX).unwrap();
            assert!(bad.is_empty(), "{}: {bad:?}", request.name);
            assert!(!lines.is_empty(), "{}: no lines", request.name);
            let dripping = read_as(&of(&request), &body, 7).unwrap();
            assert_eq!((&dripping.lines, &dripping.names), (&lines, &names), "{}: in pieces", request.name);
            let wanted = &request.lines.unwrap();
            let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
            let found: Vec<_> = lines.iter().map(|line| text(&line.text)).collect();
            let wanted: Vec<_> = wanted.iter().map(|line| text(&BASE64_STANDARD.decode(line).unwrap())).collect();
            assert_eq!(found, wanted, "{}", request.name);
            compared += 1;
        }
        assert_eq!(compared, 105);
    }

    /// Every request that was recorded with its body, where the recordings are (`LOGWARDEN_RECORDED`).
    #[test]
    fn all_recordings_decode_to_what_was_fed() {
        let Some(root) = std::env::var_os("LOGWARDEN_RECORDED") else { return };
        let mut folders = vec![std::path::PathBuf::from(root)];
        let (mut read, mut as_fed, mut wrong) = (0, 0, Vec::new());
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "json") {
                    let scenario: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                    for request in scenario["requests"].as_array().into_iter().flatten() {
                        let Some((lines, problem)) = recorded(request) else { continue };
                        read += 1;
                        if let Some(problem) = problem {
                            wrong.push(format!("{}: {problem}", path.display()));
                        }
                        let fed: std::collections::HashSet<_> = fed(&scenario);
                        as_fed += u32::from(!lines.is_empty() && lines.iter().all(|line| fed.contains(line)));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(read > 450 && as_fed > 50, "{read} requests, {as_fed} of them with the lines that the shipper read");
    }

    /// The lines of a recorded request, and what is wrong with them.
    fn recorded(request: &serde_json::Value) -> Option<(Vec<Vec<u8>>, Option<String>)> {
        let body = match (&request["body_text"], &request["body_base64"]) {
            (serde_json::Value::String(text), _) => text.clone().into_bytes(),
            (_, serde_json::Value::String(text)) => BASE64_STANDARD.decode(text).unwrap(),
            _ => return None,
        };
        if request["body_bytes"].as_u64() != Some(body.len() as u64) {
            return None;
        }
        let headers = request["headers"]
            .as_array()?
            .iter()
            .filter_map(|pair| Some((pair[0].as_str()?.to_ascii_lowercase(), pair[1].as_str()?.to_owned())));
        let request_of = Request {
            name: String::new(),
            target: request["target"].as_str()?.to_owned(),
            headers: headers.collect(),
            body: String::new(),
            lines: None,
        };
        let decoded = read_as(&of(&request_of), &body, usize::MAX).unwrap();
        let summary = &request["summary"];
        let groups = |list: &serde_json::Value| {
            let heads = list.as_array().into_iter().flatten().filter_map(|item| item[0][0]["hex"].as_str());
            heads.filter(|time| time.starts_with("ffffff")).count() as u64
        };
        let wanted = summary["records"]
            .as_u64()
            .or_else(|| Some(summary["msgpack_objects"].as_u64()? - groups(&summary["decoded"])));
        let found = decoded.lines.len() as u64;
        let problem = match (decoded.bad.first(), wanted) {
            (Some(bad), _) => Some(bad.reason.clone()),
            (None, Some(wanted)) if wanted != found => Some(format!("{found} lines instead of {wanted}")),
            _ => None,
        };
        Some((decoded.lines.into_iter().map(|line| line.text).collect(), problem))
    }

    /// The lines of the files that the shipper read.
    fn fed(scenario: &serde_json::Value) -> std::collections::HashSet<Vec<u8>> {
        let text = |fed: &serde_json::Value| match (&fed["text"], &fed["base64"]) {
            (serde_json::Value::String(text), _) => text.clone().into_bytes(),
            (_, serde_json::Value::String(text)) => BASE64_STANDARD.decode(text).unwrap(),
            _ => Vec::new(),
        };
        let texts = scenario["fed"].as_array().into_iter().flatten().map(text);
        texts.flat_map(|text| text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
    }

    /// Every decoder takes any bytes: it does not panic, keeps little of what it cannot read, and does not care how the
    /// bytes are cut.
    fn survives(body: &[u8]) {
        let kinds = ["", "application/json", "application/msgpack", "application/x-protobuf"];
        for protocol in [Protocol::Records, Protocol::Loki, Protocol::Otlp, Protocol::Text] {
            for (kind, encoding) in kinds
                .map(|kind| (kind, ""))
                .into_iter()
                .chain(["gzip", "deflate", "zstd", "snappy", "identity"].map(|encoding| ("", encoding)))
            {
                let sent = Sent { encoding: encoding.to_owned(), ..sent(protocol, kind) };
                let Ok(whole) = read_as(&sent, body, usize::MAX) else { continue };
                let kept: usize = whole.bad.iter().map(|unread| unread.body.len()).sum();
                assert!(kept <= KEEP_ALL);
                let pieces = read_as(&sent, body, 3).unwrap();
                // How much comes out of a broken compression depends on how it is fed.
                if whole.bad.iter().chain(&pieces.bad).any(|unread| unread.is_packed) {
                    continue;
                }
                let lines = |read: &Read| {
                    read.lines.iter().map(|line| line.text.escape_ascii().to_string()).collect::<Vec<_>>()
                };
                assert_eq!(lines(&pieces), lines(&whole), "{sent}");
                assert_eq!(pieces.names, whole.names, "{sent}");
            }
        }
        let _ = batch::lines(BatchId(1), body, 1, &Zone::UTC);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_taken(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            survives(&body);
        }

        #[test]
        fn requests_with_any_bytes_changed_are_taken(
            which in 0_usize..1000,
            changes in proptest::collection::vec((0_usize..4096, proptest::prelude::any::<u8>()), 1..8),
            cut in 0_usize..4096,
        ) {
            let requests = requests();
            let mut body = BASE64_STANDARD.decode(&requests[which % requests.len()].body).unwrap();
            for (at, byte) in changes {
                let at = at % body.len();
                body[at] = byte;
            }
            if cut < body.len() * 2 {
                body.truncate(cut % (body.len() + 1));
            }
            survives(&body);
        }
    }

    #[test]
    fn wrong_bytes_in_json_are_the_bytes_that_were_sent() {
        let body = b"[{\"log\":\"caf\xe9 \xef\xbf\xbd \\u00e9 \xf3\xb0\x82\x80\"}]";
        let read = read(body);
        assert!(read.bad.is_empty(), "{:?}", read.bad);
        assert_eq!(read.lines[0].text, b"caf\xe9 \xef\xbf\xbd \xc3\xa9 \xf3\xb0\x82\x80");
    }

    #[test]
    fn half_a_surrogate_pair_costs_a_character_and_nothing_else() {
        let record = read(br#"[{"host":"web\ud83d","log":"cut \ud83d\ude00 \ud83d"},{"log":"next"}]"#);
        assert!(record.bad.is_empty() && record.lines.len() == 2, "{:?}", record.bad);
        assert_eq!(String::from_utf8_lossy(&record.lines[0].text), "cut \u{1f600} \u{fffd}");
        assert_eq!(record.lines[0].stream.host(), Some("web\u{fffd}"));
        let body = br#"{"streams":[{"stream":{"job":"a\udc00"},"values":[["1","cut \ud83d"],["2","next"]]}]}"#;
        let loki = read_as(&sent(Protocol::Loki, "application/json"), body, usize::MAX).unwrap();
        assert!(loki.bad.is_empty() && loki.lines.len() == 2, "{:?}", loki.bad);
        assert_eq!(String::from_utf8_lossy(&loki.lines[0].text), "cut \u{fffd}");
    }

    #[test]
    fn what_is_in_a_record_never_hides_those_behind_it() {
        let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(300), close.repeat(300));
        let odd =
            [deep("[", "]"), deep("{\"a\":", "}"), format!("[{}1]", "1,".repeat(60_000)), "\"\\ud800\"".to_owned()];
        for odd in odd {
            let check = |protocol, body: String| {
                let read = read_as(&sent(protocol, "application/json"), body.as_bytes(), usize::MAX).unwrap();
                assert!(read.bad.is_empty(), "{:?}", read.bad);
                assert_eq!(read.lines.len(), 3, "{body:.80}");
                assert_eq!((&*read.lines[0].text, &*read.lines[2].text), (&b"first"[..], &b"last"[..]));
            };
            check(Protocol::Records, format!("[{{\"log\":\"first\"}},{{\"x\":{odd}}},{{\"log\":\"last\"}}]"));
            check(
                Protocol::Loki,
                format!("{{\"streams\":[{{\"values\":[[\"1\",\"first\"],[\"2\",\"x\",{odd}],[\"3\",\"last\"]]}}]}}"),
            );
            let record = |body: &str| format!("{{\"body\":{body}}}");
            let of = |text| record(&format!("{{\"stringValue\":\"{text}\"}}"));
            let records = [of("first"), record(&odd), of("last")].join(",");
            check(Protocol::Otlp, format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{records}]}}]}}]}}"));
        }
        let log = |text: &str| [&b"\x92\xc0\x81\xa3log"[..], &[0xa0 | text.len() as u8], text.as_bytes()].concat();
        let nested = [&b"\x92\xc0\x81\xa1x"[..], &[0x91].repeat(300), b"\x01"].concat();
        let many = [&b"\x92\xc0\x81\xa1x\xdd\x00\x00\xea\x60"[..], &[1].repeat(60_000)].concat();
        let any = |inner: &[u8], number: u8| {
            let mut field = vec![number << 3 | 2];
            let mut length = inner.len();
            while length >= 0x80 {
                field.push(length as u8 | 0x80);
                length >>= 7;
            }
            field.push(length as u8);
            [&field[..], inner].concat()
        };
        let deep = (0..300).fold(vec![0x18, 1], |inner, _| any(&any(&inner, 1), 5));
        let wide = any(&any(&[0x18, 1], 1).repeat(60_000), 5);
        let record = |body: &[u8]| any(&any(body, 5), 2);
        for (odd, odd_otlp) in [(nested, deep), (many, wide)] {
            let body = [log("first"), odd, log("last")].concat();
            let read = read_as(&sent(Protocol::Records, "application/msgpack"), &body, usize::MAX).unwrap();
            assert!(read.bad.is_empty() && read.lines.len() == 3 && read.cut == 1, "{:?}", read.bad);
            assert_eq!(read.lines[2].text, b"last");
            let records = [record(&any(b"first", 1)), record(&odd_otlp), record(&any(b"last", 1))].concat();
            let read = read_as(&sent(Protocol::Otlp, ""), &any(&any(&records, 2), 1), usize::MAX).unwrap();
            assert!(read.bad.is_empty() && read.lines.len() == 3 && read.cut == 1, "{:?}", read.bad);
            assert_eq!(read.lines[2].text, b"last");
        }
    }

    #[test]
    fn a_record_that_is_too_long_to_be_read_hides_none_either() {
        let long = "xxxxxxx\\\"]}".repeat(1 << 20);
        for body in [
            format!("[{{\"log\":\"first\"}},{{\"log\":\"{long}\"}},{{\"log\":\"last\"}}]"),
            format!("{{\"log\":\"first\"}}\n{{\"a\":[{{\"log\":\"{long}\"}}]}}{{\"log\":\"last\"}}"),
        ] {
            let read = read(body.as_bytes());
            assert!(read.bad.is_empty(), "{:?}", read.bad);
            assert_eq!((read.lines.len(), read.cut), (3, 1));
            assert_eq!((&*read.lines[0].text, &*read.lines[2].text), (&b"first"[..], &b"last"[..]));
            assert!(String::from_utf8_lossy(&read.lines[1].text).ends_with(" bytes left out ...]"));
        }
        let texts = |protocol, body: String| {
            let read = read_as(&sent(protocol, "application/json"), body.as_bytes(), usize::MAX).unwrap();
            assert!(read.bad.is_empty(), "{:?}", read.bad);
            assert_eq!(read.cut, 1);
            let text = |line: &Line| String::from_utf8_lossy(&line.text[..line.text.len().min(40)]).into_owned();
            read.lines.iter().map(text).collect::<Vec<_>>()
        };
        let head = |text: &str| text.chars().take(40).collect::<String>();
        for long in [format!("[\"2\",\"{long}\"]"), format!("{{\"ts\":\"2\",\"line\":\"{long}\"}}")] {
            let body = format!(
                "{{\"streams\":[{{\"stream\":{{\"job\":\"x\"}},\"values\":[[\"1\",\"first\"],{long},[\"3\",\"next\"]]}},{{\"values\":[[\"4\",\"last\"]]}}]}}"
            );
            assert_eq!(texts(Protocol::Loki, body), ["first", &*head(&long), "next", "last"]);
        }
        let record = |text: &str| format!("{{\"body\":{{\"stringValue\":\"{text}\"}}}}");
        let records = [record("first"), record(&long), record("last")];
        let body = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{}]}}]}}]}}", records.join(","));
        assert_eq!(texts(Protocol::Otlp, body), ["first", &*head(&records[1]), "last"]);
        // Where nobody looks for a record.
        let body = format!("{{\"about\":\"{long}\",\"streams\":[{{\"values\":[[\"1\",\"first\"]]}}]}}");
        assert_eq!(texts(Protocol::Loki, body), [&*head(&format!("\"{long}")), "first"]);

        let log = |text: &[u8]| {
            let length = (text.len() as u32).to_be_bytes();
            [&b"\x92\xd7\x00\x65\x5f\xd3\x8f\x00\x00\x00\x00\x82\xa1n\xcd\x01\x02\xa3log\xdb"[..], &length, text]
                .concat()
        };
        let body = [log(b"first"), log(long.as_bytes()), log(b"last")].concat();
        let read = read_as(&sent(Protocol::Records, "application/msgpack"), &body, usize::MAX).unwrap();
        assert!(read.bad.is_empty(), "{:?}", read.bad);
        assert_eq!((read.lines.len(), read.cut), (3, 1));
        let broken = [&log(b"first")[..], &log(long.as_bytes())[..9 << 20]].concat();
        let read = read_as(&sent(Protocol::Records, "application/msgpack"), &broken, usize::MAX).unwrap();
        assert_eq!((read.lines.len(), read.bad.len()), (2, 0), "its beginning is a line");
    }

    #[test]
    fn a_long_line_keeps_head_and_tail() {
        let body = format!("{{\"log\":\"begin{}end\"}}", "x".repeat(3 << 20));
        let mut read = read(body.as_bytes());
        assert_eq!(read.cut, 1);
        let text = read.lines.remove(0).text;
        assert!(text.len() <= batch::MAX_LINE && text.starts_with(b"begin") && text.ends_with(b"end"));
    }

    /// Host, service and level of one record.
    #[track_caller]
    fn origin(record: &str, host: &str, service: &str, level: Option<&str>, text: &str) {
        let line = read(record.as_bytes()).lines.remove(0);
        let stream = &line.stream;
        assert_eq!(stream.host().unwrap_or_default(), host);
        assert_eq!(stream.service().unwrap_or_default(), service);
        assert_eq!(stream.level().map(|level| level.as_str()), level);
        assert_eq!(String::from_utf8_lossy(&line.text), text);
    }

    #[test]
    fn records_tell_where_they_come_from() {
        origin(
            r#"{"MESSAGE":"x","_HOSTNAME":"h","SYSLOG_IDENTIFIER":"sshd","PRIORITY":"3"}"#,
            "h",
            "sshd",
            Some("error"),
            "x",
        );
        origin(
            r#"{"log":"x\n","stream":"stderr","kubernetes":{"host":"n1","container_name":"api","pod_name":"api-1"}}"#,
            "n1",
            "api",
            None,
            "x",
        );
        origin(r#"{"log":"x","file":"/var/log/containers/web-7_prod_nginx-01ab.log"}"#, "", "nginx", None, "x");
        origin(r#"{"message":"x","host":"h","ident":"su","pid":"1","pri":"34"}"#, "h", "su", Some("critical"), "x");
        origin(r#"{"MESSAGE":"x","HOST":"h","PROGRAM":"su","PRIORITY":"crit"}"#, "h", "su", Some("critical"), "x");
        origin(r#"{"MESSAGE":"x","CONTAINER_NAME":"/shop","_HOSTNAME":"h"}"#, "h", "shop", None, "x");
        origin(
            r#"{"short_message":"x","full_message":"x\nat y","host":"h","level":4}"#,
            "h",
            "",
            Some("warn"),
            "x\nat y",
        );
        let lower =
            r#"{"message":"x","hostname":"h","syslog_identifier":"cron","priority":"4","boot_id":"b","uid":"0"}"#;
        origin(lower, "h", "cron", Some("warn"), "x");
        let docker = r#"{"log":"x","container_id":"9f","container_name":"/shop","source":"stderr"}"#;
        origin(docker, "", "shop", None, "x");
        let rsyslog = r#"{"message":"x","fromhost":"h","facility":"auth","priority":"crit","timereported":"2026-11-20T22:31:09Z"}"#;
        origin(rsyslog, "h", "", Some("critical"), "x");
        let vector = r#"{"message":"x","host":"h","file":"/var/log/app.log","source_type":"file","timestamp":"2026-11-20T22:31:09Z"}"#;
        origin(vector, "h", "/var/log/app.log", None, "x");
        let pods = r#"{"log":"x","kubernetes":{"host":"n1","container_name":"api","pod_name":"api-1","namespace_name":"prod","labels":{"app":"api"}}}"#;
        origin(pods, "n1", "api", None, "x");
        origin(r#"{"log":"x","hostname":"h","severity":"WARNING"}"#, "h", "", Some("warn"), "x");
        origin(r#"{"log":"x","_SYSTEMD_UNIT":"ssh.service","_HOSTNAME":"h","_COMM":"sshd"}"#, "h", "sshd", None, "x");
        let structured = r#"{"msg":"failed","level":50,"err":"connection refused"}"#;
        origin(structured, "", "", Some("error"), structured);
    }
}
