//! Signals that ask us to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves when somebody asks us to stop: Ctrl-C, `systemctl stop`.
pub(crate) async fn asked() {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => {
            let _: Option<()> = Signal::recv(&mut signal).await;
        }
        // Then the signal ends us the usual way.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}
