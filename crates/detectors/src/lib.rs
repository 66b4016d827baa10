//! Decides, without any model, what in a folded log deserves a human.
//!
//! [`detect`] looks at a [`Delta`](logwarden_templates::Delta) in the light of the [`Memory`] of what is normal and of the
//! [`RuleSet`] of what is known to be bad. It answers with [`Signal`]s about rows, with [`Finding`]s in words that a
//! half-asleep person understands, and with what the memory should [learn](Learned) once the commit has succeeded.
//!
//! Pure computation: no I/O, no async, no clock; the same input gives the same output.

mod address;
mod bursts;
mod category;
mod claim;
mod code;
mod contacts;
mod detect;
mod failures;
mod finding;
mod http;
mod look;
mod memory;
mod normal;
mod places;
mod program;
mod recall;
mod rule;
mod rulefile;
mod rules;
mod screen;
mod settings;
mod severity;
mod shape;
mod signatures;
mod silence;
mod speakers;
mod spelling;
mod stats;
mod texts;

pub use category::Category;
pub use code::DecodeError;
pub use contacts::Contacts;
pub use detect::{Detection, detect, detect_lines};
pub use failures::Failures;
pub use finding::{By, Entity, EntityKind, Finding, ProfileName, Route, Signal, SignalKind, Subject};
pub use memory::{Learned, Memory, MemoryKey, MemoryRow, SourceRow};
pub use places::Places;
pub use rule::Rule;
pub use rulefile::RuleError;
pub use rules::{LineMatch, RuleSet};
pub use settings::{Baseline, Read, Settings};
pub use severity::{ParseSeverityError, Severity};
pub use spelling::nearest;
pub use stats::Stats;
