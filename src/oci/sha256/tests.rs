//! `sha2` is the judge of all digests here, and the vectors of FIPS 180-4 are that of both.

use super::*;
use crate::testing::noise;
use proptest::prelude::*;
use sha2::Digest as _;

fn judged(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

/// Hashes both messages together, each in slices of these sizes.
fn paired(one: &[u8], other: &[u8], sizes: &[(usize, usize)]) -> [[u8; 32]; 2] {
    let (mut first, mut second) = (PairedSha256::default(), PairedSha256::default());
    let (mut one, mut other) = (one, other);
    for (size, other_size) in sizes {
        let (now, later) = one.split_at(one.len().min(*size));
        let (other_now, other_later) = other.split_at(other.len().min(*other_size));
        PairedSha256::update_two(&mut first, now, &mut second, other_now);
        (one, other) = (later, other_later);
    }
    PairedSha256::update_two(&mut first, one, &mut second, other);
    [first.finish(), second.finish()]
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_vectors_of_nist_have_their_digests() {
    let million = vec![b'a'; 1_000_000];
    let vectors: [(&[u8], &str); 5] = [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (&[0xd3], "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (&million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ];
    for (message, digest) in vectors {
        for (other, other_digest) in vectors {
            let digests = paired(message, other, &[]);
            assert_eq!(digests.map(Vec::from), [hex(digest), hex(other_digest)]);
        }
    }
}

#[test]
fn messages_of_all_short_lengths_have_their_digests() {
    let bytes = noise(1, 600);
    for length in 0..300 {
        for other in [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 299, 299 - length] {
            let (one, other) = (&bytes[..length], &bytes[300..300 + other]);
            assert_eq!(paired(one, other, &[]), [judged(one), judged(other)], "{length} {}", other.len());
        }
        let mut alone = PairedSha256::default();
        bytes[..length].chunks(7).for_each(|part| alone.update(part));
        assert_eq!(alone.finish(), judged(&bytes[..length]));
    }
}

proptest! {
    #[test]
    fn slices_of_any_sizes_give_the_same_digests(
        one in proptest::collection::vec(any::<u8>(), 0..2000),
        other in proptest::collection::vec(any::<u8>(), 0..2000),
        sizes in proptest::collection::vec((0..300usize, 0..300usize), 0..20),
    ) {
        prop_assert_eq!(paired(&one, &other, &sizes), [judged(&one), judged(&other)]);
    }
}
