//! Messages: what a human is told, before any channel's limits and markup.
//!
//! Everything that came from a log or a model is [`Untrusted`]; each notifier must say how it makes such text harmless
//! on its platform before it can be used. What is ours (words, numbers, links we built) is plain.

use logwarden_detectors::{Category, Entity, Severity};
use logwarden_templates::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::IncidentId;

/// Text from a log line or a model: may hold markup, mentions, links, control characters, anything.
///
/// Has no `Display` on purpose: a notifier takes it apart with [`Untrusted::raw`] where it escapes it, and nowhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Untrusted(String);

impl Untrusted {
    /// Marks text as untrusted.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as it is, for escaping.
    pub fn raw(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.trim().is_empty()
    }
}

/// Names one message to one channel; stays the same through retries and crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SendId(#[serde(with = "crate::id::hex128")] pub u128);

/// One message to one channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its name; where a platform knows idempotency keys, this is the key.
    pub id: SendId,
    /// When it was made.
    pub at: Timestamp,
    /// What it says.
    pub body: Body,
    /// Whether an earlier attempt may have arrived (sent, but never confirmed).
    pub possible_repeat: bool,
}

impl Message {
    /// The severity to show and to route by.
    pub fn severity(&self) -> Option<Severity> {
        match &self.body {
            Body::Incidents { incidents, .. } => incidents.iter().map(|incident| incident.severity).max(),
            Body::Rollup(rollup) => rollup.counts.iter().filter(|(_, n)| *n > 0).map(|(severity, _)| *severity).max(),
            Body::Notice(notice) => Some(notice.severity),
            Body::Summary(summary) => summary.severity,
        }
    }
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Body {
    /// What happened to one incident, or to the same one on several hosts.
    Incidents {
        /// Why it is said now.
        occasion: Occasion,
        /// The incidents, worst first; one per host. Never empty.
        incidents: Vec<IncidentView>,
        /// What happened in the segment altogether, where it was judged.
        summary: Option<SummaryView>,
    },
    /// A storm: many incidents in one message.
    Rollup(Rollup),
    /// Something about logwarden or a unit itself: a failed unit, a broken channel, a test.
    Notice(Notice),
    /// A periodic summary.
    Summary(SummaryView),
}

/// Why an incident is spoken of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// It began.
    Fired,
    /// It became worse.
    Escalated,
    /// It still goes on.
    Reminded,
    /// The model has explained it.
    Explained,
    /// New entities or many more lines.
    Grew,
    /// It has not been seen for a window.
    Quiet,
    /// It is part of another incident.
    Merged,
}

/// An incident as a human is told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentView {
    /// Its name.
    pub id: IncidentId,
    /// How much it matters.
    pub severity: Severity,
    /// What kind of trouble.
    pub category: Category,
    /// What, in one line. From a rule's template with values from the log, or a model.
    pub title: Untrusted,
    /// The machine; empty where unknown.
    pub host: Untrusted,
    /// The unit, program or container; empty where unknown.
    pub service: Untrusted,
    /// How many more services of that machine it is about.
    #[serde(default)]
    pub other_services: u32,
    /// The first event.
    pub first: Timestamp,
    /// The latest event.
    pub last: Timestamp,
    /// Events so far.
    pub count: u64,
    /// Real lines, redacted, in order of time.
    pub evidence: Vec<EvidenceView>,
    /// Events that are not shown as lines.
    pub evidence_omitted: u64,
    /// What it means: a rule's words, or a model's where only a model claims it.
    pub explanation: Option<ProseView>,
    /// What a model adds to a rule's words.
    pub comment: Option<ProseView>,
    /// One safe next step.
    pub recommendation: Option<ProseView>,
    /// Who or what stands out, most frequent first.
    pub entities: Vec<Entity>,
    /// Entities that are not listed.
    pub entities_omitted: u64,
    /// Of them the latest that came while it went on, the newest last.
    #[serde(default)]
    pub newcomers: Vec<Entity>,
    /// The rule or detector that claims it (`rule oom-kill`), or that only the model does.
    pub claimed_by: String,
    /// Grafana Explore with the exact query and time; built by us.
    pub link: Option<String>,
    /// When the incident before it about the same thing was seen last.
    pub seen_before: Option<Timestamp>,
    /// The log lines were already this old when they were read (catching up).
    pub late_by_seconds: Option<u64>,
    /// The incident that it is part of now.
    pub merged_into: Option<IncidentId>,
    /// How it ended, where that is known and not only that nothing more was heard of it.
    #[serde(default)]
    pub over: Option<OverView>,
    /// How to mute it, as a command.
    pub mute: String,
}

/// The end of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverView {
    /// When that was found.
    pub at: Timestamp,
    /// A sentence of ours that may hold names: `nginx.service works again`.
    pub how: Untrusted,
}

/// A line of evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceView {
    /// When it was written.
    pub time: Timestamp,
    /// The text.
    pub text: Untrusted,
}

/// Words with their author.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProseView {
    /// The words.
    pub text: Untrusted,
    /// The model that wrote them; `None` for our own words.
    pub model: Option<String>,
}

/// Many incidents at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollup {
    /// How many of each severity, worst first.
    pub counts: Vec<(Severity, u64)>,
    /// The worst, at most ten.
    pub top: Vec<IncidentView>,
    /// Messages that this one stands for and that will not be sent one by one.
    pub suppressed: u64,
    /// The time it covers.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// Something about logwarden or a unit itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// How much it matters.
    pub severity: Severity,
    /// What, in our words.
    pub title: String,
    /// Facts, label and value.
    pub facts: Vec<(String, Untrusted)>,
    /// What to do, in our words; commands one per line.
    pub next_steps: Vec<String>,
}

/// What happened in a time, in a few sentences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryView {
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Physical lines read.
    pub lines: u64,
    /// The overall severity; `None` when nothing is wrong.
    pub severity: Option<Severity>,
    /// One to six sentences.
    pub text: ProseView,
}
