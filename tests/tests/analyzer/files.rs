//! Files as a source, and files that are scanned: rotation, Ctrl-C, pipes, and what is no log at all.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::*;

/// Adds to a file, half a minute ago: of one that was written to just now, the last event may go on.
fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_modified(file.metadata().unwrap().modified().unwrap() - Duration::from_secs(30)).unwrap();
}

fn kill(process: &str) -> String {
    format!("web-1 {}\n", OOM.replace("(java)", &format!("({process})")))
}

/// A line with a time of just now before it.
fn stamped(text: &str) -> String {
    let arguments = ["-u", "-d", "1 minute ago", "+%Y-%m-%dT%H:%M:%S+00:00"];
    let now = std::process::Command::new("date").args(arguments).output().unwrap();
    format!("{} {text}", String::from_utf8(now.stdout).unwrap().trim())
}

#[tokio::test]
async fn files_are_followed_from_run_to_run_through_rotation() {
    let world = World::new().await;
    let log = world.directory.path().join("app.log");
    append(&log, &stamped(&kill("old-one")));
    let run = async || {
        let mut command = world.command(&["run"]);
        let output = command.env_remove("LOKI_URL").env_remove("LOG_QUERIES").env("LOG_FILES", &log).output().await;
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        output
    };
    let first = run().await;
    assert!(err(&first).contains("lines=0"), "a file is read from its end at first: {}", err(&first));
    append(&log, &stamped(&kill("java")));
    let second = run().await;
    assert!(err(&second).contains("lines=1"), "{}", err(&second));
    append(&log, &stamped(&kill("mysqld")));
    fs::rename(&log, world.directory.path().join("app.log.1")).unwrap();
    append(&log, &stamped(&kill("redis-server")));
    let third = run().await;
    assert!(err(&third).contains("lines=2"), "{}", err(&third));
    let told = world.told().concat();
    for process in ["java", "mysqld", "redis-server"] {
        assert!(told.contains(process), "{process}: {told}");
    }
    assert!(!told.contains("old-one"), "{told}");
}

#[tokio::test]
async fn watch_tells_at_once_and_ends_when_asked() {
    let world = World::new().await;
    let log = world.directory.path().join("app.log");
    append(&log, "a line from before\n");
    world.configure("[run]\nevery_seconds = 1\n[model]\nenabled = false\n");
    let mut command = world.command(&["watch"]);
    command.env_remove("LOKI_URL").env_remove("LOG_QUERIES").env("LOG_FILES", &log);
    let mut child = command.spawn().unwrap();
    // It has begun when its first line is there.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let start = lines.next_line().await.unwrap().unwrap();
    assert!(start.contains("watch starts"), "{start}");
    let state = world.directory.path().join("state/cursors");
    until("the first read", || state.is_dir() && fs::read_dir(&state).unwrap().next().is_some()).await;
    append(&log, &stamped(&kill("java")));
    until("the alert", || world.told().iter().any(|told| told.contains("java"))).await;
    fs::rename(&log, world.directory.path().join("app.log.1")).unwrap();
    append(
        &log,
        &stamped(
            "web-1 kernel: EXT4-fs error (device sda1): ext4_lookup:1234: inode #2: comm ls: deleted inode referenced: 99\n",
        ),
    );
    until("the alert after the rotation", || world.told().iter().any(|told| told.contains("EXT4-fs error"))).await;
    signal(&child, "-INT");
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    let mut rest = String::new();
    lines.into_inner().read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("watch ends"), "{rest}");
}

/// `journalctl -o json | logwarden-analyzer scan -`
#[tokio::test]
async fn a_record_of_the_journal_is_shown_as_the_journal_shows_it_and_printed_as_it_is() {
    let record = format!(
        r#"{{"__CURSOR":"s={}","__REALTIME_TIMESTAMP":"1795233600000000","_HOSTNAME":"web-1","PRIORITY":"3","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"{}","_MACHINE_ID":"0f"}}"#,
        "ab".repeat(400),
        OOM.trim_start_matches("kernel: ")
    );
    let scan = async |arguments: &[&str]| {
        let mut child = analyzer().arg("scan").args(arguments).arg("-").stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{record}\n").as_bytes()).await.unwrap();
        out(&child.wait_with_output().await.unwrap())
    };
    let shown = scan(&[]).await;
    assert!(shown.contains("04:00:00 kernel: Out of memory: Killed process 4242 (java)"), "{shown}");
    assert!(!shown.contains("__CURSOR"), "{shown}");
    let json = scan(&["--format", "json"]).await;
    let finding: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(finding["log_lines"][0], record.as_str());
}

#[tokio::test]
async fn a_closed_pipe_is_no_failure() {
    for arguments in [&["scan"][..], &["fold"], &["scan", "--format", "json"]] {
        let mut child = analyzer().args(arguments).arg(sample()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().await.unwrap();
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn ctrl_c_shows_what_was_found_so_far() {
    for command in ["scan", "fold"] {
        let mut child = analyzer().args([command, "-"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("Nov 21 04:00:00 {}", kill("java")).as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
        // The line is in the pipe; whether it was read yet makes no difference to what must hold.
        signal(&child, "-INT");
        // As in a shell, Ctrl-C ends the writer, too.
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        match output.status.code() {
            Some(0) => assert!(out(&output).contains("java"), "the end came first, all was read: {}", out(&output)),
            Some(code) => {
                assert_eq!(code, 130, "{}", err(&output));
                assert!(err(&output).contains("stopped early"), "{}", err(&output));
            }
            // Before its handler is there, the signal ends it as any other program.
            None => {}
        }
    }
}

/// `journalctl -f | logwarden-analyzer scan -`: the writer is another process, which Ctrl-C does not always end.
#[tokio::test]
async fn what_a_pipe_that_stays_open_has_brought_is_shown() {
    let mut child = analyzer().args(["scan", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let line = format!("Nov 21 04:00:00 {}", kill("java"));
    // More than a pipe holds: when all is written, most of it was read.
    for _ in 0..2000 {
        stdin.write_all(line.as_bytes()).await.unwrap();
    }
    stdin.flush().await.unwrap();
    signal(&child, "-INT");
    let output = child.wait_with_output().await.unwrap();
    drop(stdin);
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    assert!(out(&output).contains("killed java"), "{}", out(&output));
}

#[tokio::test]
async fn explain_asks_the_model_and_needs_one() {
    let ollama = FakeOllama::start(Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest))).await;
    let scan = |host: &str| {
        let mut command = analyzer();
        command.args(["scan", "--explain"]).arg(sample()).env("OLLAMA_HOST", host).env("HOME", "/nonexistent");
        command
    };
    let output = scan(&ollama.url()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("(words of the model"), "{}", out(&output));

    let without = scan(NOBODY).output().await.unwrap();
    assert_eq!(without.status.code(), Some(0), "{}", err(&without));
    assert!(out(&without).contains("No space left on device"), "{}", out(&without));
    assert!(err(&without).contains("the model did not explain everything"), "{}", err(&without));
}

#[tokio::test]
async fn what_is_no_log_is_told_in_one_line() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let garbage: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let sixteen: Vec<u8> =
        std::iter::once(0xfeff).chain("a line\n".encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let files = [
        file("empty.log", b""),
        file("blank.log", b"\n\n\n"),
        file("garbage.bin", &garbage),
        file("utf16.log", &sixteen),
        file("journal.journal", b"LPKSHHRH\0\0\0\0"),
        file("old.xz", b"\xfd7zXZ\0\0\x04"),
        file("broken.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]),
        directory.path().to_owned(),
        PathBuf::from("/nonexistent.log"),
        // Nobody may read this as text, root neither.
        PathBuf::from("/proc/self/mem"),
    ];
    let mut told = String::new();
    for path in files {
        let output = analyzer().arg("scan").arg(&path).output().await.unwrap();
        let said = err(&output).replace(&directory.path().display().to_string(), "DIR");
        let name = path.strip_prefix(directory.path()).unwrap_or(&path).display().to_string();
        let summary = out(&output);
        let summary = summary.trim().rsplit_once(" · ").map_or("", |(summary, _)| summary);
        told += &format!("# {name}: exit {:?}\n{summary}\n{said}\n", output.status.code().unwrap());
    }
    insta::assert_snapshot!("no_logs", told);
}

#[tokio::test]
async fn a_huge_log_is_read_in_bounded_memory() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("huge.log");
    let mut file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
    for number in 0..40_000_u32 {
        let (hour, minute, second) = (number / 3600 % 24, number / 60 % 60, number % 60);
        let n = number.wrapping_mul(2_654_435_761) >> 12;
        writeln!(
            file,
            "2026-11-20T{hour:02}:{minute:02}:{second:02}Z web-1 app[{}]: request {n:x} for user {} took {} ms",
            n % 30_000,
            n % 977,
            n % 500
        )
        .unwrap();
    }
    writeln!(file, "2026-11-20T23:59:59Z {}", kill("java").trim()).unwrap();
    file.into_inner().unwrap();
    // The address space is bounded, so that a leak fails instead of slowing the machine.
    let mut command = Command::new("sh");
    let scan = format!("ulimit -v 2000000; exec \"$0\" scan {}", path.display());
    command.args(["-c", &scan]).arg(program::binary("logwarden-analyzer")).kill_on_drop(true);
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("40,001 lines") && out(&output).contains("java"), "{}", out(&output));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_and_the_others_go_on() {
    let world = World::new().await;
    let log = world.directory.path().join("app.log");
    let run = async || {
        let mut command = world.command(&["run"]);
        command.env_remove("LOKI_URL").env_remove("LOG_QUERIES");
        // Opens, and cannot be read by anybody.
        command.env("LOG_FILES", format!("{};/proc/self/mem", log.display()));
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", err(&output));
        assert!(err(&output).contains("/proc/self/mem"), "{}", err(&output));
    };
    // A file that is not there yet is read from its beginning when it comes.
    run().await;
    append(&log, &stamped(&kill("java")));
    run().await;
    assert!(world.told().iter().any(|told| told.contains("java")), "{:#?}", world.told());
}

/// Follows `path` alone, without a model.
fn follow(world: &World, path: &Path, command: &[&str]) -> Command {
    let mut command = world.command(command);
    command.env_remove("LOKI_URL").env_remove("LOG_QUERIES").env("LOG_FILES", path).env("MODEL_ENABLED", "false");
    command
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_by_doctor_and_run_in_the_same_words() {
    let world = World::new().await;
    let noise: Vec<u8> = (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let at = |name: &str| world.directory.path().join(name);
    fs::create_dir(at("logs")).unwrap();
    fs::write(at("old.gz"), "packed").unwrap();
    fs::write(at("raw.log"), noise).unwrap();
    for (name, reason, hint) in [
        ("logs", "it is a directory", "name its files: "),
        ("old.gz", "it is packed, and what is packed does not grow", "name the log that is written to"),
        ("raw.log", "it is not a text file", "only text can be followed"),
    ] {
        let doctor = follow(&world, &at(name), &["doctor", "--offline"]).output().await.unwrap();
        assert_eq!(doctor.status.code(), Some(1), "{}", out(&doctor));
        let run = follow(&world, &at(name), &["run"]).output().await.unwrap();
        assert_eq!(run.status.code(), Some(1), "{}", err(&run));
        let reason = format!("{} cannot be used: {reason}", at(name).display());
        for said in [out(&doctor), err(&run)] {
            assert!(said.contains(&reason) && said.contains(hint), "{said}");
            assert!(!said.contains("makes good"), "the next pass alone reads no more of it: {said}");
        }
        assert!(err(&run).contains("new_templates=0"), "{}", err(&run));
    }
}

#[tokio::test]
async fn a_pattern_in_a_directory_that_is_not_there_is_no_failure() {
    let world = World::new().await;
    let pattern = world.directory.path().join("nginx/*.log");
    let doctor = follow(&world, &pattern, &["doctor", "--offline"]).output().await.unwrap();
    assert!(out(&doctor).contains("! files") && doctor.status.success(), "{}", out(&doctor));
    let run = follow(&world, &pattern, &["run"]).output().await.unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", err(&run));
}

#[tokio::test]
async fn a_line_that_is_too_long_is_told_and_fails_nothing() {
    let world = World::new().await;
    let log = world.directory.path().join("app.log");
    append(&log, "a line from before\n");
    follow(&world, &log, &["run"]).output().await.unwrap();
    append(&log, &format!("{}\n", "x".repeat(19 << 20)));
    let told = "app.log: 1 line longer than 1 MiB was shortened by 18 MiB";
    let run = follow(&world, &log, &["run"]).output().await.unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", err(&run));
    assert!(err(&run).contains("WARN") && err(&run).contains(told), "{}", err(&run));
    let next = follow(&world, &log, &["run"]).output().await.unwrap();
    assert!(!err(&next).contains("shortened"), "{}", err(&next));
    assert!(world.told().is_empty(), "{:#?}", world.told());
    for command in ["scan", "fold"] {
        let output = analyzer().arg(command).arg(&log).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert_eq!(err(&output).matches("app.log").count(), 1, "{}", err(&output));
        assert!(err(&output).contains(told) && !err(&output).contains("missing"), "{}", err(&output));
    }
}

#[tokio::test]
async fn what_is_gone_for_good_is_not_promised() {
    let world = World::new().await;
    let log = world.directory.path().join("app.log");
    append(&log, "a line from before\n");
    follow(&world, &log, &["run"]).output().await.unwrap();
    fs::remove_file(&log).unwrap();
    let run = follow(&world, &log, &["run"]).output().await.unwrap();
    assert_eq!(run.status.code(), Some(1), "{}", err(&run));
    assert!(err(&run).contains("the next one alone does not make good"), "{}", err(&run));
}

#[tokio::test]
async fn where_there_are_no_lines_is_named() {
    let directory = TempDir::new().unwrap();
    let empty = ["a.log", "b.log"].map(|name| directory.path().join(name));
    empty.iter().for_each(|path| fs::write(path, "").unwrap());
    for command in ["scan", "fold"] {
        let output = analyzer().arg(command).args(&empty).output().await.unwrap();
        assert!(
            err(&output).contains("a.log, ") && err(&output).contains("b.log: there are no lines"),
            "{}",
            err(&output)
        );
    }
}
