//! The numbered table of templates that a classifier is shown.

use std::sync::Arc;

use logwarden_detectors::{Finding, Severity, Signal};
use logwarden_templates::{Origin, Row, Sample, Timestamp};
use serde::{Deserialize, Serialize};

use crate::profile::Profile;

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
