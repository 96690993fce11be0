//! Images read in part: by their tables of contents they are what they are when they are read whole.

use super::layers::{blob, layer, publish};
use super::{make_tree, memory, pack_with};
use crate::registry::Registry;
use crate::transports::TemporaryArchive;
use base64::Engine as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use volio::cat::cat;
use volio::error::Kind as ErrorKind;
use volio::image::ReadOptions;
use volio::layer::{Compression, Layer};
use volio::list::list;
use volio::oci::{Descriptor, Digest, Document, media_type};
use volio::progress::Silent;
use volio::stream::Unverified;
use volio::transport::layout::Layout;
use volio::transport::memory::Memory;
use volio::transport::{Access, Destination, Source};
use volio::tree::{Entry, EntryKind, TreePath};
use volio::{Error, Result};
use volio::{copy, pack};

pub fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn listed(source: &dyn Source) -> Result<BTreeMap<TreePath, Entry>> {
    let tree = list(source, &ReadOptions::default(), &Silent)?;
    Ok(tree.entries().map(|entry| (entry.path.clone(), entry)).collect())
}

fn read(source: &dyn Source, paths: &[TreePath]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match cat(source, paths, &ReadOptions::default(), &mut out, &Silent) {
        Ok(written) => assert_eq!(written, out.len() as u64),
        Err(error) => return Err(error),
    }
    Ok(out)
}

/// A place that counts what is read of its layers, whole and in part.
pub struct Counting<'a> {
    inner: &'a dyn Source,
    whole: AtomicU64,
    parts: AtomicU64,
}

impl<'a> Counting<'a> {
    pub fn new(inner: &'a dyn Source) -> Self {
        Self { inner, whole: AtomicU64::new(0), parts: AtomicU64::new(0) }
    }

    pub fn taken(&self) -> (u64, u64) {
        (self.whole.swap(0, Ordering::SeqCst), self.parts.swap(0, Ordering::SeqCst))
    }
}

impl Source for Counting<'_> {
    fn resolve(&self) -> Result<Document> {
        self.inner.resolve()
    }

    fn open(&self, blob: &Descriptor) -> Result<Unverified> {
        if media_type::is_layer(&blob.media_type) {
            self.whole.fetch_add(blob.size, Ordering::SeqCst);
        }
        self.inner.open(blob)
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        self.parts.fetch_add(range.end - range.start, Ordering::SeqCst);
        self.inner.open_range(blob, range)
    }
}

/// The layer of this table of contents, written by hand, with its frames.
pub fn handmade(image: &Memory, frames: &[Vec<u8>], entries: &[Value]) -> Layer {
    let text = serde_json::to_vec(&json!({"version": 1, "entries": entries})).unwrap();
    let toc = zstd::encode_all(text.as_slice(), 1).unwrap();
    let mut bytes = frames.concat();
    let offset = bytes.len() + 8;
    bytes.extend([0x50, 0x2a, 0x4d, 0x18]);
    bytes.extend((toc.len() as u32).to_le_bytes());
    bytes.extend(&toc);
    bytes.extend([0; 48]);
    let mut layer = blob(image, &bytes);
    layer.descriptor.media_type = media_type::LAYER_ZSTD.to_owned();
    let annotations = &mut layer.descriptor.annotations;
    annotations.insert("io.volio.toc.digest".to_owned(), Digest::of(&toc).to_string());
    let position = format!("{offset}:{}:{}", toc.len(), text.len());
    annotations.insert("io.volio.toc.position".to_owned(), position);
    layer
}

pub fn frame(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

/// The same lines that make a plain layer ([`layer`]), as a layer with a table of contents: two files share a frame.
fn indexed(image: &Memory, lines: &[&str]) -> Layer {
    let (mut frames, mut entries, mut at) = (Vec::new(), Vec::new(), 0);
    let files: Vec<&str> = lines.iter().filter_map(|line| Some(line.split_once('=')?.1)).collect();
    let mut groups = files.chunks(2).map(|pair| frame(pair.concat().as_bytes()));
    let mut inner = Vec::new();
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    for line in lines {
        let mut entry = match (line.split_once("->"), line.split_once('=')) {
            (Some((name, target)), _) => json!({"name": name, "type": "symlink", "linkName": target}),
            (None, Some((name, content))) => {
                if inner.len() == 2 || frames.is_empty() {
                    at += frames.last().map_or(0, Vec::len);
                    frames.push(groups.next().unwrap());
                    inner.clear();
                }
                let digest = Digest::of(content.as_bytes()).to_string();
                let offset: usize = inner.iter().sum();
                inner.push(content.len());
                match content {
                    "" => json!({"name": name, "type": "reg"}),
                    content => json!({
                        "name": name, "type": "reg", "size": content.len(), "digest": digest, "chunkDigest": digest,
                        "offset": at, "endOffset": at + frames.last().unwrap().len(), "innerOffset": offset,
                    }),
                }
            }
            (None, None) if line.ends_with('/') => json!({"name": line, "type": "dir"}),
            (None, None) => json!({"name": line, "type": "reg"}),
        };
        entry["mode"] = 0o755.into();
        (entry["uid"], entry["gid"]) = (uid.into(), gid.into());
        entries.push(entry);
    }
    handmade(image, &frames, &entries)
}

pub fn both(layers: &[Vec<String>]) -> (Memory, Memory) {
    let (whole, part) = (memory(), memory());
    let (mut plain, mut listed) = (Vec::new(), Vec::new());
    for lines in layers {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        plain.push(layer(&whole, &lines));
        listed.push(indexed(&part, &lines));
    }
    publish(&whole, &plain);
    publish(&part, &listed);
    (whole, part)
}

pub fn any_line() -> impl Strategy<Value = String> {
    let name = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4);
    let what = prop_oneof![
        4 => "[a-z]{0,9}".prop_map(|content| format!("={content}")),
        3 => Just("/".to_owned()),
        2 => prop::sample::select(vec!["->a", "->../b", "->/a/b/c", "->c/../.."]).prop_map(str::to_owned),
        1 => Just("whiteout".to_owned()),
        1 => Just("opaque".to_owned()),
    ];
    (name, what).prop_map(|(names, what)| {
        let (last, above) = names.split_last().unwrap();
        let above: String = above.iter().map(|name| format!("{name}/")).collect();
        match what.as_str() {
            "whiteout" => format!("{above}.wh.{last}"),
            "opaque" => format!("{above}{last}/.wh..wh..opq"),
            what => format!("{above}{last}{what}"),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn an_image_is_the_same_in_part_and_whole(
        layers in prop::collection::vec(prop::collection::vec(any_line(), 0..7), 1..4),
    ) {
        let (whole, part) = both(&layers);
        let (expected, found) = (listed(&whole), listed(&part));
        match (&expected, &found) {
            (Ok(expected), Ok(found)) => prop_assert_eq!(expected, found),
            (Err(expected), Err(found)) => {
                prop_assert_eq!(expected.to_string(), found.to_string());
                return Ok(());
            }
            _ => prop_assert!(false, "{:?} {:?}", expected, found),
        }
        for path in expected.unwrap().keys() {
            let paths = [path.clone(), path.clone()];
            match (read(&whole, &paths), read(&part, &paths)) {
                (Ok(expected), Ok(found)) => prop_assert_eq!(expected, found, "{}", path),
                (Err(expected), Err(found)) => prop_assert_eq!(expected.to_string(), found.to_string()),
                outcome => prop_assert!(false, "{} {:?}", path, outcome),
            }
        }
    }
}

#[test]
fn upper_layers_replace_and_take_away_and_no_content_comes_from_below() {
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let (_, part) = both(&[
        lines(&["a/", "a/x=below", "a/y=below", "b=below", "c=kept"]),
        lines(&["a/x=above", "a/.wh.y", "b/", "b/new=above"]),
    ]);
    assert_eq!(
        listed(&part).unwrap().keys().map(ToString::to_string).collect::<Vec<_>>(),
        ["/a", "/a/x", "/b", "/b/new", "/c"]
    );
    assert_eq!(read(&part, &[path("a/x"), path("c"), path("b/new")]).unwrap(), b"abovekeptabove");
}

/// Every file of a tree, as it is on disk.
fn files(root: &Path) -> Vec<(TreePath, Vec<u8>)> {
    let seen = crate::snapshot::snapshot(root).into_iter().filter(|(_, seen)| seen.kind == "file");
    seen.map(|(path, seen)| (TreePath::parse(path.as_os_str().as_encoded_bytes()).unwrap(), seen.content))
        .collect()
}

#[test]
fn a_tree_is_read_in_part_from_every_place_and_file_by_file_it_is_what_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let mut sparse = vec![0; 3 << 20];
    sparse[1 << 20..(1 << 20) + 5].copy_from_slice(b"data!");
    fs::write(tree.join("sparse"), sparse).unwrap();
    let image = memory();
    super::pack(&image, &tree);
    let expected = listed(&image).unwrap();
    let (archive, registry) = (TemporaryArchive::new(), Registry::start());
    let layout = directory.path().join("layout");
    let destinations: [Box<dyn Destination>; 4] = [
        Box::new(memory()),
        Box::new(Layout::create(&layout, Some("t")).unwrap()),
        crate::contract::TestTransport::destination(&archive, "t").unwrap(),
        registry.location("a", "t").destination(&Access::default()).unwrap(),
    ];
    let sources: Vec<Box<dyn Fn() -> Box<dyn Source>>> = vec![
        Box::new(|| Box::new(image.clone())),
        Box::new(|| Box::new(Layout::open(&layout, Some("t"), None).unwrap())),
        Box::new(|| crate::contract::TestTransport::source(&archive, "t").unwrap()),
        Box::new(|| registry.location("a", "t").source(&Access::default()).unwrap()),
    ];
    for (destination, source) in destinations.iter().zip(sources) {
        copy::copy(&image, destination.as_ref(), &copy::Options::default(), &Silent).unwrap();
        let source = source();
        let counting = Counting::new(source.as_ref());
        assert_eq!(listed(&counting).unwrap(), expected);
        for (path, content) in files(&tree) {
            assert!(read(&counting, std::slice::from_ref(&path)).unwrap() == content, "{path}");
        }
        let (whole, parts) = counting.taken();
        assert!(whole == 0 && parts > 0, "{whole} {parts}");
    }
}

#[test]
fn an_archive_for_docker_has_no_tables_of_contents_and_is_read_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let image = memory();
    super::pack(&image, &tree);
    let at = format!("docker-archive:{}:a:t", directory.path().join("a.tar").display());
    let at: volio::transport::Location = at.parse().unwrap();
    let one = copy::Options { platforms: vec!["linux/amd64".parse().unwrap()], ..copy::Options::default() };
    let destination = at.destination(&Access::default()).unwrap();
    copy::copy(&image, destination.as_ref(), &one, &Silent).unwrap();
    let source = at.source(&Access::default()).unwrap();
    assert_eq!(listed(source.as_ref()).unwrap(), listed(&image).unwrap());
    for (path, content) in files(&tree) {
        assert!(read(source.as_ref(), std::slice::from_ref(&path)).unwrap() == content, "{path}");
    }
}

#[test]
fn a_gzip_layer_is_read_twice_and_several_files_in_order_once_more_only() {
    let directory = tempfile::tempdir().unwrap();
    let image = memory();
    let gzip = pack::Options { compression: Compression::Gzip { level: 6 }, ..pack::Options::default() };
    fs::create_dir(directory.path().join("d")).unwrap();
    fs::write(directory.path().join("a"), "1").unwrap();
    fs::write(directory.path().join("d/b"), vec![7; 3 << 20]).unwrap();
    let packed = pack_with(&image, directory.path(), &gzip).unwrap();
    let counting = Counting::new(&image);
    let content = read(&counting, &[path("a"), path("d/b")]).unwrap();
    assert!(content[0] == b'1' && content[1..] == vec![7; 3 << 20]);
    assert_eq!(counting.taken(), (2 * packed.layers[0].size, 0));
    read(&counting, &[path("d/b"), path("a")]).unwrap();
    assert_eq!(counting.taken().0, 3 * packed.layers[0].size, "back to the beginning");
}

/// A source that returns other layers when they are opened for the second time.
struct Changing(Memory, AtomicU64);

impl Source for Changing {
    fn resolve(&self) -> Result<Document> {
        self.0.resolve()
    }

    fn open(&self, blob: &Descriptor) -> Result<Unverified> {
        if !media_type::is_layer(&blob.media_type) || self.1.fetch_add(1, Ordering::SeqCst) == 0 {
            return self.0.open(blob);
        }
        let mut bytes = self.0.open(blob)?.take_unverified(blob.size as usize)?;
        let at = bytes.windows(5).position(|five| five == b"hello").unwrap();
        bytes[at] = b'j';
        Ok(Unverified::new(Cursor::new(bytes)))
    }
}

#[test]
fn what_was_proved_once_must_be_the_same_when_it_is_read_again() {
    let image = memory();
    let plain = layer(&image, &["a=hello", "b=other"]);
    publish(&image, &[plain]);
    assert_eq!(read(&image, &[path("a")]).unwrap(), b"hello");
    let changing = Changing(image, AtomicU64::new(0));
    let mut out = Vec::new();
    let error = cat(&changing, &[path("a")], &ReadOptions::default(), &mut out, &Silent).unwrap_err();
    assert_eq!((error.kind(), out.len()), (ErrorKind::Integrity, 0));
}

/// An image of one such layer.
pub fn of(make: impl FnOnce(&Memory) -> Layer) -> Memory {
    let image = memory();
    let layer = make(&image);
    publish(&image, &[layer]);
    image
}

pub fn file(name: &str, content: &[u8], at: Range<usize>) -> Value {
    let digest = Digest::of(content).to_string();
    json!({
        "name": name, "type": "reg", "mode": 420, "size": content.len(), "digest": digest, "chunkDigest": digest,
        "offset": at.start, "endOffset": at.end,
    })
}

#[test]
fn a_table_of_contents_that_contradicts_itself_is_an_integrity_error() {
    let one = frame(b"one");
    let here = 0..one.len();
    let with = |entries: &[Value]| of(|image| handmade(image, std::slice::from_ref(&one), entries));
    let good = file("a", b"one", here.clone());
    assert_eq!(read(&with(std::slice::from_ref(&good)), &[path("a")]).unwrap(), b"one");
    let changed = |key: &str, value: Value| {
        let mut entry = good.clone();
        entry[key] = value;
        entry
    };
    let directory = json!({"name": "a/", "type": "dir", "mode": 493});
    for (why, entries) in [
        ("beyond the layer", vec![changed("endOffset", json!(1_u64 << 40))]),
        ("in the table of contents itself", vec![changed("endOffset", json!(one.len() + 9))]),
        ("backwards", vec![changed("offset", json!(100))]),
        ("the same place twice", vec![good.clone(), file("b", b"one", here.clone())]),
        ("more than a frame holds", vec![changed("size", json!(1_u64 << 50))]),
        ("leads out", vec![changed("name", json!("../a"))]),
        ("leads out in the middle", vec![changed("name", json!("a/../../b"))]),
        ("both a directory and a file", vec![json!({"name": "a/b", "type": "dir"}), good.clone()]),
        ("below a file", vec![good.clone(), json!({"name": "a/b", "type": "dir"})]),
        ("a link to nothing", vec![json!({"name": "l", "type": "hardlink", "linkName": "gone"})]),
        ("a link to a directory", vec![directory, json!({"name": "l", "type": "hardlink", "linkName": "a"})]),
        ("a type of its own", vec![changed("type", json!("portal"))]),
        ("no digest", vec![changed("chunkDigest", json!("md5:1"))]),
        ("a name that cannot be", vec![changed("name", json!("x".repeat(300)))]),
    ] {
        let error = listed(&with(&entries)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{why}: {error}");
    }
    // Of two entries with one name the later one counts, as in every archive.
    let twice = [changed("size", json!(2)), json!({"name": "a", "type": "reg", "mode": 256})];
    assert_eq!(read(&with(&twice), &[path("a")]).unwrap(), b"");
}

#[test]
fn content_that_is_not_what_the_table_of_contents_says_never_comes_out() {
    let one = frame(b"one");
    let with = |frame: &[u8], entry: Value| of(|image| handmade(image, &[frame.to_vec()], &[entry]));
    let entry = |change: &dyn Fn(&mut Value)| {
        let mut entry = file("a", b"one", 0..one.len());
        change(&mut entry);
        entry
    };
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 64 << 20), 1).unwrap();
    let mut stream = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    stream.write_all(b"one").unwrap();
    stream.flush().unwrap();
    let stream = stream.finish().unwrap();
    for (why, image) in [
        (
            "another digest",
            with(&one, entry(&|entry| entry["chunkDigest"] = json!(Digest::of(b"two").to_string()))),
        ),
        ("a larger size", with(&one, entry(&|entry| entry["size"] = json!(4)))),
        ("behind its end", with(&one, entry(&|entry| entry["innerOffset"] = json!(1)))),
        ("zeros that are none", with(&one, entry(&|entry| entry["chunkType"] = json!("zeros")))),
        ("half of a frame", with(&one, entry(&|entry| entry["endOffset"] = json!(one.len() - 1)))),
        ("no frame", with(b"nothing of the kind", file("a", b"one", 0..19))),
        ("a frame of much", with(&bomb, file("a", b"one", 0..bomb.len()))),
        ("a frame that does not tell its size", with(&stream, file("a", b"one", 0..stream.len()))),
    ] {
        assert!(listed(&image).is_ok(), "{why}");
        let mut out = Vec::new();
        let done = cat(&image, &[path("a")], &ReadOptions::default(), &mut out, &Silent);
        let kind = done.as_ref().map_err(Error::kind);
        assert_eq!((kind, out.len()), (Err(ErrorKind::Integrity), 0), "{why}: {done:?}");
    }
}

#[test]
fn a_gigantic_table_of_contents_is_refused_before_it_is_fetched_or_read() {
    let image = memory();
    let mut layer = handmade(&image, &[frame(b"x")], &[]);
    // The descriptor says that the layer is large, and its table of contents too.
    layer.descriptor.size = 1 << 60;
    let position = format!("{}:{}:{}", 100, 1_u64 << 50, 1_u64 << 55);
    layer.descriptor.annotations.insert("io.volio.toc.position".to_owned(), position);
    publish(&image, &[layer]);
    let counting = Counting::new(&image);
    assert_eq!(listed(&counting).unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(counting.taken(), (0, 0));
    // Few bytes that are very many entries.
    let many: Vec<Value> = (0..20_000).map(|n| json!({"name": format!("{n}"), "type": "dir"})).collect();
    let image = of(|image| handmade(image, &[], &many));
    let few = volio::layer::Limits { max_entries: 10_000, ..Default::default() };
    let options = ReadOptions { limits: few, ..ReadOptions::default() };
    assert_eq!(list(&image, &options, &Silent).unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn layers_of_others_with_tables_of_contents_are_read_whole() {
    // What podman writes with zstd:chunked, and stargz-snapshotter: their annotations and not ours.
    let image = memory();
    let mut foreign = layer(&image, &["a=1"]);
    let annotations = &mut foreign.descriptor.annotations;
    for (key, value) in [
        ("io.github.containers.zstd-chunked.manifest-checksum", Digest::of(b"x").to_string()),
        ("io.github.containers.zstd-chunked.manifest-position", "8:1:1:1".to_owned()),
        ("io.containers.zstd-chunked.manifest-checksum", Digest::of(b"x").to_string()),
        ("io.containers.zstd-chunked.manifest-position", "8:1:1:1".to_owned()),
        ("containerd.io/snapshot/stargz/toc.digest", Digest::of(b"x").to_string()),
    ] {
        annotations.insert(key.to_owned(), value);
    }
    publish(&image, &[foreign]);
    let counting = Counting::new(&image);
    assert_eq!(read(&counting, &[path("a")]).unwrap(), b"1");
    assert_eq!(counting.taken().1, 0);
}

#[test]
fn names_that_are_no_text_are_found() {
    let raw = base64::engine::general_purpose::STANDARD.encode(b"a/\xff");
    let one = frame(b"one");
    let mut entry = file("a/\u{fffd}", b"one", 0..one.len());
    entry["nameRaw"] = json!(raw);
    let image = of(|image| handmade(image, std::slice::from_ref(&one), &[entry]));
    assert_eq!(read(&image, &[TreePath::parse(b"a/\xff").unwrap()]).unwrap(), b"one");
    assert_eq!(listed(&image).unwrap()[&path("a")].kind, EntryKind::Directory);
}
