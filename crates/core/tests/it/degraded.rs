//! A deduplication store that cannot be used, or that never answers.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt, executor::block_on, future};
use logwarden_core::{
    Timestamp,
    dedup::{Claim, DedupError, DedupStore, Outcome, Standing},
    env::Env,
    message::{Body, Message, Occasion},
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

/// Answers nothing, ever.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl DedupStore for Hanging {
    async fn reserve(&self, _: &Claim<'_>) -> Result<Standing, DedupError> {
        future::pending().await
    }

    async fn settle(&self, _: &Claim<'_>, _: &Outcome) -> Result<(), DedupError> {
        future::pending().await
    }
}

#[test]
fn one_that_never_answers_delays_a_storm_by_seconds_and_no_alert_is_lost() {
    const ALERTS: u64 = 12;
    let env = FakeEnv::new(Timestamp::from_secs(1_795_233_600), 1);
    let (source, channel) = (Arc::new(MemorySource::new("test")), Arc::new(MemoryNotifier::new("channel", false)));
    let builder = Pipeline::builder().env(Arc::new(env.clone())).source(source.clone()).host("web-1");
    let pipeline = builder.dedup(Arc::new(Hanging)).notifier(channel.clone()).build().unwrap();
    for host in 0..ALERTS {
        source.push_from(&format!("web-{host}"), env.now(), &OOM.replace("mysqld", &format!("worker-{host}")));
    }
    let began = env.now();
    let mut pass = pin!(pipeline.pass(began.plus(Duration::from_secs(240))));
    while pass.as_mut().now_or_never().is_none() {
        env.advance_to_next().expect("it waits for a time");
    }
    let told: usize = channel.sent().iter().map(|(message, _)| hosts(message)).sum();
    assert_eq!(told as u64, ALERTS);
    assert!(env.now().since(began) < Duration::from_secs(60), "{:?}", env.now().since(began));
}

fn hosts(message: &Message) -> usize {
    match &message.body {
        Body::Incidents { incidents, .. } => incidents.len(),
        Body::Rollup(rollup) => rollup.suppressed as usize,
        _ => 0,
    }
}
