//! What is held back, and what is summed up: mutes, the day's budget, summaries.

use std::{sync::Arc, time::Duration};

use futures::executor::block_on;
use logwarden_core::{
    Severity, Timestamp,
    decide::{Policy, mutes},
    detectors::Route,
    env::Env,
    incident::Incident,
    ledger::{Commit, CommitId, Committed, Incidents, Ledger, Mute, MuteMatch, Query},
    message::{Body, Occasion, SummaryView},
    pipeline::Pipeline,
    testing::{FakeEnv, MemoryLedger, MemoryNotifier, MemorySource},
};

use crate::pipeline::OOM;

const DEADLOCK: &str = "postgres: ERROR:  deadlock detected";
const SLOW: &str =
    "nginx: [error] 811#811: *9 upstream timed out (110: Connection timed out) while reading response header";

struct World {
    env: FakeEnv,
    ledger: Arc<MemoryLedger>,
    source: Arc<MemorySource>,
    channel: Arc<MemoryNotifier>,
    policy: Policy,
}

impl World {
    fn new(policy: Policy) -> Self {
        Self {
            env: FakeEnv::new(Timestamp::from_secs(1_795_233_600), 1),
            ledger: Arc::new(MemoryLedger::new(1, 2)),
            source: Arc::new(MemorySource::new("test")),
            channel: Arc::new(MemoryNotifier::new("channel", true)),
            policy,
        }
    }

    fn process(&self) -> Pipeline {
        let builder = Pipeline::builder().env(Arc::new(self.env.clone())).ledger(self.ledger.clone()).host("web-1");
        let builder = builder.source(self.source.clone()).notifier(self.channel.clone());
        builder.policy(self.policy.clone()).build().unwrap()
    }

    fn pass(&self, lines: &[&str]) {
        for line in lines {
            self.source.push(self.env.now(), line);
        }
        block_on(self.process().pass(self.env.now())).unwrap();
    }

    fn incidents(&self) -> Vec<Incident> {
        let query = Query { incidents: Incidents::Latest { limit: 100 }, ..Query::default() };
        let snapshot = block_on(self.ledger.read(&query)).unwrap();
        snapshot.incidents.into_values().map(|incident| incident.row).collect()
    }

    fn told(&self) -> Vec<(Occasion, Severity)> {
        let sent = self.channel.sent();
        let told = sent.iter().filter_map(|(message, _)| match &message.body {
            Body::Incidents { occasion, incidents, .. } => Some((*occasion, incidents[0].severity)),
            _ => None,
        });
        told.filter(|(occasion, _)| !matches!(occasion, Occasion::Grew | Occasion::Quiet)).collect()
    }

    fn summaries(&self) -> Vec<SummaryView> {
        let sent = self.channel.sent();
        sent.iter()
            .filter_map(|(message, _)| match &message.body {
                Body::Summary(summary) => Some(summary.clone()),
                _ => None,
            })
            .collect()
    }

    fn mute(&self, matches: MuteMatch) {
        self.mute_for(matches, "m1", Duration::from_secs(86_400));
    }

    fn mute_for(&self, matches: MuteMatch, id: &str, long: Duration) {
        let query = Query { incidents: Incidents::Latest { limit: 100 }, ..Query::default() };
        let snapshot = block_on(self.ledger.read(&query)).unwrap();
        let mute = Mute {
            id: id.into(),
            matches,
            until: Some(self.env.now().plus(long)),
            reason: "known".into(),
            author: "anna".into(),
            created: self.env.now(),
        };
        let commit = Commit { id: CommitId(u128::from(self.env.random())), writes: mutes::begin(&snapshot, &mute) };
        assert_eq!(block_on(self.ledger.commit(&commit)).unwrap(), Committed::Done);
    }

    fn mutes(&self) -> usize {
        block_on(self.ledger.read(&Query { mutes: true, ..Query::default() })).unwrap().mutes.len()
    }
}

fn failed_logins(times: usize) -> Vec<&'static str> {
    vec!["sshd[7]: Failed password for root from 203.0.113.7 port 22 ssh2"; times]
}

#[test]
fn what_exceeds_the_budget_is_listed_and_summed_up_and_high_never_is() {
    let world = World::new(Policy { alerts_per_day: 1, ..Policy::default() });
    world.pass(&[]);
    world.pass(&[DEADLOCK]);
    world.env.advance(Duration::from_secs(60));
    world.pass(&[SLOW, OOM]);
    assert_eq!(world.told(), [(Occasion::Fired, Severity::Medium), (Occasion::Fired, Severity::Critical)]);
    let listed: Vec<_> = world.incidents().into_iter().filter(|incident| incident.route == Route::Digest).collect();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].rank.severity, Severity::Medium);
    // What joins an incident that was told spends nothing, and what is listed stays listed.
    world.env.advance(Duration::from_secs(60));
    world.pass(&[DEADLOCK, SLOW]);
    assert_eq!(world.told().len(), 2);
    assert_eq!(world.summaries().len(), 0);
    world.env.advance(Duration::from_secs(86_400));
    world.pass(&[]);
    let summaries = world.summaries();
    assert_eq!(summaries.len(), 1, "although no summaries are wanted");
    insta::assert_snapshot!(summaries[0].text.text.raw(), @"5 lines read. 2 incidents alerted: The kernel killed mysqld because memory ran out; Transactions blocked each other. 1 incident only listed: What is behind the web server answers too slowly. 1 of them would have been alerted, but the day's budget was used up.");
    assert_eq!(summaries[0].severity, Some(Severity::Critical));
    // A new day has a new budget.
    world.pass(&[DEADLOCK]);
    assert_eq!(world.told().last(), Some(&(Occasion::Fired, Severity::Medium)));
}

#[test]
fn a_summary_comes_once_a_period_whoever_runs() {
    let hours = |n: u64| Duration::from_secs(3600 * n);
    let world = World::new(Policy { summary_every: Some(hours(6)), ..Policy::default() });
    world.pass(&[]);
    assert_eq!(world.summaries().len(), 0, "the first period begins");
    world.env.advance(hours(5));
    world.pass(&["app: all is well"]);
    assert_eq!(world.summaries().len(), 0);
    world.env.advance(hours(1));
    for _ in 0..3 {
        world.pass(&[]); // each is a process of its own
    }
    let summaries = world.summaries();
    assert_eq!(summaries.len(), 1);
    insta::assert_snapshot!(summaries[0].text.text.raw(), @"1 line read. No incident was alerted.");
    assert_eq!((summaries[0].severity, summaries[0].lines), (None, 1));
    // A process that dies before it sends leaves the summary to the next one.
    world.env.advance(hours(6));
    world.channel.limit();
    world.pass(&[OOM]);
    assert_eq!(world.summaries().len(), 1);
    world.env.advance(Duration::from_secs(600));
    world.pass(&[]);
    assert_eq!(world.summaries().len(), 2);
    let days: Vec<_> = world.summaries().iter().map(|summary| summary.to.since(summary.from)).collect();
    assert_eq!(days, [hours(6), hours(6)]);
}

#[test]
fn a_clock_that_was_ahead_keeps_no_summary_back() {
    let day = Duration::from_secs(86_400);
    let world = World::new(Policy { summary_every: Some(day), ..Policy::default() });
    let start = world.env.now();
    world.env.advance(365 * day);
    world.pass(&[]); // the first period begins, a year ahead
    let world = World { env: FakeEnv::new(start, 2), ..world };
    world.pass(&[]);
    assert_eq!(world.summaries().len(), 0, "a period begins anew");
    world.env.advance(day);
    world.pass(&[]);
    assert_eq!(world.summaries().len(), 1);
}

#[test]
fn a_mute_holds_back_and_ends_when_it_becomes_worse() {
    let world = World::new(Policy::default());
    world.pass(&failed_logins(6));
    assert_eq!(world.told(), [(Occasion::Fired, Severity::Medium)]);
    let id = world.incidents()[0].id.to_string();
    world.mute(MuteMatch { incident: Some(id), ..MuteMatch::default() });
    world.env.advance(Duration::from_secs(60));
    world.pass(&failed_logins(8));
    assert_eq!(world.told().len(), 1);
    assert_eq!(world.incidents()[0].muted_by.as_deref(), Some("m1"));
    // The one after it about the same thing is muted with it.
    world.env.advance(Duration::from_secs(7_200));
    world.pass(&[]);
    world.pass(&failed_logins(8));
    assert_eq!((world.incidents().len(), world.told().len()), (2, 1));
    world.env.advance(Duration::from_secs(60));
    world.pass(&failed_logins(80));
    assert_eq!(world.told().last(), Some(&(Occasion::Fired, Severity::High)));
}

#[test]
fn a_mute_ends_when_its_incident_becomes_another_one() {
    let world = World::new(Policy::default());
    world.pass(&["monitor: Disk space on /dev/sda1 is critically low: only 5% remaining."]);
    assert_eq!(world.told(), [(Occasion::Fired, Severity::High)]);
    let id = world.incidents()[0].id.to_string();
    world.mute(MuteMatch { incident: Some(id), ..MuteMatch::default() });
    world.env.advance(Duration::from_secs(60));
    world.pass(&["monitor: Disk space on /dev/sda1 is critically low: only 4% remaining."]);
    assert_eq!(world.told().len(), 1, "the same again");
    world.env.advance(Duration::from_secs(60));
    // As bad as before and about room on disks, but another rule says so: whoever muted it did not mean this.
    world.pass(&["monitor: inode usage on /var: 98%"]);
    assert_eq!(world.incidents().len(), 1, "it is one incident all the same");
    assert_eq!(world.told().last(), Some(&(Occasion::Reminded, Severity::High)));
    assert_eq!(world.incidents()[0].muted_by, None);
    // Nor does it hold what follows.
    world.env.advance(Duration::from_secs(7_200));
    world.pass(&[]);
    world.pass(&["monitor: Disk space on /dev/sda1 is critically low: only 5% remaining."]);
    assert_eq!(world.told().last(), Some(&(Occasion::Fired, Severity::High)));
}

#[test]
fn a_mute_by_label_holds_back_whatever_address_it_is() {
    let world = World::new(Policy::default());
    world.mute(MuteMatch { label: Some("host=web-1".into()), ..MuteMatch::default() });
    world.pass(&failed_logins(6));
    assert_eq!(world.told(), []);
    assert_eq!(world.incidents()[0].muted_by.as_deref(), Some("m1"));
    world.env.advance(Duration::from_secs(60));
    world.pass(&["sshd[7]: Failed password for anna from 198.51.100.9 port 22 ssh2"; 6]);
    assert_eq!(world.told(), [], "another address is what such attacks have");
    assert_eq!(world.mutes(), 1);
}

#[test]
fn what_goes_on_is_told_when_its_mute_ends() {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let rule = |name: &str| MuteMatch { rule: Some(name.into()), ..MuteMatch::default() };
    let world = World::new(Policy::default());
    world.pass(&[OOM]);
    assert_eq!(world.told(), [(Occasion::Fired, Severity::Critical)]);
    world.mute_for(rule("oom-kill"), "known", minutes(20));
    world.mute_for(rule("db-deadlock"), "new", minutes(20));
    world.env.advance(minutes(1));
    world.pass(&[OOM, DEADLOCK]);
    assert_eq!(world.told().len(), 1);
    world.env.advance(minutes(18));
    world.pass(&[]);
    assert_eq!(world.told().len(), 1, "a minute is left");
    world.env.advance(minutes(1));
    world.pass(&[]);
    assert_eq!(world.told().last(), Some(&(Occasion::Fired, Severity::Medium)), "although nothing more occurred");
    assert_eq!(world.told().len(), 2, "what was told before it was muted is not news");
    assert!(world.incidents().iter().all(|incident| incident.muted_by.is_none()));
    world.env.advance(minutes(1));
    world.pass(&[]);
    assert_eq!(world.told().len(), 2);
}

#[test]
fn what_ended_while_it_was_muted_is_not_told() {
    let world = World::new(Policy::default());
    let day = Duration::from_secs(86_400);
    world.mute_for(MuteMatch { rule: Some("oom-kill".into()), ..MuteMatch::default() }, "known", day);
    world.pass(&[OOM]);
    world.env.advance(day);
    world.pass(&[]);
    assert_eq!(world.told(), []);
    assert_eq!(world.incidents()[0].muted_by.as_deref(), Some("known"), "the list says why");
}

#[test]
fn a_mute_of_the_configuration_counts_like_any_other() {
    let matches = MuteMatch { rule: Some("oom-kill".into()), ..MuteMatch::default() };
    let mute = Mute {
        id: "f1".into(),
        matches,
        until: None,
        reason: "known".into(),
        author: "anna".into(),
        created: Timestamp::from_secs(0),
    };
    let world = World::new(Policy { mutes: vec![mute], ..Policy::default() });
    world.pass(&[OOM, DEADLOCK]);
    assert_eq!(world.told(), [(Occasion::Fired, Severity::Medium)]);
    // It counts as long as it is written there.
    let without = World {
        policy: Policy::default(),
        env: world.env.clone(),
        ledger: world.ledger.clone(),
        source: world.source.clone(),
        channel: world.channel.clone(),
    };
    without.env.advance(Duration::from_secs(60));
    without.pass(&[OOM]);
    assert_eq!(without.told().last(), Some(&(Occasion::Fired, Severity::Critical)));
}
