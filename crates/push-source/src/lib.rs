//! Takes log batches that shippers push over HTTP: decodes them, commits them to the spool, and only then says 2xx.
//!
//! [`Receiver`] speaks Fluent Bit's http output, Loki's push API and OTLP/HTTP logs; [`PushSource`] brings what was
//! spooled into the pipeline, whose commit deletes it from the spool. A batch that is sent again is recognised by its
//! content. `docs/push.md` says what is answered when, and how to set up shippers.

mod access;
mod answer;
mod batch;
mod body;
mod decode;
mod error;
mod frames;
mod handler;
mod inflate;
mod json;
mod loki;
mod memory;
mod metrics;
mod moment;
mod msgpack;
mod otlp;
mod quarantine;
mod rate;
mod receiver;
mod record;
mod sent;
mod serve;
mod snappy;
mod source;
mod store;
mod streams;
mod syslog;
mod tls;
mod troubles;
mod value;
mod window;
mod wire;

pub use self::{
    access::{Client, Network, ParseHashError, ParseNetworkError},
    error::BuildError,
    quarantine::{Kept, Quarantine, Replayed},
    rate::Rate,
    receiver::{Builder, Limits, Receiver},
    source::PushSource,
};
