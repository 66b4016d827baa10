//! Whatever a log or a model says: messages fit, arrive, and nothing in them is active.

use logwarden_core::{
    detectors::{Entity, EntityKind},
    message::{Body, EvidenceView, IncidentView, Message, Notice, Occasion, OverView, ProseView, Untrusted},
    notifier::{Form, Notifier},
};
use logwarden_notifiers::{Style, render};
use logwarden_tests::{
    chat::Server,
    discord::{self, FakeDiscord},
    inert,
    slack::{self, FakeSlack},
    webhook::{self, FakeWebhook},
};
use proptest::prelude::*;

use crate::samples;

/// Text as an attacker writes it: pieces that mean something somewhere, glued together, or any characters at all.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("@everyone".to_owned()),
        Just("<@&123>".to_owned()),
        Just("<!channel>".to_owned()),
        Just("<https://evil.example|click>".to_owned()),
        Just("[click](https://evil.example)".to_owned()),
        Just("https://evil.example/a?b=c".to_owned()),
        Just("```".to_owned()),
        Just("`".to_owned()),
        Just("\n# big\n- list\n> quote\n".to_owned()),
        Just("**__~~||*_".to_owned()),
        Just("\\".to_owned()),
        Just("&amp;<&>".to_owned()),
        Just("\u{1b}[31mred\u{1b}]8;;https://evil.example\u{7}x".to_owned()),
        Just("\u{202e}\u{200b}\u{feff}\u{0}\r\u{7f}\u{9b}31m".to_owned()),
        Just("👩‍👩‍👧‍👦🇩🇪é".to_owned()),
        Just("a\u{300}".repeat(40)),
        Just("x".repeat(700)),
        "\\PC{0,40}",
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ];
    (proptest::collection::vec(piece, 0..8), prop_oneof![8 => Just(1_usize), 1 => Just(200)])
        .prop_map(|(pieces, times)| pieces.concat().repeat(times))
}

fn prose() -> impl Strategy<Value = Option<ProseView>> {
    proptest::option::of((hostile(), proptest::option::of(hostile())))
        .prop_map(|prose| prose.map(|(text, model)| ProseView { text: Untrusted::new(text), model }))
}

fn incident() -> impl Strategy<Value = IncidentView> {
    let texts = (hostile(), hostile(), hostile(), hostile(), hostile());
    let lines = proptest::collection::vec((any::<i64>(), hostile()), 0..12);
    let entities = proptest::collection::vec((0..6_usize, hostile(), any::<u64>()), 0..9);
    (texts, lines, entities, (prose(), prose(), prose()), (any::<u64>(), any::<i64>(), any::<i64>())).prop_map(
        |((title, host, service, claimed_by, mute), lines, entities, (explanation, comment, recommendation), n)| {
            let kinds = [
                EntityKind::Ip,
                EntityKind::User,
                EntityKind::Unit,
                EntityKind::Host,
                EntityKind::Device,
                EntityKind::Other,
            ];
            let time = logwarden_core::Timestamp::from_nanos;
            IncidentView {
                over: (n.0 % 2 == 0).then(|| OverView { at: time(n.1), how: Untrusted::new(&*title) }),
                title: Untrusted::new(title),
                host: Untrusted::new(host),
                service: Untrusted::new(service),
                other_services: 7,
                claimed_by,
                mute,
                evidence: lines
                    .into_iter()
                    .map(|(at, text)| EvidenceView { time: time(at), text: Untrusted::new(text) })
                    .collect(),
                entities: entities
                    .into_iter()
                    .map(|(kind, value, count)| Entity { kind: kinds[kind], value: value.into(), count })
                    .collect(),
                explanation,
                comment,
                recommendation,
                count: n.0,
                evidence_omitted: n.0,
                entities_omitted: n.0,
                newcomers: Vec::new(),
                late_by_seconds: Some(n.0),
                first: time(n.1),
                last: time(n.2),
                seen_before: Some(time(n.1)),
                ..samples::brute_force()
            }
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    let occasions = prop_oneof![
        Just(Occasion::Fired),
        Just(Occasion::Escalated),
        Just(Occasion::Explained),
        Just(Occasion::Quiet),
        Just(Occasion::Merged),
    ];
    let many =
        (occasions, proptest::collection::vec(incident(), 1..8), prose()).prop_map(|(occasion, incidents, text)| {
            let summary = text.map(|text| logwarden_core::message::SummaryView { text, ..samples::summary(None) });
            Body::Incidents { occasion, incidents, summary }
        });
    let storm = (proptest::collection::vec(incident(), 0..12), any::<u64>()).prop_map(|(top, suppressed)| {
        Body::Rollup(logwarden_core::message::Rollup { top, suppressed, ..samples::rollup() })
    });
    let notice = (
        hostile(),
        proptest::collection::vec((hostile(), hostile()), 0..20),
        proptest::collection::vec(hostile(), 0..12),
    )
        .prop_map(|(title, facts, next_steps)| {
            let facts = facts.into_iter().map(|(label, value)| (label, Untrusted::new(value))).collect();
            Body::Notice(Notice { title, facts, next_steps, ..samples::notice() })
        });
    let summary = prose().prop_filter_map("no words", |text| {
        Some(Body::Summary(logwarden_core::message::SummaryView { text: text?, ..samples::summary(None) }))
    });
    prop_oneof![4 => many, 1 => storm, 1 => notice, 1 => summary].prop_map(samples::message)
}

#[test]
fn whatever_a_log_says_messages_fit_and_nothing_in_them_is_active() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (discord, slack, webhook) = runtime.block_on(async {
        let discord: FakeDiscord = Server::start(discord::Discord::default()).await.unwrap();
        let slack: FakeSlack = Server::start(slack::Slack::default()).await.unwrap();
        let webhook: FakeWebhook = Server::start(webhook::Webhook::default()).await.unwrap();
        (discord, slack, webhook)
    });
    let channels = (samples::discord_at(&discord), samples::slack_at(&slack), samples::webhook_at(&webhook));
    let link = samples::brute_force().link.unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    });
    let checked = runner.run(&any_message(), |message| {
        for form in [Form::Full, Form::Reduced] {
            runtime.block_on(async {
                channels.0.send(&message, form, None).await.unwrap();
                channels.1.send(&message, form, None).await.unwrap();
                channels.2.send(&message, form, None).await.unwrap();
            });
            let posted = discord.with(|discord| discord.messages.pop()).unwrap().payload;
            inert::discord(&posted, Some(&link)).unwrap();
            let posted = slack.with(|slack| slack.messages.pop()).unwrap();
            inert::slack(&posted, Some(&link)).unwrap();
            let posted = webhook.with(|hook| hook.deliveries.pop()).unwrap();
            inert::visible(&posted.payload).unwrap();
            assert!(posted.raw.len() < 2_000_000, "{}", posted.raw.len());
            let drawn = render(&message, form, &Style { color: false, width: 60 });
            inert::terminal(&drawn).unwrap();
        }
        Ok(())
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}

#[test]
fn ten_megabytes_are_no_more_trouble_than_ten_lines() {
    let mut view = samples::brute_force();
    view.title = Untrusted::new("x".repeat(10 << 20));
    view.explanation =
        Some(ProseView { text: Untrusted::new("a b\u{301}`<@> ".repeat(1 << 20)), model: Some("m".into()) });
    let message = samples::incidents(Occasion::Fired, vec![view]);
    let drawn = render(&message, Form::Full, &Style::default());
    assert!(drawn.len() < 20_000 && drawn.contains('…'), "{}", drawn.len());
}
