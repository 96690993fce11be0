//! Compression of a layer, frame by frame. All cores work at once, and the bytes do not depend on their number.

use super::archive_hash::ArchiveHash;
use super::blob::LayerBlob;
use super::blob_hash::BlobHashing;
use super::framer::{CompressedFrame, FrameContent, FrameRule, Framer};
use super::gzip;
use crate::error::{Error, Result};
use crate::layer::format::FRAME;
use crate::layer::tar::LayerWriter;
use crate::layer::toc::TocWriter;
use crate::oci::{PairedSha256, media_type};
use crate::stream::{Workers, pipe, worker_count};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io;
use std::mem;
use std::str::FromStr;
use zstd::zstd_safe::CParameter;

/// The default of zstd itself, and the only level for which the sizes of tables were measured.
const DEFAULT_LEVEL: i32 = 3;
/// The size of the units of an uncompressed layer, in bytes. They let the hashing and the sending thread work at once.
const PLAIN_UNIT: usize = 1 << 20;

/// The compression of a layer with its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// zstd, levels 1 to 19. It needs Docker 23 or containerd 1.5.
    Zstd {
        /// The level.
        level: i32,
    },
    /// gzip, levels 1 to 9. Every engine reads it.
    Gzip {
        /// The level.
        level: u32,
    },
    /// A plain tar archive.
    None,
}

impl Compression {
    /// Returns the media type of a layer with this compression.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Zstd { .. } => media_type::LAYER_ZSTD,
            Self::Gzip { .. } => media_type::LAYER_GZIP,
            Self::None => media_type::LAYER,
        }
    }

    /// Starts the threads that compress: as many as there are cores and as fit into the memory.
    ///
    /// # Errors
    /// Fails if the system cannot start a thread.
    pub fn workers(self) -> Result<Workers> {
        Workers::start(worker_count(self.max_workers()))
    }

    /// Returns the number of workers that fit into 150 MiB. Measured on frames of 4 MiB, a worker takes 12 MiB at level 6
    /// of zstd, 20 at 9, 46 at 12, 70 at 15 and 55 at 19, and everything else together takes 30.
    fn max_workers(self) -> usize {
        match self {
            Self::Zstd { level: ..=6 } | Self::Gzip { .. } | Self::None => 8,
            Self::Zstd { level: 7..=9 } => 5,
            Self::Zstd { level: 13..=15 } => 1,
            Self::Zstd { .. } => 2,
        }
    }

    /// Starts a layer. Returns the writer of its archive and the blob that this becomes, which must be read on another
    /// thread. `share` is the number of workers that the layer can keep busy.
    ///
    /// # Errors
    /// Fails if there is not enough memory, or if the system cannot start a thread.
    pub fn layer(self, workers: &Workers, share: usize) -> Result<(LayerWriter<Framer>, LayerBlob)> {
        let hashing = if PairedSha256::is_faster() { Hashing::Together } else { Hashing::Apart };
        self.layer_with(hashing, workers, share)
    }

    fn layer_with(
        self,
        hashing: Hashing,
        workers: &Workers,
        share: usize,
    ) -> Result<(LayerWriter<Framer>, LayerBlob)> {
        let (rule, toc) = match self {
            Self::Zstd { .. } => (FrameRule::ByContent, Some(TocWriter::new())),
            Self::Gzip { .. } => (FrameRule::Fixed(gzip::CONTENT), None),
            Self::None => (FrameRule::Fixed(PLAIN_UNIT), None),
        };
        let toc = toc.transpose().map_err(|error| Error::io("cannot compress", error))?;
        let (blob_hash, blob_hashing) = match hashing {
            Hashing::Together => Some(BlobHashing::new()),
            Hashing::Apart => None,
        }
        .unzip();
        let hash = ArchiveHash::start(blob_hashing)?;
        let (frames, compressed) = pipe(workers, share, move |content| self.compress(content));
        Ok((LayerWriter::over(Framer::new(rule, hash, frames)), LayerBlob::new(compressed, toc, blob_hash)))
    }

    fn compress(self, FrameContent { plain, items, events }: FrameContent) -> io::Result<CompressedFrame> {
        let parts = match self {
            Self::Zstd { level } => zstd_frame(&plain, level)?,
            Self::Gzip { level } => vec![gzip::member(&plain, level)?.into()],
            Self::None => vec![plain.clone()],
        };
        if let Some(items) = items {
            items.hash(&plain);
        }
        Ok(CompressedFrame { parts, plain_size: plain.len(), events })
    }
}

/// The threads that compute the digests of a layer.
#[derive(Clone, Copy)]
enum Hashing {
    /// One thread computes all of them at once.
    Together,
    /// One thread hashes the archive, the workers hash the content of files, and the reader of the blob hashes that.
    Apart,
}

thread_local! {
    /// A compressor for each level. Its tables are larger than many frames, so it is reused, which changes no byte.
    static COMPRESSORS: RefCell<BTreeMap<i32, zstd::bulk::Compressor<'static>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Returns the parts of a zstd frame that declares the size of its content.
fn zstd_frame(plain: &Bytes, level: i32) -> io::Result<Vec<Bytes>> {
    if level <= MAX_STORING_LEVEL && plain.len() >= MIN_SAMPLED && is_incompressible(plain)? {
        return Ok(stored(plain));
    }
    Ok(vec![compressed(plain, level)?.into()])
}

/// The highest level at which a frame that looks incompressible is stored. At a higher level, the user wants it to be
/// compressed regardless of the time.
const MAX_STORING_LEVEL: i32 = 6;
/// The smallest frame that is sampled, in bytes. A smaller one takes less time to compress than to sample.
const MIN_SAMPLED: usize = 256 << 10;
/// The number of samples of a frame, and the size of each in bytes.
const SAMPLES: usize = 4;
const SAMPLE_SIZE: usize = 8 << 10;

/// Returns whether samples of a frame do not compress. The samples are at the same positions on every machine.
fn is_incompressible(plain: &[u8]) -> io::Result<bool> {
    let mut samples = Vec::with_capacity(SAMPLES * SAMPLE_SIZE);
    for number in 0..SAMPLES {
        // In the middle of each quarter: beginnings are headers, of files and of the blocks in them.
        let middle = plain.len() / SAMPLES * number + plain.len() / (2 * SAMPLES);
        samples.extend_from_slice(&plain[middle..middle + SAMPLE_SIZE]);
    }
    // Incompressible samples become a little larger. Compression is worth its time if they become smaller by 1/64.
    Ok(compressed(&samples, 1)?.len() > samples.len() - samples.len() / 64)
}

/// Returns the parts of a frame of uncompressed blocks (RFC 8878, sections 3.1.1 and 3.1.1.2.2). The blocks are parts of
/// `plain`, so that they are not copied.
fn stored(plain: &Bytes) -> Vec<Bytes> {
    /// The largest block that the format allows, in bytes.
    const BLOCK: usize = 128 << 10;
    /// A frame of a single segment, which needs no window, followed by its size in four bytes.
    const DESCRIPTOR: u8 = 0xa0;
    let mut header = vec![0x28, 0xb5, 0x2f, 0xfd, DESCRIPTOR];
    header.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    let mut parts = Vec::with_capacity(2 * plain.len().div_ceil(BLOCK));
    let mut left = plain.clone();
    while !left.is_empty() {
        let block = left.split_to(left.len().min(BLOCK));
        let block_header = (block.len() as u32) << 3 | u32::from(left.is_empty());
        header.extend_from_slice(&block_header.to_le_bytes()[..3]);
        parts.extend([mem::take(&mut header).into(), block]);
    }
    parts
}

/// Returns a compressor that finds repetitions across a whole frame.
fn compressor(level: i32) -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    // The default window is 512 KiB to 2 MiB at these levels, and a frame has 4 MiB.
    if level < 9 {
        compressor.set_parameter(CParameter::WindowLog(FRAME.ilog2()))?;
    }
    // A table of contents makes layers of small files 2 % larger. Larger tables of the compressor save as much, for 4 %
    // more of its time (docs/performance.md has the measurements of other sizes).
    if level == DEFAULT_LEVEL {
        compressor.set_parameter(CParameter::HashLog(18))?;
        compressor.set_parameter(CParameter::ChainLog(18))?;
    }
    Ok(compressor)
}

fn compressed(plain: &[u8], level: i32) -> io::Result<Vec<u8>> {
    COMPRESSORS.with_borrow_mut(|compressors| {
        let compressor = match compressors.entry(level) {
            Entry::Occupied(compressor) => compressor.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(compressor(level)?),
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
    use super::*;
    use crate::layer::decompress;
    use crate::testing::noise;
    use crate::tree::{Entry, EntryKind, Metadata, TreePath};
    use proptest::prelude::*;
    use std::io::Read;
    use std::thread;

    /// Returns a layer with one file.
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
    fn a_compression_is_printed_as_it_is_parsed() {
        for (text, full) in [("zstd", "zstd:3"), ("gzip", "gzip:6"), ("none", "none"), ("zstd:19", "zstd:19")]
        {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), full);
        }
        for text in ["", "zstd:", "zstd:0", "zstd:20", "gzip:10", "gzip:x", "none:1", "xz"] {
            assert!(text.parse::<Compression>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_number_of_workers() {
        let bytes: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n % 1013 * 7).to_le_bytes()).collect();
        for compression in [Compression::default(), Compression::Gzip { level: 6 }, Compression::None] {
            assert_eq!(compress(compression, 1, &bytes), compress(compression, 5, &bytes), "{compression}");
        }
    }

    #[test]
    fn the_digests_do_not_depend_on_the_threads_that_compute_them() {
        let text: Vec<u8> = (0..200_000u32).flat_map(|n| (n % 1013 * 7).to_le_bytes()).collect();
        let files = [
            text.clone(),
            noise(1, 3 << 20),
            vec![],
            noise(2, 10_000),
            vec![0; 512 << 10],
            noise(3, 1),
            text,
        ];
        for compression in [Compression::default(), Compression::Gzip { level: 1 }, Compression::None] {
            let [together, apart] = [Hashing::Together, Hashing::Apart].map(|hashing| {
                let workers = Workers::start(2).unwrap();
                let (mut writer, blob) = compression.layer_with(hashing, &workers, 2).unwrap();
                let (toc, mut body, mut bytes) = (blob.pending_toc(), blob.into_body(), Vec::new());
                let contents = thread::scope(|scope| {
                    let written = scope.spawn(|| {
                        for (number, content) in files.iter().enumerate() {
                            let path = TreePath::parse(number.to_string()).unwrap();
                            let kind = EntryKind::File { size: content.len() as u64 };
                            let entry = Entry { path, kind, metadata: Metadata::default() };
                            writer.append(&entry, content.as_slice(), |_| {}).unwrap();
                        }
                        writer.finish().unwrap().1
                    });
                    body.read_to_end(&mut bytes).unwrap();
                    written.join().unwrap()
                });
                let written = body.finish().unwrap();
                assert_eq!(written.digest, crate::oci::Digest::of(&bytes));
                assert_eq!(contents.diff_id, crate::oci::Digest::of(&plain(bytes.as_slice())));
                (bytes, crate::layer::Layer::new(compression, &contents, written, toc.get()).descriptor)
            });
            assert!(together == apart, "{compression}");
        }
    }

    #[test]
    fn the_other_end_of_a_layer_that_is_abandoned_gets_an_error() {
        for hashing in [Hashing::Together, Hashing::Apart] {
            let workers = Workers::start(1).unwrap();
            let (mut writer, blob) = Compression::default().layer_with(hashing, &workers, 1).unwrap();
            drop(blob);
            let content = vec![7; 12 << 20];
            let kind = EntryKind::File { size: content.len() as u64 };
            let path = TreePath::parse("file").unwrap();
            let entry = Entry { path, kind, metadata: Metadata::default() };
            assert!(writer.append(&entry, content.as_slice(), |_| {}).unwrap_err().is_broken_pipe());
            let (writer, blob) = Compression::default().layer_with(hashing, &workers, 1).unwrap();
            drop(writer);
            assert!(blob.into_body().drain().is_err());
        }
    }

    #[test]
    fn incompressible_frames_are_stored_and_partly_compressible_ones_are_compressed() {
        for length in [MIN_SAMPLED, MIN_SAMPLED + 1, (1 << 20) - 1, 4 << 20] {
            let plain = Bytes::from(noise(7, length));
            let frame = zstd_frame(&plain, 3).unwrap();
            assert!(frame == stored(&plain), "{length}");
            let frame = frame.concat();
            assert!(zstd::bulk::decompress(&frame, length).unwrap() == plain, "{length}");
            // Not larger than the frame that zstd makes.
            assert!(frame.len() <= compressed(&plain, 3).unwrap().len(), "{length}");
        }
        let mut half = noise(7, 1 << 20);
        half[..512 << 10].fill(b'x');
        let frame = |plain: Vec<u8>| zstd_frame(&plain.into(), 3).unwrap().concat();
        assert!(frame(half).len() < 600 << 10);
        assert!(frame(vec![b'x'; 1 << 20]).len() < 1 << 10);
        let small = noise(7, MIN_SAMPLED - 1);
        assert!(frame(small.clone()) == compressed(&small, 3).unwrap());
    }

    #[test]
    fn repetitions_within_a_frame_are_found_at_any_distance() {
        let once = noise(7, 1 << 20);
        let other = vec![b'x'; 2 << 20];
        let plain = [once.as_slice(), &other, &once].concat();
        for level in [1, 3, 6] {
            let size = compressed(&plain, level).unwrap().len();
            assert!(size < once.len() + (64 << 10), "level {level}: {size}");
        }
    }

    /// A change of this digest changes the bytes of layers and belongs into CHANGELOG.md.
    #[test]
    fn a_golden_frame_has_the_golden_digest() {
        let words: Vec<u8> = noise(7, 4 << 20).iter().map(|byte| b'a' + (byte >> 6)).collect();
        assert_eq!(
            crate::oci::Digest::of(&zstd_frame(&words.into(), 3).unwrap().concat()).to_string(),
            "sha256:524a804fd7058240c4f280f420e9e132ec13ced89b35ab3a3babd56f1a3ed27e"
        );
    }

    #[test]
    fn a_layer_whose_first_read_returns_one_byte_is_decompressed() {
        for compression in [Compression::default(), Compression::Gzip { level: 1 }, Compression::None] {
            let compressed = compress(compression, 1, b"plain");
            let slow = compressed[..1].chain(&compressed[1..]);
            assert_eq!(plain(slow)[512..][..5], *b"plain", "{compression}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn a_compressed_layer_decompresses_to_the_same_bytes(seed in any::<u64>(), len in 0..9_000_000usize, kind in 0..3) {
            let compression = [Compression::default(), Compression::Gzip { level: 1 }, Compression::None][kind as usize];
            let bytes: Vec<u8> = (0..len as u64).map(|n| b'a' + (n.wrapping_mul(seed | 1) >> 40) as u8 % 16).collect();
            prop_assert!(plain(compress(compression, 3, &bytes).as_slice())[512..][..len] == bytes);
        }
    }
}
