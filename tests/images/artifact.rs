//! Artifacts, as helm, flux and oras push them, into directories.

use serde_json::{Value, json};
use std::fs;
use std::io::{Cursor, Write};
use tempfile::TempDir;
use volio::error::Kind;
use volio::oci::{Descriptor, Document, TITLE, media_type};
use volio::progress::Silent;
use volio::stream::Body;
use volio::transport::memory::Memory;
use volio::transport::{Destination, Source};
use volio::tree::TreePath;
use volio::unpack::{Options, Outcome, PathFilter, ReadAs, Unpacked, unpack};

const CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";

/// A tar archive, compressed, with files that say their names.
fn archive(names: &[&str]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for name in names {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o640);
        header.set_size(name.len() as u64);
        tar.append_data(&mut header, name, name.as_bytes()).unwrap();
    }
    let mut gzip = tar.into_inner().unwrap();
    gzip.flush().unwrap();
    gzip.finish().unwrap()
}

/// An artifact of these layers: a media type, annotations, and bytes.
fn artifact(layers: &[(&str, Value, Vec<u8>)]) -> Memory {
    let place = super::memory();
    let put = |kind: &str, bytes: &[u8]| {
        place.upload(Body::new(Cursor::new(bytes.to_vec()))).unwrap();
        serde_json::to_value(Descriptor::of(kind, bytes)).unwrap()
    };
    let config = put("application/vnd.cncf.helm.config.v1+json", b"{}");
    let layers: Vec<Value> = layers
        .iter()
        .map(|(kind, annotations, bytes)| {
            let mut layer = put(kind, bytes);
            layer["annotations"] = annotations.clone();
            layer
        })
        .collect();
    let json =
        json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers});
    let document = Document::new(media_type::MANIFEST, json.to_string().into_bytes());
    place.put_manifest(&document).unwrap();
    place.commit(&document).unwrap();
    place
}

fn unpacked(from: &dyn Source, filter: PathFilter) -> (volio::Result<Unpacked>, TempDir) {
    let target = tempfile::tempdir().unwrap();
    let options = Options { read_as: ReadAs::Artifact, filter, ..Options::default() };
    (unpack(from, target.path(), &options, &Silent), target)
}

fn titled(title: &str) -> Value {
    json!({TITLE: title})
}

#[test]
fn archives_are_unpacked_and_other_layers_are_files_by_their_titles() {
    let oras_directory = json!({TITLE: "dir", "io.deis.oras.content.unpack": "true"});
    let from = artifact(&[
        (CHART, Value::Null, archive(&["app/Chart.yaml", "app/.wh.name"])),
        (media_type::LAYER, titled("notes/read.me"), b"notes".to_vec()),
        (media_type::LAYER_GZIP, oras_directory, archive(&["dir/file"])),
        ("text/plain", titled("empty"), Vec::new()),
    ]);
    let (done, target) = unpacked(&from, PathFilter::All);
    let done = done.unwrap();
    assert_eq!((done.outcome, done.layers, done.extracted.entries), (Outcome::Unpacked, 4, 5));
    assert_eq!(done.extracted.ownership_not_restored, 0);
    for (path, content) in [
        ("app/Chart.yaml", "app/Chart.yaml"),
        ("app/.wh.name", "app/.wh.name"),
        ("notes/read.me", "notes"),
        ("dir/file", "dir/file"),
        ("empty", ""),
    ] {
        assert_eq!(fs::read_to_string(target.path().join(path)).unwrap(), content, "{path}");
    }
    let options = Options { read_as: ReadAs::Artifact, ..Options::default() };
    let again = unpack(&from, target.path(), &options, &Silent).unwrap();
    assert_eq!(again.outcome, Outcome::Present, "it is known again");

    let (done, target) = unpacked(&from, PathFilter::Subpath(TreePath::parse("app").unwrap()));
    assert_eq!(done.unwrap().extracted.entries, 2);
    assert!(target.path().join("Chart.yaml").exists() && !target.path().join("empty").exists());
}

#[test]
fn titles_that_lead_out_of_the_directory_and_layers_without_names_are_refused_before_anything_is_written() {
    let good = || ("text/plain", titled("good"), b"good".to_vec());
    for (title, kind) in [
        ("../evil", Kind::Integrity),
        ("a/../../evil", Kind::Integrity),
        ("/", Kind::Integrity),
        (".", Kind::Integrity),
        ("a\0b", Kind::Integrity),
        ("", Kind::Failed),
    ] {
        let from = artifact(&[good(), ("text/plain", titled(title), b"evil".to_vec())]);
        let (done, target) = unpacked(&from, PathFilter::All);
        assert_eq!(done.unwrap_err().kind(), kind, "{title:?}");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "{title:?}");
    }
    let inside = artifact(&[("text/plain", titled("/etc/name"), b"inside".to_vec())]);
    let (done, target) = unpacked(&inside, PathFilter::All);
    done.unwrap();
    assert!(target.path().join("etc/name").exists());
    let link = || {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "link", "/tmp").unwrap();
        tar.into_inner().unwrap()
    };
    let from =
        artifact(&[("application/x-tar", Value::Null, link()), ("x", titled("link/evil"), b"evil".to_vec())]);
    assert!(unpacked(&from, PathFilter::All).0.is_err(), "not through a link that leads out either");
}

#[test]
fn what_was_damaged_is_not_written_and_an_image_is_no_artifact() {
    let from = artifact(&[("text/plain", titled("file"), b"content".to_vec())]);
    let root = from.resolve().unwrap();
    let damaged = String::from_utf8(root.bytes().to_vec()).unwrap().replace("\"size\":7", "\"size\":6");
    let document = Document::new(media_type::MANIFEST, damaged.into_bytes());
    from.put_manifest(&document).unwrap();
    from.commit(&document).unwrap();
    let (done, target) = unpacked(&from, PathFilter::All);
    assert_eq!(done.unwrap_err().kind(), Kind::Integrity);
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);

    let tree = tempfile::tempdir().unwrap();
    let image = super::memory();
    super::pack(&image, tree.path());
    assert_eq!(unpacked(&image, PathFilter::All).0.unwrap_err().kind(), Kind::Usage);
}
