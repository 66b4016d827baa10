//! Units that have failed: told once, again when it lasts, and when it is over.
//!
//! A unit may have failed because of our state: the disk is full, or the file is damaged. Its failure is then told from a
//! state of its own that is on no disk, so that it is told once all the same, however often the unit is started anew. That
//! one goes on with what it has begun to tell until some time after it is over. Since the usual state may fail in the
//! middle of a message and come back, neither says what the other has said.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use logwarden_config::Wired;
use logwarden_core::{
    Timestamp,
    error::chain,
    pipeline::{Pipeline, PipelineError, Trouble},
    redact::Redactor,
};
use tracing::{info, warn};

use crate::{
    alive,
    args::Common,
    failure::Failure,
    program,
    setup::{self, Setup},
};

/// What is due when a unit has failed may take so long to be told.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often units that have failed are looked at by programs that go on.
const LOOK: Duration = Duration::from_secs(60);
/// How long a program that ends waits to say that it works again.
const SOON: Duration = Duration::from_secs(5);

/// Tells that a unit has failed, as an incident like any other: once, again when it lasts, and when it is over.
pub(crate) async fn notify_failure(common: &Common, unit: &str) -> Result<u8, Failure> {
    let unit = if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") };
    let safe = |c: char| c.is_ascii_alphanumeric() || ":-_.@\\".contains(c);
    if unit.starts_with('-') || unit.len() > 255 || !unit.chars().all(safe) {
        return Err(Failure::usage(format!("{unit:?} is not the name of a unit")).hint("for example nginx.service"));
    }
    let setup = setup::load(common)?;
    let state_dir = setup::state_dir(common, Some(&setup.config))?;
    let redactor = Redactor::new(setup.env.random(), &setup.config.redact)
        .map_err(|error| Failure::usage("redact.patterns cannot be used").because(&error))?;
    let reason = how_it_ended(&unit, &redactor).await;
    let aside = setup::aside();
    let aside = aside.as_deref();
    if !tells_aside(&setup, aside, &unit).await {
        match tell(&setup, Some(&state_dir), aside, &unit, &reason).await {
            Ok(code) => return Ok(code),
            Err(failure) => {
                let (now, told) = (setup.env.now(), aside.and_then(|aside| Marker::of(aside, &unit).read()));
                if told.is_some_and(|told| told <= now && now.since(told) < setup.config.alerts.window) {
                    warn!(reason = failure.line(), "the state cannot be used; this outage was told before");
                    return Ok(0);
                }
                warn!(reason = failure.line(), "the state cannot be used: told without it");
            }
        }
    }
    if aside.is_some() {
        match tell(&setup, aside, None, &unit, &reason).await {
            Ok(code) => return Ok(code),
            Err(failure) => {
                warn!(reason = failure.line(), "nor can anything be kept aside: it is told at every failure")
            }
        }
    }
    tell(&setup, None, None, &unit, &reason).await
}

/// The state that is kept aside, if there is one.
async fn wire_aside(setup: &Setup, aside: Option<&Path>) -> Option<Wired> {
    let aside = aside.filter(|aside| logwarden_config::has_state(aside))?;
    let wired = setup.wire_channels(Some(aside), None).await;
    wired.inspect_err(|failure| warn!(reason = failure.line(), "what is kept aside cannot be read")).ok()
}

/// Whether that state tells about the outages of a unit.
async fn tells_aside(setup: &Setup, aside: Option<&Path>, unit: &str) -> bool {
    let Some(wired) = wire_aside(setup, aside).await else { return false };
    let trouble = Trouble::UnitFailed { unit: unit.to_owned(), reason: String::new() };
    wired.pipeline.knows_of(&trouble).await.unwrap_or(false)
}

async fn tell(
    setup: &Setup,
    state_dir: Option<&Path>,
    beside: Option<&Path>,
    unit: &str,
    reason: &str,
) -> Result<u8, Failure> {
    let wired = setup.wire_channels(state_dir, beside).await?;
    let told = tell_with(setup, &wired.pipeline, state_dir, unit, reason).await;
    match (&told, beside, &wired.both) {
        (Ok(_), Some(beside), _) => {
            let known = wired.pipeline.failed_units().await.unwrap_or_default();
            Marker::of(beside, unit).set(known.iter().find(|known| known.unit == unit).and_then(|known| known.told));
        }
        (Err(_), _, Some(both)) => both.hand_over().await,
        _ => {}
    }
    told.map_err(|error| Failure::failed("cannot use the state").because(&error))
}

async fn tell_with(
    setup: &Setup,
    pipeline: &Pipeline,
    state_dir: Option<&Path>,
    unit: &str,
    reason: &str,
) -> Result<u8, PipelineError> {
    // What failed may have been killed while it was telling something.
    let _alive = match state_dir {
        Some(state_dir) => Some(alive::take_over(pipeline, state_dir).await),
        None => None,
    };
    if pipeline.notifiers().is_empty() {
        warn!("no channel is configured: nobody is told");
    }
    let (now, window) = (setup.env.now(), pipeline.policy().window);
    let known = pipeline.failed_units().await?.into_iter().find(|known| known.unit == unit);
    let trouble = Trouble::UnitFailed { unit: unit.to_owned(), reason: reason.to_owned() };
    if let Some(known) = known.filter(|known| now.since(known.last) >= window)
        && active_at(unit).await.is_some_and(|active| active <= known.last)
    {
        // Nobody looked meanwhile, but it has not worked since: the same outage.
        pipeline.trouble_goes_on(&trouble).await?;
    }
    pipeline.report_trouble(&[trouble]).await?;
    pipeline.tick().await?;
    let deliver = pipeline.deliver(setup.env.now().plus(PATIENCE)).await?;
    info!(
        sent = deliver.sent,
        failed = deliver.failed,
        waiting = deliver.waiting,
        broken = deliver.broken,
        "the failure of a unit is noted; what was told already is not told again"
    );
    Ok(u8::from(deliver.waiting > 0 || deliver.broken > 0))
}

/// A file that says when all channels were last told of an outage: a state that fails later cannot be asked.
struct Marker(PathBuf);

impl Marker {
    fn of(aside: &Path, unit: &str) -> Self {
        Self(aside.join(format!("told-{unit}")))
    }

    fn set(&self, told: Option<Timestamp>) {
        let Some((told, directory)) = told.zip(self.0.parent()) else { return };
        let _ = logwarden_sqlite::private_dir(directory).map(|()| fs::write(&self.0, told.nanos().to_string()));
    }

    fn read(&self) -> Option<Timestamp> {
        fs::read_to_string(&self.0).ok()?.parse().ok().map(Timestamp::from_nanos)
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// When a unit was active last, where systemd knows: not of those that only run and end.
async fn active_at(unit: &str) -> Option<Timestamp> {
    let shown = ask("systemctl", &["show", "--timestamp=unix", "--property=ActiveEnterTimestamp", unit]).await;
    let seconds = shown.trim().strip_prefix("ActiveEnterTimestamp=@")?.parse().ok()?;
    Some(Timestamp::from_secs(seconds))
}

/// The unit that `init` writes for this program, and the one that it runs in: whatever that is called, the control group has
/// its name.
fn own_units() -> BTreeSet<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    unit_of(&groups).into_iter().chain([format!("{}.service", program::name())]).collect()
}

fn unit_of(groups: &str) -> Option<String> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let unit = own.rsplit('/').find(|part| part.ends_with(".service"))?;
    // A person's shell and what it starts are in the service of the session.
    (!unit.starts_with("user@")).then(|| unit.to_owned())
}

/// Our own unit works again, if it was told that it does not: said by a program that ends now.
pub(crate) async fn recovered(setup: &Setup, pipeline: &Pipeline) {
    look_at_units(pipeline, true).await;
    // A channel may want a moment between two messages.
    if let Err(error) = pipeline.deliver(setup.env.now().plus(SOON)).await {
        warn!(error = %chain(&error), "what is due is told by the next pass");
    }
    look_aside(setup, true).await;
}

/// Looks at the units whose failure was told without the usual state, and tells what is due of them.
pub(crate) async fn look_aside(setup: &Setup, works: bool) {
    let Some(wired) = wire_aside(setup, setup::aside().as_deref()).await else { return };
    look_at_units(&wired.pipeline, works).await;
    let told = async {
        wired.pipeline.tick().await?;
        wired.pipeline.deliver(setup.env.now().plus(SOON)).await
    };
    if let Err(error) = told.await {
        warn!(error = %chain(&error), "what is kept aside is told by the next pass");
    }
}

/// Looks at the units whose failure was told: those that work again are over, and those that do not go on. Of our own only
/// we know: whether it `works`.
pub(crate) async fn look_at_units(pipeline: &Pipeline, works: bool) {
    let own = own_units();
    let aside = setup::aside();
    for failed in pipeline.failed_units().await.unwrap_or_default() {
        let unit = failed.unit.as_str();
        let state = match (own.contains(unit), works) {
            (true, true) => "active".to_owned(),
            (true, false) => "failed".to_owned(),
            (false, _) => ask("systemctl", &["is-failed", unit]).await,
        };
        let trouble = failed.trouble();
        if let (Some(aside), "active" | "inactive") = (&aside, state.trim()) {
            Marker::of(aside, unit).remove();
        }
        let noted = match state.trim() {
            "active" => pipeline.trouble_is_over(&trouble, &format!("{unit} works again")).await,
            // It ran and ended well, or somebody has stopped it.
            "inactive" => pipeline.trouble_is_over(&trouble, &format!("{unit} is no longer failed")).await,
            "failed" => pipeline.trouble_goes_on(&trouble).await,
            _ => continue, // it starts just now, or nobody knows: then it goes quiet like anything else
        };
        if let Err(error) = noted {
            warn!(error = %chain(&error), unit, "could not note how a unit does");
        }
    }
}

/// For a program that goes on: it works once it has done so for a while, and looks at the other units again and again.
pub(crate) async fn keep_looking_at_units(setup: &Setup, pipeline: &Pipeline) {
    loop {
        tokio::time::sleep(LOOK).await;
        look_at_units(pipeline, true).await;
        look_aside(setup, true).await;
    }
}

/// How a unit ended, and the last error that it wrote.
async fn how_it_ended(unit: &str, redactor: &Redactor) -> String {
    let mut facts = Vec::new();
    let shown = ask("systemctl", &["show", "--property=Result,ExecMainStatus", unit]).await;
    for (key, label) in [("Result=", "Result"), ("ExecMainStatus=", "exit status")] {
        if let Some(value) = shown.lines().find_map(|line| line.strip_prefix(key)).filter(|value| !value.is_empty()) {
            facts.push(format!("{label}: {value}"));
        }
    }
    let journal = ask("journalctl", &["--no-pager", "--output=cat", "--lines=40", "--unit", unit]).await;
    let tell =
        |line: &&str| ["error", "ERROR", "fatal", "FATAL", "panic", "ailed"].iter().any(|word| line.contains(word));
    let lines = || journal.lines().rev().filter(|line| !line.trim().is_empty());
    let mut text = facts.join(", ");
    if let Some(line) = lines().find(tell).or_else(|| lines().next()) {
        let line: String = redactor.redact(line).chars().take(500).collect();
        text = format!("{text}{}Last error: {line}", if text.is_empty() { "" } else { ". " });
    }
    if text.is_empty() { "systemd says nothing more about it.".to_owned() } else { text }
}

/// What a program says, at most 64 KiB; nothing when it cannot be had in time.
async fn ask(program: &str, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(program);
    let output = command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(5), output).await;
    let mut bytes = output.ok().and_then(Result::ok).map(|output| output.stdout).unwrap_or_default();
    bytes.truncate(64 * 1024);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_group_names_the_unit() {
        let of = |path: &str| unit_of(&format!("1:name=systemd:/x.service\n0::{path}\n"));
        assert_eq!(of("/system.slice/log-analyzer.service").as_deref(), Some("log-analyzer.service"));
        assert_eq!(of("/system.slice/logwarden-receiver.service/main").as_deref(), Some("logwarden-receiver.service"));
        assert_eq!(of("/user.slice/user-1000.slice/session-3.scope"), None);
        let started_by_hand = "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope";
        assert_eq!((of(started_by_hand), of("/"), unit_of("")), (None, None, None));
    }
}
