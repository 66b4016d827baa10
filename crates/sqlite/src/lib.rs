//! Opens, locks, migrates and writes the SQLite files of logwarden.
//!
//! Timer job, receiver and command line have the same files open at once. What makes that safe is all in here:
//!
//! * **One way in.** [`Database::open`] creates and migrates under a lock file, sets every pragma and reads it back, and
//!   refuses what it must not touch: a newer schema, somebody else's file, a network file system. A damaged file is set
//!   aside, never silently reset.
//! * **One writer per process**, a thread with a bounded queue. It executes what waits in one `BEGIN IMMEDIATE`
//!   transaction, each job in a savepoint of its own, and answers after `COMMIT`: many callers share one fsync.
//! * **Readers** have connections of their own and see one consistent state.
//!
//! No job may call a network. Only channels touch the async world, so any runtime will do.

mod error;
mod mounts;
mod open;
mod room;
mod threads;

pub use error::{Damage, Error};
pub use open::{Opened, Options, Schema, lock_file, private_dir};
pub use room::Room;
pub use rusqlite;
pub use threads::{Database, Kept};
