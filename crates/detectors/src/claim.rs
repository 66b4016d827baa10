//! What all findings of rules have in common: bounds, an identity of their own, words about who was involved.

use std::collections::BTreeMap;

use logwarden_templates::{Delta, LineId, RootId, Row};

use crate::{Entity, EntityKind, Subject};

/// Rows that a finding cites.
pub(crate) const ROWS: usize = 64;

/// Of those, rows whose templates give it keys.
const ANOMALOUS: usize = 16;

/// Addresses, users and others that a finding names.
const NAMED: usize = 64;

/// What a finding cites: `rows` are given with the most telling first.
pub(crate) struct Cited {
    pub(crate) rows: Vec<u32>,
    pub(crate) anomalous: Vec<u32>,
    /// Rows that were too many.
    left_out: usize,
}

impl Cited {
    pub(crate) fn new(mut rows: Vec<u32>) -> Self {
        let left_out = rows.len().saturating_sub(ROWS);
        rows.truncate(ROWS);
        let anomalous = rows.iter().copied().take(ANOMALOUS).collect();
        Self { rows, anomalous, left_out }
    }

    /// The subject of all findings of one rule group, or one class, at one origin: later findings about other templates
    /// (another path, another message) belong to the same incident.
    pub(crate) fn subject(&self, delta: &Delta, kind: &str, name: &str, discriminator: &str) -> Vec<Subject> {
        let Some(row) = self.rows.first().and_then(|row| delta.rows.get(*row as usize)) else { return Vec::new() };
        vec![Subject {
            origin: row.origin.clone(),
            leaf: None,
            root: root(kind, name, discriminator),
            template: row.template.clone(),
            last: row.last,
        }]
    }

    /// Adds to an explanation what is not shown.
    pub(crate) fn explain(&self, explanation: &mut String, entities: &mut Vec<Entity>) {
        let more = entities.len().saturating_sub(NAMED);
        if self.left_out > 0 {
            explanation.push_str(&format!(" {} more kinds of lines belong to it.", number(self.left_out as u64)));
        }
        if more > 0 {
            explanation.push_str(&format!(" {} more addresses, users or others are not listed.", number(more as u64)));
            entities.truncate(NAMED);
        }
    }
}

/// An identity that no template has.
pub(crate) fn root(kind: &str, name: &str, discriminator: &str) -> RootId {
    RootId::from_bits(LineId::of(&[kind.as_bytes(), name.as_bytes(), discriminator.as_bytes()]).bits())
}

/// Rows by how many events they have, most first.
pub(crate) fn busiest_first(delta: &Delta, rows: &mut [u32]) {
    let count = |row: &u32| delta.rows.get(*row as usize).map_or(0, |row: &Row| row.count);
    rows.sort_by(|a, b| count(b).cmp(&count(a)).then(a.cmp(b)));
}

/// Counts addresses, users and others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entities(BTreeMap<(EntityKind, String), u64>);

impl Entities {
    /// Adds to the count of one; what has no name is none.
    pub(crate) fn add(&mut self, kind: EntityKind, value: &str, count: u64) {
        if !value.is_empty() {
            let known = self.0.entry((kind, value.to_owned())).or_default();
            *known = known.saturating_add(count);
        }
    }

    /// Takes the higher count of each.
    pub(crate) fn max(&mut self, other: &Self) {
        for (entity, count) in &other.0 {
            let known = self.0.entry(entity.clone()).or_default();
            *known = (*known).max(*count);
        }
    }

    /// The most frequent first.
    pub(crate) fn ranked(self) -> Vec<Entity> {
        let entity = |((kind, value), count): ((EntityKind, String), u64)| Entity { kind, value: value.into(), count };
        let mut entities: Vec<Entity> = self.0.into_iter().map(entity).collect();
        entities.sort_by_key(|entity| std::cmp::Reverse(entity.count));
        entities
    }
}

/// `203.0.113.7`, or `several addresses, such as 203.0.113.7`: how many they are changes as long as it goes on.
pub(crate) fn sources(entities: &[Entity]) -> String {
    let mut addresses = entities.iter().filter(|entity| entity.kind == EntityKind::Ip);
    match (addresses.next(), addresses.count()) {
        (None, _) => "somewhere".to_owned(),
        (Some(first), 0) => first.value.to_string(),
        (Some(first), _) => format!("several addresses, such as {}", first.value),
    }
}

/// `12,345`.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
