//! `volio man`: prints or writes manual pages.

use crate::output;
use clap::{Args, Command, ValueHint};
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, roman};
use std::fs;
use std::io::{self, Write};
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
    /// Prints the program's page, or writes the pages of all commands.
    pub fn run(self, program: Command) -> Result<()> {
        let mut program = program.disable_help_subcommand(true);
        // `build` gives commands their full names, such as volio-pack.
        program.build();
        match self.dir {
            Some(directory) => write_all(&directory, &program),
            None => output::results(|out| render(&program, out)),
        }
    }
}

fn write_all(directory: &Path, program: &Command) -> Result<()> {
    let write = |command: &Command| {
        let mut page = Vec::new();
        render(command, &mut page)?;
        fs::write(directory.join(Page::new(command.clone()).get_filename()), page)
    };
    fs::create_dir_all(directory)
        .and_then(|()| std::iter::once(program).chain(program.get_subcommands()).try_for_each(write))
        .map_err(|error| Error::io(format!("cannot write to {}", directory.display()), error))
}

/// Writes one page. The end of the help is formatted here, because clap_mangen fills examples like prose.
fn render(command: &Command, out: &mut dyn Write) -> io::Result<()> {
    let page = Page::new(command.clone());
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    if command.has_subcommands() {
        page.render_subcommands_section(out)?;
    }
    let end = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    sections(&end).to_writer(out)
}

/// Formats the end of the help: a line with a colon at its end begins a section, indented lines stay as they are, and the
/// rest is prose.
fn sections(help: &str) -> Roff {
    let mut roff = Roff::new();
    let mut verbatim = false;
    for line in help.lines() {
        if line.starts_with(' ') != verbatim {
            verbatim = !verbatim;
            roff.control(if verbatim { "nf" } else { "fi" }, []);
        }
        match line.strip_suffix(':') {
            _ if verbatim => roff.text([roman(line)]),
            Some(title) => roff.control("SH", [title.to_uppercase().as_str()]),
            None if line.is_empty() => roff.control("PP", []),
            None => roff.text([roman(line)]),
        };
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_not_filled_and_prose_is() {
        let page = sections("Examples:\n  volio a\n  volio b\n\nProse.").render();
        let end = page.split_once(".SH EXAMPLES").unwrap().1;
        assert_eq!(end.trim(), ".nf\n  volio a\n  volio b\n.fi\n.PP\nProse.");
    }
}
