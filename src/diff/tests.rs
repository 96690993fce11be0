use super::compare::compare;
use super::*;
use crate::image::ContentId;
use crate::oci::Digest;
use crate::tree::{Entry, Metadata, Time, TreePath};

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

/// An entry with the digest of its content.
type Node = (Entry, Option<Digest>);

fn node(name: &str, kind: EntryKind) -> Node {
    let metadata = Metadata { mode: 0o644, ..Metadata::default() };
    (Entry { path: path(name), kind, metadata }, None)
}

fn file(name: &str, content: &str) -> Node {
    let (entry, _) = node(name, EntryKind::File { size: content.len() as u64 });
    (entry, Some(Digest::of(content.as_bytes())))
}

fn link(name: &str, target: &str) -> Node {
    node(name, EntryKind::Hardlink { target: path(target) })
}

fn with((mut entry, digest): Node, change: impl FnOnce(&mut Metadata)) -> Node {
    change(&mut entry.metadata);
    (entry, digest)
}

fn lines(left: &[Node], right: &[Node]) -> Vec<String> {
    lines_without(left, right, &[])
}

fn lines_without(left: &[Node], right: &[Node], ignore: &[Attribute]) -> Vec<String> {
    let tree = |nodes: &[Node]| {
        let mut tree = Overlay::within(u64::MAX);
        for (entry, digest) in nodes {
            tree.put(entry, PathNote::Described(digest.clone().map(ContentId::Whole))).unwrap();
        }
        tree.finish().with_first_names()
    };
    compare(&tree(left), &tree(right), &ignore.iter().cloned().collect())
        .map(|difference| difference.to_string())
        .collect()
}

#[test]
fn equal_entries_are_not_reported_and_missing_ones_are() {
    let (a, b) = (file("a", "x"), file("d/b", "x"));
    assert!(lines(&[a.clone(), b.clone()], &[a.clone(), b.clone()]).is_empty());
    assert_eq!(lines(std::slice::from_ref(&a), &[a.clone(), b.clone()]), ["+ /d", "+ /d/b"]);
    assert_eq!(lines(&[a.clone(), b], &[a]), ["- /d", "- /d/b"]);
}

#[test]
fn every_attribute_has_its_line_in_a_fixed_order() {
    let left =
        with(file("f", "1234"), |metadata| metadata.xattrs = [(b"user.a".to_vec(), vec![0, 255])].into());
    let right = with(file("f", "5678"), |metadata| {
        metadata.mode = 0o4755;
        (metadata.uid, metadata.gid) = (1, 2);
        metadata.mtime = Time { seconds: -1, nanoseconds: 5 };
        metadata.xattrs = [(b"user.b\n".to_vec(), vec![])].into();
    });
    let digests = [&left, &right].map(|(_, digest)| digest.clone().unwrap());
    let all = [
        format!("~ /f content {} {}", digests[0], digests[1]),
        "~ /f mode 0644 4755".to_owned(),
        "~ /f owner 0:0 1:2".to_owned(),
        "~ /f mtime 1970-01-01T00:00:00.000000000Z 1969-12-31T23:59:59.000000005Z".to_owned(),
        "~ /f xattr user.a 0sAP8= -".to_owned(),
        "~ /f xattr user.b\\n - 0s".to_owned(),
    ];
    assert_eq!(lines(std::slice::from_ref(&left), std::slice::from_ref(&right)), all);
    for (n, ignored) in
        [(0, Attribute::Content), (1, Attribute::Mode), (2, Attribute::Owner), (3, Attribute::Mtime)]
    {
        let rest: Vec<_> =
            all.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, line)| line.clone()).collect();
        let (left, right) = (std::slice::from_ref(&left), std::slice::from_ref(&right));
        assert_eq!(lines_without(left, right, &[ignored]), rest);
    }
    let without_xattrs = lines_without(&[left], &[right], &[Attribute::Xattr(String::new())]);
    assert_eq!(without_xattrs, all[..4]);
}

#[test]
fn a_size_is_reported_instead_of_a_content_and_a_type_instead_of_all_else() {
    assert_eq!(lines(&[file("f", "1")], &[file("f", "22")]), ["~ /f size 1 2"]);
    assert!(lines_without(&[file("f", "1")], &[file("f", "22")], &[Attribute::Content]).is_empty());
    let directory = with(node("f", EntryKind::Directory), |metadata| metadata.mode = 0o755);
    assert_eq!(lines(&[file("f", "1")], &[directory]), ["~ /f type file directory"]);
    let symlink = |target: &str| node("l", EntryKind::Symlink { target: target.into() });
    assert_eq!(lines(&[symlink("a")], &[symlink("b c\x1b")]), ["~ /l target a b c\\u{1b}"]);
    let device = |minor| node("d", EntryKind::CharDevice { major: 1, minor });
    assert_eq!(lines(&[device(3)], &[device(5)]), ["~ /d device 1,3 1,5"]);
}

#[test]
fn names_of_one_file_are_a_group_in_any_order_of_an_archive() {
    let left = [file("a", "x"), link("b", "a"), link("c", "b")];
    let right = [file("c", "x"), link("a", "c"), link("b", "c")];
    assert!(lines(&left, &right).is_empty());
    assert_eq!(lines(&left, &[file("a", "x"), link("b", "a"), file("c", "x")]), ["~ /c hardlink /a -"]);
    let other = [file("a", "y"), link("b", "a"), link("c", "a")];
    assert_eq!(lines(&left, &other).len(), 1, "the content of a group is reported once");
    let apart = [file("a", "x"), file("b", "y"), link("c", "b")];
    let reported = lines(&left, &apart);
    assert!(reported[0].starts_with("~ /b content ") && reported[1] == "~ /b hardlink /a -", "{reported:?}");
    assert_eq!(reported.last().unwrap(), "~ /c hardlink /a /b");
}

#[test]
fn a_directory_that_no_entry_describes_equals_any_other() {
    let described = with(node("d", EntryKind::Directory), |metadata| metadata.mode = 0o700);
    assert!(
        lines(&[file("d/f", "x")], &[described, file("d/f", "x"), node("", EntryKind::Directory)]).is_empty()
    );
    assert_eq!(lines(&[file("d/f", "x")], &[file("d", "x")]), ["~ /d type directory file", "- /d/f"]);
}

#[test]
fn labels_of_a_host_are_not_compared() {
    let labelled = with(file("f", "x"), |metadata| {
        metadata.xattrs =
            [(b"security.selinux".to_vec(), b"l".to_vec()), (b"user.volio.image".to_vec(), vec![])].into();
    });
    assert!(lines(&[labelled], &[file("f", "x")]).is_empty());
}
