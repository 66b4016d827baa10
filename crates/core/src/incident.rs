//! Incidents, and what happens to them.

use std::{collections::BTreeMap, sync::Arc};

use logwarden_detectors::{Category, Entity, ProfileName, Route, Severity};
use logwarden_templates::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::id::IncidentId;
use crate::{
    finding::{Cited, Evidence, Key},
    source::SourceId,
};

/// How loudly something is claimed (R5): a detector's claim ranks before any model's, then severity decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rank {
    /// Whether a detector claims it.
    pub detector: bool,
    /// How much it matters.
    pub severity: Severity,
}

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    /// It occurs.
    Firing,
    /// Nothing of it occurred for a window.
    Quiet {
        /// Since when that is known.
        since: Timestamp,
    },
    /// It turned out to be the same as an older one.
    Merged {
        /// Which one.
        into: IncidentId,
    },
}

/// Words with their author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prose {
    /// The words; a model's are capped. Hostile either way: models repeat what logs say.
    pub text: String,
    /// The model that wrote them; `None` for a rule's own words.
    pub model: Option<String>,
}

/// Things that did not fit, so that each is counted once however often it comes; more than a thousand are not told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Omitted(Vec<u32>);

impl Omitted {
    const MOST: usize = 1_000;

    /// Notes a thing; whether it is one more.
    pub(crate) fn note(&mut self, thing: Key) -> bool {
        let short = Self::short(thing);
        match self.0.binary_search(&short) {
            Err(at) if self.0.len() < Self::MOST => {
                self.0.insert(at, short);
                true
            }
            _ => false,
        }
    }

    /// Whether a thing was noted.
    pub(crate) fn has(&self, thing: Key) -> bool {
        self.0.binary_search(&Self::short(thing)).is_ok()
    }

    fn short(thing: Key) -> u32 {
        (thing.bits() >> 96) as u32
    }

    /// Notes all that another knows.
    pub(crate) fn note_all(&mut self, other: &Self) {
        self.0.extend(&other.0);
        self.0.sort_unstable();
        self.0.dedup();
        self.0.truncate(Self::MOST);
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Findings with the same identity over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its name.
    pub id: IncidentId,
    /// The source of its lines.
    pub source: SourceId,
    /// Where it stands.
    pub status: Status,
    /// The highest rank that was claimed.
    pub rank: Rank,
    /// Whether it goes to the channels, or into lists and summaries only.
    pub route: Route,
    /// What kind of trouble.
    pub category: Category,
    /// The profiles whose findings it has.
    pub profiles: Vec<ProfileName>,
    /// The rules and detectors that claim it (`rule:oom-kill`), and models (`model:qwen3`); for lists and mutes.
    pub claimed_by: Vec<String>,
    /// What, in one line.
    pub title: String,
    /// What it means: the rule's words, or a model's where only a model claims it.
    pub explanation: Option<Prose>,
    /// What a model adds to a rule's words. Never replaces them: a model can be talked into anything.
    pub comment: Option<Prose>,
    /// One safe next step.
    pub recommendation: Option<Prose>,
    /// What it is about; bounded.
    pub cited: Vec<Cited>,
    /// What it is about: the keys it owns, those it shares, and the marks of what tells its findings apart; bounded.
    pub keys: Vec<Key>,
    /// Keys that did not fit: then its messages are never another host's repeats (R4).
    #[serde(default)]
    pub omitted_keys: Omitted,
    /// Templates that did not fit.
    #[serde(default)]
    pub omitted_templates: Omitted,
    /// Real lines: the first ones and the latest; bounded.
    pub evidence: Vec<Evidence>,
    /// Who or what stands out; bounded, the most frequent first.
    pub entities: Vec<Entity>,
    /// Entities that did not fit.
    #[serde(default)]
    pub omitted_entities: Omitted,
    /// The latest of those that were not there when it began, the newest last; bounded.
    #[serde(default)]
    pub newcomers: Vec<Entity>,
    /// Events so far.
    pub count: u64,
    /// The first event.
    pub first: Timestamp,
    /// The latest event.
    pub last: Timestamp,
    /// When it was opened, by the wall clock.
    pub opened: Timestamp,
    /// When something of it was read last, by the wall clock.
    pub touched: Timestamp,
    /// The query that brought its first line, as the user wrote it; for links.
    pub query: Option<String>,
    /// The incident before it about the same thing, and when that was seen last.
    pub before: Option<(IncidentId, Timestamp)>,
    /// The sequence number of its next event.
    pub next_seq: u64,
    /// Every channel that takes it must know the events below this number: it began, it became worse.
    pub must_know: u64,
    /// What each channel was told last.
    pub told: BTreeMap<Arc<str>, Told>,
    /// The mute that holds its messages back, if any; it stays listed.
    pub muted_by: Option<String>,
    /// The mute that no longer does, because it became worse.
    pub outgrown: Option<String>,
    /// Only listed because the day's budget of alerts was spent.
    #[serde(default)]
    pub over_budget: bool,
    /// How it ended, in our words, where that is known: `nginx.service works again`. What comes later is news, however soon.
    #[serde(default)]
    pub over: Option<String>,
    /// The labels of the stream that it was seen in first, for mutes; bounded.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What a channel was told last about an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// It knows the events below this number; 0 when it must be told anew.
    pub knows: u64,
    /// What it has heard of.
    pub known: Vec<Key>,
    /// When it was announced there, by us or by another host.
    pub at: Timestamp,
    /// Whether our own message did. Only that is ever amended, explained or called quiet (R4).
    pub own: bool,
    /// The receipt of our own message, unless it is gone.
    pub receipt: Option<crate::notifier::Receipt>,
}

/// What happened to an incident. Append-only, and the only feed of outbox, lists and pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Whose.
    pub incident: IncidentId,
    /// Its number within the incident, from 0.
    pub seq: u64,
    /// When it was decided, by the wall clock.
    pub at: Timestamp,
    /// The time of the log lines that caused it.
    pub data: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// The incident's rank then.
    pub rank: Rank,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum EventKind {
    /// It began.
    Fired,
    /// A higher rank than any before.
    Escalated {
        /// The rank before.
        from: Rank,
    },
    /// It still occurs a window (or a day) after it was told last.
    Reminded,
    /// A model explained it.
    Explained,
    /// More of the same: shown by editing the message where that is possible.
    Grew {
        /// It is about more than before (another template, another file system): told even where nothing can be edited.
        news: bool,
    },
    /// Nothing of it occurred for a window.
    Quiet,
    /// It ended as part of another.
    Merged {
        /// Which one.
        into: IncidentId,
    },
}

impl EventKind {
    /// Whether every channel must hear of it: fired, escalated, reminded, news. The rest goes only to channels that this
    /// ledger's own rows told.
    pub fn is_announcement(&self) -> bool {
        matches!(self, Self::Fired | Self::Escalated { .. } | Self::Reminded | Self::Grew { news: true })
    }

    /// The word for it: `fired`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Escalated { .. } => "escalated",
            Self::Reminded => "reminded",
            Self::Explained => "explained",
            Self::Grew { .. } => "grew",
            Self::Quiet => "quiet",
            Self::Merged { .. } => "merged",
        }
    }
}
