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
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    handler,
    receiver::{Receiver, Shared},
};

/// The head of a request fits into this.
const HEAD_BYTES: usize = 64 << 10;
/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

impl Receiver {
    /// Takes batches until `stop` resolves; requests under way are then finished and answered.
    ///
    /// # Errors
    ///
    /// When the socket cannot be used.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send) -> std::io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let (shared, tls) = (self.shared, self.tls);
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
        let mut connections = JoinSet::new();
        {
            let accepting = accept(&listener, &shared, tls.as_ref(), &mut connections, &stopping);
            tokio::pin!(stop, telling, accepting);
            tokio::select! {
                biased;
                () = &mut stop => {}
                () = telling => {}
                () = accepting => {}
            }
        }
        drop(listener);
        shared.stopping.store(true, Ordering::Relaxed);
        let _ = stopped.send(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if time::timeout(shared.limits.drain, drained).await.is_err() {
            tracing::warn!("some requests were still under way at the end; their senders will send again");
        }
        Ok(())
    }
}

async fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    tls: Option<&TlsAcceptor>,
    connections: &mut JoinSet<()>,
    stopping: &watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(shared.limits.connections));
    let peers = Arc::new(Peers::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: wait for connections to end.
                tracing::warn!(%error, "cannot accept a connection");
                time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = room.clone().try_acquire_owned().ok();
        let seat = peers.clone().sit(peer.ip(), shared.limits.connections_per_peer);
        let (Some(place), Some(seat)) = (place, seat) else {
            shared.metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let (shared, tls, stopping) = (shared.clone(), tls.cloned(), stopping.clone());
        connections.spawn(async move {
            shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
            connection(stream, peer, &shared, tls, stopping).await;
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
            if let Ok(Ok(stream)) = time::timeout(first_head, tls.accept(stream)).await {
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
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.idle)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let first = time::sleep_until(begun + shared.limits.first_head);
    tokio::pin!(first);
    let (mut waiting, mut ending) = (true, false);
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
