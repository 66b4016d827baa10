//! `logwarden-receiver serve`: takes what shippers push.

use std::{
    fs::{File, TryLockError},
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream as Connected},
    os::fd::AsFd,
    path::Path,
    time::Duration,
};

use logwarden_config::Wired;
use logwarden_core::{
    ledger::{Commit, CommitId, Ledger, Query},
    pipeline::PassReport,
};
use logwarden_push_source::{BuildError, Builder, Receiver};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time,
};
use tracing::{error, info, warn};

use crate::{
    alive,
    args::{Common, Serve},
    disk,
    failure::Failure,
    notify::Notify,
    program, run,
    setup::{self, Setup},
    stop,
    tally::{self, Tally},
    unit,
};

/// What is due when we are asked to stop may take so long to be told.
const GRACE: Duration = Duration::from_secs(10);
/// The stages report every half minute; longer silence means that they hang.
const HANGS: Duration = Duration::from_secs(180);
/// Held by the one receiver of a state directory.
const LOCK: &str = "receiver.lock";

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    /// No new batches; those under way are finished.
    Draining,
    /// What arrived is folded, and what is due is told.
    Ending,
}

/// Runs the command.
pub(crate) async fn serve(common: &Common, serve: &Serve) -> Result<u8, Failure> {
    let setup = setup::load(common)?;
    let state_dir = setup::state_dir(common, Some(&setup.config))?;
    let wired = setup.wire_push(&state_dir).await?;
    let _alone = alone(&state_dir)?;
    let Some(source) = wired.push.clone() else { return Err(Failure::failed("there is no state to keep batches in")) };
    let builder = Receiver::builder(wired.ledger.clone(), source.clone(), setup.env.clone());
    let mut builder = guarded(builder, &setup, serve)?;
    if let Some(listener) = activated() {
        builder = builder.listener(listener);
    }
    let receiver = builder.pipeline(wired.pipeline.clone()).build().map_err(cannot_start)?;
    let address = receiver.local_addr();
    let syslog = [receiver.syslog_tcp_addr(), receiver.syslog_udp_addr()];
    let (pipeline, ledger) = (&wired.pipeline, &*wired.ledger);
    let _alive = alive::take_over(pipeline, &state_dir).await;

    let began = setup.env.now();
    say_start(&setup, &wired, &state_dir, address, syslog);
    run::say_warnings(&setup, &wired);
    let notify = Notify::from_env();
    notify.ready(&format!("listens on {address}"));

    let tally = Tally::new();
    let report = |pass: PassReport| tally.add(&pass);
    let (tell, told) = watch::channel(Stage::Running);
    let reached = |stage: Stage| {
        let mut told = told.clone();
        async move {
            // The sender lives as long as this function.
            let _ = told.wait_for(|now| *now >= stage).await;
        }
    };
    // On a thread of its own: whoever connects must not wait until a fold is done.
    let serving = tokio::spawn(receiver.serve(reached(Stage::Draining)));
    let serving = async {
        let served = serving.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        tell.send_replace(Stage::Ending);
        served
    };
    let working = async {
        let worked = pipeline.watch_pushed(0, || source.arrived(), GRACE, &report, reached(Stage::Ending)).await;
        tell.send_if_modified(|stage| std::mem::replace(stage, (*stage).max(Stage::Draining)) == Stage::Running);
        worked
    };
    let hurried = async {
        stop::asked().await;
        info!("stopping: what is under way is finished");
        notify.stopping();
        tell.send_replace(Stage::Draining);
        stop::asked().await;
    };
    let beside = async {
        let saying = tally.keep_saying(ledger, &*setup.env);
        let living = keep_telling(&notify, address, ledger, &tally);
        let looking = unit::keep_looking_at_units(&setup, pipeline);
        let measuring = disk::keep_looking(pipeline, &state_dir, setup.config.keep_free);
        tokio::join!(saying, living, looking, measuring);
    };
    let (worked, served) = tokio::select! {
        ended = async { tokio::join!(working, serving) } => ended,
        () = hurried => {
            warn!("stopped at once; what was acknowledged is on disk and goes on at the next start");
            return Ok(1);
        }
        () = beside => return Ok(1),
    };
    tally::last_words(&tally, ledger, began).await;
    if let Err(error) = wired.keep_calibration(&*setup.env).await {
        warn!(error = %logwarden_core::error::chain(&error), "what was measured about the model could not be kept");
    }
    worked.map_err(|error| cannot_go_on(&error))?;
    served.map_err(|error| Failure::failed(format!("cannot go on listening on {address}")).because(&error))?;
    info!("receiver ends; everything acknowledged is on disk");
    Ok(0)
}

/// The socket that systemd listens at for us (`StandardInput=socket`): what comes while we are away waits in it.
///
/// Not the descriptors behind `$LISTEN_FDS`: taking a descriptor by its number is not safe, taking standard input is.
fn activated() -> Option<TcpListener> {
    let input = || std::io::stdin().as_fd().try_clone_to_owned().ok();
    // Whoever is connected to somebody is no listener.
    let is_connected = Connected::from(input()?).peer_addr().is_ok();
    let listener = TcpListener::from(input()?);
    (!is_connected && listener.local_addr().is_ok()).then_some(listener)
}

/// Makes sure that no other receiver uses this state: what one has acknowledged, the other would not fold.
fn alone(state_dir: &Path) -> Result<File, Failure> {
    let path = state_dir.join(LOCK);
    let failed = |error: &dyn std::error::Error| {
        Failure::failed(format!("cannot use the state in {}", state_dir.display())).because(error)
    };
    let lock = logwarden_sqlite::lock_file(&path).map_err(|error| failed(&error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::failed(format!("another receiver uses the state in {}", state_dir.display()))
                .hint("stop that one first, or give this one a state of its own: --state-dir DIR"))
        }
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

/// Where it listens and who may send, by configuration and arguments.
pub(crate) fn guarded(mut builder: Builder, setup: &Setup, serve: &Serve) -> Result<Builder, Failure> {
    let config = &setup.config.receiver;
    builder = builder.listen(serve.listen.unwrap_or(config.listen)).limits(config.limits.clone());
    for client in &config.clients {
        builder = builder.client(client.clone());
    }
    for network in config.insecure_allow.iter().chain(&serve.insecure_allow) {
        builder = builder.insecure_allow(*network);
    }
    if let Some((chain, key)) = &config.certificate {
        for path in [chain, key] {
            readable(path)?;
        }
        builder = builder.certificate_files(chain, key);
    }
    if let Some(listen) = serve.syslog_tcp.or(config.syslog_tcp) {
        builder = builder.syslog_tcp(listen);
    }
    if let Some(listen) = serve.syslog_udp.or(config.syslog_udp) {
        builder = builder.syslog_udp(listen);
    }
    Ok(builder)
}

fn readable(path: &Path) -> Result<(), Failure> {
    File::open(path).map(drop).map_err(|error| {
        Failure::usage(format!("cannot read {}", path.display()))
            .because(&error)
            .hint("name a file that this user may read; with systemd: LoadCredential=, or a group of its own")
    })
}

fn cannot_start(error: BuildError) -> Failure {
    // An address in use may be free a moment later; whatever else is wrong stays so.
    let failure = match &error {
        BuildError::Bind { .. } => Failure::failed("the receiver cannot start").because(&error),
        _ => Failure::usage("the receiver cannot start").because(&error),
    };
    if matches!(error, BuildError::Bind { .. }) && std::env::var_os("LISTEN_FDS").is_some() {
        return failure.hint("hand the socket over as standard input: StandardInput=socket in the service");
    }
    let hint = error.hint().or_else(|| {
        let BuildError::Bind { listen, cause } = &error else { return None };
        match cause.kind() {
            ErrorKind::PermissionDenied if listen.port() < 1024 => {
                Some("choose a port above 1023, or give the unit AmbientCapabilities=CAP_NET_BIND_SERVICE".to_owned())
            }
            ErrorKind::AddrNotAvailable => Some(format!("{} is no address of this machine", listen.ip())),
            _ => None,
        }
    });
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn cannot_go_on(error: &dyn std::error::Error) -> Failure {
    Failure::failed("cannot go on").because(error).hint(format!("run `{}`", program::command("doctor")))
}

fn say_start(setup: &Setup, wired: &Wired, state_dir: &Path, address: SocketAddr, syslog: [Option<SocketAddr>; 2]) {
    let [tcp, udp] = syslog.map(|listen| listen.map_or_else(|| "-".to_owned(), |listen| listen.to_string()));
    let config = &setup.config;
    let file = setup.file.as_ref().map_or_else(|| "environment".to_owned(), |path| path.display().to_string());
    info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %file,
        state = %state_dir.display(),
        listen = %address,
        syslog_tcp = %tcp,
        syslog_udp = %udp,
        tls = config.receiver.certificate.is_some(),
        clients = config.receiver.clients.len(),
        model = run::model_name(config),
        window_seconds = config.receiver.window.as_secs(),
        channels = %run::channels(wired),
        "receiver starts"
    );
}

/// Tells the service manager that we are alive, for as long as we are: connections are accepted, the state is written and
/// read, and the stages go round. That the state is full or broken is an answer, too: a restart would not help.
async fn keep_telling(notify: &Notify, address: SocketAddr, ledger: &dyn Ledger, tally: &Tally) {
    let Some(every) = notify.watchdog() else { return };
    loop {
        match time::timeout(every / 2, is_answering(address, ledger)).await {
            Ok(Ok(())) if tally.silent() < HANGS => notify.alive(),
            Ok(Ok(())) => error!(seconds = tally.silent().as_secs(), "the stages hang; the watchdog is not told"),
            Ok(Err(error)) => error!(%error, "our own address cannot be reached; the watchdog is not told"),
            Err(_) => error!("connections or the state hang; the watchdog is not told"),
        }
        time::sleep(every).await;
    }
}

/// The address under which this machine itself reaches what listens there.
fn from_here(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}

/// What a receiver that listens there says about itself; `None` when it is none, or does not talk to us without TLS.
pub(crate) async fn asked(listen: SocketAddr) -> Option<String> {
    let asking = async {
        let mut stream = TcpStream::connect(from_here(listen)).await.ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await.ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        // Only ours says so: other programs answer with pages of their own.
        let known = ["ready", "shutting down", "the state cannot be used"];
        let body = body.trim();
        (head.starts_with("HTTP/1.1 ") && known.contains(&body)).then(|| body.to_owned())
    };
    time::timeout(Duration::from_secs(5), asking).await.ok().flatten()
}

async fn is_answering(address: SocketAddr, ledger: &dyn Ledger) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(from_here(address)).await?;
    // Nothing is said, so that it does not matter who may speak: the connection is taken, and ended.
    let _ = stream.shutdown().await;
    let _ = stream.read(&mut [0; 64]).await;
    let _ = ledger.read(&Query::default()).await;
    let id = CommitId(u128::from_le_bytes(*b"logwarden: alive"));
    let _ = ledger.commit(&Commit { id, writes: Vec::new() }).await;
    Ok(())
}
