//! The manifests and indexes of an image.

use super::platform::DEPTH_LIMIT;
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Document, Index, media_type};
use crate::progress::Progress;
use crate::transport::{self, Source};
use std::collections::HashSet;

/// The limit on the manifests and indexes of one image.
const DOCUMENT_COUNT_LIMIT: usize = 1000;

/// Returns the descriptors of the manifests and indexes of an image, each once and after those that it lists. Each of them
/// was read. One that is listed and missing is left out with a warning: mirrors and partial copies often omit platforms.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) if a document is malformed, or there are too many of them; those of reading
/// them.
pub fn documents(root: &Document, source: &dyn Source, progress: &dyn Progress) -> Result<Vec<Descriptor>> {
    let mut documents = Documents { source, progress, found: Vec::new(), digests: HashSet::new() };
    documents.add(root, 0)?;
    Ok(documents.found)
}

struct Documents<'a> {
    source: &'a dyn Source,
    progress: &'a dyn Progress,
    found: Vec<Descriptor>,
    digests: HashSet<Digest>,
}

impl Documents<'_> {
    fn add(&mut self, document: &Document, depth: usize) -> Result<()> {
        let descriptor = document.descriptor();
        if !self.digests.insert(descriptor.digest.clone()) {
            return Ok(());
        }
        if self.digests.len() > DOCUMENT_COUNT_LIMIT {
            let why = format!("the image has more than {DOCUMENT_COUNT_LIMIT} manifests and indexes");
            return Err(document.malformed(&why));
        }
        if media_type::is_index(&descriptor.media_type) {
            if depth == DEPTH_LIMIT {
                return Err(document.malformed("its indexes are nested too deep"));
            }
            let entries = Index::parse(document)?.manifests.into_iter();
            for entry in entries.filter(|entry| media_type::is_document(&entry.media_type)) {
                match transport::fetch(self.source, &entry) {
                    Err(error) if error.kind() == Kind::NotFound => self.progress.warn(&format!(
                        "{} is left out, because it is not there, although the index lists it",
                        entry.digest
                    )),
                    Err(error) => return Err(error),
                    Ok(below) => self.add(&below, depth + 1)?,
                }
            }
        } else if !media_type::is_manifest(&descriptor.media_type) {
            return Err(Error::failed(format!(
                "{} is a {}, which is not an image that volio knows",
                descriptor.digest, descriptor.media_type
            )));
        }
        self.found.push(descriptor.clone());
        Ok(())
    }
}
