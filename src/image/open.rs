//! An image that is opened in a source.

use super::context::ReadContext;
use super::layer::ImageLayer;
use super::platform::{Selected, select};
use super::toc_store::TocStore;
use crate::error::{Error, Result};
use crate::layer::{Limits, Meter, Toc, VerifiedToc};
use crate::oci::media_type::{self, LayerType};
use crate::oci::{Descriptor, Document, ImageConfig, Manifest, Platform};
use crate::progress::{Phase, Progress, TaskInfo};
use crate::stream::map_in_order;
use crate::transport::{ClientOptions, Source};
use crate::tree::SpoolDirectory;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The options of commands that read the layers of an image.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// The platform of the image; otherwise the host's.
    pub platform: Option<Platform>,
    /// The limits on what the image may make the program remember. They bound the memory that is taken.
    pub limits: Limits,
    /// The number of ranges that are fetched at the same time.
    pub connections: usize,
    /// The directory for unnamed files with large tables of contents; without one they stay in memory.
    pub temporary: Option<PathBuf>,
    /// The limit on plain content that is read, in bytes; otherwise in proportion to what is stored.
    pub max_content: Option<u64>,
    /// The layers are read by their first bytes, whatever their media types are.
    pub any_media_type: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            platform: None,
            limits: Limits::default(),
            connections: ClientOptions::default().concurrency,
            temporary: None,
            max_content: None,
            any_media_type: false,
        }
    }
}

impl ReadOptions {
    /// Opens the directory for unnamed files, if there is one that can have them.
    pub(crate) fn spool_place(&self) -> Option<Arc<SpoolDirectory>> {
        let place = self.temporary.as_deref().and_then(|path| SpoolDirectory::open(path).ok());
        place.map(Arc::new)
    }
}

/// An image that is opened in a source: its documents and its layers.
pub struct Image<'a> {
    context: ReadContext<'a>,
    root: Document,
    selected: Selected,
    pub(super) connections: usize,
    store: TocStore,
    /// The tables of contents that were fetched, by layer; `None` for a layer that has to be streamed.
    tocs: Vec<OnceLock<Option<VerifiedToc>>>,
    has_warned_of: WholeReads,
}

/// The reasons to read a layer as a whole that were warned of already.
#[derive(Default)]
struct WholeReads {
    no_toc: AtomicBool,
    no_ranges: AtomicBool,
}

impl<'a> Image<'a> {
    /// Opens the image for a platform: resolves the name, and reads the manifest and the config.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if there is no such image, [`Usage`](crate::error::Kind::Usage) if it
    /// is an artifact, [`Integrity`](crate::error::Kind::Integrity) if a document is not what it should be, or a layer
    /// has a media type that is not read; those of the source.
    pub fn open(source: &'a dyn Source, options: &ReadOptions, progress: &'a dyn Progress) -> Result<Self> {
        Self::open_resolved(source.resolve()?, source, options, progress)
    }

    /// Opens the image when the name was resolved before: `root` is the index or the manifest that it stands for.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_resolved(
        root: Document,
        source: &'a dyn Source,
        options: &ReadOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let selected = select(&root, options.platform.as_ref(), source)?;
        if !options.any_media_type {
            selected.manifest.layers.iter().try_for_each(|layer| check_media_type(layer, progress))?;
        }
        let meter = Meter::new(options.max_content);
        Ok(Self {
            context: ReadContext::new(source, options.limits, meter, progress),
            root,
            connections: options.connections,
            store: TocStore::new(options.spool_place(), options.limits),
            tocs: selected.manifest.layers.iter().map(|_| OnceLock::new()).collect(),
            selected,
            has_warned_of: WholeReads::default(),
        })
    }

    /// The index or the manifest that the name stands for.
    pub fn root(&self) -> &Document {
        &self.root
    }

    /// The manifest, with the bytes that the source has for it.
    pub fn document(&self) -> &Document {
        &self.selected.document
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.selected.manifest
    }

    /// The config.
    pub fn config(&self) -> &ImageConfig {
        &self.selected.config
    }

    /// The layers, the lowest first.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = ImageLayer<'_>> {
        // Their numbers are equal: `select` has checked it.
        let Selected { manifest, config, .. } = &self.selected;
        let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids);
        layers.map(|(layer, diff_id)| ImageLayer::new(&self.context, layer, diff_id))
    }

    pub(super) fn context(&self) -> &ReadContext<'_> {
        &self.context
    }

    pub(super) fn progress(&self) -> &dyn Progress {
        self.context.progress
    }

    /// Returns the table of contents of a layer, if it was fetched by [`each_toc`](Self::each_toc).
    pub(super) fn fetched_toc(&self, layer: usize) -> Option<&VerifiedToc> {
        self.tocs.get(layer)?.get()?.as_ref()
    }

    /// Fetches the tables of contents of all layers, several at the same time, and calls `work` with each in the order of
    /// the layers; with `None` for a layer that has to be streamed, of which it warns. A table of contents is fetched once,
    /// also if this is called again.
    ///
    /// # Errors
    /// Those of [`TocStore::fetch`] and of `work`, the first one in the order of the layers.
    pub(super) fn each_toc(
        &self,
        mut work: impl FnMut(usize, ImageLayer<'_>, Option<&VerifiedToc>) -> Result<()>,
    ) -> Result<()> {
        let task = self.progress().begin(&TaskInfo::new(Phase::ReadingContents));
        let layers: Vec<_> = self.layers().zip(&self.tocs).collect();
        let fetch = |(layer, toc): &(ImageLayer<'_>, &OnceLock<_>)| match toc.get() {
            Some(_) => Ok(()),
            None => layer.toc(&self.store).map(|fetched| drop(toc.set(fetched))),
        };
        map_in_order(self.connections, &layers, fetch, |receive| {
            let outcome = layers.iter().enumerate().try_for_each(|(number, (layer, toc))| {
                receive().unwrap_or(Ok(()))?;
                let toc = toc.get().and_then(Option::as_ref);
                match toc {
                    Some(_) => {
                        task.advance(Toc::of(layer.descriptor())?.map_or(0, |toc| toc.descriptor().size))
                    }
                    None => self.warn_of_whole_read(layer.descriptor())?,
                }
                work(number, *layer, toc)
            });
            self.context.cancel_after_error(outcome)
        })
    }

    /// Warns that a layer is read as a whole although a part of it was wanted. It warns once for each reason.
    ///
    /// # Errors
    /// When the layer's descriptor is malformed.
    pub fn warn_of_whole_read(&self, layer: &Descriptor) -> Result<()> {
        let (has_warned, message) = match Toc::of(layer)? {
            None => (&self.has_warned_of.no_toc, self.without_toc()),
            Some(_) => {
                let message = "the place gives only whole blobs, and no parts of them: all is read";
                (&self.has_warned_of.no_ranges, message.to_owned())
            }
        };
        if !has_warned.swap(true, Ordering::Relaxed) {
            self.progress().warn(&message);
        }
        Ok(())
    }

    fn without_toc(&self) -> String {
        let layers = &self.manifest().layers;
        let count = layers.iter().filter(|layer| matches!(Toc::of(layer), Ok(None))).count();
        let which = match (count, layers.len()) {
            (1, 1) => "the layer has".to_owned(),
            (count, all) if count == all => format!("the {all} layers have"),
            (1, all) => format!("one of {all} layers has"),
            (count, all) => format!("{count} of {all} layers have"),
        };
        format!("{which} no table of contents to read in part: all is read")
    }
}

/// Fails unless the media type of a layer is that of an archive; warns of one that is only similar. The first bytes do not
/// say enough: an encrypted layer may begin as an archive does.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity).
pub fn check_media_type(layer: &Descriptor, progress: &dyn Progress) -> Result<()> {
    let (name, shown) = (layer.digest.short(), layer.media_type.chars().take(200).collect::<String>());
    match media_type::layer_type(&layer.media_type) {
        LayerType::Specified => Ok(()),
        LayerType::Similar => {
            progress.warn(&format!(
                "the layer {name} has the media type {shown:?}, which no specification of images knows: it is read as \
                 the archive that it says to be"
            ));
            Ok(())
        }
        LayerType::Other => Err(Error::integrity(format!(
            "the layer {name} has the media type {shown:?}, which is not that of an archive that volio reads"
        ))
        .with_hint("--any-media-type reads layers by their first bytes")),
    }
}
