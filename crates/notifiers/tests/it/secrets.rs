//! Nothing that we print or return contains an address.

use std::sync::{Arc, Mutex};

use logwarden_core::{
    Severity,
    error::chain,
    notifier::{Form, Notifier},
};
use logwarden_notifiers::{Discord, Slack, Webhook};
use logwarden_tests::{
    chat::{Fault, Response, Server},
    discord, slack, webhook,
};
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt};

use crate::samples::{self, Shared, Still};

#[test]
fn no_address_appears_in_any_log_or_error() {
    let logs = Shared::default();
    let writer = Arc::new(Mutex::new(logs.clone()));
    let make = move || writer.lock().unwrap().clone();
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(make);
    let subscriber = tracing_subscriber::registry().with(LevelFilter::TRACE).with(layer);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut seen = String::new();
    tracing::subscriber::with_default(subscriber, || {
        tracing::trace!("the log is on");
        runtime.block_on(async {
            let server = Server::start(discord::Discord::default()).await.unwrap();
            let gone = { Server::start(discord::Discord::default()).await.unwrap() };
            let nobody = (samples::discord_at(&gone), samples::slack_at(&gone), samples::webhook_at(&gone));
            drop(gone);
            let here = (samples::discord_at(&server), samples::slack_at(&server), samples::webhook_at(&server));
            for (discord, slack, webhook) in [nobody, here] {
                let channels: [&dyn Notifier; 3] = [&discord, &slack, &webhook];
                for channel in channels {
                    seen += &format!("{channel:?} {:?}\n", channel.channel());
                    for fault in [
                        Fault::None,
                        Fault::CutAfterRequest,
                        Fault::CutAnswer,
                        Fault::Answer(Response::text(500, "x")),
                        Fault::Answer(Response::empty(307).with("location", "http://127.0.0.1:1/")),
                        Fault::Answer(Response::text(200, "x")),
                    ] {
                        server.script([fault]);
                        match channel.send(&samples::all()[0].1, Form::Full, None).await {
                            Ok(receipt) => seen += &format!("{receipt:?}\n"),
                            Err(error) => seen += &format!("{error} {error:?} {}\n", chain(&error)),
                        }
                    }
                }
                let check = discord.check().await;
                seen += &format!("{check:?}\n");
            }
        });
    });
    for text in [logs.text(), seen] {
        assert!(!text.is_empty());
        for secret in [discord::TOKEN, discord::WEBHOOK, slack::TOKEN, webhook::TOKEN, samples::OLD_SECRET] {
            let at = text.find(secret);
            assert!(at.is_none(), "{secret}: {}", at.map_or("", |at| &text[at.saturating_sub(200)..]));
        }
    }
}

#[test]
fn no_refused_address_is_quoted() {
    let secret = "SECRETmarker77";
    for url in [
        format!("https://discord.com/api/webhooks/x/{secret}"),
        format!("https://discord.com/{secret}"),
        format!("https://hooks.slack.com/triggers/{secret}"),
        format!("http://example.com/services/T/B/{secret}"),
        format!("{secret}://x"),
        format!("http://[{secret}"),
        secret.to_owned(),
    ] {
        let url = url.into();
        let errors = [
            Discord::new("a", &url, Severity::Low, b"").err(),
            Slack::new("a", &url, Severity::Low, b"").err(),
            Webhook::new("a", &url, &[], Severity::Low, b"", Arc::new(Still)).err(),
        ];
        for error in errors.into_iter().flatten() {
            assert!(!format!("{error} {error:?} {}", error.hint()).contains(secret), "{error:?}");
        }
    }
}
