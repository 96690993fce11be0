//! Commands that run before a mount and after an unmount: hooks, and volmex's commands, which run exactly as volmex ran
//! them.

use super::volume_name::VolumeName;
use crate::error::{Error, Result};
use crate::process::{self, Ended};
use crate::stream::CancelToken;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The maximum number of bytes of a command's output in its error, from the end of the output.
const MAX_TAIL: usize = 4 << 10;

/// A command to run.
pub(super) struct Hook<'a> {
    pub(super) words: Vec<String>,
    /// The complete environment.
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// The maximum run time.
    pub(super) timeout: Duration,
    /// The search path for the program.
    pub(super) search_path: &'a OsStr,
}

impl<'a> Hook<'a> {
    /// A command of volmex: split at each space, without quoting; its environment has three variables.
    pub(super) fn volmex(
        command: &str,
        name: &VolumeName,
        mountpoint: &Path,
        timeout: Duration,
        search_path: &'a OsStr,
    ) -> Self {
        let command = command.trim();
        let environment = vec![
            ("VOLMEX_NAME", name.as_str().into()),
            ("VOLMEX_MOUNTPOINT", mountpoint.into()),
            ("VOLMEX_CMD", command.into()),
        ];
        Self { words: command.split(' ').map(str::to_owned).collect(), environment, timeout, search_path }
    }

    /// Runs the command, and waits for its end.
    ///
    /// # Errors
    ///
    /// It cannot be started, does not end in time, or its exit status is not 0. The error has the end of its output.
    pub(super) fn run(&self) -> Result<()> {
        let program = self.words.first().map(String::as_str).unwrap_or_default();
        let path = process::find_program(program, self.search_path).ok_or_else(|| {
            Error::failed(format!("{program:?} was not found"))
                .with_hint("name the program with its whole path, or put it where the plugin's PATH leads")
        })?;
        let mut command = Command::new(path);
        command
            .arg0(program)
            .args(&self.words[1..])
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut tail = Vec::new();
        let ended = process::run(command, self.timeout, &CancelToken::default(), |output| {
            tail.extend_from_slice(output);
            tail.drain(..tail.len().saturating_sub(MAX_TAIL));
        });
        match ended.map_err(|error| Error::io(format!("cannot run {program:?}"), error))? {
            Ended::Exited(status) if status.success() => Ok(()),
            // In volmex's words.
            Ended::Exited(status) => Err(Error::failed(with_tail(&process::describe_exit(status), &tail))),
            Ended::TimedOut | Ended::Cancelled => {
                let timeout = format!("it did not end within {} seconds", self.timeout.as_secs());
                Err(Error::failed(with_tail(&timeout, &tail)))
            }
        }
    }
}

/// Splits a command line into words as a shell does, with quotes but without expansions; or parses a JSON array of
/// words.
///
/// # Errors
///
/// [`Usage`](crate::error::Kind::Usage) if there are no words, or a quote is not closed.
pub(super) fn words(option: &str, text: &str) -> Result<Vec<String>> {
    let words =
        if text.trim_start().starts_with('[') { serde_json::from_str(text).ok() } else { shlex::split(text) };
    words.filter(|words: &Vec<String>| words.first().is_some_and(|word| !word.is_empty())).ok_or_else(|| {
        Error::usage(format!("{option} is not a command"))
            .with_hint(r#"write words, quoted as in a shell, or a JSON array of words"#)
    })
}

fn with_tail(what: &str, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    match said.trim() {
        "" => what.to_owned(),
        said => format!("{what}: {said}"),
    }
}
