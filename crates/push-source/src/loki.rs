//! Loki's push API: JSON, and protobuf (whose snappy is already off).

use std::{borrow::Cow, collections::BTreeMap, ops::ControlFlow};

use logwarden_core::{Stream, templates::Clock};

use crate::{
    batch::Batch,
    json::{self, Level, Listener},
    moment, record,
    record::Context,
    value::Value,
    window::{self, Window},
    wire::{self, Broken, Field, Fields, Head},
};

type Labels = BTreeMap<String, String>;

/// How many labels a stream may have.
const MAX_LABELS: usize = 64;

const LEVELS: [Level; 2] =
    [Level { about: &[], down: &["streams"] }, Level { about: &["stream", "labels"], down: &["values", "entries"] }];

/// Adds the entries of a JSON push. Lenient where Loki is strict (times as numbers): dropping helps nobody.
pub(crate) fn json(window: &mut Window<'_>, context: &Context, batch: &mut Batch<'_>) -> Result<(), String> {
    let mut push = Push { context, batch, labels: Labels::new(), has_streams: false, without_line: 0 };
    json::document(window, &LEVELS, &mut push)?;
    match push {
        Push { has_streams: false, .. } => Err("there are no `streams`".to_owned()),
        Push { without_line: 0, .. } => Ok(()),
        Push { without_line, .. } => Err(format!("{without_line} values have no line")),
    }
}

struct Push<'p, 's> {
    context: &'p Context,
    batch: &'p mut Batch<'s>,
    labels: Labels,
    has_streams: bool,
    without_line: u64,
}

impl Listener for Push<'_, '_> {
    fn begin(&mut self, _: usize) {
        self.labels = self.context.labels.clone();
    }

    fn found(&mut self) {
        self.has_streams = true;
    }

    fn about(&mut self, _: &[u8], mut value: Value<'_>) {
        json::restore(&mut value);
        match &value {
            Value::Map(pairs) => self.labels.extend(
                pairs
                    .iter()
                    .take(MAX_LABELS)
                    .filter_map(|(name, value)| Some((String::from_utf8_lossy(name).into_owned(), value.word()?))),
            ),
            Value::Text(text) => self.labels.extend(parse_labels(text)),
            _ => {}
        }
    }

    fn odd(&mut self, text: &[u8]) -> ControlFlow<()> {
        let text = window::restore(text).unwrap_or_else(|| text.to_vec());
        match self.batch.push(self.labels.clone(), Labels::new(), None, Clock::Arrival, &text) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    fn cut(&mut self, head: &[u8], bytes: u64) -> ControlFlow<()> {
        match self.batch.push_cut(&self.labels, head, bytes) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    fn record(&mut self, mut value: Value<'_>) -> ControlFlow<()> {
        json::restore(&mut value);
        let (time, line, metadata) = match &value {
            Value::List(parts) => (parts.first(), parts.get(1), parts.get(2)),
            // The legacy path: {"ts": …, "line": …}.
            Value::Map(_) => (value.get("ts"), value.get("line"), None),
            _ => (None, None, None),
        };
        let Some(Value::Text(line)) = line else {
            self.without_line += 1;
            return ControlFlow::Continue(());
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
        match push(self.labels.clone(), details, time, line, self.context, self.batch) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

/// Adds the entries of a `PushRequest`: streams (1) of labels (1) and entries (2).
pub(crate) fn protobuf(window: &mut Window<'_>, context: &Context, batch: &mut Batch<'_>) -> Result<(), Broken> {
    wire::messages(window, |window, end| {
        let mut labels = context.labels.clone();
        while window.position() < end {
            match wire::head(window)?.ok_or(Broken)? {
                (1, Head::Message(length)) => {
                    labels.extend(parse_labels(wire::message(window, length)?));
                    window.skip(length as usize);
                }
                (2, Head::Message(length)) if wire::is_too_long(length) => {
                    if !wire::cut(window, length, &labels, batch)? {
                        return Ok(false);
                    }
                }
                (2, Head::Message(length)) => {
                    if !entry(wire::message(window, length)?, &labels, context, batch)? {
                        return Ok(false);
                    }
                    window.skip(length as usize);
                }
                (_, Head::Message(length)) => wire::skip(window, length)?,
                (_, Head::Number) => {}
            }
        }
        Ok(true)
    })
}

/// Adds an entry: time (1), line (2), metadata (3).
fn entry(message: &[u8], labels: &Labels, context: &Context, batch: &mut Batch<'_>) -> Result<bool, Broken> {
    let (mut time, mut line, mut details) = (None, &b""[..], Labels::new());
    for field in Fields(message) {
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
    Ok(push(labels.clone(), details, time, line, context, batch))
}

/// A line of Fluent Bit's loki output is a whole record as JSON; of others it is the line itself.
fn push(
    labels: Labels,
    details: Labels,
    time: Option<i64>,
    line: &[u8],
    context: &Context,
    batch: &mut Batch<'_>,
) -> bool {
    if line.first() == Some(&b'{')
        && let Some(value @ Value::Map(_)) = json::value(line)
        && value.get("log").is_some_and(|log| matches!(log, Value::Text(_)))
    {
        let context = Context { labels, level: details.get("level").cloned().or_else(|| context.level.clone()) };
        return record::take(value, time, None, &context, batch);
    }
    batch.push(labels, details, time, Clock::Record, line)
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
