//! The receiver on loopback, with a ledger in memory: what senders are answered, and what reaches the pipeline.

#![allow(clippy::unwrap_used, missing_docs)]

mod guard;
mod hostile;
mod requests;
mod world;
