//! How a message gets to a human.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use logwarden_detectors::Severity;
use serde::{Deserialize, Serialize};

use crate::{error::BoxError, message::Message};

/// The hash of a destination: two hosts that post to the same place have the same one. Made with a keyed hash of the
/// secret address, so that it tells nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelHash(#[serde(with = "crate::id::hex128")] pub u128);

/// What deliver must know about a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The name in the configuration, in logs and in the ledger.
    pub name: Arc<str>,
    /// Where it leads.
    pub destination: ChannelHash,
    /// Channels of one vendor are held together when the vendor bans us: `discord`, `slack`.
    pub vendor: &'static str,
    /// Messages below are not sent here.
    pub min_severity: Severity,
    /// Whether a message can be amended later.
    pub amends: bool,
    /// How long one send may take at most; leases are longer.
    pub longest_send: Duration,
    /// The shortest time between two sends.
    pub gap: Duration,
    /// The most messages in a minute.
    pub per_minute: u32,
}

/// What a channel gave back for a message: enough to amend it. Opaque to all but its notifier; free of secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Receipt(pub String);

/// Which form of a message to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// With everything that fits.
    Full,
    /// Severity, service, host, count, incident and link only, all in our own words: valid on every platform whatever
    /// the log said. For when the full form was refused.
    Reduced,
}

/// Why a message was not delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// Not reached, or a server error, before anything was stored as far as we know.
    #[error("channel `{channel}` cannot be reached")]
    Unreachable {
        /// The channel's name.
        channel: Arc<str>,
        /// Whether the message may have arrived all the same (the answer was lost).
        ambiguous: bool,
        /// Not before, where the server said so.
        retry_after: Option<Duration>,
        /// Why; free of the address.
        #[source]
        cause: BoxError,
    },
    /// Too fast: hold the whole channel.
    #[error("channel `{channel}` is rate limited (HTTP 429)")]
    RateLimited {
        /// The channel's name.
        channel: Arc<str>,
        /// How long to wait.
        retry_after: Duration,
    },
    /// The vendor has banned us for a while: hold all its channels.
    #[error("channel `{channel}` is blocked by its vendor for a while")]
    Banned {
        /// The channel's name.
        channel: Arc<str>,
        /// How long to wait.
        retry_after: Duration,
    },
    /// The platform refuses this content: send the reduced form; when that is refused, too, give up.
    #[error("channel `{channel}` refused the message: {reason}")]
    ContentRefused {
        /// The channel's name.
        channel: Arc<str>,
        /// What it said, cleaned and capped.
        reason: String,
    },
    /// The message to amend is gone or cannot be amended any more: send a new one.
    #[error("channel `{channel}` cannot amend the message: {reason}")]
    NotAmendable {
        /// The channel's name.
        channel: Arc<str>,
        /// What it said.
        reason: String,
    },
    /// Nothing will arrive until somebody changes the configuration: deleted, revoked, forbidden.
    #[error("channel `{channel}` is broken: {reason}")]
    Broken {
        /// The channel's name.
        channel: Arc<str>,
        /// What it said, cleaned and capped.
        reason: String,
    },
}

impl NotifyError {
    /// Whether the same message may be delivered later although nobody changes anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::RateLimited { .. } | Self::Banned { .. })
    }
}

/// Sends messages to one channel.
///
/// # Contract
///
/// * One call makes at most one delivery attempt: no retries, no pacing, no queue. Those belong to deliver, which holds
///   the lease.
/// * A receipt means that the platform has confirmed the message in its own way (not merely 2xx).
/// * Every message is sent within the platform's limits in either form; nothing in it is active: no mention, no link
///   that is not ours, no control character.
/// * With `amends`, `send` with a receipt changes that message; otherwise a receipt is ignored.
/// * No error and no log line contains the address.
#[async_trait]
pub trait Notifier: fmt::Debug + Send + Sync {
    /// What deliver must know.
    fn channel(&self) -> &Channel;

    /// Sends `message`, or amends the one that `amend` stands for.
    ///
    /// # Errors
    ///
    /// With a reason that says: retry when, reshape, hold, or never.
    async fn send(&self, message: &Message, form: Form, amend: Option<&Receipt>) -> Result<Receipt, NotifyError>;
}
