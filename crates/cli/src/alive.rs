//! Which of the processes on this state are alive.
//!
//! What a process owns in the ledger it owns for a while, so that nothing is stuck when it ends without a word. Nobody
//! needs to wait for that: each process holds a lock on a file of its own name, which the operating system lets go however
//! the process ends. Whoever finds the file without a lock knows that its owner is gone; whoever finds no file knows
//! nothing, and waits.
//!
//! Names are random and locks are the kernel's, so that neither a process number that is used again nor containers with
//! numbers of their own on one volume are mistaken. Where locks do not reach every machine (NFS), no state is opened at all.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use logwarden_core::{error::chain, ledger::ProcessId, pipeline::Pipeline};
use logwarden_sqlite::{Error, lock_file, private_dir};
use tracing::{info, warn};

/// In the state directory.
const DIRECTORY: &str = "alive";
/// When all that a process owned has lapsed for certain.
const LAPSED: Duration = Duration::from_secs(3600);

/// This process is alive for as long as this is. The file stays: what was not given back by then is taken over.
#[derive(Debug)]
pub(crate) struct Alive {
    directory: PathBuf,
    own: PathBuf,
    _lock: Option<File>,
}

impl Alive {
    fn begin(state_dir: &Path, process: ProcessId) -> Self {
        let directory = state_dir.join(DIRECTORY);
        let own = directory.join(name(process));
        let lock = private_dir(&directory).and_then(|()| locked(&own));
        let lock = lock.inspect_err(|error| {
            // Without a lock it would say that this process is gone.
            let _ = fs::remove_file(&own);
            warn!(error = %chain(error), "should this process be killed, the next one waits until what it owned lapses");
        });
        Self { directory, own, _lock: lock.ok() }
    }

    fn is_gone(&self, process: ProcessId) -> bool {
        unlocked(&self.directory.join(name(process))).is_some()
    }

    /// Marks the files of those who are gone, and removes them later: what else they owned may be another program's to take.
    fn tidy(&self) {
        let files = fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in files.filter(|path| *path != self.own) {
            let Some(mut file) = unlocked(&path) else { continue };
            let Ok(meta) = file.metadata() else { continue };
            if meta.len() == 0 {
                let _ = file.write_all(b"gone\n");
            } else if meta.modified().is_ok_and(|since| since.elapsed().is_ok_and(|age| age > LAPSED)) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn name(process: ProcessId) -> String {
    format!("{:032x}", process.0)
}

fn locked(path: &Path) -> Result<File, Error> {
    let file = lock_file(path)?;
    file.lock().map_err(|cause| Error::Io { doing: "lock", path: path.to_owned(), cause: Arc::new(cause) })?;
    Ok(file)
}

/// The file, locked, if there is one and nobody else holds it.
fn unlocked(path: &Path) -> Option<File> {
    let file = OpenOptions::new().append(true).open(path).ok()?;
    file.try_lock().ok().map(|()| file)
}

/// Says that this process is alive, and takes over what others left that are not.
pub(crate) async fn take_over(pipeline: &Pipeline, state_dir: &Path) -> Alive {
    let alive = Alive::begin(state_dir, pipeline.process());
    match pipeline.inherit(&|process| alive.is_gone(process)).await {
        Ok(0) => {}
        Ok(owned) => info!(owned, "took over what a process left that is gone"),
        Err(error) => {
            warn!(error = %chain(&error), "what a process left that is gone could not be taken over; it lapses");
        }
    }
    alive.tidy();
    alive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ended_without_a_word_is_gone_and_who_is_unknown_may_live() {
        let state = tempfile::tempdir().unwrap();
        let (one, two) = (ProcessId(1), ProcessId(2));
        let alive = Alive::begin(state.path(), one);
        let other = Alive::begin(state.path(), two);
        assert!(!other.is_gone(one) && !other.is_gone(two) && !other.is_gone(ProcessId(3)));
        let file = alive.own.clone();
        drop(alive);
        assert!(other.is_gone(one));

        other.tidy();
        assert!(other.is_gone(one), "another program may have to take over something, too");
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        File::options().append(true).open(&file).and_then(|file| file.set_modified(long_ago)).unwrap();
        other.tidy();
        assert!(!file.exists() && !other.is_gone(one), "no file, no knowledge");
        assert!(!Alive::begin(state.path(), one).is_gone(two), "it lives, and its file is there");
    }

    #[test]
    fn without_a_place_for_its_file_it_still_knows_who_is_gone() {
        let state = tempfile::tempdir().unwrap();
        drop(Alive::begin(state.path(), ProcessId(1)));
        let own = state.path().join(DIRECTORY).join(name(ProcessId(2)));
        fs::create_dir(own).unwrap(); // whatever stands there is no file
        assert!(Alive::begin(state.path(), ProcessId(2)).is_gone(ProcessId(1)));
    }
}
