//! Folds a file (or standard input) and prints `line_no,template_id,template`, one row per physical line.
//!
//! ```text
//! cargo run --release -p logwarden-templates --example fold_csv -- [--content] [--restart] [--merge] FILE | -
//! ```
//!
//! `--content` takes lines as messages without headers. `--restart` stores the memory in the middle and goes on from it;
//! `--merge` lets two miners read one half each and unites what they have learned. Neither changes the output.

use std::{
    error::Error,
    io::{Read, Write},
    sync::Arc,
};

use logwarden_templates::{Carry, Clock, Config, Delta, End, FoldOptions, LeafId, Miner, Record, Stream, Timestamp};

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
    let mut leaves: Vec<Option<LeafId>> = Vec::new();
    if has("--restart") || has("--merge") {
        let (first, second) = lines.split_at(lines.len() / 2);
        leaves.extend(fold(&mut miner, first));
        if has("--restart") {
            miner = Miner::restore(config, miner.state())?;
            leaves.extend(fold(&mut miner, second));
        } else {
            let mut other = Miner::new(config);
            leaves.extend(fold(&mut other, second));
            miner.merge(other.state())?;
        }
    } else {
        leaves.extend(fold(&mut miner, &lines));
    }

    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    writeln!(out, "line_no,template_id,template")?;
    for (number, leaf) in leaves.iter().enumerate() {
        let Some((root, text)) = leaf.and_then(|leaf| Some((miner.root_of(leaf)?, miner.text_of(leaf)?))) else {
            continue;
        };
        writeln!(out, "{},{root},\"{}\"", number + 1, text.replace('"', "\"\""))?;
    }
    Ok(())
}

/// Folds lines in pieces of 50,000, as the product does; the leaf of each line.
fn fold(miner: &mut Miner, lines: &[&[u8]]) -> Vec<Option<LeafId>> {
    let stream = Arc::new(Stream::new([("filename".to_owned(), "input".to_owned())].into()));
    let mut leaves = Vec::with_capacity(lines.len());
    let mut carry = Carry::default();
    let mut chunks = lines.chunks(50_000).peekable();
    while let Some(chunk) = chunks.next() {
        let records = chunk.iter().map(|text| Record {
            stream: &stream,
            time: Timestamp::from_secs(0),
            clock: Clock::Arrival,
            text,
            tags: 0,
        });
        let end = if chunks.peek().is_some() { End::Open(Timestamp::MIN) } else { End::Closed };
        let delta = miner.fold(std::mem::take(&mut carry), records, FoldOptions { end, assign: true });
        let leaf = |delta: &Delta, row: u32| delta.rows.get(row as usize).map(|row| row.leaf);
        if let Some(row) = delta.carry_assignments.first().copied().flatten() {
            for open in leaves.iter_mut().rev().take_while(|l: &&mut Option<LeafId>| l.is_none()) {
                *open = leaf(&delta, row);
            }
        }
        leaves.extend(delta.assignments.iter().map(|row| row.and_then(|row| leaf(&delta, row))));
        miner.apply(&delta);
        carry = delta.carry;
    }
    leaves
}
