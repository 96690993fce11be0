//! Exit codes: what a script can do next. They are part of the interface and do not change.

use std::process::ExitCode;
use volio::error::Kind;

/// For the end of `volio --help`.
pub const TABLE: &str = "\
Exit codes:
    0  done
    1  failed: a network, a disk, a server
    2  usage: asking differently helps
    3  integrity: the data is not what its digest, size or format says
    4  not found
    5  denied: credentials or permissions do not suffice
    6  refused: the target holds something that would be lost
    7  differs: volio diff has found something
  130  interrupted; 143 by SIGTERM";

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It is done.
    Done = 0,
    /// It did not work, and nothing more particular is known.
    Failed = 1,
    /// What was asked makes no sense.
    Usage = 2,
    /// The data is not what it says.
    Integrity = 3,
    /// Something is not there.
    NotFound = 4,
    /// Credentials or permissions do not suffice.
    Denied = 5,
    /// The target must not be touched as it is.
    Refused = 6,
    /// What was compared is not the same.
    Differs = 7,
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Usage => Self::Usage,
            Kind::Integrity => Self::Integrity,
            Kind::NotFound => Self::NotFound,
            Kind::Denied => Self::Denied,
            Kind::Refused => Self::Refused,
            // The kinds of later versions of the library: a code of their own is a decision for this file.
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_table_that_users_read() {
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
