//! Images as other builders make them, by a generator: layouts and archives with the peculiarities of their layers.
//!
//! The table of `docs/compatibility.md` is written by `tests/compatibility/run`, which `tests/run compatibility` starts.

mod generator;

use crate::engines::program::volio;
use generator::{Image, Layer, Tar};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Unpacks, lists, prints, compares and verifies the image. `expected` has files with their content, and directories, which end with `/`.
fn assert_read(image: &Image, expected: &[(&str, &str)]) -> tempfile::TempDir {
    let work = tempfile::tempdir().unwrap();
    let place = image.write(work.path());
    let target = work.path().join("target");
    let target_text = target.to_str().unwrap();
    volio(&["unpack", "--quiet", &place, target_text]).succeeded();
    let listed = volio(&["ls", "-R", "--quiet", &place]).succeeded();
    let mut names: Vec<&str> = listed.lines().map(|line| line.trim_matches('/')).collect();
    names.retain(|name| !name.is_empty() && !name.contains('@'));
    names.sort_unstable();
    let mut wanted: Vec<&str> = expected.iter().map(|(name, _)| name.trim_end_matches('/')).collect();
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    for (name, content) in expected.iter().filter(|(name, _)| !name.ends_with('/')) {
        assert_eq!(fs::read_to_string(target.join(name)).unwrap(), *content, "{name}");
        let printed = volio(&["cat", "--quiet", &place, &format!("/{name}")]).succeeded();
        assert_eq!(printed, content.trim(), "{name}");
    }
    for (name, _) in expected.iter().filter(|(name, _)| name.ends_with('/')) {
        assert!(target.join(name).is_dir(), "{name}");
    }
    volio(&["diff", "--quiet", "--ignore", "owner", &place, target_text]).succeeded();
    volio(&["verify", "--quiet", &place]).succeeded();
    work
}

fn mtime(work: &tempfile::TempDir, name: &str) -> i64 {
    fs::symlink_metadata(work.path().join("target").join(name)).unwrap().mtime()
}

/// kaniko (`pkg/util/tar_util.go`): an entry named `/` for the root, no other leading slash, directories with a slash at the end,
/// whiteouts of mode 0 and time 0, hard links whose target is an absolute path, and the media types of Docker.
#[test]
fn an_image_with_the_shape_of_kaniko_is_read() {
    let lower =
        Tar::new().dir("/", 1_600_000_000).dir("app/", 1_600_000_000).file("app/old", "old\n", 1_600_000_000);
    let upper = Tar::new()
        .whiteout("app/.wh.old")
        .dir("/", 1_600_000_001)
        .dir("app/", 1_600_000_001)
        .file("app/first", "linked\n", 1_600_000_001)
        .hard_link("app/second", "/app/first");
    let image = Image::docker(vec![Layer::gzip(lower), Layer::gzip(upper)]);
    let work = assert_read(&image, &[("app/", ""), ("app/first", "linked\n"), ("app/second", "linked\n")]);
    let inode = |name: &str| fs::metadata(work.path().join("target/app").join(name)).unwrap().ino();
    assert_eq!(inode("first"), inode("second"));
    assert_eq!(mtime(&work, "app/first"), 1_600_000_001);
}

/// jib (its FAQ, "why is my image created 48 years ago"): all times are one second after 1970, entries are sorted, and each layer
/// repeats the parent directories of its entries.
#[test]
fn an_image_with_the_shape_of_jib_is_read() {
    let layer = |name: &str, content: &str| {
        Layer::gzip(Tar::new().dir("app/", 1).dir("app/classes/", 1).file(
            &format!("app/classes/{name}"),
            content,
            1,
        ))
    };
    let image = Image::docker(vec![layer("A.class", "a\n"), layer("B.class", "b\n")]);
    let expected =
        [("app/", ""), ("app/classes/", ""), ("app/classes/A.class", "a\n"), ("app/classes/B.class", "b\n")];
    let work = assert_read(&image, &expected);
    for (name, _) in expected {
        assert_eq!(mtime(&work, name), 1, "{name}");
    }
}

/// ko: absolute names, times of 0, and a symbolic link. No history in the configuration.
#[test]
fn an_image_with_the_shape_of_ko_is_read() {
    let tar = Tar::new()
        .dir("/ko-app", 0)
        .file("/ko-app/server", "program\n", 0)
        .dir("/var/run/ko", 0)
        .symlink("/var/run/ko/link", "../../../ko-app/server");
    let image = Image::oci(vec![Layer::gzip(tar)]).without_history();
    let work = tempfile::tempdir().unwrap();
    let place = image.write(work.path());
    let target = work.path().join("target");
    volio(&["unpack", "--quiet", &place, target.to_str().unwrap()]).succeeded();
    assert_eq!(fs::read_to_string(target.join("var/run/ko/link")).unwrap(), "program\n");
    assert_eq!(fs::metadata(target.join("ko-app/server")).unwrap().mtime(), 0);
    volio(&["diff", "--quiet", "--ignore", "owner", &place, target.to_str().unwrap()]).succeeded();
    volio(&["verify", "--quiet", &place]).succeeded();
}

/// nix (`stream_layered_image.py`): an archive of `docker save` whose layers are plain tar archives with absolute names, `/nix` and
/// `/nix/store` in each, times of 1, and files without write permission.
#[test]
fn an_archive_with_the_shape_of_nix_is_read() {
    let layer = |name: &str| {
        let store = Tar::new().dir("/nix", 1).dir("/nix/store", 1);
        Layer::plain(store.file(&format!("/nix/store/{name}"), name, 1))
    };
    let image = Image::archive(vec![layer("aaaa-hello"), layer("bbbb-glibc")]);
    let expected = [
        ("nix/", ""),
        ("nix/store/", ""),
        ("nix/store/aaaa-hello", "aaaa-hello"),
        ("nix/store/bbbb-glibc", "bbbb-glibc"),
    ];
    let work = assert_read(&image, &expected);
    assert_eq!(mtime(&work, "nix/store/aaaa-hello"), 1);
}

/// bazel: `./` before each name, the time 2000-01-01, and no entries for parent directories. rules_oci takes any tar archive as a layer,
/// also an empty one, and one with an entry twice, of which the last one counts.
#[test]
fn an_image_with_the_shape_of_bazel_is_read() {
    let time = 946_684_800;
    let first = Tar::new().file("./app/bin/main", "first\n", time).file("./app/bin/main", "last\n", time);
    let image = Image::oci(vec![Layer::plain(first), Layer::gzip(Tar::new())]).without_history();
    let work = assert_read(&image, &[("app/", ""), ("app/bin/", ""), ("app/bin/main", "last\n")]);
    assert_eq!(mtime(&work, "app/bin/main"), 946_684_800);
}

/// Docker's build: an opaque whiteout, and a history with entries that have no layer.
#[test]
fn an_image_with_opaque_whiteouts_and_empty_history_is_read() {
    let lower = Tar::new().dir("etc/", 5).file("etc/a", "a\n", 5).file("etc/b", "b\n", 5);
    let upper = Tar::new().dir("etc/", 6).whiteout("etc/.wh..wh..opq").file("etc/c", "c\n", 6);
    let image = Image::docker(vec![Layer::gzip(lower), Layer::gzip(upper)]).with_empty_history();
    assert_read(&image, &[("etc/", ""), ("etc/c", "c\n")]);
}

#[test]
fn a_non_distributable_layer_is_read_if_it_is_there() {
    let tar = Tar::new().file("file", "content\n", 7);
    let mut layer = Layer::gzip(tar);
    layer.media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".to_owned();
    assert_read(&Image::oci(vec![layer]), &[("file", "content\n")]);
}

#[test]
fn a_layer_in_xz_is_refused_by_its_name() {
    let mut layer = Layer::plain(Tar::new().file("file", "content\n", 7));
    layer.media_type = "application/vnd.oci.image.layer.v1.tar+xz".to_owned();
    let work = tempfile::tempdir().unwrap();
    let place = Image::oci(vec![layer]).write(work.path());
    let target = work.path().join("target");
    for arguments in [&["unpack", &place, target.to_str().unwrap()][..], &["ls", &place], &["verify", &place]]
    {
        assert!(volio(arguments).failed_with(3).contains("tar+xz"), "{arguments:?}");
    }
    assert!(!Path::new(&target).join("file").exists());
}
