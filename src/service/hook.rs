//! Hooks: commands of the user that run before and after the work.

use super::log::{Log, count};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::process::{self, Ended};
use crate::stream::CancelToken;
use crate::transport::Environment;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// The longest line of a hook that is logged, in bytes.
const MAX_LINE: usize = 4 << 10;
/// The maximum number of lines of one run of a hook that are logged.
const MAX_LINES: usize = 1000;
/// The prefix of volio's own variables.
const OWN: &str = "VOLIO_";

/// The variables of hooks, each with its meaning. A variable without a value is not set.
pub const VARIABLES: &[(&str, &str)] = &[
    ("VOLIO_EVENT", "the hook: before, after, on-error, before-publish or on-change"),
    ("VOLIO_IMAGE", "the image, as the command names it"),
    ("VOLIO_RESULT", "success, unchanged, failed, interrupted or killed; in --after and --on-error"),
    ("VOLIO_ERROR", "the message of the error, after a failure"),
    ("VOLIO_DIGEST", "the digest of the image that was packed or unpacked"),
    ("VOLIO_BYTES", "the number of bytes that were sent or fetched"),
    ("VOLIO_SECONDS", "the duration of the work in seconds"),
    ("VOLIO_DIRECTORY", "the directory with the new tree; in --before-publish and --on-change"),
];

/// A command of the user: a command line for `sh -c`, or a JSON array of words, which needs no shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The name of the option, without the dashes.
    event: &'static str,
    command: HookCommand,
    limit: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HookCommand {
    Shell(OsString),
    Words(Vec<String>),
}

/// The surroundings of all hooks.
#[derive(Clone)]
pub struct HookContext {
    /// The environment of hooks. Variables that begin with `VOLIO_` are not passed on: they are options of this program,
    /// which may be secret, and a volio that a hook starts would take them for its own.
    pub environment: Environment,
    /// The receiver of the output, line by line.
    pub log: Arc<dyn Log>,
}

/// The values of the variables of a hook.
#[derive(Clone, Debug, Default)]
pub struct Variables(Vec<(&'static str, OsString)>);

impl Variables {
    /// Adds a variable. An empty value counts as none.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.0.push((name, value));
        }
        self
    }
}

impl Hook {
    /// Creates a hook from the value of an option. `limit` is the maximum run time.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if it is empty, or begins like a JSON array and is none.
    pub fn new(event: &'static str, text: &OsStr, limit: Duration) -> Result<Self> {
        let wrong = |what: &str| {
            Err(Error::usage(format!("--{event} is not a command: {what}")).with_hint(
                r#"write a command line for a shell, or a JSON array of words: ["/bin/app", "-x"]"#,
            ))
        };
        let bytes = text.as_bytes().trim_ascii();
        if bytes.is_empty() {
            return wrong("it is empty");
        }
        if bytes.contains(&0) {
            return wrong("it contains a zero byte");
        }
        // `[ -e file ]` is a command line too.
        if !bytes.starts_with(b"[\"") {
            return Ok(Self { event, command: HookCommand::Shell(text.to_owned()), limit });
        }
        match serde_json::from_slice::<Vec<String>>(bytes) {
            Ok(words)
                if words.first().is_some_and(|word| !word.is_empty())
                    && !words.iter().any(|word| word.contains('\0')) =>
            {
                Ok(Self { event, command: HookCommand::Words(words), limit })
            }
            Ok(_) => wrong("it has an empty program or a zero byte"),
            Err(error) => wrong(&error.to_string()),
        }
    }

    /// Returns the name of the hook: that of its option without the dashes.
    pub fn event(&self) -> &'static str {
        self.event
    }

    /// Returns a digest that another command does not have. The command itself may hold secrets.
    pub(super) fn command_digest(&self) -> Digest {
        Digest::of(format!("{:?}", self.command).as_bytes())
    }

    /// Runs the hook in this directory, or that of the program, and waits for its end. Its output is logged.
    ///
    /// It runs in a process group of its own, which is ended by SIGTERM and then SIGKILL after the time limit, or when the
    /// token is cancelled.
    ///
    /// # Errors
    /// It cannot be started, does not end in time, is cancelled, or its exit status is not 0.
    pub fn run(
        &self,
        variables: &Variables,
        directory: Option<&Path>,
        context: &HookContext,
        cancel: &CancelToken,
    ) -> Result<()> {
        let failed = |why: String| Error::failed(format!("--{} failed: {why}", self.event));
        let mut command = self.command(context)?;
        command.env("VOLIO_EVENT", self.event).envs(variables.0.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        let mut lines = Lines::new(self.event, &*context.log);
        let ended = process::run(command, self.limit, cancel, |output| lines.receive(output));
        let last = lines.finish();
        match ended {
            Ok(Ended::Exited(status)) if status.success() => Ok(()),
            Ok(Ended::Exited(status)) => Err(failed(match last {
                Some(last) => format!("{}: {last}", process::describe_exit(status)),
                None => process::describe_exit(status),
            })),
            Ok(Ended::TimedOut) => {
                let limit = format!("it did not end within {} s, and was ended", self.limit.as_secs_f64());
                Err(failed(limit).with_hint("--hook-timeout sets the time limit of hooks"))
            }
            Ok(Ended::Cancelled) => Err(failed("interrupted".to_owned())),
            Err(error) => Err(Error::io(format!("--{}: cannot run it", self.event), error)),
        }
    }

    fn command(&self, context: &HookContext) -> Result<Command> {
        let path = context.environment.get("PATH").unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
        let (program, arguments): (&str, Vec<&OsStr>) = match &self.command {
            HookCommand::Shell(line) => ("sh", vec!["-c".as_ref(), line]),
            HookCommand::Words(words) => (&words[0], words[1..].iter().map(OsStr::new).collect()),
        };
        let file = process::find_program(program, path).ok_or_else(|| {
            let missing = Error::not_found(format!("--{}: the program {program:?} was not found", self.event));
            match self.command {
                HookCommand::Shell(_) => missing.with_hint(
                    r#"where there is no shell, write the command as a JSON array of words: ["/bin/app", "-x"]"#,
                ),
                HookCommand::Words(_) => missing.with_hint("name it with its whole path"),
            }
        })?;
        let mut command = Command::new(file);
        let inherited =
            context.environment.iter().filter(|(name, _)| !name.as_bytes().starts_with(OWN.as_bytes()));
        command.args(arguments).env_clear().envs(inherited);
        Ok(command)
    }
}

/// The output of a hook, cut into lines.
struct Lines<'a> {
    event: &'static str,
    log: &'a dyn Log,
    line: Vec<u8>,
    /// The number of lines so far.
    count: usize,
    /// The last line that is not empty.
    last: Option<String>,
}

impl<'a> Lines<'a> {
    fn new(event: &'static str, log: &'a dyn Log) -> Self {
        Self { event, log, line: Vec::new(), count: 0, last: None }
    }

    fn receive(&mut self, output: &[u8]) {
        for piece in output.split_inclusive(|b| *b == b'\n') {
            let (text, is_whole) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if is_whole {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if text.is_empty() {
            return;
        }
        self.count += 1;
        if self.count <= MAX_LINES {
            self.log.info("hook", &format!("{}: {text}", self.event));
        }
        self.last = Some(text);
    }

    /// Returns the last line.
    fn finish(mut self) -> Option<String> {
        self.end_line();
        if let Some(more @ 1..) = self.count.checked_sub(MAX_LINES) {
            let more = count(more as u64, "more line is", "more lines are");
            self.log.info("hook", &format!("{}: {more} not shown", self.event));
        }
        self.last
    }
}
