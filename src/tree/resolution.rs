//! Resolution of paths that lead through symbolic links: beneath the root of a tree, as after `chroot`.
//!
//! This module has the rules and knows no tree. [`Extractor`](super::Extractor) takes the steps by descriptors,
//! [`Overlay`](super::Overlay) in memory, so that both interpret a path in the same way.

use super::TreePath;
use crate::error::Error;
use std::collections::VecDeque;

/// The most symbolic links in one path, as in Linux (`ELOOP`).
const MAX_LINKS: usize = 40;

/// The most bytes of the targets of these links together (`PATH_MAX`), and the most names: a short path must not lead to a
/// long one.
const MAX_BYTES: usize = 4096;
const MAX_NAMES: usize = 256;

/// The most bytes of paths that links relocate. These paths are held in memory, and no other limit counts them.
const MAX_RELOCATED: usize = 64 << 20;

/// The steps that lead from the root of a tree to a path.
pub(crate) struct Resolution {
    steps: VecDeque<Step>,
    links: usize,
    bytes: usize,
    names: usize,
}

/// A step from one directory to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the root of the tree.
    Root,
    /// To the directory above; at the root, no step.
    Up,
    /// To this name. Where it is a symbolic link, [`Resolution::follow`] takes its target.
    Enter {
        /// The name.
        name: Vec<u8>,
        /// Set when the name comes from a symbolic link. The target of a link must exist.
        from_link: bool,
    },
}

/// The reason for which a path cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// A component is missing.
    Missing(TreePath),
    /// A component is neither a directory nor a symbolic link.
    NotADirectory(TreePath),
    /// There are too many links, or they lead in a circle.
    TooManyLinks,
    /// Too many paths of the image lead through links.
    TooManyRelocated,
}

/// A count of the paths that links relocate.
#[derive(Debug, Default)]
pub(crate) struct RelocatedPaths {
    bytes: usize,
}

impl RelocatedPaths {
    /// Counts the resolved path of an entry, and returns it.
    ///
    /// # Errors
    /// [`Blocked::TooManyRelocated`].
    pub fn count(&mut self, path: &TreePath, resolved: TreePath) -> Result<TreePath, Blocked> {
        if resolved != *path {
            self.bytes += resolved.as_bytes().len();
        }
        if self.bytes > MAX_RELOCATED { Err(Blocked::TooManyRelocated) } else { Ok(resolved) }
    }
}

impl Resolution {
    /// The steps from the root to a path.
    pub fn of(path: &TreePath) -> Self {
        let enter = |name: &[u8]| Step::Enter { name: name.to_vec(), from_link: false };
        Self { steps: path.names().map(enter).collect(), links: 0, bytes: 0, names: 0 }
    }

    /// Returns whether the last step was taken.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty()
    }

    /// Replaces the name that was entered last by the target of a symbolic link.
    ///
    /// # Errors
    /// [`Blocked::TooManyLinks`].
    pub fn follow(&mut self, target: &[u8]) -> Result<(), Blocked> {
        self.links += 1;
        self.bytes += target.len();
        for name in target.split(|byte| *byte == b'/').rev() {
            self.names += 1;
            match name {
                b"" | b"." => {}
                b".." => self.steps.push_front(Step::Up),
                name => self.steps.push_front(Step::Enter { name: name.to_vec(), from_link: true }),
            }
        }
        if target.starts_with(b"/") {
            self.steps.push_front(Step::Root);
        }
        if self.links > MAX_LINKS || self.bytes > MAX_BYTES || self.names > MAX_NAMES {
            return Err(Blocked::TooManyLinks);
        }
        Ok(())
    }
}

impl Iterator for Resolution {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }
}

impl Blocked {
    /// Returns the error for an entry with this path.
    pub fn error(&self, path: &TreePath) -> Error {
        let what = match self {
            Self::Missing(missing) => {
                format!("{path} leads through a symbolic link to {missing}, which is not in the image")
            }
            Self::NotADirectory(file) => format!("{path} would be in {file}, which is not a directory"),
            Self::TooManyRelocated => {
                format!("{path} and others lead through symbolic links to more than 64 MiB of paths")
            }
            Self::TooManyLinks => format!("{path} leads through too many symbolic links, or in a circle"),
        };
        Error::integrity(what).with_hint(
            "the image was made wrongly, or to do harm: links are followed to what is in the image",
        )
    }

    /// Returns the problem of a hard link to this path, as the end of a sentence.
    pub fn of_hard_link(&self) -> &'static str {
        match self {
            Self::Missing(_) => "which is not there",
            Self::NotADirectory(_) => "and that is not in a directory",
            Self::TooManyLinks | Self::TooManyRelocated => {
                "which leads through too many symbolic links, or in a circle"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn enter(name: &str, from_link: bool) -> Step {
        Step::Enter { name: name.into(), from_link }
    }

    #[test]
    fn the_target_of_a_link_comes_before_the_rest_of_the_path() {
        let mut steps = Resolution::of(&path("a/b"));
        assert_eq!(steps.next(), Some(enter("a", false)));
        steps.follow(b"./x//..").unwrap();
        assert_eq!(steps.next(), Some(enter("x", true)));
        steps.follow(b"/y").unwrap();
        let rest: Vec<Step> = steps.by_ref().collect();
        assert_eq!(rest, [Step::Root, enter("y", true), Step::Up, enter("b", false)]);
        assert!(steps.is_done());
    }

    #[test]
    fn a_short_path_does_not_lead_to_a_long_one() {
        let follows = |target: &[u8]| {
            let mut steps = Resolution::of(&path("a"));
            (0..100).take_while(|_| steps.follow(target).is_ok()).count()
        };
        assert_eq!(follows(b"a"), MAX_LINKS);
        assert_eq!(follows(&[b'a'; 1024]), 4);
        assert_eq!(follows(&b"../".repeat(50)), 5);
    }
}
