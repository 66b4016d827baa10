//! What is normal, learned, and what departs from it: new, surging, silent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use logwarden_templates::{Delta, Level, LineId, Origin, RootId, Row, SlotKind, Timestamp};

use crate::{
    By, Category, Entity, EntityKind, Finding, Learned, Memory, MemoryKey, MemoryRow, ProfileName, Route, RuleSet,
    Settings, Severity, Signal, SignalKind, Subject,
    detect::Baseline,
    look::{Hit, values},
    memory::ORIGIN,
    signatures::number,
    stats::Rate,
};

/// Five-minute buckets that a rate must have seen before it can be exceeded: an hour.
const ENOUGH_BUCKETS: u32 = 12;
/// Fewer events than this are no surge.
const FEWEST: u64 = 10;
/// Nor is less than so many times the expectation.
const TIMES: f64 = 3.0;
/// Gaps that must have been seen before silence means something.
const ENOUGH_GAPS: u32 = 30;

/// A line is regular when its gaps spread by no more than this share of their mean.
const REGULAR: f64 = 0.5;

/// What departs from normal.
pub(crate) struct Departures {
    pub(crate) signals: Vec<Signal>,
    pub(crate) findings: Vec<Finding>,
}

/// Compares `delta` with the memory. `covered` are rows that a rule has spoken for, or that are benign.
pub(crate) fn compare(
    delta: &Delta,
    memory: &Memory,
    settings: &Settings,
    baseline: Baseline,
    covered: &BTreeSet<usize>,
) -> Departures {
    let mut departures = Departures { signals: Vec::new(), findings: Vec::new() };
    if baseline == Baseline::SelfRelative {
        departures.findings.extend(errors(delta, covered));
        return departures;
    }
    // A thousand templates are tested 288 times a day.
    let probability = settings.false_alarms_per_day / 288_000.0;
    for (number, row) in (0_u32..).zip(&delta.rows) {
        let known = memory.get(MemoryKey::of(&row.origin, row.root));
        let benign = covered.contains(&(number as usize));
        match known {
            // A leaf below a general root has been seen in another form, an evicted one before.
            None if row.root == row.leaf.as_root() && !delta.returned.contains(&row.leaf) => {
                departures.signals.push(signal(SignalKind::Novel, number, 3.0));
                if baseline == Baseline::Learned && !benign && row.level >= Some(Level::Error) {
                    departures.findings.push(novel(row, number));
                }
            }
            None => {}
            Some(known) => {
                let seen = row.minutes.peak(5);
                let whole = memory.get(MemoryKey::of(&row.origin, ORIGIN));
                let factor =
                    whole.and_then(|row| row.stats.profile.as_ref()).map_or(1.0, |p| p.factor(row.last.secs() / 3600));
                let expected = f64::from(known.stats.rate.mean) * factor;
                let enough =
                    known.stats.rate.closed >= ENOUGH_BUCKETS && seen >= FEWEST && seen as f64 >= TIMES * expected;
                if enough && tail(&known.stats.rate, factor, seen) < probability {
                    departures.signals.push(signal(SignalKind::Surge { expected, seen }, number, 6.0));
                    if baseline == Baseline::Learned && !benign {
                        departures.findings.push(surge(row, number, seen, expected));
                    }
                }
            }
        }
    }
    departures
}

fn signal(kind: SignalKind, row: u32, score: f64) -> Signal {
    Signal { kind, rows: vec![row], score, entities: Vec::new() }
}

fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(100).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn by_detector(name: &str) -> By {
    By::Detector { name: name.to_owned() }
}

fn novel(row: &Row, number: u32) -> Finding {
    let severity = if row.level >= Some(Level::Critical) { Severity::High } else { Severity::Medium };
    Finding {
        by: by_detector("novel"),
        profile: ProfileName::general(),
        category: Category::NewPattern,
        severity,
        floor: Some(Severity::Medium),
        route: Route::Alert,
        title: format!("New error of {}: {}", service(&row.origin), excerpt(&row.template)),
        explanation: "This kind of error has never been seen from this service before.".to_owned(),
        recommendation: "Read the lines around it, and what was changed just before.".to_owned(),
        rows: vec![number],
        anomalous: vec![number],
        absent: Vec::new(),
        discriminator: String::new(),
        entities: Vec::new(),
        score: 5.0,
        count: row.count,
        first: row.first,
        last: row.last,
    }
}

fn surge(row: &Row, number_of: u32, seen: u64, expected: f64) -> Finding {
    let bad = row.level >= Some(Level::Warn);
    Finding {
        by: by_detector("surge"),
        profile: ProfileName::performance(),
        category: Category::ErrorRate,
        severity: if bad { Severity::Medium } else { Severity::Low },
        floor: Some(Severity::Low),
        route: if bad { Route::Alert } else { Route::Digest },
        title: format!("{} says the same far more often than usual", service(&row.origin)),
        explanation: format!(
            "{} times in five minutes; about {expected:.1} would be usual: {}",
            number(seen),
            excerpt(&row.template)
        ),
        recommendation: "See what else changed at that time.".to_owned(),
        rows: vec![number_of],
        anomalous: vec![number_of],
        absent: Vec::new(),
        discriminator: String::new(),
        entities: Vec::new(),
        score: 4.0,
        count: row.count,
        first: row.first,
        last: row.last,
    }
}

/// Without a memory: error lines that no rule knows, one finding per origin, for lists only.
fn errors(delta: &Delta, covered: &BTreeSet<usize>) -> Vec<Finding> {
    let mut by_origin: BTreeMap<&Arc<Origin>, Vec<u32>> = BTreeMap::new();
    for (number, row) in delta.rows.iter().enumerate() {
        if row.level >= Some(Level::Error) && !covered.contains(&number) {
            by_origin.entry(&row.origin).or_default().extend(u32::try_from(number));
        }
    }
    let finding = |(origin, mut rows): (&Arc<Origin>, Vec<u32>)| {
        rows.sort_by_key(|row| std::cmp::Reverse(delta.rows[*row as usize].count));
        let of_rows = || rows.iter().map(|row| &delta.rows[*row as usize]);
        let count: u64 = of_rows().map(|row| row.count).sum();
        let top = of_rows().next().map(|row| excerpt(&row.template)).unwrap_or_default();
        let plural = if count == 1 { "error" } else { "errors" };
        Some(Finding {
            by: by_detector("errors"),
            profile: ProfileName::general(),
            category: Category::Other,
            severity: Severity::Low,
            floor: None,
            route: Route::Digest,
            title: format!("{} {plural} of {}: {top}", number(count), service(origin)),
            explanation: "Lines that call themselves errors and that no rule knows.".to_owned(),
            recommendation: "Decide whether they matter; mute them if they do not.".to_owned(),
            anomalous: rows.clone(),
            absent: Vec::new(),
            discriminator: String::new(),
            entities: Vec::new(),
            score: 1.0,
            count,
            first: of_rows().map(|row| row.first).min()?,
            last: of_rows().map(|row| row.last).max()?,
            rows,
        })
    };
    by_origin.into_iter().filter_map(finding).collect()
}

fn service(origin: &Origin) -> String {
    if origin.service.is_empty() { "a service".to_owned() } else { origin.service.to_string() }
}

/// The probability of `seen` or more in five minutes when the rate is as it always was: negative binomial, with the
/// measured dispersion but at least a little, since logs never are a Poisson process.
fn tail(rate: &Rate, factor: f64, seen: u64) -> f64 {
    let mean = (f64::from(rate.mean) * factor).max(0.05);
    let dispersion = rate.dispersion().max(0.3);
    let r = 1.0 / dispersion;
    let p = r / (r + mean);
    let mut term = p.powf(r);
    let mut below = 0.0;
    for k in 0..seen.min(100_000) {
        below += term;
        term *= (k as f64 + r) / (k as f64 + 1.0) * (1.0 - p);
    }
    (1.0 - below).max(0.0)
}

/// What the memory learns from a delta.
pub(crate) fn learn(delta: &Delta, memory: &Memory) -> Learned {
    let mut source = memory.source().clone();
    let mut rows: HashMap<MemoryKey, MemoryRow> = HashMap::new();
    let mut removed = Vec::new();
    let rows_of = |origin: &Origin, root: RootId| MemoryKey::of(origin, root);
    // What was known about a leaf belongs to its new root.
    for step in &delta.moves {
        let from = step.from.unwrap_or(step.leaf.as_root());
        for row in delta.rows.iter().filter(|row| row.root == step.to) {
            let old = rows_of(&row.origin, from);
            if from != step.to
                && let Some(known) = memory.get(old)
                && !removed.contains(&old)
            {
                let key = rows_of(&row.origin, step.to);
                let target = rows.entry(key).or_insert_with(|| {
                    memory.get(key).cloned().unwrap_or_else(|| MemoryRow {
                        root: step.to,
                        template: row.template.clone(),
                        count: 0,
                        ..known.clone()
                    })
                });
                target.first = target.first.min(known.first);
                target.last = target.last.max(known.last);
                target.count += known.count;
                target.stats.merge(&known.stats);
                removed.push(old);
            }
        }
    }
    for row in &delta.rows {
        let key = rows_of(&row.origin, row.root);
        let known = rows.entry(key).or_insert_with(|| {
            let fresh = || MemoryRow::new(row.origin.clone(), row.root, row.template.clone(), row.first);
            memory.get(key).cloned().unwrap_or_else(fresh)
        });
        if known.count > 0 {
            known.stats.gaps.add(row.first.secs() - known.last.secs());
        }
        for (minute, n) in row.minutes.iter() {
            known.stats.rate.add(Rate::bucket_of_minute(minute), n);
            known.stats.hours.mark(minute.div_euclid(60));
        }
        known.first = known.first.min(row.first);
        known.last = known.last.max(row.last);
        known.count += row.count;
        known.stats.silent_since = None;
        source.first = Some(source.first.map_or(row.first, |first| first.min(row.first)));
        source.last = Some(source.last.map_or(row.last, |last| last.max(row.last)));
    }
    learn_origins(delta, memory, &mut rows);
    source.lines += delta.counts.kept;
    Learned { rows: rows.into_iter().collect(), removed, source }
}

/// Busy hours and the share of warnings, per origin as a whole.
fn learn_origins(delta: &Delta, memory: &Memory, rows: &mut HashMap<MemoryKey, MemoryRow>) {
    let mut levels: HashMap<MemoryKey, (u64, u64)> = HashMap::new();
    for row in &delta.rows {
        let key = MemoryKey::of(&row.origin, ORIGIN);
        let whole = rows.entry(key).or_insert_with(|| {
            let fresh = || MemoryRow::new(row.origin.clone(), ORIGIN, "".into(), row.first);
            memory.get(key).cloned().unwrap_or_else(fresh)
        });
        let profile = whole.stats.profile.get_or_insert_default();
        for (minute, n) in row.minutes.iter() {
            profile.add(minute.div_euclid(60), n);
        }
        whole.count += row.count;
        whole.last = whole.last.max(row.last);
        let (bad, all) = levels.entry(key).or_default();
        *all += row.count;
        *bad += if row.level >= Some(Level::Warn) { row.count } else { 0 };
    }
    for (key, (bad, all)) in levels {
        if let Some(profile) = rows.get_mut(&key).and_then(|row| row.stats.profile.as_mut()) {
            profile.learn_levels(bad, all);
        }
    }
}

/// Values that a slot which should be stable never had: a new user, a new address in logins. Learns them, too.
pub(crate) fn new_values(
    delta: &Delta,
    rules: &RuleSet,
    hits: &[Hit],
    memory: &Memory,
    learned: &mut Learned,
    baseline: Baseline,
) -> Departures {
    let mut departures = Departures { signals: Vec::new(), findings: Vec::new() };
    for hit in hits {
        let rule = rules.rule(hit.rule);
        let row = &delta.rows[hit.row];
        let key = MemoryKey::of(&row.origin, row.root);
        let Ok(number) = u32::try_from(hit.row) else { continue };
        for capture in &rule.watch {
            let kind = if capture == "user" { SlotKind::User } else { SlotKind::Ip };
            for seen in values(row, hit, capture, kind) {
                let hash = (LineId::of(&[capture.as_bytes(), seen.value.as_bytes()]).bits() >> 96) as u32;
                let known = memory.get(key).map(|known| &known.stats.values);
                let stable =
                    known.is_some_and(|values| !values.overflowed && !values.known.is_empty() && values.busiest < 4);
                // Whoever logs in in another way today is no stranger.
                let elsewhere =
                    || memory.rows().any(|(_, other)| other.origin == row.origin && other.stats.values.knows(hash));
                let is_new = stable && known.is_some_and(|values| !values.knows(hash)) && !elsewhere();
                if let Some((_, row)) = learned.rows.iter_mut().find(|(of, _)| *of == key) {
                    row.stats.values.learn(hash, row.last.secs().div_euclid(86_400));
                }
                if is_new {
                    let kind = if capture == "user" { EntityKind::User } else { EntityKind::Ip };
                    let entity = Entity { kind, value: seen.value.as_str().into(), count: seen.count };
                    let entities = vec![entity];
                    let signal = Signal {
                        kind: SignalKind::NewValue,
                        rows: vec![number],
                        score: 4.0,
                        entities: entities.clone(),
                    };
                    departures.signals.push(signal);
                    // A new user is worth a look; addresses of people change all the time.
                    if baseline == Baseline::Learned && capture == "user" {
                        departures.findings.push(new_user(row, number, &seen.value, entities));
                    }
                }
            }
        }
    }
    departures
}

fn new_user(row: &Row, number: u32, user: &str, entities: Vec<Entity>) -> Finding {
    Finding {
        by: by_detector("new-value"),
        profile: ProfileName::security(),
        category: Category::UnusualLogin,
        severity: Severity::Medium,
        floor: Some(Severity::Low),
        route: Route::Alert,
        title: format!("{user} is new here: {}", service(&row.origin)),
        explanation: "This user has never been seen in these lines before.".to_owned(),
        recommendation: "See whether that person is expected: `last -a | head -n 20`.".to_owned(),
        rows: vec![number],
        anomalous: vec![number],
        absent: Vec::new(),
        discriminator: String::new(),
        entities,
        score: 4.0,
        count: row.count,
        first: row.first,
        last: row.last,
    }
}

/// Templates that used to come regularly and have stopped while the source goes on: one finding per origin. Notes in
/// `learned` that it was told.
pub(crate) fn silence(memory: &Memory, learned: &mut Learned) -> Vec<Finding> {
    let Some(now) = learned.source.last else { return Vec::new() };
    let seen: BTreeSet<MemoryKey> = learned.rows.iter().map(|(key, _)| *key).collect();
    let mut silent: BTreeMap<Arc<Origin>, Vec<(MemoryKey, MemoryRow, Duration)>> = BTreeMap::new();
    for (key, row) in memory.rows() {
        if seen.contains(&key) || row.is_origin() || row.stats.silent_since.is_some() {
            continue;
        }
        let gaps = &row.stats.gaps;
        let quiet = now.since(row.last);
        let longest = (5.0 * f64::from(gaps.mean))
            .max(f64::from(gaps.mean) + 6.0 * gaps.spread())
            .max(1.5 * f64::from(gaps.longest));
        let (spread, mean) = (gaps.spread(), f64::from(gaps.mean));
        // What comes by chance has long gaps by chance, and longer ones by night: much more patience is needed then.
        let longest = match () {
            () if gaps.n < ENOUGH_GAPS => continue,
            () if spread <= REGULAR * mean => longest,
            () if spread <= 3.0 * mean && gaps.n >= 10 * ENOUGH_GAPS => {
                longest.max(20.0 * mean).max(3.0 * f64::from(gaps.longest))
            }
            () => continue,
        };
        let regular = row.stats.hours.active_before(now.secs() / 3600) >= 3;
        if regular && quiet.as_secs_f64() > longest.max(600.0) {
            silent.entry(row.origin.clone()).or_default().push((key, row.clone(), quiet));
        }
    }
    let mut findings = Vec::new();
    for (origin, rows) in silent {
        let absent: Vec<Subject> = rows
            .iter()
            .map(|(_, row, _)| Subject {
                origin: row.origin.clone(),
                leaf: None,
                root: row.root,
                template: row.template.clone(),
                last: row.last,
            })
            .collect();
        let last = rows.iter().map(|(_, row, _)| row.last).max().unwrap_or(Timestamp::MIN);
        let quiet = rows.iter().map(|(_, _, quiet)| *quiet).min().unwrap_or_default();
        let what = rows.first().map(|(_, row, _)| excerpt(&row.template)).unwrap_or_default();
        findings.push(Finding {
            by: by_detector("silence"),
            profile: ProfileName::general(),
            category: Category::Silence,
            severity: Severity::Medium,
            floor: Some(Severity::Low),
            route: Route::Alert,
            title: format!("{} has gone quiet: {what}", service(&origin)),
            explanation: format!("A line that came regularly has not come for {} minutes.", quiet.as_secs() / 60),
            recommendation: "See whether the service still does its work.".to_owned(),
            rows: Vec::new(),
            anomalous: Vec::new(),
            absent,
            discriminator: String::new(),
            entities: Vec::new(),
            score: 4.0,
            count: 0,
            first: last,
            last: now,
        });
        for (key, mut row, _) in rows {
            row.stats.silent_since = Some(now);
            learned.rows.push((key, row));
        }
    }
    findings
}
