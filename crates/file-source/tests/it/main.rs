//! Behaviour against real files.

mod follow;
mod scan;
