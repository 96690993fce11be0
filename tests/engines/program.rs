//! Running volio and other programs.
//!
//! A failure shows the command line, the exit code and both outputs, which are needed to repeat it by hand.

use std::fmt;
use std::process::{Command, Output};

/// A program that has ended.
pub struct Finished {
    command: String,
    output: Output,
}

/// Runs `volio ARGUMENTS…`.
pub fn volio(arguments: &[&str]) -> Finished {
    finish(Command::new(env!("CARGO_BIN_EXE_volio")).args(arguments))
}

/// Runs a program on the PATH and expects success. Returns its standard output.
pub fn tool(name: &str, arguments: &[&str]) -> String {
    finish(Command::new(name).args(arguments)).succeeded()
}

/// Runs a prepared command.
pub fn finish(command: &mut Command) -> Finished {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Finished { command: format!("{command:?}"), output }
}

impl Finished {
    /// Returns whether the exit code is 0.
    pub fn is_success(&self) -> bool {
        self.output.status.success()
    }

    /// Expects exit code 0. Returns standard output without leading and trailing whitespace.
    pub fn succeeded(self) -> String {
        assert!(self.output.status.success(), "{self}");
        self.stdout()
    }

    /// Expects this exit code. Returns both outputs in one text.
    pub fn failed_with(self, code: i32) -> String {
        assert_eq!(self.output.status.code(), Some(code), "{self}");
        format!(
            "{}{}",
            String::from_utf8_lossy(&self.output.stdout),
            String::from_utf8_lossy(&self.output.stderr)
        )
    }

    /// Expects exit code 0 and `repo@sha256:…` as the last line of standard output. Returns the digest.
    pub fn digest(self) -> String {
        assert!(self.output.status.success(), "{self}");
        let last = self.stdout().lines().last().unwrap_or_default().to_owned();
        let (_, digest) =
            last.rsplit_once('@').unwrap_or_else(|| panic!("no digest in the last line of {self}"));
        assert!(digest.starts_with("sha256:") && digest.len() == 71, "no digest in the last line of {self}");
        digest.to_owned()
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).trim().to_owned()
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "{}: {}", self.command, self.output.status)?;
        writeln!(to, "stdout: {}", String::from_utf8_lossy(&self.output.stdout))?;
        write!(to, "stderr: {}", String::from_utf8_lossy(&self.output.stderr))
    }
}
