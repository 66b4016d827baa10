//! What is kept of a segment: its rows.

use logwarden_templates::{Row, Sample};
use serde::{Deserialize, Serialize};

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
