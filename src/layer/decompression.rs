//! The plain archive behind a compressed layer. Independent zstd frames are decompressed on all cores, and so are gzip
//! members that tell their size, as volio's do.

use super::frame_reader::{Format, Frame, FrameReader};
use super::gzip;
use crate::error::Error;
use crate::stream::{Buffer, PipeReader, PipeWriter, Pool, Workers, pipe, workers};
use std::io::{self, BufReader, Cursor, Read};
use std::mem;

/// How much is read of a layer at once.
const BUFFER: usize = 256 << 10;
/// Frames that are under way together have no more bytes than this, plain and compressed, and one more frame.
const UNDER_WAY: usize = 32 << 20;
/// More threads would only wait: reading, hashing and writing take longer than decompressing does.
const MOST_WORKERS: usize = 8;

/// The plain tar archive of a layer, however it is compressed.
///
/// The first bytes decide and not the media type, as in every engine: there are images whose layers are called
/// one thing and are another, and their digests are proved all the same.
///
/// # Errors
/// Those of reading the first bytes.
pub fn decompress<'a>(layer: impl Read + Send + 'a) -> io::Result<Plain<'a>> {
    let mut layer = BufReader::with_capacity(BUFFER, layer);
    // A network may give a single byte at first.
    let mut magic = Vec::new();
    layer.by_ref().take(gzip::HEADER as u64).read_to_end(&mut magic)?;
    let layer = Cursor::new(magic.clone()).chain(layer);
    let pool = Pool::default();
    let archive: Archive<'a> = match magic.as_slice() {
        _ if gzip::told_size(&magic).is_some() => {
            Archive::Frames(Box::new(Frames::new(Format::Gzip, Box::new(layer), pool.clone())?))
        }
        [0x1f, 0x8b, ..] => Archive::Stream(Box::new(flate2::bufread::MultiGzDecoder::new(layer))),
        // A frame (RFC 8878, section 3.1.1), or a skippable one (section 3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Archive::Frames(Box::new(Frames::new(Format::Zstd, Box::new(layer), pool.clone())?))
        }
        magic => match foreign_compression(magic) {
            Some(name) => return Err(unreadable(name).into()),
            None => Archive::Stream(Box::new(layer)),
        },
    };
    Ok(Plain { archive, current: Cursor::default(), pool })
}

/// What else layers are compressed with, by the first bytes. None of these can be the name that a tar archive begins with, but for
/// that of bzip2, which no file has by accident.
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

/// A plain archive, to be read as bytes or in blocks.
pub struct Plain<'a> {
    archive: Archive<'a>,
    /// What was decompressed and not yet read.
    current: Cursor<Buffer>,
    pool: Pool,
}

enum Archive<'a> {
    Stream(Bytes<'a>),
    Frames(Box<Frames<'a>>),
}

impl Plain<'_> {
    /// The next bytes, as many as are there at once; `None` at the end.
    ///
    /// # Errors
    /// Those of reading; and when the layer cannot be decompressed.
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
        match &mut self.archive {
            Archive::Frames(frames) => frames.next(),
            Archive::Stream(stream) => read_block(stream, &self.pool),
        }
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if let Archive::Stream(stream) = &mut self.archive {
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

/// Some bytes of a stream; `None` at its end.
fn read_block(stream: &mut dyn Read, pool: &Pool) -> io::Result<Option<Buffer>> {
    let block = pool.fill(|block| {
        block.reserve(BUFFER);
        stream.take(BUFFER as u64).read_to_end(block).map(drop)
    })?;
    Ok((!block.is_empty()).then_some(block))
}

/// Frames on their way through the workers. Who reads the archive also reads the frames, ahead of what it needs.
struct Frames<'a> {
    frames: FrameReader<Bytes<'a>>,
    jobs: PipeWriter<Frame, Unpacked>,
    plain: PipeReader<Unpacked>,
    /// The sizes of the frames that are under way, the first one's first.
    under_way: std::collections::VecDeque<usize>,
    most: usize,
    /// What cannot be cut into frames, once all before it was read: it and all behind it.
    rest: Option<Bytes<'a>>,
    ended: bool,
    pool: Pool,
}

/// What became of a frame.
struct Unpacked {
    plain: io::Result<Buffer>,
    /// The frame, as long as it or one before it may have to be read as a stream.
    frame: Option<Buffer>,
}

impl<'a> Frames<'a> {
    fn new(format: Format, layer: Bytes<'a>, pool: Pool) -> io::Result<Self> {
        let workers = Workers::start(workers(MOST_WORKERS))?;
        let plain_pool = pool.clone();
        let work = move |frame: Frame| {
            Ok(Unpacked { plain: frame.decompress(&plain_pool), frame: frame.into_doubtful() })
        };
        let (jobs, plain) = pipe(&workers, workers.count(), work);
        Ok(Self {
            frames: FrameReader::new(format, layer, Pool::default()),
            jobs,
            plain,
            under_way: Default::default(),
            // One for each of them, and one that is ready when the reader comes back.
            most: workers.count() + 1,
            rest: None,
            ended: false,
            pool,
        })
    }

    fn next(&mut self) -> io::Result<Option<Buffer>> {
        loop {
            self.fill()?;
            if self.under_way.pop_front().is_none() {
                return self.next_of_rest();
            }
            let Some(Unpacked { plain, frame }) = self.plain.receive()? else { return Ok(None) };
            match (plain, frame) {
                (Ok(block), _) if block.is_empty() => {}
                (Err(_), Some(frame)) => self.put_back(&frame)?,
                (plain, _) => return plain.map(Some),
            }
        }
    }

    /// Leaves this frame and all behind it to a stream. Only that can tell where the frame ends, and with it what those
    /// are that seemed to stand behind it.
    fn put_back(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut frames = frame.to_vec();
        for _ in mem::take(&mut self.under_way) {
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

    /// Keeps the workers busy.
    fn fill(&mut self) -> io::Result<()> {
        while !self.ended
            && self.under_way.len() < self.most
            && self.under_way.iter().sum::<usize>() < UNDER_WAY
        {
            match self.frames.next()? {
                Some(frame) => {
                    self.under_way.push_back(frame.size());
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

    /// What came before an error or the end, and the error.
    fn read(mut plain: impl Read) -> (Vec<u8>, Option<String>) {
        let mut bytes = Vec::new();
        let error = plain.read_to_end(&mut bytes).err();
        (bytes, error.map(|error| error.to_string()))
    }

    fn others(content: &[u8]) -> Vec<u8> {
        let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        member.write_all(content).unwrap();
        member.finish().unwrap()
    }

    fn ours(content: &[u8]) -> Vec<u8> {
        gzip::member(content, 1).unwrap()
    }

    /// A member of ours that says that it has another size.
    fn false_size(content: &[u8], change: i64) -> Vec<u8> {
        let mut member = ours(content);
        let size = u32::try_from((member.len() as i64 + change).max(0)).unwrap();
        member[gzip::HEADER - 4..gzip::HEADER].copy_from_slice(&size.to_le_bytes());
        member
    }

    fn is_cut(layer: &[u8]) -> bool {
        matches!(decompress(layer).unwrap().archive, Archive::Frames(_))
    }

    #[test]
    fn only_gzip_whose_members_tell_their_size_is_cut() {
        let layer = [ours(b"one"), ours(b""), ours(b"two")].concat();
        assert!(is_cut(&layer));
        assert_eq!(read(decompress(&layer[..]).unwrap()), (b"onetwo".to_vec(), None));
        assert!(!is_cut(&others(b"one")));
    }

    #[test]
    fn a_compression_that_is_not_read_is_named() {
        for (name, begins) in [
            ("xz", &b"\xfd7zXZ\0\0\x04"[..]),
            ("bzip2", b"BZh91AY&SY\0\0"),
            ("lz4", b"\x04\x22\x4d\x18\x64"),
            ("lzma", b"\x5d\0\0\x80\0"),
        ] {
            let error = Error::io("", decompress(begins).err().unwrap());
            assert_eq!(error.kind(), crate::error::Kind::Integrity);
            assert!(error.to_string().contains(name), "{error}");
        }
        for name in [&b"BZh is a name"[..], b"]\0\0\0\0\0\0"] {
            assert_eq!(read(decompress(name).unwrap()).1, None);
        }
    }

    #[test]
    fn what_follows_the_own_members_is_read_as_a_stream() {
        let mut layer = [ours(b"one "), ours(b"two "), others(b"three "), ours(b"four")].concat();
        assert_eq!(read(decompress(&layer[..]).unwrap()), (b"one two three four".to_vec(), None));
        layer.extend_from_slice(b"this is no member");
        assert_eq!(read(decompress(&layer[..]).unwrap()).1.unwrap(), "invalid gzip header");
    }

    #[test]
    fn a_size_that_is_not_so_changes_nothing_about_what_is_read() {
        let last = ours(b"last");
        for change in [-1, 1, 7, last.len() as i64, last.len() as i64 + 1, -1000] {
            let many = ours(b"many ").repeat(20);
            let layer = [&many[..], &false_size(b"false ", change), &many, &last].concat();
            let plain = [&b"many ".repeat(20), &b"false "[..], &b"many ".repeat(20), b"last"].concat();
            assert_eq!(read(decompress(&layer[..]).unwrap()), (plain, None), "{change}");
        }
    }

    #[test]
    fn a_member_that_is_larger_than_any_of_ours_is_read_as_a_stream() {
        let large = [ours(b"one"), ours(&vec![7; gzip::CONTENT + 1]), ours(b"two")].concat();
        let (plain, error) = read(decompress(&large[..]).unwrap());
        assert_eq!((plain.len(), error), (3 + gzip::CONTENT + 1 + 3, None));
        assert!(plain.ends_with(b"two"));
    }

    /// A member, or something that looks like one.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let content = || prop::collection::vec(0..4u8, 0..300);
        prop_oneof![
            8 => content().prop_map(|content| ours(&content)),
            1 => content().prop_map(|content| others(&content)),
            1 => (content(), -60..200i64).prop_map(|(content, change)| false_size(&content, change)),
            1 => prop::collection::vec(any::<u8>(), 0..40),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn gzip_is_read_as_a_stream_reads_it_however_it_is_damaged(
            pieces in prop::collection::vec(piece(), 0..24),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            end in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut layer = [ours(b"first"), pieces.concat()].concat();
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
