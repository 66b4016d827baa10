//! A source whose lines are written while it is read.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use logwarden_core::{
    Line, LineId, ProfileName, Stream, Timestamp,
    source::{Budget, Cursor, LogSource, Page, QueryInfo, Seen, SourceError, SourceId},
    templates::Clock,
};

/// Lines in memory until they were committed; the cursor is how many were taken.
#[derive(Debug)]
pub struct Tail {
    id: SourceId,
    queries: Vec<QueryInfo>,
    ahead: Duration,
    lines: Mutex<(u64, VecDeque<Line>)>,
}

impl Tail {
    /// An empty source, which has read all there is up to `ahead` of now.
    pub fn new(id: &str, ahead: Duration) -> Arc<Self> {
        let queries = vec![QueryInfo { text: "{job=\"syslog\"}".into(), profiles: vec![ProfileName::general()] }];
        Arc::new(Self { id: SourceId(id.into()), queries, ahead, lines: Mutex::default() })
    }

    /// Adds a line.
    pub fn push(&self, time: Timestamp, stream: &Arc<Stream>, text: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let number = lines.0 + lines.1.len() as u64;
        lines.1.push_back(Line {
            id: LineId::of(&[self.id.0.as_bytes(), &number.to_le_bytes()]),
            time,
            clock: Clock::Record,
            stream: stream.clone(),
            text: text.as_bytes().to_vec(),
            tags: 1,
        });
    }
}

#[async_trait]
impl LogSource for Tail {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn queries(&self) -> &[QueryInfo] {
        &self.queries
    }

    async fn read(&self, cursor: Option<&Cursor>, _: &Seen, budget: Budget) -> Result<Page, SourceError> {
        let from: u64 = cursor.and_then(|cursor| cursor.0.parse().ok()).unwrap_or(0);
        let mut guard = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, waiting) = &mut *guard;
        while *first < from && waiting.pop_front().is_some() {
            *first += 1;
        }
        let lines: Vec<_> = waiting.iter().take(budget.lines).cloned().collect();
        let next = *first + lines.len() as u64;
        Ok(Page {
            per_query: vec![lines.len() as u64],
            next: Cursor(next.to_string()),
            more: lines.len() < waiting.len(),
            horizon: Some(budget.now.plus(self.ahead)),
            lines,
            ..Page::default()
        })
    }
}
