//! The delivery protocol under random schedules, and a process that ends at every step.
//!
//! `cargo run --release -p logwarden-tests --bin explore -- --schedules 300000` runs more schedules.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "explorer/crash.rs"]
mod crash;
#[path = "explorer/stores.rs"]
mod stores;

use logwarden_tests::explorer::{Fault, InMemory, Rules, Stores, Tally, run, schedule, shrink};

use crate::stores::{InStep, OnDisk};

const SCHEDULES: u64 = 6_000;

fn in_memory() -> Box<dyn Stores> {
    Box::<InMemory>::default()
}

fn on_disk() -> Box<dyn Stores> {
    Box::<OnDisk>::default()
}

fn in_step() -> Box<dyn Stores> {
    Box::<InStep>::default()
}

/// Runs the schedules of these seeds on two threads.
fn explore(stores: &(dyn Fn() -> Box<dyn Stores> + Sync), seeds: std::ops::Range<u64>) -> Tally {
    let half = |from: u64| {
        let mut sum = Tally::default();
        for seed in (seeds.start + from..seeds.end).step_by(2) {
            match run(Rules::ALL, stores, seed, &schedule(seed)) {
                Ok(tally) => sum.add(tally),
                Err(fault) => {
                    let (steps, shortest) = shrink(Rules::ALL, stores, seed, &schedule(seed));
                    panic!("seed {seed}: {fault}\n{shortest:?} with {steps:#?}");
                }
            }
        }
        sum
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut sum = half(0);
        sum.add(other.join().unwrap());
        sum
    })
}

#[test]
fn no_alert_is_lost_and_at_most_one_is_surplus_per_crash() {
    let sum = explore(&in_memory, 0..SCHEDULES);
    // It must have seen what it is about.
    let enough = sum.repeats > 100 && sum.merges > 100 && sum.reminders > 100 && sum.joint > 100 && sum.muted > 100;
    assert!(enough && sum.surplus > 100, "{sum:?}");
    assert!(sum.surplus <= sum.excuses && sum.absences < sum.surplus / 20, "{sum:?}");
}

#[test]
fn the_same_with_stores_on_disk() {
    let sum = explore(&on_disk, 1_000_000..1_000_030);
    assert!(sum.messages > 100, "{sum:?}");
}

#[test]
fn both_kinds_of_stores_answer_the_same() {
    let sum = explore(&in_step, 3_000_000..3_000_030);
    assert!(sum.messages > 100, "{sum:?}");
}

#[test]
#[ignore = "takes minutes: cargo test --release -p logwarden-tests --test explorer -- --ignored"]
fn many_schedules_with_stores_on_disk() {
    let sum = explore(&on_disk, 2_000_000..2_005_000);
    println!("5000 schedules hold: {sum:?}");
}

#[test]
#[ignore = "takes minutes: cargo test --release -p logwarden-tests --test explorer -- --ignored"]
fn both_kinds_of_stores_answer_the_same_for_long() {
    let sum = explore(&in_step, 4_000_000..4_005_000);
    println!("5000 schedules hold: {sum:?}");
}

#[test]
fn every_rule_is_needed() {
    for (name, rules) in Rules::without() {
        // Something that people would notice, not only that a store did.
        let is_noticed = |fault: &Fault| !matches!(fault, Fault::Store(_));
        let found =
            (0..SCHEDULES).find_map(|seed| run(rules, &in_memory, seed, &schedule(seed)).err().filter(is_noticed));
        assert!(found.is_some(), "without {name} nothing was found");
    }
}
