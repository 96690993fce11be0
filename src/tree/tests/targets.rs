//! Targets that are not empty, and targets that another program changes.

use super::creation_defaults::{default_acl, set_default_acl};
use super::hostile::Sandbox;
use super::users::as_ordinary_user;
use super::*;
use crate::error::Kind;
use crate::tree::target_state::{self, WATCH_DIRECTORY};
use rustix::fd::AsFd;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, openat, renameat_with};
use serde_json::json;
use std::os::unix::fs::symlink as make_symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn forced() -> ExtractOptions {
    ExtractOptions { force: true, ..quick() }
}

fn extract_with(seen: &[Seen], target: &Path, options: ExtractOptions) -> crate::Result<Extracted> {
    let mut extractor = Extractor::new(target, options)?;
    seen.iter().try_for_each(|seen| put(&mut extractor, seen))?;
    extractor.finish()
}

/// Returns the state of a directory.
fn state_of(directory: &Path) -> Option<TargetState> {
    let fd = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    target_state::read(fd.as_fd())
}

#[test]
fn files_are_replaced_and_directories_keep_their_contents() {
    let target = tempfile::tempdir().unwrap();
    let (mut there, _) = directory("d");
    there.metadata.mode = 0o700;
    extract(&[(there, vec![]), file("d/mine", "mine"), file("f", "old"), symlink("l", "f")], target.path())
        .unwrap();
    let seen =
        [directory("d"), file("d/theirs", "theirs"), file("f", "new"), directory("l"), file("l/x", "")];
    extract(&seen, target.path()).unwrap();
    let mut expected = seen.to_vec();
    expected.insert(1, file("d/mine", "mine"));
    assert_eq!(walk(target.path())[1..], expected);
}

#[test]
fn a_directory_is_replaced_by_force_and_nothing_outside_is_removed() {
    let sandbox = Sandbox::new();
    extract(&[file("d/e/mine", "mine"), symlink("d/link", sandbox.outside())], &sandbox.target).unwrap();
    fs::set_permissions(sandbox.target.join("d/e"), fs::Permissions::from_mode(0o500)).unwrap();
    let error = sandbox.extract(&[file("d", "theirs")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.hint().unwrap().contains("--force"));
    extract_with(&[file("d", "theirs")], &sandbox.target, forced()).unwrap();
    assert_eq!(names(&walk(&sandbox.target)), ["/d"]);
    assert_eq!(names(&walk(&sandbox.outside)), ["/precious"]);
}

#[test]
fn a_hard_link_to_a_file_that_was_in_the_target_is_refused() {
    let sandbox = Sandbox::new();
    extract(&[file("mine", "data")], &sandbox.target).unwrap();
    let error = sandbox.extract(&[hardlink("theirs", "mine")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    sandbox.extract(&[file("mine", "theirs"), hardlink("theirs", "mine")]).unwrap();
}

#[test]
fn extracted_entries_do_not_have_an_inherited_acl() {
    let target = tempfile::tempdir().unwrap();
    if !set_default_acl(target.path()) {
        return;
    }
    let acl = default_acl();
    let mut seen = vec![
        directory("d"),
        super::entry("d/fifo", EntryKind::Fifo),
        file("d/file", "data"),
        symlink("d/link", "x"),
        super::entry("fifo", EntryKind::Fifo),
        file("file", "data"),
    ];
    extract(&seen, target.path()).unwrap();
    assert_eq!(walk(target.path())[1..], seen);
    // The ACLs of the image are set.
    seen[0].0.metadata.xattrs.insert(b"system.posix_acl_default".to_vec(), acl);
    extract(&seen, target.path()).unwrap();
    assert_eq!(walk(target.path())[1..], seen);
    extract(&[file("d/e/f", "x")], target.path()).unwrap();
    let e = walk(target.path()).into_iter().find(|(entry, _)| entry.path == path("d/e")).unwrap();
    assert!(e.0.metadata.xattrs.is_empty(), "an implied directory has no ACL either");
}

/// Ends the other thread, also when this one panics.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Extracts while another thread exchanges a directory and a link to the outside, as fast as it can.
fn extract_while_swapped(dir: &Path) {
    let (target, outside) = (dir.join("target"), dir.join("outside"));
    fs::create_dir_all(target.join("d/e")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::create_dir(outside.join("e")).unwrap();
    make_symlink(&outside, target.join("link")).unwrap();
    let before = walk(&outside);
    let over = AtomicBool::new(false);
    let seen: Vec<Seen> = (0..20)
        .flat_map(|n| {
            [
                directory("d"),
                directory("d/e"),
                file(format!("d/e/file{n}"), "evil"),
                super::entry(format!("d/e/fifo{n}"), EntryKind::Fifo),
                symlink(format!("d/e/link{n}"), "evil"),
                hardlink(format!("d/e/hard{n}"), &format!("d/e/file{n}")),
                directory(format!("d/e/directory{n}")),
            ]
        })
        .collect();
    let (mut went_well, mut failed) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (d, link) = (target.join("d"), target.join("link"));
            while !over.load(Ordering::Relaxed) {
                // The extraction may have just removed the link.
                if renameat_with(CWD, &d, CWD, &link, RenameFlags::EXCHANGE).is_err() {
                    let _ = make_symlink(&outside, &link);
                }
            }
        });
        let _over = StopOnDrop(&over);
        for round in 0..10 {
            let _ = fs::remove_dir_all(target.join("link"));
            let _ = make_symlink(&outside, target.join("link"));
            let mut extractor = Extractor::new(&target, forced()).unwrap();
            extractor.begin_state(json!({"round": round})).unwrap();
            // One by one, so that an entry that failed at the link does not prevent the others.
            for seen in &seen {
                match put(&mut extractor, seen) {
                    Ok(()) => went_well += 1,
                    Err(_) => failed += 1,
                }
            }
            let _ = extractor.finish();
        }
    });
    assert_eq!(walk(&outside), before);
    assert!(went_well > 0, "{failed} failures and nothing else");
}

#[test]
fn a_directory_that_is_swapped_all_the_time_does_not_lead_outside() {
    extract_while_swapped(tempfile::tempdir().unwrap().path());
}

#[test]
fn a_directory_that_is_swapped_all_the_time_does_not_lead_an_ordinary_user_outside() {
    let name = "targets::a_directory_that_is_swapped_all_the_time_does_not_lead_an_ordinary_user_outside";
    if let Some(dir) = as_ordinary_user(name) {
        extract_while_swapped(&dir);
    }
}

/// Extracts into targets with links to the outside under every name that volio uses there.
fn extract_over_planted_links(dir: &Path) {
    let outside = dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "data").unwrap();
    for name in [".volio.json", ".volio.json.new", ".volio.spool"] {
        let target = dir.join(format!("target{name}"));
        fs::create_dir(&target).unwrap();
        make_symlink(outside.join("precious"), target.join(name)).unwrap();
        make_symlink(outside.join("made"), target.join(format!("{name}2"))).unwrap();
        let found = Target::open(&target).unwrap().unwrap();
        assert!(found.foreign_entry().unwrap().is_some(), "{name} is not volio's");
        assert_eq!(found.state(), None);
        drop(found);
        let mut extractor = Extractor::new(&target, forced()).unwrap();
        extractor.begin_state(json!(1)).unwrap();
        extractor.spool().unwrap().file().unwrap();
        put(&mut extractor, &file("file", "data")).unwrap();
        extractor.finish().unwrap();
        assert_eq!(names(&walk(&outside)), ["/precious"]);
        assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "data");
    }
}

#[test]
fn links_under_reserved_names_do_not_lead_outside() {
    extract_over_planted_links(tempfile::tempdir().unwrap().path());
}

#[test]
fn links_under_reserved_names_do_not_lead_an_ordinary_user_outside() {
    let name = "targets::links_under_reserved_names_do_not_lead_an_ordinary_user_outside";
    if let Some(dir) = as_ordinary_user(name) {
        extract_over_planted_links(&dir);
    }
}

#[test]
fn a_link_with_the_name_of_the_staging_directory_is_refused() {
    let sandbox = Sandbox::new();
    make_symlink(&sandbox.outside, sandbox.dir.path().join(".target.volio")).unwrap();
    let error = AtomicTarget::beside(&sandbox.target).unwrap().target(&json!(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    fs::remove_file(sandbox.dir.path().join(".target.volio")).unwrap();
    fs::create_dir(sandbox.dir.path().join(".target.volio")).unwrap();
    fs::write(sandbox.dir.path().join(".target.volio/mine"), "").unwrap();
    assert!(
        AtomicTarget::beside(&sandbox.target)
            .unwrap()
            .target(&json!(1))
            .unwrap()
            .foreign_entry()
            .unwrap()
            .is_some()
    );
}

/// Writes a state as another user could do it.
fn forge(directory: &Path, complete: bool) {
    let fd = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let forged = TargetState { complete, content: json!(1), ..TargetState::abandoned() };
    target_state::write_bound(fd.as_fd(), forged).unwrap();
}

#[test]
fn a_staging_directory_of_another_user_is_refused() {
    if !super::users::needs_root("a staging directory of another user") {
        return;
    }
    let sandbox = Sandbox::new();
    let stage = sandbox.dir.path().join(".target.volio");
    fs::set_permissions(sandbox.dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let is_refused = || {
        let error = AtomicTarget::beside(&sandbox.target).unwrap().target(&json!(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(stage.join("evil").exists());
    };
    fs::create_dir(&stage).unwrap();
    fs::write(stage.join("evil"), "").unwrap();
    forge(&stage, true);
    std::os::unix::fs::chown(&stage, Some(super::users::NOBODY), None).unwrap();
    is_refused();
    // It is ours, and every user may have filled it.
    std::os::unix::fs::chown(&stage, Some(0), None).unwrap();
    fs::set_permissions(&stage, fs::Permissions::from_mode(0o777)).unwrap();
    is_refused();
    fs::set_permissions(&stage, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        AtomicTarget::beside(&sandbox.target).unwrap().target(&json!(1)).unwrap().state().unwrap().complete
    );
}

#[test]
fn a_state_in_a_directory_that_others_may_write_removes_nothing() {
    for mode in [0o777, 0o775] {
        let target = tempfile::tempdir().unwrap();
        fs::write(target.path().join("precious"), "data").unwrap();
        forge(target.path(), false);
        assert!(state_of(target.path()).unwrap().was_empty);
        fs::set_permissions(target.path(), fs::Permissions::from_mode(mode)).unwrap();
        let found = Target::open(target.path()).unwrap().unwrap();
        assert!(!found.state().unwrap().was_empty);
        assert_eq!(found.remove_interrupted().unwrap(), 0);
        assert!(target.path().join("precious").exists());
    }
}

#[test]
fn an_image_cannot_contain_the_state() {
    let target = tempfile::tempdir().unwrap();
    let forged = r#"{"complete":true,"content":1,"alone":true,"inode":1}"#;
    let seen = [file(".volio.json", forged), file("d/.volio.json", "data"), file(".volio.spool", "")];
    extract(&seen, target.path()).unwrap();
    assert_eq!(names(&walk(target.path())), ["/d", "/d/.volio.json"]);
    assert_eq!(state_of(target.path()), None);
}

#[test]
fn a_target_is_incomplete_while_it_is_filled_and_complete_at_the_end() {
    let target = tempfile::tempdir().unwrap();
    let mut extractor = Extractor::new(target.path(), quick()).unwrap();
    extractor.begin_state(json!({"digest": "a"})).unwrap();
    let record = state_of(target.path()).unwrap();
    assert!(!record.complete && record.was_empty && record.content == json!({"digest": "a"}));
    put(&mut extractor, &directory("")).unwrap();
    put(&mut extractor, &file("a", "")).unwrap();
    extractor.finish().unwrap();
    assert!(state_of(target.path()).unwrap().complete);
    assert_eq!(walk(target.path())[0], directory(""), "the state has changed nothing else");
    // Over other files, it claims nothing.
    let mut extractor = Extractor::new(target.path(), quick()).unwrap();
    extractor.begin_state(json!({"digest": "b"})).unwrap();
    assert!(!state_of(target.path()).unwrap().was_empty);
    drop(extractor);
    assert_eq!(Target::open(target.path()).unwrap().unwrap().remove_interrupted().unwrap(), 0);
    assert!(target.path().join("a").exists());
}

#[test]
fn an_interrupted_run_is_removed_and_a_copy_of_its_state_claims_nothing() {
    let sandbox = Sandbox::new();
    let mut extractor = Extractor::new(&sandbox.target, quick()).unwrap();
    extractor.begin_state(json!(1)).unwrap();
    for seen in [file("a/b/c", "data"), symlink("a/link", sandbox.outside()), file("d", "")] {
        put(&mut extractor, &seen).unwrap();
    }
    drop(extractor);
    let copy = sandbox.dir.path().join("copy");
    assert!(Command::new("cp").arg("-a").arg(&sandbox.target).arg(&copy).status().unwrap().success());
    assert_eq!(state_of(&copy), state_of(&sandbox.target), "cp -a copies it");
    assert_eq!(Target::open(&copy).unwrap().unwrap().remove_interrupted().unwrap(), 0);
    assert_eq!(Target::open(&sandbox.target).unwrap().unwrap().remove_interrupted().unwrap(), 5);
    assert_eq!(names(&walk(&sandbox.target)), Vec::<String>::new());
    assert_eq!(names(&walk(&copy)).len(), 6, "including the journal");
    assert_eq!(names(&walk(&sandbox.outside)), ["/precious"]);
}

#[test]
fn a_second_run_in_the_same_target_is_refused() {
    let target = tempfile::tempdir().unwrap();
    let extractor = Extractor::new(target.path(), quick()).unwrap();
    let error = Extractor::new(target.path(), quick()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    drop(extractor);
    assert!(Extractor::new(target.path(), quick()).is_ok());
}

#[test]
fn an_abandoned_run_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (name, is_there) in [("new", false), ("old", true)] {
        let target = dir.path().join(name);
        if is_there {
            fs::create_dir(&target).unwrap();
        }
        let mut extractor = Extractor::new(&target, quick()).unwrap();
        extractor.begin_state(json!(1)).unwrap();
        extractor.abandon();
        assert_eq!(target.exists(), is_there);
        assert!(!is_there || state_of(&target).is_none());
    }
}

#[test]
fn an_image_cannot_write_into_the_directory_of_a_run_that_follows_a_tag() {
    let target = tempfile::tempdir().unwrap();
    let own = target.path().join(WATCH_DIRECTORY);
    fs::create_dir(&own).unwrap();
    fs::write(own.join("note.json"), "mine").unwrap();
    assert_eq!(Target::open(target.path()).unwrap().unwrap().foreign_entry().unwrap(), None);
    let within = file(".volio.watch/note.json", "forged");
    extract(&[within, file("file", "data")], target.path()).unwrap();
    assert_eq!(fs::read_to_string(own.join("note.json")).unwrap(), "mine");
    for through in ["link/note.json", "link/new/file"] {
        let entries = [symlink("link", ".volio.watch"), file(through, "forged")];
        let error = extract(&entries, target.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity, "{error}");
    }
    assert_eq!(fs::read_dir(&own).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(own.join("note.json")).unwrap(), "mine");
}
