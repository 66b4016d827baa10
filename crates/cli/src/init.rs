//! `init`: a commented configuration and hardened units, never over something that is there.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use logwarden_config::{keys, units::Units};

use crate::{args::Init, failure::Failure, output, program};

/// Runs the command.
pub(crate) fn init(args: &Init) -> Result<u8, Failure> {
    let failed = |error: &io::Error, path: &Path| {
        let hint = "name a directory that may be written: --dir DIR";
        Failure::failed(format!("cannot write {}", path.display())).because(error).hint(hint)
    };
    fs::create_dir_all(&args.dir).map_err(|error| failed(&error, &args.dir))?;
    let dir = args.dir.canonicalize().map_err(|error| failed(&error, &args.dir))?;
    let bin_dir = env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let units = Units {
        bin_dir: bin_dir.unwrap_or_else(|| PathBuf::from("/usr/local/bin")).display().to_string(),
        config_dir: dir.display().to_string(),
        files: args.files,
        program: program::name().to_owned(),
        ..Units::default()
    };
    let mut files = vec![(dir.join("logwarden.toml"), keys::commented_file())];
    files.extend(units.all().into_iter().map(|(name, text)| (dir.join(name), text)));
    if files.iter().all(|(path, _)| path.exists()) {
        return Err(Failure::usage(format!("everything is in {} already; nothing was written", dir.display()))
            .hint("move away what is to be written anew, or name another directory: --dir DIR"));
    }
    let mut text = String::new();
    for (path, content) in &files {
        let created = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
        let _ = match created.and_then(|mut file| file.write_all(content.as_bytes())) {
            Ok(()) => writeln!(text, "wrote {}", path.display()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                writeln!(text, "kept  {}, which was there", path.display())
            }
            Err(error) => return Err(failed(&error, path)),
        };
    }
    text.push('\n');
    text.push_str(&next(program::name(), args.files, &dir.display().to_string()));
    output::write(text.as_bytes())?;
    Ok(0)
}

/// What is left to do.
fn next(program: &str, files: bool, dir: &str) -> String {
    // The unit that is enabled, and those that it needs.
    let (unit, enable) = match program {
        "logwarden-receiver" => ("logwarden-receiver.service", "logwarden-receiver.service"),
        _ => ("logwarden-analyzer.service", "logwarden-analyzer.timer"),
    };
    let first = match (program, files) {
        ("logwarden-receiver", _) => format!("edit {dir}/logwarden.toml, or put RECEIVER_LISTEN=… and"),
        (_, true) => format!("name your log files in {dir}/logwarden.toml ([[files]]), and put"),
        (_, false) => format!("edit {dir}/logwarden.toml, or put LOKI_URL=… and"),
    };
    let units = if unit == enable { format!("{dir}/{unit}") } else { format!("{dir}/{unit} {dir}/{enable}") };
    format!(
        "Next:\n  \
         1. {first} DISCORD_WEBHOOK_URL=… into {dir}/env (mode 0600)\n  \
         2. sh -c 'set -a; . {dir}/env; {program} doctor --config {dir}/logwarden.toml'\n  \
         3. cp {units} {dir}/logwarden-failure@.service /etc/systemd/system/\n  \
         4. systemctl daemon-reload && systemctl enable --now {enable}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_do_fits_what_was_asked_for() {
        insta::assert_snapshot!(next("logwarden-analyzer", true, "/etc/logwarden"), @"
        Next:
          1. name your log files in /etc/logwarden/logwarden.toml ([[files]]), and put DISCORD_WEBHOOK_URL=… into /etc/logwarden/env (mode 0600)
          2. sh -c 'set -a; . /etc/logwarden/env; logwarden-analyzer doctor --config /etc/logwarden/logwarden.toml'
          3. cp /etc/logwarden/logwarden-analyzer.service /etc/logwarden/logwarden-analyzer.timer /etc/logwarden/logwarden-failure@.service /etc/systemd/system/
          4. systemctl daemon-reload && systemctl enable --now logwarden-analyzer.timer
        ");
        let first = |program, files| next(program, files, "etc").lines().nth(1).unwrap_or_default().to_owned();
        insta::assert_snapshot!(first("logwarden-analyzer", false), @"  1. edit etc/logwarden.toml, or put LOKI_URL=… and DISCORD_WEBHOOK_URL=… into etc/env (mode 0600)");
        insta::assert_snapshot!(first("logwarden-receiver", false), @"  1. edit etc/logwarden.toml, or put RECEIVER_LISTEN=… and DISCORD_WEBHOOK_URL=… into etc/env (mode 0600)");
    }
}
