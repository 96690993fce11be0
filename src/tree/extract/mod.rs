//! A tree comes into being in a directory, and nowhere else.
//!
//! What is extracted may come from a stranger, and the target may belong to one. So every step goes through the
//! descriptor of the directory above, by a single name and without following links ([`Descent`]); links of the image are
//! read and taken in such steps, beneath the root (`enter`); new things are
//! made under names that were free (`O_EXCL`); and attributes are set on what is open, not on what has a name.
//! Single steps need no `openat2`: it answers a whole path at once, and here there is never more than one name.

mod atomic;
mod attributes;
mod content;
mod creation_defaults;
mod enter;
mod front_coded;
mod hardlink;
mod journal;
mod make;
mod provenance;
mod spool;
mod state;
mod target;

pub use atomic::AtomicTarget;
pub use content::Holes;
pub use spool::SpoolDirectory;
pub use target::Target;

use super::dir_stack::{Descent, Standing};
use super::resolution::Moved;
use super::{Content, Entry, EntryKind, IdMaps, Metadata, NodeId, PathMap, TreePath, memory_exceeded};
use crate::error::{Error, Result};
use attributes::{Attributes, Lost};
use content::ContentWriter;
use creation_defaults::Newborns;
use provenance::Layers;
use rustix::fs::{FileType, fstat, fstatvfs, makedev};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Uid, geteuid};
use serde::Serialize;
use state::Marks;
use std::borrow::Cow;
use std::io;
use std::path::Path;

/// How a tree is extracted.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// How many bytes of memory may be taken by what has to be remembered of directories and layers.
    pub memory: u64,
    /// Whether more than one layer will come. Only then is it noted what each of them made, as whiteouts need it.
    pub several_layers: bool,
    /// Which zeros become holes.
    pub holes: Holes,
    /// Whether the file systems are told to write everything to the disk before all is said to be well.
    pub sync: bool,
    /// The user whom everything belongs to, whatever the entries say.
    pub uid: Option<u32>,
    /// The group, in the same way.
    pub gid: Option<u32>,
    /// What the numbers of owners, in ACLs too, mean on this disk.
    pub maps: IdMaps,
    /// Whether the group may do what the owner may, and has all that is made in directories later.
    pub group_access: bool,
    /// Whether devices are made, by who may do that.
    pub devices: bool,
    /// Whether a directory that was in the target gives way to something else, with all that is in it.
    pub force: bool,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self {
            memory: u64::MAX,
            several_layers: false,
            holes: Holes::default(),
            sync: true,
            uid: None,
            gid: None,
            maps: IdMaps::default(),
            group_access: false,
            devices: true,
            force: false,
        }
    }
}

/// What came into being, and what could not be as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Extracted {
    /// Entries that were extracted.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Entries that belong to somebody else now, because only root may give things away.
    pub ownership_not_restored: u64,
    /// Directories that were in the target, belong to somebody else, and kept their mode or mtime; and devices that
    /// have no other mode than they were made with, because there is no `/proc`.
    pub attributes_not_restored: u64,
    /// Extended attributes that need more rights or another file system.
    pub xattrs_not_restored: u64,
    /// Devices that were not made: only root may do that, and only where it is wanted.
    pub devices_skipped: u64,
    /// Hard links that became files of their own, because they lead to another file system.
    pub hardlinks_copied: u64,
}

/// Extracts entries into a directory. Dropping it leaves an incomplete tree; only [`finish`](Extractor::finish)
/// completes it.
pub struct Extractor {
    target: Target,
    options: ExtractOptions,
    descent: Descent,
    /// The target's root as it was found.
    root: Standing,
    /// Who runs this.
    user: Uid,
    /// Whether whatever stands in the way came from volio: nothing was in the target, or what an interrupted run made.
    alone: bool,
    marks: Marks,
    layers: Layers,
    moved: Moved,
    /// Directories whose attributes come last.
    directories: PathMap<Directory>,
    /// What new files are given in the directory that was last worked in.
    newborns: Option<Newborns>,
    content: ContentWriter,
    /// Devices that were not made: their other names are not there either.
    skipped: PathMap<()>,
    done: Extracted,
}

/// A directory that gets its attributes when nothing more is put into it.
struct Directory {
    /// Its attributes; `None` while no entry has described it.
    metadata: Option<Metadata>,
    /// Whether it was made by this extraction.
    made: bool,
    /// Whether it may have got an ACL from the directory above, and hand it down.
    may_inherit: bool,
}

impl Extractor {
    /// Opens the directory, and makes it if it is not there.
    ///
    /// # Errors
    /// Those of [`Target::open_or_create`] and [`Extractor::over`].
    pub fn new(target: &Path, options: ExtractOptions) -> Result<Self> {
        Self::over(Target::open_or_create(target)?, options)
    }

    /// Extracts into a target, over what it holds.
    ///
    /// # Errors
    /// When the target cannot be listed.
    pub fn over(target: Target, options: ExtractOptions) -> Result<Self> {
        let is_claimed = target.state().is_some_and(|record| record.alone && !record.complete);
        let alone = is_claimed || target.foreign_entry()?.is_none();
        let opened = fcntl_dupfd_cloexec(&target.root, 0).and_then(|root| Ok((fstat(&root)?, root)));
        let (stat, root) =
            opened.map_err(|errno| trouble(&target.shown, "open", &TreePath::root(), errno))?;
        Ok(Self {
            content: ContentWriter::new(options.holes, options.sync),
            // A hard link may lead to what the image has, and not to what else is in the target.
            layers: Layers::new(options.several_layers || !alone),
            options,
            descent: Descent::new(root),
            root: Standing::from(&stat),
            user: geteuid(),
            alone,
            marks: Marks::default(),
            moved: Moved::default(),
            // All of it together has one limit.
            directories: PathMap::within(u64::MAX),
            skipped: PathMap::within(u64::MAX),
            newborns: None,
            done: Extracted::default(),
            target,
        })
    }

    /// Where layers can be kept until they are proved.
    ///
    /// # Errors
    /// When there is no place in the target where files can be made.
    pub fn spool(&self) -> Result<SpoolDirectory> {
        self.target.spool()
    }

    /// What comes from now on belongs to the next layer.
    pub fn begin_layer(&mut self) {
        self.layers.begin();
        self.newborns = None;
    }

    /// Makes what the entry describes, in place of what an earlier entry made there; `content` is read for files.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the entry makes no sense: it leads through a file, or through a symbolic
    /// link to what is not in the image, links to what is not there, or has less content than it says. [`Refused`](crate::error::Kind::Refused) when
    /// something that was in the target stands in its way. Otherwise what the operating system says.
    pub fn put(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()> {
        check(entry)?;
        if entry.path.is_root() {
            self.put_root(entry)?;
        } else {
            let entry = &match self.enter_parent(&entry.path)? {
                Cow::Borrowed(_) => Cow::Borrowed(entry),
                Cow::Owned(path) => Cow::Owned(Entry { path, ..entry.clone() }),
            };
            self.skipped.remove(&entry.path);
            if self.marks.is_ours(&entry.path) {
                // An image must not be able to say what the target holds.
                return Ok(());
            }
            match &entry.kind {
                EntryKind::File { size } => self.put_file(entry, *size, content)?,
                EntryKind::Directory => self.put_directory(entry)?,
                EntryKind::Symlink { target } => self.put_symlink(entry, target)?,
                EntryKind::Hardlink { target } => self.put_hardlink(&entry.path, target)?,
                EntryKind::Fifo => self.put_node(entry, FileType::Fifo, 0)?,
                EntryKind::CharDevice { major, minor } => {
                    self.put_node(entry, FileType::CharacterDevice, makedev(*major, *minor))?;
                }
                EntryKind::BlockDevice { major, minor } => {
                    self.put_node(entry, FileType::BlockDevice, makedev(*major, *minor))?;
                }
            }
        }
        self.done.entries += 1;
        let held = self.directories.memory() + self.skipped.memory() + self.layers.memory() as u64;
        match held > self.options.memory {
            true => Err(memory_exceeded(self.options.memory)),
            false => Ok(()),
        }
    }

    /// Gives up. A target that was made for this and holds nothing yet is removed again.
    pub fn abandon(mut self) {
        // What was extracted by now was proved, and a later run can go on from there.
        if self.done.entries == 0 {
            self.unmark();
            self.target.abandon();
        }
    }

    /// Gives all directories their attributes, has the file systems write everything to the disk, and notes that the
    /// target is complete.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn finish(mut self) -> Result<Extracted> {
        // Before the directories that they are in get their times.
        self.end_journals();
        // Deepest first: a change in a directory changes its mtime, and its final mode may forbid to enter it.
        let mut directories = std::mem::replace(&mut self.directories, PathMap::within(u64::MAX));
        let nodes: Vec<_> = directories.walk(NodeId::ROOT).collect();
        for node in nodes.into_iter().rev() {
            if let Some(directory) = directories.value_mut(node).take() {
                self.complete(&directories.path(node), &directory)?;
            }
        }
        self.seal()?;
        Ok(self.done)
    }

    fn complete(&mut self, path: &TreePath, directory: &Directory) -> Result<()> {
        self.go_to(path)?;
        let shown = &self.target.shown;
        let owner = self.descent.standing().filter(|_| directory.made).map(|standing| standing.owner);
        let may_inherit = directory.may_inherit || !self.is_here_ours();
        let here = self.descent.here().map_err(|errno| trouble(shown, "enter", path, errno))?;
        let result = match &directory.metadata {
            Some(metadata) => {
                let mut wanted = wanted(metadata, path, &self.options)?;
                wanted.may_inherit = may_inherit;
                attributes::apply_to_directory(here, &mut wanted, owner, &self.options)
            }
            None => attributes::apply_plain(here, may_inherit, &self.options),
        };
        match result {
            Ok(lost) => self.count(lost),
            // It belongs to somebody else, as the root of a volume often does: what is in it is what counts.
            Err(failure) if !directory.made && failure.is_for_lack_of_rights() => {
                self.done.attributes_not_restored += 1;
            }
            Err(failure) => return Err(self.trouble(failure.doing, path, failure.errno)),
        }
        Ok(())
    }

    /// Goes to a directory that exists.
    fn go_to(&mut self, path: &TreePath) -> Result<()> {
        self.descent.rise_towards(path);
        for name in path.names().skip(self.descent.depth()) {
            self.descent.enter(name).map_err(|errno| self.trouble("enter", path, errno))?;
            self.look_around()?;
        }
        Ok(())
    }

    /// Takes note of the file system, where a directory that was just entered is on another one than those above.
    fn look_around(&mut self) -> Result<()> {
        match self.descent.crossed_from(self.root.device) {
            Some(device) => self.arrive(device),
            None => Ok(()),
        }
    }

    fn count(&mut self, lost: Lost) {
        self.done.ownership_not_restored += u64::from(lost.ownership);
        self.done.attributes_not_restored += u64::from(lost.mode);
        self.done.xattrs_not_restored += lost.xattrs;
    }

    fn trouble(&self, doing: &str, path: &TreePath, errno: impl Into<io::Error>) -> Error {
        let error = errno.into();
        let is_full = error.kind() == io::ErrorKind::StorageFull;
        let error = trouble(&self.target.shown, doing, path, error);
        let left = fstatvfs(self.descent.root());
        match is_full && left.is_ok_and(|left| left.f_files > 0 && left.f_favail == 0) {
            true => {
                error.with_hint("it has room and no inodes left: remove files there, or choose another place")
            }
            false => error,
        }
    }
}

/// Insists on values that a file system can hold.
fn check(entry: &Entry) -> Result<()> {
    match entry.impossible() {
        Some(why) => Err(Error::integrity(format!("{} {why}", entry.path))),
        None => Ok(()),
    }
}

/// The error for something in the target.
fn trouble(shown: &str, doing: &str, path: &TreePath, error: impl Into<io::Error>) -> Error {
    Error::io(format!("cannot {doing} {shown}{path}"), error)
}

/// The attributes of an entry, as the options want them.
fn wanted<'a>(metadata: &'a Metadata, path: &TreePath, options: &ExtractOptions) -> Result<Attributes<'a>> {
    Attributes::wanted(metadata, options).map_err(|unmapped| {
        Error::usage(format!("{path} of the image cannot be extracted: {unmapped}"))
            .with_hint("add a range to --uid-map or --gid-map, or give everything one owner with --owner")
    })
}
