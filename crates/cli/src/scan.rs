//! `scan`: what is wrong in files or standard input, without state and services.

use std::{cmp::Reverse, fmt::Write as _, io, sync::Arc, time::Duration};

use logwarden_config::{SystemEnv, Trail};
use logwarden_core::{
    ProfileName, Severity,
    decide::view::view,
    detectors::{Route, Settings},
    env::Env,
    incident::{Incident, Status},
    ledger::{Incidents, Query, Summary},
    message::{Body, Message, Occasion, SendId},
    notifier::Form,
    pipeline::{IngestReport, Pipeline, SourceOutcome},
    profile::Profile,
    report::{FindingReport, SummaryReport},
    source::LogSource,
};
use logwarden_notifiers::{Style, render, text::Clean};

use crate::{
    args::{Common, Format, Scan},
    failure::Failure,
    output::{self, amount, grouped},
    program,
    reading::{Reading, STOPPED},
    setup,
};

/// Findings that are shown at most.
const MOST: usize = 1_000;
/// How long the model may take for everything.
const EXPLAIN: Duration = Duration::from_secs(600);

/// Runs the command.
pub(crate) async fn scan(common: &Common, args: &Scan) -> Result<u8, Failure> {
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let began = env.now();
    let source = Reading::new(&args.files, profiles(&args.profile)?, args.timezone.as_deref())?;
    let mut builder = Pipeline::builder()
        .env(env.clone())
        .source(source.clone())
        .host(setup::host())
        .detector_settings(Settings { self_relative: true, ..Settings::default() });
    let trail = match &common.trail {
        None => None,
        Some(directory) => Some(Arc::new(Trail::open(directory, env.clone()).map_err(|error| {
            let failure = Failure::failed(format!("cannot write the trail in {}", directory.display()));
            failure.because(&error).hint("name a directory that may be written: --trail DIR")
        })?)),
    };
    if args.explain {
        let mut setup = setup::load(common)?;
        (setup.config.loki, setup.config.trail) = (None, None);
        (setup.config.files, setup.config.channels) = (Vec::new(), Vec::new());
        let wired = setup.wire_model(trail.clone()).await?;
        let Some(ollama) = wired.ollama else {
            return Err(Failure::usage("--explain needs a model, and the configuration switches it off")
                .hint("set model.enabled = true, or leave out --explain"));
        };
        builder = builder.classifier(ollama);
    }
    if let Some(trail) = trail {
        builder = builder.trail(trail);
    }
    let pipeline = builder.build().map_err(|error| Failure::failed("cannot scan").because(&error))?;
    let failed = |error: &dyn std::error::Error| Failure::failed("cannot scan").because(error);

    let report = pipeline.ingest(0, logwarden_core::Timestamp::MAX).await.map_err(|error| failed(&error))?;
    let mut remarks = Vec::new();
    if args.explain {
        source.progress().set_message(format!("{}; asking the model…", lines(report.read)));
        let mut stopped = source.stopped();
        let judged = tokio::select! {
            judged = pipeline.judge(env.now().plus(EXPLAIN)) => judged.map_err(|error| failed(&error))?,
            _ = stopped.wait_for(|stopped| *stopped) => Default::default(),
        };
        if let Some(reason) = judged.reason {
            remarks.push(format!("the model did not explain everything: {reason}"));
        }
    }
    source.progress().finish_and_clear();
    let stopped = *source.stopped().borrow();
    if stopped {
        remarks.push("stopped early: this is what was found so far".to_owned());
    }
    if report.problems.is_empty() && report.read == 0 && !stopped {
        remarks.push(source.nothing_in());
    } else if report.read > 0 && report.read == report.own {
        remarks.push("all lines are logwarden's own, which it leaves out".to_owned());
    }

    remarks.extend(report.shortened.iter().map(ToString::to_string));
    let query = Query { incidents: Incidents::Latest { limit: MOST }, summaries: 64, ..Query::default() };
    let snapshot = pipeline.ledger().read(&query).await.map_err(|error| failed(&error))?;
    let mut incidents: Vec<Incident> = snapshot
        .incidents
        .into_values()
        .map(|versioned| versioned.row)
        // What we tell about ourselves is told below, in plain words.
        .filter(|incident| incident.source == *source.id())
        .collect();
    incidents.sort_by_key(|incident| {
        (Reverse(incident.route), Reverse(incident.rank.severity), Reverse(incident.rank.detector), incident.first)
    });
    let text = match args.format {
        Format::Text => {
            let style = output::style(args.color);
            let took = env.now().since(began);
            match report.read == 0 && report.is_incomplete() {
                true => String::new(), // "nothing found" would be no news of what could not be read
                false => for_people(&pipeline, &incidents, &report, took, env.now(), &style),
            }
        }
        Format::Json => as_json(&incidents, &snapshot.summaries, &report),
    };
    let written = output::write(text.as_bytes());
    for remark in remarks.iter().chain(&report.problems) {
        say(remark);
    }
    written?;
    if let SourceOutcome::Failed { reason, hint } = &report.outcome {
        let failure = Failure::failed(format!("cannot go on reading: {reason}"));
        return Err(match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        });
    }
    let worst = incidents.iter().map(|incident| incident.rank.severity).max();
    if args.fail_on.is_some_and(|bound| worst >= Some(bound)) {
        return Ok(3);
    }
    if stopped {
        return Ok(STOPPED);
    }
    Ok(u8::from(report.is_incomplete()))
}

/// A remark on standard error; its hint on a line of its own.
fn say(remark: &str) {
    use std::io::Write;
    let remark = match remark.rsplit_once(" (hint: ") {
        Some((text, hint)) => format!("{text}\n  hint: {}", hint.strip_suffix(')').unwrap_or(hint)),
        None => remark.to_owned(),
    };
    let _ = writeln!(io::stderr().lock(), "{}: {remark}", program::name());
}

fn profiles(names: &[String]) -> Result<Vec<ProfileName>, Failure> {
    let known = Profile::builtin();
    let mut profiles = Vec::new();
    for name in names.iter().flat_map(|names| names.split(',')).map(str::trim) {
        if !known.iter().any(|profile| profile.name.as_str() == name) {
            let all: Vec<&str> = known.iter().map(|profile| profile.name.as_str()).collect();
            return Err(
                Failure::usage(format!("there is no profile `{name}`")).hint(format!("one of: {}", all.join(", ")))
            );
        }
        let name = ProfileName::new(name);
        if !profiles.contains(&name) {
            profiles.push(name);
        }
    }
    Ok(profiles)
}

fn lines(number: u64) -> String {
    amount(number, "line", "lines")
}

/// The message about one incident.
pub(crate) fn message(
    policy: &logwarden_core::decide::Policy,
    incident: &Incident,
    now: logwarden_core::Timestamp,
    stateless: bool,
) -> Message {
    let mut view = view(policy, incident);
    if stateless {
        // There is nothing to mute, and old lines are what one asked for.
        view.mute = String::new();
        view.late_by_seconds = None;
    }
    let occasion = match incident.status {
        Status::Quiet { .. } if !stateless => Occasion::Quiet,
        Status::Merged { .. } if !stateless => Occasion::Merged,
        _ => Occasion::Fired,
    };
    let body = Body::Incidents { occasion, incidents: vec![view], summary: None };
    Message { id: SendId(0), at: now, body, possible_repeat: false }
}

fn for_people(
    pipeline: &Pipeline,
    incidents: &[Incident],
    report: &IngestReport,
    took: Duration,
    now: logwarden_core::Timestamp,
    style: &Style,
) -> String {
    let mut text = String::new();
    for incident in incidents.iter().filter(|incident| incident.route == Route::Alert) {
        text.push_str(&render(&message(pipeline.policy(), incident, now, true), Form::Full, style));
        text.push('\n');
    }
    let others: Vec<&Incident> = incidents.iter().filter(|incident| incident.route != Route::Alert).collect();
    if !others.is_empty() {
        text.push_str("also noticed:\n");
        for incident in others.iter().take(20) {
            text.push_str(&noticed(incident));
        }
        if others.len() > 20 {
            let _ = writeln!(text, "  … and {} more", others.len() - 20);
        }
        text.push_str("  (`--format json` has their lines)\n\n");
    }
    let _ = writeln!(
        text,
        "{} · {} · {} · {:.1} s",
        lines(report.read),
        amount(report.templates, "template", "templates"),
        found(incidents),
        took.as_secs_f64()
    );
    text
}

/// What is only listed: what and how often, and a line of it, whose end says what a stack trace is about.
fn noticed(incident: &Incident) -> String {
    const LONGEST: usize = 300;
    let (what, line) = match incident.evidence.first().map(|line| line.text.trim_end()) {
        // The template that the title shows says less than the line.
        Some(line) if incident.claimed_by.iter().any(|by| by == "detector:errors") => {
            let last = line.lines().next_back().unwrap_or(line);
            (incident.title.split(": ").next().unwrap_or(&incident.title), Some(Clean::log_line(last).elided(LONGEST)))
        }
        _ => (incident.title.as_str(), None),
    };
    let mut text = format!(
        "  {:<9}{} · {}\n",
        incident.rank.severity.as_str(),
        Clean::line(what).elided(LONGEST).as_str(),
        amount(incident.count, "event", "events")
    );
    if let Some(line) = line {
        let _ = writeln!(text, "           {}", line.as_str());
    }
    text
}

/// `3 findings (1 critical, 2 high)`
fn found(incidents: &[Incident]) -> String {
    if incidents.is_empty() {
        return "nothing found".to_owned();
    }
    let mut parts = Vec::new();
    for severity in Severity::ALL.into_iter().rev() {
        let n = incidents.iter().filter(|incident| incident.rank.severity == severity).count();
        if n > 0 {
            parts.push(format!("{} {severity}", grouped(n as u64)));
        }
    }
    format!("{} ({})", amount(incidents.len() as u64, "finding", "findings"), parts.join(", "))
}

fn as_json(incidents: &[Incident], summaries: &[Summary], report: &IngestReport) -> String {
    let mut text = String::new();
    let mut add = |value: Result<String, serde_json::Error>| {
        if let Ok(line) = value {
            text.push_str(&line);
            text.push('\n');
        }
    };
    let mut findings = 0;
    for finding in incidents.iter().filter_map(FindingReport::of_incident) {
        add(serde_json::to_string(&finding));
        findings += 1;
    }
    add(serde_json::to_string(&SummaryReport::of(&whole(incidents, summaries, report), findings)));
    text
}

/// The summary of all pages together.
fn whole(incidents: &[Incident], summaries: &[Summary], report: &IngestReport) -> Summary {
    let severity = incidents.iter().map(|incident| incident.rank.severity).max();
    let text = format!(
        "{} in {}: {}.",
        lines(report.read),
        amount(report.templates, "template", "templates"),
        found(incidents)
    );
    let Some(latest) = summaries.first() else {
        let zero = logwarden_core::Timestamp::default();
        return Summary {
            segment: logwarden_core::ledger::SegmentId(0),
            profile: ProfileName::general(),
            at: zero,
            from: zero,
            to: zero,
            lines: report.read,
            severity,
            text,
            model: None,
        };
    };
    let single = summaries.iter().filter(|summary| summary.profile == latest.profile).count() == 1;
    Summary {
        from: summaries.iter().map(|summary| summary.from).min().unwrap_or(latest.from),
        to: summaries.iter().map(|summary| summary.to).max().unwrap_or(latest.to),
        lines: report.read,
        severity: severity.max(latest.severity),
        text: if single { latest.text.clone() } else { text },
        model: latest.model.clone().filter(|_| single),
        ..latest.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_exist() {
        assert!(profiles(&["general,security".into(), "general".into()]).is_ok_and(|profiles| profiles.len() == 2));
        assert_eq!(profiles(&["secruity".into()]).unwrap_err().code(), 2);
    }
}
