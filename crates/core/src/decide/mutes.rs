//! What is held back.

use crate::{
    Timestamp,
    finding::Cited,
    incident::Incident,
    ledger::{Mute, MuteMatch},
};

/// The first mute that holds `incident` back at `now`, if any.
pub fn muted_by<'a>(incident: &Incident, mutes: &'a [Mute], now: Timestamp) -> Option<&'a Mute> {
    mutes.iter().find(|mute| mute.until.is_none_or(|until| until > now) && matches(&mute.matches, incident))
}

/// Whether everything that `wanted` names fits `incident`. What names nothing fits nothing.
pub fn matches(wanted: &MuteMatch, incident: &Incident) -> bool {
    let id = |text: &str, of: String| text.len() >= 8 && of.starts_with(&text.to_ascii_lowercase());
    let any_cited = |test: &dyn Fn(&Cited) -> bool| incident.cited.iter().any(test);
    let tests = [
        wanted.incident.as_deref().map(|text| id(text, incident.id.to_string())),
        wanted.template.as_deref().map(|text| {
            any_cited(&|cited| {
                id(text, cited.root.to_string()) || cited.leaf.is_some_and(|leaf| id(text, leaf.to_string()))
            })
        }),
        wanted.rule.as_deref().map(|rule| {
            incident.claimed_by.iter().any(|by| by == rule || by.split_once(':').is_some_and(|(_, name)| name == rule))
        }),
        wanted.host.as_deref().map(|host| any_cited(&|cited| &*cited.scope.origin.host == host)),
        wanted.service.as_deref().map(|service| any_cited(&|cited| &*cited.scope.origin.service == service)),
        wanted
            .text
            .as_deref()
            .map(|text| incident.title.contains(text) || incident.evidence.iter().any(|line| line.text.contains(text))),
    ];
    tests.iter().any(Option::is_some) && tests.into_iter().flatten().all(|fits| fits)
}
