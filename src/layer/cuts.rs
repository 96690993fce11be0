//! Where large files are cut: at places that depend on the bytes near them, so that an insertion shifts nothing
//! behind it.
//!
//! This is FastCDC (Xia et al., USENIX ATC 2016) with normalised chunking of level 2. It takes the bytes as they come;
//! the crates for it want the longest possible chunk in one piece and then move what is left of it.

/// No chunk is shorter, in bytes, but the last of a file and the last before a run of zeros.
pub const SHORTEST: usize = 256 << 10;
/// What chunks are like. Podman's 64 KiB would need sixteen times the table of contents.
const USUAL: usize = 1 << 20;
/// No chunk is longer, in bytes.
pub const LONGEST: usize = 4 << 20;
/// Before the usual length a cut is four times as rare as one in 1 MiB, and behind it four times as frequent.
const RARE: u64 = u64::MAX << (64 - 22);
const FREQUENT: u64 = u64::MAX << (64 - 18);

/// One number for each byte. They are part of the format: other ones would cut elsewhere.
const GEAR: [u64; 256] = gear();

/// The first 256 numbers of SplitMix64 from zero: nothing up the sleeve.
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

/// Finds the end of one chunk after the other.
#[derive(Default)]
pub struct Cutter {
    hash: u64,
    length: usize,
}

impl Cutter {
    /// How many of these bytes belong to the current chunk, and whether it ends behind them.
    pub fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = bytes.len().min(SHORTEST.saturating_sub(self.length));
        for (end, mask) in [(USUAL, RARE), (LONGEST, FREQUENT)] {
            let end = bytes.len().min(end.saturating_sub(self.length)).max(at);
            if let Some(taken) = self.find(&bytes[at..end], mask) {
                *self = Self::default();
                return (at + taken, true);
            }
            at = end;
        }
        self.length += at;
        let full = self.length == LONGEST;
        if full {
            *self = Self::default();
        }
        (at, full)
    }

    /// How many bytes come before the first place where the hash has none of these bits.
    ///
    /// Four at a time: the hashes of all four follow from the one before and need not wait for each other, which takes
    /// half the time.
    fn find(&mut self, bytes: &[u8], mask: u64) -> Option<usize> {
        let (groups, rest) = bytes.as_chunks::<4>();
        let mut hash = self.hash;
        for (number, group) in groups.iter().enumerate() {
            let [a, b, c, d] = group.map(|byte| GEAR[usize::from(byte)]);
            let two = (a << 1).wrapping_add(b);
            let three = (two << 1).wrapping_add(c);
            let four = (three << 1).wrapping_add(d);
            let hashes = [
                (hash << 1).wrapping_add(a),
                (hash << 2).wrapping_add(two),
                (hash << 3).wrapping_add(three),
                (hash << 4).wrapping_add(four),
            ];
            if let Some(found) = hashes.iter().position(|hash| hash & mask == 0) {
                return Some(number * 4 + found + 1);
            }
            hash = hashes[3];
        }
        for (number, byte) in rest.iter().enumerate() {
            hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            if hash & mask == 0 {
                return Some(groups.len() * 4 + number + 1);
            }
        }
        self.hash = hash;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that no chunker knows beforehand.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        let next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn cut(bytes: &[u8], piece: usize) -> Vec<usize> {
        let (mut cutter, mut ends, mut at) = (Cutter::default(), Vec::new(), 0);
        while at < bytes.len() {
            let (taken, ends_here) = cutter.take(&bytes[at..bytes.len().min(at + piece)]);
            at += taken;
            if ends_here {
                ends.push(at);
            }
        }
        ends
    }

    #[test]
    fn chunks_keep_to_their_lengths_and_are_about_one_mebibyte() {
        let ends = cut(&noise(1, 64 << 20), usize::MAX >> 1);
        let lengths: Vec<usize> =
            ends.iter().scan(0, |last, end| Some(end - std::mem::replace(last, *end))).collect();
        assert!(lengths.iter().all(|length| (SHORTEST..=LONGEST).contains(length)), "{lengths:?}");
        assert!((45..75).contains(&lengths.len()), "{}", lengths.len());
        assert_eq!(
            cut(&vec![7; 10 << 20], 1 << 20),
            [4 << 20, 8 << 20],
            "what never changes is cut at the most"
        );
    }

    #[test]
    fn an_insertion_shifts_nothing_behind_it() {
        let bytes = noise(2, 32 << 20);
        let mut longer = bytes.clone();
        longer.splice((5 << 20)..(5 << 20), *b"inserted");
        let before: std::collections::BTreeSet<_> = cut(&bytes, 1 << 16).into_iter().collect();
        let after: Vec<_> = cut(&longer, 1 << 16);
        let moved =
            after.iter().filter(|end| !before.contains(end) && !before.contains(&(**end - 8))).count();
        assert!(moved <= 3, "{moved} of {}", after.len());
    }

    /// To change this is to change the bytes of layers: write it into CHANGELOG.md.
    #[test]
    fn the_golden_bytes_are_cut_at_the_golden_places() {
        assert_eq!(
            cut(&noise(3, 8 << 20), 1 << 20),
            [1_257_057, 2_288_217, 3_474_533, 4_603_182, 5_732_885, 7_361_076]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn the_cuts_do_not_depend_on_how_the_bytes_come(seed in any::<u64>(), piece in 1..3_000_000usize) {
            let bytes = noise(seed, 9 << 20);
            prop_assert_eq!(cut(&bytes, piece), cut(&bytes, 9 << 20));
        }
    }
}
