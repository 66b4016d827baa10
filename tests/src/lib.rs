//! Test doubles.

pub mod loki;
pub mod ollama;
