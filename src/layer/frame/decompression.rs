//! Decompression of a layer. Independent zstd frames are decompressed on all cores, and so are gzip members that declare
//! their size, as volio's do.

use super::gzip;
use super::reader::{Frame, FrameFormat, FrameReader};
use crate::error::Error;
use crate::stream::{Buffer, PipeReader, PipeWriter, Pool, Workers, pipe, worker_count};
use std::collections::VecDeque;
use std::io::{self, BufReader, Cursor, Read};
use std::mem;

/// The size of a read from the layer, in bytes.
const BUFFER: usize = 256 << 10;
/// The limit on all frames in the pipe, compressed and plain, in bytes. It may be exceeded by one frame.
const MAX_QUEUED: usize = 32 << 20;
/// The most threads. More would only wait: reading, hashing and writing take longer than decompression.
const MAX_WORKERS: usize = 8;

/// Returns the plain tar archive of a layer, which may be uncompressed.
///
/// The first bytes decide how it is compressed, and not the media type, as in every engine: there are images whose layers
/// have a wrong media type, and their digests are verified in any case.
///
/// # Errors
/// Those of reading the first bytes.
pub fn decompress<'a>(layer: impl Read + Send + 'a) -> io::Result<PlainArchive<'a>> {
    let mut layer = BufReader::with_capacity(BUFFER, layer);
    // The first read from a network may return a single byte.
    let mut magic = Vec::new();
    layer.by_ref().take(gzip::HEADER as u64).read_to_end(&mut magic)?;
    let layer = Cursor::new(magic.clone()).chain(layer);
    let pool = Pool::default();
    let source: PlainSource<'a> = match magic.as_slice() {
        _ if gzip::declared_size(&magic).is_some() => PlainSource::Frames(Box::new(FramePipeline::new(
            FrameFormat::Gzip,
            Box::new(layer),
            pool.clone(),
        )?)),
        [0x1f, 0x8b, ..] => PlainSource::Stream(Box::new(flate2::bufread::MultiGzDecoder::new(layer))),
        // A frame (RFC 8878, section 3.1.1), or a skippable one (section 3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => PlainSource::Frames(Box::new(
            FramePipeline::new(FrameFormat::Zstd, Box::new(layer), pool.clone())?,
        )),
        magic => match foreign_compression(magic) {
            Some(name) => return Err(unreadable(name).into()),
            None => PlainSource::Stream(Box::new(layer)),
        },
    };
    Ok(PlainArchive { source, current: Cursor::default(), pool })
}

/// Returns the name of another compression, by the first bytes. A tar archive begins with the name of its first entry, and
/// that cannot begin like this; only for bzip2 it could, but no file has such a name by accident.
fn foreign_compression(magic: &[u8]) -> Option<&'static str> {
    match magic {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Some("bzip2"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Some("lz4"),
        [0x5d, 0, 0, 1..=255, 0, ..] => Some("lzma"),
        _ => None,
    }
}

fn unreadable(name: &str) -> Error {
    Error::integrity(format!("the layer is compressed with {name}, which volio does not read")).with_hint(
        "neither is that a compression of the image specification: have the image made with gzip or zstd, for example by podman or \
         buildah with --compression-format",
    )
}

type Bytes<'a> = Box<dyn Read + Send + 'a>;

/// A plain archive, which can be read as bytes or in blocks.
pub struct PlainArchive<'a> {
    source: PlainSource<'a>,
    /// The decompressed bytes that were not read yet.
    current: Cursor<Buffer>,
    pool: Pool,
}

enum PlainSource<'a> {
    Stream(Bytes<'a>),
    Frames(Box<FramePipeline<'a>>),
}

impl PlainArchive<'_> {
    /// Returns the next bytes, as many as are ready; `None` at the end.
    ///
    /// # Errors
    /// Those of reading; fails if the layer cannot be decompressed.
    pub fn block(&mut self) -> io::Result<Option<Buffer>> {
        let current = mem::take(&mut self.current);
        let position = usize::try_from(current.position()).unwrap_or(usize::MAX);
        match current.get_ref().get(position..) {
            None | Some([]) => self.next(),
            Some(_) if position == 0 => Ok(Some(current.into_inner())),
            Some(rest) => copied(rest).map(Some),
        }
    }

    fn next(&mut self) -> io::Result<Option<Buffer>> {
        match &mut self.source {
            PlainSource::Frames(frames) => frames.next(),
            PlainSource::Stream(stream) => read_block(stream, &self.pool),
        }
    }
}

impl Read for PlainArchive<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if let PlainSource::Stream(stream) = &mut self.source {
                return stream.read(buffer);
            }
            match self.next()? {
                Some(block) => self.current = Cursor::new(block),
                None => return Ok(0),
            }
        }
    }
}

fn copied(bytes: &[u8]) -> io::Result<Buffer> {
    Pool::default().fill(|buffer| {
        buffer.extend_from_slice(bytes);
        Ok(())
    })
}

/// Reads a block of a stream; `None` at its end.
fn read_block(stream: &mut dyn Read, pool: &Pool) -> io::Result<Option<Buffer>> {
    let block = pool.fill(|block| {
        block.reserve(BUFFER);
        stream.take(BUFFER as u64).read_to_end(block).map(drop)
    })?;
    Ok((!block.is_empty()).then_some(block))
}

/// Frames that are decompressed by several threads. The thread that reads the archive also reads the frames, ahead of what
/// it needs.
struct FramePipeline<'a> {
    frames: FrameReader<Bytes<'a>>,
    jobs: PipeWriter<Frame, DecompressedFrame>,
    plain: PipeReader<DecompressedFrame>,
    /// The sizes of the frames in the pipe, in order.
    queued: VecDeque<usize>,
    max_queued: usize,
    /// The rest of the layer, which cannot be separated into frames.
    rest: Option<Bytes<'a>>,
    ended: bool,
    pool: Pool,
}

/// The outcome of the decompression of a frame.
struct DecompressedFrame {
    plain: io::Result<Buffer>,
    /// The compressed frame, if it may have to be read as a stream.
    frame: Option<Buffer>,
}

impl<'a> FramePipeline<'a> {
    fn new(format: FrameFormat, layer: Bytes<'a>, pool: Pool) -> io::Result<Self> {
        let workers = Workers::start(worker_count(MAX_WORKERS))?;
        let plain_pool = pool.clone();
        let work = move |frame: Frame| {
            Ok(DecompressedFrame { plain: frame.decompress(&plain_pool), frame: frame.into_uncertain() })
        };
        let (jobs, plain) = pipe(&workers, workers.count(), work);
        Ok(Self {
            frames: FrameReader::new(format, layer, Pool::default()),
            jobs,
            plain,
            queued: VecDeque::new(),
            // One for each worker, and one that is ready for the reader.
            max_queued: workers.count() + 1,
            rest: None,
            ended: false,
            pool,
        })
    }

    fn next(&mut self) -> io::Result<Option<Buffer>> {
        loop {
            self.fill()?;
            if self.queued.pop_front().is_none() {
                return self.next_of_rest();
            }
            let Some(DecompressedFrame { plain, frame }) = self.plain.receive()? else { return Ok(None) };
            match (plain, frame) {
                (Ok(block), _) if block.is_empty() => {}
                (Err(_), Some(frame)) => self.put_back(&frame)?,
                (plain, _) => return plain.map(Some),
            }
        }
    }

    /// Leaves this frame and all after it to a stream decompressor. Only that can find the real end of the frame, and with
    /// it the real frames after it.
    fn put_back(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut frames = frame.to_vec();
        for _ in mem::take(&mut self.queued) {
            let next = self.plain.receive()?.and_then(|next| next.frame);
            frames.extend_from_slice(next.as_deref().unwrap_or_default());
        }
        self.frames.put_back(frames);
        self.ended = true;
        Ok(())
    }

    fn next_of_rest(&mut self) -> io::Result<Option<Buffer>> {
        if self.rest.is_none() {
            self.rest = self.frames.take_rest()?;
        }
        match &mut self.rest {
            Some(rest) => read_block(rest, &self.pool),
            None => Ok(None),
        }
    }

    /// Sends frames to the workers, up to the limits.
    fn fill(&mut self) -> io::Result<()> {
        while !self.ended
            && self.queued.len() < self.max_queued
            && self.queued.iter().sum::<usize>() < MAX_QUEUED
        {
            match self.frames.next()? {
                Some(frame) => {
                    self.queued.push_back(frame.size());
                    self.jobs.send(frame)?;
                }
                None => self.ended = true,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    /// Returns the bytes before the end or an error, and the error.
    fn read(mut plain: impl Read) -> (Vec<u8>, Option<String>) {
        let mut bytes = Vec::new();
        let error = plain.read_to_end(&mut bytes).err();
        (bytes, error.map(|error| error.to_string()))
    }

    fn foreign_member(content: &[u8]) -> Vec<u8> {
        let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        member.write_all(content).unwrap();
        member.finish().unwrap()
    }

    fn own_member(content: &[u8]) -> Vec<u8> {
        gzip::member(content, 1).unwrap()
    }

    /// Returns a member of volio's that declares a wrong size.
    fn wrong_size(content: &[u8], change: i64) -> Vec<u8> {
        let mut member = own_member(content);
        let size = u32::try_from((member.len() as i64 + change).max(0)).unwrap();
        member[gzip::HEADER - 4..gzip::HEADER].copy_from_slice(&size.to_le_bytes());
        member
    }

    fn uses_frames(layer: &[u8]) -> bool {
        matches!(decompress(layer).unwrap().source, PlainSource::Frames(_))
    }

    #[test]
    fn gzip_members_are_separated_only_if_they_declare_their_size() {
        let layer = [own_member(b"one"), own_member(b""), own_member(b"two")].concat();
        assert!(uses_frames(&layer));
        assert_eq!(read(decompress(&layer[..]).unwrap()), (b"onetwo".to_vec(), None));
        assert!(!uses_frames(&foreign_member(b"one")));
    }

    #[test]
    fn an_unsupported_compression_is_named_in_the_error() {
        for (name, begins) in [
            ("xz", &b"\xfd7zXZ\0\0\x04"[..]),
            ("bzip2", b"BZh91AY&SY\0\0"),
            ("lz4", b"\x04\x22\x4d\x18\x64"),
            ("lzma", b"\x5d\0\0\x80\0"),
        ] {
            let error = Error::from_io(decompress(begins).err().unwrap()).unwrap();
            assert_eq!(error.kind(), crate::error::Kind::Integrity);
            assert!(error.to_string().contains(name), "{error}");
        }
        for name in [&b"BZh is a name"[..], b"]\0\0\0\0\0\0"] {
            assert_eq!(read(decompress(name).unwrap()).1, None);
        }
    }

    #[test]
    fn foreign_members_after_own_ones_are_read_as_a_stream() {
        let mut layer =
            [own_member(b"one "), own_member(b"two "), foreign_member(b"three "), own_member(b"four")]
                .concat();
        assert_eq!(read(decompress(&layer[..]).unwrap()), (b"one two three four".to_vec(), None));
        layer.extend_from_slice(b"this is no member");
        assert_eq!(read(decompress(&layer[..]).unwrap()).1.unwrap(), "invalid gzip header");
    }

    #[test]
    fn a_wrong_size_does_not_change_the_content() {
        let last = own_member(b"last");
        for change in [-1, 1, 7, last.len() as i64, last.len() as i64 + 1, -1000] {
            let many = own_member(b"many ").repeat(20);
            let layer = [&many[..], &wrong_size(b"false ", change), &many, &last].concat();
            let plain = [&b"many ".repeat(20), &b"false "[..], &b"many ".repeat(20), b"last"].concat();
            assert_eq!(read(decompress(&layer[..]).unwrap()), (plain, None), "{change}");
        }
    }

    #[test]
    fn a_member_that_is_too_large_is_read_as_a_stream() {
        let large =
            [own_member(b"one"), own_member(&vec![7; gzip::CONTENT + 1]), own_member(b"two")].concat();
        let (plain, error) = read(decompress(&large[..]).unwrap());
        assert_eq!((plain.len(), error), (3 + gzip::CONTENT + 1 + 3, None));
        assert!(plain.ends_with(b"two"));
    }

    /// Generates a member, or bytes that look like one.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let content = || prop::collection::vec(0..4u8, 0..300);
        prop_oneof![
            8 => content().prop_map(|content| own_member(&content)),
            1 => content().prop_map(|content| foreign_member(&content)),
            1 => (content(), -60..200i64).prop_map(|(content, change)| wrong_size(&content, change)),
            1 => prop::collection::vec(any::<u8>(), 0..40),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn damaged_gzip_is_read_as_a_stream_decompressor_reads_it(
            pieces in prop::collection::vec(piece(), 0..24),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            end in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut layer = [own_member(b"first"), pieces.concat()].concat();
            if let Some((at, to)) = damage {
                let at = at.index(layer.len());
                layer[at] = to;
            }
            layer.truncate(end.map_or(layer.len(), |end| end.index(layer.len()).max(2)));
            prop_assume!(layer.starts_with(&[0x1f, 0x8b]));
            let (stream, stream_error) = read(flate2::bufread::MultiGzDecoder::new(&layer[..]));
            let (plain, error) = read(decompress(&layer[..]).unwrap());
            prop_assert_eq!(&error, &stream_error);
            prop_assert!(stream.starts_with(&plain));
            prop_assert!(error.is_some() || plain == stream);
        }
    }
}
