//! Connections: accepting, TLS, timeouts, shutdown.

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use logwarden_core::error::chain;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    handler,
    receiver::{Receiver, Shared},
    syslog::{self, Chunk},
    tls::Tls,
};

/// The head of a request fits into this.
const HEAD_BYTES: usize = 32 << 10;
/// How long those who came during shutdown have to be told so.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

impl Receiver {
    /// Takes batches until `stop` resolves; requests under way are then finished and answered, and whoever comes meanwhile
    /// is told to come again.
    ///
    /// # Errors
    ///
    /// When the socket cannot be used.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send) -> std::io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let syslog_tcp = self.syslog_tcp.map(TcpListener::from_std).transpose()?;
        let syslog_udp = self.syslog_udp.map(UdpSocket::from_std).transpose()?;
        let (shared, tls, stays) = (self.shared, self.tls, self.stays);
        let (mut untold, pipeline) = (self.untold, self.pipeline);
        let telling = async move {
            while let Some(trouble) = untold.recv().await {
                let Some(pipeline) = &pipeline else { continue };
                if let Err(error) = pipeline.report_trouble(&[trouble]).await {
                    tracing::warn!(error = %chain(&error), "a trouble with a sender could not be noted");
                }
            }
        };
        let (stopped, stopping) = watch::channel(false);
        let (mut connections, mut sockets) = (JoinSet::new(), JoinSet::new());
        let (gather, chunks) = syslog::channel();
        sockets.spawn(syslog::gather(shared.clone(), chunks, stopping.clone()));
        if let Some(socket) = syslog_udp {
            sockets.spawn(syslog::listen(socket, shared.clone(), gather.clone(), stopping.clone()));
        }
        {
            let mut door = Door {
                shared: &shared,
                tls: tls.as_ref(),
                gather,
                stopping,
                room: Arc::new(Semaphore::new(shared.limits.connections)),
                peers: Arc::default(),
                connections: &mut connections,
            };
            let accepting = door.accept(&listener, syslog_tcp.as_ref());
            let watching = watch_certificate(&shared, tls.as_deref());
            tokio::pin!(stop, telling, accepting, watching);
            tokio::select! {
                biased;
                () = &mut stop => {}
                () = telling => {}
                () = accepting => {}
                () = watching => {}
            }
        }
        drop(syslog_tcp);
        shared.stopping.store(true, Ordering::Relaxed);
        let _ = stopped.send(true);
        // Whoever comes while others are finished is told to come again: a refused connection is worse. In a socket that
        // stays open they can wait.
        let mut late = JoinSet::new();
        {
            let refusing = refuse(&listener, &shared, tls.as_deref(), &stopped, &mut late);
            let drained = time::timeout(shared.limits.drain, async {
                drained(&mut connections).await;
                drained(&mut sockets).await;
            });
            tokio::select! {
                drained = drained => if drained.is_err() {
                    tracing::warn!("some requests were still under way at the end; their senders will send again");
                },
                () = refusing, if !stays => {}
            }
        }
        drop(listener);
        let _ = time::timeout(LAST_ANSWERS, drained(&mut late)).await;
        Ok(())
    }
}

async fn drained(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// Takes connections of those who come during shutdown, whose requests are answered with 503; never ends.
async fn refuse(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    tls: Option<&Tls>,
    stopped: &watch::Sender<bool>,
    late: &mut JoinSet<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = late.join_next() => continue,
        };
        let Ok((stream, peer)) = accepted else {
            time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if late.len() < shared.limits.connections_per_peer {
            let (shared, tls, stopping) = (shared.clone(), tls.map(Tls::acceptor), stopped.subscribe());
            late.spawn(async move { connection(stream, peer, &shared, tls, stopping).await });
        }
    }
}

/// Looks for a new certificate now and then; never ends.
async fn watch_certificate(shared: &Shared, tls: Option<&Tls>) {
    let Some(tls) = tls else { return std::future::pending().await };
    let mut ticks = time::interval(shared.limits.certificate_check);
    loop {
        ticks.tick().await;
        match tls.look_again() {
            Ok(true) => tracing::info!("new connections get the new certificate"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the certificate has changed, and cannot be used; the old one stays");
            }
        }
    }
}

/// What is spoken at a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    Http,
    Syslog,
}

/// Lets connections in.
struct Door<'d> {
    shared: &'d Arc<Shared>,
    tls: Option<&'d Arc<Tls>>,
    gather: mpsc::Sender<Chunk>,
    stopping: watch::Receiver<bool>,
    room: Arc<Semaphore>,
    peers: Arc<Peers>,
    connections: &'d mut JoinSet<()>,
}

impl Door<'_> {
    async fn accept(&mut self, http: &TcpListener, syslog: Option<&TcpListener>) {
        loop {
            let of_syslog = async {
                match syslog {
                    Some(syslog) => syslog.accept().await,
                    None => std::future::pending().await,
                }
            };
            let (speech, accepted) = tokio::select! {
                accepted = http.accept() => (Speech::Http, accepted),
                accepted = of_syslog => (Speech::Syslog, accepted),
                Some(_) = self.connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, peer)) => self.let_in(speech, stream, peer),
                Err(error) => {
                    // Out of file descriptors, mostly: wait for connections to end.
                    tracing::warn!(%error, "cannot accept a connection");
                    time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn let_in(&mut self, speech: Speech, stream: TcpStream, peer: SocketAddr) {
        let place = self.room.clone().try_acquire_owned().ok();
        let seat = self.peers.clone().sit(peer.ip(), self.shared.limits.connections_per_peer);
        let (Some(place), Some(seat)) = (place, seat) else {
            self.shared.metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let (shared, stopping) = (self.shared.clone(), self.stopping.clone());
        let (tls, gather) = (self.tls.map(|tls| tls.acceptor()), self.gather.clone());
        self.connections.spawn(async move {
            shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
            match speech {
                Speech::Http => {
                    drop(gather);
                    connection(stream, peer, &shared, tls, stopping).await;
                }
                Speech::Syslog => syslog_connection(stream, peer.ip(), &shared, tls, gather, stopping).await,
            }
            shared.metrics.connections.fetch_sub(1, Ordering::Relaxed);
            drop((place, seat));
        });
    }
}

/// Connections per address.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

struct Seat(Arc<Peers>, IpAddr);

impl Peers {
    fn sit(self: Arc<Self>, peer: IpAddr, most: usize) -> Option<Seat> {
        {
            let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = peers.entry(peer).or_default();
            if *count >= most {
                return None;
            }
            *count += 1;
        }
        Some(Seat(self, peer))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut peers = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.1);
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    tls: Option<TlsAcceptor>,
    stopping: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let begun = time::Instant::now();
    let first_head = shared.limits.first_head;
    let mut first = [0];
    let peeked = time::timeout(first_head, stream.peek(&mut first)).await;
    if !matches!(peeked, Ok(Ok(1))) {
        return;
    }
    match tls {
        Some(tls) if first[0] == TLS_HANDSHAKE => {
            if let Some(stream) = encrypted(stream, &tls, first_head).await {
                talk(stream, peer, shared, begun, stopping).await;
            }
        }
        _ if peer.ip().to_canonical().is_loopback() || shared.trusts(peer.ip()) => {
            talk(stream, peer, shared, begun, stopping).await;
        }
        _ => {
            shared.metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
            let sender = peer.ip().to_canonical().to_string();
            let reason = "it does not use TLS, and its network is not one that may do without";
            shared.troubles.lost("plain", &sender, reason);
        }
    }
}

/// TLS, or nothing when it does not come about in time.
async fn encrypted(stream: TcpStream, tls: &TlsAcceptor, within: Duration) -> Option<TlsStream<TcpStream>> {
    time::timeout(within, tls.accept(stream)).await.ok()?.ok()
}

async fn syslog_connection(
    stream: TcpStream,
    peer: IpAddr,
    shared: &Arc<Shared>,
    tls: Option<TlsAcceptor>,
    gather: mpsc::Sender<Chunk>,
    mut stopping: watch::Receiver<bool>,
) {
    let peer = peer.to_canonical();
    if !shared.may_send_syslog(peer) {
        shared.refuse_syslog(peer);
        return;
    }
    // It may be silent for hours; whether anybody is there, the kernel asks.
    let alive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(20));
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&alive);
    let mut first = [0];
    tokio::select! {
        peeked = stream.peek(&mut first) => if peeked.is_err() { return },
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    match tls {
        Some(tls) if first[0] == TLS_HANDSHAKE => {
            if let Some(stream) = encrypted(stream, &tls, shared.limits.first_head).await {
                syslog::read(stream, peer, gather, stopping).await;
            }
        }
        _ => syslog::read(stream, peer, gather, stopping).await,
    }
}

async fn talk<S>(
    stream: S,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    begun: time::Instant,
    mut stopping: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let shared = shared.clone();
        async move { handler::handle(&shared, peer.ip(), request).await }
    });
    let came_late = *stopping.borrow();
    let connection = http1::Builder::new()
        .keep_alive(!came_late)
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.idle)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let first = time::sleep_until(begun + shared.limits.first_head);
    tokio::pin!(first);
    let (mut waiting, mut ending) = (true, came_late);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            () = first.as_mut(), if waiting => {
                waiting = false;
                if !asked.load(Ordering::Relaxed) {
                    return;
                }
            }
            _ = stopping.wait_for(|stopping| *stopping), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
