//! Layers on their way from the source to the disk: nothing of them is extracted before it was proved.

use super::Wanted;
use super::listed::Listed;
use crate::error::{Error, Result};
use crate::image::Selected;
use crate::layer::{Budget, Limits, Toc, TocBytes, TocChecker, VerifiedToc, decompress};
use crate::oci::Digest;
use crate::progress::Progress;
use crate::stream::{HashingThread, start_in};
use crate::transport::Source;
use crate::tree::SpoolDirectory;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread;

/// A layer that can be extracted.
pub(super) enum Fetched<'a> {
    /// All of it was proved.
    Spooled(Spool),
    /// Its table of contents was, and will prove the rest while it comes.
    Listed(Listed<'a>),
}

/// A layer that was proved, in a file without a name.
pub(super) struct Spool {
    pub file: Arc<File>,
    /// The size of the plain archive in bytes.
    pub plain_size: u64,
    /// Its table of contents, if it has one.
    listing: Option<VerifiedToc>,
}

impl Spool {
    /// Who compares the archive with the table of contents while it is read, if there is one.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn checker(&self, budget: Budget) -> Result<Option<TocChecker<TocBytes>>> {
        let Some(listing) = &self.listing else { return Ok(None) };
        Ok(Some(TocChecker::new(listing.entries(budget)?)))
    }
}

/// The layers of an image, lowest first.
pub(super) fn layers(image: &Selected) -> Vec<Wanted<'_>> {
    image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids).collect()
}

/// Has the layers fetched as far as they must be before they can be extracted, and hands each of them on; while one is
/// worked on, the next one is fetched.
pub(super) fn each_layer<'a>(
    source: &'a dyn Source,
    layers: &[Wanted<'a>],
    limits: &Limits,
    place: &SpoolDirectory,
    progress: &dyn Progress,
    mut work: impl FnMut(usize, Fetched<'a>) -> Result<()>,
) -> Result<()> {
    thread::scope(|scope| {
        let (proved, next) = sync_channel(0);
        // Dropped with this closure: where extracting fails, nobody waits for the rest of the next layer.
        let wanted = Arc::new(());
        let still_wanted = Arc::downgrade(&wanted);
        start_in(scope, move || {
            for layer in layers {
                let listed = Listed::find(source, *layer, limits, place);
                let fetched = listed.and_then(|listed| match listed {
                    Some(listed) => Ok(Fetched::Listed(listed)),
                    None => {
                        spool(source, *layer, limits, place, &still_wanted, progress).map(Fetched::Spooled)
                    }
                });
                // Nobody takes it any more, or there is nothing to go on with.
                if fetched.is_err() | proved.send(fetched).is_err() {
                    return;
                }
            }
        })?;
        next.iter().enumerate().try_for_each(|(number, layer)| work(number, layer?))
    })
}

/// Has one layer fetched and proved.
pub(super) fn one_layer(
    source: &dyn Source,
    layer: Wanted<'_>,
    limits: &Limits,
    place: &SpoolDirectory,
    progress: &dyn Progress,
) -> Result<Spool> {
    let wanted = Arc::new(());
    spool(source, layer, limits, place, &Arc::downgrade(&wanted), progress)
}

/// Fetches a layer into a nameless file, and proves both its digests.
fn spool(
    source: &dyn Source,
    (layer, diff_id): Wanted<'_>,
    limits: &Limits,
    place: &SpoolDirectory,
    wanted: &Weak<()>,
    progress: &dyn Progress,
) -> Result<Spool> {
    let task = progress.begin(&format!("fetching {}", layer.digest.short()), Some(layer.size));
    let body = source.open(layer)?.verify(layer).on_read(move |bytes| task.advance(bytes));
    let no_spool = |error: io::Error| Error::io("cannot spool a layer", error);
    let mut file = place.file().map_err(no_spool)?;
    let mut tee = Tee { body, copy: &mut file, wanted };
    let plain_size = prove(&mut tee, diff_id)?;
    let Tee { body, .. } = tee;
    body.finish()?;
    let file = Arc::new(file);
    let toc = Toc::of(layer)?;
    let listing = toc.map(|toc| VerifiedToc::in_layer(Arc::clone(&file), toc, limits)).transpose()?;
    Ok(Spool { file, plain_size, listing })
}

/// Reads a layer to its end and fails unless its plain archive has the digest that the configuration says. Returns
/// the size of that archive.
fn prove(mut layer: impl Read + Send, diff_id: &Digest) -> Result<u64> {
    let hash = HashingThread::start(diff_id.algorithm())?;
    let plain = decompress(&mut layer).and_then(|mut plain| {
        while let Some(block) = plain.block()? {
            hash.update(block)?;
        }
        Ok(())
    });
    // The body's own verdict comes first: a damaged blob may be anything to the decompressor.
    io::copy(&mut layer, &mut io::sink()).map_err(|error| Error::io("cannot fetch the layer", error))?;
    plain.map_err(|error| match Error::from_io(error) {
        Ok(error) => error,
        Err(error) if error.raw_os_error().is_some() => Error::io("cannot spool the layer", error),
        Err(error) => Error::integrity("the layer cannot be decompressed").with_source(error),
    })?;
    let plain = hash.join()?;
    match plain.digest == *diff_id {
        true => Ok(plain.size),
        false => Err(Error::integrity(format!(
            "the content of a layer has the digest {}, and the image says {diff_id}",
            plain.digest
        ))),
    }
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
