use std::{io::Write, time::Duration};

use logwarden_push_source::Limits;
use reqwest::Client;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::{World, until};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(body).unwrap();
    out.finish().unwrap()
}

#[tokio::test]
async fn bombs_are_refused_and_honest_batches_of_the_same_ratio_are_not() {
    let world = World::new();
    let limits = Limits { decoded_bytes: 16 << 20, ..Limits::default() };
    let running = world.start(|builder| builder.limits(limits));
    let http = Client::new();
    let send = async |encoding: &str, body: Vec<u8>| {
        let request = http.post(running.url("/receive_logs")).header("content-encoding", encoding).body(body);
        request.send().await.unwrap().status().as_u16()
    };
    let (zeros, honest) = (vec![b' '; 20 << 20], format!("[{{\"log\":\"{}\"}}]", "x".repeat(10 << 20)).into_bytes());
    assert_eq!(send("gzip", gzip(&zeros)).await, 413);
    assert_eq!(send("zstd", zstd::encode_all(&*zeros, 3).unwrap()).await, 413);
    // A snappy block that promises four gibibytes.
    assert_eq!(send("snappy", vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0]).await, 413);
    assert_eq!(send("gzip", gzip(&honest)).await, 200);
    assert_eq!(send("zstd", zstd::encode_all(&*honest, 3).unwrap()).await, 200);
    assert_eq!(world.spooled().await.1, 2);
    assert_eq!(world.counter("push_lines_cut").await, 2, "a line of 10 MB keeps its head and its tail");
    running.stop().await;
}

#[tokio::test]
async fn deep_broken_and_odd_bodies_are_taken_without_harm() {
    let world = World::new();
    let running = world.start(|builder| builder);
    let http = Client::new();
    let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: Vec<Vec<u8>> = vec![
        deep.into_bytes(),
        vec![0x92; 100_000],
        b"\xdd\xff\xff\xff\xff".to_vec(),
        b"\xdf\xff\xff\xff\xff\xa1x".to_vec(),
        b"{\"log\":\"\xff\xfe\\u0000\"}".to_vec(),
        vec![0; 1000],
        b"{\"log\":null}{\"log\":{\"a\":[1,2,{}]}}".to_vec(),
        b"[1,2,\"three\",null,[],{}]".to_vec(),
    ];
    for body in bodies {
        for path in ["/receive_logs", "/loki/api/v1/push", "/v1/logs"] {
            let status = http.post(running.url(path)).body(body.clone()).send().await.unwrap().status().as_u16();
            assert!(matches!(status, 200 | 204) || (status == 400 && path == "/v1/logs"), "{path} {status}");
        }
    }
    running.ingest().await;
    running.stop().await;
}

#[tokio::test]
async fn silent_and_dripping_connections_are_closed_without_an_answer_while_others_are_served() {
    let world = World::new();
    let limits = Limits {
        first_head: Duration::from_millis(200),
        idle: Duration::from_millis(300),
        body_idle: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = world.start(|builder| builder.limits(limits));
    let beginnings: [&[u8]; 4] =
        [b"", b"P", b"POST / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n[{"];
    let mut streams = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(beginnings[number % 4]).await.unwrap();
        streams.push(stream);
    }
    let good = Client::new().post(running.url("/")).body(r#"{"log":"good"}"#).send().await.unwrap();
    assert!(good.status().is_success());
    for mut stream in streams {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the connection is closed");
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    running.stop().await;
}

#[tokio::test]
async fn more_bodies_than_memory_are_told_to_come_again() {
    let world = World::new();
    let limits = Limits { in_flight_bytes: 64 << 10, patience: Duration::from_millis(100), ..Limits::default() };
    let running = world.start(|builder| builder.limits(limits));
    let mut hog = TcpStream::connect(running.address).await.unwrap();
    hog.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n[").await.unwrap();
    let http = Client::new();
    until("an answer of 503", async || {
        let answer = http.post(running.url("/")).body(r#"{"log":"x"}"#).send().await.unwrap();
        answer.status().as_u16() == 503 && answer.headers().contains_key("retry-after")
    })
    .await;
    drop(hog);
    until("room again", async || {
        http.post(running.url("/")).body(r#"{"log":"x"}"#).send().await.unwrap().status().as_u16() == 200
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_body_of_unknown_length_is_bounded_too() {
    let world = World::new();
    let running = world.start(|builder| builder.limits(Limits { body_bytes: 1 << 20, ..Limits::default() }));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let (mut read, mut write) = stream.into_split();
    tokio::spawn(async move {
        let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
        while write.write_all(&chunk).await.is_ok() {}
    });
    let mut answer = [0; 12];
    read.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    running.stop().await;
}
