//! What is wrong with a configuration: all of it at once, each with its place, its reason and what to do.

use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is: `logwarden.toml:12`, or `environment variable LOKI_URL`.
    pub place: String,
    /// The key: `loki.url`.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    /// Without the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A file that is no TOML has no key to name.
        let space = if self.key.is_empty() { "" } else { " " };
        write!(f, "{}: {}{space}{}", self.place, self.key, self.reason)
    }
}

/// Why a configuration cannot be used. Never empty; contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(f, "cannot use the configuration ({n} {})", if n == 1 { "mistake" } else { "mistakes" })?;
        for mistake in &self.0 {
            write!(f, "\n  {mistake}")?;
            if let Some(hint) = &mistake.hint {
                write!(f, "\n    hint: {hint}")?;
            }
        }
        Ok(())
    }
}
