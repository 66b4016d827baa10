//! The threads of a database: one that writes, two that read.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Error, Opened, Options, Schema,
    open::{Presence, beside, connect, prepare, user_version},
};

/// Jobs that wait at most; who comes later waits to be let in.
const QUEUE: usize = 256;
/// Jobs in one transaction at most, and for how long it takes in more.
const GROUP: usize = 128;
const GROUP_TIME: Duration = Duration::from_millis(50);
const READERS: usize = 2;

/// Whether what a job did is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept<T> {
    /// Commit it.
    Yes(T),
    /// Roll it back, as if the job had never run; its answer is given all the same.
    No(T),
}

/// An open database.
///
/// Cheap to share by reference; dropping it finishes what was asked for and closes the file.
pub struct Database {
    path: PathBuf,
    writes: Option<mpsc::Sender<WriteJob>>,
    reads: Option<mpsc::Sender<ReadJob>>,
    known: u32,
    writer: Option<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
    _presence: Presence,
}

type ReadJob = Box<dyn FnOnce(&Connection) + Send>;
/// Runs inside a savepoint, or is told why there is none.
type WriteJob = Box<dyn FnOnce(Result<&Connection, Error>) -> Ended + Send>;
/// Tells whoever waits how the transaction ended.
type Tell = Box<dyn FnOnce(Result<(), Error>)>;

/// How a job ended.
struct Ended {
    work: Result<Work, Error>,
    tell: Tell,
}

enum Work {
    Keep,
    Undo,
}

impl Database {
    /// Opens the database at `path`, and creates, migrates or sets it aside as needed. Blocks; takes milliseconds unless
    /// there is something to check or to migrate.
    ///
    /// # Errors
    ///
    /// When the file cannot or must not be used; nothing was changed then.
    pub fn open(path: &Path, schema: &'static Schema, options: &Options) -> Result<(Self, Opened), Error> {
        let (opened, presence) = prepare(path, schema, options)?;
        let known = schema.version();

        let (writes, jobs) = mpsc::channel(QUEUE);
        let writer = Writer { connection: connect(path, options)?, path: path.to_owned(), known };
        let writer = Some(spawn("sqlite-write", path, move || writer.run(jobs))?);

        let (reads, jobs) = mpsc::channel::<ReadJob>(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let connection = connect(path, options)?;
            connection.execute_batch("PRAGMA query_only = ON").map_err(|cause| Error::from(cause).about(path))?;
            let jobs = jobs.clone();
            readers.push(spawn("sqlite-read", path, move || {
                loop {
                    // One reader waits for the next job, the other one for the first.
                    let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                    let Some(job) = job else { return };
                    job(&connection);
                }
            })?);
        }
        let path = path.to_owned();
        let (writes, reads) = (Some(writes), Some(reads));
        Ok((Self { path, writes, reads, known, writer, readers, _presence: presence }, opened))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Executes `job` in a transaction and answers once it is on disk. Dropping the future does not stop a job that
    /// has been queued: it may have been executed.
    ///
    /// # Errors
    ///
    /// When the job or its transaction failed. After [`Error::Sql`] it is unknown whether it was executed.
    pub async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<Kept<T>, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.write_then(job, |_| ()).await
    }

    /// Like [`Database::write`]; `then` runs on the writer's thread after a commit that kept what the job did, before
    /// anybody is told.
    ///
    /// # Errors
    ///
    /// As for `write`.
    pub async fn write_then<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<Kept<T>, Error> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, outcome) = oneshot::channel();
        let job: WriteJob = Box::new(move |connection| match connection.and_then(job) {
            Ok(Kept::Yes(value)) => {
                let tell = move |committed: Result<(), Error>| {
                    drop(answer.send(committed.map(|()| {
                        then(&value);
                        value
                    })));
                };
                Ended { work: Ok(Work::Keep), tell: Box::new(tell) }
            }
            Ok(Kept::No(value)) => {
                // What it saw is only true if the transaction went well.
                let tell = move |committed: Result<(), Error>| drop(answer.send(committed.map(|()| value)));
                Ended { work: Ok(Work::Undo), tell: Box::new(tell) }
            }
            Err(error) => {
                let work = Err(error.clone());
                Ended { work, tell: Box::new(move |_| drop(answer.send(Err(error)))) }
            }
        });
        let writes = self.writes.as_ref().ok_or(Error::Closed)?;
        writes.send(job).await.map_err(|_| Error::Closed)?;
        outcome.await.map_err(|_| Error::Closed)?.map_err(|error| self.noted(error))
    }

    /// Executes `job` on one consistent state.
    ///
    /// # Errors
    ///
    /// When the job failed, or the schema is newer.
    pub async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, outcome) = oneshot::channel();
        let (path, known) = (self.path.clone(), self.known);
        let job: ReadJob = Box::new(move |connection| {
            // Who asked may have left.
            if answer.is_closed() {
                return;
            }
            let job = |connection: &Connection| match user_version(connection)? {
                found if found == known => job(connection),
                found => Err(Error::Newer { path, found, known }),
            };
            let _ = answer.send(in_snapshot(connection, job));
        });
        let reads = self.reads.as_ref().ok_or(Error::Closed)?;
        reads.send(job).await.map_err(|_| Error::Closed)?;
        outcome.await.map_err(|_| Error::Closed)?.map_err(|error| self.noted(error))
    }

    /// Names the file in an error, and has a damaged one checked at the next start.
    fn noted(&self, error: Error) -> Error {
        let error = error.about(&self.path);
        if matches!(error, Error::Damaged { .. }) {
            let _ = std::fs::write(beside(&self.path, "suspect"), b"");
        }
        error
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The last connection to close moves the log into the file: that must be the writer's.
        self.reads = None;
        self.readers.drain(..).for_each(|thread| drop(thread.join()));
        self.writes = None;
        self.writer.take().map(JoinHandle::join);
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

fn spawn(name: &str, path: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(Error::io("start a thread for", path))
}

fn in_snapshot<T>(connection: &Connection, job: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
    connection.execute_batch("BEGIN")?;
    let answer = unless_it_panics(|| job(connection)).unwrap_or(Err(Error::Closed));
    // SQLite ends some transactions that fail by itself.
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    answer
}

/// A job that panics has a mistake in it; the thread goes on for the others.
fn unless_it_panics<T>(job: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(job)).ok()
}

struct Writer {
    connection: Connection,
    path: PathBuf,
    known: u32,
}

impl Writer {
    fn run(self, mut jobs: mpsc::Receiver<WriteJob>) {
        let mut tells = Vec::new();
        while let Some(first) = jobs.blocking_recv() {
            let outcome = self.group(first, &mut jobs, &mut tells);
            for tell in tells.drain(..) {
                tell(outcome.clone());
            }
        }
    }

    /// Executes a job and those that wait behind it in one transaction, and collects who is to be told how it ended.
    fn group(&self, first: WriteJob, jobs: &mut mpsc::Receiver<WriteJob>, tells: &mut Vec<Tell>) -> Result<(), Error> {
        if let Err(error) = self.begin() {
            tells.push(first(Err(error.clone())).tell);
            return Err(error);
        }
        let until = Instant::now() + GROUP_TIME;
        let mut next = Some(first);
        while let Some(job) = next {
            self.one(job, tells)?;
            let room = tells.len() < GROUP && Instant::now() < until;
            next = if room { jobs.try_recv().ok() } else { None };
        }
        self.connection.execute_batch("COMMIT").map_err(|cause| self.lost(cause.into()))
    }

    fn begin(&self) -> Result<(), Error> {
        let about = |cause: rusqlite::Error| Error::from(cause).about(&self.path);
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(about)?;
        // Read inside the transaction: a newer program may have migrated the file since the last one.
        let found = user_version(&self.connection).map_err(|cause| self.lost(cause.into()))?;
        if found != self.known {
            let error = Error::Newer { path: self.path.clone(), found, known: self.known };
            return Err(self.lost(error));
        }
        Ok(())
    }

    /// Executes one job in a savepoint; an error when that took the whole transaction with it.
    fn one(&self, job: WriteJob, tells: &mut Vec<Tell>) -> Result<(), Error> {
        if let Err(cause) = self.connection.execute_batch("SAVEPOINT job") {
            let error = self.lost(cause.into());
            tells.push(job(Err(error.clone())).tell);
            return Err(error);
        }
        let Some(ended) = unless_it_panics(|| job(Ok(&self.connection))) else {
            return self.end_job("ROLLBACK TO job; RELEASE job");
        };
        tells.push(ended.tell);
        // No room, an I/O error: SQLite has rolled back everything, also what those before had done.
        if let Err(error) = &ended.work
            && self.connection.is_autocommit()
        {
            return Err(error.clone().about(&self.path));
        }
        let end = match ended.work {
            Ok(Work::Keep) => "RELEASE job",
            Ok(Work::Undo) | Err(_) => "ROLLBACK TO job; RELEASE job",
        };
        self.end_job(end)
    }

    fn end_job(&self, sql: &str) -> Result<(), Error> {
        self.connection.execute_batch(sql).map_err(|cause| self.lost(cause.into()))
    }

    /// Ends a transaction that has failed.
    fn lost(&self, error: Error) -> Error {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        error.about(&self.path)
    }
}
