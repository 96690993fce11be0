//! Removal of volumes during an operation or with an export due, and fetches that do not end.

use super::{Gate, SOON, Service, pack};
use crate::registry::Registry;
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};
use volio::plugin::MinSpeed;

#[test]
fn a_volume_with_an_export_due_is_removed_when_it_is_exported_and_not_before() {
    let service = Service::start();
    // A file cannot be a layout.
    let layout = service.path("export");
    fs::write(&layout, "").unwrap();
    let export = format!("oci:{}:v1", layout.display());
    service.create("a", &[("export", &export)]);
    fs::write(service.mount("a", "1").unwrap().join("result"), "42").unwrap();
    assert_eq!(service.unmount("a", "1").0, 500);
    let (status, answer) = service.volio("Remove", json!({"Name": "a"}));
    let error = answer["Err"].as_str().unwrap();
    assert!(status == 500 && error.contains("holds what was not exported yet"), "{answer}");
    assert!(error.contains("volumes.json"), "and how to give it up: {error}");
    assert_eq!(service.status("a")["exportDue"], json!(true));
    fs::remove_file(&layout).unwrap();
    assert_eq!(service.volio("Remove", json!({"Name": "a"})).0, 200);
    assert_eq!(fs::read_to_string(service.unpack(&export).path().join("result")).unwrap(), "42");
    // The removal was refused, and the user gives up the export.
    fs::remove_dir_all(&layout).unwrap();
    fs::write(&layout, "").unwrap();
    service.create("a", &[("export", &export)]);
    fs::write(service.mount("a", "1").unwrap().join("result"), "43").unwrap();
    service.unmount("a", "1");
    let list = service.storage().join("volumes.json");
    let mut volumes: serde_json::Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    volumes["a"]["Options"].as_object_mut().unwrap().remove("export");
    fs::write(&list, volumes.to_string()).unwrap();
    assert_eq!(service.volio("Remove", json!({"Name": "a"})).0, 200);
    assert_eq!(fs::read_to_string(service.volume("a").join("result")).unwrap(), "43");
}

#[test]
fn a_volume_that_was_never_mounted_is_removed_without_an_export() {
    let service = Service::start();
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("export", &export)]);
    fs::write(service.volume("a").join("found"), "x").unwrap();
    assert_eq!(service.volio("Remove", json!({"Name": "a"})).0, 200);
    assert!(!service.path("export").exists());
}

/// A registry with an image of one file, and a shut gate before it; returns the name of the image at the gate.
fn behind_a_gate() -> (Registry, Gate, String) {
    let registry = Registry::start();
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "far away").unwrap();
    pack(&format!("{}/team/data:v1", registry.host()), tree.path());
    let gate = Gate::shut(registry.host());
    let image = format!("{}/team/data:v1", gate.host());
    (registry, gate, image)
}

#[test]
fn a_removal_gives_up_the_fetch_of_a_registry_that_does_not_answer() {
    let (_registry, gate, image) = behind_a_gate();
    let service = Service::patient(Duration::from_millis(300), |_| {});
    service.create("a", &[("image", &image)]);
    service.mount("a", "1").unwrap_err();
    gate.wait_for_somebody();
    let begun = Instant::now();
    let removed = || service.volio("Remove", json!({"Name": "a"})).0 == 200;
    while !removed() {
        assert!(begun.elapsed() < SOON, "{}", service.status("a"));
    }
    assert!(service.has_said("since the volume is removed"));
    assert_eq!(service.volio("Get", json!({"Name": "a"})).0, 500);
    // The name is free again.
    service.create("a", &[]);
    service.mount("a", "2").unwrap();
}

#[test]
fn a_fetch_that_falls_behind_is_given_up_and_the_next_one_may_succeed() {
    let (_registry, gate, image) = behind_a_gate();
    let service = Service::adjusted(|settings| {
        settings.min_speed = MinSpeed { bytes: 1 << 20, within: Duration::from_millis(300) };
    });
    service.create("a", &[("image", &image)]);
    let error = service.mount("a", "1").unwrap_err();
    assert!(error.contains("given up: it brought less than 1024 KiB in 0.3 seconds"), "{error}");
    gate.open();
    service.mount("a", "2").unwrap();
}

#[test]
fn a_panic_in_a_fetch_or_an_export_ends_it() {
    let service = Service::adjusted(|settings| {
        settings.access = Box::new(|| panic!("what no code foresees"));
    });
    let image = service.pack("v1", &[("file", "one")]);
    service.create("a", &[("image", &image)]);
    let begun = Instant::now();
    let error = service.mount("a", "1").unwrap_err();
    assert!(error.contains("this is a bug"), "{error}");
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("b", &[("export", &export)]);
    fs::write(service.mount("b", "1").unwrap().join("x"), "x").unwrap();
    let (status, answer) = service.unmount("b", "1");
    assert!(status == 500 && answer["Err"].as_str().unwrap().contains("this is a bug"), "{answer}");
    assert!(begun.elapsed() < SOON, "nobody waited in vain");
    assert_eq!(service.status("b").get("doing"), None);
}
