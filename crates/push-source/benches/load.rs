//! Pushes batches of 2 MB over loopback and prints lines per second, latencies and peak memory for 1, 8 and 64 clients.
//!
//! The ledger keeps nothing: this is the floor on which a store is built, HTTP and decoding alone.
//!
//! ```sh
//! cargo bench -p logwarden-push-source --bench load
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use logwarden_core::{
    Timestamp,
    env::Env,
    ledger::{Commit, Committed, Ledger, LedgerError, Query, Snapshot},
    templates::Zone,
};
use logwarden_push_source::{Limits, PushSource, Receiver};

const LINES: usize = 8500;
const BATCHES: usize = 256;

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

#[derive(Debug)]
struct Clock;

#[async_trait]
impl Env for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64)
    }

    async fn sleep_until(&self, time: Timestamp) {
        tokio::time::sleep(time.since(self.now())).await;
    }

    fn random(&self) -> u64 {
        self.now().nanos() as u64
    }
}

/// 8,500 lines of about 212 bytes, as Fluent Bit's `json` writes them.
fn batch(seed: usize) -> Vec<u8> {
    let now = Clock.now().secs();
    let mut body = Vec::with_capacity(2_200_000);
    body.push(b'[');
    for number in 0..LINES {
        if number > 0 {
            body.push(b',');
        }
        let id = seed * LINES + number;
        write!(
            body,
            "{{\"date\":{now}.{:06},\"log\":\"2026-11-21T07:28:52.674197+09:00 web-{} nginx[{}]: 203.0.113.{} - - GET /api/items/{id} HTTP/1.1 200 {} {} request_time=0.{:03} upstream=10.0.{}.{} cache=MISS session={:032x}\"}}",
            number, seed % 7, id % 3000, id % 250, id % 9000, id % 77, id % 1000, id % 255, id % 253, id * 7919
        )
        .unwrap();
    }
    body.push(b']');
    body
}

fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

async fn round(url: &str, clients: usize, gzip: bool, bodies: &[Arc<Vec<u8>>]) {
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let (url, bodies) = (url.to_owned(), bodies.to_vec());
        tasks.spawn(async move {
            let http = reqwest::Client::new();
            let mut times = Vec::new();
            for number in 0..BATCHES / clients {
                let body = bodies[(client + number) % bodies.len()].as_ref().clone();
                let mut request = http.post(&url).body(body);
                if gzip {
                    request = request.header("content-encoding", "gzip");
                }
                let begun = Instant::now();
                let status = request.send().await.unwrap().status();
                assert!(status.is_success(), "{status}");
                times.push(begun.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    times.sort();
    let (seconds, batches) = (begun.elapsed().as_secs_f64(), times.len());
    println!(
        "{clients:>3} clients {:>5}: {:>9.0} lines/s {:>6.1} MB/s  p50 {:>6.1} ms  p99 {:>6.1} ms  peak {} MiB",
        if gzip { "gzip" } else { "plain" },
        (batches * LINES) as f64 / seconds,
        (batches * bodies[0].len()) as f64 / seconds / 1e6,
        times[batches / 2].as_secs_f64() * 1e3,
        times[batches * 99 / 100].as_secs_f64() * 1e3,
        peak_memory_mib(),
    );
}

fn main() {
    let plain: Vec<_> = (0..4).map(|seed| Arc::new(batch(seed))).collect();
    let gzip = plain.iter().map(|body| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(body).unwrap();
        Arc::new(out.finish().unwrap())
    });
    let gzip: Vec<_> = gzip.collect();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let ledger = Arc::new(Nothing);
        let source = Arc::new(PushSource::new(ledger.clone(), Vec::new(), Zone::UTC));
        let receiver = Receiver::builder(ledger, source, Arc::new(Clock))
            .listen("127.0.0.1:0".parse().unwrap())
            .limits(Limits { patience: Duration::from_secs(30), ..Limits::default() })
            .build()
            .unwrap();
        let url = format!("http://{}/receive_logs", receiver.local_addr());
        let serving = tokio::spawn(receiver.serve(std::future::pending()));
        println!(
            "batches of {LINES} lines, {:.2} MB plain, {:.2} MB gzip; client and server in one process",
            plain[0].len() as f64 / 1e6,
            gzip[0].len() as f64 / 1e6
        );
        for clients in [1, 8, 64] {
            round(&url, clients, false, &plain).await;
            round(&url, clients, true, &gzip).await;
        }
        serving.abort();
    });
}
