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
    let (dir, program) = (dir.display(), program::name());
    // The unit that is enabled, and those that it needs.
    let (unit, address, enable) = match program {
        "logwarden-receiver" => ("logwarden-receiver.service", "RECEIVER_LISTEN=…", "logwarden-receiver.service"),
        _ => ("logwarden-analyzer.service", "LOKI_URL=…", "logwarden-analyzer.timer"),
    };
    let units = if unit == enable { format!("{dir}/{unit}") } else { format!("{dir}/{unit} {dir}/{enable}") };
    let _ = write!(
        text,
        "\nNext:\n  \
         1. edit {dir}/logwarden.toml, or put {address} and DISCORD_WEBHOOK_URL=… into {dir}/env (mode 0600)\n  \
         2. {program} doctor --config {dir}/logwarden.toml\n  \
         3. cp {units} {dir}/logwarden-failure@.service /etc/systemd/system/\n  \
         4. systemctl daemon-reload && systemctl enable --now {enable}\n"
    );
    output::write(text.as_bytes())?;
    Ok(0)
}
