//! What must be true, judged from outside: what occurred, and what arrived at the people who read a channel.
//!
//! * **Loss**, per template and mark: every occurrence was told on every channel that takes its severity, at its rank or
//!   above, not longer ago than a reminder would come; or it waits durably, was given up and says so, or is muted.
//! * **Surplus**, per key: a message that says nothing but what had arrived within its window is one too many, and so is one
//!   that arrives twice. It needs an excuse: an arrival that the deduplication store could not know of, since its sender
//!   crashed or the answer was lost. Each of those excuses that each of its keys is said once more at each rank.
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
    message::SendId,
};

use super::Fault;

/// Clocks of one process may differ by so much between two looks.
const LEEWAY: Duration = Duration::from_secs(1);

/// Something that people must hear of.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    pub(super) host: usize,
    pub(super) scope: usize,
    pub(super) at: Timestamp,
    /// Whose it is.
    pub(super) incident: IncidentId,
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
}

#[derive(Debug)]
struct Told {
    arrival: Arrival,
    /// The deduplication store knows it, or for a message that it is not asked about: the ledger.
    confirmed: bool,
    /// Messages that it has excused.
    charges: u64,
    /// What it has excused saying once more.
    excused: BTreeSet<(Key, Rank)>,
}

/// Judges one run.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    told: BTreeMap<usize, Vec<Told>>,
    occurrences: Vec<Occurrence>,
    said: BTreeMap<SendId, Vec<(Key, Rank)>>,
    pub(super) surplus: u64,
    pub(super) messages: u64,
}

impl Oracle {
    pub(super) fn occurred(&mut self, occurrence: Occurrence) {
        self.occurrences.push(occurrence);
    }

    pub(super) fn occurrences(&self) -> u64 {
        self.occurrences.len() as u64
    }

    /// Arrivals that have excused a message.
    pub(super) fn excuses(&self) -> u64 {
        self.told.values().flatten().filter(|told| told.charges > 0).count() as u64
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
    pub(super) fn formed(&mut self, send: SendId, keys: &[(Key, Rank)]) -> Result<(), Fault> {
        match self.said.get(&send) {
            Some(before) if before != keys => Err(Fault::Store(format!("message {:04x} changed", send.0 as u16))),
            Some(_) => Ok(()),
            None => {
                self.said.insert(send, keys.to_vec());
                Ok(())
            }
        }
    }

    /// A message arrives; answers its number in the channel.
    pub(super) fn arrived(&mut self, channel: usize, arrival: Arrival) -> Result<usize, Fault> {
        self.messages += 1;
        let told = self.told.entry(channel).or_default();
        let again = told.iter().rposition(|before| before.arrival.send == arrival.send);
        // Who said a part of it before, as loudly and not too long ago.
        let tellers = |(key, rank): &(Key, Rank)| -> Vec<usize> {
            let tells = |told: &Told| {
                told.arrival.manner == Manner::Announcement
                    && told.arrival.reserved >= arrival.since
                    && told.arrival.keys.iter().any(|(k, r)| k == key && r >= rank)
            };
            told.iter().enumerate().filter(|(_, told)| tells(told)).map(|(number, _)| number).collect()
        };
        let tellers: Vec<Vec<usize>> = arrival.keys.iter().map(tellers).collect();
        let all_told = tellers.iter().all(|tellers| !tellers.is_empty());
        let why = match arrival.manner {
            Manner::Edit => None, // nobody is disturbed by an edit
            Manner::Follow | Manner::Announcement if again.is_some() => Some("again"),
            Manner::Announcement if all_told => Some("told by another"),
            Manner::Follow | Manner::Announcement => None,
        };
        if let Some(why) = why {
            self.surplus += 1;
            let before: BTreeSet<usize> = tellers.into_iter().flatten().chain(again).collect();
            let unknown: Vec<usize> = before.into_iter().filter(|number| !arrival.known.contains(number)).collect();
            excuse(told, &unknown, why, &arrival)?;
        }
        told.push(Told { arrival, confirmed: false, charges: 0, excused: BTreeSet::new() });
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
        let since = occurrence.since.minus(LEEWAY);
        let says = |told: &&Told| {
            let says = |(key, rank): &(Key, Rank)| occurrence.keys.contains(key) && *rank >= occurrence.rank;
            told.arrival.manner != Manner::Follow && told.arrival.keys.iter().any(says)
        };
        // An edit shows more, but not louder than what was announced; a reminder is an announcement.
        let announced_as_loud = |edit: &Told| {
            self.told.get(&channel).into_iter().flatten().any(|told| {
                told.arrival.manner == Manner::Announcement
                    && told.arrival.at >= since
                    && told.arrival.keys.iter().any(|(key, rank)| {
                        *rank >= occurrence.rank && edit.arrival.keys.iter().any(|(shown, _)| shown == key)
                    })
            })
        };
        self.told.get(&channel).into_iter().flatten().filter(says).any(|told| match told.arrival.manner {
            Manner::Announcement => told.arrival.at >= since,
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
                && !excused(occurrence.incident, occurrence.at)
            {
                let at = occurrence.at.secs() - super::BEGIN.secs();
                return Err(Fault::Lost(format!(
                    "host {host}, channel {channel}, scope {}: {:?} at {at} s, {:?}",
                    occurrence.scope, occurrence.rank, occurrence.incident
                )));
            }
        }
        Ok(())
    }
}

/// Charges a surplus message to one of the arrivals that nobody knew of.
fn excuse(told: &mut [Told], unknown: &[usize], why: &str, arrival: &Arrival) -> Result<(), Fault> {
    for number in unknown {
        let before = &mut told[*number];
        let known = |key: &Key| before.arrival.keys.iter().any(|(known, _)| known == key);
        let shared: Vec<(Key, Rank)> = arrival.keys.iter().filter(|(key, _)| known(key)).copied().collect();
        if shared.iter().any(|said| !before.excused.contains(said)) {
            before.excused.extend(shared);
            before.charges += 1;
            return Ok(());
        }
    }
    Err(Fault::Surplus(format!("message {:04x} {why}", arrival.send.0 as u16)))
}
