//! `volio man`: the definitions of the arguments, as manual pages.

use crate::args;
use crate::output;
use clap::{Args, CommandFactory, ValueHint};
use clap_mangen::Man as Page;
use std::fs;
use std::path::{Path, PathBuf};
use volio::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  volio man | man -l -
  volio man --dir ~/.local/share/man/man1";

/// Print the manual page, or write all of them
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Man {
    /// Write the pages of all commands into this directory, made when missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

impl Man {
    /// Prints one page or writes all of them.
    pub fn run(self) -> Result<()> {
        match self.dir {
            Some(directory) => write_all(&directory),
            None => output::results(|out| Page::new(args::Args::command()).render(out)),
        }
    }
}

fn write_all(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(args::Args::command(), directory))
        .map_err(|error| Error::io(format!("cannot write to {}", directory.display()), error))
}
