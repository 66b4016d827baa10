//! What the receiver did, said once a minute, and what is wrong, said when it begins and when it ends: its own log comes
//! back through a shipper often enough, and must not be what fills it.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use logwarden_core::{
    Timestamp,
    env::Env,
    ledger::Ledger,
    pipeline::{PassReport, SourceOutcome},
};
use tracing::{error, info, warn};

use crate::run;

/// How often new incidents are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How often what was done is said.
const SAY: Duration = Duration::from_secs(60);

/// Adds up reports.
#[derive(Debug)]
pub(crate) struct Tally(Mutex<Sum>);

#[derive(Debug)]
struct Sum {
    heard: Instant,
    lines: u64,
    new_templates: u64,
    opened: u64,
    joined: u64,
    analysed: u64,
    detectors_only: u64,
    calls: u64,
    sent: u64,
    unseen: bool,
    trouble: Option<String>,
    without_model: Option<String>,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Sum {
            heard: Instant::now(),
            lines: 0,
            new_templates: 0,
            opened: 0,
            joined: 0,
            analysed: 0,
            detectors_only: 0,
            calls: 0,
            sent: 0,
            unseen: false,
            trouble: None,
            without_model: None,
        }))
    }

    fn sum(&self) -> MutexGuard<'_, Sum> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago the stages last reported; they do every half minute even when there is nothing to do.
    pub(crate) fn silent(&self) -> Duration {
        self.sum().heard.elapsed()
    }

    /// Adds a report.
    pub(crate) fn add(&self, pass: &PassReport) {
        let mut sum = self.sum();
        sum.heard = Instant::now();
        for ingest in &pass.ingest {
            sum.lines += ingest.read;
            sum.new_templates += ingest.new_templates;
            sum.opened += ingest.opened;
            sum.joined += ingest.joined;
            sum.unseen |= ingest.opened > 0;
            let trouble = match &ingest.outcome {
                SourceOutcome::Failed { reason, .. } => Some(reason.clone()),
                SourceOutcome::Busy { .. } => Some("another process folds what is pushed".to_owned()),
                _ => ingest.problems.first().cloned(),
            };
            if let Some(reason) = trouble.as_ref().filter(|reason| sum.trouble.as_ref() != Some(reason)) {
                error!(reason = %reason, "what was pushed cannot be folded; it waits on disk");
            }
            if let (Some(_), None) = (&sum.trouble, &trouble) {
                info!("what was pushed is folded again");
            }
            sum.trouble = trouble;
        }
        let judge = &pass.judge;
        sum.analysed += judge.analysed;
        sum.detectors_only += judge.detectors_only;
        sum.calls += judge.calls;
        sum.unseen |= judge.findings > 0;
        match &judge.reason {
            Some(reason) if sum.without_model.as_ref() != Some(reason) => {
                warn!(reason = %reason, "the model is not used; findings of the detectors go out all the same");
                sum.without_model = judge.reason.clone();
            }
            None if judge.analysed > 0 && sum.without_model.take().is_some() => info!("the model is used again"),
            _ => {}
        }
        sum.sent += pass.deliver.sent;
    }

    /// Says it, on and on.
    pub(crate) async fn keep_saying(&self, ledger: &dyn Ledger, env: &dyn Env) {
        let (mut seen, mut said) = (env.now(), Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            let until = env.now();
            if mem::take(&mut self.sum().unseen) {
                run::say_new(ledger, seen).await;
                seen = until;
            }
            if said.elapsed() >= SAY {
                said = Instant::now();
                self.say();
            }
        }
    }

    /// Says what was done since it was said last, if there was anything.
    pub(crate) fn say(&self) {
        let mut sum = self.sum();
        let Sum { lines, new_templates, opened, joined, analysed, detectors_only, calls, sent, .. } = *sum;
        if lines + analysed + detectors_only + sent == 0 {
            return;
        }
        info!(
            lines,
            new_templates,
            findings = opened,
            repeats_suppressed = joined,
            analysed,
            detectors_only,
            calls,
            alerts = sent,
            "done since the last time"
        );
        (sum.lines, sum.new_templates, sum.opened, sum.joined) = (0, 0, 0, 0);
        (sum.analysed, sum.detectors_only, sum.calls, sum.sent) = (0, 0, 0, 0);
    }
}

/// Looks at new incidents once more, at the end.
pub(crate) async fn last_words(tally: &Tally, ledger: &dyn Ledger, since: Timestamp) {
    if mem::take(&mut tally.sum().unseen) {
        run::say_new(ledger, since).await;
    }
    tally.say();
}
