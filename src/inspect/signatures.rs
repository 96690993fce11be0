//! The signatures that are stored beside an image. None of them is verified.

use super::Inspected;
use crate::error::Result;
use crate::oci::{ARTIFACT_TYPE, Descriptor, Digest};
use crate::transport::Source;
use crate::trust::{Form, Signature, list_signatures};
use serde_json::Value;
use std::collections::HashSet;

/// The number of manifests whose signatures are looked for. Each takes two requests.
const LIMIT: usize = 8;

/// Something that is attached to a manifest or an index. All that it says about itself is unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attached {
    /// The digest of the manifest or the index.
    pub subject: Digest,
    /// The kind.
    pub kind: AttachedKind,
    /// The hint by which a bundle names the key.
    pub key_hint: Option<String>,
    /// The name that the image was signed for.
    pub identity: Option<String>,
    /// The reason why it cannot be read.
    pub fault: Option<String>,
}

/// The kind of what is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachedKind {
    /// A signature in the manifest with the tag `sha256-HEX.sig`.
    Simple,
    /// A sigstore bundle with a signature, by a key or by a certificate.
    Bundle {
        /// A certificate names the signer.
        has_certificate: bool,
    },
    /// A sigstore bundle with a statement of this type about the image, which is not a signature of it.
    Statement(String),
    /// Another referrer, by its artifact type.
    Referrer(String),
}

/// Finds what is attached to the index or the manifest of an image, and to its first manifests for platforms.
///
/// # Errors
/// Those of the source.
pub fn attached(source: &dyn Source, inspected: &Inspected) -> Result<Vec<Attached>> {
    let mut seen = HashSet::new();
    let manifests = inspected.images.iter().map(|image| &image.digest);
    let subjects = std::iter::once(&inspected.digest).chain(manifests);
    let subjects: Vec<_> = subjects.filter(|digest| seen.insert(*digest)).take(1 + LIMIT).collect();
    let mut found = Vec::new();
    for subject in subjects {
        let referrers = list_signatures(source, subject, |signature| {
            found.push(Attached::new(subject, signature));
        })?;
        found.extend(referrers.iter().map(|referrer| Attached::referrer(subject, referrer)));
    }
    Ok(found)
}

impl Attached {
    fn new(subject: &Digest, signature: &Signature) -> Self {
        let kind = match (signature.form(), signature.statement()) {
            (Form::Simple, _) => AttachedKind::Simple,
            (Form::Bundle, Some(kind)) => AttachedKind::Statement(kind),
            (Form::Bundle, None) => AttachedKind::Bundle { has_certificate: signature.has_certificate() },
        };
        Self {
            subject: subject.clone(),
            kind,
            key_hint: signature.hint().map(str::to_owned),
            identity: signature.claimed_reference(),
            fault: signature.fault().map(ToString::to_string),
        }
    }

    fn referrer(subject: &Digest, entry: &Descriptor) -> Self {
        let kind = entry.extra.get(ARTIFACT_TYPE);
        let kind = kind.as_ref().and_then(Value::as_str).unwrap_or(&entry.media_type).to_owned();
        let kind = AttachedKind::Referrer(kind);
        Self { subject: subject.clone(), kind, key_hint: None, identity: None, fault: None }
    }
}
