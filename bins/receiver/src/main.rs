//! `logwarden-receiver`: takes what log shippers push, finds what is wrong, tells it.

use std::process::ExitCode;

fn main() -> ExitCode {
    logwarden_cli::receiver(std::env::args_os())
}
