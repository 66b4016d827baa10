//! What is normal, learned, and what departs from it: new, surging.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::BuildHasher,
    sync::Arc,
};

use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};
use logwarden_templates::{Delta, Histogram, LeafId, Level, LineId, Origin, RootId, Row, SlotKind, Timestamp};

use crate::{
    By, Category, Entity, EntityKind, Finding, Learned, Memory, MemoryKey, MemoryRow, ProfileName, Read, Route,
    RuleSet, Settings, Severity, Signal, SignalKind, Subject,
    claim::{self, Cited, busiest_first, number},
    look::{Hit, values},
    memory::{HOST, ORIGIN},
    recall::Recall,
    settings::Baseline,
    stats::{Levels, Rate},
};

/// Five-minute buckets that a rate must have seen before it can be exceeded: an hour.
const ENOUGH_BUCKETS: u32 = 12;
/// Fewer events than this are no surge.
const FEWEST: u64 = 10;
/// Nor is less than so many times the expectation.
const TIMES: f64 = 3.0;

/// Events of an origin that its usual share of errors must rest on.
const MIX_KNOWN: f64 = 500.0;
/// Fewer warnings and errors than this are no change of the mix.
const MIX_FEWEST: u64 = 20;
/// So much must the share have grown.
const MIX_MORE: f64 = 0.15;
/// And so many standard deviations must it be away from the usual.
const MIX_DEVIATIONS: f64 = 5.0;

/// What departs from normal.
pub(crate) struct Departures {
    pub(crate) signals: Vec<Signal>,
    pub(crate) findings: Vec<Finding>,
}

/// Compares `delta` with the memory. `covered` are rows that a rule has spoken for, or that are benign.
pub(crate) fn compare(
    delta: &Delta,
    memory: &Memory,
    recall: &Recall<'_, '_>,
    settings: &Settings,
    baseline: Baseline,
    covered: &BTreeSet<usize>,
    read: &Read,
) -> Departures {
    let mut departures = Departures { signals: Vec::new(), findings: Vec::new() };
    if baseline == Baseline::SelfRelative {
        departures.findings.extend(errors(delta, covered));
        return departures;
    }
    // At the very first look everything is new, which says nothing about any of it: a model would be told that each row
    // stands out.
    let first = baseline == Baseline::Warming && memory.source().first.is_none();
    // A thousand templates are tested 288 times a day.
    let probability = settings.false_alarms_per_day / 288_000.0;
    let returned: HashSet<LeafId> = delta.returned.iter().copied().collect();
    let mut new_errors: BTreeMap<&Arc<Origin>, Vec<u32>> = BTreeMap::new();
    for ((number, row), (at, (_, known))) in (0_u32..).zip(&delta.rows).zip(recall.rows.iter().enumerate()) {
        let benign = || covered.contains(&at);
        match known {
            // A leaf below a general root has been seen in another form, an evicted one before.
            None if !first && row.root == row.leaf.as_root() && !returned.contains(&row.leaf) => {
                departures.signals.push(signal(SignalKind::Novel, number, 3.0));
                if baseline == Baseline::Learned && row.level >= Some(Level::Error) && !benign() {
                    new_errors.entry(&row.origin).or_default().push(number);
                }
            }
            None => {}
            Some(known) if known.stats.rate.closed < ENOUGH_BUCKETS || row.count < FEWEST => {}
            Some(known) => {
                let seen = row.minutes.peak(5);
                let (_, (_, whole)) = recall.origins[recall.origin_of[at]];
                let factor =
                    whole.and_then(|row| row.stats.profile.as_ref()).map_or(1.0, |p| p.factor(row.last.secs() / 3600));
                let expected = f64::from(known.stats.rate.mean) * factor;
                let enough = seen >= FEWEST && seen as f64 >= TIMES * expected;
                if enough && tail(&known.stats.rate, factor, seen) < probability {
                    departures.signals.push(signal(SignalKind::Surge { expected, seen }, number, 6.0));
                    if baseline == Baseline::Learned && !benign() {
                        departures.findings.push(surge(row, number, seen, expected));
                    }
                }
            }
        }
    }
    departures.findings.extend(new_errors.into_values().filter_map(|rows| novel(delta, rows)));
    if baseline == Baseline::Learned {
        level_mix(delta, recall, covered, read, &mut departures);
    }
    departures
}

/// Origins of which a far greater share than usual are warnings and errors: what many templates say together.
fn level_mix(
    delta: &Delta,
    recall: &Recall<'_, '_>,
    covered: &BTreeSet<usize>,
    read: &Read,
    departures: &mut Departures,
) {
    let mut origins = vec![(0_u64, 0_u64, Timestamp::MIN, Vec::new()); recall.origins.len()];
    for ((number, row), origin) in delta.rows.iter().enumerate().zip(&recall.origin_of) {
        let Some((all, bad, last, rows)) = origins.get_mut(*origin) else { continue };
        *all = all.saturating_add(row.count);
        *last = (*last).max(row.last);
        // What a rule has spoken for is told already.
        if is_bad(row) && !covered.contains(&number) {
            *bad = bad.saturating_add(row.count);
            rows.extend(u32::try_from(number));
        }
    }
    for ((all, bad, last, mut rows), (origin, (_, whole))) in origins.into_iter().zip(&recall.origins) {
        let Some(profile) = whole.and_then(|row| row.stats.profile.as_ref()).filter(|_| !rows.is_empty()) else {
            continue;
        };
        // With what came earlier in these five minutes: a shipper sends every second.
        let now = levels(last.min(read.now), bad, all);
        let earlier = if profile.levels.bucket == now.bucket { profile.levels } else { Levels::default() };
        let (bad, all) = (now.bad.saturating_add(earlier.bad), now.all.saturating_add(earlier.all));
        let usual = f64::from(profile.bad_share);
        let share = bad as f64 / all.max(1) as f64;
        let known = f64::from(profile.events) >= MIX_KNOWN && bad >= MIX_FEWEST;
        if !known || share < (TIMES * usual).max(usual + MIX_MORE) {
            continue;
        }
        // Logs come in clumps: four times the variance of a fair coin.
        let spread = (4.0 * all as f64 * usual.max(0.005) * (1.0 - usual)).sqrt();
        let score = (bad as f64 - all as f64 * usual) / spread.max(1.0);
        if score < MIX_DEVIATIONS {
            continue;
        }
        busiest_first(delta, &mut rows);
        departures.signals.push(Signal {
            kind: SignalKind::LevelMix,
            rows: rows.iter().copied().take(claim::ROWS).collect(),
            score,
            entities: Vec::new(),
        });
        departures.findings.extend(more_errors(delta, origin, rows, bad, share, usual));
    }
}

fn more_errors(
    delta: &Delta,
    origin: &Arc<Origin>,
    rows: Vec<u32>,
    bad: u64,
    share: f64,
    usual: f64,
) -> Option<Finding> {
    let cited = Cited::new(rows);
    let of_rows = || cited.rows.iter().filter_map(|row| delta.rows.get(*row as usize));
    let mut explanation = format!(
        "{} of {} lines are warnings or errors; about {} would be usual. No rule knows them.",
        percent(share),
        service(origin),
        percent(usual)
    );
    cited.explain(&mut explanation, &mut Vec::new());
    Some(Finding {
        by: by_detector("level-mix"),
        profile: ProfileName::performance(),
        category: Category::ErrorRate,
        severity: Severity::Medium,
        floor: Some(Severity::Low),
        route: Route::Alert,
        title: format!("{} writes far more warnings and errors than usual", service(origin)),
        explanation,
        recommendation: "Read the lines, and see what was changed just before.".to_owned(),
        absent: cited.subject(delta, "level-mix", "", ""),
        count: bad,
        first: of_rows().map(|row| row.first).min()?,
        last: of_rows().map(|row| row.last).max()?,
        anomalous: Vec::new(),
        rows: cited.rows,
        discriminator: String::new(),
        entities: Vec::new(),
        score: 4.0,
    })
}

fn is_bad(row: &Row) -> bool {
    row.level >= Some(Level::Warn)
}

fn levels(last: Timestamp, bad: u64, all: u64) -> Levels {
    Levels { bucket: Rate::bucket_of_minute(last.minute()), bad, all }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 1.0 && percent > 0.0 { "less than 1 %".to_owned() } else { format!("{percent:.0} %") }
}

fn signal(kind: SignalKind, row: u32, score: f64) -> Signal {
    Signal { kind, rows: vec![row], score, entities: Vec::new() }
}

/// How a template begins, as people read it: for what varies stands `…`.
pub(crate) fn excerpt(template: &str) -> String {
    let mut text = String::with_capacity(template.len());
    for (number, part) in template.split("<*").enumerate() {
        // Behind each but the first stands what kind of variable it is: `>` or `:path>`.
        let kind = part.split_once('>').filter(|(kind, _)| kind.is_empty() || kind.starts_with(':'));
        match kind.filter(|_| number > 0) {
            Some((_, rest)) => text.extend(["…", rest]),
            None if number > 0 => text.extend(["<*", part]),
            None => text.push_str(part),
        }
    }
    let mut short: String = text.chars().take(100).collect();
    if short.len() < text.len() && !short.ends_with('…') {
        short.push('…');
    }
    short
}

pub(crate) fn by_detector(name: &str) -> By {
    By::Detector { name: name.to_owned() }
}

/// Errors of one origin that were never seen before: one finding, however many there are.
fn novel(delta: &Delta, mut rows: Vec<u32>) -> Option<Finding> {
    rows.sort_by_key(|row| {
        let row = &delta.rows[*row as usize];
        (std::cmp::Reverse((row.level, row.count)), row.first)
    });
    let worst = &delta.rows[*rows.first()? as usize];
    let severity = if worst.level >= Some(Level::Critical) { Severity::High } else { Severity::Medium };
    let of_rows = || rows.iter().map(|row| &delta.rows[*row as usize]);
    let count = of_rows().map(|row| row.count).fold(0, u64::saturating_add);
    let (first, last) = (of_rows().map(|row| row.first).min()?, of_rows().map(|row| row.last).max()?);
    let title = match rows.len() {
        1 => format!("New error of {}: {}", service(&worst.origin), excerpt(&worst.template)),
        _ => format!("New errors of {}, such as: {}", service(&worst.origin), excerpt(&worst.template)),
    };
    let cited = Cited::new(rows);
    let mut explanation = "This kind of error has never been seen from this service before.".to_owned();
    cited.explain(&mut explanation, &mut Vec::new());
    Some(Finding {
        by: by_detector("novel"),
        profile: ProfileName::general(),
        category: Category::NewPattern,
        severity,
        floor: Some(Severity::Medium),
        route: Route::Alert,
        title,
        explanation,
        recommendation: "Read the lines around it, and what was changed just before.".to_owned(),
        anomalous: cited.anomalous,
        rows: cited.rows,
        absent: Vec::new(),
        discriminator: String::new(),
        entities: Vec::new(),
        score: 5.0,
        count,
        first,
        last,
    })
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
        let what = if count == 1 { "Error" } else { "Errors" };
        let cited = Cited::new(rows.clone());
        let mut explanation = "Lines that call themselves errors and that no rule knows.".to_owned();
        cited.explain(&mut explanation, &mut Vec::new());
        Some(Finding {
            by: by_detector("errors"),
            profile: ProfileName::general(),
            category: Category::Other,
            severity: Severity::Low,
            floor: None,
            route: Route::Digest,
            title: format!("{what} of {}: {top}", service(origin)),
            explanation,
            recommendation: "Decide whether they matter; mute them if they do not.".to_owned(),
            first: of_rows().map(|row| row.first).min()?,
            last: of_rows().map(|row| row.last).max()?,
            absent: cited.subject(delta, "errors", "", ""),
            anomalous: cited.anomalous,
            rows: cited.rows,
            discriminator: String::new(),
            entities: Vec::new(),
            score: 1.0,
            count,
        })
    };
    by_origin.into_iter().filter_map(finding).collect()
}

pub(crate) fn service(origin: &Origin) -> String {
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

/// Rows that are learned, each once.
struct Rows {
    list: Vec<(MemoryKey, MemoryRow)>,
    /// Places in `list`: a table of whole keys would be as large as the list.
    at: HashTable<u32>,
    /// Keys are hashes already, but of what is written in logs: nobody shall choose where they go.
    hasher: DefaultHashBuilder,
}

impl Rows {
    fn entry(&mut self, key: MemoryKey, otherwise: impl FnOnce() -> MemoryRow) -> &mut MemoryRow {
        let (list, hasher) = (&mut self.list, &self.hasher);
        let hash = |key: &MemoryKey| hasher.hash_one(key);
        let at = match self.at.find(hash(&key), |at| list[*at as usize].0 == key) {
            Some(at) => *at as usize,
            None => {
                list.push((key, otherwise()));
                self.at.insert_unique(hash(&key), (list.len() - 1) as u32, |at| hash(&list[*at as usize].0));
                list.len() - 1
            }
        };
        &mut list[at].1
    }
}

/// What is known of rows lies anywhere in memory: that of so many is waited for at once.
const AT_ONCE: usize = 16;

/// What the memory learns from a delta.
pub(crate) fn learn(
    delta: &Delta,
    memory: &Memory,
    recall: &Recall<'_, '_>,
    covered: &BTreeSet<usize>,
    read: &Read,
) -> Learned {
    let mut source = memory.source().clone();
    source.note(read);
    let away = recall.origins.iter().map(|(origin, _)| is_away(memory, &origin.host)).collect::<Vec<_>>();
    let more = delta.rows.len() + 2 * recall.origins.len();
    let (list, at) = (Vec::with_capacity(more), HashTable::with_capacity(more));
    let mut rows = Rows { list, at, hasher: DefaultHashBuilder::default() };
    let removed = learn_moves(delta, memory, &mut rows);
    let mut earliest = None;
    for (at, (row, (key, known))) in delta.rows.iter().zip(&recall.rows).enumerate() {
        if at.is_multiple_of(AT_ONCE) {
            recall.fetch(at, AT_ONCE);
        }
        // With the texts of the delta: to count one more owner of those in memory is to fetch each of them.
        let fresh = MemoryRow::new(row.origin.clone(), row.root, row.template.clone(), row.first);
        let known = rows.entry(*key, || match known {
            Some(known) => {
                let MemoryRow { first, last, count, ref stats, .. } = **known;
                MemoryRow { first, last, count, stats: stats.clone(), ..fresh }
            }
            None => fresh,
        });
        // Nobody has written later than now: a clock is wrong, there or here. Were it believed, all that comes until then
        // would be too late to count.
        known.heed(read.now);
        let (first, last) = (row.first.min(read.now), row.last.min(read.now));
        if known.count > 0 {
            let explained = Some(known.last) < source.heard_from || away[recall.origin_of[at]];
            known.stats.learn_gap(first.secs() - known.last.secs(), explained);
        }
        for (minute, n) in row.minutes.iter() {
            let minute = minute.min(read.now.minute());
            known.stats.rate.add(Rate::bucket_of_minute(minute), n);
            known.stats.hours.mark(minute.div_euclid(60));
        }
        known.first = known.first.min(first);
        known.last = known.last.max(last);
        known.count = known.count.saturating_add(row.count);
        known.stats.silent_since = None;
        earliest = Some(earliest.map_or(first, |earliest: Timestamp| earliest.min(first)));
        source.last = Some(source.last.map_or(last, |known| known.max(last)));
    }
    // An old line that comes later makes nobody's acquaintance older.
    source.first = source.first.or(earliest);
    let arrival = Arrival { after: memory.source().read_to, now: read.now, heard_from: source.heard_from };
    learn_origins(delta, memory, recall, covered, &arrival, &mut rows);
    source.lines = source.lines.saturating_add(delta.counts.kept);
    Learned { rows: rows.list, removed, source }
}

/// What was known about a leaf belongs to its new root. Answers what is gone.
fn learn_moves(delta: &Delta, memory: &Memory, rows: &mut Rows) -> Vec<MemoryKey> {
    let mut removed: Vec<MemoryKey> = Vec::new();
    if delta.moves.is_empty() {
        return removed;
    }
    let mut gone: HashSet<MemoryKey> = HashSet::new();
    let mut by_root: HashMap<RootId, Vec<&Row>> = HashMap::new();
    delta.rows.iter().for_each(|row| by_root.entry(row.root).or_default().push(row));
    let steps: BTreeSet<(RootId, RootId)> =
        delta.moves.iter().map(|step| (step.from.unwrap_or(step.leaf.as_root()), step.to)).collect();
    for (from, to) in steps.into_iter().filter(|(from, to)| from != to) {
        for row in by_root.get(&to).into_iter().flatten() {
            let old = MemoryKey::of(&row.origin, from);
            if let Some(known) = memory.get(old)
                && gone.insert(old)
            {
                let key = MemoryKey::of(&row.origin, to);
                let fresh = || MemoryRow::new(row.origin.clone(), to, row.template.clone(), known.first);
                let target = rows.entry(key, || memory.get(key).cloned().unwrap_or_else(fresh));
                target.first = target.first.min(known.first);
                target.last = target.last.max(known.last);
                target.count += known.count;
                target.stats.merge(&known.stats);
                removed.push(old);
            }
        }
    }
    removed
}

/// What an origin did in a delta.
#[derive(Clone)]
struct Doings {
    first: Timestamp,
    last: Timestamp,
    minutes: Histogram,
    all: u64,
    bad: u64,
}

impl Doings {
    fn nothing() -> Self {
        Self { first: Timestamp::MAX, last: Timestamp::MIN, minutes: Histogram::default(), all: 0, bad: 0 }
    }

    fn add(&mut self, other: &Self) {
        (self.first, self.last) = (self.first.min(other.first), self.last.max(other.last));
        self.minutes.merge(&other.minutes);
        (self.all, self.bad) = (self.all + other.all, self.bad + other.bad);
    }
}

/// When lines came, as far as we can tell.
struct Arrival {
    /// All up to this time had been read before: what is older and comes now was sent later.
    after: Option<Timestamp>,
    now: Timestamp,
    heard_from: Option<Timestamp>,
}

impl Arrival {
    /// The earliest time at which a line of `time` can have come: a machine that sends late, or whose clock is behind, is
    /// alive all the same.
    fn of(&self, time: Timestamp) -> Timestamp {
        time.min(self.now).max(self.after.unwrap_or(Timestamp::MIN))
    }
}

/// Whether a machine was told to be silent, and has not been heard since.
fn is_away(memory: &Memory, host: &Arc<str>) -> bool {
    let origin = Origin { host: host.clone(), service: "".into() };
    memory.get(MemoryKey::of(&origin, HOST)).is_some_and(|row| row.stats.silent_since.is_some())
}

/// Busy hours and the share of warnings, per origin as a whole; and that its machine is alive.
fn learn_origins(
    delta: &Delta,
    memory: &Memory,
    recall: &Recall<'_, '_>,
    covered: &BTreeSet<usize>,
    arrival: &Arrival,
    rows: &mut Rows,
) {
    let mut origins = vec![Doings::nothing(); recall.origins.len()];
    for ((number, row), origin) in delta.rows.iter().enumerate().zip(&recall.origin_of) {
        let Some(doings) = origins.get_mut(*origin) else { continue };
        (doings.first, doings.last) = (doings.first.min(row.first), doings.last.max(row.last));
        doings.minutes.merge(&row.minutes);
        doings.all += row.count;
        doings.bad += if is_bad(row) && !covered.contains(&number) { row.count } else { 0 };
    }
    let mut hosts: BTreeMap<&Arc<str>, Doings> = BTreeMap::new();
    for ((origin, (key, known)), doings) in recall.origins.iter().zip(origins) {
        let fresh = || MemoryRow::new((*origin).clone(), ORIGIN, "".into(), doings.first);
        let whole = rows.entry(*key, || known.cloned().unwrap_or_else(fresh));
        whole.heed(arrival.now);
        let last = doings.last.min(arrival.now);
        let profile = whole.stats.profile.get_or_insert_default();
        for (minute, n) in doings.minutes.iter() {
            profile.add(minute.min(arrival.now.minute()).div_euclid(60), n);
        }
        profile.add_levels(levels(last, doings.bad, doings.all));
        whole.count = whole.count.saturating_add(doings.all);
        whole.last = whole.last.max(last);
        hosts.entry(&origin.host).or_insert_with(Doings::nothing).add(&doings);
    }
    for (host, doings) in hosts {
        let origin = Arc::new(Origin { host: host.clone(), service: "".into() });
        let key = MemoryKey::of(&origin, HOST);
        let (first, last) = (arrival.of(doings.first), arrival.of(doings.last));
        let fresh = || MemoryRow::new(origin, HOST, "".into(), first);
        let whole = rows.entry(key, || memory.get(key).cloned().unwrap_or_else(fresh));
        whole.heed(arrival.now);
        if whole.count > 0 {
            whole.stats.learn_gap(first.secs() - whole.last.secs(), Some(whole.last) < arrival.heard_from);
        }
        if whole.stats.silent_since.is_some() {
            whole.first = first; // what it should write has time until it is missed
        }
        for (minute, n) in doings.minutes.iter() {
            whole.stats.hours.mark(minute.min(arrival.now.minute()).div_euclid(60));
            whole.count = whole.count.saturating_add(u64::from(n));
        }
        whole.last = whole.last.max(last);
        whole.stats.silent_since = None;
    }
}

/// Values that should be stable and were never seen: a new user in logins, a new service, a new image. Learns them, too.
/// They are known per rule and origin, since one rule stands for many templates.
pub(crate) fn new_values(
    delta: &Delta,
    rules: &RuleSet,
    hits: &[Hit],
    memory: &Memory,
    learned: &mut Learned,
    baseline: Baseline,
) -> Departures {
    let mut departures = Departures { signals: Vec::new(), findings: Vec::new() };
    let mut watched: BTreeMap<MemoryKey, MemoryRow> = BTreeMap::new();
    for hit in hits {
        let rule = rules.rule(hit.rule);
        let row = &delta.rows[hit.row];
        let Ok(number) = u32::try_from(hit.row) else { continue };
        for capture in &rule.watch {
            let root = claim::root("watch", &rule.id, capture);
            let key = MemoryKey::of(&row.origin, root);
            let (kind, slot) = match capture.as_str() {
                "user" => (EntityKind::User, SlotKind::User),
                "unit" => (EntityKind::Unit, SlotKind::Any),
                "ip" => (EntityKind::Ip, SlotKind::Ip),
                _ => (EntityKind::Other, SlotKind::Any),
            };
            for seen in values(row, hit, capture, slot).into_iter().filter(|seen| !seen.value.is_empty()) {
                let hash = (LineId::of(&[capture.as_bytes(), seen.value.as_bytes()]).bits() >> 96) as u32;
                let fresh = || MemoryRow::new(row.origin.clone(), root, "".into(), row.first);
                let known = watched.entry(key).or_insert_with(|| memory.get(key).cloned().unwrap_or_else(fresh));
                let stable = memory.get(key).is_some_and(|known| known.stats.values.is_stable());
                // Whoever logs in in another way today is no stranger.
                let elsewhere =
                    || memory.rows().any(|(_, other)| other.origin == row.origin && other.stats.values.knows(hash));
                let is_new = stable && !known.stats.values.knows(hash) && !elsewhere();
                known.stats.values.learn(hash, row.last.secs().div_euclid(86_400));
                known.last = known.last.max(row.last);
                known.count += seen.count;
                if is_new {
                    let entity = Entity { kind, value: seen.value.as_str().into(), count: seen.count };
                    let entities = vec![entity];
                    let signal = Signal {
                        kind: SignalKind::NewValue,
                        rows: vec![number],
                        score: 4.0,
                        entities: entities.clone(),
                    };
                    departures.signals.push(signal);
                    // A new user is worth a look, a new service or image a line in a list; addresses of people change
                    // all the time.
                    let finding = match kind {
                        _ if baseline != Baseline::Learned => None,
                        EntityKind::User => Some(new_user(row, number, &seen.value, entities)),
                        EntityKind::Ip => None,
                        _ => Some(new_thing(row, number, capture, &seen.value, entities)),
                    };
                    departures.findings.extend(finding);
                }
            }
        }
    }
    learned.rows.extend(watched);
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
        title: format!("{user} was never seen here before: {}", service(&row.origin)),
        explanation:
            "An account that never logged in or acted here before did so. That is a new colleague, or somebody who \
                      should not be here."
                .to_owned(),
        recommendation: "See whether that person is expected: `last -a | head -n 20`.".to_owned(),
        rows: vec![number],
        // Not the template, which others use as well: this user.
        anomalous: Vec::new(),
        absent: vec![Subject {
            origin: row.origin.clone(),
            leaf: None,
            root: claim::root("new-user", user, ""),
            template: row.template.clone(),
            last: row.last,
        }],
        discriminator: user.to_owned(),
        entities,
        score: 4.0,
        count: row.count,
        first: row.first,
        last: row.last,
    }
}

/// A service or an image that never ran here: listed, since most are installed on purpose.
fn new_thing(row: &Row, number: u32, capture: &str, value: &str, entities: Vec<Entity>) -> Finding {
    let what = if capture == "unit" { "service" } else { "container image" };
    Finding {
        category: Category::Other,
        severity: Severity::Low,
        route: Route::Digest,
        title: format!("The {what} {value} was never seen here before"),
        explanation: format!("A {what} began to run here that this machine never had."),
        recommendation: "See whether somebody installed it on purpose.".to_owned(),
        absent: vec![Subject {
            origin: row.origin.clone(),
            leaf: None,
            root: claim::root("new-value", capture, value),
            template: row.template.clone(),
            last: row.last,
        }],
        ..new_user(row, number, value, entities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_for_people() {
        let cases = [
            ("write failed on <*:path>: error <*>", "write failed on …: error …"),
            ("a <* b> and a <*", "a <* b> and a <*"),
            ("<*:ip> <*:num>", "… …"),
        ];
        for (template, text) in cases {
            assert_eq!(excerpt(template), text);
        }
        assert_eq!(excerpt(&"é".repeat(101)), "é".repeat(100) + "…");
        assert_eq!(excerpt(&format!("{}<*:num> more", "a".repeat(99))), "a".repeat(99) + "…");
    }
}
