//! Follows files by identity and offset, through rotation, truncation and `copytruncate`.
//!
//! A file is who it is by device, inode and its first bytes, not by its name. When its name leads to another file, the
//! rest of the old one is read first, wherever it is now: under another name beside it, or compressed. A file that is
//! shorter than its offset, or begins differently, was emptied: the rest of what it held is read from the copy that
//! `copytruncate` left beside it, if there is one, then the file from its beginning.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use async_trait::async_trait;
use logwarden_core::{
    Line, LineId, ProfileName, Stream, Timestamp,
    source::{
        Budget, Cursor, LogSource, Page, Problem, ProblemKind, QueryInfo, Seen, Shortened, SourceError, SourceId,
    },
    templates::{Clock, Zone},
};

use crate::{
    cursor::{HEAD, Position, Positions},
    lines,
    look::{self, is_packed},
    open,
};

/// Seconds for which a file that was rotated away is still looked at.
const LINGER: i64 = 600;

/// Files that belong together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Paths; in their last part `*` stands for any characters and `?` for one.
    pub paths: Vec<String>,
    /// The profiles that their lines are judged under.
    pub profiles: Vec<ProfileName>,
    /// Labels of every line, such as `host` and `service`; a host here is everyone's, whatever a line says.
    pub labels: BTreeMap<String, String>,
    /// The machine that reads: whose the lines are that name no host.
    pub home: String,
    /// The zone of times that name none.
    pub zone: Zone,
    /// Whether files that are there at the very first read are read from their beginning; otherwise only what is
    /// appended later counts.
    pub from_start: bool,
}

/// Follows files.
#[derive(Debug)]
pub struct Follow {
    id: SourceId,
    queries: Vec<QueryInfo>,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    groups: Vec<Group>,
    /// Files that are kept open between reads, so that what is deleted can still be read to its end.
    held: Mutex<HashMap<(u64, u64), File>>,
}

impl Follow {
    /// Follows the files of `groups`, at most 64.
    pub fn new(id: SourceId, groups: Vec<Group>) -> Self {
        let query = |group: &Group| QueryInfo { text: group.paths.join(" "), profiles: group.profiles.clone() };
        Self {
            id,
            queries: groups.iter().map(query).collect(),
            inner: Arc::new(Inner { groups, held: Mutex::default() }),
        }
    }
}

#[async_trait]
impl LogSource for Follow {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn queries(&self) -> &[QueryInfo] {
        &self.queries
    }

    async fn read(&self, cursor: Option<&Cursor>, _: &Seen, budget: Budget) -> Result<Page, SourceError> {
        let positions = cursor.map(Positions::parse).transpose()?;
        let inner = self.inner.clone();
        let read = tokio::task::spawn_blocking(move || Reading::new(&inner, positions, budget).run());
        read.await.map_err(|error| SourceError::Io { path: "the files".to_owned(), cause: io::Error::other(error) })?
    }
}

/// A file that is there now.
struct Candidate {
    /// The number of its group.
    group: usize,
    path: PathBuf,
    meta: fs::Metadata,
    /// Whether its own name was written, and not only a pattern that it fits, too.
    is_named: bool,
}

impl Candidate {
    fn identity(&self) -> (u64, u64) {
        (self.meta.dev(), self.meta.ino())
    }
}

/// One read.
struct Reading<'a> {
    inner: &'a Inner,
    first: bool,
    known: Vec<Position>,
    next: Vec<Position>,
    budget: Budget,
    bytes: usize,
    page: Page,
}

impl<'a> Reading<'a> {
    fn new(inner: &'a Inner, positions: Option<Positions>, budget: Budget) -> Self {
        let page = Page { per_query: vec![0; inner.groups.len()], exact: true, ..Page::default() };
        let first = positions.is_none();
        let known = positions.unwrap_or_default().files;
        Self { inner, first, known, next: Vec::new(), budget, bytes: 0, page }
    }

    fn run(mut self) -> Result<Page, SourceError> {
        let mut current: Vec<Candidate> = Vec::new();
        for (group, number) in self.inner.groups.iter().zip(0..) {
            for path in &group.paths {
                let is_named = !look::is_pattern(path);
                match look::expand(path) {
                    Ok(found) => {
                        let found = found.into_iter().filter(|path| is_named || look::is_candidate(path));
                        current.extend(found.filter_map(|path| self.candidate(number, path, is_named)));
                    }
                    Err(cause) => self.problem(path, ProblemKind::Retry, cause),
                }
            }
        }
        // Whoever was named comes first among those that lead to the same file.
        current.sort_by(|a, b| (a.identity(), !a.is_named, &a.path).cmp(&(b.identity(), !b.is_named, &b.path)));
        current.dedup_by_key(|candidate| candidate.identity());
        current.sort_by(|a, b| a.path.cmp(&b.path));
        let at = |position: &Position| {
            current.iter().find(|candidate| candidate.identity() == (position.device, position.inode))
        };
        let mut gone = Vec::new();
        for mut position in std::mem::take(&mut self.known) {
            let Some(Candidate { group, path, meta, .. }) = at(&position) else {
                gone.push(position);
                continue;
            };
            if was_emptied(path, meta, &position) {
                gone.extend(copy_of(&position));
                (position.generation, position.offset, position.head) =
                    (position.generation + 1, 0, Default::default());
            }
            position.group = *group;
            self.next.push(position);
        }
        // What was rotated or copied away is read to its end first.
        for position in gone {
            match at(&position) {
                None => self.rotated(position),
                Some(_) if self.next.iter().all(|known| known.inode != position.inode) => self.next.push(position),
                Some(_) => {}
            }
        }
        for candidate in &current {
            self.current(candidate);
        }
        self.page.more = self.full();
        if !self.page.more && self.page.problems.iter().all(|problem| problem.kind == ProblemKind::Skipped) {
            self.page.horizon = Some(self.budget.now);
        }
        if self.page.lines.is_empty() && self.next.is_empty() && !self.page.problems.is_empty() && self.first {
            let problem = self.page.problems.remove(0);
            return Err(problem.error);
        }
        self.page.next = Positions { files: self.next }.to_cursor();
        Ok(self.page)
    }

    fn full(&self) -> bool {
        self.page.lines.len() >= self.budget.lines || self.bytes >= self.budget.bytes
    }

    /// A file that is there, unless it is none that can be followed.
    fn candidate(&mut self, group: usize, path: PathBuf, is_named: bool) -> Option<Candidate> {
        match fs::metadata(&path) {
            Ok(meta) => match look::is_log(&path, &meta) {
                Ok(()) => return Some(Candidate { group, path, meta, is_named }),
                Err(error) => self.refuse(&path, is_named, error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => self.problem(&path.display().to_string(), ProblemKind::Retry, cause),
        }
        None
    }

    /// Notes that something is no log; where only a pattern fits it, that is nobody's mistake.
    fn refuse(&mut self, path: &Path, is_named: bool, error: SourceError) {
        let kind = match error {
            SourceError::Unusable { .. } if !is_named => ProblemKind::Skipped,
            _ => ProblemKind::Retry,
        };
        self.page.problems.push(Problem { subject: path.display().to_string(), kind, error });
    }

    fn problem(&mut self, subject: &str, kind: ProblemKind, cause: io::Error) {
        let error = SourceError::Io { path: subject.to_owned(), cause };
        self.page.problems.push(Problem { subject: subject.to_owned(), kind, error });
    }

    /// A file whose name may lead to it still, or was never seen.
    fn current(&mut self, candidate: &Candidate) {
        let Candidate { group, path, meta, is_named } = candidate;
        let (group, name, identity) = (*group, path.display().to_string(), candidate.identity());
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(cause) => return self.problem(&name, ProblemKind::Retry, cause),
        };
        let at = self.next.iter().position(|known| (known.device, known.inode) == identity);
        let mut position = match at.map(|at| self.next.remove(at)) {
            Some(mut known) => {
                (known.path, known.gone) = (name.clone(), None);
                known
            }
            None => {
                let from_start = !self.first || self.inner.groups[group].from_start;
                let offset = if from_start { 0 } else { last_line_end(&mut file, meta.len()) };
                let (device, inode) = identity;
                let head = (0, String::new());
                Position { path: name.clone(), group, device, inode, generation: 0, offset, head, gone: None }
            }
        };
        if position.head.0 < HEAD {
            position.head = head(&mut file).unwrap_or_default();
        }
        if let Err(error) = look::is_text(path, &mut file, meta.len()) {
            self.next.push(position);
            return self.refuse(path, *is_named, error);
        }
        if let Err(cause) = file.seek(SeekFrom::Start(position.offset)) {
            self.next.push(position);
            return self.problem(&name, ProblemKind::Retry, cause);
        }
        let mut reader = BufReader::with_capacity(256 * 1024, &file);
        let written = self.written(&file);
        self.take(&mut position, &mut reader, false, written);
        drop(reader);
        self.held().insert(identity, file);
        self.next.push(position);
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<(u64, u64), File>> {
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file that its name no longer leads to: its rest, from wherever it is now.
    fn rotated(&mut self, mut position: Position) {
        let identity = (position.device, position.inode);
        if self.full() {
            return self.next.push(position);
        }
        let held = self.held().remove(&identity);
        let done = match held {
            Some(mut file) => {
                let done = match file.seek(SeekFrom::Start(position.offset)) {
                    Ok(_) => {
                        let written = self.written(&file);
                        self.take(&mut position, &mut BufReader::new(&file), true, written)
                    }
                    Err(cause) => {
                        return self.problem(&position.path.clone(), ProblemKind::Gap { lines: None }, cause);
                    }
                };
                self.held().insert(identity, file);
                done
            }
            None => match find_rotated(&position) {
                Some(mut reader) => self.take(&mut position, &mut *reader, true, self.budget.now),
                None if position.gone.is_some() => return, // it was read to its end
                None => {
                    let reason = "the file was rotated away and cannot be found beside its old name; lines written to it \
                                  after the last read are missing";
                    let error = SourceError::Gap { subject: position.path.clone(), reason: reason.to_owned() };
                    let (subject, kind) = (position.path, ProblemKind::Gap { lines: None });
                    return self.page.problems.push(Problem { subject, kind, error });
                }
            },
        };
        let now = self.budget.now;
        if done && position.gone.is_none() {
            position.gone = Some(now.secs());
        }
        // Its writer may not have noticed yet that the name leads to another file.
        if position.gone.is_none_or(|since| now.secs().saturating_sub(since) < LINGER) {
            self.next.push(position);
        } else {
            self.held().remove(&identity);
        }
    }

    /// When a file was last written: lines that name no time are not younger, and in one that has been quiet for a while
    /// no event is unfinished.
    fn written(&self, file: &File) -> Timestamp {
        let modified = file.metadata().and_then(|meta| meta.modified()).ok();
        let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let nanos = since.and_then(|since| i64::try_from(since.as_nanos()).ok());
        nanos.map_or(self.budget.now, |nanos| Timestamp::from_nanos(nanos).min(self.budget.now))
    }

    /// Takes lines from `reader`, which stands at the position; the file was `written` last then. `ended`: nothing will be appended any more, so that a
    /// last line without an end counts. Returns whether everything was read.
    fn take(&mut self, position: &mut Position, reader: &mut dyn BufRead, ended: bool, written: Timestamp) -> bool {
        let group = &self.inner.groups[position.group.min(self.inner.groups.len() - 1)];
        let mut labels = group.labels.clone();
        labels.insert("filename".to_owned(), position.path.clone());
        let stream = Arc::new(Stream::new(labels).with_home(group.home.clone()).with_zone(group.zone.clone()));
        let (mut cut_lines, mut cut_bytes) = (0, 0);
        let done = loop {
            if self.full() {
                break false;
            }
            let taken = match lines::next(reader) {
                Ok(Some(taken)) if taken.ended || ended => taken,
                Ok(_) => break true, // the writer is still at this line
                Err(cause) => {
                    self.problem(&position.path.clone(), ProblemKind::Retry, cause);
                    break true;
                }
            };
            let identity = [position.device, position.inode, position.generation, position.offset];
            let parts: Vec<[u8; 8]> = identity.iter().map(|part| part.to_le_bytes()).collect();
            let parts: Vec<&[u8]> = parts.iter().map(<[u8; 8]>::as_slice).collect();
            position.offset += taken.bytes;
            self.bytes += taken.text.len();
            cut_lines += u64::from(taken.cut > 0);
            cut_bytes += taken.cut;
            self.page.lines.push(Line {
                id: LineId::of(&parts),
                time: written,
                clock: Clock::Arrival,
                stream: stream.clone(),
                text: taken.text,
                tags: 1 << position.group.min(63),
            });
            if let Some(count) = self.page.per_query.get_mut(position.group) {
                *count += 1;
            }
        };
        if cut_lines > 0 {
            let subject = position.path.clone();
            let shortened = Shortened { subject, lines: cut_lines, bytes: cut_bytes, longest: crate::MAX_LINE as u64 };
            Shortened::add(&mut self.page.shortened, shortened);
        }
        done
    }
}

/// Where the last whole line ends.
fn last_line_end(file: &mut File, len: u64) -> u64 {
    let from = len.saturating_sub(crate::MAX_LINE as u64);
    let mut tail = Vec::new();
    let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.take(len - from).read_to_end(&mut tail));
    match read.ok().and_then(|_| memchr::memrchr(b'\n', &tail)) {
        Some(at) => from + at as u64 + 1,
        None => from,
    }
}

/// The beginning of a file: how many bytes, and their hash.
fn head(file: &mut File) -> io::Result<(u64, String)> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(HEAD).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64, hash(&bytes)))
}

fn hash(bytes: &[u8]) -> String {
    LineId::of(&[bytes]).to_string()
}

fn head_matches(file: &mut File, known: &(u64, String)) -> bool {
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(known.0).read_to_end(&mut bytes));
    known.0 == 0 || (read.is_ok() && bytes.len() as u64 == known.0 && hash(&bytes) == known.1)
}

/// Whether a file no longer holds what was read from it.
fn was_emptied(path: &Path, meta: &fs::Metadata, position: &Position) -> bool {
    // A file that cannot be opened now is told about when it is read.
    meta.len() < position.offset || File::open(path).is_ok_and(|mut file| !head_matches(&mut file, &position.head))
}

/// The copy that was made of a file before it was emptied, read as far as the file was.
fn copy_of(position: &Position) -> Option<Position> {
    let fits = |path: &Path, meta: &fs::Metadata| match is_packed(path) {
        true => open::file(path).is_ok_and(|reader| begins(reader, &position.head)),
        false => {
            meta.len() >= position.offset
                && File::open(path).is_ok_and(|mut file| head_matches(&mut file, &position.head))
        }
    };
    // Without its beginning nothing tells whose copy a file is.
    let beside = if position.head.0 > 0 { beside(Path::new(&position.path)) } else { Vec::new() };
    let others = beside.into_iter().filter(|(_, meta)| (meta.dev(), meta.ino()) != (position.device, position.inode));
    let (_, copy) = others.take(8).find(|(path, meta)| fits(path, meta))?;
    Some(Position { device: copy.dev(), inode: copy.ino(), generation: 0, ..position.clone() })
}

/// Files beside one that may be what became of it, by their names; the newest first.
fn beside(path: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    let entries = path.parent().and_then(|directory| fs::read_dir(directory).ok()).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(stem));
    let mut found: Vec<_> = ours.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?))).collect();
    found.retain(|(_, meta)| meta.is_file());
    found.sort_by_key(|(path, meta)| (std::cmp::Reverse(meta.mtime()), path.clone()));
    found
}

/// Whether an unpacked stream has that beginning.
fn begins(mut reader: impl Read, head: &(u64, String)) -> bool {
    let mut bytes = Vec::new();
    head.0 > 0 && (&mut reader).take(head.0).read_to_end(&mut bytes).is_ok() && hash(&bytes) == head.1
}

/// The rest of a rotated file: the file with its inode beside its old name, or a compressed one with its beginning.
fn find_rotated(position: &Position) -> Option<Box<dyn BufRead>> {
    let old = Path::new(&position.path);
    for entry in fs::read_dir(old.parent()?).ok()?.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if (meta.dev(), meta.ino()) == (position.device, position.inode) && meta.len() >= position.offset {
            let mut file = File::open(entry.path()).ok()?;
            if head_matches(&mut file, &position.head) {
                file.seek(SeekFrom::Start(position.offset)).ok()?;
                return Some(Box::new(BufReader::new(file)));
            }
        }
    }
    for (path, _) in beside(old).into_iter().filter(|(path, _)| is_packed(path)).take(4) {
        if !open::file(&path).is_ok_and(|reader| begins(reader, &position.head)) {
            continue;
        }
        let mut reader = open::file(&path).ok()?;
        if io::copy(&mut (&mut reader).take(position.offset), &mut io::sink()).ok()? == position.offset {
            return Some(reader);
        }
    }
    None
}
