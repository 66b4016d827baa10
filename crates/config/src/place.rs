//! Where things are when nobody says so.

use std::path::{Path, PathBuf};

use crate::document::Lookup;

/// The state directory: what was asked for, else systemd's, else `/var/lib/logwarden` for root, else the user's.
///
/// `None` when there is no home to put it in.
pub fn state_dir(asked: Option<&Path>, configured: Option<&Path>, env: Lookup<'_>, is_root: bool) -> Option<PathBuf> {
    let from = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let given = asked.or(configured).map(Path::to_owned);
    given
        // systemd may name several, separated by colons.
        .or_else(|| {
            env("STATE_DIRECTORY").and_then(|all| all.split(':').next().map(PathBuf::from)).filter(|p| p.is_absolute())
        })
        .or_else(|| is_root.then(|| PathBuf::from("/var/lib/logwarden")))
        .or_else(|| from("XDG_STATE_HOME").map(|home| home.join("logwarden")))
        .or_else(|| from("HOME").map(|home| home.join(".local/state/logwarden")))
}

/// The configuration file: what was asked for, else the first of `./logwarden.toml`, the user's and the machine's that
/// is there.
pub fn config_file(asked: Option<&Path>, env: Lookup<'_>, exists: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    if let Some(asked) = asked {
        return Some(asked.to_owned());
    }
    let home = env("XDG_CONFIG_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| env("HOME").filter(|value| !value.is_empty()).map(|home| PathBuf::from(home).join(".config")));
    let places = [
        Some(PathBuf::from("logwarden.toml")),
        home.map(|home| home.join("logwarden/logwarden.toml")),
        Some(PathBuf::from("/etc/logwarden/logwarden.toml")),
    ];
    places.into_iter().flatten().find(|path| exists(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_follows_the_order_of_the_manual() {
        let systemd = |name: &str| (name == "STATE_DIRECTORY").then(|| "/var/lib/a:/var/lib/b".to_owned());
        let home = |name: &str| (name == "HOME").then(|| "/home/u".to_owned());
        let nothing = |_: &str| None;
        let dir = |asked: Option<&str>, env: Lookup<'_>, root| {
            state_dir(asked.map(Path::new), None, env, root).map(|path| path.display().to_string())
        };
        assert_eq!(dir(Some("/x"), &systemd, true).as_deref(), Some("/x"));
        assert_eq!(dir(None, &systemd, true).as_deref(), Some("/var/lib/a"));
        assert_eq!(dir(None, &home, true).as_deref(), Some("/var/lib/logwarden"));
        assert_eq!(dir(None, &home, false).as_deref(), Some("/home/u/.local/state/logwarden"));
        assert_eq!(dir(None, &nothing, false), None);
    }
}
