//! What every notifier promises.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use logwarden_core::{
    Severity,
    message::Message,
    notifier::Notifier,
    testing::notifier::{Platform, says_why_it_failed, sends_each_message_once},
};
use logwarden_notifiers::{Ndjson, Style, Terminal};
use logwarden_tests::{
    chat::{Fault, Response, Server, Service},
    discord, slack, webhook,
};

use crate::samples;

async fn check<S: Service>(server: &Server<S>, notifier: &dyn Notifier) {
    let attempts = || server.requests().len() as u64;
    let address = server.address().to_string();
    let platform = Platform { attempts: &attempts, secrets: &[&address, samples::SECRET] };
    let messages: Vec<Message> = samples::all().into_iter().map(|(_, message)| message).collect();
    sends_each_message_once(notifier, &platform, &messages).await;
    server.script([Fault::Answer(Response::empty(500))]);
    let error = says_why_it_failed(notifier, &platform, &messages[0]).await;
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn each_keeps_its_promises() {
    let server = Server::start(discord::Discord::default()).await.unwrap();
    check(&server, &samples::discord_at(&server)).await;
    let server = Server::start(slack::Slack::default()).await.unwrap();
    check(&server, &samples::slack_at(&server)).await;
    let server = Server::start(webhook::Webhook::default()).await.unwrap();
    check(&server, &samples::webhook_at(&server)).await;
}

/// Counts what is written at once; fails when it is told to.
#[derive(Clone, Default)]
struct Writes(Arc<AtomicU64>, Arc<AtomicBool>);

impl Write for Writes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(1, Ordering::Relaxed);
        if self.1.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn so_do_those_that_write() {
    let messages: Vec<Message> = samples::all().into_iter().map(|(_, message)| message).collect();
    let (terminal, lines) = (Writes::default(), Writes::default());
    let channels: [(&dyn Notifier, &Writes); 2] = [
        (&Terminal::new("terminal", Box::new(terminal.clone()), Style::default(), Severity::Low), &terminal),
        (&Ndjson::new("lines", Box::new(lines.clone()), Severity::Low), &lines),
    ];
    for (channel, writes) in channels {
        let attempts = || writes.0.load(Ordering::Relaxed);
        let platform = Platform { attempts: &attempts, secrets: &[] };
        sends_each_message_once(channel, &platform, &messages).await;
        writes.1.store(true, Ordering::Relaxed);
        assert!(says_why_it_failed(channel, &platform, &messages[0]).await.is_transient());
    }
}
