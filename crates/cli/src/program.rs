//! Which of the two programs runs: what it tells people to type names itself.

use std::sync::OnceLock;

use clap::{CommandFactory, builder::StyledStr};

/// The name that help texts are written with.
const WRITTEN: &str = "logwarden-analyzer";

static NAME: OnceLock<&'static str> = OnceLock::new();

/// Notes which program runs, once at its start.
pub(crate) fn start(name: &'static str) {
    let _ = NAME.set(name);
}

/// The program that runs.
pub(crate) fn name() -> &'static str {
    NAME.get().copied().unwrap_or(WRITTEN)
}

/// A command of the program that runs, as one types it: `logwarden-receiver doctor`.
pub(crate) fn command(rest: &str) -> String {
    format!("{} {rest}", name())
}

/// The arguments of `A`, with the examples of commands that both programs share in the name of `program`.
pub(crate) fn arguments<A: CommandFactory>(program: &str) -> clap::Command {
    named(A::command(), program)
}

fn named(mut command: clap::Command, program: &str) -> clap::Command {
    if let Some(help) = command.get_after_help().map(StyledStr::to_string) {
        command = command.after_help(help.replace(WRITTEN, program));
    }
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |inner| named(inner, program));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Analyzer, Receiver};

    fn examples(command: &clap::Command, all: &mut String) {
        all.extend(command.get_after_help().map(|help| format!("{help}\n")));
        command.get_subcommands().for_each(|inner| examples(inner, all));
    }

    #[test]
    fn no_example_is_wrapped() {
        let mut text = String::new();
        examples(&arguments::<Receiver>("logwarden-receiver"), &mut text);
        examples(&arguments::<Analyzer>("logwarden-analyzer"), &mut text);
        for line in text.lines() {
            // What is wrapped cannot be pasted.
            assert!(line.chars().count() <= 100, "{line}");
        }
    }

    #[test]
    fn examples_name_the_program_that_runs() {
        let (mut ours, mut theirs) = (String::new(), String::new());
        examples(&arguments::<Receiver>("logwarden-receiver"), &mut ours);
        examples(&arguments::<Analyzer>("logwarden-analyzer"), &mut theirs);
        assert!(
            ours.contains("logwarden-receiver mute 1f2e3d4c") && theirs.contains("logwarden-analyzer mute 1f2e3d4c")
        );
        assert!(!ours.contains("logwarden-analyzer"), "{ours}");
        assert!(!theirs.contains("logwarden-receiver"), "{theirs}");
    }
}
