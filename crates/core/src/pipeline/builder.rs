//! Puts a pipeline together.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::lock::Mutex;
use logwarden_detectors::{RuleSet, Settings};

use super::{Limits, Pipeline, SourceSlot, Trail, in_time::InTime};
use crate::{
    classifier::Classifier,
    decide::{Links, Policy},
    dedup::DedupStore,
    env::Env,
    ledger::{Ledger, ProcessId},
    memory_dedup::MemoryDedup,
    memory_ledger::MemoryLedger,
    notifier::Notifier,
    profile::Profile,
    redact::{PatternError, Redactor},
    source::{LogSource, MAX_QUERIES},
};

/// Collects the parts of a [`Pipeline`]. Required: an [`Env`] and a source.
#[derive(Debug, Default)]
pub struct Builder {
    env: Option<Arc<dyn Env>>,
    ledger: Option<Arc<dyn Ledger>>,
    dedup: Option<Arc<dyn DedupStore>>,
    sources: Vec<Arc<dyn LogSource>>,
    classifier: Option<Arc<dyn Classifier>>,
    notifiers: Vec<Arc<dyn Notifier>>,
    profiles: Vec<Profile>,
    rules: Option<RuleSet>,
    settings: Settings,
    policy: PolicyParts,
    redactor: Option<Arc<Redactor>>,
    limits: Limits,
    miner: logwarden_templates::Config,
    tenant: String,
    host: String,
    trail: Option<Arc<dyn Trail>>,
}

#[derive(Default)]
struct PolicyParts {
    policy: Option<Policy>,
    links: Option<Links>,
}

impl std::fmt::Debug for PolicyParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.policy.fmt(f)
    }
}

/// Why no pipeline could be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// [`Builder::env`] was not called.
    #[error("a pipeline needs an environment: call `env`")]
    NoEnv,
    /// Too many queries for one source.
    #[error("source `{source_id}` has {count} queries, at most {MAX_QUERIES} are possible")]
    TooManyQueries {
        /// Which source.
        source_id: String,
        /// How many it has.
        count: usize,
    },
    /// Two of a kind with one name.
    #[error("two {what} are called `{name}`")]
    Twice {
        /// What they are.
        what: &'static str,
        /// Their name.
        name: String,
    },
    /// The patterns of redaction.
    #[error("redaction cannot be set up")]
    Redaction(#[source] PatternError),
    /// A source names a profile that nobody has defined.
    #[error("source `{source_id}` names the profile `{profile}`, which does not exist")]
    UnknownProfile {
        /// Which source.
        source_id: String,
        /// The name.
        profile: String,
    },
}

impl Builder {
    /// The clock, the timer and the dice.
    #[must_use]
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = Some(env);
        self
    }

    /// Where state is kept; default: in memory.
    #[must_use]
    pub fn ledger(mut self, ledger: Arc<dyn Ledger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// One voice among several hosts; default: in memory.
    #[must_use]
    pub fn dedup(mut self, dedup: Arc<dyn DedupStore>) -> Self {
        self.dedup = Some(dedup);
        self
    }

    /// Adds a source.
    #[must_use]
    pub fn source(mut self, source: Arc<dyn LogSource>) -> Self {
        self.sources.push(source);
        self
    }

    /// Who judges; default: the detectors alone.
    #[must_use]
    pub fn classifier(mut self, classifier: Arc<dyn Classifier>) -> Self {
        self.classifier = Some(classifier);
        self
    }

    /// Adds a channel.
    #[must_use]
    pub fn notifier(mut self, notifier: Arc<dyn Notifier>) -> Self {
        self.notifiers.push(notifier);
        self
    }

    /// Adds a profile, or replaces the one with that name. The three that come with the program are always there.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profiles.push(profile);
        self
    }

    /// Signatures; default: those that come with the program.
    #[must_use]
    pub fn rules(mut self, rules: RuleSet) -> Self {
        self.rules = Some(rules);
        self
    }

    /// Tunes the detectors.
    #[must_use]
    pub fn detector_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Tunes the decisions. Its channels are replaced by those of the notifiers.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy.policy = Some(policy);
        self
    }

    /// Makes the links of messages.
    #[must_use]
    pub fn links(mut self, links: Links) -> Self {
        self.policy.links = Some(links);
        self
    }

    /// Redaction; default: the built-in patterns with a random key.
    #[must_use]
    pub fn redactor(mut self, redactor: Arc<Redactor>) -> Self {
        self.redactor = Some(redactor);
        self
    }

    /// Bounds of the stages.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Bounds of folding.
    #[must_use]
    pub fn miner(mut self, miner: logwarden_templates::Config) -> Self {
        self.miner = miner;
        self
    }

    /// The tenant that keys hang on; default: none.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// This machine's name, for messages about logwarden itself.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// Sees what passes through, for debugging.
    #[must_use]
    pub fn trail(mut self, trail: Arc<dyn Trail>) -> Self {
        self.trail = Some(trail);
        self
    }

    /// Puts it together.
    ///
    /// # Errors
    ///
    /// When something is missing, or names clash.
    pub fn build(self) -> Result<Pipeline, BuildError> {
        let env = self.env.ok_or(BuildError::NoEnv)?;
        let mut profiles = BTreeMap::new();
        for profile in Profile::builtin().into_iter().chain(self.profiles) {
            profiles.insert(profile.name.clone(), Arc::new(profile));
        }
        for (number, source) in self.sources.iter().enumerate() {
            let (id, queries) = (source.id(), source.queries());
            if queries.len() > MAX_QUERIES {
                return Err(BuildError::TooManyQueries { source_id: id.to_string(), count: queries.len() });
            }
            if self.sources.iter().take(number).any(|other| other.id() == id) {
                return Err(BuildError::Twice { what: "sources", name: id.to_string() });
            }
            for profile in queries.iter().flat_map(|query| &query.profiles) {
                if !profiles.contains_key(profile) {
                    let (source_id, profile) = (id.to_string(), profile.to_string());
                    return Err(BuildError::UnknownProfile { source_id, profile });
                }
            }
        }
        let mut policy = self.policy.policy.unwrap_or_default();
        policy.channels = self.notifiers.iter().map(|notifier| notifier.channel().clone()).collect();
        policy.links = self.policy.links.or(policy.links);
        for (number, channel) in policy.channels.iter().enumerate() {
            if policy.channels.iter().take(number).any(|other| other.name == channel.name) {
                return Err(BuildError::Twice { what: "channels", name: channel.name.to_string() });
            }
        }
        if self.classifier.is_some() && policy.explain_wait.is_zero() {
            policy.explain_wait = Duration::from_secs(60);
        }
        let random = || u128::from(env.random()) << 64 | u128::from(env.random());
        let ledger = self.ledger.unwrap_or_else(|| Arc::new(MemoryLedger::new(random(), env.random())));
        let dedup = self.dedup.unwrap_or_else(|| {
            let env = env.clone();
            Arc::new(MemoryDedup::new(move || env.now()))
        });
        let redactor = match self.redactor {
            Some(redactor) => redactor,
            None => Arc::new(Redactor::new(env.random(), &[]).map_err(BuildError::Redaction)?),
        };
        let process = ProcessId(random());
        let slot = |source| SourceSlot { source, cache: Mutex::new(None) };
        Ok(Pipeline {
            ledger,
            dedup: Arc::new(InTime::new(dedup, env.clone())),
            sources: self.sources.into_iter().map(slot).collect(),
            classifier: self.classifier,
            notifiers: self.notifiers,
            profiles,
            rules: self.rules.unwrap_or_else(RuleSet::builtin),
            settings: self.settings,
            policy,
            redactor,
            limits: self.limits,
            miner: self.miner,
            tenant: self.tenant.into(),
            host: self.host.into(),
            process,
            trail: self.trail,
            env,
        })
    }
}
