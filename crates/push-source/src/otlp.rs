//! OTLP/HTTP logs, protobuf and JSON, brought into one shape: the JSON one.

use std::{borrow::Cow, collections::BTreeMap, ops::ControlFlow};

use logwarden_core::templates::{Clock, Level};

use crate::{
    batch::Batch,
    json::{self, Listener},
    moment, record,
    record::Context,
    value::{LEFT_OUT, MAX_DEPTH, MAX_VALUES, Value},
    window::{self, Window},
    wire::{self, Broken, Field, Fields, Head},
};

const LEVELS: [json::Level; 3] = [
    json::Level { about: &[], down: &["resourceLogs", "resource_logs"] },
    json::Level { about: &["resource"], down: &["scopeLogs", "scope_logs"] },
    json::Level { about: &[], down: &["logRecords", "log_records"] },
];

/// Adds the records of an `ExportLogsServiceRequest` in JSON.
pub(crate) fn json(window: &mut Window<'_>, context: &Context, batch: &mut Batch<'_>) -> Result<(), String> {
    let mut export = Export { context, batch, resource: None, is_one: false };
    json::document(window, &LEVELS, &mut export)?;
    if export.is_one { Ok(()) } else { Err("there are no `resourceLogs`".to_owned()) }
}

struct Export<'p, 's> {
    context: &'p Context,
    batch: &'p mut Batch<'s>,
    resource: Option<Value<'static>>,
    is_one: bool,
}

impl Listener for Export<'_, '_> {
    fn begin(&mut self, level: usize) {
        if level == 1 {
            self.resource = None;
        }
    }

    fn found(&mut self) {
        self.is_one = true;
    }

    fn about(&mut self, _: &[u8], mut value: Value<'_>) {
        json::restore(&mut value);
        self.resource = value.get("attributes").map(|list| attributes(list).into_owned());
    }

    fn odd(&mut self, text: &[u8]) -> ControlFlow<()> {
        let body = Value::Text(window::restore(text).map_or(Cow::Borrowed(text), Cow::Owned));
        let entry = Entry { time: None, severity: None, severity_text: None, body, attributes: None };
        match take(entry, self.resource.as_ref(), self.context, self.batch) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    fn cut(&mut self, head: &[u8], bytes: u64) -> ControlFlow<()> {
        let labels = labels(None, self.resource.as_ref(), self.context);
        match self.batch.push_cut(&labels, head, bytes) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    fn record(&mut self, mut value: Value<'_>) -> ControlFlow<()> {
        json::restore(&mut value);
        let get = |camel: &str, snake: &str| value.get(camel).or_else(|| value.get(snake));
        let time = |camel, snake| get(camel, snake).and_then(nanos).filter(|time| *time > 0);
        let entry = Entry {
            time: time("timeUnixNano", "time_unix_nano")
                .or_else(|| time("observedTimeUnixNano", "observed_time_unix_nano")),
            severity: get("severityNumber", "severity_number").and_then(severity_json),
            severity_text: get("severityText", "severity_text").and_then(Value::word),
            body: get("body", "body").map_or(Value::Null, any),
            attributes: value.get("attributes").map(attributes),
        };
        match take(entry, self.resource.as_ref(), self.context, self.batch) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

/// Adds the records of an `ExportLogsServiceRequest`: resource logs (1) of a resource (1) and scope logs (2) of records
/// (2). Serializers write a resource before its records.
pub(crate) fn protobuf(window: &mut Window<'_>, context: &Context, batch: &mut Batch<'_>) -> Result<(), Broken> {
    wire::messages(window, |window, end| {
        let mut resource = None;
        while window.position() < end {
            match wire::head(window)?.ok_or(Broken)? {
                (1, Head::Message(length)) => {
                    let message = wire::message(window, length)?;
                    resource = Some(key_values(message, 1, &mut Left::default())?.into_owned());
                    window.skip(length as usize);
                }
                (2, Head::Message(length)) => {
                    if !scope(window, length, resource.as_ref(), context, batch)? {
                        return Ok(false);
                    }
                }
                (_, Head::Message(length)) => wire::skip(window, length)?,
                (_, Head::Number) => {}
            }
        }
        Ok(true)
    })
}

fn scope(
    window: &mut Window<'_>,
    length: u64,
    resource: Option<&Value<'_>>,
    context: &Context,
    batch: &mut Batch<'_>,
) -> Result<bool, Broken> {
    let end = window.position() + length;
    while window.position() < end {
        match wire::head(window)?.ok_or(Broken)? {
            (2, Head::Message(length)) if wire::is_too_long(length) => {
                if !wire::cut(window, length, &labels(None, resource, context), batch)? {
                    return Ok(false);
                }
            }
            (2, Head::Message(length)) => {
                let (record, is_cut) = log_record(wire::message(window, length)?)?;
                batch.cut += u64::from(is_cut);
                if !take(record, resource, context, batch) {
                    return Ok(false);
                }
                window.skip(length as usize);
            }
            (_, Head::Message(length)) => wire::skip(window, length)?,
            (_, Head::Number) => {}
        }
    }
    if window.position() == end { Ok(true) } else { Err(Broken) }
}

struct Entry<'a> {
    time: Option<i64>,
    severity: Option<i64>,
    severity_text: Option<String>,
    body: Value<'a>,
    attributes: Option<Value<'a>>,
}

/// Who a record is from, as its attributes and its resource say.
fn labels(attributes: Option<&Value<'_>>, resource: Option<&Value<'_>>, context: &Context) -> BTreeMap<String, String> {
    let mut labels = context.labels.clone();
    let named = |keys: &[&str]| {
        let places = [attributes, resource];
        places.into_iter().flatten().find_map(|place| keys.iter().find_map(|key| place.get(key)?.word()))
    };
    let pairs = [
        ("host", named(&["host.name", "k8s.node.name", "host", "hostname", "_HOSTNAME"])),
        (
            "service",
            named(&["service.name", "k8s.container.name", "container.name", "ident", "SYSLOG_IDENTIFIER"])
                .filter(|s| !s.starts_with("unknown_service")),
        ),
        ("namespace", named(&["k8s.namespace.name", "service.namespace"])),
        ("pod", named(&["k8s.pod.name"])),
        ("filename", named(&["log.file.path", "log.file.name", "file", "filename"])),
    ];
    labels.extend(pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    labels
}

fn take(entry: Entry<'_>, resource: Option<&Value<'_>>, context: &Context, batch: &mut Batch<'_>) -> bool {
    let level = match entry.severity {
        Some(1..=4) => Some(Level::Trace),
        Some(5..=8) => Some(Level::Debug),
        Some(9..=12) => Some(Level::Info),
        Some(13..=16) => Some(Level::Warn),
        Some(17..=20) => Some(Level::Error),
        Some(21..=24) => Some(Level::Critical),
        _ => entry.severity_text.as_deref().and_then(Level::parse),
    };
    let level = level.map(|level| level.as_str().to_owned());
    let labels = labels(entry.attributes.as_ref(), resource, context);
    match &entry.body {
        // What a shipper sends as a map is a record like any other.
        Value::Map(_) => {
            let context = Context { labels, level: level.or_else(|| context.level.clone()) };
            record::take(entry.body, entry.time, None, &context, batch)
        }
        body => {
            let text = match body {
                Value::Text(text) => text.clone(),
                Value::Null => Cow::Borrowed(&b""[..]),
                other => {
                    let mut out = Vec::new();
                    other.write_json(&mut out);
                    Cow::Owned(out)
                }
            };
            let text = exception(&text, entry.attributes.as_ref()).unwrap_or(text);
            let details: BTreeMap<_, _> = level.map(|level| ("level".to_owned(), level)).into_iter().collect();
            batch.push(labels, details, entry.time, Clock::Record, &text)
        }
    }
}

/// The text followed by the stack trace that an SDK puts beside it.
fn exception<'a>(text: &[u8], attributes: Option<&Value<'a>>) -> Option<Cow<'a, [u8]>> {
    let Some(Value::Text(trace)) = attributes?.get("exception.stacktrace") else { return None };
    let mut all = text.to_vec();
    all.push(b'\n');
    all.extend_from_slice(trace.trim_ascii_end());
    Some(Cow::Owned(all))
}

fn nanos(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(number) => i64::try_from(*number).ok(),
        Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        other => moment::nanos(other),
    }
}

/// The number; some senders write the enum's name, whose level stands between underscores.
fn severity_json(value: &Value<'_>) -> Option<i64> {
    if let Value::Int(number) = value {
        return i64::try_from(*number).ok();
    }
    let word = value.word()?;
    let name = word.strip_prefix("SEVERITY_NUMBER_")?.trim_end_matches(|c: char| c.is_ascii_digit());
    let names = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    names.iter().position(|known| *known == name).map(|number| number as i64 * 4 + 1)
}

/// `[{"key": …, "value": {…}}]` as a map.
fn attributes<'a>(list: &Value<'a>) -> Value<'a> {
    let Value::List(list) = list else { return Value::Map(Vec::new()) };
    let pairs = list.iter().filter_map(|pair| {
        let Some(Value::Text(key)) = pair.get("key") else { return None };
        Some((key.clone(), pair.get("value").map_or(Value::Null, any)))
    });
    Value::Map(pairs.collect())
}

/// An `AnyValue` of JSON as what it stands for. The depth is bounded by the document's.
fn any<'a>(value: &Value<'a>) -> Value<'a> {
    let Value::Map(pairs) = value else { return value.clone() };
    let Some((kind, value)) = pairs.first() else { return Value::Null };
    match (&**kind, value) {
        (b"intValue" | b"int_value", Value::Text(text)) => std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .map_or(Value::Text(text.clone()), Value::Int),
        (b"arrayValue" | b"array_value", value) => match value.get("values") {
            Some(Value::List(values)) => Value::List(values.iter().map(any).collect()),
            _ => Value::List(Vec::new()),
        },
        (b"kvlistValue" | b"kvlist_value", value) => value.get("values").map_or(Value::Map(Vec::new()), attributes),
        (_, value) => value.clone(),
    }
}

/// What one record may still hold; what is over is left out.
struct Left {
    values: u32,
    depth: u32,
    is_cut: bool,
}

impl Default for Left {
    fn default() -> Self {
        Self { values: MAX_VALUES, depth: MAX_DEPTH, is_cut: false }
    }
}

fn log_record(message: &[u8]) -> Result<(Entry<'_>, bool), Broken> {
    let mut left = Left::default();
    let (mut time, mut observed, mut severity, mut severity_text, mut body) = (None, None, None, None, Value::Null);
    for field in Fields(message) {
        match field? {
            (1, field) => time = i64::try_from(field.number()).ok().filter(|time| *time > 0),
            (11, field) => observed = i64::try_from(field.number()).ok().filter(|time| *time > 0),
            (2, field) => severity = i64::try_from(field.number()).ok().filter(|number| *number > 0),
            (3, field) => severity_text = Some(String::from_utf8_lossy(field.bytes()).into_owned()),
            (5, field) => body = any_value(field.bytes(), &mut left)?,
            _ => {}
        }
    }
    let attributes = Some(key_values(message, 6, &mut left)?);
    Ok((Entry { time: time.or(observed), severity, severity_text, body, attributes }, left.is_cut))
}

/// The `KeyValue` fields with that number, as a map.
fn key_values<'a>(message: &'a [u8], number: u64, left: &mut Left) -> Result<Value<'a>, Broken> {
    let mut pairs = Vec::new();
    for field in Fields(message) {
        let (found, Field::Bytes(pair)) = field? else { continue };
        if found != number {
            continue;
        }
        if left.is_cut && left.values == 0 {
            break;
        }
        let (mut key, mut value) = (&b""[..], Value::Null);
        for field in Fields(pair) {
            match field? {
                (1, field) => key = field.bytes(),
                (2, field) => value = any_value(field.bytes(), left)?,
                _ => {}
            }
        }
        pairs.push((Cow::Borrowed(key), value));
    }
    Ok(Value::Map(pairs))
}

fn any_value<'a>(message: &'a [u8], left: &mut Left) -> Result<Value<'a>, Broken> {
    if left.values == 0 || left.depth == 0 {
        left.is_cut = true;
        return Ok(Value::Text(Cow::Borrowed(LEFT_OUT)));
    }
    left.values -= 1;
    left.depth -= 1;
    let mut value = Value::Null;
    for field in Fields(message) {
        value = match field? {
            (1 | 7, Field::Bytes(text)) => Value::Text(Cow::Borrowed(text)),
            (2, field) => Value::Bool(field.number() != 0),
            (3, field) => Value::Int(i128::from(field.number() as i64)),
            (4, field) => Value::Float(f64::from_bits(field.number())),
            (5, Field::Bytes(list)) => {
                let mut values = Vec::new();
                for field in Fields(list) {
                    if left.is_cut && left.values == 0 {
                        break;
                    }
                    if let (1, Field::Bytes(item)) = field? {
                        values.push(any_value(item, left)?);
                    }
                }
                Value::List(values)
            }
            (6, Field::Bytes(list)) => key_values(list, 1, left)?,
            _ => value,
        };
    }
    left.depth += 1;
    Ok(value)
}
