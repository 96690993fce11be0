//! Two SHA-256 compressions at once with the SHA instructions of aarch64 (Armv8 Cryptographic Extension).
//!
//! As on x86-64, each round of a message depends on the one before it, and here the instructions of two messages alternate.
//! The function is correct in an emulator; its speed was not measured on a processor.

use super::{BLOCK, ROUND_CONSTANTS};
use std::arch::aarch64::{
    uint32x4_t, vaddq_u32, vcombine_u32, vcreate_u32, vgetq_lane_u32, vsha256h2q_u32, vsha256hq_u32,
    vsha256su0q_u32, vsha256su1q_u32,
};
use std::arch::is_aarch64_feature_detected;

/// Returns whether the processor has the instructions that [`compress`] needs. They are not used in big-endian
/// mode, which was not tested.
pub fn is_available() -> bool {
    cfg!(target_endian = "little")
        && is_aarch64_feature_detected!("neon")
        && is_aarch64_feature_detected!("sha2")
}

/// The words of a state: A to D, and E to H.
#[derive(Clone, Copy)]
struct Lane {
    abcd: uint32x4_t,
    efgh: uint32x4_t,
}

/// Compresses as many blocks of both messages as the shorter slice has.
#[target_feature(enable = "neon,sha2")]
pub fn compress(states: [&mut [u32; 8]; 2], blocks: [&[[u8; BLOCK]]; 2]) {
    let [one, other] = states;
    let mut lanes = [load_state(one), load_state(other)];
    for (first, second) in blocks[0].iter().zip(blocks[1]) {
        let saved = lanes;
        let mut words = [load_block(first), load_block(second)];
        let [one, other] = &mut words;
        for group in 0..4 {
            rounds(&mut lanes, [one[group], other[group]], group);
        }
        // With constant indices, which the inner loop gets when it is unrolled, the words stay in registers.
        for first in [4, 8, 12] {
            for at in 0..4 {
                one[at] = schedule(one, at);
                other[at] = schedule(other, at);
                rounds(&mut lanes, [one[at], other[at]], first + at);
            }
        }
        for (lane, saved) in lanes.iter_mut().zip(saved) {
            lane.abcd = vaddq_u32(lane.abcd, saved.abcd);
            lane.efgh = vaddq_u32(lane.efgh, saved.efgh);
        }
    }
    *one = store_state(lanes[0]);
    *other = store_state(lanes[1]);
}

/// Does four rounds of both messages.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn rounds(lanes: &mut [Lane; 2], words: [uint32x4_t; 2], group: usize) {
    let constants = load(ROUND_CONSTANTS[group]);
    let sums = [vaddq_u32(words[0], constants), vaddq_u32(words[1], constants)];
    let [one, other] = lanes;
    let before = [one.abcd, other.abcd];
    one.abcd = vsha256hq_u32(one.abcd, one.efgh, sums[0]);
    other.abcd = vsha256hq_u32(other.abcd, other.efgh, sums[1]);
    one.efgh = vsha256h2q_u32(one.efgh, before[0], sums[0]);
    other.efgh = vsha256h2q_u32(other.efgh, before[1], sums[1]);
}

/// Returns the next four words of the message schedule, which replace the oldest ones, at `at`.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn schedule(words: &[uint32x4_t; 4], at: usize) -> uint32x4_t {
    let [w0, w1, w2, w3] = [words[at % 4], words[(at + 1) % 4], words[(at + 2) % 4], words[(at + 3) % 4]];
    vsha256su1q_u32(vsha256su0q_u32(w0, w1), w2, w3)
}

/// Loads the sixteen words of a block, which are big-endian.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn load_block(block: &[u8; BLOCK]) -> [uint32x4_t; 4] {
    let (words, _) = block.as_chunks::<4>();
    let four = |at: usize| load([0, 1, 2, 3].map(|n| u32::from_be_bytes(words[4 * at + n])));
    [four(0), four(1), four(2), four(3)]
}

#[inline]
#[target_feature(enable = "neon,sha2")]
fn load([a, b, c, d]: [u32; 4]) -> uint32x4_t {
    let two = |low: u32, high: u32| vcreate_u32(u64::from(high) << 32 | u64::from(low));
    vcombine_u32(two(a, b), two(c, d))
}

#[inline]
#[target_feature(enable = "neon,sha2")]
fn load_state(&[a, b, c, d, e, f, g, h]: &[u32; 8]) -> Lane {
    Lane { abcd: load([a, b, c, d]), efgh: load([e, f, g, h]) }
}

#[inline]
#[target_feature(enable = "neon,sha2")]
fn store_state(Lane { abcd, efgh }: Lane) -> [u32; 8] {
    [
        vgetq_lane_u32::<0>(abcd),
        vgetq_lane_u32::<1>(abcd),
        vgetq_lane_u32::<2>(abcd),
        vgetq_lane_u32::<3>(abcd),
        vgetq_lane_u32::<0>(efgh),
        vgetq_lane_u32::<1>(efgh),
        vgetq_lane_u32::<2>(efgh),
        vgetq_lane_u32::<3>(efgh),
    ]
}
