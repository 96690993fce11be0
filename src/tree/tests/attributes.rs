//! Extended attributes as walks read them: of open files, and by names in the working directory of the thread.

use super::*;
use crate::disk::working_directory;
use rustix::fs::{XattrFlags, setxattr};
use rustix::io::Errno;
use std::thread;

/// A directory deeper than directories stay open in a walk.
const DEPTH: usize = 70;

/// Makes directories with files of the same names. Each file says its path in an attribute. Returns `false` if the file system
/// has no attributes.
fn make_labelled(directory: &Path) -> bool {
    let deep = vec!["n"; DEPTH].join("/");
    let directories = ["", "a", "a/b", "a/b/c", "b", &deep, "z"];
    directories.into_iter().flat_map(|above| ["m", "y"].map(|name| directory.join(above).join(name))).all(
        |path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            let label = path.strip_prefix(directory).unwrap().as_os_str().as_encoded_bytes();
            setxattr(&path, "user.path", label, XattrFlags::empty()) != Err(Errno::NOTSUP)
        },
    )
}

/// Runs `walk` on a thread, which has a working directory of its own if `is_separate`.
fn on_thread<T: Send>(is_separate: bool, walk: impl FnOnce() -> T + Send) -> T {
    let work = || {
        if is_separate {
            working_directory::separate();
        }
        walk()
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn label(metadata: &Metadata) -> Option<&[u8]> {
    metadata.xattrs.get(b"user.path".as_slice()).map(Vec::as_slice)
}

#[test]
fn each_file_of_several_sources_has_the_attributes_of_its_own_directory() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    if !(make_labelled(one.path()) && make_labelled(other.path())) {
        return skipped("the file system has no extended attributes");
    }
    // The second one is between the entries of the first one.
    let sources = [SourceSpec::new(one.path()), SourceSpec::new(other.path()).at(path("a/between"))];
    let walk = || -> Vec<Entry> {
        let walk = Walk::new(&sources, &WalkOptions::default()).unwrap().metadata_only();
        walk.map(|found| found.unwrap().entry).collect()
    };
    let entries = on_thread(true, walk);
    assert!(entries == on_thread(false, walk));
    let between = path("a/between");
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File { size: 0 }) {
        let inside = entry.path.below(&between).unwrap_or_else(|| entry.path.clone());
        assert_eq!(label(&entry.metadata), Some(inside.as_bytes()), "{}", entry.path);
    }
    assert_eq!(entries.iter().filter(|entry| label(&entry.metadata).is_some()).count(), 28);
}

#[test]
fn each_file_of_a_target_has_the_attributes_of_its_own_directory() {
    let directory = tempfile::tempdir().unwrap();
    if !make_labelled(directory.path()) {
        return skipped("the file system has no extended attributes");
    }
    let target = Target::open_or_create(directory.path()).unwrap();
    let walk = || -> Vec<(TreePath, Metadata)> {
        let walk = TargetWalk::below(&target, &TreePath::root(), ClosedDirectory::Fail, 4096).unwrap();
        walk.map(|found| found.unwrap()).map(|found| (found.path, found.metadata)).collect()
    };
    let entries = on_thread(true, walk);
    assert!(entries == on_thread(false, walk));
    let labelled: Vec<_> =
        entries.iter().filter_map(|(path, metadata)| Some((path, label(metadata)?))).collect();
    assert_eq!(labelled.len(), 14);
    assert!(labelled.iter().all(|(path, label)| path.as_bytes() == *label), "{labelled:?}");
}
