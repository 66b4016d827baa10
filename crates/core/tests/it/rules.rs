//! The rules of identity, lifecycle and delivery, as stories: what happens on the left margin of a table, and what people
//! read in two channels. `edits` can change a message afterwards, `posts` cannot.
//!
//! ```text
//! 0:00        rule high disk at /var     the rule `disk` claims something of the template `disk`, marked `/var`
//! 0:05        rule high disk             a line is `hours:minutes[:seconds]`, what claims, how bad, what it cites
//! 0:05 b      model low disk ssh         `b`: the other host of two that share the deduplication store
//! 0:05        line disk                  a template occurs of which nobody claims anything
//! 0:10        same disk ssh              two templates turn out to be one
//! 0:10        posts answers away, 65     what a channel answers next; a number is `Retry-After` in seconds
//! 0:10        posts sleeps           what is claimed next there is asked about and sent when it `wakes`
//! 0:10        mute web-1, unmute         nothing about a machine, or everything again
//! ```
//!
//! Every minute time alone may change something, and what is due is sent. `#1` is the first incident that people heard of.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use futures::executor::block_on;
use logwarden_core::{
    Category, LineId, ProfileName, Severity, Timestamp,
    decide::{
        Policy,
        book::Book,
        deliver::{self, Ended, Next, Turn},
        lifecycle,
    },
    dedup::{Claim, DedupStore, Standing},
    detectors::{By, Entity, EntityKind, Route},
    env::Env,
    finding::{Cited, Grounded, Key, Scope},
    incident::IncidentId,
    ledger::{Commit, CommitId, Committed, Incidents, Ledger, Mute, MuteMatch, ProcessId, Query, Snapshot, Write},
    message::{Body, Occasion},
    notifier::{Channel, ChannelHash, NotifyError, Receipt},
    source::SourceId,
    templates::{LeafId, Move, Origin, RootId},
    testing::{FakeEnv, MemoryDedup, MemoryLedger},
};

const BEGIN: Timestamp = Timestamp::from_secs(1_795_233_600);

struct World {
    env: FakeEnv,
    policy: Policy,
    ledgers: [MemoryLedger; 2],
    dedup: MemoryDedup,
    /// What templates turned out to be, per host.
    roots: [BTreeMap<String, RootId>; 2],
    answers: BTreeMap<String, VecDeque<String>>,
    /// The host and channel that falls asleep with its next message, and then with which.
    sleeper: Option<(usize, String, Option<Box<Turn>>)>,
    names: Vec<IncidentId>,
    read: Vec<String>,
}

fn minutes(text: &str) -> Duration {
    let parts: Vec<u64> = text.split(':').map(|part| part.parse().unwrap()).collect();
    Duration::from_secs(parts[0] * 3600 + parts[1] * 60 + parts.get(2).copied().unwrap_or(0))
}

fn leaf(name: &str) -> LeafId {
    LeafId::of(&[name.as_bytes()])
}

/// What people read when this happens, one message per line.
fn told(story: &str) -> String {
    let channel = |name: &str, amends, min_severity| Channel {
        name: name.into(),
        destination: ChannelHash(LineId::of(&[name.as_bytes()]).bits()),
        vendor: "vendor",
        min_severity,
        amends,
        longest_send: Duration::from_secs(15),
        gap: Duration::ZERO,
        per_minute: 1000,
    };
    let env = FakeEnv::new(BEGIN, 1);
    let mut world = World {
        policy: Policy {
            channels: vec![channel("edits", true, Severity::Low), channel("posts", false, Severity::Low)],
            ..Policy::default()
        },
        ledgers: [MemoryLedger::new(1, 1), MemoryLedger::new(2, 2)],
        dedup: MemoryDedup::new(env.clock()),
        roots: Default::default(),
        answers: BTreeMap::new(),
        sleeper: None,
        names: Vec::new(),
        read: Vec::new(),
        env,
    };
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (time, step) = line.split_once(' ').unwrap();
        world.until(minutes(time));
        let step = step.trim();
        let (host, step) = step.strip_prefix("b ").map_or((0, step), |step| (1, step.trim()));
        world.happens(host, step);
        world.minute();
    }
    world.read.join("\n")
}

fn check(rule: &str, story: &str, expected: &str) {
    let lines: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let told = told(story);
    assert_eq!(told.lines().collect::<Vec<_>>(), lines, "{rule}\n{told}");
}

impl World {
    fn until(&mut self, after: Duration) {
        while self.env.now() < BEGIN.plus(after) {
            let left = BEGIN.plus(after).since(self.env.now());
            self.env.advance(left.min(Duration::from_secs(60)));
            self.minute();
        }
    }

    fn minute(&mut self) {
        for host in 0..2 {
            let snapshot = self.snapshot(host, &Book::query(Vec::new()));
            let now = self.env.now();
            let source = SourceId("test".into());
            self.commit(host, lifecycle::tick(&self.policy, &snapshot, &source, Some(now), now));
        }
        for channel in self.policy.channels.clone() {
            for host in [0, 1, 0, 1] {
                self.deliver(host, &channel);
            }
        }
    }

    fn snapshot(&self, host: usize, query: &Query) -> Snapshot {
        block_on(self.ledgers[host].read(query)).unwrap()
    }

    fn commit(&self, host: usize, writes: Vec<Write>) {
        let id = CommitId(u128::from(self.env.random()));
        assert_eq!(block_on(self.ledgers[host].commit(&Commit { id, writes })).unwrap(), Committed::Done);
    }

    fn happens(&mut self, host: usize, step: &str) {
        let words: Vec<&str> = step.split(&[' ', ','][..]).filter(|word| !word.is_empty()).collect();
        match &*words {
            ["same", one, other] => self.generalise(host, one, other),
            ["line", name] => {
                let (now, cited) = (self.env.now(), self.cited(host, name));
                let (leaf, root) = (cited.leaf.unwrap(), cited.root);
                self.with_book(host, cited.keys().collect(), |book| {
                    book.occurred(&cited.scope, leaf, root, 1, now, now)
                });
            }
            ["mute", machine] => self.mute(host, Some(machine)),
            ["unmute"] => self.mute(host, None),
            [channel, "sleeps"] => self.sleeper = Some((host, (*channel).to_owned(), None)),
            [_, "wakes"] => self.wake(),
            [channel, "answers", answers @ ..] => {
                let answers = answers.iter().map(|answer| (*answer).to_owned());
                self.answers.entry((*channel).to_owned()).or_default().extend(answers);
            }
            [by @ ("rule" | "model" | "listed"), severity, cited @ ..] => self.find(host, by, severity, cited),
            _ => panic!("{step}"),
        }
    }

    fn cited(&self, host: usize, name: &str) -> Cited {
        let origin = Arc::new(Origin { host: "web-1".into(), service: "app".into() });
        let leaf = leaf(name);
        let root = self.roots[host].get(name).copied().unwrap_or(leaf.as_root());
        Cited {
            scope: Scope { tenant: "".into(), origin },
            leaf: Some(leaf),
            root,
            template: name.into(),
            anomalous: true,
        }
    }

    fn find(&mut self, host: usize, by: &str, severity: &str, words: &[&str]) {
        let now = self.env.now();
        let (cited, mark) = match words.iter().position(|word| *word == "at") {
            Some(at) => (&words[..at], words[at + 1]),
            None => (words, ""),
        };
        let device = |mark: &str| Entity { kind: EntityKind::Device, value: mark.into(), count: 1 };
        let finding = Grounded {
            by: match by {
                "model" => By::Model { name: "model".into() },
                _ => By::Rule { id: cited[0].into() },
            },
            profile: ProfileName::general(),
            category: Category::Service,
            severity: Severity::ALL.into_iter().find(|known| known.as_str() == severity).unwrap(),
            route: if by == "listed" { Route::Digest } else { Route::Alert },
            // What a model says differs every time.
            title: format!("{} {}", cited.join(" and "), self.env.random()),
            explanation: format!("explained {}", self.env.random()),
            recommendation: String::new(),
            cited: cited.iter().map(|name| self.cited(host, name)).collect(),
            discriminator: mark.to_owned(),
            evidence: Vec::new(),
            entities: if mark.is_empty() { Vec::new() } else { vec![device(mark)] },
            query: None,
            labels: std::collections::BTreeMap::new(),
            score: 1.0,
            count: 1,
            first: now,
            last: now,
        };
        self.with_book(host, finding.keys(), |book| book.take(&finding));
    }

    fn with_book(&mut self, host: usize, keys: Vec<Key>, decide: impl FnOnce(&mut Book<'_>)) {
        let snapshot = self.snapshot(host, &Book::query(keys));
        let policy = self.policy.clone();
        let mut book = Book::open(&policy, &snapshot, SourceId("test".into()), self.env.now()).unwrap();
        decide(&mut book);
        self.commit(host, book.close());
    }

    fn generalise(&mut self, host: usize, one: &str, other: &str) {
        let to = RootId::of(&[b"above", one.as_bytes(), other.as_bytes()]);
        let step = |name: &&str| Move { leaf: leaf(name), from: Some(leaf(name).as_root()), to };
        let moves: Vec<Move> = [one, other].iter().map(step).collect();
        let open = self.snapshot(host, &Query { incidents: Incidents::Firing, ..Query::default() });
        let keys: Vec<Key> = Book::moved_keys(&open, &moves).into_iter().collect();
        self.with_book(host, keys.clone(), |book| book.moved(&moves, &keys));
        for name in [one, other] {
            self.roots[host].insert(name.to_owned(), to);
        }
    }

    fn mute(&mut self, host: usize, machine: Option<&str>) {
        let write = match machine {
            None => Write::Unmute("mute".into()),
            Some(machine) => Write::Mute(Mute {
                id: "mute".into(),
                matches: MuteMatch { host: Some(machine.to_owned()), ..MuteMatch::default() },
                until: None,
                reason: String::new(),
                author: String::new(),
                created: self.env.now(),
            }),
        };
        self.commit(host, vec![write]);
    }

    fn deliver(&mut self, host: usize, channel: &Channel) {
        for _ in 0..50 {
            let sleeper = self.sleeper.as_ref().filter(|(asleep, name, _)| *asleep == host && **name == *channel.name);
            let falls_asleep = match sleeper {
                Some((_, _, Some(_))) => return,
                sleeper => sleeper.is_some(),
            };
            let snapshot = self.snapshot(host, &deliver::query(&channel.name));
            let (now, process) = (self.env.now(), ProcessId(host as u128));
            let random = u128::from(self.env.random());
            match deliver::next(&self.policy, &snapshot, channel, process, now, random) {
                Next::Nothing { writes, .. } => {
                    let nothing = writes.is_empty();
                    self.commit(host, writes);
                    if nothing {
                        return;
                    }
                }
                Next::Send(mut turn) => {
                    self.commit(host, std::mem::take(&mut turn.writes));
                    if falls_asleep {
                        self.sleeper = Some((host, channel.name.to_string(), Some(turn)));
                        return;
                    }
                    if let Ended::Wait(_) = self.finish(host, channel, &turn) {
                        return;
                    }
                }
            }
        }
        panic!("it never ends");
    }

    fn wake(&mut self) {
        let Some((host, name, Some(turn))) = self.sleeper.take() else { panic!("nobody sleeps") };
        let channel = self.policy.channels.iter().find(|channel| *channel.name == *name).unwrap().clone();
        self.finish(host, &channel, &turn);
    }

    fn finish(&mut self, host: usize, channel: &Channel, turn: &Turn) -> Ended {
        let ended = self.take_turn(channel, turn);
        let snapshot = self.snapshot(host, &deliver::query(&channel.name));
        // The middle of every jitter.
        let writes = deliver::settle(&self.policy, &snapshot, turn, &ended, self.env.now(), 1 << 63);
        self.commit(host, writes);
        ended
    }

    fn take_turn(&mut self, channel: &Channel, turn: &Turn) -> Ended {
        let sending = &turn.sending.row;
        let claim = Claim {
            id: sending.id,
            epoch: turn.sending.version,
            channel: channel.destination,
            keys: &sending.keys,
            age: self.env.now().since(turn.event),
            window: sending.window,
            lease: turn.lease,
        };
        let mut reserved = None;
        if sending.asks_dedup {
            match block_on(self.dedup.reserve(&claim)).unwrap() {
                Standing::First { at } => reserved = Some(at),
                Standing::Delivered { receipt } => return Ended::Delivered(receipt),
                Standing::Repeat { receipt, ago } => return Ended::Repeat(receipt, self.env.now().minus(ago)),
                Standing::Pending { wait } => return Ended::Wait(wait),
            }
        }
        let answer = self.answers.get_mut(&*channel.name).and_then(VecDeque::pop_front);
        let sent = self.answer(channel, turn, answer.as_deref().unwrap_or("ok"));
        if sending.asks_dedup {
            let outcome = deliver::outcome(turn, &sent, reserved, self.env.now());
            block_on(self.dedup.settle(&claim, &outcome)).unwrap();
        }
        match sent {
            Ok(receipt) => Ended::Delivered(receipt),
            Err(error) => Ended::Failed(error),
        }
    }

    fn answer(&mut self, channel: &Channel, turn: &Turn, answer: &str) -> Result<Receipt, NotifyError> {
        let name = channel.name.clone();
        let away = |ambiguous| NotifyError::Unreachable {
            channel: channel.name.clone(),
            ambiguous,
            retry_after: None,
            cause: "no answer".into(),
        };
        let reason = "no".to_owned();
        match answer {
            "ok" => {
                self.note(channel, turn);
                Ok(turn.sending.row.amend.clone().unwrap_or(Receipt(turn.sending.row.id.0.to_string())))
            }
            "lost" => {
                self.note(channel, turn);
                Err(away(true))
            }
            "away" => Err(away(false)),
            "refused" => Err(NotifyError::ContentRefused { channel: name, reason }),
            "gone" => Err(NotifyError::NotAmendable { channel: name, reason }),
            "broken" => Err(NotifyError::Broken { channel: name, reason }),
            seconds => Err(NotifyError::RateLimited {
                channel: name,
                retry_after: Duration::from_secs(seconds.parse().unwrap()),
            }),
        }
    }

    fn note(&mut self, channel: &Channel, turn: &Turn) {
        let passed = self.env.now().since(BEGIN).as_secs();
        let mut line = format!("{}:{:02} {}", passed / 3600, passed / 60 % 60, channel.name);
        if turn.sending.row.amend.is_some() {
            line.push_str(" edit");
        }
        match &turn.sending.row.message.body {
            Body::Incidents { occasion, incidents, .. } => {
                for incident in incidents {
                    let number = self.names.iter().position(|known| *known == incident.id).unwrap_or_else(|| {
                        self.names.push(incident.id);
                        self.names.len() - 1
                    });
                    let _ = write!(line, " #{} {}", number + 1, word(*occasion));
                    let _ = write!(line, " {}", incident.severity);
                    for entity in &incident.entities {
                        let _ = write!(line, " {}", entity.value);
                    }
                }
            }
            Body::Rollup(rollup) => {
                let _ = write!(line, " {} at once", rollup.suppressed);
            }
            other => panic!("{other:?}"),
        }
        if turn.sending.row.message.possible_repeat {
            line.push_str(" (perhaps again)");
        }
        self.read.push(line);
    }
}

fn word(occasion: Occasion) -> &'static str {
    match occasion {
        Occasion::Fired => "fired",
        Occasion::Escalated => "worse",
        Occasion::Reminded => "still",
        Occasion::Explained => "explained",
        Occasion::Grew => "more",
        Occasion::Quiet => "quiet",
        Occasion::Merged => "merged",
    }
}

#[test]
fn the_same_thing_is_one_incident_and_two_things_are_two() {
    check(
        "what is about the same template joins",
        "0:00 rule high oom
         0:05 rule high oom
         0:10 line oom",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         0:05 edits edit #1 more high
         0:10 edits edit #1 more high",
    );
    check(
        "two root causes are two",
        "0:00 rule high oom
         0:05 rule high disk",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         0:05 edits #2 fired high
         0:05 posts #2 fired high",
    );
    check(
        "one rule on two file systems is one incident, and both are told",
        "0:00 rule high disk at /var
         0:05 rule high disk at /var
         0:10 rule high disk at /home",
        "0:00 edits #1 fired high /var
         0:00 posts #1 fired high /var
         0:05 edits edit #1 more high /var
         0:10 edits edit #1 more high /var /home
         0:10 posts #1 more high /var /home",
    );
    check(
        "a template that joins is told where nothing can be edited",
        "0:00 rule high oom
         0:05 rule high oom disk
         0:10 rule high disk",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         0:05 edits edit #1 more high
         0:05 posts #1 more high
         0:10 edits edit #1 more high",
    );
}

#[test]
fn a_model_explains_and_glues_nothing() {
    let mut story = String::new();
    for replay in 0..20 {
        let _ = writeln!(story, "0:{replay:02} model high strange");
    }
    let told = told(&story);
    let fired: Vec<&str> = told.lines().filter(|line| line.contains("fired")).collect();
    assert_eq!(fired, ["0:00 edits #1 fired high", "0:00 posts #1 fired high"], "twenty wordings are one alert");
    assert!(!told.contains("#2"), "{told}");

    check(
        "what it says about a detector's incident is a comment, and may make it worse",
        "0:00 rule high oom
         0:05 model medium oom
         0:10 model critical oom",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         0:05 edits edit #1 explained high
         0:05 posts #1 explained high
         0:10 edits #1 worse critical
         0:10 posts #1 worse critical",
    );
    check(
        "who cites yesterday's rows glues nothing new to them",
        "0:00 model high old
         0:05 model high old new",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         0:05 edits #2 fired high
         0:05 posts #2 fired high",
    );
    check(
        "nor to what a detector has found",
        "0:00 rule high old
         0:05 model high old new",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         0:05 edits #2 fired high
         0:05 edits edit #1 explained high
         0:05 posts #2 fired high
         0:05 posts #1 explained high",
    );
    check(
        "a detector takes what only a model claimed",
        "0:00 model high oom
         0:05 rule high oom
         1:01 line none",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         0:05 edits #2 fired high
         0:05 posts #2 fired high
         1:00 edits edit #1 quiet high
         1:00 posts #1 quiet high",
    );
}

#[test]
fn an_incident_reminds_goes_quiet_and_begins_anew() {
    check(
        "quiet after a window in which nothing occurred; what comes later is new",
        "0:00 rule high oom
         1:30 rule high oom",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         1:00 edits edit #1 quiet high
         1:00 posts #1 quiet high
         1:30 edits #2 fired high
         1:30 posts #2 fired high",
    );
    check(
        "what is urgent and goes on is told again after a window",
        "0:00 posts answers broken
         0:00 rule high oom
         0:50 line oom
         1:20 line oom",
        "0:00 edits #1 fired high
         0:50 edits edit #1 more high
         1:00 edits #1 still high
         1:20 edits edit #1 more high",
    );
    check(
        "what is worse is told at once",
        "0:00 rule low oom
         0:01 rule high oom
         0:02 rule medium oom",
        "0:00 edits #1 fired low
         0:00 posts #1 fired low
         0:01 edits #1 worse high
         0:01 posts #1 worse high
         0:02 edits edit #1 more high",
    );
    check(
        "what is only listed is told when it becomes an alert",
        "0:00 listed high oom
         0:05 rule high oom",
        "0:05 edits #1 fired high
         0:05 posts #1 fired high",
    );
    check(
        "two that turn out to be one: the younger ends, and nothing is told twice",
        "0:00 rule high oom
         0:05 rule high killed
         0:10 same oom killed
         0:15 rule high killed",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         0:05 edits #2 fired high
         0:05 posts #2 fired high
         0:10 edits edit #2 merged high
         0:15 edits edit #1 more high",
    );
    check(
        "a muted machine says nothing; what goes on is told when the mute ends",
        "0:00 mute web-1
         0:05 rule high oom
         0:10 unmute",
        "0:10 edits #1 fired high
         0:10 posts #1 fired high",
    );
}

#[test]
fn among_hosts_one_speaks() {
    check(
        "what another host has told is not told again",
        "0:00 rule high oom
         0:05 b rule high oom",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high",
    );
    check(
        "partly told is not told (R4), and louder is news (R5)",
        "0:00 rule medium oom
         0:05 b rule high oom
         0:10 b rule high disk oom",
        "0:00 edits #1 fired medium
         0:00 posts #1 fired medium
         0:05 edits #2 fired high
         0:05 posts #2 fired high
         0:10 edits edit #2 more high
         0:10 posts #2 more high",
    );
    check(
        "what went on while somebody slept before asking is asked about, too (R6)",
        "0:00 b rule high oom
         0:20 posts sleeps
         0:20 rule high oom
         1:10 line oom
         2:15 posts wakes
         2:20 line none",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         1:00 edits #2 still high
         1:00 edits edit #1 quiet high
         1:00 posts #1 quiet high
         1:10 edits edit #2 more high
         2:00 edits #2 still high
         2:10 edits edit #2 quiet high
         2:16 posts #2 fired high
         2:16 posts #2 quiet high",
    );
    check(
        "a detector's word is louder than any model's (R5)",
        "0:00 rule low oom
         0:05 b model critical oom",
        "0:00 edits #1 fired low
         0:00 posts #1 fired low",
    );
}

#[test]
fn what_a_channel_answers_decides_what_is_tried_again() {
    check(
        "unreachable is tried again, and only there",
        "0:00 posts answers away
         0:00 rule high oom
         0:02 line none",
        "0:00 edits #1 fired high
         0:01 posts #1 fired high",
    );
    check(
        "an answer that is lost may cost one message more, which says so",
        "0:00 posts answers lost
         0:00 rule high oom
         0:00 b rule high oom
         0:02 line none",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         0:01 posts #1 fired high (perhaps again)",
    );
    check(
        "Retry-After is kept to",
        "0:00 posts answers 180
         0:00 rule high oom
         0:05 line none",
        "0:00 edits #1 fired high
         0:04 posts #1 fired high",
    );
    check(
        "content that is refused goes out reduced; refused twice it is given up, and the next occurrence is told",
        "0:00 posts answers refused, refused
         0:00 rule high oom
         0:10 line oom",
        "0:00 edits #1 fired high
         0:10 edits edit #1 more high
         0:10 posts #1 fired high",
    );
    check(
        "a broken channel keeps its messages",
        "0:00 posts answers broken
         0:00 rule high oom
         0:30 rule high disk",
        "0:00 edits #1 fired high
         0:30 edits #2 fired high",
    );
    check(
        "when our message is gone, what is new is told and the rest is not",
        "0:00 rule high disk at /var
         0:05 edits answers gone
         0:05 line disk
         0:10 rule high disk at /home",
        "0:00 edits #1 fired high /var
         0:00 posts #1 fired high /var
         0:10 edits #1 more high /home /var
         0:10 posts #1 more high /home /var",
    );
}

#[test]
fn what_was_said_in_passing_or_less_loudly_is_not_told() {
    check(
        "a short message about our own one, which is gone, tells nothing that is new",
        "0:00 rule high disk
         0:05 edits answers 180, gone
         0:05 model medium disk
         0:06 rule low disk ssh
         0:15 line none",
        "0:00 edits #1 fired high
         0:00 posts #1 fired high
         0:05 posts #1 explained high
         0:06 posts #1 more high
         0:09 edits #1 explained high
         0:09 edits #1 more high",
    );
    check(
        "what became worse and merged before that was said is told by the survivor (R8)",
        "0:00 rule critical disk
         0:01 rule high ssh
         0:10 posts answers 300
         0:10 rule high cron
         0:11 rule critical ssh disk
         0:12 same disk mail
         0:20 line none",
        "0:00 edits #1 fired critical
         0:00 posts #1 fired critical
         0:01 edits #2 fired high
         0:01 posts #2 fired high
         0:10 edits #3 fired high
         0:11 edits #2 worse critical
         0:12 edits edit #2 merged critical
         0:16 posts #3 fired high
         0:16 posts #1 more critical",
    );
}

#[test]
fn in_a_storm_one_message_stands_for_many() {
    let mut story = "0:00 posts answers 60\n".to_owned();
    for number in 0..12 {
        let _ = writeln!(story, "0:00 rule medium thing{number}");
    }
    story.push_str("0:03 line none");
    let told = told(&story);
    let posts: Vec<&str> = told.lines().filter(|line| line.contains("posts")).collect();
    // The first was on its way when the others came.
    assert_eq!(posts, ["0:02 posts #1 fired medium", "0:02 posts 11 at once"], "{told}");
}

#[test]
fn in_a_storm_the_critical_ones_go_out_one_by_one() {
    let mut story = "0:00 posts answers 60\n0:00 rule low first\n".to_owned();
    for number in 0..12 {
        let severity = if number % 6 == 5 { "critical" } else { "medium" };
        let _ = writeln!(story, "0:00 rule {severity} thing{number}");
    }
    story.push_str("0:03 line none");
    let told = told(&story);
    let posts: Vec<&str> = told.lines().filter(|line| line.contains("posts")).collect();
    // The first was on its way when the others came.
    let expected = [
        "0:02 posts #1 fired low",
        "0:02 posts #13 fired critical",
        "0:02 posts #7 fired critical",
        "0:02 posts 10 at once",
    ];
    assert_eq!(posts, expected, "{told}");
}

#[test]
fn what_is_given_up_as_too_old_is_told_with_the_next_occurrence() {
    let mut story = "0:00 posts answers 21600, 21600, 21600\n0:00 rule high oom\n".to_owned();
    for half_hours in 1..26 {
        let _ = writeln!(story, "{}:{:02} line oom", half_hours / 2, half_hours % 2 * 30);
    }
    let told = told(&story);
    let posts: Vec<&str> = told.lines().filter(|line| line.contains("posts")).collect();
    assert_eq!(posts, ["12:30 posts #1 fired high"], "after twelve hours, {told}");
}
