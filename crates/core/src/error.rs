//! What all errors share.

use std::{error::Error, fmt::Write};

/// A cause of any type, as adapters hang it on their errors.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// An error with all its causes in one line, outermost first: `cannot read: refused: no route`.
///
/// The outermost caller prints it once; messages themselves never repeat their cause.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
