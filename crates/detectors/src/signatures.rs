//! Findings of rules: hits of one group on one host are one finding.

use std::collections::{BTreeMap, BTreeSet};

use logwarden_templates::{Delta, Histogram, SlotKind, Timestamp};

use crate::{
    By, EntityKind, Failures, Finding, Route, Severity,
    claim::{Cited, Entities, busiest_first, number, sources},
    failures::{Counter, key},
    look::{Hit, values},
    rule::{Act, Rule, Threshold},
    rules::RuleSet,
};

/// Captures that name an entity.
const ENTITIES: &[(&str, EntityKind, SlotKind)] = &[
    ("ip", EntityKind::Ip, SlotKind::Ip),
    ("user", EntityKind::User, SlotKind::User),
    ("unit", EntityKind::Unit, SlotKind::Any),
    ("device", EntityKind::Device, SlotKind::Any),
    ("process", EntityKind::Other, SlotKind::Any),
    ("peer", EntityKind::Other, SlotKind::Host),
];

/// Titles of other rules of the group that a finding mentions.
const ALSO: usize = 3;

/// What rules that make findings by themselves have come to.
#[derive(Default)]
pub(crate) struct Signatures {
    pub(crate) findings: Vec<Finding>,
    /// Counters that have changed: of rules that need several events.
    pub(crate) counters: Vec<Counter>,
}

/// The findings of all rules that make one by themselves.
pub(crate) fn look(delta: &Delta, rules: &RuleSet, hits: &[Hit], failures: &Failures) -> Signatures {
    let mut groups: BTreeMap<(&str, &str, &str), Vec<&Hit>> = BTreeMap::new();
    for hit in hits {
        let rule = rules.rule(hit.rule);
        if matches!(rule.act, Act::Find(_)) {
            let host = &*delta.rows[hit.row].origin.host;
            groups.entry((&rule.group, host, discriminator(rule, hit))).or_default().push(hit);
        }
    }
    let mut signatures = Signatures::default();
    for ((group, host, discriminator), mut hits) in groups {
        let mut counted: BTreeMap<usize, bool> = BTreeMap::new();
        for hit in &hits {
            let Act::Find(threshold) = &rules.rule(hit.rule).act else { continue };
            counted.entry(hit.rule).or_insert_with(|| {
                if threshold.at_least <= 1 {
                    return true;
                }
                let rule = &rules.rule(hit.rule).id;
                let counter = key(&["rule", rule, host, discriminator]);
                let of_rule = hits.iter().filter(|other| other.rule == hit.rule);
                let (enough, counter) = enough(threshold, of_rule, failures.get(counter), counter);
                signatures.counters.push(counter);
                enough
            });
        }
        hits.retain(|hit| counted.get(&hit.rule).is_some_and(|enough| *enough));
        signatures.findings.extend(finding(delta, rules, &hits, group, discriminator));
    }
    signatures
}

fn discriminator<'h>(rule: &Rule, hit: &'h Hit) -> &'h str {
    let name = rule.discriminator.as_deref();
    name.and_then(|name| hit.captures.iter().find_map(|captures| captures.get(name))).unwrap_or_default()
}

/// Whether there were enough events of a rule, with those that the memory knows of.
fn enough<'h>(
    threshold: &Threshold,
    hits: impl Iterator<Item = &'h &'h Hit>,
    known: Option<&Counter>,
    key: u64,
) -> (bool, Counter) {
    let mut counter = known.cloned().unwrap_or(Counter { key, ..Counter::default() });
    let mut minutes: Histogram = counter.histogram();
    for hit in hits {
        minutes.merge(&hit.minutes);
        hit.minutes.iter().for_each(|(minute, n)| counter.add(minute, n));
    }
    (minutes.peak(threshold.minutes) >= u64::from(threshold.at_least), counter)
}

fn severity(rule: &Rule, hit: &Hit) -> Severity {
    let raised = rule.raise.iter().filter(|raise| hit.captures.iter().any(|captures| raise.when.holds(captures)));
    raised.map(|raise| raise.severity).max().unwrap_or(rule.severity).max(rule.severity)
}

fn finding(delta: &Delta, rules: &RuleSet, hits: &[&Hit], group: &str, discriminator: &str) -> Option<Finding> {
    let mut hits = hits.to_vec();
    hits.sort_by_key(|hit| (std::cmp::Reverse(severity(rules.rule(hit.rule), hit)), hit.row));
    let worst = *hits.first()?;
    let rule = rules.rule(worst.rule);
    let severity = severity(rule, worst);
    // First what the worst rule matched, then the rest, each with the most frequent first.
    let (mut rows, mut others): (BTreeSet<u32>, BTreeSet<u32>) = (BTreeSet::new(), BTreeSet::new());
    let mut entities = Entities::default();
    let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
    let mut first = Timestamp::MAX;
    let mut last = Timestamp::MIN;
    for hit in &hits {
        let row = &delta.rows[hit.row];
        let number = u32::try_from(hit.row).unwrap_or(u32::MAX);
        if hit.rule == worst.rule { &mut rows } else { &mut others }.insert(number);
        for (capture, kind, slot) in ENTITIES {
            for seen in values(row, hit, capture, *slot) {
                entities.add(*kind, &seen.value, seen.count);
            }
        }
        let count = counts.entry(hit.row).or_default();
        *count = (*count).max(hit.count);
        (first, last) = (first.min(row.first), last.max(row.last));
    }
    let mut entities = entities.ranked();
    let others = others.difference(&rows).copied().collect::<Vec<_>>();
    let mut rows: Vec<u32> = rows.into_iter().collect();
    busiest_first(delta, &mut rows);
    rows.extend(others);
    let cited = Cited::new(rows);
    let count = counts.values().fold(0, |sum: u64, n| sum.saturating_add(*n));
    let origin = &delta.rows[worst.row].origin;
    let fill = |name: &str| match name {
        "count" => Some(number(count)),
        "host" => Some(origin.host.to_string()),
        "service" => Some(origin.service.to_string()),
        "sources" => Some(sources(&entities)),
        name => worst.captures.iter().find_map(|captures| captures.get(name)).map(str::to_owned),
    };
    let (title, recommendation) = (rule.title.fill(fill), rule.next.fill_safely(fill));
    let mut explanation = rule.explanation.clone();
    explanation.push_str(&also(rules, &hits, worst));
    cited.explain(&mut explanation, &mut entities);
    Some(Finding {
        by: By::Rule { id: rule.id.clone() },
        profile: rule.profile.clone(),
        category: rule.category,
        severity,
        floor: Some(severity),
        route: Route::Alert,
        title,
        explanation,
        recommendation,
        absent: cited.subject(delta, "rule", group, discriminator),
        anomalous: cited.anomalous,
        rows: cited.rows,
        discriminator: discriminator.to_owned(),
        entities,
        score: 10.0 * f64::from(severity as u8 + 1),
        count,
        first,
        last,
    })
}

/// What else of the same group there was: a scanner tries many things, and is one finding.
fn also(rules: &RuleSet, hits: &[&Hit], worst: &Hit) -> String {
    let mut titles: Vec<String> = Vec::new();
    for hit in hits.iter().filter(|hit| hit.rule != worst.rule) {
        let fill = |name: &str| hit.captures.iter().find_map(|captures| captures.get(name)).map(str::to_owned);
        let title = rules.rule(hit.rule).title.fill(fill);
        if title != rules.rule(worst.rule).title.fill(fill) && !titles.contains(&title) {
            titles.push(title);
        }
    }
    match titles.len() {
        0 => String::new(),
        n if n > ALSO => format!(" Also: {}; and {} more.", titles[..ALSO].join("; "), n - ALSO),
        _ => format!(" Also: {}.", titles.join("; ")),
    }
}
