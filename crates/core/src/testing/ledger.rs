//! What every ledger promises, one function per promise. Each wants an empty ledger of its own.

use std::{collections::BTreeMap, time::Duration};

use futures::future::{BoxFuture, join_all};
use logwarden_detectors::{Learned, MemoryKey, MemoryRow, ProfileName, Severity, SourceRow};
use logwarden_templates::{LeafId, NewLeaf, Origin, Timestamp};

use super::rows;
use crate::{
    incident::{IncidentId, Status},
    ledger::{
        BatchId, BenignVerdict, ChannelState, Commit, CommitId, Committed, Incidents, JobState, Jobs, KeyOwner, Ledger,
        LedgerError, Mute, MuteMatch, Outbox, OutboxState, ProcessId, QuarantineRow, Query, SegmentId, Snapshot,
        SpoolRow, Summary, Versioned, Write,
    },
    notifier::{ChannelHash, Receipt},
    retention::{self, Limits},
};

/// A promise with its name.
pub type Promise = (&'static str, for<'a> fn(&'a dyn Ledger) -> BoxFuture<'a, ()>);

/// All promises. A runner gives each an empty ledger with [`small_limits`].
pub const PROMISES: &[Promise] = &[
    ("an empty ledger knows itself", |ledger| Box::pin(an_empty_ledger_knows_itself(ledger))),
    ("every write is read by its query", |ledger| Box::pin(every_write_is_read_by_its_query(ledger))),
    ("every versioned row refuses other versions", |ledger| {
        Box::pin(every_versioned_row_refuses_other_versions(ledger))
    }),
    ("a commit is whole or nothing", |ledger| Box::pin(a_commit_is_whole_or_nothing(ledger))),
    ("a commit is executed once", |ledger| Box::pin(a_commit_is_executed_once(ledger))),
    ("of racing commits one wins", |ledger| Box::pin(of_racing_commits_one_wins(ledger))),
    ("immutable rows stay", |ledger| Box::pin(immutable_rows_stay(ledger))),
    ("the spool keeps order and knows its batches", |ledger| {
        Box::pin(the_spool_keeps_order_and_knows_its_batches(ledger))
    }),
    ("a full spool refuses", |ledger| Box::pin(a_full_spool_refuses(ledger))),
    ("quarantine makes room", |ledger| Box::pin(quarantine_makes_room(ledger))),
    ("seen lines are remembered for their time", |ledger| Box::pin(seen_lines_are_remembered_for_their_time(ledger))),
    ("evicted leaves are remembered by their ids", |ledger| {
        Box::pin(evicted_leaves_are_remembered_by_their_ids(ledger))
    }),
    ("the least recently used leaves go", |ledger| Box::pin(the_least_recently_used_leaves_go(ledger))),
    ("memory is learned and forgotten", |ledger| Box::pin(memory_is_learned_and_forgotten(ledger))),
    ("incidents come with what belongs to them", |ledger| Box::pin(incidents_come_with_what_belongs_to_them(ledger))),
    ("pruning keeps what must be kept", |ledger| Box::pin(pruning_keeps_what_must_be_kept(ledger))),
    ("random histories match the model", |ledger| Box::pin(random_histories_match_the_model(ledger))),
];

/// Limits that a test can reach.
pub fn small_limits() -> Limits {
    Limits {
        leaves: 5,
        memory_rows: 5,
        spool_bytes: 1_000,
        quarantine_rows: 3,
        quarantine_bytes: 100,
        counters: 20,
        ..Limits::default()
    }
}

/// Runs every promise on a ledger that `fresh` makes for it.
pub async fn every_promise<L: Ledger>(mut fresh: impl FnMut() -> L) {
    for (name, promise) in PROMISES {
        tracing::info!(promise = name);
        promise(&fresh()).await;
    }
}

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

async fn commit_as(ledger: &dyn Ledger, id: u128, writes: Vec<Write>) -> Result<Committed, LedgerError> {
    ledger.commit(&Commit { id: CommitId(id), writes }).await
}

/// Commits under an id that no other commit has.
async fn commit(ledger: &dyn Ledger, writes: Vec<Write>) -> Committed {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 32;
    commit_as(ledger, id, writes).await.unwrap_or_else(|error| panic!("{}", crate::error::chain(&error)))
}

async fn read(ledger: &dyn Ledger, query: Query) -> Snapshot {
    ledger.read(&query).await.unwrap_or_else(|error| panic!("{}", crate::error::chain(&error)))
}

fn ago(age: Duration) -> Timestamp {
    NOW.minus(age)
}

fn spooled(batch: u128, lines: u64, bytes: usize) -> Write {
    Write::Spool(SpoolRow { ordinal: 99, batch: BatchId(batch), at: NOW, lines, body: vec![7; bytes] })
}

fn quarantined(n: u8, bytes: usize) -> Write {
    let body = vec![n; bytes];
    Write::Quarantine(QuarantineRow {
        ordinal: 99,
        at: NOW,
        sender: "10.0.0.1".into(),
        reason: "not JSON".into(),
        body,
    })
}

fn channel(name: &str) -> ChannelState {
    ChannelState {
        touched: Timestamp::from_secs(7),
        name: name.into(),
        destination: ChannelHash(u128::MAX),
        lease: Some((ProcessId(3), NOW)),
        hold_until: NOW,
        broken: None,
        failures: 2,
        sent: vec![NOW],
        rollup_until: None,
        delivered_at: Some(NOW),
    }
}

fn summary(n: u64, at: Timestamp) -> Summary {
    Summary {
        segment: SegmentId(u128::from(n)),
        profile: ProfileName::general(),
        at,
        from: at,
        to: at,
        lines: n,
        severity: Some(Severity::Low),
        text: "All was well.".into(),
        model: None,
    }
}

fn mute(id: &str) -> Mute {
    let matches = MuteMatch { rule: Some("oom".into()), ..MuteMatch::default() };
    Mute { id: id.into(), matches, until: Some(NOW), reason: "known".into(), author: "ann".into(), created: NOW }
}

fn verdict(n: u64, until: Timestamp) -> BenignVerdict {
    let leaf = rows::leaf(n, NOW).leaf;
    BenignVerdict { leaf, profile: ProfileName::general(), fingerprint: "qwen3".into(), until }
}

fn learned(ns: &[u64], last: Timestamp) -> Learned {
    let origin = std::sync::Arc::new(Origin { host: "web-1".into(), service: "sshd".into() });
    let rows = ns.iter().map(|n| {
        let root = rows::leaf(*n, NOW).leaf.as_root();
        let mut row = MemoryRow::new(origin.clone(), root, format!("text {n} <*>").into(), NOW);
        row.last = last;
        row.count = *n;
        (MemoryKey::of(&origin, root), row)
    });
    let source = SourceRow { lines: ns.len() as u64, ..SourceRow::default() };
    Learned { rows: rows.collect(), removed: Vec::new(), source }
}

/// It has an id that is not zero, the same on every read.
pub async fn an_empty_ledger_knows_itself(ledger: &dyn Ledger) {
    let first = read(ledger, Query::default()).await.installation.expect("always there");
    assert_ne!(first.row.id, 0);
    let everything = read(ledger, everything()).await;
    assert_eq!(everything.installation, Some(first));
    assert!(everything.incidents.is_empty() && everything.outbox.is_empty() && everything.source.is_none());
}

/// A query for all there is.
fn everything() -> Query {
    Query {
        source: Some(rows::source()),
        leaves: true,
        memory: true,
        seen: true,
        keys: (0..10).map(rows::key).collect(),
        incidents: Incidents::Latest { limit: 1_000 },
        events: true,
        outbox: Outbox::Incidents((0..10).map(|n| IncidentId::of(1, n)).collect()),
        jobs: Jobs::Open { limit: 1_000 },
        segments: (0..10).map(SegmentId).collect(),
        channels: true,
        mutes: true,
        verdicts: Some((ProfileName::general(), "qwen3".into(), (0..10).map(|n| rows::leaf(n, NOW).leaf).collect())),
        summaries: 1_000,
        counters: true,
        spool: Some(u64::MAX),
        batches: (0..10).map(BatchId).collect(),
        quarantine: 1_000,
        values: vec!["a".into(), "b".into()],
    }
}

/// What was written comes back as it was, and only to the query for it.
pub async fn every_write_is_read_by_its_query(ledger: &dyn Ledger) {
    let (incident, event, row) = (rows::incident(1, NOW), rows::event(1, 0, NOW), rows::outbox(1, "ops", NOW));
    let sending = rows::sending(1, "ops", vec![row.key()], NOW);
    let owner = KeyOwner { key: rows::key(1), incident: incident.id, soft: true };
    let job = rows::job(1, ProfileName::general(), NOW);
    let mut source = rows::source_state("12");
    source.owner = Some(ProcessId(u128::MAX));
    let value = serde_json::json!({"a": [1, null, "x"]});
    let writes = vec![
        Write::Source(rows::source(), Versioned::new(source.clone())),
        Write::Leaves(rows::source(), vec![rows::leaf(1, NOW), rows::leaf(2, NOW)]),
        Write::LeavesUsed(rows::source(), 20_000, vec![rows::leaf(1, NOW).leaf]),
        Write::LeavesGone(rows::source(), vec![rows::leaf(9, NOW).leaf]),
        Write::Memory(rows::source(), Box::new(learned(&[1, 2], NOW))),
        Write::Seen(
            rows::source(),
            vec![(NOW, rows::line(1), 1), (NOW, rows::line(1), 2), (NOW, rows::line(2), 1 << 63)],
        ),
        Write::Segment(rows::segment(1, NOW)),
        Write::Job(Versioned::new(job.clone())),
        Write::Summary(summary(1, NOW)),
        Write::Incident(Box::new(Versioned::new(incident.clone()))),
        Write::Key(Versioned::new(owner)),
        Write::Event(event.clone()),
        Write::Outbox(Versioned::new(row.clone())),
        Write::Sending(Box::new(Versioned::new(sending.clone()))),
        Write::Channel(Versioned::new(channel("ops"))),
        Write::Mute(mute("m1")),
        Write::Verdict(verdict(1, NOW)),
        Write::Count("lines_read".into(), 5),
        Write::Count("lines_read".into(), u64::MAX),
        spooled(1, 3, 10),
        quarantined(1, 10),
        Write::Value("a".into(), Versioned::new(value.clone())),
    ];
    assert_eq!(commit(ledger, writes).await, Committed::Done);

    let nothing = read(ledger, Query::default()).await;
    assert_eq!(
        format!("{nothing:?}"),
        format!("{:?}", Snapshot { installation: nothing.installation.clone(), ..Snapshot::default() })
    );
    let other =
        read(ledger, Query { source: Some(crate::source::SourceId("other".into())), leaves: true, ..Query::default() });
    assert!(other.await.leaves.is_empty());

    let all = read(ledger, everything()).await;
    assert_eq!(all.source, Some(Versioned { version: 1, row: source }));
    let leaves: Vec<NewLeaf> = all.leaves;
    assert_eq!(leaves, [rows::leaf(2, NOW), rows::leaf(1, NOW)], "most recently used last");
    let by_key: BTreeMap<_, _> = all.memory.into_iter().collect();
    let expected = learned(&[1, 2], NOW);
    assert_eq!((by_key, all.memory_source), (expected.rows.into_iter().collect(), expected.source));
    assert_eq!((all.seen.queries(NOW, rows::line(1)), all.seen.queries(NOW, rows::line(2))), (3, 1 << 63));
    assert_eq!([0, 1, 63].map(|query| all.seen.count(NOW.minute(), query)), [1, 1, 1]);
    assert_eq!(format!("{:?}", all.segments), format!("{:?}", [rows::segment(1, NOW)]));
    assert_eq!(all.jobs, [Versioned { version: 1, row: job.clone() }]);
    let named = Query { jobs: Jobs::Of(vec![job.segment, SegmentId(404)]), ..Query::default() };
    assert_eq!(read(ledger, named).await.jobs, all.jobs);
    assert_eq!(all.summaries, [summary(1, NOW)]);
    assert_eq!(all.incidents[&incident.id], Versioned { version: 1, row: incident.clone() });
    assert_eq!(all.keys, [Versioned { version: 1, row: owner }]);
    assert_eq!(all.events, [event]);
    assert_eq!(all.outbox, [Versioned { version: 1, row: row.clone() }]);
    assert_eq!(all.channels, [Versioned { version: 1, row: channel("ops") }]);
    assert_eq!(all.mutes, [mute("m1")]);
    assert_eq!(all.verdicts, [verdict(1, NOW)]);
    assert!(all.counters["lines_read"] >= i64::MAX as u64, "counters stop at their end");
    assert_eq!((all.spool.len(), all.spool_size, all.batches), (1, (1, 10), vec![BatchId(1)]));
    assert_eq!((all.spool[0].lines, &all.spool[0].body, all.spool[0].at), (3, &vec![7; 10], NOW));
    assert_eq!((all.quarantine[0].reason.as_str(), all.quarantine[0].body.len()), ("not JSON", 10));
    assert_eq!(all.values, BTreeMap::from([("a".to_owned(), Versioned { version: 1, row: value })]));

    for outbox in [Outbox::Open, Outbox::Channel("ops".into())] {
        let open = read(ledger, Query { outbox, ..Query::default() }).await;
        assert_eq!(open.outbox, [Versioned { version: 1, row: row.clone() }]);
        assert_eq!(open.sendings, [Versioned { version: 1, row: sending.clone() }]);
        assert!(open.incidents.contains_key(&incident.id), "rows come with their incidents");
    }
    let elsewhere = read(ledger, Query { outbox: Outbox::Channel("dev".into()), ..Query::default() }).await;
    assert!(elsewhere.outbox.is_empty() && elsewhere.sendings.is_empty());

    let writes = vec![
        Write::Unmute("m1".into()),
        Write::Unquarantine(vec![all.quarantine[0].ordinal, 12_345]),
        Write::Unspool(vec![all.spool[0].ordinal]),
    ];
    assert_eq!(commit(ledger, writes).await, Committed::Done);
    let all = read(ledger, everything()).await;
    assert!(all.mutes.is_empty() && all.quarantine.is_empty() && all.spool.is_empty());
    assert_eq!((all.spool_size, all.batches), ((0, 0), vec![BatchId(1)]), "a batch is known after it has gone");
}

/// Each kind of versioned row: too old and too new versions conflict, the right one raises it by one.
pub async fn every_versioned_row_refuses_other_versions(ledger: &dyn Ledger) {
    let incident = rows::incident(1, NOW);
    let base = vec![Write::Segment(rows::segment(1, NOW)), Write::Incident(Box::new(Versioned::new(incident.clone())))];
    assert_eq!(commit(ledger, base).await, Committed::Done);
    let installation = read(ledger, Query::default()).await.installation.expect("always there");
    assert_eq!(installation.version, 1);

    type Make<'a> = Box<dyn Fn(u64) -> Write + Send + Sync + 'a>;
    let kinds: Vec<(&str, u64, Make<'_>)> = vec![
        (
            "installation",
            1,
            Box::new(|version| Write::Installation(Versioned { version, row: installation.row.clone() })),
        ),
        ("incident", 1, Box::new(|version| Write::Incident(Box::new(Versioned { version, row: incident.clone() })))),
        (
            "source",
            0,
            Box::new(|version| Write::Source(rows::source(), Versioned { version, row: rows::source_state("1") })),
        ),
        (
            "job",
            0,
            Box::new(|version| Write::Job(Versioned { version, row: rows::job(1, ProfileName::general(), NOW) })),
        ),
        (
            "key",
            0,
            Box::new(|version| {
                Write::Key(Versioned {
                    version,
                    row: KeyOwner { key: rows::key(1), incident: incident.id, soft: false },
                })
            }),
        ),
        ("outbox", 0, Box::new(|version| Write::Outbox(Versioned { version, row: rows::outbox(1, "ops", NOW) }))),
        (
            "sending",
            0,
            Box::new(|version| {
                Write::Sending(Box::new(Versioned { version, row: rows::sending(1, "ops", Vec::new(), NOW) }))
            }),
        ),
        ("channel", 0, Box::new(|version| Write::Channel(Versioned { version, row: channel("ops") }))),
        (
            "value",
            0,
            Box::new(|version| Write::Value("a".into(), Versioned { version, row: serde_json::json!(version) })),
        ),
    ];
    for (kind, start, make) in kinds {
        for (version, expected) in [
            (start + 1, Committed::Conflict),
            (start, Committed::Done),
            (start, Committed::Conflict),
            (start + 2, Committed::Conflict),
            (start + 1, Committed::Done),
            (0, Committed::Conflict),
        ] {
            assert_eq!(commit(ledger, vec![make(version)]).await, expected, "{kind} at version {version}");
        }
        // Twice in one commit: the second sees the first.
        let twice = vec![make(start + 2), make(start + 3)];
        assert_eq!(commit(ledger, twice).await, Committed::Done, "{kind} twice");
    }
}

/// A conflict in the last write undoes the first one.
pub async fn a_commit_is_whole_or_nothing(ledger: &dyn Ledger) {
    let before = format!("{:?}", read(ledger, everything()).await);
    let writes = vec![
        Write::Count("a".into(), 1),
        Write::Incident(Box::new(Versioned::new(rows::incident(1, NOW)))),
        Write::Leaves(rows::source(), vec![rows::leaf(1, NOW)]),
        Write::Seen(rows::source(), vec![(NOW, rows::line(1), 1)]),
        spooled(1, 1, 10),
        quarantined(1, 1),
        Write::Value("a".into(), Versioned { version: 7, row: serde_json::Value::Null }),
    ];
    assert_eq!(commit_as(ledger, 1, writes).await.expect("usable"), Committed::Conflict);
    assert_eq!(format!("{:?}", read(ledger, everything()).await), before);
    // The id of a commit that conflicted is free: nothing was executed.
    assert_eq!(commit_as(ledger, 1, vec![Write::Count("a".into(), 1)]).await.expect("usable"), Committed::Done);
    assert_eq!(read(ledger, everything()).await.counters["a"], 1);
}

/// The same id again is done, and changes nothing, whatever it says.
pub async fn a_commit_is_executed_once(ledger: &dyn Ledger) {
    for _ in 0..3 {
        assert_eq!(commit_as(ledger, 5, vec![Write::Count("a".into(), 1)]).await.expect("usable"), Committed::Done);
    }
    let conflicting = vec![Write::Value("a".into(), Versioned { version: 7, row: serde_json::Value::Null })];
    assert_eq!(commit_as(ledger, 5, conflicting).await.expect("usable"), Committed::Done);
    assert_eq!(read(ledger, everything()).await.counters["a"], 1);
}

/// Commits sent at once that expect the same version: exactly one is done.
pub async fn of_racing_commits_one_wins(ledger: &dyn Ledger) {
    for round in 0..10_u64 {
        let racers = (0..8_u128).map(|racer| {
            let write = Write::Value("a".into(), Versioned { version: round, row: serde_json::json!(racer as u64) });
            commit_as(ledger, u128::from(round) << 8 | racer | 1 << 100, vec![write, Write::Count("won".into(), 1)])
        });
        let outcomes: Vec<_> = join_all(racers).await.into_iter().map(|outcome| outcome.expect("usable")).collect();
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Committed::Done).count(), 1);
        assert_eq!(read(ledger, everything()).await.counters["won"], round + 1);
    }
}

/// Segments and events are never replaced; leaves that exist stay as they are.
pub async fn immutable_rows_stay(ledger: &dyn Ledger) {
    let incident = Write::Incident(Box::new(Versioned::new(rows::incident(1, NOW))));
    let first = vec![incident, Write::Event(rows::event(1, 0, NOW)), Write::Segment(rows::segment(1, NOW))];
    assert_eq!(commit(ledger, first).await, Committed::Done);
    assert_eq!(commit(ledger, vec![Write::Event(rows::event(1, 0, NOW))]).await, Committed::Conflict);
    assert_eq!(commit(ledger, vec![Write::Segment(rows::segment(1, NOW))]).await, Committed::Conflict);

    let leaf = rows::leaf(1, NOW);
    let changed = NewLeaf { text: "other".into(), ..leaf.clone() };
    let writes = [leaf.clone(), changed].map(|leaf| Write::Leaves(rows::source(), vec![leaf])).into();
    assert_eq!(commit(ledger, writes).await, Committed::Done);
    assert_eq!(read(ledger, everything()).await.leaves, [leaf]);
}

/// First in, first out, within a budget of lines; a known batch and a missing row are conflicts.
pub async fn the_spool_keeps_order_and_knows_its_batches(ledger: &dyn Ledger) {
    for batch in 1..=4 {
        assert_eq!(commit(ledger, vec![spooled(batch, 10, 5)]).await, Committed::Done);
    }
    assert_eq!(commit(ledger, vec![spooled(3, 10, 5)]).await, Committed::Conflict, "a batch sent again");
    let spool = |budget| read(ledger, Query { spool: Some(budget), ..Query::default() });
    let batches = |snapshot: &Snapshot| snapshot.spool.iter().map(|row| row.batch.0).collect::<Vec<_>>();
    let all = spool(1_000).await;
    assert_eq!((batches(&all), all.spool_size), (vec![1, 2, 3, 4], (4, 20)));
    assert!(all.spool.windows(2).all(|pair| pair[0].ordinal < pair[1].ordinal));
    assert_eq!(batches(&spool(29).await), [1, 2]);
    let first_only = spool(1).await;
    assert_eq!(
        (batches(&first_only), first_only.spool_size),
        (vec![1], (4, 20)),
        "one larger than the budget comes alone"
    );

    let ordinals: Vec<u64> = all.spool.iter().map(|row| row.ordinal).collect();
    assert_eq!(commit(ledger, vec![Write::Unspool(ordinals[..2].to_vec())]).await, Committed::Done);
    assert_eq!(commit(ledger, vec![Write::Unspool(ordinals[1..3].to_vec())]).await, Committed::Conflict);
    assert_eq!(batches(&spool(1_000).await), [3, 4]);
    assert_eq!(commit(ledger, vec![spooled(1, 10, 5)]).await, Committed::Conflict, "known although it is gone");
    assert_eq!(commit(ledger, vec![Write::Unspool(ordinals[2..].to_vec()), spooled(9, 1, 1)]).await, Committed::Done);
    let last = spool(1_000).await;
    assert!(batches(&last) == [9] && last.spool[0].ordinal > ordinals[3], "numbers are not used again");
}

/// A spool at its limit refuses with `Full` and keeps what it has; with room again it goes on.
pub async fn a_full_spool_refuses(ledger: &dyn Ledger) {
    assert_eq!(commit(ledger, vec![spooled(1, 1, 600)]).await, Committed::Done);
    let refused = commit_as(ledger, 1, vec![spooled(2, 1, 600)]).await;
    assert!(matches!(refused, Err(LedgerError::Full { .. })), "{refused:?}");
    let query = Query { spool: Some(10), batches: vec![BatchId(2)], ..Query::default() };
    let snapshot = read(ledger, query).await;
    assert_eq!((snapshot.spool_size, snapshot.batches), ((1, 600), vec![]));
    let ordinal = snapshot.spool[0].ordinal;
    assert_eq!(commit(ledger, vec![Write::Unspool(vec![ordinal]), spooled(2, 1, 600)]).await, Committed::Done);
}

/// The oldest go, by number and by size; the newest always stays readable.
pub async fn quarantine_makes_room(ledger: &dyn Ledger) {
    let kept = async |limit| {
        let quarantine = read(ledger, Query { quarantine: limit, ..Query::default() }).await.quarantine;
        quarantine.iter().map(|row| row.body[0]).collect::<Vec<_>>()
    };
    for n in 1..=5 {
        assert_eq!(commit(ledger, vec![quarantined(n, 20)]).await, Committed::Done);
    }
    assert_eq!(kept(10).await, [5, 4, 3]);
    assert_eq!(kept(2).await, [5, 4]);
    assert_eq!(commit(ledger, vec![quarantined(6, 70)]).await, Committed::Done);
    assert_eq!(kept(10).await, [6, 5]);
}

/// 75 minutes of lines and a day of counts, back from where most lines are; a line from the future changes nothing.
pub async fn seen_lines_are_remembered_for_their_time(ledger: &dyn Ledger) {
    let at = |minute: i64| Timestamp::from_secs(minute * 60);
    let start = 10_000_000;
    for minute in (start..start + 100).step_by(5) {
        let lines = (0..3).map(|n| (at(minute), rows::line(minute as u64 * 10 + n), 1)).collect();
        assert_eq!(commit(ledger, vec![Write::Seen(rows::source(), lines)]).await, Committed::Done);
    }
    let future = vec![
        (Timestamp::MAX, rows::line(1), 1),
        (at(start + 95), rows::line(2), 2),
        (at(start + 95), rows::line(3), 2),
    ];
    assert_eq!(commit(ledger, vec![Write::Seen(rows::source(), future)]).await, Committed::Done);
    let seen = read(ledger, everything()).await.seen;
    assert_eq!(seen.queries(at(start + 95), rows::line((start as u64 + 95) * 10)), 1);
    assert_eq!(seen.queries(at(start + 95), rows::line(3)), 2);
    let oldest = start + 95 - retention::SEEN_MINUTES;
    assert_eq!(seen.minute(oldest).count(), 3);
    assert_eq!(seen.minute(oldest - 5).count(), 0, "lines are forgotten");
    assert_eq!(seen.count(start, 0), 3, "their number is not");
    // The same lines again are counted once.
    let again = vec![(at(start + 95), rows::line(3), 3)];
    assert_eq!(commit(ledger, vec![Write::Seen(rows::source(), again)]).await, Committed::Done);
    let seen = read(ledger, everything()).await.seen;
    assert_eq!((seen.count(start + 95, 0), seen.count(start + 95, 1)), (4, 2));
    let day_later = vec![(at(start + 95 + retention::COUNT_MINUTES), rows::line(9), 1)];
    assert_eq!(commit(ledger, vec![Write::Seen(rows::source(), day_later)]).await, Committed::Done);
    let seen = read(ledger, everything()).await.seen;
    assert_eq!((seen.count(start + 90, 0), seen.count(start + 95, 0)), (0, 4));
}

/// New leaves count as just used; those used on an earlier day go first.
pub async fn the_least_recently_used_leaves_go(ledger: &dyn Ledger) {
    let source = rows::source();
    let leaves = |ns: &[u64]| Write::Leaves(source.clone(), ns.iter().map(|n| rows::leaf(*n, NOW)).collect());
    let used = |day, ns: &[u64]| {
        let ids: Vec<LeafId> = ns.iter().map(|n| rows::leaf(*n, NOW).leaf).collect();
        Write::LeavesUsed(source.clone(), day, ids)
    };
    let kept = async || {
        let leaves = read(ledger, everything()).await.leaves;
        (0..10).filter(|n| leaves.contains(&rows::leaf(*n, NOW))).collect::<Vec<_>>()
    };
    assert_eq!(commit(ledger, vec![leaves(&[1, 2, 3]), used(20_000, &[1, 2, 3])]).await, Committed::Done);
    assert_eq!(commit(ledger, vec![leaves(&[4, 5]), used(20_001, &[1, 4, 5, 77])]).await, Committed::Done);
    assert_eq!(kept().await, [1, 2, 3, 4, 5]);
    assert_eq!(commit(ledger, vec![used(19_000, &[4]), leaves(&[6])]).await, Committed::Done);
    assert_eq!(kept().await, [1, 3, 4, 5, 6]);
    assert_eq!(commit(ledger, vec![leaves(&[7])]).await, Committed::Done);
    assert_eq!(kept().await, [1, 4, 5, 6, 7]);
}

/// Evicted leaves go, their ids stay: the latest ones, each once.
pub async fn evicted_leaves_are_remembered_by_their_ids(ledger: &dyn Ledger) {
    let source = rows::source();
    let id = |n: u64| rows::leaf(n, NOW).leaf;
    let gone = |ns: &[u64]| vec![Write::LeavesGone(source.clone(), ns.iter().map(|n| id(*n)).collect())];
    let leaves = Write::Leaves(source.clone(), (1..=3).map(|n| rows::leaf(n, NOW)).collect());
    assert_eq!(commit(ledger, vec![leaves]).await, Committed::Done);
    assert_eq!(commit(ledger, gone(&[2, 77])).await, Committed::Done);
    assert_eq!(commit(ledger, gone(&[1, 2])).await, Committed::Done);
    let now = read(ledger, everything()).await;
    assert_eq!(now.leaves, [rows::leaf(3, NOW)]);
    assert_eq!(now.gone, [id(2), id(77), id(1)]);
    let most = small_limits().gone() as u64;
    assert_eq!(commit(ledger, gone(&(100..100 + most).collect::<Vec<_>>())).await, Committed::Done);
    assert_eq!(read(ledger, everything()).await.gone, (100..100 + most).map(id).collect::<Vec<_>>());
}

/// Rows are replaced, removed, and forgotten with their template; pruning keeps the limit, those seen last.
pub async fn memory_is_learned_and_forgotten(ledger: &dyn Ledger) {
    let source = rows::source();
    let learn = |learned| vec![Write::Memory(source.clone(), Box::new(learned))];
    let kept = async || {
        let snapshot = read(ledger, everything()).await;
        let mut counts: Vec<u64> = snapshot.memory.iter().map(|(_, row)| row.count).collect();
        counts.sort_unstable();
        (counts, snapshot.memory_source.lines)
    };
    assert_eq!(commit(ledger, learn(learned(&[1, 2, 3], NOW))).await, Committed::Done);
    let mut next = learned(&[2, 4], NOW);
    next.rows[0].1.count = 20;
    next.removed = vec![learned(&[1], NOW).rows[0].0, MemoryKey::from_bits(9)];
    assert_eq!(commit(ledger, learn(next)).await, Committed::Done);
    assert_eq!(kept().await, (vec![3, 4, 20], 2));
    let writes =
        vec![Write::Verdict(verdict(3, NOW)), Write::Verdict(verdict(4, NOW)), Write::Forget(rows::leaf(3, NOW).leaf)];
    assert_eq!(commit(ledger, writes).await, Committed::Done);
    assert_eq!(kept().await.0, [4, 20]);
    assert_eq!(read(ledger, everything()).await.verdicts, [verdict(4, NOW)]);
    assert_eq!(commit(ledger, learn(learned(&[5, 6, 7, 8], NOW.plus(Duration::from_secs(1))))).await, Committed::Done);
    assert_eq!(commit(ledger, vec![Write::Prune(NOW)]).await, Committed::Done);
    let (counts, _) = kept().await;
    assert!(
        counts.len() == 5 && counts[counts.len() - 4..] != [4, 20] && counts.ends_with(&[8]) | counts.ends_with(&[20])
    );
    assert!([5, 6, 7, 8].iter().all(|n| counts.contains(n)), "{counts:?}");
}

/// By key, by id, firing, latest; with what they were merged into, and their events in order.
pub async fn incidents_come_with_what_belongs_to_them(ledger: &dyn Ledger) {
    let mut writes = Vec::new();
    for n in 1..=5 {
        let mut incident = rows::incident(n, NOW.plus(Duration::from_secs(n)));
        if n == 2 {
            incident.status = Status::Merged { into: IncidentId::of(1, 3) };
        }
        if n == 3 {
            incident.status = Status::Merged { into: IncidentId::of(1, 4) };
        }
        if n == 5 {
            incident.status = Status::Quiet { since: NOW };
        }
        let owner = KeyOwner { key: rows::key(n), incident: incident.id, soft: false };
        writes.push(Write::Incident(Box::new(Versioned::new(incident))));
        writes.push(Write::Key(Versioned::new(owner)));
        writes.extend([1, 0].map(|seq| Write::Event(rows::event(n, seq, NOW))));
    }
    assert_eq!(commit(ledger, writes).await, Committed::Done);
    let found = async |query: Query| {
        let snapshot = read(ledger, Query { events: true, ..query }).await;
        let seqs: Vec<_> = snapshot.events.iter().map(|event| (event.incident, event.seq)).collect();
        assert!(seqs.is_sorted() && seqs.len() == 2 * snapshot.incidents.len(), "{seqs:?}");
        (1..=5).filter(|n| snapshot.incidents.contains_key(&IncidentId::of(1, *n))).collect::<Vec<_>>()
    };
    let by_key = Query { keys: vec![rows::key(2), rows::key(77)], ..Query::default() };
    assert_eq!(found(by_key).await, [2, 3, 4], "and all that it was merged into");
    let by_id =
        Query { incidents: Incidents::Ids(vec![IncidentId::of(1, 5), IncidentId::of(1, 77)]), ..Query::default() };
    assert_eq!(found(by_id).await, [5]);
    assert_eq!(found(Query { incidents: Incidents::Firing, ..Query::default() }).await, [1, 4]);
    assert_eq!(found(Query { incidents: Incidents::Latest { limit: 2 }, ..Query::default() }).await, [4, 5]);
}

/// What is old goes. What waits, fires, mutes or says how far was read stays, however old.
pub async fn pruning_keeps_what_must_be_kept(ledger: &dyn Ledger) {
    let day = Duration::from_secs(24 * 3600);
    let old = ago(365 * day);
    let mut writes = vec![
        Write::Source(rows::source(), Versioned::new(rows::source_state("12"))),
        Write::Mute(mute("m1")),
        Write::Value("a".into(), Versioned::new(serde_json::json!(1))),
        Write::Channel(Versioned::new(channel("ops"))),
        Write::Verdict(verdict(1, ago(day))),
        Write::Verdict(verdict(2, NOW.plus(day))),
        Write::Summary(summary(1, ago(31 * day))),
        Write::Summary(summary(2, ago(29 * day))),
        spooled(1, 1, 10),
        spooled(2, 1, 10),
    ];
    // Segments: old and waiting, old and judged, young and judged.
    for (n, at, settled) in [(1, old, false), (2, old, true), (3, ago(6 * day), true)] {
        let mut job = rows::job(n, ProfileName::general(), at);
        if settled {
            job.state = JobState::Analysed;
        }
        writes.extend([Write::Segment(rows::segment(n, at)), Write::Job(Versioned::new(job))]);
    }
    // Incidents: old and firing, old and quiet, old and quiet with something to tell, young and quiet.
    for (n, at, quiet) in [(1, old, false), (2, old, true), (3, old, true), (4, ago(89 * day), true)] {
        let mut incident = rows::incident(n, at);
        if quiet {
            incident.status = Status::Quiet { since: at };
        }
        let mut row = rows::outbox(n, "ops", at);
        let mut sending = rows::sending(n, "ops", vec![row.key()], at);
        if n != 3 {
            row.state = OutboxState::Delivered { receipt: Receipt("r".into()), at };
            row.send = Some(sending.id);
            sending.done = true;
        }
        let owner = KeyOwner { key: rows::key(n), incident: incident.id, soft: false };
        writes.extend([
            Write::Incident(Box::new(Versioned::new(incident))),
            Write::Event(rows::event(n, 0, at)),
            Write::Key(Versioned::new(owner)),
            Write::Outbox(Versioned::new(row)),
            Write::Sending(Box::new(Versioned::new(sending))),
        ]);
    }
    let mut young = rows::outbox(1, "dev", ago(29 * day));
    young.state = OutboxState::Dead { reason: "refused".into(), at: ago(29 * day) };
    writes.push(Write::Outbox(Versioned::new(young)));
    assert_eq!(commit(ledger, writes).await, Committed::Done);
    let ordinal = read(ledger, everything()).await.spool[0].ordinal;
    assert_eq!(commit(ledger, vec![Write::Unspool(vec![ordinal]), Write::Prune(NOW)]).await, Committed::Done);

    let left = read(ledger, everything()).await;
    assert_eq!(left.source.expect("kept").row, rows::source_state("12"));
    assert!(left.mutes.len() == 1 && left.values.len() == 1 && left.channels.len() == 1);
    assert_eq!(left.verdicts, [verdict(2, NOW.plus(day))]);
    assert_eq!(left.summaries, [summary(2, ago(29 * day))]);
    assert_eq!(left.segments.iter().map(|segment| segment.id.0).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(left.jobs.len(), 1);
    let numbers = |of: &dyn Fn(u64) -> bool| (1..=4).filter(|n| of(*n)).collect::<Vec<_>>();
    let id = |n| IncidentId::of(1, n);
    assert_eq!(numbers(&|n| left.incidents.contains_key(&id(n))), [1, 3, 4]);
    assert_eq!(numbers(&|n| left.events.iter().any(|event| event.incident == id(n))), [1, 3, 4]);
    assert_eq!(numbers(&|n| left.keys.iter().any(|owner| owner.row.incident == id(n))), [1, 3, 4]);
    let rows: Vec<_> = left.outbox.iter().map(|row| (row.row.incident, &*row.row.channel)).collect();
    let mut expected = [(id(1), "dev"), (id(3), "ops")];
    expected.sort_unstable();
    assert_eq!(rows, expected, "delivered rows go after a month");
    assert_eq!(left.spool.len(), 1);
    assert_eq!(left.batches, [BatchId(1), BatchId(2)], "known for two days after it is gone");
    assert_eq!(commit(ledger, vec![Write::Prune(NOW.plus(3 * day))]).await, Committed::Done);
    assert_eq!(read(ledger, everything()).await.batches, [BatchId(2)]);
}

/// A thousand random commits, of which many conflict or repeat, beside a model of a few maps.
pub async fn random_histories_match_the_model(ledger: &dyn Ledger) {
    let mut dice = super::Dice::new(42);
    let mut values: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut counters: BTreeMap<String, u64> = BTreeMap::new();
    let mut spool: Vec<u128> = Vec::new();
    let mut batches: Vec<u128> = Vec::new();
    let mut done: Vec<u128> = Vec::new();
    for step in 0..1_000_u64 {
        let id = if dice.below(8) == 0 { u128::from(dice.below(step + 1)) } else { u128::from(step) } | 1 << 90;
        let before = (values.clone(), counters.clone(), spool.clone(), batches.clone());
        let (mut writes, mut conflict) = (Vec::new(), false);
        for _ in 0..=dice.below(4) {
            match dice.below(4) {
                0 => {
                    let name = ["a", "b", "c"][dice.below(3) as usize].to_owned();
                    let version = values.get(&name).map_or(0, |(version, _)| *version);
                    let claimed = version + u64::from(dice.below(6) == 0);
                    conflict |= claimed != version;
                    values.insert(name.clone(), (version + 1, step));
                    writes.push(Write::Value(name, Versioned { version: claimed, row: serde_json::json!(step) }));
                }
                1 => {
                    let name = format!("counter {}", dice.below(3));
                    *counters.entry(name.clone()).or_default() += step;
                    writes.push(Write::Count(name, step));
                }
                2 if spool.len() < 50 => {
                    let batch = u128::from(dice.below(step * 2 + 1));
                    conflict |= batches.contains(&batch);
                    batches.push(batch);
                    spool.push(batch);
                    writes.push(spooled(batch, 1, 3));
                }
                _ => {
                    let waiting = read(ledger, Query { spool: Some(u64::MAX), ..Query::default() }).await.spool;
                    let taken = usize::try_from(dice.below(4)).expect("small").min(waiting.len()).min(spool.len());
                    // Rows of this very commit are not known to the caller yet.
                    if writes.is_empty() {
                        writes.push(Write::Unspool(waiting[..taken].iter().map(|row| row.ordinal).collect()));
                        spool.drain(..taken);
                    }
                }
            }
        }
        let outcome = commit_as(ledger, id, writes).await.expect("usable");
        if done.contains(&id) {
            assert_eq!(outcome, Committed::Done, "step {step}");
            (values, counters, spool, batches) = before;
        } else if conflict {
            assert_eq!(outcome, Committed::Conflict, "step {step}");
            (values, counters, spool, batches) = before;
        } else {
            assert_eq!(outcome, Committed::Done, "step {step}");
            done.push(id);
        }
        let query = Query {
            counters: true,
            spool: Some(u64::MAX),
            values: vec!["a".into(), "b".into(), "c".into()],
            ..Query::default()
        };
        let real = read(ledger, query).await;
        let real_values =
            real.values.into_iter().map(|(name, value)| (name, (value.version, value.row.as_u64().expect("a number"))));
        assert_eq!(real_values.collect::<BTreeMap<_, _>>(), values, "step {step}");
        assert_eq!(real.counters, counters, "step {step}");
        assert_eq!(real.spool.iter().map(|row| row.batch.0).collect::<Vec<_>>(), spool, "step {step}");
        assert_eq!(real.spool_size, (spool.len() as u64, 3 * spool.len() as u64), "step {step}");
    }
    assert!(done.len() > 400, "too few commits were possible: {}", done.len());
}
