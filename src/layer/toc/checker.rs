//! Compares an archive with the table of contents of its layer while both are read. Listing and partial reads use the table
//! of contents, and container engines use the archive, so the two must agree.

use super::chunk::Chunk;
use super::reader::{TocEntry, TocReader};
use crate::error::{Error, Result};
use crate::layer::tar::Item;
use crate::layer::whiteout::Whiteout;
use crate::oci::{Digest, Hasher};
use crate::tree::{Content, Entry, EntryKind, TreePath};
use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Compares an archive, item by item, with its table of contents.
pub struct TocChecker<R: Read> {
    toc: TocReader<R>,
    /// The position of the bytes that are read, if their chunks were verified before.
    position: Option<FramePosition>,
    /// The content that is being read.
    content: Option<ExpectedContent>,
}

/// The content of a file by the table of contents.
struct ExpectedContent {
    path: TreePath,
    /// The chunk that is being read; `None` after the last one.
    current: Option<Chunk>,
    /// The number of its bytes that were not read.
    left: u64,
    chunk: Hasher,
    /// The hash of the whole file, and its digest; `None` for a file of one chunk.
    whole: Option<(Hasher, Digest)>,
}

/// The position of the last byte that was read of a layer: the offset of its frame, and the number of bytes of the
/// decompressed frame up to it.
#[derive(Clone, Debug, Default)]
pub struct FramePosition(Rc<Cell<(u64, u64)>>);

impl FramePosition {
    /// Moves to the beginning of a frame.
    pub(in crate::layer) fn set_frame(&self, frame: u64) {
        self.0.set((frame, 0));
    }

    /// Moves to an offset in the same frame.
    pub(in crate::layer) fn set_end(&self, end: u64) {
        self.0.set((self.0.get().0, end));
    }

    /// Returns the position of the first of the last `count` bytes: the offset of its frame, and its offset in that.
    fn before(&self, count: usize) -> (u64, u64) {
        let (frame, end) = self.0.get();
        (frame, end.saturating_sub(count as u64))
    }
}

impl<R: Read> TocChecker<R> {
    /// Creates a checker for an archive that is not verified.
    pub fn new(toc: TocReader<R>) -> Self {
        Self { toc, position: None, content: None }
    }

    /// Creates a checker for an archive of which every chunk was verified at its position. It compares positions instead
    /// of digests.
    pub fn for_verified(toc: TocReader<R>, position: FramePosition) -> Self {
        Self { toc, position: Some(position), content: None }
    }

    /// Compares the next item of the archive. The content of the previous one must have been read to its end.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if they differ; those of the table of contents.
    pub fn item(&mut self, item: &Item) -> Result<()> {
        self.end_content()?;
        let Some(TocEntry { item: expected, digest }) = self.toc.next_entry()? else {
            return Err(differs(path(item), "and the table of contents has ended"));
        };
        if expected != *item {
            let what = if path(&expected) == path(item) {
                "with other attributes".to_owned()
            } else {
                format!("where the table of contents has {}", path(&expected))
            };
            return Err(differs(path(item), &what));
        }
        let Some(first) = self.toc.next_chunk()? else { return Ok(()) };
        let is_whole = size(item) == first.size && digest.as_ref() == Some(&first.digest);
        self.content = Some(ExpectedContent {
            path: path(item).clone(),
            left: first.size,
            chunk: Hasher::default(),
            current: Some(first),
            whole: digest.filter(|_| !is_whole).map(|digest| (Hasher::default(), digest)),
        });
        Ok(())
    }

    /// Returns a reader of that item's content, which is compared while it is read.
    pub fn content<C: Content>(&mut self, content: C) -> impl Content + use<'_, C, R> {
        CheckedContent { content, checker: self }
    }

    /// Checks that the table of contents ends with the archive.
    ///
    /// # Errors
    /// As [`item`](Self::item).
    pub fn finish(mut self) -> Result<()> {
        self.end_content()?;
        match self.toc.next_entry()? {
            None => Ok(()),
            Some(TocEntry { item, .. }) => Err(Error::integrity(format!(
                "the layer's table of contents has {}, and its archive has not",
                path(&item)
            ))),
        }
    }

    fn end_content(&mut self) -> Result<()> {
        let Some(ExpectedContent { path, current, whole, .. }) = self.content.take() else { return Ok(()) };
        if current.is_some() {
            return Err(differs(&path, "with less content"));
        }
        if whole.is_some_and(|(hash, digest)| hash.finish() != digest) {
            return Err(differs(&path, "with other content"));
        }
        Ok(())
    }

    /// Compares bytes of the content.
    fn compare(&mut self, mut bytes: &[u8]) -> Result<()> {
        // The reader of a verified archive reads from one frame at a time.
        let position = self.position.as_ref().map(|position| position.before(bytes.len()));
        let all = bytes.len();
        while !bytes.is_empty() {
            let Some(expected) = &mut self.content else { return Ok(()) };
            let now = usize::try_from(expected.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let Some(chunk) = &expected.current else {
                return Err(differs(&expected.path, "with more content"));
            };
            match position {
                None => expected.chunk.update(&bytes[..now]),
                Some((frame, inner)) => {
                    let expected_inner = chunk.inner + (chunk.size - expected.left);
                    let inner = inner + (all - bytes.len()) as u64;
                    if (chunk.frame.start, expected_inner) != (frame, inner) {
                        return Err(differs(&expected.path, "with other content"));
                    }
                }
            }
            if let Some((hash, _)) = &mut expected.whole {
                hash.update(&bytes[..now]);
            }
            expected.left -= now as u64;
            bytes = &bytes[now..];
            if expected.left == 0 {
                let digest = std::mem::take(&mut expected.chunk).finish();
                if position.is_none() && digest != chunk.digest {
                    return Err(differs(&expected.path, "with other content"));
                }
                expected.current = self.toc.next_chunk()?;
                expected.left = expected.current.as_ref().map_or(0, |chunk| chunk.size);
            }
        }
        Ok(())
    }
}

struct CheckedContent<'a, C, R: Read> {
    content: C,
    checker: &'a mut TocChecker<R>,
}

impl<C: Content, R: Read> Read for CheckedContent<'_, C, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.content.skip_hole() > 0 {
            let why = "the layer's archive has a sparse file, and its table of contents has none";
            return Err(Error::integrity(why).into());
        }
        let read = self.content.read(buffer)?;
        self.checker.compare(&buffer[..read])?;
        Ok(read)
    }
}

/// Skips no holes: programs that write a table of contents write no sparse files.
impl<C: Content, R: Read> Content for CheckedContent<'_, C, R> {}

fn path(item: &Item) -> &TreePath {
    match item {
        Item::Entry(entry) => &entry.path,
        Item::Whiteout(Whiteout::Entry(path) | Whiteout::Opaque(path)) => path,
    }
}

/// Returns the size of the content.
fn size(item: &Item) -> u64 {
    match item {
        Item::Entry(Entry { kind: EntryKind::File { size }, .. }) => *size,
        _ => 0,
    }
}

fn differs(path: &TreePath, what: &str) -> Error {
    Error::integrity(format!("the layer's archive has {path}, {what}"))
        .with_source("its table of contents is of another archive")
}
