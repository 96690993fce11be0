//! Runs volio with few rights: as a user without a name and a home, on a read-only root, as Kubernetes and OpenShift run
//! containers.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

/// A script that mounts a writable directory, makes everything else read-only, and changes to a user without a name.
const PREPARE: &str = r#"
mount -t tmpfs none "$1"
cp "$0" "$1/volio"
mkdir "$1/tree" "$1/work"
echo data > "$1/tree/file"
ln -s file "$1/tree/link"
chown -R 12345:0 "$1/tree" "$1/work"
mount -o remount,ro,bind /
exec setpriv --reuid 12345 --regid 0 --clear-groups env -i sh -ec "$2" "$1"
"#;

/// The commands of that user.
const WORK: &str = r#"
cd "$0/work"
if touch /var/tmp/x 2> /dev/null || getent passwd 12345 > /dev/null; then echo "not restricted"; exit 9; fi
../volio pack oci:image:v1 ../tree
../volio unpack oci:image:v1 out
../volio diff oci:image:v1 out
../volio verify oci:image:v1
../volio pack oci-archive:image.tar:v1 ../tree
../volio copy oci-archive:image.tar:v1 oci:copy:v1
../volio diff oci:copy:v1 ../tree
"#;

#[test]
fn a_user_without_a_name_packs_and_unpacks_on_a_read_only_root() {
    let can_mount =
        Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !rustix::process::geteuid().is_root() || !can_mount {
        let why = "SKIPPED: a read-only root, because nothing can be mounted here";
        return writeln!(std::io::stderr(), "{why}").unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", PREPARE])
        .args([env!("CARGO_BIN_EXE_volio"), place.path().to_str().unwrap(), WORK])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("warning") && !text.contains("not restored"), "{text}");
}

/// A script that packs more new unreadable files than a summary names, as a user that may not read them.
const UNREADABLE: &str = r#"
cp "$0" "$1/volio"
mkdir "$1/tree" "$1/tree/many" "$1/work"
echo data > "$1/tree/file"
chown -R 12345 "$1"
exec setpriv --reuid 12345 --clear-groups env -i sh -ec '
    cd work
    ../volio pack --quiet oci:image:v1 ../tree
    (umask 777; seq -f "../tree/many/%g" 6000 | xargs touch)
    echo more > ../tree/new
    ../volio pack --incremental --skip-unreadable oci:image:v1 ../tree
    ../volio ls oci:image:v1'
"#;

#[test]
fn new_files_that_cannot_be_read_are_left_out_of_a_delta_however_many_they_are() {
    if !rustix::process::geteuid().is_root() {
        return writeln!(
            std::io::stderr(),
            "SKIPPED: files that cannot be read, because root can run this only"
        )
        .unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("sh")
        .args(["-ec", UNREADABLE, env!("CARGO_BIN_EXE_volio"), place.path().to_str().unwrap()])
        .current_dir(place.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("1 added, 2 changed, 0 removed"), "{stderr}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains("many/")).count(),
        0
    );
}

/// The id map of `podman unshare`: the id of root without root's rights, and a range of ids for all other users.
const MAP: &str = "0 12345 1\n1 100000 65536\n";

/// Runs volio as root of a user namespace with that map, and returns its output.
fn as_root_of_a_namespace(directory: &Path, arguments: &str) -> String {
    // The process that creates a namespace without a map has no id in it; a process that enters it later can be root.
    let mut owner = Command::new("unshare")
        .args(["--user", "sh", "-c", "echo ready; read go"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The map can be written when the namespace exists, which the first line of output shows.
    owner.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", owner.id()), MAP).unwrap();
    }
    let output = Command::new("nsenter")
        .args(["--user", "--setuid", "0", "--setgid", "0", "--target", &owner.id().to_string(), "./volio"])
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .unwrap();
    owner.stdin.take().unwrap().write_all(b"go\n").unwrap();
    owner.wait().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text.into_owned()
}

fn volio(directory: &Path, arguments: &str) {
    let mut volio = Command::new(directory.join("volio"));
    let output = volio.args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn podman_unshare_and_the_id_maps_of_podman_give_the_same_image() {
    let can_map =
        Command::new("unshare").args(["--user", "true"]).status().is_ok_and(|status| status.success());
    if !rustix::process::geteuid().is_root() || !can_map {
        let why = "SKIPPED: a user namespace, because none can be made here";
        return writeln!(std::io::stderr(), "{why}").unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let here = place.path();
    fs::copy(env!("CARGO_BIN_EXE_volio"), here.join("volio")).unwrap();
    for directory in ["tree", "work"] {
        fs::create_dir(here.join(directory)).unwrap();
    }
    for (name, owner) in
        [("tree", 12345), ("tree/root", 12345), ("tree/user", 100_999), ("work", 12345), ("", 12345)]
    {
        if !here.join(name).is_dir() {
            fs::write(here.join(name), name).unwrap();
        }
        chown(here.join(name), Some(owner), Some(owner)).unwrap();
    }
    as_root_of_a_namespace(here, "pack --digestfile work/inside oci:work/inside.image:v1 tree");
    let maps = "--uid-map 0:12345:1 --uid-map 1:100000:65536";
    volio(here, &format!("pack {maps} --digestfile work/outside oci:work/outside.image:v1 tree"));
    let digest = |file: &str| fs::read_to_string(here.join(file)).unwrap();
    assert_eq!(digest("work/inside"), digest("work/outside"));

    let output = as_root_of_a_namespace(here, "unpack oci:work/outside.image:v1 work/tree");
    assert!(!output.contains("not restored"), "{output}");
    let owner = |name: &str| fs::metadata(here.join("work/tree").join(name)).unwrap().uid();
    assert_eq!((owner("root"), owner("user")), (12345, 100_999));

    // Such a root may not create devices; that is not an error.
    let null = rustix::fs::makedev(1, 3);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        here.join("tree/null"),
        rustix::fs::FileType::CharacterDevice,
        mode,
        null,
    )
    .unwrap();
    volio(here, "pack --chown 0:0 oci:work/device.image:v1 tree");
    let output = as_root_of_a_namespace(here, "unpack oci:work/device.image:v1 work/device");
    assert!(output.contains("not restored: 1 device"), "{output}");
}
