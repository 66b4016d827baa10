//! A message as Discord shows it: one line of ours as `content`, the rest in one embed.

use logwarden_core::{
    message::{Body, IncidentView, Message, Notice, Occasion, ProseView, Rollup, SummaryView},
    notifier::Form,
};
use serde::Serialize;

use crate::{
    story::{self, Evidence, Said},
    text::{Clean, Code, DiscordMarkdown, Link, Plain, Safe},
    words::{self, Tone},
};

type Text = Safe<DiscordMarkdown>;

/// Discord allows 256.
const TITLE: usize = 230;
/// Discord allows 4,096.
const DESCRIPTION: usize = 3_900;
/// Discord allows 1,024.
const FIELD: usize = 300;
/// Discord allows 2,048.
const FOOTER: usize = 200;
/// Discord allows 6,000 over title, description, fields and footer.
const TOTAL: usize = 5_700;
/// A longer link leads from the title only.
const LONGEST_INLINE_LINK: usize = 700;

/// What is posted.
#[derive(Debug, Serialize)]
pub(crate) struct Payload {
    content: Text,
    embeds: [Embed; 1],
    allowed_mentions: AllowedMentions,
}

/// Nobody. Must be in every request: an edit without it falls back to Discord's default.
#[derive(Debug, Serialize)]
struct AllowedMentions {
    parse: [&'static str; 0],
}

#[derive(Debug, Serialize)]
struct Embed {
    title: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Link>,
    #[serde(skip_serializing_if = "Text::is_empty")]
    description: Text,
    color: u32,
    timestamp: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Field>,
    footer: Footer,
}

#[derive(Debug, Serialize)]
struct Field {
    name: &'static str,
    value: Text,
    inline: bool,
}

#[derive(Debug, Serialize)]
struct Footer {
    text: Safe<Plain>,
}

/// The payload of a message, and how often something was shortened to fit.
pub(crate) fn payload(message: &Message, form: Form, program: &str) -> (Payload, u32) {
    let tone = Tone::of(message);
    let mut content = Text::new();
    content.ours(tone.emoji()).ours(" ").words(&words::headline(message));
    let mut embed = match form {
        Form::Full => full(message, program),
        Form::Reduced => reduced(message, program),
    };
    embed.color = tone.color();
    let cuts = embed.title.cuts()
        + embed.description.cuts()
        + embed.footer.text.cuts()
        + embed.fields.iter().map(|field| field.value.cuts()).sum::<u32>();
    (Payload { content, embeds: [embed], allowed_mentions: AllowedMentions { parse: [] } }, cuts)
}

fn blank(message: &Message) -> Embed {
    let mut footer = Safe::new();
    footer.words(&words::program());
    Embed {
        title: Text::new(),
        url: None,
        description: Text::new(),
        color: 0,
        timestamp: words::iso(message.at),
        fields: Vec::new(),
        footer: Footer { text: footer },
    }
}

/// Our own words only.
fn reduced(message: &Message, program: &str) -> Embed {
    let mut embed = blank(message);
    embed.title.words(&words::headline(message));
    embed
        .description
        .ours("Discord refused the details. They are in the list: ")
        .words(&words::list(program))
        .ours(".");
    if let Body::Incidents { incidents, .. } = &message.body {
        embed.url = link(incidents);
        let mut footer = Safe::new();
        footer.words(&words::ids(incidents)).ours(" · ").words(&words::program());
        embed.footer.text = footer;
    }
    embed
}

fn full(message: &Message, program: &str) -> Embed {
    match &message.body {
        Body::Incidents { occasion, incidents, summary } => {
            incidents_embed(message, *occasion, incidents, summary.as_ref(), program)
        }
        Body::Rollup(rollup) => rollup_embed(message, rollup, program),
        Body::Notice(notice) => notice_embed(message, notice),
        Body::Summary(summary) => summary_embed(message, summary),
    }
}

fn link(incidents: &[IncidentView]) -> Option<Link> {
    incidents.iter().find_map(|incident| Link::new(incident.link.as_deref()?))
}

fn incidents_embed(
    message: &Message,
    occasion: Occasion,
    incidents: &[IncidentView],
    summary: Option<&SummaryView>,
    program: &str,
) -> Embed {
    let mut embed = blank(message);
    let Some(worst) = incidents.first() else { return reduced(message, program) };
    embed.url = link(incidents);
    embed.timestamp = words::iso(incidents.iter().map(|incident| incident.last).max().unwrap_or(message.at));

    let severity = message.severity().unwrap_or(worst.severity);
    embed.title.words(&words::subject(occasion, severity, incidents)).ours(": ");
    let room = TITLE.saturating_sub(embed.title.units());
    embed.title.text(&story::headline(occasion, worst), room);

    embed.fields = fields(incidents);
    embed.footer.text = footer(incidents);
    let taken = embed.title.units() + embed.footer.text.units() + field_units(&embed.fields);
    let budget = DESCRIPTION.min(TOTAL.saturating_sub(taken));
    embed.description = description(message, occasion, incidents, summary, embed.url.as_ref(), budget);
    embed
}

fn field_units(fields: &[Field]) -> usize {
    fields.iter().map(|field| field.name.len() + field.value.units()).sum()
}

fn description(
    message: &Message,
    occasion: Occasion,
    incidents: &[IncidentView],
    summary: Option<&SummaryView>,
    link: Option<&Link>,
    budget: usize,
) -> Text {
    let mut text = Text::new();
    course(&mut text, message, occasion, incidents);
    for remark in words::remarks(message, occasion, incidents) {
        text.ours("\n").words(&remark);
    }
    let worst = &incidents[0];
    prose(&mut text, "\n**Why:** ", worst.explanation.as_ref(), 700);
    prose(&mut text, "\n**Also:** ", worst.comment.as_ref(), 600);

    let mut after = Text::new();
    if words::needs_advice(occasion, incidents) {
        prose(&mut after, "\n**Do this first:** ", worst.recommendation.as_ref(), 300);
    }
    if let Some(link) = link.filter(|link| link.as_str().len() <= LONGEST_INLINE_LINK) {
        after.ours("\n").link("Open in Grafana", link);
    }
    if occasion != Occasion::Merged {
        // The fence and what stands around it take 60.
        let room = budget.saturating_sub(text.units() + after.units() + 60).min(2_600);
        evidence(&mut text, incidents, room);
    }
    text.push(&after);
    if let Some(summary) = summary
        && let room = budget.saturating_sub(text.units()).min(500)
        && room > 250
    {
        prose(&mut text, "\n**Meanwhile:** ", Some(&summary.text), room - 150);
    }
    text
}

/// Since when, how often, still going on; in the reader's own time zone.
fn course(text: &mut Text, message: &Message, occasion: Occasion, incidents: &[IncidentView]) {
    let first = incidents.iter().map(|incident| incident.first).min().unwrap_or(message.at);
    let last = incidents.iter().map(|incident| incident.last).max().unwrap_or(message.at);
    let events = words::amount(words::total(incidents), "event", "events");
    let ended = incidents.iter().filter_map(|incident| incident.over.as_ref()).map(|over| over.at).max();
    if let (Occasion::Quiet, Some(ended)) = (occasion, ended) {
        text.ours("It lasted **").words(&words::span(ended.since(first))).ours("**, from ");
        text.words(&words::discord_time(first, 'F')).ours(" until ").words(&words::discord_time(ended, 't')).ours(".");
        return;
    }
    if occasion == Occasion::Quiet {
        text.ours("No new events since ").words(&words::discord_time(last, 'F'));
        text.ours(words::unsolved(occasion, incidents)).ours(". ");
    }
    text.ours("**").words(&events).ours("**");
    if last.since(first).as_secs() >= 2 {
        text.ours(" in ").words(&words::span(last.since(first)));
    }
    text.ours(": first ").words(&words::discord_time(first, 'F'));
    text.ours(", last ").words(&words::discord_time(last, 'R')).ours(words::goes_on(occasion, incidents, message.at));
}

/// Words with their author. A rule's own words may show commands as code; a model's never look like ours.
fn prose(text: &mut Text, label: &'static str, prose: Option<&ProseView>, units: usize) {
    let Some(said) = Said::of(prose) else { return };
    text.ours(label);
    match &said.model {
        None => with_code(text, &said.text, units),
        Some(model) => {
            text.text(&said.text, units);
            text.ours(" *(words of the model ").text(model, 60).ours(", unverified)*");
        }
    }
}

/// Shows what stands between backticks as code, if they come in pairs.
fn with_code(text: &mut Text, words: &Clean, units: usize) {
    let Some(parts) = words.code_parts() else {
        text.text(words, units);
        return;
    };
    let end = text.units() + units;
    for (is_code, part) in parts {
        let room = end.saturating_sub(text.units());
        if room < 8 {
            text.cut();
            return;
        }
        if is_code {
            text.code(&part, room);
        } else {
            text.text(&part, room);
        }
    }
}

fn evidence(text: &mut Text, incidents: &[IncidentView], room: usize) {
    let chosen = Evidence::of(incidents, story::MOST_LINES);
    let mut code = Safe::<Code>::new();
    let mut dropped = 0;
    for line in &chosen.lines {
        let left = room.saturating_sub(code.units() + 1);
        if left < 40 {
            dropped += 1;
            code.cut();
            continue;
        }
        code.line(line, left);
    }
    if !code.is_empty() {
        text.ours("\n").fence(&code);
    }
    let omitted = chosen.omitted.saturating_add(dropped);
    if omitted > 0 {
        text.ours("\n… and ").words(&words::amount(omitted, "more event", "more events"));
    }
}

fn fields(incidents: &[IncidentView]) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut add = |name, value: Text, inline| {
        if !value.is_empty() {
            fields.push(Field { name, value, inline });
        }
    };
    let worst = &incidents[0];
    let mut hosts = Text::new();
    const MOST_HOSTS: usize = 5;
    for (i, (host, count)) in story::hosts(incidents, MOST_HOSTS).iter().enumerate() {
        hosts.ours(if i == 0 { "" } else { ", " }).code(host, 40);
        if incidents.len() > 1 {
            hosts.ours(" (").words(&words::number(*count)).ours(")");
        }
    }
    hosts.words(&words::more(incidents.len().saturating_sub(MOST_HOSTS) as u64));
    add(if incidents.len() > 1 { "Hosts" } else { "Host" }, hosts, incidents.len() == 1);
    let mut service = Text::new();
    service.code(&Clean::line(worst.service.raw()), 80).words(&words::other_services(worst));
    add("Service", service, true);
    let mut kind = Text::new();
    kind.words(&words::kind(worst.category));
    add("Kind", kind, true);
    for group in story::groups(incidents).into_iter().take(4) {
        let mut value = Text::new();
        let mut more = group.more;
        for (i, (member, times)) in group.members.iter().enumerate() {
            if value.units() > FIELD - 100 {
                more = more.saturating_add((group.members.len() - i) as u64);
                break;
            }
            value.ours(if i == 0 { "" } else { ", " }).code(member, 64).words(times);
        }
        value.words(&words::more(more));
        add(group.label, value, false);
    }
    let mut claimed = Text::new();
    claimed.text(&Clean::line(&worst.claimed_by), 120);
    add("Found by", claimed, true);
    fields
}

fn footer(incidents: &[IncidentView]) -> Safe<Plain> {
    let mut footer = Safe::new();
    footer.words(&words::ids(incidents)).ours(" · ").words(&words::program());
    let mute = story::mute(incidents);
    if !mute.is_empty() {
        footer.ours(" · mute: ").text(&mute, FOOTER - 100);
    }
    footer
}

fn rollup_embed(message: &Message, rollup: &Rollup, program: &str) -> Embed {
    let mut embed = blank(message);
    embed.title.words(&words::headline(message));
    let text = &mut embed.description;
    text.ours("Too many incidents for one message each. From ").words(&words::discord_time(rollup.from, 'F'));
    text.ours(" to ").words(&words::discord_time(rollup.to, 'T')).ours(". **");
    text.words(&words::amount(rollup.suppressed, "message", "messages")).ours(" will not be sent** beside this one.");
    if message.possible_repeat {
        text.ours(" You may have got this already.");
    }
    let most = 10;
    for incident in rollup.top.iter().take(most) {
        text.ours("\n")
            .ours(Tone::Severity(incident.severity).emoji())
            .ours(" **")
            .ours(words::shout(incident.severity));
        text.ours("** ").words(&words::place(std::slice::from_ref(incident))).ours(": ");
        text.text(&story::title(incident), 140).ours(" · ").words(&words::amount(incident.count, "event", "events"));
        text.ours(" · ").words(&words::id(incident.id));
    }
    text.ours("\nAll of them: ").words(&words::list(program));
    embed.url = link(&rollup.top);
    embed
}

fn notice_embed(message: &Message, notice: &Notice) -> Embed {
    let mut embed = blank(message);
    embed.title.ours(words::shout(notice.severity)).ours(" ").text(&Clean::line(&notice.title), TITLE - 10);
    if message.possible_repeat {
        embed.description.ours("You may have got this already.\n");
    }
    let mut steps = Safe::<Code>::new();
    for step in notice.next_steps.iter().take(8) {
        steps.line(&Clean::log_line(step), 200);
    }
    for (i, (label, value)) in notice.facts.iter().take(12).enumerate() {
        embed.description.ours(if i == 0 { "**" } else { "\n**" }).text(&Clean::line(label), 40).ours(":** ");
        embed.description.code(&Clean::log_line(value.raw()).elided(180), 180);
    }
    if !steps.is_empty() {
        embed.description.ours("\n**Do this:**\n").fence(&steps);
    }
    embed
}

fn summary_embed(message: &Message, summary: &SummaryView) -> Embed {
    let mut embed = blank(message);
    embed.title.words(&words::headline(message));
    embed.description.ours("From ").words(&words::discord_time(summary.from, 'F'));
    embed.description.ours(" to ").words(&words::discord_time(summary.to, 'F')).ours(".");
    prose(&mut embed.description, "\n", Some(&summary.text), 3_000);
    embed
}
