//! Loki's push API: JSON, and protobuf (whose snappy is already off).

use std::{borrow::Cow, collections::BTreeMap};

use logwarden_core::{Stream, templates::Clock};

use crate::{
    batch::Batch,
    json, moment, record,
    record::Context,
    value::Value,
    wire::{Broken, Field, Fields},
};

type Labels = BTreeMap<String, String>;

/// How many labels a stream may have.
const MAX_LABELS: usize = 64;

/// Adds the entries of a JSON push. Lenient where Loki is strict (times as numbers): dropping helps nobody.
pub(crate) fn json(body: &Value<'_>, context: &Context, batch: &mut Batch) -> Result<(), String> {
    let Some(Value::List(streams)) = body.get("streams") else {
        return if body == &Value::Map(Vec::new()) { Ok(()) } else { Err("there are no `streams`".to_owned()) };
    };
    let mut bad = 0;
    for stream in streams {
        let labels = match (stream.get("stream"), stream.get("labels")) {
            (Some(Value::Map(pairs)), _) => pairs
                .iter()
                .take(MAX_LABELS)
                .filter_map(|(name, value)| Some((String::from_utf8_lossy(name).into_owned(), value.word()?)))
                .collect(),
            (_, Some(Value::Text(text))) => parse_labels(text),
            _ => Labels::new(),
        };
        let labels = merged(context, labels);
        let Some(Value::List(values)) = stream.get("values").or_else(|| stream.get("entries")) else { continue };
        for value in values {
            let (time, line, metadata) = match value {
                Value::List(parts) => (parts.first(), parts.get(1), parts.get(2)),
                // The legacy path: {"ts": …, "line": …}.
                Value::Map(_) => (value.get("ts"), value.get("line"), None),
                _ => (None, None, None),
            };
            let Some(Value::Text(line)) = line else {
                bad += 1;
                continue;
            };
            let time = time.and_then(moment::nanos);
            let details = match metadata {
                Some(Value::Map(pairs)) => pairs
                    .iter()
                    .filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)))
                    .filter(|(name, _)| Stream::tells(name))
                    .filter_map(|(name, value)| Some((name.to_owned(), value.word()?)))
                    .collect(),
                _ => Labels::new(),
            };
            push(labels.clone(), details, time, line, context, batch);
        }
    }
    if bad > 0 { Err(format!("{bad} values have no line")) } else { Ok(()) }
}

/// Adds the entries of a `PushRequest`.
pub(crate) fn protobuf(body: &[u8], context: &Context, batch: &mut Batch) -> Result<(), Broken> {
    for field in Fields(body) {
        let (1, Field::Bytes(stream)) = field? else { continue };
        let mut labels = Labels::new();
        for field in Fields(stream) {
            if let (1, Field::Bytes(text)) = field? {
                labels = merged(context, parse_labels(text));
            }
        }
        for field in Fields(stream) {
            let (2, Field::Bytes(entry)) = field? else { continue };
            let (mut time, mut line, mut details) = (None, &b""[..], Labels::new());
            for field in Fields(entry) {
                match field? {
                    (1, Field::Bytes(stamp)) => time = Some(timestamp(stamp)?),
                    (2, Field::Bytes(text)) => line = text,
                    (3, Field::Bytes(pair)) => {
                        let (name, value) = pair_of(pair)?;
                        if Stream::tells(&name) {
                            details.insert(name, value);
                        }
                    }
                    _ => {}
                }
            }
            push(labels.clone(), details, time, line, context, batch);
        }
    }
    Ok(())
}

fn merged(context: &Context, labels: Labels) -> Labels {
    let mut all = context.labels.clone();
    all.extend(labels);
    all
}

/// A line of Fluent Bit's loki output is a whole record as JSON; of others it is the line itself.
fn push(labels: Labels, details: Labels, time: Option<i64>, line: &[u8], context: &Context, batch: &mut Batch) {
    if line.first() == Some(&b'{')
        && let Ok(value @ Value::Map(_)) = json::document(line)
        && value.get("log").is_some_and(|log| matches!(log, Value::Text(_)))
    {
        let context = Context { labels, level: details.get("level").cloned().or_else(|| context.level.clone()) };
        record::take(value, time, None, &context, batch);
        return;
    }
    batch.push(labels, details, time, Clock::Record, line);
}

fn timestamp(message: &[u8]) -> Result<i64, Broken> {
    let (mut secs, mut nanos) = (0_i64, 0_i64);
    for field in Fields(message) {
        match field? {
            (1, field) => secs = field.number() as i64,
            (2, field) => nanos = field.number() as i64,
            _ => {}
        }
    }
    Ok(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

fn pair_of(message: &[u8]) -> Result<(String, String), Broken> {
    let (mut name, mut value) = (Cow::Borrowed(""), Cow::Borrowed(""));
    for field in Fields(message) {
        match field? {
            (1, field) => name = String::from_utf8_lossy(field.bytes()),
            (2, field) => value = String::from_utf8_lossy(field.bytes()),
            _ => {}
        }
    }
    Ok((name.into_owned(), value.into_owned()))
}

/// `{job="x", host="web-3"}`. What cannot be read is left out: labels only name where a line comes from.
fn parse_labels(text: &[u8]) -> Labels {
    let text = String::from_utf8_lossy(text);
    let mut rest = text.trim().trim_start_matches('{');
    let mut labels = Labels::new();
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let Some(quoted) = after.strip_prefix('"') else { break };
        let (mut value, mut end, mut escaped) = (String::new(), None, false);
        for (at, c) in quoted.char_indices() {
            match c {
                _ if escaped => {
                    value.push(match c {
                        'n' => '\n',
                        't' => '\t',
                        other => other,
                    });
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    end = Some(at + 1);
                    break;
                }
                c => value.push(c),
            }
        }
        let Some(end) = end else { break };
        labels.insert(name.trim().to_owned(), value);
        if labels.len() >= MAX_LABELS {
            break;
        }
        rest = quoted[end..].trim_start().trim_start_matches(',').trim_start();
    }
    labels
}
