//! The manifest of simple signatures: the one with the tag `sha256-HEX.sig`, with one layer for each signature (cosign,
//! `specs/SIGNATURE_SPEC.md`).

use super::payload;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document, Manifest, SUBJECT, attachment_tags, media_type};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use std::collections::BTreeMap;

/// The annotation of a layer with the signature of its payload, in base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// The signatures of a manifest, without their payloads.
#[derive(Default)]
pub struct SignatureManifest {
    layers: Vec<Descriptor>,
    /// The annotations of the manifest, which volio keeps.
    annotations: BTreeMap<String, String>,
}

/// The number of signatures of one image in each form that are read. Every signature is a request; an attacker may add
/// thousands.
pub const COUNT_LIMIT: usize = 100;

/// The outcome of [`merge_signatures`].
pub enum MergedSignatures {
    /// Every signature that would be added is there.
    Unchanged,
    /// The manifest that has the signatures of both.
    Merged(Box<MergedManifest>),
    /// The reason why they cannot be in one manifest.
    Impossible(&'static str),
}

/// A manifest that has the signatures of two.
pub struct MergedManifest {
    /// Its config.
    pub config: Document,
    /// The manifest.
    pub manifest: Document,
}

/// Merges two manifests of signatures, or of attestations, which have the same form: those of `there` come first, and stay
/// as they are.
pub fn merge_signatures(there: &Document, more: &Document) -> MergedSignatures {
    let (Ok(parsed), Ok(other)) = (Manifest::parse(there), Manifest::parse(more)) else {
        return MergedSignatures::Impossible("one of them is not a manifest");
    };
    // A merge would lose the subject, and any other config than that of cosign's images.
    let is_plain = |manifest: &Manifest| {
        manifest.config.media_type == media_type::CONFIG && !manifest.extra.contains_key(SUBJECT)
    };
    if !is_plain(&parsed) || !is_plain(&other) {
        return MergedSignatures::Impossible("one of them has another form than cosign's");
    }
    let [mut merged, more] = [parsed, other].map(SignatureManifest::from);
    if !merged.merge(&more) {
        return MergedSignatures::Unchanged;
    }
    if merged.layers.len() > COUNT_LIMIT {
        return MergedSignatures::Impossible(
            "there would be more than 100, of which only the first are read",
        );
    }
    let (config, manifest) = merged.documents();
    MergedSignatures::Merged(Box::new(MergedManifest { config, manifest }))
}

impl From<Manifest> for SignatureManifest {
    fn from(Manifest { layers, annotations, .. }: Manifest) -> Self {
        Self { layers, annotations }
    }
}

/// A simple signature whose payload was not read yet.
pub struct StoredSignature<'a> {
    /// The descriptor of the payload.
    pub payload: &'a Descriptor,
    /// The signature in ASN.1 DER.
    pub signature: Vec<u8>,
}

impl SignatureManifest {
    /// Returns the tag of the signatures of the manifest or index with this digest.
    pub fn tag(subject: &Digest) -> String {
        let [signatures, ..] = attachment_tags(subject);
        signatures
    }

    /// Parses the document with this tag.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if it is not a manifest.
    pub fn parse(document: &Document) -> Result<Self> {
        if !media_type::is_manifest(&document.descriptor().media_type) {
            return Err(document.malformed("signatures are listed in a manifest"));
        }
        Manifest::parse(document).map(Self::from)
    }

    /// Returns the signatures, and for a layer that is not a signature the reason.
    pub fn signatures(&self) -> impl ExactSizeIterator<Item = Result<StoredSignature<'_>>> {
        self.layers.iter().map(|layer| {
            let invalid = |why: String| Error::integrity(format!("the signature is not valid: {why}"));
            if layer.media_type != payload::MEDIA_TYPE {
                return Err(invalid(format!("its payload has the media type {:?}", layer.media_type)));
            }
            let text = layer
                .annotations
                .get(SIGNATURE)
                .ok_or_else(|| invalid(format!("it has no annotation {SIGNATURE}")))?;
            let signature = BASE64_STANDARD.decode(text).map_err(|error| invalid(error.to_string()))?;
            Ok(StoredSignature { payload: layer, signature })
        })
    }

    /// Adds a signature of a payload.
    pub fn add(&mut self, payload: &[u8], signature: &[u8]) {
        let mut layer = Descriptor::of(payload::MEDIA_TYPE, payload);
        layer.annotations.insert(SIGNATURE.to_owned(), BASE64_STANDARD.encode(signature));
        self.layers.push(layer);
    }

    /// Adds the signatures of another manifest that this one lacks, after its own. Returns whether there are any.
    fn merge(&mut self, other: &Self) -> bool {
        let missing: Vec<_> =
            other.layers.iter().filter(|layer| !self.layers.contains(layer)).cloned().collect();
        let is_changed = !missing.is_empty();
        self.layers.extend(missing);
        is_changed
    }

    /// Returns the config and the manifest.
    pub fn documents(&self) -> (Document, Document) {
        let payloads: Vec<_> = self.layers.iter().map(|layer| &layer.digest).collect();
        // The diff_ids of the signatures are the digests of the payloads, which are stored as they are.
        let config = json!({
            "architecture": "", "os": "", "config": {},
            "rootfs": { "type": "layers", "diff_ids": payloads },
        });
        let config = Document::write(media_type::CONFIG, &config);
        let manifest =
            Manifest::new(config.descriptor().clone(), self.layers.clone(), self.annotations.clone());
        (config, Document::write(media_type::MANIFEST, &manifest))
    }
}
