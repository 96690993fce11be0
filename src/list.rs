//! What is in an image, without unpacking it, and where it has tables of contents without reading it.

use crate::error::Result;
use crate::image;
use crate::layer::Limits;
use crate::oci::Platform;
use crate::partial::{Names, Reading};
use crate::progress::Progress;
use crate::transport::{self, Source, Transfer};
use crate::tree::MergedTree;

/// What may be chosen when an image is listed.
#[derive(Clone, Debug)]
pub struct Options {
    /// The platform whose image is wanted; otherwise the host's.
    pub platform: Option<Platform>,
    /// What the image may make us remember: they bound the memory that the list takes.
    pub limits: Limits,
    /// How many tables of contents are fetched at once.
    pub connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        let connections = Transfer::default().concurrency;
        Self { platform: None, limits: Limits::default(), connections }
    }
}

/// The tree of the image, as it is when all its layers are applied.
///
/// Of layers with a table of contents nothing else is read; the manifest proves it. Others are streamed through, and nothing
/// of their content is kept.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when a layer is not what it says, or could not be unpacked, or when the image
/// is beyond the limits.
pub fn list(source: &dyn Source, options: &Options, progress: &dyn Progress) -> Result<MergedTree> {
    let root = source.resolve()?;
    let fetch = |descriptor: &_| transport::fetch(source, descriptor);
    let image = image::select(&root, options.platform.as_ref(), fetch)?;
    let Options { limits, connections, .. } = options;
    let layers = &image.manifest.layers;
    let reading = Reading { source, layers, limits, connections: *connections, progress };
    reading.tree(&image.config.rootfs.diff_ids, &mut Names)
}
