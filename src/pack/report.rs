//! The result of a pack.

use super::upload::UploadedLayer;
use crate::image::Built;
use crate::layer::{Contents, Layer};
use crate::oci::{Digest, Document, Platform};
use crate::transport::Destination;
use crate::tree::{LeftOut, Summary};
use crate::trust::Signed;
use std::collections::BTreeMap;
use std::fmt;

/// The result of [`pack`](super::pack).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Packed {
    /// The address of the image with its digest: `repo@sha256:…`.
    pub address: String,
    /// The digest of the index, or of the manifest if there is only one.
    pub digest: Digest,
    /// The index, or the manifest if there is only one.
    pub(crate) root: Document,
    /// The platforms of the image.
    pub platforms: Vec<Platform>,
    /// The layers that were packed, lowest first. Those of a base are not among them.
    pub layers: Vec<PackedLayer>,
    /// The number of those layers that the destination had already, from an earlier run.
    pub layers_found: u64,
    /// The size of these blobs together, in bytes.
    pub bytes_found: u64,
    /// The number of entries of the tree.
    pub entries: u64,
    /// The number of its entries that are not directories, and were packed.
    pub files: u64,
    /// The size of its files together, in bytes.
    pub bytes: u64,
    /// The number of sockets, which are left out because no archive can hold them.
    pub sockets_skipped: u64,
    /// The number of entries that the ignore rules left out. Entries below an ignored directory are not counted.
    pub excluded: u64,
    /// The number of extended attributes that were left out because they belong to the host, by the prefixes of their names.
    pub attributes_skipped: BTreeMap<&'static str, u64>,
    /// The number of entries that were left out because volio or `mkfs` created them in the root of a source.
    pub bookkeeping_skipped: u64,
    /// The number of mount points that were left out, or packed as empty directories.
    pub mounts_skipped: u64,
    /// The number of entries that were left out because they cannot be read.
    pub unreadable_skipped: u64,
    /// The number of entries that were left out because they changed while they were read.
    pub changed_skipped: u64,
    /// The paths of these entries, up to [`Summary::MAX_NAMED`].
    pub skipped: Vec<LeftOut>,
    /// The comparison with a base; `None` if none was asked for.
    pub incremental: Option<Incremental>,
    /// The signatures; `None` if the image was not to be signed.
    pub signed: Option<Signed>,
}

/// A layer of a packed image.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PackedLayer {
    /// The digest of the blob.
    pub digest: Digest,
    /// The digest of the plain tar archive.
    pub diff_id: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The size of the plain tar archive in bytes.
    pub uncompressed_size: u64,
    /// The media type of the blob.
    pub media_type: String,
}

impl Packed {
    /// Describes an image with these layers. Its tree is in the archives of `uploaded`.
    pub(crate) fn new(
        destination: &dyn Destination,
        image: Built,
        layers: Vec<PackedLayer>,
        uploaded: &[UploadedLayer],
        summary: Summary,
    ) -> Self {
        let digest = image.root.descriptor().digest.clone();
        Self {
            address: destination.address(&digest),
            digest,
            root: image.root,
            platforms: image.platforms,
            layers,
            layers_found: uploaded.iter().filter(|layer| layer.was_there).count() as u64,
            bytes_found: uploaded
                .iter()
                .filter(|layer| layer.was_there)
                .map(|layer| layer.layer.descriptor.size)
                .sum(),
            files: uploaded.iter().map(|layer| layer.content).sum(),
            entries: uploaded.iter().map(|layer| layer.entries).sum(),
            bytes: uploaded.iter().map(|layer| layer.contents.bytes).sum(),
            sockets_skipped: summary.sockets,
            excluded: summary.excluded,
            attributes_skipped: summary.attributes,
            bookkeeping_skipped: summary.bookkeeping,
            mounts_skipped: summary.mounts,
            unreadable_skipped: summary.unreadable,
            changed_skipped: summary.changed,
            skipped: summary.left_out,
            incremental: None,
            signed: None,
        }
    }
}

impl Packed {
    /// Returns the size of the layers that were sent, in bytes.
    pub fn bytes_of_new_layers(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum::<u64>().saturating_sub(self.bytes_found)
    }
}

impl PackedLayer {
    pub(crate) fn new(layer: &Layer, contents: &Contents) -> Self {
        Self {
            digest: layer.descriptor.digest.clone(),
            diff_id: layer.diff_id.clone(),
            size: layer.descriptor.size,
            uncompressed_size: contents.size,
            media_type: layer.descriptor.media_type.clone(),
        }
    }
}

/// The comparison of a tree with its base, and what it saved. A full pack compares nothing, and all counts are zero then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incremental {
    /// The address of the base with its digest; `None` if there is none.
    pub base: Option<String>,
    /// The form of the new image.
    pub form: ImageForm,
    /// The number of entries that the base does not have.
    pub added: u64,
    /// The number of entries that differ from the base.
    pub changed: u64,
    /// The number of entries of the base that are gone.
    pub removed: u64,
    /// The number of entries that are the same in the base.
    pub unchanged: u64,
    /// The number of files whose contents were compared.
    pub content_compared: u64,
    /// The number of bytes of files that were read.
    pub bytes_read: u64,
    /// The number of bytes that were sent, or would have been sent with [`Effect::DryRun`](super::Effect::DryRun).
    pub bytes_sent: u64,
    /// The number of bytes that a full pack sends: what was added, and the unchanged entries, estimated by the compression of
    /// the base.
    pub full_bytes: u64,
    /// The number of layers of the base that the image has.
    pub layers_reused: u64,
    /// The number of layers that were added to them.
    pub layers_added: u64,
}

/// The form of an image that was packed with a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageForm {
    /// The layers of the base, and layers with what changed.
    Delta,
    /// The base itself: there is no new image.
    Unchanged,
    /// The whole tree.
    Full(FullReason),
}

/// The reason for which the whole tree was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FullReason {
    /// The name of the destination does not mean anything yet.
    NoBase {
        /// The name.
        name: String,
    },
    /// The base cannot be read or reused.
    Unusable {
        /// The reason.
        why: String,
    },
    /// No entry is as it is in the base.
    EverythingDiffers,
    /// The image would have too many layers.
    TooManyLayers {
        /// The number of layers.
        layers: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many bytes of the image would be dead.
    TooMuchDead {
        /// The limit in percent.
        limit: u8,
    },
}

impl Incremental {
    pub(super) fn of(base: Option<String>, form: ImageForm) -> Self {
        Self {
            base,
            form,
            added: 0,
            changed: 0,
            removed: 0,
            unchanged: 0,
            content_compared: 0,
            bytes_read: 0,
            bytes_sent: 0,
            full_bytes: 0,
            layers_reused: 0,
            layers_added: 0,
        }
    }
}

impl fmt::Display for FullReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBase { name } => write!(f, "{name} does not exist yet"),
            Self::Unusable { why } => f.write_str(why),
            Self::EverythingDiffers => f.write_str("everything differs from the base"),
            Self::TooManyLayers { layers, limit } => {
                write!(f, "the image would have {layers} layers (--max-layers {limit})")
            }
            Self::TooMuchDead { limit } => {
                write!(f, "more than {limit} % of its bytes would be dead (--max-dead {limit})")
            }
        }
    }
}
