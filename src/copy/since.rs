//! Only what the other side lacks: a copy for an air gap, without the layers that an earlier image brought there.

use crate::error::Result;
use crate::image;
use crate::oci::{Digest, Document, Manifest, SINCE};
use crate::transport::{self, Source};
use std::collections::HashSet;

/// An image that is already where the copy will go.
#[derive(Clone, Debug)]
pub struct Base {
    address: String,
    layers: HashSet<Digest>,
}

impl Base {
    /// Reads which layers an image has, of all its platforms. `name` is the repository, for those who must find it.
    ///
    /// # Errors
    /// When the image is not there, or is not what it says.
    pub fn read(name: &str, source: &dyn Source) -> Result<Self> {
        let root = source.resolve()?;
        let images = image::manifests(&root, |descriptor| transport::fetch(source, descriptor))?;
        let mut layers = HashSet::new();
        for (_, document) in images {
            layers.extend(Manifest::parse(&document)?.layers.into_iter().map(|layer| layer.digest));
        }
        Ok(Self { address: format!("{name}@{}", root.descriptor().digest), layers })
    }

    /// Whether the image has this layer.
    pub(super) fn has(&self, layer: &Digest) -> bool {
        self.layers.contains(layer)
    }
}

/// The same document, marked for the place that lists it: what is missing there is in these images.
pub(super) fn mark(root: Document, bases: &[Base]) -> Document {
    let addresses: Vec<&str> = bases.iter().map(|base| base.address.as_str()).collect();
    root.annotated(SINCE, addresses.join(", "))
}
