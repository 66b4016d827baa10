//! What does not come: said in time, once, and never because of us.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use logwarden_detectors::{Memory, Read, RuleSet, Settings, detect_lines};
use logwarden_templates::{Carry, Clock, Config, End, FoldOptions, Miner, Record, Stream, Timestamp};

const START: i64 = 1_795_233_600;
/// Minutes until everything is known.
pub(crate) const LEARNED: i64 = 4 * 1440;

/// A source of several machines, whose minutes count from [`START`].
pub(crate) struct Source {
    miner: Miner,
    memory: Memory,
}

pub(crate) type Entry = (&'static str, i64, String);

fn time(minute: i64) -> Timestamp {
    Timestamp::from_secs(START + minute * 60)
}

impl Source {
    pub(crate) fn new() -> Self {
        Self { miner: Miner::new(Config::default()), memory: Memory::default() }
    }

    /// What is found in a read of lines at minutes.
    fn read(&mut self, entries: &[Entry], read: impl Into<Read>) -> Vec<String> {
        let mut streams = BTreeMap::new();
        for (host, ..) in entries {
            let labels = BTreeMap::from([("host".to_owned(), (*host).to_owned())]);
            streams.entry(*host).or_insert_with(|| Arc::new(Stream::new(labels)));
        }
        let times = || entries.iter().map(|(_, minute, _)| Timestamp::from_secs(START + minute * 60 + 1));
        let records = entries.iter().zip(times()).map(|((host, _, text), time)| Record {
            stream: &streams[host],
            time,
            clock: Clock::Record,
            text: text.as_bytes(),
            tags: 1,
        });
        let records: Vec<_> = records.collect();
        let mut delta = self.miner.fold(Carry::default(), records, FoldOptions { end: End::Closed, assign: true });
        let texts: Vec<_> = times().zip(entries).map(|(time, (.., text))| (time, text.as_bytes())).collect();
        let settings = Settings::default();
        let detection = detect_lines(&mut delta, &texts, &self.memory, &RuleSet::builtin(), &settings, read);
        self.miner.apply(&delta);
        self.memory.apply(&detection.learned);
        detection.findings.iter().map(|finding| format!("{}: {}", finding.severity, finding.title)).collect()
    }

    /// Reads every five minutes what `writes` says that a minute brings; everything that was found, with the minute.
    pub(crate) fn live(
        &mut self,
        minutes: std::ops::Range<i64>,
        writes: impl Fn(i64) -> Vec<Entry>,
    ) -> Vec<(i64, String)> {
        let mut found = Vec::new();
        for to in minutes.step_by(5).map(|from| from + 5) {
            let entries: Vec<_> = (to - 5..to).flat_map(&writes).collect();
            found.extend(self.read(&entries, time(to)).into_iter().map(|title| (to - LEARNED, title)));
        }
        found
    }
}

fn usual(minute: i64) -> Vec<Entry> {
    let mut entries = vec![
        ("web-1", minute, "app: heartbeat".to_owned()),
        ("db-2", minute, format!("replica: replay position {minute}")),
    ];
    if minute % 10 == 3 {
        entries.push(("web-1", minute, "cron[9]: tick".to_owned()));
        entries.push(("db-2", minute, "postgres[7]: checkpoint complete".to_owned()));
    }
    entries
}

fn learned() -> Source {
    let mut source = Source::new();
    assert_eq!(source.live(0..LEARNED, usual), []);
    source
}

fn without(minute: i64, text: &str) -> Vec<Entry> {
    usual(minute).into_iter().filter(|(host, _, line)| !line.contains(text) && *host != text).collect()
}

#[test]
fn a_line_that_has_stopped_is_told_although_little_else_is_written() {
    let mut source = learned();
    let night = |minute: i64| {
        let mut entries = without(minute, "heartbeat");
        entries.retain(|(host, minute, _)| *host == "web-1" && *minute < LEARNED + 9);
        entries.push(("web-1", minute, "sshd[8]: Connection closed by 192.0.2.10 port 4711".to_owned()));
        entries.retain(|(_, minute, _)| minute % 5 == 1);
        entries
    };
    let found = source.live(LEARNED..LEARNED + 15, night);
    let told = ["high: No line of db-2 comes any more", "medium: a service has gone quiet: app: heartbeat"];
    assert_eq!(found, told.map(|told| (10, told.to_owned())), "although the last line was written at minute 6");
}

#[test]
fn what_was_not_read_is_not_missed() {
    let mut source = learned();
    let now = time(LEARNED + 60);
    for whole_to in [None, Some(time(LEARNED + 5))] {
        let found = source.read(&[], Read { now, whole_to, unheard: Duration::ZERO });
        assert_eq!(found, Vec::<String>::new(), "read up to {whole_to:?}");
    }
    assert_eq!(source.read(&[], now).len(), 2, "and now it is");
}

#[test]
fn a_machine_that_stops_is_one_finding_and_what_it_writes_again_has_its_time() {
    let mut source = learned();
    let found = source.live(LEARNED..LEARNED + 300, |minute| without(minute, "db-2"));
    assert_eq!(found, [(10, "high: No line of db-2 comes any more".to_owned())]);
    // A checkpoint is due every ten minutes, and was five hours ago.
    let back = LEARNED + 300;
    assert_eq!(source.live(back..back + 30, |minute| without(minute, "checkpoint")), []);
    let found = source.live(back + 30..back + 120, |minute| without(minute, "checkpoint"));
    assert_eq!(found, [(355, "medium: a service has gone quiet: postgres[…]: checkpoint complete".to_owned())]);
}

#[test]
fn a_machine_whose_clock_is_behind_is_not_silent_until_it_is() {
    let mut source = Source::new();
    let mut found = Vec::new();
    let mut live = |minutes: std::ops::Range<i64>, beats: bool, lives: bool| {
        for to in minutes.step_by(5).map(|from| from + 5) {
            // As a shipper sends: one machine at a time.
            for (host, behind) in [("web-1", 0), ("old-3", 40)] {
                let minutes = (to - 5..to).map(|minute| minute - behind);
                let mut entries: Vec<Entry> =
                    minutes.map(|minute| (host, minute, "app: heartbeat".to_owned())).collect();
                entries.push((host, to - 2 - behind, "cron[9]: tick".to_owned()));
                entries.retain(|(_, _, text)| host != "old-3" || lives && (beats || text.contains("cron")));
                found.extend(source.read(&entries, time(to)).into_iter().map(|title| (to - LEARNED, title)));
            }
        }
        std::mem::take(&mut found)
    };
    assert_eq!(live(0..LEARNED + 60, true, true), []);
    assert_eq!(
        live(LEARNED + 60..LEARNED + 120, false, true),
        [(75, "medium: a service has gone quiet: app: heartbeat".to_owned())]
    );
    let found = live(LEARNED + 120..LEARNED + 200, false, false);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains("No line of old-3 comes any more") && found[0].0 <= 150, "{found:?}");
}

#[test]
fn after_a_time_in_which_nobody_listened_silence_counts_anew() {
    let mut source = learned();
    // For three hours nobody took what was sent. One machine is back half an hour later, the other never.
    let again = LEARNED + 180;
    let read = Read { now: time(again), whole_to: Some(time(again)), unheard: Duration::from_secs(3 * 3600) };
    assert_eq!(source.read(&[], read), Vec::<String>::new());
    assert_eq!(source.live(again..again + 30, |_| Vec::new()), []);
    let found = source.live(again + 30..again + 180, |minute| without(minute, "db-2"));
    assert_eq!(found, [(230, "high: No line of db-2 comes any more".to_owned())]);
}
