//! Troubles of logwarden itself, told through the same incidents, channels and deduplication as everything else: "no
//! alert" must never look like "not working".

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use logwarden_detectors::{By, Category, ProfileName, Route, Severity};
use logwarden_templates::{Origin, RootId};

use super::{Pipeline, PipelineError};
use crate::{
    Timestamp,
    decide::{Policy, book::Book},
    finding::{Cited, Grounded, Key, Scope},
    incident::Status,
    ledger::{Incidents, Query, Versioned, Write},
    notifier::Channel,
    source::SourceId,
};

/// What is wrong with us.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// A source could not be read several times in a row.
    SourceUnreadable {
        /// Which one.
        source: String,
        /// Why; free of secrets.
        reason: String,
        /// How often in a row.
        times: u32,
    },
    /// Lines that can never be had.
    LinesMissing {
        /// The query or file.
        subject: String,
        /// Which and why.
        reason: String,
    },
    /// Input that is not what it claims to be was set aside.
    Unreadable {
        /// Who sent it, or where it was.
        sender: String,
        /// What was wrong.
        reason: String,
    },
    /// A channel takes nothing until somebody acts.
    ChannelBroken {
        /// Its name.
        channel: String,
        /// Why; free of secrets.
        reason: String,
    },
    /// Something had to be left out, since a bound was reached.
    LeftOut {
        /// What and how much.
        what: String,
    },
    /// The model has been away for a while.
    ModelAway {
        /// Its server.
        origin: String,
        /// Why; free of secrets.
        reason: String,
        /// Since when something waits for it.
        since: Timestamp,
    },
    /// Our own state was damaged, and begun anew.
    StateSetAside {
        /// Where the damaged file is now.
        path: String,
    },
    /// The file system of our own state is nearly full.
    DiskNearlyFull {
        /// The state directory.
        path: String,
        /// Bytes that are free.
        free: u64,
        /// Below so many, pushed batches are refused.
        push: u64,
        /// Below so many, nothing is read.
        read: u64,
    },
    /// A systemd unit has failed.
    UnitFailed {
        /// Its name.
        unit: String,
        /// How it ended and the last error it wrote, where known; free of secrets.
        reason: String,
    },
    /// The model cannot be used until somebody acts.
    ModelUnusable {
        /// Why.
        reason: String,
        /// What to do.
        hint: String,
    },
}

/// A unit whose failure was told and is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedUnit {
    /// Its name.
    pub unit: String,
    /// When it failed last, or was seen to be failed.
    pub last: Timestamp,
    /// Since when every channel that takes it has been told, if all have.
    pub told: Option<Timestamp>,
}

impl FailedUnit {
    /// That it has failed, without a reason.
    pub fn trouble(&self) -> Trouble {
        Trouble::UnitFailed { unit: self.unit.clone(), reason: String::new() }
    }
}

impl Trouble {
    fn finding(&self, tenant: Arc<str>, host: Arc<str>, program: &str, now: Timestamp) -> Grounded {
        let all = String::new();
        let (name, subject, severity, title, explanation, recommendation) = match self {
            Self::SourceUnreadable { source, reason, times } => (
                "source-unreadable",
                source,
                Severity::High,
                format!("logwarden cannot read {source}"),
                format!("{times} reads in a row failed: {reason}. Nothing is lost: reading goes on where it stopped."),
                format!("Run `{program} doctor`."),
            ),
            Self::LinesMissing { subject, reason } => (
                "lines-missing",
                subject,
                Severity::Medium,
                format!("logwarden cannot have some lines of {subject}"),
                reason.clone(),
                format!("Run `{program} doctor`."),
            ),
            Self::Unreadable { sender, reason } => (
                "unreadable-input",
                sender,
                Severity::Medium,
                format!("input from {sender} cannot be read"),
                format!("{reason}. It was set aside: `{program} quarantine list` shows it."),
                "See what it sends: its own log, and its output settings.".to_owned(),
            ),
            Self::ChannelBroken { channel, reason } => (
                "channel-broken",
                channel,
                Severity::High,
                format!("logwarden cannot send to `{channel}`"),
                format!("{reason}. Its messages are kept until it works again."),
                format!("Give it a new address, then run `{program} test-alert {channel}`."),
            ),
            Self::LeftOut { what } => (
                "left-out",
                &all,
                Severity::Low,
                "logwarden had to leave something out".to_owned(),
                format!("{what}. Nothing that detectors know was missed; lists and what is learned are incomplete."),
                "Give it fewer sources, or raise `max_templates`.".to_owned(),
            ),
            Self::ModelAway { origin, reason, since } => (
                "model-away",
                origin,
                Severity::Medium,
                "logwarden works without its model".to_owned(),
                format!(
                    "{reason}. What came since {} is not explained yet. The detectors go on finding what they know, and the \
                     rest is made up for when the model is back.",
                    Timestamp::from_secs(since.secs()),
                ),
                format!("Run `{program} doctor`."),
            ),
            Self::StateSetAside { path } => (
                "state-set-aside",
                path,
                Severity::Critical,
                "logwarden has lost its memory".to_owned(),
                format!(
                    "Its state was damaged and set aside as {path}; a new one was begun. Reading goes on where it stopped as far \
                     as that is known, but open incidents, mutes and messages on their way are gone, and what is normal is \
                     learned anew."
                ),
                format!(
                    "Check the disk: `journalctl -k -p err`. Then run `{program} backfill`, and mute again what was muted."
                ),
            ),
            Self::DiskNearlyFull { path, free, push, read } => (
                "disk-nearly-full",
                path,
                Severity::High,
                "the disk that logwarden keeps its state on is nearly full".to_owned(),
                format!(
                    "{} MiB are free where {path} is. Below {} MiB pushed logs are refused, so that shippers keep them; below {} \
                     MiB nothing is read. What is known is still told, and nothing is lost.",
                    free >> 20,
                    push >> 20,
                    read >> 20,
                ),
                format!(
                    "See how full it is: `df -h {path}`; then what grew: `du -xh / 2>/dev/null | sort -h | tail -n 20`."
                ),
            ),
            Self::UnitFailed { unit, reason } => (
                "unit-failed",
                unit,
                Severity::High,
                format!("{unit} has failed"),
                reason.clone(),
                format!("See why: `systemctl status {unit}` and `journalctl -u {unit} -n 50 --no-pager`."),
            ),
            Self::ModelUnusable { reason, hint } => (
                "model-unusable",
                reason,
                Severity::Medium,
                "logwarden works without its model".to_owned(),
                format!("{reason}. The detectors go on finding what they know; explanations are missing."),
                hint.clone(),
            ),
        };
        debug_assert!(OWN_NAMES.contains(&(name, severity)), "mutes must know who speaks: {name}");
        let labels = match self {
            Self::UnitFailed { unit, .. } => BTreeMap::from([(UNIT.to_owned(), unit.clone())]),
            _ => BTreeMap::new(),
        };
        let service = match self {
            Self::UnitFailed { unit, .. } => unit.as_str(),
            _ => "logwarden",
        };
        let scope = Scope { tenant, origin: Arc::new(Origin { host, service: service.into() }) };
        let root = RootId::of(&[b"logwarden", name.as_bytes(), subject.as_bytes()]);
        let cited = Cited { scope, leaf: None, root, template: title.as_str().into(), anomalous: true };
        Grounded {
            by: By::Detector { name: name.to_owned() },
            profile: ProfileName::general(),
            category: Category::Service,
            severity,
            route: Route::Alert,
            title,
            explanation,
            recommendation,
            cited: vec![cited],
            discriminator: String::new(),
            evidence: Vec::new(),
            entities: Vec::new(),
            query: None,
            labels,
            score: 0.0,
            count: 1,
            first: now,
            last: now,
        }
    }
}

/// What incidents about logwarden itself and its surroundings are claimed by, besides rules and detectors, and how bad they
/// are.
pub const OWN_NAMES: [(&str, Severity); 11] = [
    ("channel-broken", Severity::High),
    ("disk-nearly-full", Severity::High),
    ("left-out", Severity::Low),
    ("lines-missing", Severity::Medium),
    ("model-away", Severity::Medium),
    ("model-injection", Severity::Medium),
    ("model-unusable", Severity::Medium),
    ("source-unreadable", Severity::High),
    ("state-set-aside", Severity::Critical),
    ("unit-failed", Severity::High),
    ("unreadable-input", Severity::Medium),
];

/// The label of incidents about failed units that names the unit.
const UNIT: &str = "unit";

/// Counters of what was left out, and what they count.
const LOSSES: [(&str, &str); 4] = [
    ("templates_evicted", "templates forgotten because there are too many"),
    ("incident_templates_omitted", "templates not listed in an incident that has too many"),
    ("incident_keys_omitted", "things that an incident is about, not remembered because they are too many"),
    ("counters_omitted", "counts under names that are too many"),
];
/// Where it is noted what of that was told.
const TOLD: &str = "losses";

impl Pipeline {
    /// Tells what was left out since that was told last.
    pub(super) async fn report_losses(&self) -> Result<(), PipelineError> {
        let query = Query { counters: true, values: vec![TOLD.to_owned()], ..Query::default() };
        let snapshot = self.ledger.read(&query).await.map_err(PipelineError::Ledger)?;
        let told = snapshot.values.get(TOLD);
        let before: BTreeMap<String, u64> =
            told.and_then(|told| serde_json::from_value(told.row.clone()).ok()).unwrap_or_default();
        let counted = LOSSES.iter().filter_map(|(name, what)| Some((*name, *what, *snapshot.counters.get(*name)?)));
        let counted: Vec<(&str, &str, u64)> = counted.collect();
        let new = counted.iter().filter_map(|(name, what, all)| {
            let known = before.get(*name).copied().unwrap_or(0);
            let in_all = if known > 0 { format!(" ({all} in all)") } else { String::new() };
            (*all > known).then(|| format!("{} {what}{in_all}", all - known))
        });
        let new: Vec<String> = new.collect();
        if new.is_empty() {
            return Ok(());
        }
        self.report_trouble(&[Trouble::LeftOut { what: new.join("; ") }]).await?;
        let now: BTreeMap<&str, u64> = counted.iter().map(|(name, _, n)| (*name, *n)).collect();
        let version = told.map_or(0, |told| told.version);
        let row = serde_json::to_value(now).unwrap_or_default();
        // Told by another process at the same time: then it is told there.
        let _ = self.commit(vec![Write::Value(TOLD.to_owned(), Versioned { version, row })]).await?;
        Ok(())
    }

    /// Tells about troubles of our own.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn report_trouble(&self, troubles: &[Trouble]) -> Result<(), PipelineError> {
        if troubles.is_empty() {
            return Ok(());
        }
        let findings: Vec<_> = troubles.iter().map(|trouble| self.found(trouble)).collect();
        self.with_own_book(&findings, |book| findings.iter().for_each(|finding| book.take(finding))).await
    }

    /// A trouble is over: its incident ends, and whoever was told of it is told that and `how`, in words such as
    /// `nginx.service works again`. When it begins anew that is news, however soon.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn trouble_is_over(&self, trouble: &Trouble, how: &str) -> Result<(), PipelineError> {
        let finding = self.found(trouble);
        self.with_own_book(std::slice::from_ref(&finding), |book| book.end(&finding.keys(), how)).await
    }

    /// A trouble that was told goes on: it does not go quiet, and is told again when a reminder is due.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn trouble_goes_on(&self, trouble: &Trouble) -> Result<(), PipelineError> {
        let finding = self.found(trouble);
        self.with_own_book(std::slice::from_ref(&finding), |book| {
            for cited in &finding.cited {
                book.goes_on(Key::of_root(&cited.scope, cited.root));
            }
        })
        .await
    }

    /// The units whose failure was told and is not over.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn failed_units(&self) -> Result<Vec<FailedUnit>, PipelineError> {
        let query = Query { incidents: Incidents::Firing, ..Query::default() };
        let snapshot = self.ledger.read(&query).await.map_err(PipelineError::Ledger)?;
        let incidents = snapshot.incidents.values().map(|incident| &incident.row);
        let firing =
            incidents.filter(|incident| incident.source == SourceId::own() && incident.status == Status::Firing);
        let failed = firing.filter_map(|incident| {
            let takes = |channel: &&Channel| incident.rank.severity >= channel.min_severity;
            let told = self.policy.channels.iter().filter(takes);
            let told = told.map(|channel| incident.told.get(&channel.name).map(|told| told.at));
            // `None` is the least.
            let told = told.min().flatten();
            Some(FailedUnit { unit: incident.labels.get(UNIT)?.clone(), last: incident.last, told })
        });
        Ok(failed.collect())
    }

    /// Whether a trouble goes on, or was over less than a window ago.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub async fn knows_of(&self, trouble: &Trouble) -> Result<bool, PipelineError> {
        let query = Query { keys: self.found(trouble).keys(), ..Query::default() };
        let snapshot = self.ledger.read(&query).await.map_err(PipelineError::Ledger)?;
        let now = self.env.now();
        Ok(snapshot.incidents.values().any(|incident| match incident.row.status {
            Status::Firing => true,
            Status::Quiet { since } => now.since(since) < self.policy.window,
            Status::Merged { .. } => false,
        }))
    }

    fn found(&self, trouble: &Trouble) -> Grounded {
        trouble.finding(self.tenant.clone(), self.host.clone(), &self.policy.program, self.env.now())
    }

    async fn with_own_book(&self, findings: &[Grounded], change: impl Fn(&mut Book<'_>)) -> Result<(), PipelineError> {
        let keys = findings.iter().flat_map(Grounded::keys).collect();
        // No model explains them: they wait for none.
        let policy = Policy { explain_wait: Duration::ZERO, ..self.policy.clone() };
        self.decide(&Book::query(keys), |snapshot| {
            let mut book = Book::open(&policy, snapshot, SourceId::own(), self.env.now())?;
            change(&mut book);
            Some((book.close(), ()))
        })
        .await
        .map(|_| ())
    }
}
