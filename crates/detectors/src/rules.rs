//! Signatures of the classics.

/// A rule set that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Not readable as rules.
    #[error("{origin}: {message}")]
    Invalid {
        /// The file.
        origin: String,
        /// What is wrong, with line and column where known.
        message: String,
    },
}

/// Rules, compiled.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {}

impl RuleSet {
    /// The rules that come with the program.
    pub fn builtin() -> Self {
        Self {}
    }
}
