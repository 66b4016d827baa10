//! One question to the model and its answer: sent, watched, and judged whole or not at all.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{
    guard::Guard,
    model,
    ndjson::Lines,
    refusal::{Refusal, quoted},
    transport::broken,
    wire::Chunk,
};

/// How long each part may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Until the first byte: queue, loading and reading the prompt.
    pub(crate) first: Duration,
    /// Between two pieces.
    pub(crate) between: Duration,
    /// In all.
    pub(crate) total: Duration,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) content: String,
    pub(crate) last: Chunk,
    pub(crate) thought: bool,
}

/// What was received of an answer, whole or not: for the trail and the ceilings.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) content: String,
    pub(crate) pieces: u64,
    /// Tokens of prompt and answer, where the last line came.
    pub(crate) read: Option<u64>,
    pub(crate) written: Option<u64>,
    pub(crate) thought: bool,
}

/// Reads a streamed answer to its end. Whatever was received is left in `received`, also when it fails.
pub(crate) async fn read(
    mut response: Response,
    started: Instant,
    patience: Patience,
    most: usize,
    name: &str,
    allow_cloud: Option<&str>,
    received: &mut Received,
) -> Result<Answer, Refusal> {
    let mut reading =
        Reading { guard: Guard::new(most), thoughts: Guard::new(most * 4), last: None, pieces: 0, name, allow_cloud };
    let done = drive(&mut response, started, patience, &mut reading).await;
    reading.guard.text().clone_into(&mut received.content);
    received.pieces = reading.pieces;
    received.read = reading.last.as_ref().and_then(|last| last.prompt_eval_count);
    received.written = reading.last.as_ref().and_then(|last| last.eval_count);
    received.thought = !reading.thoughts.text().is_empty();
    done?;
    reading.finish()
}

async fn drive(
    response: &mut Response,
    started: Instant,
    patience: Patience,
    reading: &mut Reading<'_>,
) -> Result<(), Refusal> {
    let mut lines = Lines::default();
    let long = |_| Refusal::Answer("a line of it is longer than 8 MiB".to_owned());
    loop {
        let left = patience.total.checked_sub(started.elapsed()).ok_or(Refusal::Slow(patience.total))?;
        let within = left.min(patience.between);
        let bytes = match timeout(within, response.chunk()).await {
            Ok(bytes) => bytes.map_err(broken)?,
            Err(_) if within < patience.between => return Err(Refusal::Slow(patience.total)),
            Err(_) => return Err(Refusal::Silent { doing: "in the middle of an answer", after: within }),
        };
        let Some(bytes) = bytes else { break };
        lines.push(&bytes).map_err(long)?;
        while let Some(line) = lines.next_line() {
            reading.line(&line)?;
        }
    }
    lines.rest().map_or(Ok(()), |rest| reading.line(&rest))
}

struct Reading<'a> {
    guard: Guard,
    thoughts: Guard,
    last: Option<Chunk>,
    pieces: u64,
    name: &'a str,
    allow_cloud: Option<&'a str>,
}

impl Reading<'_> {
    fn line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let Ok(chunk) = serde_json::from_slice::<Chunk>(line) else {
            return Err(Refusal::Answer("a line of it is not JSON".to_owned()));
        };
        if let Some(error) = &chunk.error {
            let body = Value::from_iter([("error", error.clone())]).to_string();
            return Err(match Refusal::from_body(500, body.as_bytes(), self.name) {
                Refusal::Refused(_) => {
                    Refusal::Answer(format!("the server broke off: {}", quoted(error.as_str().unwrap_or_default())))
                }
                other => other,
            });
        }
        if let Some(remote) = chunk.remote_host.as_deref().or(chunk.remote_model.as_deref()) {
            model::refuse_cloud(self.name, Some(remote), self.allow_cloud)?;
        }
        self.pieces += 1;
        if let Some(delta) = &chunk.message {
            self.guard.push(delta.content.as_deref().unwrap_or_default())?;
            self.thoughts.push(delta.thinking.as_deref().unwrap_or_default())?;
        }
        if chunk.done {
            self.last = Some(chunk);
        }
        Ok(())
    }

    fn finish(self) -> Result<Answer, Refusal> {
        let content = self.guard.text();
        let thought = !self.thoughts.text().is_empty();
        let refuse = |text: String| Err(Refusal::Answer(text));
        let Some(last) = self.last else {
            return refuse("it ended without saying that it was whole".to_owned());
        };
        let tokens = last.eval_count.unwrap_or(self.pieces);
        match last.done_reason.as_deref() {
            Some("stop") => {}
            Some("length") if content.is_empty() && thought => {
                return refuse(format!("the model spent all {tokens} tokens on thinking"));
            }
            Some("length") => return refuse(format!("it was cut off at {tokens} tokens")),
            Some(other) => return refuse(format!("it ended with `{}`", quoted(other))),
            None => return refuse("it ended without a reason".to_owned()),
        }
        if content.is_empty() {
            return refuse(match tokens {
                0 => "it is empty".to_owned(),
                _ => format!("it is empty although {tokens} tokens were written"),
            });
        }
        Ok(Answer { content: content.to_owned(), last, thought })
    }
}

/// The most tokens that an answer of this schema may need.
pub(crate) fn most_tokens(schema: &Value) -> f64 {
    let bound = |key: &str, otherwise: f64| schema.get(key).and_then(Value::as_f64).unwrap_or(otherwise);
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let longest = values.iter().filter_map(Value::as_str).map(str::len).max().unwrap_or(4);
        return longest as f64 / 2.0 + 2.0;
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let property = |(name, schema): (&String, &Value)| name.len() as f64 / 2.0 + 5.0 + most_tokens(schema);
            4.0 + properties.map_or(0.0, |properties| properties.iter().map(property).sum())
        }
        Some("array") => {
            let item = schema.get("items").map_or(4.0, most_tokens);
            2.0 + bound("maxItems", 20.0) * (item + 1.0)
        }
        // Prose has four characters a token and more; what is quoted from logs has fewer.
        Some("string") => 2.0 + bound("maxLength", 500.0) / 3.0,
        Some("integer" | "number") => 6.0,
        _ => 4.0,
    }
}

/// The schema without what grammars stumble over most: lengths and patterns. We check those ourselves anyway.
pub(crate) fn simplified(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => {
            let dropped = ["minLength", "maxLength", "pattern", "format", "minItems", "maxItems"];
            let kept = map.iter().filter(|(key, value)| !dropped.contains(&key.as_str()) || value.is_object());
            Value::Object(kept.map(|(key, value)| (key.clone(), simplified(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(simplified).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_simplified_schema_keeps_names_types_and_enums() {
        let schema = json!({
            "type": "object",
            "properties": {
                "pattern": { "type": "string", "maxLength": 9, "pattern": "^a$" },
                "list": { "type": "array", "maxItems": 3, "items": { "type": "integer", "minimum": 1, "maximum": 7 } },
            },
            "required": ["pattern", "list"],
        });
        let expected = json!({
            "type": "object",
            "properties": {
                "pattern": { "type": "string" },
                "list": { "type": "array", "items": { "type": "integer", "minimum": 1, "maximum": 7 } },
            },
            "required": ["pattern", "list"],
        });
        assert_eq!(simplified(&schema), expected);
    }

    #[test]
    fn the_budget_of_an_answer_comes_from_its_schema() {
        let tokens = most_tokens(&logwarden_core::reply::schema(30));
        assert!((1000.0..3000.0).contains(&tokens), "{tokens}");
    }
}
