//! Reads lines from Loki, without a pipeline: `cargo run -p logwarden-tests --example query_loki -- URL QUERY`.
use std::{error::Error, io::Write, time::Duration};

use logwarden_config::SystemEnv;
use logwarden_core::{
    ProfileName,
    env::Env,
    source::{Budget, LogSource, QueryInfo, Seen},
};
use logwarden_loki_source::Loki;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "http://localhost:3100".to_owned());
    let text = arguments.next().unwrap_or_else(|| r#"{job="syslog"}"#.to_owned());
    let queries = vec![QueryInfo { text, profiles: vec![ProfileName::general()] }];
    let loki = Loki::builder(&url, queries).lookback(Duration::from_secs(3600)).build()?;
    let mut out = std::io::stdout().lock();
    let (mut cursor, mut seen) = (None, Seen::default());
    loop {
        let page =
            loki.read(cursor.as_ref(), &seen, Budget { lines: 1000, bytes: 8 << 20, now: SystemEnv.now() }).await?;
        for problem in &page.problems {
            writeln!(out, "{}: {}", problem.subject, problem.error)?;
        }
        for line in &page.lines {
            seen.insert(line.time, line.id, line.tags);
            writeln!(out, "{} {}", line.time.secs(), String::from_utf8_lossy(&line.text))?;
        }
        // Whoever keeps the cursor goes on here the next time.
        cursor = Some(page.next);
        if !page.more {
            return Ok(());
        }
    }
}
