//! The thread that hashes the archive of a layer, and with it the content of files, which is the same bytes.

use super::item::{FrameItem, SharedBytes};
use crate::error::{Error, Result};
use crate::layer::toc::TocEvent;
use crate::oci::{Digest, PairedSha256};
use crate::stream::{Written, start};
use crate::tree::EntryKind;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

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
    fn hash_with(self, plain: &[u8], archive: &mut PairedSha256) {
        let mut archived = 0;
        self.reply_with(plain, |content, archived_before| {
            let mut digest = PairedSha256::default();
            archive.update(&plain[archived_before..content.start]);
            archived = content.end;
            PairedSha256::update_two(archive, &plain[content.clone()], &mut digest, &plain[content]);
            Digest::Sha256(digest.finish())
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

type Job = (SharedBytes, Option<ItemHashing>);

/// A thread that hashes an archive, frame by frame.
pub struct ArchiveHash {
    frames: SyncSender<Job>,
    thread: JoinHandle<Written>,
}

impl ArchiveHash {
    /// Starts the thread.
    ///
    /// # Errors
    /// Fails if the system cannot start another thread.
    pub fn start() -> Result<Self> {
        // One frame waits while another one is hashed: more would only take memory.
        let (frames, queue) = sync_channel::<Job>(1);
        let thread = start(move || {
            let (mut archive, mut size) = (PairedSha256::default(), 0);
            for (plain, items) in queue {
                let plain = plain.as_ref();
                match items {
                    Some(items) => items.hash_with(plain, &mut archive),
                    None => archive.update(plain),
                }
                size += plain.len() as u64;
            }
            Written { digest: Digest::Sha256(archive.finish()), size }
        })?;
        Ok(Self { frames, thread })
    }

    /// Adds the next frame, and the items in it that are hashed here.
    ///
    /// # Errors
    /// Fails if the thread has panicked.
    pub fn update(&self, plain: SharedBytes, items: Option<ItemHashing>) -> io::Result<()> {
        self.frames.send((plain, items)).map_err(|_| panicked().into())
    }

    /// Waits until all frames are hashed, and returns the digest and the size of the archive.
    ///
    /// # Errors
    /// Fails if the thread has panicked.
    pub fn join(self) -> Result<Written> {
        drop(self.frames);
        self.thread.join().map_err(|_| panicked())
    }
}

fn panicked() -> Error {
    Error::failed("the hashing thread has panicked; this is a bug in volio")
}
