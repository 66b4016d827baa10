//! `run` and `watch`: what the timer and the service start.

use std::{path::Path, sync::Mutex};

use logwarden_config::{Config, Wired};
use logwarden_core::{
    Timestamp,
    error::chain,
    ledger::{Incidents, Ledger, Query},
    pipeline::{IngestReport, PassReport, SourceOutcome},
};
use tracing::{error, info, warn};

use crate::{
    alive,
    args::Common,
    disk,
    failure::Failure,
    program,
    setup::{self, Setup},
    stop, unit,
};

/// One pass.
pub(crate) async fn run(common: &Common) -> Result<u8, Failure> {
    let setup = setup::load(common)?;
    let state_dir = setup::state_dir(common, Some(&setup.config))?;
    let began = setup.env.now();
    let wired = setup.wire(Some(&state_dir), true).await?;
    say_start(&setup, &wired, &state_dir, "pass starts");
    say_warnings(&setup, &wired);
    let _alive = alive::take_over(&wired.pipeline, &state_dir).await;
    unit::look_at_units(&wired.pipeline, false).await;
    unit::look_aside(&setup, false).await;
    disk::look(&wired.pipeline, &state_dir, setup.config.keep_free).await;

    let pass = wired.pipeline.pass_telling(began.plus(setup.config.pass_budget), &say_ingest);
    let report = tokio::select! {
        report = pass => Some(report),
        () = stop::asked() => None,
    };
    keep_calibration(&setup, &wired).await;
    let Some(report) = report else {
        if let Err(error) = wired.pipeline.disown().await {
            warn!(error = %chain(&error), "the sources could not be given back; the next pass takes them over");
        }
        warn!("stopped before the end; nothing is lost, the next pass goes on from here");
        return Ok(1);
    };
    let report = report.map_err(|error| {
        Failure::failed("the pass failed")
            .because(&error)
            .hint(format!("run `{}`; nothing is lost", program::command("doctor")))
    })?;
    say_judge(&report);
    say_deliver(&report);
    say_new(&*wired.ledger, began).await;
    let took = setup.env.now().since(began);
    let seconds = took.as_millis() as f64 / 1000.0;
    if report.is_incomplete() {
        match report.is_lasting() {
            true => {
                error!(seconds, "pass is incomplete, and the next one alone does not make good what is named above")
            }
            false => error!(seconds, "pass is incomplete; the next one makes good"),
        }
        return Ok(1);
    }
    info!(seconds, "pass complete");
    // Beside another process that has the sources it read nothing, and knows nothing about how reading goes.
    if !report.ingest.iter().any(|source| matches!(source.outcome, SourceOutcome::Busy { .. })) {
        unit::recovered(&setup, &wired.pipeline).await;
    }
    Ok(0)
}

/// Passes until stopped.
pub(crate) async fn watch(common: &Common) -> Result<u8, Failure> {
    let setup = setup::load(common)?;
    let state_dir = setup::state_dir(common, Some(&setup.config))?;
    let wired = setup.wire(Some(&state_dir), true).await?;
    say_start(&setup, &wired, &state_dir, "watch starts");
    say_warnings(&setup, &wired);
    let _alive = alive::take_over(&wired.pipeline, &state_dir).await;
    let troubled: Mutex<Vec<String>> = Mutex::default();
    let report = |pass: PassReport| {
        if pass.ingest.iter().any(|ingest| ingest.read > 0 || ingest.is_incomplete())
            || pass.judge != Default::default()
            || pass.deliver.is_news()
        {
            // The same trouble in every round is said once.
            let now: Vec<String> = pass.ingest.iter().filter_map(trouble).collect();
            let mut before = troubled.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if !now.is_empty() && *before == now && pass.ingest.iter().all(|ingest| ingest.read == 0) {
                return;
            }
            if !pass.ingest.is_empty() {
                *before = now;
            }
            say_report(&pass);
        }
    };
    let grace = std::time::Duration::from_secs(20);
    let ended = tokio::select! {
        ended = wired.pipeline.watch(setup.config.watch_every, grace, &report, stop::asked()) => ended,
        () = unit::keep_looking_at_units(&setup, &wired.pipeline) => Ok(()),
        () = disk::keep_looking(&wired.pipeline, &state_dir, setup.config.keep_free) => Ok(()),
    };
    keep_calibration(&setup, &wired).await;
    ended.map_err(|error| {
        Failure::failed("cannot go on").because(&error).hint(format!("run `{}`", program::command("doctor")))
    })?;
    info!("watch ends");
    Ok(0)
}

async fn keep_calibration(setup: &Setup, wired: &Wired) {
    if let Err(error) = wired.keep_calibration(&*setup.env).await {
        warn!(error = %chain(&error), "what was measured about the model could not be kept");
    }
}

fn trouble(ingest: &IngestReport) -> Option<String> {
    match &ingest.outcome {
        SourceOutcome::Failed { reason, .. } => Some(format!("{}: {reason}", ingest.source)),
        _ if !ingest.problems.is_empty() => Some(ingest.problems.join("; ")),
        _ => None,
    }
}

fn say_start(setup: &Setup, wired: &Wired, state_dir: &Path, what: &str) {
    let config = &setup.config;
    let file = setup.file.as_ref().map_or_else(|| "environment".to_owned(), |path| path.display().to_string());
    info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %file,
        state = %state_dir.display(),
        loki = config.loki.as_ref().map_or("-", |loki| loki.url.as_str()),
        queries = config.loki.as_ref().map_or(0, |loki| loki.queries.len()),
        file_groups = config.files.len(),
        model = model_name(config),
        channels = %channels(wired),
        "{what}"
    );
}

/// The channels that are told.
pub(crate) fn channels(wired: &Wired) -> String {
    let names: Vec<&str> = wired.pipeline.notifiers().iter().map(|notifier| &*notifier.channel().name).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

/// The model as it is configured.
pub(crate) fn model_name(config: &Config) -> &str {
    match (&config.model.name, config.model.enabled) {
        (_, false) => "off",
        (None, true) => "the best installed one",
        (Some(name), true) => name.as_str(),
    }
}

pub(crate) fn say_warnings(setup: &Setup, wired: &Wired) {
    for warning in setup.warnings.iter().chain(&wired.warnings) {
        warn!("{warning}");
    }
    if wired.pipeline.notifiers().is_empty() {
        warn!("no channel is configured: nobody is told; `{}` lists what is found", program::command("incidents"));
    }
}

pub(crate) fn say_report(report: &PassReport) {
    report.ingest.iter().for_each(say_ingest);
    say_judge(report);
    if report.deliver.is_news() {
        say_deliver(report);
    }
}

fn say_ingest(ingest: &IngestReport) {
    let source = ingest.source.0.as_str();
    if !matches!(ingest.outcome, SourceOutcome::Failed { .. }) {
        for (query, lines) in &ingest.per_query {
            info!(source, lines, query = ?query, "read");
        }
    }
    match &ingest.outcome {
        SourceOutcome::Done | SourceOutcome::Finished => {}
        SourceOutcome::OutOfTime => warn!(source, "time is up; the rest is read in the next pass"),
        SourceOutcome::Busy { until } => {
            info!(source, %until, "another process reads this source; nothing to do");
        }
        SourceOutcome::Failed { reason, hint } => {
            let hint = hint.clone().unwrap_or_else(|| format!("run `{}`", program::command("doctor")));
            error!(source, reason, hint, "cannot read");
        }
    }
    for problem in &ingest.problems {
        error!(source, reason = problem.as_str(), "cannot read all of it");
    }
    for shortened in &ingest.shortened {
        warn!(source, what = %shortened, "lines were read, but not in full");
    }
    for skipped in &ingest.skipped {
        info!(source, reason = skipped.as_str(), "skipped");
    }
    info!(
        source,
        lines = ingest.read,
        new_templates = ingest.new_templates,
        findings = ingest.opened,
        repeats_suppressed = ingest.joined,
        duplicates = ingest.duplicates,
        late = ingest.late,
        "source done"
    );
}

fn say_judge(report: &PassReport) {
    let judge = &report.judge;
    if *judge != Default::default() {
        info!(
            model = if judge.model.is_empty() { "-" } else { &judge.model },
            analysed = judge.analysed,
            detectors_only = judge.detectors_only,
            waiting = judge.waiting,
            findings = judge.findings,
            refused = judge.refused,
            calls = judge.calls,
            tokens = judge.tokens,
            "model"
        );
    }
    if let Some(reason) = &judge.reason {
        warn!(reason, "the model was not used for everything; findings of the detectors go out all the same");
    }
}

fn say_deliver(report: &PassReport) {
    let deliver = &report.deliver;
    info!(
        sent = deliver.sent,
        repeats_suppressed = deliver.repeats,
        failed = deliver.failed,
        waiting = deliver.waiting,
        broken = deliver.broken,
        "alerts"
    );
}

/// One line per incident that began since then.
pub(crate) async fn say_new(ledger: &dyn Ledger, began: Timestamp) {
    let query = Query { incidents: Incidents::Latest { limit: 100 }, ..Query::default() };
    let Ok(snapshot) = ledger.read(&query).await else { return };
    for incident in snapshot.incidents.values().map(|versioned| &versioned.row) {
        if incident.opened >= began {
            // Debug escapes whatever the log said.
            info!(
                incident = %incident.id.short(),
                severity = %incident.rank.severity,
                by = incident.claimed_by.first().map_or("", String::as_str),
                title = ?incident.title,
                "finding"
            );
        }
    }
}
