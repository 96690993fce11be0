//! Signs an image that is stored already: its index, and every manifest below it.
//!
//! Both are needed. podman and skopeo look at the signature of the manifest for their platform only, and a copy of the whole
//! image needs that of the index.

use crate::error::{Result, Side};
use crate::image;
use crate::oci::Digest;
use crate::progress::Progress;
use crate::transport::{Destination, Source};
use crate::trust::{Signed, Signer};

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
    let documents = image::documents(&root, from, progress).map_err(|error| error.on(Side::Source))?;
    let signatures = signer
        .sign(&documents, to)
        .and_then(|signatures| to.publish_attachments().map(|()| signatures))
        .map_err(|error| error.on(Side::Destination))?;
    Ok(SignedImage { digest: root.descriptor().digest.clone(), signatures })
}
