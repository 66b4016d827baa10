//! What is known, in one place: sources, segments, jobs, incidents, events, the outbox.
//!
//! Decisions are pure functions of a [`Snapshot`]; what they decide is a [`Commit`], which names the versions it was
//! decided on. A ledger executes a commit whole or answers [`Committed::Conflict`], and one reads and decides again.
//!
//! Unstable until 1.0.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use logwarden_detectors::{Learned, MemoryKey, MemoryRow, Severity, Signal};
use logwarden_templates::{Carry, Counts, LeafId, LineId, NewLeaf, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    error::BoxError,
    finding::{Grounded, Key},
    id::hex128,
    incident::{Event, Incident, IncidentId},
    message::{Message, SendId},
    notifier::{ChannelHash, Form, Receipt},
    segment::SegmentRow,
    source::{Cursor, SourceId},
};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(#[serde(with = "hex128")] pub u128);
    };
}

id! {
    /// Names a commit; random (R2), so that a commit whose answer was lost can be sent again.
    CommitId
}
id! {
    /// Names a segment; random.
    SegmentId
}
id! {
    /// Names a running process; random.
    ProcessId
}
id! {
    /// Names a pushed batch: client, tag and a hash of the decoded body.
    BatchId
}

/// A row with the version it had when it was read. Every change raises the version by one (R2); 0 is a row that does not
/// exist yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// The version that the row has in the ledger; a write needs it.
    pub version: u64,
    /// The row.
    pub row: T,
}

impl<T> Versioned<T> {
    /// A row that does not exist yet.
    pub fn new(row: T) -> Self {
        Self { version: 0, row }
    }
}

/// The ledger as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// The ledger's own random id; incident ids hang on it (R3).
    #[serde(with = "hex128")]
    pub id: u128,
    /// Secret for hashes that attackers must not predict.
    pub secret: u64,
    /// The number of the next incident.
    pub next_incident: u64,
}

/// A source: who reads it, and how far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// How far it was read; `None` before the first commit.
    pub cursor: Option<Cursor>,
    /// Who owns it. Only the owner ingests it and writes its memory.
    pub owner: Option<ProcessId>,
    /// Raised when the owner changes.
    pub epoch: u64,
    /// When the ownership ends unless it is renewed.
    pub until: Timestamp,
    /// Multi-line events that are still open.
    pub carry: Carry,
    /// Reads in a row that failed, and since when; for telling "no alert" from "not working".
    pub failing: Option<(u32, Timestamp)>,
    /// The latest successful read, by the wall clock.
    pub read_at: Option<Timestamp>,
}

/// The lines of one ingest, folded, redacted and judged by the detectors. Immutable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Segment {
    /// Its name.
    pub id: SegmentId,
    /// Whose lines.
    pub source: SourceId,
    /// The tenant; empty where there is only one.
    pub tenant: Arc<str>,
    /// When it was ingested, by the wall clock.
    pub at: Timestamp,
    /// The first event.
    pub from: Timestamp,
    /// The last event.
    pub to: Timestamp,
    /// Physical lines by outcome.
    pub counts: Counts,
    /// Templates as each origin used them.
    pub rows: Vec<Arc<SegmentRow>>,
    /// What detectors saw.
    pub signals: Vec<Signal>,
    /// What detectors claim.
    pub findings: Vec<Grounded>,
}

/// A segment under one profile, to be judged by a classifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Which segment.
    pub segment: SegmentId,
    /// Which profile.
    pub profile: logwarden_detectors::ProfileName,
    /// Whose lines.
    pub source: SourceId,
    /// When it began to wait.
    pub created: Timestamp,
    /// Physical lines that were kept under this profile.
    pub lines: u64,
    /// Where it stands.
    pub state: JobState,
    /// Attempts that failed for the model's fault.
    pub attempts: u32,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum JobState {
    /// Not before that time.
    Waiting {
        /// When.
        not_before: Timestamp,
    },
    /// Somebody is at it; afterwards anybody may.
    Leased {
        /// Who.
        owner: ProcessId,
        /// Until when.
        until: Timestamp,
    },
    /// A classifier has judged every row.
    Analysed,
    /// Only the detectors have looked, and why (the model is off, down, rests, or gave nonsense).
    DetectorsOnly {
        /// Why.
        reason: String,
    },
    /// Given up because too much was waiting; counted.
    Shed {
        /// Why.
        reason: String,
    },
}

impl JobState {
    /// Whether nothing more will happen to it.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Waiting { .. } | Self::Leased { .. })
    }
}

/// What a segment was about under a profile, in a few sentences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Which segment.
    pub segment: SegmentId,
    /// Which profile.
    pub profile: logwarden_detectors::ProfileName,
    /// When it was made.
    pub at: Timestamp,
    /// The first event.
    pub from: Timestamp,
    /// The last event.
    pub to: Timestamp,
    /// Physical lines.
    pub lines: u64,
    /// The overall severity; `None` when nothing is wrong.
    pub severity: Option<Severity>,
    /// One to six sentences.
    pub text: String,
    /// The model whose words they are; `None` for our own, from the detectors' counts.
    pub model: Option<String>,
}

/// Who owns a key. Rows outlive their incident, so that a new one can say when it was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOwner {
    /// The key.
    pub key: Key,
    /// The incident that owns it, or owned it last.
    pub incident: IncidentId,
    /// Only a model claims it: a later detector finding takes it as if it were free.
    pub soft: bool,
}

/// One event for one channel, on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// Which incident.
    pub incident: IncidentId,
    /// Which event of it; the latest that it has absorbed (R1).
    pub seq: u64,
    /// The first event that it stands for.
    pub first_seq: u64,
    /// Which channel, by name.
    pub channel: Arc<str>,
    /// When it was made, by the wall clock.
    pub created: Timestamp,
    /// The time of the log lines that caused it.
    pub data: Timestamp,
    /// Where it stands.
    pub state: OutboxState,
    /// The message that it belongs to since it was first claimed. A row that has one absorbs nothing (R1).
    pub send: Option<SendId>,
}

/// The primary key of an [`OutboxRow`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutboxKey {
    /// Which incident.
    pub incident: IncidentId,
    /// The first event that the row stands for: it never changes.
    pub first_seq: u64,
    /// Which channel, by name.
    pub channel: Arc<str>,
}

impl OutboxRow {
    /// Its primary key.
    pub fn key(&self) -> OutboxKey {
        OutboxKey { incident: self.incident, first_seq: self.first_seq, channel: self.channel.clone() }
    }
}

/// Where an outbox row stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum OutboxState {
    /// To be sent, not before that time.
    Pending {
        /// When.
        next_at: Timestamp,
    },
    /// Part of a message that is being sent.
    Claimed {
        /// When the claim lapses.
        until: Timestamp,
    },
    /// The channel confirmed it.
    Delivered {
        /// What it gave back.
        receipt: Receipt,
        /// When.
        at: Timestamp,
    },
    /// Somebody else told it there.
    Repeat {
        /// What the channel gave back to them.
        receipt: Receipt,
        /// When that was known.
        at: Timestamp,
    },
    /// A later row says it, or there is nothing left to say.
    Superseded,
    /// Will not be sent; a later occurrence makes a new row (R9).
    Dead {
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
}

impl OutboxState {
    /// Whether something is still to be done.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Pending { .. } | Self::Claimed { .. })
    }
}

/// One message on its way: which rows form it, and what it says. Formed once and repeated unchanged (R7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sending {
    /// Its name.
    pub id: SendId,
    /// Which channel, by name.
    pub channel: Arc<str>,
    /// Its rows.
    pub rows: Vec<OutboxKey>,
    /// The keys that it tells, with their ranks; what the deduplication store is asked with.
    pub keys: Vec<(Key, crate::incident::Rank)>,
    /// What it says.
    pub message: Message,
    /// The form to send next.
    pub form: Form,
    /// The message to amend, where there is one.
    pub amend: Option<Receipt>,
    /// Incidents that it speaks of, and the events below this number of each that its readers know then.
    pub tells: Vec<(IncidentId, u64)>,
    /// The time of the log lines that caused it.
    pub data: Timestamp,
    /// How long something told before counts as told.
    pub window: Duration,
    /// Whether the deduplication store is asked: not for amendments and follow-ups of our own messages.
    pub asks_dedup: bool,
    /// Attempts so far.
    pub attempts: u32,
    /// Since when attempts have failed.
    pub failing_since: Option<Timestamp>,
    /// Settled; kept for the record.
    pub done: bool,
}

/// What deliver knows of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    /// Its name.
    pub name: Arc<str>,
    /// Where it leads now; when the user changes that, a broken channel is whole again.
    pub destination: ChannelHash,
    /// Who is sending there, until when: one message in flight per channel (R7).
    pub lease: Option<(ProcessId, Timestamp)>,
    /// No send before that time: pacing, `Retry-After`, a ban.
    pub hold_until: Timestamp,
    /// Why nothing will arrive until somebody acts (R9), and since when.
    pub broken: Option<(String, Timestamp)>,
    /// Transient failures in a row.
    pub failures: u32,
    /// Times of the latest sends, for the number per minute.
    pub sent: Vec<Timestamp>,
    /// Until when the channel gets one rollup instead of single messages.
    pub rollup_until: Option<Timestamp>,
    /// The latest confirmed delivery.
    pub delivered_at: Option<Timestamp>,
    /// When somebody worked on it last: when that is in the future, the clock was set back since.
    #[serde(default)]
    pub touched: Timestamp,
}

/// Something that is not to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mute {
    /// Its name, as typed to end it.
    pub id: String,
    /// What it holds back; all that are given must match.
    pub matches: MuteMatch,
    /// Until when; `None` for ever.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// Who.
    pub author: String,
    /// Since when.
    pub created: Timestamp,
}

/// What a mute holds back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MuteMatch {
    /// An incident and what comes after it about the same thing; at least 8 digits.
    pub incident: Option<String>,
    /// A template: its root or a leaf, at least 8 digits.
    pub template: Option<String>,
    /// A rule or detector.
    pub rule: Option<String>,
    /// A host.
    pub host: Option<String>,
    /// A service.
    pub service: Option<String>,
    /// A label with its value, as in `env=staging`.
    pub label: Option<String>,
    /// Text that the title or a line contains.
    pub text: Option<String>,
}

/// A template judged benign by a model; belongs to the leaf, never to its root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenignVerdict {
    /// Which leaf.
    pub leaf: LeafId,
    /// Under which profile.
    pub profile: logwarden_detectors::ProfileName,
    /// By which model with which prompt ([`Classifier::fingerprint`](crate::classifier::Classifier::fingerprint)).
    pub fingerprint: String,
    /// Until when it counts.
    pub until: Timestamp,
}

/// A pushed batch that waits to be ingested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolRow {
    /// Its place in the order of arrival; given by the ledger.
    pub ordinal: u64,
    /// Which batch; kept two days after it is gone, so that a repeat is known.
    pub batch: BatchId,
    /// When it arrived.
    pub at: Timestamp,
    /// Physical lines in it.
    pub lines: u64,
    /// The records, encoded and compressed; opaque to the ledger.
    pub body: Vec<u8>,
}

/// Input that could not be read, kept for a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineRow {
    /// Its number; given by the ledger.
    pub ordinal: u64,
    /// When.
    pub at: Timestamp,
    /// Who sent it, or where it was.
    pub sender: String,
    /// What was wrong.
    pub reason: String,
    /// The raw bytes, capped.
    pub body: Vec<u8>,
}

/// Which incidents to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Incidents {
    /// None, but those that own the asked keys.
    #[default]
    None,
    /// These.
    Ids(Vec<IncidentId>),
    /// Those that fire.
    Firing,
    /// The latest, open or not.
    Latest {
        /// At most.
        limit: usize,
    },
}

/// Which outbox rows and sendings to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outbox {
    /// None.
    #[default]
    None,
    /// All open rows and sendings, of every channel.
    Open,
    /// Open rows and sendings of a channel.
    Channel(Arc<str>),
    /// All rows of these incidents, also settled ones.
    Incidents(Vec<IncidentId>),
}

/// Which jobs to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Jobs {
    /// None.
    #[default]
    None,
    /// Those that are not settled, newest first.
    Open {
        /// At most.
        limit: usize,
    },
    /// Those of these segments, settled or not.
    Of(Vec<SegmentId>),
}

/// What to read, in one consistent view. Everything defaults to nothing.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// A source's state.
    pub source: Option<SourceId>,
    /// With `source`: its leaves, for the miner.
    pub leaves: bool,
    /// With `source`: its memory of normal.
    pub memory: bool,
    /// With `source`: the seen lines of all remembered minutes.
    pub seen: bool,
    /// Owners of these keys, with their incidents.
    pub keys: Vec<Key>,
    /// Incidents.
    pub incidents: Incidents,
    /// The events of the incidents read.
    pub events: bool,
    /// Outbox rows and sendings; their incidents are read, too.
    pub outbox: Outbox,
    /// Jobs.
    pub jobs: Jobs,
    /// Segments.
    pub segments: Vec<SegmentId>,
    /// Channels.
    pub channels: bool,
    /// Mutes.
    pub mutes: bool,
    /// Benign verdicts under a profile and fingerprint, of these leaves.
    pub verdicts: Option<(logwarden_detectors::ProfileName, String, Vec<LeafId>)>,
    /// The latest summaries, at most this many.
    pub summaries: usize,
    /// Counters.
    pub counters: bool,
    /// Spool rows, at most this many lines, oldest first.
    pub spool: Option<u64>,
    /// Which of these batches are known.
    pub batches: Vec<BatchId>,
    /// Quarantined input, at most this many.
    pub quarantine: usize,
    /// Named values of small subsystems (calibration, notices sent).
    pub values: Vec<String>,
}

/// What was asked for, as it was at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The ledger as a whole; always there.
    pub installation: Option<Versioned<Installation>>,
    /// The source's state, if it exists.
    pub source: Option<Versioned<SourceState>>,
    /// Leaves, most recently used last.
    pub leaves: Vec<NewLeaf>,
    /// Leaves that were evicted, oldest first.
    pub gone: Vec<LeafId>,
    /// The memory of normal.
    pub memory: Vec<(MemoryKey, MemoryRow)>,
    /// What is known about the source as a whole.
    pub memory_source: logwarden_detectors::SourceRow,
    /// Seen lines.
    pub seen: crate::source::Seen,
    /// Owners of the asked keys.
    pub keys: Vec<Versioned<KeyOwner>>,
    /// Incidents: those asked for, owners of the asked keys, those of the outbox rows read, and of all these the ones
    /// they were merged into.
    pub incidents: BTreeMap<IncidentId, Versioned<Incident>>,
    /// Events, by incident and number.
    pub events: Vec<Event>,
    /// Outbox rows.
    pub outbox: Vec<Versioned<OutboxRow>>,
    /// Messages on their way.
    pub sendings: Vec<Versioned<Sending>>,
    /// Jobs.
    pub jobs: Vec<Versioned<Job>>,
    /// Segments.
    pub segments: Vec<Arc<Segment>>,
    /// Channels.
    pub channels: Vec<Versioned<ChannelState>>,
    /// Mutes.
    pub mutes: Vec<Mute>,
    /// Leaves with a benign verdict that still counts.
    pub verdicts: Vec<BenignVerdict>,
    /// Summaries, newest first.
    pub summaries: Vec<Summary>,
    /// Counters by name.
    pub counters: BTreeMap<String, u64>,
    /// Spool rows.
    pub spool: Vec<SpoolRow>,
    /// Spool rows and bytes in all; given with `spool`.
    pub spool_size: (u64, u64),
    /// Which of the asked batches are known.
    pub batches: Vec<BatchId>,
    /// Quarantined input, newest first.
    pub quarantine: Vec<QuarantineRow>,
    /// Named values.
    pub values: BTreeMap<String, Versioned<serde_json::Value>>,
}

/// One change. Versioned rows replace the row with the same primary key if it has that version.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Write {
    /// The ledger as a whole.
    Installation(Versioned<Installation>),
    /// A source's state.
    Source(SourceId, Versioned<SourceState>),
    /// New leaves; those that exist stay as they are.
    Leaves(SourceId, Vec<NewLeaf>),
    /// Leaves that memory has no room for: they are removed, and only their ids are remembered.
    LeavesGone(SourceId, Vec<LeafId>),
    /// Leaves that were used on a day (days since 1970): the least recently used go first when the table is full.
    LeavesUsed(SourceId, i64, Vec<LeafId>),
    /// What the memory of normal has learned.
    Memory(SourceId, Box<Learned>),
    /// Lines taken: (minute, line, queries) are added; what is older than 75 minutes before the newest, and counts older
    /// than 24 hours, may be forgotten.
    Seen(SourceId, Vec<(Timestamp, LineId, u64)>),
    /// A segment. Immutable.
    Segment(Arc<Segment>),
    /// A job; its key is segment and profile.
    Job(Versioned<Job>),
    /// A summary.
    Summary(Summary),
    /// An incident.
    Incident(Box<Versioned<Incident>>),
    /// A key's owner.
    Key(Versioned<KeyOwner>),
    /// An event; its number must be free.
    Event(Event),
    /// An outbox row.
    Outbox(Versioned<OutboxRow>),
    /// A message on its way.
    Sending(Box<Versioned<Sending>>),
    /// A channel.
    Channel(Versioned<ChannelState>),
    /// A mute.
    Mute(Mute),
    /// Ends a mute.
    Unmute(String),
    /// A benign verdict.
    Verdict(BenignVerdict),
    /// Forgets a template: its verdicts, and its rows in the memory of normal.
    Forget(LeafId),
    /// Adds to a counter.
    Count(String, u64),
    /// A batch; the ordinal is ignored. A known batch is a conflict.
    Spool(SpoolRow),
    /// Deletes spool rows by ordinal; missing ones are a conflict.
    Unspool(Vec<u64>),
    /// Input that could not be read; the ordinal is ignored, the oldest make room.
    Quarantine(QuarantineRow),
    /// Deletes quarantined input.
    Unquarantine(Vec<u64>),
    /// A named value.
    Value(String, Versioned<serde_json::Value>),
    /// Removes what is older than the retention times, and the oldest when the file is too large. Never waiting jobs,
    /// open rows, firing incidents, mutes or cursors.
    Prune(Timestamp),
}

/// A change that is executed whole or not at all.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its name.
    pub id: CommitId,
    /// The changes, in order.
    pub writes: Vec<Write>,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Committed {
    /// It is durable. Also the answer when a commit with this id was executed before.
    Done,
    /// A version was not the expected one; nothing was changed.
    Conflict,
}

/// Why the ledger could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The disk is full, or a configured size is reached.
    #[error("the state directory has no room left")]
    Full {
        /// Why.
        #[source]
        cause: BoxError,
    },
    /// Written by a newer version of this program.
    #[error("the state was written by a newer version (schema {found}, this program knows {known})")]
    Newer {
        /// Its schema version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Reading or writing failed. Whether a commit was executed is unknown: send it again.
    #[error("cannot use the state")]
    Failed {
        /// Why.
        #[source]
        cause: BoxError,
    },
}

/// Keeps what is known.
///
/// # Contract
///
/// * `read` sees one consistent state, never half a commit.
/// * A commit is executed whole or not at all, and is durable when `Done` is answered. Of two commits that expect the
///   same version of a row one gets `Conflict`.
/// * A commit whose id was executed before answers `Done` and changes nothing.
/// * Either future may be dropped at any `.await`; the commit is then executed or not.
#[async_trait]
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Reads.
    ///
    /// # Errors
    ///
    /// When the state cannot be used.
    async fn read(&self, query: &Query) -> Result<Snapshot, LedgerError>;

    /// Writes.
    ///
    /// # Errors
    ///
    /// When the state cannot be used; the commit may be executed all the same, and can be sent again.
    async fn commit(&self, commit: &Commit) -> Result<Committed, LedgerError>;
}
