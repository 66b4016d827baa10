//! What the receiver counts, in Prometheus' text format.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// How requests ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stored,
    Repeat,
    Empty,
    Quarantined,
    Overloaded,
    Full,
    Unavailable,
    Unauthorized,
    TooLarge,
    TooFast,
    Slow,
    NotFound,
}

const OUTCOMES: [(Outcome, &str); 12] = [
    (Outcome::Stored, "stored"),
    (Outcome::Repeat, "repeat"),
    (Outcome::Empty, "empty"),
    (Outcome::Quarantined, "quarantined"),
    (Outcome::Overloaded, "overloaded"),
    (Outcome::Full, "full"),
    (Outcome::Unavailable, "unavailable"),
    (Outcome::Unauthorized, "unauthorized"),
    (Outcome::TooLarge, "too_large"),
    (Outcome::TooFast, "too_fast"),
    (Outcome::Slow, "slow"),
    (Outcome::NotFound, "not_found"),
];

/// Numbers since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: [AtomicU64; OUTCOMES.len()],
    pub(crate) lines: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) micros: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) troubles_untold: AtomicU64,
    pub(crate) syslog_lines: AtomicU64,
    pub(crate) syslog_dropped: AtomicU64,
}

impl Metrics {
    /// Counts a request.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.requests[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that ended so.
    pub(crate) fn requests(&self, outcome: Outcome) -> u64 {
        self.requests[outcome as usize].load(Ordering::Relaxed)
    }

    /// The page for Prometheus: these numbers, gauges, and the ledger's counters.
    pub(crate) fn page(&self, gauges: &[(&str, u64)], counters: &BTreeMap<String, u64>) -> String {
        let mut page = String::new();
        let mut put = |line: std::fmt::Arguments<'_>| page.write_fmt(line).unwrap_or_default();
        put(format_args!("# TYPE logwarden_push_requests_total counter\n"));
        for (outcome, name) in OUTCOMES {
            put(format_args!("logwarden_push_requests_total{{outcome=\"{name}\"}} {}\n", self.requests(outcome)));
        }
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        for (name, value) in [
            ("push_accepted_lines", load(&self.lines)),
            ("push_received_bytes", load(&self.bytes)),
            ("push_request_microseconds", load(&self.micros)),
            ("push_connections_refused", load(&self.connections_refused)),
            ("push_troubles_untold", load(&self.troubles_untold)),
            ("push_syslog_lines", load(&self.syslog_lines)),
            ("push_syslog_dropped", load(&self.syslog_dropped)),
        ] {
            put(format_args!("# TYPE logwarden_{name}_total counter\nlogwarden_{name}_total {value}\n"));
        }
        put(format_args!(
            "# TYPE logwarden_push_connections gauge\nlogwarden_push_connections {}\n",
            load(&self.connections)
        ));
        for (name, value) in gauges {
            put(format_args!("# TYPE logwarden_{name} gauge\nlogwarden_{name} {value}\n"));
        }
        // `lines_kept.general` is the counter `lines_kept` of the profile `general`.
        let mut last = "";
        for (name, value) in counters {
            let (name, of) = name.split_once('.').map_or((name.as_str(), None), |(name, of)| (name, Some(of)));
            if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                continue;
            }
            let family = match of {
                Some(_) => format!("{name}_by"),
                None => name.to_owned(),
            };
            if last != name || of.is_none() {
                put(format_args!("# TYPE logwarden_{family}_total counter\n"));
            }
            last = name;
            match of {
                Some(of) => {
                    let of: String = of.chars().filter(|c| !c.is_control() && !"\"\\".contains(*c)).take(100).collect();
                    put(format_args!("logwarden_{family}_total{{name=\"{of}\"}} {value}\n"));
                }
                None => put(format_args!("logwarden_{family}_total {value}\n")),
            }
        }
        page
    }
}
