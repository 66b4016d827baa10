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

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use logwarden_detectors::Severity;

use crate::{
    Timestamp,
    decide::{Policy, view},
    finding::Key,
    incident::{Incident, IncidentId, Rank, Status, Told},
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
/// Incidents shown in a rollup.
const ROLLUP_TOP: usize = 10;
/// Messages about the same thing on several hosts list at most so many.
const MAX_HOSTS: usize = 20;

/// What must be read before [`next`] and [`settle`].
pub fn query(channel: &Arc<str>) -> Query {
    Query { outbox: Outbox::Channel(channel.clone()), channels: true, events: true, ..Query::default() }
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
    /// How old the event is.
    pub age: Duration,
    /// How long the claim lasts.
    pub lease: Duration,
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
    if let Some((owner, until)) = state.row.lease
        && owner != process
        && until > now
        && until.since(now) <= (channel.longest_send + SLACK).saturating_mul(4)
    {
        // It is given back as soon as that message is out; at the latest it lapses.
        return Next::Nothing { writes, at: Some(until.min(now.plus(LOOK_AGAIN))) };
    }
    let not_before = state.row.hold_until.max(paced(channel, &state.row, now));

    // What can never be said any more.
    let mut rows: BTreeMap<OutboxKey, Versioned<OutboxRow>> = BTreeMap::new();
    let mut open: Vec<_> =
        snapshot.outbox.iter().filter(|row| row.row.channel == channel.name && row.row.state.is_open()).collect();
    open.sort_by_key(|row| (row.row.incident, row.row.first_seq));
    for row in open {
        let incident = snapshot.incidents.get(&row.row.incident).map(|incident| &incident.row);
        // Before it stands what is still to be told: whether it has something to say is known afterwards.
        let waits = rows.last_key_value().is_some_and(|(before, _)| before.incident == row.row.incident);
        let end = match incident {
            None => continue, // nothing can be said about it now, and nothing must be lost
            Some(incident) if row.row.send.is_none() && !waits => pointless(policy, snapshot, &row.row, incident, now),
            Some(_) => None,
        };
        match end {
            Some(end) => writes.push(set_state(row, end, row.row.send)),
            None => {
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
        let ready = rows.iter().map(|row| ready_at(&row.row.state)).max().unwrap_or(now);
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
        let ready = ready_at(&row.row.state);
        if ready > now {
            at = Some(at.map_or(ready, |at| at.min(ready)));
            continue;
        }
        let Some(incident) = snapshot.incidents.get(&row.row.incident) else { continue };
        fresh.push(Fresh {
            row: row.clone(),
            incident: &incident.row,
            occasion: occasion(snapshot, channel, &row.row, &incident.row),
        });
    }
    fresh.sort_by_key(|fresh| {
        (std::cmp::Reverse(fresh.announces()), std::cmp::Reverse(fresh.incident.rank.severity), fresh.row.row.created)
    });
    let Some((first, others)) = fresh.split_first() else { return Next::Nothing { writes, at } };
    let (sending, rows) = form(policy, channel, &state.row, first, others, now, random);
    let event = announced_at(snapshot, &rows).unwrap_or(now);
    claim(channel, process, now, writes, &state, Versioned::new(sending), rows, event)
}

struct Fresh<'a> {
    row: Versioned<OutboxRow>,
    incident: &'a Incident,
    occasion: Occasion,
}

impl Fresh<'_> {
    fn announces(&self) -> bool {
        matches!(self.occasion, Occasion::Fired | Occasion::Escalated | Occasion::Reminded)
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

fn ready_at(state: &OutboxState) -> Timestamp {
    match state {
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
    row: &OutboxRow,
    incident: &Incident,
    now: Timestamp,
) -> Option<OutboxState> {
    let told = incident.told.get(&row.channel);
    let announces = announces(snapshot, row);
    if matches!(incident.status, Status::Merged { .. }) && announces {
        return Some(OutboxState::Superseded); // it goes out under the survivor (R8)
    }
    if !announces && told.is_none_or(|told| told.own.is_none()) {
        return Some(OutboxState::Superseded); // only our own message is amended, explained or called quiet (R4)
    }
    if incident.muted_by.is_some() {
        return Some(OutboxState::Superseded);
    }
    if now.since(row.created) > policy.give_up_after(incident.rank.severity) {
        return Some(OutboxState::Dead { reason: "too old to be delivered".to_owned(), at: now });
    }
    None
}

fn announces(snapshot: &Snapshot, row: &OutboxRow) -> bool {
    events(snapshot, row).any(|event| event.kind.is_announcement())
}

fn events<'a>(snapshot: &'a Snapshot, row: &'a OutboxRow) -> impl Iterator<Item = &'a crate::incident::Event> + 'a {
    let of = snapshot.events.iter().filter(|event| event.incident == row.incident);
    of.filter(|event| (row.first_seq..=row.seq).contains(&event.seq))
}

/// When the latest event was decided that these rows announce: what was told a window before it has told it (R6). A row
/// may have absorbed events long after it was made.
fn announced_at(snapshot: &Snapshot, rows: &[Versioned<OutboxRow>]) -> Option<Timestamp> {
    let latest = |row: &Versioned<OutboxRow>| {
        let announced = events(snapshot, &row.row).filter(|event| event.kind.is_announcement());
        announced.map(|event| event.at).max().unwrap_or(row.row.created)
    };
    rows.iter().map(latest).max()
}

/// Why the row's events are spoken of now, for a reader of this channel.
fn occasion(snapshot: &Snapshot, channel: &Channel, row: &OutboxRow, incident: &Incident) -> Occasion {
    use crate::incident::EventKind;
    let told = incident.told.get(&channel.name);
    let mut best = Occasion::Grew;
    for event in events(snapshot, row) {
        let this = match &event.kind {
            EventKind::Fired => Occasion::Fired,
            EventKind::Escalated { .. } => Occasion::Escalated,
            EventKind::Reminded => Occasion::Reminded,
            EventKind::Explained => Occasion::Explained,
            EventKind::Grew => Occasion::Grew,
            EventKind::Quiet => Occasion::Quiet,
            EventKind::Merged { .. } => Occasion::Merged,
        };
        let weight = |occasion| match occasion {
            Occasion::Fired => 6,
            Occasion::Escalated => 5,
            Occasion::Reminded => 4,
            Occasion::Quiet => 3,
            Occasion::Merged => 2,
            Occasion::Explained => 1,
            Occasion::Grew => 0,
        };
        if weight(this) > weight(best) {
            best = this;
        }
    }
    match best {
        // Whoever was never told hears of it for the first time, whatever the event.
        Occasion::Escalated | Occasion::Reminded if told.is_none() => Occasion::Fired,
        best => best,
    }
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
    let announcing = || std::iter::once(first).chain(others).filter(|fresh| fresh.announces());
    let critical = announcing().filter(|fresh| fresh.incident.rank.severity == Severity::Critical).count();
    let waiting = announcing().count();
    let storm = waiting >= policy.rollup_at || state.rollup_until.is_some_and(|until| until > now);
    // In a storm, too, the first critical ones go out one by one.
    let rollup = storm && waiting > 1 && !(1..=SINGLE_CRITICAL).contains(&critical);
    let root = |incident: &Incident| incident.cited.first().map(|cited| cited.root);
    let same_thing = |other: &&Fresh<'_>| {
        first.announces() && other.occasion == first.occasion && root(other.incident) == root(first.incident)
    };
    let members: Vec<&Fresh<'_>> = if rollup {
        announcing().collect()
    } else {
        std::iter::once(first).chain(others.iter().filter(same_thing).take(MAX_HOSTS - 1)).collect()
    };
    let mut keys: BTreeMap<Key, Rank> = BTreeMap::new();
    for member in &members {
        for key in &member.incident.keys {
            let rank = keys.entry(*key).or_insert(member.incident.rank);
            *rank = (*rank).max(member.incident.rank);
        }
    }
    let asks_dedup = first.announces();
    let amend = (!asks_dedup && channel.amends)
        .then(|| first.incident.told.get(&channel.name).and_then(|told| told.own.clone()))
        .flatten();
    let body = if rollup {
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
        Body::Incidents { occasion: first.occasion, incidents, summary: None }
    };
    let window = if first.occasion == Occasion::Reminded { policy.window / 2 } else { policy.window };
    let sending = Sending {
        id,
        channel: channel.name.clone(),
        rows: members.iter().map(|member| member.row.row.key()).collect(),
        keys: keys.into_iter().collect(),
        message: Message { id, at: now, body, possible_repeat: false },
        form: Form::Full,
        amend,
        data: view::latest(members.iter().map(|member| member.row.row.data)),
        window,
        asks_dedup,
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
    state.row.lease = Some((process, until));
    state.row.sent.retain(|at| *at <= now && now.since(*at) < Duration::from_secs(60));
    state.row.sent.push(now);
    if let Body::Rollup(_) = sending.row.message.body {
        state.row.rollup_until = Some(now.plus(Duration::from_secs(300)));
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
        age: now.since(event),
        lease,
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
    /// Another host told it there.
    Repeat(Receipt),
    /// Another host is about to tell some of it.
    Wait(Duration),
    /// Not delivered.
    Failed(NotifyError),
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
    if state.row.lease == turn.channel.row.lease {
        state.row.lease = None;
    }
    let all = |state: &OutboxState, writes: &mut Vec<Write>| {
        writes.extend(turn.rows.iter().map(|row| set_state(row, state.clone(), row.row.send)));
    };
    let severity = turn.sending.row.message.severity().unwrap_or(Severity::Low);
    match ended {
        Ended::Delivered(receipt) => {
            let delivered = OutboxState::Delivered { receipt: receipt.clone(), at: now };
            all(&delivered, &mut writes);
            // Told counts from when it was said (R6). An attempt before may have said it already: then from when it was
            // formed, since a reminder that comes early is better than one that comes late.
            let said = if turn.sending.row.message.possible_repeat { turn.sending.row.message.at } else { turn.at };
            told(snapshot, turn, Some(receipt), said, &mut writes);
            sending.row.done = true;
            state.row.failures = 0;
            state.row.delivered_at = Some(now);
        }
        Ended::Repeat(receipt) => {
            let repeat = OutboxState::Repeat { receipt: receipt.clone(), at: now };
            all(&repeat, &mut writes);
            unsent(&mut state.row, turn);
            // Somebody told it at some time in the window before the event, or since.
            told(snapshot, turn, None, turn.at.minus(turn.age), &mut writes);
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
            let backoff = backoff(sending.row.attempts, random);
            let mut pending_after = |wait: Duration, hold: bool| {
                if hold {
                    state.row.hold_until = state.row.hold_until.max(now.plus(wait));
                }
                OutboxState::Pending { next_at: now.plus(wait) }
            };
            let next = match error {
                NotifyError::Broken { reason, .. } => {
                    state.row.broken = Some((reason.clone(), now));
                    pending_after(Duration::ZERO, false)
                }
                _ if too_long => {
                    sending.row.done = true;
                    dead(format!("given up after {} hours", policy.give_up_after(severity).as_secs() / 3600))
                }
                NotifyError::Unreachable { retry_after, ambiguous, .. } => {
                    sending.row.message.possible_repeat |= *ambiguous;
                    // Whatever is wrong concerns the next message, too: the channel waits, not only this one.
                    pending_after(backoff.max(retry_after.unwrap_or_default()), true)
                }
                NotifyError::RateLimited { retry_after, .. } | NotifyError::Banned { retry_after, .. } => {
                    sending.row.attempts = sending.row.attempts.saturating_sub(1);
                    pending_after(*retry_after + jitter(random), true)
                }
                NotifyError::ContentRefused { .. } if sending.row.form == Form::Full => {
                    sending.row.form = Form::Reduced;
                    pending_after(Duration::ZERO, false)
                }
                NotifyError::ContentRefused { reason, .. } => {
                    sending.row.done = true;
                    dead(format!("refused twice: {reason}"))
                }
                NotifyError::NotAmendable { .. } => {
                    let worth_a_new_one = matches!(
                        &sending.row.message.body,
                        Body::Incidents { occasion: Occasion::Explained | Occasion::Quiet, .. }
                    );
                    if worth_a_new_one && sending.row.amend.is_some() {
                        sending.row.amend = None;
                        pending_after(Duration::ZERO, false)
                    } else {
                        sending.row.done = true;
                        OutboxState::Superseded
                    }
                }
            };
            if !matches!(error, NotifyError::ContentRefused { .. } | NotifyError::NotAmendable { .. }) {
                state.row.failures = state.row.failures.saturating_add(1);
            }
            all(&next, &mut writes);
        }
    }
    writes.push(Write::Channel(state));
    writes.push(Write::Sending(Box::new(sending)));
    writes
}

/// Gives back the place in the channel's pace that a message took which was not sent.
fn unsent(state: &mut ChannelState, turn: &Turn) {
    if let Some(place) = state.sent.iter().rposition(|at| *at == turn.at) {
        state.sent.remove(place);
    }
}

/// Notes in the incidents what the channel knows now.
fn told(snapshot: &Snapshot, turn: &Turn, receipt: Option<&Receipt>, said: Timestamp, writes: &mut Vec<Write>) {
    let channel = &turn.sending.row.channel;
    for row in &turn.rows {
        let Some(known) = snapshot.incidents.get(&row.row.incident) else { continue };
        let mut incident = known.clone();
        let rank = turn
            .sending
            .row
            .keys
            .iter()
            .filter(|(key, _)| incident.row.keys.contains(key))
            .map(|(_, rank)| *rank)
            .max()
            .unwrap_or(incident.row.rank);
        let before = incident.row.told.get(channel);
        // An amendment is no announcement: the channel was told when it was told, and no louder.
        let amended = before.filter(|_| !turn.sending.row.asks_dedup);
        let at = amended.map_or(said, |before| before.at);
        let rank = amended.map_or(rank, |before| before.rank);
        let own = receipt.cloned().or_else(|| before.and_then(|before| before.own.clone()));
        incident.row.told.insert(channel.clone(), Told { rank, at, own });
        writes.push(Write::Incident(Box::new(incident)));
    }
}

/// Holds every channel of a vendor that has banned us.
pub fn hold_vendor(snapshot: &Snapshot, policy: &Policy, vendor: &str, until: Timestamp) -> Vec<Write> {
    let of_vendor = |name: &str| policy.channel(name).is_some_and(|channel| channel.vendor == vendor);
    let held = snapshot.channels.iter().filter(|state| of_vendor(&state.row.name) && state.row.hold_until < until);
    held.map(|state| {
        let row = ChannelState { hold_until: until, ..state.row.clone() };
        Write::Channel(Versioned { version: state.version, row })
    })
    .collect()
}

/// Two seconds, doubling, at most five minutes, with full jitter but never less than a second.
fn backoff(attempts: u32, random: u64) -> Duration {
    let step = Duration::from_secs(2).saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(MAX_BACKOFF);
    step.mul_f64(fraction(random)).max(Duration::from_secs(1))
}

/// Up to half a second.
fn jitter(random: u64) -> Duration {
    Duration::from_millis(500).mul_f64(fraction(random))
}

fn fraction(random: u64) -> f64 {
    f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}
