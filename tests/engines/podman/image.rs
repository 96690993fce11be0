//! The image of volio in podman.

use super::super::program::tool;
use super::super::volio_image;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

#[test]
#[ignore = "needs podman and root: run tests/run"]
fn the_image_of_volio_runs_as_any_user_without_capabilities_on_a_read_only_root() {
    tool("podman", &["load", "--quiet", "--input", volio_image::archive()]);
    let work = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(work.path(), Permissions::from_mode(0o777)).expect("chmod");
    fs::create_dir(work.path().join("in")).expect("mkdir");
    fs::write(work.path().join("in/file"), "data\n").expect("write");
    let mount = format!("{}:/job", work.path().display());
    let run = |arguments: &[&str]| {
        let restricted = ["run", "--rm", "--network=none", "--read-only", "--read-only-tmpfs=false"];
        let user = ["--cap-drop=all", "--security-opt=no-new-privileges", "--user=54321:0"];
        tool("podman", &[&restricted, &user[..], &["-v", &mount, volio_image::NAME], arguments].concat())
    };
    assert!(run(&["pack", "oci:/job/layout:v1", "/job/in"]).contains("@sha256:"));
    run(&["unpack", "oci:/job/layout:v1", "/job/out"]);
    assert_eq!(fs::read_to_string(work.path().join("out/file")).expect("read"), "data\n");
}
