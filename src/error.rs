//! What can go wrong, told so that a person can act on it: what, where, which side, and a hint.

use std::error::Error as StdError;
use std::time::Duration;
use std::{fmt, io};

/// A result whose error is volio's own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One kind for each thing a caller could do differently; the program turns each into its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// It did not work, and nothing more particular is known: a network, a disk, a server that fails.
    Failed,
    /// What was asked makes no sense; asking differently helps.
    Usage,
    /// The data is not what its digest, its size or its format says.
    Integrity,
    /// The image, the blob, the file or the tag is not there.
    NotFound,
    /// Credentials or permissions do not suffice.
    Denied,
    /// The target holds something that would be lost or mixed up.
    Refused,
}

/// Which end of a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that is read.
    Source,
    /// The end that is written.
    Destination,
}

/// An error with its kind, the side that failed, its cause and a hint.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    side: Option<Side>,
    what: String,
    hint: Option<String>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
    again: Option<Duration>,
    status: Option<u16>,
}

impl Error {
    /// An error of the given kind; `what` says what could not be done, and with what.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, side: None, what: what.into(), hint: None, cause: None, again: None, status: None }
    }

    /// A failure with nothing more particular to say.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    /// A request that makes no sense.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// Data that is not what it says.
    pub fn integrity(what: impl Into<String>) -> Self {
        Self::new(Kind::Integrity, what)
    }

    /// Something that is not there.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, what)
    }

    /// Something that credentials or permissions do not allow.
    pub fn denied(what: impl Into<String>) -> Self {
        Self::new(Kind::Denied, what)
    }

    /// A target that must not be touched as it is.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(Kind::Refused, what)
    }

    /// An error of the operating system while doing `what`.
    ///
    /// An [`Error`] that travelled through [`Read`](io::Read) or [`Write`](io::Write) inside an
    /// [`io::Error`] comes out as it went in: a digest mismatch stays a digest mismatch.
    pub fn io(what: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = match error.into().downcast::<Error>() {
            Ok(ours) => return ours,
            Err(error) => error,
        };
        let (kind, hint) = match error.kind() {
            io::ErrorKind::NotFound => (Kind::NotFound, None),
            io::ErrorKind::PermissionDenied => (Kind::Denied, None),
            io::ErrorKind::StorageFull => {
                (Kind::Failed, Some("free some space there, or choose another place"))
            }
            io::ErrorKind::FileTooLarge => (
                Kind::Failed,
                Some("no file may be that large there: look at `ulimit -f`, or choose another place"),
            ),
            io::ErrorKind::QuotaExceeded => (Kind::Failed, Some("the quota there is used up")),
            io::ErrorKind::ReadOnlyFilesystem => (Kind::Failed, Some("choose a place that can be written")),
            _ => (Kind::Failed, None),
        };
        let report = Self::new(kind, what).because(error);
        match hint {
            Some(hint) => report.hint(hint),
            None => report,
        }
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The same error with what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with the side that failed, unless it is known already.
    #[must_use]
    pub fn on(mut self, side: Side) -> Self {
        self.side.get_or_insert(side);
        self
    }

    /// The same error as one that may be gone when the same is tried again, after this time at the earliest.
    #[must_use]
    pub fn again_after(mut self, wait: Duration) -> Self {
        self.again = Some(wait);
        self
    }

    /// How long to wait at least before trying again; `None` when that would not help.
    pub fn again(&self) -> Option<Duration> {
        self.again
    }

    /// The same error with the status by which a server said no.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The status by which a server said no, where one did.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// What a caller could do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The end of the transfer that failed, where there are two.
    pub fn side(&self) -> Option<Side> {
        self.side
    }

    /// What the user can do about it, where that is known.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What caused it, where that is known.
    pub fn cause(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.cause.as_deref()
    }

    /// Whether this only says that the other end of a pipe is gone; its own error is then the one to report.
    pub fn is_broken_pipe(&self) -> bool {
        self.cause
            .as_ref()
            .and_then(|cause| cause.downcast_ref::<io::Error>())
            .is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.side {
            Some(Side::Source) => f.write_str("source: ")?,
            Some(Side::Destination) => f.write_str("destination: ")?,
            None => {}
        }
        f.write_str(&self.what)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    // The cause is part of the message; naming it as the source too would print it twice.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_ref().and_then(|cause| cause.source())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

/// Whether a terminal could obey this character, or a reader be misled by it because it turns the direction of
/// writing: names and words that come from an image or a server are shown with it escaped.
pub fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_a_journey_through_io() {
        let inner = Error::integrity("blob is short").hint("fetch it again");
        let outer = Error::io("cannot read the layer", io::Error::from(inner));
        assert_eq!(outer.kind(), Kind::Integrity);
        assert_eq!(outer.to_string(), "blob is short");
        assert_eq!(outer.advice(), Some("fetch it again"));
    }

    #[test]
    fn the_side_that_failed_first_is_kept() {
        let error = Error::failed("cannot read").on(Side::Source).on(Side::Destination);
        assert_eq!(error.to_string(), "source: cannot read");
    }
}
