//! Volio where little is allowed: as a user that nobody knows, without a home, on a root that cannot be written, as
//! Kubernetes and OpenShift run containers.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes a place that can be written, takes that away from all else, and becomes somebody who has no name here.
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

/// What that user does.
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
fn a_user_that_nobody_knows_packs_and_unpacks_on_a_root_that_cannot_be_written() {
    let can_mount =
        Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !rustix::process::geteuid().is_root() || !can_mount {
        let why = "SKIPPED: a root that cannot be written, because nothing can be mounted here";
        return writeln!(std::io::stderr(), "{why}").unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", PREPARE])
        .args([env!("CARGO_BIN_EXE_volio"), place.path().to_str().unwrap(), WORK])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("warning") && !told.contains("not restored"), "{told}");
}

/// What `podman unshare` gives: root's number without root's rights, and a range of numbers for everybody else.
const MAP: &str = "0 12345 1\n1 100000 65536\n";

/// Runs volio as root of a user namespace with that map; what it says.
fn as_root_of_a_namespace(directory: &Path, arguments: &str) -> String {
    // Whoever makes a namespace before it has a map is nobody in it; who enters it later can be root.
    let mut keeper = Command::new("unshare")
        .args(["--user", "sh", "-c", "echo ready; read go"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The map can be written when the namespace is there, which its first word says.
    keeper.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", keeper.id()), MAP).unwrap();
    }
    let output = Command::new("nsenter")
        .args(["--user", "--setuid", "0", "--setgid", "0", "--target", &keeper.id().to_string(), "./volio"])
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .unwrap();
    keeper.stdin.take().unwrap().write_all(b"go\n").unwrap();
    keeper.wait().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    told.into_owned()
}

fn volio(directory: &Path, arguments: &str) {
    let mut volio = Command::new(directory.join("volio"));
    let output = volio.args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_podman_unshare_packs_is_what_the_maps_of_podman_say() {
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

    let told = as_root_of_a_namespace(here, "unpack oci:work/outside.image:v1 work/tree");
    assert!(!told.contains("not restored"), "{told}");
    let owner = |name: &str| fs::metadata(here.join("work/tree").join(name)).unwrap().uid();
    assert_eq!((owner("root"), owner("user")), (12345, 100_999));

    // A device is nothing that such a root may make, and no reason to fail.
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
    let told = as_root_of_a_namespace(here, "unpack oci:work/device.image:v1 work/device");
    assert!(told.contains("not restored: 1 device"), "{told}");
}
