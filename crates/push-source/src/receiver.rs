//! The receiver put together: where it listens, who may send, how much.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use logwarden_core::{env::Env, ledger::Ledger, pipeline::Pipeline};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    PushSource,
    access::{Client, Network},
    error::BuildError,
    memory::Memory,
    metrics::Metrics,
    rate::{Rate, Rates},
    streams::Streams,
    tls::{self, Tls},
    troubles::Troubles,
};

/// Bodies that are decoded at a time: each needs a few mebibytes, and this many keep a disk busy.
const MOST_DECODERS: usize = 4;

/// Bounds of the receiver.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a body as it is sent.
    pub body_bytes: usize,
    /// Bytes of a body once unpacked: six times the shipper's longest record and more.
    pub decoded_bytes: usize,
    /// Records of a request.
    pub records: u64,
    /// Bytes of all bodies that are being received or decoded. One client can hold a quarter of it.
    pub in_flight_bytes: usize,
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address.
    pub connections_per_peer: usize,
    /// What one client may send per second.
    pub rate: Rate,
    /// How long a connection may take to begin: TLS and the first head.
    pub first_head: Duration,
    /// How long a connection may be silent between requests.
    pub idle: Duration,
    /// How long a body may stand still.
    pub body_idle: Duration,
    /// How long a body may take whatever its size.
    pub body_grace: Duration,
    /// Bytes per second that a body must then have had on average.
    pub slowest_rate: u64,
    /// How long a request waits for memory before it is told to come again.
    pub patience: Duration,
    /// How long somebody without a credential waits for the answer, so that guessing one takes long. Nobody is locked out.
    pub refusal: Duration,
    /// How often the files of the certificate are looked at.
    pub certificate_check: Duration,
    /// How long requests may take to end at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 20,
            decoded_bytes: 64 << 20,
            records: 2_000_000,
            in_flight_bytes: 32 << 20,
            connections: 1024,
            connections_per_peer: 256,
            rate: Rate::default(),
            first_head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body_idle: Duration::from_secs(15),
            body_grace: Duration::from_secs(10),
            slowest_rate: 16 << 10,
            patience: Duration::from_secs(4),
            refusal: Duration::from_millis(500),
            certificate_check: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// Collects the parts of a [`Receiver`].
#[derive(Debug)]
pub struct Builder {
    ledger: Arc<dyn Ledger>,
    source: Arc<PushSource>,
    env: Arc<dyn Env>,
    listen: SocketAddr,
    listener: Option<TcpListener>,
    clients: Vec<Client>,
    trusted: Vec<Network>,
    certificate: Option<tls::Origin>,
    syslog_tcp: Option<SocketAddr>,
    syslog_udp: Option<SocketAddr>,
    limits: Limits,
    pipeline: Option<Arc<Pipeline>>,
}

impl Builder {
    /// Where to listen; default: `127.0.0.1:5000`.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// A socket that is open already and stays open when the receiver ends (socket activation), so that nobody need be
    /// refused at the end. Which address it has, decides what it needs.
    #[must_use]
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Adds a client. When there is one, everybody must say who they are.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.clients.push(client);
        self
    }

    /// Lets a network send without TLS and without saying who sends.
    #[must_use]
    pub fn insecure_allow(mut self, network: Network) -> Self {
        self.trusted.push(network);
        self
    }

    /// The certificate chain and its key, as PEM.
    #[must_use]
    pub fn certificate(mut self, chain: Vec<u8>, key: Vec<u8>) -> Self {
        self.certificate = Some(tls::Origin::Given(chain, key));
        self
    }

    /// Files of the certificate chain and its key, as PEM. When they change, new connections get the new certificate.
    #[must_use]
    pub fn certificate_files(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.certificate = Some(tls::Origin::Files(chain.into(), key.into()));
        self
    }

    /// Takes syslog over TCP there, with or without TLS. Off this host only from the networks of
    /// [`insecure_allow`](Self::insecure_allow).
    #[must_use]
    pub fn syslog_tcp(mut self, address: SocketAddr) -> Self {
        self.syslog_tcp = Some(address);
        self
    }

    /// Takes syslog over UDP there. Off this host only from the networks of [`insecure_allow`](Self::insecure_allow).
    #[must_use]
    pub fn syslog_udp(mut self, address: SocketAddr) -> Self {
        self.syslog_udp = Some(address);
        self
    }

    /// Bounds.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where troubles are told: unreadable input, refused senders.
    #[must_use]
    pub fn pipeline(mut self, pipeline: Arc<Pipeline>) -> Self {
        self.pipeline = Some(pipeline);
        self
    }

    /// Checks everything and opens the socket.
    ///
    /// # Errors
    ///
    /// When it would be open to everybody, or cannot be used.
    pub fn build(self) -> Result<Receiver, BuildError> {
        for (number, client) in self.clients.iter().enumerate() {
            let name = client.name().to_owned();
            if !client.has_credential() {
                return Err(BuildError::NoCredential { name });
            }
            if self.clients.iter().take(number).any(|other| other.name() == client.name()) {
                return Err(BuildError::Twice { name });
            }
        }
        let listen = self.listener.as_ref().and_then(|listener| listener.local_addr().ok()).unwrap_or(self.listen);
        let guarded = !self.clients.is_empty() && self.certificate.is_some();
        if !listen.ip().is_loopback() && !guarded && self.trusted.is_empty() {
            return Err(BuildError::Exposed { listen });
        }
        for listen in self.syslog_tcp.into_iter().chain(self.syslog_udp) {
            if !listen.ip().is_loopback() && self.trusted.is_empty() {
                return Err(BuildError::SyslogExposed { listen });
            }
        }
        let stays = self.listener.is_some();
        let tls = self.certificate.map(Tls::new).transpose()?;
        let at = |listen| move |cause| BuildError::Bind { listen, cause };
        let bind = at(listen);
        let syslog_tcp = self.syslog_tcp.map(|listen| tcp(listen).map_err(at(listen))).transpose()?;
        let syslog_udp = self.syslog_udp.map(|listen| udp(listen).map_err(at(listen))).transpose()?;
        let listener = match self.listener {
            Some(listener) => listener,
            None => tcp(listen).map_err(bind)?,
        };
        listener.set_nonblocking(true).map_err(bind)?;
        let local = listener.local_addr().map_err(bind)?;
        let (told, untold) = mpsc::channel(64);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Shared {
            ledger: self.ledger,
            source: self.source,
            env: self.env,
            clients: self.clients,
            trusted: self.trusted,
            memory: Memory::new(self.limits.in_flight_bytes),
            decoders: Arc::new(Semaphore::new(cores.min(MOST_DECODERS))),
            streams: Streams::new(MOST_DECODERS),
            large: Arc::default(),
            large_arriving: Arc::default(),
            rates: Rates::new(self.limits.rate),
            limits: self.limits,
            metrics: Metrics::default(),
            troubles: Troubles::new(told),
            stopping: AtomicBool::new(false),
            unusable: AtomicBool::new(false),
        };
        Ok(Receiver {
            shared: Arc::new(shared),
            listener,
            stays,
            local,
            syslog_tcp,
            syslog_udp,
            tls: tls.map(Arc::new),
            pipeline: self.pipeline,
            untold,
        })
    }
}

fn tcp(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Bursts of datagrams wait in the socket; the kernel gives as much room as it may.
fn udp(listen: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(listen)?;
    socket.set_nonblocking(true)?;
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    Ok(socket)
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) source: Arc<PushSource>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) clients: Vec<Client>,
    pub(crate) trusted: Vec<Network>,
    pub(crate) limits: Limits,
    pub(crate) memory: Memory,
    /// Small bodies that are decoded at a time.
    pub(crate) decoders: Arc<Semaphore>,
    /// Larger ones, which are decoded while they arrive.
    pub(crate) streams: Streams,
    /// Who holds it may hold much in memory: a very long record, say.
    pub(crate) large: Arc<tokio::sync::Mutex<()>>,
    /// The same for bodies that still arrive.
    pub(crate) large_arriving: Arc<tokio::sync::Mutex<()>>,
    pub(crate) rates: Rates,
    pub(crate) metrics: Metrics,
    pub(crate) troubles: Troubles,
    pub(crate) stopping: AtomicBool,
    /// The last batch could not be stored, and not for want of room.
    pub(crate) unusable: AtomicBool,
}

impl Shared {
    /// Counts what there was no room to tell.
    pub(crate) fn tell(&self, told: bool) {
        if !told {
            self.metrics.troubles_untold.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether an address may send syslog, which has no way to say who sends it.
    pub(crate) fn may_send_syslog(&self, peer: IpAddr) -> bool {
        peer.to_canonical().is_loopback() || self.trusts(peer)
    }

    /// Counts and tells that somebody may not send syslog.
    pub(crate) fn refuse_syslog(&self, peer: IpAddr) {
        self.metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
        let reason = "it sends syslog, and its network is not one that may (`insecure_allow`)";
        self.tell(self.troubles.lost("syslog", &peer.to_canonical().to_string(), reason));
    }

    /// Whether an address may send without saying who it is.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
            || (self.clients.is_empty() && peer.to_canonical().is_loopback())
    }
}

/// Takes pushed batches over HTTP and spools them.
pub struct Receiver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) listener: TcpListener,
    /// Whether somebody else keeps the listener open.
    pub(crate) stays: bool,
    local: SocketAddr,
    pub(crate) syslog_tcp: Option<TcpListener>,
    pub(crate) syslog_udp: Option<UdpSocket>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) pipeline: Option<Arc<Pipeline>>,
    pub(crate) untold: mpsc::Receiver<logwarden_core::pipeline::Trouble>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Begins to put a receiver together: batches go into the spool of `ledger`, from which `source` reads them.
    pub fn builder(ledger: Arc<dyn Ledger>, source: Arc<PushSource>, env: Arc<dyn Env>) -> Builder {
        Builder {
            ledger,
            source,
            env,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000),
            listener: None,
            clients: Vec::new(),
            trusted: Vec::new(),
            certificate: None,
            syslog_tcp: None,
            syslog_udp: None,
            limits: Limits::default(),
            pipeline: None,
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where it takes syslog over TCP.
    pub fn syslog_tcp_addr(&self) -> Option<SocketAddr> {
        self.syslog_tcp.as_ref()?.local_addr().ok()
    }

    /// Where it takes syslog over UDP.
    pub fn syslog_udp_addr(&self) -> Option<SocketAddr> {
        self.syslog_udp.as_ref()?.local_addr().ok()
    }
}
