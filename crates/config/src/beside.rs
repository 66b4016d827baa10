//! Two deduplication stores of one machine, of which only one may be there to stay.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use logwarden_core::{
    dedup::{Claim, DedupError, DedupStore, Outcome, Standing},
    error::chain,
    finding::Key,
    incident::Rank,
    message::SendId,
    notifier::ChannelHash,
};

/// Speaks only when both stores say so: what the one `beside` knows to be told is not told again.
///
/// `store` is the one that counts. `beside` is an aid, which nothing waits for, and is told only what the usual state may
/// have lost ([`Both::hand_over`]): what it knows longer than that would keep back what is new.
#[derive(Debug)]
pub struct Both {
    store: Arc<dyn DedupStore>,
    beside: Arc<dyn DedupStore>,
    arrived: Mutex<Vec<Arrived>>,
}

/// A claim that has been settled, and outlives its call.
#[derive(Debug)]
struct Arrived {
    id: SendId,
    epoch: u64,
    channel: ChannelHash,
    keys: Vec<(Key, Rank)>,
    window: Duration,
    lease: Duration,
    outcome: Outcome,
}

impl Both {
    /// What is remembered of a process at most.
    const MOST: usize = 100;

    pub(crate) fn new(store: Arc<dyn DedupStore>, beside: Arc<dyn DedupStore>) -> Self {
        Self { store, beside, arrived: Mutex::default() }
    }

    fn arrived(&self) -> MutexGuard<'_, Vec<Arrived>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes beside what this process has told: the usual state has failed, and may not know.
    pub async fn hand_over(&self) {
        let arrived = std::mem::take(&mut *self.arrived());
        for Arrived { id, epoch, channel, keys, window, lease, outcome } in &arrived {
            let (id, epoch, channel, window, lease) = (*id, *epoch, *channel, *window, *lease);
            let claim = Claim { id, epoch, channel, keys, age: Duration::ZERO, window, lease };
            self.settle_beside(&claim, outcome).await;
        }
    }

    async fn settle_beside(&self, claim: &Claim<'_>, outcome: &Outcome) {
        if let Err(error) = self.beside.settle(claim, outcome).await {
            tracing::warn!(error = %chain(&error), "what was told is not noted beside the state");
        }
    }
}

#[async_trait]
impl DedupStore for Both {
    async fn reserve(&self, claim: &Claim<'_>) -> Result<Standing, DedupError> {
        match self.beside.reserve(claim).await {
            Ok(Standing::First { .. }) => self.settle_beside(claim, &Outcome::Failed).await,
            Ok(told) => return Ok(told),
            Err(error) => tracing::warn!(error = %chain(&error), "what was told beside the state is not known"),
        }
        self.store.reserve(claim).await
    }

    async fn settle(&self, claim: &Claim<'_>, outcome: &Outcome) -> Result<(), DedupError> {
        if let Outcome::Delivered { .. } = outcome {
            let Claim { id, epoch, channel, keys, window, lease, .. } = *claim;
            let (keys, outcome) = (keys.to_vec(), outcome.clone());
            let mut arrived = self.arrived();
            arrived.truncate(Self::MOST - 1);
            arrived.push(Arrived { id, epoch, channel, keys, window, lease, outcome });
        }
        self.store.settle(claim, outcome).await
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use logwarden_core::{
        Severity, Timestamp,
        dedup::Reserved,
        notifier::Receipt,
        testing::{FakeEnv, MemoryDedup},
    };

    use super::*;

    fn claim(id: u128, keys: &[(Key, Rank)]) -> Claim<'_> {
        let (window, lease) = (Duration::from_secs(3600), Duration::from_secs(60));
        Claim { id: SendId(id), epoch: 1, channel: ChannelHash(1), keys, age: Duration::ZERO, window, lease }
    }

    #[test]
    fn what_one_was_told_of_neither_says_again() {
        let env = FakeEnv::new(Timestamp::from_secs(1_795_233_600), 1);
        let store = || Arc::new(MemoryDedup::new(env.clock()));
        let (usual, aside) = (store(), store());
        let both = Both::new(usual.clone(), aside.clone());
        let rank = Rank { detector: true, severity: Severity::High };
        let (one, two) = ([(Key::from_bits(1), rank)], [(Key::from_bits(2), rank)]);
        let arrives = |store: &dyn DedupStore, claim: &Claim<'_>| {
            let Standing::First { at } = block_on(store.reserve(claim)).unwrap() else { panic!("it is told") };
            let outcome = Outcome::Delivered { receipt: Receipt("r".into()), reserved: Reserved::At(at) };
            block_on(store.settle(claim, &outcome)).unwrap();
        };
        let is_repeat = |store: &dyn DedupStore, claim: &Claim<'_>| {
            matches!(block_on(store.reserve(claim)), Ok(Standing::Repeat { .. }))
        };

        arrives(&both, &claim(1, &one));
        block_on(both.hand_over()); // the usual state failed then
        assert!(is_repeat(&*aside, &claim(2, &one)));
        assert!(matches!(block_on(both.reserve(&claim(1, &one))), Ok(Standing::Delivered { .. })));
        arrives(&*aside, &claim(3, &two));
        assert!(is_repeat(&both, &claim(4, &two)), "it can be used again");

        // What the usual state knows is its own affair, and does not keep back what comes after its end.
        let three = [(Key::from_bits(3), rank)];
        arrives(&both, &claim(5, &three));
        assert!(is_repeat(&both, &claim(6, &three)));
        arrives(&*aside, &claim(7, &three));
    }
}
