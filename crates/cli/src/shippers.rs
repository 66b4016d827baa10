//! What to paste into log shippers, so that they push to this receiver and lose nothing while it is away: batches are
//! buffered on disk and tried again without limit, which hardly any of them does by itself.
//!
//! Fluent Bit's and rsyslog's were run. The keys and defaults of the others are those of their public documentation and source,
//! which `docs/push.md` names: Alloy 1.16, Promtail 3.6, Vector 0.58, OpenTelemetry Collector 0.162.

use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;

/// A program that ships logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shipper {
    /// Fluent Bit
    FluentBit,
    /// Grafana Alloy
    Alloy,
    /// Promtail, which is at the end of its life
    Promtail,
    /// Vector
    Vector,
    /// OpenTelemetry Collector (contrib)
    Opentelemetry,
    /// rsyslog with omelasticsearch
    Rsyslog,
}

/// Where a shipper sends to, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    host: String,
    port: u16,
    tls: bool,
    auth: bool,
}

impl Target {
    /// The receiver that listens there, as this machine or others reach it; `name` is this machine's.
    pub(crate) fn new(listen: SocketAddr, name: &str, tls: bool, auth: bool) -> Self {
        let host = match listen.ip() {
            ip if ip.is_unspecified() => name.to_owned(),
            IpAddr::V6(ip) => format!("[{ip}]"),
            IpAddr::V4(ip) => ip.to_string(),
        };
        Self { host, port: listen.port(), tls, auth }
    }

    fn url(&self, path: &str) -> String {
        let Self { host, port, .. } = self;
        format!("{}://{host}:{port}{path}", if self.tls { "https" } else { "http" })
    }
}

impl Shipper {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::FluentBit, Self::Alloy, Self::Promtail, Self::Vector, Self::Opentelemetry, Self::Rsyslog];

    /// What it is called, and which file the text belongs into.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::FluentBit => "Fluent Bit (fluent-bit.conf)",
            Self::Alloy => "Grafana Alloy (config.alloy)",
            Self::Promtail => "Promtail (config.yml)",
            Self::Vector => "Vector (vector.yaml)",
            Self::Opentelemetry => "OpenTelemetry Collector (config.yaml)",
            Self::Rsyslog => "rsyslog (/etc/rsyslog.d/60-logwarden.conf)",
        }
    }

    /// Its configuration.
    pub(crate) fn configuration(self, to: &Target) -> String {
        match self {
            Self::FluentBit => fluent_bit(to),
            Self::Alloy => alloy(to),
            Self::Promtail => promtail(to),
            Self::Vector => vector(to),
            Self::Opentelemetry => opentelemetry(to),
            Self::Rsyslog => rsyslog(to),
        }
    }
}

/// The text if it is wanted.
fn only(wanted: bool, text: &'static str) -> &'static str {
    if wanted { text } else { "" }
}

fn fluent_bit(to: &Target) -> String {
    let Target { host, port, .. } = to;
    let host = host.trim_matches(['[', ']']);
    let tls = only(
        to.tls,
        "    tls                        On\n    tls.ca_file                /etc/ssl/certs/ca-certificates.crt\n",
    );
    let auth = only(to.auth, "    Header                     Authorization Bearer TOKEN\n");
    format!(
        "\
[SERVICE]
    flush                      5
    storage.path               /var/lib/fluent-bit/storage
    storage.sync               normal
    storage.backlog.mem_limit  16M
    scheduler.base             2
    scheduler.cap              30

[INPUT]
    Name                       tail
    Path                       /var/log/syslog,/var/log/auth.log
    Tag                        host.*
    Path_Key                   file
    DB                         /var/lib/fluent-bit/tail.db
    Skip_Long_Lines            On
    Buffer_Max_Size            256k
    Refresh_Interval           10
    storage.type               filesystem

[FILTER]
    Name                       record_modifier
    Match                      *
    Record                     host ${{HOSTNAME}}

[OUTPUT]
    Name                       http
    Match                      host.*
    Host                       {host}
    Port                       {port}
    URI                        /receive_logs
{tls}{auth}    Format                     json_lines
    json_date_format           iso8601
    compress                   gzip
    header_tag                 X-Fluent-Tag
    Retry_Limit                no_limits
    storage.total_limit_size   1G
    Workers                    1
    net.max_worker_connections 4
    log_response_payload       off
"
    )
}

fn alloy(to: &Target) -> String {
    let url = to.url("/loki/api/v1/push");
    let auth = only(to.auth, "    bearer_token        = \"TOKEN\"\n");
    format!(
        "\
local.file_match \"logs\" {{
  path_targets = [{{ \"__path__\" = \"/var/log/{{syslog,auth.log}}\", \"job\" = \"syslog\", \"host\" = constants.hostname }}]
}}

loki.source.file \"logs\" {{
  targets    = local.file_match.logs.targets
  forward_to = [loki.write.logwarden.receiver]
}}

loki.write \"logwarden\" {{
  endpoint {{
    url                 = \"{url}\"
{auth}    max_backoff_period  = \"30s\"
    max_backoff_retries = 1000000 // practically never give up
  }}
  // Kept on disk for a month while the receiver is away; needs --stability.level=experimental.
  wal {{
    enabled         = true
    max_segment_age = \"720h\"
  }}
}}
"
    )
}

fn promtail(to: &Target) -> String {
    let url = to.url("/loki/api/v1/push");
    let auth = only(to.auth, "    bearer_token: TOKEN\n");
    format!(
        "\
clients:
  - url: {url}
{auth}    # Its files are its buffer: it reads on when the receiver is back.
    backoff_config:
      max_period: 30s
      max_retries: 1000000
positions:
  filename: /var/lib/promtail/positions.yaml
scrape_configs:
  - job_name: logs
    static_configs:
      - targets: [localhost]
        labels:
          job: syslog
          host: ${{HOSTNAME}} # start it with -config.expand-env=true
          __path__: /var/log/{{syslog,auth.log}}
"
    )
}

fn vector(to: &Target) -> String {
    let url = to.url("/receive_logs");
    let auth = only(to.auth, "    auth:\n      strategy: bearer\n      token: TOKEN\n");
    format!(
        "\
data_dir: /var/lib/vector
sources:
  logs:
    type: file
    include: [/var/log/syslog, /var/log/auth.log]
sinks:
  logwarden:
    type: http
    inputs: [logs]
    uri: {url}
{auth}    encoding:
      codec: json
    framing:
      method: newline_delimited
    compression: zstd
    acknowledgements:
      enabled: true
    buffer:
      type: disk
      max_size: 1073741824
      when_full: block
    request:
      retry_attempts: 9223372036854775807
      retry_max_duration_secs: 30
"
    )
}

fn opentelemetry(to: &Target) -> String {
    let url = to.url("/v1/logs");
    let auth = only(to.auth, "    headers:\n      Authorization: Bearer TOKEN\n");
    format!(
        "\
extensions:
  file_storage:
    directory: /var/lib/otelcol/storage
    create_directory: true
receivers:
  filelog: # also called file_log since 0.149
    include: [/var/log/syslog, /var/log/auth.log]
    include_file_path: true
    storage: file_storage
    retry_on_failure: # also when its own disk is full
      enabled: true
      max_elapsed_time: 0
processors:
  resourcedetection:
    detectors: [system]
exporters:
  otlphttp/logwarden: # also called otlp_http since 0.144
    logs_endpoint: {url}
{auth}    retry_on_failure:
      max_interval: 30s
      max_elapsed_time: 0 # never give up
    sending_queue:
      storage: file_storage
      block_on_overflow: true # since 0.123
service:
  extensions: [file_storage]
  pipelines:
    logs:
      receivers: [filelog]
      processors: [resourcedetection]
      exporters: [otlphttp/logwarden]
"
    )
}

fn rsyslog(to: &Target) -> String {
    let Target { host, port, .. } = to;
    let https = if to.tls { "on" } else { "off" };
    let auth =
        only(to.auth, "       uid=\"USER\" pwd=\"PASSWORD\" # token_sha256: printf %s USER:PASSWORD | sha256sum\n");
    format!(
        "\
module(load=\"omelasticsearch\") # apt-get install rsyslog-elasticsearch
template(name=\"logwarden\" type=\"list\" option.jsonf=\"on\") {{
  property(outname=\"timestamp\" name=\"timereported\" dateFormat=\"rfc3339\" format=\"jsonf\")
  property(outname=\"host\" name=\"hostname\" format=\"jsonf\")
  property(outname=\"service\" name=\"programname\" format=\"jsonf\")
  property(outname=\"severity\" name=\"syslogseverity-text\" format=\"jsonf\")
  property(outname=\"message\" name=\"msg\" format=\"jsonf\")
}}
action(type=\"omelasticsearch\" server=\"{host}\" serverport=\"{port}\" usehttps=\"{https}\" template=\"logwarden\"
{auth}       bulkmode=\"on\" maxbytes=\"2m\" retryfailures=\"off\"
       queue.type=\"LinkedList\" queue.filename=\"logwarden\" queue.maxDiskSpace=\"1g\" queue.saveOnShutdown=\"on\"
       action.resumeRetryCount=\"-1\" action.resumeInterval=\"10\")
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Target {
        Target::new(SocketAddr::from(([127, 0, 0, 1], 5000)), "logs-1", false, false)
    }

    #[test]
    fn what_is_printed_is_what_the_page_shows() {
        let page = include_str!("../../../docs/push.md");
        for shipper in Shipper::ALL {
            let text = shipper.configuration(&here());
            assert!(page.contains(&text), "docs/push.md does not show for {}:\n{text}", shipper.title());
        }
    }

    #[test]
    fn elsewhere_with_tls_and_a_credential() {
        let there = Target::new(SocketAddr::from(([0, 0, 0, 0], 5443)), "logs-1", true, true);
        for shipper in Shipper::ALL {
            let name = shipper.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            insta::assert_snapshot!(name, shipper.configuration(&there));
        }
    }

    #[test]
    fn none_gives_up_or_forgets() {
        let keeps = [
            (Shipper::FluentBit, ["no_limits", "filesystem"]),
            (Shipper::Alloy, ["max_backoff_retries = 1000000", "wal"]),
            (Shipper::Promtail, ["max_retries: 1000000", "positions"]),
            (Shipper::Vector, ["acknowledgements", "type: disk"]),
            (Shipper::Opentelemetry, ["max_elapsed_time: 0", "storage: file_storage"]),
            (Shipper::Rsyslog, ["resumeRetryCount=\"-1\"", "queue.filename"]),
        ];
        assert_eq!(keeps.map(|(shipper, _)| shipper), Shipper::ALL);
        for (shipper, words) in keeps {
            let text = shipper.configuration(&here());
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }

    #[test]
    fn addresses() {
        let url = |listen: &str| Target::new(listen.parse().unwrap(), "logs-1", false, false).url("/x");
        assert_eq!(url("[::1]:5000"), "http://[::1]:5000/x");
        assert_eq!(url("[::]:80"), "http://logs-1:80/x");
        assert_eq!(url("192.0.2.1:5000"), "http://192.0.2.1:5000/x");
    }
}
