//! Plays quiet hosts with planted incidents: `cargo run --release -p logwarden-tests --bin scenarios -- --seeds 3`.
//!
//! Exits 1 when an incident is not found within one window, when there is more than one false alert a day, or when the
//! same seed does not play the same.

#![expect(clippy::print_stdout, reason = "a program for the command line")]

use std::process::ExitCode;

use clap::Parser;
use logwarden_tests::scenario::Scenario;

/// Plays quiet hosts with planted incidents, and says what was found and what was alerted for nothing.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A week with little traffic instead of a fortnight.
    #[arg(long)]
    short: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut holds = true;
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let scenario = if arguments.short { Scenario::short(seed) } else { Scenario::long(seed) };
        let (one, again) = std::thread::scope(|scope| {
            let again = scope.spawn(|| scenario.play());
            (scenario.play(), again.join())
        });
        let (one, Ok(again)) = (one, again) else {
            println!("seed {seed}: the pipeline stopped");
            return ExitCode::FAILURE;
        };
        let (one, again) = match (one, again) {
            (Ok(one), Ok(again)) => (one, again),
            (Err(error), _) | (_, Err(error)) => {
                println!("seed {seed}: {error}");
                return ExitCode::FAILURE;
            }
        };
        println!("{}", one.table());
        let mut broken = one.broken();
        if one.table() != again.table() {
            broken.push("the same seed has played something else".to_owned());
        }
        for fault in &broken {
            println!("BROKEN: {fault}");
        }
        holds &= broken.is_empty();
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
