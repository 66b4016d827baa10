//! Looks at single lines where samples do not tell about a whole row: an attack that hides among ten thousand harmless
//! requests of the same template.
//!
//! The texts of all rules are looked for in every line, once; most lines have none, and a row none of whose lines
//! has any is not looked at further. Of the others the samples are tried first: what matches them all, and whose values the
//! slots have, is settled for the whole row. Only what is left is tried line by line. What was found is counted exactly,
//! and shown: the line becomes a sample of its row.
//!
//! A flood of failed logins is such a case: its slots cannot keep so many addresses. Rules that count are tried on the
//! first lines of each [`Shape`]; once the shape has said what the expression says often enough, values are read by it.

use std::{borrow::Cow, cell::OnceCell, collections::BTreeMap, hash::BuildHasher, hint::black_box};

use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use logwarden_templates::{Delta, Histogram, Row, Sample, Timestamp};

use crate::{
    Entity, Finding, address,
    look::{Hit, Known, Matched, NAMES, Seen, of_samples, slot_of},
    rule::{Captures, Rule},
    rules::{Prepared, REQUEST, RuleSet, readable},
    shape::Shape,
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
/// Shapes of the lines of a row that a rule matches.
const SHAPES: usize = 4;
/// Lines from which no further shape could be made, or whose shape was wrong: then no more is tried.
const SHAPELESS: u32 = 64;
/// So often must a shape have said what the expression says before it is trusted.
const AGREED: u32 = 64;
/// Spellings of values that are remembered.
const SPELLINGS: usize = 4 * VALUES;
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
    /// All hits, by row.
    pub(crate) fn hits(&self, delta: &Delta, rules: &RuleSet) -> Vec<Hit> {
        let mut hits: Vec<Hit> = Vec::new();
        for (number, row) in delta.rows.iter().enumerate() {
            let from = hits.len();
            // As they were before lines were added to them.
            let (found, samples) = self.samples_of(number, row, rules);
            for (rule, captures, times) in found {
                let hit = match times.len() == samples {
                    true => Hit {
                        row: number,
                        rule,
                        captures,
                        count: row.count,
                        minutes: row.minutes.clone(),
                        known: Known::All(times),
                    },
                    false => {
                        let mut minutes = Histogram::default();
                        times.iter().for_each(|time| minutes.add(*time, 1));
                        Hit {
                            row: number,
                            rule,
                            count: times.len() as u64,
                            captures,
                            minutes,
                            known: Known::Some(times),
                        }
                    }
                };
                hits.push(hit);
            }
            for exact in self.of_row(number) {
                match hits[from..].iter_mut().find(|hit| hit.rule == exact.rule) {
                    Some(hit) => *hit = exact.clone(),
                    None => hits.push(exact.clone()),
                }
            }
        }
        hits
    }

    /// Which rules match the samples of a row, and how many samples it had when they were tried.
    fn samples_of(&self, number: usize, row: &Row, rules: &RuleSet) -> (Vec<Matched>, usize) {
        match self.samples.get(&number) {
            Some(known) => known.clone(),
            None if self.silent.get(number) == Some(&true) => (Vec::new(), row.samples.len()),
            None => (of_samples(row, rules), row.samples.len()),
        }
    }

    fn of_row(&self, row: usize) -> &[Hit] {
        self.hits.get(&row).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Lines lie anywhere in memory, and to wait for each takes as long as to look at it: so many are waited for at once.
const AT_ONCE: usize = 16;
const CACHE_LINE: usize = 64;

/// Has lines fetched that are looked at next.
fn fetch(lines: &[(Timestamp, &[u8])]) {
    let byte = |line: &[u8], at: usize| line.get(at).copied().unwrap_or_default();
    black_box(lines.iter().take(AT_ONCE).fold(0, |sum, (_, line)| sum ^ byte(line, 0) ^ byte(line, CACHE_LINE)));
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
            if (number as usize).is_multiple_of(AT_ONCE) {
                fetch(lines.get(number as usize..).unwrap_or_default());
            }
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

    /// The marked lines: line and row, and their rules, perhaps more than once.
    fn iter(&self) -> impl Iterator<Item = (usize, usize, &[u32])> + '_ {
        let ends = self.lines.iter().skip(1).map(|(_, _, begin)| *begin as usize).chain([self.rules.len()]);
        self.lines.iter().zip(ends).map(|((line, row, begin), end)| {
            (*line as usize, *row as usize, self.rules.get(*begin as usize..end).unwrap_or_default())
        })
    }
}

/// Looks at the lines that `delta` was folded from. Those that a rule matches and no sample shows become samples of their
/// row, a few of each kind.
pub(crate) fn screen(delta: &mut Delta, lines: &[(Timestamp, &[u8])], rules: &RuleSet) -> Screened {
    screen_by(delta, lines, rules, true)
}

/// With or without shapes: what comes of it is the same.
fn screen_by(delta: &mut Delta, lines: &[(Timestamp, &[u8])], rules: &RuleSet, shapes: bool) -> Screened {
    let marked = Marked::new(delta, lines, rules);
    let mut screened = Screened::default();
    // A row that began in a fold before has lines that are not here.
    let silent = |(row, (seen, any)): (&Row, &(u64, bool))| !any && *seen >= row.lines;
    screened.silent = delta.rows.iter().zip(&marked.rows).map(silent).collect();
    let mut of_rows: Vec<Option<OfRow>> = Vec::new();
    of_rows.resize_with(delta.rows.len(), || None);
    let mut shown: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
    let mut open: Vec<usize> = Vec::new();
    for (at, number, candidates) in marked.iter() {
        let (Some((time, line)), Some(row)) = (lines.get(at), delta.rows.get(number)) else { continue };
        let of_row = of_rows[number].get_or_insert_with(|| {
            let found = of_samples(row, rules);
            let settled = settled_by(row, &found, rules);
            screened.samples.insert(number, (found, row.samples.len()));
            OfRow { settled, ..OfRow::default() }
        });
        let Some(settled) = &of_row.settled else { continue };
        open.clear();
        let rules_only = candidates.iter().filter(|rule| **rule != REQUEST).map(|rule| *rule as usize);
        open.extend(rules_only.filter(|rule| !settled.contains(rule)));
        open.sort_unstable();
        open.dedup();
        let head = &line[..line.len().min(MAX_LINE)];
        let (text, prepared) = (OnceCell::new(), OnceCell::new());
        for number_of_rule in open.iter().copied() {
            let rule = rules.rule(number_of_rule);
            let by_shapes = shapes && rule.looks_at_shapes();
            let known = of_row.counts.iter().position(|(of, _)| *of == number_of_rule);
            let by_shape = known.filter(|_| by_shapes).and_then(|at| of_row.counts[at].1.by_shape(head, *time));
            let count = match by_shape {
                Some(count) => count,
                None => {
                    let prepared = prepared
                        .get_or_init(|| Prepared::of_candidates(text.get_or_init(|| readable(head)), candidates));
                    let captures = rules.judge(number_of_rule, prepared, &row.origin.service);
                    if by_shapes && let Some(at) = known {
                        of_row.counts[at].1.compare(head, captures.as_ref());
                    }
                    let Some(captures) = captures else {
                        of_row.exclude(row, number_of_rule, rule);
                        continue;
                    };
                    let at = known.unwrap_or_else(|| {
                        of_row.counts.push((number_of_rule, Counts::new(number, number_of_rule)));
                        of_row.counts.len() - 1
                    });
                    let counts = &mut of_row.counts[at].1;
                    if by_shapes {
                        counts.learn(head, prepared.raw, rule, &captures);
                    }
                    counts.take(captures, *time)
                }
            };
            if count > SHOWN as u64 {
                continue;
            }
            let samples = shown.entry(number).or_default();
            let is = |sample: &Sample| sample.text == *line;
            let known = || samples.iter().any(is) || row.samples.iter().any(|sample| is(&sample));
            if samples.len() + row.samples.len() < MOST_SAMPLES && !known() {
                samples.push(sample(*time, line));
            }
        }
    }
    for (number, of_row) in of_rows.into_iter().enumerate() {
        let Some(mut of_row) = of_row.filter(|of_row| !of_row.counts.is_empty()) else { continue };
        of_row.counts.sort_unstable_by_key(|(rule, _)| *rule);
        screened.hits.insert(number, of_row.counts.into_iter().map(|(_, counts)| counts.finish()).collect());
    }
    for (number, samples) in shown {
        delta.rows[number].samples.extend(samples);
    }
    screened
}

/// What is known of a row whose lines are tried.
#[derive(Default)]
struct OfRow {
    /// See [`settled_by`].
    settled: Option<Vec<usize>>,
    /// Rules that were found not to be excluded for good.
    possible: Vec<usize>,
    /// By rule.
    counts: Vec<(usize, Counts)>,
}

impl OfRow {
    /// Settles a rule that excludes what is in all lines of the row: it need not be tried on any of them.
    fn exclude(&mut self, row: &Row, number: usize, rule: &Rule) {
        if self.possible.contains(&number) {
            return;
        }
        match (&mut self.settled, rule.excludes_all_of(row)) {
            (Some(settled), true) => settled.push(number),
            _ => self.possible.push(number),
        }
    }
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
                || match slot_of(row, captures, name, *kind) {
                    Some(slot) => slot.distinct <= slot.values.len() as u64,
                    None => is_constant(row, captures, name),
                }
        });
        times.len() == row.samples.len() && counted && !(mixed && rules.is_of_status(*rule))
    };
    Some(found.iter().filter(whole).map(|(rule, ..)| *rule).collect())
}

/// Whether a capture is a word of the template: the same in all lines of the row.
fn is_constant(row: &Row, captures: &[Captures], name: &str) -> bool {
    let mut values = captures.iter().map(|captures| captures.get(name));
    let Some(Some(value)) = values.next() else { return false };
    let is_word =
        || row.template.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').any(|word| word == value);
    values.all(|other| other == Some(value)) && is_word()
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
    let mut wanted: BTreeMap<u32, Vec<&Entity>> = BTreeMap::new();
    for finding in findings {
        for entity in finding.entities.iter().take(ILLUSTRATED) {
            for row in finding.rows.iter().take(ILLUSTRATED) {
                let Some(of) = delta.rows.get(*row as usize) else { continue };
                let shown = of.samples.iter().any(|sample| entity.is_named_in(&sample.text));
                let known =
                    wanted.get(row).is_some_and(|wanted| wanted.iter().any(|known| known.value == entity.value));
                if !shown && of.count > of.samples.len() as u64 && !known {
                    wanted.entry(*row).or_default().push(entity);
                }
            }
        }
    }
    if wanted.is_empty() {
        return;
    }
    let mut found: Vec<(u32, Sample)> = Vec::new();
    for (row, (time, line)) in delta.assignments.iter().zip(lines) {
        if wanted.is_empty() {
            break;
        }
        let Some((row, names)) = row.and_then(|row| Some((row, wanted.get_mut(&row)?))) else { continue };
        let (whole, line) = (line, &line[..line.len().min(MAX_LINE)]);
        if let Some(at) = names.iter().position(|entity| entity.is_named_in(line)) {
            names.swap_remove(at);
            let none_left = names.is_empty();
            found.push((row, sample(*time, whole)));
            if none_left {
                wanted.remove(&row);
            }
        }
    }
    for (row, sample) in found {
        let samples = &mut delta.rows[row as usize].samples;
        if samples.len() < MOST_SAMPLES {
            samples.push(sample.time, &sample.text);
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

/// Counts the lines of a row that a rule matches.
struct Counts {
    hit: Hit,
    values: Vec<(&'static str, Values)>,
    shapes: Vec<Trusted>,
    /// Lines that had no shape, or another one than it seemed.
    shapeless: u32,
    /// Hashes of values that occurred together.
    together: HashSet<u64>,
}

/// A shape, and how often it said what the expression says.
struct Trusted {
    shape: Shape,
    agreed: u32,
    /// By capture: its place in [`Counts::values`], where its values are counted.
    counted: Vec<Option<usize>>,
    /// Whether a value must have been tried by the rule, since it excludes texts.
    excludes: bool,
}

impl Counts {
    fn new(row: usize, rule: usize) -> Self {
        let known = Known::Each(Vec::new());
        let hit = Hit { row, rule, captures: Vec::new(), count: 0, minutes: Histogram::default(), known };
        Self { hit, values: Vec::new(), shapes: Vec::new(), shapeless: 0, together: HashSet::new() }
    }

    /// Counts a line; answers how many of its kind there are.
    fn take(&mut self, captures: Captures, time: Timestamp) -> u64 {
        self.hit.count += 1;
        self.hit.minutes.add(time, 1);
        for (name, _) in NAMES {
            let Some(value) = captures.get(name).filter(|_| is_counted(name, &captures)) else { continue };
            let place = self.values_of(name);
            self.values[place].1.add(value, time);
        }
        if self.hit.captures.len() < CAPTURES && !self.hit.captures.contains(&captures) {
            self.hit.captures.push(captures);
        }
        self.hit.count
    }

    fn values_of(&mut self, name: &'static str) -> usize {
        self.values.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.values.push((name, Values::default()));
            self.values.len() - 1
        })
    }

    /// Counts a line if its shape is known and trusted.
    fn by_shape(&mut self, line: &[u8], time: Timestamp) -> Option<u64> {
        let mut trusted = self.shapes.iter().filter(|trusted| trusted.agreed >= AGREED);
        let (values, trusted) = trusted.find_map(|trusted| Some((trusted.shape.read(line)?, trusted)))?;
        let values = values.get(..trusted.shape.names.len())?;
        if trusted.excludes && !self.are_known(trusted, values) {
            return None;
        }
        // The first ones that occur together are shown.
        if self.hit.captures.len() < CAPTURES && !self.together.contains(&hash(values)) {
            return None;
        }
        self.hit.count += 1;
        self.hit.minutes.add(time, 1);
        for (value, place) in values.iter().zip(&trusted.counted) {
            if let Some((name, values)) = place.and_then(|place| self.values.get_mut(place)) {
                values.add_spelling(value, *name == "ip", time);
            }
        }
        Some(self.hit.count)
    }

    /// Whether all values that could hold a text were tried in some line.
    fn are_known(&self, trusted: &Trusted, values: &[&[u8]]) -> bool {
        values.iter().zip(&trusted.counted).all(|(value, place)| {
            let values = place.and_then(|place| self.values.get(place));
            !value.iter().any(u8::is_ascii_alphabetic)
                || values.is_some_and(|(_, known)| known.spellings.contains_key(*value))
        })
    }

    /// Compares what shapes say about a line with what the expression says.
    fn compare(&mut self, line: &[u8], captures: Option<&Captures>) {
        let mut wrong = 0;
        self.shapes.retain_mut(|trusted| {
            let Some(values) = trusted.shape.read(line) else { return true };
            let values = values.get(..trusted.shape.names.len()).unwrap_or_default();
            let same = captures.is_some_and(|captures| {
                let mut pairs = trusted.shape.names.iter().zip(values);
                captures.len() == values.len()
                    && pairs.all(|(name, value)| captures.get(name) == Some(&*spelled(value, &**name == "ip")))
            });
            trusted.agreed += u32::from(same);
            wrong += u32::from(!same);
            if same {
                self.together.insert(hash(values));
                for (value, place) in values.iter().zip(&trusted.counted) {
                    if let Some((name, values)) = place.and_then(|place| self.values.get_mut(place)) {
                        values.spell(value, *name == "ip");
                    }
                }
            }
            same
        });
        self.shapeless += wrong;
    }

    /// Makes a shape of a line that has none yet.
    fn learn(&mut self, line: &[u8], text: &str, rule: &Rule, captures: &Captures) {
        if self.shapes.len() >= SHAPES
            || self.shapeless >= SHAPELESS
            || line != text.as_bytes()
            || self.shapes.iter().any(|trusted| trusted.shape.read(line).is_some())
        {
            return;
        }
        let Some(shape) = rule.places(text).and_then(|places| Shape::of(text, places)) else {
            self.shapeless += 1;
            return;
        };
        let counted = shape.names.iter().map(|name| {
            let (name, _) = NAMES.iter().find(|(known, _)| *known == &**name)?;
            is_counted(name, captures).then(|| self.values_of(name))
        });
        let counted = counted.collect();
        self.shapes.push(Trusted { shape, agreed: 0, counted, excludes: !rule.none.is_empty() });
    }

    fn finish(self) -> Hit {
        let mut hit = self.hit;
        hit.known = Known::Each(self.values.into_iter().map(|(name, values)| (name, values.finish())).collect());
        hit
    }
}

/// Whether values of a capture are of use: ports only where nobody is named.
fn is_counted(name: &str, captures: &Captures) -> bool {
    name != "port" || captures.get("user").is_none()
}

fn hash(values: &[&[u8]]) -> u64 {
    // Only compared with others of this very process: whatever the seed is, the result is the same.
    thread_local!(static HASHER: DefaultHashBuilder = DefaultHashBuilder::default());
    HASHER.with(|hasher| hasher.hash_one(values))
}

/// A value as rules tell it.
fn spelled(value: &[u8], is_address: bool) -> Cow<'_, str> {
    let text = readable(value);
    match address::canonical(&text).filter(|_| is_address) {
        Some(address) => address.into(),
        None => text,
    }
}

/// How often a capture had each value, and when.
#[derive(Default)]
struct Values {
    seen: Vec<Seen>,
    places: HashMap<String, usize>,
    /// Of values as they stand in lines.
    spellings: HashMap<Box<[u8]>, usize>,
}

impl Values {
    fn add(&mut self, value: &str, time: Timestamp) {
        let place = self.place(value);
        self.count(place, time);
    }

    fn add_spelling(&mut self, value: &[u8], is_address: bool, time: Timestamp) {
        let place = self.spell(value, is_address);
        self.count(place, time);
    }

    /// The place of a value as it stands in a line.
    fn spell(&mut self, value: &[u8], is_address: bool) -> usize {
        if let Some(place) = self.spellings.get(value) {
            return *place;
        }
        let place = self.place(&spelled(value, is_address));
        if self.spellings.len() < SPELLINGS {
            self.spellings.insert(value.into(), place);
        }
        place
    }

    fn count(&mut self, place: usize, time: Timestamp) {
        if let Some(seen) = self.seen.get_mut(place) {
            seen.count += 1;
            seen.minutes.add(time, 1);
        }
    }

    fn place(&mut self, value: &str) -> usize {
        if let Some(place) = self.places.get(value) {
            return *place;
        }
        // Those that are too many count together, without a name.
        let value = if self.seen.len() < VALUES { value } else { "" };
        if let Some(place) = self.places.get(value) {
            return *place;
        }
        self.seen.push(Seen { value: value.to_owned(), count: 0, minutes: Histogram::default() });
        self.places.insert(value.to_owned(), self.seen.len() - 1);
        self.seen.len() - 1
    }

    fn finish(mut self) -> Vec<Seen> {
        self.seen.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use logwarden_templates::{Carry, Clock, Config, End, FoldOptions, Miner, Record, Stream};
    use proptest::prelude::*;

    use super::*;

    /// A line about a login, of one of the kinds that servers and attackers write.
    fn line((kind, user, address, number): (u8, u16, u16, u32)) -> String {
        const USERS: [&str; 10] = [
            "root",
            "7",
            "von hinten",
            "x from 6.6.6.6",
            "x from 6.6.6.6 port 22 ssh2",
            "rhost=6.6.6.6",
            "Invalid user y from 6.6.6.6",
            "NT_STATUS_WRONG_PASSWORD",
            "j\u{fc}rgen",
            "",
        ];
        let user = match user {
            0..10 => USERS[user as usize].to_owned(),
            _ => format!("user{}", user % 97),
        };
        let address = match address % 16 {
            0 => format!("2001:db8::{:x}", address),
            1 => format!("2001:0db8::{:04x}", address / 7),
            2 => "host.example".to_owned(),
            3 => "UNKNOWN".to_owned(),
            4 => format!("::ffff:203.0.113.{}", address % 250),
            _ => format!("203.0.{}.{}", address % 4, address % 250),
        };
        match kind % 16 {
            0..5 => format!("sshd[{number}]: Failed password for {user} from {address} port {number} ssh2"),
            5..7 => {
                format!("sshd[{number}]: Failed password for invalid user {user} from {address} port {number} ssh2")
            }
            7..9 => format!("sshd[{number}]: Invalid user {user} from {address} port {number}"),
            9 => format!("sshd[{number}]: Disconnected from invalid user {user} {address} port {number} [preauth]"),
            10 => format!(
                "sshd[{number}]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={address}  user={user}"
            ),
            11 => format!("sshd[{number}]: Accepted password for {user} from {address} port {number} ssh2"),
            12 => format!("sshd[{number}]: User {user} from {address} not allowed because not listed in AllowUsers"),
            13 => format!(
                "dovecot: imap-login: Disconnected (auth failed, 1 attempts in {number} secs): user=<{user}>, method=PLAIN, rip={address}, lip=192.0.2.1"
            ),
            14 => format!(
                "kernel: [{number}.5] [UFW BLOCK] IN=ens2 OUT= SRC={address} DST=192.0.2.1 PROTO=TCP SPT={number} DPT=80"
            ),
            _ => format!("mysqld[9]: Access denied for user '{user}'@'{address}' (using password: YES)"),
        }
    }

    /// What comes of lines with and without shapes, and how many lines were counted by shapes alone.
    #[track_caller]
    fn check(lines: &[String], config: Config) {
        let stream = Arc::new(Stream::new([("host".to_owned(), "web-1".to_owned())].into()));
        let time = |number: usize| Timestamp::from_nanos(1_795_233_600_000_000_000 + number as i64 * 700_000_000);
        let records = lines.iter().enumerate().map(|(number, text)| Record {
            stream: &stream,
            time: time(number),
            clock: Clock::Record,
            text: text.as_bytes(),
            tags: 1,
        });
        let records: Vec<_> = records.collect();
        let miner = Miner::new(config);
        let fold = || miner.fold(Carry::default(), records.clone(), FoldOptions { end: End::Closed, assign: true });
        let lines: Vec<(Timestamp, &[u8])> = records.iter().map(|record| (record.time, record.text)).collect();
        let rules = RuleSet::builtin();
        let (mut fast, mut slow) = (fold(), fold());
        let by_shapes = screen_by(&mut fast, &lines, &rules, true);
        let by_rules = screen_by(&mut slow, &lines, &rules, false);
        assert_eq!(by_shapes.hits.keys().collect::<Vec<_>>(), by_rules.hits.keys().collect::<Vec<_>>());
        for (one, other) in by_shapes.hits.values().flatten().zip(by_rules.hits.values().flatten()) {
            let of = |hit: &Hit| (hit.rule, hit.count, hit.minutes.clone());
            assert_eq!(of(one), of(other));
            assert_eq!(one.captures, other.captures);
            let (Known::Each(values), Known::Each(of_rules)) = (&one.known, &other.known) else { panic!("each") };
            let sorted = |values: &[(&'static str, Vec<Seen>)]| values.iter().cloned().collect::<BTreeMap<_, _>>();
            assert_eq!(sorted(values), sorted(of_rules), "{}", rules.rule(one.rule).id);
        }
        let samples = |delta: &Delta| delta.rows.iter().map(|row| row.samples.clone()).collect::<Vec<_>>();
        assert_eq!(samples(&fast), samples(&slow));
    }

    /// So few values are kept of a slot that the lines must be counted one by one.
    fn crowded() -> Config {
        Config { entities: 2, values: 2, ..Config::default() }
    }

    #[test]
    fn shapes_say_what_expressions_say() {
        let mut dice: u64 = 7;
        let mut roll = || {
            dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (dice >> 33) as u32
        };
        let lines: Vec<String> =
            (0..6_000).map(|_| line((roll() as u8, (roll() % 600) as u16, roll() as u16, roll() % 60_000))).collect();
        check(&lines, crowded());
        check(&lines, Config::default());
    }

    #[test]
    fn a_flood_is_counted_by_its_shape_and_whatever_looks_different_is_not() {
        let mut counts = Counts::new(0, 0);
        let rules = RuleSet::builtin();
        let number = rules.rules().position(|rule| rule.id == "ssh-failed-password").unwrap();
        let (mut by_shape, mut by_rule) = (0, 0);
        for n in 0..1_000_u16 {
            let user = if n == 700 { 3 } else { 10 + n };
            let text = line((0, user, 5 + 16 * (n % 90), u32::from(n)));
            if counts.by_shape(text.as_bytes(), Timestamp::from_secs(60)).is_some() {
                by_shape += 1;
                continue;
            }
            by_rule += 1;
            let captures = rules.judge(number, &Prepared::new(&text), "sshd").unwrap();
            counts.compare(text.as_bytes(), Some(&captures));
            counts.learn(text.as_bytes(), &text, rules.rule(number), &captures);
            counts.take(captures, Timestamp::from_secs(60));
        }
        assert_eq!((by_shape, by_rule), (1_000 - by_rule, by_rule));
        assert!(by_rule < 80, "{by_rule} lines were tried by the expression");
        assert_eq!(counts.hit.count, 1_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn shapes_say_what_expressions_say_whatever_comes(
            lines in prop::collection::vec((0_u8..16, 0_u16..40, any::<u16>(), 0_u32..60_000), 300..900),
            kinds in 1_u8..16,
        ) {
            let lines: Vec<String> = lines.into_iter().map(|(kind, user, address, number)| line((kind % kinds, user, address, number))).collect();
            check(&lines, crowded());
        }
    }
}
