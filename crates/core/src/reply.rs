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
    digest::{Digest, Verdict},
    plain, tripwire,
};

/// Findings at most in one answer.
pub const MAX_FINDINGS: usize = 6;
/// Rows at most that one finding cites.
pub const MAX_CITES: usize = 8;
/// Sentences at most in a summary.
pub const MAX_SENTENCES: usize = 6;
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
    answer.verdict.summary = first_sentences(&plain::line(&reply.summary));
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

/// The first [`MAX_SENTENCES`] sentences of a text.
pub(crate) fn first_sentences(text: &str) -> String {
    let mut ends = text.match_indices(['.', '!', '?']).filter(|(at, _)| {
        let rest = &text[at + 1..];
        rest.is_empty() || rest.starts_with(' ')
    });
    match ends.nth(MAX_SENTENCES - 1) {
        Some((at, _)) => text[..=at].to_owned(),
        None => text.to_owned(),
    }
}
