//! Lines in memory, as a source.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    Line, LineId, ProfileName, Stream, Timestamp,
    source::{Budget, Cursor, LogSource, Page, QueryInfo, Seen, SourceError, SourceId},
    templates::Clock,
};

/// Lines in memory; the cursor is how many were read.
///
/// Stricter than a real source: it takes no cursor that it has not given, and no read for which there is no room.
#[derive(Debug)]
pub struct MemorySource {
    id: SourceId,
    queries: Vec<QueryInfo>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    is_down: bool,
    is_exact: bool,
}

impl MemorySource {
    /// A source with one query, whose lines are judged under the general profile.
    pub fn new(id: &str) -> Self {
        Self::with_queries(id, &["{job=\"test\"}"])
    }

    /// A source with several queries.
    pub fn with_queries(id: &str, queries: &[&str]) -> Self {
        let query = |text: &&str| QueryInfo { text: (*text).to_owned(), profiles: vec![ProfileName::general()] };
        Self { id: SourceId(id.to_owned()), queries: queries.iter().map(query).collect(), state: Mutex::default() }
    }

    /// Adds a line of host `web-1` for the first query.
    pub fn push(&self, time: Timestamp, text: &str) {
        self.push_from("web-1", time, text);
    }

    /// Adds a line of a host for the first query.
    pub fn push_from(&self, host: &str, time: Timestamp, text: &str) {
        self.push_for(1, host, time, text);
    }

    /// Adds a line that the queries of `tags` match.
    ///
    /// # Panics
    ///
    /// When there is none of them.
    pub fn push_for(&self, tags: u64, host: &str, time: Timestamp, text: &str) {
        assert!(tags != 0 && tags.leading_zeros() as usize + self.queries.len() >= 64, "no such query: {tags:b}");
        let stream = Arc::new(Stream::new(BTreeMap::from([("host".to_owned(), host.to_owned())])));
        let mut state = self.state();
        let id = LineId::of(&[&state.lines.len().to_le_bytes()]);
        state.lines.push(Line { id, time, clock: Clock::Record, stream, text: text.as_bytes().to_vec(), tags });
    }

    /// Whether reading fails from now on.
    pub fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// Whether the cursor alone tells what was brought.
    pub fn set_exact(&self, is_exact: bool) {
        self.state().is_exact = is_exact;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl LogSource for MemorySource {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn queries(&self) -> &[QueryInfo] {
        &self.queries
    }

    async fn read(&self, cursor: Option<&Cursor>, seen: &Seen, budget: Budget) -> Result<Page, SourceError> {
        assert!(budget.lines > 0 && budget.bytes > 0, "a read that has no room: {budget:?}");
        let state = self.state();
        if state.is_down {
            return Err(SourceError::Unreachable { origin: "http://loki".into(), cause: "refused".into() });
        }
        let from = cursor.map_or(Some(0), |cursor| cursor.0.parse().ok()).filter(|from| *from <= state.lines.len());
        let mut at = from.unwrap_or_else(|| panic!("a cursor that was never given: {cursor:?}"));
        let horizon = Some(budget.now.plus(Duration::from_secs(60)));
        let mut page =
            Page { per_query: vec![0; self.queries.len()], horizon, exact: state.is_exact, ..Page::default() };
        let mut bytes = 0;
        while let Some(line) = state.lines.get(at).filter(|_| page.lines.len() < budget.lines && bytes < budget.bytes) {
            at += 1;
            let known = line.tags & seen.queries(line.time, line.id);
            page.duplicates += u64::from(known.count_ones());
            let tags = line.tags & !known;
            if tags == 0 {
                continue;
            }
            for (query, count) in page.per_query.iter_mut().enumerate() {
                *count += tags >> query & 1;
            }
            bytes += line.text.len();
            page.lines.push(Line { tags, ..line.clone() });
        }
        page.next = Cursor(at.to_string());
        page.more = at < state.lines.len();
        Ok(page)
    }
}
