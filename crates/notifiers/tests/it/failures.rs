//! Everything that a platform, a proxy or a network does to a message, and what it is called afterwards.

use std::time::Duration;

use logwarden_core::{
    Severity,
    error::chain,
    notifier::{Form, Notifier, NotifyError, Receipt},
};
use logwarden_tests::{
    chat::{Fault, Response, Server},
    discord::{self, FakeDiscord},
    slack::{self, FakeSlack},
    webhook::{self, FakeWebhook},
};
use serde_json::json;

use crate::samples;

/// What an error asks its caller to do.
fn class(error: &NotifyError) -> String {
    let seconds = |wait: Duration| format!("{}s", wait.as_secs_f64());
    match error {
        NotifyError::Unreachable { ambiguous, retry_after, .. } => {
            let wait = retry_after.map(|wait| format!(", {}", seconds(wait))).unwrap_or_default();
            format!("later{}{wait}", if *ambiguous { ", may have arrived" } else { "" })
        }
        NotifyError::RateLimited { retry_after, .. } => format!("hold the channel {}", seconds(*retry_after)),
        NotifyError::Banned { retry_after, .. } => format!("hold the vendor {}", seconds(*retry_after)),
        NotifyError::ContentRefused { .. } => "reduce".into(),
        NotifyError::NotAmendable { .. } => "anew".into(),
        NotifyError::Broken { .. } => "broken".into(),
        _ => unreachable!("a class that this test does not know"),
    }
}

fn page(text: &str) -> Response {
    Response::text(200, text)
}

#[tokio::test]
async fn discord_says_what_to_do() {
    let server: FakeDiscord = Server::start(discord::Discord::default()).await.unwrap();
    let channel = samples::discord_at(&server);
    let nested = json!({ "message": "Invalid Form Body", "code": 50035, "errors": { "embeds": { "0": {
        "title": { "_errors": [{ "code": "BASE_TYPE_MAX_LENGTH", "message": "x" }] },
        "fields": { "3": { "value": { "_errors": [{ "code": "BASE_TYPE_REQUIRED", "message": "x" }] } } },
    } } } });
    let html_429 = Response::text(429, "<html>slow down</html>");
    let cases = [
        ("400 nested", Response::json(400, &nested)),
        ("400 bare", Response::json(400, &json!({ "embeds": ["0"] }))),
        ("400 empty", discord::error(400, 50006, "Cannot send an empty message")),
        ("400 automod", discord::error(400, 200_000, "Message was blocked by AutoMod")),
        ("400 harmful link", discord::error(400, 240_000, "Message blocked by harmful links filter")),
        ("400 forum", discord::error(400, 220_001, "Webhooks posted to forum channels must have a thread_name")),
        ("400 tag", discord::error(400, 40067, "A tag is required")),
        ("401 token", discord::error(401, 50027, "Invalid Webhook Token")),
        ("403 permissions", discord::error(403, 50013, "Missing Permissions")),
        ("403 edge", discord::error(403, 40333, "internal network error")),
        ("403 html", Response::text(403, "<html>forbidden</html>")),
        ("404 webhook", discord::error(404, 10015, "Unknown Webhook")),
        ("405", discord::error(405, 0, "405: Method Not Allowed")),
        ("410", Response::text(410, "")),
        ("413", discord::error(413, 40005, "Request entity too large")),
        ("429", discord::rate_limited(0.376)),
        ("429 header larger", discord::rate_limited(0.2).with("x-more", "x")),
        ("429 integer", Response::empty(429).with("x-ratelimit-limit", "5").with("retry-after", "7")),
        ("429 header only", Response::empty(429).with("retry-after", "2.5")),
        ("429 body only", Response::json(429, &json!({ "retry_after": 1.5, "global": true }))),
        ("429 reset", Response::empty(429).with("x-ratelimit-reset-after", "3.25")),
        ("429 twenty minutes", Response::json(429, &json!({ "retry_after": 1336.57 }))),
        ("429 a day", Response::json(429, &json!({ "retry_after": 86_400 }))),
        ("429 negative", Response::empty(429).with("x-ratelimit-limit", "5").with("retry-after", "-3")),
        (
            "429 date",
            html_429
                .clone()
                .with("date", "Sat, 21 Nov 2026 03:00:00 GMT")
                .with("retry-after", "Sat, 21 Nov 2026 03:00:42 GMT"),
        ),
        ("429 nothing", Response::empty(429)),
        ("429 html", html_429),
        ("429 1015", discord::banned().with("retry-after", "3600")),
        (
            "429 code 0",
            Response::json(
                429,
                &json!({ "message": "You are being blocked from accessing our API temporarily due to exceeding our rate limits frequently.", "code": 0 }),
            ),
        ),
        ("500", Response::text(500, "oops")),
        ("502", Response::text(502, "<html>bad gateway</html>")),
        ("503 wait", Response::text(503, "").with("retry-after", "20")),
        ("400 overloaded", discord::error(400, 130_000, "API resource is currently overloaded")),
        ("302", Response::empty(302).with("location", "http://127.0.0.1:1/login")),
        ("200 login page", page("<html>please log in</html>")),
        ("200 other json", Response::json(200, &json!({ "id": "not a number" }))),
        ("200 empty", page("")),
    ];
    let mut table = String::new();
    for (name, response) in cases {
        server.script([Fault::Answer(response)]);
        let error = channel.send(&samples::all()[0].1, Form::Full, None).await.unwrap_err();
        table += &format!("{name:<20} {:<24} {}\n", class(&error), chain(&error));
    }
    insta::assert_snapshot!("discord_failures", table);
    assert!(server.with(|discord| discord.messages.is_empty()));
}

#[tokio::test]
async fn discord_says_when_a_message_cannot_be_amended() {
    let server: FakeDiscord = Server::start(discord::Discord::default()).await.unwrap();
    let channel = samples::discord_at(&server);
    let message = &samples::all()[0].1;
    let receipt = channel.send(message, Form::Full, None).await.unwrap();
    for response in [
        discord::error(429, 30046, "Maximum number of edits to messages older than 1 hour reached. Try again later"),
        discord::error(404, 10008, "Unknown Message"),
        discord::error(400, 50083, "Thread is archived"),
    ] {
        server.script([Fault::Answer(response)]);
        let error = channel.send(message, Form::Full, Some(&receipt)).await.unwrap_err();
        assert_eq!(class(&error), "anew", "{error}");
    }
    for receipt in ["", "1/2/3", "../../x", "1/"] {
        let asked = server.requests().len();
        let error = channel.send(message, Form::Full, Some(&Receipt(receipt.into()))).await.unwrap_err();
        assert_eq!((class(&error), server.requests().len()), ("anew".into(), asked), "{receipt}");
    }
    server.with(|discord| discord.messages.clear());
    let error = channel.send(message, Form::Full, Some(&receipt)).await.unwrap_err();
    insta::assert_snapshot!(error, @"channel `team-discord` cannot amend the message: HTTP 404, code 10008: Unknown Message");
}

#[tokio::test]
async fn a_stand_in_for_discord_may_confirm_without_a_message() {
    let server: FakeDiscord = Server::start(discord::Discord::default()).await.unwrap();
    let channel = samples::discord_at(&server);
    server.script([Fault::TakeAndAnswer(Response::empty(204))]);
    let receipt = channel.send(&samples::all()[0].1, Form::Full, None).await.unwrap();
    let error = channel.send(&samples::all()[0].1, Form::Full, Some(&receipt)).await.unwrap_err();
    assert_eq!(class(&error), "anew");
}

#[tokio::test]
async fn slack_says_what_to_do() {
    let server: FakeSlack = Server::start(slack::Slack::default()).await.unwrap();
    let channel = samples::slack_at(&server);
    let cases = [
        ("400 payload", Response::text(400, "invalid_payload")),
        ("400 blocks", Response::text(400, "invalid_blocks")),
        ("400 format", Response::text(400, "invalid_blocks_format")),
        ("400 too long", Response::text(400, "msg_blocks_too_long")),
        ("400 attachments", Response::text(400, "too_many_attachments")),
        ("400 no text", Response::text(400, "no_text")),
        ("400 token", Response::text(400, "invalid_token")),
        ("403 token", Response::text(403, "invalid_token")),
        ("403 prohibited", Response::text(403, "action_prohibited")),
        ("403 team", Response::text(403, "team_disabled")),
        ("404 service", Response::text(404, "no_service")),
        ("404 channel", Response::text(404, "channel_not_found")),
        ("410", Response::text(410, "channel_is_archived")),
        ("429", slack::rate_limited(30)),
        ("429 nothing", Response::text(429, "rate_limited")),
        ("429 json", Response::json(429, &json!({ "retry_after": 12, "ok": false, "error": "rate_limited" }))),
        ("500", Response::text(500, "rollup_error")),
        ("504", Response::text(504, "<html>gateway timeout</html>")),
        ("302", Response::empty(302).with("location", "http://127.0.0.1:1/login")),
        ("200 login page", page("<html>please log in, ok?</html>")),
        ("200 json", Response::json(200, &json!({ "ok": true }))),
        ("204", Response::empty(204)),
    ];
    let mut table = String::new();
    for (name, response) in cases {
        server.script([Fault::Answer(response)]);
        let error = channel.send(&samples::all()[0].1, Form::Full, None).await.unwrap_err();
        table += &format!("{name:<20} {:<24} {}\n", class(&error), chain(&error));
    }
    insta::assert_snapshot!("slack_failures", table);
}

#[tokio::test]
async fn a_webhook_says_what_to_do() {
    let server: FakeWebhook = Server::start(webhook::Webhook::default()).await.unwrap();
    let channel = samples::webhook_at(&server);
    for (status, wanted) in [
        (200, "delivered"),
        (204, "delivered"),
        (301, "later"),
        (400, "reduce"),
        (401, "broken"),
        (404, "broken"),
        (408, "later"),
        (410, "broken"),
        (413, "reduce"),
        (425, "later"),
        (429, "hold the channel 30s"),
        (500, "later"),
        (504, "later, may have arrived"),
    ] {
        server.script([Fault::Answer(Response::empty(status))]);
        let result = channel.send(&samples::all()[0].1, Form::Full, None).await;
        assert_eq!(result.map_or_else(|error| class(&error), |_| "delivered".into()), wanted, "{status}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_told_from_a_refused_connection() {
    let server: FakeDiscord = Server::start(discord::Discord::default()).await.unwrap();
    let channel = samples::discord_at(&server);
    let message = &samples::all()[0].1;
    for fault in [Fault::CutAfterRequest, Fault::CutAnswer] {
        server.script([fault]);
        let error = channel.send(message, Form::Full, None).await.unwrap_err();
        assert_eq!(class(&error), "later, may have arrived", "{}", chain(&error));
    }
    assert_eq!(server.with(|discord| discord.messages.len()), 2);
    server.script([Fault::Drip(Duration::ZERO)]);
    channel.send(message, Form::Full, None).await.unwrap();
    drop(server);
    let error = channel.send(message, Form::Full, None).await.unwrap_err();
    assert_eq!(class(&error), "later", "{}", chain(&error));
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let server: FakeSlack = Server::start(slack::Slack::default()).await.unwrap();
    server.script([Fault::Answer(page(&"x".repeat(10_000_000)))]);
    let error = samples::slack_at(&server).send(&samples::all()[0].1, Form::Full, None).await.unwrap_err();
    assert!(chain(&error).len() < 400, "{}", chain(&error).len());
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let elsewhere: FakeSlack = Server::start(slack::Slack::default()).await.unwrap();
    let server: FakeSlack = Server::start(slack::Slack::default()).await.unwrap();
    for status in [301, 302, 303, 307, 308] {
        server.script([Fault::Answer(Response::empty(status).with("location", &slack::url(&elsewhere)))]);
        samples::slack_at(&server).send(&samples::all()[0].1, Form::Full, None).await.unwrap_err();
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn the_destination_depends_on_address_and_key_only() {
    let url = || "https://discord.com/api/webhooks/1/a".to_owned().into();
    let new = |name: &str, url, key: &[u8]| {
        logwarden_notifiers::Discord::new(name, &url, Severity::Low, key).unwrap().channel().destination
    };
    let here = new("a", url(), b"key");
    assert_eq!(here, new("b", "https://ptb.discordapp.com/api/v6/webhooks/1/a?wait=1".to_owned().into(), b"key"));
    assert_ne!(here, new("a", url(), b"other"));
    assert_ne!(here, new("a", "https://discord.com/api/webhooks/1/a?thread_id=5".to_owned().into(), b"key"));
}
