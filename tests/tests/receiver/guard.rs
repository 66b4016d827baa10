//! Who may send, how much, and what happens to what cannot be read.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use logwarden_tests::receiver::{Answer, Receiver, Shipper, command, now, records, sha256sum, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer},
};

use crate::{World, err, metric, out};

#[tokio::test]
async fn limits_are_what_the_configuration_says() {
    let world = World::new().await;
    let limits = "[receiver]\nmax_body_mib = 1\nmax_unpacked_mib = 2\nclient_requests_per_second = 1\n";
    std::fs::write(world.path().join("logwarden.toml"), limits).unwrap();
    let receiver = world.start().await;
    let body = |lines: usize| records(now(), std::iter::repeat_n("app: a line of a hundred bytes or so", lines));
    assert_eq!(receiver.push(&body(10)).await.unwrap().status, 200);
    assert_eq!(receiver.push(&body(30_000)).await.unwrap().status, 413, "2 MB, where 1 MiB is allowed");
    until("a message about what is lost", async || {
        world.told().iter().any(|(text, _)| text.contains("larger than the limits allow"))
    })
    .await;
    // Half a minute's worth at once.
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(receiver.push(&body(1)).await.unwrap());
    }
    let limited = answers.iter().find(|answer| answer.status != 200).unwrap();
    assert!(limited.status == 429 && limited.retry_after.is_some_and(|seconds| seconds > 0), "{limited:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_listed_and_replayed() {
    // With a model, which explains nothing about senders: it is not waited for.
    let world = World::with_model().await;
    let receiver = world.start().await;
    let mut shipper = Shipper::connect(receiver.address()).await.unwrap();
    let broken = b"\x92\xc1 this is no msgpack";
    let answer = shipper.push(broken).await.unwrap();
    assert_eq!(answer.status, 200, "a sender that is refused loses its lines: {answer:?}");
    until("a message about the sender", async || world.told().iter().any(|(text, _)| text.contains("cannot be read")))
        .await;

    let list = out(&world.run(&["quarantine"]).await);
    assert!(list.contains("127.0.0.1"), "{list}");
    let number = list.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let shown = out(&world.run(&["quarantine", "show", &number]).await);
    assert!(shown.contains("this is no msgpack") && shown.contains("\\x92\\xc1"), "{shown}");
    assert_eq!(world.run(&["quarantine", "show", &number, "--raw"]).await.stdout, broken);
    let replayed = world.run(&["quarantine", "replay", &number]).await;
    assert_eq!(replayed.status.code(), Some(1), "{}", out(&replayed));

    let replayed = world.run(&["quarantine", "replay", "--all", "--as-text"]).await;
    assert_eq!(replayed.status.code(), Some(0), "{}{}", out(&replayed), err(&replayed));
    assert!(out(&replayed).contains("1 line wait"), "{}", out(&replayed));
    assert!(out(&world.run(&["quarantine"]).await).contains("everything that was sent could be read"));
    let missing = world.run(&["quarantine", "show", &number]).await;
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("logwarden-receiver quarantine"), "{}", err(&missing));
}

#[tokio::test]
async fn a_second_receiver_a_taken_port_and_an_open_door_are_told_with_what_to_do() {
    let world = World::new().await;
    let receiver = world.start().await;
    let second = world.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(second.status.code(), Some(1));
    assert!(err(&second).contains("another receiver uses the state"), "{}", err(&second));

    let elsewhere = World::new().await;
    let address = receiver.address().to_string();
    let taken = elsewhere.run(&["serve", "--listen", &address]).await;
    assert_eq!(taken.status.code(), Some(1));
    assert!(err(&taken).contains("is the receiver running already?"), "{}", err(&taken));

    let open = elsewhere.run(&["serve", "--listen", "0.0.0.0:0"]).await;
    assert_eq!(open.status.code(), Some(2));
    assert!(err(&open).contains("--insecure-allow") && err(&open).contains("tls     On"), "{}", err(&open));

    let mut doctor = command(world.path(), &["doctor", "--offline"]);
    let doctor = doctor.envs(world.environment()).env("RECEIVER_LISTEN", &address).output().await.unwrap();
    let text = out(&doctor);
    assert_eq!(doctor.status.code(), Some(0), "{text}");
    assert!(text.contains(&format!("{address} answers: ready")), "{text}");
    let port = format!("Port                       {}", receiver.address().port());
    assert!(text.contains(&port) && text.contains("OpenTelemetry"), "{text}");
    assert!(world.run(&["test-alert"]).await.status.success());
    assert_eq!(world.told().len(), 1);
}

async fn ask(address: SocketAddr, headers: &str, body: &[u8]) -> Answer {
    Shipper::connect(address).await.unwrap().ask("POST", "/receive_logs", headers, body).await.unwrap()
}

#[tokio::test]
async fn whoever_guesses_waits_and_locks_nobody_out() {
    let world = World::new().await;
    let config = format!(
        "[[receiver.clients]]\nname = \"web-1\"\ntoken_sha256 = [\"{}\", \"{}\"]\n\
         [[receiver.clients]]\nname = \"db-1\"\ntoken_sha256 = \"{}\"\n",
        sha256sum("the-old-token"),
        sha256sum("the-new-token"),
        sha256sum("fluent:a:password")
    );
    std::fs::write(world.path().join("logwarden.toml"), config).unwrap();
    let receiver = world.start().await;
    let address = receiver.address();

    // From the same address as everybody else here.
    let guessing = (0..100).map(|number| async move {
        let asked = std::time::Instant::now();
        let answer = ask(address, &format!("Authorization: Bearer guess-{number}\r\n"), b"[{\"log\":\"x\"}]").await;
        assert!(asked.elapsed() >= Duration::from_millis(400), "guessing takes time");
        answer.status
    });
    let guessed = futures::future::join_all(guessing);
    let honest = async {
        let basic = BASE64_STANDARD.encode("fluent:a:password");
        let mut took = Vec::new();
        for round in 0..5 {
            for credential in ["Bearer the-old-token", "Bearer the-new-token", &format!("Basic {basic}")] {
                let asked = std::time::Instant::now();
                let line = format!("app: round {round}");
                let answer = ask(address, &format!("Authorization: {credential}\r\n"), &records(now(), [&*line])).await;
                assert_eq!(answer.status, 200, "{credential}");
                took.push(asked.elapsed());
            }
        }
        took.sort();
        took[took.len() / 2]
    };
    let (guessed, honest) = tokio::join!(guessed, honest);
    assert_eq!(guessed, [401; 100]);
    assert!(honest < Duration::from_millis(400), "honest senders do not wait: {honest:?}");
    assert_eq!(metric(&receiver, "logwarden_push_requests_total{outcome=\"unauthorized\"}").await, 100);
    assert_eq!(metric(&receiver, "logwarden_push_accepted_lines_total").await, 15);
    until("a message about it", async || world.told().iter().any(|(text, _)| text.contains("a wrong credential")))
        .await;
    assert_eq!(world.told().len(), 1, "one for all of them: {:#?}", world.told());

    receiver.signal("TERM");
    let (_, log) = receiver.ended().await.unwrap();
    for secret in ["the-old-token", "the-new-token", "a:password", "guess-7"] {
        assert!(!log.contains(secret), "{secret} is in the log");
        for entry in std::fs::read_dir(world.path().join("state")).unwrap() {
            let Ok(bytes) = std::fs::read(entry.unwrap().path()) else { continue };
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} is in the state");
        }
    }
}

/// An address of this machine that is not the loopback's, if there is one: whoever asks there comes from elsewhere.
fn elsewhere() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// Pushes with TLS, trusting one certificate; the head of the answer.
async fn push_with_tls(address: SocketAddr, certificate: CertificateDer<'static>, headers: &str) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let body = "[{\"log\":\"app: from elsewhere\"}]";
    let length = body.len();
    let head = format!(
        "POST /receive_logs HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// `serve` that listens everywhere, on a free port.
async fn serve_everywhere(world: &World, arguments: &[&str]) -> Result<Receiver, String> {
    let mut serve = command(world.path(), &[&["serve", "--listen", "0.0.0.0:0"], arguments].concat());
    serve.envs(world.environment());
    Receiver::spawn(serve).await
}

#[tokio::test]
async fn the_lines_that_a_refusal_prints_are_those_that_are_needed() {
    let world = World::new().await;
    let refusal = serve_everywhere(&world, &[]).await.unwrap_err();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |name: &str| world.path().join(name).display().to_string();
    std::fs::write(path("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(path("tls.key"), made.signing_key.serialize_pem()).unwrap();
    // What is printed for logwarden.toml, with paths and a token of our own.
    let printed: Vec<&str> = refusal
        .lines()
        .map(str::trim)
        .skip_while(|line| !line.starts_with("[receiver]"))
        .take_while(|line| !line.starts_with("There, "))
        .collect();
    let config = printed
        .join("\n")
        .replace("/etc/logwarden/tls.crt", &path("tls.crt"))
        .replace("/etc/logwarden/tls.key", &path("tls.key"))
        .replace('…', &sha256sum("TOKEN"));
    std::fs::write(path("logwarden.toml"), &config).unwrap();
    let guarded = serve_everywhere(&world, &[]).await.unwrap_or_else(|refusal| panic!("{config}: {refusal}"));
    let Some(elsewhere) = elsewhere() else { return };
    let there = SocketAddr::new(elsewhere, guarded.address().port());
    // And for Fluent Bit: TLS, and this header.
    assert!(refusal.contains("tls     On") && refusal.contains("Header  Authorization Bearer TOKEN"), "{refusal}");
    let certificate = made.cert.der().clone();
    let answer = push_with_tls(there, certificate.clone(), "Authorization: Bearer TOKEN\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(push_with_tls(there, certificate, "").await.starts_with("HTTP/1.1 401"), "no credential");
    let plain = Shipper::connect(there).await.unwrap().push(b"[]").await;
    assert!(plain.is_err(), "without TLS the connection is closed: {plain:?}");
    drop(guarded);

    // The other way: a network that is trusted.
    assert!(refusal.contains("--insecure-allow 192.168.0.0/16"), "{refusal}");
    std::fs::remove_file(path("logwarden.toml")).unwrap();
    let trusted = serve_everywhere(&world, &["--insecure-allow", &elsewhere.to_string()]).await.unwrap();
    let there = SocketAddr::new(elsewhere, trusted.address().port());
    assert_eq!(Shipper::connect(there).await.unwrap().push(b"[{\"log\":\"x\"}]").await.unwrap().status, 200);
    drop(trusted);
    let other = serve_everywhere(&world, &["--insecure-allow", "198.51.100.0/24"]).await.unwrap();
    let there = SocketAddr::new(elsewhere, other.address().port());
    assert!(Shipper::connect(there).await.unwrap().push(b"[]").await.is_err(), "of another network");
}
