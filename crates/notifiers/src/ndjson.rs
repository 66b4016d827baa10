//! Messages as JSON, one per line, for pipes and files.

use std::{
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use logwarden_core::{
    Severity,
    message::Message,
    notifier::{Channel, Form, Notifier, NotifyError, Receipt},
};

use crate::{address, document::Document, http, terminal};

/// Writes every message as one line of JSON (the document of the [webhook](crate::Webhook)).
pub struct Ndjson {
    channel: Channel,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Ndjson {
    /// A channel called `name` that writes to `out`.
    pub fn new(name: impl Into<Arc<str>>, out: Box<dyn Write + Send>, min_severity: Severity) -> Self {
        let name = name.into();
        let destination = address::hash(b"", "ndjson", &name);
        Self { channel: terminal::local(name, destination, "ndjson", min_severity), out: Mutex::new(out) }
    }
}

#[async_trait]
impl Notifier for Ndjson {
    fn channel(&self) -> &Channel {
        &self.channel
    }

    async fn send(&self, message: &Message, form: Form, _amend: Option<&Receipt>) -> Result<Receipt, NotifyError> {
        let line = serde_json::to_string(&Document::of(message, form)).map_err(io::Error::from);
        terminal::write_out(&self.out, line.map(|line| line + "\n"))
            .map_err(|cause| http::unreachable(&self.channel.name, false, None, cause))?;
        Ok(Receipt::default())
    }
}

impl fmt::Debug for Ndjson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ndjson({:?})", self.channel.name)
    }
}
