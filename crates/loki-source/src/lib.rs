//! Reads lines from Grafana Loki without losing or repeating one.
//!
//! [`Loki`] is a [`LogSource`](logwarden_core::source::LogSource). What makes it work:
//!
//! * It asks for half-open windows of integer nanoseconds and takes a page only when it is provably complete: pages of a
//!   sharded Loki have holes, and nothing in the status says so.
//! * A position per query moves with the commit of what was read; what arrives behind it is found by an overlap at every
//!   poll and by comparing Loki's counts per minute with the counts of what was taken.
//! * A line is its tenant, labels, time, text and structured metadata, which is Loki's own notion of one line.
//! * Errors are told apart by status and text: never, smaller, or later.
//!
//! It holds nothing on disk and nothing between reads but the connection: all state is in the
//! [`Cursor`](logwarden_core::source::Cursor).

mod answer;
mod check;
mod config;
mod cursor;
mod failure;
mod http;
mod logql;
mod page;
#[cfg(test)]
mod recorded;
mod source;
mod sweep;

pub use check::{Check, Standing};
pub use config::{Auth, Builder, Credential};
pub use source::Loki;
