//! Syncs that are killed, and runs that find what they left.

use super::{Fixture, noise, quick};
use crate::snapshot::{assert_same, snapshot};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use volio::error::Kind;
use volio::progress::Silent;
use volio::unpack::{IfPresent, Options, Outcome, WriteMode, unpack};

fn volio(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn record(target: &Path) -> serde_json::Value {
    let mut text = vec![0; 64 << 10];
    let length = rustix::fs::getxattr(target, "user.volio.image", &mut text[..]).unwrap();
    serde_json::from_slice(&text[..length]).unwrap()
}

#[test]
fn a_target_of_a_killed_sync_is_old_incomplete_or_new() {
    let fixture = Fixture::new(&[("a", b"one")]);
    for n in 0..60u64 {
        fixture.write(&format!("dir{}/{n}", n % 7), &noise(n, 20_000));
    }
    let image = |n: u8| format!("oci:{}:{n}", fixture.at("layout").display());
    let (tree, target) = (fixture.tree(), fixture.target());
    let pack = |n: u8| {
        assert!(volio(&["pack", &image(n), tree.to_str().unwrap()]).status().unwrap().success());
        fixture.at(&format!("version-{n}"))
    };
    let copy = |to: &Path| {
        assert!(Command::new("cp").arg("-a").arg(&tree).arg(to).status().unwrap().success());
    };
    copy(&pack(0));
    for n in (0..60u64).step_by(2) {
        fixture.write(&format!("dir{}/{n}", n % 7), &noise(n + 100, 20_000));
    }
    fs::remove_dir_all(tree.join("dir3")).unwrap();
    fixture.write("dir3", b"a file");
    copy(&pack(1));
    fs::remove_dir_all(&target).unwrap();
    let sync = |n: u8| volio(&["unpack", "--sync", &image(n), target.to_str().unwrap()]);
    assert!(sync(0).status().unwrap().success());
    let mut interrupted = 0;
    for round in 0..40u64 {
        let (old, new) = ((round % 2) as u8, ((round + 1) % 2) as u8);
        let mut child = sync(new).spawn().unwrap();
        thread::sleep(Duration::from_micros(round * round * 40 + 3000));
        child.kill().unwrap();
        child.wait().unwrap();
        let state = record(&target);
        if state["complete"] == true {
            let is_new = snapshot(&target) == snapshot(&fixture.at(&format!("version-{new}")));
            if !is_new {
                assert_same(&fixture.at(&format!("version-{old}")), &target);
            }
        } else {
            interrupted += 1;
            assert_eq!((&state["content"]["syncing"], &state["alone"]), (&true.into(), &false.into()));
        }
        assert!(sync(new).status().unwrap().success());
        assert_same(&fixture.at(&format!("version-{new}")), &target);
        assert_eq!(record(&target)["complete"], true);
    }
    assert!(interrupted > 0, "no run was killed in the middle");
}

/// A target in which a sync was interrupted.
fn incomplete() -> Fixture {
    let fixture = Fixture::new(&[("a", b"one"), ("b", b"two")]);
    let mut state = record(&fixture.target());
    state["complete"] = false.into();
    state["alone"] = false.into();
    state["content"]["syncing"] = true.into();
    let text = serde_json::to_vec(&state).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(fixture.target(), "user.volio.image", &text, flags).unwrap();
    fs::write(fixture.target().join("extra"), "not removed yet").unwrap();
    fixture
}

#[test]
fn an_ordinary_unpack_removes_nothing_from_an_incomplete_target() {
    let fixture = incomplete();
    let other = Fixture::new(&[("other", b"image")]);
    for image in [&fixture.image, &other.image] {
        let refused = unpack(image, &fixture.target(), &quick(WriteMode::InPlace), &Silent).unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused);
        assert!(refused.to_string().contains("--sync"), "{refused}");
        assert_eq!(fs::read_dir(fixture.target()).unwrap().count(), 3);
    }
    let keep = Options { if_present: IfPresent::KeepAny, ..quick(WriteMode::InPlace) };
    unpack(&fixture.image, &fixture.target(), &keep, &Silent).unwrap_err();
    fixture.update();
}

// Reported of other programs: what was not on the disk counts as complete after a crash. What was not on the disk
// for certain is read.
#[test]
fn files_of_an_interrupted_run_are_compared_by_content() {
    let fixture = incomplete();
    let at = fixture.target().join("a");
    let mtime = rustix::fs::stat(&at).unwrap().st_mtime;
    fs::write(&at, [0; 3]).unwrap();
    super::set_mtime(&at, mtime);
    let done = fixture.update();
    assert_eq!((done.written, done.removed), (1, 1), "{done:?}");
}

#[test]
fn an_unpack_that_was_interrupted_is_completed_by_a_sync() {
    let fixture = Fixture::new(&[("a", b"one"), ("b", b"two")]);
    let mut state = record(&fixture.target());
    state["complete"] = false.into();
    let text = serde_json::to_vec(&state).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(fixture.target(), "user.volio.image", &text, flags).unwrap();
    fs::write(fixture.target().join(".volio.made"), "1.000000000\0a\0").unwrap();
    fixture.write("b", b"changed");
    fixture.update();
    assert!(!fixture.target().join(".volio.made").exists());
    let again = unpack(&fixture.image, &fixture.target(), &quick(WriteMode::InPlace), &Silent).unwrap();
    assert_eq!(again.outcome, Outcome::Present);
}

/// Runs a sync of a changed image under strace with these arguments; returns its trace.
fn traced(fixture: &Fixture, arguments: &[&str]) -> (bool, String) {
    let image = format!("oci:{}:1", fixture.at("layout").display());
    let (tree, target, trace) = (fixture.tree(), fixture.target(), fixture.at("trace"));
    assert!(volio(&["pack", &image, tree.to_str().unwrap()]).status().unwrap().success());
    let status = Command::new("strace")
        .args(["-f", "-qq", "-s", "4096", "-o", trace.to_str().unwrap()])
        .args(arguments)
        .args([env!("CARGO_BIN_EXE_volio"), "unpack", "--sync", &image, target.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    (status.success(), fs::read_to_string(trace).unwrap())
}

/// A target with an older image than the tree.
fn outdated() -> Fixture {
    let fixture = Fixture::new(&[("a", b"one"), ("b", b"two"), ("gone", b"gone")]);
    fixture.write("a", b"changed");
    fixture.write("new", b"new");
    fs::remove_file(fixture.tree().join("gone")).unwrap();
    fixture
}

// Reported of other programs: files that a power cut left empty or full of zeros counted as complete.
#[test]
#[ignore = "needs strace: run tests/run"]
fn the_record_says_complete_after_everything_is_synced_and_not_before() {
    let calls = "--trace=syncfs,fsync,fsetxattr,setxattr,rename,renameat,renameat2,unlinkat,write,pwrite64,fchmod,utimensat";
    let fixture = outdated();
    let (is_done, trace) = traced(&fixture, &[calls]);
    assert!(is_done, "{trace}");
    let lines: Vec<&str> = trace.lines().collect();
    let find = |what: &dyn Fn(&str) -> bool| lines.iter().rposition(|line| what(line));
    let synced = find(&|line| line.contains("syncfs(")).unwrap();
    let recorded = find(&|line| line.contains("complete\\\":true")).unwrap();
    let changed = find(&|line| line.contains("renameat") || line.contains("unlinkat(")).unwrap();
    assert!(changed < synced && synced < recorded, "{changed}, {synced}, {recorded}: {trace}");
    // The record itself is synced too.
    assert!(lines[recorded..].iter().any(|line| line.contains("fsync(")), "{trace}");
    assert_same(&fixture.tree(), &fixture.target());
}

#[test]
#[ignore = "needs strace: run tests/run"]
fn a_target_that_cannot_be_synced_does_not_count_as_complete() {
    for fault in ["--inject=syncfs:error=EIO", "--inject=syncfs:signal=KILL"] {
        let fixture = outdated();
        let (is_done, trace) = traced(&fixture, &["--trace=syncfs", fault]);
        assert!(!is_done, "{fault}: {trace}");
        let state = record(&fixture.target());
        assert_eq!(
            (&state["complete"], &state["content"]["syncing"]),
            (&false.into(), &true.into()),
            "{fault}"
        );
        fixture.update();
    }
}
