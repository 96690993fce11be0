//! volio, the program: parses the arguments, calls the library, prints the result and returns an exit code.
//!
//! [`cli`] has the arguments of all commands. Their types check themselves, so that a mistake ends with a message and
//! exit code 2 before anything has happened. Each file in [`commands`] turns the arguments of one command into options
//! and calls one verb of the library. The library neither prints nor reads the environment; [`output`], [`progress`]
//! and [`environment`] do.

mod args;
mod cli;
mod clock;
mod commands;
mod data_io;
mod documents;
mod environment;
mod exit;
mod human;
mod limit_args;
mod output;
mod progress;
mod retention_args;
mod signal;
mod signature_args;
mod terminal;
mod unattended;
mod variables;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    signal::handle_file_size_limit();
    let line = match variables::apply(std::env::args_os().collect(), &environment::process()) {
        Ok(line) => line,
        Err(error) => {
            output::error(&error);
            return exit::Exit::from(error.kind()).into();
        }
    };
    match cli::Cli::try_parse_from(&line.arguments) {
        Ok(cli) => match run(cli.command) {
            Ok(exit) => exit.into(),
            Err(error) => {
                output::error(&error);
                exit::Exit::from(error.kind()).into()
            }
        },
        Err(error) => line.usage_error(&error),
    }
}

fn run(command: cli::Command) -> volio::Result<exit::Exit> {
    match &command {
        // The plugin handles signals itself: it stops after its open requests.
        cli::Command::Plugin(_) => command.run(),
        cli::Command::Pack(pack) if pack.is_unattended() && !pack.wait_for_signal => {
            signal::SignalGate::new()?.stoppable(|| command.run())
        }
        cli::Command::Unpack(unpack) if unpack.is_unattended() => {
            signal::SignalGate::new()?.stoppable(|| command.run())
        }
        cli::Command::Pack(pack) if pack.wait_for_signal => {
            let gate = signal::SignalGate::new()?;
            pack.check()?;
            if !pack.is_quiet() {
                output::line("waiting for SIGTERM");
            }
            let is_unattended = pack.is_unattended();
            if is_unattended {
                gate.wait_then_stoppable(|| command.run())
            } else {
                gate.wait_then(|| command.run())
            }
        }
        _ => signal::interruptible(|| command.run()),
    }
}
