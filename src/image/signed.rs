//! A source of which only signed images can be read.

use super::platform::select;
use crate::error::{Kind, Result};
use crate::oci::{Descriptor, Digest, Document, Platform, media_type};
use crate::stream::{CancelToken, Unverified};
use crate::transport::{Location, Origin, Source};
use crate::trust::{Requirement, SignaturePolicy, ensure_signed};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The part of an image that is used, and so must be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedPart {
    /// The whole image. Its index must be signed.
    Whole,
    /// The image for one platform; by default the host's. The signature of its manifest is enough, as for podman and skopeo.
    /// The image is then that manifest.
    Platform(Option<Platform>),
}

/// A source whose name stands only for a document that satisfies a signature policy. Everything else of an image is read by
/// the digests in that document, so what was verified is what is used.
pub struct SignedSource<'a> {
    source: Box<dyn Source + 'a>,
    judge: Arc<Judge>,
    cache: Arc<VerificationCache>,
}

/// The last image that was verified, for programs that look at the same name again and again. While the name means the same
/// document and the policy has the same requirements, [`SignedSource::resolve_again`] does not verify it again.
#[derive(Debug, Default)]
pub struct VerificationCache(Mutex<Option<Verified>>);

/// An image that satisfied requirements.
#[derive(Clone, Debug)]
struct Verified {
    requirements: Vec<Requirement>,
    /// The document that the name meant.
    root: Document,
    /// That document, or the manifest for the platform in it.
    accepted: Document,
}

struct Judge {
    location: Location,
    requirements: Vec<Requirement>,
    part: SignedPart,
}

impl<'a> SignedSource<'a> {
    /// Restricts a source, which is that of `location`, to images that satisfy the policy.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the policy has no requirements for this location.
    pub fn new(
        source: Box<dyn Source + 'a>,
        location: &Location,
        policy: &SignaturePolicy,
        part: SignedPart,
    ) -> Result<Self> {
        let requirements = policy.requirements_for(location)?.to_vec();
        let judge = Arc::new(Judge { location: location.clone(), requirements, part });
        Ok(Self { source, judge, cache: Arc::default() })
    }

    /// Returns the same source with this cache. It must be used for sources of the same location and part only.
    #[must_use]
    pub fn with_cache(self, cache: &Arc<VerificationCache>) -> Self {
        Self { cache: Arc::clone(cache), ..self }
    }

    /// Verifies a document that the name means.
    fn accept(&self, root: Document) -> Result<Document> {
        let accepted = self.verify(root.clone())?;
        let verified =
            Verified { requirements: self.judge.requirements.clone(), root, accepted: accepted.clone() };
        *self.cache.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(verified);
        Ok(accepted)
    }

    /// Returns the document that is signed as required: this one, or the manifest for the platform in it.
    fn verify(&self, root: Document) -> Result<Document> {
        let unsigned = match self.judge.check(&*self.source, &root) {
            Ok(()) => return Ok(root),
            Err(error) if error.kind() == Kind::Integrity => error,
            Err(error) => return Err(error),
        };
        if !media_type::is_index(&root.descriptor().media_type) {
            return Err(unsigned);
        }
        let SignedPart::Platform(platform) = &self.judge.part else { return Err(unsigned) };
        let selected = match select(&root, platform.as_ref(), &*self.source) {
            // The index is not signed, so that what it lacks is not what the user has to know.
            Err(error) if matches!(error.kind(), Kind::Integrity | Kind::NotFound | Kind::Usage) => {
                return Err(unsigned);
            }
            selected => selected?,
        };
        match self.judge.check(&*self.source, &selected.document) {
            Ok(()) => Ok(selected.document),
            Err(error) if error.kind() == Kind::Integrity => {
                Err(unsigned
                    .context("neither the index nor the manifest for the platform is signed as required"))
            }
            Err(error) => Err(error),
        }
    }
}

impl Judge {
    fn check(&self, source: &dyn Source, document: &Document) -> Result<()> {
        ensure_signed(source, &document.descriptor().digest, &self.location, &self.requirements)
    }
}

impl Source for SignedSource<'_> {
    fn resolve(&self) -> Result<Document> {
        self.accept(self.source.resolve()?)
    }

    fn resolve_again(&self, known: &Document) -> Result<Document> {
        let cached = self.cache.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_same = |verified: &Verified| {
            verified.requirements == self.judge.requirements
                && verified.accepted.descriptor().digest == known.descriptor().digest
        };
        let Some(verified) = cached.filter(is_same) else { return self.resolve() };
        let root = self.source.resolve_again(&verified.root)?;
        if root.descriptor().digest == verified.root.descriptor().digest {
            Ok(verified.accepted)
        } else {
            self.accept(root)
        }
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        self.source.open(descriptor)
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        self.source.open_range(blob, range)
    }

    fn tags(&self) -> Result<Vec<String>> {
        self.source.tags()
    }

    fn first_tags(&self) -> Result<Vec<String>> {
        self.source.first_tags()
    }

    fn untagged(&self) -> Result<Vec<Digest>> {
        self.source.untagged()
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.source.referrers(subject)
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        self.source.tagged(tag)
    }

    fn origin(&self) -> Option<Origin> {
        self.source.origin()
    }

    fn local_paths(&self) -> Vec<PathBuf> {
        self.source.local_paths()
    }

    fn cancelled_by(&self, cancel: &CancelToken) -> Option<Box<dyn Source + '_>> {
        let source = self.source.cancelled_by(cancel)?;
        Some(Box::new(SignedSource {
            source,
            judge: Arc::clone(&self.judge),
            cache: Arc::clone(&self.cache),
        }))
    }
}
