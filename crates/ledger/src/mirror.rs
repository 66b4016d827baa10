//! Cursors in plain text beside the ledger: a hint for the day its file is damaged, never an authority.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use logwarden_core::{
    LineId,
    source::{Cursor, SourceId},
};
use serde::{Deserialize, Serialize};

/// A cursor larger than this is not copied, and a file larger than this is not read.
const MAX_BYTES: u64 = 1 << 20;
/// Sources that are restored at most.
const MAX_SOURCES: usize = 1_000;

/// A directory with one small file per source.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Copy {
    source: SourceId,
    cursor: Cursor,
    /// Of both: half a file is no cursor.
    check: LineId,
}

fn check(source: &SourceId, cursor: &Cursor) -> LineId {
    LineId::of(&[b"cursor", source.0.as_bytes(), cursor.0.as_bytes()])
}

impl Mirror {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Replaces the copy of a source's cursor. A failure is logged and nothing else: it is only a hint.
    pub(crate) fn write(&self, source: &SourceId, cursor: Option<&Cursor>) {
        let Some(cursor) = cursor.filter(|cursor| (cursor.0.len() as u64) < MAX_BYTES / 4) else { return };
        if let Err(error) = self.try_write(source, cursor) {
            tracing::debug!(error = %error, dir = %self.dir.display(), "the copy of a cursor could not be written");
        }
    }

    fn try_write(&self, source: &SourceId, cursor: &Cursor) -> io::Result<()> {
        if !self.dir.is_dir() {
            logwarden_sqlite::private_dir(&self.dir).map_err(io::Error::other)?;
        }
        let name = format!("{}.json", LineId::of(&[source.0.as_bytes()]));
        let copy = Copy { source: source.clone(), cursor: cursor.clone(), check: check(source, cursor) };
        // Two processes may write at once; each has a file of its own until it is renamed.
        let draft = self.dir.join(format!("{name}.{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(serde_json::to_string(&copy)?.as_bytes())?;
        file.sync_data()?;
        fs::rename(&draft, self.dir.join(name))
    }

    /// The cursors that are whole.
    pub(crate) fn read(&self) -> Vec<(SourceId, Cursor)> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                if path.extension()? != "json" {
                    return None;
                }
                let mut text = String::new();
                File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
                let copy: Copy = serde_json::from_str(&text).ok()?;
                (copy.check == check(&copy.source, &copy.cursor)).then_some((copy.source, copy.cursor))
            })
            .take(MAX_SOURCES)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = Mirror::new(dir.path().join("cursors"));
        assert_eq!(mirror.read(), []);
        let (loki, files) = (SourceId("loki".into()), SourceId("files".into()));
        mirror.write(&loki, Some(&Cursor("12".into())));
        mirror.write(&loki, Some(&Cursor("13".into())));
        mirror.write(&files, Some(&Cursor("a\nb\0".into())));
        mirror.write(&files, None);
        let mut read = mirror.read();
        read.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(read, [(files, Cursor("a\nb\0".into())), (loki.clone(), Cursor("13".into()))]);
        for entry in fs::read_dir(&mirror.dir).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace("13", "99")).unwrap();
        }
        assert_eq!(mirror.read().len(), 1, "a changed cursor is not believed");
    }
}
