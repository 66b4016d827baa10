//! A rule and a class of failures, checked.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use logwarden_templates::Row;
use memchr::memmem;
use regex::bytes::{Regex, RegexBuilder};

use crate::{Category, ProfileName, Severity, address, program};

/// A signature: what it looks for, and what to say when it is there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rule {
    /// Its name; a user's rule with the same one replaces it.
    pub id: String,
    /// The severity of its findings, which is their floor, too.
    pub severity: Severity,
    /// What kind of trouble.
    pub category: Category,
    /// The profile it belongs to.
    pub profile: ProfileName,
    /// What it means, in plain words.
    pub explanation: String,
    /// What it is based on.
    pub source: String,
    /// Lines that it matches.
    pub examples: Vec<String>,
    /// Lines that look alike and are not matched.
    pub counter_examples: Vec<String>,
    /// The file it is from.
    pub file: String,
    /// The line in that file.
    pub line: usize,
    pub(crate) title: Text,
    pub(crate) next: Text,
    pub(crate) on: On,
    pub(crate) programs: Vec<String>,
    pub(crate) not_programs: Vec<String>,
    pub(crate) any: Vec<Literal>,
    pub(crate) all: Vec<Literal>,
    pub(crate) none: Vec<Literal>,
    pub(crate) regex: Option<Pattern>,
    pub(crate) status: Vec<(u16, u16)>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) raise: Vec<Raise>,
    pub(crate) act: Act,
    pub(crate) watch: Vec<String>,
    pub(crate) group: String,
    pub(crate) discriminator: Option<String>,
}

impl Rule {
    /// Whether it matters which address a line is about, even when the expression does not say where it stands.
    pub(crate) fn wants_client(&self) -> bool {
        match self.act {
            Act::Count(_) | Act::Success(_) => true,
            Act::Find(_) => self.on != On::Line || self.profile == ProfileName::security(),
            Act::Watch | Act::Benign => false,
            Act::Contact => true,
        }
    }

    /// Whether what it captures in one line is captured in all lines that look alike, whatever the names and numbers are:
    /// so it is of rules that count and come with the program. Others may ask for certain names or numbers.
    pub(crate) fn looks_at_shapes(&self) -> bool {
        let counts = matches!(self.act, Act::Count(_) | Act::Success(_) | Act::Watch | Act::Contact);
        counts
            && self.file.starts_with(BUILTIN)
            && self.on == On::Line
            && self.regex.is_some()
            && self.conditions.is_empty()
    }

    /// Whether what it excludes is in all lines of a row: a part of its template, or who wrote them.
    pub(crate) fn excludes_all_of(&self, row: &Row) -> bool {
        if self.not_programs.iter().any(|program| program::is_service(program, &row.origin.service)) {
            return true;
        }
        if self.on != On::Line || self.none.is_empty() || row.samples.is_empty() {
            return false;
        }
        let template = row.template.to_ascii_lowercase();
        let samples: Vec<_> = row.samples.iter().map(|sample| sample.text.to_ascii_lowercase()).collect();
        let in_all = |text: &&Literal| text.is_in(&template) && samples.iter().all(|sample| text.is_in_bytes(sample));
        self.none.iter().any(|text| in_all(&text))
    }

    /// Where in a line stands what the expression captures. `None` when there is something else that it is about.
    pub(crate) fn places(&self, line: &str) -> Option<Vec<(Arc<str>, Range<usize>)>> {
        let places = self.regex.as_ref()?.places(line)?;
        (!self.wants_client() || places.iter().any(|(name, _)| &**name == "ip")).then_some(places)
    }
}

/// What the names of the files begin with that come with the program.
pub(crate) const BUILTIN: &str = "builtin/";

/// A text to be looked for, in any case.
#[derive(Clone, Debug)]
pub(crate) struct Literal {
    /// In lower case.
    pub(crate) text: String,
    finder: memmem::Finder<'static>,
}

impl Literal {
    pub(crate) fn new(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        Self { finder: memmem::Finder::new(text.as_bytes()).into_owned(), text }
    }

    /// Whether it is in a text in lower case.
    pub(crate) fn is_in(&self, lower: &str) -> bool {
        self.is_in_bytes(lower.as_bytes())
    }

    fn is_in_bytes(&self, lower: &[u8]) -> bool {
        self.finder.find(lower).is_some()
    }
}

/// Failures that are counted together, and when they are too many.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) id: String,
    /// `failed SSH logins`.
    pub(crate) noun: String,
    pub(crate) title: Option<Text>,
    pub(crate) severity: Severity,
    pub(crate) category: Category,
    pub(crate) profile: ProfileName,
    pub(crate) per: Per,
    /// So many of one entity in so many minutes are a burst.
    pub(crate) at_least: u32,
    pub(crate) minutes: u32,
    /// So many users tried from one address (or addresses trying one user) are a finding, however slow.
    pub(crate) partners: Option<u32>,
    /// So many of one entity, decayed over hours, are a finding.
    pub(crate) slow: Option<u32>,
    /// So many of all entities together are a burst.
    pub(crate) total: Option<u32>,
    /// Its severity when one of those it is about has an address that is not public: the attacker is inside.
    pub(crate) inside: Option<Severity>,
    /// From so many on it is one step more severe.
    pub(crate) many: Option<u32>,
    pub(crate) explanation: String,
    pub(crate) next: Text,
}

/// By what the failures of a class are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    Ip,
    User,
    Host,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// Log lines, except those of access logs.
    Line,
    /// Requests in access logs, to the server that wrote them.
    Http,
    /// Requests that went through a proxy, or were meant to.
    Proxy,
}

/// What a match does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Makes a finding.
    Find(Threshold),
    /// Counts as a failure of a class.
    Count(String),
    /// Is a success where failures of a class matter.
    Success(String),
    /// Only its values are learned.
    Watch,
    /// Tells of a contact with somebody else; the capture `peer` says with whom.
    Contact,
    /// Is normal: no novelty, no error level.
    Benign,
}

/// So many in so many minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Threshold {
    pub(crate) at_least: u32,
    pub(crate) minutes: u32,
}

/// A severity that a condition raises to.
#[derive(Clone, Debug)]
pub(crate) struct Raise {
    pub(crate) severity: Severity,
    pub(crate) when: Condition,
}

/// A comparison of a captured number, or what an address is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    capture: String,
    compare: Compare,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Compare {
    Less(f64),
    AtMost(f64),
    Equal(f64),
    AtLeast(f64),
    More(f64),
    /// It is an address of the internet, not one of our own networks'.
    Outside,
}

impl Condition {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (capture, compare, number) = (words.next()?, words.next()?, words.next()?);
        let bound = || number.parse().ok().filter(|n: &f64| n.is_finite());
        let compare = match (compare, number) {
            ("is", "outside") => Compare::Outside,
            ("<", _) => Compare::Less(bound()?),
            ("<=", _) => Compare::AtMost(bound()?),
            ("=", _) => Compare::Equal(bound()?),
            (">=", _) => Compare::AtLeast(bound()?),
            (">", _) => Compare::More(bound()?),
            _ => return None,
        };
        words.next().is_none().then(|| Self { capture: capture.to_owned(), compare })
    }

    /// Whether what was captured is so; no capture, no match.
    pub(crate) fn holds(&self, captures: &Captures) -> bool {
        let Some(value) = captures.get(&self.capture) else { return false };
        let is = |compare: &dyn Fn(f64) -> bool| number(value).is_some_and(compare);
        match self.compare {
            Compare::Less(bound) => is(&|n| n < bound),
            Compare::AtMost(bound) => is(&|n| n <= bound),
            Compare::Equal(bound) => is(&|n| n == bound),
            Compare::AtLeast(bound) => is(&|n| n >= bound),
            Compare::More(bound) => is(&|n| n > bound),
            Compare::Outside => address::network(value).is_some(),
        }
    }
}

/// The number that a text begins with: `95%`, `1,234`, `0.5s`.
fn number(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ',' | '-'))).unwrap_or(text.len());
    text[..end].replace(',', "").parse().ok()
}

/// What the named groups of a rule's expression held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Captures(Vec<(Arc<str>, String)>);

/// Longest captured value.
const MAX_VALUE: usize = 256;

impl Captures {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| &**n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_pairs(self) -> Vec<(String, String)> {
        self.0.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    /// Puts the address in its one form.
    pub(crate) fn canonicalize_ip(&mut self) {
        let Some(at) = self.0.iter().position(|(name, _)| &**name == "ip") else { return };
        if let Some(address) = address::canonical(&self.0[at].1) {
            // Behind the others.
            let (name, _) = self.0.remove(at);
            self.0.push((name, address));
        }
    }

    pub(crate) fn set(&mut self, name: &Arc<str>, value: &str) {
        if self.get(name).is_none() {
            self.0.push((name.clone(), value[..value.floor_char_boundary(MAX_VALUE)].to_owned()));
        }
    }
}

/// A regular expression, compiled when it is first needed: most rules' never are.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    compiled: OnceLock<Option<Compiled>>,
}

#[derive(Clone, Debug)]
struct Compiled {
    regex: Regex,
    /// The named groups with their numbers. `ip_2` is another place where `ip` may stand.
    groups: Vec<(usize, Arc<str>)>,
}

impl Compiled {
    fn new(regex: Regex) -> Self {
        let plain = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_').into();
        let named = regex.capture_names().enumerate().filter_map(|(number, name)| Some((number, plain(name?))));
        Self { groups: named.collect(), regex }
    }
}

impl Pattern {
    pub(crate) fn new(text: String) -> Self {
        Self { text, compiled: OnceLock::new() }
    }

    /// Bytes first: that is several times smaller and faster, and enough unless the expression asks for more.
    fn build(&self) -> Result<Regex, regex::Error> {
        let build = |unicode| {
            RegexBuilder::new(&self.text)
                .case_insensitive(true)
                .unicode(unicode)
                .size_limit(1 << 20)
                .dfa_size_limit(1 << 20)
                .build()
        };
        build(false).or_else(|_| build(true))
    }

    /// Whether it is an expression at all.
    pub(crate) fn check(&self) -> Result<(), String> {
        regex_syntax_error(self.build())
    }

    fn compiled(&self) -> Option<&Compiled> {
        self.compiled.get_or_init(|| self.build().ok().map(Compiled::new)).as_ref()
    }

    /// The named groups, if it matches.
    pub(crate) fn captures(&self, text: &str) -> Option<Captures> {
        let Compiled { regex, groups } = self.compiled()?;
        let mut captures = Captures::default();
        if groups.is_empty() {
            return regex.is_match(text.as_bytes()).then_some(captures);
        }
        let found = regex.captures(text.as_bytes())?;
        for (number, name) in groups {
            if let Some(group) = found.get(*number) {
                captures.set(name, &String::from_utf8_lossy(group.as_bytes()));
            }
        }
        Some(captures)
    }

    /// Where the named groups are, if it matches.
    fn places(&self, text: &str) -> Option<Vec<(Arc<str>, Range<usize>)>> {
        let Compiled { regex, groups } = self.compiled()?;
        let found = regex.captures(text.as_bytes())?;
        let mut places: Vec<(Arc<str>, Range<usize>)> = Vec::new();
        for (number, name) in groups {
            if let Some(group) = found.get(*number)
                && !places.iter().any(|(known, _)| known == name)
            {
                places.push((name.clone(), group.range()));
            }
        }
        Some(places)
    }
}

fn regex_syntax_error(built: Result<Regex, regex::Error>) -> Result<(), String> {
    built.map(drop).map_err(|e| e.to_string().lines().last().unwrap_or("unreadable").trim().to_owned())
}

/// A text with places to fill: `Disk {device|a disk} is full`.
#[derive(Clone, Debug)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The first place that has no default.
    pub(crate) fn without_default(&self) -> Option<&str> {
        self.places().into_iter().find(|(_, _, _, default)| default.is_none()).map(|(_, _, name, _)| name)
    }

    /// Fills the places from `value`; what it does not have takes the default, or `?`.
    pub(crate) fn fill(&self, value: impl Fn(&str) -> Option<String>) -> String {
        let mut out = String::with_capacity(self.0.len() + 32);
        let mut from = 0;
        for (open, close, name, default) in self.places() {
            out.push_str(&self.0[from..open]);
            out.push_str(&value(name).filter(|v| !v.is_empty()).unwrap_or_else(|| default.unwrap_or("?").to_owned()));
            from = close + 1;
        }
        out.push_str(&self.0[from..]);
        out
    }

    /// Fills the places of a command: only values that no shell can misread.
    pub(crate) fn fill_safely(&self, value: impl Fn(&str) -> Option<String>) -> String {
        self.fill(|name| value(name).filter(|v| is_safe(v)))
    }

    fn places(&self) -> Vec<(usize, usize, &str, Option<&str>)> {
        let mut places = Vec::new();
        let mut from = 0;
        while let Some(open) = self.0[from..].find('{').map(|at| from + at) {
            let Some(close) = self.0[open..].find('}').map(|at| open + at) else { break };
            let inside = &self.0[open + 1..close];
            let (name, default) = inside.split_once('|').map_or((inside, None), |(n, d)| (n, Some(d)));
            if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                places.push((open, close, name, default));
            }
            from = close + 1;
        }
        places
    }
}

/// Whether a value may stand in a command that a tired person copies.
fn is_safe(value: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b':' | b'/' | b'-');
    !value.is_empty()
        && value.len() <= 64
        && !value.starts_with('-')
        && !value.contains("..")
        && value.bytes().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_takes_no_value_that_a_shell_could_misread() {
        let text = Text::new("systemctl status {unit|UNIT}".to_owned());
        let with = |value: &str| text.fill_safely(|_| Some(value.to_owned()));
        assert_eq!(with("nginx.service"), "systemctl status nginx.service");
        for bad in ["x; rm -rf /", "$(id)", "-h", "a b", "`id`", "", "../etc", "ü"] {
            assert_eq!(with(bad), "systemctl status UNIT", "{bad}");
        }
    }

    #[test]
    fn a_condition_compares_captured_numbers() {
        let mut captures = Captures::default();
        captures.set(&"used".into(), "95%");
        let holds = |text: &str| Condition::parse(text).is_some_and(|c| c.holds(&captures));
        assert!(holds("used >= 95") && holds("used > 94.5") && !holds("used < 95") && !holds("other > 0"));
        assert_eq!(Condition::parse("used >= many"), None);
        assert_eq!(Condition::parse("used"), None);
    }
}
