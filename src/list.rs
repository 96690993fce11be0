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
pub fn list(source: &dyn Source, options: &ReadOptions, progress: &dyn Progress) -> Result<MergedTree> {
    Image::open(source, options, progress)?.tree()
}
