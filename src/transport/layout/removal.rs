//! Taking an image out of a layout, with the blobs that only it needs.
//!
//! A writer puts blobs first and the index last, and counts on blobs that it has seen. Writers of ours hold a shared
//! lock on `blobs` from their first look to their end, so that a removal knows of them and leaves the blobs alone.
//! Other programs hold no lock: only blobs of the removed image are ever deleted, so that theirs are at risk only where
//! they count on one of those.

use super::{Layout, names, ref_name};
use crate::error::{Error, Result};
use crate::oci::Descriptor;
use crate::transport::lock::Locked;
use crate::transport::reach::reach;
use crate::transport::{Removed, fetch};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;

impl Layout {
    /// Tells removals, for as long as this lives, that somebody counts on the blobs that are here.
    pub(super) fn hold_blobs(&self) -> Result<()> {
        if self.held.get().is_some() {
            return Ok(());
        }
        let path = self.directory.join("blobs");
        match File::open(&path) {
            Ok(blobs) => {
                let held = Locked::shared(blobs).map_err(|error| self.cannot("lock", &path, error))?;
                // Another thread may have been faster; its lock does as well.
                let _ = self.held.set(held);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.cannot("open", &path, error)),
        }
    }

    /// Takes away what the name stands for.
    pub(super) fn take_away(&self, force: bool) -> Result<Removed> {
        let _lock = self.drafts().lock()?;
        let found = self.found()?;
        let mut index = self.index()?;
        let digest = found.digest();
        let called = self.name.tag().map(|tag| names::called(&index, tag).into_iter().cloned());
        let called: Option<Vec<Descriptor>> = called.map(Iterator::collect);
        let is_named = |entry: &Descriptor| match (self.name.digest(), &called) {
            (Some(digest), None) => entry.digest == *digest || found.has(entry),
            (digest, Some(called)) => {
                called.contains(entry) && digest.is_none_or(|digest| entry.digest == *digest)
            }
            (None, None) => found.has(entry),
        };
        let (gone, kept): (Vec<_>, Vec<_>) = index.manifests.into_iter().partition(is_named);
        let mut tags: Vec<String> =
            gone.iter().filter_map(|entry| ref_name(entry).map(str::to_owned)).collect();
        tags.dedup();
        if gone.is_empty() {
            return Err(match self.name.tag() {
                Some(tag) => Error::refused(format!("the tag {tag} does not mean {digest} any more"))
                    .hint("name the tag or the digest alone"),
                None => Error::not_found(format!("{digest} is part of another image in the layout"))
                    .hint("remove the image that it is part of"),
            });
        }
        if tags.len() > 1 && !force {
            return Err(Error::refused(format!("{digest} has several tags: {}", tags.join(", ")))
                .hint("name one of the tags, or use --force if all of them shall go"));
        }
        index.manifests = kept;
        self.replace_index(&index)?;
        let removed = Removed { tags, ..Removed::nothing(digest) };
        self.free(removed, &gone, &index.manifests)
    }

    /// Deletes the blobs that only the removed entries need.
    fn free(&self, mut removed: Removed, gone: &[Descriptor], kept: &[Descriptor]) -> Result<Removed> {
        let path = self.directory.join("blobs");
        let blobs = File::open(&path).map_err(|error| self.cannot("open", &path, error))?;
        let left = |why: &str| Ok(Removed { blobs_left: Some(why.to_owned()), ..removed.clone() });
        let Ok(alone) = Locked::alone_at_once(blobs) else {
            return left("somebody is writing to the layout");
        };
        if !alone.is_held() {
            return left("this file system cannot tell whether somebody is writing to the layout");
        }
        let read = |entry: &Descriptor| fetch(self, entry);
        let mut needed = HashMap::new();
        if let Err(error) = reach(kept, read, &mut needed) {
            removed.blobs_left = Some(format!("what the other images need cannot be known: {error}"));
            return Ok(removed);
        }
        let mut unneeded = HashMap::new();
        // Where it is damaged, what is below the damage stays.
        let _ = reach(gone, read, &mut unneeded);
        for (digest, size) in unneeded.into_iter().filter(|(digest, _)| !needed.contains_key(digest)) {
            let path = self.blob(&digest);
            match fs::remove_file(&path) {
                Ok(()) => {
                    removed.blobs += 1;
                    removed.bytes = removed.bytes.saturating_add(size);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.cannot("remove", &path, error)),
            }
        }
        Ok(removed)
    }
}
