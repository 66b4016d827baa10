//! Looks at single lines where samples do not tell about a whole row: an attack that hides among ten thousand harmless
//! requests of the same template.
//!
//! A row whose events are all samples needs nothing, nor does a rule that the template itself decides. Of all other lines
//! the [`shape`] is looked at: most lines of a log look like one that was harmless before, and cost a hash. In a new shape
//! one automaton looks for the texts of all rules at once; only what it finds is looked at further. What was found is
//! counted exactly, and shown: the line becomes a sample of its row.

use std::{
    collections::{BTreeMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
};

use logwarden_templates::{Delta, Histogram, Row, Sample, Timestamp};

use crate::{
    Finding, http,
    look::{Hit, Known, Matched, NAMES, Seen, of_samples, slot_of},
    rule::Captures,
    rules::{Prepared, RuleSet},
};

/// Lines of a rule in a row that become samples.
const SHOWN: usize = 3;
/// Samples that a row gets in all.
const MOST_SAMPLES: usize = 16;
/// Entities and rows of a finding for which there shall be a line.
const ILLUSTRATED: usize = 3;
/// Captures that are kept of a rule in a row, for titles and for who belongs to whom.
const CAPTURES: usize = 64;
/// Values that are counted of each capture of a rule in a row.
const VALUES: usize = 256;
/// Longer lines are looked at up to here.
const MAX_LINE: usize = 8 * 1024;
/// Harmless shapes that are remembered within one delta.
const SHAPES: usize = 1 << 16;

/// What single lines of the rows of a delta say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Screened {
    hits: BTreeMap<usize, Vec<Hit>>,
    /// Which rules matched the samples of a row, and how many samples it had.
    samples: BTreeMap<usize, (Vec<Matched>, usize)>,
}

impl Screened {
    pub(crate) fn samples_of(&self, row: usize) -> Option<(Vec<Matched>, usize)> {
        self.samples.get(&row).cloned()
    }

    pub(crate) fn of_row(&self, row: usize) -> &[Hit] {
        self.hits.get(&row).map(Vec::as_slice).unwrap_or_default()
    }
}

/// What is to be looked for in the lines of a row.
enum Plan {
    /// Nothing: the samples tell all.
    Nothing,
    /// All rules but `settled`, which match every line; and `open` in any case, which match some.
    Lines { settled: Vec<usize>, open: Vec<usize> },
}

/// Looks at the lines that `delta` was folded from. Those that a rule matches and no sample shows become samples of their
/// row, a few of each kind.
pub(crate) fn screen(delta: &mut Delta, lines: &[(Timestamp, &[u8])], rules: &RuleSet) -> Screened {
    let mut screened = Screened::default();
    let mut plans: Vec<Option<Plan>> = delta.rows.iter().map(|_| None).collect();
    let mut shown: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
    let mut eye = Eye::default();
    for (row_of, (time, line)) in delta.assignments.iter().zip(lines) {
        let time = *time;
        let Some(number) = row_of.map(|row| row as usize) else { continue };
        let (Some(row), Some(known)) = (delta.rows.get(number), plans.get_mut(number)) else { continue };
        let plan = known.get_or_insert_with(|| {
            let (plan, found) = plan(row, rules);
            screened.samples.extend(found.map(|found| (number, (found, row.samples.len()))));
            plan
        });
        let Plan::Lines { settled, open } = plan else { continue };
        let (whole, line) = (line, &line[..line.len().min(MAX_LINE)]);
        let candidates = eye.candidates(rules, number, line, settled, open);
        if candidates.is_empty() {
            continue;
        }
        let text = String::from_utf8_lossy(line);
        let prepared = Prepared::new(&text);
        for rule in candidates {
            let Some(captures) = rules.judge(rule, &prepared, &row.origin.service) else { continue };
            let count = screened.take(number, rule, captures, time);
            let samples = shown.entry(number).or_default();
            let known = || row.samples.iter().chain(&*samples).any(|sample| sample.text == *whole);
            if count <= SHOWN as u64 && samples.len() + row.samples.len() < MOST_SAMPLES && !known() {
                samples.push(sample(time, whole));
            }
        }
    }
    for (number, samples) in shown {
        delta.rows[number].samples.extend(samples);
    }
    screened
}

/// Whether samples tell about all lines of a row.
fn plan(row: &Row, rules: &RuleSet) -> (Plan, Option<Vec<Matched>>) {
    if row.count <= row.samples.len() as u64 {
        return (Plan::Nothing, None);
    }
    let found = of_samples(row, rules);
    let mixed = has_mixed_status(row) && found.iter().any(|(rule, ..)| rules.is_of_status(*rule));
    let whole = |rule: &Matched| {
        let (number, captures, times) = rule;
        // A value that is in no slot of its own, or in one that could not keep all, is counted line by line.
        let counted = NAMES.iter().all(|(name, kind)| {
            captures.iter().all(|captures| captures.get(name).is_none())
                || slot_of(row, captures, name, *kind).is_some_and(|slot| slot.distinct <= slot.values.len() as u64)
        });
        times.len() == row.samples.len() && counted && !(mixed && rules.is_of_status(*number))
    };
    let settled: Vec<usize> = found.iter().filter(|rule| whole(rule)).map(|(rule, ..)| *rule).collect();
    let mut open: Vec<usize> = found.iter().map(|(rule, ..)| *rule).filter(|rule| !settled.contains(rule)).collect();
    if mixed {
        open.extend(rules.for_any_request());
        open.sort_unstable();
        open.dedup();
    }
    (Plan::Lines { settled, open }, Some(found))
}

/// Whether the lines of a row may have different HTTP statuses.
fn has_mixed_status(row: &Row) -> bool {
    let status = |text: &str| text.len() == 3 && text.parse::<u16>().is_ok_and(|n| (100..600).contains(&n));
    row.slots.iter().any(|slot| {
        let named = slot.key.is_empty() || slot.key.to_ascii_lowercase().contains("status");
        named && slot.values.iter().filter(|value| status(&value.value)).count() > 1
    })
}

/// Sees to it that the rows which findings cite show lines that name whom they are about.
pub(crate) fn illustrate(delta: &mut Delta, lines: &[(Timestamp, &[u8])], findings: &[Finding]) {
    let mut wanted: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for finding in findings {
        for entity in finding.entities.iter().take(ILLUSTRATED) {
            for row in finding.rows.iter().take(ILLUSTRATED) {
                let Some(of) = delta.rows.get(*row as usize) else { continue };
                let shown = of.samples.iter().any(|sample| holds(&sample.text, &entity.value));
                let names = wanted.entry(*row).or_default();
                if !shown && of.count > of.samples.len() as u64 && !names.contains(&&*entity.value) {
                    names.push(&entity.value);
                }
            }
        }
    }
    wanted.retain(|_, names| !names.is_empty());
    if wanted.is_empty() {
        return;
    }
    let mut found: Vec<(u32, Sample)> = Vec::new();
    for (row, (time, line)) in delta.assignments.iter().zip(lines) {
        let Some((row, names)) = row.and_then(|row| Some((row, wanted.get_mut(&row)?))) else { continue };
        let (whole, line) = (line, &line[..line.len().min(MAX_LINE)]);
        if let Some(at) = names.iter().position(|name| holds(line, name)) {
            names.swap_remove(at);
            found.push((row, sample(*time, whole)));
        }
    }
    for (row, sample) in found {
        let samples = &mut delta.rows[row as usize].samples;
        if samples.len() < MOST_SAMPLES {
            samples.push(sample);
        }
    }
}

/// A line as it came; of a very long one its beginning, and how much is left out.
fn sample(time: Timestamp, line: &[u8]) -> Sample {
    let mut text = line[..line.len().min(MAX_LINE)].to_vec();
    if text.len() < line.len() {
        text.extend_from_slice(format!(" […{} bytes left out…]", line.len() - text.len()).as_bytes());
    }
    Sample { time, text }
}

fn holds(text: &[u8], name: &str) -> bool {
    !name.is_empty() && text.windows(name.len()).any(|window| window == name.as_bytes())
}

/// Looks at shapes.
#[derive(Default)]
struct Eye {
    shape: Vec<u8>,
    found: Vec<u32>,
    /// Shapes in which nothing was found, per row. Keyed at random: nobody can write a line that passes for another.
    harmless: HashSet<u64>,
    hasher: RandomState,
}

impl Eye {
    /// The rules to be tried on a line: those whose texts may be in it, apart from the settled ones of its row, and the
    /// open ones.
    fn candidates(
        &mut self,
        rules: &RuleSet,
        row: usize,
        line: &[u8],
        settled: &[usize],
        open: &[usize],
    ) -> Vec<usize> {
        self.shape.clear();
        shape(line, &mut self.shape);
        if line.iter().any(|b| matches!(b, b'%' | b'\\')) {
            // An escape is a number, too: what it hides belongs to the shape.
            self.shape.push(b'\n');
            shape(http::unescape(&String::from_utf8_lossy(line)).as_bytes(), &mut self.shape);
        }
        let hash = self.hasher.hash_one((row, &self.shape));
        if self.harmless.contains(&hash) {
            return open.to_vec();
        }
        self.found.clear();
        rules.candidates(&self.shape, &mut self.found);
        let mut found: Vec<usize> = self.found.iter().map(|rule| *rule as usize).collect();
        found.retain(|rule| !settled.contains(rule) && !open.contains(rule));
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            if self.harmless.len() >= SHAPES {
                self.harmless.clear();
            }
            self.harmless.insert(hash);
        }
        found.extend_from_slice(open);
        found
    }
}

/// Adds what a text looks like: lower case, every number a `0`. Whatever holds a text holds its shape.
pub(crate) fn shape(text: &[u8], shape: &mut Vec<u8>) {
    let mut in_number = false;
    for byte in text {
        let digit = byte.is_ascii_digit();
        if !digit {
            shape.push(byte.to_ascii_lowercase());
        } else if !in_number {
            shape.push(b'0');
        }
        in_number = digit;
    }
}

impl Screened {
    /// Counts a line; answers how many of its kind there are.
    fn take(&mut self, row: usize, rule: usize, captures: Captures, time: Timestamp) -> u64 {
        let hits = self.hits.entry(row).or_default();
        let at = hits.iter().position(|hit| hit.rule == rule).unwrap_or_else(|| {
            let known = Known::Each(NAMES.iter().map(|(name, _)| (*name, Vec::new())).collect());
            hits.push(Hit { row, rule, captures: Vec::new(), count: 0, minutes: Histogram::default(), known });
            hits.len() - 1
        });
        let hit = &mut hits[at];
        hit.count += 1;
        hit.minutes.add(time, 1);
        if let Known::Each(values) = &mut hit.known {
            for (name, seen) in values {
                let Some(value) = captures.get(name) else { continue };
                // Those that are too many count together, without a name.
                let room = seen.len() < VALUES || seen.iter().any(|known| known.value == value);
                Seen::tick(seen, if room { value } else { "" }, time);
            }
        }
        if hit.captures.len() < CAPTURES && !hit.captures.contains(&captures) {
            hit.captures.push(captures);
        }
        hit.count
    }
}
