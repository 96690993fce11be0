//! The context in which the layers of an image are read: the source, the limits, and a way to end all reads at once.

use crate::error::Result;
use crate::layer::{Limits, Meter};
use crate::oci::Descriptor;
use crate::progress::{Phase, Progress, TaskInfo};
use crate::stream::{Body, CancelToken};
use crate::transport::Source;

/// The source of an image, and what its layers are read with.
pub struct ReadContext<'a> {
    source: &'a dyn Source,
    /// The same source; its reads end when `cancel` is cancelled.
    cancellable: Option<Box<dyn Source + 'a>>,
    pub(super) cancel: CancelToken,
    limits: Limits,
    pub(super) meter: Meter,
    pub(super) progress: &'a dyn Progress,
}

impl<'a> ReadContext<'a> {
    /// Creates a context. `meter` bounds the plain content that is read.
    pub fn new(source: &'a dyn Source, limits: Limits, meter: Meter, progress: &'a dyn Progress) -> Self {
        let cancel = CancelToken::default();
        Self { source, cancellable: source.cancelled_by(&cancel), cancel, limits, meter, progress }
    }

    /// The source to read from.
    pub fn source(&self) -> &dyn Source {
        self.cancellable.as_deref().unwrap_or(self.source)
    }

    /// The limits on what the image may make the program remember.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Opens a blob as it is stored. The reader fails at its end unless it has the size and the digest of the descriptor.
    /// `phase` says in the progress what is done.
    ///
    /// # Errors
    /// Those of the source.
    pub fn blob(&self, blob: &Descriptor, phase: Phase) -> Result<Body> {
        let task = self.progress.begin(&TaskInfo::new(phase).of_blob(&blob.digest).with_total(blob.size));
        let body = self.source().open(blob)?.verify(blob);
        Ok(body.on_read(move |bytes| task.advance(bytes)).on_read(self.meter.stored()))
    }

    /// Ends all reads that are in progress if `outcome` is an error. The threads of these reads are joined next, which would
    /// otherwise take as long as a stalled registry is waited for.
    pub(super) fn cancel_after_error<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.inspect_err(|_| self.cancel.cancel())
    }
}
