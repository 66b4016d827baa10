//! The promises of [`LogSource`], as functions that every implementation runs.

use std::collections::{BTreeMap, HashSet};

use crate::{
    Line, LineId, Timestamp,
    source::{Budget, Cursor, LogSource, MAX_QUERIES, Page, ProblemKind, Seen, SourceError},
};

/// A reader that commits every page, as the pipeline does: the lines into `seen`, and the cursor.
#[derive(Debug, Default)]
pub struct Reader {
    /// Where reading goes on.
    pub cursor: Option<Cursor>,
    /// What was brought.
    pub seen: Seen,
    /// Every line brought, in the order it came; a line that came again for another query is in it twice.
    pub lines: Vec<Line>,
    /// What the pages called problems.
    pub problems: Vec<(String, ProblemKind, SourceError)>,
    /// How far the last page reached.
    pub horizon: Option<Timestamp>,
    /// Sums over all pages.
    pub late: u64,
    /// Sums over all pages.
    pub duplicates: u64,
    /// Pages read.
    pub pages: u64,
}

impl Reader {
    /// Reads one page and commits it.
    ///
    /// # Errors
    ///
    /// Those of the source.
    ///
    /// # Panics
    ///
    /// When the page breaks the contract: over budget, no progress, tags of no query, a pair that was already brought,
    /// lines of one stream out of order within the page.
    pub async fn page(&mut self, source: &dyn LogSource, budget: Budget) -> Result<bool, SourceError> {
        let page = source.read(self.cursor.as_ref(), &self.seen, budget).await?;
        check_page(source, self.cursor.as_ref(), &self.seen, budget, &page);
        let more = page.more;
        for line in &page.lines {
            self.seen.insert(line.time, line.id, line.tags);
        }
        self.cursor = Some(page.next);
        self.lines.extend(page.lines);
        self.problems.extend(page.problems.into_iter().map(|p| (p.subject, p.kind, p.error)));
        self.horizon = page.horizon;
        self.late += page.late;
        self.duplicates += page.duplicates;
        self.pages += 1;
        Ok(more)
    }

    /// Reads until there is no more; `budgets` are used in turn.
    ///
    /// # Errors
    ///
    /// The first that a read gives; reading again goes on from there.
    ///
    /// # Panics
    ///
    /// When a page breaks the contract, or there is no end.
    pub async fn drain(&mut self, source: &dyn LogSource, budgets: &[Budget]) -> Result<(), SourceError> {
        for budget in budgets.iter().cycle().take(100_000) {
            if !self.page(source, *budget).await? {
                return Ok(());
            }
        }
        panic!("100,000 pages and still more");
    }

    /// What was brought: for each time and text the queries, once per line, sorted.
    pub fn brought(&self) -> Vec<(Timestamp, String, u64)> {
        let mut lines: BTreeMap<LineId, (Timestamp, String, u64)> = BTreeMap::new();
        for line in &self.lines {
            let text = String::from_utf8_lossy(&line.text).into_owned();
            lines.entry(line.id).or_insert((line.time, text, 0)).2 |= line.tags;
        }
        let mut lines: Vec<_> = lines.into_values().collect();
        lines.sort();
        lines
    }
}

/// The promises that one page must keep.
fn check_page(source: &dyn LogSource, cursor: Option<&Cursor>, seen: &Seen, budget: Budget, page: &Page) {
    assert!(source.queries().len() <= MAX_QUERIES, "{} queries", source.queries().len());
    assert!(page.lines.len() <= budget.lines, "{} lines for a budget of {}", page.lines.len(), budget.lines);
    let bytes: usize = page.lines.iter().map(|line| line.text.len()).sum();
    let last = page.lines.iter().map(|line| line.text.len()).max().unwrap_or(0);
    assert!(bytes < budget.bytes.saturating_add(last.max(1)), "{bytes} bytes for a budget of {}", budget.bytes);
    assert!(
        !page.more || !page.lines.is_empty() || cursor != Some(&page.next),
        "a page with more that brings nothing and moves nothing"
    );
    let all = 1_u64.checked_shl(u32::try_from(source.queries().len()).unwrap_or(64)).unwrap_or(0).wrapping_sub(1);
    let mut ids = HashSet::new();
    let mut per_query = vec![0; source.queries().len()];
    for line in &page.lines {
        assert!(line.tags != 0 && line.tags & !all == 0, "tags {:b} of {} queries", line.tags, per_query.len());
        assert!(ids.insert(line.id), "a line twice in one page: {line:?}");
        assert_eq!(line.tags & seen.queries(line.time, line.id), 0, "a pair that was already brought: {line:?}");
        for (query, count) in per_query.iter_mut().enumerate() {
            *count += line.tags >> query & 1;
        }
    }
    assert_eq!(per_query, page.per_query, "lines per query");
}

/// Reading from the start until there is no more brings exactly `expected` (time, text, queries), each pair once, and a
/// second drain brings nothing; reading a page twice from the same cursor brings the same lines.
///
/// # Panics
///
/// When the source breaks the contract.
pub async fn brings_every_line_once(
    source: &dyn LogSource,
    budgets: &[Budget],
    mut expected: Vec<(Timestamp, String, u64)>,
) {
    let mut reader = Reader::default();
    let first = budgets.first().copied().expect("at least one budget");
    let once = source.read(None, &reader.seen, first).await.expect("a page");
    let again = source.read(None, &reader.seen, first).await.expect("the same page");
    assert_eq!(once.lines, again.lines, "a page read twice");

    reader.drain(source, budgets).await.expect("a whole read");
    expected.sort();
    let brought = reader.brought();
    if brought != expected {
        let missing: Vec<_> = expected.iter().filter(|line| !brought.contains(line)).take(10).collect();
        let surplus: Vec<_> = brought.iter().filter(|line| !expected.contains(line)).take(10).collect();
        panic!("{} lines instead of {}; missing {missing:#?}, surplus {surplus:#?}", brought.len(), expected.len());
    }
    let lines = reader.lines.len();
    reader.drain(source, budgets).await.expect("an empty read");
    assert_eq!(reader.lines.len(), lines, "a second drain brings lines again");
}

/// A source that has gone through anything still brings every line: reads until `expected` is complete, tries again after
/// errors, and gives up after `tries` reads.
///
/// # Panics
///
/// When lines are missing in the end, or the source breaks the contract.
pub async fn recovers(source: &dyn LogSource, budgets: &[Budget], tries: usize, expected: &[(Timestamp, String, u64)]) {
    let mut reader = Reader::default();
    let mut expected = expected.to_vec();
    expected.sort();
    for budget in budgets.iter().cycle().take(tries) {
        if let Err(error) = reader.page(source, *budget).await {
            assert!(error.is_transient(), "a permanent error: {}", crate::error::chain(&error));
        }
        if reader.brought() == expected {
            return;
        }
    }
    panic!("{} of {} lines after {tries} reads: {:#?}", reader.brought().len(), expected.len(), reader.problems);
}
