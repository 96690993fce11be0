//! Packs of what changed: every image shows exactly its tree, and the delta has what it must and nothing else. Comments
//! name the failures that other programs were reported to have.

mod bases;
mod comparison;
mod limits;
mod links;
mod races;
mod registries;

use super::layers::publish;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use volio::image::{Image, ReadOptions};
use volio::layer::{Item, Whiteout};
use volio::oci::Document;
use volio::pack::{
    Base, ImageForm, Incremental, IncrementalOptions, Options, Packed, ShrinkRule, pack_incremental,
};
use volio::progress::{Progress, Silent};
use volio::tree::SourceSpec;
use volio::unpack::{self, unpack};
use volio::{Access, Location};

/// A time long ago, in seconds: the mtime of everything that a test does not touch.
const OLD: i64 = 1_500_000_000;
/// The mtime of the newest entry of each first image, in seconds.
const NEWEST: i64 = 1_600_000_000;

/// A tree, and a layout with its images.
struct Series(TempDir);

impl Series {
    /// A tree with directories, files and links, all of them old, except for one.
    fn new() -> Self {
        let series = Self(tempfile::tempdir().unwrap());
        for directory in ["d/e", "empty", "other"] {
            fs::create_dir_all(series.at(directory)).unwrap();
        }
        for file in ["d/a", "d/b", "d/e/c", "other/f", "root", "newest"] {
            fs::write(series.at(file), file).unwrap();
        }
        fs::write(series.at("other/large"), crate::registry::noise(100_000)).unwrap();
        std::os::unix::fs::symlink("d/a", series.at("link")).unwrap();
        series.settle();
        series
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join("tree").join(path)
    }

    /// Gives everything an old time, and one file a newer one.
    fn settle(&self) {
        for path in crate::snapshot::snapshot(&self.at("")).into_keys() {
            set_time(&self.at("").join(path), OLD, 5);
        }
        set_time(&self.at("newest"), NEWEST, 5);
    }

    /// Writes a file with a time of its own, and gives its directory back its old time.
    fn write(&self, path: &str, content: impl AsRef<[u8]>, seconds: i64) {
        fs::write(self.at(path), content).unwrap();
        set_time(&self.at(path), seconds, 7);
        set_time(self.at(path).parent().unwrap(), OLD, 5);
    }

    fn location(&self, tag: &str) -> Location {
        format!("oci:{}:{tag}", self.0.path().join("layout").display()).parse().unwrap()
    }

    /// Packs the tree to the tag `t`, over the image that it has.
    fn pack(&self) -> Packed {
        self.pack_with(|_, _| {}).unwrap()
    }

    /// Packs the tree with other options.
    fn pack_with(&self, change: impl FnOnce(&mut Options, &mut IncrementalOptions)) -> volio::Result<Packed> {
        self.pack_watched(&Silent, change)
    }

    fn pack_watched(
        &self,
        progress: &dyn Progress,
        change: impl FnOnce(&mut Options, &mut IncrementalOptions),
    ) -> volio::Result<Packed> {
        let base = Base::current(self.location("t"), Access::default());
        pack_over(&base, &self.location("t"), &[SourceSpec::new(self.at(""))], progress, change)
    }

    /// Returns the document that a tag means.
    fn resolve(&self, tag: &str) -> Document {
        self.location(tag).source(&Access::default()).unwrap().resolve().unwrap()
    }

    /// Unpacks the image of the tag, which must be the tree.
    #[track_caller]
    fn assert_shows_tree(&self) {
        assert_shows(&self.location("t"), &self.at(""));
    }

    /// Returns the items of the last layer: `d/` for a directory, `f` for anything else, `-f` for a removal, `-d/*` for an
    /// opaque whiteout.
    fn last_layer(&self) -> Vec<String> {
        let (all, count) = layers(&self.location("t"));
        all[count - 1].clone()
    }
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Packs with options that do not depend on how small the trees of tests are.
fn pack_over(
    base: &Base,
    to: &Location,
    sources: &[SourceSpec],
    progress: &dyn Progress,
    change: impl FnOnce(&mut Options, &mut IncrementalOptions),
) -> volio::Result<Packed> {
    let mut options = Options::default();
    let mut incremental =
        IncrementalOptions { max_dead: 100, shrink_rule: ShrinkRule::Any, ..IncrementalOptions::default() };
    change(&mut options, &mut incremental);
    let destination = to.destination(&Access::default())?;
    pack_incremental(destination.as_ref(), base, sources, &options, &incremental, progress)
}

#[track_caller]
fn assert_shows(image: &Location, tree: &Path) {
    let source = image.source(&Access::default()).unwrap();
    let target = tempfile::tempdir().unwrap();
    unpack(source.as_ref(), target.path(), &unpack::Options::default(), &Silent).unwrap();
    crate::snapshot::assert_same(tree, target.path());
    volio::verify::verify(source.as_ref(), &volio::verify::Options::default(), &Silent).unwrap();
}

/// Returns the items of all layers, and the number of layers.
fn layers(image: &Location) -> (Vec<Vec<String>>, usize) {
    let source = image.source(&Access::default()).unwrap();
    let opened = Image::open(source.as_ref(), &ReadOptions::default(), &Silent).unwrap();
    let mut all = Vec::new();
    for layer in opened.layers() {
        let mut items = Vec::new();
        let mut budget = volio::layer::Budget::default();
        layer
            .read_items(&mut budget, |item, _| {
                items.push(match item {
                    Item::Entry(entry) if entry.kind == volio::EntryKind::Directory => {
                        format!("{}/", entry.path.as_path().display())
                    }
                    Item::Entry(entry) => entry.path.as_path().display().to_string(),
                    Item::Whiteout(Whiteout::Entry(path)) => format!("-{}", path.as_path().display()),
                    Item::Whiteout(Whiteout::Opaque(path)) => format!("-{}/*", path.as_path().display()),
                });
                Ok(())
            })
            .unwrap();
        all.push(items);
    }
    let count = all.len();
    (all, count)
}

/// Returns the numbers of added, changed, removed and unchanged entries.
fn counts(packed: &Packed) -> (u64, u64, u64, u64) {
    let Incremental { added, changed, removed, unchanged, .. } = *packed.incremental.as_ref().unwrap();
    (added, changed, removed, unchanged)
}

#[track_caller]
fn assert_form(packed: &Packed, form: &ImageForm) {
    assert_eq!(packed.incremental.as_ref().unwrap().form, *form);
}

#[track_caller]
fn assert_delta(packed: &Packed) {
    assert_form(packed, &ImageForm::Delta);
}
