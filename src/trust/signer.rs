//! The signer: it stores the signatures of an image beside it, in both forms.

use super::bundle::{self, Bundle};
use super::key::SigningKey;
use super::payload::Payload;
use super::signature_manifest::{COUNT_LIMIT, SignatureManifest};
use crate::error::{Error, Kind, Result};
use crate::oci::{ARTIFACT_TYPE, Descriptor, Digest, Document, Manifest, Reference, SUBJECT, media_type};
use crate::stream::Unverified;
use crate::transport::Destination;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Cursor;

/// The content of the empty config of an artifact (image-spec, "Guidelines for Artifact Usage").
const EMPTY: &[u8] = b"{}";
/// The most times that a signature is added to a tag that other writers change at the same time.
const MAX_ATTEMPTS: u32 = 20;
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// A key, and the names under which it signs images.
#[derive(Debug)]
pub struct Signer {
    key: SigningKey,
    references: Vec<String>,
}

/// The signatures that were stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signed {
    /// The number of manifests and indexes that are signed now.
    pub documents: u64,
    /// The number of signatures that were added, of both forms.
    pub added: u64,
    /// The number of signatures by this key that were there before.
    pub present: u64,
}

impl Signer {
    /// Creates a signer. `references` are the names of the image, `host/repository:tag` or `host/repository`; simple
    /// signatures are made for each of them, and none if there are none.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if one of them is not a name.
    pub fn new(key: SigningKey, references: Vec<String>) -> Result<Self> {
        for reference in &references {
            let parsed: Reference = reference.parse()?;
            if parsed.digest().is_some() {
                return Err(Error::usage(format!("cannot sign for the name {reference}: it has a digest"))
                    .with_hint("the digest is signed in any case; give the name with or without a tag"));
            }
        }
        Ok(Self { key, references })
    }

    /// The key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The names under which images are signed.
    pub fn references(&self) -> &[String] {
        &self.references
    }

    /// Signs manifests and indexes that the destination has. Signatures by other keys stay as they are, and one by this key
    /// that is there already is not added again.
    ///
    /// The tag of simple signatures is read and written. Two programs that sign the same image in a layout at the same time
    /// both add theirs. In a registry one may remove the signature of the other; registries have no operation that would
    /// prevent it.
    ///
    /// # Errors
    /// Those of the destination; [`Refused`](crate::error::Kind::Refused) if the tag of the signatures has something else, or
    /// has so many signatures that another one would not be read.
    pub fn sign<'a>(
        &self,
        subjects: impl IntoIterator<Item = &'a Descriptor>,
        to: &dyn Destination,
    ) -> Result<Signed> {
        let mut signed = Signed::default();
        for subject in subjects {
            if !self.references.is_empty() {
                signed.count(self.add_simple(&subject.digest, to)?);
            }
            signed.count(self.add_bundle(subject, to)?);
            signed.documents += 1;
        }
        Ok(signed)
    }

    /// Adds the simple signatures, one for each name. Returns whether each was added.
    fn add_simple(&self, subject: &Digest, to: &dyn Destination) -> Result<Vec<bool>> {
        let tag = SignatureManifest::tag(subject);
        for _ in 0..MAX_ATTEMPTS {
            if let Some(added) = self.try_add_simple(subject, &tag, to)? {
                return Ok(added);
            }
        }
        Err(Error::refused(format!("other writers change the tag {tag} again and again"))
            .with_hint("nothing is lost; sign the image again"))
    }

    /// As [`add_simple`](Self::add_simple). Returns `None`, and adds nothing, if another writer has changed the tag meanwhile.
    fn try_add_simple(&self, subject: &Digest, tag: &str, to: &dyn Destination) -> Result<Option<Vec<bool>>> {
        let (before, mut manifest) = existing_signatures(tag, to)?;
        let mut added = Vec::new();
        for reference in &self.references {
            let payload = Payload { reference: reference.clone(), digest: subject.clone() }.to_bytes();
            let digest = Digest::of(&payload);
            let is_present = manifest.signatures().take(COUNT_LIMIT).flatten().any(|stored| {
                stored.payload.digest == digest && self.key.public().verifies(&payload, &stored.signature)
            });
            if !is_present {
                upload(to, &payload)?;
                manifest.add(&payload, &self.key.sign(&payload));
            }
            added.push(!is_present);
        }
        if !added.contains(&true) {
            return Ok(Some(added));
        }
        ensure_read(tag, manifest.signatures().len())?;
        // Those that are kept are needed: no removal may delete them meanwhile.
        for payload in manifest.signatures().flatten().map(|stored| stored.payload) {
            to.contains(payload)?;
        }
        let (config, manifest) = manifest.documents();
        upload(to, config.bytes())?;
        to.put_manifest(&manifest)?;
        let is_attached = to.attach_unless_moved(tag, &manifest, before.as_ref())?;
        Ok(is_attached.then_some(added))
    }

    /// Adds the bundle. Returns whether it was added: its bytes depend on the image and the key only.
    fn add_bundle(&self, subject: &Descriptor, to: &dyn Destination) -> Result<Vec<bool>> {
        let bundle = Bundle::sign(&self.key, &subject.digest);
        let manifest = bundle_manifest(subject, &bundle);
        let is_present = to.contains(manifest.descriptor())?;
        if !is_present {
            upload(to, EMPTY)?;
            upload(to, &bundle)?;
        }
        // Also if it is there: the list of referrers is a document of its own in some registries, and may lack it.
        to.put_manifest(&manifest)?;
        Ok(vec![!is_present])
    }
}

impl Signed {
    fn count(&mut self, added: Vec<bool>) {
        for is_new in added {
            *(if is_new { &mut self.added } else { &mut self.present }) += 1;
        }
    }
}

/// Returns the simple signatures that the destination has, and the digest of their manifest.
fn existing_signatures(tag: &str, to: &dyn Destination) -> Result<(Option<Digest>, SignatureManifest)> {
    let Some(document) = to.tagged(tag)? else { return Ok((None, SignatureManifest::default())) };
    let manifest = SignatureManifest::parse(&document).map_err(|error| {
        Error::new(Kind::Refused, format!("the tag {tag} is that of signatures, and has something else"))
            .with_source(error)
            .with_hint("remove the tag with volio rm, if nothing needs it")
    })?;
    Ok((Some(document.descriptor().digest.clone()), manifest))
}

/// Fails if so many signatures would be in a tag that the last one would not be read.
fn ensure_read(tag: &str, count: usize) -> Result<()> {
    if count <= COUNT_LIMIT {
        return Ok(());
    }
    Err(Error::refused(format!(
        "the tag {tag} would have {count} signatures, and only the first {COUNT_LIMIT} are read"
    ))
    .with_hint("remove the tag with volio rm, and sign the image again"))
}

/// Returns the manifest of a bundle, which refers to the image (cosign, `specs/BUNDLE_SPEC.md`). It has no time of creation,
/// so that the same key adds it only once.
fn bundle_manifest(subject: &Descriptor, bundle: &[u8]) -> Document {
    let Descriptor { media_type, digest, size, .. } = subject;
    let annotations = BTreeMap::from([
        ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
        ("dev.sigstore.bundle.predicateType".to_owned(), bundle::PREDICATE_TYPE.to_owned()),
    ]);
    let layer = Descriptor::of(bundle::MEDIA_TYPE, bundle);
    let mut manifest = Manifest::new(Descriptor::of(EMPTY_TYPE, EMPTY), vec![layer], annotations);
    manifest.extra.insert(ARTIFACT_TYPE, &bundle::MEDIA_TYPE.into());
    manifest.extra.insert(SUBJECT, &json!({ "mediaType": media_type, "digest": digest, "size": size }));
    Document::write(media_type::MANIFEST, &manifest)
}

/// Stores a small blob.
fn upload(to: &dyn Destination, bytes: &[u8]) -> Result<()> {
    let descriptor = Descriptor::of("", bytes);
    if to.contains(&descriptor)? {
        return Ok(());
    }
    let body = Unverified::new(Cursor::new(bytes.to_vec())).verify(&descriptor);
    to.upload(body).map(drop)
}
