//! What shippers really send, pushed to the real binary.

use std::{collections::BTreeMap, net::SocketAddr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use logwarden_tests::receiver::{Receiver, Shipper, command, until};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UdpSocket},
};

use crate::{FULL, World, metric};

/// A request as a shipper sent it, and the lines it carried.
#[derive(serde::Deserialize)]
struct Recorded {
    name: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
    lines: Option<Vec<String>>,
}

#[tokio::test]
async fn every_recorded_request_is_taken_with_all_its_lines() {
    let world = World::new().await;
    let receiver = world.start().await;
    let (mut lines, mut shippers) = (0, 0);
    for request in include_str!("../../../crates/push-source/tests/fixtures/requests.ndjson").lines() {
        let request: Recorded = serde_json::from_str(request).unwrap();
        let headers: String = request.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let body = BASE64_STANDARD.decode(&request.body).unwrap();
        // Some are the same but for a header; a tag makes them different batches.
        let headers = format!("{headers}x-fluent-tag: {}\r\n", request.name);
        let mut shipper = Shipper::connect(receiver.address()).await.unwrap();
        let answer = shipper.ask("POST", &request.target, &headers, &body).await.unwrap();
        let stored = if request.target.contains("loki") { 204 } else { 200 };
        assert_eq!(answer.status, stored, "{}: {answer:?}", request.name);
        let carried = request.lines.unwrap().len() as u64;
        lines += carried;
        shippers += 1;
        let accepted = metric(&receiver, "logwarden_push_lines_total").await;
        assert_eq!(accepted, lines, "{} carried {carried} lines", request.name);
    }
    assert!(shippers > 100);
    until("all of them folded", async || metric(&receiver, "logwarden_lines_read_total").await == lines).await;
    assert_eq!(metric(&receiver, "logwarden_push_unreadable_total").await, 0);
}

/// An address that the receiver names when it starts.
fn named(receiver: &Receiver, what: &str) -> SocketAddr {
    let log = receiver.log();
    let after = log.split(&format!("{what}=")).nth(1).and_then(|rest| rest.split_whitespace().next());
    after.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{log}"))
}

#[tokio::test]
async fn syslog_is_behind_a_flag_and_is_told_like_everything_else() {
    let world = World::new().await;
    let receiver = world.start().await;
    assert!(receiver.log().contains("syslog_tcp=- syslog_udp=-"), "{}", *receiver.log());
    drop(receiver);
    let flags = ["serve", "--listen", "127.0.0.1:0", "--syslog-tcp", "127.0.0.1:0", "--syslog-udp", "127.0.0.1:0"];
    let mut serve = command(world.path(), &flags);
    serve.envs(world.environment());
    let receiver = Receiver::spawn(serve).await.unwrap();
    let (tcp, udp) = (named(&receiver, "syslog_tcp"), named(&receiver, "syslog_udp"));
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    let modern = format!("<11>1 2026-11-21T04:00:00Z web-1 df 12 - - {FULL}");
    let old = format!("<11>Nov 21 04:00:00 web-2 df: {FULL}\n");
    stream.write_all(format!("{} {modern}{old}", modern.len()).as_bytes()).await.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(format!("<11>Nov 21 04:00:00 web-3 df: {FULL}").as_bytes(), udp).await.unwrap();
    until("a message for each host", async || {
        let told = world.told();
        ["web-1", "web-2", "web-3"].iter().all(|host| told.iter().any(|(text, _)| text.contains(host)))
    })
    .await;
    assert_eq!(metric(&receiver, "logwarden_push_syslog_lines_total").await, 3);

    let refused = World::new().await.run(&["serve", "--listen", "127.0.0.1:0", "--syslog-udp", "0.0.0.0:0"]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(crate::err(&refused).contains("--insecure-allow 192.168.0.0/16"), "{}", crate::err(&refused));
}
