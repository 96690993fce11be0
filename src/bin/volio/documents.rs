//! The JSON documents of `--format json`. Their fields are part of the program's interface, and the library's types are not.

use serde::Serialize;
use std::collections::BTreeMap;
use volio::copy::{Copied, TagCopied};
use volio::inspect::{ArtifactSummary, ImageSummary, Inspected, LayerSummary};
use volio::pack::{ImageForm, Incremental, Packed, PackedLayer};
use volio::unpack::{Outcome, Synced, Unpacked};
use volio::verify::{Damage, Verified};
use volio::{ContainerConfig, Digest, Platform, Removed, Signed};

/// Converts a list of results into a list of documents.
fn list<'a, T, D: From<&'a T>>(items: &'a [T]) -> Vec<D> {
    items.iter().map(D::from).collect()
}

/// The result of `volio pack`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackDocument<'a> {
    address: &'a str,
    digest: &'a Digest,
    /// The tags of `--tag` and `--tag-template`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    platforms: &'a [Platform],
    layers: Vec<PackedLayerDocument<'a>>,
    /// Absent unless an earlier run, which was interrupted, has sent layers.
    #[serde(skip_serializing_if = "is_zero")]
    layers_found: u64,
    entries: u64,
    bytes: u64,
    sockets_skipped: u64,
    excluded: u64,
    attributes_skipped: &'a BTreeMap<&'static str, u64>,
    bookkeeping_skipped: u64,
    mounts_skipped: u64,
    unreadable_skipped: u64,
    changed_skipped: u64,
    skipped: Vec<SkippedDocument>,
    /// Absent without a comparison with a base.
    #[serde(skip_serializing_if = "Option::is_none")]
    incremental: Option<IncrementalDocument<'a>>,
    /// Absent if the image was not to be signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    signatures: Option<SignaturesDocument>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IncrementalDocument<'a> {
    base: Option<&'a str>,
    full: bool,
    reason: Option<String>,
    added: u64,
    changed: u64,
    removed: u64,
    unchanged: u64,
    content_compared: u64,
    bytes_read: u64,
    bytes_sent: u64,
    full_bytes: u64,
    layers_reused: u64,
    layers_added: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> From<&'a Incremental> for IncrementalDocument<'a> {
    fn from(report: &'a Incremental) -> Self {
        let reason = match &report.form {
            ImageForm::Full(reason) => Some(reason.to_string()),
            ImageForm::Delta | ImageForm::Unchanged => None,
        };
        Self {
            base: report.base.as_deref(),
            full: reason.is_some(),
            reason,
            added: report.added,
            changed: report.changed,
            removed: report.removed,
            unchanged: report.unchanged,
            content_compared: report.content_compared,
            bytes_read: report.bytes_read,
            bytes_sent: report.bytes_sent,
            full_bytes: report.full_bytes,
            layers_reused: report.layers_reused,
            layers_added: report.layers_added,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PackedLayerDocument<'a> {
    digest: &'a Digest,
    diff_id: &'a Digest,
    size: u64,
    uncompressed_size: u64,
    media_type: &'a str,
}

#[derive(Serialize)]
struct SkippedDocument {
    path: String,
    reason: String,
}

/// Signatures that were stored.
#[derive(Serialize)]
pub struct SignaturesDocument {
    /// The number of manifests and indexes.
    documents: u64,
    added: u64,
    present: u64,
}

impl From<&Signed> for SignaturesDocument {
    fn from(signed: &Signed) -> Self {
        Self { documents: signed.documents, added: signed.added, present: signed.present }
    }
}

impl<'a> PackDocument<'a> {
    pub fn new(packed: &'a Packed, tags: Vec<String>, dry_run: bool) -> Self {
        let skipped = packed.skipped.iter();
        Self {
            address: &packed.address,
            digest: &packed.digest,
            tags,
            platforms: &packed.platforms,
            layers: list(&packed.layers),
            layers_found: packed.layers_found,
            entries: packed.entries,
            bytes: packed.bytes,
            sockets_skipped: packed.sockets_skipped,
            excluded: packed.excluded,
            attributes_skipped: &packed.attributes_skipped,
            bookkeeping_skipped: packed.bookkeeping_skipped,
            mounts_skipped: packed.mounts_skipped,
            unreadable_skipped: packed.unreadable_skipped,
            changed_skipped: packed.changed_skipped,
            skipped: skipped
                .map(|entry| SkippedDocument {
                    path: entry.path.to_string(),
                    reason: entry.reason.to_string(),
                })
                .collect(),
            incremental: packed.incremental.as_ref().map(IncrementalDocument::from),
            signatures: packed.signed.as_ref().map(SignaturesDocument::from),
            dry_run,
        }
    }
}

impl<'a> From<&'a PackedLayer> for PackedLayerDocument<'a> {
    fn from(layer: &'a PackedLayer) -> Self {
        Self {
            digest: &layer.digest,
            diff_id: &layer.diff_id,
            size: layer.size,
            uncompressed_size: layer.uncompressed_size,
            media_type: &layer.media_type,
        }
    }
}

/// The result of `volio unpack`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnpackDocument<'a> {
    address: &'a str,
    outcome: &'static str,
    digest: &'a Digest,
    platform: &'a Platform,
    layers: usize,
    data_io: bool,
    removed: u64,
    entries: u64,
    bytes: u64,
    ownership_not_restored: u64,
    attributes_not_restored: u64,
    xattrs_not_restored: u64,
    devices_skipped: u64,
    symlinks_skipped: u64,
    fifos_skipped: u64,
    hardlinks_copied: u64,
    /// Absent unless dead content of layers was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_fetched: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_of_layers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sync: Option<SyncDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
}

/// The changes of a sync, made or planned.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SyncDocument {
    fetched: u64,
    requests: u64,
    reused: u64,
    written: u64,
    attributes: u64,
    removed: u64,
    unchanged: u64,
    kept_mounts: Vec<String>,
}

impl From<&Synced> for SyncDocument {
    fn from(synced: &Synced) -> Self {
        Self {
            fetched: synced.fetched,
            requests: synced.requests,
            reused: synced.reused,
            written: synced.written,
            attributes: synced.attributes,
            removed: synced.removed,
            unchanged: synced.unchanged,
            kept_mounts: synced.kept_mounts.iter().map(ToString::to_string).collect(),
        }
    }
}

impl<'a> UnpackDocument<'a> {
    pub fn new(address: &'a str, unpacked: &'a Unpacked) -> Self {
        let extracted = &unpacked.extracted;
        let fetched = Some(&unpacked.fetched).filter(|fetched| fetched.is_partial);
        Self {
            address,
            outcome: match unpacked.outcome {
                Outcome::Unpacked => "unpacked",
                Outcome::Present => "present",
                Outcome::Kept => "kept",
            },
            digest: &unpacked.digest,
            platform: &unpacked.platform,
            layers: unpacked.layers,
            data_io: unpacked.data_io,
            removed: unpacked.removed,
            entries: extracted.entries,
            bytes: extracted.bytes,
            ownership_not_restored: extracted.ownership_not_restored,
            attributes_not_restored: extracted.attributes_not_restored,
            xattrs_not_restored: extracted.xattrs_not_restored,
            devices_skipped: extracted.devices_skipped,
            symlinks_skipped: extracted.symlinks_skipped,
            fifos_skipped: extracted.fifos_skipped,
            hardlinks_copied: extracted.hardlinks_copied,
            bytes_fetched: fetched.map(|fetched| fetched.bytes),
            bytes_of_layers: fetched.map(|fetched| fetched.of),
            sync: unpacked.sync.as_ref().map(SyncDocument::from),
            dry_run: unpacked.sync.as_ref().filter(|synced| synced.is_dry).map(|_| true),
        }
    }
}

/// The result of `volio copy`, `push` and `pull`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyDocument<'a> {
    address: &'a str,
    digest: &'a Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_digest: Option<&'a Digest>,
    blobs_copied: u64,
    blobs_present: u64,
    blobs_mounted: u64,
    blobs_omitted: u64,
    /// Absent without foreign layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    blobs_foreign: Option<u64>,
    bytes_copied: u64,
    referrers: u64,
}

impl<'a> From<&'a Copied> for CopyDocument<'a> {
    fn from(copied: &'a Copied) -> Self {
        Self {
            address: &copied.address,
            digest: &copied.digest,
            source_digest: copied.source_digest.as_ref(),
            blobs_copied: copied.blobs_copied,
            blobs_present: copied.blobs_present,
            blobs_mounted: copied.blobs_mounted,
            blobs_omitted: copied.blobs_omitted,
            blobs_foreign: (copied.blobs_foreign > 0).then_some(copied.blobs_foreign),
            bytes_copied: copied.bytes_copied,
            referrers: copied.referrers,
        }
    }
}

/// The result of `--all-tags` for one tag.
#[derive(Serialize)]
pub struct TagDocument<'a> {
    tag: &'a str,
    #[serde(flatten)]
    copied: Option<CopyDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> From<&'a TagCopied> for TagDocument<'a> {
    fn from(TagCopied { tag, outcome }: &'a TagCopied) -> Self {
        let (copied, error) = match outcome {
            Ok(copied) => (Some(copied.into()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { tag, copied, error }
    }
}

/// The result of `volio inspect`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectDocument<'a> {
    address: &'a str,
    digest: &'a Digest,
    media_type: &'a str,
    size: u64,
    annotations: &'a BTreeMap<String, String>,
    images: Vec<ImageDocument<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    artifacts: Vec<ArtifactDocument<'a>>,
}

#[derive(Serialize)]
struct ImageDocument<'a> {
    digest: &'a Digest,
    platform: &'a Platform,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a str>,
    size: u64,
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<&'a ContainerConfig>,
    layers: Vec<LayerDocument<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactDocument<'a> {
    digest: &'a Digest,
    artifact_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a Digest>,
    size: u64,
    annotations: &'a BTreeMap<String, String>,
    config: LayerDocument<'a>,
    layers: Vec<LayerDocument<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LayerDocument<'a> {
    digest: &'a Digest,
    media_type: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff_id: Option<&'a Digest>,
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> InspectDocument<'a> {
    pub fn new(address: &'a str, inspected: &'a Inspected) -> Self {
        Self {
            address,
            digest: &inspected.digest,
            media_type: &inspected.media_type,
            size: inspected.size,
            annotations: &inspected.annotations,
            images: list(&inspected.images),
            artifacts: list(&inspected.artifacts),
        }
    }
}

impl<'a> From<&'a ImageSummary> for ImageDocument<'a> {
    fn from(image: &'a ImageSummary) -> Self {
        Self {
            digest: &image.digest,
            platform: &image.platform,
            created: image.created.as_deref(),
            size: image.size,
            labels: &image.labels,
            annotations: &image.annotations,
            execution: image.execution.as_ref(),
            layers: list(&image.layers),
        }
    }
}

impl<'a> From<&'a ArtifactSummary> for ArtifactDocument<'a> {
    fn from(artifact: &'a ArtifactSummary) -> Self {
        Self {
            digest: &artifact.digest,
            artifact_type: &artifact.artifact_type,
            subject: artifact.subject.as_ref(),
            size: artifact.size,
            annotations: &artifact.annotations,
            config: (&artifact.config).into(),
            layers: list(&artifact.layers),
        }
    }
}

impl<'a> From<&'a LayerSummary> for LayerDocument<'a> {
    fn from(layer: &'a LayerSummary) -> Self {
        Self {
            digest: &layer.digest,
            media_type: &layer.media_type,
            size: layer.size,
            diff_id: layer.diff_id.as_ref(),
            annotations: &layer.annotations,
        }
    }
}

/// The result of `volio verify`.
#[derive(Serialize)]
pub struct VerifyDocument<'a> {
    address: &'a str,
    digest: &'a Digest,
    images: u64,
    blobs: u64,
    bytes: u64,
    #[serde(rename = "blobsForeign", skip_serializing_if = "Option::is_none")]
    blobs_foreign: Option<u64>,
    damage: Vec<DamageDocument<'a>>,
}

#[derive(Serialize)]
struct DamageDocument<'a> {
    role: &'a str,
    digest: &'a Digest,
    why: &'a str,
}

impl<'a> VerifyDocument<'a> {
    pub fn new(address: &'a str, verified: &'a Verified) -> Self {
        let Verified { digest, images, blobs, bytes, blobs_foreign, damage, .. } = verified;
        Self {
            address,
            digest,
            images: *images,
            blobs: *blobs,
            bytes: *bytes,
            blobs_foreign: (*blobs_foreign > 0).then_some(*blobs_foreign),
            damage: list(damage),
        }
    }
}

impl<'a> From<&'a Damage> for DamageDocument<'a> {
    fn from(damage: &'a Damage) -> Self {
        Self { role: &damage.role, digest: &damage.digest, why: &damage.why }
    }
}

/// The result of `volio rm`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RmDocument<'a> {
    address: &'a str,
    digest: &'a Digest,
    tags: &'a [String],
    /// The tags of attachments and the digests of referrers that went with their image.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    attachments: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments_left: Option<&'a str>,
    blobs: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    blobs_left: Option<&'a str>,
}

impl<'a> RmDocument<'a> {
    pub fn new(address: &'a str, removed: &'a Removed) -> Self {
        let Removed { digest, tags, attachments, blobs, bytes, .. } = removed;
        Self {
            address,
            digest,
            tags,
            attachments,
            attachments_left: removed.attachments_left.as_deref(),
            blobs: *blobs,
            bytes: *bytes,
            blobs_left: removed.blobs_left.as_deref(),
        }
    }
}
