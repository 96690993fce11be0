//! `sha2` is the judge of all digests here, and NIST's vectors are that of both (SHAVS, with the files of its archive
//! `shabytetestvectors`; some of the long messages are left out).

use super::*;
use crate::testing::noise;
use proptest::collection::vec;
use proptest::prelude::*;
use sha2::Digest as _;
use std::cell::Cell;

/// Compresses no block, as on a processor without the instructions.
fn compress_none(_: [&mut [u32; 8]; 2], _: [&[[u8; BLOCK]]; 2]) -> usize {
    0
}

/// The compression of two messages as on this processor, and as on one without the instructions.
const PROCESSORS: [CompressTwo; 2] = [compress_two, compress_none];
/// Lengths at the borders of blocks and of the padding. Miri takes a second for ten digests.
const BORDERS: &[usize] = if cfg!(miri) {
    &[0, 55, 56, 64, 129]
} else {
    &[0, 1, 54, 55, 56, 57, 63, 64, 65, 118, 119, 120, 121, 127, 128, 129]
};

fn judged(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

/// Hashes the messages together, each in slices of these sizes.
fn together<const N: usize>(
    mut messages: [&[u8]; N],
    sizes: &[[usize; N]],
    compress_two: CompressTwo,
) -> [[u8; 32]; N] {
    let mut digests: [_; N] = std::array::from_fn(|_| PairedSha256::default());
    for sizes in sizes.iter().chain([&[usize::MAX; N]]) {
        let mut parts = Vec::new();
        for ((digest, message), size) in digests.iter_mut().zip(&mut messages).zip(sizes) {
            let (now, later) = message.split_at(message.len().min(*size));
            *message = later;
            parts.push(digest.blocks(now));
        }
        PairedSha256::update_all(&mut parts, compress_two);
    }
    digests.map(PairedSha256::finish)
}

/// Returns the digest of a message, which is the same alone, as each of two and as each of three, on both processors.
fn digest(message: &[u8]) -> [u8; 32] {
    let (longer, shorter) = (noise(1, message.len() + 200), noise(2, message.len() / 2));
    let expected = judged(message);
    let (one, two) = (judged(&longer), judged(&shorter));
    for processor in PROCESSORS {
        assert_eq!(together([message], &[], processor), [expected]);
        assert_eq!(together([message], &[[1], [63], [7]], processor), [expected]);
        assert_eq!(together([message, &longer], &[], processor), [expected, one]);
        assert_eq!(together([&shorter, message], &[[5, 64]], processor), [two, expected]);
        assert_eq!(together([message, message], &[[64, 1]], processor), [expected; 2]);
        assert_eq!(together([message, &longer, &shorter], &[], processor), [expected, one, two]);
        assert_eq!(together([&shorter, message, &longer], &[[3, 65, 0]], processor), [two, expected, one]);
        assert_eq!(together([&longer, &shorter, message], &[[64; 3]], processor), [one, two, expected]);
    }
    expected
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Returns the values of the lines `NAME = VALUE` in a file of vectors.
fn values<'a>(file: &'a str, name: &str) -> Vec<&'a str> {
    let lines = file.lines().filter_map(|line| line.split_once(" = "));
    lines.filter(|(found, _)| *found == name).map(|(_, value)| value).collect()
}

fn check_messages(file: &str) {
    let (lengths, messages, digests) = (values(file, "Len"), values(file, "Msg"), values(file, "MD"));
    assert!(!lengths.is_empty() && lengths.len() == messages.len() && lengths.len() == digests.len());
    for ((bits, message), expected) in lengths.iter().zip(messages).zip(digests) {
        let message = &hex(message)[..bits.parse::<usize>().unwrap() / 8];
        assert_eq!(digest(message).to_vec(), hex(expected), "{bits} bits");
    }
}

#[test]
fn the_examples_of_the_standard_have_their_digests() {
    let long = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    for (message, expected) in [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (long, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"),
    ] {
        assert_eq!(digest(message.as_bytes()).to_vec(), hex(expected));
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn a_million_times_the_letter_a_has_its_digest() {
    let expected = hex("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_eq!(digest(&vec![b'a'; 1_000_000]).to_vec(), expected);
}

#[test]
fn the_short_messages_of_nist_have_their_digests() {
    check_messages(include_str!("../../../fixtures/sha256/SHA256ShortMsg.rsp"));
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn the_long_messages_of_nist_have_their_digests() {
    check_messages(include_str!("../../../fixtures/sha256/SHA256LongMsg.rsp"));
}

/// SHAVS, section 6.4: each message is made of the last three digests. It is hashed as both of a pair.
#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn the_monte_carlo_test_of_nist_has_its_digests() {
    let file = include_str!("../../../fixtures/sha256/SHA256Monte.rsp");
    let mut seed: [u8; 32] = hex(values(file, "Seed")[0]).try_into().unwrap();
    let expected = values(file, "MD");
    assert_eq!(expected.len(), 100);
    for expected in expected {
        let mut last = [seed; 3];
        for _ in 0..1000 {
            let [one, other] = together([last.as_flattened(); 2], &[], compress_two);
            assert_eq!(one, other);
            last = [last[1], last[2], one];
        }
        seed = last[2];
        assert_eq!(seed.to_vec(), hex(expected));
    }
}

#[test]
fn messages_of_lengths_at_the_borders_of_blocks_have_their_digests() {
    let bytes = noise(1, 600);
    for &one in BORDERS {
        for &other in BORDERS {
            for third in [0, 55, 64, 129, one, other] {
                let messages = [&bytes[..one], &bytes[200..200 + other], &bytes[400..400 + third]];
                let expected = messages.map(judged);
                assert_eq!(together(messages, &[], compress_two), expected, "{one} {other} {third}");
                let [one, other, _] = messages;
                assert_eq!(together([one, other], &[], compress_two), expected[..2]);
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn messages_of_all_short_lengths_have_their_digests() {
    let bytes = noise(1, 300);
    (0..bytes.len()).for_each(|length| _ = digest(&bytes[..length]));
}

/// The numbers of blocks for which all three messages are compressed in pairs, and those for which they cannot be.
#[test]
fn three_messages_leave_no_block_without_a_partner_where_that_is_possible() {
    let bytes = noise(1, 64 * 40);
    for (blocks, alone) in [
        ([8, 8, 8], 0),
        ([10, 10, 20], 0),
        ([20, 3, 17], 0),
        ([7, 8, 8], 1),
        ([30, 10, 10], 10),
        ([0, 9, 9], 0),
        ([0, 0, 5], 5),
        ([5, 9, 0], 4),
    ] {
        thread_local!(static PAIRED: Cell<usize> = const { Cell::new(0) });
        let counting: CompressTwo = |states, blocks| {
            let done = blocks[0].len().min(blocks[1].len());
            states.into_iter().zip(blocks).for_each(|(state, blocks)| compress256(state, &blocks[..done]));
            PAIRED.set(PAIRED.get() + 2 * done);
            done
        };
        PAIRED.set(0);
        let messages = blocks.map(|count| &bytes[..count * BLOCK]);
        assert_eq!(together(messages, &[], counting), messages.map(judged));
        assert_eq!(blocks.iter().sum::<usize>() - PAIRED.get(), alone, "{blocks:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn slices_of_any_sizes_give_the_same_digests(
        one in vec(any::<u8>(), 0..2000),
        other in vec(any::<u8>(), 0..2000),
        third in vec(any::<u8>(), 0..2000),
        sizes in vec([0..300usize, 0..300usize, 0..300usize], 0..20),
    ) {
        let two: Vec<_> = sizes.iter().map(|[one, other, _]| [*one, *other]).collect();
        let messages = [&one[..], &other, &third];
        let expected = messages.map(judged);
        for processor in PROCESSORS {
            prop_assert_eq!(together([&one, &other], &two, processor), &expected[..2]);
            prop_assert_eq!(together(messages, &sizes, processor), expected);
        }
    }
}
