//! Names of 128 bits, which never change.

use std::fmt;

use logwarden_templates::LineId;
use serde::{Deserialize, Serialize};

/// Names an incident: hash of the ledger's own random id and an ordinal, never made from keys, so that two ledgers never
/// use the same and a new incident about the same thing is another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IncidentId(#[serde(with = "hex128")] u128);

impl IncidentId {
    /// The id of the `ordinal`-th incident of a ledger.
    pub fn of(ledger: u128, ordinal: u64) -> Self {
        Self(LineId::of(&[b"incident", &ledger.to_be_bytes(), &ordinal.to_be_bytes()]).bits())
    }

    /// The id with these bits, as a store kept them.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits, as a store keeps them.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// What people see and type: eight hexadecimal digits.
    pub fn short(self) -> String {
        format!("{:08x}", self.0 >> 96)
    }
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IncidentId({:032x})", self.0)
    }
}

/// Writes 128 bits as 32 hexadecimal digits, which JSON readers of any language keep exactly.
pub(crate) mod hex128 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bits: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{bits:032x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}
