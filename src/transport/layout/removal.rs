//! Removal of an image from a layout, with the blobs that only it needs.
//!
//! A writer stores blobs first and the index last, and relies on blobs that it found. volio's writers hold a shared lock on
//! `blobs` from their first look to their end. A removal that cannot lock `blobs` exclusively leaves the blobs alone. Other
//! programs do not lock, but only blobs of the removed image are ever deleted, so they are affected only if they rely on
//! one of those.
//!
//! Blobs that a removal left alone are deleted later: the file [`PENDING_FILE`] lists the images that they belong to, and
//! the next removal or the next writer deletes those that are not needed.

use super::attachments::Split;
use super::directory::IfMissing;
use super::{Layout, io_error, layout_index, open_regular_file};
use crate::disk::lock::FileLock;
use crate::error::{Error, Kind, Result};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Index};
use crate::transport::gc::collect_reachable;
use crate::transport::layout_index::{ImageEntries, ref_name};
use crate::transport::{Removal, Removed, fetch};
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

/// The file that lists removed images with blobs that still exist.
pub(super) const PENDING_FILE: &str = ".volio.removed";

/// The largest number of images in that file. The blobs of further images stay.
const PENDING_LIMIT: usize = 1000;

impl Removal for Layout {
    fn remove(&self, force: bool) -> Result<Removed> {
        // Fails before anything is changed if `blobs` is not a directory.
        self.existing_directory()?.blobs_of("sha256", IfMissing::Fail)?;
        let _lock = self.lock()?;
        let image = self.find_image()?;
        let mut index = self.index()?;
        let digest = image.digest();
        let (gone, kept) = self.split_entries(&index, &image);
        if gone.is_empty() {
            return Err(match self.name.tag() {
                Some(tag) => Error::refused(format!("the tag {tag} does not mean {digest} any more"))
                    .with_hint("name the tag or the digest alone"),
                None => Error::not_found(format!("{digest} is part of another image in the layout"))
                    .with_hint("remove the image that it is part of"),
            });
        }
        let mut tags: Vec<String> =
            gone.iter().filter_map(|entry| ref_name(entry).map(str::to_owned)).collect();
        tags.dedup();
        if tags.len() > 1 && !force {
            return Err(Error::refused(format!("{digest} has several tags: {}", tags.join(", ")))
                .with_hint("name one of the tags, or use --force if all of them shall go"));
        }
        let mut removed = Removed { tags, ..Removed::nothing(digest) };
        index.manifests = kept;
        let mut all_gone = gone;
        match self.split_attached(&all_gone, &removed.digest, index.manifests.clone()) {
            Ok(Split { attached, kept }) => {
                index.manifests = kept;
                removed.attachments = attached.iter().map(shown_name).collect();
                all_gone.extend(attached);
            }
            Err(error) => removed.attachments_left = Some(error.to_string()),
        }
        self.replace_index(&index)?;
        self.delete_unneeded_blobs(removed, &all_gone, &index.manifests)
    }
}

/// Returns the tag of an entry, or its digest.
fn shown_name(entry: &Descriptor) -> String {
    ref_name(entry).map_or_else(|| entry.digest.to_string(), str::to_owned)
}

impl Layout {
    /// Locks the blobs that exist against removals, for as long as this lives.
    pub(super) fn lock_blobs(&self) -> Result<()> {
        if self.blobs_lock.get().is_some() {
            return Ok(());
        }
        let path = self.path.join("blobs");
        let directory = match self.open_directory() {
            Ok(directory) if path.exists() => directory,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("open", &self.path, error));
            }
            _ => return Ok(()),
        };
        self.finish_removals();
        let blobs = File::from(directory.blobs(IfMissing::Fail)?);
        let lock = FileLock::shared(blobs, &path, self.lock_timeout)?;
        if let Err(error) = directory.blobs_of("sha256", IfMissing::Fail)
            && error.kind() != Kind::NotFound
        {
            return Err(error);
        }
        // If another thread was faster, its lock is used.
        let _ = self.blobs_lock.set(lock);
        Ok(())
    }

    /// Deletes the blobs that earlier removals left alone, if that is possible now. Blobs that stay do no harm.
    fn finish_removals(&self) {
        if let Some(first) = self.pending().first()
            && let Ok(_lock) = self.lock()
            && let Ok(index) = self.index()
        {
            let _ = self.delete_unneeded_blobs(Removed::nothing(first.digest.clone()), &[], &index.manifests);
        }
    }

    /// Returns the removed images with blobs that still exist. A list that cannot be read is empty.
    fn pending(&self) -> Vec<Descriptor> {
        let mut bytes = Vec::new();
        let read = open_regular_file(&self.path.join(PENDING_FILE))
            .and_then(|file| file.take(DOCUMENT_LIMIT).read_to_end(&mut bytes));
        read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Splits the entries of the index into those of the name that this is bound to, and all others.
    fn split_entries(&self, index: &Index, image: &ImageEntries) -> (Vec<Descriptor>, Vec<Descriptor>) {
        let digest = self.name.digest();
        let has_digest = |entry: &Descriptor| digest.is_some_and(|digest| entry.digest == *digest);
        let tagged = self.name.tag().map(|tag| layout_index::entries_named(index, tag));
        let is_gone = |entry: &Descriptor| match &tagged {
            Some(tagged) => tagged.contains(&entry) && (digest.is_none() || has_digest(entry)),
            None => image.contains(entry) || has_digest(entry),
        };
        index.manifests.iter().cloned().partition(is_gone)
    }

    /// Deletes the blobs that only removed entries need: those of `gone`, and those of earlier removals. The layout must
    /// be locked.
    pub(super) fn delete_unneeded_blobs(
        &self,
        mut removed: Removed,
        gone: &[Descriptor],
        kept: &[Descriptor],
    ) -> Result<Removed> {
        let directory = self.existing_directory()?;
        let blobs = File::from(directory.blobs(IfMissing::Fail)?);
        let pending = self.pending();
        let Ok(lock) = FileLock::try_exclusive(blobs) else {
            if !gone.is_empty()
                && pending.len() + gone.len() <= PENDING_LIMIT
                && let Ok(list) = serde_json::to_vec(&[pending.as_slice(), gone].concat())
            {
                directory.replace(PENDING_FILE, &list)?;
            }
            let why = "somebody is writing to the layout; the next to change it will remove them";
            return Ok(Removed { blobs_left: Some(why.to_owned()), ..removed });
        };
        if !lock.is_held() {
            let why = "this file system cannot tell whether somebody is writing to the layout";
            return Ok(Removed { blobs_left: Some(why.to_owned()), ..removed });
        }
        let read = |entry: &Descriptor| fetch(self, entry);
        let mut needed = HashMap::new();
        if let Err(error) = collect_reachable(kept, read, &mut needed) {
            removed.blobs_left = Some(format!("what the other images need cannot be known: {error}"));
            return Ok(removed);
        }
        let mut unneeded = HashMap::new();
        // Blobs below a damaged document stay.
        let _ = collect_reachable(gone, read, &mut unneeded);
        let _ = collect_reachable(&pending, read, &mut unneeded);
        for (digest, size) in unneeded.into_iter().filter(|(digest, _)| !needed.contains_key(digest)) {
            if self.delete_blob(&digest)? {
                removed.blobs += 1;
                removed.bytes = removed.bytes.saturating_add(size);
            }
        }
        match unlinkat(directory.root(), PENDING_FILE, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(removed),
            Err(errno) => Err(io_error("remove", &self.path.join(PENDING_FILE), errno.into())),
        }
    }

    /// Deletes a blob. Returns `false` if it does not exist.
    fn delete_blob(&self, digest: &Digest) -> Result<bool> {
        let directory = self.existing_directory()?.blobs_of(digest.algorithm().name(), IfMissing::Fail)?;
        match unlinkat(&directory, digest.hex(), AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(io_error("remove", &self.blob_path(digest), errno.into())),
        }
    }
}
