//! For tests: a clock that is set by hand, one suite per trait that every implementation runs, and for each trait an
//! implementation in memory that is stricter than the real ones.
//!
//! The stores in memory are found in [`memory_ledger`](crate::memory_ledger) and [`memory_dedup`](crate::memory_dedup),
//! since `scan` uses them, too.

pub mod classifier;
mod memory_classifier;
mod memory_notifier;
mod memory_source;
pub mod notifier;
pub mod source;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;

pub mod dedup;
#[doc(hidden)]
pub mod ledger;
pub mod rows;

use crate::{Timestamp, env::Env};
pub use crate::{memory_dedup::MemoryDedup, memory_ledger::MemoryLedger};
pub use memory_classifier::MemoryClassifier;
pub use memory_notifier::MemoryNotifier;
pub use memory_source::MemorySource;

/// A clock that stands still until it is moved, and dice with a seed. Clones share both.
#[derive(Clone, Debug)]
pub struct FakeEnv(Arc<Mutex<Fake>>);

#[derive(Debug)]
struct Fake {
    now: Timestamp,
    dice: Dice,
    next_sleeper: u64,
    sleepers: Vec<Sleeper>,
}

#[derive(Debug)]
struct Sleeper {
    number: u64,
    until: Timestamp,
    waker: Waker,
}

impl FakeEnv {
    /// A clock that says `now`.
    pub fn new(now: Timestamp, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Fake { now, dice: Dice::new(seed), next_sleeper: 0, sleepers: Vec::new() })))
    }

    /// Moves the clock forward and wakes whoever waited for that time.
    pub fn advance(&self, by: Duration) {
        let now = self.now().plus(by);
        self.set(now);
    }

    /// Sets the clock, also backwards, and wakes whoever waited for that time.
    pub fn set(&self, now: Timestamp) {
        let mut fake = self.fake();
        fake.now = now;
        let (due, waiting) = std::mem::take(&mut fake.sleepers).into_iter().partition(|sleeper| sleeper.until <= now);
        fake.sleepers = waiting;
        drop(fake);
        let due: Vec<Sleeper> = due;
        due.into_iter().for_each(|sleeper| sleeper.waker.wake());
    }

    /// Moves the clock to the next time that somebody waits for; `None` when nobody waits.
    pub fn advance_to_next(&self) -> Option<Timestamp> {
        let next = self.fake().sleepers.iter().map(|sleeper| sleeper.until).min()?;
        self.set(next.max(self.now()));
        Some(next)
    }

    /// How many wait.
    pub fn sleepers(&self) -> usize {
        self.fake().sleepers.len()
    }

    /// The clock alone, as a store wants it.
    pub fn clock(&self) -> impl Fn() -> Timestamp + Send + Sync + 'static {
        let env = self.clone();
        move || env.now()
    }

    fn fake(&self) -> MutexGuard<'_, Fake> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Env for FakeEnv {
    fn now(&self) -> Timestamp {
        self.fake().now
    }

    async fn sleep_until(&self, time: Timestamp) {
        Sleep { env: self.clone(), until: time, number: None }.await;
    }

    fn random(&self) -> u64 {
        self.fake().dice.roll()
    }
}

/// Dice that fall the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 for 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll().checked_rem(n).unwrap_or(0)
    }
}

struct Sleep {
    env: FakeEnv,
    until: Timestamp,
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let env = self.env.clone();
        let mut fake = env.fake();
        if fake.now >= self.until {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            fake.next_sleeper += 1;
            fake.next_sleeper
        });
        let (until, waker) = (self.until, context.waker().clone());
        match fake.sleepers.iter_mut().find(|sleeper| sleeper.number == number) {
            Some(sleeper) => sleeper.waker = waker,
            None => fake.sleepers.push(Sleeper { number, until, waker }),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.env.fake().sleepers.retain(|sleeper| Some(sleeper.number) != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{FutureExt, executor::block_on, future::join};

    use super::*;
    use crate::classifier::Classifier;

    #[test]
    fn sleepers_wake_when_the_clock_is_moved_and_leave_when_dropped() {
        let env = FakeEnv::new(Timestamp::from_secs(100), 1);
        assert!(env.sleep_until(Timestamp::from_secs(100)).now_or_never().is_some());
        let (first, second) = (Timestamp::from_secs(110), Timestamp::from_secs(130));
        let mut early = env.sleep_until(first);
        let mut late = env.sleep_until(second);
        assert!((&mut early).now_or_never().is_none() && (&mut late).now_or_never().is_none());
        assert_eq!(env.sleepers(), 2);
        assert_eq!(env.advance_to_next(), Some(first));
        assert!((&mut early).now_or_never().is_some());
        assert!((&mut late).now_or_never().is_none());
        drop(late);
        assert_eq!((env.sleepers(), env.advance_to_next()), (0, None));
    }

    #[test]
    fn a_waiting_task_goes_on_by_itself() {
        let env = FakeEnv::new(Timestamp::from_secs(0), 1);
        block_on(join(env.sleep_until(Timestamp::from_secs(5)), async { env.advance(Duration::from_secs(5)) }));
    }

    #[test]
    fn the_ledger_in_memory_keeps_its_promises() {
        let fresh = || MemoryLedger::with_limits(1, 2, ledger::small_limits());
        block_on(ledger::every_promise(fresh));
    }

    #[test]
    fn the_deduplication_store_in_memory_keeps_its_promises() {
        block_on(dedup::every_promise(|env| MemoryDedup::new(env.clock())));
    }

    #[test]
    fn the_source_in_memory_keeps_its_promises() {
        let source = MemorySource::with_queries("memory", &["{a=\"1\"}", "{a=\"2\"}"]);
        let lines = (0..40).map(|n| (Timestamp::from_secs(n / 3), format!("line {n}"), [1, 2, 3][n as usize % 3]));
        let lines: Vec<_> = lines.collect();
        lines.iter().for_each(|(time, text, tags)| source.push_for(*tags, "web-1", *time, text));
        let budget = |lines, bytes| crate::source::Budget { lines, bytes, now: Timestamp::from_secs(100) };
        for budgets in [&[budget(7, 1000)][..], &[budget(1, 1000), budget(100, 20)]] {
            block_on(source::brings_every_line_once(&source, budgets, lines.clone()));
        }
        source.set_down(true);
        let mut reader = source::Reader::default();
        assert!(block_on(reader.page(&source, budget(9, 1000))).unwrap_err().is_transient());
        source.set_down(false);
        block_on(reader.drain(&source, &[budget(9, 1000)])).unwrap();
        assert_eq!(reader.brought().len(), lines.len());
    }

    #[test]
    fn the_channel_in_memory_keeps_its_promises() {
        for amends in [true, false] {
            let channel = MemoryNotifier::new("memory", amends);
            let attempts = || channel.attempts();
            let platform = notifier::Platform { attempts: &attempts, secrets: &[] };
            block_on(notifier::sends_each_message_once(&channel, &platform, &[]));
            channel.cut(1);
            let error = block_on(notifier::says_why_it_failed(&channel, &platform, &notifier::hostile()));
            assert!(error.is_transient());
        }
    }

    impl classifier::Slow for Arc<AtomicUsize> {
        async fn works(&self) {
            futures::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                if self.load(Ordering::Relaxed) == 1 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }

        async fn stops(&self) {
            assert_eq!(self.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn the_classifier_in_memory_keeps_its_promises() {
        let (rows, signals) = crate::plan::tests::segment();
        let profile = Arc::new(crate::profile::Profile::builtin().into_iter().next().unwrap());
        let of_profile: Vec<u32> = (0..5).collect();
        let material = crate::plan::Material {
            profile: &profile,
            rows: &rows,
            of_profile: &of_profile,
            signals: &signals,
            floors: &crate::grounding::Floors::default(),
            benign: &std::collections::HashSet::new(),
        };
        let capacity = MemoryClassifier::calm().capacity();
        let digest = crate::plan::plan(&material, capacity).digests.remove(0);
        block_on(classifier::every_promise(&digest, async |behind| {
            let classifier = match behind {
                classifier::Behind::Honest => MemoryClassifier::calm(),
                classifier::Behind::Inventive => MemoryClassifier::saying(classifier::INVENTIVE),
                classifier::Behind::Broken => MemoryClassifier::saying("Sure! Here is"),
                classifier::Behind::Nobody => MemoryClassifier::away(),
                classifier::Behind::Slow => MemoryClassifier::stuck(),
            };
            let working = classifier.working();
            (classifier, working)
        }));
    }

    #[test]
    fn the_dice_fall_the_same_for_the_same_seed() {
        let roll =
            |seed| (0..4).map(move |_| seed).scan(FakeEnv::new(Timestamp::MIN, seed), |env, _| Some(env.random()));
        assert!(roll(7).eq(roll(7)));
        assert!(!roll(7).eq(roll(8)));
    }
}
