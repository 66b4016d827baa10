//! Lets one of several hosts speak, per channel.
//!
//! Deliver calls [`DedupStore::reserve`] before it sends and [`DedupStore::settle`] when the channel has answered: a crash
//! in between repeats a message but never swallows one, and of two hosts only one speaks.
//!
//! Nothing here reads a finding's text: keys are opaque. The store owns its clock, since hosts' clocks differ.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::{
    Timestamp,
    error::BoxError,
    finding::Key,
    incident::Rank,
    message::SendId,
    notifier::{ChannelHash, Receipt},
};

/// So long after a claim's lease nobody else says what it was about: whoever held it may be gone, and may have sent it. Its
/// own next attempt, which may be soon after the lease, says all of it once more; another's message would say a part of it,
/// and then that attempt the rest with that part. Two passes of a timer.
pub const HOLD: Duration = Duration::from_secs(600);

/// What somebody wants to say.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// The message; the same through retries.
    pub id: SendId,
    /// Raised with every claim of the message: what fails in an older epoch changes nothing (R10).
    pub epoch: u64,
    /// Where.
    pub channel: ChannelHash,
    /// What it is about: every key with the rank at which it is said. Never empty.
    pub keys: &'a [(Key, Rank)],
    /// How old the event is: the window counts back from the event, not from now (R6).
    pub age: Duration,
    /// Told within this time before the event is told already. A reminder gives half its window.
    pub window: Duration,
    /// How long the claim may stay unsettled; longer than the longest send.
    pub lease: Duration,
}

/// Whether to speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Speak.
    First {
        /// When that was, by the store's clock. Whoever settles says it again: by then the store may have another
        /// reservation of this message, and clocks may have been set.
        at: Timestamp,
    },
    /// This very message was delivered before (we crashed after that): settle, do not send.
    Delivered {
        /// What the channel gave back then.
        receipt: Receipt,
    },
    /// All keys were told there within the window at this rank or above (R4): do not send.
    Repeat {
        /// What the channel gave back to whoever told the last of it.
        receipt: Receipt,
        /// How long ago the first of it was told: a reminder counts from then.
        ago: Duration,
    },
    /// Somebody else is about to say some of it: come back later.
    Pending {
        /// When it is free, at the latest.
        wait: Duration,
    },
}

/// When a message was reserved that has arrived: told counts from then (R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// When the store said [`Standing::First`], by its own clock.
    At(Timestamp),
    /// The store's answer was not heard. So long ago at most, by the sender's clock; the longest of all when nobody knows.
    Ago(Duration),
}

/// How a claim ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The channel confirmed it.
    Delivered {
        /// What it gave back.
        receipt: Receipt,
        /// When it was reserved.
        reserved: Reserved,
    },
    /// Not sent, or refused: frees the claim, if it is still the same epoch's (R10).
    Failed,
    /// Sent, and nobody knows whether it arrived: nobody else says it before this message was tried again, for so long at
    /// most. Its own next attempt may reserve at once.
    Unclear {
        /// How long the claim is kept from now on.
        hold: Duration,
    },
}

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
#[error("the deduplication store cannot be used")]
pub struct DedupError {
    /// Why.
    #[source]
    pub cause: BoxError,
}

/// Remembers what was said where, and when.
///
/// # Contract
///
/// * Of any number of callers that reserve overlapping keys for one channel at once, exactly one is told `First`.
/// * A reservation that is never settled expires with its lease for the same message, and [`HOLD`] later for everybody else;
///   the next caller is told `First`.
/// * `Repeat` only if every key was told within the window before the event at the claim's rank or above.
/// * Told counts from the moment of the sender's own reservation (R6), also when a later one has taken its place. What was
///   told is kept per (channel, key, rank): the last time.
/// * An attempt that a later epoch of its message has overtaken is told `Pending` (R2).
/// * `Failed` and `Unclear` of an epoch that is no longer the claim's change nothing (R10). `Delivered` is a fact and
///   counts whoever says it. Settled ids are kept 30 days.
/// * Either future may be dropped at any `.await`; the store then holds the old state or the new one.
#[async_trait]
pub trait DedupStore: fmt::Debug + Send + Sync {
    /// Asks whether to speak.
    ///
    /// # Errors
    ///
    /// When the store cannot be used; deliver then speaks anyway: rather twice than not at all.
    async fn reserve(&self, claim: &Claim<'_>) -> Result<Standing, DedupError>;

    /// Says how it ended.
    ///
    /// # Errors
    ///
    /// When the store cannot be used; the reservation then expires with its lease.
    async fn settle(&self, claim: &Claim<'_>, outcome: &Outcome) -> Result<(), DedupError>;
}
