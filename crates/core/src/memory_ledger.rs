//! A ledger in memory: for `scan`, which keeps nothing, and for tests.
//!
//! Each table is shared until it is written, so that a commit works on a copy that is dropped when it fails, and a read
//! copies only what was asked for. Stricter than a ledger on disk: a commit that leaves a row pointing at nothing (an
//! event of no incident, a message of no rows) is an error here, so that a wrong decision shows in the first test.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use logwarden_detectors::{Learned, MemoryKey, MemoryRow, ProfileName, SourceRow};
use logwarden_templates::{LeafId, LineId, NewLeaf, RootId, Timestamp};

use crate::{
    finding::Key,
    incident::{Event, Incident, IncidentId, Status},
    ledger::{
        BatchId, BenignVerdict, ChannelState, Commit, CommitId, Committed, Incidents, Installation, Job, Jobs,
        KeyOwner, Ledger, LedgerError, Mute, Outbox, OutboxKey, OutboxRow, OutboxState, QuarantineRow, Query, Segment,
        SegmentId, Sending, Snapshot, SourceState, SpoolRow, Summary, Versioned, Write,
    },
    message::SendId,
    retention::{self, Limits},
    source::{Seen, SourceId},
};

/// Rows of judged segments that are kept: nothing reads them but whoever wants to look, and they are most of the size.
const JUDGED_ROWS: usize = 20_000;

/// A ledger that ends with the process.
#[derive(Debug)]
pub struct MemoryLedger {
    inner: Mutex<Inner>,
    limits: Limits,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// Executed commits, the oldest first.
    order: VecDeque<CommitId>,
    commits: HashSet<CommitId>,
}

impl MemoryLedger {
    /// An empty ledger; `id` and `secret` are random.
    pub fn new(id: u128, secret: u64) -> Self {
        Self::with_limits(id, secret, Limits::default())
    }

    /// An empty ledger with other limits.
    pub fn with_limits(id: u128, secret: u64, limits: Limits) -> Self {
        let installation = Installation { id, secret, next_incident: 0 };
        let state = State { installation: Some(Versioned { version: 1, row: installation }), ..State::default() };
        let inner = Inner { state, order: VecDeque::new(), commits: HashSet::new() };
        Self { inner: Mutex::new(inner), limits }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere cannot have left half a commit: the state is replaced whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn read(&self, query: &Query) -> Result<Snapshot, LedgerError> {
        let state = self.inner().state.clone();
        Ok(state.read(query))
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, LedgerError> {
        let mut inner = self.inner();
        if inner.commits.contains(&commit.id) {
            return Ok(Committed::Done);
        }
        let mut next = inner.state.clone();
        for write in &commit.writes {
            match next.apply(write, &self.limits) {
                Ok(()) => {}
                Err(Refusal::Conflict) => return Ok(Committed::Conflict),
                Err(Refusal::Full) => return Err(LedgerError::Full { cause: "the spool is full".into() }),
            }
        }
        if let Some(dangling) = next.dangling(&commit.writes) {
            return Err(LedgerError::Failed { cause: dangling.into() });
        }
        if commit.writes.iter().any(|write| matches!(write, Write::Segment(_) | Write::Job(_))) {
            next.drop_judged(Timestamp::MIN);
        }
        inner.state = next;
        inner.commits.insert(commit.id);
        inner.order.push_back(commit.id);
        if inner.order.len() > self.limits.commits
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.commits.remove(&oldest);
        }
        Ok(Committed::Done)
    }
}

/// Why a write is not executed.
enum Refusal {
    Conflict,
    Full,
}

/// Rows by primary key, copied only when written while somebody else looks at them.
struct Table<K, V>(Arc<BTreeMap<K, V>>);

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K, V> std::ops::Deref for Table<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    fn edit(&mut self) -> &mut BTreeMap<K, V> {
        Arc::make_mut(&mut self.0)
    }

    /// Keeps the rows that `keep` says; copies nothing when all stay.
    fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        if self.0.iter().any(|(key, row)| !keep(key, row)) {
            self.edit().retain(|key, row| keep(key, row));
        }
    }
}

type Row<T> = Arc<Versioned<T>>;

impl<K: Ord + Clone, T: Clone> Table<K, Row<T>> {
    /// Replaces a row that has the version the write was decided on.
    fn put(&mut self, key: K, write: &Versioned<T>) -> Result<(), Refusal> {
        if self.0.get(&key).map_or(0, |row| row.version) != write.version {
            return Err(Refusal::Conflict);
        }
        self.edit().insert(key, Arc::new(Versioned { version: write.version + 1, row: write.row.clone() }));
        Ok(())
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    installation: Option<Versioned<Installation>>,
    sources: Table<SourceId, Row<SourceState>>,
    leaves: Table<SourceId, Leaves>,
    memory: Table<SourceId, Remembered>,
    seen: Table<SourceId, Arc<Seen>>,
    segments: Table<SegmentId, Arc<Segment>>,
    jobs: Table<(SegmentId, ProfileName), Row<Job>>,
    summaries: Table<(SegmentId, ProfileName), Arc<Summary>>,
    incidents: Table<IncidentId, Row<Incident>>,
    keys: Table<Key, Row<KeyOwner>>,
    events: Table<(IncidentId, u64), Arc<Event>>,
    outbox: Table<OutboxKey, Row<OutboxRow>>,
    sendings: Table<SendId, Row<Sending>>,
    channels: Table<Arc<str>, Row<ChannelState>>,
    mutes: Table<String, Arc<Mute>>,
    verdicts: Table<(LeafId, ProfileName, String), Timestamp>,
    counters: Table<String, u64>,
    spool: Table<u64, Arc<SpoolRow>>,
    last_spool: u64,
    /// When a batch was first found gone by a prune; `None` while it waits or nobody has looked.
    batches: Table<BatchId, Option<Timestamp>>,
    quarantine: Table<u64, Arc<QuarantineRow>>,
    next_quarantine: u64,
    values: Table<String, Row<serde_json::Value>>,
}

/// The leaves of a source, by id and by use.
#[derive(Clone, Debug, Default)]
struct Leaves {
    rows: Table<LeafId, (i64, u64, Arc<NewLeaf>)>,
    order: Table<(i64, u64), LeafId>,
    next: u64,
    gone: Table<u64, LeafId>,
    known_gone: Table<LeafId, ()>,
}

impl Leaves {
    fn add(&mut self, leaf: &NewLeaf) {
        if self.rows.contains_key(&leaf.leaf) {
            return;
        }
        // As recent as the most recent: its own time may be that of an old backlog.
        let day = self.order.last_key_value().map_or(0, |((day, _), _)| *day);
        self.rows.edit().insert(leaf.leaf, (day, self.next, Arc::new(leaf.clone())));
        self.order.edit().insert((day, self.next), leaf.leaf);
        self.next += 1;
    }

    fn used(&mut self, day: i64, leaf: LeafId) {
        let Some((was, number, _)) = self.rows.get(&leaf).map(|(was, number, row)| (*was, *number, row)) else {
            return;
        };
        if was < day {
            self.order.edit().remove(&(was, number));
            self.order.edit().insert((day, number), leaf);
            if let Some(row) = self.rows.edit().get_mut(&leaf) {
                row.0 = day;
            }
        }
    }

    fn evict(&mut self, leaf: LeafId, limits: &Limits) {
        if let Some((day, number, _)) = self.rows.edit().remove(&leaf) {
            self.order.edit().remove(&(day, number));
        }
        if self.known_gone.edit().insert(leaf, ()).is_some() {
            return;
        }
        self.gone.edit().insert(self.next, leaf);
        self.next += 1;
        while self.gone.len() > limits.gone() {
            if let Some((_, oldest)) = self.gone.edit().pop_first() {
                self.known_gone.edit().remove(&oldest);
            }
        }
    }

    fn trim(&mut self, limit: usize) {
        while self.rows.len() > limit {
            let Some((_, leaf)) = self.order.edit().pop_first() else { return };
            self.rows.edit().remove(&leaf);
        }
    }
}

/// The memory of normal of a source.
#[derive(Clone, Debug, Default)]
struct Remembered {
    rows: Table<MemoryKey, Arc<MemoryRow>>,
    source: SourceRow,
}

impl Remembered {
    fn apply(&mut self, learned: &Learned) {
        let rows = self.rows.edit();
        for key in &learned.removed {
            rows.remove(key);
        }
        rows.extend(learned.rows.iter().map(|(key, row)| (*key, Arc::new(row.clone()))));
        self.source = learned.source.clone();
    }

    fn trim(&mut self, limit: usize) {
        let Some(excess) = self.rows.len().checked_sub(limit).filter(|n| *n > 0) else { return };
        let mut by_age: Vec<_> = self.rows.iter().map(|(key, row)| (row.last, *key)).collect();
        by_age.sort_unstable();
        for (_, key) in by_age.into_iter().take(excess) {
            self.rows.edit().remove(&key);
        }
    }
}

impl State {
    fn apply(&mut self, write: &Write, limits: &Limits) -> Result<(), Refusal> {
        match write {
            Write::Installation(write) => {
                if self.installation.as_ref().map_or(0, |row| row.version) != write.version {
                    return Err(Refusal::Conflict);
                }
                self.installation = Some(Versioned { version: write.version + 1, row: write.row.clone() });
            }
            Write::Source(id, write) => self.sources.put(id.clone(), write)?,
            Write::Leaves(source, leaves) => {
                let table = self.leaves.edit().entry(source.clone()).or_default();
                leaves.iter().for_each(|leaf| table.add(leaf));
                table.trim(limits.leaves);
            }
            Write::LeavesGone(source, leaves) => {
                let table = self.leaves.edit().entry(source.clone()).or_default();
                leaves.iter().for_each(|leaf| table.evict(*leaf, limits));
            }
            Write::LeavesUsed(source, day, leaves) => {
                let table = self.leaves.edit().entry(source.clone()).or_default();
                leaves.iter().for_each(|leaf| table.used(*day, *leaf));
            }
            Write::Memory(source, learned) => self.memory.edit().entry(source.clone()).or_default().apply(learned),
            Write::Seen(source, lines) => self.see(source, lines),
            Write::Segment(segment) => {
                if self.segments.contains_key(&segment.id) {
                    return Err(Refusal::Conflict);
                }
                self.segments.edit().insert(segment.id, segment.clone());
            }
            Write::Job(write) => self.jobs.put((write.row.segment, write.row.profile.clone()), write)?,
            Write::Summary(summary) => {
                let key = (summary.segment, summary.profile.clone());
                self.summaries.edit().insert(key, Arc::new(summary.clone()));
            }
            Write::Incident(write) => self.incidents.put(write.row.id, write)?,
            Write::Key(write) => self.keys.put(write.row.key, write)?,
            Write::Event(event) => {
                let key = (event.incident, event.seq);
                if self.events.contains_key(&key) {
                    return Err(Refusal::Conflict);
                }
                self.events.edit().insert(key, Arc::new(event.clone()));
            }
            Write::Outbox(write) => self.outbox.put(write.row.key(), write)?,
            Write::Sending(write) => self.sendings.put(write.row.id, write)?,
            Write::Channel(write) => self.channels.put(write.row.name.clone(), write)?,
            Write::Mute(mute) => {
                self.mutes.edit().insert(mute.id.clone(), Arc::new(mute.clone()));
            }
            Write::Unmute(id) => {
                self.mutes.edit().remove(id);
            }
            Write::Verdict(verdict) => {
                let key = (verdict.leaf, verdict.profile.clone(), verdict.fingerprint.clone());
                self.verdicts.edit().insert(key, verdict.until);
            }
            Write::Forget(leaf) => self.forget(*leaf),
            Write::Count(name, n) => {
                let known = self.counters.contains_key(name) || self.counters.len() < limits.counters;
                let name = if known { name.as_str() } else { "counters_omitted" };
                let counter = self.counters.edit().entry(name.to_owned()).or_default();
                *counter = counter.saturating_add(*n);
            }
            Write::Spool(row) => self.spool(row, limits)?,
            Write::Unspool(ordinals) => {
                for ordinal in ordinals {
                    self.spool.edit().remove(ordinal).ok_or(Refusal::Conflict)?;
                }
            }
            Write::Quarantine(row) => {
                let ordinal = self.next_quarantine;
                self.quarantine.edit().insert(ordinal, Arc::new(QuarantineRow { ordinal, ..row.clone() }));
                self.next_quarantine += 1;
                self.trim_quarantine(limits);
            }
            Write::Unquarantine(ordinals) => {
                for ordinal in ordinals {
                    self.quarantine.edit().remove(ordinal);
                }
            }
            Write::Value(name, write) => self.values.put(name.clone(), write)?,
            Write::Prune(now) => self.prune(*now, limits),
        }
        Ok(())
    }

    fn see(&mut self, source: &SourceId, lines: &[(Timestamp, LineId, u64)]) {
        let seen = Arc::make_mut(self.seen.edit().entry(source.clone()).or_default());
        for (time, line, queries) in lines {
            seen.insert(*time, *line, *queries);
        }
        let mut minutes: Vec<_> = lines.iter().map(|(time, ..)| time.minute()).collect();
        if let Some(newest) = retention::reference_minute(&mut minutes) {
            seen.forget_before(newest - retention::SEEN_MINUTES, newest - retention::COUNT_MINUTES);
        }
        let excess = seen.minutes().count().saturating_sub(retention::MAX_MINUTES);
        let first_kept = seen.minutes().nth(excess).filter(|_| excess > 0);
        if let Some(first) = first_kept {
            seen.forget_before(first, first);
        }
    }

    fn forget(&mut self, leaf: LeafId) {
        self.verdicts.retain(|(of, ..), _| *of != leaf);
        let root: RootId = leaf.as_root();
        for memory in self.memory.edit().values_mut() {
            memory.rows.retain(|_, row| row.root != root);
        }
    }

    fn spool(&mut self, row: &SpoolRow, limits: &Limits) -> Result<(), Refusal> {
        if self.batches.contains_key(&row.batch) {
            return Err(Refusal::Conflict);
        }
        let bytes: u64 = self.spool.values().map(|row| row.body.len() as u64).sum();
        if bytes + row.body.len() as u64 > limits.spool_bytes {
            return Err(Refusal::Full);
        }
        self.last_spool += 1;
        let ordinal = self.last_spool;
        self.spool.edit().insert(ordinal, Arc::new(SpoolRow { ordinal, ..row.clone() }));
        self.batches.edit().insert(row.batch, None);
        Ok(())
    }

    fn trim_quarantine(&mut self, limits: &Limits) {
        let mut bytes: u64 = self.quarantine.values().map(|row| row.body.len() as u64).sum();
        while self.quarantine.len() > limits.quarantine_rows || bytes > limits.quarantine_bytes {
            let Some((_, row)) = self.quarantine.edit().pop_first() else { return };
            bytes -= row.body.len() as u64;
        }
    }

    fn prune(&mut self, now: Timestamp, limits: &Limits) {
        self.drop_judged(now.minus(retention::SEGMENTS));
        self.summaries.retain(|_, summary| summary.at >= now.minus(retention::SUMMARIES));

        let before = now.minus(retention::DELIVERED);
        self.outbox.retain(|_, row| match &row.row.state {
            OutboxState::Pending { .. } | OutboxState::Claimed { .. } => true,
            OutboxState::Delivered { at, .. } | OutboxState::Repeat { at, .. } | OutboxState::Dead { at, .. } => {
                *at >= before
            }
            OutboxState::Superseded => row.row.created >= before,
        });
        self.sendings.retain(|_, sending| !sending.row.done || sending.row.message.at >= before);

        let waiting: HashSet<_> =
            self.outbox.values().filter(|row| row.row.state.is_open()).map(|row| row.row.incident).collect();
        let before = now.minus(retention::INCIDENTS);
        self.incidents.retain(|id, incident| {
            let over = match incident.row.status {
                Status::Firing => false,
                Status::Quiet { .. } | Status::Merged { .. } => incident.row.touched < before,
            };
            !over || waiting.contains(id)
        });
        let incidents = self.incidents.clone();
        self.events.retain(|(incident, _), _| incidents.contains_key(incident));
        self.keys.retain(|_, owner| incidents.contains_key(&owner.row.incident));
        self.outbox.retain(|key, _| incidents.contains_key(&key.incident));

        self.verdicts.retain(|_, until| *until > now);
        self.quarantine.retain(|_, row| row.at >= now.minus(retention::QUARANTINE));
        let waiting: HashSet<_> = self.spool.values().map(|row| row.batch).collect();
        self.batches.retain(|_, gone| gone.is_none_or(|gone| gone >= now.minus(retention::BATCHES)));
        if self.batches.iter().any(|(batch, gone)| gone.is_none() && !waiting.contains(batch)) {
            for (batch, gone) in self.batches.edit() {
                if gone.is_none() && !waiting.contains(batch) {
                    *gone = Some(now);
                }
            }
        }
        for memory in self.memory.edit().values_mut() {
            memory.trim(limits.memory_rows);
        }
    }

    /// Drops segments that nobody will judge any more, with their jobs: those from before that time, and the oldest ones of
    /// too many.
    fn drop_judged(&mut self, before: Timestamp) {
        let open: HashSet<_> =
            self.jobs.values().filter(|job| !job.row.state.is_settled()).map(|job| job.row.segment).collect();
        let judged = self.segments.values().filter(|segment| !open.contains(&segment.id));
        let mut newest: Vec<_> = judged.map(|segment| (Reverse(segment.at), segment.id, segment.rows.len())).collect();
        newest.sort_unstable();
        let mut rows = 0_usize;
        let dropped: BTreeSet<_> = newest
            .into_iter()
            .filter(|(Reverse(at), _, more)| {
                rows = rows.saturating_add(*more);
                *at < before || rows > JUDGED_ROWS
            })
            .map(|(_, id, _)| id)
            .collect();
        self.segments.retain(|id, _| !dropped.contains(id));
        self.jobs.retain(|(segment, _), _| !dropped.contains(segment));
    }

    /// A row just written that points at nothing, if there is one.
    fn dangling(&self, writes: &[Write]) -> Option<String> {
        let lacks = |id: &IncidentId| !self.incidents.contains_key(id);
        writes.iter().find_map(|write| match write {
            Write::Event(event) if lacks(&event.incident) => {
                Some(format!("event {} of unknown incident {}", event.seq, event.incident))
            }
            Write::Outbox(row) if lacks(&row.row.incident) => {
                Some(format!("outbox row {} of unknown incident {}", row.row.first_seq, row.row.incident))
            }
            Write::Key(owner) if lacks(&owner.row.incident) => {
                Some(format!("key {} of unknown incident {}", owner.row.key, owner.row.incident))
            }
            Write::Job(job) if !self.segments.contains_key(&job.row.segment) => {
                Some(format!("job of unknown segment {:032x}", job.row.segment.0))
            }
            Write::Sending(sending) if !sending.row.done => {
                let missing = sending.row.rows.iter().find(|key| !self.outbox.contains_key(key))?;
                Some(format!("message of unknown outbox row {} of {}", missing.first_seq, missing.incident))
            }
            _ => None,
        })
    }

    fn read(&self, query: &Query) -> Snapshot {
        let mut snapshot = Snapshot { installation: self.installation.clone(), ..Snapshot::default() };
        if let Some(source) = &query.source {
            self.read_source(source, query, &mut snapshot);
        }
        snapshot.keys =
            query.keys.iter().collect::<BTreeSet<_>>().into_iter().filter_map(|key| row(&self.keys, key)).collect();
        self.read_outbox(query, &mut snapshot);
        self.read_incidents(query, &mut snapshot);
        match &query.jobs {
            Jobs::None => {}
            Jobs::Open { limit } => {
                let mut jobs: Vec<_> = self.jobs.values().filter(|job| !job.row.state.is_settled()).collect();
                jobs.sort_by_key(|job| Reverse(job.row.created));
                snapshot.jobs = jobs.into_iter().take(*limit).map(|job| (**job).clone()).collect();
            }
            Jobs::Of(segments) => {
                let of = self.jobs.values().filter(|job| segments.contains(&job.row.segment));
                snapshot.jobs = of.map(|job| (**job).clone()).collect();
            }
        }
        snapshot.segments = query.segments.iter().filter_map(|id| self.segments.get(id).cloned()).collect();
        if query.channels {
            snapshot.channels = self.channels.values().map(|row| (**row).clone()).collect();
        }
        if query.mutes {
            snapshot.mutes = self.mutes.values().map(|mute| (**mute).clone()).collect();
        }
        if let Some((profile, fingerprint, leaves)) = &query.verdicts {
            snapshot.verdicts = leaves
                .iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .filter_map(|leaf| {
                    let until = *self.verdicts.get(&(*leaf, profile.clone(), fingerprint.clone()))?;
                    let (profile, fingerprint) = (profile.clone(), fingerprint.clone());
                    Some(BenignVerdict { leaf: *leaf, profile, fingerprint, until })
                })
                .collect();
        }
        let mut summaries: Vec<_> = self.summaries.values().filter(|_| query.summaries > 0).collect();
        summaries.sort_by_key(|summary| Reverse(summary.at));
        snapshot.summaries = summaries.into_iter().take(query.summaries).map(|summary| (**summary).clone()).collect();
        if query.counters {
            snapshot.counters = (*self.counters).clone();
        }
        self.read_pushed(query, &mut snapshot);
        for name in &query.values {
            if let Some(value) = row(&self.values, name) {
                snapshot.values.insert(name.clone(), value);
            }
        }
        snapshot
    }

    fn read_source(&self, source: &SourceId, query: &Query, snapshot: &mut Snapshot) {
        snapshot.source = row(&self.sources, source);
        if query.leaves
            && let Some(leaves) = self.leaves.get(source)
        {
            let in_order = leaves.order.values().filter_map(|leaf| leaves.rows.get(leaf));
            snapshot.leaves = in_order.map(|(_, _, leaf)| (**leaf).clone()).collect();
            snapshot.gone = leaves.gone.values().copied().collect();
        }
        if query.memory
            && let Some(memory) = self.memory.get(source)
        {
            snapshot.memory = memory.rows.iter().map(|(key, row)| (*key, (**row).clone())).collect();
            snapshot.memory_source = memory.source.clone();
        }
        if query.seen
            && let Some(seen) = self.seen.get(source)
        {
            snapshot.seen = (**seen).clone();
        }
    }

    fn read_incidents(&self, query: &Query, snapshot: &mut Snapshot) {
        let mut ids: Vec<_> = snapshot.keys.iter().map(|owner| owner.row.incident).collect();
        ids.extend(snapshot.outbox.iter().map(|row| row.row.incident));
        match &query.incidents {
            Incidents::None => {}
            Incidents::Ids(asked) => ids.extend(asked),
            Incidents::Firing => {
                ids.extend(self.incidents.values().filter(|i| i.row.status == Status::Firing).map(|i| i.row.id));
            }
            Incidents::Latest { limit } => {
                let mut latest: Vec<_> = self.incidents.values().map(|i| (i.row.last, i.row.id)).collect();
                latest.sort_unstable();
                ids.extend(latest.into_iter().rev().take(*limit).map(|(_, id)| id));
            }
        }
        while let Some(id) = ids.pop() {
            if snapshot.incidents.contains_key(&id) {
                continue;
            }
            if let Some(incident) = row(&self.incidents, &id) {
                if let Status::Merged { into } = incident.row.status {
                    ids.push(into);
                }
                snapshot.incidents.insert(id, incident);
            }
        }
        if query.events {
            for id in snapshot.incidents.keys() {
                let events = self.events.range((*id, 0)..=(*id, u64::MAX));
                snapshot.events.extend(events.map(|(_, event)| (**event).clone()));
            }
        }
    }

    fn read_outbox(&self, query: &Query, snapshot: &mut Snapshot) {
        let wanted = |row: &OutboxRow| match &query.outbox {
            Outbox::None => false,
            Outbox::Open => row.state.is_open(),
            Outbox::Channel(channel) => row.state.is_open() && row.channel == *channel,
            Outbox::Incidents(ids) => ids.contains(&row.incident),
        };
        if query.outbox == Outbox::None {
            return;
        }
        snapshot.outbox = self.outbox.values().filter(|row| wanted(&row.row)).map(|row| (**row).clone()).collect();
        let sends: BTreeSet<_> = snapshot.outbox.iter().filter_map(|row| row.row.send).collect();
        let wanted = |sending: &Sending| match &query.outbox {
            Outbox::None => false,
            Outbox::Open => !sending.done,
            Outbox::Channel(channel) => !sending.done && sending.channel == *channel,
            Outbox::Incidents(_) => sends.contains(&sending.id),
        };
        snapshot.sendings = self.sendings.values().filter(|row| wanted(&row.row)).map(|row| (**row).clone()).collect();
    }

    fn read_pushed(&self, query: &Query, snapshot: &mut Snapshot) {
        if let Some(budget) = query.spool {
            let mut lines = 0_u64;
            for row in self.spool.values() {
                lines = lines.saturating_add(row.lines);
                // The first one comes even when it is larger than the budget, or it would wait for ever.
                if lines > budget && !snapshot.spool.is_empty() {
                    break;
                }
                snapshot.spool.push((**row).clone());
            }
            let bytes = self.spool.values().map(|row| row.body.len() as u64).sum();
            snapshot.spool_size = (self.spool.len() as u64, bytes);
        }
        snapshot.batches = query.batches.iter().copied().filter(|batch| self.batches.contains_key(batch)).collect();
        let newest = self.quarantine.values().rev().take(query.quarantine);
        snapshot.quarantine = newest.map(|row| (**row).clone()).collect();
    }
}

fn row<K: Ord, T: Clone>(table: &Table<K, Row<T>>, key: &K) -> Option<Versioned<T>> {
    table.get(key).map(|row| (**row).clone())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::executor::block_on;

    use super::*;
    use crate::{ledger::JobState, testing::rows};

    const NOW: Timestamp = Timestamp::from_secs(1_795_233_600);

    /// A segment of that many rows.
    fn large(n: u64, rows: usize) -> Arc<Segment> {
        let mut segment = (*rows::segment(n, NOW.plus(Duration::from_secs(n)))).clone();
        segment.rows = vec![segment.rows[0].clone(); rows];
        segment.into()
    }

    #[test]
    fn segments_that_nobody_will_judge_make_room_and_those_that_wait_stay() {
        let ledger = MemoryLedger::new(1, 2);
        let commit = |id, writes| block_on(ledger.commit(&Commit { id: CommitId(id), writes })).unwrap();
        for n in 1..=10 {
            let mut job = rows::job(n, ProfileName::general(), NOW);
            if n != 3 {
                job.state = JobState::Analysed;
            }
            let count = Write::Count("lines_kept".into(), 7);
            let writes = vec![Write::Segment(large(n, 8_000)), Write::Job(Versioned::new(job)), count];
            assert_eq!(commit(n.into(), writes), Committed::Done);
        }
        let query = Query {
            segments: (1..=10).map(SegmentId).collect(),
            jobs: Jobs::Of((1..=10).map(SegmentId).collect()),
            counters: true,
            ..Query::default()
        };
        let read = || block_on(ledger.read(&query)).unwrap();
        let kept = |snapshot: &Snapshot| snapshot.segments.iter().map(|segment| segment.id.0).collect::<Vec<_>>();
        assert_eq!(kept(&read()), [3, 9, 10], "what waits, and the latest");
        assert_eq!((read().jobs.len(), read().counters["lines_kept"]), (3, 70));

        let job = read().jobs.into_iter().find(|job| job.row.segment == SegmentId(3)).unwrap();
        let row = Job { state: JobState::Analysed, ..job.row };
        assert_eq!(commit(11, vec![Write::Job(Versioned { version: job.version, row })]), Committed::Done);
        assert_eq!(kept(&read()), [9, 10], "when it is judged it goes, too");
    }
}
