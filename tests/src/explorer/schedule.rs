//! What happens, in which order: made of a seed.

use logwarden_core::{Severity, testing::Dice};

/// Hosts that share one deduplication store, each with a ledger.
pub(super) const HOSTS: usize = 2;
/// The clock of the deduplication store, beside those of the hosts.
pub(super) const STORE: usize = HOSTS;
/// Processes, two of each host.
pub(super) const PROCESSES: usize = 2 * HOSTS;
/// Machines whose logs every host reads.
pub(super) const SCOPES: usize = 2;
/// Templates in those logs.
pub(super) const TOPICS: usize = 4;
/// Channels: one that edits, one that cannot.
pub(super) const CHANNELS: usize = 2;

/// What happens next. What does not apply where the world stands happens without effect, so that any part of a schedule
/// is a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time passes.
    Wait(u32),
    /// A host finds something.
    Find(Find),
    /// A template occurs of which nobody claims anything.
    Occur {
        /// On which host.
        host: usize,
        /// On which machine.
        scope: usize,
        /// Which one.
        topic: usize,
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
    /// What waited for the model waits no longer.
    Release {
        /// On which host.
        host: usize,
    },
    /// A machine is muted, or no longer.
    Mute {
        /// On which host.
        host: usize,
        /// Which machine.
        scope: usize,
        /// For so many seconds; 0 ends it.
        seconds: u32,
    },
    /// A shipper sends a batch to a process, again and again until it is told that it was taken.
    Push {
        /// What is in the batch.
        find: Find,
        /// Which of the host's two processes takes it first.
        process: usize,
        /// What becomes of the first attempts.
        ends: [Push; 2],
    },
    /// A store fails a process the next time that it is asked for this.
    Fail {
        /// Which process.
        process: usize,
        /// What it is asked for then.
        what: Ask,
        /// Whether it was done all the same.
        done: bool,
    },
    /// A process goes one step further with what was pushed.
    Fold {
        /// Which process.
        process: usize,
    },
    /// A process goes one step further with what waits for the model.
    Judge {
        /// Which process.
        process: usize,
        /// What the model says, should this step settle it.
        opinion: Opinion,
    },
    /// A clock is set: by so many seconds forward, or back.
    Jump {
        /// That of which host, or after the last host the deduplication store's.
        clock: usize,
        /// How far.
        seconds: i32,
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
    /// A process that knows that the one before it is gone goes one step further with freeing what that one held.
    TakeOver {
        /// Which.
        process: usize,
        /// Which channel.
        channel: usize,
    },
}

/// What becomes of an attempt to push a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// It is on disk, and the shipper is told so.
    Taken,
    /// It is on disk, and the answer is lost.
    Unheard,
    /// The process ends before it is on disk.
    Lost,
}

/// What a model says about what was folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// Nothing is wrong.
    Benign,
    /// What the detectors have found is this bad.
    Finds(Severity),
    /// The same, and of other rows it knows nothing.
    Partly(Severity),
    /// It cannot be reached.
    Away,
    /// Nothing that can be used.
    Nonsense,
}

/// A finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Find {
    /// Which host finds it.
    pub host: usize,
    /// On which machine.
    pub scope: usize,
    /// What it is about.
    pub about: usize,
    /// What else it cites; the same for nothing else.
    pub also: usize,
    /// What tells it apart; 0 for nothing.
    pub mark: u8,
    /// How bad.
    pub severity: Severity,
    /// Whether only a model says so.
    pub model: bool,
    /// Whether it is listed, not sent.
    pub digest: bool,
}

impl Find {
    /// What it cites.
    pub(super) fn topics(&self) -> Vec<usize> {
        if self.about == self.also { vec![self.about] } else { vec![self.about, self.also] }
    }
}

/// What a process asks a store for while it delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The ledger, to claim a message (D1), or to note how it ended (D5).
    Commit,
    /// The deduplication store, whether to speak (D2).
    Reserve,
    /// The deduplication store, to note how it ended (D4).
    Settle,
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

/// The schedule of a seed: in three of five anything goes, in the others few things happen around the ends of windows,
/// where reminders and late events meet what another host has told. In one of five of either a clock is set.
pub fn schedule(seed: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let windows = dice.below(5) < 2;
    let mut steps = everything(&mut dice, windows);
    if dice.below(5) == 0 {
        for _ in 0..=dice.below(2) {
            let at = below(&mut dice, steps.len());
            let jump = Step::Jump { clock: below(&mut dice, HOSTS), seconds: how_far(&mut dice) };
            steps.insert(at, jump);
        }
    }
    let steps = beside(&mut Dice::new(seed ^ 0xbe51de), steps);
    failing(&mut Dice::new(seed ^ 0xfa11), steps)
}

/// In one of six schedules stores fail now and then.
fn failing(dice: &mut Dice, steps: Vec<Step>) -> Vec<Step> {
    if dice.below(6) > 0 {
        return steps;
    }
    let mut all = Vec::with_capacity(steps.len() * 2);
    for step in steps {
        if let Step::Deliver { process, .. } = step
            && dice.below(20) == 0
        {
            let what = [Ask::Commit, Ask::Reserve, Ask::Settle][below(dice, 3)];
            all.push(Step::Fail { process, what, done: dice.below(2) == 0 });
        }
        all.push(step);
    }
    all
}

/// Puts between the steps what follows from them: after a crash somebody may take over, what was folded is judged; and in
/// one of twelve schedules the deduplication store's clock is set.
fn beside(dice: &mut Dice, steps: Vec<Step>) -> Vec<Step> {
    let mut all = Vec::with_capacity(steps.len() * 2);
    for step in steps {
        all.push(step);
        match step {
            Step::Crash { process } if dice.below(3) == 0 => {
                for channel in 0..CHANNELS {
                    all.extend((0..=dice.below(2)).map(|_| Step::TakeOver { process, channel }));
                }
            }
            Step::Deliver { process, channel, .. } if dice.below(60) == 0 => {
                all.push(Step::TakeOver { process, channel })
            }
            Step::Fold { process } if dice.below(2) == 0 => all.push(Step::Judge { process, opinion: opinion(dice) }),
            Step::Wait(_) if dice.below(4) == 0 => {
                let process = below(dice, PROCESSES);
                all.extend((0..=dice.below(2)).map(|_| Step::Judge { process, opinion: opinion(dice) }));
            }
            _ => {}
        }
    }
    if dice.below(12) == 0 {
        let at = below(dice, all.len());
        all.insert(at, Step::Jump { clock: STORE, seconds: how_far(dice) });
    }
    all
}

fn everything(dice: &mut Dice, windows: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let length = 40 + below(dice, 120);
    while steps.len() < length {
        let host = below(dice, HOSTS);
        match (windows, dice.below(100)) {
            (false, 0..=11) => steps.push(Step::Find(find(dice, TOPICS, SCOPES))),
            (false, 12..=15) => steps.push(Step::Generalise { host, topic: below(dice, TOPICS) }),
            (false, 16..=18) => steps.push(Step::Tick { host }),
            (false, 19..=27) => steps.push(Step::Wait(wait(dice))),
            (false, 28..=31) => steps.push(Step::Crash { process: below(dice, PROCESSES) }),
            (false, 32..=33) => {
                let (scope, topic) = (below(dice, SCOPES), below(dice, TOPICS));
                steps.push(Step::Occur { host, scope, topic });
            }
            (false, 34) => {
                let seconds = if dice.below(2) == 0 { 0 } else { wait(dice) };
                steps.push(Step::Mute { host, scope: below(dice, SCOPES), seconds });
            }
            (false, 35) => steps.push(Step::Release { host }),
            (false, 36..=37) => {
                let ends = [push(dice), push(dice)];
                let find = Find { model: false, ..find(dice, TOPICS, SCOPES) };
                steps.push(Step::Push { find, process: below(dice, 2), ends });
            }
            (false, 38..=42) => {
                let process = below(dice, PROCESSES);
                for _ in 0..=dice.below(4) {
                    steps.push(Step::Fold { process });
                }
            }
            (true, 0..=9) => steps.push(Step::Find(find(dice, 2, 1))),
            (true, 10..=21) => steps.push(Step::Occur { host, scope: 0, topic: below(dice, 2) }),
            (true, 22..=27) => steps.push(Step::Tick { host }),
            (true, 28..=44) => steps.push(Step::Wait(window(dice))),
            (true, 45) => steps.push(Step::Crash { process: below(dice, PROCESSES) }),
            // Somebody gets on with it for a while.
            _ => {
                let (process, channel) = (below(dice, PROCESSES), below(dice, CHANNELS));
                for _ in 0..=dice.below(7) {
                    steps.push(Step::Deliver { process, channel, answer: answer(dice) });
                }
            }
        }
    }
    steps
}

fn below(dice: &mut Dice, n: usize) -> usize {
    usize::try_from(dice.below(n as u64)).unwrap_or(0)
}

fn find(dice: &mut Dice, topics: usize, scopes: usize) -> Find {
    let about = below(dice, topics);
    Find {
        host: below(dice, HOSTS),
        scope: below(dice, scopes),
        about,
        also: if dice.below(100) < 30 { below(dice, topics) } else { about },
        mark: if dice.below(100) < 30 { 1 + u8::try_from(dice.below(2)).unwrap_or(0) } else { 0 },
        severity: Severity::ALL[below(dice, 4)],
        model: dice.below(100) < 25,
        digest: dice.below(100) < 8,
    }
}

fn how_far(dice: &mut Dice) -> i32 {
    [-6 * 3600, -7000, -3700, -1800, -240, 240, 1800, 3700, 7000, 6 * 3600][below(dice, 10)]
}

fn opinion(dice: &mut Dice) -> Opinion {
    let severity = Severity::ALL[below(dice, 4)];
    match dice.below(8) {
        0..=1 => Opinion::Benign,
        2..=4 => Opinion::Finds(severity),
        5 => Opinion::Partly(severity),
        6 => Opinion::Away,
        _ => Opinion::Nonsense,
    }
}

fn push(dice: &mut Dice) -> Push {
    [Push::Taken, Push::Taken, Push::Unheard, Push::Lost][below(dice, 4)]
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

fn window(dice: &mut Dice) -> u32 {
    let (from, to) = match dice.below(10) {
        0..=2 => (1, 20),
        3..=4 => (20, 70),
        5..=6 => (600, 1750),
        7 => (1750, 1850),
        _ => (3540, 3660),
    };
    u32::try_from(from + dice.below(to - from)).unwrap_or(0)
}

fn answer(dice: &mut Dice) -> Answer {
    match dice.below(400) {
        0..=19 => Answer::Lost,
        20..=35 => Answer::Unknown,
        36..=55 => Answer::Away,
        56..=71 => Answer::Limited,
        72..=75 => Answer::Banned,
        76..=87 => Answer::Refused,
        88..=99 => Answer::NotAmendable,
        100 => Answer::Broken,
        _ => Answer::Ok,
    }
}
