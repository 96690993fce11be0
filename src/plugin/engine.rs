//! Engines as processes: the other end of a connection. An engine that was killed never says which of its containers are
//! gone, so the mounts that it counted end with it.

use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The initial namespace of process ids, `PROC_PID_INIT_INO` of the kernel.
const INITIAL_NAMESPACE: &str = "pid:[4026531836]";

/// The process of an engine. Its id is used again some day, and not with the same time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Engine {
    pid: i32,
    /// When it was started, in ticks since the boot.
    started: u64,
}

impl Engine {
    /// The process at the other end of a connection; `None` where it cannot be known.
    pub(super) fn of(stream: &UnixStream) -> Option<Self> {
        // Elsewhere the process may have no id that is known here, which rustix has no type for.
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        if namespace != Path::new(INITIAL_NAMESPACE) {
            return None;
        }
        Self::of_process(socket_peercred(stream).ok()?.pid.as_raw_nonzero().get())
    }

    /// A process that has not ended.
    pub(super) fn of_process(pid: i32) -> Option<Self> {
        Some(Self { pid, started: started(pid)? })
    }

    /// Whether the process has ended.
    pub(super) fn is_gone(&self) -> bool {
        started(self.pid) != Some(self.started)
    }
}

/// When a process was started; `None` when it has ended. See proc_pid_stat(5).
fn started(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may hold anything, also parentheses.
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
