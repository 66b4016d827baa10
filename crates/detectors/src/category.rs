//! What kind of trouble a finding is about.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! categories {
    ($($name:ident $text:literal $label:literal),* $(,)?) => {
        /// What kind of trouble a finding is about: a closed list, shared by rules and model. Never part of an identity.
        // No doc comment on a variant: schemars would then emit `oneOf`, which some grammars of language model servers drop.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Category { $($name),* }

        impl Category {
            /// All categories.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name in data: `brute_force`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The name for people: `brute force`.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }
        }
    };
}

categories! {
    Backlog "backlog" "backlog",
    BruteForce "brute_force" "brute force",
    AccountChange "account_change" "account change",
    Certificate "certificate" "certificate",
    Configuration "configuration" "configuration",
    Connections "connections" "connections",
    Crash "crash" "crash or restart",
    Database "database" "database",
    Disk "disk" "disk space",
    ErrorRate "error_rate" "error rate",
    Exploit "exploit" "exploit attempt",
    Hardware "hardware" "hardware",
    Latency "latency" "slow responses",
    Memory "memory" "memory",
    Network "network" "network",
    NewPattern "new_pattern" "never seen before",
    Other "other" "other",
    PrivilegeEscalation "privilege_escalation" "privilege escalation",
    Scan "scan" "scan",
    Service "service" "failed service",
    Shipping "shipping" "log shipping",
    Silence "silence" "silence",
    Storage "storage" "storage errors",
    Tampering "tampering" "tampering",
    Time "time" "clock",
    UnauthorizedAccess "unauthorized_access" "unauthorised access",
    UnusualLogin "unusual_login" "unusual login",
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_data_is_what_serde_writes() {
        for category in Category::ALL {
            let written = toml::Value::try_from(category).unwrap();
            assert_eq!(written.as_str(), Some(category.as_str()));
        }
    }
}
