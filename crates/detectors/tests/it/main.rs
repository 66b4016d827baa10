//! Real lines, folded by the real miner, through the detectors.

mod clock;
mod gates;
mod silence;
mod values;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use logwarden_detectors::{
    Detection, EntityKind, Finding, Memory, RuleSet, Settings, Severity, SignalKind, SourceRow, detect, detect_lines,
};
use proptest::prelude::*;

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
    miner.fold(Carry::default(), records, FoldOptions { end: End::Closed, assign: true })
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
    assert!(finding.title.starts_with("Failed SSH logins from several addresses, such as "), "{}", finding.title);
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
            "medium: Failed SSH logins from 203.0.113.7"
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
    // Five minutes later, and in the same minute, as one reads who reads all the time.
    let later = [300, 30].map(|after| fold(&miner, START + after, &accepted));
    for later in &later {
        let lost = detect(later, &memory, &RuleSet::builtin(), &settings, now);
        assert!(lost.findings.is_empty(), "without the commit nothing is remembered");
    }
    memory.apply(&first.learned);
    for later in &later {
        let held = detect(later, &memory, &RuleSet::builtin(), &settings, now);
        let worst = held.findings.first().map(|finding| finding.severity);
        assert_eq!(worst, Some(Severity::Critical), "{:?}", titles(&held));
    }
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
        let source = SourceRow { first: Some(Timestamp::from_secs(START - 60)), lines: 1, ..SourceRow::default() };
        let detection = detect(&delta, &Memory::new(source, Vec::new()), &RuleSet::builtin(), &settings, now);
        assert_eq!(detection.findings.len(), findings, "{:?}", titles(&detection));
        assert!(detection.signals.iter().any(|signal| signal.kind == SignalKind::Novel));
    }
}

/// One source that lives on: each pass is folded, looked at and committed.
struct Life {
    miner: Miner,
    memory: Memory,
    settings: Settings,
}

impl Life {
    fn new(warm_up_minutes: u64) -> Self {
        let settings = Settings {
            warm_up: Duration::from_secs(warm_up_minutes * 60),
            warm_up_lines: u64::MAX,
            ..Settings::default()
        };
        Self { miner: Miner::new(Config::default()), memory: Memory::default(), settings }
    }

    fn pass(&mut self, at: i64, lines: &[String]) -> Vec<Finding> {
        let mut delta = fold(&self.miner, START + at, lines);
        let texts: Vec<_> =
            (START + at..).zip(lines).map(|(second, text)| (Timestamp::from_secs(second), text.as_bytes())).collect();
        let now = Timestamp::from_secs(START + at + lines.len() as i64);
        let detection = detect_lines(&mut delta, &texts, &self.memory, &RuleSet::builtin(), &self.settings, now);
        self.miner.apply(&delta);
        self.memory.apply(&detection.learned);
        detection.findings
    }
}

fn request(n: usize, query: &str, status: u16) -> String {
    let address = format!("198.51.100.{}", n % 200);
    format!(
        "{address} - - [21/Nov/2026:04:00:00 +0000] \"GET /shop/item?id={query} HTTP/1.1\" {status} 512 \"-\" \"Mozilla/5.0\""
    )
}

#[test]
fn one_attack_among_thousands_of_requests_of_its_template_is_found_counted_and_shown() {
    let mut lines: Vec<String> = (0..4000).map(|n| request(n, &n.to_string(), 200)).collect();
    lines[2000] = request(7, "1%27%20or%20%271%27=%271", 200);
    let mut delta = fold(&Miner::new(Config::default()), START, &lines);
    let texts: Vec<_> = lines.iter().map(|text| (Timestamp::from_secs(START), text.as_bytes())).collect();
    let settings = Settings { self_relative: true, ..Settings::default() };
    let (rules, memory, now) = (RuleSet::builtin(), Memory::default(), Timestamp::from_secs(START + 4000));
    assert!(detect(&delta, &memory, &rules, &settings, now).findings.is_empty(), "no sample shows it");
    let detection = detect_lines(&mut delta, &texts, &memory, &rules, &settings, now);
    let [finding] = &detection.findings[..] else { panic!("{:?}", titles(&detection)) };
    assert_eq!((finding.count, finding.title.as_str()), (1, "Somebody tries to run SQL through a web application"));
    assert_eq!(finding.entities[0].value.as_ref(), "198.51.100.7");
    let row = &delta.rows[finding.rows[0] as usize];
    assert!(row.samples.iter().any(|sample| sample.text == lines[2000].as_bytes()));
}

#[test]
fn a_finding_is_bounded_and_says_what_it_leaves_out() {
    let lines: Vec<String> =
        (0..600).map(|n| ssh(&format!("user{n}"), &format!("198.51.{}.{}", n % 100, 1 + n / 3), 20_000 + n)).collect();
    let detection = scan(&lines);
    let [finding] = &detection.findings[..] else { panic!("{:?}", titles(&detection)) };
    assert!(finding.entities.len() <= 64 && finding.rows.len() <= 64 && finding.anomalous.len() <= 16);
    assert!(finding.explanation.contains("more addresses, users or others"), "{}", finding.explanation);
    assert!(finding.entities.windows(2).all(|pair| pair[0].count >= pair[1].count), "ranked");
}

#[test]
fn what_a_rule_finds_again_in_another_template_is_the_same_thing() {
    let mut life = Life::new(0);
    let probe = |path: &str| {
        format!(
            "203.0.113.7 - - [21/Nov/2026:04:00:00 +0000] \"GET {path} HTTP/1.1\" 404 157 \"-\" \"Mozilla/5.00 (Nikto/2.1.6)\""
        )
    };
    let (one, two) = (life.pass(0, &[probe("/admin/")]), life.pass(300, &[probe("/cgi-bin/x.cgi")]));
    assert_eq!((one.len(), two.len()), (1, 1));
    assert_ne!(one[0].count, 0);
    assert_eq!(one[0].absent[0].root, two[0].absent[0].root);
}

#[test]
fn a_threshold_counts_across_passes() {
    let mut life = Life::new(0);
    let probe = |path: &str| format!("203.0.113.7 - - [21/Nov/2026:04:00:00 +0000] \"GET {path} HTTP/1.1\" 404 157");
    assert!(life.pass(0, &[probe("/.env")]).is_empty());
    assert!(life.pass(60, &[probe("/.git/config")]).is_empty());
    assert_eq!(life.pass(120, &[probe("/backup.sql")]).len(), 1);
}

#[test]
fn who_fails_after_getting_in_has_not_guessed() {
    let accepted = "sshd[9]: Accepted password for deploy from 203.0.113.7 port 4711 ssh2".to_owned();
    let failures = (0..20).map(|n| ssh("deploy", "203.0.113.7", 4000 + n));
    let lines: Vec<String> = [accepted].into_iter().chain(failures).collect();
    assert!(scan(&lines).findings.iter().all(|finding| finding.severity < Severity::Critical));
}

#[test]
fn a_login_after_failures_shows_lines_of_that_address_only() {
    let mut lines: Vec<String> =
        (0..300).map(|n| ssh("root", &format!("198.51.100.{}", 1 + n % 30), 4000 + n)).collect();
    let theirs = (0..9).map(|n| format!("sshd[7]: Invalid user u{n} from 203.0.113.7 port {}", 5000 + n));
    lines.extend(theirs.chain((0..9).map(|n| ssh("deploy", "203.0.113.7", 6000 + n))));
    lines.push("sshd[9]: Accepted password for deploy from 203.0.113.7 port 4711 ssh2".to_owned());
    lines.push("vsftpd: [bob] FAIL LOGIN: Client \"198.51.100.9\"".to_owned());
    let mut delta = fold(&Miner::new(Config::default()), START, &lines);
    let texts: Vec<_> = lines.iter().map(|text| (Timestamp::from_secs(START), text.as_bytes())).collect();
    let settings = Settings { self_relative: true, ..Settings::default() };
    let now = Timestamp::from_secs(START + 600);
    let detection = detect_lines(&mut delta, &texts, &Memory::default(), &RuleSet::builtin(), &settings, now);
    let finding = &detection.findings[0];
    assert_eq!(finding.severity, Severity::Critical, "{:?}", titles(&detection));
    for row in &finding.rows {
        let samples = &delta.rows[*row as usize].samples;
        let named = |text: &[u8]| String::from_utf8_lossy(text).contains("203.0.113.7");
        assert!(samples.iter().any(|sample| named(&sample.text)), "{}", delta.rows[*row as usize].template);
    }
    assert!(finding.rows.len() >= 2, "the login, and failures before it");
}

#[test]
fn an_account_at_two_places_is_seen_across_passes() {
    let login =
        |from: &str| format!("sshd[9]: Accepted publickey for anna from {from} port 4711 ssh2: ED25519 SHA256:x");
    let mut life = Life::new(0);
    let apart = |findings: &[Finding]| findings.iter().any(|finding| finding.title.contains("two far-apart networks"));
    assert!(!apart(&life.pass(0, &[login("198.51.100.7")])));
    assert!(!apart(&life.pass(120, &[login("198.51.7.7")])), "the same network");
    let source = life.memory.source();
    assert_eq!(&SourceRow::decode(&source.encode()).unwrap(), source);
    assert!(apart(&life.pass(300, &[login("203.0.113.9")])));
    assert!(!apart(&life.pass(2000, &[login("198.51.100.7")])), "half an hour is enough for a journey to the office");
}

#[test]
fn a_change_of_the_mix_is_seen_in_small_portions() {
    let mut life = Life::new(0);
    let warn = |n: i64| format!("2026-11-21 04:00:00 WARN shop: stock of item {n} is low");
    let info = |n: i64| format!("2026-11-21 04:00:00 INFO shop: order {n} is done");
    for step in 0..200 {
        let lines: Vec<String> = (0..10).map(|n| if n == 0 { warn(step) } else { info(n) }).collect();
        assert!(life.pass(step * 300, &lines).is_empty());
    }
    let of_mix = |findings: &[Finding]| findings.iter().any(|finding| finding.title.contains("warnings and errors"));
    let told = (0..30).any(|second| of_mix(&life.pass(200 * 300 + second, &[warn(second)])));
    assert!(told, "thirty deltas of one line in the same minutes");
}

#[test]
fn failures_that_name_nobody_count_together() {
    let lines: Vec<String> =
        (0..6).map(|n| format!("charon[15]: 06[IKE] <x|{n}> EAP-MS-CHAPv2 verification failed, retry (1)")).collect();
    assert_eq!(titles(&scan(&lines)), ["medium: Failed VPN logins from somewhere"]);
}

#[test]
fn what_calls_a_new_destination_by_the_clock_is_found_once_normal_is_known() {
    let mut life = Life::new(45);
    let call = |peer: &str| {
        format!(
            "<166>FW %ASA-6-302013: Built outbound TCP connection 7 for inside:192.0.2.30/5266 (192.0.2.1/4826) to outside:{peer}/443 ({peer}/443)"
        )
    };
    let mut found = Vec::new();
    for step in 0..40 {
        let mut lines = vec![call("198.51.100.30")];
        if step >= 20 {
            lines.push(call("203.0.113.99"));
        }
        found.extend(life.pass(step * 300, &lines).into_iter().map(|finding| finding.title));
    }
    found.dedup();
    assert_eq!(found, ["Something calls 203.0.113.99 every 5 minutes"]);
}

#[test]
fn many_kinds_of_errors_at_once_are_a_change_of_the_mix() {
    let mut life = Life::new(60);
    let lines = |warnings: usize| -> Vec<String> {
        let of = |n: usize| ["cart", "order", "stock", "mail"][n % 4];
        let line = |n: usize| match n < warnings {
            true => format!("2026-11-21 04:00:00 WARN shop: the {} answers slowly ({n} ms)", of(n)),
            false => format!("2026-11-21 04:00:00 INFO shop: step {n} of the {} is done", of(n)),
        };
        (0..60).map(line).collect()
    };
    for step in 0..30 {
        let findings = life.pass(step * 300, &lines(4));
        assert!(findings.is_empty(), "{findings:?}");
    }
    let findings = life.pass(30 * 300, &lines(30));
    assert!(findings.iter().any(|finding| finding.title.contains("far more warnings and errors")), "{findings:?}");
}

#[test]
fn a_machine_that_falls_silent_is_one_finding_even_when_nothing_else_comes() {
    let mut life = Life::new(60);
    let day = 86_400;
    for step in 0..(4 * 288) {
        life.pass(step * 300, &["app: heartbeat".to_owned(), "cron: tick".to_owned()]);
    }
    let empty = fold(&life.miner, START, &[]);
    let now = Timestamp::from_secs(START + 4 * day + 3_600);
    let detection = detect(&empty, &life.memory, &RuleSet::builtin(), &life.settings, now);
    assert_eq!(titles(&detection), ["high: No line of web-1 comes any more"]);
    life.memory.apply(&detection.learned);
    assert!(detect(&empty, &life.memory, &RuleSet::builtin(), &life.settings, now).findings.is_empty(), "told once");
}

#[test]
fn a_shipper_is_left_alone_while_it_is_well() {
    let mut life = Life::new(0);
    let healthy = [
        "fluent-bit[9]: [2026/11/21 04:00:00] [ info] [input:tail:tail.0] inotify_fs_add(): inode=12 watch_fd=1 name=/var/log/syslog",
        "promtail[9]: level=info ts=2026-11-21T04:00:00Z caller=tailer.go:147 msg=\"tail routine: started\" path=/var/log/syslog",
        "rsyslogd[9]: [origin software=\"rsyslogd\" x-pid=\"9\" x-info=\"https://www.rsyslog.com\"] rsyslogd was HUPed",
    ];
    assert!(life.pass(0, &healthy.map(str::to_owned)).is_empty());
    let ill = (0..5).map(|n| format!("fluent-bit[9]: [2026/11/21 04:00:0{n}] [ warn] [engine] failed to flush chunk '9-{n}.flb', retry in 7 seconds: task_id={n}"));
    let findings = life.pass(300, &ill.collect::<Vec<_>>());
    assert_eq!(
        findings.iter().map(|finding| finding.title.as_str()).collect::<Vec<_>>(),
        ["A log shipper cannot deliver and tries again and again"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_line_makes_it_panic_and_everything_stays_in_bounds(
        texts in prop::collection::vec(
            prop_oneof![
                "\\PC{0,120}",
                "[0-9a-f.:%\\[\\]/ ]{0,60}",
                "(sshd\\[9\\]: Failed password for |[0-9.:]{1,9} - - \\[21/Nov/2026:04:00:00 \\+0000\\] \"GET /|kernel: )[\\PC]{0,60}(\"| from [0-9.]{1,12})? 404 12",
            ],
            0..40,
        )
    ) {
        let run = || {
            let mut delta = fold(&Miner::new(Config::default()), START, &texts);
            let lines: Vec<_> = texts.iter().map(|text| (Timestamp::from_secs(START), text.as_bytes())).collect();
            let settings = Settings { self_relative: true, ..Settings::default() };
            let now = Timestamp::from_secs(START + 60);
            let detection = detect_lines(&mut delta, &lines, &Memory::default(), &RuleSet::builtin(), &settings, now);
            (titles(&detection), detection, delta.rows.len())
        };
        let (titles, detection, rows) = run();
        for finding in &detection.findings {
            prop_assert!(finding.rows.len() <= 64 && finding.entities.len() <= 64);
            prop_assert!(finding.rows.iter().all(|row| (*row as usize) < rows));
            prop_assert!(finding.entities.iter().all(|entity| entity.kind != EntityKind::Ip || !entity.value.is_empty()));
        }
        prop_assert_eq!(run().0, titles, "the same again");
    }
}

#[test]
fn at_the_very_first_look_new_is_no_signal() {
    let lines = vec!["2026-11-21 04:00:00 ERROR the frobnicator has lost its grip".to_owned()];
    let delta = fold(&Miner::new(Config::default()), START, &lines);
    let now = Timestamp::from_secs(START + 60);
    let detection = detect(&delta, &Memory::default(), &RuleSet::builtin(), &Settings::default(), now);
    assert!(detection.signals.is_empty(), "{:?}", detection.signals);
}
