//! How far each followed file has been read.

use logwarden_core::source::{Cursor, SourceError};
use serde::{Deserialize, Serialize};

/// Bytes at the beginning of a file that tell it from another one with the same inode number.
pub(crate) const HEAD: u64 = 256;

/// The position in all files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Positions {
    pub(crate) files: Vec<Position>,
}

/// The position in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Where it was found.
    pub(crate) path: String,
    /// The group that it belongs to.
    pub(crate) group: usize,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Raised when the file is truncated, so that its lines are other lines than those before.
    pub(crate) generation: u64,
    /// Bytes read.
    pub(crate) offset: u64,
    /// The first bytes, at most [`HEAD`], hashed: so many, and what they hash to.
    pub(crate) head: (u64, String),
    /// Since when, in seconds, its name leads elsewhere and everything in it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gone: Option<i64>,
}

impl Positions {
    pub(crate) fn parse(cursor: &Cursor) -> Result<Self, SourceError> {
        serde_json::from_str(&cursor.0).map_err(|error| SourceError::Unusable {
            subject: "the position in the followed files".to_owned(),
            reason: format!("it is damaged: {error}"),
            hint: None,
        })
    }

    pub(crate) fn to_cursor(&self) -> Cursor {
        Cursor(serde_json::to_string(self).unwrap_or_default())
    }
}
