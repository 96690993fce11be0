//! Reading an image from mirrors.
//!
//! The mirrors are tried in order and the registry last, for each document and each blob, so that a mirror may be
//! unavailable or incomplete. If one fails in the middle of a blob, the next one continues at that offset: the digest proves
//! the bytes of both.

use super::Registry;
use super::download::DownloadReader;
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Document};
use crate::progress::Progress;
use crate::stream::{CancelToken, Unverified};
use crate::transport::{Origin, Source, with_foreign_urls};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An image that is read from mirrors and its registry.
#[derive(Clone)]
pub(super) struct MirroredSource {
    /// The mirrors in order, and last the registry itself.
    mirrors: Arc<[Mirror]>,
    progress: Arc<dyn Progress>,
}

struct Mirror {
    registry: Registry,
    /// Set after the first failure. A mirror that failed is not tried again.
    has_failed: AtomicBool,
}

impl MirroredSource {
    /// Returns a source with these registries, the image's own last.
    pub(super) fn new(registries: Vec<Registry>, progress: Arc<dyn Progress>) -> Self {
        let mirrors =
            registries.into_iter().map(|registry| Mirror { registry, has_failed: AtomicBool::new(false) });
        Self { mirrors: mirrors.collect(), progress }
    }

    /// Returns the registry itself. It answers for lists, because those of a mirror may be incomplete.
    fn registry(&self) -> Result<&Registry> {
        self.mirrors.last().map(|mirror| &mirror.registry).ok_or_else(no_registry)
    }

    /// Returns the first success, and the number of its mirror. A mirror that fails is skipped with a warning.
    fn first<T>(&self, attempt: impl Fn(&Registry) -> Result<T>) -> Result<(usize, T)> {
        let Some((last, mirrors)) = self.mirrors.split_last() else {
            return Err(no_registry());
        };
        for (number, mirror) in mirrors.iter().enumerate() {
            if mirror.has_failed.load(Ordering::Relaxed) {
                continue;
            }
            match attempt(&mirror.registry) {
                // Mirrors need not be complete.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => self.skip(mirror, &error),
                Ok(found) => return Ok((number, found)),
            }
        }
        Ok((mirrors.len(), attempt(&last.registry)?))
    }

    fn skip(&self, mirror: &Mirror, error: &Error) {
        let is_cancelled = mirror.registry.cancel.is_cancelled();
        if !is_cancelled && !mirror.has_failed.swap(true, Ordering::Relaxed) {
            let name = mirror.registry.reference.name();
            self.progress.warn(&format!("the mirror {name} is passed over: {error}"));
        }
    }

    /// Begins to download a blob from the first mirror that has it.
    fn begin(&self, descriptor: &Descriptor, position: u64) -> Result<FailoverReader> {
        let (mirror, bytes) = self.first(|registry| registry.download(descriptor).begin_at(position))?;
        Ok(FailoverReader { source: self.clone(), descriptor: descriptor.clone(), mirror, bytes, position })
    }
}

fn no_registry() -> Error {
    Error::failed("there is no place to read the image from")
}

/// A blob that is read from one mirror after the other.
struct FailoverReader {
    source: MirroredSource,
    descriptor: Descriptor,
    /// The number of the current mirror.
    mirror: usize,
    bytes: DownloadReader,
    position: u64,
}

impl Read for FailoverReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.bytes.read(buffer);
            let is_last = self.mirror + 1 == self.source.mirrors.len();
            let error = match read {
                Ok(0) if self.position < self.descriptor.size && !buffer.is_empty() && !is_last => {
                    Error::failed(format!("{} has fewer bytes there", self.descriptor.digest))
                }
                Err(error) if !is_last => Error::io("cannot read from it", error),
                read => {
                    return read.inspect(|read| self.position += *read as u64);
                }
            };
            self.source.skip(&self.source.mirrors[self.mirror], &error);
            *self = self.source.begin(&self.descriptor, self.position)?;
        }
    }
}

impl Source for MirroredSource {
    fn resolve(&self) -> Result<Document> {
        self.first(Source::resolve).map(|(_, document)| document)
    }

    fn resolve_again(&self, known: &Document) -> Result<Document> {
        self.first(|registry| registry.resolve_again(known)).map(|(_, document)| document)
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        let first = self.begin(descriptor, 0).map_err(|error| with_foreign_urls(descriptor, error))?;
        let (descriptor, source) = (descriptor.clone(), self.clone());
        Ok(Unverified::new(first).reopenable(move |offset| Ok(Box::new(source.begin(&descriptor, offset)?))))
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        self.first(|registry| registry.open_range(blob, range.clone())).map(|(_, part)| part)
    }

    fn tags(&self) -> Result<Vec<String>> {
        self.registry()?.tags()
    }

    fn first_tags(&self) -> Result<Vec<String>> {
        self.registry()?.first_tags()
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.registry()?.referrers(subject)
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        Source::tagged(self.registry()?, tag)
    }

    fn cancelled_by(&self, cancel: &CancelToken) -> Option<Box<dyn Source + '_>> {
        let mirrors = self.mirrors.iter().map(|Mirror { registry, has_failed }| Mirror {
            registry: registry.with_cancel(cancel),
            has_failed: AtomicBool::new(has_failed.load(Ordering::Relaxed)),
        });
        Some(Box::new(Self { mirrors: mirrors.collect(), progress: Arc::clone(&self.progress) }))
    }

    fn origin(&self) -> Option<Origin> {
        // The image has another name at a mirror, which its registry does not know.
        self.mirrors.last().and_then(|mirror| mirror.registry.origin())
    }
}
