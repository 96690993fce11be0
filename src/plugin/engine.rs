//! The processes of engines, identified by the other end of a connection. An engine that was killed never reports which
//! containers are gone, so its mounts are dropped with the process.

use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The initial PID namespace, `PROC_PID_INIT_INO` of the kernel.
const INITIAL_NAMESPACE: &str = "pid:[4026531836]";

/// The process of an engine, identified by pid and start time, because pids are reused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Engine {
    pid: i32,
    /// The start time, in ticks since the boot.
    started: u64,
}

impl Engine {
    /// Returns the process at the other end of a connection, or `None` if it is not known.
    pub(super) fn of(stream: &UnixStream) -> Option<Self> {
        // In another PID namespace the process may have no pid, for which rustix has no type.
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        if namespace != Path::new(INITIAL_NAMESPACE) {
            return None;
        }
        Self::of_process(socket_peercred(stream).ok()?.pid.as_raw_nonzero().get())
    }

    /// Returns a running process.
    pub(super) fn of_process(pid: i32) -> Option<Self> {
        Some(Self { pid, started: started(pid)? })
    }

    /// Returns `true` if the process has ended.
    pub(super) fn is_gone(&self) -> bool {
        started(self.pid) != Some(self.started)
    }
}

/// Returns the start time of a process, or `None` if it has ended. See proc_pid_stat(5).
fn started(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may contain parentheses.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" | "x" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_there_until_it_ends_and_another_one_is_not_it() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let engine = Engine::of_process(pid).unwrap();
        assert!(!engine.is_gone());
        assert!(Engine { started: engine.started + 1, ..engine.clone() }.is_gone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(engine.is_gone());
    }
}
