//! What goes over the wire, in Ollama's words.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

#[derive(Debug, Serialize)]
pub(crate) struct Chat<'a> {
    pub(crate) model: &'a str,
    pub(crate) messages: &'a [Message<'a>],
    pub(crate) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<&'a Value>,
    pub(crate) options: Options,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_alive: Option<&'a KeepAlive>,
    /// Too long is to be an error, never a shorter prompt.
    pub(crate) truncate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) think: Option<Think>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Message<'a> {
    pub(crate) role: &'a str,
    pub(crate) content: &'a str,
}

/// Options whose defaults vary with the version, the memory, the model or a neighbour.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Options {
    pub(crate) num_ctx: u32,
    pub(crate) num_predict: u32,
    pub(crate) temperature: f32,
    pub(crate) seed: u32,
    pub(crate) repeat_penalty: f32,
}

/// How long the server keeps the model in memory after an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum KeepAlive {
    /// Seconds; negative is for ever.
    Seconds(i64),
    /// A duration as Go writes it: `10m`.
    Text(String),
}

/// Not a time to keep a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected seconds or something like `10m`, `1h30m` or `-1`")]
pub struct KeepAliveError;

impl KeepAlive {
    /// Reads what `OLLAMA_KEEP_ALIVE` may hold: seconds or a duration. Requests take a bare number only as a number.
    ///
    /// # Errors
    ///
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, KeepAliveError> {
        let text = text.trim().trim_matches(['"', '\'']);
        if let Ok(seconds) = text.parse() {
            return Ok(Self::Seconds(seconds));
        }
        let mut rest = text.strip_prefix('-').unwrap_or(text);
        let mut parts = 0;
        while !rest.is_empty() {
            let digits =
                rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0).ok_or(KeepAliveError)?;
            let (number, after) = rest.split_at(digits);
            number.parse::<f64>().map_err(|_| KeepAliveError)?;
            let unit = ["ms", "us", "ns", "h", "m", "s"].into_iter().find(|unit| after.starts_with(unit));
            rest = after.strip_prefix(unit.ok_or(KeepAliveError)?).unwrap_or_default();
            parts += 1;
        }
        if parts == 0 { Err(KeepAliveError) } else { Ok(Self::Text(text.to_owned())) }
    }
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds} s"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Think {
    Switch(bool),
    Level(&'static str),
}

/// One line of a streamed answer. Everything may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Chunk {
    pub(crate) message: Option<Delta>,
    pub(crate) done: bool,
    pub(crate) done_reason: Option<String>,
    pub(crate) error: Option<Value>,
    pub(crate) remote_host: Option<String>,
    pub(crate) remote_model: Option<String>,
    pub(crate) load_duration: Option<u64>,
    pub(crate) prompt_eval_count: Option<u64>,
    pub(crate) prompt_eval_duration: Option<u64>,
    pub(crate) eval_count: Option<u64>,
    pub(crate) eval_duration: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Delta {
    pub(crate) content: Option<String>,
    pub(crate) thinking: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Version {
    #[serde(deserialize_with = "or_default")]
    pub(crate) version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Models {
    #[serde(deserialize_with = "or_default")]
    pub(crate) models: Vec<Entry>,
}

/// A model in `/api/tags` or `/api/ps`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Entry {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) digest: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) size: u64,
    #[serde(deserialize_with = "or_default")]
    pub(crate) size_vram: u64,
    pub(crate) context_length: Option<u64>,
    pub(crate) remote_host: Option<String>,
    pub(crate) remote_model: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Shown {
    #[serde(deserialize_with = "or_default")]
    pub(crate) details: Details,
    #[serde(deserialize_with = "or_default")]
    pub(crate) model_info: serde_json::Map<String, Value>,
    pub(crate) capabilities: Option<Vec<String>>,
    pub(crate) remote_host: Option<String>,
    pub(crate) remote_model: Option<String>,
}

impl Shown {
    /// The window that the model was trained with.
    pub(crate) fn trained(&self) -> Option<u32> {
        let arch = self.model_info.get("general.architecture")?.as_str()?;
        let length = self.model_info.get(&format!("{arch}.context_length"))?.as_u64()?;
        u32::try_from(length).ok().filter(|length| *length > 0)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Details {
    #[serde(deserialize_with = "or_default")]
    pub(crate) family: String,
}

/// Null is as good as missing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_is_read_as_the_server_reads_its_variable() {
        assert_eq!(KeepAlive::parse("300"), Ok(KeepAlive::Seconds(300)));
        assert_eq!(KeepAlive::parse("-1"), Ok(KeepAlive::Seconds(-1)));
        assert_eq!(KeepAlive::parse("1h30m"), Ok(KeepAlive::Text("1h30m".into())));
        for bad in ["", "10x", "m", "ten minutes"] {
            assert_eq!(KeepAlive::parse(bad), Err(KeepAliveError), "{bad:?}");
        }
    }

    #[test]
    fn nulls_and_unknown_fields_are_nothing_to_stumble_over() {
        let json = r#"{"models":[{"name":"a","digest":null,"details":{"families":null},"expires_at":"2318-01-01T00:00:00Z","x":1}]}"#;
        let models: Models = serde_json::from_str(json).unwrap();
        assert_eq!(models.models[0].name, "a");
        let none: Models = serde_json::from_str(r#"{"models":null}"#).unwrap();
        assert!(none.models.is_empty());
    }
}
