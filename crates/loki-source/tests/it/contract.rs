//! No line lost, none twice, whatever Loki does.

use std::time::Duration;

use logwarden_core::{
    Timestamp,
    error::chain,
    source::{Budget, LogSource as _, ProblemKind},
    testing::source::{Reader, brings_every_line_once, recovers},
};
use logwarden_tests::loki::{FakeLoki, Fault, Faults};

use crate::{Dice, MINUTE, NOW, SECOND, budget, builder, fake};

const QUERIES: [&str; 2] = [r#"{job="app"}"#, r#"{job=~".+"} |= "error""#];

type Expected = Vec<(Timestamp, String, u64)>;

/// Fills a Loki with lines of the last minutes in several streams, some of them many at one time or at the very start of
/// a minute, and says what the two queries of [`QUERIES`] match.
fn fill(loki: &FakeLoki, dice: &mut Dice, lines: u64) -> Expected {
    let mut expected = Expected::new();
    let mut time = NOW - 5 * MINUTE;
    for i in 0..lines {
        time += match dice.roll(8) {
            0..=2 => 0,
            3 => i64::try_from(dice.roll(SECOND as u64)).expect("small"),
            4 => (time / MINUTE + 1) * MINUTE - time,
            _ => 1,
        };
        if time >= NOW - 11 * SECOND {
            time = NOW - 4 * MINUTE;
        }
        push(loki, &mut expected, dice, time, &format!("line {i}"));
    }
    expected
}

fn push(loki: &FakeLoki, expected: &mut Expected, dice: &mut Dice, time: i64, text: &str) {
    let (job, host) = (["app", "app", "db"][dice.roll(3) as usize], ["a", "b", "c", "d"][dice.roll(4) as usize]);
    let error = dice.roll(2) == 0;
    let text = if error { format!("{text} error") } else { text.to_owned() };
    loki.push_with("fake", &[("job", job), ("host", host)], time, &text, &[("trace_id", &time.to_string())]);
    let tags = u64::from(job == "app") | (u64::from(error) << 1);
    if tags != 0 {
        expected.push((Timestamp::from_nanos(time), text, tags));
    }
}

fn budgets(dice: &mut Dice) -> Vec<Budget> {
    let mut one = || match dice.roll(4) {
        0 => budget(1 + dice.roll(5) as usize),
        1 => Budget { bytes: 1 + dice.roll(200) as usize, ..budget(1000) },
        2 => budget(50 + dice.roll(200) as usize),
        _ => budget(10_000),
    };
    (0..5).map(|_| one()).chain([budget(40)]).collect()
}

#[tokio::test]
async fn every_line_comes_once_whatever_the_budgets() {
    for seed in 1..=12 {
        let (loki, mut dice) = (fake().await, Dice(seed * 7919));
        let expected = fill(&loki, &mut dice, 400);
        let source = builder(&loki.url(), &QUERIES).page_lines(10 + dice.roll(90) as usize).build().expect("a source");
        brings_every_line_once(&source, &budgets(&mut dice), expected).await;
    }
}

#[tokio::test]
async fn pages_with_holes_lose_nothing() {
    for seed in 1..=12 {
        let (loki, mut dice) = (fake().await, Dice(seed * 104_729));
        loki.seed(seed);
        loki.faults(|faults| faults.shards = Some(4));
        let expected = fill(&loki, &mut dice, 300);
        let source = builder(&loki.url(), &QUERIES).page_lines(20).build().expect("a source");
        brings_every_line_once(&source, &[budget(25), budget(300)], expected).await;
    }
}

/// The data of recordings 650 to 654: pods that replace one another, so that one shard's answer ends before the next
/// one's begins.
#[tokio::test]
async fn pods_that_replace_one_another_lose_nothing_in_a_sharded_loki() {
    for (seed, no_stats) in (1..=20).flat_map(|seed| [(seed, false), (seed, true)]) {
        let loki = fake().await;
        loki.seed(seed * 104_729);
        loki.faults(|faults| (faults.shards, faults.no_stats) = (Some(8), no_stats));
        let mut expected = Expected::new();
        for (pod, name) in ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"].iter().enumerate() {
            for line in 0..12 {
                let time = NOW - 4 * MINUTE + pod as i64 * 20 * SECOND + line * SECOND * 2 / 5;
                let text = format!("pod {pod} line {line:02}");
                loki.push("fake", &[("job", "app"), ("pod", name)], time, &text);
                expected.push((Timestamp::from_nanos(time), text, 1));
            }
        }
        let source = builder(&loki.url(), &[r#"{job="app"} |= "line""#]).page_lines(20).build().expect("a source");
        brings_every_line_once(&source, &[budget(1000)], expected).await;
    }
}

#[tokio::test]
async fn servers_without_stats_or_categories_lose_nothing() {
    for shards in [None, Some(3)] {
        let (loki, mut dice) = (fake().await, Dice(99));
        loki.faults(|faults| {
            faults.no_stats = true;
            faults.no_categories = true;
            faults.shards = shards;
        });
        let expected = fill(&loki, &mut dice, 200);
        let source = builder(&loki.url(), &QUERIES).page_lines(20).build().expect("a source");
        brings_every_line_once(&source, &[budget(1000)], expected).await;
    }
}

#[tokio::test]
async fn more_lines_at_one_nanosecond_than_a_page_holds_all_come() {
    let loki = fake().await;
    loki.faults(|faults| faults.max_entries = 40);
    let time = NOW - 2 * MINUTE;
    let mut expected = Expected::new();
    // Four streams of 60 lines: over the limit together, and each over the limit from one end, not from both.
    for (i, host) in ["a", "b", "c", "d"].iter().cycle().take(240).enumerate() {
        let text = format!("flood {i}");
        loki.push("fake", &[("job", "app"), ("host", host)], time, &text);
        expected.push((Timestamp::from_nanos(time), text, 1));
    }
    loki.push("fake", &[("job", "app"), ("host", "a")], time + 1, "after");
    expected.push((Timestamp::from_nanos(time + 1), "after".into(), 1));
    for shards in [None, Some(3)] {
        loki.faults(|faults| faults.shards = shards);
        let source = builder(&loki.url(), &QUERIES[..1]).build().expect("a source");
        brings_every_line_once(&source, &[budget(7), budget(90)], expected.clone()).await;
    }
}

#[tokio::test]
async fn what_cannot_be_had_of_one_nanosecond_is_a_counted_gap() {
    let loki = fake().await;
    loki.faults(|faults| faults.max_entries = 40);
    for i in 0..100 {
        loki.push("fake", &[("job", "app")], NOW - 2 * MINUTE, &format!("flood {i}"));
    }
    let source = builder(&loki.url(), &QUERIES[..1]).build().expect("a source");
    let mut reader = Reader::default();
    reader.drain(&source, &[budget(1000)]).await.expect("a read");
    assert_eq!(reader.lines.len(), 80);
    let (_, kind, error) = reader.problems.pop().expect("a gap");
    assert_eq!(kind, ProblemKind::Gap { lines: Some(20) });
    insta::assert_snapshot!(chain(&error), @r#"lines of the query `{job="app"}` are missing: more lines of one stream carry the time 2026-11-20T21:58:17Z than Loki gives out (40 from each end)"#);
}

#[tokio::test]
async fn late_lines_are_found_by_overlap_sweep_and_deep_sweep() {
    let (loki, mut dice) = (fake().await, Dice(5));
    let source = builder(&loki.url(), &QUERIES).lookback(Duration::from_secs(6 * 3600)).build().expect("a source");
    let mut expected = Expected::new();
    let mut times = vec![];
    for i in 0..300_i64 {
        let time = NOW - 5 * 60 * MINUTE + i * MINUTE;
        times.push(time);
        push(&loki, &mut expected, &mut dice, time, &format!("first {i}"));
    }
    let mut reader = Reader::default();
    reader.drain(&source, &[budget(100)]).await.expect("a read");
    let mut now = NOW;
    for round in 0..6_i64 {
        // Late by a minute, by half an hour (beside others), and by four hours into minutes that had nothing.
        for (i, late) in [MINUTE, 30 * MINUTE, 71 * MINUTE].into_iter().enumerate() {
            push(&loki, &mut expected, &mut dice, now - late - round, &format!("late {round} {i}"));
        }
        now += 61 * MINUTE;
        loki.set_now(now);
        push(&loki, &mut expected, &mut dice, now - 20 * MINUTE, &format!("fresh {round}"));
        for lines in [2, 100] {
            let budget = Budget { now: Timestamp::from_nanos(now), ..budget(lines) };
            reader.drain(&source, &[budget]).await.expect("a read");
        }
    }
    expected.sort();
    assert_eq!(reader.brought(), expected);
    assert!(reader.late > 10, "{}", reader.late);
    assert!(reader.problems.is_empty(), "{:?}", reader.problems);
}

/// The deep sweep would find it an hour later.
#[tokio::test]
async fn a_line_that_comes_half_an_hour_late_is_found_within_minutes() {
    let loki = fake().await;
    let source = builder(&loki.url(), &QUERIES[..1]).lookback(Duration::from_secs(7200)).build().expect("a source");
    let mut reader = Reader::default();
    for minutes in [90, 30, 1] {
        loki.push("fake", &[("job", "app")], NOW - minutes * MINUTE, &format!("in time {minutes}"));
    }
    reader.drain(&source, &[budget(10)]).await.expect("a read");
    loki.push("fake", &[("job", "app")], NOW - 30 * MINUTE + SECOND, "late, beside another");
    loki.push("fake", &[("job", "app")], NOW - 50 * MINUTE, "late, alone");
    let now = NOW + 6 * MINUTE;
    loki.set_now(now);
    reader.drain(&source, &[Budget { now: Timestamp::from_nanos(now), ..budget(10) }]).await.expect("a read");
    assert_eq!((reader.lines.len(), reader.late), (5, 2));
}

#[tokio::test]
async fn a_whole_backlog_that_comes_hours_late_is_read_although_its_minutes_are_forgotten() {
    let loki = fake().await;
    let source = builder(&loki.url(), &QUERIES[..1]).lookback(Duration::from_secs(4 * 3600)).build().expect("a source");
    let mut reader = Reader::default();
    loki.push("fake", &[("job", "app")], NOW - 3 * 60 * MINUTE, "early");
    loki.push("fake", &[("job", "app")], NOW - MINUTE, "now");
    reader.drain(&source, &[budget(10)]).await.expect("a read");
    let newest = NOW / MINUTE;
    reader.seen.forget_before(newest - 75, newest - 1440);
    for i in 0..120 {
        let time = NOW - 150 * MINUTE + i * 30 * SECOND;
        loki.push("fake", &[("job", "app"), ("host", "back again")], time, &format!("backlog {i}"));
    }
    loki.push("fake", &[("job", "app"), ("host", "x")], NOW - 3 * 60 * MINUTE + 1, "beside a forgotten one");
    let later = NOW + 61 * MINUTE;
    loki.set_now(later);
    // A small budget, and forgetting after each page, as the ledger does.
    for _ in 0..40 {
        let budget = Budget { now: Timestamp::from_nanos(later), ..budget(7) };
        let more = reader.page(&source, budget).await.expect("a page");
        reader.seen.forget_before(later / MINUTE - 75, later / MINUTE - 1440);
        if !more {
            break;
        }
    }
    assert_eq!(reader.lines.len(), 122);
    let (_, kind, error) = reader.problems.pop().expect("a gap");
    assert_eq!(kind, ProblemKind::Gap { lines: Some(1) });
    insta::assert_snapshot!(chain(&error), @r#"lines of the query `{job="app"}` are missing: 1 of them came so late (between 2026-11-20T19:00:00.000000001Z and 2026-11-20T19:01:00.000000001Z) that they cannot be told from those already read"#);
}

#[tokio::test]
async fn a_cache_hides_nothing() {
    let loki = fake().await;
    loki.faults(|faults| faults.cache = true);
    let source = builder(&loki.url(), &[r#"{job="app"} |= "x""#]).build().expect("a source");
    let mut reader = Reader::default();
    reader.drain(&source, &[budget(10)]).await.expect("a read");
    loki.push("fake", &[("job", "app")], NOW - MINUTE, "x late");
    reader.drain(&source, &[budget(10)]).await.expect("a read");
    assert_eq!((reader.lines.len(), reader.late), (1, 1));
}

#[tokio::test]
async fn a_clamped_look_back_is_a_gap_that_is_told() {
    let loki = fake().await;
    let source = builder(&loki.url(), &QUERIES[..1]).build().expect("a source");
    let mut reader = Reader::default();
    for i in 0..5 {
        loki.push("fake", &[("job", "app")], NOW - 4 * MINUTE + i * 30 * SECOND, &format!("before {i}"));
    }
    reader.drain(&source, &[budget(10)]).await.expect("a read");
    let later = NOW + 5 * 60 * MINUTE;
    loki.set_now(later);
    loki.faults(|faults| faults.lookback = Some(Duration::from_secs(3600)));
    loki.push("fake", &[("job", "app")], later - MINUTE, "after");
    let budget = Budget { now: Timestamp::from_nanos(later), ..budget(10) };
    reader.drain(&source, &[budget]).await.expect("a read");
    assert_eq!(reader.lines.len(), 6);
    let (_, kind, error) = reader.problems.pop().expect("a gap");
    assert_eq!(kind, ProblemKind::Gap { lines: None });
    insta::assert_snapshot!(chain(&error), @r#"lines of the query `{job="app"}` are missing: Loki no longer shows the lines up to 2026-11-20T22:00:07Z that were read before; retention or `max_query_lookback` hides them, and with them what came while nobody was reading"#);
}

#[tokio::test]
async fn an_outage_of_a_week_is_caught_up_in_small_pages_oldest_first() {
    let loki = fake().await;
    let source = builder(&loki.url(), &QUERIES[..1]).build().expect("a source");
    let mut reader = Reader::default();
    reader.drain(&source, &[budget(10)]).await.expect("a read");
    for i in 0..5000 {
        loki.push("fake", &[("job", "app")], NOW + i * 2 * MINUTE, &format!("{i}"));
    }
    let later = NOW + 7 * 24 * 60 * MINUTE;
    loki.set_now(later);
    let budget = Budget { now: Timestamp::from_nanos(later), ..budget(500) };
    reader.drain(&source, &[budget]).await.expect("a read");
    assert_eq!(reader.lines.len(), 5000);
    assert!(reader.lines.is_sorted_by_key(|line| line.time));
    assert_eq!(reader.horizon, Some(Timestamp::from_nanos(later - 10 * SECOND)));
    let requests = loki.requests().len();
    assert!(requests < 400, "{requests} requests");

    // Several queries move on together: a small page needs no more than a small part of the week of each.
    let queries = [QUERIES[0], r#"{job=~"app|db"}"#];
    let source = builder(&loki.url(), &queries).lookback(Duration::from_secs(7 * 86_400)).build().expect("a source");
    let page = source.read(None, &Default::default(), Budget { lines: 50, ..budget }).await.expect("a page");
    let requests = loki.requests().len();
    assert!(page.more && requests < 40, "{requests} requests");
    assert!(page.lines.iter().all(|line| line.tags == 0b11), "what both match is one line");
}

#[tokio::test]
async fn large_lines_make_pages_small() {
    for oversize in [Fault::Cut, Fault::Hang, Fault::Status(504, "request timed out".into())] {
        let loki = fake().await;
        loki.faults(|faults| faults.oversize = oversize);
        for i in 0..60 {
            let text = format!("{i} {}", "x".repeat(200_000));
            loki.push("fake", &[("job", "app")], NOW - 2 * MINUTE + i, &text);
        }
        let source =
            builder(&loki.url(), &QUERIES[..1]).timeout(Duration::from_millis(1500)).build().expect("a source");
        let mut reader = Reader::default();
        reader.drain(&source, &[Budget { bytes: 3 << 20, ..budget(50_000) }]).await.expect("a read");
        assert_eq!(reader.lines.len(), 60);
        assert!(reader.problems.is_empty(), "{:?}", reader.problems);
    }
}

#[tokio::test]
async fn limits_are_learned() {
    let (loki, mut dice) = (fake().await, Dice(3));
    loki.faults(|faults| {
        faults.max_entries = 15;
        faults.max_query_length = Duration::from_secs(60);
    });
    let expected = fill(&loki, &mut dice, 150);
    let source = builder(&loki.url(), &QUERIES).page_lines(500).sweep(None).deep_sweep(None).build().expect("a source");
    brings_every_line_once(&source, &[budget(1000)], expected).await;
}

#[tokio::test]
async fn whatever_goes_wrong_the_lines_come_in_the_end() {
    for seed in 1..=6 {
        let (loki, mut dice) = (fake().await, Dice(seed * 31));
        loki.seed(seed);
        let expected = fill(&loki, &mut dice, 250);
        loki.faults(|faults| {
            *faults = Faults { chaos: Some(3), shards: (seed % 2 == 0).then_some(3), ..Faults::default() }
        });
        let source = builder(&loki.url(), &QUERIES).retries(1, Duration::ZERO).build().expect("a source");
        recovers(&source, &budgets(&mut dice), 1000, &expected).await;
    }
}

#[tokio::test]
async fn one_broken_query_does_not_keep_the_others_from_being_read() {
    let loki = fake().await;
    let other = r#"{job="db"}"#;
    loki.faults(|faults| faults.always.push(("\"db\"".into(), Fault::Status(400, "query blocked by policy".into()))));
    loki.push("fake", &[("job", "app")], NOW - MINUTE, "one");
    loki.push("fake", &[("job", "db")], NOW - MINUTE, "two");
    let source = builder(&loki.url(), &[other, QUERIES[0]]).build().expect("a source");
    let mut reader = Reader::default();
    reader.drain(&source, &[budget(10)]).await.expect("a read");
    assert_eq!((reader.lines.len(), reader.problems.len()), (1, 1));
    assert_eq!(
        reader.horizon,
        Some(Timestamp::from_nanos(NOW - 10 * SECOND)),
        "a query that never works holds up nothing"
    );
    let (subject, kind, error) = reader.problems.pop().expect("a problem");
    assert_eq!((subject.as_str(), kind), (other, ProblemKind::Retry));
    insta::assert_snapshot!(chain(&error).replace(&loki.url(), "LOKI"), @"the log source at LOKI refused the request (HTTP 400): query blocked by policy");

    loki.faults(|faults| faults.always.clear());
    reader.drain(&source, &[budget(10)]).await.expect("a read");
    assert_eq!(reader.lines.len(), 2, "what the broken query missed is read when it works again");
}

#[tokio::test]
async fn a_query_added_later_gets_its_own_lines_although_another_had_them() {
    let loki = fake().await;
    loki.push("fake", &[("job", "app")], NOW - MINUTE, "error");
    let mut reader = Reader::default();
    let source = builder(&loki.url(), &QUERIES[..1]).build().expect("a source");
    reader.drain(&source, &[budget(10)]).await.expect("a read");
    reader.lines.clear();
    let source = builder(&loki.url(), &[QUERIES[1], QUERIES[0]]).build().expect("a source");
    // The bits of the old order mean nothing in the new one; the reader would take them for the same.
    reader.seen = logwarden_core::source::Seen::default();
    reader.drain(&source, &[budget(10)]).await.expect("a read");
    assert_eq!(reader.brought().iter().map(|line| line.2).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn streams_are_labels_and_metadata_tells_level_and_host() {
    let loki = fake().await;
    let labels = [("job", "app"), ("__stream_shard__", "3")];
    loki.push_with("fake", &labels, NOW - MINUTE, "a", &[("host", "web-1"), ("detected_level", "error"), ("id", "1")]);
    loki.push_with("fake", &labels, NOW - MINUTE + 1, "b", &[("host", "web-1"), ("id", "2")]);
    let source = builder(&loki.url(), &QUERIES[..1]).build().expect("a source");
    let page = source.read(None, &Default::default(), budget(10)).await.expect("a page");
    let [a, b] = page.lines.as_slice() else { panic!("{:?}", page.lines) };
    assert_eq!(a.stream, b.stream);
    assert_eq!(a.stream.labels().keys().collect::<Vec<_>>(), ["job", "service_name"]);
    assert_eq!((a.stream.host(), a.stream.service()), (Some("web-1"), Some("app")));
    assert_eq!((a.stream.level().map(|l| l.as_str()), b.stream.level()), (Some("error"), None));
}

#[tokio::test]
async fn one_query_that_always_times_out_does_not_keep_the_others_from_being_read() {
    let loki = fake().await;
    loki.faults(|faults| faults.always.push(("\"db\"".into(), Fault::Hang)));
    loki.push("fake", &[("job", "app")], NOW - MINUTE, "one");
    let source = builder(&loki.url(), &[r#"{job="db"}"#, QUERIES[0]]).build().expect("a source");
    let mut reader = Reader::default();
    reader.drain(&source, &[budget(10)]).await.expect("a read");
    assert_eq!((reader.lines.len(), reader.problems.len()), (1, 1));
}

/// Loki's own notion of one line: labels without the shard that it happened to land in, time, text and metadata.
#[tokio::test]
async fn a_line_that_is_sent_again_into_another_shard_is_the_same_line_and_other_metadata_make_another() {
    let loki = fake().await;
    let source = builder(&loki.url(), &QUERIES[..1]).build().expect("a source");
    let mut reader = Reader::default();
    for (stream, time, id) in [("1", "1", "a"), ("2", "1", "a"), ("1", "2", "a"), ("1", "1", "b")] {
        let labels = [("job", "app"), ("__stream_shard__", stream), ("__time_shard__", time)];
        loki.push_with("fake", &labels, NOW - MINUTE, "same text", &[("trace_id", id)]);
        reader.drain(&source, &[budget(10)]).await.expect("a read");
    }
    assert_eq!(reader.lines.len(), 2, "{:?}", reader.lines);
}

#[tokio::test]
async fn streams_are_merged_by_time_and_whatever_is_in_a_line_stays_in_it() {
    let loki = fake().await;
    let texts = ["", "a\nb\tc\r\n", "\u{1b}[31mred\u{1b}[0m", "caf\u{fffd} \0 <b>&amp;", "  blanks  ", "last"];
    let second = |i: usize| NOW - MINUTE + i as i64 * SECOND;
    for (i, text) in texts.iter().enumerate() {
        loki.push("fake", &[("job", "app"), ("host", ["a", "b"][i % 2])], second(i), text);
    }
    let source = builder(&loki.url(), &QUERIES[..1]).build().expect("a source");
    let page = source.read(None, &Default::default(), budget(100)).await.expect("a page");
    let read: Vec<_> = page.lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect();
    assert_eq!(read, texts);
}

#[tokio::test]
async fn a_loki_that_hangs_costs_one_patience_however_many_queries_there_are() {
    let loki = fake().await;
    let patience = Duration::from_secs(2);
    let queries = [QUERIES[0], QUERIES[1], r#"{job="db"}"#, r#"{job="nginx"}"#];
    let sweeping = builder(&loki.url(), &queries).timeout(patience).patience(patience);
    let mut reader = Reader::default();
    reader.drain(&sweeping.clone().build().expect("a source"), &[budget(10)]).await.expect("a read");
    loki.faults(|faults| faults.always.push((String::new(), Fault::Hang)));
    // The first time after a sweep that hangs, too.
    for builder in [sweeping.clone(), sweeping.sweep(None).deep_sweep(None)] {
        let source = builder.build().expect("a source");
        let began = std::time::Instant::now();
        let now = Timestamp::from_nanos(NOW + 10 * MINUTE);
        reader.page(&source, Budget { now, ..budget(10) }).await.expect_err("nobody answers");
        assert!(began.elapsed() < patience + Duration::from_millis(800), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn one_query_that_hangs_leaves_time_for_the_others() {
    let loki = fake().await;
    loki.faults(|faults| faults.always.push(("\"db\"".into(), Fault::Hang)));
    loki.push("fake", &[("job", "app")], NOW - MINUTE, "one");
    let second = Duration::from_secs(1);
    let source = builder(&loki.url(), &[r#"{job="db"}"#, QUERIES[0]]).timeout(second * 60).patience(second).build();
    let mut reader = Reader::default();
    reader.drain(&source.expect("a source"), &[budget(10)]).await.expect("a read");
    assert_eq!((reader.lines.len(), reader.problems.len()), (1, 1));
}

#[tokio::test]
async fn a_slow_loki_brings_in_time_what_it_can_and_the_rest_later() {
    let loki = fake().await;
    loki.faults(|faults| {
        faults.max_entries = 10;
        faults.always.push((String::new(), Fault::Delay(Duration::from_millis(40))));
    });
    for i in 0..200 {
        loki.push("fake", &[("job", "app")], NOW - 2 * MINUTE + i, &format!("{i}"));
    }
    let source = builder(&loki.url(), &QUERIES[..1]).patience(Duration::from_millis(400)).build().expect("a source");
    let mut reader = Reader::default();
    assert!(reader.page(&source, budget(1000)).await.expect("a page"), "there is more");
    assert!((1..200).contains(&reader.lines.len()), "{}", reader.lines.len());
    reader.drain(&source, &[budget(1000)]).await.expect("the rest");
    assert_eq!(reader.lines.len(), 200);
}
