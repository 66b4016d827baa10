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
Anything that an operator would want to know: a service that fails or restarts, errors that are new or far more than \
expected, data that could be lost, disks, memory, certificates, backups or time running wrong, attacks.
Normal: starts, stops and reloads that succeed, scheduled jobs, logins of known users, single retries that work, \
debug output, a few 404s, scanners that get only 4xx answers.";

const SECURITY: &str = "\
Security events only: many failed logins from one address or for many users; a login that succeeds after failures; \
logins as root, of new users, from new addresses; sudo or su by somebody unexpected; new accounts, keys, groups; \
scans and exploit attempts (path traversal, SQL, shell, known vulnerable URLs), above all when one is answered with 2xx; \
refused access that repeats; logs or audit stopped or cleared; programs run from /tmp.
Say which it is: tried or succeeded.
Normal: one mistyped password, successful logins of known users, cron and service sessions, sudo of known admins, \
blocked packets of internet noise.";

const PERFORMANCE: &str = "\
Performance and capacity only: slow responses and timeouts; memory, disk, inodes, file handles, connections or threads \
running out; killed, crashed or restarting services; queues and backlogs that grow; locks and deadlocks; an error rate \
(5xx, refused, reset) above what is expected; throttling; hardware and file system errors.
Say what runs out or is slow, and which part waits for it.
Normal: single slow requests, planned restarts, garbage collection without long pauses, health checks, short retries \
that succeed.";

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
