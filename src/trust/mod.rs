//! Signatures of images: keys, the two forms in which signatures are stored, and how they are verified.
//!
//! A signature is about the digest of one manifest or index. It is stored beside the image in two forms, because no tool
//! reads both:
//!
//! | form | place | payload | readers |
//! |---|---|---|---|
//! | simple signing ([`payload`]) | a manifest with the tag `sha256-HEX.sig` ([`signature_manifest`]) | digest and name of the image | podman, skopeo, CRI-O, bootc; cosign if there is no bundle |
//! | sigstore bundle ([`bundle`]) | a referrer of the image | digest of the image | cosign 3 and later |
//!
//! [`Signer`] writes both. [`find_signatures`] reads both, from any [`Source`](crate::transport::Source), and
//! [`ensure_signed`] decides by them whether an image satisfies a [`SignaturePolicy`].
//! [`SignedSource`](crate::image::SignedSource) applies that to a source, and so to all verbs.

mod bundle;
mod find;
mod key;
mod payload;
mod policy;
mod signature_manifest;
mod signer;
mod verification;

pub use bundle::Bundle;
pub use find::{Claim, Form, Signature, find_signatures, list_signatures};
pub use key::{PublicKey, SigningKey};
pub use payload::Payload;
pub use policy::{Identity, ImageName, Requirement, SignaturePolicy};
pub(crate) use signature_manifest::{MergedManifest, MergedSignatures, merge_signatures};
pub use signer::{Signed, Signer};
pub use verification::ensure_signed;
