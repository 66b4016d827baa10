//! Takes log batches that shippers push over HTTP.
mod batch;
mod decode;
mod inflate;
mod json;
mod loki;
mod moment;
mod msgpack;
mod otlp;
mod record;
mod value;
mod wire;
