//! What a line says before its message: time, host, program, pid, thread, logger, level.

use std::borrow::Cow;

use crate::{Level, Record, Timestamp, access::Access, fields::Fields};

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

/// What is remembered of a stream's headers.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderState {}

impl HeaderState {
    /// Takes a line, or a joined event, apart.
    pub(crate) fn parse<'a>(&mut self, record: &Record<'a>) -> Parsed<'a> {
        Parsed { body: Body::Text(Cow::Borrowed(record.text)), ..Parsed::default() }
    }
}
