//! The notifiers against doubles that enforce the real limits and answer with the real errors.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

mod contract;
mod failures;
mod golden;
mod hostile;
mod samples;
mod secrets;
mod signatures;
