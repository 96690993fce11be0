//! Syncs images of random layers over random directories. The result is a fresh unpack, and nothing outside of the directory
//! changes.

use super::extractor::{LayerChange, Script, comparable, content, walk};
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use volio::image::Description;
use volio::layer::{Compression, Layer, LayerWriter};
use volio::pack;
use volio::progress::Silent;
use volio::stream::Body;
use volio::transport::Destination;
use volio::transport::memory::Memory;
use volio::tree::{EntryKind, SourceSpec, TreePath};
use volio::unpack::{ForeignTarget, Options, SyncOptions, WriteMode, unpack};

/// Writes the layers of an image without tables of contents. Entries that no layer can have are left out.
fn publish(image: &Memory, changes: &[LayerChange]) {
    let layers: Vec<Layer> = changes
        .split(|change| matches!(change, LayerChange::Layer))
        .map(|changes| {
            let mut writer = LayerWriter::new(Vec::new());
            for change in changes {
                let _ = match change {
                    LayerChange::Put(entry) => writer.append(entry, content(entry).as_slice(), |_| {}),
                    LayerChange::Whiteout(path) | LayerChange::Opaque(path) => writer.append_whiteout(path),
                    LayerChange::Layer => Ok(()),
                };
            }
            let (archive, contents) = writer.finish().unwrap();
            let written = image.upload(Body::new(Cursor::new(archive))).unwrap();
            Layer::new(Compression::None, &contents, written, None)
        })
        .collect();
    let built = Description::default().build(&layers).unwrap();
    for document in built.configs.iter().chain(&built.manifests).chain([&built.root]) {
        image.put_manifest(document).unwrap();
    }
    image.commit(&built.root).unwrap();
}

/// Fills a directory with entries, and with links that lead to what is beside it. What cannot be made is left out.
fn fill(target: &Path, changes: &[LayerChange], outside: &Path) {
    fs::create_dir_all(target).unwrap();
    let at = |path: &TreePath| target.join(path.as_path());
    for change in changes {
        // Directories may be links that lead outside: nothing may be made through them.
        let through_a_link = |path: &TreePath| {
            std::iter::successors(path.parent(), TreePath::parent).any(|above| at(&above).is_symlink())
        };
        let _ = match change {
            LayerChange::Put(entry) if through_a_link(&entry.path) => Ok(()),
            LayerChange::Put(entry) => match &entry.kind {
                EntryKind::Directory => fs::create_dir_all(at(&entry.path)),
                EntryKind::File { .. } if at(&entry.path).symlink_metadata().is_err() => {
                    fs::write(at(&entry.path), content(entry))
                }
                EntryKind::Symlink { .. } => symlink(outside, at(&entry.path)),
                EntryKind::Hardlink { .. } => fs::hard_link(outside.join("canary"), at(&entry.path)),
                _ => Ok(()),
            },
            LayerChange::Whiteout(path) if !through_a_link(path) => symlink("../outside/canary", at(path)),
            _ => Ok(()),
        };
    }
}

fn synced(image: &Memory, target: &Path) -> volio::Result<()> {
    let write = WriteMode::Sync(SyncOptions { foreign: ForeignTarget::Overwrite, ..SyncOptions::default() });
    let mut options = Options { write, ..Options::default() };
    options.tree.sync = false;
    unpack(image, target, &options, &Silent).map(drop)
}

/// Syncs an image without tables of contents, and one with them, over directories.
pub fn sync(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(400)];
    let (image_bytes, target_bytes) = bytes.split_at(bytes.len() / 2);
    let decoded = |bytes| {
        let mut script = Script(bytes);
        std::iter::from_fn(move || script.change()).collect::<Vec<LayerChange>>()
    };
    let (changes, there) = (decoded(image_bytes), decoded(target_bytes));
    let shm = Path::new("/dev/shm");
    let directory =
        if shm.is_dir() { tempfile::TempDir::new_in(shm) } else { tempfile::TempDir::new() }.unwrap();
    let at = |name: &str| directory.path().join(name);
    let outside = at("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "alive").unwrap();
    let attributes = || {
        let metadata = fs::metadata(outside.join("canary")).unwrap();
        (metadata.mode(), metadata.uid(), metadata.mtime(), metadata.mtime_nsec())
    };
    let before = attributes();

    let image = Memory::default().named("fuzzing:1");
    publish(&image, &changes);
    let mut options = Options::default();
    options.tree.sync = false;
    let fresh = unpack(&image, &at("fresh"), &options, &Silent);
    fill(&at("target"), &there, &outside);
    let outcome = synced(&image, &at("target"));
    if fresh.is_ok() {
        outcome.unwrap();
        assert_eq!(comparable(walk(&at("target"))), comparable(walk(&at("fresh"))));
        let indexed = Memory::default().named("fuzzing:2");
        let packed = pack::Options::default();
        pack::pack(&indexed, &[SourceSpec::new(at("fresh"))], &packed, &Silent).unwrap();
        fill(&at("other"), &there, &outside);
        synced(&indexed, &at("other")).unwrap();
        assert_eq!(comparable(walk(&at("other"))), comparable(walk(&at("fresh"))));
    } else {
        assert!(outcome.is_err());
    }
    assert_eq!(fs::read_to_string(outside.join("canary")).unwrap(), "alive");
    assert_eq!(attributes(), before, "a name of it was in the directories");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}
