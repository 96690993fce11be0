//! `podman unshare`: an ordinary user is root in a user namespace, with a range of ids for other users.

use super::super::fixture::Directory;
use super::super::program::tool;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

/// The user id of `nobody`.
const NOBODY: u32 = 65534;

/// A script for root in a separate mount namespace, where other files give the ordinary user a range of ids.
const SCRIPT: &str = r#"
set -e
echo "$(id -un 65534):100000:65536" >numbers
mount --bind numbers /etc/subuid
mount --bind numbers /etc/subgid
own() {
    setpriv --reuid 65534 --regid 65534 --clear-groups env -i PATH="$PATH" HOME="$PWD/home" \
        XDG_RUNTIME_DIR="$PWD/run" podman unshare "$@" 2>>errors
}
status=0
own sh -e work || status=$?
# podman keeps the namespace for later calls.
kill "$(cat run/libpod/tmp/pause.pid)" || true
exit $status
"#;

/// A script for the user namespace. It packs files with the ids of a container and unpacks them.
const WORK: &str = r#"
cd home
mkdir tree
touch tree/root tree/user
chown 999:33 tree/user
../volio pack --digestfile digest oci:layout:v1 tree
../volio unpack oci:layout:v1 target
stat -c '%u:%g %n' target/root target/user
"#;

#[test]
#[ignore = "needs podman and root: run tests/run"]
fn ids_in_podman_unshare_are_those_of_containers_in_both_directions() {
    let work = Directory::empty();
    let own = fs::Permissions::from_mode(0o755);
    fs::set_permissions(work.path(), own).expect("chmod");
    // Another process copies it: a file that this process has open for writing could not be executed while a thread forks.
    tool("cp", &[env!("CARGO_BIN_EXE_volio"), work.text()]);
    for directory in ["home", "run"] {
        fs::create_dir(work.path().join(directory)).expect("mkdir");
        chown(work.path().join(directory), Some(NOBODY), Some(NOBODY)).expect("chown");
    }
    fs::write(work.path().join("work"), WORK).expect("a script");
    fs::write(work.path().join("errors"), "").expect("a file");
    let script = format!("cd '{}'\n{SCRIPT}", work.text());
    let output = tool("unshare", &["--mount", "sh", "-c", &script]);
    assert!(output.ends_with("0:0 target/root\n999:33 target/user"), "{output}");
    let user = fs::metadata(work.path().join("home/target/user")).expect("what was unpacked");
    assert_eq!((user.uid(), user.gid()), (100_998, 100_032));
}
