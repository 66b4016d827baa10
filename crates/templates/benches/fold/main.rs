//! How fast folding is: the miner alone, and the whole path, beside counting newlines in the same bytes.
//!
//! Ends with a table of CPU time and ratios from one run, which hold on other machines too. `-- --table` prints that alone.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput};
use logwarden_templates::{Carry, Clock, Config, End, FoldOptions, Miner, Record, Stream, Timestamp};
use rustix::time::{ClockId, clock_gettime};

mod lines;
use lines::Lines;

const LINES: usize = 1_000_000;
/// As many lines as one ingest takes.
const PAGE: usize = 50_000;

struct Input {
    bytes: Vec<u8>,
    spans: Vec<(usize, usize)>,
    streams: Vec<Arc<Stream>>,
}

impl Input {
    fn new(count: usize) -> Self {
        let mut lines = Lines::new(1);
        let (mut bytes, mut spans) = (Vec::new(), Vec::new());
        for number in 0..count {
            let from = bytes.len();
            bytes.extend_from_slice(lines.line(number).as_bytes());
            spans.push((from, bytes.len()));
            bytes.push(b'\n');
        }
        let stream = |n: usize| Arc::new(Stream::new([("filename".to_owned(), format!("log-{n}"))].into()));
        Self { bytes, spans, streams: (0..16).map(stream).collect() }
    }

    /// The same lines, page by page.
    fn pages(&self) -> Vec<Self> {
        let page = |spans: &[(usize, usize)]| {
            let (from, to) = (spans[0].0, spans[spans.len() - 1].1 + 1);
            Self {
                bytes: self.bytes[from..to].to_vec(),
                spans: spans.iter().map(|span| (span.0 - from, span.1 - from)).collect(),
                streams: self.streams.clone(),
            }
        };
        self.spans.chunks(PAGE).map(page).collect()
    }

    fn newlines(&self) -> usize {
        self.bytes.iter().filter(|b| **b == b'\n').count()
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|(from, to)| &self.bytes[*from..*to])
    }

    /// A miner that has read the input once.
    fn miner(&self, headerless: bool) -> Miner {
        let mut miner = Miner::new(Config { headerless, ..Config::default() });
        self.fold(&mut miner);
        miner
    }

    /// Frames, folds and applies everything, in pages.
    fn fold(&self, miner: &mut Miner) -> u64 {
        let (mut kept, mut carry) = (0, Carry::default());
        let mut rest = &self.bytes[..];
        let mut number = 0;
        while !rest.is_empty() {
            let page = std::iter::from_fn(|| {
                let end = memchr::memchr(b'\n', rest)?;
                let text = &rest[..end];
                rest = &rest[end + 1..];
                number += 1;
                let stream = &self.streams[number % self.streams.len()];
                Some(Record { stream, time: Timestamp::from_secs(1_795_233_600), clock: Clock::Arrival, text, tags: 0 })
            });
            let options = FoldOptions { end: End::Open(Timestamp::MIN), assign: false };
            let delta = miner.fold(std::mem::take(&mut carry), page.take(PAGE), options);
            miner.apply(&delta);
            kept += delta.counts.kept;
            carry = delta.carry;
        }
        kept
    }

    fn find(&self, miner: &Miner) -> usize {
        let mut matcher = miner.matcher();
        self.lines().filter(|line| matcher.leaf("", line).is_some()).count()
    }
}

/// CPU time of this thread: what other programs take does not count.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The CPU time of `run` over all parts, each at its best of several runs: a neighbour on the same core takes caches, too.
fn shortest(parts: usize, mut run: impl FnMut(usize)) -> Duration {
    let mut best = vec![Duration::MAX; parts];
    for _ in 0..7 {
        for (part, best) in best.iter_mut().enumerate() {
            let start = cpu();
            run(part);
            *best = (cpu() - start).min(*best);
        }
    }
    best.into_iter().sum()
}

fn main() {
    let input = Input::new(LINES);
    let (messages, mut whole) = (input.miner(true), input.miner(false));

    if !std::env::args().any(|argument| argument == "--table") {
        criterion(&input, &messages, &mut whole);
    }
    table(&input, &messages, &mut whole);
    growth_table();
}

fn criterion(input: &Input, messages: &Miner, whole: &mut Miner) {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("million lines");
    group.throughput(Throughput::Elements(LINES as u64));
    group.bench_function("count newlines", |b| b.iter(|| black_box(input.newlines())));
    group.bench_function("miner alone", |b| b.iter(|| black_box(input.find(messages))));
    group.bench_function("whole path", |b| b.iter(|| black_box(input.fold(whole))));
    group.finish();
}

fn table(input: &Input, messages: &Miner, whole: &mut Miner) {
    // In parts of 50,000 lines, since a neighbour on the same core disturbs long runs always and short ones sometimes.
    let parts: Vec<Input> = input.pages();
    let newlines = shortest(parts.len(), |part| _ = black_box(parts[part].newlines()));
    println!("\n{:<34}{:>12}{:>12}{:>12}", "", "lines/CPU-s", "MB/CPU-s", "x newlines");
    let row = |name: &str, time: Duration| {
        let rate = LINES as f64 / time.as_secs_f64();
        let bytes = input.bytes.len() as f64 / 1e6 / time.as_secs_f64();
        println!("{name:<34}{rate:>12.0}{bytes:>12.0}{:>12.1}", time.as_secs_f64() / newlines.as_secs_f64());
    };
    row("count newlines", newlines);
    row("miner alone", shortest(parts.len(), |part| _ = black_box(parts[part].find(messages))));
    row("whole path", shortest(parts.len(), |part| _ = black_box(parts[part].fold(whole))));
    println!("\nleaves: {} without headers, {} with", messages.len(), whole.len());
}

fn growth_table() {
    println!("\n{:<12}{:>16}{:>16}", "templates", "miner ns/line", "fold ns/line");
    for templates in [100, 1_000, 10_000, 50_000] {
        let (find, fold) = growth(templates);
        println!("{templates:<12}{find:>16.0}{fold:>16.0}");
    }
}

/// Cost per line of finding and folding, among so many templates.
fn growth(templates: usize) -> (f64, f64) {
    let mut words = Lines::new(7);
    let names: Vec<String> = (0..templates)
        .map(|_| format!("{} {} {} {}", words.word(), words.word(), words.word(), words.word()))
        .collect();
    let line = |n: usize| {
        let name = &names[n.wrapping_mul(7919) % names.len()];
        format!("{name} took {n} ms for request {} of 10.0.0.{}", n * 31, n % 256)
    };
    let mut miner = Miner::new(Config { max_templates: 60_000, max_new_per_program: 60_000, ..Config::default() });
    let stream = Arc::new(Stream::new([("job".to_owned(), "growth".to_owned())].into()));
    let text: Vec<String> = (0..200_000).map(line).collect();
    let fold = |miner: &Miner, text: &[String]| {
        let record =
            |text| Record { stream: &stream, time: Timestamp::from_secs(0), clock: Clock::Record, text, tags: 0 };
        let records = text.iter().map(|line| record(line.as_bytes()));
        miner.fold(Carry::default(), records, FoldOptions { end: End::Closed, assign: false })
    };
    for page in text.chunks(PAGE) {
        let delta = fold(&miner, page);
        miner.apply(&delta);
    }
    let count = text.len() as f64;
    let find = shortest(1, |_| {
        let mut matcher = miner.matcher();
        black_box(text.iter().filter(|line| matcher.leaf("", line.as_bytes()).is_some()).count());
    });
    let folded = shortest(1, |_| drop(black_box(fold(&miner, &text))));
    (find.as_nanos() as f64 / count, folded.as_nanos() as f64 / count)
}
