//! Reads files, or standard input, once from beginning to end.

use std::{
    collections::BTreeMap,
    fmt,
    io::{BufRead, Read},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use logwarden_core::{
    Line, LineId, Stream, Timestamp,
    source::{
        Budget, Cursor, LogSource, Page, Problem, ProblemKind, QueryInfo, Seen, Shortened, SourceError, SourceId,
    },
    templates::{Clock, Zone},
};

use crate::{lines, open};

/// Where text comes from.
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Anything that can be read, once: standard input.
    Reader {
        /// What it is called in messages.
        name: String,
        /// What is read.
        reader: Box<dyn Read + Send>,
    },
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Reader { name, .. } => name.fmt(f),
        }
    }
}

/// Reads its inputs one after the other. The cursor is a page number: the page that was read last can be read again, an
/// earlier one cannot.
#[derive(Debug)]
pub struct Scan {
    id: SourceId,
    queries: Vec<QueryInfo>,
    state: Arc<Mutex<State>>,
    /// What the read under way has brought, apart from `state`, which it holds while it waits for standard input.
    under_way: Arc<Mutex<Read1>>,
}

struct State {
    labels: BTreeMap<String, String>,
    zone: Zone,
    waiting: Vec<Input>,
    open: Option<Open>,
    /// The number of the page that `last` is.
    page: u64,
    last: Option<Read1>,
    opened: u64,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("waiting", &self.waiting).field("page", &self.page).finish_non_exhaustive()
    }
}

struct Open {
    name: String,
    number: u64,
    offset: u64,
    time: Option<Timestamp>,
    stream: Arc<Stream>,
    reader: Box<dyn BufRead + Send>,
}

/// What one read brought, kept in case it is asked for again.
#[derive(Clone, Debug, Default)]
struct Read1 {
    lines: Vec<Line>,
    problems: Vec<(String, String, Option<String>)>,
    shortened: Vec<Shortened>,
    finished: bool,
}

impl Scan {
    /// Reads `inputs` in this order under `profiles`. `labels` are those of every line, such as the host; `zone` counts
    /// for times that name none.
    pub fn new(
        inputs: Vec<Input>,
        profiles: Vec<logwarden_core::ProfileName>,
        labels: BTreeMap<String, String>,
        zone: Zone,
    ) -> Self {
        let text = inputs.iter().map(name).collect::<Vec<_>>().join(" ");
        let waiting = inputs.into_iter().rev().collect();
        let state = State { labels, zone, waiting, open: None, page: 0, last: None, opened: 0 };
        Self {
            id: SourceId("files".to_owned()),
            queries: vec![QueryInfo { text, profiles }],
            state: Arc::new(Mutex::new(state)),
            under_way: Arc::default(),
        }
    }

    /// What a read that was given up had brought until then, as the last page of all.
    pub fn cut_short(&self, cursor: Option<&Cursor>) -> Page {
        let read = std::mem::take(&mut *locked(&self.under_way));
        let page = cursor.and_then(|cursor| cursor.0.parse().ok()).unwrap_or(0);
        page_of(Read1 { finished: true, ..read }, page)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(input: &Input) -> String {
    match input {
        Input::File(path) => path.display().to_string(),
        Input::Reader { name, .. } => name.clone(),
    }
}

#[async_trait]
impl LogSource for Scan {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn queries(&self) -> &[QueryInfo] {
        &self.queries
    }

    async fn read(&self, cursor: Option<&Cursor>, _: &Seen, budget: Budget) -> Result<Page, SourceError> {
        let wanted: u64 =
            cursor.map_or(Some(0), |cursor| cursor.0.parse().ok()).ok_or_else(|| SourceError::Unusable {
                subject: "the position in the files".to_owned(),
                reason: "it is damaged".to_owned(),
                hint: None,
            })?;
        let (state, under_way) = (self.state.clone(), self.under_way.clone());
        let read = tokio::task::spawn_blocking(move || locked(&state).read(wanted, budget, &under_way));
        let read = read
            .await
            .map_err(|error| SourceError::Io { path: "the files".to_owned(), cause: std::io::Error::other(error) })??;
        Ok(page_of(read, wanted))
    }
}

fn page_of(read: Read1, number: u64) -> Page {
    let problem = |(subject, reason, hint): (String, String, Option<String>)| Problem {
        kind: ProblemKind::Quarantined { lines: 0 },
        error: SourceError::Unusable { subject: subject.clone(), reason, hint },
        subject,
    };
    Page {
        next: Cursor((number + 1).to_string()),
        more: !read.finished,
        horizon: None,
        finished: read.finished,
        exact: true,
        per_query: vec![read.lines.len() as u64],
        problems: read.problems.into_iter().map(problem).collect(),
        shortened: read.shortened,
        lines: read.lines,
        ..Page::default()
    }
}

impl State {
    fn read(&mut self, wanted: u64, budget: Budget, under_way: &Mutex<Read1>) -> Result<Read1, SourceError> {
        if let Some(last) = &self.last
            && self.page == wanted
        {
            return Ok(last.clone());
        }
        let expected = self.last.as_ref().map_or(0, |_| self.page + 1);
        if wanted != expected {
            return Err(SourceError::Unusable {
                subject: "the position in the files".to_owned(),
                reason: "it has been passed; files are scanned only once".to_owned(),
                hint: None,
            });
        }
        *locked(under_way) = Read1::default();
        let (mut lines, mut bytes) = (0, 0);
        while lines < budget.lines && bytes < budget.bytes {
            if self.open.is_none() {
                let Some(input) = self.waiting.pop() else {
                    locked(under_way).finished = true;
                    break;
                };
                match self.open(input) {
                    Ok(open) => self.open = Some(open),
                    Err(error) => locked(under_way).problems.push(refused(&error)),
                }
                continue;
            }
            let Some(open) = &mut self.open else { continue };
            match lines::next(&mut *open.reader) {
                Ok(Some(taken)) => {
                    let mut read = locked(under_way);
                    (lines, bytes) = (lines + 1, bytes + taken.text.len());
                    if taken.cut > 0 {
                        let (subject, longest) = (open.name.clone(), crate::MAX_LINE as u64);
                        let shortened = Shortened { subject, lines: 1, bytes: taken.cut, longest };
                        Shortened::add(&mut read.shortened, shortened);
                    }
                    let parts: [&[u8]; 3] =
                        [open.name.as_bytes(), &open.number.to_le_bytes(), &open.offset.to_le_bytes()];
                    read.lines.push(Line {
                        id: LineId::of(&parts),
                        time: open.time.unwrap_or(budget.now),
                        clock: Clock::Arrival,
                        stream: open.stream.clone(),
                        text: taken.text,
                        tags: 1,
                    });
                    open.offset += taken.bytes;
                }
                Ok(None) => self.open = None,
                Err(cause) => {
                    // What was read so far counts; a damaged archive ends here.
                    let damaged = (open.name.clone(), format!("it is damaged: {cause}"), None);
                    locked(under_way).problems.push(damaged);
                    self.open = None;
                }
            }
        }
        let read = std::mem::take(&mut *locked(under_way));
        self.page = wanted;
        self.last = Some(read.clone());
        Ok(read)
    }

    fn open(&mut self, input: Input) -> Result<Open, SourceError> {
        let name = name(&input);
        let (reader, time) = match input {
            Input::File(path) => {
                let modified = std::fs::metadata(&path).and_then(|meta| meta.modified()).ok();
                let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
                let nanos = since.and_then(|since| i64::try_from(since.as_nanos()).ok());
                (open::file(&path)?, nanos.map(Timestamp::from_nanos))
            }
            Input::Reader { name, reader } => (open::text(&name, reader)?, None),
        };
        let mut labels = self.labels.clone();
        labels.insert("filename".to_owned(), name.clone());
        let stream = Arc::new(Stream::new(labels).with_zone(self.zone.clone()));
        self.opened += 1;
        Ok(Open { name, number: self.opened, offset: 0, time, stream, reader })
    }
}

fn refused(error: &SourceError) -> (String, String, Option<String>) {
    match error {
        SourceError::Unusable { subject, reason, hint } => (subject.clone(), reason.clone(), hint.clone()),
        SourceError::Io { path, cause } => (path.clone(), cause.to_string(), error.hint().map(str::to_owned)),
        other => ("a file".to_owned(), other.to_string(), None),
    }
}
