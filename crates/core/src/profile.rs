//! Profiles: which question the model is asked.

use crate::ProfileName;

/// A profile: a name and what the model is told to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: ProfileName,
    /// What to look for, written for small models. Static: it is part of the system message that servers cache.
    pub instructions: String,
}

impl Profile {
    /// A profile of the user's own, or with instructions of the user's own.
    pub fn new(name: ProfileName, instructions: impl Into<String>) -> Self {
        Self { name, instructions: instructions.into() }
    }

    /// The profiles that come with the program: general, security, performance.
    pub fn builtin() -> [Self; 3] {
        [
            Self::new(ProfileName::general(), GENERAL),
            Self::new(ProfileName::security(), SECURITY),
            Self::new(ProfileName::performance(), PERFORMANCE),
        ]
    }

    /// The one of that name that comes with the program.
    pub fn named(name: &ProfileName) -> Option<Self> {
        Self::builtin().into_iter().find(|profile| profile.name == *name)
    }
}

// Short lines that name concrete things: models of 1 to 8 billion parameters follow those, and lose abstract ones.

const GENERAL: &str = "\
What an operator would want to know: services that fail or restart, errors that are new or too many, danger to data, \
disks, memory, certificates, backups or clocks in trouble, attacks.
Normal: starts, stops and reloads that succeed, scheduled jobs, known users logging in, a retry that works, debug output, \
scanners that get only 4xx.";

const SECURITY: &str = "\
Security only: many failed logins by one address or for many users; success after failures; root, new users or new \
addresses logging in; unexpected sudo or su; new accounts, keys, groups; scans and exploit attempts, above all when \
answered with 2xx; refused access that repeats; logs stopped or cleared; programs run from /tmp. Say: tried or succeeded.
Normal: one mistyped password, known users, cron sessions, internet noise that was blocked.";

const PERFORMANCE: &str = "\
Performance only: slow responses, timeouts; memory, disk, inodes, files, connections or threads running out; killed, \
crashed, restarting services; growing queues; deadlocks; more 5xx or refused connections than expected; throttling; \
hardware and file system errors. Say what runs out and what waits for it.
Normal: single slow requests, planned restarts, short collector pauses, health checks, a retry that works.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_profiles_are_found_by_name() {
        for profile in Profile::builtin() {
            assert_eq!(Profile::named(&profile.name), Some(profile));
        }
        assert_eq!(Profile::named(&ProfileName::new("mail")), None);
    }
}
