//! Trees that change while they are packed: an image never holds half of a file's old content and half of its new.

use super::{memory, unpack};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use volio::pack::{Options, Packed, pack};
use volio::progress::{Phase, Progress, Silent, Task, TaskInfo};
use volio::transport::memory::Memory;
use volio::tree::{OnChange, SourceSpec, WalkOptions};

/// Large enough that it is archived while it is read.
const LARGE: usize = 3 << 20;

/// A writer that changes a file while it is packed: once in every attempt, in at most `times` attempts.
struct Writer {
    file: PathBuf,
    times: u32,
    written: AtomicU32,
    warnings: Mutex<Vec<String>>,
}

impl Progress for &'static Writer {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        let what = info.to_string();
        // The file is the first in the tree, and so it is in the first layer.
        if what == "packing" || what.starts_with("packing layer 1 of") {
            Box::new(Writing { writer: self, done: AtomicU32::new(0) })
        } else {
            Box::new(Silent)
        }
    }

    fn warn(&self, message: &str) {
        self.warnings.lock().unwrap().push(message.to_owned());
    }
}

struct Writing {
    writer: &'static Writer,
    done: AtomicU32,
}

impl Task for Writing {
    fn advance(&self, _: u64) {
        let first = self.done.fetch_add(1, Ordering::Relaxed) == 0;
        if first && self.writer.written.fetch_add(1, Ordering::Relaxed) < self.writer.times {
            fs::OpenOptions::new().append(true).open(&self.writer.file).unwrap().write_all(b"more").unwrap();
        }
    }

    fn skip(&self) {}
}

/// Packs a tree with one file that changes in that many attempts.
fn pack_while_written(
    tree: &Path,
    on_change: OnChange,
    times: u32,
) -> (Memory, volio::Result<Packed>, Vec<String>) {
    pack_in_layers_while_written(tree, on_change, times, Options::default().layer_size)
}

fn pack_in_layers_while_written(
    tree: &Path,
    on_change: OnChange,
    times: u32,
    layer_size: u64,
) -> (Memory, volio::Result<Packed>, Vec<String>) {
    fs::write(tree.join("log"), vec![b'x'; LARGE]).unwrap();
    fs::write(tree.join("quiet"), "quiet").unwrap();
    let (file, written, warnings) = (tree.join("log"), AtomicU32::new(0), Mutex::default());
    let writer: &'static Writer = Box::leak(Box::new(Writer { file, times, written, warnings }));
    let tree_options = WalkOptions { on_change, ..WalkOptions::default() };
    let options = Options { tree: tree_options, layer_size, ..Options::default() };
    let image = memory();
    let packed = pack(&image, &[SourceSpec::new(tree)], &options, &writer);
    let warnings = writer.warnings.lock().unwrap().clone();
    (image, packed, warnings)
}

#[test]
fn a_file_that_changes_once_is_packed_as_it_is_afterwards() {
    let (tree, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (image, packed, warnings) = pack_while_written(tree.path(), OnChange::Retry, 2);
    assert_eq!(packed.unwrap().changed_skipped, 0);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("/log changed while it was read: it grew from"), "{warnings:?}");
    unpack(&image, target.path()).unwrap();
    crate::snapshot::assert_same(tree.path(), target.path());
}

#[test]
fn a_file_that_always_changes_is_an_error_that_names_it_and_publishes_nothing() {
    for (on_change, attempts) in [(OnChange::Retry, 4), (OnChange::Fail, 1)] {
        let tree = tempfile::tempdir().unwrap();
        let (image, packed, warnings) = pack_while_written(tree.path(), on_change, u32::MAX);
        let error = packed.unwrap_err();
        assert!(error.to_string().contains("/log changed while it was read: it grew from"), "{error}");
        assert!(error.hint().unwrap().contains("--on-change skip"));
        assert_eq!(warnings.len(), attempts - 1);
        assert!(volio::transport::Source::resolve(&image).is_err());
    }
}

#[test]
fn a_file_that_always_changes_can_be_left_out_and_is_counted_and_named() {
    let (tree, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (image, packed, warnings) = pack_while_written(tree.path(), OnChange::Skip, u32::MAX);
    let packed = packed.unwrap();
    assert_eq!((packed.changed_skipped, packed.entries), (1, 2));
    assert_eq!(packed.skipped[0].path.to_string(), "/log");
    assert!(warnings.last().unwrap().starts_with("/log is not in the image: it grew from"), "{warnings:?}");
    unpack(&image, target.path()).unwrap();
    assert!(!target.path().join("log").exists() && target.path().join("quiet").exists());
}

/// Some megabytes of files after the one that changes.
fn more_files(tree: &Path) {
    (0..60u8).for_each(|n| fs::write(tree.join(format!("more-{n:02}")), vec![n; 100_000]).unwrap());
}

#[test]
fn of_several_layers_only_the_one_with_the_file_that_changed_is_made_again() {
    let (tree, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    more_files(tree.path());
    let (image, packed, warnings) = pack_in_layers_while_written(tree.path(), OnChange::Retry, 2, 2 << 20);
    let packed = packed.unwrap();
    assert!(packed.layers.len() > 3, "{}", packed.layers.len());
    assert_eq!((packed.changed_skipped, packed.entries), (0, 63));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    unpack(&image, target.path()).unwrap();
    crate::snapshot::assert_same(tree.path(), target.path());
}

#[test]
fn of_several_layers_the_file_that_always_changes_is_left_out_once() {
    let (tree, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    more_files(tree.path());
    let (image, packed, _) = pack_in_layers_while_written(tree.path(), OnChange::Skip, u32::MAX, 2 << 20);
    let packed = packed.unwrap();
    assert_eq!((packed.changed_skipped, packed.entries), (1, 62));
    unpack(&image, target.path()).unwrap();
    assert!(!target.path().join("log").exists() && target.path().join("more-59").exists());

    let (image, packed, _) = pack_in_layers_while_written(tree.path(), OnChange::Fail, u32::MAX, 2 << 20);
    assert!(packed.unwrap_err().to_string().contains("/log changed while it was read"));
    assert!(volio::transport::Source::resolve(&image).is_err());
}

/// Moves a file, once, when the first bytes were read.
struct Mover {
    from: PathBuf,
    to: PathBuf,
    warnings: Mutex<Vec<String>>,
}

impl Progress for &'static Mover {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        if info.phase == Phase::Packing { Box::new(*self) } else { Box::new(Silent) }
    }

    fn warn(&self, message: &str) {
        self.warnings.lock().unwrap().push(message.to_owned());
    }
}

impl Task for &'static Mover {
    fn advance(&self, _: u64) {
        let _ = fs::rename(&self.from, &self.to);
    }

    fn skip(&self) {}
}

#[test]
fn a_file_that_is_moved_past_the_reader_is_in_the_image() {
    let (tree, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["a/first", "z/moved"] {
        fs::create_dir_all(tree.path().join(name).parent().unwrap()).unwrap();
        fs::write(tree.path().join(name), name).unwrap();
    }
    let (from, to) = (tree.path().join("z/moved"), tree.path().join("a/moved"));
    let mover: &'static Mover = Box::leak(Box::new(Mover { from, to, warnings: Mutex::default() }));
    let image = memory();
    pack(&image, &[SourceSpec::new(tree.path())], &Options::default(), &mover).unwrap();
    unpack(&image, target.path()).unwrap();
    assert_eq!(fs::read(target.path().join("a/moved")).unwrap(), b"z/moved");
    let warnings = mover.warnings.lock().unwrap();
    assert!(warnings[0].contains("/a/moved changed while it was read: it was moved"), "{warnings:?}");
    assert!(warnings[0].ends_with("the tree is packed again"), "{warnings:?}");
}
