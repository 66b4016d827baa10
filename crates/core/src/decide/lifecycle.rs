//! What time alone changes: incidents become quiet, mutes run out, and what goes on is told again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use logwarden_detectors::Route;

use crate::{
    Timestamp,
    decide::{Policy, ago, book::Book},
    incident::{Incident, Status},
    ledger::{Snapshot, Write},
    source::SourceId,
};

/// Ends what has been quiet for a window, tells what is no longer muted, and reminds of what goes on.
///
/// Silence counts only up to `read_at`, the time of the latest successful read of the source: while a source cannot be
/// read, its incidents neither end nor go on.
pub fn tick(
    policy: &Policy,
    snapshot: &Snapshot,
    source: &SourceId,
    read_at: Option<Timestamp>,
    now: Timestamp,
) -> Vec<Write> {
    let Some(mut book) = Book::open(policy, snapshot, source.clone(), now) else { return Vec::new() };
    let known_until = read_at.map_or(Timestamp::MIN, |read| read.min(now));
    let (mut quiet, mut muted) = (Vec::new(), Vec::new());
    let mut reminders: BTreeMap<_, Vec<Arc<str>>> = BTreeMap::new();
    for incident in book.firing().filter(|incident| incident.source == *source) {
        let set_back = ago(now, incident.touched) == Duration::MAX;
        if set_back || known_until.since(incident.touched) >= policy.window {
            quiet.push(incident.id);
        } else if incident.muted_by.is_some() {
            muted.push(incident.id);
        } else if incident.route == Route::Alert {
            let due: Vec<_> =
                book.idle_channels(incident).into_iter().filter(|name| is_due(policy, incident, name, now)).collect();
            if !due.is_empty() {
                reminders.insert(incident.id, due);
            }
        }
    }
    for id in quiet {
        book.quiet(id);
    }
    for id in muted {
        book.tell_if_unmuted(id);
    }
    for (id, channels) in reminders {
        book.remind(id, &channels);
    }
    book.close()
}

/// Whether a channel that was told of `incident` is to be told again: it still occurs, and that was long ago.
fn is_due(policy: &Policy, incident: &Incident, channel: &Arc<str>, now: Timestamp) -> bool {
    incident.status == Status::Firing
        && incident.told.get(channel).is_some_and(|told| {
            let set_back = ago(now, told.at) == Duration::MAX;
            (incident.touched > told.at || set_back) && ago(now, told.at) >= policy.remind_after(incident.rank.severity)
        })
}
