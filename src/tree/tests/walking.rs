//! What a walk finds, passes over, and cannot read.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink as make_symlink};
use std::os::unix::net::UnixListener;

fn with(options: WalkOptions, directory: &Path) -> (Vec<String>, Summary) {
    let (seen, summary) = walk_with(&[SourceSpec::new(directory)], &options).unwrap();
    (names(&seen), summary)
}

fn excluding(rules: &[&str]) -> WalkOptions {
    let exclude = rules.iter().map(|rule| rule.to_string()).collect();
    WalkOptions { exclude, rule_files: RuleFiles::Apply, ..WalkOptions::default() }
}

/// A directory with these files; a name that ends in `/` is a directory.
fn tree(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match name.ends_with('/') {
            true => fs::create_dir_all(path).unwrap(),
            false => fs::write(path, name).unwrap(),
        }
    }
    dir
}

#[test]
fn a_directory_is_followed_by_what_is_in_it() {
    let dir = tree(&["a-b", "a.b", "a/z", "a/b/c", "A", "b"]);
    let (names, summary) = with(WalkOptions::default(), dir.path());
    assert_eq!(names, ["/A", "/a", "/a/b", "/a/b/c", "/a/z", "/a-b", "/a.b", "/b"]);
    assert!(summary.newest.unwrap() > Time { seconds: 1_700_000_000, nanoseconds: 0 });
}

#[test]
fn later_names_of_a_file_or_a_link_are_hard_links_to_the_first() {
    let dir = tree(&["b/file"]);
    make_symlink("nowhere", dir.path().join("b/link")).unwrap();
    fs::hard_link(dir.path().join("b/file"), dir.path().join("a")).unwrap();
    fs::hard_link(dir.path().join("b/file"), dir.path().join("c")).unwrap();
    fs::hard_link(dir.path().join("b/link"), dir.path().join("d")).unwrap();
    let kinds: Vec<_> = walk(dir.path()).into_iter().map(|(entry, _)| entry.kind).collect();
    let link = |target: &str| Kind::Hardlink { target: path(target) };
    let symlink = Kind::Symlink { target: b"nowhere".to_vec() };
    let file = Kind::File { size: 6 };
    assert_eq!(
        kinds,
        [Kind::Directory, file, Kind::Directory, link("a"), symlink, link("a"), link("b/link")]
    );
}

#[test]
fn a_hard_link_whose_first_name_is_left_out_is_a_file() {
    let dir = tree(&["a"]);
    fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    let (seen, _) = walk_with(&[SourceSpec::new(dir.path())], &excluding(&["a"])).unwrap();
    assert_eq!(seen[1].0.kind, Kind::File { size: 1 });
    assert_eq!(seen[1].1, b"a");
}

#[test]
fn sockets_and_volios_own_record_are_passed_over() {
    let dir = tree(&[".volio.json", "below/.volio.json"]);
    let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
    let (names, summary) = with(WalkOptions::default(), dir.path());
    assert_eq!(names, ["/below", "/below/.volio.json"]);
    assert_eq!((summary.sockets, summary.excluded), (1, 0));
}

#[test]
fn rules_come_from_the_root_of_the_source_and_then_from_the_options() {
    let dir = tree(&["a.log", "keep.log", "target/x", "b/target/x", "b/c.tmp", "b/.volioignore"]);
    fs::write(dir.path().join(".volioignore"), "\u{feff}# rules\n*.log\r\n!keep.log\n/target/\n").unwrap();
    fs::write(dir.path().join("b/.volioignore"), "*\n").unwrap();
    let (names, summary) = with(excluding(&["*.tmp"]), dir.path());
    assert_eq!(
        names,
        ["/.volioignore", "/b", "/b/.volioignore", "/b/target", "/b/target/x", "/keep.log"],
        "the rules are part of the tree, those further below are nothing but files"
    );
    assert_eq!(summary.excluded, 3);
    let (names, _) = with(excluding(&["!a.log", ".volioignore", "b/"]), dir.path());
    assert_eq!(names, ["/a.log", "/keep.log"]);
}

#[test]
fn names_that_are_not_text_can_be_left_out() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tree(&["text"]);
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe.log")), "").unwrap();
    assert_eq!(with(WalkOptions::default(), dir.path()).0, ["/text", "/\\xff\\xfe.log"]);
    assert_eq!(with(excluding(&["*.log"]), dir.path()).0, ["/text"]);
    assert_eq!(with(excluding(&["??.log"]), dir.path()).0, ["/text"]);
}

#[test]
fn rules_that_make_no_sense_are_an_error_with_their_place() {
    let dir = tree(&["a"]);
    let failed = |options| walk_with(&[SourceSpec::new(dir.path())], &options).unwrap_err();
    let error = failed(excluding(&["a{b"]));
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("a{b"), "{error}");
    fs::write(dir.path().join(".volioignore"), "ok\na{b\n").unwrap();
    let error = failed(excluding(&[]));
    assert!(error.to_string().contains(".volioignore, line 2"), "{error}");
    fs::remove_file(dir.path().join(".volioignore")).unwrap();
    make_symlink("/dev/zero", dir.path().join(".volioignore")).unwrap();
    assert!(failed(excluding(&[])).to_string().contains(".volioignore"));
}

#[test]
fn a_rule_file_is_a_file_like_any_other_unless_it_is_to_be_applied() {
    let dir = tree(&["a"]);
    fs::write(dir.path().join(".volioignore"), "*\na{b\n").unwrap();
    let (names, summary) = with(WalkOptions::default(), dir.path());
    assert_eq!(
        (names.as_slice(), summary.excluded),
        (["/.volioignore".to_owned(), "/a".to_owned()].as_slice(), 0)
    );
}

#[test]
fn a_normalized_tree_says_nothing_about_the_machine() {
    let dir = tree(&["run", "read", "private/"]);
    fs::set_permissions(dir.path().join("run"), fs::Permissions::from_mode(0o6710)).unwrap();
    fs::set_permissions(dir.path().join("read"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.path().join("private"), fs::Permissions::from_mode(0o700)).unwrap();
    let _ = rustix::fs::setxattr(dir.path().join("read"), "user.a", b"b", rustix::fs::XattrFlags::empty());
    let mtime = Time { seconds: 42, nanoseconds: 0 };
    let options = WalkOptions { normalize: Some(mtime), ..WalkOptions::default() };
    let (seen, summary) = walk_with(&[SourceSpec::new(dir.path())], &options).unwrap();
    let plain = |mode| Metadata { mode, mtime, ..Metadata::default() };
    let metadata: Vec<_> = seen.into_iter().map(|(entry, _)| entry.metadata).collect();
    assert_eq!(metadata, [plain(0o755), plain(0o755), plain(0o644), plain(0o755)]);
    assert_eq!(summary.newest, Some(mtime));
}

#[test]
fn only_an_mtime_after_the_given_one_is_clamped() {
    let dir = tempfile::tempdir().unwrap();
    let (mut early, _) = file("early", "");
    early.metadata.mtime = Time { seconds: -5, nanoseconds: 1 };
    extract(&[file("late", ""), (early, vec![])], dir.path()).unwrap();
    let latest = Time { seconds: 7, nanoseconds: 0 };
    let options = WalkOptions { clamp_mtime: Some(latest), ..WalkOptions::default() };
    let (seen, summary) = walk_with(&[SourceSpec::new(dir.path())], &options).unwrap();
    let mtimes: Vec<_> = seen.iter().map(|(entry, _)| entry.metadata.mtime).collect();
    assert_eq!(mtimes, [latest, Time { seconds: -5, nanoseconds: 1 }, latest]);
    assert_eq!(summary.newest, Some(latest));
}

#[test]
fn a_source_that_is_missing_or_neither_directory_nor_file_is_an_error_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let error = walk_with(&[SourceSpec::new(&missing)], &WalkOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");
    let error = walk_with(&[SourceSpec::new("/dev/null")], &WalkOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn what_vanishes_or_changes_under_the_walk_is_an_error_with_its_name() {
    let dir = tree(&["a", "b", "c/d"]);
    let mut walk = Walk::new(&[SourceSpec::new(dir.path())], &WalkOptions::default()).unwrap();
    assert!(walk.next().unwrap().is_ok());
    fs::remove_file(dir.path().join("a")).unwrap();
    let error = walk.next().unwrap().unwrap_err();
    let vanished = dir.path().join("a").display().to_string();
    assert!(error.to_string().contains(&vanished) && error.to_string().contains("vanished"), "{error}");
    assert!(walk.next().is_none(), "an error is the end");

    let mut walk = Walk::new(&[SourceSpec::new(dir.path())], &WalkOptions::default()).unwrap();
    assert!(walk.next().unwrap().is_ok());
    fs::rename(dir.path().join("c"), dir.path().join("b")).unwrap_err();
    fs::remove_file(dir.path().join("b")).unwrap();
    make_symlink("/etc/passwd", dir.path().join("b")).unwrap();
    let found = walk.next().unwrap().unwrap();
    assert_eq!(found.entry.kind, Kind::Symlink { target: b"/etc/passwd".to_vec() }, "it is what it is now");
    let failing = WalkOptions { on_change: OnChange::Fail, ..WalkOptions::default() };
    fs::write(dir.path().join("d"), "").unwrap();
    let mut walk = Walk::new(&[SourceSpec::new(dir.path())], &failing).unwrap();
    assert!(walk.nth(3).unwrap().is_ok(), "the root, b, c and what is in it");
    fs::remove_file(dir.path().join("d")).unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    let error = walk.next().unwrap().unwrap_err();
    assert!(error.to_string().ends_with("/d changed while it was read: it became something else"), "{error}");
}

#[test]
fn a_mount_is_crossed_unless_that_is_not_wanted_and_its_lost_and_found_is_passed_over() {
    let name = "walking::a_mount_is_crossed_unless_that_is_not_wanted_and_its_lost_and_found_is_passed_over";
    let Some(dir) = again_with_mounts(name) else { return };
    let mounted = dir.join("mounted");
    fs::create_dir_all(dir.join("lost+found")).unwrap();
    fs::create_dir_all(&mounted).unwrap();
    mount_small(&mounted);
    fs::create_dir_all(mounted.join("lost+found")).unwrap();
    fs::write(mounted.join("file"), "").unwrap();

    let one_file_system = WalkOptions { one_file_system: true, ..WalkOptions::default() };
    assert_eq!(with(one_file_system.clone(), &dir).0, ["/lost+found", "/mounted"]);
    let all = ["/lost+found", "/mounted", "/mounted/file", "/mounted/lost+found"];
    assert_eq!(
        with(WalkOptions::default(), &dir).0,
        all,
        "only what is in the root of a source is passed over"
    );
    assert_eq!(with(one_file_system, &mounted).0, ["/file"]);
}
