//! The configuration: made only of values that can be used.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use logwarden_core::{ProfileName, Severity, profile::Profile};
use logwarden_ollama_client::BaseUrl;
use logwarden_push_source::{Client, Limits, Network};

use crate::secret::Secret;

/// Everything that was configured, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where state is kept.
    pub state_dir: Option<PathBuf>,
    /// Where the debugging trail goes; off by default.
    pub trail: Option<PathBuf>,
    /// Below so many free bytes pushed logs are refused; `None` for the usual bound.
    pub keep_free: Option<u64>,
    /// The tenant that keys hang on.
    pub tenant: String,
    /// Grafana Loki, unless only files are read.
    pub loki: Option<Loki>,
    /// Files that are followed.
    pub files: Vec<FileGroup>,
    /// What takes pushed logs.
    pub receiver: Receiver,
    /// The model.
    pub model: Model,
    /// Where messages go.
    pub channels: Vec<ChannelConfig>,
    /// How incidents live.
    pub alerts: Alerts,
    /// Links to Grafana.
    pub grafana: Option<Grafana>,
    /// Profiles that the user adds or replaces.
    pub profiles: Vec<Profile>,
    /// The detectors.
    pub detectors: Detectors,
    /// Patterns whose matches are redacted, in addition to the built-in ones.
    pub redact: Vec<String>,
    /// How long a pass judges and delivers; the rest waits.
    pub pass_budget: Duration,
    /// How often `watch` reads.
    pub watch_every: Duration,
    /// Templates kept in memory.
    pub max_templates: usize,
}

/// Grafana Loki.
#[derive(Clone, Debug)]
pub struct Loki {
    /// Base address, with the path before `/loki/api/…` where there is one.
    pub url: String,
    /// What to ask for.
    pub queries: Vec<LokiQuery>,
    /// Tenant header; several separated by `|`.
    pub tenant: Option<String>,
    /// User and password.
    pub basic: Option<(String, Secret)>,
    /// Bearer token.
    pub bearer: Option<Secret>,
    /// The file that the bearer token is in, to be read again when it is refused.
    pub bearer_file: Option<PathBuf>,
    /// Further headers.
    pub headers: BTreeMap<String, String>,
    /// A certificate authority of one's own, PEM.
    pub ca_file: Option<PathBuf>,
    /// A certificate with its key by which we say who we are, PEM.
    pub identity: Option<Secret>,
    /// A proxy on the way; there is none by default, whatever the environment says.
    pub proxy: Option<String>,
    /// How far back the first pass looks.
    pub window: Duration,
    /// Lines per page at most.
    pub limit: u32,
    /// How long the newest lines are left alone.
    pub settle: Duration,
    /// How long one request may take.
    pub timeout: Duration,
}

/// A query with the profiles that its lines are judged under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LokiQuery {
    /// LogQL.
    pub query: String,
    /// Profiles.
    pub profiles: Vec<ProfileName>,
}

/// Files that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileGroup {
    /// Paths, with `*` and `?` in the last part.
    pub paths: Vec<String>,
    /// Profiles.
    pub profiles: Vec<ProfileName>,
    /// Labels of its lines, such as `host` and `service`.
    pub labels: BTreeMap<String, String>,
    /// The time zone of times without one: an IANA name; default: this machine's.
    pub timezone: Option<String>,
    /// Whether a file that was never read is read from its beginning, or from its end.
    pub from_start: bool,
}

/// What takes pushed logs.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The certificate chain and its key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Networks that may send without saying who they are.
    pub insecure_allow: Vec<Network>,
    /// Who may send, once somebody is named here.
    pub clients: Vec<Client>,
    /// Where it takes syslog over TCP.
    pub syslog_tcp: Option<SocketAddr>,
    /// Where it takes syslog over UDP.
    pub syslog_udp: Option<SocketAddr>,
    /// How long lines wait for others before the model is asked about them.
    pub window: Duration,
    /// So many lines wait no longer.
    pub window_lines: u64,
    /// How much may be sent.
    pub limits: Limits,
    /// How much of it may wait on disk to be folded.
    pub spool_bytes: u64,
    /// Profiles.
    pub profiles: Vec<ProfileName>,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Model {
    /// Whether one is asked at all.
    pub enabled: bool,
    /// Where Ollama is, unless at its own default.
    pub host: Option<BaseUrl>,
    /// Its name; otherwise the best installed one of the recommended list.
    pub name: Option<String>,
    /// The window.
    pub num_ctx: Option<u32>,
    /// How long the server keeps it loaded: a duration, or `server`.
    pub keep_alive: Option<String>,
    /// How long one answer may take.
    pub timeout: Option<Duration>,
    /// A bearer token for a proxy in front.
    pub bearer: Option<Secret>,
    /// A certificate authority of one's own for that proxy, PEM.
    pub ca_file: Option<PathBuf>,
    /// A cloud model that may be used although lines then leave the machine.
    pub allow_cloud: Option<String>,
    /// Calls per hour and day at most.
    pub calls_per_hour: Option<u32>,
    /// Calls per day at most.
    pub calls_per_day: Option<u32>,
    /// Tokens per hour at most.
    pub tokens_per_hour: Option<u64>,
    /// Tokens per day at most.
    pub tokens_per_day: Option<u64>,
    /// The hours in which it may work: `22:00-06:00`.
    pub hours: Option<String>,
}

/// A channel.
#[derive(Clone, Debug)]
pub struct ChannelConfig {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ChannelKind,
    /// Its address, which is a secret.
    pub address: Secret,
    /// Secrets that sign a generic webhook, the newest first.
    pub signing: Vec<Secret>,
    /// Messages below are not sent here.
    pub min_severity: Severity,
}

/// The kinds of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// A Discord webhook.
    Discord,
    /// A Slack incoming webhook.
    Slack,
    /// Our JSON to any address.
    Webhook,
}

/// How incidents live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alerts {
    /// Nothing for that long, and an incident is quiet.
    pub window: Duration,
    /// A critical or high incident that goes on is told again after this.
    pub remind_urgent: Duration,
    /// Any other.
    pub remind_other: Duration,
    /// A summary is sent this often.
    pub summary_every: Option<Duration>,
    /// Incidents below high that a source may alert about in a day.
    pub per_day: u32,
    /// A file of mutes.
    pub mutes_file: Option<PathBuf>,
}

/// Links to Grafana Explore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grafana {
    /// Base address.
    pub url: String,
    /// The unique id of the Loki data source.
    pub datasource: String,
    /// The organisation.
    pub org: u64,
}

/// The detectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detectors {
    /// A source younger than this is still warming up.
    pub warm_up: Duration,
    /// Unless it has had so many lines.
    pub warm_up_lines: u64,
    /// A directory with rules of one's own.
    pub rules_dir: Option<PathBuf>,
}
