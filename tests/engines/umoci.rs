//! umoci, a reference implementation for OCI layouts, without a registry and a daemon.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::fixture::{self, Directory};
use super::program::{tool, volio};
use super::survey::Survey;

/// Packs the directory into a layout that umoci 0.4 can read: without zstd, and with one manifest for a tag.
fn pack_for_umoci(source: &Directory, work: &Directory) -> String {
    let image = work.join("layout:tag");
    let to = format!("oci:{image}");
    volio(&["pack", &to, source.text(), "--compression", "gzip", "--platform", "linux/amd64"]).succeeded();
    image
}

#[test]
#[ignore = "needs umoci and root: run tests/run"]
fn umoci_unpacks_an_identical_tree_as_root() {
    let (source, work) = (Directory::filled(), Directory::empty());
    let image = pack_for_umoci(&source, &work);
    tool("umoci", &["unpack", "--image", &image, &work.join("bundle")]);
    Survey::of(source.path()).assert_same(&Survey::of(&work.path().join("bundle/rootfs")));
}

#[test]
#[ignore = "needs umoci: run tests/run"]
fn umoci_unpacks_the_same_contents_and_modes_without_root() {
    let (source, work) = (Directory::filled_portable(), Directory::empty());
    let image = pack_for_umoci(&source, &work);
    tool("umoci", &["unpack", "--rootless", "--image", &image, &work.join("bundle")]);
    let unpacked = Survey::of(&work.path().join("bundle/rootfs")).without_owners_and_xattrs();
    Survey::of(source.path()).without_owners_and_xattrs().assert_same(&unpacked);
}

#[test]
#[ignore = "needs umoci: run tests/run"]
fn volio_unpacks_the_layers_and_whiteouts_that_umoci_repacked() {
    let (work, target) = (Directory::empty(), Directory::empty());
    let image = work.join("layout:tag");
    tool("umoci", &["init", "--layout", &work.join("layout")]);
    tool("umoci", &["new", "--image", &image]);
    tool("umoci", &["unpack", "--rootless", "--image", &image, &work.join("bundle")]);
    make_two_layers(&work.path().join("bundle/rootfs"), || {
        tool("umoci", &["repack", "--refresh-bundle", "--image", &image, &work.join("bundle")]);
    });
    let stat = tool("umoci", &["stat", "--json", "--image", &image]);
    let stat: serde_json::Value = serde_json::from_str(&stat).expect("JSON");
    let layers =
        stat["history"].as_array().expect("a history").iter().filter(|entry| entry["layer"].is_object());
    assert_eq!(layers.count(), 2, "{stat}");

    volio(&["unpack", &format!("oci:{image}"), target.text()]).succeeded();
    let unpacked = Survey::of(target.path());
    assert!(!unpacked.has("setuid") && !unpacked.has("directory") && unpacked.has("replaced"));

    // umoci writes whole seconds. The tree that it unpacks itself is expected.
    tool("umoci", &["unpack", "--rootless", "--image", &image, &work.join("again")]);
    let expected = Survey::of(&work.path().join("again/rootfs")).without_xattrs("user.rootlesscontainers");
    expected.assert_same(&unpacked.without_xattrs("user.rootlesscontainers"));
}

fn make_two_layers(rootfs: &Path, repack: impl Fn()) {
    fixture::fill_portable(rootfs);
    fs::create_dir(rootfs.join("replaced")).expect("mkdir");
    fs::write(rootfs.join("replaced/old"), "old\n").expect("write");
    repack();
    // An ordinary user does not restore this bit, because the owner is not restored either.
    fs::remove_file(rootfs.join("setuid")).expect("rm");
    fs::remove_dir_all(rootfs.join("directory")).expect("rm -r");
    fs::remove_dir_all(rootfs.join("replaced")).expect("rm -r");
    symlink("file", rootfs.join("replaced")).expect("ln -s");
    fs::write(rootfs.join("file"), "changed\n").expect("write");
    repack();
}

#[test]
#[ignore = "needs umoci and root: run tests/run"]
fn umoci_unpacks_an_archive_that_was_untarred() {
    let (source, work) = (Directory::filled(), Directory::empty());
    let archive = work.join("a.tar");
    let to = format!("oci-archive:{archive}:tag");
    volio(&["pack", &to, source.text(), "--compression", "gzip", "--platform", "linux/amd64"]).succeeded();
    let layout = Directory::empty();
    tool("tar", &["--extract", "--file", &archive, "--directory", layout.text()]);
    tool("umoci", &["unpack", "--image", &format!("{}:tag", layout.text()), &work.join("bundle")]);
    Survey::of(source.path()).assert_same(&Survey::of(&work.path().join("bundle/rootfs")));
    // The reverse: tar writes `./` before each name, and entries for directories.
    let again = work.join("again.tar");
    tool("tar", &["--create", "--file", &again, "--directory", layout.text(), "."]);
    let target = Directory::empty();
    volio(&["unpack", &format!("oci-archive:{again}:tag"), target.text()]).succeeded();
    Survey::of(source.path()).assert_same(&Survey::of(target.path()));
}

#[test]
#[ignore = "needs umoci: run tests/run"]
fn umoci_and_volio_follow_links_of_lower_layers_alike() {
    let (work, target) = (Directory::empty(), Directory::empty());
    let image = fixture::image_with_merged_usr(&work);
    volio(&["unpack", "--platform", "linux/amd64", &format!("oci:{image}"), target.text()]).succeeded();
    tool("umoci", &["unpack", "--rootless", "--image", &image, &work.join("bundle")]);
    let expected = Survey::of(&work.path().join("bundle/rootfs")).below_the_root();
    assert!(expected.has("usr/lib/x.so") && !expected.has("usr/lib/gone"));
    expected
        .without_owners_and_xattrs()
        .assert_same(&Survey::of(target.path()).below_the_root().without_owners_and_xattrs());
}
