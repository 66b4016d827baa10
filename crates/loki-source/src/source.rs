//! The source: which windows are read in which order, and where a page of lines ends.
//!
//! All queries move forward together, the one that is furthest behind first, so that a line that several of them match
//! is found by all before it leaves. A page ends at a time `T` up to which every query is done; only where more lines than
//! the budget carry one nanosecond it ends inside of it, and the cursor says which of them were taken.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use async_trait::async_trait;
use logwarden_core::{
    Line, LineId, Timestamp,
    error::chain,
    source::{Budget, Cursor, LogSource, Page, Problem, ProblemKind, QueryInfo, Seen, SourceError, SourceId},
};
use tokio::time::{Instant, timeout};

use crate::{
    config::{Builder, Reading},
    cursor::{MINUTE, Partial, State},
    failure::{Failure, Kind},
    http::Http,
    page::{Pace, Reader, Streams},
    sweep,
};

/// Minutes for which counts are compared at most.
const COUNT_MINUTES: i64 = 24 * 60;

/// Lines from a Grafana Loki.
#[derive(Debug)]
pub struct Loki {
    id: SourceId,
    queries: Vec<QueryInfo>,
    pub(crate) http: Http,
    reading: Reading,
}

impl Builder {
    /// Builds the source; no request is made.
    ///
    /// # Errors
    ///
    /// [`SourceError::Unusable`] for a URL, query, tenant, header or certificate that can never work.
    pub fn build(self) -> Result<Loki, SourceError> {
        let url = self.checked()?;
        let http = Http::new(&self, url)?;
        let of_url = || {
            let tenants = if http.tenants().is_empty() { String::new() } else { format!(" {}", http.tenants()) };
            SourceId(format!("loki {}{tenants}", http.base()))
        };
        let id = self.id.clone().unwrap_or_else(of_url);
        Ok(Loki { id, queries: self.queries, http, reading: self.reading })
    }
}

impl Loki {
    /// Begins with the URL (a base path is kept) and the queries.
    pub fn builder(url: &str, queries: Vec<QueryInfo>) -> Builder {
        Builder::new(url, queries)
    }

    /// Plans a new pass: how far it goes, and what is read again.
    async fn plan(&self, state: &mut State, seen: &Seen, now: i64, pass: &mut Pass) {
        let end = now.saturating_sub(nanos(self.reading.settle));
        for (bit, q) in state.queries.iter_mut().enumerate() {
            q.until = end.max(q.pos);
            sweep::overlap(q, bit, seen, nanos(self.reading.overlap));
            if q.pos > now.saturating_add(MINUTE) {
                let error = SourceError::Unusable {
                    subject: format!("the query `{}`", q.query),
                    reason: format!("it was read up to {}, which is in the future", Timestamp::from_nanos(q.pos)),
                    hint: Some("the clock was wrong then or is wrong now; reading goes on when that time comes".into()),
                };
                pass.problems.push(Problem { subject: q.query.clone(), kind: ProblemKind::Retry, error });
            }
            let due = |rule: Option<(Duration, Duration)>, last: i64| {
                rule.filter(|(every, _)| now.saturating_sub(last) >= nanos(*every)).map(|(_, range)| nanos(range))
            };
            let (near, deep) = (due(self.reading.sweep, q.swept), due(self.reading.deep_sweep, q.deep_swept));
            let Some(range) = near.max(deep) else { continue };
            if pass.failed(bit) || pass.slow {
                continue;
            }
            q.swept = now;
            q.deep_swept = if deep.is_some() { now } else { q.deep_swept };
            let oldest = q.pos.div_euclid(MINUTE) - COUNT_MINUTES;
            q.settled = q.settled.split_off(&oldest);
            q.edges.forget_before(oldest);
            let behind = end.saturating_sub(q.pos) > 10 * MINUTE;
            let asked = Instant::now();
            let swept = timeout(pass.patience, sweep::sweep(&self.http, q, bit, seen, range, behind)).await;
            let swept = swept.unwrap_or_else(|_| Err(self.http.silent()));
            if swept.is_err() {
                pass.patience = pass.patience.saturating_sub(asked.elapsed());
            }
            match swept {
                Ok(None) => {}
                Ok(Some((kind, error))) => pass.problems.push(Problem { subject: q.query.clone(), kind, error }),
                Err(failure) if pass.is_everywhere(&failure) => pass.fail(bit, failure),
                Err(failure) => {
                    pass.slow |= matches!(failure.error, SourceError::Unreachable { .. });
                    let kind = ProblemKind::Retry;
                    pass.problems.push(Problem { subject: q.query.clone(), kind, error: failure.error });
                }
            }
        }
    }

    /// Reads on until the budget is full or nothing is left.
    async fn collect(&self, state: &mut State, seen: &Seen, budget: Budget, pass: &mut Pass) {
        let mut streams = Streams::default();
        let (began, mut first) = (Instant::now(), None);
        loop {
            let Some((i, window)) = pass.furthest_behind(state) else { return };
            if pass.is_full(budget, window.from) {
                return;
            }
            // A slow Loki, too, brings something before the time is up.
            let first = *first.get_or_insert(window.from);
            if began.elapsed() > self.reading.patience && first < window.from {
                return;
            }
            // Nobody overtakes the one that is ahead, so that what waits for the others stays small.
            let ahead = (0..state.queries.len()).filter(|other| *other != i).filter_map(|other| {
                state.queries[other].next(pass.frontier[other]).filter(|_| !pass.failed(other)).map(|w| w.from)
            });
            let ahead = ahead.filter(|from| *from > window.from).max().unwrap_or(i64::MAX);
            let q = &mut state.queries[i];
            // The others' queries want some of it, too.
            let patience = (self.http.timeout.saturating_mul(5) / 2).min(pass.patience / 4 * 3);
            let mut reader = Reader {
                http: &self.http,
                query: &self.queries[i].text,
                streams: &mut streams,
                wanted: budget.lines.saturating_mul(2),
                hurried: pass.slow,
                patience,
            };
            let fetched = reader.fetch(&mut q.pace, window.from, window.to.min(ahead)).await;
            pass.patience -= patience - reader.patience;
            match fetched {
                Err(failure) => pass.fail(i, failure),
                Ok(fetched) => {
                    let late = window.from < q.pos;
                    let partial = state.partial.as_ref();
                    for line in fetched.lines {
                        let time = line.time.nanos();
                        let taken = partial.filter(|p| p.at == time).and_then(|p| p.taken.get(&line.id));
                        let known = if time >= q.since { seen.queries(line.time, line.id) } else { 0 };
                        pass.take(line, i, known | taken.copied().unwrap_or(0), late);
                    }
                    if let Some(error) = fetched.gap {
                        pass.gaps.push((i, window.from, fetched.lost, error));
                    }
                    pass.frontier[i] = fetched.until;
                }
            }
        }
    }
}

#[async_trait]
impl LogSource for Loki {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn queries(&self) -> &[QueryInfo] {
        &self.queries
    }

    async fn read(&self, cursor: Option<&Cursor>, seen: &Seen, budget: Budget) -> Result<Page, SourceError> {
        let now = budget.now.nanos();
        let texts: Vec<&str> = self.queries.iter().map(|query| query.text.as_str()).collect();
        let start = now.saturating_sub(nanos(self.reading.lookback));
        let mut state = State::parse(cursor, &texts, start, &Pace::new(self.reading.page_lines))?;
        let mut pass = Pass::new(texts.len(), self.reading.patience);
        for (bit, q) in state.queries.iter_mut().enumerate() {
            sweep::drop_forgotten(q, bit, seen);
        }
        if !state.open {
            self.plan(&mut state, seen, now, &mut pass).await;
        }
        self.collect(&mut state, seen, budget, &mut pass).await;
        pass.finish(state, budget)
    }
}

/// One read under way.
#[derive(Debug)]
struct Pass {
    /// Everything before is read, by query.
    frontier: Vec<i64>,
    failures: Vec<Option<Failure>>,
    /// A request has timed out, or its connection broke.
    slow: bool,
    /// How long requests may still fail.
    patience: Duration,
    /// What makes every further request pointless.
    down: Option<SourceError>,
    lines: Vec<Taken>,
    places: HashMap<LineId, usize>,
    bytes: usize,
    duplicates: u64,
    gaps: Vec<(usize, i64, Option<u64>, SourceError)>,
    problems: Vec<Problem>,
    progress: bool,
}

#[derive(Debug)]
struct Taken {
    line: Line,
    late: bool,
}

impl Pass {
    fn new(queries: usize, patience: Duration) -> Self {
        Self {
            patience,
            frontier: vec![i64::MIN; queries],
            failures: std::iter::repeat_with(|| None).take(queries).collect(),
            slow: false,
            down: None,
            lines: Vec::new(),
            places: HashMap::new(),
            bytes: 0,
            duplicates: 0,
            gaps: Vec::new(),
            problems: Vec::new(),
            progress: false,
        }
    }

    fn failed(&self, query: usize) -> bool {
        self.down.is_some() || self.failures[query].is_some()
    }

    /// Whether no other query can fare better.
    fn is_everywhere(&self, failure: &Failure) -> bool {
        let unreachable = |failure: &Failure| matches!(failure.error, SourceError::Unreachable { .. });
        // A connection that breaks or times out may be the fault of one heavy query; of two of them it is not.
        let another = || self.failures.iter().flatten().any(unreachable);
        failure.kind == Kind::Source || (unreachable(failure) && (failure.kind == Kind::Later || another()))
    }

    fn fail(&mut self, query: usize, failure: Failure) {
        self.slow |= matches!(failure.error, SourceError::Unreachable { .. });
        if self.is_everywhere(&failure) {
            self.down = Some(same(&failure.error));
        }
        self.failures[query] = Some(failure);
    }

    fn furthest_behind(&self, state: &State) -> Option<(usize, crate::cursor::Window)> {
        let waiting = state.queries.iter().enumerate().filter(|(i, _)| !self.failed(*i));
        waiting.filter_map(|(i, q)| Some((i, q.next(self.frontier[i])?))).min_by_key(|(_, window)| window.from)
    }

    fn take(&mut self, mut line: Line, query: usize, known: u64, late: bool) {
        self.progress = true;
        let bit = 1_u64 << query;
        if known & bit != 0 {
            self.duplicates += 1;
            return;
        }
        match self.places.get(&line.id) {
            Some(place) => self.lines[*place].line.tags |= bit,
            None => {
                line.tags = bit;
                self.bytes += line.text.len();
                self.places.insert(line.id, self.lines.len());
                self.lines.push(Taken { line, late });
            }
        }
    }

    /// Whether the lines before `time`, which are the ones that can leave, fill the budget.
    fn is_full(&self, budget: Budget, time: i64) -> bool {
        if self.lines.len() < budget.lines && self.bytes < budget.bytes {
            return false;
        }
        let ready = self.lines.iter().filter(|taken| taken.line.time.nanos() < time);
        let (lines, bytes) = ready.fold((0, 0), |(n, bytes), taken| (n + 1, bytes + taken.line.text.len()));
        lines >= budget.lines || bytes >= budget.bytes
    }

    /// Cuts the page, and moves the positions.
    fn finish(mut self, mut state: State, budget: Budget) -> Result<Page, SourceError> {
        let down = self.down.take();
        if let Some(error) = &down {
            for failure in self.failures.iter_mut().filter(|failure| failure.is_none()) {
                *failure = Some(Failure { kind: Kind::Later, error: same(error) });
            }
        }
        let nothing = self.lines.is_empty() && !self.progress && self.frontier.iter().all(|f| *f == i64::MIN);
        if nothing && self.failures.iter().all(Option::is_some) {
            let failures = std::mem::take(&mut self.failures).into_iter().zip(&state.queries);
            let mut errors = failures.filter_map(|(failure, query)| Some((failure?.error, &query.query)));
            let first = errors.next();
            for (error, query) in errors.filter(|_| down.is_none()) {
                tracing::warn!(query = %query, error = %chain(&error), "another query failed, too");
            }
            if let Some((error, _)) = first {
                return Err(error);
            }
        }

        let ready = self.furthest_behind(&state).map_or(i64::MAX, |(_, window)| window.from);
        self.lines.retain(|taken| taken.line.time.nanos() < ready);
        // The order between streams does not depend on how the pages fell; within a stream it is Loki's.
        self.lines.sort_by(|a, b| {
            let (a, b) = (&a.line, &b.line);
            a.time.cmp(&b.time).then_with(|| {
                if std::sync::Arc::ptr_eq(&a.stream, &b.stream) {
                    std::cmp::Ordering::Equal
                } else {
                    a.stream.labels().cmp(b.stream.labels())
                }
            })
        });
        let (mut fits, mut bytes) = (0, 0);
        for taken in &self.lines {
            if fits >= budget.lines || bytes >= budget.bytes {
                break;
            }
            fits += 1;
            bytes += taken.line.text.len();
        }
        let mut end = ready;
        let mut partial = None;
        if let Some(excluded) = self.lines.get(fits) {
            end = excluded.line.time.nanos();
            let whole = self.lines.partition_point(|taken| taken.line.time.nanos() < end);
            if whole > 0 {
                fits = whole;
            } else {
                partial = Some(end);
            }
        }
        self.lines.truncate(fits);
        self.settle(&mut state, end, partial);
        Ok(self.page(state, end))
    }

    /// Moves the positions to `end`, and counts what leaves.
    fn settle(&self, state: &mut State, end: i64, partial: Option<i64>) {
        for (i, q) in state.queries.iter_mut().enumerate() {
            let horizon = q.pos.div_euclid(MINUTE) - COUNT_MINUTES;
            q.done_before(self.frontier[i].min(end));
            let edges = self
                .lines
                .iter()
                .map(|taken| &taken.line)
                .filter(|line| line.tags & (1 << i) != 0 && line.time.nanos().rem_euclid(MINUTE) == 0);
            for line in edges {
                q.edges.add(line.time.minute(), horizon);
            }
        }
        let known = state.partial.take();
        match partial {
            Some(at) => {
                let mut taken: BTreeMap<LineId, u64> =
                    known.filter(|p| p.at == at).map(|p| p.taken).unwrap_or_default();
                for Taken { line, .. } in &self.lines {
                    *taken.entry(line.id).or_default() |= line.tags;
                }
                state.partial = Some(Partial { at, taken });
            }
            None => {
                let needed = |at: i64| state.queries.iter().any(|q| q.next(i64::MIN).is_some_and(|w| w.from <= at));
                state.partial = known.filter(|partial| needed(partial.at));
            }
        }
    }

    fn page(mut self, mut state: State, end: i64) -> Page {
        let active = |i: usize| self.failures[i].is_none();
        let more = (0..state.queries.len()).any(|i| active(i) && state.queries[i].next(i64::MIN).is_some());
        state.open = more;
        // A query that can never work must not hold up the others' multi-line events for ever.
        let counts = |i: &usize| self.failures[*i].as_ref().is_none_or(|failure| failure.error.is_transient());
        let horizon = (0..state.queries.len()).filter(counts).map(|i| state.queries[i].pos).min();
        for (i, at, lost, error) in std::mem::take(&mut self.gaps) {
            if at < end {
                let subject = state.queries[i].query.clone();
                self.problems.push(Problem { subject, kind: ProblemKind::Gap { lines: lost }, error });
            }
        }
        for (i, failure) in self.failures.into_iter().enumerate() {
            if let Some(failure) = failure {
                let subject = state.queries[i].query.clone();
                self.problems.push(Problem { subject, kind: ProblemKind::Retry, error: failure.error });
            }
        }
        let mut per_query = vec![0; state.queries.len()];
        for taken in &self.lines {
            for (i, count) in per_query.iter_mut().enumerate() {
                *count += taken.line.tags >> i & 1;
            }
        }
        let late = self.lines.iter().filter(|taken| taken.late).count() as u64;
        Page {
            lines: self.lines.into_iter().map(|taken| taken.line).collect(),
            next: state.cursor(),
            more,
            horizon: horizon.map(Timestamp::from_nanos),
            finished: false,
            duplicates: self.duplicates,
            late,
            per_query,
            problems: self.problems,
            ..Page::default()
        }
    }
}

/// The same error once more, for another query; causes become text.
fn same(error: &SourceError) -> SourceError {
    match error {
        SourceError::Unreachable { origin, cause } => {
            SourceError::Unreachable { origin: origin.clone(), cause: chain(cause.as_ref()).into() }
        }
        SourceError::Refused { origin, status, excerpt, hint } => SourceError::Refused {
            origin: origin.clone(),
            status: *status,
            excerpt: excerpt.clone(),
            hint: hint.clone(),
        },
        SourceError::Garbage { origin, reason } => {
            SourceError::Garbage { origin: origin.clone(), reason: reason.clone() }
        }
        SourceError::Unusable { subject, reason, hint } => {
            SourceError::Unusable { subject: subject.clone(), reason: reason.clone(), hint: hint.clone() }
        }
        SourceError::Io { path, cause } => {
            SourceError::Io { path: path.clone(), cause: std::io::Error::new(cause.kind(), cause.to_string()) }
        }
        other => SourceError::Gap { subject: other.to_string(), reason: String::new() },
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
