use std::{sync::atomic::Ordering, time::Duration};

use logwarden_push_source::{Quarantine, Replayed};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;
use reqwest::{Client, StatusCode};

use crate::world::{World, until};

const DISK: &str = "Disk space on /dev/sda1 is critically low: only 5% remaining.";

/// A batch as Fluent Bit sends it, with times of now.
fn batch(world: &World, lines: &[&str]) -> String {
    use logwarden_core::env::Env as _;
    let now = world.clock.now();
    let records: Vec<_> =
        lines.iter().map(|line| serde_json::json!({"date": now.to_string(), "log": line, "host": "web-1"})).collect();
    serde_json::to_string(&records).unwrap()
}

#[tokio::test]
async fn a_line_pushed_by_fluent_bit_is_told_within_two_seconds() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let (source, pipeline) = (running.source.clone(), running.pipeline.clone());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let watching = tokio::spawn(async move {
        let arrived = || source.arrived();
        let stop = async {
            let _ = stopped.await;
        };
        pipeline.watch_pushed(0, arrived, Duration::from_secs(5), &|_| {}, stop).await
    });
    let begun = std::time::Instant::now();
    let answer = Client::new().post(running.url("/receive_logs")).body(batch(&world, &[DISK])).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.text().await.unwrap(), r#"{"accepted":1,"errors":false}"#);
    until("the alert", async || !world.recorder.1.lock().unwrap().is_empty()).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(world.spooled().await, (0, 0), "what was ingested is no longer spooled");
    let _ = stop.send(());
    watching.await.unwrap().unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_batch_sent_again_is_counted_and_not_stored_twice() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let (http, body) = (Client::new(), batch(&world, &["one", "one", "two"]));
    for _ in 0..3 {
        let answer = http.post(running.url("/receive_logs")).body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(world.spooled().await, (1, 3), "equal lines are kept, equal batches are not");
    assert_eq!(world.counter("push_repeats").await, 2);
    running.ingest().await;
    let answer = http.post(running.url("/receive_logs")).body(body.clone()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(world.spooled().await, (0, 0), "also once it is ingested");
    assert_eq!(world.counter("lines_read").await, 3);

    // Without any time, equal bytes may be another event.
    for _ in 0..2 {
        http.post(running.url("/")).body(r#"{"log":"by hand"}"#).send().await.unwrap();
    }
    assert_eq!(world.spooled().await, (2, 2));
    running.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_once_after_a_restart() {
    let world = World::new();
    let first = world.start(|builder| builder);
    let http = Client::new();
    let bodies: Vec<_> = (0..20).map(|number| batch(&world, &[&format!("job {number} done")])).collect();
    for body in &bodies {
        assert!(http.post(first.url("/receive_logs")).body(body.clone()).send().await.unwrap().status().is_success());
    }
    // Killed: the pipeline has folded nothing, or its commit was never made.
    drop(first);
    let second = world.start(|builder| builder);
    for body in &bodies[10..] {
        assert!(http.post(second.url("/receive_logs")).body(body.clone()).send().await.unwrap().status().is_success());
    }
    second.ingest().await;
    assert_eq!((world.counter("lines_read").await, world.spooled().await), (20, (0, 0)));
    second.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let opened = logwarden_ledger::SqliteLedger::open(dir.path(), &Default::default(), Default::default());
        World::on(Box::new(opened.unwrap().0))
    };
    let world = open();
    let running = world.start(|builder| builder);
    let http = Client::new();
    let bodies: Vec<_> = (0..20).map(|number| batch(&world, &[&format!("job {number} done"), "same"])).collect();
    for body in bodies.iter().chain(&bodies[..5]) {
        assert!(http.post(running.url("/receive_logs")).body(body.clone()).send().await.unwrap().status().is_success());
    }
    assert_eq!(world.counter("push_repeats").await, 5);
    running.ingest().await;
    http.post(running.url("/receive_logs")).body(batch(&world, &["the last"])).send().await.unwrap();
    running.stop().await;
    drop(world);

    let world = open();
    let running = world.start(|builder| builder);
    let answer = http.post(running.url("/receive_logs")).body(bodies[7].clone()).send().await.unwrap();
    assert!(answer.status().is_success());
    assert_eq!(world.spooled().await, (1, 1), "batches that were ingested are still known");
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_stored_is_never_acknowledged() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let http = Client::new();
    for flag in [&world.disk.full, &world.disk.broken] {
        flag.store(true, Ordering::Relaxed);
        for path in ["/receive_logs", "/loki/api/v1/push", "/v1/logs"] {
            let body = match path {
                "/receive_logs" => batch(&world, &["x"]),
                "/v1/logs" => r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1","body":{"stringValue":"x"}}]}]}]}"#.to_owned(),
                _ => r#"{"streams":[{"stream":{"job":"x"},"values":[["1795214566490211925","x"]]}]}"#.to_owned(),
            };
            let request = http.post(running.url(path)).header("content-type", "application/json").body(body);
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert!(answer.headers().contains_key("retry-after"), "{path}");
        }
        let ready = async || http.get(running.url("/readyz")).send().await.unwrap().status().is_success();
        assert_eq!(ready().await, std::ptr::eq(flag, &world.disk.full), "a full spool empties by itself");
        flag.store(false, Ordering::Relaxed);
        assert!(ready().await);
    }
    assert_eq!(world.spooled().await, (0, 0));
    assert!(
        http.post(running.url("/receive_logs")).body(batch(&world, &["x"])).send().await.unwrap().status().is_success()
    );
    running.stop().await;
}

#[tokio::test]
async fn unreadable_bodies_are_kept_and_told_once_per_sender() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let http = Client::new();
    let send = async |path: &str, kind: &str, body: &[u8]| {
        let request = http.post(running.url(path)).header("content-type", kind).body(body.to_vec());
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(send("/receive_logs", "application/json", b"[{\"log\":\"good\"},{\"log\":").await, 200);
    assert_eq!(send("/receive_logs", "application/json", b"not json").await, 200);
    assert_eq!(send("/receive_logs", "application/msgpack", b"\x92\xc1").await, 200);
    assert_eq!(send("/loki/api/v1/push", "application/x-protobuf", b"\xff\xff\xff").await, 204);
    assert_eq!(send("/v1/logs", "application/x-protobuf", b"\xff\xff\xff").await, 400);
    assert_eq!(world.spooled().await, (1, 1), "the good record of a half-good batch is kept");
    let kept = Quarantine::new(world.disk.clone(), world.clock.clone()).list(100).await.unwrap();
    assert_eq!(kept.len(), 5);
    assert!(kept.iter().any(|kept| kept.body == b"not json" && kept.sent_as.contains("application/json")));
    until("the finding", async || !world.titles().await.is_empty()).await;
    assert_eq!(world.titles().await, ["input from 127.0.0.1 cannot be read"]);
    running.stop().await;
}

#[tokio::test]
async fn what_is_in_quarantine_can_be_shown_taken_after_all_and_removed() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let http = Client::new();
    let send = async |encoding: &str, body: &[u8]| {
        let request = http.post(running.url("/receive_logs")).header("content-type", "application/json");
        let answer = request.header("content-encoding", encoding).body(body.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    };
    send("", b"one line\nand another").await;
    send("gzip", b"\x1f\x8b\x08 and no more").await;
    send("zstd", &zstd::encode_all(&b"[{\"log\":\"good\"},{\"log\""[..], 3).unwrap()).await;
    assert_eq!(world.spooled().await, (1, 1));
    let quarantine = Quarantine::new(world.disk.clone(), world.clock.clone());
    let kept = quarantine.list(100).await.unwrap();
    let [piece, packed, text] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!((text.sender.as_str(), text.bytes), ("127.0.0.1", 20));
    assert_eq!(packed.body, b"\x1f\x8b\x08 and no more");
    assert_eq!(packed.sent_as, "records, announced as application/json, compressed with gzip");
    assert_eq!(quarantine.read(piece.number).await.unwrap().as_ref(), Some(piece));

    let still = quarantine.replay(text.number, false).await.unwrap();
    assert_eq!(still, Replayed::Unreadable { reason: "it is announced as JSON and is none".to_owned() });
    assert_eq!(quarantine.replay(text.number, true).await.unwrap(), Replayed::Spooled { lines: 2 });
    assert_eq!(quarantine.replay(text.number, true).await.unwrap(), Replayed::Missing);
    assert_eq!(world.spooled().await, (2, 3));
    running.ingest().await;
    assert_eq!(world.counter("lines_read").await, 3);

    assert_eq!(quarantine.remove(&[piece.number, packed.number, 12_345]).await.unwrap(), 2);
    assert_eq!(quarantine.list(100).await.unwrap(), []);
    running.stop().await;
}

#[tokio::test]
async fn empty_batches_and_health_checks_are_welcome() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let http = Client::new();
    for (path, body, wanted) in [
        ("/receive_logs", "[]", 200),
        ("/", "", 200),
        ("/loki/api/v1/push/", "{\"streams\":[]}", 204),
        ("/v1/logs", "", 200),
    ] {
        let answer = http.put(running.url(path)).body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), wanted, "{path}");
    }
    for path in ["/receive_logs", "/loki/api/v1/push", "/healthz", "/readyz", "/ready"] {
        assert_eq!(http.get(running.url(path)).send().await.unwrap().status(), StatusCode::OK, "{path}");
    }
    assert_eq!(world.disk.commits.load(Ordering::Relaxed), 0);
    let page = http.get(running.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("logwarden_push_requests_total{outcome=\"empty\"} 4\n"), "{page}");
    assert!(page.contains("logwarden_push_spool_rows 0\n"), "{page}");
    running.stop().await;
}

fn export(lines: &[&str]) -> ExportLogsServiceRequest {
    let text = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    let attribute = |key: &str, value: &str| KeyValue { key: key.to_owned(), value: text(value), ..Default::default() };
    let log_records = lines
        .iter()
        .map(|line| LogRecord {
            time_unix_nano: 1_795_214_566_490_211_925,
            severity_number: 17,
            body: text(line),
            attributes: vec![attribute("thread", "main")],
            ..LogRecord::default()
        })
        .collect();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", "shop"), attribute("host.name", "web-1")],
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs { log_records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    }
}

#[tokio::test]
async fn otlp_of_the_official_types_is_understood_and_answered() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let http = Client::new();
    let request = export(&["card declined", "日本\u{0}"]);
    let send = async |kind: &str, body: Vec<u8>| {
        let answer = http.post(running.url("/v1/logs")).header("content-type", kind).body(body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], kind);
        answer.bytes().await.unwrap()
    };
    let answer = send("application/x-protobuf", request.encode_to_vec()).await;
    ExportLogsServiceResponse::decode(answer).unwrap();
    // The same lines would be the same batch, whatever they are written in.
    let request = export(&["card accepted", "日本\u{0}"]);
    let answer = send("application/json", serde_json::to_vec(&request).unwrap()).await;
    serde_json::from_slice::<ExportLogsServiceResponse>(&answer).unwrap();
    assert_eq!(world.spooled().await, (2, 4), "{:?}", serde_json::to_string(&request));
    running.ingest().await;
    assert_eq!(world.counter("lines_read").await, 4);
    running.stop().await;
}

#[tokio::test]
async fn a_stack_trace_that_spans_batches_is_one_event() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let http = Client::new();
    let head = batch(&world, &["2026-11-21 04:00:00 ERROR request failed", "java.lang.IllegalStateException: no"]);
    let tail = batch(&world, &["\tat com.shop.Cart.add(Cart.java:14)", "\tat com.shop.Main.main(Main.java:3)"]);
    for body in [head, tail] {
        assert!(http.post(running.url("/receive_logs")).body(body).send().await.unwrap().status().is_success());
        running.ingest().await;
    }
    assert_eq!(world.counter("lines_kept").await, 0, "the event is still open");
    until("the event to be complete", async || {
        running.source.arrived().await;
        running.ingest().await;
        world.counter("lines_kept").await > 0
    })
    .await;
    assert_eq!(world.counter("lines_kept").await, 4);
    running.stop().await;
}
