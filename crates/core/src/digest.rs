//! The numbered table of templates that a classifier is shown.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use logwarden_detectors::{Finding, Severity, Signal};
use logwarden_templates::{LeafId, Origin, Row, Sample, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{classifier::Capacity, grounding::Floors, profile::Profile, prompt};

/// A row of a segment: a folded template as one origin used it, redacted, with its surroundings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SegmentRow {
    /// The row; samples and slot values are redacted.
    pub row: Row,
    /// Lines of the same stream before the first occurrence, oldest first; only for rows with a signal. Redacted.
    pub before: Vec<Sample>,
    /// Lines of the same stream after the first occurrence. Redacted.
    pub after: Vec<Sample>,
}

/// What a classifier is shown: rows of one segment under one profile, worst first, that fit its budget.
#[derive(Clone, Debug)]
pub struct Digest {
    /// What to look for.
    pub profile: Arc<Profile>,
    /// The first event.
    pub from: Timestamp,
    /// The last event.
    pub to: Timestamp,
    /// Physical lines that the whole segment stands for.
    pub lines: u64,
    /// The rows to be judged; the model cites them by their number, which is their index plus one.
    pub rows: Vec<DigestRow>,
    /// What is normal and only told as one line: templates and events per origin that were judged benign before.
    pub background: Vec<Background>,
}

/// One numbered row.
#[derive(Clone, Debug)]
pub struct DigestRow {
    /// The index of the row in the segment.
    pub segment_row: u32,
    /// The row itself.
    pub row: Arc<SegmentRow>,
    /// What detectors saw about it.
    pub signals: Vec<Signal>,
    /// The severity that a detector's finding about it has, if any.
    pub floor: Option<Severity>,
}

/// Rows that are only told as a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Background {
    /// Who.
    pub origin: Arc<Origin>,
    /// How many templates.
    pub templates: u64,
    /// How many events.
    pub events: u64,
}

/// What a classifier answers about a digest, checked for form but not yet for truth: rows are numbers of the digest.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What it claims. `rows` and `anomalous` hold indices into [`Digest::rows`] (not the numbers shown).
    pub findings: Vec<Finding>,
    /// A few sentences about what happened; empty when it said nothing.
    pub summary: String,
    /// Its overall severity; `None` when nothing is wrong.
    pub severity: Option<Severity>,
    /// Rows of the digest that it was shown and judged: those without a finding are benign.
    pub judged: Vec<u32>,
}

/// What a [`Plan`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// What to look for.
    pub profile: &'a Arc<Profile>,
    /// All rows of the segment.
    pub rows: &'a [Arc<SegmentRow>],
    /// Indices of the rows that belong to the profile.
    pub of_profile: &'a [u32],
    /// What detectors saw; their rows are indices into `rows`.
    pub signals: &'a [Signal],
    /// What detectors claim, by row.
    pub floors: &'a Floors,
    /// Leaves that were judged benign under this profile by the classifier that will be asked.
    pub benign: &'a HashSet<LeafId>,
}

/// What will be asked about a segment under one profile.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// One call each, worst first; none when nothing is open.
    pub digests: Vec<Digest>,
    /// Rows that are asked about.
    pub open: u32,
    /// Rows that are only told as a number, because they were judged benign before and nothing is unusual about them.
    pub background: u32,
}

/// Plans the calls: open rows worst first, in as many digests as it takes. Nothing is cut: each row of the profile is in
/// exactly one digest, or counted in the background of all of them.
pub fn plan(material: &Material<'_>, capacity: Capacity) -> Plan {
    let mut signals: HashMap<u32, Vec<&Signal>> = HashMap::new();
    for signal in material.signals {
        for row in &signal.rows {
            signals.entry(*row).or_default().push(signal);
        }
    }
    let mut open = Vec::new();
    let mut background: BTreeMap<Arc<Origin>, Background> = BTreeMap::new();
    let mut plan = Plan::default();
    let (mut from, mut to, mut lines) = (Timestamp::MAX, Timestamp::MIN, 0_u64);
    let mut seen = HashSet::new();
    for &segment_row in material.of_profile {
        let Some(row) = material.rows.get(segment_row as usize).filter(|_| seen.insert(segment_row)) else { continue };
        from = from.min(row.row.first);
        to = to.max(row.row.last);
        lines = lines.saturating_add(row.row.lines);
        let floor = material.floors.of(row);
        let signals =
            signals.get(&segment_row).into_iter().flatten().map(|signal| own_part(signal, segment_row)).collect();
        let row = DigestRow { segment_row, row: row.clone(), signals, floor };
        if row.is_unusual() || !material.benign.contains(&row.row.row.leaf) {
            open.push(row);
        } else {
            plan.background += 1;
            let origin = &row.row.row.origin;
            let background = background.entry(origin.clone()).or_insert_with(|| Background {
                origin: origin.clone(),
                templates: 0,
                events: 0,
            });
            background.templates += 1;
            background.events = background.events.saturating_add(row.row.row.count);
        }
    }
    plan.open = u32::try_from(open.len()).unwrap_or(u32::MAX);
    open.sort_by_cached_key(|row| Reverse(row.rank()));
    let mut background: Vec<_> = background.into_values().collect();
    background.sort_by_key(|one| Reverse(one.events));
    let empty = Digest { profile: material.profile.clone(), from, to, lines, rows: Vec::new(), background };
    let overhead = prompt::estimate_chars(&empty);
    let budget = f64::from(capacity.row_tokens) * f64::from(capacity.chars_per_token.max(0.1));
    let mut used = overhead;
    let mut current: Vec<DigestRow> = Vec::new();
    for row in open {
        let cost = prompt::row_chars(&row);
        let full = (used + cost) as f64 > budget || current.len() >= capacity.rows.max(1) as usize;
        if full && !current.is_empty() {
            plan.digests.push(Digest { rows: grouped(std::mem::take(&mut current)), ..empty.clone() });
            used = overhead;
        }
        used += cost;
        current.push(row);
    }
    if !current.is_empty() {
        plan.digests.push(Digest { rows: grouped(current), ..empty });
    }
    plan
}

/// A signal as far as it is about one row.
fn own_part(signal: &Signal, row: u32) -> Signal {
    Signal { kind: signal.kind.clone(), rows: vec![row], score: signal.score, entities: signal.entities.clone() }
}

/// Rows of one origin side by side, so that its name is written once; origins in order of their worst row.
fn grouped(rows: Vec<DigestRow>) -> Vec<DigestRow> {
    let mut order: HashMap<Arc<Origin>, usize> = HashMap::new();
    for row in &rows {
        let next = order.len();
        order.entry(row.row.row.origin.clone()).or_insert(next);
    }
    let mut rows = rows;
    rows.sort_by_key(|row| order.get(&row.row.row.origin).copied());
    rows
}

impl DigestRow {
    /// Whether detectors saw or claim something about it.
    pub fn is_unusual(&self) -> bool {
        self.floor.is_some() || !self.signals.is_empty()
    }

    /// For ordering: what is claimed, then what was seen and how surprising it is, then how bad the lines say they are,
    /// then how rare they are.
    fn rank(&self) -> impl Ord + use<> {
        let score = self.signals.iter().map(|signal| signal.score).fold(0.0_f64, f64::max).clamp(0.0, 1e6);
        let row = &self.row.row;
        (
            self.floor,
            !self.signals.is_empty(),
            (score * 1000.0) as u64,
            row.level,
            Reverse(row.count),
            Reverse(row.first),
            row.leaf,
        )
    }
}

impl Digest {
    /// Two halves, each with the same background; `None` when there is only one row left. For answers that were too large
    /// or of no use.
    pub fn split(&self) -> Option<(Self, Self)> {
        if self.rows.len() < 2 {
            return None;
        }
        let (front, back) = self.rows.split_at(self.rows.len() / 2);
        let half = |rows: &[DigestRow]| Self { rows: rows.to_vec(), ..self.clone() };
        Some((half(front), half(back)))
    }

    /// A verdict about this digest, with its rows as indices into the segment.
    pub fn in_segment(&self, verdict: Verdict) -> Verdict {
        let segment = |rows: &[u32]| -> Vec<u32> {
            rows.iter().filter_map(|row| self.rows.get(*row as usize)).map(|row| row.segment_row).collect()
        };
        let findings = verdict.findings.into_iter().map(|finding| Finding {
            rows: segment(&finding.rows),
            anomalous: segment(&finding.anomalous),
            ..finding
        });
        Verdict { findings: findings.collect(), judged: segment(&verdict.judged), ..verdict }
    }
}

impl Verdict {
    /// Takes in the verdict about another part of the same segment. The rows of both must be indices into the segment.
    pub fn absorb(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.judged.extend(other.judged);
        self.severity = self.severity.max(other.severity);
        if !other.summary.is_empty() && !self.summary.contains(&other.summary) {
            if !self.summary.is_empty() {
                self.summary.push(' ');
            }
            self.summary.push_str(&other.summary);
            self.summary = crate::reply::first_sentences(&self.summary);
        }
    }
}
