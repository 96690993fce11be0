//! A table of contents with very many chunks for one file, which must not be held in memory.

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

/// A layout whose only layer has a table of contents with a file of one byte pieces, each in a separate frame.
fn layout(path: &Path) {
    let digest = Digest::of(b"x");
    let mut text = String::from(r#"{"entries":["#);
    for number in 0..CHUNKS {
        let begin = match number {
            0 => format!(r#"{{"name":"large","type":"reg","size":{CHUNKS}"#),
            _ => r#",{"name":"large","type":"chunk""#.to_owned(),
        };
        let (from, to) = (number * 9, number * 9 + 9);
        write!(
            text,
            r#"{begin},"chunkDigest":"{digest}","chunkOffset":{number},"chunkSize":1,"offset":{from},"endOffset":{to}}}"#
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

#[test]
fn a_file_of_a_million_pieces_takes_no_memory_to_list_and_none_to_refuse() {
    let place = tempfile::tempdir().unwrap();
    layout(&place.path().join("layout"));
    let run = |arguments: &[&str]| {
        let limited = "ulimit -d $0 && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", limited, DATA, env!("CARGO_BIN_EXE_volio")]).args(arguments);
        let output = command.current_dir(place.path()).env_clear().output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&["ls", "oci:layout:v1"]), (Some(0), String::new()));
    for refused in [
        &["cat", "oci:layout:v1", "large"][..],
        &["unpack", "--subpath", "large", "oci:layout:v1", "part"],
        &["unpack", "oci:layout:v1", "target"],
    ] {
        let (code, said) = run(refused);
        assert_eq!(code, Some(3), "{refused:?}: {said}");
    }
    assert!(!fs::exists(place.path().join("target/large")).unwrap_or(true));
}
