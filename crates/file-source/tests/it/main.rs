//! Behaviour against real files.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod contract;
mod follow;
mod scan;
