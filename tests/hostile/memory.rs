//! Small inputs that would take very much memory or time: with default options no command takes more than 300 MiB for any
//! of them, and none takes long.

use super::runs::peak_of;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use volio::image::Description;
use volio::layer::{Compression, Contents, Layer};
use volio::oci::{Digest, Platform};
use volio::stream::Body;
use volio::transport::Destination;
use volio::transport::layout::Layout;

/// A layer as it is stored, its diff_id, and its annotations.
type Stored<'a> = (Vec<u8>, Digest, Vec<(&'a str, String)>);

/// The most memory that a command may take, in bytes.
const MOST: u64 = 300 << 20;

/// The result of a run.
#[derive(Debug)]
struct Run {
    code: i32,
    /// The largest resident memory, in bytes.
    peak: u64,
    stderr: String,
}

/// A directory with a layout in it.
struct Workspace(TempDir);

impl Workspace {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A layout `layout` whose image `v1` has these layers, plain archives, compressed with zstd.
    fn with_layers(layers: &[Vec<u8>]) -> Self {
        let place = Self::new();
        let compressed: Vec<_> = layers
            .iter()
            .map(|plain| (zstd::encode_all(plain.as_slice(), 1).unwrap(), Digest::of(plain), Vec::new()))
            .collect();
        place.publish(compressed);
        place
    }

    /// The same with layers as they are stored, each with its diff_id and annotations.
    fn publish(&self, layers: Vec<Stored<'_>>) {
        let layout = Layout::create(&self.path("layout"), Some("v1")).unwrap();
        let mut made = Vec::new();
        for (blob, diff_id, annotations) in layers {
            let contents = Contents { diff_id, size: blob.len() as u64, entries: 1, bytes: 0 };
            let written = layout.upload(Body::new(Cursor::new(blob))).unwrap();
            let mut layer = Layer::new(Compression::default(), &contents, written, None);
            for (key, value) in annotations {
                layer.descriptor.annotations.insert(key.to_owned(), value);
            }
            made.push(layer);
        }
        let description = Description { platforms: vec![Platform::host()], ..Description::default() };
        let built = description.build(&made).unwrap();
        for document in built.configs.iter().chain(&built.manifests).chain([&built.root]) {
            layout.put_manifest(document).unwrap();
        }
        layout.commit(&built.root).unwrap();
    }

    fn volio(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
        command.args(arguments);
        command.current_dir(self.0.path()).env_clear().env("TMPDIR", self.0.path());
        let (output, peak) = peak_of(command);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let run = Run { code: output.status.code().unwrap_or(-1), peak, stderr };
        let _ = Command::new("rm").arg("-rf").arg(self.path("target")).status();
        assert!(run.peak < MOST && (0..=7).contains(&run.code), "{arguments:?}: {run:?}");
        run
    }

    /// Has every command that reads layers read the image, with these options too.
    fn all(&self, options: &[&str]) -> Vec<(&'static str, Run)> {
        let mut runs = Vec::new();
        for (command, arguments) in [
            ("ls", &["oci:layout:v1"][..]),
            ("ls", &["-R", "--format", "json", "oci:layout:v1"]),
            ("diff", &["oci:layout:v1", "oci:layout:v1"]),
            ("unpack", &["oci:layout:v1", "target"]),
            ("cat", &["oci:layout:v1", "missing"]),
        ] {
            let run = self.volio(&[&[command], options, arguments].concat());
            runs.push((command, run));
        }
        self.inspect_and_copy();
        runs
    }
}

impl Workspace {
    /// Runs the commands that do not read the entries of layers, and so accept any.
    fn inspect_and_copy(&self) {
        for arguments in [
            &["inspect", "oci:layout:v1"][..],
            &["copy", "oci:layout:v1", "oci:copy:v1"],
            &["copy", "oci:layout:v1", "docker-archive:copy.tar:a/b:c"],
        ] {
            let run = self.volio(arguments);
            assert!([0, 3].contains(&run.code), "{arguments:?}: {run:?}");
        }
        for arguments in [&["doctor", "oci:layout:v1"][..], &["doctor", "--deep", "oci:layout:v1"]] {
            let run = self.volio(arguments);
            assert!([0, 1].contains(&run.code), "{arguments:?}: {run:?}");
        }
    }
}

/// A tar archive that is written entry by entry.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, size: u64) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o755);
        self.0.append_data(&mut header, path, std::io::repeat(0).take_exactly(size)).unwrap();
    }

    fn file(&mut self, path: &str) {
        self.entry(path, tar::EntryType::Regular, 0);
    }

    fn directory(&mut self, path: &str) {
        self.entry(path, tar::EntryType::Directory, 0);
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

trait TakeExactly {
    fn take_exactly(self, size: u64) -> std::io::Take<Self>
    where
        Self: Sized;
}

impl TakeExactly for std::io::Repeat {
    fn take_exactly(self, size: u64) -> std::io::Take<Self> {
        std::io::Read::take(self, size)
    }
}

#[test]
fn paths_of_64_kib_that_are_2000_deep_are_refused_and_cost_nothing_when_they_are_allowed() {
    let layers = |count: u32| {
        let mut archive = Archive::new();
        for number in 0..count {
            let name = format!("{number:02}{}", "d".repeat(30));
            archive.file(&format!("{}/file", vec![name; 1980].join("/")));
        }
        [archive.finish(), Archive::new().finish()]
    };
    let place = Workspace::with_layers(&layers(28));
    for (command, run) in place.all(&[]) {
        assert_eq!(run.code, 3, "{command}: {}", run.stderr);
        assert!(run.stderr.contains("--max-path"), "{}", run.stderr);
    }
    let place = Workspace::with_layers(&layers(3));
    for arguments in [
        &["ls", "oci:layout:v1"][..],
        &["cat", "oci:layout:v1", "missing"],
        &["unpack", "oci:layout:v1", "target"],
    ] {
        let run = place.volio(&[arguments, &["--max-path", "64K", "--max-depth", "2000"]].concat());
        assert!([0, 4].contains(&run.code) && run.peak < 100 << 20, "{arguments:?}: {run:?}");
    }
}

#[test]
fn what_is_held_of_a_tree_is_bounded_by_what_is_allowed() {
    let mut archive = Archive::new();
    for number in 0..300 {
        archive.directory(&format!("{number}"));
        for below in 0..300 {
            archive.directory(&format!("{number}/{below}"));
        }
    }
    let place = Workspace::with_layers(&[archive.finish()]);
    for (command, run) in place.all(&["--max-names", "4M"]) {
        assert_eq!(run.code, 3, "{command}: {}", run.stderr);
        assert!(run.stderr.contains("--max-names") && run.peak < 80 << 20, "{command}: {run:?}");
    }
    assert!(place.all(&[]).iter().all(|(_, run)| [0, 4].contains(&run.code) && run.peak < 80 << 20));
}

#[test]
fn a_table_of_contents_in_a_hole_is_refused_or_held_in_a_file() {
    // What is small enough is read and hashed, and turns out to be no table of contents.
    for (claimed, commands) in [(4 << 30, &["ls", "cat"][..]), (20 << 20, &["ls", "cat", "verify"])] {
        let place = Workspace::new();
        let end: u64 = claimed + 56;
        let blob = place.path("blob");
        fs::File::create(&blob).unwrap().set_len(end).unwrap();
        let toc = if claimed > 1 << 30 { Digest::of(b"") } else { digest_of_zeros(claimed) };
        let annotations = vec![
            ("io.volio.toc.position", format!("8:{claimed}:{claimed}")),
            ("io.volio.toc.digest", toc.to_string()),
        ];
        place.publish(vec![(Vec::new(), Digest::of(b""), annotations)]);
        place.claim_blob(&blob, end);
        for command in commands {
            let path: &[&str] = if *command == "cat" { &["a"] } else { &[] };
            let run = place.volio(&[&[*command, "oci:layout:v1"], path].concat());
            assert_eq!(run.code, 3, "{command}: {}", run.stderr);
            assert!(run.peak < 60 << 20, "{command}: {run:?}");
        }
        assert_eq!(place.volio(&["inspect", "oci:layout:v1"]).code, 0);
    }
}

fn digest_of_zeros(size: u64) -> Digest {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    let zeros = vec![0; 1 << 20];
    (0..size >> 20).for_each(|_| hash.update(&zeros));
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}").parse().unwrap()
}

impl Workspace {
    /// Makes the only layer of the image, which is empty, one of so many bytes that stand in this file.
    fn claim_blob(&self, blob: &Path, size: u64) {
        let digest = Digest::of(b"claimed");
        let target = self.path("layout/blobs/sha256").join(digest.hex());
        fs::rename(blob, target).unwrap();
        self.rewrite(&|text| {
            text.replace(&Digest::of(b"").to_string(), &digest.to_string())
                .replace(r#""size":0"#, &format!(r#""size":{size}"#))
        });
    }

    /// Changes the manifest of the image, and what names it.
    fn rewrite(&self, change: &dyn Fn(&str) -> String) {
        let index = fs::read_to_string(self.path("layout/index.json")).unwrap();
        let entry: serde_json::Value = serde_json::from_str(&index).unwrap();
        let digest: Digest = entry["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
        let blobs = self.path("layout/blobs/sha256");
        let document = fs::read_to_string(blobs.join(digest.hex())).unwrap();
        let changed = change(&document);
        let new = Digest::of(changed.as_bytes());
        fs::write(blobs.join(new.hex()), &changed).unwrap();
        let size = |text: &str| format!(r#""size":{}"#, text.len());
        let index =
            index.replace(&digest.to_string(), &new.to_string()).replace(&size(&document), &size(&changed));
        fs::write(self.path("layout/index.json"), index).unwrap();
    }
}

#[test]
fn a_few_kilobytes_that_are_gigabytes_of_zeros_are_refused_where_nothing_is_written() {
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(8 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..1100).for_each(|_| encoder.write_all(&zeros).unwrap());
    let place = Workspace::new();
    place.publish(vec![(encoder.finish().unwrap(), Digest::of(b"unknown"), Vec::new())]);
    for (command, arguments) in [
        ("ls", &["oci:layout:v1"][..]),
        ("cat", &["oci:layout:v1", "zeros"]),
        ("diff", &["oci:layout:v1", "/proc/self/fdinfo"]),
        ("verify", &["oci:layout:v1"]),
    ] {
        let run = place.volio(&[&[command], arguments].concat());
        assert_eq!(run.code, 3, "{command}: {}", run.stderr);
        assert!(run.stderr.contains("bytes of plain content"), "{command}: {}", run.stderr);
        let run = place.volio(&[&[command, "--max-content", "1M"], arguments].concat());
        assert!(run.code == 3 && run.stderr.contains("1048576 bytes of plain"), "{command}: {}", run.stderr);
    }
    place.inspect_and_copy();
}

#[test]
fn a_file_with_a_hole_of_8_eib_is_compared_at_once() {
    let size = (1u64 << 63) - 1;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("hole").unwrap();
    header.set_size(0);
    header.set_mode(0o644);
    let gnu = header.as_gnu_mut().unwrap();
    // The largest number that a header has room for, in base 256.
    gnu.realsize = [0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(gnu.real_size().unwrap(), size);
    header.set_cksum();
    archive.append(&header, std::io::empty()).unwrap();
    let place = Workspace::with_layers(&[archive.into_inner().unwrap()]);
    let run = place.volio(&["diff", "oci:layout:v1", "oci:layout:v1"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(place.volio(&["ls", "oci:layout:v1"]).code, 0);
    let run = place.volio(&["cat", "oci:layout:v1", "hole"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains("--max-content"), "{}", run.stderr);
}

#[test]
fn twenty_thousand_opaque_whiteouts_over_twenty_thousand_files_take_no_time() {
    let (mut below, mut above) = (Archive::new(), Archive::new());
    for number in 0..20_000 {
        below.file(&format!("d/old{number}"));
        above.file(&format!("d/{number}"));
    }
    (0..20_000).for_each(|_| above.file("d/.wh..wh..opq"));
    let place = Workspace::with_layers(&[below.finish(), above.finish()]);
    for (command, run) in place.all(&[]) {
        assert!([0, 4].contains(&run.code), "{command}: {run:?}");
    }
}
