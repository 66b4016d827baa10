//! The heart of logwarden: model, traits, prompts, schema, grounding, redaction and decisions.
//!
//! Everything here is free of I/O, of wall clocks and of any async runtime: adapters carry bytes, core decides what they
//! mean. [`Pipeline`](pipeline::Pipeline) puts the parts together; each part works without it, too.
//!
//! | trait | promise | found in |
//! |---|---|---|
//! | [`LogSource`](source::LogSource) | lines after a cursor, in order, none lost | [`source`] |
//! | [`Classifier`](classifier::Classifier) | a digest in, findings that cite rows out | [`classifier`] |
//! | [`Notifier`](notifier::Notifier) | one message out, a receipt or a reason back | [`notifier`] |
//! | [`DedupStore`](dedup::DedupStore) | one voice per channel among several hosts | [`dedup`] |
//! | `Ledger` | one transaction per step | `ledger` (unstable until 1.0) |

pub mod classifier;
#[doc(hidden)]
pub mod decide;
pub mod dedup;
pub mod detectors_only;
pub mod digest;
pub mod env;
pub mod error;
pub mod finding;
pub mod grounding;
mod id;
pub mod incident;
#[doc(hidden)]
pub mod ledger;
pub mod memory_dedup;
#[doc(hidden)]
pub mod memory_ledger;
pub mod message;
pub mod notifier;
pub mod pipeline;
mod plain;
pub mod plan;
pub mod profile;
pub mod prompt;
pub mod redact;
pub mod reply;
pub mod report;
#[doc(hidden)]
pub mod retention;
pub mod segment;
pub mod source;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tripwire;

pub use logwarden_detectors as detectors;
pub use logwarden_detectors::{Category, ProfileName, Severity};
pub use logwarden_templates as templates;
pub use logwarden_templates::{Line, LineId, Stream, Timestamp};
