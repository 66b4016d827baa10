//! A message as JSON, for machines: versioned, bounded, without control or invisible characters.

use logwarden_core::{
    Severity, Timestamp,
    detectors::{Entity, EntityKind},
    message::{Body, IncidentView, Message, Notice, Occasion, ProseView, Rollup, SummaryView},
    notifier::Form,
};
use serde::Serialize;

use crate::{
    story::{self, Evidence},
    text::{Clean, Data, Link, Safe},
    words,
};

type Text = Safe<Data>;

/// The version of this document. New members may appear within a version; nothing is renamed or removed.
const VERSION: u32 = 1;
const MOST_INCIDENTS: usize = 100;
const MOST_LINES: usize = 20;
const PROSE: usize = 4_000;

/// A message as JSON. Its outer shape is that of Standard Webhooks: `type`, `timestamp`, `data`.
#[derive(Debug, Serialize)]
pub(crate) struct Document {
    r#type: &'static str,
    timestamp: String,
    version: u32,
    id: String,
    data: Content,
}

#[derive(Debug, Serialize)]
struct Content {
    headline: String,
    severity: Option<Severity>,
    possible_repeat: bool,
    reduced: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incidents: Vec<Incident>,
    #[serde(skip_serializing_if = "is_zero")]
    incidents_omitted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollup: Option<RollupPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<NoticePart>,
}

#[derive(Debug, Serialize)]
struct Incident {
    id: String,
    full_id: String,
    severity: Severity,
    category: &'static str,
    host: Text,
    service: Text,
    other_services: u32,
    first_seen: String,
    last_seen: String,
    count: u64,
    link: Option<Link>,
    #[serde(flatten)]
    details: Option<Details>,
}

#[derive(Debug, Serialize)]
struct Details {
    title: Text,
    log_lines: Vec<Line>,
    log_lines_omitted: u64,
    explanation: Option<Prose>,
    comment: Option<Prose>,
    recommendation: Option<Prose>,
    entities: Vec<EntityPart>,
    entities_omitted: u64,
    claimed_by: Text,
    seen_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    over: Option<Over>,
    late_by_seconds: Option<u64>,
    merged_into: Option<String>,
    mute: Text,
}

#[derive(Debug, Serialize)]
struct Line {
    time: String,
    text: Text,
}

#[derive(Debug, Serialize)]
struct Prose {
    text: Text,
    /// The model that wrote it; null for a rule's own words.
    model: Option<Text>,
}

#[derive(Debug, Serialize)]
struct EntityPart {
    kind: EntityKind,
    value: Text,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Summary {
    from: String,
    to: String,
    lines: u64,
    severity: Option<Severity>,
    text: Option<Prose>,
}

#[derive(Debug, Serialize)]
struct RollupPart {
    from: String,
    to: String,
    counts: Vec<SeverityCount>,
    suppressed: u64,
}

#[derive(Debug, Serialize)]
struct SeverityCount {
    severity: Severity,
    count: u64,
}

#[derive(Debug, Serialize)]
struct NoticePart {
    title: Text,
    facts: Vec<Fact>,
    next_steps: Vec<Text>,
}

#[derive(Debug, Serialize)]
struct Fact {
    label: Text,
    value: Text,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Document {
    pub(crate) fn of(message: &Message, form: Form) -> Self {
        let full = form == Form::Full;
        let mut data = Content {
            headline: words::headline(message).into_string(),
            severity: message.severity(),
            possible_repeat: message.possible_repeat,
            reduced: !full,
            incidents: Vec::new(),
            incidents_omitted: 0,
            summary: None,
            rollup: None,
            notice: None,
        };
        match &message.body {
            Body::Incidents { incidents: all, summary: told, .. } => {
                data.incidents = all.iter().take(MOST_INCIDENTS).map(|view| incident(view, full)).collect();
                data.incidents_omitted = all.len().saturating_sub(MOST_INCIDENTS) as u64;
                data.summary = told.as_ref().map(|told| summary(told, full));
            }
            Body::Rollup(storm) => {
                data.incidents = storm.top.iter().take(10).map(|view| incident(view, full)).collect();
                data.rollup = Some(rollup(storm));
            }
            Body::Notice(told) => data.notice = full.then(|| notice(told)),
            Body::Summary(told) => data.summary = Some(summary(told, full)),
        }
        Self {
            r#type: kind(&message.body),
            timestamp: words::iso(message.at),
            version: VERSION,
            id: delivery_id(message),
            data,
        }
    }
}

/// The same through all attempts: receivers recognise repeats by it.
pub(crate) fn delivery_id(message: &Message) -> String {
    format!("msg_{:032x}", message.id.0)
}

fn kind(body: &Body) -> &'static str {
    match body {
        Body::Incidents { occasion, .. } => match occasion {
            Occasion::Fired => "incident.fired",
            Occasion::Escalated => "incident.escalated",
            Occasion::Reminded => "incident.reminded",
            Occasion::Explained => "incident.explained",
            Occasion::Grew => "incident.grew",
            Occasion::Quiet => "incident.quiet",
            Occasion::Merged => "incident.merged",
        },
        Body::Rollup(_) => "rollup",
        Body::Notice(_) => "notice",
        Body::Summary(_) => "summary",
    }
}

fn line(raw: &str, units: usize) -> Text {
    Text::of(&Clean::line(raw), units)
}

fn prose(prose: &ProseView) -> Prose {
    Prose { text: line(prose.text.raw(), PROSE), model: prose.model.as_deref().map(|model| line(model, 200)) }
}

fn time(time: Timestamp) -> String {
    words::iso(time)
}

/// A host or service: as it is, or in the reduced form as a word of ours.
fn name(raw: &str, full: bool) -> Text {
    if full {
        return line(raw, 255);
    }
    let mut name = Text::new();
    name.words(&words::name(raw));
    name
}

fn incident(view: &IncidentView, full: bool) -> Incident {
    Incident {
        id: view.id.short(),
        full_id: view.id.to_string(),
        severity: view.severity,
        category: view.category.as_str(),
        host: name(view.host.raw(), full),
        service: name(view.service.raw(), full),
        other_services: view.other_services,
        first_seen: time(view.first),
        last_seen: time(view.last),
        count: view.count,
        link: view.link.as_deref().and_then(Link::new),
        details: full.then(|| details(view)),
    }
}

fn details(view: &IncidentView) -> Details {
    let shown = Evidence::choose(&view.evidence, MOST_LINES);
    let hidden = (view.evidence.len() - shown.len()) as u64;
    let part = |entity: &Entity| EntityPart { kind: entity.kind, value: line(&entity.value, 200), count: entity.count };
    Details {
        title: Text::of(&story::title(view), 500),
        log_lines: shown
            .iter()
            .map(|shown| Line { time: time(shown.time), text: Text::of(&Clean::log_line(shown.text.raw()), PROSE) })
            .collect(),
        log_lines_omitted: view.evidence_omitted.saturating_add(hidden),
        explanation: view.explanation.as_ref().map(prose),
        comment: view.comment.as_ref().map(prose),
        recommendation: view.recommendation.as_ref().map(prose),
        entities: view.entities.iter().take(50).map(part).collect(),
        entities_omitted: view.entities_omitted.saturating_add(view.entities.len().saturating_sub(50) as u64),
        claimed_by: line(&view.claimed_by, 200),
        seen_before: view.seen_before.map(time),
        over: view.over.as_ref().map(|over| Over { at: time(over.at), how: line(over.how.raw(), 300) }),
        late_by_seconds: view.late_by_seconds,
        merged_into: view.merged_into.map(|into| into.short()),
        mute: line(&view.mute, 300),
    }
}

/// How it ended, and when that was found.
#[derive(Debug, Serialize)]
struct Over {
    at: String,
    how: Text,
}

fn summary(view: &SummaryView, full: bool) -> Summary {
    Summary {
        from: time(view.from),
        to: time(view.to),
        lines: view.lines,
        severity: view.severity,
        text: full.then(|| prose(&view.text)),
    }
}

fn rollup(view: &Rollup) -> RollupPart {
    RollupPart {
        from: time(view.from),
        to: time(view.to),
        counts: view
            .counts
            .iter()
            .take(4)
            .map(|(severity, count)| SeverityCount { severity: *severity, count: *count })
            .collect(),
        suppressed: view.suppressed,
    }
}

fn notice(view: &Notice) -> NoticePart {
    NoticePart {
        title: line(&view.title, 500),
        facts: view
            .facts
            .iter()
            .take(50)
            .map(|(label, value)| Fact {
                label: line(label, 100),
                value: Text::of(&Clean::log_line(value.raw()), PROSE),
            })
            .collect(),
        next_steps: view.next_steps.iter().take(20).map(|step| Text::of(&Clean::log_line(step), 500)).collect(),
    }
}
