//! Arguments, and the commands that both binaries share.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | done, findings or not |
//! | 1 | failed, and worth another run |
//! | 2 | wrong usage or configuration |
//! | 3 | `scan --fail-on`: something at least that bad was found |

mod alert;
mod args;
mod doctor;
mod failure;
mod fold;
mod incidents;
mod init;
mod logging;
mod output;
mod rules;
mod run;
mod scan;
mod serve;
mod setup;
mod stop;

use std::{ffi::OsString, io, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser};

use crate::{
    args::{Analyzer, Command, Rules},
    failure::Failure,
};

/// Runs `logwarden-analyzer` with these arguments, the first of which is the program's name.
pub fn analyzer(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Analyzer::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            // Help and version go to standard output and are no failure; who closed the pipe wants no more of it.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    if let Command::Completions { shell } = &args.command {
        let mut text = Vec::new();
        clap_complete::generate(*shell, &mut Analyzer::command(), "logwarden-analyzer", &mut text);
        return end(output::write(&text).map(|()| 0).map_err(Failure::from));
    }
    logging::start(args.common.verbose, args.command.is_service());
    end(start(&args))
}

/// Runs `logwarden-receiver` with these arguments, the first of which is the program's name.
pub fn receiver(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match serve::ReceiverArgs::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    logging::start(args.common.verbose, true);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    end(runtime.map_err(|error| Failure::failed("cannot start").because(&error)).and_then(|runtime| {
        let serve::ReceiverCommand::Serve(serve) = &args.command;
        runtime.block_on(serve::serve(&args.common, serve))
    }))
}

fn start(args: &Analyzer) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start").because(&error))?;
    let ended = runtime.block_on(async {
        let common = &args.common;
        match &args.command {
            Command::Run => run::run(common).await,
            Command::Watch => run::watch(common).await,
            Command::Scan(scan) => scan::scan(common, scan).await,
            Command::Fold(fold) => fold::fold(fold).await,
            Command::Rules(Rules::Test(test)) => rules::test(test).await,
            Command::Doctor(doctor) => doctor::doctor(common, doctor).await,
            Command::TestAlert { channel } => alert::test(common, channel.as_deref()).await,
            Command::NotifyFailure { unit } => alert::notify_failure(common, unit).await,
            Command::Incidents(incidents) => incidents::list(common, incidents).await,
            Command::Mute(mute) => incidents::mute(common, mute).await,
            Command::Unmute { id } => incidents::unmute(common, id).await,
            Command::Forget { id } => incidents::forget(common, id).await,
            Command::Init(init) => init::init(init),
            Command::Completions { .. } => Ok(0),
        }
    });
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
