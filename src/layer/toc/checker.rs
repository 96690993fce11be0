//! Compares an archive with the table of contents of its layer while both are read. What only lists a layer, or takes a
//! part of it, believes the one; every engine believes the other: they must say the same.

use super::chunk::Chunk;
use super::reader::{TocEntry, TocReader};
use crate::error::{Error, Result};
use crate::layer::proved::Place;
use crate::layer::reader::Item;
use crate::layer::whiteout::Whiteout;
use crate::oci::{Digest, Hasher};
use crate::tree::{Content, Entry, EntryKind, TreePath};
use std::io::{self, Read};

/// Told of an archive item by item, compares it with a table of contents.
pub struct TocChecker<R: Read> {
    toc: TocReader<R>,
    /// Where the bytes are that pass, if their chunks were proved before they could be read.
    place: Option<Place>,
    /// The content that passes now.
    content: Option<Expected>,
}

/// What the content of a file should be.
struct Expected {
    path: TreePath,
    /// The chunk that passes now; `None` behind the last one.
    current: Option<Chunk>,
    /// How much of it is still to pass.
    left: u64,
    chunk: Hasher,
    /// The hash of the whole, and what it should be; nothing for a file of one chunk, which is the whole.
    whole: Option<(Hasher, Digest)>,
}

impl<R: Read> TocChecker<R> {
    /// One that was told nothing yet.
    pub fn new(toc: TocReader<R>) -> Self {
        Self { toc, place: None, content: None }
    }

    /// The same for an archive whose chunks are proved already, where they are: only that they are read from there is
    /// left to see to.
    pub fn proved(toc: TocReader<R>, place: Place) -> Self {
        Self { toc, place: Some(place), content: None }
    }

    /// Compares the next item of the archive. All content of the one before must have passed.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when they differ; those of the table of contents.
    pub fn item(&mut self, item: &Item) -> Result<()> {
        self.end_content()?;
        let Some(TocEntry { item: told, digest }) = self.toc.next_entry()? else {
            return Err(differs(path(item), "and the table of contents has ended"));
        };
        if told != *item {
            let what = match path(&told) == path(item) {
                true => "with other attributes".to_owned(),
                false => format!("where the table of contents has {}", path(&told)),
            };
            return Err(differs(path(item), &what));
        }
        let Some(first) = self.toc.next_chunk()? else { return Ok(()) };
        let is_whole = size(item) == first.size && digest.as_ref() == Some(&first.digest);
        self.content = Some(Expected {
            path: path(item).clone(),
            left: first.size,
            chunk: Hasher::default(),
            current: Some(first),
            whole: digest.filter(|_| !is_whole).map(|digest| (Hasher::default(), digest)),
        });
        Ok(())
    }

    /// The content of that item, compared while it is read. It fails where it is another.
    pub fn content<C: Content>(&mut self, content: C) -> impl Content + use<'_, C, R> {
        Compared { content, checker: self }
    }

    /// Says that the archive has ended.
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
        let Some(Expected { path, current, whole, .. }) = self.content.take() else { return Ok(()) };
        match (current, whole) {
            (Some(_), _) => Err(differs(&path, "with less content")),
            (None, Some((hash, digest))) => match hash.finish() == digest {
                true => Ok(()),
                false => Err(differs(&path, "with other content")),
            },
            (None, None) => Ok(()),
        }
    }

    fn pass(&mut self, mut bytes: &[u8]) -> Result<()> {
        // What was read ends there, and never reaches over the end of a frame.
        let place = self.place.as_ref().map(|place| place.behind(bytes.len()));
        let all = bytes.len();
        while !bytes.is_empty() {
            let Some(expected) = &mut self.content else { return Ok(()) };
            let now = usize::try_from(expected.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let Some(chunk) = &expected.current else {
                return Err(differs(&expected.path, "with more content"));
            };
            match place {
                None => expected.chunk.update(&bytes[..now]),
                Some((frame, inner)) => {
                    let passed = chunk.inner + (chunk.size - expected.left);
                    let inner = inner + (all - bytes.len()) as u64;
                    if (chunk.frame.start, passed) != (frame, inner) {
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
                if place.is_none() && digest != chunk.digest {
                    return Err(differs(&expected.path, "with other content"));
                }
                expected.current = self.toc.next_chunk()?;
                expected.left = expected.current.as_ref().map_or(0, |chunk| chunk.size);
            }
        }
        Ok(())
    }
}

struct Compared<'a, C, R: Read> {
    content: C,
    checker: &'a mut TocChecker<R>,
}

impl<C: Content, R: Read> Read for Compared<'_, C, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.content.skip_hole() > 0 {
            let why = "the layer's archive has a sparse file, and its table of contents has none";
            return Err(Error::integrity(why).into());
        }
        let read = self.content.read(buffer)?;
        self.checker.pass(&buffer[..read])?;
        Ok(read)
    }
}

/// Holes are in archives that others wrote; whoever wrote a table of contents wrote none.
impl<C: Content, R: Read> Content for Compared<'_, C, R> {}

fn path(item: &Item) -> &TreePath {
    match item {
        Item::Entry(entry) => &entry.path,
        Item::Whiteout(Whiteout::Entry(path) | Whiteout::Opaque(path)) => path,
    }
}

/// How large the content is.
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
