//! Test doubles.

pub mod loki;
