//! A table of contents with very many chunks, for one file and for many files. They must not be held in memory.

use std::fmt::Write as _;
use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use volio::image::Description;
use volio::layer::{Compression, Contents, Layer};
use volio::oci::Digest;
use volio::stream::Body;
use volio::transport::Destination;
use volio::transport::layout::Layout;

/// The number of chunks: they would take some 80 MB.
const CHUNKS: u64 = 1_000_000;
/// The memory that volio may use, in KiB.
const DATA: &str = "65536";

/// Makes a layout with one layer. Its table of contents has so many files of one byte pieces, each in a separate frame.
fn layout(path: &Path, files: u64) {
    let size = CHUNKS / files;
    let digest = Digest::of(b"x");
    let mut text = String::from(r#"{"entries":["#);
    for number in 0..CHUNKS {
        let (file, chunk) = (number / size, number % size);
        let comma = if number == 0 { "" } else { "," };
        let kind =
            if chunk == 0 { format!(r#""type":"reg","size":{size}"#) } else { r#""type":"chunk""#.into() };
        let (from, to) = (number * 9, number * 9 + 9);
        write!(
            text,
            r#"{comma}{{"name":"large{file:03}",{kind},"chunkDigest":"{digest}","chunkOffset":{chunk},"chunkSize":1,"offset":{from},"endOffset":{to}}}"#
        )
        .unwrap();
    }
    text.push_str(r#"],"version":1}"#);
    let toc = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let offset = CHUNKS * 9 + 8;
    let blob = [vec![0; offset as usize], toc.clone(), vec![0; 48]].concat();
    let (diff_id, size) = (Digest::of(&blob), blob.len() as u64);
    let layout = Layout::create(path, Some("v1")).unwrap();
    let written = layout.upload(Body::new(Cursor::new(blob))).unwrap();
    let contents = Contents { diff_id, size, entries: 1, bytes: 0 };
    let mut layer = Layer::new(Compression::default(), &contents, written, None);
    let position = format!("{offset}:{}:{}", toc.len(), text.len());
    layer.descriptor.annotations.insert("io.volio.toc.position".to_owned(), position);
    layer.descriptor.annotations.insert("io.volio.toc.digest".to_owned(), Digest::of(&toc).to_string());
    let built = Description::default().build(&[layer]).unwrap();
    for document in built.configs.iter().chain(&built.manifests).chain([&built.root]) {
        layout.put_manifest(document).unwrap();
    }
    layout.commit(&built.root).unwrap();
}

/// Runs volio with little memory in a directory. Returns its exit code and what it wrote to stderr.
fn volio(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let limited = "ulimit -d $0 && exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, DATA, env!("CARGO_BIN_EXE_volio")]).args(arguments);
    let output = command.current_dir(directory).env_clear().output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_thousand_files_of_a_thousand_pieces_take_no_memory_to_compare_and_none_to_refuse() {
    let place = tempfile::tempdir().unwrap();
    layout(&place.path().join("layout"), 1000);
    let (code, said) = volio(place.path(), &["diff", "-q", "oci:layout:v1", "oci:layout:v1"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = volio(place.path(), &["unpack", "oci:layout:v1", "-"]);
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn a_file_of_a_million_pieces_takes_no_memory_to_list_and_none_to_refuse() {
    let place = tempfile::tempdir().unwrap();
    layout(&place.path().join("layout"), 1);
    let run = |arguments: &[&str]| volio(place.path(), arguments);
    assert_eq!(run(&["ls", "oci:layout:v1"]), (Some(0), String::new()));
    for refused in [
        &["cat", "oci:layout:v1", "large000"][..],
        &["unpack", "--subpath", "large000", "oci:layout:v1", "part"],
        &["unpack", "oci:layout:v1", "target"],
    ] {
        let (code, said) = run(refused);
        assert_eq!(code, Some(3), "{refused:?}: {said}");
    }
    assert!(!fs::exists(place.path().join("target/large000")).unwrap_or(true));
}
