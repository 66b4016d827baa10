//! Behaviour of the pipeline as a whole, on in-memory stores and a clock set by hand.

mod pipeline;
