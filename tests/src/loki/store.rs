//! The lines of a fake Loki: a set per stream and tenant.

use std::collections::BTreeMap;

/// Label names and values.
pub type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) time: i64,
    pub(super) text: String,
    pub(super) metadata: Labels,
}

/// Streams by tenant and labels; entries sorted by time, in order of arrival where equal.
#[derive(Debug, Default)]
pub(super) struct Store {
    tenants: BTreeMap<String, BTreeMap<Labels, Vec<Entry>>>,
}

impl Store {
    pub(super) fn insert(&mut self, tenant: &str, mut labels: Labels, time: i64, text: String, mut metadata: Labels) {
        let service = ["service_name", "job", "app", "container"].iter().find_map(|name| labels.get(*name).cloned());
        labels.entry("service_name".into()).or_insert(service.unwrap_or_else(|| "unknown_service".into()));
        metadata.entry("detected_level".into()).or_insert_with(|| level(&text).to_owned());
        let stream = self.tenants.entry(tenant.to_owned()).or_default().entry(labels).or_default();
        let at = stream.partition_point(|entry| entry.time <= time);
        let entry = Entry { time, text, metadata };
        if !stream[..at].iter().rev().take_while(|e| e.time == time).any(|e| *e == entry) {
            stream.insert(at, entry);
        }
    }

    pub(super) fn streams(&self, tenant: &str) -> impl Iterator<Item = (&Labels, &[Entry])> {
        self.tenants
            .get(tenant)
            .into_iter()
            .flatten()
            .filter(|(_, e)| !e.is_empty())
            .map(|(l, entries)| (l, entries.as_slice()))
    }

    pub(super) fn forget_before(&mut self, time: i64) {
        for stream in self.tenants.values_mut().flat_map(BTreeMap::values_mut) {
            stream.retain(|entry| entry.time >= time);
        }
    }
}

/// The entries with `start <= time < end`.
pub(super) fn between(entries: &[Entry], start: i64, end: i64) -> &[Entry] {
    let from = entries.partition_point(|entry| entry.time < start);
    let to = entries.partition_point(|entry| entry.time < end);
    entries.get(from..to).unwrap_or_default()
}

/// What Loki calls `detected_level`, for the usual words.
fn level(text: &str) -> &'static str {
    let lower = text.to_ascii_lowercase();
    ["error", "warn", "info", "debug", "critical", "fatal"]
        .into_iter()
        .find(|level| lower.contains(&format!("level={level}")) || lower.contains(&format!("[{level}]")))
        .unwrap_or("unknown")
}
