//! Digests, the names of blobs (image-spec, "Descriptor", section "Digests").

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use std::str::FromStr;

/// The algorithms that the specification registers, without those that cannot be verified here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, the usual algorithm. volio writes no other.
    Sha256,
    /// SHA-512. The specification allows it; it is rare.
    Sha512,
}

impl Algorithm {
    /// Returns the name that stands before the colon of a digest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Returns the number of hexadecimal digits: two for each byte.
    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest such as `sha256:2c26…`. It is safe as a path: its text has a fixed length and no separators.
///
/// A large file has one for each mebibyte, so a digest holds bytes and not their hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Digest {
    /// A SHA-256 digest.
    Sha256([u8; 32]),
    /// A SHA-512 digest. It is boxed because it is rare and twice as long.
    Sha512(Box<[u8; 64]>),
}

impl Digest {
    /// Returns the SHA-256 digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// Returns the algorithm that made the digest.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns the bytes of the digest.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes.as_slice(),
        }
    }

    /// Returns the part after the colon: hexadecimal digits in lower case.
    pub fn hex(&self) -> String {
        hex(self.as_bytes())
    }

    /// Returns the first twelve hexadecimal digits, which are enough for a person to distinguish blobs.
    pub fn short(&self) -> String {
        hex(&self.as_bytes()[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::usage(format!("{text:?} is not a digest: {why}"));
        let (name, hex) = text.split_once(':').ok_or_else(|| invalid("it has no colon"))?;
        let (algorithm, digest) = match name {
            "sha256" => (Algorithm::Sha256, parse_hex(hex).map(Self::Sha256)),
            "sha512" => (Algorithm::Sha512, parse_hex(hex).map(|bytes| Self::Sha512(Box::new(bytes)))),
            _ => return Err(invalid("only sha256 and sha512 are known")),
        };
        digest.ok_or_else(|| {
            invalid(&format!("{} lower-case hexadecimal digits must follow", algorithm.hex_len()))
        })
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)]).collect()
}

/// The values of hexadecimal digits, by their bytes; [`NO_DIGIT`] for all other bytes.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    values
};
const NO_DIGIT: u8 = 0xff;

/// Parses exactly `N` bytes of hexadecimal digits. Upper case is forbidden by the specification: a blob would have two
/// names.
fn parse_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = [0; N];
    if pairs.len() != N {
        return None;
    }
    // A table of contents has a digest for each file: a branch for each digit would be mispredicted half of the time.
    let mut all = 0;
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (high, low) = (VALUES[usize::from(*high)], VALUES[usize::from(*low)]);
        all |= high | low;
        *byte = high << 4 | low & 0x0f;
    }
    (all != NO_DIGIT).then_some(bytes)
}

/// A digest that is being computed. The default is SHA-256.
#[derive(Clone)]
pub struct Hasher(HashState);

#[derive(Clone)]
enum HashState {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new(Algorithm::Sha256)
    }
}

impl Hasher {
    /// Creates a hasher that has read no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => HashState::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => HashState::Sha512(Box::default()),
        })
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            HashState::Sha256(state) => state.update(bytes),
            HashState::Sha512(state) => state.update(bytes),
        }
    }

    /// Returns the digest of all bytes.
    pub fn finish(self) -> Digest {
        match self.0 {
            HashState::Sha256(state) => Digest::Sha256(state.finalize().into()),
            HashState::Sha512(state) => Digest::Sha512(Box::new(state.finalize().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_blob_has_the_well_known_digests() {
        assert_eq!(
            Digest::of(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert!(Hasher::new(Algorithm::Sha512).finish().to_string().starts_with("sha512:cf83e1357eefb8bd"));
    }

    #[test]
    fn a_digest_is_safe_as_a_path_and_has_one_spelling() {
        let good = "a".repeat(64);
        for text in [format!("sha256:{good}"), format!("sha512:{good}{}", "0189".repeat(16))] {
            assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        }
        for bad in [
            "sha256:../../../etc/passwd".to_owned(),
            format!("sha256:{}", "A".repeat(64)),
            format!("sha256:{}", "a".repeat(63)),
            format!("sha512:{good}"),
            format!("md5:{good}"),
            good,
            "sha256:".to_owned(),
            String::new(),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }
}
