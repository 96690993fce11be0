//! Two SHA-256 compressions at once with the SHA instructions of x86-64.
//!
//! `sha256rnds2` has a latency of four cycles, and a processor can begin another one after two (AMD Zen) or fewer. Each
//! round of a message depends on the one before it, so a single message leaves half of the time unused. Here the
//! instructions of two messages alternate.
//!
//! The functions pass no closure to `array::map`, which is compiled without these instructions. Without link-time
//! optimisation it was not inlined then, and a pair took twenty times as long.

use super::{BLOCK, ROUND_CONSTANTS};
use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};

/// Returns whether the processor has the instructions that [`compress`] needs.
pub fn is_available() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1")
}

/// The words of a state in the order of the instructions: A, B, E, F and C, D, G, H.
#[derive(Clone, Copy)]
struct Lane {
    abef: __m128i,
    cdgh: __m128i,
}

/// Compresses as many blocks of both messages as the shorter slice has.
#[target_feature(enable = "sha,ssse3,sse4.1")]
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
            lane.abef = _mm_add_epi32(lane.abef, saved.abef);
            lane.cdgh = _mm_add_epi32(lane.cdgh, saved.cdgh);
        }
    }
    *one = store_state(lanes[0]);
    *other = store_state(lanes[1]);
}

/// Does four rounds of both messages.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn rounds(lanes: &mut [Lane; 2], words: [__m128i; 2], group: usize) {
    let [a, b, c, d] = ROUND_CONSTANTS[group];
    let constants = _mm_set_epi32(d.cast_signed(), c.cast_signed(), b.cast_signed(), a.cast_signed());
    let sums = [_mm_add_epi32(words[0], constants), _mm_add_epi32(words[1], constants)];
    let [one, other] = lanes;
    one.cdgh = _mm_sha256rnds2_epu32(one.cdgh, one.abef, sums[0]);
    other.cdgh = _mm_sha256rnds2_epu32(other.cdgh, other.abef, sums[1]);
    one.abef = _mm_sha256rnds2_epu32(one.abef, one.cdgh, _mm_shuffle_epi32(sums[0], 0x0e));
    other.abef = _mm_sha256rnds2_epu32(other.abef, other.cdgh, _mm_shuffle_epi32(sums[1], 0x0e));
}

/// Returns the next four words of the message schedule, which replace the oldest ones, at `at`.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn schedule(words: &[__m128i; 4], at: usize) -> __m128i {
    let [w0, w1, w2, w3] = [words[at % 4], words[(at + 1) % 4], words[(at + 2) % 4], words[(at + 3) % 4]];
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
    _mm_sha256msg2_epu32(sum, w3)
}

/// Loads the sixteen words of a block, which are big-endian.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn load_block(block: &[u8; BLOCK]) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let (halves, _) = block.as_chunks::<8>();
    [
        _mm_shuffle_epi8(load(halves[0], halves[1]), swap),
        _mm_shuffle_epi8(load(halves[2], halves[3]), swap),
        _mm_shuffle_epi8(load(halves[4], halves[5]), swap),
        _mm_shuffle_epi8(load(halves[6], halves[7]), swap),
    ]
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn load(low: [u8; 8], high: [u8; 8]) -> __m128i {
    _mm_set_epi64x(i64::from_le_bytes(high), i64::from_le_bytes(low))
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn load_state(state: &[u32; 8]) -> Lane {
    let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
    Lane { abef: _mm_set_epi32(a, b, e, f), cdgh: _mm_set_epi32(c, d, g, h) }
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn store_state(Lane { abef, cdgh }: Lane) -> [u32; 8] {
    [
        _mm_extract_epi32::<3>(abef),
        _mm_extract_epi32::<2>(abef),
        _mm_extract_epi32::<3>(cdgh),
        _mm_extract_epi32::<2>(cdgh),
        _mm_extract_epi32::<1>(abef),
        _mm_extract_epi32::<0>(abef),
        _mm_extract_epi32::<1>(cdgh),
        _mm_extract_epi32::<0>(cdgh),
    ]
    .map(i32::cast_unsigned)
}
