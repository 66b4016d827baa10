//! Where lines come from.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Line, LineId, Timestamp, error::BoxError};

/// Names a source: an endpoint and tenant, or a set of files. Part of every key in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceId(pub String);

/// The name of the source that troubles of logwarden itself belong to.
const OWN: &str = "logwarden";

impl SourceId {
    /// What troubles of logwarden itself belong to: nothing is read from it, and nobody judges it.
    pub(crate) fn own() -> Self {
        Self(OWN.to_owned())
    }

    /// Whether it is [`Self::own`].
    pub(crate) fn is_own(&self) -> bool {
        self.0 == OWN
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How far a source has been read: positions per query or file, in a text that only the source itself understands.
///
/// It moves only with the commit that stores what was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// One query of a source, in the order of the bits in [`Line::tags`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryInfo {
    /// The query as the user wrote it, or the file's path.
    pub text: String,
    /// The profiles that its lines are judged under.
    pub profiles: Vec<crate::ProfileName>,
}

/// At most 64 queries fit a source, one per bit of [`Line::tags`].
pub const MAX_QUERIES: usize = 64;

/// How much one [`LogSource::read`] may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// New lines at most. What `seen` knows is not counted.
    pub lines: usize,
    /// Bytes of text at most, exceeded by less than one line.
    pub bytes: usize,
    /// The time of the read: nothing later is expected.
    pub now: Timestamp,
}

/// The lines that were taken lately, so that overlapping reads bring each (line, query) pair once.
///
/// Kept per source and minute of the line's time; the ledger stores it with the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    minutes: BTreeMap<i64, BTreeMap<LineId, u64>>,
    counts: BTreeMap<i64, Vec<u32>>,
}

impl Seen {
    /// Which queries already brought this line; 0 when none did.
    pub fn queries(&self, time: Timestamp, id: LineId) -> u64 {
        self.minutes.get(&time.minute()).and_then(|lines| lines.get(&id)).copied().unwrap_or(0)
    }

    /// Remembers that `queries` brought this line, and counts it for those that had not brought it.
    pub fn insert(&mut self, time: Timestamp, id: LineId, queries: u64) {
        let known = self.minutes.entry(time.minute()).or_default().entry(id).or_default();
        let new = queries & !*known;
        *known |= queries;
        let counts = self.counts.entry(time.minute()).or_default();
        for query in (0..64).filter(|query| new & (1 << query) != 0) {
            if counts.len() <= query {
                counts.resize(query + 1, 0);
            }
            counts[query] = counts[query].saturating_add(1);
        }
    }

    /// How many lines of a minute `query` has brought; 0 for a minute that is no longer remembered.
    pub fn count(&self, minute: i64, query: usize) -> u32 {
        self.counts.get(&minute).and_then(|counts| counts.get(query)).copied().unwrap_or(0)
    }

    /// The lines of a minute with their queries, sorted by id.
    pub fn minute(&self, minute: i64) -> impl Iterator<Item = (LineId, u64)> + '_ {
        self.minutes.get(&minute).into_iter().flatten().map(|(id, queries)| (*id, *queries))
    }

    /// The minutes that have lines, earliest first.
    pub fn minutes(&self) -> impl Iterator<Item = i64> + '_ {
        self.minutes.keys().copied()
    }

    /// The counts of a minute, by query.
    pub fn counts(&self, minute: i64) -> &[u32] {
        self.counts.get(&minute).map_or(&[], Vec::as_slice)
    }

    /// Restores a minute from a store.
    pub fn restore(&mut self, minute: i64, lines: impl IntoIterator<Item = (LineId, u64)>, counts: Vec<u32>) {
        let lines: BTreeMap<_, _> = lines.into_iter().collect();
        if !lines.is_empty() {
            self.minutes.insert(minute, lines);
        }
        self.counts.insert(minute, counts);
    }

    /// Forgets lines before one minute and counts before another.
    pub fn forget_before(&mut self, lines: i64, counts: i64) {
        self.minutes = self.minutes.split_off(&lines);
        self.counts = self.counts.split_off(&counts);
    }
}

/// What one read brought.
#[derive(Debug, Default)]
pub struct Page {
    /// New lines, merged by time as far as the source can. [`Line::tags`] says which queries brought each; a line that
    /// `seen` knows for some queries comes again with only the new ones.
    pub lines: Vec<Line>,
    /// Where to go on once these lines are committed.
    pub next: Cursor,
    /// Whether a further read would bring more at once.
    pub more: bool,
    /// The source brought everything before this time (up to late lines): open multi-line events end ten seconds after it,
    /// and what has not come by then is silent. `None` when that cannot be said.
    pub horizon: Option<Timestamp>,
    /// What comes while nobody reads is not in the source later: who pushed it has it, for a while.
    pub pushed: bool,
    /// For sources that know it better than the horizon says: open multi-line events whose last line is before this time
    /// are complete.
    pub settled: Option<Timestamp>,
    /// No more will ever come (end of standard input).
    pub finished: bool,
    /// The cursor alone tells what was brought, so that single lines need not be remembered: a file's offset does.
    pub exact: bool,
    /// The spool rows that the lines come from, by ordinal. The commit that takes the lines deletes them, so that single
    /// lines need not be remembered.
    pub spool: Vec<u64>,
    /// Pairs of line and query that `seen` knew.
    pub duplicates: u64,
    /// Lines that came late and were found by looking back.
    pub late: u64,
    /// Lines brought per query, in the order of the queries.
    pub per_query: Vec<u64>,
    /// What could not be read, while the rest could: query errors, gaps, unreadable input.
    pub problems: Vec<Problem>,
    /// Lines that were read, but not in full.
    pub shortened: Vec<Shortened>,
}

/// Lines of one file or query whose middle was left out, since they were too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortened {
    /// The query or file, as the user wrote it.
    pub subject: String,
    /// How many lines.
    pub lines: u64,
    /// Bytes left out of all of them.
    pub bytes: u64,
    /// The longest that a line may be, in bytes.
    pub longest: u64,
}

impl Shortened {
    /// Adds `other` to those of the same subject, or as a new one.
    pub fn add(all: &mut Vec<Self>, other: Self) {
        match all.iter_mut().find(|known| known.subject == other.subject && known.longest == other.longest) {
            Some(known) => (known.lines, known.bytes) = (known.lines + other.lines, known.bytes + other.bytes),
            None => all.push(other),
        }
    }
}

impl fmt::Display for Shortened {
    /// `app.log: 1 line longer than 1 MiB was shortened by 18 MiB`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let were = if self.lines == 1 { "line longer than" } else { "lines longer than" };
        let was = if self.lines == 1 { "was" } else { "were" };
        let (longest, bytes) = (size(self.longest), size(self.bytes));
        write!(f, "{}: {} {were} {longest} {was} shortened by {bytes}", self.subject, self.lines)
    }
}

/// `18 MiB`, `3 KiB`, `12 bytes`
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// Something that could not be read.
#[derive(Debug)]
pub struct Problem {
    /// The query or file, as the user wrote it.
    pub subject: String,
    /// Whether it is lost, or will be tried again.
    pub kind: ProblemKind,
    /// What and why, for people; free of secrets.
    pub error: SourceError,
}

/// What a problem means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The position has not moved: the next read tries again.
    Retry,
    /// Lines of a time range can never be had (retention, an over-full nanosecond, a truncated file); counted.
    Gap {
        /// Lines lost, where known.
        lines: Option<u64>,
    },
    /// Input that is not readable as what it claims to be was set aside; counted.
    Quarantined {
        /// Lines set aside.
        lines: u64,
    },
    /// It was never meant to be read: something else than a log that a pattern fits, too.
    Skipped,
}

/// Why a source could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// No connection, or it broke, or nothing came in time.
    #[error("cannot reach the log source at {origin}")]
    Unreachable {
        /// Scheme, host and port; no credentials.
        origin: String,
        /// Why.
        #[source]
        cause: BoxError,
    },
    /// The source answered with an error.
    #[error("the log source at {origin} refused the request (HTTP {status}): {excerpt}")]
    Refused {
        /// Scheme, host and port; no credentials.
        origin: String,
        /// HTTP status.
        status: u16,
        /// The beginning of its answer, at most 500 characters.
        excerpt: String,
        /// What the user can do, where known.
        hint: Option<String>,
    },
    /// The source answered with something else than its protocol says.
    #[error("the log source at {origin} answered with something that is not its protocol: {reason}")]
    Garbage {
        /// Scheme, host and port; no credentials.
        origin: String,
        /// What was wrong.
        reason: String,
    },
    /// A query or setting that can never work.
    #[error("{subject} cannot be used: {reason}")]
    Unusable {
        /// The query, file or setting.
        subject: String,
        /// Why.
        reason: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// A local file or stream could not be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Lines that cannot be had.
    #[error("lines of {subject} are missing: {reason}")]
    Gap {
        /// The query or file.
        subject: String,
        /// Which and why.
        reason: String,
    },
}

impl SourceError {
    /// Whether the same read may succeed later although nobody changes anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Garbage { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 499 | 500..=599),
            Self::Io { cause, .. } => cause.kind() != std::io::ErrorKind::PermissionDenied,
            Self::Unusable { .. } | Self::Gap { .. } => false,
        }
    }

    /// What the user can do, where known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } | Self::Unusable { hint, .. } => hint.as_deref(),
            Self::Io { cause, .. } if cause.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("run as a user who may read it: with sudo, or as a member of the file's group, often `adm`")
            }
            _ => None,
        }
    }
}

/// Brings lines.
///
/// # Contract
///
/// * Reading on from `next` with a `seen` that holds the lines brought so far, until `more` is false, brings every line
///   that the source had before the first read exactly once per query, whatever the budgets were.
/// * A line that two queries match is one [`Line`] with two bits in its tags.
/// * Lines of one stream come in the order in which the source has them.
/// * `read` changes nothing: called again with the same cursor it brings the same lines again (as long as the source
///   still has them). Dropping the future loses nothing.
/// * The lines of a page fit the budget; a page with `more` brings at least one new line or moves the cursor.
/// * One query's failure is a [`Problem`] and does not keep the others from being read. Only when nothing at all could
///   be read the read fails.
#[async_trait]
pub trait LogSource: fmt::Debug + Send + Sync {
    /// Who this is.
    fn id(&self) -> &SourceId;

    /// What it asks for, at most [`MAX_QUERIES`].
    fn queries(&self) -> &[QueryInfo];

    /// Brings the next lines after `cursor` (`None`: from the start that the source is configured with) that `seen` does
    /// not know.
    ///
    /// # Errors
    ///
    /// When nothing could be read; nothing is lost then, the cursor still stands.
    async fn read(&self, cursor: Option<&Cursor>, seen: &Seen, budget: Budget) -> Result<Page, SourceError>;
}
