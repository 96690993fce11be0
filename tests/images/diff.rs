//! Differences between images and directories.

use super::layers::{layer, publish};
use super::partial::{Counting, file, frame, handmade};
use super::{make_tree, memory, pack, pack_with, unpack};
use serde_json::json;
use std::fs;
use std::path::Path;
use volio::diff::{Attribute, ContentComparison, Options, Side, diff};
use volio::error::Kind;
use volio::layer::{Compression, Layer, Toc};
use volio::oci::{Digest, Index, Manifest};
use volio::progress::Silent;
use volio::transport::memory::Memory;
use volio::transport::{Source, fetch};

fn lines(left: Side<'_>, right: Side<'_>, options: &Options) -> Vec<String> {
    let compared = diff(left, right, options, &Silent).unwrap();
    compared.differences().map(|difference| difference.to_string()).collect()
}

#[test]
fn an_image_equals_the_tree_that_it_was_made_of_and_its_unpacked_tree() {
    let (tree, target, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), memory());
    make_tree(tree.path());
    pack(&image, tree.path());
    unpack(&image, target.path()).unwrap();
    let options = Options::default();
    for directory in [tree.path(), target.path()] {
        assert_eq!(lines(Side::Image(&image), Side::Directory(directory), &options), Vec::<String>::new());
    }
    assert_eq!(lines(Side::Image(&image), Side::Image(&image), &options), Vec::<String>::new());
    assert_eq!(diff(Side::Image(&image), Side::Image(&image), &options, &Silent).unwrap().entries(), 11);
}

#[test]
fn two_images_are_compared_as_their_trees_are() {
    let (tree, first, second) = (tempfile::tempdir().unwrap(), memory(), memory());
    make_tree(tree.path());
    pack(&first, tree.path());
    fs::write(tree.path().join("file"), "CONTENT\n").unwrap();
    fs::remove_file(tree.path().join("dangling")).unwrap();
    fs::rename(tree.path().join("empty"), tree.path().join("renamed")).unwrap();
    pack(&second, tree.path());
    let options = Options { ignore: [Attribute::Mtime].into(), ..Options::default() };
    let between = lines(Side::Image(&first), Side::Image(&second), &options);
    assert_eq!(between.len(), 4, "{between:?}");
    assert_eq!(&between[0], "- /dangling");
    assert!(between[1].starts_with("~ /dir/again content sha256:"), "the first name: {between:?}");
    assert_eq!(&between[2..], ["- /empty", "+ /renamed"]);
    assert_eq!(lines(Side::Image(&first), Side::Directory(tree.path()), &options), between);
}

#[test]
fn a_missing_directory_is_not_an_empty_one() {
    let image = memory();
    pack(&image, tempfile::tempdir().unwrap().path());
    let missing = Side::Directory(Path::new("/nowhere at all"));
    let error = diff(Side::Image(&image), missing, &Options::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

/// Bytes that do not repeat.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A tree with files of all sizes that matter: small ones, one that barely fits into a frame, one that is cut, and sparse ones.
fn make_large_tree(root: &Path) {
    make_tree(root);
    let sparse = [vec![0; 5 << 20], noise(2, 700_000), vec![0; (9 << 20) + 70_000], noise(3, 10)].concat();
    for (name, content) in [
        ("cut", noise(1, 19 << 20)),
        ("one-frame", noise(4, (4 << 20) - 1024)),
        ("sparse", [sparse.clone(), vec![0; 6 << 20]].concat()),
        ("zeros", vec![0; 6 << 20]),
    ] {
        fs::write(root.join(name), content).unwrap();
    }
    super::set_times(root);
}

/// The size of all tables of contents of the image, in bytes.
fn size_of_tocs(image: &Memory) -> u64 {
    let index = Index::parse(&image.resolve().unwrap()).unwrap();
    let manifest = Manifest::parse(&fetch(image, &index.manifests[0]).unwrap()).unwrap();
    let tocs = manifest.layers.iter().map(|layer| Toc::of(layer).unwrap().unwrap().range());
    tocs.map(|range| range.end - range.start).sum()
}

#[test]
fn tables_of_contents_are_compared_and_no_content_is_fetched() {
    let (tree, first, second) = (tempfile::tempdir().unwrap(), memory(), memory());
    make_large_tree(tree.path());
    pack(&first, tree.path());
    let mut cut = noise(1, 19 << 20);
    cut[9 << 20..(9 << 20) + 300_000].copy_from_slice(&noise(9, 300_000));
    fs::write(tree.path().join("cut"), cut).unwrap();
    fs::write(tree.path().join("file"), "CONTENT\n").unwrap();
    super::set_times(tree.path());
    pack(&second, tree.path());
    let (first, second, sizes) =
        (Counting::new(&first), Counting::new(&second), [&first, &second].map(size_of_tocs));
    let options = Options::default();
    let changed = |lines: Vec<String>| {
        let path = |line: &String| line.split(' ').take(3).collect::<Vec<_>>().join(" ");
        lines.iter().map(path).collect::<Vec<_>>()
    };
    let expected = ["~ /cut content", "~ /dir/again content"];
    assert_eq!(changed(lines(Side::Image(&first), Side::Image(&second), &options)), expected);
    assert_eq!((first.taken(), second.taken()), ((0, sizes[0]), (0, sizes[1])));
    assert_eq!(changed(lines(Side::Image(&first), Side::Directory(tree.path()), &options)), expected);
    assert_eq!(first.taken(), (0, sizes[0]));
    let equal = lines(Side::Image(&second), Side::Directory(tree.path()), &options);
    assert_eq!(equal, Vec::<String>::new());
    assert_eq!(second.taken(), (0, sizes[1]));
}

#[test]
fn an_image_with_tables_of_contents_equals_one_without() {
    let (tree, indexed, streamed) = (tempfile::tempdir().unwrap(), memory(), memory());
    make_large_tree(tree.path());
    pack(&indexed, tree.path());
    let gzip = volio::pack::Options { compression: Compression::Gzip { level: 1 }, ..Default::default() };
    pack_with(&streamed, tree.path(), &gzip).unwrap();
    let options = Options::default();
    assert_eq!(lines(Side::Image(&indexed), Side::Image(&streamed), &options), Vec::<String>::new());
    fs::write(tree.path().join("cut"), noise(7, 19 << 20)).unwrap();
    fs::write(tree.path().join("one-frame"), noise(7, (4 << 20) - 1024)).unwrap();
    super::set_times(tree.path());
    pack_with(&streamed, tree.path(), &gzip).unwrap();
    let between = lines(Side::Image(&indexed), Side::Image(&streamed), &options);
    assert!(between.len() == 2 && between[0].starts_with("~ /cut content sha256:"), "{between:?}");
}

#[test]
fn contents_that_two_tables_of_contents_cut_differently_count_as_different() {
    let image = |parts: &[&[u8]]| {
        let image = memory();
        let frames: Vec<_> = parts.iter().map(|part| frame(part)).collect();
        let (mut at, mut offset, mut entries) = (0, 0, Vec::new());
        for (part, frame) in parts.iter().zip(&frames) {
            let digest = Digest::of(part).to_string();
            entries.push(json!({
                "name": "a", "type": if entries.is_empty() { "reg" } else { "chunk" }, "chunkDigest": digest,
                "offset": at, "endOffset": at + frame.len(), "chunkOffset": offset, "chunkSize": part.len(),
            }));
            at += frame.len();
            offset += part.len();
        }
        entries[0]["size"] = offset.into();
        let layer = handmade(&image, &frames, &entries);
        publish(&image, &[layer]);
        image
    };
    let whole = memory();
    let one = frame(b"some content");
    let layer = handmade(&whole, std::slice::from_ref(&one), &[file("a", b"some content", 0..one.len())]);
    publish(&whole, &[layer]);
    let options = Options { ignore: [Attribute::Mode].into(), ..Options::default() };
    for content in [&b"content"[..], b"comment"] {
        let cut = image(&[b"some ", content]);
        let lines = lines(Side::Image(&whole), Side::Image(&cut), &options);
        let expected = format!("~ /a content {} sha256:", Digest::of(b"some content"));
        assert!(lines.len() == 1 && lines[0].starts_with(&expected), "{lines:?}");
    }
}

#[test]
fn a_layer_with_another_content_than_the_image_says_is_an_integrity_error() {
    let (image, sound) = (memory(), memory());
    let wrong = Layer { diff_id: Digest::of(b"something else"), ..layer(&image, &["a=1"]) };
    publish(&image, &[wrong]);
    publish(&sound, &[layer(&sound, &["a=1"])]);
    let error = diff(Side::Image(&sound), Side::Image(&image), &Options::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity);
    assert!(error.to_string().starts_with("the content of a layer has the digest"), "{error}");
}

fn quick() -> Options {
    Options { contents: ContentComparison::IfMtimeDiffers, ..Options::default() }
}

fn rewrite(path: &Path, content: &str) {
    let mtime = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, content).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(mtime).unwrap();
}

#[test]
fn a_quick_comparison_reads_a_file_only_if_its_size_is_equal_and_its_mtime_is_not() {
    let (tree, image) = (tempfile::tempdir().unwrap(), memory());
    let at = |name: &str| tree.path().join(name);
    for name in ["hidden", "touched", "changed", "grown"] {
        fs::write(at(name), "before").unwrap();
    }
    super::set_times(tree.path());
    pack(&image, tree.path());
    rewrite(&at("hidden"), "after!");
    fs::File::options().write(true).open(at("touched")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::write(at("changed"), "after!").unwrap();
    rewrite(&at("grown"), "longer than before");
    let (of_image, of_tree) = (Side::Image(&image), Side::Directory(tree.path()));
    let words = |lines: Vec<String>| {
        let words = |line: &String| line.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" ");
        lines.iter().map(words).collect::<Vec<_>>()
    };
    let noticed = ["/changed content", "/changed mtime", "/grown size", "/touched mtime"];
    assert_eq!(words(lines(of_image, of_tree, &quick())), noticed);
    assert_eq!(words(lines(of_tree, of_image, &quick())), noticed);
    let by_content = words(lines(of_image, of_tree, &Options::default()));
    assert_eq!(by_content, [&noticed[..3], &["/hidden content"], &noticed[3..]].concat());
}

#[test]
fn a_quick_comparison_of_two_files_that_became_one_reads_it() {
    let (tree, image) = (tempfile::tempdir().unwrap(), memory());
    let at = |name: &str| tree.path().join(name);
    fs::write(at("a1"), "one").unwrap();
    fs::write(at("b1"), "two").unwrap();
    super::set_times(tree.path());
    pack(&image, tree.path());
    fs::remove_file(at("b1")).unwrap();
    fs::hard_link(at("a1"), at("b1")).unwrap();
    super::set_times(tree.path());
    let found = lines(Side::Image(&image), Side::Directory(tree.path()), &quick());
    assert_eq!(found, lines(Side::Image(&image), Side::Directory(tree.path()), &Options::default()));
    assert!(found[0].starts_with("~ /b1 content sha256:"), "{found:?}");
}

#[test]
fn a_quick_comparison_finds_what_a_full_one_finds_where_every_change_has_another_mtime() {
    let (tree, image) = (tempfile::tempdir().unwrap(), memory());
    make_large_tree(tree.path());
    pack(&image, tree.path());
    for (name, content) in [("cut", noise(7, 19 << 20)), ("one-frame", noise(8, (4 << 20) - 1024))] {
        fs::write(tree.path().join(name), content).unwrap();
    }
    fs::write(tree.path().join("dir/again"), "CONTENT\n").unwrap();
    fs::remove_file(tree.path().join("empty")).unwrap();
    fs::create_dir(tree.path().join("empty")).unwrap();
    let sides = (Side::Image(&image), Side::Directory(tree.path()));
    let found = lines(sides.0, sides.1, &quick());
    assert_eq!(found, lines(sides.0, sides.1, &Options::default()));
    assert!(found.len() > 6, "{found:?}");
}

#[test]
fn only_a_directory_and_an_image_are_compared_quickly() {
    let image = memory();
    pack(&image, tempfile::tempdir().unwrap().path());
    let error = diff(Side::Image(&image), Side::Image(&image), &quick(), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
}
