//! Why a receiver cannot be started, and what to do.

use std::net::SocketAddr;

/// Why the receiver cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Other machines could send to it without saying who they are.
    #[error("refusing to listen on {listen}, where other machines could send anything")]
    Exposed {
        /// The address.
        listen: SocketAddr,
    },
    /// Other machines could send it syslog, which cannot say who sends it.
    #[error("refusing to take syslog on {listen}, where other machines could send anything")]
    SyslogExposed {
        /// The address.
        listen: SocketAddr,
    },
    /// A client without a credential can never send.
    #[error("the client `{name}` has no credential")]
    NoCredential {
        /// Its name.
        name: String,
    },
    /// Two clients of one name.
    #[error("two clients are called `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
    /// The certificate or its key.
    #[error("cannot use the certificate: {reason}")]
    Certificate {
        /// Why.
        reason: String,
    },
    /// The address is taken, or not ours.
    #[error("cannot listen on {listen}")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

impl BuildError {
    /// What to do: for an address that others can reach, the lines to add on both sides.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exposed { listen } => Some(exposed_hint(*listen)),
            Self::SyslogExposed { listen } => Some(format!(
                "Syslog cannot say who sends it. Name the network that you trust: --insecure-allow {}",
                if listen.is_ipv4() { "192.168.0.0/16" } else { "fd00::/8" }
            )),
            Self::NoCredential { .. } => Some("Give it the output of `printf %s TOKEN | sha256sum`.".to_owned()),
            Self::Bind { listen, cause } if cause.kind() == std::io::ErrorKind::AddrInUse => {
                Some(format!("Another program listens on port {}: is the receiver running already?", listen.port()))
            }
            _ => None,
        }
    }
}

fn exposed_hint(listen: SocketAddr) -> String {
    let port = listen.port();
    format!(
        "With authentication and TLS. Here, in logwarden.toml:

    [receiver]
    listen = \"{listen}\"
    certificate_file = \"/etc/logwarden/tls.crt\"
    key_file = \"/etc/logwarden/tls.key\"

    [[receiver.clients]]
    name = \"web-1\"
    token_sha256 = \"…\"   # printf %s TOKEN | sha256sum

There, in Fluent Bit's [OUTPUT]:

    Host    THIS-HOST
    Port    {port}
    tls     On
    Header  Authorization Bearer TOKEN

Or in a network that you trust, with Fluent Bit's configuration as it is:

    logwarden-receiver serve --listen {listen} --insecure-allow {}",
        if listen.is_ipv4() { "192.168.0.0/16" } else { "fd00::/8" }
    )
}
