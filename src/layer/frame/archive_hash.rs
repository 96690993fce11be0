//! The thread that hashes the archive of a layer, and with it the content of files, which is the same bytes, and the
//! compressed blob, which follows some frames later.

use super::blob_hash::{BlobHashing, panicked};
use super::item::FrameItem;
use crate::error::Result;
use crate::layer::toc::TocEvent;
use crate::oci::{Digest, PairedSha256};
use crate::stream::{Written, start};
use crate::tree::EntryKind;
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// The items of a frame whose content is to be hashed.
pub struct ItemHashing {
    items: Vec<FrameItem>,
    /// The receiver is the blob, which needs the digests when it has the compressed frame.
    reply: Sender<Vec<TocEvent>>,
}

impl ItemHashing {
    /// Returns the work and the receiver of its result.
    pub fn new(items: Vec<FrameItem>) -> (Self, Receiver<Vec<TocEvent>>) {
        let (reply, events) = channel();
        (Self { items, reply }, events)
    }

    /// Hashes the content of the items.
    pub fn hash(self, plain: &[u8]) {
        self.reply_with(plain, |content, _| Digest::of(&plain[content]));
    }

    /// Hashes the content of the items and the archive, of which the frame is the next part.
    fn hash_with(self, plain: &[u8], archive: &mut ArchiveDigest) {
        let mut archived = 0;
        self.reply_with(plain, |content, archived_before| {
            archive.update(&plain[archived_before..content.start]);
            archived = content.end;
            archive.update_with_content(&plain[content])
        });
        archive.update(&plain[archived..]);
    }

    /// Calls `hash` with the range of each item's content, and with the end of the one before.
    fn reply_with(self, plain: &[u8], mut hash: impl FnMut(Range<usize>, usize) -> Digest) {
        let mut end = 0;
        let mut next = |content: Range<usize>| {
            let digest = hash(content.clone(), end);
            end = content.end;
            digest
        };
        let event = |item| match item {
            FrameItem::Entry { entry, inner } => {
                let content = match entry.kind {
                    EntryKind::File { size: size @ 1.. } => content_at(plain, inner, size),
                    _ => None,
                };
                let content = content.map(|content| (inner as u64, next(content)));
                TocEvent::Entry { entry, content }
            }
            FrameItem::FileStart(entry) => TocEvent::FileStart(entry),
            FrameItem::Chunk { zeros } => TocEvent::Chunk { digest: next(0..plain.len()), zeros },
            FrameItem::FileEnd => TocEvent::FileEnd,
        };
        let events = self.items.into_iter().map(event).collect();
        // The send fails if the blob was dropped.
        _ = self.reply.send(events);
    }
}

fn content_at(plain: &[u8], inner: usize, size: u64) -> Option<Range<usize>> {
    let end = inner.checked_add(usize::try_from(size).ok()?)?;
    (end <= plain.len()).then_some(inner..end)
}

/// The digest of an archive, and that of its blob if this thread computes it.
struct ArchiveDigest {
    archive: PairedSha256,
    blob: Option<BlobHashing>,
}

impl ArchiveDigest {
    /// Hashes the next bytes, with as many of the blob.
    fn update(&mut self, mut plain: &[u8]) {
        while !plain.is_empty() {
            let Some((blob, bytes)) = self.blob.as_mut().and_then(|blob| blob.take(plain.len())) else {
                return self.archive.update(plain);
            };
            let (now, later) = plain.split_at(bytes.len());
            PairedSha256::update_two(&mut self.archive, now, blob, bytes);
            plain = later;
        }
    }

    /// Hashes the next bytes, which are the content of an item, with up to twice as many of the blob. Returns the digest of
    /// the content.
    fn update_with_content(&mut self, mut plain: &[u8]) -> Digest {
        let mut content = PairedSha256::default();
        while !plain.is_empty() {
            let Some((blob, bytes)) = self.blob.as_mut().and_then(|blob| blob.take(2 * plain.len())) else {
                PairedSha256::update_two(&mut self.archive, plain, &mut content, plain);
                break;
            };
            let (now, later) = plain.split_at(bytes.len().min(plain.len()));
            PairedSha256::update_three([(&mut self.archive, now), (&mut content, now), (blob, bytes)]);
            plain = later;
        }
        Digest::Sha256(content.finish())
    }
}

type Job = (Bytes, Option<ItemHashing>);

/// A thread that hashes an archive, frame by frame.
pub struct ArchiveHash {
    frames: SyncSender<Job>,
    written: Receiver<Written>,
    hashes_items: bool,
}

impl ArchiveHash {
    /// Starts the thread. With a blob it hashes that and the items of the frames too.
    ///
    /// # Errors
    /// Fails if the system cannot start another thread.
    pub fn start(blob: Option<BlobHashing>) -> Result<Self> {
        // One frame waits while another one is hashed: more would only take memory.
        let (frames, queue) = sync_channel::<Job>(1);
        let (reply, written) = channel();
        let hashes_items = blob.is_some();
        start(move || {
            let (mut digest, mut size) = (ArchiveDigest { archive: PairedSha256::default(), blob }, 0);
            for (plain, items) in queue {
                if let Some(blob) = &mut digest.blob {
                    blob.receive();
                }
                match items {
                    Some(items) => items.hash_with(&plain, &mut digest),
                    None => digest.update(&plain),
                }
                size += plain.len() as u64;
            }
            // These sends fail if nobody needs the layer any more.
            _ = reply.send(Written { digest: Digest::Sha256(digest.archive.finish()), size });
            if let Some(blob) = digest.blob {
                blob.finish();
            }
        })?;
        Ok(Self { frames, written, hashes_items })
    }

    /// Returns whether the thread hashes the items of the frames.
    pub fn hashes_items(&self) -> bool {
        self.hashes_items
    }

    /// Adds the next frame, and the items in it that are hashed here.
    ///
    /// # Errors
    /// Fails if the thread has panicked.
    pub fn update(&self, plain: Bytes, items: Option<ItemHashing>) -> io::Result<()> {
        self.frames.send((plain, items)).map_err(|_| panicked().into())
    }

    /// Waits until all frames are hashed, and returns the digest and the size of the archive.
    ///
    /// # Errors
    /// Fails if the thread has panicked.
    pub fn finish(self) -> Result<Written> {
        drop(self.frames);
        self.written.recv().map_err(|_| panicked())
    }
}
