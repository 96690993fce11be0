//! Names of images as containers/image compares them: complete (`docker.io/library/alpine`), with a tag, a digest, both or
//! neither. No default tag is added to the name in a signature.

use crate::error::{Error, Result};
use crate::oci::{Digest, Reference};
use crate::transport::Location;
use std::fmt;

/// A host that [`Reference`] takes for docker.io. For containers/image it is another registry.
const ALIAS: &str = "registry-1.docker.io";

/// A complete name of an image or of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// The registry and the repository.
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageName {
    /// Parses a name and completes its registry, as `ParseNormalizedNamed` of containers/image does.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if it is not a name.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::usage(format!("{text:?} is the ID of an image, and not a name")));
        }
        if text.split('/').next() == Some(ALIAS) {
            return Err(Error::usage(format!("{ALIAS} is not the name of a registry: it is docker.io")));
        }
        let reference: Reference = text.parse()?;
        let tag = if reference.is_repository() { None } else { reference.tag() };
        let digest = reference.digest().cloned();
        Ok(Self { repository: reference.name(), tag: tag.map(str::to_owned), digest })
    }

    /// Returns the name of the image at a location; `None` for layouts and archives of them, where a tag does not belong
    /// to a registry.
    ///
    /// Without a tag and a digest the tag is `latest`. Where there are both, the tag is left out, as podman does: it has no
    /// part in what is read.
    pub(super) fn of(location: &Location) -> Option<Self> {
        match location {
            Location::Registry(reference) | Location::DockerArchive { reference: Some(reference), .. } => {
                let digest = reference.digest().cloned();
                let tag = if digest.is_some() { None } else { reference.tag() };
                Some(Self { repository: reference.name(), tag: tag.map(str::to_owned), digest })
            }
            Location::Layout { .. } | Location::OciArchive { .. } | Location::DockerArchive { .. } => None,
        }
    }

    /// Returns the registry and the repository.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns whether there is a tag, possibly with a digest.
    pub(super) fn is_tagged(&self) -> bool {
        self.tag.is_some()
    }

    /// Returns whether there is neither a tag nor a digest.
    pub(super) fn is_repository(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}
