//! What systemd is told: that we are ready, that we stop, and that we are alive (`Type=notify`, `WatchdogSec=`).
//!
//! The protocol is one datagram per message to the socket that `$NOTIFY_SOCKET` names; see sd_notify(3). Without that
//! variable nobody listens, and nothing is sent.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

/// The service manager, if one listens.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// Whoever the environment names.
    pub(crate) fn from_env() -> Self {
        let watchdog = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        // Meant for another process, when we are a child of the service.
        let is_ours = watchdog("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = watchdog("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_ours);
        Self {
            socket: env::var_os("NOTIFY_SOCKET").and_then(|path| connect(&path).ok()),
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// How often it wants to hear that we are alive; half of the time after which it takes us for dead.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some()).map(|time| time / 2)
    }

    /// We take work, and this is what we do.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// We take no more work.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=finishing what is under way");
    }

    /// We are alive.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!(%error, "the service manager cannot be told");
        }
    }
}

/// A path, or after an `@` the name of an abstract socket.
fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // Whoever does not read must not stop us.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(name: &str, listener: &UnixDatagram) -> String {
        let notify =
            Notify { socket: Some(connect(OsStr::new(name)).unwrap()), watchdog: Some(Duration::from_secs(60)) };
        assert_eq!(notify.watchdog(), Some(Duration::from_secs(30)));
        notify.ready("listens");
        let mut heard = [0; 100];
        let length = listener.recv(&mut heard).unwrap();
        String::from_utf8_lossy(&heard[..length]).into_owned()
    }

    #[test]
    fn paths_and_abstract_names_are_reached() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        assert_eq!(hears(&path.display().to_string(), &listener), "READY=1\nSTATUS=listens");
        let name = format!("logwarden-test-{}", process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        assert_eq!(hears(&format!("@{name}"), &listener), "READY=1\nSTATUS=listens");
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        let notify = Notify { socket: None, watchdog: Some(Duration::from_secs(60)) };
        notify.alive();
        assert_eq!(notify.watchdog(), None);
    }
}
