//! Who may send: networks, and clients by their credentials.

use std::{fmt, net::IpAddr, str::FromStr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// A range of addresses: `10.0.0.0/8`, `192.168.1.7`, `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Not a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a network: write 10.0.0.0/8, 192.168.1.7 or fd00::/8")]
pub struct ParseNetworkError;

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let (address, prefix) = match text.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| ParseNetworkError)?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| ParseNetworkError)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        if prefix > longest { Err(ParseNetworkError) } else { Ok(Self { address, prefix }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    /// Whether the address is in the range. An IPv4 address mapped into IPv6 is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        let address = address.to_canonical();
        let mask = if self.prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(self.prefix)) };
        address.is_ipv4() == self.address.is_ipv4() && (bits(address) ^ bits(self.address)) & mask == 0
    }
}

/// Somebody who may send, known by hashes of credentials. Several at once allow for rotation.
#[derive(Clone)]
pub struct Client {
    name: String,
    hashes: Vec<[u8; 32]>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Not a SHA-256 hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a hash: write the 64 digits that `printf %s TOKEN | sha256sum` prints")]
pub struct ParseHashError;

impl Client {
    /// A client of that name, with no credential yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), hashes: Vec::new() }
    }

    /// Adds a bearer token. Only its hash is kept.
    #[must_use]
    pub fn bearer(mut self, token: &str) -> Self {
        self.hashes.push(Sha256::digest(token.trim()).into());
        self
    }

    /// Adds a user and password of HTTP's basic authentication. Only their hash is kept.
    #[must_use]
    pub fn basic(mut self, user: &str, password: &str) -> Self {
        self.hashes.push(Sha256::digest(format!("{user}:{password}")).into());
        self
    }

    /// Adds the SHA-256 hash of a token or of `user:password`, in hexadecimal.
    ///
    /// # Errors
    ///
    /// When it is no such hash.
    pub fn hashed(mut self, hash: &str) -> Result<Self, ParseHashError> {
        let digits = hash.trim();
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(ParseHashError);
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| ParseHashError)?;
        }
        self.hashes.push(bytes);
        Ok(self)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has a credential.
    pub(crate) fn has_credential(&self) -> bool {
        !self.hashes.is_empty()
    }
}

/// The client whose credential an `Authorization` header holds. Takes as long for a wrong credential as for a right one.
pub(crate) fn authenticate<'c>(clients: &'c [Client], header: &[u8]) -> Option<&'c Client> {
    let credential = credential(header).unwrap_or_default();
    let hash: [u8; 32] = Sha256::digest(&credential).into();
    let mut found = u32::MAX;
    for (number, client) in clients.iter().enumerate() {
        let equal = client.hashes.iter().fold(Choice::from(0), |equal, known| equal | known.ct_eq(&hash));
        found.conditional_assign(&(number as u32), equal);
    }
    if credential.is_empty() { None } else { clients.get(found as usize) }
}

fn credential(header: &[u8]) -> Option<Vec<u8>> {
    let at = header.iter().position(|b| *b == b' ')?;
    let (scheme, rest) = (&header[..at], header[at..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    scheme.eq_ignore_ascii_case(b"basic").then(|| BASE64_STANDARD.decode(rest).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_they_say() {
        let check =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(check("10.0.0.0/8", "10.255.0.1"));
        assert!(check("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!check("10.0.0.0/8", "11.0.0.1"));
        assert!(check("0.0.0.0/0", "203.0.113.7"));
        assert!(!check("0.0.0.0/0", "2001:db8::1"));
        assert!(check("192.168.1.7", "192.168.1.7"));
        assert!(!check("192.168.1.7", "192.168.1.8"));
        assert!(check("fd00::/8", "fd12::1"));
        assert!("10.0.0.0/33".parse::<Network>().is_err());
        assert!("nowhere".parse::<Network>().is_err());
    }

    #[test]
    fn clients_are_known_by_any_of_their_credentials() {
        let hash = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"; // "password"
        let clients = [
            Client::new("web").bearer("new-token").hashed(hash).unwrap(),
            Client::new("db").basic("fluent", "a:b"),
            Client::new("nobody"),
        ];
        let name = |header: &str| authenticate(&clients, header.as_bytes()).map(Client::name);
        assert_eq!(name("Bearer new-token"), Some("web"));
        assert_eq!(name("bearer password"), Some("web"));
        assert_eq!(name(&format!("Basic {}", BASE64_STANDARD.encode("fluent:a:b"))), Some("db"));
        for wrong in ["", "Bearer", "Bearer ", "Bearer old", "Basic !!!", "Basic ", "Digest x", "new-token"] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
        assert!(Client::new("x").hashed("abc").is_err());
        assert!(!format!("{:?}", clients[0]).contains("5e88"));
    }
}
