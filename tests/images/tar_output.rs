//! Images that are written as tar archives, as `volio unpack IMAGE -` does.

use super::archives::{pack_archive, tree};
use super::layers::{layer, publish};
use super::{memory, pack_with};
use crate::snapshot::snapshot;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use volio::error::Kind;
use volio::pack::Options;
use volio::progress::Silent;
use volio::transport::memory::Memory;
use volio::unpack::{ArchiveOptions, PathFilter, unpack_archive};
use volio::{ReadOptions, Source, TreePath};

fn archive_of(image: &dyn Source, filter: PathFilter) -> volio::Result<Vec<u8>> {
    let (read, temporary) = (ReadOptions::default(), std::env::temp_dir());
    let mut archive = Vec::new();
    let options = ArchiveOptions { read, filter, as_is: false, temporary };
    unpack_archive(image, &options, &mut archive, &Silent).map(|_| archive)
}

fn options(compression: &str, layer_size: u64) -> Options {
    Options { compression: compression.parse().unwrap(), layer_size, ..Options::default() }
}

/// Extracts an archive with GNU tar.
fn extract(archive: &[u8], target: &Path) {
    let mut tar = Command::new("tar")
        .args(["x", "--xattrs", "--xattrs-include=*", "-p", "-C"])
        .arg(target)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(archive).unwrap();
    assert!(tar.wait().unwrap().success());
}

/// The names in an archive, with what hard links lead to.
fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        match entry.link_name_bytes() {
            Some(target) => format!("{name} -> {}", String::from_utf8_lossy(&target)),
            None => name,
        }
    });
    entries.collect()
}

#[test]
fn gnu_tar_restores_the_tree_and_a_pack_of_the_archive_is_the_same_image() {
    let tree = tree();
    let expected = pack_with(&memory(), tree.path(), &Options::default()).unwrap().digest;
    let mut archives = Vec::new();
    // With tables of contents, in one layer and in several; and without.
    for options in [options("zstd", 512 << 20), options("zstd", 1 << 20), options("gzip", 1 << 20)] {
        let image = memory();
        pack_with(&image, tree.path(), &options).unwrap();
        let archive = archive_of(&image, PathFilter::All).unwrap();
        let target = tempfile::tempdir().unwrap();
        extract(&archive, target.path());
        assert_eq!(snapshot(target.path()), snapshot(tree.path()));
        let (_, packed) = pack_archive(&archive, &Options::default()).unwrap();
        assert_eq!(packed.digest, expected);
        archives.push(archive);
    }
    assert!(archives.iter().all(|archive| *archive == archives[0]), "the bytes depend on the tree only");
}

#[test]
fn layers_are_merged_before_they_are_written() {
    let image = memory();
    let layers: Vec<_> = [&["a/x=1", "a/y=2", "b=3"][..], &["a/.wh.x", "b=4", "c=5"]]
        .iter()
        .map(|lines| layer(&image, lines))
        .collect();
    publish(&image, &layers);
    let target = tempfile::tempdir().unwrap();
    extract(&archive_of(&image, PathFilter::All).unwrap(), target.path());
    let read = |name: &str| fs::read_to_string(target.path().join(name)).unwrap();
    assert_eq!((read("a/y"), read("b"), read("c")), ("2".to_owned(), "4".to_owned(), "5".to_owned()));
    assert!(!target.path().join("a/x").exists());
}

#[test]
fn a_part_of_an_image_has_its_hard_links_as_files_where_the_first_name_is_left_out() {
    let (tree, image) = (tree(), memory());
    pack_with(&image, tree.path(), &Options::default()).unwrap();
    let below = |path: &str| PathFilter::Subpath(TreePath::parse(path).unwrap());
    let part = archive_of(&image, below("sub")).unwrap();
    assert_eq!(names(&part), ["./", "a", "deep/", "deep/sparse"]);
    let target = tempfile::tempdir().unwrap();
    extract(&part, target.path());
    assert_eq!(fs::read_to_string(target.path().join("a")).unwrap(), "content");
    assert_eq!(names(&archive_of(&image, below("z-last")).unwrap()), ["z-last"]);
    assert_eq!(names(&archive_of(&image, PathFilter::Strip(1)).unwrap()), ["a", "deep/", "deep/sparse"]);
    assert_eq!(archive_of(&image, below("missing")).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(archive_of(&image, PathFilter::Strip(9)).unwrap_err().kind(), Kind::NotFound);
}

/// An image in a layout, and the path of its largest blob.
fn layout(directory: &Path, compression: &str) -> (String, std::path::PathBuf) {
    let (tree, name) = (directory.join("tree"), format!("oci:{}:v1", directory.join("layout").display()));
    fs::create_dir(&tree).unwrap();
    // It does not compress, so that the middle of the blob is the content of a file.
    let mut state = 1u64;
    for number in 0..8 {
        let mut bytes = vec![0; 1 << 20];
        for byte in &mut bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        fs::write(tree.join(format!("{number}")), bytes).unwrap();
    }
    let destination = name.parse::<volio::Location>().unwrap().destination(&Default::default()).unwrap();
    pack_with(&*destination, &tree, &options(compression, 512 << 20)).unwrap();
    let blobs = fs::read_dir(directory.join("layout/blobs/sha256")).unwrap().map(|blob| blob.unwrap().path());
    (name, blobs.max_by_key(|blob| fs::metadata(blob).unwrap().len()).unwrap())
}

fn volio(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_volio")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn what_cannot_be_verified_is_not_written_and_tar_rejects_the_archive() {
    for (compression, has_begun) in [("zstd", true), ("gzip", false)] {
        let directory = tempfile::tempdir().unwrap();
        let (name, blob) = layout(directory.path(), compression);
        let whole = volio(&["unpack", &name, "-"]);
        assert!(whole.status.success() && whole.stdout.ends_with(&[0; 1024]));
        let mut bytes = fs::read(&blob).unwrap();
        // In the content of a file: headers between them come from the table of contents.
        let middle = bytes.len() / 3;
        bytes[middle] ^= 1;
        fs::write(&blob, bytes).unwrap();
        let broken = volio(&["unpack", &name, "-"]);
        assert_eq!(broken.status.code(), Some(3), "{}", String::from_utf8_lossy(&broken.stderr));
        assert_eq!(!broken.stdout.is_empty(), has_begun, "{compression}");
        if has_begun {
            let (verified, end) = broken.stdout.split_at(broken.stdout.len() - 256);
            assert!(whole.stdout.starts_with(verified) && end == [b'-'; 256], "{compression}");
            let archive = directory.path().join("broken.tar");
            fs::write(&archive, &broken.stdout).unwrap();
            let listed = Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
            assert!(!listed.status.success());
        }
    }
}

#[test]
fn standard_output_has_the_archive_alone_and_options_for_directories_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (name, _) = layout(directory.path(), "zstd");
    let output = volio(&["unpack", &name, "-"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(names(&output.stdout).len(), 9);
    assert!(stderr.lines().last().unwrap().contains("@sha256:"), "{stderr}");
    assert!(stderr.contains("unpacked 9 entries"), "{stderr}");
    for option in
        ["--merge", "--keep", "--checksum", "--atomic", "--no-devices", "--artifact", "--format=json"]
    {
        let refused = volio(&["unpack", option, &name, "-"]);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{option}");
    }
}

#[test]
fn an_image_of_data_io_is_not_written_by_mistake() {
    let tree = tree();
    let image = Memory::default().named("image:1");
    let sources = [volio::SourceSpec::new(tree.path())];
    volio::data_io::pack(&image, &sources, &Options::default(), &std::env::temp_dir(), &Silent).unwrap();
    assert_eq!(archive_of(&image, PathFilter::All).unwrap_err().kind(), Kind::Usage);
}
