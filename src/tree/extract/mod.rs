//! Extraction of a tree into a directory, and nowhere else.
//!
//! An image may come from a stranger, and the target may belong to one. So every step goes through the descriptor of the
//! directory above, by a single name and without following links ([`DirStack`]). Links of the image are read and resolved in
//! such steps, beneath the root (`enter`). New files are created under free names (`O_EXCL`), and attributes are set on
//! descriptors, not on names. Single steps do not need `openat2`, which resolves a whole path at once: here a path never has
//! more than one name.
//!
//! For each entry: enter its directory, which creates missing ones; remove an obstacle; create the entry; write its content;
//! set its attributes. Directories get their attributes at the end, deepest first. Then everything is synced, and the
//! state of the target says that it is complete.
//!
//! With several threads, others write small files that were created here (`file_writers`).

mod atomic;
mod attributes;
mod case_folding;
mod content;
mod creation_defaults;
mod enter;
mod file_writers;
mod front_coded;
mod hardlink;
mod journal;
mod make;
mod provenance;
mod replace;
mod retention;
mod small_files;
mod spool;
mod state;
mod target;

pub use atomic::AtomicTarget;
pub use content::Holes;
pub(crate) use replace::{Place, SeenAs};
pub use small_files::FileThreads;
pub use spool::SpoolDirectory;
pub(crate) use state::SyncMount;
pub use target::Target;
pub(super) use target::is_spared;

use super::dir_stack::{DirOwnership, DirStack};
use super::resolution::RelocatedPaths;
use super::{Content, Entry, EntryKind, IdMaps, Metadata, NodeId, PathMap, TreePath, memory_exceeded};
use crate::disk::directory::mount_id;
use crate::error::{Error, Result};
use attributes::{Attributes, Lost, Rights};
use content::ContentWriter;
use creation_defaults::CreationDefaults;
use provenance::Provenance;
use retention::Retention;
use rustix::fs::{FileType, fstat, fstatvfs, makedev};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Uid, geteuid};
use small_files::SmallFiles;
use state::{StateMode, StateRecords};
use std::borrow::Cow;
use std::io;
use std::path::Path;

/// The configuration of an extraction.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// The zeros that become holes.
    pub holes: Holes,
    /// Syncs the file systems before the target counts as complete.
    pub sync: bool,
    /// The owner of everything, instead of those in the tree.
    pub uid: Option<u32>,
    /// The group of everything, instead of those in the tree.
    pub gid: Option<u32>,
    /// Maps from the owners in the tree, also those in ACLs, to the owners on disk.
    pub maps: IdMaps,
    /// Gives the group the permissions of the owner, and directories the setgid bit.
    pub group_access: bool,
    /// Creates devices, if the user may do that.
    pub devices: bool,
    /// Allows a directory that was in the target, with all its contents, to be replaced by something else.
    pub force: bool,
    /// The threads that write small files besides the extracting one.
    pub file_threads: FileThreads,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self {
            holes: Holes::default(),
            sync: true,
            uid: None,
            gid: None,
            maps: IdMaps::default(),
            group_access: false,
            devices: true,
            force: false,
            file_threads: FileThreads::default(),
        }
    }
}

/// The result of an extraction: what was extracted, and what could not be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries that were extracted. A path that several layers have counts once, and one that a layer removes does not
    /// count.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Entries that have another owner, because only root may change owners, or because the file system has none.
    pub ownership_not_restored: u64,
    /// Entries that have another mode or mtime: directories that were in the target and belong to somebody else, devices
    /// where there is no `/proc`, and everything on a file system that does not keep modes or times.
    pub attributes_not_restored: u64,
    /// Extended attributes that need more rights or another file system.
    pub xattrs_not_restored: u64,
    /// Devices that were not created: only root may do that, and only where the options allow it.
    pub devices_skipped: u64,
    /// Symbolic links that were not created, because the file system has none.
    pub symlinks_skipped: u64,
    /// Fifos that were not created, because the file system has none.
    pub fifos_skipped: u64,
    /// Hard links that became separate files, because they lead to another file system, or the file system has none.
    pub hardlinks_copied: u64,
}

/// A kind of entry that was not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skipped {
    Device,
    Fifo,
    Symlink,
}

/// Extracts entries into a directory. Dropping it leaves an incomplete tree; only [`finish`](Extractor::finish)
/// completes it.
pub struct Extractor {
    /// Dropped first: nothing is written any more when the lock of the target is released.
    small_files: SmallFiles,
    target: Target,
    options: ExtractOptions,
    /// The most bytes of memory for directories and provenance.
    memory_limit: u64,
    stack: DirStack,
    /// The ownership of the target's root as it was found.
    root: DirOwnership,
    user: Uid,
    /// Set when every obstacle came from volio: the target was empty, or held only the result of an interrupted run.
    is_exclusive: bool,
    states: StateRecords,
    provenance: Provenance,
    relocated: RelocatedPaths,
    /// The directories that get their attributes at the end.
    directories: PathMap<PendingDirectory>,
    /// The attributes that the file system gives to new files in the directory that was used last.
    defaults: Option<CreationDefaults>,
    retention: Retention,
    content: ContentWriter,
    /// Entries that were not created. Their hard links are not created either.
    skipped: PathMap<Skipped>,
    extracted: Extracted,
    /// Set when an entry was extracted, even if a whiteout has removed it again.
    has_extracted: bool,
    /// Set when a sync found a case-insensitive file system in the target.
    folds_case: bool,
}

/// A directory that gets its attributes when nothing more is put into it.
struct PendingDirectory {
    /// The attributes; `None` while no entry has described the directory.
    metadata: Option<Metadata>,
    /// Set when this extraction has created the directory.
    is_created: bool,
    /// Set when it may have inherited an ACL from the directory above, and pass it on.
    may_inherit: bool,
}

impl Extractor {
    /// Opens a directory for the extraction of a single layer, and creates it if it does not exist.
    ///
    /// # Errors
    /// Those of [`Target::open_or_create`] and [`Extractor::over`].
    pub fn new(target: &Path, options: ExtractOptions) -> Result<Self> {
        Self::over(Target::open_or_create(target)?, options, 1)
    }

    /// Extracts into a target, over what it holds. `layers` is the number of layers that follow: with more than one, the
    /// origin of each path is remembered, because whiteouts need it.
    ///
    /// # Errors
    /// When the target cannot be listed.
    pub fn over(target: Target, options: ExtractOptions, layers: usize) -> Result<Self> {
        let is_claimed = target.state().is_some_and(|state| state.was_empty && !state.complete);
        let is_exclusive = is_claimed || target.foreign_entry()?.is_none();
        let opened = fcntl_dupfd_cloexec(&target.root, 0).and_then(|root| Ok((fstat(&root)?, root)));
        let (stat, root) =
            opened.map_err(|errno| io_error("open", &target.shown, &TreePath::root(), errno))?;
        Ok(Self {
            small_files: SmallFiles::new(options.file_threads),
            content: ContentWriter::new(options.holes, options.sync),
            // A hard link may lead to an entry of the image, but not to other files of the target.
            provenance: Provenance::new(layers > 1 || !is_exclusive),
            options,
            memory_limit: u64::MAX,
            stack: DirStack::new(root),
            root: DirOwnership::from(&stat),
            user: geteuid(),
            is_exclusive,
            states: StateRecords::default(),
            relocated: RelocatedPaths::default(),
            // They share one limit.
            directories: PathMap::within(u64::MAX),
            skipped: PathMap::within(u64::MAX),
            defaults: None,
            retention: Retention::default(),
            extracted: Extracted::default(),
            has_extracted: false,
            folds_case: false,
            target,
        })
    }

    /// Returns whether everything in the target came from volio: it was empty, or holds the result of an interrupted run.
    pub fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    /// Changes a target that holds a tree already, entry by entry. All of it may be replaced.
    ///
    /// # Errors
    /// When the target cannot be opened again.
    pub(crate) fn for_sync(target: Target, options: ExtractOptions) -> Result<Self> {
        let mut extractor = Self::over(target, options, 1)?;
        extractor.is_exclusive = true;
        // Each entry is renamed when it is complete.
        extractor.small_files = SmallFiles::new(FileThreads::Exactly(0));
        extractor.provenance = Provenance::new(false);
        extractor.states.mode = StateMode::Sync;
        Ok(extractor)
    }

    /// Limits the memory for directories and the origins of paths, in bytes.
    #[must_use]
    pub fn with_memory_limit(self, memory_limit: u64) -> Self {
        Self { memory_limit, ..self }
    }

    /// Sets the number of threads that write small files besides this one, unless the options have it.
    #[must_use]
    pub fn with_file_threads(mut self, count: usize) -> Self {
        self.small_files.set_default(count);
        self
    }

    /// Returns a directory in which layers can be stored until they are verified.
    ///
    /// # Errors
    /// When no directory of the target allows files to be created.
    pub fn spool(&self) -> Result<SpoolDirectory> {
        self.target.spool()
    }

    /// Begins the next layer.
    pub fn begin_layer(&mut self) {
        self.provenance.begin_layer();
        self.defaults = None;
    }

    /// Creates an entry, in place of an earlier one with this path. `content` is read for files only.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the entry is inconsistent: its path leads through a file, or
    /// through a symbolic link to something that is not in the image; its link target is missing; its content is too
    /// short. [`Refused`](crate::error::Kind::Refused) when a file that was in the target is an obstacle. Otherwise the
    /// error of the operating system. That may be the one of an entry before this one, if other threads write files.
    pub fn put(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()> {
        let put = self.put_entry(entry, content);
        self.in_order(put)
    }

    fn put_entry(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()> {
        self.ensure_no_failure()?;
        ensure_possible(entry)?;
        let is_counted;
        if entry.path.is_root() {
            is_counted = self.is_counted(&entry.path);
            self.put_root(entry)?;
        } else if self.states.is_reserved(&entry.path) {
            // An image must not be able to write the state of a target.
            return Ok(());
        } else {
            let entry = &match self.enter_parent(&entry.path)? {
                Cow::Borrowed(_) => Cow::Borrowed(entry),
                Cow::Owned(path) => Cow::Owned(Entry { path, ..entry.clone() }),
            };
            is_counted = self.is_counted(&entry.path);
            self.skipped.remove(&entry.path);
            if self.states.is_reserved(&entry.path) {
                // A symbolic link leads there.
                return Ok(());
            }
            self.put_below_root(entry, content)?;
        }
        if matches!(entry.kind, EntryKind::File { .. }) {
            self.note_mtime(entry.metadata.mtime);
        }
        self.extracted.entries += u64::from(!is_counted);
        self.has_extracted = true;
        let held = self.directories.memory() + self.skipped.memory() + self.provenance.memory() as u64;
        if held > self.memory_limit {
            return Err(memory_exceeded(self.memory_limit));
        }
        Ok(())
    }

    /// Returns whether an entry with this path was extracted before. In an image with one layer that is known of directories
    /// only.
    fn is_counted(&self, path: &TreePath) -> bool {
        match self.directories.get(path) {
            Some(directory) => directory.metadata.is_some(),
            None => self.provenance.contains(path),
        }
    }

    fn put_below_root(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()> {
        match &entry.kind {
            EntryKind::File { size } => self.put_file(entry, *size, content),
            EntryKind::Directory => self.put_directory(entry),
            EntryKind::Symlink { target } => self.put_symlink(entry, target),
            EntryKind::Hardlink { target } => self.put_hardlink(&entry.path, target),
            EntryKind::Fifo => self.put_node(entry, FileType::Fifo, 0),
            EntryKind::CharDevice { major, minor } => {
                self.put_node(entry, FileType::CharacterDevice, makedev(*major, *minor))
            }
            EntryKind::BlockDevice { major, minor } => {
                self.put_node(entry, FileType::BlockDevice, makedev(*major, *minor))
            }
        }
    }

    /// Ends a failed extraction. A target that was created for it and is still empty is removed.
    pub fn abandon(mut self) {
        // Files that were there before may have been replaced. The error that ended the extraction is reported already.
        self.finish_all_small_files();
        // Entries that were extracted by now were verified, and a later run can continue from there.
        if !self.has_extracted {
            self.revert_state();
            self.target.abandon();
        }
    }

    /// Gives all directories their attributes, syncs the file systems, and records that the target is complete.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn finish(mut self) -> Result<Extracted> {
        self.finish_small_files()?;
        // The journals are in directories, which get their times below.
        self.end_journals();
        // Deepest first: a change in a directory changes its mtime, and its final mode may forbid access to it.
        let mut directories = std::mem::replace(&mut self.directories, PathMap::within(u64::MAX));
        let nodes: Vec<_> = directories.walk(NodeId::ROOT).collect();
        for node in nodes.into_iter().rev() {
            if let Some(directory) = directories.value_mut(node).take() {
                self.complete(&directories.path(node), &directory)?;
            }
        }
        self.complete_state()?;
        Ok(self.extracted)
    }

    /// Gives a directory its attributes.
    fn complete(&mut self, path: &TreePath, directory: &PendingDirectory) -> Result<()> {
        self.goto(path)?;
        let ownership = self.ownership();
        let owner = self.stack.ownership().filter(|_| directory.is_created).map(|known| known.owner);
        let may_inherit = directory.may_inherit || !self.is_here_ours();
        let here = self.stack.here().map_err(|errno| io_error("enter", &self.target.shown, path, errno))?;
        let context = attributes::DirectoryContext {
            owner,
            is_created: directory.is_created,
            retained: self.retention.on(ownership.device),
            options: &self.options,
        };
        let result = match &directory.metadata {
            Some(metadata) => {
                if self.states.mode == StateMode::Sync && !directory.is_created {
                    // The attributes that a directory has and the tree has not. An error is reported by what follows.
                    let _ = attributes::drop_others(here, metadata);
                }
                let mut attributes = attributes_of(metadata, path, &self.options)?;
                attributes.may_inherit = may_inherit;
                attributes::apply_to_directory(here, &mut attributes, context)
            }
            None => attributes::apply_implied(here, may_inherit, context),
        };
        match result {
            Ok(lost) => self.count(lost),
            // It belongs to somebody else, as the root of a volume often does. Its contents are what counts.
            Err(failure) if !directory.is_created && failure.is_for_lack_of_rights() => {
                self.extracted.attributes_not_restored += 1;
            }
            Err(failure) => return Err(self.io_error(failure.doing, path, failure.errno)),
        }
        Ok(())
    }

    /// Goes to a directory that exists.
    fn goto(&mut self, path: &TreePath) -> Result<()> {
        self.stack.ascend_to(path);
        for name in path.names().skip(self.stack.depth()) {
            let device = self.ownership().device;
            let above = match self.states.mode {
                StateMode::Sync => self.stack.here().ok().map(|here| (mount_id(here), device)),
                StateMode::Fill => None,
            };
            self.stack.enter(name).map_err(|errno| self.io_error("enter", path, errno))?;
            if let Some((mount, device)) = above {
                self.ensure_compared(mount, device)?;
            }
            self.note_filesystem()?;
        }
        Ok(())
    }

    /// Returns the ownership of the current directory.
    fn ownership(&self) -> DirOwnership {
        self.stack.ownership().unwrap_or(self.root)
    }

    /// Notes the file system of a directory that was just entered, if it is another one than that of the directory above.
    fn note_filesystem(&mut self) -> Result<()> {
        match self.stack.crossed_from(self.root.device) {
            Some(device) => self.enter_filesystem(device),
            None => Ok(()),
        }
    }

    fn count(&mut self, lost: Lost) {
        self.extracted.ownership_not_restored += u64::from(lost.ownership);
        self.extracted.attributes_not_restored += u64::from(lost.mode || lost.mtime);
        self.extracted.xattrs_not_restored += lost.xattrs;
    }

    /// The error for an entry of the target, with a hint if the file system has no inodes left.
    fn io_error(&self, doing: &str, path: &TreePath, errno: impl Into<io::Error>) -> Error {
        let error = errno.into();
        let is_full = error.kind() == io::ErrorKind::StorageFull;
        let error = io_error(doing, &self.target.shown, path, error);
        let free = fstatvfs(self.stack.root());
        if is_full && free.is_ok_and(|free| free.f_files > 0 && free.f_favail == 0) {
            error.with_hint("it has room and no inodes left: remove files there, or choose another place")
        } else {
            error
        }
    }
}

/// The attributes that entries have on disk when they were extracted by this process with some options.
pub(crate) struct ExpectedAttributes {
    options: ExtractOptions,
    rights: Rights,
}

impl ExpectedAttributes {
    /// The attributes with these options.
    pub fn new(options: &ExtractOptions) -> Self {
        Self { options: options.clone(), rights: Rights::of_process() }
    }

    /// Returns the metadata of an entry on disk. Where the process could not set its owner, that is the one that was
    /// found.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the maps do not have the owner.
    pub fn of(&self, entry: &Entry, found: &Metadata) -> Result<Metadata> {
        let attributes = attributes_of(&entry.metadata, &entry.path, &self.options)?;
        Ok(attributes.on_disk(entry.kind == EntryKind::Directory, found, &self.rights))
    }

    /// Returns whether an entry of this kind would be created.
    pub fn creates(&self, kind: &EntryKind) -> bool {
        let is_device = matches!(kind, EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. });
        !is_device || (geteuid().is_root() && self.options.devices)
    }
}

/// Ensures that a file system can hold an entry.
fn ensure_possible(entry: &Entry) -> Result<()> {
    match entry.impossible() {
        Some(why) => Err(Error::integrity(format!("{} {why}", entry.path))),
        None => Ok(()),
    }
}

/// The error for an entry of a target; `shown` is the target as messages show it.
fn io_error(doing: &str, shown: &str, path: &TreePath, error: impl Into<io::Error>) -> Error {
    Error::io(format!("cannot {doing} {shown}{path}"), error)
}

/// Returns the attributes of an entry, as the options want them.
fn attributes_of<'a>(
    metadata: &'a Metadata,
    path: &TreePath,
    options: &ExtractOptions,
) -> Result<Attributes<'a>> {
    Attributes::new(metadata, options).map_err(|unmapped| {
        Error::usage(format!("{path} of the image cannot be extracted: {unmapped}"))
            .with_hint("add a range to --uid-map or --gid-map, or give everything one owner with --owner")
    })
}
