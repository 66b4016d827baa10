//! Bodies that are large, and what they cost: nobody else's turn, and no memory.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::body::Bytes;
use logwarden_push_source::{Client, Limits};
use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::{World, until};

/// So many lines with times of now, as one JSON object a line.
fn lines(count: usize, seed: usize) -> String {
    use logwarden_core::env::Env as _;
    let now = crate::world::Clock::default().now().secs();
    let line = |number| {
        let id = (seed * 1_000_003 + number) * 7919;
        format!(
            "{{\"date\":{now}.{:06},\"log\":\"request {id} of 203.0.113.{} took {} ms, session {id:032x}\"}}\n",
            number % 1_000_000,
            id % 255,
            id % 977
        )
    };
    (0..count).map(line).collect()
}

#[tokio::test]
async fn a_large_body_is_decoded_while_it_arrives() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let body = lines(40_000, 1);
    assert!(body.len() > 4 << 20);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = format!("POST /receive_logs HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let (most, rest) = body.as_bytes().split_at(body.len() - 10);
    stream.write_all(most).await.unwrap();
    until("a part on disk before the body is complete", async || world.spooled().await.0 >= 1).await;
    let page = reqwest::get(running.url("/metrics")).await.unwrap().text().await.unwrap();
    assert!(page.contains("logwarden_push_in_flight_bytes 6291456\n"), "{page}");
    stream.write_all(rest).await.unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!(world.spooled().await.1, 40_000);
    running.ingest().await;
    running.ingest().await;
    assert_eq!(world.counter("lines_read").await, 40_000);
    running.stop().await;
}

#[tokio::test]
async fn a_large_body_that_breaks_off_and_comes_again_is_there_once() {
    let world = World::new();
    // What was sent before is decoded first, and this machine may be slow.
    let limits = Limits { patience: Duration::from_secs(60), ..Limits::default() };
    let running = world.start(|builder| builder.limits(limits));
    let body = lines(40_000, 2);
    for length in [1 << 20, 3 << 20, 4 << 20] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let head = format!("POST /receive_logs HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body.as_bytes()[..length]).await.unwrap();
    }
    let http = reqwest::Client::new();
    for encoding in ["", "zstd"] {
        let bytes =
            if encoding.is_empty() { body.clone().into_bytes() } else { zstd::encode_all(body.as_bytes(), 1).unwrap() };
        let request = http.post(running.url("/receive_logs")).header("content-encoding", encoding).body(bytes);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
        assert_eq!(world.spooled().await.1, 40_000, "sent as {encoding}");
    }
    assert!(world.counter("push_repeats").await >= 3);
    running.stop().await;
}

#[tokio::test]
async fn slow_senders_of_large_bodies_hold_up_nobody_else() {
    let world = World::new();
    let limits = Limits { patience: Duration::from_secs(1), ..Limits::default() };
    let running = world.start(|builder| {
        builder.limits(limits).client(Client::new("slow").bearer("slow")).client(Client::new("good").bearer("good"))
    });
    let mut slow = Vec::new();
    for length in
        ["8000000", "8000000", "8000000", "8000000", "8000000", "8000000", "2000000", "2000000", "2000000", "2000000"]
    {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let head =
            format!("POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer slow\r\nContent-Length: {length}\r\n\r\n[");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let http = reqwest::Client::new();
    for (count, seed) in [(40_000, 3), (10, 4), (40_000, 5), (10, 6)] {
        let request = http.post(running.url("/")).bearer_auth("good").body(lines(count, seed));
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(world.spooled().await.1, 80_020);
    drop(slow);
    running.stop().await;
}

#[tokio::test]
async fn a_body_that_drips_is_closed_without_an_answer() {
    let world = World::new();
    let limits = Limits { body_grace: Duration::from_millis(50), slowest_rate: 1 << 30, ..Limits::default() };
    let running = world.start(|builder| builder.limits(limits));
    for length in [100_000, 8_000_000] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut drips = tokio::time::interval(Duration::from_millis(5));
        let mut answer = Vec::new();
        let dripping = async {
            loop {
                tokio::select! {
                    _ = drips.tick() => if stream.write_all(b" ").await.is_err() { return },
                    read = async { let mut byte = [0]; stream.peek(&mut byte).await } => if !matches!(read, Ok(1)) { return } else { break },
                }
            }
            let _ = stream.read_to_end(&mut answer).await;
        };
        tokio::time::timeout(Duration::from_secs(10), dripping).await.expect("the connection is closed");
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    running.stop().await;
}

#[tokio::test]
async fn lines_of_any_length_are_taken_with_their_beginning() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let http = reqwest::Client::new();
    let long = "x".repeat(12 << 20);
    let bodies = [
        ("", format!("{long}\nnext\n")),
        ("application/json", format!("{{\"log\":\"{long}\"}}\n{{\"log\":\"next\"}}\n")),
    ];
    let mut expected = 0;
    for (kind, body) in bodies {
        for encoding in ["", "zstd"] {
            let body = body.clone().into_bytes();
            let bytes = if encoding.is_empty() { body } else { zstd::encode_all(&*body, 1).unwrap() };
            let request = http.post(running.url("/")).header("content-type", kind).header("content-encoding", encoding);
            assert_eq!(request.body(bytes).send().await.unwrap().status(), StatusCode::OK);
            expected += 1;
            assert_eq!(world.counter("push_lines_cut").await, expected);
            assert_eq!(world.spooled().await.1, expected * 2, "{kind} {encoding}");
        }
    }
    let budget = logwarden_core::source::Budget { now: logwarden_core::Timestamp::MAX, lines: 100, bytes: usize::MAX };
    use logwarden_core::source::LogSource as _;
    let lines = running.source.read(None, &Default::default(), budget).await.unwrap().lines;
    assert!(lines.iter().all(|line| line.text.len() <= 1 << 20));
    assert_eq!(lines.iter().filter(|line| line.text == b"next").count(), 4);
    running.stop().await;
}

/// A field of a protobuf message: its number, length and content.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let (mut bytes, mut length) = (vec![number << 3 | 2], content.len());
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    [&bytes, content].concat()
}

#[tokio::test]
async fn a_record_of_otlp_that_is_cut_is_still_from_its_service() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let long = "x".repeat(12 << 20);
    let attribute = r#"{"key":"service.name","value":{"stringValue":"shop"}}"#;
    let json = format!(
        r#"{{"resourceLogs":[{{"resource":{{"attributes":[{attribute}]}},"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":"{long}"}}}}]}}]}}]}}"#
    );
    let named = [field(1, b"service.name"), field(2, &field(1, b"shop"))].concat();
    let records = field(2, &field(5, &field(1, long.as_bytes())));
    let protobuf = field(1, &[field(1, &field(1, &named)), field(2, &records)].concat());
    let http = reqwest::Client::new();
    for (kind, body) in [("application/json", json.into_bytes()), ("application/x-protobuf", protobuf)] {
        let request = http.post(running.url("/v1/logs")).header("content-type", kind).body(body);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    }
    let budget = logwarden_core::source::Budget { now: logwarden_core::Timestamp::MAX, lines: 100, bytes: usize::MAX };
    use logwarden_core::source::LogSource as _;
    let lines = running.source.read(None, &Default::default(), budget).await.unwrap().lines;
    let services: Vec<_> = lines.iter().map(|line| line.stream.service()).collect();
    assert_eq!((world.counter("push_lines_cut").await, services), (2, vec![Some("shop"); 2]));
    running.stop().await;
}

/// The receiver that is flooded, in a process of its own, so that its memory can be told from ours.
#[tokio::test]
#[ignore = "a process that the test below starts: cargo test -p logwarden-push-source --test it memory_stays_flat"]
async fn flooded() {
    let dir = tempfile::tempdir().unwrap();
    let opened = logwarden_ledger::SqliteLedger::open(dir.path(), &Default::default(), Default::default());
    let world = World::on(Box::new(opened.unwrap().0));
    let (patience, drain) = (Duration::from_millis(300), Duration::from_secs(2));
    let limits = Limits { patience, drain, ..Limits::default() };
    let running = world.start(|builder| {
        (0..64).fold(builder.limits(limits), |builder, number| {
            builder.client(Client::new(format!("client-{number}")).bearer(&format!("token-{number}")))
        })
    });
    println!("listening on {}", running.address);
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let _ = end.await.unwrap();
    println!("spooled {}", world.spooled().await.1);
    running.stop().await;
}

fn peak_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_under_ten_times_the_load_and_what_is_admitted_is_stored() {
    const LINES: u64 = 150_000;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "large::flooded", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let address = said.find_map(|line| Some(line.split_once("listening on ")?.1.to_owned())).unwrap();
    let before = peak_mib(child.id());
    let (admitted, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let bodies = [lines(40_000, 100), lines(10_000, 101)].map(|body| {
        let packed = zstd::encode_all(body.as_bytes(), 1).unwrap();
        (body.lines().count() as u64, Bytes::from(body), Bytes::from(packed))
    });
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..64 {
        let (url, admitted, refused) = (format!("http://{address}/receive_logs"), admitted.clone(), refused.clone());
        let (mut count, plain, packed) = bodies[usize::from(number % 8 != 0)].clone();
        clients.spawn(async move {
            let http = reqwest::Client::new();
            loop {
                let (bytes, encoding) = if number % 2 == 0 { (plain.clone(), "") } else { (packed.clone(), "zstd") };
                let request = http
                    .post(&url)
                    .bearer_auth(format!("token-{number}"))
                    .header("content-encoding", encoding)
                    .body(bytes);
                match request.send().await.map(|answer| answer.status()) {
                    // Counted once; the same lines again are there already.
                    Ok(StatusCode::OK) => admitted.fetch_add(std::mem::take(&mut count), Ordering::Relaxed),
                    Ok(StatusCode::SERVICE_UNAVAILABLE) | Err(_) => refused.fetch_add(1, Ordering::Relaxed),
                    Ok(status) => panic!("{status}"),
                };
            }
        });
    }
    until("lines, and refusals", async || {
        assert!(clients.try_join_next().is_none(), "a client has failed");
        admitted.load(Ordering::Relaxed) >= LINES && refused.load(Ordering::Relaxed) > 0
    })
    .await;
    clients.abort_all();
    let peak = peak_mib(child.id());
    drop(child.stdin.take());
    let spooled = said.find_map(|line| line.split_once("spooled ")?.1.parse::<u64>().ok()).unwrap();
    assert!(child.wait().unwrap().success());
    let (admitted, refused) = (admitted.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    assert!(spooled >= admitted, "{admitted} lines admitted, {refused} requests refused, {spooled} spooled");
    let told =
        format!("{before} MiB before, {peak} MiB at most; {admitted} lines admitted, {refused} requests refused");
    eprintln!("{told}");
    assert!(peak < 128, "{told}");
}
