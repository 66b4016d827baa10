//! Follows files by identity and offset, through rotation, truncation and `copytruncate`.
//!
//! A file is who it is by device, inode and its first bytes, not by its name. When its name leads to another file, the
//! rest of the old one is read first, wherever it is now: under another name beside it, or compressed. A file that is
//! shorter than its offset, or begins differently, was truncated and is read from its beginning.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use logwarden_core::{
    Line, LineId, ProfileName, Stream,
    source::{Budget, Cursor, LogSource, Page, Problem, ProblemKind, QueryInfo, Seen, SourceError, SourceId},
    templates::{Clock, Zone},
};

use crate::{
    cursor::{HEAD, Position, Positions},
    lines, open,
};

/// Files that belong together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Paths; in their last part `*` stands for any characters and `?` for one.
    pub paths: Vec<String>,
    /// The profiles that their lines are judged under.
    pub profiles: Vec<ProfileName>,
    /// Labels of every line, such as `host` and `service`.
    pub labels: BTreeMap<String, String>,
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

    /// The paths that name no file now, for `doctor`.
    pub fn missing(&self) -> Vec<String> {
        let paths = self.inner.groups.iter().flat_map(|group| &group.paths);
        paths.filter(|path| expand(path).is_ok_and(|found| found.is_empty())).cloned().collect()
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
        let page = Page { per_query: vec![0; inner.groups.len()], ..Page::default() };
        let first = positions.is_none();
        let known = positions.unwrap_or_default().files;
        Self { inner, first, known, next: Vec::new(), budget, bytes: 0, page }
    }

    fn run(mut self) -> Result<Page, SourceError> {
        let mut current: Vec<(usize, PathBuf, fs::Metadata)> = Vec::new();
        for (number, group) in self.inner.groups.iter().enumerate() {
            for path in &group.paths {
                match expand(path) {
                    Ok(found) => {
                        for path in found {
                            match fs::metadata(&path) {
                                Ok(meta) if meta.is_file() && !is_packed(&path) => current.push((number, path, meta)),
                                Ok(_) => {}
                                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                                Err(cause) => self.problem(&path.display().to_string(), ProblemKind::Retry, cause),
                            }
                        }
                    }
                    Err(cause) => self.problem(path, ProblemKind::Retry, cause),
                }
            }
        }
        current.sort_by(|a, b| a.1.cmp(&b.1));
        current.dedup_by(|a, b| (a.2.dev(), a.2.ino()) == (b.2.dev(), b.2.ino()));
        // What was rotated away is read to its end first.
        for position in std::mem::take(&mut self.known) {
            let still_there =
                current.iter().any(|(_, _, meta)| (meta.dev(), meta.ino()) == (position.device, position.inode));
            if still_there { self.next.push(position) } else { self.rotated(position) }
        }
        for (group, path, meta) in current {
            self.current(group, &path, &meta);
        }
        self.page.more = self.full();
        if !self.page.more && self.page.problems.is_empty() {
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

    fn problem(&mut self, subject: &str, kind: ProblemKind, cause: io::Error) {
        let error = SourceError::Io { path: subject.to_owned(), cause };
        self.page.problems.push(Problem { subject: subject.to_owned(), kind, error });
    }

    /// A file whose name may lead to it still, or was never seen.
    fn current(&mut self, group: usize, path: &Path, meta: &fs::Metadata) {
        let name = path.display().to_string();
        let identity = (meta.dev(), meta.ino());
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(cause) => return self.problem(&name, ProblemKind::Retry, cause),
        };
        let at = self.next.iter().position(|known| (known.device, known.inode) == identity);
        let mut position = match at.map(|at| self.next.remove(at)) {
            Some(mut known) => {
                known.path = name.clone();
                let replaced = meta.len() < known.offset || !head_matches(&mut file, &known.head);
                if replaced {
                    known.generation += 1;
                    known.offset = 0;
                    known.head = (0, String::new());
                }
                known
            }
            None => {
                let from_start = !self.first || self.inner.groups[group].from_start;
                let offset = if from_start { 0 } else { last_line_end(&mut file, meta.len()) };
                let (device, inode) = identity;
                Position { path: name.clone(), group, device, inode, generation: 0, offset, head: (0, String::new()) }
            }
        };
        if position.head.0 < HEAD {
            position.head = head(&mut file).unwrap_or_default();
        }
        if let Err(cause) = file.seek(SeekFrom::Start(position.offset)) {
            self.next.push(position);
            return self.problem(&name, ProblemKind::Retry, cause);
        }
        let mut reader = BufReader::with_capacity(256 * 1024, &file);
        self.take(&mut position, &mut reader, false);
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
        if let Some(mut file) = held {
            let done = match file.seek(SeekFrom::Start(position.offset)) {
                Ok(_) => self.take(&mut position, &mut BufReader::new(&file), true),
                Err(cause) => {
                    self.problem(&position.path.clone(), ProblemKind::Gap { lines: None }, cause);
                    true
                }
            };
            if !done {
                self.held().insert(identity, file);
                self.next.push(position);
            }
            return;
        }
        let reader = find_rotated(&position);
        let Some(mut reader) = reader else {
            let error = SourceError::Gap {
                subject: position.path.clone(),
                reason:
                    "the file was rotated away and cannot be found beside its old name; lines written to it after the \
                         last read are missing"
                        .to_owned(),
            };
            self.page.problems.push(Problem { subject: position.path, kind: ProblemKind::Gap { lines: None }, error });
            return;
        };
        let done = self.take(&mut position, &mut *reader, true);
        if !done {
            self.next.push(position);
        }
    }

    /// Takes lines from `reader`, which stands at the position. `ended`: nothing will be appended any more, so that a
    /// last line without an end counts. Returns whether everything was read.
    fn take(&mut self, position: &mut Position, reader: &mut dyn BufRead, ended: bool) -> bool {
        let group = &self.inner.groups[position.group.min(self.inner.groups.len() - 1)];
        let mut labels = group.labels.clone();
        labels.insert("filename".to_owned(), position.path.clone());
        let stream = Arc::new(Stream::new(labels).with_zone(group.zone.clone()));
        let mut cut = 0;
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
            cut += taken.cut;
            self.page.lines.push(Line {
                id: LineId::of(&parts),
                time: self.budget.now,
                clock: Clock::Arrival,
                stream: stream.clone(),
                text: taken.text,
                tags: 1 << position.group.min(63),
            });
            if let Some(count) = self.page.per_query.get_mut(position.group) {
                *count += 1;
            }
        };
        if cut > 0 {
            let reason = format!("lines longer than 1 MiB were shortened by {cut} bytes in the middle");
            let error = SourceError::Gap { subject: position.path.clone(), reason };
            let (subject, kind) = (position.path.clone(), ProblemKind::Gap { lines: Some(0) });
            self.page.problems.push(Problem { subject, kind, error });
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

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["gz", "zst", "xz", "bz2"].iter().any(|packed| extension == *packed))
}

/// The rest of a rotated file: the file with its inode beside its old name, or a compressed one with its beginning.
fn find_rotated(position: &Position) -> Option<Box<dyn BufRead>> {
    let old = Path::new(&position.path);
    let stem = old.file_name()?.to_string_lossy().into_owned();
    let stem = stem.split('.').next().unwrap_or(&stem).to_owned();
    let mut packed = Vec::new();
    for entry in fs::read_dir(old.parent()?).ok()?.flatten() {
        let path = entry.path();
        let Ok(meta) = entry.metadata() else { continue };
        if (meta.dev(), meta.ino()) == (position.device, position.inode) && meta.len() >= position.offset {
            let mut file = File::open(&path).ok()?;
            if head_matches(&mut file, &position.head) {
                file.seek(SeekFrom::Start(position.offset)).ok()?;
                return Some(Box::new(BufReader::new(file)));
            }
        }
        if is_packed(&path) && entry.file_name().to_string_lossy().starts_with(&stem) {
            packed.push((meta.mtime(), path));
        }
    }
    packed.sort();
    for (_, path) in packed.into_iter().rev().take(4) {
        let Ok(mut reader) = open::file(&path) else { continue };
        let mut beginning = Vec::new();
        let read = (&mut reader).take(position.head.0).read_to_end(&mut beginning);
        if read.is_err() || position.head.0 == 0 || hash(&beginning) != position.head.1 {
            continue;
        }
        let rest = position.offset.saturating_sub(position.head.0);
        if position.offset < position.head.0 {
            // Read less than the beginning: start again.
            let mut reader = open::file(&path).ok()?;
            io::copy(&mut (&mut reader).take(position.offset), &mut io::sink()).ok()?;
            return Some(reader);
        }
        if io::copy(&mut (&mut reader).take(rest), &mut io::sink()).ok()? == rest {
            return Some(reader);
        }
    }
    None
}

/// The files that a path with `*` and `?` in its last part names now, sorted.
fn expand(pattern: &str) -> io::Result<Vec<PathBuf>> {
    let path = Path::new(pattern);
    let Some(last) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { return Ok(Vec::new()) };
    if !last.contains(['*', '?']) {
        return match fs::metadata(path) {
            Ok(_) => Ok(vec![path.to_owned()]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if fits(last.as_bytes(), entry.file_name().to_string_lossy().as_bytes()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a name fits a pattern with `*` and `?`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_characters() {
        for (pattern, name, expected) in [
            ("*.log", "a.log", true),
            ("*.log", "a.log.1", false),
            ("sys*", "syslog.1", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
