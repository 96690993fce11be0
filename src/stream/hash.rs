//! A writer and a thread that hash the bytes that pass through them.

use super::Written;
use super::threads::start;
use crate::error::{Error, Result};
use crate::oci::{Algorithm, Hasher};
use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// A writer that hashes and counts the bytes that pass through it.
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Creates a writer that passes all bytes on to `inner` and computes their SHA-256.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::default(), size: 0 }
    }

    /// Returns the inner writer, and the digest and size of what was written.
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

/// A thread that hashes blocks, so that the thread that produces them need not wait.
pub struct HashingThread<B> {
    blocks: SyncSender<B>,
    thread: JoinHandle<Written>,
}

impl<B: AsRef<[u8]> + Send + 'static> HashingThread<B> {
    /// Starts a thread that hashes with this algorithm.
    ///
    /// # Errors
    /// Fails if the system cannot start another thread.
    pub fn start(algorithm: Algorithm) -> Result<Self> {
        // One block waits while another one is hashed: more would only take memory.
        let (blocks, queue) = sync_channel::<B>(1);
        let thread = start(move || {
            let (mut hasher, mut size) = (Hasher::new(algorithm), 0);
            for block in queue {
                hasher.update(block.as_ref());
                size += block.as_ref().len() as u64;
            }
            Written { digest: hasher.finish(), size }
        })?;
        Ok(Self { blocks, thread })
    }

    /// Adds the next block.
    ///
    /// # Errors
    /// Fails if the thread has panicked.
    pub fn update(&self, block: B) -> io::Result<()> {
        self.blocks.send(block).map_err(|_| panicked().into())
    }

    /// Waits until all blocks are hashed, and returns their digest and size.
    ///
    /// # Errors
    /// Fails if the thread has panicked.
    pub fn join(self) -> Result<Written> {
        drop(self.blocks);
        self.thread.join().map_err(|_| panicked())
    }
}

fn panicked() -> Error {
    Error::failed("the hashing thread has panicked; this is a bug in volio")
}
