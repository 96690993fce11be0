//! Commands that run before a mount and after an unmount: volmex's, exactly as they ran, and hooks.

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

/// How much of what a command said goes into its error, in bytes: what it said last.
const MAX_TAIL: usize = 4 << 10;
/// How long a command that has to end may take to do so itself.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// A command that is to be run.
pub(super) struct Hook<'a> {
    pub(super) words: Vec<String>,
    /// All of its environment.
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// Where its program is looked for.
    pub(super) search_path: &'a OsStr,
}

impl<'a> Hook<'a> {
    /// volmex's command: split at each space and nowhere else, without quotes; its environment is three variables.
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

    /// Runs it, and waits for its end.
    ///
    /// # Errors
    /// When it cannot be started, does not end in time, or ends otherwise than with 0; with the end of what it said.
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
        // It holds the ends of the pipe that are written to, which must close with the child.
        drop(command);
        let tail = capture_tail(output);
        let status = wait_or_kill(&mut child, Instant::now() + self.timeout).map_err(cannot)?;
        // Something that it left running may keep the pipe open.
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

/// Words as a shell takes them apart, with quotes and without anything else of a shell; or a JSON array of words.
///
/// # Errors
/// [`Usage`](crate::error::Kind::Usage) when there are none, or a quote is not closed.
pub(super) fn words(option: &str, text: &str) -> Result<Vec<String>> {
    let words = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(text).ok(),
        false => shlex::split(text),
    };
    words.filter(|words: &Vec<String>| words.first().is_some_and(|word| !word.is_empty())).ok_or_else(|| {
        Error::usage(format!("{option} is not a command"))
            .with_hint(r#"write words, quoted as in a shell, or a JSON array of words"#)
    })
}

/// The file of a program: where its name says, or where the path leads first.
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

/// Reads what a command says, as long as somebody can say something, and keeps the end of it.
fn capture_tail(mut output: io::PipeReader) -> Receiver<Vec<u8>> {
    let (done, tail) = channel();
    // Without a thread nobody hears what it says, and that is all.
    let _ = thread::Builder::new().spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 4 << 10];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..length]);
            kept.drain(..kept.len().saturating_sub(MAX_TAIL));
        }
        // Nobody listens when the command went well.
        let _ = done.send(kept);
    });
    tail
}

/// Waits until the deadline; then the command and all that it started are ended.
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
        // The first answers come quickly, and nobody notices a twentieth of a second in a long one.
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// How it ended, in the words that volmex's users know.
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
