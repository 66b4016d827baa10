//! Opening: lock, check, create or migrate, set aside what is damaged.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::{Error, mounts};

/// Seconds after which every page is looked at once more, even when the file was always closed well.
const CHECK_AGAIN: i64 = 24 * 3600;

/// What a database is and how it came to its present shape.
#[derive(Debug)]
pub struct Schema {
    /// Tells our files from anybody else's.
    pub application_id: i32,
    /// The steps from an empty file to the present; the schema version is how many were made. Never changed once
    /// released, only added to.
    pub migrations: &'static [&'static str],
}

impl Schema {
    /// The version that this program knows.
    pub fn version(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }
}

/// What may be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Also open files on network file systems.
    pub allow_network: bool,
    /// How long to wait for another process's transaction.
    pub busy_timeout: Duration,
    /// The file never grows beyond this many bytes; further writes are refused as if the disk was full.
    pub max_bytes: Option<u64>,
    /// Below so many free bytes what is bulky is refused, in place of the usual bound of [`Room`](crate::Room).
    pub keep_free: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { allow_network: false, busy_timeout: Duration::from_secs(10), max_bytes: None, keep_free: None }
    }
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// There was no file.
    pub created: bool,
    /// There was a damaged file: it is here now, and what was found wrong. A new one was begun.
    pub set_aside: Option<(PathBuf, String)>,
    /// The schema version it was migrated from, and the copy that was made before.
    pub migrated: Option<(u32, PathBuf)>,
}

/// An open database's place in the world: dropped, others may set the file aside.
#[derive(Debug)]
pub(crate) struct Presence(#[expect(dead_code, reason = "held for its lock")] File);

/// Creates a directory, and its parents, that only its owner may look into. One that exists stays as it is.
///
/// # Errors
///
/// When that is not possible.
pub fn private_dir(dir: &Path) -> Result<(), Error> {
    match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => return Err(Error::io("use", dir)(io::Error::new(ErrorKind::NotADirectory, "it is no directory"))),
        Err(_) => {}
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("create", dir))?;
    give_to_owner_of_dir(dir);
    Ok(())
}

/// Makes `path` an up-to-date database; afterwards connections can be opened.
pub(crate) fn prepare(path: &Path, schema: &Schema, options: &Options) -> Result<(Opened, Presence), Error> {
    if rusqlite::version_number() < 3_051_003 {
        return Err(Error::Library { found: rusqlite::version() });
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    private_dir(dir)?;
    if !options.allow_network
        && let Some(kind) = mounts::network(dir)
    {
        return Err(Error::Network { path: dir.to_owned(), kind });
    }
    // Held until this function ends: creating, migrating and the switch to WAL are not covered by the busy timeout.
    let setup = lock_file(&beside(path, "lock"))?;
    setup.lock().map_err(Error::io("lock", &beside(path, "lock")))?;
    let (presence, alone) = be_present(path)?;

    let mut opened = Opened::default();
    let suspect = beside(path, "suspect");
    let unclean = suspect.exists() || fs::metadata(beside_sqlite(path, "-wal")).is_ok_and(|wal| wal.len() > 0);
    let checked = beside(path, "checked");
    let check = alone && (unclean || long_ago(&checked));
    match bring_up(path, schema, options, check, &mut opened) {
        Ok(()) => {}
        Err(Error::Damaged { path, cause }) => {
            let found = cause.to_string();
            if !alone {
                return Err(Error::DamagedInUse { path, found });
            }
            opened = Opened { set_aside: Some((set_aside(&path)?, found)), ..Opened::default() };
            bring_up(&path, schema, options, false, &mut opened)?;
        }
        Err(error) => return Err(error),
    }
    if alone {
        let _ = fs::remove_file(suspect);
    }
    if check || opened.created {
        let _ = note_check(&checked);
    }
    Ok((opened, presence))
}

/// Whether a file was checked more than a day ago, or at a time that has not come yet.
fn long_ago(checked: &Path) -> bool {
    let then = fs::read_to_string(checked).ok().and_then(|text| text.trim().parse::<i64>().ok());
    match (then, unix_time()) {
        (Some(then), Ok(now)) => !(then..then.saturating_add(CHECK_AGAIN)).contains(&now),
        (None, _) => true,
        (Some(_), Err(_)) => false,
    }
}

fn note_check(checked: &Path) -> Result<(), Error> {
    let now = unix_time().map_err(|cause| Error::from(cause).about(checked))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(checked)
        .map_err(Error::io("note the check in", checked))?;
    file.write_all(now.to_string().as_bytes()).map_err(Error::io("note the check in", checked))?;
    give_to_owner_of_dir(checked);
    Ok(())
}

/// Seconds since 1970, by SQLite's clock.
fn unix_time() -> rusqlite::Result<i64> {
    Connection::open_in_memory()?.query_row("SELECT unixepoch()", [], |row| row.get(0))
}

/// A connection with everything set and read back.
pub(crate) fn connect(path: &Path, options: &Options) -> Result<Connection, Error> {
    let connection = look(path, options)?;
    configure(&connection, path, options)?;
    Ok(connection)
}

/// A connection that has changed nothing yet; says so when the file is no database.
fn look(path: &Path, options: &Options) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    // The file itself must not be a link; directories above it may be.
    let real = match (path.parent().map(fs::canonicalize), path.file_name()) {
        (Some(Ok(dir)), Some(name)) => dir.join(name),
        _ => path.to_owned(),
    };
    let about = |cause: rusqlite::Error| Error::from(cause).about(path);
    let connection = Connection::open_with_flags(real, flags).map_err(about)?;
    connection.busy_timeout(options.busy_timeout).map_err(about)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(about)?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(about)?;
    Ok(connection)
}

fn configure(connection: &Connection, path: &Path, options: &Options) -> Result<(), Error> {
    let about = |cause: rusqlite::Error| Error::from(cause).about(path);
    set(connection, path, "auto_vacuum", "INCREMENTAL", "2")?;
    set(connection, path, "journal_mode", "WAL", "wal")?;
    set(connection, path, "synchronous", "FULL", "2")?;
    set(connection, path, "foreign_keys", "ON", "1")?;
    set(connection, path, "trusted_schema", "OFF", "0")?;
    set(connection, path, "cell_size_check", "ON", "1")?;
    set(connection, path, "journal_size_limit", "67108864", "67108864")?;
    let found = pragma(connection, "busy_timeout").map_err(about)?;
    if found != options.busy_timeout.as_millis().to_string() {
        return Err(Error::Setting { path: path.to_owned(), pragma: "busy_timeout", found });
    }
    if let Some(max) = options.max_bytes {
        let page: u64 = pragma(connection, "page_size").map_err(about)?.parse().unwrap_or(4096);
        connection.execute_batch(&format!("PRAGMA max_page_count = {}", max / page.max(1))).map_err(about)?;
    }
    Ok(())
}

/// The schema version of a database.
pub(crate) fn user_version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<String> {
    let text = |row: &rusqlite::Row<'_>| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(n) => n.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        })
    };
    connection.query_row(&format!("PRAGMA {name}"), [], text)
}

fn set(connection: &Connection, path: &Path, name: &'static str, value: &str, expected: &str) -> Result<(), Error> {
    let about = |cause: rusqlite::Error| Error::from(cause).about(path);
    // Written only where it differs: setting `journal_mode` takes locks.
    if pragma(connection, name).map_err(about)? == expected {
        return Ok(());
    }
    connection.execute_batch(&format!("PRAGMA {name} = {value}")).map_err(about)?;
    let found = pragma(connection, name).map_err(about)?;
    if found == expected { Ok(()) } else { Err(Error::Setting { path: path.to_owned(), pragma: name, found }) }
}

/// Creates, checks and migrates; `Damaged` when the file must be set aside.
fn bring_up(path: &Path, schema: &Schema, options: &Options, check: bool, opened: &mut Opened) -> Result<(), Error> {
    opened.created = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {
            give_to_owner_of_dir(path);
            true
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(Error::io("create", path)(error)),
    };
    let about = |cause: rusqlite::Error| Error::from(cause).about(path);
    let connection = look(path, options)?;
    // Before anything is set: another program's file stays as it is.
    let found: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(about)?;
    let version = user_version(&connection).map_err(about)?;
    let empty: bool =
        connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0)).map_err(about)?;
    if found != schema.application_id && !(found == 0 && version == 0 && empty) {
        return Err(Error::Foreign { path: path.to_owned(), found });
    }
    configure(&connection, path, options)?;
    if check {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(about)?;
        if verdict != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            let cause = rusqlite::Error::SqliteFailure(code, Some(verdict));
            return Err(about(cause));
        }
    }
    let known = schema.version();
    if version > known {
        return Err(Error::Newer { path: path.to_owned(), found: version, known });
    }
    if version == known {
        return Ok(());
    }
    if version > 0 {
        let copy = beside(path, &format!("schema-{version}"));
        back_up(&connection, path, &copy)?;
        opened.migrated = Some((version, copy));
    }
    migrate(&connection, schema, version).map_err(about)
}

/// Makes the missing steps, all or none.
fn migrate(connection: &Connection, schema: &Schema, from: u32) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let steps = || {
        for step in schema.migrations.iter().skip(from as usize) {
            connection.execute_batch(step)?;
        }
        connection.execute_batch(&format!(
            "PRAGMA application_id = {}; PRAGMA user_version = {}; COMMIT",
            schema.application_id,
            schema.version()
        ))
    };
    steps().inspect_err(|_| {
        let _ = connection.execute_batch("ROLLBACK");
    })
}

/// Copies the database as it is, readable by its owner only; replaces an older copy.
fn back_up(connection: &Connection, path: &Path, copy: &Path) -> Result<(), Error> {
    let _ = fs::remove_file(copy);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(copy).map_err(Error::io("create", copy))?;
    let name = copy.to_string_lossy();
    connection.execute("VACUUM INTO ?1", [&name]).map_err(|cause| Error::from(cause).about(path))?;
    Ok(())
}

/// Renames the database and what belongs to it; answers the new name.
fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let about = |cause: rusqlite::Error| Error::from(cause).about(path);
    let memory = Connection::open_in_memory().map_err(about)?;
    let now: String = memory.query_row("SELECT strftime('%Y%m%dT%H%M%SZ')", [], |row| row.get(0)).map_err(about)?;
    let mut aside = beside(path, &format!("damaged-{now}"));
    let mut number = 1;
    while aside.exists() {
        number += 1;
        aside = beside(path, &format!("damaged-{now}-{number}"));
    }
    // The log first: a database without its log would be taken for whole.
    for suffix in ["-wal", "-shm"] {
        let from = beside_sqlite(path, suffix);
        if from.exists() {
            fs::rename(&from, beside_sqlite(&aside, suffix)).map_err(Error::io("set aside", &from))?;
        }
    }
    fs::rename(path, &aside).map_err(Error::io("set aside", path))?;
    Ok(aside)
}

/// Takes the lock that everybody shares who has the database open, and says whether nobody else has.
fn be_present(path: &Path) -> Result<(Presence, bool), Error> {
    let name = beside(path, "open");
    let file = lock_file(&name)?;
    let alone = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &name)(error)),
    };
    // From exclusive to shared; nobody can come in between, since everybody holds the setup lock here.
    if alone {
        file.unlock().map_err(Error::io("unlock", &name))?;
    }
    file.lock_shared().map_err(Error::io("lock", &name))?;
    Ok((Presence(file), alone))
}

/// Opens a file that is there to be locked, and creates it as needed: for its owner alone, who owns its directory, too.
///
/// # Errors
///
/// When that is not possible.
pub fn lock_file(name: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().create_new(true).open(name) {
        Ok(file) => {
            give_to_owner_of_dir(name);
            Ok(file)
        }
        Err(_) => options.create(true).open(name).map_err(Error::io("open", name)),
    }
}

/// When root runs a command in the service's directory, the service must be able to go on with what it finds there.
fn give_to_owner_of_dir(file: &Path) {
    let owner = file.parent().map(fs::metadata);
    if let (Some(Ok(dir)), Ok(made)) = (owner, fs::metadata(file))
        && (dir.uid(), dir.gid()) != (made.uid(), made.gid())
        && made.uid() == 0
    {
        let _ = chown(file, Some(dir.uid()), Some(dir.gid()));
    }
}

/// `ledger.db` → `ledger.db.lock`.
pub(crate) fn beside(path: &Path, extension: &str) -> PathBuf {
    beside_sqlite(path, &format!(".{extension}"))
}

/// `ledger.db` → `ledger.db-wal`.
fn beside_sqlite(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
