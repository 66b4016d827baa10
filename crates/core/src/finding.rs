//! Grounded findings: claims whose evidence is in our own store.

use std::{collections::BTreeMap, fmt, sync::Arc};

use logwarden_detectors::{By, Category, Entity, ProfileName, Route, Severity};
use logwarden_templates::{LeafId, LineId, Origin, RootId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::id::{IncidentId, hex128};

/// Who something happened to: tenant, host and service. Every key hangs on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The tenant; empty where there is only one.
    pub tenant: Arc<str>,
    /// Host and service.
    pub origin: Arc<Origin>,
}

/// The identity of what is wrong: hash of a scope and a root, or of a scope and a leaf. No word of a model, no profile,
/// no category is in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(#[serde(with = "hex128")] u128);

impl Key {
    /// The key of a root in a scope.
    pub fn of_root(scope: &Scope, root: RootId) -> Self {
        Self::of(scope, b"root", root.bits())
    }

    /// The key of a leaf in a scope.
    pub fn of_leaf(scope: &Scope, leaf: LeafId) -> Self {
        Self::of(scope, b"leaf", leaf.bits())
    }

    /// The key of what tells two findings of one rule apart, such as a file system. Nobody owns it: it joins nothing, and
    /// only says what was told.
    pub fn of_mark(scope: &Scope, by: &By, discriminator: &str) -> Self {
        let by = match by {
            By::Rule { id } => id,
            By::Detector { name } | By::Model { name } => name,
        };
        let origin = &scope.origin;
        let parts: [&[u8]; 6] = [
            b"mark",
            scope.tenant.as_bytes(),
            origin.host.as_bytes(),
            origin.service.as_bytes(),
            by.as_bytes(),
            discriminator.as_bytes(),
        ];
        Self(LineId::of(&parts).bits())
    }

    /// A key that only one incident of one ledger has.
    pub fn of_incident(incident: IncidentId) -> Self {
        Self(LineId::of(&[b"only", &incident.bits().to_be_bytes()]).bits())
    }

    fn of(scope: &Scope, kind: &[u8], bits: u128) -> Self {
        let origin = &scope.origin;
        let parts =
            [kind, scope.tenant.as_bytes(), origin.host.as_bytes(), origin.service.as_bytes(), &bits.to_be_bytes()];
        Self(LineId::of(&parts).bits())
    }

    /// The key with these bits, as a store kept them.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits, as a store keeps them.
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:032x})", self.0)
    }
}

/// A template that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cited {
    /// Who said it.
    pub scope: Scope,
    /// The leaf; `None` for a silent template of which only the root is known.
    pub leaf: Option<LeafId>,
    /// Its root when the finding was made.
    pub root: RootId,
    /// The template's text.
    pub template: Arc<str>,
    /// Whether it is anomalous itself (gives keys), or context.
    pub anomalous: bool,
}

impl Cited {
    /// The keys that this citation gives: none when it is context only.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let root = Key::of_root(&self.scope, self.root);
        let leaf = self.leaf.map(|leaf| Key::of_leaf(&self.scope, leaf));
        std::iter::once(root).chain(leaf).filter(|_| self.anomalous)
    }
}

/// A line shown as evidence: stored text, redacted, never a model's copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// When it was written.
    pub time: Timestamp,
    /// Who wrote it.
    pub origin: Arc<Origin>,
    /// The text; bytes that are not UTF-8 are shown as U+FFFD.
    pub text: String,
}

/// A finding whose every citation exists, with its evidence from the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grounded {
    /// Who claims it.
    pub by: By,
    /// The profile it belongs to.
    pub profile: ProfileName,
    /// What kind of trouble.
    pub category: Category,
    /// How much it matters: never below the floor of any detector finding about the same rows.
    pub severity: Severity,
    /// Where it goes.
    pub route: Route,
    /// What, in one line. From a rule, or the model's words, capped.
    pub title: String,
    /// What it means.
    pub explanation: String,
    /// One safe next step.
    pub recommendation: String,
    /// What it is about, the most telling first; never empty.
    pub cited: Vec<Cited>,
    /// What tells it apart from another finding of the same rule about the same template, such as a file system; empty
    /// when the template suffices.
    pub discriminator: String,
    /// Lines, in order of time.
    pub evidence: Vec<Evidence>,
    /// Who or what stands out; addresses, users and hosts come from stored slots.
    pub entities: Vec<Entity>,
    /// The query that brought the first cited row, as the user wrote it; for links.
    pub query: Option<String>,
    /// The labels of the stream that the first cited row began in, for mutes; bounded.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For ranking within a severity.
    pub score: f64,
    /// Events it is about.
    pub count: u64,
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
}

impl Grounded {
    /// The keys of all anomalous citations, sorted, each once.
    pub fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<_> = self.cited.iter().flat_map(Cited::keys).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The key of what tells it apart, if anything does.
    pub fn mark(&self) -> Option<Key> {
        let cited = self.cited.iter().find(|cited| cited.anomalous)?;
        (!self.discriminator.is_empty()).then(|| Key::of_mark(&cited.scope, &self.by, &self.discriminator))
    }

    /// The scope it is shown under: that of its first citation.
    pub fn scope(&self) -> Option<&Scope> {
        self.cited.first().map(|cited| &cited.scope)
    }

    /// The same for the same thing in every run: the key of the first anomalous citation's root.
    pub fn fingerprint(&self) -> Option<Key> {
        self.cited.iter().find_map(|cited| cited.keys().next())
    }
}
