//! A tree comes into being in a directory, and nowhere else.
//!
//! What is extracted may come from a stranger, and the target may belong to one. So every step goes through the
//! descriptor of the directory above, by a single name and without following links ([`Descent`]); new things are
//! made under names that were free (`O_EXCL`); and attributes are set on what is open, not on what has a name.
//! Single steps need no `openat2`: it answers a whole path at once, and here there is never more than one name.

mod attributes;
mod content;
mod layers;
mod make;

use super::descent::Descent;
use super::walk::shown;
use super::{Content, Entry, Kind, Metadata, TreePath};
use crate::error::{Error, Result};
use attributes::Lost;
use content::ContentWriter;
use layers::Layers;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, makedev, openat, statat, syncfs};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How a tree is extracted.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// Whether more than one layer will come. Only then is it noted what each of them made, as whiteouts need it.
    pub several_layers: bool,
    /// Whether long runs of zeros become holes.
    pub holes: bool,
    /// Whether the file system is told to write everything to the disk before all is said to be well.
    pub sync: bool,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self { several_layers: false, holes: true, sync: true }
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
    /// Directories that were in the target, belong to somebody else, and kept their mode or mtime.
    pub attributes_not_restored: u64,
    /// Extended attributes that need more rights or another file system.
    pub xattrs_not_restored: u64,
    /// Devices, which only root may make.
    pub devices_skipped: u64,
}

/// Extracts entries into a directory. Dropping it leaves an incomplete tree; only [`finish`](Extractor::finish)
/// completes it.
pub struct Extractor {
    target: PathBuf,
    /// The target as the user knows it, for messages.
    shown: String,
    options: ExtractOptions,
    descent: Descent,
    is_root: bool,
    /// Whether the target itself was made.
    made: bool,
    /// Something that was in the target. If nothing was, whatever stands in the way came with the image.
    held: Option<TreePath>,
    layers: Layers,
    /// Directories whose attributes come last.
    directories: BTreeMap<TreePath, Directory>,
    content: ContentWriter,
    /// Devices that were not made: their other names are not there either.
    skipped: BTreeSet<TreePath>,
    done: Extracted,
}

/// A directory that gets its attributes when nothing more is put into it.
struct Directory {
    /// Its attributes; `None` while no entry has described it.
    metadata: Option<Metadata>,
    /// Whether it was made by this extraction.
    made: bool,
}

impl Extractor {
    /// Opens the target, and makes it if it is not there.
    ///
    /// # Errors
    /// When the target cannot be made or opened, or is no directory.
    pub fn new(target: &Path, options: ExtractOptions) -> Result<Self> {
        let shown = shown(target);
        let open = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(CWD, target, flags, Mode::empty())
        };
        let (opened, made) = match open() {
            Err(Errno::NOENT) => {
                let made = DirBuilder::new().recursive(true).mode(0o755).create(target);
                made.map_err(|error| Error::io(format!("cannot make the directory {shown}"), error))?;
                (open(), true)
            }
            opened => (opened, false),
        };
        let root = opened.map_err(|errno| match errno {
            Errno::NOTDIR => Error::refused(format!("{shown} is not a directory")),
            errno => Error::io(format!("cannot open {shown}"), errno),
        })?;
        let held = something_in(root.as_fd());
        let held = held.map_err(|errno| Error::io(format!("cannot list {shown}"), errno))?;
        Ok(Self {
            target: target.to_owned(),
            shown,
            content: ContentWriter::new(options.holes),
            layers: Layers::new(options.several_layers),
            options,
            descent: Descent::new(root),
            is_root: geteuid().is_root(),
            made,
            held,
            directories: BTreeMap::new(),
            skipped: BTreeSet::new(),
            done: Extracted::default(),
        })
    }

    /// Insists that nothing was in the target but a `lost+found` of root's, which every new ext4 has.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused), naming something that is there.
    pub fn refuse_unless_empty(&self) -> Result<()> {
        match &self.held {
            None => Ok(()),
            Some(held) => Err(Error::refused(format!("{} is not empty: it holds {held}", self.shown))
                .hint("choose another directory, or empty this one")),
        }
    }

    /// What comes from now on belongs to the next layer.
    pub fn begin_layer(&mut self) {
        self.layers.begin();
    }

    /// Makes what the entry describes, in place of what an earlier entry made there; `content` is read for files.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the entry makes no sense: it leads through a symbolic link of the
    /// image, links to what is not there, or has less content than it says. [`Refused`](crate::error::Kind::Refused) when
    /// something that was in the target stands in its way. Otherwise what the operating system says.
    pub fn put(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()> {
        check(entry)?;
        self.skipped.remove(&entry.path);
        if entry.path.is_root() {
            self.put_root(entry)?;
        } else {
            self.enter_parent(&entry.path)?;
            match &entry.kind {
                Kind::File { size } => self.put_file(entry, *size, content)?,
                Kind::Directory => self.put_directory(entry)?,
                Kind::Symlink { target } => self.put_symlink(entry, target)?,
                Kind::Hardlink { target } => self.put_hardlink(&entry.path, target)?,
                Kind::Fifo => self.put_node(entry, FileType::Fifo, 0)?,
                Kind::CharDevice { major, minor } => {
                    self.put_node(entry, FileType::CharacterDevice, makedev(*major, *minor))?;
                }
                Kind::BlockDevice { major, minor } => {
                    self.put_node(entry, FileType::BlockDevice, makedev(*major, *minor))?;
                }
            }
        }
        self.done.entries += 1;
        Ok(())
    }

    /// Gives up. A target that was made for this and holds nothing yet is removed again.
    pub fn abandon(self) {
        if self.made {
            // Whatever it holds by now was proved, and a later run can go on from there.
            let _ = fs::remove_dir(&self.target);
        }
    }

    /// Gives all directories their attributes, and has the file system write everything to the disk.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn finish(mut self) -> Result<Extracted> {
        // Deepest first: a change in a directory changes its mtime, and its final mode may forbid to enter it.
        for (path, directory) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.complete(&path, &directory)?;
        }
        if self.options.sync {
            syncfs(self.descent.root())
                .map_err(|errno| Error::io(format!("cannot write {} to the disk", self.shown), errno))?;
        }
        Ok(self.done)
    }

    fn complete(&mut self, path: &TreePath, directory: &Directory) -> Result<()> {
        self.descent.go_to(path).map_err(|errno| self.trouble("enter", path, errno))?;
        let here = self.descent.here().map_err(|errno| trouble(&self.shown, "enter", path, errno))?;
        let result = match &directory.metadata {
            Some(metadata) => attributes::apply_to_directory(here, metadata),
            None => attributes::apply_plain(here),
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

    fn count(&mut self, lost: Lost) {
        self.done.ownership_not_restored += u64::from(lost.ownership);
        self.done.xattrs_not_restored += lost.xattrs;
    }

    fn trouble(&self, doing: &str, path: &TreePath, errno: impl Into<io::Error>) -> Error {
        trouble(&self.shown, doing, path, errno)
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

/// Something in a directory that is not a `lost+found` of root's.
fn something_in(directory: BorrowedFd<'_>) -> Result<Option<TreePath>, Errno> {
    let mut buffer = Vec::with_capacity(4 << 10);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_owned();
        let is_lost_and_found = || {
            let stat = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW);
            stat.is_ok_and(|stat| stat.st_uid == 0 && FileType::from_raw_mode(stat.st_mode).is_dir())
        };
        match name.to_bytes() {
            b"." | b".." => {}
            b"lost+found" if is_lost_and_found() => {}
            held => return Ok(Some(TreePath::root().join(held))),
        }
    }
    Ok(None)
}
