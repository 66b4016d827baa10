//! From a file and the environment to a checked configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use logwarden_core::{ProfileName, Severity, profile::Profile};
use logwarden_detectors::nearest;
use logwarden_ollama_client::{BaseUrl, KeepAlive};
use logwarden_push_source::{Client, Limits, Network, Rate};
use secrecy::SecretString;
use toml::de::DeTable;

use crate::{
    config::{
        Alerts, ChannelConfig, ChannelKind, Config, Detectors, FileGroup, Grafana, Loki, LokiQuery, Model, Receiver,
    },
    document::{Found, From, Lookup, Notes, Table},
    mistake::Mistakes,
    secret::{Files, Secret},
};

/// What a configuration is read from.
pub struct Input<'a> {
    /// The file's name for messages, and its text; without one the environment alone counts.
    pub file: Option<(PathBuf, String)>,
    /// The environment.
    pub env: Lookup<'a>,
    /// The file system, for secrets.
    pub files: &'a dyn Files,
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("file", &self.file.as_ref().map(|(path, _)| path)).finish_non_exhaustive()
    }
}

/// A configuration, and what deserves a warning although it can be used.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// Sentences for people.
    pub warnings: Vec<String>,
    /// The environment variables that count.
    pub variables: Vec<String>,
}

/// Reads a configuration.
///
/// # Errors
///
/// With every mistake at once.
pub fn read(input: &Input<'_>) -> Result<Checked, Mistakes> {
    let (name, text) = match &input.file {
        Some((path, text)) => (path.display().to_string(), text.as_str()),
        None => ("environment".to_owned(), ""),
    };
    let notes = Notes::new(&name, text, input.env);
    let (config, warnings) = document(&notes, input);
    let variables = notes.variables();
    let mistakes = notes.into_mistakes();
    if mistakes.is_empty() { Ok(Checked { config, warnings, variables }) } else { Err(Mistakes(mistakes)) }
}

/// Reads the document, noting mistakes.
pub(crate) fn document(notes: &Rc<Notes<'_>>, input: &Input<'_>) -> (Config, Vec<String>) {
    let (mut document, mut errors) = DeTable::parse_recoverable(notes.text());
    errors.sort_by_key(|error| error.span().unwrap_or_default().start);
    if !errors.is_empty() {
        // What the parser makes of the rest would only bring mistakes that are none.
        (document, _) = DeTable::parse_recoverable("");
    }
    for error in errors {
        // Only the parser's sentence: its full text quotes the line, which may hold a secret by mistake.
        notes.at(error.span().unwrap_or_default(), "", format!("is not TOML: {}", error.message().trim()), None);
    }
    let root = Table::root(document.get_ref(), notes);
    let mut reader = Reader { notes: notes.clone(), files: input.files, warnings: Vec::new() };
    let config = reader.config(&root);
    root.finish();
    (config, reader.warnings)
}

struct Reader<'a> {
    notes: Rc<Notes<'a>>,
    files: &'a dyn Files,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn config(&mut self, root: &Table<'_>) -> Config {
        let profiles = self.profiles(&root.table("profiles"));
        let known: BTreeSet<String> =
            Profile::builtin().iter().chain(&profiles).map(|profile| profile.name.as_str().to_owned()).collect();
        if self.notes.variable("DEDUP_FILE").is_some() {
            self.warnings.push("DEDUP_FILE is no longer used: what was told is kept in the state directory".to_owned());
        }
        let files = self.files(root, &known);
        let loki = self.loki(&root.table("loki"), &known, !files.is_empty());
        let run = root.table("run");
        let seconds = |table: &Table<'_>, name: &str, variable: Option<&str>, default: u64, most: u64| {
            Duration::from_secs(table.integer(name, variable, 1..most + 1).map_or(default, |found| found.value))
        };
        let config = Config {
            state_dir: root.string("state_dir", None).map(|found| PathBuf::from(found.value)),
            trail: root.string("trail", None).map(|found| PathBuf::from(found.value)),
            keep_free: root.integer("keep_free_mib", None, 0..1 << 40).map(|found| found.value << 20),
            tenant: root.string("tenant", None).map(|found| found.value).unwrap_or_default(),
            loki,
            files,
            receiver: self.receiver(&root.table("receiver"), &known),
            model: self.model(&root.table("model")),
            channels: self.channels(root),
            alerts: self.alerts(&root.table("alerts")),
            grafana: self.grafana(&root.table("grafana")),
            profiles,
            detectors: self.detectors(&root.table("detectors")),
            redact: self.redact(&root.table("redact")),
            pass_budget: seconds(&run, "budget_seconds", None, 240, 86_400),
            watch_every: seconds(&run, "every_seconds", None, 60, 86_400),
            max_templates: usize::try_from(
                run.integer("max_templates", None, 100..1_000_001).map_or(10_000, |found| found.value),
            )
            .unwrap_or(10_000),
        };
        run.finish();
        config
    }

    fn profiles(&mut self, table: &Table<'_>) -> Vec<Profile> {
        let mut profiles = Vec::new();
        for (name, profile) in table.named_tables() {
            let instructions = profile.string("instructions", None);
            profile.finish();
            match instructions {
                Some(found) if found.value.trim().is_empty() => {
                    profile.refuse(&found, "instructions", "is empty", None);
                }
                Some(found) if found.value.chars().count() > 4000 => {
                    profile.refuse(
                        &found,
                        "instructions",
                        "has more than 4,000 characters",
                        Some("small models do best with a few short sentences".to_owned()),
                    );
                }
                Some(found) => {
                    profiles.push(Profile { name: ProfileName::new(name), instructions: found.value });
                }
                None => self.notes.at(
                    profile.span(),
                    &profile.key("instructions"),
                    "is missing",
                    Some("say in a few sentences what to look for".to_owned()),
                ),
            }
        }
        profiles
    }

    /// The profiles named in a list; default: `LOG_PROFILES`, else general.
    fn profile_names(&self, table: &Table<'_>, known: &BTreeSet<String>) -> Vec<ProfileName> {
        match table.strings("profiles") {
            Some(named) => self.known_profiles(table, named, known),
            None => self.usual_profiles(table, known),
        }
    }

    /// What `LOG_PROFILES` says, else general.
    fn usual_profiles(&self, table: &Table<'_>, known: &BTreeSet<String>) -> Vec<ProfileName> {
        let variable = self.notes.variable("LOG_PROFILES").unwrap_or_default();
        let names = variable.split([',', ';']).map(str::trim).filter(|name| !name.is_empty());
        let named =
            names.map(|name| Found { value: name.to_owned(), from: From::Env("LOG_PROFILES".to_owned()) }).collect();
        self.known_profiles(table, named, known)
    }

    fn known_profiles(
        &self,
        table: &Table<'_>,
        named: Vec<Found<String>>,
        known: &BTreeSet<String>,
    ) -> Vec<ProfileName> {
        let mut profiles = Vec::new();
        for found in named {
            if known.contains(&found.value) {
                profiles.push(ProfileName::new(found.value));
            } else {
                let meant = nearest(&found.value, known.iter().map(String::as_str));
                let hint = meant.map_or_else(
                    || format!("known: {}", known.iter().cloned().collect::<Vec<_>>().join(", ")),
                    |meant| format!("did you mean `{meant}`?"),
                );
                table.refuse(
                    &found,
                    "profiles",
                    format!("names the profile `{}`, which does not exist", found.value),
                    Some(hint),
                );
            }
        }
        if profiles.is_empty() {
            profiles.push(ProfileName::general());
        }
        profiles
    }

    fn loki(&mut self, table: &Table<'_>, known: &BTreeSet<String>, files: bool) -> Option<Loki> {
        let url = table.string("url", Some("LOKI_URL"));
        let variable = self.notes.variable("LOG_QUERIES");
        let (tables, texts) = table.tables("queries");
        let default_profiles = self.profile_names(table, known);
        let mut queries: Vec<LokiQuery> = Vec::new();
        for query in tables {
            let text = query.string("query", None);
            let profiles = if query.is_used() { self.profile_names(&query, known) } else { default_profiles.clone() };
            query.finish();
            match text {
                Some(text) => {
                    is_log_query(table, &text);
                    queries.push(LokiQuery { query: text.value, profiles });
                }
                None => self.notes.at(query.span(), &query.key("query"), "is missing", None),
            }
        }
        for text in texts {
            is_log_query(table, &text);
            queries.push(LokiQuery { query: text.value, profiles: default_profiles.clone() });
        }
        if let Some(variable) = variable {
            queries.clear();
            for value in split_queries(&variable) {
                let text = Found { value, from: From::Env("LOG_QUERIES".to_owned()) };
                is_log_query(table, &text);
                queries.push(LokiQuery { query: text.value, profiles: default_profiles.clone() });
            }
        }
        let wanted = table.is_used() || url.is_some() || !queries.is_empty() || !files;
        if queries.is_empty() {
            queries = split_queries(r#"{job="syslog"};{job="nginx"} |= "error""#)
                .into_iter()
                .map(|query| LokiQuery { query, profiles: default_profiles.clone() })
                .collect();
        }
        if queries.len() > 64 {
            self.notes.at(
                table.span(),
                &table.key("queries"),
                format!("has {} queries, at most 64 are possible", queries.len()),
                Some("join some with `or` in one selector: {job=~\"a|b\"}".to_owned()),
            );
        }
        let window = table.integer("window_minutes", Some("QUERY_WINDOW_MINUTES"), 1..5_256_001);
        let limit = table.integer("limit", Some("QUERY_LIMIT"), 1..100_001);
        let settle = table.integer("settle_seconds", None, 0..3601);
        let timeout = table.integer("timeout_seconds", None, 1..3601);
        let tenant = table.string("tenant", Some("LOKI_TENANT"));
        let user = table.string("user", Some("LOKI_USER"));
        let password = self.secret(table, "password", "loki-password", "LOKI_PASSWORD");
        let bearer = self.secret(table, "bearer", "loki-bearer", "LOKI_BEARER_TOKEN");
        // A token that came as a credential is not looked for in the file, which only root may read then.
        let from_file = bearer.as_ref().is_some_and(|secret| secret.origin.starts_with("file "));
        let bearer_file = table.string("bearer_file", None).map(|found| PathBuf::from(found.value));
        let bearer_file = bearer_file.filter(|_| from_file);
        let headers = table.map("headers").into_iter().map(|(name, found)| (name, found.value)).collect();
        let ca_file = table.string("ca_file", None).map(|found| PathBuf::from(found.value));
        let certificate = "LOKI_CLIENT_CERTIFICATE";
        let identity = self.secret(table, "client_certificate", "loki-client-certificate", certificate);
        let proxy = table.string("proxy", Some("LOKI_PROXY"));
        if let Some(found) = &proxy {
            self.http(table, "proxy", found, "http://proxy:3128");
        }
        table.finish();
        if let (Some(user), None) = (&user, &password) {
            table.refuse(
                user,
                "user",
                "is set without a password",
                Some("set loki.password_file, or the environment variable LOKI_PASSWORD".to_owned()),
            );
        }
        if !wanted {
            return None;
        }
        let address = url.map(|found| {
            self.http(table, "url", &found, "http://localhost:3100");
            found.value
        });
        Some(Loki {
            url: address.unwrap_or_else(|| "http://localhost:3100".to_owned()),
            queries,
            tenant: tenant.map(|found| found.value),
            basic: user.zip(password).map(|(user, password)| (user.value, password)),
            bearer,
            bearer_file,
            headers,
            ca_file,
            identity,
            proxy: proxy.map(|found| found.value),
            window: Duration::from_secs(60 * window.map_or(5, |found| found.value)),
            limit: limit.and_then(|found| u32::try_from(found.value).ok()).unwrap_or(500),
            settle: Duration::from_secs(settle.map_or(10, |found| found.value)),
            timeout: Duration::from_secs(timeout.map_or(75, |found| found.value)),
        })
    }

    fn http(&self, table: &Table<'_>, name: &str, found: &Found<String>, example: &str) {
        let parsed = url::Url::parse(&found.value);
        let usable = parsed.as_ref().is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let open = parsed.is_ok_and(|url| url.password().is_some() || !url.username().is_empty());
        if !usable {
            table.refuse(found, name, "is not an http or https address", Some(format!("for example {example}")));
        } else if open {
            table.refuse(
                found,
                name,
                "has a user or password in it",
                Some("take them out of the address: there are keys for them".to_owned()),
            );
        }
    }

    fn files(&mut self, root: &Table<'_>, known: &BTreeSet<String>) -> Vec<FileGroup> {
        let (tables, texts) = root.tables("files");
        let profiles = self.usual_profiles(root, known);
        let plain = |paths| FileGroup {
            paths,
            profiles: profiles.clone(),
            labels: BTreeMap::new(),
            timezone: None,
            from_start: false,
        };
        let mut groups = Vec::new();
        if !texts.is_empty() {
            groups.push(plain(texts.into_iter().map(|found| found.value).collect()));
        }
        for table in tables {
            let paths: Vec<_> =
                table.strings("paths").unwrap_or_default().into_iter().map(|found| found.value).collect();
            let timezone = table.string("timezone", None);
            if let Some(found) = &timezone
                && jiff::tz::TimeZone::get(&found.value).is_err()
            {
                table.refuse(
                    found,
                    "timezone",
                    "is not a time zone of this machine's database",
                    Some("an IANA name such as Europe/Berlin, or UTC".to_owned()),
                );
            }
            let group = FileGroup {
                profiles: self.profile_names(&table, known),
                labels: table.map("labels").into_iter().map(|(name, found)| (name, found.value)).collect(),
                timezone: timezone.map(|found| found.value),
                from_start: table.boolean("from_start", None).unwrap_or(false),
                paths,
            };
            table.finish();
            if group.paths.is_empty() {
                self.notes.at(
                    table.span(),
                    &table.key("paths"),
                    "names no file",
                    Some("for example paths = [\"/var/log/syslog\"]".to_owned()),
                );
            }
            groups.push(group);
        }
        if let Some(paths) = self.notes.variable("LOG_FILES") {
            let paths = paths.split(';').map(|path| path.trim().to_owned()).filter(|path| !path.is_empty());
            groups = vec![plain(paths.collect())];
        }
        groups
    }

    fn receiver(&mut self, table: &Table<'_>, known: &BTreeSet<String>) -> Receiver {
        let usual = SocketAddr::from(([127, 0, 0, 1], 5000));
        let address = |name: &str, variable| {
            table.string(name, variable).and_then(|found| match found.value.parse() {
                Ok(address) => Some(address),
                Err(_) => {
                    let hint =
                        "an address of this machine and a port: 127.0.0.1:5000, 0.0.0.0:5000 or [::]:5000".to_owned();
                    table.refuse(&found, name, "is not an address to listen at", Some(hint));
                    None
                }
            })
        };
        let listen = address("listen", Some("RECEIVER_LISTEN"));
        let (syslog_tcp, syslog_udp) = (address("syslog_tcp", None), address("syslog_udp", None));
        let (chain, key) = (table.string("certificate_file", None), table.string("key_file", None));
        for (one, other, missing) in [(&chain, &key, "key_file"), (&key, &chain, "certificate_file")] {
            if let (Some(found), None) = (one, other) {
                table.refuse(
                    found,
                    missing,
                    "is missing",
                    Some("a certificate and its key belong together".to_owned()),
                );
            }
        }
        let mut networks = Vec::new();
        for found in table.strings("insecure_allow").unwrap_or_default() {
            match found.value.parse::<Network>() {
                Ok(network) => networks.push(network),
                Err(error) => table.refuse(&found, "insecure_allow", format!("has an element that is {error}"), None),
            }
        }
        let mut clients: Vec<Client> = Vec::new();
        for inside in table.tables("clients").0 {
            let (name, hashes) = (inside.string("name", None), inside.texts("token_sha256"));
            inside.finish();
            let Some(name) = name else {
                self.notes.at(inside.span(), &inside.key("name"), "is missing", None);
                continue;
            };
            if clients.iter().any(|client| client.name() == name.value) {
                inside.refuse(&name, "name", format!("`{}` is taken by another client", name.value), None);
            }
            if hashes.is_empty() {
                let hint = "write what `printf %s TOKEN | sha256sum` prints".to_owned();
                self.notes.at(inside.span(), &inside.key("token_sha256"), "is missing", Some(hint));
            }
            let mut client = Client::new(name.value);
            for found in hashes {
                match client.clone().hashed(&found.value) {
                    Ok(known) => client = known,
                    Err(error) => inside.refuse(&found, "token_sha256", format!("is {error}"), None),
                }
            }
            clients.push(client);
        }
        let profiles = self.profile_names(table, known);
        let number = |name: &str, range| table.integer(name, None, range).map(|found| found.value);
        let window = Duration::from_secs(number("window_seconds", 1..3601).unwrap_or(60));
        let window_lines = number("window_lines", 1000..10_000_001).unwrap_or(50_000);
        let mut limits = Limits::default();
        for (name, most, bytes) in
            [("max_body_mib", 1024, &mut limits.body_bytes), ("max_unpacked_mib", 4096, &mut limits.decoded_bytes)]
        {
            *bytes = number(name, 1..most + 1).map_or(*bytes, |mib| (mib as usize) << 20);
        }
        // The smallest takes several parts of the largest batch.
        let spool_bytes = number("max_spool_mib", 16..1_048_577).unwrap_or(1024) << 20;
        let rate = |name: &str| number(name, 1..1_000_000_001);
        limits.rate = Rate {
            requests: rate("client_requests_per_second"),
            bytes: rate("client_bytes_per_second"),
            records: rate("client_lines_per_second"),
        };
        table.finish();
        Receiver {
            listen: listen.unwrap_or(usual),
            certificate: chain.zip(key).map(|(chain, key)| (chain.value.into(), key.value.into())),
            insecure_allow: networks,
            clients,
            syslog_tcp,
            syslog_udp,
            window,
            window_lines,
            limits,
            spool_bytes,
            profiles,
        }
    }

    fn model(&mut self, table: &Table<'_>) -> Model {
        let small =
            |name: &str| table.integer(name, None, 1..1_000_000_001).and_then(|found| u32::try_from(found.value).ok());
        let host = table.string("host", Some("OLLAMA_HOST"));
        let mut address = None;
        if let Some(found) = &host {
            match BaseUrl::parse(&found.value) {
                Err(error) => table.refuse(found, "host", format!("is {error}"), None),
                Ok(_) if found.value.contains('@') && matches!(found.from, From::File(_)) => {
                    let hint = "put the address into OLLAMA_HOST, or use model.bearer_file".to_owned();
                    table.refuse(found, "host", "has a password in it, which does not belong in this file", Some(hint));
                }
                Ok(parsed) => address = Some(parsed),
            }
        }
        let keep_alive = table.string("keep_alive", Some("OLLAMA_KEEP_ALIVE"));
        if let Some(found) = &keep_alive
            && found.value != "server"
            && let Err(error) = KeepAlive::parse(&found.value)
        {
            table.refuse(found, "keep_alive", format!("is no duration: {error}, or `server`"), None);
        }
        let hours = table.string("hours", None);
        if let Some(found) = &hours
            && !is_hours(&found.value)
        {
            table.refuse(found, "hours", "is no time of day", Some("for example \"22:00-06:00\"".to_owned()));
        }
        let model = Model {
            enabled: table.boolean("enabled", Some("MODEL_ENABLED")).unwrap_or(true),
            host: address,
            name: table.string("name", Some("OLLAMA_MODEL")).map(|found| found.value),
            num_ctx: table.integer("num_ctx", None, 2048..1_048_577).and_then(|found| u32::try_from(found.value).ok()),
            keep_alive: keep_alive.map(|found| found.value),
            timeout: table.integer("timeout_seconds", None, 5..86_401).map(|found| Duration::from_secs(found.value)),
            bearer: self.secret(table, "bearer", "ollama-bearer", "OLLAMA_BEARER_TOKEN"),
            ca_file: table.string("ca_file", None).map(|found| PathBuf::from(found.value)),
            allow_cloud: table.string("allow_cloud", None).map(|found| found.value),
            calls_per_hour: small("calls_per_hour"),
            calls_per_day: small("calls_per_day"),
            tokens_per_hour: table.integer("tokens_per_hour", None, 1..1_000_000_000_001).map(|found| found.value),
            tokens_per_day: table.integer("tokens_per_day", None, 1..1_000_000_000_001).map(|found| found.value),
            hours: hours.map(|found| found.value),
        };
        table.finish();
        model
    }

    fn channels(&mut self, root: &Table<'_>) -> Vec<ChannelConfig> {
        let mut channels = Vec::new();
        for (name, kind, variable) in [
            ("discord", ChannelKind::Discord, "DISCORD_WEBHOOK_URL"),
            ("slack", ChannelKind::Slack, "SLACK_WEBHOOK_URL"),
            ("webhook", ChannelKind::Webhook, "WEBHOOK_URL"),
        ] {
            let table = root.table(name);
            channels.extend(self.channel(&table, name.to_owned(), kind, Some(variable)));
        }
        let (tables, _) = root.tables("channels");
        for table in tables {
            let name = table.string("name", None);
            let kind = table.string("kind", None);
            let kinds = ["discord", "slack", "webhook"];
            let parsed = kind.as_ref().and_then(|found| match found.value.as_str() {
                "discord" => Some(ChannelKind::Discord),
                "slack" => Some(ChannelKind::Slack),
                "webhook" => Some(ChannelKind::Webhook),
                other => {
                    let hint = nearest(other, kinds).map(|meant| format!("did you mean `{meant}`?"));
                    table.refuse(found, "kind", "must be discord, slack or webhook", hint);
                    None
                }
            });
            match (name, kind.is_some()) {
                (Some(name), true) => {
                    if let Some(kind) = parsed {
                        let label = name.value.clone();
                        if !is_name(&label) {
                            let hint = "small letters, digits, `-` and `_`, at most 40".to_owned();
                            table.refuse(&name, "name", "is not a name for a channel", Some(hint));
                            continue;
                        }
                        if channels.iter().any(|channel: &ChannelConfig| channel.name == label) {
                            table.refuse(&name, "name", format!("`{label}` is taken by another channel"), None);
                        }
                        channels.extend(self.channel(&table, label, kind, None));
                    }
                }
                (None, _) => self.notes.at(table.span(), &table.key("name"), "is missing", None),
                (_, false) => self.notes.at(
                    table.span(),
                    &table.key("kind"),
                    "is missing",
                    Some("discord, slack or webhook".to_owned()),
                ),
            }
        }
        channels
    }

    fn channel(
        &mut self,
        table: &Table<'_>,
        name: String,
        kind: ChannelKind,
        variable: Option<&str>,
    ) -> Option<ChannelConfig> {
        let credential = format!("{name}-webhook");
        let own = format!("{}_WEBHOOK_URL", name.to_uppercase().replace('-', "_"));
        let mistakes = self.notes.count();
        let address = self.secret(table, "url", &credential, variable.unwrap_or(&own));
        let is_told = self.notes.count() > mistakes;
        let min_severity = table.string("min_severity", None).and_then(|found| match found.value.parse() {
            Ok(severity) => Some(severity),
            Err(_) => {
                table.refuse(&found, "min_severity", "must be low, medium, high or critical", None);
                None
            }
        });
        let mut signing = Vec::new();
        if kind == ChannelKind::Webhook {
            let prefix = variable.unwrap_or(&own).trim_end_matches("_URL");
            for (key, variable) in [("secret", "SECRET"), ("old_secret", "OLD_SECRET")] {
                let credential = format!("{name}-{}", key.replace('_', "-"));
                signing.extend(self.secret(table, key, &credential, &format!("{prefix}_{variable}")));
            }
        }
        table.finish();
        let Some(address) = address else {
            if table.is_used() && !is_told {
                self.notes.at(table.span(), &table.key("url_file"), "is missing: the channel has no address", Some(format!(
                    "put the webhook's address in a file that only logwarden can read, or in the environment variable {}",
                    variable.unwrap_or(&own)
                )));
            }
            return None;
        };
        Some(ChannelConfig { name, kind, address, signing, min_severity: min_severity.unwrap_or(Severity::Low) })
    }

    /// A secret: the systemd credential of that name, else the file that `<name>_file` names, else the environment. The
    /// file itself must not hold it.
    fn secret(&mut self, table: &Table<'_>, name: &str, credential: &str, variable: &str) -> Option<Secret> {
        let file_key = format!("{name}_file");
        if let Some(span) = table.forbidden(name) {
            let hint =
                format!("put it in a file of mode 0600 and name that: {file_key} = \"/etc/logwarden/{credential}\"");
            self.notes.at(span, &table.key(name), "is a secret and does not belong in this file", Some(hint));
            table.string(&file_key, None);
            return None;
        }
        let named = table.string(&file_key, None);
        if let Some(directory) = self.notes.variable("CREDENTIALS_DIRECTORY")
            && let Ok(text) = self.files.read(&Path::new(&directory).join(credential))
            && !text.trim().is_empty()
        {
            return Some(Secret { value: clean(&text), origin: format!("credential {credential}") });
        }
        if let Some(found) = named {
            let path = Path::new(&found.value);
            return match self.files.read(path) {
                Ok(text) if text.trim().is_empty() => None,
                Ok(_) if self.files.is_open_to_others(path) => {
                    table.refuse(
                        &found,
                        &file_key,
                        "names a file that everybody may read",
                        Some(format!("chmod o-rwx {}", found.value)),
                    );
                    None
                }
                Ok(text) => Some(Secret { value: clean(&text), origin: format!("file {}", found.value) }),
                Err(error) => {
                    let path = &found.value;
                    let hint = match error.kind() {
                        io::ErrorKind::PermissionDenied => {
                            "run as a user who may read it: with sudo, or as the service does".to_owned()
                        }
                        _ => format!("write the secret into it: (umask 077; cat > {path}), paste, Enter, Ctrl-D"),
                    };
                    let reason = format!("names the file {path}, which cannot be read: {error}");
                    table.refuse(&found, &file_key, reason, Some(hint));
                    None
                }
            };
        }
        let value = self.notes.variable(variable)?;
        Some(Secret { value: clean(&value), origin: format!("environment variable {variable}") })
    }

    fn alerts(&mut self, table: &Table<'_>) -> Alerts {
        let seconds = |name: &str, variable: Option<&str>, default: u64| {
            let found = table.integer(name, variable, 1..2_592_001);
            Duration::from_secs(found.map_or(default, |found| found.value))
        };
        let window = seconds("window_seconds", Some("DEDUP_WINDOW"), 3600);
        let alerts = Alerts {
            window,
            remind_urgent: seconds("remind_urgent_seconds", None, window.as_secs()),
            remind_other: seconds("remind_other_seconds", None, 86_400.max(window.as_secs())),
            summary_every: table
                .integer("summary_every_hours", None, 1..721)
                .map(|found| Duration::from_secs(3600 * found.value)),
            per_day: table
                .integer("per_day", None, 0..1_000_001)
                .map_or(50, |found| u32::try_from(found.value).unwrap_or(u32::MAX)),
            mutes_file: table.string("mutes_file", None).map(|found| PathBuf::from(found.value)),
        };
        table.finish();
        alerts
    }

    fn grafana(&mut self, table: &Table<'_>) -> Option<Grafana> {
        let url = table.string("url", Some("GRAFANA_URL"));
        let datasource = table.string("datasource_uid", Some("GRAFANA_DATASOURCE_UID"));
        let org = table.integer("org", None, 1..1_000_001).map_or(1, |found| found.value);
        table.finish();
        match (url, datasource) {
            (Some(url), Some(datasource)) => {
                self.http(table, "url", &url, "https://grafana.example.org");
                Some(Grafana { url: url.value, datasource: datasource.value, org })
            }
            (Some(url), None) => {
                table.refuse(
                    &url,
                    "url",
                    "is set without datasource_uid",
                    Some("open the Loki data source in Grafana: its uid is the last part of the address".to_owned()),
                );
                None
            }
            (None, _) => None,
        }
    }

    fn detectors(&mut self, table: &Table<'_>) -> Detectors {
        let detectors = Detectors {
            warm_up: Duration::from_secs(
                60 * table.integer("warm_up_minutes", None, 0..525_601).map_or(24 * 60, |found| found.value),
            ),
            warm_up_lines: table
                .integer("warm_up_lines", None, 0..1_000_000_000_001)
                .map_or(50_000, |found| found.value),
            rules_dir: table.string("rules_dir", None).map(|found| PathBuf::from(found.value)),
        };
        table.finish();
        detectors
    }

    fn redact(&mut self, table: &Table<'_>) -> Vec<String> {
        let patterns = table.strings("patterns").unwrap_or_default();
        for found in &patterns {
            if let Err(error) = regex::Regex::new(&found.value) {
                let reason = error.to_string().lines().last().unwrap_or_default().replace("error: ", "");
                table.refuse(
                    found,
                    "patterns",
                    format!("has an element that is no regular expression: {reason}"),
                    None,
                );
            }
        }
        table.finish();
        patterns.into_iter().map(|found| found.value).collect()
    }
}

/// A name that files and variables can be called after.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= 40 && text.bytes().all(plain)
}

/// `22:00-06:00`
fn is_hours(text: &str) -> bool {
    let time = |text: &str| {
        let (hour, minute) = text.trim().split_once(':').unwrap_or((text.trim(), "0"));
        let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
        (minute < 60 && hour * 60 + minute <= 24 * 60).then_some(hour * 60 + minute)
    };
    text.split_once('-').and_then(|(from, to)| Some(time(from)? != time(to)?)).unwrap_or(false)
}

/// Notes what has no lines: metric queries.
fn is_log_query(table: &Table<'_>, found: &Found<String>) {
    if !found.value.trim_start().starts_with('{') {
        let reason = format!("has `{}`, which is not a log query: it must begin with a selector", found.value);
        table.refuse(found, "queries", reason, Some("for example {job=\"syslog\"}".to_owned()));
    }
}

fn clean(text: &str) -> SecretString {
    SecretString::from(text.trim().trim_matches('"').to_owned())
}

/// Splits at `;`, which inside quotes or backticks belongs to the query.
fn split_queries(text: &str) -> Vec<String> {
    let mut queries = vec![String::new()];
    let (mut quote, mut escaped) = (None, false);
    for character in text.chars() {
        match quote {
            None if character == ';' => {
                queries.push(String::new());
                continue;
            }
            None if matches!(character, '"' | '`') => quote = Some(character),
            Some('"') if !escaped && character == '\\' => {
                escaped = true;
                queries.last_mut().map(|query| query.push(character)).unwrap_or_default();
                continue;
            }
            Some(open) if open == character && !escaped => quote = None,
            _ => {}
        }
        escaped = false;
        queries.last_mut().map(|query| query.push(character)).unwrap_or_default();
    }
    queries.into_iter().map(|query| query.trim().to_owned()).filter(|query| !query.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_in_quotes_belongs_to_the_query() {
        let text = r#"{job="a"} |= "x;y" ; {job="b"} |~ `p;q\`;{job="c\";d"};; "#;
        assert_eq!(
            split_queries(text),
            [r#"{job="a"} |= "x;y""#, r"{job=`b`} |~ `p;q\`".replace("`b`", "\"b\"").as_str(), r#"{job="c\";d"}"#]
        );
    }
}
