//! The client against the fake Ollama, and the schema that it sends against what grammars can do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod checks;
mod contract;
mod faults;
mod schema;
mod sent;
mod windows;

use std::{net::IpAddr, sync::Arc, time::Duration};

use logwarden_core::{
    ProfileName, Severity, Timestamp,
    classifier::{Classifier, ClassifyError, Judgement},
    digest::{Digest, DigestRow},
    error::chain,
    profile::Profile,
    segment::SegmentRow,
    testing::FakeEnv,
};
use logwarden_detectors::{Signal, SignalKind};
use logwarden_ollama_client::{BaseUrl, Builder, Ollama};
use logwarden_templates::{LeafId, Level, Origin, RootId, Row, Samples};
use logwarden_tests::ollama::{Behaviour, Config, FakeOllama, Model};

/// 2026-11-21T02:50:00Z.
const NOW: Timestamp = Timestamp::from_secs(1_795_229_400);
const NAME: &str = "qwen3:4b-instruct";

fn row(number: u32, text: &str, signal: Option<SignalKind>) -> DigestRow {
    let level = if signal.is_some() { Level::Error } else { Level::Info };
    let row = Row {
        origin: Arc::new(Origin { host: "web-1".into(), service: "app".into() }),
        leaf: LeafId::from_bits(u128::from(number)),
        root: RootId::from_bits(u128::from(number)),
        template: text.into(),
        level: Some(level),
        count: 3,
        lines: 3,
        first: NOW,
        last: NOW.plus(Duration::from_secs(90)),
        minutes: Default::default(),
        samples: Samples::default(),
        slots: Vec::new(),
        tags: 0,
        first_line: None,
    };
    let floor = signal.is_some().then_some(Severity::High);
    let signals = signal.map(|kind| Signal { kind, rows: vec![number], score: 4.0, entities: Vec::new() });
    let row = SegmentRow { row, before: Vec::new(), after: Vec::new() };
    DigestRow { segment_row: number, row: Arc::new(row), signals: signals.into_iter().collect(), floor }
}

/// Two ordinary rows and one about memory that was never seen before.
fn digest() -> Digest {
    digest_of(vec![
        row(0, "session opened for user <*>", None),
        row(1, "Out of memory: Killed process <*:num>", Some(SignalKind::Novel)),
        row(2, "GET /health <*:num>", None),
    ])
}

fn digest_of(rows: Vec<DigestRow>) -> Digest {
    let profile = Profile::named(&ProfileName::general()).unwrap();
    let to = NOW.plus(Duration::from_secs(300));
    Digest { profile: Arc::new(profile), from: NOW, to, lines: 900, rows, background: Vec::new() }
}

/// So many rows that are different and long.
fn large(rows: u32) -> Digest {
    let text = |n: u32| {
        format!(
            "request {n} to backend-{n}.internal.example failed after <*:duration>: {}",
            "upstream said no, ".repeat(12)
        )
    };
    digest_of((0..rows).map(|n| row(n, &text(n), Some(SignalKind::Novel))).collect())
}

async fn honest() -> FakeOllama {
    FakeOllama::start(Config::with(Model::new(NAME, Behaviour::Honest))).await
}

fn builder(server: &FakeOllama) -> Builder {
    builder_at(&server.url())
}

fn builder_at(url: &str) -> Builder {
    let env = Arc::new(FakeEnv::new(NOW, 7));
    Ollama::builder(BaseUrl::parse(url).unwrap(), env).backoff(Duration::from_millis(1))
}

fn client(server: &FakeOllama) -> Ollama {
    builder(server).build().unwrap()
}

async fn ask(server: &FakeOllama) -> Result<Judgement, ClassifyError> {
    client(server).classify(&digest()).await
}

/// The error as a user reads it, with its hint, without the port.
fn told(error: &ClassifyError) -> String {
    let hint = match error {
        ClassifyError::Misconfigured { hint: Some(hint), .. } => format!("\nhint: {hint}"),
        _ => String::new(),
    };
    without_port(&format!("{}{hint}", chain(error)))
}

fn without_port(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("127.0.0.1:") {
        let (before, after) = rest.split_at(at + "127.0.0.1:".len());
        out.push_str(before);
        out.push_str("PORT");
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out + rest
}

fn nowhere() -> Option<IpAddr> {
    Some(IpAddr::from([127, 0, 0, 1]))
}
