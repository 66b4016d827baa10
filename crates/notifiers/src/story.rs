//! What of an incident is told, and in which order, before any platform's markup.

use logwarden_core::{
    Timestamp,
    detectors::EntityKind,
    message::{EvidenceView, IncidentView, Occasion, ProseView},
};

use serde_json::{Map, Value};

use crate::{
    text::Clean,
    words::{self, Words},
};

/// Lines shown at most: the first ones and the latest.
pub(crate) const MOST_LINES: usize = 8;
/// A line shows at most this much of itself.
pub(crate) const LONGEST_LINE: usize = 300;
/// Entities shown at most, of each kind.
const MOST_ENTITIES: usize = 5;
/// So many of them are the latest to come, however rare they are.
const MOST_NEWCOMERS: usize = 2;

/// Lines to show, and how many events are not shown.
pub(crate) struct Evidence {
    pub(crate) lines: Vec<Clean>,
    pub(crate) omitted: u64,
}

impl Evidence {
    /// The lines of all incidents in turn (each host is heard), at most `most`, the earliest and the latest of each.
    pub(crate) fn of(incidents: &[IncidentView], most: usize) -> Self {
        let share = (most / incidents.len().max(1)).max(1);
        let mut lines = Vec::new();
        let mut omitted = 0_u64;
        for (i, incident) in incidents.iter().enumerate() {
            let room = if i == 0 { share + most % incidents.len().max(1) } else { share };
            let room = room.min(most - lines.len());
            let shown = Self::choose(&incident.evidence, room);
            let hidden = (incident.evidence.len() - shown.len()) as u64;
            let host = (incidents.len() > 1).then(|| words::name(incident.host.raw()));
            lines.extend(shown.iter().map(|line| stamped(line.time, line.text.raw(), host.as_ref())));
            omitted = omitted.saturating_add(incident.evidence_omitted).saturating_add(hidden);
        }
        Self { lines, omitted }
    }

    /// The first and the latest lines.
    pub(crate) fn choose(all: &[EvidenceView], most: usize) -> Vec<&EvidenceView> {
        let (head, tail) = if all.len() <= most { (all.len(), 0) } else { (most.div_ceil(2), most / 2) };
        all[..head].iter().chain(&all[all.len() - tail..]).collect()
    }
}

/// A line with the time it was written at, unless it says so itself.
fn stamped(time: Timestamp, raw: &str, host: Option<&Words>) -> Clean {
    let clean = Clean::log_line(journal(raw).as_deref().unwrap_or(raw));
    let begin: String = clean.as_str().chars().take(40).collect();
    let mut prefix = String::new();
    if let Some(host) = host.filter(|host| !host.as_str().is_empty() && !begin.contains(host.as_str())) {
        prefix.push_str(host.as_str());
        prefix.push_str(": ");
    }
    if !has_clock(&begin) {
        prefix.push_str(words::time_of_day(time).as_str());
        prefix.push(' ');
    }
    let line = if prefix.is_empty() { clean } else { clean.after(&prefix) };
    line.elided(LONGEST_LINE)
}

/// What a record of the journal (`journalctl -o json`) says, as the journal shows it: its two dozen fields would hide it.
fn journal(raw: &str) -> Option<String> {
    if !raw.starts_with('{') || !raw.contains("\"MESSAGE\"") {
        return None;
    }
    let record: Map<String, Value> = serde_json::from_str(raw).ok()?;
    let is_journals = ["__REALTIME_TIMESTAMP", "_HOSTNAME", "_BOOT_ID"].iter().any(|field| record.contains_key(*field));
    let text = |field: &str| match record.get(field)? {
        Value::String(text) => Some(text.clone()),
        // As the journal writes what is no text.
        Value::Array(bytes) => {
            let bytes = bytes.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()));
            Some(String::from_utf8_lossy(&bytes.collect::<Option<Vec<_>>>()?).into_owned())
        }
        _ => None,
    };
    let message = text("MESSAGE").filter(|_| is_journals)?;
    let program = text("SYSLOG_IDENTIFIER").or_else(|| text("_COMM"));
    let process = text("SYSLOG_PID").or_else(|| text("_PID")).map(|pid| format!("[{pid}]")).unwrap_or_default();
    Some(program.map_or_else(|| message.clone(), |program| format!("{program}{process}: {message}")))
}

/// Whether there is something like `03:12:40` in the text.
fn has_clock(text: &str) -> bool {
    text.as_bytes()
        .windows(8)
        .any(|w| w.iter().enumerate().all(|(i, b)| if i == 2 || i == 5 { *b == b':' } else { b.is_ascii_digit() }))
}

/// Entities of one kind.
pub(crate) struct Group {
    pub(crate) label: &'static str,
    /// Each with what is said about it: `398 times, internal`.
    pub(crate) members: Vec<(Clean, Words)>,
    /// How many more of this kind there are.
    pub(crate) more: u64,
}

/// Who stands out, by kind, the most frequent first.
pub(crate) fn groups(incidents: &[IncidentView]) -> Vec<Group> {
    let kinds =
        [EntityKind::Ip, EntityKind::User, EntityKind::Unit, EntityKind::Host, EntityKind::Device, EntityKind::Other];
    let unlisted = incidents.iter().fold(0_u64, |sum, incident| sum.saturating_add(incident.entities_omitted));
    let mut groups: Vec<Group> = Vec::new();
    let mut most = (0, 0);
    for kind in kinds {
        let mut values: Vec<(&str, u64)> = Vec::new();
        for entity in incidents.iter().flat_map(|incident| &incident.entities).filter(|entity| entity.kind == kind) {
            match values.iter_mut().find(|(value, _)| *value == &*entity.value) {
                Some((_, count)) => *count = count.saturating_add(entity.count),
                None => values.push((&entity.value, entity.count)),
            }
        }
        if values.is_empty() {
            continue;
        }
        values.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let newcomers = incidents.iter().flat_map(|incident| &incident.newcomers).filter(|entity| entity.kind == kind);
        let mut rare = Vec::new();
        for newcomer in newcomers.rev().take(MOST_NEWCOMERS) {
            let known = values.iter().position(|(value, _)| *value == &*newcomer.value);
            rare.extend(known.filter(|known| *known >= MOST_ENTITIES).map(|known| values.remove(known)));
        }
        let place = values.len().min(MOST_ENTITIES - rare.len());
        values.splice(place..place, rare);
        let more = values.len().saturating_sub(MOST_ENTITIES) as u64;
        if values.len() > most.0 {
            most = (values.len(), groups.len());
        }
        let members = values.iter().take(MOST_ENTITIES).map(|(value, count)| {
            (Clean::line(value).elided(60), words::times(*count, kind == EntityKind::Ip && words::is_internal(value)))
        });
        groups.push(Group { label: words::entities(kind), members: members.collect(), more });
    }
    // What an incident has no room for is of the kind that it has most of.
    if let Some(group) = groups.get_mut(most.1) {
        group.more = group.more.saturating_add(unlisted);
    }
    groups
}

/// The hosts of several incidents, the worst first.
pub(crate) fn hosts(incidents: &[IncidentView], most: usize) -> Vec<(Clean, u64)> {
    let host = |incident: &IncidentView| match Clean::line(incident.host.raw()) {
        empty if empty.is_empty() => Clean::line("unknown host"),
        host => host.elided(60),
    };
    incidents.iter().take(most).map(|incident| (host(incident), incident.count)).collect()
}

/// How to mute what a message tells: of several incidents all of them by what claims them, where one thing does.
pub(crate) fn mute(incidents: &[IncidentView]) -> Clean {
    let Some((first, others)) = incidents.split_first() else { return Clean::line("") };
    let alike = others.iter().all(|other| other.claimed_by == first.claimed_by);
    match (others, first.mute.split_once(" mute "), first.claimed_by.split_once(' ')) {
        ([], ..) | (_, None, _) => Clean::line(&first.mute),
        (_, Some((program, _)), Some(("rule" | "detector", name))) if alike => {
            Clean::line(&format!("{program} mute --rule {name}"))
        }
        _ => Clean::line(&format!("{} # the first one only", first.mute)),
    }
}

/// Words with their author, ready to be escaped.
pub(crate) struct Said {
    pub(crate) text: Clean,
    /// The model that said it; `None` for a rule's words.
    pub(crate) model: Option<Clean>,
}

impl Said {
    pub(crate) fn of(prose: Option<&ProseView>) -> Option<Self> {
        let prose = prose?;
        let text = Clean::line(prose.text.raw());
        if text.is_empty() {
            return None;
        }
        let model = prose.model.as_deref().map(|name| match Clean::line(name).elided(60) {
            empty if empty.is_empty() => Clean::line("unknown"),
            name => name,
        });
        Some(Self { text, model })
    }
}

/// What a message about it says first: what is wrong, or how that ended.
pub(crate) fn headline(occasion: Occasion, incident: &IncidentView) -> Clean {
    match &incident.over {
        Some(over) if occasion == Occasion::Quiet => Clean::line(over.how.raw()),
        _ => title(incident),
    }
}

/// The incident's title on one line; the category's name when it has none.
pub(crate) fn title(incident: &IncidentView) -> Clean {
    match Clean::line(incident.title.raw()) {
        empty if empty.is_empty() => Clean::line(incident.category.label()),
        title => title,
    }
}
