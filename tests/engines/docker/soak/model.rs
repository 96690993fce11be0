//! The model of one volume: its content, the possible content of its image, and the content that may never be lost.
//!
//! It knows the documents of the plugin, not its code. It learns the actions of containers from journals outside of the
//! volume, and their result from listings that containers make at their start and from the directory.

use super::tree::{Entry, Known, Op, Tree};
use super::volume::VERSION;
use std::collections::BTreeSet;

#[derive(Clone)]
pub struct Model {
    pub known: Known,
    /// The last certain content.
    settled: Tree,
    /// Set if a container has changed the content since it came from the image.
    is_changed: bool,
    is_filled: bool,
    /// Every content that the name of its image has had.
    versions: Vec<Tree>,
    /// Set if a newer image may replace the content.
    is_replaced: bool,
    /// The images for its exports, the current one last.
    pub exports: Vec<Export>,
}

/// An image that a volume is exported to.
#[derive(Clone)]
pub struct Export {
    pub image: String,
    /// The possible contents at the end; `None` means that there is no such image.
    pub allowed: Vec<Option<Tree>>,
}

/// The origin of a listing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A container at its start: it must have the content of the image.
    Container,
    /// The test, on this machine.
    Host,
}

impl Model {
    pub fn new(versions: Vec<Tree>, is_replaced: bool, exports: Vec<Export>) -> Self {
        Self {
            known: Known::default(),
            settled: Tree::new(),
            is_changed: false,
            is_filled: false,
            versions,
            is_replaced,
            exports,
        }
    }

    pub fn has_image(&self) -> bool {
        !self.versions.is_empty()
    }

    /// Set if it was filled with the newest version of its image. Containers do not change the file with the version.
    pub fn is_newest(&self) -> bool {
        let newest = self.versions.last().and_then(|version| version.get(VERSION));
        newest == self.settled.get(VERSION)
    }

    /// Notes a new content of the image's name.
    pub fn push_version(&mut self, tree: Tree) {
        self.versions.push(tree);
    }

    /// Notes that the volume was created again with another export. An export that was due to the old one stays due.
    pub fn export_to(&mut self, image: String) {
        let mut allowed = vec![None];
        if !self.settled.is_empty() {
            allowed.push(Some(self.settled.clone()));
        }
        self.exports.push(Export { image, allowed });
    }

    /// Notes an operation of a container, which may be incomplete.
    pub fn apply(&mut self, op: &Op, run: usize, is_done: bool) {
        self.known.apply(op, run, is_done);
        if let (Op::MountPoint, Some(export)) = (op, self.exports.last_mut()) {
            // This is a change, which the model does not see in the content.
            export.allowed.push(Some(self.settled.clone()));
        }
    }

    /// Compares a listing with the model, and updates the model. Returns the errors.
    ///
    /// Paths that other containers may be writing to are ignored. `copied` is what dockerd copies into an empty volume;
    /// `is_saved` returns `true` if an image in the registry has, or had, the content.
    pub fn observe(
        &mut self,
        found: &Tree,
        by: By,
        apart_from: &BTreeSet<String>,
        copied: &Tree,
        is_saved: impl Fn(&Known) -> bool,
    ) -> Vec<String> {
        let is_due = by == By::Container && self.has_image() && !self.is_filled;
        let differences = self.known.differences(found, apart_from);
        if differences.is_empty() && !is_due {
            self.settle(found, apart_from);
            return vec![];
        }
        let is = |tree: &Tree| Known::exactly(tree.clone()).differences(found, apart_from).is_empty();
        let may_come = self.is_replaced || !self.is_filled;
        if let Some(version) = self.versions.iter().rev().find(|version| may_come && is(version)) {
            let version = version.clone();
            let is_lost = self.is_changed
                && !self.exports.is_empty()
                && !self.known.tree.is_empty()
                && !self.versions.iter().any(|version| self.known.accepts(version))
                && !is_saved(&self.known);
            (self.is_filled, self.is_changed) = (true, false);
            self.known = Known::exactly(version.clone());
            self.settled = version.clone();
            if let Some(export) = self.exports.last_mut() {
                export.allowed.push(Some(version));
            }
            return if is_lost {
                let mut wrong = vec!["it was replaced before it was exported; lost are:".to_owned()];
                wrong.extend(differences);
                wrong
            } else {
                vec![]
            };
        }
        if self.settled.is_empty() && !self.has_image() && !copied.is_empty() {
            // dockerd leaves an empty file if the disk is full.
            let empty = Entry::file(&[]);
            let copies = copied.iter().map(|(path, entry)| {
                let entry = if found.get(path) == Some(&empty) { &empty } else { entry };
                (path.clone(), entry.clone())
            });
            let mut known = self.known.clone();
            known.tree.extend(copies);
            if known.differences(found, apart_from).is_empty() {
                self.known = known;
                self.settle(found, apart_from);
                return vec![];
            }
        }
        self.known = Known::exactly(found.clone());
        self.change(found.clone());
        if differences.is_empty() {
            vec!["a container got it before it was filled".to_owned()]
        } else {
            differences
        }
    }

    fn settle(&mut self, found: &Tree, apart_from: &BTreeSet<String>) {
        self.known = self.known.seen(found, apart_from);
        if self.known.tree != self.settled {
            self.change(self.known.tree.clone());
        }
    }

    /// Notes a new content, which has to be exported.
    fn change(&mut self, tree: Tree) {
        self.settled = tree;
        self.is_changed = true;
        if let Some(export) = self.exports.last_mut() {
            export.allowed = vec![Some(self.settled.clone())];
        }
    }
}

impl Export {
    /// Returns the errors of the content of an image.
    pub fn judge(&self, found: Option<&Tree>) -> Option<Vec<String>> {
        if self.allowed.iter().any(|allowed| allowed.as_ref() == found) {
            return None;
        }
        let nothing = Tree::new();
        let expected = self.allowed.iter().flatten().next_back().unwrap_or(&nothing);
        let mut wrong = vec![match found {
            Some(_) => format!("{} holds something else:", self.image),
            None => format!("{} is not there:", self.image),
        }];
        let found = found.unwrap_or(&nothing);
        wrong.extend(Known::exactly(expected.clone()).differences(found, &BTreeSet::new()));
        Some(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        files.iter().map(|(path, content)| (path.to_string(), Entry::file(content.as_bytes()))).collect()
    }

    fn model() -> Model {
        let exports = vec![Export { image: "h/a:v1".to_owned(), allowed: vec![None] }];
        Model::new(vec![tree(&[("image", "1")])], true, exports)
    }

    fn observe(model: &mut Model, found: &Tree, by: By, is_saved: bool) -> Vec<String> {
        model.observe(found, by, &BTreeSet::new(), &Tree::new(), |_| is_saved)
    }

    fn write(path: &str, content: &str) -> Op {
        Op::Write { path: path.to_owned(), content: content.as_bytes().into() }
    }

    #[test]
    fn what_a_container_wrote_must_be_in_the_volume_and_in_the_image() {
        let mut model = model();
        let image = tree(&[("image", "1")]);
        assert!(observe(&mut model, &image, By::Container, false).is_empty());
        assert_eq!(model.exports[0].judge(None), None, "nothing was changed");
        model.apply(&write("file", "new"), 0, true);
        let new = tree(&[("file", "new"), ("image", "1")]);
        assert!(observe(&mut model, &new, By::Host, false).is_empty());
        assert_eq!(model.exports[0].judge(Some(&new)), None);
        assert!(model.exports[0].judge(Some(&image)).is_some());
        assert!(model.exports[0].judge(None).is_some());
        assert!(!observe(&mut model, &image, By::Container, false).is_empty(), "lost");
    }

    #[test]
    fn what_was_exported_may_be_replaced_and_an_interrupted_write_may_be_a_part_of_a_file() {
        let mut model = model();
        observe(&mut model, &tree(&[("image", "1")]), By::Container, false);
        model.apply(&write("file", "content"), 0, false);
        for (found, is_right) in [("con", true), ("", true), ("content", true), ("other", false)] {
            let found = tree(&[("file", found), ("image", "1")]);
            assert_eq!(model.known.accepts(&found), is_right, "{found:?}");
        }
        observe(&mut model, &tree(&[("file", "con"), ("image", "1")]), By::Host, false);
        assert!(observe(&mut model, &tree(&[("image", "1")]), By::Container, true).is_empty());
        assert!(!observe(&mut model, &tree(&[]), By::Container, true).is_empty());
    }

    #[test]
    fn what_docker_copies_may_be_an_empty_file_after_a_full_disk() {
        for (found, is_right) in [("copied", true), ("", true), ("other", false)] {
            let (copied, found) = (tree(&[("file", "copied")]), tree(&[("file", found)]));
            let mut model = Model { versions: vec![], ..model() };
            let wrong = model.observe(&found, By::Host, &BTreeSet::new(), &copied, |_| false);
            assert_eq!(wrong.is_empty(), is_right, "{wrong:?}");
        }
    }

    #[test]
    fn a_container_never_gets_a_volume_that_was_not_filled() {
        assert!(!observe(&mut model(), &tree(&[]), By::Container, false).is_empty());
        assert!(observe(&mut model(), &tree(&[]), By::Host, false).is_empty());
    }
}
