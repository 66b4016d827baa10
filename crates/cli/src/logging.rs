//! Our own log: lines on standard error that one finds again in the journal.

use std::{
    env,
    io::{self, IsTerminal},
};

use tracing_subscriber::EnvFilter;

/// Starts logging. `LOGWARDEN_LOG` overrides the level: `debug`, or `warn,logwarden_loki_source=trace`.
pub(crate) fn start(verbose: u8, service: bool) {
    let level = match (verbose, service) {
        (0, true) => "info",
        (0, false) => "error",
        (1, _) => {
            "warn,logwarden_cli=debug,logwarden_core=debug,logwarden_loki_source=debug,logwarden_ollama_client=debug,logwarden_notifiers=debug,logwarden_file_source=debug"
        }
        (_, _) => "debug",
    };
    let filter = env::var("LOGWARDEN_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(level)))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none())
        .with_target(verbose > 0);
    // The journal has a clock of its own.
    if env::var_os("JOURNAL_STREAM").is_some() {
        let _ = builder.without_time().try_init();
    } else {
        let _ = builder.try_init();
    }
}
