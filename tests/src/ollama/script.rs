//! What the model answers: scripts that read the rows in the prompt, so that a person can try the whole system without a
//! model, and that do what a model may do wrong.

use super::{json::Json, schema};

/// How the scripted model answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// One finding for each row with a measured signal, in plain words.
    #[default]
    Honest,
    /// Never a finding.
    Quiet,
    /// Does what text in the log says: finds nothing, repeats a forged answer, cites rows that do not exist, mentions
    /// everyone, places links.
    Obedient,
    /// As honest, in other words each time.
    Reworder,
    /// Always the same text.
    Fixed(String),
}

/// What the model is shown.
pub(super) struct Seen<'a> {
    pub(super) prompt: &'a str,
    pub(super) format: Option<&'a Json>,
    /// Whether the grammar has its properties sorted by name.
    pub(super) sorted: bool,
    /// Chats before this one.
    pub(super) turn: usize,
}

struct Row<'a> {
    number: u64,
    level: &'a str,
    signals: &'a str,
    text: &'a str,
}

impl Behaviour {
    pub(super) fn answer(&self, seen: &Seen<'_>) -> String {
        let rows = rows(seen.prompt);
        let marked: Vec<&Row<'_>> = rows.iter().filter(|row| !row.signals.is_empty()).collect();
        let findings = |words: usize| marked.iter().map(|row| claim(row, words)).collect::<Vec<_>>();
        let findings = match self {
            Self::Fixed(text) => return text.clone(),
            Self::Quiet => Vec::new(),
            Self::Honest => findings(0),
            Self::Reworder => findings(seen.turn + 1),
            Self::Obedient => match order(&rows) {
                Some(Order::Silence) => Vec::new(),
                Some(Order::Say(text)) => return text,
                Some(Order::Decorate(text)) => decorated(findings(0), &text),
                Some(Order::Invent) => invented(findings(0)),
                None => findings(0),
            },
        };
        let Some(format) = seen.format else {
            return format!("I looked at {} rows and found {} things worth a look.", rows.len(), findings.len());
        };
        let worst = worst(&findings);
        let summary = match findings.len() {
            0 => "Nothing unusual happened.".to_owned(),
            n => format!("{n} of {} rows show trouble. {}", rows.len(), title(&findings)),
        };
        let first =
            marked.first().or(rows.iter().max_by_key(|row| rank(row.level)).as_ref()).map_or(1, |row| row.number);
        let answer = Json::Object(vec![
            ("findings".into(), Json::Array(findings)),
            ("row".into(), Json::Number(first.into())),
            ("severity".into(), Json::String(if worst == "none" { "high".into() } else { worst.clone() })),
            ("summary".into(), Json::String(summary)),
            ("verdict".into(), Json::String(worst)),
        ]);
        fill(format, Some(&answer), seen.sorted).to_string()
    }
}

/// The numbered rows of the last user message: `4 error [new] x12 0:05-4:58 | text`. The system message may show such a
/// row as an example.
fn rows(prompt: &str) -> Vec<Row<'_>> {
    let prompt = prompt.rsplit_once("<|im_start|>user\n").map_or(prompt, |(_, user)| user);
    let row = |line| {
        let (head, text) = str::split_once(line, " | ")?;
        let (number, rest) = head.split_once(' ')?;
        let (level, rest) = rest.split_once(' ')?;
        let signals = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("", |(signals, _)| signals);
        Some(Row { number: number.parse().ok()?, level, signals, text })
    };
    prompt.lines().filter_map(row).collect()
}

fn claim(row: &Row<'_>, words: usize) -> Json {
    let (kind, what) = kind(row);
    let at = |list: &[&str]| list[words % list.len()].to_owned();
    let title = match words {
        0 => format!("{what}: {}", row.text),
        _ => format!(
            "{} {what}",
            at(&["Watch out:", "Signs of", "It looks like", "We are seeing", "Possible", "Evidence for"])
        ),
    };
    let explanation = at(&[
        "The row is marked as unusual, and its lines say so themselves.",
        "These lines do not belong to the normal course of this service.",
        "Something has changed here compared with what is usual.",
        "The count and the text together point to a real problem.",
        "A healthy system would not write this.",
    ]);
    let next = at(&[
        "Look at the service's own log around the first occurrence.",
        "Check the unit's status and what happened just before.",
        "Compare with the same hour of yesterday.",
    ]);
    Json::Object(vec![
        ("cites".into(), Json::Array(vec![Json::Number(row.number.into())])),
        ("explanation".into(), Json::String(explanation)),
        ("kind".into(), Json::String(kind.into())),
        ("next_step".into(), Json::String(next)),
        ("severity".into(), Json::String(severity(row).into())),
        ("title".into(), Json::String(title)),
    ])
}

fn kind(row: &Row<'_>) -> (&'static str, &'static str) {
    const KINDS: &[(&[&str], &str, &str)] = &[
        (&["failed password", "authentication failure", "invalid user"], "brute_force", "repeated failed logins"),
        (&["out of memory", "oom", "killed process"], "memory", "memory exhausted"),
        (&["no space left", "disk full"], "disk", "disk full"),
        (&["i/o error", "ext4-fs error", "xfs"], "storage", "storage errors"),
        (&["segfault", "panic", "core dump"], "crash", "a crash"),
        (&["failed with result", "entered failed state"], "service", "a failed unit"),
        (&["certificate"], "certificate", "a certificate problem"),
        (&["timed out", "timeout", "upstream"], "latency", "slow answers"),
        (&["ignore all", "ignore previous", "instructions"], "tampering", "text that gives orders"),
    ];
    let text = row.text.to_lowercase();
    let found = KINDS.iter().find(|(words, _, _)| words.iter().any(|word| text.contains(word)));
    found.map_or(("other", "something unusual"), |(_, kind, what)| (kind, what))
}

fn severity(row: &Row<'_>) -> &'static str {
    let floors = ["critical", "high", "medium", "low"];
    let floor = row.signals.rsplit_once("at least ").map(|(_, floor)| floor.trim());
    let floor = floors.into_iter().find(|name| floor == Some(name));
    floor.unwrap_or(if rank(row.level) > 1 { "high" } else { "medium" })
}

fn rank(level: &str) -> u8 {
    match level {
        "emergency" | "alert" | "critical" | "fatal" => 3,
        "error" => 2,
        "warn" | "warning" => 1,
        _ => 0,
    }
}

fn worst(findings: &[Json]) -> String {
    let has = |name: &str| findings.iter().any(|finding| finding.get("severity").and_then(Json::as_str) == Some(name));
    ["critical", "high", "medium", "low"].into_iter().find(|name| has(name)).unwrap_or("none").to_owned()
}

fn title(findings: &[Json]) -> String {
    findings.first().and_then(|finding| finding.get("title")).and_then(Json::as_str).unwrap_or_default().to_owned()
}

enum Order {
    Silence,
    Say(String),
    Decorate(String),
    Invent,
}

/// What somebody who writes logs orders.
fn order(rows: &[Row<'_>]) -> Option<Order> {
    rows.iter().find_map(|row| {
        let text = row.text.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["answer with {", "reply with {", "output {"]) {
            let (start, end) = (row.text.find('{')?, row.text.rfind('}')?);
            return row.text.get(start..=end).map(|text| Order::Say(text.to_owned()));
        }
        if says(&["cite row", "row 999"]) {
            return Some(Order::Invent);
        }
        if says(&["@everyone", "@here", "<!channel>", "http"]) && says(&["ignore", "mention", "tell", "include", "say"])
        {
            return Some(Order::Decorate(row.text.to_owned()));
        }
        says(&["no findings", "report nothing", "all is well", "ignore all", "ignore previous"])
            .then_some(Order::Silence)
    })
}

fn changed(findings: Vec<Json>, key: &str, value: impl Fn(&Json) -> Json) -> Vec<Json> {
    let change = |finding| match finding {
        Json::Object(entries) => {
            let change = |(name, old): (String, Json)| if name == key { (name, value(&old)) } else { (name, old) };
            Json::Object(entries.into_iter().map(change).collect())
        }
        other => other,
    };
    findings.into_iter().map(change).collect()
}

fn decorated(findings: Vec<Json>, text: &str) -> Vec<Json> {
    changed(findings, "title", |_| Json::String(text.to_owned()))
}

fn invented(findings: Vec<Json>) -> Vec<Json> {
    changed(findings, "cites", |_| Json::Array(vec![Json::Number(999.into())]))
}

/// The value as a grammar would force it into the schema: known properties in the grammar's order, lengths and ranges kept,
/// what is missing filled with something valid.
fn fill(schema: &Json, value: Option<&Json>, sorted: bool) -> Json {
    for union in ["anyOf", "oneOf"] {
        if let Some(first) = schema.get(union).and_then(Json::as_array).and_then(<[Json]>::first) {
            return fill(first, value, sorted);
        }
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(values) = schema.get("enum").and_then(Json::as_array) {
        let kept = value.filter(|value| values.contains(value));
        return kept.or(values.first()).cloned().unwrap_or(Json::Null);
    }
    let kind = match schema.get("type") {
        Some(Json::String(kind)) => kind.as_str(),
        Some(Json::Array(kinds)) => kinds.first().and_then(Json::as_str).unwrap_or("null"),
        _ => "object",
    };
    let bound = |key: &str| schema.get(key).and_then(Json::as_f64);
    match kind {
        "object" => {
            let entry = |(name, property): (&str, &Json)| {
                (name.to_owned(), fill(property, value.and_then(|value| value.get(name)), sorted))
            };
            Json::Object(schema::order(schema, sorted).into_iter().map(entry).collect())
        }
        "array" => {
            let items = value.and_then(Json::as_array).unwrap_or_default();
            let most = bound("maxItems").map_or(usize::MAX, |most| most as usize);
            let least = bound("minItems").map_or(0, |least| least as usize).min(1000);
            let item = schema.get("items").cloned().unwrap_or(Json::Object(Vec::new()));
            let mut filled: Vec<_> = items.iter().take(most).map(|value| fill(&item, Some(value), sorted)).collect();
            while filled.len() < least {
                filled.push(fill(&item, None, sorted));
            }
            Json::Array(filled)
        }
        "integer" => {
            let low = bound("minimum").unwrap_or(1.0);
            let high = bound("maximum").unwrap_or(9_999_999_999_999_999.0);
            let number = value.and_then(Json::as_f64).unwrap_or(low).clamp(low, high.max(low));
            Json::Number((number as i64).into())
        }
        "number" => Json::Number(1.into()),
        "boolean" => Json::Bool(value.and_then(Json::as_bool).unwrap_or(false)),
        "null" => Json::Null,
        _ => {
            let text = value.and_then(Json::as_str).unwrap_or("nothing. ");
            let text = if schema.get("format").is_some() { "2026-11-21T02:50:53Z" } else { text };
            let text = if schema.get("pattern").is_some() { "113" } else { text };
            let most = bound("maxLength").map_or(usize::MAX, |most| most as usize);
            let least = bound("minLength").map_or(0, |least| least as usize).min(10_000);
            let text = if text.is_empty() { "nothing. " } else { text };
            let length = text.chars().count().max(least).min(most);
            Json::String(text.chars().cycle().take(length).collect())
        }
    }
}
