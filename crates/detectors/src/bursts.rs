//! Too many failures of one address, user or host, and a success after them.

use std::collections::{BTreeMap, BTreeSet};

use logwarden_templates::{Delta, Histogram, LineId, Row, SlotKind, Timestamp};

use crate::{
    By, Category, Entity, EntityKind, Failures, Finding, ProfileName, Route, Severity, Signal, SignalKind, address,
    claim::{Cited, Entities, number, sources},
    failures::{Counter, key},
    look::{Hit, Seen, values},
    rule::{Act, Class, Per},
    rules::RuleSet,
};

/// Entities of a signal.
const SHOWN: usize = 5;

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
    entities: Entities,
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
        // The most that is remembered of one of those that make the burst.
        let mut most = 0;
        let mut burst = class.total.is_some_and(|total| failed.peak(class) >= u64::from(total));
        for (value, minutes) in failed.by_value() {
            let key = key(&[&class.id, host, value]);
            let mut counter = failures.get(key).cloned().unwrap_or(Counter { key, ..Counter::default() });
            for (minute, n) in minutes.iter() {
                counter.add(minute, n);
            }
            for partner in failed.partners.get(value).into_iter().flatten() {
                counter.meet(hash32(partner));
            }
            let peak = counter.histogram().peak(class.minutes).max(minutes.peak(class.minutes));
            if peak >= u64::from(class.at_least)
                || class.slow.is_some_and(|slow| counter.total() >= u64::from(slow))
                || class.partners.is_some_and(|partners| counter.partners.len() >= partners as usize)
            {
                burst = true;
                most = most.max(counter.total());
            }
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
                entities: failed.entities().into_iter().take(SHOWN).collect(),
            };
            bursts.signals.push(signal);
            bursts.findings.extend(failed.finding(delta, class, most));
        }
    }
    for hit in hits {
        let Act::Success(class) = &rules.rule(hit.rule).act else { continue };
        if let Some(class) = rules.class(class)
            && let Some((finding, signal)) = success(delta, rules, hits, hit, class, &counters, failures)
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
        counted.minutes.merge(&hit.minutes);
        let addresses = values(row, hit, "ip", SlotKind::Ip);
        let users = values(row, hit, "user", SlotKind::User);
        for (kind, seen) in [(EntityKind::Ip, &addresses), (EntityKind::User, &users)] {
            seen.iter().for_each(|seen| counted.entities.add(kind, &seen.value, seen.count));
        }
        let ports = values(row, hit, "port", SlotKind::Num);
        let (own, others, one, other) = match class.per {
            Per::Ip if users.is_empty() => (addresses, ports, "ip", "port"),
            Per::Ip => (addresses, users, "ip", "user"),
            Per::User => (users, addresses, "user", "ip"),
            Per::Host => {
                counted.by.entry(row.origin.host.to_string()).or_default().merge(&hit.minutes);
                return;
            }
        };
        if own.is_empty() {
            // Nobody is named: they count together.
            counted.by.entry(String::new()).or_default().merge(&hit.minutes);
        }
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
        let mut entities = Entities::default();
        self.by_rule.values().for_each(|counted| entities.max(&counted.entities));
        entities.ranked()
    }

    fn finding(&self, delta: &Delta, class: &Class, remembered: u64) -> Option<Finding> {
        let count = self.by_rule.values().map(|counted| counted.count).max()?;
        // Those that came before this delta belong to the story.
        let told = count.max(remembered);
        let mut entities = self.entities();
        let many = class.many.is_some_and(|many| count >= u64::from(many));
        let severity = match (class.severity, many) {
            (Severity::Low, true) => Severity::Medium,
            (Severity::Medium, true) => Severity::High,
            (severity, _) => severity,
        };
        let from_inside = || entities.iter().find(|e| e.kind == EntityKind::Ip).is_some_and(|e| is_inside(&e.value));
        let severity = class.inside.filter(|_| from_inside()).map_or(severity, |inside| severity.max(inside));
        let mut rows: Vec<(usize, u64)> = self.rows.iter().map(|(row, count)| (*row, *count)).collect();
        rows.sort_by_key(|(row, count)| (std::cmp::Reverse(*count), *row));
        let cited = Cited::new(rows.into_iter().filter_map(|(row, _)| u32::try_from(row).ok()).collect());
        let from = sources(&entities);
        let first_ip =
            entities.iter().find(|entity| entity.kind == EntityKind::Ip).map(|entity| entity.value.to_string());
        let fill = |name: &str| match name {
            "count" => Some(number(told)),
            "sources" => Some(from.clone()),
            "ip" => first_ip.clone(),
            "by_user" => entities.iter().find(|e| e.kind == EntityKind::User).map(|e| format!(" as {}", e.value)),
            "most" => entities.first().map(|entity| format!("such as from {}", entity.value)),
            _ => None,
        };
        let title = match &class.title {
            Some(title) => title.fill(fill),
            // No count: the incident goes on, and counts its events itself.
            None => capitalised(&format!("{} from {from}", class.noun)),
        };
        let recommendation = class.next.fill_safely(fill);
        let mut explanation = class.explanation.clone();
        cited.explain(&mut explanation, &mut entities);
        let of_rows = || self.rows.keys().map(|row| &delta.rows[*row]);
        Some(Finding {
            by: By::Rule { id: class.id.clone() },
            profile: class.profile.clone(),
            category: class.category,
            severity,
            floor: Some(severity),
            route: Route::Alert,
            title,
            explanation,
            recommendation,
            absent: cited.subject(delta, "class", &class.id, ""),
            anomalous: cited.anomalous,
            rows: cited.rows,
            discriminator: String::new(),
            entities,
            score: 10.0 * f64::from(severity as u8 + 1) + (count as f64).ln_1p(),
            count,
            first: of_rows().map(|row| row.first).min()?,
            last: of_rows().map(|row| row.last).max()?,
        })
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// A success of somebody whose failures before it would have been a burst.
fn success(
    delta: &Delta,
    rules: &RuleSet,
    hits: &[Hit],
    hit: &Hit,
    class: &Class,
    counters: &BTreeMap<u64, Counter>,
    failures: &Failures,
) -> Option<(Finding, Signal)> {
    let row = &delta.rows[hit.row];
    let host = row.origin.host.to_string();
    let (capture, kind) = if class.per == Per::User { ("user", SlotKind::User) } else { ("ip", SlotKind::Ip) };
    let (who, before) = values(row, hit, capture, kind)
        .into_iter()
        .filter(|seen| !seen.value.is_empty())
        .filter_map(|seen| {
            let key = key(&[&class.id, &host, &seen.value]);
            let counter = counters.get(&key).or_else(|| failures.get(key))?;
            let time = latest(row, &seen);
            let of_class = |other: &&Hit| {
                matches!(&rules.rule(other.rule).act, Act::Count(of) if *of == class.id)
                    && delta.rows[other.row].origin.host == row.origin.host
            };
            let within = hits.iter().filter(of_class).map(|other| {
                let failures = values(&delta.rows[other.row], other, capture, kind);
                let own = failures.iter().find(|failure| failure.value == seen.value);
                (other.rule, own.map_or(0, |failure| until(&delta.rows[other.row], failure, time)))
            });
            let mut by_rule: BTreeMap<usize, u64> = BTreeMap::new();
            within.for_each(|(rule, n)| *by_rule.entry(rule).or_default() += n);
            // What was read earlier came before, in the same minute, too.
            let read_before = failures.get(key).map_or(0, |counter| counter.in_minute(time.minute()));
            let within = read_before + by_rule.into_values().max().unwrap_or(0);
            let before = counter.total_before(time.minute(), within);
            (before >= u64::from(class.at_least)).then_some((seen.value, before))
        })
        .max_by_key(|(_, before)| *before)?;
    // The line itself names the user who got in; look for a sample with that address.
    let sample = hit.captures.iter().find(|captures| captures.get(capture) == Some(&who));
    let user = sample.and_then(|captures| captures.get("user")).unwrap_or("somebody").to_owned();
    let number_of = u32::try_from(hit.row).ok()?;
    let mut rows = vec![number_of];
    let of_class = |other: &&Hit| matches!(&rules.rule(other.rule).act, Act::Count(of) if *of == class.id);
    for other in hits.iter().filter(of_class) {
        let of_row = &delta.rows[other.row];
        let theirs = of_row.origin.host == row.origin.host
            && values(of_row, other, capture, kind).iter().any(|seen| seen.value == who);
        if let Some(number) = u32::try_from(other.row).ok().filter(|number| theirs && !rows.contains(number)) {
            rows.push(number);
        }
    }
    let rows = Cited::new(rows).rows;
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
        rows,
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

/// When a value occurred last in a row, as far as its minutes tell.
fn latest(row: &Row, seen: &Seen) -> Timestamp {
    let minute = seen.minutes.iter().last().map_or(row.last.minute(), |(minute, _)| minute);
    if row.last.minute() == minute { row.last } else { Timestamp::from_secs(minute.saturating_mul(60) + 59) }
}

/// How many of the failures in the minute of `time` came before it, if they came evenly.
fn until(row: &Row, failure: &Seen, time: Timestamp) -> u64 {
    let minute = time.minute();
    let n = failure.minutes.iter().find(|(of, _)| *of == minute).map_or(0, |(_, n)| u64::from(n));
    let begin = row.first.nanos().max(Timestamp::from_secs(minute.saturating_mul(60)).nanos());
    let end = row.last.nanos().min(Timestamp::from_secs(minute.saturating_mul(60) + 60).nanos());
    match time.nanos() {
        time if time >= end => n,
        time if time < begin => 0,
        time => (i128::from(n) * i128::from(time - begin) / i128::from((end - begin).max(1))) as u64,
    }
}

/// Whether an address is one of our own networks'.
fn is_inside(text: &str) -> bool {
    address::canonical(text).is_some_and(|text| address::network(&text).is_none() && !text.starts_with("127."))
}

fn hash32(value: &str) -> u32 {
    (LineId::of(&[value.as_bytes()]).bits() >> 96) as u32
}
