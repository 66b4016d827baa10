//! Files and environment in, a checked [`Config`] out, and from that a wired pipeline.
//!
//! Every mistake is reported at once, with its place, key, reason and hint. Secrets are named, not held: the file says
//! which file or credential they are in.

mod config;
mod document;
pub mod keys;
mod mistake;
mod read;
mod secret;
mod system;
pub mod units;
pub use system::SystemEnv;

#[cfg(test)]
mod tests;

pub use config::{
    Alerts, ChannelConfig, ChannelKind, Config, Detectors, FileGroup, Grafana, Loki, LokiQuery, Model, Receiver,
};
pub use mistake::{Mistake, Mistakes};
pub use read::{Checked, Input, read};
pub use secret::{DiskFiles, Files, MemoryFiles, Secret};
