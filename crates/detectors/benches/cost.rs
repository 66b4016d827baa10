//! What the detectors add to folding: 50,000 templates in memory, 1,000 rules, pages of 10,000 lines, as an ingest takes.
//!
//! `cargo bench -p logwarden-detectors --bench cost` prints ratios of CPU times from one run, which hold on other machines
//! too, and fails when that of the page of many templates is above 15 %. Two ordinary logs are measured beside it, and the
//! files that are named: `-- FILE…`; with `-- logins` or `-- web` that log alone.
#![expect(clippy::print_stdout, reason = "the figure is the result")]

use std::{env, fmt::Write, fs, hint::black_box, process::ExitCode, sync::Arc};

use logwarden_detectors::{Memory, RuleSet, Settings, SourceRow, detect, detect_lines};
use logwarden_templates::{Carry, Clock, Config, End, FoldOptions, Miner, Record, Stream, Timestamp};

const TEMPLATES: usize = 50_000;
const RULES: usize = 1_000;
const LINES: usize = 10_000;
const PROGRAMS: usize = 50;
const ROUNDS: i64 = 15;
const MOST: f64 = 0.15;
const BEGIN: i64 = 1_795_233_600;

struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The words of a template: none of them is in another one.
fn words(template: usize) -> String {
    let mut dice = Dice(template as u64);
    let mut text = String::new();
    for _ in 0..5 + template % 5 {
        for _ in 0..4 + dice.roll() % 6 {
            text.push(char::from(b'a' + (dice.roll() % 26) as u8));
        }
        text.push(' ');
    }
    text
}

/// Lines with the streams that they are of.
struct Log {
    streams: Vec<Arc<Stream>>,
    lines: Vec<(usize, String)>,
}

impl Log {
    fn new(programs: impl IntoIterator<Item = String>) -> Self {
        let stream = |name: String| {
            let labels = [("host", "web-1".to_owned()), ("service_name", name)];
            Arc::new(Stream::new(labels.map(|(name, value)| (name.to_owned(), value)).into()))
        };
        Self { streams: programs.into_iter().map(stream).collect(), lines: Vec::new() }
    }

    fn times(&self, at: i64) -> impl Iterator<Item = Timestamp> {
        (0..self.lines.len() as i64).map(move |number| Timestamp::from_nanos(at * 1_000_000_000 + number * 5_000_000))
    }

    fn records(&self, at: i64) -> impl Iterator<Item = Record<'_>> {
        self.lines.iter().zip(self.times(at)).map(|((program, text), time)| Record {
            stream: &self.streams[*program],
            time,
            clock: Clock::Record,
            text: text.as_bytes(),
            tags: 1,
        })
    }
}

/// Many templates, of which a few make most of the lines.
struct Many(Vec<String>);

impl Many {
    fn log() -> Log {
        Log::new((0..PROGRAMS).map(|number| format!("program-{number}")))
    }

    fn line(&self, template: usize, dice: &mut Dice) -> (usize, String) {
        let (a, b, program) = (dice.roll() % 100_000, dice.roll() % 250, template % PROGRAMS);
        (program, format!("program-{program}[{a}]: {}from 203.0.113.{b} took {a} ms", self.0[template]))
    }

    /// Every template once.
    fn all(&self, dice: &mut Dice) -> Log {
        Log { lines: (0..TEMPLATES).map(|template| self.line(template, dice)).collect(), ..Self::log() }
    }

    fn page(&self, dice: &mut Dice) -> Log {
        let line = |_| {
            let u = (dice.roll() >> 11) as f64 / (1_u64 << 53) as f64;
            self.line((TEMPLATES as f64 * u.powi(4)) as usize % TEMPLATES, dice)
        };
        Log { lines: (0..LINES).map(line).collect(), ..Self::log() }
    }
}

/// What a machine on the internet writes about logins: mostly of those who guess.
fn auth(dice: &mut Dice) -> Log {
    let mut log = Log::new(["sshd", "CRON", "sudo"].map(str::to_owned));
    while log.lines.len() < LINES {
        let mut roll = |n: u64| dice.roll() % n;
        let (pid, port, user) = (roll(60_000), 1024 + roll(60_000), words(roll(500) as usize));
        let user = user.split(' ').next().unwrap_or_default();
        let from = format!("203.0.{}.{}", roll(4), roll(250));
        let lines = match roll(10) {
            0..6 => vec![
                (0, format!("sshd[{pid}]: Invalid user {user} from {from} port {port}")),
                (0, format!("sshd[{pid}]: pam_unix(sshd:auth): check pass; user unknown")),
                (
                    0,
                    format!(
                        "sshd[{pid}]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={from} "
                    ),
                ),
                (0, format!("sshd[{pid}]: Failed password for invalid user {user} from {from} port {port} ssh2")),
                (0, format!("sshd[{pid}]: Received disconnect from {from} port {port}:11: Bye Bye [preauth]")),
                (0, format!("sshd[{pid}]: Disconnected from invalid user {user} {from} port {port} [preauth]")),
            ],
            6..8 => vec![
                (1, format!("CRON[{pid}]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)")),
                (1, format!("CRON[{pid}]: (root) CMD (/usr/lib/sysstat/debian-sa1 1 1)")),
                (1, format!("CRON[{pid}]: pam_unix(cron:session): session closed for user root")),
            ],
            _ => vec![
                (
                    0,
                    format!(
                        "sshd[{pid}]: Accepted publickey for deploy from 192.0.2.{} port {port} ssh2: ED25519 SHA256:{user}",
                        roll(9)
                    ),
                ),
                (
                    0,
                    format!("sshd[{pid}]: pam_unix(sshd:session): session opened for user deploy(uid=1000) by (uid=0)"),
                ),
                (
                    2,
                    format!(
                        "sudo[{pid}]:   deploy : TTY=pts/0 ; PWD=/srv/shop ; USER=root ; COMMAND=/usr/bin/systemctl status shop-{}",
                        roll(20)
                    ),
                ),
                (0, format!("sshd[{pid}]: pam_unix(sshd:session): session closed for user deploy")),
            ],
        };
        log.lines.extend(lines);
    }
    log.lines.truncate(LINES);
    log
}

/// What a web server writes about its visitors.
fn access(dice: &mut Dice) -> Log {
    const AGENTS: [&str; 5] = [
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/604.1",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "uptime-probe/2.1",
    ];
    let mut log = Log::new(["nginx".to_owned()]);
    for number in 0..LINES {
        let mut roll = |n: u64| dice.roll() % n;
        let page = words(roll(400) as usize).replace(' ', "-");
        let target = match roll(10) {
            0..3 => format!("/assets/{page}.{}", ["js", "css", "png", "svg"][roll(4) as usize]),
            3..6 => format!("/products/{}/{page}", roll(100_000)),
            6 => format!("/search?q={page}%20lamp&page={}", roll(9)),
            7 => format!("/api/v1/stock/{}", roll(100_000)),
            8 => "/wp-login.php".to_owned(),
            _ => "/".to_owned(),
        };
        let status = [200, 200, 200, 200, 200, 200, 304, 301, 404, 500][roll(10) as usize];
        let method = if roll(8) == 0 { "POST" } else { "GET" };
        let (a, b, bytes, agent) = (roll(250), roll(250), roll(90_000), AGENTS[roll(5) as usize]);
        log.lines.push((0, format!(
            "198.51.{a}.{b} - - [21/Nov/2026:04:{:02}:{:02} +0000] \"{method} {target} HTTP/1.1\" {status} {bytes} \"https://shop.example.org/\" \"{agent}\"",
            number / 1000, number % 60
        )));
    }
    log
}

/// A file's first lines, as one stream.
fn file(path: &str) -> Log {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines = text.split(|byte| *byte == b'\n').map(|line| (0, String::from_utf8_lossy(line).into_owned()));
    Log { lines: lines.take(LINES).collect(), ..Log::new([String::new()]) }
}

/// The rules that come with the program, and as many more as it takes.
fn rules() -> RuleSet {
    let own = RuleSet::builtin().rules().count();
    let mut text = "version = 1\n".to_owned();
    for number in own..RULES {
        let word = words(1_000_000 + number);
        let word = word.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let _ = write!(
            text,
            "[[rule]]\nid = \"bench-{number}\"\ntitle = \"{word}\"\nseverity = \"low\"\ncategory = \"other\"\n\
             any = [\"{word}\"]\nregex = '{word} (?<what>\\w+)'\nexplanation = \"e\"\nnext = \"n\"\nsource = \"s\"\n\
             examples = [\"app: {word} x\"]\n\n"
        );
    }
    match RuleSet::with_files([("bench.toml", text.as_str())]) {
        Ok(rules) => rules,
        Err(error) => panic!("{error:?}"),
    }
}

/// Nanoseconds that this thread has run.
fn cpu() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

/// A source with what is known of it.
struct Source<'r> {
    rules: &'r RuleSet,
    settings: Settings,
    miner: Miner,
    memory: Memory,
    at: i64,
}

/// Milliseconds.
#[derive(Clone, Copy, Default)]
struct Spent {
    rows: usize,
    folding: f64,
    by_rows: f64,
    by_lines: f64,
}

impl<'r> Source<'r> {
    fn new(rules: &'r RuleSet) -> Self {
        let config = Config { max_templates: 4 * TEMPLATES, max_new_per_program: TEMPLATES, ..Config::default() };
        let settings = Settings { max_rows: 4 * TEMPLATES, ..Settings::default() };
        let memory = Memory::new(SourceRow { backfilled: true, ..SourceRow::default() }, []);
        Self { rules, settings, miner: Miner::new(config), memory, at: BEGIN }
    }

    /// Takes a log that was written `later` seconds after the one before.
    fn take(&mut self, log: &Log, later: i64) -> Spent {
        self.at += later;
        let lines: Vec<(Timestamp, &[u8])> = log.records(self.at).map(|record| (record.time, record.text)).collect();
        let now = Timestamp::from_secs(self.at + 300);
        let start = cpu();
        let options = FoldOptions { end: End::Closed, assign: true };
        let mut delta = black_box(self.miner.fold(Carry::default(), log.records(self.at), options));
        self.miner.apply(&delta);
        let folded = cpu();
        drop(black_box(detect(&delta, &self.memory, self.rules, &self.settings, now)));
        let by_rows = cpu();
        let detection = black_box(detect_lines(&mut delta, &lines, &self.memory, self.rules, &self.settings, now));
        let by_lines = cpu();
        self.memory.apply(&detection.learned);
        let millis = |from: u64, to: u64| (to - from) as f64 / 1e6;
        Spent {
            rows: delta.rows.len(),
            folding: millis(start, folded),
            by_rows: millis(folded, by_rows),
            by_lines: millis(by_rows, by_lines),
        }
    }
}

/// The mean of all: the clock of a thread is too coarse for single rounds.
fn mean(rounds: &[Spent]) -> Spent {
    let of = |what: fn(&Spent) -> f64| rounds.iter().map(what).sum::<f64>() / rounds.len().max(1) as f64;
    let rows = rounds.last().map_or(0, |spent| spent.rows);
    Spent { rows, folding: of(|s| s.folding), by_rows: of(|s| s.by_rows), by_lines: of(|s| s.by_lines) }
}

fn report(name: &str, spent: Spent) -> f64 {
    let percent = |part: f64| 100.0 * part / spent.folding;
    println!(
        "{name:<24} {:>7} rows  folding {:>7.1} ms  by rows {:>6.1} ms {:>6.1} %  by rows and lines {:>6.1} ms {:>6.1} %",
        spent.rows,
        spent.folding,
        spent.by_rows,
        percent(spent.by_rows),
        spent.by_lines,
        percent(spent.by_lines)
    );
    spent.by_lines / spent.folding
}

/// Rounds of an ordinary log; one before them finds whatever is made ready once.
fn ordinary(name: &str, rules: &RuleSet, log: impl FnMut() -> Log) {
    let mut source = Source::new(rules);
    let logs = std::iter::repeat_with(log).take(6);
    let rounds: Vec<Spent> = logs.map(|log| source.take(&log, 300)).collect();
    report(name, mean(&rounds[1..]));
}

fn main() -> ExitCode {
    let named: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let [only] = &named[..]
        && let Some(log) = [("logins", auth as fn(&mut Dice) -> Log), ("web", access)].iter().find(|log| log.0 == only)
    {
        let mut dice = Dice(1);
        ordinary(log.0, &rules(), || log.1(&mut dice));
        return ExitCode::SUCCESS;
    }
    let (rules, many, mut dice) = (rules(), Many((0..TEMPLATES).map(words).collect()), Dice(1));
    let mut source = Source::new(&rules);
    for _ in 0..3 {
        source.take(&many.all(&mut dice), 86_400);
    }
    let rounds: Vec<Spent> = (0..ROUNDS).map(|_| source.take(&many.page(&mut dice), 300)).collect();
    println!("{} rules; CPU time for {LINES} lines\n", rules.rules().count());
    let ratio = report(&format!("{} templates", source.memory.len()), mean(&rounds));
    ordinary("logins", &rules, || auth(&mut dice));
    ordinary("web server", &rules, || access(&mut dice));
    for path in named {
        ordinary(path.rsplit('/').next().unwrap_or_default(), &rules, || file(&path));
    }
    println!("\nof folding at most {:.0} % with {TEMPLATES} templates: {:.1} %", 100.0 * MOST, 100.0 * ratio);
    if ratio <= MOST { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
