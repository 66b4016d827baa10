//! Which rules match which rows: rules look at the few samples of a row, never at every line.

use logwarden_templates::{Delta, Histogram, Row, SlotKind, Timestamp};

use crate::{
    rule::Captures,
    rules::{Prepared, RuleSet},
};

/// A rule that matches a row.
#[derive(Debug)]
pub(crate) struct Hit {
    /// Index of the row.
    pub(crate) row: usize,
    /// Number of the rule.
    pub(crate) rule: usize,
    /// What the rule captured, per sample that it matched.
    pub(crate) captures: Vec<Captures>,
    /// Events of the row that it stands for: all, unless only some of its samples match.
    pub(crate) count: u64,
}

/// All hits, by row.
pub(crate) fn hits(delta: &Delta, rules: &RuleSet) -> Vec<Hit> {
    let mut hits: Vec<Hit> = Vec::new();
    for (number, row) in delta.rows.iter().enumerate() {
        let from = hits.len();
        for sample in &row.samples {
            let text = String::from_utf8_lossy(&sample.text);
            for (rule, captures) in rules.hits(&Prepared::new(&text), &row.origin.service) {
                match hits[from..].iter_mut().find(|hit| hit.rule == rule) {
                    Some(hit) => hit.captures.push(captures),
                    None => hits.push(Hit { row: number, rule, captures: vec![captures], count: 0 }),
                }
            }
        }
        let samples = row.samples.len().max(1) as u64;
        for hit in &mut hits[from..] {
            hit.count = (row.count * hit.captures.len() as u64).div_ceil(samples).max(1);
        }
    }
    hits
}

/// A value with how often it occurred and when.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) value: String,
    pub(crate) count: u64,
    pub(crate) minutes: Histogram,
}

/// The values that a capture stands for in a whole row: those of the slot that holds a captured value, or the captured
/// values themselves.
pub(crate) fn values(row: &Row, hit: &Hit, capture: &str, kind: SlotKind) -> Vec<Seen> {
    let captured: Vec<&str> = hit.captures.iter().filter_map(|captures| captures.get(capture)).collect();
    if captured.is_empty() {
        return Vec::new();
    }
    let holds = |value: &str| captured.iter().any(|wanted| value == *wanted || trimmed(value) == *wanted);
    let slot = row
        .slots
        .iter()
        .filter(|slot| slot.values.iter().any(|value| holds(&value.value)))
        .max_by_key(|slot| (slot.kind == kind, slot.values.len()));
    if let Some(slot) = slot {
        return slot
            .values
            .iter()
            .map(|value| Seen {
                value: trimmed(&value.value).to_owned(),
                count: value.count,
                minutes: if value.minutes.iter().next().is_some() {
                    value.minutes.clone()
                } else {
                    at(row.first, value.count)
                },
            })
            .collect();
    }
    let mut seen: Vec<Seen> = Vec::new();
    let share = hit.count / captured.len() as u64;
    for value in captured {
        match seen.iter_mut().find(|known| known.value == value) {
            Some(known) => known.count += share.max(1),
            None => seen.push(Seen { value: value.to_owned(), count: share.max(1), minutes: Histogram::default() }),
        }
    }
    let only = seen.len() == 1;
    for known in &mut seen {
        known.minutes = if only { row.minutes.clone() } else { at(row.first, known.count) };
    }
    seen
}

fn at(time: Timestamp, count: u64) -> Histogram {
    let mut minutes = Histogram::default();
    minutes.add(time, u32::try_from(count).unwrap_or(u32::MAX));
    minutes
}

/// A value without what headers put around it: `[203.0.113.7]`, `203.0.113.7:4711`.
fn trimmed(value: &str) -> &str {
    let value = value.trim_matches(|c: char| matches!(c, '[' | ']' | '(' | ')' | ',' | ';' | '"' | '\''));
    match value.split_once(':') {
        Some((address, port)) if address.contains('.') && port.bytes().all(|b| b.is_ascii_digit()) => address,
        _ => value,
    }
}
