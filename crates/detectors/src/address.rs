//! Addresses in text: the one form of an address, and who is at the other end of what a line tells.

use std::net::{IpAddr, Ipv6Addr};

/// Longest text that can be an address with brackets, zone and port.
const MAX_BYTES: usize = 64;

/// Candidates that are looked at in a line.
const MAX_CANDIDATES: usize = 16;

/// Words before an address that say whose it is.
const THEIRS: &[&str] = &[
    "from",
    "client",
    "clienthost",
    "clientaddr",
    "remote",
    "rhost",
    "rip",
    "oip",
    "src",
    "source",
    "peer",
    "caller",
    "visitor",
    "attacker",
    "addr",
    "ip",
    "address",
    "connection",
];

/// Words before an address of our own side.
const OURS: &[&str] = &[
    "to",
    "server",
    "local",
    "listen",
    "dst",
    "dest",
    "destination",
    "lip",
    "upstream",
    "bind",
    "on",
    "at",
    "version",
];

/// An address as it is compared and shown: without brackets, port and zone, and an IPv4 address that came as IPv6 as what
/// it is. `None` for anything else.
pub(crate) fn canonical(text: &str) -> Option<String> {
    parse(text).map(|address| address.to_string())
}

/// The networks that an address belongs to for those who hand them out: a `/16`, or a `/32` of IPv6. `None` for addresses
/// that are not public.
pub(crate) fn network(text: &str) -> Option<IpAddr> {
    match parse(text)? {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let carrier = a == 100 && (64..128).contains(&b);
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified();
            (!special && !carrier && a < 224).then(|| IpAddr::from([a, b, 0, 0]))
        }
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            (a & 0xe000 == 0x2000).then(|| IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)))
        }
    }
}

fn parse(text: &str) -> Option<IpAddr> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let text = text.trim_matches(|c: char| matches!(c, '(' | ')' | ',' | ';' | '"' | '\'' | '<' | '>' | '.'));
    let bare = |text: &str| -> Option<IpAddr> {
        let text = text.split_once('%').map_or(text, |(address, _zone)| address);
        text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
    };
    if let Some(rest) = text.strip_prefix('[') {
        return bare(rest.split(']').next()?);
    }
    let text = text.trim_end_matches([']', ':']);
    bare(text).or_else(|| {
        // `203.0.113.7:4711`, `203.0.113.7/4711`, and `outside:203.0.113.7/443` of firewalls.
        let text = text.rsplit_once('/').map_or(text, |(address, _)| address);
        bare(text)
            .or_else(|| bare(without_port(text)?))
            .or_else(|| text.split_once(':').and_then(|(_, address)| bare(address)).filter(IpAddr::is_ipv4))
    })
}

fn without_port(text: &str) -> Option<&str> {
    let (address, port) = text.rsplit_once(':')?;
    port.bytes().all(|b| b.is_ascii_digit()).then_some(address)
}

/// The address that a line is most likely about: the client, not the server. The words before the addresses decide; of
/// several it is the first.
pub(crate) fn client(line: &str) -> Option<String> {
    let mut best: Option<(u8, String)> = None;
    for (at, text) in candidates(line).take(MAX_CANDIDATES) {
        let Some(address) = canonical(text) else { continue };
        let rank = rank(&line[..at]);
        if rank > 0 && best.as_ref().is_none_or(|(most, _)| rank > *most) {
            best = Some((rank, address));
        }
    }
    best.map(|(_, address)| address)
}

/// What words before an address say about it.
fn rank(before: &str) -> u8 {
    let from = before.len() - before.len().min(40);
    let from = (from..=before.len()).find(|at| before.is_char_boundary(*at)).unwrap_or(before.len());
    let mut words = before[from..].rsplit(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let word = words.next().unwrap_or_default();
    let is = |words: &[&str], word: &str| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    match word {
        _ if is(OURS, word) => 0,
        _ if is(THEIRS, word) => 3,
        // `client_ip`, `from user@`, `remoteAddr`.
        _ if words.next().is_some_and(|word| is(THEIRS, word)) => 2,
        _ if word.len() > 4 && THEIRS[..7].iter().any(|known| word.to_ascii_lowercase().starts_with(known)) => 2,
        _ => 1,
    }
}

/// Runs of the characters of addresses that could be one.
fn candidates(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = line.as_bytes();
    let of_address = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'.' | b':');
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            while at < bytes.len() && of_address(bytes[at]) {
                at += 1;
            }
            // Only ASCII, so these are borders of characters.
            let run = if at > start { line.get(start..at).unwrap_or_default() } else { "" };
            let free = start.checked_sub(1).is_none_or(|i| !bytes[i].is_ascii_alphanumeric() && bytes[i] != b'_');
            let ends = bytes.get(at).is_none_or(|b| !b.is_ascii_alphanumeric() && *b != b'_');
            at += usize::from(at == start);
            let count = |sign: u8| run.bytes().filter(|b| *b == sign).count();
            if free && ends && run.len() <= MAX_BYTES && (count(b'.') >= 3 || count(b':') >= 2) {
                return Some((start, run));
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_form() {
        for (text, address) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("203.0.113.7:4711", Some("203.0.113.7")),
            ("203.0.113.7/4711", Some("203.0.113.7")),
            ("outside:203.0.113.7/443", Some("203.0.113.7")),
            ("[203.0.113.7]:", Some("203.0.113.7")),
            ("::ffff:203.0.113.7", Some("203.0.113.7")),
            ("[::ffff:203.0.113.7]:47414", Some("203.0.113.7")),
            ("2001:0db8::0007", Some("2001:db8::7")),
            ("[2001:db8::7]:443", Some("2001:db8::7")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("10:44:33", None),
            ("web-1", None),
            ("", None),
        ] {
            assert_eq!(canonical(text).as_deref(), address, "{text}");
        }
    }

    #[test]
    fn the_client_of_a_line_is_not_the_server() {
        for (line, address) in [
            ("Login failed for user \"x\" IP-address: 203.0.113.7", Some("203.0.113.7")),
            ("failed login to 192.0.2.1 from 203.0.113.7 port 4", Some("203.0.113.7")),
            ("authentication failure; rhost=::ffff:203.0.113.7 user=root@pam", Some("203.0.113.7")),
            ("12:00:01 host-192.0.2.1 attempt remote: \"203.0.113.7:5123\"", Some("203.0.113.7")),
            ("Failed login attempt, 2FA invalid. 203.0.113.7", Some("203.0.113.7")),
            (r#"{"remoteAddr":"2001:db8::7","message":"Login failed"}"#, Some("2001:db8::7")),
            ("[2025-07-28 05:34:01 UTC] [203.0.113.7:50051] Invalid password", Some("203.0.113.7")),
            ("could not connect to 192.0.2.1", None),
            ("at 10:44:33 nothing", None),
        ] {
            assert_eq!(client(line).as_deref(), address, "{line}");
        }
    }

    #[test]
    fn only_public_addresses_have_a_network() {
        assert_eq!(network("203.0.113.7"), network("203.0.200.1"));
        assert_ne!(network("203.0.113.7"), network("198.51.100.7"));
        assert!(network("10.0.0.1").is_none() && network("::1").is_none() && network("100.64.0.1").is_none());
        assert!(network("2001:db8::1").is_some());
    }
}
