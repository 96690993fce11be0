//! Contents of the target's files that must be read, because their metadata says too little.

use super::plan::{ChunkPlaces, InPlace, OldFile, Plan, Reuse, ReusedTree, WantedFile};
use crate::error::Result;
use crate::image::{self, ContentId, identify_chunks};
use crate::oci::Digest;
use crate::progress::Task;
use crate::stream::try_for_each;
use crate::tree::{Entry, EntryKind, Metadata, TargetFile, TargetFiles, TreePath};
use std::collections::HashMap;

/// A file of the target that is to be compared with its content in the image.
#[derive(Debug)]
pub(super) struct Check {
    pub file: WantedFile,
    /// Set if the attributes are those of the image's entry.
    pub has_attributes: bool,
    /// The file that stays if its content is right; `None` if it must be replaced in any case.
    pub in_place: Option<InPlace>,
    /// Set if the file has the right size. Otherwise only some of its chunks may be of use.
    pub is_whole: bool,
}

/// The result of reading a file.
enum ContentMatch {
    Same,
    /// It has other content, with these chunks, or cannot be read.
    Different(Option<ContentId>, HashMap<Digest, u64>),
}

/// Reads the contents, and adds what follows to the plan.
///
/// # Errors
/// When the system has no threads. A file that cannot be read is replaced.
pub(super) fn run(
    checks: Vec<Check>,
    files: &TargetFiles,
    threads: usize,
    plan: &mut Plan,
    task: &dyn Task,
) -> Result<()> {
    let read = |_: usize, check: &Check| {
        let outcome = check.read(files);
        task.advance(check.file.size);
        task.advance_entries(1);
        Ok(outcome)
    };
    let outcomes = try_for_each(threads, &checks, read).into_result()?;
    for (check, outcome) in checks.into_iter().zip(outcomes) {
        check.add_to(plan, outcome);
    }
    Ok(())
}

impl Check {
    fn read(&self, files: &TargetFiles) -> ContentMatch {
        let WantedFile { path, size, content, .. } = &self.file;
        let unknown = ContentMatch::Different(None, HashMap::new());
        let Some(found) = files.open(path) else { return unknown };
        if self.is_whole && found.size() != *size {
            return unknown;
        }
        let (id, places) = if content.whole().is_some() {
            (identify(path, found), HashMap::new())
        } else {
            let found_size = found.size();
            match identify_chunks(path, found_size, &mut found.into_content()) {
                Ok((id, places)) => (Some(id), places),
                Err(_) => (None, HashMap::new()),
            }
        };
        let is_same = self.is_whole
            && id
                .as_ref()
                .and_then(|id| id.comparable(content))
                .is_some_and(|[found, wanted]| found == wanted);
        if is_same { ContentMatch::Same } else { ContentMatch::Different(id, places) }
    }

    fn add_to(self, plan: &mut Plan, outcome: ContentMatch) {
        let Self { file, has_attributes, in_place, is_whole } = self;
        match (outcome, in_place) {
            (ContentMatch::Same, Some(_)) if has_attributes => plan.unchanged += 1,
            (ContentMatch::Same, Some(in_place)) => plan.attributes.push(in_place),
            (ContentMatch::Same, None) => {
                let reuse = Some(Reuse::whole(file.path.clone()));
                plan.writes.push(WantedFile { reuse, ..file });
            }
            (ContentMatch::Different(id, places), _) => {
                if is_whole {
                    let (path, size) = (file.path.clone(), file.size);
                    plan.old_files.push(OldFile { path, size, content: id.map(Box::new) });
                }
                let chunks = ChunkPlaces::ByDigest(places);
                let reuse = Reuse { tree: ReusedTree::Target, source: file.path.clone(), chunks };
                let reuse = (!reuse.is_empty()).then(|| Box::new(reuse));
                plan.writes.push(WantedFile { reuse, ..file });
            }
        }
    }
}

/// Identifies the content of a file of the target; `None` if it cannot be read.
pub(super) fn identify_file(files: &TargetFiles, path: &TreePath) -> Option<ContentId> {
    identify(path, files.open(path)?)
}

fn identify(path: &TreePath, file: TargetFile) -> Option<ContentId> {
    let kind = EntryKind::File { size: file.size() };
    let entry = Entry { path: path.clone(), kind, metadata: Metadata::default() };
    image::identify(&entry, &mut file.into_content()).ok().flatten()
}
