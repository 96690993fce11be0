//! The storage directory: closed to other users, and cleared of unused content.

use super::Service;
use super::state::Daemon;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn other_users_cannot_enter_the_storage() {
    for (before, after) in [(0o755, 0o700), (0o777, 0o700), (0o750, 0o700), (0o500, 0o500), (0o711, 0o711)] {
        let service = Service::start_with(|storage| {
            fs::set_permissions(storage, Permissions::from_mode(before)).unwrap();
        });
        assert_eq!(mode(&service.storage()), after, "{before:o}");
        fs::set_permissions(service.storage(), Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_volume_may_be_called_what_lies_in_the_storage_beside_volumes() {
    let mut service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    for name in ["lock", "used", "trash", "volio"] {
        service.create(name, &[("image", &image)]);
        assert!(service.mount(name, "1").unwrap().join("file").exists());
    }
    service.restart();
    assert_eq!(service.status("lock")["mounts"], json!({"1": 1}));
}

#[test]
fn a_storage_of_an_earlier_version_is_still_known_to_have_been_used() {
    let mut service = Service::start();
    service.create("a", &[]);
    service.stop();
    let own = service.storage().join(".volio");
    fs::rename(own.join(".used"), own.join("used")).unwrap();
    fs::rename(own.join(".lock"), own.join("lock")).unwrap();
    service.restart();
    assert!(!own.join("used").exists() && !own.join("lock").exists());
    service.create("used", &[]);
    service.mount("used", "1").unwrap();
    service.stop();
    fs::remove_file(service.storage().join("volumes.json")).unwrap();
    assert!(service.run().unwrap_err().to_string().contains("volumes.json is gone"));
}

/// Returns the names in the trash.
fn trash(storage: &Path) -> Vec<PathBuf> {
    fs::read_dir(storage.join(".volio/.trash")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_a_killed_plugin_has_left_is_removed_when_the_next_one_starts() {
    let mut service = Service::start();
    service.create("a", &[]);
    service.mount("a", "1").unwrap();
    service.stop();
    let left = service.storage().join(".volio/a/new");
    fs::create_dir_all(left.join("half/of")).unwrap();
    fs::write(left.join("half/of/it"), "data").unwrap();
    service.run().unwrap();
    assert!(!left.exists());
    let deadline = Instant::now() + super::SOON;
    while !trash(&service.storage()).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", service.journal.lock().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn what_cannot_be_removed_is_told_once_and_keeps_no_volume_from_being_filled() {
    let change = |flag: &str, path: &Path| {
        Command::new("chattr").arg(flag).arg(path).output().is_ok_and(|output| output.status.success())
    };
    let service = Service::start();
    let image = service.pack("v1", &[("file", "one"), ("fixed", "one")]);
    service.create("a", &[("image", &image), ("pull", "always"), ("policy", "replace")]);
    let path = service.mount("a", "1").unwrap();
    service.unmount("a", "1");
    if !change("+i", &path.join("fixed")) {
        let why = "SKIPPED: what cannot be removed, because no file can be made immutable here\n";
        return std::io::stderr().write_all(why.as_bytes()).unwrap();
    }
    for content in ["two", "three"] {
        service.pack("v1", &[("file", content)]);
        service.mount("a", "2").unwrap();
        service.unmount("a", "2");
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), content);
    }
    let left = trash(&service.storage());
    assert_eq!(left.len(), 1, "{left:?}");
    let said = service.journal.lock().unwrap().clone();
    let told: Vec<_> = said.iter().filter(|line| line.contains("cannot remove")).collect();
    assert!(change("-i", &left[0].join("fixed")));
    assert_eq!(fs::read_dir(&left[0]).unwrap().count(), 1, "all else is gone");
    assert!(
        matches!(&told[..], [line] if line.contains("/fixed: ") && line.contains("in an hour")),
        "{said:?}"
    );
}

#[test]
fn a_container_cannot_end_the_plugin_or_block_its_volume_by_the_depth_of_its_directories() {
    // On a disk it takes many seconds to make them.
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut daemon = Daemon::at(place);
    daemon.start_with_descriptors(128);
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "data").unwrap();
    let image = format!("oci:{}:v1", daemon.place.path().join("layout").display());
    super::pack(&image, tree.path());
    let options = json!({"image": image, "pull": "always", "policy": "replace"});
    let ask = |call: &str, more: Value| {
        let mut body = json!({"Name": "a"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        daemon.ask(call, &body).expect("an answer")
    };
    assert_eq!(ask("Create", json!({"Opts": options}))["Err"], "");
    for id in ["1", "2"] {
        let answer = ask("Mount", json!({"ID": id}));
        assert_eq!(answer["Err"].as_str().unwrap_or_default(), "", "{answer}");
        let volume = daemon.place.path().join("storage/a");
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 1, "nothing is left of what the container made");
        super::nest(&volume, 15_000);
        ask("Unmount", json!({"ID": id}));
    }
    assert_eq!(ask("Mount", json!({"ID": "3"}))["Err"].as_str().unwrap_or_default(), "");
    assert_eq!(trash(&daemon.place.path().join("storage")), Vec::<PathBuf>::new());
}

#[cfg(target_os = "linux")]
mod mounted {
    use super::*;

    struct Bound(PathBuf);

    impl Bound {
        fn at(place: &Path, source: &Path) -> Self {
            let mounted = Command::new("mount").arg("--bind").args([source, place]).status().unwrap();
            assert!(mounted.success());
            Self(place.to_owned())
        }
    }

    impl Drop for Bound {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        }
    }

    #[test]
    #[ignore = "needs root: run tests/run"]
    fn a_volume_in_which_something_is_mounted_is_not_replaced_and_what_is_mounted_keeps_all_it_has() {
        let service = Service::start();
        let image = service.pack("v1", &[("file", "one"), ("data/keep", "")]);
        service.create("a", &[("image", &image), ("pull", "newer"), ("policy", "replace")]);
        let path = service.mount("a", "1").unwrap();
        service.unmount("a", "1");
        // Of the same file system, as a pre-mount hook or an administrator mounts it.
        let outside = service.path("outside");
        fs::create_dir_all(outside.join("below")).unwrap();
        fs::write(outside.join("below/precious"), "data").unwrap();
        let bound = Bound::at(&path.join("data"), &outside);
        service.mount("a", "2").expect("the image is the same, so there is nothing to replace");
        service.unmount("a", "2");
        service.pack("v1", &[("file", "two"), ("data/keep", "")]);
        // After a kill without its post-unmount command, a container must be able to start and run it again.
        service.mount("a", "3").unwrap();
        service.unmount("a", "3");
        assert!(service.has_said("it keeps what it holds: something is mounted on"));
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "one");
        assert_eq!(fs::read_to_string(outside.join("below/precious")).unwrap(), "data");
        drop(bound);
        service.mount("a", "4").unwrap();
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "two");
        assert_eq!(fs::read_to_string(outside.join("below/precious")).unwrap(), "data");
    }

    #[test]
    #[ignore = "needs root: run tests/run"]
    fn what_is_mounted_in_what_is_being_removed_keeps_all_it_has() {
        let mut service = Service::start();
        service.create("a", &[]);
        service.mount("a", "1").unwrap();
        service.stop();
        let outside = service.path("outside");
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("precious"), "data").unwrap();
        let left = service.storage().join(".volio/a/new/mounted");
        fs::create_dir_all(&left).unwrap();
        let bound = Bound::at(&left, &outside);
        service.run().unwrap();
        let deadline = Instant::now() + super::super::SOON;
        while !service.has_said("something is mounted on it") {
            assert!(Instant::now() < deadline, "{:?}", service.journal.lock().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "data");
        let moved = trash(&service.storage())[0].join("mounted");
        // It has moved with the directory.
        std::mem::forget(bound);
        drop(Bound(moved));
    }
}
