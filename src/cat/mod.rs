//! The content of files in an image, without unpacking it.

mod chunks;
mod resolve;
mod stream;

use crate::error::{Error, Result};
use crate::image;
use crate::layer::{Item, Limits, Meter, TocEntry, VerifiedToc};
use crate::oci::Platform;
use crate::partial::{ChunkReader, Frames, Learn, Plan, Reading};
use crate::progress::Progress;
use crate::transport::{self, ClientOptions, Source};
use crate::tree::{Content, Entry, EntryKind, MergedTree, SpoolDirectory, TreePath};
use chunks::Chunks;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;
use stream::{Piece, Streams, pieces};

/// How much is written at once where it is there.
const BUFFER: usize = 128 << 10;

/// What may be chosen when files are read.
#[derive(Clone, Debug)]
pub struct Options {
    /// The platform whose image is wanted; otherwise the host's.
    pub platform: Option<Platform>,
    /// What the image may make us remember.
    pub limits: Limits,
    /// How many ranges are fetched at once.
    pub connections: usize,
    /// Where tables of contents are held that are large, in files that are gone when they are closed: in memory otherwise.
    pub temporary: Option<PathBuf>,
    /// The most plain content that may be read, in bytes; otherwise in proportion to what is stored.
    pub content: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        let connections = ClientOptions::default().concurrency;
        let limits = Limits::default();
        Self { platform: None, limits, connections, temporary: None, content: None }
    }
}

/// Writes the content of these files of an image, one behind the other. Symbolic links are followed, inside of the image.
/// Says how many bytes there were.
///
/// Only proven bytes are written. Where a layer has a table of contents, it and the frames with the content are fetched and
/// nothing else; where not, the layer is read twice, and proved by what was read first.
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) when one of the paths is not there, [`Usage`](crate::error::Kind::Usage) when it
/// is no file; then nothing was written. [`Integrity`](crate::error::Kind::Integrity) when the image is not what it says.
pub fn cat(
    source: &dyn Source,
    paths: &[TreePath],
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<u64> {
    let root = source.resolve()?;
    let fetch = |descriptor: &_| transport::fetch(source, descriptor);
    let image = image::select(&root, options.platform.as_ref(), fetch)?;
    let Options { limits, connections, .. } = options;
    let spool = options.temporary.as_deref().and_then(|path| SpoolDirectory::open(path).ok());
    let (spool, meter) = (spool.as_ref(), Meter::new(options.content));
    let layers = &image.manifest.layers;
    let reading = Reading { source, layers, limits, spool, connections: *connections, progress };
    let mut places = Places { listings: BTreeMap::new(), pieces: limits.max_names };
    let tree = reading.tree(&image.config.rootfs.diff_ids, &meter, &mut places)?;
    let files = paths.iter().map(|path| resolve::file(&tree, path)).collect::<Result<Vec<_>>>()?;
    let size = files.iter().map(|(_, size)| *size).fold(0, u64::saturating_add);
    let files: Vec<Place> = files.into_iter().map(|(place, _)| place).collect();
    let chunks = Chunks::find(places.listings, &files, limits)?;
    let mut plan = Plan::within(limits);
    for file in &files {
        if let Place::Listed(at) = file {
            let mut told = chunks.of(*at)?;
            while let Some(chunk) = told.next()? {
                plan.add(at.layer, &chunk)?;
            }
        }
    }
    let streamed = |file: &Place| match file {
        Place::Streamed(at, _) => layers.get(at.layer).map_or(0, |layer| layer.size),
        _ => 0,
    };
    let stored = files.iter().map(streamed).fold(plan.bytes(), u64::saturating_add);
    meter.allow(size, stored)?;
    reading.frames(&plan, |frames| {
        let mut streams = Streams::new(&reading, &meter);
        files
            .iter()
            .try_fold(0, |written, file| Ok(written + write(file, &chunks, frames, &mut streams, out)?))
    })
}

/// The tree of an image: what is where, and where its content is.
type Tree = MergedTree<Place>;

/// An entry of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    layer: usize,
    /// Which one it is in the table of contents or in the archive.
    number: u64,
}

/// Where the content of a file is.
#[derive(Clone, Debug, Default)]
enum Place {
    /// It has none.
    #[default]
    Nowhere,
    /// In frames that a table of contents names.
    Listed(At),
    /// In the archive of a layer that was read and proved, and has these pieces.
    Streamed(At, Rc<[Piece]>),
}

/// Learns where the content of each file is.
struct Places {
    listings: BTreeMap<usize, VerifiedToc>,
    /// How many bytes of memory more the pieces of files may take.
    pieces: u64,
}

impl Learn for Places {
    type Learned = Place;

    fn listed(&mut self, layer: usize, number: u64, entry: &TocEntry) -> Place {
        match &entry.item {
            Item::Entry(Entry { kind: EntryKind::File { size }, .. }) if *size > 0 => {
                Place::Listed(At { layer, number })
            }
            _ => Place::Nowhere,
        }
    }

    fn streamed(
        &mut self,
        layer: usize,
        number: u64,
        entry: &Entry,
        content: &mut dyn Content,
    ) -> Result<Place> {
        match entry.kind {
            EntryKind::File { size } if size > 0 => {
                let pieces = pieces(content)
                    .map_err(|error| Error::io(format!("cannot read {}", entry.path), error))?;
                self.pieces = self
                    .pieces
                    .checked_sub(size_of_val(pieces.as_slice()) as u64)
                    .ok_or_else(|| Error::integrity("the files of the image are in too many pieces"))?;
                Ok(Place::Streamed(At { layer, number }, pieces.into()))
            }
            _ => Ok(Place::Nowhere),
        }
    }

    fn keep(&mut self, layer: usize, listing: VerifiedToc) {
        self.listings.insert(layer, listing);
    }
}

/// Writes one file, and says how large it was.
fn write(
    file: &Place,
    chunks: &Chunks,
    frames: &mut Frames<'_>,
    streams: &mut Streams<'_>,
    out: &mut dyn Write,
) -> Result<u64> {
    match file {
        Place::Nowhere => Ok(0),
        Place::Listed(at) => {
            let mut told = chunks.of(*at)?;
            pass_on(&mut ChunkReader::new(frames, at.layer, || told.next()), out)
        }
        Place::Streamed(at, pieces) => streams.write(*at, pieces, out),
    }
}

/// Writes what was proved.
fn pass_on(content: &mut dyn Content, out: &mut dyn Write) -> Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut written = 0;
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(written),
            Ok(read) => {
                out.write_all(&buffer[..read]).map_err(cannot_write)?;
                written += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("cannot read the image", error)),
        }
    }
}

fn cannot_write(error: io::Error) -> Error {
    Error::io("cannot write the content of a file", error)
}
