//! An image into a place that holds only plain ones: one platform is chosen, and its layers are decompressed.
//!
//! The configuration keeps its bytes, so that engines call the image by the same ID; the manifest is a new one.

use super::{Copied, Options};
use crate::error::{Error, Result, Side};
use crate::image;
use crate::layer::decompress;
use crate::oci::{Descriptor, Digest, Document, Manifest, Platform, media_type};
use crate::progress::Progress;
use crate::stream::{Body, Unverified};
use crate::transport::{self, Destination, Source};
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// Copies one image of those under the root, and gives it its name.
pub fn copy(
    root: &Document,
    from: &dyn Source,
    to: &dyn Destination,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Copied> {
    let platform = wanted(options).map_err(|error| error.on(Side::Destination))?;
    let source = |error: Error| error.on(Side::Source);
    let destination = |error: Error| error.on(Side::Destination);
    let fetch = |descriptor: &Descriptor| transport::fetch(from, descriptor);
    let image = image::select(root, platform, fetch).map_err(source)?;
    let config = fetch(&image.manifest.config).map_err(source)?;
    let config = Document::new(media_type::CONFIG, config.bytes().to_vec());

    let mut layers = Vec::new();
    for (layer, diff_id) in image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
        layers.push(send_plain(layer, diff_id, from, to, progress)?);
    }
    to.upload(body_of(&config)).map_err(destination)?;
    let sent = image.manifest.layers.iter().chain([config.descriptor()]).map(|blob| blob.size);
    let (blobs_copied, bytes_copied) = (image.manifest.layers.len() as u64 + 1, sent.sum());

    let manifest = Manifest::new(config.descriptor().clone(), layers, Default::default());
    let manifest = Document::write(media_type::MANIFEST, &manifest);
    to.put_manifest(&manifest).map_err(destination)?;
    to.commit(&manifest).map_err(destination)?;
    if manifest != *root {
        let platform = &image.config.platform;
        let what = match media_type::is_index(&root.descriptor().media_type) {
            true => format!("only the image for {platform} was copied, with plain layers"),
            false => "the image was copied with plain layers".to_owned(),
        };
        progress.warn(&format!("{what} and a new digest: this place holds no other"));
    }
    Ok(Copied { blobs_copied, bytes_copied, ..Copied::new(to, &manifest, root) })
}

/// The platform to copy: the one that was asked for, else the host's.
fn wanted(options: &Options) -> Result<Option<&Platform>> {
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

/// Sends a layer without its compression, and proves that it is what the configuration says.
fn send_plain(
    layer: &Descriptor,
    diff_id: &Digest,
    from: &dyn Source,
    to: &dyn Destination,
    progress: &dyn Progress,
) -> Result<Descriptor> {
    let task = progress.begin(&format!("copying {}", layer.digest.short()), Some(layer.size));
    let body = from.open(layer).map_err(|error| error.on(Side::Source))?.verify(layer);
    let plain = Plain::new(body.on_read(move |bytes| task.advance(bytes)));
    let written = to.upload(Body::new(plain)).map_err(|error| error.on(Side::Destination))?;
    match written.digest == *diff_id {
        true => Ok(Descriptor::new(media_type::LAYER, written.digest, written.size)),
        false => Err(Error::integrity(format!(
            "the content of the layer {} has the digest {}, and the image says {diff_id}",
            layer.digest, written.digest
        ))
        .on(Side::Source)),
    }
}

fn body_of(document: &Document) -> Body {
    Unverified::new(Cursor::new(document.bytes().to_vec())).verify(document.descriptor())
}

/// The plain archive of a layer. It ends well only when the whole blob was what it should be, also where that goes on
/// behind the end of what is compressed.
struct Plain {
    blob: Blob,
    /// Made when the first byte is asked for: that reads from the blob.
    plain: Option<Box<dyn Read + Send>>,
}

/// A body with two readers: the decompressor, and who reads what that leaves.
#[derive(Clone)]
struct Blob(Arc<Mutex<Body>>);

impl Plain {
    fn new(blob: Body) -> Self {
        Self { blob: Blob(Arc::new(Mutex::new(blob))), plain: None }
    }

    fn decompress(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.plain {
            Some(plain) => plain.read(buffer),
            none => none.insert(Box::new(decompress(self.blob.clone())?)).read(buffer),
        }
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.decompress(buffer) {
            Ok(read) if read > 0 || buffer.is_empty() => Ok(read),
            ended => {
                // The blob's own verdict comes first: a damaged one may be anything to the decompressor.
                io::copy(&mut self.blob, &mut io::sink())
                    .map_err(|error| Error::io("cannot read the layer", error).on(Side::Source))?;
                ended.map_err(|error| {
                    let cause = Error::integrity("the layer cannot be decompressed").with_source(error);
                    cause.on(Side::Source).into()
                })
            }
        }
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(buffer)
    }
}
