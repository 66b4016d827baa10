//! The decisions: pure functions from a snapshot to a commit.
//!
//! | question | answered in |
//! |---|---|
//! | which incident does a finding belong to? | [`book`] |
//! | what does one ingest change? | [`ingest`] |
//! | which job next, and what does its answer change? | [`judge`] |
//! | what has become quiet, what needs a reminder? | [`lifecycle`] |
//! | which message next, and what does the channel's answer change? | [`deliver`] |
//! | what is held back? | [`mutes`], and the day's [`budget`] |
//! | what is summed up? | [`summary`] |
//! | what does a human read? | [`view`] |
//!
//! None of them waits, reads a clock or throws dice: time and random numbers are arguments. On a conflict one reads again
//! and decides again. Unstable until 1.0.

use std::{fmt, sync::Arc, time::Duration};

use logwarden_detectors::Severity;

use crate::{Timestamp, memory_dedup::CLOCK_TOLERANCE, notifier::Channel};

pub mod book;
pub mod budget;
pub mod deliver;
pub mod ingest;
pub mod judge;
pub mod lifecycle;
pub mod mutes;
pub mod summary;
pub mod view;

/// How long ago something happened by the wall clock. What is further in the future than clocks may differ happened before
/// the clock was set back, and counts as long ago: a jump of the clock may repeat a message, never swallow one.
pub(crate) fn ago(now: Timestamp, then: Timestamp) -> Duration {
    if then > now.plus(CLOCK_TOLERANCE) { Duration::MAX } else { now.since(then) }
}

/// Makes a link to a query and a time, such as Grafana Explore.
pub type Links = Arc<dyn Fn(&str, Timestamp, Timestamp) -> Option<String> + Send + Sync>;

/// What the decisions may be tuned by.
#[derive(Clone)]
pub struct Policy {
    /// How long an incident counts as the same: nothing for that long and it is quiet (`DEDUP_WINDOW`).
    pub window: Duration,
    /// A critical or high incident that goes on reminds after this.
    pub remind_urgent: Duration,
    /// Any other that goes on reminds after this.
    pub remind_other: Duration,
    /// Medium and low findings wait this long for a model's words; zero where there is no model.
    pub explain_wait: Duration,
    /// Segments wait this long for others, to be judged together, unless a detector found something new in them.
    pub judge_window: Duration,
    /// From so many lines on they wait no longer.
    pub judge_lines: u64,
    /// Where messages go.
    pub channels: Vec<Channel>,
    /// From so many messages on that wait for one channel they become one rollup.
    pub rollup_at: usize,
    /// Attempts to deliver end after this: for critical, high, and the others.
    pub give_up: [Duration; 3],
    /// Jobs that have waited longer than this are shed.
    pub shed_after: Duration,
    /// Makes the link of an incident.
    pub links: Option<Links>,
    /// Mutes that are configured, beside those in the ledger.
    pub mutes: Vec<crate::ledger::Mute>,
    /// Incidents below high that a source may alert about in a day; what exceeds it is only listed, and counted.
    pub alerts_per_day: u32,
    /// How often a summary is sent, also when nothing is wrong. Without it, only a day on which something exceeded
    /// `alerts_per_day` is summed up.
    pub summary_every: Option<Duration>,
    /// The program that runs, for the commands that messages name: `logwarden-analyzer`.
    pub program: String,
}

impl Default for Policy {
    fn default() -> Self {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        Self {
            window: hours(1),
            remind_urgent: hours(1),
            remind_other: hours(24),
            explain_wait: Duration::ZERO,
            judge_window: Duration::ZERO,
            judge_lines: 50_000,
            channels: Vec::new(),
            rollup_at: 10,
            give_up: [hours(24), hours(12), hours(3)],
            shed_after: hours(24),
            links: None,
            mutes: Vec::new(),
            alerts_per_day: 50,
            summary_every: None,
            program: "logwarden-analyzer".to_owned(),
        }
    }
}

impl Policy {
    /// How long attempts to deliver something of this severity go on.
    pub fn give_up_after(&self, severity: Severity) -> Duration {
        match severity {
            Severity::Critical => self.give_up[0],
            Severity::High => self.give_up[1],
            Severity::Medium | Severity::Low => self.give_up[2],
        }
    }

    /// After how long something of this severity that goes on is told again.
    pub fn remind_after(&self, severity: Severity) -> Duration {
        if severity >= Severity::High { self.remind_urgent } else { self.remind_other }
    }

    /// The channel of that name.
    pub fn channel(&self, name: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| &*channel.name == name)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("window", &self.window)
            .field("channels", &self.channels)
            .field("explain_wait", &self.explain_wait)
            .finish_non_exhaustive()
    }
}
