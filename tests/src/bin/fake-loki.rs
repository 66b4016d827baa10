//! A fake Loki to try logwarden with: `fake-loki --listen 127.0.0.1:3100 --lines 5000`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use logwarden_tests::loki::FakeLoki;

/// Answers like Grafana Loki, from memory, and fills itself with lines.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:3100")]
    listen: String,
    /// How many lines of the last hour there are from the start.
    #[arg(long, default_value_t = 5000)]
    lines: u32,
    /// New lines a second.
    #[arg(long, default_value_t = 5)]
    rate: u32,
    /// Merges pages as a sharded Loki does, with holes.
    #[arg(long)]
    shards: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let now = now();
    let mut loki = FakeLoki::listen(&arguments.listen, now).await?;
    loki.faults(|faults| faults.shards = arguments.shards);
    let step = 3_600_000_000_000 / i64::from(arguments.lines.max(1));
    for i in 0..arguments.lines {
        line(&loki, now - 3_600_000_000_000 + i64::from(i) * step, i);
    }
    #[expect(clippy::print_stderr, reason = "the program's only output")]
    {
        eprintln!(
            "fake Loki at {} with {} lines; {{job=\"syslog\"}} and {{job=\"nginx\"}}",
            loki.url(),
            arguments.lines
        );
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut i = arguments.lines;
    loop {
        tokio::select! {
            () = loki.wait() => return Ok(()),
            _ = ticks.tick() => {}
        }
        for n in 0..arguments.rate {
            line(&loki, self::now() + i64::from(n), i);
            i = i.wrapping_add(1);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a program reads the clock")]
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Normal traffic, with a brute force and a disk that fills up in it.
fn line(loki: &FakeLoki, time: i64, i: u32) {
    let host = ["web-1", "web-2", "db-1"][(i % 3) as usize];
    let syslog = [("job", "syslog"), ("host", host)];
    let nginx = [("job", "nginx"), ("host", "web-1")];
    let n = i.wrapping_mul(2_654_435_761) >> 16;
    match n % 20 {
        0..=8 => {
            let (status, bytes) = if n.is_multiple_of(97) { (502, 157) } else { (200, 512 + n % 4096) };
            let text = format!(
                "192.0.2.{} - - \"GET /shop/item/{} HTTP/1.1\" {status} {bytes} 0.0{}",
                n % 250,
                n % 900,
                n % 9
            );
            loki.push("fake", &nginx, time, &text);
        }
        9..=12 => loki.push(
            "fake",
            &syslog,
            time,
            &format!("systemd[1]: Started session-{i}.scope - Session {i} of user deploy."),
        ),
        13..=15 => loki.push(
            "fake",
            &syslog,
            time,
            &format!("CRON[{}]: pam_unix(cron:session): session opened for user root(uid=0)", n % 30_000),
        ),
        16 | 17 if i.is_multiple_of(5) => {
            let text = format!(
                "sshd[{}]: Failed password for invalid user admin from 203.0.113.7 port {} ssh2",
                n % 30_000,
                1024 + n % 60_000
            );
            loki.push("fake", &syslog, time, &text);
        }
        18 if i.is_multiple_of(7) => {
            let text = format!(
                "nginx: [error] {}#0: upstream timed out (110: Connection timed out) while reading response header",
                n % 9000
            );
            loki.push("fake", &nginx, time, &text);
        }
        19 if i.is_multiple_of(11) => {
            let text = "kernel: EXT4-fs warning (device sda1): ext4_dx_add_entry: No space left on device";
            loki.push("fake", &[("job", "syslog"), ("host", "db-1")], time, text);
        }
        _ => loki.push(
            "fake",
            &syslog,
            time,
            &format!(
                "sshd[{}]: Accepted publickey for deploy from 10.0.0.{} port {}",
                n % 30_000,
                n % 250,
                1024 + n % 60_000
            ),
        ),
    }
}
