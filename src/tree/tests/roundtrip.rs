//! What is extracted and walked is what it was.

use super::*;

#[test]
fn a_tree_of_every_kind_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |name: &str, kind, mode| Entry {
        path: path(name),
        kind,
        metadata: Metadata {
            mode,
            mtime: Time { seconds: -7, nanoseconds: 123_456_789 },
            ..Metadata::default()
        },
    };
    let seen = vec![
        (entry("", Kind::Directory, 0o750), vec![]),
        (entry("a", Kind::Directory, 0o1555), vec![]),
        (entry("a/fifo", Kind::Fifo, 0o640), vec![]),
        (entry("a/file", Kind::File { size: 4 }, 0o4755), b"data".to_vec()),
        (entry("a/link", Kind::Symlink { target: b"/nowhere".to_vec() }, 0o777), vec![]),
        (entry("b", Kind::Hardlink { target: path("a/file") }, 0o4755), vec![]),
        (entry("c", Kind::Hardlink { target: path("a/link") }, 0o777), vec![]),
    ];
    let extracted = extract(&seen, &dir.path().join("new/target")).unwrap();
    assert_eq!((extracted.entries, extracted.bytes), (7, 4));
    assert_eq!(walk(&dir.path().join("new/target")), seen);
}
