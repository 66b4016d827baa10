//! The real clock and dice, on tokio.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use logwarden_core::{Timestamp, env::Env};

/// The machine's clock and random numbers; waits on tokio's timer.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnv;

#[async_trait]
impl Env for SystemEnv {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the one clock that everything else is given")]
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    async fn sleep_until(&self, time: Timestamp) {
        // In short steps, since the wall clock may jump.
        loop {
            let left = time.since(self.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(Duration::from_secs(5))).await;
        }
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}
