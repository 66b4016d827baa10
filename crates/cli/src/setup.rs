//! From arguments to a configuration and its parts.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use logwarden_config::{
    ChannelConfig, Checked, Config, DiskFiles, Input, Mistakes, Surroundings, SystemEnv, Trail, Wired,
};
use logwarden_core::{
    detectors::RuleSet,
    env::Env,
    ledger::{Ledger, Mute},
};

use crate::{args::Common, failure::Failure, program};

/// A configuration, and where it is from.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<String>,
    /// The environment variables that count.
    pub(crate) variables: Vec<String>,
    pub(crate) file: Option<PathBuf>,
    pub(crate) env: Arc<dyn Env>,
}

/// What a configuration comes to when it is read.
#[derive(Debug)]
pub(crate) enum Read {
    Good(Box<Setup>),
    Mistaken { file: Option<PathBuf>, mistakes: Mistakes },
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// Reads the configuration, mistakes and all.
///
/// # Errors
///
/// When its file cannot be read.
pub(crate) fn read(common: &Common) -> Result<Read, Failure> {
    let file = logwarden_config::config_file(common.config.as_deref(), &variable, &|path| path.is_file());
    let text = match &file {
        None => None,
        Some(path) => Some(fs::read_to_string(path).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run as a user who may read it: with sudo, or as the service does".to_owned()
                }
                io::ErrorKind::IsADirectory => {
                    format!("name the file in it: --config {}", path.join("logwarden.toml").display())
                }
                _ => {
                    let init = program::command("init --dir DIR");
                    format!("name another with --config FILE, or write one with `{init}`")
                }
            };
            Failure::usage(format!("cannot read the configuration {}", path.display())).because(&error).hint(hint)
        })?),
    };
    let input = Input { file: file.clone().zip(text), env: &variable, files: &DiskFiles };
    Ok(match logwarden_config::read(&input) {
        Ok(Checked { mut config, warnings, variables }) => {
            config.trail = common.trail.clone().or(config.trail);
            Read::Good(Box::new(Setup { config, warnings, variables, file, env: Arc::new(SystemEnv) }))
        }
        Err(mistakes) => Read::Mistaken { file, mistakes },
    })
}

/// Reads the configuration.
///
/// # Errors
///
/// With every mistake at once.
pub(crate) fn load(common: &Common) -> Result<Setup, Failure> {
    match read(common)? {
        Read::Good(setup) => Ok(*setup),
        Read::Mistaken { mistakes, .. } => {
            let hint = format!("every key is explained in the file that `{}` writes", program::command("init"));
            Err(Failure::usage(mistakes.to_string()).hint(hint))
        }
    }
}

/// The state directory.
///
/// # Errors
///
/// When there is none to be had.
pub(crate) fn state_dir(common: &Common, config: Option<&Config>) -> Result<PathBuf, Failure> {
    let configured = config.and_then(|config| config.state_dir.as_deref());
    logwarden_config::state_dir(common.state_dir.as_deref(), configured, &variable, is_root())
        .ok_or_else(|| Failure::usage("there is no state directory").hint("name one with --state-dir DIR, or set HOME"))
}

/// Where it is kept what was told of failed units while the state cannot be used: on no disk, so that it lasts until the
/// machine is started anew.
pub(crate) fn aside() -> Option<PathBuf> {
    let given = variable("RUNTIME_DIRECTORY").and_then(|all| all.split(':').next().map(PathBuf::from));
    let own = |run: PathBuf| run.join("logwarden");
    let usual = || match is_root() {
        true => Some(own(PathBuf::from("/run"))),
        false => variable("XDG_RUNTIME_DIR").map(PathBuf::from).map(own),
    };
    given.or_else(usual).filter(|path| path.is_absolute())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// The ledger of the state directory, for commands that only look and note.
///
/// # Errors
///
/// When it cannot be used.
pub(crate) fn ledger(common: &Common) -> Result<Arc<dyn Ledger>, Failure> {
    // Without a configuration that can be used there still is a state directory.
    let config = match read(common)? {
        Read::Good(setup) => Some(setup.config),
        Read::Mistaken { .. } => None,
    };
    let state_dir = state_dir(common, config.as_ref())?;
    if !state_dir.is_dir() && logwarden_config::others_state(&state_dir).is_none() {
        let what = format!("there is no state in {}", state_dir.display());
        let hint = "name the directory that `run` uses: --state-dir DIR; as a service it is /var/lib/logwarden";
        return Err(Failure::failed(what).hint(hint));
    }
    Ok(logwarden_config::open_ledger(&state_dir)?)
}

/// The mutes of the configured file, if there is one.
///
/// # Errors
///
/// When it cannot be used.
pub(crate) fn file_mutes(common: &Common) -> Result<Vec<Mute>, Failure> {
    match read(common)? {
        Read::Good(setup) => match &setup.config.alerts.mutes_file {
            Some(path) => Ok(logwarden_config::read_mutes(path)?.into_iter().map(|(_, mute)| mute).collect()),
            None => Ok(Vec::new()),
        },
        Read::Mistaken { .. } => Ok(Vec::new()),
    }
}

/// The rules that a pass would use, and whether these are all of them: those that come with the program stand in for one's
/// own where these cannot be used.
pub(crate) fn rules(common: &Common) -> (RuleSet, bool) {
    let own = match read(common) {
        Ok(Read::Good(setup)) => match setup.config.detectors.rules_dir {
            None => Some(RuleSet::builtin()),
            Some(directory) => logwarden_config::read_rules(&directory, program::name()).ok(),
        },
        _ => None,
    };
    let all = own.is_some();
    (own.unwrap_or_else(RuleSet::builtin), all)
}

/// This machine's name.
pub(crate) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname"));
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}

impl Setup {
    /// Wires all parts; without a state directory in memory, and without sources.
    ///
    /// # Errors
    ///
    /// When something cannot be used.
    pub(crate) async fn wire(&self, state_dir: Option<&Path>, sources: bool) -> Result<Wired, Failure> {
        let around = Surroundings { state_dir, sources, ..self.surroundings() };
        Ok(logwarden_config::wire(&self.config, around).await?)
    }

    /// Wires what tells, on a state; neither that nor the one `beside` it says what the other has said.
    ///
    /// # Errors
    ///
    /// When something cannot be used.
    pub(crate) async fn wire_channels(
        &self,
        state_dir: Option<&Path>,
        beside: Option<&Path>,
    ) -> Result<Wired, Failure> {
        let around = Surroundings { state_dir, beside: beside.map(Path::to_owned), ..self.surroundings() };
        Ok(logwarden_config::wire(&self.config, around).await?)
    }

    /// Wires what asks the model, without state and sources, with a trail that is open already.
    ///
    /// # Errors
    ///
    /// When something cannot be used.
    pub(crate) async fn wire_model(&self, trail: Option<Arc<Trail>>) -> Result<Wired, Failure> {
        Ok(logwarden_config::wire(&self.config, Surroundings { trail, ..self.surroundings() }).await?)
    }

    /// Wires all parts for what shippers push.
    ///
    /// # Errors
    ///
    /// When something cannot be used.
    pub(crate) async fn wire_push(&self, state_dir: &Path) -> Result<Wired, Failure> {
        let around = Surroundings { state_dir: Some(state_dir), push: true, ..self.surroundings() };
        Ok(logwarden_config::wire(&self.config, around).await?)
    }

    /// The same with these channels.
    pub(crate) fn with_channels(&self, channels: Vec<ChannelConfig>) -> Self {
        Self {
            config: Config { channels, ..self.config.clone() },
            warnings: Vec::new(),
            variables: Vec::new(),
            file: None,
            env: self.env.clone(),
        }
    }

    fn surroundings<'a>(&self) -> Surroundings<'a> {
        Surroundings {
            env: self.env.clone(),
            state_dir: None,
            beside: aside().filter(|aside| logwarden_config::has_state(aside)),
            host: host(),
            program: program::name().to_owned(),
            sources: false,
            push: false,
            trail: None,
        }
    }
}
