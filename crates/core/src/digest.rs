//! The numbered table of templates that a classifier is shown, and its verdict.

use std::{cmp::Reverse, sync::Arc};

use logwarden_detectors::{Finding, Severity, Signal};
use logwarden_templates::{Origin, Timestamp};

use crate::{plain, profile::Profile, segment::SegmentRow};

/// Sentences that a verdict's summary may have.
pub const MAX_SENTENCES: usize = 6;

/// How much a classifier can take in one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// Tokens that the rows of one digest may have.
    pub row_tokens: u32,
    /// Characters per token that are planned with; from measured counts.
    pub chars_per_token: f32,
    /// Rows at most.
    pub rows: u32,
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

impl DigestRow {
    /// Whether detectors saw or claim something about it.
    pub fn is_unusual(&self) -> bool {
        self.floor.is_some() || !self.signals.is_empty()
    }

    /// For ordering: what is claimed, then what was seen and how surprising it is, then how bad the lines say they are,
    /// then how rare they are.
    pub(crate) fn rank(&self) -> impl Ord + use<> {
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
            self.summary = plain::first_sentences(&self.summary, MAX_SENTENCES);
        }
    }
}
