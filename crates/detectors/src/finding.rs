//! Signals and findings: what a detector saw, and what it claims.

use std::{fmt, sync::Arc};

use logwarden_templates::{LeafId, Origin, RootId, Timestamp};
use memchr::memmem;
use serde::{Deserialize, Serialize};

use crate::{Category, Severity};

/// The name of a profile: `general`, `security`, `performance`, or one of the user's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProfileName(Arc<str>);

impl ProfileName {
    /// A profile name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The profile for anomalies of any kind.
    pub fn general() -> Self {
        Self::new("general")
    }

    /// The profile for security events.
    pub fn security() -> Self {
        Self::new("security")
    }

    /// The profile for performance.
    pub fn performance() -> Self {
        Self::new("performance")
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a detector saw about rows of a delta.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Signal {
    /// What it saw.
    pub kind: SignalKind,
    /// Indices of the rows in the delta; empty for silence.
    pub rows: Vec<u32>,
    /// How surprising, as −log10 of a probability where there is one; larger is more.
    pub score: f64,
    /// Who or what stands out.
    pub entities: Vec<Entity>,
}

/// The kinds of signals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum SignalKind {
    /// A template that the memory does not have. Never one that came about by generalising known ones.
    Novel,
    /// More than usual.
    Surge {
        /// Events expected in that time.
        expected: f64,
        /// Events seen.
        seen: u64,
    },
    /// A regular template stopped.
    Silent {
        /// Seconds since the last event.
        quiet_seconds: u64,
        /// The usual gap in seconds.
        usual_gap_seconds: u64,
    },
    /// A whole source stopped.
    SourceSilent {
        /// Seconds since the last line.
        quiet_seconds: u64,
    },
    /// A value that a stable slot never had.
    NewValue,
    /// Many failures of one entity.
    Burst {
        /// How many in the busiest window.
        seen: u64,
        /// The window in seconds.
        window_seconds: u64,
    },
    /// A success of an entity after its failures.
    SuccessAfterFailures {
        /// How many failures came before.
        failures: u64,
    },
    /// More warnings and errors than usual.
    LevelMix,
    /// A known classic.
    Signature {
        /// The rule's id.
        rule: String,
    },
}

impl SignalKind {
    /// A short name for digests and logs: `new`, `surge`, `rule oom-kill`.
    pub fn label(&self) -> String {
        match self {
            Self::Novel => "new".into(),
            Self::Surge { expected, seen } => format!("surge {seen} vs {expected:.0}"),
            Self::Silent { quiet_seconds, .. } => format!("silent {quiet_seconds}s"),
            Self::SourceSilent { quiet_seconds } => format!("source silent {quiet_seconds}s"),
            Self::NewValue => "new value".into(),
            Self::Burst { seen, window_seconds } => format!("burst {seen} in {window_seconds}s"),
            Self::SuccessAfterFailures { failures } => format!("success after {failures} failures"),
            Self::LevelMix => "more errors".into(),
            Self::Signature { rule } => format!("rule {rule}"),
        }
    }
}

/// An address, a user, a unit that stands out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entity {
    /// What it is.
    pub kind: EntityKind,
    /// Its value as the log has it.
    pub value: Arc<str>,
    /// Events with it.
    pub count: u64,
}

/// The kinds of entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntityKind {
    /// An IP address.
    Ip,
    /// A user.
    User,
    /// A unit, service or container.
    Unit,
    /// A host.
    Host,
    /// A device or file system.
    Device,
    /// Anything else.
    Other,
}

impl Entity {
    /// Whether a text names it: as a word of its own, not as a part of a longer word, number or address.
    pub fn is_named_in(&self, text: &[u8]) -> bool {
        let value = self.value.as_bytes();
        let begins = |before: &[u8]| match before {
            [.., digit, b'.'] => !digit.is_ascii_digit(),
            [.., digit, b':'] if value.contains(&b':') => !digit.is_ascii_hexdigit(),
            [.., byte] => !byte.is_ascii_alphanumeric(),
            [] => true,
        };
        let ends = |after: &[u8]| match after {
            [b'.', digit, ..] => !digit.is_ascii_digit(),
            [b':', digit, ..] if value.contains(&b':') => !digit.is_ascii_hexdigit(),
            [byte, ..] => !byte.is_ascii_alphanumeric(),
            [] => true,
        };
        let mut places = memmem::find_iter(text, value);
        !value.is_empty() && places.any(|at| begins(&text[..at]) && ends(&text[at + value.len()..]))
    }
}

/// A template of an origin that a finding is about although no row of the delta has it (silence).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// Who.
    pub origin: Arc<Origin>,
    /// A leaf, where one is known.
    pub leaf: Option<LeafId>,
    /// The template.
    pub root: RootId,
    /// Its text.
    pub template: Arc<str>,
    /// When it was seen last.
    pub last: Timestamp,
}

/// Who claims a finding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum By {
    /// A rule of the rule set.
    Rule {
        /// Its id.
        id: String,
    },
    /// A detector.
    Detector {
        /// Its name: `novel`, `surge`, `silence`, …
        name: String,
    },
    /// A model.
    Model {
        /// Its name.
        name: String,
    },
}

impl By {
    /// Whether a model claims it.
    pub fn is_model(&self) -> bool {
        matches!(self, Self::Model { .. })
    }
}

/// Where a finding goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// Into lists and summaries only: novelty before the memory has learned, or over the budget.
    Digest,
    /// To the channels.
    Alert,
}

/// A claim about cited rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Who claims it.
    pub by: By,
    /// The profile it belongs to.
    pub profile: ProfileName,
    /// What kind of trouble.
    pub category: Category,
    /// How much it matters.
    pub severity: Severity,
    /// Below this nothing may lower it; `None` for a model's findings.
    pub floor: Option<Severity>,
    /// Where it goes.
    pub route: Route,
    /// What, in one line, without a count that changes while it goes on: `Failed SSH logins from 203.0.113.7`.
    pub title: String,
    /// What it means.
    pub explanation: String,
    /// One safe next step.
    pub recommendation: String,
    /// Cited rows of the delta, the most telling first.
    pub rows: Vec<u32>,
    /// Of those, the rows that are anomalous themselves (not merely context): their templates give the keys.
    pub anomalous: Vec<u32>,
    /// Templates that are the subject although they have no row (silence); they give keys, too.
    pub absent: Vec<Subject>,
    /// What tells apart two incidents of one template, such as a file system or a unit; empty when the template suffices.
    pub discriminator: String,
    /// Who or what stands out, most first.
    pub entities: Vec<Entity>,
    /// For ranking within a severity; larger first.
    pub score: f64,
    /// Events it is about.
    pub count: u64,
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_whole_words_only() {
        for (value, text, named) in [
            ("203.0.113.7", "from 203.0.113.7 port 4", true),
            ("203.0.113.7", "from 203.0.113.7.", true),
            ("203.0.113.7", "[::ffff:203.0.113.7]:4711", true),
            ("203.0.113.7", "203.0.113.7:4711", true),
            ("203.0.113.7", "from 203.0.113.77", false),
            ("203.0.113.7", "from 203.0.113.77 and 203.0.113.7", true),
            ("203.0.113.7", "from 1203.0.113.7", false),
            ("3.0.113.7", "from 20.3.0.113.7", false),
            ("2001:db8::7", "from 2001:db8::7:1", false),
            ("2001:db8::7", "from fe80:2001:db8::7", false),
            ("2001:db8::7", "from 2001:db8::7: refused", true),
            ("root", "chroot", false),
            ("root", "for root", true),
            ("root", "", false),
            ("", "anything", false),
        ] {
            let entity = Entity { kind: EntityKind::Other, value: value.into(), count: 1 };
            assert_eq!(entity.is_named_in(text.as_bytes()), named, "{value} in {text}");
        }
    }
}
