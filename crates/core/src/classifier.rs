//! Who judges a digest.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::{
    Timestamp,
    digest::{Capacity, Digest, Verdict},
    error::BoxError,
};

/// What a verdict cost, for the trail, the ceilings and the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The model's name; empty when there is none.
    pub model: String,
    /// Identifies model, prompt and schema: verdicts are remembered per this value.
    pub fingerprint: String,
    /// Calls made, with retries.
    pub calls: u32,
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Tokens of all answers.
    pub answer_tokens: u64,
    /// Citations of rows that do not exist, and other claims that were refused.
    pub refused: u32,
}

/// What a classifier answers.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What it cost.
    pub usage: Usage,
}

/// Why a digest could not be judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifyError {
    /// The model's server cannot be reached, is loading, or is busy.
    #[error("the model at {origin} is not available")]
    Unavailable {
        /// Scheme, host and port; no credentials.
        origin: String,
        /// When to try again, where known.
        retry_after: Option<Duration>,
        /// Why.
        #[source]
        cause: BoxError,
    },
    /// The digest does not fit the model's window: ask about fewer rows.
    #[error("the digest has {tokens} tokens and the model's window {window}")]
    TooLarge {
        /// Tokens of the prompt, as the server counted.
        tokens: u32,
        /// Tokens that fit.
        window: u32,
    },
    /// The model answered, but not in a way that counts: cut off, not the schema, looping, nonsense.
    #[error("the model's answer cannot be used: {reason}")]
    Unusable {
        /// What was wrong.
        reason: String,
    },
    /// Nothing will change by itself: no such model, a refused schema, a cloud model.
    #[error("the model cannot be used: {reason}")]
    Misconfigured {
        /// What is wrong.
        reason: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Outside the hours in which the model may work, or over a ceiling.
    #[error("the model rests until {until}: {reason}")]
    Resting {
        /// When it may work again.
        until: Timestamp,
        /// Why.
        reason: String,
    },
}

impl ClassifyError {
    /// Whether the same question may be answered later although nobody changes anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Resting { .. })
    }
}

/// Judges digests.
///
/// # Contract
///
/// * A verdict cites only rows of the digest it was given; what does not is refused and counted in [`Usage::refused`].
/// * It never repairs a broken answer: what is not whole and valid is [`ClassifyError::Unusable`].
/// * Dropping the future stops the work, also at the server where that is possible.
#[async_trait]
pub trait Classifier: fmt::Debug + Send + Sync {
    /// How much fits one call. May change with what was measured.
    fn capacity(&self) -> Capacity;

    /// Identifies model and prompt without asking them; verdicts are remembered per this value.
    fn fingerprint(&self) -> String;

    /// Learns what [`Self::capacity`] and [`Self::fingerprint`] depend on, as far as that costs next to nothing; called
    /// before rows are planned. What fails here fails again, with its reason, in [`Self::classify`].
    async fn prepare(&self) {}

    /// Judges a digest.
    ///
    /// # Errors
    ///
    /// With a reason that says whether to wait, to split, or to go on without.
    async fn classify(&self, digest: &Digest) -> Result<Judgement, ClassifyError>;
}
