//! Why a database could not be used.

use std::{io, path::PathBuf, sync::Arc};

use rusqlite::ErrorCode;

/// Why a database could not be used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No room on the disk, or a configured size is reached. Nothing was changed.
    #[error("no room left for {}", path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// Written by a newer version of this program.
    #[error("{} has schema {found}, this program knows up to {known}", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A SQLite file of another program.
    #[error("{} is not a file of this program (application id {found:#x})", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The application id in it.
        found: i32,
    },
    /// On a network file system, where locks cannot be relied on.
    #[error("{} is on a network file system ({kind}), where SQLite files get damaged", path.display())]
    Network {
        /// The directory.
        path: PathBuf,
        /// The type of file system.
        kind: String,
    },
    /// Damaged, and another process has it open, so that it cannot be set aside.
    #[error("{} is damaged ({found}) and in use by another process; stop it and start again", path.display())]
    DamagedInUse {
        /// The database.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// Found damaged while in use. It is checked, and set aside if need be, at the next start.
    #[error("{} is damaged; restart to set it aside and begin a new one", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        cause: Arc<rusqlite::Error>,
    },
    /// A row cannot be read.
    #[error("{0}")]
    Row(#[from] Damage),
    /// Another process held the lock for longer than the busy timeout.
    #[error("{} was locked by another process for too long", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Arc<io::Error>,
    },
    /// A setting did not take.
    #[error("{} refused the setting {pragma}: it is {found}", path.display())]
    Setting {
        /// The database.
        path: PathBuf,
        /// Which.
        pragma: &'static str,
        /// Its value.
        found: String,
    },
    /// The library is one that damages files in use by several processes.
    #[error("SQLite {found} is too old: 3.51.3 is the first without the WAL reset bug")]
    Library {
        /// Its version.
        found: &'static str,
    },
    /// Anything else that SQLite refused.
    #[error("cannot use {}", path.display())]
    Sql {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Arc<rusqlite::Error>,
    },
    /// The database was closed, or its thread is gone.
    #[error("the database is closed")]
    Closed,
}

/// A row that cannot be read: damaged, or written by something else.
#[derive(Clone, Debug, thiserror::Error)]
#[error("row {row} of table `{table}` cannot be read")]
pub struct Damage {
    /// The table.
    pub table: &'static str,
    /// Its key.
    pub row: String,
    /// Why.
    #[source]
    pub cause: Arc<dyn std::error::Error + Send + Sync>,
}

/// What a job may answer: SQLite's own error, or one with more to say.
impl From<rusqlite::Error> for Error {
    fn from(cause: rusqlite::Error) -> Self {
        Self::Sql { path: PathBuf::new(), cause: Arc::new(cause) }
    }
}

impl Error {
    /// The error that SQLite's error about `path` means for the caller.
    pub(crate) fn about(self, path: &std::path::Path) -> Self {
        let Self::Sql { cause, .. } = &self else { return self };
        let path = path.to_owned();
        match cause.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { path, cause: cause.clone() },
            _ => Self::Sql { path, cause: cause.clone() },
        }
    }

    pub(crate) fn io(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| {
            if cause.kind() == io::ErrorKind::StorageFull || cause.kind() == io::ErrorKind::QuotaExceeded {
                Self::Full { path }
            } else {
                Self::Io { doing, path, cause: Arc::new(cause) }
            }
        }
    }
}
