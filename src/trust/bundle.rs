//! Sigstore bundles with a signature by a key: a DSSE envelope around an in-toto statement about the image (sigstore,
//! `protobuf-specs`; cosign, `specs/BUNDLE_SPEC.md`).

use super::key::{PublicKey, SigningKey};
use crate::error::{Error, Result};
use crate::oci::Digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The media type of a bundle, and the artifact type of the manifest that has it.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The type of the predicate that says that an image is signed, and nothing else about it.
pub const PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// A bundle whose signature was not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The hint which key has signed; not verified.
    pub hint: Option<String>,
    /// A certificate names the signer; not verified.
    pub has_certificate: bool,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    media_type: String,
    verification_material: VerificationMaterial,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerificationMaterial {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<KeyHint>,
    #[serde(default, skip_serializing)]
    certificate: Option<IgnoredAny>,
}

#[derive(Serialize, Deserialize)]
struct KeyHint {
    #[serde(default)]
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Serialize, Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Value,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

impl Bundle {
    /// Signs the image with this digest. Returns the bytes of the bundle, which depend on the digest and the key only.
    pub fn sign(key: &SigningKey, digest: &Digest) -> Vec<u8> {
        let statement = Statement {
            kind: STATEMENT_TYPE.to_owned(),
            subject: vec![Subject { digest: [(digest.algorithm().name().to_owned(), digest.hex())].into() }],
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Value::Object(serde_json::Map::new()),
        };
        let payload = to_json(&statement);
        let signature = key.sign(&authenticated(&payload));
        to_json(&Form {
            media_type: MEDIA_TYPE.to_owned(),
            verification_material: VerificationMaterial {
                public_key: Some(KeyHint { hint: key.public().hint().to_owned() }),
                certificate: None,
            },
            dsse_envelope: Envelope {
                payload: BASE64_STANDARD.encode(payload),
                payload_type: PAYLOAD_TYPE.to_owned(),
                signatures: vec![EnvelopeSignature { sig: BASE64_STANDARD.encode(signature) }],
            },
        })
    }

    /// Parses a bundle. Its signature is not verified by that.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if it is not a bundle with an envelope and one signature.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let form: Form = serde_json::from_slice(bytes).map_err(|error| invalid(&error.to_string()))?;
        let Envelope { payload, payload_type, signatures } = form.dsse_envelope;
        if form.media_type != MEDIA_TYPE {
            return Err(invalid(&format!("its media type is {:?}", form.media_type)));
        }
        if payload_type != PAYLOAD_TYPE {
            return Err(invalid(&format!("its payload has the type {payload_type:?}")));
        }
        let [signature] = signatures.as_slice() else {
            return Err(invalid(&format!("it has {} signatures and not one", signatures.len())));
        };
        Ok(Self {
            has_certificate: form.verification_material.certificate.is_some(),
            hint: form.verification_material.public_key.map(|key| key.hint).filter(|hint| !hint.is_empty()),
            payload: decode(&payload, "payload")?,
            signature: decode(&signature.sig, "signature")?,
        })
    }

    /// Returns the type of the statement, if it is another one than that the image is signed; not verified.
    pub fn other_statement(&self) -> Option<String> {
        let statement: Statement = serde_json::from_slice(&self.payload).ok()?;
        Some(statement.predicate_type).filter(|kind| kind != PREDICATE_TYPE)
    }

    /// Returns whether this key has signed the bundle.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verifies(&authenticated(&self.payload), &self.signature)
    }

    /// Returns the digests of the images that the statement is about. Call it for a bundle only whose signature was
    /// verified.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if it is not the statement that an image is signed. A statement about
    /// an image, such as an SBOM, which lists vulnerabilities perhaps, is not a signature of it.
    pub fn subjects(&self) -> Result<Vec<Digest>> {
        let statement: Statement =
            serde_json::from_slice(&self.payload).map_err(|error| invalid(&error.to_string()))?;
        if statement.kind != STATEMENT_TYPE {
            return Err(invalid(&format!("its statement has the type {:?}", statement.kind)));
        }
        if statement.predicate_type != PREDICATE_TYPE {
            return Err(invalid(&format!(
                "its predicate has the type {:?}: it does not say that the image is signed",
                statement.predicate_type
            )));
        }
        let digests = statement.subject.iter().flat_map(|subject| &subject.digest);
        // A digest of another algorithm is not wrong; it just cannot be the digest of this image.
        Ok(digests.filter_map(|(algorithm, hex)| format!("{algorithm}:{hex}").parse().ok()).collect())
    }
}

/// Returns the bytes that an envelope's signature is about: the pre-authentication encoding of DSSE (`protocol.md`,
/// version 1).
fn authenticated(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn to_json(form: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(form).expect("the form has string keys only")
}

fn decode(text: &str, what: &str) -> Result<Vec<u8>> {
    BASE64_STANDARD.decode(text).map_err(|error| invalid(&format!("its {what} is not base64: {error}")))
}

fn invalid(why: &str) -> Error {
    Error::integrity(format!("the bundle is not valid: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::{PRIVATE, PUBLIC};
    use super::*;

    fn signed() -> (String, PublicKey) {
        let key = SigningKey::from_pem(PRIVATE).unwrap();
        let bytes = Bundle::sign(&key, &Digest::of(b""));
        (String::from_utf8(bytes).unwrap(), PublicKey::from_pem(PUBLIC).unwrap())
    }

    #[test]
    fn a_bundle_names_its_key_and_is_about_one_image() {
        let (text, key) = signed();
        let bundle = Bundle::parse(text.as_bytes()).unwrap();
        assert!(bundle.is_signed_by(&key));
        assert_eq!(bundle.hint.as_deref(), Some(key.hint()));
        assert_eq!(bundle.subjects().unwrap(), [Digest::of(b"")]);
        let statement = String::from_utf8(bundle.payload).unwrap();
        assert_eq!(
            statement,
            r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}"#
        );
    }

    #[test]
    fn a_changed_payload_is_not_signed() {
        let (text, key) = signed();
        let mut bundle = Bundle::parse(text.as_bytes()).unwrap();
        bundle.payload[10] ^= 1;
        assert!(!bundle.is_signed_by(&key));
    }

    #[test]
    fn an_attestation_by_the_same_key_is_not_a_signature() {
        let key = SigningKey::from_pem(PRIVATE).unwrap();
        let statement = String::from_utf8(Bundle::parse(signed().0.as_bytes()).unwrap().payload).unwrap();
        for (from, to) in [
            (PREDICATE_TYPE, "https://spdx.dev/Document"),
            (STATEMENT_TYPE, "https://in-toto.io/Statement/v2"),
            (r#""predicate":{}"#, r#""x":1"#),
        ] {
            let payload = statement.replace(from, to).into_bytes();
            let signature = key.sign(&authenticated(&payload));
            let bundle = Bundle { hint: None, has_certificate: false, payload, signature };
            assert!(bundle.is_signed_by(key.public()) && bundle.subjects().is_err(), "{to}");
        }
    }

    #[test]
    fn a_bundle_of_any_other_form_is_refused() {
        let (text, _) = signed();
        let signature = text.split(r#""sig":"#).nth(1).unwrap().split('}').next().unwrap();
        for (from, to) in [
            (MEDIA_TYPE, "application/vnd.dev.sigstore.bundle+json;version=0.1"),
            (PAYLOAD_TYPE, "text/plain"),
            ("dsseEnvelope", "messageSignature"),
            (r#""signatures":["#, r#""signatures":[{"sig":""},"#),
            (&format!(r#"{{"sig":{signature}}}"#), ""),
            (&signature[..4], "\"!!!"),
            (r#""payload":""#, r#""payload":"!"#),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert!(Bundle::parse(changed.as_bytes()).is_err(), "{changed}");
        }
        for bad in ["", "null", "{}", "[]", "\u{0}"] {
            assert!(Bundle::parse(bad.as_bytes()).is_err());
        }
    }
}
