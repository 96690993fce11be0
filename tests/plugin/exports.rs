//! Volumes that are packed when the last container lets go.

use super::Service;
use crate::registry::{Refusal, Registry, noise};
use serde_json::json;
use std::fs;
use std::process::Command;
use std::time::Duration;
use volio::transport::{Access, Location};

#[test]
fn the_last_container_that_lets_go_has_the_volume_packed_before_the_engine_is_answered() {
    let service = Service::start();
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("export", &export)]);
    let path = service.mount("a", "1").unwrap();
    service.mount("a", "2").unwrap();
    fs::write(path.join("result"), "42").unwrap();
    service.unmount("a", "1");
    assert!(!service.path("export").exists(), "one container is left");
    assert_eq!(service.unmount("a", "2").0, 200);
    assert_eq!(fs::read_to_string(service.unpack(&export).path().join("result")).unwrap(), "42");
    let status = service.status("a");
    assert_eq!(status["lastExport"]["image"], json!(export), "{status}");
    assert!(status["lastExport"]["digest"].as_str().unwrap().starts_with("sha256:"));
}

#[test]
fn what_was_not_changed_is_not_exported_again() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("image", &image), ("export", &export)]);
    service.mount("a", "1").unwrap();
    service.unmount("a", "1");
    assert_eq!(fs::read_to_string(service.unpack(&export).path().join("file")).unwrap(), "one");
    let path = service.mount("a", "2").unwrap();
    fs::write(path.join("new"), "x").unwrap();
    service.unmount("a", "2");
    let first = service.status("a")["lastExport"].clone();
    assert!(service.path("export").exists());
    fs::remove_dir_all(service.path("export")).unwrap();
    service.mount("a", "3").unwrap();
    service.unmount("a", "3");
    assert!(!service.path("export").exists());
    assert_eq!(service.status("a")["lastExport"], first);
    // The same size and the same time of a file prove nothing.
    let file = fs::File::open(path.join("new")).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    fs::write(path.join("new"), "y").unwrap();
    file.set_modified(time).unwrap();
    service.mount("a", "4").unwrap();
    service.unmount("a", "4");
    assert_eq!(fs::read_to_string(service.unpack(&export).path().join("new")).unwrap(), "y");
}

#[test]
fn rules_in_a_volume_leave_nothing_out_of_its_export() {
    let service = Service::start();
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("export", &export)]);
    let path = service.mount("a", "1").unwrap();
    fs::write(path.join(".volioignore"), "*\n").unwrap();
    fs::write(path.join("result"), "42").unwrap();
    service.unmount("a", "1");
    let exported = service.unpack(&export);
    assert_eq!(fs::read_to_string(exported.path().join("result")).unwrap(), "42");
    assert_eq!(fs::read_to_string(exported.path().join(".volioignore")).unwrap(), "*\n");
}

#[test]
fn a_volume_that_is_made_anew_with_another_export_is_exported_there_too() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    let export = |name: &str| format!("oci:{}:v1", service.path(name).display());
    for name in ["first", "second"] {
        service.create("a", &[("image", &image), ("export", &export(name))]);
        let path = service.mount("a", "1").unwrap();
        if name == "first" {
            fs::write(path.join("file"), "changed").unwrap();
        }
        service.unmount("a", "1");
        let exported = service.unpack(&export(name));
        assert_eq!(fs::read_to_string(exported.path().join("file")).unwrap(), "changed", "{name}");
        service.volio("Remove", json!({"Name": "a"}));
    }
}

#[test]
fn an_export_that_fails_is_told_and_tried_again_after_a_restart() {
    let registry = Registry::start();
    let mut service = Service::start();
    let export = format!("{}/team/results:v1", registry.host());
    service.create("a", &[("export", &export)]);
    fs::write(service.mount("a", "1").unwrap().join("result"), "42").unwrap();
    registry.behave(|behaviour| {
        let refusal = Refusal {
            method: axum::http::Method::POST,
            path: "/blobs/uploads/",
            status: 507,
            body: "the registry is full".to_owned(),
            ..Refusal::default()
        };
        behaviour.refusals = vec![refusal];
    });
    let (status, answer) = service.unmount("a", "1");
    assert!(status == 500 && answer["Err"].as_str().unwrap().contains("exporting it failed"), "{answer}");
    let status = service.status("a");
    assert_eq!((&status["exportDue"], &status["mounts"]), (&json!(true), &json!({})), "{status}");
    assert_eq!(status["lastError"]["doing"], "exporting it");
    service.restart();
    let status = service.wait_for_status("a", |status| status.get("lastExport").is_some());
    assert_eq!((status.get("exportDue"), status.get("lastError")), (None, None), "{status}");
    assert_eq!(fs::read_to_string(service.unpack(&export).path().join("result")).unwrap(), "42");
}

#[test]
fn what_was_not_exported_yet_is_not_replaced() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    // A file cannot be a layout.
    fs::write(service.path("no-layout"), "").unwrap();
    let export = format!("oci:{}:v1", service.path("no-layout").display());
    service.create("a", &[("image", &image), ("pull", "newer"), ("policy", "replace"), ("export", &export)]);
    let path = service.mount("a", "1").unwrap();
    fs::write(path.join("file"), "changed").unwrap();
    assert_eq!(service.unmount("a", "1").0, 500);
    service.pack("v1", &[("file", "two")]);
    let error = service.mount("a", "2").unwrap_err();
    assert!(error.contains("was not exported yet"), "{error}");
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "changed");
}

#[test]
fn what_is_exported_to_where_it_comes_from_is_not_fetched_again() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    service.create("a", &[("image", &image), ("pull", "newer"), ("policy", "replace"), ("export", &image)]);
    let path = service.mount("a", "1").unwrap();
    fs::write(path.join("file"), "changed").unwrap();
    assert_eq!(service.unmount("a", "1").0, 200);
    let status = service.status("a");
    assert_eq!(status["digest"], status["lastExport"]["digest"]);
    service.mount("a", "2").unwrap();
    assert!(service.has_said("is still sha256:"));
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "changed");
}

#[test]
fn a_plugin_that_is_stopped_carries_the_export_to_its_end() {
    let mut service = Service::start();
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("export", &export)]);
    let path = service.mount("a", "1").unwrap();
    for n in 0..200 {
        fs::write(path.join(format!("{n}")), vec![n as u8; 50_000]).unwrap();
    }
    let mut stream = service.connect("volio");
    super::send(&mut stream, "Unmount", r#"{"Name":"a","ID":"1"}"#);
    service.wait_for_status("a", |status| status["mounts"] == json!({}));
    service.stop();
    assert_eq!(service.unpack(&export).path().read_dir().unwrap().count(), 200);
}

#[test]
fn mounts_of_an_engine_that_was_killed_are_forgotten_when_nobody_sees_the_volume() {
    // Only root can find out which processes see a volume; for other users, counted mounts are in use.
    let knows = rustix::process::geteuid().is_root();
    let service = Service::adjusted(|settings| settings.mount_grace = Duration::ZERO);
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("export", &export)]);
    fs::write(service.volume("a").join("x"), "x").unwrap();
    // A separate process, which mounts twice with the same id and has ended when the responses arrive.
    let script = "import socket, sys
for _ in range(2):
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
    body = b'{\"Name\":\"a\",\"ID\":\"1\"}'
    s.sendall(b'POST /VolumeDriver.Mount HTTP/1.1\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n' % len(body) + body)
    while s.recv(4096): pass";
    let engine = Command::new("python3").args(["-c", script]).arg(service.socket("volio")).status().unwrap();
    assert!(engine.success());
    if knows {
        let forgotten = |status: &serde_json::Value| status["mounts"] == json!({});
        service.wait_for_status("a", |status| forgotten(status) && status.get("lastExport").is_some());
    } else {
        assert_eq!(service.status("a")["mounts"], json!({"1": 2}))
    }
}

/// Returns the sizes of the layers of an exported image.
fn layers(export: &str) -> Vec<u64> {
    let source = export.parse::<Location>().unwrap().source(&Access::default()).unwrap();
    let inspected = volio::inspect::inspect(source.as_ref()).unwrap();
    inspected.images[0].layers.iter().map(|layer| layer.size).collect()
}

#[test]
fn an_incremental_export_adds_what_changed_to_the_image_and_holds_what_a_full_one_would() {
    let service = Service::start();
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("export", &export), ("export-mode", "incremental")]);
    let path = service.mount("a", "1").unwrap();
    fs::write(path.join("large"), noise(500_000)).unwrap();
    fs::write(path.join("small"), "one").unwrap();
    service.unmount("a", "1");
    assert_eq!(layers(&export).len(), 1);
    assert_eq!(service.status("a")["exportMode"], json!("incremental"));

    // A program that sets the time of a file hides the change from a comparison of metadata.
    let path = service.mount("a", "2").unwrap();
    let time = fs::metadata(path.join("small")).unwrap().modified().unwrap();
    fs::write(path.join("small"), "two").unwrap();
    fs::File::options().write(true).open(path.join("small")).unwrap().set_modified(time).unwrap();
    service.unmount("a", "2");
    let after = layers(&export);
    assert!(after.len() == 2 && after[0] > 500_000 && after[1] < 5_000, "{after:?}");
    let exported = service.unpack(&export);
    assert_eq!(fs::read_to_string(exported.path().join("small")).unwrap(), "two");
    assert_eq!(fs::read(exported.path().join("large")).unwrap(), noise(500_000));

    // A container may remove almost everything. Then most of the image is dead, and it is packed in full.
    let path = service.mount("a", "3").unwrap();
    fs::remove_file(path.join("large")).unwrap();
    service.unmount("a", "3");
    assert_eq!(layers(&export).len(), 1);
    assert!(!service.unpack(&export).path().join("large").exists());
    let journal = service.journal.lock().unwrap().join("\n");
    assert!(journal.contains("0 added, 1 changed, 0 removed: sent "), "{journal}");
    assert!(journal.contains("packed in full: more than 50 % of its bytes would be dead"), "{journal}");
}

#[test]
fn an_incremental_export_over_the_image_of_another_writer_holds_the_volume() {
    let service = Service::start();
    let export = service.pack("theirs", &[("theirs", "x"), ("file", "theirs")]);
    service.create("a", &[("export", &export), ("export-mode", "incremental")]);
    let path = service.mount("a", "1").unwrap();
    fs::write(path.join("file"), "ours").unwrap();
    service.unmount("a", "1");
    let exported = service.unpack(&export);
    assert_eq!(fs::read_to_string(exported.path().join("file")).unwrap(), "ours");
    assert!(!exported.path().join("theirs").exists());
}
