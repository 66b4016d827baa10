//! A miner that lives on in the ledger learns what one learns that never stops.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::executor::block_on;
use logwarden_core::{
    Line, LineId, ProfileName, Stream, Timestamp,
    env::Env,
    ledger::{Query, Snapshot},
    pipeline::{Limits, Pipeline},
    source::{Budget, Cursor, LogSource, Page, QueryInfo, Seen, SourceError, SourceId},
    templates::{Clock, Config, LeafId, Miner, RootId, State},
    testing::FakeEnv,
};

use super::open;

const PAGE: usize = 40;

/// Lines in memory, a page at a time; the cursor is how many were read.
#[derive(Debug)]
struct Pages {
    id: SourceId,
    queries: Vec<QueryInfo>,
    lines: Vec<String>,
}

#[async_trait]
impl LogSource for Pages {
    fn id(&self) -> &SourceId {
        &self.id
    }

    fn queries(&self) -> &[QueryInfo] {
        &self.queries
    }

    async fn read(&self, cursor: Option<&Cursor>, _: &Seen, budget: Budget) -> Result<Page, SourceError> {
        let from: usize = cursor.map_or(0, |cursor| cursor.0.parse().unwrap());
        let stream = Arc::new(Stream::new(BTreeMap::from([("host".to_owned(), "web-1".to_owned())])));
        let line = |number: usize| Line {
            id: LineId::of(&[&number.to_le_bytes()]),
            time: Timestamp::from_secs(1_795_233_600 + number as i64),
            clock: Clock::Record,
            stream: stream.clone(),
            text: self.lines[number].clone().into_bytes(),
            tags: 1,
        };
        let lines: Vec<_> = (from..(from + PAGE).min(self.lines.len())).map(line).collect();
        Ok(Page {
            per_query: vec![lines.len() as u64],
            next: Cursor((from + lines.len()).to_string()),
            // The next run reads on: one page each.
            more: false,
            horizon: Some(budget.now),
            lines,
            ..Page::default()
        })
    }
}

/// Reads all lines, one page a run; `restart` says whether each run is a process of its own.
fn run(dir: &Path, lines: &[String], max_templates: usize, restart: bool) -> Snapshot {
    let queries = vec![QueryInfo { text: "{job=\"test\"}".into(), profiles: vec![ProfileName::general()] }];
    let source = Arc::new(Pages { id: SourceId("test".into()), queries, lines: lines.to_vec() });
    let env = FakeEnv::new(Timestamp::from_secs(1_795_300_000), 7);
    let start = || {
        let miner = Config { max_templates, ..Config::default() };
        let builder = Pipeline::builder().env(Arc::new(env.clone())).source(source.clone()).host("web-1");
        builder.ledger(Arc::new(open(dir))).limits(Limits::default()).miner(miner).build().unwrap()
    };
    let mut pipeline = start();
    for _ in 0..lines.len().div_ceil(PAGE) {
        if restart {
            drop(pipeline);
            pipeline = start();
        }
        env.advance(Duration::from_secs(6 * 3600));
        block_on(pipeline.ingest(0, env.now())).unwrap();
    }
    let query = Query { source: Some(source.id.clone()), leaves: true, counters: true, ..Query::default() };
    block_on(pipeline.ledger().read(&query)).unwrap()
}

fn roots(snapshot: &Snapshot) -> BTreeMap<LeafId, RootId> {
    let leaves: Vec<LeafId> = snapshot.leaves.iter().map(|leaf| leaf.leaf).collect();
    let state = State { version: State::VERSION, leaves: snapshot.leaves.clone(), gone: snapshot.gone.clone() };
    let miner = Miner::restore(Config::default(), state).unwrap();
    leaves.into_iter().map(|leaf| (leaf, miner.root_of(leaf).unwrap())).collect()
}

/// Words without digits, different for each number.
fn word(mut number: usize) -> String {
    let mut word = String::new();
    for _ in 0..5 {
        word.push(['b', 'd', 'g', 'k', 'l', 'm', 'p', 'r'][number % 8]);
        word.push(['a', 'e', 'i', 'o'][number / 8 % 4]);
        number /= 32;
    }
    word
}

#[test]
fn a_restart_before_every_page_changes_no_root_and_no_count() {
    let lines: Vec<String> = (0..400)
        .map(|n| match n % 4 {
            0 => format!("mailbox of {} was moved to disk {}", word(n / 9), word(n % 5)),
            1 => format!("queue {} is full", word(n % 7)),
            2 => format!("user={} password=hunter{n} has logged in from 10.0.0.{n}", word(n)),
            _ => format!("java.lang.IllegalStateException: {}\n\tat a.B.c(B.java:{n})", word(n % 3)),
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let once = run(&dir.path().join("once"), &lines, 10_000, false);
    let often = run(&dir.path().join("often"), &lines, 10_000, true);
    assert!(once.leaves.len() > 40 && once.gone.is_empty());
    assert_eq!(roots(&once), roots(&often));
    assert_eq!(once.counters["lines_kept"], 400);
    for counter in ["lines_read", "lines_own", "lines_kept", "templates_evicted"] {
        assert_eq!(once.counters.get(counter), often.counters.get(counter), "{counter}");
    }
}

#[test]
fn what_was_evicted_is_counted_removed_and_not_novel_after_a_restart() {
    let lines: Vec<String> =
        (0..400).map(|n| format!("{} {} {}", word(n * 3), word(n * 5 + 1), word(n * 7 + 2))).collect();
    let dir = tempfile::tempdir().unwrap();
    for restart in [false, true] {
        let snapshot = run(&dir.path().join(restart.to_string()), &lines, 100, restart);
        assert_eq!(snapshot.counters["lines_kept"], 400);
        assert!(snapshot.leaves.len() <= 100, "{}", snapshot.leaves.len());
        assert_eq!(snapshot.counters["templates_evicted"], snapshot.gone.len() as u64, "restart: {restart}");
        assert_eq!(snapshot.gone.len() + snapshot.leaves.len(), 400, "restart: {restart}");
    }
}
