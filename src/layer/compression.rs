//! How a layer is compressed: frame by frame, so that all cores can work and no byte depends on how many.

use super::blob::Blob;
use super::format::FRAME;
use super::frames::{Cuts, Frame, Framer, Note, Packed};
use super::gzip;
use super::toc::TocWriter;
use super::writer::LayerWriter;
use crate::error::{Error, Result};
use crate::oci::{Digest, media_type};
use crate::stream::{Workers, pipe, workers};
use crate::tree::EntryKind;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::mpsc::channel;
use zstd::zstd_safe::CParameter;

/// zstd's own default, and the only level whose tables were measured.
const DEFAULT_LEVEL: i32 = 3;
/// Nothing is done to it; the blocks only keep the hasher and the sender busy at once.
const PLAIN_BLOCK: usize = 1 << 20;

/// The compression of a layer with its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// zstd, levels 1 to 19; needs Docker 23 or containerd 1.5.
    Zstd {
        /// The level.
        level: i32,
    },
    /// gzip, levels 1 to 9; everybody can read it.
    Gzip {
        /// The level.
        level: u32,
    },
    /// A plain tar archive.
    None,
}

impl Compression {
    /// The media type of a layer compressed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Zstd { .. } => media_type::LAYER_ZSTD,
            Self::Gzip { .. } => media_type::LAYER_GZIP,
            Self::None => media_type::LAYER,
        }
    }

    /// The threads that compress: as many as there are cores, and as fit into the memory.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn workers(self) -> Result<Workers> {
        Workers::start(workers(self.most_workers()))
    }

    /// How many workers fit into 150 MiB. Measured on blocks of 4 MiB, a worker takes 12 MiB at zstd's level 6, 20 at
    /// 9, 46 at 12, 70 at 15 and 55 at 19, and everything else together 30.
    fn most_workers(self) -> usize {
        match self {
            Self::Zstd { level: ..=6 } | Self::Gzip { .. } | Self::None => 8,
            Self::Zstd { level: 7..=9 } => 5,
            Self::Zstd { level: 13..=15 } => 1,
            Self::Zstd { .. } => 2,
        }
    }

    /// A layer in the making and the blob that it becomes, which must be read on another thread. `share` is how many
    /// of the workers it can keep busy.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn layer(self, workers: &Workers, share: usize) -> Result<(LayerWriter<Framer>, Blob)> {
        let (cuts, toc) = match self {
            Self::Zstd { .. } => (Cuts::ByContent, Some(TocWriter::new())),
            Self::Gzip { .. } => (Cuts::Every(gzip::CONTENT), None),
            Self::None => (Cuts::Every(PLAIN_BLOCK), None),
        };
        let toc = toc.transpose().map_err(|error| Error::io("cannot compress", error))?;
        let (writer, reader) = pipe(workers, share, move |frame| self.pack(frame));
        let (told, toc_is) = channel();
        Ok((LayerWriter::over(Framer::new(cuts, writer, toc_is)?), Blob::new(reader, toc, told)))
    }

    /// Compresses a frame, and completes what the table of contents shall say about it.
    fn pack(self, Frame { block, mut notes }: Frame) -> io::Result<Packed> {
        let plain = block.as_ref();
        for note in &mut notes {
            match note {
                Note::Whole { entry, inner, digest } => {
                    if let EntryKind::File { size: size @ 1.. } = entry.kind
                        && let Some(content) = content(plain, *inner, size)
                    {
                        *digest = Some(Digest::of(content));
                    }
                }
                Note::Chunk { digest, .. } => *digest = Some(Digest::of(plain)),
                Note::Begin(_) | Note::End => {}
            }
        }
        let bytes = match self {
            Self::Zstd { level } => zstd_frame(plain, level)?,
            Self::Gzip { level } => gzip::member(plain, level)?,
            Self::None => plain.to_vec(),
        };
        Ok(Packed { bytes, plain_size: plain.len(), notes })
    }
}

fn content(plain: &[u8], inner: usize, size: u64) -> Option<&[u8]> {
    plain.get(inner..)?.get(..usize::try_from(size).ok()?)
}

thread_local! {
    /// The tables of a compressor are larger than many frames; what was compressed before changes nothing.
    static COMPRESSORS: RefCell<BTreeMap<i32, zstd::bulk::Compressor<'static>>> = const { RefCell::new(BTreeMap::new()) };
}

/// A zstd frame that tells its content's size.
fn zstd_frame(plain: &[u8], level: i32) -> io::Result<Vec<u8>> {
    if level <= STORING && plain.len() >= LOOKED_AT && is_noise(plain)? {
        return Ok(stored(plain));
    }
    compressed(plain, level)
}

/// Up to this level a frame that looks like noise is stored. Who asks for more wants it tried.
const STORING: i32 = 6;
/// A smaller frame is compressed sooner than it is looked at, in bytes.
const LOOKED_AT: usize = 256 << 10;
/// How many places of a frame are looked at, and how many bytes of each.
const PLACES: usize = 4;
const PLACE: usize = 8 << 10;

/// Whether some places of a frame do not compress. They are the same wherever it is done.
fn is_noise(plain: &[u8]) -> io::Result<bool> {
    let mut places = Vec::with_capacity(PLACES * PLACE);
    for number in 0..PLACES {
        // In the middle of each quarter: beginnings are headers, of files and of the blocks in them.
        let middle = plain.len() / PLACES * number + plain.len() / (2 * PLACES);
        places.extend_from_slice(&plain[middle..middle + PLACE]);
    }
    // What does not compress becomes a little larger; a 64th less would be worth the trouble.
    Ok(compressed(&places, 1)?.len() > places.len() - places.len() / 64)
}

/// A frame of blocks that are as they were (RFC 8878, sections 3.1.1 and 3.1.1.2.2).
fn stored(plain: &[u8]) -> Vec<u8> {
    /// No block is larger.
    const BLOCK: usize = 128 << 10;
    /// One segment, which needs no window, and whose size stands in four bytes behind this.
    const DESCRIPTOR: u8 = 0xa0;
    let blocks = plain.len().div_ceil(BLOCK);
    let mut frame = Vec::with_capacity(9 + plain.len() + 3 * blocks);
    frame.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, DESCRIPTOR]);
    frame.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    for (number, block) in plain.chunks(BLOCK).enumerate() {
        let header = (block.len() as u32) << 3 | u32::from(number + 1 == blocks);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

/// A compressor whose frames find repetitions from their first byte to their last.
fn compressor(level: i32) -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    // The window of a whole stream is 512 KiB to 2 MiB at these levels; a frame has all of its 4 MiB at hand.
    if level < 9 {
        compressor.set_parameter(CParameter::WindowLog(FRAME.ilog2()))?;
    }
    // A table of contents costs small files 2 %. Larger tables find as much as that, for 4 % more of the compressor's
    // time (docs/performance.md has what other sizes give).
    if level == DEFAULT_LEVEL {
        compressor.set_parameter(CParameter::HashLog(18))?;
        compressor.set_parameter(CParameter::ChainLog(18))?;
    }
    Ok(compressor)
}

fn compressed(plain: &[u8], level: i32) -> io::Result<Vec<u8>> {
    COMPRESSORS.with_borrow_mut(|kept| {
        let compressor = match kept.entry(level) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(place) => place.insert(compressor(level)?),
        };
        let mut frame = compressor.compress(plain)?;
        frame.shrink_to_fit();
        Ok(frame)
    })
}

impl Default for Compression {
    fn default() -> Self {
        Self::Zstd { level: DEFAULT_LEVEL }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zstd { level } => write!(f, "zstd:{level}"),
            Self::Gzip { level } => write!(f, "gzip:{level}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let invalid = || {
            Error::usage(format!("{text:?} is not a compression"))
                .with_hint("write zstd[:1-19], gzip[:1-9] or none; zstd:3 is the default")
        };
        let number = |default: u32, highest: u32| match level.map(str::parse) {
            None => Ok(default),
            Some(Ok(level)) if (1..=highest).contains(&level) => Ok(level),
            Some(_) => Err(invalid()),
        };
        match name {
            "zstd" => Ok(Self::Zstd { level: number(DEFAULT_LEVEL.unsigned_abs(), 19)?.cast_signed() }),
            "gzip" => Ok(Self::Gzip { level: number(6, 9)? }),
            "none" if level.is_none() => Ok(Self::None),
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decompress;
    use super::*;
    use crate::tree::{Entry, Metadata, TreePath};
    use proptest::prelude::*;
    use std::io::Read;
    use std::thread;

    /// A layer of one file.
    fn compress(compression: Compression, workers: usize, bytes: &[u8]) -> Vec<u8> {
        let file = EntryKind::File { size: bytes.len() as u64 };
        let file =
            Entry { path: TreePath::parse("file").unwrap(), kind: file, metadata: Metadata::default() };
        let (mut writer, mut blob) = compression.layer(&Workers::start(workers).unwrap(), workers).unwrap();
        let mut out = Vec::new();
        thread::scope(|scope| {
            scope.spawn(move || {
                writer.append(&file, bytes, |_| {}).unwrap();
                writer.finish().unwrap();
            });
            blob.read_to_end(&mut out).unwrap();
        });
        out
    }

    fn plain(compressed: impl Read + Send) -> Vec<u8> {
        let mut plain = Vec::new();
        decompress(compressed).unwrap().read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn compressions_read_and_print_alike() {
        for (text, full) in [("zstd", "zstd:3"), ("gzip", "gzip:6"), ("none", "none"), ("zstd:19", "zstd:19")]
        {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), full);
        }
        for text in ["", "zstd:", "zstd:0", "zstd:20", "gzip:10", "gzip:x", "none:1", "xz"] {
            assert!(text.parse::<Compression>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_number_of_workers_changes_no_byte() {
        let bytes: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n % 1013 * 7).to_le_bytes()).collect();
        for compression in [Compression::default(), Compression::Gzip { level: 6 }, Compression::None] {
            assert_eq!(compress(compression, 1, &bytes), compress(compression, 5, &bytes), "{compression}");
        }
    }

    /// Bytes that do not compress.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 7u64;
        let next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn what_does_not_compress_is_stored_and_what_does_in_places_is_compressed() {
        for length in [LOOKED_AT, LOOKED_AT + 1, (1 << 20) - 1, 4 << 20] {
            let plain = noise(length);
            let frame = zstd_frame(&plain, 3).unwrap();
            assert!(frame == stored(&plain), "{length}");
            assert!(zstd::bulk::decompress(&frame, length).unwrap() == plain, "{length}");
            // No larger than what zstd makes of it.
            assert!(frame.len() <= compressed(&plain, 3).unwrap().len(), "{length}");
        }
        let mut half = noise(1 << 20);
        half[..512 << 10].fill(b'x');
        assert!(zstd_frame(&half, 3).unwrap().len() < 600 << 10);
        assert!(zstd_frame(&vec![b'x'; 1 << 20], 3).unwrap().len() < 1 << 10);
        let small = noise(LOOKED_AT - 1);
        assert!(zstd_frame(&small, 3).unwrap() == compressed(&small, 3).unwrap());
    }

    #[test]
    fn what_repeats_within_a_frame_is_found_however_far_apart_it_is() {
        let once = noise(1 << 20);
        let other = vec![b'x'; 2 << 20];
        let plain = [once.as_slice(), &other, &once].concat();
        for level in [1, 3, 6] {
            let size = compressed(&plain, level).unwrap().len();
            assert!(size < once.len() + (64 << 10), "level {level}: {size}");
        }
    }

    /// To change this is to change the bytes of layers: write it into CHANGELOG.md.
    #[test]
    fn a_golden_frame_has_the_golden_digest() {
        let words: Vec<u8> = noise(4 << 20).iter().map(|byte| b'a' + (byte >> 6)).collect();
        assert_eq!(
            crate::oci::Digest::of(&zstd_frame(&words, 3).unwrap()).to_string(),
            "sha256:524a804fd7058240c4f280f420e9e132ec13ced89b35ab3a3babd56f1a3ed27e"
        );
    }

    #[test]
    fn a_network_that_gives_one_byte_at_first_changes_nothing() {
        for compression in [Compression::default(), Compression::Gzip { level: 1 }, Compression::None] {
            let compressed = compress(compression, 1, b"plain");
            let arrives = compressed[..1].chain(&compressed[1..]);
            assert_eq!(plain(arrives)[512..][..5], *b"plain", "{compression}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn what_is_compressed_comes_back(seed in any::<u64>(), len in 0..9_000_000usize, kind in 0..3) {
            let compression = [Compression::default(), Compression::Gzip { level: 1 }, Compression::None][kind as usize];
            let bytes: Vec<u8> = (0..len as u64).map(|n| b'a' + (n.wrapping_mul(seed | 1) >> 40) as u8 % 16).collect();
            prop_assert!(plain(compress(compression, 3, &bytes).as_slice())[512..][..len] == bytes);
        }
    }
}
