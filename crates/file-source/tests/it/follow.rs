use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};

use logwarden_core::{
    ProfileName, Timestamp,
    source::{Budget, Cursor, LogSource, Page, ProblemKind, Seen, SourceId},
    templates::Zone,
};
use logwarden_file_source::{Follow, Group, look};

/// A follower that may be restarted: only the cursor goes on.
struct Follower {
    pattern: String,
    from_start: bool,
    source: Follow,
    cursor: Option<Cursor>,
}

impl Follower {
    fn new(pattern: &Path, from_start: bool) -> Self {
        let pattern = pattern.display().to_string();
        Self { source: source(&pattern, from_start), pattern, from_start, cursor: None }
    }

    fn restart(&mut self) {
        self.source = source(&self.pattern, self.from_start);
    }

    async fn page(&mut self, lines: usize) -> Page {
        let page =
            self.source.read(self.cursor.as_ref(), &Seen::default(), Budget { lines, ..budget() }).await.unwrap();
        self.cursor = Some(page.next.clone());
        page
    }

    async fn read(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let page = self.page(3).await;
            texts.extend(page.lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()));
            assert!(page.problems.is_empty(), "{:?}", page.problems);
            if !page.more {
                return texts;
            }
        }
    }
}

fn budget() -> Budget {
    Budget { lines: 9, bytes: 1 << 20, now: Timestamp::from_secs(1_795_233_600) }
}

fn source(pattern: &str, from_start: bool) -> Follow {
    let group = Group {
        paths: vec![pattern.to_owned()],
        profiles: vec![ProfileName::general()],
        labels: BTreeMap::new(),
        home: "web-1".to_owned(),
        zone: Zone::UTC,
        from_start,
    };
    Follow::new(SourceId("files".into()), vec![group])
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[tokio::test]
async fn only_what_is_appended_counts_and_a_half_line_waits_for_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    append(&path, "old\nhalf");
    let mut follower = Follower::new(&path, false);
    assert_eq!(follower.read().await, Vec::<String>::new());
    append(&path, " a line\nnew\nunfinished");
    follower.restart();
    assert_eq!(follower.read().await, ["half a line", "new"]);
    append(&path, "\n");
    assert_eq!(follower.read().await, ["unfinished"]);
    assert_eq!(follower.read().await, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_lost_or_repeated_through_every_kind_of_rotation() {
    for (what, restart) in
        [("rename", true), ("rename", false), ("gzip", true), ("copytruncate", true), ("delete", false)]
    {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.log");
        append(&path, "1\n2\n3\n4\n");
        let mut follower = Follower::new(&path, true);
        assert_eq!(follower.read().await, ["1", "2", "3", "4"]);
        append(&path, "5\n6\n7\n8\nlast of the old file");
        match what {
            "rename" => fs::rename(&path, directory.path().join("app.log.1")).unwrap(),
            "gzip" => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                gzip.write_all(&fs::read(&path).unwrap()).unwrap();
                fs::write(directory.path().join("app.log.1.gz"), gzip.finish().unwrap()).unwrap();
                fs::remove_file(&path).unwrap();
            }
            "copytruncate" => {
                append(&path, "\n");
                fs::copy(&path, directory.path().join("app.log.1")).unwrap();
                OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
            }
            _ => fs::remove_file(&path).unwrap(),
        }
        append(&path, "new 1\nnew 2\n");
        if restart {
            follower.restart();
        }
        let read = follower.read().await;
        let expected = ["5", "6", "7", "8", "last of the old file", "new 1", "new 2"];
        assert_eq!(read, expected, "{what}, restart: {restart}");
        append(&path, "new 3\n");
        assert_eq!(follower.read().await, ["new 3"], "{what}");
    }
}

#[tokio::test]
async fn copies_that_a_pattern_fits_and_copies_that_are_packed_are_read_once() {
    for (pattern, packed) in [("*.log*", false), ("app*", false), ("app.log", true)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.log");
        append(&path, "1\n2\n");
        let mut follower = Follower::new(&directory.path().join(pattern), true);
        assert_eq!(follower.read().await, ["1", "2"]);
        append(&path, "3\n");
        let content = fs::read(&path).unwrap();
        if packed {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            gzip.write_all(&content).unwrap();
            fs::write(directory.path().join("app.log.1.gz"), gzip.finish().unwrap()).unwrap();
        } else {
            // Sorts before the file itself.
            fs::write(directory.path().join("app-1.log"), &content).unwrap();
        }
        fs::write(&path, "4\n").unwrap();
        follower.restart();
        assert_eq!(follower.read().await, ["3", "4"], "{pattern}");
        assert_eq!(follower.read().await, Vec::<String>::new(), "{pattern}");
    }
}

#[tokio::test]
async fn what_a_slow_writer_adds_after_the_rotation_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("app.log"), directory.path().join("app.log.1"));
    append(&path, "1\n");
    let mut follower = Follower::new(&path, true);
    assert_eq!(follower.read().await, ["1"]);
    fs::rename(&path, &old).unwrap();
    append(&path, "2\n");
    assert_eq!(follower.read().await, ["2"]);
    append(&old, "late\n");
    follower.restart();
    assert_eq!(follower.read().await, ["late"]);
    fs::remove_file(&old).unwrap();
    follower.restart();
    assert_eq!(follower.read().await, Vec::<String>::new(), "and its end is no gap");
}

#[tokio::test]
async fn groups_may_change_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a.log"), directory.path().join("b.log"));
    append(&a, "a1\n");
    append(&b, "b1\n");
    let group = |path: &Path| Group {
        paths: vec![path.display().to_string()],
        profiles: vec![ProfileName::general()],
        labels: BTreeMap::new(),
        home: "web-1".to_owned(),
        zone: Zone::UTC,
        from_start: true,
    };
    let budget = Budget { lines: 10, bytes: 1 << 20, now: Timestamp::from_secs(1_795_233_600) };
    let before = Follow::new(SourceId("files".into()), vec![group(&a), group(&b)]);
    let cursor = before.read(None, &Seen::default(), budget).await.unwrap().next;
    append(&a, "a2\n");
    let after = Follow::new(SourceId("files".into()), vec![group(&b), group(&a)]);
    let page = after.read(Some(&cursor), &Seen::default(), budget).await.unwrap();
    assert_eq!((page.lines.len(), page.lines[0].tags, page.per_query), (1, 0b10, vec![0, 1]));
}

#[tokio::test]
async fn a_file_that_is_gone_without_a_trace_is_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    append(&path, "1\n");
    let mut follower = Follower::new(&path, true);
    follower.read().await;
    fs::remove_file(&path).unwrap();
    follower.restart();
    let page = follower.page(10).await;
    assert_eq!(page.problems.len(), 1);
    assert!(page.problems[0].error.to_string().contains("was rotated away"), "{}", page.problems[0].error);
    assert!(follower.page(10).await.problems.is_empty(), "told once");
}

#[tokio::test]
async fn a_truncated_file_that_grew_past_the_old_offset_is_read_from_its_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    append(&path, "before\n");
    let mut follower = Follower::new(&path, true);
    assert_eq!(follower.page(10).await.lines.len(), 1);
    fs::write(&path, "after the truncation\nmore\n").unwrap();
    let page = follower.page(10).await;
    let texts: Vec<_> = page.lines.iter().map(|line| String::from_utf8_lossy(&line.text)).collect();
    assert_eq!(texts, ["after the truncation", "more"]);
}

#[tokio::test]
async fn new_files_of_a_pattern_are_found() {
    let directory = tempfile::tempdir().unwrap();
    append(&directory.path().join("a.log"), "a1\n");
    let mut follower = Follower::new(&directory.path().join("*.log"), false);
    assert_eq!(follower.read().await, Vec::<String>::new());
    append(&directory.path().join("b.log"), "b1\nb2\n");
    append(&directory.path().join("a.log"), "a2\n");
    assert_eq!(follower.read().await, ["a2", "b1", "b2"]);
}

#[tokio::test]
async fn what_is_no_log_is_refused_where_it_is_named_and_left_out_where_a_pattern_fits_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let noise: Vec<u8> = (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::create_dir(at("app.d")).unwrap();
    fs::write(at("app.raw"), &noise).unwrap();
    fs::write(at("app.utf16"), b"\xff\xfee\0r\0r\0o\0r\0").unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"packed\n").unwrap();
    let packed = gzip.finish().unwrap();
    fs::write(at("app.gz"), &packed).unwrap();
    fs::write(at("app.old"), &packed).unwrap();
    append(&at("app.log"), "old\n");

    let mut all = Follower::new(&at("app.*"), false);
    let page = all.page(9).await;
    let left_out: Vec<_> = page.problems.iter().map(|problem| (problem.subject.clone(), problem.kind)).collect();
    let expected = ["app.old", "app.raw", "app.utf16"];
    assert_eq!(left_out, expected.map(|name| (at(name).display().to_string(), ProblemKind::Skipped)));
    assert!(page.horizon.is_some(), "what is no log makes nothing incomplete");
    append(&at("app.log"), "new\n");
    assert_eq!(all.page(9).await.lines.len(), 1);

    for (name, reason) in [
        ("app.d", "it is a directory"),
        ("app.gz", "it is packed, and what is packed does not grow"),
        ("app.old", "it is packed, and what is packed does not grow"),
        ("app.raw", "it is not a text file"),
        ("app.utf16", "it is not a text file"),
    ] {
        let path = at(name).display().to_string();
        let one = source(&path, false).read(None, &Seen::default(), budget()).await;
        let error = match one {
            Err(error) => error,
            Ok(mut page) => page.problems.remove(0).error,
        };
        assert_eq!(error.to_string(), format!("{path} cannot be used: {reason}"));
        assert!(error.hint().is_some() && !error.is_transient(), "{name}");
        assert_eq!(look(&path).unwrap()[0].standing.as_ref().unwrap_err().to_string(), error.to_string());
    }
    assert_eq!(look(&at("app.*").display().to_string()).unwrap().len(), 4, "no directory, and nothing packed by name");
}

#[tokio::test]
async fn a_log_with_odd_bytes_is_read_and_so_is_one_that_was_taken_for_noise() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let noise: Vec<u8> = (0..5_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80 & !0x0a).collect();
    let text = "Nov 21 04:00:00 web-1 app: one more line\n";
    let hole = vec![0; 100_000];
    for (name, content) in [
        ("emptied under its writer", [&hole[..], text.as_bytes()].concat()),
        ("damaged at its beginning", [&noise[..], b"\n", text.repeat(100).as_bytes()].concat()),
        ("cut off by a power failure", [text.repeat(3).as_bytes(), &hole[..4000]].concat()),
        ("a line with odd bytes", [b"\x01\x02\x03\xff\xfe\x07".as_slice(), text.repeat(2).as_bytes()].concat()),
        ("BZhang logged in", [b"BZhang logged in\n".as_slice(), text.as_bytes()].concat()),
    ] {
        fs::write(at(name), content).unwrap();
        let mut follower = Follower::new(&at(name), true);
        let page = follower.page(1000).await;
        assert!(page.problems.is_empty(), "{name}: {:?}", page.problems);
        assert!(page.lines.iter().any(|line| line.text.ends_with(text.trim_end().as_bytes())), "{name}");
    }

    // Nothing of it was passed over meanwhile.
    let path = at("noise first");
    let noise: Vec<u8> = (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&path, &noise).unwrap();
    let mut follower = Follower::new(&path, true);
    assert_eq!(follower.page(9).await.problems.len(), 1);
    append(&path, &format!("\n{}", text.repeat(200)));
    let page = follower.page(100_000).await;
    let brought: usize = page.lines.iter().map(|line| line.text.len() + 1).sum();
    assert_eq!((brought, page.problems.len()), (20_001 + 200 * text.len(), 0));
}

#[tokio::test]
async fn a_pattern_in_a_directory_that_is_not_there_yet_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("nginx");
    let mut follower = Follower::new(&inside.join("*.log"), false);
    assert_eq!(follower.read().await, Vec::<String>::new());
    fs::create_dir(&inside).unwrap();
    append(&inside.join("error.log"), "the first line\n");
    assert_eq!(follower.read().await, ["the first line"]);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_shortened_once_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    append(&path, "old\n");
    let mut follower = Follower::new(&path, true);
    assert_eq!(follower.read().await, ["old"]);
    append(&path, &format!("{}\n", "x".repeat(19 << 20)));
    let page = follower.page(9).await;
    assert!(page.problems.is_empty(), "nothing is missing: {:?}", page.problems);
    let told: Vec<_> = page.shortened.iter().map(ToString::to_string).collect();
    assert_eq!(told, [format!("{}: 1 line longer than 1 MiB was shortened by 18 MiB", path.display())]);
    assert!(follower.page(9).await.shortened.is_empty());
}
