//! What arrives, for a person to read: every kind of message in both forms.

use logwarden_core::{
    Severity,
    detectors::{Entity, EntityKind},
    message::{Body, EvidenceView, IncidentView, Occasion, Untrusted},
    notifier::{Form, Notifier},
};
use logwarden_notifiers::{Ndjson, Style, Terminal, render};
use logwarden_tests::{
    chat::Server,
    discord::{self, FakeDiscord},
    slack::{self, FakeSlack},
    webhook::{self, FakeWebhook},
};

use crate::samples::{self, Shared};

const FORMS: [(&str, Form); 2] = [("full", Form::Full), ("reduced", Form::Reduced)];

fn short_links(text: &str) -> String {
    text.replace(&samples::brute_force().link.unwrap(), "https://grafana.example/explore?…")
}

#[tokio::test]
async fn discord_shows() {
    let server: FakeDiscord = Server::start(discord::Discord::default()).await.unwrap();
    let channel = samples::discord_at(&server);
    for (form_name, form) in FORMS {
        let mut page = String::new();
        for (name, message) in samples::all() {
            channel.send(&message, form, None).await.unwrap();
            let payload = server.with(|discord| discord.messages.last().unwrap().payload.clone());
            page += &format!("──── {name}\n{}\n", discord::readable(&payload));
        }
        insta::assert_snapshot!(format!("discord_{form_name}"), short_links(&page));
    }
}

#[tokio::test]
async fn slack_shows() {
    let server: FakeSlack = Server::start(slack::Slack::default()).await.unwrap();
    let channel = samples::slack_at(&server);
    for (form_name, form) in FORMS {
        let mut page = String::new();
        for (name, message) in samples::all() {
            channel.send(&message, form, None).await.unwrap();
            let payload = server.with(|slack| slack.messages.last().unwrap().clone());
            assert_eq!(payload["unfurl_links"], false);
            assert_eq!(payload["unfurl_media"], false);
            page += &format!("──── {name}\n{}\n", slack::readable(&payload));
        }
        insta::assert_snapshot!(format!("slack_{form_name}"), short_links(&page).replace("&amp;", "&"));
    }
}

/// What is said in our own words names a command that the sender has.
#[tokio::test]
async fn commands_are_those_of_the_program_that_sends() {
    let (rollup, fired) = (samples::message(Body::Rollup(samples::rollup())), &samples::all()[0].1);
    let messages = [(&rollup, Form::Full), (fired, Form::Reduced)];
    let discord: FakeDiscord = Server::start(discord::Discord::default()).await.unwrap();
    let slack: FakeSlack = Server::start(slack::Slack::default()).await.unwrap();
    let channels: [&dyn Notifier; 2] = [
        &samples::discord_at(&discord).program("logwarden-receiver"),
        &samples::slack_at(&slack).program("logwarden-receiver"),
    ];
    for channel in channels {
        for (message, form) in messages {
            channel.send(message, form, None).await.unwrap();
        }
    }
    let mut told: Vec<_> = discord.with(|discord| discord.messages.iter().map(|m| m.payload.to_string()).collect());
    told.extend(slack.with(|slack| slack.messages.iter().map(ToString::to_string).collect::<Vec<_>>()));
    assert_eq!(told.len(), 4);
    for payload in told {
        assert!(payload.contains("`logwarden-receiver incidents`"), "{payload}");
    }
}

#[tokio::test]
async fn the_terminal_shows() {
    for (form_name, form) in FORMS {
        let mut page = String::new();
        for (name, message) in samples::all() {
            let text = render(&message, form, &Style { color: false, width: 90 });
            assert!(!text.contains('\u{1b}'));
            page += &format!("──── {name}\n{text}\n");
        }
        insta::assert_snapshot!(format!("terminal_{form_name}"), short_links(&page));
    }
    let out = Shared::default();
    let style = Style { color: true, width: 90 };
    let channel = Terminal::new("terminal", Box::new(out.clone()), style, Severity::Low);
    channel.send(&samples::all()[1].1, Form::Full, None).await.unwrap();
    insta::assert_snapshot!("terminal_in_colour", out.text().replace('\u{1b}', "␛"));
}

#[test]
fn who_came_last_is_named_beside_those_who_come_most() {
    let address = |n: u64, count| Entity { kind: EntityKind::Ip, value: format!("198.51.100.{n}").into(), count };
    let shown = |newcomers: Vec<Entity>, entities_omitted| {
        let entities = (1..=9).map(|n| address(n, 100 - n)).collect();
        let view = IncidentView { entities, entities_omitted, newcomers, ..samples::brute_force() };
        let page =
            render(&samples::incidents(Occasion::Grew, vec![view]), Form::Full, &Style { color: false, width: 200 });
        page.lines().find(|line| line.contains("198.51.100.1 ")).unwrap().trim().to_owned()
    };
    insta::assert_snapshot!(shown(Vec::new(), 3), @"addresses  198.51.100.1 (99 times), 198.51.100.2 (98 times), 198.51.100.3 (97 times), 198.51.100.4 (96 times), 198.51.100.5 (95 times) and 7 more");
    insta::assert_snapshot!(shown(vec![address(2, 98), address(9, 91)], 3), @"addresses  198.51.100.1 (99 times), 198.51.100.2 (98 times), 198.51.100.3 (97 times), 198.51.100.4 (96 times), 198.51.100.9 (91 times) and 7 more");
    insta::assert_snapshot!(shown(vec![address(8, 92), address(9, 91)], 3), @"addresses  198.51.100.1 (99 times), 198.51.100.2 (98 times), 198.51.100.3 (97 times), 198.51.100.9 (91 times), 198.51.100.8 (92 times) and 7 more");
}

/// `journalctl -o json` is two kilobytes a line, and what it says stands anywhere in it.
#[tokio::test]
async fn a_record_of_the_journal_is_shown_as_the_journal_shows_it_and_kept_as_it_is() {
    let padding = "x".repeat(900);
    let record = |message: &str| {
        format!(
            r#"{{"__CURSOR":"s={padding}","__REALTIME_TIMESTAMP":"1795233600000000","SYSLOG_IDENTIFIER":"sshd","_PID":"411","_COMM":"sshd","MESSAGE":{message},"_CMDLINE":"{padding}"}}"#
        )
    };
    let lines = [
        record(r#""Failed password for root ```<!channel>""#),
        // Bytes that are no text, and fields that are no record of the journal's.
        record("[104,105,255,27,91,51,49,109]"),
        r#"{"MESSAGE":"an application's own","level":"error"}"#.to_owned(),
        r#"{"MESSAGE":7,"_HOSTNAME":"web-1"}"#.to_owned(),
        r#"{"MESSAGE":"from a container without a name","_HOSTNAME":"web-1"}"#.to_owned(),
        format!("{} and more", record(r#""x""#)).chars().take(40).collect(),
    ];
    let time = samples::NOW;
    let evidence = lines.iter().map(|text| EvidenceView { time, text: Untrusted::new(text.clone()) }).collect();
    let view = IncidentView { evidence, ..samples::brute_force() };
    let message = samples::incidents(Occasion::Fired, vec![view]);
    let page = render(&message, Form::Full, &Style { color: false, width: 200 });
    let shown: Vec<_> =
        page.lines().skip_while(|line| !line.contains("lines")).skip(1).take(6).map(str::trim).collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    03:15:00 sshd[411]: Failed password for root ```<!channel>
    03:15:00 sshd[411]: hi�
    03:15:00 {"MESSAGE":"an application's own","level":"error"}
    03:15:00 {"MESSAGE":7,"_HOSTNAME":"web-1"}
    03:15:00 from a container without a name
    03:15:00 {"__CURSOR":"s=xxxxxxxxxxxxxxxxxxxxxxxxx
    "#);
    let out = Shared::default();
    let ndjson = Ndjson::new("lines", Box::new(out.clone()), Severity::Low);
    ndjson.send(&message, Form::Full, None).await.unwrap();
    let document: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
    assert_eq!(document["data"]["incidents"][0]["log_lines"][0]["text"], lines[0].as_str());
}

#[tokio::test]
async fn webhook_and_json_lines_carry_the_same_document() {
    let server: FakeWebhook = Server::start(webhook::Webhook::default()).await.unwrap();
    let channel = samples::webhook_at(&server);
    let out = Shared::default();
    let lines = Ndjson::new("lines", Box::new(out.clone()), Severity::Low);
    for (_, message) in samples::all() {
        channel.send(&message, Form::Full, None).await.unwrap();
        lines.send(&message, Form::Full, None).await.unwrap();
    }
    let posted: Vec<_> = server.with(|hook| hook.deliveries.iter().map(|delivery| delivery.payload.clone()).collect());
    let written: Vec<serde_json::Value> = out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(posted, written);
    insta::assert_json_snapshot!("webhook_fired", posted[0]);
    insta::assert_json_snapshot!("webhook_rollup_kind", &posted[8]["data"]["rollup"]);
    channel.send(&samples::all()[0].1, Form::Reduced, None).await.unwrap();
    insta::assert_json_snapshot!(
        "webhook_reduced",
        server.with(|hook| hook.deliveries.last().unwrap().payload.clone())
    );
}

#[tokio::test]
async fn an_amended_message_is_changed_in_place_and_mentions_nobody() {
    let server: FakeDiscord = Server::start(discord::Discord::default()).await.unwrap();
    let channel = samples::discord_at(&server);
    let all = samples::all();
    let receipt = channel.send(&all[0].1, Form::Full, None).await.unwrap();
    let amended = channel.send(&all[6].1, Form::Full, Some(&receipt)).await.unwrap();
    assert_eq!(amended, receipt);
    let messages = server.with(|discord| discord.messages.clone());
    assert_eq!((messages.len(), messages[0].edits), (1, 1));
    assert!(messages[0].payload["content"].as_str().unwrap().contains("CRITICAL (quiet now)"));
    for request in server.requests() {
        assert_eq!(request.json().unwrap()["allowed_mentions"], serde_json::json!({ "parse": [] }));
        assert_eq!(request.parameter("wait"), (request.method == "POST").then_some("true"));
    }
    assert_eq!(channel.check().await.unwrap().name, "alerts");
}

/// Whoever wakes up later sees what it was, and what to do.
#[tokio::test]
async fn what_is_grave_keeps_its_colour_when_it_is_quiet_and_nothing_loses_its_advice() {
    let discord: FakeDiscord = Server::start(discord::Discord::default()).await.unwrap();
    let slack: FakeSlack = Server::start(slack::Slack::default()).await.unwrap();
    let over = samples::all().into_iter().find(|(name, _)| *name == "over").unwrap().1;
    let quiet =
        |severity| samples::incidents(Occasion::Quiet, vec![IncidentView { severity, ..samples::brute_force() }]);
    for (message, begins, advises) in [
        (quiet(Severity::Critical), "🔴 CRITICAL (quiet now) sshd", true),
        (quiet(Severity::High), "🟠 HIGH (quiet now) sshd", true),
        (quiet(Severity::Medium), "🟢 QUIET (was medium) sshd", true),
        (over, "🟢 OVER (was high)", false),
    ] {
        samples::discord_at(&discord).send(&message, Form::Full, None).await.unwrap();
        samples::slack_at(&slack).send(&message, Form::Full, None).await.unwrap();
        let told = discord.with(|discord| discord.messages.last().unwrap().payload.clone());
        let color = told["embeds"][0]["color"].as_u64().unwrap();
        let pages = [discord::readable(&told), slack.with(|slack| slack::readable(slack.messages.last().unwrap()))];
        for page in pages {
            assert!(page.contains(begins), "{page}");
            assert_eq!(page.contains("Do this first"), advises, "{page}");
            assert_eq!(page.contains("nobody has said that it is solved"), !begins.starts_with('🟢'), "{page}");
        }
        assert_eq!(color == 0x2E_CC71, begins.starts_with('🟢'), "{begins}");
    }
}

#[test]
fn a_message_about_several_offers_what_mutes_all_of_them() {
    let several = |claimed_by: [&str; 2]| {
        let views = claimed_by.map(|by| IncidentView { claimed_by: by.into(), ..samples::brute_force() });
        let page = render(
            &samples::incidents(Occasion::Fired, views.to_vec()),
            Form::Full,
            &Style { color: false, width: 400 },
        );
        page.rsplit_once(" · mute: ").unwrap().1.trim_end().to_owned()
    };
    assert_eq!(several(["rule disk-full", "rule disk-full"]), "logwarden-analyzer mute --rule disk-full");
    let first_only = "logwarden-analyzer mute 1a2b3c4d # the first one only";
    assert_eq!(several(["rule disk-full", "rule oom-kill"]), first_only);
    assert_eq!(several(["model qwen3:4b", "model qwen3:4b"]), first_only);
}

#[tokio::test]
async fn a_thread_is_posted_to_and_amended_in() {
    let server: FakeDiscord = Server::start(discord::Discord::default()).await.unwrap();
    let url = format!("{}?thread_id=424242", discord::url(&server));
    let channel = logwarden_notifiers::Discord::new("t", &url.into(), Severity::Low, b"key").unwrap();
    let receipt = channel.send(&samples::all()[0].1, Form::Full, None).await.unwrap();
    channel.send(&samples::all()[0].1, Form::Full, Some(&receipt)).await.unwrap();
    let messages = server.with(|discord| discord.messages.clone());
    assert_eq!((messages[0].thread.as_deref(), messages[0].edits), (Some("424242"), 1));
}
