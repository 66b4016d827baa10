//! The debugging trail: three files that one can `tail -f`, redacted, for their owner alone, bounded in size and age.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use logwarden_core::{Timestamp, env::Env, pipeline};

/// A file that is larger is set aside as `<name>.old`, which replaces the one before.
const MAX_BYTES: u64 = 16 << 20;
/// So is one that is older; and one that was set aside goes after the same time.
const MAX_AGE: Duration = Duration::from_secs(86_400);

/// Writes what passes through into `received`, `prompt` and `response`.
#[derive(Debug)]
pub struct Trail {
    env: Arc<dyn Env>,
    received: Mutex<Log>,
    prompt: Mutex<Log>,
    response: Mutex<Log>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    begun: Timestamp,
    /// That it cannot be written was said.
    complained: bool,
}

impl Trail {
    /// Opens the files in `directory`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When that cannot be done.
    pub fn open(directory: &Path, env: Arc<dyn Env>) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let log = |name: &str| Ok::<_, io::Error>(Mutex::new(Log::open(directory.join(name), env.now())?));
        let (received, prompt, response) = (log("received")?, log("prompt")?, log("response")?);
        Ok(Self { env, received, prompt, response })
    }

    /// A trail that cannot be written must not stop the work; it says so once.
    fn note(&self, log: &Mutex<Log>, text: &str) {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        match log.write(text, self.env.now()) {
            Ok(()) => log.complained = false,
            Err(error) if !std::mem::replace(&mut log.complained, true) => {
                tracing::warn!(%error, path = %log.path.display(), "the trail cannot be written");
            }
            Err(_) => {}
        }
    }
}

/// How a file begins: when that was. Not every file system knows.
const SINCE: &str = "# since ";

impl Log {
    /// What is too old goes when it is opened: perhaps nothing is ever written to it again.
    fn open(path: PathBuf, now: Timestamp) -> io::Result<Self> {
        let old = old(&path);
        if fs::metadata(&old).is_ok_and(|meta| is_old(changed(&meta), now)) {
            fs::remove_file(&old)?;
        }
        let mut file = Self::create(&path)?;
        let meta = file.metadata()?;
        if meta.permissions().mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        let begun = begun(&mut file).unwrap_or_else(|| changed(&meta)).min(now);
        let mut log = Self { path, file, bytes: meta.len(), begun, complained: false };
        log.set_aside(now)?;
        Ok(log)
    }

    fn create(path: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)
    }

    /// If it is large or old enough.
    fn set_aside(&mut self, now: Timestamp) -> io::Result<()> {
        if self.bytes > MAX_BYTES || (self.bytes > 0 && is_old(self.begun, now)) {
            fs::rename(&self.path, old(&self.path))?;
            (self.file, self.bytes) = (Self::create(&self.path)?, 0);
        }
        Ok(())
    }

    fn write(&mut self, text: &str, now: Timestamp) -> io::Result<()> {
        self.set_aside(now)?;
        if self.bytes == 0 {
            let since = format!("{SINCE}{now}\n");
            self.file.write_all(since.as_bytes())?;
            (self.begun, self.bytes) = (now, since.len() as u64);
        }
        self.file.write_all(text.as_bytes())?;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

/// When a file was begun, if it says so.
fn begun(file: &mut File) -> Option<Timestamp> {
    let mut head = Vec::new();
    file.take(100).read_to_end(&mut head).ok()?;
    let head = String::from_utf8_lossy(&head);
    let time: jiff::Timestamp = head.strip_prefix(SINCE)?.lines().next()?.parse().ok()?;
    Some(Timestamp::from_secs(time.as_second()))
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("old")
}

fn is_old(since: Timestamp, now: Timestamp) -> bool {
    now.since(since) > MAX_AGE
}

fn changed(meta: &fs::Metadata) -> Timestamp {
    meta.modified().ok().and_then(timestamp).unwrap_or_default()
}

fn timestamp(time: std::time::SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_secs(i64::try_from(since.as_secs()).ok()?))
}

impl pipeline::Trail for Trail {
    fn received(&self, source: &str, time: Timestamp, text: &str) {
        self.note(&self.received, &format!("{time} {source} {text}\n"));
    }

    fn prompt(&self, profile: &str, text: &str) {
        self.note(&self.prompt, &format!("--- {} {profile}\n{text}\n", self.env.now()));
    }

    fn response(&self, profile: &str, text: &str) {
        self.note(&self.response, &format!("--- {} {profile}\n{text}\n", self.env.now()));
    }
}

#[cfg(test)]
mod tests {
    use logwarden_core::{pipeline::Trail as _, testing::FakeEnv};

    use super::*;

    #[test]
    fn files_are_private_and_bounded_in_age_and_size() {
        let directory = tempfile::tempdir().unwrap();
        let made = timestamp(fs::metadata(directory.path()).unwrap().modified().unwrap()).unwrap();
        let env = FakeEnv::new(made.plus(Duration::from_secs(1)), 1);
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        fs::write(directory.path().join("received"), "").unwrap();
        let trail = Trail::open(directory.path(), Arc::new(env.clone())).unwrap();
        for name in ["received", "prompt", "response"] {
            let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let long = "x".repeat(MAX_BYTES as usize);
        trail.prompt("general", &long);
        trail.prompt("general", "the next one");
        assert!(read("prompt.old").len() > long.len() && read("prompt").ends_with("general\nthe next one\n"));

        let receive = |text: &str| trail.received("log", env.now(), text);
        receive("of the first day");
        env.advance(Duration::from_secs(80_000));
        receive("of the first day, too");
        let written = std::time::UNIX_EPOCH + Duration::from_nanos(env.now().nanos().unsigned_abs());
        File::options().append(true).open(directory.path().join("received")).unwrap().set_modified(written).unwrap();
        env.advance(Duration::from_secs(10_000));
        receive("of the second day");
        assert!(read("received.old").contains("first day, too"), "a day that is over is set aside");
        let received = read("received");
        assert!(received.starts_with(SINCE) && received.lines().count() == 2, "{received}");
        env.advance(Duration::from_secs(80_000));
        drop(Trail::open(directory.path(), Arc::new(env.clone())).unwrap());
        assert!(!directory.path().join("received.old").exists(), "and goes a day later, also when nothing was written");
    }

    /// A file system need not know when a file was made, and nothing may ever be written to it again.
    #[test]
    fn what_is_too_old_is_set_aside_and_goes_when_it_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let made = timestamp(fs::metadata(directory.path()).unwrap().modified().unwrap()).unwrap();
        let env = FakeEnv::new(made.plus(Duration::from_secs(1)), 1);
        let open = || Trail::open(directory.path(), Arc::new(env.clone())).unwrap();
        let before = |seconds| env.now().minus(Duration::from_secs(seconds));
        fs::write(path("prompt"), format!("{SINCE}{}\nof the day before\n", before(90_000))).unwrap();
        fs::write(path("response"), format!("{SINCE}{}\nof this day\n", before(80_000))).unwrap();
        let trail = open();
        assert!(fs::read_to_string(path("prompt.old")).unwrap().contains("of the day before"));
        assert_eq!(fs::read_to_string(path("prompt")).unwrap(), "");
        trail.response("general", "an answer");
        env.advance(Duration::from_secs(10_000));
        open().response("general", "another one");
        assert!(fs::read_to_string(path("response.old")).unwrap().contains("an answer"), "its first line counts");
        assert!(!fs::read_to_string(path("response")).unwrap().contains("an answer"));
        env.advance(Duration::from_secs(90_000));
        open();
        assert!(!path("prompt.old").exists());
    }

    #[test]
    fn what_cannot_be_opened_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("prompt")).unwrap();
        assert!(Trail::open(directory.path(), Arc::new(FakeEnv::new(Timestamp::from_secs(1), 1))).is_err());
    }
}
