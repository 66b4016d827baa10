//! How much the real receiver takes over loopback, with every batch on disk before it is answered, beside the floor that
//! was measured a moment before: the same bytes through HTTP and decoder without the store, and syncs of this disk.
//!
//! ```sh
//! cargo bench -p logwarden-tests --bench receiver
//! ```
//!
//! Takes about two minutes. Receiver and floor are processes of their own, started anew for each row, so that the peak
//! memory is theirs alone; the clients share the machine with them.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

use std::{
    fs::File,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::join_all;
use logwarden_config::SystemEnv;
use logwarden_core::{
    ledger::{Commit, Committed, Ledger, LedgerError, Query, Snapshot},
    templates::Zone,
};
use logwarden_push_source::{PushSource, Receiver as PushReceiver};
use logwarden_tests::receiver::{Receiver, Shipper, command, now, sha256sum};
use tempfile::TempDir;
use tokio::process::Command;

const LINES: u64 = 8500;
/// How long each row is measured.
const TIME: Duration = Duration::from_secs(8);
/// Lines per second that are wanted.
const AIM: u64 = 200_000;

/// 8,500 lines of about 212 bytes, as Fluent Bit's `json` writes them: 2.2 MB.
struct Batches {
    body: Vec<u8>,
    /// Where its number is written, so that no two are equal.
    number: usize,
    next: AtomicU64,
}

impl Batches {
    fn new() -> Arc<Self> {
        let seconds = now() as u64;
        let mut body = b"[{\"date\":".to_vec();
        write!(body, "{seconds}.0,\"host\":\"web-0\",\"log\":\"batch ").unwrap();
        let number = body.len();
        body.extend_from_slice(b"0000000000000000 begins\"}");
        for id in 1..LINES {
            write!(
                body,
                ",{{\"date\":{seconds}.{id:06},\"log\":\"2026-11-21T07:28:52.674197+09:00 web-{} nginx[{}]: 203.0.113.{} - - GET /api/items/{id} HTTP/1.1 200 {} {} request_time=0.{:03} upstream=10.0.{}.{} cache=MISS session={:032x}\"}}",
                id % 7, id % 3000, id % 250, id % 9000, id % 77, id % 1000, id % 255, id % 253, id * 7919
            )
            .unwrap();
        }
        body.push(b']');
        Arc::new(Self { body, number, next: AtomicU64::new(0) })
    }

    fn next(&self, body: &mut Vec<u8>) {
        let number = format!("{:016}", self.next.fetch_add(1, Ordering::Relaxed));
        body.clone_from(&self.body);
        body[self.number..self.number + 16].copy_from_slice(number.as_bytes());
    }
}

#[derive(Default)]
struct Measured {
    times: Vec<Duration>,
    refused: u64,
    seconds: f64,
}

/// One client: its connection, and how its batches fared.
struct Client {
    address: SocketAddr,
    token: &'static str,
    connection: Option<Shipper>,
    times: Vec<Duration>,
    refused: u64,
}

impl Client {
    fn new(address: SocketAddr, token: &'static str) -> Self {
        Self { address, token, connection: None, times: Vec::new(), refused: 0 }
    }

    /// Sends a batch, once; its time counts from when it was due.
    async fn send(&mut self, body: &[u8], due: Instant) {
        if self.connection.is_none() {
            self.connection = Shipper::connect(self.address).await.ok();
        }
        let headers = format!("Authorization: Bearer {}\r\n", self.token);
        let answer = match &mut self.connection {
            Some(connection) => connection.ask("POST", "/receive_logs", &headers, body).await,
            None => Err(std::io::ErrorKind::ConnectionRefused.into()),
        };
        match answer {
            Ok(answer) if answer.is_success() => return self.times.push(due.elapsed()),
            Ok(_) => {}
            Err(_) => self.connection = None,
        }
        self.refused += 1;
    }
}

impl Measured {
    fn of(clients: Vec<Client>, begun: Instant) -> Self {
        let refused = clients.iter().map(|client| client.refused).sum();
        let times = clients.into_iter().flat_map(|client| client.times).collect();
        Self { times, refused, seconds: begun.elapsed().as_secs_f64() }
    }

    fn row(mut self, name: &str, body: usize, receiver: &Receiver) {
        self.times.sort();
        let at =
            |part: usize| self.times.get(self.times.len() * part / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let lines = (self.times.len() as u64 * LINES) as f64 / self.seconds;
        let processor = receiver.processor_time().as_secs_f64() * 1e6 / (self.times.len() as u64 * LINES).max(1) as f64;
        println!(
            "{name:<34} {lines:>9.0} lines/s {:>6.1} MB/s  p50 {:>7.1} ms  p99 {:>7.1} ms  refused {:>5}  peak {:>4} MiB  {processor:>5.2} µs of processor per line",
            (self.times.len() * body) as f64 / self.seconds / 1e6,
            at(50),
            at(99),
            self.refused,
            receiver.peak_memory() >> 20,
        );
    }
}

/// As many clients, each sending the next batch as soon as the last one was answered.
async fn closed(receiver: &Receiver, batches: &Arc<Batches>, clients: usize, time: Duration) -> Measured {
    let (address, begun) = (receiver.address(), Instant::now());
    let tasks = (0..clients).map(|_| {
        let (batches, mut client) = (batches.clone(), Client::new(address, "crowd"));
        tokio::spawn(async move {
            let mut body = Vec::new();
            while begun.elapsed() < time {
                batches.next(&mut body);
                client.send(&body, Instant::now()).await;
                if client.connection.is_none() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            client
        })
    });
    let clients = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    Measured::of(clients, begun)
}

/// Batches at a steady pace; a time counts from when the batch was due.
async fn paced(receiver: &Receiver, batches: &Arc<Batches>, lines_per_second: u64, time: Duration) -> Measured {
    let every = Duration::from_secs_f64(LINES as f64 / lines_per_second as f64);
    let (address, begun) = (receiver.address(), Instant::now());
    let clients = 8;
    let tasks = (0..clients).map(|number| {
        let (batches, mut client) = (batches.clone(), Client::new(address, "crowd"));
        tokio::spawn(async move {
            let (mut body, mut due) = (Vec::new(), begun + every * number);
            while due < begun + time {
                batches.next(&mut body);
                tokio::time::sleep_until(due.into()).await;
                client.send(&body, due).await;
                due += every * clients;
            }
            client
        })
    });
    let clients = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    Measured::of(clients, begun)
}

/// `serve` with two clients, so that one of them can be good.
async fn start(directory: &Path) -> Receiver {
    let client = |name: &str| {
        let hash = sha256sum(name);
        format!("[[receiver.clients]]\nname = \"{name}\"\ntoken_sha256 = \"{hash}\"\n")
    };
    std::fs::write(directory.join("logwarden.toml"), client("crowd") + &client("good")).unwrap();
    let mut command = match std::env::var_os("LOGWARDEN_RECEIVER") {
        Some(program) => {
            let mut command = Command::new(program);
            command.env_clear().current_dir(directory).arg("--state-dir").arg(directory.join("state"));
            command.args(["serve", "--listen", "127.0.0.1:0"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
            command
        }
        None => command(directory, &["serve", "--listen", "127.0.0.1:0"]),
    };
    command.env("MODEL_ENABLED", "false");
    Receiver::spawn(command).await.unwrap()
}

async fn floor() -> Receiver {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("FLOOR", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    Receiver::spawn(command).await.unwrap()
}

/// A receiver that keeps nothing.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Ledger for Nothing {
    async fn read(&self, _: &Query) -> Result<Snapshot, LedgerError> {
        Ok(Snapshot::default())
    }

    async fn commit(&self, _: &Commit) -> Result<Committed, LedgerError> {
        Ok(Committed::Done)
    }
}

async fn serve_nothing() {
    let ledger = Arc::new(Nothing);
    let source = Arc::new(PushSource::new(ledger.clone(), Vec::new(), Zone::UTC));
    let receiver = PushReceiver::builder(ledger, source, Arc::new(SystemEnv)).listen(([127, 0, 0, 1], 0).into());
    let receiver = receiver.build().unwrap();
    eprintln!("listen={} ", receiver.local_addr());
    receiver.serve(std::future::pending()).await.unwrap();
}

/// Writes of 4 KiB that are on disk, per second.
fn syncs(directory: &Path) -> f64 {
    let file = File::create(directory.join("syncs")).unwrap();
    let (begun, mut count) = (Instant::now(), 0_u64);
    while begun.elapsed() < Duration::from_secs(2) {
        file.write_all_at(&[7; 4096], count % 1024 * 4096).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

async fn counter(receiver: &Receiver, name: &str) -> u64 {
    let mut shipper = Shipper::connect(receiver.address()).await.unwrap();
    let page = shipper.ask("GET", "/metrics", "Authorization: Bearer good\r\n", b"").await.unwrap().body;
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

/// How fast what waits is folded once nothing more comes, for as long as it takes, a while at most.
async fn folded(receiver: &Receiver) {
    let (begun, before) = (Instant::now(), counter(receiver, "logwarden_lines_read_total").await);
    let (waiting, busy) = (counter(receiver, "logwarden_push_spool_rows").await, receiver.processor_time());
    while counter(receiver, "logwarden_push_spool_rows").await > 0 && begun.elapsed() < 2 * TIME {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lines = counter(receiver, "logwarden_lines_read_total").await - before;
    let busy = (receiver.processor_time() - busy).as_secs_f64() * 1e6 / lines.max(1) as f64;
    println!(
        "{:<34} {waiting} batches waited; folded afterwards: {lines} lines, {:.0} lines/s, {busy:.2} µs of processor per line; peak {} MiB",
        "",
        lines as f64 / begun.elapsed().as_secs_f64(),
        receiver.peak_memory() >> 20
    );
}

/// Ten times more than it can take: many clients that never wait, beside one that sends little and must be served.
async fn overload(batches: &Arc<Batches>) {
    let directory = TempDir::new().unwrap();
    let receiver = start(directory.path()).await;
    let good = async {
        let (mut client, begun) = (Client::new(receiver.address(), "good"), Instant::now());
        while begun.elapsed() < TIME {
            let body = logwarden_tests::receiver::records(now(), ["app: nightly report of the good client"; 100]);
            client.send(&body, Instant::now()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        (client.times, client.refused)
    };
    let (bad, (mut good, refused)) = tokio::join!(closed(&receiver, batches, 200, TIME), good);
    let acknowledged = bad.times.len() as u64 * LINES + good.len() as u64 * 100;
    good.sort();
    let body = batches.body.len();
    bad.row("overload: 200 clients", body, &receiver);
    println!(
        "{:<34} {} of {} served   p50 {:.1} ms   worst {:.1} ms",
        "  one good client beside them",
        good.len(),
        good.len() as u64 + refused,
        good.get(good.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3),
        good.last().map_or(0.0, |time| time.as_secs_f64() * 1e3),
    );
    let stored = counter(&receiver, "logwarden_push_lines_total").await;
    println!("{:<34} {acknowledged} lines acknowledged, {stored} stored", "  ");
    folded(&receiver).await;
    assert!(stored >= acknowledged, "acknowledged lines are missing");
}

#[tokio::main]
async fn main() {
    if std::env::var_os("FLOOR").is_some() {
        return serve_nothing().await;
    }
    let (batches, directory) = (Batches::new(), TempDir::new().unwrap());
    let body = batches.body.len();
    println!(
        "{} cores, batches of {LINES} lines and {:.2} MB; this disk syncs {:.0} writes of 4 KiB/s",
        std::thread::available_parallelism().unwrap(),
        body as f64 / 1e6,
        syncs(directory.path())
    );
    for clients in [1, 8, 64] {
        let floor = floor().await;
        closed(&floor, &batches, clients, TIME).await.row(&format!("floor, no store: {clients} clients"), body, &floor);
        let directory = TempDir::new().unwrap();
        let receiver = start(directory.path()).await;
        closed(&receiver, &batches, clients, TIME).await.row(&format!("on disk: {clients} clients"), body, &receiver);
        folded(&receiver).await;
    }
    let directory = TempDir::new().unwrap();
    let receiver = start(directory.path()).await;
    paced(&receiver, &batches, AIM / 2, TIME).await.row("on disk: 100,000 lines/s, paced", body, &receiver);
    drop(receiver);
    overload(&batches).await;
}
