//! Keys: ECDSA with the curve P-256 and SHA-256, in PEM.
//!
//! All tools of this field agree on these keys only: those of Ed25519 are used with and without a hash of the message, and
//! containers/image has SHA-256 fixed in its code.

use crate::error::{Error, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey as PrivateKey, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePublicKey as _};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The maximum size of a file with a key, in bytes. Such keys have about 250.
const KEY_FILE_LIMIT: u64 = 64 << 10;

const GENERATE: &str = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY.pem";

/// A private key that signs images. Its signatures are deterministic (RFC 6979): the same image and key give the same
/// bytes.
pub struct SigningKey {
    key: PrivateKey,
    public: PublicKey,
}

impl SigningKey {
    /// Parses a private key: PKCS#8 in PEM, not encrypted.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) for any other text. Nothing of the text is in the error.
    pub fn from_pem(pem: &str) -> Result<Self> {
        let refused = |what: &str, hint: &str| Err(Error::usage(what).with_hint(hint));
        match label(pem) {
            Some("PRIVATE KEY") => {}
            Some("ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY") => {
                return refused(
                    "the key is encrypted in the form of cosign, which volio does not read",
                    "docs/trust.md, \"Keys of cosign\", has the line that converts it to PKCS#8; cosign import-key-pair \
                     --key KEY.pem goes the other way",
                );
            }
            Some("ENCRYPTED PRIVATE KEY") => {
                return refused(
                    "the key is encrypted",
                    "openssl pkcs8 -in KEY.pem -out PLAIN.pem decrypts it",
                );
            }
            Some("EC PRIVATE KEY" | "EC PARAMETERS") => {
                return refused(
                    "the key is in the form SEC 1, and PKCS#8 is needed",
                    "openssl pkcs8 -topk8 -nocrypt -in KEY.pem -out PKCS8.pem converts it",
                );
            }
            Some("PUBLIC KEY") => {
                return refused("this is a public key, which cannot sign", "give the private key");
            }
            _ => return refused("this is not a private key in PEM (PKCS#8)", GENERATE),
        }
        let Ok(key) = PrivateKey::from_pkcs8_pem(pem.trim_ascii()) else {
            return refused("this is not a private key of ECDSA with the curve P-256", GENERATE);
        };
        let public = PublicKey::new(*key.verifying_key())?;
        Ok(Self { key, public })
    }

    /// Reads a private key from a file.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem); those of reading the file.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_pem(&read_pem(path)?).map_err(|error| in_file(path, error))
    }

    /// Returns the public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message. The signature is in ASN.1 DER.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.key.sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A public key that verifies signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    hint: String,
}

impl PublicKey {
    fn new(key: VerifyingKey) -> Result<Self> {
        let der = key.to_public_key_der().map_err(|_| Error::usage("the public key cannot be encoded"))?;
        Ok(Self { key, hint: BASE64_STANDARD.encode(Sha256::digest(der.as_bytes())) })
    }

    /// Parses a public key in PEM, such as `cosign.pub`.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) for any other text.
    pub fn from_pem(pem: &str) -> Result<Self> {
        let hint = "openssl pkey -in KEY.pem -pubout -out KEY.pub writes the public key of a private one";
        match label(pem) {
            Some("PUBLIC KEY") => {}
            Some("CERTIFICATE") => {
                return Err(Error::usage("this is a certificate, and a public key is needed")
                    .with_hint("openssl x509 -in CERTIFICATE.pem -pubkey -noout prints its key"));
            }
            Some(label) if label.ends_with("PRIVATE KEY") => {
                return Err(Error::usage("this is a private key, and a public key is needed").with_hint(hint));
            }
            _ => return Err(Error::usage("this is not a public key in PEM").with_hint(hint)),
        }
        match VerifyingKey::from_public_key_pem(pem.trim_ascii()) {
            Ok(key) => Self::new(key),
            Err(_) => Err(Error::usage("this is not a public key of ECDSA with the curve P-256")
                .with_hint("keys of other curves and of RSA are not supported")),
        }
    }

    /// Reads a public key from a file.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem); those of reading the file.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_pem(&read_pem(path)?).map_err(|error| in_file(path, error))
    }

    /// Returns the hint by which bundles name the key: its SHA-256 (SubjectPublicKeyInfo, DER) in base64.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// Returns whether the signature, in ASN.1 DER, is one of this message by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_der(signature).is_ok_and(|signature| self.key.verify(message, &signature).is_ok())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.hint).finish()
    }
}

/// Returns the label of the first block of a text in PEM (RFC 7468, section 2).
fn label(pem: &str) -> Option<&str> {
    pem.trim_ascii_start().strip_prefix("-----BEGIN ")?.split_once("-----").map(|(label, _)| label)
}

fn read_pem(path: &Path) -> Result<String> {
    if path.as_os_str().as_encoded_bytes().trim_ascii_start().starts_with(b"-----BEGIN") {
        return Err(Error::usage("a key was given, and the name of a file with it is needed")
            .with_hint("write the key to a file that only you can read, and give its name"));
    }
    let what = || format!("cannot read the key {}", path.display());
    let file = File::open(path).map_err(|error| Error::io(what(), error))?;
    let mut text = String::new();
    let size = file.take(KEY_FILE_LIMIT + 1).read_to_string(&mut text);
    match size {
        Ok(size) if size as u64 > KEY_FILE_LIMIT => Err(Error::usage(format!("{}: it is too large", what()))),
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(Error::usage(format!("{}: it is not text in PEM", what())))
        }
        Err(error) => Err(Error::io(what(), error)),
    }
}

fn in_file(path: &Path, error: Error) -> Error {
    error.context(format!("cannot use the key {}", path.display()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A key that openssl made, its public key, and the signature of `volio` that openssl made with it.
    pub const PRIVATE: &str = include_str!("../../fixtures/keys/signer.pem");
    pub const PUBLIC: &str = include_str!("../../fixtures/keys/signer.pub");
    const OF_OPENSSL: &str = include_str!("../../fixtures/keys/volio.sig.base64");

    #[test]
    fn a_signature_of_openssl_is_verified() {
        let key = PublicKey::from_pem(PUBLIC).unwrap();
        let signature = BASE64_STANDARD.decode(OF_OPENSSL.trim()).unwrap();
        assert!(key.verifies(b"volio", &signature));
        assert!(!key.verifies(b"volio.", &signature));
        assert!(!key.verifies(b"volio", &signature[1..]));
        assert!(!key.verifies(b"volio", &[]));
        assert!(!key.verifies(b"volio", &[signature.as_slice(), &[0; 10_000]].concat()));
    }

    #[test]
    fn signatures_are_reproducible_and_verified_by_the_public_key() {
        let key = SigningKey::from_pem(PRIVATE).unwrap();
        assert_eq!(*key.public(), PublicKey::from_pem(PUBLIC).unwrap());
        assert_eq!(key.sign(b"a"), key.sign(b"a"));
        assert!(key.public().verifies(b"a", &key.sign(b"a")));
        assert!(!key.public().verifies(b"b", &key.sign(b"a")));
    }

    #[test]
    fn the_hint_is_the_hash_of_the_public_key() {
        let der = PUBLIC.lines().filter(|line| !line.starts_with('-')).collect::<String>();
        let hash = Sha256::digest(BASE64_STANDARD.decode(der).unwrap());
        assert_eq!(PublicKey::from_pem(PUBLIC).unwrap().hint(), BASE64_STANDARD.encode(hash));
    }

    #[test]
    fn other_keys_are_refused_with_what_to_do() {
        let begin = |label: &str| format!("-----BEGIN {label}-----\nMA==\n-----END {label}-----\n");
        for (pem, hint) in [
            (begin("ENCRYPTED SIGSTORE PRIVATE KEY"), "docs/trust.md"),
            (begin("ENCRYPTED PRIVATE KEY"), "openssl pkcs8"),
            (begin("EC PRIVATE KEY"), "-topk8"),
            (PUBLIC.to_owned(), "private key"),
            (begin("PRIVATE KEY"), "genpkey"),
            (String::new(), "genpkey"),
        ] {
            let error = SigningKey::from_pem(&pem).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Usage);
            assert!(error.hint().unwrap().contains(hint), "{pem}: {:?}", error.hint());
        }
        for (pem, hint) in [
            (PRIVATE.to_owned(), "-pubout"),
            (begin("CERTIFICATE"), "x509"),
            (include_str!("../../fixtures/keys/p384.pub").to_owned(), "other curves"),
            (include_str!("../../fixtures/keys/ed25519.pub").to_owned(), "other curves"),
            ("x".to_owned(), "-pubout"),
        ] {
            assert!(PublicKey::from_pem(&pem).unwrap_err().hint().unwrap().contains(hint), "{pem}");
        }
    }

    #[test]
    fn a_key_in_place_of_the_name_of_its_file_is_not_printed() {
        let secret = PRIVATE.lines().nth(1).unwrap();
        for path in [PRIVATE.to_owned(), format!("\n{PRIVATE}")] {
            let error = SigningKey::read(Path::new(&path)).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Usage);
            assert!(!format!("{error} {error:?}").contains(&secret[..20]), "{error}");
        }
    }

    #[test]
    fn a_private_key_is_not_printed() {
        let key = SigningKey::from_pem(PRIVATE).unwrap();
        let secret = PRIVATE.lines().nth(1).unwrap();
        assert!(!format!("{key:?}").contains(&secret[..20]));
    }
}
