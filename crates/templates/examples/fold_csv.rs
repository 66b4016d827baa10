//! Folds a file (or standard input) and prints `line_no,template_id,template`, one row per physical line.
//!
//! ```text
//! cargo run --release -p logwarden-templates --example fold_csv -- [--content] [--restart | --merge] FILE | -
//! ```
//!
//! `--content` takes lines as messages without headers. `--restart` stores the memory in the middle and goes on from it;
//! `--merge` lets another miner read the second half first and learns what it knows. Neither changes the output.

use std::{
    error::Error,
    io::{Read, Write},
    sync::Arc,
};

use logwarden_templates::{Clock, Config, Miner, Record, Stream, Tallied, Tally, Timestamp};

fn main() -> Result<(), Box<dyn Error>> {
    let (flags, files): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let has = |flag: &str| flags.iter().any(|f| f == flag);
    let mut input = Vec::new();
    match files.first().map_or("-", String::as_str) {
        "-" => std::io::stdin().read_to_end(&mut input)?,
        file => std::fs::File::open(file)?.read_to_end(&mut input)?,
    };
    let config = Config { headerless: has("--content"), ..Config::default() };
    let mut lines: Vec<&[u8]> = input.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l)).collect();
    if lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }

    let mut miner = Miner::new(config.clone());
    if has("--restart") || has("--merge") {
        let (first, second) = lines.split_at(lines.len() / 2);
        miner = fold(miner, first).miner;
        if has("--restart") {
            miner = Miner::restore(config, miner.state())?;
        } else {
            miner.merge(fold(Miner::new(config), second).miner.state())?;
        }
    }
    let tallied = fold(miner, &lines);

    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    writeln!(out, "line_no,template_id,template")?;
    for (number, template) in tallied.lines.iter().enumerate() {
        if let Some(template) = template.and_then(|at| tallied.templates.get(at as usize)) {
            writeln!(out, "{},{},\"{}\"", number + 1, template.root, template.text.replace('"', "\"\""))?;
        }
    }
    Ok(())
}

/// Folds lines in pages of 50,000, as the product does.
fn fold(miner: Miner, lines: &[&[u8]]) -> Tallied {
    let stream = Arc::new(Stream::new([("filename".to_owned(), "input".to_owned())].into()));
    let mut tally = Tally::new(miner, true);
    for page in lines.chunks(50_000) {
        tally.page(page.iter().map(|text| Record {
            stream: &stream,
            time: Timestamp::from_secs(0),
            clock: Clock::Arrival,
            text,
            tags: 0,
        }));
    }
    tally.finish()
}
