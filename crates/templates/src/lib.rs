//! Folds raw log lines into templates with stable ids.
//!
//! A [`Miner`] reads [`Record`]s (or [`Line`]s) and answers with a [`Delta`]: one [`Row`] per origin and template with
//! counts, times, samples and the values of its slots, plus the templates that are new. Folding changes nothing; a delta
//! is [applied](Miner::apply) once its commit has succeeded, or thrown away.
//!
//! Pure computation: no I/O, no async, no clock. Time comes in with the lines.

#[allow(dead_code, reason = "wired by the miner next")]
mod access;
mod bytes;
mod delta;
#[allow(dead_code, reason = "wired by the miner next")]
mod fields;
#[allow(dead_code, reason = "wired by the miner next")]
mod header;
mod id;
#[allow(dead_code, reason = "wired by the miner next")]
mod join;
mod line;
mod miner;
mod time;

pub use delta::{Carry, Counts, Delta, Histogram, Move, NewLeaf, OpenEvent, Row, Sample, Slot, SlotKind, SlotValue};
pub use id::{LeafId, LineId, ParseIdError, RootId};
pub use line::{Clock, Level, Line, Origin, Record, Stream, Zone};
pub use miner::{Config, End, FoldOptions, Miner, State, StateError};
pub use time::Timestamp;
