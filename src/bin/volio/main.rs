//! volio, the program: parses the arguments, calls the library, prints the result and returns an exit code.
//!
//! [`cli`] has the arguments of all commands. Their types check themselves, so that a mistake ends with a message and
//! exit code 2 before anything has happened. Each file in [`commands`] turns the arguments of one command into options
//! and calls one verb of the library. The library neither prints nor reads the environment; [`output`], [`progress`]
//! and [`environment`] do.

mod args;
mod cli;
mod clock;
mod color;
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
mod suggestion;
mod terminal;
mod unattended;
mod variables;

use clap::ValueEnum;
use color::ColorChoice;
use std::ffi::OsString;
use std::process::ExitCode;
use suggestion::NamedImages;

fn main() -> ExitCode {
    signal::handle_file_size_limit();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    choose_color(&arguments);
    let line = match variables::apply(arguments, &environment::process()) {
        Ok(line) => line,
        Err(error) => return fail(&error),
    };
    choose_color(&line.arguments);
    match cli::Cli::parse_line(&line.arguments) {
        Ok((cli, matches)) => {
            cli.global.progress.apply();
            // The command is consumed when it runs.
            let named = NamedImages::of(&matches);
            run(cli.command, &named).map_or_else(|error| fail(&error), Into::into)
        }
        Err(error) => line.usage_error(&error),
    }
}

/// Chooses the colours, also those of errors in the arguments.
fn choose_color(arguments: &[OsString]) {
    let choice = ColorChoice::from_command_line(arguments).or_else(|| {
        environment::variable("VOLIO_COLOR")
            .and_then(|value| ColorChoice::from_str(value.to_str()?, false).ok())
    });
    choice.unwrap_or_default().apply(environment::variable);
}

/// Prints an error, and returns its exit code.
fn fail(error: &volio::Error) -> ExitCode {
    output::error(error);
    exit::Exit::from(error.kind()).into()
}

fn run(command: cli::Command, named: &NamedImages) -> volio::Result<exit::Exit> {
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
        _ => signal::interruptible(|| command.run().map_err(|error| named.complete(error))),
    }
}
