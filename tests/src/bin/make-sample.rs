//! Prints the sample log: `make-sample > examples/auth.log`.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().lock().write_all(logwarden_tests::sample::sample().as_bytes())
}
