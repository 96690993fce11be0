//! The real program, unattended: with real signals, hooks and files.

use super::eventually;
use crate::plugin::Gate;
use crate::registry::{Login, Registry};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use volio::Digest;
use volio::transport::Access;

/// A directory with a tree to pack, and a place for the state.
pub(super) struct Place(tempfile::TempDir);

impl Place {
    pub(super) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("tree")).unwrap();
        fs::write(place.path("tree/file"), "one").unwrap();
        place
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn image(&self) -> String {
        format!("oci:{}:v1", self.path("layout").display())
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        digest(&self.image())
    }

    pub(super) fn diary(&self) -> String {
        fs::read_to_string(self.path("diary")).unwrap_or_default()
    }

    /// A hook that writes its event and the result to the diary.
    pub(super) fn note(&self) -> String {
        format!("echo $VOLIO_EVENT $VOLIO_RESULT >>{}", self.path("diary").display())
    }

    /// `volio pack OPTIONS IMAGE tree`.
    pub(super) fn pack(&self, options: &[&str], image: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
        command
            .arg("pack")
            .args(options)
            .arg(image)
            .arg(self.path("tree"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("XDG_STATE_HOME", self.path("state"));
        command
    }
}

pub(super) fn digest(image: &str) -> Option<Digest> {
    let location = image.parse::<volio::transport::Location>().unwrap();
    let root = location.source(&Access::default()).ok()?.resolve().ok()?;
    Some(root.descriptor().digest.clone())
}

/// A running program, and what it has written to stderr so far.
pub(super) struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Running {
    pub(super) fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::<Mutex<String>>::default();
        let text = Arc::clone(&said);
        let reader = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *text.lock().unwrap() += &format!("{line}\n");
            }
        });
        Self { child, said, reader }
    }

    pub(super) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(super) fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        self.reader.join().unwrap();
        (status, self.said.lock().unwrap().clone())
    }
}

pub(super) fn run(command: Command) -> (Option<i32>, String) {
    let (status, said) = Running::start(command).end();
    (status.code(), said)
}

#[test]
fn a_single_pack_has_hooks_in_their_order() {
    let place = Place::new();
    let note = place.note();
    let options = ["--before", &note, "--after", &note, "--on-error", &note];
    let (code, said) = run(place.pack(&options, &place.image()));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(place.diary(), "before\nafter success\n");
    fs::remove_file(place.path("diary")).unwrap();
    fs::remove_dir_all(place.path("tree")).unwrap();
    let (code, said) = run(place.pack(&options, &place.image()));
    assert_eq!(code, Some(4), "{said}");
    assert_eq!(place.diary(), "before\non-error failed\nafter failed\n");
}

#[test]
fn a_before_that_fails_keeps_the_image_and_its_error_is_in_the_termination_log() {
    let place = Place::new();
    let message = place.path("message");
    fs::write(&message, "an old and longer message than the new one, which is longer than any other")
        .unwrap();
    let options =
        ["--before", "echo database is down; exit 3", "--termination-log", message.to_str().unwrap()];
    let (code, said) = run(place.pack(&options, &place.image()));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("before: database is down\n"), "{said}");
    assert_eq!(fs::read_to_string(message).unwrap(), "--before failed: exit status 3: database is down");
    assert!(place.digest().is_none());
}

#[test]
fn a_pack_that_was_killed_runs_its_after_at_the_next_start() {
    let place = Place::new();
    let (began, note) = (place.path("began"), place.note());
    let stuck = format!("echo $$ >{}; sleep 1000", began.display());
    let running = Running::start(place.pack(&["--before", &stuck, "--after", &note], &place.image()));
    eventually("the hook has begun", || fs::read_to_string(&began).is_ok_and(|pid| pid.ends_with('\n')));
    running.signal(Signal::KILL);
    running.end();
    let hook = fs::read_to_string(began).unwrap().trim().parse().unwrap();
    kill_process_group(Pid::from_raw(hook).unwrap(), Signal::KILL).unwrap();
    assert_eq!(place.diary(), "");
    let (code, said) = run(place.pack(&["--after", &note], &place.image()));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(place.diary(), "after killed\nafter success\n");
    assert!(said.contains("the last run was killed, or its --after has failed: it runs now"), "{said}");
}

#[test]
fn sigterm_interrupts_a_pack_that_is_stuck_and_after_runs() {
    let place = Place::new();
    let registry = Registry::start();
    let gate = Gate::shut(registry.host());
    let note = place.note();
    let image = format!("{}/team/data:v1", gate.host());
    let running =
        Running::start(place.pack(&["--before", &note, "--after", &note, "--on-error", &note], &image));
    gate.wait_for_somebody();
    running.signal(Signal::TERM);
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(143), "{said}");
    assert_eq!(place.diary(), "before\nafter interrupted\n");
    gate.open();
}

#[test]
fn a_schedule_packs_what_changes_until_sigterm() {
    let place = Place::new();
    let running = Running::start(place.pack(&["--every", "1s", "--incremental"], &place.image()));
    eventually("the first image", || place.digest().is_some());
    let first = place.digest();
    fs::write(place.path("tree/file"), "another").unwrap();
    eventually("the second image", || place.digest() != first);
    running.signal(Signal::TERM);
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(said.matches("next run: ").count(), 1, "{said}");
    // What has not changed is not said.
    assert_eq!(said.lines().filter(|line| line.starts_with("packed ")).count(), 2, "{said}");
}

#[test]
fn a_source_that_became_empty_does_not_replace_the_last_good_image() {
    let place = Place::new();
    let running = Running::start(place.pack(&["--every", "1s", "--incremental"], &place.image()));
    eventually("the first image", || place.digest().is_some());
    let first = place.digest();
    fs::remove_file(place.path("tree/file")).unwrap();
    eventually("the refusal", || running.said().contains("error: "));
    running.signal(Signal::TERM);
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(place.digest(), first);
    assert!(said.contains("--allow-shrink"), "{said}");
}

#[test]
fn a_last_pack_at_sigterm_has_what_was_written_since() {
    let place = Place::new();
    let running =
        Running::start(place.pack(&["--every", "1h", "--on-exit", "--grace", "30s"], &place.image()));
    eventually("the first image", || place.digest().is_some());
    let first = place.digest();
    fs::write(place.path("tree/file"), "at the end").unwrap();
    running.signal(Signal::TERM);
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_ne!(place.digest(), first);
}

#[test]
fn a_last_pack_that_cannot_end_in_time_is_interrupted_before_it_is_killed() {
    let place = Place::new();
    let registry = Registry::start();
    let gate = Gate::shut(registry.host());
    gate.open();
    let image = format!("{}/team/data:v1", gate.host());
    let note = place.note();
    let running = Running::start(
        place.pack(&["--every", "1h", "--on-exit", "--grace", "3s", "--after", &note], &image),
    );
    eventually("the first image", || digest(&format!("{}/team/data:v1", registry.host())).is_some());
    eventually("the first run has ended", || place.diary() == "after success\n");
    gate.shut_again();
    fs::write(place.path("tree/file"), "at the end").unwrap();
    let begun = std::time::Instant::now();
    running.signal(Signal::TERM);
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(143), "{said}");
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    assert!(said.contains("the last run was interrupted"), "{said}");
    assert_eq!(place.diary(), "after success\nafter interrupted\n");
    gate.open();
}

#[test]
fn credentials_are_read_again_for_each_run() {
    let place = Place::new();
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.login = Login::Basic { user: "me:new" });
    let authfile = place.path("auth.json");
    let write = |login: &str| {
        let text = serde_json::json!({ "auths": { registry.host(): { "auth": login } } });
        fs::write(&authfile, text.to_string()).unwrap();
    };
    write("bWU6b2xk"); // me:old
    let image = format!("{}/team/data:v1", registry.host());
    let options = ["--every", "1s", "--authfile", authfile.to_str().unwrap(), "--max-failures", "1"];
    let (code, said) = run(place.pack(&options, &image));
    assert_eq!(code, Some(5), "{said}");
    write("bWU6bmV3"); // me:new
    let running = Running::start(place.pack(&options[..4], &image));
    eventually("a success", || running.said().contains("packed "));
    write("bWU6b2xk");
    eventually("a failure", || running.said().contains("error: "));
    running.signal(Signal::TERM);
    assert_eq!(running.end().0.code(), Some(0));
}

#[test]
fn mistakes_are_said_at_once() {
    let place = Place::new();
    let public_key = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/keys/signer.pub");
    let cases: [(&[&str], &str); 11] = [
        (&["--cron", "0 0 31 2 *"], "it would never run"),
        (&["--cron", "61 * * * *"], "--cron"),
        (&["--every", "1m", "--cron", "@daily"], "cannot be used with"),
        (&["--every", "5 minutes"], "is not a duration"),
        (&["--every", "10ms"], "is not a period"),
        (&["--every", "1m", "--jitter", "1h"], "--jitter"),
        (&["--every", "1m", "--wait-for-signal"], "--on-exit"),
        (&["--wait-for-signal", "--sign-key", public_key], "which cannot sign"),
        (&["--on-exit"], "--every"),
        (&["--before", ""], "--before is not a command"),
        (&["--listen", "nonsense"], "--listen"),
    ];
    for (options, part) in cases {
        let (code, said) = run(place.pack(options, &place.image()));
        let expected = if part == "--listen" { Some(1) } else { Some(2) };
        assert_eq!(code, expected, "{options:?}: {said}");
        assert!(said.contains(part), "{options:?}: {said}");
        assert!(place.digest().is_none());
    }
    let mut zone = place.pack(&["--cron", "@daily"], &place.image());
    zone.env("TZ", "Europe/Atlantis");
    let (code, said) = run(zone);
    assert!(code == Some(2) && said.contains("is not a time zone"), "{said}");
}

#[test]
fn the_log_is_json_if_wanted_and_the_health_endpoint_answers() {
    let place = Place::new();
    let options =
        ["--every", "1h", "--log", "json", "--listen", "127.0.0.1:0", "--before", "printf 'a \"b\"\\n'"];
    let running = Running::start(place.pack(&options, &place.image()));
    eventually("the first image", || running.said().contains("packed "));
    let said = running.said();
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find =
        |part: &str| lines.iter().find(|line| line["message"].as_str().unwrap().contains(part)).unwrap();
    assert_eq!(
        (find("before: ")["message"].as_str(), find("before: ")["topic"].as_str()),
        (Some("before: a \"b\""), Some("hook"))
    );
    assert_eq!(find("next run")["level"], "info");
    assert!(find("packed ")["time"].as_str().unwrap().ends_with('Z'));
    let address =
        find("health on http://")["message"].as_str().unwrap().split("http://").nth(1).unwrap().to_owned();
    eventually("it is ready", || get(&address, "/readyz").starts_with("HTTP/1.1 200 "));
    assert!(get(&address, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get(&address, "/metrics").contains("\nvolio_runs_succeeded_total 1\n"));
    running.signal(Signal::TERM);
    assert_eq!(running.end().0.code(), Some(0));
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn a_second_volio_for_the_same_image_waits() {
    let place = Place::new();
    let first = Running::start(place.pack(&["--every", "1h"], &place.image()));
    eventually("the first image", || place.digest().is_some());
    let second = Running::start(place.pack(&["--every", "1h"], &place.image()));
    eventually("the second waits", || second.said().contains("waiting for another volio"));
    first.signal(Signal::TERM);
    first.end();
    eventually("the second continues the schedule", || second.said().contains("next run: "));
    second.signal(Signal::TERM);
    assert_eq!(second.end().0.code(), Some(0));
}

#[test]
fn a_place_without_a_state_is_said() {
    let place = Place::new();
    let mut command = place.pack(&["--after", "true"], &place.image());
    command.env_remove("XDG_STATE_HOME");
    let (code, said) = run(command);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warning: no state is kept") && said.contains("--state"), "{said}");
    let named = place.path("named");
    let mut command = place.pack(&["--after", "true", "--state", named.to_str().unwrap()], &place.image());
    command.env_remove("XDG_STATE_HOME");
    let (code, said) = run(command);
    assert!(code == Some(0) && !said.contains("no state"), "{said}");
    assert!(named.join("jobs").is_dir());
}

#[test]
fn options_come_from_the_environment_and_from_files() {
    let place = Place::new();
    let secret = place.path("compression");
    fs::write(&secret, "gzip\n").unwrap();
    let pack = |variables: &[(&str, &str)], options: &[&str]| {
        let mut command = place.pack(options, &place.image());
        command.envs(variables.iter().copied());
        run(command)
    };
    let media_type = || {
        let layout = fs::read_dir(place.path("layout/blobs/sha256")).unwrap();
        let texts = layout.map(|blob| fs::read(blob.unwrap().path()).unwrap());
        let has = texts.into_iter().any(|text| String::from_utf8_lossy(&text).contains("tar+gzip"));
        fs::remove_dir_all(place.path("layout")).unwrap();
        if has { "gzip" } else { "zstd" }
    };
    let file = [("VOLIO_COMPRESSION_FILE", secret.to_str().unwrap())];
    assert_eq!((pack(&[("VOLIO_COMPRESSION", "gzip")], &[]).0, media_type()), (Some(0), "gzip"));
    assert_eq!((pack(&file, &[]).0, media_type()), (Some(0), "gzip"));
    assert_eq!((pack(&file, &["--compression", "zstd"]).0, media_type()), (Some(0), "zstd"));
    let (code, said) = pack(&[("VOLIO_COMPRESSION_FILE", "/does/not/exist")], &[]);
    assert!(code == Some(2) && said.contains("VOLIO_COMPRESSION_FILE: cannot read"), "{said}");
    let (code, said) = pack(&[("VOLIO_COMPRESSION", "lzma")], &[]);
    assert!(code == Some(2) && said.contains("VOLIO_COMPRESSION"), "{said}");
    // What a file contains may be secret, and is not shown.
    fs::write(&secret, "hunter2").unwrap();
    let (code, said) = pack(&file, &[]);
    assert!(
        code == Some(2) && said.contains("VOLIO_COMPRESSION_FILE") && !said.contains("hunter2"),
        "{said}"
    );
    let (code, said) = pack(&[("VOLIO_COMPRESION", "gzip"), ("VOLIO_SERVICE_HOST", "10.0.0.1")], &[]);
    assert_eq!(code, Some(0));
    let line = "warning: VOLIO_COMPRESION is not the variable of an option; is it VOLIO_COMPRESSION?\n";
    assert!(said.starts_with(line) && !said.contains("VOLIO_SERVICE_HOST"), "{said}");
    let (_, said) = pack(&[("VOLIO_COMPRESION", "gzip")], &["--quiet"]);
    assert_eq!(said, "");
}

#[test]
fn a_hook_can_run_volio_without_taking_over_the_options() {
    let place = Place::new();
    let nested =
        format!("{} ls {} >{}", env!("CARGO_BIN_EXE_volio"), place.image(), place.path("out").display());
    let mut command = place.pack(&["--after", &nested], &place.image());
    command.env("VOLIO_FORMAT", "json");
    let (code, said) = run(command);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("is not the variable"), "{said}");
    assert!(!fs::read_to_string(place.path("out")).unwrap().starts_with('{'));
}

#[test]
fn a_month_of_runs_leaves_no_descriptor_and_no_thread() {
    let place = Place::new();
    let note = place.note();
    let running = Running::start(
        place.pack(&["--every", "1s", "--before", &note, "--after", &note, "--incremental"], &place.image()),
    );
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", running.child.id())).unwrap().count();
    let runs = || place.diary().matches("after ").count();
    eventually("some runs", || runs() >= 2);
    thread::sleep(Duration::from_millis(500));
    let before = (count("fd"), count("task"));
    eventually("more runs", || runs() >= 8);
    eventually("as few as before", || count("fd") <= before.0 && count("task") <= before.1);
    running.signal(Signal::TERM);
    assert_eq!(running.end().0.code(), Some(0));
    let left: Vec<_> =
        fs::read_dir(place.path("state/volio/jobs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 1, "the note, and no lock: {left:?}");
}

#[test]
fn a_pack_that_is_killed_at_any_moment_runs_an_after_for_each_before() {
    let place = Place::new();
    let note = place.note();
    let options = ["--incremental", "--before", &note, "--after", &note];
    // The program and its hooks hold a lock: it is free when the last of them has ended.
    let lock = place.path("lock");
    let pack = || {
        let pack = place.pack(&options, &place.image());
        let mut locked = Command::new("flock");
        locked.env_clear().arg("--no-fork").arg(&lock).arg(pack.get_program()).args(pack.get_args());
        locked.envs(pack.get_envs().filter_map(|(name, value)| Some((name, value?))));
        locked
    };
    let start = Instant::now();
    let (code, said) = run(pack());
    assert_eq!(code, Some(0), "{said}");
    let whole = start.elapsed();
    // More than twenty only where `whole` was that of a busy moment, and all runs ended before their kill.
    for kill in (0..400).take_while(|kill| *kill < 20 || !place.diary().contains("after killed")) {
        fs::write(place.path("tree/file"), kill.to_string()).unwrap();
        let running = Running::start(pack());
        thread::sleep(whole * (kill % 20) / 20);
        running.signal(Signal::KILL);
        running.end();
        assert!(Command::new("flock").arg(&lock).arg("true").status().unwrap().success());
    }
    let (code, said) = run(pack());
    assert_eq!(code, Some(0), "{said}");
    let diary = place.diary();
    let lines: Vec<&str> = diary.lines().collect();
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("before")) {
        assert!(
            lines.get(number + 1).is_some_and(|next| next.starts_with("after")),
            "{number} {line}: {diary}"
        );
    }
    assert!(diary.contains("after killed"), "{diary}");
}

#[test]
fn a_warning_about_certificates_is_given_once_and_not_for_each_run() {
    let place = Place::new();
    let note = place.note();
    let options = ["--every", "1s", "--tls-verify=false", "--after", &note];
    let running = Running::start(place.pack(&options, &place.image()));
    eventually("some runs", || place.diary().matches("after ").count() >= 2);
    running.signal(Signal::TERM);
    let (_, said) = running.end();
    assert_eq!(said.matches("any certificate is accepted").count(), 1, "{said}");
}

/// A daemon that a hook leaves behind becomes a child of the first process of a container.
#[test]
#[ignore = "needs root to make a process namespace: run tests/run"]
fn processes_that_hooks_leave_do_not_remain_as_zombies_in_a_container_as_root() {
    let place = Place::new();
    let (counted, note) = (place.path("count"), place.note());
    // The shell has ended when the hook's process does; its session ends a moment later.
    let leave = "setsid sh -c 'sleep 0.1' >/dev/null 2>&1 & setsid sh -c 'sleep 0.1; exit 3' &";
    let zombies = format!("grep -l 'State:.Z' /proc/[0-9]*/status | wc -l >{}; {note}", counted.display());
    let pack = place.pack(&["--every", "1s", "--before", leave, "--after", &zombies], &place.image());
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(pack.get_program());
    inside.args(pack.get_args());
    inside.env("XDG_STATE_HOME", place.path("state"));
    let running = Running::start(inside);
    eventually("some runs", || place.diary().matches("after ").count() >= 4);
    let left: usize = fs::read_to_string(&counted).unwrap().trim().parse().unwrap();
    running.signal(Signal::KILL);
    running.end();
    assert!(left <= 3, "{left} zombies after four runs: those of the last run have not ended yet");
}
