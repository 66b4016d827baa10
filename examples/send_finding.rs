//! Sends one finding to Slack, without a pipeline; the address comes from the environment, since it is a password:
//! `SLACK_WEBHOOK_URL=https://hooks.slack.com/… cargo run -p logwarden-tests --example send_finding`.
use std::error::Error;

use logwarden_config::SystemEnv;
use logwarden_core::{
    Severity,
    env::Env,
    message::{Body, Message, Notice, SendId, Untrusted},
    notifier::{Form, Notifier},
};
use logwarden_notifiers::Slack;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("SLACK_WEBHOOK_URL")?.into();
    let slack = Slack::new("slack", &url, Severity::Low, b"hashes the address for comparisons")?;
    let finding = Notice {
        severity: Severity::High,
        title: "The nightly backup of db-1 has failed".to_owned(),
        // What is not ours is marked: it is cleaned and escaped on the way out.
        facts: vec![("Last line".to_owned(), Untrusted::new("pg_dump: error: connection to server failed <!channel>"))],
        next_steps: vec!["journalctl -u backup.service -n 50".to_owned()],
    };
    let id = SendId(u128::from(SystemEnv.random()));
    let message = Message { id, at: SystemEnv.now(), body: Body::Notice(finding), possible_repeat: false };
    slack.send(&message, Form::Full, None).await?;
    Ok(())
}
