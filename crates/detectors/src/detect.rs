//! The detection itself.

use std::collections::BTreeSet;

use logwarden_templates::{Delta, Timestamp};

use crate::{
    By, Finding, Learned, Memory, Route, RuleSet, Severity, Signal, SignalKind, bursts, contacts, normal, places,
    recall::Recall,
    rule::Act,
    screen::{self, Screened},
    settings::{Baseline, Read, Settings},
    signatures, silence,
};

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
    let baseline = settings.baseline(memory, read.now);
    let hits = screened.hits(delta, rules);
    let recall = Recall::new(delta, memory);
    let bursts = bursts::look(delta, rules, &hits, &memory.source().failures);
    // Rules that only watch have not spoken.
    let speaks = |act: &Act| matches!(act, Act::Find(_) | Act::Count(_) | Act::Benign);
    let covered = hits.iter().filter(|hit| speaks(&rules.rule(hit.rule).act)).map(|hit| hit.row);
    let covered: BTreeSet<usize> = covered.collect();
    let mut learned = normal::learn(delta, memory, &recall, &covered, read);
    let departures = normal::compare(delta, memory, &recall, settings, baseline, &covered, read);

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
    let (apart, places) = places::look(delta, rules, &hits, &memory.source().places, read.now);
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
