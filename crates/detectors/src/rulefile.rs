//! Reads rule files: TOML, strict, with errors that say where, what and what to do.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::{
    Category, ProfileName, Severity,
    rule::{Act, Class, Condition, Literal, On, Pattern, Per, Raise, Rule, Text, Threshold},
    spelling::nearest,
};

/// The version of the format of rule files.
const FORMAT: u32 = 1;

/// A rule file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: `{key}`: {what} (hint: {hint})")]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// The line in it, from 1.
    pub line: usize,
    /// The rule and key: `oom-kill.regex`.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) rules: Vec<Rule>,
    pub(crate) classes: Vec<Class>,
    pub(crate) off: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    version: Spanned<u32>,
    #[serde(default)]
    off: Vec<String>,
    #[serde(default, rename = "class")]
    classes: Vec<RawClass>,
    #[serde(default, rename = "rule")]
    rules: Vec<RawRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClass {
    id: Spanned<String>,
    noun: String,
    title: Option<String>,
    severity: Severity,
    category: Category,
    profile: Option<String>,
    per: Spanned<String>,
    at_least: u32,
    minutes: u32,
    partners: Option<u32>,
    slow: Option<u32>,
    total: Option<u32>,
    many: Option<u32>,
    inside: Option<Severity>,
    explanation: String,
    next: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    id: Spanned<String>,
    title: Option<String>,
    severity: Option<Severity>,
    category: Option<Category>,
    profile: Option<String>,
    #[serde(default)]
    on: RawOn,
    #[serde(default)]
    programs: Vec<String>,
    #[serde(default)]
    not_programs: Vec<String>,
    #[serde(default)]
    any: Vec<String>,
    #[serde(default)]
    all: Vec<String>,
    #[serde(default)]
    none: Vec<String>,
    regex: Option<Spanned<String>>,
    #[serde(default)]
    status: Vec<Spanned<String>>,
    #[serde(default, rename = "where")]
    conditions: Vec<Spanned<String>>,
    #[serde(default)]
    raise: BTreeMap<Severity, Spanned<String>>,
    at_least: Option<u32>,
    minutes: Option<u32>,
    group: Option<String>,
    discriminator: Option<String>,
    counts: Option<Spanned<String>>,
    success_of: Option<Spanned<String>>,
    #[serde(default)]
    watch: Vec<String>,
    #[serde(default)]
    contacts: bool,
    #[serde(default)]
    benign: bool,
    explanation: Option<String>,
    next: Option<Spanned<String>>,
    source: String,
    examples: Vec<String>,
    #[serde(default)]
    counter_examples: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawOn {
    #[default]
    Line,
    Http,
    Proxy,
}

/// Where in which file an error is.
struct Place<'a> {
    file: &'a str,
    text: &'a str,
}

impl Place<'_> {
    fn error(&self, at: usize, key: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) -> RuleError {
        let line = self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|b| **b == b'\n').count() + 1;
        RuleError { file: self.file.to_owned(), line, key: key.into(), what: what.into(), hint: hint.into() }
    }
}

/// Reads one file.
pub(crate) fn parse(file: &str, text: &str) -> Result<Parsed, RuleError> {
    let place = Place { file, text };
    let raw: RawFile = toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start);
        let (what, hint) = in_short(e.message());
        let see = || "see docs/detection.md for the keys of a rule".to_owned();
        place.error(at, "toml", what, hint.unwrap_or_else(see))
    })?;
    if *raw.version.get_ref() != FORMAT {
        let what = format!("this program reads version {FORMAT}, the file has {}", raw.version.get_ref());
        return Err(place.error(raw.version.span().start, "version", what, "write `version = 1`"));
    }
    let mut parsed = Parsed { off: raw.off, ..Parsed::default() };
    for class in raw.classes {
        parsed.classes.push(check_class(class, &place)?);
    }
    for rule in raw.rules {
        parsed.rules.push(check_rule(rule, &place)?);
    }
    Ok(parsed)
}

/// What is wrong without all that would be right, and what was meant, or what there is: `unknown field `x`, expected one of
/// `a`, `b`…`.
fn in_short(message: &str) -> (&str, Option<String>) {
    let Some((what, known)) = message.split_once(", expected ").filter(|(what, _)| what.starts_with("unknown ")) else {
        return (message, None);
    };
    let written = what.split('`').nth(1).unwrap_or_default();
    let known = || known.split('`').skip(1).step_by(2);
    let meant = nearest(written, known()).map(|meant| format!("did you mean `{meant}`?"));
    let list = || what.starts_with("unknown variant").then(|| known().collect::<Vec<_>>().join(", "));
    (what, meant.or_else(|| list().map(|list| format!("there are {list}"))))
}

fn check_id(id: &Spanned<String>, place: &Place<'_>) -> Result<(), RuleError> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if id.get_ref().is_empty() || id.get_ref().len() > 64 || !id.get_ref().bytes().all(fine) {
        let what = format!("`{}` is not an id", id.get_ref());
        return Err(place.error(id.span().start, "id", what, "use lower case letters, digits and `-`"));
    }
    Ok(())
}

fn check_class(raw: RawClass, place: &Place<'_>) -> Result<Class, RuleError> {
    check_id(&raw.id, place)?;
    let at = raw.id.span().start;
    let id = raw.id.into_inner();
    let key = |name: &str| format!("{id}.{name}");
    let per = match raw.per.get_ref().as_str() {
        "ip" => Per::Ip,
        "user" => Per::User,
        "host" => Per::Host,
        other => {
            let what = format!("`{other}` is nothing to count by");
            return Err(place.error(raw.per.span().start, key("per"), what, "use ip, user or host"));
        }
    };
    if raw.at_least == 0 || !(1..=15).contains(&raw.minutes) {
        return Err(place.error(at, key("minutes"), "out of range", "`at_least` from 1, `minutes` from 1 to 15"));
    }
    Ok(Class {
        noun: raw.noun,
        title: raw.title.map(Text::new),
        severity: raw.severity,
        category: raw.category,
        profile: raw.profile.map_or_else(ProfileName::security, ProfileName::new),
        per,
        at_least: raw.at_least,
        minutes: raw.minutes,
        partners: raw.partners,
        slow: raw.slow,
        total: raw.total,
        many: raw.many,
        inside: raw.inside,
        explanation: raw.explanation,
        next: check_next(raw.next, &key("next"), place)?,
        id,
    })
}

fn check_next(next: Spanned<String>, key: &str, place: &Place<'_>) -> Result<Text, RuleError> {
    let at = next.span().start;
    let text = Text::new(next.into_inner());
    match text.without_default() {
        Some(name) => {
            let what = format!("`{{{name}}}` has no default, and what a log says may be unfit for a command");
            Err(place.error(at, key, what, format!("write `{{{name}|NAME}}`")))
        }
        None => Ok(text),
    }
}

fn check_rule(raw: RawRule, place: &Place<'_>) -> Result<Rule, RuleError> {
    check_id(&raw.id, place)?;
    let at = raw.id.span().start;
    let id = raw.id.into_inner();
    let key = |name: &str| format!("{id}.{name}");
    let literals = raw.any.iter().chain(&raw.all).chain(&raw.none);
    if let Some(short) = literals.clone().find(|l| l.trim().len() < 2) {
        let what = format!("`{short}` is too short to look for");
        return Err(place.error(at, key("any"), what, "use at least two characters"));
    }
    if raw.any.is_empty() && raw.all.is_empty() && raw.status.is_empty() {
        let hint = "add `any = [\"…\"]` with texts of which at least one is in every line that the rule is for";
        return Err(place.error(at, key("any"), "no text to look for", hint));
    }
    let is_name = |name: &&String| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || "[:".contains(c));
    if let Some(name) = raw.programs.iter().chain(&raw.not_programs).find(|name| !is_name(name)) {
        let key = key(if raw.programs.contains(name) { "programs" } else { "not_programs" });
        let hint = "write it as a line's header does, without its number: `sshd`";
        return Err(place.error(at, key, format!("`{name}` is not the name of a program"), hint));
    }
    let mut regex = None;
    if let Some(pattern) = &raw.regex {
        let compiled = Pattern::new(pattern.get_ref().clone());
        if let Err(what) = compiled.check() {
            return Err(place.error(
                pattern.span().start,
                key("regex"),
                what,
                "the syntax is that of the Rust crate `regex`",
            ));
        }
        regex = Some(compiled);
    }
    let condition = |text: &Spanned<String>, name: &str| {
        Condition::parse(text.get_ref()).ok_or_else(|| {
            let what = format!("`{}` is not a condition", text.get_ref());
            place.error(
                text.span().start,
                key(name),
                what,
                "write `capture >= number` (also >, <, <=, =) or `ip is outside`",
            )
        })
    };
    let conditions = raw.conditions.iter().map(|c| condition(c, "where")).collect::<Result<_, _>>()?;
    let raise = raw
        .raise
        .iter()
        .map(|(severity, when)| Ok(Raise { severity: *severity, when: condition(when, "raise")? }))
        .collect::<Result<_, RuleError>>()?;
    let status = raw
        .status
        .iter()
        .map(|s| {
            status_range(s.get_ref()).ok_or_else(|| {
                let what = format!("`{}` is not a status", s.get_ref());
                place.error(s.span().start, key("status"), what, "write `404` or `4xx`")
            })
        })
        .collect::<Result<_, _>>()?;
    let acts =
        [raw.counts.is_some(), raw.success_of.is_some(), raw.contacts, raw.benign].iter().filter(|a| **a).count();
    if acts > 1 {
        return Err(place.error(
            at,
            key("counts"),
            "more than one purpose",
            "use one of counts, success_of, contacts and benign",
        ));
    }
    let threshold = Threshold { at_least: raw.at_least.unwrap_or(1), minutes: raw.minutes.unwrap_or(5) };
    if threshold.at_least == 0 || !(1..=15).contains(&threshold.minutes) {
        return Err(place.error(at, key("minutes"), "out of range", "`at_least` from 1, `minutes` from 1 to 15"));
    }
    let names_peer = raw.regex.as_ref().is_some_and(|regex| regex.get_ref().contains("?<peer"));
    if raw.contacts && !names_peer {
        return Err(place.error(at, key("contacts"), "nobody is contacted", "name the other side: `(?<peer>…)`"));
    }
    let act = match (raw.counts, raw.success_of, raw.benign, raw.severity) {
        (Some(class), ..) => Act::Count(class.into_inner()),
        (_, Some(class), ..) => Act::Success(class.into_inner()),
        (_, _, true, _) => Act::Benign,
        _ if raw.contacts => Act::Contact,
        (.., Some(_)) => Act::Find(threshold),
        _ if !raw.watch.is_empty() => Act::Watch,
        _ => return Err(place.error(at, key("severity"), "missing", "use low, medium, high or critical")),
    };
    if matches!(act, Act::Find(_)) {
        let says = |text: Option<&String>| text.is_some_and(|text| !text.trim().is_empty());
        let absent = [
            ("title", !says(raw.title.as_ref())),
            ("category", raw.category.is_none()),
            ("explanation", !says(raw.explanation.as_ref())),
            ("next", !says(raw.next.as_ref().map(Spanned::get_ref))),
        ];
        if let Some((name, _)) = absent.iter().find(|(_, absent)| *absent) {
            return Err(place.error(
                at,
                key(name),
                "missing",
                "a rule that finds says what, of which kind, why it matters and what to do",
            ));
        }
    }
    if raw.examples.is_empty() {
        return Err(place.error(at, key("examples"), "missing", "add at least one line that the rule matches"));
    }
    let next = raw.next.map(|next| check_next(next, &key("next"), place)).transpose()?;
    Ok(Rule {
        title: Text::new(raw.title.unwrap_or_default()),
        severity: raw.severity.unwrap_or(Severity::Low),
        category: raw.category.unwrap_or(Category::Other),
        profile: raw.profile.map_or_else(ProfileName::general, ProfileName::new),
        on: match raw.on {
            RawOn::Line => On::Line,
            RawOn::Http => On::Http,
            RawOn::Proxy => On::Proxy,
        },
        programs: raw.programs,
        not_programs: raw.not_programs,
        any: raw.any.iter().map(|text| Literal::new(text)).collect(),
        all: raw.all.iter().map(|text| Literal::new(text)).collect(),
        none: raw.none.iter().map(|text| Literal::new(text)).collect(),
        regex,
        status,
        conditions,
        raise,
        act,
        watch: raw.watch,
        group: raw.group.unwrap_or_else(|| id.clone()),
        discriminator: raw.discriminator,
        explanation: raw.explanation.unwrap_or_default(),
        next: next.unwrap_or_else(|| Text::new(String::new())),
        source: raw.source,
        examples: raw.examples,
        counter_examples: raw.counter_examples,
        line: place.error(at, "", "", "").line,
        file: place.file.to_owned(),
        id,
    })
}

fn status_range(text: &str) -> Option<(u16, u16)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|c| (1..=5).contains(c))?;
        return Some((class * 100, class * 100 + 99));
    }
    let status: u16 = text.parse().ok().filter(|s| (100..600).contains(s))?;
    Some((status, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_in_short_with_what_was_meant() {
        let error =
            |text: &str| parse("own.toml", &format!("version = 1\n[[rule]]\n{text}\n")).unwrap_err().to_string();
        let see = "(hint: see docs/detection.md for the keys of a rule)";
        for (text, told) in [
            ("regx = 'x'", "own.toml:3: `toml`: unknown field `regx` (hint: did you mean `regex`?)".to_owned()),
            ("colour = 'red'", format!("own.toml:3: `toml`: unknown field `colour` {see}")),
            (
                "category = 'memroy'",
                "own.toml:3: `toml`: unknown variant `memroy` (hint: did you mean `memory`?)".to_owned(),
            ),
            (
                "severity = 'urgent'",
                "own.toml:3: `toml`: unknown variant `urgent` (hint: there are low, medium, high, critical)".to_owned(),
            ),
            (
                "id = 'x'\ntitle = ' '\nseverity = 'low'\ncategory = 'disk'\nexplanation = 'e'\nnext = 'n'\nsource = 's'\nany = ['boom']\nexamples = ['boom']",
                "own.toml:3: `x.title`: missing (hint: a rule that finds says what, of which kind, why it matters and what to do)".to_owned(),
            ),
            ("id = 'x'\nexamples = []", format!("own.toml:2: `toml`: missing field `source` {see}")),
        ] {
            assert_eq!(error(text), told);
        }
    }
}
