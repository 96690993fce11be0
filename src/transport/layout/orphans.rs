//! Attachments and referrers in a layout whose image does not exist any more: signatures of images whose tag was given to
//! another image.

use super::Layout;
use super::attachments::{DEPTH_LIMIT, is_image_of};
use crate::error::Result;
use crate::oci::{Digest, Index, attachment_subject};
use crate::transport::Orphan;
use crate::transport::layout_index::{is_image, is_referrer, ref_name};
use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

impl Layout {
    /// Takes the attachments and referrers out of an index whose image no entry has, and whose blob is not there or will be
    /// deleted: `is_garbage` says that of a blob that is there. Signatures that have changed since `before` stay: another
    /// program may store them before their image. What is attached to such an attachment goes too. A layout without any image
    /// keeps all.
    ///
    /// # Errors
    /// When an index is missing or damaged, so that it is not known what an image has.
    pub(super) fn take_orphans(
        &self,
        index: &mut Index,
        before: SystemTime,
        is_garbage: impl Fn(&Digest, SystemTime) -> bool,
    ) -> Result<Vec<Orphan>> {
        let mut orphans = Vec::new();
        if !index.manifests.iter().any(is_image) {
            return Ok(orphans);
        }
        let subjects = self.subjects(&index.manifests);
        let mut taken: HashSet<Digest> = HashSet::new();
        for _ in 0..DEPTH_LIMIT {
            let staying = self.documents(&index.manifests)?;
            let (all, count, earlier) = (index.manifests.clone(), orphans.len(), taken.clone());
            index.manifests.retain(|entry| {
                let subject = match ref_name(entry) {
                    Some(name) => attachment_subject(name),
                    None => subjects.get(&entry.digest).filter(|_| is_referrer(entry)).cloned(),
                };
                let Some(subject) = subject.filter(|subject| !staying.contains(subject)) else { return true };
                let exists = !earlier.contains(&subject)
                    && self.changed(&subject).is_some_and(|changed| !is_garbage(&subject, changed));
                let is_young = self.changed(&entry.digest).is_none_or(|changed| changed > before);
                if exists || is_young || is_image_of(&all, &subject) {
                    return true;
                }
                let name = ref_name(entry).map_or_else(|| entry.digest.to_string(), str::to_owned);
                orphans.push(Orphan { name, subject });
                taken.insert(entry.digest.clone());
                false
            });
            if orphans.len() == count {
                break;
            }
        }
        Ok(orphans)
    }

    /// Returns the time at which a blob was written or got its name; `None` if it is not there.
    fn changed(&self, digest: &Digest) -> Option<SystemTime> {
        let metadata = fs::symlink_metadata(self.blob_path(digest)).ok().filter(Metadata::is_file)?;
        let newest = metadata.mtime().max(metadata.ctime());
        Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(newest).unwrap_or_default()))
    }
}
