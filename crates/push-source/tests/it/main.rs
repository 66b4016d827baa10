//! The receiver on loopback, with a ledger in memory: what senders are answered, and what reaches the pipeline.

#![allow(clippy::unwrap_used, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "the answers are our own")]

mod answers;
mod guard;
mod hostile;
mod large;
mod requests;
mod syslog;
mod world;
