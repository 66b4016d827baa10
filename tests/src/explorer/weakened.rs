//! The protocol without one of its rules, to show that the explorer would notice.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use logwarden_core::{
    Severity,
    dedup::{Claim, DedupError, DedupStore, Outcome, Reserved, Standing},
    env::Env,
    incident::Rank,
    ledger::{Snapshot, Write},
    message::SendId,
    testing::FakeEnv,
};

use super::{Rules, WINDOW};

/// Without R1: an event goes into an open row of its incident and channel even when that is being sent.
pub(super) fn absorb_into_claimed(snapshot: &Snapshot, writes: &mut [Write]) {
    for write in writes.iter_mut() {
        let Write::Outbox(row) = write else { continue };
        let claimed = snapshot.outbox.iter().find(|known| {
            row.version == 0
                && known.row.incident == row.row.incident
                && known.row.channel == row.row.channel
                && known.row.send.is_some()
                && known.row.state.is_open()
        });
        if let Some(claimed) = claimed {
            let mut claimed = claimed.clone();
            claimed.row.seq = row.row.seq;
            *row = claimed;
        }
    }
}

/// A deduplication store without some of the rules.
#[derive(Debug)]
pub(super) struct Weakened {
    pub(super) inner: Arc<dyn DedupStore>,
    pub(super) rules: Rules,
    pub(super) env: FakeEnv,
}

const FLAT: Rank = Rank { detector: true, severity: Severity::Low };

#[async_trait]
impl DedupStore for Weakened {
    async fn reserve(&self, claim: &Claim<'_>) -> Result<Standing, DedupError> {
        let mut keys = claim.keys.to_vec();
        if !self.rules.r5 {
            keys.iter_mut().for_each(|(_, rank)| *rank = FLAT);
        }
        let mut claim = Claim { keys: &keys, ..claim.clone() };
        if !self.rules.r6 {
            claim.age = Duration::ZERO;
            claim.window = WINDOW;
        }
        if !self.rules.r4 {
            for key in &keys {
                let probe = SendId(u128::from(self.env.random()));
                let one = Claim { id: probe, keys: std::slice::from_ref(key), lease: Duration::ZERO, ..claim.clone() };
                match self.inner.reserve(&one).await? {
                    repeat @ Standing::Repeat { .. } => return Ok(repeat),
                    Standing::First { .. } => self.inner.settle(&one, &Outcome::Failed).await?,
                    Standing::Delivered { .. } | Standing::Pending { .. } => {}
                }
            }
        }
        self.inner.reserve(&claim).await
    }

    async fn settle(&self, claim: &Claim<'_>, outcome: &Outcome) -> Result<(), DedupError> {
        let mut keys = claim.keys.to_vec();
        if !self.rules.r5 {
            keys.iter_mut().for_each(|(_, rank)| *rank = FLAT);
        }
        let claim = Claim { keys: &keys, ..claim.clone() };
        let mut outcome = outcome.clone();
        if !self.rules.r6
            && let Outcome::Delivered { reserved, .. } = &mut outcome
        {
            *reserved = Reserved::At(self.env.now()); // told counts from the moment of the answer
        }
        self.inner.settle(&claim, &outcome).await
    }
}
