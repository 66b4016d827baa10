//! Arguments, and the commands that both binaries share.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | done, findings or not |
//! | 1 | failed, and worth another run |
//! | 2 | wrong usage or configuration |
//! | 3 | `scan --fail-on`: something at least that bad was found |
//! | 130 | `scan` and `fold`: stopped by Ctrl-C or a signal; what was read by then was shown |

mod alert;
mod alive;
mod args;
mod backfill;
mod disk;
mod doctor;
mod failure;
mod fold;
mod incidents;
mod init;
mod logging;
mod notify;
mod output;
mod program;
mod quarantine;
mod reading;
mod rules;
mod run;
mod scan;
mod serve;
mod setup;
mod shippers;
mod stop;
mod tally;
mod unit;
mod why;

use std::{ffi::OsString, future::Future, io, process::ExitCode, time::Duration};

use clap::{CommandFactory, FromArgMatches};

use crate::{
    args::{Analyzer, Command, Common, Receiver, ReceiverCommand, Rules, Shared},
    failure::Failure,
};

/// Runs `logwarden-analyzer` with these arguments, the first of which is the program's name.
pub fn analyzer(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Analyzer = match parse("logwarden-analyzer", arguments) {
        Ok(args) => args,
        Err(code) => return code,
    };
    logging::start(args.common.verbose, args.command.is_service());
    let common = &args.common;
    end(start(2, async {
        match &args.command {
            Command::Run => run::run(common).await,
            Command::Watch => run::watch(common).await,
            Command::Backfill { since } => backfill::backfill(common, *since).await,
            Command::Scan(scan) => scan::scan(common, scan).await,
            Command::Fold(fold) => fold::fold(fold).await,
            Command::Doctor(doctor) => doctor::doctor(common, doctor).await,
            Command::Shared(command) => shared::<Analyzer>(common, command).await,
        }
    }))
}

/// Runs `logwarden-receiver` with these arguments, the first of which is the program's name.
pub fn receiver(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Receiver = match parse("logwarden-receiver", arguments) {
        Ok(args) => args,
        Err(code) => return code,
    };
    logging::start(args.common.verbose, args.command.is_service());
    let common = &args.common;
    // Folding keeps a thread busy for as long as it takes; connections must be served meanwhile.
    let threads = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    end(start(threads, async {
        match &args.command {
            ReceiverCommand::Serve(serve) => Box::pin(serve::serve(common, serve)).await,
            ReceiverCommand::Doctor(doctor) => doctor::of_receiver(common, doctor).await,
            ReceiverCommand::Shared(command) => shared::<Receiver>(common, command).await,
        }
    }))
}

/// The arguments, or the exit code when there is nothing more to do.
fn parse<A: CommandFactory + FromArgMatches>(
    program: &'static str,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<A, ExitCode> {
    program::start(program);
    let mut command = program::arguments::<A>(program);
    let parsed = command.try_get_matches_from_mut(arguments).and_then(|matches| A::from_arg_matches(&matches));
    parsed.map_err(|error| {
        // Help and version go to standard output and are no failure; who closed the pipe wants no more of it.
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
    })
}

async fn shared<A: CommandFactory>(common: &Common, command: &Shared) -> Result<u8, Failure> {
    match command {
        Shared::Rules(Rules::Test(test)) => rules::test(test).await,
        Shared::TestAlert { channel } => alert::test(common, channel.as_deref()).await,
        Shared::NotifyFailure { unit } => unit::notify_failure(common, unit).await,
        Shared::Incidents(incidents) => incidents::list(common, incidents).await,
        Shared::Mute(mute) => incidents::mute(common, mute).await,
        Shared::Unmute { id } => incidents::unmute(common, id).await,
        Shared::Forget { id } => incidents::forget(common, id).await,
        Shared::Quarantine { command } => quarantine::quarantine(common, command.as_ref()).await,
        Shared::Init(init) => init::init(init),
        Shared::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut A::command(), program::name(), &mut text);
            output::write(&text)?;
            Ok(0)
        }
    }
}

fn start(threads: usize, command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start").because(&error))?;
    let ended = runtime.block_on(command);
    // Somebody may still wait for standard input; that must not keep us.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

fn end(ended: Result<u8, Failure>) -> ExitCode {
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let _ = failure.write(&mut io::stderr().lock());
            ExitCode::from(failure.code())
        }
    }
}
