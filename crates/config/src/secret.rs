//! Where secrets come from: a systemd credential, a file, the environment, in that order.

use std::{collections::BTreeMap, fmt, io, path::Path, path::PathBuf};

use secrecy::SecretString;

/// How files are read; tests bring their own.
pub trait Files {
    /// The content of a small file.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// Whether others than the owner may read it.
    fn is_open_to_others(&self, path: &Path) -> bool;
}

/// The real files.
#[derive(Debug, Default)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        use io::Read;
        let mut text = String::new();
        std::fs::File::open(path)?.take(64 * 1024).read_to_string(&mut text)?;
        Ok(text)
    }

    fn is_open_to_others(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o007 != 0)
    }
}

/// Files that exist only in memory, for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(pub BTreeMap<PathBuf, String>);

impl Files for MemoryFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.0.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn is_open_to_others(&self, path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "open")
    }
}

/// A secret, and where it is from.
#[derive(Clone)]
pub struct Secret {
    /// The value.
    pub value: SecretString,
    /// `credential discord-webhook`, `file /etc/…`, `environment variable …`.
    pub origin: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret(from {})", self.origin)
    }
}
