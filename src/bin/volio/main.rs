//! volio, the program. It reads what was typed, calls the library, shows what came of it, and says in its exit
//! code what a script can do next.
//!
//! Arguments take two steps. [`args`] is what was typed, checked word by word, so that a mistake ends with a
//! message and exit code 2 before anything has happened. Each file in [`commands`] turns its part into what it
//! means and calls one verb of the library. The library never prints and never reads the environment; both
//! happen here, in [`output`], [`progress`] and [`environment`], and nowhere else.

mod args;
mod commands;
mod data_io;
mod environment;
mod exit;
mod interrupt;
mod limits;
mod output;
mod progress;
mod quantity;
mod terminal;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    interrupt::survive_file_size_limits();
    match args::Args::try_parse() {
        Ok(args) => match run(args.command) {
            Ok(exit) => exit.into(),
            Err(error) => {
                output::error(&error);
                exit::Exit::from(error.kind()).into()
            }
        },
        Err(error) => output::not_understood(&error),
    }
}

fn run(command: args::Command) -> volio::Result<exit::Exit> {
    match &command {
        // A service ends in its own good order.
        args::Command::Plugin(_) => commands::run(command),
        args::Command::Pack(pack) if pack.wait_for_signal => {
            let waiting = interrupt::Waiting::begin()?;
            pack.check()?;
            if !pack.is_quiet() {
                output::line("waiting for SIGTERM");
            }
            waiting.then(|| commands::run(command))
        }
        _ => interrupt::watched(|| commands::run(command)),
    }
}
