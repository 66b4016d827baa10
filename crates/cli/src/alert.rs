//! Messages about ourselves and units: `test-alert`, `notify-failure`, and that it works again.

use std::{collections::BTreeSet, fmt::Write as _, path::Path, sync::Arc, time::Duration};

use logwarden_core::{
    Severity, Timestamp,
    env::Env,
    error::chain,
    message::{Body, Message, Notice, SendId, Untrusted},
    notifier::{Form, Notifier, NotifyError},
    pipeline::{Pipeline, PipelineError, Trouble},
    redact::Redactor,
};
use tracing::{info, warn};

use crate::{
    alive,
    args::Common,
    failure::Failure,
    output, program,
    setup::{self, Setup},
};

/// Sends a test message through every channel, or the named one.
pub(crate) async fn test(common: &Common, channel: Option<&str>) -> Result<u8, Failure> {
    let setup = setup::load(common)?;
    let wired = setup.wire(None, false).await?;
    let all = wired.pipeline.notifiers();
    let chosen: Vec<&Arc<dyn Notifier>> =
        all.iter().filter(|notifier| channel.is_none_or(|name| *notifier.channel().name == *name)).collect();
    if chosen.is_empty() {
        let mut hint = wired.warnings.join("; ");
        if let (Some(_), false) = (channel, all.is_empty()) {
            let names: Vec<&str> = all.iter().map(|notifier| &*notifier.channel().name).collect();
            hint = format!("configured are: {}", names.join(", "));
        } else if hint.is_empty() {
            hint = "set DISCORD_WEBHOOK_URL or SLACK_WEBHOOK_URL, or a [discord] or [slack] table".to_owned();
        }
        let what = match channel {
            Some(name) => format!("there is no channel `{name}`"),
            None => "no channel is configured".to_owned(),
        };
        return Err(Failure::usage(what).hint(hint));
    }
    let host = setup::host();
    let notice = Notice {
        severity: Severity::Low,
        title: "Test message from logwarden, and this channel works".to_owned(),
        facts: vec![("Host".to_owned(), Untrusted::new(host))],
        next_steps: Vec::new(),
    };
    let (mut text, mut failed) = (String::new(), false);
    for notifier in chosen {
        let name = &notifier.channel().name;
        match notifier.send(&message(notice.clone(), &*setup.env), Form::Full, None).await {
            Ok(_) => {
                let _ = writeln!(text, "✓ {name}: the message has arrived");
            }
            Err(error) => {
                failed = true;
                let _ = writeln!(text, "✗ {name}: {}\n  hint: {}", chain(&error), hint(&error));
            }
        }
    }
    output::write(text.as_bytes())?;
    Ok(u8::from(failed))
}

/// What to do about a channel that took nothing.
pub(crate) fn hint(error: &NotifyError) -> &'static str {
    match error {
        NotifyError::Unreachable { .. } => "check the network, the proxy and the address' host; then try again",
        NotifyError::RateLimited { .. } | NotifyError::Banned { .. } => "wait; too many messages went there",
        NotifyError::Broken { .. } => "make a new webhook and put its address into the configuration",
        _ => "look at the reason above; `--verbose` says more",
    }
}

fn message(notice: Notice, env: &dyn Env) -> Message {
    let id = SendId(u128::from(env.random()) << 64 | u128::from(env.random()));
    Message { id, at: env.now(), body: Body::Notice(notice), possible_repeat: false }
}

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
    // A unit may have failed because of the state: the message goes out all the same, and is then remembered nowhere.
    match tell(&setup, Some(&state_dir), &unit, &reason).await {
        Ok(code) => Ok(code),
        Err(failure) => {
            warn!(reason = failure.line(), "the state cannot be used: told without it");
            tell(&setup, None, &unit, &reason).await
        }
    }
}

async fn tell(setup: &Setup, state_dir: Option<&Path>, unit: &str, reason: &str) -> Result<u8, Failure> {
    let wired = setup.wire(state_dir, false).await?;
    // What failed may have been killed while it was telling something.
    let _alive = match state_dir {
        Some(state_dir) => Some(alive::take_over(&wired.pipeline, state_dir).await),
        None => None,
    };
    let state = |error: PipelineError| Failure::failed("cannot use the state").because(&error);
    if wired.pipeline.notifiers().is_empty() {
        warn!("no channel is configured: nobody is told");
    }
    let known = wired.pipeline.failed_units().await.map_err(state)?;
    if let Some(known) = known.iter().find(|known| known.unit == unit)
        && setup.env.now().since(known.last) >= wired.pipeline.policy().window
        && active_at(unit).await.is_some_and(|active| active <= known.last)
    {
        // Nobody looked meanwhile, but it has not worked since: the same outage.
        wired.pipeline.trouble_goes_on(&known.trouble()).await.map_err(state)?;
    }
    let trouble = Trouble::UnitFailed { unit: unit.to_owned(), reason: reason.to_owned() };
    wired.pipeline.report_trouble(&[trouble]).await.map_err(state)?;
    wired.pipeline.tick().await.map_err(state)?;
    let deliver = wired.pipeline.deliver(setup.env.now().plus(PATIENCE)).await.map_err(state)?;
    info!(
        sent = deliver.sent,
        failed = deliver.failed,
        waiting = deliver.waiting,
        broken = deliver.broken,
        "the failure of a unit is noted; what was told already is not told again"
    );
    Ok(u8::from(deliver.waiting > 0 || deliver.broken > 0))
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
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    unit_of(&groups).into_iter().chain([format!("{}.service", program::name())]).collect()
}

fn unit_of(groups: &str) -> Option<String> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let unit = own.rsplit('/').find(|part| part.ends_with(".service"))?;
    // A person's shell and what it starts are in the service of the session.
    (!unit.starts_with("user@")).then(|| unit.to_owned())
}

/// Our own unit works again, if it was told that it does not: said by a program that ends now.
pub(crate) async fn recovered(pipeline: &Pipeline, env: &dyn Env) {
    look_at_units(pipeline, true).await;
    // A channel may want a moment between two messages.
    if let Err(error) = pipeline.deliver(env.now().plus(SOON)).await {
        warn!(error = %chain(&error), "what is due is told by the next pass");
    }
}

/// Looks at the units whose failure was told: those that work again are over, and those that do not go on. Of our own only
/// we know: whether it `works`.
pub(crate) async fn look_at_units(pipeline: &Pipeline, works: bool) {
    let own = own_units();
    for failed in pipeline.failed_units().await.unwrap_or_default() {
        let unit = failed.unit.as_str();
        let state = match (own.contains(unit), works) {
            (true, true) => "active".to_owned(),
            (true, false) => "failed".to_owned(),
            (false, _) => ask("systemctl", &["is-failed", unit]).await,
        };
        let trouble = failed.trouble();
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
pub(crate) async fn keep_looking_at_units(pipeline: &Pipeline) {
    loop {
        tokio::time::sleep(LOOK).await;
        look_at_units(pipeline, true).await;
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
