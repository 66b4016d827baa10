//! From a body to lines: what a body is, is recognised by looking at it; its header only breaks ties.

use std::ops::ControlFlow;

use crate::{
    batch::{Batch, Bounds},
    json,
    json::Repaired,
    loki, msgpack, otlp, quarantine, record,
    record::Context,
    value::Value,
};

/// How much of an unreadable body is kept, per piece and in all.
const KEEP_PIECE: usize = quarantine::KEEP;
const KEEP_ALL: usize = 1 << 20;

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
pub(crate) struct Decoded {
    /// The lines.
    pub(crate) batch: Batch,
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

/// Decodes a body whose compression is off.
pub(crate) fn decode(
    protocol: Protocol,
    content_type: &str,
    body: &[u8],
    context: &Context,
    bounds: Bounds,
) -> Decoded {
    let mut decoded = Decoded { batch: Batch::new(bounds), bad: Vec::new() };
    if body.trim_ascii().is_empty() {
        return decoded;
    }
    let content_type = content_type.to_ascii_lowercase();
    let binary = content_type.contains("protobuf");
    let first = body.iter().copied().find(|b| !b.is_ascii_whitespace() && !b"\xef\xbb\xbf".contains(b)).unwrap_or(b' ');
    match protocol {
        Protocol::Text => lines_of_text(body, context, &mut decoded),
        // A protobuf message that begins with the byte of `{` or `[` has another field first, and is none of these.
        Protocol::Loki | Protocol::Otlp if first != b'{' && first != b'[' => {
            protobuf(protocol, body, context, &mut decoded)
        }
        Protocol::Loki | Protocol::Otlp => one_document(protocol, body, context, &mut decoded),
        Protocol::Records if binary => protobuf(Protocol::Otlp, body, context, &mut decoded),
        Protocol::Records if content_type.contains("msgpack") || matches!(body[0], 0x92 | 0xdc | 0xdd) => {
            messages(body, context, &mut decoded);
        }
        Protocol::Records if first == b'{' || first == b'[' => {
            records(body, context, &mut decoded);
            if decoded.batch.lines == 0 && !decoded.bad.is_empty() && !content_type.contains("json") {
                decoded = Decoded { batch: Batch::new(bounds), bad: Vec::new() };
                text(body, context, &mut decoded);
            }
        }
        Protocol::Records if content_type.contains("json") => {
            decoded.refuse(body, "it is announced as JSON and is none".to_owned());
        }
        Protocol::Records => text(body, context, &mut decoded),
    }
    if decoded.batch.too_many > 0 {
        decoded.refuse(body, format!("it has more than {} records; the rest was left out", bounds.records));
    }
    decoded
}

impl Decoded {
    fn refuse(&mut self, piece: &[u8], reason: String) {
        let kept: usize = self.bad.iter().map(|unread| unread.body.len()).sum();
        let room = KEEP_PIECE.min(KEEP_ALL.saturating_sub(kept));
        let body = piece[..piece.len().min(room)].to_vec();
        self.bad.push(Unread { body, bytes: piece.len() as u64, reason, is_packed: false });
    }
}

fn flow(goes_on: bool) -> ControlFlow<()> {
    if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

fn records(body: &[u8], context: &Context, decoded: &mut Decoded) {
    let (readable, repaired) = Repaired::new(body);
    let mut other = Vec::new();
    let bad = json::records(&readable, &mut |mut value| {
        repaired.restore(&mut value);
        if is_action(&value) {
            return ControlFlow::Continue(());
        }
        // Loki's and OTLP's bodies at a general path.
        let done = match &value {
            Value::Map(_) if matches!(value.get("streams"), Some(Value::List(_))) => {
                loki::json(&value, context, &mut decoded.batch)
            }
            Value::Map(_) if matches!(value.get("resourceLogs"), Some(Value::List(_))) => {
                otlp::json(&value, context, &mut decoded.batch)
            }
            _ => return flow(take(value, context, decoded, &mut other)),
        };
        other.extend(done.err());
        ControlFlow::Continue(())
    });
    for piece in bad {
        let end = piece.to.min(readable.len());
        decoded.refuse(&readable[piece.from.min(end)..end], format!("it is not JSON: {}", piece.reason));
    }
    for reason in other {
        decoded.refuse(body, reason);
    }
}

/// Adds a record; what is neither a record nor text is noted once per body.
fn take(value: Value<'_>, context: &Context, decoded: &mut Decoded, other: &mut Vec<String>) -> bool {
    if matches!(value, Value::Null | Value::List(_)) {
        if other.is_empty() {
            other.push("it holds values that are no records".to_owned());
        }
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

fn one_document(protocol: Protocol, body: &[u8], context: &Context, decoded: &mut Decoded) {
    let (readable, repaired) = Repaired::new(body);
    let result =
        json::document(&readable).map_err(|reason| format!("it is not JSON: {reason}")).and_then(|mut value| {
            repaired.restore(&mut value);
            match protocol {
                Protocol::Loki => loki::json(&value, context, &mut decoded.batch),
                _ => otlp::json(&value, context, &mut decoded.batch),
            }
        });
    if let Err(reason) = result {
        decoded.refuse(body, reason);
    }
}

fn protobuf(protocol: Protocol, body: &[u8], context: &Context, decoded: &mut Decoded) {
    let result = match protocol {
        Protocol::Loki => loki::protobuf(body, context, &mut decoded.batch),
        _ => otlp::protobuf(body, context, &mut decoded.batch),
    };
    if result.is_err() {
        decoded.refuse(body, "it is not protobuf".to_owned());
    }
}

/// Seconds that mark the beginning and the end of a group of records with a common resource.
const GROUP_START: i128 = 0xffff_ffff;
const GROUP_END: i128 = 0xffff_fffe;

fn messages(body: &[u8], context: &Context, decoded: &mut Decoded) {
    let mut reader = msgpack::Reader::new(body);
    let mut resource: Option<Value<'_>> = None;
    let mut odd = 0_u64;
    loop {
        let from = reader.at();
        let value = match reader.next() {
            None => break,
            Some(Ok(value)) => value,
            Some(Err(reason)) => {
                decoded.refuse(&body[from..], format!("it is not MessagePack: {reason}"));
                break;
            }
        };
        let (time, record) = match value {
            Value::Map(_) => (Value::Null, value),
            Value::List(parts) => match <[Value<'_>; 2]>::try_from(parts) {
                Ok([Value::List(head), record @ Value::Map(_)]) => {
                    (head.into_iter().next().unwrap_or(Value::Null), record)
                }
                Ok([time, record @ Value::Map(_)]) => (time, record),
                _ => {
                    odd += 1;
                    continue;
                }
            },
            _ => {
                odd += 1;
                continue;
            }
        };
        match time {
            Value::Time(nanos) if nanos / 1_000_000_000 == GROUP_START => {
                resource = record.at(&["resource", "attributes"]).cloned();
                continue;
            }
            Value::Time(nanos) if nanos / 1_000_000_000 == GROUP_END => {
                resource = None;
                continue;
            }
            _ => {}
        }
        let time = crate::moment::nanos(&time);
        if !record::take(record, time, resource.as_ref(), context, &mut decoded.batch) {
            break;
        }
    }
    if odd > 0 {
        decoded.refuse(body, format!("{odd} MessagePack values are no records"));
    }
}

/// Lines of text, one record each. What is not text at all is set aside.
fn text(body: &[u8], context: &Context, decoded: &mut Decoded) {
    let odd = body.iter().take(4096).filter(|b| **b < 0x20 && !b.is_ascii_whitespace() && **b != 0x1b).count();
    if odd * 10 > body.len().min(4096) {
        decoded.refuse(body, "it is neither JSON, MessagePack, protobuf nor text".to_owned());
        return;
    }
    lines_of_text(body, context, decoded);
}

fn lines_of_text(body: &[u8], context: &Context, decoded: &mut Decoded) {
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    for line in body.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = Value::Text(line.into());
        if !record::take(line, None, None, context, &mut decoded.batch) {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use logwarden_core::{Line, Timestamp, ledger::BatchId, templates::Zone};

    use super::*;
    use crate::{batch, inflate};

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

    fn stored(mut decoded: Decoded) -> Vec<Line> {
        let parts = decoded.batch.finish();
        parts.iter().flat_map(|part| batch::lines(BatchId(1), &part.body, 1, &Zone::UTC).unwrap()).collect()
    }

    fn read(request: &Request) -> (Vec<Line>, Vec<String>) {
        let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
        let raw = BASE64_STANDARD.decode(&request.body).unwrap();
        let protocol = match request.target.as_str() {
            "/loki/api/v1/push" => Protocol::Loki,
            target if target.ends_with("/v1/logs") => Protocol::Otlp,
            _ => Protocol::Records,
        };
        let snappy = protocol == Protocol::Loki && header("content-type").contains("protobuf");
        let body = inflate::unpack(header("content-encoding"), &raw, 64 << 20, snappy).unwrap();
        let decoded = decode(protocol, header("content-type"), &body, &Context::default(), bounds());
        let bad = decoded.bad.iter().map(|unread| unread.reason.clone()).collect();
        (stored(decoded), bad)
    }

    #[test]
    fn recorded_requests_decode_to_the_lines_they_carried() {
        let mut compared = 0;
        for request in requests() {
            let (lines, bad) = read(&request);
            assert!(bad.is_empty(), "{}: {bad:?}", request.name);
            assert!(!lines.is_empty(), "{}: no lines", request.name);
            let Some(wanted) = &request.lines else {
                continue;
            };
            let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
            let found: Vec<_> = lines.iter().map(|line| text(&line.text)).collect();
            let wanted: Vec<_> = wanted.iter().map(|line| text(&BASE64_STANDARD.decode(line).unwrap())).collect();
            assert_eq!(found, wanted, "{}", request.name);
            compared += 1;
        }
        assert!(compared > 60, "{compared}");
    }

    /// Every decoder takes any bytes: it neither panics nor stores more than it was given.
    fn survives(body: &[u8]) {
        let kinds = ["", "application/json", "application/x-ndjson", "application/msgpack", "application/x-protobuf"];
        for encoding in ["", "gzip", "deflate", "zstd", "snappy"] {
            for snappy in [false, true] {
                let _ = inflate::unpack(encoding, body, 1 << 20, snappy);
            }
        }
        for protocol in [Protocol::Records, Protocol::Loki, Protocol::Otlp] {
            for kind in kinds {
                let decoded = decode(protocol, kind, body, &Context::default(), bounds());
                let kept: usize = decoded.bad.iter().map(|unread| unread.body.len()).sum();
                assert!(kept <= KEEP_ALL);
                let lines = decoded.batch.lines;
                assert_eq!(stored(decoded).len() as u64, lines, "what is stored is read back");
            }
        }
        let _ = batch::lines(BatchId(1), body, 1, &Zone::UTC);
    }

    proptest::proptest! {
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
        let decoded = decode(Protocol::Records, "application/json", body, &Context::default(), bounds());
        assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
        assert_eq!(stored(decoded)[0].text, b"caf\xe9 \xef\xbf\xbd \xc3\xa9 \xf3\xb0\x82\x80");
    }

    #[test]
    fn a_long_line_keeps_head_and_tail() {
        let body = format!("{{\"log\":\"begin{}end\"}}", "x".repeat(3 << 20));
        let decoded = decode(Protocol::Records, "", body.as_bytes(), &Context::default(), bounds());
        assert_eq!(decoded.batch.cut, 1);
        let text = stored(decoded).remove(0).text;
        assert!(text.len() <= batch::MAX_LINE && text.starts_with(b"begin") && text.ends_with(b"end"));
    }

    /// Host, service and level of one record.
    #[track_caller]
    fn origin(record: &str, host: &str, service: &str, level: Option<&str>, text: &str) {
        let decoded = decode(Protocol::Records, "", record.as_bytes(), &Context::default(), bounds());
        let line = stored(decoded).remove(0);
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
        let structured = r#"{"msg":"failed","level":50,"err":"connection refused"}"#;
        origin(structured, "", "", Some("error"), structured);
    }
}
