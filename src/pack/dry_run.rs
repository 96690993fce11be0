//! A destination that is looked at and not written to.

use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document};
use crate::stream::{Body, Written};
use crate::transport::{Destination, ImageSupport, RetryDelay};
use std::path::PathBuf;

/// A destination that takes everything and stores nothing.
pub struct DryRun<'a>(pub &'a dyn Destination);

impl Destination for DryRun<'_> {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        self.0.contains(descriptor)
    }

    fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        self.0.exists(descriptor)
    }

    fn upload(&self, body: Body) -> Result<Written> {
        body.drain()
    }

    fn put_manifest(&self, _document: &Document) -> Result<()> {
        Ok(())
    }

    fn commit(&self, _root: &Document) -> Result<()> {
        Ok(())
    }

    fn address(&self, digest: &Digest) -> String {
        self.0.address(digest)
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        self.0.tagged(tag)
    }

    fn attach(&self, _tag: &str, _document: &Document) -> Result<()> {
        Ok(())
    }

    fn retry_delay(&self, error: &Error, failures: u32) -> Option<RetryDelay> {
        self.0.retry_delay(error, failures)
    }

    fn directory(&self) -> Option<PathBuf> {
        self.0.directory()
    }

    fn image_support(&self) -> ImageSupport {
        self.0.image_support()
    }
}
