//! An image into a place that holds only plain ones: one platform is chosen, and its layers are decompressed.
//!
//! The configuration keeps its bytes, so that engines call the image by the same ID; the manifest is a new one.

use super::Copied;
use crate::error::{Error, Result, Side};
use crate::image;
use crate::layer::decompress;
use crate::oci::{Descriptor, Digest, Document, Manifest, media_type};
use crate::progress::Progress;
use crate::stream::{Body, Unverified};
use crate::transport::{self, Destination, Source};
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// Copies the host's image of those under the root, and gives it its name.
pub fn copy(
    root: &Document,
    from: &dyn Source,
    to: &dyn Destination,
    progress: &dyn Progress,
) -> Result<Copied> {
    let source = |error: Error| error.on(Side::Source);
    let destination = |error: Error| error.on(Side::Destination);
    let fetch = |descriptor: &Descriptor| transport::fetch(from, descriptor);
    let image = image::select(root, None, fetch).map_err(source)?;
    let config = fetch(&image.manifest.config).map_err(source)?;
    let config = Document::new(media_type::CONFIG, config.bytes().to_vec());

    let mut done = Copied::new(String::new(), root.descriptor().digest.clone());
    let mut layers = Vec::new();
    for (layer, diff_id) in image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
        layers.push(send_plain(layer, diff_id, from, to, progress)?);
        done.blobs_copied += 1;
        done.bytes_copied += layer.size;
    }
    to.upload(body_of(&config)).map_err(destination)?;
    done.blobs_copied += 1;
    done.bytes_copied += config.descriptor().size;

    let manifest = Manifest::new(config.descriptor().clone(), layers, Default::default());
    let manifest = Document::write(media_type::MANIFEST, &manifest);
    to.put_manifest(&manifest).map_err(destination)?;
    to.commit(&manifest).map_err(destination)?;
    done.digest = manifest.descriptor().digest.clone();
    done.address = to.address(&done.digest);
    if manifest != *root {
        let platform = &image.config.platform;
        progress.warn(&format!(
            "only the image for {platform} was copied, with plain layers and a new digest: this place holds no other"
        ));
    }
    Ok(done)
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
    let plain = Plain::new(body.observed(move |bytes| task.advance(bytes)));
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
            none => none.insert(decompress(self.blob.clone())?).read(buffer),
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
                    let cause = Error::integrity("the layer cannot be decompressed").because(error);
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
