//! A source of which only signed images can be read.

use super::platform::select;
use crate::error::{Kind, Result};
use crate::oci::{Descriptor, Digest, Document, Platform, media_type};
use crate::stream::{CancelToken, Unverified};
use crate::transport::{Location, Origin, Source};
use crate::trust::{Requirement, SignaturePolicy, ensure_signed};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

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
        Ok(Self { source, judge: Arc::new(Judge { location: location.clone(), requirements, part }) })
    }
}

impl Judge {
    fn check(&self, source: &dyn Source, document: &Document) -> Result<()> {
        ensure_signed(source, &document.descriptor().digest, &self.location, &self.requirements)
    }
}

impl Source for SignedSource<'_> {
    fn resolve(&self) -> Result<Document> {
        let root = self.source.resolve()?;
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

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        self.source.open(descriptor)
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        self.source.open_range(blob, range)
    }

    fn tags(&self) -> Result<Vec<String>> {
        self.source.tags()
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
        Some(Box::new(SignedSource { source, judge: Arc::clone(&self.judge) }))
    }
}
