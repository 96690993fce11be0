//! Volumes that are filled from images.

use super::{Gate, Service, pack, receive, send};
use crate::registry::{Recorded, Registry};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
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
fn a_volume_holds_the_image_before_a_container_gets_it() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one"), ("etc/conf", "two")]);
    service.create("a", &[("image", &image)]);
    let path = service.mount("a", "1").unwrap();
    assert_eq!(path, service.volume("a"));
    assert_eq!((read(&path, "file"), read(&path, "etc/conf")), ("one".into(), "two".into()));
    let status = service.status("a");
    assert_eq!(
        (&status["image"], &status["pull"], &status["policy"]),
        (&json!(image), &json!("missing"), &json!("once"))
    );
    assert!(status["digest"].as_str().unwrap().starts_with("sha256:"), "{status}");
    assert_eq!(status["lastFetch"]["image"], json!(image));
}

#[test]
fn a_volume_is_filled_once_and_then_belongs_to_its_containers() {
    let mut service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    service.create("a", &[("image", &image)]);
    let path = service.mount("a", "1").unwrap();
    fs::write(path.join("file"), "changed").unwrap();
    service.unmount("a", "1");
    service.pack("v1", &[("file", "another version")]);
    service.restart();
    service.mount("a", "2").unwrap();
    assert_eq!(read(&path, "file"), "changed");
    // A volume that is created again from the same image takes over what is there.
    service.unmount("a", "2");
    service.volio("Remove", json!({"Name": "a"}));
    service.create("a", &[("image", &image)]);
    service.mount("a", "3").unwrap();
    assert_eq!(read(&path, "file"), "changed");
}

#[test]
fn a_volume_that_holds_other_data_is_refused_and_stays_as_it_is() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    fs::create_dir(service.volume("a")).unwrap();
    fs::write(service.volume("a").join("precious"), "mine").unwrap();
    service.create("a", &[("image", &image)]);
    let error = service.mount("a", "1").unwrap_err();
    assert!(error.contains("holds data that is not from") && error.contains("such as /precious"), "{error}");
    assert!(error.contains("policy=replace"), "and what to do: {error}");
    assert_eq!(read(&service.volume("a"), "precious"), "mine");
    assert_eq!(service.status("a")["mounts"], json!({}));

    service.volio("Remove", json!({"Name": "a"}));
    service.create("a", &[("image", &image), ("policy", "replace")]);
    let path = service.mount("a", "1").unwrap();
    assert!(!path.join("precious").exists());
    assert_eq!(read(&path, "file"), "one");
}

#[test]
fn what_a_file_system_or_volio_itself_has_put_there_is_no_data() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    fs::create_dir(service.volume("a")).unwrap();
    // What `volio unpack` leaves where a file system has no extended attributes, here in a volume that was emptied.
    let record = json!({"complete": true, "content": {}, "alone": true, "inode": 1});
    fs::write(service.volume("a").join(".volio.json"), record.to_string()).unwrap();
    service.create("a", &[("image", &image)]);
    assert_eq!(read(&service.mount("a", "1").unwrap(), "file"), "one");
    // An entry that only looks like it is a user's.
    fs::create_dir(service.volume("b")).unwrap();
    fs::write(service.volume("b").join(".volio.json"), "mine").unwrap();
    service.create("b", &[("image", &image)]);
    let error = service.mount("b", "1").unwrap_err();
    assert!(error.contains("such as /.volio.json"), "{error}");
}

#[test]
fn a_newer_image_replaces_the_content_when_nobody_has_the_volume() {
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    service.create("a", &[("image", &image), ("pull", "newer"), ("policy", "replace")]);
    let path = service.mount("a", "1").unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    service.pack("v1", &[("file", "two")]);
    service.mount("a", "2").unwrap();
    assert_eq!(read(&path, "file"), "one", "the first container still has it");
    service.unmount("a", "1");
    service.unmount("a", "2");
    service.mount("a", "3").unwrap();
    assert_eq!(read(&path, "file"), "two");
    assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
    service.unmount("a", "3");
    // The same image need not come again.
    fs::write(path.join("note"), "kept").unwrap();
    service.mount("a", "4").unwrap();
    assert_eq!(read(&path, "note"), "kept");
    service.unmount("a", "4");
    service.volio("Remove", json!({"Name": "a"}));

    service.create("a", &[("image", &image), ("pull", "always"), ("policy", "replace")]);
    service.mount("a", "5").unwrap();
    assert!(!path.join("note").exists(), "always means always");
}

#[test]
fn a_part_of_an_image_for_somebody_with_a_mode() {
    let service = Service::start();
    let image = service.pack("v1", &[("var/lib/app/file", "one"), ("other", "two")]);
    let me = fs::metadata(service.storage()).unwrap();
    let (uid, gid) = (me.uid().to_string(), me.gid().to_string());
    service.create(
        "a",
        &[("image", &image), ("subpath", "/var/lib/app"), ("mode", "0711"), ("uid", &uid), ("gid", &gid)],
    );
    let path = service.mount("a", "1").unwrap();
    assert_eq!(read(&path, "file"), "one");
    assert!(!path.join("other").exists());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o711);
    service.create("b", &[("image", &image), ("subpath", "nowhere")]);
    let error = service.mount("b", "1").unwrap_err();
    assert!(error.contains("the image has no /nowhere"), "{error}");
    service.create("c", &[("image", &image), ("subpath", "var/lib/app/file")]);
    assert_eq!(read(&service.mount("c", "1").unwrap(), "file"), "one", "a file lands under its own name");
}

#[test]
fn a_link_of_the_image_is_no_way_to_a_directory_of_the_host() {
    let service = Service::start();
    let tree = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", tree.path().join("link")).unwrap();
    let image = format!("oci:{}:links", service.path("layout").display());
    pack(&image, tree.path());
    service.create("a", &[("image", &image), ("subpath", "link/ssl")]);
    let error = service.mount("a", "1").unwrap_err();
    assert!(error.contains("links in a path are not followed"), "{error}");
    service.create("b", &[("image", &image), ("subpath", "link")]);
    let path = service.mount("b", "1").unwrap();
    assert!(fs::symlink_metadata(path.join("link")).unwrap().is_symlink(), "it is what the image has");
}

#[test]
fn an_image_that_is_not_there_is_an_error_where_the_user_sees_it_and_the_next_try_may_succeed() {
    let service = Service::start();
    let image = format!("oci:{}:v1", service.path("layout").display());
    service.create("a", &[("image", &image)]);
    let error = service.mount("a", "1").unwrap_err();
    assert!(error.contains("layout"), "{error}");
    assert_ne!(service.status("a")["lastError"]["error"], json!(null));
    service.pack("v1", &[("file", "one")]);
    service.mount("a", "1").unwrap();
    assert_eq!(service.status("a").get("lastError"), None, "what is mended is not shown any more");
}

#[test]
fn a_registry_that_refuses_is_named_with_its_reason() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.login = crate::registry::Login::Basic { user: "me:secret" });
    let service = Service::start();
    service.create("a", &[("image", &format!("{}/team/data:v1", registry.host()))]);
    let error = service.mount("a", "1").unwrap_err();
    assert!(error.contains(registry.host()), "{error}");
    assert!(service.volume("a").read_dir().unwrap().next().is_none(), "the volume is as it was");
}

#[test]
fn a_fetch_outlives_the_engines_patience_and_the_next_mount_finds_it() {
    let (registry, gate, image) = behind_a_gate();
    let service = Service::patient(Duration::from_millis(300), |_| {});
    service.create("a", &[("image", &image), ("pull", "always"), ("policy", "replace")]);
    let error = service.mount("a", "1").unwrap_err();
    assert!(error.contains("it is being filled from") && error.contains("try again"), "{error}");
    let status = service.status("a");
    assert!(status["doing"].as_str().unwrap().contains("being filled"), "{status}");
    assert_eq!(status["mounts"], json!({}));
    // Other volumes do not wait.
    service.create("b", &[]);
    service.mount("b", "1").unwrap();
    gate.open();
    service.wait_for_status("a", |status| status.get("digest").is_some() && status.get("doing").is_none());
    let asked = registry.requests().len();
    let path = service.mount("a", "1").unwrap();
    assert_eq!(read(&path, "file"), "far away");
    assert_eq!(registry.requests().len(), asked, "even with pull=always it is not fetched once more");
}

#[test]
fn an_engine_that_hangs_up_has_no_mount_and_keeps_what_was_fetched() {
    let (_registry, gate, image) = behind_a_gate();
    let service = Service::start();
    service.create("a", &[("image", &image)]);
    let mut stream = service.connect("volio");
    send(&mut stream, "Mount", r#"{"Name":"a","ID":"1"}"#);
    gate.wait_for_somebody();
    drop(stream);
    gate.open();
    service.wait_for_status("a", |_| service.has_said("hung up"));
    let status = service.wait_for_status("a", |status| status["mounts"] == json!({}));
    assert!(status.get("digest").is_some(), "{status}");
    assert_eq!(read(&service.mount("a", "2").unwrap(), "file"), "far away");
}

#[test]
fn two_containers_at_once_share_one_fetch() {
    let (registry, gate, image) = behind_a_gate();
    let service = Service::start();
    service.create("a", &[("image", &image), ("pull", "always"), ("policy", "replace")]);
    let mut streams = [service.connect("volio"), service.connect("volio")];
    for (stream, id) in streams.iter_mut().zip(["1", "2"]) {
        send(stream, "Mount", &format!(r#"{{"Name":"a","ID":"{id}"}}"#));
    }
    gate.wait_for_somebody();
    gate.open();
    for stream in &mut streams {
        assert_eq!(receive(stream).unwrap().0, 200);
    }
    assert_eq!(service.status("a")["mounts"], json!({"1": 1, "2": 1}));
    let fetched = |request: &&Recorded| request.method == "GET" && request.path.contains("/blobs/");
    let blobs = registry.requests().iter().filter(fetched).count();
    let once = {
        let service = Service::start();
        let before = registry.requests().len();
        service.create("a", &[("image", &image)]);
        service.mount("a", "1").unwrap();
        registry.requests()[before..].iter().filter(fetched).count()
    };
    assert_eq!(blobs, once);
}

#[test]
fn docker_cp_mounts_with_the_same_id_and_the_container_keeps_its_volume() {
    let service = Service::start();
    let export = format!("oci:{}:v1", service.path("export").display());
    service.create("a", &[("export", &export)]);
    fs::write(service.mount("a", "container").unwrap().join("x"), "x").unwrap();
    for _ in 0..2 {
        service.mount("a", "container").unwrap();
        service.unmount("a", "container");
    }
    assert_eq!(service.status("a")["mounts"], json!({"container": 1}));
    assert!(!service.path("export").exists(), "nothing is exported while it runs");
    service.unmount("a", "container");
    assert!(service.path("export").exists());
}

mod as_root {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    #[ignore = "needs root: run tests/run"]
    fn files_belong_to_whom_the_options_say_and_give_no_rights_away() {
        let service = Service::start();
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("tool"), "x").unwrap();
        fs::create_dir(tree.path().join("sub")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", tree.path().join("sub/link")).unwrap();
        fs::set_permissions(tree.path().join("tool"), std::os::unix::fs::PermissionsExt::from_mode(0o4755))
            .unwrap();
        let before = fs::metadata("/etc/passwd").unwrap().uid();
        let image = format!("oci:{}:v1", service.path("layout").display());
        pack(&image, tree.path());
        service.create("a", &[("image", &image), ("uid", "70"), ("gid", "71")]);
        let path = service.mount("a", "1").unwrap();
        for file in ["", "tool", "sub", "sub/link"] {
            let found = fs::symlink_metadata(path.join(file)).unwrap();
            assert_eq!((found.uid(), found.gid()), (70, 71), "{file}");
        }
        assert_eq!(fs::metadata(path.join("tool")).unwrap().mode() & 0o7777, 0o755, "as with unpack --owner");
        assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), before);
        service.create("user", &[("image", &image), ("uid", "70")]);
        let found = fs::metadata(service.mount("user", "1").unwrap().join("tool")).unwrap();
        assert_eq!((found.uid(), found.gid()), (70, fs::metadata(tree.path().join("tool")).unwrap().gid()));
        service.create("plain", &[("uid", "70"), ("mode", "0700")]);
        let path = service.mount("plain", "1").unwrap();
        let owned = |path: &Path| {
            let found = fs::metadata(path).unwrap();
            (found.uid(), found.mode() & 0o7777)
        };
        assert_eq!(owned(&path), (70, 0o700));
        // To change options, a volume is removed and created again; its data stays with its owners.
        fs::write(path.join("file"), "x").unwrap();
        let file = owned(&path.join("file"));
        service.unmount("plain", "1");
        service.volio("Remove", json!({"Name": "plain"}));
        service.create("plain", &[("uid", "71"), ("mode", "0750")]);
        assert_eq!((owned(&path), owned(&path.join("file"))), ((71, 0o750), file));
        // What its container has changed stays changed.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        service.mount("plain", "2").unwrap();
        assert_eq!(owned(&path), (71, 0o711));
    }

    /// A process that has a directory mounted elsewhere, in a separate mount namespace, as a container has. Its mount
    /// point must stay: if it is removed outside, the kernel removes the mount inside.
    struct Container(std::process::Child, #[allow(dead_code)] tempfile::TempDir);

    impl Container {
        fn with(volume: &Path) -> Self {
            let at = tempfile::tempdir().unwrap();
            let script = format!(
                "mount --bind '{}' '{}' && echo ready && exec sleep 1000",
                volume.display(),
                at.path().display()
            );
            let mut child = Command::new("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-c", &script])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = [0; 6];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
            assert_eq!(&said, b"ready\n");
            Self(child, at)
        }
    }

    impl Drop for Container {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    #[ignore = "needs root: run tests/run"]
    fn what_a_container_really_has_is_neither_replaced_exported_nor_removed_whatever_was_counted() {
        what_a_container_has_is_kept("replace");
    }

    #[test]
    #[ignore = "needs root: run tests/run"]
    fn what_a_container_really_has_is_not_changed_in_place_either() {
        what_a_container_has_is_kept("sync");
    }

    fn what_a_container_has_is_kept(policy: &str) {
        let service = Service::start();
        let image = service.pack("v1", &[("file", "one")]);
        let export = format!("oci:{}:v1", service.path("export").display());
        let options =
            [("image", image.as_str()), ("pull", "newer"), ("policy", policy), ("export", export.as_str())];
        service.create("a", &options);
        let path = service.mount("a", "1").unwrap();
        let container = Container::with(&path);
        // As a docker that was restarted under running containers: docker cp ends the last mount that it knows of.
        service.unmount("a", "1");
        fs::write(path.join("file"), "changed").unwrap();
        service.pack("v1", &[("file", "two")]);
        service.mount("a", "2").unwrap();
        assert_eq!(read(&path, "file"), "changed");
        service.unmount("a", "2");
        let (status, answer) = service.volio("Remove", json!({"Name": "a"}));
        assert!(status == 500 && answer["Err"].as_str().unwrap().contains("in use by process"), "{answer}");
        assert!(!service.path("export").exists());
        drop(container);
        // No engine reports that the mount has ended, and yet the volume is exported.
        let status = service.wait_for_status("a", |status| status.get("lastExport").is_some());
        assert_eq!(status.get("exportDue"), None);
        assert_eq!(read(service.unpack(&export).path(), "file"), "changed");
    }

    /// A small file system in memory as the storage.
    struct Small(std::path::PathBuf);

    impl Small {
        fn at(path: &Path, size: &str) -> Self {
            let options = format!("size={size}");
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(path)
                .status()
                .unwrap();
            assert!(mounted.success());
            Self(path.to_owned())
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        }
    }

    #[test]
    #[ignore = "needs root: run tests/run"]
    fn a_full_disk_leaves_the_volume_as_it_was_and_says_so() {
        let mut small = None;
        let service = Service::start_with(|storage| small = Some(Small::at(storage, "3m")));
        let old = service.pack("old", &[("file", "precious")]);
        let tree = tempfile::tempdir().unwrap();
        let mut state = 1u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        });
        fs::write(tree.path().join("big"), noise.take(4 << 20).collect::<Vec<u8>>()).unwrap();
        service.create("a", &[("image", &old), ("pull", "newer"), ("policy", "replace")]);
        let path = service.mount("a", "1").unwrap();
        service.unmount("a", "1");
        pack(&old, tree.path());
        let error = service.mount("a", "2").unwrap_err();
        assert!(error.contains("No space left on device"), "{error}");
        assert_eq!(read(&path, "file"), "precious");
        let left = rustix::fs::statvfs(service.storage()).unwrap();
        assert!(left.f_bfree * left.f_frsize > 2 << 20, "what did not fit is gone again");
        drop(service);
        drop(small);
    }
}
