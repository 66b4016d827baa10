//! Time and chance, which come in from outside, so that a simulation can run a fortnight in a second.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::Timestamp;

/// The clock, the timer and the dice.
#[async_trait]
pub trait Env: fmt::Debug + Send + Sync {
    /// The wall clock. May jump.
    fn now(&self) -> Timestamp;

    /// Waits until the clock says `time`; returns at once when it already does. Dropping the future cancels the wait.
    async fn sleep_until(&self, time: Timestamp);

    /// 64 random bits, unpredictable to those who write logs.
    fn random(&self) -> u64;
}

/// Waits for `duration`.
pub async fn sleep(env: &dyn Env, duration: Duration) {
    env.sleep_until(env.now().plus(duration)).await;
}
