//! What every notifier promises.

use logwarden_core::{
    message::Message,
    notifier::Notifier,
    testing::notifier::{Platform, says_why_it_failed, sends_each_message_once},
};
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
