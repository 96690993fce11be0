//! Reads the documents of an image, one after the other, and lists the blobs that they name.

use super::{Options, Verified};
use crate::error::{Error, Result};
use crate::image::{DEPTH_LIMIT, DOCUMENTS_LIMIT, check_media_type};
use crate::oci::{Descriptor, Digest, Document, ImageConfig, Index, Manifest, Platform, media_type};
use crate::progress::Progress;
use crate::transport::{self, Source};
use std::collections::{HashMap, HashSet};

/// A blob to read.
pub(super) struct BlobCheck {
    pub blob: Descriptor,
    /// The diff_id, if it is a layer.
    pub diff_id: Option<Digest>,
    /// Its roles in the image. Platforms share layers.
    pub roles: Vec<String>,
}

/// The blobs of an image, and the report about its documents.
pub(super) struct VerificationPlan<'a> {
    source: &'a dyn Source,
    options: &'a Options,
    progress: &'a dyn Progress,
    pub verified: Verified,
    pub checks: Vec<BlobCheck>,
    /// The positions in `checks` of blobs with this digest and size.
    positions: HashMap<(Digest, u64), Vec<usize>>,
    /// The documents that were read.
    documents: HashSet<Digest>,
}

impl<'a> VerificationPlan<'a> {
    /// Creates an empty plan for the image with this root digest.
    pub fn new(
        source: &'a dyn Source,
        options: &'a Options,
        progress: &'a dyn Progress,
        digest: Digest,
    ) -> Self {
        let verified =
            Verified { digest, images: 0, blobs: 0, bytes: 0, blobs_foreign: 0, damage: Vec::new() };
        Self {
            source,
            options,
            progress,
            verified,
            checks: Vec::new(),
            positions: HashMap::new(),
            documents: HashSet::new(),
        }
    }

    /// Adds all that an index or a manifest names. Its own digest was verified when it was fetched.
    ///
    /// # Errors
    /// Those of the source; when indexes are nested too deep, or the documents are too large.
    pub fn add_document(
        &mut self,
        document: &Document,
        platform: Option<&Platform>,
        depth: usize,
    ) -> Result<()> {
        let Descriptor { digest, size, media_type, .. } = document.descriptor();
        if !self.documents.insert(digest.clone()) {
            return Ok(());
        }
        self.verified.blobs += 1;
        self.count(*size)?;
        if !media_type::is_index(media_type) {
            let role = role("manifest", platform.map(Platform::to_string).as_deref());
            let manifest = self.verified.note(Manifest::parse(document), &role, digest)?;
            return manifest.map_or(Ok(()), |manifest| self.add_manifest(document, &manifest, platform));
        }
        if depth == DEPTH_LIMIT {
            return Err(document.malformed(&format!("indexes are nested more than {DEPTH_LIMIT} deep")));
        }
        let index = self.verified.note(Index::parse(document), "index", digest)?;
        let entries = index.map(|index| index.manifests).unwrap_or_default();
        entries.iter().try_for_each(|entry| self.add_entry(entry, depth + 1))
    }

    /// Counts the size of a document.
    fn count(&mut self, size: u64) -> Result<()> {
        self.verified.bytes = self.verified.bytes.saturating_add(size);
        if self.verified.bytes > DOCUMENTS_LIMIT {
            return Err(Error::integrity(format!(
                "the image has more than {DOCUMENTS_LIMIT} bytes of manifests and configurations"
            )));
        }
        Ok(())
    }

    /// Adds an entry of an index: a manifest, another index, or any other blob.
    fn add_entry(&mut self, entry: &Descriptor, depth: usize) -> Result<()> {
        if let (Some(wanted), Some(platform)) = (&self.options.platform, &entry.platform)
            && platform.is_complete()
            && !wanted.accepts(platform)
        {
            return Ok(());
        }
        let name = entry.platform.as_ref().map(Platform::to_string);
        if !media_type::is_document(&entry.media_type) {
            self.add_blob(entry, None, role("blob in the index", name.as_deref()));
            return Ok(());
        }
        let part = if media_type::is_index(&entry.media_type) { "index" } else { "manifest" };
        let fetched = transport::fetch(self.source, entry);
        match self.verified.note(fetched, &role(part, name.as_deref()), &entry.digest)? {
            Some(document) => self.add_document(&document, entry.platform.as_ref(), depth),
            None => Ok(()),
        }
    }

    /// Adds the layers of a manifest with the diff_ids that its config has for them.
    fn add_manifest(
        &mut self,
        document: &Document,
        manifest: &Manifest,
        platform: Option<&Platform>,
    ) -> Result<()> {
        let mut name = platform.map(Platform::to_string);
        let (mut diff_ids, mut is_image) = (Vec::new(), false);
        if media_type::is_config(&manifest.config.media_type) {
            let config = transport::fetch(self.source, &manifest.config)
                .and_then(|config| config.parse::<ImageConfig>())
                .and_then(|config| with_all_diff_ids(document, manifest, config));
            self.verified.blobs += 1;
            self.count(manifest.config.size)?;
            let role = role("configuration", name.as_deref());
            if let Some(config) = self.verified.note(config, &role, &manifest.config.digest)? {
                match &self.options.platform {
                    Some(wanted) if platform.is_none() && !wanted.accepts(&config.platform) => return Ok(()),
                    _ => name = name.or_else(|| Some(config.platform.to_string())),
                }
                is_image = is_for_a_platform(platform.unwrap_or(&config.platform));
                diff_ids = config.rootfs.diff_ids;
            }
        } else {
            self.add_blob(&manifest.config, None, role("configuration", name.as_deref()));
        }
        self.verified.images += 1;
        let mut diff_ids = diff_ids.into_iter();
        for (number, layer) in manifest.layers.iter().enumerate() {
            let is_new = !self.positions.contains_key(&(layer.digest.clone(), layer.size));
            if is_image && is_new && !self.options.any_media_type {
                check_media_type(layer, self.progress)?;
            }
            // An attestation or a signature has diff_ids, too, of blobs that are not archives.
            let diff_id = diff_ids.next().filter(|_| is_image || media_type::is_layer(&layer.media_type));
            self.add_blob(layer, diff_id, role(&format!("layer {}", number + 1), name.as_deref()));
        }
        Ok(())
    }

    /// Adds a blob, once for all platforms that agree about it.
    fn add_blob(&mut self, blob: &Descriptor, diff_id: Option<Digest>, role: String) {
        let positions = self.positions.entry((blob.digest.clone(), blob.size)).or_default();
        for position in positions.iter() {
            let check = &mut self.checks[*position];
            // Each may name another table of contents.
            if check.blob.annotations != blob.annotations {
                continue;
            }
            // A platform with a broken config says nothing about the diff_id.
            if check.diff_id == diff_id || check.diff_id.is_none() || diff_id.is_none() {
                check.diff_id = check.diff_id.take().or(diff_id);
                return check.roles.push(role);
            }
        }
        positions.push(self.checks.len());
        self.checks.push(BlobCheck { blob: blob.clone(), diff_id, roles: vec![role] });
    }
}

/// Returns whether this is the platform of an image. Attestations of buildkit are for `unknown/unknown`, and signatures of
/// cosign for none.
fn is_for_a_platform(platform: &Platform) -> bool {
    platform.is_complete() && platform.os != "unknown"
}

/// Returns the role of a part, with the platform if it is known.
fn role(part: &str, platform: Option<&str>) -> String {
    platform.map_or_else(|| part.to_owned(), |platform| format!("{part} of {platform}"))
}

/// Returns the config if it has a diff_id for each layer.
fn with_all_diff_ids(document: &Document, manifest: &Manifest, config: ImageConfig) -> Result<ImageConfig> {
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers == diff_ids {
        return Ok(config);
    }
    Err(Error::integrity(format!(
        "it has {diff_ids} diff_ids, and its manifest {} has {layers} layers",
        document.descriptor().digest
    )))
}
