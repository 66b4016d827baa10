//! What holds for any input.

use std::collections::BTreeMap;

use logwarden_templates::{Carry, Config, Delta, End, Miner, RootId, Timestamp};
use proptest::prelude::*;

use crate::{NOW, fold, fold_stream, headerless, row, stream};

/// Odd lines that we keep: whatever once went wrong, and every format.
const CORPUS: &str = include_str!("../corpus/lines.txt");

fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let corpus: Vec<Vec<u8>> = CORPUS.lines().map(|line| line.as_bytes().to_vec()).collect();
    let kept = prop::sample::select(corpus);
    let cut = (kept.clone(), any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..8)).prop_map(
        |(mut line, at, with)| {
            let at = at.index(line.len() + 1);
            line.splice(at..at, with);
            line
        },
    );
    let logs = prop::string::string_regex(r#"[a-zA-Z0-9 =:,;()\[\]{}"'|<>*./\\@_-]{0,80}"#)
        .expect("a regex")
        .prop_map(String::into_bytes);
    prop_oneof![
        2 => kept,
        3 => cut,
        3 => logs,
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// Lines of few words, so that holes fill.
fn small_world() -> impl Strategy<Value = Vec<String>> {
    let word = prop::sample::select(vec!["ada", "bob", "cid", "dan", "eve", "7", "FOO", "BAR_BAZ"]);
    let line = (0..5_u8, word.clone(), word.clone(), word).prop_map(|(shape, a, b, c)| match shape {
        0 => format!("mailbox of {a} was moved to disk {b} today"),
        1 => format!("{a} asks {b} about the weather in town"),
        2 => format!("{a} {b}"),
        3 => format!("queue {a} holds {b} jobs with weight={c} at noon"),
        _ => format!("login of user {a} with key {b}"),
    });
    prop::collection::vec(line, 1..120)
}

fn conserved(delta: &Delta) -> bool {
    let c = &delta.counts;
    c.read + c.carried_in == c.own + c.carried + c.kept && c.kept == delta.rows.iter().map(|row| row.lines).sum::<u64>()
}

/// The root of each line, after all have been folded in pages.
fn roots(miner: &mut Miner, lines: &[String], page: usize) -> Vec<RootId> {
    let mut leaves = Vec::new();
    for page in lines.chunks(page) {
        let delta = fold(miner, page);
        leaves.extend((0..page.len()).map(|line| row(&delta, line).leaf));
        miner.apply(&delta);
    }
    leaves.into_iter().map(|leaf| miner.root_of(leaf).expect("known")).collect()
}

fn by_line<'l>(lines: &'l [String], roots: &[RootId]) -> BTreeMap<&'l str, RootId> {
    lines.iter().map(String::as_str).zip(roots.iter().copied()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_input_breaks_it_and_no_line_is_lost(
        lines in prop::collection::vec(any_line(), 0..60),
        more in prop::collection::vec(any_line(), 0..20),
        wait in any::<bool>(),
    ) {
        let mut miner = Miner::new(Config { event_lines: 5, event_bytes: 400, ..Config::default() });
        let stream = stream(&[("job", "any"), ("host", "web-1")]);
        let end = if wait { End::Open(Timestamp::from_secs(NOW)) } else { End::Open(Timestamp::MAX) };
        let first = fold_stream(&miner, Carry::default(), &stream, &lines, end);
        prop_assert!(conserved(&first), "{:?}", first.counts);
        miner.apply(&first);
        let second = fold_stream(&miner, first.carry.clone(), &stream, &more, End::Closed);
        prop_assert!(conserved(&second), "{:?}", second.counts);
        prop_assert_eq!(second.counts.carried, 0);
        prop_assert_eq!(second.counts.carried_in, first.counts.carried);
        miner.apply(&second);
        let state = miner.state();
        prop_assert_eq!(Miner::restore(Config::default(), state.clone()).unwrap().state().leaves, state.leaves);
    }

    #[test]
    fn a_line_belongs_to_the_template_it_made(lines in prop::collection::vec(any_line(), 1..20)) {
        let mut miner = Miner::new(headerless());
        for line in &lines {
            let made = fold(&miner, std::slice::from_ref(line));
            miner.apply(&made);
            let again = fold(&miner, std::slice::from_ref(line));
            prop_assert!(again.new.is_empty(), "{:?}", again.new);
            prop_assert_eq!(row(&again, 0).leaf, row(&made, 0).leaf);
            prop_assert_eq!(row(&again, 0).root, row(&made, 0).root);
            let elsewhere = fold(&Miner::new(Config { secret: 7, ..headerless() }), std::slice::from_ref(line));
            prop_assert_eq!(row(&elsewhere, 0).leaf, row(&made, 0).leaf, "the secret is no part of an id");
        }
    }

    #[test]
    fn samples_are_lines_as_they_came(lines in prop::collection::vec(any_line(), 1..40)) {
        let delta = fold(&Miner::new(headerless()), &lines);
        for row in &delta.rows {
            prop_assert!(!row.samples.is_empty() && row.samples.len() <= 5);
            for sample in &row.samples {
                prop_assert!(lines.contains(&sample.text));
            }
        }
    }

    #[test]
    fn a_delta_that_is_thrown_away_leaves_no_trace(known in small_world(), lines in small_world()) {
        let mut miner = Miner::new(headerless());
        miner.apply(&fold(&miner, &known));
        let before = miner.state();
        let first = fold(&miner, &lines);
        let second = fold(&miner, &lines);
        prop_assert_eq!(before.leaves, miner.state().leaves);
        prop_assert_eq!(&first.new, &second.new);
        prop_assert_eq!(&first.moves, &second.moves);
        let ids = |delta: &Delta| delta.rows.iter().map(|row| (row.leaf, row.root, row.count, row.template.clone())).collect::<Vec<_>>();
        prop_assert_eq!(ids(&first), ids(&second));
    }

    #[test]
    fn roots_do_not_depend_on_order_restarts_or_who_read_what(
        (lines, shuffled) in small_world().prop_flat_map(|lines| (Just(lines.clone()), Just(lines).prop_shuffle())),
        page in 1..40_usize,
        secret in any::<u64>(),
    ) {
        let mut miner = Miner::new(headerless());
        let expected = roots(&mut miner, &lines, 1_000);
        let expected = by_line(&lines, &expected);

        let mut other = Miner::new(Config { secret, ..headerless() });
        prop_assert_eq!(&by_line(&shuffled, &roots(&mut other, &shuffled, page)), &expected);

        let half = lines.len() / 2;
        let (mut left, mut right) = (Miner::new(headerless()), Miner::new(headerless()));
        roots(&mut left, &lines[..half], page);
        let mut restarted = Miner::restore(headerless(), left.state()).unwrap();
        roots(&mut restarted, &lines[half..], page);
        roots(&mut right, &lines[half..], page);
        right.merge(left.state()).unwrap();
        for miner in [&mut restarted, &mut right] {
            prop_assert_eq!(&by_line(&lines, &roots(miner, &lines, page)), &expected);
        }
    }
}
