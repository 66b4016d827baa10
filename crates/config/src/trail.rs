//! The debugging trail: three files that one can `tail -f`, redacted, mode 0600, bounded.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use logwarden_core::{Timestamp, pipeline};

/// A file that is larger is set aside as `<name>.old`, which replaces the one before.
const MAX_BYTES: u64 = 16 << 20;

/// Writes what passes through into `received`, `prompt` and `response`.
#[derive(Debug)]
pub struct Trail {
    received: Mutex<Log>,
    prompt: Mutex<Log>,
    response: Mutex<Log>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Trail {
    /// Opens the files in `directory`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When that cannot be done.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let log = |name: &str| Ok::<_, io::Error>(Mutex::new(Log::open(directory.join(name))?));
        Ok(Self { received: log("received")?, prompt: log("prompt")?, response: log("response")? })
    }
}

impl Log {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.bytes > MAX_BYTES {
            fs::rename(&self.path, self.path.with_extension("old"))?;
            *self = Self::open(self.path.clone())?;
        }
        self.file.write_all(text.as_bytes())?;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

/// A trail that cannot be written must not stop the work; it says so once per failure in our own log.
fn note(log: &Mutex<Log>, text: &str) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = log.write(text) {
        tracing::debug!(%error, path = %log.path.display(), "the trail cannot be written");
    }
}

impl pipeline::Trail for Trail {
    fn received(&self, source: &str, time: Timestamp, text: &str) {
        note(&self.received, &format!("{time} {source} {text}\n"));
    }

    fn prompt(&self, profile: &str, text: &str) {
        note(&self.prompt, &format!("--- {profile}\n{text}\n"));
    }

    fn response(&self, profile: &str, text: &str) {
        note(&self.response, &format!("--- {profile}\n{text}\n"));
    }
}
