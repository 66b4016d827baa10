//! What must be true, judged from outside: what occurred, and what arrived at the people who read a channel.
//!
//! * **Loss**, per template and mark: every occurrence was told on every channel that takes its severity, at its rank or
//!   above, not longer ago than a reminder would come; or it waits durably, was given up and says so, or is muted.
//! * **Surplus**, per key: a message that says nothing but what had arrived within its window is one too many, and so is one
//!   that arrives twice. Each arrival that nobody could know of, since its sender crashed, was stalled or did not hear the
//!   answer, excuses that the same message arrives once more. Only when its sender does not come back to it for as long as
//!   the store keeps it for him may others say it, each part of it once.
//!
//! When a host's clock is set, nothing may be lost, and what was told may be told again. So may what a host says that has not
//! heard the deduplication store; what others say is judged as ever.
//!
//! All times are true ones, not what a host's clock says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use logwarden_core::{
    Severity, Timestamp,
    finding::Key,
    incident::{IncidentId, Rank},
    ledger::Sending,
    memory_dedup::CLOCK_TOLERANCE,
    message::{Body, SendId},
};

use super::{Fault, schedule::STORE};

/// Clocks of one process may differ by so much between two looks.
const LEEWAY: Duration = Duration::from_secs(1);

/// Something that people must hear of.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    pub(super) host: usize,
    pub(super) scope: usize,
    pub(super) at: Timestamp,
    /// Whose it is: a message of any of these tells of it.
    pub(super) by: BTreeSet<IncidentId>,
    /// Any of these keys tells of it.
    pub(super) keys: BTreeSet<Key>,
    pub(super) rank: Rank,
    /// What was told before that must be told again.
    pub(super) since: Timestamp,
    /// Channels that need not hear of it any more.
    pub(super) excused: BTreeSet<usize>,
}

/// How a message speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Announcement,
    Edit,
    Follow,
}

/// A message that arrives.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) send: SendId,
    pub(super) manner: Manner,
    pub(super) at: Timestamp,
    /// From then on the deduplication store counts it as told (R6).
    pub(super) reserved: Timestamp,
    /// What it says.
    pub(super) keys: Vec<(Key, Rank)>,
    /// What was told since then need not be told.
    pub(super) since: Timestamp,
    /// Arrivals that the deduplication store knew of when it let this one speak.
    pub(super) known: BTreeSet<usize>,
    /// Arrivals of others that it did not know of and no longer held for those who had sent them.
    pub(super) abandoned: BTreeSet<usize>,
    /// The deduplication store was not heard when it was asked: then it is said, rather twice than not at all.
    pub(super) unasked: bool,
}

#[derive(Debug)]
struct Told {
    arrival: Arrival,
    /// The deduplication store knows it, or for a message that it is not asked about: the ledger.
    confirmed: bool,
    /// The message too many that it excuses, by its number in the channel.
    excuses: Option<usize>,
    /// What others have said once more since its sender stayed away.
    said_by_others: BTreeSet<(Key, Rank)>,
}

impl Told {
    /// Whether another host's message says a part of it that none has said once more yet; notes it.
    fn left_to(&mut self, other: &Arrival) -> bool {
        let shared = other.keys.iter().filter(|(key, _)| self.arrival.keys.iter().any(|(known, _)| known == key));
        let shared: Vec<(Key, Rank)> = shared.copied().collect();
        let is_new = shared.iter().any(|said| !self.said_by_others.contains(said));
        self.said_by_others.extend(shared);
        is_new
    }
}

/// Judges one run.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    told: BTreeMap<usize, Vec<Told>>,
    occurrences: Vec<Occurrence>,
    said: BTreeMap<SendId, (Vec<(Key, Rank)>, Body)>,
    /// The epoch in which a channel's message was reserved last, and until when it is kept for its sender.
    held: BTreeMap<(usize, SendId), (u64, Timestamp)>,
    /// Per channel the messages too many: for each the arrivals that would excuse it.
    surplus: BTreeMap<usize, Vec<Vec<usize>>>,
    /// Messages too many since the sender of one stayed away.
    pub(super) absences: u64,
    /// When a host's clock or the deduplication store's was set, and how far: forward or back, in seconds.
    jumps: BTreeMap<usize, Vec<(Timestamp, i64)>>,
    /// When the deduplication store was asked, and how often its clock had been set by then.
    asked: Vec<(Timestamp, usize)>,
    /// Messages too many since a clock was set.
    pub(super) after_jumps: u64,
    /// Messages too many whose sender did not hear the deduplication store.
    pub(super) unasked: u64,
    pub(super) messages: u64,
}

impl Oracle {
    pub(super) fn occurred(&mut self, occurrence: Occurrence) {
        self.occurrences.push(occurrence);
    }

    pub(super) fn occurrences(&self) -> u64 {
        self.occurrences.len() as u64
    }

    /// A clock was set.
    pub(super) fn jumped(&mut self, clock: usize, seconds: i64, now: Timestamp) {
        self.jumps.entry(clock).or_default().push((now, seconds));
    }

    /// The deduplication store was asked.
    pub(super) fn asked(&mut self, now: Timestamp) {
        let jumps = self.jumps.get(&STORE).map_or(0, Vec::len);
        self.asked.push((now, jumps));
    }

    /// Whether a host's clock was set.
    pub(super) fn has_jumped(&self, host: usize) -> bool {
        self.jumps.contains_key(&host)
    }

    /// How much longer something told may count as told than by a true clock, since its host's clock or the deduplication
    /// store's was set after that.
    ///
    /// Neither has anything but its clock to count windows and reminders with, and notes what it says when something is told.
    /// A host's set forward: it cannot know that it did not sleep, and what it asks about is older by that. Either set back:
    /// what was told is younger by that, but by no more than had passed since. Beyond that it lies in the future, and whoever
    /// looks then (a host always does, the store when it is asked) knows that it is from before; it is told again.
    fn lengthened(&self, told: &Arrival, occurrence: &Occurrence) -> Duration {
        let since_then = |clock| {
            let jumps = self.jumps.get(&clock).into_iter().flatten().copied().enumerate();
            jumps.filter(|(_, (at, _))| *at >= told.reserved.minus(LEEWAY))
        };
        let by = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        let passed = |at: Timestamp| at.since(told.reserved) + CLOCK_TOLERANCE;
        // A host notes at once that something occurs; it may ask about it, and the store look at its clock, much later.
        let of_host = since_then(occurrence.host).map(|(_, (at, seconds))| match seconds {
            0.. => by(seconds),
            _ if at <= occurrence.at.plus(LEEWAY) => by(seconds).min(passed(at)),
            _ => Duration::ZERO,
        });
        let of_store = since_then(STORE).filter(|(_, (_, seconds))| *seconds < 0).map(|(number, (at, seconds))| {
            let caught_up = at.plus(by(seconds)).minus(passed(at));
            match self.asked.iter().any(|(asked, jumps)| *jumps > number && *asked < caught_up) {
                true => by(seconds).min(passed(at)),
                false => by(seconds),
            }
        });
        of_host.chain(of_store).sum()
    }

    /// Messages too many, but for those since a sender stayed away.
    pub(super) fn surplus(&self) -> u64 {
        self.surplus.values().map(|surplus| surplus.len() as u64).sum()
    }

    /// Arrivals that excuse a message.
    pub(super) fn excuses(&self) -> u64 {
        self.told.values().flatten().filter(|told| told.excuses.is_some()).count() as u64
    }

    /// A message is reserved, and kept for its sender until then.
    pub(super) fn reserved(&mut self, channel: usize, send: SendId, epoch: u64, until: Timestamp) {
        self.held.insert((channel, send), (epoch, until));
    }

    /// Nobody knows whether a message has arrived: it is kept for its sender until then.
    pub(super) fn unclear(&mut self, channel: usize, send: SendId, epoch: u64, until: Timestamp) {
        if let Some((_, held)) = self.held.get_mut(&(channel, send)).filter(|(latest, _)| *latest == epoch) {
            *held = until;
        }
    }

    /// What the deduplication store does not know of and no longer holds for its sender, who is not that of `send`.
    pub(super) fn abandoned(&self, channel: usize, send: SendId, now: Timestamp) -> BTreeSet<usize> {
        let told = self.told.get(&channel).into_iter().flatten().enumerate();
        let is_over = |send| self.held.get(&(channel, send)).is_none_or(|(_, until)| *until <= now);
        told.filter(|(_, told)| !told.confirmed && told.arrival.send != send && is_over(told.arrival.send))
            .map(|(number, _)| number)
            .collect()
    }

    /// What the deduplication store knows of a channel.
    pub(super) fn known(&self, channel: usize) -> BTreeSet<usize> {
        let told = self.told.get(&channel).into_iter().flatten().enumerate();
        told.filter(|(_, told)| told.confirmed).map(|(number, _)| number).collect()
    }

    /// Somebody was told that an arrival has arrived.
    pub(super) fn confirm(&mut self, channel: usize, arrival: usize) {
        if let Some(told) = self.told.get_mut(&channel).and_then(|told| told.get_mut(arrival)) {
            told.confirmed = true;
        }
    }

    /// A message is the same in every attempt (R7).
    pub(super) fn formed(&mut self, sending: &Sending) -> Result<(), Fault> {
        let says = (sending.keys.clone(), sending.message.body.clone());
        let before = self.said.entry(sending.id).or_insert_with(|| says.clone());
        match *before == says {
            true => Ok(()),
            false => Err(Fault::Store(format!("message {:04x} changed", sending.id.0 as u16))),
        }
    }

    /// A message arrives; answers its number in the channel.
    pub(super) fn arrived(&mut self, channel: usize, arrival: Arrival) -> Result<usize, Fault> {
        self.messages += 1;
        let told = self.told.entry(channel).or_default();
        let again = || told.iter().enumerate().filter(|(_, before)| before.arrival.send == arrival.send);
        // Who said a part of it before, as loudly and not too long ago.
        let tellers = |(key, rank): &(Key, Rank)| -> Vec<usize> {
            let tells = |number: usize, told: &Told| {
                told.arrival.manner == Manner::Announcement
                    && told.arrival.reserved >= arrival.since
                    && told.arrival.keys.iter().any(|(k, r)| k == key && r >= rank)
                    // Nobody could know of it who asked before it was noted.
                    && (!told.arrival.unasked || arrival.known.contains(&number))
            };
            told.iter().enumerate().filter(|(number, told)| tells(*number, told)).map(|(number, _)| number).collect()
        };
        let tellers: Vec<Vec<usize>> = arrival.keys.iter().map(tellers).collect();
        let all_told = tellers.iter().all(|tellers| !tellers.is_empty());
        let fault = |why: &str| Err(Fault::Surplus(format!("message {:04x} {why}", arrival.send.0 as u16)));
        match arrival.manner {
            Manner::Edit => {} // nobody is disturbed by an edit
            _ if arrival.unasked => self.unasked += u64::from(again().next().is_some() || all_told),
            // Whose clock was set may repeat what was told.
            _ if !self.jumps.is_empty() => {
                self.after_jumps +=
                    u64::from(again().next().is_some() || all_told && arrival.manner == Manner::Announcement);
            }
            Manner::Follow | Manner::Announcement if again().next().is_some() => {
                let unknown = again().map(|(number, _)| number).filter(|number| !arrival.known.contains(number));
                let surplus = self.surplus.entry(channel).or_default();
                surplus.push(unknown.collect());
                if !excuse(told, surplus, surplus.len() - 1, &mut BTreeSet::new()) {
                    return fault("again");
                }
            }
            Manner::Announcement if all_told => {
                let abandoned: BTreeSet<usize> =
                    tellers.into_iter().flatten().filter(|number| arrival.abandoned.contains(number)).collect();
                if !abandoned.into_iter().any(|number| told[number].left_to(&arrival)) {
                    return fault("told by another");
                }
                self.absences += 1;
            }
            Manner::Follow | Manner::Announcement => {}
        }
        told.push(Told { arrival, confirmed: false, excuses: None, said_by_others: BTreeSet::new() });
        Ok(told.len() - 1)
    }

    /// From now on a machine is muted: what was not told by now need not be.
    pub(super) fn muted(&mut self, host: usize, scope: usize, channels: &[Severity]) {
        let untold: Vec<(usize, usize)> = self
            .occurrences
            .iter()
            .enumerate()
            .filter(|(_, occurrence)| occurrence.host == host && occurrence.scope == scope)
            .flat_map(|(number, occurrence)| {
                let channels = (0..channels.len()).filter(|channel| !self.is_told(occurrence, *channel));
                channels.map(move |channel| (number, channel)).collect::<Vec<_>>()
            })
            .collect();
        for (number, channel) in untold {
            self.occurrences[number].excused.insert(channel);
        }
    }

    fn is_told(&self, occurrence: &Occurrence, channel: usize) -> bool {
        let says = |told: &&Told| {
            let says = |(key, rank): &(Key, Rank)| occurrence.keys.contains(key) && *rank >= occurrence.rank;
            told.arrival.manner != Manner::Follow && told.arrival.keys.iter().any(says)
        };
        let lately =
            |told: &Arrival| told.at >= occurrence.since.minus(LEEWAY).minus(self.lengthened(told, occurrence));
        // An edit shows more, but not louder than what was announced; a reminder is an announcement.
        let announced_as_loud = |edit: &Told| {
            self.told.get(&channel).into_iter().flatten().any(|told| {
                told.arrival.manner == Manner::Announcement
                    && lately(&told.arrival)
                    && told.arrival.keys.iter().any(|(key, rank)| {
                        *rank >= occurrence.rank && edit.arrival.keys.iter().any(|(shown, _)| shown == key)
                    })
            })
        };
        self.told.get(&channel).into_iter().flatten().filter(says).any(|told| match told.arrival.manner {
            Manner::Announcement => lately(&told.arrival),
            Manner::Edit => told.arrival.at >= occurrence.at.minus(LEEWAY) && announced_as_loud(told),
            Manner::Follow => false,
        })
    }

    /// Whether everything was told on a channel, but for what `excused` says about a host's incident since a time.
    pub(super) fn check(
        &self,
        host: usize,
        channel: usize,
        min_severity: Severity,
        excused: impl Fn(IncidentId, Timestamp) -> bool,
    ) -> Result<(), Fault> {
        for occurrence in self.occurrences.iter().filter(|occurrence| occurrence.host == host) {
            if occurrence.rank.severity >= min_severity
                && !occurrence.excused.contains(&channel)
                && !self.is_told(occurrence, channel)
                && !occurrence.by.iter().any(|incident| excused(*incident, occurrence.at))
            {
                let at = occurrence.at.secs() - super::BEGIN.secs();
                return Err(Fault::Lost(format!(
                    "host {host}, channel {channel}, scope {}: {:?} at {at} s, {:?}",
                    occurrence.scope, occurrence.rank, occurrence.by
                )));
            }
        }
        Ok(())
    }
}

/// Finds an arrival that nobody knew of for a message too many, and for those that had it before another one.
fn excuse(told: &mut [Told], surplus: &[Vec<usize>], message: usize, tried: &mut BTreeSet<usize>) -> bool {
    for &arrival in &surplus[message] {
        if tried.insert(arrival) {
            let other = told[arrival].excuses;
            if other.is_none_or(|other| excuse(told, surplus, other, tried)) {
                told[arrival].excuses = Some(message);
                return true;
            }
        }
    }
    false
}
