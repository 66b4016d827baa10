//! A quiet host for a fortnight, with incidents planted into it: what is found, how soon, and what is alerted for nothing.
//!
//! The real pipeline reads the lines as it would read them from Loki, every five minutes of a simulated clock, without a
//! model; what its channel is sent is held against what was planted. The same seed plays the same scenario.

pub mod host;
pub mod incidents;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::executor::block_on;
use logwarden_core::{
    Severity, Timestamp,
    env::Env as _,
    message::{Body, IncidentView, Message, Occasion},
    notifier::{Channel, ChannelHash, Form, Notifier, NotifyError, Receipt},
    pipeline::{Pipeline, PipelineError},
    testing::{Dice, FakeEnv},
};

use self::{
    host::{Entry, Host},
    incidents::{Kind, Planted},
};
use crate::tail::Tail;

/// Monday, 2 November 2026.
const BEGIN: Timestamp = Timestamp::from_secs(20_759 * 86_400);
/// Minutes between two reads.
pub const WINDOW: i64 = 5;
/// Days after which the detectors know what is normal.
pub const WARM_UP_DAYS: i64 = 1;
/// The first day on which something is planted: silence wants three days to compare with.
const FIRST_DAY: i64 = 4;

/// What to play.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Decides everything.
    pub seed: u64,
    /// How long.
    pub days: i64,
    /// Incidents of each kind.
    pub rounds: usize,
    /// Of ordinary traffic, so many hundredths.
    pub volume: u64,
}

impl Scenario {
    /// A fortnight, with two incidents of each kind.
    pub fn long(seed: u64) -> Self {
        Self { seed, days: 14, rounds: 2, volume: 100 }
    }

    /// A week with less traffic and one incident of each kind, for every run of the tests.
    pub fn short(seed: u64) -> Self {
        Self { seed, days: 7, rounds: 1, volume: 20 }
    }

    /// Where the incidents are: each in a part of the time of its own.
    fn plan(&self) -> Vec<Planted> {
        let mut dice = Dice::new(self.seed ^ 0x1c1d);
        let kinds = (0..self.rounds).flat_map(|round| Kind::ALL.map(|kind| (kind, round)));
        let count = (self.rounds * Kind::ALL.len()) as i64;
        let (from, slot) = (FIRST_DAY * 1440, (self.days - FIRST_DAY) * 1440 / count);
        let plant = |(number, (kind, round)): (i64, (Kind, usize))| {
            let begins = from + number * slot + dice.below((slot - 130) as u64) as i64;
            Planted::at(kind, round, begins, &mut dice)
        };
        (0..).zip(kinds).map(plant).collect()
    }

    /// Plays it.
    ///
    /// # Errors
    ///
    /// When the pipeline cannot go on.
    pub fn play(&self) -> Result<Played, PipelineError> {
        let plan = self.plan();
        let env = FakeEnv::new(BEGIN, self.seed);
        let (loki, other) = (Tail::new("loki", Duration::ZERO), Tail::new("files", Duration::ZERO));
        let told = Arc::new(Told::new());
        let pipeline = Pipeline::builder()
            .env(Arc::new(env.clone()))
            .source(loki.clone())
            .source(other.clone())
            .notifier(told.clone())
            .host(host::HOST)
            .build();
        let pipeline = pipeline.unwrap_or_else(|error| unreachable!("two sources and one channel fit: {error}"));
        let mut host = Host::new(self.seed, BEGIN, self.volume);
        let mut dice = Dice::new(self.seed ^ 0xd1ce);
        let mut played = Played::new(*self, plan.clone());
        for minute in 0..self.days * 1440 {
            self.calm(&mut host, minute);
            let active = |kind| plan.iter().any(|one| one.kind == kind && (one.begins..one.ends).contains(&minute));
            host.beats = !active(Kind::StoppedTemplate);
            let mut lines = host.minute(minute);
            for planted in &plan {
                lines.extend(planted.lines(&mut host, &mut dice, minute));
            }
            lines.sort_by_key(|line| line.time);
            let beside = host.other_minute(minute);
            played.lines += lines.len() as u64;
            write(&loki, &lines);
            if !active(Kind::DeadSource) {
                played.lines += beside.len() as u64;
                write(&other, &beside);
            }
            if (minute + 1) % WINDOW == 0 {
                env.set(BEGIN.plus(Duration::from_secs(60 * (minute as u64 + 1))));
                block_on(pipeline.pass(env.now()))?;
                played.take(minute + 1, told.take());
            }
        }
        Ok(played)
    }

    /// What changes on a quiet host and is nobody's concern: a new release that says new things, and a campaign.
    fn calm(&self, host: &mut Host, minute: i64) {
        if minute == (FIRST_DAY - 2) * 1440 + 700 {
            host.release += 1;
        }
        let campaign = (self.days - 2) * 1440 + 600;
        host.set_volume(if (campaign..campaign + 120).contains(&minute) { self.volume * 9 / 5 } else { self.volume });
    }
}

/// An alert about something planted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The minute in which it was told.
    pub at: i64,
    /// By whom it is claimed.
    pub by: String,
    /// How bad.
    pub severity: Severity,
    /// What it said.
    pub title: String,
}

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Played {
    /// What was played.
    pub scenario: Scenario,
    /// Lines written.
    pub lines: u64,
    /// What was planted, each with the alerts about it.
    pub planted: Vec<(Planted, Vec<Found>)>,
    /// Alerts about nothing, after the warm-up.
    pub false_alerts: Vec<Found>,
}

impl Played {
    fn new(scenario: Scenario, plan: Vec<Planted>) -> Self {
        let planted = plan.into_iter().map(|planted| (planted, Vec::new())).collect();
        Self { scenario, lines: 0, planted, false_alerts: Vec::new() }
    }

    fn take(&mut self, minute: i64, told: Vec<IncidentView>) {
        for view in told {
            let mut text = view.title.raw().to_owned();
            for part in view.evidence.iter().map(|line| line.text.raw()).chain([view.host.raw(), view.service.raw()]) {
                let _ = write!(text, "\n{part}");
            }
            for entity in &view.entities {
                let _ = write!(text, "\n{}", entity.value);
            }
            let by = view.claimed_by.rsplit(' ').next().unwrap_or_default().to_owned();
            let found = Found { at: minute, by, severity: view.severity, title: view.title.raw().to_owned() };
            // One alert may be about only one thing; the one that should be claimed like this comes first.
            let explains = |one: &&mut (Planted, _)| one.0.explains(BEGIN, view.last, &text);
            let mut about: Vec<_> = self.planted.iter_mut().filter(explains).collect();
            about.sort_by_key(|(planted, _)| planted.by != found.by);
            match about.into_iter().next() {
                Some((_, alerts)) => alerts.push(found),
                None if minute > WARM_UP_DAYS * 1440 => self.false_alerts.push(found),
                None => {}
            }
        }
    }

    /// The alert that found an incident, if any, with its delay in windows.
    pub fn found<'a>(&self, planted: &Planted, alerts: &'a [Found]) -> Option<(&'a Found, i64)> {
        let found = alerts.iter().find(|found| found.by == planted.by)?;
        Some((
            found,
            (found.at - planted.due).max(1).div_euclid(WINDOW)
                + i64::from((found.at - planted.due).max(1) % WINDOW != 0),
        ))
    }

    /// Alerts about nothing per simulated day after the warm-up.
    pub fn false_per_day(&self) -> f64 {
        self.false_alerts.len() as f64 / (self.scenario.days - WARM_UP_DAYS) as f64
    }

    /// What does not hold: every incident found within one window, at most one false alert a day.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (planted, alerts) in &self.planted {
            match self.found(planted, alerts) {
                None => broken.push(format!("{} at {} was not found", planted.kind.as_str(), clock(planted.begins))),
                Some((_, windows)) if windows > 1 => {
                    broken.push(format!(
                        "{} at {} was found {windows} windows late",
                        planted.kind.as_str(),
                        clock(planted.begins)
                    ));
                }
                Some(_) => {}
            }
        }
        if self.false_per_day() > 1.0 {
            broken.push(format!("{:.2} false alerts a day", self.false_per_day()));
        }
        broken
    }

    /// What a person reads.
    pub fn table(&self) -> String {
        let Scenario { seed, days, .. } = self.scenario;
        let mut text = format!("seed {seed}: {days} days, {} lines, a read every {WINDOW} minutes\n\n", self.lines);
        let _ =
            writeln!(text, "{:<23} {:<10} {:<10} {:>7} {:>6}  found", "planted", "due", "told", "windows", "alerts");
        for (planted, alerts) in &self.planted {
            let found = self.found(planted, alerts);
            let told = found.map_or_else(|| "never".to_owned(), |(found, _)| clock(found.at));
            let windows = found.map_or_else(|| "-".to_owned(), |(_, windows)| windows.to_string());
            let what = found
                .map_or_else(String::new, |(found, _)| format!("{} {}: {}", found.severity, found.by, found.title));
            let what: String = what.chars().take(110).collect();
            let _ = writeln!(
                text,
                "{:<23} {:<10} {told:<10} {windows:>7} {:>6}  {what}",
                planted.kind.as_str(),
                clock(planted.due),
                alerts.len()
            );
        }
        let _ = writeln!(
            text,
            "\n{} false alerts, {:.2} a day after the warm-up",
            self.false_alerts.len(),
            self.false_per_day()
        );
        for found in &self.false_alerts {
            let _ = writeln!(text, "  {} {} {}: {}", clock(found.at), found.severity, found.by, found.title);
        }
        text
    }
}

/// `d03 14:10`
fn clock(minute: i64) -> String {
    format!("d{:02} {:02}:{:02}", minute / 1440, minute / 60 % 24, minute % 60)
}

fn write(tail: &Tail, lines: &[Entry]) {
    lines.iter().for_each(|entry| tail.push(entry.time, &entry.stream, &entry.text));
}

/// A channel that remembers what it was told.
#[derive(Debug)]
struct Told {
    channel: Channel,
    told: Mutex<Vec<IncidentView>>,
}

impl Told {
    fn new() -> Self {
        let channel = Channel {
            name: "told".into(),
            destination: ChannelHash(1),
            vendor: "test",
            min_severity: Severity::Low,
            amends: true,
            longest_send: Duration::from_secs(15),
            gap: Duration::ZERO,
            per_minute: 100_000,
        };
        Self { channel, told: Mutex::default() }
    }

    fn take(&self) -> Vec<IncidentView> {
        std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Notifier for Told {
    fn channel(&self) -> &Channel {
        &self.channel
    }

    async fn send(&self, message: &Message, _: Form, amend: Option<&Receipt>) -> Result<Receipt, NotifyError> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match &message.body {
            Body::Incidents { occasion: Occasion::Fired | Occasion::Escalated, incidents, .. } => {
                told.extend(incidents.iter().cloned());
            }
            Body::Rollup(rollup) => told.extend(rollup.top.iter().cloned()),
            _ => {}
        }
        Ok(amend.cloned().unwrap_or_else(|| Receipt(message.id.0.to_string())))
    }
}

/// How many incidents of each kind there are, for those who check that none is missing.
pub fn kinds(played: &Played) -> BTreeMap<Kind, usize> {
    let mut kinds = BTreeMap::new();
    for (planted, _) in &played.planted {
        *kinds.entry(planted.kind).or_default() += 1;
    }
    kinds
}
