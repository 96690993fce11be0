//! SHA-256 of two or three messages at once.
//!
//! A processor computes two independent digests on one core in little more time than one, if their instructions alternate.
//! The crate `sha2` does one message at a time. It compresses the blocks that have no partner, and all blocks on processors
//! without the instructions.
//!
//! Three messages are compressed in changing pairs. The instructions of three messages at once took longer than that on an
//! AMD EPYC: two messages use its SHA unit fully.

#[cfg(target_arch = "aarch64")]
mod pair_aarch64;
#[cfg(target_arch = "x86_64")]
mod pair_x86;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "aarch64")]
use pair_aarch64 as pair;
#[cfg(target_arch = "x86_64")]
use pair_x86 as pair;
use sha2::block_api::compress256;
use std::cmp::Reverse;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The size of a block, in bytes.
const BLOCK: usize = 64;
/// The state before the first block (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
/// The constants of the rounds (FIPS 180-4, section 4.2.2), four at a time.
#[rustfmt::skip]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const ROUND_CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// A SHA-256 digest that is being computed, alone or together with another one.
#[derive(Clone)]
pub struct PairedSha256 {
    state: [u32; 8],
    /// The beginning of a block that is not complete.
    partial: [u8; BLOCK],
    /// The number of bytes so far.
    length: u64,
}

impl Default for PairedSha256 {
    fn default() -> Self {
        Self { state: INITIAL, partial: [0; BLOCK], length: 0 }
    }
}

impl PairedSha256 {
    /// Returns whether this processor computes two digests together faster than one after the other. Measured once.
    pub fn is_faster() -> bool {
        static FASTER: OnceLock<bool> = OnceLock::new();
        *FASTER.get_or_init(is_measured_faster)
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        Self::update_all(&mut [self.blocks(bytes)], compress_two);
    }

    /// Adds the next bytes of two digests.
    pub fn update_two(one: &mut Self, bytes: &[u8], other: &mut Self, other_bytes: &[u8]) {
        Self::update_all(&mut [one.blocks(bytes), other.blocks(other_bytes)], compress_two);
    }

    /// Adds the next bytes of three digests.
    pub fn update_three(parts: [(&mut Self, &[u8]); 3]) {
        Self::update_all(&mut parts.map(|(digest, bytes)| digest.blocks(bytes)), compress_two);
    }

    /// Compresses the blocks of up to three messages, two at a time by `compress_two`, and one at a time what that leaves.
    fn update_all(messages: &mut [Blocks<'_>], compress_two: CompressTwo) {
        messages.sort_unstable_by_key(|message| Reverse(message.blocks.len()));
        match messages {
            [one, other] => Blocks::compress_two(one, other, usize::MAX, compress_two),
            [longest, middle, shortest] => {
                // After this number, the longest message has as many blocks left as the other two together, if it ever has:
                // then no block remains without a partner.
                let surplus = middle.blocks.len() - shortest.blocks.len();
                let first = (longest.blocks.len() + surplus) / 2;
                Blocks::compress_two(longest, middle, first, compress_two);
                Blocks::compress_two(longest, shortest, usize::MAX, compress_two);
                Blocks::compress_two(middle, shortest, usize::MAX, compress_two);
            }
            _ => {}
        }
        messages.iter_mut().for_each(|message| compress256(message.state, message.blocks));
    }

    /// Returns the digest of all bytes.
    pub fn finish(mut self) -> [u8; 32] {
        // FIPS 180-4, section 5.1.1: a bit of one, zeros, and the length in bits, up to the end of a block.
        let bits = self.length.wrapping_mul(8).to_be_bytes();
        let filled = self.filled();
        let mut end = [[0; BLOCK]; 2];
        let padding = end.as_flattened_mut();
        padding[..filled].copy_from_slice(&self.partial[..filled]);
        padding[filled] = 0x80;
        let blocks = if filled < BLOCK - bits.len() { 1 } else { 2 };
        padding[blocks * BLOCK - bits.len()..blocks * BLOCK].copy_from_slice(&bits);
        compress256(&mut self.state, &end[..blocks]);
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        digest
    }

    /// Returns the number of bytes in the block that is not complete.
    fn filled(&self) -> usize {
        (self.length % BLOCK as u64) as usize
    }

    /// Takes the next bytes: completes the block that was begun, and keeps what is after the last whole block. Returns the
    /// whole blocks between them, which are still to be compressed.
    fn blocks<'a>(&'a mut self, bytes: &'a [u8]) -> Blocks<'a> {
        let (blocks, rest) = self.align(bytes).as_chunks();
        if !rest.is_empty() {
            self.partial[..rest.len()].copy_from_slice(rest);
        }
        self.length += (blocks.len() * BLOCK + rest.len()) as u64;
        Blocks { state: &mut self.state, blocks }
    }

    /// Completes the block that was begun, and returns the other bytes. The block is still incomplete if there are none.
    fn align<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let filled = self.filled();
        if filled == 0 {
            return bytes;
        }
        let (now, later) = bytes.split_at(bytes.len().min(BLOCK - filled));
        self.partial[filled..filled + now.len()].copy_from_slice(now);
        self.length += now.len() as u64;
        if self.filled() == 0 && !now.is_empty() {
            compress256(&mut self.state, &[self.partial]);
        }
        later
    }
}

/// Whole blocks of a message that are to be compressed.
struct Blocks<'a> {
    state: &'a mut [u32; 8],
    blocks: &'a [[u8; BLOCK]],
}

/// A function that compresses as many blocks of both messages as the shorter one has, or none. Returns their number.
type CompressTwo = fn([&mut [u32; 8]; 2], [&[[u8; BLOCK]]; 2]) -> usize;

impl Blocks<'_> {
    /// Compresses as many blocks of both messages as both have, and at most `limit` of each.
    fn compress_two(one: &mut Self, other: &mut Self, limit: usize, compress_two: CompressTwo) {
        let count = one.blocks.len().min(other.blocks.len()).min(limit);
        let blocks = [&one.blocks[..count], &other.blocks[..count]];
        let done = compress_two([one.state, other.state], blocks);
        (one.blocks, other.blocks) = (&one.blocks[done..], &other.blocks[done..]);
    }
}

/// Measures whether two messages together take less than three quarters of the time of one after the other. That takes a
/// fifth of a millisecond.
///
/// On AMD Zen and Sapphire Rapids two take little longer than one, and on Tiger Lake nothing was gained, where all digests
/// of a layer would be computed by one thread instead of three. No list of processors is complete. A wrong answer, because
/// something else ran at the same time, costs time and changes no byte. In a build without optimisation, a pair takes ten
/// times as long as both apart.
fn is_measured_faster() -> bool {
    const ROUNDS: usize = 5;
    let blocks = &[[0; BLOCK]; 256][..];
    if compress_two([INITIAL; 2].each_mut(), [blocks; 2]) == 0 {
        return false;
    }
    let fastest = |work: &dyn Fn(&mut [[u32; 8]; 2])| {
        let time = |_| {
            let (start, mut states) = (Instant::now(), [INITIAL; 2]);
            work(&mut states);
            std::hint::black_box(states);
            start.elapsed()
        };
        (0..ROUNDS).map(time).min().unwrap_or(Duration::MAX)
    };
    let apart = fastest(&|states| states.iter_mut().for_each(|state| compress256(state, blocks)));
    let together = fastest(&|states| _ = compress_two(states.each_mut(), [blocks; 2]));
    together * 4 < apart * 3
}

/// Compresses blocks of both messages at once, and returns how many of each: none without the instructions for it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
// The only exception to the rule against unsafe code: Rust has no safe call of a function for some processors only.
#[allow(unsafe_code)]
fn compress_two(states: [&mut [u32; 8]; 2], blocks: [&[[u8; BLOCK]]; 2]) -> usize {
    if !pair::is_available() {
        return 0;
    }
    // SAFETY: the function is a safe one but for the instructions that it needs, and this processor has them.
    unsafe { pair::compress(states, blocks) };
    blocks[0].len().min(blocks[1].len())
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn compress_two(_: [&mut [u32; 8]; 2], _: [&[[u8; BLOCK]]; 2]) -> usize {
    0
}
