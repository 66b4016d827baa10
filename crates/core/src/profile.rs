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
