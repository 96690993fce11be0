//! Volio where little is allowed: as a user that nobody knows, without a home, on a root that cannot be written, as
//! Kubernetes and OpenShift run containers.

use std::io::Write;
use std::process::Command;

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
