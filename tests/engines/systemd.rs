//! The units in `examples/systemd`, checked and used by programs of systemd. systemd itself need not run.

use super::fixture::Directory;
use super::program::finish;
use super::volume_plugin::wait_until;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

/// Returns whether systemd's programs are installed. Prints a line if they are not.
fn is_installed() -> bool {
    let found = Command::new("systemd-socket-activate").arg("--version").output().is_ok();
    if !found {
        writeln!(std::io::stderr(), "SKIPPED: systemd is not installed").expect("stderr");
    }
    found
}

/// The path of the program in the units.
const INSTALLED: &str = "/usr/local/bin/volio";

#[test]
#[ignore = "needs systemd-analyze: run tests/run"]
fn systemd_accepts_the_units() {
    if !is_installed() {
        return;
    }
    let work = Directory::empty();
    for (name, volmex) in [("volio.service", " --volmex"), ("volio.socket", "")] {
        let unit = fs::read_to_string(format!("examples/systemd/{name}")).expect("the unit");
        // The changes that migration.md describes: the second socket, and --volmex.
        let unit = unit.replace("#ListenStream=", "ListenStream=");
        let unit = unit.replace(INSTALLED, env!("CARGO_BIN_EXE_volio"));
        let unit = unit.replace("volio plugin", &format!("volio plugin{volmex}"));
        fs::write(work.path().join(name), unit).expect("write");
    }
    for name in [
        "volio-backup.service",
        "volio-backup-once.service",
        "volio-backup.timer",
        "volio-pack@.service",
        "volio-pack@.timer",
    ] {
        let unit = fs::read_to_string(format!("examples/systemd/{name}")).expect("the unit");
        fs::write(work.path().join(name), unit.replace(INSTALLED, env!("CARGO_BIN_EXE_volio")))
            .expect("write");
    }
    let units = [
        "volio.socket",
        "volio.service",
        "volio-backup.service",
        "volio-backup-once.service",
        "volio-backup.timer",
        "volio-pack@site.service",
        "volio-pack@site.timer",
    ];
    let verify =
        ["verify", "--man=no"].map(str::to_owned).into_iter().chain(units.map(|unit| work.join(unit)));
    let output = Command::new("systemd-analyze").args(verify).output().expect("systemd-analyze");
    let stderr = String::from_utf8_lossy(&output.stderr);
    // It also reads the machine's other units. Their errors do not count.
    let of_ours: Vec<&str> = stderr.lines().filter(|line| line.contains("volio")).collect();
    assert!(output.status.success() && of_ours.is_empty(), "{stderr}");
}

#[test]
#[ignore = "needs systemd-analyze: run tests/run"]
fn systemd_passes_its_sockets_to_the_plugin_with_the_first_request() {
    if !is_installed() {
        return;
    }
    let work = Directory::empty();
    fs::create_dir(work.path().join("storage")).expect("mkdir");
    let socket = work.join("volmex.sock");
    let mut activate = Command::new("systemd-socket-activate")
        .args(["--listen", &socket, env!("CARGO_BIN_EXE_volio"), "plugin"])
        .args(["--storage", &work.join("storage")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("systemd-socket-activate");
    wait_until("systemd listens", || fs::symlink_metadata(&socket).is_ok());
    let mut stream = loop {
        // The file exists before systemd listens on it.
        if let Ok(stream) = UnixStream::connect(&socket) {
            break stream;
        }
    };
    stream
        .write_all(b"POST /VolumeDriver.Create HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: 31\r\n\r\n")
        .expect("write");
    stream.write_all(br#"{"Name":"a","Opts":{"cmd":"x"}}"#).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains(r#"{"Err":""}"#), "{answer}");
    assert!(work.path().join("storage/a").is_dir(), "the socket's name says that it is a volume of volmex's");
    // systemd-socket-activate has executed the plugin, so it has the plugin's process id.
    finish(Command::new("kill").args(["-TERM", &activate.id().to_string()])).succeeded();
    assert!(activate.wait().expect("the plugin ends").success());
    assert!(fs::symlink_metadata(&socket).is_ok(), "the socket is systemd's");
}
