//! Comparison of directories, without volio's code.

use crate::engines::survey::Survey;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Blocks of 512 bytes that a file may take more, because only holes of 64 KiB at multiples of 64 KiB are restored by default.
const EDGES_OF_HOLES: u64 = 2048;
/// Blocks that a file system may need more for the attributes of the same file.
const ATTRIBUTES: u64 = 16;

/// Fails unless a directory that was unpacked has the same entries as the source, with the same attributes, and its long holes.
#[track_caller]
pub fn assert_identical(source: &Path, unpacked: &Path) {
    Survey::of(source).assert_same(&Survey::of(unpacked));
    assert_blocks(source, unpacked, EDGES_OF_HOLES);
}

/// Fails unless two directories that were unpacked have the same entries, with the same attributes and the same holes.
#[track_caller]
pub fn assert_identical_with_holes(expected: &Path, actual: &Path) {
    Survey::of(expected).assert_same(&Survey::of(actual));
    assert_blocks(expected, actual, ATTRIBUTES);
}

/// Fails if a file takes this number of blocks more in the second directory. Both have the same entries.
#[track_caller]
fn assert_blocks(expected: &Path, actual: &Path, more: u64) {
    let mut open = vec![expected.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let before = entry.metadata().unwrap();
            if before.is_dir() {
                open.push(entry.path());
            } else if before.is_file() {
                let at = actual.join(entry.path().strip_prefix(expected).unwrap());
                let after = std::fs::symlink_metadata(&at).unwrap();
                let (before, after) = (before.blocks(), after.blocks());
                assert!(after <= before + more, "{at:?} has {after} blocks, not {before}");
            }
        }
    }
}

/// The same by `tests/fidelity/compare`, which is written in another language and takes longer.
#[track_caller]
pub fn assert_identical_by_script(expected: &Path, actual: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fidelity/compare");
    let Ok(judged) = Command::new("python3").arg(script).arg("same").args([expected, actual]).output() else {
        return;
    };
    let said = String::from_utf8_lossy(&judged.stdout) + String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "{said}");
}
