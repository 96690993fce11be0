//! Bytes hashed as they pass.

use super::Written;
use super::threads::start;
use crate::error::Result;
use crate::oci::{Algorithm, Digest, Hasher};
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

/// A writer that knows what passed through it.
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    /// A writer in front of `inner`.
    pub fn new(inner: W) -> Self {
        Self::by(Algorithm::Sha256, inner)
    }

    fn by(algorithm: Algorithm, inner: W) -> Self {
        Self { inner, hasher: Hasher::new(algorithm), size: 0 }
    }

    /// The writer behind this one, and what passed.
    pub fn finish(self) -> (W, Written) {
        (self.inner, Written { digest: self.hasher.finish(), size: self.size })
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A reader that knows the digest of what was read.
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> HashingReader<R> {
    /// A reader of `inner` that hashes by this algorithm.
    pub fn new(inner: R, algorithm: Algorithm) -> Self {
        Self { inner, hasher: Hasher::new(algorithm) }
    }

    /// The digest of all that was read.
    pub fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Blocks that are hashed on a thread of their own, so that who reads them need not wait.
pub struct HashingThread<B> {
    blocks: SyncSender<B>,
    result: Receiver<Written>,
}

impl<B: AsRef<[u8]> + Send + 'static> HashingThread<B> {
    /// Starts the thread, which hashes by this algorithm; nothing is hashed yet.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(algorithm: Algorithm) -> Result<Self> {
        // One block waits while another one is hashed: more would only take memory.
        let (blocks, queue) = sync_channel::<B>(1);
        let (done, result) = channel();
        start(move || {
            let mut hashing = HashingWriter::by(algorithm, io::sink());
            for block in queue {
                // A sink takes all there is.
                let _ = hashing.write_all(block.as_ref());
            }
            // Nobody asks any more where the work was abandoned.
            let _ = done.send(hashing.finish().1);
        })?;
        Ok(Self { blocks, result })
    }

    /// Takes the next block.
    ///
    /// # Errors
    /// When the thread has died.
    pub fn update(&self, block: B) -> io::Result<()> {
        self.blocks
            .send(block)
            .map_err(|_| io::Error::other("a thread died that hashed; this is a bug in volio"))
    }

    /// Says that these were all; the digest and the size arrive when all blocks were hashed.
    pub fn finish(self) -> Receiver<Written> {
        self.result
    }
}
