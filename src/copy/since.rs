//! Copies without the layers of earlier images, for an air gap: those layers are at the other side already.

use crate::error::Result;
use crate::image;
use crate::oci::{Digest, Document, Manifest, SINCE};
use crate::transport::Source;
use std::collections::HashSet;

/// An image that the final destination of a copy has.
#[derive(Clone, Debug)]
pub struct Base {
    address: String,
    layers: HashSet<Digest>,
}

impl Base {
    /// Reads the list of layers of an image, for all its platforms. `name` is its repository, with its tag if
    /// that is known, and is recorded in the copy with the digest.
    ///
    /// # Errors
    /// Those of reading the image's documents.
    pub fn read(name: &str, source: &dyn Source) -> Result<Self> {
        let root = source.resolve()?;
        let images = image::manifests(&root, source)?;
        let mut layers = HashSet::new();
        for (_, document) in images {
            layers.extend(Manifest::parse(&document)?.layers.into_iter().map(|layer| layer.digest));
        }
        Ok(Self { address: format!("{name}@{}", root.descriptor().digest), layers })
    }

    /// Returns whether the image has this layer.
    pub(super) fn has(&self, layer: &Digest) -> bool {
        self.layers.contains(layer)
    }
}

/// Adds an annotation to the document's descriptor: the layers that are missing are in these images.
pub(super) fn mark(root: Document, bases: &[Base]) -> Document {
    let addresses: Vec<&str> = bases.iter().map(|base| base.address.as_str()).collect();
    root.annotated(SINCE, addresses.join(", "))
}
