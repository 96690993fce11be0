//! Commands that run before a mount and after an unmount: hooks, and volmex's commands, which run exactly as volmex ran
//! them.

use super::volume_name::VolumeName;
use crate::error::{Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The maximum number of bytes of a command's output in its error, from the end of the output.
const MAX_TAIL: usize = 4 << 10;
/// The time between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);

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
        let path = find_program(program, self.search_path).ok_or_else(|| {
            Error::failed(format!("{program:?} was not found"))
                .with_hint("name the program with its whole path, or put it where the plugin's PATH leads")
        })?;
        let cannot = |error: io::Error| Error::io(format!("cannot run {program:?}"), error);
        let (output, said) = io::pipe().map_err(cannot)?;
        let mut command = Command::new(path);
        command
            .arg0(program)
            .args(&self.words[1..])
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(said.try_clone().map_err(cannot)?)
            .stderr(said)
            .process_group(0);
        let mut child = command.spawn().map_err(cannot)?;
        // `command` holds write ends of the pipe, which must close with the child.
        drop(command);
        let tail = capture_tail(output);
        let status = wait_or_kill(&mut child, Instant::now() + self.timeout).map_err(cannot)?;
        // A process that it left running may keep the pipe open.
        let tail = || tail.recv_timeout(Duration::from_millis(500)).unwrap_or_default();
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(Error::failed(with_tail(&describe_exit(status), &tail()))),
            None => {
                let timeout = format!("it did not end within {} seconds", self.timeout.as_secs());
                Err(Error::failed(with_tail(&timeout, &tail())))
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

/// Returns the file of a program: its path if it has a slash, otherwise the first match on the search path.
fn find_program(program: &str, search_path: &OsStr) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let directories = search_path.as_bytes().split(|b| *b == b':').filter(|directory| !directory.is_empty());
    directories.map(|directory| Path::new(OsStr::from_bytes(directory)).join(program)).find(is_program)
}

/// Reads the output of a command until all its writers have closed it, and keeps the end.
fn capture_tail(mut output: io::PipeReader) -> Receiver<Vec<u8>> {
    let (done, tail) = channel();
    // Without a thread the output is not captured.
    let _ = thread::Builder::new().spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 4 << 10];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..length]);
            kept.drain(..kept.len().saturating_sub(MAX_TAIL));
        }
        // The receiver is gone if the command succeeded.
        let _ = done.send(kept);
    });
    tail
}

/// Waits until the deadline, then ends the command and its process group.
fn wait_or_kill(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    if let Some(status) = wait_until(child, deadline)? {
        return Ok(Some(status));
    }
    let group = Pid::from_child(child);
    let _ = kill_process_group(group, Signal::TERM);
    let ended = wait_until(child, Instant::now() + TERM_GRACE)?;
    let _ = kill_process_group(group, Signal::KILL);
    if ended.is_none() {
        child.wait()?;
    }
    Ok(None)
}

fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        let status = child.try_wait()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if status.is_some() || left.is_zero() {
            return Ok(status);
        }
        thread::sleep(pause.min(left));
        // Short commands are noticed quickly; for long ones 50 ms do not matter.
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Describes the exit status in volmex's words.
fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
    }
}

fn with_tail(what: &str, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    match said.trim() {
        "" => what.to_owned(),
        said => format!("{what}: {said}"),
    }
}
