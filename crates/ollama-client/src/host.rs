//! Where Ollama is: `OLLAMA_HOST` in every form that people have it in.

use std::net::{IpAddr, Ipv4Addr};

use secrecy::SecretString;
use url::{Host, Url};

const PORT: u16 = 11434;

/// Scheme, host, port and path prefix, and what stood in the address besides.
#[derive(Clone, Debug)]
pub struct BaseUrl {
    url: Url,
    credentials: Option<(String, SecretString)>,
    notes: Vec<&'static str>,
    binds_everywhere: bool,
}

/// Not an address. The text is not quoted: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address of Ollama: expected something like `http://127.0.0.1:11434`, `gpu-box` or `10.0.0.5:11434`")]
pub struct HostError;

/// Ollama's own default: port 11434 of this machine.
impl Default for BaseUrl {
    fn default() -> Self {
        Self::parse("").expect("nothing at all is Ollama's default")
    }
}

impl BaseUrl {
    /// Reads an address as Ollama's own clients read `OLLAMA_HOST`; empty is Ollama's default.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let text = text.trim().trim_matches(['"', '\'']).trim();
        let mut notes = Vec::new();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Some("http"), rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Some("https"), rest),
            Some(_) => return Err(HostError),
            None => (None, text),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user, address) = authority.rsplit_once('@').map_or((None, authority), |(user, rest)| (Some(user), rest));
        let default = match scheme {
            Some("https") => 443,
            Some(_) => 80,
            None => PORT,
        };
        let (host, port) = split(address, default, &mut notes)?;
        let host = if host.is_empty() { "127.0.0.1".to_owned() } else { host };
        let mut url = Url::parse(&format!("{}://{host}:{port}", scheme.unwrap_or("http"))).map_err(|_| HostError)?;
        let binds_everywhere = match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_unspecified(),
            Some(Host::Ipv6(ip)) => ip.is_unspecified(),
            _ => false,
        };
        if binds_everywhere {
            let loopback = if matches!(url.host(), Some(Host::Ipv4(_))) { "127.0.0.1" } else { "[::1]" };
            url.set_host(Some(loopback)).map_err(|_| HostError)?;
        }
        url.set_path(path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/'));
        let credentials = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (name.to_owned(), SecretString::from(password.to_owned()))
        });
        Ok(Self { url, credentials, notes, binds_everywhere })
    }

    /// Scheme, host and port: what may be shown.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Whether it is this machine or a private network: environment proxies are not for these.
    pub fn is_near(&self) -> bool {
        self.is_this_machine()
            || match self.url.host() {
                Some(Host::Ipv4(ip)) => ip.is_private() || ip.is_link_local(),
                Some(Host::Ipv6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local(),
                Some(Host::Domain(name)) => {
                    !name.contains('.') || [".local", ".internal", ".lan"].iter().any(|end| name.ends_with(end))
                }
                None => false,
            }
    }

    /// Whether it is the loopback.
    pub fn is_this_machine(&self) -> bool {
        match self.url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            None => false,
        }
    }

    /// Whether the address is one for listening on every interface, as servers have it.
    pub fn binds_everywhere(&self) -> bool {
        self.binds_everywhere
    }

    /// What was odd about the address, for a human.
    pub fn notes(&self) -> &[&'static str] {
        &self.notes
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(PORT)
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }

    pub(crate) fn join(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let path = format!("{}{path}", self.url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    pub(crate) fn at(&self, ip: IpAddr) -> Option<Url> {
        let mut url = self.join("/api/version");
        url.set_ip_host(ip).ok()?;
        Some(url)
    }

    pub(crate) fn credentials(&self) -> Option<&(String, SecretString)> {
        self.credentials.as_ref()
    }
}

/// Host and port; a host that is an IPv6 address comes with brackets.
fn split(address: &str, default: u16, notes: &mut Vec<&'static str>) -> Result<(String, u16), HostError> {
    if !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_digit()) {
        notes.push("only digits: read as a port of this machine");
        return Ok((Ipv4Addr::LOCALHOST.to_string(), port(address, notes, default)));
    }
    if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(HostError)?;
        let port = rest.strip_prefix(':').map_or(default, |text| port(text, notes, default));
        return Ok((format!("[{host}]"), port));
    }
    if address.matches(':').count() > 1 {
        return Ok((format!("[{address}]"), default));
    }
    match address.split_once(':') {
        Some((host, text)) => Ok((host.to_owned(), port(text, notes, default))),
        None => Ok((address.to_owned(), default)),
    }
}

fn port(text: &str, notes: &mut Vec<&'static str>, default: u16) -> u16 {
    text.parse().ok().filter(|port| *port > 0).unwrap_or_else(|| {
        notes.push("no such port: the default is used");
        default
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_that_people_have_leads_to_the_right_place() {
        let cases = [
            ("", "http://127.0.0.1:11434/api/chat"),
            ("0.0.0.0", "http://127.0.0.1:11434/api/chat"),
            ("0.0.0.0:8080", "http://127.0.0.1:8080/api/chat"),
            ("[::]", "http://[::1]:11434/api/chat"),
            ("10.0.0.5", "http://10.0.0.5:11434/api/chat"),
            ("gpu-box", "http://gpu-box:11434/api/chat"),
            ("gpu-box:99", "http://gpu-box:99/api/chat"),
            (":8080", "http://127.0.0.1:8080/api/chat"),
            ("http://h", "http://h/api/chat"),
            ("https://h", "https://h/api/chat"),
            ("HTTPS://h:11434", "https://h:11434/api/chat"),
            ("https://h/prefix/", "https://h/prefix/api/chat"),
            ("h:1/a/b", "http://h:1/a/b/api/chat"),
            ("::1", "http://[::1]:11434/api/chat"),
            ("[::1]:1234", "http://[::1]:1234/api/chat"),
            ("8080", "http://127.0.0.1:8080/api/chat"),
            (" \"gpu-box\" ", "http://gpu-box:11434/api/chat"),
            ("h:99999", "http://h:11434/api/chat"),
            ("user:pass@h", "http://h:11434/api/chat"),
        ];
        for (text, expected) in cases {
            assert_eq!(BaseUrl::parse(text).unwrap().join("/api/chat").as_str(), expected, "{text:?}");
        }
    }

    #[test]
    fn passwords_are_kept_apart_and_never_shown() {
        let base = BaseUrl::parse("https://me:s3cret@h:1").unwrap();
        assert_eq!(base.origin(), "https://h:1");
        assert!(base.credentials().is_some());
        assert!(!format!("{base:?}").contains("s3cret"));
        assert!(!BaseUrl::parse("ftp://me:s3cret@h").unwrap_err().to_string().contains("s3cret"));
    }

    #[test]
    fn proxies_are_not_for_near_addresses() {
        for near in ["", "10.1.2.3", "gpu-box", "192.168.0.9", "[fd00::1]", "http://box.local:11434"] {
            assert!(BaseUrl::parse(near).unwrap().is_near(), "{near}");
        }
        assert!(!BaseUrl::parse("https://ollama.example.com").unwrap().is_near());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            if let Ok(base) = BaseUrl::parse(&text) {
                prop_assert!(base.join("/api/tags").path().ends_with("/api/tags"));
            }
        }
    }
}
