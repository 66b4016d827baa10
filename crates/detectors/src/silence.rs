//! What does not come any more: a line that came regularly, or a whole machine.
//!
//! Silence counts up to the time that a source was read to, never to the clock: what we have not read is not missing. It
//! counts anew after a time in which nobody listened, and, for the lines of a machine, from its return. A machine that
//! stops writing is one event; that a single line has stopped takes a machine that went on without it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use logwarden_templates::{Origin, Timestamp};

use crate::{
    Category, Finding, Learned, Memory, MemoryKey, MemoryRow, ProfileName, Read, Route, Severity, Subject,
    normal::{by_detector, excerpt, service},
    stats::ENOUGH_GAPS,
};

/// A line is regular when its gaps spread by no more than this share of their mean.
const REGULAR: f64 = 0.5;

/// Subjects of one finding about silence.
const SUBJECTS: usize = 16;

/// What is known about a machine, as of this read.
struct Machine {
    key: MemoryKey,
    row: MemoryRow,
    /// The time of its latest line, by its own clock.
    wrote: Timestamp,
    /// It has a line in this read.
    is_here: bool,
}

impl Machine {
    /// How far its lines are behind: what a shipper has kept for a while, or a clock that is wrong.
    fn lag(&self) -> std::time::Duration {
        self.row.last.since(self.wrote)
    }
}

/// Templates that used to come regularly and have stopped while their machine goes on: one finding per origin; and
/// machines that are silent as a whole: one finding each. Notes in `learned` that it was told.
pub(crate) fn look(memory: &Memory, learned: &mut Learned, read: &Read) -> Vec<Finding> {
    let Some(now) = read.whole_to.map(|to| to.min(read.now)) else { return Vec::new() };
    let heard_from = learned.source.heard_from.unwrap_or(Timestamp::MIN);
    let waited = |last: Timestamp| now.since(last.max(heard_from)).as_secs_f64();
    let overdue = memory.steady().filter_map(|(key, row)| {
        let known = !row.is_origin() && row.stats.silent_since.is_none();
        let longest = patience(row).filter(|longest| known && waited(row.last) > *longest)?;
        (row.stats.hours.active_before(now.secs() / 3600) >= 3).then_some((key, row, longest))
    });
    let overdue: Vec<_> = overdue.collect();
    if overdue.is_empty() {
        return Vec::new();
    }
    let seen: HashSet<MemoryKey> = learned.rows.iter().map(|(key, _)| *key).collect();
    let machines = machines(memory, learned);
    let mut gone: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut silent: BTreeMap<Arc<Origin>, Vec<(MemoryKey, MemoryRow)>> = BTreeMap::new();
    for (key, row, longest) in overdue.into_iter().filter(|(key, ..)| !seen.contains(key)) {
        let Some(machine) = machines.get(&row.origin.host) else { continue };
        let host = &machine.row;
        if row.is_host() {
            gone.insert(row.origin.host.clone());
        } else if host.stats.silent_since.is_some() || waited(row.last.plus(machine.lag()).max(host.first)) <= longest {
            // Its machine is away and that was told, or has not been back for long enough.
        } else if machine.wrote.since(row.last).as_secs_f64() >= longest / 2.0 {
            silent.entry(row.origin.clone()).or_default().push((key, row.clone()));
        } else if !machine.is_here && waited(host.last) > longest {
            gone.insert(row.origin.host.clone());
        }
    }
    let mut findings = Vec::new();
    silent.retain(|origin, _| !gone.contains(&origin.host));
    for (origin, rows) in &mut silent {
        rows.sort_by_key(|(key, row)| (std::cmp::Reverse(row.count), *key));
        let what = rows.first().map(|(_, row)| excerpt(&row.template)).unwrap_or_default();
        findings.extend(quiet(rows, &format!("{} has gone quiet: {what}", service(origin)), now, false));
    }
    let gone = gone.iter().filter_map(|host| machines.get(host)).map(|machine| (machine.key, machine.row.clone()));
    let gone: Vec<_> = gone.collect();
    for machine in &gone {
        let host = &machine.1.origin.host;
        let name = if host.is_empty() { "a machine" } else { host };
        findings.extend(quiet(std::slice::from_ref(machine), &format!("No line of {name} comes any more"), now, true));
    }
    for (key, mut row) in silent.into_values().flatten().chain(gone) {
        row.stats.silent_since = Some(now);
        learned.rows.push((key, row));
    }
    findings
}

/// The machines that are known, with what this read has brought of them.
fn machines(memory: &Memory, learned: &Learned) -> BTreeMap<Arc<str>, Machine> {
    let mut machines: BTreeMap<Arc<str>, Machine> = BTreeMap::new();
    let all = || {
        let known = memory.rows().map(|(key, row)| (key, row, false));
        known.chain(learned.rows.iter().map(|(key, row)| (*key, row, true)))
    };
    for (key, row, is_here) in all().filter(|(_, row, _)| row.is_host()) {
        let machine = Machine { key, row: row.clone(), wrote: Timestamp::MIN, is_here };
        machines.insert(row.origin.host.clone(), machine);
    }
    for (_, row, _) in all().filter(|(_, row, _)| row.is_origin()) {
        if let Some(machine) = machines.get_mut(&row.origin.host) {
            machine.wrote = machine.wrote.max(row.last);
        }
    }
    for machine in machines.values_mut().filter(|machine| machine.wrote == Timestamp::MIN) {
        machine.wrote = machine.row.last;
    }
    machines
}

/// Seconds after which the silence of something means something; `None` when it never came regularly.
fn patience(row: &MemoryRow) -> Option<f64> {
    let gaps = &row.stats.gaps;
    let (spread, mean, longest) = (gaps.spread(), f64::from(gaps.mean), f64::from(gaps.longest));
    let patience = (5.0 * mean).max(mean + 6.0 * spread).max(1.5 * longest);
    let patience = match () {
        () if gaps.n < ENOUGH_GAPS => return None,
        () if spread <= REGULAR * mean => patience,
        // What comes by chance has long gaps by chance, and longer ones by night: much more patience is needed then.
        () if spread <= 3.0 * mean && gaps.n >= 10 * ENOUGH_GAPS => patience.max(20.0 * mean).max(3.0 * longest),
        () => return None,
    };
    Some(patience.max(600.0))
}

fn quiet(rows: &[(MemoryKey, MemoryRow)], title: &str, now: Timestamp, machine: bool) -> Option<Finding> {
    let subject = |(_, row): &(MemoryKey, MemoryRow)| Subject {
        origin: row.origin.clone(),
        leaf: None,
        root: row.root,
        template: row.template.clone(),
        last: row.last,
    };
    let last = rows.iter().map(|(_, row)| row.last).max()?;
    let minutes = now.since(last).as_secs() / 60;
    let mut explanation = match machine {
        true => format!(
            "The machine wrote regularly and has been silent for {minutes} minutes: it is down, cut off, or its log shipper has stopped."
        ),
        false => format!("A line that came regularly has not come for {minutes} minutes."),
    };
    if rows.len() > SUBJECTS {
        explanation.push_str(&format!(" {} more kinds of lines have stopped with it.", rows.len() - SUBJECTS));
    }
    let next = match machine {
        true => "See whether the machine answers (`ping -c 3 HOST`), then whether its log shipper runs.",
        false => "See whether the service still does its work.",
    };
    Some(Finding {
        by: by_detector(if machine { "source-silence" } else { "silence" }),
        profile: ProfileName::general(),
        category: Category::Silence,
        severity: if machine { Severity::High } else { Severity::Medium },
        floor: Some(Severity::Low),
        route: Route::Alert,
        title: title.to_owned(),
        explanation,
        recommendation: next.to_owned(),
        rows: Vec::new(),
        anomalous: Vec::new(),
        absent: rows.iter().take(SUBJECTS).map(subject).collect(),
        discriminator: String::new(),
        entities: Vec::new(),
        score: if machine { 5.0 } else { 4.0 },
        count: 0,
        first: last,
        last: now,
    })
}
