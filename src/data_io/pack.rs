//! Packs a tree into an image as data-io made them: one layer with one file, `/data.tar.gz`, which holds the tree.
//!
//! The header of that file precedes its content and has its size, so the archive is written to an unnamed file first.
//! Then the tree is read only once, and changes during that are noticed as in other packs.

use super::image::{archive_image, docker_layer};
use crate::error::{Error, Result};
use crate::image::Description;
use crate::layer::{Compression, Layer};
use crate::oci::{Descriptor, Digest, Document, Platform};
use crate::pack::{
    ArchiveFormat, EarlierRun, LayerForm, Options, Packed, PackedLayer, pack_layers, publish, rfc3339,
    upload_while_writing, wait_for_retry, warn_left_out,
};
use crate::progress::{Phase, Progress, TaskInfo};
use crate::stream::{Body, Written};
use crate::transport::{Destination, ImageSupport};
use crate::tree::{Entry, EntryKind, Metadata, SourceSpec, Time, TreePath};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;

/// The archive in the image.
const ARCHIVE: &str = "data.tar.gz";
/// The archive is compressed already, so the fastest level is enough.
const OUTER: Compression = Compression::Gzip { level: 1 };
/// The compression of the archive, as `tar -z` has it.
const INNER: Compression = Compression::Gzip { level: 6 };

/// Packs the sources into an image as data-io made them. Extended attributes and fractions of seconds are lost. The
/// archive is kept in an unnamed file in the directory `spool` until its size is known.
///
/// # Errors
///
/// Those of [`pack`](crate::pack::pack()); [`Usage`](crate::error::Kind::Usage) if the options ask for something that
/// such an image cannot have.
pub fn pack(
    destination: &dyn Destination,
    sources: &[SourceSpec],
    options: &Options,
    spool: &Path,
    progress: &dyn Progress,
) -> Result<Packed> {
    let is_docker = destination.image_support() == ImageSupport::Any;
    let options = archive_options(options)?;
    let spool = ArchiveSpool::new(spool)?;
    let form = LayerForm { size: u64::MAX, format: ArchiveFormat::Gnu };
    let (sent, summary) = pack_layers(destination, &spool, sources, &options, form, progress)?;
    warn_left_out(&summary, progress);
    let time = options.tree.clamp_mtime.or(summary.newest);
    let outer = if is_docker { OUTER } else { Compression::None };
    let (layer, packed) = spool.send(destination, outer, time, progress)?;
    let description = Description { created: time.and_then(rfc3339), ..options.image };
    let image = archive_image(&description, &layer, is_docker)?;
    let signed = publish(destination, &image, options.signer.as_deref())?;
    Ok(Packed { signed, ..Packed::new(destination, image, vec![packed], &sent, summary) })
}

/// Returns the options for the archive.
fn archive_options(options: &Options) -> Result<Options> {
    let mut options = options.clone();
    if !options.image.annotations.is_empty() {
        return Err(Error::usage("an image as data-io made them has no annotations").with_hint("use labels"));
    }
    match options.image.platforms.as_slice() {
        [] => options.image.platforms.push(Platform::host()),
        [_] => {}
        _ => {
            let what = "an image as data-io made them is for one platform";
            return Err(Error::usage(what).with_hint("choose one with --platform"));
        }
    }
    options.compression = INNER;
    // The archive is in a file here, and not at the destination.
    options.earlier_run = EarlierRun::Ended;
    Ok(options)
}

/// The archive in an unnamed file.
struct ArchiveSpool {
    file: File,
    /// The name of its directory, for errors.
    directory: String,
}

impl ArchiveSpool {
    fn new(directory: &Path) -> Result<Self> {
        let shown = directory.display().to_string();
        let file = tempfile::tempfile_in(directory).map_err(|error| {
            Error::io(format!("cannot write the archive in {shown}"), error).with_hint(
                "it is kept there until its size is known: set TMPDIR to a directory with room for it",
            )
        })?;
        Ok(Self { file, directory: shown })
    }

    fn io_error(&self, error: io::Error) -> Error {
        Error::io(format!("cannot write the archive in {}", self.directory), error)
    }

    /// Uploads the archive as the only file of a layer.
    fn send(
        &self,
        destination: &dyn Destination,
        compression: Compression,
        time: Option<Time>,
        progress: &dyn Progress,
    ) -> Result<(Layer, PackedLayer)> {
        let size = self.file.metadata().map_err(|error| self.io_error(error))?.len();
        let path = TreePath::root().join(ARCHIVE.as_bytes());
        let metadata = Metadata { mode: 0o644, mtime: time.unwrap_or_default(), ..Metadata::default() };
        let entry = Entry { path, kind: EntryKind::File { size }, metadata };
        let workers = compression.workers()?;
        let mut failures = 0;
        let (contents, written, toc) = loop {
            let task = progress.begin(&TaskInfo::new(Phase::Packing).about("data.tar.gz").with_total(size));
            let sent =
                upload_while_writing(destination, compression, &workers, workers.count(), |mut layer| {
                    let mut file = &self.file;
                    file.rewind().map_err(|error| self.io_error(error))?;
                    layer.append(&entry, file, |bytes| task.advance(bytes))?;
                    Ok(layer.finish()?.1)
                });
            match sent {
                Err(error) if wait_for_retry(destination, &error, failures, progress) => failures += 1,
                sent => break sent?,
            }
        };
        let layer = Layer::new(compression, &contents, written, toc.as_ref());
        let layer = if compression == OUTER { docker_layer(layer) } else { layer };
        let packed = PackedLayer::new(&layer, &contents);
        Ok((layer, packed))
    }
}

/// A destination for one blob.
impl Destination for ArchiveSpool {
    fn contains(&self, _descriptor: &Descriptor) -> Result<bool> {
        Ok(false)
    }

    fn upload(&self, mut body: Body) -> Result<Written> {
        let mut file = &self.file;
        // Discards the content of an earlier attempt.
        file.set_len(0).and_then(|()| file.rewind()).map_err(|error| self.io_error(error))?;
        let copied = io::copy(&mut body, &mut file).and_then(|_| file.flush());
        copied.map_err(|error| self.io_error(error))?;
        body.finish()
    }

    fn put_manifest(&self, _document: &Document) -> Result<()> {
        Ok(())
    }

    fn commit(&self, _root: &Document) -> Result<()> {
        Ok(())
    }

    fn address(&self, digest: &Digest) -> String {
        digest.to_string()
    }
}
