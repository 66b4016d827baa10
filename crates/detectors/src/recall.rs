//! What the memory knows of the rows of a delta, looked up once.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use hashbrown::HashMap;
use logwarden_templates::{Delta, Origin};

use crate::{Memory, MemoryKey, MemoryRow, memory::ORIGIN};

/// A key, and the row that the memory has for it.
pub(crate) type Known<'m> = (MemoryKey, Option<&'m MemoryRow>);

/// Rows and origins of a delta, as the memory knows them.
pub(crate) struct Recall<'d, 'm> {
    /// By row.
    pub(crate) rows: Vec<Known<'m>>,
    /// The origins, each once, in order of first occurrence, with what is known about each as a whole.
    pub(crate) origins: Vec<(&'d Arc<Origin>, Known<'m>)>,
    /// By row: its origin's place in `origins`.
    pub(crate) origin_of: Vec<usize>,
}

impl<'d, 'm> Recall<'d, 'm> {
    pub(crate) fn new(delta: &'d Delta, memory: &'m Memory) -> Self {
        let known = |key: MemoryKey| (key, memory.get(key));
        let mut recall =
            Self { rows: Vec::new(), origins: Vec::new(), origin_of: Vec::with_capacity(delta.rows.len()) };
        let mut keys = Vec::with_capacity(delta.rows.len());
        let mut by_place: HashMap<*const Origin, usize> = HashMap::new();
        let mut by_name: BTreeMap<&Origin, usize> = BTreeMap::new();
        for row in &delta.rows {
            // Most rows share the very same origin; comparing names for each of them takes longer.
            let origin = *by_place.entry(Arc::as_ptr(&row.origin)).or_insert_with(|| {
                *by_name.entry(&row.origin).or_insert_with(|| {
                    recall.origins.push((&row.origin, known(MemoryKey::of(&row.origin, ORIGIN))));
                    recall.origins.len() - 1
                })
            });
            recall.origin_of.push(origin);
            keys.push(MemoryKey::of(&row.origin, row.root));
        }
        // Apart from making the keys, so that the processor waits for many rows at once.
        recall.rows = keys.into_iter().map(known).collect();
        recall
    }

    /// Has what is known of rows fetched that are looked at next.
    pub(crate) fn fetch(&self, from: usize, rows: usize) {
        let rows = self.rows.iter().skip(from).take(rows).filter_map(|(_, known)| *known);
        // One of each part, since a row is longer than a line of the cache.
        let parts = |row: &MemoryRow| row.count ^ row.stats.hours.day as u64 ^ row.stats.values.day as u64;
        black_box(rows.fold(0, |sum, row| sum ^ parts(row) ^ u64::from(row.stats.rate.open)));
    }
}
