//! From a checked configuration to a wired pipeline.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use logwarden_core::{
    decide::{Links, Policy},
    dedup::DedupStore,
    detectors::{RuleSet, Settings},
    env::Env,
    error::{BoxError, chain},
    ledger::{Commit, CommitId, Ledger, Query, Versioned, Write},
    notifier::Notifier,
    pipeline::{self, Pipeline},
    redact::Redactor,
    source::{LogSource, QueryInfo, SourceId},
    templates::Zone,
};
use logwarden_dedup::SqliteDedup;
use logwarden_file_source::{Follow, Group, zone};
use logwarden_ledger::{Options, SqliteLedger};
use logwarden_loki_source::{Auth, Credential, Loki};
use logwarden_notifiers::{AddressError, Discord, Slack, Webhook, grafana::Explore};
use logwarden_ollama_client::{Calibration, Ceilings, Exchange, Hours, KeepAlive, Ollama};
use logwarden_push_source::PushSource;
use secrecy::SecretString;

use crate::{
    beside::Both,
    config::{ChannelConfig, ChannelKind, Config, Model},
    trail::Trail,
};

/// Destinations are hashed with this, so that hosts that share a deduplication store agree; an address itself has far
/// more entropy than could be guessed.
const DESTINATION_KEY: &[u8] = b"logwarden destination 1";
/// The name under which the ledger keeps what was measured about the model.
const CALIBRATION: &str = "ollama.calibration";

/// Why a configuration that reads well could not be wired.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct WireError {
    what: String,
    hint: Option<String>,
    /// Whether it is the configuration's fault, and another run will not help.
    is_permanent: bool,
    #[source]
    cause: Option<BoxError>,
}

impl WireError {
    pub(crate) fn usage(what: impl Into<String>, hint: Option<String>, cause: Option<BoxError>) -> Self {
        Self { what: what.into(), hint, is_permanent: true, cause }
    }

    fn failed(what: impl Into<String>, hint: Option<String>, cause: impl Into<BoxError>) -> Self {
        Self { what: what.into(), hint, is_permanent: false, cause: Some(cause.into()) }
    }

    /// What to do.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether it is the configuration's fault, and another run will not help.
    pub fn is_permanent(&self) -> bool {
        self.is_permanent
    }
}

/// The parts that were wired, for those who want to look at them one by one.
#[derive(Debug)]
pub struct Wired {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Loki, if it is read.
    pub loki: Option<Arc<Loki>>,
    /// What shippers push, if that is taken; the pipeline's first source then.
    pub push: Option<Arc<PushSource>>,
    /// The files, if any are followed.
    pub files: Option<Arc<Follow>>,
    /// The model's server, unless it is switched off.
    pub ollama: Option<Arc<Ollama>>,
    /// What was told, should another state go on with it.
    pub both: Option<Arc<Both>>,
    /// Discord channels, which can be looked at without a message.
    pub discords: Vec<Arc<Discord>>,
    /// Sentences for people.
    pub warnings: Vec<String>,
}

/// What the parts are wired with.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The clock and the dice.
    pub env: Arc<dyn Env>,
    /// Where state is kept; `None`: in memory.
    pub state_dir: Option<&'a Path>,
    /// The directory of another state, from which it is told what this one cannot: neither says what the other has said.
    pub beside: Option<PathBuf>,
    /// This machine's name.
    pub host: String,
    /// The program that runs, for the commands that messages name.
    pub program: String,
    /// Whether to read the configured sources.
    pub sources: bool,
    /// Whether to take what shippers push.
    pub push: bool,
    /// A trail that is open already, in place of the configured one: a file has one writer.
    pub trail: Option<Arc<Trail>>,
}

/// Opens state and wires everything. Makes no connection.
///
/// # Errors
///
/// When something cannot be used; with a hint.
pub async fn wire(config: &Config, around: Surroundings<'_>) -> Result<Wired, WireError> {
    let env = around.env.clone();
    let mut warnings = Vec::new();
    let mut builder = Pipeline::builder().env(env.clone()).host(around.host.clone()).tenant(config.tenant.clone());
    let mut redaction_key = env.random();
    let mut calibration = Calibration::default();
    let mut shared: Option<Arc<dyn Ledger>> = None;
    let mut both = None;
    if let Some(state_dir) = around.state_dir {
        let (ledger, mut dedup) = open(state_dir, config, &env, &mut warnings)?;
        if let Some(beside) = &around.beside {
            let clock = env.clone();
            match SqliteDedup::open(beside, &Options::default(), move || clock.now()) {
                Ok((beside, _)) => {
                    let wired = Arc::new(Both::new(dedup, Arc::new(beside)));
                    (both, dedup) = (Some(wired.clone()), wired);
                }
                Err(error) => warnings.push(format!("{}: {}", beside.display(), chain(&error))),
            }
        }
        let query = Query { values: vec![CALIBRATION.to_owned()], ..Query::default() };
        let snapshot = ledger.read(&query).await.map_err(|error| state_failed(state_dir, error))?;
        redaction_key = snapshot.installation.map_or(redaction_key, |installation| installation.row.secret);
        let kept = snapshot.values.get(CALIBRATION).map(|value| value.row.clone());
        calibration = kept.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
        builder = builder.ledger(ledger.clone()).dedup(dedup);
        shared = Some(ledger);
    }
    let redactor = Redactor::new(redaction_key, &config.redact).map_err(|error| {
        WireError::usage(
            "redact.patterns cannot be used",
            Some("use Rust's regular expressions".into()),
            Some(error.into()),
        )
    })?;
    let redactor = Arc::new(redactor);
    builder = builder.redactor(redactor.clone());
    let configured = config.trail.as_deref().filter(|_| around.trail.is_none());
    let opened = configured.and_then(|directory| match Trail::open(directory, env.clone()) {
        Ok(trail) => Some(Arc::new(trail)),
        Err(error) => {
            warnings.push(format!("there is no trail: cannot write in {} ({error})", directory.display()));
            None
        }
    });
    let trail = around.trail.or(opened);
    if let Some(trail) = &trail {
        builder = builder.trail(trail.clone());
    }

    let push = match &shared {
        Some(ledger) if around.push => {
            let zone = zone(None).unwrap_or(Zone::UTC);
            Some(Arc::new(PushSource::new(ledger.clone(), config.receiver.profiles.clone(), zone)))
        }
        _ => None,
    };
    if let Some(push) = &push {
        // A page of very long lines must not take the memory that bodies under way need.
        let limits = pipeline::Limits { bytes: 16 << 20, ..pipeline::Limits::default() };
        builder = builder.source(push.clone()).limits(limits);
    }
    let loki = match &config.loki {
        Some(loki) if around.sources => Some(Arc::new(self::loki(loki, config.pass_budget)?)),
        _ => None,
    };
    warnings.extend(loki.iter().flat_map(|loki| loki.remarks()));
    let files = if around.sources && !config.files.is_empty() {
        Some(Arc::new(self::files(config, &around.host)?))
    } else {
        None
    };
    // Files first: they answer at once, and what hangs must not hold up what is in them.
    let sources = files.iter().map(|files| files.clone() as Arc<dyn LogSource>);
    for source in sources.chain(loki.iter().map(|loki| loki.clone() as Arc<dyn LogSource>)) {
        builder = builder.source(source);
    }
    for profile in &config.profiles {
        builder = builder.profile(profile.clone());
    }

    let ollama = if config.model.enabled {
        Some(Arc::new(ollama(&config.model, env.clone(), calibration, trail.as_ref(), &redactor, &mut warnings)?))
    } else {
        None
    };
    if let Some(ollama) = &ollama {
        builder = builder.classifier(ollama.clone());
    }

    let mut discords = Vec::new();
    for channel in &config.channels {
        match self::channel(channel, &around.program, &env) {
            Ok(Made::Discord(discord)) => {
                discords.push(discord.clone());
                builder = builder.notifier(discord);
            }
            Ok(Made::Other(notifier)) => builder = builder.notifier(notifier),
            Err(error) if error.is_off() => warnings.push(format!(
                "channel `{}` is off: {} is a placeholder; put the webhook's address there",
                channel.name, channel.address.origin
            )),
            Err(error) => {
                let hint = Some(error.hint().to_owned());
                let what = format!("channel `{}` cannot be used ({})", channel.name, channel.address.origin);
                return Err(WireError::usage(what, hint, Some(error.into())));
            }
        }
    }
    let rules = match &config.detectors.rules_dir {
        None => RuleSet::builtin(),
        Some(directory) => read_rules(directory, &around.program)?,
    };
    let settings = Settings {
        warm_up: config.detectors.warm_up,
        warm_up_lines: config.detectors.warm_up_lines,
        ..Settings::default()
    };
    let mutes = match &config.alerts.mutes_file {
        Some(path) => crate::read_mutes(path)?,
        None => Vec::new(),
    };
    let active = mutes.iter().filter(|(_, mute)| logwarden_core::decide::mutes::is_active(mute, env.now()));
    for (place, mute) in active {
        if let Some((why, hint)) = crate::idle_mute(&mute.matches, &rules, config.model.name.as_deref()) {
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            warnings.push(format!("{place}: a mute that holds nothing back: {why}{hint}"));
        }
        if let Some(why) = crate::grave_mute(&mute.matches, &rules) {
            warnings.push(format!("the mute of {} by {}: {why}", crate::describe_mute(&mute.matches), mute.author));
        }
    }
    let policy = Policy {
        window: config.alerts.window,
        remind_urgent: config.alerts.remind_urgent,
        remind_other: config.alerts.remind_other,
        links: links(config)?,
        mutes: mutes.into_iter().map(|(_, mute)| mute).collect(),
        alerts_per_day: config.alerts.per_day,
        summary_every: config.alerts.summary_every,
        program: around.program,
        judge_window: if push.is_some() { config.receiver.window } else { Duration::ZERO },
        judge_lines: config.receiver.window_lines,
        ..Policy::default()
    };
    let miner =
        logwarden_templates::Config { max_templates: config.max_templates, ..logwarden_templates::Config::default() };
    let built = builder.rules(rules).detector_settings(settings).policy(policy).miner(miner).build();
    let pipeline: Pipeline =
        built.map_err(|error| WireError::usage("the configuration cannot be used", None, Some(error.into())))?;
    if let Some(state_dir) = around.state_dir {
        tell_set_aside(state_dir, &pipeline, &*env).await.map_err(|error| state_failed(state_dir, error))?;
    }
    Ok(Wired {
        ledger: shared.unwrap_or_else(|| pipeline.ledger().clone()),
        pipeline: Arc::new(pipeline),
        push,
        loki,
        files,
        ollama,
        both,
        discords,
        warnings,
    })
}

impl Wired {
    /// Keeps what was measured about the model for the next run.
    ///
    /// # Errors
    ///
    /// When the state cannot be used.
    pub async fn keep_calibration(&self, env: &dyn Env) -> Result<(), logwarden_core::ledger::LedgerError> {
        let Some(ollama) = &self.ollama else { return Ok(()) };
        let Ok(value) = serde_json::to_value(ollama.calibration()) else { return Ok(()) };
        let query = Query { values: vec![CALIBRATION.to_owned()], ..Query::default() };
        let known = self.ledger.read(&query).await?.values.get(CALIBRATION).map_or(0, |known| known.version);
        let write = Write::Value(CALIBRATION.to_owned(), Versioned { version: known, row: value });
        let id = CommitId(u128::from(env.random()) << 64 | u128::from(env.random()));
        // On a conflict another process has just kept what it measured: as good as ours.
        let _ = self.ledger.commit(&Commit { id, writes: vec![write] }).await?;
        Ok(())
    }
}

/// The ledger and the deduplication store.
type Stores = (Arc<dyn Ledger>, Arc<dyn DedupStore>);

/// Opens both in a state directory.
fn open(
    state_dir: &Path,
    config: &Config,
    env: &Arc<dyn Env>,
    warnings: &mut Vec<String>,
) -> Result<Stores, WireError> {
    let options = Options { keep_free: config.keep_free, ..Options::default() };
    let limits = logwarden_core::retention::Limits::default();
    let limits = logwarden_core::retention::Limits {
        // The miner says which leaves go; this bound is only there should nobody ask it.
        leaves: limits.leaves.max(2 * config.max_templates),
        spool_bytes: config.receiver.spool_bytes,
        ..limits
    };
    let (ledger, opened) =
        SqliteLedger::open(state_dir, &options, limits).map_err(|error| state_failed(state_dir, error))?;
    let clock = env.clone();
    let (dedup, opened_dedup) =
        SqliteDedup::open(state_dir, &options, move || clock.now()).map_err(|error| state_failed(state_dir, error))?;
    for opened in [opened, opened_dedup] {
        if let Some((path, reason)) = opened.set_aside {
            warnings.push(format!("damaged state was set aside as {} ({reason}); a new one was begun", path.display()));
        }
    }
    Ok((Arc::new(ledger), Arc::new(dedup)))
}

/// Alerts about damaged state that was set aside, whoever opened it then: a file beside the state that nobody has been told
/// of. Told again after a crash in between, it joins its incident.
async fn tell_set_aside(state_dir: &Path, pipeline: &Pipeline, env: &dyn Env) -> Result<(), BoxError> {
    for file in set_aside(state_dir) {
        let name = format!("set_aside.{file}");
        let query = Query { values: vec![name.clone()], ..Query::default() };
        if pipeline.ledger().read(&query).await?.values.contains_key(&name) {
            continue;
        }
        let path = state_dir.join(&file).display().to_string();
        pipeline.report_trouble(&[pipeline::Trouble::StateSetAside { path }]).await?;
        let write = Write::Value(name, Versioned::new(serde_json::Value::Bool(true)));
        let id = CommitId(u128::from(env.random()) << 64 | u128::from(env.random()));
        let _ = pipeline.ledger().commit(&Commit { id, writes: vec![write] }).await?;
    }
    Ok(())
}

/// Names of databases that were set aside: `ledger.db.damaged-20261121T040000Z`.
fn set_aside(state_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(state_dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names
        .filter(|name| name.contains(".db.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    names.sort();
    names
}

/// Whose state a directory holds that this user may not use, as advice; `None` when that is not what is wrong.
///
/// Naming another directory would begin a second state, which knows nothing of what the first one has told.
pub fn others_state(state_dir: &Path) -> Option<String> {
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(state_dir.join(logwarden_ledger::FILE));
    if !opened.is_err_and(|error| denied(&error)) {
        return None;
    }
    let owner = std::fs::metadata(state_dir).ok().map(|meta| meta.uid());
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = owner.and_then(|uid| user_name(&users, uid));
    Some(match name {
        Some(name) if name != "root" => {
            format!("it belongs to the user {name}: run this as {name} (`sudo -u {name} …`), or as root")
        }
        Some(_) => "it belongs to root: run this with sudo".to_owned(),
        None => "it belongs to another user: run this as that user, or with sudo".to_owned(),
    })
}

/// The name of a user in the lines of `/etc/passwd`.
fn user_name(users: &str, uid: u32) -> Option<&str> {
    let mut users = users.lines().map(|line| line.split(':'));
    users.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

fn state_failed(state_dir: &Path, error: impl Into<BoxError>) -> WireError {
    let hint =
        others_state(state_dir).unwrap_or_else(|| "name a directory that may be written: --state-dir DIR".to_owned());
    WireError::failed(format!("cannot use the state in {}", state_dir.display()), Some(hint), error)
}

/// Opens the ledger of a state directory alone, for commands that only look and note.
///
/// # Errors
///
/// When it cannot be used.
pub fn open_ledger(state_dir: &Path) -> Result<Arc<dyn Ledger>, WireError> {
    let options = Options::default();
    let (ledger, _) = SqliteLedger::open(state_dir, &options, logwarden_core::retention::Limits::default())
        .map_err(|error| state_failed(state_dir, error))?;
    Ok(Arc::new(ledger))
}

/// Reads Loki's past, from so long before the time of the first read on, as a source with that id.
///
/// # Errors
///
/// When the settings cannot be used; with a hint.
pub fn past_of_loki(config: &crate::config::Loki, id: SourceId, lookback: Duration) -> Result<Loki, WireError> {
    // What is old has settled, and nothing late comes.
    let past = loki_builder(config)?.id(id).lookback(lookback);
    let past = past.settle(Duration::ZERO).overlap(Duration::ZERO).sweep(None).deep_sweep(None);
    past.build().map_err(|error| unusable_loki(error.hint().map(str::to_owned), error))
}

fn loki(config: &crate::config::Loki, budget: Duration) -> Result<Loki, WireError> {
    // A pass has something else to do, too.
    let patience = budget.saturating_sub(Duration::from_secs(10)).max(Duration::from_secs(10));
    loki_builder(config)?
        .patience(patience)
        .build()
        .map_err(|error| unusable_loki(error.hint().map(str::to_owned), error))
}

fn unusable_loki(hint: Option<String>, error: impl Into<BoxError>) -> WireError {
    WireError::usage("the [loki] settings cannot be used", hint, Some(error.into()))
}

fn loki_builder(config: &crate::config::Loki) -> Result<logwarden_loki_source::Builder, WireError> {
    let queries = config
        .queries
        .iter()
        .map(|query| QueryInfo { text: query.query.clone(), profiles: query.profiles.clone() })
        .collect();
    let tenants: Vec<String> =
        config.tenant.iter().flat_map(|all| all.split('|')).map(|one| one.trim().to_owned()).collect();
    let auth = match (&config.basic, &config.bearer_file, &config.bearer) {
        (Some((user, password)), _, _) => {
            Auth::Basic { user: user.clone(), password: Credential::Value(password.value.clone()) }
        }
        (None, Some(path), _) => Auth::Bearer(Credential::File(path.clone())),
        (None, None, Some(bearer)) => Auth::Bearer(Credential::Value(bearer.value.clone())),
        (None, None, None) => Auth::None,
    };
    let mut builder = Loki::builder(&config.url, queries)
        .tenants(tenants)
        .auth(auth)
        .lookback(config.window)
        .settle(config.settle)
        .timeout(config.timeout)
        .page_lines(config.limit as usize);
    for (name, value) in &config.headers {
        builder = builder.header(name.clone(), SecretString::from(value.clone()));
    }
    if let Some(path) = &config.ca_file {
        builder = builder.ca_pem(certificate("loki.ca_file", path)?);
    }
    if let Some(identity) = &config.identity {
        builder = builder.identity_pem(identity.value.clone());
    }
    if let Some(proxy) = &config.proxy {
        builder = builder.proxy(SecretString::from(proxy.clone()));
    }
    Ok(builder)
}

fn certificate(key: &str, path: &Path) -> Result<Vec<u8>, WireError> {
    std::fs::read(path).map_err(|error| {
        let hint = "name a file in PEM form that this user may read".to_owned();
        WireError::usage(format!("{key}: cannot read {}", path.display()), Some(hint), Some(error.into()))
    })
}

fn files(config: &Config, host: &str) -> Result<Follow, WireError> {
    let mut groups = Vec::new();
    for group in &config.files {
        let zone = zone(group.timezone.as_deref()).unwrap_or(Zone::UTC);
        groups.push(Group {
            paths: group.paths.clone(),
            profiles: group.profiles.clone(),
            labels: group.labels.clone(),
            home: host.to_owned(),
            zone,
            from_start: group.from_start,
        });
    }
    if groups.len() > logwarden_core::source::MAX_QUERIES {
        return Err(WireError::usage(
            "more than 64 groups of files",
            Some("name several paths in one group".into()),
            None,
        ));
    }
    Ok(Follow::new(SourceId("files".to_owned()), groups))
}

fn ollama(
    config: &Model,
    env: Arc<dyn Env>,
    calibration: Calibration,
    trail: Option<&Arc<Trail>>,
    redactor: &Arc<Redactor>,
    warnings: &mut Vec<String>,
) -> Result<Ollama, WireError> {
    let base = config.host.clone().unwrap_or_default();
    warnings.extend(base.notes().iter().map(|note| format!("OLLAMA_HOST: {note}")));
    let now = env.now();
    let mut builder = Ollama::builder(base, env).calibration(calibration).ceilings(Ceilings {
        calls_per_hour: config.calls_per_hour,
        calls_per_day: config.calls_per_day,
        tokens_per_hour: config.tokens_per_hour,
        tokens_per_day: config.tokens_per_day,
    });
    if let Some(name) = &config.name {
        builder = builder.model(name);
    }
    if let Some(tokens) = config.num_ctx {
        builder = builder.num_ctx(tokens);
    }
    if let Some(timeout) = config.timeout {
        builder = builder.timeout(timeout);
    }
    if let Some(name) = &config.allow_cloud {
        builder = builder.allow_cloud(name);
    }
    if let Some(bearer) = &config.bearer {
        builder = builder.bearer(&bearer.value);
    }
    if let Some(path) = &config.ca_file {
        builder = builder.ca_pem(certificate("model.ca_file", path)?);
    }
    match config.keep_alive.as_deref() {
        None => {}
        Some("server") => builder = builder.keep_alive(None),
        Some(text) => {
            let parsed = KeepAlive::parse(text).map_err(|error| {
                let hint = "seconds, a duration such as 10m, or `server`".to_owned();
                WireError::usage("model.keep_alive cannot be used", Some(hint), Some(error.into()))
            })?;
            builder = builder.keep_alive(Some(parsed));
        }
    }
    if let Some(text) = &config.hours {
        let hours = parse_hours(text, now).ok_or_else(|| {
            WireError::usage(
                format!("model.hours: `{text}` names no hours"),
                Some("for example 22:00-06:00".into()),
                None,
            )
        })?;
        builder = builder.hours(hours);
    }
    if let Some(trail) = trail {
        let (trail, redactor) = (trail.clone(), redactor.clone());
        builder = builder.trail(Arc::new(move |exchange: Exchange<'_>| match exchange {
            Exchange::Prompt(text) => pipeline::Trail::prompt(&*trail, "model", &redactor.redact(text)),
            Exchange::Response(text) => pipeline::Trail::response(&*trail, "model", &redactor.redact(text)),
        }));
    }
    builder.build().map_err(|error| {
        let hint = error.hint().map(str::to_owned);
        WireError::usage("the [model] settings cannot be used", hint, Some(error.into()))
    })
}

/// `22:00-06:00`, in this machine's time zone as it is now.
fn parse_hours(text: &str, now: logwarden_core::Timestamp) -> Option<Hours> {
    let minute = |text: &str| {
        let (hours, minutes) = text.trim().split_once(':').unwrap_or((text.trim(), "0"));
        let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours <= 24 && minutes < 60 && hours * 60 + minutes <= 1440).then_some(hours * 60 + minutes)
    };
    let (from, to) = text.split_once('-')?;
    let east = zone(None).map_or(0, |zone| zone.offset_at(now.secs()));
    Hours::new(minute(from)?, minute(to)?, east)
}

enum Made {
    Discord(Arc<Discord>),
    Other(Arc<dyn Notifier>),
}

fn channel(config: &ChannelConfig, program: &str, env: &Arc<dyn Env>) -> Result<Made, AddressError> {
    let (name, url, severity) = (config.name.as_str(), &config.address.value, config.min_severity);
    Ok(match config.kind {
        ChannelKind::Discord => {
            Made::Discord(Arc::new(Discord::new(name, url, severity, DESTINATION_KEY)?.program(program)))
        }
        ChannelKind::Slack => Made::Other(Arc::new(Slack::new(name, url, severity, DESTINATION_KEY)?.program(program))),
        ChannelKind::Webhook => {
            let signing: Vec<_> = config.signing.iter().map(|secret| secret.value.clone()).collect();
            Made::Other(Arc::new(Webhook::new(name, url, &signing, severity, DESTINATION_KEY, env.clone())?))
        }
    })
}

fn links(config: &Config) -> Result<Option<Links>, WireError> {
    let Some(grafana) = &config.grafana else { return Ok(None) };
    let base = url::Url::parse(&grafana.url)
        .map_err(|error| WireError::usage("grafana.url is not an address", None, Some(error.into())))?;
    let explore = Explore { base, datasource_uid: grafana.datasource.clone(), org_id: grafana.org };
    Ok(Some(Arc::new(move |query, from, to| Some(explore.link(query, from, to)))))
}

/// The rules that come with the program with those of a directory.
///
/// # Errors
///
/// When one of its files cannot be used; with a hint that names `program`.
pub fn read_rules(directory: &Path, program: &str) -> Result<RuleSet, WireError> {
    let failed = |cause: BoxError| {
        let hint = format!("check it with `{program} rules test FILE`");
        WireError::usage(format!("the rules in {} cannot be used", directory.display()), Some(hint), Some(cause))
    };
    let mut files = Vec::new();
    let entries = std::fs::read_dir(directory).map_err(|error| {
        let hint = "name a directory of rule files in detectors.rules_dir, or none".to_owned();
        WireError::usage(format!("cannot read the rules in {}", directory.display()), Some(hint), Some(error.into()))
    })?;
    for entry in entries {
        let path = entry.map_err(|error| failed(error.into()))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).map_err(|error| failed(error.into()))?;
            files.push((path.display().to_string(), text));
        }
    }
    files.sort();
    RuleSet::with_files(files.iter().map(|(name, text)| (name.as_str(), text.as_str())))
        .map_err(|error| failed(error.into()))
}

/// Whether a state was begun in a directory.
pub fn has_state(state_dir: &Path) -> bool {
    state_dir.join(logwarden_ledger::FILE).exists()
}

/// How long a pass may take before systemd must give up on it.
pub fn start_timeout(budget: Duration) -> Duration {
    budget + Duration::from_secs(120)
}
