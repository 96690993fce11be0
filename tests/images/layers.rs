//! Images of several layers: what upper layers change, and what whiteouts take away.

use super::{make_tree, memory, pack, unpack};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read};
use volio::copy::copy;
use volio::error::Kind as ErrorKind;
use volio::image::{Description, ReadOptions};
use volio::layer::{Compression, Layer, LayerWriter, decompress};
use volio::oci::{Algorithm, Digest, Document, Hasher, Index, Manifest, media_type};
use volio::progress::Silent;
use volio::stream::Body;
use volio::transport::memory::Memory;
use volio::transport::{Destination, Source, fetch};
use volio::tree::{Entry, EntryKind, Metadata, TreePath};

/// A layer from lines: `dir/` is a directory, `name=content` a file, `name->target` a symbolic link, and
/// `name` alone, as a whiteout has it, an empty file.
pub fn layer(image: &Memory, lines: &[&str]) -> Layer {
    let mut archive = Vec::new();
    let mut tar = tar::Builder::new(&mut archive);
    for line in lines {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        let (name, content) = line.split_once('=').unwrap_or((line, ""));
        header.set_size(content.len() as u64);
        header.set_uid(rustix::process::getuid().as_raw().into());
        header.set_gid(rustix::process::getgid().as_raw().into());
        match (line.split_once("->"), name.ends_with('/')) {
            (Some((name, target)), _) => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, name, target).unwrap();
            }
            (None, true) => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, name, &b""[..]).unwrap();
            }
            (None, false) => tar.append_data(&mut header, name, content.as_bytes()).unwrap(),
        }
    }
    tar.finish().unwrap();
    drop(tar);
    blob(image, &archive)
}

/// A layer of these very bytes, archive or not.
pub fn blob(image: &Memory, bytes: &[u8]) -> Layer {
    let diff_id = volio::oci::Digest::of(bytes);
    let written = image.upload(Body::new(Cursor::new(bytes.to_vec()))).unwrap();
    let contents = volio::layer::Contents { diff_id, size: written.size, entries: 0, bytes: 0 };
    Layer::new(Compression::None, &contents, written, None)
}

/// Gives an image of these layers its name.
pub fn publish(image: &Memory, layers: &[Layer]) {
    let built = Description::default().build(layers).unwrap();
    for document in built.configs.iter().chain(&built.manifests).chain([&built.root]) {
        image.put_manifest(document).unwrap();
    }
    image.commit(&built.root).unwrap();
}

/// Returns the tree of all layers, by unpacking and by listing, which must agree.
fn applied(layers: &[&[&str]]) -> Vec<String> {
    let image = memory();
    let layers: Vec<Layer> = layers.iter().map(|lines| layer(&image, lines)).collect();
    publish(&image, &layers);
    let target = tempfile::tempdir().unwrap();
    unpack(&image, target.path()).unwrap();
    let seen: Vec<_> = crate::snapshot::snapshot(target.path()).into_iter().skip(1).collect();
    let listed = volio::list::list(&image, &ReadOptions::default(), &Silent).unwrap();
    let listed: Vec<_> = listed
        .entries()
        .map(|entry| entry.path)
        .filter(|path| !path.is_root())
        .map(|path| path.as_path().to_owned())
        .collect();
    assert_eq!(
        listed,
        seen.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(),
        "a listing and the target differ"
    );
    let line = |(path, seen): &(std::path::PathBuf, crate::snapshot::Seen)| {
        format!("{}={}", path.display(), String::from_utf8_lossy(&seen.content))
    };
    seen.iter().filter(|(_, seen)| seen.kind != "directory").map(line).collect()
}

#[test]
fn an_upper_layer_replaces_adds_and_takes_away() {
    let lower: &[&str] = &["a/", "a/keep=1", "a/change=1", "a/gone=1", "b/", "b/x=1"];
    let upper: &[&str] = &["a/", "a/.wh.gone", "a/change=2", "a/new=2", ".wh.b"];
    assert_eq!(applied(&[lower, upper]), ["a/change=2", "a/keep=1", "a/new=2"]);
}

#[test]
fn a_whiteout_spares_what_its_own_layer_brings_wherever_it_stands() {
    let lower: &[&str] = &["a/", "a/old=1", "b=1"];
    assert_eq!(applied(&[lower, &["a/", "a/new=2", "a/.wh..wh..opq", "b=2", ".wh.b"]]), ["a/new=2", "b=2"]);
    assert_eq!(applied(&[lower, &["a/", "a/.wh..wh..opq", "a/new=2", ".wh.b", "b=2"]]), ["a/new=2", "b=2"]);
}

#[test]
fn a_whiteout_of_nothing_is_no_error() {
    assert_eq!(applied(&[&["a=1"], &[".wh.b", "c/", "c/.wh.d", "c/.wh..wh..opq"]]), ["a=1"]);
}

#[test]
fn a_directory_gives_way_to_a_file_and_a_file_to_a_directory() {
    assert_eq!(applied(&[&["a/", "a/x=1", "b=1"], &["a=2", "b/", "b/y=2"]]), ["a=2", "b/y=2"]);
}

#[test]
fn a_link_to_a_directory_gives_way_to_a_directory() {
    assert_eq!(applied(&[&["real/", "real/x=1", "a->real"], &["a/", "a/y=2"]]), ["a/y=2", "real/x=1"]);
}

#[test]
fn a_file_below_a_link_never_lands_where_the_link_leads() {
    let outside = tempfile::tempdir().unwrap();
    let link = format!("a->{}", outside.path().display());
    for layers in [vec![vec![link.as_str(), "a/evil=1"]], vec![vec![link.as_str()], vec!["a/evil=1"]]] {
        let image = memory();
        let layers: Vec<Layer> = layers.iter().map(|lines| layer(&image, lines)).collect();
        publish(&image, &layers);
        let target = tempfile::tempdir().unwrap();
        let error = unpack(&image, target.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_hard_link_never_reaches_outside() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let image = memory();
    let mut archive = LayerWriter::new(Vec::new());
    let target = TreePath::parse(outside.path().as_os_str().as_encoded_bytes()).unwrap();
    let metadata = Metadata { mode: 0o777, xattrs: BTreeMap::new(), ..Metadata::default() };
    let path = TreePath::parse("link").unwrap();
    archive
        .append(&Entry { path, kind: EntryKind::Hardlink { target }, metadata }, &b""[..], |_| {})
        .unwrap();
    let (archive, contents) = archive.finish().unwrap();
    let written = image.upload(Body::new(Cursor::new(archive))).unwrap();
    publish(&image, &[Layer::new(Compression::None, &contents, written, None)]);
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(unpack(&image, directory.path()).unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn what_the_target_held_is_never_taken_away() {
    let (image, target) = (memory(), tempfile::tempdir().unwrap());
    let layers = [layer(&image, &["a=1"]), layer(&image, &[".wh.lost+found", ".wh..wh..opq"])];
    publish(&image, &layers);
    fs::create_dir(target.path().join("lost+found")).unwrap();
    if rustix::process::getuid().is_root() {
        unpack(&image, target.path()).unwrap();
        assert!(target.path().join("lost+found").exists());
    }
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("precious"), "1").unwrap();
    assert_eq!(unpack(&image, target.path()).unwrap_err().kind(), ErrorKind::Refused);
    assert!(target.path().join("precious").exists());
}

#[test]
fn indexes_that_are_nested_too_deep_are_not_copied() {
    let image = memory();
    publish(&image, &[layer(&image, &["a=1"])]);
    let copy = || copy(&image, &Memory::default().named("copy"), &volio::copy::Options::default(), &Silent);
    assert!(copy().is_ok());
    // Deep enough for a stack to overflow, if each of them were a call.
    for _ in 0..20_000 {
        let index = Index::new(vec![image.resolve().unwrap().descriptor().clone()], BTreeMap::new());
        let index = Document::write(media_type::INDEX, &index);
        image.put_manifest(&index).unwrap();
        image.commit(&index).unwrap();
    }
    assert_eq!(copy().unwrap_err().kind(), ErrorKind::Integrity);
}

/// A tree that makes several layers of 1 MiB, with directories of all sorts, and names of one file all over it.
fn large_tree(root: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    for directory in ["a/deep/down", "b", "empty", "z"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for n in 0..120u32 {
        let directory = ["a", "a/deep", "a/deep/down", "b", "z"][n as usize % 5];
        fs::write(root.join(directory).join(format!("{n:03}")), vec![n as u8; 40_000]).unwrap();
    }
    fs::write(root.join("b/alone"), vec![7; 5 << 20]).unwrap();
    for (name, further) in
        [("a/000", "z/again"), ("b/alone", "z/alone"), ("b/alone", "b/beside"), ("z/004", "z/near")]
    {
        fs::hard_link(root.join(name), root.join(further)).unwrap();
    }
    for (directory, mode) in [("a", 0o700), ("a/deep", 0o1777), ("empty", 0o711), ("z", 0o750)] {
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(mode)).unwrap();
    }
    super::set_times(root);
}

fn packed_small(image: &Memory, tree: &std::path::Path) -> Vec<volio::pack::PackedLayer> {
    let options = volio::pack::Options { layer_size: 1 << 20, ..volio::pack::Options::default() };
    super::pack_with(image, tree, &options).unwrap().layers
}

#[test]
fn a_tree_of_several_layers_comes_back_as_it_was() {
    let (tree, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    large_tree(tree.path());
    let image = memory();
    let layers = packed_small(&image, tree.path());
    assert!((5..12).contains(&layers.len()), "{}", layers.len());
    unpack(&image, target.path()).unwrap();
    let (before, after) = (crate::snapshot::snapshot(tree.path()), crate::snapshot::snapshot(target.path()));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (path, seen) in &before {
        assert_eq!(after[path], *seen, "{}", path.display());
    }
    let again: Vec<_> = packed_small(&memory(), tree.path()).into_iter().map(|layer| layer.digest).collect();
    assert_eq!(again, layers.into_iter().map(|layer| layer.digest).collect::<Vec<_>>());
}

#[test]
fn a_new_file_changes_the_layer_that_it_is_in_and_the_one_of_the_directories() {
    let tree = tempfile::tempdir().unwrap();
    large_tree(tree.path());
    let digests = || -> std::collections::BTreeSet<_> {
        packed_small(&memory(), tree.path()).into_iter().map(|layer| layer.digest).collect()
    };
    let before = digests();
    fs::write(tree.path().join("a/deep/new"), "new").unwrap();
    let after = digests();
    assert_eq!(after.difference(&before).count(), 2);
    assert_eq!(after.len(), before.len());
}

/// The digest of the plain archive of a layer by the other algorithm.
fn sha512(image: &Memory, layer: &Layer) -> Digest {
    let blob = image.open(&layer.descriptor).unwrap().verify(&layer.descriptor);
    let (mut plain, mut hasher) = (Vec::new(), Hasher::new(Algorithm::Sha512));
    decompress(blob).unwrap().read_to_end(&mut plain).unwrap();
    hasher.update(&plain);
    hasher.finish()
}

#[test]
fn a_diff_id_of_sha512_is_proved_like_any_other_with_and_without_a_table_of_contents() {
    let (tree, image) = (tempfile::tempdir().unwrap(), memory());
    make_tree(tree.path());
    pack(&image, tree.path());
    let index = Index::parse(&image.resolve().unwrap()).unwrap();
    let manifest = Manifest::parse(&fetch(&image, &index.manifests[0]).unwrap()).unwrap();
    let plain = layer(&image, &["added=1"]);
    let indexed = Layer { descriptor: manifest.layers[0].clone(), ..plain.clone() };
    let layers = [indexed, plain].map(|layer| Layer { diff_id: sha512(&image, &layer), ..layer });
    publish(&image, &layers);
    let target = tempfile::tempdir().unwrap();
    unpack(&image, target.path()).unwrap();
    assert_eq!(fs::read(target.path().join("added")).unwrap(), b"1");

    for damaged in 0..layers.len() {
        let mut layers = layers.clone();
        layers[damaged].diff_id = layers[1 - damaged].diff_id.clone();
        publish(&image, &layers);
        let target = tempfile::tempdir().unwrap();
        assert_eq!(unpack(&image, target.path()).unwrap_err().kind(), ErrorKind::Integrity);
    }
}

/// An image with one layer of this media type.
fn of_media_type(kind: &str) -> Memory {
    let image = memory();
    let mut layer = layer(&image, &["a=1"]);
    layer.descriptor.media_type = kind.to_owned();
    publish(&image, &[layer]);
    image
}

/// The outcome of every command that reads layers.
fn read_by_all(image: &Memory, any_media_type: bool) -> Vec<volio::Result<()>> {
    let read = ReadOptions { any_media_type, ..ReadOptions::default() };
    let diff = volio::diff::Options { read: read.clone(), ..Default::default() };
    let verify = volio::verify::Options { any_media_type, ..Default::default() };
    let read_as = volio::unpack::ReadAs::Image { as_is: false, any_media_type };
    let unpack = volio::unpack::Options { read_as, ..Default::default() };
    let target = tempfile::tempdir().unwrap();
    let (source, side) = (image as &dyn Source, volio::diff::Side::Image(image));
    let unpacked = volio::unpack::unpack(source, target.path(), &unpack, &Silent).map(drop);
    assert_eq!(target.path().join("a").exists(), unpacked.is_ok());
    let mut content = Vec::new();
    let files = [TreePath::parse("a").unwrap()];
    vec![
        unpacked,
        volio::list::list(source, &read, &Silent).map(drop),
        volio::cat::cat(source, &files, &read, &mut content, &Silent).map(drop),
        volio::diff::diff(side, side, &diff, &Silent).map(drop),
        volio::verify::verify(source, &verify, &Silent).map(|verified| assert_eq!(verified.damage, [])),
    ]
}

#[test]
fn a_layer_of_another_media_type_is_refused_by_its_name_by_all_commands() {
    for kind in [
        "application/vnd.oci.image.layer.v1.tar+xz",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        media_type::CONFIG,
        "application/x\x1b[2J",
        "",
    ] {
        for outcome in read_by_all(&of_media_type(kind), false) {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
            let text = error.to_string();
            assert!(text.contains(&format!("{kind:?}")) && !text.contains('\x1b'), "{error}");
            assert!(error.hint().unwrap().contains("--any-media-type"));
        }
        for outcome in read_by_all(&of_media_type(kind), true) {
            outcome.unwrap();
        }
    }
    for kind in [media_type::LAYER, "application/vnd.example.tar", "application/vnd.example+gzip"] {
        for outcome in read_by_all(&of_media_type(kind), false) {
            outcome.unwrap();
        }
    }
}
