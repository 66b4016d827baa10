//! The delivery protocol under random schedules; `cargo run --release -p logwarden-tests --bin explore` runs more of them.

use logwarden_tests::explorer::{InMemory, Rules, Tally, run, schedule, shrink};

const SCHEDULES: u64 = 6_000;

#[test]
fn no_alert_is_lost_and_at_most_one_is_surplus_per_crash() {
    let half = |from: u64| {
        let mut sum = Tally::default();
        for seed in (from..SCHEDULES).step_by(2) {
            match run(Rules::ALL, &InMemory, seed, &schedule(seed)) {
                Ok(tally) => sum.add(tally),
                Err(fault) => {
                    let (steps, shortest) = shrink(Rules::ALL, &InMemory, seed, &schedule(seed));
                    panic!("seed {seed}: {fault}\n{shortest:?} with {steps:#?}");
                }
            }
        }
        sum
    };
    let sum = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut sum = half(0);
        sum.add(other.join().unwrap());
        sum
    });
    // It must have seen what it is about.
    assert!(sum.repeats > 100 && sum.merges > 100 && sum.reminders > 10 && sum.surplus > 100, "{sum:?}");
    assert!(sum.surplus <= sum.excuses, "{sum:?}");
}

#[test]
fn every_rule_is_needed() {
    for (name, rules) in Rules::without() {
        let found = (0..40_000).find_map(|seed| run(rules, &InMemory, seed, &schedule(seed)).err());
        assert!(found.is_some(), "without {name} nothing was found");
    }
}
