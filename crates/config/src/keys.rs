//! Every key of the configuration, once: the reference in `docs/` and the commented file of `init` are made from here,
//! and a test compares this list with the keys that are really read.

/// A table of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// As it is written: `[loki]`, `[[files]]`; empty for the keys before the first table.
    pub header: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name within the section.
    pub name: &'static str,
    /// What it holds, in words: `text`, `seconds`.
    pub kind: &'static str,
    /// What holds without it, in words.
    pub default: &'static str,
    /// The environment variable that lies over it; empty when there is none.
    pub variable: &'static str,
    /// What it does, in one or two sentences.
    pub about: &'static str,
    /// A value, as it is written in the file.
    pub example: &'static str,
}

const fn key(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    variable: &'static str,
    example: &'static str,
    about: &'static str,
) -> Key {
    Key { name, kind, default, variable, about, example }
}

/// All sections, in the order of the file.
pub const SECTIONS: &[Section] = &[
    Section {
        header: "",
        about: "",
        keys: &[
            key(
                "state_dir",
                "path",
                "`--state-dir`, else `$STATE_DIRECTORY`, else `/var/lib/logwarden` for root, else the user's own",
                "",
                r#""/var/lib/logwarden""#,
                "Where positions, incidents and waiting messages are kept.",
            ),
            key(
                "keep_free_mib",
                "number",
                "200, or a twentieth of a small file system",
                "",
                "200",
                "Below so many free MiB where the state is, pushed logs are refused, so that shippers keep them; below an \
                 eighth of it nothing is read. An alert says so.",
            ),
            key(
                "trail",
                "path",
                "off",
                "",
                r#""/var/lib/logwarden/trail""#,
                "A directory for debugging: what was received, asked and answered, redacted. It is \
                 bounded: each file to 32 MiB and two days.",
            ),
            key(
                "tenant",
                "text",
                "none",
                "",
                r#""acme""#,
                "Keeps the incidents of several customers apart when they share one state directory.",
            ),
        ],
    },
    Section {
        header: "[loki]",
        about: "Grafana Loki. It is read when this table has a key, when one of its variables is set, or when there is no \
                other source.",
        keys: &[
            key(
                "url",
                "address",
                "`http://localhost:3100`",
                "LOKI_URL",
                r#""http://localhost:3100""#,
                "Where Loki is, with the path before `/loki/api/v1` where a gateway has one.",
            ),
            key(
                "queries",
                "list of texts or tables",
                r#"`{job="syslog"}` and `{job="nginx"} \|= "error"`"#,
                "LOG_QUERIES",
                r#"['{job="nginx"} |= "error"', { query = '{job="auth"}', profiles = ["security"] }]"#,
                "Which lines, in LogQL; at most 64 queries. In the variable they are separated by `;`, which inside quotes \
                 or backticks belongs to the query.",
            ),
            key("queries[].query", "text", "required", "", "", "The query of an element that is a table."),
            key(
                "queries[].profiles",
                "list of names",
                "`loki.profiles`",
                "",
                "",
                "The profiles that the query's lines are judged under.",
            ),
            key(
                "profiles",
                "list of names",
                r#"`["general"]`"#,
                "LOG_PROFILES",
                r#"["general", "security"]"#,
                "The profiles of all queries that name none: general, security, performance, or one of your own. The \
                 variable takes them with commas, and only where the file says nothing.",
            ),
            key(
                "window_minutes",
                "minutes",
                "5",
                "QUERY_WINDOW_MINUTES",
                "5",
                "How far back the first pass looks. Later ones go on where the last one stopped.",
            ),
            key(
                "limit",
                "lines",
                "500",
                "QUERY_LIMIT",
                "500",
                "The size of the first page. It adapts, and never limits how much is read.",
            ),
            key(
                "settle_seconds",
                "seconds",
                "10",
                "",
                "10",
                "Lines younger than this are left for the next pass, so that late ones can arrive.",
            ),
            key("timeout_seconds", "seconds", "75", "", "75", "How long one request may take."),
            key(
                "tenant",
                "text",
                "none",
                "LOKI_TENANT",
                r#""team-a""#,
                "The `X-Scope-OrgID`; several with `|` between them, where Loki's operator allows it.",
            ),
            key(
                "user",
                "text",
                "none",
                "LOKI_USER",
                r#""12345""#,
                "The user of a proxy with a password; for Grafana Cloud the number of the Loki instance.",
            ),
            key(
                "password_file",
                "path",
                "credential `loki-password`",
                "LOKI_PASSWORD",
                r#""/etc/logwarden/loki-password""#,
                "The file with that user's password. The variable holds the password itself.",
            ),
            key(
                "bearer_file",
                "path",
                "credential `loki-bearer`",
                "LOKI_BEARER_TOKEN",
                r#""/etc/logwarden/loki-bearer""#,
                "The file with a bearer token; it is read again when the token is refused. The variable holds the token \
                 itself.",
            ),
            key(
                "headers",
                "table of texts",
                "none",
                "",
                r#"{ "X-Team" = "ops" }"#,
                "Further headers of every request. They are no place for secrets.",
            ),
            key(
                "ca_file",
                "path",
                "the system's",
                "",
                r#""/etc/ssl/certs/my-ca.pem""#,
                "A certificate authority of one's own, PEM.",
            ),
            key(
                "client_certificate_file",
                "path",
                "credential `loki-client-certificate`, else none",
                "LOKI_CLIENT_CERTIFICATE",
                r#""/etc/logwarden/loki-client.pem""#,
                "The file with a certificate and its private key, one after the other, PEM, where the proxy in front of Loki \
                 wants one. The variable holds both.",
            ),
            key(
                "proxy",
                "address",
                "none",
                "LOKI_PROXY",
                r#""http://proxy:3128""#,
                "A proxy on the way to Loki. Those that the environment names for everybody are not asked.",
            ),
        ],
    },
    Section {
        header: "[[files]]",
        about: "Files that are followed through rotation, truncation and copytruncate. Repeat the table for files with other \
                profiles or labels. `files = [\"/var/log/syslog\"]` before the first table is the short form.",
        keys: &[
            key(
                "paths",
                "list of paths",
                "required",
                "LOG_FILES",
                r#"["/var/log/syslog", "/var/log/nginx/*.log"]"#,
                "Which files; `*` and `?` may stand in the last part. The variable, with `;` between paths, replaces all \
                 groups of the file.",
            ),
            key(
                "profiles",
                "list of names",
                r#"`["general"]`"#,
                "LOG_PROFILES",
                r#"["general"]"#,
                "The profiles that the lines are judged under.",
            ),
            key(
                "labels",
                "table of texts",
                "none",
                "",
                r#"{ host = "web-1" }"#,
                "Labels of the lines, such as `host` and `service`, where the lines do not say it.",
            ),
            key("timezone", "name", "this machine's", "", r#""Europe/Berlin""#, "The zone of times that have none."),
            key(
                "from_start",
                "true or false",
                "false",
                "",
                "false",
                "Whether a file that was never read before is read from its beginning; otherwise from its end.",
            ),
        ],
    },
    Section {
        header: "[receiver]",
        about: "Takes logs that are pushed; see [push](push.md).",
        keys: &[
            key(
                "listen",
                "address and port",
                "`127.0.0.1:5000`",
                "RECEIVER_LISTEN",
                r#""127.0.0.1:5000""#,
                "Where to listen. Beyond this machine it takes a certificate and clients, or `insecure_allow`.",
            ),
            key("certificate_file", "path", "no TLS", "", r#""/etc/logwarden/tls.crt""#, "The certificate chain, PEM."),
            key("key_file", "path", "no TLS", "", r#""/etc/logwarden/tls.key""#, "Its key, PEM."),
            key(
                "insecure_allow",
                "list of networks",
                "none",
                "",
                r#"["192.168.0.0/16"]"#,
                "Networks that may send without TLS and without saying who sends.",
            ),
            key(
                "syslog_tcp",
                "address and port",
                "off",
                "",
                r#""127.0.0.1:5514""#,
                "Where to take syslog over TCP. Beyond this machine only from networks of `insecure_allow`.",
            ),
            key("syslog_udp", "address and port", "off", "", r#""127.0.0.1:5514""#, "Where to take syslog over UDP."),
            key(
                "window_seconds",
                "1 to 3600",
                "60",
                "",
                "60",
                "Lines are collected this long before the model is asked about them. Detectors look at once, and what they find ends it.",
            ),
            key("window_lines", "1,000 to 10,000,000", "50,000", "", "50000", "So many lines do not wait longer."),
            key(
                "max_body_mib",
                "1 to 1,024",
                "32",
                "",
                "32",
                "Larger bodies, as they are sent, are refused. Most shippers drop what is refused, and it is told.",
            ),
            key("max_unpacked_mib", "1 to 4,096", "64", "", "64", "The same once compression is taken off."),
            key(
                "max_spool_mib",
                "16 to 1,048,576",
                "1,024",
                "",
                "1024",
                "What was taken and is not folded yet, compressed on disk; when it is full, senders are told to come again.",
            ),
            key(
                "client_requests_per_second",
                "1 to 1,000,000,000",
                "no limit",
                "",
                "20",
                "What one client may send on average; who sends more is told to come again. Half a minute's worth may come at once.",
            ),
            key(
                "client_bytes_per_second",
                "1 to 1,000,000,000",
                "no limit",
                "",
                "5000000",
                "The same for bytes of bodies, as they are sent.",
            ),
            key("client_lines_per_second", "1 to 1,000,000,000", "no limit", "", "20000", "The same for lines."),
            key(
                "profiles",
                "list of names",
                r#"`["general"]`"#,
                "LOG_PROFILES",
                r#"["general"]"#,
                "The profiles that the lines are judged under.",
            ),
        ],
    },
    Section {
        header: "[[receiver.clients]]",
        about: "Who may send. With one of them, everybody must say who they are.",
        keys: &[
            key("name", "text", "required", "", r#""web-1""#, "The client's name in messages and counters."),
            key(
                "token_sha256",
                "text or list of texts",
                "required",
                "",
                r#""9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08""#,
                "What `printf %s TOKEN \\| sha256sum` prints, or the same of `user:password`. Two while one is exchanged.",
            ),
        ],
    },
    Section {
        header: "[model]",
        about: "The local model that explains. Without one the detectors work alone.",
        keys: &[
            key("enabled", "true or false", "true", "MODEL_ENABLED", "true", "Whether a model is asked at all."),
            key(
                "host",
                "address",
                "`http://127.0.0.1:11434`",
                "OLLAMA_HOST",
                r#""http://127.0.0.1:11434""#,
                "Where Ollama is, in any form that Ollama itself takes.",
            ),
            key(
                "name",
                "text",
                "the best installed one",
                "OLLAMA_MODEL",
                r#""qwen3:4b-instruct""#,
                "Which model; see [choosing a model](choosing-a-model.md).",
            ),
            key(
                "num_ctx",
                "tokens",
                "8192",
                "",
                "8192",
                "The window. Keep it the same for all programs that use the model.",
            ),
            key(
                "keep_alive",
                "duration",
                "`10m`",
                "OLLAMA_KEEP_ALIVE",
                r#""10m""#,
                "How long the model stays in memory after an answer; `-1` for ever, `server` leaves it to Ollama.",
            ),
            key(
                "timeout_seconds",
                "seconds",
                "from the measured speed",
                "",
                "300",
                "How long one answer may take, loading not counted.",
            ),
            key(
                "bearer_file",
                "path",
                "credential `ollama-bearer`",
                "OLLAMA_BEARER_TOKEN",
                r#""/etc/logwarden/ollama-bearer""#,
                "The file with a bearer token for a proxy in front of Ollama. The variable holds the token itself.",
            ),
            key(
                "ca_file",
                "path",
                "the system's",
                "",
                r#""/etc/ssl/certs/my-ca.pem""#,
                "A certificate authority of one's own for that proxy, PEM.",
            ),
            key(
                "allow_cloud",
                "text",
                "none",
                "",
                r#""gpt-oss:120b-cloud""#,
                "The one cloud model that may be used although lines then leave the machine.",
            ),
            key(
                "calls_per_hour",
                "calls",
                "no ceiling",
                "",
                "60",
                "Above it the detectors work alone until the next hour.",
            ),
            key("calls_per_day", "calls", "no ceiling", "", "500", "The same for a day."),
            key("tokens_per_hour", "tokens", "no ceiling", "", "200000", "The same in tokens, read and written."),
            key("tokens_per_day", "tokens", "no ceiling", "", "2000000", "The same for a day."),
            key(
                "hours",
                "from-to",
                "always",
                "",
                r#""22:00-06:00""#,
                "When the model may work, in this machine's time. At other times the detectors work alone.",
            ),
        ],
    },
    Section {
        header: "[discord]",
        about: "A Discord webhook; see [channels](channels.md).",
        keys: &[
            key(
                "url_file",
                "path",
                "credential `discord-webhook`",
                "DISCORD_WEBHOOK_URL",
                r#""/etc/logwarden/discord-webhook""#,
                "The file with the webhook's address. The variable holds the address itself.",
            ),
            MIN_SEVERITY,
        ],
    },
    Section {
        header: "[slack]",
        about: "A Slack incoming webhook.",
        keys: &[
            key(
                "url_file",
                "path",
                "credential `slack-webhook`",
                "SLACK_WEBHOOK_URL",
                r#""/etc/logwarden/slack-webhook""#,
                "The file with the webhook's address. The variable holds the address itself.",
            ),
            MIN_SEVERITY,
        ],
    },
    Section {
        header: "[webhook]",
        about: "Our JSON to an address of your own, signed as Standard Webhooks are.",
        keys: &[
            key(
                "url_file",
                "path",
                "credential `webhook-webhook`",
                "WEBHOOK_URL",
                r#""/etc/logwarden/webhook""#,
                "The file with the address. The variable holds the address itself.",
            ),
            MIN_SEVERITY,
            key(
                "secret_file",
                "path",
                "credential `webhook-secret`, else unsigned",
                "WEBHOOK_SECRET",
                r#""/etc/logwarden/webhook-secret""#,
                "The file with the secret that signs. The variable holds the secret itself.",
            ),
            key(
                "old_secret_file",
                "path",
                "credential `webhook-old-secret`, else none",
                "WEBHOOK_OLD_SECRET",
                r#""/etc/logwarden/webhook-old-secret""#,
                "The one before, while it is being exchanged.",
            ),
        ],
    },
    Section {
        header: "[[channels]]",
        about: "Further channels, one table each.",
        keys: &[
            key("name", "name", "required", "", r#""night-shift""#, "Small letters, digits, `-` and `_`."),
            key("kind", "name", "required", "", r#""webhook""#, "`discord`, `slack` or `webhook`."),
            key(
                "url_file",
                "path",
                "credential `NAME-webhook`",
                "NAME_WEBHOOK_URL",
                r#""/etc/logwarden/night-shift-webhook""#,
                "The file with the address. The variable holds the address itself; NAME is the channel's, in capitals, with \
                 `_` for `-`.",
            ),
            MIN_SEVERITY,
            key(
                "secret_file",
                "path",
                "credential `NAME-secret`, else unsigned",
                "NAME_WEBHOOK_SECRET",
                r#""/etc/logwarden/night-shift-secret""#,
                "For `kind = \"webhook\"`: the file with the secret that signs.",
            ),
            key(
                "old_secret_file",
                "path",
                "credential `NAME-old-secret`, else none",
                "NAME_WEBHOOK_OLD_SECRET",
                r#""/etc/logwarden/night-shift-old-secret""#,
                "The one before, while it is being exchanged.",
            ),
        ],
    },
    Section {
        header: "[alerts]",
        about: "How incidents live.",
        keys: &[
            key(
                "window_seconds",
                "seconds",
                "3600",
                "DEDUP_WINDOW",
                "3600",
                "An incident that nothing was seen of for so long is quiet; what comes later is a new one.",
            ),
            key(
                "remind_urgent_seconds",
                "seconds",
                "`window_seconds`",
                "",
                "3600",
                "A critical or high incident that goes on is told again after this.",
            ),
            key("remind_other_seconds", "seconds", "86400", "", "86400", "Any other incident that goes on."),
            key(
                "summary_every_hours",
                "hours",
                "off",
                "",
                "24",
                "Sends a summary of what happened this often, also when nothing is wrong.",
            ),
            key(
                "per_day",
                "number",
                "50",
                "",
                "50",
                "Alerts below high that a source may make in a day; what exceeds it is listed and told in the day's summary.",
            ),
            key(
                "mutes_file",
                "path",
                "none",
                "",
                r#""/etc/logwarden/mutes.toml""#,
                "A file of mutes; see [detection](detection.md#mutes).",
            ),
        ],
    },
    Section {
        header: "[grafana]",
        about: "With both of `url` and `datasource_uid`, messages carry a link to Grafana Explore.",
        keys: &[
            key("url", "address", "none", "GRAFANA_URL", r#""https://grafana.example.org""#, "Where Grafana is."),
            key(
                "datasource_uid",
                "text",
                "none",
                "GRAFANA_DATASOURCE_UID",
                r#""P8E80F9AEF21F6940""#,
                "The uid of the Loki data source: the last part of its page's address.",
            ),
            key("org", "number", "1", "", "1", "The organisation."),
        ],
    },
    Section {
        header: "[detectors]",
        about: "What works without a model.",
        keys: &[
            key(
                "warm_up_minutes",
                "minutes",
                "1440",
                "",
                "1440",
                "A source younger than this is still being learned: new and silent patterns alert nobody yet.",
            ),
            key("warm_up_lines", "lines", "50000", "", "50000", "Unless it has had so many lines."),
            key(
                "rules_dir",
                "path",
                "none",
                "",
                r#""/etc/logwarden/rules.d""#,
                "A directory with rules of your own; see [detection](detection.md).",
            ),
        ],
    },
    Section {
        header: "[redact]",
        about: "See [privacy](privacy.md).",
        keys: &[key(
            "patterns",
            "list of regular expressions",
            "none",
            "",
            r"['customer-\d{8}', 'pin=(\d{4})']",
            "What matches is redacted, or the first group where there is one, in addition to the built-in rules.",
        )],
    },
    Section {
        header: "[run]",
        about: "The pass.",
        keys: &[
            key(
                "budget_seconds",
                "seconds",
                "240",
                "",
                "240",
                "How long a pass reads, judges and delivers; what is not done by then waits for the next one.",
            ),
            key("every_seconds", "seconds", "60", "", "60", "How often `watch` reads."),
            key("max_templates", "number", "10000", "", "10000", "Templates kept in memory; 10,000 take about 24 MiB."),
        ],
    },
    Section {
        header: "[profiles.NAME]",
        about: "A profile of your own, or other instructions for one of the three that come along.",
        keys: &[key(
            "instructions",
            "text",
            "required",
            "",
            r#""Mail only: bounces, blocklists, growing queues. Normal: greylisting, one refused recipient.""#,
            "What the model is told to look for, in a few short sentences. It does best with concrete things, and with what \
             is normal.",
        )],
    },
];

const MIN_SEVERITY: Key = key(
    "min_severity",
    "severity",
    "`low`",
    "",
    r#""medium""#,
    "Messages below it are not sent here: `low`, `medium`, `high` or `critical`.",
);

/// The commented `logwarden.toml`: every key, off, with what it does and what holds without it.
pub fn commented_file() -> String {
    let mut text = String::from(
        "# logwarden.toml: every key there is, switched off. What is not set here has the default that is named.\n\
         # Environment variables lie over this file. Secrets do not belong into it: name the file that they are in.\n",
    );
    for section in SECTIONS {
        text.push('\n');
        if !section.header.is_empty() {
            comment(&mut text, section.about);
            // A list's element and a profile mean something by being there.
            let off = section.header.starts_with("[[") || section.header.contains("NAME");
            text.push_str(&format!("{}{}\n", if off { "#" } else { "" }, section.header.replace("NAME", "mail")));
        }
        for key in section.keys.iter().filter(|key| !key.example.is_empty()) {
            comment(&mut text, key.about);
            let variable = match key.variable {
                "" => String::new(),
                variable => format!("; {variable}"),
            };
            comment(&mut text, &format!("({}; default: {}{variable})", key.kind, key.default));
            text.push_str(&format!("#{} = {}\n", key.name, key.example));
        }
    }
    text
}

/// Adds a comment in lines of a readable length, without Markdown's marks.
fn comment(text: &mut String, sentence: &str) {
    let plain = sentence.replace("\\|", "|");
    let mut line = String::from("#");
    for word in plain.split_whitespace() {
        // `[privacy](privacy.md).` names the page.
        let word = word.trim_start_matches('[').replace("](", " (").replace('`', "");
        if line.chars().count() + word.chars().count() > 100 {
            text.push_str(&format!("{line}\n"));
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(&word);
    }
    text.push_str(&format!("{line}\n"));
}

/// The reference, in Markdown: what stands between the marks in `docs/configuration.md`.
pub fn reference() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        match section.header {
            "" => text.push_str("### Before the first table\n\n"),
            header => text.push_str(&format!("### `{header}`\n\n{}\n\n", section.about)),
        }
        text.push_str("| key | holds | default | variable | |\n|---|---|---|---|---|\n");
        for key in section.keys {
            let variable = match key.variable {
                "" => String::new(),
                variable => format!("`{variable}`"),
            };
            let example = match key.example {
                "" => String::new(),
                example => format!(" Example: `{}`", example.replace('|', "\\|")),
            };
            text.push_str(&format!(
                "| `{}` | {} | {} | {variable} | {}{example} |\n",
                key.name, key.kind, key.default, key.about
            ));
        }
        text.push('\n');
    }
    text
}
