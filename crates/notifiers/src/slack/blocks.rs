//! A message as Slack shows it: header, facts, words and lines as rich text (which is data, never markup), context.

use logwarden_core::{
    message::{Body, IncidentView, Message, Notice, Occasion, ProseView, Rollup, SummaryView},
    notifier::Form,
};
use serde::Serialize;

use crate::{
    story::{self, Evidence, Said},
    text::{Clean, Data, Link, Mrkdwn, Plain, Safe},
    words::{self, Tone, Words},
};

/// Slack allows 150.
const HEADER: usize = 140;
/// Slack advises 4,000.
const FALLBACK: usize = 300;
/// Slack allows 3,000.
const SECTION: usize = 2_900;
/// Slack allows 3,000 in a section; all blocks together stay far below the 11,000 where it has refused messages.
const EVIDENCE: usize = 2_600;

/// What is posted.
#[derive(Debug, Serialize)]
pub(crate) struct Payload {
    text: Safe<Mrkdwn>,
    blocks: Vec<Block>,
    unfurl_links: bool,
    unfurl_media: bool,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Header { text: PlainText },
    Section { text: Markup },
    Context { elements: [Markup; 1] },
    RichText { elements: Vec<Rich> },
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "plain_text")]
struct PlainText {
    text: Safe<Plain>,
    emoji: bool,
}

/// `verbatim`: nothing that looks like a link or a name becomes one.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "mrkdwn")]
struct Markup {
    text: Safe<Mrkdwn>,
    verbatim: bool,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type")]
enum Rich {
    #[serde(rename = "rich_text_section")]
    Section { elements: Vec<Run> },
    #[serde(rename = "rich_text_preformatted")]
    Preformatted { elements: Vec<Run> },
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Run {
    Text {
        text: Safe<Data>,
        #[serde(skip_serializing_if = "Option::is_none")]
        style: Option<Style>,
    },
    Link {
        url: Link,
        text: &'static str,
    },
}

#[derive(Debug, Serialize)]
struct Style {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    bold: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    italic: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    code: bool,
}

const BOLD: Style = Style { bold: true, italic: false, code: false };
const ITALIC: Style = Style { bold: false, italic: true, code: false };
const CODE: Style = Style { bold: false, italic: false, code: true };

/// The payload of a message, and how often something was shortened to fit.
pub(crate) fn payload(message: &Message, form: Form, program: &str) -> (Payload, u32) {
    let mut page = Page { text: Safe::new(), blocks: Vec::new(), cuts: 0, program };
    match form {
        Form::Full => page.full(message),
        Form::Reduced => page.reduced(message),
    }
    let cuts = page.cuts + page.text.cuts();
    (Payload { text: page.text, blocks: page.blocks, unfurl_links: false, unfurl_media: false }, cuts)
}

/// A message under construction.
struct Page<'a> {
    text: Safe<Mrkdwn>,
    blocks: Vec<Block>,
    cuts: u32,
    program: &'a str,
}

impl Page<'_> {
    fn header(&mut self, tone: Tone, ours: &Words, title: Option<&Clean>) {
        let mut text = Safe::new();
        text.ours(tone.emoji()).ours(" ").text(&Clean::line(ours.as_str()), HEADER - 3);
        self.text.ours(tone.emoji()).ours(" ").words(ours);
        if let Some(title) = title {
            text.ours(": ");
            let room = HEADER.saturating_sub(text.units());
            text.text(title, room);
            self.text.ours(": ").text(title, FALLBACK - HEADER);
        }
        self.cuts += text.cuts();
        self.blocks.push(Block::Header { text: PlainText { text, emoji: false } });
    }

    fn section(&mut self, text: Safe<Mrkdwn>) {
        if !text.is_empty() {
            self.cuts += text.cuts();
            self.blocks.push(Block::Section { text: Markup { text, verbatim: true } });
        }
    }

    fn context(&mut self, text: Safe<Mrkdwn>) {
        self.cuts += text.cuts();
        self.blocks.push(Block::Context { elements: [Markup { text, verbatim: true }] });
    }

    fn rich(&mut self, elements: Vec<Rich>) {
        if !elements.is_empty() {
            let runs = elements.iter().flat_map(|element| match element {
                Rich::Section { elements } | Rich::Preformatted { elements } => elements,
            });
            self.cuts += runs.map(|run| if let Run::Text { text, .. } = run { text.cuts() } else { 0 }).sum::<u32>();
            self.blocks.push(Block::RichText { elements });
        }
    }

    /// Our own words only.
    fn reduced(&mut self, message: &Message) {
        self.header(Tone::of(message), &words::headline(message), None);
        let mut text = Safe::<Mrkdwn>::new();
        text.ours("Slack refused the details. They are in the list: ").words(&words::list(self.program)).ours(".");
        if let Body::Incidents { incidents, .. } = &message.body
            && let Some(link) = link(incidents)
        {
            text.ours(" ").link("Open in Grafana", &link);
        }
        self.section(text);
        let mut context = Safe::<Mrkdwn>::new();
        if let Body::Incidents { incidents, .. } = &message.body {
            context.words(&words::ids(incidents)).ours(" · ");
        }
        context.words(&words::program());
        self.context(context);
    }

    fn full(&mut self, message: &Message) {
        match &message.body {
            Body::Incidents { incidents, .. } if incidents.is_empty() => self.reduced(message),
            Body::Incidents { occasion, incidents, summary } => {
                self.incidents(message, *occasion, incidents, summary.as_ref());
            }
            Body::Rollup(rollup) => self.rollup(message, rollup),
            Body::Notice(notice) => self.notice(message, notice),
            Body::Summary(summary) => self.summary(message, summary),
        }
    }

    fn incidents(
        &mut self,
        message: &Message,
        occasion: Occasion,
        incidents: &[IncidentView],
        summary: Option<&SummaryView>,
    ) {
        let worst = &incidents[0];
        let severity = message.severity().unwrap_or(worst.severity);
        let ours = words::subject(occasion, severity, incidents);
        self.header(Tone::of(message), &ours, Some(&story::headline(occasion, worst)));
        // What a channel that cannot amend is told later is short: the message before it has the lines.
        let brief = matches!(occasion, Occasion::Explained | Occasion::Quiet | Occasion::Merged);
        let mut facts = Safe::<Mrkdwn>::new();
        facts.words(&words::course(occasion, incidents, message.at));
        for remark in words::remarks(message, occasion, incidents) {
            facts.ours("\n").words(&remark);
        }
        if !brief {
            whereabouts(&mut facts, incidents);
        }
        self.section(facts);

        let mut rich = Vec::new();
        if !matches!(occasion, Occasion::Quiet | Occasion::Merged) {
            prose(&mut rich, "Why: ", worst.explanation.as_ref(), 900);
            prose(&mut rich, "Also: ", worst.comment.as_ref(), 700);
        }
        if !brief {
            evidence(&mut rich, incidents);
        }
        if words::needs_advice(occasion, incidents) {
            prose(&mut rich, "Do this first: ", worst.recommendation.as_ref(), 400);
        }
        if let Some(url) = link(incidents) {
            rich.push(Rich::Section { elements: vec![Run::Link { url, text: "Open in Grafana" }] });
        }
        if !brief && let Some(summary) = summary {
            prose(&mut rich, "Meanwhile: ", Some(&summary.text), 500);
        }
        self.rich(rich);

        let mut context = Safe::<Mrkdwn>::new();
        context.words(&words::ids(incidents));
        let claimed = Clean::line(&worst.claimed_by);
        if !claimed.is_empty() {
            context.ours(" · found by ").code(&claimed, 120);
        }
        let mute = story::mute(incidents);
        if !mute.is_empty() {
            context.ours(" · mute: ").code(&mute, 160);
        }
        context.ours(" · ").words(&words::program());
        self.context(context);
    }

    fn rollup(&mut self, message: &Message, rollup: &Rollup) {
        self.header(Tone::of(message), &words::headline(message), None);
        let mut text = Safe::new();
        text.ours("Too many incidents for one message each. From ").words(&words::clock(rollup.from, message.at));
        text.ours(" to ").words(&words::clock(rollup.to, message.at)).ours(". *");
        text.words(&words::amount(rollup.suppressed, "message", "messages"));
        text.ours(" will not be sent* beside this one.");
        if message.possible_repeat {
            text.ours("\nYou may have got this already.");
        }
        self.section(text);
        let mut list = Safe::<Data>::new();
        for (i, incident) in rollup.top.iter().take(10).enumerate() {
            list.ours(if i == 0 { "" } else { "\n" }).ours(Tone::Severity(incident.severity).emoji()).ours(" ");
            list.ours(words::shout(incident.severity)).ours(" ").words(&words::place(std::slice::from_ref(incident)));
            list.ours(": ").text(&story::title(incident), 140).ours(" · ");
            list.words(&words::amount(incident.count, "event", "events")).ours(" · ").words(&words::id(incident.id));
        }
        let mut rich = Vec::new();
        if !list.is_empty() {
            rich.push(Rich::Section { elements: vec![Run::Text { text: list, style: None }] });
        }
        self.rich(rich);
        let mut context = Safe::<Mrkdwn>::new();
        context.ours("all of them: ").words(&words::list(self.program)).ours(" · ").words(&words::program());
        self.context(context);
    }

    fn notice(&mut self, message: &Message, notice: &Notice) {
        let title = Clean::line(&notice.title);
        self.header(Tone::of(message), &words::word(notice.severity), Some(&title));
        let mut facts = Safe::<Mrkdwn>::new();
        for (i, (label, value)) in notice.facts.iter().take(10).enumerate() {
            facts.ours(if i == 0 { "*" } else { "\n*" }).text(&Clean::line(label), 40).ours(":* ");
            facts.code(&Clean::log_line(value.raw()).elided(180), 200);
        }
        if message.possible_repeat {
            facts.ours("\nYou may have got this already.");
        }
        self.section(facts);
        let mut steps = Safe::<Data>::new();
        for (i, step) in notice.next_steps.iter().take(8).enumerate() {
            steps.ours(if i == 0 { "" } else { "\n" }).text(&Clean::log_line(step), 200);
        }
        if !steps.is_empty() {
            let label = label("Do this:");
            self.rich(vec![
                Rich::Section { elements: vec![label] },
                Rich::Preformatted { elements: vec![Run::Text { text: steps, style: None }] },
            ]);
        }
        let mut context = Safe::<Mrkdwn>::new();
        context.words(&words::program());
        self.context(context);
    }

    fn summary(&mut self, message: &Message, summary: &SummaryView) {
        self.header(Tone::of(message), &words::headline(message), None);
        let mut facts = Safe::<Mrkdwn>::new();
        facts.ours("From ").words(&words::clock(summary.from, message.at));
        facts.ours(" to ").words(&words::clock(summary.to, message.at)).ours(".");
        self.section(facts);
        let mut rich = Vec::new();
        prose(&mut rich, "", Some(&summary.text), 2_900);
        self.rich(rich);
        let mut context = Safe::<Mrkdwn>::new();
        context.words(&words::program());
        self.context(context);
    }
}

fn link(incidents: &[IncidentView]) -> Option<Link> {
    incidents.iter().find_map(|incident| Link::new(incident.link.as_deref()?))
}

/// Host, service, kind and who stands out. Names are code, so that nothing in them becomes a link.
fn whereabouts(facts: &mut Safe<Mrkdwn>, incidents: &[IncidentView]) {
    const MOST_HOSTS: usize = 5;
    facts.ours(if incidents.len() > 1 { "\n*Hosts:* " } else { "\n*Host:* " });
    for (i, (host, count)) in story::hosts(incidents, MOST_HOSTS).iter().enumerate() {
        facts.ours(if i == 0 { "" } else { ", " }).code(host, 80);
        if incidents.len() > 1 {
            facts.ours(" (").words(&words::number(*count)).ours(")");
        }
    }
    facts.words(&words::more(incidents.len().saturating_sub(MOST_HOSTS) as u64));
    let service = Clean::line(incidents[0].service.raw());
    if !service.is_empty() {
        facts.ours("   *Service:* ").code(&service, 80).words(&words::other_services(&incidents[0]));
    }
    facts.ours("   *Kind:* ").words(&words::kind(incidents[0].category));
    for group in story::groups(incidents) {
        if facts.units() > SECTION - 600 {
            facts.ours("\n…").cut();
            break;
        }
        facts.ours("\n*").ours(group.label).ours(":* ");
        for (i, (member, times)) in group.members.iter().enumerate() {
            facts.ours(if i == 0 { "" } else { ", " }).code(member, 64).words(times);
        }
        facts.words(&words::more(group.more));
    }
}

fn label(text: &'static str) -> Run {
    let mut label = Safe::new();
    label.ours(text);
    Run::Text { text: label, style: Some(BOLD) }
}

/// Words with their author. A rule's own words may show commands as code; a model's never look like ours.
fn prose(rich: &mut Vec<Rich>, name: &'static str, prose: Option<&ProseView>, units: usize) {
    let Some(said) = Said::of(prose) else { return };
    let mut elements = Vec::new();
    if !name.is_empty() {
        elements.push(label(name));
    }
    match &said.model {
        None => elements.extend(with_code(&said.text, units)),
        Some(model) => {
            elements.push(Run::Text { text: Safe::of(&said.text, units), style: None });
            let mut author = Safe::new();
            author.ours(" (words of the model ").text(model, 60).ours(", unverified)");
            elements.push(Run::Text { text: author, style: Some(ITALIC) });
        }
    }
    rich.push(Rich::Section { elements });
}

/// Shows what stands between backticks as code, if they come in pairs.
fn with_code(words: &Clean, units: usize) -> Vec<Run> {
    let Some(parts) = words.code_parts() else {
        return vec![Run::Text { text: Safe::of(words, units), style: None }];
    };
    let mut left = units;
    let mut runs = Vec::new();
    for (is_code, part) in parts {
        let text = Safe::of(&part, left);
        left -= text.units().min(left);
        if !text.is_empty() {
            runs.push(Run::Text { text, style: is_code.then_some(CODE) });
        }
    }
    runs
}

fn evidence(rich: &mut Vec<Rich>, incidents: &[IncidentView]) {
    let chosen = Evidence::of(incidents, story::MOST_LINES);
    let mut lines = Safe::<Data>::new();
    for (i, line) in chosen.lines.iter().enumerate() {
        lines.ours(if i == 0 { "" } else { "\n" }).text(line, EVIDENCE / story::MOST_LINES - 1);
    }
    if lines.is_empty() {
        return;
    }
    rich.push(Rich::Preformatted { elements: vec![Run::Text { text: lines, style: None }] });
    if chosen.omitted > 0 {
        let mut text = Safe::new();
        text.ours("… and ").words(&words::amount(chosen.omitted, "more event", "more events"));
        rich.push(Rich::Section { elements: vec![Run::Text { text, style: None }] });
    }
}
