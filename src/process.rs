//! Child processes in process groups of their own, with a time limit, whose output is received while they run.
//!
//! The whole group is ended after the time limit: also the processes that a shell started. A process that begins a
//! session of its own (`setsid`) leaves the group, and is not reached.

use crate::stream::CancelToken;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process_group, waitid, waitpgid, waitpid,
};
use std::ffi::OsStr;
use std::io::{self, PipeReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// The time between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// The longest pause between two looks at a process.
const PAUSE: Duration = Duration::from_millis(50);
/// The time for which output is still received after the end of a process: others may keep the pipe open.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// The end of a child process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process ended by itself.
    Exited(ExitStatus),
    /// Its process group was ended after the time limit.
    TimedOut,
    /// Its process group was ended after the cancellation.
    Cancelled,
}

/// Runs a command with an empty standard input, in a process group of its own, and waits for its end. `receive` gets what
/// it writes to standard output and standard error, in pieces.
///
/// # Errors
/// The command cannot be started.
pub(crate) fn run(
    mut command: Command,
    limit: Duration,
    cancel: &CancelToken,
    mut receive: impl FnMut(&[u8]),
) -> io::Result<Ended> {
    let (output, writer) = io::pipe()?;
    ioctl_fionbio(&output, true)?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let child = command.spawn()?;
    // `command` holds write ends of the pipe, which must close with the child.
    drop(command);
    let mut group = Group { child, output: Some(output) };
    let stop = group.wait(limit, cancel, &mut receive)?;
    if stop.is_some() {
        group.signal(Signal::TERM);
        group.wait(TERM_GRACE, &CancelToken::default(), &mut receive)?;
        // Before the process is waited for: until then no other group can get its number.
        group.signal(Signal::KILL);
    }
    let status = group.child.wait()?;
    group.receive_last(&mut receive);
    group.reap();
    if process::id() == 1 {
        reap_orphans();
    }
    Ok(stop.unwrap_or(Ended::Exited(status)))
}

/// Describes the exit status of a process that failed.
pub(crate) fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
    }
}

/// Returns the file of a program: its path if it has a slash, otherwise the first match on the search path.
pub(crate) fn find_program(program: &str, search_path: &OsStr) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let directories = search_path.as_bytes().split(|b| *b == b':').filter(|directory| !directory.is_empty());
    directories.map(|directory| Path::new(OsStr::from_bytes(directory)).join(program)).find(is_program)
}

/// A child and the processes that it has started.
struct Group {
    child: Child,
    /// `None` after all writers have closed it.
    output: Option<PipeReader>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        // The group may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }

    /// Waits for the end of the child, which remains a zombie. Returns the reason if the wait ends before.
    fn wait(
        &mut self,
        limit: Duration,
        cancel: &CancelToken,
        receive: &mut impl FnMut(&[u8]),
    ) -> io::Result<Option<Ended>> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        while !self.has_ended()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Some(Ended::TimedOut));
            }
            if cancel.is_cancelled() {
                return Ok(Some(Ended::Cancelled));
            }
            self.receive(pause.min(left), receive);
            // Short commands are noticed quickly; for long ones 50 ms do not matter.
            pause = (pause * 2).min(PAUSE);
        }
        Ok(None)
    }

    fn has_ended(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(Pid::from_child(&self.child)), options)?.is_some())
    }

    /// Receives output that comes within this time, at most one piece.
    fn receive(&mut self, time: Duration, receive: &mut impl FnMut(&[u8])) {
        let Some(output) = &mut self.output else { return thread::sleep(time) };
        let timeout = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&timeout));
        let mut buffer = [0; 4 << 10];
        match output.read(&mut buffer) {
            Ok(0) => self.output = None,
            Ok(length) => receive(&buffer[..length]),
            Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {
            }
            Err(_) => self.output = None,
        }
    }

    /// Receives what is left in the pipe.
    fn receive_last(&mut self, receive: &mut impl FnMut(&[u8])) {
        let end = Instant::now() + LAST_OUTPUT;
        while self.output.is_some() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.receive(left, receive);
        }
    }

    /// Waits for processes of the group that this process has inherited, as the first process of a container does.
    fn reap(&self) {
        while matches!(waitpgid(Pid::from_child(&self.child), WaitOptions::NOHANG), Ok(Some(_))) {}
    }
}

/// Waits for processes that have ended and that this process, as the first one of a container, has inherited: those that a
/// hook has left in other sessions and groups. Children that this process has started itself are in its session, and lead
/// their groups or are in its own one: the code that has started them waits for them.
fn reap_orphans() {
    // The session may be one outside of the container, with the number 0.
    let Some(own) = stat(getpid()) else { return };
    let Ok(processes) = fs::read_dir("/proc") else { return };
    let names = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for pid in names.filter_map(|name| Pid::from_raw(name.parse().ok()?)) {
        let Some(found) = stat(pid) else { continue };
        let leads_group = found.group == pid.as_raw_nonzero().get();
        let is_own_child = found.session == own.session && (leads_group || found.group == own.group);
        if found.is_zombie && found.parent == 1 && !is_own_child {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// What `/proc/PID/stat` says about a process.
struct Stat {
    is_zombie: bool,
    parent: i32,
    group: i32,
    session: i32,
}

fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero().get())).ok()?;
    // The name of the program, in parentheses, may have any characters.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let is_zombie = fields.next()? == "Z";
    let mut number = || fields.next()?.parse().ok();
    Some(Stat { is_zombie, parent: number()?, group: number()?, session: number()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    fn is_running(pid: &str) -> bool {
        // A zombie has ended.
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn the_output_of_a_command_is_received_to_its_end() {
        let mut output = Vec::new();
        let script = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; echo last >&2; exit 3";
        let ended =
            run(shell(script), LONG, &CancelToken::default(), |bytes| output.extend_from_slice(bytes));
        assert!(matches!(ended, Ok(Ended::Exited(status)) if describe_exit(status) == "exit status 3"));
        assert!(output.ends_with(b"line 4999\nlast\n"));
    }

    #[test]
    fn processes_that_ignore_sigterm_end_with_their_group() {
        for cancelled in [false, true] {
            let cancel = CancelToken::default();
            let mut output = Vec::new();
            let script = "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo $$ $!; wait";
            let limit = if cancelled { LONG } else { Duration::from_millis(300) };
            let ended = run(shell(script), limit, &cancel, |bytes| {
                output.extend_from_slice(bytes);
                if cancelled {
                    cancel.cancel();
                }
            });
            assert_eq!(ended.unwrap(), if cancelled { Ended::Cancelled } else { Ended::TimedOut });
            let output = String::from_utf8(output).unwrap();
            let pids: Vec<&str> = output.split_whitespace().collect();
            assert_eq!(pids.len(), 2, "{output}");
            for pid in pids {
                let end = Instant::now() + Duration::from_secs(10);
                while is_running(pid) {
                    assert!(Instant::now() < end, "{pid} runs");
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    #[test]
    fn a_process_that_keeps_the_output_open_is_not_waited_for() {
        let begun = Instant::now();
        let mut output = Vec::new();
        let ended = run(shell("sleep 60 & echo $!"), LONG, &CancelToken::default(), |bytes| {
            output.extend_from_slice(bytes);
        });
        assert!(matches!(ended, Ok(Ended::Exited(status)) if status.success()));
        assert!(begun.elapsed() < Duration::from_secs(30));
        let pid = String::from_utf8(output).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn a_command_that_writes_without_end_is_ended() {
        let ended = run(shell("yes"), Duration::from_millis(200), &CancelToken::default(), |_| {});
        assert_eq!(ended.unwrap(), Ended::TimedOut);
    }
}
