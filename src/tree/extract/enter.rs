//! The way to the directory that something is in: through directories, and through symbolic links of the image to
//! directories of the image.
//!
//! No link is left to the kernel. It is read, and its target is taken in single steps as every path is: a `..` goes to the
//! directory that is held open above, and an absolute target begins at the root of the target. So a link leads beneath that root
//! whatever it says and whoever replaces something on the way.

use super::{Directory, Extractor};
use crate::error::{Error, Result};
use crate::tree::TreePath;
use crate::tree::resolution::{Blocked, Resolution, Step};
use rustix::fs::{Mode, mkdirat, readlinkat};
use rustix::io::Errno;
use std::borrow::Cow;

/// What happens to directories that are missing on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// They are made, unless a symbolic link leads to them.
    Make,
    /// They end the way.
    End,
}

/// A way that does not lead to a directory.
#[derive(Debug)]
pub(super) enum NoWay {
    /// The image has something else there, or nothing.
    Blocked(Blocked),
    /// It leads through something that was in the target and is not a directory.
    Foreign(TreePath),
    /// An error of the operating system.
    Failed(Error),
}

impl From<Blocked> for NoWay {
    fn from(blocked: Blocked) -> Self {
        Self::Blocked(blocked)
    }
}

/// What a step came to.
enum Entered {
    Directory,
    /// The target of a symbolic link.
    Link(Vec<u8>),
}

impl Extractor {
    /// Goes to the directory that `path` is in, and makes what is missing on the way. Returns where the entry is: another
    /// path only where symbolic links lead there.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the image leads through what is not a directory of its own,
    /// [`Refused`](crate::error::Kind::Refused) when something that was in the target stands in the way.
    pub(super) fn enter_parent<'a>(&mut self, path: &'a TreePath) -> Result<Cow<'a, TreePath>> {
        let parent = path.parent().unwrap_or_default();
        self.pass(&parent, Missing::Make).map_err(|no_way| self.no_way(no_way, path))?;
        match self.descent.path() {
            here if *here == parent => Ok(Cow::Borrowed(path)),
            here => {
                let place = self.moved.count(path, here.join(path.name()));
                place.map(Cow::Owned).map_err(|blocked| blocked.error(path))
            }
        }
    }

    /// Where something of the image is, if the directory is there that it would be in. The descent is in that.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn place_of(&mut self, path: &TreePath) -> Result<Option<TreePath>> {
        let Some(parent) = path.parent() else { return Ok(Some(TreePath::root())) };
        Ok(self.directory_of(&parent)?.map(|directory| directory.join(path.name())))
    }

    /// Which directory of the target this path of the image means, if any. The descent is in that.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn directory_of(&mut self, path: &TreePath) -> Result<Option<TreePath>> {
        match self.pass(path, Missing::End) {
            Ok(()) => Ok(Some(self.descent.path().clone())),
            Err(NoWay::Blocked(_) | NoWay::Foreign(_)) => Ok(None),
            Err(NoWay::Failed(error)) => Err(error),
        }
    }

    /// Goes to a directory by its path in the image.
    pub(super) fn pass(&mut self, directory: &TreePath, missing: Missing) -> Result<(), NoWay> {
        self.descent.rise_towards(directory);
        for name in directory.names().skip(self.descent.depth()) {
            match self.step(name, missing)? {
                Entered::Directory => {}
                Entered::Link(_) => return self.pass_links(directory, missing),
            }
        }
        Ok(())
    }

    /// The same from the root on, where links are on the way.
    fn pass_links(&mut self, directory: &TreePath, missing: Missing) -> Result<(), NoWay> {
        let mut steps = Resolution::of(directory);
        self.descent.rise_to_root();
        while let Some(step) = steps.next() {
            match step {
                Step::Root => self.descent.rise_to_root(),
                Step::Up => self.descent.leave(),
                Step::Enter { name, from_link } => {
                    let missing = if from_link { Missing::End } else { missing };
                    if let Entered::Link(target) = self.step(&name, missing)? {
                        steps.follow(&target)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Enters a directory, or reads a symbolic link and stays.
    fn step(&mut self, name: &[u8], missing: Missing) -> Result<Entered, NoWay> {
        let mut entered = self.descent.enter(name);
        if entered == Err(Errno::NOENT) && missing == Missing::Make {
            self.make_on_the_way(name).map_err(NoWay::Failed)?;
            entered = self.descent.enter(name);
        }
        match entered {
            Ok(()) => self.look_around().map(|()| Entered::Directory).map_err(NoWay::Failed),
            Err(Errno::NOENT) => Err(Blocked::Missing(self.descent.path().join(name)).into()),
            Err(Errno::NOTDIR | Errno::LOOP) => self.read_link(name).map(Entered::Link),
            Err(errno) => {
                let path = self.descent.path().join(name);
                Err(NoWay::Failed(self.trouble("enter", &path, errno)))
            }
        }
    }

    /// The target of a symbolic link of the image.
    fn read_link(&mut self, name: &[u8]) -> Result<Vec<u8>, NoWay> {
        let path = self.descent.path().join(name);
        if !self.was_made(&path) {
            return Err(NoWay::Foreign(path));
        }
        match self.descent.here().and_then(|here| readlinkat(here, name, Vec::new())) {
            Ok(target) => Ok(target.into_bytes()),
            Err(Errno::INVAL) => Err(Blocked::NotADirectory(path).into()),
            Err(errno) => Err(NoWay::Failed(self.trouble("read the link", &path, errno))),
        }
    }

    /// Makes a directory that no entry has described.
    fn make_on_the_way(&mut self, name: &[u8]) -> Result<()> {
        let directory = self.descent.path().join(name);
        let made = self.descent.here().and_then(|here| mkdirat(here, name, Mode::RWXU));
        made.map_err(|errno| self.trouble("make the directory", &directory, errno))?;
        self.note_made(&directory);
        let may_inherit = self.hands_acls_down();
        self.directories.insert(&directory, Directory { metadata: None, made: true, may_inherit })?;
        Ok(())
    }

    fn no_way(&self, no_way: NoWay, path: &TreePath) -> Error {
        match no_way {
            NoWay::Blocked(blocked) => blocked.error(path),
            NoWay::Foreign(place) => Error::refused(format!(
                "{path} would be in {place}, which was in {} and is not a directory",
                self.target.shown
            ))
            .with_hint("links that were there are not followed: move it away"),
            NoWay::Failed(error) => error,
        }
    }
}
