//! What the receiver counts, in Prometheus' text format.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// Every family of metrics: its name without `logwarden_`, whether it counts or is a level, and what of. The table in
/// docs/push.md is made from this one, and the page has all of them, also those that are still zero.
const FAMILIES: [(&str, Kind, &str); 35] = [
    ("push_requests_total", Kind::By("outcome"), "Requests since the start, by how they ended."),
    ("push_accepted_lines_total", Kind::Counter, "Lines acknowledged since the start."),
    ("push_received_bytes_total", Kind::Counter, "Bytes of bodies received since the start, as they were sent."),
    ("push_request_microseconds_total", Kind::Counter, "Time that requests took since the start, from head to answer."),
    ("push_connections", Kind::Gauge, "Open connections."),
    (
        "push_connections_refused_total",
        Kind::Counter,
        "Connections closed at once since the start: too many, or without TLS.",
    ),
    ("push_in_flight_bytes", Kind::Gauge, "Memory that bodies under way hold."),
    ("push_spool_rows", Kind::Gauge, "Batches on disk that wait to be folded."),
    ("push_spool_bytes", Kind::Gauge, "Their size; at `max_spool_mib` senders are told to come again."),
    ("push_syslog_lines_total", Kind::Counter, "Syslog messages stored since the start."),
    (
        "push_syslog_dropped_total",
        Kind::Counter,
        "Syslog messages lost since the start: they came faster than they could be read (UDP), or could not be stored before the end.",
    ),
    (
        "push_troubles_untold_total",
        Kind::Counter,
        "Troubles with senders since the start that could not be told; zero, or something is wrong with us.",
    ),
    ("push_lines_total", Kind::Counter, "Lines that were acknowledged."),
    ("push_repeats_total", Kind::Counter, "Batches that were sent again, recognised, and not counted twice."),
    ("push_lines_repeated_total", Kind::Counter, "Their lines."),
    ("push_lines_cut_total", Kind::Counter, "Lines above 1 MiB, of which head and tail are kept."),
    ("push_odd_times_total", Kind::Counter, "Lines whose time was not believed, so that the time of receipt counts."),
    (
        "push_unreadable_total",
        Kind::Counter,
        "Bodies that could not be read, or not wholly; what could not is in quarantine.",
    ),
    ("lines_read_total", Kind::Counter, "Lines folded."),
    ("lines_own_total", Kind::Counter, "Of them: our own program's, left out."),
    ("lines_duplicate_total", Kind::Counter, "Lines that were known already."),
    ("lines_late_total", Kind::Counter, "Lines that came late."),
    ("lines_kept_total", Kind::Counter, "Lines that count."),
    ("lines_coarse_total", Kind::Counter, "Of them: of programs that flood with ever new text, folded coarsely."),
    ("lines_crowded_total", Kind::Counter, "Of them: their host and program were not kept, since there were too many."),
    (
        "lines_absorbed_total",
        Kind::Counter,
        "Of them: with new words where words vary, no longer templates of their own.",
    ),
    (
        "lines_middle_total",
        Kind::Counter,
        "Of them: in the middle of a long multi-line event, counted but not kept as text.",
    ),
    ("lines_kept_by_total", Kind::By("name"), "Lines that count, by the profile that they are judged under."),
    ("lines_analysed_by_total", Kind::By("name"), "Of them: judged by the model."),
    ("lines_detectors_only_by_total", Kind::By("name"), "Of them: judged by the detectors alone."),
    ("lines_shed_by_total", Kind::By("name"), "Of them: not judged by the model, because they had waited too long."),
    ("templates_evicted_total", Kind::Counter, "Templates that had to leave memory for new ones."),
    (
        "templates_unpaired_total",
        Kind::Counter,
        "New templates that resemble more others than they were compared with.",
    ),
    (
        "rows_thinned_total",
        Kind::Counter,
        "Rows that keep fewer samples or values than usual, since those of all rows took too much memory.",
    ),
    ("counters_omitted_total", Kind::Counter, "What was counted under names beyond the 10,000 that are kept."),
];

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    /// Counters by the label of that name.
    By(&'static str),
    Gauge,
}

/// The families as a table in Markdown, for the documentation.
#[cfg(test)]
fn reference() -> String {
    let mut table = "| name | kind | what |\n|---|---|---|\n".to_owned();
    for (name, kind, what) in FAMILIES {
        let (label, kind) = match kind {
            Kind::Counter => (String::new(), "counter"),
            Kind::By(label) => (format!("{{{label}}}"), "counter"),
            Kind::Gauge => (String::new(), "gauge"),
        };
        let _ = writeln!(table, "| `logwarden_{name}{label}` | {kind} | {what} |");
    }
    table
}

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
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        // Of each family the labels, as written, and the number.
        let mut families: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        let mut put = |family: &str, label: String, number| {
            families.entry(family.to_owned()).or_default().push((label, number));
        };
        for (outcome, name) in OUTCOMES {
            put("push_requests_total", format!("{{outcome=\"{name}\"}}"), self.requests(outcome));
        }
        for (name, number) in [
            ("push_accepted_lines_total", load(&self.lines)),
            ("push_received_bytes_total", load(&self.bytes)),
            ("push_request_microseconds_total", load(&self.micros)),
            ("push_connections_refused_total", load(&self.connections_refused)),
            ("push_troubles_untold_total", load(&self.troubles_untold)),
            ("push_syslog_lines_total", load(&self.syslog_lines)),
            ("push_syslog_dropped_total", load(&self.syslog_dropped)),
            ("push_connections", load(&self.connections)),
        ] {
            put(name, String::new(), number);
        }
        for (name, number) in gauges {
            put(name, String::new(), *number);
        }
        for (name, number) in counters {
            // `lines_kept.general` is the counter `lines_kept` of the profile `general`.
            match name.split_once('.') {
                Some((name, of)) => {
                    let of: String = of.chars().filter(|c| !c.is_control() && !"\"\\".contains(*c)).take(100).collect();
                    put(&format!("{name}_by_total"), format!("{{name=\"{of}\"}}"), *number);
                }
                None => put(&format!("{name}_total"), String::new(), *number),
            }
        }
        let mut page = String::new();
        for (name, kind, what) in FAMILIES {
            let samples = families.remove(name).unwrap_or_default();
            let _ = writeln!(page, "# HELP logwarden_{name} {what}");
            write_family(&mut page, name, kind, &samples);
        }
        for (name, samples) in families {
            if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                write_family(&mut page, &name, Kind::By("name"), &samples);
            }
        }
        page
    }
}

fn write_family(page: &mut String, name: &str, kind: Kind, samples: &[(String, u64)]) {
    let _ = writeln!(page, "# TYPE logwarden_{name} {}", if kind == Kind::Gauge { "gauge" } else { "counter" });
    for (label, number) in samples {
        let _ = writeln!(page, "logwarden_{name}{label} {number}");
    }
    if samples.is_empty() && !matches!(kind, Kind::By(_)) {
        let _ = writeln!(page, "logwarden_{name} 0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_family_and_says_what_it_is() {
        let counters = BTreeMap::from([("lines_kept.general".to_owned(), 7), ("lines_kept".to_owned(), 7)]);
        let page = Metrics::default().page(&[("push_spool_rows", 3)], &counters);
        for (name, ..) in FAMILIES {
            assert_eq!(page.matches(&format!("# TYPE logwarden_{name} ")).count(), 1, "{name}: {page}");
        }
        for line in [
            "logwarden_push_spool_rows 3",
            "logwarden_lines_kept_total 7",
            "logwarden_lines_kept_by_total{name=\"general\"} 7",
            "logwarden_lines_read_total 0",
            "logwarden_push_requests_total{outcome=\"stored\"} 0",
        ] {
            assert!(page.lines().any(|of| of == line), "{line}: {page}");
        }
    }

    #[test]
    fn the_table_in_the_docs_is_this_one() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/push.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (begin, end) =
            ("<!-- metrics: made from crates/push-source/src/metrics.rs -->\n", "<!-- end of metrics -->");
        let (before, rest) = page.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        let wanted = format!("{before}{begin}\n{}\n{end}{after}", reference());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        } else {
            assert!(page == wanted, "docs/push.md is outdated: UPDATE=1 cargo test -p logwarden-push-source writes it");
        }
    }
}
