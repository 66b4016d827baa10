//! What goes in: lines, and the streams they come from.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{LineId, Timestamp};

/// How bad a line says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Finer than debug.
    Trace,
    /// For developers.
    Debug,
    /// Normal operation.
    Info,
    /// Normal but significant.
    Notice,
    /// Might become a problem.
    Warn,
    /// A failed operation.
    Error,
    /// Critical, alert, emergency, fatal, panic.
    Critical,
}

impl Level {
    /// The level that a word of any usual spelling means (`warn`, `WARNING`, `err`, `emerg`, `F`), if any.
    pub fn parse(word: &str) -> Option<Self> {
        let is = |names: &[&str]| names.iter().any(|n| word.eq_ignore_ascii_case(n));
        Some(match () {
            () if is(&["trace", "finest", "finer", "t"]) => Self::Trace,
            () if is(&["debug", "fine", "verbose", "dbg", "d", "v"]) => Self::Debug,
            () if is(&["info", "information", "informational", "i", "inf", "log"]) => Self::Info,
            () if is(&["notice", "n", "note"]) => Self::Notice,
            () if is(&["warn", "warning", "w", "wrn"]) => Self::Warn,
            () if is(&["error", "err", "severe", "e"]) => Self::Error,
            () if is(&["critical", "crit", "alert", "emerg", "emergency", "fatal", "panic", "f", "c"]) => {
                Self::Critical
            }
            () => return None,
        })
    }

    /// The level of a syslog severity number (0 emergency to 7 debug), if it is one.
    pub fn from_syslog(severity: u8) -> Option<Self> {
        Some(match severity {
            0..=2 => Self::Critical,
            3 => Self::Error,
            4 => Self::Warn,
            5 => Self::Notice,
            6 => Self::Info,
            7 => Self::Debug,
            _ => return None,
        })
    }

    /// The word for it: `warn`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which offset from UTC the times of a stream have where its lines do not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Zone {
    /// Always this many seconds east of UTC.
    Fixed(i32),
    /// From each UTC second on, that many seconds east of UTC; sorted. Made from the time zone database by whoever may
    /// read files. Before the first entry its offset counts, an empty table is UTC.
    Table(Arc<[(i64, i32)]>),
}

impl Zone {
    /// UTC.
    pub const UTC: Self = Self::Fixed(0);

    /// The offset from UTC, in seconds, at a UTC second.
    pub fn offset_at(&self, utc_secs: i64) -> i32 {
        match self {
            Self::Fixed(offset) => *offset,
            Self::Table(table) => {
                let after = table.partition_point(|(from, _)| *from <= utc_secs);
                table.get(after.saturating_sub(1)).map_or(0, |(_, offset)| *offset)
            }
        }
    }

    /// The UTC second of a local second. A local time that occurs twice is taken as the earlier one, one that never
    /// occurs is moved by the gap.
    pub fn to_utc(&self, local_secs: i64) -> i64 {
        let guess = local_secs.saturating_sub(i64::from(self.offset_at(local_secs)));
        let before = i64::from(self.offset_at(guess.saturating_sub(3 * 3600)));
        let first = local_secs.saturating_sub(before);
        if i64::from(self.offset_at(first)) == before { first } else { guess }
    }
}

/// A source of lines in order: a label set, a file, a host's program. Compared by its labels and zone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stream {
    labels: BTreeMap<String, String>,
    zone: Zone,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    home: String,
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        (&self.labels, &self.zone) == (&other.labels, &other.zone)
    }
}

impl Eq for Stream {}

const HOST_NAMES: [&str; 9] =
    ["host", "hostname", "node_name", "nodename", "node", "_HOSTNAME", "instance", "host_name", "computer"];
const SERVICE_NAMES: [&str; 14] = [
    "service",
    "service_name",
    "unit",
    "systemd_unit",
    "_SYSTEMD_UNIT",
    "SYSLOG_IDENTIFIER",
    "syslog_identifier",
    "app",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "compose_service",
    "job",
    "filename",
];
const LEVEL_NAMES: [&str; 4] = ["detected_level", "level", "severity", "PRIORITY"];

impl Stream {
    /// A stream with these labels; times without a zone are UTC.
    pub fn new(labels: BTreeMap<String, String>) -> Self {
        Self { labels, zone: Zone::UTC, details: BTreeMap::new(), home: String::new() }
    }

    /// Sets the zone of times that name none.
    #[must_use]
    pub fn with_zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// Sets the machine where the stream is read: whose a line is when neither the labels nor the line say it. On a log
    /// host the lines of one file are from many machines.
    #[must_use]
    pub fn with_home(mut self, host: impl Into<String>) -> Self {
        self.home = host.into();
        self
    }

    /// Adds what is known about single lines besides the labels (Loki's structured metadata): it helps to name host,
    /// service and level, and is no part of which stream this is. Only names that [`Self::tells`] are kept.
    #[must_use]
    pub fn with_details(mut self, mut details: BTreeMap<String, String>) -> Self {
        details.retain(|name, _| Self::tells(name));
        self.details = details;
        self
    }

    /// Whether a label of this name may tell the host, the service or the level.
    pub fn tells(name: &str) -> bool {
        HOST_NAMES.contains(&name) || SERVICE_NAMES.contains(&name) || LEVEL_NAMES.contains(&name)
    }

    /// The labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The zone of times that name none.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The host that the labels name. Wins over the host in a line's header, since anybody may write a header.
    pub fn host(&self) -> Option<&str> {
        self.first(&HOST_NAMES)
    }

    /// The host of a line whose header names `told`: the labels' host, else `told`, else the machine where the stream is
    /// read. A short name of that machine is that machine.
    pub(crate) fn host_of<'s>(&'s self, told: Option<&'s str>) -> &'s str {
        let home = self.home.as_str();
        let short = |name: &'s str| name.split('.').next().unwrap_or_default();
        match (self.host(), told) {
            (Some(host), _) => host,
            (None, Some(told)) if !home.is_empty() && short(told).eq_ignore_ascii_case(short(home)) => home,
            (None, Some(told)) => told,
            (None, None) => home,
        }
    }

    /// A host that lines of this stream may well name.
    pub(crate) fn likely_host(&self) -> Option<&str> {
        self.host().or(Some(self.home.as_str())).filter(|host| !host.is_empty())
    }

    /// The service that the labels name. The program in a syslog header is more precise and wins over it.
    pub fn service(&self) -> Option<&str> {
        self.first(&SERVICE_NAMES)
    }

    /// The level that the labels name.
    pub fn level(&self) -> Option<Level> {
        self.first(&LEVEL_NAMES)
            .and_then(|word| word.parse().ok().map_or_else(|| Level::parse(word), Level::from_syslog))
    }

    fn first(&self, names: &[&str]) -> Option<&str> {
        let known = |value: &&str| !value.is_empty() && *value != "unknown_service" && *value != "unknown";
        [&self.labels, &self.details]
            .into_iter()
            .flat_map(|labels| names.iter().filter_map(|name| labels.get(*name)))
            .map(String::as_str)
            .find(known)
    }
}

/// Who said something: the memory of normal and the keys of incidents hang on it. Empty where nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The machine.
    pub host: Arc<str>,
    /// The unit, program or container.
    pub service: Arc<str>,
}

/// Where a line's time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clock {
    /// The record carried it (Loki, the journal): it counts.
    Record,
    /// It is when the line was read or received: a time in the line's own header wins over it, and lends it the year
    /// where the header has none.
    Arrival,
}

/// One log line, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which line it is.
    pub id: LineId,
    /// When it was written, or read: `clock` says which.
    pub time: Timestamp,
    /// Where `time` comes from.
    pub clock: Clock,
    /// Where it was written.
    pub stream: Arc<Stream>,
    /// The bytes as they came, without the line end. Any bytes; usually UTF-8.
    pub text: Vec<u8>,
    /// Bits of the caller's choice, such as which queries brought the line; a row has those of all its lines.
    pub tags: u64,
}

impl Line {
    /// The line as the miner takes it.
    pub fn record(&self) -> Record<'_> {
        Record { stream: &self.stream, time: self.time, clock: self.clock, text: &self.text, tags: self.tags }
    }
}

/// One log line, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it was written. Lines of one stream should share one `Arc`: it is compared by address first.
    pub stream: &'a Arc<Stream>,
    /// When it was written, or read: `clock` says which.
    pub time: Timestamp,
    /// Where `time` comes from.
    pub clock: Clock,
    /// The bytes as they came, without the line end.
    pub text: &'a [u8],
    /// Bits of the caller's choice; see [`Line::tags`].
    pub tags: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_table_finds_the_offset_on_both_sides_of_a_change() {
        // Europe/Berlin, autumn 2026: from 2026-10-25T01:00Z on one hour less.
        let change = 1_792_890_000;
        let zone = Zone::Table(Arc::from([(0, 7200), (change, 3600)]));
        assert_eq!(zone.offset_at(change - 1), 7200);
        assert_eq!(zone.offset_at(change), 3600);
        assert_eq!(zone.to_utc(change + 3 * 3600), change + 2 * 3600);
        assert_eq!(zone.to_utc(change + 7200 - 1), change - 1);
        assert_eq!(zone.to_utc(change + 3600), change - 3600, "the hour that occurs twice is the earlier one");
    }

    #[test]
    fn labels_name_host_service_and_level() {
        let labels = [("host", "web-1"), ("service_name", "unknown_service"), ("job", "syslog"), ("PRIORITY", "3")];
        let stream = Stream::new(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(
            (stream.host(), stream.service(), stream.level()),
            (Some("web-1"), Some("syslog"), Some(Level::Error))
        );
    }

    #[test]
    fn details_help_to_name_and_are_no_part_of_the_stream() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let plain = Stream::new(map(&[("job", "syslog")]));
        let told =
            plain.clone().with_details(map(&[("detected_level", "error"), ("host", "web-1"), ("trace_id", "7")]));
        assert_eq!(plain, told);
        assert_eq!((told.host(), told.service(), told.level()), (Some("web-1"), Some("syslog"), Some(Level::Error)));
        assert!(!Stream::tells("trace_id"));
    }
}
