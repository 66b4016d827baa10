//! A classifier that asks a local model through Ollama, and believes only what it can check.
//!
//! Two things make this more than a POST. Ollama's defaults vary with its version, the machine's memory, the model and the
//! neighbours, and several of them lose data without a word: so everything is said explicitly, and the figures of each
//! answer are compared with what was sent. And a small model may loop, stall or answer with something else: so answers are
//! always streamed, watched while they grow, and count only when they are whole.
//!
//! | module | what it knows |
//! |---|---|
//! | [`host`] | `OLLAMA_HOST` in all its forms |
//! | `transport` | connections: no redirects, no proxies for near addresses, capped bodies |
//! | `ask` | one question and its answer |
//! | `guard`, `ndjson`, `wire` | what comes back, piece by piece |
//! | `refusal` | what errors mean and what to do about them |
//! | `calibration` | tokens per character and speeds, as measured |
//! | `limits` | ceilings and hours of rest |
//! | [`check`] | what `doctor` looks at |
//!
//! ```
//! # use std::sync::Arc;
//! # use logwarden_core::{classifier::{Classifier, ClassifyError, Judgement}, digest::Digest, env::Env};
//! use logwarden_ollama_client::{BaseUrl, Ollama};
//!
//! # fn make(env: Arc<dyn Env>) -> Result<Ollama, Box<dyn std::error::Error>> {
//! let ollama = Ollama::builder(BaseUrl::parse("gpu-box")?, env).model("qwen3:4b-instruct").num_ctx(16_384).build()?;
//! # Ok(ollama)
//! # }
//! # async fn ask(ollama: &Ollama, digest: &Digest) -> Result<Judgement, ClassifyError> {
//! let judgement = ollama.classify(digest).await?;
//! let measured = ollama.calibration(); // to be kept, and given to the builder in the next run
//! # drop(measured);
//! # Ok(judgement)
//! # }
//! ```
//!
//! It does no I/O besides talking to Ollama, and knows nothing about where settings come from.

mod ask;
mod calibration;
pub mod check;
mod guard;
pub mod host;
mod limits;
mod model;
mod ndjson;
mod ollama;
#[cfg(test)]
mod recorded;
mod refusal;
mod transport;
mod wire;

pub use calibration::Calibration;
pub use host::{BaseUrl, HostError};
pub use limits::{Ceilings, Hours};
pub use model::RECOMMENDED;
pub use ollama::{BuildError, Builder, Exchange, Ollama, Trail};
pub use wire::{KeepAlive, KeepAliveError};
