//! A deduplication store that is heard in time, or not waited for: one that hangs must not hold up what is to be told.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{FutureExt, pin_mut, select_biased};

use crate::{
    Timestamp,
    dedup::{Claim, DedupError, DedupStore, Outcome, Standing},
    env::Env,
};

/// How long an answer is waited for: longer than a store on disk waits for another process, and short of what a claim has
/// left for its send and for two answers.
const PATIENCE: Duration = Duration::from_secs(15);
/// So long after an answer that did not come the store is not asked, or a storm of messages would wait for each.
const REST: Duration = Duration::from_secs(60);

/// Asks `store`, and fails when it does not answer.
#[derive(Debug)]
pub(super) struct InTime {
    store: Arc<dyn DedupStore>,
    env: Arc<dyn Env>,
    /// When it did not answer last.
    hung: Mutex<Option<Timestamp>>,
}

impl InTime {
    pub(super) fn new(store: Arc<dyn DedupStore>, env: Arc<dyn Env>) -> Self {
        Self { store, env, hung: Mutex::new(None) }
    }

    async fn wait<T>(&self, answer: impl Future<Output = Result<T, DedupError>>) -> Result<T, DedupError> {
        let asked = self.env.now();
        let hung = *self.hung.lock().unwrap_or_else(PoisonError::into_inner);
        if hung.is_some_and(|hung| hung <= asked && asked.since(hung) < REST) {
            return Err(DedupError { cause: "it did not answer a moment ago, and is not asked".into() });
        }
        let (answer, late) = (answer.fuse(), self.env.sleep_until(asked.plus(PATIENCE)).fuse());
        pin_mut!(answer, late);
        select_biased! {
            answer = answer => answer,
            () = late => {
                *self.hung.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.env.now());
                Err(DedupError { cause: format!("no answer within {} s", PATIENCE.as_secs()).into() })
            }
        }
    }
}

#[async_trait]
impl DedupStore for InTime {
    async fn reserve(&self, claim: &Claim<'_>) -> Result<Standing, DedupError> {
        self.wait(self.store.reserve(claim)).await
    }

    async fn settle(&self, claim: &Claim<'_>, outcome: &Outcome) -> Result<(), DedupError> {
        self.wait(self.store.settle(claim, outcome)).await
    }
}
