//! Identities: of a line, of a masked line, of the template it belongs to.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 hexadecimal digits")]
pub struct ParseIdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The id with these bits.
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// The bits, as a store keeps them.
            pub const fn bits(self) -> u128 {
                self.0
            }

            /// The id of `parts`: the first 128 bits of their BLAKE3 hash. Each part is preceded by its length, so
            /// that no two lists of parts look alike.
            pub fn of(parts: &[&[u8]]) -> Self {
                let mut hasher = blake3::Hasher::new();
                for part in parts {
                    hasher.update(&(part.len() as u64).to_le_bytes());
                    hasher.update(part);
                }
                let mut bits = [0; 16];
                bits.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
                Self(u128::from_be_bytes(bits))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:032x})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(ParseIdError);
                }
                u128::from_str_radix(text, 16).map(Self).map_err(|_| ParseIdError)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// Says which line of the world this is: the same line read twice has the same id, two lines that merely look alike
    /// do not. Made by the source (for Loki: labels, time, text and structured metadata; for a file: the file's identity
    /// and the offset).
    LineId
}

id! {
    /// The content hash of a masked line (format version, program, masked text): immutable and the same on every host.
    ///
    /// 128 bits, since log lines are written by attackers: with 64, two lines with one id could be searched for.
    LeafId
}

id! {
    /// The template that a leaf currently belongs to: the leaf itself until it generalises, then the content hash of the
    /// more general text. Only ever moves up.
    RootId
}

impl LeafId {
    /// The root of a leaf that has not been generalised.
    pub const fn as_root(self) -> RootId {
        RootId(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(LineId::of(&[b"ab", b"c"]), LineId::of(&[b"a", b"bc"]));
        assert_ne!(LineId::of(&[b"ab"]), LineId::of(&[b"ab", b""]));
    }

    #[test]
    fn text_form_round_trips() {
        let id = LeafId::of(&[b"x"]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("+0000000000000000000000000000001".parse::<LeafId>(), Err(ParseIdError));
    }
}
