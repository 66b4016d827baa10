//! What a line says before its message: time, host, program, pid, thread, logger, level.
//!
//! Headers are recognised by their parts and the order of these (date, time, level, `[thread]`, `logger:`,
//! `program[pid]:`), not by the product that wrote them. What is left is the message: text, fields or a request.
//!
//! A line is always taken apart in the same way, whatever its stream held before: ids hang on the outcome, and they must
//! not depend on the order of lines or on a restart. What cannot be told from the line alone stays in the text.

mod app;
mod clock;
mod level;
mod scan;
mod syslog;

use std::borrow::Cow;

use self::scan::skip_blanks;
use crate::{
    Level, Record, Stream, Timestamp, Zone,
    access::{self, Access},
    fields::{self, Fields},
    join,
};

pub(crate) use self::{
    clock::{Moment, read as read_moment},
    level::{letter as letter_level, word as level_word},
    scan::is_address,
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

/// The time that a whole value is, when it says everything itself.
pub(crate) fn instant(text: &[u8]) -> Option<Timestamp> {
    let (moment, end) = clock::read(text)?;
    (end == text.len() && moment.has_year()).then(|| moment.resolve(Timestamp::default(), &Zone::UTC))?
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
        let clean = scan::strip_escapes(text);
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
        let mut parsed = self.line(first, MAX_LAYERS);
        if let Body::Text(body) = &parsed.body {
            parsed.body = Body::Text(Cow::Owned(join::summary(body, &text[end + 1..])));
        }
        parsed
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
        if let Some(at) = scan::uptime(rest) {
            parsed.frame = Frame::Own;
            return self.finish(&rest[skip_blanks(rest, at)..], parsed);
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
            let tail = syslog::tail(text, end, syslog::Trust::Sure, self.stream.host()).unwrap_or_default();
            let at = if tail.at == 0 { skip_blanks(text, end) } else { tail.at };
            parsed.host = tail.host;
            parsed.program = tail.program;
            parsed.pid = tail.pid;
            return self.carried(&text[at..], parsed, layers);
        }
        if let Some(at) = scan::uptime(&text[start..]) {
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
        if parsed.program == Some(b"kernel") {
            if let Some(at) = scan::uptime(text) {
                return self.finish(&text[at + usize::from(text.get(at) == Some(&b' '))..], parsed);
            }
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
        if let Some(level) = level::severity_of_message_id(text) {
            parsed.level = Some(level);
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
        if let Some(tail) = syslog::tail(text, end, syslog::trust(text, &moment, end), self.stream.host()) {
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
                            Cow::Owned(scan::strip_escapes(line))
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
        if text.first() == Some(&b'{') {
            if let Some(object) = fields::json(text) {
                return self.fields(object, parsed);
            }
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
                        _ => Body::Text(Cow::Owned(scan::strip_escapes(text))),
                    }
                }
            },
        }
    }
}

/// Whether what looks like a time begins a header: a bare number or time of day needs more to go by than a date.
fn plausible(moment: &Moment, text: &[u8], end: usize) -> bool {
    let blank = matches!(text.get(end), None | Some(b' ' | b'\t' | b':' | b',' | b'|' | b']'));
    match (moment.is_epoch(), moment.has_date()) {
        (true, _) => matches!(text.get(end), Some(b' ' | b'\t' | b':' | b',' | b'|')),
        (false, true) => true,
        (false, false) => blank && memchr::memchr(b':', &text[..end]).is_some() && end >= 8,
    }
}
