//! Messages for people at a terminal: short, aligned, as wide as the window, and never able to steer it.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use logwarden_core::{
    Severity,
    message::{Body, IncidentView, Message, Notice, Occasion, ProseView, Rollup, SummaryView},
    notifier::{Channel, ChannelHash, Form, Notifier, NotifyError, Receipt},
};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::{
    address, http,
    story::{self, Evidence, Said},
    text::{Clean, Data, Link, Safe},
    words::{self, Tone},
};

/// Labels are this wide.
const INDENT: usize = 13;
const LINES_INDENT: usize = 4;
const NARROWEST: usize = 40;
const PROSE: usize = 2_000;

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether to use colours.
    pub color: bool,
    /// Columns; everything wraps at it. `usize::MAX` where the output is no terminal.
    pub width: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self { color: false, width: 100 }
    }
}

/// A channel that draws messages on a terminal.
pub struct Terminal {
    channel: Channel,
    style: Style,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Terminal {
    /// A channel called `name` that writes to `out`.
    pub fn new(name: impl Into<Arc<str>>, out: Box<dyn Write + Send>, style: Style, min_severity: Severity) -> Self {
        let name = name.into();
        let destination = address::hash(b"", "terminal", &name);
        Self { channel: local(name, destination, "terminal", min_severity), style, out: Mutex::new(out) }
    }
}

/// Writes all of it at once, so that messages never mix.
pub(crate) fn write_out(out: &Mutex<Box<dyn Write + Send>>, text: io::Result<String>) -> io::Result<()> {
    let text = text?;
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A channel that is at hand: no pacing.
pub(crate) fn local(name: Arc<str>, destination: ChannelHash, vendor: &'static str, min_severity: Severity) -> Channel {
    Channel {
        name,
        destination,
        vendor,
        min_severity,
        amends: false,
        longest_send: Duration::from_secs(10),
        gap: Duration::ZERO,
        per_minute: u32::MAX,
    }
}

#[async_trait]
impl Notifier for Terminal {
    fn channel(&self) -> &Channel {
        &self.channel
    }

    async fn send(&self, message: &Message, form: Form, _amend: Option<&Receipt>) -> Result<Receipt, NotifyError> {
        let text = render(message, form, &self.style);
        write_out(&self.out, Ok(text + "\n"))
            .map_err(|cause| http::unreachable(&self.channel.name, false, None, cause))?;
        Ok(Receipt::default())
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Terminal({:?})", self.channel.name)
    }
}

/// Draws `message`; ends with a line break. Without colours it holds no escape sequence at all.
pub fn render(message: &Message, form: Form, style: &Style) -> String {
    let mut page = Page { out: String::new(), color: style.color, width: style.width.max(NARROWEST) };
    match &message.body {
        Body::Incidents { occasion, incidents, summary } if form == Form::Full && !incidents.is_empty() => {
            page.incidents(message, *occasion, incidents, summary.as_ref());
        }
        Body::Rollup(rollup) if form == Form::Full => page.rollup(message, rollup),
        Body::Notice(notice) if form == Form::Full => page.notice(message, notice),
        Body::Summary(summary) if form == Form::Full => page.summary(message, summary),
        body => {
            page.heading(Tone::of(message), words::headline(message).as_str(), "");
            if let Body::Incidents { incidents, .. } = body {
                page.row("id", words::ids(incidents).as_str());
            }
        }
    }
    page.out
}

struct Page {
    out: String,
    color: bool,
    width: usize,
}

impl Page {
    fn heading(&mut self, tone: Tone, ours: &str, rest: &str) {
        let line = if rest.is_empty() { ours.to_owned() } else { format!("{ours}: {rest}") };
        let mut lines = wrap(&line, self.width).into_iter();
        let first = lines.next().unwrap_or_default();
        if self.color {
            let code = match tone {
                Tone::Severity(Severity::Critical) => "1;31",
                Tone::Severity(Severity::High) => "31",
                Tone::Severity(Severity::Medium) => "33",
                Tone::Severity(Severity::Low) => "34",
                Tone::Calm => "32",
                Tone::Gone => "2",
            };
            let (word, rest) = first.split_at(first.find([' ', ':']).unwrap_or(first.len()));
            let _ = writeln!(self.out, "\u{1b}[{code}m{word}\u{1b}[0m\u{1b}[1m{rest}\u{1b}[0m");
        } else {
            let _ = writeln!(self.out, "{first}");
        }
        for line in lines {
            let _ = writeln!(self.out, "{:INDENT$}{line}", "");
        }
    }

    /// A label and words that wrap.
    fn row(&mut self, label: &str, text: &str) {
        for (i, line) in wrap(text, self.width - INDENT).iter().enumerate() {
            self.line(if i == 0 { label } else { "" }, line);
        }
    }

    fn line(&mut self, label: &str, line: &str) {
        if self.color && !label.is_empty() {
            let _ =
                writeln!(self.out, "  \u{1b}[2m{label}\u{1b}[0m{:<width$}{line}", "", width = INDENT - 2 - label.len());
        } else {
            let text = format!("  {label:<width$}{line}", width = INDENT - 2);
            let _ = writeln!(self.out, "{}", text.trim_end());
        }
    }

    fn prose(&mut self, label: &str, prose: Option<&ProseView>) {
        let Some(said) = Said::of(prose) else { return };
        let mut text = shown(&said.text, PROSE);
        if let Some(model) = &said.model {
            let _ = write!(text, " (words of the model {}, unverified)", shown(model, 60));
        }
        self.row(label, &text);
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
        let subject = words::subject(occasion, severity, incidents);
        self.heading(Tone::of(message), subject.as_str(), &shown(&story::headline(occasion, worst), 300));
        self.row("when", words::course(occasion, incidents, message.at).as_str());
        for remark in words::remarks(message, occasion, incidents) {
            self.row("", remark.as_str());
        }
        let service = Clean::line(worst.service.raw());
        let mut place = shown(&service, 80) + words::other_services(worst).as_str();
        if incidents.len() == 1 {
            let host = Clean::line(worst.host.raw());
            let on = if service.is_empty() || host.is_empty() { "" } else { " on " };
            let _ = write!(place, "{on}{}", shown(&host, 80));
        }
        self.row("where", &format!("{place} · {}", worst.category.label()));
        if incidents.len() > 1 {
            let hosts = story::hosts(incidents, 10);
            let mut text: Vec<String> =
                hosts.iter().map(|(host, n)| format!("{} ({})", shown(host, 60), words::number(*n).as_str())).collect();
            if incidents.len() > hosts.len() {
                text.push(format!("{} more", incidents.len() - hosts.len()));
            }
            self.row("hosts", &text.join(", "));
        }
        for group in story::groups(incidents) {
            let members: Vec<String> = group
                .members
                .iter()
                .map(|(member, times)| format!("{}{}", shown(member, 64), times.as_str()))
                .collect();
            let text = format!("{}{}", members.join(", "), words::more(group.more).as_str());
            self.row(&group.label.to_lowercase(), &text);
        }
        self.prose("why", worst.explanation.as_ref());
        self.prose("also", worst.comment.as_ref());
        let chosen = Evidence::of(incidents, story::MOST_LINES);
        if !chosen.lines.is_empty() {
            self.line("lines", "");
        }
        for line in &chosen.lines {
            for (i, part) in chunks(line.as_str(), self.width - LINES_INDENT - 2).into_iter().enumerate() {
                let _ = writeln!(
                    self.out,
                    "{:indent$}{}",
                    "",
                    part.trim_end(),
                    indent = LINES_INDENT + 2 * usize::from(i > 0)
                );
            }
        }
        if chosen.omitted > 0 {
            let more = words::amount(chosen.omitted, "more event", "more events");
            let _ = writeln!(self.out, "{:LINES_INDENT$}… and {}", "", more.as_str());
        }
        if words::needs_advice(occasion, incidents) {
            self.prose("next", worst.recommendation.as_ref());
        }
        if let Some(link) = worst.link.as_deref().and_then(Link::new) {
            self.line("link", link.as_str());
        }
        if let Some(summary) = summary {
            self.prose("meanwhile", Some(&summary.text));
        }
        let mut id = words::ids(incidents).into_string();
        for (label, text) in [("found by ", Clean::line(&worst.claimed_by)), ("mute: ", story::mute(incidents))] {
            if !text.is_empty() {
                let _ = write!(id, " · {label}{}", shown(&text, 200));
            }
        }
        self.row("id", &id);
    }

    fn rollup(&mut self, message: &Message, rollup: &Rollup) {
        self.heading(Tone::of(message), words::headline(message).as_str(), "");
        let suppressed = words::amount(rollup.suppressed, "message", "messages");
        self.row("", &format!("{} will not be sent beside this one.", suppressed.as_str()));
        for incident in rollup.top.iter().take(10) {
            let text = format!(
                "{:<9}{}: {} · {} · {}",
                words::shout(incident.severity),
                words::place(std::slice::from_ref(incident)).as_str(),
                shown(&story::title(incident), 140),
                words::amount(incident.count, "event", "events").as_str(),
                incident.id.short()
            );
            self.row("", &text);
        }
    }

    fn notice(&mut self, message: &Message, notice: &Notice) {
        let title = shown(&Clean::line(&notice.title), 300);
        self.heading(Tone::of(message), words::word(notice.severity).as_str(), &title);
        for (label, value) in notice.facts.iter().take(20) {
            let text = format!("{}: {}", shown(&Clean::line(label), 40), shown(&Clean::log_line(value.raw()), 400));
            self.row("", &text);
        }
        for (i, step) in notice.next_steps.iter().take(10).enumerate() {
            self.row(if i == 0 { "next" } else { "" }, &shown(&Clean::log_line(step), 400));
        }
    }

    fn summary(&mut self, message: &Message, summary: &SummaryView) {
        self.heading(Tone::of(message), words::headline(message).as_str(), "");
        self.prose("", Some(&summary.text));
    }
}

fn shown(text: &Clean, units: usize) -> String {
    Safe::<Data>::of(text, units).as_str().to_owned()
}

/// Breaks at spaces; a word that is wider than a line is broken anywhere.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let wide = word.width();
        if used > 0 && used + 1 + wide > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        for grapheme in word.graphemes(true) {
            let wide = grapheme.width();
            if used + wide > width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push_str(grapheme);
            used += wide;
        }
    }
    lines.push(line);
    lines
}

/// Breaks a log line after a space where one is near the width, else anywhere; loses nothing.
fn chunks(text: &str, width: usize) -> Vec<&str> {
    let mut chunks = Vec::new();
    let mut rest = text;
    while rest.width() > width {
        let mut used = 0;
        let fits = rest.graphemes(true).take_while(|grapheme| {
            used += grapheme.width();
            used <= width
        });
        let end = fits.map(str::len).sum::<usize>().max(rest.graphemes(true).next().map_or(0, str::len));
        let space = rest[..end].rfind(' ').map(|at| at + 1).filter(|at| *at > end / 2);
        let (chunk, after) = rest.split_at(space.unwrap_or(end));
        chunks.push(chunk);
        rest = after;
    }
    chunks.push(rest);
    chunks
}
