//! Targets that hold something, and targets in which somebody else is at work.

use super::creation_defaults::{default_acl, hands_down};
use super::hostile::Place;
use super::users::as_ordinary_user;
use super::*;
use crate::tree::target_state;
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

/// The record of a directory.
fn record_of(directory: &Path) -> Option<TargetState> {
    let fd = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    target_state::read(fd.as_fd())
}

#[test]
fn files_give_way_and_directories_keep_what_is_in_them() {
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
fn a_directory_gives_way_by_force_and_nothing_outside_goes_with_it() {
    let place = Place::new();
    extract(&[file("d/e/mine", "mine"), symlink("d/link", place.outside())], &place.target).unwrap();
    fs::set_permissions(place.target.join("d/e"), fs::Permissions::from_mode(0o500)).unwrap();
    let error = place.extract(&[file("d", "theirs")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.hint().unwrap().contains("--force"));
    extract_with(&[file("d", "theirs")], &place.target, forced()).unwrap();
    assert_eq!(names(&walk(&place.target)), ["/d"]);
    assert_eq!(names(&walk(&place.outside)), ["/precious"]);
}

#[test]
fn a_hard_link_never_leads_to_what_was_in_the_target() {
    let place = Place::new();
    extract(&[file("mine", "data")], &place.target).unwrap();
    let error = place.extract(&[hardlink("theirs", "mine")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    place.extract(&[file("mine", "theirs"), hardlink("theirs", "mine")]).unwrap();
}

#[test]
fn an_acl_that_a_directory_hands_down_is_on_nothing_that_is_extracted() {
    let target = tempfile::tempdir().unwrap();
    if !hands_down(target.path()) {
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
    // What the image itself has is another matter.
    seen[0].0.metadata.xattrs.insert(b"system.posix_acl_default".to_vec(), acl);
    extract(&seen, target.path()).unwrap();
    assert_eq!(walk(target.path())[1..], seen);
    extract(&[file("d/e/f", "x")], target.path()).unwrap();
    let e = walk(target.path()).into_iter().find(|(entry, _)| entry.path == path("d/e")).unwrap();
    assert!(e.0.metadata.xattrs.is_empty(), "an invented directory hands nothing down either");
}

/// Ends the other thread also when this one panics.
struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Extracts while another thread exchanges a directory and a link to the outside, as fast as it can.
fn swapped(dir: &Path) {
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
                // The link is there for a moment only when the extraction has just removed it.
                if renameat_with(CWD, &d, CWD, &link, RenameFlags::EXCHANGE).is_err() {
                    let _ = make_symlink(&outside, &link);
                }
            }
        });
        let _over = AtTheEnd(&over);
        for round in 0..10 {
            let _ = fs::remove_dir_all(target.join("link"));
            let _ = make_symlink(&outside, target.join("link"));
            let mut extractor = Extractor::new(&target, forced()).unwrap();
            extractor.begin_state(json!({"round": round})).unwrap();
            // Each by itself: one that met the link shall not keep the others from trying.
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
fn a_directory_that_is_swapped_all_the_time_leads_nowhere() {
    swapped(tempfile::tempdir().unwrap().path());
}

#[test]
fn a_directory_that_is_swapped_all_the_time_leads_an_ordinary_user_nowhere() {
    let name = "targets::a_directory_that_is_swapped_all_the_time_leads_an_ordinary_user_nowhere";
    if let Some(dir) = as_ordinary_user(name) {
        swapped(&dir);
    }
}

/// Links to the outside under every name that volio uses in a target.
fn planted(dir: &Path) {
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
fn links_under_the_names_that_volio_uses_lead_nowhere() {
    planted(tempfile::tempdir().unwrap().path());
}

#[test]
fn links_under_the_names_that_volio_uses_lead_an_ordinary_user_nowhere() {
    let name = "targets::links_under_the_names_that_volio_uses_lead_an_ordinary_user_nowhere";
    if let Some(dir) = as_ordinary_user(name) {
        planted(&dir);
    }
}

#[test]
fn links_in_the_place_of_a_stage_are_refused() {
    let place = Place::new();
    make_symlink(&place.outside, place.dir.path().join(".target.volio")).unwrap();
    let error = AtomicTarget::beside(&place.target).unwrap().target(&json!(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    fs::remove_file(place.dir.path().join(".target.volio")).unwrap();
    fs::create_dir(place.dir.path().join(".target.volio")).unwrap();
    fs::write(place.dir.path().join(".target.volio/mine"), "").unwrap();
    assert!(
        AtomicTarget::beside(&place.target)
            .unwrap()
            .target(&json!(1))
            .unwrap()
            .foreign_entry()
            .unwrap()
            .is_some()
    );
}

/// The record of an image that somebody else says to be here.
fn forge(directory: &Path, complete: bool) {
    let fd = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let inode = rustix::fs::fstat(&fd).unwrap().st_ino;
    let forged = TargetState { complete, content: json!(1), inode, ..TargetState::abandoned() };
    target_state::write(fd.as_fd(), &forged).unwrap();
}

#[test]
fn a_stage_of_somebody_else_is_refused() {
    if !super::users::needs_root("a stage that another user has made") {
        return;
    }
    let place = Place::new();
    let stage = place.dir.path().join(".target.volio");
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let is_refused = || {
        let error = AtomicTarget::beside(&place.target).unwrap().target(&json!(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(stage.join("evil").exists());
    };
    fs::create_dir(&stage).unwrap();
    fs::write(stage.join("evil"), "").unwrap();
    forge(&stage, true);
    std::os::unix::fs::chown(&stage, Some(super::users::NOBODY), None).unwrap();
    is_refused();
    // Ours, and everybody may have filled it.
    std::os::unix::fs::chown(&stage, Some(0), None).unwrap();
    fs::set_permissions(&stage, fs::Permissions::from_mode(0o777)).unwrap();
    is_refused();
    fs::set_permissions(&stage, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        AtomicTarget::beside(&place.target).unwrap().target(&json!(1)).unwrap().state().unwrap().complete
    );
}

#[test]
fn a_record_where_others_may_write_removes_nothing() {
    for mode in [0o777, 0o775, 0o1777] {
        let target = tempfile::tempdir().unwrap();
        fs::write(target.path().join("precious"), "data").unwrap();
        forge(target.path(), false);
        assert!(record_of(target.path()).unwrap().alone);
        fs::set_permissions(target.path(), fs::Permissions::from_mode(mode)).unwrap();
        let found = Target::open(target.path()).unwrap().unwrap();
        assert!(!found.state().unwrap().alone);
        assert_eq!(found.remove_interrupted().unwrap(), 0);
        assert!(target.path().join("precious").exists());
    }
}

#[test]
fn an_image_cannot_bring_the_record() {
    let target = tempfile::tempdir().unwrap();
    let forged = r#"{"complete":true,"content":1,"alone":true,"inode":1}"#;
    let seen = [file(".volio.json", forged), file("d/.volio.json", "data"), file(".volio.spool", "")];
    extract(&seen, target.path()).unwrap();
    assert_eq!(names(&walk(target.path())), ["/d", "/d/.volio.json"]);
    assert_eq!(record_of(target.path()), None);
}

#[test]
fn a_target_is_incomplete_while_it_is_filled_and_complete_in_the_end() {
    let target = tempfile::tempdir().unwrap();
    let mut extractor = Extractor::new(target.path(), quick()).unwrap();
    extractor.begin_state(json!({"digest": "a"})).unwrap();
    let record = record_of(target.path()).unwrap();
    assert!(!record.complete && record.alone && record.content == json!({"digest": "a"}));
    put(&mut extractor, &directory("")).unwrap();
    put(&mut extractor, &file("a", "")).unwrap();
    extractor.finish().unwrap();
    assert!(record_of(target.path()).unwrap().complete);
    assert_eq!(walk(target.path())[0], directory(""), "the record has changed nothing");
    // Over something else, it claims nothing.
    let mut extractor = Extractor::new(target.path(), quick()).unwrap();
    extractor.begin_state(json!({"digest": "b"})).unwrap();
    assert!(!record_of(target.path()).unwrap().alone);
    drop(extractor);
    assert_eq!(Target::open(target.path()).unwrap().unwrap().remove_interrupted().unwrap(), 0);
    assert!(target.path().join("a").exists());
}

#[test]
fn what_was_interrupted_is_taken_away_and_a_copy_of_its_record_claims_nothing() {
    let place = Place::new();
    let mut extractor = Extractor::new(&place.target, quick()).unwrap();
    extractor.begin_state(json!(1)).unwrap();
    for seen in [file("a/b/c", "data"), symlink("a/link", place.outside()), file("d", "")] {
        put(&mut extractor, &seen).unwrap();
    }
    drop(extractor);
    let copy = place.dir.path().join("copy");
    assert!(Command::new("cp").arg("-a").arg(&place.target).arg(&copy).status().unwrap().success());
    assert_eq!(record_of(&copy), record_of(&place.target), "cp -a copies it");
    assert_eq!(Target::open(&copy).unwrap().unwrap().remove_interrupted().unwrap(), 0);
    assert_eq!(Target::open(&place.target).unwrap().unwrap().remove_interrupted().unwrap(), 5);
    assert_eq!(names(&walk(&place.target)), Vec::<String>::new());
    assert_eq!(names(&walk(&copy)).len(), 6, "and the journal");
    assert_eq!(names(&walk(&place.outside)), ["/precious"]);
}

#[test]
fn nobody_else_fills_a_target_meanwhile() {
    let target = tempfile::tempdir().unwrap();
    let extractor = Extractor::new(target.path(), quick()).unwrap();
    let error = Extractor::new(target.path(), quick()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    drop(extractor);
    assert!(Extractor::new(target.path(), quick()).is_ok());
}

#[test]
fn a_run_that_extracted_nothing_leaves_nothing() {
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
        assert!(!is_there || record_of(&target).is_none());
    }
}
