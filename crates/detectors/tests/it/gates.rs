//! The gates of docs/detection.md on public data that is not in the repository. Opt-in:
//!
//! ```text
//! LOGWARDEN_DATASETS=DIR cargo test -p logwarden-detectors --test it -- --ignored --nocapture gate
//! ```
//!
//! `DIR/office` has `branch-clean` and `branch-attack` (a synthetic office of EvidenceForge), `DIR/crowdsec` the tests of
//! the CrowdSec hub (`NAME/scenario.assert` beside a log).

#![expect(clippy::print_stdout, reason = "the report is what these tests are run for")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use logwarden_detectors::{
    By, Category, EntityKind, Finding, Memory, MemoryKey, Route, RuleSet, Settings, Severity, detect_lines,
};
use logwarden_templates::{Carry, Clock, Config, Delta, End, FoldOptions, Miner, Record, Stream, Timestamp, header};

fn datasets() -> PathBuf {
    env::var_os("LOGWARDEN_DATASETS")
        .map(PathBuf::from)
        .expect("LOGWARDEN_DATASETS names the directory of the data sets")
}

/// A line with its own time.
struct Line {
    stream: Arc<Stream>,
    time: Timestamp,
    text: Vec<u8>,
}

/// The lines of a file. Times come from the lines themselves; a line without one has that of the line before.
fn lines(path: &Path, stream: &Arc<Stream>, reference: Timestamp) -> Vec<Line> {
    let mut last = reference;
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let line = |text: &[u8]| {
        let record = Record { stream, time: reference, clock: Clock::Arrival, text, tags: 1 };
        last = header::inspect(&record).time.unwrap_or(last);
        Line { stream: stream.clone(), time: last, text: text.to_vec() }
    };
    text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).map(line).collect()
}

fn stream(labels: &[(&str, &str)]) -> Arc<Stream> {
    Arc::new(Stream::new(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()))
}

/// One source over time: what a run of the timer does, without a ledger.
struct Replay {
    miner: Miner,
    memory: Memory,
    settings: Settings,
}

/// A finding with the lines that can be shown for it: the samples of the rows that it cites.
struct Told {
    finding: Finding,
    lines: Vec<String>,
    keys: Vec<MemoryKey>,
}

impl Replay {
    fn new(settings: Settings) -> Self {
        Self { miner: Miner::new(Config::default()), memory: Memory::default(), settings }
    }

    fn fold<'a>(&mut self, lines: impl IntoIterator<Item = &'a Line>) -> Delta {
        let records = lines.into_iter().map(|line| Record {
            stream: &line.stream,
            time: line.time,
            clock: Clock::Record,
            text: &line.text,
            tags: 1,
        });
        self.miner.fold(Carry::default(), records, FoldOptions { end: End::Closed, assign: true })
    }

    /// One pass over lines that end before `now`.
    fn pass(&mut self, lines: &[&Line], now: Timestamp) -> Vec<Told> {
        let mut delta = self.fold(lines.iter().copied());
        let rules = RuleSet::builtin();
        let texts: Vec<(Timestamp, &[u8])> = lines.iter().map(|line| (line.time, &line.text[..])).collect();
        let detection = detect_lines(&mut delta, &texts, &self.memory, &rules, &self.settings, now);
        self.miner.apply(&delta);
        self.memory.apply(&detection.learned);
        let told = |finding: Finding| {
            let samples = finding.rows.iter().flat_map(|row| &delta.rows[*row as usize].samples);
            let lines = samples.map(|sample| String::from_utf8_lossy(&sample.text).into_owned()).collect();
            let keys = finding.anomalous.iter().map(|row| &delta.rows[*row as usize]);
            let keys = keys.map(|row| MemoryKey::of(&row.origin, row.root)).collect();
            Told { finding, lines, keys }
        };
        detection.findings.into_iter().map(told).collect()
    }

    /// Passes of five minutes over everything, in order.
    fn replay(&mut self, lines: &[Line]) -> Vec<Told> {
        let mut sorted: Vec<&Line> = lines.iter().collect();
        sorted.sort_by_key(|line| line.time);
        let mut told = Vec::new();
        for pass in sorted.chunk_by(|a, b| a.time.secs() / 300 == b.time.secs() / 300) {
            let now = Timestamp::from_secs((pass[0].time.secs() / 300 + 1) * 300);
            told.extend(self.pass(pass, now));
        }
        told
    }
}

/// Findings that the ledger would join: same keys, nothing of it for less than an hour.
fn incidents(told: &[Told]) -> Vec<(Timestamp, Severity, &str)> {
    let mut open: BTreeMap<(MemoryKey, &str), (usize, Timestamp)> = BTreeMap::new();
    let mut incidents: Vec<(Timestamp, Severity, &str)> = Vec::new();
    for told in told.iter().filter(|told| told.finding.route == Route::Alert) {
        let Told { finding, keys, .. } = told;
        let named = |key: &MemoryKey| (*key, finding.discriminator.as_str());
        let known = keys.iter().filter_map(|key| open.get(&named(key)));
        let joined =
            known.filter(|(_, last)| finding.first.since(*last) < Duration::from_secs(3600)).map(|(at, _)| *at);
        let at = joined.min().unwrap_or_else(|| {
            incidents.push((finding.first, finding.severity, &finding.title));
            incidents.len() - 1
        });
        incidents[at].1 = incidents[at].1.max(finding.severity);
        open.extend(keys.iter().map(|key| (named(key), (at, finding.last))));
    }
    incidents
}

// ---------------------------------------------------------------- office

/// A step of the attack: which lines of which file are its evidence. Times are UTC, of 14 May 2024.
struct Step {
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    words: &'static [&'static str],
}

const STEPS: &[Step] = &[
    Step { name: "web scan", file: "web_access.log", from: "12:55", to: "13:00", words: &["Nikto"] },
    Step { name: "web shell login", file: "syslog.log", from: "13:04", to: "13:06", words: &["Accepted", "www-data"] },
    Step {
        name: "internal scan",
        file: "cisco_asa.log",
        from: "13:09",
        to: "13:11",
        words: &["Deny tcp", "src dmz:10.44.30.10"],
    },
    Step {
        name: "beacon (proxy)",
        file: "proxy_access.log",
        from: "13:44",
        to: "14:25",
        words: &["CONNECT northlakeportal.com"],
    },
    Step {
        name: "beacon (firewall)",
        file: "cisco_asa.log",
        from: "13:44",
        to: "14:25",
        words: &["302013", "outside:45.83.221.30/443"],
    },
];

const MIDNIGHT: i64 = 1_715_644_800;

fn clock(text: &str) -> Timestamp {
    let (hours, minutes) = text.split_once(':').expect("hh:mm");
    let number = |text: &str| text.parse::<i64>().expect("a number");
    Timestamp::from_secs(MIDNIGHT + number(hours) * 3600 + number(minutes) * 60)
}

fn office(branch: &str, shift: Duration) -> Vec<Line> {
    let dir = datasets().join("office").join(branch);
    let mut all = Vec::new();
    for host in fs::read_dir(&dir).expect("the office's logs").flatten().filter(|host| host.path().is_dir()) {
        for file in fs::read_dir(host.path()).expect("a host's logs").flatten() {
            let host = host.file_name().to_string_lossy().split('.').next().unwrap_or_default().to_owned();
            let name = file.file_name().to_string_lossy().into_owned();
            let stream = stream(&[("host", &host), ("filename", &name)]);
            all.extend(lines(&file.path(), &stream, clock("12:00")));
        }
    }
    all.iter_mut().for_each(|line| line.time = line.time.minus(shift));
    all
}

fn evidence(step: &Step, lines: &[Line]) -> BTreeSet<String> {
    let of_step = |line: &&Line| {
        let text = String::from_utf8_lossy(&line.text);
        line.stream.labels()["filename"] == step.file
            && (clock(step.from)..clock(step.to)).contains(&line.time)
            && step.words.iter().all(|word| text.contains(word))
    };
    lines.iter().filter(of_step).map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
}

/// Alerts of medium and above: in all, in the busiest hour, and how many are critical.
fn noise(told: &[Told], what: &str) -> (usize, usize) {
    let incidents = incidents(told);
    let mut hours: BTreeMap<i64, usize> = BTreeMap::new();
    println!("\n{what}: {} findings in {} incidents", told.len(), incidents.len());
    for (first, severity, title) in &incidents {
        println!("  {first} {severity}: {title}");
        if *severity >= Severity::Medium {
            *hours.entry(first.secs() / 3600).or_default() += 1;
        }
    }
    let worst = hours.values().copied().max().unwrap_or(0);
    let critical = incidents.iter().filter(|(_, severity, _)| *severity == Severity::Critical).count();
    println!("  busiest hour: {worst} of medium or above; critical: {critical}");
    (worst, critical)
}

/// Which steps are found, with what share of their lines; and the alerts that show no line of any step.
fn recall(told: &[Told], attack: &[Line], what: &str) -> Vec<&'static str> {
    println!("\n{what}");
    let mut missed = Vec::new();
    let mut of_attack = BTreeSet::new();
    for step in STEPS {
        let evidence = evidence(step, attack);
        assert!(!evidence.is_empty(), "the data has no evidence of {}", step.name);
        of_attack.extend(evidence.iter().cloned());
        let mut shown: BTreeMap<&str, BTreeSet<&String>> = BTreeMap::new();
        for told in told.iter().filter(|told| told.finding.route == Route::Alert) {
            let lines: BTreeSet<&String> = told.lines.iter().filter(|line| evidence.contains(*line)).collect();
            if !lines.is_empty() {
                shown.entry(&told.finding.title).or_default().extend(lines);
            }
        }
        println!("  {}: {} lines of evidence", step.name, evidence.len());
        shown.iter().for_each(|(title, lines)| println!("    {} in: {title}", lines.len()));
        if shown.is_empty() {
            missed.push(step.name);
        }
    }
    let alerts: Vec<&Told> = told.iter().filter(|told| told.finding.route == Route::Alert).collect();
    let right = alerts.iter().filter(|told| told.lines.iter().any(|line| of_attack.contains(line))).count();
    println!(
        "  recall {} of {} steps, missed {missed:?}; {right} of {} findings show lines of the attack",
        STEPS.len() - missed.len(),
        STEPS.len(),
        alerts.len()
    );
    missed
}

fn cold() -> Settings {
    Settings { warm_up: Duration::from_secs(45 * 60), ..Settings::default() }
}

#[test]
#[ignore = "needs data that is not ours: LOGWARDEN_DATASETS=DIR cargo test -p logwarden-detectors --test it -- --ignored gate"]
fn gate_office() {
    let day = Duration::from_secs(86_400);
    let clean = office("branch-clean", Duration::ZERO);
    let attack = office("branch-attack", Duration::ZERO);

    let mut replay = Replay::new(cold());
    let (worst_cold, critical_cold) = noise(&replay.replay(&clean), "clean, cold");

    let mut replay = Replay::new(cold());
    replay.replay(&office("branch-clean", day));
    let (worst_learned, critical_learned) = noise(&replay.replay(&clean), "clean, the same learned the day before");

    let mut replay = Replay::new(cold());
    let told = replay.replay(&attack);
    noise(&told, "attacked, cold");
    let missed_cold = recall(&told, &attack, "attacked, cold");

    let mut replay = Replay::new(cold());
    replay.replay(&office("branch-clean", day));
    let told = replay.replay(&attack);
    noise(&told, "attacked, after the clean day");
    let missed_learned = recall(&told, &attack, "attacked, after the clean day");

    assert_eq!((missed_cold, missed_learned), (Vec::new(), Vec::new()));
    assert!(worst_cold <= 3 && worst_learned <= 3, "at most three per hour: {worst_cold}, {worst_learned}");
    assert_eq!((critical_cold, critical_learned), (0, 0));
}

// ---------------------------------------------------------------- crowdsec

/// Families by the kind of log that a test says it has, or by its name.
fn family(test: &str, log_type: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| test.starts_with(word) || log_type == *word);
    match () {
        () if has(&["ssh", "endlessh"]) => "ssh",
        () if has(&["postfix", "dovecot", "exim", "exchange", "amavis", "zimbra", "mailu", "exchange-imap"]) => "mail",
        () if has(&[
            "nginx",
            "apache2",
            "apache_log4j2",
            "traefik",
            "caddy",
            "haproxy",
            "aws-alb",
            "bunkerweb",
            "modsecurity",
            "zoraxy",
            "nginx-proxy-manager",
        ]) =>
        {
            "web"
        }
        () if has(&["charon", "wireguard", "openvpn", "pfsense", "opnsense", "mikrotik", "iptables"]) => "network",
        () if has(&["mysql", "mariadb", "pgsql", "mongodb", "couchdb", "supabase"]) => "database",
        () if has(&["CVE-2021-4034", "auditd", "segfault", "windows", "smb", "proftpd", "cowrie", "bind9"]) => "system",
        () if has(&["asterisk", "freeswitch"]) => "telephone",
        () => "applications",
    }
}

/// The alerts that are right for a log: scenario and source.
fn expected(assert: &str) -> BTreeSet<(String, String)> {
    let mut scenarios: BTreeMap<&str, &str> = BTreeMap::new();
    let mut sources: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in assert.lines() {
        let Some((left, right)) = line.split_once(" == ") else { continue };
        let Some(result) = left.split(']').next() else { continue };
        let value = right.trim().trim_matches('"');
        if left.contains("GetScenario()") {
            scenarios.insert(result, value);
        } else if left.contains(".Overflow.") && left.ends_with(".GetValue()") {
            sources.entry(result).or_default().insert(value);
        }
    }
    let none = BTreeSet::from([""]);
    let of = |(result, scenario): (&&str, &&str)| {
        let sources = sources.get(result).unwrap_or(&none).iter();
        sources.map(|source| ((*scenario).to_owned(), (*source).to_owned())).collect::<Vec<_>>()
    };
    scenarios.iter().flat_map(of).collect()
}

/// Whether a finding tells of an attack by `source`: a rule of security found it, and names the address or shows its lines.
fn tells_of(told: &Told, source: &str) -> bool {
    // A whole network stands for its addresses.
    let source = if source.contains('/') { "" } else { source };
    let security = matches!(told.finding.by, By::Rule { .. })
        && told.finding.profile.as_str() == "security"
        && told.finding.category != Category::Other;
    let named = told.finding.entities.iter().any(|e| e.kind == EntityKind::Ip && *e.value == *source);
    security && (source.is_empty() || named || told.lines.iter().any(|line| line.contains(source)))
}

#[test]
#[ignore = "needs data that is not ours: LOGWARDEN_DATASETS=DIR cargo test -p logwarden-detectors --test it -- --ignored gate"]
fn gate_crowdsec() {
    let dir = datasets().join("crowdsec");
    let mut families: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut tests: Vec<PathBuf> = fs::read_dir(&dir).expect("the tests").flatten().map(|entry| entry.path()).collect();
    tests.sort();
    for test in tests {
        let name = test.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let read = |file: &str| fs::read_to_string(test.join(file)).unwrap_or_default();
        let value = |key: &str| {
            let config = read("config.yaml");
            let line = config.lines().find(|line| line.starts_with(key)).map(str::to_owned);
            line.and_then(|line| line.split_once(':').map(|(_, v)| v.trim().trim_matches('"').to_owned()))
        };
        let expected = expected(&read("scenario.assert"));
        if expected.is_empty() {
            continue;
        }
        let family = family(&name, &value("log_type").unwrap_or_default());
        let log = test.join(value("log_file").expect("a test names its log"));
        let reference = Timestamp::from_secs(1_715_644_800);
        let stream = stream(&[("host", "test")]);
        let lines = lines(&log, &stream, reference);
        let mut replay = Replay::new(Settings { self_relative: true, ..Settings::default() });
        let told = replay.pass(&lines.iter().collect::<Vec<_>>(), reference);
        let (found, missed): (Vec<_>, Vec<_>) =
            expected.iter().partition(|(_, source)| told.iter().any(|told| tells_of(told, source)));
        let count = families.entry(family).or_default();
        (count.0, count.1) = (count.0 + found.len(), count.1 + expected.len());
        if !missed.is_empty() {
            println!("{family} {name}: missed {missed:?}");
            told.iter().for_each(|told| println!("    has {}: {}", told.finding.severity, told.finding.title));
        }
    }
    println!();
    for (family, (found, of)) in &families {
        println!("{family}: {found} of {of} alerts ({} %)", 100 * found / of);
    }
    for family in ["ssh", "web", "mail"] {
        let (found, of) = families[family];
        assert!(100 * found >= 80 * of, "{family}: {found} of {of}");
    }
}
