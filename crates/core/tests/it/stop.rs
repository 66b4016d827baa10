//! A pipeline that is asked to stop in the middle of something.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt, executor::block_on};
use logwarden_core::{
    Timestamp,
    env::Env,
    message::{Message, Occasion},
    notifier::{Channel, Form, Notifier, NotifyError, Receipt},
    pipeline::{Pipeline, PipelineError, Trouble},
    source::{Budget, Cursor, LogSource, Page, QueryInfo, Seen, SourceError, SourceId},
    testing::{FakeEnv, MemoryClassifier, MemoryDedup, MemoryLedger, MemoryNotifier, MemorySource},
};

use crate::pipeline::OOM;

const GRACE: Duration = Duration::from_secs(10);

/// Waits for what it waits for, in no time.
fn run(env: &FakeEnv, watched: impl Future<Output = Result<(), PipelineError>>) {
    let mut watched = pin!(watched);
    loop {
        match watched.as_mut().now_or_never() {
            Some(ended) => return ended.unwrap(),
            None => env.advance_to_next().map_or_else(|| panic!("it waits for nothing"), drop),
        }
    }
}

#[test]
fn our_own_troubles_wait_for_no_model() {
    let channel = Arc::new(MemoryNotifier::new("channel", false));
    let env = FakeEnv::new(Timestamp::from_secs(1_795_233_600), 1);
    let builder = Pipeline::builder().env(Arc::new(env)).source(Arc::new(MemorySource::new("test"))).host("web-1");
    let pipeline = builder.notifier(channel.clone()).classifier(Arc::new(MemoryClassifier::away())).build().unwrap();
    let trouble = Trouble::Unreadable { sender: "web-7".into(), reason: "it is not JSON".into() };
    block_on(pipeline.report_trouble(&[trouble])).unwrap();
    block_on(pipeline.deliver(Timestamp::MIN)).unwrap();
    assert_eq!(channel.occasions(), [Occasion::Fired], "of medium severity, and told at once");
}

/// Needs its time for every message.
#[derive(Debug)]
struct Slow(Arc<MemoryNotifier>, FakeEnv, Duration);

#[async_trait]
impl Notifier for Slow {
    fn channel(&self) -> &Channel {
        self.0.channel()
    }

    async fn send(&self, message: &Message, form: Form, amend: Option<&Receipt>) -> Result<Receipt, NotifyError> {
        self.1.sleep_until(self.1.now().plus(self.2)).await;
        self.0.send(message, form, amend).await
    }
}

/// Watches until it is stopped in the middle of a message; what was sent, and how long it took to end.
fn stopped_while_sending(takes: Duration, pushed: bool) -> (Vec<Occasion>, Duration) {
    let channel = Arc::new(MemoryNotifier::new("channel", false));
    let env = FakeEnv::new(Timestamp::from_secs(1_795_233_600), 1);
    let source = Arc::new(MemorySource::new("test"));
    let slow = Arc::new(Slow(channel.clone(), env.clone(), takes));
    let builder = Pipeline::builder().env(Arc::new(env.clone())).source(source.clone()).host("web-1");
    let pipeline = builder.notifier(slow).build().unwrap();
    source.push(env.now(), OOM);
    let asked = env.now().plus(Duration::from_secs(2));
    let (report, stop) = (|_| {}, env.sleep_until(asked));
    match pushed {
        true => run(&env, pipeline.watch_pushed(0, std::future::pending, GRACE, &report, stop)),
        false => run(&env, pipeline.watch(Duration::from_secs(300), GRACE, &report, stop)),
    }
    (channel.occasions(), env.now().since(asked))
}

#[test]
fn a_message_under_way_is_finished_once_and_within_the_grace() {
    for pushed in [false, true] {
        let (told, took) = stopped_while_sending(Duration::from_secs(5), pushed);
        assert_eq!(told, [Occasion::Fired]);
        assert!(took < Duration::from_secs(5), "{took:?}");
        let (told, took) = stopped_while_sending(Duration::from_secs(14), pushed);
        assert_eq!(told, []);
        assert!(took <= GRACE, "{took:?}");
    }
}

/// Takes its time for a page.
#[derive(Debug)]
struct SlowLines(Arc<MemorySource>, FakeEnv);

#[async_trait]
impl LogSource for SlowLines {
    fn id(&self) -> &SourceId {
        self.0.id()
    }

    fn queries(&self) -> &[QueryInfo] {
        self.0.queries()
    }

    async fn read(&self, cursor: Option<&Cursor>, seen: &Seen, budget: Budget) -> Result<Page, SourceError> {
        self.1.sleep_until(self.1.now().plus(Duration::from_secs(4))).await;
        self.0.read(cursor, seen, budget).await
    }
}

#[test]
fn in_the_middle_of_a_page_it_is_read_again_and_told() {
    let channel = Arc::new(MemoryNotifier::new("channel", false));
    let env = FakeEnv::new(Timestamp::from_secs(1_795_233_600), 1);
    let lines = Arc::new(MemorySource::new("test"));
    let slow = Arc::new(SlowLines(lines.clone(), env.clone()));
    let builder = Pipeline::builder().env(Arc::new(env.clone())).source(slow).host("web-1");
    let pipeline = builder.notifier(channel.clone()).build().unwrap();
    lines.push(env.now(), OOM);
    let asked = env.now().plus(Duration::from_secs(2));
    run(&env, pipeline.watch_pushed(0, std::future::pending, GRACE, &|_| {}, env.sleep_until(asked)));
    assert_eq!(channel.occasions(), [Occasion::Fired]);
    assert!(env.now().since(asked) <= GRACE);
}

#[test]
fn what_was_being_said_when_we_were_killed_is_said_at_once_at_the_next_start() {
    let channel = Arc::new(MemoryNotifier::new("channel", false));
    let env = FakeEnv::new(Timestamp::from_secs(1_795_233_600), 1);
    let source = Arc::new(MemorySource::new("test"));
    let ledger = Arc::new(MemoryLedger::new(1, 2));
    let dedup = Arc::new(MemoryDedup::new(env.clock()));
    let start = |notifier: Arc<dyn Notifier>| {
        let builder = Pipeline::builder().env(Arc::new(env.clone())).source(source.clone()).host("web-1");
        builder.ledger(ledger.clone()).dedup(dedup.clone()).notifier(notifier).build().unwrap()
    };
    source.push(env.now(), OOM);
    let gone = {
        let killed = start(Arc::new(Slow(channel.clone(), env.clone(), GRACE)));
        let begun = env.now();
        let mut watched = pin!(killed.watch_pushed(0, std::future::pending, GRACE, &|_| {}, std::future::pending()));
        while env.now().since(begun) < Duration::from_secs(3) {
            assert!(watched.as_mut().now_or_never().is_none());
            env.advance_to_next().unwrap();
        }
        killed.process()
    };
    assert_eq!(channel.occasions(), []);
    let next = start(channel.clone());
    assert_eq!(block_on(next.inherit(&|_| false)).unwrap(), 0, "whoever may live keeps what is theirs");
    assert_eq!(block_on(next.inherit(&|process| process == gone)).unwrap(), 2, "a source and a channel");
    block_on(next.deliver(Timestamp::MIN)).unwrap();
    assert_eq!(channel.occasions(), [Occasion::Fired]);
    let told = &channel.sent()[0].0;
    assert!(told.possible_repeat, "it may have arrived before");
    block_on(next.deliver(Timestamp::MIN)).unwrap();
    assert_eq!(channel.occasions().len(), 1);
}
