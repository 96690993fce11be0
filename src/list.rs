//! What is in an image, without unpacking it, and where it has tables of contents without reading it.

use crate::error::Result;
use crate::image;
use crate::layer::{Limits, Meter};
use crate::oci::Platform;
use crate::partial::{Names, Reading};
use crate::progress::Progress;
use crate::transport::{self, ClientOptions, Source};
use crate::tree::{MergedTree, SpoolDirectory};
use std::path::PathBuf;

/// What may be chosen when an image is listed.
#[derive(Clone, Debug)]
pub struct Options {
    /// The platform whose image is wanted; otherwise the host's.
    pub platform: Option<Platform>,
    /// What the image may make us remember: they bound the memory that the list takes.
    pub limits: Limits,
    /// How many tables of contents are fetched at once.
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
    let spool = options.temporary.as_deref().and_then(|path| SpoolDirectory::open(path).ok());
    let (spool, meter) = (spool.as_ref(), Meter::new(options.content));
    let layers = &image.manifest.layers;
    let reading = Reading { source, layers, limits, spool, connections: *connections, progress };
    reading.tree(&image.config.rootfs.diff_ids, &meter, &mut Names)
}
