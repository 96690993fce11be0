//! Holes of sparse files.

use super::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;

/// Creates a file of this size in which only these bytes are written.
fn sparse(path: &Path, size: u64, written: &[(u64, &[u8])]) -> File {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in written {
        file.write_all_at(bytes, *offset).unwrap();
    }
    file.sync_all().unwrap();
    file
}

fn content_of(directory: &Path) -> FileContent {
    let mut walk = Walk::new(&[SourceSpec::new(directory)], &WalkOptions::default()).unwrap();
    walk.nth(1).unwrap().unwrap().file.unwrap()
}

#[test]
fn a_sparse_file_is_read_like_a_dense_one() {
    const MIB: u64 = 1 << 20;
    let layouts: [&[(u64, &[u8])]; 6] = [
        &[],
        &[(0, b"first")],
        &[(4 * MIB - 4, b"last")],
        &[(MIB, b"in the middle"), (MIB + 70_000, b"and again")],
        &[(0, b"first"), (2 * MIB, b"x"), (4 * MIB - 4, b"last")],
        &[(4 * MIB - 1, b"x")],
    ];
    for written in layouts {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        sparse(&file, 4 * MIB, written);
        let mut content = content_of(dir.path());
        assert!(content.holes() > MIB, "{} bytes of holes", content.holes());
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        assert!(bytes == fs::read(&file).unwrap());
    }
}

/// Returns the number of bytes that this thread has read so far.
fn read_so_far() -> u64 {
    let counters = fs::read_to_string("/proc/thread-self/io").unwrap();
    let read = counters.lines().find_map(|line| line.strip_prefix("rchar: "));
    read.unwrap().parse().unwrap()
}

#[test]
fn holes_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = sparse(&dir.path().join("file"), 1 << 40, &[(32 << 20, b"x")]);
    let mut content = content_of(dir.path());
    assert_eq!(content.holes(), (1 << 40) - file.metadata().unwrap().blocks() * 512);
    let mut buffer = vec![1; 64 << 10];
    let before = read_so_far();
    for _ in 0..1024 {
        content.read_exact(&mut buffer).unwrap();
    }
    let read = read_so_far() - before;
    assert!((1..1 << 20).contains(&read), "{read} bytes were read for 64 MiB");
}

#[test]
fn holes_can_be_skipped_except_for_the_last_byte_which_detects_changes() {
    const MIB: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let file = sparse(&dir.path().join("file"), 8 * MIB, &[(4 * MIB, b"x")]);
    let mut content = content_of(dir.path());
    assert_eq!(content.skip_hole(), 4 * MIB);
    assert_eq!(content.skip_hole(), 0);
    let mut byte = [0];
    content.read_exact(&mut byte).unwrap();
    assert_eq!((byte[0], content.skip_hole()), (b'x', 0), "the rest of its block is not a hole");
    let mut block = vec![0; 1];
    while content.skip_hole() == 0 {
        content.read_exact(&mut block).unwrap();
    }
    file.write_all_at(b"changed", MIB).unwrap();
    assert!(content.read_to_end(&mut block).is_err());
}

#[test]
fn a_hole_that_is_filled_while_the_file_is_read_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let file = sparse(&dir.path().join("file"), 8 << 20, &[(0, b"x")]);
    let mut content = content_of(dir.path());
    let mut buffer = vec![0; 4 << 20];
    content.read_exact(&mut buffer).unwrap();
    file.write_all_at(b"in what was a hole", 6 << 20).unwrap();
    let error = content.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("it was written to"), "{error}");
}
