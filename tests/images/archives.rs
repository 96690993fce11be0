//! Trees that come as tar archives: the image is that of the directory.

use super::{memory, pack_with, unpack};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tar::{Builder, EntryType, Header};
use volio::error::Kind;
use volio::pack::{self, Options, Packed, read_archive};
use volio::progress::Silent;
use volio::transport::memory::Memory;
use volio::tree::{Owner, SourceSpec, Time, WalkOptions};

/// Packs an archive, as `volio pack IMAGE -` does.
pub(super) fn pack_archive(archive: &[u8], options: &Options) -> volio::Result<(Memory, Packed)> {
    let stored = Arc::new(read_archive(archive, &std::env::temp_dir(), &Silent)?);
    let source = SourceSpec { stored: Some(stored), ..SourceSpec::new("-") };
    let image = memory();
    let packed = pack::pack(&image, &[source], options, &Silent)?;
    Ok((image, packed))
}

fn tar(tree: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.args(["c", "--format=posix", "--xattrs"]).arg("-C").arg(tree).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// An archive of these entries: a name, a type, and a content or the target of a link.
fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, text) in entries {
        let mut header = Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        if kind.is_file() {
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        } else {
            header.set_size(0);
            builder.append_link(&mut header, name, text).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn file<'a>(name: &'a str, content: &'a str) -> (&'a str, EntryType, &'a str) {
    (name, EntryType::Regular, content)
}

/// A tree with one of each kind, in which names sort otherwise than tar takes them.
pub(super) fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let path = |name: &str| tree.path().join(name);
    fs::create_dir_all(path("sub/deep")).unwrap();
    fs::create_dir(path("empty")).unwrap();
    fs::write(path("sub/a"), "content").unwrap();
    fs::hard_link(path("sub/a"), path("0-first")).unwrap();
    fs::hard_link(path("sub/a"), path("z-last")).unwrap();
    symlink("sub/a", path("link")).unwrap();
    fs::write(path("sub.b"), vec![7; 3 << 20]).unwrap();
    fs::File::create(path("sub/deep/sparse")).unwrap().set_len(5 << 20).unwrap();
    assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    let _ = rustix::fs::setxattr(path("sub/a"), "user.a", b"b", rustix::fs::XattrFlags::empty());
    tree
}

#[test]
fn an_archive_that_says_all_about_a_tree_becomes_the_same_image_in_whatever_order() {
    let tree = tree();
    let directory = |options: &Options| pack_with(&memory(), tree.path(), options).unwrap().digest;
    let options = Options::default();
    let expected = directory(&options);
    let backwards = ["z-last", "sub", "sub.b", "link", "fifo", "empty", "0-first", "--no-recursion", "."];
    for arguments in [&["."][..], &["-S", "."], &["-z", "."], &backwards] {
        let (_, packed) = pack_archive(&tar(tree.path(), arguments), &options).unwrap();
        assert_eq!(packed.digest, expected, "{arguments:?}");
    }
    // In several layers, and with what the options change.
    let tree_options = WalkOptions {
        exclude: vec!["0-*".into(), "deep".into()],
        normalize: Some(Time { seconds: 5, nanoseconds: 0 }),
        chown: Some(Owner { uid: 1, gid: 2 }),
        ..WalkOptions::default()
    };
    let options = Options { layer_size: 1 << 20, tree: tree_options, ..Options::default() };
    let (_, packed) = pack_archive(&tar(tree.path(), &["."]), &options).unwrap();
    assert_eq!((packed.digest, packed.excluded), (directory(&options), 2));
    assert!(packed.layers.len() > 1);
}

#[test]
fn directories_that_an_archive_does_not_describe_are_plain_and_the_last_of_several_entries_counts() {
    let bytes = archive(&[
        file("a/b/c", "old"),
        ("a/link", EntryType::Link, "a/b/c"),
        file("a/b/c", "newer"),
        ("x", EntryType::Symlink, "nowhere"),
        file("x", "file"),
    ]);
    let (image, packed) = pack_archive(&bytes, &Options::default()).unwrap();
    assert_eq!(packed.entries, 6, "the root, /a, /a/b and three files");
    let target = tempfile::tempdir().unwrap();
    unpack(&image, target.path()).unwrap();
    let read = |name: &str| fs::read_to_string(target.path().join(name)).unwrap();
    assert_eq!((read("a/b/c"), read("a/link"), read("x")), ("newer".into(), "old".into(), "file".into()));
}

#[test]
fn a_name_that_means_a_deleted_file_in_a_layer_is_a_name_in_an_archive_and_no_image_can_hold_it() {
    let error = pack_archive(&archive(&[file("a/.wh.b", "")]), &Options::default()).err().unwrap();
    assert!(error.to_string().starts_with("/a/.wh.b cannot be in an image"), "{error}");
}

#[test]
fn an_archive_that_no_tree_can_be_is_refused() {
    let tree = tree();
    let whole = tar(tree.path(), &["."]);
    let cases: [(&str, Vec<u8>); 5] = [
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("a file with something below it", archive(&[file("a", ""), file("a/b", "")])),
        ("a link into which files are put", archive(&[("a", EntryType::Symlink, "/etc"), file("a/b", "")])),
        ("a name of nothing", archive(&[("a", EntryType::Link, "b"), file("b", "")])),
    ];
    for (what, bytes) in cases {
        let error = pack_archive(&bytes, &Options::default()).err().unwrap_or_else(|| panic!("{what}"));
        assert_eq!(error.kind(), Kind::Integrity, "{what}: {error}");
    }
}

#[test]
fn an_archive_that_ends_between_two_entries_is_truncated_unless_zeros_follow() {
    let bytes = archive(&[file("a", "1"), file("b", "2")]);
    let error = pack_archive(&bytes[..2 * 512], &Options::default()).err().unwrap();
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    assert!(error.to_string().contains("is truncated"), "{error}");
    // Some programs write one block of zeros only.
    let (_, packed) = pack_archive(&bytes[..5 * 512], &Options::default()).unwrap();
    assert_eq!(packed.entries, 3, "the root and two files");
}

#[test]
fn volio_packs_what_tar_writes_into_it() {
    use std::process::Stdio;
    let place = tempfile::tempdir().unwrap();
    let tree = tree();
    let mut volio = Command::new(env!("CARGO_BIN_EXE_volio"));
    let volio = volio.args(["pack", "--quiet", "oci:layout:v1", "-"]).current_dir(place.path());
    let mut volio = volio.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    volio.stdin.take().unwrap().write_all(&tar(tree.path(), &["."])).unwrap();
    let output = volio.wait_with_output().unwrap();
    let digest = pack_with(&memory(), tree.path(), &Options::default()).unwrap().digest;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("oci:layout@{digest}\n"));
}
