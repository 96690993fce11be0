//! Taking an image out of a layout, with the blobs that only it needs.
//!
//! A writer puts blobs first and the index last, and counts on blobs that it has seen. Writers of ours hold a shared
//! lock on `blobs` from their first look to their end, so that a removal knows of them and leaves the blobs alone.
//! Other programs hold no lock: only blobs of the removed image are ever deleted, so that theirs are at risk only where
//! they count on one of those.
//!
//! Blobs that a removal leaves alone are not forgotten: the file [`UNFINISHED`] names the images that they belong to, and the
//! next removal or the next writer deletes what nobody needs any more.

use super::place::Missing;
use super::{Layout, names, open_file, ref_name};
use crate::disk::lock::FileLock;
use crate::error::{Error, Kind, Result};
use crate::oci::{DOCUMENT_LIMIT, Descriptor};
use crate::transport::reach::reach;
use crate::transport::{Removed, fetch};
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

/// The file that names removed images whose blobs are still there.
pub(super) const UNFINISHED: &str = ".volio.removed";

/// The most images that it names; what comes then stays until somebody removes it.
const MOST_UNFINISHED: usize = 1000;

impl Layout {
    /// Tells removals, for as long as this lives, that somebody counts on the blobs that are here.
    pub(super) fn hold_blobs(&self) -> Result<()> {
        if self.held.get().is_some() {
            return Ok(());
        }
        let path = self.directory.join("blobs");
        let place = match self.opened() {
            Ok(place) if path.exists() => place,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.cannot("open", &self.directory, error));
            }
            _ => return Ok(()),
        };
        self.finish_removals();
        let blobs = File::from(place.blobs(Missing::Fail)?);
        let held = FileLock::shared(blobs, &path, self.patience)?;
        match place.blobs_of("sha256", Missing::Fail) {
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            _ => {}
        }
        // Another thread may have been faster; its lock does as well.
        let _ = self.held.set(held);
        Ok(())
    }

    /// Deletes blobs that earlier removals have left, as far as that can be done now.
    fn finish_removals(&self) {
        if let Some(first) = self.unfinished().first()
            && let Ok(_lock) = self.lock()
            && let Ok(index) = self.index()
        {
            // What stays is waste and no harm.
            let _ = self.free(Removed::nothing(first.digest.clone()), &[], &index.manifests);
        }
    }

    /// The removed images whose blobs are still there. A list that cannot be read is none.
    fn unfinished(&self) -> Vec<Descriptor> {
        let mut bytes = Vec::new();
        let read = open_file(&self.directory.join(UNFINISHED))
            .and_then(|file| file.take(DOCUMENT_LIMIT).read_to_end(&mut bytes));
        read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Takes away what the name stands for.
    pub(super) fn take_away(&self, force: bool) -> Result<Removed> {
        // Before anything is changed.
        self.changing()?.blobs_of("sha256", Missing::Fail)?;
        let _lock = self.lock()?;
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
                    .with_hint("name the tag or the digest alone"),
                None => Error::not_found(format!("{digest} is part of another image in the layout"))
                    .with_hint("remove the image that it is part of"),
            });
        }
        if tags.len() > 1 && !force {
            return Err(Error::refused(format!("{digest} has several tags: {}", tags.join(", ")))
                .with_hint("name one of the tags, or use --force if all of them shall go"));
        }
        index.manifests = kept;
        self.replace_index(&index)?;
        let removed = Removed { tags, ..Removed::nothing(digest) };
        self.free(removed, &gone, &index.manifests)
    }

    /// Deletes the blobs that only the removed entries need, those of now and of earlier. Needs the lock.
    fn free(&self, mut removed: Removed, gone: &[Descriptor], kept: &[Descriptor]) -> Result<Removed> {
        let place = self.changing()?;
        let blobs = File::from(place.blobs(Missing::Fail)?);
        let unfinished = self.unfinished();
        let left = |why: &str| Ok(Removed { blobs_left: Some(why.to_owned()), ..removed.clone() });
        let Ok(alone) = FileLock::try_exclusive(blobs) else {
            if !gone.is_empty()
                && unfinished.len() + gone.len() <= MOST_UNFINISHED
                && let Ok(list) = serde_json::to_vec(&[unfinished.as_slice(), gone].concat())
            {
                place.replace(UNFINISHED, &list)?;
            }
            return left("somebody is writing to the layout; the next to change it will remove them");
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
        let _ = reach(&unfinished, read, &mut unneeded);
        for (digest, size) in unneeded.into_iter().filter(|(digest, _)| !needed.contains_key(digest)) {
            let directory = place.blobs_of(digest.algorithm().name(), Missing::Fail)?;
            match unlinkat(&directory, digest.hex(), AtFlags::empty()) {
                Ok(()) => {
                    removed.blobs += 1;
                    removed.bytes = removed.bytes.saturating_add(size);
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.cannot("remove", &self.blob(&digest), errno.into())),
            }
        }
        match unlinkat(place.root(), UNFINISHED, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(removed),
            Err(errno) => Err(self.cannot("remove", &self.directory.join(UNFINISHED), errno.into())),
        }
    }
}
