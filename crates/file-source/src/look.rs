//! What the path of a followed file leads to: a log that can be read as it grows, or something else.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use logwarden_core::source::SourceError;

use crate::open;

/// A file that is there.
#[derive(Debug)]
pub struct Look {
    /// Its path.
    pub path: PathBuf,
    /// Whether its own name was written, and not only a pattern that it fits, too.
    pub is_named: bool,
    /// Why it cannot be followed, if it cannot.
    pub standing: Result<(), SourceError>,
}

/// Looks at what a path leads to now; in its last part `*` stands for any characters and `?` for one. Empty when nothing is
/// there. Directories, and packed files by their names, that a pattern fits are left out: rotated files lie beside the logs.
///
/// # Errors
///
/// When a directory cannot be listed.
pub fn look(path: &str) -> Result<Vec<Look>, SourceError> {
    let is_named = !is_pattern(path);
    let failed = |cause| SourceError::Io { path: path.to_owned(), cause };
    let found = expand(path).map_err(failed)?.into_iter().filter(|path| is_named || is_candidate(path));
    Ok(found.map(|path| Look { standing: standing(&path), path, is_named }).collect())
}

fn standing(path: &Path) -> Result<(), SourceError> {
    let name = path.display().to_string();
    let failed = |cause| SourceError::Io { path: name.clone(), cause };
    let meta = fs::metadata(path).map_err(failed)?;
    is_log(path, &meta)?;
    is_text(path, &mut File::open(path).map_err(failed)?, meta.len())
}

/// Whether a path that a pattern fits may be a log.
pub(crate) fn is_candidate(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |meta| meta.is_file()) && !is_packed(path)
}

/// Refuses what is no file that grows.
pub(crate) fn is_log(path: &Path, meta: &fs::Metadata) -> Result<(), SourceError> {
    let name = path.display().to_string();
    let unusable = |reason: &str, hint: String| {
        Err(SourceError::Unusable { subject: name.clone(), reason: reason.to_owned(), hint: Some(hint) })
    };
    if meta.is_dir() {
        return unusable("it is a directory", open::name_files(path));
    }
    if !meta.is_file() {
        return unusable("it is a pipe, a socket or a device", "only files can be followed".to_owned());
    }
    if is_packed(path) {
        return Err(packed(path));
    }
    Ok(())
}

/// Refuses what is certainly no text: a file that is none by its first bytes, or one that begins and ends with noise. A log
/// with a damaged part is text at one of its ends. Nothing is lost by it: once there is text at its end, all of it is read.
pub(crate) fn is_text(path: &Path, file: &mut File, len: u64) -> Result<(), SourceError> {
    let name = path.display().to_string();
    let failed = |cause| SourceError::Io { path: name.clone(), cause };
    let first = piece(file, 0).map_err(failed)?;
    if open::is_packed(&first) {
        return Err(packed(path));
    }
    if let Some(hint) = open::mark(&name, &first) {
        return Err(open::no_text(&name, Some(hint)));
    }
    let is_noise = |bytes: Vec<u8>| open::is_noise(&without_hole(bytes));
    if is_noise(first) && is_noise(piece(file, len.saturating_sub(open::HEAD as u64)).map_err(failed)?) {
        return Err(open::no_text(&name, Some("only text can be followed".to_owned())));
    }
    Ok(())
}

/// The longest run of NUL left out: what a log has where it was emptied under a writer that keeps its place, and where the
/// power went.
fn without_hole(mut bytes: Vec<u8>) -> Vec<u8> {
    let (mut hole, mut from) = (0..0, None);
    for (at, byte) in bytes.iter().chain(&[1]).enumerate() {
        match (byte, from) {
            (0, None) => from = Some(at),
            (0, Some(_)) | (_, None) => {}
            (_, Some(start)) => {
                hole = if at - start > hole.len() { start..at } else { hole };
                from = None;
            }
        }
    }
    bytes.drain(hole);
    bytes
}

fn piece(file: &mut File, from: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(open::HEAD as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn packed(path: &Path) -> SourceError {
    let subject = path.display().to_string();
    let hint = Some(format!("name the log that is written to; `scan {subject}` reads what is packed"));
    SourceError::Unusable { subject, reason: "it is packed, and what is packed does not grow".to_owned(), hint }
}

/// Whether a file is packed, by its name.
pub(crate) fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["gz", "zst", "xz", "bz2"].iter().any(|packed| extension == *packed))
}

/// Whether a path stands for any number of files.
pub(crate) fn is_pattern(path: &str) -> bool {
    Path::new(path).file_name().is_some_and(|last| last.to_string_lossy().contains(['*', '?']))
}

/// The files that a path with `*` and `?` in its last part names now, sorted. In a directory that is not there yet, none.
pub(crate) fn expand(pattern: &str) -> io::Result<Vec<PathBuf>> {
    let path = Path::new(pattern);
    let or_none = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    };
    if !is_pattern(pattern) {
        return fs::metadata(path).map(|_| vec![path.to_owned()]).or_else(or_none);
    }
    let last = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return or_none(error),
    };
    let mut found = Vec::new();
    for entry in entries {
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
