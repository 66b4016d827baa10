//! Findings of rules: hits of one group on one host are one finding.

use std::collections::BTreeMap;

use logwarden_templates::{Delta, Histogram, SlotKind};

use crate::{
    By, Entity, EntityKind, Finding, Route, Severity,
    look::{Hit, values},
    rule::{Act, Rule},
    rules::RuleSet,
};

/// Captures that name an entity.
const ENTITIES: &[(&str, EntityKind, SlotKind)] = &[
    ("ip", EntityKind::Ip, SlotKind::Ip),
    ("user", EntityKind::User, SlotKind::User),
    ("unit", EntityKind::Unit, SlotKind::Any),
    ("device", EntityKind::Device, SlotKind::Any),
    ("process", EntityKind::Other, SlotKind::Any),
];

/// The findings of all rules that make one by themselves.
pub(crate) fn findings(delta: &Delta, rules: &RuleSet, hits: &[Hit]) -> Vec<Finding> {
    let mut groups: BTreeMap<(String, String, String), Vec<&Hit>> = BTreeMap::new();
    for hit in hits {
        let rule = rules.rule(hit.rule);
        if !matches!(rule.act, Act::Find(_)) {
            continue;
        }
        let group = if rule.group.is_empty() { rule.id.clone() } else { rule.group.clone() };
        let host = delta.rows[hit.row].origin.host.to_string();
        groups.entry((group, host, discriminator(rule, hit))).or_default().push(hit);
    }
    groups.into_iter().filter_map(|((_, _, discriminator), hits)| finding(delta, rules, &hits, discriminator)).collect()
}

fn discriminator(rule: &Rule, hit: &Hit) -> String {
    let name = rule.discriminator.as_deref();
    name.and_then(|name| hit.captures.iter().find_map(|captures| captures.get(name))).unwrap_or_default().to_owned()
}

fn severity(rule: &Rule, hit: &Hit) -> Severity {
    let raised = rule.raise.iter().filter(|raise| hit.captures.iter().any(|captures| raise.when.holds(captures)));
    raised.map(|raise| raise.severity).max().unwrap_or(rule.severity).max(rule.severity)
}

fn finding(delta: &Delta, rules: &RuleSet, hits: &[&Hit], discriminator: String) -> Option<Finding> {
    let enough = hits.iter().any(|hit| {
        let Act::Find(threshold) = &rules.rule(hit.rule).act else { return false };
        let mut minutes = Histogram::default();
        hits.iter()
            .filter(|other| other.rule == hit.rule)
            .for_each(|other| minutes.merge(&delta.rows[other.row].minutes));
        threshold.at_least <= 1 || minutes.peak(threshold.minutes) >= u64::from(threshold.at_least)
    });
    if !enough {
        return None;
    }
    let mut hits = hits.to_vec();
    hits.sort_by_key(|hit| (std::cmp::Reverse(severity(rules.rule(hit.rule), hit)), hit.row));
    let worst = *hits.first()?;
    let rule = rules.rule(worst.rule);
    let mut rows: Vec<u32> = Vec::new();
    let mut entities: Vec<Entity> = Vec::new();
    for hit in &hits {
        let number = u32::try_from(hit.row).unwrap_or(u32::MAX);
        if !rows.contains(&number) {
            rows.push(number);
        }
        for (capture, kind, slot) in ENTITIES {
            for seen in values(&delta.rows[hit.row], hit, capture, *slot) {
                add(&mut entities, *kind, &seen.value, seen.count);
            }
        }
    }
    rank(&mut entities);
    let of_rows = || rows.iter().map(|row| &delta.rows[*row as usize]);
    let count = hits.iter().map(|hit| (hit.row, hit.count)).collect::<BTreeMap<_, _>>().values().sum();
    let origin = &delta.rows[worst.row].origin;
    let fill = |name: &str| match name {
        "count" => Some(number(count)),
        "host" => Some(origin.host.to_string()),
        "service" => Some(origin.service.to_string()),
        "sources" => Some(sources(&entities)),
        name => worst.captures.iter().find_map(|captures| captures.get(name)).map(str::to_owned),
    };
    let severity = severity(rule, worst);
    Some(Finding {
        by: By::Rule { id: rule.id.clone() },
        profile: rule.profile.clone(),
        category: rule.category,
        severity,
        floor: Some(severity),
        route: Route::Alert,
        title: rule.title.fill(fill),
        explanation: rule.explanation.clone(),
        recommendation: rule.next.fill_safely(fill),
        anomalous: rows.clone(),
        absent: Vec::new(),
        discriminator,
        entities,
        score: 10.0 * f64::from(severity as u8 + 1),
        count,
        first: of_rows().map(|row| row.first).min()?,
        last: of_rows().map(|row| row.last).max()?,
        rows,
    })
}

/// Adds to an entity's count, or a new entity.
pub(crate) fn add(entities: &mut Vec<Entity>, kind: EntityKind, value: &str, count: u64) {
    match entities.iter_mut().find(|entity| entity.kind == kind && *entity.value == *value) {
        Some(entity) => entity.count += count,
        None => entities.push(Entity { kind, value: value.into(), count }),
    }
}

/// The most frequent first.
pub(crate) fn rank(entities: &mut [Entity]) {
    entities.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (a.kind, &a.value).cmp(&(b.kind, &b.value))));
}

/// `203.0.113.7`, or `23 addresses, most from 203.0.113.7 (280)`.
pub(crate) fn sources(entities: &[Entity]) -> String {
    let mut addresses = entities.iter().filter(|entity| entity.kind == EntityKind::Ip);
    match (addresses.next(), addresses.count()) {
        (None, _) => "somewhere".to_owned(),
        (Some(first), 0) => first.value.to_string(),
        (Some(first), more) => format!("{} addresses, most from {} ({})", more + 1, first.value, number(first.count)),
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
