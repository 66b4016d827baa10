//! Why somebody who waits for a message gets none: what was told, and when the next one comes.

use std::{fmt::Write as _, time::Duration};

use logwarden_core::{
    decide::Policy,
    detectors::Route,
    incident::{Incident, Status},
};
use logwarden_notifiers::text::Clean;

/// About one incident.
pub(crate) fn no_new_message(policy: &Policy, incident: &Incident) -> String {
    let minute = |time: logwarden_core::Timestamp| {
        let text = time.to_string().replace('T', " ");
        format!("{}Z", text.get(..16).unwrap_or(&text))
    };
    let mut text = String::from("why no new message\n");
    if let Some(mute) = &incident.muted_by {
        let _ = writeln!(text, "  it is muted by {}", Clean::line(mute).elided(40).as_str());
    }
    match incident.status {
        Status::Quiet { .. } => {
            text.push_str("  it is over; when it comes again, that is a new incident and a new message\n")
        }
        Status::Merged { into } => {
            let _ = writeln!(text, "  it is part of {}, whose message tells of both", into.short());
        }
        Status::Firing if incident.route == Route::Digest => {
            text.push_str("  it is only listed: nothing tells yet that it is unusual\n");
        }
        Status::Firing => {
            for (channel, told) in &incident.told {
                let how = if told.own { "told" } else { "told by another host" };
                let channel = Clean::line(channel);
                let _ = writeln!(text, "  {}: {how} at {}", channel.elided(40).as_str(), minute(told.at));
            }
            if incident.told.is_empty() && incident.muted_by.is_none() {
                text.push_str("  no channel has taken it yet\n");
            }
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

/// Below a list with something that goes on.
pub(crate) fn below_the_list(policy: &Policy) -> String {
    format!(
        "\nfiring: told once; what repeats is counted in the same message. A new one comes when it gets worse, or comes again\n\
         after {} of quiet. `incidents ID` says more.\n",
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
