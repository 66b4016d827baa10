//! What happens, in which order: made of a seed.

use logwarden_core::{Severity, testing::Dice};

/// Hosts that share one deduplication store, each with a ledger.
pub(super) const HOSTS: usize = 2;
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
/// where reminders and late events meet what another host has told.
pub fn schedule(seed: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let windows = dice.below(5) < 2;
    let mut steps = Vec::new();
    let length = 40 + below(&mut dice, 120);
    while steps.len() < length {
        let host = below(&mut dice, HOSTS);
        match (windows, dice.below(100)) {
            (false, 0..=11) => steps.push(Step::Find(find(&mut dice, TOPICS, SCOPES))),
            (false, 12..=15) => steps.push(Step::Generalise { host, topic: below(&mut dice, TOPICS) }),
            (false, 16..=18) => steps.push(Step::Tick { host }),
            (false, 19..=27) => steps.push(Step::Wait(wait(&mut dice))),
            (false, 28..=31) => steps.push(Step::Crash { process: below(&mut dice, PROCESSES) }),
            (false, 32..=33) => {
                let (scope, topic) = (below(&mut dice, SCOPES), below(&mut dice, TOPICS));
                steps.push(Step::Occur { host, scope, topic });
            }
            (false, 34) => {
                let seconds = if dice.below(2) == 0 { 0 } else { wait(&mut dice) };
                steps.push(Step::Mute { host, scope: below(&mut dice, SCOPES), seconds });
            }
            (false, 35) => steps.push(Step::Release { host }),
            (true, 0..=9) => steps.push(Step::Find(find(&mut dice, 2, 1))),
            (true, 10..=21) => steps.push(Step::Occur { host, scope: 0, topic: below(&mut dice, 2) }),
            (true, 22..=27) => steps.push(Step::Tick { host }),
            (true, 28..=44) => steps.push(Step::Wait(window(&mut dice))),
            (true, 45) => steps.push(Step::Crash { process: below(&mut dice, PROCESSES) }),
            // Somebody gets on with it for a while.
            _ => {
                let (process, channel) = (below(&mut dice, PROCESSES), below(&mut dice, CHANNELS));
                for _ in 0..=dice.below(7) {
                    steps.push(Step::Deliver { process, channel, answer: answer(&mut dice) });
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
