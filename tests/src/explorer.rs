//! A random explorer of the delivery protocol: the real decisions, driven step by step, in any order.
//!
//! Two hosts with a ledger each and two processes each speak to the same channels through one deduplication store. Every
//! step of D1 to D5 is scheduled alone; between any two a process may crash, stall beyond its lease or be overtaken.
//! Channels fail, answer late or not at all. At the end everything may settle, and two promises are checked:
//!
//! * no alert is lost: every occurrence was told on every channel, loudly enough and within the window, or waits durably;
//! * there is at most one surplus message per crash, stall or lost answer.
//!
//! [`Rules`] switches single rules of the design off, to show that the explorer would notice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::executor::block_on;
use logwarden_core::{
    Category, LineId, ProfileName, Severity, Timestamp,
    decide::{
        Policy,
        book::Book,
        deliver::{self, Ended, Next, Turn},
        lifecycle,
    },
    dedup::{Claim, DedupError, DedupStore, Outcome, Standing},
    detectors::{By, Route},
    env::Env,
    finding::{Cited, Grounded, Key, Scope},
    incident::{EventKind, IncidentId, Rank, Status},
    ledger::{
        Commit, CommitId, Committed, Incidents, Ledger, Outbox, OutboxState, ProcessId, Query, Snapshot, Versioned,
        Write,
    },
    message::SendId,
    notifier::{Channel, ChannelHash, NotifyError, Receipt},
    source::SourceId,
    templates::{LeafId, Move, Origin, RootId},
    testing::{FakeEnv, MemoryDedup, MemoryLedger},
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
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self { r1: true, r2: true, r4: true, r5: true, r6: true, sends_before_marking: true };

    /// The design with one rule missing, by its name.
    pub fn without() -> [(&'static str, Self); 6] {
        [
            ("R1", Self { r1: false, ..Self::ALL }),
            ("R2", Self { r2: false, ..Self::ALL }),
            ("R4", Self { r4: false, ..Self::ALL }),
            ("R5", Self { r5: false, ..Self::ALL }),
            ("R6", Self { r6: false, ..Self::ALL }),
            ("sending before marking", Self { sends_before_marking: false, ..Self::ALL }),
        ]
    }
}

/// Where the state is kept.
pub trait Stores {
    /// A ledger; `id` differs from the other's.
    fn ledger(&self, id: u128) -> Arc<dyn Ledger>;
    /// The store that both hosts share, with this clock.
    fn dedup(&self, env: &FakeEnv) -> Arc<dyn DedupStore>;
}

/// Everything in memory.
#[derive(Clone, Copy, Debug)]
pub struct InMemory;

impl Stores for InMemory {
    fn ledger(&self, id: u128) -> Arc<dyn Ledger> {
        Arc::new(MemoryLedger::new(id, 1))
    }

    fn dedup(&self, env: &FakeEnv) -> Arc<dyn DedupStore> {
        Arc::new(MemoryDedup::new(env.clock()))
    }
}

/// What happens next. What does not apply where the world stands happens without effect, so that any part of a schedule
/// is a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time passes.
    Wait(u32),
    /// A host finds something: in what (the first is what it is about), how bad, who claims it, whether it is to be told.
    Find {
        /// Which host.
        host: usize,
        /// What it is about.
        about: usize,
        /// What else it cites; the same for nothing else.
        also: usize,
        /// How bad.
        severity: Severity,
        /// Whether only a model says so.
        model: bool,
        /// Whether it is listed, not sent.
        digest: bool,
    },
    /// On a host two templates turn out to be one.
    Generalise {
        /// Which host.
        host: usize,
        /// One of them.
        topic: usize,
    },
    /// Time alone changes something.
    Tick {
        /// On which host.
        host: usize,
    },
    /// A process goes one step further with a channel.
    Deliver {
        /// Which process.
        process: usize,
        /// Which channel.
        channel: usize,
        /// What the channel answers, should this step send.
        answer: Answer,
    },
    /// A process ends, and another one starts.
    Crash {
        /// Which.
        process: usize,
    },
}

/// What a channel answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It took the message.
    Ok,
    /// It took the message, and the answer is lost.
    Lost,
    /// It did not take it, and nobody knows.
    Unknown,
    /// It cannot be reached.
    Away,
    /// Too fast.
    Limited,
    /// All channels of the vendor are held.
    Banned,
    /// Not this content.
    Refused,
    /// The message to amend is gone.
    NotAmendable,
    /// Nothing will arrive until somebody acts.
    Broken,
}

const TOPICS: usize = 4;
const CHANNELS: usize = 2;
const PROCESSES: usize = 4;
const WINDOW: Duration = Duration::from_secs(3600);
const LEEWAY: Duration = Duration::from_secs(1);

/// Random numbers with a seed (SplitMix64).
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % n as u64).unwrap_or(0)
    }

    fn in_hundred(&mut self, n: usize) -> bool {
        self.below(100) < n
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.roll()) << 64 | u128::from(self.roll())
    }
}

/// The schedule of a seed.
pub fn schedule(seed: u64) -> Vec<Step> {
    let mut dice = Dice(seed);
    let mut steps = Vec::new();
    let length = 40 + dice.below(120);
    while steps.len() < length {
        match dice.below(100) {
            0..=11 => steps.push(find(&mut dice)),
            12..=13 => steps.push(Step::Generalise { host: dice.below(2), topic: dice.below(TOPICS) }),
            14..=17 => steps.push(Step::Tick { host: dice.below(2) }),
            18..=27 => steps.push(Step::Wait(wait(&mut dice))),
            28..=31 => steps.push(Step::Crash { process: dice.below(PROCESSES) }),
            // Somebody gets on with it for a while.
            _ => {
                let (process, channel) = (dice.below(PROCESSES), dice.below(CHANNELS));
                for _ in 0..=dice.below(7) {
                    steps.push(Step::Deliver { process, channel, answer: answer(&mut dice) });
                }
            }
        }
    }
    steps
}

fn find(dice: &mut Dice) -> Step {
    let about = dice.below(TOPICS);
    Step::Find {
        host: dice.below(2),
        about,
        also: if dice.in_hundred(30) { dice.below(TOPICS) } else { about },
        severity: Severity::ALL[dice.below(4)],
        model: dice.in_hundred(25),
        digest: dice.in_hundred(8),
    }
}

fn wait(dice: &mut Dice) -> u32 {
    let (from, to) = match dice.below(10) {
        0..=2 => (1, 5),
        3..=4 => (10, 59),
        5..=6 => (61, 130),
        7 => (300, 1700),
        8 => (1800, 3500),
        _ => (3500, 7300),
    };
    u32::try_from(from + dice.below(to - from)).unwrap_or(0)
}

fn answer(dice: &mut Dice) -> Answer {
    match dice.below(200) {
        0..=9 => Answer::Lost,
        10..=17 => Answer::Unknown,
        18..=27 => Answer::Away,
        28..=35 => Answer::Limited,
        36..=37 => Answer::Banned,
        38..=43 => Answer::Refused,
        44..=47 => Answer::NotAmendable,
        48 => Answer::Broken,
        _ => Answer::Ok,
    }
}

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
    /// Crashes, stalls and lost answers that may each make one.
    pub excuses: u64,
    /// Messages that another host had told.
    pub repeats: u64,
    /// Incidents that merged.
    pub merges: u64,
    /// Reminders that were due.
    pub reminders: u64,
}

impl Tally {
    /// Adds another's numbers.
    pub fn add(&mut self, other: Self) {
        self.occurrences += other.occurrences;
        self.messages += other.messages;
        self.surplus += other.surplus;
        self.excuses += other.excuses;
        self.repeats += other.repeats;
        self.merges += other.merges;
        self.reminders += other.reminders;
    }
}

/// Runs a schedule.
///
/// # Errors
///
/// When a promise is broken.
pub fn run(rules: Rules, stores: &dyn Stores, seed: u64, steps: &[Step]) -> Result<Tally, Fault> {
    let mut world = World::new(rules, stores, seed);
    for step in steps {
        world.step(*step)?;
    }
    world.settle_down()?;
    world.check()
}

/// The shortest part of a schedule found that still goes wrong.
pub fn shrink(rules: Rules, stores: &dyn Stores, seed: u64, steps: &[Step]) -> (Vec<Step>, Option<Fault>) {
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

/// What a message says, noted when it was formed.
#[derive(Clone, Debug)]
struct Formed {
    /// Incidents, those that are part of them included, with the rank that it tells.
    covers: BTreeMap<IncidentId, Rank>,
}

#[derive(Clone, Debug)]
struct Telling {
    send: SendId,
    at: Timestamp,
    /// When it was reserved: from then on the store counts it as told (R6).
    reserved: Timestamp,
    /// Whether the deduplication store knows that it was told.
    known: bool,
    keys: Vec<(Key, Rank)>,
    covers: BTreeMap<IncidentId, Rank>,
}

#[derive(Clone, Debug)]
struct Occurrence {
    host: usize,
    at: Timestamp,
    /// Any of these incidents must be told.
    incidents: Vec<IncidentId>,
    rank: Rank,
    /// When it would be told again in any case.
    remind: Duration,
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
    /// Whether an excuse was counted for this turn.
    excused: bool,
    /// What the deduplication store knew to be told when it said that we speak.
    known: BTreeSet<usize>,
    /// When that was.
    reserved: Timestamp,
}

struct World {
    rules: Rules,
    env: FakeEnv,
    dice: Dice,
    policy: Policy,
    channels: Vec<Channel>,
    source: SourceId,
    ledgers: Vec<Arc<dyn Ledger>>,
    dedup: Arc<dyn DedupStore>,
    processes: Vec<ProcessId>,
    lanes: Vec<Vec<Lane>>,
    /// Per host the root that each topic has now.
    roots: Vec<[RootId; TOPICS]>,
    formed: BTreeMap<SendId, Formed>,
    /// When that happened which a message is about.
    events: BTreeMap<SendId, Timestamp>,
    tellings: Vec<Vec<Telling>>,
    occurrences: Vec<Occurrence>,
    merged: BTreeMap<IncidentId, IncidentId>,
    dead: BTreeMap<(IncidentId, usize), Timestamp>,
    surplus: Vec<Vec<String>>,
    excuses: Vec<u64>,
    tally: Tally,
}

impl World {
    fn new(rules: Rules, stores: &dyn Stores, seed: u64) -> Self {
        let env = FakeEnv::new(Timestamp::from_secs(1_795_000_000), seed);
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
            channels: channels.clone(),
            rollup_at: 3,
            ..Policy::default()
        };
        let mut dice = Dice(seed ^ 0x5eed);
        Self {
            rules,
            policy,
            channels,
            source: SourceId("source".into()),
            ledgers: (0..2).map(|host| stores.ledger(100 + host)).collect(),
            dedup: Arc::new(Weakened { inner: stores.dedup(&env), rules, env: env.clone() }),
            processes: (0..PROCESSES).map(|_| ProcessId(dice.wide())).collect(),
            lanes: (0..PROCESSES).map(|_| lanes()).collect(),
            roots: (0..2).map(|_| std::array::from_fn(|topic| leaf(topic).as_root())).collect(),
            env,
            dice,
            formed: BTreeMap::new(),
            events: BTreeMap::new(),
            tellings: vec![Vec::new(); CHANNELS],
            occurrences: Vec::new(),
            merged: BTreeMap::new(),
            dead: BTreeMap::new(),
            surplus: vec![Vec::new(); CHANNELS],
            excuses: vec![0; CHANNELS],
            tally: Tally::default(),
        }
    }

    fn now(&self) -> Timestamp {
        self.env.now()
    }

    fn step(&mut self, step: Step) -> Result<(), Fault> {
        match step {
            Step::Wait(seconds) => self.env.advance(Duration::from_secs(u64::from(seconds))),
            Step::Find { host, about, also, severity, model, digest } => {
                self.find(host, about, also, severity, model, digest)?;
                self.tick(host)?;
            }
            Step::Generalise { host, topic } => self.generalise(host, topic)?,
            Step::Tick { host } => self.tick(host)?,
            Step::Deliver { process, channel, answer } => self.deliver(process, channel, answer)?,
            Step::Crash { process } => self.crash(process),
        }
        Ok(())
    }

    fn read(&self, host: usize, query: &Query) -> Result<Snapshot, Fault> {
        block_on(self.ledgers[host].read(query)).map_err(|error| Fault::Store(format!("{error:?}")))
    }

    fn commit(&mut self, host: usize, mut writes: Vec<Write>) -> Result<bool, Fault> {
        if writes.is_empty() {
            return Ok(true);
        }
        if !self.rules.r2 {
            self.overwrite(host, &mut writes)?;
        }
        let commit = Commit { id: CommitId(self.dice.wide()), writes };
        let committed =
            block_on(self.ledgers[host].commit(&commit)).map_err(|error| Fault::Store(format!("{error:?}")))?;
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
                    if let (OutboxState::Dead { at, .. }, Some(channel)) = (&row.row.state, channel) {
                        self.dead.insert((row.row.incident, channel), *at);
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
        let now = self.read(host, &query)?;
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
        let snapshot = self.read(host, &Book::query(keys.to_vec()))?;
        let policy = self.policy.clone();
        let Some(mut book) = Book::open(&policy, &snapshot, self.source.clone(), self.now()) else {
            return Err(Fault::Store("no installation".into()));
        };
        decide(&mut book);
        let mut writes = book.close();
        if !self.rules.r1 {
            absorb_into_claimed(&snapshot, &mut writes);
        }
        match self.commit(host, writes)? {
            true => Ok(()),
            false => Err(Fault::Store("a commit on a fresh snapshot conflicts".into())),
        }
    }

    fn find(
        &mut self,
        host: usize,
        about: usize,
        also: usize,
        severity: Severity,
        model: bool,
        digest: bool,
    ) -> Result<(), Fault> {
        let now = self.now();
        let topics = if about == also { vec![about] } else { vec![about, also] };
        let cited: Vec<_> = topics
            .iter()
            .map(|topic| Cited {
                scope: scope(),
                leaf: Some(leaf(*topic)),
                root: self.roots[host][*topic],
                template: format!("topic {topic} <*>").into(),
                anomalous: true,
            })
            .collect();
        let finding = Grounded {
            by: if model { By::Model { name: "model".into() } } else { By::Rule { id: "rule".into() } },
            profile: ProfileName::general(),
            category: Category::Service,
            severity,
            route: if digest { Route::Digest } else { Route::Alert },
            title: "title".into(),
            explanation: "explanation".into(),
            recommendation: String::new(),
            cited,
            evidence: Vec::new(),
            entities: Vec::new(),
            query: None,
            score: 1.0,
            count: 1,
            first: now,
            last: now,
        };
        let keys = finding.keys();
        self.with_book(host, &keys, |book| {
            // What a model speaks of was counted when it was ingested.
            for cited in finding.cited.iter().filter(|_| model) {
                book.occurred(&cited.scope, leaf(0), cited.root, 1, now, now);
            }
            book.take(&finding);
        })?;
        if digest {
            return Ok(());
        }
        let snapshot = self.read(host, &Book::query(keys))?;
        let owner = |key: &Key, soft: bool| {
            let owner = snapshot.keys.iter().find(|owner| owner.row.key == *key && (soft || !owner.row.soft))?;
            let mut id = owner.row.incident;
            while let Status::Merged { into } = snapshot.incidents.get(&id)?.row.status {
                id = into;
            }
            (snapshot.incidents.get(&id)?.row.status == Status::Firing).then_some(id)
        };
        let all: Vec<Key> = finding.cited.iter().flat_map(Cited::keys).collect();
        let hard: BTreeSet<_> = all.iter().filter_map(|key| owner(key, false)).collect();
        let occurrence = |incidents: Vec<IncidentId>, detector: bool| Occurrence {
            host,
            at: now,
            incidents,
            rank: Rank { detector, severity },
            remind: self.policy.remind_after(severity),
        };
        let new: Vec<_> = if !model {
            vec![occurrence(owner(&all[0], false).into_iter().collect(), true)]
        } else if !hard.is_empty() {
            // A model's finding that concerns a listed incident raises it in the list only.
            let told = |id: &IncidentId| snapshot.incidents[id].row.route == Route::Alert;
            hard.into_iter().filter(told).map(|id| occurrence(vec![id], true)).collect()
        } else {
            let soft: BTreeSet<_> = all.iter().filter_map(|key| owner(key, true)).collect();
            vec![occurrence(soft.into_iter().collect(), false)]
        };
        self.occurrences.extend(new);
        Ok(())
    }

    fn generalise(&mut self, host: usize, topic: usize) -> Result<(), Fault> {
        // Topics 0 and 1 have one root above them, 2 and 3 another.
        let pair = topic / 2 * 2;
        let to = RootId::of(&[b"above", &pair.to_le_bytes()]);
        let mut moves = Vec::new();
        for topic in [pair, pair + 1] {
            let from = self.roots[host][topic];
            if from != to {
                moves.push(Move { leaf: leaf(topic), from: Some(from), to });
            }
        }
        if moves.is_empty() {
            return Ok(());
        }
        let open = self.read(host, &Query { incidents: Incidents::Firing, ..Query::default() })?;
        let keys: Vec<_> = Book::moved_keys(&open, &moves).into_iter().collect();
        self.with_book(host, &keys, |book| book.moved(&moves, &keys))?;
        self.roots[host][pair] = to;
        self.roots[host][pair + 1] = to;
        Ok(())
    }

    fn tick(&mut self, host: usize) -> Result<(), Fault> {
        let snapshot = self.read(host, &Book::query(Vec::new()))?;
        let now = self.now();
        let mut writes = lifecycle::tick(&self.policy, &snapshot, &self.source, Some(now), now);
        if !self.rules.r1 {
            absorb_into_claimed(&snapshot, &mut writes);
        }
        match self.commit(host, writes)? {
            true => Ok(()),
            false => Err(Fault::Store("a commit on a fresh snapshot conflicts".into())),
        }
    }

    fn crash(&mut self, process: usize) {
        self.processes[process] = ProcessId(self.dice.wide());
        for (channel, lane) in std::mem::replace(&mut self.lanes[process], lanes()).into_iter().enumerate() {
            let unsettled = match &lane.stage {
                Stage::Sent(turn, Ok(_)) => turn.sending.row.asks_dedup || turn.sending.row.amend.is_none(),
                Stage::Over(turn, Ended::Delivered(_)) => !turn.sending.row.asks_dedup,
                _ => false,
            };
            if unsettled && !lane.excused {
                self.excuses[channel] += 1;
            }
        }
    }

    fn deliver(&mut self, process: usize, number: usize, answer: Answer) -> Result<(), Fault> {
        let host = process / 2;
        let stage = std::mem::replace(&mut self.lanes[process][number].stage, Stage::Idle);
        let next = match stage {
            Stage::Idle => {
                self.lanes[process][number].excused = false;
                self.plan(process, number)?
            }
            Stage::Planned(mut turn) => {
                let writes = std::mem::take(&mut turn.writes);
                if self.commit(host, writes)? { Stage::Claimed(turn) } else { Stage::Idle }
            }
            Stage::Claimed(turn) => {
                let known = self.tellings[number].iter().enumerate().filter(|(_, told)| told.known);
                self.lanes[process][number].known = known.map(|(at, _)| at).collect();
                self.lanes[process][number].reserved = self.now();
                self.reserve(turn)?
            }
            Stage::Reserved(turn) if !self.rules.sends_before_marking => {
                let receipt = Receipt("early".into());
                self.settle_dedup(&turn, &Ok(receipt.clone()))?;
                self.settle_ledger(host, number, &turn, &Ended::Delivered(receipt))?;
                Stage::Marked(turn)
            }
            Stage::Marked(turn) => {
                let _ = self.send(process, number, &turn, answer);
                Stage::Idle
            }
            Stage::Reserved(turn) => {
                let sent = self.send(process, number, &turn, answer);
                Stage::Sent(turn, sent)
            }
            Stage::Sent(turn, sent) => {
                if turn.sending.row.asks_dedup {
                    self.excuse_lateness(process, number, &turn, sent.is_ok());
                    self.settle_dedup(&turn, &sent)?;
                }
                let ended = match sent {
                    Ok(receipt) => Ended::Delivered(receipt),
                    Err(answer) => Ended::Failed(error(&self.channels[number].name, answer)),
                };
                Stage::Over(turn, ended)
            }
            Stage::Over(turn, ended) => {
                let delivered = matches!(ended, Ended::Delivered(_)) && !turn.sending.row.asks_dedup;
                self.excuse_lateness(process, number, &turn, delivered);
                self.settle_ledger(host, number, &turn, &ended)?;
                Stage::Idle
            }
        };
        self.lanes[process][number].stage = next;
        Ok(())
    }

    fn plan(&mut self, process: usize, number: usize) -> Result<Stage, Fault> {
        let host = process / 2;
        let channel = self.channels[number].clone();
        let snapshot = self.read(host, &deliver::query(&channel.name))?;
        let random = self.dice.wide();
        match deliver::next(&self.policy, &snapshot, &channel, self.processes[process], self.now(), random) {
            Next::Nothing { writes, .. } => {
                self.commit(host, writes)?;
                Ok(Stage::Idle)
            }
            Next::Send(mut turn) => {
                let id = turn.sending.row.id;
                self.events.insert(id, turn.at.minus(turn.age));
                if !self.rules.r6 {
                    turn.age = Duration::ZERO;
                }
                if !self.formed.contains_key(&id) {
                    let formed = self.formed(&snapshot, &turn);
                    self.formed.insert(id, formed);
                }
                Ok(Stage::Planned(turn))
            }
        }
    }

    fn formed(&self, snapshot: &Snapshot, turn: &Turn) -> Formed {
        let mut covers = BTreeMap::new();
        for row in &turn.rows {
            let Some(incident) = snapshot.incidents.get(&row.row.incident) else { continue };
            covers.insert(row.row.incident, incident.row.rank);
            for ended in self.merged.keys().filter(|id| self.survivor(**id) == row.row.incident) {
                covers.insert(*ended, incident.row.rank);
            }
        }
        Formed { covers }
    }

    fn survivor(&self, mut id: IncidentId) -> IncidentId {
        while let Some(into) = self.merged.get(&id) {
            id = *into;
        }
        id
    }

    fn reserve(&mut self, turn: Box<Turn>) -> Result<Stage, Fault> {
        if !turn.sending.row.asks_dedup {
            return Ok(Stage::Reserved(turn));
        }
        let standing = block_on(self.dedup.reserve(&self.claim(&turn)));
        let standing = standing.map_err(|error| Fault::Store(format!("{error:?}")))?;
        Ok(match standing {
            Standing::First => Stage::Reserved(turn),
            Standing::Delivered { receipt } => Stage::Over(turn, Ended::Delivered(receipt)),
            Standing::Repeat { receipt } => Stage::Over(turn, Ended::Repeat(receipt)),
            Standing::Pending { wait } => Stage::Over(turn, Ended::Wait(wait)),
        })
    }

    fn claim<'t>(&self, turn: &'t Turn) -> Claim<'t> {
        let sending = &turn.sending.row;
        Claim {
            id: sending.id,
            epoch: turn.sending.version,
            channel: self.policy.channel(&sending.channel).map_or(ChannelHash(0), |channel| channel.destination),
            keys: &sending.keys,
            age: turn.age,
            window: sending.window,
            lease: turn.lease,
        }
    }

    fn send(&mut self, process: usize, number: usize, turn: &Turn, answer: Answer) -> Result<Receipt, Answer> {
        let sending = &turn.sending.row;
        let taken = matches!(answer, Answer::Ok | Answer::Lost);
        self.excuse_lateness(process, number, turn, taken);
        if taken {
            self.arrived(process, number, turn);
            if answer == Answer::Lost && (sending.asks_dedup || sending.amend.is_none()) {
                self.excuses[number] += 1;
            }
        }
        match answer {
            Answer::Ok => Ok(sending.amend.clone().unwrap_or(Receipt(format!("{:032x}", sending.id.0)))),
            Answer::NotAmendable if sending.amend.is_none() => Err(Answer::Away),
            answer => Err(answer),
        }
    }

    /// A message arrives at the people who read the channel.
    ///
    /// A message too many is one that the channel had already, or that says nothing but what the deduplication store knew
    /// to be told. (What another host says about a part of a message whose fate is unknown is none: nobody could know.)
    fn arrived(&mut self, process: usize, number: usize, turn: &Turn) {
        let (now, sending) = (self.now(), &turn.sending.row);
        self.tally.messages += 1;
        if sending.amend.is_some() {
            return; // nobody is disturbed by an edit
        }
        let before = &self.tellings[number];
        let again = before.iter().any(|told| told.send == sending.id);
        let since = now.minus(now.since(turn.at) + turn.age).minus(sending.window);
        let told = |key: &Key, rank: &Rank| {
            let known = &self.lanes[process][number].known;
            let mut before = known.iter().filter_map(|at| before.get(*at)).filter(|told| told.reserved >= since);
            before.any(|told| told.keys.iter().any(|(k, r)| k == key && r >= rank))
        };
        if again || (sending.asks_dedup && sending.keys.iter().all(|(key, rank)| told(key, rank))) {
            let why = if again { "again" } else { "told by another" };
            self.surplus[number].push(format!("{} {why}", sending.id.0 % 10_000));
        }
        let covers = self.formed.get(&sending.id).map(|formed| formed.covers.clone()).unwrap_or_default();
        let (send, keys, reserved) = (sending.id, sending.keys.clone(), self.lanes[process][number].reserved);
        let covers = if sending.asks_dedup { covers } else { BTreeMap::new() };
        let keys = if sending.asks_dedup { keys } else { Vec::new() };
        self.tellings[number].push(Telling { send, at: now, reserved, known: false, keys, covers });
    }

    /// Somebody else has told a message, the store says: if so, that counts as if we had.
    fn repeated(&mut self, number: usize, turn: &Turn) {
        let sending = &turn.sending.row;
        let event = self.events.get(&sending.id).copied().unwrap_or(turn.at);
        let since = event.minus(sending.window).minus(LEEWAY);
        let told = |key: &Key, rank: &Rank| {
            let mut told = self.tellings[number].iter().filter(|told| told.at >= since);
            told.any(|told| told.keys.iter().any(|(k, r)| k == key && r >= rank))
        };
        if sending.keys.iter().all(|(key, rank)| told(key, rank)) {
            let covers = self.formed.get(&sending.id).map(|formed| formed.covers.clone()).unwrap_or_default();
            let telling =
                Telling { send: sending.id, at: event, reserved: event, known: false, keys: Vec::new(), covers };
            self.tellings[number].push(telling);
        }
    }

    /// Whoever is slower than his lease may be overtaken: that excuses one message.
    fn excuse_lateness(&mut self, process: usize, number: usize, turn: &Turn, taken: bool) {
        let late = self.now() >= turn.at.plus(turn.lease);
        let edit = turn.sending.row.amend.is_some();
        let lane = &mut self.lanes[process][number];
        if late && taken && !edit && !lane.excused {
            lane.excused = true;
            self.excuses[number] += 1;
        }
    }

    fn settle_dedup(&mut self, turn: &Turn, sent: &Result<Receipt, Answer>) -> Result<(), Fault> {
        let outcome = match sent {
            Ok(receipt) => Outcome::Delivered { receipt: receipt.clone() },
            Err(_) => Outcome::Failed,
        };
        // After the lease somebody else may have the claim, and the store takes no notice.
        if sent.is_ok() && self.now() < turn.at.plus(turn.lease) {
            let number = self.channels.iter().position(|channel| channel.name == turn.sending.row.channel);
            let told = number.and_then(|number| {
                self.tellings[number].iter_mut().rev().find(|told| told.send == turn.sending.row.id)
            });
            told.into_iter().for_each(|told| told.known = true);
        }
        block_on(self.dedup.settle(&self.claim(turn), &outcome)).map_err(|error| Fault::Store(format!("{error:?}")))
    }

    fn settle_ledger(&mut self, host: usize, number: usize, turn: &Turn, ended: &Ended) -> Result<(), Fault> {
        let snapshot = self.read(host, &deliver::query(&self.channels[number].name))?;
        let same = |known: &&Versioned<_>| {
            let known: &Versioned<logwarden_core::ledger::Sending> = known;
            known.row.id == turn.sending.row.id
        };
        let known = snapshot.sendings.iter().find(same);
        if known.is_none_or(|known| known.version != turn.sending.version && self.rules.r2) {
            return Ok(()); // somebody else has it now
        }
        let random = self.dice.roll();
        let writes = deliver::settle(&self.policy, &snapshot, turn, ended, self.now(), random);
        if !self.commit(host, writes)? && self.rules.r1 {
            return Err(Fault::Store("what is claimed was changed by somebody else".into()));
        }
        if let Ended::Repeat(_) = ended {
            self.repeated(number, turn);
        }
        if let Ended::Failed(NotifyError::Banned { retry_after, .. }) = ended {
            let snapshot = self.read(host, &deliver::query(&self.channels[number].name))?;
            let until = self.now().plus(*retry_after);
            let writes = deliver::hold_vendor(&snapshot, &self.policy, self.channels[number].vendor, until);
            self.commit(host, writes)?;
        }
        Ok(())
    }

    /// Nothing new happens, all channels answer, and everybody works until nothing is left to do.
    fn settle_down(&mut self) -> Result<(), Fault> {
        for round in 0..24 {
            self.env.advance(Duration::from_secs(65));
            for host in 0..2 {
                self.tick(host)?;
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
                self.env.advance(Duration::from_secs(2));
            }
            if round > 1 && !self.anything_open()? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn anything_open(&self) -> Result<bool, Fault> {
        for host in 0..2 {
            let snapshot = self.read(host, &Query { outbox: Outbox::Open, ..Query::default() })?;
            if !snapshot.outbox.is_empty() {
                return Ok(true);
            }
        }
        let busy = |lane: &Lane| !matches!(lane.stage, Stage::Idle);
        Ok(self.lanes.iter().flatten().any(busy))
    }

    fn check(mut self) -> Result<Tally, Fault> {
        self.tally.occurrences = self.occurrences.len() as u64;
        for host in 0..2 {
            let all = Query { outbox: Outbox::Open, channels: true, ..Query::default() };
            let open = self.read(host, &all)?;
            for (number, channel) in self.channels.iter().enumerate() {
                let state = open.channels.iter().find(|state| state.row.name == channel.name);
                let broken = state.is_some_and(|state| state.row.broken.is_some());
                let held = state.is_some_and(|state| state.row.hold_until > self.now());
                let waiting: Vec<_> = open.outbox.iter().filter(|row| row.row.channel == channel.name).collect();
                if let Some(row) = waiting.first()
                    && !broken
                    && !held
                {
                    return Err(Fault::Stuck(format!("host {host}, {}: {:?}", channel.name, row.row)));
                }
                let waiting: BTreeSet<_> = waiting.iter().map(|row| self.survivor(row.row.incident)).collect();
                for occurrence in self.occurrences.iter().filter(|o| o.host == host) {
                    self.check_told(occurrence, number, &waiting)?;
                }
            }
        }
        for (number, surplus) in self.surplus.iter().enumerate() {
            self.tally.surplus += surplus.len() as u64;
            self.tally.excuses += self.excuses[number];
            if surplus.len() as u64 > self.excuses[number] {
                let (name, excuses) = (&self.channels[number].name, self.excuses[number]);
                return Err(Fault::Surplus(format!("{name}: {excuses} excuses for {surplus:?}")));
            }
        }
        Ok(self.tally)
    }

    fn check_told(&self, occurrence: &Occurrence, number: usize, waiting: &BTreeSet<IncidentId>) -> Result<(), Fault> {
        let channel = &self.channels[number];
        if occurrence.rank.severity < channel.min_severity {
            return Ok(());
        }
        let since = |span: Duration| occurrence.at.minus(span).minus(LEEWAY);
        let loud = |rank: &Rank| *rank >= occurrence.rank;
        let own = |id: &IncidentId| {
            self.tellings[number]
                .iter()
                .any(|told| told.at >= since(occurrence.remind) && told.covers.get(id).is_some_and(loud))
        };
        let excused = |id: &IncidentId| {
            let survivor = self.survivor(*id);
            let dead = |id| self.dead.get(&(id, number)).is_some_and(|at| *at >= occurrence.at);
            waiting.contains(&survivor) || dead(*id) || dead(survivor)
        };
        if occurrence.incidents.iter().any(own) || occurrence.incidents.iter().any(excused) {
            return Ok(());
        }
        let at = occurrence.at.secs() - 1_795_000_000;
        Err(Fault::Lost(format!(
            "host {}, {}: {:?} at {at} s, {:?}",
            occurrence.host, channel.name, occurrence.rank, occurrence.incidents
        )))
    }
}

fn lanes() -> Vec<Lane> {
    (0..CHANNELS)
        .map(|_| Lane { stage: Stage::Idle, excused: false, known: BTreeSet::new(), reserved: Timestamp::MIN })
        .collect()
}

fn scope() -> Scope {
    Scope { tenant: "".into(), origin: Arc::new(Origin { host: "web-1".into(), service: "app".into() }) }
}

fn leaf(topic: usize) -> LeafId {
    LeafId::of(&[b"topic", &topic.to_le_bytes()])
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

/// Without R1: an event goes into an open row of its incident and channel even when that is being sent.
fn absorb_into_claimed(snapshot: &Snapshot, writes: &mut [Write]) {
    for write in writes.iter_mut() {
        let Write::Outbox(row) = write else { continue };
        let claimed = snapshot.outbox.iter().find(|known| {
            row.version == 0
                && known.row.incident == row.row.incident
                && known.row.channel == row.row.channel
                && known.row.send.is_some()
                && known.row.state.is_open()
        });
        if let Some(claimed) = claimed {
            let mut claimed = claimed.clone();
            claimed.row.seq = row.row.seq;
            *row = claimed;
        }
    }
}

/// A deduplication store without some of the rules.
#[derive(Debug)]
struct Weakened {
    inner: Arc<dyn DedupStore>,
    rules: Rules,
    env: FakeEnv,
}

const FLAT: Rank = Rank { detector: true, severity: Severity::Low };

#[async_trait]
impl DedupStore for Weakened {
    async fn reserve(&self, claim: &Claim<'_>) -> Result<Standing, DedupError> {
        let mut keys = claim.keys.to_vec();
        if !self.rules.r5 {
            keys.iter_mut().for_each(|(_, rank)| *rank = FLAT);
        }
        let mut claim = Claim { keys: &keys, ..claim.clone() };
        if !self.rules.r6 {
            claim.age = Duration::ZERO;
            claim.window = WINDOW;
        }
        if !self.rules.r4 {
            for key in &keys {
                let probe = SendId(u128::from(self.env.random()));
                let one = Claim { id: probe, keys: std::slice::from_ref(key), lease: Duration::ZERO, ..claim.clone() };
                if let repeat @ Standing::Repeat { .. } = self.inner.reserve(&one).await? {
                    return Ok(repeat);
                }
            }
        }
        self.inner.reserve(&claim).await
    }

    async fn settle(&self, claim: &Claim<'_>, outcome: &Outcome) -> Result<(), DedupError> {
        self.inner.settle(claim, outcome).await
    }
}
