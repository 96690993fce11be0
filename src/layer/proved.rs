//! The archive of an indexed layer, of which no content can be read before the table of contents has proved it.
//!
//! One thread reads the layer and finds its frames ([`Prover`]), several decompress each of them and prove the chunks in
//! it, and one reads the archive ([`Proved`]) while the layer is still on its way. What is no content, the headers, is
//! proved by nothing yet: who reads it compares it with the table of contents before anything is done about it, and that
//! content is read from where the chunk is that was proved ([`TocChecker::proved`](super::TocChecker::proved)).

use super::format::{BLOCK, FRAME};
use super::frame_reader::{Format, Frame, FrameReader};
use super::toc::{Chunk, TocReader};
use crate::error::{Error, Result};
use crate::oci::Algorithm;
use crate::stream::{Buffer, HashingThread, PipeReader, PipeWriter, Pool, Workers, Written, pipe, workers};
use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// How much is read of a layer at once.
const BUFFER: usize = 256 << 10;
/// A frame takes up to 8 MiB, compressed and not. More workers would only wait: the archive is hashed by one thread,
/// about as fast as two of them decompress and prove.
const MOST_WORKERS: usize = 4;
/// Each chunk has a header before it, so no frame has more of them.
const MOST_CHUNKS: usize = FRAME / BLOCK;

/// The frames of an indexed layer on their way to whoever reads its archive.
pub struct Prover<R: Read> {
    toc: TocReader<R>,
    /// The first chunk in a frame that is still to come, if it is known already.
    ahead: Option<Chunk>,
    jobs: PipeWriter<(Frame, Vec<Chunk>), (u64, Buffer)>,
}

impl<R: Read> Prover<R> {
    /// For a layer with this table of contents, and the archive that comes of it, which must be read on another thread
    /// and is hashed by this algorithm.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn new(toc: TocReader<R>, algorithm: Algorithm) -> Result<(Self, Proved)> {
        let workers = Workers::start(workers(MOST_WORKERS))?;
        let pool = Pool::default();
        let work = move |(frame, chunks): (Frame, Vec<Chunk>)| {
            let start = frame.range().start;
            let damaged =
                |error| Error::integrity("a frame of the layer cannot be decompressed").with_source(error);
            let plain = frame.decompress(&pool).map_err(damaged)?;
            chunks.iter().try_for_each(|chunk| chunk.prove_in(&plain))?;
            Ok((start, plain))
        };
        let (jobs, frames) = pipe(&workers, workers.count(), work);
        let archive = Proved {
            frames,
            current: Shared::default(),
            position: 0,
            place: Place::default(),
            hash: HashingThread::start(algorithm)?,
        };
        Ok((Self { toc, ahead: None, jobs }, archive))
    }

    /// Reads the layer to its end.
    ///
    /// # Errors
    /// Those of reading; [`Integrity`](crate::error::Kind::Integrity) when its frames are not those that the table of
    /// contents tells of; a broken pipe when nobody reads the archive any more.
    pub fn pass(mut self, layer: impl Read) -> Result<()> {
        let layer = BufReader::with_capacity(BUFFER, layer);
        let mut frames = FrameReader::new(Format::Zstd, layer, Pool::default());
        while let Some(frame) = frames.next().map_err(cannot_read)? {
            let chunks = self.chunks_in(&frame.range())?;
            self.jobs.send((frame, chunks)).map_err(cannot_read)?;
        }
        match frames.is_at_end() && self.next_chunk()?.is_none() {
            true => self.jobs.finish().map_err(cannot_read),
            false => Err(differs("something else than its frames")),
        }
    }

    /// The chunks that should be in the frame that stands there.
    fn chunks_in(&mut self, frame: &Range<u64>) -> Result<Vec<Chunk>> {
        let mut found = Vec::new();
        while let Some(chunk) = self.next_chunk()? {
            if chunk.frame.start >= frame.end {
                self.ahead = Some(chunk);
                break;
            }
            if chunk.frame != *frame || found.len() == MOST_CHUNKS {
                return Err(differs("other frames"));
            }
            found.push(chunk);
        }
        Ok(found)
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        if let Some(chunk) = self.ahead.take() {
            return Ok(Some(chunk));
        }
        loop {
            if let Some(chunk) = self.toc.next_chunk()? {
                return Ok(Some(chunk));
            }
            if self.toc.next_entry()?.is_none() {
                return Ok(None);
            }
        }
    }
}

/// Where in a layer the last byte was that was read: the offset of its frame, and how many bytes of that, decompressed,
/// were read with it.
#[derive(Clone, Debug, Default)]
pub struct Place(Rc<Cell<(u64, u64)>>);

impl Place {
    /// Where the first of the last `count` bytes is: the offset of the frame, and where it is in there.
    pub(super) fn behind(&self, count: usize) -> (u64, u64) {
        let (frame, end) = self.0.get();
        (frame, end.saturating_sub(count as u64))
    }
}

/// A block that is read and hashed at once.
#[derive(Clone, Default)]
struct Shared(Arc<Buffer>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The plain archive of an indexed layer; all chunks in what can be read are proved.
pub struct Proved {
    frames: PipeReader<(u64, Buffer)>,
    current: Shared,
    position: usize,
    place: Place,
    hash: HashingThread<Shared>,
}

impl Proved {
    /// Where what was read last comes from, whenever it is asked.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// The digest and the size of the archive; reads what is left of it.
    ///
    /// # Errors
    /// Those of reading.
    pub fn finish(mut self) -> Result<Written> {
        io::copy(&mut self, &mut io::sink()).map_err(cannot_read)?;
        let died = |_| Error::failed("a thread died that hashed; this is a bug in volio");
        self.hash.finish().recv().map_err(died)
    }
}

impl Read for Proved {
    /// Reads from one frame at a time.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.current.0.len() && !buffer.is_empty() {
            let Some((start, block)) = self.frames.receive()? else { return Ok(0) };
            self.current = Shared(Arc::new(block));
            self.position = 0;
            self.place.0.set((start, 0));
            self.hash.update(self.current.clone())?;
        }
        let left = &self.current.0[self.position..];
        let read = left.len().min(buffer.len());
        buffer[..read].copy_from_slice(&left[..read]);
        self.position += read;
        self.place.0.set((self.place.0.get().0, self.position as u64));
        Ok(read)
    }
}

fn cannot_read(error: io::Error) -> Error {
    match error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        true => Error::io("", error),
        false if error.kind() == io::ErrorKind::UnexpectedEof => differs("its end in the middle of a frame"),
        false => Error::io("cannot read the layer", error),
    }
}

fn differs(what: &str) -> Error {
    Error::integrity(format!("the layer has {what}, and its table of contents is of another one"))
}
