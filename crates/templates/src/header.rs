//! What a line says before its message: time, host, program, pid, thread, logger, level.
//!
//! Headers are recognised by their parts and the order of these (date, time, level, `[thread]`, `logger:`,
//! `program[pid]:`), not by the product that wrote them. What is left is the message: text, fields or a request.
//!
//! A line is always taken apart in the same way, whatever its stream held before: ids hang on the outcome, and they must
//! not depend on the order of lines or on a restart. What cannot be told from the line alone stays in the text.

mod app;
mod syslog;

use std::borrow::Cow;

use crate::{
    Level, Record, Stream, Timestamp, Zone,
    access::{self, Access},
    clock::{self, Moment},
    fields::{self, Fields},
    level,
    steps::{self, skip_blanks},
    trace,
};

/// A line taken apart. Everything borrows from the line; only what had to be unescaped is owned.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parsed<'a> {
    /// When, as the line itself says.
    pub time: Option<Timestamp>,
    /// The machine that the line names.
    pub host: Option<&'a [u8]>,
    /// The program in a syslog header, or the like.
    pub program: Option<&'a [u8]>,
    /// Its process id.
    pub pid: Option<&'a [u8]>,
    /// Thread, request or worker.
    pub thread: Option<&'a [u8]>,
    /// Logger, module or category.
    pub logger: Option<&'a [u8]>,
    /// The level that header, field or first word state.
    pub level: Option<Level>,
    /// How the line is wrapped; the joiner asks.
    pub frame: Frame,
    /// What is left.
    pub body: Body<'a>,
}

/// How a line is wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Not at all: no header was recognised.
    #[default]
    Bare,
    /// By the program itself: such a line starts an event.
    Own,
    /// By a transport that wraps every physical line (syslog, journal, container runtime).
    Carrier,
    /// As [`Frame::Carrier`], and the transport says that the line goes on in the next one.
    Partial,
}

/// The message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body<'a> {
    /// Text, to be scanned. Of a joined event: its first line and what is telling in the rest.
    Text(Cow<'a, [u8]>),
    /// JSON or logfmt.
    Fields(Fields<'a>),
    /// One request in an access log.
    Access(Access<'a>),
}

impl Default for Body<'_> {
    fn default() -> Self {
        Self::Text(Cow::Borrowed(b""))
    }
}

/// What a line says of itself, for display.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header<'a> {
    /// When; a year or zone that the line lacks comes from the record.
    pub time: Option<Timestamp>,
    /// The machine.
    pub host: Option<&'a [u8]>,
    /// The program.
    pub program: Option<&'a [u8]>,
    /// Its process id.
    pub pid: Option<&'a [u8]>,
    /// Thread, request or worker.
    pub thread: Option<&'a [u8]>,
    /// Logger, module or category.
    pub logger: Option<&'a [u8]>,
    /// The level.
    pub level: Option<Level>,
}

/// Whether a service's name is only that of the place where the lines of all programs are collected.
fn collects(service: &str) -> bool {
    const PLACES: [&str; 14] = [
        "syslog",
        "rsyslog",
        "rsyslogd",
        "syslog-ng",
        "journal",
        "journald",
        "systemd-journal",
        "systemd-journald",
        "messages",
        "varlogs",
        "auth",
        "authpriv",
        "secure",
        "daemon",
    ];
    let name = service.strip_prefix("/var/log/").unwrap_or(service);
    let name = name.strip_suffix(".log").unwrap_or(name);
    PLACES.iter().any(|place| name.eq_ignore_ascii_case(place))
}

/// Reads the header of one line.
///
/// ```
/// # use logwarden_templates::{Clock, Level, Record, Stream, Timestamp, header};
/// let stream = std::sync::Arc::new(Stream::new(Default::default()));
/// let text = b"<11>Nov 21 03:59:00 web-1 app[7]: disk is full";
/// let time = Timestamp::from_secs(1_795_233_600);
/// let read = header::inspect(&Record { stream: &stream, time, clock: Clock::Arrival, text, tags: 0 });
/// assert_eq!((read.host, read.program, read.level), (Some(&b"web-1"[..]), Some(&b"app"[..]), Some(Level::Error)));
/// assert_eq!(read.time, Some(Timestamp::from_secs(1_795_233_540)));
/// ```
pub fn inspect<'a>(record: &Record<'a>) -> Header<'a> {
    let Parsed { time, host, program, pid, thread, logger, level, .. } = HeaderState::default().parse(record);
    Header { time, host, program, pid, thread, logger, level }
}

/// Takes the lines of one stream apart. Holds nothing that could change an outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderState {}

impl HeaderState {
    /// Takes a line, or a joined event, apart.
    pub(crate) fn parse<'a>(&mut self, record: &Record<'a>) -> Parsed<'a> {
        let context = Context { reference: record.time, stream: record.stream };
        let text = record.text.strip_suffix(b"\r").unwrap_or(record.text);
        if memchr::memchr(0x1b, text).is_none() {
            return context.event(text);
        }
        let clean = steps::strip_escapes(text);
        context.event(&clean).rebase(text)
    }
}

/// What the line itself does not say.
#[derive(Clone, Copy)]
struct Context<'c> {
    reference: Timestamp,
    stream: &'c Stream,
}

/// How many wrappers are taken off: container runtime, syslog, the program's own.
const MAX_LAYERS: u8 = 4;

/// Lines of a joined event that are looked at.
const MAX_JOINED: usize = 1000;

impl Context<'_> {
    fn zone(&self) -> &Zone {
        self.stream.zone()
    }

    fn resolve(&self, moment: &Moment) -> Option<Timestamp> {
        moment.resolve(self.reference, self.zone())
    }

    /// A line or a joined event.
    fn event<'a>(&self, text: &'a [u8]) -> Parsed<'a> {
        let Some(end) = memchr::memchr(b'\n', text) else { return self.line(text, MAX_LAYERS) };
        if text.trim_ascii_start().starts_with(b"{") {
            let parsed = self.line(text, MAX_LAYERS);
            if matches!(parsed.body, Body::Fields(_) | Body::Access(_)) {
                return parsed;
            }
        }
        let first = text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]);
        let rest = &text[end + 1..];
        let mut parsed = self.line(first, MAX_LAYERS);
        let Body::Text(body) = &parsed.body else { return parsed };
        // Java's own logging states the level in the second line; a stack trace means an error anyway.
        let second = rest.split(|b| *b == b'\n').next().and_then(level::at_front);
        let messages: Vec<_> = rest.split(|b| *b == b'\n').take(MAX_JOINED).map(|line| self.message_of(line)).collect();
        let messages = messages.join(&b'\n');
        let trace = || trace::is_trace(body, &messages).then_some(Level::Error);
        parsed.level = parsed.level.or(second).or_else(trace);
        let summary = trace::summary(body, &messages);
        parsed.body = Body::Text(Cow::Owned(summary));
        parsed
    }

    /// The message of a line inside an event whose lines are wrapped.
    fn message_of(&self, line: &[u8]) -> Vec<u8> {
        match self.line(line, MAX_LAYERS).body {
            Body::Text(text) => text.into_owned(),
            Body::Fields(_) | Body::Access(_) => line.to_vec(),
        }
    }

    /// One line, with as many wrappers as `layers`.
    fn line<'a>(&self, text: &'a [u8], layers: u8) -> Parsed<'a> {
        let mut parsed = Parsed::default();
        let start = skip_blanks(text, 0);
        let rest = &text[start..];
        let Some(first) = rest.first() else { return Parsed { body: Body::Text(Cow::Borrowed(text)), ..parsed } };
        match first {
            b'{' => return self.json(rest, text, layers),
            b'<' => {
                if let Some((priority, at)) = syslog::priority(rest) {
                    parsed.level = level::of_priority(priority);
                    parsed.frame = Frame::Carrier;
                    return self.prioritised(&rest[at..], parsed, layers);
                }
                if let Some(object) = fields::windows_event(rest) {
                    return self.fields(object, Parsed { frame: Frame::Own, ..parsed });
                }
            }
            b'-' if rest.starts_with(b"- <Event ") => {
                if let Some(object) = fields::windows_event(rest) {
                    return self.fields(object, Parsed { frame: Frame::Own, ..parsed });
                }
            }
            b'1' if rest.starts_with(b"1 ") => {
                if let Some(at) = self.rfc5424(rest, &mut parsed) {
                    parsed.frame = Frame::Carrier;
                    return self.carried(&rest[at..], parsed, layers);
                }
            }
            _ => {}
        }
        if let Some((moment, end)) = clock::read(rest).filter(|(moment, end)| plausible(moment, rest, *end)) {
            return self.timed(rest, moment, end, parsed, layers);
        }
        if let Some((access, moment)) = access::read(rest) {
            parsed.time = moment.and_then(|moment| self.resolve(&moment));
            return Parsed { frame: Frame::Own, body: Body::Access(access), ..parsed };
        }
        if let Some((name, at)) = app::compose_prefix(rest) {
            parsed.program = Some(name);
            parsed.frame = Frame::Carrier;
            return self.unwrapped(&rest[at..], parsed, layers);
        }
        if let Some(at) = steps::uptime(rest) {
            // Six digits: the kernel's own clock, with nothing but a time before each physical line.
            let fraction = rest.iter().position(|b| *b == b'.').map_or(0, |dot| steps::digits_end(rest, dot + 1) - dot);
            parsed.frame = if fraction == 7 { Frame::Carrier } else { Frame::Own };
            parsed.program = (fraction == 7).then_some(&b"kernel"[..]);
            return self.finish(&rest[at + usize::from(rest.get(at) == Some(&b' '))..], parsed);
        }
        if let Some(lead) = app::lead(rest, &mut parsed) {
            parsed.time = lead.moment.and_then(|moment| self.resolve(&moment));
            parsed.frame = Frame::Own;
            let mut parsed = self.finish(&rest[lead.at..], parsed);
            if let (Some(address), Body::Text(body)) = (lead.address, &mut parsed.body) {
                *body = Cow::Owned([address, b" ", body.as_ref()].concat());
            }
            return parsed;
        }
        // Whoever collects the lines of all programs under one name does not know better than the tag.
        if let Some((name, Some(pid), at)) =
            self.stream.service().filter(|name| collects(name)).and_then(|_| syslog::program(rest, 0))
        {
            (parsed.program, parsed.pid, parsed.frame) = (Some(name), Some(pid), Frame::Carrier);
            return self.carried(&rest[at..], parsed, layers);
        }
        let mut bare = self.finish(rest, parsed);
        if let Body::Text(body) = &mut bare.body {
            *body = Cow::Borrowed(text);
        }
        bare
    }

    /// Behind `<PRI>`.
    fn prioritised<'a>(&self, text: &'a [u8], mut parsed: Parsed<'a>, layers: u8) -> Parsed<'a> {
        if let Some(at) = self.rfc5424(text, &mut parsed) {
            return self.carried(&text[at..], parsed, layers);
        }
        let start = skip_blanks(text, 0);
        if let Some((moment, end)) = clock::read(&text[start..]).filter(|(moment, _)| moment.has_date()) {
            parsed.time = self.resolve(&moment);
            let text = &text[start..];
            let tail = syslog::tail(text, end, syslog::Trust::Sure, self.stream.likely_host()).unwrap_or_default();
            let at = if tail.at == 0 { skip_blanks(text, end) } else { tail.at };
            parsed.host = tail.host;
            parsed.program = tail.program;
            parsed.pid = tail.pid;
            return self.carried(&text[at..], parsed, layers);
        }
        if let Some(at) = steps::uptime(&text[start..]) {
            return self.finish(text[start + at..].trim_ascii_start(), parsed);
        }
        if let Some((name, pid, at)) = syslog::program(text, start) {
            parsed.program = Some(name);
            parsed.pid = pid;
            return self.carried(&text[at..], parsed, layers);
        }
        self.carried(&text[start..], parsed, layers)
    }

    /// `1 TIME HOST PROGRAM PID MSGID DATA`, behind which the message is.
    fn rfc5424<'a>(&self, text: &'a [u8], parsed: &mut Parsed<'a>) -> Option<usize> {
        let header = syslog::rfc5424(text)?;
        parsed.time = header.moment.and_then(|moment| self.resolve(&moment));
        parsed.host = header.host;
        parsed.program = header.program;
        parsed.pid = header.pid;
        if header.at >= text.len() && header.data.len() > 1 {
            // No message: what there is to say is in the structured data.
            return Some(header.data_at);
        }
        Some(header.at)
    }

    /// The message that syslog or the journal carried.
    fn carried<'a>(&self, text: &'a [u8], mut parsed: Parsed<'a>, layers: u8) -> Parsed<'a> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let text = text.strip_prefix(b"@cee:").map_or(text, <[u8]>::trim_ascii_start);
        if parsed.program == Some(b"kernel")
            && let Some(at) = steps::uptime(text)
        {
            return self.finish(&text[at + usize::from(text.get(at) == Some(&b' '))..], parsed);
        }
        let dated = clock::read(text).is_some_and(|(moment, _)| moment.has_date() && !moment.is_epoch())
            || text.starts_with(b"[") && clock::read(&text[1..]).is_some_and(|(moment, _)| moment.has_date());
        if layers > 0 && dated {
            let outer = parsed.time;
            let frame = parsed.frame;
            let inner = self.line(text, layers - 1);
            // A program's own time is as good as the carrier's, and usually finer.
            parsed.time = inner.time.or(outer);
            return Parsed { frame, ..inner.under(parsed) };
        }
        self.finish(text, parsed)
    }

    /// What a container runtime wrapped: a line with a header of its own or none.
    fn unwrapped<'a>(&self, text: &'a [u8], parsed: Parsed<'a>, layers: u8) -> Parsed<'a> {
        if layers == 0 {
            return self.finish(text, parsed);
        }
        let inner = self.line(text, layers - 1);
        let frame = match (parsed.frame, inner.frame) {
            (Frame::Partial, _) => Frame::Partial,
            (_, Frame::Bare) => Frame::Carrier,
            (_, inner) => inner,
        };
        Parsed { frame, ..inner.under(parsed) }
    }

    /// A line that begins with a time.
    fn timed<'a>(&self, text: &'a [u8], moment: Moment, end: usize, mut parsed: Parsed<'a>, layers: u8) -> Parsed<'a> {
        parsed.time = self.resolve(&moment);
        if let Some((partial, at)) = app::cri(text, end) {
            parsed.frame = if partial { Frame::Partial } else { Frame::Carrier };
            return self.unwrapped(&text[at..], parsed, layers);
        }
        if let Some(tail) = syslog::tail(text, end, syslog::trust(text, &moment, end), self.stream.likely_host()) {
            parsed.host = tail.host;
            parsed.program = tail.program;
            parsed.pid = tail.pid;
            parsed.frame = Frame::Carrier;
            return self.carried(&text[tail.at..], parsed, layers);
        }
        parsed.frame = Frame::Own;
        if let Some(access) = access::read_timed(&text[end..]) {
            return Parsed { body: Body::Access(access), ..parsed };
        }
        let at = app::columns(text, end, &moment, &mut parsed);
        self.finish(&text[at..], parsed)
    }

    /// A line that is a JSON object, as far as one can see.
    fn json<'a>(&self, text: &'a [u8], whole: &'a [u8], layers: u8) -> Parsed<'a> {
        let Some(object) = fields::json(text) else {
            return Parsed { body: Body::Text(Cow::Borrowed(whole)), ..Parsed::default() };
        };
        let mut parsed = Parsed { frame: Frame::Own, ..Parsed::default() };
        match object.into_wrapped() {
            Ok(wrapped) => {
                // The runtime's or the journal's object around a line of text.
                parsed.frame = if wrapped.partial { Frame::Partial } else { Frame::Carrier };
                parsed.time = wrapped.time;
                parsed.level = wrapped.level;
                parsed.host = wrapped.host;
                parsed.program = wrapped.program;
                parsed.pid = wrapped.pid;
                match wrapped.line {
                    Cow::Borrowed(line) => self.unwrapped(line, parsed, layers),
                    Cow::Owned(line) => {
                        let line = line.strip_suffix(b"\n").unwrap_or(&line);
                        let line = if memchr::memchr(0x1b, line).is_some() {
                            Cow::Owned(steps::strip_escapes(line))
                        } else {
                            Cow::Borrowed(line)
                        };
                        let frame = parsed.frame;
                        let inner = if layers > 0 {
                            self.line(&line, layers - 1)
                        } else {
                            self.finish(&line, Parsed::default())
                        };
                        let inner_frame = inner.frame;
                        let merged = inner.rebase(text).under(parsed);
                        let frame =
                            if frame == Frame::Carrier && inner_frame == Frame::Own { Frame::Own } else { frame };
                        Parsed { frame, ..merged }
                    }
                }
            }
            Err(object) => self.fields(object, parsed),
        }
    }

    /// Fields give the header what it has not found out yet.
    fn fields<'a>(&self, mut object: fields::Object<'a>, mut parsed: Parsed<'a>) -> Parsed<'a> {
        let known = object.take_header(|text| self.moment(text));
        parsed.time = parsed.time.or(known.time);
        parsed.level = parsed.level.max(known.level);
        parsed.host = parsed.host.or(known.host);
        parsed.program = parsed.program.or(known.program);
        parsed.pid = parsed.pid.or(known.pid);
        parsed.thread = parsed.thread.or(known.thread);
        parsed.logger = parsed.logger.or(known.logger);
        parsed.body = match access::of_fields(&object) {
            Some(access) => Body::Access(access),
            None => Body::Fields(object.into_fields()),
        };
        parsed
    }

    /// The time that a whole value is.
    fn moment(&self, text: &[u8]) -> Option<Timestamp> {
        let (moment, end) = clock::read(text)?;
        (end == text.len() && moment.has_date()).then(|| self.resolve(&moment))?
    }

    /// What is left behind the header.
    fn finish<'a>(&self, text: &'a [u8], mut parsed: Parsed<'a>) -> Parsed<'a> {
        if text.first() == Some(&b'{')
            && let Some(object) = fields::json(text)
        {
            return self.fields(object, parsed);
        }
        if let Some(object) = fields::logfmt(text) {
            let bare = parsed.frame == Frame::Bare;
            let mut parsed = self.fields(object, parsed);
            if bare {
                parsed.frame = Frame::Own;
            }
            return parsed;
        }
        if let Some((access, moment)) = access::read(text) {
            if parsed.frame == Frame::Bare {
                parsed.frame = Frame::Own;
            }
            parsed.time = parsed.time.or_else(|| self.resolve(&moment?));
            parsed.body = Body::Access(access);
            return parsed;
        }
        if let Some(object) = fields::text_with_json(text) {
            return self.fields(object, parsed);
        }
        if let Some(level) = level::at_front(text) {
            parsed.level = Some(level);
        }
        parsed.body = Body::Text(Cow::Borrowed(text));
        parsed
    }
}

impl<'a> Parsed<'a> {
    /// The inner header, completed by the one around it.
    fn under(self, outer: Self) -> Self {
        Self {
            time: outer.time.or(self.time),
            host: outer.host.or(self.host),
            program: outer.program.or(self.program),
            pid: outer.pid.or(self.pid),
            thread: self.thread.or(outer.thread),
            logger: self.logger.or(outer.logger),
            level: self.level.or(outer.level),
            frame: self.frame,
            body: self.body,
        }
    }

    /// The same as parts of `text`, of which `self` is a cleaned copy. A part that is not in it as it is gets lost,
    /// except for the body, which becomes owned.
    fn rebase<'b>(self, text: &'b [u8]) -> Parsed<'b> {
        let find = |part: Option<&[u8]>| {
            let part = part.filter(|part| !part.is_empty())?;
            let at = memchr::memmem::find(text, part)?;
            text.get(at..at + part.len())
        };
        Parsed {
            time: self.time,
            host: find(self.host),
            program: find(self.program),
            pid: find(self.pid),
            thread: find(self.thread),
            logger: find(self.logger),
            level: self.level,
            frame: self.frame,
            body: match self.body {
                Body::Text(text) => Body::Text(Cow::Owned(text.into_owned())),
                Body::Fields(fields) => Body::Fields(fields.into_owned()),
                Body::Access(access) => {
                    let (method, target) = (find(Some(access.method)), find(Some(access.target)));
                    match (method, target, find(Some(access.client))) {
                        (Some(method), Some(target), Some(client)) => Body::Access(Access {
                            method,
                            target,
                            client,
                            route: Cow::Owned(access.route.into_owned()),
                            status: access.status,
                            user: find(access.user),
                            vhost: find(access.vhost),
                            agent: find(Some(access.agent)).unwrap_or_default(),
                            duration: find(access.duration),
                            size: find(access.size),
                        }),
                        _ => Body::Text(Cow::Owned(steps::strip_escapes(text))),
                    }
                }
            },
        }
    }
}

/// Whether what looks like a time begins a header: a bare number or time of day needs more to go by than a date.
fn plausible(moment: &Moment, text: &[u8], end: usize) -> bool {
    let next = text.get(end);
    match (moment.is_epoch(), moment.has_date()) {
        (true, _) => matches!(next, Some(b' ' | b'\t' | b':' | b',' | b'|')),
        (false, true) => true,
        (false, false) => end >= 8 && matches!(next, None | Some(b' ' | b'\t' | b':' | b',' | b'|' | b']')),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::Clock;

    fn parse_with<T>(text: &[u8], show: impl FnOnce(&Parsed<'_>) -> T) -> T {
        let stream = Arc::new(Stream::new(std::collections::BTreeMap::new()));
        let time = Timestamp::from_secs(1_795_233_600); // 2026-11-21T04:00:00Z
        show(&HeaderState::default().parse(&Record { stream: &stream, time, clock: Clock::Arrival, text, tags: 0 }))
    }

    /// `time level host:… program:… pid:… thread:… logger:… | message`, without what there is not.
    fn show(parsed: &Parsed<'_>) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut out: Vec<String> = Vec::new();
        out.extend(parsed.time.map(|time| time.to_string().replace("2026-11-21T", "")));
        out.extend(parsed.level.map(|level| level.to_string()));
        for (name, part) in [
            ("host", parsed.host),
            ("program", parsed.program),
            ("pid", parsed.pid),
            ("thread", parsed.thread),
            ("logger", parsed.logger),
        ] {
            out.extend(part.map(|part| format!("{name}:{}", text(part))));
        }
        let body = match &parsed.body {
            Body::Text(body) => text(body),
            Body::Fields(fields) => {
                let keys: Vec<_> = fields.fields.iter().map(|field| text(&field.key)).collect();
                format!("{} {{{}}}", text(&fields.message), keys.join(","))
            }
            Body::Access(access) => format!("{} {} {}", text(access.method), text(&access.route), access.status),
        };
        out.push(format!("| {body}"));
        out.join(" ")
    }

    fn check(cases: &[(&str, &str)]) {
        let wrong: Vec<_> = cases
            .iter()
            .map(|(line, expected)| (*line, parse_with(line.as_bytes(), show), *expected))
            .filter(|(_, found, expected)| found != expected)
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn syslog_and_the_journal() {
        check(&[
            (
                "<34>Nov 21 03:59:00 web su[7]: failed for root",
                "03:59:00Z critical host:web program:su pid:7 | failed for root",
            ),
            ("Nov 21 03:59:00 web CRON[7]: (root) CMD (x)", "03:59:00Z host:web program:CRON pid:7 | (root) CMD (x)"),
            ("Nov 21 03:59:00.123456 web app: x", "03:59:00.123456Z host:web program:app | x"),
            ("2026-11-21T04:00:00.123456+01:00 web app[7]: x", "03:00:00.123456Z host:web program:app pid:7 | x"),
            (
                "2026-11-21T04:00:00+0100 web systemd[1]: Started x.",
                "03:00:00Z host:web program:systemd pid:1 | Started x.",
            ),
            (
                "Sat 2026-11-21 04:00:00 UTC web sshd[7]: error: x",
                "04:00:00Z error host:web program:sshd pid:7 | error: x",
            ),
            (
                r#"<165>1 2026-11-21T04:00:00.003Z web app 7 ID47 [ex@1 iut="3"] started"#,
                "04:00:00.003Z notice host:web program:app pid:7 | started",
            ),
            ("<13>1 - - - - - - hello", "notice | hello"),
            (
                r#"<13>1 2026-11-21T04:00:00Z web app - - [a@1 k="v"]"#,
                r#"04:00:00Z notice host:web program:app | [a@1 k="v"]"#,
            ),
            ("<6>[   12.345678] usb 1-1: new device", "info | usb 1-1: new device"),
            (
                "Nov 21 03:59:00 web kernel: [   12.345678] usb 1-1: new device",
                "03:59:00Z host:web program:kernel | usb 1-1: new device",
            ),
            ("[   12.345678] usb 1-1: new device", "program:kernel | usb 1-1: new device"),
            ("[Sat Nov 21 04:00:00 2026] usb 1-1: new device", "04:00:00Z | usb 1-1: new device"),
            ("<166>Nov 21 03:59:00 fw %ASA-6-302013: Built x", "03:59:00Z info host:fw | %ASA-6-302013: Built x"),
            ("*Nov 21 03:59:00.123: %LINK-3-UPDOWN: Interface x", "03:59:00.123Z error | %LINK-3-UPDOWN: Interface x"),
            (
                "<30>Nov 21 03:59:00 web app[7]: @cee: {\"msg\":\"x\",\"k\":1}",
                "03:59:00Z info host:web program:app pid:7 | x {k}",
            ),
            (
                r#"{"MESSAGE":"x y","PRIORITY":"4","SYSLOG_IDENTIFIER":"app","_PID":"7","_HOSTNAME":"web","__REALTIME_TIMESTAMP":"1795233600250000"}"#,
                "04:00:00.25Z warn host:web program:app pid:7 | x y",
            ),
            (
                "Nov 21 03:59:00 web nginx: 2026/11/21 03:59:00 [error] 7#8: *9 open() failed",
                "03:59:00Z error host:web program:nginx pid:7 thread:8 | *9 open() failed",
            ),
        ]);
    }

    #[test]
    fn a_bare_tag_names_the_program_where_the_label_only_names_the_collector() {
        let read = |service: &str, text: &str| {
            let stream = Arc::new(Stream::new([("service_name".to_owned(), service.to_owned())].into()));
            let time = Timestamp::from_secs(1_795_233_600);
            let record = Record { stream: &stream, time, clock: Clock::Arrival, text: text.as_bytes(), tags: 0 };
            inspect(&record).program.map(|name| String::from_utf8_lossy(name).into_owned())
        };
        let line = "sshd[812]: Failed password for root from 203.0.113.7 port 22 ssh2";
        for collector in ["syslog", "systemd-journal", "varlogs", "/var/log/auth.log"] {
            assert_eq!(read(collector, line).as_deref(), Some("sshd"), "{collector}");
        }
        assert_eq!(read("shop", line), None, "nobody poses as another program");
        assert_eq!(read("syslog", "note: no process id, no tag"), None);
    }

    #[test]
    fn programs_own_headers() {
        check(&[
            ("2026-11-21T04:00:00Z INFO started", "04:00:00Z info | started"),
            (
                "2026-11-21 04:00:00,123 INFO  [main] org.example.App: started",
                "04:00:00.123Z info thread:main logger:org.example.App | started",
            ),
            (
                "2026-11-21 04:00:00,123 - WARN  [Worker:7:Peer@12] - slow",
                "04:00:00.123Z warn thread:Worker:7:Peer@12 | slow",
            ),
            (
                "2026-11-21 04:00:00.123 [http-nio-1] WARN  o.e.Cart - slow",
                "04:00:00.123Z warn thread:http-nio-1 logger:o.e.Cart | slow",
            ),
            (
                "2026-11-21T04:00:00.123+01:00  INFO 7 --- [shop] [           main] c.e.App   : started",
                "03:00:00.123Z info pid:7 thread:shop logger:c.e.App | started",
            ),
            (
                "2026-11-21 04:00:00,123 - shop.cart - ERROR - cannot pay",
                "04:00:00.123Z error logger:shop.cart | cannot pay",
            ),
            ("2026-11-21 04:00:00,123 - root - ERROR - cannot pay", "04:00:00.123Z error logger:root | cannot pay"),
            (
                "2026-11-21 04:00:00.123 | INFO     | shop.cart:pay:12 - paid",
                "04:00:00.123Z info logger:shop.cart:pay:12 | paid",
            ),
            ("INFO:root:started", "info logger:root | started"),
            ("WARNING: disk is nearly full", "warn | disk is nearly full"),
            ("[2026-11-21 04:00:00 +0000] [7] [INFO] Booting worker", "04:00:00Z info pid:7 | Booting worker"),
            ("[2026-11-21 04:00:00,123: INFO/MainProcess] ready", "04:00:00.123Z info logger:MainProcess | ready"),
            ("I1121 03:59:00.123456    7 cart.cc:12] paid", "03:59:00.123456Z info thread:7 logger:cart.cc | paid"),
            (
                "E1121 03:59:00.123456       7 reflector.go:138] cannot list",
                "03:59:00.123456Z error thread:7 logger:reflector.go | cannot list",
            ),
            ("2026/11/21 04:00:00 listening on :80", "04:00:00Z | listening on :80"),
            ("2026/11/21 04:00:00 main.go:12: listening", "04:00:00Z | main.go:12: listening"),
            (
                "time=2026-11-21T04:00:00Z level=WARN msg=\"slow disk\" took=7s",
                "04:00:00Z warn | slow disk {level,took}",
            ),
            (
                "2026-11-21T04:00:00.123456Z  INFO shop::cart: paid id=7",
                "04:00:00.123456Z info logger:shop::cart | paid id=7",
            ),
            ("[2026-11-21T04:00:00Z INFO  shop::cart] paid", "04:00:00Z info logger:shop::cart | paid"),
            (
                "2026-11-21T04:00:00.123Z\tWARN\tcart\tcart/pay.go:12\tslow\t{\"ms\": 7}",
                "04:00:00.123Z warn logger:cart | slow {ms}",
            ),
            ("2026/11/21 04:00:00 [error] 7#8: *9 open() failed", "04:00:00Z error pid:7 thread:8 | *9 open() failed"),
            (
                "[Sat Nov 21 04:00:00.123456 2026] [core:error] [pid 7:tid 8] [client 10.0.0.7:51] AH00126: Invalid URI",
                "04:00:00.123456Z error pid:7 thread:8 logger:core | [client 10.0.0.7:51] AH00126: Invalid URI",
            ),
            ("[Sat Nov 21 04:00:00 2026] [notice] caught SIGTERM", "04:00:00Z notice | caught SIGTERM"),
            (
                "2026-11-21 04:00:00.123 UTC [7] app@db FATAL:  too many clients",
                "04:00:00.123Z critical pid:7 thread:app@db | too many clients",
            ),
            (
                "2026-11-21 04:00:00.123 UTC [7] LOG:  checkpoint starting",
                "04:00:00.123Z info pid:7 | checkpoint starting",
            ),
            (
                "10.0.0.7 2026-11-21 04:00:00 UTC [7] a@b FATAL:  no",
                "04:00:00Z critical pid:7 thread:a@b | 10.0.0.7 no",
            ),
            (
                "2026-11-21T04:00:00.123456Z 7 [Warning] [MY-010055] [Server] slow",
                "04:00:00.123456Z warn pid:7 | [MY-010055] [Server] slow",
            ),
            ("261121  4:00:00 [Note] ready", "04:00:00Z notice | ready"),
            ("2026-11-21  4:00:00 7 [Warning] Aborted", "04:00:00Z warn pid:7 | Aborted"),
            ("7:M 21 Nov 2026 04:00:00.123 * Ready to accept", "04:00:00.123Z notice pid:7 | Ready to accept"),
            (
                "2026-11-21T04:00:00.123+0000 I NETWORK  [conn7] end",
                "04:00:00.123Z info thread:conn7 logger:NETWORK | end",
            ),
            (
                "W, [2026-11-21T04:00:00.123456 #7]  WARN -- shop: slow",
                "04:00:00.123456Z warn pid:7 logger:shop | slow",
            ),
            (
                "[2026-11-21 04:00:00] production.ERROR: cannot pay {\"id\":7}",
                "04:00:00Z error logger:production | cannot pay {id}",
            ),
            (
                "11-21 03:59:00.811  1702  2395 D WindowManager: draw x",
                "03:59:00.811Z debug pid:1702 thread:2395 logger:WindowManager | draw x",
            ),
            ("11-21 03:59:00.811 W/Cart  ( 1702): slow", "03:59:00.811Z warn pid:1702 logger:Cart | slow"),
            ("2026-11-21 04:00:00, Info                  CBS    Loaded x", "04:00:00Z info logger:CBS | Loaded x"),
            ("261121 040000 148 INFO dfs.Node$Task: block 1", "04:00:00Z info pid:148 logger:dfs.Node$Task | block 1"),
            (
                "26/11/21 04:00:00 INFO executor.Backend: Registered x",
                "04:00:00Z info logger:executor.Backend | Registered x",
            ),
            ("20261121-04:00:00:606|Step_LSC|300|onStep 7", "04:00:00.606Z pid:300 logger:Step_LSC | onStep 7"),
            (
                "[11.21 03:59:00] chrome.exe *64 - cache.example:80 open",
                "03:59:00Z logger:chrome.exe | cache.example:80 open",
            ),
            (
                "1795233600 2026.11.21 R02-M1 2026-11-21-04.00.00.675872 R02-M1 RAS KERNEL INFO cache corrected",
                "04:00:00Z info logger:R02-M1 | cache corrected",
            ),
            (
                "1795233600 2026.11.21 dn2 Nov 21 04:00:00 dn2/dn2 crond(pam_unix)[7]: session closed",
                "04:00:00Z host:dn2/dn2 program:crond(pam_unix) pid:7 | session closed",
            ),
            (
                "134681 node-246 unix.hw state.change 1795233600 1 Component x",
                "04:00:00Z host:node-246 logger:unix.hw state.change | 1 Component x",
            ),
            (
                "2568643 node-70 action start 1795233600 1 addMember  (command 12)",
                "04:00:00Z host:node-70 logger:action start | 1 addMember  (command 12)",
            ),
            (
                "1795233600 2026.11.21 N1 2026-11-21-04.00.00.6 N1 NULL RAS FAILURE exited",
                "04:00:00Z error logger:N1 | exited",
            ),
            ("7 1795233600.25 brk(NULL) = 0", "04:00:00.25Z | brk(NULL) = 0"),
            ("2026-11-21T04:00:00.071:INFO:com.root:Response :", "04:00:00.071Z info | com.root:Response :"),
            (
                "api.log.1 2026-11-21 04:00:00.008 7 INFO shop.api.server [req-3810-1 11 54 - - -] 10.0.0.7 \"GET /x\" status: 200",
                "04:00:00.008Z info pid:7 thread:req-3810-1 11 54 - - - logger:shop.api.server | 10.0.0.7 \"GET /x\" status: 200",
            ),
            (
                "2026.11.21 04:00:00.123456 [ 7 ] {} <Information> App: ready",
                "04:00:00.123456Z info pid:7 | App: ready",
            ),
            (
                "[2026/11/21 04:00:00.123 +00:00] [INFO] [server.rs:12] [\"ready\"]",
                "04:00:00.123Z info logger:server.rs:12 | [\"ready\"]",
            ),
            ("2026-11-21 04:00:00.123456+00:00 [info] <0.123.0> ready", "04:00:00.123456Z info thread:0.123.0 | ready"),
            ("(W) 2026-11-21T04:00:00 - login failed", "04:00:00Z warn | login failed"),
            (
                "[Nest] 7  - 11/21/2026, 4:00:00 AM    WARN [Auth] Failed",
                "04:00:00Z warn thread:Auth logger:Nest | Failed",
            ),
            (
                "[Nov 21 03:59:00] NOTICE[7][C-01]: chan_sip.c:12 x: no",
                "03:59:00Z notice pid:7 thread:C-01 logger:chan_sip.c | x: no",
            ),
            (
                "21-Nov-2026 04:00:00.123 INFO [main] org.example.App.start Ready",
                "04:00:00.123Z info thread:main logger:org.example.App.start | Ready",
            ),
            (
                "\u{1b}[2m2026-11-21T04:00:00Z\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m \u{1b}[2mshop::cart\u{1b}[0m: paid",
                "04:00:00Z info logger:shop::cart | paid",
            ),
        ]);
    }

    #[test]
    fn wrapped_and_structured_lines() {
        check(&[
            ("2026-11-21T04:00:00.1Z stdout F INFO started", "04:00:00.1Z info | started"),
            (
                r#"{"log":"2026-11-21 04:00:00 WARN slow\n","stream":"stderr","time":"2026-11-21T04:00:00.1Z"}"#,
                "04:00:00.1Z warn | slow",
            ),
            (
                r#"{"log":"{\"level\":\"warn\",\"msg\":\"slow\"}\n","stream":"stderr","time":"2026-11-21T04:00:00.1Z"}"#,
                "04:00:00.1Z warn | slow {level}",
            ),
            ("web-1  | 2026-11-21 04:00:00 WARN slow", "04:00:00Z warn program:web-1 | slow"),
            (
                r#"{"ts":1795233600.25,"level":"info","logger":"http","msg":"ready"}"#,
                "04:00:00.25Z info logger:http | ready {level}",
            ),
            (
                r#"{"ts":1795233600.25,"status":404,"request":{"remote_ip":"10.0.0.7","method":"GET","uri":"/a/1234?x=1"},"msg":"handled request"}"#,
                "04:00:00.25Z | GET /a/<*> 404",
            ),
            (
                r#"10.0.0.7 - - [21/Nov/2026:04:00:00 +0000] "GET /a HTTP/1.1" 200 5 "-" "curl/8""#,
                "04:00:00Z | GET /a 200",
            ),
            (
                r#"Nov 21 03:59:00 web nginx[7]: 10.0.0.7 - - [21/Nov/2026:03:59:00 +0000] "GET /a HTTP/1.1" 200 5"#,
                "03:59:00Z host:web program:nginx pid:7 | GET /a 200",
            ),
            ("INFO:     10.0.0.7:51 - \"GET /a HTTP/1.1\" 200 OK", "info | GET /a 200"),
            (
                "1795233600.603    310 10.0.0.7 TCP_MISS/200 19 GET http://example.com/a - DIRECT/- text/html",
                "04:00:00.603Z | GET /a 200",
            ),
            (
                "[GIN] 2026/11/21 - 04:00:00 | 401 |     5.3µs |   10.0.0.7 | POST     \"/a\"",
                "04:00:00Z logger:GIN | POST /a 401",
            ),
        ]);
    }

    #[test]
    fn text_without_a_header_stays_whole() {
        for line in [
            "",
            "   ",
            "hello world",
            "  indented: text",
            "10.0.0.7 connected to 10.0.0.8",
            "Failed to start: no such file",
            "12 items in 3.5 s",
            "[connection] was closed by peer",
            "see http://example.com/a=b for more",
            "key=value and then a sentence follows here",
            "{not json}",
            "<Event><System/></Event>",
            "2026 was a good year",
            "3795233600 bytes were read",
            "May the force be with you",
            "at com.example.Main.main(Main.java:3)",
            "Message: x",
        ] {
            assert_eq!(
                parse_with(line.as_bytes(), |p| (p.frame, show(p))),
                (Frame::Bare, format!("| {line}")),
                "{line}"
            );
        }
    }

    #[test]
    fn the_outcome_depends_on_the_line_alone() {
        let stream = Arc::new(Stream::new(std::collections::BTreeMap::new()));
        let mut state = HeaderState::default();
        for line in
            ["Nov 21 03:59:00 web sshd[1]: x", "Nov 21 03:59:00 web no program", "{}", "2026-11-21 04:00:00 INFO x"]
        {
            let time = Timestamp::from_secs(1_795_233_600);
            let record = Record { stream: &stream, time, clock: Clock::Arrival, text: line.as_bytes(), tags: 0 };
            assert_eq!(state.parse(&record), HeaderState::default().parse(&record));
        }
    }

    /// Pieces that headers are made of, so that random lines get deep into the grammars.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: [&str; 64] = [
            "<34>",
            "1 ",
            "2026-11-21T04:00:00Z",
            "2026-11-21 04:00:00,123",
            "Nov 21 04:00:00",
            "[",
            "]",
            "(",
            ")",
            "{",
            "}",
            "\"",
            " ",
            " ",
            "  ",
            "\t",
            ":",
            ": ",
            " - ",
            "|",
            " | ",
            ",",
            "=",
            "\\",
            "\\u12",
            "/",
            "INFO",
            "error",
            "W",
            "web-1",
            "sshd[7]:",
            "app:",
            "org.example.App",
            "a::b",
            "10.0.0.7",
            "2001:db8::1",
            "-",
            "--- ",
            "7",
            "1795233600",
            "@4000",
            "%A-3-X:",
            "GET /a/1 HTTP/1.1",
            "200",
            "stdout F ",
            "stderr P ",
            "{\"a\":",
            "[1,2",
            "null",
            "msg",
            "time=",
            "level=",
            "\n",
            "\r",
            "\x1b[31m",
            "\x1b]",
            "at a.b(c:1)",
            "Traceback (most recent call last):",
            "Caused by: ",
            "é",
            "I1121 ",
            "W, [",
            "#12",
            "req-1",
        ];
        prop_oneof![
            8 => proptest::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..6),
        ]
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(pieces in proptest::collection::vec(piece(), 0..24)) {
            let line = pieces.concat();
            parse_with(&line, |parsed| {
                // What is said to be in the line is in the line.
                for part in [parsed.host, parsed.program, parsed.pid, parsed.thread, parsed.logger].into_iter().flatten() {
                    assert!(memchr::memmem::find(&line, part).is_some());
                }
                if let (Body::Text(Cow::Borrowed(body)), false) = (&parsed.body, line.contains(&b'\n')) {
                    assert!(memchr::memmem::find(&line, body).is_some());
                }
            });
        }

        #[test]
        fn random_bytes_do_not_either(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_with(&line, |_| ());
        }
    }
}
