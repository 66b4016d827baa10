//! Why somebody who waits for a message gets none: what was told, and when the next one comes.

use std::{fmt::Write as _, time::Duration};

use logwarden_config::ChannelConfig;
use logwarden_core::{
    Timestamp,
    decide::Policy,
    detectors::Route,
    incident::{Incident, Status},
    ledger::{OutboxState, Snapshot},
};
use logwarden_notifiers::text::Clean;

/// `2026-11-21 17:06Z`
pub(crate) fn minute(time: Timestamp) -> String {
    let text = time.to_string().replace('T', " ");
    format!("{}Z", text.get(..16).unwrap_or(&text))
}

/// The channels where a message about the incident waits, with the reason.
pub(crate) fn waiting(snapshot: &Snapshot, incident: &Incident, now: Timestamp) -> Vec<String> {
    let rows = snapshot.outbox.iter().map(|row| &row.row);
    let rows = rows.filter(|row| row.incident == incident.id && row.state.is_open());
    let mut lines: Vec<String> = rows
        .map(|row| {
            let channel = snapshot.channels.iter().map(|state| &state.row).find(|state| state.name == row.channel);
            let broken = channel.and_then(|state| state.broken.as_ref());
            let held = channel.map_or(Timestamp::MIN, |state| state.hold_until);
            let why = match (&row.state, broken) {
                (_, Some((reason, _))) => {
                    format!("waits, since the channel is broken: {}", Clean::line(reason).elided(200).as_str())
                }
                (OutboxState::Pending { next_at }, None) if (*next_at).max(held) > now => {
                    format!("waits; tried at {} or with the first pass after it", minute((*next_at).max(held)))
                }
                (OutboxState::Pending { .. }, None) => "waits for the next pass".to_owned(),
                (_, None) => "is being sent".to_owned(),
            };
            format!("{}: {why}", Clean::line(&row.channel).elided(40).as_str())
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

/// Why nobody is told of an incident that nothing holds back but itself: it is only listed.
fn only_listed(incident: &Incident) -> Option<&'static str> {
    const OLD: Duration = Duration::from_secs(3600);
    match incident.route {
        Route::Alert => None,
        Route::Digest if incident.over_budget => {
            Some("only listed: the day's budget of alerts is spent (alerts.per_day)")
        }
        Route::Digest if incident.touched.since(incident.last) >= OLD => {
            Some("only listed: its lines were over an hour old when they were read, and it is below high")
        }
        Route::Digest => Some("only listed: nothing tells yet that it is unusual"),
    }
}

/// Why no channel knows of an incident, to complete `it is …`; `channels` are those that are configured, where that is
/// known.
pub(crate) fn untold(channels: Option<&[ChannelConfig]>, incident: &Incident, waiting: &[String]) -> String {
    if let Some(listed) = only_listed(incident) {
        return listed.to_owned();
    }
    if !waiting.is_empty() {
        return format!("told to nobody yet: {}", waiting.join("; "));
    }
    let takes = |channel: &ChannelConfig| channel.min_severity <= incident.rank.severity;
    match channels {
        Some([]) => "told to nobody: no channel is configured, as far as this command sees".to_owned(),
        Some(channels) if !channels.iter().any(takes) => {
            let all: Vec<_> = channels
                .iter()
                .map(|channel| {
                    format!(
                        "{} takes {} and above",
                        Clean::line(&channel.name).elided(40).as_str(),
                        channel.min_severity
                    )
                })
                .collect();
            format!("told to nobody: {} (min_severity)", all.join(", "))
        }
        _ => "told to nobody yet: it is when it goes on".to_owned(),
    }
}

/// About one incident, which a mute holds back or not, and for which a message is `waiting` in some channels.
pub(crate) fn no_new_message(
    policy: &Policy,
    channels: Option<&[ChannelConfig]>,
    incident: &Incident,
    held: bool,
    waiting: &[String],
) -> String {
    let mut text = String::from("why no new message\n");
    if let Some(mute) = &incident.muted_by {
        let mute = Clean::line(mute).elided(40);
        let _ = match held {
            true => writeln!(text, "  it is muted by {}", mute.as_str()),
            false => writeln!(text, "  its mute {} has ended: it is told when it goes on", mute.as_str()),
        };
    } else if incident.told.is_empty() && !matches!(incident.status, Status::Merged { .. }) {
        let _ = writeln!(text, "  it is {}", untold(channels, incident, waiting));
    }
    for (channel, told) in &incident.told {
        let how = if told.own { "told" } else { "told by another host" };
        let channel = Clean::line(channel);
        let _ = writeln!(text, "  {}: {how} at {}", channel.elided(40).as_str(), minute(told.at));
    }
    if !incident.told.is_empty() || incident.muted_by.is_some() {
        for line in waiting {
            let _ = writeln!(text, "  {line}");
        }
    }
    match incident.status {
        Status::Quiet { since } => {
            let quiet = match &incident.over {
                Some(how) => format!("it is over since {}: {}", minute(since), Clean::line(how).elided(200).as_str()),
                None => format!("it is quiet: nothing of it was seen after {}", minute(incident.last)),
            };
            let _ = writeln!(text, "  {quiet}; when it comes again, that is a new incident and a new message");
        }
        Status::Merged { into } => {
            let _ = writeln!(text, "  it is part of {}, whose message tells of both", into.short());
        }
        Status::Firing if only_listed(incident).is_some() && incident.told.is_empty() => {
            let today = if incident.over_budget { ", or goes on tomorrow, and the day's summary names it" } else { "" };
            let _ = writeln!(text, "  it is told when it becomes high{today}");
        }
        Status::Firing if incident.told.is_empty() => {}
        Status::Firing => {
            let _ = writeln!(
                text,
                "  it goes on: what repeats is counted in that message ({} so far). A new one comes when it gets worse, as a\n  \
                 reminder after {}, or when it comes again after {} of quiet",
                incident.count,
                hours(policy.remind_after(incident.rank.severity)),
                hours(policy.window)
            );
        }
    }
    text
}

/// Below a list with something that goes on; `told` says whether somebody was told of it.
pub(crate) fn below_the_list(policy: &Policy, told: bool) -> String {
    if !told {
        return "\n`incidents ID` says more.\n".to_owned();
    }
    format!(
        "\ntold: once, in these channels; what repeats is counted in the same message. A new one comes when it gets worse, or\n\
         comes again after {} of quiet. `incidents ID` says more.\n",
        hours(policy.window)
    )
}

fn hours(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        seconds if seconds >= 60 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
