//! Entering the directory of an entry: through directories, and through symbolic links of the image to directories of the
//! image.
//!
//! The kernel follows no link. Each link is read, and its target is resolved in single steps as every path is: `..` goes to
//! the directory that is held open above, and an absolute target begins at the root of the target. So a link leads beneath
//! that root, whatever it contains and whatever another process replaces meanwhile.

use super::{Extractor, PendingDirectory};
use crate::error::{Error, Result};
use crate::tree::resolution::{Blocked, Resolution, Step};
use crate::tree::{TreePath, is_reserved_name};
use rustix::fs::{Mode, mkdirat, readlinkat};
use rustix::io::Errno;
use std::borrow::Cow;

/// The reaction to a missing directory in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is created, unless a symbolic link leads to it.
    Create,
    /// The path cannot be entered.
    Fail,
}

/// The reason for which a path cannot be entered.
#[derive(Debug)]
pub(super) enum NotEntered {
    /// The image has something else there, or nothing.
    Blocked(Blocked),
    /// The path leads through a file that was in the target and is not a directory.
    Foreign(TreePath),
    /// An error of the operating system.
    Failed(Error),
}

impl From<Blocked> for NotEntered {
    fn from(blocked: Blocked) -> Self {
        Self::Blocked(blocked)
    }
}

/// The result of one step.
enum Entered {
    Directory,
    /// The target of a symbolic link, which was not followed.
    Link(Vec<u8>),
}

impl Extractor {
    /// Enters the directory of `path`, and creates missing directories. Returns the path of the entry, which is another one
    /// only if symbolic links lead there.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the path leads through something of the image that is not a
    /// directory, [`Refused`](crate::error::Kind::Refused) when a file that was in the target is an obstacle.
    pub(super) fn enter_parent<'a>(&mut self, path: &'a TreePath) -> Result<Cow<'a, TreePath>> {
        let parent = path.parent().unwrap_or_default();
        self.enter_directory(&parent, Missing::Create).map_err(|failure| self.enter_error(failure, path))?;
        match self.stack.path() {
            here if *here == parent => Ok(Cow::Borrowed(path)),
            here => {
                let relocated = self.relocated.count(path, here.join(path.name()));
                relocated.map(Cow::Owned).map_err(|blocked| blocked.error(path))
            }
        }
    }

    /// Enters the directory of an entry of the image, and returns the entry's path in the target; `None` if that
    /// directory does not exist.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn locate(&mut self, path: &TreePath) -> Result<Option<TreePath>> {
        let Some(parent) = path.parent() else { return Ok(Some(TreePath::root())) };
        Ok(self.locate_directory(&parent)?.map(|directory| directory.join(path.name())))
    }

    /// Enters a directory of the image, and returns its path in the target; `None` if it does not exist.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn locate_directory(&mut self, path: &TreePath) -> Result<Option<TreePath>> {
        match self.enter_directory(path, Missing::Fail) {
            Ok(()) => Ok(Some(self.stack.path().clone())),
            Err(NotEntered::Blocked(_) | NotEntered::Foreign(_)) => Ok(None),
            Err(NotEntered::Failed(error)) => Err(error),
        }
    }

    /// Enters a directory by its path in the image.
    pub(super) fn enter_directory(
        &mut self,
        directory: &TreePath,
        missing: Missing,
    ) -> Result<(), NotEntered> {
        self.stack.ascend_to(directory);
        for name in directory.names().skip(self.stack.depth()) {
            match self.step(name, missing)? {
                Entered::Directory => {}
                Entered::Link(_) => return self.enter_through_links(directory, missing),
            }
        }
        Ok(())
    }

    /// Enters a directory from the root on, through symbolic links.
    fn enter_through_links(&mut self, directory: &TreePath, missing: Missing) -> Result<(), NotEntered> {
        let mut steps = Resolution::of(directory);
        self.stack.ascend_to_root();
        while let Some(step) = steps.next() {
            match step {
                Step::Root => self.stack.ascend_to_root(),
                Step::Up => self.stack.leave(),
                Step::Enter { name, from_link } => {
                    let missing = if from_link { Missing::Fail } else { missing };
                    if let Entered::Link(target) = self.step(&name, missing)? {
                        steps.follow(&target)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Enters a directory, or reads a symbolic link and stays.
    fn step(&mut self, name: &[u8], missing: Missing) -> Result<Entered, NotEntered> {
        let path = self.stack.path().join(name);
        if is_reserved_name(name) && self.states.is_reserved(&path) {
            return Err(Blocked::Missing(path).into());
        }
        if self.directories.get(&path).is_none() {
            self.ensure_spelling(&path).map_err(NotEntered::Failed)?;
        }
        let mut entered = self.stack.enter(name);
        if entered == Err(Errno::NOENT) && missing == Missing::Create {
            self.create_implied(name).map_err(NotEntered::Failed)?;
            entered = self.stack.enter(name);
        }
        match entered {
            Ok(()) => self.note_filesystem().map(|()| Entered::Directory).map_err(NotEntered::Failed),
            Err(Errno::NOENT) => Err(Blocked::Missing(path).into()),
            Err(Errno::NOTDIR | Errno::LOOP) => self.read_link(name).map(Entered::Link),
            Err(errno) => Err(NotEntered::Failed(self.io_error("enter", &path, errno))),
        }
    }

    /// Returns the target of a symbolic link of the image.
    fn read_link(&mut self, name: &[u8]) -> Result<Vec<u8>, NotEntered> {
        let path = self.stack.path().join(name);
        if !self.is_of_image(&path) {
            return Err(NotEntered::Foreign(path));
        }
        match self.stack.here().and_then(|here| readlinkat(here, name, Vec::new())) {
            Ok(target) => Ok(target.into_bytes()),
            Err(Errno::INVAL) => Err(Blocked::NotADirectory(path).into()),
            Err(errno) => Err(NotEntered::Failed(self.io_error("read the link", &path, errno))),
        }
    }

    /// Creates a directory that no entry has described.
    fn create_implied(&mut self, name: &[u8]) -> Result<()> {
        let directory = self.stack.path().join(name);
        let created = self.stack.here().and_then(|here| mkdirat(here, name, Mode::RWXU));
        created.map_err(|errno| self.io_error("make the directory", &directory, errno))?;
        self.note_created(&directory);
        let may_inherit = self.passes_acls_on();
        let pending = PendingDirectory { metadata: None, is_created: true, may_inherit };
        self.directories.insert(&directory, pending)?;
        Ok(())
    }

    fn enter_error(&self, failure: NotEntered, path: &TreePath) -> Error {
        match failure {
            NotEntered::Blocked(blocked) => blocked.error(path),
            NotEntered::Foreign(found) => Error::refused(format!(
                "{path} would be in {found}, which was in {} and is not a directory",
                self.target.shown
            ))
            .with_hint("links that were there are not followed: move it away"),
            NotEntered::Failed(error) => error,
        }
    }
}
