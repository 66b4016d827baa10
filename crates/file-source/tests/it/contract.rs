//! What every source promises.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use logwarden_core::{
    ProfileName, Timestamp,
    source::{Budget, SourceId},
    templates::Zone,
    testing::source::brings_every_line_once,
};
use logwarden_file_source::{Follow, Group, Input, Scan};

const NOW: Timestamp = Timestamp::from_secs(1_795_233_600);

fn budgets() -> [Vec<Budget>; 3] {
    let budget = |lines, bytes| Budget { lines, bytes, now: NOW };
    [vec![budget(1000, 1 << 20)], vec![budget(1, 1 << 20), budget(7, 40)], vec![budget(3, 1)]]
}

/// A file of so many lines, and what a source must bring of it under `tags`.
fn written(path: &Path, lines: usize, tags: u64) -> Vec<(Timestamp, String, u64)> {
    let texts: Vec<String> = (0..lines).map(|n| format!("{} line {n}{}", path.display(), "!".repeat(n % 5))).collect();
    fs::write(path, texts.join("\n") + "\n").unwrap();
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(NOW.secs().unsigned_abs())).unwrap();
    texts.into_iter().map(|text| (NOW, text, tags)).collect()
}

#[tokio::test]
async fn followed_files_keep_them() {
    for budgets in budgets() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut expected = written(&path("a.log"), 20, 1);
        expected.extend(written(&path("b.log"), 11, 1));
        expected.extend(written(&path("c.txt"), 5, 2));
        fs::write(path("empty.log"), "").unwrap();
        let group = |pattern: &str| Group {
            paths: vec![path(pattern).display().to_string()],
            profiles: vec![ProfileName::general()],
            labels: BTreeMap::new(),
            home: "web-1".to_owned(),
            zone: Zone::UTC,
            from_start: true,
        };
        let source = Follow::new(SourceId("files".into()), vec![group("*.log"), group("*.txt")]);
        brings_every_line_once(&source, &budgets, expected).await;
    }
}

#[tokio::test]
async fn scanned_files_keep_them() {
    for budgets in budgets() {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a.log", "b.log"].map(|name| directory.path().join(name)).into();
        let mut expected = written(&paths[0], 20, 1);
        expected.extend(written(&paths[1], 9, 1));
        expected.push((NOW, "from standard input".to_owned(), 1));
        let mut inputs: Vec<Input> = paths.into_iter().map(Input::File).collect();
        let reader = Box::new(&b"from standard input"[..]);
        inputs.push(Input::Reader { name: "standard input".to_owned(), reader });
        let source = Scan::new(inputs, vec![ProfileName::general()], BTreeMap::new(), Zone::UTC);
        brings_every_line_once(&source, &budgets, expected).await;
    }
}
