//! Content-defined chunking of large files: a boundary depends on the bytes before it, so an insertion moves no boundary
//! after it.
//!
//! This is FastCDC (Xia et al., USENIX ATC 2016) with normalised chunking of level 2. It takes the bytes as they come;
//! the crates for it need the longest possible chunk in one slice and then move the rest. The boundaries decide the bytes
//! of layers, so they must not change with the version of a crate either.

/// The smallest size of a chunk in bytes, except for the last one of a file and the last one before a run of zeros.
pub const MIN_SIZE: usize = 256 << 10;
/// The usual size of a chunk in bytes. Podman's 64 KiB would make the table of contents sixteen times as large.
const NORMAL_SIZE: usize = 1 << 20;
/// The largest size of a chunk, in bytes.
pub const MAX_SIZE: usize = 4 << 20;
/// Masks of the hash. Before the normal size, a boundary is four times as rare as one in 1 MiB, and after it four times as
/// frequent.
const RARE: u64 = u64::MAX << (64 - 22);
const FREQUENT: u64 = u64::MAX << (64 - 18);

/// A number for each byte. They are part of the format: others would give other boundaries.
const GEAR: [u64; 256] = gear();

/// Returns the first 256 numbers of SplitMix64 from zero, so that they are reproducible.
const fn gear() -> [u64; 256] {
    let mut table = [0u64; 256];
    let (mut state, mut n) = (0u64, 0);
    while n < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[n] = z ^ (z >> 31);
        n += 1;
    }
    table
}

/// A chunker, which finds the boundaries of one chunk after another.
#[derive(Default)]
pub struct Chunker {
    hash: u64,
    length: usize,
}

impl Chunker {
    /// Returns how many of these bytes belong to the current chunk, and whether it ends after them.
    pub fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = bytes.len().min(MIN_SIZE.saturating_sub(self.length));
        for (end, mask) in [(NORMAL_SIZE, RARE), (MAX_SIZE, FREQUENT)] {
            let end = bytes.len().min(end.saturating_sub(self.length)).max(at);
            if let Some(taken) = self.find(&bytes[at..end], mask) {
                *self = Self::default();
                return (at + taken, true);
            }
            at = end;
        }
        self.length += at;
        let full = self.length == MAX_SIZE;
        if full {
            *self = Self::default();
        }
        (at, full)
    }

    /// Returns the number of bytes up to the first position at which the hash has none of these bits.
    ///
    /// It computes eight hashes at a time, and every second one from the second before it: the others wait for no result of
    /// each other, so that the processor computes them in parallel.
    fn find(&mut self, bytes: &[u8], mask: u64) -> Option<usize> {
        const GROUP: usize = 8;
        let (groups, rest) = bytes.as_chunks::<GROUP>();
        let mut hash = self.hash;
        for (number, group) in groups.iter().enumerate() {
            let gears = group.map(|byte| GEAR[usize::from(byte)]);
            let mut hashes = [0; GROUP];
            for (hashes, [first, second]) in
                hashes.as_chunks_mut::<2>().0.iter_mut().zip(gears.as_chunks::<2>().0)
            {
                let both = (first << 1).wrapping_add(*second);
                *hashes = [(hash << 1).wrapping_add(*first), (hash << 2).wrapping_add(both)];
                hash = hashes[1];
            }
            if let Some(found) = hashes.iter().position(|hash| hash & mask == 0) {
                return Some(number * GROUP + found + 1);
            }
        }
        for (number, byte) in rest.iter().enumerate() {
            hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            if hash & mask == 0 {
                return Some(groups.len() * GROUP + number + 1);
            }
        }
        self.hash = hash;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;
    use proptest::prelude::*;

    fn boundaries(bytes: &[u8], piece: usize) -> Vec<usize> {
        let (mut chunker, mut ends, mut at) = (Chunker::default(), Vec::new(), 0);
        while at < bytes.len() {
            let (taken, ends_here) = chunker.take(&bytes[at..bytes.len().min(at + piece)]);
            at += taken;
            if ends_here {
                ends.push(at);
            }
        }
        ends
    }

    #[test]
    fn chunks_are_about_one_mebibyte_and_within_the_limits() {
        let ends = boundaries(&noise(1, 64 << 20), usize::MAX >> 1);
        let lengths: Vec<usize> =
            ends.iter().scan(0, |last, end| Some(end - std::mem::replace(last, *end))).collect();
        assert!(lengths.iter().all(|length| (MIN_SIZE..=MAX_SIZE).contains(length)), "{lengths:?}");
        assert!((45..75).contains(&lengths.len()), "{}", lengths.len());
        assert_eq!(
            boundaries(&vec![7; 10 << 20], 1 << 20),
            [4 << 20, 8 << 20],
            "constant bytes are cut at the largest size"
        );
    }

    #[test]
    fn an_insertion_moves_no_boundary_after_it() {
        let bytes = noise(2, 32 << 20);
        let mut longer = bytes.clone();
        longer.splice((5 << 20)..(5 << 20), *b"inserted");
        let before: std::collections::BTreeSet<_> = boundaries(&bytes, 1 << 16).into_iter().collect();
        let after: Vec<_> = boundaries(&longer, 1 << 16);
        let moved =
            after.iter().filter(|end| !before.contains(end) && !before.contains(&(**end - 8))).count();
        assert!(moved <= 3, "{moved} of {}", after.len());
    }

    /// A change of these numbers changes the bytes of layers and belongs into CHANGELOG.md.
    #[test]
    fn the_golden_bytes_have_the_golden_boundaries() {
        assert_eq!(
            boundaries(&noise(3, 8 << 20), 1 << 20),
            [1_257_057, 2_288_217, 3_474_533, 4_603_182, 5_732_885, 7_361_076]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn boundaries_do_not_depend_on_the_sizes_of_the_slices(seed in any::<u64>(), piece in 1..3_000_000usize) {
            let bytes = noise(seed, 9 << 20);
            prop_assert_eq!(boundaries(&bytes, piece), boundaries(&bytes, 9 << 20));
        }
    }
}
