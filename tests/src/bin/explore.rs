//! Explores the delivery protocol: `explore --schedules 300000`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the command line")]

use std::{
    num::NonZeroUsize,
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    sync::{Mutex, PoisonError},
};

use clap::Parser;
use logwarden_tests::explorer::{InMemory, Rules, Stores, Tally, run, schedule, shrink};

/// Looks for an alert that is lost, or told too often, in random schedules of the delivery protocol.
#[derive(Parser)]
struct Arguments {
    /// How many schedules.
    #[arg(long, default_value_t = 20_000)]
    schedules: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Leaves one rule out: R1, R2, R4, R5, R6 or the beginning of another one's name; then something must be found.
    #[arg(long)]
    without: Option<String>,
    /// Goes on after something is found, and lists every seed.
    #[arg(long)]
    all: bool,
}

fn main() -> ExitCode {
    let stores: &(dyn Fn() -> Box<dyn Stores> + Sync) = &|| Box::<InMemory>::default();
    let arguments = Arguments::parse();
    let rules = match &arguments.without {
        None => Rules::ALL,
        Some(name) => match Rules::without().into_iter().find(|(known, _)| known.starts_with(name.as_str())) {
            Some((_, rules)) => rules,
            None => {
                eprintln!("no rule is called {name}");
                return ExitCode::from(2);
            }
        },
    };
    let next = AtomicU64::new(arguments.seed);
    let end = arguments.seed.saturating_add(arguments.schedules);
    let stop = AtomicBool::new(false);
    let tally = Mutex::new(Tally::default());
    let broken = Mutex::new(None);
    let found = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    match run(rules, stores, seed, &schedule(seed)) {
                        Ok(tally) => own.add(tally),
                        Err(fault) if arguments.all => {
                            found.fetch_add(1, Ordering::Relaxed);
                            println!("seed {seed}: {fault}");
                        }
                        Err(fault) => {
                            stop.store(true, Ordering::Relaxed);
                            *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some((seed, fault));
                        }
                    }
                }
                tally.lock().unwrap_or_else(PoisonError::into_inner).add(own);
            });
        }
    });
    let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    match broken {
        None => {
            let found = found.into_inner();
            println!("{} schedules hold: {tally:?}", arguments.schedules - found);
            if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Some((seed, fault)) => {
            println!("seed {seed}: {fault}");
            let (steps, fault) = shrink(rules, stores, seed, &schedule(seed));
            println!("{} steps are enough:", steps.len());
            for step in steps {
                println!("  {step:?}");
            }
            if let Some(fault) = fault {
                println!("{fault}");
            }
            ExitCode::FAILURE
        }
    }
}
