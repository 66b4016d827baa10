//! Any bytes, as lines of one stream, in two folds: nothing panics and no line is lost.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use logwarden_templates::{Carry, Clock, Config, End, FoldOptions, Miner, Record, Stream, Timestamp};

fuzz_target!(|bytes: &[u8]| {
    let stream = Arc::new(Stream::new([("job".to_owned(), "fuzz".to_owned())].into()));
    let mut miner = Miner::new(Config { max_templates: 50, max_new_per_program: 20, ..Config::default() });
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    let mut carry = Carry::default();
    for (lines, end) in [(first, End::Open(Timestamp::MIN)), (second, End::Closed)] {
        let records = lines.iter().map(|text| Record {
            stream: &stream,
            time: Timestamp::from_secs(0),
            clock: Clock::Arrival,
            text,
            tags: 0,
        });
        let delta = miner.fold(std::mem::take(&mut carry), records, FoldOptions { end, assign: true });
        let counts = delta.counts;
        assert_eq!(counts.read + counts.carried_in, counts.own + counts.carried + counts.kept);
        assert_eq!(counts.kept, delta.rows.iter().map(|row| row.lines).sum::<u64>());
        miner.apply(&delta);
        carry = delta.carry;
    }
});
