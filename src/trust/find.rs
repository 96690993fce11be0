//! The signatures of an image, read from a source.

use super::bundle::{self, Bundle};
use super::key::PublicKey;
use super::payload::Payload;
use super::signature_manifest::{COUNT_LIMIT, SignatureManifest};
use crate::error::{Error, Kind, Result};
use crate::oci::{ARTIFACT_TYPE, Descriptor, Digest, Document, Manifest};
use crate::transport::{self, Source};
use std::fmt;

/// The maximum size of a payload or a bundle, in bytes. They have about 300 and 1 000.
const SIZE_LIMIT: u64 = 256 << 10;

/// The form of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A simple signature in the manifest with the tag `sha256-HEX.sig`.
    Simple,
    /// A sigstore bundle among the referrers.
    Bundle,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Simple => "signature in the .sig tag",
            Self::Bundle => "bundle",
        })
    }
}

/// A signature that is stored beside an image. It was not verified.
pub struct Signature {
    form: Form,
    content: Content,
}

enum Content {
    Simple {
        payload: Vec<u8>,
        signature: Vec<u8>,
    },
    Bundle(Bundle),
    /// The reason why it cannot be read.
    Invalid(Error),
}

/// The statement of a verified signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The digests of the images that are signed.
    pub digests: Vec<Digest>,
    /// The name that the image was signed with; `None` for a bundle, which names no image.
    pub reference: Option<String>,
}

impl Signature {
    /// The form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The hint which key has signed, if there is one. It is not verified.
    pub fn hint(&self) -> Option<&str> {
        match &self.content {
            Content::Bundle(bundle) => bundle.hint.as_deref(),
            Content::Simple { .. } | Content::Invalid(_) => None,
        }
    }

    /// The name that the image was signed with, if the signature says one. It is not verified.
    pub fn claimed_reference(&self) -> Option<String> {
        match &self.content {
            Content::Simple { payload, .. } => Payload::parse(payload).ok().map(|payload| payload.reference),
            Content::Bundle(_) | Content::Invalid(_) => None,
        }
    }

    /// The type of the statement, if it is another one than that the image is signed. It is not verified.
    pub fn statement(&self) -> Option<String> {
        match &self.content {
            Content::Bundle(bundle) => bundle.other_statement(),
            Content::Simple { .. } | Content::Invalid(_) => None,
        }
    }

    /// Returns whether a certificate names the signer. It is not verified.
    pub fn has_certificate(&self) -> bool {
        matches!(&self.content, Content::Bundle(bundle) if bundle.has_certificate)
    }

    /// The reason why it cannot be read, if it cannot.
    pub fn fault(&self) -> Option<&Error> {
        match &self.content {
            Content::Invalid(error) => Some(error),
            Content::Simple { .. } | Content::Bundle(_) => None,
        }
    }

    /// Verifies the signature by any of the keys, and returns what is signed.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if it is malformed, or made by another key.
    pub fn verify(&self, keys: &[PublicKey]) -> Result<Claim> {
        let by_another_key = || Error::integrity("it was made by another key");
        match &self.content {
            Content::Simple { payload, signature } => {
                if !keys.iter().any(|key| key.verifies(payload, signature)) {
                    return Err(by_another_key());
                }
                let Payload { reference, digest } = Payload::parse(payload)?;
                Ok(Claim { digests: vec![digest], reference: Some(reference) })
            }
            Content::Bundle(bundle) => {
                if !keys.iter().any(|key| bundle.is_signed_by(key)) {
                    return Err(by_another_key());
                }
                Ok(Claim { digests: bundle.subjects()?, reference: None })
            }
            Content::Invalid(error) => Err(Error::integrity(error.to_string())),
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hint() {
            // The hint is text from outside.
            Some(hint) => write!(f, "{} with the key hint {:?}", self.form, hint.get(..64).unwrap_or(hint)),
            None => write!(f, "{}", self.form),
        }
    }
}

/// Reads the signatures of a manifest or an index, those with the tag first, and calls `visit` for each until that returns
/// `true`. Then no further ones are read. Malformed signatures are visited too, because a person wants to know about them.
/// Returns whether `visit` has returned `true`.
///
/// # Errors
/// Those of the source. A signature that is listed and missing is visited as a malformed one.
pub fn find_signatures(
    source: &dyn Source,
    subject: &Digest,
    mut visit: impl FnMut(&Signature) -> bool,
) -> Result<bool> {
    Ok(find_simple(source, subject, &mut visit)?
        || find_bundles(source, subject, &source.referrers(subject)?, &mut visit)?)
}

/// Reads all signatures of a manifest or an index, and calls `visit` for each. Returns the other referrers, which are not
/// bundles.
///
/// # Errors
/// As [`find_signatures`].
pub fn list_signatures(
    source: &dyn Source,
    subject: &Digest,
    mut visit: impl FnMut(&Signature),
) -> Result<Vec<Descriptor>> {
    let mut visit = |signature: &Signature| {
        visit(signature);
        false
    };
    find_simple(source, subject, &mut visit)?;
    let mut referrers = source.referrers(subject)?;
    find_bundles(source, subject, &referrers, &mut visit)?;
    referrers.retain(|entry| !may_be_bundle(entry));
    Ok(referrers)
}

fn find_simple(
    source: &dyn Source,
    subject: &Digest,
    visit: &mut impl FnMut(&Signature) -> bool,
) -> Result<bool> {
    let Some(document) = source.tagged(&SignatureManifest::tag(subject))? else { return Ok(false) };
    let manifest = match SignatureManifest::parse(&document) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(visit(&invalid(Form::Simple, error))),
    };
    for stored in manifest.signatures().take(COUNT_LIMIT) {
        let content = match stored {
            Err(error) => Content::Invalid(error),
            Ok(stored) => match fetch_small(source, stored.payload)? {
                Ok(payload) => {
                    Content::Simple { payload: payload.bytes().to_vec(), signature: stored.signature }
                }
                Err(error) => Content::Invalid(error),
            },
        };
        if visit(&Signature { form: Form::Simple, content }) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn find_bundles(
    source: &dyn Source,
    subject: &Digest,
    referrers: &[Descriptor],
    visit: &mut impl FnMut(&Signature) -> bool,
) -> Result<bool> {
    for entry in referrers.iter().filter(|entry| may_be_bundle(entry)).take(COUNT_LIMIT) {
        let content = match read_bundle(source, subject, entry)? {
            Ok(Some(bundle)) => Content::Bundle(bundle),
            Ok(None) => continue,
            Err(error) => Content::Invalid(error),
        };
        if visit(&Signature { form: Form::Bundle, content }) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether a referrer is a bundle, or may be one because the list does not have its type.
fn may_be_bundle(entry: &Descriptor) -> bool {
    let kind = entry.extra.get(ARTIFACT_TYPE);
    kind.as_ref().and_then(|kind| kind.as_str()).is_none_or(|kind| kind == bundle::MEDIA_TYPE)
}

/// Reads the bundle of a referrer. The outer error is one of the source, the inner one says what is wrong with the bundle.
/// Returns `None` if the referrer is not a bundle or is about another image.
fn read_bundle(source: &dyn Source, subject: &Digest, entry: &Descriptor) -> Result<Result<Option<Bundle>>> {
    let document = match fetch_small(source, entry)? {
        Ok(document) => document,
        Err(error) => return Ok(Err(error)),
    };
    if document.as_referrer().is_none_or(|(its, _)| its != *subject) {
        return Ok(Ok(None));
    }
    let manifest = match Manifest::parse(&document) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(Err(error)),
    };
    let [layer] = manifest.layers.as_slice() else { return Ok(Ok(None)) };
    if layer.media_type != bundle::MEDIA_TYPE {
        return Ok(Ok(None));
    }
    Ok(fetch_small(source, layer)?.and_then(|blob| Bundle::parse(blob.bytes()).map(Some)))
}

/// Reads a small document or blob. The outer error is one of the source; the inner one says that it is missing, too large or
/// damaged.
fn fetch_small(source: &dyn Source, descriptor: &Descriptor) -> Result<Result<Document>> {
    if descriptor.size > SIZE_LIMIT {
        let size = descriptor.size;
        let what = format!("{} has {size} bytes, and at most {SIZE_LIMIT} are read", descriptor.digest);
        return Ok(Err(Error::integrity(what)));
    }
    match transport::fetch(source, descriptor) {
        Err(error) if matches!(error.kind(), Kind::Integrity | Kind::NotFound) => Ok(Err(error)),
        Err(error) => Err(error),
        Ok(document) => Ok(Ok(document)),
    }
}

fn invalid(form: Form, error: Error) -> Signature {
    Signature { form, content: Content::Invalid(error) }
}
