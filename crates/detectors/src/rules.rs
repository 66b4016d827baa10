//! Signatures of the classics: the rules that come with the program, and the user's.
//!
//! A rule names literal texts. [`Texts`] looks for those of all rules at once, so that a line costs the same with a thousand
//! rules as with ten; only a rule whose text was found is looked at further (its other texts, its expression, its
//! conditions).

use std::{
    borrow::Cow,
    cell::OnceCell,
    collections::BTreeMap,
    fmt,
    sync::{Arc, LazyLock},
};

use crate::{
    address,
    http::{self, Request},
    program,
    rule::{Act, Captures, Class, Literal, On, Per, Rule},
    rulefile::{self, Parsed, RuleError},
    texts::Texts,
};

/// The files that come with the program.
const BUILTIN: &[(&str, &str)] = &[
    ("builtin/system.toml", include_str!("../rules/system.toml")),
    ("builtin/services.toml", include_str!("../rules/services.toml")),
    ("builtin/security.toml", include_str!("../rules/security.toml")),
    ("builtin/web.toml", include_str!("../rules/web.toml")),
    ("builtin/shippers.toml", include_str!("../rules/shippers.toml")),
];

/// Longest part of a line that rules look at.
const MAX_LINE: usize = 8 * 1024;

/// Rules, compiled. Cheap to clone.
#[derive(Clone)]
pub struct RuleSet {
    /// `None`: those that come with the program. They are compiled when they are first asked, which takes longer than all
    /// that some commands do.
    own: Option<Arc<Inner>>,
}

impl Default for RuleSet {
    /// No rules.
    fn default() -> Self {
        Self { own: Some(Arc::default()) }
    }
}

#[derive(Default)]
struct Inner {
    rules: Vec<Rule>,
    classes: Vec<Class>,
    /// The texts of all rules.
    texts: Texts,
    /// Rules for requests that only ask for a status.
    by_status: Vec<u32>,
}

impl Inner {
    fn compile(files: impl IntoIterator<Item = Parsed>) -> Self {
        let mut rules: BTreeMap<String, Rule> = BTreeMap::new();
        let mut classes: BTreeMap<String, Class> = BTreeMap::new();
        for file in files {
            for id in &file.off {
                rules.remove(id);
            }
            rules.extend(file.rules.into_iter().map(|r| (r.id.clone(), r)));
            classes.extend(file.classes.into_iter().map(|c| (c.id.clone(), c)));
        }
        let rules: Vec<Rule> = rules.into_values().collect();
        let mut literals: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut by_status = Vec::new();
        for (number, rule) in (0_u32..).zip(&rules) {
            let longest = rule.all.iter().max_by_key(|l| l.text.len()).map(std::slice::from_ref).unwrap_or_default();
            let keys = if rule.any.is_empty() { longest } else { &rule.any[..] };
            if keys.is_empty() {
                by_status.push(number);
            }
            for literal in keys {
                let owners = literals.entry(literal.text.clone()).or_default();
                if owners.last() != Some(&number) {
                    owners.push(number);
                }
            }
        }
        for text in OF_REQUESTS {
            literals.entry(text.to_owned()).or_default().push(REQUEST);
        }
        let texts = Texts::new(literals);
        let classes = classes.into_values().collect();
        Self { rules, classes, texts, by_status }
    }
}

/// The owner of texts one of which is in every line that tells about a request; it is no rule.
pub(crate) const REQUEST: u32 = u32::MAX;

/// Those texts, in lower case.
const OF_REQUESTS: [&str; 15] = [
    "] \"",
    "tatus",
    "http/",
    "get ",
    "post ",
    "head ",
    "put ",
    "delete ",
    "options ",
    "patch ",
    "connect ",
    "trace ",
    "propfind ",
    "proppatch ",
    "mkcol ",
];

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleSet").field("rules", &self.inner().rules.len()).finish_non_exhaustive()
    }
}

/// What a rule has to say about one line; for trying rules out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LineMatch<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// What it does: `finding`, `counts as ssh-login`, …
    pub effect: String,
    /// What its named groups held.
    pub captures: Vec<(String, String)>,
}

/// A line, prepared for rules.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    pub(crate) raw: &'a str,
    request: Option<Request>,
    /// Rules for lines are only tried when their texts were found.
    sure: bool,
    /// The text of the line, and of the request, in lower case.
    lower: OnceCell<String>,
    lower_request: OnceCell<String>,
    /// See [`Form::Unquoted`].
    unquoted: OnceCell<Option<String>>,
    lower_unquoted: OnceCell<String>,
}

/// What of a line a rule looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it was written.
    Written,
    /// As a program said it before it was put into quotes, such as journald's in JSON: `"Probe failed" pod="a"` is written
    /// there with a backslash before each quote. Only looked at where the other form says nothing: what stands behind a
    /// quote that is no end may be a stranger's.
    Unquoted,
    /// The request in it.
    Request,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(line: &'a str) -> Self {
        let raw = &line[..line.floor_char_boundary(MAX_LINE)];
        let request = if http::may_be_request(raw.as_bytes()) { http::request(raw) } else { None };
        Self::with(raw, request)
    }

    fn with(raw: &'a str, request: Option<Request>) -> Self {
        let (lower, lower_request, lower_unquoted) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { raw, request, sure: false, lower, lower_request, unquoted: OnceCell::new(), lower_unquoted }
    }

    /// A line in which [`RuleSet::candidates`] were looked for.
    pub(crate) fn of_candidates(line: &'a str, candidates: &[u32]) -> Self {
        let mut prepared = match candidates.contains(&REQUEST) {
            true => Self::new(line),
            false => Self::with(&line[..line.floor_char_boundary(MAX_LINE)], None),
        };
        // Otherwise they were looked for in another form of the line, too.
        prepared.sure = memchr::memchr2(b'%', b'\\', line.as_bytes()).is_none();
        prepared
    }

    /// The text of a form, if the line has it.
    fn text(&self, form: Form) -> Option<&str> {
        match form {
            Form::Written => Some(self.raw),
            Form::Unquoted => self.unquoted.get_or_init(|| unquoted(self.raw)).as_deref(),
            Form::Request => self.request.as_ref().map(|request| request.text.as_str()),
        }
    }

    /// The same in lower case.
    fn lower(&self, form: Form) -> &str {
        let lower = match form {
            Form::Written => &self.lower,
            Form::Unquoted => &self.lower_unquoted,
            Form::Request => &self.lower_request,
        };
        lower.get_or_init(|| self.text(form).unwrap_or_default().to_ascii_lowercase())
    }
}

/// Quotes within quotes within quotes: a container's log of a program that writes JSON.
const QUOTED: usize = 3;

/// A line without the backslashes that quotes have put into it; `None` if there are none.
fn unquoted(line: &str) -> Option<String> {
    let mut text = line.to_owned();
    for _ in 0..QUOTED {
        if !text.contains("\\\"") {
            break;
        }
        text = unquoted_once(&text);
    }
    (text.len() < line.len()).then_some(text)
}

fn unquoted_once(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escaped)) = rest.split_once('\\') {
        out.push_str(before);
        // Go writes these three so.
        let angle = |code: &str| escaped.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(code));
        let (said, taken) = match escaped.as_bytes().first() {
            Some(quote @ (b'"' | b'\\' | b'/')) => (char::from(*quote), 1),
            Some(b'n' | b't' | b'r') => (' ', 1),
            _ if angle("u003c") => ('<', 5),
            _ if angle("u003e") => ('>', 5),
            _ if angle("u0026") => ('&', 5),
            _ => ('\\', 0),
        };
        out.push(said);
        rest = &escaped[taken..];
    }
    out.push_str(rest);
    out
}

/// A line as text; what is no UTF-8 is replaced.
pub(crate) fn readable(line: &[u8]) -> Cow<'_, str> {
    // Checking first is several times faster.
    match std::str::from_utf8(line) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(line),
    }
}

impl RuleSet {
    /// The rules that come with the program.
    pub fn builtin() -> Self {
        Self { own: None }
    }

    fn inner(&self) -> &Inner {
        static BUILTIN_RULES: LazyLock<Inner> = LazyLock::new(|| {
            // The files are part of the program and tested; should one be broken all the same, the others still work.
            Inner::compile(BUILTIN.iter().filter_map(|(file, text)| rulefile::parse(file, text).ok()))
        });
        self.own.as_deref().unwrap_or(&BUILTIN_RULES)
    }

    /// The rules that come with the program, extended and overridden by files (name and text), in order: a rule with a
    /// known id replaces that one, and `off = ["id"]` removes it.
    ///
    /// # Errors
    ///
    /// When a file cannot be used; the error says where and why.
    pub fn with_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, RuleError> {
        let mut parsed = Vec::new();
        for (file, text) in BUILTIN {
            parsed.push(rulefile::parse(file, text)?);
        }
        let builtin_files = parsed.len();
        for (file, text) in files {
            parsed.push(rulefile::parse(file, text)?);
        }
        let users: Vec<String> =
            parsed[builtin_files..].iter().flat_map(|p| p.rules.iter().map(|r| r.id.clone())).collect();
        let set = Self { own: Some(Arc::new(Inner::compile(parsed))) };
        for rule in &set.inner().rules {
            set.check_class_of(rule)?;
            if users.contains(&rule.id) {
                set.check_examples(rule)?;
            }
        }
        Ok(set)
    }

    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.inner().rules.iter()
    }

    /// What the rules say about one line, for trying them out.
    pub fn matches(&self, line: &str) -> Vec<LineMatch<'_>> {
        let hits = self.hits(&Prepared::new(line), "");
        hits.into_iter()
            .map(|(rule, captures)| {
                let rule = &self.inner().rules[rule];
                LineMatch { rule, effect: effect(rule), captures: captures.into_pairs() }
            })
            .collect()
    }

    pub(crate) fn rule(&self, number: usize) -> &Rule {
        &self.inner().rules[number]
    }

    pub(crate) fn class(&self, id: &str) -> Option<&Class> {
        self.inner().classes.iter().find(|class| class.id == id)
    }

    /// The rules that match a line of `service`, by number, ascending, with what they captured.
    pub(crate) fn hits(&self, line: &Prepared<'_>, service: &str) -> Vec<(usize, Captures)> {
        let inner = self.inner();
        let (mut room, mut candidates) = (Vec::new(), Vec::new());
        let mut look = |text: &str| inner.texts.find(text.as_bytes(), &mut room, &mut candidates);
        match &line.request {
            Some(request) => {
                look(&request.text);
                if !request.classic {
                    look(line.raw);
                }
            }
            None => look(line.raw),
        }
        if let Some(text) = line.text(Form::Unquoted) {
            look(text);
        }
        if line.request.is_some() {
            candidates.extend_from_slice(&inner.by_status);
        }
        candidates.sort_unstable();
        candidates.dedup();
        let judge = |number: u32| Some((number as usize, judge(inner.rules.get(number as usize)?, line, service)?));
        candidates.into_iter().filter_map(judge).collect()
    }

    /// Adds the rules that may match a line, by number, some perhaps twice; never too few. With them comes [`REQUEST`]
    /// when the line may be about one. `room` is overwritten.
    ///
    /// What a request says only when its parts are put together is not found.
    pub(crate) fn candidates(&self, line: &[u8], room: &mut Vec<u8>, found: &mut Vec<u32>) {
        let inner = self.inner();
        let begin = found.len();
        inner.texts.find(line, room, found);
        if memchr::memchr2(b'%', b'\\', line).is_some() {
            inner.texts.find(http::unescape(&readable(line)).as_bytes(), room, found);
        }
        let rest = found.get(begin..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        let of_requests = |rule: u32| inner.rules.get(rule as usize).filter(|rule| rule.on != On::Line);
        if rest.contains(&REQUEST) && http::may_be_request(line) {
            let statuses = http::statuses(line);
            let asked = |rule: u32| {
                let ranges = of_requests(rule).map(|rule| rule.status.as_slice()).unwrap_or_default();
                ranges.is_empty() || statuses.iter().any(|status| within(ranges, *status))
            };
            keep(found, begin, |rule| rule != REQUEST && asked(rule));
            found.extend(inner.by_status.iter().filter(|rule| asked(**rule)));
            if found.len() > begin {
                found.push(REQUEST);
            }
        } else {
            keep(found, begin, |rule| rule != REQUEST && of_requests(rule).is_none());
        }
    }

    /// Whether [`RuleSet::hits`] may find anything in a line.
    pub(crate) fn may_hit(&self, line: &[u8], room: &mut Vec<u8>, found: &mut Vec<u32>) -> bool {
        found.clear();
        self.inner().texts.find(line, room, found);
        !found.is_empty() || memchr::memchr2(b'%', b'\\', line).is_some()
    }

    /// Whether a rule asks for a status.
    pub(crate) fn is_of_status(&self, rule: usize) -> bool {
        self.inner().rules.get(rule).is_some_and(|rule| !rule.status.is_empty())
    }

    /// Whether every value of a capture must be counted: rules that make a finding by themselves only show a few.
    pub(crate) fn counts(&self, rule: usize, capture: &str) -> bool {
        let Some(rule) = self.inner().rules.get(rule) else { return false };
        let of_act = match &rule.act {
            Act::Count(class) => match self.class(class).map(|class| class.per) {
                Some(Per::Ip) => capture == "ip",
                Some(Per::User) => capture == "user",
                Some(Per::Host) | None => false,
            },
            Act::Success(_) => matches!(capture, "ip" | "user"),
            Act::Contact => capture == "peer",
            Act::Find(_) | Act::Watch | Act::Benign => false,
        };
        of_act || rule.watch.iter().any(|watched| watched == capture)
    }

    /// Whether a rule matches a line in all that it asks for.
    pub(crate) fn judge(&self, rule: usize, line: &Prepared<'_>, service: &str) -> Option<Captures> {
        judge(self.inner().rules.get(rule)?, line, service)
    }

    fn check_class_of(&self, rule: &Rule) -> Result<(), RuleError> {
        let (Act::Count(class) | Act::Success(class)) = &rule.act else { return Ok(()) };
        if self.class(class).is_some() {
            return Ok(());
        }
        let known: Vec<&str> = self.inner().classes.iter().map(|c| c.id.as_str()).collect();
        Err(RuleError {
            file: rule.file.clone(),
            line: rule.line,
            key: format!("{}.counts", rule.id),
            what: format!("there is no class `{class}`"),
            hint: format!("known are {}; or write a [[class]]", known.join(", ")),
        })
    }

    /// A rule that does not match its own examples does not do what its author thinks.
    fn check_examples(&self, rule: &Rule) -> Result<(), RuleError> {
        let matched = |line: &String| judge(rule, &Prepared::new(line), "").is_some();
        let wrong = |key: &str, what: String, hint: &str| RuleError {
            file: rule.file.clone(),
            line: rule.line,
            key: format!("{}.{key}", rule.id),
            what,
            hint: hint.to_owned(),
        };
        if let Some(line) = rule.examples.iter().find(|line| !matched(line)) {
            return Err(wrong(
                "examples",
                format!("the rule does not match `{line}`"),
                "make `any`, `regex` or the example fit",
            ));
        }
        if let Some(line) = rule.counter_examples.iter().find(|line| matched(line)) {
            return Err(wrong(
                "counter_examples",
                format!("the rule matches `{line}`"),
                "add `none` or make `regex` stricter",
            ));
        }
        Ok(())
    }
}

fn effect(rule: &Rule) -> String {
    match &rule.act {
        Act::Find(t) if t.at_least > 1 => format!("finding from {} in {} minutes on", t.at_least, t.minutes),
        Act::Find(_) => "finding".to_owned(),
        Act::Count(class) => format!("counts as {class}"),
        Act::Success(class) => format!("success after {class}"),
        Act::Watch => "values are watched".to_owned(),
        Act::Contact => "contacts are watched".to_owned(),
        Act::Benign => "benign".to_owned(),
    }
}

static IP: LazyLock<Arc<str>> = LazyLock::new(|| "ip".into());
static STATUS: LazyLock<Arc<str>> = LazyLock::new(|| "status".into());

/// Whether a rule matches a line in all that it asks for.
fn judge(rule: &Rule, line: &Prepared<'_>, service: &str) -> Option<Captures> {
    match (rule.on, &line.request) {
        (On::Http | On::Proxy, Some(request)) => {
            if request.proxied != (rule.on == On::Proxy) {
                return None;
            }
            if !rule.status.is_empty() && !within(&rule.status, request.status) {
                return None;
            }
            judge_form(rule, line, service, Form::Request)
        }
        (On::Line, Some(request)) if request.classic => None,
        (On::Line, _) => {
            judge_form(rule, line, service, Form::Written).or_else(|| judge_form(rule, line, service, Form::Unquoted))
        }
        _ => None,
    }
}

fn judge_form(rule: &Rule, line: &Prepared<'_>, service: &str, form: Form) -> Option<Captures> {
    if !rule.programs.is_empty() && !rule.programs.iter().any(|p| program::may_have_written(p, service, line.raw)) {
        return None;
    }
    if rule.not_programs.iter().any(|p| program::wrote(p, service, line.raw)) {
        return None;
    }
    let text = line.text(form)?;
    let has = |literal: &Literal| literal.is_in(line.lower(form));
    let any = || rule.any.is_empty() || (line.sure && rule.on == On::Line) || rule.any.iter().any(has);
    if !rule.all.iter().all(has) || rule.none.iter().any(has) || !any() {
        return None;
    }
    let mut captures = match &rule.regex {
        Some(regex) => regex.captures(text)?,
        None => Captures::default(),
    };
    if let Some(request) = line.request.as_ref().filter(|_| rule.on != On::Line) {
        captures.set(&STATUS, &request.status.to_string());
    }
    match captures.get("ip") {
        Some(_) => captures.canonicalize_ip(),
        None if rule.wants_client() || !rule.conditions.is_empty() => {
            let client = match (rule.on, &line.request) {
                (On::Http | On::Proxy, Some(request)) => request.client.clone(),
                _ => address::client(line.raw),
            };
            client.iter().for_each(|client| captures.set(&IP, client));
        }
        None => {}
    }
    rule.conditions.iter().all(|c| c.holds(&captures)).then_some(captures)
}

/// Keeps of what is in `list` from `begin` on what is wanted.
fn keep(list: &mut Vec<u32>, begin: usize, wanted: impl Fn(u32) -> bool) {
    let mut kept = begin;
    for at in begin..list.len() {
        if wanted(list[at]) {
            list[kept] = list[at];
            kept += 1;
        }
    }
    list.truncate(kept);
}

fn within(ranges: &[(u16, u16)], status: u16) -> bool {
    ranges.iter().any(|(low, high)| (*low..=*high).contains(&status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_file_is_valid_and_every_rule_knows_its_class() {
        let set = RuleSet::with_files([]).unwrap_or_else(|e| panic!("{e}"));
        assert!(set.rules().count() >= 100, "only {} rules", set.rules().count());
        assert_eq!(set.rules().count(), RuleSet::builtin().rules().count());
    }

    #[test]
    fn every_rule_matches_its_examples_and_no_counter_example() {
        let set = RuleSet::builtin();
        let mut wrong = Vec::new();
        for rule in set.rules() {
            // Through the automaton, as in use.
            let found = |line: &String| set.matches(line).iter().any(|m| m.rule.id == rule.id);
            wrong.extend(rule.examples.iter().filter(|l| !found(l)).map(|l| format!("{}: misses {l}", rule.id)));
            wrong
                .extend(rule.counter_examples.iter().filter(|l| found(l)).map(|l| format!("{}: matches {l}", rule.id)));
            if rule.examples.is_empty() || rule.counter_examples.is_empty() {
                wrong.push(format!("{}: says only by its own words what it means", rule.id));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[track_caller]
    fn refused(rule: &str) -> String {
        let text = format!("version = 1\n[[rule]]\n{rule}");
        RuleSet::with_files([("mine.toml", text.as_str())]).expect_err("is refused").to_string()
    }

    #[test]
    fn a_broken_file_is_refused_with_place_and_hint() {
        let rest = "title='t'\nseverity='high'\ncategory='disk'\nexplanation='e'\nsource='s'\n";
        let fine = format!("id='x'\n{rest}next='n'\nany=['boom']\nexamples=['boom']");
        assert!(RuleSet::with_files([("mine.toml", format!("version = 1\n[[rule]]\n{fine}").as_str())]).is_ok());
        for (rule, words) in [
            (format!("id='X y'\n{rest}next='n'\nany=['boom']\nexamples=['boom']"), "is not an id"),
            (format!("id='x'\n{rest}next='n'\nany=['boom']\nexamples=['other']"), "does not match `other`"),
            (format!("id='x'\n{rest}next='n'\nexamples=['boom']"), "no text to look for"),
            (format!("id='x'\n{rest}next='ls {{path}}'\nany=['boom']\nexamples=['boom']"), "has no default"),
            (
                format!("id='x'\n{rest}next='n'\nany=['boom']\nexamples=['boom']\nwhere=['a like b']"),
                "is not a condition",
            ),
            (
                "id='x'\ncounts='nope'\nany=['boom']\nexamples=['boom']\nsource='s'".to_owned(),
                "there is no class `nope`",
            ),
            (format!("id='x'\n{rest}next='n'\nany=['boom']\nexamples=['boom']\nsevrity='low'"), "sevrity"),
        ] {
            let error = refused(&rule);
            assert!(error.contains(words) && error.contains("mine.toml"), "{error}");
        }
    }

    #[test]
    fn a_users_rule_replaces_and_removes() {
        let text = "version = 1\noff = ['oom-kill']\n";
        let set = RuleSet::with_files([("mine.toml", text)]).unwrap();
        let line = "kernel: Out of memory: Killed process 4242 (java) total-vm:1kB";
        assert!(RuleSet::builtin().matches(line).iter().any(|m| m.rule.id == "oom-kill"));
        assert!(set.matches(line).iter().all(|m| m.rule.id != "oom-kill"));
    }

    #[test]
    fn what_was_said_is_read_through_the_quotes_around_it() {
        let said = r#""Probe failed" probeType="Readiness" pod="a/b" probeResult="failure" output="HTTP 503""#;
        let found = |line: &str| RuleSet::builtin().matches(line).iter().any(|m| m.rule.id == "health-check-failed");
        let mut line = format!("kubelet[9]: {said}");
        assert!(found(&line));
        for _ in 0..3 {
            line = format!(r#"{{"MESSAGE":"{}","_HOSTNAME":"n-1"}}"#, line.replace('\\', r"\\").replace('"', r#"\""#));
            assert!(found(&line), "{line}");
        }
    }

    #[test]
    fn what_stands_behind_a_quote_that_is_no_end_names_nobody() {
        let rule = "id='x'\ncounts='login'\nany=['refused']\nregex='\"from\":\"(?<ip>[^\"]+)\"'\nsource='s'\nexamples=['refused \"from\":\"192.0.2.1\"']";
        let set = RuleSet::with_files([("mine.toml", format!("version = 1\n[[rule]]\n{rule}").as_str())]).unwrap();
        let line = r#"{"msg":"refused x\",\"from\":\"198.51.100.1\"","from":"203.0.113.7"}"#;
        let found = set.matches(line).into_iter().find(|m| m.rule.id == "x").unwrap();
        assert_eq!(found.captures, [("ip".to_owned(), "203.0.113.7".to_owned())]);
    }

    #[test]
    fn backslashes_that_no_quote_has_put_there_stay() {
        assert_eq!(unquoted(r"C:\new, not quoted"), None);
        assert_eq!(unquoted(r#"a \"b\" \u003cinfo\u003e \é \"#).unwrap(), r#"a "b" <info> \é \"#);
    }

    #[test]
    fn a_request_cannot_pose_as_a_message() {
        let line = r#"192.0.2.1 - - [21/Nov/2026:04:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "Out of memory: Killed process 1 (x)""#;
        assert!(RuleSet::builtin().matches(line).iter().all(|m| m.rule.id != "oom-kill"));
    }
}
