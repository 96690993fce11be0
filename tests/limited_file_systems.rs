//! Unpacking on file systems that lack what Linux file systems have: owners, modes, links, extended attributes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};

/// Formats the file `$1` as the file system `$0`, mounts it on `$2`, and runs `$3` there.
const MOUNT: &str = r#"
truncate -s 64M "$1"
"mkfs.$0" "$1" > mkfs.log
if [ "$0" = exfat ]; then
    device=$(losetup --find --show "$1")
    trap 'losetup --detach "$device"' EXIT
    mount.exfat-fuse -o umask=022 "$device" "$2" > mount.log
else
    mount -t "$0" -o loop "$1" "$2"
fi
sh -ec "$3"
umount "$2"
"#;

/// Runs a script in a mount namespace with `target`, a new file system of this type.
fn on(file_system: &str, directory: &Path, script: &str) -> Output {
    fs::create_dir_all(directory.join("target")).unwrap();
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", MOUNT])
        .args([file_system, "image", "target", script])
        .env("VOLIO", env!("CARGO_BIN_EXE_volio"))
        .current_dir(directory)
        .output()
        .unwrap()
}

/// Returns the file systems without owners that can be mounted here: vfat by the kernel, exFAT by FUSE.
fn mountable() -> Vec<&'static str> {
    let directory = tempfile::tempdir().unwrap();
    let is_mountable = |name: &&str| on(name, directory.path(), "true").status.success();
    ["vfat", "exfat"].into_iter().filter(is_mountable).collect()
}

fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("sub")).unwrap();
    for name in ["plain", "private", "setuid", "sub/below"] {
        fs::write(root.join(name), name).unwrap();
    }
    chown(root.join("plain"), Some(1234), Some(2345)).unwrap();
    fs::set_permissions(root.join("private"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(root.join("setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("plain"), root.join("zlinked")).unwrap();
    symlink("plain", root.join("symlink")).unwrap();
    fs::hard_link(root.join("symlink"), root.join("symlink-too")).unwrap();
    rustix::fs::setxattr(root.join("plain"), "user.test", b"x", rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
#[ignore = "needs root to mount vfat and exFAT: run tests/run"]
fn a_file_system_without_owners_modes_and_links_gets_the_content_and_the_rest_is_counted() {
    let file_systems = mountable();
    assert!(!file_systems.is_empty(), "neither vfat nor exFAT can be mounted here");
    for file_system in file_systems {
        let directory = tempfile::tempdir().unwrap();
        make_tree(&directory.path().join("tree"));
        let script = "$VOLIO pack --quiet oci:layout:v1 tree > /dev/null
            $VOLIO unpack oci:layout:v1 target
            cp -r target copy
            echo again; $VOLIO unpack oci:layout:v1 target";
        let output = on(file_system, directory.path(), script);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file_system}: {stderr}");
        let (summary, again) = stderr.split_once('\n').unwrap();
        // Files with other owners: `plain` and its copy. The mode of some entries may be what the file system gives.
        for lost in ["owner", "modes or mtimes", "1 extended attribute", "2 symbolic links"] {
            assert!(summary.contains(lost), "{file_system}, {lost}: {summary}");
        }
        assert!(summary.contains("copied: 1 hard link"), "{file_system}: {summary}");
        assert!(again.contains("nothing to do"), "{file_system}: {again}");
        for name in ["plain", "private", "setuid", "sub/below"] {
            assert_eq!(fs::read_to_string(directory.path().join("copy").join(name)).unwrap(), name);
        }
        assert_eq!(fs::read_to_string(directory.path().join("copy/zlinked")).unwrap(), "plain");
        assert!(fs::symlink_metadata(directory.path().join("copy/symlink")).is_err());
        assert_eq!(fs::metadata(directory.path().join("copy/plain")).unwrap().nlink(), 1);
    }
}

#[test]
#[ignore = "needs root to mount vfat and exFAT: run tests/run"]
fn an_error_of_the_disk_ends_the_run_also_on_such_a_file_system() {
    let file_systems = mountable();
    assert!(!file_systems.is_empty(), "neither vfat nor exFAT can be mounted here");
    for file_system in file_systems {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("large"), vec![b'x'; 80 << 20]).unwrap();
        let script = "$VOLIO pack --quiet oci:layout:v1 tree > /dev/null
            code=0; $VOLIO unpack oci:layout:v1 target || code=$?; test $code = 1";
        let output = on(file_system, directory.path(), script);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file_system}: {stderr}");
        assert!(stderr.contains("No space left on device"), "{file_system}: {stderr}");
    }
}

#[test]
#[ignore = "needs root to mount vfat and exFAT: run tests/run"]
fn names_that_the_file_system_takes_for_one_are_refused_and_both_are_named() {
    let file_systems = mountable();
    assert!(!file_systems.is_empty(), "neither vfat nor exFAT can be mounted here");
    for file_system in file_systems {
        let directory = tempfile::tempdir().unwrap();
        for (tree, one, other) in [
            ("files", "Name", "name"),
            ("directories", "Sub/one", "sub/two"),
            ("mixed", "Both", "both/file"),
            ("letters", "Ä1", "ä1"),
        ] {
            for path in [one, other] {
                let path = directory.path().join(tree).join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, path.to_str().unwrap()).unwrap();
            }
        }
        let script = "for tree in files directories mixed letters; do
                $VOLIO pack --quiet oci:layout:$tree $tree > /dev/null
                code=0; $VOLIO unpack oci:layout:$tree target/$tree || code=$?; test $code = 6
                mkdir target/synced-$tree; touch target/synced-$tree/kept
                code=0; $VOLIO unpack --sync --force oci:layout:$tree target/synced-$tree || code=$?; test $code = 6
            done
            cat target/files/* > seen
            mkdir user; touch user/README; $VOLIO pack --quiet oci:layout:user user > /dev/null
            mkdir target/merged; echo mine > target/merged/readme
            code=0; $VOLIO unpack --merge oci:layout:user target/merged || code=$?; test $code = 6
            cat target/merged/* >> seen";
        let output = on(file_system, directory.path(), script);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file_system}: {stderr}");
        for named in [
            "files/name cannot be created beside target/files/Name: the file system takes",
            "synced-files/Name",
        ] {
            assert!(stderr.contains(named), "{file_system}, {named}: {stderr}");
        }
        let seen = fs::read_to_string(directory.path().join("seen")).unwrap();
        assert!(seen.ends_with("files/Namemine\n"), "{file_system}: {seen}");
    }
}

#[test]
#[ignore = "needs root to mount vfat and exFAT: run tests/run"]
fn a_sync_to_names_that_differ_in_case_only_keeps_their_contents() {
    let file_systems = mountable();
    assert!(!file_systems.is_empty(), "neither vfat nor exFAT can be mounted here");
    for file_system in file_systems {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("Sub")).unwrap();
        fs::write(tree.join("Sub/below"), "below").unwrap();
        fs::write(tree.join("Name"), "content").unwrap();
        fs::write(tree.join("other"), "other").unwrap();
        let script = "$VOLIO pack --quiet oci:layout:v1 tree > /dev/null
            $VOLIO unpack oci:layout:v1 target/data
            mv tree/Name tree/name; mv tree/Sub tree/sub
            $VOLIO pack --quiet oci:layout:v2 tree > /dev/null
            $VOLIO unpack --sync oci:layout:v2 target/data
            cp -r target/data copy; ls target/data > names
            $VOLIO unpack --sync --dry-run oci:layout:v2 target/data";
        let output = on(file_system, directory.path(), script);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file_system}: {stderr}");
        let names = fs::read_to_string(directory.path().join("names")).unwrap();
        assert_eq!(names, "name\nother\nsub\n", "{file_system}");
        for (path, content) in [("name", "content"), ("sub/below", "below"), ("other", "other")] {
            assert_eq!(fs::read_to_string(directory.path().join("copy").join(path)).unwrap(), content);
        }
        assert!(
            stderr.contains("wrote 0 entries") || stderr.contains("0 entries, "),
            "{file_system}: {stderr}"
        );
    }
}
