use std::{collections::BTreeMap, io::Write, path::PathBuf};

use logwarden_core::{
    ProfileName, Timestamp,
    error::chain,
    source::{Budget, LogSource, Page, Seen},
    templates::Zone,
};
use logwarden_file_source::{Input, Scan};

fn scan(inputs: Vec<Input>) -> Scan {
    Scan::new(inputs, vec![ProfileName::general()], BTreeMap::new(), Zone::UTC)
}

fn budget(lines: usize) -> Budget {
    Budget { lines, bytes: 1 << 20, now: Timestamp::from_secs(1_795_233_600) }
}

async fn texts(source: &Scan, lines: usize) -> (Vec<String>, Vec<Page>) {
    let (mut texts, mut pages, mut cursor) = (Vec::new(), Vec::new(), None);
    loop {
        let page = source.read(cursor.as_ref(), &Seen::default(), budget(lines)).await.unwrap();
        texts.extend(page.lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()));
        cursor = Some(page.next.clone());
        let finished = page.finished;
        pages.push(page);
        if finished {
            return (texts, pages);
        }
    }
}

fn write(directory: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test]
async fn plain_gzip_zstd_and_standard_input_are_read_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"two\n").unwrap();
    let zstd = zstd::encode_all(&b"three\n"[..], 0).unwrap();
    let inputs = [
        Input::File(write(&directory, "a.log", b"one\nno end")),
        Input::File(write(&directory, "b.log.gz", &gzip.finish().unwrap())),
        Input::File(write(&directory, "c.log.zst", &zstd)),
        Input::Reader { name: "standard input".into(), reader: Box::new(&b"four\n\nfive"[..]) },
    ];
    for lines in [1, 2, 100] {
        let inputs = inputs.iter().map(|input| match input {
            Input::File(path) => Input::File(path.clone()),
            Input::Reader { name, .. } => Input::Reader { name: name.clone(), reader: Box::new(&b"four\n\nfive"[..]) },
        });
        let (texts, pages) = texts(&scan(inputs.collect()), lines).await;
        assert_eq!(texts, ["one", "no end", "two", "three", "four", "", "five"]);
        assert!(pages.iter().all(|page| page.problems.is_empty() && page.lines.len() <= lines));
    }
}

#[tokio::test]
async fn the_same_page_can_be_read_again() {
    let source = scan(vec![Input::Reader { name: "-".into(), reader: Box::new(&b"a\nb\nc\n"[..]) }]);
    let first = source.read(None, &Seen::default(), budget(2)).await.unwrap();
    let again = source.read(None, &Seen::default(), budget(2)).await.unwrap();
    assert_eq!((first.lines.len(), &first.lines), (2, &again.lines));
    let second = source.read(Some(&first.next), &Seen::default(), budget(2)).await.unwrap();
    assert_eq!(second.lines.len(), 1);
}

#[tokio::test]
async fn what_is_no_text_is_refused_with_a_way_out_and_the_rest_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let damaged = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        for n in 0..50_000_u32 {
            writeln!(gzip, "line {n} {}", n.wrapping_mul(2_654_435_761)).unwrap();
        }
        let mut bytes = gzip.finish().unwrap();
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let inputs = vec![
        Input::File(write(&directory, "system.journal", b"LPKSHHRH\0\0\0\0")),
        Input::File(write(&directory, "utf16.log", b"\xff\xfea\0b\0")),
        Input::File(write(&directory, "core.bin", &[0; 500])),
        Input::File(directory.path().join("missing.log")),
        Input::File(directory.path().to_owned()),
        Input::File(write(&directory, "cut.log.gz", &damaged)),
        Input::File(write(&directory, "good.log", b"good\n")),
        Input::File(write(&directory, "empty.log", b"")),
    ];
    let (texts, pages) = texts(&scan(inputs), 1_000_000).await;
    assert_eq!(texts.last().map(String::as_str), Some("good"));
    assert!(texts.len() > 1000, "the whole part of a damaged archive counts: {}", texts.len());
    let root = directory.path().display().to_string();
    let problems: Vec<_> = pages
        .iter()
        .flat_map(|page| &page.problems)
        .map(|problem| {
            let hint = problem.error.hint().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
            format!("{}{hint}", chain(&problem.error)).replace(&root, "DIR")
        })
        .collect();
    insta::assert_snapshot!(problems.join("\n"), @"
    DIR/system.journal cannot be used: it is not a text file
      hint: it is a systemd journal: journalctl -o json --file DIR/system.journal | logwarden-analyzer scan -
    DIR/utf16.log cannot be used: it is not a text file
      hint: it is UTF-16: iconv -f UTF-16 -t UTF-8 DIR/utf16.log | logwarden-analyzer scan -
    DIR/core.bin cannot be used: it is not a text file
      hint: only text can be read, plain or packed with gzip or zstd
    DIR/missing.log cannot be used: No such file or directory (os error 2)
    DIR cannot be used: it is a directory
      hint: name its files: DIR/*.log
    DIR/cut.log.gz cannot be used: it is damaged: incomplete deflate stream
    ");
}

/// Gives lines and then neither ends nor goes on, like `journalctl -f` on a quiet machine.
struct Quiet {
    text: &'static [u8],
    is_reached: Option<tokio::sync::oneshot::Sender<()>>,
    hold: std::sync::mpsc::Receiver<()>,
}

impl std::io::Read for Quiet {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.text.is_empty() {
            self.is_reached.take().map(|reached| reached.send(()));
            let _ = self.hold.recv();
        }
        self.text.read(buffer)
    }
}

#[tokio::test]
async fn what_came_from_a_pipe_that_stays_open_is_there_when_reading_is_given_up() {
    let ((is_reached, reached), (release, hold)) = (tokio::sync::oneshot::channel(), std::sync::mpsc::channel());
    let reader =
        Box::new(Quiet { text: b"the first line\nthe second line\nthe thi", is_reached: Some(is_reached), hold });
    let source = scan(vec![Input::Reader { name: "standard input".into(), reader }]);
    let seen = Seen::default();
    tokio::select! {
        page = source.read(None, &seen, budget(100)) => panic!("{page:?}"),
        _ = reached => {}
    }
    let page = source.cut_short(None);
    let texts: Vec<_> = page.lines.iter().map(|line| String::from_utf8_lossy(&line.text)).collect();
    assert_eq!(texts, ["the first line", "the second line"]);
    assert!(page.finished && !page.more);
    drop(release);
}
