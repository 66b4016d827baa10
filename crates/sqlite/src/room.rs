//! How much room is left where the state is.

use std::{io, path::Path};

/// Below this nothing bulky is taken in, unless it is configured otherwise.
const KEEP_FREE: u64 = 200 << 20;
/// On a small file system it is so much of it.
const KEEP_SHARE: u64 = 20;
/// What is left of it for a commit of lines that were fetched.
const LAST: u64 = 8;

/// The room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that we may still use.
    pub free: u64,
    /// Below so many free bytes, pushed batches are refused: 200 MiB, or a twentieth of a small file system.
    pub keep_free: u64,
}

impl Room {
    /// The room where `dir` is; `keep_free` replaces the usual bound.
    ///
    /// # Errors
    ///
    /// When that cannot be asked.
    pub fn of(dir: &Path, keep_free: Option<u64>) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let usual = (bytes(stat.f_blocks) / KEEP_SHARE).min(KEEP_FREE);
        Ok(Self { free: bytes(stat.f_bavail), keep_free: keep_free.unwrap_or(usual) })
    }

    /// Whether what others could keep for us is to stay with them.
    pub fn is_low(&self) -> bool {
        self.free < self.keep_free
    }

    /// Below so many free bytes nothing is read, either: the rest is for what was found, and must be told.
    pub fn last(&self) -> u64 {
        self.keep_free / LAST
    }
}
