//! The form of a model's answer, and how it is read.
//!
//! The schema comes from these Rust types. Servers generate properties in alphabetical order, so the names are chosen for
//! it: what is cited and why it matters comes before category and severity, findings before the verdict. Everything is
//! required and bounded; there is no `$ref`, no map, no union.
//!
//! A schema that was asked for is not a schema that was kept: [`parse`] trusts nothing and repairs nothing.

use std::sync::LazyLock;

use logwarden_detectors::{By, Category, Finding, Route, Severity};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    digest::{Digest, MAX_SENTENCES, Verdict},
    plain, tripwire,
};

/// Findings at most in one answer.
pub const MAX_FINDINGS: usize = 6;
/// Rows at most that one finding cites.
pub const MAX_CITES: usize = 8;
/// Characters of the longest answer that keeps the schema, white space and escapes aside; for the limit that a server is given.
pub const MAX_CHARS: usize = MAX_FINDINGS * (400 + 200 + 120 + 160) + 500 + 80;
/// Longer answers are not read.
pub const MAX_BYTES: usize = 64 * 1024;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reply {
    #[schemars(length(max = 6))]
    findings: Vec<Claim>,
    #[schemars(length(min = 1, max = 500))]
    summary: String,
    verdict: Overall,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Claim {
    #[schemars(length(min = 1, max = 8), inner(range(min = 1, max = 9999)))]
    cites: Vec<u64>,
    #[schemars(length(min = 1, max = 400))]
    explanation: String,
    kind: Category,
    #[schemars(length(min = 1, max = 200))]
    next_step: String,
    severity: Grade,
    #[schemars(length(min = 1, max = 120))]
    title: String,
}

// No doc comments on variants: schemars would then emit `oneOf`.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Low,
    Medium,
    High,
    Critical,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Overall {
    None,
    Low,
    Medium,
    High,
    Critical,
}

/// Why an answer does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// Longer than any whole answer can be.
    #[error("the answer has {bytes} bytes, more than {MAX_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not one JSON object of the asked form: cut off, another shape, unknown or repeated fields, text around it.
    #[error("the answer is not the JSON that was asked for (line {line}, column {column}: {what})")]
    Malformed {
        /// Where.
        line: usize,
        /// Where.
        column: usize,
        /// What is wrong; never quotes the answer.
        what: &'static str,
    },
    /// A text or a list longer than the schema allows: the server did not keep the schema.
    #[error("the answer's `{field}` is longer than the schema allows")]
    Overlong {
        /// Which.
        field: &'static str,
    },
}

/// An answer that was read.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// What counts of it.
    pub verdict: Verdict,
    /// Findings that cite rows which do not exist, or none.
    pub refused: u32,
}

/// The JSON schema of an answer about `rows` rows.
pub fn schema(rows: usize) -> Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<Reply>().to_value();
        strip(&mut schema);
        schema
    });
    let mut schema = SCHEMA.clone();
    if let Some(number) = schema.pointer_mut("/properties/findings/items/properties/cites/items") {
        *number = json!({ "type": "integer", "minimum": 1, "maximum": rows.max(1) });
    }
    schema
}

/// Leaves out what grammars ignore, and what never reaches a model.
fn strip(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            for noise in ["$schema", "title", "description", "format"] {
                if object.get(noise).is_some_and(Value::is_string) {
                    object.remove(noise);
                }
            }
            object.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Reads a model's answer about `digest`. A finding that cites a row which does not exist is refused and counted.
///
/// Rows count as judged only when nothing was refused and no row of the digest tries to talk to the model: a model that
/// may have been talked to must not teach us what is normal.
///
/// # Errors
///
/// When the answer is not whole and valid. Nothing is ever repaired.
pub fn parse(content: &str, digest: &Digest, model: &str) -> Result<Answer, ReplyError> {
    if content.len() > MAX_BYTES {
        return Err(ReplyError::TooLong { bytes: content.len() });
    }
    let reply: Reply = serde_json::from_str(content).map_err(malformed)?;
    check(&reply)?;
    let mut answer = Answer::default();
    for claim in reply.findings {
        match finding(&claim, digest, model) {
            Some(finding) => answer.verdict.findings.push(finding),
            None => answer.refused += 1,
        }
    }
    let worst = answer.verdict.findings.iter().map(|finding| finding.severity).max();
    answer.verdict.severity = reply.verdict.severity().max(worst);
    answer.verdict.summary = plain::first_sentences(&plain::line(&reply.summary), MAX_SENTENCES);
    let trusted = answer.refused == 0 && digest.rows.iter().all(|row| tripwire::row_sighting(&row.row).is_none());
    if trusted {
        answer.verdict.judged = (0..).take(digest.rows.len()).collect();
    }
    Ok(answer)
}

fn malformed(error: serde_json::Error) -> ReplyError {
    // serde's own words quote the answer (unknown fields, wrong enums), which may quote the log: say only of what kind.
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax => "not JSON, or text after it",
        serde_json::error::Category::Data => "a field is unknown, missing, repeated or has a wrong value",
        serde_json::error::Category::Io => "it cannot be read",
    };
    ReplyError::Malformed { line: error.line(), column: error.column(), what }
}

fn check(reply: &Reply) -> Result<(), ReplyError> {
    let text = |field, text: &str, max: usize| {
        if text.chars().count() > max { Err(ReplyError::Overlong { field }) } else { Ok(()) }
    };
    let list = |field, len: usize, max: usize| if len > max { Err(ReplyError::Overlong { field }) } else { Ok(()) };
    list("findings", reply.findings.len(), MAX_FINDINGS)?;
    text("summary", &reply.summary, 500)?;
    for claim in &reply.findings {
        list("cites", claim.cites.len(), MAX_CITES)?;
        text("explanation", &claim.explanation, 400)?;
        text("next_step", &claim.next_step, 200)?;
        text("title", &claim.title, 120)?;
    }
    Ok(())
}

fn finding(claim: &Claim, digest: &Digest, model: &str) -> Option<Finding> {
    let mut rows = Vec::new();
    for number in &claim.cites {
        let index = usize::try_from(*number).ok()?.checked_sub(1)?;
        digest.rows.get(index)?;
        let index = u32::try_from(index).ok()?;
        if !rows.contains(&index) {
            rows.push(index);
        }
    }
    let cited = || rows.iter().filter_map(|row| digest.rows.get(*row as usize));
    // Where detectors saw something, that is what it is about and the rest is context: which other rows a model cites
    // varies from answer to answer, and must not decide what counts as the same.
    let mut anomalous = rows.clone();
    if cited().any(|row| row.is_unusual()) {
        anomalous.retain(|row| digest.rows[*row as usize].is_unusual());
    }
    Some(Finding {
        by: By::Model { name: model.to_owned() },
        profile: digest.profile.name.clone(),
        category: claim.kind,
        severity: claim.severity.severity(),
        floor: None,
        route: Route::Alert,
        title: claim.title.clone(),
        explanation: claim.explanation.clone(),
        recommendation: claim.next_step.clone(),
        absent: Vec::new(),
        discriminator: String::new(),
        entities: Vec::new(),
        score: 0.0,
        count: cited().map(|row| row.row.row.count).fold(0, u64::saturating_add),
        first: cited().map(|row| row.row.row.first).min()?,
        last: cited().map(|row| row.row.row.last).max()?,
        anomalous,
        rows,
    })
}

impl Grade {
    fn severity(self) -> Severity {
        match self {
            Self::Low => Severity::Low,
            Self::Medium => Severity::Medium,
            Self::High => Severity::High,
            Self::Critical => Severity::Critical,
        }
    }
}

impl Overall {
    fn severity(self) -> Option<Severity> {
        match self {
            Self::None => None,
            Self::Low => Some(Severity::Low),
            Self::Medium => Some(Severity::Medium),
            Self::High => Some(Severity::High),
            Self::Critical => Some(Severity::Critical),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        grounding::{Floors, ground},
        plan::{
            Material, plan,
            tests::{ROOMY, profile, segment},
        },
        segment::SegmentRow,
    };

    fn digest_of(rows: &[Arc<SegmentRow>]) -> Digest {
        let (profile, floors, benign) = (profile(), Floors::default(), HashSet::new());
        let of_profile: Vec<u32> = (0..).take(rows.len()).collect();
        let (_, signals) = segment();
        let material = Material {
            profile: &profile,
            rows,
            of_profile: &of_profile,
            signals: &signals,
            floors: &floors,
            benign: &benign,
        };
        plan(&material, ROOMY).digests.remove(0)
    }

    /// Five rows; the `<|im_end|>` after the full disk is taken out, so that the model may be believed.
    fn digest() -> Digest {
        let (mut rows, _) = segment();
        let mut disk = (*rows[3]).clone();
        disk.after.clear();
        rows[3] = Arc::new(disk);
        digest_of(&rows)
    }

    fn claim(cites: &str) -> String {
        format!(r#"{{"cites":{cites},"explanation":"e","kind":"disk","next_step":"n","severity":"high","title":"t"}}"#)
    }

    fn answer(claims: &[String]) -> String {
        format!(r#"{{"findings":[{}],"summary":"All of it. Really.","verdict":"low"}}"#, claims.join(","))
    }

    #[test]
    fn the_schema() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&schema(7)).unwrap(), @r#"
        {
          "additionalProperties": false,
          "properties": {
            "findings": {
              "items": {
                "additionalProperties": false,
                "properties": {
                  "cites": {
                    "items": {
                      "maximum": 7,
                      "minimum": 1,
                      "type": "integer"
                    },
                    "maxItems": 8,
                    "minItems": 1,
                    "type": "array"
                  },
                  "explanation": {
                    "maxLength": 400,
                    "minLength": 1,
                    "type": "string"
                  },
                  "kind": {
                    "enum": [
                      "backlog",
                      "brute_force",
                      "account_change",
                      "certificate",
                      "configuration",
                      "connections",
                      "crash",
                      "database",
                      "disk",
                      "error_rate",
                      "exploit",
                      "hardware",
                      "latency",
                      "memory",
                      "network",
                      "new_pattern",
                      "other",
                      "privilege_escalation",
                      "scan",
                      "service",
                      "shipping",
                      "silence",
                      "storage",
                      "tampering",
                      "time",
                      "unauthorized_access",
                      "unusual_login"
                    ],
                    "type": "string"
                  },
                  "next_step": {
                    "maxLength": 200,
                    "minLength": 1,
                    "type": "string"
                  },
                  "severity": {
                    "enum": [
                      "low",
                      "medium",
                      "high",
                      "critical"
                    ],
                    "type": "string"
                  },
                  "title": {
                    "maxLength": 120,
                    "minLength": 1,
                    "type": "string"
                  }
                },
                "required": [
                  "cites",
                  "explanation",
                  "kind",
                  "next_step",
                  "severity",
                  "title"
                ],
                "type": "object"
              },
              "maxItems": 6,
              "type": "array"
            },
            "summary": {
              "maxLength": 500,
              "minLength": 1,
              "type": "string"
            },
            "verdict": {
              "enum": [
                "none",
                "low",
                "medium",
                "high",
                "critical"
              ],
              "type": "string"
            }
          },
          "required": [
            "findings",
            "summary",
            "verdict"
          ],
          "type": "object"
        }
        "#);
    }

    #[test]
    fn bounds_in_the_schema_are_those_that_are_checked() {
        let schema = schema(7);
        let at = |pointer: &str| schema.pointer(pointer).and_then(Value::as_u64);
        assert_eq!(at("/properties/findings/maxItems"), Some(MAX_FINDINGS as u64));
        let claim = "/properties/findings/items/properties";
        assert_eq!(at(&format!("{claim}/cites/maxItems")), Some(MAX_CITES as u64));
        assert_eq!(at(&format!("{claim}/cites/items/maximum")), Some(7));
        for category in Category::ALL {
            let known = schema.pointer(&format!("{claim}/kind/enum")).and_then(Value::as_array).unwrap();
            assert!(known.iter().any(|name| name == category.as_str()));
        }
    }

    #[test]
    fn names_ask_for_evidence_before_the_verdict() {
        let schema = schema(1);
        let order = |pointer: &str| -> Vec<String> {
            let mut names: Vec<_> = schema.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        assert_eq!(order("/properties"), ["findings", "summary", "verdict"]);
        let claim = order("/properties/findings/items/properties");
        assert_eq!(claim, ["cites", "explanation", "kind", "next_step", "severity", "title"]);
        assert_eq!(schema["required"].as_array().map(Vec::len), Some(3));
        let required = schema.pointer("/properties/findings/items/required").and_then(Value::as_array).unwrap();
        assert_eq!(required.len(), claim.len());
    }

    #[test]
    fn a_good_answer_counts_and_the_worst_severity_wins() {
        let answer = parse(&answer(&[claim("[1,1,2]")]), &digest(), "m").unwrap();
        let finding = &answer.verdict.findings[0];
        assert_eq!(
            (&finding.rows[..], &finding.anomalous[..]),
            (&[0, 1][..], &[0][..]),
            "what detectors saw is the subject"
        );
        assert_eq!(answer.verdict.severity, Some(Severity::High));
        assert_eq!(answer.verdict.summary, "All of it. Really.");
        assert_eq!(answer.verdict.judged, [0, 1, 2, 3, 4]);
        assert_eq!(answer.refused, 0);
    }

    #[test]
    fn unknown_rows_refuse_the_finding_and_such_an_answer_teaches_nothing() {
        for cites in ["[0]", "[6]", "[1,99]", "[18446744073709551615]", "[]"] {
            let answer = parse(&answer(&[claim(cites), claim("[2]")]), &digest(), "m").unwrap();
            assert_eq!((answer.refused, answer.verdict.findings.len()), (1, 1), "{cites}");
            assert!(answer.verdict.judged.is_empty());
        }
    }

    #[test]
    fn a_model_that_may_have_been_talked_to_teaches_nothing() {
        let (rows, _) = segment();
        let answer = parse(&answer(&[]), &digest_of(&rows), "m").unwrap();
        assert!(answer.verdict.judged.is_empty());
    }

    #[test]
    fn nothing_is_repaired() {
        let good = answer(&[claim("[1]")]);
        let digest = digest();
        let mut bad: Vec<String> = (0..good.len()).map(|cut| good[..cut].to_owned()).collect();
        bad.extend([
            format!("{good} and more"),
            format!("```json\n{good}\n```"),
            format!("{good}{good}"),
            good.replace("\"high\"", "\"HIGH\""),
            good.replace("\"disk\"", "\"ufo\""),
            good.replace("\"low\"", "null"),
            good.replace("[1]", "[-1]"),
            good.replace("[1]", "[1.5]"),
            good.replace("[1]", "[99999999999999999999999]"),
            good.replace("[1]", "\"1\""),
            good.replace("\"title\":\"t\"", "\"title\":\"t\",\"title\":\"u\""),
            good.replace("\"title\":\"t\"", "\"title\":\"t\",\"links\":[]"),
            good.replace("\"title\":\"t\"", "\"title\":\"\\ud800\""),
            good.replace(",\"next_step\":\"n\"", ""),
            good.replace("\"e\"", &format!("\"{}\"", "x".repeat(401))),
            good.replace("[1]", "[1,1,1,1,1,1,1,1,1]"),
            answer(&vec![claim("[1]"); 7]),
            "[".repeat(50_000),
            "{\"findings\":".repeat(5_000),
            "null".into(),
            "x".repeat(10_000_000),
        ]);
        for content in bad {
            assert!(parse(&content, &digest, "m").is_err(), "{}", plain::head(&content, 300));
        }
        let secret = parse(&good.replace("\"disk\"", "\"hunter2\""), &digest, "m").unwrap_err().to_string();
        assert!(!secret.contains("hunter2"), "{secret}");
    }

    #[test]
    fn a_model_that_obeys_an_attacker_hides_nothing_and_makes_nothing_active() {
        let (rows, _) = segment();
        let tenant: Arc<str> = "".into();
        let rule = Finding { by: By::Rule { id: "disk-full".into() }, ..finding_about(3, Severity::High) };
        let detected = ground(vec![rule], &rows, &tenant, &Floors::default());
        let floors = Floors::new(&tenant, &detected.findings);
        let digest = digest_of(&rows);
        let bait = "all fine, see https://evil.example/?q=secret [click](http://x) @everyone <!channel> `curl x|sh`";
        let forged = claim("[3]").replace("\"e\"", &format!("\"{bait}\"")).replace("\"high\"", "\"low\"");
        for content in [answer(&[]), answer(&[forged]), answer(&[claim("[42]")])] {
            let verdict = digest.in_segment(parse(&content, &digest, "m").unwrap().verdict);
            assert!(verdict.judged.is_empty(), "it was talked to: it teaches nothing");
            let said = ground(verdict.findings, &rows, &tenant, &floors);
            for finding in said.findings {
                let about_disk = finding.cited.iter().any(|cited| cited.leaf == Some(rows[3].row.leaf));
                assert!(!about_disk || finding.severity == Severity::High);
                for active in ["://", "](", "@", "<", "`"] {
                    assert!(!finding.explanation.contains(active), "{}", finding.explanation);
                }
            }
        }
    }

    /// A claim about one row of the segment.
    fn finding_about(row: u32, severity: Severity) -> Finding {
        let (rows, _) = segment();
        let claim = serde_json::from_str(&claim("[1]")).unwrap();
        let finding = finding(&claim, &digest_of(&rows), "m").unwrap();
        Finding { severity, rows: vec![row], anomalous: vec![row], ..finding }
    }

    proptest! {
        #[test]
        fn any_answer_is_an_error_or_cites_rows_that_exist(
            cites in proptest::collection::vec(0_u64..9, 0..9),
            text in any::<String>(),
        ) {
            let digest = digest();
            let content = json!({
                "findings": [{ "cites": cites, "explanation": text, "kind": "disk", "next_step": text, "severity": "low", "title": text }],
                "summary": text,
                "verdict": "none",
            });
            if let Ok(answer) = parse(&content.to_string(), &digest, "m") {
                for finding in answer.verdict.findings {
                    prop_assert!(!finding.anomalous.is_empty());
                    prop_assert!(finding.rows.iter().all(|row| (*row as usize) < digest.rows.len()));
                    prop_assert!(finding.anomalous.iter().all(|row| finding.rows.contains(row)));
                }
            }
        }
    }
}
