//! Whom the machines behind a proxy or firewall call, and whether something calls home by the clock.
//!
//! People and programs reach for the internet in fits and starts. What an intruder leaves behind asks for orders every few
//! minutes, day and night, with a little jitter: many contacts to a destination that was never seen before, at even gaps,
//! each a few lines. Gaps are counted in minutes.

use std::collections::BTreeMap;

use logwarden_templates::{Delta, SlotKind, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    By, Category, Entity, EntityKind, Finding, ProfileName, Route, Severity, SourceRow, address, claim,
    failures::key,
    look::{Hit, values},
    rule::Act,
    rules::RuleSet,
    settings::{Baseline, Settings},
};

/// Contacts that make a beacon: so many gaps are hardly even by chance.
const OCCASIONS: u32 = 8;
/// Spread of the gaps as a share of their mean; agents that jitter by a third or less stay below.
const EVEN: f64 = 0.2;
/// Shorter gaps than this many minutes are a session, not a beacon.
const SHORTEST: f64 = 2.0;
/// Lines per occasion: more are somebody at work.
const LINES: u64 = 3;
/// Destinations that are remembered per source.
const MOST: usize = 2048;
/// A destination that is not contacted for so many minutes is forgotten.
const FORGOTTEN_AFTER: i64 = 7 * 24 * 60;

/// Destinations with the times they were contacted. Opaque: [`detect`](crate::detect) reads and grows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contacts {
    /// Sorted by key.
    pub(crate) list: Vec<Contact>,
    /// Those that had to make room.
    pub(crate) evicted: u64,
}

/// One destination as one host tells of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Contact {
    pub(crate) key: u64,
    /// Minutes since 1970.
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Minutes with contacts.
    pub(crate) occasions: u32,
    /// Lines in all.
    pub(crate) lines: u64,
    /// Of the gaps, in minutes.
    pub(crate) mean: f32,
    pub(crate) squares: f32,
}

impl Contact {
    fn add(&mut self, minute: i64, lines: u32) {
        self.lines = self.lines.saturating_add(u64::from(lines));
        if self.occasions == 0 {
            (self.first, self.last, self.occasions) = (minute, minute, 1);
            return;
        }
        let gap = minute - self.last;
        if gap <= 0 {
            return;
        }
        let gaps = f64::from(self.occasions);
        let delta = gap as f64 - f64::from(self.mean);
        let mean = f64::from(self.mean) + delta / gaps;
        self.squares += (delta * (gap as f64 - mean)) as f32;
        self.mean = mean as f32;
        self.last = minute;
        self.occasions = self.occasions.saturating_add(1);
    }

    fn is_beacon(&self) -> bool {
        let (mean, gaps) = (f64::from(self.mean), f64::from(self.occasions.saturating_sub(1)));
        self.occasions >= OCCASIONS
            && mean >= SHORTEST
            && (f64::from(self.squares) / gaps.max(1.0)).max(0.0).sqrt() <= EVEN * mean
            && self.lines <= LINES * u64::from(self.occasions)
    }
}

impl Contacts {
    fn get(&self, key: u64) -> Option<&Contact> {
        self.list.binary_search_by_key(&key, |contact| contact.key).ok().map(|at| &self.list[at])
    }

    /// Replaces contacts, forgets old ones and keeps to the bound.
    pub(crate) fn take(&mut self, mut changed: Vec<Contact>, now_minute: i64) {
        if changed.is_empty() {
            return;
        }
        for contact in &mut changed {
            // What is later than now was written by a clock that is wrong.
            (contact.first, contact.last) = (contact.first.min(now_minute), contact.last.min(now_minute));
        }
        changed.sort_by_key(|contact| contact.key);
        self.list.retain(|contact| {
            contact.last >= now_minute - FORGOTTEN_AFTER
                && changed.binary_search_by_key(&contact.key, |new| new.key).is_err()
        });
        self.list.append(&mut changed);
        if self.list.len() > MOST {
            self.evicted += (self.list.len() - MOST) as u64;
            self.list.sort_by_key(|contact| (std::cmp::Reverse(contact.last), contact.key));
            self.list.truncate(MOST);
        }
        self.list.sort_by_key(|contact| contact.key);
    }
}

/// Whether a destination is somewhere out there.
fn is_outside(peer: &str) -> bool {
    match address::canonical(peer) {
        Some(address) => address::network(&address).is_some(),
        None => peer.contains('.') && !peer.ends_with(".local") && !peer.ends_with(".internal"),
    }
}

/// What calls home, and the contacts that have changed.
pub(crate) fn look(
    delta: &Delta,
    rules: &RuleSet,
    hits: &[Hit],
    source: &SourceRow,
    settings: &Settings,
    baseline: Baseline,
) -> (Vec<Finding>, Vec<Contact>) {
    let mut findings = Vec::new();
    let mut changed: BTreeMap<u64, Contact> = BTreeMap::new();
    for hit in hits.iter().filter(|hit| rules.rule(hit.rule).act == Act::Contact) {
        let row = &delta.rows[hit.row];
        for seen in values(row, hit, "peer", SlotKind::Host) {
            if !is_outside(&seen.value) {
                continue;
            }
            let key = key(&["contact", &row.origin.host, &seen.value]);
            let known = || source.contacts.get(key).cloned().unwrap_or(Contact { key, ..Contact::default() });
            let contact = changed.entry(key).or_insert_with(known);
            seen.minutes.iter().for_each(|(minute, n)| contact.add(minute, n));
            let since = source.first.map_or(contact.first, Timestamp::minute);
            let warm_up = i64::try_from(settings.warm_up.as_secs() / 60).unwrap_or(i64::MAX);
            // What was contacted before anybody knew what is normal may well be normal.
            let fresh = source.backfilled || contact.first >= since.saturating_add(warm_up);
            let told = match baseline {
                Baseline::SelfRelative => true,
                Baseline::Warming => false,
                Baseline::Learned => fresh,
            };
            if told && contact.is_beacon() {
                findings.extend(finding(delta, hit, contact, &seen.value, baseline));
            }
        }
    }
    (findings, changed.into_values().collect())
}

fn finding(delta: &Delta, hit: &Hit, contact: &Contact, peer: &str, baseline: Baseline) -> Option<Finding> {
    let row = &delta.rows[hit.row];
    let number = u32::try_from(hit.row).ok()?;
    let mut entities =
        vec![Entity { kind: EntityKind::Other, value: peer.into(), count: u64::from(contact.occasions) }];
    for captures in hit.captures.iter().filter(|captures| captures.get("peer") == Some(peer)) {
        for (name, kind) in [("ip", EntityKind::Ip), ("user", EntityKind::User)] {
            if let Some(value) = captures.get(name).filter(|_| entities.len() < 8) {
                let known = entities.iter().any(|entity| entity.kind == kind && *entity.value == *value);
                if !known {
                    entities.push(Entity { kind, value: value.into(), count: 1 });
                }
            }
        }
    }
    let severity = if baseline == Baseline::SelfRelative { Severity::Low } else { Severity::Medium };
    Some(Finding {
        by: By::Detector { name: "beacon".to_owned() },
        profile: ProfileName::security(),
        category: Category::UnauthorizedAccess,
        severity,
        floor: Some(severity),
        route: Route::Alert,
        title: format!("Something calls {peer} every {:.0} minutes", contact.mean),
        explanation: format!(
            "{} contacts at even gaps with a destination that was not seen before. Programs that look for updates do that, \
             and so does what an intruder leaves behind to wait for orders.",
            contact.occasions
        ),
        recommendation:
            "Find the program on the machine that calls: `ss -tnp` while it is connected. If nobody knows it, \
                         take that machine off the network."
                .to_owned(),
        rows: vec![number],
        anomalous: Vec::new(),
        absent: vec![crate::Subject {
            origin: row.origin.clone(),
            leaf: None,
            root: claim::root("contact", peer, ""),
            template: row.template.clone(),
            last: row.last,
        }],
        discriminator: peer.to_owned(),
        entities,
        score: 6.0,
        count: u64::from(contact.occasions),
        first: Timestamp::from_secs(contact.first.saturating_mul(60)).max(row.first.min(row.last)),
        last: row.last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(minutes: impl IntoIterator<Item = i64>, lines: u32, beacon: bool) {
        let mut contact = Contact::default();
        minutes.into_iter().for_each(|minute| contact.add(minute, lines));
        assert_eq!(contact.is_beacon(), beacon, "{contact:?}");
    }

    #[test]
    fn even_gaps_are_a_beacon_and_people_are_none() {
        check([0, 4, 9, 15, 20, 24, 30, 35], 1, true);
        check([0, 5, 10, 15, 20, 25, 30], 1, false);
        check([0, 3, 4, 30, 31, 50, 52, 90, 95], 1, false);
        check([0, 5, 10, 15, 20, 25, 30, 35], 40, false);
        check(0..60, 1, false);
    }

    #[test]
    fn the_table_is_bounded_and_says_what_it_dropped() {
        let contact = |key: u64| Contact { key, last: key as i64, occasions: 1, ..Contact::default() };
        let mut contacts = Contacts::default();
        contacts.take((0..3000).map(contact).collect(), 3000);
        assert_eq!((contacts.list.len(), contacts.evicted), (MOST, 952));
        assert!(contacts.get(2999).is_some() && contacts.get(0).is_none());
    }
}
