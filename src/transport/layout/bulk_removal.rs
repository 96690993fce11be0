//! Removal of several tags of a layout, and its garbage collection.
//!
//! Blobs that no entry of the index needs are garbage: those of images whose tags were given to others, and those of writers
//! that were killed. volio's writers lock `blobs` while they work, and nothing is deleted then. Other programs do not lock:
//! for them a blob must have a certain age, because it may belong to an image that is not in the index yet.

use super::directory::{IfMissing, LayoutDirectory};
use super::{Layout, io_error};
use crate::disk::directory::names_in;
use crate::disk::lock::FileLock;
use crate::error::{Error, Kind, Result};
use crate::oci::{Algorithm, Descriptor, Digest, Index};
use crate::transport::gc::collect_reachable;
use crate::transport::layout_index::{ImageName, entries_named, ref_name};
use crate::transport::moved_name::none_if_missing;
use crate::transport::{BulkRemoval, Garbage, RemovalOutcome, Removed, TagsRemoved, fetch};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, statat, unlinkat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

impl BulkRemoval for Layout {
    fn remove_tags(&self, tags: &[(String, Digest)]) -> Result<TagsRemoved> {
        // Fails before anything is changed if `blobs` is not a directory.
        self.existing_directory()?.blobs_of("sha256", IfMissing::Fail)?;
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let Taken { outcomes, attachments, entries } = self.take_tags(&mut index, tags)?;
        let Some(first) = entries.first() else {
            return Ok(TagsRemoved { outcomes, ..TagsRemoved::default() });
        };
        let removed = Removed::nothing(first.digest.clone());
        self.replace_index(&index)?;
        let removed = self.delete_unneeded_blobs(removed, &entries, &index.manifests)?;
        let garbage = Garbage {
            blobs: removed.blobs,
            bytes: removed.bytes,
            left: removed.blobs_left,
            orphans: Vec::new(),
        };
        Ok(TagsRemoved { outcomes, attachments, garbage })
    }

    fn remove_image(&self, digest: &Digest) -> Result<RemovalOutcome> {
        let image = Self::open(&self.path, None, Some(digest.clone()))?;
        crate::transport::Removal::remove(&image, true).map(|_| RemovalOutcome::Removed)
    }

    fn digest_of(&self, tag: &str) -> Result<Option<Digest>> {
        let found = ImageName::new(Some(tag), None).find(&self.index()?, &self.description(), |_| Ok(None));
        none_if_missing(found.map(|image| image.digest()))
    }

    fn has_image(&self, digest: &Digest) -> Result<bool> {
        Ok(self.blob_path(digest).is_file())
    }

    fn collect_garbage(&self, before: SystemTime) -> Result<Garbage> {
        let directory = self.existing_directory()?;
        let blobs = File::from(directory.blobs(IfMissing::Fail)?);
        let _lock = self.lock()?;
        let left = |why: &str| Ok(Garbage { left: Some(why.to_owned()), ..Garbage::default() });
        let Ok(blobs_lock) = FileLock::try_exclusive(blobs) else {
            return left("somebody is writing to the layout");
        };
        if !blobs_lock.is_held() {
            return left("this file system cannot tell whether somebody is writing to the layout");
        }
        let mut index = self.index()?;
        let mut needed = match self.needed_by(&index.manifests) {
            Ok(needed) => needed,
            Err(error) => return left(&format!("what the images need cannot be known: {error}")),
        };
        let is_garbage =
            |digest: &Digest, changed: SystemTime| changed <= before && !needed.contains_key(digest);
        let orphans = self.take_orphans(&mut index, before, is_garbage)?;
        if !orphans.is_empty() {
            needed = self.needed_by(&index.manifests)?;
            self.replace_index(&index)?;
        }
        let garbage = self.sweep(directory, Effect::Delete, |digest, changed| {
            changed <= before && !needed.contains_key(digest)
        })?;
        Ok(Garbage { orphans, ..garbage })
    }

    fn preview(&self, tags: &[(String, Digest)], before: SystemTime) -> Result<TagsRemoved> {
        let mut index = self.index()?;
        let Taken { outcomes, attachments, entries } = self.take_tags(&mut index, tags)?;
        let mut freed = HashMap::new();
        // What is below a damaged document stays.
        let _ = collect_reachable(&entries, |entry| fetch(self, entry), &mut freed);
        let garbage = match self.needed_by(&index.manifests) {
            Ok(mut needed) => {
                let is_garbage = |digest: &Digest, changed: SystemTime| {
                    !needed.contains_key(digest) && (changed <= before || freed.contains_key(digest))
                };
                let orphans = self.take_orphans(&mut index, before, is_garbage)?;
                if !orphans.is_empty() {
                    needed = self.needed_by(&index.manifests)?;
                }
                let garbage = self.sweep(self.existing_directory()?, Effect::Count, |digest, changed| {
                    !needed.contains_key(digest) && (changed <= before || freed.contains_key(digest))
                })?;
                Garbage { orphans, ..garbage }
            }
            Err(error) => {
                let why = format!("what the images need cannot be known: {error}");
                Garbage { left: Some(why), ..Garbage::default() }
            }
        };
        Ok(TagsRemoved { outcomes, attachments, garbage })
    }

    fn deletes_with_last_tag(&self) -> bool {
        true
    }

    fn no_deletion(&self) -> Error {
        Error::failed(format!("nothing can be removed from the {}", self.description()))
    }
}

/// The effect of a sweep over all blobs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Delete,
    Count,
}

/// The entries that were taken out of an index.
struct Taken {
    /// The outcome for each tag.
    outcomes: Vec<RemovalOutcome>,
    /// The tags of attachments.
    attachments: Vec<String>,
    entries: Vec<Descriptor>,
}

impl Layout {
    /// Returns the blobs that entries of the index need, with their sizes.
    fn needed_by(&self, entries: &[Descriptor]) -> Result<HashMap<Digest, u64>> {
        let mut needed = HashMap::new();
        collect_reachable(entries, |entry| fetch(self, entry), &mut needed).map(|()| needed)
    }

    /// Takes the entries with these tags out of an index, and then what refers to images that only they were.
    fn take_tags(&self, index: &mut Index, tags: &[(String, Digest)]) -> Result<Taken> {
        let (mut outcomes, mut entries) = (Vec::with_capacity(tags.len()), Vec::new());
        for (tag, expected) in tags {
            let found = ImageName::new(Some(tag), None).find(index, &self.description(), |_| Ok(None));
            let outcome = match found.map(|image| image.digest()) {
                Ok(digest) if digest == *expected => RemovalOutcome::Removed,
                // By now it may be the name of several images.
                Ok(_) => RemovalOutcome::Moved,
                Err(error) if error.kind() == Kind::Usage => RemovalOutcome::Moved,
                Err(error) if error.kind() == Kind::NotFound => RemovalOutcome::Missing,
                Err(error) => return Err(error),
            };
            let is_removed = outcome == RemovalOutcome::Removed;
            outcomes.push(outcome);
            if is_removed {
                let named: Vec<Descriptor> = entries_named(index, tag).into_iter().cloned().collect();
                index.manifests.retain(|entry| !named.contains(entry));
                entries.extend(named);
            }
        }
        let mut attachments = Vec::new();
        if let Some((_, digest)) = tags.iter().zip(&outcomes).find(|(_, outcome)| **outcome == RemovalOutcome::Removed).map(|(tag, _)| tag)
            // If it is not known what an image has, its attachments stay.
            && let Ok(split) = self.split_attached(&entries, digest, index.manifests.clone())
        {
            index.manifests = split.kept;
            attachments = split.attached.iter().filter_map(ref_name).map(str::to_owned).collect();
            entries.extend(split.attached);
        }
        Ok(Taken { outcomes, attachments, entries })
    }

    /// Deletes or counts the blobs that `is_garbage` selects by their digest and the time of their last change.
    fn sweep(
        &self,
        directory: &LayoutDirectory,
        effect: Effect,
        is_garbage: impl Fn(&Digest, SystemTime) -> bool,
    ) -> Result<Garbage> {
        let mut garbage = Garbage::default();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let blobs = match directory.blobs_of(algorithm.name(), IfMissing::Fail) {
                Ok(blobs) => blobs,
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let path = self.path.join("blobs").join(algorithm.name());
            let names = names_in(blobs.as_fd()).map_err(|error| io_error("read", &path, error.into()))?;
            for name in names {
                let Ok(text) = name.to_str() else { continue };
                let Ok(digest) = format!("{}:{text}", algorithm.name()).parse::<Digest>() else { continue };
                let Some((size, changed)) = file_in(&blobs, &name) else { continue };
                if !is_garbage(&digest, changed) {
                    continue;
                }
                if effect == Effect::Delete {
                    match unlinkat(&blobs, &name, AtFlags::empty()) {
                        Ok(()) => {}
                        Err(Errno::NOENT) => continue,
                        Err(errno) => return Err(io_error("remove", &self.blob_path(&digest), errno.into())),
                    }
                }
                garbage.blobs += 1;
                garbage.bytes = garbage.bytes.saturating_add(size);
            }
        }
        Ok(garbage)
    }
}

/// Returns the size of a regular file and the time at which it was written or got its name.
fn file_in(directory: &OwnedFd, name: &CStr) -> Option<(u64, SystemTime)> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let newest = stat.st_mtime.max(stat.st_ctime);
    // A time before 1970 is old in any case.
    let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(newest).unwrap_or_default());
    Some((stat.st_size.try_into().ok()?, changed))
}
