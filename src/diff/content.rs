//! What is known of the content of an entry: a digest, for which holes need not be read.

use crate::error::{Error, Result};
use crate::oci::{Digest, Hasher};
use crate::tree::{Content, Entry, EntryKind};
use std::io::{self, Read};

/// Zeros that fill such a block of a file, at a multiple of its size in bytes, count as a hole however they are stored.
const BLOCK: usize = 64 << 10;
/// A block of zeros.
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// What was learned about a path when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Learned {
    /// Only that it is there: a path below it says so.
    #[default]
    Implied,
    /// All; with the digest of the content where there is one.
    Told(Option<Digest>),
}

/// The digest of the content of an entry, if it is a file.
///
/// That of a content without blocks of zeros is its SHA-256. Otherwise it is the SHA-256 of the other blocks, followed by
/// the SHA-256 of where each run of zeros begins and how long it is: a hole of terabytes takes no time. Contents of the same
/// size have the same digest only if they are the same.
///
/// # Errors
/// Those of reading.
pub fn digest(entry: &Entry, content: &mut dyn Content) -> Result<Option<Digest>> {
    match entry.kind {
        EntryKind::File { .. } => ContentHasher::default()
            .hash(content)
            .map(Some)
            .map_err(|error| Error::io(format!("cannot read {}", entry.path), error)),
        _ => Ok(None),
    }
}

/// A content that is being hashed.
#[derive(Default)]
struct ContentHasher {
    /// Where the current block begins.
    position: u64,
    /// What has come of the current block.
    block: Vec<u8>,
    /// Where the run of zeros begins that ends at `position`.
    zeros_from: Option<u64>,
    /// Whether any run of zeros has ended.
    has_zeros: bool,
    zeros: Hasher,
    bytes: Hasher,
}

impl ContentHasher {
    fn hash(mut self, mut content: impl Content) -> io::Result<Digest> {
        loop {
            let hole = content.skip_hole();
            if hole > 0 {
                self.pass_hole(hole);
                continue;
            }
            let room = BLOCK - self.block.len();
            if content.by_ref().take(room as u64).read_to_end(&mut self.block)? == 0 {
                return Ok(self.finish());
            }
            self.end_block();
        }
    }

    fn pass_hole(&mut self, hole: u64) {
        let first = match self.block.len() {
            0 => 0,
            begun => hole.min((BLOCK - begun) as u64),
        };
        self.block.extend_from_slice(&ZEROS[..first as usize]);
        self.end_block();
        let (whole, rest) = ((hole - first) / BLOCK as u64, (hole - first) % BLOCK as u64);
        if whole > 0 {
            self.zeros_from.get_or_insert(self.position);
            self.position += whole * BLOCK as u64;
        }
        self.block.extend_from_slice(&ZEROS[..rest as usize]);
    }

    /// Takes the current block, if all of it has come.
    fn end_block(&mut self) {
        if self.block.len() < BLOCK {
            return;
        }
        match self.block == ZEROS {
            true => _ = self.zeros_from.get_or_insert(self.position),
            false => {
                self.end_zeros();
                self.bytes.update(&self.block);
            }
        }
        self.position += BLOCK as u64;
        self.block.clear();
    }

    fn end_zeros(&mut self) {
        if let Some(from) = self.zeros_from.take() {
            self.has_zeros = true;
            self.zeros.update(&from.to_le_bytes());
            self.zeros.update(&(self.position - from).to_le_bytes());
        }
    }

    fn finish(mut self) -> Digest {
        self.end_zeros();
        self.bytes.update(&self.block);
        if self.has_zeros {
            self.bytes.update(self.zeros.finish().as_bytes());
        }
        self.bytes.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Metadata, TreePath};

    /// A content of stretches: so many bytes of a value, or so many zeros of a hole.
    struct Stretches(Vec<(u64, Option<u8>)>);

    impl Read for Stretches {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            while self.0.last().is_some_and(|stretch| stretch.0 == 0) {
                self.0.pop();
            }
            let Some((left, byte)) = self.0.last_mut() else { return Ok(0) };
            let now = buffer.len().min(*left as usize);
            buffer[..now].fill(byte.unwrap_or_default());
            *left -= now as u64;
            Ok(now)
        }
    }

    impl Content for Stretches {
        fn skip_hole(&mut self) -> u64 {
            match self.0.pop_if(|(_, byte)| byte.is_none()) {
                Some((size, _)) => size,
                None => 0,
            }
        }
    }

    fn hashed(stretches: &[(u64, Option<u8>)]) -> Digest {
        let size = stretches.iter().map(|stretch| stretch.0).sum();
        let path = TreePath::parse("file").unwrap();
        let entry = Entry { path, kind: EntryKind::File { size }, metadata: Metadata::default() };
        let mut content = Stretches(stretches.iter().rev().copied().collect());
        digest(&entry, &mut content).unwrap().unwrap()
    }

    #[test]
    fn a_content_without_long_runs_of_zeros_has_its_ordinary_digest() {
        let bytes = [vec![7; 100_000], vec![0; 60_000], vec![7; 5]].concat();
        let stretches = [(100_000, Some(7)), (60_000, Some(0)), (5, Some(7))];
        assert_eq!(hashed(&stretches), Digest::of(&bytes));
        assert_eq!(hashed(&[]), Digest::of(b""));
        assert_eq!(hashed(&[(9, None)]), Digest::of(&[0; 9]));
    }

    #[test]
    fn zeros_are_the_same_whether_they_are_a_hole_or_stored() {
        for (before, zeros, after) in [
            (0, 1 << 20, 0),
            (1, 300_000, 1),
            (65_536, 131_072, 9),
            (70_000, 200_001, 70_000),
            (5, 65_536, 0),
        ] {
            let stored = hashed(&[(before, Some(1)), (zeros, Some(0)), (after, Some(2))]);
            assert_eq!(stored, hashed(&[(before, Some(1)), (zeros, None), (after, Some(2))]));
            assert_eq!(
                stored,
                hashed(&[(before, Some(1)), (zeros - 7, None), (7, Some(0)), (after, Some(2))])
            );
            let moved = hashed(&[(before, Some(1)), (zeros, None), (after, Some(3))]);
            assert_eq!(stored == moved, after == 0);
        }
        assert_ne!(
            hashed(&[(131_072, None), (65_536, Some(1))]),
            hashed(&[(65_536, None), (131_072, Some(1))])
        );
    }

    #[test]
    fn a_hole_of_exbibytes_takes_no_time() {
        assert_ne!(hashed(&[(1 << 62, None)]), hashed(&[((1 << 62) + 1, None)]));
    }
}
