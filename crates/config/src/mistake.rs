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

/// Why a configuration cannot be used. Never empty; contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(f, "cannot use the configuration ({n} {})", if n == 1 { "mistake" } else { "mistakes" })?;
        for mistake in &self.0 {
            // A file that is no TOML has no key to name.
            let space = if mistake.key.is_empty() { "" } else { " " };
            write!(f, "\n  {}: {}{space}{}", mistake.place, mistake.key, mistake.reason)?;
            if let Some(hint) = &mistake.hint {
                write!(f, "\n    hint: {hint}")?;
            }
        }
        Ok(())
    }
}

/// The one of `known` that was most likely meant by `word`, if one is near enough.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|candidate| (distance(word, candidate), candidate));
    scored.filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4).min().map(|(_, candidate)| candidate)
}

/// The number of characters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_the_key_that_was_meant() {
        let known = ["window_seconds", "url", "queries"];
        assert_eq!(nearest("windows_second", known), Some("window_seconds"));
        assert_eq!(nearest("querys", known), Some("queries"));
        assert_eq!(nearest("colour", known), None);
    }
}
