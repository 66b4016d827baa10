//! Which incident a finding belongs to, and what that makes known.
//!
//! A [`Book`] is opened on a snapshot, takes findings, moved roots and occurrences, and is closed into writes. It follows
//! DESIGN section 7:
//!
//! * A detector's finding joins the open incident that owns the key of what it is about first; keys that nobody owns, or
//!   that only a model claims, become that incident's. Otherwise it opens a new one.
//! * A model's finding about owned keys explains every owner and may raise it; it merges none and takes no key. What else
//!   it is about is *soft*: where all of that is softly owned, the finding joins; where a template is free, it opens a new
//!   incident for the free ones, so that citing yesterday's rows glues nothing new to something old.
//! * When a root moves up, its key goes to the oldest open owner, and the others end as merged.
//! * An incident that comes to be about more (another template, another file system of the same rule) says so in every
//!   channel: by an edit where that is possible, by a new message elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use logwarden_detectors::{By, Entity, EntityKind, Route, Severity};
use logwarden_templates::{LeafId, LineId, Move, RootId};

use crate::{
    Timestamp,
    decide::{Policy, ago, budget::Budget, mutes},
    finding::{Cited, Evidence, Grounded, Key, Scope},
    incident::{Event, EventKind, Incident, IncidentId, Omitted, Prose, Rank, Status},
    ledger::{
        Incidents, Installation, KeyOwner, Mute, Outbox, OutboxKey, OutboxRow, OutboxState, Query, Snapshot, Versioned,
        Write,
    },
    message::SendId,
    source::SourceId,
};

/// Templates listed per incident.
const MAX_CITED: usize = 48;
/// Keys listed per incident, for the deduplication store; it may own more. Those that do not fit are counted.
const MAX_KEYS: usize = 256;
/// Lines kept per incident: half of them the first ones, half the latest.
const MAX_EVIDENCE: usize = 12;
/// Entities listed per incident.
const MAX_ENTITIES: usize = 40;
/// Entities that came while it went on and are remembered as such.
const MAX_NEWCOMERS: usize = 4;

#[derive(Debug)]
struct Slot<T> {
    version: u64,
    row: T,
    dirty: bool,
}

impl<T> Slot<T> {
    fn known(versioned: Versioned<T>) -> Self {
        Self { version: versioned.version, row: versioned.row, dirty: false }
    }

    fn new(row: T) -> Self {
        Self { version: 0, row, dirty: true }
    }

    fn change(&mut self) -> &mut T {
        self.dirty = true;
        &mut self.row
    }

    fn written(self) -> Option<Versioned<T>> {
        self.dirty.then_some(Versioned { version: self.version, row: self.row })
    }
}

/// Events that a claimant has counted, by the leaves that they are of.
#[derive(Debug)]
struct Counted {
    by: By,
    leaves: BTreeSet<Key>,
    count: u64,
}

/// Which channels an event is for.
enum Audience<'a> {
    /// All that take its severity.
    All,
    /// Those that our own message told, and those that are about to be told.
    Told,
    /// Of those, the ones that can amend a message.
    Amending,
    /// These.
    Named(&'a [Arc<str>]),
}

/// The incidents that matter for a decision, as they change.
#[derive(Debug)]
pub struct Book<'a> {
    policy: &'a Policy,
    now: Timestamp,
    source: SourceId,
    installation: Slot<Installation>,
    incidents: BTreeMap<IncidentId, Slot<Incident>>,
    keys: BTreeMap<Key, Slot<KeyOwner>>,
    outbox: BTreeMap<OutboxKey, Slot<OutboxRow>>,
    mutes: Vec<Mute>,
    /// Announcements that are being sent, and when they were formed.
    announcing: BTreeMap<SendId, Timestamp>,
    budget: Option<Budget>,
    events: Vec<Event>,
    /// Which events of an incident this book has counted.
    counted: BTreeMap<IncidentId, Vec<Counted>>,
    opened: u64,
    joined: u64,
    keys_omitted: u64,
    templates_omitted: u64,
}

impl<'a> Book<'a> {
    /// What must be read for a book that will be asked about `keys`.
    pub fn query(keys: Vec<Key>) -> Query {
        Query { keys, incidents: Incidents::Firing, outbox: Outbox::Open, mutes: true, ..Query::default() }
    }

    /// Opens a book on what [`Book::query`] has read. `None` when the ledger has no installation row, which a ledger
    /// always has.
    pub fn open(policy: &'a Policy, snapshot: &Snapshot, source: SourceId, now: Timestamp) -> Option<Self> {
        let keys = snapshot.keys.iter().map(|owner| (owner.row.key, Slot::known(owner.clone())));
        let announcing = snapshot.sendings.iter().filter(|sending| sending.row.asks_dedup && !sending.row.done);
        Some(Self {
            policy,
            now,
            source,
            installation: Slot::known(snapshot.installation.clone()?),
            incidents: snapshot.incidents.iter().map(|(id, row)| (*id, Slot::known(row.clone()))).collect(),
            keys: keys.collect(),
            outbox: snapshot.outbox.iter().map(|row| (row.row.key(), Slot::known(row.clone()))).collect(),
            mutes: policy.mutes.iter().chain(&snapshot.mutes).cloned().collect(),
            announcing: announcing.map(|sending| (sending.row.id, sending.row.message.at)).collect(),
            budget: None,
            events: Vec::new(),
            counted: BTreeMap::new(),
            opened: 0,
            joined: 0,
            keys_omitted: 0,
            templates_omitted: 0,
        })
    }

    /// Keeps to the day's budget of this book's source; `snapshot` has the value that is called [`budget::name`].
    ///
    /// [`budget::name`]: crate::decide::budget::name
    pub fn keep_to_budget(&mut self, snapshot: &Snapshot) {
        self.budget = Some(Budget::of(self.policy, snapshot, &self.source, self.now));
    }

    /// Incidents opened so far.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Findings that joined an incident so far.
    pub fn joined(&self) -> u64 {
        self.joined
    }

    /// Whether an incident has begun that is told to the channels, not only listed.
    pub fn has_news(&self) -> bool {
        let begun = self.events.iter().filter(|event| event.kind == EventKind::Fired);
        begun.filter_map(|event| self.incident(event.incident)).any(|incident| incident.route == Route::Alert)
    }

    /// The incident, if the book has it.
    pub fn incident(&self, id: IncidentId) -> Option<&Incident> {
        self.incidents.get(&id).map(|slot| &slot.row)
    }

    /// The open incidents of this book's source.
    pub fn firing(&self) -> impl Iterator<Item = &Incident> + '_ {
        self.incidents.values().map(|slot| &slot.row).filter(|incident| incident.status == Status::Firing)
    }

    /// The open incident that owns a key, if any; `soft` says whether owners by a model's word count.
    fn owner(&self, key: Key, soft: bool) -> Option<IncidentId> {
        let owner = self.keys.get(&key).filter(|owner| soft || !owner.row.soft)?;
        let mut id = owner.row.incident;
        // Merged incidents point to their survivor; the chain is short, and a damaged one ends.
        for _ in 0..64 {
            match self.incidents.get(&id)?.row.status {
                Status::Firing => return Some(id),
                Status::Quiet { .. } => return None,
                Status::Merged { into } => id = into,
            }
        }
        None
    }

    fn set_owner(&mut self, key: Key, incident: IncidentId, soft: bool) {
        let wanted = KeyOwner { key, incident, soft };
        match self.keys.get_mut(&key) {
            Some(slot) if slot.row == wanted => {}
            Some(slot) => *slot.change() = wanted,
            None => {
                self.keys.insert(key, Slot::new(wanted));
            }
        }
        self.list_keys(incident, &[key]);
    }

    /// Notes that an incident is about these keys, whoever owns them: only if all were told elsewhere is it told (R4).
    fn list_keys(&mut self, id: IncidentId, keys: &[Key]) {
        let Some(slot) = self.incidents.get_mut(&id) else { return };
        for key in keys {
            if slot.row.keys.contains(key) {
                continue;
            }
            if slot.row.keys.len() < MAX_KEYS {
                slot.change().keys.push(*key);
            } else if slot.change().omitted_keys.note(*key) {
                self.keys_omitted += 1;
            }
        }
    }

    /// Takes a finding, whoever claims it.
    pub fn take(&mut self, finding: &Grounded) {
        if finding.keys().is_empty() {
            return; // grounding lets no such finding pass
        }
        // Where nothing can be edited, that it went quiet is no news beside that it begins anew.
        let heard = if finding.route == Route::Alert { Audience::Amending } else { Audience::Told };
        self.end_stale(&finding.keys(), finding.first, &heard);
        if finding.by.is_model() { self.take_models(finding) } else { self.take_detectors(finding) }
    }

    /// Ends what owns these keys and did not occur for a window before `first`: nobody looked meanwhile (the machine was
    /// off), and what comes now is a new incident.
    fn end_stale(&mut self, keys: &[Key], first: Timestamp, heard: &Audience<'_>) {
        let owners: BTreeSet<_> = keys.iter().filter_map(|key| self.owner(*key, true)).collect();
        for id in owners {
            if self.incident(id).is_some_and(|incident| first.since(incident.last) >= self.policy.window) {
                self.quiet_for(id, heard);
            }
        }
    }

    fn take_detectors(&mut self, finding: &Grounded) {
        // The first anomalous citation says what it is about; its root before its leaf.
        let keys: Vec<_> = finding.cited.iter().flat_map(Cited::keys).collect();
        match keys.iter().find_map(|key| self.owner(*key, false)) {
            Some(owner) => {
                self.own_free(owner, &keys, false);
                self.join(owner, finding);
            }
            None => {
                let owner = self.begin(finding);
                self.own_free(owner, &keys, false);
            }
        }
    }

    fn take_models(&mut self, finding: &Grounded) {
        let owned = |book: &Self, cited: &Cited, soft| cited.keys().any(|key| book.owner(key, soft).is_some());
        let owners: BTreeSet<_> = finding.keys().iter().filter_map(|key| self.owner(*key, false)).collect();
        let mut rest = finding.clone();
        if !owners.is_empty() {
            rest.cited.retain(|cited| cited.anomalous && !owned(self, cited, false));
        }
        for owner in owners {
            self.explain(owner, finding);
        }
        let keys = rest.keys();
        let free: Vec<_> = keys.iter().copied().filter(|key| self.owner(*key, true).is_none()).collect();
        let known = keys.iter().find_map(|key| self.owner(*key, true));
        match known {
            _ if keys.is_empty() => {}
            // A leaf may be free because another leaf of a known root occurred; a root that is free is something new.
            Some(owner) if rest.cited.iter().filter(|cited| cited.anomalous).all(|cited| owned(self, cited, true)) => {
                self.own_free(owner, &free, true);
                self.join(owner, &rest);
            }
            _ => {
                let owner = self.begin(&rest);
                self.own_free(owner, &free, true);
            }
        }
    }

    /// Gives those of the keys to `id` that nobody owns; a model's word is nothing to a detector.
    fn own_free(&mut self, id: IncidentId, keys: &[Key], soft: bool) {
        for key in keys {
            if self.owner(*key, soft).is_none() {
                self.set_owner(*key, id, soft);
            }
        }
    }

    fn begin(&mut self, finding: &Grounded) -> IncidentId {
        let installation = self.installation.change();
        let id = IncidentId::of(installation.id, installation.next_incident);
        installation.next_incident += 1;
        let before = finding.keys().into_iter().filter_map(|key| {
            let owner = self.incidents.get(&self.keys.get(&key)?.row.incident)?;
            (owner.row.status != Status::Firing).then_some((owner.row.id, owner.row.last))
        });
        let before = before.max_by_key(|(_, last)| *last);
        let prose = |text: &str| (!text.is_empty()).then(|| Prose { text: text.to_owned(), model: model(&finding.by) });
        let mut incident = Incident {
            id,
            source: self.source.clone(),
            status: Status::Firing,
            rank: rank(finding),
            route: finding.route,
            category: finding.category,
            profiles: vec![finding.profile.clone()],
            claimed_by: vec![claimed_by(&finding.by)],
            title: finding.title.clone(),
            explanation: prose(&finding.explanation),
            comment: None,
            recommendation: prose(&finding.recommendation),
            cited: Vec::new(),
            keys: Vec::new(),
            omitted_keys: Omitted::default(),
            omitted_templates: Omitted::default(),
            evidence: Vec::new(),
            entities: Vec::new(),
            omitted_entities: Omitted::default(),
            newcomers: Vec::new(),
            count: finding.count,
            first: finding.first,
            last: finding.last,
            opened: self.now,
            touched: self.now,
            query: finding.query.clone(),
            before,
            next_seq: 0,
            must_know: 0,
            told: BTreeMap::new(),
            // What comes after an incident that is muted is muted, too.
            muted_by: before.and_then(|(id, _)| self.incident(id)?.muted_by.clone()),
            outgrown: before.and_then(|(id, _)| self.outgrown_by(id)),
            over_budget: false,
            over: None,
            labels: finding.labels.clone(),
        };
        self.templates_omitted += absorb(&mut incident, &finding.cited, &finding.evidence, &finding.entities);
        let muted = mutes::holding(&incident, &self.mutes, self.now).is_some();
        if !muted && !affords(&mut self.budget, finding) {
            incident.route = Route::Digest;
            incident.over_budget = true;
            if let Some(budget) = &mut self.budget {
                budget.refuse();
            }
        }
        let announced = incident.route == Route::Alert;
        self.incidents.insert(id, Slot::new(incident));
        // What was told of an incident that is known to be over, or is being told, was not about this one.
        if before.and_then(|(before, _)| self.incident(before)).is_some_and(|before| before.over.is_some()) {
            self.list_keys(id, &[Key::of_incident(id)]);
        }
        self.check_mute(id);
        self.list_keys(id, &finding.keys());
        self.list_keys(id, finding.mark().as_slice());
        self.count(id, finding);
        self.opened += 1;
        let audience = if announced { Audience::All } else { Audience::Named(&[]) };
        self.emit(id, EventKind::Fired, finding.last, &audience);
        id
    }

    /// How many of a finding's events are not counted in its incident yet: what two rules say about the same lines is
    /// counted once.
    fn count(&mut self, id: IncidentId, finding: &Grounded) -> u64 {
        let anomalous = finding.cited.iter().filter(|cited| cited.anomalous);
        let leaves: BTreeSet<Key> =
            anomalous.filter_map(|cited| Some(Key::of_leaf(&cited.scope, cited.leaf?))).collect();
        let counted = self.counted.entry(id).or_default();
        let (mut own, mut others) = (0_u64, Vec::<(&By, u64)>::new());
        for known in counted.iter().filter(|known| !known.leaves.is_disjoint(&leaves)) {
            match others.iter_mut().find(|(by, _)| **by == known.by) {
                _ if known.by == finding.by => own = own.saturating_add(known.count),
                Some((_, count)) => *count = count.saturating_add(known.count),
                None => others.push((&known.by, known.count)),
            }
        }
        let others = others.into_iter().map(|(_, count)| count).max().unwrap_or(0);
        let fresh = own.saturating_add(finding.count).max(others) - own.max(others);
        counted.push(Counted { by: finding.by.clone(), leaves, count: finding.count });
        fresh
    }

    fn join(&mut self, id: IncidentId, finding: &Grounded) {
        self.check_mute(id);
        let reshaped =
            self.incident(id).is_some_and(|incident| incident.muted_by.is_some() && reshapes(incident, finding));
        if reshaped {
            self.outgrow(id);
        }
        self.list_keys(id, &finding.keys());
        self.list_keys(id, finding.mark().as_slice());
        let (now, count) = (self.now, self.count(id, finding));
        let Some(slot) = self.incidents.get_mut(&id) else { return };
        let incident = slot.change();
        let from = incident.rank;
        let announced = incident.route == Route::Alert;
        // What the budget held back stays back until there is some again, or until it matters more.
        let held = !announced && incident.muted_by.is_none() && !affords(&mut self.budget, finding);
        let route = if held { Route::Digest } else { finding.route };
        touch(incident, count, finding.first, finding.last, now);
        incident.route = incident.route.max(route);
        incident.over_budget = incident.route == Route::Digest && (incident.over_budget || held);
        let claimed = claimed_by(&finding.by);
        if !incident.claimed_by.contains(&claimed) {
            incident.claimed_by.push(claimed);
        }
        if !incident.profiles.contains(&finding.profile) {
            incident.profiles.push(finding.profile.clone());
        }
        // Of lines that were counted before, so were those whom they name.
        let known = |entity: &Entity| {
            incident.entities.iter().any(|one| (one.kind, &one.value) == (entity.kind, &entity.value))
        };
        let again = count == 0 && finding.count > 0;
        let entities: Vec<_> = finding.entities.iter().filter(|entity| !again || !known(entity)).cloned().collect();
        greet(incident, &entities);
        self.templates_omitted += absorb(incident, &finding.cited, &finding.evidence, &entities);
        // Our own words say how it is now, such as how much room is left.
        if rank(finding) > from || (incident.source.is_own() && rank(finding) == from) {
            incident.rank = rank(finding);
            incident.title.clone_from(&finding.title);
            incident.category = finding.category;
            let prose =
                |text: &str| (!text.is_empty()).then(|| Prose { text: text.to_owned(), model: model(&finding.by) });
            incident.explanation = prose(&finding.explanation);
            incident.recommendation = prose(&finding.recommendation);
        }
        let (to, upgraded) = (incident.rank, !announced && incident.route == Route::Alert);
        self.joined += 1;
        if upgraded {
            self.emit(id, EventKind::Fired, finding.last, &Audience::All);
        } else if to > from {
            self.escalate(id, from, finding.last);
        } else if reshaped {
            self.emit(id, EventKind::Reminded, finding.last, &Audience::All);
        } else {
            self.grew(id, finding.last, &self.news(id, finding));
        }
    }

    /// A model's finding about rows that a detector's incident owns.
    fn explain(&mut self, id: IncidentId, finding: &Grounded) {
        let Some(slot) = self.incidents.get_mut(&id) else { return };
        let from = slot.row.rank;
        let claimed = claimed_by(&finding.by);
        if !slot.row.claimed_by.contains(&claimed) {
            slot.change().claimed_by.push(claimed);
        }
        if finding.severity > from.severity {
            slot.change().rank.severity = finding.severity;
        }
        let first_words = slot.row.comment.is_none() && !finding.explanation.is_empty();
        if first_words {
            slot.change().comment = Some(Prose { text: finding.explanation.clone(), model: model(&finding.by) });
        }
        let to = slot.row.rank;
        self.joined += 1;
        if to > from {
            self.escalate(id, from, finding.last);
        } else if first_words {
            self.emit(id, EventKind::Explained, finding.last, &Audience::Told);
        }
        self.tell_missing(id, finding.last);
    }

    /// Notes which mute holds an incident back now, for lists.
    fn check_mute(&mut self, id: IncidentId) {
        let Some(incident) = self.incident(id) else { return };
        let by = mutes::holding(incident, &self.mutes, self.now).map(|mute| mute.id.clone());
        if incident.muted_by != by
            && let Some(slot) = self.incidents.get_mut(&id)
        {
            slot.change().muted_by = by;
        }
    }

    fn escalate(&mut self, id: IncidentId, from: Rank, data: Timestamp) {
        self.check_mute(id);
        self.outgrow(id);
        self.emit(id, EventKind::Escalated { from }, data, &Audience::All);
    }

    /// A mute ends when what it holds back becomes worse, or another thing.
    fn outgrow(&mut self, id: IncidentId) {
        if let Some(slot) = self.incidents.get_mut(&id)
            && slot.row.muted_by.is_some()
        {
            let incident = slot.change();
            incident.outgrown = incident.muted_by.take();
        }
    }

    /// The mute of one incident that no longer holds `id`, nor what follows it.
    fn outgrown_by(&self, id: IncidentId) -> Option<String> {
        let outgrown = self.incident(id)?.outgrown.clone()?;
        let of_one = |mute: &Mute| mute.id == outgrown && mute.matches.incident.is_some();
        self.mutes.iter().any(of_one).then_some(outgrown)
    }

    fn grew(&mut self, id: IncidentId, data: Timestamp, news: &[Arc<str>]) {
        self.tell_missing(id, data);
        if !news.is_empty() {
            self.emit(id, EventKind::Grew { news: true }, data, &Audience::Named(news));
        }
        self.emit(id, EventKind::Grew { news: false }, data, &Audience::Amending);
    }

    /// The channels that have never heard of something that a finding is about. What a root came to stand for by
    /// generalising they have heard of.
    fn news(&self, id: IncidentId, finding: &Grounded) -> Vec<Arc<str>> {
        let Some(incident) = self.incident(id) else { return Vec::new() };
        // What is not even listed can never be known to be told.
        let listed = |key: &Key| incident.keys.contains(key);
        let heard = |channel: &Arc<str>| {
            let known = incident.told.get(channel).map(|told| &*told.known).unwrap_or_default();
            let cited = finding.cited.iter().filter(|cited| cited.anomalous);
            let mut templates = cited.map(|cited| cited.keys().filter(listed).collect::<Vec<_>>());
            templates.all(|keys| keys.is_empty() || keys.iter().any(|key| known.contains(key)))
                && finding.mark().filter(listed).is_none_or(|mark| known.contains(&mark))
        };
        self.eligible(incident).filter(|channel| !heard(channel)).collect()
    }

    /// A channel that was never told, or not all that it must know, and to which nothing is on its way (its row died, it is
    /// new, a mute ended), is told now (R9).
    fn tell_missing(&mut self, id: IncidentId, data: Timestamp) {
        let Some(incident) = self.incident(id) else { return };
        let missing: Vec<_> = self
            .eligible(incident)
            .filter(|channel| incident.told.get(channel).is_none_or(|told| told.knows < incident.must_know))
            .filter(|channel| !self.has_open_row(id, channel))
            .collect();
        if !missing.is_empty() {
            self.emit(id, EventKind::Reminded, data, &Audience::Named(&missing));
        }
    }

    /// Tells of an incident that was held back by a mute, if none holds it any more.
    pub fn tell_if_unmuted(&mut self, id: IncidentId) {
        self.check_mute(id);
        let unmuted = self.incident(id).filter(|incident| incident.muted_by.is_none());
        if let Some(last) = unmuted.map(|incident| incident.last) {
            self.tell_missing(id, last);
        }
    }

    fn eligible(&self, incident: &Incident) -> impl Iterator<Item = Arc<str>> + use<'_> {
        let told = incident.route == Route::Alert && mutes::holding(incident, &self.mutes, self.now).is_none();
        let severity = incident.rank.severity;
        let channels = self.policy.channels.iter().filter(move |channel| told && severity >= channel.min_severity);
        channels.map(|channel| channel.name.clone())
    }

    fn has_open_row(&self, id: IncidentId, channel: &Arc<str>) -> bool {
        self.rows_of(id, channel).any(|row| row.state.is_open())
    }

    fn rows_of<'b>(&'b self, id: IncidentId, channel: &'b Arc<str>) -> impl Iterator<Item = &'b OutboxRow> + 'b {
        let rows = self.outbox.values().map(|slot| &slot.row);
        rows.filter(move |row| row.incident == id && row.channel == *channel)
    }

    fn emit(&mut self, id: IncidentId, kind: EventKind, data: Timestamp, audience: &Audience<'_>) {
        let Some(incident) = self.incident(id) else { return };
        let channels: Vec<Arc<str>> = match audience {
            Audience::All => self.eligible(incident).collect(),
            Audience::Named(names) => names.to_vec(),
            Audience::Told | Audience::Amending => {
                let amending = matches!(audience, Audience::Amending);
                let heard = |channel: &&crate::notifier::Channel| {
                    let told = incident.told.get(&channel.name);
                    let ours = told.is_some_and(|told| if amending { told.receipt.is_some() } else { told.own });
                    (channel.amends || !amending) && (ours || self.has_open_row(id, &channel.name))
                };
                self.policy.channels.iter().filter(heard).map(|channel| channel.name.clone()).collect()
            }
        };
        let (seq, rank) = (incident.next_seq, incident.rank);
        if channels.is_empty() && kind == (EventKind::Grew { news: false }) {
            return; // nobody would see it, and every pass would write one
        }
        if let Some(slot) = self.incidents.get_mut(&id) {
            let incident = slot.change();
            incident.next_seq += 1;
            if matches!(kind, EventKind::Fired | EventKind::Escalated { .. }) {
                incident.must_know = incident.next_seq;
            }
        }
        for channel in channels {
            self.enqueue(id, seq, channel, &kind, rank, data);
        }
        self.events.push(Event { incident: id, seq, at: self.now, data, kind, rank });
    }

    fn enqueue(
        &mut self,
        incident: IncidentId,
        seq: u64,
        channel: Arc<str>,
        kind: &EventKind,
        rank: Rank,
        data: Timestamp,
    ) {
        // No judge ever explains our own troubles: they wait for none.
        let urgent =
            rank.severity >= logwarden_detectors::Severity::High || !kind.is_announcement() || self.source.is_own();
        let next_at = if urgent { self.now } else { self.now.plus(self.policy.explain_wait) };
        // R1: only a row that was never claimed absorbs.
        let absorber = self.outbox.values_mut().find(|slot| {
            let row = &slot.row;
            row.incident == incident && row.channel == channel && row.send.is_none() && row.state.is_open()
        });
        if let Some(slot) = absorber {
            let first_words = *kind == EventKind::Explained;
            let row = slot.change();
            row.seq = seq;
            row.data = row.data.max(data);
            if let OutboxState::Pending { next_at: at } = &mut row.state
                && (urgent && (rank.severity >= logwarden_detectors::Severity::High || first_words))
            {
                *at = (*at).min(next_at);
            }
            return;
        }
        let state = OutboxState::Pending { next_at };
        let row = OutboxRow { incident, seq, first_seq: seq, channel, created: self.now, data, state, send: None };
        self.outbox.insert(row.key(), Slot::new(row));
    }

    /// Counts occurrences of a template that no finding of the same commit cites: an open incident that owns it goes on.
    pub fn occurred(
        &mut self,
        scope: &Scope,
        leaf: LeafId,
        root: RootId,
        count: u64,
        first: Timestamp,
        last: Timestamp,
    ) {
        let root = Key::of_root(scope, root);
        let leaf = Key::of_leaf(scope, leaf);
        self.end_stale(&[root, leaf], first, &Audience::Told);
        let Some(id) = self.owner(root, true).or_else(|| self.owner(leaf, true)) else { return };
        self.check_mute(id);
        let now = self.now;
        if let Some(slot) = self.incidents.get_mut(&id) {
            touch(slot.change(), count, first, last, now);
        }
        self.grew(id, last, &[]);
    }

    /// The keys that [`Book::moved`] may give to open incidents; `snapshot` has those.
    pub fn moved_keys(snapshot: &Snapshot, moves: &[Move]) -> BTreeSet<Key> {
        let open = snapshot.incidents.values().filter(|incident| incident.row.status == Status::Firing);
        let cited = open.flat_map(|incident| &incident.row.cited).filter(|cited| cited.anomalous);
        let mut keys = BTreeSet::new();
        for cited in cited {
            let steps = moves.iter().filter(|step| concerns(step, cited));
            keys.extend(steps.map(|step| Key::of_root(&cited.scope, step.to)));
        }
        keys
    }

    /// Follows leaves whose roots have moved up. `asked` are the keys that the book's snapshot was read for: an incident
    /// that was opened in between keeps its old keys until it occurs again.
    pub fn moved(&mut self, moves: &[Move], asked: &[Key]) {
        let asked: BTreeSet<_> = asked.iter().collect();
        for step in moves {
            let concerned = |cited: &Cited| concerns(step, cited);
            let firing = |slot: &Slot<Incident>| slot.row.status == Status::Firing;
            let found: Vec<(IncidentId, Scope)> = self
                .incidents
                .iter()
                .filter(|(_, slot)| firing(slot))
                .flat_map(|(id, slot)| {
                    let cited = slot.row.cited.iter().filter(|cited| cited.anomalous && concerned(cited));
                    cited.map(|cited| (*id, cited.scope.clone())).collect::<BTreeSet<_>>()
                })
                .collect();
            for (id, scope) in found {
                let key = Key::of_root(&scope, step.to);
                if let Some(slot) = self.incidents.get_mut(&id) {
                    let incident = slot.change();
                    for cited in incident.cited.iter_mut().filter(|cited| cited.scope == scope && concerned(cited)) {
                        // Whoever has heard of the template has heard of what it has become.
                        let before: Vec<Key> = cited.keys().collect();
                        for told in incident.told.values_mut().filter(|told| !told.known.contains(&key)) {
                            if before.iter().any(|key| told.known.contains(key)) {
                                told.known.push(key);
                            }
                        }
                        cited.root = step.to;
                    }
                }
                if asked.contains(&key) {
                    self.give(key, id);
                }
            }
        }
    }

    /// Gives a moved root's key to `id`, or to the older of `id` and its owner.
    fn give(&mut self, key: Key, id: IncidentId) {
        let Some(incident) = self.incident(id).filter(|incident| incident.status == Status::Firing) else { return };
        let soft = !incident.rank.detector;
        match (self.owner(key, false), self.owner(key, true)) {
            (Some(owner), _) if owner == id => {}
            (Some(_), _) if soft => {} // a model's word merges nothing that a detector has found
            (Some(owner), _) => self.merge(owner, id, key),
            (None, Some(owner)) if soft && owner != id => self.merge(owner, id, key),
            _ => self.set_owner(key, id, soft),
        }
    }

    fn merge(&mut self, one: IncidentId, other: IncidentId, key: Key) {
        let (Some(a), Some(b)) = (self.incident(one), self.incident(other)) else { return };
        let (survivor, ending) = if (a.opened, a.id) <= (b.opened, b.id) { (one, other) } else { (other, one) };
        let Some(slot) = self.incidents.get_mut(&ending) else { return };
        let before = slot.row.clone();
        slot.change().status = Status::Merged { into: survivor };
        // A mute of the survivor does not hold what it did not hold before.
        self.check_mute(survivor);
        if mutes::holding(&before, &self.mutes, self.now).is_none() {
            self.outgrow(survivor);
        }
        let soft = !before.rank.detector;
        for owned in &before.keys {
            if self.keys.get(owned).is_some_and(|owner| owner.row.incident == ending) {
                self.set_owner(*owned, survivor, soft);
            }
        }
        self.set_owner(key, survivor, soft);
        self.list_keys(survivor, &before.keys);

        let Some(slot) = self.incidents.get_mut(&survivor) else { return };
        let from = slot.row.rank;
        let incident = slot.change();
        incident.rank = incident.rank.max(before.rank);
        incident.route = incident.route.max(before.route);
        incident.count = incident.count.saturating_add(before.count);
        incident.first = incident.first.min(before.first);
        incident.last = incident.last.max(before.last);
        incident.touched = incident.touched.max(before.touched);
        incident.omitted_entities.note_all(&before.omitted_entities);
        incident.omitted_keys.note_all(&before.omitted_keys);
        incident.omitted_templates.note_all(&before.omitted_templates);
        for by in &before.claimed_by {
            if !incident.claimed_by.contains(by) {
                incident.claimed_by.push(by.clone());
            }
        }
        self.templates_omitted += absorb(incident, &before.cited, &before.evidence, &before.entities);
        if before.rank > from {
            incident.title.clone_from(&before.title);
            incident.category = before.category;
            incident.explanation.clone_from(&before.explanation);
            incident.recommendation.clone_from(&before.recommendation);
        }

        // Who has not heard yet that it became worse has heard of it less loudly than the survivor will speak of it.
        for (channel, told) in before.told.iter().filter(|(_, told)| told.knows >= before.must_know) {
            if let Some(heard) = incident.told.get_mut(channel) {
                hear(&mut heard.known, &told.known);
            }
        }

        // R8: what is not on its way yet goes out under the survivor; above what that told, it is an escalation.
        let unknown = self.not_told(&before);
        for slot in self.outbox.values_mut() {
            if slot.row.incident == ending && slot.row.send.is_none() && slot.row.state.is_open() {
                slot.change().state = OutboxState::Superseded;
            }
        }
        if before.rank > from {
            self.escalate(survivor, from, before.last);
        } else if !unknown.is_empty() {
            self.emit(survivor, EventKind::Grew { news: true }, before.last, &Audience::Named(&unknown));
        }
        self.emit(ending, EventKind::Merged { into: survivor }, before.last, &Audience::Amending);
    }

    /// The channels that must hear of an incident: something of it waits to be told there, or they neither know all they
    /// must nor have a message about it on its way.
    fn not_told(&self, incident: &Incident) -> Vec<Arc<str>> {
        let knows =
            |channel: &Arc<str>| incident.told.get(channel).is_some_and(|told| told.knows >= incident.must_know);
        let is_told = |channel: &Arc<str>| {
            let open: Vec<_> = self.rows_of(incident.id, channel).filter(|row| row.state.is_open()).collect();
            let sending = open.iter().any(|row| row.send.is_some() && row.seq + 1 >= incident.must_know);
            (knows(channel) || sending) && open.iter().all(|row| row.send.is_some())
        };
        self.eligible(incident).filter(|channel| !is_told(channel)).collect()
    }

    /// Ends an incident that has not been seen for a window.
    pub(super) fn quiet(&mut self, id: IncidentId) {
        self.quiet_for(id, &Audience::Told);
    }

    fn quiet_for(&mut self, id: IncidentId, heard: &Audience<'_>) {
        let now = self.now;
        let owed = self.incident(id).map(|incident| self.owed_channels(incident)).unwrap_or_default();
        if !owed.is_empty() {
            self.remind(id, &owed); // before it ends
        }
        let Some(slot) = self.incidents.get_mut(&id) else { return };
        slot.change().status = Status::Quiet { since: now };
        let last = slot.row.last;
        self.emit(id, EventKind::Quiet, last, heard);
    }

    /// What these keys are about is over; `how`, in a sentence of ours.
    pub(crate) fn end(&mut self, keys: &[Key], how: &str) {
        let owners: BTreeSet<_> = keys.iter().filter_map(|key| self.owner(*key, false)).collect();
        let now = self.now;
        for id in owners {
            let Some(slot) = self.incidents.get_mut(&id) else { continue };
            let incident = slot.change();
            (incident.status, incident.over) = (Status::Quiet { since: now }, Some(how.to_owned()));
            self.emit(id, EventKind::Quiet, now, &Audience::Told);
        }
    }

    /// What a key is about goes on, without having occurred once more: it is not stale.
    pub(crate) fn goes_on(&mut self, key: Key) {
        let now = self.now;
        if let Some(id) = self.owner(key, false) {
            self.check_mute(id);
            if let Some(slot) = self.incidents.get_mut(&id) {
                let incident = slot.change();
                incident.touched = now;
                incident.last = incident.last.max(now);
            }
        }
    }

    /// Tells every channel of an incident that is over as soon as it has begun, such as a summary of a day.
    pub(super) fn tell_once(&mut self, describe: impl FnOnce(IncidentId) -> Incident) {
        let installation = self.installation.change();
        let id = IncidentId::of(installation.id, installation.next_incident);
        installation.next_incident += 1;
        let incident = describe(id);
        let last = incident.last;
        self.incidents.insert(id, Slot::new(incident));
        self.emit(id, EventKind::Fired, last, &Audience::All);
    }

    /// Tells these channels again.
    pub(super) fn remind(&mut self, id: IncidentId, channels: &[Arc<str>]) {
        let Some(last) = self.incident(id).map(|incident| incident.last) else { return };
        self.emit(id, EventKind::Reminded, last, &Audience::Named(channels));
    }

    /// The channels that take this incident and have nothing of it on their way.
    pub(super) fn idle_channels(&self, incident: &Incident) -> Vec<Arc<str>> {
        self.eligible(incident).filter(|channel| !self.has_open_row(incident.id, channel)).collect()
    }

    /// The channels that would have been told again had anybody looked, or had their message not been on its way, when it
    /// occurred last.
    fn owed_channels(&self, incident: &Incident) -> Vec<Arc<str>> {
        let remind = self.policy.remind_after(incident.rank.severity);
        let owed = |channel: &Arc<str>| {
            let open = self.rows_of(incident.id, channel).filter(|row| row.state.is_open());
            let formed = open.filter_map(|row| self.announcing.get(&row.send?)).max().copied();
            let said = incident.told.get(channel).map(|told| told.at).max(formed);
            said.is_some_and(|said| incident.touched.since(said) >= remind)
        };
        self.eligible(incident).filter(owed).collect()
    }

    /// Messages that waited for the judge of their pass need wait no longer.
    pub fn release(&mut self, keys: &[Key]) {
        let owners: BTreeSet<_> = keys.iter().filter_map(|key| self.owner(*key, true)).collect();
        let now = self.now;
        for slot in self.outbox.values_mut() {
            if let OutboxState::Pending { next_at } = slot.row.state
                && slot.row.send.is_none()
                && next_at > now
                && owners.contains(&slot.row.incident)
            {
                slot.change().state = OutboxState::Pending { next_at: now };
            }
        }
    }

    /// What has changed.
    pub fn close(self) -> Vec<Write> {
        let mut writes = Vec::new();
        writes.extend(self.installation.written().map(Write::Installation));
        writes.extend(self.incidents.into_values().filter_map(Slot::written).map(|row| Write::Incident(Box::new(row))));
        writes.extend(self.keys.into_values().filter_map(Slot::written).map(Write::Key));
        writes.extend(self.events.into_iter().map(Write::Event));
        writes.extend(self.outbox.into_values().filter_map(Slot::written).map(Write::Outbox));
        let omitted =
            [("incident_keys_omitted", self.keys_omitted), ("incident_templates_omitted", self.templates_omitted)];
        writes.extend(omitted.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| Write::Count(name.to_owned(), n)));
        writes.extend(self.budget.into_iter().flat_map(Budget::close));
        writes
    }
}

/// Whether the day's budget has an alert left for this; critical and high need none.
fn affords(budget: &mut Option<Budget>, finding: &Grounded) -> bool {
    let free = finding.route == Route::Digest || finding.severity >= Severity::High;
    free || budget.as_mut().is_none_or(Budget::take)
}

/// Whether a finding makes a known incident another one than was muted: first of all about something else, or claimed by
/// another rule. New addresses, users and wordings are what such incidents always have.
fn reshapes(incident: &Incident, finding: &Grounded) -> bool {
    let known = |new: &Cited| incident.cited.iter().any(|old| old.root == new.root && old.scope == new.scope);
    let is_new = finding.cited.first().is_some_and(|new| !known(new)) && incident.cited.len() < MAX_CITED;
    is_new || !incident.claimed_by.contains(&claimed_by(&finding.by))
}

fn concerns(step: &Move, cited: &Cited) -> bool {
    match cited.leaf {
        Some(leaf) => leaf == step.leaf,
        None => cited.root == step.from.unwrap_or(step.leaf.as_root()),
    }
}

fn rank(finding: &Grounded) -> Rank {
    Rank { detector: !finding.by.is_model(), severity: finding.severity }
}

fn model(by: &By) -> Option<String> {
    match by {
        By::Model { name } => Some(name.clone()),
        By::Rule { .. } | By::Detector { .. } => None,
    }
}

fn claimed_by(by: &By) -> String {
    match by {
        By::Rule { id } => format!("rule:{id}"),
        By::Detector { name } => format!("detector:{name}"),
        By::Model { name } => format!("model:{name}"),
    }
}

/// Adds keys that a channel has heard of.
pub(super) fn hear(known: &mut Vec<Key>, keys: &[Key]) {
    for key in keys {
        if !known.contains(key) && known.len() < 2 * MAX_KEYS {
            known.push(*key);
        }
    }
}

/// Counts occurrences.
fn touch(incident: &mut Incident, count: u64, first: Timestamp, last: Timestamp, now: Timestamp) {
    // A time from before the clock was set back would keep it open.
    incident.touched = if ago(now, incident.touched) == Duration::MAX { now } else { incident.touched.max(now) };
    incident.count = incident.count.saturating_add(count);
    incident.first = incident.first.min(first);
    incident.last = incident.last.max(last);
}

/// Adds what is new, within bounds. Entities that do not fit are counted in the incident; answers how many more templates
/// did not.
fn absorb(incident: &mut Incident, cited: &[Cited], evidence: &[Evidence], entities: &[Entity]) -> u64 {
    let mut omitted = 0;
    for new in cited {
        let same = |old: &&mut Cited| old.scope == new.scope && old.root == new.root && old.leaf == new.leaf;
        if let Some(old) = incident.cited.iter_mut().find(same) {
            old.anomalous |= new.anomalous;
        } else if incident.cited.len() < MAX_CITED {
            incident.cited.push(new.clone());
        } else {
            let root = || Key::of_root(&new.scope, new.root);
            let key = new.leaf.map_or_else(root, |leaf| Key::of_leaf(&new.scope, leaf));
            omitted += u64::from(incident.omitted_templates.note(key));
        }
    }
    for new in evidence {
        if !incident.evidence.contains(new) {
            incident.evidence.push(new.clone());
        }
    }
    incident.evidence.sort_by_key(|line| line.time);
    if let Some(excess) = incident.evidence.len().checked_sub(MAX_EVIDENCE) {
        incident.evidence.drain(MAX_EVIDENCE / 2..MAX_EVIDENCE / 2 + excess);
    }
    for new in entities {
        let same = |old: &&mut Entity| old.kind == new.kind && old.value == new.value;
        if let Some(old) = incident.entities.iter_mut().find(same) {
            old.count = old.count.saturating_add(new.count);
        } else {
            let full = incident.entities.len() >= MAX_ENTITIES;
            let left_out = if full { make_room(&mut incident.entities, new.kind).or(Some(new.clone())) } else { None };
            if incident.entities.len() < MAX_ENTITIES {
                incident.entities.push(new.clone());
            }
            left_out.map(|entity| incident.omitted_entities.note(name(&entity)));
        }
    }
    incident.entities.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    omitted
}

/// Notes who is new in an incident that goes on.
fn greet(incident: &mut Incident, entities: &[Entity]) {
    let same = |one: &Entity, other: &Entity| one.kind == other.kind && one.value == other.value;
    for entity in entities.iter().filter(|entity| entity.kind != EntityKind::Host) {
        if let Some(known) = incident.newcomers.iter_mut().find(|known| same(known, entity)) {
            known.count = known.count.saturating_add(entity.count);
        } else if !incident.entities.iter().any(|known| same(known, entity))
            && !incident.omitted_entities.has(name(entity))
        {
            incident.newcomers.push(entity.clone());
        }
    }
    incident.newcomers.drain(..incident.newcomers.len().saturating_sub(MAX_NEWCOMERS));
}

/// What an entity is counted by when there is no room for it.
fn name(entity: &Entity) -> Key {
    Key::from_bits(LineId::of(&[b"entity", &[entity.kind as u8], entity.value.as_bytes()]).bits())
}

/// Takes out the last of the kind that has the most, for one of a kind that has fewer: a hundred user names must not hide
/// a second address.
fn make_room(entities: &mut Vec<Entity>, kind: EntityKind) -> Option<Entity> {
    let of_kind = |kind: EntityKind| entities.iter().filter(|entity| entity.kind == kind).count();
    let crowded = entities.iter().map(|entity| entity.kind).max_by_key(|kind| of_kind(*kind));
    let crowded = crowded.filter(|crowded| of_kind(*crowded) > of_kind(kind) + 1)?;
    let last = entities.iter().rposition(|entity| entity.kind == crowded)?;
    Some(entities.remove(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rows;

    const NOW: Timestamp = Timestamp::from_secs(1_795_233_600);

    fn snapshot(installation: u128) -> Snapshot {
        let row = Installation { id: installation, secret: 1, next_incident: 0 };
        Snapshot { installation: Some(Versioned { version: 1, row }), ..Snapshot::default() }
    }

    fn finding(templates: std::ops::Range<u64>, entities: u64) -> Grounded {
        let cited = |n: u64| {
            let leaf = rows::leaf(n, NOW);
            let origin = Arc::new(logwarden_templates::Origin { host: "web-1".into(), service: "app".into() });
            let scope = Scope { tenant: "".into(), origin };
            Cited {
                scope,
                leaf: Some(leaf.leaf),
                root: RootId::of(&[&n.to_le_bytes()]),
                template: leaf.text,
                anomalous: true,
            }
        };
        let entity = |n: u64| Entity { kind: EntityKind::Ip, value: format!("198.51.100.{n}").into(), count: 1 };
        Grounded {
            by: By::Rule { id: "rule".into() },
            profile: logwarden_detectors::ProfileName::general(),
            category: logwarden_detectors::Category::Service,
            severity: Severity::High,
            route: Route::Alert,
            title: "title".into(),
            explanation: String::new(),
            recommendation: String::new(),
            cited: templates.map(cited).collect(),
            discriminator: String::new(),
            evidence: Vec::new(),
            entities: (0..entities).map(entity).collect(),
            query: None,
            labels: BTreeMap::new(),
            score: 1.0,
            count: 1,
            first: NOW,
            last: NOW,
        }
    }

    /// What a ledger with this id is told to write.
    fn writes(installation: u128, findings: &[Grounded]) -> Vec<Write> {
        let policy = Policy::default();
        let mut book = Book::open(&policy, &snapshot(installation), SourceId("test".into()), NOW).unwrap();
        findings.iter().for_each(|finding| book.take(finding));
        book.close()
    }

    fn incident(writes: &[Write]) -> &Incident {
        let incidents = writes.iter().filter_map(|write| match write {
            Write::Incident(incident) => Some(&incident.row),
            _ => None,
        });
        let all: Vec<_> = incidents.collect();
        assert_eq!(all.len(), 1);
        all[0]
    }

    #[test]
    fn what_does_not_fit_into_an_incident_is_counted() {
        let count = |writes: &[Write], wanted: &str| {
            let counted = writes.iter().filter_map(|write| match write {
                Write::Count(name, n) if name == wanted => Some(*n),
                _ => None,
            });
            counted.sum::<u64>()
        };
        let writes = writes(1, &[finding(0..100, 30), finding(0..140, 50), finding(100..140, 0)]);
        let incident = incident(&writes[..]);
        assert_eq!(incident.cited.len(), MAX_CITED);
        assert_eq!(count(&writes, "incident_templates_omitted"), 140 - 48, "each once, however often it comes");
        // Two keys for each: of its root and of its leaf.
        assert_eq!(incident.keys.len(), MAX_KEYS);
        assert_eq!(incident.omitted_keys.count(), 280 - 256);
        assert_eq!(count(&writes, "incident_keys_omitted"), 280 - 256);
        assert_eq!((incident.entities.len(), incident.omitted_entities.count()), (MAX_ENTITIES, 50 - 40));
    }

    #[test]
    fn what_two_rules_say_about_the_same_lines_is_counted_once() {
        let by = |id: &str, rows, count| Grounded { by: By::Rule { id: id.into() }, count, ..finding(rows, 0) };
        let counted = |findings: &[Grounded]| incident(&writes(1, findings)).count;
        assert_eq!(counted(&[by("one", 0..1, 12), by("two", 0..1, 12)]), 12);
        assert_eq!(counted(&[by("one", 0..1, 12), by("two", 0..1, 20), by("three", 0..1, 22)]), 22);
        assert_eq!(counted(&[by("one", 0..1, 3), by("one", 0..1, 2)]), 5, "two disks of one rule");
        assert_eq!(counted(&[by("one", 0..1, 5), by("two", 0..1, 5), by("two", 0..1, 5)]), 10);
    }

    #[test]
    fn a_hundred_users_do_not_hide_a_new_address() {
        let of = |kind, value: String| Entity { kind, value: value.into(), count: 3 };
        let users = || (0..60).map(|n| of(EntityKind::User, format!("user{n}")));
        let first = [of(EntityKind::Ip, "198.51.100.1".into())].into_iter().chain(users());
        let first = Grounded { entities: first.collect(), ..finding(0..1, 0) };
        let second = Grounded { entities: vec![of(EntityKind::Ip, "198.51.100.2".into())], ..finding(0..1, 0) };
        let writes = writes(1, &[first.clone(), second, first]);
        let incident = incident(&writes);
        let addresses = incident.entities.iter().filter(|entity| entity.kind == EntityKind::Ip).count();
        let omitted = incident.omitted_entities.count();
        assert_eq!((addresses, incident.entities.len(), omitted), (2, MAX_ENTITIES, 62 - 40), "each once");
        assert_eq!(incident.newcomers, [of(EntityKind::Ip, "198.51.100.2".into())]);
    }

    #[test]
    fn what_goes_on_is_the_same_incident_when_it_occurs_again() {
        let later = NOW.plus(Duration::from_secs(2 * 3600));
        let incidents = |goes_on: bool| {
            let policy = Policy::default();
            let mut book = Book::open(&policy, &snapshot(1), SourceId("test".into()), later).unwrap();
            let found = finding(0..1, 0);
            book.take(&found);
            if goes_on {
                book.goes_on(Key::of_root(&found.cited[0].scope, found.cited[0].root));
            }
            book.take(&Grounded { first: later, last: later, ..found });
            book.close().iter().filter(|write| matches!(write, Write::Incident(_))).count()
        };
        assert_eq!((incidents(true), incidents(false)), (1, 2));
    }

    #[test]
    fn where_nothing_can_be_edited_quiet_is_no_message_beside_the_one_that_begins_anew() {
        let channel = |name: &str, amends| crate::notifier::Channel {
            name: name.into(),
            destination: crate::notifier::ChannelHash(1),
            vendor: "vendor",
            min_severity: Severity::Low,
            amends,
            longest_send: Duration::from_secs(15),
            gap: Duration::ZERO,
            per_minute: 1000,
        };
        let policy = Policy { channels: vec![channel("edits", true), channel("posts", false)], ..Policy::default() };
        let found = finding(0..1, 0);
        let mut known = Book::open(&policy, &snapshot(1), SourceId("test".into()), NOW).unwrap();
        known.take(&found);
        let mut before = snapshot(1);
        for write in known.close() {
            match write {
                Write::Installation(row) => before.installation = Some(Versioned { version: 1, ..row }),
                Write::Incident(row) => {
                    let mut row = Versioned { version: 1, ..*row };
                    let told = |receipt: &str| crate::incident::Told {
                        knows: 1,
                        known: row.row.keys.clone(),
                        at: NOW,
                        own: true,
                        receipt: Some(crate::notifier::Receipt(receipt.into())),
                    };
                    row.row.told = [("edits".into(), told("1")), ("posts".into(), told("2"))].into();
                    before.incidents.insert(row.row.id, row);
                }
                Write::Key(row) => before.keys.push(Versioned { version: 1, ..row }),
                _ => {}
            }
        }
        let later = NOW.plus(Duration::from_secs(2 * 3600));
        let quiet_in = |again: &Grounded| {
            let mut book = Book::open(&policy, &before, SourceId("test".into()), later).unwrap();
            book.take(again);
            let rows = book.close().into_iter().filter_map(|write| match write {
                Write::Outbox(row) if before.incidents.contains_key(&row.row.incident) => {
                    Some(row.row.channel.to_string())
                }
                _ => None,
            });
            rows.collect::<Vec<_>>()
        };
        let again = Grounded { first: later, last: later, ..found };
        assert_eq!(quiet_in(&again), ["edits"]);
        assert_eq!(quiet_in(&Grounded { route: Route::Digest, ..again }), ["edits", "posts"], "what nobody is told of");
    }

    #[test]
    fn the_same_finding_is_another_incident_in_another_ledger() {
        let id = |installation| incident(&writes(installation, &[finding(0..1, 0)])).id;
        assert_eq!(id(1), id(1));
        assert_ne!(id(1), id(2), "R3");
    }
}
