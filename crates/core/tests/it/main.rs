//! Behaviour of the pipeline as a whole, on in-memory stores and a clock set by hand.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod backfill;
mod degraded;
mod held;
mod own;
mod pipeline;
mod rules;
mod stop;
