//! Messages to send.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use logwarden_core::{
    Severity, Timestamp,
    detectors::{Category, Entity, EntityKind},
    env::Env,
    incident::IncidentId,
    message::{
        Body, EvidenceView, IncidentView, Message, Notice, Occasion, OverView, ProseView, Rollup, SendId, SummaryView,
        Untrusted,
    },
};
use logwarden_notifiers::{Discord, Slack, Webhook, grafana};
use logwarden_tests::{
    chat::{Server, Service},
    discord, slack, webhook,
};

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_795_230_900); // 2026-11-21 03:15:00 UTC

pub(crate) fn ago(seconds: u64) -> Timestamp {
    NOW.minus(Duration::from_secs(seconds))
}

pub(crate) fn message(body: Body) -> Message {
    Message { id: SendId(0x0123_4567_89ab_cdef), at: NOW, body, possible_repeat: false }
}

pub(crate) fn incidents(occasion: Occasion, incidents: Vec<IncidentView>) -> Message {
    message(Body::Incidents { occasion, incidents, summary: None })
}

fn rule(text: &str) -> Option<ProseView> {
    Some(ProseView { text: Untrusted::new(text), model: None })
}

fn model(text: &str) -> Option<ProseView> {
    Some(ProseView { text: Untrusted::new(text), model: Some("qwen3:4b".into()) })
}

fn entity(kind: EntityKind, value: &str, count: u64) -> Entity {
    Entity { kind, value: value.into(), count }
}

/// Somebody guesses passwords.
pub(crate) fn brute_force() -> IncidentView {
    let line = |seconds, port: u32, user: &str| EvidenceView {
        time: ago(seconds),
        text: Untrusted::new(format!(
            "Nov 21 03:{:02}:{:02} web-1 sshd[411]: Failed password for {user} from 203.0.113.7 port {port} ssh2",
            (900 - seconds) / 60,
            (900 - seconds) % 60
        )),
    };
    let expr = grafana::selector([("host", "web-1"), ("job", "syslog")], ["Failed password for"]);
    let explore = grafana::Explore {
        base: "https://grafana.example".parse().unwrap(),
        datasource_uid: "P8E80F9AEF21F6940".into(),
        org_id: 1,
    };
    IncidentView {
        id: IncidentId::from_bits(0x1a2b_3c4d << 96),
        severity: Severity::Critical,
        category: Category::BruteForce,
        title: Untrusted::new("412 failed SSH logins from 203.0.113.7 in 5 min"),
        host: Untrusted::new("web-1"),
        service: Untrusted::new("sshd"),
        other_services: 0,
        first: ago(468),
        last: ago(140),
        count: 412,
        evidence: vec![line(468, 4022, "root"), line(467, 4023, "admin"), line(140, 5120, "root")],
        evidence_omitted: 409,
        explanation: rule("Somebody is guessing passwords: many failed logins from one address in a short time."),
        comment: model("All attempts use root and admin, none succeeded. The address has not been seen before."),
        recommendation: rule("See whether anyone got in: `last -i | grep 203.0.113.7`."),
        entities: vec![
            entity(EntityKind::Ip, "203.0.113.7", 398),
            entity(EntityKind::Ip, "10.0.0.9", 14),
            entity(EntityKind::User, "root", 400),
            entity(EntityKind::User, "admin", 12),
        ],
        entities_omitted: 3,
        newcomers: Vec::new(),
        claimed_by: "rule ssh-brute-force".into(),
        link: Some(explore.link(&expr, ago(468), ago(140))),
        seen_before: None,
        late_by_seconds: None,
        merged_into: None,
        over: None,
        mute: "logwarden-analyzer mute 1a2b3c4d".into(),
    }
}

/// A disk is full, and only a model says so.
pub(crate) fn disk_full(host: &str, id: u128) -> IncidentView {
    IncidentView {
        id: IncidentId::from_bits(id << 96),
        severity: Severity::High,
        category: Category::Disk,
        title: Untrusted::new("/var is full"),
        host: Untrusted::new(host),
        service: Untrusted::new("postgresql@14-main.service"),
        other_services: 2,
        first: ago(7_200),
        last: ago(3_600),
        count: 23,
        evidence: vec![EvidenceView {
            time: ago(7_200),
            text: Untrusted::new("PANIC:  could not write to file \"pg_wal/xlogtemp.77\": No space left on device"),
        }],
        evidence_omitted: 22,
        explanation: model("The database cannot write its journal and has stopped."),
        comment: None,
        recommendation: model("Free space on /var, then restart PostgreSQL."),
        entities: vec![entity(EntityKind::Device, "/dev/sda3", 23)],
        entities_omitted: 0,
        newcomers: Vec::new(),
        claimed_by: "model qwen3:4b".into(),
        link: None,
        seen_before: Some(ago(200_000)),
        late_by_seconds: Some(3_900),
        merged_into: None,
        over: None,
        mute: format!("logwarden-analyzer mute {id:08x}"),
    }
}

/// A unit has failed.
pub(crate) fn failed_unit() -> IncidentView {
    IncidentView {
        id: IncidentId::from_bits(0x5150_aabb << 96),
        severity: Severity::High,
        category: Category::Service,
        title: Untrusted::new("nginx.service has failed"),
        service: Untrusted::new("nginx.service"),
        other_services: 0,
        first: ago(1_340),
        last: ago(140),
        count: 3,
        evidence: Vec::new(),
        evidence_omitted: 0,
        explanation: rule("Result: exit-code, exit status: 1. Last error: bind() to 0.0.0.0:80 failed"),
        comment: None,
        recommendation: rule("journalctl -u nginx.service -n 50 --no-pager"),
        entities: Vec::new(),
        entities_omitted: 0,
        newcomers: Vec::new(),
        claimed_by: "detector unit-failed".into(),
        link: None,
        ..brute_force()
    }
}

pub(crate) fn summary(severity: Option<Severity>) -> SummaryView {
    SummaryView {
        from: ago(300),
        to: NOW,
        lines: 14_203,
        severity,
        text: ProseView {
            text: Untrusted::new("Logins fail at an unusual rate on web-1. Everything else is as usual."),
            model: Some("qwen3:4b".into()),
        },
    }
}

pub(crate) fn rollup() -> Rollup {
    Rollup {
        counts: vec![(Severity::Critical, 3), (Severity::High, 12), (Severity::Medium, 0), (Severity::Low, 1_032)],
        top: vec![brute_force(), disk_full("db-1", 2), disk_full("db-2", 3)],
        suppressed: 1_046,
        from: ago(300),
        to: NOW,
    }
}

pub(crate) fn notice() -> Notice {
    Notice {
        severity: Severity::High,
        title: "backup.service failed on web-1".into(),
        facts: vec![
            ("Unit".into(), Untrusted::new("backup.service")),
            ("Last error".into(), Untrusted::new("rsync: connection refused (111) <@everyone>")),
        ],
        next_steps: vec![
            "systemctl status backup.service".into(),
            "journalctl -u backup.service --since '15 min ago'".into(),
        ],
    }
}

/// Every kind of message there is.
pub(crate) fn all() -> Vec<(&'static str, Message)> {
    let quiet = {
        let mut view = brute_force();
        view.last = ago(3_700);
        view.first = ago(4_028);
        view
    };
    let how = Untrusted::new("nginx.service works again");
    let over = IncidentView { over: Some(OverView { at: ago(20), how }), ..failed_unit() };
    let merged = {
        let mut view = brute_force();
        view.merged_into = Some(IncidentId::from_bits(0x5e6f_7a8b << 96));
        view
    };
    let several = vec![disk_full("db-1", 2), disk_full("db-2", 3), disk_full("db-3.internal.example", 4)];
    let with_summary =
        Body::Incidents { occasion: Occasion::Fired, incidents: vec![brute_force()], summary: Some(summary(None)) };
    let mut repeated = incidents(Occasion::Reminded, vec![brute_force()]);
    repeated.possible_repeat = true;
    vec![
        ("fired", message(with_summary)),
        ("fired_on_several_hosts", incidents(Occasion::Fired, several)),
        ("escalated", incidents(Occasion::Escalated, vec![brute_force()])),
        ("reminded", repeated),
        ("explained", incidents(Occasion::Explained, vec![disk_full("db-1", 2)])),
        ("grew", incidents(Occasion::Grew, vec![brute_force()])),
        ("quiet", incidents(Occasion::Quiet, vec![quiet])),
        ("merged", incidents(Occasion::Merged, vec![merged])),
        ("rollup", message(Body::Rollup(rollup()))),
        ("notice", message(Body::Notice(notice()))),
        ("summary", message(Body::Summary(summary(Some(Severity::High))))),
        ("all_quiet", message(Body::Summary(summary(None)))),
        ("over", incidents(Occasion::Quiet, vec![over.clone()])),
        ("over_before_it_was_told", incidents(Occasion::Fired, vec![over])),
    ]
}

/// A clock that stands still.
#[derive(Debug)]
pub(crate) struct Still;

#[async_trait]
impl Env for Still {
    fn now(&self) -> Timestamp {
        NOW
    }

    async fn sleep_until(&self, _: Timestamp) {}

    fn random(&self) -> u64 {
        4
    }
}

pub(crate) fn discord_at<S: Service>(server: &Server<S>) -> Discord {
    Discord::new("team-discord", &discord::url(server).into(), Severity::Low, b"key").unwrap()
}

pub(crate) fn slack_at<S: Service>(server: &Server<S>) -> Slack {
    Slack::new("team-slack", &slack::url(server).into(), Severity::Low, b"key").unwrap()
}

pub(crate) const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
pub(crate) const OLD_SECRET: &str = "an old secret in plain text";

pub(crate) fn webhook_at<S: Service>(server: &Server<S>) -> Webhook {
    let secrets = [SECRET.into(), OLD_SECRET.into()];
    Webhook::new("hook", &webhook::url(server).into(), &secrets, Severity::Low, b"key", Arc::new(Still)).unwrap()
}

/// Something to write into, and to look at afterwards.
#[derive(Clone, Default)]
pub(crate) struct Shared(pub(crate) Arc<Mutex<Vec<u8>>>);

impl Shared {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
