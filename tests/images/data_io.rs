//! Images of data-io: a base that is not needed, and one layer with `data.tar.gz`.

use super::{make_tree, memory, unpack};
use crate::snapshot::assert_same;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;
use volio::Error;
use volio::error::Kind;
use volio::oci::{Descriptor, Digest, Document, ImageConfig, Manifest, RootFs, media_type};
use volio::pack::{Options, Packed};
use volio::progress::Silent;
use volio::stream::Body;
use volio::transport::memory::Memory;
use volio::transport::{Destination, Source};
use volio::tree::{SourceSpec, TreePath};
use volio::unpack::{Options as UnpackOptions, PathFilter, ReadAs, unpack as unpack_with};

/// The entries of an archive: a name that ends in a slash is a directory.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        let is_directory = name.ends_with('/');
        header.set_entry_type(if is_directory { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_mode(if is_directory { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Level::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// An image as `docker commit` makes it: a base whose blob is missing, and a layer with these files; `by` is the container's command.
fn committed(layer: &[u8], by: &str) -> Memory {
    let image = memory();
    let blob = gzip(layer);
    image.upload(Body::new(std::io::Cursor::new(blob.clone()))).unwrap();
    let base = Descriptor::new(media_type::DOCKER_LAYER_GZIP, Digest::of(b"the base is not here"), 1 << 20);
    let top = Descriptor::of(media_type::DOCKER_LAYER_GZIP, &blob);
    let mut config: ImageConfig = serde_json::from_value(serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "history": [
            {"created_by": "/bin/sh -c #(nop) ADD file:1 in / "},
            {"created_by": "/bin/sh -c #(nop) CMD [\"/bin/sh\"]", "empty_layer": true},
            {"created_by": by},
        ],
    }))
    .unwrap();
    config.rootfs = RootFs::new(vec![Digest::of(b"base"), Digest::of(layer)]);
    let config = Document::write(media_type::DOCKER_CONFIG, &config);
    image.upload(Body::new(std::io::Cursor::new(config.bytes().to_vec()))).unwrap();
    let mut manifest = Manifest::new(config.descriptor().clone(), vec![base, top], Default::default());
    manifest.media_type = Some(media_type::DOCKER_MANIFEST.to_owned());
    let manifest = Document::write(media_type::DOCKER_MANIFEST, &manifest);
    image.put_manifest(&manifest).unwrap();
    image.commit(&manifest).unwrap();
    image
}

/// The same with this archive in it.
fn made_of(data: &[u8]) -> Memory {
    committed(&archive(&[("data.tar.gz", data)]), "/bin/sh")
}

fn target() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Returns the names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_archive_in_the_last_layer_is_unpacked_and_the_base_is_not_fetched() {
    for by in ["/bin/sh", "sh", ""] {
        let data = gzip(&archive(&[("./", b""), ("./dir/", b""), ("./dir/file", b"data\n")]));
        let target = target();
        let unpacked = unpack(&committed(&archive(&[("data.tar.gz", &data)]), by), target.path()).unwrap();
        assert!(unpacked.data_io);
        assert_eq!((unpacked.layers, unpacked.extracted.entries), (1, 3));
        assert_eq!(names(target.path()), ["dir"]);
        assert_eq!(fs::read_to_string(target.path().join("dir/file")).unwrap(), "data\n");
    }
}

#[test]
fn directories_beside_the_archive_are_the_containers_own() {
    let data = gzip(&archive(&[("./file", b"data")]));
    let layer = archive(&[("root/", b""), ("data.tar.gz", &data), ("tmp/", b"")]);
    let target = target();
    assert!(unpack(&committed(&layer, "sh"), target.path()).unwrap().data_io);
    assert_eq!(names(target.path()), ["file"]);
}

#[test]
fn an_image_with_more_than_the_archive_or_built_by_instructions_is_an_ordinary_one() {
    let data = gzip(&archive(&[("./file", b"data")]));
    let more = archive(&[("data.tar.gz", &data), ("other", b"")]);
    let only = archive(&[("data.tar.gz", &data)]);
    let gone = archive(&[(".wh.data.tar.gz", b"")]);
    for (layer, by) in
        [(&more, "sh"), (&only, "COPY data.tar.gz / # buildkit"), (&only, "volio pack"), (&gone, "sh")]
    {
        // The base is wanted then, and it is not there.
        let error = unpack(&committed(layer, by), target().path()).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{by}: {error}");
    }
}

#[test]
fn an_image_can_be_taken_as_it_is() {
    let tree = target();
    fs::write(tree.path().join("file"), "data").unwrap();
    let (image, target) = (memory(), target());
    pack_as_data_io(&image, tree.path());
    let options = UnpackOptions {
        read_as: ReadAs::Image { as_is: true, any_media_type: false },
        ..UnpackOptions::default()
    };
    let unpacked = unpack_with(&image, target.path(), &options, &Silent).unwrap();
    assert!(!unpacked.data_io);
    assert_eq!(names(target.path()), ["data.tar.gz"]);
}

#[test]
fn a_part_of_the_archive_is_found_in_it() {
    let data = gzip(&archive(&[("./a/", b""), ("./a/b/", b""), ("./a/b/file", b"data"), ("./c", b"")]));
    let target = target();
    let filter = PathFilter::Subpath(TreePath::parse("a/b").unwrap());
    let options = UnpackOptions { filter, ..UnpackOptions::default() };
    unpack_with(&made_of(&data), target.path(), &options, &Silent).unwrap();
    assert_eq!(names(target.path()), ["file"]);
}

#[test]
fn names_that_mean_something_in_layers_mean_nothing_in_the_archive() {
    let data = gzip(&archive(&[("./a", b"1"), ("./.wh.a", b"2"), ("./.wh..wh..opq", b"3")]));
    let target = target();
    unpack(&made_of(&data), target.path()).unwrap();
    assert_eq!(names(target.path()), [".wh..wh..opq", ".wh.a", "a"]);
}

#[test]
fn a_damaged_archive_is_found_before_anything_of_it_is_unpacked() {
    let large = vec![7; 3 << 20];
    let whole = archive(&[("./file", b"data"), ("./large", &large)]);
    let data = gzip(&whole);
    let mut wrong = data.clone();
    let checksum = wrong.len() - 8;
    wrong[checksum] ^= 1;
    for (what, damaged) in [
        ("cut off", data[..data.len() - 100].to_vec()),
        ("a wrong checksum", wrong),
        ("cut off before it was compressed", gzip(&whole[..whole.len() - (1 << 20)])),
        ("no archive", b"something else altogether".to_vec()),
        ("leads out", gzip(&leading_out())),
    ] {
        let target = target();
        let error = unpack(&made_of(&damaged), target.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity, "{what}: {error}");
        assert!(error.to_string().contains("data.tar.gz in the image is damaged"), "{what}: {error}");
        assert_eq!(names(target.path()), [""; 0], "{what}");
        // Nothing is noted that another image would find in its way.
        unpack(&made_of(&data), target.path()).unwrap();
    }
}

/// An archive whose second file leads out of the target, which no builder would write.
fn leading_out() -> Vec<u8> {
    let mut bytes = archive(&[("./file", b"data"), ("./x/outside", b"")]);
    let header = &mut bytes[1024..1536];
    header[..11].copy_from_slice(b"../outside\0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

fn pack_as_data_io(to: &dyn Destination, tree: &Path) -> Packed {
    try_to_pack(to, tree, &std::env::temp_dir()).unwrap()
}

fn try_to_pack(to: &dyn Destination, tree: &Path, spool: &Path) -> volio::Result<Packed> {
    volio::data_io::pack(to, &[SourceSpec::new(tree)], &Options::default(), spool, &Silent)
}

#[test]
fn what_is_packed_for_data_io_comes_back() {
    let (tree, target, image) = (target(), target(), memory());
    make_tree(tree.path());
    // The format has whole seconds.
    let mut touch = Command::new("find");
    touch.arg(tree.path()).args(["-exec", "touch", "-hd", "@1600000000", "{}", "+"]);
    assert!(touch.status().unwrap().success());
    let packed = pack_as_data_io(&image, tree.path());
    let unpacked = unpack(&image, target.path()).unwrap();
    assert!(unpacked.data_io);
    assert_eq!(unpacked.extracted.entries, packed.entries);
    assert_same(tree.path(), target.path());
}

#[test]
fn what_is_packed_for_data_io_is_in_dockers_format_and_always_the_same() {
    let (tree, first, second) = (target(), memory(), memory());
    make_tree(tree.path());
    let packed = pack_as_data_io(&first, tree.path());
    assert_eq!(pack_as_data_io(&second, tree.path()).digest, packed.digest);
    let root = first.resolve().unwrap();
    assert_eq!(root.descriptor().media_type, media_type::DOCKER_MANIFEST);
    let manifest = Manifest::parse(&root).unwrap();
    assert_eq!(manifest.config.media_type, media_type::DOCKER_CONFIG);
    assert_eq!(manifest.layers.len(), 1);
    assert_eq!(manifest.layers[0].media_type, media_type::DOCKER_LAYER_GZIP);
    assert_eq!(packed.layers[0].media_type, media_type::DOCKER_LAYER_GZIP);
    let config: ImageConfig = volio::transport::fetch(&first, &manifest.config).unwrap().parse().unwrap();
    assert_eq!(config.config.unwrap().cmd, ["sh"]);
}

#[test]
fn tar_reads_what_is_packed_for_data_io() {
    let (tree, target, image) = (target(), target(), memory());
    make_tree(tree.path());
    let deep = tree.path().join("d".repeat(120)).join("e".repeat(140));
    fs::create_dir_all(&deep).unwrap();
    std::os::unix::fs::symlink("t".repeat(200), deep.join("link")).unwrap();
    fs::write(deep.join(".wh.name"), "no whiteout").unwrap();
    pack_as_data_io(&image, tree.path());
    let manifest = Manifest::parse(&image.resolve().unwrap()).unwrap();
    let mut layer = image.open(&manifest.layers[0]).unwrap().verify(&manifest.layers[0]);
    let mut outer = Vec::new();
    layer.read_to_end(&mut outer).unwrap();
    let mut outer = tar::Archive::new(flate2::read::MultiGzDecoder::new(&outer[..]));
    let mut entries = outer.entries().unwrap();
    let mut entry = entries.next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap(), Path::new("data.tar.gz"));
    let mut data = Vec::new();
    entry.read_to_end(&mut data).unwrap();
    assert!(entries.next().is_none());

    let mut tar = Command::new("tar");
    tar.args(["-xz", "-C"]).arg(target.path()).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut tar = tar.spawn().unwrap();
    tar.stdin.take().unwrap().write_all(&data).unwrap();
    let output = tar.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let mut differ = Command::new("diff");
    let differ = differ.args(["-r", "--no-dereference"]).args([tree.path(), target.path()]).output().unwrap();
    assert!(differ.status.success(), "{differ:?}");
}

#[test]
fn a_place_for_the_archive_that_is_not_there_is_named() {
    let tree = target();
    let error: Error = try_to_pack(&memory(), tree.path(), Path::new("/nowhere")).unwrap_err();
    assert!(error.to_string().starts_with("cannot write the archive in /nowhere"), "{error}");
    assert!(error.hint().unwrap().contains("TMPDIR"));
}

#[test]
fn what_data_io_could_not_say_is_a_usage_error() {
    let tree = target();
    let kind = |options: &Options| {
        let sources = [SourceSpec::new(tree.path())];
        volio::data_io::pack(&memory(), &sources, options, &std::env::temp_dir(), &Silent).unwrap_err().kind()
    };
    let mut options = Options::default();
    options.image.platforms = ["linux/amd64", "linux/arm64"].map(|text| text.parse().unwrap()).to_vec();
    assert_eq!(kind(&options), Kind::Usage);
    options.image.platforms.clear();
    options.image.annotations.insert("a".to_owned(), "b".to_owned());
    assert_eq!(kind(&options), Kind::Usage);
}
