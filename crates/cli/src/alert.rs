//! A test message through the channels: `test-alert`.

use std::{fmt::Write as _, sync::Arc};

use logwarden_core::{
    Severity,
    env::Env,
    error::chain,
    message::{Body, Message, Notice, SendId, Untrusted},
    notifier::{Form, Notifier, NotifyError},
};

use crate::{args::Common, failure::Failure, output, setup};

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
