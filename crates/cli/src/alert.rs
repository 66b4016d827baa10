//! Messages about ourselves and units: `test-alert`, `notify-failure`, and that it works again.

use std::{fmt::Write as _, process::Command, sync::Arc, time::Duration};

use logwarden_config::Wired;
use logwarden_core::{
    Severity, Timestamp,
    env::Env,
    error::chain,
    ledger::{Commit, CommitId, Ledger, LedgerError, Query, Versioned, Write},
    message::{Body, Message, Notice, SendId, Untrusted},
    notifier::{Form, Notifier, NotifyError},
    redact::Redactor,
};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use crate::{args::Common, failure::Failure, output, program, setup};

/// A unit that fails again within this time is still in the same outage.
const SAME_OUTAGE: Duration = Duration::from_secs(3600);
/// An outage that lasts is told again after this.
const REMIND: Duration = Duration::from_secs(86_400);

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

/// What is remembered about a unit that failed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Outage {
    since: Timestamp,
    told: Timestamp,
    last: Timestamp,
    failures: u64,
}

/// Tells that a unit has failed: once per outage, and once a day while it lasts.
pub(crate) async fn notify_failure(common: &Common, unit: &str) -> Result<u8, Failure> {
    let unit = if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") };
    let safe = |c: char| c.is_ascii_alphanumeric() || ":-_.@\\".contains(c);
    if unit.starts_with('-') || unit.len() > 255 || !unit.chars().all(safe) {
        return Err(Failure::usage(format!("{unit:?} is not the name of a unit")).hint("for example nginx.service"));
    }
    let setup = setup::load(common)?;
    let state_dir = setup::state_dir(common, Some(&setup.config))?;
    let env = &*setup.env;
    // A unit may have failed because of the state directory: the message goes out all the same.
    let wired = match setup.wire(Some(&state_dir), false).await {
        Ok(wired) => wired,
        Err(_) => setup.wire(None, false).await?,
    };
    let now = env.now();
    let name = format!("failure.{unit}");
    let known = outage(&*wired.ledger, &name).await.unwrap_or_default();
    let version = known.as_ref().map_or(0, |known| known.version);
    let before = known.and_then(|known| known.row).filter(|outage| now.since(outage.last) < SAME_OUTAGE);
    if let Some(outage) = before
        && now.since(outage.told) < REMIND
    {
        let outage = Outage { last: now, failures: outage.failures + 1, ..outage };
        keep(&*wired.ledger, env, &name, Versioned { version, row: Some(outage) }).await;
        info!(unit, failures = outage.failures, since = %outage.since, "failed again; this was told already");
        return Ok(0);
    }
    let failures = before.map_or(1, |outage| outage.failures + 1);
    let redactor = Redactor::new(env.random(), &setup.config.redact)
        .map_err(|error| Failure::usage("redact.patterns cannot be used").because(&error))?;
    let notice = failure_notice(&unit, failures, &redactor);
    let told = tell(&wired, &notice, env).await;
    if told.sent > 0 {
        let outage = Outage { since: before.map_or(now, |outage| outage.since), told: now, last: now, failures };
        keep(&*wired.ledger, env, &name, Versioned { version, row: Some(outage) }).await;
    }
    info!(unit, sent = told.sent, failed = told.failed, "failure told");
    Ok(u8::from(told.failed > 0))
}

/// Tells that our own unit works again, if it was told that it does not.
pub(crate) async fn recovered(wired: &Wired, env: &dyn Env) {
    let unit = format!("{}.service", program::name());
    let name = format!("failure.{unit}");
    let Ok(Some(Versioned { version, row: Some(outage) })) = outage(&*wired.ledger, &name).await else { return };
    let lasted = env.now().since(outage.since).as_secs();
    let notice = Notice {
        severity: Severity::Low,
        title: format!("{unit} works again"),
        facts: vec![
            ("Host".to_owned(), Untrusted::new(setup::host())),
            ("Failures".to_owned(), Untrusted::new(output::grouped(outage.failures))),
            ("Lasted".to_owned(), Untrusted::new(format!("{} min", lasted / 60))),
        ],
        next_steps: vec!["Nothing to do: what was missed has been read now.".to_owned()],
    };
    let told = tell(wired, &notice, env).await;
    if told.failed == 0 {
        keep(&*wired.ledger, env, &name, Versioned { version, row: None }).await;
    }
}

#[derive(Default)]
struct Told {
    sent: u64,
    failed: u64,
}

async fn tell(wired: &Wired, notice: &Notice, env: &dyn Env) -> Told {
    let mut told = Told::default();
    if wired.pipeline.notifiers().is_empty() {
        warn!("no channel is configured: nobody is told");
    }
    for notifier in wired.pipeline.notifiers() {
        if notifier.channel().min_severity > notice.severity && notice.severity != Severity::Low {
            continue;
        }
        match notifier.send(&message(notice.clone(), env), Form::Full, None).await {
            Ok(_) => told.sent += 1,
            Err(error) => {
                error!(channel = %notifier.channel().name, error = %chain(&error), "could not tell");
                told.failed += 1;
            }
        }
    }
    told
}

async fn outage(ledger: &dyn Ledger, name: &str) -> Result<Option<Versioned<Option<Outage>>>, LedgerError> {
    let query = Query { values: vec![name.to_owned()], ..Query::default() };
    let value = ledger.read(&query).await?.values.remove(name);
    Ok(value
        .map(|value| Versioned { version: value.version, row: serde_json::from_value(value.row).unwrap_or_default() }))
}

async fn keep(ledger: &dyn Ledger, env: &dyn Env, name: &str, outage: Versioned<Option<Outage>>) {
    let Ok(row) = serde_json::to_value(outage.row) else { return };
    let write = Write::Value(name.to_owned(), Versioned { version: outage.version, row });
    let id = CommitId(u128::from(env.random()) << 64 | u128::from(env.random()));
    if let Err(error) = ledger.commit(&Commit { id, writes: vec![write] }).await {
        warn!(error = %chain(&error), "could not note what was told");
    }
}

fn failure_notice(unit: &str, failures: u64, redactor: &Redactor) -> Notice {
    let mut facts = vec![("Unit".to_owned(), Untrusted::new(unit)), ("Host".to_owned(), Untrusted::new(setup::host()))];
    let shown = ask("systemctl", &["show", "--property=Result,ExecMainStatus", unit]);
    for (key, label) in [("Result=", "Result"), ("ExecMainStatus=", "Exit status")] {
        if let Some(value) = shown.lines().find_map(|line| line.strip_prefix(key)).filter(|value| !value.is_empty()) {
            facts.push((label.to_owned(), Untrusted::new(value)));
        }
    }
    if failures > 1 {
        facts.push(("Failures".to_owned(), Untrusted::new(output::grouped(failures))));
    }
    let journal = ask("journalctl", &["--no-pager", "--output=cat", "--lines=40", "--unit", unit]);
    let tell =
        |line: &&str| ["error", "ERROR", "fatal", "FATAL", "panic", "ailed"].iter().any(|word| line.contains(word));
    let lines = || journal.lines().rev().filter(|line| !line.trim().is_empty());
    if let Some(line) = lines().find(tell).or_else(|| lines().next()) {
        facts.push(("Last error".to_owned(), Untrusted::new(redactor.redact(line))));
    }
    Notice {
        severity: Severity::High,
        title: format!("{unit} has failed"),
        facts,
        next_steps: vec![format!("journalctl -u {unit} -n 50 --no-pager"), format!("systemctl status {unit}")],
    }
}

/// What a program says, at most 64 KiB; nothing when it cannot be had.
fn ask(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(std::process::Stdio::null()).output();
    let mut bytes = output.map(|output| output.stdout).unwrap_or_default();
    bytes.truncate(64 * 1024);
    String::from_utf8_lossy(&bytes).into_owned()
}
