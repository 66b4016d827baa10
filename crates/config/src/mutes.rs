//! Mutes in a file: what a team agrees on, with its reason, kept where its configuration is kept.

use std::{fs, path::Path};

use logwarden_core::{
    LineId, Severity, Timestamp,
    detectors::{By, RuleSet, nearest},
    ledger::{Mute, MuteMatch},
    pipeline::OWN_NAMES,
};
use serde::Deserialize;
use toml::Spanned;

use crate::WireError;

/// What a file looks like, for hints.
const EXAMPLE: &str = "[[mute]] with one or more of template, rule, host, service, label, text; reason; author; until";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    mute: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    template: Option<String>,
    rule: Option<String>,
    host: Option<String>,
    service: Option<String>,
    label: Option<String>,
    text: Option<String>,
    until: Option<toml::value::Datetime>,
    reason: String,
    author: String,
}

/// Reads a file of mutes, each with its place: `mutes.toml:3`.
///
/// # Errors
///
/// When it cannot be read, or one of its mutes cannot be meant like this; with the line and a hint.
pub fn read_mutes(path: &Path) -> Result<Vec<(String, Mute)>, WireError> {
    let text = fs::read_to_string(path).map_err(|error| {
        let hint = "name another file in alerts.mutes_file, or none".to_owned();
        WireError::usage(format!("cannot read the mutes in {}", path.display()), Some(hint), Some(error.into()))
    })?;
    parse(&path.display().to_string(), &text)
}

fn parse(name: &str, text: &str) -> Result<Vec<(String, Mute)>, WireError> {
    let line_at = |at: usize| 1 + text.get(..at).map_or(0, |before| before.matches('\n').count());
    let with_hint = |at: Option<usize>, why: &str, hint: String| {
        let place = at.map_or_else(String::new, |at| format!(":{}", line_at(at)));
        WireError::usage(format!("{name}{place}: {why}"), Some(hint), None)
    };
    let refused = |at: Option<usize>, why: &str| with_hint(at, why, EXAMPLE.to_owned());
    let file: File = toml::from_str(text).map_err(|error| {
        let (at, why) = (error.span().map(|span| span.start), error.message().lines().next().unwrap_or("?"));
        // "unknown field `hst`, expected one of `template`, …": not all of them, the one that is meant.
        let mut words = why.split('`').skip(1).step_by(2);
        match words.next().filter(|_| why.starts_with("unknown field")) {
            Some(key) => {
                let meant = nearest(key, words).map(|meant| format!("did you mean `{meant}`?"));
                with_hint(at, &format!("`{key}` is not known here"), meant.unwrap_or_else(|| EXAMPLE.to_owned()))
            }
            None => refused(at, why),
        }
    })?;
    let mut mutes = Vec::new();
    for entry in file.mute {
        let at = Some(entry.span().start);
        let Entry { template, rule, host, service, label, text, until, reason, author } = entry.into_inner();
        let matches = MuteMatch { incident: None, template, rule, host, service, label, text };
        check(&matches).map_err(|why| refused(at, why))?;
        if reason.trim().is_empty() || author.trim().is_empty() {
            return Err(refused(at, "a mute needs a reason and an author"));
        }
        let until = match until {
            None => None,
            Some(until) => Some(moment(until).ok_or_else(|| refused(at, "`until` is no date: 2026-12-31"))?),
        };
        let json = serde_json::to_vec(&matches).unwrap_or_default();
        let id = format!("{:08x}", LineId::of(&[b"mute", &json]).bits() >> 96);
        let place = format!("{name}:{}", at.map_or(1, line_at));
        mutes.push((place, Mute { id, matches, until, reason, author, created: Timestamp::from_secs(0) }));
    }
    Ok(mutes)
}

/// Whether a mute can be meant like this; else why not.
///
/// # Errors
///
/// With the reason.
pub fn check(matches: &MuteMatch) -> Result<(), &'static str> {
    let MuteMatch { incident, template, rule, host, service, label, text } = matches;
    let all = [incident, template, rule, host, service, label, text];
    if all.iter().all(|one| one.is_none()) {
        return Err("a mute must say what it holds back");
    }
    if all.iter().any(|one| one.as_ref().is_some_and(|value| value.trim().is_empty())) {
        return Err("an empty value fits everything or nothing");
    }
    if template.as_ref().is_some_and(|id| id.len() < 8 || !id.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err("a template's id has at least 8 hexadecimal digits");
    }
    if label.as_ref().is_some_and(|label| !label.contains('=')) {
        return Err("a label is written with its value: env=staging");
    }
    Ok(())
}

/// Everybody who may claim an incident, as incidents name them (`rule:oom-kill`), and how bad at worst.
fn speakers(rules: &RuleSet) -> Vec<(String, Severity)> {
    let own = OWN_NAMES.iter().map(|(name, worst)| (format!("detector:{name}"), *worst));
    let known = rules.speakers().map(|(by, worst)| match by {
        By::Rule { id } => (format!("rule:{id}"), worst),
        By::Detector { name } | By::Model { name } => (format!("detector:{name}"), worst),
    });
    let injection = OWN_NAMES.iter().filter(|(name, _)| *name == "model-injection");
    known.chain(own).chain(injection.map(|(name, worst)| (format!("rule:{name}"), *worst))).collect()
}

/// Whether a mute of `rule` is about what `claim` claims.
fn is_about(rule: &str, claim: &str) -> bool {
    claim == rule || bare(claim) == rule
}

fn bare(claim: &str) -> &str {
    claim.split_once(':').map_or(claim, |(_, name)| name)
}

/// Why a mute of a rule holds nothing back, and what was meant: nobody of that name claims incidents, neither a rule, a
/// class or a detector, nor any of `others`.
pub fn idle<'a>(
    matches: &MuteMatch,
    rules: &RuleSet,
    others: impl IntoIterator<Item = &'a str>,
) -> Option<(String, Option<String>)> {
    let name = matches.rule.as_deref()?;
    let speakers = speakers(rules);
    let claimed = speakers.iter().any(|(claim, _)| is_about(name, claim));
    if claimed || name.starts_with("model:") || others.into_iter().any(|claim| is_about(name, claim)) {
        return None;
    }
    let meant = |name: &str| format!("did you mean `{name}`?");
    Some(match rules.speaks_through(name.strip_prefix("rule:").unwrap_or(name)) {
        Some(Some(through)) => (
            format!("the rule `{name}` makes no incidents of its own: `{through}` tells what it notices"),
            Some(meant(&through)),
        ),
        Some(None) => (format!("the rule `{name}` says what is normal and makes no incidents"), None),
        None => {
            let of_rules = rules.rules().map(|rule| rule.id.as_str());
            let near = nearest(bare(name), speakers.iter().map(|(claim, _)| bare(claim)).chain(of_rules));
            let hint = near.map_or_else(|| "`incidents --format json` names them as `classifier`".to_owned(), meant);
            (format!("there is no rule `{name}`"), Some(hint))
        }
    })
}

/// What a mute could hide that should be thought over, as far as one can tell beforehand.
pub fn grave(matches: &MuteMatch, rules: &RuleSet) -> Option<String> {
    if matches.incident.is_some() {
        return None; // that one is known
    }
    match &matches.rule {
        Some(name) => {
            let of_name = speakers(rules).into_iter().filter(|(claim, _)| is_about(name, claim));
            let worst = of_name.map(|(_, worst)| worst).max().filter(|worst| *worst >= Severity::High)?;
            Some(format!("it holds back {name}, which may be {worst}"))
        }
        None if matches.template.is_none() && matches.text.is_none() => {
            Some("it also holds back what is critical or high there".to_owned())
        }
        None => None,
    }
}

/// What a mute holds back, in words.
pub fn describe(matches: &MuteMatch) -> String {
    let MuteMatch { incident, template, rule, host, service, label, text } = matches;
    let parts = [
        ("incident", incident),
        ("template", template),
        ("rule", rule),
        ("host", host),
        ("service", service),
        ("label", label),
        ("text", text),
    ];
    let parts = parts.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} {value}")));
    parts.collect::<Vec<_>>().join(", ")
}

/// A day ends with its last second; a time without an offset is UTC.
fn moment(until: toml::value::Datetime) -> Option<Timestamp> {
    let date = until.date?;
    let date =
        jiff::civil::date(i16::try_from(date.year).ok()?, i8::try_from(date.month).ok()?, i8::try_from(date.day).ok()?);
    let (hour, minute, second) =
        until.time.map_or((23, 59, 59), |time| (time.hour, time.minute, time.second.unwrap_or(0)));
    let time = date.at(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, i8::try_from(second).ok()?, 0);
    let east = match until.offset {
        None | Some(toml::value::Offset::Z) => 0,
        Some(toml::value::Offset::Custom { minutes }) => i64::from(minutes) * 60,
    };
    let utc = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    Some(Timestamp::from_secs(utc - east))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let error = parse("mutes.toml", text).unwrap_err();
        format!("{error} ({})", error.hint().unwrap_or("no hint"))
    }

    #[test]
    fn a_file_of_mutes() {
        let text = "[[mute]]\nrule = \"web-sensitive-files\"\nlabel = \"env=staging\"\nuntil = 2026-12-31\n\
                    reason = \"our own scanner\"\nauthor = \"anna\"\n\n[[mute]]\ntext = \"probe\"\nreason = \"r\"\n\
                    author = \"a\"\nuntil = 2026-12-01T10:00:00+02:00\n";
        let mutes = parse("mutes.toml", text).unwrap();
        let [(first_place, first), (second_place, second)] = &mutes[..] else { panic!("{mutes:?}") };
        assert_eq!((first_place.as_str(), second_place.as_str()), ("mutes.toml:1", "mutes.toml:8"));
        assert_eq!(first.until, Some(Timestamp::from_secs(1_798_761_599)));
        assert_eq!(second.until, Some(Timestamp::from_secs(1_796_112_000)));
        assert_eq!(describe(&first.matches), "rule web-sensitive-files, label env=staging");
        assert_ne!(first.id, second.id);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line() {
        let tail = "reason = \"r\"\nauthor = \"a\"\n";
        for (text, wanted) in [
            (format!("[[mute]]\n{tail}"), "mutes.toml:1: a mute must say what it holds back"),
            (format!("\n[[mute]]\nhost = \" \"\n{tail}"), "mutes.toml:2: an empty value fits everything or nothing"),
            (format!("[[mute]]\nhst = \"x\"\n{tail}"), "mutes.toml:2: `hst` is not known here (did you mean `host`?)"),
            (
                format!("[[mute]]\nwhatever = \"x\"\n{tail}"),
                "mutes.toml:2: `whatever` is not known here ([[mute]] with one or more of",
            ),
            (
                format!("[[mutes]]\nhost = \"x\"\n{tail}"),
                "mutes.toml:1: `mutes` is not known here (did you mean `mute`?)",
            ),
            (format!("[[mute]]\ntemplate = \"xyz\"\n{tail}"), "mutes.toml:1: a template's id has at least 8"),
            (format!("[[mute]]\nlabel = \"env\"\n{tail}"), "mutes.toml:1: a label is written with its value"),
            ("[[mute]]\nhost = \"x\"\nauthor = \"a\"\n".to_owned(), "missing field `reason`"),
            ("[[mute]\n".to_owned(), "mutes.toml:1: "),
        ] {
            assert!(refused(&text).contains(wanted), "{}", refused(&text));
        }
    }

    #[test]
    fn what_should_be_thought_over() {
        let rules = RuleSet::builtin();
        let of = |rule: Option<&str>, host: Option<&str>, text: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            grave(
                &MuteMatch { rule: owned(rule), host: owned(host), text: owned(text), ..MuteMatch::default() },
                &rules,
            )
        };
        assert!(of(Some("oom-kill"), None, None).is_some_and(|why| why.contains("critical")));
        assert!(of(None, Some("web-1"), None).is_some());
        assert_eq!(of(Some("web-sensitive-files"), Some("web-1"), None), None);
        assert_eq!(of(None, None, Some("probe")), None);
    }

    #[test]
    fn a_mute_of_what_may_be_high_is_thought_over_whoever_claims_it() {
        let rules = RuleSet::builtin();
        for (name, wanted) in [
            ("source-silence", Some("high")),
            ("detector:source-silence", Some("high")),
            ("ssh-login", Some("high")),
            ("ssh-login-success", Some("critical")),
            ("state-set-aside", Some("critical")),
            ("surge", None),
            ("model-injection", None),
        ] {
            let matches = MuteMatch { rule: Some(name.to_owned()), ..MuteMatch::default() };
            let wanted = wanted.map(|worst| format!("it holds back {name}, which may be {worst}"));
            assert_eq!(grave(&matches, &rules), wanted);
            assert_eq!(idle(&matches, &rules, []), None, "{name}");
        }
    }

    #[test]
    fn a_mute_that_holds_nothing_says_so() {
        let own = "version = 1\n[[rule]]\nid='payment-refused'\ntitle='t'\nseverity='low'\ncategory='disk'\n\
                   explanation='e'\nsource='s'\nnext='n'\nany=['boom']\nexamples=['boom']";
        let rules = RuleSet::with_files([("mine.toml", own)]).unwrap();
        let told = |rule: &str| {
            let matches = MuteMatch { rule: Some(rule.to_owned()), ..MuteMatch::default() };
            let why = idle(&matches, &rules, ["model:gemma2:9b"]);
            why.map(|(what, hint)| format!("{what}; {}", hint.unwrap_or_else(|| "no hint".to_owned())))
        };
        for fine in ["payment-refused", "rule:oom-kill", "novel", "gemma2:9b", "model:another"] {
            assert_eq!(told(fine), None, "{fine}");
        }
        let wrong =
            ["oom-kil", "payment-refuse", "ssh-failed-password", "rule:ssh-failed-password", "ssh-failed-passwrd"];
        let wrong = wrong.into_iter().chain(["detector:oom-kill", "shipper-healthy", "logins", "x"]);
        insta::assert_snapshot!(wrong.filter_map(told).collect::<Vec<_>>().join("\n"), @r"
        there is no rule `oom-kil`; did you mean `oom-kill`?
        there is no rule `payment-refuse`; did you mean `payment-refused`?
        the rule `ssh-failed-password` makes no incidents of its own: `ssh-login` tells what it notices; did you mean `ssh-login`?
        the rule `rule:ssh-failed-password` makes no incidents of its own: `ssh-login` tells what it notices; did you mean `ssh-login`?
        there is no rule `ssh-failed-passwrd`; did you mean `ssh-failed-password`?
        there is no rule `detector:oom-kill`; did you mean `oom-kill`?
        the rule `shipper-healthy` says what is normal and makes no incidents; no hint
        there is no rule `logins`; did you mean `login`?
        there is no rule `x`; `incidents --format json` names them as `classifier`
        ");
    }
}
