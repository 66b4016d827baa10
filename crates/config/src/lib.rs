//! Files and environment in, a checked [`Config`] out, and from that a wired pipeline.
//!
//! Every mistake is reported at once, with its place, key, reason and hint. Secrets are named, not held: the file says
//! which file or credential they are in.

mod beside;
mod config;
mod document;
pub mod keys;
mod mistake;
mod mutes;
mod place;
mod read;
mod secret;
mod system;
mod trail;
pub mod units;
mod wire;

#[cfg(test)]
mod tests;

pub use beside::Both;
pub use config::{
    Alerts, ChannelConfig, ChannelKind, Config, Detectors, FileGroup, Grafana, Loki, LokiQuery, Model, Receiver,
};
pub use mistake::{Mistake, Mistakes};
pub use mutes::{check as check_mute, describe as describe_mute, grave as grave_mute, idle as idle_mute, read_mutes};
pub use place::{config_file, state_dir};
pub use read::{Checked, Input, read};
pub use secret::{DiskFiles, Files, MemoryFiles, Secret};
pub use system::SystemEnv;
pub use trail::Trail;
pub use wire::{
    Surroundings, WireError, Wired, has_state, open_ledger, others_state, past_of_loki, read_rules, start_timeout, wire,
};
