//! A pack that reuses the layers of a base, and adds what changed.
//!
//! 1. The base is resolved, and [`changes`](super::changes) compares the tree with it.
//! 2. What changed is packed as further layers, by the same code as a whole tree. Nothing changed: there is no new image.
//! 3. The layers of the base are brought to the destination, where they usually are already, and are not read.
//! 4. The documents are stored, and the image gets its name, unless another writer has moved it meanwhile.
//!
//! Everything is compared again if the tree changed between the comparison and the reading. The whole tree is packed
//! instead if there is no base, if the base cannot be used, or if the image would become too expensive to read
//! ([`FullReason`]).

use super::base::{Base, BaseRole, BaseTree, Found, FoundBase, HEADER, stored_size};
use super::changes::{Changes, Comparer, ComparisonRules, DeltaEntries, moved_meanwhile, record_left_out};
use super::documents::is_described;
use super::dry_run::DryRun;
use super::layering::{LayerPlan, LayerPlanner};
use super::limits::{ContentCheck, DeltaSize, Effect, IncrementalOptions};
use super::publish::{
    NameRule, bring_image, bring_layers, has_lost_blob, missing_bytes, send_layers, set_name, sign,
    store_documents,
};
use super::report::{FullReason, ImageForm, Incremental};
use super::upload::{UploadedLayer, upload_layers};
use super::{ArchiveFormat, Options, Packed, PackedLayer, pack_in_full, rfc3339, warn_left_out};
use crate::error::{Error, Kind, Result};
use crate::image::{self, BaseImage, Built, Description, ReadOptions};
use crate::layer::Layer;
use crate::oci::Document;
use crate::progress::Progress;
use crate::transport::{Destination, ImageSupport};
use crate::tree::{PathRange, SkipList, SourceSpec, TreePath, Walk, now};
use crate::trust::Signed;
use std::cell::{Cell, OnceCell};
use std::sync::Arc;

/// The most times that a tree is compared because entries of it turned out to be unreadable, or moved.
const MAX_COMPARISONS: u32 = 5;

/// Packs the sources into an image at the destination that has the layers of the base, and further layers with what
/// changed.
///
/// # Errors
/// Those of [`pack`](super::pack()), and of reading the base; [`Refused`](Kind::Refused) if the tree lost too much, or if the
/// name of the destination means another image than the base by now. The name then refers to the same image as before.
pub fn pack_incremental(
    destination: &dyn Destination,
    base: &Base,
    sources: &[SourceSpec],
    options: &Options,
    incremental: &IncrementalOptions,
    progress: &dyn Progress,
) -> Result<Packed> {
    if destination.image_support() == ImageSupport::PlainOnly {
        let what = "--incremental and --base cannot be used with docker-archive: it holds images with plain layers, so that no \
                    layer of a base can be reused";
        return Err(Error::usage(what).with_hint("pack into a registry, a layout or an oci-archive"));
    }
    options.image.platforms()?;
    let dry_run = DryRun(destination);
    let destination = match incremental.effect {
        Effect::Write => destination,
        Effect::DryRun => &dry_run,
    };
    Packer { destination, base, sources, options, incremental, progress }.run()
}

struct Packer<'a> {
    destination: &'a dyn Destination,
    base: &'a Base,
    sources: &'a [SourceSpec],
    options: &'a Options,
    incremental: &'a IncrementalOptions,
    progress: &'a dyn Progress,
}

/// A tree that was compared with its base, and the layers for what changed.
struct Delta<'b> {
    base: &'b BaseTree,
    changes: Changes,
    entries: Arc<DeltaEntries>,
    plans: Vec<LayerPlan>,
}

/// The next step after a part of the work.
enum Step<T> {
    Done(T),
    /// The tree changed meanwhile, and is compared again.
    Again,
    /// The whole tree is packed instead.
    InFull(FullReason),
}

impl Packer<'_> {
    fn run(&self) -> Result<Packed> {
        let found = match self.base.find(self.options.signer.as_deref())? {
            Found::Image(found) => found,
            Found::Nothing => {
                let name = self.base.location().to_string();
                let rule = NameRule::UnlessMoved(None);
                return self.pack_in_full(None, FullReason::NoBase { name }, &rule);
            }
            Found::Denied(error) => {
                let why = format!("{error}: there may be no image yet");
                return self.pack_in_full(None, FullReason::Unusable { why }, &NameRule::IfNew);
            }
            Found::Unsigned { digest, error } => {
                let why = format!("the base is not signed: {error}");
                let rule = NameRule::UnlessMoved(Some(digest));
                return self.pack_in_full(None, FullReason::Unusable { why }, &rule);
            }
        };
        let tree = OnceCell::new();
        let mut skip_list = SkipList::default();
        for _ in 0..MAX_COMPARISONS {
            match self.attempt(&found, &tree, &mut skip_list)? {
                Step::Done(packed) => return Ok(packed),
                Step::Again => {}
                Step::InFull(reason) => {
                    return self.pack_in_full(Some(&found), reason, &self.name_rule(&found));
                }
            }
        }
        let why = "the tree changes too often to be compared with the base".to_owned();
        self.pack_in_full(Some(&found), FullReason::Unusable { why }, &self.name_rule(&found))
    }

    fn name_rule(&self, found: &FoundBase) -> NameRule {
        match self.base.role() {
            BaseRole::Current => NameRule::UnlessMoved(Some(found.root.descriptor().digest.clone())),
            BaseRole::Other => NameRule::Replace,
        }
    }

    fn pack_in_full(&self, found: Option<&FoundBase>, reason: FullReason, rule: &NameRule) -> Result<Packed> {
        let mut packed =
            pack_in_full(self.destination, self.sources, self.options, rule, self.progress, &|content| {
                // The size of a base that cannot be read is not known.
                let is_unknown = matches!(reason, FullReason::Unusable { .. });
                let rule = self.incremental.shrink_rule;
                if is_unknown && content == 0 { rule.ensure_allows_empty() } else { Ok(()) }
            })?;
        let full_bytes = packed.layers.iter().map(|layer| layer.size).sum();
        let sent = packed.bytes_of_new_layers();
        let base = found.map(|found| found.address.clone());
        packed.incremental = Some(Incremental {
            bytes_read: packed.bytes,
            bytes_sent: sent,
            full_bytes,
            layers_added: packed.layers.len() as u64,
            ..Incremental::of(base, ImageForm::Full(reason))
        });
        Ok(packed)
    }

    /// Compares the tree with the base once, and packs what changed.
    fn attempt(
        &self,
        found: &FoundBase,
        tree: &OnceCell<BaseTree>,
        skip_list: &mut SkipList,
    ) -> Result<Step<Packed>> {
        let mut changes = match self.compare(found, tree, skip_list)? {
            Step::Done(changes) => changes,
            Step::Again => return Ok(Step::Again),
            Step::InFull(reason) => return Ok(Step::InFull(reason)),
        };
        // It was read for the comparison.
        let Some(base) = tree.get() else { return Ok(Step::Again) };
        self.incremental.shrink_rule.ensure_allows(base, changes.tree)?;
        let entries = Arc::new(std::mem::take(&mut changes.delta));
        let mut delta = Delta { base, changes, entries, plans: Vec::new() };
        if delta.entries.paths.is_empty() {
            let checked = delta.changes.listed.check(self.options.tree.on_change, &mut delta.changes.summary);
            if let Err(error) = checked {
                return self.retry_comparison(error, skip_list);
            }
            if self.is_described(found, &base.image)? {
                return self.keep(found, &delta).map(Step::Done);
            }
        } else {
            let size = match self.plan(&mut delta, skip_list) {
                Ok(size) => size,
                Err(error) => return self.retry_comparison(error, skip_list),
            };
            let reason = self.incremental.reason_for_full_pack(base, &delta.changes, &delta.entries, size);
            if let Some(reason) = reason {
                return Ok(Step::InFull(reason));
            }
        }
        let uploaded = match self.upload(&mut delta, skip_list)? {
            Step::Done(uploaded) => uploaded,
            Step::Again => return Ok(Step::Again),
            Step::InFull(reason) => return Ok(Step::InFull(reason)),
        };
        self.publish(found, delta, &uploaded)
    }

    fn compare(
        &self,
        found: &FoundBase,
        tree: &OnceCell<BaseTree>,
        skip_list: &mut SkipList,
    ) -> Result<Step<Changes>> {
        let Options { tree: options, .. } = self.options;
        let walk = Walk::skipping(self.sources, options, skip_list)?;
        if let Some(directory) = self.destination.directory() {
            walk.ensure_excludes(&directory)?;
        }
        let comparer = Comparer {
            sources: self.sources,
            options,
            rules: ComparisonRules {
                checksum: self.incremental.content_check == ContentCheck::Always,
                is_normalized: options.normalize.is_some(),
                clamp_mtime: options.clamp_mtime,
            },
            progress: self.progress,
        };
        let is_unreadable = Cell::new(false);
        let read = || match tree.get() {
            Some(tree) => Ok(tree),
            None => {
                let read = self.read_base(found).inspect_err(|_| is_unreadable.set(true))?;
                Ok(tree.get_or_init(|| read))
            }
        };
        match comparer.compare(walk, read, skip_list) {
            Ok(Some(changes)) => Ok(Step::Done(changes)),
            Ok(None) => Ok(Step::Again),
            Err(error) if is_unreadable.get() => self.without_base(error),
            Err(error) => self.retry_comparison(error, skip_list),
        }
    }

    fn read_base(&self, found: &FoundBase) -> Result<BaseTree> {
        // The platform of the host would make the digest depend on it.
        let platform = self.options.image.platforms()?.into_iter().next();
        let read = ReadOptions {
            platform,
            limits: self.incremental.limits,
            temporary: self.incremental.temporary.clone(),
            any_media_type: true,
            ..ReadOptions::default()
        };
        found.read(self.base.reference(), &read, now(), self.progress)
    }

    /// Packs the whole tree if a base that the user did not name cannot be used.
    fn without_base<T>(&self, error: Error) -> Result<Step<T>> {
        let is_about_image = matches!(error.kind(), Kind::Integrity | Kind::NotFound);
        match self.base.role() {
            BaseRole::Current if is_about_image => {
                Ok(Step::InFull(FullReason::Unusable { why: format!("the base cannot be used: {error}") }))
            }
            _ => Err(error.context("cannot read the base")),
        }
    }

    /// Compares again after an error, if that may help.
    fn retry_comparison<T>(&self, error: Error, skip_list: &mut SkipList) -> Result<Step<T>> {
        if skip_list.record_failure(&error, &self.options.tree, 0) {
            self.progress.warn(&format!("{error}; the tree is compared again"));
            return Ok(Step::Again);
        }
        Err(error)
    }

    /// Plans the layers of the delta.
    fn plan(&self, delta: &mut Delta<'_>, skip_list: &SkipList) -> Result<DeltaSize> {
        let range = PathRange { paths: Some(Arc::clone(&delta.entries.paths)), ..PathRange::default() };
        let mut planner = LayerPlanner::new(self.options.layer_size);
        let removed = delta.entries.removed.values().map(|paths| paths.len() as u64).sum::<u64>();
        let mut stored = removed.saturating_mul(HEADER);
        for found in Walk::skipping(self.sources, &self.options.tree, skip_list)?.within(&range).sizes_only()
        {
            let entry = found?.entry;
            stored = stored.saturating_add(stored_size(&entry.kind));
            planner.add(&entry);
        }
        let plans = planner.finish().into_iter();
        delta.plans = plans.map(|plan| plan.restricted_to(&delta.entries)).collect();
        Ok(DeltaSize { layers: delta.plans.len(), stored })
    }

    /// Returns whether the documents of the base are those that this pack describes. A base that lacks the image for one of
    /// its platforms is not, and gets new documents.
    fn is_described(&self, found: &FoundBase, base: &BaseImage) -> Result<bool> {
        match is_described(found.source.as_ref(), &found.root, &self.options.image, base) {
            Err(error) if matches!(error.kind(), Kind::Integrity | Kind::NotFound) => Ok(false),
            compared => compared,
        }
    }

    /// Packs what changed.
    fn upload(&self, delta: &mut Delta<'_>, skip_list: &mut SkipList) -> Result<Step<Vec<UploadedLayer>>> {
        let Self { destination, sources, options, progress, .. } = self;
        let format = ArchiveFormat::Layer;
        let uploaded =
            upload_layers(*destination, sources, options, format, skip_list, &delta.plans, *progress)?;
        let DeltaEntries { paths, directories, .. } = &*delta.entries;
        let found: u64 = uploaded.iter().map(|layer| layer.delta_found.entries).sum();
        let new_directory = uploaded.iter().find_map(|layer| layer.delta_found.new_directory.as_ref());
        if found != paths.len() as u64 || new_directory.is_some() {
            let recorded = uploaded
                .iter()
                .filter(|layer| record_left_out(skip_list, &layer.summary, paths, directories));
            if recorded.count() > 0 {
                return Ok(Step::Again);
            }
            let root = TreePath::root();
            return self.retry_comparison(moved_meanwhile(new_directory.unwrap_or(&root)), skip_list);
        }
        let (on_change, summary) = (options.tree.on_change, &mut delta.changes.summary);
        let mut listed = uploaded.iter().map(|layer| &layer.listed).chain([&delta.changes.listed]);
        let checked = listed.try_for_each(|listed| listed.check(on_change, summary));
        drop(listed);
        match checked {
            Ok(()) => Ok(Step::Done(uploaded)),
            Err(error) => self.retry_comparison(error, skip_list),
        }
    }

    /// Publishes the image of a base and its delta.
    fn publish(
        &self,
        found: &FoundBase,
        delta: Delta<'_>,
        uploaded: &[UploadedLayer],
    ) -> Result<Step<Packed>> {
        let Changes { summary, .. } = &delta.changes;
        warn_left_out(summary, self.progress);
        let created = self.options.tree.clamp_mtime.or(summary.newest).and_then(rfc3339);
        let layers: Vec<Layer> = uploaded.iter().map(|layer| layer.layer.clone()).collect();
        let description = Description { created, ..self.options.image.clone() };
        let image = description.build_over(&delta.base.image, &layers)?;
        let brought = match self.store(found, &delta.base.image, &image) {
            Err(error) if has_lost_blob(&error) => {
                let why = format!("a layer of the base is gone: {error}");
                return Ok(Step::InFull(FullReason::Unusable { why }));
            }
            stored => stored?,
        };
        let signed = sign(self.destination, &image, self.options.signer.as_deref())?;
        set_name(self.destination, &image.root, &self.name_rule(found))?;
        let documents = image
            .configs
            .iter()
            .chain(&image.manifests)
            .chain(Some(&image.root).filter(|root| image.manifests.first() != Some(root)));
        let own: u64 = layers.iter().map(|layer| layer.descriptor.size).sum();
        let own = own + documents.map(|document| document.bytes().len() as u64).sum::<u64>();
        let there = uploaded.iter().filter(|layer| layer.was_there).map(|layer| layer.layer.descriptor.size);
        let sent = brought + own.saturating_sub(there.sum());
        let read: u64 = uploaded.iter().map(|layer| layer.contents.bytes).sum();
        let added = uploaded.iter().map(|layer| layer.entries).sum::<u64>().saturating_mul(HEADER);
        let reused = delta.changes.tree.stored.saturating_sub(read.saturating_add(added));
        let full_bytes = own.saturating_add(delta.base.compressed_size(reused));
        let report = Incremental { full_bytes, ..self.report(found, &delta, ImageForm::Delta, read, sent) };
        let layers = uploaded.iter().map(|layer| PackedLayer::new(&layer.layer, &layer.contents)).collect();
        let packed = Packed::new(self.destination, image, layers, uploaded, delta.changes.summary);
        let Changes { tree, .. } = delta.changes;
        let incremental = Some(Incremental { layers_added: uploaded.len() as u64, ..report });
        Ok(Step::Done(Packed { entries: tree.entries, bytes: tree.bytes, incremental, signed, ..packed }))
    }

    /// Brings the layers of the base to the destination, and stores the documents. Returns the number of bytes that were sent
    /// for the layers.
    fn store(&self, found: &FoundBase, base: &BaseImage, image: &Built) -> Result<u64> {
        let (from, to, progress) = (found.source.as_ref(), self.destination, self.progress);
        if self.incremental.effect == Effect::DryRun {
            return missing_bytes(to, &base.layers);
        }
        let brought = bring_layers(from, to, &base.layers, progress)?;
        match store_documents(to, image) {
            Err(error) if crate::transport::is_missing_blob(&error) => {
                progress.warn(&format!("{error}; the layers of the base are sent again"));
                let sent = send_layers(from, to, &base.layers, progress)?;
                store_documents(to, image).map(|()| brought + sent)
            }
            stored => stored.map(|()| brought),
        }
    }

    /// Lets the name mean the base, because nothing has changed.
    fn keep(&self, found: &FoundBase, delta: &Delta<'_>) -> Result<Packed> {
        let sent = match self.base.role() {
            BaseRole::Other => self.bring(found)?,
            BaseRole::Current => 0,
        };
        let signed = self.sign_base(found)?;
        match self.base.role() {
            BaseRole::Other => set_name(self.destination, &found.root, &NameRule::Replace)?,
            // A layout without a tag may have been read under another one.
            BaseRole::Current if self.base.location().is_repository() => {
                set_name(self.destination, &found.root, &self.name_rule(found))?;
            }
            BaseRole::Current => self.destination.publish_attachments()?,
        }
        let Changes { tree, summary, .. } = &delta.changes;
        warn_left_out(summary, self.progress);
        let root = found.root.clone();
        let platforms = self.options.image.platforms()?;
        let image = Built { configs: Vec::new(), manifests: Vec::new(), root, platforms };
        let packed = Packed::new(self.destination, image, Vec::new(), &[], summary.clone());
        let incremental = Some(self.report(found, delta, ImageForm::Unchanged, 0, sent));
        Ok(Packed { entries: tree.entries, bytes: tree.bytes, incremental, signed, ..packed })
    }

    /// Signs the base, which is the image. It may have been signed by another key only.
    fn sign_base(&self, found: &FoundBase) -> Result<Option<Signed>> {
        let Some(signer) = &self.options.signer else { return Ok(None) };
        let documents = image::documents(&found.root, found.source.as_ref(), self.progress)?;
        signer.sign(&documents, self.destination).map(Some)
    }

    fn bring(&self, found: &FoundBase) -> Result<u64> {
        let root: &Document = &found.root;
        let effect = self.incremental.effect;
        bring_image(found.source.as_ref(), self.destination, root, effect, self.progress)
    }

    fn report(
        &self,
        found: &FoundBase,
        delta: &Delta<'_>,
        form: ImageForm,
        read: u64,
        sent: u64,
    ) -> Incremental {
        let Delta { base, changes, .. } = delta;
        Incremental {
            added: changes.added,
            changed: changes.changed,
            removed: changes.removed,
            unchanged: changes.unchanged,
            content_compared: changes.compared,
            bytes_read: read + changes.compared_bytes,
            bytes_sent: sent,
            full_bytes: base.compressed_size(changes.tree.stored),
            layers_reused: base.image.layers.len() as u64,
            ..Incremental::of(Some(found.address.clone()), form)
        }
    }
}
