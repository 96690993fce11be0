//! Lists what is in an image without unpacking it.

use crate::error::Result;
use crate::image::{Image, ReadOptions};
use crate::progress::Progress;
use crate::transport::Source;
use crate::tree::MergedTree;

/// Returns the tree of an image: all its layers applied.
///
/// Of layers with a table of contents nothing else is fetched, if the source serves ranges; the manifest proves it. All
/// others are streamed, and nothing of their content is kept.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) if a layer is not what the image says, could not be unpacked, or exceeds
/// the limits; those of [`Image::open`].
///
/// ```
/// use volio::{Memory, ReadOptions, SourceSpec, TreePath, list, pack, progress::Silent};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("file"), "text").unwrap();
/// # let image = Memory::default();
/// # pack::pack(&image, &[SourceSpec::new(directory.path())], &pack::Options::default(), &Silent)?;
/// let tree = list::list(&image, &ReadOptions::default(), &Silent)?;
/// let (entry, ()) = tree.get(&TreePath::parse(b"/file").unwrap()).unwrap();
/// assert_eq!(entry.kind, volio::EntryKind::File { size: 4 });
/// # Ok::<(), volio::Error>(())
/// ```
pub fn list(source: &dyn Source, options: &ReadOptions, progress: &dyn Progress) -> Result<MergedTree> {
    Image::open(source, options, progress)?.tree()
}
