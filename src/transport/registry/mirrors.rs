//! An image that is to be had at several places: the first that gives it is taken, for each document and each blob,
//! so that a mirror may be gone, or hold only a part. One that breaks off in the middle of a blob is followed by the next
//! one, which goes on from there; the digest proves what both have sent.

use super::Registry;
use super::download::Incoming;
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Document};
use crate::progress::Progress;
use crate::stream::Unverified;
use crate::transport::{Origin, Source, with_foreign_urls};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The same image at several places, best first; the last one is the registry itself.
#[derive(Clone)]
pub(super) struct Mirrored {
    places: Arc<[Place]>,
    progress: Arc<dyn Progress>,
}

struct Place {
    registry: Registry,
    /// It does not work: who waited for it once does not wait again.
    gone: AtomicBool,
}

impl Mirrored {
    pub(super) fn new(registries: Vec<Registry>, progress: Arc<dyn Progress>) -> Self {
        let places = registries.into_iter().map(|registry| Place { registry, gone: AtomicBool::new(false) });
        Self { places: places.collect(), progress }
    }

    /// The registry itself, for lists: that of a mirror need not be complete, and nobody would notice.
    fn itself(&self) -> Result<&Registry> {
        self.places.last().map(|place| &place.registry).ok_or_else(nowhere)
    }

    /// The first success, and at which place; a mirror that fails is skipped with a warning.
    fn first<T>(&self, attempt: impl Fn(&Registry) -> Result<T>) -> Result<(usize, T)> {
        let Some((itself, mirrors)) = self.places.split_last() else {
            return Err(nowhere());
        };
        for (number, mirror) in mirrors.iter().enumerate() {
            if mirror.gone.load(Ordering::Relaxed) {
                continue;
            }
            match attempt(&mirror.registry) {
                // That it does not have everything is a mirror's nature.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => self.pass_over(mirror, &error),
                Ok(found) => return Ok((number, found)),
            }
        }
        Ok((mirrors.len(), attempt(&itself.registry)?))
    }

    fn pass_over(&self, mirror: &Place, error: &Error) {
        if !mirror.gone.swap(true, Ordering::Relaxed) {
            let name = mirror.registry.reference.name();
            self.progress.warn(&format!("the mirror {name} is passed over: {error}"));
        }
    }

    /// Begins to fetch a blob somewhere.
    fn begin(&self, descriptor: &Descriptor, position: u64) -> Result<Relay> {
        let (place, bytes) = self.first(|registry| registry.download(descriptor).begin_surely(position))?;
        Ok(Relay { places: self.clone(), descriptor: descriptor.clone(), place, bytes, position })
    }
}

fn nowhere() -> Error {
    Error::failed("there is no place to read the image from")
}

/// A blob from one place after the other.
struct Relay {
    places: Mirrored,
    descriptor: Descriptor,
    /// Which place it comes from.
    place: usize,
    bytes: Incoming,
    position: u64,
}

impl Read for Relay {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.bytes.read(buffer);
            let is_last = self.place + 1 == self.places.places.len();
            let error = match read {
                Ok(0) if self.position < self.descriptor.size && !buffer.is_empty() && !is_last => {
                    Error::failed(format!("{} has fewer bytes there", self.descriptor.digest))
                }
                Err(error) if !is_last => Error::io("cannot read from it", error),
                read => {
                    return read.inspect(|read| self.position += *read as u64);
                }
            };
            self.places.pass_over(&self.places.places[self.place], &error);
            *self = self.places.begin(&self.descriptor, self.position)?;
        }
    }
}

impl Source for Mirrored {
    fn resolve(&self) -> Result<Document> {
        self.first(Source::resolve).map(|(_, document)| document)
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        let first = self.begin(descriptor, 0).map_err(|error| with_foreign_urls(descriptor, error))?;
        let (descriptor, places) = (descriptor.clone(), self.clone());
        Ok(Unverified::new(first).reopenable(move |offset| Ok(Box::new(places.begin(&descriptor, offset)?))))
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        self.first(|place| place.open_range(blob, range.clone())).map(|(_, part)| part)
    }

    fn tags(&self) -> Result<Vec<String>> {
        self.itself()?.tags()
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.itself()?.referrers(subject)
    }

    fn attachments(&self, subject: &Digest) -> Result<Vec<(String, Document)>> {
        self.itself()?.attachments(subject)
    }

    fn origin(&self) -> Option<Origin> {
        // What a mirror has, its own registry may have under no name that we know.
        self.places.last().and_then(|place| place.registry.origin())
    }
}
