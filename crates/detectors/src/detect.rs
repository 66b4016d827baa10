//! The detection itself.

use std::{collections::BTreeSet, time::Duration};

use logwarden_templates::{Delta, Timestamp};

use crate::{
    By, Finding, Learned, Memory, Route, RuleSet, Severity, Signal, SignalKind, bursts, contacts, look, normal, places,
    recall::Recall,
    rule::Act,
    screen::{self, Screened},
    signatures, silence,
};

/// How much is known about what is normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Enough to tell new from normal.
    Learned,
    /// A young source: novelty and silence page nobody yet.
    Warming,
    /// There is no memory and there will be none: the input itself is all there is (`scan`).
    SelfRelative,
}

/// What a detection may be tuned by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// No memory is kept: compare the input with itself.
    pub self_relative: bool,
    /// A source younger than this and with fewer lines than `warm_up_lines` is still warming up.
    pub warm_up: Duration,
    /// See `warm_up`.
    pub warm_up_lines: u64,
    /// Signals older than this alert only from high up, and say so.
    pub stale_after: Duration,
    /// False alarms per day that the rate detector may cost; with the number of tests it gives the threshold.
    pub false_alarms_per_day: f64,
    /// Rows of the memory; the least recently seen make room and are counted.
    pub max_rows: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            self_relative: false,
            warm_up: Duration::from_secs(24 * 3600),
            warm_up_lines: 50_000,
            stale_after: Duration::from_secs(3600),
            false_alarms_per_day: 1.0,
            max_rows: 20_000,
        }
    }
}

/// How far a read went: what is not there may be silent, or not read yet.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The wall clock, for the age of signals.
    pub now: Timestamp,
    /// Everything before this time has been read, of all parts of the source. `None` when that cannot be said: then nothing
    /// is called silent.
    pub whole_to: Option<Timestamp>,
    /// So long before this read nobody who writes could be heard: the source was down, or, where lines are pushed, we were.
    /// What did not come then is not missed.
    pub unheard: Duration,
}

impl From<Timestamp> for Read {
    /// A read of everything up to now.
    fn from(now: Timestamp) -> Self {
        Self { now, whole_to: Some(now), unheard: Duration::ZERO }
    }
}

/// What [`detect`] answers.
#[derive(Clone, Debug, Default)]
pub struct Detection {
    /// What was seen about rows; the digest shows it to the model.
    pub signals: Vec<Signal>,
    /// What is claimed, most important first.
    pub findings: Vec<Finding>,
    /// What the memory learns once the commit has succeeded.
    pub learned: Learned,
}

/// Looks at `delta` in the light of `memory` and `rules`. `read` says when it was read, and up to when; a time alone is
/// both.
///
/// Of each row rules see the samples only; [`detect_lines`] looks at every line.
pub fn detect(
    delta: &Delta,
    memory: &Memory,
    rules: &RuleSet,
    settings: &Settings,
    read: impl Into<Read>,
) -> Detection {
    look(delta, &Screened::default(), memory, rules, settings, &read.into())
}

/// As [`detect`], with the lines that `delta` was folded from: the physical lines of the input, in its order, while the
/// delta has their [assignments](Delta::assignments).
///
/// A line that a rule matches is found among ten thousand others of its template, and counted exactly. It becomes a sample
/// of its row, as do lines that name whom a finding is about.
pub fn detect_lines(
    delta: &mut Delta,
    lines: &[(Timestamp, &[u8])],
    memory: &Memory,
    rules: &RuleSet,
    settings: &Settings,
    read: impl Into<Read>,
) -> Detection {
    let screened = screen::screen(delta, lines, rules);
    let detection = look(delta, &screened, memory, rules, settings, &read.into());
    screen::illustrate(delta, lines, &detection.findings);
    detection
}

fn look(
    delta: &Delta,
    screened: &Screened,
    memory: &Memory,
    rules: &RuleSet,
    settings: &Settings,
    read: &Read,
) -> Detection {
    let baseline = baseline(memory, settings, read.now);
    let hits = look::hits(delta, rules, screened);
    let recall = Recall::new(delta, memory);
    let bursts = bursts::look(delta, rules, &hits, &memory.source().failures);
    // Rules that only watch have not spoken.
    let speaks = |act: &Act| matches!(act, Act::Find(_) | Act::Count(_) | Act::Benign);
    let covered = hits.iter().filter(|hit| speaks(&rules.rule(hit.rule).act)).map(|hit| hit.row);
    let covered: BTreeSet<usize> = covered.collect();
    let mut learned = normal::learn(delta, memory, &recall, &covered, read);
    let departures = normal::compare(delta, memory, &recall, settings, baseline, &covered);

    let fresh = normal::new_values(delta, rules, &hits, memory, &mut learned, baseline);

    let mut signals = departures.signals;
    signals.extend(fresh.signals);
    signals.extend(bursts.signals);
    let signatures = signatures::look(delta, rules, &hits, &memory.source().failures);
    let mut findings = signatures.findings;
    signals.extend(findings.iter().filter_map(|finding| {
        let By::Rule { id } = &finding.by else { return None };
        let kind = SignalKind::Signature { rule: id.clone() };
        Some(Signal { kind, rows: finding.rows.clone(), score: finding.score, entities: Vec::new() })
    }));
    findings.extend(bursts.findings);
    let (apart, places) = places::look(delta, rules, &hits, &memory.source().places);
    findings.extend(apart);
    let (beacons, contacts) = contacts::look(delta, rules, &hits, memory.source(), settings, baseline);
    findings.extend(beacons);
    findings.extend(departures.findings);
    findings.extend(fresh.findings);
    if baseline == Baseline::Learned {
        findings.extend(silence::look(memory, &mut learned, read));
    }
    let minute = learned.source.last.map_or(0, Timestamp::minute);
    learned.source.failures.take([bursts.counters, signatures.counters].concat(), minute);
    learned.source.contacts.take(contacts, minute);
    learned.source.places = places;
    bound(memory, &mut learned, settings.max_rows);
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| b.score.total_cmp(&a.score)));
    debug_assert!(findings.iter().all(|finding| rules.knows_speaker_of(finding)), "mutes must know who speaks");
    route(&mut findings, settings, read.now);
    Detection { signals, findings, learned }
}

fn baseline(memory: &Memory, settings: &Settings, now: Timestamp) -> Baseline {
    let source = memory.source();
    let old_enough = source.first.is_some_and(|first| now.since(first) >= settings.warm_up);
    match () {
        () if settings.self_relative => Baseline::SelfRelative,
        () if source.backfilled || old_enough || source.lines >= settings.warm_up_lines => Baseline::Learned,
        () => Baseline::Warming,
    }
}

/// What is old alerts only from high up and says so. (The day's budget of alerts is kept where incidents are known: what
/// joins one costs nothing.)
fn route(findings: &mut [Finding], settings: &Settings, now: Timestamp) {
    if settings.self_relative {
        return;
    }
    for finding in findings.iter_mut().filter(|finding| finding.route == Route::Alert) {
        if now.since(finding.last) > settings.stale_after {
            finding.explanation.push_str(" The lines were already old when they were read.");
            if finding.severity < Severity::High {
                finding.route = Route::Digest;
            }
        }
    }
}

/// Keeps the memory to its bound: the rows that were seen longest ago make room, and are counted.
fn bound(memory: &Memory, learned: &mut Learned, max_rows: usize) {
    if memory.len() + learned.rows.len() <= max_rows {
        return;
    }
    let fresh = learned.rows.iter().filter(|(key, _)| memory.get(*key).is_none()).count();
    let excess = (memory.len() + fresh).saturating_sub(learned.removed.len()).saturating_sub(max_rows);
    if excess == 0 {
        return;
    }
    let touched: BTreeSet<_> = learned.rows.iter().map(|(key, _)| *key).collect();
    let mut idle: Vec<_> =
        memory.rows().filter(|(key, _)| !touched.contains(key)).map(|(key, row)| (row.last, key)).collect();
    idle.sort_unstable();
    for (_, key) in idle.into_iter().take(excess) {
        learned.removed.push(key);
        learned.source.evicted += 1;
    }
}
