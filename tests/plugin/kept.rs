//! Data that must not get lost, neither in a volume nor in an image, whatever engines send and whenever a program dies.

use super::{Service, pack};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Returns `true` if this process can find out which processes see a volume. For users other than root, a counted mount
/// is in use.
fn knows_who_sees_it() -> bool {
    rustix::process::geteuid().is_root()
}

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Makes an image with this file in a layout beside the storage, and returns its name.
fn yesterdays(service: &Service, file: &str) -> String {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join(file), "yesterday").unwrap();
    let export = format!("oci:{}:v1", service.path("export").display());
    pack(&export, tree.path());
    export
}

#[test]
fn a_container_that_starts_long_after_its_mount_is_exported_when_it_ends() {
    // Docker may wait minutes for another volume of the container.
    let service = Service::adjusted(|settings| settings.mount_grace = Duration::ZERO);
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("export", &export)]);
    fs::write(service.volume("a").join("found"), "x").unwrap();
    let path = service.mount("a", "1").unwrap();
    if knows_who_sees_it() {
        // No process sees it, and it is exported as it is; the mount is counted all the same.
        service.wait_for_status("a", |status| status.get("lastExport").is_some());
    }
    let status = service.status("a");
    assert_eq!((&status["mounts"], &status["exportDue"]), (&json!({"1": 1}), &json!(true)), "{status}");
    fs::write(path.join("result"), "42").unwrap();
    assert_eq!(service.unmount("a", "1").0, 200);
    assert_eq!(read(service.unpack(&export).path(), "result"), "42");
}

#[test]
fn docker_create_alone_replaces_no_image() {
    let service = Service::start();
    let export = yesterdays(&service, "result");
    let image = service.pack("v1", &[("file", "one")]);
    service.create("empty", &[("export", &export)]);
    service.create("filled", &[("image", &image), ("export", &export)]);
    let hook = "sh -c 'echo x >$VOLIO_MOUNTPOINT/made'";
    service.create("prepared", &[("image", &image), ("export", &export), ("pre-mount", hook)]);
    service.create("found", &[("export", &export)]);
    fs::write(service.volume("found").join("file"), "x").unwrap();
    for name in ["empty", "filled", "prepared", "found"] {
        for id in ["1", "2"] {
            let path = service.mount(name, id).unwrap();
            if name == "empty" {
                // Docker gives an empty volume the mode and the owner of what it will cover.
                fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            }
            assert_eq!(service.unmount(name, id).0, 200);
        }
        assert_eq!(read(service.unpack(&export).path(), "result"), "yesterday", "{name}");
        assert_eq!(service.status(name).get("exportDue"), None, "{name}");
    }
    // What a container then does is exported.
    fs::write(service.mount("prepared", "3").unwrap().join("new"), "x").unwrap();
    service.unmount("prepared", "3");
    assert_eq!(read(service.unpack(&export).path(), "new"), "x");
}

#[test]
fn a_volume_that_its_container_has_emptied_is_exported() {
    let service = Service::start();
    let export = yesterdays(&service, "result");
    service.create("a", &[("export", &export), ("image", &export)]);
    let path = service.mount("a", "1").unwrap();
    fs::remove_file(path.join("result")).unwrap();
    assert_eq!(service.unmount("a", "1").0, 200);
    assert_eq!(service.unpack(&export).path().read_dir().unwrap().count(), 0);
}

#[test]
fn an_unchanged_image_is_exported_where_the_name_means_nothing_yet() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("image", &image), ("export", &export)]);
    service.mount("a", "1").unwrap();
    assert_eq!(service.unmount("a", "1").0, 200);
    assert_eq!(read(service.unpack(&export).path(), "file"), "one");
    assert_eq!(service.status("a")["lastExport"]["image"], json!(export));
}

#[test]
fn content_decides_what_would_be_lost_and_not_what_is_written_down() {
    let mut service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("image", &image), ("pull", "always"), ("policy", "replace"), ("export", &export)]);
    let path = service.mount("a", "1").unwrap();
    fs::write(path.join("file"), "changed").unwrap();
    service.stop();
    service.with_record("a", |record| {
        record["mounts"] = json!({});
        record["exportDue"] = json!(false);
    });
    service.pack("v1", &[("file", "two")]);
    service.run().unwrap();
    // It is exported first, and replaced then.
    service.mount("a", "3").unwrap();
    assert_eq!(read(&path, "file"), "two");
    assert_eq!(read(service.unpack(&export).path(), "file"), "changed");
}

#[test]
fn a_volume_whose_data_nobody_exported_is_not_replaced_if_it_is_to_be_exported() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    fs::create_dir(service.volume("a")).unwrap();
    fs::write(service.volume("a").join("precious"), "mine").unwrap();
    let export = yesterdays(&service, "result");
    service.create("a", &[("image", &image), ("policy", "replace"), ("export", &export)]);
    let error = service.mount("a", "1").unwrap_err();
    assert!(error.contains("would be lost") && error.contains("volio pack"), "{error}");
    assert_eq!(read(&service.volume("a"), "precious"), "mine");
}

#[test]
fn what_comes_into_a_volume_while_it_is_fetched_for_is_not_swapped_away() {
    let registry = crate::registry::Registry::start();
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "far away").unwrap();
    pack(&format!("{}/team/data:v1", registry.host()), tree.path());
    let gate = super::Gate::shut(registry.host());
    let service = Service::patient(Duration::from_millis(300), |_| {});
    let image = format!("{}/team/data:v1", gate.host());
    service.create("a", &[("image", &image)]);
    service.mount("a", "1").unwrap_err();
    fs::write(service.volume("a").join("precious"), "mine").unwrap();
    gate.open();
    let status = service.wait_for_status("a", |status| status.get("doing").is_none());
    assert!(status["lastError"]["error"].as_str().unwrap().contains("such as /precious"), "{status}");
    assert_eq!(read(&service.volume("a"), "precious"), "mine");
}

#[test]
fn a_failed_hook_withholds_the_export_until_one_succeeds_and_the_content_is_not_replaced() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    let export = format!("oci:{}:v1", service.path("export").display());
    let hook = format!("test -e {}", service.path("ready").display());
    service.create(
        "a",
        &[
            ("image", &image),
            ("pull", "newer"),
            ("policy", "replace"),
            ("export", &export),
            ("post-unmount", &hook),
        ],
    );
    let path = service.mount("a", "1").unwrap();
    fs::write(path.join("file"), "changed").unwrap();
    assert_eq!(service.unmount("a", "1").0, 500);
    service.pack("v1", &[("file", "two")]);
    service.mount("a", "2").unwrap();
    assert_eq!(read(&path, "file"), "changed");
    assert!(!service.path("export").exists());
    fs::write(service.path("ready"), "").unwrap();
    assert_eq!(service.unmount("a", "2").0, 200);
    assert_eq!(read(service.unpack(&export).path(), "file"), "changed");
    service.mount("a", "3").unwrap();
    assert_eq!(read(&path, "file"), "two");
}

#[test]
fn a_mount_of_this_boot_keeps_the_content_whatever_its_age() {
    let mut service = Service::adjusted(|settings| settings.mount_grace = Duration::ZERO);
    let image = service.pack("v1", &[("file", "one")]);
    service.create("a", &[("image", &image), ("pull", "newer"), ("policy", "replace")]);
    let path = service.mount("a", "1").unwrap();
    service.pack("v1", &[("file", "two")]);
    service.restart();
    service.mount("a", "2").unwrap();
    assert_eq!(read(&path, "file"), "one");
    assert!(service.has_said("it is mounted for 1"));
    service.unmount("a", "1");
    service.unmount("a", "2");
    // An engine that cannot be identified, such as one in another PID namespace.
    service.stop();
    service.with_record("a", |record| record["mounts"] = json!({"3": 1}));
    service.run().unwrap();
    service.mount("a", "4").unwrap();
    assert_eq!(read(&path, "file"), "one");
    service.unmount("a", "4");
    service.stop();
    // After a boot no mount remains.
    service.with_record("a", |record| record["boot"] = json!("an earlier one"));
    service.run().unwrap();
    service.mount("a", "5").unwrap();
    assert_eq!(read(&path, "file"), "two");
}

#[test]
fn an_export_that_was_due_before_a_boot_is_made_after_it() {
    let mut service = Service::start();
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("export", &export)]);
    fs::write(service.mount("a", "1").unwrap().join("result"), "42").unwrap();
    service.stop();
    service.with_record("a", |record| record["boot"] = json!("an earlier one"));
    service.run().unwrap();
    let settled = |status: &Value| status.get("lastExport").is_some() && status.get("exportDue").is_none();
    service.wait_for_status("a", settled);
    assert_eq!(read(service.unpack(&export).path(), "result"), "42");
}

#[test]
fn a_swap_that_was_not_noted_is_found_out_without_a_look_at_the_content() {
    use std::os::unix::fs::MetadataExt;
    let mut service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    service.create("a", &[("image", &image)]);
    service.mount("a", "1").unwrap();
    service.unmount("a", "1");
    service.stop();
    let inode = fs::metadata(service.volume("a")).unwrap().ino();
    service.with_record("a", |record| {
        let filled = record.as_object_mut().unwrap().remove("filled").unwrap();
        record["filling"] = json!([filled, inode]);
        record["fillingContent"] = json!({"root": [0, 0, 0], "entries": "planted"});
    });
    service.run().unwrap();
    service.mount("a", "2").unwrap();
    service.stop();
    service.with_record("a", |record| {
        assert_eq!(record["content"]["fingerprint"]["entries"], json!("planted"));
        assert_eq!(record.get("filling"), None);
    });
}

#[test]
fn a_mount_that_docker_ended_while_no_plugin_ran_is_not_believed_for_ever() {
    // The grace of ten times nothing is over at once.
    let service = Service::adjusted(|settings| settings.mount_grace = Duration::ZERO);
    let image = service.pack("v1", &[("file", "one")]);
    service.create("a", &[("image", &image), ("pull", "newer"), ("policy", "replace")]);
    let path = service.mount("a", "1").unwrap();
    service.pack("v1", &[("file", "two")]);
    service.mount("a", "2").unwrap();
    service.unmount("a", "2");
    assert_eq!(read(&path, "file"), "one");
    // Docker's second try of an unmount has no body.
    let mut stream = service.connect("volio");
    super::send(&mut stream, "Unmount", "");
    assert_eq!(super::receive(&mut stream), None, "the connection is dropped");
    service.mount("a", "3").unwrap();
    let (content, mounts) =
        if knows_who_sees_it() { ("two", json!({"3": 1})) } else { ("one", json!({"1": 1, "3": 1})) };
    assert_eq!((read(&path, "file").as_str(), &service.status("a")["mounts"]), (content, &mounts));
}
