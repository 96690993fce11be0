//! A chain of images: the first packed in full, each following one as the changes since the one before it.

use super::changes::{CHANGES, Change};
use super::judge::{assert_identical, assert_identical_with_holes};
use super::place::Place;
use super::tree::RandomTree;
use crate::engines::program::Finished;
use serde_json::Value;
use std::path::PathBuf;

/// How the images of a chain are packed and checked.
pub struct Plan {
    /// Options of each pack.
    pub options: &'static [&'static str],
    /// Further options of the packs that have a base.
    pub with_base: &'static [&'static str],
    /// The sources after `tree`, if it is not at the root of the image by itself.
    pub sources: &'static [&'static str],
    /// The kinds of changes of each step.
    pub kinds: Vec<Change>,
    /// The number of entries at the start, and of changes of each step.
    pub size: (usize, usize),
    /// The number of files of several megabytes.
    pub large_files: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            options: &[],
            with_base: &["--max-dead", "100"],
            sources: &["tree"],
            kinds: CHANGES.to_vec(),
            size: (25, 8),
            large_files: 1,
        }
    }
}

/// A random tree with an image `N` for each of its versions, and what a fresh unpack of it gives in `fresh-N`.
pub struct Chain {
    pub place: Place,
    pub tree: RandomTree,
    plan: Plan,
    /// The names of the images.
    pub images: Vec<String>,
}

impl Chain {
    /// Makes the tree and its first image.
    pub fn start(seed: u64, plan: Plan) -> Self {
        let place = Place::new();
        let tree = place.tree(seed, plan.size.0, plan.large_files);
        let mut chain = Self { place, tree, plan, images: Vec::new() };
        chain.pack(&[], "oci:layout:0").succeeded();
        chain.images.push("oci:layout:0".to_owned());
        chain.unpack_and_compare();
        chain
    }

    /// Makes a chain of this number of images.
    pub fn of(seed: u64, images: usize, plan: Plan) -> Self {
        let mut chain = Self::start(seed, plan);
        (1..images).for_each(|_| chain.grow());
        chain
    }

    /// Packs the tree as it is.
    pub fn pack(&self, more: &[&str], image: &str) -> Finished {
        let with_base = match more {
            [] => vec![],
            more => [&["--allow-shrink"], self.plan.with_base, more].concat(),
        };
        self.place.volio(&[&["pack"], self.plan.options, &with_base, &[image], self.plan.sources].concat())
    }

    pub fn last(&self) -> &str {
        self.images.last().unwrap()
    }

    /// The directory with a fresh unpack of an image.
    pub fn fresh(&self, number: usize) -> PathBuf {
        self.place.path(&format!("fresh-{number}"))
    }

    /// Changes the tree, packs it over the last image, and compares the result.
    pub fn grow(&mut self) {
        self.tree.step_of(&self.plan.kinds.clone(), self.plan.size.1);
        let (number, last) = (self.images.len(), self.last().to_owned());
        // Over the image that the name has, over another name of the same place, and over an image of another place.
        let image = match self.tree.random.below(4) {
            0 => format!("oci:layout-{number}:v"),
            1 => format!("oci-archive:archive-{number}.tar:v"),
            _ => format!("oci:layout:{number}"),
        };
        if image.starts_with("oci:layout:") && self.tree.random.one_in(2) {
            self.place.volio(&["copy", &last, &image]).succeeded();
            self.pack(&["--incremental"], &image).succeeded();
        } else {
            self.pack(&["--base", &last], &image).succeeded();
        }
        self.images.push(image);
        self.unpack_and_compare();
    }

    /// Unpacks the last image, and compares it with the tree, or with what a full pack with the same options gives.
    fn unpack_and_compare(&self) {
        let (image, fresh) = (self.last(), self.fresh(self.images.len() - 1));
        self.place.volio(&["unpack", image, fresh.to_str().unwrap()]).succeeded();
        if self.images.len() > 1 && !self.gives_the_tree() {
            self.pack(&[], "oci:full:v").succeeded();
            let full = self.place.path(&format!("full-{}", self.images.len()));
            self.place.volio(&["unpack", "oci:full:v", full.to_str().unwrap()]).succeeded();
            assert_identical_with_holes(&full, &fresh);
        } else if self.gives_the_tree() {
            assert_identical(self.tree.root(), &fresh);
        }
    }

    /// Returns whether the options and sources make an image of the tree as it is.
    fn gives_the_tree(&self) -> bool {
        let changing = ["--exclude", "--normalize", "--chown"];
        self.plan.sources == ["tree"] && !self.plan.options.iter().any(|option| changing.contains(option))
    }

    /// The manifest of an image, for the first platform.
    pub fn layers(&self, image: &str) -> Vec<Value> {
        let inspected = self.place.json(&["inspect", image]);
        inspected["images"][0]["layers"].as_array().unwrap().clone()
    }
}

impl Place {
    /// Runs the program and returns the document that it prints.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.volio(&[arguments, &["--format", "json"]].concat()).succeeded();
        serde_json::from_str(&printed).unwrap()
    }
}
