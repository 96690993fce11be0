//! Resolution of paths that lead through symbolic links: beneath the root of a tree, as after `chroot`.
//!
//! What is here knows the rules and no tree. [`Extractor`](super::Extractor) takes the steps by descriptors,
//! [`Overlay`](super::Overlay) in memory, so both mean the same by a path.

use super::TreePath;
use crate::error::Error;
use std::collections::VecDeque;

/// The most symbolic links that one path may lead through, as Linux has it (`ELOOP`).
const MOST_LINKS: usize = 40;

/// The most bytes that the targets of these links may have together (`PATH_MAX`), and the most names: a short path must not
/// stand for a long one.
const MOST_BYTES: usize = 4096;
const MOST_NAMES: usize = 256;

/// The most bytes of paths that a tree may have in other places than its image says: they are remembered, and nothing else
/// counts them.
const MOST_MOVED: usize = 64 << 20;

/// The steps that lead from the root of a tree to a path.
pub(crate) struct Resolution {
    steps: VecDeque<Step>,
    links: usize,
    bytes: usize,
    names: usize,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the root of the tree.
    Root,
    /// To the directory above; at the root, nowhere.
    Up,
    /// To this name. Where it is a symbolic link, [`Resolution::follow`] takes its target.
    Enter {
        /// The name.
        name: Vec<u8>,
        /// Whether a symbolic link says so. What such a link leads to must be there.
        from_link: bool,
    },
}

/// Something that a path cannot lead through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// There is nothing.
    Missing(TreePath),
    /// It is neither a directory nor a symbolic link.
    NotADirectory(TreePath),
    /// The links are too many, or lead in a circle.
    TooManyLinks,
    /// Too much of the image leads through links.
    TooMuchMoved,
}

/// Counts what is in another place than its path says.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    bytes: usize,
}

impl Moved {
    /// Takes note of the place of an entry with this path, and gives it back.
    ///
    /// # Errors
    /// [`Blocked::TooMuchMoved`].
    pub fn count(&mut self, path: &TreePath, place: TreePath) -> Result<TreePath, Blocked> {
        if place != *path {
            self.bytes += place.as_bytes().len();
        }
        match self.bytes > MOST_MOVED {
            true => Err(Blocked::TooMuchMoved),
            false => Ok(place),
        }
    }
}

impl Resolution {
    /// From the root to this path.
    pub fn of(path: &TreePath) -> Self {
        let enter = |name: &[u8]| Step::Enter { name: name.to_vec(), from_link: false };
        Self { steps: path.names().map(enter).collect(), links: 0, bytes: 0, names: 0 }
    }

    /// Whether the last step was taken.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty()
    }

    /// Puts the target of a symbolic link in place of the name that was entered last.
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
        match self.links > MOST_LINKS || self.bytes > MOST_BYTES || self.names > MOST_NAMES {
            true => Err(Blocked::TooManyLinks),
            false => Ok(()),
        }
    }
}

impl Iterator for Resolution {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }
}

impl Blocked {
    /// The error for an entry whose path leads there.
    pub fn error(&self, path: &TreePath) -> Error {
        let what = match self {
            Self::Missing(place) => {
                format!("{path} leads through a symbolic link to {place}, which is not in the image")
            }
            Self::NotADirectory(place) => format!("{path} would be in {place}, which is not a directory"),
            Self::TooMuchMoved => {
                format!("{path} and others lead through symbolic links to more than 64 MiB of paths")
            }
            Self::TooManyLinks => format!("{path} leads through too many symbolic links, or in a circle"),
        };
        Error::integrity(what).with_hint(
            "the image was made wrongly, or to do harm: links are followed to what is in the image",
        )
    }

    /// What is wrong with a hard link whose other name leads there.
    pub fn of_hard_link(&self) -> &'static str {
        match self {
            Self::Missing(_) => "which is not there",
            Self::NotADirectory(_) => "and that is not in a directory",
            Self::TooManyLinks | Self::TooMuchMoved => {
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
    fn a_short_path_does_not_stand_for_a_long_one() {
        let follows = |target: &[u8]| {
            let mut steps = Resolution::of(&path("a"));
            (0..100).take_while(|_| steps.follow(target).is_ok()).count()
        };
        assert_eq!(follows(b"a"), MOST_LINKS);
        assert_eq!(follows(&[b'a'; 1024]), 4);
        assert_eq!(follows(&b"../".repeat(50)), 5);
    }
}
