//! Writes the merged tree of an image as a tar archive.
//!
//! The tree is merged from the tables of contents first ([`Image::tree_with`]). A layer without one is streamed and
//! verified, and its files are kept in an unnamed file meanwhile. Then the entries are written in the order of their
//! paths, which depends on the image only. The content of files in indexed layers is fetched by ranges; each chunk is
//! verified before any byte of it is written. If that fails, the archive ends with half a block, which a reader of
//! archives reports as a truncated archive. Without it GNU tar accepts an archive that ends between two entries.

use super::{FetchedPart, Outcome, PathFilter, Unpacked, data_io};
use crate::error::{Error, Result};
use crate::image::{EntryPosition, EntryVisitor, FileLocation, Image, ReadOptions, WantedFile};
use crate::layer::{Chunk, Contents, Item, LayerWriter, PlainSink, TocEntry};
use crate::progress::Progress;
use crate::transport::Source;
use crate::tree::{Content, Entry, EntryKind, Extracted, MergedTree, TreePath, memory_exceeded};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The number of files whose ranges are planned together. It bounds the memory for plans.
const BATCH: usize = 1 << 16;
/// Half a block, written after an error.
const TRUNCATED: [u8; 256] = [b'-'; 256];
/// The memory of a promoted hard link besides its paths, in bytes.
const PROMOTED_MEMORY: u64 = 128;

/// The options of [`unpack_archive`].
#[derive(Clone, Debug)]
pub struct ArchiveOptions {
    /// The options for reading the image.
    pub read: ReadOptions,
    /// The part of the image that is written.
    pub filter: PathFilter,
    /// An image of data-io is written with its base and its archive; otherwise it is refused.
    pub as_is: bool,
    /// The directory for an unnamed file with the contents of layers without a table of contents.
    pub temporary: PathBuf,
}

/// Writes the image as an uncompressed tar archive. Only verified bytes are written.
///
/// # Errors
/// Those of [`unpack`](super::unpack()), and of writing to `out`. The archive is then incomplete and has no end.
pub fn unpack_archive(
    source: &dyn Source,
    options: &ArchiveOptions,
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<Unpacked> {
    let image = Image::open(source, &options.read, progress)?;
    let mut spool = ContentSpool::new(&options.temporary)?;
    let tree = image.tree_with(&mut spool)?.with_first_names();
    if !options.as_is && data_io::may_have_made(&image) && data_io::has_archive(&tree) {
        return Err(Error::usage("the image was made by data-io, and its data is an archive in it")
            .with_hint(
                "`volio cat IMAGE /data.tar.gz` writes that archive; --as-is writes the image as it is",
            ));
    }
    let entries = || SelectedEntries::new(&tree, &options.filter, options.read.limits.max_names);
    options.filter.ensure_found(entries().next()?.is_some())?;
    let writer =
        ArchiveWriter { entries: entries(), spool: spool.finish()?, layer: LayerWriter::new(&mut *out) };
    let written = write_entries(&image, writer, entries());
    if written.is_err() {
        // The error that ended the archive counts, also if this is not written.
        let _ = out.write_all(&TRUNCATED).and_then(|()| out.flush());
    }
    let contents = written?;
    Ok(Unpacked {
        outcome: Outcome::Unpacked,
        digest: image.root().descriptor().digest.clone(),
        platform: image.config().platform.clone(),
        layers: image.layers().len(),
        data_io: false,
        removed: 0,
        extracted: Extracted { entries: contents.entries, bytes: contents.bytes, ..Extracted::default() },
        fetched: FetchedPart::default(),
        sync: None,
    })
}

/// Writes the entries. `planned` are the same entries once more, to find the ranges of the next files.
fn write_entries<W: Write>(
    image: &Image<'_>,
    mut writer: ArchiveWriter<'_, W>,
    mut planned: SelectedEntries<'_>,
) -> Result<Contents> {
    loop {
        let mut batch: Vec<WantedFile> = Vec::new();
        while batch.len() < BATCH
            && let Some((entry, content)) = planned.next()?
        {
            if let (EntryKind::File { size }, FileContent::Indexed(at)) = (entry.kind, content) {
                batch.push((FileLocation::Indexed(at), size));
            }
        }
        if batch.is_empty() {
            break;
        }
        image.read_files(&batch, |_, content| writer.append_through(Some(content)))?;
    }
    writer.append_through(None)?;
    let (mut out, contents) = writer.layer.finish()?;
    out.flush().map_err(|error| Error::io("cannot write the archive", error))?;
    Ok(contents)
}

/// The place of a file's content.
#[derive(Clone, Copy, Debug, Default)]
enum FileContent {
    /// There is no content.
    #[default]
    Empty,
    /// In frames of an indexed layer.
    Indexed(EntryPosition),
    /// In the spool, from this offset on, in bytes.
    Spooled(u64),
}

/// The contents of files from layers that were streamed, in an unnamed file.
struct ContentSpool {
    file: BufWriter<File>,
    size: u64,
}

impl ContentSpool {
    fn new(directory: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(directory).map_err(|error| {
            Error::io(format!("cannot make a file in {}", directory.display()), error)
                .with_hint("set TMPDIR to a directory with room for the contents of layers")
        })?;
        Ok(Self { file: BufWriter::new(file), size: 0 })
    }

    fn finish(self) -> Result<File> {
        self.file.into_inner().map_err(|error| spool_error(error.into_error()))
    }
}

fn spool_error(error: io::Error) -> Error {
    Error::io("cannot use the file for the contents of layers", error)
}

impl EntryVisitor for ContentSpool {
    type Note = FileContent;

    fn indexed(
        &mut self,
        at: EntryPosition,
        entry: &TocEntry,
        _: &mut dyn FnMut() -> Result<Option<Chunk>>,
    ) -> Result<FileContent> {
        match &entry.item {
            Item::Entry(Entry { kind: EntryKind::File { size: 1.. }, .. }) => Ok(FileContent::Indexed(at)),
            _ => Ok(FileContent::Empty),
        }
    }

    fn streamed(
        &mut self,
        _: EntryPosition,
        entry: &Entry,
        content: &mut dyn Content,
    ) -> Result<FileContent> {
        if !matches!(entry.kind, EntryKind::File { size: 1.. }) {
            return Ok(FileContent::Empty);
        }
        let offset = self.size;
        self.size += io::copy(content, &mut self.file).map_err(spool_error)?;
        Ok(FileContent::Spooled(offset))
    }
}

/// The selected entries of a tree, in order, as they are in the archive.
struct SelectedEntries<'a> {
    tree: &'a MergedTree<FileContent>,
    entries: Box<dyn Iterator<Item = (Entry, &'a FileContent)> + 'a>,
    filter: &'a PathFilter,
    /// Files that are not selected, with the first selected hard link to each, which becomes the file.
    promoted: HashMap<TreePath, TreePath>,
    /// The memory for `promoted` that is left, in bytes.
    memory: u64,
    memory_limit: u64,
}

impl<'a> SelectedEntries<'a> {
    fn new(tree: &'a MergedTree<FileContent>, filter: &'a PathFilter, memory_limit: u64) -> Self {
        let entries = Box::new(tree.iter());
        Self { tree, entries, filter, promoted: HashMap::new(), memory: memory_limit, memory_limit }
    }

    fn next(&mut self) -> Result<Option<(Entry, FileContent)>> {
        for (entry, content) in self.entries.by_ref() {
            let Some(path) = self.filter.target_path_of(&entry) else { continue };
            let kind = match &entry.kind {
                EntryKind::Hardlink { target } => {
                    let first = self.filter.target_path(target);
                    match first.or_else(|| self.promoted.get(target).cloned()) {
                        Some(first) => EntryKind::Hardlink { target: first },
                        None => {
                            let size = (target.as_bytes().len() + path.as_bytes().len()) as u64;
                            let left = self.memory.checked_sub(size + PROMOTED_MEMORY);
                            self.memory = left.ok_or_else(|| memory_exceeded(self.memory_limit))?;
                            self.promoted.insert(target.clone(), path.clone());
                            self.tree.resolved_kind(&entry)
                        }
                    }
                }
                kind => kind.clone(),
            };
            return Ok(Some((Entry { path, kind, metadata: entry.metadata }, *content)));
        }
        Ok(None)
    }
}

/// An archive that is being written.
struct ArchiveWriter<'a, W: Write> {
    entries: SelectedEntries<'a>,
    spool: File,
    layer: LayerWriter<PlainSink<W>>,
}

impl<W: Write> ArchiveWriter<'_, W> {
    /// Appends the entries through the next file in an indexed layer, whose content this is; without it, the remaining ones.
    fn append_through(&mut self, mut indexed: Option<&mut dyn Content>) -> Result<()> {
        while let Some((entry, content)) = self.entries.next()? {
            match (&entry.kind, content) {
                (EntryKind::File { .. }, FileContent::Indexed(_)) => {
                    let Some(content) = indexed.take() else {
                        return Err(Error::failed("a file was not planned; this is a bug in volio"));
                    };
                    return self.layer.append(&entry, content, |_| {});
                }
                (EntryKind::File { .. }, FileContent::Spooled(offset)) => {
                    self.spool.seek(SeekFrom::Start(offset)).map_err(spool_error)?;
                    self.layer.append(&entry, &self.spool, |_| {})?;
                }
                _ => self.layer.append(&entry, io::empty(), |_| {})?,
            }
        }
        Ok(())
    }
}
