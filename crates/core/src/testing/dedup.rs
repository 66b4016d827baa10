//! What every deduplication store promises, one function per promise. Each wants an empty store of its own, whose clock is
//! the given one.

use std::{collections::BTreeMap, time::Duration};

use futures::future::{BoxFuture, join_all};
use logwarden_detectors::Severity;

use super::{Dice, FakeEnv, rows};
use crate::{
    Timestamp,
    dedup::{Claim, DedupStore, Outcome, Standing},
    env::Env,
    finding::Key,
    incident::Rank,
    message::SendId,
    notifier::{ChannelHash, Receipt},
};

/// A promise with its name.
pub type Promise = (&'static str, for<'a> fn(&'a dyn DedupStore, &'a FakeEnv) -> BoxFuture<'a, ()>);

/// All promises.
pub const PROMISES: &[Promise] = &[
    ("told keys are repeats", |store, env| Box::pin(told_keys_are_repeats(store, env))),
    ("partly told is not told (R4)", |store, env| Box::pin(partly_told_is_not_told(store, env))),
    ("rank decides (R5)", |store, env| Box::pin(rank_decides(store, env))),
    ("the window counts back from the event (R6)", |store, env| {
        Box::pin(the_window_counts_back_from_the_event(store, env))
    }),
    ("told counts from the reservation (R6)", |store, env| Box::pin(told_counts_from_the_reservation(store, env))),
    ("a failed claim frees only itself (R10)", |store, env| Box::pin(a_failed_claim_frees_only_itself(store, env))),
    ("a lease expires", |store, env| Box::pin(a_lease_expires(store, env))),
    ("a settled message is not sent again", |store, env| Box::pin(a_settled_message_is_not_sent_again(store, env))),
    ("of racers one is first", |store, env| Box::pin(of_racers_one_is_first(store, env))),
    ("channels do not know each other", |store, env| Box::pin(channels_do_not_know_each_other(store, env))),
    ("a clock set back repeats and never swallows", |store, env| {
        Box::pin(a_clock_set_back_repeats_and_never_swallows(store, env))
    }),
    ("random histories match the model", |store, env| Box::pin(random_histories_match_the_model(store, env))),
];

/// Runs every promise on a store that `fresh` makes for it with a clock.
pub async fn every_promise<S: DedupStore>(mut fresh: impl FnMut(FakeEnv) -> S) {
    for (name, promise) in PROMISES {
        tracing::info!(promise = name);
        let env = FakeEnv::new(Timestamp::from_secs(1_800_000_000), 1);
        promise(&fresh(env.clone()), &env).await;
    }
}

const CHANNEL: ChannelHash = ChannelHash(1);
const HOUR: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_secs(60);

fn high(keys: &[u64]) -> Vec<(Key, Rank)> {
    keys.iter().map(|n| (rows::key(*n), rows::rank(Severity::High))).collect()
}

fn claim(id: u128, epoch: u64, keys: &[(Key, Rank)]) -> Claim<'_> {
    Claim { id: SendId(id), epoch, channel: CHANNEL, keys, age: Duration::ZERO, window: HOUR, lease: LEASE }
}

fn delivered(receipt: &str) -> Outcome {
    Outcome::Delivered { receipt: Receipt(receipt.into()) }
}

async fn reserve(store: &dyn DedupStore, claim: &Claim<'_>) -> Standing {
    store.reserve(claim).await.expect("usable")
}

async fn settle(store: &dyn DedupStore, claim: &Claim<'_>, outcome: &Outcome) {
    store.settle(claim, outcome).await.expect("usable");
}

/// Reserves, which must be told `First`, and settles.
async fn tell(store: &dyn DedupStore, claim: &Claim<'_>, receipt: &str) {
    assert_eq!(reserve(store, claim).await, Standing::First);
    settle(store, claim, &delivered(receipt)).await;
}

fn repeat(receipt: &str) -> Standing {
    Standing::Repeat { receipt: Receipt(receipt.into()) }
}

/// Within the window `Repeat` with the receipt of who told it, afterwards `First`.
pub async fn told_keys_are_repeats(store: &dyn DedupStore, env: &FakeEnv) {
    let keys = high(&[1, 2]);
    tell(store, &claim(1, 1, &keys), "r1").await;
    assert_eq!(reserve(store, &claim(2, 1, &keys)).await, repeat("r1"));
    assert_eq!(reserve(store, &claim(3, 1, &keys[..1])).await, repeat("r1"));
    env.advance(HOUR);
    assert_eq!(reserve(store, &claim(4, 1, &keys)).await, repeat("r1"));
    env.advance(Duration::from_nanos(1));
    tell(store, &claim(5, 1, &keys), "r2").await;
    assert_eq!(reserve(store, &claim(6, 1, &keys)).await, repeat("r2"));
}

/// One key that was not told makes the whole message new.
pub async fn partly_told_is_not_told(store: &dyn DedupStore, env: &FakeEnv) {
    tell(store, &claim(1, 1, &high(&[1])), "r1").await;
    env.advance(Duration::from_secs(1));
    tell(store, &claim(2, 1, &high(&[1, 2])), "r2").await;
    assert_eq!(reserve(store, &claim(3, 1, &high(&[2]))).await, repeat("r2"));
    env.advance(Duration::from_secs(1));
    tell(store, &claim(4, 1, &high(&[3])), "r3").await;
    assert_eq!(reserve(store, &claim(5, 1, &high(&[1, 3]))).await, repeat("r3"), "told by two; the latest answers");
}

/// A higher rank is news, a lower one is not; a detector ranks before any model.
pub async fn rank_decides(store: &dyn DedupStore, env: &FakeEnv) {
    let at = |detector, severity| vec![(rows::key(1), Rank { detector, severity })];
    tell(store, &claim(1, 1, &at(false, Severity::Critical)), "model").await;
    assert_eq!(reserve(store, &claim(2, 1, &at(false, Severity::Low))).await, repeat("model"));
    env.advance(Duration::from_secs(1));
    tell(store, &claim(3, 1, &at(true, Severity::Low)), "detector low").await;
    assert_eq!(reserve(store, &claim(4, 1, &at(false, Severity::Critical))).await, repeat("detector low"));
    env.advance(Duration::from_secs(1));
    tell(store, &claim(5, 1, &at(true, Severity::High)), "detector high").await;
    assert_eq!(reserve(store, &claim(6, 1, &at(true, Severity::High))).await, repeat("detector high"));
    assert_eq!(reserve(store, &claim(7, 1, &at(true, Severity::Critical))).await, Standing::First);
}

/// An old event (catching up) was told if it was told within a window before it, or since.
pub async fn the_window_counts_back_from_the_event(store: &dyn DedupStore, env: &FakeEnv) {
    let keys = high(&[1]);
    tell(store, &claim(1, 1, &keys), "r1").await;
    env.advance(3 * HOUR);
    assert_eq!(reserve(store, &Claim { age: 2 * HOUR, ..claim(2, 1, &keys) }).await, repeat("r1"));
    assert_eq!(reserve(store, &Claim { age: 4 * HOUR, ..claim(3, 1, &keys) }).await, repeat("r1"), "told after it");
    assert_eq!(reserve(store, &Claim { age: HOUR, ..claim(4, 1, &keys) }).await, Standing::First);
}

/// A slow send is told when it was reserved, not when it was settled.
pub async fn told_counts_from_the_reservation(store: &dyn DedupStore, env: &FakeEnv) {
    let keys = high(&[1]);
    assert_eq!(reserve(store, &claim(1, 1, &keys)).await, Standing::First);
    env.advance(LEASE / 2);
    settle(store, &claim(1, 1, &keys), &delivered("r1")).await;
    env.advance(HOUR - LEASE / 2);
    assert_eq!(reserve(store, &claim(2, 1, &keys)).await, repeat("r1"));
    env.advance(Duration::from_nanos(1));
    assert_eq!(reserve(store, &claim(3, 1, &keys)).await, Standing::First);
}

/// `Failed` of an older epoch changes nothing; that of the claim's own frees it; a late `Delivered` counts.
pub async fn a_failed_claim_frees_only_itself(store: &dyn DedupStore, env: &FakeEnv) {
    let keys = high(&[1]);
    assert_eq!(reserve(store, &claim(1, 1, &keys)).await, Standing::First);
    env.advance(LEASE + Duration::from_secs(1));
    assert_eq!(reserve(store, &claim(1, 2, &keys)).await, Standing::First, "the lease is over");
    settle(store, &claim(1, 1, &keys), &Outcome::Failed).await;
    settle(store, &claim(1, 1, &keys), &delivered("old")).await;
    assert!(matches!(reserve(store, &claim(2, 1, &keys)).await, Standing::Pending { .. }), "epoch 2 still holds it");
    settle(store, &claim(1, 2, &keys), &Outcome::Failed).await;
    assert_eq!(reserve(store, &claim(2, 1, &keys)).await, Standing::First);
    // Nobody took it over: what arrived late has arrived.
    env.advance(LEASE * 2);
    settle(store, &claim(2, 1, &keys), &delivered("late")).await;
    assert_eq!(reserve(store, &claim(3, 1, &keys)).await, repeat("late"));
    settle(store, &claim(77, 1, &keys), &Outcome::Failed).await;
}

/// While it runs, overlapping claims wait; the same claim asked again is told the same.
pub async fn a_lease_expires(store: &dyn DedupStore, env: &FakeEnv) {
    assert_eq!(reserve(store, &claim(1, 1, &high(&[1, 2]))).await, Standing::First);
    assert_eq!(reserve(store, &claim(1, 1, &high(&[1, 2]))).await, Standing::First, "the answer was lost");
    env.advance(Duration::from_secs(20));
    let wait = Duration::from_secs(40);
    assert_eq!(reserve(store, &claim(2, 1, &high(&[2, 3]))).await, Standing::Pending { wait });
    assert_eq!(
        reserve(store, &claim(1, 2, &high(&[1, 2]))).await,
        Standing::Pending { wait },
        "it may still be sending"
    );
    assert_eq!(reserve(store, &claim(3, 1, &high(&[3]))).await, Standing::First, "who waits holds nothing");
    env.advance(wait);
    assert_eq!(reserve(store, &claim(4, 1, &high(&[1, 2]))).await, Standing::First);
}

/// For thirty days the same id is `Delivered`, with any epoch and any keys.
pub async fn a_settled_message_is_not_sent_again(store: &dyn DedupStore, env: &FakeEnv) {
    tell(store, &claim(1, 3, &high(&[1])), "r1").await;
    let again = Standing::Delivered { receipt: Receipt("r1".into()) };
    assert_eq!(reserve(store, &claim(1, 4, &high(&[1]))).await, again);
    settle(store, &claim(1, 4, &high(&[1])), &Outcome::Failed).await;
    let day = Duration::from_secs(24 * 3600);
    for _ in 0..29 {
        env.advance(day);
        assert_eq!(reserve(store, &claim(1, 5, &high(&[9]))).await, again);
    }
    env.advance(2 * day);
    assert_eq!(reserve(store, &claim(1, 6, &high(&[1]))).await, Standing::First, "forgotten");
}

/// Any number of overlapping claims at once: exactly one `First`.
pub async fn of_racers_one_is_first(store: &dyn DedupStore, env: &FakeEnv) {
    for round in 0..20_u128 {
        let keys: Vec<_> = (0..8).map(|racer| high(&[0, 10 + racer, 20 + racer / 2])).collect();
        let claims: Vec<_> = (0_u128..).zip(&keys).map(|(racer, keys)| claim(round << 8 | racer, 1, keys)).collect();
        let standings = join_all(claims.iter().map(|claim| reserve(store, claim))).await;
        let first: Vec<_> = (0..8).filter(|racer| standings[*racer] == Standing::First).collect();
        assert_eq!(first.len(), 1, "round {round}: {standings:?}");
        assert!(standings.iter().all(|standing| matches!(standing, Standing::First | Standing::Pending { .. })));
        if round % 2 == 0 {
            settle(store, &claims[first[0]], &Outcome::Failed).await;
        } else {
            env.advance(LEASE);
        }
    }
}

/// What was told in one channel is news in another.
pub async fn channels_do_not_know_each_other(store: &dyn DedupStore, _: &FakeEnv) {
    let keys = high(&[1]);
    tell(store, &claim(1, 1, &keys), "r1").await;
    assert_eq!(reserve(store, &Claim { channel: ChannelHash(2), ..claim(2, 1, &keys) }).await, Standing::First);
    assert_eq!(reserve(store, &Claim { channel: ChannelHash(3), ..claim(3, 1, &keys) }).await, Standing::First);
}

/// What was told or reserved in what is now the future counts as long ago.
pub async fn a_clock_set_back_repeats_and_never_swallows(store: &dyn DedupStore, env: &FakeEnv) {
    tell(store, &claim(1, 1, &high(&[1])), "r1").await;
    assert_eq!(reserve(store, &claim(2, 1, &high(&[2]))).await, Standing::First);
    let now = env.now();
    env.set(now.minus(Duration::from_secs(2)));
    assert_eq!(reserve(store, &claim(3, 1, &high(&[1]))).await, repeat("r1"), "a small step changes nothing");
    env.set(now.minus(24 * HOUR));
    assert_eq!(reserve(store, &claim(4, 1, &high(&[2]))).await, Standing::First);
    tell(store, &claim(5, 1, &high(&[1])), "r2").await;
    assert_eq!(reserve(store, &claim(6, 1, &high(&[1]))).await, repeat("r2"));
}

/// A thousand random histories beside a model that remembers everything.
pub async fn random_histories_match_the_model(store: &dyn DedupStore, env: &FakeEnv) {
    let mut dice = Dice::new(7);
    for history in 0..1_000_u128 {
        // Each has a channel of its own, so that one store serves all.
        let channel = ChannelHash(history + 100);
        let mut told: Vec<(u64, Severity, Timestamp, String)> = Vec::new();
        let mut held: BTreeMap<u128, (u64, Vec<u64>, Severity, Timestamp)> = BTreeMap::new();
        let mut settled: BTreeMap<u128, String> = BTreeMap::new();
        for step in 0..12 {
            env.advance(Duration::from_secs(dice.below(50 * 60)) / (1 + dice.below(60) as u32));
            let now = env.now();
            let id = history << 16 | u128::from(dice.below(4));
            let epoch = dice.below(3);
            let mut about: Vec<u64> = (0..3).filter(|_| dice.below(2) == 0).collect();
            if about.is_empty() {
                about.push(0);
            }
            let severity = if dice.below(2) == 0 { Severity::High } else { Severity::Critical };
            let keys: Vec<_> = about.iter().map(|n| (rows::key(*n), rows::rank(severity))).collect();
            let claim = Claim { channel, ..claim(id, epoch, &keys) };
            if dice.below(3) < 2 {
                let told_all = about.iter().all(|key| {
                    told.iter().any(|(known, rank, at, _)| known == key && *rank >= severity && at.plus(HOUR) >= now)
                });
                let wait = held
                    .iter()
                    .filter(|(other, (held_epoch, keys, ..))| {
                        if **other == id { *held_epoch != epoch } else { keys.iter().any(|key| about.contains(key)) }
                    })
                    .map(|(_, (.., at))| at.plus(LEASE).since(now))
                    .max()
                    .unwrap_or_default();
                let standing = reserve(store, &claim).await;
                let context = format!("history {history}, step {step}: {claim:?}");
                if let Some(receipt) = settled.get(&id) {
                    assert_eq!(standing, Standing::Delivered { receipt: Receipt(receipt.clone()) }, "{context}");
                } else if told_all {
                    assert!(matches!(standing, Standing::Repeat { .. }), "{context}: {standing:?}");
                } else if !wait.is_zero() {
                    assert_eq!(standing, Standing::Pending { wait }, "{context}");
                } else {
                    assert_eq!(standing, Standing::First, "{context}");
                    held.insert(id, (epoch, about, severity, now));
                }
            } else {
                let receipt = format!("{id}/{step}");
                let failed = dice.below(3) == 0;
                settle(store, &claim, &if failed { Outcome::Failed } else { delivered(&receipt) }).await;
                if held.get(&id).is_some_and(|(held_epoch, ..)| *held_epoch == epoch)
                    && let Some((_, keys, rank, at)) = held.remove(&id)
                    && !failed
                {
                    told.extend(keys.iter().map(|key| (*key, rank, at, receipt.clone())));
                    settled.insert(id, receipt);
                }
            }
        }
    }
}
