//! Gets a message to a human: Discord, Slack, a signed webhook, the terminal, or JSON lines.
//!
//! One [`send`](logwarden_core::notifier::Notifier::send) is one attempt. Retries, pacing and queues belong to whoever
//! holds the lease; what a notifier owes is a message that fits by construction, an answer that was really confirmed, and
//! an error that says what to do next.
//!
//! Everything that came from a log or a model passes [`text`]: cleaned once, then escaped for exactly one platform, in
//! types that do not allow the step to be forgotten or done twice. Addresses are secrets: they are parsed once, never
//! printed, and taken out of every error.

mod address;
mod clean;
mod discord;
mod document;
pub mod grafana;
mod http;
mod ndjson;
mod slack;
mod story;
mod terminal;
pub mod text;
mod webhook;
mod words;

/// The program that sends, where nothing else was said.
const PROGRAM: &str = "logwarden-analyzer";

pub use address::AddressError;
pub use discord::{Discord, Reached};
pub use ndjson::Ndjson;
pub use slack::Slack;
pub use terminal::{Style, Terminal, render};
pub use webhook::Webhook;
