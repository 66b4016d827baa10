//! Syslog: from sockets, and from rsyslog and syslog-ng where they are installed.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command},
    sync::atomic::Ordering,
    time::Duration,
};

use logwarden_core::{
    Line,
    source::{Budget, LogSource, Seen},
    templates::header,
};
use logwarden_push_source::{BuildError, Builder};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    guard::certificate,
    world::{Running, World, until},
};

const ANY: &str = "127.0.0.1:0";

fn with_syslog(builder: Builder) -> Builder {
    builder.syslog_tcp(ANY.parse().unwrap()).syslog_udp(ANY.parse().unwrap())
}

/// The lines in the spool, as the pipeline gets them.
async fn lines(running: &Running) -> Vec<Line> {
    use logwarden_core::env::Env as _;
    let budget = Budget { now: crate::world::Clock::default().now(), lines: 1_000_000, bytes: usize::MAX };
    running.source.read(None, &Seen::default(), budget).await.unwrap().lines
}

async fn texts(running: &Running) -> Vec<String> {
    lines(running).await.iter().map(|line| line.text.escape_ascii().to_string()).collect()
}

#[tokio::test]
async fn syslog_over_tcp_and_udp_is_spooled_as_it_was_sent() {
    let world = World::new();
    let running = world.start(with_syslog);
    let (tcp, udp) = (running.syslog_tcp.unwrap(), running.syslog_udp.unwrap());
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    stream.write_all(b"<34>Nov 20 22:31:09 home-server su[231]: 'su root' failed\n67 <165>1 2026-11-20T22:31:09.003Z home evntslog 111 ID47 - over there<13>cut o").await.unwrap();
    until("the complete messages", async || world.spooled().await.1 == 2).await;
    // What has no end when the connection ends, ends there.
    drop(stream);
    until("the last message", async || world.spooled().await.1 == 3).await;
    let socket = UdpSocket::bind(ANY).unwrap();
    socket.send_to(b"<12>Nov 20 22:31:10 home-server root: \xff\xfe bytes\n\0", udp).unwrap();
    socket.send_to(br#"{"@timestamp":"2026-11-20T22:31:09+09:00","host":"web-1","severity":"crit","program":"su","message":"no"}"#, udp).unwrap();
    until("the datagrams", async || world.spooled().await.1 == 5).await;
    let lines = lines(&running).await;
    let mut found: Vec<_> = lines.iter().map(|line| line.text.escape_ascii().to_string()).collect();
    found.sort();
    assert_eq!(
        found,
        [
            "<12>Nov 20 22:31:10 home-server root: \\xff\\xfe bytes",
            "<13>cut o",
            "<165>1 2026-11-20T22:31:09.003Z home evntslog 111 ID47 - over there",
            "<34>Nov 20 22:31:09 home-server su[231]: \\'su root\\' failed",
            "no",
        ]
    );
    let su = lines.iter().find(|line| line.text.starts_with(b"<34>")).unwrap();
    let header = header::inspect(&su.record());
    assert_eq!((header.host, header.program), (Some(&b"home-server"[..]), Some(&b"su"[..])));
    assert_eq!(header.level.map(|level| level.as_str()), Some("critical"));
    let json = lines.iter().find(|line| line.text == b"no").unwrap();
    assert_eq!(
        (json.stream.host(), json.stream.level().map(|level| level.as_str())),
        (Some("web-1"), Some("critical"))
    );
    running.stop().await;
}

#[tokio::test]
async fn equal_messages_are_all_kept_and_long_ones_are_cut() {
    let world = World::new();
    let running = world.start(with_syslog);
    let mut stream = TcpStream::connect(running.syslog_tcp.unwrap()).await.unwrap();
    for round in 1..4 {
        stream.write_all(b"<13>the same\n<13>the same\n").await.unwrap();
        until("the messages", async || world.spooled().await.1 == round * 2).await;
    }
    stream.write_all(&[b"<13>", &[b'x'; 1 << 20][..], b"\n<13>next\n"].concat()).await.unwrap();
    until("the long message and the next", async || world.spooled().await.1 == 8).await;
    assert_eq!(world.counter("push_lines_cut").await, 1);
    running.stop().await;
}

#[tokio::test]
async fn syslog_waits_while_it_cannot_be_stored_and_is_complete_at_the_end() {
    let world = World::new();
    let running = world.start(with_syslog);
    world.disk.full.store(true, Ordering::Relaxed);
    let mut stream = TcpStream::connect(running.syslog_tcp.unwrap()).await.unwrap();
    stream.write_all(b"<13>one\n<13>two\n").await.unwrap();
    until("a try", async || world.disk.refused.load(Ordering::Relaxed) > 0).await;
    assert_eq!(world.spooled().await, (0, 0));
    world.disk.full.store(false, Ordering::Relaxed);
    until("room again", async || world.spooled().await.1 == 2).await;
    // At shutdown what has arrived is stored first.
    stream.write_all(b"<13>three\n<13>fo").await.unwrap();
    stream.flush().await.unwrap();
    running.stop().await;
    let running = world.start(with_syslog);
    assert_eq!(texts(&running).await, ["<13>one", "<13>two", "<13>three", "<13>fo"]);
    running.stop().await;
}

#[tokio::test]
async fn syslog_off_host_needs_a_network_that_is_trusted() {
    let world = World::new();
    let anywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let error = world.try_build(|builder| builder.syslog_udp(anywhere)).unwrap_err();
    assert!(matches!(error, BuildError::SyslogExposed { .. }));
    assert!(error.hint().unwrap().contains("--insecure-allow"));
    // Certificate and clients are no help: syslog cannot say who sends it.
    let (chain, key) = certificate();
    let guarded = |builder: Builder| {
        builder
            .certificate(chain, key)
            .client(logwarden_push_source::Client::new("web").bearer("t"))
            .syslog_tcp(anywhere)
    };
    assert!(matches!(world.try_build(guarded), Err(BuildError::SyslogExposed { .. })));
    let allowed = "10.0.0.0/8".parse().unwrap();
    assert!(world.try_build(|builder| builder.syslog_tcp(anywhere).insecure_allow(allowed)).is_ok());
}

#[tokio::test]
async fn syslog_over_tls_shares_the_port() {
    use tokio_rustls::rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    };
    let world = World::new();
    let (chain, key) = certificate();
    let running = world.start(|builder| with_syslog(builder).certificate(chain.clone(), key));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&chain).unwrap()).unwrap();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = TcpStream::connect(running.syslog_tcp.unwrap()).await.unwrap();
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    stream.write_all(b"10 <13>in TLS").await.unwrap();
    stream.flush().await.unwrap();
    let mut plain = TcpStream::connect(running.syslog_tcp.unwrap()).await.unwrap();
    plain.write_all(b"<13>plain\n").await.unwrap();
    until("both", async || world.spooled().await.1 == 2).await;
    running.stop().await;
}

/// A program, ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a program is, or a note that its test is skipped.
fn installed(program: &str) -> Option<std::path::PathBuf> {
    let extra = ["/usr/sbin", "/usr/local/sbin"].map(Into::into);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(extra).map(|folder: std::path::PathBuf| folder.join(program));
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        #[expect(clippy::print_stderr, reason = "whoever reads the log of a run should see what it did not test")]
        {
            eprintln!("SKIPPED: {program} is not installed");
        }
    }
    found
}

fn messages() -> Vec<String> {
    (0..200).map(|number| format!("request {number} failed: \"no route\" [x=1] 日本")).collect()
}

/// Sends the messages through a daemon that listens at a UNIX socket, and waits until all have come once.
async fn through(world: &World, socket: &Path) {
    let local = std::os::unix::net::UnixDatagram::unbound().unwrap();
    until("the daemon", async || local.connect(socket).is_ok()).await;
    for message in messages() {
        // Its socket may be full for a moment.
        until("the daemon takes a message", async || {
            local.send(format!("<134>Nov 21 07:31:09 app[77]: {message}").as_bytes()).is_ok()
        })
        .await;
    }
    until("all messages", async || world.spooled().await.1 >= 200).await;
}

async fn check(running: &Running) {
    let found = texts(running).await;
    for message in messages() {
        let message = message.as_bytes().escape_ascii().to_string();
        let count = found.iter().filter(|line| line.ends_with(&message)).count();
        assert_eq!(count, 1, "{message} in {:?}", found.first());
    }
    assert!(found.iter().all(|line| line.starts_with("<134>")), "{:?}", found.first());
    let lines = lines(running).await;
    let header = header::inspect(&lines[0].record());
    assert_eq!(header.program, Some(&b"app"[..]), "{:?}", found.first());
    assert_eq!(header.level.map(|level| level.as_str()), Some("info"));
}

#[tokio::test]
async fn rsyslog_sends_every_message_once() {
    let Some(rsyslogd) = installed("rsyslogd") else { return };
    for (protocol, action) in [
        ("udp", "protocol=\"udp\""),
        ("tcp", "protocol=\"tcp\""),
        ("tcp", "protocol=\"tcp\" TCP_Framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\""),
    ] {
        let world = World::new();
        let running = world.start(with_syslog);
        let target = if protocol == "udp" { running.syslog_udp } else { running.syslog_tcp }.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let config = format!(
            "global(workDirectory=\"{dir}\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{dir}/log\" RateLimit.Interval=\"0\")\n\
             action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{}\" {action})\n",
            target.port(),
            dir = dir.path().display(),
        );
        std::fs::write(path("rsyslog.conf"), config).unwrap();
        let _daemon = Program(
            Command::new(&rsyslogd)
                .args(["-n", "-f"])
                .arg(path("rsyslog.conf"))
                .arg("-i")
                .arg(path("pid"))
                .spawn()
                .unwrap(),
        );
        through(&world, &path("log")).await;
        check(&running).await;
        running.stop().await;
    }
}

/// How syslog-ng is started. Debian lets only one of the two daemons be installed, so that `.ci/run` unpacks this one into
/// a folder.
fn syslog_ng() -> Option<impl Fn() -> Command> {
    let root = std::env::var_os("SYSLOG_NG_ROOT").map(std::path::PathBuf::from);
    let program = match &root {
        Some(root) => root.join("usr/sbin/syslog-ng"),
        None => installed("syslog-ng")?,
    };
    Some(move || {
        let mut command = Command::new(&program);
        if let Some(root) = &root {
            let libraries = root.join("usr/lib/syslog-ng");
            let modules = std::fs::read_dir(&libraries).unwrap().flatten().map(|entry| entry.path());
            let modules =
                modules.filter(|path| path.is_dir()).find(|path| path.join("libafsocket.so").exists()).unwrap();
            command.env("LD_LIBRARY_PATH", &libraries).arg("--module-path").arg(modules);
        }
        command
    })
}

#[tokio::test]
async fn syslog_ng_sends_every_message_once() {
    let Some(syslog_ng) = syslog_ng() else { return };
    for (driver, is_udp) in [
        ("network(\"127.0.0.1\" port(PORT) transport(\"tcp\"))", false),
        ("network(\"127.0.0.1\" port(PORT) transport(\"udp\"))", true),
        ("syslog(\"127.0.0.1\" port(PORT) transport(\"tcp\"))", false),
    ] {
        let world = World::new();
        let running = world.start(with_syslog);
        let target = if is_udp { running.syslog_udp } else { running.syslog_tcp }.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let config = format!(
            "@version: 3.35\noptions {{ keep-hostname(yes); stats-freq(0); }};\n\
             source local {{ unix-dgram(\"{}\" flags(no-hostname)); }};\ndestination there {{ {}; }};\n\
             log {{ source(local); destination(there); }};\n",
            path("log").display(),
            driver.replace("PORT", &target.port().to_string()),
        );
        std::fs::write(path("syslog-ng.conf"), config).unwrap();
        let _daemon = Program(
            syslog_ng()
                .args(["-F", "--no-caps", "--persist-file"])
                .arg(path("persist"))
                .arg("--pidfile")
                .arg(path("pid"))
                .arg("--control")
                .arg(path("control"))
                .arg("-f")
                .arg(path("syslog-ng.conf"))
                .spawn()
                .unwrap(),
        );
        through(&world, &path("log")).await;
        check(&running).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn a_flood_of_syslog_is_taken_as_fast_as_it_can_be_stored() {
    let world = World::new();
    let running = world.start(with_syslog);
    let address = running.syslog_tcp.unwrap();
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                for number in 0..100 {
                    let text: String =
                        (0..50).map(|line| format!("<13>{sender} {number} {line} {}\n", "x".repeat(200))).collect();
                    stream.write_all(text.as_bytes()).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    until("all lines", async || world.spooled().await.1 == 20_000).await;
    // In order per sender.
    let lines = texts(&running).await;
    for sender in 0..4 {
        let of_sender: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix(&format!("<13>{sender} "))).collect();
        let wanted = (0..100).flat_map(|number| (0..50).map(move |line| format!("{number} {line} ")));
        assert!(of_sender.iter().zip(wanted).all(|(line, wanted)| line.starts_with(&wanted)));
    }
    tokio::time::timeout(Duration::from_secs(10), running.stop()).await.unwrap();
}
