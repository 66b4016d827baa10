//! Reads lines from files and standard input.
//!
//! * [`Scan`] reads files, or standard input, once from beginning to end: plain, gzip or zstd, text or `journalctl -o
//!   json`.
//! * [`Follow`] follows files on and on, by identity and offset, through rotation (also when the old file is compressed at
//!   once), truncation and `copytruncate`, with a cursor that survives restarts. [`look`] says what a path leads to now.
//!
//! Lines come as bytes. Times, levels, hosts and programs are recognised later, when the lines are folded; a line without
//! a year or zone gets the year nearest to the file's own time, and the zone given here.

mod cursor;
mod export;
mod follow;
mod lines;
mod look;
mod open;
mod scan;
mod zone;

pub use follow::{Follow, Group};
pub use look::{Look, look};
pub use scan::{Input, Scan};
pub use zone::{ZoneError, zone};

/// Longer lines are shortened in the middle, visibly, and counted.
pub const MAX_LINE: usize = 1 << 20;
