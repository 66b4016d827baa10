//! `doctor`: is everything there that a pass needs, and if not, what to do.

use std::{fmt::Write as _, fs, io, path::Path, process::Stdio, sync::Arc, time::Duration};

use logwarden_config::Wired;
use logwarden_core::{error::chain, ledger::Ledger, memory_ledger::MemoryLedger, source::SourceError, templates::Zone};
use logwarden_file_source::look;
use logwarden_loki_source::Standing;
use logwarden_ollama_client::check::{Level, Machine};
use logwarden_push_source::{BuildError, Builder, PushSource, Receiver};
use logwarden_sqlite::Room;

use crate::{
    alert,
    args::{Common, Doctor, ReceiverDoctor, Serve},
    failure::Failure,
    output, program, run, serve,
    setup::{self, Read, Setup},
    shippers::{Shipper, Target},
};

/// What finds something when no model is asked.
const NO_MODEL: &str = "switched off: findings come from the detectors alone";

/// How something stands; the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Good,
    Warning,
    Bad,
}

/// What was found, in the order in which it was looked at.
#[derive(Debug, Default)]
struct Findings {
    text: String,
    warnings: u64,
    bad: u64,
    /// What comes after the verdict.
    more: String,
}

impl Findings {
    fn add(&mut self, mark: Mark, area: &str, what: &str, hint: Option<&str>) {
        let sign = match mark {
            Mark::Good => '✓',
            Mark::Warning => '!',
            Mark::Bad => '✗',
        };
        self.warnings += u64::from(mark == Mark::Warning);
        self.bad += u64::from(mark == Mark::Bad);
        let mut what = what.lines();
        let _ = writeln!(self.text, "{sign} {area:<14} {}", what.next().unwrap_or_default());
        for line in what {
            let _ = writeln!(self.text, "{:17}{line}", "");
        }
        for line in hint.into_iter().flat_map(str::lines) {
            let _ = writeln!(self.text, "{:17}→ {line}", "");
        }
    }

    fn add_failure(&mut self, area: &str, failure: &Failure) {
        let mut text = Vec::new();
        let _ = failure.write(&mut text);
        let text = String::from_utf8_lossy(&text).replace("error: ", "").replace("  hint: ", "→ ");
        self.add(Mark::Bad, area, text.trim_end(), None);
    }

    fn close(mut self, offline: bool) -> Result<u8, Failure> {
        let line = match (self.bad, self.warnings) {
            (0, 0) if offline => "on this machine everything is as it should be; nobody else was asked".to_owned(),
            (0, 0) => "everything is as it should be".to_owned(),
            (0, warnings) => format!("it works; {} to look at", output::amount(warnings, "thing", "things")),
            (bad, _) => format!("{} not work", output::amount(bad, "thing does", "things do")),
        };
        let _ = writeln!(self.text, "\n{line}");
        self.text.push_str(&self.more);
        output::write(self.text.as_bytes())?;
        Ok(u8::from(self.bad > 0))
    }
}

/// Runs the receiver's command, which also tells what to paste into shippers.
pub(crate) async fn of_receiver(common: &Common, args: &ReceiverDoctor) -> Result<u8, Failure> {
    let Some(shipper) = args.shipper else { return doctor(common, &args.doctor).await };
    let to = target(&setup::load(common)?);
    output::write(shipper.configuration(&to).as_bytes())?;
    Ok(0)
}

/// Runs the command.
pub(crate) async fn doctor(common: &Common, args: &Doctor) -> Result<u8, Failure> {
    let mut found = Findings::default();
    let setup = match setup::read(common)? {
        Read::Good(setup) => setup,
        Read::Mistaken { file, mistakes } => {
            let file = file.map_or_else(|| "environment".to_owned(), |path| path.display().to_string());
            for mistake in &mistakes.0 {
                found.add(Mark::Bad, "configuration", &mistake.to_string(), mistake.hint.as_deref());
            }
            let _ = writeln!(found.text, "\n{file} cannot be used; the rest was not looked at");
            output::write(found.text.as_bytes())?;
            return Ok(2);
        }
    };
    let pushed = program::name() == "logwarden-receiver";
    let (wired, failures) = wire(&setup, !pushed).await;
    if failures.is_empty() {
        found.add(Mark::Good, "configuration", &origin(&setup), None);
    }
    for failure in &failures {
        found.add_failure("configuration", failure);
    }
    for warning in &setup.warnings {
        found.add(Mark::Warning, "configuration", warning, None);
    }
    state(common, &setup, &mut found);
    if pushed {
        listening(&setup, &mut found).await;
    } else {
        files(&setup, &mut found);
    }
    match &wired {
        None => found.add(Mark::Warning, "the rest", "was not looked at", Some("mend the configuration first")),
        Some(wired) => {
            for warning in &wired.warnings {
                found.add(Mark::Warning, "configuration", warning, None);
            }
            if args.offline {
                offline(wired, &setup, &mut found);
                for notifier in wired.pipeline.notifiers() {
                    let channel = notifier.channel();
                    let kind = match channel.vendor {
                        "discord" => "the address of a Discord webhook",
                        "slack" => "the address of a Slack webhook",
                        _ => "the address of a webhook",
                    };
                    let what = format!("{kind}; nobody was asked (--offline)");
                    found.add(Mark::Good, &channel.name, &what, None);
                }
            } else {
                online(wired, args, &setup, &mut found).await;
            }
            if wired.pipeline.notifiers().is_empty() && failures.is_empty() {
                let hint = "set DISCORD_WEBHOOK_URL or SLACK_WEBHOOK_URL, or a [discord] or [slack] table";
                found.add(Mark::Warning, "channels", "none: nobody is told", Some(hint));
            }
        }
    }
    if pushed {
        let to = target(&setup);
        let _ = writeln!(
            found.more,
            "\nWhat to paste into a log shipper; `{}` prints one of them.",
            program::command("doctor --shipper NAME")
        );
        for shipper in Shipper::ALL {
            let _ = write!(found.more, "\n── {}\n\n{}", shipper.title(), shipper.configuration(&to));
        }
    }
    let code = found.close(args.offline)?;
    // As `run` would: another run does not help.
    Ok(failures.iter().map(Failure::code).fold(code, u8::max))
}

/// Where the configuration is from.
fn origin(setup: &Setup) -> String {
    let variables = setup.variables.join(", ");
    match (&setup.file, setup.variables.is_empty()) {
        (Some(file), true) => file.display().to_string(),
        (Some(file), false) => format!("{}, and over it from the environment: {variables}", file.display()),
        (None, true) => "none: there is no file, and no variable is set; what is usual counts".to_owned(),
        (None, false) => format!("from the environment, without a file: {variables}"),
    }
}

/// Wires what can be wired, so that one bad channel hides nothing else; with why the rest cannot.
async fn wire(setup: &Setup, sources: bool) -> (Option<Wired>, Vec<Failure>) {
    let failure = match setup.wire(None, sources).await {
        Ok(wired) => return (Some(wired), Vec::new()),
        Err(failure) => failure,
    };
    let with = async |channels| setup.with_channels(channels).wire(None, sources).await;
    if with(Vec::new()).await.is_err() {
        return (None, vec![failure]);
    }
    let (mut good, mut failures) = (Vec::new(), Vec::new());
    for channel in &setup.config.channels {
        match with(vec![channel.clone()]).await {
            Ok(_) => good.push(channel.clone()),
            Err(failure) => failures.push(failure),
        }
    }
    (with(good).await.ok(), failures)
}

/// Where the rest would be looked for.
fn offline(wired: &Wired, setup: &Setup, found: &mut Findings) {
    if let Some(loki) = setup.config.loki.as_ref().filter(|_| wired.loki.is_some()) {
        let queries = output::amount(loki.queries.len() as u64, "query", "queries");
        let what = format!("{}, {queries}; nobody was asked (--offline)", loki.url);
        found.add(Mark::Good, "loki", &what, None);
    }
    let what = match &wired.ollama {
        None => NO_MODEL.to_owned(),
        Some(_) => {
            let host = setup.config.model.host.clone().unwrap_or_default().origin();
            format!("{} at {host}; nobody was asked (--offline)", run::model_name(&setup.config))
        }
    };
    found.add(Mark::Good, "model", &what, None);
}

/// Where shippers reach the receiver.
fn target(setup: &Setup) -> Target {
    let receiver = &setup.config.receiver;
    Target::new(receiver.listen, &setup::host(), receiver.certificate.is_some(), !receiver.clients.is_empty())
}

/// Whether the receiver could listen, or does already.
async fn listening(setup: &Setup, found: &mut Findings) {
    let serve = Serve { listen: None, insecure_allow: Vec::new(), syslog_tcp: None, syslog_udp: None };
    let listen = setup.config.receiver.listen;
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new(setup.env.random().into(), setup.env.random()));
    let source = Arc::new(PushSource::new(ledger.clone(), Vec::new(), Zone::UTC));
    let built = serve::guarded(Receiver::builder(ledger, source, setup.env.clone()), setup, &serve).map(Builder::build);
    match built {
        Err(failure) => found.add_failure("receiver", &failure),
        Ok(Ok(receiver)) => {
            let what = format!("{} is free; nothing listens there now", receiver.local_addr());
            found.add(Mark::Good, "receiver", &what, None);
        }
        Ok(Err(BuildError::Bind { cause, .. })) if cause.kind() == io::ErrorKind::AddrInUse => {
            let (mark, what) = match serve::asked(listen).await {
                Some(answer) => (Mark::Good, format!("{listen} answers: {answer}")),
                None => (Mark::Bad, format!("{listen} is taken by another program")),
            };
            let hint = "stop that one, or choose another port: receiver.listen";
            found.add(mark, "receiver", &what, (mark == Mark::Bad).then_some(hint));
        }
        Ok(Err(error)) => found.add(Mark::Bad, "receiver", &chain(&error), error.hint().as_deref()),
    }
}

async fn online(wired: &Wired, args: &Doctor, setup: &Setup, found: &mut Findings) {
    if let Some(loki) = &wired.loki {
        for check in loki.check(setup.env.now()).await {
            let mark = match check.standing {
                Standing::Good => Mark::Good,
                Standing::Warning => Mark::Warning,
                Standing::Bad => Mark::Bad,
            };
            found.add(mark, "loki", &check.text, check.hint.as_deref());
        }
    }
    match &wired.ollama {
        None => found.add(Mark::Good, "model", NO_MODEL, None),
        Some(ollama) => {
            let machine = Machine { ram: memory(), gpu: graphics().await, address: None };
            for note in ollama.check(&machine, args.probe).await {
                let mark = match note.level {
                    Level::Good => Mark::Good,
                    Level::Warning => Mark::Warning,
                    Level::Bad => Mark::Bad,
                };
                found.add(mark, "model", &note.what, note.hint.as_deref());
            }
        }
    }
    for discord in &wired.discords {
        let channel = logwarden_core::notifier::Notifier::channel(&**discord);
        match discord.check().await {
            Ok(reached) => {
                found.add(Mark::Good, &channel.name, &format!("Discord knows the webhook ({})", reached.name), None);
            }
            Err(error) => {
                let test = format!("{} {}", program::command("test-alert"), channel.name);
                let hint = alert::hint(&error);
                let hint = format!("{}; then try `{test}`", hint.trim_end_matches("; then try again"));
                found.add(Mark::Bad, &channel.name, &chain(&error), Some(&hint));
            }
        }
    }
    for notifier in wired.pipeline.notifiers().iter().filter(|notifier| notifier.channel().vendor != "discord") {
        let name = &notifier.channel().name;
        let what = "can only be tried by sending something";
        found.add(Mark::Good, name, what, Some(&format!("{} {name}", program::command("test-alert"))));
    }
}

/// Whether there is room for the state.
fn room(directory: &Path, setup: &Setup, found: &mut Findings) {
    let Ok(room) = Room::of(directory, setup.config.keep_free) else { return };
    if room.is_low() {
        let what =
            format!("{} MiB are free there: pushed logs are refused below {}", room.free >> 20, room.keep_free >> 20);
        let hint = format!("make room: df -h {}; the bound is keep_free_mib", directory.display());
        found.add(Mark::Bad, "state", &what, Some(&hint));
    }
}

fn state(common: &Common, setup: &Setup, found: &mut Findings) {
    let directory = match setup::state_dir(common, Some(&setup.config)) {
        Ok(directory) => directory,
        Err(_) => {
            found.add(Mark::Bad, "state", "there is no state directory", Some("name one: --state-dir DIR"));
            return;
        }
    };
    let shown = directory.display().to_string();
    if let Some(hint) = logwarden_config::others_state(&directory) {
        return found.add(Mark::Bad, "state", &format!("{shown} is there and may not be used"), Some(&hint));
    }
    if !directory.exists() {
        // The nearest one that is there must let us make the rest.
        let parent = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let read_only = fs::metadata(parent).map_or(true, |meta| meta.permissions().readonly());
        match read_only {
            true => {
                found.add(Mark::Bad, "state", &format!("{shown} cannot be made"), Some("name another: --state-dir DIR"))
            }
            false => found.add(Mark::Good, "state", &format!("{shown}, made by the first pass"), None),
        }
        return;
    }
    room(&directory, setup, found);
    if !directory.join("ledger.db").exists() {
        found.add(Mark::Good, "state", &format!("{shown}, nothing in it yet"), None);
        return;
    }
    match logwarden_config::open_ledger(&directory) {
        Ok(_) => found.add(Mark::Good, "state", &shown, None),
        Err(error) => found.add(Mark::Bad, "state", &chain(&error), error.hint()),
    }
}

/// Files that were named and are not there, cannot be read, or are no logs.
fn files(setup: &Setup, found: &mut Findings) {
    for path in setup.config.files.iter().flat_map(|group| &group.paths) {
        let looks = match look(path) {
            Ok(looks) => looks,
            Err(error) => {
                found.add(Mark::Bad, "files", &chain(&error), error.hint());
                continue;
            }
        };
        if looks.is_empty() {
            let hint = "it is read as soon as it is there; look whether the path is right";
            found.add(Mark::Warning, "files", &format!("{path}: no such file"), Some(hint));
        }
        for file in looks.iter().take(20) {
            let name = file.path.display();
            match &file.standing {
                Ok(()) => found.add(Mark::Good, "files", &name.to_string(), None),
                Err(SourceError::Io { cause, .. }) if cause.kind() == io::ErrorKind::PermissionDenied => {
                    let hint = "run as a user who may: usermod -aG adm USER, or SupplementaryGroups=adm in the unit";
                    found.add(Mark::Bad, "files", &format!("{name}: {cause}"), Some(hint));
                }
                Err(error) if file.is_named => found.add(Mark::Bad, "files", &chain(error), error.hint()),
                Err(error) => found.add(Mark::Warning, "files", &format!("left out: {}", chain(error)), error.hint()),
            }
        }
        if looks.len() > 20 {
            found.add(Mark::Good, "files", &format!("{path}: {} more", looks.len() - 20), None);
        }
    }
}

/// Bytes of memory of this machine; 0 where unknown.
fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0);
    kib.saturating_mul(1024)
}

/// Bytes of memory of this machine's graphics cards; 0 without one, and where nobody tells.
async fn graphics() -> u64 {
    let cards = fs::read_dir("/sys/class/drm").into_iter().flatten().flatten();
    // `card0`, not its outputs and not the same card under another name.
    let is_card = |entry: &fs::DirEntry| {
        entry.file_name().to_string_lossy().strip_prefix("card").is_some_and(|rest| !rest.contains('-'))
    };
    let of_amd = cards
        .filter(is_card)
        .filter_map(|card| fs::read_to_string(card.path().join("device/mem_info_vram_total")).ok());
    let of_amd: u64 = of_amd.filter_map(|text| text.trim().parse::<u64>().ok()).fold(0, u64::saturating_add);
    let mut nvidia = tokio::process::Command::new("nvidia-smi");
    nvidia.args(["--query-gpu=memory.total", "--format=csv,noheader,nounits"]).kill_on_drop(true);
    nvidia.stdin(Stdio::null()).stderr(Stdio::null());
    let output = tokio::time::timeout(Duration::from_secs(3), nvidia.output()).await;
    let text = output.ok().and_then(Result::ok).map(|output| output.stdout).unwrap_or_default();
    let mib = String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| line.trim().parse::<u64>().ok())
        .fold(0, u64::saturating_add);
    of_amd.saturating_add(mib.saturating_mul(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_aligned_and_hints_below() {
        let mut found = Findings::default();
        found.add(Mark::Good, "loki", "it is Loki 3.5.0", None);
        found.add(Mark::Bad, "model", "no model is installed", Some("ollama pull qwen3:4b"));
        insta::assert_snapshot!(found.text, @r"
        ✓ loki           it is Loki 3.5.0
        ✗ model          no model is installed
                         → ollama pull qwen3:4b
        ");
    }
}
