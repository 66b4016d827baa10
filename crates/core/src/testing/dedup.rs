//! What every deduplication store promises, one function per promise. Each wants an empty store of its own, whose clock is
//! the given one.

use std::{collections::BTreeMap, time::Duration};

use futures::future::{BoxFuture, join_all};
use logwarden_detectors::Severity;

use super::{Dice, FakeEnv, rows};
use crate::{
    Timestamp,
    dedup::{Claim, DedupStore, HOLD, Outcome, Reserved, Standing},
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
    ("what has arrived counts, whoever says it", |store, env| {
        Box::pin(what_has_arrived_counts_whoever_says_it(store, env))
    }),
    ("what is unclear is kept for its own next attempt", |store, env| {
        Box::pin(what_is_unclear_is_kept_for_its_own_next_attempt(store, env))
    }),
    ("a lease expires", |store, env| Box::pin(a_lease_expires(store, env))),
    ("a settled message is not sent again", |store, env| Box::pin(a_settled_message_is_not_sent_again(store, env))),
    ("of racers one is first", |store, env| Box::pin(of_racers_one_is_first(store, env))),
    ("channels do not know each other", |store, env| Box::pin(channels_do_not_know_each_other(store, env))),
    ("a clock set back repeats and never swallows", |store, env| {
        Box::pin(a_clock_set_back_repeats_and_never_swallows(store, env))
    }),
    ("a clock set back keeps no claim longer", |store, env| {
        Box::pin(a_clock_set_back_keeps_no_claim_longer(store, env))
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

/// Confirmed by whoever did not hear when it was reserved, and knows that it was within a lease.
fn delivered(receipt: &str) -> Outcome {
    Outcome::Delivered { receipt: Receipt(receipt.into()), reserved: Reserved::Ago(LEASE) }
}

/// Confirmed by whoever was told `First` then.
fn delivered_since(receipt: &str, at: Timestamp) -> Outcome {
    Outcome::Delivered { receipt: Receipt(receipt.into()), reserved: Reserved::At(at) }
}

async fn reserve(store: &dyn DedupStore, claim: &Claim<'_>) -> Standing {
    store.reserve(claim).await.expect("usable")
}

async fn settle(store: &dyn DedupStore, claim: &Claim<'_>, outcome: &Outcome) {
    store.settle(claim, outcome).await.expect("usable");
}

/// Reserves, which must be told `First`, and settles.
async fn tell(store: &dyn DedupStore, claim: &Claim<'_>, receipt: &str) {
    let Standing::First { at } = reserve(store, claim).await else { panic!("{claim:?} is not first") };
    settle(store, claim, &delivered_since(receipt, at)).await;
}

/// What is first now.
fn first(env: &FakeEnv) -> Standing {
    Standing::First { at: env.now() }
}

fn repeat(receipt: &str, ago: Duration) -> Standing {
    Standing::Repeat { receipt: Receipt(receipt.into()), ago }
}

const SECOND: Duration = Duration::from_secs(1);

/// Within the window `Repeat` with the receipt of who told it, afterwards `First`.
pub async fn told_keys_are_repeats(store: &dyn DedupStore, env: &FakeEnv) {
    let keys = high(&[1, 2]);
    tell(store, &claim(1, 1, &keys), "r1").await;
    assert_eq!(reserve(store, &claim(2, 1, &keys)).await, repeat("r1", Duration::ZERO));
    assert_eq!(reserve(store, &claim(3, 1, &keys[..1])).await, repeat("r1", Duration::ZERO));
    env.advance(HOUR);
    assert_eq!(reserve(store, &claim(4, 1, &keys)).await, repeat("r1", HOUR));
    env.advance(Duration::from_nanos(1));
    tell(store, &claim(5, 1, &keys), "r2").await;
    assert_eq!(reserve(store, &claim(6, 1, &keys)).await, repeat("r2", Duration::ZERO));
}

/// One key that was not told makes the whole message new.
pub async fn partly_told_is_not_told(store: &dyn DedupStore, env: &FakeEnv) {
    tell(store, &claim(1, 1, &high(&[1])), "r1").await;
    env.advance(SECOND);
    tell(store, &claim(2, 1, &high(&[1, 2])), "r2").await;
    assert_eq!(reserve(store, &claim(3, 1, &high(&[2]))).await, repeat("r2", Duration::ZERO));
    env.advance(SECOND);
    tell(store, &claim(4, 1, &high(&[3])), "r3").await;
    let by_two = repeat("r3", SECOND);
    assert_eq!(reserve(store, &claim(5, 1, &high(&[1, 3]))).await, by_two, "the latest answers, since the earliest");
}

/// A higher rank is news, a lower one is not; a detector ranks before any model.
pub async fn rank_decides(store: &dyn DedupStore, env: &FakeEnv) {
    let at = |detector, severity| vec![(rows::key(1), Rank { detector, severity })];
    tell(store, &claim(1, 1, &at(false, Severity::Critical)), "model").await;
    assert_eq!(reserve(store, &claim(2, 1, &at(false, Severity::Low))).await, repeat("model", Duration::ZERO));
    env.advance(SECOND);
    tell(store, &claim(3, 1, &at(true, Severity::Low)), "detector low").await;
    assert_eq!(
        reserve(store, &claim(4, 1, &at(false, Severity::Critical))).await,
        repeat("detector low", Duration::ZERO)
    );
    env.advance(SECOND);
    tell(store, &claim(5, 1, &at(true, Severity::High)), "detector high").await;
    assert_eq!(reserve(store, &claim(6, 1, &at(true, Severity::High))).await, repeat("detector high", Duration::ZERO));
    assert_eq!(reserve(store, &claim(7, 1, &at(true, Severity::Critical))).await, first(env));
}

/// An old event (catching up) was told if it was told within a window before it, or since.
pub async fn the_window_counts_back_from_the_event(store: &dyn DedupStore, env: &FakeEnv) {
    let keys = high(&[1]);
    tell(store, &claim(1, 1, &keys), "r1").await;
    env.advance(3 * HOUR);
    assert_eq!(reserve(store, &Claim { age: 2 * HOUR, ..claim(2, 1, &keys) }).await, repeat("r1", 3 * HOUR));
    assert_eq!(
        reserve(store, &Claim { age: 4 * HOUR, ..claim(3, 1, &keys) }).await,
        repeat("r1", 3 * HOUR),
        "told after it"
    );
    assert_eq!(reserve(store, &Claim { age: HOUR, ..claim(4, 1, &keys) }).await, first(env));
}

/// A slow send is told when it was reserved, not when it was settled.
pub async fn told_counts_from_the_reservation(store: &dyn DedupStore, env: &FakeEnv) {
    let keys = high(&[1]);
    assert_eq!(reserve(store, &claim(1, 1, &keys)).await, first(env));
    env.advance(LEASE / 2);
    settle(store, &claim(1, 1, &keys), &delivered("r1")).await;
    env.advance(HOUR - LEASE / 2);
    assert_eq!(reserve(store, &claim(2, 1, &keys)).await, repeat("r1", HOUR));
    env.advance(Duration::from_nanos(1));
    assert_eq!(reserve(store, &claim(3, 1, &keys)).await, first(env));
}

/// `Failed` of an older epoch changes nothing; that of the claim's own frees it.
pub async fn a_failed_claim_frees_only_itself(store: &dyn DedupStore, env: &FakeEnv) {
    let keys = high(&[1]);
    assert_eq!(reserve(store, &claim(1, 1, &keys)).await, first(env));
    env.advance(LEASE + SECOND);
    assert_eq!(reserve(store, &claim(1, 2, &keys)).await, first(env), "the lease is over");
    settle(store, &claim(1, 1, &keys), &Outcome::Failed).await;
    settle(store, &claim(1, 1, &keys), &Outcome::Unclear { hold: Duration::ZERO }).await;
    assert_eq!(reserve(store, &claim(1, 1, &keys)).await, Standing::Pending { wait: LEASE }, "it was overtaken");
    assert!(matches!(reserve(store, &claim(2, 1, &keys)).await, Standing::Pending { .. }), "epoch 2 still holds it");
    settle(store, &claim(1, 2, &keys), &Outcome::Failed).await;
    assert_eq!(reserve(store, &claim(2, 1, &keys)).await, first(env));
    settle(store, &claim(77, 1, &keys), &Outcome::Failed).await;
}

/// What has arrived has arrived: late, overtaken, or when nobody knows of the claim any more. It counts from its own
/// reservation, which then only the sender remembers.
pub async fn what_has_arrived_counts_whoever_says_it(store: &dyn DedupStore, env: &FakeEnv) {
    let late = high(&[1]);
    let began = env.now();
    assert_eq!(reserve(store, &claim(1, 1, &late)).await, first(env));
    env.advance(LEASE * 2);
    settle(store, &claim(1, 1, &late), &delivered_since("late", began)).await;
    assert_eq!(reserve(store, &claim(2, 1, &late)).await, repeat("late", LEASE * 2));

    let overtaken = high(&[3]);
    let began = env.now();
    assert_eq!(reserve(store, &claim(3, 1, &overtaken)).await, first(env));
    env.advance(LEASE);
    assert_eq!(reserve(store, &claim(3, 2, &overtaken)).await, first(env));
    env.advance(LEASE);
    assert_eq!(reserve(store, &claim(3, 3, &overtaken)).await, first(env));
    settle(store, &claim(3, 1, &overtaken), &delivered_since("overtaken", began)).await;
    let again = Standing::Delivered { receipt: Receipt("overtaken".into()) };
    assert_eq!(reserve(store, &claim(3, 4, &overtaken)).await, again);
    assert_eq!(reserve(store, &claim(4, 1, &overtaken)).await, repeat("overtaken", LEASE * 2));
    settle(store, &claim(3, 3, &overtaken), &Outcome::Failed).await;
    assert_eq!(reserve(store, &claim(4, 1, &overtaken)).await, repeat("overtaken", LEASE * 2), "it did arrive");

    let unheard = high(&[5]);
    assert_eq!(reserve(store, &claim(5, 1, &unheard)).await, first(env));
    env.advance(SECOND);
    settle(store, &claim(5, 1, &unheard), &delivered("unheard")).await;
    assert_eq!(reserve(store, &claim(6, 1, &unheard)).await, repeat("unheard", SECOND), "the store knows better");

    let unknown = high(&[7]);
    settle(store, &claim(7, 1, &unknown), &delivered("unknown")).await;
    assert_eq!(reserve(store, &claim(8, 1, &unknown)).await, repeat("unknown", LEASE), "said within a lease");
    let never = high(&[9]);
    let reserved = Reserved::Ago(Duration::MAX);
    settle(store, &claim(9, 1, &never), &Outcome::Delivered { receipt: Receipt("x".into()), reserved }).await;
    assert_eq!(reserve(store, &claim(10, 1, &never)).await, first(env), "nobody knows when it was said");
}

/// While nobody knows whether a message arrived, nobody else says it, but for so long as was asked; its own next attempt
/// may go on at once.
pub async fn what_is_unclear_is_kept_for_its_own_next_attempt(store: &dyn DedupStore, env: &FakeEnv) {
    let keys = high(&[1, 2]);
    let hold = LEASE * 3;
    assert_eq!(reserve(store, &claim(1, 1, &keys)).await, first(env));
    settle(store, &claim(1, 1, &keys), &Outcome::Unclear { hold }).await;
    env.advance(LEASE * 2);
    assert_eq!(reserve(store, &claim(2, 1, &high(&[2, 3]))).await, Standing::Pending { wait: LEASE });
    assert_eq!(reserve(store, &claim(1, 2, &keys)).await, first(env));
    settle(store, &claim(1, 2, &keys), &Outcome::Unclear { hold }).await;
    env.advance(hold);
    assert_eq!(reserve(store, &claim(2, 1, &high(&[2, 3]))).await, first(env), "it never came back");
    settle(store, &claim(2, 1, &high(&[2, 3])), &Outcome::Failed).await;
    assert_eq!(reserve(store, &claim(1, 3, &keys)).await, first(env));
    settle(store, &claim(1, 3, &keys), &delivered("r1")).await;
    assert_eq!(reserve(store, &claim(2, 2, &high(&[2]))).await, repeat("r1", Duration::ZERO));
}

/// While it runs, overlapping claims wait; the same claim asked again is told the same. When it is over, the same message may
/// be tried again; the others wait a while longer for that.
pub async fn a_lease_expires(store: &dyn DedupStore, env: &FakeEnv) {
    assert_eq!(reserve(store, &claim(1, 1, &high(&[1, 2]))).await, first(env));
    assert_eq!(reserve(store, &claim(1, 1, &high(&[1, 2]))).await, first(env), "the answer was lost");
    env.advance(Duration::from_secs(20));
    let wait = Duration::from_secs(40);
    let others = Standing::Pending { wait: wait + HOLD };
    assert_eq!(reserve(store, &claim(2, 1, &high(&[2, 3]))).await, others);
    assert_eq!(
        reserve(store, &claim(1, 2, &high(&[1, 2]))).await,
        Standing::Pending { wait },
        "it may still be sending"
    );
    assert_eq!(reserve(store, &claim(3, 1, &high(&[3]))).await, first(env), "who waits holds nothing");
    env.advance(wait);
    let others = Standing::Pending { wait: HOLD };
    assert_eq!(
        reserve(store, &claim(4, 1, &high(&[2]))).await,
        others,
        "what was under way is said whole, or not at all"
    );
    assert_eq!(reserve(store, &claim(1, 2, &high(&[1, 2]))).await, first(env));
    env.advance(LEASE + HOLD);
    assert_eq!(reserve(store, &claim(4, 1, &high(&[1, 2]))).await, first(env), "it never came back");
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
    assert_eq!(reserve(store, &claim(1, 6, &high(&[1]))).await, first(env), "forgotten");
}

/// Any number of overlapping claims at once: exactly one `First`.
pub async fn of_racers_one_is_first(store: &dyn DedupStore, env: &FakeEnv) {
    for round in 0..20_u128 {
        let keys: Vec<_> = (0..8).map(|racer| high(&[0, 10 + racer, 20 + racer / 2])).collect();
        let claims: Vec<_> = (0_u128..).zip(&keys).map(|(racer, keys)| claim(round << 8 | racer, 1, keys)).collect();
        let standings = join_all(claims.iter().map(|claim| reserve(store, claim))).await;
        let first: Vec<_> = (0..8).filter(|racer| matches!(standings[*racer], Standing::First { .. })).collect();
        assert_eq!(first.len(), 1, "round {round}: {standings:?}");
        assert!(standings.iter().all(|standing| matches!(standing, Standing::First { .. } | Standing::Pending { .. })));
        if round % 2 == 0 {
            settle(store, &claims[first[0]], &Outcome::Failed).await;
        } else {
            env.advance(LEASE + HOLD);
        }
    }
}

/// What was told in one channel is news in another.
pub async fn channels_do_not_know_each_other(store: &dyn DedupStore, env: &FakeEnv) {
    let keys = high(&[1]);
    tell(store, &claim(1, 1, &keys), "r1").await;
    assert_eq!(reserve(store, &Claim { channel: ChannelHash(2), ..claim(2, 1, &keys) }).await, first(env));
    assert_eq!(reserve(store, &Claim { channel: ChannelHash(3), ..claim(3, 1, &keys) }).await, first(env));
}

/// What was told or reserved in what is now the future counts as long ago, also when the clock has caught up.
pub async fn a_clock_set_back_repeats_and_never_swallows(store: &dyn DedupStore, env: &FakeEnv) {
    tell(store, &claim(1, 1, &high(&[1, 7])), "r1").await;
    let began = env.now();
    assert_eq!(reserve(store, &claim(2, 1, &high(&[2]))).await, first(env));
    env.set(began.minus(Duration::from_secs(2)));
    assert_eq!(
        reserve(store, &claim(3, 1, &high(&[1]))).await,
        repeat("r1", Duration::ZERO),
        "a small step changes nothing"
    );
    env.set(began.minus(24 * HOUR));
    assert_eq!(reserve(store, &claim(4, 1, &high(&[2]))).await, first(env));
    tell(store, &claim(5, 1, &high(&[1])), "r2").await;
    assert_eq!(reserve(store, &claim(6, 1, &high(&[1]))).await, repeat("r2", Duration::ZERO));
    // It was on its way when the clock was set.
    settle(store, &claim(2, 1, &high(&[2])), &delivered_since("r3", began)).await;
    env.set(began.plus(SECOND));
    assert_eq!(reserve(store, &claim(7, 1, &high(&[7]))).await, first(env), "told a day and a second ago");
    assert_eq!(reserve(store, &claim(8, 1, &high(&[2]))).await, first(env), "nobody knows when that was");
    assert_eq!(reserve(store, &claim(2, 2, &high(&[2]))).await, Standing::Delivered { receipt: Receipt("r3".into()) });
}

/// A claim holds others up for as long as was asked, also when its sender was stalled and the clock is set back by as much.
pub async fn a_clock_set_back_keeps_no_claim_longer(store: &dyn DedupStore, env: &FakeEnv) {
    let began = env.now();
    assert_eq!(reserve(store, &claim(1, 1, &high(&[1]))).await, first(env));
    env.advance(HOUR);
    settle(store, &claim(1, 1, &high(&[1])), &Outcome::Unclear { hold: LEASE }).await;
    env.set(began.plus(SECOND));
    assert_eq!(reserve(store, &claim(2, 1, &high(&[1]))).await, first(env), "not an hour and a lease later");
}

/// A claim as the model of random histories remembers it.
struct Held {
    epoch: u64,
    about: Vec<u64>,
    at: Timestamp,
    until: Timestamp,
    sending: bool,
}

/// A thousand random histories beside a model that remembers everything.
pub async fn random_histories_match_the_model(store: &dyn DedupStore, env: &FakeEnv) {
    let mut dice = Dice::new(7);
    for history in 0..1_000_u128 {
        // Each has a channel of its own, so that one store serves all.
        let channel = ChannelHash(history + 100);
        let mut told: Vec<(u64, Severity, Timestamp, String)> = Vec::new();
        let mut held: BTreeMap<u128, Held> = BTreeMap::new();
        let mut settled: BTreeMap<u128, String> = BTreeMap::new();
        // What the sender of each attempt was told, overtaken or not.
        let mut reserved: BTreeMap<(u128, u64), Timestamp> = BTreeMap::new();
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
                let overtaken = held.get(&id).is_some_and(|held| held.epoch > epoch);
                let wait = held
                    .iter()
                    .filter_map(|(other, held)| match *other == id {
                        true => (held.epoch != epoch && held.sending).then_some(held.until),
                        false => {
                            let until = if held.sending { held.until.plus(HOLD) } else { held.until };
                            held.about.iter().any(|key| about.contains(key)).then_some(until)
                        }
                    })
                    .map(|until| until.since(now))
                    .max()
                    .unwrap_or_default();
                let standing = reserve(store, &claim).await;
                let context = format!("history {history}, step {step}: {claim:?}");
                if let Some(receipt) = settled.get(&id) {
                    assert_eq!(standing, Standing::Delivered { receipt: Receipt(receipt.clone()) }, "{context}");
                } else if told_all {
                    assert!(matches!(standing, Standing::Repeat { .. }), "{context}: {standing:?}");
                } else if overtaken {
                    assert_eq!(standing, Standing::Pending { wait: LEASE }, "{context}");
                } else if !wait.is_zero() {
                    assert_eq!(standing, Standing::Pending { wait }, "{context}");
                } else {
                    assert_eq!(standing, first(env), "{context}");
                    reserved.insert((id, epoch), now);
                    held.insert(id, Held { epoch, about, at: now, until: now.plus(LEASE), sending: true });
                }
            } else {
                let receipt = format!("{id}/{step}");
                let ours = held.get(&id).is_some_and(|held| held.epoch == epoch);
                match dice.below(3) {
                    0 => {
                        settle(store, &claim, &Outcome::Failed).await;
                        held.retain(|known, _| *known != id || !ours);
                    }
                    1 => {
                        settle(store, &claim, &Outcome::Unclear { hold: 5 * LEASE }).await;
                        if let Some(held) = held.get_mut(&id).filter(|_| ours) {
                            (held.until, held.sending) = (now.plus(5 * LEASE), false);
                        }
                    }
                    _ => {
                        let heard = reserved.get(&(id, epoch)).filter(|_| dice.below(4) > 0);
                        let outcome = heard.map_or(delivered(&receipt), |at| delivered_since(&receipt, *at));
                        settle(store, &claim, &outcome).await;
                        let own = if ours { held.remove(&id) } else { None };
                        let at = heard.copied().or(own.map(|held| held.at)).unwrap_or(now.minus(LEASE));
                        told.extend(about.iter().map(|key| (*key, severity, at, receipt.clone())));
                        settled.insert(id, receipt);
                    }
                }
            }
        }
    }
}
