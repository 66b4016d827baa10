use std::time::Duration;

use logwarden_push_source::{BuildError, Client, Limits, Rate};
use reqwest::StatusCode;

use crate::world::{World, until};

pub(crate) fn certificate() -> (Vec<u8>, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
}

#[tokio::test]
async fn nothing_listens_off_host_without_a_guard() {
    let world = World::new();
    let anywhere = "0.0.0.0:0".parse().unwrap();
    let error = world.try_build(|builder| builder.listen(anywhere)).unwrap_err();
    assert!(matches!(error, BuildError::Exposed { .. }));
    let hint = error.hint().unwrap();
    assert!(hint.contains("--insecure-allow") && hint.contains("tls     On"), "{hint}");
    let secret = || Client::new("web").bearer("t");
    assert!(world.try_build(|builder| builder.listen(anywhere).client(secret())).is_err(), "no TLS");
    let (chain, key) = certificate();
    assert!(world.try_build(|builder| builder.listen(anywhere).certificate(chain.clone(), key.clone())).is_err());
    assert!(world.try_build(|builder| builder.listen(anywhere).certificate(chain, key).client(secret())).is_ok());
    let allowed = "10.0.0.0/8".parse().unwrap();
    assert!(world.try_build(|builder| builder.listen(anywhere).insecure_allow(allowed)).is_ok());
    assert!(matches!(world.try_build(|b| b.client(Client::new("x"))), Err(BuildError::NoCredential { .. })));
}

#[tokio::test]
async fn senders_say_who_they_are_and_one_that_cannot_is_told_about() {
    let world = World::new();
    let running = world.start(|builder| {
        builder.client(Client::new("web").bearer("s3cret")).client(Client::new("db").basic("fluent", "p:w"))
    });
    let http = reqwest::Client::new();
    let post = || http.post(running.url("/receive_logs")).body(r#"[{"log":"x"}]"#);
    for request in [post(), post().bearer_auth("wrong"), post().basic_auth("fluent", Some("wrong"))] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert!(answer.headers().contains_key("www-authenticate"));
    }
    assert_eq!(world.spooled().await, (0, 0));
    assert_eq!(post().bearer_auth("s3cret").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(post().basic_auth("fluent", Some("p:w")).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(world.spooled().await, (2, 2));
    until("the finding", async || !world.titles().await.is_empty()).await;
    assert_eq!(world.titles().await, ["logwarden cannot have some lines of 127.0.0.1"]);
    running.stop().await;
}

#[tokio::test]
async fn tls_and_plain_share_the_port() {
    let world = World::new();
    let (chain, key) = certificate();
    let running =
        world.start(|builder| builder.certificate(chain.clone(), key).client(Client::new("web").bearer("s3cret")));
    let trusting = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&chain).unwrap()])
        .resolve("localhost", running.address)
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/receive_logs", running.address.port());
    let answer = trusting.post(url).bearer_auth("s3cret").body(r#"[{"log":"x"}]"#).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let plain = reqwest::Client::new().post(running.url("/")).bearer_auth("s3cret").body(r#"[{"log":"x"}]"#);
    assert_eq!(plain.send().await.unwrap().status(), StatusCode::OK, "this host needs no TLS");
    running.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_used_without_dropping_connections() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let (chain_file, key_file) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let write = |chain: &[u8], key: &[u8]| {
        std::fs::write(&chain_file, chain).unwrap();
        std::fs::write(&key_file, key).unwrap();
    };
    let ((old, old_key), (new, new_key)) = (certificate(), certificate());
    write(&old, &old_key);
    let limits = Limits { certificate_check: Duration::from_millis(20), ..Limits::default() };
    let running = world.start(|builder| builder.certificate_files(&chain_file, &key_file).limits(limits));
    let url = format!("https://localhost:{}/healthz", running.address.port());
    let trusting = |chain: &[u8]| {
        let trusted = reqwest::Certificate::from_pem(chain).unwrap();
        reqwest::Client::builder().tls_certs_only([trusted]).resolve("localhost", running.address).build().unwrap()
    };
    let early = trusting(&old);
    early.get(&url).send().await.unwrap();
    // Half of it, and what is no certificate, changes nothing.
    write(&new, &old_key);
    write(b"no certificate", &old_key);
    trusting(&old).get(&url).send().await.unwrap();
    write(&new, &new_key);
    until("the new certificate", async || trusting(&new).get(&url).send().await.is_ok()).await;
    assert!(trusting(&old).get(&url).send().await.is_err());
    assert!(early.get(&url).send().await.is_ok(), "an open connection stays");
    running.stop().await;
}

#[tokio::test]
async fn one_client_that_sends_too_much_is_told_to_wait() {
    let world = World::new();
    let limits = Limits { rate: Rate { bytes: Some(1), ..Rate::default() }, ..Limits::default() };
    let running = world.start(|builder| builder.limits(limits));
    let http = reqwest::Client::new();
    let post = || http.post(running.url("/")).body(format!(r#"[{{"log":"{}"}}]"#, "x".repeat(100)));
    assert_eq!(post().send().await.unwrap().status(), StatusCode::OK);
    let answer = post().send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    running.stop().await;
}

#[tokio::test]
async fn stopping_finishes_what_is_under_way() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new();
    let running = world.start(|builder| builder);
    let mut stream = tokio::net::TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"log\"").await.unwrap();
    let http = reqwest::Client::new();
    until("the connection", async || {
        let page = http.get(running.url("/metrics")).send().await.unwrap().text().await.unwrap();
        page.contains("logwarden_push_in_flight_bytes 1024")
    })
    .await;
    let stopping = tokio::spawn(running.stop());
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.write_all(b":\"end\"}").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    stopping.await.unwrap();
    assert_eq!(world.spooled().await, (1, 1));
}
