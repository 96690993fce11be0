//! The blobs of layers, and their tables of contents: there, intact, and complete.

use super::{Documents, Finding, ImageOptions, LAYERS_LIMIT, layer_place};
use crate::error::{Kind, Result};
use crate::image::{ImageLayer, ReadContext, ReadOptions, TocStore};
use crate::layer::{Budget, Item, Meter, VerifiedToc};
use crate::oci::{Descriptor, Digest};
use crate::progress::{Phase, Progress, TaskInfo};
use crate::transport::Source;
use crate::tree::{EntryKind, PathMap, TreePath};
use std::collections::HashSet;

/// Engines apply each layer into an empty directory of its own.
const PARENTS: &str = "moby daemon/graphdriver/overlay2/overlay2.go applies a layer into its own directory; \
                       https://github.com/bazel-contrib/rules_img/issues/630";
const WHITEOUTS: &str = "image-spec, layer.md, \"Whiteouts\"";
const RANGES: &str = "distribution-spec, \"Pulling blobs\": a registry SHOULD support the Range header";
const DIGESTS: &str = "image-spec, descriptor.md, \"Digests\"";

/// The most memory for the directories of one layer, in bytes.
const DIRECTORIES_LIMIT: u64 = 64 << 20;

/// The findings about the layers together.
#[derive(Default)]
struct Summary {
    layers: usize,
    without_toc: usize,
    without_ranges: bool,
    is_deep: bool,
    whiteouts: u64,
    entries: u64,
}

pub(super) fn check(
    documents: &Documents,
    source: &dyn Source,
    options: &ImageOptions,
    progress: &dyn Progress,
) -> Vec<Finding> {
    let task = progress.begin(&TaskInfo::new(Phase::ReadingContents));
    let read = ReadOptions { temporary: options.temporary.clone(), ..ReadOptions::default() };
    let store = TocStore::new(read.spool_place(), options.limits);
    let context = ReadContext::new(source, options.limits, Meter::new(None), progress);
    let (mut findings, mut summary, mut seen) = (Vec::new(), Summary::default(), HashSet::<&Digest>::new());
    // All layers together may have no more entries than is allowed.
    let mut budget = Budget::new(options.limits);
    let mut counted = 0;
    for image in &documents.images {
        for (number, layer) in image.manifest.layers.iter().enumerate().take(LAYERS_LIMIT) {
            if !seen.insert(&layer.digest) {
                continue;
            }
            summary.layers += 1;
            let place = layer_place(number, image);
            let is_lowest = number == 0;
            let diff_id = image.config.rootfs.diff_ids.get(number).filter(|_| options.deep);
            let examined = match diff_id {
                Some(diff_id) => {
                    read_whole(&ImageLayer::new(&context, layer, diff_id), &mut summary, &mut budget)
                }
                None => examine(layer, source, &store, &mut summary, &mut budget),
            };
            match examined {
                Ok(contents) => findings
                    .extend(contents.map(|contents| contents.explain(&place, is_lowest)).unwrap_or_default()),
                Err(error) => {
                    let check = if error.kind() == Kind::Integrity { "damage" } else { "blob" };
                    let finding = Finding::failure(check, place, &error).by(DIGESTS);
                    findings.push(match finding.advice {
                        Some(_) => finding,
                        None => finding.advise("copy the image again from a place where it is sound"),
                    });
                }
            }
            task.advance_entries(summary.entries - counted);
            counted = summary.entries;
        }
    }
    if documents.images.iter().any(|image| image.manifest.layers.len() > LAYERS_LIMIT) {
        let what = format!("only the first {LAYERS_LIMIT} layers of each platform were looked at");
        findings
            .push(Finding::warning("contents", "image", what).by(DIGESTS).advise("volio verify reads all"));
    }
    findings.extend(summary.explain());
    findings
}

/// Reads the last byte of a layer, and its table of contents. Returns `None` if it has none.
fn examine(
    layer: &Descriptor,
    source: &dyn Source,
    store: &TocStore,
    summary: &mut Summary,
    budget: &mut Budget,
) -> Result<Option<Contents>> {
    if layer.size > 0 {
        match source.open_range(layer, layer.size - 1..layer.size)? {
            None => summary.without_ranges = true,
            // The byte proves only that the blob is there and not too short.
            Some(mut last) => drop(last.take_unverified(1)?),
        }
    }
    let Some(toc) = store.fetch(source, layer)? else {
        summary.without_toc += 1;
        return Ok(None);
    };
    let contents = Contents::read(&toc, budget)?;
    summary.whiteouts += contents.whiteouts;
    summary.entries += contents.entries;
    Ok(Some(contents))
}

/// Reads a whole layer, and verifies its digest and its diff_id.
fn read_whole(
    layer: &ImageLayer<'_>,
    summary: &mut Summary,
    budget: &mut Budget,
) -> Result<Option<Contents>> {
    summary.is_deep = true;
    let mut contents = Contents::default();
    layer.read_items(budget, |item, _| {
        contents.add(item);
        Ok(())
    })?;
    summary.whiteouts += contents.whiteouts;
    summary.entries += contents.entries;
    Ok(Some(contents))
}

/// The entries of a layer, as its archive or its table of contents has them.
struct Contents {
    entries: u64,
    whiteouts: u64,
    /// The first entry whose directory is not in the layer, and their number.
    orphan: Option<TreePath>,
    orphans: u64,
    /// The directories; `None` when they would take too much memory. Then nothing is said about parents.
    directories: Option<PathMap<()>>,
}

impl Default for Contents {
    fn default() -> Self {
        let directories = Some(PathMap::within(DIRECTORIES_LIMIT));
        Self { entries: 0, whiteouts: 0, orphan: None, orphans: 0, directories }
    }
}

impl Contents {
    fn read(toc: &VerifiedToc, budget: &mut Budget) -> Result<Self> {
        let mut contents = Self::default();
        let mut entries = toc.entries(budget)?;
        while let Some(entry) = entries.next_entry()? {
            contents.add(entry.item);
        }
        Ok(contents)
    }

    fn add(&mut self, item: Item) {
        match item {
            Item::Whiteout(_) => self.whiteouts += 1,
            Item::Entry(entry) => {
                self.entries += 1;
                self.check_parent(&entry.path);
                if entry.kind == EntryKind::Directory
                    && self.directories.as_mut().is_some_and(|known| known.insert(&entry.path, ()).is_err())
                {
                    self.directories = None;
                }
            }
        }
    }

    fn check_parent(&mut self, path: &TreePath) {
        let Some(parent) = path.parent().filter(|parent| !parent.is_root()) else { return };
        if self.directories.as_ref().is_some_and(|known| known.get(&parent).is_none()) {
            self.orphans += 1;
            self.orphan.get_or_insert_with(|| path.clone());
        }
    }

    fn explain(self, place: &str, is_lowest: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(orphan) = &self.orphan {
            findings.push(
                Finding::warning(
                    "parent-directories",
                    place,
                    format!(
                        "{} entries have no entry for their directory in the layer, the first is {orphan}: engines make \
                         it with mode 0755 of root, which hides the attributes that a lower layer gives it",
                        self.orphans
                    ),
                )
                .by(PARENTS)
                .advise("build the layer with entries for all directories, as volio pack does"),
            );
        }
        if is_lowest && self.whiteouts > 0 {
            findings.push(
                Finding::warning(
                    "whiteouts",
                    place,
                    format!("the lowest layer has {} whiteouts, which remove nothing", self.whiteouts),
                )
                .by(WHITEOUTS)
                .advise("was a lower layer lost? Pack the image again"),
            );
        }
        findings
    }
}

impl Summary {
    fn explain(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.without_ranges {
            findings.push(
                Finding::warning(
                    "ranges",
                    "image",
                    "the place gives only whole blobs: parts of the image cannot be read",
                )
                .by(RANGES)
                .advise(
                    "the image can be used as a whole; ls, cat, diff and --sync read more than they need",
                ),
            );
        }
        let with_toc = self.layers - self.without_toc;
        let Self { layers, entries, whiteouts, .. } = self;
        findings.push(Finding::ok(
            "contents",
            "image",
            if self.is_deep {
                format!("{layers} layer(s) were read: {entries} entries, {whiteouts} whiteouts")
            } else {
                format!(
                    "{with_toc} of {layers} layer(s) have a table of contents: {entries} entries, {whiteouts} whiteouts. \
                     --deep reads all layers, and volio verify proves all content"
                )
            },
        ));
        findings
    }
}
