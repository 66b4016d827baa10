//! The periodic summary: what happened, in a few sentences, as an event like any other.
//!
//! It is told once per period, whoever comes first: the note of when the last one was told and the summary itself are one
//! commit, and from there on it is the outbox's. A day on which a source exceeded its budget is summed up in any case.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use logwarden_detectors::{Category, Route, Severity};
use logwarden_templates::{Origin, RootId};
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    decide::{Policy, book::Book, budget},
    finding::{Cited, Key, Scope},
    incident::{Incident, Prose, Rank, Status},
    ledger::{Incidents, Query, Snapshot, Versioned, Write},
    message::{ProseView, SummaryView, Untrusted},
    plain,
    source::SourceId,
};

/// Who claims a summary.
const BY: &str = "logwarden:summary";
/// The value that says when the last one was told.
const NAME: &str = "summary";
/// Incidents looked at.
const MOST: usize = 1_000;
/// Titles named of each kind.
const TITLES: usize = 5;
/// A summary is due this often where the user has not said how often.
const DAY: Duration = Duration::from_secs(86_400);

/// What was known when the last one was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    at: Timestamp,
    lines: u64,
    over: u64,
}

/// Whether an incident is a summary, which nothing else is like.
pub fn is_summary(incident: &Incident) -> bool {
    incident.claimed_by.iter().any(|by| by == BY)
}

/// What must be read before [`due`]: little, since it is asked often.
pub fn when() -> Query {
    Query { values: vec![NAME.to_owned()], ..Query::default() }
}

/// Whether a summary is due, or the first period begins.
pub fn due(policy: &Policy, snapshot: &Snapshot, now: Timestamp) -> bool {
    let period = policy.summary_every.unwrap_or(DAY);
    told(snapshot, now).is_none_or(|told| now.since(told.at) >= period)
}

/// What must be read before [`tell`].
pub fn query() -> Query {
    let values = vec![NAME.to_owned()];
    Query { incidents: Incidents::Latest { limit: MOST }, values, counters: true, ..Book::query(Vec::new()) }
}

/// Tells what happened since the last one, if one is due.
pub fn tell(
    policy: &Policy,
    snapshot: &Snapshot,
    source: &SourceId,
    scope: Scope,
    now: Timestamp,
) -> Option<Vec<Write>> {
    if !due(policy, snapshot, now) {
        return None;
    }
    let counter = |name: &str| snapshot.counters.get(name).copied().unwrap_or(0);
    let next = Told { at: now, lines: counter("lines_read"), over: counter(budget::OVER) };
    let known = told(snapshot, now);
    let note = serde_json::to_value(next).ok()?;
    let version = snapshot.values.get(NAME).map_or(0, |value| value.version);
    let mut writes = vec![Write::Value(NAME.to_owned(), Versioned { version, row: note })];
    let Some(before) = known else { return Some(writes) };
    let over = next.over.saturating_sub(before.over);
    if policy.summary_every.is_none() && over == 0 {
        return Some(writes);
    }
    let mut book = Book::open(policy, snapshot, source.clone(), now)?;
    let lines = next.lines.saturating_sub(before.lines);
    let period = Period { from: before.at, to: now, lines, over };
    book.tell_once(|id| incident(snapshot, period, id, source, scope));
    writes.extend(book.close());
    Some(writes)
}

#[derive(Clone, Copy)]
struct Period {
    from: Timestamp,
    to: Timestamp,
    lines: u64,
    over: u64,
}

fn incident(
    snapshot: &Snapshot,
    period: Period,
    id: crate::incident::IncidentId,
    source: &SourceId,
    scope: Scope,
) -> Incident {
    let (text, worst, any) = words(snapshot, period);
    let root = RootId::of(&[b"logwarden", b"summary", &period.to.nanos().to_be_bytes()]);
    let cited = Cited { scope, leaf: None, root, template: "Summary".into(), anomalous: true };
    let keys: Vec<Key> = cited.keys().collect();
    let prose = |text: &str| Some(Prose { text: text.to_owned(), model: None });
    Incident {
        id,
        source: source.clone(),
        status: Status::Quiet { since: period.to },
        rank: Rank { detector: true, severity: worst },
        route: Route::Alert,
        category: Category::Other,
        profiles: Vec::new(),
        claimed_by: vec![BY.to_owned()],
        title: "Summary".to_owned(),
        explanation: prose(&text),
        comment: None,
        // Only where there is something to look at.
        recommendation: any.then(|| prose("Look at the list of incidents.")).flatten(),
        cited: vec![cited],
        keys,
        omitted_keys: Default::default(),
        omitted_templates: Default::default(),
        over: None,
        evidence: Vec::new(),
        entities: Vec::new(),
        omitted_entities: Default::default(),
        newcomers: Vec::new(),
        count: period.lines,
        first: period.from,
        last: period.to,
        opened: period.to,
        touched: period.to,
        query: None,
        before: None,
        next_seq: 0,
        must_know: 0,
        told: BTreeMap::new(),
        muted_by: None,
        outgrown: None,
        over_budget: false,
        labels: BTreeMap::new(),
    }
}

/// A summary as a message shows it.
pub(super) fn view(incident: &Incident) -> SummaryView {
    let text = incident.explanation.as_ref().map(|prose| prose.text.clone()).unwrap_or_default();
    SummaryView {
        from: incident.first,
        to: incident.last,
        lines: incident.count,
        severity: incident.recommendation.is_some().then_some(incident.rank.severity),
        text: ProseView { text: Untrusted::new(text), model: None },
    }
}

/// The scope of what is about logwarden itself.
pub fn scope(tenant: Arc<str>, host: Arc<str>) -> Scope {
    Scope { tenant, origin: Arc::new(Origin { host, service: "logwarden".into() }) }
}

/// When the last one was told. What is later than now was noted by a clock that was ahead: then a period begins.
fn told(snapshot: &Snapshot, now: Timestamp) -> Option<Told> {
    let value = snapshot.values.get(NAME)?;
    serde_json::from_value(value.row.clone()).ok().filter(|told: &Told| told.at <= now)
}

/// Two to six sentences, how bad the worst is, and whether there was anything.
fn words(snapshot: &Snapshot, period: Period) -> (String, Severity, bool) {
    let all = snapshot.incidents.values().map(|incident| &incident.row).filter(|incident| !is_summary(incident));
    let mut recent: Vec<&Incident> =
        all.filter(|incident| incident.opened >= period.from && incident.opened < period.to).collect();
    recent.sort_by_key(|incident| (std::cmp::Reverse(incident.rank.severity), incident.opened));
    let (muted, open): (Vec<&Incident>, Vec<&Incident>) =
        recent.iter().partition(|incident| incident.muted_by.is_some());
    let (alerted, listed): (Vec<&Incident>, Vec<&Incident>) =
        open.iter().partition(|incident| incident.route == Route::Alert);
    let mut text = format!("{} read.", plural(period.lines, "line"));
    match alerted.len() {
        0 => text.push_str(" No incident was alerted."),
        _ => text.push_str(&format!(" {} alerted: {}.", incidents(&alerted), titles(&alerted))),
    }
    if !listed.is_empty() {
        text.push_str(&format!(" {} only listed: {}.", incidents(&listed), titles(&listed)));
    }
    if period.over > 0 {
        text.push_str(&format!(" {} of them would have been alerted, but the day's budget was used up.", period.over));
    }
    if !muted.is_empty() {
        text.push_str(&format!(" {} muted.", incidents(&muted)));
    }
    if recent.len() >= MOST {
        text.push_str(" There were more than are counted here.");
    }
    let worst = alerted.iter().map(|incident| incident.rank.severity).max().unwrap_or(Severity::Low);
    (text, worst, !alerted.is_empty() || period.over > 0)
}

fn titles(incidents: &[&Incident]) -> String {
    let some = incidents.iter().take(TITLES).map(|incident| plain::head(&plain::line(&incident.title), 80));
    let titles: Vec<String> = some.collect();
    format!("{}{}", titles.join("; "), if incidents.len() > TITLES { "; and others" } else { "" })
}

fn incidents(of: &[&Incident]) -> String {
    plural(of.len() as u64, "incident")
}

fn plural(n: u64, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}
