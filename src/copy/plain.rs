//! Copies an image to a destination that holds only images for one platform with plain layers: one image is chosen, and
//! its layers are decompressed.
//!
//! The config keeps its bytes, so that engines give the image the same ID; the manifest is a new one.

use super::{Copied, Options};
use crate::error::{Error, Result, Side};
use crate::image::{Image, ImageLayer, LayerArchive, ReadOptions};
use crate::oci::{Descriptor, Document, Manifest, Platform, media_type};
use crate::progress::{Phase, Progress};
use crate::stream::{Body, Unverified};
use crate::transport::{self, Destination, Source};
use std::io::{self, Cursor, Read};

/// Copies one of the images that the root lists, and gives it its name.
pub fn copy(
    root: &Document,
    from: &dyn Source,
    to: &dyn Destination,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Copied> {
    let platform = requested_platform(options).map_err(|error| error.on(Side::Destination))?;
    let source = |error: Error| error.on(Side::Source);
    let destination = |error: Error| error.on(Side::Destination);
    let read = ReadOptions {
        platform: platform.cloned(),
        // The destination limits what is written.
        max_content: Some(u64::MAX),
        any_media_type: true,
        ..ReadOptions::default()
    };
    let image = Image::open_resolved(root.clone(), from, &read, progress).map_err(source)?;
    let config = transport::fetch(from, &image.manifest().config).map_err(source)?;
    let config = Document::new(media_type::CONFIG, config.bytes().to_vec());

    let layers = image.layers().map(|layer| send_plain(layer, to)).collect::<Result<Vec<_>>>()?;
    to.upload(body_of(&config)).map_err(destination)?;
    let sent = image.manifest().layers.iter().chain([config.descriptor()]).map(|blob| blob.size);
    let (blobs_copied, bytes_copied) = (layers.len() as u64 + 1, sent.sum());

    let manifest = Manifest::new(config.descriptor().clone(), layers, Default::default());
    let manifest = Document::write(media_type::MANIFEST, &manifest);
    to.put_manifest(&manifest).map_err(destination)?;
    to.commit(&manifest).map_err(destination)?;
    if manifest != *root {
        let platform = &image.config().platform;
        let what = if media_type::is_index(&root.descriptor().media_type) {
            format!("only the image for {platform} was copied, with plain layers")
        } else {
            "the image was copied with plain layers".to_owned()
        };
        progress.warn(&format!("{what} and a new digest: this place holds no other"));
    }
    Ok(Copied { blobs_copied, bytes_copied, ..Copied::new(to, &manifest, root) })
}

/// Returns the requested platform; `None` stands for the host's.
fn requested_platform(options: &Options) -> Result<Option<&Platform>> {
    if options.referrers || !options.since.is_empty() {
        return Err(Error::usage("this place holds whole images and nothing that refers to them"));
    }
    match options.platforms.as_slice() {
        [] => Ok(None),
        [platform] => Ok(Some(platform)),
        _ => {
            Err(Error::usage("this place holds images for one platform")
                .with_hint("choose one with --platform"))
        }
    }
}

/// Sends the plain archive of a layer, which fails at its end unless it is what the image says.
fn send_plain(layer: ImageLayer<'_>, to: &dyn Destination) -> Result<Descriptor> {
    let archive = layer.archive(Phase::Copying).map_err(|error| error.on(Side::Source))?;
    let written = to.upload(Body::new(SourceReader(archive))).map_err(|error| error.on(Side::Destination))?;
    Ok(Descriptor::new(media_type::LAYER, written.digest, written.size))
}

fn body_of(document: &Document) -> Body {
    Unverified::new(Cursor::new(document.bytes().to_vec())).verify(document.descriptor())
}

/// A reader that marks its errors as errors of the source. Otherwise the destination, which reads from it, would be
/// blamed.
struct SourceReader(LayerArchive);

impl Read for SourceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| Error::io("cannot read the layer", error).on(Side::Source).into())
    }
}
