//! The content of files in an image, by ranges: which file a path names is found in the tree ([`Image::file_tree`]), then
//! the frames that hold the content are fetched ([`Image::read_files`]).
//!
//! A layer without a table of contents, and every layer of a source without ranges, is read twice: once for the tree, and
//! verified, and once more up to the file. The first time notes the digests of the pieces of each file, and the second time
//! verifies each piece by them, so that nothing is returned that was not verified.

mod buffer;
mod chunk_reader;
mod chunks;
mod pieces;

pub use chunk_reader::{ChunkReader, ChunkSource, FrameChunks};
pub use chunks::FileChunks;
pub use pieces::Piece;

use super::merge::{EntryPosition, EntryVisitor};
use super::open::Image;
use super::ranges::FetchPlan;
use crate::error::{Error, Result};
use crate::layer::{Chunk, Item, TocEntry};
use crate::tree::{Content, Entry, EntryKind, MergedTree};
use pieces::{LayerRereader, split};
use std::io;
use std::rc::Rc;

/// The location of a file's content.
#[derive(Clone, Debug, Default)]
pub enum FileLocation {
    /// There is no content.
    #[default]
    Empty,
    /// In frames that a table of contents names.
    Indexed(EntryPosition),
    /// In a layer that was streamed and verified as a whole. The file consists of these pieces.
    Streamed(EntryPosition, Rc<[Piece]>),
}

/// The location of a file to be read, and its size in bytes.
pub type WantedFile = (FileLocation, u64);

impl Image<'_> {
    /// Returns the tree of the image with the location of the content of each file.
    ///
    /// # Errors
    /// As [`tree`](Self::tree).
    pub fn file_tree(&self) -> Result<MergedTree<FileLocation>> {
        self.tree_with(&mut Locator { pieces_memory: self.context().limits().max_names })
    }

    /// Calls `read` with the content of each of these files, in their order. The locations are from
    /// [`file_tree`](Self::file_tree) of this image. All bytes are verified before they can be read.
    ///
    /// # Errors
    /// Those of the source and of `read`; [`Integrity`](crate::error::Kind::Integrity) if the content is not what the
    /// image says, or is more than is allowed.
    pub fn read_files(
        &self,
        files: &[WantedFile],
        mut read: impl FnMut(usize, &mut dyn Content) -> Result<()>,
    ) -> Result<()> {
        let indexed = files.iter().filter_map(|(file, _)| match file {
            FileLocation::Indexed(at) => Some(*at),
            _ => None,
        });
        let mut chunks = FileChunks::find(self, indexed)?;
        let mut plan = FetchPlan::within(&self.context().limits());
        for (file, _) in files {
            if let FileLocation::Indexed(at) = file {
                let mut chunks = chunks.of(*at)?;
                while let Some(chunk) = chunks.next()? {
                    plan.add(at.layer, &chunk)?;
                }
            }
        }
        self.check_content_size(files, &plan)?;
        let mut layers = LayerRereader::new(self);
        self.fetch_frames(&plan, |frames| {
            for (number, (file, _)) in files.iter().enumerate() {
                match file {
                    FileLocation::Empty => read(number, &mut io::empty())?,
                    FileLocation::Indexed(at) => {
                        let mut chunks = chunks.of(*at)?;
                        read(number, &mut ChunkReader::new(frames, at.layer, || chunks.next()))?;
                    }
                    FileLocation::Streamed(at, pieces) => {
                        layers.read(*at, pieces, |content| read(number, content))?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Fails if the files are larger than what is fetched for them justifies.
    fn check_content_size(&self, files: &[WantedFile], plan: &FetchPlan) -> Result<()> {
        let streamed = |file: &FileLocation| match file {
            FileLocation::Streamed(at, _) => {
                self.manifest().layers.get(at.layer).map_or(0, |layer| layer.size)
            }
            _ => 0,
        };
        let size = files.iter().map(|(_, size)| *size).fold(0, u64::saturating_add);
        let stored = files.iter().map(|(file, _)| streamed(file)).fold(plan.bytes(), u64::saturating_add);
        self.context().meter.allow(size, stored)
    }
}

/// Notes the location of each file's content.
struct Locator {
    /// The memory in bytes that is left for the pieces of files.
    pieces_memory: u64,
}

fn has_content(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::File { size } if size > 0)
}

impl EntryVisitor for Locator {
    type Note = FileLocation;

    fn indexed(
        &mut self,
        at: EntryPosition,
        entry: &TocEntry,
        _: &mut dyn FnMut() -> Result<Option<Chunk>>,
    ) -> Result<FileLocation> {
        match &entry.item {
            Item::Entry(entry) if has_content(entry) => Ok(FileLocation::Indexed(at)),
            _ => Ok(FileLocation::Empty),
        }
    }

    fn streamed(
        &mut self,
        at: EntryPosition,
        entry: &Entry,
        content: &mut dyn Content,
    ) -> Result<FileLocation> {
        if !has_content(entry) {
            return Ok(FileLocation::Empty);
        }
        let pieces =
            split(content).map_err(|error| Error::io(format!("cannot read {}", entry.path), error))?;
        self.pieces_memory = self
            .pieces_memory
            .checked_sub(size_of_val(pieces.as_slice()) as u64)
            .ok_or_else(|| Error::integrity("the files of the image are in too many pieces"))?;
        Ok(FileLocation::Streamed(at, pieces.into()))
    }
}
