//! Images that data-io made: a base, and on top of it one layer that holds the data as `/data.tar.gz`.
//!
//! data-io copied the archive into a container of its base and committed that. So the last layer of such an image has
//! this file and nothing else, and the archive is what was packed.

use super::selection::Selection;
use crate::error::{Error, Result};
use crate::image::{Image, Observed, SpooledLayer};
use crate::layer::{Budget, Item, LayerReader, decompress};
use crate::tree::{Entry, EntryKind, Extractor, MergedTree, TreePath};
use std::borrow::BorrowMut;
use std::io::Read;

/// The archive.
const ARCHIVE: &[u8] = b"data.tar.gz";

/// Returns `true` if data-io may have made the image: its last layer was committed from a container, not built by
/// instructions.
///
/// A commit records the command of the container, here the base's shell, one word; a builder records its instruction,
/// and volio records that it packed. Only for such an image is the last layer fetched first.
pub(super) fn may_have_made(image: &Image<'_>) -> bool {
    let is_indexed = |key: &String| key.starts_with("io.volio.") || key.starts_with("io.containers.");
    let Some(last) = image.manifest().layers.last() else { return false };
    let mut steps = image.config().history.iter().rev().filter(|step| !step.empty_layer);
    let by = steps.next().and_then(|step| step.created_by.as_deref()).unwrap_or_default();
    !last.annotations.keys().any(is_indexed) && by.split_whitespace().count() <= 1
}

/// Returns `true` if a tree has the archive of data-io.
pub(super) fn has_archive<T>(tree: &MergedTree<T>) -> bool {
    TreePath::parse(ARCHIVE).and_then(|path| tree.get(&path)).is_some_and(|(entry, _)| is_archive(&entry))
}

/// Returns `true` if this is the layer that data-io adds. Its archive is then read to its end and verified.
///
/// # Errors
///
/// The layer cannot be read, or the archive in it is damaged; nothing was extracted yet.
pub(super) fn is_its_layer(layer: &SpooledLayer, budget: &Budget) -> Result<bool> {
    let mut reader = LayerReader::within(layer.archive()?, budget.clone());
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

/// Extracts the selected part of the archive in a layer of data-io.
///
/// # Errors
///
/// Those of extracting.
pub(super) fn extract(
    layer: &SpooledLayer,
    selection: &mut Selection<'_>,
    extractor: &mut Extractor,
    budget: &mut Budget,
    passed: impl Fn(u64) + Send,
) -> Result<()> {
    if selection.needs_survey() {
        with_archive(Observed { bytes: layer.archive()?, passed: |_| {} }, budget, |archive| {
            let mut files = files(archive, budget.clone())?;
            selection.survey(|| files.next_item())
        })?;
    }
    extractor.begin_layer();
    with_archive(Observed { bytes: layer.archive()?, passed }, &budget.clone(), |archive| {
        each_entry(archive, budget, |entry, content| match selection.resolve(Item::Entry(entry)) {
            Some(Item::Entry(entry)) => selection.put(entry, content, extractor),
            _ => Ok(()),
        })
    })
}

fn is_archive(entry: &Entry) -> bool {
    entry.path.as_bytes() == ARCHIVE && matches!(entry.kind, EntryKind::File { .. })
}

/// Finds the archive in a layer, and passes it to `work`.
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

/// Opens the archive. It is not a layer: `.wh.` has no meaning in it.
fn files<'a, B: BorrowMut<Budget>>(
    archive: impl Read + Send + 'a,
    budget: B,
) -> Result<LayerReader<impl Read + 'a, B>> {
    let plain =
        decompress(archive).map_err(|error| damaged(Error::io("it cannot be decompressed", error)))?;
    Ok(LayerReader::within(plain, budget).without_whiteouts())
}

/// Reads the archive to its end, and passes on each entry with its content.
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
    files.drain().map_err(damaged)
}

/// Adds the context to an error of the archive.
fn damaged(error: Error) -> Error {
    let hint = "data-io packed it like that, or it was cut off then: pack the data again";
    error.context("the data.tar.gz in the image is damaged").with_hint(hint)
}
