//! The notifiers against doubles that enforce the real limits and answer with the real errors.

mod failures;
mod golden;
mod hostile;
mod samples;
mod secrets;
mod signatures;
