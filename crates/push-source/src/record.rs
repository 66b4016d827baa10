//! Finds the line, its time, its host, its service and its level in a record, in the shapes that Fluent Bit, Docker, CRI,
//! Kubernetes, journald, syslog-ng, rsyslog, Vector and GELF senders give it.

use std::{borrow::Cow, collections::BTreeMap};

use logwarden_core::templates::{Clock, Level};

use crate::{
    batch::Batch,
    moment,
    value::{Bytes, Value, write_json_map},
};

/// What is known about all records of a request.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Context {
    /// Labels for records that do not say better: tag, client, host and program of syslog-ng's headers.
    pub(crate) labels: BTreeMap<String, String>,
    /// The level that a header names.
    pub(crate) level: Option<String>,
}

/// Keys that hold the line as it was written. Nothing else of the record is part of it.
const LINE: [&str; 7] = ["log", "MESSAGE", "full_message", "short_message", "line", "_raw", "@message"];
/// Keys that hold a message beside which other fields tell more.
const MESSAGE: [&str; 7] = ["message", "msg", "body", "text", "event", "Message", "Body"];
const HOST: [&str; 12] = [
    "host",
    "hostname",
    "_HOSTNAME",
    "HOST",
    "host_name",
    "host.name",
    "fromhost",
    "sys_hostname",
    "node_name",
    "node",
    "computer",
    "source_host",
];
const SERVICE: [&str; 21] = [
    "service",
    "service_name",
    "service.name",
    "CONTAINER_NAME",
    "container_name",
    "container",
    "ident",
    "SYSLOG_IDENTIFIER",
    "syslog_identifier",
    "PROGRAM",
    "program",
    "programname",
    "app_name",
    "appname",
    "app",
    "application",
    "_COMM",
    "comm",
    "_SYSTEMD_UNIT",
    "systemd_unit",
    "unit",
];
const UNIT: [&str; 3] = ["_SYSTEMD_UNIT", "systemd_unit", "unit"];
const FILE: [&str; 8] = ["filename", "file", "path", "log.file.path", "file_path", "file.path", "source_file", "_file"];
const LEVEL: [&str; 13] = [
    "level",
    "severity",
    "PRIORITY",
    "priority",
    "loglevel",
    "log_level",
    "log.level",
    "lvl",
    "severity_text",
    "detected_level",
    "Level",
    "Severity",
    "LEVEL",
];
/// Times of the event itself, whatever the shipper read when.
const EVENT_TIME: [&str; 2] = ["_SOURCE_REALTIME_TIMESTAMP", "source_realtime_timestamp"];
const TIME: [&str; 9] =
    ["date", "@timestamp", "timestamp", "time", "ts", "ISODATE", "timereported", "timegenerated", "datetime"];
/// What else is known not to belong to a message.
const ABOUT: [&str; 44] = [
    "stream",
    "_p",
    "pid",
    "pri",
    "facility",
    "FACILITY",
    "PID",
    "MSGID",
    "msgid",
    "_SDATA",
    "extradata",
    "offset",
    "kubernetes",
    "docker",
    "attrs",
    "tag",
    "source_type",
    "container_id",
    "container_id_full",
    "container_tag",
    "image_name",
    "partial_message",
    "partial_id",
    "partial_ordinal",
    "partial_last",
    "source",
    "version",
    "name",
    "machine_id",
    "boot_id",
    "transport",
    "uid",
    "gid",
    "exe",
    "cmdline",
    "systemd_cgroup",
    "systemd_slice",
    "cap_effective",
    "selinux_context",
    "syslog_facility",
    "syslog_pid",
    "syslog_timestamp",
    "__internal__",
    "_time",
];

fn first<'v, 'a>(record: &'v Value<'a>, keys: &[&str]) -> Option<&'v Value<'a>> {
    keys.iter().find_map(|key| record.get(key).filter(|value| !matches!(value, Value::Null)))
}

fn first_word(record: &Value<'_>, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| record.get(key).and_then(Value::word))
}

/// Adds a record to the batch. `time` is what its envelope says, `resource` what is said about a group of records.
pub(crate) fn take(
    record: Value<'_>,
    time: Option<i64>,
    resource: Option<&Value<'_>>,
    context: &Context,
    batch: &mut Batch<'_>,
) -> bool {
    let Value::Map(pairs) = &record else {
        let text = match record {
            Value::Text(text) => text,
            Value::Null | Value::List(_) => return false,
            other => Cow::Owned(json(&other)),
        };
        return batch.push(context.labels.clone(), level_details(context.level.clone()), time, Clock::Arrival, &text);
    };
    if pairs.is_empty() {
        return true;
    }
    let labels = labels(&record, resource, context);
    let level = level(&record).or_else(|| context.level.clone());
    let (time, clock) = match first(&record, &EVENT_TIME).and_then(moment::nanos) {
        Some(time) => (Some(time), Clock::Record),
        // Docker's and CRI's own time, to the nanosecond.
        None if record.get("stream").is_some() => match record.get("time").and_then(moment::nanos) {
            Some(time) => (Some(time), Clock::Record),
            None => (time.or_else(|| time_of(&record, pairs)), Clock::Arrival),
        },
        None => (time.or_else(|| time_of(&record, pairs)), Clock::Arrival),
    };
    let text = text(&record, pairs);
    batch.push(labels, level_details(level), time, clock, without_line_end(&text))
}

/// The text without the line ends after it; what Docker keeps, others have taken off.
fn without_line_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

pub(crate) fn level_details(level: Option<String>) -> BTreeMap<String, String> {
    level.map(|level| ("level".to_owned(), level)).into_iter().collect()
}

fn json(value: &Value<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    value.write_json(&mut out);
    out
}

fn text<'v>(record: &'v Value<'_>, pairs: &'v [(Bytes<'_>, Value<'_>)]) -> Cow<'v, [u8]> {
    let whole = |value: &'v Value<'_>| match value {
        Value::Text(text) => Cow::Borrowed(&**text),
        other => Cow::Owned(json(other)),
    };
    let line = LINE.iter().find_map(|key| {
        record.get(key).filter(|value| match value {
            Value::Null => false,
            // GELF's longer form is used only where there is one.
            Value::Text(text) => *key != "full_message" || !text.is_empty(),
            _ => true,
        })
    });
    if let Some(line) = line {
        return whole(line);
    }
    let message = first(record, &MESSAGE);
    // The journal with its names in small letters.
    let journal = record.get("boot_id").is_some();
    let tells_more = || !journal && pairs.iter().any(|(key, value)| !is_about(key) && !matches!(value, Value::Null));
    match message {
        Some(message) if !tells_more() => whole(message),
        _ => {
            let time = time_key(record, pairs);
            let kept = pairs.iter().filter(|(key, _)| Some(&**key) != time && **key != *b"__internal__");
            let mut out = Vec::new();
            write_json_map(kept.map(|(key, value)| (&**key, value)), &mut out);
            Cow::Owned(out)
        }
    }
}

/// Whether a field says where a message comes from, and nothing that belongs to it.
fn is_about(key: &[u8]) -> bool {
    let known = |names: &[&str]| names.iter().any(|name| name.as_bytes() == key);
    // The journal's fields are all written in capitals.
    key.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_')
        || [&MESSAGE[..], &HOST, &SERVICE, &FILE, &LEVEL, &TIME, &ABOUT].into_iter().any(known)
}

fn labels(record: &Value<'_>, resource: Option<&Value<'_>>, context: &Context) -> BTreeMap<String, String> {
    let mut labels = context.labels.clone();
    let mut set = |name: &str, value: Option<String>| {
        if let Some(mut value) = value {
            if value.len() > 512 {
                value = value.chars().take(128).collect();
            }
            labels.insert(name.to_owned(), value);
        }
    };
    let internal = record.at(&["__internal__", "group_attributes", "resource", "attributes"]);
    let kubernetes = record.get("kubernetes");
    let in_kubernetes = |key: &str| kubernetes.and_then(|kubernetes| kubernetes.get(key)).and_then(Value::word);
    let named = |keys: &[&str]| {
        [Some(record), resource, internal].into_iter().flatten().find_map(|place| first_word(place, keys))
    };

    let file = named(&FILE).or_else(|| record.at(&["log", "file", "path"]).and_then(Value::word));
    let container = file.as_deref().and_then(container_of);
    let host =
        named(&HOST).or_else(|| record.at(&["host", "name"]).and_then(Value::word)).or_else(|| in_kubernetes("host"));
    set("host", host);
    let service = in_kubernetes("container_name")
        .or_else(|| named(&SERVICE))
        .or_else(|| container.map(|(_, _, container)| container.to_owned()));
    set("service", service.map(|service| service.trim_start_matches('/').to_owned()));
    set("unit", named(&UNIT));
    set("pod", in_kubernetes("pod_name").or_else(|| container.map(|(pod, ..)| pod.to_owned())));
    set("namespace", in_kubernetes("namespace_name").or_else(|| container.map(|(_, space, _)| space.to_owned())));
    set("filename", file);
    labels
}

/// Pod, namespace and container in `/var/log/containers/web-7d9_prod_nginx-0123456789abcdef.log`.
fn container_of(path: &str) -> Option<(&str, &str, &str)> {
    let (folder, name) = path.rsplit_once('/')?;
    if !folder.ends_with("containers") {
        return None;
    }
    let mut parts = name.strip_suffix(".log")?.splitn(3, '_');
    let (pod, space, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (container, id) = rest.rsplit_once('-')?;
    id.bytes().all(|b| b.is_ascii_hexdigit()).then_some((pod, space, container))
}

fn level(record: &Value<'_>) -> Option<String> {
    let named = LEVEL.iter().find_map(|key| level_of(record.get(key)?));
    named.or_else(|| {
        let pri: u32 = record.get("pri")?.word()?.parse().ok()?;
        Some(Level::from_syslog((pri % 8) as u8)?.as_str().to_owned())
    })
}

fn level_of(value: &Value<'_>) -> Option<String> {
    let word = value.word()?;
    let level = match word.parse::<u32>() {
        Ok(number @ 0..=7) => Level::from_syslog(number as u8),
        // Pino and bunyan.
        Ok(10..=19) => Some(Level::Trace),
        Ok(20..=29) => Some(Level::Debug),
        Ok(30..=39) => Some(Level::Info),
        Ok(40..=49) => Some(Level::Warn),
        Ok(50..=59) => Some(Level::Error),
        Ok(60) => Some(Level::Critical),
        Ok(_) => None,
        Err(_) => Level::parse(&word),
    };
    level.map(|level| level.as_str().to_owned())
}

fn time_of(record: &Value<'_>, pairs: &[(Bytes<'_>, Value<'_>)]) -> Option<i64> {
    let key = time_key(record, pairs)?;
    pairs.iter().rev().find(|(name, _)| **name == *key).and_then(|(_, value)| moment::nanos(value))
}

/// The key that holds the record's time: a usual name, else the first field if it can only be a time (`json_date_key` may
/// be anything, and Fluent Bit writes it first).
fn time_key<'v>(record: &'v Value<'_>, pairs: &'v [(Bytes<'_>, Value<'_>)]) -> Option<&'v [u8]> {
    let usual = TIME.iter().find(|key| record.get(key).is_some_and(|value| moment::nanos(value).is_some()));
    if let Some(key) = usual {
        return Some(key.as_bytes());
    }
    let (key, value) = pairs.first()?;
    let recent = 1_400_000_000_000_000_000..4_100_000_000_000_000_000;
    moment::nanos(value).is_some_and(|nanos| recent.contains(&nanos)).then_some(&**key)
}
