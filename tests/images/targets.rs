//! Targets that are not empty: they hold the files of an earlier run, another image, or foreign files.

use super::layers::{layer, publish};
use super::memory;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use volio::Result;
use volio::error::Kind as ErrorKind;
use volio::layer::Layer;
use volio::oci::{Descriptor, Document};
use volio::progress::Silent;
use volio::stream::Unverified;
use volio::transport::Source;
use volio::transport::memory::Memory;
use volio::tree::ExtractOptions;
use volio::unpack::{IfPresent, Options, Outcome, Unpacked, WriteMode, unpack};

const MERGE: WriteMode = WriteMode::Merge { replace_directories: false };

/// An image of these layers.
fn image(layers: &[&[&str]]) -> Memory {
    let image = memory();
    let layers: Vec<Layer> = layers.iter().map(|lines| layer(&image, lines)).collect();
    publish(&image, &layers);
    image
}

/// A place that counts what it is asked, and breaks off when it was asked for so many layers.
struct Breaking<'a> {
    image: &'a Memory,
    layers: usize,
    asked: AtomicUsize,
    opened: AtomicUsize,
}

impl<'a> Breaking<'a> {
    fn after(layers: usize, image: &'a Memory) -> Self {
        Self { image, layers, asked: AtomicUsize::new(0), opened: AtomicUsize::new(0) }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Source for Breaking<'_> {
    fn resolve(&self) -> Result<Document> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.image.resolve()
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let is_layer = descriptor.media_type.contains("layer");
        if is_layer && self.opened.fetch_add(1, Ordering::Relaxed) >= self.layers {
            return Err(volio::Error::failed("the network is gone"));
        }
        self.image.open(descriptor)
    }
}

fn quick() -> Options {
    Options { tree: ExtractOptions { sync: false, ..ExtractOptions::default() }, ..Options::default() }
}

fn run(from: &dyn Source, target: &Path, options: &Options) -> Result<Unpacked> {
    unpack(from, target, options, &Silent)
}

#[track_caller]
fn refused(from: &dyn Source, target: &Path, options: &Options) -> volio::Error {
    let error = run(from, target, options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    error
}

/// The names of all that is in a directory, with the content of files.
fn seen(target: &Path) -> Vec<String> {
    let seen = crate::snapshot::snapshot(target).into_iter().skip(1);
    seen.filter(|(_, seen)| seen.kind != "directory")
        .map(|(path, seen)| format!("{}={}", path.display(), String::from_utf8_lossy(&seen.content)))
        .collect()
}

/// A target in which an unpack was interrupted after the first layer.
fn interrupted(image: &Memory) -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    run(&Breaking::after(1, image), target.path(), &quick()).unwrap_err();
    assert!(!seen(target.path()).is_empty());
    target
}

const LOWER: &[&str] = &["a/", "a/1=lower", "a/2=lower", "gone/", "gone/x=lower"];
const UPPER: &[&str] = &["a/", "a/2=upper", ".wh.gone"];

#[test]
fn running_again_costs_one_request_and_changes_nothing() {
    let (image, target) = (image(&[LOWER, UPPER]), tempfile::tempdir().unwrap());
    assert_eq!(run(&image, target.path(), &quick()).unwrap().outcome, Outcome::Unpacked);
    fs::write(target.path().join("a/1"), "changed").unwrap();
    let place = Breaking::after(9, &image);
    let again = run(&place, target.path(), &quick()).unwrap();
    assert_eq!((again.outcome, place.asked()), (Outcome::Present, 1));
    assert_eq!(again.digest, image.resolve().unwrap().descriptor().digest);
    assert_eq!(seen(target.path()), ["a/1=changed", "a/2=upper"]);
    let looked = run(&image, target.path(), &Options { if_present: IfPresent::Rewrite, ..quick() }).unwrap();
    assert_eq!(looked.outcome, Outcome::Unpacked);
    assert_eq!(seen(target.path()), ["a/1=lower", "a/2=upper"]);
}

#[test]
fn what_was_emptied_is_filled_again() {
    let (image, target) = (image(&[LOWER]), tempfile::tempdir().unwrap());
    run(&image, target.path(), &quick()).unwrap();
    fs::remove_dir_all(target.path().join("a")).unwrap();
    fs::remove_dir_all(target.path().join("gone")).unwrap();
    for (if_present, outcome) in
        [(IfPresent::KeepAny, Outcome::Unpacked), (IfPresent::Skip, Outcome::Present)]
    {
        let again = run(&image, target.path(), &Options { if_present, ..quick() }).unwrap();
        assert_eq!(again.outcome, outcome);
    }
    assert_eq!(seen(target.path()).len(), 3);
}

#[test]
fn running_again_after_an_interruption_finishes_it() {
    let image = image(&[LOWER, UPPER]);
    let target = interrupted(&image);
    let again = run(&image, target.path(), &quick()).unwrap();
    assert_eq!((again.outcome, again.removed), (Outcome::Unpacked, 0));
    assert_eq!(seen(target.path()), ["a/1=lower", "a/2=upper"]);
    assert!(!target.path().join("gone").exists(), "also what the interrupted run made");
    assert_eq!(run(&image, target.path(), &quick()).unwrap().outcome, Outcome::Present);
}

#[test]
fn another_image_after_an_interruption_starts_over() {
    let (first, second) = (image(&[LOWER, UPPER]), image(&[&["b=second"]]));
    for options in
        [quick(), Options { if_present: IfPresent::KeepAny, ..quick() }, Options { write: MERGE, ..quick() }]
    {
        let target = interrupted(&first);
        let again = run(&second, target.path(), &options).unwrap();
        assert_eq!((again.outcome, again.removed), (Outcome::Unpacked, 5));
        assert_eq!(seen(target.path()), ["b=second"]);
        assert!(!target.path().join("a").exists());
    }
    // Other options make another content.
    let target = interrupted(&first);
    let tree = ExtractOptions { group_access: true, ..quick().tree };
    assert_eq!(run(&first, target.path(), &Options { tree, ..quick() }).unwrap().removed, 5);
}

#[test]
fn what_was_put_into_a_target_after_an_interruption_is_not_taken_away() {
    let (first, second) = (image(&[LOWER, UPPER]), image(&[&["b=second"]]));
    let target = interrupted(&first);
    fs::write(target.path().join("mine"), "mine").unwrap();
    fs::write(target.path().join("a/mine"), "mine").unwrap();
    fs::write(target.path().join("a/1"), "changed").unwrap();
    fs::rename(target.path().join("gone"), target.path().join("kept")).unwrap();
    let expected = ["a/1=changed", "a/mine=mine", "kept/x=lower", "mine=mine"];
    refused(&second, target.path(), &quick());
    assert_eq!(seen(target.path()), expected);
    // Also the next time, when nothing says any more what the first run has made.
    refused(&second, target.path(), &quick());
    assert_eq!(seen(target.path()), expected);
    run(&second, target.path(), &Options { write: MERGE, ..quick() }).unwrap();
    assert_eq!(seen(target.path()), ["a/1=changed", "a/mine=mine", "b=second", "kept/x=lower", "mine=mine"]);
    assert!(!target.path().join(".volio.made").exists());
}

/// A slow source: a file appears in the target before it answers.
struct Slow<'a> {
    image: &'a Memory,
    target: &'a Path,
    /// Delays the manifest instead of the name.
    is_manifest: bool,
}

impl Slow<'_> {
    fn meanwhile(&self) {
        fs::create_dir_all(self.target).unwrap();
        fs::write(self.target.join("a"), "mine").unwrap();
    }
}

impl Source for Slow<'_> {
    fn resolve(&self) -> Result<Document> {
        if !self.is_manifest {
            self.meanwhile();
        }
        self.image.resolve()
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        if self.is_manifest {
            self.meanwhile();
        }
        self.image.open(descriptor)
    }
}

#[test]
fn what_appears_in_a_target_while_the_registry_answers_is_not_extracted_over() {
    let image = image(&[&["a=theirs", "b=theirs"]]);
    for is_manifest in [false, true] {
        for is_there in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let target = directory.path().join("target");
            if is_there {
                fs::create_dir(&target).unwrap();
            }
            let slow = Slow { image: &image, target: &target, is_manifest };
            refused(&slow, &target, &quick());
            assert_eq!(seen(&target), ["a=mine"]);
            let merged = run(&slow, &target, &Options { write: MERGE, ..quick() }).unwrap();
            assert_eq!((merged.outcome, seen(&target).len()), (Outcome::Unpacked, 2));
        }
    }
}

#[test]
fn what_was_there_before_an_interruption_is_never_taken_away() {
    let (first, second) = (image(&[LOWER, UPPER]), image(&[&["b=second"]]));
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("mine"), "mine").unwrap();
    let merge = Options { write: MERGE, ..quick() };
    run(&Breaking::after(1, &first), target.path(), &merge).unwrap_err();
    let error = refused(&second, target.path(), &quick());
    assert!(error.to_string().contains("a part of the image sha256:"), "{error}");
    assert_eq!(run(&first, target.path(), &quick()).unwrap().outcome, Outcome::Unpacked, "it is finished");
    assert_eq!(seen(target.path()), ["a/1=lower", "a/2=upper", "mine=mine"]);
    run(&second, target.path(), &merge).unwrap();
    assert_eq!(seen(target.path()), ["a/1=lower", "a/2=upper", "b=second", "mine=mine"]);
}

#[test]
fn a_complete_image_makes_way_for_no_other_and_may_be_kept() {
    let (first, second) = (image(&[LOWER]), image(&[&["b=second"]]));
    let target = tempfile::tempdir().unwrap();
    let keep = Options { if_present: IfPresent::KeepAny, ..quick() };
    let digest = run(&first, target.path(), &keep).unwrap().digest;
    let error = refused(&second, target.path(), &quick());
    assert!(error.to_string().contains(&digest.to_string()) && error.hint().unwrap().contains("--keep"));
    let place = Breaking::after(0, &second);
    let kept = run(&place, target.path(), &keep).unwrap();
    assert_eq!((kept.outcome, kept.digest, place.asked()), (Outcome::Kept, digest, 0));
    assert_eq!(seen(target.path()).len(), 3);
    // Content without a record is not kept.
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("mine"), "").unwrap();
    refused(&first, foreign.path(), &keep);
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1);
}

#[test]
fn whiteouts_spare_what_was_there_also_opaque_ones() {
    let layers: [&[&str]; 2] =
        [&["d/", "d/theirs=1", "e=1"], &["d/", "d/.wh..wh..opq", ".wh..wh..opq", ".wh.mine", "d/new=2"]];
    let (image, target) = (image(&layers), tempfile::tempdir().unwrap());
    fs::create_dir(target.path().join("d")).unwrap();
    for name in ["mine", "d/mine"] {
        fs::write(target.path().join(name), "mine").unwrap();
    }
    refused(&image, target.path(), &quick());
    run(&image, target.path(), &Options { write: MERGE, ..quick() }).unwrap();
    assert_eq!(seen(target.path()), ["d/mine=mine", "d/new=2", "mine=mine"]);
}

#[test]
fn an_atomic_target_appears_at_once_or_not_at_all() {
    let (first, second) = (image(&[LOWER, UPPER]), image(&[&["b=second"]]));
    let dir = tempfile::tempdir().unwrap();
    let (target, stage) = (dir.path().join("new/target"), dir.path().join("new/.target.volio"));
    let atomic = Options { write: WriteMode::Atomic { replace: false }, ..quick() };
    run(&Breaking::after(1, &first), &target, &atomic).unwrap_err();
    assert!(!target.exists() && stage.join("a/1").exists());
    assert_eq!(run(&second, &target, &atomic).unwrap().removed, 5, "the stage starts over as a target does");
    assert!(target.join("b").exists() && !stage.exists());
    let place = Breaking::after(0, &second);
    assert_eq!(run(&place, &target, &atomic).unwrap().outcome, Outcome::Present);

    // Nothing of what is there is lost unless that is wanted.
    refused(&first, &target, &atomic);
    let force = Options { write: WriteMode::Atomic { replace: true }, ..quick() };
    fs::write(target.join("mine"), "mine").unwrap();
    run(&Breaking::after(1, &first), &target, &force).unwrap_err();
    assert_eq!(seen(&target), ["b=second", "mine=mine"]);
    run(&first, &target, &force).unwrap();
    assert_eq!(seen(&target), ["a/1=lower", "a/2=upper"]);
    assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1);
}

#[test]
fn an_atomic_target_that_is_empty_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let (image, dir) = (image(&[&["a=1"]]), tempfile::tempdir().unwrap());
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o2770)).unwrap();
    run(&image, &target, &Options { write: WriteMode::Atomic { replace: false }, ..quick() }).unwrap();
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o2770);
}

#[test]
fn a_failure_before_anything_was_extracted_leaves_the_target_as_it_was() {
    let (image, dir) = (image(&[LOWER]), tempfile::tempdir().unwrap());
    let target = dir.path().join("target");
    for write in [WriteMode::InPlace, WriteMode::Atomic { replace: false }] {
        run(&Breaking::after(0, &image), &target, &Options { write, ..quick() }).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    run(&image, &target, &quick()).unwrap();
}
