//! Signs an image that is stored already: its index, and every manifest below it.
//!
//! Both are needed. podman and skopeo look at the signature of the manifest for their platform only, and a copy of the whole
//! image needs that of the index.

use crate::error::{Error, Kind, Result, Side};
use crate::image::DEPTH_LIMIT;
use crate::oci::{Descriptor, Digest, Document, Index, media_type};
use crate::progress::Progress;
use crate::transport::{self, Destination, Source};
use crate::trust::{Signed, Signer};
use std::collections::HashSet;

/// The limit on the manifests and indexes of one image.
const DOCUMENT_COUNT_LIMIT: usize = 1000;

/// The result of signing an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedImage {
    /// The digest of the index or the manifest.
    pub digest: Digest,
    /// The signatures.
    pub signatures: Signed,
}

/// Signs an image. `to` is the place of the image; its name stays as it is. The content of the image is not read.
///
/// # Errors
/// Those of reading the documents and of writing the signatures. Signatures that were stored before the error stay.
///
/// ```
/// use volio::{Memory, Signer, SigningKey, SourceSpec, pack, progress::Silent, sign};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let image = Memory::default();
/// # pack::pack(&image, &[SourceSpec::new(directory.path())], &pack::Options::default(), &Silent)?;
/// # let key = std::path::Path::new("fixtures/keys/signer.pem");
/// let signer = Signer::new(SigningKey::read(key)?, vec!["registry.example/data:v1".to_owned()])?;
/// let signed = sign::sign(&image, &image, &signer, &Silent)?;
/// assert_eq!(signed.signatures.documents, 3); // an index, and the manifests of two platforms
/// # Ok::<(), volio::Error>(())
/// ```
pub fn sign(
    from: &dyn Source,
    to: &dyn Destination,
    signer: &Signer,
    progress: &dyn Progress,
) -> Result<SignedImage> {
    let root = from.resolve().map_err(|error| error.on(Side::Source))?;
    let mut documents = Documents { from, progress, found: Vec::new(), digests: HashSet::new() };
    documents.add(root.descriptor(), &root, 0).map_err(|error| error.on(Side::Source))?;
    let signatures = signer
        .sign(&documents.found, to)
        .and_then(|signatures| to.publish_attachments().map(|()| signatures))
        .map_err(|error| error.on(Side::Destination))?;
    Ok(SignedImage { digest: root.descriptor().digest.clone(), signatures })
}

/// The manifests and indexes of an image, each after those below it.
struct Documents<'a> {
    from: &'a dyn Source,
    progress: &'a dyn Progress,
    found: Vec<Descriptor>,
    digests: HashSet<Digest>,
}

impl Documents<'_> {
    fn add(&mut self, descriptor: &Descriptor, document: &Document, depth: usize) -> Result<()> {
        if !self.digests.insert(descriptor.digest.clone()) {
            return Ok(());
        }
        if self.digests.len() > DOCUMENT_COUNT_LIMIT {
            return Err(
                document.malformed(&format!("it is one of more than {DOCUMENT_COUNT_LIMIT} documents"))
            );
        }
        if media_type::is_index(&descriptor.media_type) {
            if depth == DEPTH_LIMIT {
                return Err(document.malformed("its indexes are nested too deep"));
            }
            for entry in Index::parse(document)?.manifests {
                if !media_type::is_document(&entry.media_type) {
                    continue;
                }
                match transport::fetch(self.from, &entry) {
                    // Mirrors and partial copies often omit platforms.
                    Err(error) if error.kind() == Kind::NotFound => self.progress.warn(&format!(
                        "{} is not signed, because it is not there, although the index lists it",
                        entry.digest
                    )),
                    Err(error) => return Err(error),
                    Ok(below) => self.add(&entry, &below, depth + 1)?,
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
