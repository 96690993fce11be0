//! Partial reads of images in a registry: the bytes that are transferred, and registries without ranges or with wrong ones.

use super::server::Ranges;
use super::{CuttingProxy, Registry, noise, patient};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use tempfile::TempDir;
use volio::Result;
use volio::cat::cat;
use volio::error::Kind;
use volio::image::ReadOptions;
use volio::list::list;
use volio::pack::{self, pack};
use volio::progress::{Progress, Silent, Task, TaskInfo};
use volio::transport::{Access, Source, registry};
use volio::tree::{SourceSpec, TreePath};

const FILES: usize = 3000;

/// Creates many small files and a large one, and returns the content of the large one.
fn make_tree(root: &Path) -> Vec<u8> {
    let bytes = noise(FILES * 4000);
    for (number, content) in bytes.chunks(4000).enumerate() {
        let directory = root.join(format!("d{}", number % 30));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("file-{number}")), content).unwrap();
    }
    fs::write(root.join("large"), &bytes).unwrap();
    bytes
}

/// Starts a registry with an image of that tree. Returns also the content of the large file and the size of the layers.
fn filled() -> (Registry, Vec<u8>, u64) {
    let tree = TempDir::new().unwrap();
    let large = make_tree(tree.path());
    let registry = Registry::start();
    let options = pack::Options { layer_size: 6 << 20, ..pack::Options::default() };
    let packed =
        pack(&registry.client("a", "t"), &[SourceSpec::new(tree.path())], &options, &Silent).unwrap();
    assert!(packed.layers.len() > 2);
    (registry, large, packed.layers.iter().map(|layer| layer.size).sum())
}

/// Returns a client with a proxy that counts bytes.
fn counted(registry: &Registry) -> (CuttingProxy, registry::Registry) {
    let proxy = CuttingProxy::cutting(registry.host(), u64::MAX);
    let name = format!("{}/a:t", proxy.host()).parse().unwrap();
    let client = registry::Registry::new(name, &Access { client: patient(), ..Access::default() }).unwrap();
    (proxy, client)
}

/// Collects warnings.
#[derive(Default)]
struct Warned(Mutex<Vec<String>>);

impl Progress for Warned {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        Silent.begin(info)
    }

    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

impl Warned {
    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn read(source: &dyn Source, path: &str, progress: &dyn Progress) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let path = TreePath::parse(path).unwrap();
    let written = cat(source, &[path], &ReadOptions::default(), &mut out, progress)?;
    assert_eq!(written, out.len() as u64);
    Ok(out)
}

#[test]
fn a_list_transfers_under_two_percent_and_a_small_file_one_frame() {
    let (registry, large, size) = filled();
    let (proxy, client) = counted(&registry);
    let tree = list(&client, &ReadOptions::default(), &Silent).unwrap();
    assert_eq!(tree.len(), FILES + 30 + 2);
    let listed = proxy.down();
    assert!(listed * 100 < size * 2, "{listed} of {size} bytes");
    let before = registry.requests().len();
    assert!(read(&client, "/d7/file-1507", &Silent).unwrap() == large[1507 * 4000..1508 * 4000]);
    let fetched = proxy.down() - listed;
    assert!(fetched < listed + (4 << 20) + 100_000, "{fetched}");
    let requests = registry.requests().split_off(before);
    let ranges: Vec<Range<u64>> =
        requests.iter().filter_map(|request| range(request.header("range")?)).collect();
    let layers =
        requests.iter().filter(|request| request.header("range").is_some()).map(|request| &request.path);
    let layers: std::collections::BTreeSet<_> = layers.collect();
    assert_eq!(ranges.len(), layers.len() + 1, "a table of contents of each layer, and a frame: {ranges:?}");
    // The index, the manifest and the configuration are added.
    assert_eq!(
        requests.len(),
        ranges.len() + 3 + requests.iter().filter(|request| request.path == "/v2/").count()
    );
}

fn range(header: &str) -> Option<Range<u64>> {
    let (start, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    Some(start.parse().ok()?..last.parse::<u64>().ok()? + 1)
}

#[test]
fn a_large_file_is_read_over_several_connections_that_break() {
    let (registry, large, _) = filled();
    assert!(read(&registry.client("a", "t"), "large", &Silent).unwrap() == large);
    registry.behave(|behaviour| behaviour.cuts_blobs_after = Some(700_000));
    assert!(read(&registry.client("a", "t"), "large", &Silent).unwrap() == large);
    registry.behave(|behaviour| {
        behaviour.cuts_blobs_after = None;
        behaviour.ranges = Ranges::Short;
    });
    assert!(read(&registry.client("a", "t"), "large", &Silent).unwrap() == large);
}

#[test]
fn a_registry_without_ranges_is_read_whole_with_one_warning() {
    let (registry, large, _) = filled();
    for ranges in [Ranges::Ignored, Ranges::Unsatisfiable, Ranges::NotImplemented] {
        registry.behave(|behaviour| behaviour.ranges = ranges);
        let warned = Warned::default();
        // With several connections, there would be requests for parts first.
        let client = registry.client_by("a", |client| client.concurrency = 1);
        let tree = list(&client, &ReadOptions::default(), &warned).unwrap();
        assert_eq!(tree.len(), FILES + 30 + 2);
        let told = warned.taken();
        assert!(matches!(told.as_slice(), [once] if once.contains("whole blobs")), "{told:?}");
        assert!(read(&client, "d0/file-0", &warned).unwrap() == large[..4000]);
        assert!(read(&client, "large", &warned).unwrap() == large);
    }
}

#[test]
fn another_range_than_was_requested_is_an_integrity_error_without_output() {
    let (registry, ..) = filled();
    for ranges in [Ranges::Wrong, Ranges::Unsaid, Ranges::Longer] {
        registry.behave(|behaviour| behaviour.ranges = ranges);
        let client = registry.client("a", "t");
        assert_eq!(list(&client, &ReadOptions::default(), &Silent).unwrap_err().kind(), Kind::Integrity);
        assert_eq!(read(&client, "large", &Silent).unwrap_err().kind(), Kind::Integrity);
    }
}
