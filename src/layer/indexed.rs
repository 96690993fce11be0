//! Reads the archive of an indexed layer and verifies each chunk before its content can be read.
//!
//! One thread reads the layer and locates its frames ([`FrameVerifier`]), several threads decompress each frame and verify
//! the chunks in it, and one thread reads the archive ([`VerifiedArchive`]) while the layer is still being fetched. Headers
//! are not part of a chunk, so they are not verified here: the reader compares them with the table of contents before it
//! acts on them, and checks that content is read from the position of the verified chunk
//! ([`TocChecker::for_verified`](super::TocChecker::for_verified)).

use super::format::{BLOCK, FRAME};
use super::frame::{Frame, FrameFormat, FrameReader};
use super::toc::{Chunk, FramePosition, TocReader};
use crate::error::{Error, Result};
use crate::oci::Algorithm;
use crate::stream::{
    Buffer, HashingThread, PipeReader, PipeWriter, Pool, Workers, Written, pipe, worker_count,
};
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

/// The size of a read from the layer, in bytes.
const BUFFER: usize = 256 << 10;
/// The most workers. A frame takes up to 8 MiB, compressed and plain. More workers would only wait: one thread hashes the
/// archive, about as fast as two workers decompress and verify it.
const MAX_WORKERS: usize = 4;
/// The most chunks in a frame: each one has a header before it.
const MAX_CHUNKS: usize = FRAME / BLOCK;

/// The sender of the frames of an indexed layer to the threads that verify them.
pub struct FrameVerifier<R: Read> {
    toc: TocReader<R>,
    /// The first chunk of a later frame, if it was read already.
    next_chunk: Option<Chunk>,
    jobs: PipeWriter<(Frame, Vec<Chunk>), (u64, Buffer)>,
}

impl<R: Read> FrameVerifier<R> {
    /// Starts the workers for a layer with this table of contents. Returns the verifier, and the archive, which must be
    /// read on another thread. The archive is hashed with this algorithm.
    ///
    /// # Errors
    /// Fails if the system cannot start another thread.
    pub fn new(toc: TocReader<R>, algorithm: Algorithm) -> Result<(Self, VerifiedArchive)> {
        let workers = Workers::start(worker_count(MAX_WORKERS))?;
        let pool = Pool::default();
        let work = move |(frame, chunks): (Frame, Vec<Chunk>)| {
            let start = frame.range().start;
            let damaged =
                |error| Error::integrity("a frame of the layer cannot be decompressed").with_source(error);
            let plain = frame.decompress(&pool).map_err(damaged)?;
            chunks.iter().try_for_each(|chunk| chunk.verify_in(&plain))?;
            Ok((start, plain))
        };
        let (jobs, frames) = pipe(&workers, workers.count(), work);
        let archive = VerifiedArchive {
            frames,
            current: SharedBuffer::default(),
            read: 0,
            position: FramePosition::default(),
            hash: HashingThread::start(algorithm)?,
        };
        Ok((Self { toc, next_chunk: None, jobs }, archive))
    }

    /// Reads the layer to its end.
    ///
    /// # Errors
    /// Those of reading; [`Integrity`](crate::error::Kind::Integrity) if its frames differ from those in the table of
    /// contents; a broken pipe if the archive was dropped.
    pub fn send_frames(mut self, layer: impl Read) -> Result<()> {
        let layer = BufReader::with_capacity(BUFFER, layer);
        let mut frames = FrameReader::new(FrameFormat::Zstd, layer, Pool::default());
        while let Some(frame) = frames.next().map_err(cannot_read)? {
            let chunks = self.chunks_in(&frame.range())?;
            self.jobs.send((frame, chunks)).map_err(cannot_read)?;
        }
        if !frames.is_at_end() || self.next_chunk()?.is_some() {
            return Err(differs("something else than its frames"));
        }
        self.jobs.finish().map_err(cannot_read)
    }

    /// Returns the chunks in a frame.
    fn chunks_in(&mut self, frame: &Range<u64>) -> Result<Vec<Chunk>> {
        let mut found = Vec::new();
        while let Some(chunk) = self.next_chunk()? {
            if chunk.frame.start >= frame.end {
                self.next_chunk = Some(chunk);
                break;
            }
            if chunk.frame != *frame || found.len() == MAX_CHUNKS {
                return Err(differs("other frames"));
            }
            found.push(chunk);
        }
        Ok(found)
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        if let Some(chunk) = self.next_chunk.take() {
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

/// A block that is read and hashed at the same time.
#[derive(Clone, Default)]
struct SharedBuffer(Arc<Buffer>);

impl AsRef<[u8]> for SharedBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The plain archive of an indexed layer, in which every chunk is verified before it can be read.
pub struct VerifiedArchive {
    frames: PipeReader<(u64, Buffer)>,
    current: SharedBuffer,
    /// The number of bytes of the current frame that were read.
    read: usize,
    position: FramePosition,
    hash: HashingThread<SharedBuffer>,
}

impl VerifiedArchive {
    /// Returns a handle that always has the position of the last read.
    pub fn position(&self) -> FramePosition {
        self.position.clone()
    }

    /// Reads the rest of the archive, and returns its digest and size.
    ///
    /// # Errors
    /// Those of reading.
    pub fn finish(mut self) -> Result<Written> {
        io::copy(&mut self, &mut io::sink()).map_err(cannot_read)?;
        self.hash.join()
    }
}

impl Read for VerifiedArchive {
    /// Reads from one frame at a time.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.current.0.len() && !buffer.is_empty() {
            let Some((start, block)) = self.frames.receive()? else { return Ok(0) };
            self.current = SharedBuffer(Arc::new(block));
            self.read = 0;
            self.position.set_frame(start);
            self.hash.update(self.current.clone())?;
        }
        let left = &self.current.0[self.read..];
        let read = left.len().min(buffer.len());
        buffer[..read].copy_from_slice(&left[..read]);
        self.read += read;
        self.position.set_end(self.read as u64);
        Ok(read)
    }
}

fn cannot_read(error: io::Error) -> Error {
    match Error::from_io(error) {
        Ok(error) => error,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            differs("its end in the middle of a frame")
        }
        Err(error) => Error::io("cannot read the layer", error),
    }
}

fn differs(what: &str) -> Error {
    Error::integrity(format!("the layer has {what}, and its table of contents is of another one"))
}
