//! A registry that speaks the OCI distribution protocol.

use super::{Access, Destination, Source};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document, Reference};
use crate::stream::{Body, Unverified, Written};

/// One repository of a registry, and a name in it.
pub struct Registry {
    reference: Reference,
}

impl Registry {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When a file with credentials cannot be read.
    pub fn new(reference: Reference, _access: &Access) -> Result<Self> {
        Ok(Self { reference })
    }
}

impl Source for Registry {
    fn resolve(&self) -> Result<Document> {
        Err(Error::failed("not yet"))
    }

    fn open(&self, _descriptor: &Descriptor) -> Result<Unverified> {
        Err(Error::failed("not yet"))
    }
}

impl Destination for Registry {
    fn contains(&self, _descriptor: &Descriptor) -> Result<bool> {
        Err(Error::failed("not yet"))
    }

    fn upload(&self, _body: Body) -> Result<Written> {
        Err(Error::failed("not yet"))
    }

    fn put_manifest(&self, _document: &Document) -> Result<()> {
        Err(Error::failed("not yet"))
    }

    fn commit(&self, _root: &Document) -> Result<()> {
        Err(Error::failed("not yet"))
    }

    fn address(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.reference.name())
    }
}
