//! What is held back.

use crate::{
    Timestamp,
    finding::Cited,
    incident::{Incident, IncidentId},
    ledger::{Mute, MuteMatch},
};

/// The mute that holds `incident` back at `now`, if any: one that matches it, or the one that held back the incident before
/// it about the same thing. A mute no longer holds what has become worse since.
pub fn holding<'a>(incident: &Incident, mutes: &'a [Mute], now: Timestamp) -> Option<&'a Mute> {
    mutes.iter().find(|mute| {
        let inherited = || mute.matches.incident.is_some() && incident.muted_by.as_ref() == Some(&mute.id);
        mute.until.is_none_or(|until| until > now)
            && incident.outgrown.as_ref() != Some(&mute.id)
            && (matches(&mute.matches, incident) || inherited())
    })
}

/// Whether everything that `wanted` names fits `incident`. What names nothing fits nothing.
pub fn matches(wanted: &MuteMatch, incident: &Incident) -> bool {
    let id = |text: &str, of: String| text.len() >= 8 && of.starts_with(&text.to_ascii_lowercase());
    let any_cited = |test: &dyn Fn(&Cited) -> bool| incident.cited.iter().any(test);
    let before = incident.before.map(|(before, _)| before);
    let tests = [
        wanted.incident.as_deref().map(|text| {
            let is = |this: IncidentId| id(text, this.to_string());
            is(incident.id) || before.is_some_and(is)
        }),
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
