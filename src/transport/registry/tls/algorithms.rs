//! Signature algorithms: those of ring, and P-521 and ECDSA with SHA-512, which ring lacks and OpenSSL and Go have.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rustls::SignatureScheme as Scheme;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use webpki::ring;

/// The algorithms for certificates and for handshakes.
#[rustfmt::skip]
pub(super) static ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        ring::ECDSA_P256_SHA256, ring::ECDSA_P256_SHA384, P256_SHA512,
        ring::ECDSA_P384_SHA256, ring::ECDSA_P384_SHA384, P384_SHA512,
        P521_SHA256, P521_SHA384, P521_SHA512,
        ring::ED25519,
        ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        ring::RSA_PKCS1_2048_8192_SHA256, ring::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
        ring::RSA_PKCS1_2048_8192_SHA384, ring::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
        ring::RSA_PKCS1_2048_8192_SHA512, ring::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    ],
    // The first of each is for TLS 1.3, where a scheme names the curve. In TLS 1.2 it names only the hash.
    mapping: &[
        (Scheme::ECDSA_NISTP384_SHA384, &[ring::ECDSA_P384_SHA384, ring::ECDSA_P256_SHA384, P521_SHA384]),
        (Scheme::ECDSA_NISTP256_SHA256, &[ring::ECDSA_P256_SHA256, ring::ECDSA_P384_SHA256, P521_SHA256]),
        (Scheme::ECDSA_NISTP521_SHA512, &[P521_SHA512, P384_SHA512, P256_SHA512]),
        (Scheme::ED25519, &[ring::ED25519]),
        (Scheme::RSA_PSS_SHA512, &[ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
        (Scheme::RSA_PSS_SHA384, &[ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
        (Scheme::RSA_PSS_SHA256, &[ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (Scheme::RSA_PKCS1_SHA512, &[ring::RSA_PKCS1_2048_8192_SHA512]),
        (Scheme::RSA_PKCS1_SHA384, &[ring::RSA_PKCS1_2048_8192_SHA384]),
        (Scheme::RSA_PKCS1_SHA256, &[ring::RSA_PKCS1_2048_8192_SHA256]),
    ],
};

/// Returns the provider of ring with these algorithms.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        signature_verification_algorithms: ALGORITHMS,
        ..rustls::crypto::ring::default_provider()
    }
}

static P256_SHA512: &dyn SignatureVerificationAlgorithm = &Ecdsa {
    key: alg_id::ECDSA_P256,
    signature: alg_id::ECDSA_SHA512,
    hash: |message| Sha512::digest(message).to_vec(),
    verify: p256,
};
static P384_SHA512: &dyn SignatureVerificationAlgorithm = &Ecdsa {
    key: alg_id::ECDSA_P384,
    signature: alg_id::ECDSA_SHA512,
    hash: |message| Sha512::digest(message).to_vec(),
    verify: p384,
};
static P521_SHA256: &dyn SignatureVerificationAlgorithm = &Ecdsa {
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA256,
    hash: |message| Sha256::digest(message).to_vec(),
    verify: p521,
};
static P521_SHA384: &dyn SignatureVerificationAlgorithm = &Ecdsa {
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA384,
    hash: |message| Sha384::digest(message).to_vec(),
    verify: p521,
};
static P521_SHA512: &dyn SignatureVerificationAlgorithm = &Ecdsa {
    key: alg_id::ECDSA_P521,
    signature: alg_id::ECDSA_SHA512,
    hash: |message| Sha512::digest(message).to_vec(),
    verify: p521,
};

/// ECDSA with one curve and one hash.
#[derive(Debug)]
struct Ecdsa {
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    hash: fn(&[u8]) -> Vec<u8>,
    verify: Verify,
}

/// A function that verifies a signature (DER) of a hash by a key (SEC 1).
type Verify = fn(key: &[u8], signature: &[u8], hash: &[u8]) -> Option<()>;

impl SignatureVerificationAlgorithm for Ecdsa {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }

    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        (self.verify)(key, signature, &(self.hash)(message)).ok_or(InvalidSignature)
    }
}

fn p256(key: &[u8], signature: &[u8], hash: &[u8]) -> Option<()> {
    let signature = p256::ecdsa::Signature::from_der(signature).ok()?;
    p256::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?.verify_prehash(hash, &signature).ok()
}

fn p384(key: &[u8], signature: &[u8], hash: &[u8]) -> Option<()> {
    let signature = p384::ecdsa::Signature::from_der(signature).ok()?;
    p384::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?.verify_prehash(hash, &signature).ok()
}

fn p521(key: &[u8], signature: &[u8], hash: &[u8]) -> Option<()> {
    // The hash is a number (FIPS 186-5, section 6.4.2), which the crate expects in the length of the curve's numbers.
    let mut number = [0; 66];
    number[66_usize.checked_sub(hash.len())?..].copy_from_slice(hash);
    let signature = p521::ecdsa::Signature::from_der(signature).ok()?;
    p521::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?.verify_prehash(&number, &signature).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;

    /// Keys that openssl made, and its signatures of `volio`.
    #[rustfmt::skip]
    const SIGNED: [(&dyn SignatureVerificationAlgorithm, &str, &str); 5] = [
        (
            P256_SHA512,
            "BLmT/wf6yjCv4V1VrEu+Ivo8tv1sdOwg0tC9Wq864s4NjGR8BSj+VOAl+f2uGPKb1o8SkiN8+pa4XyOyQ8BRlS4=",
            "MEUCIQCXTTtkXPAP8cELHzXsmZMOXPmGM5YEMfxNSZi79gY38wIgSKlGYQHVVs73DFrPTaC+GHZYF2EMMHwKikb/vmQeGQc=",
        ),
        (
            P384_SHA512,
            "BC111aPywKdq61nLLvfJmUb0QTJvWGkbesJVMfI74jX9XfA8EdK1V3yc9gjDnO9AZjLYhPKg8kW47N4dBwd97VMP5juzZBt5TAQfUwc9dfHq8ubjZ909ZQ7E8VS2xflaPA==",
            "MGUCMQDYCh/J4S6CZicj0HLTJVjzA+n+RU6xnFWIzdz9Y9htwEAF+atKT3fXSULATSSwsBgCMDHp+i48DINGgiRC5t8oh1KzGwEop59tDjDcKFLILqFaJZ0bbPK3JoqgxXLDD8ft0A==",
        ),
        (
            P521_SHA256,
            "BADS266kJCq91degbf/RD8r/AQn8qTSC+2ze/fZEKnfcR1KJ7mIRLN/pbuS0AVGFbNaHuMfsZv7t2NNm2g9x6Ze/IQAX0BMKnD9BsJYgvgbqZFP4N5BeoOdVOsdZEzV7+yegS2kD22RPsPqgPdg+GJdzvqQeNlHGpyM6eFB96PKvtOKx5g==",
            "MIGIAkIA1XRJzWLhRiyu/rMLO47N8TQrFyx2o/cFTX1jYQARk/YFyE+eingVkqg96GdhAjU5UnG0WKx4rWTArHLrC/d1gLoCQgFzF9IM6vN3FjxTFyL6LBNYuBSVCjLnoPVF+/yNIK7EzGYcjF69sU2NbA5HMewvPV1QLTxrx5sdh61INs7LpU5NjQ==",
        ),
        (
            P521_SHA384,
            "BAFDyQ1BfSzQO1ZtHXyCDjkPYLSQhCmQP5qRUozk1Rw1JM1TnYEiS4GQ2oCdrCpowVwN9CyfRVPAgyU959hf/AvUjwFMosYj6221PELTxdooDidGnUKuDNzcHiagK3UMg8mFubqYQgnw6+5waVBqOi1bMMuAULoswAfKUTEz3BiuUdSLXg==",
            "MIGIAkIBz41uCTxA4WbwLl+tiEIfhpLjCd/n6Ju+oG64HZI/rU6KOU7+qDbefLpr8U0Elm1/1iK8Ei5Ln6LGXPNIbUNp2dQCQgFWF61V/c5c5KGFM7m96bgqUG02HpFt7QkonuS+CgzCk0vsgApLu9H5sTl6m0q9buKJ0fkDvnT+qBB+NDYM8PfDLg==",
        ),
        (
            P521_SHA512,
            "BABEQQaF9Y87/oEnudkCtFBGQ9Y8pcSt2sjMaMGBKjLvbuVR4D2s4l+7vfMIf6NhzfVqQ8asIxc8Hv6pC8QyVtdBKAH3HAAhY+cOG5iH5Q1A0/gp69FORdWXFOvQh84syGrf8MpTlyCs6QGQb4sbKUHSPKXeXfunb9BlcBAbqXGC1lAxfw==",
            "MIGIAkIBSm1KWioBl8jiZQDizL/I7LuLDopZZwvG1fqcSqS+q1sz4CHulVEbDpps0CEOFOA1vTUxPI57ThdU50XKwhquDQ8CQgFdhmabd9+ilcWtmE1psr1Mr6QlRyzf8IBdaJNf//9Av4iqD5lWzCin+EqNx+eyoSZVfbdEuBkPsCUM8y9s+Or1+A==",
        ),
    ];

    #[test]
    fn signatures_of_openssl_are_verified_and_changed_ones_are_not() {
        for (algorithm, key, signature) in SIGNED {
            let [key, mut signature] = [key, signature].map(|text| BASE64_STANDARD.decode(text).unwrap());
            assert!(algorithm.verify_signature(&key, b"volio", &signature).is_ok(), "{algorithm:?}");
            assert!(algorithm.verify_signature(&key, b"Volio", &signature).is_err(), "{algorithm:?}");
            assert!(algorithm.verify_signature(&key[1..], b"volio", &signature).is_err(), "{algorithm:?}");
            *signature.last_mut().unwrap() ^= 1;
            assert!(algorithm.verify_signature(&key, b"volio", &signature).is_err(), "{algorithm:?}");
            assert!(algorithm.verify_signature(&key, b"volio", &[]).is_err(), "{algorithm:?}");
        }
    }

    #[test]
    fn every_algorithm_of_a_handshake_is_one_of_certificates_too() {
        for (scheme, algorithms) in ALGORITHMS.mapping {
            for algorithm in *algorithms {
                let known = |known: &&&dyn SignatureVerificationAlgorithm| {
                    known.public_key_alg_id() == algorithm.public_key_alg_id()
                        && known.signature_alg_id() == algorithm.signature_alg_id()
                };
                assert!(ALGORITHMS.all.iter().any(|other| known(&other)), "{scheme:?}");
            }
        }
    }
}
