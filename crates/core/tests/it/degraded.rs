//! A deduplication store that cannot be used.

use std::sync::Arc;

use async_trait::async_trait;
use futures::executor::block_on;
use logwarden_core::{
    Timestamp,
    dedup::{Claim, DedupError, DedupStore, Outcome, Standing},
    env::Env,
    message::Occasion,
    pipeline::Pipeline,
    testing::{FakeEnv, MemoryNotifier, MemorySource},
};

use crate::pipeline::OOM;

#[derive(Debug)]
struct Away;

#[async_trait]
impl DedupStore for Away {
    async fn reserve(&self, _: &Claim<'_>) -> Result<Standing, DedupError> {
        Err(DedupError { cause: "it is away".into() })
    }

    async fn settle(&self, _: &Claim<'_>, _: &Outcome) -> Result<(), DedupError> {
        Err(DedupError { cause: "it is away".into() })
    }
}

#[test]
fn without_it_every_alert_is_told_and_by_this_host_once() {
    let env = FakeEnv::new(Timestamp::from_secs(1_795_233_600), 1);
    let (source, channel) = (Arc::new(MemorySource::new("test")), Arc::new(MemoryNotifier::new("channel", false)));
    let builder = Pipeline::builder().env(Arc::new(env.clone())).source(source.clone()).host("web-1");
    let pipeline = builder.dedup(Arc::new(Away)).notifier(channel.clone()).build().unwrap();
    for _ in 0..3 {
        source.push(env.now(), OOM);
        block_on(pipeline.pass(env.now())).unwrap();
        env.advance(std::time::Duration::from_secs(60));
    }
    assert_eq!(channel.occasions(), [Occasion::Fired]);
}
