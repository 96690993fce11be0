//! A tree into an image as data-io made them: one layer with one file, `/data.tar.gz`, which holds the tree.
//!
//! The header of that file comes before its content and says its size, so the archive is written to a file without a
//! name first: the tree is read only once, and what changes meanwhile is noticed as ever.

use super::{Options, Packed, PackedLayer, layers, publish, send, told, wait_for_retry};
use crate::error::{Error, Result};
use crate::image::{Description, archive_image, docker_layer};
use crate::layer::{Compression, Layer};
use crate::oci::{Descriptor, Digest, Document, Platform};
use crate::progress::Progress;
use crate::stream::{Body, Written};
use crate::transport::{Destination, Holds};
use crate::tree::{Entry, EntryKind, Metadata, SourceSpec, Time, TreePath};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;

/// The archive in the image.
const ARCHIVE: &str = "data.tar.gz";
/// It is compressed already: more than the quickest level finds nothing.
const OUTER: Compression = Compression::Gzip { level: 1 };
/// What `tar -z` has.
const INNER: Compression = Compression::Gzip { level: 6 };

/// Packs the sources so, with `spool` as the directory for the archive while it is made.
///
/// # Errors
/// Those of [`pack`](super::pack()); [`Usage`](crate::error::Kind::Usage) when such an image cannot be what was asked for.
pub(super) fn pack(
    destination: &dyn Destination,
    sources: &[SourceSpec],
    options: &Options,
    spool: &Path,
    progress: &dyn Progress,
) -> Result<Packed> {
    let is_docker = destination.holds() == Holds::AnyImage;
    let mut options = fitting(options)?;
    let spool = Spool::new(spool)?;
    let (mut sent, summary) = layers(destination, &spool, sources, &mut options, u64::MAX, progress)?;
    let archive = sent.pop().ok_or_else(|| Error::failed("the tree became no archive"))?;
    told::left_out(&summary, progress);
    let time = options.tree.clamp_mtime.or(summary.newest);
    let outer = if is_docker { OUTER } else { Compression::None };
    let (layer, packed) = spool.send(destination, outer, time, progress)?;
    let description = Description { created: time.and_then(super::rfc3339), ..options.image };
    let image = archive_image(&description, &layer, is_docker)?;
    publish(destination, &image)?;
    let digest = image.root.descriptor().digest.clone();
    Ok(Packed {
        address: destination.address(&digest),
        digest,
        platforms: image.platforms,
        layers: vec![packed],
        entries: archive.entries,
        bytes: archive.contents.bytes,
        sockets_skipped: summary.sockets,
        excluded: summary.excluded,
        attributes_skipped: summary.attributes,
        bookkeeping_skipped: summary.bookkeeping,
        mounts_skipped: summary.mounts,
        unreadable_skipped: summary.unreadable,
        changed_skipped: summary.changed,
        skipped: summary.left_out,
    })
}

/// The same options for the archive.
fn fitting(options: &Options) -> Result<Options> {
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
    Ok(options)
}

/// The archive while it is made, in a file without a name.
struct Spool {
    file: File,
    /// What to call it.
    place: String,
}

impl Spool {
    fn new(directory: &Path) -> Result<Self> {
        let place = directory.display().to_string();
        let file = tempfile::tempfile_in(directory).map_err(|error| {
            Error::io(format!("cannot write the archive in {place}"), error).with_hint(
                "it is kept there until its size is known: set TMPDIR to a directory with room for it",
            )
        })?;
        Ok(Self { file, place })
    }

    fn trouble(&self, error: io::Error) -> Error {
        Error::io(format!("cannot write the archive in {}", self.place), error)
    }

    /// Sends the archive as the only file of a layer.
    fn send(
        &self,
        destination: &dyn Destination,
        compression: Compression,
        time: Option<Time>,
        progress: &dyn Progress,
    ) -> Result<(Layer, PackedLayer)> {
        let size = self.file.metadata().map_err(|error| self.trouble(error))?.len();
        let path = TreePath::root().join(ARCHIVE.as_bytes());
        let metadata = Metadata { mode: 0o644, mtime: time.unwrap_or_default(), ..Metadata::default() };
        let entry = Entry { path, kind: EntryKind::File { size }, metadata };
        let workers = compression.workers()?;
        let mut failures = 0;
        let (contents, written) = loop {
            let task = progress.begin("sending data.tar.gz", Some(size));
            let sent = send::while_made(destination, compression, &workers, workers.count(), |mut layer| {
                let mut file = &self.file;
                file.rewind().map_err(|error| self.trouble(error))?;
                layer.append(&entry, file, |bytes| task.advance(bytes))?;
                Ok(layer.finish()?.1)
            });
            match sent {
                Err(error) if wait_for_retry(destination, &error, failures, progress) => failures += 1,
                sent => break sent?,
            }
        };
        let layer = Layer::new(compression, &contents, written);
        let layer = if compression == OUTER { docker_layer(layer) } else { layer };
        let packed = PackedLayer::new(&layer, &contents);
        Ok((layer, packed))
    }
}

/// A place for one blob.
impl Destination for Spool {
    fn contains(&self, _descriptor: &Descriptor) -> Result<bool> {
        Ok(false)
    }

    fn upload(&self, mut body: Body) -> Result<Written> {
        let mut file = &self.file;
        // What an earlier attempt has left.
        file.set_len(0).and_then(|()| file.rewind()).map_err(|error| self.trouble(error))?;
        let copied = io::copy(&mut body, &mut file).and_then(|_| file.flush());
        copied.map_err(|error| self.trouble(error))?;
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
