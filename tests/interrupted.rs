//! Packs that are killed. Their destination stays valid, and the same pack succeeds afterwards.

use crate::registry::Registry;
use crate::snapshot::assert_same;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use volio::transport::layout::Layout;
use volio::transport::{Access, Source};

fn volio(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A tree that cannot be compressed and is large enough to be killed in the middle.
fn make_tree(root: &Path) {
    let mut state = 1u64;
    let mut bytes = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for n in 0..24 {
        fs::write(root.join(format!("file-{n}")), (0..1 << 20).map(|_| bytes()).collect::<Vec<u8>>())
            .unwrap();
    }
}

/// Kills the process when the condition is true, unless it has ended before.
fn kill_when(mut child: Child, condition: impl Fn() -> bool) {
    while !condition() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn unfinished(layout: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(layout) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().unwrap().starts_with(".volio-"))
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .collect()
}

#[test]
fn a_pack_into_a_layout_can_be_run_again_after_it_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let image = format!("oci:{}:v1", layout.display());
    let tree_argument = tree.to_str().unwrap();
    let pack = || volio(&["pack", &image, tree_argument]);

    // It is killed at the start, at the beginning and in the middle of the blob, and after the blob has its name.
    kill_when(pack().spawn().unwrap(), || layout.exists());
    kill_when(pack().spawn().unwrap(), || !unfinished(&layout).is_empty());
    kill_when(pack().spawn().unwrap(), || unfinished(&layout).iter().any(|size| *size > 8 << 20));
    assert!(!layout.join("index.json").exists(), "an image gets its name last");
    let blobs = layout.join("blobs/sha256");
    kill_when(pack().spawn().unwrap(), || fs::read_dir(&blobs).is_ok_and(|mut blobs| blobs.next().is_some()));

    assert!(pack().status().unwrap().success());
    assert_eq!(unfinished(&layout), Vec::<u64>::new(), "temporary files are removed");
    let target = directory.path().join("target");
    assert!(volio(&["unpack", &image, target.to_str().unwrap()]).status().unwrap().success());
    assert_same(&tree, &target);
}

#[test]
fn a_killed_pack_to_a_name_that_exists_keeps_the_old_image() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("first"), "first").unwrap();
    let image = format!("oci:{}:v1", layout.display());
    let pack = || volio(&["pack", &image, tree.to_str().unwrap()]);
    assert!(pack().status().unwrap().success());
    let resolve = || Layout::open(&layout, Some("v1"), None).unwrap().resolve().unwrap();
    let before = resolve();
    make_tree(&tree);
    kill_when(pack().spawn().unwrap(), || unfinished(&layout).iter().any(|size| *size > 8 << 20));
    assert_eq!(resolve(), before);
}

#[test]
fn a_pack_into_a_registry_can_be_run_again_after_it_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, target) = (directory.path().join("tree"), directory.path().join("target"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let registry = Registry::start();
    let image = registry.location("team/data", "v1").to_string();
    let pack = || volio(&["pack", &image, tree.to_str().unwrap()]);
    let has_request =
        |method: &str| registry.requests().iter().any(|request| request.method.as_str() == method);

    kill_when(pack().spawn().unwrap(), || has_request("POST"));
    kill_when(pack().spawn().unwrap(), || has_request("PATCH"));
    let resolved = registry.location("team/data", "v1").source(&Access::default()).unwrap().resolve();
    assert_eq!(resolved.unwrap_err().kind(), volio::error::Kind::NotFound);

    assert!(pack().status().unwrap().success());
    assert!(volio(&["unpack", &image, target.to_str().unwrap()]).status().unwrap().success());
    assert_same(&tree, &target);
}

#[test]
fn a_signal_aborts_the_upload_at_the_registry_and_sets_no_name() {
    use rustix::process::{Pid, Signal, kill_process};
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let registry = Registry::start();
        let image = registry.location("team/data", "v1").to_string();
        // The compression is slow enough for the signal to arrive in time.
        let mut child =
            volio(&["pack", "--compression", "zstd:19", &image, tree.to_str().unwrap()]).spawn().unwrap();
        while registry.open_uploads() == 0 {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before the signal");
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(registry.open_uploads(), 0);
        let resolved = registry.location("team/data", "v1").source(&Access::default()).unwrap().resolve();
        assert_eq!(resolved.unwrap_err().kind(), volio::error::Kind::NotFound);
    }
}

#[test]
fn a_killed_pack_into_an_archive_keeps_the_archive_and_can_be_run_again() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, images) = (directory.path().join("tree"), directory.path().join("images"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&images).unwrap();
    fs::write(tree.join("first"), "first").unwrap();
    let (archive, tree_argument) = (images.join("a.tar"), tree.to_str().unwrap());
    let first = format!("oci-archive:{}:first", archive.display());
    assert!(volio(&["pack", &first, tree_argument]).status().unwrap().success());
    let before = fs::read(&archive).unwrap();

    make_tree(&tree);
    for scheme in ["oci-archive", "docker-archive"] {
        let file = if scheme == "oci-archive" { archive.clone() } else { images.join("d.tar") };
        let image = format!("{scheme}:{}:second", file.display());
        let pack = || volio(&["pack", &image, tree_argument]);
        kill_when(pack().spawn().unwrap(), || !unfinished(&images).is_empty());
        kill_when(pack().spawn().unwrap(), || unfinished(&images).iter().any(|size| *size > 8 << 20));
        assert!(!unfinished(&images).is_empty(), "it was killed before the end");
        assert!(fs::read(&archive).unwrap() == before || scheme == "docker-archive");
        assert!(!images.join("d.tar").exists());

        assert!(pack().status().unwrap().success());
        assert_eq!(unfinished(&images), Vec::<u64>::new(), "temporary files are removed");
        let target = directory.path().join(scheme);
        assert!(volio(&["unpack", &image, target.to_str().unwrap()]).status().unwrap().success());
        assert_same(&tree, &target);
    }
    let target = directory.path().join("target");
    assert!(volio(&["unpack", &first, target.to_str().unwrap()]).status().unwrap().success());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1, "the first image is still there");
}

/// Kills an incremental pack at moments all over its run. The tag means the image before or the complete image after, and the
/// next run succeeds.
#[test]
fn an_incremental_pack_that_is_killed_leaves_the_tag_old_or_new() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    for file in fs::read_dir(&tree).unwrap() {
        // Young files would be read for the comparison.
        let file = fs::File::options().write(true).open(file.unwrap().path()).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000)).unwrap();
    }
    let registry = Registry::start();
    let in_layout = format!("oci:{}:v1", layout.display());
    let in_registry = registry.location("team/data", "v1").to_string();
    for image in [&in_layout, &in_registry] {
        let pack = |image: &str| {
            volio(&["pack", "--incremental", "--max-dead", "95", image, tree.to_str().unwrap()])
        };
        let resolve = || {
            let location: volio::Location = image.parse().unwrap();
            location.source(&Access::default()).unwrap().resolve().unwrap()
        };
        assert!(pack(image).status().unwrap().success());
        let (mut outcomes, mut delay) = ([0, 0], std::time::Duration::ZERO);
        for n in 0..40 {
            fs::write(tree.join("changing"), format!("version {n}")).unwrap();
            let before = resolve();
            let mut child = pack(image).spawn().unwrap();
            std::thread::sleep(delay);
            child.kill().unwrap();
            let was_killed = !child.wait().unwrap().success();
            let after = resolve();
            outcomes[usize::from(after != before)] += 1;
            assert!(was_killed || after != before);
            // From the start to the end of a run, and again.
            delay =
                if was_killed { delay + std::time::Duration::from_millis(20) } else { Default::default() };
        }
        assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
        assert!(pack(image).status().unwrap().success());
        let target = tempfile::tempdir().unwrap();
        let unpack = ["unpack", image, target.path().to_str().unwrap()];
        assert!(volio(&unpack).status().unwrap().success());
        assert_same(&tree, target.path());
        assert!(volio(&["verify", image]).status().unwrap().success());
    }
}
