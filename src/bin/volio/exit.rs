//! Exit codes. They are part of the interface and do not change.

use crate::signal;
use std::process::ExitCode;
use volio::error::Kind;

/// The table at the end of `volio --help`.
pub const TABLE: &str = "\
Exit codes:
    0  done
    1  failed: a network, a disk, a server
    2  usage: the arguments are invalid
    3  integrity: the data is not what its digest, size or format says
    4  not found
    5  denied: credentials or permissions do not suffice
    6  refused: the target holds something that would be lost
    7  differs: volio diff has found something
  130  interrupted; 143 by SIGTERM";

/// The exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// A failure without a more specific code.
    Failed = 1,
    /// Invalid arguments.
    Usage = 2,
    /// Data with a wrong digest, size or format.
    Integrity = 3,
    /// An image, a file or a directory that does not exist.
    NotFound = 4,
    /// Insufficient credentials or permissions.
    Denied = 5,
    /// A target that would lose data.
    Refused = 6,
    /// Differences found by `volio diff`.
    Differs = 7,
    /// An interruption by a signal. The code is 128 plus the number of the signal.
    Interrupted = 130,
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Usage => Self::Usage,
            Kind::Integrity => Self::Integrity,
            Kind::NotFound => Self::NotFound,
            Kind::Denied => Self::Denied,
            Kind::Refused => Self::Refused,
            // `Kind` may grow. A new exit code for a new kind is a decision that is made here.
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Interrupted => Self::from(signal::received().unwrap_or(exit as u8)),
            _ => Self::from(exit as u8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_table() {
        for exit in [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Integrity,
            Exit::NotFound,
            Exit::Denied,
            Exit::Refused,
            Exit::Differs,
        ] {
            let line = format!("\n    {}  ", exit as u8);
            assert!(TABLE.contains(&line), "{exit:?}");
        }
    }
}
