//! Syslog over TCP and UDP (RFC 3164, 5424, 6587).
//!
//! A message is a line as it was sent, priority and all: what it says about itself is read where all lines are read, as in
//! `/var/log/syslog`. Some senders put JSON there, which is a record. Nobody waits for an answer, so lines are committed
//! after a moment, and what arrives meanwhile waits in the sockets; of what the kernel had to drop it keeps count.

use std::{
    fs, io,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use logwarden_core::ledger::{BatchId, Write};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::UdpSocket,
    sync::{mpsc, watch},
    time,
};

use crate::{
    batch::{Bounds, Part},
    decode,
    frames::{Frames, MAX_FRAME},
    json,
    receiver::Shared,
    record::{self, Context},
    sent::Sent,
    store::{self, Refused},
    value::Value,
};

/// Messages of one sender, in order.
#[derive(Debug)]
pub(crate) struct Chunk {
    peer: IpAddr,
    messages: Vec<Vec<u8>>,
    cut: u64,
}

/// Chunks that wait to be gathered.
const CHUNKS: usize = 16;
/// Lines are collected for so long before they are committed.
const COLLECT: Duration = Duration::from_millis(200);
/// So many bytes do not wait for more.
const ENOUGH: usize = 1 << 20;
/// What a connection may still bring once we stop.
const LAST_READ: usize = 1 << 20;
/// Once we stop, a connection that is silent for so long has brought everything.
const SILENCE: Duration = Duration::from_millis(50);
/// What is read at once.
const READ: usize = 16 << 10;
/// How long to wait before lines that could not be stored are tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where sockets hand over what they read.
pub(crate) fn channel() -> (mpsc::Sender<Chunk>, mpsc::Receiver<Chunk>) {
    mpsc::channel(CHUNKS)
}

/// Reads a connection until it ends, or we do.
pub(crate) async fn read(
    mut stream: impl AsyncRead + Unpin,
    peer: IpAddr,
    gather: mpsc::Sender<Chunk>,
    mut stopping: watch::Receiver<bool>,
) {
    let (mut frames, mut buffer) = (Frames::default(), Vec::new());
    let mut left = LAST_READ;
    loop {
        buffer.clear();
        buffer.reserve_exact(READ);
        let is_stopping = *stopping.borrow();
        let read = match is_stopping {
            // What has arrived is read before we stop; nobody says that there is no more.
            true => time::timeout(SILENCE, stream.read_buf(&mut buffer)).await.map_or(0, |read| read.unwrap_or(0)),
            false => tokio::select! {
                read = stream.read_buf(&mut buffer) => read.unwrap_or(0),
                _ = stopping.wait_for(|stopping| *stopping) => continue,
            },
        };
        if is_stopping {
            left = left.saturating_sub(read);
        }
        let read = if left == 0 { 0 } else { read };
        let mut messages = Vec::new();
        frames.push(&buffer, &mut messages);
        if read == 0 {
            messages.extend(frames.finish());
        }
        let cut = std::mem::take(&mut frames.cut);
        if !messages.is_empty() && gather.send(Chunk { peer, messages, cut }).await.is_err() {
            return;
        }
        if read == 0 {
            return;
        }
        // A connection that is silent for long holds no memory.
        if read < READ / 4 {
            buffer = Vec::new();
        }
    }
}

/// Reads datagrams: one message each.
pub(crate) async fn listen(
    socket: UdpSocket,
    shared: Arc<Shared>,
    gather: mpsc::Sender<Chunk>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    let port = socket.local_addr().map_or(0, |address| address.port());
    let mut dropped = dropped_by_kernel(port);
    let mut look = time::interval(Duration::from_secs(5));
    loop {
        let received = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => break,
            _ = look.tick() => {
                let now = dropped_by_kernel(port);
                tell_dropped(&shared, now.saturating_sub(dropped));
                dropped = now;
                continue;
            }
            received = socket.recv_from(&mut buffer) => received,
        };
        if !take(received, &socket, &mut buffer, &shared, &gather).await {
            return;
        }
    }
    // What has arrived is read before we stop.
    if let Ok(received) = time::timeout(SILENCE, socket.recv_from(&mut buffer)).await {
        take(received, &socket, &mut buffer, &shared, &gather).await;
    }
    tell_dropped(&shared, dropped_by_kernel(port).saturating_sub(dropped));
}

/// Hands over a datagram and those that wait behind it.
async fn take(
    mut received: io::Result<(usize, std::net::SocketAddr)>,
    socket: &UdpSocket,
    buffer: &mut [u8],
    shared: &Shared,
    gather: &mpsc::Sender<Chunk>,
) -> bool {
    let mut chunk: Option<Chunk> = None;
    let mut bytes = 0;
    while let Ok((length, peer)) = received {
        let peer = peer.ip().to_canonical();
        if !shared.may_send_syslog(peer) {
            shared.refuse_syslog(peer);
        } else {
            if let Some(other) = chunk.take_if(|chunk| chunk.peer != peer || bytes > READ) {
                bytes = 0;
                if gather.send(other).await.is_err() {
                    return false;
                }
            }
            let message = &buffer[..length.min(MAX_FRAME)];
            let end = message.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0)).map_or(0, |last| last + 1);
            let message = &message[..end];
            if !message.is_empty() {
                bytes += message.len();
                let chunk = chunk.get_or_insert_with(|| Chunk { peer, messages: Vec::new(), cut: 0 });
                chunk.messages.push(message.to_vec());
            }
        }
        received = socket.try_recv_from(buffer);
    }
    match chunk {
        Some(chunk) => gather.send(chunk).await.is_ok(),
        None => true,
    }
}

fn tell_dropped(shared: &Shared, dropped: u64) {
    if dropped == 0 {
        return;
    }
    shared.metrics.syslog_dropped.fetch_add(dropped, Ordering::Relaxed);
    tracing::warn!(dropped, "datagrams of syslog came faster than they could be read, and are lost");
    let reason =
        format!("{dropped} datagrams came faster than they could be read, and are lost; syslog over TCP loses none");
    shared.tell(shared.troubles.lost("udp", "syslog over UDP", &reason));
}

/// How many datagrams the kernel has dropped at a port, where it says so (Linux: the last column of these files).
fn dropped_by_kernel(port: u16) -> u64 {
    let files = ["/proc/net/udp", "/proc/net/udp6"];
    let text: String = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    let of_port = |line: &&str| {
        let local = line.split_whitespace().nth(1).and_then(|address| address.rsplit(':').next());
        local.and_then(|port| u16::from_str_radix(port, 16).ok()) == Some(port)
    };
    text.lines().filter(of_port).filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum()
}

/// Commits what the sockets hand over, until they all have ended. What cannot be stored is tried again, and the sockets
/// wait; at the end it is tried until `drain` is over.
pub(crate) async fn gather(
    shared: Arc<Shared>,
    mut chunks: mpsc::Receiver<Chunk>,
    mut stopping: watch::Receiver<bool>,
) {
    while let Some(first) = chunks.recv().await {
        let mut bytes = size(&first);
        let mut gathered = vec![first];
        let collecting = async {
            while bytes < ENOUGH {
                let Some(chunk) = chunks.recv().await else { return };
                bytes += size(&chunk);
                gathered.push(chunk);
            }
        };
        let _ = time::timeout(COLLECT, collecting).await;
        for (part, cut) in parts(&shared, gathered) {
            let lines = part.lines;
            tokio::select! {
                biased;
                () = commit(&shared, part, cut) => {
                    shared.metrics.syslog_lines.fetch_add(lines, Ordering::Relaxed);
                }
                () = given_up(&shared, &mut stopping) => {
                    shared.metrics.syslog_dropped.fetch_add(lines, Ordering::Relaxed);
                    tracing::error!(lines, "lines of syslog could not be stored before the end, and are lost");
                }
            }
        }
    }
}

fn size(chunk: &Chunk) -> usize {
    chunk.messages.iter().map(|message| message.len() + 32).sum()
}

async fn given_up(shared: &Shared, stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
    time::sleep(shared.limits.drain / 2).await;
}

async fn commit(shared: &Shared, part: Part, cut: u64) {
    loop {
        let count = (cut > 0).then(|| Write::Count("push_lines_cut".to_owned(), cut));
        let refused =
            match store::commit(shared, Some(part.clone()), shared.env.now(), count.into_iter().collect()).await {
                Ok(_) => return,
                Err(refused) => refused,
            };
        if refused == Refused::Full {
            let reason = "there is no room for its lines; they wait, and those over UDP get lost";
            shared.tell(shared.troubles.lost("full", "syslog", reason));
        }
        time::sleep(AGAIN).await;
    }
}

/// The lines as parts to store, and how many of them were cut.
fn parts(shared: &Shared, chunks: Vec<Chunk>) -> Vec<(Part, u64)> {
    let mut parts = Vec::new();
    let bounds = Bounds { records: u64::MAX, received: shared.env.now() };
    let take = |part| {
        parts.push(part);
        true
    };
    let mut batch = Sent::records("syslog").batch(bounds, Box::new(take));
    let mut cut = 0;
    for chunk in chunks {
        cut += chunk.cut;
        let context = context(chunk.peer);
        for message in &chunk.messages {
            add(message, &context, &mut batch);
        }
    }
    let last = batch.finish();
    cut += batch.cut;
    drop(batch);
    parts.extend(last);
    // Nobody sends these again, and equal ones are told apart by nothing: each is a part of its own.
    let name = || u128::from(shared.env.random()) << 64 | u128::from(shared.env.random());
    let named = parts.into_iter().map(|part| Part { id: Some(BatchId(name())), ..part });
    named.enumerate().map(|(number, part)| (part, if number == 0 { cut } else { 0 })).collect()
}

fn context(peer: IpAddr) -> Context {
    let mut context = Context::default();
    let labels = [("client", peer.to_string()), ("protocol", "syslog".to_owned())];
    context.labels.extend(labels.map(|(name, value)| (name.to_owned(), value)));
    context
}

fn add(message: &[u8], context: &Context, batch: &mut crate::batch::Batch<'_>) {
    if message.first() == Some(&b'{')
        && let Some(value @ Value::Map(_)) = json::value(message)
    {
        record::take(value, None, None, context, batch);
    } else {
        decode::line(message, context, batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_what_it_drops() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(dropped_by_kernel(address.port()), 0);
        // More than a socket's buffer, of which nothing is read.
        for _ in 0..2000 {
            sender.send_to(&[b'x'; 8000], address).unwrap();
        }
        if std::path::Path::new("/proc/net/udp").exists() {
            assert!(dropped_by_kernel(address.port()) > 0);
        }
    }
}
