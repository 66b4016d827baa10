//! The memory of normal: what each template of each origin usually does.

use std::{collections::HashMap, sync::Arc};

use logwarden_templates::{Origin, RootId, Timestamp};
use serde::{Deserialize, Serialize};

/// The key of a [`MemoryRow`]: origin and template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryKey(u128);

impl MemoryKey {
    /// The key of a template at an origin.
    pub fn of(origin: &Origin, root: RootId) -> Self {
        let id = logwarden_templates::LineId::of(&[
            origin.host.as_bytes(),
            origin.service.as_bytes(),
            &root.bits().to_be_bytes(),
        ]);
        Self(id.bits())
    }

    /// The key with these bits, as a store kept them.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits, as a store keeps them.
    pub const fn bits(self) -> u128 {
        self.0
    }
}

/// What is normal for one template of one origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryRow {
    /// Who.
    pub origin: Arc<Origin>,
    /// The template.
    pub root: RootId,
    /// Its text.
    pub template: Arc<str>,
    /// The first event ever.
    pub first: Timestamp,
    /// The latest event.
    pub last: Timestamp,
    /// Events ever.
    pub count: u64,
}

/// What is known about a source as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceRow {
    /// When its first line was written; `None` before the first line.
    pub first: Option<Timestamp>,
    /// When its latest line was written.
    pub last: Option<Timestamp>,
    /// Lines ever.
    pub lines: u64,
    /// Whether a backfill ended the warm-up early.
    pub backfilled: bool,
}

/// The memory of normal of one source. Read-only for [`detect`](crate::detect); grows by [`Memory::apply`].
#[derive(Clone, Debug, Default)]
pub struct Memory {
    source: SourceRow,
    rows: HashMap<MemoryKey, MemoryRow>,
}

/// What a detection has learned: rows to store, replacing those with the same key. Nothing else changes the memory.
#[derive(Clone, Debug, Default)]
pub struct Learned {
    /// Rows that are new or changed.
    pub rows: Vec<(MemoryKey, MemoryRow)>,
    /// Rows that are gone (their template generalised, or the memory was full).
    pub removed: Vec<MemoryKey>,
    /// The source as a whole.
    pub source: SourceRow,
}

impl Memory {
    /// A memory from what a store kept.
    pub fn new(source: SourceRow, rows: impl IntoIterator<Item = (MemoryKey, MemoryRow)>) -> Self {
        Self { source, rows: rows.into_iter().collect() }
    }

    /// What is known about the source as a whole.
    pub fn source(&self) -> &SourceRow {
        &self.source
    }

    /// What is normal for a template of an origin.
    pub fn get(&self, key: MemoryKey) -> Option<&MemoryRow> {
        self.rows.get(&key)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes over what was learned. Call it once the commit has succeeded.
    pub fn apply(&mut self, learned: &Learned) {
        for key in &learned.removed {
            self.rows.remove(key);
        }
        self.rows.extend(learned.rows.iter().cloned());
        self.source = learned.source.clone();
    }
}
