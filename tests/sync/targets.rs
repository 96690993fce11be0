//! Which directories a sync accepts, and what it removes in them.

use super::{DRY, FORCE, Fixture, path, quick, run, set_mtime, synced};
use crate::snapshot::{assert_same, snapshot};
use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use volio::error::Kind;
use volio::progress::Silent;
use volio::unpack::{Options, PathFilter, SyncOptions, WriteMode, unpack};

#[track_caller]
fn refused(fixture: &Fixture, how: SyncOptions, filter: PathFilter) -> String {
    let before = snapshot(&fixture.target());
    let error = run(&fixture.image, &fixture.target(), how, filter).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert_eq!(snapshot(&fixture.target()), before, "nothing was changed");
    error.to_string()
}

#[test]
fn a_directory_that_volio_has_not_filled_is_refused_unless_forced() {
    let fixture = Fixture::new(&[("a", b"one")]);
    fs::remove_dir_all(fixture.target()).unwrap();
    fs::create_dir(fixture.target()).unwrap();
    fs::write(fixture.target().join("mine"), "mine").unwrap();
    assert!(refused(&fixture, SyncOptions::default(), PathFilter::All).contains("volio has not filled it"));
    // A copy of a target is not the target.
    fs::rename(fixture.target(), fixture.at("away")).unwrap();
    fixture.unpack();
    fs::rename(fixture.target(), fixture.at("original")).unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-a", "--preserve=all"])
        .args([fixture.at("original"), fixture.target()])
        .status();
    assert!(copied.unwrap().success());
    refused(&fixture, SyncOptions::default(), PathFilter::All);
    synced(&fixture.image, &fixture.target(), FORCE).unwrap();
    assert_same(&fixture.tree(), &fixture.target());
    assert_eq!(fixture.update().written, 0, "now it is volio's");
}

#[test]
fn files_that_were_there_before_a_merge_are_not_removed() {
    let fixture = Fixture::new(&[("a", b"one")]);
    fs::remove_dir_all(fixture.target()).unwrap();
    fs::create_dir(fixture.target()).unwrap();
    fs::write(fixture.target().join("mine"), "mine").unwrap();
    let merge = quick(WriteMode::Merge { replace_directories: false });
    unpack(&fixture.image, &fixture.target(), &merge, &Silent).unwrap();
    assert!(refused(&fixture, SyncOptions::default(), PathFilter::All).contains("there before the image"));
    let done = synced(&fixture.image, &fixture.target(), FORCE).unwrap();
    assert_eq!(done.removed, 1, "{done:?}");
    // A merge over a synced target makes it one that is not only volio's.
    fs::write(fixture.target().join("mine"), "mine").unwrap();
    fixture.write("a", b"another");
    fixture.pack();
    unpack(&fixture.image, &fixture.target(), &merge, &Silent).unwrap();
    refused(&fixture, SyncOptions::default(), PathFilter::All);
}

#[test]
fn other_options_than_those_of_the_unpack_are_refused() {
    let fixture = Fixture::new(&[("dir/a", b"one"), ("b", b"two")]);
    let said = refused(&fixture, SyncOptions::default(), PathFilter::Subpath(path("dir")));
    assert!(said.contains("other options"), "{said}");
    refused(&fixture, SyncOptions::default(), PathFilter::Strip(1));
    let mut owner = quick(WriteMode::Sync(SyncOptions::default()));
    owner.tree.uid = Some(rustix::process::geteuid().as_raw());
    unpack(&fixture.image, &fixture.target(), &owner, &Silent).unwrap_err();
}

// Reported of other programs: deletion reaches neighbours of the selected part.
#[test]
fn nothing_outside_of_the_selection_is_removed_and_an_empty_one_is_refused() {
    let fixture = Fixture::new(&[("dir/a", b"one"), ("dir/b", b"two"), ("empty-one", b"")]);
    fs::create_dir(fixture.tree().join("empty")).unwrap();
    fixture.pack();
    let beside = fixture.at("beside");
    fs::write(&beside, "stays").unwrap();
    let part = fixture.target().join("dir");
    let filter = || PathFilter::Subpath(path("dir"));
    // The directory of the subpath, in a target that has more.
    let how = SyncOptions { foreign: volio::unpack::ForeignTarget::Overwrite, ..SyncOptions::default() };
    fs::write(part.join("extra"), "x").unwrap();
    run(&fixture.image, &part, how, filter()).unwrap();
    assert!(!part.join("extra").exists() && part.join("a").exists());
    assert!(fixture.target().join("empty-one").exists() && beside.exists());
    run(&fixture.image, &part, SyncOptions::default(), filter()).unwrap();
    // An empty directory of the image, or a path that it does not have.
    let before = snapshot(&part);
    let empty = |name: &str| {
        let options = PathFilter::Subpath(path(name));
        run(&fixture.image, &part, SyncOptions::default(), options).unwrap_err().kind()
    };
    assert_eq!(empty("empty"), Kind::Refused);
    assert!([Kind::NotFound, Kind::Refused].contains(&empty("nowhere")));
    assert_eq!(snapshot(&part), before);
    let missing = run(&fixture.image, &part, how, PathFilter::Subpath(path("nowhere")));
    assert_eq!(missing.unwrap_err().kind(), Kind::NotFound, "also with --force");
    assert_eq!(snapshot(&part), before);
}

#[test]
fn a_part_with_fewer_names_is_synced_as_it_is_unpacked() {
    let fixture = Fixture::new(&[("x/dir/a", b"one"), ("y/b", b"two"), ("top", b"not selected")]);
    fs::hard_link(fixture.tree().join("top"), fixture.tree().join("x/linked")).unwrap();
    fixture.pack();
    for (name, filter) in [("part", PathFilter::Subpath(path("x"))), ("stripped", PathFilter::Strip(1))] {
        let (target, fresh) = (fixture.at(name), fixture.at(&format!("fresh-{name}")));
        let options = |write| Options { filter: filter.clone(), ..quick(write) };
        unpack(&fixture.image, &target, &options(WriteMode::InPlace), &Silent).unwrap();
        fs::remove_file(target.join("dir/a")).unwrap();
        fs::write(target.join("linked"), "changed").unwrap();
        run(&fixture.image, &target, SyncOptions::default(), filter.clone()).unwrap();
        unpack(&fixture.image, &fresh, &options(WriteMode::InPlace), &Silent).unwrap();
        // No entry of the image describes the root.
        for root in [&fresh, &target] {
            set_mtime(root, 5);
        }
        assert_same(&fresh, &target);
    }
}

#[test]
fn a_dry_run_says_what_a_run_does_and_changes_nothing() {
    let fixture = Fixture::new(&[("a", b"one"), ("dir/b", b"two"), ("gone/c", b"three"), ("gone/d", b"4")]);
    fixture.write("a", b"one, changed");
    fixture.write("new/file", b"new");
    fs::remove_dir_all(fixture.tree().join("gone")).unwrap();
    set_mtime(&fixture.tree().join("dir/b"), 7);
    fixture.pack();
    let stamps = || {
        let status = |name: &str| {
            let found = fs::symlink_metadata(fixture.target().join(name)).unwrap();
            (found.ctime(), found.ctime_nsec(), found.ino())
        };
        ["", "a", "dir", "dir/b", "gone", "gone/c"].map(status)
    };
    let (before, seen) = (stamps(), snapshot(&fixture.target()));
    let planned = synced(&fixture.image, &fixture.target(), DRY).unwrap();
    assert_eq!((stamps(), snapshot(&fixture.target())), (before, seen));
    let done = fixture.sync();
    assert_eq!(volio::unpack::Synced { is_dry: false, ..planned }, done);
    assert_eq!((done.written, done.removed), (3, 3), "{done:?}");
    // A directory that does not exist is not made.
    let missing = fixture.at("missing");
    let planned = synced(&fixture.image, &missing, DRY).unwrap();
    assert!(planned.written >= 5 && !missing.exists(), "{planned:?}");
}

// Reported of other programs: the same content is fetched twice.
#[test]
fn a_second_run_on_the_same_target_is_refused() {
    let fixture = Fixture::new(&[("a", b"one")]);
    let directory = File::open(fixture.target()).unwrap();
    directory.try_lock().unwrap();
    let said = refused(&fixture, SyncOptions::default(), PathFilter::All);
    assert!(said.contains("another volio is at work"), "{said}");
}

#[test]
fn sockets_and_files_with_names_of_temporary_ones_are_removed_and_the_image_may_have_such_names() {
    let fixture = Fixture::new(&[("a", b"one"), (".volio.new0", b"of the image")]);
    let socket = fixture.target().join("socket");
    drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
    fs::create_dir(fixture.target().join(".volio.new1")).unwrap();
    fs::write(fixture.target().join(".volio.new1/x"), "left over").unwrap();
    fixture.write("a", b"changed");
    let done = fixture.update();
    assert_eq!(done.written, 1, "{done:?}");
}

// Reported of other programs: whiteouts and changes of type are misread; directories without files lose their
// attributes.
#[test]
fn every_kind_of_entry_becomes_every_other_kind() {
    let kinds = ["file", "directory", "link", "fifo", "nothing", "empty"];
    let fixture = Fixture::new(&[("stays", b"x")]);
    let make = |name: &str, kind: &str| {
        let at = fixture.tree().join(name);
        match kind {
            "file" => fixture.write(name, b"a file"),
            "empty" => fixture.write(name, b""),
            "directory" => {
                fixture.write(&format!("{name}/below/file"), b"below");
                fs::create_dir(at.join("empty")).unwrap();
            }
            "link" => std::os::unix::fs::symlink("stays", at).unwrap(),
            "fifo" => {
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            }
            _ => {}
        }
    };
    for turn in 0..kinds.len() {
        for (number, _) in kinds.iter().enumerate() {
            let name = format!("{number}");
            let at = fixture.tree().join(&name);
            let _ = fs::remove_dir_all(&at).or_else(|_| fs::remove_file(&at));
            make(&name, kinds[(number + turn * (number + 1)) % kinds.len()]);
        }
        fixture.update();
    }
}

#[test]
fn directories_that_are_deeper_than_any_path_of_an_image_are_removed() {
    let fixture = Fixture::new(&[("a", b"one")]);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = open(fixture.target(), flags, Mode::empty()).unwrap();
    for _ in 0..40 {
        mkdirat(&at, "d".repeat(250), Mode::RWXU).unwrap();
        at = openat(&at, "d".repeat(250), flags, Mode::empty()).unwrap();
    }
    mkdirat(&at, "last", Mode::RWXU).unwrap();
    fixture.update();
}
