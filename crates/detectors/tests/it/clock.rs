//! Clocks that are wrong, on the machines that write or here: at worst something is told twice, never nothing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use logwarden_detectors::{Memory, RuleSet, Settings, Severity, detect_lines};
use logwarden_templates::{Carry, Clock, Config, End, FoldOptions, Miner, Record, Stream, Timestamp};

const START: i64 = 1_795_233_600;
const DAY: i64 = 1440;
const YEAR: i64 = 365 * DAY;

/// A source whose minutes count from [`START`].
struct Source {
    miner: Miner,
    memory: Memory,
}

fn time(minute: i64) -> Timestamp {
    Timestamp::from_secs(START + minute * 60)
}

impl Source {
    fn new() -> Self {
        Self { miner: Miner::new(Config::default()), memory: Memory::default() }
    }

    /// What is found at `now` in lines of these minutes.
    fn read(&mut self, now: i64, entries: &[(i64, String)]) -> Vec<(Severity, String)> {
        let stream = Arc::new(Stream::new(BTreeMap::from([("host".to_owned(), "web-1".to_owned())])));
        let lines: Vec<_> = entries.iter().map(|(minute, text)| (time(*minute), text.as_bytes())).collect();
        let records = lines.iter().map(|(time, text)| Record {
            stream: &stream,
            time: *time,
            clock: Clock::Record,
            text,
            tags: 1,
        });
        let options = FoldOptions { end: End::Closed, assign: true };
        let mut delta = self.miner.fold(Carry::default(), records.collect::<Vec<_>>(), options);
        let settings = Settings { warm_up: Duration::from_secs(86_400), ..Settings::default() };
        let rules = RuleSet::builtin();
        let detection = detect_lines(&mut delta, &lines, &self.memory, &rules, &settings, time(now));
        self.miner.apply(&delta);
        self.memory.apply(&detection.learned);
        detection.findings.into_iter().map(|finding| (finding.severity, finding.title)).collect()
    }

    /// Reads a heartbeat every minute, five at a time; all that was found.
    fn live(&mut self, minutes: std::ops::Range<i64>) -> Vec<(Severity, String)> {
        let mut found = Vec::new();
        for to in minutes.step_by(5).map(|from| from + 5) {
            let beats: Vec<_> = (to - 5..to).flat_map(|minute| [beat(minute), tick(minute)]).collect();
            found.extend(self.read(to, &beats));
        }
        found
    }
}

fn beat(minute: i64) -> (i64, String) {
    (minute, "app: heartbeat".to_owned())
}

fn tick(minute: i64) -> (i64, String) {
    (minute, "cron[9]: tick".to_owned())
}

fn failure(minute: i64, port: usize) -> (i64, String) {
    (minute, format!("sshd[9]: Failed password for deploy from 203.0.113.7 port {port} ssh2"))
}

#[test]
fn a_line_from_the_future_does_not_make_us_forget_who_has_failed() {
    let mut source = Source::new();
    source.read(1, &[beat(0), beat(YEAR)]);
    source.read(2, &(0..20).map(|n| failure(1, 4000 + n)).collect::<Vec<_>>());
    source.read(10, &[beat(9)]);
    let accepted = "sshd[9]: Accepted password for deploy from 203.0.113.7 port 4711 ssh2".to_owned();
    let found = source.read(15, &[(14, accepted)]);
    assert_eq!(found.first().map(|(severity, _)| *severity), Some(Severity::Critical), "{found:?}");
}

#[test]
fn a_login_from_the_future_does_not_make_us_forget_the_others() {
    let login = |minute: i64, user: &str, from: &str| {
        (minute, format!("sshd[9]: Accepted publickey for {user} from {from} port 4711 ssh2: ED25519 SHA256:x"))
    };
    let mut source = Source::new();
    source.read(1, &[login(YEAR, "bob", "198.51.100.7")]);
    source.read(5, &[login(4, "anna", "203.0.113.7")]);
    let found = source.read(10, &[login(9, "anna", "198.18.0.7")]);
    assert!(found.iter().any(|(_, title)| title.contains("two far-apart networks")), "{found:?}");
}

#[test]
fn failures_from_the_future_are_forgotten_in_time_and_hide_none_of_today() {
    let mut source = Source::new();
    source.read(1, &(0..20).map(|n| failure(YEAR, 4000 + n)).collect::<Vec<_>>());
    source.read(DAY, &[beat(DAY - 1)]);
    let accepted = "sshd[9]: Accepted password for deploy from 203.0.113.7 port 4711 ssh2".to_owned();
    assert_eq!(source.read(DAY + 5, &[(DAY + 4, accepted)]), [], "a day later nobody asks");
}

#[test]
fn a_line_from_the_future_does_not_hide_that_it_stops_or_comes_too_often() {
    let mut source = Source::new();
    assert_eq!(source.live(0..4 * DAY), []);
    let now = 4 * DAY;
    source.read(now + 1, &[beat(now), tick(now), beat(now + YEAR)]);
    assert_eq!(source.live(now + 5..now + 60), []);
    let mut flood: Vec<_> = (0..400).map(|n| beat(now + 60 + n / 100)).collect();
    flood.push(tick(now + 64));
    let found = source.read(now + 65, &flood);
    assert!(found.iter().any(|(_, title)| title.contains("far more often than usual")), "{found:?}");
    let mut found = Vec::new();
    for to in (now + 70..now + 180).step_by(5) {
        found.extend(source.read(to, &(to - 5..to).map(tick).collect::<Vec<_>>()));
    }
    assert!(found.iter().any(|(_, title)| title.contains("has gone quiet")), "{found:?}");
}

#[test]
fn our_own_clock_may_have_been_ahead() {
    let mut source = Source::new();
    assert_eq!(source.live(0..4 * DAY), []);
    // Here and there it was a year later for an hour.
    let _ = source.live(4 * DAY + YEAR..4 * DAY + YEAR + 60);
    let _ = source.live(4 * DAY + 60..8 * DAY);
    let mut found = Vec::new();
    for to in (8 * DAY + 5..8 * DAY + 180).step_by(5) {
        found.extend(source.read(to, &(to - 5..to).map(tick).collect::<Vec<_>>()));
    }
    assert!(found.iter().any(|(_, title)| title.contains("has gone quiet")), "{found:?}");
}

#[test]
fn a_line_from_the_past_does_not_end_the_warm_up() {
    let mut source = Source::new();
    source.read(5, &[beat(4)]);
    source.read(10, &[beat(9), beat(-20 * YEAR)]);
    let error = "2026-11-21 04:00:00 ERROR the frobnicator has lost its grip".to_owned();
    assert_eq!(source.read(15, &[(14, error)]), []);
}
