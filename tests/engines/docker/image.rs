//! volio's own image in docker, run as users run it.

use super::super::program::{finish, volio};
use super::super::services::repository;
use super::super::volio_image::{self, NAME};
use super::docker;
use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use tempfile::TempDir;

/// The requirements of Kubernetes' restricted profile, with a user that is not in any list, as OpenShift makes one up.
const RESTRICTED: [&str; 9] = [
    "run",
    "--rm",
    "--network=host",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--user=54321:0",
    "--add-host=by-hosts.test:127.0.0.1",
    "--dns=127.77.0.53",
];

pub fn load() {
    docker(&["load", "--input", volio_image::archive()]).succeeded();
}

/// A directory with access for everybody.
pub fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("chmod");
    directory
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn volios_own_image_has_the_program_and_certificates_and_nothing_else() {
    let image = format!("docker-archive:{}", volio_image::archive());
    let listed = volio(&["ls", "-R", &image]).succeeded();
    let files = ["/etc", "/etc/ssl", "/etc/ssl/certs", "/etc/ssl/certs/ca-certificates.crt", "/volio"];
    let listed: Vec<&str> = listed
        .lines()
        .map(|line| line.trim_end_matches('/'))
        .filter(|line| !line.is_empty() && !line.contains('@'))
        .collect();
    assert_eq!(listed, files);
    load();
    let format = "{{.Config.Entrypoint}} {{.Config.User}} {{.Os}}/{{.Architecture}}";
    let config = docker(&["image", "inspect", "--format", format, NAME]).succeeded();
    assert_eq!(config, "[/volio] 0:0 linux/amd64");
    let ran = docker(&["run", "--rm", "--network=none", NAME, "--version"]).succeeded();
    assert_eq!(ran, format!("volio {}", env!("CARGO_PKG_VERSION")));
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn volios_own_image_packs_and_unpacks_for_anybody_with_no_rights_on_a_root_that_cannot_be_written() {
    load();
    let (source, target) = (open_directory(), open_directory());
    fs::write(source.path().join("file"), "data\n").expect("write");
    let image = repository("own-image:1");
    let at = |directory: &TempDir, place: &str| format!("{}:{place}", directory.path().display());
    let (from, to) = (at(&source, "/in:ro"), at(&target, "/out"));
    docker(&[&RESTRICTED, &["-v", &from, NAME, "pack", &image, "/in"][..]].concat()).succeeded();
    docker(&[&RESTRICTED, &["-v", &to, NAME, "unpack", &image, "/out"][..]].concat()).succeeded();
    assert_eq!(fs::read_to_string(target.path().join("file")).expect("read"), "data\n");
    let again = docker(&[&RESTRICTED, &["-v", &to, NAME, "unpack", &image, "/out"][..]].concat());
    assert!(again.succeeded().contains("@sha256:"));
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn volios_own_image_resolves_names_by_the_hosts_file_and_by_a_name_server() {
    load();
    let server = UdpSocket::bind("127.77.0.53:53").expect("a name server");
    thread::spawn(move || answer_for_ever(&server));
    let image = repository("own-image-names:1");
    let port = image.split([':', '/']).nth(1).expect("a port");
    let source = open_directory();
    fs::write(source.path().join("file"), "data\n").expect("write");
    volio(&["pack", &image, &source.path().display().to_string()]).succeeded();
    for host in ["by-hosts.test", "by-dns.test"] {
        let image = format!("{host}:{port}/own-image-names:1");
        let listed = docker(&[&RESTRICTED, &[NAME, "ls", "-R", "--plain-http", &image][..]].concat());
        assert!(listed.succeeded().contains("/file"), "{host}");
    }
    let nowhere = format!("nowhere.test:{port}/own-image-names:1");
    let told = docker(&[&RESTRICTED, &[NAME, "ls", "--retry=0", "--plain-http", &nowhere][..]].concat());
    assert!(told.failed_with(1).contains("nowhere.test"));
}

/// A name server (RFC 1035, section 4.1) that knows one name: `by-dns.test` is 127.0.0.1.
fn answer_for_ever(server: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, from)) = server.recv_from(&mut query) {
        let query = &query[..length];
        let is_known = query[12..].starts_with(b"\x06by-dns\x04test\x00");
        // After the name: the type of the record that is asked for. 1 is an IPv4 address.
        let end = 12 + query[12..].iter().position(|byte| *byte == 0).expect("a name") + 5;
        let wants_address = query[end - 4..end - 2] == [0, 1];
        let found = is_known && wants_address;
        let mut answer = query[..2].to_vec();
        answer.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
        answer.extend(&query[12..end]);
        if found {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        server.send_to(&answer, from).expect("send");
    }
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn what_is_no_static_program_is_not_made_an_image() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/image/build");
    let tested = env!("CARGO_BIN_EXE_volio");
    let told = finish(Command::new(script).args(["--binary", tested, "oci:/nowhere"])).failed_with(2);
    assert!(told.contains("needs libraries"), "{told}");
    let told = finish(Command::new(script).args(["--binary", "/nowhere"])).failed_with(2);
    assert!(told.contains("is no program"), "{told}");
    finish(Command::new(script).arg("--help")).failed_with(2);
}
