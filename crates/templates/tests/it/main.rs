//! What a user of the miner relies on.

mod bounds;
mod folding;
mod properties;
mod shapes;
mod stored;

use std::sync::Arc;

use logwarden_templates::{Carry, Clock, Config, Delta, End, FoldOptions, Miner, Record, Row, Stream, Timestamp};

/// 2026-11-21 04:00 UTC.
const NOW: i64 = 1_795_233_600;

fn stream(labels: &[(&str, &str)]) -> Arc<Stream> {
    Arc::new(Stream::new(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()))
}

fn headerless() -> Config {
    Config { headerless: true, ..Config::default() }
}

/// Folds lines of one stream, a second apart.
fn fold<T: AsRef<[u8]>>(miner: &Miner, lines: &[T]) -> Delta {
    let stream = stream(&[("job", "test")]);
    fold_stream(miner, Carry::default(), &stream, lines, End::Closed)
}

fn fold_stream<T: AsRef<[u8]>>(miner: &Miner, carry: Carry, stream: &Arc<Stream>, lines: &[T], end: End) -> Delta {
    let records = lines.iter().enumerate().map(|(number, line)| Record {
        stream,
        time: Timestamp::from_secs(NOW + number as i64),
        clock: Clock::Record,
        text: line.as_ref(),
        tags: 0,
    });
    miner.fold(carry, records, FoldOptions { end, assign: true })
}

/// What a fold of `lines` by a new miner without headers says about each line.
fn templates(lines: &[&str]) -> Vec<String> {
    let miner = Miner::new(headerless());
    let delta = fold(&miner, lines);
    (0..lines.len()).map(|line| row(&delta, line).template.to_string()).collect()
}

fn row(delta: &Delta, line: usize) -> &Row {
    &delta.rows[delta.assignments[line].expect("the line is in a row") as usize]
}
