//! Real lines, folded by the real miner, through the detectors.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use logwarden_detectors::{Detection, Memory, RuleSet, Settings, Severity, SignalKind, detect};
use logwarden_templates::{Carry, Clock, Config, Delta, End, FoldOptions, Miner, Record, Stream, Timestamp};

const START: i64 = 1_795_233_600;

/// Folds lines that are a second apart.
fn fold(miner: &Miner, from: i64, lines: &[String]) -> Delta {
    let stream = Arc::new(Stream::new(BTreeMap::from([("host".to_owned(), "web-1".to_owned())])));
    let records: Vec<Record<'_>> = (from..)
        .zip(lines)
        .map(|(second, text)| Record {
            stream: &stream,
            time: Timestamp::from_secs(second),
            clock: Clock::Record,
            text: text.as_bytes(),
            tags: 1,
        })
        .collect();
    miner.fold(Carry::default(), records, FoldOptions { end: End::Closed, assign: false })
}

fn scan(lines: &[String]) -> Detection {
    let delta = fold(&Miner::new(Config::default()), START, lines);
    let settings = Settings { self_relative: true, ..Settings::default() };
    detect(&delta, &Memory::default(), &RuleSet::builtin(), &settings, Timestamp::from_secs(START + 3600))
}

fn titles(detection: &Detection) -> Vec<String> {
    detection.findings.iter().map(|finding| format!("{}: {}", finding.severity, finding.title)).collect()
}

fn ssh(user: &str, address: &str, port: usize) -> String {
    format!("sshd[{port}]: Failed password for {user} from {address} port {port} ssh2")
}

#[test]
fn five_hundred_failures_from_many_addresses_are_one_finding() {
    let lines: Vec<String> =
        (0..500).map(|n| ssh("root", &format!("203.0.113.{}", 1 + (n * n) % 23), 20_000 + n)).collect();
    let detection = scan(&lines);
    assert_eq!(detection.findings.len(), 1, "{:?}", titles(&detection));
    let finding = &detection.findings[0];
    assert!(finding.title.starts_with("500 failed SSH logins from "), "{}", finding.title);
    assert_eq!((finding.severity, finding.count), (Severity::High, 500));
    assert!(finding.entities.len() > 5, "{:?}", finding.entities);
}

#[test]
fn a_person_who_mistypes_twice_is_no_finding_and_one_who_gets_in_after_many_is_critical() {
    let accepted = "sshd[9]: Accepted password for deploy from 203.0.113.7 port 4711 ssh2".to_owned();
    let mut lines: Vec<String> = (0..2).map(|n| ssh("deploy", "203.0.113.7", 4000 + n)).collect();
    lines.push(accepted.clone());
    assert_eq!(titles(&scan(&lines)), Vec::<String>::new());

    let mut lines: Vec<String> = (0..40).map(|n| ssh("deploy", "203.0.113.7", 4000 + n)).collect();
    lines.push(accepted);
    let detection = scan(&lines);
    assert_eq!(
        titles(&detection),
        [
            "critical: Login as deploy from 203.0.113.7 succeeded after 40 failures",
            "medium: 40 failed SSH logins from 203.0.113.7"
        ]
    );
}

#[test]
fn a_success_is_held_against_failures_of_an_earlier_delta() {
    let miner = Miner::new(Config::default());
    let settings = Settings { self_relative: true, ..Settings::default() };
    let now = Timestamp::from_secs(START + 600);
    let mut memory = Memory::default();
    let lines: Vec<String> = (0..20).map(|n| ssh("deploy", "203.0.113.7", 4000 + n)).collect();
    let first = detect(&fold(&miner, START, &lines), &memory, &RuleSet::builtin(), &settings, now);
    let accepted = vec!["sshd[9]: Accepted password for deploy from 203.0.113.7 port 4711 ssh2".to_owned()];
    let later = fold(&miner, START + 300, &accepted);
    let lost = detect(&later, &memory, &RuleSet::builtin(), &settings, now);
    assert!(lost.findings.is_empty(), "without the commit nothing is remembered");
    memory.apply(&first.learned);
    let held = detect(&later, &memory, &RuleSet::builtin(), &settings, now);
    assert_eq!(held.findings[0].severity, Severity::Critical, "{:?}", titles(&held));
}

#[test]
fn a_nearly_full_disk_is_high_at_least() {
    let lines = vec!["monitor: Disk space on /dev/sda1 is critically low: only 5% remaining.".to_owned()];
    let detection = scan(&lines);
    assert!(detection.findings.iter().any(|finding| finding.severity >= Severity::High), "{:?}", titles(&detection));
}

#[test]
fn ordinary_lines_are_no_finding() {
    let mut lines = Vec::new();
    for n in 0..200 {
        lines.push(format!("CRON[{n}]: (root) CMD (test -x /usr/sbin/anacron || run-parts /etc/cron.hourly)"));
        lines.push(format!(
            "sshd[{n}]: Accepted publickey for deploy from 192.0.2.10 port {} ssh2: ED25519 SHA256:x",
            40_000 + n
        ));
        lines.push(format!("systemd[1]: Started Session {n} of User deploy."));
    }
    assert_eq!(titles(&scan(&lines)), Vec::<String>::new());
}

#[test]
fn a_new_error_pages_nobody_while_warming_up_and_somebody_afterwards() {
    let miner = Miner::new(Config::default());
    let lines = vec!["2026-11-21 04:00:00 ERROR the frobnicator has lost its grip".to_owned()];
    let delta = fold(&miner, START, &lines);
    for (warm_up_lines, findings) in [(50_000, 0), (0, 1)] {
        let settings = Settings { warm_up_lines, warm_up: Duration::from_secs(86_400), ..Settings::default() };
        let now = Timestamp::from_secs(START + 60);
        let detection = detect(&delta, &Memory::default(), &RuleSet::builtin(), &settings, now);
        assert_eq!(detection.findings.len(), findings, "{:?}", titles(&detection));
        assert!(detection.signals.iter().any(|signal| signal.kind == SignalKind::Novel));
    }
}
