//! Which rules match which rows.
//!
//! Rules look at the few samples of a row. When all samples match, the row is meant as a whole and its slots tell who was
//! involved, how often and when. What only some lines of a row say is told by [`Screened`](crate::screen::Screened),
//! if whoever calls has the lines; without them only the samples count.

use std::collections::HashSet;

use logwarden_templates::{Histogram, Row, SlotKind, Timestamp};

use crate::{
    address,
    rule::Captures,
    rules::{Prepared, RuleSet, readable},
};

/// Captures that name who or what a line is about, with the slots that hold such values.
pub(crate) const NAMES: &[(&str, SlotKind)] = &[
    ("ip", SlotKind::Ip),
    ("user", SlotKind::User),
    ("unit", SlotKind::Any),
    ("device", SlotKind::Any),
    ("process", SlotKind::Any),
    ("peer", SlotKind::Host),
    ("port", SlotKind::Num),
];

/// A rule that matches a row.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    /// Index of the row.
    pub(crate) row: usize,
    /// Number of the rule.
    pub(crate) rule: usize,
    /// What the rule captured, of some of the lines that it matched.
    pub(crate) captures: Vec<Captures>,
    /// Events of the row that it stands for.
    pub(crate) count: u64,
    /// When they were.
    pub(crate) minutes: Histogram,
    pub(crate) known: Known,
}

/// What is known about the lines of a row that a rule matches.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// All lines of the row do: its slots say more. The times are those of the samples.
    All(Vec<Timestamp>),
    /// Those that were captured, each once, at these times.
    Some(Vec<Timestamp>),
    /// Every single one was looked at: these are the values of each capture.
    Each(Vec<(&'static str, Vec<Seen>)>),
}

/// A rule that matches samples of a row, with what it captured and the times of those samples.
pub(crate) type Matched = (usize, Vec<Captures>, Vec<Timestamp>);

/// The rules that match samples of a row.
pub(crate) fn of_samples(row: &Row, rules: &RuleSet) -> Vec<Matched> {
    let mut found: Vec<Matched> = Vec::new();
    let (mut room, mut texts) = (Vec::new(), Vec::new());
    for sample in row.samples.iter().filter(|sample| rules.may_hit(&sample.text, &mut room, &mut texts)) {
        let text = readable(&sample.text);
        for (rule, captures) in rules.hits(&Prepared::new(&text), &row.origin.service) {
            match found.iter_mut().find(|(known, ..)| *known == rule) {
                Some((_, known, times)) => {
                    known.push(captures);
                    times.push(sample.time);
                }
                None => found.push((rule, vec![captures], vec![sample.time])),
            }
        }
    }
    found
}

/// A value with how often it occurred and when.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) value: String,
    pub(crate) count: u64,
    pub(crate) minutes: Histogram,
}

impl Seen {
    /// Adds to the counts of a value.
    pub(crate) fn tick(seen: &mut Vec<Self>, value: &str, time: Timestamp) {
        match seen.iter_mut().find(|known| known.value == value) {
            Some(known) => {
                known.count += 1;
                known.minutes.add(time, 1);
            }
            None => {
                let mut minutes = Histogram::default();
                minutes.add(time, 1);
                seen.push(Self { value: value.to_owned(), count: 1, minutes });
            }
        }
    }
}

/// The values of a capture among the events that a hit stands for.
pub(crate) fn values(row: &Row, hit: &Hit, capture: &str, kind: SlotKind) -> Vec<Seen> {
    match &hit.known {
        Known::Each(values) => {
            values.iter().find(|(name, _)| *name == capture).map(|(_, seen)| seen.clone()).unwrap_or_default()
        }
        // Every event is a sample: nothing need be guessed.
        Known::All(times) if row.count == times.len() as u64 => of_times(hit, times, capture),
        Known::All(_) => of_slots(row, hit, capture, kind),
        Known::Some(times) => of_times(hit, times, capture),
    }
}

fn of_times(hit: &Hit, times: &[Timestamp], capture: &str) -> Vec<Seen> {
    let mut seen = Vec::new();
    for (captures, time) in hit.captures.iter().zip(times) {
        if let Some(value) = captures.get(capture) {
            Seen::tick(&mut seen, value, *time);
        }
    }
    seen
}

/// The slot that holds what was captured, if there is one.
pub(crate) fn slot_of<'r>(
    row: &'r Row,
    captures: &[Captures],
    capture: &str,
    kind: SlotKind,
) -> Option<&'r logwarden_templates::Slot> {
    let captured: HashSet<&str> = captures.iter().filter_map(|captures| captures.get(capture)).collect();
    let holds = |value: &str| captured.contains(value) || captured.contains(&*plain(value));
    let held = row.slots.iter().filter(|slot| slot.values.iter().any(|value| holds(&value.value)));
    held.max_by_key(|slot| (slot.kind == kind, slot.values.len()))
}

fn of_slots(row: &Row, hit: &Hit, capture: &str, kind: SlotKind) -> Vec<Seen> {
    if let Some(slot) = slot_of(row, &hit.captures, capture, kind) {
        let mut seen: Vec<Seen> = Vec::with_capacity(slot.values.len());
        for value in &slot.values {
            let minutes = match value.minutes.iter().next() {
                Some(_) => value.minutes.clone(),
                None => share(&row.minutes, row.count, value.count),
            };
            let plain = plain(&value.value);
            // Two spellings of one address are one.
            match seen.iter_mut().find(|known| known.value == *plain) {
                Some(known) => {
                    known.count += value.count;
                    known.minutes.merge(&minutes);
                }
                None => seen.push(Seen { value: plain.into_owned(), count: value.count, minutes }),
            }
        }
        return seen;
    }
    let captured: Vec<&str> = hit.captures.iter().filter_map(|captures| captures.get(capture)).collect();
    let mut seen: Vec<Seen> = Vec::new();
    for value in &captured {
        match seen.iter_mut().find(|known| known.value == *value) {
            Some(known) => known.count += 1,
            None => seen.push(Seen { value: (*value).to_owned(), count: 1, minutes: Histogram::default() }),
        }
    }
    let of = captured.len() as u64;
    for known in &mut seen {
        known.count = (hit.count * known.count / of.max(1)).max(1);
        known.minutes = share(&hit.minutes, hit.count, known.count);
    }
    seen
}

/// `part` of `whole` events, spread over the minutes as the whole is.
fn share(minutes: &Histogram, whole: u64, part: u64) -> Histogram {
    if part >= whole {
        return minutes.clone();
    }
    let mut shared = Histogram::default();
    let (mut seen, mut given) = (0_u64, 0_u64);
    for (minute, n) in minutes.iter() {
        seen += u64::from(n);
        let until =
            (u128::from(seen) * u128::from(part)).div_ceil(u128::from(whole.max(1))).min(u128::from(part)) as u64;
        if until > given {
            let n = u32::try_from(until - given).unwrap_or(u32::MAX);
            shared.add(Timestamp::from_secs(minute.saturating_mul(60)), n);
            given = until;
        }
    }
    shared
}

/// A value without what headers put around it; of an address its one form.
fn plain(value: &str) -> std::borrow::Cow<'_, str> {
    match address::canonical(value) {
        Some(address) => address.into(),
        None => {
            value.trim_matches(|c: char| matches!(c, '[' | ']' | '(' | ')' | ',' | ';' | '"' | '\'' | '<' | '>')).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_spread_as_the_whole_is() {
        let mut minutes = Histogram::default();
        for (minute, n) in [(10, 10), (11, 0), (12, 30)] {
            minutes.add(Timestamp::from_secs(minute * 60), n);
        }
        assert_eq!(share(&minutes, 40, 4).iter().collect::<Vec<_>>(), [(10, 1), (12, 3)]);
        assert_eq!(share(&minutes, 40, 40), minutes);
        assert_eq!(share(&minutes, 40, 1).iter().map(|(_, n)| n).sum::<u32>(), 1);
    }
}
