//! An image that is to be had at several places: the first that gives it is taken, for each document and each blob,
//! so that a mirror may be gone, or hold only a part.

use super::Registry;
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Document};
use crate::stream::Unverified;
use crate::transport::{Origin, Source, Told};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// The same image at several places, best first; the last one is the registry itself.
pub(super) struct Mirrored {
    places: Vec<Place>,
    told: Told,
}

struct Place {
    registry: Registry,
    /// It does not work: who waited for it once does not wait again.
    gone: AtomicBool,
}

impl Mirrored {
    pub(super) fn new(registries: Vec<Registry>, told: Told) -> Self {
        let places = registries.into_iter().map(|registry| Place { registry, gone: AtomicBool::new(false) });
        Self { places: places.collect(), told }
    }

    /// The registry itself, for lists: that of a mirror need not be complete, and nobody would notice.
    fn itself(&self) -> Result<&Registry> {
        self.places.last().map(|place| &place.registry).ok_or_else(nowhere)
    }

    /// The first success; a mirror that fails is told and passed over.
    fn first<T>(&self, attempt: impl Fn(&Registry) -> Result<T>) -> Result<T> {
        let Some((itself, mirrors)) = self.places.split_last() else {
            return Err(nowhere());
        };
        for mirror in mirrors.iter().filter(|mirror| !mirror.gone.load(Ordering::Relaxed)) {
            match attempt(&mirror.registry) {
                // That it does not have everything is a mirror's nature.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => {
                    if !mirror.gone.swap(true, Ordering::Relaxed) {
                        let name = mirror.registry.reference.name();
                        self.told.tell(&format!("the mirror {name} is passed over: {error}"));
                    }
                }
                found => return found,
            }
        }
        attempt(&itself.registry)
    }
}

fn nowhere() -> Error {
    Error::failed("there is no place to read the image from")
}

impl Source for Mirrored {
    fn resolve(&self) -> Result<Document> {
        self.first(Source::resolve)
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        self.first(|place| place.open(descriptor))
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        self.first(|place| place.open_range(blob, range.clone()))
    }

    fn tags(&self) -> Result<Vec<String>> {
        self.itself()?.tags()
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.itself()?.referrers(subject)
    }

    fn origin(&self) -> Option<Origin> {
        // What a mirror has, its own registry may have under no name that we know.
        self.places.last().and_then(|place| place.registry.origin())
    }
}
