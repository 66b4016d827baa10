//! What is held back.
//!
//! A mute holds back whole incidents: each is asked once, when it begins or when the mute is made. It ends early for an
//! incident that becomes worse or changes its shape, and a mute of one incident then ends altogether.

use logwarden_detectors::Severity;

use crate::{
    Timestamp,
    finding::Cited,
    incident::{Incident, IncidentId, Status},
    ledger::{Mute, MuteMatch, Snapshot, Versioned, Write},
};

/// The mute that holds `incident` back at `now`, if any: one that matches it, or the one that held back the incident before
/// it about the same thing. A mute no longer holds what has become worse, or another thing, since.
pub fn holding<'a>(incident: &Incident, mutes: impl IntoIterator<Item = &'a Mute>, now: Timestamp) -> Option<&'a Mute> {
    mutes.into_iter().find(|mute| {
        let inherited = || mute.matches.incident.is_some() && incident.muted_by.as_ref() == Some(&mute.id);
        is_active(mute, now)
            && incident.outgrown.as_ref() != Some(&mute.id)
            && (matches(&mute.matches, incident) || inherited())
    })
}

/// Whether it has not run out.
pub fn is_active(mute: &Mute, now: Timestamp) -> bool {
    mute.until.is_none_or(|until| until > now)
}

/// What a new mute changes: it is kept in the place of those for the very same, and the incidents that go on are held back
/// from now on.
pub fn begin(snapshot: &Snapshot, mute: &Mute) -> Vec<Write> {
    let same = snapshot.mutes.iter().filter(|known| known.matches == mute.matches && known.id != mute.id);
    let replaced: Vec<&String> = same.map(|known| &known.id).collect();
    let mut writes = vec![Write::Mute(mute.clone())];
    writes.extend(replaced.iter().map(|id| Write::Unmute((*id).clone())));
    let held = snapshot.incidents.values().filter(|incident| {
        let row = &incident.row;
        row.status == Status::Firing
            && match &row.muted_by {
                Some(by) => replaced.contains(&by),
                None => matches(&mute.matches, row),
            }
    });
    writes.extend(held.map(|incident| {
        let row = Incident { muted_by: Some(mute.id.clone()), ..incident.row.clone() };
        Write::Incident(Box::new(Versioned { version: incident.version, row }))
    }));
    writes
}

/// Whether a detector claims it, and it is so bad that hiding it should be thought over.
pub fn is_grave(incident: &Incident) -> bool {
    incident.rank.detector && incident.rank.severity >= Severity::High
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
        wanted.label.as_deref().map(|label| {
            label.split_once('=').is_some_and(|(name, value)| {
                incident.labels.get(name.trim()).is_some_and(|known| known == value.trim().trim_matches('"'))
            })
        }),
        wanted
            .text
            .as_deref()
            .map(|text| incident.title.contains(text) || incident.evidence.iter().any(|line| line.text.contains(text))),
    ];
    tests.iter().any(Option::is_some) && tests.into_iter().flatten().all(|fits| fits)
}
