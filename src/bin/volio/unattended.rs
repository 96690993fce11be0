//! The options that `pack` and `unpack` share for running unattended: hooks, health and logs.

use crate::clock::SystemClock;
use crate::output::{self, LogFormat};
use crate::{environment, signal};
use clap::{Args, ValueHint};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use volio::error::Kind;
use volio::service::{
    HealthServer, Hook, HookContext, Hooks, JobState, Level, Line, Log, Runner, Status, Zone,
    is_in_container, parse_duration,
};
use volio::{Error, Location, Result};

/// The maximum size of a termination message in Kubernetes, in bytes.
const MAX_TERMINATION_MESSAGE: usize = 4096;

/// Options for a command that runs unattended.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Unattended options")]
pub struct UnattendedArgs {
    /// Run this before the work: a command line for sh -c, or a JSON array of words; if it fails, there is no work
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString)]
    before: Option<OsString>,

    /// Run this after the work, also if it failed, and at the next start if volio was killed
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString)]
    after: Option<OsString>,

    /// Run this after a failure
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString)]
    on_error: Option<OsString>,

    /// End a command of these, with all its processes, after this time
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub hook_timeout: Duration,

    /// Serve /healthz, /readyz and /metrics on this address; :PORT is all addresses
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,

    /// Print lines on stderr as text, or each as a JSON object
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log: LogFormat,

    /// Write the error to this file at the end, such as /dev/termination-log
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    termination_log: Option<PathBuf>,

    /// Note here which runs have begun and succeeded [default: volio in XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    state: Option<PathBuf>,
}

impl UnattendedArgs {
    /// Returns whether an option was given that changes how a single run is done.
    pub fn is_given(&self) -> bool {
        self.before.is_some()
            || self.after.is_some()
            || self.on_error.is_some()
            || self.listen.is_some()
            || self.termination_log.is_some()
            || self.log != LogFormat::Text
    }

    /// Returns whether `--after` was given, which needs a state.
    pub fn has_after(&self) -> bool {
        self.after.is_some()
    }

    /// Sets the format of the lines on stderr, which `--progress json` may have set too. To be called before the first
    /// line.
    pub fn set_log_format(&self) {
        if self.log == LogFormat::Json {
            output::set_format(LogFormat::Json);
        }
    }

    /// Checks the hooks.
    ///
    /// # Errors
    /// When one is not a command.
    pub fn check(&self) -> Result<()> {
        self.hooks().map(drop)
    }

    /// Returns the hooks of each run.
    ///
    /// # Errors
    /// When one is not a command.
    fn hooks(&self) -> Result<Hooks> {
        let hook = |event, text: &Option<OsString>| {
            text.as_ref().map(|text| Hook::new(event, text, self.hook_timeout)).transpose()
        };
        Ok(Hooks {
            before: hook("before", &self.before)?,
            after: hook("after", &self.after)?,
            on_error: hook("on-error", &self.on_error)?,
        })
    }

    /// Returns the surroundings of hooks.
    pub fn hook_context(&self, quiet: bool) -> HookContext {
        HookContext { environment: environment::process(), log: Arc::new(StderrLog { quiet }) }
    }

    /// Returns the runner for this image.
    ///
    /// # Errors
    /// When a hook is not a command.
    pub fn runner(&self, image: &Location, quiet: bool) -> Result<Runner> {
        Ok(Runner {
            hooks: self.hooks()?,
            context: self.hook_context(quiet),
            image: image.to_string(),
            clock: Arc::new(SystemClock),
        })
    }

    /// Opens the state of a job: the verb and the image. `None`, with a warning, if there is no place for it.
    ///
    /// # Errors
    /// When another process has the same job, or the directory that was named cannot be used.
    pub fn open_state(&self, verb: &str, image: &Location, runner: &Runner) -> Result<Option<JobState>> {
        let log = &*runner.context.log;
        let Some(directory) = self.state.clone().or_else(|| environment::state(environment::variable)) else {
            log.warning("state", &without_state("there is no home directory"));
            return Ok(None);
        };
        let job = match image.path() {
            Some(path) => {
                format!("{verb} {image} ({})", std::path::absolute(path).as_deref().unwrap_or(path).display())
            }
            None => format!("{verb} {image}"),
        };
        let opened = JobState::open(&directory, &job, &*runner.clock, log, &signal::stop_token());
        match opened {
            Err(error) if self.state.is_none() && ![Kind::Refused, Kind::Usage].contains(&error.kind()) => {
                log.warning("state", &without_state(&error.to_string()));
                Ok(None)
            }
            Ok(state) => {
                if self.state.is_none() && is_in_container(&directory) {
                    let place = directory.display();
                    log.info(
                        "state",
                        &format!(
                            "{place} is lost with this container; --state names a directory on a volume"
                        ),
                    );
                }
                Ok(Some(state))
            }
            opened => opened.map(Some),
        }
    }

    /// Starts the health endpoint, if there is to be one.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn serve_health(&self, status: &Arc<Status>, runner: &Runner) -> Result<Option<HealthServer>> {
        status.allow_for_hooks(self.hook_timeout);
        let Some(listen) = &self.listen else { return Ok(None) };
        let server = HealthServer::start(listen, Arc::clone(status), Arc::clone(&runner.clock))?;
        runner.context.log.info("health", &format!("health on http://{}", server.address()));
        Ok(Some(server))
    }

    /// Writes the error of the command to the file of `--termination-log`.
    pub fn write_termination_log(&self, error: &Error) {
        let Some(file) = &self.termination_log else { return };
        if let Err(error) = write_message(file, &error.to_string()) {
            output::warning(&format!("--termination-log: cannot write to {}: {error}", file.display()));
        }
    }
}

/// Returns the time zone of schedules.
///
/// # Errors
/// When `TZ` is not one.
pub fn zone() -> Result<Zone> {
    Zone::find(environment::variable("TZ").as_deref())
}

fn without_state(why: &str) -> String {
    format!(
        "no state is kept: {why}. If volio is killed, --after does not run at the next start, and a second volio for \
         this image is not noticed. --state names a directory for it"
    )
}

/// Writes a message to a file that exists, as the termination log of a container does, or to a new one.
fn write_message(file: &Path, message: &str) -> std::io::Result<()> {
    let end =
        (0..=MAX_TERMINATION_MESSAGE.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
    let mut open = OpenOptions::new().write(true).create(true).truncate(false).open(file)?;
    if fs::metadata(file)?.is_file() {
        open.set_len(0)?;
    }
    open.write_all(&message.as_bytes()[..end.unwrap_or_default()])
}

/// The log of verbs that run unattended: lines on stderr.
struct StderrLog {
    quiet: bool,
}

impl Log for StderrLog {
    fn line(&self, line: Line<'_>) {
        if !self.quiet || line.level == Level::Error {
            output::log(line.level, Some(line.topic), line.text, None);
        }
    }
}
