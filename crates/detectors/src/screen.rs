//! Looks at single lines where samples do not tell about a whole row: an attack that hides among ten thousand harmless
//! requests of the same template.
//!
//! The texts of all rules are looked for in every line, once; most lines have none, and a row none of whose lines
//! has any is not looked at further. Of the others the samples are tried first: what matches them all, and whose values the
//! slots have, is settled for the whole row. Only what is left is tried line by line. What was found is counted exactly,
//! and shown: the line becomes a sample of its row.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use logwarden_templates::{Delta, Histogram, Row, Sample, Timestamp};
use memchr::memmem;

use crate::{
    Finding,
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

/// What single lines of the rows of a delta say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Screened {
    hits: BTreeMap<usize, Vec<Hit>>,
    /// By row: which rules matched its samples, and how many samples it had.
    samples: BTreeMap<usize, (Vec<Matched>, usize)>,
    /// Rows in whose lines no text of any rule is.
    silent: Vec<bool>,
}

impl Screened {
    /// Which rules match the samples of a row, and how many samples it had when they were tried.
    pub(crate) fn samples_of(&self, number: usize, row: &Row, rules: &RuleSet) -> (Vec<Matched>, usize) {
        match self.samples.get(&number) {
            Some(known) => known.clone(),
            None if self.silent.get(number) == Some(&true) => (Vec::new(), row.samples.len()),
            None => (of_samples(row, rules), row.samples.len()),
        }
    }

    pub(crate) fn of_row(&self, row: usize) -> &[Hit] {
        self.hits.get(&row).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Lines that have texts of rules.
#[derive(Default)]
struct Marked {
    /// Line and row, and where its rules begin in `rules`.
    lines: Vec<(u32, u32, u32)>,
    rules: Vec<u32>,
    /// Lines of each row, and whether any is marked.
    rows: Vec<(u64, bool)>,
}

impl Marked {
    fn new(delta: &Delta, lines: &[(Timestamp, &[u8])], rules: &RuleSet) -> Self {
        let mut room = Vec::new();
        let mut marked = Self { rows: vec![(0, false); delta.rows.len()], ..Self::default() };
        for (number, (row, (_, line))) in (0_u32..).zip(delta.assignments.iter().zip(lines)) {
            let Some(row) = *row else { continue };
            let Some((seen, any)) = marked.rows.get_mut(row as usize) else { continue };
            *seen += 1;
            let begin = marked.rules.len();
            let line = &line[..line.len().min(MAX_LINE)];
            rules.candidates(line, &mut room, &mut marked.rules);
            if marked.rules.len() > begin {
                *any = true;
                marked.lines.push((number, row, u32::try_from(begin).unwrap_or(u32::MAX)));
            }
        }
        marked
    }

    /// The marked lines: line, row and rules, each once.
    fn iter(&self) -> impl Iterator<Item = (usize, usize, Vec<usize>)> + '_ {
        let ends = self.lines.iter().skip(1).map(|(_, _, begin)| *begin as usize).chain([self.rules.len()]);
        self.lines.iter().zip(ends).map(|((line, row, begin), end)| {
            let rules = self.rules.get(*begin as usize..end).unwrap_or_default();
            let mut rules: Vec<usize> = rules.iter().map(|rule| *rule as usize).collect();
            rules.sort_unstable();
            rules.dedup();
            (*line as usize, *row as usize, rules)
        })
    }
}

/// Looks at the lines that `delta` was folded from. Those that a rule matches and no sample shows become samples of their
/// row, a few of each kind.
pub(crate) fn screen(delta: &mut Delta, lines: &[(Timestamp, &[u8])], rules: &RuleSet) -> Screened {
    let marked = Marked::new(delta, lines, rules);
    let mut screened = Screened::default();
    // A row that began in a fold before has lines that are not here.
    let silent = |(row, (seen, any)): (&Row, &(u64, bool))| !any && *seen >= row.lines;
    screened.silent = delta.rows.iter().zip(&marked.rows).map(silent).collect();
    let mut settled: HashMap<usize, Option<Vec<usize>>> = HashMap::new();
    let mut shown: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
    let mut counts = Counts::default();
    for (at, number, candidates) in marked.iter() {
        let (Some((time, line)), Some(row)) = (lines.get(at), delta.rows.get(number)) else { continue };
        let settled = settled.entry(number).or_insert_with(|| {
            let found = of_samples(row, rules);
            let settled = settled_by(row, &found, rules);
            screened.samples.insert(number, (found, row.samples.len()));
            settled
        });
        let Some(settled) = settled else { continue };
        let mut open = candidates.into_iter().filter(|rule| !settled.contains(rule)).peekable();
        if open.peek().is_none() {
            continue;
        }
        let text = String::from_utf8_lossy(&line[..line.len().min(MAX_LINE)]);
        let prepared = Prepared::new(&text);
        for rule in open {
            let Some(captures) = rules.judge(rule, &prepared, &row.origin.service) else { continue };
            let count = counts.take(number, rule, captures, *time);
            let samples = shown.entry(number).or_default();
            let known = || row.samples.iter().chain(&*samples).any(|sample| sample.text == *line);
            if count <= SHOWN as u64 && samples.len() + row.samples.len() < MOST_SAMPLES && !known() {
                samples.push(sample(*time, line));
            }
        }
    }
    screened.hits = counts.finish();
    for (number, samples) in shown {
        delta.rows[number].samples.extend(samples);
    }
    screened
}

/// The rules that need not be tried on the lines of a row, since its samples and slots tell all; `None` if that is so of
/// every rule.
fn settled_by(row: &Row, found: &[Matched], rules: &RuleSet) -> Option<Vec<usize>> {
    if row.count <= row.samples.len() as u64 {
        return None;
    }
    let mixed = has_mixed_status(row) && found.iter().any(|(rule, ..)| rules.is_of_status(*rule));
    let whole = |(rule, captures, times): &&Matched| {
        // A value that is in no slot of its own, or in one that could not keep all, is counted line by line.
        let counted = NAMES.iter().filter(|(name, _)| rules.counts(*rule, name)).all(|(name, kind)| {
            captures.iter().all(|captures| captures.get(name).is_none())
                || slot_of(row, captures, name, *kind).is_some_and(|slot| slot.distinct <= slot.values.len() as u64)
        });
        times.len() == row.samples.len() && counted && !(mixed && rules.is_of_status(*rule))
    };
    Some(found.iter().filter(whole).map(|(rule, ..)| *rule).collect())
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
    !name.is_empty() && memmem::find(text, name.as_bytes()).is_some()
}

/// Counts the lines that rules match, by row and rule.
#[derive(Default)]
struct Counts {
    hits: HashMap<(usize, usize), Hit>,
    values: HashMap<(usize, usize, &'static str), Values>,
}

/// How often a capture had each value, and when.
type Values = HashMap<String, (u64, Histogram)>;

impl Counts {
    /// Counts a line; answers how many of its kind there are.
    fn take(&mut self, row: usize, rule: usize, captures: Captures, time: Timestamp) -> u64 {
        let hit = self.hits.entry((row, rule)).or_insert_with(|| Hit {
            row,
            rule,
            captures: Vec::new(),
            count: 0,
            minutes: Histogram::default(),
            known: Known::Each(Vec::new()),
        });
        hit.count += 1;
        hit.minutes.add(time, 1);
        for (name, _) in NAMES {
            let Some(value) = captures.get(name) else { continue };
            let seen = self.values.entry((row, rule, *name)).or_default();
            // Those that are too many count together, without a name.
            let value = if seen.len() < VALUES || seen.contains_key(value) { value } else { "" };
            if let Some((count, minutes)) = seen.get_mut(value) {
                *count += 1;
                minutes.add(time, 1);
            } else {
                let mut minutes = Histogram::default();
                minutes.add(time, 1);
                seen.insert(value.to_owned(), (1, minutes));
            }
        }
        if hit.captures.len() < CAPTURES && !hit.captures.contains(&captures) {
            hit.captures.push(captures);
        }
        hit.count
    }

    /// By row.
    fn finish(self) -> BTreeMap<usize, Vec<Hit>> {
        let mut hits = self.hits;
        let mut values: Vec<_> = self.values.into_iter().collect();
        values.sort_unstable_by_key(|(key, _)| *key);
        for ((row, rule, name), seen) in values {
            let mut seen: Vec<Seen> =
                seen.into_iter().map(|(value, (count, minutes))| Seen { value, count, minutes }).collect();
            seen.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
            if let Some(Known::Each(values)) = hits.get_mut(&(row, rule)).map(|hit| &mut hit.known) {
                values.push((name, seen));
            }
        }
        let mut sorted: Vec<_> = hits.into_iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        let mut by_row: BTreeMap<usize, Vec<Hit>> = BTreeMap::new();
        sorted.into_iter().for_each(|((row, _), hit)| by_row.entry(row).or_default().push(hit));
        by_row
    }
}
