//! Folds raw log lines into templates with stable ids.
//!
//! A [`Miner`] reads [`Record`]s (or [`Line`]s) and answers with a [`Delta`]: one [`Row`] per origin and template with
//! counts, times, samples and the values of its slots, plus the templates that are new. Folding changes nothing; a delta
//! is [applied](Miner::apply) once its commit has succeeded, or thrown away.
//!
//! Pure computation: no I/O, no async, no clock. Time comes in with the lines.

mod access;
mod bytes;
mod clock;
mod closure;
mod delta;
mod fields;
mod fold;
pub mod header;
mod id;
mod join;
mod level;
mod lexicon;
mod line;
mod miner;
mod neighbours;
mod rows;
mod samples;
mod scan;
mod slots;
mod steps;
mod tally;
mod template;
mod time;
mod trace;
mod values;
mod varint;

pub use delta::{Carry, Counts, Delta, Histogram, Move, NewLeaf, OpenEvent, Row, Slot, SlotKind};
pub use id::{LeafId, LineId, ParseIdError, RootId};
pub use line::{Clock, Level, Line, Origin, Record, Stream, Zone};
pub use miner::{Config, End, FoldOptions, Matcher, Miner, State, StateError};
pub use neighbours::neighbours;
pub use samples::{Sample, Samples, SamplesIter};
pub use tally::{LeftOut, Summary, Tallied, Tally};
pub use time::Timestamp;
pub use values::{SlotValue, Values, ValuesIter};
