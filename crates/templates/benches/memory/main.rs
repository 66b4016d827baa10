//! How much memory folding takes: ten million lines with ten million distinct words, and floods.
//!
//! Each case runs in a process of its own, so that its peak is its own: `cargo bench -p logwarden-templates --bench memory`.
//! What the process needs before its first line is taken off.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::{
    env,
    fs::{self, File},
    io::BufReader,
    process::Command,
    sync::Arc,
};

use logwarden_templates::{Carry, Clock, Config, End, FoldOptions, Miner, Record, State, Stream, Timestamp};

/// As many lines as one ingest takes, unless another number is given: `-- PAGE`.
const PAGE: usize = 10_000;
const LINES: usize = 10_000_000;

const CASES: [(&str, usize); 8] = [
    ("new word in a slot", 10_000),
    ("all templates in use", 10_000),
    ("all templates in use", 50_000),
    ("new words everywhere", 10_000),
    ("new words everywhere", 50_000),
    ("new programs flood", 10_000),
    ("new programs flood", 50_000),
    ("new hosts in every line", 10_000),
];

/// A word without digits, another for each number.
fn word(number: usize) -> String {
    // Odd times odd: each number once.
    let mut rest = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
    let mut word = String::with_capacity(14);
    while rest > 0 {
        word.push(char::from(b'a' + (rest % 16) as u8));
        rest /= 16;
    }
    word
}

/// Line `n` of a case in which the miner may keep `limit` templates.
fn line(case: &str, limit: usize, n: usize) -> String {
    match case {
        // Every template of twenty programs on two hosts again and again, with ever new users.
        "all templates in use" => {
            let which = n * 7919 % limit;
            let (host, program) = (which / 20 % 2, char::from(b'a' + (which % 20) as u8));
            let message = format!("{} {} {} is done", word(which), word(which + limit), word(which + 2 * limit));
            format!("Nov 21 04:00:00 web-{host} job{program}[7]: {message} for user {} after {n} ms", word(n))
        }
        "new word in a slot" => match n % 3 {
            0 => format!("item {} was sold at the shop", word(n)),
            1 => format!("the queue {} has been moved to another worker", word(n)),
            _ => format!("login of user {} with a key", word(n)),
        },
        "new words everywhere" => format!("{} {} {} in use", word(n), word(n + LINES), word(n + 2 * LINES)),
        "new programs flood" => {
            format!("Nov 21 04:00:00 web-1 {}[7]: {} {} {} in use", word(n), word(n + LINES), word(n * 3), word(n * 7))
        }
        _ => format!("Nov 21 04:00:00 {} app[7]: disk {n} of {} is full", word(n), n % 7),
    }
}

/// Peak and present size of this process, in MiB.
fn resident() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().strip_suffix(" kB")?.parse::<f64>().ok()
    };
    (field("VmHWM:").unwrap_or(0.0) / 1024.0, field("VmRSS:").unwrap_or(0.0) / 1024.0)
}

/// What the miner has learned takes by itself: in a process that has done nothing else.
fn at_rest(state: &State, max_templates: usize) -> Option<f64> {
    let path = env::temp_dir().join(format!("miner-{}.json", std::process::id()));
    serde_json::to_writer(File::create(&path).ok()?, state).ok()?;
    let output = Command::new(env::current_exe().ok()?).arg("rest").arg(&path).arg(max_templates.to_string()).output();
    let _ = fs::remove_file(&path);
    String::from_utf8(output.ok()?.stdout).ok()?.trim().parse().ok()
}

fn rest(path: &str, max_templates: &str) -> Option<()> {
    let before = resident().1;
    let state: State = serde_json::from_reader(BufReader::new(File::open(path).ok()?)).ok()?;
    let config = Config { max_templates: max_templates.parse().ok()?, ..Config::default() };
    let miner = Miner::restore(config, state).ok()?;
    println!("{}", resident().1 - before);
    drop(miner);
    Some(())
}

fn run(case: &str, max_templates: usize, size: usize) {
    let stream = Arc::new(Stream::new([("job".to_owned(), "flood".to_owned())].into()));
    let mut miner = Miner::new(Config { max_templates, ..Config::default() });
    let mut page: Vec<String> = (0..size).map(|n| line(case, max_templates, n)).collect();
    let before = resident().1;
    let (mut half, mut evicted, mut coarse, mut crowded) = ((0.0, 0.0), 0, 0, 0);
    for number in 0..LINES / size {
        if number > 0 {
            page.iter_mut().enumerate().for_each(|(n, text)| *text = line(case, max_templates, number * size + n));
        }
        let records = page.iter().map(|text| Record {
            stream: &stream,
            time: Timestamp::from_secs(1_795_233_600),
            clock: Clock::Arrival,
            text: text.as_bytes(),
            tags: 0,
        });
        let delta = miner.fold(Carry::default(), records, FoldOptions { end: End::Closed, assign: false });
        miner.apply(&delta);
        evicted += delta.counts.evicted;
        coarse += delta.counts.coarse;
        crowded += delta.counts.crowded;
        if number == LINES / size / 2 {
            half = resident();
        }
    }
    let (peak, now) = resident();
    println!(
        "{case:<24}{max_templates:>8}{:>8.1}{:>12.1}{:>12.1}{:>12.1}{:>12.1}  {} leaves, {evicted} evicted, {coarse} lines coarse, {crowded} crowded",
        at_rest(&miner.state(), max_templates).unwrap_or(f64::NAN),
        half.1 - before,
        now - before,
        half.0 - before,
        peak - before,
        miner.len(),
    );
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let page = match arguments[..] {
        ["rest", path, max_templates] => return rest(path, max_templates).unwrap_or_default(),
        ["case", case, page] => {
            let number = |text: &str| text.parse::<usize>().unwrap_or_default();
            let (case, max_templates) = CASES[number(case).min(CASES.len() - 1)];
            return run(case, max_templates, number(page).max(1));
        }
        [page] => page.to_owned(),
        _ => PAGE.to_string(),
    };
    println!(
        "{:<24}{:>8}{:>8}{:>24}{:>24}  MiB",
        "ten million lines", "limit", "at rest", "after 5 m, 10 m", "peak until 5 m, 10 m"
    );
    for (case, (name, _)) in CASES.iter().enumerate() {
        let run = |program| Command::new(program).args(["case", &case.to_string(), &page]).status();
        if !env::current_exe().and_then(run).is_ok_and(|status| status.success()) {
            println!("{name}: failed");
        }
    }
}
