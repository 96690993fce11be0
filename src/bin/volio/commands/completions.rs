//! `volio completions`: prints completions for a shell.

use crate::output;
use clap::{Args, Command};
use clap_complete::Shell;
use volio::Result;

const EXAMPLES: &str = "\
Examples:
  volio completions bash > ~/.local/share/bash-completion/completions/volio
  volio completions fish > ~/.config/fish/completions/volio.fish
  volio completions zsh > ~/.zfunc/_volio";

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the completions.
    pub fn run(self, mut program: Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "volio", &mut script);
        output::results(|out| out.write_all(&script))
    }
}
