//! The blob of a layer: its frames in order, as they are compressed, and then the table of contents.

use super::blob_hash::BlobHash;
use super::framer::CompressedFrame;
use crate::error::Error;
use crate::layer::toc::{Toc, TocWriter};
use crate::oci::Digest;
use crate::stream::{Body, PipeReader, ReadBytes};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

/// A layer that is being written, as the reader from which it is uploaded.
pub struct LayerBlob {
    frames: PipeReader<CompressedFrame>,
    /// The table of contents that is being written; `None` for a layer without one, and at the end.
    toc: Option<TocWriter>,
    toc_slot: Arc<OnceLock<Toc>>,
    /// The bytes that are read next.
    ready: VecDeque<Bytes>,
    /// The digest of the blob, if another thread computes it; `None` at the end too.
    hash: Option<BlobHash>,
    digest_slot: Option<Arc<OnceLock<Digest>>>,
    /// The number of bytes in all frames so far.
    offset: u64,
    ended: bool,
}

/// The table of contents of a layer, which is known once its [`LayerBlob`] was read to the end.
pub struct PendingToc(Arc<OnceLock<Toc>>);

impl PendingToc {
    /// Returns the table of contents; `None` if the layer has none or was not read to its end.
    pub fn get(&self) -> Option<&Toc> {
        self.0.get()
    }
}

impl LayerBlob {
    pub(super) fn new(
        frames: PipeReader<CompressedFrame>,
        toc: Option<TocWriter>,
        hash: Option<BlobHash>,
    ) -> Self {
        let digest_slot = hash.is_some().then(Arc::default);
        let (toc_slot, ready) = (Arc::default(), VecDeque::new());
        Self { frames, toc, toc_slot, ready, hash, digest_slot, offset: 0, ended: false }
    }

    /// Returns the blob as a body for an upload.
    pub fn into_body(self) -> Body {
        let digest = self.digest_slot.clone();
        let body = Body::of_memory(self);
        match digest {
            Some(digest) => body.with_digest(move || digest.get().cloned()),
            None => body,
        }
    }

    /// Returns a handle that gives the table of contents after the blob was read.
    pub fn pending_toc(&self) -> PendingToc {
        PendingToc(Arc::clone(&self.toc_slot))
    }

    /// Queues the next frame; after the last one, the table of contents.
    fn advance(&mut self) -> io::Result<()> {
        let Some(frame) = self.frames.receive()? else { return self.end() };
        let size: usize = frame.parts.iter().map(Bytes::len).sum();
        let end = self.offset + size as u64;
        if let Some(toc) = &mut self.toc {
            let events = frame.events.recv().map_err(|_| not_hashed())?;
            toc.add(events, &(self.offset..end), frame.plain_size)?;
        }
        self.offset = end;
        frame.parts.into_iter().try_for_each(|bytes| self.queue(bytes))
    }

    /// Adds the next bytes of the blob.
    fn queue(&mut self, bytes: Bytes) -> io::Result<()> {
        if let Some(hash) = &self.hash {
            hash.update(bytes.clone())?;
        }
        self.ready.push_back(bytes);
        Ok(())
    }

    /// Returns the bytes that are read next, at least one; `None` at the end.
    fn next(&mut self) -> io::Result<Option<&mut Bytes>> {
        loop {
            match self.ready.front() {
                Some(bytes) if bytes.is_empty() => _ = self.ready.pop_front(),
                Some(_) => return Ok(self.ready.front_mut()),
                None if self.ended => return Ok(None),
                None => self.advance()?,
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.ended = true;
        if let Some(toc) = self.toc.take() {
            let (toc, frames) = toc.finish(self.offset)?;
            frames.into_iter().try_for_each(|bytes| self.queue(bytes.into()))?;
            self.toc_slot.get_or_init(|| toc);
        }
        if let (Some(hash), Some(slot)) = (self.hash.take(), &self.digest_slot) {
            let digest = hash.finish()?;
            slot.get_or_init(|| digest);
        }
        Ok(())
    }
}

fn not_hashed() -> io::Error {
    Error::failed("the items of a frame were not hashed; this is a bug in volio").into()
}

impl Read for LayerBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(bytes) = self.next()? else { return Ok(0) };
        let read = bytes.len().min(buffer.len());
        bytes.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}

impl ReadBytes for LayerBlob {
    fn read_bytes(&mut self, limit: usize) -> io::Result<Bytes> {
        Ok(self.next()?.map_or_else(Bytes::new, |bytes| bytes.split_to(bytes.len().min(limit))))
    }
}
