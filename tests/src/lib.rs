//! Test doubles.

pub mod chat;
pub mod discord;
pub mod explorer;
pub mod inert;
pub mod injection;
pub mod loki;
pub mod ollama;
pub mod program;
pub mod receiver;
pub mod recorded;
pub mod sample;
pub mod scenario;
pub mod slack;
pub mod tail;
pub mod tls;
pub mod webhook;
