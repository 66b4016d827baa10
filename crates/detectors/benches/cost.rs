//! What the detectors add to folding: 50,000 templates in memory, 1,000 rules, pages of 50,000 lines.
//!
//! `cargo bench -p logwarden-detectors --bench cost` prints a ratio of CPU times from one run, which holds on other
//! machines too, and fails when it is above 15 %.
#![expect(clippy::print_stdout, reason = "the figure is the result")]

use std::{fmt::Write, fs, hint::black_box, process::ExitCode, sync::Arc};

use logwarden_detectors::{Memory, RuleSet, Settings, SourceRow, detect};
use logwarden_templates::{Carry, Clock, Config, End, FoldOptions, Miner, Record, Stream, Timestamp};

const TEMPLATES: usize = 50_000;
const RULES: usize = 1_000;
const LINES: usize = 50_000;
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

struct Input {
    words: Vec<String>,
    streams: Vec<Arc<Stream>>,
}

impl Input {
    fn new() -> Self {
        let stream = |n: usize| {
            let labels = [("host", "web-1".to_owned()), ("service_name", format!("program-{n}"))];
            Arc::new(Stream::new(labels.map(|(name, value)| (name.to_owned(), value)).into()))
        };
        Self { words: (0..TEMPLATES).map(words).collect(), streams: (0..PROGRAMS).map(stream).collect() }
    }

    fn line(&self, template: usize, dice: &mut Dice) -> String {
        let (a, b) = (dice.roll() % 100_000, dice.roll() % 250);
        format!("program-{}[{a}]: {}from 203.0.113.{b} took {a} ms", template % PROGRAMS, self.words[template])
    }

    /// A page of lines; a few templates make most of them.
    fn page(&self, dice: &mut Dice) -> Vec<(usize, String)> {
        let template = |dice: &mut Dice| {
            let u = (dice.roll() >> 11) as f64 / (1_u64 << 53) as f64;
            (TEMPLATES as f64 * u.powi(4)) as usize % TEMPLATES
        };
        (0..LINES)
            .map(|_| {
                let template = template(dice);
                (template % PROGRAMS, self.line(template, dice))
            })
            .collect()
    }

    fn records<'a>(&'a self, page: &'a [(usize, String)], at: i64) -> impl Iterator<Item = Record<'a>> {
        page.iter().enumerate().map(move |(number, (program, text))| Record {
            stream: &self.streams[*program],
            time: Timestamp::from_nanos((at * 1_000_000_000) + number as i64 * 5_000_000),
            clock: Clock::Record,
            text: text.as_bytes(),
            tags: 1,
        })
    }
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

fn main() -> ExitCode {
    let (input, rules, mut dice) = (Input::new(), rules(), Dice(1));
    let config = Config { max_templates: 4 * TEMPLATES, max_new_per_program: TEMPLATES, ..Config::default() };
    let (mut miner, settings) = (Miner::new(config), Settings { max_rows: 4 * TEMPLATES, ..Settings::default() });
    let source = SourceRow { backfilled: true, ..SourceRow::default() };
    let mut memory = Memory::new(source, []);
    let options = FoldOptions { end: End::Closed, assign: false };
    for day in 0..3 {
        let all: Vec<_> =
            (0..TEMPLATES).map(|template| (template % PROGRAMS, input.line(template, &mut dice))).collect();
        let at = BEGIN + day * 86_400;
        let delta = miner.fold(Carry::default(), input.records(&all, at), options);
        let detection = detect(&delta, &memory, &rules, &settings, Timestamp::from_secs(at + 300));
        miner.apply(&delta);
        memory.apply(&detection.learned);
    }
    let (mut folding, mut detecting, mut rows) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        let at = BEGIN + 3 * 86_400 + round * 300;
        let page = input.page(&mut dice);
        let start = cpu();
        let delta = black_box(miner.fold(Carry::default(), input.records(&page, at), options));
        miner.apply(&delta);
        let folded = cpu();
        let detection = black_box(detect(&delta, &memory, &rules, &settings, Timestamp::from_secs(at + 300)));
        let detected = cpu();
        memory.apply(&detection.learned);
        folding.push(folded - start);
        detecting.push(detected - folded);
        rows = delta.rows.len();
    }
    folding.sort_unstable();
    detecting.sort_unstable();
    let (fold, detect) = (folding[folding.len() / 2] as f64 / 1e6, detecting[detecting.len() / 2] as f64 / 1e6);
    let ratio = detect / fold;
    println!("templates in memory  {}", memory.len());
    println!("rules                {}", rules.rules().count());
    println!("rows of a page       {rows}");
    println!("folding              {fold:.2} ms of CPU time per page of {LINES} lines");
    println!("detecting            {detect:.2} ms");
    println!("ratio                {:.1} %  (at most {:.0} %)", 100.0 * ratio, 100.0 * MOST);
    if ratio <= MOST { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
