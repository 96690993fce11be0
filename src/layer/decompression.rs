//! The plain archive behind a compressed layer. Independent zstd frames are decompressed on all cores.

use super::frame_reader::{Frame, FrameReader};
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
    layer.by_ref().take(4).read_to_end(&mut magic)?;
    let layer = Cursor::new(magic.clone()).chain(layer);
    let pool = Pool::default();
    let archive: Archive<'a> = match magic.as_slice() {
        [0x1f, 0x8b, ..] => Archive::Stream(Box::new(flate2::bufread::MultiGzDecoder::new(layer))),
        // A frame (RFC 8878, section 3.1.1), or a skippable one (section 3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Archive::Frames(Box::new(Frames::new(Box::new(layer), pool.clone())))
        }
        _ => Archive::Stream(Box::new(layer)),
    };
    Ok(Plain { archive, current: Cursor::default(), pool })
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
    jobs: PipeWriter<Frame, Buffer>,
    plain: PipeReader<Buffer>,
    /// The sizes of the frames that are under way, the first one's first.
    under_way: std::collections::VecDeque<usize>,
    most: usize,
    /// What cannot be cut into frames, once that was met: it and all behind it.
    rest: Option<Bytes<'a>>,
    ended: bool,
    pool: Pool,
}

impl<'a> Frames<'a> {
    fn new(layer: Bytes<'a>, pool: Pool) -> Self {
        let workers = Workers::new(workers(MOST_WORKERS));
        let plain_pool = pool.clone();
        let work = move |frame: Frame| frame.decompress(&plain_pool);
        let (jobs, plain) = pipe(&workers, workers.count(), work);
        Self {
            frames: FrameReader::new(layer, Pool::default()),
            jobs,
            plain,
            under_way: Default::default(),
            // One for each of them, and one that is ready when the reader comes back.
            most: workers.count() + 1,
            rest: None,
            ended: false,
            pool,
        }
    }

    fn next(&mut self) -> io::Result<Option<Buffer>> {
        loop {
            self.fill()?;
            if self.under_way.pop_front().is_none() {
                return match &mut self.rest {
                    Some(rest) => read_block(rest, &self.pool),
                    None => Ok(None),
                };
            }
            match self.plain.receive()? {
                Some(block) if block.is_empty() => {}
                block => return Ok(block),
            }
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
                None => {
                    self.ended = true;
                    self.rest = self.frames.take_rest()?;
                }
            }
        }
        Ok(())
    }
}
