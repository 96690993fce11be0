//! One source of a walk.

use super::directory::{DirectoryWalk, io_error};
use super::listing::{display_path, display_root, open_leased};
use super::moved::SourceDirectories;
use super::skip_list::SkipList;
use super::stat::{EntryBuilder, EntryFailure, Recovery};
use super::stored::StoredWalk;
use super::{Summary, WalkDetail, WalkOptions, WalkedEntry};
use crate::error::{Error, Result};
use crate::tree::path_range::{PathRange, Position};
use crate::tree::race::Changed;
use crate::tree::source_spec::SourceSpec;
use crate::tree::{StoredTree, TreePath};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, stat};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One source, and its next entry.
pub(super) struct Branch {
    pub source: PathBuf,
    /// The source as messages show it.
    pub shown: String,
    /// The path of the source in the tree.
    pub at: TreePath,
    walk: SourceWalk,
    pub head: Option<WalkedEntry>,
}

enum SourceWalk {
    Directory(Box<DirectoryWalk>),
    File(Box<Option<WalkedEntry>>, Summary),
    Stored(Box<StoredWalk>),
}

impl Branch {
    pub fn open(source: &SourceSpec, options: &WalkOptions, skip_list: &SkipList) -> Result<Self> {
        let (at, walk) = match &source.stored {
            Some(stored) => open_stored(source, stored, options)?,
            None => open_on_disk(source, options, skip_list)?,
        };
        Ok(Self { source: source.path.clone(), shown: display_root(&source.path), at, walk, head: None })
    }

    /// Reads the next entry of the source if it was not read yet.
    pub fn fill_head(&mut self) -> Result<()> {
        if self.head.is_none() {
            self.head = match &mut self.walk {
                SourceWalk::Directory(walk) => walk.advance()?,
                SourceWalk::File(found, _) => found.take(),
                SourceWalk::Stored(walk) => walk.advance()?,
            };
        }
        Ok(())
    }

    pub fn restrict_to(&mut self, range: &PathRange) {
        match &mut self.walk {
            SourceWalk::Directory(walk) => walk.restrict_to(range.clone()),
            SourceWalk::Stored(walk) => walk.restrict_to(range.clone()),
            SourceWalk::File(found, _) => {
                if range.only_directories || range.position(&self.at) != Position::Inside {
                    **found = None;
                }
            }
        }
    }

    pub fn set_detail(&mut self, detail: WalkDetail) {
        if let SourceWalk::Directory(walk) = &mut self.walk {
            walk.set_detail(detail);
        }
    }

    pub fn summary(&self) -> Summary {
        match &self.walk {
            SourceWalk::Directory(walk) => walk.summary(),
            SourceWalk::File(_, summary) => summary.clone(),
            SourceWalk::Stored(walk) => walk.summary(),
        }
    }

    pub fn into_listed(self) -> Option<SourceDirectories> {
        match self.walk {
            SourceWalk::Directory(walk) => Some(walk.into_listed(self.source)),
            SourceWalk::File(..) | SourceWalk::Stored(_) => None,
        }
    }

    /// Returns whether a directory, by its path below the source, would be read.
    pub fn contains_directory(&self, path: &TreePath) -> bool {
        match &self.walk {
            SourceWalk::Directory(walk) => !walk.excludes_directory(path),
            SourceWalk::File(..) | SourceWalk::Stored(_) => false,
        }
    }
}

fn open_stored(
    source: &SourceSpec,
    stored: &Arc<StoredTree>,
    options: &WalkOptions,
) -> Result<(TreePath, SourceWalk)> {
    let at = source.path_of_directory();
    let walk = StoredWalk::new(stored.clone(), at.clone(), options)?;
    Ok((at, SourceWalk::Stored(Box::new(walk))))
}

fn open_on_disk(
    source: &SourceSpec,
    options: &WalkOptions,
    skip_list: &SkipList,
) -> Result<(TreePath, SourceWalk)> {
    let shown = display_root(&source.path);
    let failed = |errno| match errno {
        Errno::NOENT => Error::not_found(format!("there is no {}", source.path.display()))
            .with_hint("SOURCE is a directory or a file; `SOURCE:/PATH` says where it lands in the image"),
        // Not a change meanwhile, which other entries may have: nothing was read before.
        errno => io_error("open", &shown, &TreePath::root(), EntryFailure::Errno(errno)),
    };
    // A symbolic link that the user names is followed: `pack IMAGE current` means the directory that `current` leads to.
    let status = stat(&source.path).map_err(failed)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => {
            let fd = open(&source.path, OFlags::DIRECTORY).map_err(failed)?;
            let at = source.path_of_directory();
            let walk = DirectoryWalk::new(&source.path, fd, at.clone(), options, skip_list)?;
            Ok((at, SourceWalk::Directory(Box::new(walk))))
        }
        FileType::RegularFile => {
            let at = source.path_of_file();
            let (found, summary) = single_file(&source.path, &at, options, skip_list)?;
            Ok((at, SourceWalk::File(Box::new(found), summary)))
        }
        _ => Err(Error::usage(format!("{} is neither a directory nor a file", source.path.display()))
            .with_hint("pack the directory that it is in")),
    }
}

/// Reads a file that is a source by itself. No exclude rule applies: the user named it.
fn single_file(
    source: &Path,
    at: &TreePath,
    options: &WalkOptions,
    skip_list: &SkipList,
) -> Result<(Option<WalkedEntry>, Summary)> {
    let mut builder = EntryBuilder::new(options, skip_list);
    let shown = display_path(&display_root(source), &TreePath::root());
    if builder.skips(at) {
        return Ok((None, builder.summary));
    }
    for attempt in 1.. {
        let read = (|| {
            let fd = open_leased(|| open(source, OFlags::NONBLOCK))?;
            let status = fstat(&fd)?;
            if !FileType::from_raw_mode(status.st_mode).is_file() {
                return Err(Errno::STALE.into());
            }
            builder.file(at.clone(), fd, &status, shown.clone())
        })();
        match read {
            Ok(found) => {
                builder.count(&found.entry);
                return Ok((Some(found), builder.summary));
            }
            Err(failure) => match builder.recover(at, failure, attempt) {
                Ok(Recovery::Retry) => {}
                Ok(Recovery::LeaveOut) => break,
                Err(EntryFailure::Changed(change)) => {
                    return Err(Changed { path: at.clone(), change }.into_error(&shown));
                }
                Err(failure) => return Err(io_error("read", &shown, &TreePath::root(), failure)),
            },
        }
    }
    Ok((None, builder.summary))
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(CWD, path, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
