//! Which model: the one that was named, or the best installed one of a list; never one that runs elsewhere unasked.

use crate::{
    refusal::Refusal,
    wire::{Entry, Shown, Think},
};

/// Models that we recommend, best first. A name stands for its variants, too.
pub const RECOMMENDED: &[&str] = &[
    "qwen3:4b-instruct",
    "qwen3.5:9b",
    "gpt-oss:20b",
    "qwen3.5:4b",
    "gemma4",
    "granite4.1:8b",
    "granite4.1:3b",
    "llama3.1:8b",
    "gemma2:9b",
];

/// A model that will be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) capabilities: Vec<String>,
    pub(crate) family: String,
    pub(crate) trained: Option<u32>,
}

impl Model {
    pub(crate) fn new(entry: &Entry, shown: Shown) -> Self {
        Self {
            trained: shown.trained(),
            name: entry.name.clone(),
            digest: entry.digest.clone(),
            // Servers that do not say have no thinking models.
            capabilities: shown.capabilities.unwrap_or_default(),
            family: shown.details.family,
        }
    }

    pub(crate) fn thinks(&self) -> bool {
        self.capabilities.iter().any(|capability| capability == "thinking")
    }

    /// What to say about thinking. A harmony model that is told not to think answers nothing at all.
    pub(crate) fn think(&self) -> Option<Think> {
        let harmony = matches!(self.family.as_str(), "gptoss" | "gpt-oss") || self.name.starts_with("gpt-oss");
        match self.thinks() {
            _ if harmony => Some(Think::Level("low")),
            true => Some(Think::Switch(false)),
            false => None,
        }
    }
}

/// Whether a model of this name runs elsewhere.
pub(crate) fn is_cloud_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(":cloud") || name.ends_with("-cloud")
}

/// The refusal of a model that runs elsewhere, unless it was allowed by name.
pub(crate) fn refuse_cloud(name: &str, remote: Option<&str>, allowed: Option<&str>) -> Result<(), Refusal> {
    if (remote.is_none() && !is_cloud_name(name)) || allowed.is_some_and(|allowed| same(allowed, name)) {
        return Ok(());
    }
    let place = remote.map_or_else(|| "elsewhere".to_owned(), |host| format!("at {}", crate::refusal::quoted(host)));
    Err(Refusal::Hinted {
        reason: format!(
            "model `{name}` runs {place}: log lines would leave this machine, and it ignores the answer's form"
        ),
        hint: "choose a local model, or name it in `model.allow_cloud` if that is what you want",
    })
}

/// Whether two names are the same model: case does not matter, and no tag is `latest`.
pub(crate) fn same(a: &str, b: &str) -> bool {
    let full = |name: &str| {
        if name.contains(':') { name.to_ascii_lowercase() } else { format!("{name}:latest").to_ascii_lowercase() }
    };
    full(a) == full(b)
}

/// The installed model to use.
pub(crate) fn choose<'a>(installed: &'a [Entry], wanted: Option<&str>) -> Option<&'a Entry> {
    if let Some(name) = wanted {
        let name = name.strip_suffix(":local").unwrap_or(name);
        return installed.iter().find(|entry| same(&entry.name, name));
    }
    let local =
        |entry: &&Entry| entry.remote_host.is_none() && entry.remote_model.is_none() && !is_cloud_name(&entry.name);
    RECOMMENDED.iter().find_map(|name| {
        let variant = |entry: &&Entry| match entry.name.to_ascii_lowercase().strip_prefix(name) {
            Some(rest) => rest.is_empty() || rest.starts_with(':') || (rest.starts_with('-') && name.contains(':')),
            None => false,
        };
        installed.iter().filter(local).find(variant)
    })
}

/// The name to pull for a machine with so many bytes of memory and of memory on a GPU.
pub(crate) fn fitting(ram: u64, gpu: u64) -> &'static str {
    const GIB: u64 = 1 << 30;
    match (ram / GIB, gpu / GIB) {
        (_, 15..) => "gpt-oss:20b",
        (_, 8..) => "qwen3.5:9b",
        (7.., _) | (_, 5..) => "qwen3:4b-instruct",
        _ => "granite4.1:3b",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(names: &[&str]) -> Vec<Entry> {
        names.iter().map(|name| Entry { name: (*name).to_owned(), ..Entry::default() }).collect()
    }

    #[test]
    fn the_best_recommended_one_is_chosen_in_any_variant_and_none_of_the_cloud() {
        let cases: &[(&[&str], Option<&str>, Option<&str>)] = &[
            (&["llama3.1:8b", "qwen3:4b-instruct-2507-q4_K_M"], None, Some("qwen3:4b-instruct-2507-q4_K_M")),
            (&["gemma4:latest", "tinyllama:latest"], None, Some("gemma4:latest")),
            (&["gpt-oss:20b-cloud"], None, None),
            (&["qwen3.5:397b", "mistral:latest"], None, None),
            (&["mistral:latest"], Some("Mistral"), Some("mistral:latest")),
            (&["mistral:7b"], Some("mistral"), None),
            (&["mistral:7b"], Some("mistral:7b:local"), Some("mistral:7b")),
        ];
        for (names, wanted, expected) in cases {
            let installed = installed(names);
            assert_eq!(choose(&installed, *wanted).map(|entry| entry.name.as_str()), *expected, "{names:?}");
        }
    }

    #[test]
    fn thinking_is_answered_by_what_the_model_is() {
        let model = |family: &str, capabilities: &[&str]| Model {
            name: "m".into(),
            digest: String::new(),
            capabilities: capabilities.iter().map(|&capability| capability.into()).collect(),
            family: family.into(),
            trained: None,
        };
        assert_eq!(model("qwen3", &["completion"]).think(), None);
        assert_eq!(model("qwen3", &["completion", "thinking"]).think(), Some(Think::Switch(false)));
        assert_eq!(model("gptoss", &["completion", "thinking"]).think(), Some(Think::Level("low")));
    }

    #[test]
    fn the_model_to_pull_fits_the_machine() {
        let gib = |n: u64| n << 30;
        assert_eq!(fitting(gib(4), 0), "granite4.1:3b");
        assert_eq!(fitting(gib(8) - (200 << 20), 0), "qwen3:4b-instruct");
        assert_eq!(fitting(gib(16), 0), "qwen3:4b-instruct");
        assert_eq!(fitting(gib(32), gib(12)), "qwen3.5:9b");
        assert_eq!(fitting(gib(32), gib(16)), "gpt-oss:20b");
    }
}
