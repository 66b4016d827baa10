//! Nothing grows without a bound, and what is left out is counted.

use std::{collections::HashSet, sync::Arc};

use logwarden_templates::{Clock, Config, Miner, Record, State, Stream, Tally, Timestamp};

use crate::{fold, headerless, row, stream};

/// A word without digits for each number.
fn word(mut number: usize) -> String {
    let mut word = String::from("q");
    for _ in 0..6 {
        word.push(['a', 'e', 'i', 'o', 'u', 'y', 'k', 'm'][number % 8]);
        number /= 8;
    }
    word
}

fn free_text(from: usize, count: usize) -> Vec<String> {
    let words = |n: usize| (0..6).map(|w| word(n * 31 + w * 7919)).collect::<Vec<_>>().join(" ");
    (from..from + count).map(words).collect()
}

#[test]
fn a_slot_with_endless_words_makes_few_leaves() {
    let mut miner = Miner::new(headerless());
    for page in 0..5 {
        let lines: Vec<String> =
            (0..2_000).map(|n| format!("item {} was sold at the shop", word(page * 2_000 + n))).collect();
        let delta = fold(&miner, &lines);
        assert_eq!(delta.rows.iter().map(|row| row.lines).sum::<u64>(), 2_000);
        assert!(delta.rows.iter().all(|row| row.root == delta.rows[0].root));
        assert!(page == 0 || delta.new.is_empty());
        assert!(delta.counts.absorbed >= 1_900);
        miner.apply(&delta);
    }
    assert!(miner.len() <= 66, "{}", miner.len());
}

#[test]
fn a_program_that_floods_is_folded_coarsely() {
    let config = Config { max_new_per_program: 100, ..headerless() };
    let mut miner = Miner::new(config);
    let mut coarse = 0;
    for page in 0..4 {
        let delta = fold(&miner, &free_text(page * 1_000, 1_000));
        assert_eq!(delta.counts.kept, 1_000);
        assert!(delta.new.len() <= (210 >> page).max(70), "{} new in fold {page}", delta.new.len());
        coarse += delta.counts.coarse;
        miner.apply(&delta);
    }
    assert!(coarse > 3_500, "{coarse}");
}

#[test]
fn the_least_recently_used_leaves_make_room_and_are_not_novel_again() {
    let config = Config { max_templates: 240, ..headerless() };
    let mut miner = Miner::new(config.clone());
    let first = free_text(0, 100);
    miner.apply(&fold(&miner, &first));
    miner.apply(&fold(&miner, &free_text(100, 100)));
    let second = fold(&miner, &free_text(200, 100));
    assert_eq!(second.counts.evicted as usize, second.evicted.len());
    assert!(second.counts.evicted >= 60);
    miner.apply(&second);
    assert!(miner.len() <= 240);

    let json = serde_json::to_string(&miner.state()).unwrap();
    let state: State = serde_json::from_str(&json).unwrap();
    let miner = Miner::restore(config, state).unwrap();
    let gone = first.iter().position(|line| second.evicted.contains(&row(&fold(&miner, &[line]), 0).leaf)).unwrap();
    let again = fold(&miner, &first[gone..=gone]);
    assert_eq!(again.returned, [again.new[0].leaf]);
}

#[test]
fn a_template_outlives_the_leaves_that_made_it() {
    let config = Config { max_templates: 100, ..headerless() };
    let mut miner = Miner::new(config.clone());
    let lines: Vec<String> = (0..4).map(|n| format!("mailbox of {} was moved to the new disk", word(n))).collect();
    let first = fold(&miner, &lines);
    let root = first.rows[0].root;
    miner.apply(&first);
    for page in 1..4 {
        miner.apply(&fold(&miner, &free_text(page * 90, 90)));
    }
    let miner = Miner::restore(config, miner.state()).unwrap();
    let delta = fold(&miner, &["mailbox of stranger was moved to the new disk"]);
    assert_eq!(delta.rows[0].root, root);
    assert!(delta.rows[0].template.contains("<*"));
}

#[test]
fn state_of_a_newer_version_is_refused() {
    let state = State { version: State::VERSION + 1, ..State::default() };
    assert!(Miner::restore(Config::default(), state).is_err());
}

#[test]
fn endless_lines_and_values_are_cut() {
    let miner = Miner::new(Config { sample_bytes: 1_000, ..headerless() });
    let line = format!("token {} ended", "x1".repeat(500_000));
    let many = "a b ".repeat(100_000);
    let delta = fold(&miner, &[line.as_str(), many.as_str()]);
    for row in &delta.rows {
        assert!(row.samples.first().unwrap().text.len() <= 1_000);
        assert!(row.template.len() <= 9_000);
        assert!(row.slots.iter().flat_map(|slot| &slot.values).all(|value| value.value.len() <= 256));
    }
}

#[test]
fn words_that_vary_at_forty_places_cost_no_more_than_their_lines() {
    let line = |place: usize, with: usize| {
        (0..40).map(|at| if at == place { word(with) } else { "base".to_owned() }).collect::<Vec<_>>().join(" ")
    };
    let lines: Vec<String> = (0..40).flat_map(|place| (1..6).map(move |with| line(place, with))).collect();
    let delta = fold(&Miner::new(headerless()), &lines);
    assert!(delta.rows.iter().all(|row| row.root == delta.rows[0].root));
}

#[test]
fn invented_hosts_make_no_rows_without_end() {
    let config = Config { max_rows: 100, ..Config::default() };
    let mut lines: Vec<String> =
        (0..1_000).map(|n| format!("Nov 21 04:00:00 {} app[7]: disk {n} is full", word(n))).collect();
    lines.push("Nov 21 04:00:00 qaaaaaa app[7]: disk 9 is full".to_owned());
    let delta = fold(&Miner::new(config), &lines);
    assert_eq!((delta.rows.len(), delta.counts.crowded), (101, 900));
    assert_eq!(row(&delta, 1_000).count, 2, "a host that has a row keeps it");
    let other = row(&delta, 999);
    assert_eq!((&*other.origin.host, &*other.origin.service, other.count), ("", "", 900));
    assert_eq!(other.leaf, delta.rows[0].leaf);
}

#[test]
fn many_programs_that_flood_at_once_are_bounded_together() {
    let config = Config { max_templates: 400, ..Config::default() };
    let mut miner = Miner::new(config);
    for page in 0..4 {
        let lines: Vec<String> = free_text(page * 2_000, 2_000)
            .iter()
            .enumerate()
            .map(|(n, text)| format!("Nov 21 04:00:00 web-1 {}[7]: {text}", word(page * 2_000 + n)))
            .collect();
        let delta = fold(&miner, &lines);
        assert!(delta.new.len() <= 200 + 32, "{}", delta.new.len());
        assert_eq!(delta.counts.kept, 2_000);
        assert!(delta.counts.coarse >= 1_700);
        miner.apply(&delta);
        assert!(miner.len() <= 400);
    }
}

/// Lines made so that every three of them share a hole of their own: the most that the closure can be made to do.
#[test]
fn an_attack_on_the_closure_costs_no_more_than_its_lines() {
    let lines: Vec<String> = (0..1_500)
        .map(|n| {
            let mut words: Vec<String> = (0..12).map(|at| word(n / 3 * 13 + at)).collect();
            words[n / 3 % 12] = word(90_000 + n);
            words[(n / 3 / 12 + n / 3) % 12] = word(50_000 + n);
            words.join(" ")
        })
        .collect();
    let mut miner = Miner::new(headerless());
    let delta = fold(&miner, &lines);
    assert_eq!(delta.counts.kept, 1_500);
    miner.apply(&delta);
    let again = fold(&miner, &lines);
    assert!(again.new.is_empty() && again.moves.is_empty());
    let roots = |delta: &logwarden_templates::Delta| delta.rows.iter().map(|row| row.root).collect::<HashSet<_>>();
    assert_eq!(roots(&delta), roots(&again));
}

#[test]
fn leaves_that_resemble_too_many_are_counted() {
    // The same beginning, and three words behind it that have nothing in common.
    let line = |n: usize| format!("one two three four five six {} {} {}", word(n), word(n + 7_000), word(n + 14_000));
    let lines: Vec<String> = (0..400).map(line).collect();
    let delta = fold(&Miner::new(headerless()), &lines);
    assert!(delta.counts.unpaired > 0, "{:?}", delta.counts);
    let few = fold(&Miner::new(headerless()), &lines[..50]);
    assert_eq!(few.counts.unpaired, 0);
}

/// A line of some 7 KiB without two equal words.
fn long(n: usize) -> String {
    (0..100).map(|at| word(n * 100 + at).repeat(10)).collect::<Vec<_>>().join(" ")
}

#[test]
fn long_templates_take_no_more_memory_than_ordinary_ones() {
    let config = Config { max_templates: 1_000, own_services: Vec::new(), ..Config::default() };
    let mut miner = Miner::new(config);
    for page in 0..6 {
        let lines: Vec<String> =
            (0..200).map(|n| format!("Nov 21 04:00:00 web-1 app{}[7]: {}", n % 40, long(page * 200 + n))).collect();
        let delta = fold(&miner, &lines);
        assert_eq!(delta.counts.kept, 200);
        let new: usize = delta.new.iter().map(|leaf| leaf.text.len() + leaf.example.len()).sum();
        assert!(new < 1_200_000, "{new} bytes in one fold");
        miner.apply(&delta);
        let state = miner.state();
        let kept: usize = state.leaves.iter().map(|leaf| leaf.text.len() + leaf.example.len()).sum();
        assert!(kept <= 1_000 * 2_048, "{kept} bytes in {} leaves", state.leaves.len());
    }
    assert!(miner.len() >= 50, "{}", miner.len());
}

#[test]
fn a_program_that_floods_with_long_lines_is_the_only_one_folded_coarsely() {
    let miner = Miner::new(Config { max_templates: 10_000, ..Config::default() });
    let mut lines: Vec<String> = (0..1_500).map(|n| format!("Nov 21 04:00:00 web-1 flood[7]: {}", long(n))).collect();
    lines.extend(
        (0..50).map(|n| format!("Nov 21 04:00:00 web-1 job[9]: the {} of {} has ended", word(n), word(n + 99))),
    );
    let delta = fold(&miner, &lines);
    let of = |program: &str| delta.new.iter().filter(|leaf| &*leaf.program == program).count();
    assert!((100..600).contains(&of("flood")), "{}", of("flood"));
    assert_eq!(of("job"), 50);
    assert!(delta.counts.coarse >= 900, "{:?}", delta.counts);
}

fn tally(config: Config, pages: usize, page: impl Fn(usize) -> Vec<String>) -> logwarden_templates::Tallied {
    let stream: Arc<Stream> = stream(&[]);
    let mut tally = Tally::new(Miner::new(config), false);
    for number in 0..pages {
        let (lines, time) = (page(number), Timestamp::from_secs(1_795_233_600));
        tally.page(lines.iter().map(|text| Record {
            stream: &stream,
            time,
            clock: Clock::Arrival,
            text: text.as_bytes(),
            tags: 0,
        }));
    }
    tally.finish()
}

#[test]
fn a_tally_of_many_templates_remembers_fewer_values_of_each_but_the_frequent_ones() {
    let name = |n: usize| [1, 2, 3, 4].map(|at| word(n + at * 1_000)).join(" ");
    let line = |n: usize, user: &str| format!("{} is done for user {user}", name(n));
    let tallied = tally(headerless(), 100, |page| {
        let user =
            |n: usize| if (page + n).is_multiple_of(4) { "anna".to_owned() } else { format!("{}{page}", word(n)) };
        (0..1_000).map(|n| line(n, &user(n))).collect()
    });
    assert_eq!(tallied.templates.iter().map(|template| template.count).sum::<u64>(), 100_000);
    let values: Vec<_> = tallied.templates.iter().flat_map(|template| &template.slots).collect();
    assert!(values.iter().map(|slot| slot.values.len()).sum::<usize>() <= 1 << 16);
    assert_eq!(values.len(), 1_000);
    for slot in values {
        let first = slot.values.first().unwrap();
        assert_eq!((&*first.value, first.count), ("anna", 25));
        assert!((60..=92).contains(&slot.distinct), "{}", slot.distinct);
    }
}

#[test]
fn rows_that_keep_less_because_of_all_the_others_are_counted() {
    let verbs = ["opened", "closed", "moved", "copied"];
    let line = |n: usize| format!("{} by 10.0.{}.{} for {}", verbs[n % 4], n / 250, n % 250, word(n));
    let lines: Vec<String> = (0..2_000).map(line).collect();
    let thinned = |config: Config| {
        let delta = fold(&Miner::new(config), &lines);
        assert_eq!(delta.rows.iter().map(|row| row.lines).sum::<u64>(), 2_000);
        assert!(delta.rows.iter().all(|row| !row.samples.is_empty()));
        (delta.counts.thinned, delta.rows.len() as u64)
    };
    let (none, rows) = thinned(headerless());
    assert_eq!((none, rows > 3), (0, true));
    assert_eq!(thinned(Config { values_bytes: 1 << 10, ..headerless() }), (rows, rows), "fewer values");
    let (fewer, rows) = thinned(Config { samples_bytes: 64, ..headerless() });
    assert!(0 < fewer && fewer < rows, "the first ones have all their samples: {fewer} of {rows}");
}

#[test]
fn a_tally_remembers_shorter_samples_when_there_are_many_long_ones() {
    let tallied = tally(headerless(), 15, |page| (0..100).map(|n| long(page * 100 + n)).collect());
    let samples: usize = tallied.templates.iter().flat_map(|template| &template.samples).map(|s| s.text.len()).sum();
    assert!(samples <= 8 << 20, "{samples}");
    assert!(tallied.templates.iter().all(|template| !template.samples.is_empty()));
}

#[test]
fn a_tally_counts_the_templates_that_it_leaves_out() {
    let config = Config { max_templates: 1_000, ..headerless() };
    let tallied = tally(config, 100, |page| free_text(page * 100, 100));
    assert!(tallied.templates.len() <= 2_000, "{}", tallied.templates.len());
    assert!(tallied.left_out.templates > 0);
    let lines: u64 = tallied.templates.iter().map(|template| template.lines).sum();
    assert_eq!(lines + tallied.left_out.lines, 10_000);
}
