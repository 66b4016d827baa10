//! What a human reads of an incident.

use std::{collections::BTreeSet, time::Duration};

use logwarden_detectors::{Entity, EntityKind};

use crate::{
    Timestamp,
    decide::Policy,
    incident::{Incident, Prose, Status},
    message::{EvidenceView, IncidentView, OverView, ProseView, Untrusted},
};

/// Log lines older than this when they were read are said to be late.
const LATE: Duration = Duration::from_secs(3600);

/// The incident as messages and lists show it.
pub fn view(policy: &Policy, incident: &Incident) -> IncidentView {
    let prose = |prose: &Prose| ProseView { text: Untrusted::new(&*prose.text), model: prose.model.clone() };
    let origin = incident.cited.first().map(|cited| cited.scope.origin.clone()).unwrap_or_default();
    let there = incident.cited.iter().map(|cited| &cited.scope.origin).filter(|one| one.host == origin.host);
    let services: BTreeSet<_> = there.map(|one| &one.service).filter(|service| !service.is_empty()).collect();
    let link = incident.query.as_ref().zip(policy.links.as_ref()).and_then(|(query, links)| {
        let pad = Duration::from_secs(300);
        links(query, incident.first.minus(pad), incident.last.plus(pad))
    });
    let evidence: Vec<_> = incident
        .evidence
        .iter()
        .map(|line| EvidenceView { time: line.time, text: Untrusted::new(&*line.text) })
        .collect();
    // Two rules may have counted the same lines, or lines that are not this incident's.
    let counted = |entity: &Entity| Entity { count: entity.count.min(incident.count.max(1)), ..entity.clone() };
    // Who came last is shown, whether there was room in the list or not.
    let unlisted = || {
        let is = |one: &Entity, other: &Entity| one.kind == other.kind && one.value == other.value;
        incident.newcomers.iter().filter(move |new| !incident.entities.iter().any(|known| is(known, new)))
    };
    IncidentView {
        id: incident.id,
        severity: incident.rank.severity,
        category: incident.category,
        title: Untrusted::new(&*incident.title),
        host: Untrusted::new(&*origin.host),
        service: Untrusted::new(&*origin.service),
        other_services: u32::try_from(services.len().saturating_sub(1)).unwrap_or(u32::MAX),
        first: incident.first,
        last: incident.last,
        count: incident.count,
        // Where there are no lines at all, none are missing.
        evidence_omitted: match evidence.len() as u64 {
            0 => 0,
            shown => incident.count.saturating_sub(shown),
        },
        evidence,
        explanation: incident.explanation.as_ref().map(prose),
        comment: incident.comment.as_ref().map(prose),
        recommendation: incident.recommendation.as_ref().map(prose),
        entities: incident
            .entities
            .iter()
            .filter(|entity| entity.kind != EntityKind::Host)
            .chain(unlisted())
            .map(counted)
            .collect(),
        entities_omitted: incident.omitted_entities.count().saturating_sub(unlisted().count()) as u64,
        newcomers: incident.newcomers.clone(),
        claimed_by: incident.claimed_by.first().cloned().unwrap_or_default().replacen(':', " ", 1),
        link,
        seen_before: incident.before.map(|(_, last)| last),
        late_by_seconds: Some(incident.opened.since(incident.last))
            .filter(|late| *late >= LATE)
            .map(|late| late.as_secs()),
        merged_into: match incident.status {
            Status::Merged { into } => Some(into),
            Status::Firing | Status::Quiet { .. } => None,
        },
        over: match (incident.status, &incident.over) {
            (Status::Quiet { since }, Some(how)) => Some(OverView { at: since, how: Untrusted::new(&**how) }),
            _ => None,
        },
        mute: format!("{} mute {}", policy.program, incident.id.short()),
    }
}

/// The latest of the two times; for messages about several incidents.
pub(super) fn latest(times: impl Iterator<Item = Timestamp>) -> Timestamp {
    times.max().unwrap_or_default()
}
