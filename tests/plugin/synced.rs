//! Volumes with `policy=sync`: a newer image is put in place of an older one by changing what differs.

use super::{Service, pack};
use crate::registry::noise;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// Packs a tree with a large file, and small ones with this content.
fn pack_version(service: &Service, content: &str, large: &[u8]) -> String {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("large"), large).unwrap();
    for name in ["changed", &format!("only-in-{content}")] {
        fs::write(tree.path().join(name), content).unwrap();
    }
    fs::write(tree.path().join("same"), "same").unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
    for name in ["large", "same"] {
        let file = fs::File::options().write(true).open(tree.path().join(name)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let image = format!("oci:{}:v1", service.path("layout").display());
    pack(&image, tree.path());
    image
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_newer_image_is_put_in_place_when_nobody_has_the_volume() {
    let service = Service::start();
    let image = pack_version(&service, "one", &noise(500_000));
    service.create("a", &[("image", &image), ("pull", "newer"), ("policy", "sync")]);
    let path = service.mount("a", "1").unwrap();
    assert_eq!(service.status("a")["policy"], json!("sync"));
    let before = (inode(&path), inode(&path.join("large")));
    fs::write(path.join("of the container"), "x").unwrap();
    // The size and the time are as before.
    let time = fs::metadata(path.join("same")).unwrap().modified().unwrap();
    fs::write(path.join("same"), "SAME").unwrap();
    fs::File::options().write(true).open(path.join("same")).unwrap().set_modified(time).unwrap();

    pack_version(&service, "two", &noise(500_000));
    service.mount("a", "2").unwrap();
    assert_eq!(fs::read_to_string(path.join("changed")).unwrap(), "one", "the first container still has it");
    service.unmount("a", "1");
    service.unmount("a", "2");
    service.mount("a", "3").unwrap();
    assert_eq!((inode(&path), inode(&path.join("large"))), before, "neither is written again");
    assert_eq!(names(&path), ["changed", "large", "only-in-two", "same"]);
    assert_eq!(fs::read_to_string(path.join("changed")).unwrap(), "two");
    assert_eq!(fs::read_to_string(path.join("same")).unwrap(), "same");
    service.unmount("a", "3");
    // The same image need not come again.
    fs::write(path.join("note"), "kept").unwrap();
    service.mount("a", "4").unwrap();
    assert!(path.join("note").exists());
}

#[test]
fn content_that_is_of_no_version_of_the_image_is_replaced_as_a_whole() {
    let service = Service::start();
    let image = pack_version(&service, "one", b"large");
    fs::create_dir(service.volume("a")).unwrap();
    fs::write(service.volume("a").join("other"), "x").unwrap();
    let before = inode(&service.volume("a"));
    service.create("a", &[("image", &image), ("policy", "sync")]);
    let path = service.mount("a", "1").unwrap();
    assert_ne!(inode(&path), before);
    assert_eq!(names(&path), ["changed", "large", "only-in-one", "same"]);
}

/// Returns the largest blob of the layout.
fn largest_blob(service: &Service) -> PathBuf {
    let blobs = fs::read_dir(service.path("layout").join("blobs/sha256")).unwrap();
    blobs.map(|entry| entry.unwrap().path()).max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// Damages the content of the largest file in an image; returns a function that repairs it.
fn damage(service: &Service) -> impl Fn() + use<> {
    let blob = largest_blob(service);
    let good = fs::read(&blob).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&blob, bad).unwrap();
    move || fs::write(&blob, &good).unwrap()
}

#[test]
fn a_volume_that_is_half_of_one_image_is_neither_handed_out_nor_exported() {
    let mut service = Service::start();
    let image = pack_version(&service, "one", &noise(300_000));
    let export = format!("oci:{}:v1", service.path("export").display());
    let options = [("image", &*image), ("pull", "newer"), ("policy", "sync"), ("export", &export)];
    service.create("a", &options);
    let path = service.mount("a", "1").unwrap();
    fs::write(path.join("result"), "of the first container").unwrap();
    service.unmount("a", "1");
    let exported = |service: &Service| -> Value { service.status("a")["lastExport"]["digest"].clone() };
    let before = exported(&service);

    pack_version(&service, "two", &noise(9_000_000));
    let repair = damage(&service);
    for _ in 0..2 {
        let error = service.mount("a", "2").unwrap_err();
        assert!(error.contains("chunk") || error.contains("digest") || error.contains("frame"), "{error}");
        assert_eq!(service.status("a")["partlySynced"], json!(true));
        service.restart();
    }
    // What it has now is of no container.
    service.volio("Remove", json!({"Name": "a"}));
    service.create("a", &options);
    assert_eq!(exported(&service), before);
    let restored = service.unpack(&export);
    assert_eq!(fs::read_to_string(restored.path().join("result")).unwrap(), "of the first container");

    repair();
    let path = service.mount("a", "3").unwrap();
    assert_eq!(names(&path), ["changed", "large", "only-in-two", "same"]);
    assert!(fs::read(path.join("large")).unwrap() == noise(9_000_000));
    assert_eq!(service.status("a")["partlySynced"], Value::Null);
    service.unmount("a", "3");
}

#[test]
#[ignore = "needs root: run tests/run"]
fn files_that_are_put_in_place_belong_to_whom_the_options_say_as_root() {
    let service = Service::start();
    let image = pack_version(&service, "one", b"large");
    let options =
        [("image", &*image), ("pull", "newer"), ("policy", "sync"), ("uid", "70"), ("mode", "0750")];
    service.create("a", &options);
    let path = service.mount("a", "1").unwrap();
    service.unmount("a", "1");
    let before = inode(&path.join("large"));
    pack_version(&service, "two", b"large");
    service.mount("a", "2").unwrap();
    assert_eq!(names(&path), ["changed", "large", "only-in-two", "same"]);
    assert_eq!(inode(&path.join("large")), before);
    for name in ["changed", "large", "only-in-two"] {
        assert_eq!(fs::metadata(path.join(name)).unwrap().uid(), 70, "{name}");
    }
    let root = fs::metadata(&path).unwrap();
    assert_eq!((root.uid(), root.mode() & 0o7777), (70, 0o750));
}
