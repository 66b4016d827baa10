//! Lists, mutes, and forgetting: commands that look into the ledger and note something there.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use logwarden_config::{ChannelConfig, SystemEnv};
use logwarden_core::{
    Severity, Timestamp,
    decide::{Policy, mutes, summary},
    detectors::RuleSet,
    env::Env,
    incident::{Incident, Status},
    ledger::{
        Commit, CommitId, Committed, Incidents, Ledger, Mute as Muted, MuteMatch, Outbox, Query, Snapshot, Summary,
        Write,
    },
    notifier::Form,
    report::{FindingReport, SummaryReport},
    templates::LeafId,
};
use logwarden_notifiers::{render, text::Clean};
use serde::Serialize;

use crate::{
    args::{Color, Common, Format, Incidents as Args, Mute},
    failure::Failure,
    output::{self, grouped},
    program, scan, setup, why,
};

/// Incidents that are read at most.
const MOST: usize = 1_000;
/// Reasons why nobody was told that a list names at most.
const MOST_REASONS: usize = 8;

async fn snapshot(ledger: &Arc<dyn Ledger>, query: Query) -> Result<Snapshot, Failure> {
    ledger.read(&query).await.map_err(|error| Failure::failed("cannot read the state").because(&error))
}

async fn note(ledger: &Arc<dyn Ledger>, writes: Vec<Write>) -> Result<(), Failure> {
    let id = CommitId(u128::from(SystemEnv.random()) << 64 | u128::from(SystemEnv.random()));
    match ledger.commit(&Commit { id, writes }).await {
        Ok(Committed::Done) => Ok(()),
        Ok(Committed::Conflict) => Err(Failure::failed("somebody else has just changed that").hint("try again")),
        Err(error) => Err(Failure::failed("cannot write the state").because(&error)),
    }
}

/// The incident with that id, or the beginning of one.
fn named<'a>(snapshot: &'a Snapshot, id: &str) -> Result<Option<&'a Incident>, Failure> {
    let id = id.to_ascii_lowercase();
    if id.len() < 4 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let all = || snapshot.incidents.values().map(|incident| &incident.row);
    let mut found = all().filter(|incident| incident.id.to_string().starts_with(&id));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage(format!("several incidents begin with {id}")).hint("type more of it"));
        }
        (Some(found), None) => return Ok(Some(found)),
        (None, _) => {}
    }
    // The `id` of a finding: the same in every run, so that the latest incident with it is meant.
    let mut found: Vec<(&Incident, String)> =
        all().filter_map(|incident| Some((incident, FindingReport::of_incident(incident)?.id))).collect();
    found.retain(|(_, finding)| finding.starts_with(&id));
    if found.iter().any(|(_, finding)| *finding != found[0].1) {
        return Err(Failure::usage(format!("several findings begin with {id}")).hint("type more of it"));
    }
    Ok(found.into_iter().map(|(incident, _)| incident).max_by_key(|incident| (incident.opened, incident.id)))
}

fn unknown(id: &str) -> Failure {
    Failure::usage(format!("there is no incident {id:?}"))
        .hint(format!("`{}` lists them", program::command("incidents --all")))
}

/// How incidents live and which channels there are, as far as that is configured.
fn configured(common: &Common) -> (Policy, Option<Vec<ChannelConfig>>) {
    let usual = Policy { program: program::name().to_owned(), ..Policy::default() };
    match setup::read(common) {
        Ok(setup::Read::Good(setup)) => {
            let alerts = &setup.config.alerts;
            let (remind_urgent, remind_other) = (alerts.remind_urgent, alerts.remind_other);
            (Policy { window: alerts.window, remind_urgent, remind_other, ..usual }, Some(setup.config.channels))
        }
        _ => (usual, None),
    }
}

/// `incidents`
pub(crate) async fn list(common: &Common, args: &Args) -> Result<u8, Failure> {
    let ledger = setup::ledger(common)?;
    let query = Query {
        incidents: Incidents::Latest { limit: MOST },
        summaries: if args.summaries { 24 } else { 0 },
        mutes: true,
        outbox: Outbox::Open,
        channels: true,
        ..Query::default()
    };
    let mut snapshot = snapshot(&ledger, query).await?;
    snapshot.incidents.retain(|_, incident| !summary::is_summary(&incident.row));
    // A file that cannot be used is the configuration's fault; what is listed is right without it.
    let of_file = setup::file_mutes(common);
    let all_mutes = of_file.is_ok();
    snapshot.mutes.extend(of_file.unwrap_or_default());
    // One that is nowhere any more has been ended.
    let is_held = |incident: &Incident| match hiding(&snapshot, incident) {
        Some(mute) => mutes::is_active(mute, SystemEnv.now()),
        None => incident.muted_by.is_some() && !all_mutes,
    };
    let (policy, channels) = configured(common);
    let now = SystemEnv.now();
    let untold = |incident: &Incident| {
        let concerned = incident.status == Status::Firing && incident.told.is_empty() && !is_held(incident);
        concerned.then(|| why::untold(channels.as_deref(), incident, &why::waiting(&snapshot, incident, now)))
    };
    if let Some(id) = &args.id {
        let incident = named(&snapshot, id)?.ok_or_else(|| unknown(id))?;
        let text = match args.format {
            Format::Json => json(&[incident], &is_held, &untold),
            Format::Text => {
                let message = scan::message(&policy, incident, now, false);
                let text = render(&message, Form::Full, &output::style(Color::Auto));
                let waiting = why::waiting(&snapshot, incident, now);
                let why = why::no_new_message(&policy, channels.as_deref(), incident, is_held(incident), &waiting);
                let mut text = format!("{text}\n{why}");
                if let Some(mute) = hiding(&snapshot, incident) {
                    let _ = writeln!(text, "Muted: {}", mute_line(mute, &snapshot));
                }
                text
            }
        };
        output::write(text.as_bytes())?;
        return Ok(0);
    }
    let all = snapshot.incidents.values().map(|versioned| &versioned.row);
    let mut incidents: Vec<&Incident> = all.filter(|incident| args.all || incident.status == Status::Firing).collect();
    incidents.sort_by_key(|incident| (Reverse(incident.touched), incident.id));
    let mut text = match args.format {
        Format::Json => json(&incidents, &is_held, &untold),
        Format::Text => {
            let mut text = table(&incidents, args.all, &is_held);
            let held = incidents.iter().filter(|incident| is_held(incident));
            let hidden: Vec<&Muted> = held.filter_map(|incident| hiding(&snapshot, incident)).collect();
            for mute in snapshot.mutes.iter().filter(|mute| hidden.iter().any(|one| one.id == mute.id)) {
                let _ = writeln!(text, "muted by {}", mute_line(mute, &snapshot));
            }
            let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
            for why in incidents.iter().filter_map(|incident| untold(incident)) {
                *reasons.entry(why).or_default() += 1;
            }
            for (why, n) in reasons.into_iter().take(MOST_REASONS) {
                let _ = writeln!(text, "{} {why}", output::amount(n, "incident is", "incidents are"));
            }
            text
        }
    };
    let mut firing = incidents.iter().filter(|incident| incident.status == Status::Firing).peekable();
    if args.format == Format::Text && firing.peek().is_some() {
        text.push_str(&why::below_the_list(&policy, firing.any(|incident| !incident.told.is_empty())));
    }
    for summary in &snapshot.summaries {
        match args.format {
            Format::Json => {
                let line = serde_json::to_string(&SummaryReport::of(summary, 0));
                let _ = writeln!(text, "{}", line.unwrap_or_default());
            }
            Format::Text => {
                text.push_str(&summary_lines(summary));
            }
        }
    }
    output::write(text.as_bytes())?;
    Ok(0)
}

/// The mute that hides an incident.
fn hiding<'a>(snapshot: &'a Snapshot, incident: &Incident) -> Option<&'a Muted> {
    let by = incident.muted_by.as_ref()?;
    snapshot.mutes.iter().find(|mute| mute.id == *by)
}

/// When, under which profile, how bad, in whose words; then what.
fn summary_lines(summary: &Summary) -> String {
    let to = match why::minute(summary.to) {
        to if to == why::minute(summary.from) => String::new(),
        to => format!(" – {to}"),
    };
    let severity = summary.severity.map_or("nothing wrong", Severity::as_str);
    let model = summary
        .model
        .as_deref()
        .map(|model| format!("  (words of the model {}, unverified)\n", Clean::line(model).elided(200).as_str()));
    format!(
        "\n{}{to} · {} · {severity} · {}\n  {}\n{}",
        why::minute(summary.from),
        summary.profile,
        output::amount(summary.lines, "line", "lines"),
        Clean::line(&summary.text).elided(1000).as_str(),
        model.unwrap_or_default(),
    )
}

/// An incident for machines: the finding, and what other commands need of it.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    finding: FindingReport,
    /// What `mute` and `incidents` take; `id` is the same for the same thing in every run.
    incident: String,
    status: &'static str,
    /// What `mute --template` takes.
    template_ids: BTreeSet<String>,
    /// When each channel was told last.
    told: BTreeMap<&'a str, String>,
    /// Why no channel was, of one that goes on and is not muted.
    untold: Option<String>,
    /// The mute that holds its messages back.
    muted_by: Option<&'a str>,
    over_budget: bool,
}

fn json(
    incidents: &[&Incident],
    is_held: &dyn Fn(&Incident) -> bool,
    untold: &dyn Fn(&Incident) -> Option<String>,
) -> String {
    let mut text = String::new();
    for incident in incidents {
        let Some(finding) = FindingReport::of_incident(incident) else { continue };
        let listed = Listed {
            finding,
            incident: incident.id.to_string(),
            status: status(incident, false),
            template_ids: incident.cited.iter().map(|cited| cited.root.to_string()).collect(),
            told: incident.told.iter().map(|(channel, told)| (&**channel, whole_seconds(told.at))).collect(),
            untold: untold(incident),
            muted_by: incident.muted_by.as_deref().filter(|_| is_held(incident)),
            over_budget: incident.over_budget,
        };
        if let Ok(line) = serde_json::to_string(&listed) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

fn status(incident: &Incident, held: bool) -> &'static str {
    match incident.status {
        _ if held => "muted",
        Status::Firing => "firing",
        Status::Quiet { .. } => "quiet",
        Status::Merged { .. } => "merged",
    }
}

fn table(incidents: &[&Incident], all: bool, is_held: &dyn Fn(&Incident) -> bool) -> String {
    if incidents.is_empty() {
        let more = if all { "" } else { "; `--all` also shows what is over" };
        return format!("no incidents{more}\n");
    }
    let told: Vec<String> = incidents.iter().map(|incident| told(incident)).collect();
    let told_width = told.iter().map(|told| told.chars().count()).max().unwrap_or(0).max(4);
    let width = output::columns().unwrap_or(240).clamp(100, 240);
    let mut text = format!(
        "{:<9} {:<9} {:<7} {:<17} {:>8}  {:<told_width$}  {}\n",
        "id", "severity", "status", "last", "events", "told", "what"
    );
    for (incident, told) in incidents.iter().zip(told) {
        let status = status(incident, is_held(incident));
        let host = incident.cited.first().map(|cited| cited.scope.origin.host.to_string()).unwrap_or_default();
        let host = if host.is_empty() { "unknown host" } else { host.as_str() };
        let what = format!("{host}: {}", incident.title);
        let last = incident.last.to_string().replace('T', " ");
        let _ = writeln!(
            text,
            "{:<9} {:<9} {status:<7} {:<17} {:>8}  {told:<told_width$}  {}",
            incident.id.short(),
            incident.rank.severity.as_str(),
            format!("{}Z", last.get(..16).unwrap_or(&last)),
            grouped(incident.count),
            Clean::line(&what).elided(width - 58 - told_width).as_str()
        );
    }
    text
}

/// The channels that know of an incident: `discord, slack`.
fn told(incident: &Incident) -> String {
    let names: Vec<&str> = incident.told.keys().map(|channel| &**channel).collect();
    match names.is_empty() {
        true => "nobody".to_owned(),
        false => Clean::line(&names.join(", ")).elided(18).as_str().to_owned(),
    }
}

/// `2026-11-21T23:27:18Z`
fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_secs(time.secs()).to_string()
}

/// `mute`
pub(crate) async fn mute(common: &Common, args: &Mute) -> Result<u8, Failure> {
    let ledger = setup::ledger(common)?;
    if args.list {
        return mutes(common, &ledger).await;
    }
    let now = SystemEnv.now();
    let mut matches = MuteMatch {
        incident: None,
        template: args.template.clone(),
        rule: args.rule.clone(),
        host: args.host.clone(),
        service: args.service.clone(),
        label: args.label.clone(),
        text: args.text.clone(),
    };
    let query = Query { incidents: Incidents::Latest { limit: MOST }, ..Query::default() };
    if let Some(id) = &args.incident {
        let snapshot = snapshot(&ledger, query.clone()).await?;
        matches.incident = Some(named(&snapshot, id)?.ok_or_else(|| unknown(id))?.id.to_string());
    }
    logwarden_config::check_mute(&matches).map_err(|why| {
        Failure::usage(why).hint(format!("`{}` shows what can be muted", program::command("incidents --format json")))
    })?;
    let (rules, all) = setup::rules(common);
    let mut unheard = None;
    if matches.rule.is_some() {
        let known = snapshot(&ledger, query.clone()).await?;
        let claims = known.incidents.values().flat_map(|incident| &incident.row.claimed_by).map(String::as_str);
        if let Some((why, hint)) = logwarden_config::idle_mute(&matches, &rules, claims) {
            if all {
                let failure = Failure::usage(why);
                return Err(hint.into_iter().fold(failure, Failure::hint));
            }
            unheard = Some(format!("{why}, as far as one can tell: your own rules cannot be read"));
        }
    }
    let user = || std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_default();
    let id = format!("{:08x}", SystemEnv.random() >> 32);
    let muted = Muted {
        id: id.clone(),
        matches,
        until: args.time.map(|time| now.plus(time)),
        reason: args.reason.clone(),
        author: args.author.clone().unwrap_or_else(user),
        created: now,
    };
    let query = Query { mutes: true, ..query };
    for attempt in 0.. {
        let writes = mutes::begin(&snapshot(&ledger, query.clone()).await?, &muted);
        match note(&ledger, writes).await {
            Ok(()) => break,
            // A pass is under way and changes the same incidents.
            Err(_) if attempt < 5 => {}
            Err(failure) => return Err(failure),
        }
    }
    let until =
        muted.until.map_or_else(|| "until it is ended".to_owned(), |until| format!("until {}", whole_seconds(until)));
    let unmute = program::command("unmute");
    let after = snapshot(&ledger, query).await?;
    let incidents = after.incidents.values().map(|incident| &incident.row);
    let held = incidents.filter(|incident| {
        incident.status == Status::Firing && incident.muted_by.is_some() && mutes::matches(&muted.matches, incident)
    });
    let held = output::amount(held.count() as u64, "incident that goes on is", "incidents that go on are");
    let mut text = format!("muted as {id} {until}; `{unmute} {id}` ends it\n{held} held back\n");
    let warnings = warnings(&rules, &after, &muted);
    for why in unheard.into_iter().chain(warnings) {
        let _ = writeln!(text, "warning: {}", Clean::line(&why).elided(300).as_str());
    }
    output::write(text.as_bytes())?;
    Ok(0)
}

/// What a mute hides that should be thought over.
fn warnings(rules: &RuleSet, snapshot: &Snapshot, mute: &Muted) -> Vec<String> {
    let mut warnings: Vec<String> = logwarden_config::grave_mute(&mute.matches, rules).into_iter().collect();
    let incidents = snapshot.incidents.values().map(|incident| &incident.row);
    let grave = incidents.filter(|incident| mutes::matches(&mute.matches, incident) && mutes::is_grave(incident));
    let hides = |incident: &Incident| match incident.status {
        Status::Firing => "it hides",
        Status::Quiet { .. } | Status::Merged { .. } => "it hides what is like",
    };
    warnings.extend(grave.take(5).map(|incident| {
        format!("{} {} {}: {}", hides(incident), incident.rank.severity, incident.id.short(), incident.title)
    }));
    if !warnings.is_empty() {
        warnings.push("a muted incident is told all the same when it becomes worse or changes".to_owned());
    }
    warnings
}

/// `mute --list`
async fn mutes(common: &Common, ledger: &Arc<dyn Ledger>) -> Result<u8, Failure> {
    let query = Query { mutes: true, incidents: Incidents::Latest { limit: MOST }, ..Query::default() };
    let snapshot = snapshot(ledger, query).await?;
    let of_file = setup::file_mutes(common)?;
    let mut text = String::new();
    if snapshot.mutes.is_empty() && of_file.is_empty() {
        text.push_str("nothing is muted\n");
    }
    for (mute, place) in
        of_file.iter().map(|mute| (mute, "  (file)")).chain(snapshot.mutes.iter().map(|mute| (mute, "")))
    {
        let _ = writeln!(text, "{}{place}", mute_line(mute, &snapshot));
    }
    output::write(text.as_bytes())?;
    Ok(0)
}

/// A mute and what it hides, in one line.
fn mute_line(mute: &Muted, snapshot: &Snapshot) -> String {
    let hidden =
        snapshot.incidents.values().filter(|incident| incident.row.muted_by.as_ref() == Some(&mute.id)).count();
    let until = match mute.until {
        None => "for ever".to_owned(),
        Some(until) if until > SystemEnv.now() => format!("until {}", whole_seconds(until)),
        Some(until) => format!("ended {}", whole_seconds(until)),
    };
    let hides = output::amount(hidden as u64, "incident", "incidents");
    let what = logwarden_config::describe_mute(&mute.matches);
    let line = format!("{}  {what}  {until}  hides {hides}  {} {}", mute.id, mute.author, mute.reason);
    Clean::line(line.trim_end()).elided(400).as_str().to_owned()
}

/// `unmute`
pub(crate) async fn unmute(common: &Common, id: &str) -> Result<u8, Failure> {
    let ledger = setup::ledger(common)?;
    let query = Query { mutes: true, incidents: Incidents::Latest { limit: MOST }, ..Query::default() };
    let known = snapshot(&ledger, query).await?;
    // The incident's id works, too: it is what one has at hand.
    let incident = match known.mutes.iter().any(|mute| mute.id == id) {
        true => None,
        false => named(&known, id)?,
    };
    let of = |mute: &&Muted| {
        let of_incident = |incident: &Incident| {
            mute.matches
                .incident
                .as_ref()
                .is_some_and(|of| *of == incident.id.to_string() || incident.muted_by.as_ref() == Some(&mute.id))
        };
        mute.id == id || incident.is_some_and(of_incident)
    };
    let writes: Vec<Write> = known.mutes.iter().filter(of).map(|mute| Write::Unmute(mute.id.clone())).collect();
    if writes.is_empty() {
        return Err(Failure::usage(format!("there is no mute {id:?}"))
            .hint(format!("`{}` shows them", program::command("mute --list"))));
    }
    note(&ledger, writes).await?;
    output::write(b"messages about it are sent again\n")?;
    Ok(0)
}

/// `forget`
pub(crate) async fn forget(common: &Common, id: &str) -> Result<u8, Failure> {
    let ledger = setup::ledger(common)?;
    let query = Query { incidents: Incidents::Latest { limit: MOST }, ..Query::default() };
    let snapshot = snapshot(&ledger, query).await?;
    let leaves: Vec<LeafId> = match (named(&snapshot, id)?, id.parse::<LeafId>()) {
        (Some(incident), _) => incident.cited.iter().filter_map(|cited| cited.leaf).collect(),
        (None, Ok(leaf)) => vec![leaf],
        (None, Err(_)) => {
            return Err(Failure::usage(format!("{id:?} is neither a template nor an incident")).hint(format!(
                "a template's id has 32 digits; `{}` lists incidents",
                program::command("incidents --all")
            )));
        }
    };
    let n = leaves.len() as u64;
    note(&ledger, leaves.into_iter().map(Write::Forget).collect()).await?;
    let what = output::amount(n, "template is forgotten and", "templates are forgotten and");
    output::write(format!("{what} learned anew\n").as_bytes())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use logwarden_core::{ProfileName, Timestamp, ledger::SegmentId};

    use super::*;

    #[test]
    fn a_summary_says_when_how_bad_and_whose_words_it_is() {
        let from = Timestamp::from_nanos(1_795_233_605_123_456_789);
        let ours = Summary {
            segment: SegmentId(1),
            profile: ProfileName::general(),
            at: from,
            from,
            to: from.plus(std::time::Duration::from_secs(290)),
            lines: 1204,
            severity: Some(Severity::High),
            text: "A password is being guessed.\u{1b}[2J".to_owned(),
            model: Some("qwen3:4b-instruct".to_owned()),
        };
        let quiet = Summary { to: from, lines: 1, severity: None, model: None, ..ours.clone() };
        insta::assert_snapshot!(summary_lines(&ours) + &summary_lines(&quiet), @"

        2026-11-21 04:00Z – 2026-11-21 04:04Z · general · high · 1,204 lines
          A password is being guessed.
          (words of the model qwen3:4b-instruct, unverified)

        2026-11-21 04:00Z · general · nothing wrong · 1 line
          A password is being guessed.
        ");
    }
}
