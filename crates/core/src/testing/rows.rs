//! Rows to fill stores with: small, valid, and different for different numbers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use logwarden_detectors::{Category, ProfileName, Route, Severity};
use logwarden_templates::{Counts, Histogram, LeafId, LineId, NewLeaf, Origin, Row, Sample, Timestamp};

use crate::{
    finding::Key,
    incident::{Event, EventKind, Incident, IncidentId, Rank, Status},
    ledger::{Job, JobState, OutboxKey, OutboxRow, OutboxState, Segment, SegmentId, Sending, SourceState},
    message::{Body, Message, Notice, SendId},
    notifier::Form,
    segment::SegmentRow,
    source::{Cursor, SourceId},
};

/// The source of all rows here.
pub fn source() -> SourceId {
    SourceId("loki:test".into())
}

/// A source that nobody owns, read up to `cursor`.
pub fn source_state(cursor: &str) -> SourceState {
    SourceState {
        cursor: Some(Cursor(cursor.into())),
        owner: None,
        epoch: 0,
        until: Timestamp::from_secs(0),
        carry: Default::default(),
        failing: None,
        read_at: None,
    }
}

/// A detector's rank with this severity.
pub fn rank(severity: Severity) -> Rank {
    Rank { detector: true, severity }
}

/// A key.
pub fn key(n: u64) -> Key {
    Key::from_bits(u128::from(n) << 64 | 7)
}

/// A firing incident that owns `key(n)`, last seen and read at `at`.
pub fn incident(n: u64, at: Timestamp) -> Incident {
    Incident {
        id: IncidentId::of(1, n),
        source: source(),
        status: Status::Firing,
        rank: rank(Severity::High),
        route: Route::Alert,
        category: Category::ALL[0],
        profiles: vec![ProfileName::general()],
        claimed_by: vec!["rule:test".into()],
        title: format!("incident {n}"),
        explanation: None,
        comment: None,
        recommendation: None,
        cited: Vec::new(),
        keys: vec![key(n)],
        omitted_keys: Default::default(),
        omitted_templates: Default::default(),
        over: None,
        evidence: Vec::new(),
        entities: Vec::new(),
        omitted_entities: Default::default(),
        newcomers: Vec::new(),
        count: n,
        first: at,
        last: at,
        opened: at,
        touched: at,
        query: None,
        before: None,
        next_seq: 1,
        must_know: 1,
        told: BTreeMap::new(),
        muted_by: None,
        outgrown: None,
        over_budget: false,
        labels: BTreeMap::new(),
    }
}

/// The beginning of `incident(n)`.
pub fn event(n: u64, seq: u64, at: Timestamp) -> Event {
    let kind = EventKind::Fired;
    Event { incident: IncidentId::of(1, n), seq, at, data: at, kind, rank: rank(Severity::High) }
}

/// The first event of `incident(n)` waiting for a channel.
pub fn outbox(n: u64, channel: &str, at: Timestamp) -> OutboxRow {
    OutboxRow {
        incident: IncidentId::of(1, n),
        seq: 0,
        first_seq: 0,
        channel: channel.into(),
        created: at,
        data: at,
        state: OutboxState::Pending { next_at: at },
        send: None,
    }
}

/// A message of these rows.
pub fn sending(n: u64, channel: &str, rows: Vec<OutboxKey>, at: Timestamp) -> Sending {
    let id = SendId(u128::from(n));
    let notice = Notice { severity: Severity::Low, title: "test".into(), facts: Vec::new(), next_steps: Vec::new() };
    Sending {
        id,
        channel: channel.into(),
        rows,
        keys: vec![(key(n), rank(Severity::High))],
        message: Message { id, at, body: Body::Notice(notice), possible_repeat: false },
        form: Form::Full,
        amend: None,
        tells: Vec::new(),
        data: at,
        window: Duration::from_secs(3600),
        asks_dedup: true,
        attempts: 0,
        failing_since: None,
        done: false,
    }
}

/// A segment of one row, ingested at `at`.
pub fn segment(n: u64, at: Timestamp) -> Arc<Segment> {
    let origin = Arc::new(Origin { host: "web-1".into(), service: "sshd".into() });
    let leaf = leaf(n, at);
    let row = Row {
        origin,
        leaf: leaf.leaf,
        root: leaf.leaf.as_root(),
        template: leaf.text,
        level: None,
        count: 2,
        lines: 2,
        first: at,
        last: at,
        minutes: Histogram::default(),
        samples: vec![Sample { time: at, text: b"not \xff UTF-8".to_vec() }].into(),
        slots: Vec::new(),
        tags: 1,
        first_line: Some(0),
    };
    Arc::new(Segment {
        id: SegmentId(u128::from(n)),
        source: source(),
        tenant: "".into(),
        at,
        from: at,
        to: at,
        counts: Counts { read: 2, kept: 2, ..Counts::default() },
        rows: vec![Arc::new(SegmentRow { row, before: Vec::new(), after: Vec::new() })],
        signals: Vec::new(),
        findings: Vec::new(),
    })
}

/// A job about `segment(n)` that waits since `at`.
pub fn job(n: u64, profile: ProfileName, at: Timestamp) -> Job {
    Job {
        segment: SegmentId(u128::from(n)),
        profile,
        source: source(),
        created: at,
        lines: 2,
        state: JobState::Waiting { not_before: at },
        attempts: 0,
    }
}

/// A leaf.
pub fn leaf(n: u64, first: Timestamp) -> NewLeaf {
    NewLeaf {
        leaf: LeafId::of(&[b"test", &n.to_be_bytes()]),
        program: "sshd".into(),
        text: format!("text {n} <*>").into(),
        example: format!("text {n} \u{1F980}").into_bytes(),
        first,
    }
}

/// A line's id.
pub fn line(n: u64) -> LineId {
    LineId::of(&[b"line", &n.to_be_bytes()])
}
