//! Images with dead content: files that later layers replace or remove. The content of these is not fetched, and what is
//! unpacked is the same.

use super::layers::{layer, publish};
use super::memory;
use super::partial::{Counting, path};
use crate::registry::{Registry, noise};
use crate::snapshot::{Seen, snapshot};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use volio::Result;
use volio::error::Kind as ErrorKind;
use volio::layer::{Compression, Contents, Layer, Toc};
use volio::oci::{Digest, media_type};
use volio::progress::Silent;
use volio::stream::Body;
use volio::transport::memory::Memory;
use volio::transport::{Access, Destination, Source};
use volio::unpack::{self, FetchedPart, Options, PathFilter, Unpacked, WriteMode};

/// The entry of an archive, and its description in a table of contents.
struct Listed {
    bytes: Vec<u8>,
    entry: Value,
}

/// Parses a line as [`layer`] does; `name~>target` is a hard link.
fn listed(line: &str, content: &[u8], at: usize) -> Listed {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_size(content.len() as u64);
    let mut tar = tar::Builder::new(Vec::new());
    let mut link = |kind, name: &str, target: &str| {
        header.set_entry_type(kind);
        tar.append_link(&mut header, name, target).unwrap();
    };
    let mut entry = if let Some((name, target)) = line.split_once("~>") {
        link(tar::EntryType::Link, name, target);
        json!({"name": name, "type": "hardlink", "linkName": target})
    } else if let Some((name, target)) = line.split_once("->") {
        link(tar::EntryType::Symlink, name, target);
        json!({"name": name, "type": "symlink", "linkName": target})
    } else if line.ends_with('/') {
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, line, &b""[..]).unwrap();
        json!({"name": line, "type": "dir"})
    } else {
        tar.append_data(&mut header, line, content).unwrap();
        json!({"name": line, "type": "reg", "size": content.len()})
    };
    entry["mode"] = 0o755.into();
    (entry["uid"], entry["gid"]) = (uid.into(), gid.into());
    let bytes = tar.get_ref().clone();
    if !content.is_empty() {
        let end = at + zstd::bulk::compress(&bytes, 1).unwrap().len();
        let digest = Digest::of(content).to_string();
        let padded = content.len().next_multiple_of(512);
        let fields = [
            ("digest", json!(digest)),
            ("chunkDigest", json!(digest)),
            ("offset", json!(at)),
            ("endOffset", json!(end)),
            ("innerOffset", json!(bytes.len() - padded)),
        ];
        for (key, value) in fields {
            entry[key] = value;
        }
    }
    Listed { bytes, entry }
}

/// A layer with a table of contents, in which each entry has a frame of its own.
fn indexed(image: &Memory, files: &[(&str, &[u8])]) -> Layer {
    let (mut archive, mut blob, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for (line, content) in files {
        let Listed { bytes, entry } = listed(line, content, blob.len());
        blob.extend(zstd::bulk::compress(&bytes, 1).unwrap());
        archive.extend(bytes);
        entries.push(entry);
    }
    let end = [0; 1024];
    blob.extend(zstd::bulk::compress(&end, 1).unwrap());
    archive.extend(end);
    let text = serde_json::to_vec(&json!({"version": 1, "entries": entries})).unwrap();
    let toc = zstd::encode_all(text.as_slice(), 1).unwrap();
    let offset = blob.len() + 8;
    blob.extend([0x50, 0x2a, 0x4d, 0x18]);
    blob.extend((toc.len() as u32).to_le_bytes());
    blob.extend(&toc);
    blob.extend([0x50, 0x2a, 0x4d, 0x18]);
    blob.extend(40_u32.to_le_bytes());
    blob.extend([0; 40]);
    let written = image.upload(Body::new(Cursor::new(blob))).unwrap();
    let contents =
        Contents { diff_id: Digest::of(&archive), size: archive.len() as u64, entries: 0, bytes: 0 };
    let mut layer = Layer::new(Compression::Zstd { level: 1 }, &contents, written, None);
    assert_eq!(layer.descriptor.media_type, media_type::LAYER_ZSTD);
    let annotations = &mut layer.descriptor.annotations;
    annotations.insert("io.volio.toc.digest".to_owned(), Digest::of(&toc).to_string());
    let position = format!("{offset}:{}:{}", toc.len(), text.len());
    annotations.insert("io.volio.toc.position".to_owned(), position);
    layer
}

fn image_of(layers: &[&[(&str, &[u8])]]) -> Memory {
    let image = memory();
    let layers: Vec<Layer> = layers.iter().map(|files| indexed(&image, files)).collect();
    publish(&image, &layers);
    image
}

type Tree = BTreeMap<PathBuf, Seen>;

fn taken(source: &dyn Source, options: &Options) -> Result<(Tree, Unpacked)> {
    let target = tempfile::tempdir().unwrap();
    let unpacked = unpack::unpack(source, target.path(), options, &Silent)?;
    let mut seen = snapshot(target.path());
    // Times of directories that no entry describes.
    seen.values_mut().filter(|seen| seen.kind == "directory").for_each(|seen| seen.mtime = (0, 0));
    Ok((seen, unpacked))
}

/// A source that serves only whole blobs, so that each layer is fetched as a whole.
struct Whole<'a>(&'a dyn Source);

impl Source for Whole<'_> {
    fn resolve(&self) -> Result<volio::oci::Document> {
        self.0.resolve()
    }

    fn open(&self, blob: &volio::oci::Descriptor) -> Result<volio::stream::Unverified> {
        self.0.open(blob)
    }
}

fn any_line() -> impl Strategy<Value = (String, Vec<u8>)> {
    let name = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4);
    let link = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4);
    let what = prop_oneof![
        5 => prop::sample::select(vec![0_usize, 9, 700, 3000]).prop_map(|size| ("".to_owned(), size)),
        3 => Just(("/".to_owned(), 0)),
        1 => prop::sample::select(vec!["->a", "->../b", "->/a/b/c"]).prop_map(|link| (link.to_owned(), 0)),
        2 => link.prop_map(|names| (format!("~>{}", names.join("/")), 0)),
        1 => Just(("whiteout".to_owned(), 0)),
        1 => Just(("opaque".to_owned(), 0)),
    ];
    (name, what, any::<u8>()).prop_map(|(names, (what, size), seed)| {
        let (last, above) = names.split_last().unwrap();
        let above: String = above.iter().map(|name| format!("{name}/")).collect();
        let content = noise(size + usize::from(seed)).split_off(usize::from(seed));
        match what.as_str() {
            "whiteout" => (format!("{above}.wh.{last}"), Vec::new()),
            "opaque" => (format!("{above}{last}/.wh..wh..opq"), Vec::new()),
            what => (format!("{above}{last}{what}"), content),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn an_image_without_its_dead_content_is_unpacked_as_the_whole_image(
        layers in prop::collection::vec(prop::collection::vec(any_line(), 0..7), 2..5),
        part in prop::sample::select(vec!["", "a", "b", "a/b", "b/c"]),
    ) {
        let files: Vec<Vec<(&str, &[u8])>> = layers
            .iter()
            .map(|layer| layer.iter().map(|(line, content)| (line.as_str(), content.as_slice())).collect())
            .collect();
        let image = image_of(&files.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for filter in [PathFilter::All, PathFilter::Subpath(path(part))] {
            let options = Options { filter, ..Options::default() };
            match (taken(&Whole(&image), &options), taken(&image, &options)) {
                (Ok((expected, whole)), Ok((found, live))) => {
                    prop_assert_eq!(expected, found);
                    prop_assert_eq!(whole.extracted.entries, live.extracted.entries);
                    prop_assert!(live.fetched.bytes <= live.fetched.of);
                }
                (Err(expected), Err(found)) => prop_assert_eq!(expected.kind(), found.kind()),
                (expected, found) => prop_assert!(false, "{:?} {:?}", expected.map(drop), found.map(drop)),
            }
        }
    }
}

#[test]
fn content_that_later_layers_replace_or_remove_is_not_fetched() {
    let (old, kept, new) = (noise(200_000), noise(9_000), noise(30_000));
    let image = image_of(&[
        &[
            ("a/", b""),
            ("a/old", &old),
            ("a/kept", &kept),
            ("a/gone", &old),
            ("b/", b""),
            ("b/x", &old),
            ("c", &old),
        ],
        &[("a/", b""), ("a/old", &new), ("a/.wh.gone", b""), ("b", &new), ("c/", b""), ("c/y", &kept)],
    ]);
    let counting = Counting::new(&image);
    let (found, unpacked) = taken(&counting, &Options::default()).unwrap();
    let (whole, ranges) = counting.taken();
    assert_eq!(found[&PathBuf::from("a/old")].content, new);
    assert_eq!(found[&PathBuf::from("a/kept")].content, kept);
    assert_eq!(found[&PathBuf::from("b")].content, new);
    assert!(!found.contains_key(&PathBuf::from("a/gone")));
    assert!(whole > 69_000 && whole < 75_000, "the upper layer: {whole}");
    assert!(
        ranges > 9_000 && ranges < 12_000,
        "of the lower one, a file and the tables of contents: {ranges}"
    );
    let FetchedPart { bytes, of, is_partial } = unpacked.fetched;
    assert!(is_partial && of > 870_000 && bytes < 90_000, "{unpacked:?}");
    assert_eq!(unpacked.extracted.bytes, 30_000 + 9_000 + 30_000 + 9_000);
    let (expected, unpacked) = taken(&Whole(&image), &Options::default()).unwrap();
    assert_eq!(found, expected);
    assert!(!unpacked.fetched.is_partial);
}

#[test]
fn a_layer_of_which_most_is_live_is_fetched_as_a_whole() {
    let (large, small) = (noise(200_000), noise(90_000));
    let image = image_of(&[&[("large", &large), ("small", &small)], &[("small", b"new")]]);
    let counting = Counting::new(&image);
    let (found, unpacked) = taken(&counting, &Options::default()).unwrap();
    assert_eq!(found[&PathBuf::from("small")].content, b"new");
    assert!(counting.taken().0 > 290_000);
    assert!(!unpacked.fetched.is_partial);
    assert_eq!(unpacked.extracted.bytes, 200_003, "dead content is not written");
}

#[test]
fn scattered_live_content_takes_no_more_requests_than_the_whole_layer() {
    let registry = Registry::start();
    let to = registry.location("a", "t").destination(&Access::default()).unwrap();
    // Of the first half, every fourth file is live: as many ranges, or a single one with the files between them.
    let (names, content) = ((0..80).map(|n| format!("{n:02}")).collect::<Vec<_>>(), noise(8_000_000));
    let file = |n: usize| &content[n * 100_000..(n + 1) * 100_000];
    let lower: Vec<(&str, &[u8])> =
        names.iter().enumerate().map(|(n, name)| (name.as_str(), file(n))).collect();
    let dead = |keep: usize| -> Vec<String> {
        let gone = names.iter().enumerate().filter(|(n, _)| n % keep != 0 || *n >= 40);
        gone.map(|(_, name)| format!(".wh.{name}")).collect()
    };
    let upper = dead(4);
    let upper: Vec<(&str, &[u8])> = upper.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let image = image_of(&[&lower, &upper]);
    volio::copy::copy(&image, to.as_ref(), &volio::copy::Options::default(), &Silent).unwrap();
    let source = registry.location("a", "t").source(&Access::default()).unwrap();
    registry.requests();
    let (found, unpacked) = taken(source.as_ref(), &Options::default()).unwrap();
    assert_eq!(found.len(), 11);
    assert!(unpacked.fetched.is_partial && unpacked.fetched.bytes < 4_200_000, "{unpacked:?}");
    let blobs = registry.requests().into_iter().filter(|request| request.path.contains("/blobs/"));
    let ranges: Vec<_> = blobs.filter_map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges.len(), 2 + 1, "two tables of contents, and a part of one layer: {ranges:?}");
}

#[test]
fn nothing_of_a_damaged_live_frame_reaches_the_target() {
    struct Damaged<'a>(&'a Memory);
    impl Source for Damaged<'_> {
        fn resolve(&self) -> Result<volio::oci::Document> {
            self.0.resolve()
        }
        fn open(&self, blob: &volio::oci::Descriptor) -> Result<volio::stream::Unverified> {
            assert!(!media_type::is_layer(&blob.media_type), "no layer is fetched as a whole");
            self.0.open(blob)
        }
        fn open_range(
            &self,
            blob: &volio::oci::Descriptor,
            range: std::ops::Range<u64>,
        ) -> Result<Option<volio::stream::Unverified>> {
            let size = (range.end - range.start) as usize;
            let mut bytes = self.0.open_range(blob, range)?.unwrap().take_unverified(size)?;
            if size > 8_000 {
                bytes[size / 2] ^= 1;
            }
            Ok(Some(volio::stream::Unverified::new(Cursor::new(bytes))))
        }
    }
    let (old, kept) = (noise(200_000), noise(9_000));
    let image = image_of(&[&[("gone", &old), ("kept", &kept)], &[(".wh.gone", b"")]]);
    let target = tempfile::tempdir().unwrap();
    let error = unpack::unpack(&Damaged(&image), target.path(), &Options::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    let kept = fs::read(target.path().join("kept")).unwrap_or_default();
    assert_eq!(kept, b"", "it was made, and nothing was written");
    // The same command completes it.
    unpack::unpack(&image, target.path(), &Options::default(), &Silent).unwrap();
    assert_eq!(fs::read(target.path().join("kept")).unwrap(), noise(9_000));
    assert!(!target.path().join("gone").exists());
}

#[test]
fn over_what_was_in_the_target_layers_are_fetched_whole() {
    // The directory is a link in the target, through which the lower file would reach the upper one.
    let (old, new) = (noise(20_000), noise(300));
    let image = image_of(&[&[("d/", b""), ("d/f", &old), ("x", &old)], &[("d/f", &new), (".wh.x", b"")]]);
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("mine"), "mine").unwrap();
    let options = Options { write: WriteMode::Merge { replace_directories: false }, ..Options::default() };
    let unpacked = unpack::unpack(&image, target.path(), &options, &Silent).unwrap();
    assert!(!unpacked.fetched.is_partial);
    assert_eq!(fs::read(target.path().join("d/f")).unwrap(), new);
    assert_eq!(fs::read(target.path().join("mine")).unwrap(), b"mine");
}

#[test]
fn layers_without_tables_of_contents_are_fetched_whole_without_a_warning() {
    let image = memory();
    let layers = [layer(&image, &["a=old", "b=kept"]), indexed(&image, &[("a", b"new")])];
    publish(&image, &layers);
    let (found, unpacked) = taken(&image, &Options::default()).unwrap();
    assert_eq!(found[&PathBuf::from("a")].content, b"new");
    assert!(!unpacked.fetched.is_partial);
}

#[test]
fn a_chain_of_incremental_packs_is_unpacked_without_what_later_ones_replaced() {
    use volio::pack::{self, Base, IncrementalOptions, pack_incremental};
    use volio::transport::Location;
    use volio::tree::SourceSpec;
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    fs::create_dir_all(tree.join("d")).unwrap();
    let at = |version: u64| -> Location {
        format!("oci:{}:v{version}", place.path().join("layout").display()).parse().unwrap()
    };
    // Files of several frames, each of which one version replaces or removes.
    for n in 1..=4_usize {
        fs::write(tree.join(format!("d/{n}")), noise(n * 3_000_000)).unwrap();
    }
    let (sources, options) = ([SourceSpec::new(&tree)], pack::Options::default());
    for version in 1..=4_u64 {
        let to = at(version).destination(&Access::default()).unwrap();
        if version == 1 {
            pack::pack(to.as_ref(), &sources, &options, &Silent).unwrap();
            continue;
        }
        fs::write(tree.join(format!("d/{version}")), noise(1_000 + version as usize)).unwrap();
        fs::write(tree.join("new"), noise(9_000 - version as usize)).unwrap();
        let base = Base::image(at(version - 1), Access::default());
        let incremental = IncrementalOptions { max_dead: 100, ..IncrementalOptions::default() };
        pack_incremental(to.as_ref(), &base, &sources, &options, &incremental, &Silent).unwrap();
    }
    let source = at(4).source(&Access::default()).unwrap();
    let counting = Counting::new(source.as_ref());
    let target = tempfile::tempdir().unwrap();
    let unpacked = unpack::unpack(&counting, target.path(), &Options::default(), &Silent).unwrap();
    crate::snapshot::assert_same(&tree, target.path());
    let (whole, ranges) = counting.taken();
    assert!(whole + ranges < 3_200_000, "{whole} {ranges}");
    assert!(unpacked.fetched.of > 30_000_000 && unpacked.fetched.is_partial, "{unpacked:?}");
    assert_eq!(unpacked.layers, 4);
}

#[test]
fn where_it_is_not_known_what_is_live_each_table_of_contents_is_still_fetched_once() {
    let (old, new) = (noise(20_000), noise(300));
    // The second layer reaches the directory through a link.
    let layers: [&[(&str, &[u8])]; 2] =
        [&[("d/", b""), ("d/f", &old), ("l->d", b"")], &[("l/f", &new), ("l/g", &new)]];
    let image = memory();
    let layers = layers.map(|files| indexed(&image, files));
    publish(&image, &layers);
    let tocs = layers.iter().map(|layer| Toc::of(&layer.descriptor).unwrap().unwrap().descriptor().size);
    let counting = Counting::new(&image);
    let (found, unpacked) = taken(&counting, &Options::default()).unwrap();
    assert_eq!(found[&PathBuf::from("d/f")].content, new);
    assert!(!unpacked.fetched.is_partial);
    let (whole, ranges) = counting.taken();
    assert_eq!(whole, unpacked.fetched.of);
    assert_eq!(ranges, tocs.sum::<u64>());
}
