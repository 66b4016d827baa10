//! Too many failures of one address, user or host, and a success after them.

use std::collections::{BTreeMap, BTreeSet};

use logwarden_templates::{Delta, Histogram, LineId, SlotKind};

use crate::{
    By, Category, Entity, EntityKind, Failures, Finding, ProfileName, Route, Severity, Signal, SignalKind,
    failures::Counter,
    look::{Hit, values},
    rule::{Act, Class, Per},
    rules::RuleSet,
    signatures::{add, number, rank, sources},
};

/// What bursts have come to.
#[derive(Debug, Default)]
pub(crate) struct Bursts {
    pub(crate) findings: Vec<Finding>,
    pub(crate) signals: Vec<Signal>,
    /// Counters that have changed.
    pub(crate) counters: Vec<Counter>,
}

/// What failed in one class on one host.
#[derive(Default)]
struct Failed {
    rows: BTreeMap<usize, u64>,
    /// One failed attempt often makes several lines, each known to another rule: the rule with the most counts.
    by_rule: BTreeMap<usize, Counted>,
    partners: BTreeMap<String, BTreeSet<String>>,
}

/// What one rule has counted.
#[derive(Default)]
struct Counted {
    count: u64,
    minutes: Histogram,
    by: BTreeMap<String, Histogram>,
    entities: Vec<Entity>,
}

pub(crate) fn look(delta: &Delta, rules: &RuleSet, hits: &[Hit], failures: &Failures) -> Bursts {
    let mut bursts = Bursts::default();
    let mut failed: BTreeMap<(String, String), Failed> = BTreeMap::new();
    for hit in hits {
        let Act::Count(class) = &rules.rule(hit.rule).act else { continue };
        let Some(class) = rules.class(class) else { continue };
        let host = delta.rows[hit.row].origin.host.to_string();
        failed.entry((class.id.clone(), host)).or_default().take(delta, hit, class);
    }
    let mut counters: BTreeMap<u64, Counter> = BTreeMap::new();
    for ((class, host), failed) in &failed {
        let Some(class) = rules.class(class) else { continue };
        let mut worst: Option<(&String, u64)> = None;
        let mut burst = class.total.is_some_and(|total| failed.peak(class) >= u64::from(total));
        for (value, minutes) in failed.by_value() {
            let key = key(&class.id, host, value);
            let mut counter = failures.get(key).cloned().unwrap_or(Counter { key, ..Counter::default() });
            for (minute, n) in minutes.iter() {
                counter.add(minute, n);
            }
            for partner in failed.partners.get(value).into_iter().flatten() {
                counter.meet(hash32(partner));
            }
            let mut window = Histogram::default();
            window.merge(minutes);
            let mut all = Histogram::default();
            for (minute, n) in &counter.minutes {
                all.add(logwarden_templates::Timestamp::from_secs(minute * 60), *n);
            }
            let peak = all.peak(class.minutes).max(window.peak(class.minutes));
            let last = counter.minutes.last().map_or(0, |(minute, _)| *minute);
            burst |= peak >= u64::from(class.at_least)
                || class.slow.is_some_and(|slow| counter.total_until(last) >= u64::from(slow))
                || class.partners.is_some_and(|partners| counter.partners.len() >= partners as usize);
            if worst.is_none_or(|(_, most)| peak > most) {
                worst = Some((value, peak));
            }
            counters.insert(key, counter);
        }
        if burst {
            let signal = Signal {
                kind: SignalKind::Burst {
                    seen: worst.map_or_else(|| failed.peak(class), |(_, peak)| peak),
                    window_seconds: u64::from(class.minutes) * 60,
                },
                rows: failed.rows.keys().filter_map(|row| u32::try_from(*row).ok()).collect(),
                score: 8.0,
                entities: failed.entities().into_iter().take(5).collect(),
            };
            bursts.signals.push(signal);
            bursts.findings.extend(failed.finding(delta, class));
        }
    }
    for hit in hits {
        let Act::Success(class) = &rules.rule(hit.rule).act else { continue };
        if let Some(class) = rules.class(class)
            && let Some((finding, signal)) = success(delta, hit, class, &failed, &counters, failures)
        {
            bursts.findings.push(finding);
            bursts.signals.push(signal);
        }
    }
    bursts.counters = counters.into_values().collect();
    bursts
}

impl Failed {
    fn take(&mut self, delta: &Delta, hit: &Hit, class: &Class) {
        let row = &delta.rows[hit.row];
        let count = self.rows.entry(hit.row).or_default();
        *count = (*count).max(hit.count);
        let counted = self.by_rule.entry(hit.rule).or_default();
        counted.count += hit.count;
        counted.minutes.merge(&row.minutes);
        let addresses = values(row, hit, "ip", SlotKind::Ip);
        let users = values(row, hit, "user", SlotKind::User);
        for (kind, seen) in [(EntityKind::Ip, &addresses), (EntityKind::User, &users)] {
            seen.iter().for_each(|seen| add(&mut counted.entities, kind, &seen.value, seen.count));
        }
        let (own, others, one, other) = match class.per {
            Per::Ip => (addresses, users, "ip", "user"),
            Per::User => (users, addresses, "user", "ip"),
            Per::Host => {
                counted.by.entry(row.origin.host.to_string()).or_default().merge(&row.minutes);
                return;
            }
        };
        for seen in &own {
            counted.by.entry(seen.value.clone()).or_default().merge(&seen.minutes);
            if own.len() == 1 {
                let partners = self.partners.entry(seen.value.clone()).or_default();
                partners.extend(others.iter().map(|other| other.value.clone()));
            }
        }
        for captures in &hit.captures {
            if let (Some(one), Some(other)) = (captures.get(one), captures.get(other)) {
                self.partners.entry(one.to_owned()).or_default().insert(other.to_owned());
            }
        }
    }

    /// The most failures of all together in the class's window.
    fn peak(&self, class: &Class) -> u64 {
        self.by_rule.values().map(|counted| counted.minutes.peak(class.minutes)).max().unwrap_or(0)
    }

    /// For each value the counts of the rule that knows most about it.
    fn by_value(&self) -> BTreeMap<&String, &Histogram> {
        let total = |minutes: &Histogram| minutes.iter().map(|(_, n)| u64::from(n)).sum::<u64>();
        let mut best: BTreeMap<&String, &Histogram> = BTreeMap::new();
        for (value, minutes) in self.by_rule.values().flat_map(|counted| &counted.by) {
            let known = best.entry(value).or_insert(minutes);
            if total(minutes) > total(known) {
                *known = minutes;
            }
        }
        best
    }

    /// Addresses and users, each with the most that one rule has counted.
    fn entities(&self) -> Vec<Entity> {
        let mut entities: Vec<Entity> = Vec::new();
        for entity in self.by_rule.values().flat_map(|counted| &counted.entities) {
            match entities.iter_mut().find(|known| known.kind == entity.kind && known.value == entity.value) {
                Some(known) => known.count = known.count.max(entity.count),
                None => entities.push(entity.clone()),
            }
        }
        rank(&mut entities);
        entities
    }

    fn finding(&self, delta: &Delta, class: &Class) -> Option<Finding> {
        let count = self.by_rule.values().map(|counted| counted.count).max()?;
        let entities = self.entities();
        let many = class.many.is_some_and(|many| count >= u64::from(many));
        let severity = match (class.severity, many) {
            (Severity::Low, true) => Severity::Medium,
            (Severity::Medium, true) => Severity::High,
            (severity, _) => severity,
        };
        let mut rows: Vec<(usize, u64)> = self.rows.iter().map(|(row, count)| (*row, *count)).collect();
        rows.sort_by_key(|(row, count)| (std::cmp::Reverse(*count), *row));
        let rows: Vec<u32> = rows.into_iter().filter_map(|(row, _)| u32::try_from(row).ok()).collect();
        let from = sources(&entities);
        let first_ip =
            entities.iter().find(|entity| entity.kind == EntityKind::Ip).map(|entity| entity.value.to_string());
        let fill = |name: &str| match name {
            "count" => Some(number(count)),
            "sources" => Some(from.clone()),
            "ip" => first_ip.clone(),
            "by_user" => entities.iter().find(|e| e.kind == EntityKind::User).map(|e| format!(" as {}", e.value)),
            "most" => entities.first().map(|entity| format!("{} of them from {}", number(entity.count), entity.value)),
            _ => None,
        };
        let title = match &class.title {
            Some(title) => title.fill(fill),
            None => format!("{} {} from {from}", number(count), class.noun),
        };
        let of_rows = || self.rows.keys().map(|row| &delta.rows[*row]);
        Some(Finding {
            by: By::Rule { id: class.id.clone() },
            profile: class.profile.clone(),
            category: class.category,
            severity,
            floor: Some(severity),
            route: Route::Alert,
            title,
            explanation: class.explanation.clone(),
            recommendation: class.next.fill_safely(fill),
            anomalous: rows.clone(),
            rows,
            absent: Vec::new(),
            discriminator: String::new(),
            entities,
            score: 10.0 * f64::from(severity as u8 + 1) + (count as f64).ln_1p(),
            count,
            first: of_rows().map(|row| row.first).min()?,
            last: of_rows().map(|row| row.last).max()?,
        })
    }
}

/// A success of somebody whose failures before it would have been a burst.
fn success(
    delta: &Delta,
    hit: &Hit,
    class: &Class,
    failed: &BTreeMap<(String, String), Failed>,
    counters: &BTreeMap<u64, Counter>,
    failures: &Failures,
) -> Option<(Finding, Signal)> {
    let row = &delta.rows[hit.row];
    let host = row.origin.host.to_string();
    let capture = if class.per == Per::User { "user" } else { "ip" };
    let kind = if class.per == Per::User { SlotKind::User } else { SlotKind::Ip };
    let until = row.last.minute();
    let (who, before) = values(row, hit, capture, kind)
        .into_iter()
        .filter_map(|seen| {
            let key = key(&class.id, &host, &seen.value);
            let before = counters.get(&key).or_else(|| failures.get(key))?.total_until(until);
            (before >= u64::from(class.at_least)).then_some((seen.value, before))
        })
        .max_by_key(|(_, before)| *before)?;
    // The line itself names the user who got in; look for a sample with that address.
    let sample = hit.captures.iter().find(|captures| captures.get(capture) == Some(&who));
    let user = sample.and_then(|captures| captures.get("user")).unwrap_or("somebody").to_owned();
    let number_of = u32::try_from(hit.row).ok()?;
    let mut rows = vec![number_of];
    if let Some(failed) = failed.get(&(class.id.clone(), host)) {
        rows.extend(failed.rows.keys().filter_map(|row| u32::try_from(*row).ok()).filter(|row| *row != number_of));
    }
    let mut entities = vec![Entity { kind: EntityKind::User, value: user.as_str().into(), count: 1 }];
    if class.per != Per::User {
        entities.insert(0, Entity { kind: EntityKind::Ip, value: who.as_str().into(), count: before + 1 });
    }
    let next = format!(
        "Find out whether that was really {}: `last -a | head -n 20` and `w`. If not, take the machine off the network before anything else.",
        if user == "somebody" { "a person you know" } else { "that person" }
    );
    let finding = Finding {
        by: By::Rule { id: format!("{}-success", class.id) },
        profile: ProfileName::security(),
        category: Category::UnusualLogin,
        severity: Severity::Critical,
        floor: Some(Severity::Critical),
        route: Route::Alert,
        title: format!("Login as {user} from {who} succeeded after {} failures", number(before)),
        explanation:
            "Somebody failed again and again and then got in: a guessed password, or a person who had forgotten theirs."
                .to_owned(),
        recommendation: next,
        anomalous: vec![number_of],
        rows: rows.clone(),
        absent: Vec::new(),
        discriminator: String::new(),
        entities: entities.clone(),
        score: 60.0,
        count: row.count.min(hit.count),
        first: row.first,
        last: row.last,
    };
    let kind = SignalKind::SuccessAfterFailures { failures: before };
    Some((finding, Signal { kind, rows: vec![number_of], score: 20.0, entities }))
}

fn key(class: &str, host: &str, value: &str) -> u64 {
    (LineId::of(&[class.as_bytes(), host.as_bytes(), value.as_bytes()]).bits() >> 64) as u64
}

fn hash32(value: &str) -> u32 {
    (LineId::of(&[value.as_bytes()]).bits() >> 96) as u32
}
