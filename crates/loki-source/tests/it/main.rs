//! The source against a fake Loki.

mod contract;
mod errors;
mod requests;

use std::time::Duration;

use logwarden_core::{
    ProfileName, Timestamp,
    source::{Budget, QueryInfo},
};
use logwarden_loki_source::{Builder, Loki};
use logwarden_tests::loki::FakeLoki;

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
/// Some time in the middle of a minute.
const NOW: i64 = 29_920_200 * MINUTE + 17 * SECOND;

async fn fake() -> FakeLoki {
    FakeLoki::start(NOW).await.expect("a fake Loki")
}

fn queries(texts: &[&str]) -> Vec<QueryInfo> {
    let query = |text: &&str| QueryInfo { text: (*text).to_owned(), profiles: vec![ProfileName::general()] };
    texts.iter().map(query).collect()
}

/// A source that waits for nothing.
fn builder(url: &str, texts: &[&str]) -> Builder {
    Loki::builder(url, queries(texts)).timeout(Duration::from_millis(300)).retries(2, Duration::ZERO)
}

fn budget(lines: usize) -> Budget {
    Budget { lines, bytes: 1 << 20, now: Timestamp::from_nanos(NOW) }
}

/// Xorshift, seeded.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}
