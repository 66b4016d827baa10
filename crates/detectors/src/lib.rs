//! Decides, without any model, what in a folded log deserves a human.
//!
//! [`detect`] looks at a [`Delta`](logwarden_templates::Delta) in the light of the [`Memory`] of what is normal and of the
//! [`RuleSet`] of what is known to be bad. It answers with [`Signal`]s about rows, with [`Finding`]s in words that a
//! half-asleep person understands, and with what the memory should [learn](Learned) once the commit has succeeded.
//!
//! Pure computation: no I/O, no async, no clock; the same input gives the same output.

mod category;
mod code;
mod detect;
mod failures;
mod finding;
mod memory;
mod rules;
mod severity;
mod stats;

pub use category::Category;
pub use code::DecodeError;
pub use detect::{Baseline, Detection, Settings, detect};
pub use failures::Failures;
pub use finding::{By, Entity, EntityKind, Finding, ProfileName, Route, Signal, SignalKind, Subject};
pub use memory::{Learned, Memory, MemoryKey, MemoryRow, SourceRow};
pub use rules::{RuleError, RuleSet};
pub use severity::{ParseSeverityError, Severity};
pub use stats::Stats;
