//! The table of answers: what each sender is told in each situation. Much of it decides whether a sender keeps its lines.

use std::{io::Write, sync::atomic::Ordering, time::Duration};

use logwarden_push_source::{Client, Limits, Rate};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::{Running, World, until};

/// The kinds of senders: a path, and a type.
const SENDERS: [(&str, &str); 5] = [
    ("/receive_logs", "application/json"),
    ("/v1/fluent", "application/x-ndjson"),
    ("/loki/api/v1/push", "application/json"),
    ("/v1/logs", "application/json"),
    ("/v1/logs", "application/x-protobuf"),
];
const TOKEN: &str = "Authorization: Bearer t\r\n";

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// A request byte by byte, and all that is answered; status 0 is a connection that is closed without an answer.
async fn ask(running: &Running, (path, kind): (&str, &str), headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let length =
        if headers.contains("Content-Length") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{length}{headers}Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The receiver may answer and close before it has read everything.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an answer");
    // Fluent Bit takes a 200 for a failure when it has more than 4,096 bytes.
    assert!(answer.len() < 1000, "{}", String::from_utf8_lossy(&answer));
    let Some(at) = answer.windows(4).position(|end| end == b"\r\n\r\n") else {
        assert_eq!(answer, b"");
        return Answer { status: 0, head: String::new(), body: Vec::new() };
    };
    let head = String::from_utf8(answer[..at].to_vec()).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer[at + 4..].to_vec();
    assert!(status == 204 || head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    if matches!(status, 429 | 503) {
        let wait = head.split("retry-after: ").nth(1).expect("when to come again");
        assert!(wait.split("\r\n").next().unwrap().parse::<u64>().unwrap() >= 1);
    }
    if path == "/v1/logs" {
        assert!(head.contains(&format!("content-type: {kind}")), "OTLP answers in kind: {head}");
    }
    Answer { status, head, body }
}

/// A good body for each kind of sender.
fn good((path, kind): (&str, &str), line: &str) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    match (path, kind) {
        ("/v1/logs", "application/x-protobuf") => {
            use opentelemetry_proto::tonic::{
                collector::logs::v1::ExportLogsServiceRequest,
                common::v1::{AnyValue, any_value::Value},
                logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
            };
            let body = Some(AnyValue { value: Some(Value::StringValue(line.to_owned())) });
            let record = LogRecord { time_unix_nano: now * 1_000_000_000, body, ..LogRecord::default() };
            let scope = ScopeLogs { log_records: vec![record], ..ScopeLogs::default() };
            let resource_logs = vec![ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() }];
            prost::Message::encode_to_vec(&ExportLogsServiceRequest { resource_logs })
        }
        ("/v1/logs", _) => format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"{now}000000000","body":{{"stringValue":"{line}"}}}}]}}]}}]}}"#
        )
        .into_bytes(),
        ("/loki/api/v1/push", _) => {
            format!(r#"{{"streams":[{{"stream":{{"job":"x"}},"values":[["{now}000000000","{line}"]]}}]}}"#).into_bytes()
        }
        (_, "application/json") => format!(r#"[{{"date":{now},"log":"{line}"}}]"#).into_bytes(),
        _ => format!("{{\"date\":{now},\"log\":\"{line}\"}}\n").into_bytes(),
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(body).unwrap();
    out.finish().unwrap()
}

fn stored((path, _): (&str, &str)) -> u16 {
    if path == "/loki/api/v1/push" { 204 } else { 200 }
}

fn with_client(world: &World, limits: Limits) -> Running {
    let limits = Limits { refusal: Duration::ZERO, ..limits };
    world.start(|builder| builder.limits(limits).client(Client::new("web-1").bearer("t")))
}

#[tokio::test]
async fn rsyslog_is_told_that_nothing_failed_in_its_own_words() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let body = b"{\"index\":{\"_index\":\"x\"}}\n{\"message\":\"one\",\"host\":\"h\"}\n";
    let answer = ask(&running, ("/_bulk", "application/json"), "", body).await;
    assert_eq!((answer.status, &*answer.body), (200, &b"{\"errors\":false,\"items\":[]}"[..]));
    running.stop().await;
}

#[tokio::test]
async fn each_situation_has_its_answer_for_each_sender() {
    let world = World::new();
    let limits = Limits { body_bytes: 1 << 20, decoded_bytes: 2 << 20, ..Limits::default() };
    let running = with_client(&world, limits);
    let bomb = gzip(&vec![b' '; 3 << 20]);
    for sender in SENDERS {
        let is_otlp = sender.0 == "/v1/logs";
        let body = good(sender, "a line");
        let told = async |headers: &str, body: &[u8]| ask(&running, sender, headers, body).await.status;
        let check = |what: &str, found: u16, wanted: u16| assert_eq!(found, wanted, "{what} {sender:?}");
        check("stored", told(TOKEN, &body).await, stored(sender));
        check("sent again", told(TOKEN, &body).await, stored(sender));
        check("compressed", told(&format!("{TOKEN}Content-Encoding: gzip\r\n"), &gzip(&body)).await, stored(sender));
        check("nothing", told(TOKEN, b"").await, stored(sender));
        let unreadable = if is_otlp { 400 } else { stored(sender) };
        check("unreadable", told(TOKEN, b"\xff\xfe{ no").await, unreadable);
        check("unreadable JSON", told(TOKEN, b"{\"streams\":[{").await, unreadable);
        check("unknown encoding", told(&format!("{TOKEN}Content-Encoding: br\r\n"), b"\x01\x02").await, unreadable);
        check(
            "broken encoding",
            told(&format!("{TOKEN}Content-Encoding: gzip\r\n"), b"\x1f\x8b\x08").await,
            unreadable,
        );
        check("too large", told(TOKEN, &vec![b'x'; (1 << 20) + 1]).await, 413);
        check("a bomb", told(&format!("{TOKEN}Content-Encoding: gzip\r\n"), &bomb).await, 413);
        check("no credential", told("", &body).await, 401);
        check("a wrong credential", told("Authorization: Bearer T\r\n", &body).await, 401);
        for flag in [&world.disk.full, &world.disk.broken] {
            flag.store(true, Ordering::Relaxed);
            check("no room, or no state", told(TOKEN, &good(sender, "another")).await, 503);
            flag.store(false, Ordering::Relaxed);
        }
    }
    let answer = ask(&running, SENDERS[0], "", b"").await;
    assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
    let page = ask(&running, ("/elsewhere", "text/plain"), "", b"x").await;
    assert_eq!(page.status, 404);
    running.stop().await;
}

#[tokio::test]
async fn answers_are_what_the_protocols_say() {
    let world = World::new();
    let running = with_client(&world, Limits::default());
    let accepted = ask(&running, SENDERS[0], TOKEN, &good(SENDERS[0], "x")).await;
    assert_eq!(accepted.body, br#"{"accepted":1,"errors":false}"#);
    assert_eq!(ask(&running, SENDERS[2], TOKEN, &good(SENDERS[2], "x")).await.body, b"");
    assert_eq!(ask(&running, SENDERS[3], TOKEN, &good(SENDERS[3], "x")).await.body, b"{}");
    assert_eq!(ask(&running, SENDERS[4], TOKEN, &good(SENDERS[4], "x")).await.body, b"");
    // An error of OTLP is a Status: code (1) and message (2).
    let error = ask(&running, SENDERS[4], TOKEN, b"\xff\xff").await;
    assert_eq!(error.body[..3], [0x08, 3, 0x12]);
    let error = ask(&running, SENDERS[3], TOKEN, b"{").await;
    assert!(serde_json::from_slice::<serde_json::Value>(&error.body).unwrap()["message"].is_string());
    // What is in a body is never in an answer, which shippers write into logs.
    let refused = ask(&running, SENDERS[0], TOKEN, b"{\"log\":\"secret words").await;
    assert!(!String::from_utf8_lossy(&refused.body).contains("secret"));
    running.stop().await;
}

#[tokio::test]
async fn who_sends_too_slowly_is_not_answered_and_who_sends_too_much_is_told_to_wait() {
    let world = World::new();
    let rate = Rate { records: Some(1), ..Rate::default() };
    let running = with_client(&world, Limits { rate, body_idle: Duration::from_millis(100), ..Limits::default() });
    for sender in SENDERS {
        let slow = ask(&running, sender, &format!("{TOKEN}Content-Length: 100\r\n"), b"{").await;
        assert_eq!(slow.status, 0, "408 would be the end of the lines");
    }
    let many = "{\"log\":\"x\"}\n".repeat(100_000);
    assert_eq!(ask(&running, SENDERS[0], TOKEN, many.as_bytes()).await.status, 200);
    for sender in SENDERS {
        assert_eq!(ask(&running, sender, TOKEN, &good(sender, "more")).await.status, 429);
    }
    running.stop().await;
}

#[tokio::test]
async fn one_client_cannot_take_the_memory_of_others() {
    let world = World::new();
    let limits = Limits { patience: Duration::from_millis(50), in_flight_bytes: 64 << 10, ..Limits::default() };
    let running = world.start(|builder| {
        let hog = Client::new("hog").bearer("hog");
        builder.limits(limits).client(hog).client(Client::new("web-1").bearer("t"))
    });
    let mut hogs = Vec::new();
    for _ in 0..10 {
        let mut hog = TcpStream::connect(running.address).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hog\r\nContent-Length: 16384\r\n\r\n[";
        hog.write_all(head).await.unwrap();
        hogs.push(hog);
    }
    let as_hog = "Authorization: Bearer hog\r\n";
    for sender in SENDERS {
        until("503", async || ask(&running, sender, as_hog, &good(sender, "x")).await.status == 503).await;
        assert_eq!(ask(&running, sender, TOKEN, &good(sender, "x")).await.status, stored(sender));
    }
    drop(hogs);
    until("room again", async || ask(&running, SENDERS[0], as_hog, b"[]").await.status == 200).await;
    running.stop().await;
}
