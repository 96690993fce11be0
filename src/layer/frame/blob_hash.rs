//! The digest of a blob, which the thread that hashes the archive computes along with the digests there.
//!
//! A frame of the blob is known after the thread has hashed its items, so the thread hashes it together with a later frame of
//! the archive.

use crate::error::Error;
use crate::layer::format::FRAME;
use crate::oci::{Digest, PairedSha256};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

/// The most bytes that wait for a partner. More are hashed alone, so that they do not take memory.
const MAX_WAITING: usize = 2 * FRAME;

/// The end at which the blob sends its bytes.
pub struct BlobHash {
    bytes: Sender<Bytes>,
    digest: Receiver<Digest>,
}

impl BlobHash {
    /// Adds the next bytes. It does not wait: the thread may wait for a frame that follows only after the blob was read
    /// further.
    ///
    /// # Errors
    /// Fails if the thread has panicked.
    pub fn update(&self, bytes: Bytes) -> io::Result<()> {
        self.bytes.send(bytes).map_err(|_| panicked().into())
    }

    /// Returns the digest of all bytes. Waits until the archive is hashed too.
    ///
    /// # Errors
    /// Fails if the thread has panicked.
    pub fn finish(self) -> io::Result<Digest> {
        drop(self.bytes);
        self.digest.recv().map_err(|_| panicked().into())
    }
}

/// The end at which the thread hashes the bytes.
pub struct BlobHashing {
    digest: PairedSha256,
    received: Receiver<Bytes>,
    /// Bytes that were received and are not hashed.
    waiting: VecDeque<Bytes>,
    /// The number of bytes of the first of them that are hashed.
    position: usize,
    reply: Sender<Digest>,
}

impl BlobHashing {
    /// Creates both ends.
    pub fn new() -> (BlobHash, Self) {
        let (bytes, received) = channel();
        let (reply, digest) = channel();
        let waiting = VecDeque::new();
        let hashing = Self { digest: PairedSha256::default(), received, waiting, position: 0, reply };
        (BlobHash { bytes, digest }, hashing)
    }

    /// Receives what the blob has sent, and hashes what is too much to wait.
    pub fn receive(&mut self) {
        self.waiting.extend(self.received.try_iter());
        while self.waiting.iter().map(|bytes| bytes.len()).sum::<usize>() > MAX_WAITING
            && let Some((digest, bytes)) = self.take(usize::MAX)
        {
            digest.update(bytes);
        }
    }

    /// Takes the next bytes, at most `limit`, which the caller adds to the digest. `None` if no more were received.
    pub fn take(&mut self, limit: usize) -> Option<(&mut PairedSha256, &[u8])> {
        while self.waiting.front().is_some_and(|bytes| bytes.len() == self.position) {
            self.waiting.pop_front();
            self.position = 0;
        }
        let left = &self.waiting.front()?[self.position..];
        let bytes = &left[..left.len().min(limit)];
        self.position += bytes.len();
        Some((&mut self.digest, bytes))
    }

    /// Hashes the bytes that come after the end of the archive, and replies with the digest.
    pub fn finish(mut self) {
        while let Some((digest, bytes)) = self.take(usize::MAX) {
            digest.update(bytes);
        }
        self.received.iter().for_each(|bytes| self.digest.update(&bytes));
        // The send fails if the blob was dropped.
        _ = self.reply.send(Digest::Sha256(self.digest.finish()));
    }
}

/// Returns the error for a hashing thread that is gone.
pub fn panicked() -> Error {
    Error::failed("the hashing thread has panicked; this is a bug in volio")
}
