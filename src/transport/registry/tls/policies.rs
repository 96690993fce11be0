//! Certificates with critical policies (RFC 5280, section 4.2.1.4).
//!
//! webpki does not support policies and rejects such certificates. volio requires no policy, and then no policy can make a
//! certificate invalid. So the certificate is parsed from a copy in which its policies are not critical, and its signature
//! is verified over the original bytes. Extensions that restrict policies, such as `policyConstraints`, are not supported:
//! a certificate in which they are critical is still rejected.

use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use std::ops::Range;

const BOOLEAN: u8 = 0x01;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const EXTENSIONS: u8 = 0xa3;
/// `id-ce-certificatePolicies`, 2.5.29.32.
const POLICIES: &[u8] = &[0x55, 0x1d, 0x20];

/// A certificate, and a copy of it in which its policies are not critical.
#[derive(Debug)]
pub(super) struct Relaxed {
    original: Vec<u8>,
    /// The copy, which has the same length.
    pub(super) der: Vec<u8>,
    /// The range of the signed bytes.
    signed: Range<usize>,
}

impl Relaxed {
    /// Copies a certificate; `None` if it has no critical policies or cannot be parsed.
    pub(super) fn new(original: &[u8]) -> Option<Self> {
        let (_, certificate) = element(original, 0..original.len(), SEQUENCE)?;
        let (signed, content) = element(original, certificate, SEQUENCE)?;
        let (_, extensions) = elements(original, content).find(|(tag, _)| *tag == EXTENSIONS)?;
        let (_, extensions) = element(original, extensions, SEQUENCE)?;
        let critical = elements(original, extensions).find_map(|(_, extension)| {
            let mut parts = elements(original, extension);
            let (tag, name) = parts.next()?;
            let (boolean, value) = parts.next()?;
            let is_critical = tag == OBJECT_IDENTIFIER
                && original.get(name)? == POLICIES
                && boolean == BOOLEAN
                && original.get(value.clone())? == [0xff];
            is_critical.then_some(value.start)
        })?;
        let mut der = original.to_vec();
        *der.get_mut(critical)? = 0;
        Some(Self { original: original.to_vec(), der, signed })
    }
}

/// A signature algorithm that verifies a relaxed certificate over its original bytes.
#[derive(Debug)]
pub(super) struct Original<'a> {
    pub(super) algorithm: &'static dyn SignatureVerificationAlgorithm,
    pub(super) relaxed: &'a [Relaxed],
}

impl SignatureVerificationAlgorithm for Original<'_> {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }

    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let signed = self.relaxed.iter().find(|relaxed| &relaxed.der[relaxed.signed.clone()] == message);
        let message = signed.map_or(message, |relaxed| &relaxed.original[relaxed.signed.clone()]);
        self.algorithm.verify_signature(key, message, signature)
    }
}

/// Returns the ranges of the first element within a range and of its content, if it has this tag.
fn element(der: &[u8], within: Range<usize>, tag: u8) -> Option<(Range<usize>, Range<usize>)> {
    let (found, content) = elements(der, within.clone()).next()?;
    (found == tag).then_some((within.start..content.end, content))
}

/// Returns the tags and the ranges of the contents of the elements within a range, up to one that is not DER.
fn elements(der: &[u8], within: Range<usize>) -> impl Iterator<Item = (u8, Range<usize>)> {
    let mut position = within.start;
    std::iter::from_fn(move || {
        let bytes = der.get(position..within.end)?;
        let (&tag, bytes) = bytes.split_first()?;
        let (&first, bytes) = bytes.split_first()?;
        // In the long form, the first byte says how many bytes the length has.
        let (length, digits) = match first {
            0..=0x7f => (usize::from(first), 0),
            0x81..=0x84 => {
                let digits = usize::from(first & 0x7f);
                let number =
                    bytes.get(..digits)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
                (number, digits)
            }
            _ => return None,
        };
        let start = position + 2 + digits;
        let end = start.checked_add(length).filter(|end| *end <= within.end)?;
        position = end;
        Some((tag, start..end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_the_parser_panic() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x02, 0x30, 0x7f],
        ] {
            assert!(Relaxed::new(bytes).is_none(), "{bytes:?}");
        }
    }
}
