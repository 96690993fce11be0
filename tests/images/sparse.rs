//! Files with holes: cheap to read, the same bytes in the image, and holes again where they come back.

use super::{memory, pack, unpack};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

fn blocks(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks()
}

/// Any time but that of a plain directory, which says nothing about its target.
fn time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1)
}

/// A file of 64 MiB in which three places are written; dense when that is wanted.
fn write(path: &Path, dense: bool) {
    let size = 64 << 20;
    let file = File::create(path).unwrap();
    if dense {
        for offset in (0..size).step_by(1 << 20) {
            file.write_all_at(&vec![0; 1 << 20], offset).unwrap();
        }
    }
    file.set_len(size).unwrap();
    for offset in [0, 20 << 20, size - 5] {
        file.write_all_at(b"bytes", offset).unwrap();
    }
    file.set_modified(time()).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_hole_and_written_zeros_give_the_same_digest_and_come_back_as_holes() {
    let (sparse, dense) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&sparse.path().join("file"), false);
    write(&dense.path().join("file"), true);
    for tree in [&sparse, &dense] {
        File::open(tree.path()).unwrap().set_modified(time()).unwrap();
    }
    assert!(blocks(&sparse.path().join("file")) < 1000 && blocks(&dense.path().join("file")) > 120_000);
    let image = memory();
    let packed = pack(&image, sparse.path());
    assert_eq!(packed.digest, pack(&memory(), dense.path()).digest);
    let target = tempfile::tempdir().unwrap();
    unpack(&image, target.path()).unwrap();
    crate::snapshot::assert_same(sparse.path(), target.path());
    let (before, after) = (blocks(&sparse.path().join("file")), blocks(&target.path().join("file")));
    // A hole comes back when it is 64 KiB long, so each of three places may cost as much.
    assert!(after <= before.max(3 * 128), "{after} blocks, and {before} before");
}
