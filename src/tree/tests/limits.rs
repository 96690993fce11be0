//! Depths and sizes that exceed system limits.

use super::*;
use crate::tree::dir_stack::DirStack;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

/// A depth above the usual limit of 1024 descriptors. With these names, the path also exceeds `PATH_MAX`.
const DEPTH: usize = 1500;

#[test]
fn a_tree_deeper_than_the_limits_of_paths_and_descriptors_is_restored() {
    let with_few_descriptors = |_: &Path, test: Command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 100 && exec \"$@\"", "sh"]).arg(test.get_program());
        shell
    };
    let name = "limits::a_tree_deeper_than_the_limits_of_paths_and_descriptors_is_restored";
    let Some(dir) = again(name, with_few_descriptors) else { return };
    // Each directory has a file that comes after the directories below it.
    let mut seen = vec![directory("")];
    let deepest = "directory".to_owned() + &"/directory".repeat(DEPTH);
    let ends: Vec<_> = deepest.match_indices('/').map(|(end, _)| end).collect();
    seen.extend(ends.iter().map(|end| directory(&deepest[..*end])));
    seen.extend(ends.iter().rev().map(|end| file(deepest[..*end].to_owned() + "/file", "data")));
    extract(&seen, &dir).unwrap();
    assert!(walk(&dir) == seen);
}

#[test]
fn a_directory_that_was_exchanged_while_it_was_closed_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let root = openat(CWD, dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut stack = DirStack::new(root);
    for _ in 0..200 {
        mkdirat(stack.here().unwrap(), "d", Mode::RWXU).unwrap();
        stack.enter(b"d").unwrap();
    }
    fs::rename(dir.path().join("d/d/d"), dir.path().join("moved")).unwrap();
    fs::create_dir_all(dir.path().join("d/d/d/d")).unwrap();
    stack.ascend_to(&path("d/d/d/d"));
    assert_eq!(stack.here().unwrap_err(), Errno::STALE);
    stack.ascend_to(&path("d/d"));
    assert!(stack.here().is_ok());
}

#[test]
fn a_name_that_is_too_long_is_an_error_with_the_name() {
    let target = tempfile::tempdir().unwrap();
    let long = "n".repeat(256);
    let error = extract(&[file(&long, "")], target.path()).unwrap_err();
    assert!(error.to_string().contains(&long), "{error}");
}

#[test]
fn a_full_disk_is_an_error_with_the_name_and_a_hint() {
    let Some(dir) = again_with_mounts("limits::a_full_disk_is_an_error_with_the_name_and_a_hint") else {
        return;
    };
    mount_small(&dir);
    let error = extract(&[file("large", &"data".repeat(1 << 19))], &dir).unwrap_err();
    assert!(error.to_string().contains("/large") && error.hint().is_some(), "{error}");
    let many: Vec<_> = (0..1001).map(|n| directory(n.to_string())).collect();
    let error = extract(&many, &dir).unwrap_err();
    assert!(error.to_string().contains("cannot make"), "{error}");
    assert!(error.hint().unwrap().contains("no inodes left"), "{error}");
}
