//! Which message next, and what the channel's answer changes: the steps D1 and D5 of DESIGN section 7.
//!
//! ```text
//! D1  ledger: claim the rows, and commit which rows form this one message        next()
//! D2  dedup.reserve                                                              the deliver stage
//! D3  channel: send                                                              the deliver stage
//! D4  dedup.settle                                                               the deliver stage
//! D5  ledger: settle the rows, if their versions are still ours                  settle()
//! ```
//!
//! A message is formed once (R7): until it is delivered, superseded by nothing, it is repeated as it was, so that the
//! deduplication store and a human recognise it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use logwarden_detectors::Severity;

use crate::{
    Timestamp,
    decide::{Policy, ago, book::hear, mutes, summary, view},
    dedup::{Claim, HOLD, Outcome, Reserved},
    finding::Key,
    incident::{Event, EventKind, Incident, IncidentId, Rank, Status, Told},
    ledger::{
        ChannelState, Outbox, OutboxKey, OutboxRow, OutboxState, ProcessId, Query, Sending, Snapshot, Versioned, Write,
    },
    message::{Body, Message, Occasion, Rollup, SendId},
    notifier::{Channel, Form, NotifyError, Receipt},
};

/// How soon to look again whether another process has given a channel back.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Longer than any send: a claim that is older than this, plus the longest send, has lapsed.
const SLACK: Duration = Duration::from_secs(45);
/// The longest wait between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// Critical messages that go out one by one before a rollup takes the rest.
const SINGLE_CRITICAL: usize = 5;
/// Incidents shown in a rollup, and incidents that one stands for at most.
const ROLLUP_TOP: usize = 10;
const ROLLUP_MOST: usize = 500;
/// How long a rollup is preferred after one was sent.
const STORM: Duration = Duration::from_secs(300);
/// No channel is held for longer than this without another attempt.
const MAX_HOLD: Duration = Duration::from_secs(6 * 3600);
/// What is added to a wait, so that not everybody comes back at the same moment.
const MAX_JITTER: Duration = Duration::from_millis(500);
/// Messages about the same thing on several hosts list at most so many.
const MAX_HOSTS: usize = 20;

/// What must be read before [`next`] and [`settle`].
pub fn query(channel: &Arc<str>) -> Query {
    Query { outbox: Outbox::Channel(channel.clone()), channels: true, events: true, mutes: true, ..Query::default() }
}

/// A message that is ours to send.
#[derive(Debug)]
pub struct Turn {
    /// What to commit first (D1).
    pub writes: Vec<Write>,
    /// The message, with the version that it has after that commit: the epoch of its claim.
    pub sending: Versioned<Sending>,
    /// Its rows, with the versions that they have after that commit.
    pub rows: Vec<Versioned<OutboxRow>>,
    /// The channel, with the version that it has after that commit.
    pub channel: Versioned<ChannelState>,
    /// When it was claimed.
    pub at: Timestamp,
    /// When the latest happened that it announces: the window counts back from there (R6).
    pub event: Timestamp,
    /// How long the claim lasts.
    pub lease: Duration,
    /// A send that begins later may end after the claim: it is not begun.
    pub send_by: Timestamp,
}

impl Turn {
    /// Whether it is too late to begin sending: the machine slept, or its clock was set, and somebody else may be at it.
    pub fn is_late(&self, now: Timestamp) -> bool {
        now > self.send_by || ago(now, self.at) == Duration::MAX
    }

    /// How long ago it was claimed at most; for ever when the clock was set back since.
    fn held(&self, now: Timestamp) -> Duration {
        if self.at > now { Duration::MAX } else { now.since(self.at) }
    }
}

/// What to do next for a channel.
#[derive(Debug)]
pub enum Next {
    /// Send this.
    Send(Box<Turn>),
    /// Nothing is due.
    Nothing {
        /// What to commit (rows that have nothing left to say, or are too old).
        writes: Vec<Write>,
        /// When something will be due, where known.
        at: Option<Timestamp>,
    },
}

/// Chooses and claims the next message for `channel`. `random` names a new message.
pub fn next(
    policy: &Policy,
    snapshot: &Snapshot,
    channel: &Channel,
    process: ProcessId,
    now: Timestamp,
    random: u128,
) -> Next {
    let mut writes = Vec::new();
    let state = channel_state(snapshot, channel);
    if state.row.broken.is_some() {
        return Next::Nothing { writes, at: None };
    }
    if ago(now, state.row.touched) == Duration::MAX {
        return Next::Nothing { writes: begin_anew(snapshot, state, now), at: Some(now) };
    }
    if let Some((owner, until)) = state.row.lease
        && owner != process
        && until > now
        && until.since(now) <= (channel.longest_send + SLACK).saturating_mul(4)
    {
        // It is given back as soon as that message is out; at the latest it lapses.
        return Next::Nothing { writes, at: Some(until.min(now.plus(LOOK_AGAIN))) };
    }
    let not_before = held(&state.row, now).max(paced(channel, &state.row, now));

    // What can never be said any more.
    let mut rows: BTreeMap<OutboxKey, Versioned<OutboxRow>> = BTreeMap::new();
    let mut dead: BTreeSet<IncidentId> = BTreeSet::new();
    let mut open: Vec<_> =
        snapshot.outbox.iter().filter(|row| row.row.channel == channel.name && row.row.state.is_open()).collect();
    open.sort_by_key(|row| (row.row.incident, row.row.first_seq));
    for row in open {
        let incident = snapshot.incidents.get(&row.row.incident);
        // Before it stands what is still to be told: whether it has something to say is known afterwards.
        let waits = rows.last_key_value().is_some_and(|(before, _)| before.incident == row.row.incident);
        let end = match incident {
            None => continue, // nothing can be said about it now, and nothing must be lost
            Some(incident) if row.row.send.is_none() && !waits => {
                pointless(policy, snapshot, channel, &row.row, &incident.row, now)
            }
            Some(_) => None,
        };
        match (end, incident) {
            (Some(end), Some(incident)) => {
                if matches!(end, OutboxState::Dead { .. }) && dead.insert(incident.row.id) {
                    writes.extend(untold(incident, &channel.name));
                }
                writes.push(set_state(row, end, row.row.send));
            }
            _ => {
                rows.insert(row.row.key(), row.clone());
            }
        }
    }
    if not_before > now {
        let at = (!rows.is_empty()).then_some(not_before);
        return Next::Nothing { writes, at };
    }

    // A message that was formed before goes first, unchanged.
    let retry = snapshot.sendings.iter().filter(|sending| !sending.row.done && sending.row.channel == channel.name);
    let retry = retry.map(|sending| {
        let rows: Vec<_> = sending.row.rows.iter().filter_map(|key| rows.get(key)).cloned().collect();
        let ready = rows.iter().map(|row| ready_at(&row.row, now)).max().unwrap_or(now);
        (sending, rows, ready)
    });
    let mut at: Option<Timestamp> = None;
    let mut due: Vec<_> = Vec::new();
    for (sending, rows, ready) in retry {
        if ready <= now {
            due.push((sending, rows));
        } else {
            at = Some(at.map_or(ready, |at| at.min(ready)));
        }
    }
    due.sort_by_key(|(sending, _)| (std::cmp::Reverse(sending.row.message.severity()), sending.row.message.at));
    if let Some((sending, rows)) = due.into_iter().next() {
        if rows.is_empty() {
            // All its rows are gone: nothing is left to say.
            let done = Sending { done: true, ..sending.row.clone() };
            writes.push(Write::Sending(Box::new(Versioned { version: sending.version, row: done })));
            return Next::Nothing { writes, at: Some(now) };
        }
        let event = announced_at(snapshot, &rows).unwrap_or(now);
        return claim(channel, process, now, writes, &state, sending.clone(), rows, event);
    }

    // Otherwise a new one, of rows that were never claimed: within an incident the earliest, if nothing before it is open.
    let mut lowest: BTreeMap<IncidentId, &Versioned<OutboxRow>> = BTreeMap::new();
    for row in rows.values() {
        let entry = lowest.entry(row.row.incident).or_insert(row);
        if row.row.first_seq < entry.row.first_seq {
            *entry = row;
        }
    }
    let mut fresh = Vec::new();
    for row in lowest.into_values().filter(|row| row.row.send.is_none()) {
        let ready = ready_at(&row.row, now);
        if ready > now {
            at = Some(at.map_or(ready, |at| at.min(ready)));
            continue;
        }
        let Some(incident) = snapshot.incidents.get(&row.row.incident).map(|incident| &incident.row) else { continue };
        let Some(speech) = speech(snapshot, channel, &row.row, incident) else { continue };
        fresh.push(Fresh { row: row.clone(), incident, speech });
    }
    fresh.sort_by_key(|fresh| {
        let announces = fresh.speech.announces();
        (std::cmp::Reverse(announces), std::cmp::Reverse(fresh.incident.rank.severity), fresh.row.row.created)
    });
    let Some((first, others)) = fresh.split_first() else { return Next::Nothing { writes, at } };
    let (sending, rows) = form(policy, channel, &state.row, first, others, now, random);
    let event = announced_at(snapshot, &rows).unwrap_or(now);
    claim(channel, process, now, writes, &state, Versioned::new(sending), rows, event)
}

struct Fresh<'a> {
    row: Versioned<OutboxRow>,
    incident: &'a Incident,
    speech: Speech,
}

/// What a row has to say in its channel, and how.
#[derive(Debug)]
struct Speech {
    occasion: Occasion,
    how: How,
}

#[derive(Debug)]
enum How {
    /// A new message, if no other host has told it.
    Announce,
    /// Our own message is edited.
    Amend(Receipt),
    /// A short new message about our own one, which cannot be edited.
    Follow,
}

impl Speech {
    fn announces(&self) -> bool {
        matches!(self.how, How::Announce)
    }
}

/// What a row has to say now; `None` when nothing is left. The latest moment decides: what is an edit where our message
/// stands is an announcement where nobody heard of it, and nothing where another host has told it.
fn speech(snapshot: &Snapshot, channel: &Channel, row: &OutboxRow, incident: &Incident) -> Option<Speech> {
    let told = incident.told.get(&channel.name);
    let has = |wanted: &dyn Fn(&EventKind) -> bool| events(snapshot, row).any(|event| wanted(&event.kind));
    let receipt = told.and_then(|told| told.receipt.clone()).filter(|_| channel.amends);
    let speak = |occasion, how| Some(Speech { occasion, how });
    let heard = || told.is_some_and(|told| incident.keys.iter().all(|key| told.known.contains(key)));
    let news = |kind: &EventKind| kind.is_announcement() && (*kind != EventKind::Grew { news: true } || !heard());
    if has(&news) {
        let louder = if has(&|kind| *kind == EventKind::Fired) {
            Some(Occasion::Fired)
        } else if has(&|kind| matches!(kind, EventKind::Escalated { .. })) {
            Some(Occasion::Escalated)
        } else if has(&|kind| *kind == EventKind::Reminded) {
            Some(Occasion::Reminded)
        } else {
            None
        };
        // Whoever was never told hears of it for the first time, whatever the event.
        return match (told, louder, receipt) {
            (None, ..) => speak(Occasion::Fired, How::Announce),
            (Some(_), Some(occasion), _) => speak(occasion, How::Announce),
            (Some(_), None, Some(receipt)) => speak(Occasion::Grew, How::Amend(receipt)),
            (Some(_), None, None) => speak(Occasion::Grew, How::Announce),
        };
    }
    if told.is_none_or(|told| !told.own) {
        return None; // only our own message is amended, explained or called quiet (R4)
    }
    let occasion = if has(&|kind| *kind == EventKind::Quiet) {
        Occasion::Quiet
    } else if has(&|kind| matches!(kind, EventKind::Merged { .. })) {
        Occasion::Merged
    } else if has(&|kind| *kind == EventKind::Explained) {
        Occasion::Explained
    } else {
        Occasion::Grew
    };
    match (occasion, receipt) {
        (occasion, Some(receipt)) => speak(occasion, How::Amend(receipt)),
        (Occasion::Quiet | Occasion::Explained, None) => speak(occasion, How::Follow),
        _ => None,
    }
}

/// The channel as the ledger knows it; as new when it leads elsewhere now, because then it may work again.
fn channel_state(snapshot: &Snapshot, channel: &Channel) -> Versioned<ChannelState> {
    let known = snapshot.channels.iter().find(|known| known.row.name == channel.name);
    let fresh = ChannelState {
        name: channel.name.clone(),
        destination: channel.destination,
        lease: None,
        hold_until: Timestamp::MIN,
        broken: None,
        failures: 0,
        sent: Vec::new(),
        rollup_until: None,
        delivered_at: None,
        touched: Timestamp::MIN,
    };
    match known {
        Some(known) if known.row.destination == channel.destination => known.clone(),
        Some(known) => Versioned { version: known.version, row: fresh },
        None => Versioned::new(fresh),
    }
}

/// When the channel's pace allows the next send.
fn paced(channel: &Channel, state: &ChannelState, now: Timestamp) -> Timestamp {
    let minute = Duration::from_secs(60);
    let recent: Vec<_> = state.sent.iter().filter(|at| **at <= now && now.since(**at) < minute).collect();
    let gap = recent.last().map_or(Timestamp::MIN, |last| last.plus(channel.gap));
    let per_minute = channel.per_minute.max(1) as usize;
    let full = recent.len().checked_sub(per_minute).and_then(|first| recent.get(first));
    gap.max(full.map_or(Timestamp::MIN, |first| first.plus(minute)))
}

/// Until when the channel is held; not at all when the clock was set back since, or nobody can have meant it.
fn held(state: &ChannelState, now: Timestamp) -> Timestamp {
    let set_back = state.sent.last().is_some_and(|last| ago(now, *last) == Duration::MAX);
    if set_back || state.hold_until.since(now) > MAX_HOLD + MAX_JITTER { Timestamp::MIN } else { state.hold_until }
}

/// When a row may be claimed; at once when it was made before the clock was set back.
fn ready_at(row: &OutboxRow, now: Timestamp) -> Timestamp {
    match &row.state {
        _ if ago(now, row.created) == Duration::MAX => Timestamp::MIN,
        OutboxState::Pending { next_at } => *next_at,
        OutboxState::Claimed { until } => *until,
        _ => Timestamp::MIN,
    }
}

fn set_state(row: &Versioned<OutboxRow>, state: OutboxState, send: Option<SendId>) -> Write {
    Write::Outbox(Versioned { version: row.version, row: OutboxRow { state, send, ..row.row.clone() } })
}

/// Why a row that was never claimed has nothing to say any more, if it has not.
fn pointless(
    policy: &Policy,
    snapshot: &Snapshot,
    channel: &Channel,
    row: &OutboxRow,
    incident: &Incident,
    now: Timestamp,
) -> Option<OutboxState> {
    let announces = || events(snapshot, row).any(|event| event.kind.is_announcement());
    if matches!(incident.status, Status::Merged { .. }) && announces() {
        return Some(OutboxState::Superseded); // it goes out under the survivor (R8)
    }
    if mutes::holding(incident, policy.mutes.iter().chain(&snapshot.mutes), now).is_some()
        || speech(snapshot, channel, row, incident).is_none()
    {
        return Some(OutboxState::Superseded);
    }
    if now.since(row.created) > policy.give_up_after(incident.rank.severity) {
        return Some(OutboxState::Dead { reason: "too old to be delivered".to_owned(), at: now });
    }
    None
}

/// Notes that a channel must be told anew, because what it should have known will not be sent (R9).
fn untold(incident: &Versioned<Incident>, channel: &Arc<str>) -> Option<Write> {
    let mut incident = incident.clone();
    incident.row.told.get_mut(channel)?.knows = 0;
    Some(Write::Incident(Box::new(incident)))
}

fn events<'a>(snapshot: &'a Snapshot, row: &'a OutboxRow) -> impl Iterator<Item = &'a Event> + 'a {
    let of = snapshot.events.iter().filter(|event| event.incident == row.incident);
    of.filter(|event| (row.first_seq..=row.seq).contains(&event.seq))
}

/// When the latest happened that these rows announce: what was told a window before it has told it (R6). A row may have
/// absorbed events long after it was made, and what it is about may have gone on without any.
fn announced_at(snapshot: &Snapshot, rows: &[Versioned<OutboxRow>]) -> Option<Timestamp> {
    let latest = |row: &Versioned<OutboxRow>| {
        let announced = events(snapshot, &row.row).filter(|event| event.kind.is_announcement());
        let touched = snapshot.incidents.get(&row.row.incident).map(|incident| incident.row.touched);
        announced.map(|event| event.at).max().unwrap_or(row.row.created).max(touched.unwrap_or(Timestamp::MIN))
    };
    rows.iter().map(latest).max()
}

/// Forms the message: one incident, the same on several hosts, or a rollup.
fn form(
    policy: &Policy,
    channel: &Channel,
    state: &ChannelState,
    first: &Fresh<'_>,
    others: &[Fresh<'_>],
    now: Timestamp,
    random: u128,
) -> (Sending, Vec<Versioned<OutboxRow>>) {
    let id = SendId(random);
    let announcing = || std::iter::once(first).chain(others).filter(|fresh| fresh.speech.announces());
    let critical = announcing().filter(|fresh| fresh.incident.rank.severity == Severity::Critical).count();
    let waiting = announcing().count();
    let storming = state.rollup_until.is_some_and(|until| until > now && until.since(now) <= STORM);
    let storm = waiting >= policy.rollup_at || storming;
    // In a storm, too, the first critical ones go out one by one.
    let sums_up = summary::is_summary(first.incident);
    let rollup = storm && waiting > 1 && !sums_up && !(1..=SINGLE_CRITICAL).contains(&critical);
    let root = |incident: &Incident| incident.cited.first().map(|cited| cited.root);
    let same_thing = |other: &&Fresh<'_>| {
        let alike = other.speech.announces() && other.speech.occasion == first.speech.occasion;
        first.speech.announces() && alike && root(other.incident) == root(first.incident)
    };
    let members: Vec<&Fresh<'_>> = if rollup {
        announcing().filter(|fresh| !summary::is_summary(fresh.incident)).take(ROLLUP_MOST).collect()
    } else {
        std::iter::once(first).chain(others.iter().filter(same_thing).take(MAX_HOSTS - 1)).collect()
    };
    let mut keys: BTreeMap<Key, Rank> = BTreeMap::new();
    for member in &members {
        for key in &member.incident.keys {
            let rank = keys.entry(*key).or_insert(member.incident.rank);
            *rank = (*rank).max(member.incident.rank);
        }
        if member.incident.omitted_keys.count() > 0 {
            // Nobody else can have told what is not even listed.
            keys.insert(Key::of_incident(member.incident.id), member.incident.rank);
        }
    }
    let amend = match &first.speech.how {
        How::Amend(receipt) => Some(receipt.clone()),
        How::Announce | How::Follow => None,
    };
    let body = if sums_up {
        Body::Summary(summary::view(first.incident))
    } else if rollup {
        let count = |severity| members.iter().filter(|m| m.incident.rank.severity == severity).count() as u64;
        Body::Rollup(Rollup {
            counts: Severity::ALL.iter().rev().map(|severity| (*severity, count(*severity))).collect(),
            top: members.iter().take(ROLLUP_TOP).map(|m| view::view(policy, m.incident)).collect(),
            suppressed: members.len() as u64,
            from: members.iter().map(|m| m.row.row.created).min().unwrap_or(now),
            to: now,
        })
    } else {
        let incidents = members.iter().map(|member| view::view(policy, member.incident)).collect();
        Body::Incidents { occasion: first.speech.occasion, incidents, summary: None }
    };
    let reminds = members.iter().all(|member| member.speech.occasion == Occasion::Reminded);
    let window = if reminds { policy.window / 2 } else { policy.window };
    let sending = Sending {
        id,
        channel: channel.name.clone(),
        rows: members.iter().map(|member| member.row.row.key()).collect(),
        keys: keys.into_iter().collect(),
        message: Message { id, at: now, body, possible_repeat: false },
        form: Form::Full,
        amend,
        tells: members.iter().map(|member| (member.incident.id, member.incident.next_seq)).collect(),
        data: view::latest(members.iter().map(|member| member.row.row.data)),
        window,
        asks_dedup: first.speech.announces(),
        attempts: 0,
        failing_since: None,
        done: false,
    };
    (sending, members.into_iter().map(|member| member.row.clone()).collect())
}

#[expect(clippy::too_many_arguments, reason = "one call per kind of message, right above")]
fn claim(
    channel: &Channel,
    process: ProcessId,
    now: Timestamp,
    mut writes: Vec<Write>,
    state: &Versioned<ChannelState>,
    mut sending: Versioned<Sending>,
    rows: Vec<Versioned<OutboxRow>>,
    event: Timestamp,
) -> Next {
    let lease = channel.longest_send + SLACK;
    let until = now.plus(lease);
    // A claim that lapsed may have sent: say so.
    if rows.iter().any(|row| matches!(row.row.state, OutboxState::Claimed { .. })) {
        sending.row.message.possible_repeat = true;
    }
    sending.row.attempts = sending.row.attempts.saturating_add(1);
    let mut state = state.clone();
    state.row.touched = state.row.touched.max(now);
    state.row.lease = Some((process, until));
    state.row.sent.retain(|at| *at <= now && now.since(*at) < Duration::from_secs(60));
    state.row.sent.push(now);
    if let Body::Rollup(_) = sending.row.message.body {
        state.row.rollup_until = Some(now.plus(STORM));
    }
    let send = Some(sending.row.id);
    writes.push(Write::Channel(state.clone()));
    writes.push(Write::Sending(Box::new(sending.clone())));
    writes.extend(rows.iter().map(|row| set_state(row, OutboxState::Claimed { until }, send)));
    let after = |row: Versioned<OutboxRow>| Versioned {
        version: row.version + 1,
        row: OutboxRow { state: OutboxState::Claimed { until }, send, ..row.row },
    };
    Next::Send(Box::new(Turn {
        writes,
        at: now,
        event,
        lease,
        send_by: now.plus(SLACK),
        sending: Versioned { version: sending.version + 1, row: sending.row },
        rows: rows.into_iter().map(after).collect(),
        channel: Versioned { version: state.version + 1, row: state.row },
    }))
}

/// How a turn ended.
#[derive(Debug)]
pub enum Ended {
    /// The channel confirmed it.
    Delivered(Receipt),
    /// Another host told it there, by our clock then.
    Repeat(Receipt, Timestamp),
    /// Another host is about to tell some of it.
    Wait(Duration),
    /// Not delivered.
    Failed(NotifyError),
}

/// What the deduplication store is told of a send (D4). `reserved` is when it said to be first, by its clock; `None` when
/// it was not heard.
pub fn outcome(
    turn: &Turn,
    sent: &Result<Receipt, NotifyError>,
    reserved: Option<Timestamp>,
    now: Timestamp,
) -> Outcome {
    match sent {
        Ok(receipt) => {
            let reserved = reserved.map_or(Reserved::Ago(turn.held(now)), Reserved::At);
            Outcome::Delivered { receipt: receipt.clone(), reserved }
        }
        Err(NotifyError::Unreachable { ambiguous: true, .. }) => Outcome::Unclear { hold: HOLD + turn.lease },
        Err(_) => not_sent(turn),
    }
}

/// What the deduplication store is told when this attempt has not reached the channel: an earlier one may have.
pub fn not_sent(turn: &Turn) -> Outcome {
    if turn.sending.row.message.possible_repeat {
        Outcome::Unclear { hold: HOLD + turn.lease }
    } else {
        Outcome::Failed
    }
}

/// How long to wait after a failure that may pass, `failures` of the channel before it.
fn retry_after(sending: &Sending, failures: u32, error: &NotifyError, random: u64) -> Duration {
    match error {
        NotifyError::RateLimited { retry_after, .. } | NotifyError::Banned { retry_after, .. } => {
            // Who asks again and again for a moment's patience gets more: vendors shut out whoever does not let up.
            let step = if failures == 0 { Duration::ZERO } else { backoff(failures, random) };
            (*retry_after).min(MAX_HOLD).max(step) + jitter(random)
        }
        NotifyError::Unreachable { retry_after, .. } => {
            backoff(sending.attempts, random).max(retry_after.unwrap_or_default().min(MAX_HOLD))
        }
        _ => Duration::ZERO,
    }
}

/// Decides what the channel's answer changes. The writes need the versions of the turn: if somebody else has claimed the
/// message since, they conflict, and nothing is changed. `random` is for the jitter.
pub fn settle(
    policy: &Policy,
    snapshot: &Snapshot,
    turn: &Turn,
    ended: &Ended,
    now: Timestamp,
    random: u64,
) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut sending = turn.sending.clone();
    // Others may have held the channel since; only its lease must still be ours.
    let known = snapshot.channels.iter().find(|known| known.row.name == turn.channel.row.name);
    let mut state = known.cloned().unwrap_or_else(|| turn.channel.clone());
    // Never back: that a clock was set back is looked at before the next claim.
    state.row.touched = state.row.touched.max(now);
    if state.row.lease == turn.channel.row.lease {
        state.row.lease = None;
    }
    let all = |state: &OutboxState, writes: &mut Vec<Write>| {
        writes.extend(turn.rows.iter().map(|row| set_state(row, state.clone(), row.row.send)));
    };
    let severity = turn.sending.row.message.severity().unwrap_or(Severity::Low);
    let again = Ended::Wait(Duration::ZERO);
    let ended = match ended {
        Ended::Repeat(_, told_at) if has_gone_on(snapshot, turn, *told_at) => &again,
        ended => ended,
    };
    match ended {
        Ended::Delivered(receipt) => {
            let delivered = OutboxState::Delivered { receipt: receipt.clone(), at: now };
            all(&delivered, &mut writes);
            // Told counts from when it was said (R6). An attempt before may have said it already: then from when it was
            // formed, since a reminder that comes early is better than one that comes late.
            let said = if turn.sending.row.message.possible_repeat { turn.sending.row.message.at } else { turn.at };
            told(snapshot, turn, &Said::ByUs(receipt, said.min(now)), now, &mut writes);
            sending.row.done = true;
            state.row.failures = 0;
            state.row.delivered_at = Some(now);
        }
        Ended::Repeat(receipt, told_at) => {
            let repeat = OutboxState::Repeat { receipt: receipt.clone(), at: now };
            all(&repeat, &mut writes);
            unsent(&mut state.row, turn);
            told(snapshot, turn, &Said::ByAnother((*told_at).min(now)), now, &mut writes);
            sending.row.done = true;
        }
        Ended::Wait(wait) => {
            unsent(&mut state.row, turn);
            let next_at = now.plus((*wait).min(Duration::from_secs(2)).max(Duration::from_millis(50)));
            all(&OutboxState::Pending { next_at }, &mut writes);
            sending.row.attempts = sending.row.attempts.saturating_sub(1);
        }
        Ended::Failed(error) => {
            let since = *sending.row.failing_since.get_or_insert(now);
            let too_long = now.since(since) > policy.give_up_after(severity);
            let dead = |reason: String| OutboxState::Dead { reason, at: now };
            let wait = retry_after(&turn.sending.row, state.row.failures, error, random);
            // The channel waits, and not the rows: when it leads elsewhere they leave at once.
            let mut pending_after = |wait: Duration, hold: bool| {
                if hold {
                    state.row.hold_until = state.row.hold_until.max(now.plus(wait));
                }
                OutboxState::Pending { next_at: now }
            };
            let next = match error {
                NotifyError::Broken { reason, .. } => {
                    state.row.broken = Some((reason.clone(), now));
                    pending_after(Duration::ZERO, false)
                }
                NotifyError::NotAmendable { .. } => {
                    // Our message is gone: what the rows have to say without it is decided anew, also whether it is too late.
                    sending.row.done = true;
                    pending_after(Duration::ZERO, false)
                }
                _ if too_long => {
                    sending.row.done = true;
                    dead(format!("given up after {} hours", policy.give_up_after(severity).as_secs() / 3600))
                }
                NotifyError::Unreachable { ambiguous, .. } => {
                    sending.row.message.possible_repeat |= *ambiguous;
                    // Whatever is wrong concerns the next message, too: the channel waits, not only this one.
                    pending_after(wait, true)
                }
                NotifyError::RateLimited { .. } | NotifyError::Banned { .. } => {
                    sending.row.attempts = sending.row.attempts.saturating_sub(1);
                    pending_after(wait, true)
                }
                NotifyError::ContentRefused { .. } if sending.row.form == Form::Full => {
                    sending.row.form = Form::Reduced;
                    pending_after(Duration::ZERO, false)
                }
                NotifyError::ContentRefused { reason, .. } => {
                    sending.row.done = true;
                    dead(format!("refused twice: {reason}"))
                }
            };
            if !matches!(error, NotifyError::ContentRefused { .. } | NotifyError::NotAmendable { .. }) {
                state.row.failures = state.row.failures.saturating_add(1);
            }
            let amendable = !matches!(error, NotifyError::NotAmendable { .. });
            let send = Some(turn.sending.row.id).filter(|_| amendable);
            writes.extend(turn.rows.iter().map(|row| set_state(row, next.clone(), send)));
            if !amendable {
                forget_receipts(snapshot, turn, &mut writes);
            }
            if let OutboxState::Dead { .. } = next {
                let incidents = turn.rows.iter().filter_map(|row| snapshot.incidents.get(&row.row.incident));
                writes.extend(incidents.filter_map(|incident| untold(incident, &turn.sending.row.channel)));
            }
        }
    }
    writes.push(Write::Channel(state));
    writes.push(Write::Sending(Box::new(sending)));
    writes
}

/// Whether what another host has told counts for what was asked about (R6), but not for what has happened since: whoever
/// stalled between claiming and asking asks again.
fn has_gone_on(snapshot: &Snapshot, turn: &Turn, told_at: Timestamp) -> bool {
    let latest = announced_at(snapshot, &turn.rows);
    latest.is_some_and(|latest| latest > turn.event && told_at < latest.minus(turn.sending.row.window))
}

/// The clock was set back since anybody worked on the channel: what was to wait until some time then is due now, and what
/// was being sent is nobody's. That may repeat a message, and delays none.
fn begin_anew(snapshot: &Snapshot, mut state: Versioned<ChannelState>, now: Timestamp) -> Vec<Write> {
    let rows = snapshot.outbox.iter().filter(|row| row.row.channel == state.row.name);
    let mut writes: Vec<Write> = rows
        .filter_map(|row| {
            let due = match row.row.state {
                OutboxState::Pending { next_at } if next_at > now => OutboxState::Pending { next_at: now },
                OutboxState::Claimed { .. } => OutboxState::Claimed { until: now },
                _ => return None,
            };
            Some(set_state(row, due, row.row.send))
        })
        .collect();
    // A new epoch of each: whoever is at it settles nothing any more (R2).
    let own = snapshot.sendings.iter().filter(|sending| sending.row.channel == state.row.name && !sending.row.done);
    writes.extend(own.cloned().map(|sending| Write::Sending(Box::new(sending))));
    let row = &mut state.row;
    (row.touched, row.hold_until, row.lease, row.rollup_until) = (now, now, None, None);
    row.sent.clear();
    writes.push(Write::Channel(state));
    writes
}

/// Gives back the place in the channel's pace that a message took which was not sent.
fn unsent(state: &mut ChannelState, turn: &Turn) {
    if let Some(place) = state.sent.iter().rposition(|at| *at == turn.at) {
        state.sent.remove(place);
    }
}

/// Who has said a message, and since when that counts.
enum Said<'a> {
    ByUs(&'a Receipt, Timestamp),
    ByAnother(Timestamp),
}

/// Notes in the incidents what the channel knows now. What was told in what is now the future was told before the clock was
/// set back: it would be told again all the time.
fn told(snapshot: &Snapshot, turn: &Turn, said: &Said<'_>, now: Timestamp, writes: &mut Vec<Write>) {
    let sending = &turn.sending.row;
    // A message about several incidents cannot be edited for one of them.
    let alone = sending.tells.len() == 1;
    // A short message about our own one says nothing of what else there is to know.
    let tells_all = sending.asks_dedup || sending.amend.is_some();
    for (id, knows) in &sending.tells {
        let Some(mut incident) = snapshot.incidents.get(id).cloned() else { continue };
        let mut before = incident.row.told.get(&sending.channel).cloned();
        if let Some(before) = &mut before {
            before.at = before.at.min(now);
        }
        let kept = before.as_ref().and_then(|before| before.receipt.clone());
        let knows =
            before.as_ref().map_or(*knows, |before| if tells_all { before.knows.max(*knows) } else { before.knows });
        let mut known = before.as_ref().map(|before| before.known.clone()).unwrap_or_default();
        // A part of a joint message may have spoken of it less loudly.
        let said_now =
            sending.keys.iter().filter(|(key, rank)| *rank >= incident.row.rank && incident.row.keys.contains(key));
        let said_now = said_now.map(|(key, _)| *key);
        if tells_all {
            hear(&mut known, &said_now.collect::<Vec<_>>());
        }
        let told = match (said, before) {
            (Said::ByUs(receipt, at), _) if sending.asks_dedup => {
                Told { knows, known, at: *at, own: true, receipt: alone.then(|| (*receipt).clone()) }
            }
            // An amendment is no announcement: the channel was told when it was told.
            (Said::ByUs(receipt, at), before) => {
                let at = before.map_or(*at, |before| before.at);
                let receipt = if sending.amend.is_some() { Some((*receipt).clone()) } else { kept };
                Told { knows, known, at, own: true, receipt }
            }
            (Said::ByAnother(at), None) => Told { knows, known, at: *at, own: false, receipt: None },
            (Said::ByAnother(at), Some(before)) => Told { knows, known, at: before.at.max(*at), ..before },
        };
        incident.row.told.insert(sending.channel.clone(), told);
        writes.push(Write::Incident(Box::new(incident)));
    }
}

/// Notes that our message is gone.
fn forget_receipts(snapshot: &Snapshot, turn: &Turn, writes: &mut Vec<Write>) {
    for (id, _) in &turn.sending.row.tells {
        let Some(mut incident) = snapshot.incidents.get(id).cloned() else { continue };
        if let Some(told) = incident.row.told.get_mut(&turn.sending.row.channel) {
            told.receipt = None;
            writes.push(Write::Incident(Box::new(incident)));
        }
    }
}

/// What a process that is gone was saying, and what frees its channel (D5 in its place): the message may have arrived, and
/// is said again.
#[derive(Debug)]
pub struct Abandoned {
    /// What to commit.
    pub writes: Vec<Write>,
    /// The message, with the epoch of its claim; `None` when there was none.
    pub sending: Option<Versioned<Sending>>,
}

/// How a message ended whose sender is gone: it may have arrived, and is tried again.
pub const UNKNOWN: Outcome = Outcome::Unclear { hold: HOLD };

/// The claim of a message that was being sent.
pub fn claim_of<'a>(sending: &'a Versioned<Sending>, channel: &Channel) -> Claim<'a> {
    Claim {
        id: sending.row.id,
        epoch: sending.version,
        channel: channel.destination,
        keys: &sending.row.keys,
        age: Duration::ZERO,
        window: sending.row.window,
        lease: channel.longest_send + SLACK,
    }
}

/// Frees a channel that a process holds which is gone; `None` when it does not.
pub fn abandoned(snapshot: &Snapshot, channel: &Channel, gone: ProcessId, now: Timestamp) -> Option<Abandoned> {
    let held = |state: &Versioned<ChannelState>| match state.row.lease {
        Some((owner, until)) if owner == gone && state.row.name == channel.name => Some((state.clone(), until)),
        _ => None,
    };
    let (state, lapses) = snapshot.channels.iter().find_map(held)?;
    let row = ChannelState { lease: None, touched: state.row.touched.max(now), ..state.row };
    let mut writes = vec![Write::Channel(Versioned { version: state.version, row })];
    // Others may have stalled with claims that have lapsed: the message of this one has its lease.
    let claimed = |row: &&Versioned<OutboxRow>| {
        row.row.channel == channel.name && row.row.state == OutboxState::Claimed { until: lapses }
    };
    let rows: Vec<_> = snapshot.outbox.iter().filter(claimed).collect();
    let sending = rows.iter().find_map(|row| {
        snapshot.sendings.iter().find(|sending| Some(sending.row.id) == row.row.send && !sending.row.done).cloned()
    });
    // That its claim has lapsed says that it may have been sent.
    writes.extend(rows.into_iter().map(|row| set_state(row, OutboxState::Claimed { until: now }, row.row.send)));
    // A new epoch: should it be at work all the same, it settles nothing any more (R2).
    writes.extend(sending.clone().map(|sending| Write::Sending(Box::new(sending))));
    Some(Abandoned { writes, sending })
}

/// Holds every channel of a vendor that has banned us, also those that were never used.
pub fn hold_vendor(snapshot: &Snapshot, policy: &Policy, vendor: &str, wait: Duration, now: Timestamp) -> Vec<Write> {
    let until = now.plus(wait);
    let of_vendor = policy.channels.iter().filter(|channel| channel.vendor == vendor);
    let held = of_vendor.map(|channel| channel_state(snapshot, channel)).filter(|state| state.row.hold_until < until);
    held.map(|state| {
        let row = ChannelState { hold_until: until, touched: state.row.touched.max(now), ..state.row };
        Write::Channel(Versioned { version: state.version, row })
    })
    .collect()
}

/// Two seconds, doubling, at most five minutes, with full jitter but never less than a second.
fn backoff(attempts: u32, random: u64) -> Duration {
    let step = Duration::from_secs(2).saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(MAX_BACKOFF);
    step.mul_f64(fraction(random)).max(Duration::from_secs(1))
}

fn jitter(random: u64) -> Duration {
    MAX_JITTER.mul_f64(fraction(random))
}

fn fraction(random: u64) -> f64 {
    f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::{
        ledger::{Commit, CommitId, Committed, Ledger},
        testing::{MemoryLedger, rows},
    };

    const GONE: ProcessId = ProcessId(1);
    const OTHER: ProcessId = ProcessId(2);
    const LEASE: Duration = Duration::from_secs(60);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(1_795_233_600 + seconds)
    }

    fn channel(name: &str) -> Channel {
        Channel {
            name: name.into(),
            destination: crate::notifier::ChannelHash(1),
            vendor: "vendor",
            min_severity: Severity::Low,
            amends: false,
            longest_send: LEASE - SLACK,
            gap: Duration::ZERO,
            per_minute: 1000,
        }
    }

    fn commit(ledger: &MemoryLedger, id: u128, writes: Vec<Write>) {
        assert_eq!(block_on(ledger.commit(&Commit { id: CommitId(id), writes })).unwrap(), Committed::Done);
    }

    /// A ledger in which the messages with these numbers were claimed in these seconds, and who has the channel since when.
    fn claimed(claims: &[(u64, i64)], lease: Option<(ProcessId, i64)>) -> MemoryLedger {
        let ledger = MemoryLedger::new(1, 1);
        let lease = lease.map(|(owner, since)| (owner, at(since).plus(LEASE)));
        let state = channel_state(&Snapshot::default(), &channel("chat"));
        let mut writes = vec![Write::Channel(Versioned::new(ChannelState { lease, ..state.row }))];
        for (n, second) in claims {
            let mut row = rows::outbox(*n, "chat", at(0));
            let sending = rows::sending(*n, "chat", vec![row.key()], at(0));
            (row.send, row.state) = (Some(sending.id), OutboxState::Claimed { until: at(*second).plus(LEASE) });
            writes.push(Write::Incident(Box::new(Versioned::new(rows::incident(*n, at(0))))));
            writes.push(Write::Event(rows::event(*n, 0, at(0))));
            writes.push(Write::Outbox(Versioned::new(row)));
            writes.push(Write::Sending(Box::new(Versioned::new(sending))));
        }
        commit(&ledger, 1, writes);
        ledger
    }

    fn read(ledger: &MemoryLedger) -> Snapshot {
        block_on(ledger.read(&query(&"chat".into()))).unwrap()
    }

    #[test]
    fn an_heir_frees_what_the_one_that_is_gone_was_saying_and_nothing_else() {
        type Freed<'a> = Option<(Option<u128>, &'a [u64])>;
        let check = |why: &str, claims: &[(u64, i64)], lease, expected: Freed<'_>| {
            let freed = abandoned(&read(&claimed(claims, lease)), &channel("chat"), GONE, at(210));
            let found = freed.map(|freed| {
                let rows = freed.writes.iter().filter_map(|write| match write {
                    Write::Outbox(row) => Some(row.row.incident),
                    _ => None,
                });
                (freed.sending.map(|sending| sending.row.id.0), rows.collect::<Vec<_>>())
            });
            let ids = |rows: &[u64]| rows.iter().map(|n| rows::incident(*n, at(0)).id).collect();
            assert_eq!(found, expected.map(|(sending, rows)| (sending, ids(rows))), "{why}");
        };
        check("its message is free, and may have been sent", &[(1, 200)], Some((GONE, 200)), Some((Some(1), &[1])));
        check("it had said nothing yet", &[], Some((GONE, 200)), Some((None, &[])));
        check("another process has the channel", &[(1, 200)], Some((OTHER, 200)), None);
        check("nobody has the channel", &[(1, 100)], None, None);
        check(
            "who stalled with an older message, and may be at it still, keeps it",
            &[(1, 100), (2, 200)],
            Some((GONE, 200)),
            Some((Some(2), &[2])),
        );
    }

    #[test]
    fn what_an_heir_freed_is_not_settled_by_the_one_that_was_gone() {
        let ledger = claimed(&[(1, 200)], Some((GONE, 200)));
        let before = read(&ledger).sendings[0].version;
        let freed = abandoned(&read(&ledger), &channel("chat"), GONE, at(210)).unwrap();
        assert_eq!(freed.sending.as_ref().map(|sending| sending.version), Some(before), "the epoch of its claim");
        commit(&ledger, 2, freed.writes);
        assert!(read(&ledger).sendings[0].version > before, "a new epoch (R2)");
    }

    #[test]
    fn after_the_clock_was_set_back_nothing_waits_for_it() {
        let due = |ledger: &MemoryLedger, now: Timestamp| {
            let Next::Nothing { writes, .. } = next(&Policy::default(), &read(ledger), &channel("chat"), OTHER, now, 7)
            else {
                panic!("it sends before it looks at the clock")
            };
            commit(ledger, 3, writes);
            matches!(next(&Policy::default(), &read(ledger), &channel("chat"), OTHER, now, 7), Next::Send(_))
        };
        let ledger = claimed(&[(1, 200)], Some((GONE, 200)));
        let freed = abandoned(&read(&ledger), &channel("chat"), GONE, at(4_000)).unwrap();
        commit(&ledger, 2, freed.writes);
        assert!(due(&ledger, at(300)), "freed by an heir before that");

        let ledger = claimed(&[(1, 200)], None);
        let policy = Policy { channels: vec![channel("chat")], ..Policy::default() };
        let hour = Duration::from_secs(3600);
        commit(&ledger, 2, hold_vendor(&read(&ledger), &policy, "vendor", hour, at(4_000)));
        assert!(due(&ledger, at(300)), "held for its vendor's sake before that");
    }

    #[test]
    fn a_held_channel_waits_as_it_was_told_and_longer_each_time_and_not_where_it_leads_elsewhere() {
        let (ledger, policy) = (claimed(&[(1, 0)], None), Policy::default());
        let decide = |channel: &Channel, now: Timestamp| next(&policy, &read(&ledger), channel, OTHER, now, 7);
        let mut now = at(100);
        let mut waits = Vec::new();
        for attempt in 0..6 {
            let Next::Send(turn) = decide(&channel("chat"), now) else { panic!("nothing is due") };
            commit(&ledger, 10 + attempt, turn.writes.clone());
            let limited = NotifyError::RateLimited { channel: "chat".into(), retry_after: Duration::from_millis(300) };
            let writes = settle(&policy, &read(&ledger), &turn, &Ended::Failed(limited), now, u64::MAX);
            commit(&ledger, 20 + attempt, writes);
            let Next::Nothing { at: Some(at), .. } = decide(&channel("chat"), now) else { panic!("it is held") };
            waits.push(at.since(now).as_millis());
            now = at;
        }
        assert_eq!(waits, [800, 2_500, 4_500, 8_500, 16_500, 32_500]);
        let elsewhere = Channel { destination: crate::notifier::ChannelHash(2), ..channel("chat") };
        let before = now.minus(Duration::from_secs(30));
        assert!(matches!(decide(&channel("chat"), before), Next::Nothing { .. }));
        assert!(matches!(decide(&elsewhere, before), Next::Send(_)));
    }

    #[test]
    fn what_has_arrived_is_told_since_it_was_reserved() {
        let ledger = claimed(&[(1, 0)], None);
        let Next::Send(turn) = next(&Policy::default(), &read(&ledger), &channel("chat"), OTHER, at(100), 7) else {
            panic!("nothing is due")
        };
        let reserved = |heard, now| match outcome(&turn, &Ok(Receipt("r".into())), heard, now) {
            Outcome::Delivered { reserved, .. } => reserved,
            other => panic!("{other:?}"),
        };
        let by_the_store = at(-5_000);
        assert_eq!(reserved(Some(by_the_store), at(140)), Reserved::At(by_the_store));
        assert_eq!(reserved(Some(by_the_store), at(-900)), Reserved::At(by_the_store), "its own clock was set back");
        assert_eq!(reserved(None, at(140)), Reserved::Ago(Duration::from_secs(40)), "the store was not heard");
        assert_eq!(reserved(None, at(-900)), Reserved::Ago(Duration::MAX), "nobody knows");
    }
}
