//! Pages that are provably complete.
//!
//! A page cut by `limit` can have holes when Loki sharded the query (all releases from 2.9 to 3.8, issue 24663 of Loki),
//! a page over 4 MiB is never answered, and more lines than `limit` can have one timestamp. So a page counts as a proof
//! for its window only in the ways that [`complete`] knows; otherwise the window or the limit becomes smaller.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use logwarden_core::{Line, LineId, Stream, Timestamp, source::SourceError, templates::Clock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout};

use crate::{
    answer::{Answer, Data, Labels, Listing, Summary, Time},
    failure::{Failure, Kind},
    http::{Http, Reply},
    logql,
};

/// Lines of a page at least: ten lines of 256 KiB, the longest that Loki takes, fit 4 MiB.
const MIN_LINES: usize = 10;
/// Lines of a page at most in normal reading.
const MAX_LINES: usize = 2000;
/// `max_entries_limit_per_query` where Loki has not told another one.
const LOKI_MAX_LINES: usize = 5000;
/// Bytes of an answer up to which the next page may be larger, and from which it must be smaller.
const COMFORTABLE_BYTES: usize = 2 << 20;
const LARGE_BYTES: usize = 3 << 20;
/// The longest window of one request: small windows are what keeps a query from being sharded.
const MAX_SPAN: i64 = 3_600_000_000_000;
/// Windows are not shortened below this because of an error; for want of a proof they are, down to a nanosecond.
const MIN_SPAN: i64 = 1_000_000;

/// What was learned about the size of pages; kept in the cursor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Lines to ask for.
    limit: usize,
    /// Lines that Loki allows to ask for.
    max: usize,
    /// Nanoseconds to ask for.
    span: i64,
    /// Nanoseconds that Loki did not find too many.
    longest: i64,
}

impl Pace {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, max: LOKI_MAX_LINES, span: MAX_SPAN / 4, longest: MAX_SPAN }
    }

    fn learn_max(&mut self, max: usize) {
        self.max = max.min(self.max).max(1);
        self.limit = self.limit.min(self.max);
    }

    /// A page came: the next one may be larger, or must be smaller.
    fn came(&mut self, lines: usize, limit: usize, bytes: usize, span: i64) {
        if lines >= limit && bytes < COMFORTABLE_BYTES {
            let fits = LARGE_BYTES / (bytes / lines.max(1)).max(1);
            self.limit = self.limit.max((limit * 2).min(fits).min(MAX_LINES).min(self.max));
        } else if bytes > LARGE_BYTES {
            self.limit = (limit / 2).max(MIN_LINES).min(self.max);
        }
        if lines < limit / 4 && span >= self.span {
            self.span = self.span.saturating_mul(2).min(self.longest);
        }
        self.longest = self.longest.saturating_add(self.longest / 8).min(MAX_SPAN);
    }

    /// A window of `span` was too long.
    fn narrower(&mut self, span: i64) {
        self.span = (span / 2).clamp(MIN_SPAN, MAX_SPAN);
    }
}

/// A window that was read whole.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Its lines, by time; in the order of arrival within a stream.
    pub(crate) lines: Vec<Line>,
    /// It ends before this time.
    pub(crate) until: i64,
    /// Lines of it that cannot be had.
    pub(crate) gap: Option<SourceError>,
    /// How many these are, where Loki could tell.
    pub(crate) lost: Option<u64>,
}

/// Reads windows of one query.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) http: &'a Http,
    pub(crate) query: &'a str,
    pub(crate) streams: &'a mut Streams,
    /// A page need not be larger.
    pub(crate) wanted: usize,
    /// Something has timed out already in this read: one slow failure is enough.
    pub(crate) hurried: bool,
    /// How long requests may still fail.
    pub(crate) patience: Duration,
}

/// What one request brought.
#[derive(Debug)]
struct Page {
    lines: Vec<Line>,
    /// How many there were, with repetitions.
    returned: usize,
    summary: Option<Summary>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// Every line of the window is there.
    Whole,
    /// Every line up to the last timestamp is there, and maybe not all with that timestamp.
    First,
    /// Nothing is known.
    None,
    /// Only a count can tell.
    Count,
}

/// What a page of `lines` proves that was cut at `limit`.
fn complete(lines: usize, limit: usize, summary: Option<Summary>) -> Proof {
    let full = lines >= limit;
    let Some(Summary { shards: Some(shards), splits, total_post_filter_lines }) = summary else {
        return if full { Proof::None } else { Proof::Count };
    };
    let sharded = shards > splits.unwrap_or(0).max(1);
    // When all matches fit the limit, no answer of a shard can have been cut.
    let fits = total_post_filter_lines.is_some_and(|total| usize::try_from(total).is_ok_and(|total| total <= limit));
    match (full, sharded) {
        (false, false) => Proof::Whole,
        (false, true) if fits => Proof::Whole,
        (true, false) => Proof::First,
        (_, true) => Proof::None,
    }
}

impl Reader<'_> {
    /// Reads `[from, until)` for some `until <= to`, completely.
    pub(crate) async fn fetch(&mut self, pace: &mut Pace, from: i64, to: i64) -> Result<Fetched, Failure> {
        let mut failures = 0;
        let mut to = to.min(from.saturating_add(pace.span));
        loop {
            let asked = Instant::now();
            let limit = pace.limit.min(self.wanted).max(MIN_LINES).min(pace.max);
            let page = match self.page(self.query, from, to, limit, false).await {
                Ok(page) => page,
                Err(failure) => {
                    failures += 1;
                    // Where every try costs a time-out there can be few of them.
                    let slow = asked.elapsed() > self.http.timeout / 2;
                    let patient = failures < 16 && !self.patience.is_zero() && !(slow && self.hurried);
                    let shorter = to.saturating_sub(from) > MIN_SPAN;
                    match failure.kind {
                        Kind::Limit(max) if max < limit => pace.learn_max(max),
                        Kind::Smaller if patient && limit > MIN_LINES => {
                            pace.limit = (limit / if slow { 10 } else { 4 }).max(MIN_LINES);
                        }
                        Kind::Smaller | Kind::Narrower if patient && shorter => {
                            pace.narrower((to - from) / 2);
                            if failure.kind == Kind::Narrower {
                                pace.longest = pace.span;
                            }
                            to = from + pace.span.min(to - from);
                        }
                        Kind::Busy if shorter => {
                            pace.narrower(to - from);
                            return Err(failure);
                        }
                        _ => return Err(failure),
                    }
                    continue;
                }
            };
            let n = page.returned;
            let proof = match complete(n, limit, page.summary) {
                Proof::Count => self.confirm(n, from, to).await,
                proof => proof,
            };
            pace.came(n, limit, page.bytes, to - from);
            let last = page.lines.last().map_or(from, |line| line.time.nanos());
            match proof {
                Proof::Whole => return Ok(Fetched { lines: page.lines, until: to, gap: None, lost: None }),
                Proof::First if last > from => {
                    let mut lines = page.lines;
                    lines.retain(|line| line.time.nanos() < last);
                    return Ok(Fetched { lines, until: last, gap: None, lost: None });
                }
                Proof::First => return self.nanosecond(pace, from).await,
                _ if to - from <= 1 => return self.nanosecond(pace, from).await,
                _ => {
                    to = from + (to - from) / 2;
                    pace.span = pace.span.min((to - from).max(MIN_SPAN));
                }
            }
        }
    }

    /// Whether a page of a server without stats holds all that the window has.
    async fn confirm(&self, lines: usize, from: i64, to: i64) -> Proof {
        match self.count(self.query, from, to).await {
            Some(count) if count > lines as u64 => Proof::None,
            // Without counts there is nothing better than to believe a page that is not full.
            _ => Proof::Whole,
        }
    }

    /// Reads one nanosecond that holds more lines than a page.
    async fn nanosecond(&mut self, pace: &mut Pace, at: i64) -> Result<Fetched, Failure> {
        let to = at + 1;
        let mut limit = pace.max;
        let whole = self.largest(self.query, at, to, &mut limit, pace).await?;
        if complete(whole.returned, limit, whole.summary) == Proof::Whole {
            return Ok(Fetched { lines: whole.lines, until: to, gap: None, lost: None });
        }
        let mut lines = Vec::new();
        let mut doubtful = false;
        for labels in self.series(at, to).await? {
            let Some(query) = logql::of_stream(self.query, &labels) else { continue };
            let mut forward = self.largest(&query, at, to, &mut limit, pace).await?;
            // One stream lies in one shard: its page has no holes.
            if forward.returned >= limit {
                let mut backward = self.page(&query, at, to, limit, true).await?;
                let known: HashSet<LineId> = forward.lines.iter().map(|line| line.id).collect();
                doubtful |= !backward.lines.iter().any(|line| known.contains(&line.id));
                backward.lines.reverse();
                forward.lines.extend(backward.lines.into_iter().filter(|line| !known.contains(&line.id)));
            }
            lines.append(&mut forward.lines);
        }
        let mut known = HashSet::new();
        lines.retain(|line| known.insert(line.id));
        // What the page had and the streams had not, for whatever reason, is not thrown away.
        lines.extend(whole.lines.into_iter().filter(|line| known.insert(line.id)));
        let mut fetched = Fetched { lines, until: to, gap: None, lost: None };
        if doubtful {
            let count = self.count(self.query, at, to).await;
            fetched.lost = count.map(|count| count.saturating_sub(fetched.lines.len() as u64));
            if fetched.lost != Some(0) {
                let reason = format!(
                    "more lines of one stream carry the time {} than Loki gives out ({limit} from each end)",
                    Timestamp::from_nanos(at)
                );
                fetched.gap = Some(SourceError::Gap { subject: format!("the query `{}`", self.query), reason });
            }
        }
        Ok(fetched)
    }

    /// The largest page that the server gives for a nanosecond; `limit` becomes what it was.
    async fn largest(
        &mut self,
        query: &str,
        from: i64,
        to: i64,
        limit: &mut usize,
        pace: &mut Pace,
    ) -> Result<Page, Failure> {
        loop {
            match self.page(query, from, to, *limit, false).await {
                Err(Failure { kind: Kind::Limit(max), .. }) if max < *limit => {
                    pace.learn_max(max);
                    *limit = max;
                }
                Err(Failure { kind: Kind::Smaller, .. }) if *limit > MIN_LINES && !self.patience.is_zero() => {
                    *limit = (*limit / 2).max(MIN_LINES);
                }
                page => return page,
            }
        }
    }

    async fn page(&mut self, query: &str, from: i64, to: i64, limit: usize, backward: bool) -> Result<Page, Failure> {
        let (start, end, lines) = (from.to_string(), to.to_string(), limit.to_string());
        let direction = if backward { "backward" } else { "forward" };
        let params = [("query", query), ("start", &start), ("end", &end), ("limit", &lines), ("direction", direction)];
        let Reply { value, bytes } = self.ask::<Answer>("loki/api/v1/query_range", &params).await?;
        for warning in value.warnings.iter().flatten() {
            let warning: String = warning.chars().take(200).collect();
            tracing::warn!(query, warning, "Loki warns about a query");
        }
        let summary = value.data.summary();
        let returned = value.data.result.iter().flatten().map(|series| series.values.len()).sum();
        let mut lines = self.streams.lines(self.http, query, value.data, from, to)?;
        if !backward {
            lines.sort_by_key(|line| line.time);
        }
        Ok(Page { lines, returned, summary, bytes })
    }

    /// How many lines `[from, to)` has; `None` where the server cannot tell.
    async fn count(&self, query: &str, from: i64, to: i64) -> Option<u64> {
        // A sample at t counts (t - range, t].
        let (query, time) = (logql::count(query, &format!("{}ns", to - from)), (to - 1).to_string());
        let params = [("query", query.as_str()), ("time", &time)];
        let answer = self.http.json::<Answer>("loki/api/v1/query", &params).await.ok()?;
        Some(answer.value.data.counts()?.values().sum())
    }

    /// The streams of a window.
    async fn series(&mut self, from: i64, to: i64) -> Result<Vec<Labels>, Failure> {
        let selector = logql::split(self.query).map_or(self.query, |(selector, _)| selector);
        let (start, end) = (from.to_string(), to.to_string());
        let params = [("match[]", selector), ("start", &start), ("end", &end)];
        let listing = self.ask::<Listing<Vec<Labels>>>("loki/api/v1/series", &params).await?;
        Ok(listing.value.data.unwrap_or_default())
    }

    /// Asks; what fails costs patience, and takes no more of it than there is.
    async fn ask<T: DeserializeOwned>(&mut self, path: &str, params: &[(&str, &str)]) -> Result<Reply<T>, Failure> {
        let (asked, most) = (Instant::now(), self.patience);
        let answer = timeout(most, self.http.json(path, params)).await.unwrap_or_else(|_| Err(self.http.silent()));
        if answer.is_err() {
            self.patience = most.saturating_sub(asked.elapsed());
        }
        answer
    }
}

/// One [`Stream`] per label set and details, so that lines of a stream share it.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    known: HashMap<Labels, BTreeMap<Labels, Arc<Stream>>>,
}

/// Streams that are remembered at once.
const MAX_STREAMS: usize = 20_000;

impl Streams {
    /// The lines of an answer, checked against the window.
    pub(crate) fn lines(
        &mut self,
        http: &Http,
        query: &str,
        data: Data,
        from: i64,
        to: i64,
    ) -> Result<Vec<Line>, Failure> {
        if data.result_type != "streams" {
            let error = SourceError::Unusable {
                subject: format!("the query `{query}`"),
                reason: format!("Loki answers it with a `{}` instead of lines", data.result_type),
                hint: Some("use a log query; numbers belong to Prometheus".into()),
            };
            return Err(Failure { kind: Kind::Query, error });
        }
        let garbage = |reason: &str| Failure {
            kind: Kind::Later,
            error: SourceError::Garbage { origin: http.origin().into(), reason: reason.into() },
        };
        let mut lines = Vec::new();
        let mut ids = HashSet::new();
        for series in data.result.into_iter().flatten() {
            let mut labels = series.stream.ok_or_else(|| garbage("a stream without labels"))?;
            // A line that is sent again can land in another shard.
            labels.remove("__stream_shard__");
            labels.remove("__time_shard__");
            for value in series.values {
                let Time::Nanos(time) = value.time else { return Err(garbage("a line whose time is no nanosecond")) };
                let metadata = value.extra.structured_metadata.unwrap_or_default();
                let id = id(http.tenants(), &labels, time, &value.text, &metadata);
                // Another product behind the same API may take the end of a window for a part of it. Loki may give the same line several times when its streams are sharded (issue 22400 of Loki).
                if (from..to).contains(&time) && ids.insert(id) {
                    lines.push(Line {
                        id,
                        time: Timestamp::from_nanos(time),
                        clock: Clock::Record,
                        stream: self.stream(&labels, metadata),
                        text: value.text.into_bytes(),
                        tags: 0,
                    });
                }
            }
        }
        Ok(lines)
    }

    fn stream(&mut self, labels: &Labels, mut metadata: Labels) -> Arc<Stream> {
        metadata.retain(|name, _| Stream::tells(name));
        if self.known.len() > MAX_STREAMS {
            self.known.clear();
        }
        if !self.known.contains_key(labels) {
            self.known.insert(labels.clone(), BTreeMap::new());
        }
        let of_labels = self.known.entry(labels.clone()).or_default();
        if of_labels.len() > MAX_STREAMS {
            of_labels.clear();
        }
        let make = |details: &Labels| Arc::new(Stream::new(labels.clone()).with_details(details.clone()));
        match of_labels.get(&metadata) {
            Some(stream) => stream.clone(),
            None => {
                let stream = make(&metadata);
                of_labels.insert(metadata, stream.clone());
                stream
            }
        }
    }
}

/// Which line it is: Loki's own notion, with the tenant.
fn id(tenants: &str, labels: &Labels, time: i64, text: &str, metadata: &Labels) -> LineId {
    let time = time.to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![tenants.as_bytes(), &time, text.as_bytes()];
    for map in [labels, metadata] {
        parts.push(b"");
        parts.extend(map.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
    }
    LineId::of(&parts)
}

/// Counts per minute, by the minute that they end with: a sample of minute `m` counts `(m - 1, m]`.
pub(crate) async fn counts(http: &Http, query: &str, first: i64, last: i64) -> Result<BTreeMap<i64, u64>, Failure> {
    let seconds = |minute: i64| (minute * 60_000_000_000).to_string();
    let (query, start, end) = (logql::count(query, "1m"), seconds(first), seconds(last));
    let params = [("query", query.as_str()), ("start", &start), ("end", &end), ("step", "60s")];
    let answer = http.json::<Answer>("loki/api/v1/query_range", &params).await?;
    answer.value.data.counts().ok_or_else(|| Failure {
        kind: Kind::Later,
        error: SourceError::Garbage {
            origin: http.origin().into(),
            reason: "its count of lines has something else than numbers".into(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_proves_only_what_cannot_be_otherwise() {
        let stats = |shards, splits, total| {
            Some(Summary { shards: Some(shards), splits: Some(splits), total_post_filter_lines: Some(total) })
        };
        let cases = [
            ("not full", 4, 5, stats(1, 0, 4), Proof::Whole),
            ("not full, a shard per split", 4, 5, stats(2, 2, 4), Proof::Whole),
            ("full", 5, 5, stats(1, 0, 9), Proof::First),
            ("sharded and full, recording 650", 20, 20, stats(8, 0, 77), Proof::None),
            ("sharded and short, recording 652", 12, 20, stats(8, 0, 48), Proof::None),
            ("sharded, all matches fit", 12, 20, stats(8, 0, 12), Proof::Whole),
            ("no stats", 12, 20, None, Proof::Count),
            ("no stats and full", 20, 20, None, Proof::None),
            ("outside of retention, recording 742", 0, 10, stats(0, 0, 0), Proof::Whole),
        ];
        for (name, lines, limit, summary, proof) in cases {
            assert_eq!(complete(lines, limit, summary), proof, "{name}");
        }
    }

    #[test]
    fn pages_follow_the_size_of_the_lines() {
        let mut pace = Pace::new(100);
        for _ in 0..8 {
            let limit = pace.limit;
            pace.came(limit, limit, limit * 200, 1);
        }
        assert_eq!(pace.limit, MAX_LINES);
        let mut pace = Pace::new(100);
        for _ in 0..8 {
            let limit = pace.limit;
            pace.came(limit, limit, limit * 100_000, 1);
        }
        assert!(pace.limit * 100_000 <= LARGE_BYTES, "{}", pace.limit);
        // A page that was comfortable is not followed by twice as much.
        let mut pace = Pace::new(190);
        pace.came(190, 190, 190 * 11_000, 1);
        assert!(pace.limit > 190 && pace.limit * 11_000 <= LARGE_BYTES, "{}", pace.limit);
    }

    #[test]
    fn shards_are_no_part_of_a_line() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let (a, b) = (labels(&[("job", "x")]), labels(&[("job", "x"), ("pod", "y")]));
        assert_ne!(id("t", &a, 1, "m", &b), id("t", &b, 1, "m", &a));
        assert_ne!(id("t", &a, 1, "m", &a), id("u", &a, 1, "m", &a));
    }
}
