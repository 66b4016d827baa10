//! The detection itself.

use std::time::Duration;

use logwarden_templates::{Delta, Timestamp};

use crate::{
    By, Category, Finding, Learned, Memory, MemoryKey, MemoryRow, ProfileName, Route, RuleSet, Severity, Signal,
    SignalKind, SourceRow,
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
    /// Alerts below high per day; what exceeds it goes to the digest.
    pub alerts_per_day: u32,
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
            alerts_per_day: 50,
            false_alarms_per_day: 1.0,
            max_rows: 20_000,
        }
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

/// Looks at `delta` in the light of `memory` and `rules`. `now` is the wall clock, for the age of signals and silence.
pub fn detect(delta: &Delta, memory: &Memory, rules: &RuleSet, settings: &Settings, now: Timestamp) -> Detection {
    let _ = (rules, settings, now);
    let mut detection = Detection::default();
    let mut source: SourceRow = memory.source().clone();
    for (number, row) in (0_u32..).zip(&delta.rows) {
        let key = MemoryKey::of(&row.origin, row.root);
        let known = memory.get(key);
        if known.is_none() {
            detection.signals.push(Signal {
                kind: SignalKind::Novel,
                rows: vec![number],
                score: 1.0,
                entities: Vec::new(),
            });
        }
        if row.template.contains("Out of memory: Killed process") {
            detection.findings.push(Finding {
                by: By::Rule { id: "oom-kill".into() },
                profile: ProfileName::performance(),
                category: Category::Memory,
                severity: Severity::Critical,
                floor: Some(Severity::High),
                route: Route::Alert,
                title: "The kernel killed a process because memory ran out".into(),
                explanation: "The machine had no memory left, so the kernel ended a process to go on.".into(),
                recommendation: "See what uses memory: `ps aux --sort=-rss | head`.".into(),
                rows: vec![number],
                anomalous: vec![number],
                absent: Vec::new(),
                discriminator: String::new(),
                entities: Vec::new(),
                score: 10.0,
                count: row.count,
                first: row.first,
                last: row.last,
            });
        }
        let row = MemoryRow {
            origin: row.origin.clone(),
            root: row.root,
            template: row.template.clone(),
            first: known.map_or(row.first, |known| known.first.min(row.first)),
            last: known.map_or(row.last, |known| known.last.max(row.last)),
            count: known.map_or(0, |known| known.count) + row.count,
            stats: known.map(|known| known.stats.clone()).unwrap_or_default(),
        };
        source.first = Some(source.first.map_or(row.first, |first| first.min(row.first)));
        source.last = Some(source.last.map_or(row.last, |last| last.max(row.last)));
        detection.learned.rows.push((key, row));
    }
    source.lines += delta.counts.kept;
    detection.learned.source = source;
    detection
}
