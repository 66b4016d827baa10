//! A random explorer of the delivery protocol: the real decisions, driven step by step, in any order.
//!
//! Two hosts with a ledger each and two processes each read the logs of two machines and speak to the same channels through
//! one deduplication store; no clock says the same, and any of them may be set. Every step of D1 to D5 is scheduled alone;
//! between any two a process may crash, stall beyond its lease or be overtaken, and one that comes after may free what it
//! held. Channels fail, answer late or not at all. Findings of detectors and models join, escalate, are muted, merge, go
//! quiet and remind; what is pushed is folded, and judged by a model that may be away. At the end everything may settle, and
//! the oracle judges what arrived:
//!
//! * no alert is lost: every occurrence was told on every channel, loudly enough and within the window, or waits durably;
//! * there is at most one surplus message per crash, stall or lost answer: in every schedule each has an arrival of its own
//!   that nobody could know of.
//!
//! [`Rules`] switches single rules of the design off, to show that the explorer would notice.
//!
//! Not explored, and where it is tested instead:
//!
//! * The day's budget, summaries and mutes of a single incident change what should be told, not how: `held.rs` of core.
//! * Ledgers that fail while something is ingested or judged: then it is done again from the start, or was done (the contract
//!   suite's and the crash tests'). Whoever delivers meets stores that fail: commits that are lost or done unheard, and a
//!   deduplication store that does not answer.
//! * That a source could not be read (`ingest::failed`); and the jobs of a process that is gone, which only lapse here.
//! * Waiting, pacing and what a message says (`view`): the pipeline's own tests, and snapshots.

mod judging;
mod oracle;
mod schedule;
mod spool;
mod weakened;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt,
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
        ingest, lifecycle, mutes,
    },
    dedup::{Claim, DedupStore, HOLD, Outcome, Reserved, Standing},
    detectors::{By, Route},
    env::Env,
    finding::{Cited, Grounded, Key, Scope},
    incident::{EventKind, Incident, IncidentId, Rank, Status},
    ledger::{
        Commit, CommitId, Committed, Incidents, Jobs, Ledger, Mute, MuteMatch, Outbox, OutboxState, ProcessId, Query,
        Sending, Snapshot, Versioned, Write,
    },
    notifier::{Channel, ChannelHash, NotifyError, Receipt},
    source::SourceId,
    templates::{LeafId, Move, Origin, RootId},
    testing::{Dice, FakeEnv, MemoryDedup, MemoryLedger},
};

pub use self::schedule::{Answer, Ask, Find, Push, Step, schedule};
use self::{
    judging::Judging,
    oracle::{Arrival, Manner, Occurrence, Oracle},
    schedule::{CHANNELS, HOSTS, PROCESSES, SCOPES, STORE, TOPICS},
    spool::{Batch, Fold},
    weakened::{Weakened, absorb_into_claimed},
};

/// Rules of the protocol that can be switched off.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Only rows that were never claimed absorb later events.
    pub r1: bool,
    /// Every change needs the version that it saw.
    pub r2: bool,
    /// `Repeat` only if every key was told.
    pub r4: bool,
    /// What was told is remembered per rank.
    pub r5: bool,
    /// Told counts from the reservation, the window back from the event, a reminder has half of it.
    pub r6: bool,
    /// A message is marked as sent when the channel has confirmed it, not before it is sent.
    pub sends_before_marking: bool,
    /// What was pushed leaves the spool with the commit that has folded it, not when it is read.
    pub unspools_with_commit: bool,
    /// A batch that was taken is known when it is sent again.
    pub knows_batches: bool,
    /// A clock that is set back is believed; otherwise time stands still until the clock has caught up.
    pub clock: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self {
        r1: true,
        r2: true,
        r4: true,
        r5: true,
        r6: true,
        sends_before_marking: true,
        unspools_with_commit: true,
        knows_batches: true,
        clock: true,
    };

    /// The design with one rule missing, by its name.
    pub fn without() -> [(&'static str, Self); 9] {
        [
            ("R1", Self { r1: false, ..Self::ALL }),
            ("R2", Self { r2: false, ..Self::ALL }),
            ("R4", Self { r4: false, ..Self::ALL }),
            ("R5", Self { r5: false, ..Self::ALL }),
            ("R6", Self { r6: false, ..Self::ALL }),
            ("sending before marking", Self { sends_before_marking: false, ..Self::ALL }),
            ("unspooling with the commit", Self { unspools_with_commit: false, ..Self::ALL }),
            ("batches that are known", Self { knows_batches: false, ..Self::ALL }),
            ("clocks that are believed", Self { clock: false, ..Self::ALL }),
        ]
    }
}

/// Where the state is kept.
pub trait Stores {
    /// A process opens its host's ledger, or opens it again after a crash. The hosts' ids differ.
    fn ledger(&self, host: usize) -> Arc<dyn Ledger>;
    /// The store that all share, with this clock; opened anew at the same times.
    fn dedup(&self, env: &FakeEnv) -> Arc<dyn DedupStore>;
}

/// Everything in memory.
#[derive(Debug)]
pub struct InMemory {
    ledgers: Vec<Arc<dyn Ledger>>,
    dedup: std::sync::OnceLock<Arc<dyn DedupStore>>,
}

impl Default for InMemory {
    fn default() -> Self {
        let ledger = |host: usize| Arc::new(MemoryLedger::new(100 + host as u128, 1)) as Arc<dyn Ledger>;
        Self { ledgers: (0..HOSTS).map(ledger).collect(), dedup: std::sync::OnceLock::new() }
    }
}

impl Stores for InMemory {
    fn ledger(&self, host: usize) -> Arc<dyn Ledger> {
        self.ledgers[host].clone()
    }

    fn dedup(&self, env: &FakeEnv) -> Arc<dyn DedupStore> {
        self.dedup.get_or_init(|| Arc::new(MemoryDedup::new(env.clock()))).clone()
    }
}

/// When every schedule begins.
const BEGIN: Timestamp = Timestamp::from_secs(1_795_000_000);
const WINDOW: Duration = Duration::from_secs(3600);

/// What went wrong with a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Something was never told.
    Lost(String),
    /// More was told than crashes and lost answers excuse.
    Surplus(String),
    /// Something that should go out does not.
    Stuck(String),
    /// A store answered what it must not.
    Store(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(what) => write!(f, "an alert is lost: {what}"),
            Self::Surplus(what) => write!(f, "too many messages: {what}"),
            Self::Stuck(what) => write!(f, "a message is stuck: {what}"),
            Self::Store(what) => write!(f, "the store failed: {what}"),
        }
    }
}

/// What a schedule came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Occurrences that had to be told.
    pub occurrences: u64,
    /// Messages that channels took.
    pub messages: u64,
    /// Messages too many.
    pub surplus: u64,
    /// Messages that had arrived without anybody being told, and excuse one of those.
    pub excuses: u64,
    /// Messages that another host has said once more, since their sender stayed away longer than they are kept for him.
    pub absences: u64,
    /// Messages that another host had told.
    pub repeats: u64,
    /// Incidents that merged.
    pub merges: u64,
    /// Reminders that were due.
    pub reminders: u64,
    /// Messages about the same thing on several machines, or about many things.
    pub joint: u64,
    /// Rows that a mute held back.
    pub muted: u64,
    /// Batches that were pushed.
    pub pushed: u64,
    /// Lines of those that were judged, or counted as not judged.
    pub judged: u64,
    /// Clocks that were set.
    pub jumps: u64,
    /// Messages of processes that were gone, freed by those in their place.
    pub taken_over: u64,
    /// Messages too many in schedules in which a clock was set: what was told is told again then.
    pub after_jumps: u64,
    /// Stores that failed when they were asked.
    pub failures: u64,
    /// Messages too many whose sender did not hear the deduplication store.
    pub unasked: u64,
}

impl Tally {
    /// Adds another's numbers.
    pub fn add(&mut self, other: Self) {
        self.occurrences += other.occurrences;
        self.messages += other.messages;
        self.surplus += other.surplus;
        self.excuses += other.excuses;
        self.absences += other.absences;
        self.repeats += other.repeats;
        self.merges += other.merges;
        self.reminders += other.reminders;
        self.joint += other.joint;
        self.muted += other.muted;
        self.pushed += other.pushed;
        self.judged += other.judged;
        self.jumps += other.jumps;
        self.taken_over += other.taken_over;
        self.after_jumps += other.after_jumps;
        self.failures += other.failures;
        self.unasked += other.unasked;
    }
}

/// Runs a schedule.
///
/// # Errors
///
/// When a promise is broken.
pub fn run(rules: Rules, stores: &dyn Fn() -> Box<dyn Stores>, seed: u64, steps: &[Step]) -> Result<Tally, Fault> {
    let mut world = World::new(rules, stores(), seed);
    for step in steps {
        world.step(*step)?;
    }
    world.settle_down()?;
    world.check()
}

/// The shortest part of a schedule found that still goes wrong.
pub fn shrink(
    rules: Rules,
    stores: &dyn Fn() -> Box<dyn Stores>,
    seed: u64,
    steps: &[Step],
) -> (Vec<Step>, Option<Fault>) {
    let mut best = steps.to_vec();
    let mut fault = run(rules, stores, seed, &best).err();
    let mut chunk = best.len() / 2;
    while chunk > 0 && fault.is_some() {
        let mut from = 0;
        let mut shorter = false;
        while from < best.len() {
            let mut fewer = best.clone();
            fewer.drain(from..(from + chunk).min(best.len()));
            match run(rules, stores, seed, &fewer) {
                Err(same) => {
                    (best, fault, shorter) = (fewer, Some(same), true);
                }
                Ok(_) => from += chunk,
            }
        }
        if !shorter || chunk > 1 {
            chunk /= 2;
        }
    }
    (best, fault)
}

enum Stage {
    Idle,
    Planned(Box<Turn>),
    Claimed(Box<Turn>),
    Reserved(Box<Turn>),
    /// Only without the rule: marked as sent, and to be sent now.
    Marked(Box<Turn>),
    Sent(Box<Turn>, Result<Receipt, Answer>),
    Over(Box<Turn>, Ended),
}

struct Lane {
    stage: Stage,
    /// What the deduplication store knew to be told when it said that we speak.
    known: BTreeSet<usize>,
    /// What had arrived without anybody being told, and was not held for its sender any more.
    abandoned: BTreeSet<usize>,
    /// When that was.
    reserved: Timestamp,
    /// When that was, by the store's clock; `None` when it was not heard.
    first: Option<Timestamp>,
    /// What the process before it in its place was sending; freed in the ledger, not yet in the deduplication store.
    freed: Option<Versioned<Sending>>,
    /// What this turn has made arrive.
    arrived: Option<usize>,
}

struct World {
    rules: Rules,
    /// The true time.
    env: FakeEnv,
    /// The deduplication store's clock.
    store: FakeEnv,
    stores: Box<dyn Stores>,
    dice: Dice,
    policy: Policy,
    channels: Vec<Channel>,
    source: SourceId,
    /// How much each host's clock is fast, in seconds.
    skew: Vec<i64>,
    /// The latest time that each host's clock has said.
    latest: Vec<Cell<Timestamp>>,
    /// Per process.
    ledgers: Vec<Arc<dyn Ledger>>,
    dedups: Vec<Arc<dyn DedupStore>>,
    processes: Vec<ProcessId>,
    /// Per process, who was in its place before.
    gone: Vec<Option<ProcessId>>,
    lanes: Vec<Vec<Lane>>,
    /// Per process, what a store fails to do next.
    failing: Vec<Option<(Ask, bool)>>,
    /// Per process, how far it is with what was pushed.
    folds: Vec<Fold>,
    judging: Judging,
    batches: Vec<Batch>,
    /// Per host and topic the roots that it had, the present one last.
    roots: Vec<[Vec<RootId>; TOPICS]>,
    oracle: Oracle,
    merged: BTreeMap<IncidentId, IncidentId>,
    dead: BTreeMap<(IncidentId, usize), Timestamp>,
    tally: Tally,
}

impl World {
    fn new(rules: Rules, stores: Box<dyn Stores>, seed: u64) -> Self {
        let (env, store) = (FakeEnv::new(BEGIN, seed), FakeEnv::new(BEGIN, seed));
        let channel = |name: &str, amends, min_severity| Channel {
            name: name.into(),
            destination: ChannelHash(LineId::of(&[name.as_bytes()]).bits()),
            vendor: "vendor",
            min_severity,
            amends,
            longest_send: Duration::from_secs(15),
            gap: Duration::from_secs(1),
            per_minute: 30,
        };
        let channels = vec![channel("edits", true, Severity::Low), channel("posts", false, Severity::Medium)];
        let policy = Policy {
            window: WINDOW,
            remind_urgent: WINDOW,
            remind_other: WINDOW * 2,
            explain_wait: Duration::from_secs(60),
            channels: channels.clone(),
            rollup_at: 4,
            ..Policy::default()
        };
        let mut dice = Dice::new(seed ^ 0x5eed);
        let process = |dice: &mut Dice| ProcessId(wide(dice));
        let dedup = || {
            let inner = stores.dedup(&store);
            Arc::new(Weakened { inner, rules, env: store.clone() }) as Arc<dyn DedupStore>
        };
        Self {
            rules,
            policy,
            channels,
            source: SourceId("source".into()),
            skew: (0..HOSTS).map(|_| i64::try_from(dice.below(240)).unwrap_or(0) - 120).collect(),
            ledgers: (0..PROCESSES).map(|process| stores.ledger(process / 2)).collect(),
            dedups: (0..PROCESSES).map(|_| dedup()).collect(),
            processes: (0..PROCESSES).map(|_| process(&mut dice)).collect(),
            gone: vec![None; PROCESSES],
            lanes: (0..PROCESSES).map(|_| lanes()).collect(),
            latest: vec![Cell::new(Timestamp::MIN); HOSTS],
            failing: vec![None; PROCESSES],
            folds: (0..PROCESSES).map(|_| Fold::Idle).collect(),
            judging: Judging::default(),
            batches: Vec::new(),
            roots: (0..HOSTS).map(|_| std::array::from_fn(|topic| vec![leaf(topic).as_root()])).collect(),
            env,
            store,
            stores,
            dice,
            oracle: Oracle::default(),
            merged: BTreeMap::new(),
            dead: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// What a host's clock says.
    fn now(&self, host: usize) -> Timestamp {
        let now = self.told_by(host, self.env.now());
        if self.rules.clock {
            return now;
        }
        let latest = self.latest[host].get().max(now);
        self.latest[host].set(latest);
        latest
    }

    fn told_by(&self, host: usize, truth: Timestamp) -> Timestamp {
        Timestamp::from_secs(truth.secs() + self.skew[host])
            .plus(Duration::from_nanos(truth.nanos().rem_euclid(1_000_000_000) as u64))
    }

    /// When it really was what a host's clock said.
    fn truth(&self, host: usize, told: Timestamp) -> Timestamp {
        Timestamp::from_nanos(told.nanos().saturating_sub(self.skew[host] * 1_000_000_000))
    }

    fn step(&mut self, step: Step) -> Result<(), Fault> {
        match step {
            Step::Wait(seconds) => self.pass(Duration::from_secs(u64::from(seconds))),
            Step::Find(find) => {
                self.find(&find)?;
                self.tick(find.host)?;
            }
            Step::Occur { host, scope, topic } => {
                self.occur(host, scope, topic)?;
                self.tick(host)?;
            }
            Step::Generalise { host, topic } => self.generalise(host, topic)?,
            Step::Tick { host } => self.tick(host)?,
            Step::Release { host } => self.release(host)?,
            Step::Mute { host, scope, seconds } => self.mute(host, scope, seconds)?,
            Step::Deliver { process, channel, answer } => self.deliver(process, channel, answer)?,
            Step::Push { find, process, ends } => self.push(find, process, ends)?,
            Step::Fold { process } => self.fold(process)?,
            Step::Judge { process, opinion } => self.judge(process, opinion)?,
            Step::Jump { clock, seconds } => self.jump(clock, i64::from(seconds))?,
            Step::Fail { process, what, done } => self.failing[process] = Some((what, done)),
            Step::Crash { process } => self.crash(process),
            Step::TakeOver { process, channel } => self.take_over(process, channel)?,
        }
        Ok(())
    }

    /// Time passes, on every clock.
    fn pass(&self, by: Duration) {
        self.env.advance(by);
        self.store.advance(by);
    }

    fn jump(&mut self, clock: usize, seconds: i64) -> Result<(), Fault> {
        self.tally.jumps += 1;
        self.oracle.jumped(clock, seconds, self.env.now());
        if clock == STORE {
            let by = Duration::from_secs(seconds.unsigned_abs());
            let now = self.store.now();
            self.store.set(if seconds < 0 { now.minus(by) } else { now.plus(by) });
            return Ok(());
        }
        self.skew[clock] += seconds;
        self.mutes_begin_again(clock)?;
        self.tick(clock)
    }

    fn read(&self, process: usize, query: &Query) -> Result<Snapshot, Fault> {
        block_on(self.ledgers[process].read(query)).map_err(|error| Fault::Store(format!("{error:?}")))
    }

    fn commit(&mut self, process: usize, mut writes: Vec<Write>) -> Result<bool, Fault> {
        if writes.is_empty() {
            return Ok(true);
        }
        let host = process / 2;
        if !self.rules.r2 {
            self.overwrite(host, &mut writes)?;
        }
        let commit = Commit { id: CommitId(wide(&mut self.dice)), writes };
        let committed =
            block_on(self.ledgers[process].commit(&commit)).map_err(|error| Fault::Store(format!("{error:?}")))?;
        if committed == Committed::Conflict {
            return Ok(false);
        }
        for write in &commit.writes {
            match write {
                Write::Event(event) => match event.kind {
                    EventKind::Merged { into } => {
                        self.merged.insert(event.incident, into);
                        self.tally.merges += 1;
                    }
                    EventKind::Reminded => self.tally.reminders += 1,
                    _ => {}
                },
                Write::Outbox(row) => {
                    let channel = self.channels.iter().position(|channel| channel.name == row.row.channel);
                    // Given up with this commit, whatever the host's clock said when it was decided.
                    if let (OutboxState::Dead { .. }, Some(channel)) = (&row.row.state, channel) {
                        self.dead.insert((row.row.incident, channel), self.env.now());
                    }
                    if let OutboxState::Repeat { .. } = row.row.state {
                        self.tally.repeats += 1;
                    }
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// Commits, unless the ledger fails; `None` when nobody hears how that went.
    fn try_commit(&mut self, process: usize, writes: Vec<Write>) -> Result<Option<bool>, Fault> {
        match self.fails(process, Ask::Commit) {
            None => self.commit(process, writes).map(Some),
            Some(false) => Ok(None),
            Some(true) => self.commit(process, writes).map(|_| None),
        }
    }

    /// Whether a store fails a process now, and whether what it is asked for is done all the same.
    fn fails(&mut self, process: usize, what: Ask) -> Option<bool> {
        let (_, done) = self.failing[process].take_if(|(failing, _)| *failing == what)?;
        self.tally.failures += 1;
        Some(done)
    }

    /// Without R2: whatever was seen, the write is taken.
    fn overwrite(&self, host: usize, writes: &mut [Write]) -> Result<(), Fault> {
        let ids = writes.iter().filter_map(|write| match write {
            Write::Outbox(row) => Some(row.row.incident),
            Write::Incident(row) => Some(row.row.id),
            _ => None,
        });
        let ids: Vec<_> = ids.collect();
        let query = Query {
            incidents: Incidents::Ids(ids.clone()),
            outbox: Outbox::Incidents(ids),
            channels: true,
            ..Query::default()
        };
        let now = self.read(2 * host, &query)?;
        for write in writes {
            match write {
                Write::Outbox(row) => {
                    let known = now.outbox.iter().find(|known| known.row.key() == row.row.key());
                    row.version = known.map_or(0, |known| known.version);
                }
                Write::Incident(row) => row.version = now.incidents.get(&row.row.id).map_or(0, |known| known.version),
                Write::Sending(row) => {
                    let known = now.sendings.iter().find(|known| known.row.id == row.row.id);
                    row.version = known.map_or(0, |known| known.version);
                }
                Write::Channel(row) => {
                    let known = now.channels.iter().find(|known| known.row.name == row.row.name);
                    row.version = known.map_or(0, |known| known.version);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads, lets a book decide and commits.
    fn with_book(&mut self, host: usize, keys: &[Key], decide: impl Fn(&mut Book<'_>)) -> Result<(), Fault> {
        let snapshot = self.read(2 * host, &Book::query(keys.to_vec()))?;
        let policy = self.policy.clone();
        let Some(mut book) = Book::open(&policy, &snapshot, self.source.clone(), self.now(host)) else {
            return Err(Fault::Store("no installation".into()));
        };
        decide(&mut book);
        let mut writes = book.close();
        if !self.rules.r1 {
            absorb_into_claimed(&snapshot, &mut writes);
        }
        match self.commit(2 * host, writes)? {
            true => Ok(()),
            false => Err(Fault::Store("a commit on a fresh snapshot conflicts".into())),
        }
    }

    fn root(&self, host: usize, topic: usize) -> RootId {
        *self.roots[host][topic].last().expect("every topic has a root")
    }

    fn cited(&self, host: usize, scope: usize, topic: usize) -> Cited {
        Cited {
            scope: self::scope(scope),
            leaf: Some(leaf(topic)),
            root: self.root(host, topic),
            template: format!("topic {topic} <*>").into(),
            anomalous: true,
        }
    }

    /// The keys that tell of a topic: its own, and those of all that are the same for the host now.
    fn tells(&self, host: usize, scope: usize, topic: usize) -> BTreeSet<Key> {
        let scope = self::scope(scope);
        let same = (0..TOPICS).filter(|other| self.root(host, *other) == self.root(host, topic));
        same.flat_map(|topic| {
            let roots = self.roots[host][topic].iter().map(|root| Key::of_root(&scope, *root));
            roots.chain([Key::of_leaf(&scope, leaf(topic))]).collect::<Vec<_>>()
        })
        .collect()
    }

    fn finding(&self, find: &Find, now: Timestamp) -> Grounded {
        let Find { host, scope, mark, severity, model, digest, .. } = *find;
        Grounded {
            by: if model { By::Model { name: "model".into() } } else { By::Rule { id: "rule".into() } },
            profile: ProfileName::general(),
            category: Category::Service,
            severity,
            route: if digest { Route::Digest } else { Route::Alert },
            title: "title".into(),
            explanation: "explanation".into(),
            recommendation: String::new(),
            cited: find.topics().iter().map(|topic| self.cited(host, scope, *topic)).collect(),
            discriminator: if model || mark == 0 { String::new() } else { mark.to_string() },
            evidence: Vec::new(),
            entities: Vec::new(),
            query: None,
            labels: BTreeMap::new(),
            score: 1.0,
            count: 1,
            first: now,
            last: now,
        }
    }

    fn find(&mut self, find: &Find) -> Result<(), Fault> {
        let now = self.now(find.host);
        let finding = self.finding(find, now);
        let keys = finding.keys();
        self.with_book(find.host, &keys, |book| {
            // What a model speaks of was counted when it was ingested.
            for cited in finding.cited.iter().filter(|_| find.model) {
                book.occurred(&cited.scope, leaf_of(cited), cited.root, 1, now, now);
            }
            book.take(&finding);
        })?;
        self.must_hear(find, &finding, self.env.now())
    }

    /// A finding about lines of that time was committed: people must hear of it.
    fn must_hear(&mut self, find: &Find, finding: &Grounded, at: Timestamp) -> Result<(), Fault> {
        let Find { host, scope, severity, model, digest, .. } = *find;
        let (keys, topics) = (finding.keys(), find.topics());
        if digest {
            return Ok(());
        }
        let snapshot = self.read(2 * host, &Book::query(keys))?;
        let about: Vec<(usize, Vec<Key>)> =
            topics.iter().zip(&finding.cited).map(|(topic, cited)| (*topic, cited.keys().collect())).collect();
        let owner = |keys: &[Key], soft: bool| keys.iter().find_map(|key| open_owner(&snapshot, *key, soft));
        let all: Vec<Key> = about.iter().flat_map(|(_, keys)| keys.clone()).collect();
        for (topic, keys) in &about {
            // A detector's finding is one incident's, a model's is of each that it is about.
            let hard = if model { owner(keys, false) } else { owner(&all, false) };
            let (incident, detector) = match (hard, owner(keys, true)) {
                (Some(hard), _) => (hard, true),
                (None, Some(soft)) => (soft, false),
                (None, None) => return Err(Fault::Lost(format!("nobody owns topic {topic}"))),
            };
            // What a model says about a listed incident raises it in the list only.
            if model && detector && incident.route != Route::Alert {
                continue;
            }
            // What is softly owned may be told by an incident that is about something else besides.
            let tellers = snapshot.incidents.values().map(|incident| &incident.row).filter(|other| {
                !detector && other.status == Status::Firing && finding.keys().iter().all(|key| other.keys.contains(key))
            });
            let by = tellers.chain([incident]).map(|incident| incident.id).collect();
            self.must_tell(host, scope, incident, by, self.tells(host, scope, *topic), Rank { detector, severity }, at);
        }
        if let (Some(mark), Some(incident)) = (finding.mark(), owner(&all, false)) {
            let (by, mark) = (BTreeSet::from([incident.id]), BTreeSet::from([mark]));
            self.must_tell(host, scope, incident, by, mark, Rank { detector: true, severity }, at);
        }
        Ok(())
    }

    /// Something of an incident that occurred then must be told, by a message of any of these incidents.
    #[expect(clippy::too_many_arguments, reason = "the fields of an occurrence, but for what the world knows")]
    fn must_tell(
        &mut self,
        host: usize,
        scope: usize,
        incident: &Incident,
        by: BTreeSet<IncidentId>,
        keys: BTreeSet<Key>,
        rank: Rank,
        at: Timestamp,
    ) {
        let remind = self.policy.remind_after(incident.rank.severity);
        let since = match self.oracle.has_jumped(host) {
            false => at.minus(remind).max(self.truth(host, incident.opened).minus(WINDOW)),
            true => at.minus(remind),
        };
        let excused = if incident.muted_by.is_some() { (0..CHANNELS).collect() } else { BTreeSet::new() };
        self.oracle.occurred(Occurrence { host, scope, at, by, keys, rank, since, excused });
    }

    fn occur(&mut self, host: usize, scope: usize, topic: usize) -> Result<(), Fault> {
        let (now, cited) = (self.now(host), self.cited(host, scope, topic));
        let keys: Vec<Key> = cited.keys().collect();
        self.with_book(host, &keys, |book| book.occurred(&cited.scope, leaf(topic), cited.root, 1, now, now))?;
        let snapshot = self.read(2 * host, &Book::query(keys.clone()))?;
        let owner = keys.iter().find_map(|key| open_owner(&snapshot, *key, true));
        if let Some(incident) = owner.filter(|incident| incident.route == Route::Alert) {
            // Nobody claims anything about it: that it goes on is what must be told.
            let keys = incident.keys.iter().copied().collect();
            self.must_tell(host, scope, incident, BTreeSet::from([incident.id]), keys, incident.rank, self.env.now());
        }
        Ok(())
    }

    fn generalise(&mut self, host: usize, topic: usize) -> Result<(), Fault> {
        // Topics 0 and 1 have one root above them, 2 and 3 another.
        let pair = topic / 2 * 2;
        let to = RootId::of(&[b"above", &pair.to_le_bytes()]);
        let moved = (pair..pair + 2).filter(|topic| self.root(host, *topic) != to);
        let moves: Vec<Move> =
            moved.map(|topic| Move { leaf: leaf(topic), from: Some(self.root(host, topic)), to }).collect();
        if moves.is_empty() {
            return Ok(());
        }
        let open = self.read(2 * host, &Query { incidents: Incidents::Firing, ..Query::default() })?;
        let keys: Vec<_> = Book::moved_keys(&open, &moves).into_iter().collect();
        self.with_book(host, &keys, |book| book.moved(&moves, &keys))?;
        for topic in pair..pair + 2 {
            self.roots[host][topic].push(to);
        }
        Ok(())
    }

    fn release(&mut self, host: usize) -> Result<(), Fault> {
        let keys: Vec<Key> = (0..SCOPES)
            .flat_map(|scope| (0..TOPICS).map(move |topic| (scope, topic)))
            .flat_map(|(scope, topic)| self.cited(host, scope, topic).keys().collect::<Vec<_>>())
            .collect();
        self.with_book(host, &keys, |book| book.release(&keys))
    }

    fn mute(&mut self, host: usize, scope: usize, seconds: u32) -> Result<(), Fault> {
        let id = format!("scope {scope}");
        let now = self.now(host);
        if seconds == 0 {
            return self.commit(2 * host, vec![Write::Unmute(id)]).map(|_| ());
        }
        let mute = Mute {
            id,
            matches: MuteMatch { host: Some(format!("web-{scope}")), ..MuteMatch::default() },
            until: Some(now.plus(Duration::from_secs(u64::from(seconds)))),
            reason: String::new(),
            author: String::new(),
            created: now,
        };
        let severities: Vec<Severity> = self.channels.iter().map(|channel| channel.min_severity).collect();
        self.oracle.muted(host, scope, &severities);
        let open = self.read(2 * host, &Query { incidents: Incidents::Firing, ..Query::default() })?;
        self.commit(2 * host, mutes::begin(&open, &mute)).map(|_| ())
    }

    /// A mute ends at a time of day: when the clock is set back, one that had ended holds again.
    fn mutes_begin_again(&mut self, host: usize) -> Result<(), Fault> {
        let (now, mutes) = (self.now(host), self.read(2 * host, &Query { mutes: true, ..Query::default() })?.mutes);
        let severities: Vec<Severity> = self.channels.iter().map(|channel| channel.min_severity).collect();
        for scope in 0..SCOPES {
            if mutes.iter().any(|mute| mute.id == format!("scope {scope}") && mutes::is_active(mute, now)) {
                self.oracle.muted(host, scope, &severities);
            }
        }
        Ok(())
    }

    fn tick(&mut self, host: usize) -> Result<(), Fault> {
        let snapshot = self.read(2 * host, &Book::query(Vec::new()))?;
        let now = self.now(host);
        let mut writes = lifecycle::tick(&self.policy, &snapshot, &self.source, Some(now), now);
        if !self.rules.r1 {
            absorb_into_claimed(&snapshot, &mut writes);
        }
        match self.commit(2 * host, writes)? {
            true => Ok(()),
            false => Err(Fault::Store("a commit on a fresh snapshot conflicts".into())),
        }
    }

    fn crash(&mut self, process: usize) {
        self.gone[process] = Some(self.processes[process]);
        self.processes[process] = ProcessId(wide(&mut self.dice));
        self.lanes[process] = lanes();
        (self.failing[process], self.folds[process]) = (None, Fold::Idle);
        self.judging.leased.remove(&process);
        self.ledgers[process] = self.stores.ledger(process / 2);
        let inner = self.stores.dedup(&self.store);
        self.dedups[process] = Arc::new(Weakened { inner, rules: self.rules, env: self.store.clone() });
    }

    /// The process in the place of one that is gone frees what that one held, without waiting for its leases: the source and
    /// the channel at once, in the next step the message in the deduplication store.
    fn take_over(&mut self, process: usize, number: usize) -> Result<(), Fault> {
        let (host, channel) = (process / 2, self.channels[number].clone());
        if let Some(sending) = self.lanes[process][number].freed.take() {
            if sending.row.asks_dedup {
                let until = self.env.now().plus(HOLD);
                self.oracle.unclear(number, sending.row.id, sending.version, until);
                let claim = deliver::claim_of(&sending, &channel);
                let settled = block_on(self.dedups[process].settle(&claim, &deliver::UNKNOWN));
                settled.map_err(|error| Fault::Store(format!("{error:?}")))?;
            }
            return Ok(());
        }
        let Some(gone) = self.gone[process] else { return Ok(()) };
        let snapshot = self.read(process, &Query { source: Some(self.source.clone()), ..Query::default() })?;
        let mut writes = ingest::disown(&snapshot, &self.source, gone);
        let snapshot = self.read(process, &deliver::query(&channel.name))?;
        let freed = deliver::abandoned(&snapshot, &channel, gone, self.now(host));
        let sending = freed.and_then(|freed| {
            writes.extend(freed.writes);
            freed.sending
        });
        if !self.commit(process, writes)? {
            return Err(Fault::Store("a commit on a fresh snapshot conflicts".into()));
        }
        self.tally.taken_over += u64::from(sending.is_some());
        self.lanes[process][number].freed = sending;
        Ok(())
    }

    fn deliver(&mut self, process: usize, number: usize, answer: Answer) -> Result<(), Fault> {
        let stage = std::mem::replace(&mut self.lanes[process][number].stage, Stage::Idle);
        let next = match stage {
            Stage::Idle => self.plan(process, number)?,
            Stage::Planned(mut turn) => {
                let writes = std::mem::take(&mut turn.writes);
                match self.try_commit(process, writes)? {
                    Some(true) => Stage::Claimed(turn),
                    Some(false) | None => Stage::Idle,
                }
            }
            Stage::Claimed(turn) => {
                let (known, now) = (self.oracle.known(number), self.env.now());
                let abandoned = self.oracle.abandoned(number, turn.sending.row.id, now);
                let lane = &mut self.lanes[process][number];
                (lane.known, lane.abandoned, lane.reserved, lane.arrived) = (known, abandoned, now, None);
                lane.first = None;
                self.reserve(process, number, turn)?
            }
            Stage::Reserved(turn) if turn.is_late(self.now(process / 2)) => {
                self.settle_dedup(process, number, &turn, &deliver::not_sent(&turn))?;
                Stage::Over(turn, Ended::Wait(Duration::ZERO))
            }
            Stage::Reserved(turn) if !self.rules.sends_before_marking => {
                let receipt = Receipt("early".into());
                let reserved = self.lanes[process][number].first.map_or(Reserved::Ago(Duration::ZERO), Reserved::At);
                let outcome = Outcome::Delivered { receipt: receipt.clone(), reserved };
                self.settle_dedup(process, number, &turn, &outcome)?;
                self.settle_ledger(process, number, &turn, &Ended::Delivered(receipt))?;
                Stage::Marked(turn)
            }
            Stage::Marked(turn) => {
                let _ = self.send(process, number, &turn, answer)?;
                Stage::Idle
            }
            Stage::Reserved(turn) => {
                let sent = self.send(process, number, &turn, answer)?;
                Stage::Sent(turn, sent)
            }
            Stage::Sent(turn, sent) => {
                let sent = sent.map_err(|answer| error(&self.channels[number].name, answer));
                let reserved = self.lanes[process][number].first;
                let outcome = deliver::outcome(&turn, &sent, reserved, self.now(process / 2));
                self.settle_dedup(process, number, &turn, &outcome)?;
                let ended = match sent {
                    Ok(receipt) => Ended::Delivered(receipt),
                    Err(error) => Ended::Failed(error),
                };
                Stage::Over(turn, ended)
            }
            Stage::Over(turn, ended) => {
                self.settle_ledger(process, number, &turn, &ended)?;
                Stage::Idle
            }
        };
        self.lanes[process][number].stage = next;
        Ok(())
    }

    fn plan(&mut self, process: usize, number: usize) -> Result<Stage, Fault> {
        let channel = self.channels[number].clone();
        let snapshot = self.read(process, &deliver::query(&channel.name))?;
        let (now, random) = (self.now(process / 2), wide(&mut self.dice));
        match deliver::next(&self.policy, &snapshot, &channel, self.processes[process], now, random) {
            Next::Nothing { writes, .. } => {
                let held = |write: &Write| match write {
                    Write::Outbox(row) => {
                        let incident = snapshot.incidents.get(&row.row.incident);
                        incident.is_some_and(|incident| mutes::holding(&incident.row, &snapshot.mutes, now).is_some())
                    }
                    _ => false,
                };
                self.tally.muted += writes.iter().filter(|write| held(write)).count() as u64;
                self.commit(process, writes)?;
                Ok(Stage::Idle)
            }
            Next::Send(turn) => {
                self.oracle.formed(&turn.sending.row)?;
                Ok(Stage::Planned(turn))
            }
        }
    }

    fn reserve(&mut self, process: usize, number: usize, turn: Box<Turn>) -> Result<Stage, Fault> {
        if !turn.sending.row.asks_dedup {
            return Ok(Stage::Reserved(turn));
        }
        let failing = self.fails(process, Ask::Reserve);
        let until = self.env.now().plus(turn.lease + HOLD);
        if failing != Some(false) {
            self.oracle.asked(self.env.now());
            let standing = block_on(self.dedups[process].reserve(&self.claim(process / 2, &turn)));
            let standing = standing.map_err(|error| Fault::Store(format!("{error:?}")))?;
            if let Standing::First { .. } = standing {
                self.oracle.reserved(number, turn.sending.row.id, turn.sending.version, until);
            }
            if failing.is_none() {
                return Ok(self.answered(process, number, turn, standing));
            }
        }
        // Not heard: it is said, and counts from when it was claimed.
        self.lanes[process][number].reserved = self.truth(process / 2, turn.at);
        Ok(Stage::Reserved(turn))
    }

    fn answered(&mut self, process: usize, number: usize, turn: Box<Turn>, standing: Standing) -> Stage {
        match standing {
            Standing::First { at } => {
                self.lanes[process][number].first = Some(at);
                Stage::Reserved(turn)
            }
            Standing::Delivered { receipt } => Stage::Over(turn, Ended::Delivered(receipt)),
            Standing::Repeat { receipt, ago } => {
                let told_at = self.now(process / 2).minus(ago);
                Stage::Over(turn, Ended::Repeat(receipt, told_at))
            }
            Standing::Pending { wait } => Stage::Over(turn, Ended::Wait(wait)),
        }
    }

    fn claim<'t>(&self, host: usize, turn: &'t Turn) -> Claim<'t> {
        let sending = &turn.sending.row;
        Claim {
            id: sending.id,
            epoch: turn.sending.version,
            channel: self.policy.channel(&sending.channel).map_or(ChannelHash(0), |channel| channel.destination),
            keys: &sending.keys,
            age: if self.rules.r6 { self.now(host).since(turn.event) } else { Duration::ZERO },
            window: sending.window,
            lease: turn.lease,
        }
    }

    fn send(
        &mut self,
        process: usize,
        number: usize,
        turn: &Turn,
        answer: Answer,
    ) -> Result<Result<Receipt, Answer>, Fault> {
        let (host, sending) = (process / 2, &turn.sending.row);
        self.alone_in_channel(process, number)?;
        let answer = match answer {
            Answer::NotAmendable if sending.amend.is_none() => Answer::Away,
            answer => answer,
        };
        if matches!(answer, Answer::Ok | Answer::Lost) {
            if sending.tells.len() > 1 {
                self.tally.joint += 1;
            }
            let event = self.truth(host, turn.event);
            let arrival = Arrival {
                send: sending.id,
                manner: match (sending.asks_dedup, &sending.amend) {
                    (true, _) => Manner::Announcement,
                    (false, Some(_)) => Manner::Edit,
                    (false, None) => Manner::Follow,
                },
                at: self.env.now(),
                reserved: self.lanes[process][number].reserved,
                keys: sending.keys.clone(),
                since: event.minus(sending.window),
                known: self.lanes[process][number].known.clone(),
                abandoned: self.lanes[process][number].abandoned.clone(),
                unasked: sending.asks_dedup && self.lanes[process][number].first.is_none(),
            };
            self.lanes[process][number].arrived = Some(self.oracle.arrived(number, arrival)?);
        }
        Ok(match answer {
            Answer::Ok => Ok(sending.amend.clone().unwrap_or(Receipt(format!("{:032x}", sending.id.0)))),
            answer => Err(answer),
        })
    }

    /// One message in flight per channel and ledger (R7), but for those who are late.
    fn alone_in_channel(&self, process: usize, number: usize) -> Result<(), Fault> {
        let host = process / 2;
        if self.oracle.has_jumped(host) {
            return Ok(());
        }
        let now = self.now(host);
        let others = (2 * host..2 * host + 2).filter(|other| *other != process);
        for other in others {
            if let Stage::Reserved(turn) | Stage::Sent(turn, _) = &self.lanes[other][number].stage
                && now < turn.at.plus(turn.lease)
                && self.rules.r2
            {
                return Err(Fault::Store(format!("two messages in flight in channel {number} of host {host}")));
            }
        }
        Ok(())
    }

    fn settle_dedup(&mut self, process: usize, number: usize, turn: &Turn, outcome: &Outcome) -> Result<(), Fault> {
        if !turn.sending.row.asks_dedup {
            return Ok(());
        }
        let failing = self.fails(process, Ask::Settle);
        if failing == Some(false) {
            return Ok(());
        }
        match outcome {
            Outcome::Delivered { .. } => self.confirm(process, number),
            Outcome::Unclear { hold } => {
                let until = self.env.now().plus(*hold);
                self.oracle.unclear(number, turn.sending.row.id, turn.sending.version, until);
            }
            Outcome::Failed => {}
        }
        let settled = block_on(self.dedups[process].settle(&self.claim(process / 2, turn), outcome));
        settled.map_err(|error| Fault::Store(format!("{error:?}")))
    }

    fn confirm(&mut self, process: usize, number: usize) {
        if let Some(arrival) = self.lanes[process][number].arrived {
            self.oracle.confirm(number, arrival);
        }
    }

    fn settle_ledger(&mut self, process: usize, number: usize, turn: &Turn, ended: &Ended) -> Result<(), Fault> {
        let host = process / 2;
        let snapshot = self.read(process, &deliver::query(&self.channels[number].name))?;
        let same = |known: &&Versioned<Sending>| known.row.id == turn.sending.row.id;
        let known = snapshot.sendings.iter().find(same);
        if known.is_none_or(|known| known.version != turn.sending.version && self.rules.r2) {
            return Ok(()); // somebody else has it now
        }
        let random = self.dice.roll();
        let writes = deliver::settle(&self.policy, &snapshot, turn, ended, self.now(host), random);
        match self.try_commit(process, writes)? {
            Some(false) if self.rules.r1 => {
                return Err(Fault::Store("what is claimed was changed by somebody else".into()));
            }
            None => return Ok(()), // whoever comes next finds how it stands
            Some(_) => {}
        }
        if matches!(ended, Ended::Delivered(_)) && !turn.sending.row.asks_dedup {
            self.confirm(process, number);
        }
        if let Ended::Failed(NotifyError::Banned { retry_after, .. }) = ended {
            let snapshot = self.read(process, &deliver::query(&self.channels[number].name))?;
            let (vendor, now) = (self.channels[number].vendor, self.now(host));
            let writes = deliver::hold_vendor(&snapshot, &self.policy, vendor, *retry_after, now);
            self.commit(process, writes)?;
        }
        Ok(())
    }

    /// Nothing new happens, all channels answer, and everybody works until nothing is left to do.
    fn settle_down(&mut self) -> Result<(), Fault> {
        self.failing.fill(None);
        for round in 0..24 {
            self.pass(Duration::from_secs(65));
            for host in 0..HOSTS {
                self.tick(host)?;
            }
            self.fold_all()?;
            self.judge_all()?;
            // Nothing that time brings, either.
            if round > 1 && !self.anything_open()? {
                return Ok(());
            }
            for _ in 0..12 {
                if !self.anything_open()? {
                    break;
                }
                for process in 0..PROCESSES {
                    for channel in 0..CHANNELS {
                        for _ in 0..6 {
                            self.deliver(process, channel, Answer::Ok)?;
                        }
                    }
                }
                self.pass(Duration::from_secs(2));
            }
        }
        Ok(())
    }

    fn anything_open(&self) -> Result<bool, Fault> {
        for host in 0..HOSTS {
            let all = Query { outbox: Outbox::Open, spool: Some(1), jobs: Jobs::Open { limit: 1 }, ..Query::default() };
            let snapshot = self.read(2 * host, &all)?;
            if !snapshot.outbox.is_empty() || !snapshot.spool.is_empty() || !snapshot.jobs.is_empty() {
                return Ok(true);
            }
        }
        let busy = |lane: &Lane| !matches!(lane.stage, Stage::Idle);
        Ok(self.lanes.iter().flatten().any(busy))
    }

    fn survivor(&self, mut id: IncidentId) -> IncidentId {
        while let Some(into) = self.merged.get(&id) {
            id = *into;
        }
        id
    }

    fn check(mut self) -> Result<Tally, Fault> {
        self.check_batches()?;
        for host in 0..HOSTS {
            self.tally.judged += self.check_judged(host)?;
            let all = Query { outbox: Outbox::Open, channels: true, ..Query::default() };
            let open = self.read(2 * host, &all)?;
            for (number, channel) in self.channels.iter().enumerate() {
                let state = open.channels.iter().find(|state| state.row.name == channel.name);
                let broken = state.is_some_and(|state| state.row.broken.is_some());
                let held = state.is_some_and(|state| state.row.hold_until > self.now(host));
                let waiting: Vec<_> = open.outbox.iter().filter(|row| row.row.channel == channel.name).collect();
                if let Some(row) = waiting.first()
                    && !broken
                    && !held
                {
                    return Err(Fault::Stuck(format!("host {host}, {}: {:?}", channel.name, row.row)));
                }
                let waiting: BTreeSet<_> = waiting.iter().map(|row| self.survivor(row.row.incident)).collect();
                let excused = |id: IncidentId, since: Timestamp| {
                    let survivor = self.survivor(id);
                    let dead = |id| self.dead.get(&(id, number)).is_some_and(|at| *at >= since);
                    waiting.contains(&survivor) || dead(id) || dead(survivor)
                };
                self.oracle.check(host, number, channel.min_severity, excused)?;
            }
        }
        self.tally.occurrences = self.oracle.occurrences();
        self.tally.messages = self.oracle.messages;
        self.tally.surplus = self.oracle.surplus();
        self.tally.excuses = self.oracle.excuses();
        self.tally.absences = self.oracle.absences;
        self.tally.after_jumps = self.oracle.after_jumps;
        self.tally.unasked = self.oracle.unasked;
        self.tally.pushed = self.batches.len() as u64;
        Ok(self.tally)
    }
}

/// The open incident that owns a key.
fn open_owner(snapshot: &Snapshot, key: Key, soft: bool) -> Option<&Incident> {
    let owner = snapshot.keys.iter().find(|owner| owner.row.key == key && (soft || !owner.row.soft))?;
    let mut incident = &snapshot.incidents.get(&owner.row.incident)?.row;
    while let Status::Merged { into } = incident.status {
        incident = &snapshot.incidents.get(&into)?.row;
    }
    (incident.status == Status::Firing).then_some(incident)
}

fn lanes() -> Vec<Lane> {
    let lane = |_| Lane {
        stage: Stage::Idle,
        known: BTreeSet::new(),
        abandoned: BTreeSet::new(),
        reserved: Timestamp::MIN,
        first: None,
        freed: None,
        arrived: None,
    };
    (0..CHANNELS).map(lane).collect()
}

fn wide(dice: &mut Dice) -> u128 {
    u128::from(dice.roll()) << 64 | u128::from(dice.roll())
}

fn scope(number: usize) -> Scope {
    let origin = Origin { host: format!("web-{number}").into(), service: "app".into() };
    Scope { tenant: "".into(), origin: Arc::new(origin) }
}

fn leaf(topic: usize) -> LeafId {
    LeafId::of(&[b"topic", &topic.to_le_bytes()])
}

fn leaf_of(cited: &Cited) -> LeafId {
    cited.leaf.unwrap_or_else(|| leaf(0))
}

fn error(channel: &Arc<str>, answer: Answer) -> NotifyError {
    let channel = channel.clone();
    let away = |ambiguous| NotifyError::Unreachable {
        channel: channel.clone(),
        ambiguous,
        retry_after: None,
        cause: "no answer".into(),
    };
    match answer {
        Answer::Ok | Answer::Away => away(false),
        Answer::Lost | Answer::Unknown => away(true),
        Answer::Limited => NotifyError::RateLimited { channel, retry_after: Duration::from_secs(30) },
        Answer::Banned => NotifyError::Banned { channel, retry_after: Duration::from_secs(600) },
        Answer::Refused => NotifyError::ContentRefused { channel, reason: "refused".into() },
        Answer::NotAmendable => NotifyError::NotAmendable { channel, reason: "gone".into() },
        Answer::Broken => NotifyError::Broken { channel, reason: "revoked".into() },
    }
}
