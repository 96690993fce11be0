//! The changes that make a target identical to a tree.

use crate::image::{ContentId, EntryPosition};
use crate::oci::Digest;
use crate::tree::{FileState, FoundEntry, SeenAs, SyncMount, TreePath};
use std::collections::{HashMap, HashSet};

/// The changes, each list in the order of paths.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Files with content to be written.
    pub writes: Vec<WantedFile>,
    /// Directories to be created.
    pub directories: Vec<TreePath>,
    /// Other entries to be created: empty files, symbolic links, fifos, devices.
    pub specials: Vec<TreePath>,
    /// Names to be given to files, each with the first name of its file.
    pub links: Vec<(TreePath, TreePath)>,
    /// Names that files of `attributes` have, each with the first name of its file.
    pub kept_links: Vec<(TreePath, TreePath)>,
    /// Files that get other attributes in place.
    pub attributes: Vec<InPlace>,
    /// Directories that get other attributes.
    pub directory_attributes: Vec<TreePath>,
    /// Entries to be removed with all that is in them, and what they are.
    pub extras: Vec<(TreePath, SeenAs)>,
    /// Directories that other kinds of entries replace.
    pub replaced_directories: HashSet<TreePath>,
    /// Files that are removed or replaced: their content may be that of a file to be written.
    pub old_files: Vec<OldFile>,
    /// The number of entries in the extras, without those that stay.
    pub removed: u64,
    /// The number of entries that are as they should be.
    pub unchanged: u64,
    /// Mount points that stay although the image does not have them, or has something else there.
    pub kept_mounts: Vec<TreePath>,
    /// Mount points that were entered.
    pub mounts: Vec<SyncMount>,
}

/// A file with content that is removed or replaced.
#[derive(Clone, Debug)]
pub(super) struct OldFile {
    /// The path in the target.
    pub path: TreePath,
    /// The size in bytes.
    pub size: u64,
    /// The identity of the content, if it was read already. It is boxed because most are not.
    pub content: Option<Box<ContentId>>,
}

/// A file with content that is to be written.
#[derive(Clone, Debug)]
pub(super) struct WantedFile {
    /// The path in the target.
    pub path: TreePath,
    /// The size in bytes.
    pub size: u64,
    /// The place of the content in the image.
    pub at: EntryPosition,
    /// The identity of the content.
    pub content: ContentId,
    /// Content on this machine that may be used.
    pub reuse: Option<Box<Reuse>>,
}

impl WantedFile {
    /// Returns whether a file on this machine has the whole content.
    pub fn has_whole_reuse(&self) -> bool {
        self.reuse.as_ref().is_some_and(|reuse| matches!(reuse.chunks, ChunkPlaces::Same))
    }
}

/// A directory whose files may have contents of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReusedTree {
    /// The target, whose files are replaced and removed.
    Target,
    /// Another version of the image, which does not change.
    OtherVersion,
}

/// A file of the target, or of another version, that has a part of a content, or all of it.
#[derive(Clone, Debug)]
pub(super) struct Reuse {
    /// The directory that the file is in.
    pub tree: ReusedTree,
    /// The path of the file.
    pub source: TreePath,
    /// The places of the chunks in it.
    pub chunks: ChunkPlaces,
}

/// The places of the chunks of a content in a file.
#[derive(Clone, Debug)]
pub(super) enum ChunkPlaces {
    /// The file has the whole content: each chunk is where it should be.
    Same,
    /// The file has chunks with these digests at these offsets.
    ByDigest(HashMap<Digest, u64>),
}

impl Reuse {
    /// A file of the target with the whole content.
    pub fn whole(source: TreePath) -> Box<Self> {
        Box::new(Self { tree: ReusedTree::Target, source, chunks: ChunkPlaces::Same })
    }

    /// Returns whether nothing of a content is known to be in the source.
    pub fn is_empty(&self) -> bool {
        matches!(&self.chunks, ChunkPlaces::ByDigest(places) if places.is_empty())
    }

    /// Returns the offset of a chunk in the source, if it has it; `offset` is that in the wanted file.
    pub fn place(&self, digest: &Digest, offset: u64) -> Option<u64> {
        match &self.chunks {
            ChunkPlaces::Same => Some(offset),
            ChunkPlaces::ByDigest(places) => places.get(digest).copied(),
        }
    }
}

/// A file that gets other attributes in place.
#[derive(Clone, Debug)]
pub(super) struct InPlace {
    /// The path in the target.
    pub path: TreePath,
    /// The state of the file when it was compared.
    pub seen: FileState,
}

impl Plan {
    /// Returns whether nothing is to be done, besides the files to be written.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
            && self.specials.is_empty()
            && self.links.is_empty()
            && self.attributes.is_empty()
            && self.directory_attributes.is_empty()
            && self.extras.is_empty()
    }

    /// Returns whether something in a directory is to be changed. `writes` are the files to be written.
    pub fn changes<'p>(&'p self, directory: &TreePath, writes: impl Iterator<Item = &'p WantedFile>) -> bool {
        let lists = [&self.directories, &self.specials, &self.directory_attributes];
        let mut changed = (lists.into_iter().flatten())
            .chain(self.links.iter().map(|(path, _)| path))
            .chain(self.extras.iter().map(|(path, _)| path))
            .chain(self.attributes.iter().map(|file| &file.path))
            .chain(writes.map(|file| &file.path));
        changed.any(|path| path.is_in(directory))
    }

    /// The number of entries that are created or replaced, without files with content.
    pub fn written(&self) -> u64 {
        (self.directories.len() + self.specials.len() + self.links.len()) as u64
    }

    /// The number of entries that get other attributes in place.
    pub fn attributes(&self) -> u64 {
        (self.attributes.len() + self.directory_attributes.len()) as u64
    }
}

/// Returns a file to be written, without content in the target.
pub(super) fn wanted_file(path: &TreePath, size: u64, at: EntryPosition, content: &ContentId) -> WantedFile {
    WantedFile { path: path.clone(), size, at, content: content.clone(), reuse: None }
}

/// Returns a file that stays in its inode.
pub(super) fn in_place(found: &FoundEntry) -> Option<InPlace> {
    Some(InPlace { path: found.path.clone(), seen: found.state()? })
}
