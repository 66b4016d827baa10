//! Troubles of our own and failed units, from beginning to end: each outage is told once, and that it is over.

use std::{sync::Arc, time::Duration};

use futures::executor::block_on;
use logwarden_core::{
    Timestamp,
    decide::mutes,
    env::Env,
    incident::Incident,
    ledger::{Commit, CommitId, Committed, Incidents, Ledger, Mute, MuteMatch, Query},
    message::{Body, IncidentView, Occasion},
    pipeline::{Pipeline, Trouble},
    testing::{FakeEnv, MemoryDedup, MemoryLedger, MemoryNotifier},
};

struct World {
    env: FakeEnv,
    ledger: Arc<MemoryLedger>,
    channel: Arc<MemoryNotifier>,
    pipeline: Pipeline,
}

impl World {
    /// With a channel that can amend its messages or not.
    fn new(amends: bool) -> Self {
        let env = FakeEnv::new(Timestamp::from_secs(1_795_233_600), 1);
        let ledger = Arc::new(MemoryLedger::new(1, 2));
        let channel = Arc::new(MemoryNotifier::new("channel", amends));
        let dedup = Arc::new(MemoryDedup::new(env.clock()));
        let builder = Pipeline::builder().env(Arc::new(env.clone())).ledger(ledger.clone()).host("web-1");
        let pipeline = builder.dedup(dedup).notifier(channel.clone()).build().unwrap();
        Self { env, ledger, channel, pipeline }
    }

    fn after(&self, minutes: u64) -> &Self {
        self.env.advance(Duration::from_secs(60 * minutes));
        self
    }

    /// Notes something, and does what is due.
    fn note(&self, noted: impl Future<Output = Result<(), logwarden_core::pipeline::PipelineError>>) {
        block_on(noted).unwrap();
        block_on(self.pipeline.tick()).unwrap();
        block_on(self.pipeline.deliver(self.env.now())).unwrap();
    }

    fn fails(&self) {
        self.note(self.pipeline.report_trouble(&[nginx("exit status: 1")]));
    }

    fn works(&self) {
        self.note(self.pipeline.trouble_is_over(&nginx(""), "nginx.service works again"));
    }

    fn goes_on(&self) {
        self.note(self.pipeline.trouble_goes_on(&nginx("")));
    }

    fn disk(&self, free_mib: u64) {
        let path = "/var/lib/logwarden".to_owned();
        let trouble = Trouble::DiskNearlyFull { path, free: free_mib << 20, push: 200 << 20, read: 25 << 20 };
        if free_mib < 200 {
            self.note(self.pipeline.report_trouble(&[trouble]));
        } else {
            self.note(self.pipeline.trouble_is_over(&trouble, "there is room again"));
        }
    }

    /// What was said, the latest last.
    fn said(&self) -> Vec<(Occasion, IncidentView)> {
        let sent = self.channel.sent().into_iter();
        sent.filter_map(|(message, _)| match message.body {
            Body::Incidents { occasion, mut incidents, .. } => Some((occasion, incidents.swap_remove(0))),
            _ => None,
        })
        .collect()
    }

    fn incidents(&self) -> Vec<Incident> {
        let query = Query { incidents: Incidents::Latest { limit: 100 }, ..Query::default() };
        let snapshot = block_on(self.ledger.read(&query)).unwrap();
        snapshot.incidents.into_values().map(|incident| incident.row).collect()
    }
}

fn nginx(reason: &str) -> Trouble {
    Trouble::UnitFailed { unit: "nginx.service".into(), reason: reason.into() }
}

#[test]
fn each_outage_of_a_unit_is_told_once_and_that_it_works_again() {
    let world = World::new(false);
    world.fails();
    world.after(1).fails();
    world.after(5).works();
    // However soon.
    world.after(1).fails();
    world.after(1).works();
    use Occasion::{Fired, Quiet};
    assert_eq!(world.channel.occasions(), [Fired, Quiet, Fired, Quiet]);
    let said = world.said();
    let ends: Vec<_> = said.iter().map(|(_, view)| view.over.as_ref().map(|over| over.how.raw())).collect();
    assert_eq!(ends, [None, Some("nginx.service works again"), None, Some("nginx.service works again")]);
    assert!(said[2].1.seen_before.is_some(), "and the second message says that it is not the first time");
}

#[test]
fn an_outage_that_begins_while_the_one_before_is_still_being_told_is_told_too() {
    let world = World::new(false);
    world.channel.limit();
    world.fails();
    assert_eq!(world.channel.occasions(), [], "its message is made, and waits");
    world.after(5).works();
    world.after(1).fails();
    world.after(30);
    block_on(world.pipeline.deliver(world.env.now().plus(Duration::from_secs(60)))).unwrap();
    let fired = world.channel.occasions().into_iter().filter(|occasion| *occasion == Occasion::Fired);
    assert_eq!(fired.count(), 2, "{:#?}", world.channel.occasions());
}

#[test]
fn a_mute_of_an_outage_holds_the_next_one() {
    let world = World::new(true);
    world.fails();
    let matches = MuteMatch { incident: Some(world.incidents()[0].id.to_string()), ..MuteMatch::default() };
    let mute = Mute {
        id: "m1".into(),
        matches,
        until: None,
        reason: "known".into(),
        author: "anna".into(),
        created: world.env.now(),
    };
    let query = Query { incidents: Incidents::Latest { limit: 100 }, ..Query::default() };
    let writes = mutes::begin(&block_on(world.ledger.read(&query)).unwrap(), &mute);
    let commit = Commit { id: CommitId(7), writes };
    assert_eq!(block_on(world.ledger.commit(&commit)).unwrap(), Committed::Done);
    world.after(5).works();
    world.after(5).fails();
    world.after(300).fails();
    assert_eq!(world.channel.occasions(), [Occasion::Fired]);
    assert_eq!(world.incidents().len(), 3);
}

#[test]
fn a_unit_that_stays_failed_is_one_outage_however_long() {
    let world = World::new(false);
    world.fails();
    for _ in 0..3 * 12 {
        world.after(5).goes_on();
    }
    world.after(5).fails();
    assert_eq!(world.incidents().len(), 1);
    let (fired, rest) = world.channel.occasions().split_first().map(|(first, rest)| (*first, rest.to_vec())).unwrap();
    assert_eq!((fired, rest), (Occasion::Fired, vec![Occasion::Reminded; 3]));
}

#[test]
fn a_disk_that_fills_up_again_is_told_again_and_figures_are_of_now() {
    let world = World::new(false);
    world.disk(150);
    for minutes in 1..=13 {
        world.after(5).disk(150 - minutes);
    }
    world.after(5).disk(900);
    world.after(5).disk(100);
    let said = world.said();
    let free = |view: &IncidentView| {
        let words = view.explanation.as_ref().map(|words| words.text.raw().to_owned()).unwrap_or_default();
        words.split_once(" are free").map(|(free, _)| free.to_owned()).unwrap_or_default()
    };
    let told: Vec<_> = said.iter().map(|(occasion, view)| (*occasion, free(view))).collect();
    let told: Vec<_> = told.iter().map(|(occasion, free)| (*occasion, free.as_str())).collect();
    use Occasion::{Fired, Quiet, Reminded};
    assert_eq!(told, [(Fired, "150 MiB"), (Reminded, "138 MiB"), (Quiet, "137 MiB"), (Fired, "100 MiB")]);
}
