//! `logwarden-analyzer`: reads logs, finds what is wrong, tells it.

use std::process::ExitCode;

fn main() -> ExitCode {
    logwarden_cli::analyzer(std::env::args_os())
}
