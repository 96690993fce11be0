//! Tests of policies.

mod identities;
mod scopes;
mod strictness;

use super::SignaturePolicy;
use crate::error::{Error, Result};
use crate::trust::PublicKey;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::path::Path;

const SIGNER: &str = include_str!("../../../../fixtures/keys/signer.pub");
const OTHER: &str = include_str!("../../../../fixtures/keys/other.pub");

fn key(pem: &str) -> PublicKey {
    PublicKey::from_pem(pem).unwrap()
}

/// A text in base64, as policies have it.
fn base64(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

/// Parses a policy. Its files with keys are `/signer.pub` and `/other.pub`.
fn parse(json: &str) -> Result<SignaturePolicy> {
    SignaturePolicy::from_json(json.as_bytes(), &|path: &Path| match path.to_str() {
        Some("/signer.pub") => Ok(key(SIGNER)),
        Some("/other.pub") => Ok(key(OTHER)),
        _ => Err(Error::not_found(format!("cannot read the key {}", path.display()))),
    })
}
