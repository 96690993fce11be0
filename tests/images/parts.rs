//! A part of an image: below a path, or without the first names of all paths.

use super::layers::{layer, publish};
use super::memory;
use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use volio::Result;
use volio::error::Kind as ErrorKind;
use volio::layer::{Compression, Layer, LayerWriter};
use volio::progress::Silent;
use volio::stream::Body;
use volio::transport::Destination;
use volio::transport::memory::Memory;
use volio::tree::{Entry, EntryKind, Metadata, TreePath};
use volio::unpack::{Options, PathFilter, unpack};

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn below(text: &str) -> PathFilter {
    PathFilter::Subpath(path(text))
}

/// Returns the entries of the target, files with their content.
fn taken(image: &Memory, filter: PathFilter) -> Result<Vec<String>> {
    let target = tempfile::tempdir().unwrap();
    unpack(image, target.path(), &Options { filter, ..Options::default() }, &Silent)?;
    let seen = crate::snapshot::snapshot(target.path()).into_iter().skip(1);
    let show = |(path, seen): (std::path::PathBuf, crate::snapshot::Seen)| match seen.kind {
        "directory" => format!("{}/", path.display()),
        _ => format!("{}={}", path.display(), String::from_utf8_lossy(&seen.content)),
    };
    Ok(seen.map(show).collect())
}

fn image(layers: &[&[&str]]) -> Memory {
    let image = memory();
    let layers: Vec<Layer> = layers.iter().map(|lines| layer(&image, lines)).collect();
    publish(&image, &layers);
    image
}

#[test]
fn a_directory_or_a_file_of_the_image_lands_in_the_target() {
    let image = image(&[&["a/", "a/b/", "a/b/c=1", "a/b/l->c", "a/bc=2", "d=3"]]);
    assert_eq!(taken(&image, below("a/b")).unwrap(), ["c=1", "l=c"]);
    assert_eq!(taken(&image, below("/a/")).unwrap(), ["b/", "b/c=1", "b/l=c", "bc=2"]);
    assert_eq!(taken(&image, below("a/b/c")).unwrap(), ["c=1"]);
    assert_eq!(taken(&image, below("a/b/l")).unwrap(), ["l=c"]);
    assert_eq!(taken(&image, below("")).unwrap().len(), 6);
}

#[test]
fn what_an_upper_layer_has_through_a_link_is_where_the_link_leads() {
    let below_usr = ["usr/", "usr/lib/", "usr/lib/a=1", "lib->usr/lib", "up/", "up/l->/usr"];
    let image = image(&[&below_usr, &["lib/x.so=2", "up/l/y=3", "lib/.wh.a"], &["lib/", "lib/mine=4"]]);
    let mut all = ["lib/", "lib/mine=4", "up/", "up/l=/usr", "usr/", "usr/lib/", "usr/lib/x.so=2", "usr/y=3"];
    assert_eq!(taken(&image, PathFilter::All).unwrap(), all);
    assert_eq!(taken(&image, below("usr")).unwrap(), ["lib/", "lib/x.so=2", "y=3"]);
    assert_eq!(taken(&image, below("lib")).unwrap(), ["mine=4"]);
    assert_eq!(taken(&image, below("up")).unwrap(), ["l=/usr"]);
    let listed = volio::list::list(&image, &volio::image::ReadOptions::default(), &Silent).unwrap();
    let mut listed: Vec<String> =
        listed.entries().map(|entry| entry.path.to_string()[1..].to_owned()).collect();
    listed.retain(|path| !path.is_empty());
    all = all.map(|line| line.split('=').next().unwrap().trim_end_matches('/'));
    assert_eq!(listed, all);
}

#[test]
fn what_is_not_there_is_not_found_and_links_are_not_followed() {
    let image = image(&[&["a/", "a/b=1", "l->a"]]);
    for filter in [below("x"), below("a/b/c"), below("l/b"), PathFilter::Strip(2)] {
        assert_eq!(taken(&image, filter).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[test]
fn names_are_stripped_and_what_has_no_more_is_left_out() {
    let image = image(&[&["a/", "a/b/", "a/b/c=1", "x/", "x/y=2", "z=3"]]);
    assert_eq!(taken(&image, PathFilter::Strip(1)).unwrap(), ["b/", "b/c=1", "y=2"]);
    assert_eq!(taken(&image, PathFilter::Strip(2)).unwrap(), ["c=1"]);
}

#[test]
fn whiteouts_count_in_the_wanted_part_and_above_it() {
    let lower: &[&str] = &["a/", "a/b/", "a/b/x=1", "a/b/y=1"];
    let after = |upper: &[&str], part: PathFilter| taken(&image(&[lower, upper]), part);
    assert_eq!(after(&["a/b/.wh.x"], below("a/b")).unwrap(), ["y=1"]);
    assert_eq!(after(&["a/b/.wh..wh..opq", "a/b/z=2"], below("a/b")).unwrap(), ["z=2"]);
    assert_eq!(after(&["a/.wh..wh..opq", "a/b/", "a/b/z=2"], below("a/b")).unwrap(), ["z=2"]);
    assert_eq!(after(&["a/b=file"], below("a/b")).unwrap(), ["b=file"]);
    for upper in [".wh.a", "a/.wh.b", "a=file", ".wh..wh..opq"] {
        assert_eq!(after(&[upper], below("a/b")).unwrap_err().kind(), ErrorKind::NotFound, "{upper}");
    }
    assert_eq!(after(&["a/.wh.b", "a/c=2"], PathFilter::Strip(1)).unwrap(), ["c=2"]);
    assert_eq!(after(&[".wh.a", "d/", "d/c=2"], PathFilter::Strip(1)).unwrap(), ["c=2"]);
}

/// A layer of files and hard links, `name` or `name=target`.
fn links(image: &Memory, lines: &[&str]) -> Layer {
    let mut archive = LayerWriter::new(Vec::new());
    for line in lines {
        let (name, kind, content) = match line.split_once('=') {
            Some((name, target)) => (name, EntryKind::Hardlink { target: path(target) }, ""),
            None => (*line, EntryKind::File { size: 4 }, "data"),
        };
        let metadata = Metadata {
            mode: 0o644,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            xattrs: BTreeMap::new(),
            ..Metadata::default()
        };
        let entry = Entry { path: path(name), kind, metadata };
        archive.append(&entry, content.as_bytes(), |_| {}).unwrap();
    }
    let (archive, contents) = archive.finish().unwrap();
    let written = image.upload(Body::new(Cursor::new(archive))).unwrap();
    Layer::new(Compression::None, &contents, written, None)
}

#[test]
fn a_hard_link_to_what_is_not_wanted_becomes_the_file() {
    let image = memory();
    let lines = ["first", "mid=first", "wanted/a=first", "wanted/b=mid", "wanted/c=wanted/a", "z=first"];
    publish(&image, &[links(&image, &lines)]);
    assert_eq!(taken(&image, below("wanted")).unwrap(), ["a=data", "b=data", "c=data"]);
    assert_eq!(taken(&image, below("wanted/b")).unwrap(), ["b=data"]);
    assert_eq!(taken(&image, PathFilter::Strip(1)).unwrap(), ["a=data", "b=data", "c=data"]);
    let target = tempfile::tempdir().unwrap();
    unpack(&image, target.path(), &Options { filter: below("wanted"), ..Options::default() }, &Silent)
        .unwrap();
    let first = fs::metadata(target.path().join("a")).unwrap();
    assert_eq!((first.nlink(), first.len()), (3, 4), "they are one file still");
}

#[test]
fn a_hard_link_into_another_layer_that_is_not_wanted_is_an_error_with_both_names() {
    let image = memory();
    publish(&image, &[links(&image, &["first"]), links(&image, &["wanted/a=first"])]);
    let error = taken(&image, below("wanted")).unwrap_err().to_string();
    assert!(error.contains("/wanted/a") && error.contains("/first"), "{error}");
    assert_eq!(taken(&image, PathFilter::All).unwrap(), ["first=data", "wanted/", "wanted/a=data"]);
}
