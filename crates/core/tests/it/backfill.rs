//! The memory of normal from the time before the first read.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::executor::block_on;
use logwarden_core::{
    Timestamp,
    env::Env,
    ledger::{Incidents, Ledger, Query},
    pipeline::{Backfill, BackfillEnd, Limits, Past, Pipeline},
    source::{LogSource, SourceId},
    testing::{FakeEnv, MemoryLedger, MemoryNotifier, MemorySource},
};

use crate::pipeline::OOM;

const HOUR: Duration = Duration::from_secs(3600);

struct World {
    env: FakeEnv,
    ledger: Arc<MemoryLedger>,
    live: Arc<MemorySource>,
    past: Arc<MemorySource>,
    channel: Arc<MemoryNotifier>,
}

impl World {
    fn new() -> Self {
        Self {
            env: FakeEnv::new(Timestamp::from_secs(1_795_233_600), 1),
            ledger: Arc::new(MemoryLedger::new(1, 2)),
            live: Arc::new(MemorySource::new("test")),
            past: Arc::new(MemorySource::new(&Pipeline::past_of(&SourceId("test".into())).0)),
            channel: Arc::new(MemoryNotifier::new("channel", true)),
        }
    }

    /// A process: they share the ledger and nothing else.
    fn process(&self) -> Pipeline {
        let limits = Limits { lines: 100, ..Limits::default() };
        let builder = Pipeline::builder().env(Arc::new(self.env.clone())).ledger(self.ledger.clone());
        builder.source(self.live.clone()).notifier(self.channel.clone()).limits(limits).build().unwrap()
    }

    /// A week of orders, one every ten minutes, with a kill for want of memory in the middle of it.
    fn week(&self) {
        let begin = self.env.now().minus(24 * 7 * HOUR);
        for number in 0..6 * 24 * 7 - 1 {
            let time = begin.plus(Duration::from_secs(600 * number));
            self.past.push(time, &format!("level=error msg=\"receipt not sent\" order={}", 1000 + number));
            if number == 500 {
                self.past.push(time, OOM);
            }
        }
    }

    fn backfill(&self, pipeline: &Pipeline) -> (Backfill, BackfillEnd) {
        let past = self.past(pipeline);
        block_on(pipeline.backfill(self.live.id(), self.past.clone(), past, Duration::ZERO, &|_| {})).unwrap()
    }

    fn past(&self, pipeline: &Pipeline) -> Past {
        block_on(pipeline.past(self.live.id(), 24 * 7 * HOUR, Duration::from_secs(310))).unwrap()
    }

    /// How often the memory of the real source has seen a template.
    fn count(&self, text: &str) -> u64 {
        let query = Query { source: Some(self.live.id().clone()), memory: true, ..Query::default() };
        let memory = block_on(self.ledger.read(&query)).unwrap().memory;
        memory.iter().filter(|(_, row)| row.template.contains(text)).map(|(_, row)| row.count).sum()
    }

    fn quiet(&self) -> bool {
        let query = Query { incidents: Incidents::Latest { limit: 10 }, ..Query::default() };
        block_on(self.ledger.read(&query)).unwrap().incidents.is_empty() && self.channel.sent().is_empty()
    }
}

#[test]
fn the_past_is_learned_once_and_nobody_hears_of_it() {
    let world = World::new();
    world.week();
    let (report, end) = world.backfill(&world.process());
    assert_eq!((report.lines, end), (6 * 24 * 7, BackfillEnd::Done));
    assert!(world.quiet());
    assert_eq!(world.count("receipt not sent"), 6 * 24 * 7 - 1);
    assert!(world.past(&world.process()).done, "a second run has nothing to do");

    // What is known is no news, what is new is told at once: the source counts as learned.
    let process = world.process();
    world.live.push(world.env.now(), "level=error msg=\"receipt not sent\" order=77");
    block_on(process.pass(world.env.now())).unwrap();
    assert!(world.quiet());
    assert_eq!(world.count("receipt not sent"), 6 * 24 * 7);
    world.env.advance(Duration::from_secs(60));
    world.live.push(world.env.now(), "level=error msg=\"stock ledger out of step\" warehouse=7");
    block_on(process.pass(world.env.now())).unwrap();
    assert_eq!(world.channel.sent().len(), 1);
}

#[test]
fn what_breaks_off_goes_on_where_it_was() {
    let world = World::new();
    world.week();
    let pages = Mutex::new(0);
    let stop = |_: &Backfill| {
        let mut pages = pages.lock().unwrap();
        *pages += 1;
        world.past.set_down(*pages == 4);
    };
    let process = world.process();
    let past = world.past(&process);
    let (report, end) =
        block_on(process.backfill(world.live.id(), world.past.clone(), past, Duration::ZERO, &stop)).unwrap();
    assert!(matches!(end, BackfillEnd::Failed { .. }) && report.lines < 500, "{end:?} {report:?}");
    assert_eq!(world.count("receipt not sent"), 0, "nothing is known before all is");

    world.past.set_down(false);
    world.env.advance(HOUR);
    let process = world.process();
    assert_eq!(world.past(&process), past, "the same time, however late it is");
    assert_eq!(world.backfill(&process).1, BackfillEnd::Done);
    assert_eq!(world.count("receipt not sent"), 6 * 24 * 7 - 1);
    assert!(world.quiet());
}

#[test]
fn whoever_reads_meanwhile_goes_on_and_keeps_what_he_has() {
    let world = World::new();
    world.week();
    let (reader, learner) = (world.process(), world.process());
    world.live.push(world.env.now(), "level=error msg=\"receipt not sent\" order=1");
    block_on(reader.pass(world.env.now())).unwrap();
    let past = world.past(&learner);
    let between = |_: &Backfill| {
        world.env.advance(Duration::from_secs(1));
        world.live.push(world.env.now(), "level=error msg=\"receipt not sent\" order=2");
        // Another process has an executor of its own.
        let now = world.env.now();
        std::thread::scope(|scope| scope.spawn(|| block_on(reader.pass(now)).unwrap()).join()).unwrap();
    };
    let (_, end) =
        block_on(learner.backfill(world.live.id(), world.past.clone(), past, Duration::ZERO, &between)).unwrap();
    assert_eq!(end, BackfillEnd::Done);
    let learned = world.count("receipt not sent");
    world.live.push(world.env.now(), "level=error msg=\"receipt not sent\" order=3");
    block_on(reader.pass(world.env.now())).unwrap();
    assert_eq!(world.count("receipt not sent"), learned + 1, "nothing is read twice, nothing is forgotten");
    assert_eq!(learned, 6 * 24 * 7 - 1 + 1 + 11, "the week, the first one, and one after each of eleven pages");
    // A pass that holds the source and does not let go keeps what was learned waiting, and loses nothing of it.
    assert!(world.past(&learner).done);
}
