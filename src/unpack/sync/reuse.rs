//! Contents of files to be written that this machine has: in the target, under the old name of a file that was renamed or
//! in a file that stays, or in a directory with another version. What is found is verified when it is copied.

use super::check::identify_file;
use super::plan::{ChunkPlaces, OldFile, Plan, Reuse, ReusedTree, WantedFile};
use super::tree::SyncNote;
use crate::error::Result;
use crate::image::identify_chunks;
use crate::oci::Digest;
use crate::stream::try_for_each;
use crate::tree::{EntryKind, MergedTree, TargetFile, TargetFiles, Time, TreePath};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// The smallest size of a file of another version whose chunks are searched: smaller files are usually one chunk.
const MIN_SIZE_FOR_CHUNKS: u64 = 1 << 20;

/// The files whose contents may be used.
#[derive(Clone, Copy)]
pub(super) struct ReusableFiles<'a> {
    /// Those of the target.
    pub target: &'a TargetFiles,
    /// Those of another version.
    pub other: Option<&'a TargetFiles>,
}

impl ReusableFiles<'_> {
    /// Opens a file that is to be used.
    pub fn open(&self, reuse: &Reuse) -> Option<TargetFile> {
        match reuse.tree {
            ReusedTree::Target => self.target.open(&reuse.source),
            ReusedTree::OtherVersion => self.other?.open(&reuse.source),
        }
    }
}

/// The files to be written, by where their contents are from.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// Files whose content the target has. Each comes before the one that replaces its source.
    pub local: Vec<WantedFile>,
    /// Files with content of the image, in its order.
    pub fetched: Vec<WantedFile>,
    /// Files with the content of one of those.
    pub duplicates: Vec<WantedFile>,
}

impl Writes {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Returns all of them.
    pub fn all(&self) -> impl Iterator<Item = &WantedFile> {
        self.local.iter().chain(&self.fetched).chain(&self.duplicates)
    }

    /// The number of files.
    pub fn count(&self) -> u64 {
        (self.local.len() + self.fetched.len() + self.duplicates.len()) as u64
    }
}

/// Finds local contents for the files of a plan, and takes the files from it. `is_indexed` says whether the chunks of a
/// layer are known, without which nothing can be verified.
///
/// # Errors
/// When the system has no threads.
pub(super) fn find(
    plan: &mut Plan,
    tree: &MergedTree<SyncNote>,
    files: ReusableFiles<'_>,
    threads: usize,
    is_indexed: impl Fn(usize) -> bool,
) -> Result<Writes> {
    let mut wanted = std::mem::take(&mut plan.writes);
    wanted.sort_by_key(|file| file.at);
    for file in wanted.iter_mut().filter(|file| !is_indexed(file.at.layer)) {
        file.reuse = None;
    }
    if let Some(other) = files.other {
        find_in_other_version(&mut wanted, tree, other, threads, &is_indexed)?;
    }
    let needs = |file: &WantedFile| is_indexed(file.at.layer) && !file.has_whole_reuse();
    let sizes: HashSet<u64> = wanted.iter().filter(|file| needs(file)).map(|file| file.size).collect();
    if !sizes.is_empty() {
        let digests: HashSet<&Digest> = wanted.iter().flat_map(|file| file.content.digests()).collect();
        let mut sources = old_contents(plan, &sizes, &digests, files.target, threads)?;
        plan.old_files = Vec::new();
        add_contents_that_stay(&mut sources, &wanted, &digests, plan, tree);
        drop(digests);
        for file in wanted.iter_mut().filter(|file| needs(file)) {
            let source = file.content.digests().find_map(|digest| sources.get(digest));
            if let Some((_, source)) = source.filter(|(size, _)| *size == file.size) {
                file.reuse = Some(Reuse::whole(source.clone()));
            }
        }
    }
    let mut leaders = find_leaders(&wanted, is_indexed);
    let mut writes = Writes::default();
    // This list may be large: it is reduced in place.
    let fetched = wanted.into_iter().enumerate().filter_map(|(number, mut file)| {
        if file.has_whole_reuse() {
            writes.local.push(file);
        } else if let Some(leader) = leaders.remove(&number) {
            file.reuse = Some(Reuse::whole(leader));
            writes.duplicates.push(file);
        } else {
            return Some(file);
        }
        None
    });
    writes.fetched = fetched.collect();
    let in_circles = order(&mut writes.local);
    writes.fetched.extend(in_circles.into_iter().map(|file| WantedFile { reuse: None, ..file }));
    writes.fetched.sort_by_key(|file| file.at);
    Ok(writes)
}

/// Finds contents in another version, in the files with the same paths. A file with the size and the mtime of the image's
/// is taken for the same; the chunks of other large files are searched.
fn find_in_other_version(
    wanted: &mut [WantedFile],
    tree: &MergedTree<SyncNote>,
    other: &TargetFiles,
    threads: usize,
    is_indexed: impl Fn(usize) -> bool,
) -> Result<()> {
    let needs = |file: &WantedFile| is_indexed(file.at.layer) && file.reuse.is_none();
    let candidates: Vec<(usize, Option<Time>)> = wanted
        .iter()
        .enumerate()
        .filter(|(_, file)| needs(file))
        .map(|(number, file)| (number, tree.get(&file.path).map(|(entry, _)| entry.metadata.mtime)))
        .collect();
    let find = |_: usize, (number, mtime): &(usize, Option<Time>)| {
        let Some(file) = wanted.get(*number) else { return Ok(None) };
        let Some(found) = other.open(&file.path) else { return Ok(None) };
        let size = found.size();
        let chunks = if size == file.size && *mtime == Some(found.mtime()) {
            ChunkPlaces::Same
        } else if size >= MIN_SIZE_FOR_CHUNKS && file.size >= MIN_SIZE_FOR_CHUNKS {
            // One that cannot be read has nothing to use.
            let identified = identify_chunks(&file.path, size, &mut found.into_content());
            ChunkPlaces::ByDigest(identified.map(|(_, places)| places).unwrap_or_default())
        } else {
            return Ok(None);
        };
        let reuse = Reuse { tree: ReusedTree::OtherVersion, source: file.path.clone(), chunks };
        Ok((!reuse.is_empty()).then(|| Box::new(reuse)))
    };
    let reuses = try_for_each(threads, &candidates, find).into_result()?;
    for ((number, _), reuse) in candidates.iter().zip(reuses) {
        if let Some(file) = wanted.get_mut(*number) {
            file.reuse = reuse;
        }
    }
    Ok(())
}

/// Finds files with the content of an earlier one, which is fetched. Returns the paths of those by the numbers of the files.
fn find_leaders(wanted: &[WantedFile], is_indexed: impl Fn(usize) -> bool) -> HashMap<usize, TreePath> {
    let mut first: HashMap<&Digest, u32> = HashMap::new();
    let mut leaders = HashMap::new();
    for (number, file) in wanted.iter().enumerate() {
        if file.has_whole_reuse() || !is_indexed(file.at.layer) {
            continue;
        }
        let leader = file.content.digests().find_map(|digest| first.get(digest)).copied();
        if let Some(leader) = leader.and_then(|leader| wanted.get(leader as usize)) {
            leaders.insert(number, leader.path.clone());
        } else if let Ok(number) = u32::try_from(number) {
            first.extend(file.content.digests().map(|digest| (digest, number)));
        }
    }
    leaders
}

/// Sizes and paths of files by the digests of their contents.
type Sources = HashMap<Digest, (u64, TreePath)>;

/// Identifies the files that are removed or replaced and have one of these sizes. Those with other contents than the wanted
/// ones are left out.
fn old_contents(
    plan: &Plan,
    sizes: &HashSet<u64>,
    digests: &HashSet<&Digest>,
    files: &TargetFiles,
    threads: usize,
) -> Result<Sources> {
    let old: Vec<&OldFile> = plan.old_files.iter().filter(|old| sizes.contains(&old.size)).collect();
    let identify = |_: usize, old: &&OldFile| {
        let id = match &old.content {
            Some(id) => Some((**id).clone()),
            None => identify_file(files, &old.path),
        };
        Ok(id.filter(|id| id.digests().any(|digest| digests.contains(digest))))
    };
    let ids = try_for_each(threads, &old, identify).into_result()?;
    let mut sources = Sources::new();
    for (old, id) in old.into_iter().zip(ids) {
        for digest in id.iter().flat_map(|id| id.digests()) {
            sources.entry(digest.clone()).or_insert_with(|| (old.size, old.path.clone()));
        }
    }
    Ok(sources)
}

/// Adds the files of the image that the target has already.
fn add_contents_that_stay(
    sources: &mut Sources,
    wanted: &[WantedFile],
    digests: &HashSet<&Digest>,
    plan: &Plan,
    tree: &MergedTree<SyncNote>,
) {
    let is_new: HashSet<&TreePath> = wanted.iter().map(|file| &file.path).collect();
    let links: HashSet<&TreePath> = plan.links.iter().map(|(path, _)| path).collect();
    let kept: HashSet<&TreePath> = plan.kept_mounts.iter().collect();
    for (entry, note) in tree.iter() {
        let (EntryKind::File { size }, SyncNote::File(_, id)) = (&entry.kind, note) else { continue };
        let is_there =
            || !is_new.contains(&entry.path) && !links.contains(&entry.path) && !kept.contains(&entry.path);
        if id.digests().any(|digest| digests.contains(digest)) && is_there() {
            for digest in id.digests() {
                sources.entry(digest.clone()).or_insert_with(|| (*size, entry.path.clone()));
            }
        }
    }
}

/// Orders files so that each comes before the one that replaces its source, and otherwise as they were. Returns those
/// whose sources replace each other in a circle.
fn order(files: &mut Vec<WantedFile>) -> Vec<WantedFile> {
    let numbers: HashMap<&TreePath, usize> =
        files.iter().enumerate().map(|(number, file)| (&file.path, number)).collect();
    // The file that replaces the source of each, unless that is the file itself.
    let replaces: Vec<Option<usize>> = files
        .iter()
        .enumerate()
        .map(|(number, file)| {
            // No file of another version is replaced.
            let reuse = file.reuse.as_ref().filter(|reuse| reuse.tree == ReusedTree::Target);
            let source = reuse.and_then(|reuse| numbers.get(&reuse.source)).copied();
            source.filter(|source| *source != number)
        })
        .collect();
    let mut waits_for = vec![0u32; files.len()];
    for source in replaces.iter().flatten() {
        waits_for[*source] += 1;
    }
    // The first one in the order of the image is taken: its chunks are read in that order.
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..files.len()).filter(|number| waits_for[*number] == 0).map(Reverse).collect();
    let mut unordered: Vec<Option<WantedFile>> = files.drain(..).map(Some).collect();
    while let Some(Reverse(number)) = ready.pop() {
        files.extend(unordered[number].take());
        if let Some(source) = replaces[number] {
            waits_for[source] -= 1;
            if waits_for[source] == 0 {
                ready.push(Reverse(source));
            }
        }
    }
    unordered.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ContentId, EntryPosition};

    #[test]
    fn files_keep_their_order_unless_one_replaces_the_source_of_another() {
        let file = |number: u64, path: &str, source: &str| WantedFile {
            path: TreePath::parse(path).unwrap(),
            size: 1,
            at: EntryPosition { layer: 0, number },
            content: ContentId::Whole(Digest::of(path.as_bytes())),
            reuse: Some(Reuse::whole(TreePath::parse(source).unwrap())),
        };
        let mut files =
            vec![file(0, "a", "old/a"), file(1, "b", "old/b"), file(2, "c", "d"), file(3, "d", "old/d")];
        assert!(order(&mut files).is_empty());
        let names: Vec<_> = files.iter().map(|file| file.path.to_string()).collect();
        assert_eq!(names, ["/a", "/b", "/c", "/d"]);

        let mut files =
            vec![file(0, "log", "new"), file(1, "log.1", "log"), file(2, "x", "y"), file(3, "y", "x")];
        let in_circle = order(&mut files);
        let names: Vec<_> = files.iter().map(|file| file.path.to_string()).collect();
        assert_eq!((names, in_circle.len()), (vec!["/log.1".to_owned(), "/log".to_owned()], 2));
    }
}
