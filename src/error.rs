//! Errors that a person can act on: what failed, where, on which side, why, and what to do.

use std::error::Error as StdError;
use std::time::Duration;
use std::{fmt, io};

/// A [`Result`](std::result::Result) with volio's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The classes of errors: one for each thing that a caller could do differently. The program maps each to an exit
/// code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Any failure without a more specific kind: of a network, a disk or a server.
    Failed,
    /// Invalid arguments.
    Usage,
    /// Data that does not match its digest, its size or its format.
    Integrity,
    /// An image, blob, file or tag that does not exist.
    NotFound,
    /// Missing credentials or permissions.
    Denied,
    /// A target with content that would be lost or mixed up.
    Refused,
}

/// The end of a transfer that failed.
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
    retry_after: Option<Duration>,
    status: Option<u16>,
    missing_tag: Option<Box<str>>,
}

impl Error {
    /// Creates an error of the given kind. `what` names the operation that failed and its object.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            side: None,
            what: what.into(),
            hint: None,
            cause: None,
            retry_after: None,
            status: None,
            missing_tag: None,
        }
    }

    /// Creates an error of the kind [`Kind::Failed`].
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    /// Creates an error of the kind [`Kind::Usage`].
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// Creates an error of the kind [`Kind::Integrity`].
    pub fn integrity(what: impl Into<String>) -> Self {
        Self::new(Kind::Integrity, what)
    }

    /// Creates an error of the kind [`Kind::NotFound`].
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, what)
    }

    /// Creates an error of the kind [`Kind::Denied`].
    pub fn denied(what: impl Into<String>) -> Self {
        Self::new(Kind::Denied, what)
    }

    /// Creates an error of the kind [`Kind::Refused`].
    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(Kind::Refused, what)
    }

    /// Creates an error from one of the operating system that occurred while doing `what`.
    ///
    /// An [`Error`] that travelled through [`Read`](io::Read) or [`Write`](io::Write) inside an
    /// [`io::Error`] is returned unchanged, so that a digest mismatch stays a digest mismatch.
    pub fn io(what: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = match Self::from_io(error.into()) {
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
        let report = Self::new(kind, what).with_source(error);
        match hint {
            Some(hint) => report.with_hint(hint),
            None => report,
        }
    }

    /// Extracts an [`Error`] that travelled through [`Read`](io::Read) or [`Write`](io::Write) inside an [`io::Error`].
    ///
    /// # Errors
    /// Returns the [`io::Error`] itself if it holds no [`Error`].
    pub fn from_io(error: io::Error) -> Result<Self, io::Error> {
        error.downcast()
    }

    /// Wraps the error in one that says what was being done. Its kind, side, hint, status, retry delay and
    /// missing tag stay the same.
    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Self {
        let (side, hint) = (self.side.take(), self.hint.take());
        let missing_tag = self.missing_tag.take();
        let Self { kind, retry_after, status, .. } = self;
        Self { side, hint, retry_after, status, missing_tag, ..Self::new(kind, what).with_source(self) }
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds advice for the user.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the side that failed, unless one was added before.
    #[must_use]
    pub fn on(mut self, side: Side) -> Self {
        self.side.get_or_insert(side);
        self
    }

    /// Marks the error as retryable, no sooner than after `wait`.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Returns the minimum wait before a retry; `None` if a retry does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Adds the HTTP status with which a server rejected the request.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Returns the HTTP status with which a server rejected the request, if one did.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Says that the error is that no image has this tag, in a place that may have others.
    #[must_use]
    pub fn with_missing_tag(mut self, tag: &str) -> Self {
        self.missing_tag = Some(tag.into());
        self
    }

    /// Returns the tag, if the error is that no image has it. In an archive of Docker's it is the full name.
    pub fn missing_tag(&self) -> Option<&str> {
        self.missing_tag.as_deref()
    }

    /// Returns the class of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the end of the transfer that failed, if there are two ends.
    pub fn side(&self) -> Option<Side> {
        self.side
    }

    /// Returns the advice for the user, if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the error that caused this one, if known.
    pub fn cause(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.cause.as_deref()
    }

    /// Returns whether this is a broken pipe. The root cause is then the error of the pipe's other end.
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
    // Display prints the cause already; returning it here would make most reporters print it twice.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_ref().and_then(|cause| cause.source())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

/// Returns whether a character could control a terminal or reverse the direction of writing. Text that comes from an
/// image or a server is shown with these characters escaped.
pub fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_passes_through_io_unchanged() {
        let inner = Error::integrity("blob is short").with_hint("fetch it again");
        let outer = Error::io("cannot read the layer", io::Error::from(inner));
        assert_eq!(outer.kind(), Kind::Integrity);
        assert_eq!(outer.to_string(), "blob is short");
        assert_eq!(outer.hint(), Some("fetch it again"));
    }

    #[test]
    fn context_keeps_what_a_caller_decides_by() {
        let inner = Error::denied("not allowed")
            .with_hint("log in")
            .on(Side::Source)
            .with_status(403)
            .with_missing_tag("v1")
            .with_retry_after(Duration::ZERO);
        let outer = inner.context("cannot fill the volume");
        assert_eq!(outer.to_string(), "source: cannot fill the volume: not allowed");
        assert_eq!((outer.kind(), outer.side()), (Kind::Denied, Some(Side::Source)));
        assert_eq!((outer.status(), outer.retry_after()), (Some(403), Some(Duration::ZERO)));
        assert_eq!((outer.hint(), outer.missing_tag()), (Some("log in"), Some("v1")));
    }

    #[test]
    fn the_first_side_that_is_named_is_kept() {
        let error = Error::failed("cannot read").on(Side::Source).on(Side::Destination);
        assert_eq!(error.to_string(), "source: cannot read");
    }
}
