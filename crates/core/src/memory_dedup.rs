//! A deduplication store in memory: for one process, and for tests.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    Timestamp,
    dedup::{Claim, DedupError, DedupStore, HOLD, Outcome, Reserved, Standing},
    finding::Key,
    incident::Rank,
    message::SendId,
    notifier::{ChannelHash, Receipt},
    retention,
};

/// A time further in the future than this is from before a clock was set back, and counts as long ago: a jump of the clock
/// may repeat a message, never swallow one.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// A deduplication store that ends with the process.
pub struct MemoryDedup {
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By channel and key, once per rank.
    told: BTreeMap<(ChannelHash, Key), Vec<Told>>,
    claims: BTreeMap<SendId, Held>,
    settled: BTreeMap<SendId, (Receipt, Timestamp)>,
    pruned: Option<Timestamp>,
}

/// The last time that a key was told at a rank.
#[derive(Debug)]
struct Told {
    rank: Rank,
    at: Timestamp,
    receipt: Receipt,
}

#[derive(Debug)]
struct Held {
    epoch: u64,
    channel: ChannelHash,
    keys: Vec<(Key, Rank)>,
    at: Timestamp,
    /// When its hold began: with the reservation, or when it became unclear.
    since: Timestamp,
    until: Timestamp,
    /// It may be on its way now; otherwise it waits to be tried again.
    sending: bool,
}

impl MemoryDedup {
    /// An empty store with this clock.
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), state: Mutex::default() }
    }
}

impl fmt::Debug for MemoryDedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDedup").field("state", &self.state).finish_non_exhaustive()
    }
}

#[async_trait]
impl DedupStore for MemoryDedup {
    async fn reserve(&self, claim: &Claim<'_>) -> Result<Standing, DedupError> {
        let now = (self.clock)();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.prune(now);
        Ok(state.reserve(claim, now))
    }

    async fn settle(&self, claim: &Claim<'_>, outcome: &Outcome) -> Result<(), DedupError> {
        let now = (self.clock)();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.settle(claim, outcome, now);
        Ok(())
    }
}

/// Whether a time lies so far in the future that the clock must have been set back since.
pub fn is_from_before(at: Timestamp, now: Timestamp) -> bool {
    at > now.plus(CLOCK_TOLERANCE)
}

/// How long a claim that is held since `since` still holds: nothing when it is over, or when the clock has been set back to
/// before that. `until` is when its lease ends, or [`HOLD`] after that.
pub fn lease_left(since: Timestamp, until: Timestamp, now: Timestamp) -> Duration {
    if is_from_before(since, now) { Duration::ZERO } else { until.since(now) }
}

/// Whether something told at `at` counts as told for an event `age` ago, by the clock that says `now`.
pub fn counts_as_told(at: Timestamp, now: Timestamp, age: Duration, window: Duration) -> bool {
    at >= now.minus(age).minus(window) && !is_from_before(at, now)
}

impl State {
    fn reserve(&mut self, claim: &Claim<'_>, now: Timestamp) -> Standing {
        if let Some((receipt, _)) = self.settled.get(&claim.id) {
            return Standing::Delivered { receipt: receipt.clone() };
        }
        if let Some(repeat) = self.told_already(claim, now) {
            return repeat;
        }
        if self.claims.get(&claim.id).is_some_and(|later| later.epoch > claim.epoch) {
            return Standing::Pending { wait: claim.lease };
        }
        let busy = self.claims.iter().filter_map(|(id, other)| {
            if *id == claim.id {
                // Our own earlier attempt counts while it may still be sending. The same attempt asking again does not.
                (other.epoch != claim.epoch && other.sending).then_some((other.since, other.until))
            } else {
                let about = |key: &Key| claim.keys.iter().any(|(ours, _)| ours == key);
                let overlaps = other.channel == claim.channel && other.keys.iter().any(|(key, _)| about(key));
                let hold = if other.sending { HOLD } else { Duration::ZERO };
                overlaps.then_some((other.since, other.until.plus(hold)))
            }
        });
        let wait = busy.map(|(since, until)| lease_left(since, until, now)).max().unwrap_or_default();
        if !wait.is_zero() {
            return Standing::Pending { wait };
        }
        let held = Held {
            epoch: claim.epoch,
            channel: claim.channel,
            keys: claim.keys.to_vec(),
            at: now,
            since: now,
            until: now.plus(claim.lease),
            sending: true,
        };
        self.claims.insert(claim.id, held);
        Standing::First { at: now }
    }

    /// Who told the last of it and when the first of it was told, when all of it was told (R4).
    fn told_already(&self, claim: &Claim<'_>, now: Timestamp) -> Option<Standing> {
        let (mut latest, mut earliest): (Option<&Told>, Timestamp) = (None, now);
        for (key, rank) in claim.keys {
            let told = self.told.get(&(claim.channel, *key))?;
            let loud_enough = told
                .iter()
                .filter(|told| told.rank >= *rank && counts_as_told(told.at, now, claim.age, claim.window))
                .max_by_key(|told| (told.at, told.rank))?;
            if latest.is_none_or(|latest| loud_enough.at > latest.at) {
                latest = Some(loud_enough);
            }
            earliest = earliest.min(loud_enough.at);
        }
        latest.map(|told| Standing::Repeat { receipt: told.receipt.clone(), ago: now.since(earliest) })
    }

    fn settle(&mut self, claim: &Claim<'_>, outcome: &Outcome, now: Timestamp) {
        let ours = self.claims.get(&claim.id).is_some_and(|reserved| reserved.epoch == claim.epoch);
        match outcome {
            Outcome::Failed if ours => drop(self.claims.remove(&claim.id)),
            Outcome::Unclear { hold } if ours => {
                if let Some(reserved) = self.claims.get_mut(&claim.id) {
                    (reserved.since, reserved.until, reserved.sending) = (now, now.plus(*hold), false);
                }
            }
            Outcome::Failed | Outcome::Unclear { .. } => {}
            Outcome::Delivered { receipt, reserved } => {
                // Overtaken, or given up by somebody who could not know: it arrived all the same. A later attempt that is
                // under way goes on.
                let own = if ours { self.claims.remove(&claim.id) } else { None };
                let at = match *reserved {
                    Reserved::At(at) => at,
                    Reserved::Ago(held) => own.map_or(now.minus(held), |own| own.at),
                };
                self.delivered(claim, receipt, at, now);
            }
        }
    }

    fn delivered(&mut self, claim: &Claim<'_>, receipt: &Receipt, at: Timestamp, now: Timestamp) {
        self.settled.insert(claim.id, (receipt.clone(), now));
        if is_from_before(at, now) {
            return; // nobody knows how long ago that was
        }
        for (key, rank) in claim.keys {
            let told = self.told.entry((claim.channel, *key)).or_default();
            let new = Told { rank: *rank, at, receipt: receipt.clone() };
            match told.iter_mut().find(|known| known.rank == *rank) {
                // The last time, unless that is from before the clock was set back.
                Some(known) if known.at > new.at && !is_from_before(known.at, now) => {}
                Some(known) => *known = new,
                None => told.push(new),
            }
        }
    }

    /// Forgets what is older than its retention; once a minute, since it looks at everything. What was told in the future is
    /// forgotten, too: when the clock has caught up it would count as told a moment ago.
    fn prune(&mut self, now: Timestamp) {
        if self.pruned.is_some_and(|last| now >= last && now.since(last) < Duration::from_secs(60)) {
            return;
        }
        self.pruned = Some(now);
        let before = now.minus(retention::DELIVERED);
        self.settled.retain(|_, (_, at)| *at >= before);
        self.claims.retain(|_, claim| claim.at >= before);
        self.told.retain(|_, told| {
            told.retain(|told| told.at >= before && !is_from_before(told.at, now));
            !told.is_empty()
        });
    }
}
