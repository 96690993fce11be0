//! The state survives every end of the plugin. These tests run the program.

use super::{Service, receive, send};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program as a separate process.
pub(super) struct Daemon {
    pub(super) place: TempDir,
    child: Option<Child>,
}

impl Daemon {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    /// With its storage in this directory.
    pub(super) fn at(place: TempDir) -> Self {
        fs::create_dir(place.path().join("storage")).unwrap();
        Self { place, child: None }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
        command
            .args(["plugin", "--volmex", "--storage"])
            .arg(self.place.path().join("storage"))
            .arg("--sockets")
            .arg(self.place.path().join("sockets"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it, and waits until it answers.
    fn start(&mut self) {
        self.child = Some(self.command().stderr(Stdio::null()).spawn().unwrap());
        let deadline = Instant::now() + super::SOON;
        while self.ask("List", &json!({})).is_none() {
            assert!(Instant::now() < deadline, "it does not answer");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts it with a limit on open files.
    pub(super) fn start_with_descriptors(&mut self, most: u64) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        self.start();
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        let child = self.child.as_ref().map(Pid::from_child);
        prlimit(child, Resource::Nofile, limit).unwrap();
    }

    /// Calls the plugin. Returns `None` without a plugin or a response.
    pub(super) fn ask(&self, call: &str, body: &Value) -> Option<Value> {
        ask(self.place.path(), call, body)
    }

    fn end(&mut self, signal: &str) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.end("-KILL");
        }
    }
}

fn ask(place: &Path, call: &str, body: &Value) -> Option<Value> {
    let mut stream = UnixStream::connect(place.join("sockets/volio.sock")).ok()?;
    stream.set_read_timeout(Some(super::SOON)).unwrap();
    use std::io::{Read, Write};
    let body = body.to_string();
    let request = format!(
        "POST /VolumeDriver.{call} HTTP/1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

#[test]
fn volmex_signals_stop_it_in_good_order_and_its_sockets_are_gone() {
    for signal in ["-TERM", "-INT"] {
        let mut daemon = Daemon::new();
        daemon.start();
        let sockets = daemon.place.path().join("sockets");
        assert_eq!(fs::read_dir(&sockets).unwrap().count(), 2);
        assert!(daemon.end(signal).success(), "{signal}");
        assert_eq!(fs::read_dir(&sockets).unwrap().count(), 0, "{signal}");
    }
}

#[test]
fn the_sockets_are_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt;
    let mut daemon = Daemon::new();
    daemon.start();
    for name in ["volio", "volmex"] {
        let socket = daemon.place.path().join(format!("sockets/{name}.sock"));
        assert_eq!(fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_socket_gets_its_name_when_nobody_else_can_speak_to_it() {
    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
    let mut daemon = Daemon::new();
    let sockets = daemon.place.path().join("sockets");
    fs::create_dir(&sockets).unwrap();
    let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
    add_watch(&events, &sockets, WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB).unwrap();
    daemon.start();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = Reader::new(&events, &mut buffer);
    let mut seen = Vec::new();
    while let Ok(event) = events.next() {
        if event.file_name().is_some_and(|name| name == c"volio.sock") {
            seen.push(event.events());
        }
    }
    // It is not created there with the mode that the umask leaves, and closed afterwards.
    assert_eq!(seen, [ReadFlags::MOVED_TO]);
    assert_eq!(fs::read_dir(&sockets).unwrap().count(), 2, "and nothing else is left there");
}

#[test]
fn a_socket_of_systemds_is_taken_over_and_left_where_it_is() {
    let mut daemon = Daemon::new();
    let sockets = daemon.place.path().join("sockets");
    fs::create_dir(&sockets).unwrap();
    let path = sockets.join("volio.sock");
    let script = "import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
os.dup2(s.fileno(), 3); os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])";
    let command = daemon.command();
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(&path).arg(program).args(arguments).stderr(Stdio::null());
    // Python stands for systemd: the socket is descriptor 3 in a process that has its own id in LISTEN_PID.
    let Ok(child) = python.spawn() else { return };
    daemon.child = Some(child);
    let deadline = Instant::now() + super::SOON;
    while daemon.ask("List", &json!({})).is_none() {
        assert!(Instant::now() < deadline, "it does not answer");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(!sockets.join("volmex.sock").exists(), "systemd says which sockets there are");
    assert!(daemon.end("-TERM").success());
    assert!(path.exists(), "systemd listens there for the next one");
}

#[test]
fn kill_9_at_any_moment_loses_nothing_that_was_answered() {
    let mut daemon = Daemon::new();
    let mut known: BTreeMap<String, bool> = BTreeMap::new();
    let mut mounted: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..12u64 {
        daemon.start();
        // Everything that was answered before is there, and nothing else except for a call in progress.
        let listed = daemon.ask("List", &json!({})).unwrap();
        let listed: BTreeSet<String> = listed["Volumes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|volume| volume["Name"].as_str().unwrap().to_owned())
            .collect();
        for (name, exists) in &known {
            assert_eq!(listed.contains(name), *exists, "{name} in round {round}");
        }
        for (name, count) in &mounted {
            let status = daemon.ask("Get", &json!({"Name": name})).unwrap();
            assert_eq!(status["Volume"]["Status"]["mounts"]["id"], json!(count), "{name} in round {round}");
        }
        let pid = daemon.child.as_ref().unwrap().id().to_string();
        // It is killed a little after a number of answers, and so in the middle of some later call.
        let (enough, was_enough) = mpsc::channel::<()>();
        let killer = thread::spawn(move || {
            was_enough.recv().unwrap();
            thread::sleep(Duration::from_micros(round * 700));
            Command::new("kill").args(["-KILL", &pid]).status().unwrap();
        });
        for number in 0.. {
            if number == 2 + round {
                enough.send(()).unwrap();
            }
            let name = format!("r{round}-{number}");
            known.remove(&name);
            if daemon.ask("Create", &json!({"Name": name, "Opts": null})).is_none() {
                break;
            }
            known.insert(name.clone(), true);
            mounted.remove(&name);
            if number % 3 == 0 {
                let answer = daemon.ask("Mount", &json!({"Name": name, "ID": "id"}));
                if answer.is_none() {
                    break;
                }
                mounted.insert(name.clone(), 1);
            }
            if number % 3 == 1 {
                known.remove(&name);
                if daemon.ask("Remove", &json!({"Name": name})).is_none() {
                    break;
                }
                known.insert(name, false);
            }
        }
        killer.join().unwrap();
        daemon.child.take().unwrap().wait().unwrap();
        let file = daemon.place.path().join("storage/volumes.json");
        let _: BTreeMap<String, Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    }
}

#[test]
fn kill_9_while_a_volume_is_filled_leaves_the_old_content_or_the_new_one() {
    let mut daemon = Daemon::new();
    let tree = tempfile::tempdir().unwrap();
    let layout = daemon.place.path().join("layout");
    let image = format!("oci:{}:v1", layout.display());
    let publish = |version: u64| {
        for n in 0..60 {
            fs::write(tree.path().join(format!("file-{n}")), format!("{version}")).unwrap();
        }
        super::pack(&image, tree.path());
    };
    let volume = daemon.place.path().join("storage/a");
    let mut last = 0;
    for round in 1..=10u64 {
        publish(round);
        daemon.start();
        let options = json!({"image": image, "pull": "newer", "policy": "replace"});
        assert_eq!(daemon.ask("Create", &json!({"Name": "a", "Opts": options})).unwrap()["Err"], "");
        let pid = daemon.child.as_ref().unwrap().id().to_string();
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(round * 4));
            Command::new("kill").args(["-KILL", &pid]).status().unwrap();
        });
        let answered = daemon.ask("Mount", &json!({"Name": "a", "ID": "id"}));
        killer.join().unwrap();
        daemon.child.take().unwrap().wait().unwrap();
        let versions: BTreeSet<String> =
            (0..60).filter_map(|n| fs::read_to_string(volume.join(format!("file-{n}"))).ok()).collect();
        assert!(versions.len() <= 1, "a mixture: {versions:?}");
        let files = fs::read_dir(&volume).unwrap().count();
        assert!(files == 60 || (files == 0 && versions.is_empty()), "{files} files");
        let version = versions.first().map_or(0, |version| version.parse::<u64>().unwrap());
        assert!(version >= last, "an old version came back: {version} after {last}");
        if answered.is_some() {
            assert_eq!(version, round, "{answered:?}");
        }
        last = version;
        // The next mount must not take the volume to be in use.
        daemon.start();
        assert_eq!(daemon.ask("Unmount", &json!({"Name": "a", "ID": "id"})).unwrap()["Err"], "");
        daemon.end("-TERM");
    }
    daemon.start();
    assert_eq!(daemon.ask("Mount", &json!({"Name": "a", "ID": "id"})).unwrap()["Err"], "");
    assert_eq!(fs::read_to_string(volume.join("file-59")).unwrap(), "10");
}

#[test]
fn a_swap_that_was_not_noted_is_found_out() {
    use std::os::unix::fs::MetadataExt;
    let mut service = Service::start();
    let image = service.pack("v1", &[("file", "one")]);
    service.create("a", &[("image", &image)]);
    service.mount("a", "1").unwrap();
    service.unmount("a", "1");
    service.stop();
    // As after a kill between the exchange and its record.
    let file = service.storage().join(".volio/a/record.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let filled = record.as_object_mut().unwrap().remove("filled").unwrap();
    let inode = fs::metadata(service.volume("a")).unwrap().ino();
    record["filling"] = json!([filled, inode]);
    fs::write(&file, record.to_string()).unwrap();
    service.run().unwrap();
    service.mount("a", "1").unwrap();
    service.unmount("a", "1");
    service.stop();
    // And between the announcement and the exchange.
    record["filling"] = json!([filled, inode + 1]);
    fs::write(&file, record.to_string()).unwrap();
    service.run().unwrap();
    let error = service.mount("a", "1").unwrap_err();
    assert!(error.contains("holds data that is not from"), "{error}");
}

#[test]
fn a_record_that_is_corrupt_keeps_its_volume_from_being_mounted_and_not_from_being_seen() {
    let mut service = Service::start();
    service.create("a", &[]);
    service.mount("a", "1").unwrap();
    service.stop();
    let file = service.storage().join(".volio/a/record.json");
    let good = fs::read(&file).unwrap();
    fs::write(&file, &good[..10]).unwrap();
    service.run().unwrap();
    let status = service.status("a");
    assert!(status["lastError"]["error"].as_str().unwrap().contains("record.json"), "{status}");
    let error = service.mount("a", "2").unwrap_err();
    assert!(error.contains("record.json cannot be understood"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), good[..10], "and it is not written over");
    service.create("b", &[]);
    service.mount("b", "1").unwrap();
}

#[test]
fn counts_belong_to_a_boot_of_the_machine() {
    let mut service = Service::start();
    service.create("a", &[]);
    service.mount("a", "1").unwrap();
    service.restart();
    assert_eq!(service.status("a")["mounts"], json!({"1": 1}));
    service.stop();
    let file = service.storage().join(".volio/a/record.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    record["boot"] = json!("an earlier one");
    fs::write(&file, record.to_string()).unwrap();
    service.run().unwrap();
    assert_eq!(service.status("a")["mounts"], json!({}));
}

#[test]
fn an_engine_keeps_its_connection_over_many_calls() {
    let service = Service::start();
    let mut stream = service.connect("volio");
    for number in 0..50 {
        send(&mut stream, "Create", &format!(r#"{{"Name":"v{number}","Opts":null}}"#));
        assert_eq!(receive(&mut stream).unwrap().0, 200);
    }
}
