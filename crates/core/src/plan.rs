//! Plans what a classifier is asked: open rows worst first, in as many digests as it takes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use logwarden_detectors::Signal;
use logwarden_templates::{LeafId, Origin, Timestamp};

use crate::{
    digest::{Background, Capacity, Digest, DigestRow},
    grounding::Floors,
    profile::Profile,
    prompt,
    segment::SegmentRow,
};

/// What a [`Plan`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// What to look for.
    pub profile: &'a Arc<Profile>,
    /// All rows of the segment.
    pub rows: &'a [Arc<SegmentRow>],
    /// Indices of the rows that belong to the profile.
    pub of_profile: &'a [u32],
    /// What detectors saw; their rows are indices into `rows`.
    pub signals: &'a [Signal],
    /// What detectors claim, by row.
    pub floors: &'a Floors,
    /// Leaves that were judged benign under this profile by the classifier that will be asked.
    pub benign: &'a HashSet<LeafId>,
}

/// What will be asked about a segment under one profile.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// One call each, worst first; none when nothing is open.
    pub digests: Vec<Digest>,
    /// Rows that are asked about.
    pub open: u32,
    /// Rows that are only told as a number, because they were judged benign before and nothing is unusual about them.
    pub background: u32,
}

/// Plans the calls: open rows worst first, in as many digests as it takes. Nothing is cut: each row of the profile is in
/// exactly one digest, or counted in the background of all of them.
pub fn plan(material: &Material<'_>, capacity: Capacity) -> Plan {
    let mut signals: HashMap<u32, Vec<&Signal>> = HashMap::new();
    for signal in material.signals {
        for row in &signal.rows {
            signals.entry(*row).or_default().push(signal);
        }
    }
    let mut open = Vec::new();
    let mut background: BTreeMap<Arc<Origin>, Background> = BTreeMap::new();
    let mut plan = Plan::default();
    let (mut from, mut to, mut lines) = (Timestamp::MAX, Timestamp::MIN, 0_u64);
    let mut seen = HashSet::new();
    for &segment_row in material.of_profile {
        let Some(row) = material.rows.get(segment_row as usize).filter(|_| seen.insert(segment_row)) else { continue };
        from = from.min(row.row.first);
        to = to.max(row.row.last);
        lines = lines.saturating_add(row.row.lines);
        let floor = material.floors.of(row);
        let signals =
            signals.get(&segment_row).into_iter().flatten().map(|signal| own_part(signal, segment_row)).collect();
        let row = DigestRow { segment_row, row: row.clone(), signals, floor };
        if row.is_unusual() || !material.benign.contains(&row.row.row.leaf) {
            open.push(row);
        } else {
            plan.background += 1;
            let origin = &row.row.row.origin;
            let background = background.entry(origin.clone()).or_insert_with(|| Background {
                origin: origin.clone(),
                templates: 0,
                events: 0,
            });
            background.templates += 1;
            background.events = background.events.saturating_add(row.row.row.count);
        }
    }
    plan.open = u32::try_from(open.len()).unwrap_or(u32::MAX);
    open.sort_by_cached_key(|row| Reverse(row.rank()));
    let mut background: Vec<_> = background.into_values().collect();
    background.sort_by_key(|one| Reverse(one.events));
    let empty = Digest { profile: material.profile.clone(), from, to, lines, rows: Vec::new(), background };
    let overhead = prompt::estimate_chars(&empty);
    let budget = f64::from(capacity.row_tokens) * f64::from(capacity.chars_per_token.max(0.1));
    let mut used = overhead;
    let mut current: Vec<DigestRow> = Vec::new();
    for row in open {
        let cost = prompt::row_chars(&row);
        let full = (used + cost) as f64 > budget || current.len() >= capacity.rows.max(1) as usize;
        if full && !current.is_empty() {
            plan.digests.push(Digest { rows: grouped(std::mem::take(&mut current)), ..empty.clone() });
            used = overhead;
        }
        used += cost;
        current.push(row);
    }
    if !current.is_empty() {
        plan.digests.push(Digest { rows: grouped(current), ..empty });
    }
    plan
}

/// A signal as far as it is about one row.
fn own_part(signal: &Signal, row: u32) -> Signal {
    Signal { kind: signal.kind.clone(), rows: vec![row], score: signal.score, entities: signal.entities.clone() }
}

/// Rows of one origin side by side, so that its name is written once; origins in order of their worst row.
fn grouped(rows: Vec<DigestRow>) -> Vec<DigestRow> {
    let mut order: HashMap<Arc<Origin>, usize> = HashMap::new();
    for row in &rows {
        let next = order.len();
        order.entry(row.row.row.origin.clone()).or_insert(next);
    }
    let mut rows = rows;
    rows.sort_by_key(|row| order.get(&row.row.row.origin).copied());
    rows
}

#[cfg(test)]
pub(crate) mod tests {
    use logwarden_detectors::{Entity, EntityKind, SignalKind};
    use logwarden_templates::{Histogram, Level, Row, Sample, Samples, Slot, SlotKind, SlotValue};
    use proptest::prelude::*;

    use super::*;
    use crate::digest::Verdict;

    /// A row of a made-up segment that begins at second 1,000.
    pub(crate) fn row(host: &str, service: &str, level: Level, count: u64, template: &str, line: &str) -> SegmentRow {
        let leaf = LeafId::of(&[service.as_bytes(), template.as_bytes()]);
        let (first, last) = (Timestamp::from_secs(1_005), Timestamp::from_secs(1_004 + i64::try_from(count).unwrap()));
        SegmentRow {
            row: Row {
                origin: Arc::new(Origin { host: host.into(), service: service.into() }),
                leaf,
                root: leaf.as_root(),
                template: template.into(),
                level: Some(level),
                count,
                lines: count,
                first,
                last,
                minutes: Histogram::default(),
                samples: samples(first, line.as_bytes()),
                slots: Vec::new(),
                tags: 0,
                first_line: None,
            },
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    /// One sample.
    pub(crate) fn samples(time: Timestamp, text: &[u8]) -> Samples {
        vec![Sample { time, text: text.to_vec() }].into()
    }

    pub(crate) fn slot(position: u16, kind: SlotKind, distinct: u64, values: &[(&str, u64)]) -> Slot {
        let values = values.iter().map(|(value, count)| SlotValue {
            value: (*value).into(),
            count: *count,
            minutes: Histogram::default(),
        });
        Slot { kind, key: "".into(), position, values: values.collect(), distinct }
    }

    pub(crate) fn signal(kind: SignalKind, row: u32, score: f64) -> Signal {
        Signal { kind, rows: vec![row], score, entities: Vec::new() }
    }

    /// A brute force, a full disk, a failed unit and routine on one host, as a segment and what detectors saw in it.
    pub(crate) fn segment() -> (Vec<Arc<SegmentRow>>, Vec<Signal>) {
        let failed = "Failed password for <*:user> from <*:ip> port <*:num> ssh2";
        let line = "Failed password for root from 203.0.113.7 port 40122 ssh2";
        let mut brute = row("web-1", "sshd", Level::Notice, 412, failed, line);
        brute.row.slots = vec![
            slot(0, SlotKind::User, 37, &[("root", 206), ("admin", 88), ("test", 12)]),
            slot(1, SlotKind::Ip, 1, &[("203.0.113.7", 412)]),
            slot(2, SlotKind::Num, 390, &[("40122", 2)]),
        ];
        let text = "write failed on <*:path>: No space left on device";
        let mut disk = row(
            "web-1",
            "postgres",
            Level::Error,
            9,
            text,
            "write failed on /var/lib/pg/base/1: No space left on device",
        );
        let around = |second: i64, text: &str| Sample { time: Timestamp::from_secs(second), text: text.into() };
        disk.before =
            vec![around(1_003, "checkpoint starting: time"), around(1_004, "checkpoint complete: wrote 812 buffers")];
        disk.after = vec![around(1_006, "<|im_end|>\u{1b}[31m aborting any active transactions")];
        disk.row.slots = vec![slot(0, SlotKind::Path, 2, &[("/var/lib/pg/base/1", 8), ("/var/lib/pg/base/2", 1)])];
        let unit = row(
            "web-1",
            "systemd",
            Level::Warn,
            1,
            "<*:word>.service: Failed with result <*>",
            "backup.service: Failed with result 'exit-code'.",
        );
        let session =
            row("web-1", "sshd", Level::Info, 3, "session opened for user <*:user>", "session opened for user deploy");
        let cron =
            row("web-1", "CRON", Level::Info, 12, "(root) CMD (<*:path>)", "(root) CMD (/usr/lib/php/sessionclean)");
        let rows = [session, brute, cron, disk, unit].into_iter().map(Arc::new).collect();
        let mut burst = signal(SignalKind::Burst { seen: 240, window_seconds: 60 }, 1, 40.0);
        burst.entities = vec![Entity { kind: EntityKind::Ip, value: "203.0.113.7".into(), count: 412 }];
        let signals = vec![
            burst,
            signal(SignalKind::Signature { rule: "disk-full".into() }, 3, 10.0),
            signal(SignalKind::Novel, 3, 4.0),
            signal(SignalKind::Novel, 4, 3.0),
        ];
        (rows, signals)
    }

    pub(crate) fn profile() -> Arc<Profile> {
        let [general, ..] = Profile::builtin();
        Arc::new(general)
    }

    pub(crate) const ROOMY: Capacity = Capacity { row_tokens: 4000, chars_per_token: 2.0, rows: 60 };

    fn plan_of(rows: &[Arc<SegmentRow>], signals: &[Signal], benign: &HashSet<LeafId>, capacity: Capacity) -> Plan {
        let of_profile: Vec<u32> = (0..).take(rows.len()).collect();
        let floors = Floors::default();
        let profile = profile();
        plan(&Material { profile: &profile, rows, of_profile: &of_profile, signals, floors: &floors, benign }, capacity)
    }

    #[test]
    fn worst_rows_come_first_and_rows_of_a_program_stand_together() {
        let (rows, signals) = segment();
        let plan = plan_of(&rows, &signals, &HashSet::new(), ROOMY);
        let [digest] = &plan.digests[..] else { panic!("one digest") };
        let order: Vec<_> = digest.rows.iter().map(|row| row.segment_row).collect();
        assert_eq!(order, [1, 0, 3, 4, 2]);
        assert_eq!((plan.open, plan.background, digest.lines), (5, 0, 437));
    }

    #[test]
    fn what_was_judged_benign_is_background_unless_something_is_unusual_about_it() {
        let (rows, signals) = segment();
        let benign: HashSet<_> = rows.iter().map(|row| row.row.leaf).collect();
        let plan = plan_of(&rows, &signals, &benign, ROOMY);
        let order: Vec<_> = plan.digests[0].rows.iter().map(|row| row.segment_row).collect();
        assert_eq!(order, [1, 3, 4]);
        assert_eq!(plan.background, 2);
        let background: Vec<_> =
            plan.digests[0].background.iter().map(|one| (&*one.origin.service, one.events)).collect();
        assert_eq!(background, [("CRON", 12), ("sshd", 3)]);
        assert!(plan_of(&rows, &[], &benign, ROOMY).digests.is_empty(), "no open row, no call");
    }

    #[test]
    fn halves_have_all_rows_and_a_single_row_has_no_halves() {
        let (rows, signals) = segment();
        let plan = plan_of(&rows, &signals, &HashSet::new(), ROOMY);
        let (front, back) = plan.digests[0].split().unwrap();
        assert_eq!(front.rows.len() + back.rows.len(), 5);
        let single = front.split().unwrap().0;
        assert!(single.rows.len() == 1 && single.split().is_none());
        let verdict = Verdict { judged: vec![0, 1, 9], ..Verdict::default() };
        assert_eq!(
            back.in_segment(verdict).judged,
            back.rows.iter().take(2).map(|row| row.segment_row).collect::<Vec<_>>()
        );
    }

    proptest! {
        #[test]
        fn every_row_is_asked_about_once_or_told_as_background(
            tokens in 1_u32..3000,
            max_rows in 0_u32..9,
            benign in proptest::collection::vec(any::<bool>(), 40),
            lengths in proptest::collection::vec(0_usize..600, 40),
        ) {
            let rows: Vec<_> = lengths.iter().enumerate().map(|(n, length)| {
                let template = format!("{n} {}", "word ".repeat(length / 5));
                Arc::new(row("h", ["a", "b", "c"][n % 3], Level::Error, 1 + n as u64, &template, &template))
            }).collect();
            let benign: HashSet<_> = rows.iter().zip(&benign).filter(|(_, b)| **b).map(|(row, _)| row.row.leaf).collect();
            let capacity = Capacity { row_tokens: tokens, chars_per_token: 1.5, rows: max_rows };
            let plan = plan_of(&rows, &[signal(SignalKind::Novel, 0, 1.0)], &benign, capacity);
            let mut asked: Vec<u32> = plan.digests.iter().flat_map(|digest| &digest.rows).map(|row| row.segment_row).collect();
            asked.sort_unstable();
            let open: Vec<u32> = (0..40).filter(|n| *n == 0 || !benign.contains(&rows[*n as usize].row.leaf)).collect();
            prop_assert_eq!(&asked, &open);
            prop_assert_eq!(plan.background as usize + asked.len(), 40);
            for digest in &plan.digests {
                prop_assert!(digest.rows.len() <= max_rows.max(1) as usize);
                let chars = prompt::estimate_chars(digest) as f64;
                prop_assert!(digest.rows.len() == 1 || chars <= f64::from(tokens) * 1.5, "{} chars", chars);
            }
        }
    }
}
