//! An image into a directory: each layer is fetched, proved, and only then extracted.

use crate::error::{Error, Result};
use crate::image::{self, Selected};
use crate::layer::{Budget, Item, LayerReader, Limits, Whiteout, decompress};
use crate::oci::{Descriptor, Digest, Platform};
use crate::progress::Progress;
use crate::stream::HashingWriter;
use crate::transport::{self, Source};
use crate::tree::{ExtractOptions, Extracted, Extractor};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread;

/// What may be chosen when an image is unpacked.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The platform whose image is wanted; otherwise the host's.
    pub platform: Option<Platform>,
    /// What the image may make us remember.
    pub limits: Limits,
}

/// What was unpacked.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unpacked {
    /// The digest of the index or the manifest that the name stood for.
    pub digest: Digest,
    /// The platform whose image it was.
    pub platform: Platform,
    /// How many layers it has.
    pub layers: usize,
    /// What was made of them.
    #[serde(flatten)]
    pub extracted: Extracted,
}

/// Unpacks the image into a directory that is empty or does not exist yet.
///
/// # Errors
/// [`Refused`](crate::error::Kind::Refused) when the directory holds something, [`Integrity`](crate::error::Kind::Integrity)
/// when the image is not what it says; nothing of a layer is extracted before all of it was proved.
pub fn unpack(
    source: &dyn Source,
    target: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Unpacked> {
    let root = source.resolve()?;
    let image =
        image::select(&root, options.platform.as_ref(), |descriptor| transport::fetch(source, descriptor))?;
    let several_layers = image.manifest.layers.len() > 1;
    let mut extractor =
        Extractor::new(target, ExtractOptions { several_layers, ..ExtractOptions::default() })?;
    extractor.refuse_unless_empty()?;
    let outcome = extract_layers(source, &image, target, &mut extractor, options.limits, progress);
    match outcome {
        Ok(()) => Ok(Unpacked {
            digest: root.descriptor().digest.clone(),
            platform: image.config.platform,
            layers: image.manifest.layers.len(),
            extracted: extractor.finish()?,
        }),
        Err(error) => {
            extractor.abandon();
            Err(error)
        }
    }
}

/// Extracts the layers, lowest first; while one is extracted the next one is fetched and proved.
fn extract_layers(
    source: &dyn Source,
    image: &Selected,
    target: &Path,
    extractor: &mut Extractor,
    limits: Limits,
    progress: &dyn Progress,
) -> Result<()> {
    let mut budget = Budget::new(limits);
    let layers = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
    thread::scope(|scope| {
        let (proved, next) = sync_channel(0);
        // Dropped with this closure: where extracting fails, nobody waits for the rest of the next layer.
        let wanted = Arc::new(());
        let still_wanted = Arc::downgrade(&wanted);
        scope.spawn(move || {
            for (layer, diff_id) in layers {
                let spool = spool(source, layer, diff_id, target, &still_wanted, progress);
                // Nobody takes it any more, or there is nothing to go on with.
                if spool.is_err() | proved.send(spool).is_err() {
                    return;
                }
            }
        });
        for (number, layer) in next.iter().enumerate() {
            let layer = layer?;
            let task = progress.begin(&format!("extracting layer {}", number + 1), Some(layer.plain_size));
            extract(layer, extractor, &mut budget, move |bytes| task.advance(bytes))?;
        }
        Ok(())
    })
}

/// A layer that was proved, in a file without a name.
struct Spool {
    file: File,
    /// The size of the plain archive in bytes.
    plain_size: u64,
}

/// Fetches a layer into a nameless file beside its target, and proves both its digests.
fn spool(
    source: &dyn Source,
    layer: &Descriptor,
    diff_id: &Digest,
    target: &Path,
    wanted: &Weak<()>,
    progress: &dyn Progress,
) -> Result<Spool> {
    let task = progress.begin(&format!("fetching {}", layer.digest.short()), Some(layer.size));
    let body = source.open(layer)?.verify(layer).observed(move |bytes| task.advance(bytes));
    let no_spool =
        |error: io::Error| Error::io(format!("cannot spool a layer in {}", target.display()), error);
    let mut file = tempfile::tempfile_in(target).map_err(|error| {
        no_spool(error).hint("layers are proved in the target before they are extracted there")
    })?;
    let mut tee = Tee { body, copy: &mut file, wanted };
    let plain_size = prove(&mut tee, diff_id)?;
    let Tee { body, .. } = tee;
    body.finish()?;
    file.rewind().map_err(no_spool)?;
    Ok(Spool { file, plain_size })
}

/// Reads a layer to its end and fails unless its plain archive has the digest that the configuration says. Returns
/// the size of that archive.
fn prove(mut layer: impl Read + Send, diff_id: &Digest) -> Result<u64> {
    let mut hasher = HashingWriter::new(io::sink());
    let plain = decompress(&mut layer).and_then(|mut plain| io::copy(&mut plain, &mut hasher));
    // The body's own verdict comes first: a damaged blob may be anything to the decompressor.
    io::copy(&mut layer, &mut io::sink()).map_err(|error| Error::io("cannot fetch the layer", error))?;
    plain.map_err(|error| match error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        true => Error::io("", error),
        false if error.raw_os_error().is_some() => Error::io("cannot spool the layer", error),
        false => Error::integrity("the layer cannot be decompressed").because(error),
    })?;
    let (_, plain) = hasher.finish();
    match plain.digest == *diff_id {
        true => Ok(plain.size),
        false => Err(Error::integrity(format!(
            "the content of a layer has the digest {}, and the image says {diff_id}",
            plain.digest
        ))),
    }
}

/// Extracts a layer that was proved.
fn extract(layer: Spool, extractor: &mut Extractor, budget: &mut Budget, passed: impl Fn(u64)) -> Result<()> {
    let plain = decompress(layer.file).map_err(|error| Error::io("cannot read the spool", error))?;
    let mut layer = LayerReader::within(Observed { bytes: plain, passed }, std::mem::take(budget));
    extractor.begin_layer();
    while let Some(item) = layer.next_item()? {
        match item {
            Item::Entry(entry) => extractor.put(&entry, &mut layer.content())?,
            Item::Whiteout(Whiteout::Entry(path)) => extractor.whiteout(&path)?,
            Item::Whiteout(Whiteout::Opaque(path)) => extractor.opaque(&path)?,
        }
    }
    *budget = layer.budget().clone();
    Ok(())
}

/// A body that is written down as it is read.
struct Tee<'a> {
    body: crate::stream::Body,
    copy: &'a mut File,
    /// Gone when nobody wants the body any more.
    wanted: &'a Weak<()>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.wanted.strong_count() == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let read = self.body.read(buffer)?;
        self.copy.write_all(&buffer[..read])?;
        Ok(read)
    }
}

/// Bytes whose passing is told.
struct Observed<R, F> {
    bytes: R,
    passed: F,
}

impl<R: Read, F: Fn(u64)> Read for Observed<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        (self.passed)(read as u64);
        Ok(read)
    }
}
