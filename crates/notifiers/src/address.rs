//! Addresses of channels: parsed once, checked, and never shown.

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use logwarden_core::notifier::ChannelHash;
use sha2::Sha256;
use url::{Host, Url};

/// Why an address cannot be used. Never quotes it: it is a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Empty: the channel is off.
    #[error("the address is empty")]
    Empty,
    /// Still the example's: warn, and leave the channel off.
    #[error("the address is still a placeholder")]
    Placeholder,
    /// Not an address at all, or not of this kind.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A secret for signatures cannot be used.
    #[error("the signing secret {reason}")]
    Secret {
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl AddressError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty => "leave it out, or set it to the webhook's URL",
            Self::Placeholder => "put the webhook's URL in its place, or leave it empty to turn the channel off",
            Self::Invalid { hint, .. } => hint,
            Self::Secret { .. } => "generate one with `openssl rand -base64 32` and write `whsec_` before it",
        }
    }

    /// Whether nobody meant to set it: off, with a warning at most.
    pub fn is_off(&self) -> bool {
        matches!(self, Self::Empty | Self::Placeholder)
    }
}

pub(crate) const fn invalid(reason: &'static str, hint: &'static str) -> AddressError {
    AddressError::Invalid { reason, hint }
}

/// The address as a URL that may be posted to: `https`, or `http` where nobody listens in between.
pub(crate) fn parse(text: &str) -> Result<Url, AddressError> {
    let text = text.trim().trim_matches(['"', '\'']).trim();
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    // Whoever set the host to one nearby means it, even with the path of an example.
    let near = Url::parse(text).is_ok_and(|url| is_near(&url)) && !text.to_ascii_lowercase().contains("your");
    if !near && is_placeholder(text) {
        return Err(AddressError::Placeholder);
    }
    let url = Url::parse(text).map_err(|_| invalid("it is not a URL", "it starts with https://; copy it again"))?;
    if !url.has_host() || !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("it is not an http or https URL", "it starts with https://; copy it again"));
    }
    if url.scheme() == "http" && !is_near(&url) {
        return Err(invalid(
            "it would send the secret unencrypted over the internet",
            "use https://; plain http is for this machine and private networks",
        ));
    }
    Ok(url)
}

/// Whether the text is an example that nobody filled in: `YOUR_WEBHOOK_URL`, a token of one letter, `<url>`.
fn is_placeholder(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let of_one = |word: &str, c: char| word.len() >= 3 && word.chars().all(|x| x == c);
    ["changeme", "change-me", "change_me", "replace_me", "replace-me", "...", "…", "<", "todo"]
        .iter()
        .any(|sign| lower == *sign || (*sign != "todo" && lower.contains(sign)))
        || lower.split(['/', '=', '?', '.']).any(|word| {
            word == "your"
                || word.starts_with("your_")
                || word.starts_with("your-")
                || of_one(word, 'x')
                || matches!(word, "webhook_url" | "webhook_id" | "webhook_token")
        })
}

/// Whether the host is this machine, in a private network, or a name without dots (as containers have).
pub(crate) fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(v4)) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        Some(Host::Ipv6(v6)) => {
            v6.is_loopback()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback() || v4.is_private())
        }
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            !name.contains('.')
                || [".localhost", ".local", ".internal", ".lan", ".home.arpa", ".test"]
                    .iter()
                    .any(|end| name.ends_with(end))
        }
        None => false,
    }
}

/// Whether the host is this machine: no proxy of the environment is asked for it.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(v4)) => IpAddr::V4(v4).is_loopback(),
        Some(Host::Ipv6(v6)) => v6.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// The keyed hash of a place; tells nothing about it to those without the key.
pub(crate) fn hash(key: &[u8], kind: &str, place: &str) -> ChannelHash {
    let mut mac = hmac(key);
    mac.update(b"logwarden channel 1\0");
    mac.update(kind.as_bytes());
    mac.update(b"\0");
    mac.update(place.as_bytes());
    let bytes = mac.finalize().into_bytes();
    let mut first = [0; 16];
    first.copy_from_slice(&bytes[..16]);
    ChannelHash(u128::from_be_bytes(first))
}

/// HMAC-SHA256 takes keys of any length.
pub(crate) fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// What stands for an address in `Debug`: the first six digits of its hash.
pub(crate) fn short(hash: ChannelHash) -> String {
    format!("#{:06x}", hash.0 >> 104)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_off_from_wrong() {
        // As in Slack's own documentation.
        let slack = |host: &str| format!("{host}/services/T00000000/B00000000/{}", "X".repeat(24));
        for empty in ["", "  ", "\"\""] {
            assert!(matches!(parse(empty), Err(AddressError::Empty)), "{empty}");
        }
        for placeholder in [
            "YOUR_DISCORD_WEBHOOK_URL",
            "https://discord.com/api/webhooks/YOUR_ID/YOUR_TOKEN",
            "https://discord.com/api/webhooks/your-webhook-id/your-webhook-token",
            "https://hooks.slack.com/services/YOUR/WEBHOOK/URL",
            &slack("https://hooks.slack.com"),
            "http://127.0.0.1:9099/api/webhooks/YOUR_ID/YOUR_TOKEN",
            "https://hooks.slack.com/services/...",
            "<webhook url>",
            "changeme",
        ] {
            assert!(matches!(parse(placeholder), Err(AddressError::Placeholder)), "{placeholder}");
        }
        for wrong in
            ["discord.com/api/webhooks/1/a", "ftp://x/y", "file:///etc/passwd", "http://discord.example/x", "https://"]
        {
            let error = parse(wrong).unwrap_err();
            assert!(matches!(error, AddressError::Invalid { .. }), "{wrong}: {error}");
            assert!(!format!("{error} {error:?}").contains("webhooks"));
        }
        for right in [
            "https://example.com/x",
            "http://127.0.0.1:9/x",
            "http://[::1]/x",
            "http://10.1.2.3/x",
            "http://fake-chat:8080/x",
            &slack("http://127.0.0.1:9099"),
            " 'http://localhost/x' ",
        ] {
            parse(right).unwrap();
        }
    }

    #[test]
    fn the_hash_depends_on_key_kind_and_place() {
        let hashes = [
            hash(b"a", "discord", "p"),
            hash(b"b", "discord", "p"),
            hash(b"a", "slack", "p"),
            hash(b"a", "discord", "q"),
        ];
        for (i, a) in hashes.iter().enumerate() {
            assert!(hashes[i + 1..].iter().all(|b| a != b));
        }
        assert_eq!(hashes[0], hash(b"a", "discord", "p"));
        assert_eq!(short(ChannelHash(0)), "#000000");
    }
}
