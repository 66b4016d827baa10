//! Turns claims into findings whose every fact comes from our own store.
//!
//! A claim names rows; addresses, host, service, times, counts and lines are then read from those rows. Of a model's words
//! only prose is kept: capped, on one line, without links, mentions, markup or anything invisible. Detectors' claims are
//! our own, so their counts and words stay.
//!
//! What a model claims about a row that a detector has a finding about carries that finding's keys, so whoever decides can
//! attach it; it is never less severe.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use logwarden_detectors::{Entity, EntityKind, Finding, Severity};
use logwarden_templates::SlotKind;

use crate::{
    finding::{Cited, Evidence, Grounded, Key, Scope},
    plain,
    segment::SegmentRow,
};

/// Lines that a finding shows.
const EVIDENCE: usize = 8;
/// Addresses, users and hosts that are taken from the rows of a model's finding.
const ENTITIES: usize = 32;
/// Characters of a title, an explanation, a recommendation.
const TITLE_CHARS: usize = 160;
const EXPLANATION_CHARS: usize = 1000;
const RECOMMENDATION_CHARS: usize = 500;

/// Severities that nothing may go below: what detectors say, by what it is about.
#[derive(Clone, Debug, Default)]
pub struct Floors {
    tenant: Arc<str>,
    by_key: HashMap<Key, Severity>,
}

impl Floors {
    /// The floors that the detectors' findings of a segment set. A model's findings set none.
    pub fn new<'a>(tenant: &Arc<str>, findings: impl IntoIterator<Item = &'a Grounded>) -> Self {
        let mut by_key: HashMap<Key, Severity> = HashMap::new();
        for finding in findings.into_iter().filter(|finding| !finding.by.is_model()) {
            for key in finding.keys() {
                let floor = by_key.entry(key).or_insert(finding.severity);
                *floor = finding.severity.max(*floor);
            }
        }
        Self { tenant: tenant.clone(), by_key }
    }

    /// The floor of a row, if a detector claims something about its leaf or its root.
    pub fn of(&self, row: &SegmentRow) -> Option<Severity> {
        if self.by_key.is_empty() {
            return None;
        }
        let cited = cited(&self.tenant, row, true);
        cited.keys().filter_map(|key| self.by_key.get(&key).copied()).max()
    }
}

/// What was made of claims.
#[derive(Clone, Debug, Default)]
pub struct Grounding {
    /// Findings with their evidence, in the order of the claims.
    pub findings: Vec<Grounded>,
    /// Claims that were refused: they cite a row that does not exist, or nothing anomalous.
    pub refused: u32,
}

/// Grounds claims about `rows`, all rows of one segment; the claims' rows are indices into it.
///
/// A model's claim that cites a single row which does not exist is refused. Of a detector's claim such a row is left out
/// and counted, since an alert must not be lost for it.
pub fn ground(findings: Vec<Finding>, rows: &[Arc<SegmentRow>], tenant: &Arc<str>, floors: &Floors) -> Grounding {
    let mut grounding = Grounding::default();
    for finding in findings {
        let known = |row: &u32| rows.get(*row as usize).is_some();
        let invented = finding.rows.iter().chain(&finding.anomalous).any(|row| !known(row));
        let grounded = if finding.by.is_model() {
            (!invented).then(|| ground_model(finding, rows, tenant, floors)).flatten()
        } else {
            ground_detector(finding, rows, tenant)
        };
        grounding.refused += u32::from(invented || grounded.is_none());
        grounding.findings.extend(grounded);
    }
    grounding
}

fn ground_detector(finding: Finding, rows: &[Arc<SegmentRow>], tenant: &Arc<str>) -> Option<Grounded> {
    let mut cited = citations(&finding, rows, tenant);
    let absent = finding.absent.iter().map(|subject| Cited {
        scope: Scope { tenant: tenant.clone(), origin: subject.origin.clone() },
        leaf: subject.leaf,
        root: subject.root,
        template: subject.template.clone(),
        anomalous: true,
    });
    cited.splice(0..0, absent);
    cited.sort_by_key(|cited| !cited.anomalous);
    if !cited.first().is_some_and(|cited| cited.anomalous) {
        return None;
    }
    let entities: Vec<Entity> = finding.entities.iter().map(checked).collect();
    Some(Grounded {
        evidence: evidence(&finding, rows, &entities),
        entities,
        severity: finding.severity.max(finding.floor.unwrap_or(Severity::Low)),
        title: plain::head(&plain::line(&finding.title), TITLE_CHARS),
        explanation: plain::head(&plain::line(&finding.explanation), EXPLANATION_CHARS),
        recommendation: plain::head(&plain::line(&finding.recommendation), RECOMMENDATION_CHARS),
        cited,
        discriminator: finding.discriminator,
        by: finding.by,
        profile: finding.profile,
        category: finding.category,
        route: finding.route,
        score: finding.score,
        count: finding.count,
        first: finding.first,
        query: None,
        labels: BTreeMap::new(),
        last: finding.last,
    })
}

fn ground_model(finding: Finding, rows: &[Arc<SegmentRow>], tenant: &Arc<str>, floors: &Floors) -> Option<Grounded> {
    let cited = citations(&finding, rows, tenant);
    let mut anomalous = HashSet::new();
    let anomalous: Vec<_> = finding
        .anomalous
        .iter()
        .filter(|row| anomalous.insert(**row))
        .filter_map(|row| rows.get(*row as usize))
        .collect();
    let first = anomalous.iter().map(|row| row.row.first).min()?;
    let last = anomalous.iter().map(|row| row.row.last).max()?;
    let floor =
        finding.rows.iter().chain(&finding.anomalous).filter_map(|row| floors.of(rows.get(*row as usize)?)).max();
    let entities = entities(&anomalous);
    let title = match prose(&finding.title, TITLE_CHARS) {
        title if title.is_empty() => finding.category.label().to_owned(),
        title => title,
    };
    Some(Grounded {
        evidence: evidence(&finding, rows, &entities),
        entities,
        severity: finding.severity.max(floor.unwrap_or(Severity::Low)),
        title,
        explanation: prose(&finding.explanation, EXPLANATION_CHARS),
        recommendation: prose(&finding.recommendation, RECOMMENDATION_CHARS),
        cited,
        discriminator: String::new(),
        count: anomalous.iter().map(|row| row.row.count).fold(0, u64::saturating_add),
        first,
        query: None,
        labels: BTreeMap::new(),
        last,
        by: finding.by,
        profile: finding.profile,
        category: finding.category,
        route: finding.route,
        score: if finding.score.is_finite() { finding.score } else { 0.0 },
    })
}

/// What a finding cites, anomalous rows first, each once.
fn citations(finding: &Finding, rows: &[Arc<SegmentRow>], tenant: &Arc<str>) -> Vec<Cited> {
    let mut seen = HashSet::new();
    let anomalous = finding.anomalous.iter().map(|row| (*row, true));
    let context = finding.rows.iter().map(|row| (*row, false));
    anomalous
        .chain(context)
        .filter(|(row, _)| seen.insert(*row))
        .filter_map(|(row, anomalous)| Some(cited(tenant, rows.get(row as usize)?, anomalous)))
        .collect()
}

fn cited(tenant: &Arc<str>, row: &SegmentRow, anomalous: bool) -> Cited {
    Cited {
        scope: Scope { tenant: tenant.clone(), origin: row.row.origin.clone() },
        leaf: Some(row.row.leaf),
        root: row.row.root,
        template: row.row.template.clone(),
        anomalous,
    }
}

/// Lines of the cited rows: of each row first one that names whom it is about, then more of the anomalous ones.
fn evidence(finding: &Finding, rows: &[Arc<SegmentRow>], entities: &[Entity]) -> Vec<Evidence> {
    let mut by_row: Vec<Vec<Evidence>> = Vec::new();
    let mut seen = HashSet::new();
    let addresses = || entities.iter().filter(|entity| entity.kind == EntityKind::Ip);
    for row in finding.anomalous.iter().chain(&finding.rows).filter(|row| seen.insert(**row)) {
        let Some(row) = rows.get(*row as usize) else { continue };
        let mut lines: Vec<Evidence> = (row.row.samples.iter())
            .map(|sample| Evidence {
                time: sample.time,
                origin: row.row.origin.clone(),
                text: String::from_utf8_lossy(&sample.text).into_owned(),
            })
            .collect();
        let named = |line: &Evidence| entities.iter().take(3).any(|entity| entity.is_named_in(line.text.as_bytes()));
        lines.sort_by_key(|line| !named(line));
        // What others did who share a row with them is no evidence against those whom it is about.
        let theirs = |line: &Evidence| addresses().any(|entity| entity.is_named_in(line.text.as_bytes()));
        if lines.iter().any(theirs) {
            lines.retain(theirs);
        }
        by_row.push(lines);
    }
    let deepest = by_row.iter().map(Vec::len).max().unwrap_or(0);
    let mut chosen: Vec<Evidence> = Vec::new();
    for depth in 0..deepest {
        for line in by_row.iter().filter_map(|lines| lines.get(depth)) {
            if chosen.len() < EVIDENCE && !chosen.contains(line) {
                chosen.push(line.clone());
            }
        }
    }
    chosen.sort_by(|a, b| (a.time, &a.text).cmp(&(b.time, &b.text)));
    chosen
}

/// Addresses, users and hosts in the slots of rows, the most frequent first.
fn entities(rows: &[&Arc<SegmentRow>]) -> Vec<Entity> {
    let mut counts: BTreeMap<(EntityKind, Arc<str>), u64> = BTreeMap::new();
    for slot in rows.iter().flat_map(|row| &row.row.slots) {
        for value in &slot.values {
            let entity = match slot.kind {
                SlotKind::Ip => address(&value.value).map(|address| (EntityKind::Ip, address)),
                SlotKind::User => Some((EntityKind::User, value.value.as_ref().into())),
                SlotKind::Host => Some((EntityKind::Host, value.value.as_ref().into())),
                _ => None,
            };
            if let Some(entity) = entity {
                let count = counts.entry(entity).or_default();
                *count = count.saturating_add(value.count);
            }
        }
    }
    let mut entities: Vec<Entity> =
        counts.into_iter().map(|((kind, value), count)| Entity { kind, value, count }).collect();
    entities.sort_by_key(|entity| (entity.kind, Reverse(entity.count)));
    entities.truncate(ENTITIES);
    entities
}

/// An entity of a detector; what is not an address is not called one.
fn checked(entity: &Entity) -> Entity {
    match (entity.kind, address(&entity.value)) {
        (EntityKind::Ip, Some(value)) => Entity { value, ..entity.clone() },
        (EntityKind::Ip, None) => Entity { kind: EntityKind::Other, ..entity.clone() },
        _ => entity.clone(),
    }
}

/// The address in a slot's value, without port, brackets and zone.
fn address(value: &str) -> Option<Arc<str>> {
    let bare = value.trim_start_matches('[').split([']', '%', '/']).next().unwrap_or(value);
    let address = match bare.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => value.parse::<SocketAddr>().ok()?.ip(),
    };
    Some(address.to_string().into())
}

/// A model's words: on one line, capped, with nothing in them that a channel could make active.
pub fn prose(text: &str, max: usize) -> String {
    let text = plain::line(text);
    let mut out = String::with_capacity(text.len());
    for word in text.split(' ') {
        if !out.is_empty() {
            out.push(' ');
        }
        let word: String = word.chars().filter_map(harmless).collect();
        out.push_str(if is_link(&word) { "[link removed]" } else { &word });
    }
    plain::head(&out, max)
}

fn is_link(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let bare = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    ["://", ":\\/\\/", "](", "hxxp", "javascript:", "mailto:", "data:text", "discord.gg/"]
        .iter()
        .any(|mark| word.contains(mark))
        || bare.starts_with("www.")
}

/// A character as it may stand in a model's prose: no mention, no markup, no code.
fn harmless(c: char) -> Option<char> {
    match c {
        '`' => Some('\''),
        '<' => Some('‹'),
        '>' => Some('›'),
        '@' => Some('＠'),
        '*' | '~' | '|' => None,
        _ => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use logwarden_detectors::{By, Category, ProfileName, Route};
    use logwarden_templates::{Sample, Timestamp};
    use proptest::prelude::*;

    use super::*;
    use crate::plan::tests::segment;

    fn claim(by: By, rows: &[u32], anomalous: &[u32], severity: Severity, words: &str) -> Finding {
        Finding {
            by,
            profile: ProfileName::general(),
            category: Category::Disk,
            severity,
            floor: None,
            route: Route::Alert,
            title: words.into(),
            explanation: words.into(),
            recommendation: words.into(),
            rows: rows.into(),
            anomalous: anomalous.into(),
            absent: Vec::new(),
            discriminator: String::new(),
            entities: vec![Entity { kind: EntityKind::Ip, value: "198.51.100.99".into(), count: 7 }],
            score: f64::NAN,
            count: 999,
            first: Timestamp::MIN,
            last: Timestamp::MAX,
        }
    }

    fn model() -> By {
        By::Model { name: "m".into() }
    }

    fn rule() -> By {
        By::Rule { id: "r".into() }
    }

    #[test]
    fn facts_of_a_models_finding_come_from_the_cited_rows() {
        let (rows, _) = segment();
        let claims =
            vec![claim(model(), &[1, 0], &[1], Severity::Low, "see http://evil.example/x @everyone `rm -rf /`")];
        let grounding = ground(claims, &rows, &"".into(), &Floors::default());
        let [finding] = &grounding.findings[..] else { panic!("one finding") };
        assert_eq!((finding.count, finding.first, finding.last), (412, rows[1].row.first, rows[1].row.last));
        let ips: Vec<_> = finding.entities.iter().filter(|e| e.kind == EntityKind::Ip).map(|e| &*e.value).collect();
        assert_eq!(ips, ["203.0.113.7"], "not the address that the claim brought along");
        assert_eq!(finding.title, "see [link removed] ＠everyone 'rm -rf /'");
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert!(lines.contains(&"Failed password for root from 203.0.113.7 port 40122 ssh2"), "{lines:?}");
        assert_eq!(finding.cited.iter().map(|cited| cited.anomalous).collect::<Vec<_>>(), [true, false]);
        assert_eq!(&*finding.scope().unwrap().origin.service, "sshd");
    }

    #[test]
    fn a_model_never_goes_below_what_a_detector_says_about_the_same_rows() {
        let (rows, _) = segment();
        let detected =
            ground(vec![claim(rule(), &[3], &[3], Severity::High, "disk")], &rows, &"".into(), &Floors::default());
        let floors = Floors::new(&"".into(), &detected.findings);
        assert_eq!((floors.of(&rows[3]), floors.of(&rows[1])), (Some(Severity::High), None));
        for (said, counts) in [(Severity::Low, Severity::High), (Severity::Critical, Severity::Critical)] {
            let said = ground(vec![claim(model(), &[3], &[3], said, "x")], &rows, &"".into(), &floors);
            assert_eq!(said.findings[0].severity, counts);
            assert_eq!(said.findings[0].keys(), detected.findings[0].keys(), "so that it can be attached");
        }
        let from_model = ground(vec![claim(model(), &[1], &[1], Severity::Critical, "x")], &rows, &"".into(), &floors);
        assert_eq!(Floors::new(&"".into(), &from_model.findings).of(&rows[1]), None, "a model sets no floor");
    }

    #[test]
    fn invented_rows_refuse_a_models_claim_but_never_lose_a_detectors_alert() {
        let (rows, _) = segment();
        let claims = vec![
            claim(model(), &[1, 77], &[1], Severity::High, "x"),
            claim(model(), &[1], &[], Severity::High, "x"),
            claim(rule(), &[1, 77], &[1], Severity::High, "x"),
            claim(rule(), &[77], &[77], Severity::High, "x"),
        ];
        let grounding = ground(claims, &rows, &"".into(), &Floors::default());
        assert_eq!((grounding.findings.len(), grounding.refused), (1, 4));
        assert!(!grounding.findings[0].by.is_model());
    }

    /// The first row with lines of several addresses, all in the same template.
    fn shared(texts: &[&str]) -> Vec<Arc<SegmentRow>> {
        let (mut rows, _) = segment();
        let row = Arc::make_mut(&mut rows[0]);
        row.row.samples = (1_000..)
            .zip(texts)
            .map(|(second, text)| Sample { time: Timestamp::from_secs(second), text: text.as_bytes().to_vec() })
            .collect();
        rows
    }

    #[track_caller]
    fn check_evidence(texts: &[&str], about: &[(EntityKind, &str)], shown: &[&str]) {
        let rows = shared(texts);
        let mut claim = claim(rule(), &[0], &[0], Severity::High, "login");
        claim.entities =
            about.iter().map(|(kind, value)| Entity { kind: *kind, value: (*value).into(), count: 1 }).collect();
        let grounding = ground(vec![claim], &rows, &"".into(), &Floors::default());
        let lines: Vec<&str> = grounding.findings[0].evidence.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(lines, shown);
    }

    #[test]
    fn what_others_did_in_the_same_template_is_no_evidence() {
        let texts = [
            "Accepted for anna from 203.0.113.77",
            "Accepted for root from 203.0.113.7",
            "Accepted for ben from 192.0.2.2",
        ];
        let attacker = (EntityKind::Ip, "203.0.113.7");
        check_evidence(&texts, &[attacker], &texts[1..2]);
        check_evidence(&texts, &[attacker, (EntityKind::Ip, "192.0.2.2")], &texts[1..]);
        // A user's name is in other people's lines as well; it only says which come first.
        check_evidence(&texts, &[(EntityKind::User, "root")], &texts);
        // When no line has the address, better lines of others than none.
        check_evidence(&texts, &[(EntityKind::Ip, "198.51.100.9")], &texts);
        check_evidence(&texts, &[], &texts);
    }

    #[test]
    fn addresses_are_read_with_and_without_port() {
        for (value, read) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("203.0.113.7:443", Some("203.0.113.7")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("10.0.0.0/8", Some("10.0.0.0")),
            ("evil.example", None),
            ("1.2.3", None),
        ] {
            assert_eq!(address(value).as_deref(), read, "{value}");
        }
    }

    proptest! {
        #[test]
        fn prose_has_nothing_that_could_become_active(text in "(https?://|<@|@here|\\]\\(|`|[a-z\u{202e}\\x1b ]|\\PC){0,60}", max in 4_usize..200) {
            let prose = prose(&text, max);
            prop_assert!(prose.chars().count() <= max);
            prop_assert!(!prose.chars().any(plain::is_hidden));
            for active in ["://", "](", "<", ">", "`", "@", "*", "www."] {
                prop_assert!(!prose.contains(active) || active == "www." && !prose.split(' ').any(|w| w.starts_with("www.")), "{}", prose);
            }
        }

        #[test]
        fn whatever_is_claimed_evidence_is_stored_text_and_severity_keeps_the_floor(
            cited in proptest::collection::vec(0_u32..7, 0..6),
            anomalous in proptest::collection::vec(0_u32..7, 0..6),
            severity in 0_usize..4,
            words in any::<String>(),
        ) {
            let (rows, _) = segment();
            let detected = ground(vec![claim(rule(), &[3], &[3], Severity::High, "disk")], &rows, &"t".into(), &Floors::default());
            let floors = Floors::new(&"t".into(), &detected.findings);
            let by_model = vec![claim(model(), &cited, &anomalous, Severity::ALL[severity], &words)];
            let grounding = ground(by_model, &rows, &"t".into(), &floors);
            prop_assert_eq!(grounding.findings.len() + grounding.refused as usize, 1);
            let stored: Vec<String> = rows.iter().flat_map(|row| &row.row.samples).map(|s| String::from_utf8_lossy(&s.text).into()).collect();
            for finding in grounding.findings {
                prop_assert!(!finding.keys().is_empty() && finding.score.is_finite() && !finding.title.is_empty());
                prop_assert!(finding.evidence.iter().all(|line| stored.contains(&line.text)));
                let about_disk = finding.cited.iter().any(|one| one.leaf == Some(rows[3].row.leaf));
                prop_assert!(finding.severity >= Severity::ALL[severity]);
                prop_assert!(!about_disk || finding.severity >= Severity::High);
            }
        }
    }
}
