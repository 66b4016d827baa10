//! What can be typed.

use std::{net::SocketAddr, num::NonZeroU64, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use logwarden_core::Severity;
use logwarden_push_source::Network;

use crate::shippers::Shipper;

/// Reads logs, finds what is new, surging or known to be bad, and tells it.
#[derive(Debug, Parser)]
#[command(
    name = "logwarden-analyzer",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  logwarden-analyzer scan /var/log/syslog          what is wrong in a file; needs no configuration
  journalctl -b | logwarden-analyzer scan -        the same for the journal
  logwarden-analyzer doctor                        is everything set up, and if not, what to do
  logwarden-analyzer run                           one pass, as the timer starts it

Exit codes: 0 done, 1 failed and worth another run, 2 wrong usage or configuration,
  3 `scan --fail-on` was met, 130 `scan` or `fold` was stopped by Ctrl-C.
Environment variables such as LOKI_URL, OLLAMA_HOST and DISCORD_WEBHOOK_URL are enough to run."
)]
pub(crate) struct Analyzer {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// The configuration; default: ./logwarden.toml, the user's, /etc/logwarden/logwarden.toml, or the environment alone
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where state is kept; default: systemd's, /var/lib/logwarden for root, else ~/.local/state/logwarden
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Keep what is received, asked and answered in files in DIR, redacted, to find out why something happens
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) trail: Option<PathBuf>,
    /// Say more on standard error; twice: everything
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One pass: read what is new, judge it, tell it
    #[command(after_help = "\
Example:
  logwarden-analyzer run --config /etc/logwarden/logwarden.toml

Exits 1 when a source could not be read or a message waits. The last line says whether the next
pass makes good, or whether somebody has to act.")]
    Run,
    /// Passes until stopped
    Watch,
    /// Learns what is normal from Loki's past, without alerting
    #[command(after_help = "\
Example:
  logwarden-analyzer backfill --since 7d

Reads what was written before the first pass, so that new and unusual things are told from the
first day on. Stopped, it goes on where it was; run twice, it counts nothing twice; `run` may go on
meanwhile.")]
    Backfill {
        /// How far back: 24h, 7d, 4w
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "7d")]
        since: std::time::Duration,
    },
    /// Finds what is wrong in files or standard input; no state, no services
    #[command(after_help = "\
Examples:
  logwarden-analyzer scan examples/auth.log
  logwarden-analyzer scan /var/log/syslog /var/log/syslog.1 /var/log/syslog.2.gz
  journalctl -b -o json | logwarden-analyzer scan -
  logwarden-analyzer scan --format json --fail-on high build.log > findings.ndjson")]
    Scan(Scan),
    /// The templates of a log: which lines there are, and how often
    #[command(after_help = "\
Examples:
  logwarden-analyzer fold /var/log/syslog
  journalctl -b | logwarden-analyzer fold -
  logwarden-analyzer fold --format csv app.log > lines.csv
  logwarden-analyzer fold --around 1234 app.log")]
    Fold(Fold),
    /// Checks everything that is needed, and says what to do
    Doctor(Doctor),
    #[command(flatten)]
    Shared(Shared),
}

impl Command {
    /// Whether its log lines are what one reads.
    pub(crate) fn is_service(&self) -> bool {
        matches!(self, Self::Run | Self::Watch | Self::Backfill { .. } | Self::Shared(Shared::NotifyFailure { .. }))
    }
}

/// Takes logs from Fluent Bit, Promtail, Alloy, Vector, OpenTelemetry and syslog, and tells what is wrong in them.
#[derive(Debug, Parser)]
#[command(
    name = "logwarden-receiver",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  logwarden-receiver serve                         listens on 127.0.0.1:5000
  logwarden-receiver doctor                        is all set up, and what to paste into shippers
  logwarden-receiver incidents                     what is going on
  logwarden-receiver serve --listen 0.0.0.0:5000 --insecure-allow 192.168.0.0/16
                                                   for a network that you trust

Exit codes: 0 done, 1 failed and worth another run, 2 wrong usage or configuration.
Variables such as RECEIVER_LISTEN, OLLAMA_HOST and DISCORD_WEBHOOK_URL are enough to run."
)]
pub(crate) struct Receiver {
    #[command(subcommand)]
    pub(crate) command: ReceiverCommand,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReceiverCommand {
    /// Listens until stopped; every batch is on disk before it is answered
    #[command(after_help = "\
Examples:
  logwarden-receiver serve
  logwarden-receiver serve --listen 0.0.0.0:5000 --insecure-allow 192.168.0.0/16

Try it:
  curl -d '{\"log\": \"Disk space on /dev/sda1 is critically low: only 5% remaining.\"}' \\
    http://127.0.0.1:5000/receive_logs")]
    Serve(Serve),
    /// Checks everything that is needed, and says what to do
    Doctor(ReceiverDoctor),
    #[command(flatten)]
    Shared(Shared),
}

impl ReceiverCommand {
    /// Whether its log lines are what one reads.
    pub(crate) fn is_service(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Shared(Shared::NotifyFailure { .. }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen; default: `receiver.listen`, else 127.0.0.1:5000
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// A network that may send without TLS and without saying who it is
    #[arg(long, value_name = "CIDR")]
    pub(crate) insecure_allow: Vec<Network>,
    /// Take syslog over TCP, too, there; default: `receiver.syslog_tcp`, else not
    #[arg(long, value_name = "ADDR")]
    pub(crate) syslog_tcp: Option<SocketAddr>,
    /// Take syslog over UDP, too, there; default: `receiver.syslog_udp`, else not
    #[arg(long, value_name = "ADDR")]
    pub(crate) syslog_udp: Option<SocketAddr>,
}

/// What both programs can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Shared {
    /// Rules of one's own
    #[command(subcommand)]
    Rules(Rules),
    /// Sends a test message through every channel, or one
    TestAlert {
        /// The channel's name
        channel: Option<String>,
    },
    /// What is going on, or was
    #[command(after_help = "\
Examples:
  logwarden-analyzer incidents
  logwarden-analyzer incidents 1f2e3d4c
  logwarden-analyzer incidents --all --format json")]
    Incidents(Incidents),
    /// Holds messages back
    #[command(after_help = "\
Examples:
  logwarden-analyzer mute 1f2e3d4c --for 12h --reason 'known, being repaired'
  logwarden-analyzer mute --rule oom-kill --host web-1
  logwarden-analyzer mute --list")]
    Mute(Mute),
    /// Ends a mute
    Unmute {
        /// The mute's name, as `mute --list` shows it
        id: String,
    },
    /// Forgets that a template is normal or was judged harmless
    Forget {
        /// The template's id, or that of an incident
        id: String,
    },
    /// What was pushed and could not be read
    #[command(after_help = "\
Examples:
  logwarden-analyzer quarantine
  logwarden-analyzer quarantine show 12
  logwarden-analyzer quarantine replay --all

Lines that are replayed are folded by the receiver within half a minute, or at its next start.")]
    Quarantine {
        #[command(subcommand)]
        command: Option<Quarantined>,
    },
    /// Tells that a systemd unit has failed; for OnFailure=
    NotifyFailure {
        /// The unit
        unit: String,
    },
    /// Writes a commented configuration and hardened systemd units
    Init(Init),
    /// Prints completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Scan {
    /// Files, plain or packed with gzip or zstd; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// What to look for: general, security or performance
    #[arg(long, value_name = "NAME", default_value = "general")]
    pub(crate) profile: Vec<String>,
    /// For people, or one JSON object per line
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Exit 3 when something at least that bad is found: low, medium, high or critical
    #[arg(long, value_name = "SEVERITY")]
    pub(crate) fail_on: Option<Severity>,
    /// Ask the configured model, too
    #[arg(long)]
    pub(crate) explain: bool,
    /// The time zone of lines that name none: UTC, Europe/Berlin; default: this machine's
    #[arg(long, value_name = "ZONE")]
    pub(crate) timezone: Option<String>,
    /// When to use colours
    #[arg(long, value_enum, default_value_t)]
    pub(crate) color: Color,
}

#[derive(Debug, Args)]
pub(crate) struct Fold {
    /// Files, plain or packed with gzip or zstd; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// A table of templates, one JSON object per template, or CSV: `line_no,template_id,template` for every line
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TableFormat,
    /// Lines are messages without time and program before them
    #[arg(long)]
    pub(crate) content: bool,
    /// Only the most frequent templates
    #[arg(long, value_name = "N", conflicts_with = "around")]
    pub(crate) top: Option<usize>,
    /// Only this line: its template, and the lines before and after it in its file
    #[arg(long, value_name = "LINE_NO")]
    pub(crate) around: Option<NonZeroU64>,
    /// The time zone of lines that name none: UTC, Europe/Berlin; default: this machine's
    #[arg(long, value_name = "ZONE")]
    pub(crate) timezone: Option<String>,
    /// When to use colours
    #[arg(long, value_enum, default_value_t)]
    pub(crate) color: Color,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rules {
    /// Checks a file of rules with its examples, and says which lines of a log the rules fit
    #[command(after_help = "\
Examples:
  logwarden-analyzer rules test /etc/logwarden/rules/shop.toml
  logwarden-analyzer rules test shop.toml /var/log/shop/*.log")]
    Test(RulesTest),
}

#[derive(Debug, Args)]
pub(crate) struct RulesTest {
    /// The file with rules
    pub(crate) rules: PathBuf,
    /// Logs to try them on, with those that come with the program; `-` is standard input
    #[arg(value_name = "LOG")]
    pub(crate) logs: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantined {
    /// Lists what is kept, newest first
    List {
        /// For people, or one JSON object per line
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Shows one body: who sent it, how, and its beginning
    Show {
        /// Its number
        number: u64,
        /// Write its bytes as they are, and nothing else
        #[arg(long)]
        raw: bool,
    },
    /// Reads bodies once more, for instance after an update
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Replay {
        /// Their numbers
        #[arg(group = "which")]
        numbers: Vec<u64>,
        /// All that are kept
        #[arg(long, group = "which")]
        all: bool,
        /// Take every line as it is, whatever it was meant to be
        #[arg(long)]
        as_text: bool,
    },
    /// Removes bodies for good
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Remove {
        /// Their numbers
        #[arg(group = "which")]
        numbers: Vec<u64>,
        /// All that are kept
        #[arg(long, group = "which")]
        all: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Look only at this machine: no connection is made
    #[arg(long)]
    pub(crate) offline: bool,
    /// Also ask the model about three lines, which loads it
    #[arg(long, conflicts_with = "offline")]
    pub(crate) probe: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiverDoctor {
    #[command(flatten)]
    pub(crate) doctor: Doctor,
    /// Only print what to paste into this log shipper, so that it pushes here
    #[arg(long, value_enum, value_name = "NAME", conflicts_with_all = ["offline", "probe"])]
    pub(crate) shipper: Option<Shipper>,
}

#[derive(Debug, Args)]
pub(crate) struct Incidents {
    /// One incident in full
    pub(crate) id: Option<String>,
    /// Also those that are over
    #[arg(long)]
    pub(crate) all: bool,
    /// What happened in the latest passes, in a few sentences
    #[arg(long)]
    pub(crate) summaries: bool,
    /// For people, or one JSON object per line
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
pub(crate) struct Mute {
    /// An incident, and what comes after it about the same thing
    #[arg(group = "what")]
    pub(crate) incident: Option<String>,
    /// A template's id
    #[arg(long, group = "what")]
    pub(crate) template: Option<String>,
    /// A rule or detector: oom-kill, surge
    #[arg(long, group = "what")]
    pub(crate) rule: Option<String>,
    /// A host
    #[arg(long, group = "what")]
    pub(crate) host: Option<String>,
    /// A unit, program or container
    #[arg(long, group = "what")]
    pub(crate) service: Option<String>,
    /// A label of its stream, with its value: env=staging
    #[arg(long, group = "what", value_name = "NAME=VALUE")]
    pub(crate) label: Option<String>,
    /// Text that the title or a line contains
    #[arg(long, group = "what")]
    pub(crate) text: Option<String>,
    /// Show what is muted
    #[arg(
        long,
        group = "what",
        conflicts_with_all = [
            "incident", "template", "rule", "host", "service", "label", "text", "time", "reason", "author"
        ]
    )]
    pub(crate) list: bool,
    /// For how long: 30m, 12h, 7d; default: until unmuted
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) time: Option<std::time::Duration>,
    /// Why, for those who wonder later
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Who mutes; default: the user
    #[arg(long, value_name = "NAME")]
    pub(crate) author: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where to write; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "/etc/logwarden")]
    pub(crate) dir: PathBuf,
    /// The units may read log files
    #[arg(long)]
    pub(crate) files: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    #[default]
    Text,
    Csv,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// `30m`, `12h`, `7d`. A number alone says nothing: five of what?
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err("a number with s, m, h, d or w: 12h".to_owned()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    seconds
        .filter(|seconds| (1..=3650 * 86_400).contains(seconds))
        .map(std::time::Duration::from_secs)
        .ok_or_else(|| "a number with s, m, h, d or w: 12h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_make_sense() {
        Analyzer::command().debug_assert();
        Receiver::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("12h"), Ok(std::time::Duration::from_secs(43_200)));
        assert!(duration("5").is_err_and(|why| why.contains("12h")), "five of what?");
        assert!(duration("soon").is_err() && duration("0").is_err() && duration("99999999999d").is_err());
    }
}
