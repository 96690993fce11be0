//! Images that data-io made: some base, and on top of it one layer that holds the data as `/data.tar.gz`.
//!
//! data-io put the archive into a container of its base and committed that. So the last layer of such an image has this
//! one file and nothing else, and the archive in it is what was packed.

use super::fetch::Spool;
use super::selection::Selection;
use super::{Observed, plain};
use crate::error::{Error, Result};
use crate::image::Selected;
use crate::layer::{Budget, Item, LayerReader, decompress};
use crate::tree::{Entry, EntryKind, Extractor};
use std::io::Read;

/// The archive.
const ARCHIVE: &[u8] = b"data.tar.gz";

/// Whether the image could be one: its last layer was not built by instructions but is what became of a container.
///
/// A commit notes what the container ran, here the base's shell: one word. A builder notes its instruction, volio says
/// that it packed. Only what passes here has its last layer fetched first.
pub(super) fn may_have_made(image: &Selected) -> bool {
    let is_indexed = |key: &String| key.starts_with("io.volio.") || key.starts_with("io.containers.");
    let Some(last) = image.manifest.layers.last() else { return false };
    let mut steps = image.config.history.iter().rev().filter(|step| !step.empty_layer);
    let by = steps.next().and_then(|step| step.created_by.as_deref()).unwrap_or_default();
    !last.annotations.keys().any(is_indexed) && by.split_whitespace().count() <= 1
}

/// Whether this is the layer that data-io put on top. If it is, its archive is read to its end and found sound.
///
/// # Errors
/// When the layer cannot be read; when the archive in it is damaged: then nothing of it was extracted yet.
pub(super) fn is_its_layer(layer: &Spool, budget: &Budget) -> Result<bool> {
    let mut reader = LayerReader::within(plain(layer)?, budget.clone());
    let mut found = None;
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Entry(entry) if entry.kind == EntryKind::Directory => {}
            Item::Entry(entry) if found.is_none() && is_archive(&entry) => {
                found = Some(each_entry(reader.content(), &mut budget.clone(), |_, _| Ok(())));
            }
            _ => return Ok(false),
        }
    }
    found.map_or(Ok(false), |sound| sound.map(|()| true))
}

/// Extracts what is wanted of the archive in a layer that [`is_its_layer`].
///
/// # Errors
/// Those of extracting.
pub(super) fn extract(
    layer: &Spool,
    selection: &mut Selection<'_>,
    extractor: &mut Extractor,
    budget: &mut Budget,
    passed: impl Fn(u64) + Send,
) -> Result<()> {
    if selection.needs_survey() {
        with_archive(Observed { bytes: plain(layer)?, passed: |_| {} }, budget, |archive| {
            let mut files = files(archive, budget)?;
            selection.survey(|| files.next_item())
        })?;
    }
    extractor.begin_layer();
    with_archive(Observed { bytes: plain(layer)?, passed }, &budget.clone(), |archive| {
        each_entry(archive, budget, |entry, content| match selection.resolve(Item::Entry(entry)) {
            Some(Item::Entry(entry)) => selection.put(entry, content, extractor),
            _ => Ok(()),
        })
    })
}

fn is_archive(entry: &Entry) -> bool {
    entry.path.as_bytes() == ARCHIVE && matches!(entry.kind, EntryKind::File { .. })
}

/// Does something with the archive in a layer.
fn with_archive<R: Read + Send>(
    layer: R,
    budget: &Budget,
    work: impl FnOnce(&mut (dyn Read + Send)) -> Result<()>,
) -> Result<()> {
    let mut reader = LayerReader::within(layer, budget.clone());
    while let Some(item) = reader.next_item()? {
        if matches!(&item, Item::Entry(entry) if is_archive(entry)) {
            return work(&mut reader.content());
        }
    }
    Err(Error::integrity("the layer has no data.tar.gz any more"))
}

/// The files in the archive. It is no layer: a name in it that begins with `.wh.` is a name.
fn files<'a>(archive: impl Read + Send + 'a, budget: &Budget) -> Result<LayerReader<impl Read + 'a>> {
    let plain =
        decompress(archive).map_err(|error| damaged(Error::io("it cannot be decompressed", error)))?;
    Ok(LayerReader::within(plain, budget.clone()).without_whiteouts())
}

/// Reads the archive to its end, and hands on each entry with its content.
fn each_entry(
    archive: impl Read + Send,
    budget: &mut Budget,
    mut work: impl FnMut(Entry, &mut dyn crate::tree::Content) -> Result<()>,
) -> Result<()> {
    let mut files = files(archive, budget)?;
    while let Some(item) = files.next_item().map_err(damaged)? {
        if let Item::Entry(entry) = item {
            work(entry, &mut files.content())?;
        }
    }
    *budget = files.budget().clone();
    files.drain().map_err(damaged)
}

/// The same error, which says where it is.
fn damaged(error: Error) -> Error {
    let hint = "data-io packed it like that, or it was cut off then: pack the data anew";
    Error::new(error.kind(), format!("the data.tar.gz in the image is damaged: {error}")).with_hint(hint)
}
